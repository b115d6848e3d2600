/* kernel/codes.h - the leaf loops of encoded pages: products of integers with codes as they lie.
 *
 * Score and mix are one product over codes, as they are over raw pages:
 *
 *     t[i][n] = sum over k of x[i][k] * u[k][n]
 *
 *     score   x = a query, k = channel        u = codes of K, n = slot
 *     mix     x = a row of weights, k = slot  u = codes of V, n = channel
 *
 * x is the float row rounded to integers of 16 bits under one scale (of 8 in a score of narrow
 * codes); u is a code of 2 to 8 bits, or the entry of a table that a code names, 0 .. 255. The sum
 * is exact in int32, so no order, width or number of rows can change it; around it stand a few
 * float operations per parameter group, in a stated order: all tables give the same bits
 * (tests/parity/codes.c). A mix runs over all slots of a split, page after page, with one scale for
 * all of its weights and one
 * sum: however the slots are dealt to pages, the result is the same.
 *
 * Layout. Columns n are cut into panels of 32 (the last may have 16). A panel is the whole
 * depth of its columns in one stretch; four rows k stand together in a column, and narrow codes
 * share a byte by fields, so that a field shifted down is the operand of a four-way byte product:
 *
 *     8 bits   byte 4 n + j of block b: row 4 b + j                         4 rows a block
 *     4 bits   low nibble rows 8 b + j, high nibble 8 b + 4 + j             8 rows
 *     2 bits   bits 2 f, 2 f + 1: row 16 b + 4 f + j                       16 rows
 *     1 bit    bit f: row 32 b + 4 f + j                                   32 rows
 *
 * Codes of 3, 5 and 6 bits (and 8 as 4 + 4) are two planes, the lower and the higher bits,
 * each an array of its own: value = low + (high << low_bits). The depth of all planes is rounded
 * up to the rows of a block of the narrowest one; what lies beyond is 0.
 */
#ifndef WN_KERNEL_CODES_H
#define WN_KERNEL_CODES_H

#include "kernel/elem.h"
#include "kernel/vec.h"

#include <stddef.h>
#include <stdint.h>

enum {
    WN_CODES_PANEL = 32,        /* columns */
    WN_CODES_X_MAX = 32512,     /* 127 * 256: x = 256 hi + lo with both halves in a signed byte */
    WN_CODES_Q_MAX = 127,       /* of queries for narrow codes */
    WN_CODES_DEPTH = 512,       /* rows at most: 512 * 32512 * 128 (codes about their middle) <
                                   2^31 */
    WN_CODES_GROUP = 32,        /* parameter groups are multiples of it, or the whole depth */
    WN_CODES_GROUPS = WN_CODES_DEPTH / WN_CODES_GROUP,
};

/* Names give the bits of the planes, low before high; T: codes are places in a table. */
typedef enum {
    WN_CODES_8, WN_CODES_4_4, WN_CODES_4_2, WN_CODES_4_1, WN_CODES_4, WN_CODES_2_1, WN_CODES_2,
    WN_CODES_4T, WN_CODES_2_1T, WN_CODES_2T, WN_CODES_KINDS
} wn_codes_kind;

static inline int wn_codes_low(wn_codes_kind k)
{
    static const uint8_t bits[] = { 8, 4, 4, 4, 4, 2, 2, 4, 2, 2 };
    return bits[k];
}

static inline int wn_codes_high(wn_codes_kind k)
{
    static const uint8_t bits[] = { 0, 4, 2, 1, 0, 1, 0, 0, 1, 0 };
    return bits[k];
}

static inline bool wn_codes_mapped(wn_codes_kind k) { return k >= WN_CODES_4T; }

static inline int wn_codes_bits(wn_codes_kind k) { return wn_codes_low(k) + wn_codes_high(k); }

/* Codes of up to 4 bits, whose own steps are ten times coarser than those of a query in 8 bits: it
 * has no more. */
static inline bool wn_codes_narrow_of(int low, int high) { return low + high <= 4; }
static inline bool wn_codes_narrow(wn_codes_kind k)
{
    return wn_codes_narrow_of(wn_codes_low(k), wn_codes_high(k));
}

/* Rows of a block of the narrowest plane. */
static inline int wn_codes_unit_of(int low, int high)
{
    return 32 / (high && high < low ? high : low);
}
static inline int wn_codes_unit(wn_codes_kind k)
{
    return wn_codes_unit_of(wn_codes_low(k), wn_codes_high(k));
}

static inline int wn_codes_depth(wn_codes_kind k, int rows)
{
    int unit = wn_codes_unit(k);
    return (rows + unit - 1) / unit * unit;
}

static inline int wn_codes_cols(int n) { return (n + 15) / 16 * 16; }

static inline size_t wn_codes_plane_bytes(int bits, int depth, int cols)
{
    return (size_t)depth * (size_t)cols * (size_t)bits / 8;
}

/* What is known of up to four rows of x beside their integers. Those lie in blocks, 64 of depth of
 * four
 * rows: 128 bytes for each row in turn, arranged as a table's products want them. */
typedef struct {
    float scale[4];                     /* value = scale * integer; NaN: some value was not
                                           finite */
    float offset[4];                    /* added to every column of a mix (parameters with a
                                           minimum) */
    int32_t total[4];                   /* of all integers */
    int32_t sum[WN_CODES_GROUPS][4];    /* of each 32 of depth */
    int32_t unused[4];
} wn_codes_x;
_Static_assert(sizeof(wn_codes_x) == 320, "five lines");

enum { WN_CODES_BLOCK = 64, WN_CODES_BLOCK_BYTES = 4 * 2 * WN_CODES_BLOCK, WN_CODES_SLOTS = 64 };

static inline int wn_codes_blocks(int depth)
{
    return (depth + WN_CODES_BLOCK - 1) / WN_CODES_BLOCK;
}

/* Four rows with their integers behind them. */
static inline size_t wn_codes_x_bytes(int depth)
{
    return sizeof(wn_codes_x) + (size_t)wn_codes_blocks(depth) * WN_CODES_BLOCK_BYTES;
}

/* The four rows that row is one of, of rows that begin at x. */
static inline const wn_codes_x *wn_codes_rows(const wn_codes_x *x, size_t stride, int row)
{
    return (const wn_codes_x *)(const void *)((const char *)x + (size_t)(row / 4) * stride);
}

/* What is added to a sum of x u for u less zero. It may wrap, the whole does not. */
static inline int32_t wn_codes_zeros(int zero, int32_t sum_x)
{
    return (int32_t)(0u - (uint32_t)zero * (uint32_t)sum_x);
}

static inline char *wn_codes_integers(const wn_codes_x *x) { return (char *)(uintptr_t)(x + 1); }

/* What differs from page to page. */
typedef struct {
    const uint8_t *low, *high;          /* planes; high NULL without */
    /* score */
    const uint16_t *s, *m;              /* f16 (groups, param_stride); m NULL: none */
    float *c;                           /* (n_rows, n_cols), c_stride apart; all n_cols are
                                           written */
    /* mix */
    const char *x;                      /* integers of the rows: blocks of a column group, x_group
                                           bytes to the next's */
    int from, to;                       /* rows of the page that count, multiples of the unit: x is
                                           0 elsewhere */
} wn_codes_page;

/* Several pages, one after the other. */
typedef struct {
    const wn_codes_page *pages;
    int n_pages;
    wn_fetcher *fetcher;                /* asked meanwhile */
    const uint8_t *table;               /* (16), mapped kinds */
    int n_cols;                         /* a multiple of 16 */
    int depth;                          /* of the planes: a multiple of wn_codes_unit() */
    int n_rows;
    /* score */
    int zero, shift;                    /* t = (sum << shift) - zero * sum of x: value of code u is
                                           (u << shift) - zero */
    const wn_codes_x *x;                /* of rows 0 to 3, x_stride bytes to the next four; their
                                           integers behind them */
    size_t x_stride, c_stride;
    int group;                          /* rows that share parameters: a multiple of 32, or >=
                                           depth */
    size_t param_stride;
    /* mix */
    int col_group;                      /* columns that share an x: a multiple of 16 */
    size_t x_group;
    int32_t *t;                         /* (n_rows <= 4, n_cols), t_stride apart */
    size_t t_stride;
    bool add;                           /* to what t holds; else to 0 */
} wn_codes_product;

/* How a row of numbers becomes codes and parameters. s and m are stored as f16; s is rounded up
 * unless it says so, so that nothing but a scale beyond 65504 cuts a value off. */
typedef enum {
    WN_GRID_CENTRE,     /* value = s (u - 2^(b-1)), s = max |x| / (2^(b-1) - 1) */
    WN_GRID_MIDDLE,     /* value = s (2 u + 1 - 2^b), s = max |x| / 2^b: half a step, no code for
                           0 */
    WN_GRID_RANGE,      /* value = s u + m, m = min (rounded down), s = (max - m) / (2^b - 1) */
    WN_GRID_TABLE,      /* value = s (table[u] - 128), codes by s = max |x| / 127, then s from
                           wn_codes_fit() */
    WN_GRID_GGML_8,     /* ggml's q8_0: as CENTRE, s to nearest, codes by the unrounded s */
    WN_GRID_GGML_0,     /* q4_0, q5_0: s = -x / 2^(b-1), x of largest magnitude, the first of
                           them */
    WN_GRID_GGML_1,     /* q4_1, q5_1: as RANGE, s and m to nearest, codes by the unrounded ones */
} wn_codes_grid;

struct wn_codes_ops {
    /* (n) floats v, each times by[i] if given, into row i of x and the integers behind it, the
     * largest of them +-top. To nearest, ties to even; a maximum below 2^-100 gives 0, one that is
     * not finite scale NaN. offset is left alone. */
    void (*quantise)(wn_codes_x *x, int i, const float *v, const float *by, int n, int top);

    /* Weights of slots times the slots' scales, the rows of a mix, in three steps: */
    /* most[i] = the largest of it and |w s| over the 64 slots and all groups, as bits without their
     * sign (NaN is larger than all), of rows w + i w_stride. Slot j of group g has scale s[g *
     * stride + j], halves; where w is 0 whatever s is does not count. */
    void (*largest)(uint32_t most[4], const float *w, size_t w_stride, int n_rows,
                    const uint16_t *s, size_t stride, int n_groups);
    /* Sets x's scales for these, sums to 0, and gives the inverses, 0 where all integers are 0. */
    void (*begin)(wn_codes_x *x, int n_groups, const uint32_t most[4], float inverse[4]);
    /* Integers (w inverse) s, to nearest, into a block of each group, x_group bytes apart; their
     * sums are added to x[g].total. */
    void (*weigh)(char *block, size_t x_group, wn_codes_x *x, const float *w, size_t w_stride,
                  int n_rows, const float inverse[4], const uint16_t *s, size_t stride,
                  int n_groups, wn_fetcher *f);
    /* The columns [0, n) of row i of x: c = fma(scale, (t << shift) - zero * total, c) + offset;
     * add false: c is taken as 0. */
    void (*settle)(float *c, const int32_t *t, const wn_codes_x *x, int i, int n, int zero,
                   int shift, bool add);

    /* out[i] = half h[i]. */
    void (*widen)(float *out, const uint16_t *h, int n);
    /* Sum of v[i] * by[i] in 16 chains by i mod 16 and wn_tree16(); v == 0 gives 0. */
    float (*dot)(const float *v, const float *by, int n);

    /* In place, orthonormal: blocks of the powers of two that make up n, largest first. */
    void (*hadamard)(float *x, int n);
    /* n values into n codes and the parameters of each `group` of them (0: one for all), f16 at
     * s[g * stride], m[g * stride]. A row that is not all finite: s = m = NaN, codes 0. */
    void (*encode)(uint8_t *codes, uint16_t *s, uint16_t *m, size_t stride, const float *x, int n,
                   int group, wn_codes_kind kind, wn_codes_grid grid, const uint8_t *table);
};

extern const wn_codes_ops wn_codes_ops_scalar, wn_codes_ops_avx2, wn_codes_ops_avx512;

/* Products with the planes of pages. */
struct wn_planes_ops {
    /* x of narrow kinds within +-WN_CODES_Q_MAX. c = x.scale * chain over groups g of fma(s_g, t_g,
     * .) [then fma(m_g, sum of x_g, .)]. */
    void (*score[WN_CODES_KINDS])(const wn_codes_product *p);
    /* t = the sum over all pages' rows of x u, exact; codes as they are, without zero and shift. */
    void (*mix[WN_CODES_KINDS])(const wn_codes_product *p);
    /* Around many products on one thread, where setting up costs: what it sets up stays. NULL:
     * nothing. */
    void (*hold)(bool hold);
};

extern const wn_planes_ops wn_planes_ops_scalar, wn_planes_ops_avx2, wn_planes_ops_avx512,
    wn_planes_ops_amx;

/* Halves for parameters. */

/* The least half that is not below x >= 0; 65504 where there is none. */
static inline uint16_t wn_codes_f16_up(float x)
{
    if (x >= 65504) return 0x7bff;
    uint16_t h = wn_elem_to_f16(x);
    return wn_elem_from_f16(h) < x ? (uint16_t)(h + 1) : h;
}

/* The nearest half; what is too large becomes the largest. */
static inline uint16_t wn_codes_f16_near(float x)
{
    return wn_elem_to_f16(x > 65504 ? 65504 : x < -65504 ? -65504 : x);
}

/* The largest half that is not above x. */
static inline uint16_t wn_codes_f16_down(float x)
{
    if (x > 0) {
        uint16_t h = x >= 65504 ? 0x7bff : wn_elem_to_f16(x);
        return wn_elem_from_f16(h) > x ? (uint16_t)(h - 1) : h;
    }
    return (uint16_t)(wn_codes_f16_up(-x) | 0x8000);
}

/* The scale of a group whose codes are chosen: the one under which the group's product with itself
 * comes out right, sum x^2 = s sum x t. Steps of least square error alone shrink all products by
 * that error (0.7 % with 4 bits, 12 % with 2), which no averaging takes away. Not below s0, at
 * which the codes were chosen, nor so far above that the largest number would grow. 16 chains. */
static inline uint16_t wn_codes_fit(const float *x, const uint8_t *codes, int n,
                                    const uint8_t *table, int top, float s0)
{
    float xx[16] = { 0 }, xt[16] = { 0 }, most = 127.0f / (float)(table[top] - 128);
    for (int i = 0; i < n; i++) {
        xx[i & 15] += x[i] * x[i];
        xt[i & 15] += x[i] * (float)(table[codes[i]] - 128);
    }
    float s = wn_tree16(xx) / wn_tree16(xt), max = s0 * WN_MIN(most, 1.25f);
    return wn_codes_f16_near(!(s > s0) ? s0 : s > max ? max : s);
}

/* Where the field of (row k, column n) lies in a plane. */
static inline size_t wn_codes_at(int bits, int depth, int cols, int k, int n, int *shift)
{
    int panel = n / WN_CODES_PANEL, width = WN_MIN(WN_CODES_PANEL, cols - panel * WN_CODES_PANEL);
    int fields = 8 / bits, block = k / (4 * fields);
    *shift = k / 4 % fields * bits;
    return wn_codes_plane_bytes(bits, depth, panel * WN_CODES_PANEL) +
           (size_t)((block * width + n % WN_CODES_PANEL) * 4 + k % 4);
}

#endif
