/* kernel/codes.h - the leaf loops of encoded pages: products of integers with codes as they lie.
 *
 * Score and mix are one product over codes, as they are over raw pages:
 *
 *     t[i][n] = sum over k of x[i][k] * u[k][n]
 *
 *     score   x = a query, k = channel        u = codes of K, n = slot
 *     mix     x = a row of weights, k = slot  u = codes of V, n = channel
 *
 * x is the float row rounded to integers of 16 bits under one scale; u is a code of 2 to 8
 * bits, or the entry of a table that a code names, 0 .. 255. The sum is exact in int32, so no
 * order, width or number of rows can change it; around it stand a few float operations per
 * parameter group, in a stated order: all tables give the same bits (tests/parity/codes.c).
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
    WN_CODES_DEPTH = 512,       /* rows at most: 512 * 32512 * 128 (codes about their middle) < 2^31 */
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

/* Rows of a block of the narrowest plane. */
static inline int wn_codes_unit_of(int low, int high) { return 32 / (high && high < low ? high : low); }
static inline int wn_codes_unit(wn_codes_kind k) { return wn_codes_unit_of(wn_codes_low(k), wn_codes_high(k)); }

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

/* A row of x. Its integers follow: 8 bytes for 4 of them, as a table's product wants them. */
typedef struct {
    float scale;                        /* value = scale * integer; NaN: some value was not finite */
    float offset;                       /* added to every column of a mix (parameters with a minimum) */
    int32_t total;                      /* of all integers */
    int32_t sum[WN_CODES_GROUPS];       /* of each 32 */
    int32_t unused[45];
} wn_codes_x;
_Static_assert(sizeof(wn_codes_x) == 256, "four lines");

/* With its integers: rows are padded with zeros to a multiple of 64. */
static inline size_t wn_codes_x_bytes(int depth)
{
    return sizeof(wn_codes_x) + ((size_t)depth + 63) / 64 * 128;
}

/* The scales of a page of V, as floats: what weighs its slots. Slots beyond the page are 0. */
enum { WN_CODES_SLOTS = 64 };
typedef struct {
    float s[WN_CODES_GROUPS][WN_CODES_SLOTS];
    float most[WN_CODES_SLOTS];         /* the largest magnitude of a slot's; NaN where one is */
} wn_codes_scales;

typedef struct {
    const uint8_t *low, *high;          /* planes; high NULL without */
    const uint8_t *table;               /* (16), mapped kinds */
    int n_cols;                         /* a multiple of 16 */
    int depth;                          /* of the planes: a multiple of wn_codes_unit() */
    int from, to;                       /* rows that count, multiples of the unit: x is 0 elsewhere */
    int zero, shift;                    /* t = (sum << shift) - zero * sum of x: value of code u is (u << shift) - zero */
    int n_rows;
    const wn_codes_x *x;                /* rows x_stride bytes apart */
    size_t x_stride;
    float *c;
    size_t c_stride;
    /* score: parameters of the outputs */
    int group;                          /* rows that share one: a multiple of 32, or >= depth */
    const uint16_t *s, *m;              /* f16 (groups, param_stride); m NULL: none */
    size_t param_stride;
    /* mix: parameters are in x already */
    int col_group;                      /* columns that share an x: a multiple of 16 */
    size_t x_group;                     /* bytes from one column group's x to the next's */
    bool add;                           /* continue what c holds; else start from 0 */
    wn_ahead *ahead;                    /* fetched evenly meanwhile; NULL: nothing */
} wn_codes_product;

/* How a row of numbers becomes codes and parameters. s and m are stored as f16; s is rounded up
 * unless it says so, so that nothing but a scale beyond 65504 cuts a value off. */
typedef enum {
    WN_GRID_CENTRE,     /* value = s (u - 2^(b-1)), s = max |x| / (2^(b-1) - 1) */
    WN_GRID_MIDDLE,     /* value = s (2 u + 1 - 2^b), s = max |x| / 2^b: half a step, no code for 0 */
    WN_GRID_RANGE,      /* value = s u + m, m = min (rounded down), s = (max - m) / (2^b - 1) */
    WN_GRID_TABLE,      /* value = s (table[u] - 128), codes by s = max |x| / 127, then s from wn_codes_fit() */
    WN_GRID_GGML_8,     /* ggml's q8_0: as CENTRE, s to nearest, codes by the unrounded s */
    WN_GRID_GGML_0,     /* q4_0, q5_0: s = -x / 2^(b-1), x of largest magnitude, the first of them */
    WN_GRID_GGML_1,     /* q4_1, q5_1: as RANGE, s and m to nearest, codes by the unrounded ones */
} wn_codes_grid;

struct wn_codes_ops {
    /* (n) floats v, each times by[i] if given, into a row of x. Integers to nearest, ties to even; a
     * maximum below 2^-100 gives 0, one that is not finite scale NaN. offset is left alone. */
    void (*quantise)(wn_codes_x *x, const float *v, const float *by, int n);
    /* Halves s[g * stride + slot] of n_groups groups, n slots. */
    void (*scales)(wn_codes_scales *out, const uint16_t *s, size_t stride, int n_groups, int n);
    /* Weights w (64) of slots, times their scales, into n_groups rows of x, x_group bytes apart, under
     * one scale: the largest of |w most| / X_MAX; integers (w / scale) s to nearest. w == 0 gives 0
     * whatever s is. */
    void (*weigh)(wn_codes_x *x, size_t x_group, const float *w, const wn_codes_scales *by, int n_groups);
    /* out[i] = half h[i]. */
    void (*widen)(float *out, const uint16_t *h, int n);
    /* Sum of v[i] * by[i] in 16 chains by i mod 16 and wn_tree16(); v == 0 gives 0. */
    float (*dot)(const float *v, const float *by, int n);

    /* In place, orthonormal: blocks of the powers of two that make up n, largest first. */
    void (*hadamard)(float *x, int n);
    /* n values into n codes and the parameters of each `group` of them (0: one for all), f16 at
     * s[g * stride], m[g * stride]. A row that is not all finite: s = m = NaN, codes 0. */
    void (*encode)(uint8_t *codes, uint16_t *s, uint16_t *m, size_t stride, const float *x, int n, int group,
                   wn_codes_kind kind, wn_codes_grid grid, const uint8_t *table);
};

extern const wn_codes_ops wn_codes_ops_scalar, wn_codes_ops_avx2, wn_codes_ops_avx512;

/* Products with the planes of a page. */
struct wn_planes_ops {
    /* c = x.scale * chain over groups g of fma(s_g, t_g, .) [then fma(m_g, sum of x_g, .)]; all
     * n_cols are written. */
    void (*score[WN_CODES_KINDS])(const wn_codes_product *p);
    /* c = fma(x.scale, t, c) + x.offset; all n_cols are written. */
    void (*mix[WN_CODES_KINDS])(const wn_codes_product *p);
    /* Around many products on one thread, where setting up costs: what it sets up stays. NULL: nothing. */
    void (*hold)(bool hold);
};

extern const wn_planes_ops wn_planes_ops_scalar, wn_planes_ops_avx2, wn_planes_ops_avx512, wn_planes_ops_amx;

/* Halves for parameters. */

/* The least half that is not below x >= 0; 65504 where there is none. */
static inline uint16_t wn_codes_f16_up(float x)
{
    if (x >= 65504) return 0x7bff;
    uint16_t h = wn_elem_to_f16(x);
    return wn_elem_from_f16(h) < x ? (uint16_t)(h + 1) : h;
}

/* The nearest half; what is too large becomes the largest. */
static inline uint16_t wn_codes_f16_near(float x) { return wn_elem_to_f16(x > 65504 ? 65504 : x < -65504 ? -65504 : x); }

/* The largest half that is not above x. */
static inline uint16_t wn_codes_f16_down(float x)
{
    if (x > 0) {
        uint16_t h = x >= 65504 ? 0x7bff : wn_elem_to_f16(x);
        return wn_elem_from_f16(h) > x ? (uint16_t)(h - 1) : h;
    }
    return (uint16_t)(wn_codes_f16_up(-x) | 0x8000);
}

/* The scale of a group whose codes are chosen: the one under which the group's product with
 * itself comes out right, sum x^2 = s sum x t. Steps of least square error alone shrink all products by
 * that error (0.7 % with 4 bits, 12 % with 2), which no averaging takes away. Not below s0, at
 * which the codes were chosen, nor so far above that the largest number would grow. 16 chains. */
static inline uint16_t wn_codes_fit(const float *x, const uint8_t *codes, int n, const uint8_t *table, int top, float s0)
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
    return wn_codes_plane_bytes(bits, depth, panel * WN_CODES_PANEL) + (size_t)((block * width + n % WN_CODES_PANEL) * 4 + k % 4);
}

#endif
