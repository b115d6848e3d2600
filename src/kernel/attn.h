/* kernel/attn.h - the leaf loops of attention: products over raw pages and the softmax
 * pieces between them.
 *
 * Score and mix are one loop. With K kept channel-major and V slot-major, both are
 *
 *     c[i][x] = c0 + sum over j of a[i][j] * b[j][x]
 *
 *     score   a = queries (row, channel)    b = K frame (channel, slot)   c0 = 0
 *     mix     a = weights (row, slot)       b = V frame (slot, channel)   c0 = c[i][x]
 *
 * one FMA chain over ascending j per element, so no tile size, vector width or number of
 * rows can change a bit: all tables give the same results, bit for bit (a NaN may differ
 * in its payload). Vector lanes are x; nothing is summed across lanes.
 */
#ifndef WN_KERNEL_ATTN_H
#define WN_KERNEL_ATTN_H

#include "kernel/elem.h"
#include "kernel/kernel.h"

enum { WN_SUM_AT = 512 };               /* indices of sum_at(): the positions of a split */

typedef struct {
    float *c;                   /* (n_rows, n_cols), rows c_stride floats apart */
    size_t c_stride;
    const float *a;             /* (n_rows, depth) */
    size_t a_stride;
    const void *b;              /* (depth, n_cols), rows b_stride elements apart */
    size_t b_stride;
    int n_rows, n_cols, depth;
    bool add;                   /* continue the chain that c holds; else start from 0 */
    float *tmp;                 /* many rows: b is widened once into here (wn_attn_tmp_bytes); or
                                   NULL */
    const void *ahead;          /* bytes wanted soon: fetched while this runs; or NULL */
    size_t ahead_bytes;
} wn_attn_product;

struct wn_attn_ops {
    /* Exactly n_cols elements of each row of b are read, exactly n_cols of c written. */
    void (*product[WN_ELEMS])(const wn_attn_product *p);

    /* dst[i] = x[i] as an element (a row of V). */
    void (*put_row[WN_ELEMS])(void *dst, const float *x, int n);
    /* dst[d * dst_stride + s] = rows[s * stride + d] for s < n, d < depth (rows of K). */
    void (*put_cols[WN_ELEMS])(void *dst, size_t dst_stride, const float *rows, size_t stride,
                               int n, int depth);

    /* The ways back: x[i] = element i; rows[s * stride + d] = src[d * src_stride + s]. */
    void (*get_row[WN_ELEMS])(float *x, const void *src, int n);
    void (*get_cols[WN_ELEMS])(float *rows, size_t stride, const void *src, size_t src_stride,
                               int n, int depth);

    /* dst[d * dst_stride + s] = x / |x| of column s of src for s < n, a column of zeros as it is.
     * |x|^2 is one chain of doubles in ascending d; dst and src may be the same floats. */
    void (*unit_cols[WN_ELEMS])(float *dst, size_t dst_stride, const void *src, size_t src_stride,
                                int n, int depth);

    /* Maximum of n values, -INFINITY for none; NaN is passed over. */
    float (*max)(const float *x, int n);
    /* x[i] = exp(x[i] - m), and chains[i mod 16] += x[i]; n a multiple of 16. */
    void (*exp_sum)(float *x, float m, int n, float chains[16]);
    /* Of up to 4 rows x (n_rows, stride): chains[row][c] = the sum of row[e] over all e of n whose
     * index[e] is c mod 16, in the order of indices, which differ and are below WN_SUM_AT. room:
     * (4, WN_SUM_AT) floats, aligned to 64 bytes. */
    void (*sum_at)(const float *x, size_t stride, int n_rows, const int16_t *index, int n,
                   float *room, float chains[4][16]);
    /* x[i] = cap * tanh(x[i] / cap) */
    void (*softcap)(float *x, float cap, int n);
    /* acc[i] = fma(b, more[i], a * acc[i]) */
    void (*merge)(float *acc, float a, const float *more, float b, int n);
    /* out[i] = acc[i] / l + 0 (no negative zero); says whether all are finite. */
    bool (*divide)(float *out, const float *acc, float l, int n);
};

extern const wn_attn_ops wn_attn_ops_scalar, wn_attn_ops_avx2, wn_attn_ops_avx512;

/* Bytes of a product's tmp, 64-byte aligned. */
static inline size_t wn_attn_tmp_bytes(int n_cols, int depth)
{
    return ((size_t)n_cols + 63) / 64 * 64 * (size_t)depth * sizeof(float);
}

/* tanh(y) = (1 - e) / (1 + e), e = exp(-2|y|); near 0, where that cancels, an odd
 * polynomial (Cephes' tanhf coefficients, |y| < 0.625). */
#define WN_TANH_SMALL 0.625f
#define WN_TANH_C3 -3.33332819422e-1f
#define WN_TANH_C5 1.33314422036e-1f
#define WN_TANH_C7 -5.37397155531e-2f
#define WN_TANH_C9 2.06390887954e-2f
#define WN_TANH_C11 -5.70498872745e-3f

#endif
