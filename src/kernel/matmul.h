/* kernel/matmul.h - weights times activations, in the weights' own bits.
 *
 * out[t][r] = sum over k of W[r][k] * x[t][k], for a matrix W of n_rows (outputs) by
 * n_cols (inputs) and n_tokens rows of activations.
 *
 * Order of sums (DESIGN.md section 6; the same for 1 token and for 512, for any number of
 * threads, for mapped and for packed weights):
 *   32-block types   int32 exact inside a block; then per output one chain over blocks in
 *                    ascending k: acc = fma((float)isum, dw * dx, acc); offsets (Q4_1,
 *                    Q5_1) in a second chain, taken away at the end:
 *                    min = fma(-mw, dx * (float)xsum, min)
 *   K-quants         int32 exact inside the 256 super-block, its integer sub-scales
 *                    included; acc = fma((float)isum, dw * dx, acc); the minimums in a
 *                    second chain, subtracted at the end
 *   F32, F16         activations stay f32; 16 chains by k mod 16 (past the end of a row
 *                    zeros), then the fixed tree of wn_tree16()
 *   BF16             as F16 (matmul_scalar.c says why)
 * Activations for quantised weights are int8, absmax/127, one f32 scale per 32 values for
 * 32-block types and per 256 for K-quants.
 *
 * Types whose codes are numbers of a table (IQ4_NL, IQ4_XS, MXFP4) are as those with codes
 * of 8 bits and of 5 bits: the table holds integers.
 *
 * Weights are packed once at load (16 rows interleaved, 4 consecutive k per 32-bit lane;
 * matmul_pack.c draws it); packed sizes equal the file's, rows padded up to 16. Mapped
 * weights (--no-repack) are packed chunk by chunk on the way into the same kernel.
 */
#ifndef WN_KERNEL_MATMUL_H
#define WN_KERNEL_MATMUL_H

#include "base/threads.h"
#include "gguf/types.h"

typedef struct {
    wn_type type;
    bool packed;                /* layout of data: packed, or rows as in the file */
    int n_rows, n_cols;         /* outputs, inputs */
    const void *data;           /* borrowed */
} wn_matrix;

/* How activations must be prepared for a weight type. */
typedef enum { WN_ACT_F32, WN_ACT_Q32, WN_ACT_Q256 } wn_act_kind;
wn_act_kind wn_act_kind_for(wn_type t);

/* Can this type be multiplied at all, and with n_cols inputs? */
bool wn_matmul_supports(wn_type t, int n_cols);
/* Bytes of the packed form; 0 where the type stays as it is in the file (F32, F16, BF16). */
size_t wn_matrix_packed_bytes(wn_type t, int n_rows, int n_cols);
/* Packs rows [from, to) (from a multiple of 16; to likewise or n_rows) of src, rows as in
 * the file, into dst, the packed whole. Parts may be packed by different threads. */
void wn_matrix_pack(void *dst, const void *src, wn_type t, int n_rows, int n_cols, int from,
                    int to);
/* Rows [from, from + n_rows) of m as a matrix of its own, in the same bytes: one expert of a
 * stack of them, which is loaded as one tall matrix. Both numbers are multiples of 16 where
 * m is packed. */
wn_matrix wn_matrix_slice(const wn_matrix *m, int from, int n_rows);
/* Row r as n_cols floats, whatever the layout (embedding look-up). */
void wn_matrix_row(const wn_matrix *m, int r, float *out);

/* Prepared activations: the f32 rows themselves, or quantised and packed for the tiles.
 * buf must hold wn_act_bytes() and be 64-byte aligned; x (row stride n_cols) stays borrowed. */
typedef struct {
    wn_act_kind kind;
    int n_tokens, n_cols;
    const float *x;
    void *buf;
} wn_act;
size_t wn_act_bytes(wn_act_kind kind, int n_tokens, int n_cols);
void wn_act_prepare(wn_act *a, wn_act_kind kind, const float *x, int n_tokens, int n_cols,
                    void *buf, wn_threads *team);
/* Prepared rows once more, in another order: row i of dst is row rows[i] of src. Copies what
 * was prepared, so a row means the same in both. buf as for wn_act_prepare(), but of
 * wn_act_pick_bytes(); src may go afterwards. */
size_t wn_act_pick_bytes(wn_act_kind kind, int n_tokens, int n_cols);
void wn_act_pick(wn_act *dst, const wn_act *src, const int *rows, int n_tokens, void *buf,
                 wn_threads *team);

/* One product of a job: several matrices that share activations (q, k, v; gate, up) run
 * as one hand-out to the threads.
 *
 * Experts: wn_act_pick() puts the rows of each expert side by side, in token order; then
 * there is one product for each expert that has any, over its run of rows. A row's result
 * is that of the plain product, whoever is in its run.
 *
 *     rows by expert  | 0: t2 t5 t7 | 3: t0 | 4: t2 t9 |
 *     products          { gate[0], first 0, n 3 }, { gate[3], 3, 1 }, { gate[4], 4, 2 } */
typedef struct {
    const wn_matrix *w;
    float *out;                 /* (n, stride): row i for row first + i of the activations */
    size_t out_stride;          /* floats between rows */
    const float *bias;          /* (n_rows) added at the end, or NULL */
    int first, n;               /* which rows of the activations; n == 0: all of them */
} wn_product;
/* All products have n_cols == a->n_cols and the same activation kind as a. scratch: of
 * wn_matmul_scratch_bytes() per thread of the team, one block, 64-byte aligned. */
size_t wn_matmul_scratch_bytes(int n_threads);
void wn_matmul(const wn_product *p, int n_products, const wn_act *a, void *scratch,
               wn_threads *team);

#endif
