/* page/cq.c - 4, 2 and 1 bits: neighbouring channels coupled in one code of 8 bits.
 *
 * Coupled quantisation (Zhang et al., "KV Cache is 1 Bit Per Channel", 2024): c channels of a slot
 * are one of 255 points that calibration found for this lane and these channels. Channels of one head
 * depend on each other, and what they have in common is said once. No scale, nothing
 * else is in a page. Keys are coupled as they were before rotation (book.h). Repack: copy.
 *
 *     K and V, P = 64, D = 128     cq4 (c = 2)   cq2 (c = 4)   cq1 (c = 8)
 *     slot 0, a byte per group     0 .. 63       0 .. 31       0 .. 15
 *     slot 1                       64 .. 127     32 .. 63      16 .. 31
 *     ...                          .. 4095       .. 2047       .. 1023
 *
 * Code 255 in the first group says that the slot's row is not finite.
 * Bytes per slot, K and V alike: D / c: cq4 32 at head_dim 64, 64 at 128; cq2 16 and 32; cq1 8 and 16 (4, 2
 * and 1 bits). Where c does not divide D, the last group has fewer channels.
 * Beside the pages a book of D + 255 D numbers for K, and for V, of each lane.
 * Error: of a group that of the nearest point, by squares weighted with how much each channel's error
 * counts; nothing bounds it but the text the book was made from.
 */
#include "page/cq.h"

#include "kernel/lookup.h"

#include <math.h>
#include <string.h>

/* ---- encoding -------------------------------------------------------------------------- */

void wn_cq_table(float *table, const float *points, const float *weights, int c, int n)
{
    for (int k = 0; k < c; k++) {
        float w = k < n ? weights[k] : 0;
        for (int i = 0; i < WN_CQ_POINTS; i++) table[k * WN_LOOKUP_POINTS + i] = points[i * c + k] * w;
        table[k * WN_LOOKUP_POINTS + WN_CQ_SPOILED] = INFINITY;
    }
}

static size_t frame_bytes(int c, int P, int head_dim)
{
    return ((size_t)P * (size_t)wn_cq_groups(c, head_dim) + 63) & ~(size_t)63;
}

enum { AT_ONCE = 16, WIDEST = 8 };      /* slots; channels of a group */

/* Codes of some slots, a row of groups each. */
static void encode_rows(int c, const wn_book *b, uint8_t *codes, const float *rows, int n, int head_dim)
{
    float x[WIDEST], table[WIDEST * WN_LOOKUP_POINTS], far;
    int groups = wn_cq_groups(c, head_dim);
    for (int g = 0; g < groups; g++) {
        const float *weights = b->x + g * c;
        int width = WN_MIN(c, head_dim - g * c);
        wn_cq_table(table, b->x + wn_cq_points_at(c, head_dim, g), weights, c, width);
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < c; k++) x[k] = k < width ? rows[i * WN_BOOK_DIM + g * c + k] * weights[k] : 0;
            codes[(size_t)(i * groups + g)] = (uint8_t)wn_kernels_get()->lookup->nearest(x, table, c, &far);
        }
    }
}

static void encode(int c, const wn_book *b, uint8_t *codes, const void *raw, const wn_format *raw_format, int P, int n,
                   uint64_t keep, int head_dim, wn_page_place place)
{
    float rows[AT_ONCE * WN_BOOK_DIM];
    size_t groups = (size_t)wn_cq_groups(c, head_dim);
    int end = WN_MIN(n, P);
    memset(codes, 0, frame_bytes(c, P, head_dim));
    for (int s = 0; s < end; s += AT_ONCE) {
        int m = WN_MIN(AT_ONCE, end - s);
        uint8_t *to = codes + (size_t)s * groups;
        uint64_t live = keep >> s & ((1u << m) - 1);
        if (!live) continue;
        uint64_t finite = wn_book_load(b, rows, raw, raw_format, P, s, m, head_dim, place);
        encode_rows(c, b, to, rows, m, head_dim);
        for (int i = 0; i < m; i++, to += groups)
            if (!((live & finite) >> i & 1)) memset(to, live >> i & 1 ? WN_CQ_SPOILED : 0, groups);
    }
}

/* ---- reading --------------------------------------------------------------------------- */

static bool get_row(int c, const wn_book *b, const void *frame, int slot, float *row, int head_dim)
{
    int groups = wn_cq_groups(c, head_dim);
    const uint8_t *codes = (const uint8_t *)frame + (size_t)slot * (size_t)groups;
    const float *points = b->x + head_dim;
    if (codes[0] == WN_CQ_SPOILED) return false;
    for (int g = 0; g < groups; g++, points += WN_CQ_POINTS * c)
        memcpy(row + g * c, points + codes[g] * c, sizeof *row * (size_t)WN_MIN(c, head_dim - g * c));
    return true;
}

static void copy(int c, void *dst, int to, const void *src, int from, int head_dim)
{
    size_t groups = (size_t)wn_cq_groups(c, head_dim);
    memcpy((uint8_t *)dst + (size_t)to * groups, (const uint8_t *)src + (size_t)from * groups, groups);
}

/* ---- the formats ------------------------------------------------------------------------- */

#define COUPLED(IDENT, NAME, C)                                                                            \
    static size_t IDENT##_bytes(int P, int D) { return frame_bytes(C, P, D); }                             \
    static size_t IDENT##_numbers(int D, bool of_v)                                                        \
    {                                                                                                      \
        (void)of_v;                                                                                        \
        return wn_cq_numbers(C, D);                                                                        \
    }                                                                                                      \
    static void IDENT##_encode(const wn_book *b, void *f, const void *raw, const wn_format *rf, int P,     \
                               int n, uint64_t keep, int D, wn_page_place place)                           \
    {                                                                                                      \
        encode(C, b, f, raw, rf, P, n, keep, D, place);                                                    \
    }                                                                                                      \
    static bool IDENT##_row(const wn_book *b, const void *f, int slot, float *row, int D)                  \
    {                                                                                                      \
        return get_row(C, b, f, slot, row, D);                                                             \
    }                                                                                                      \
    static void IDENT##_get(const wn_book *b, const void *f, int P, int slot, int32_t pos, float *row,     \
                            int D)                                                                         \
    {                                                                                                      \
        (void)P;                                                                                           \
        wn_book_get(b, IDENT##_row, f, slot, pos, row, D);                                                 \
    }                                                                                                      \
    static void IDENT##_copy(void *dst, int to, const void *src, int from, int P, int D)                   \
    {                                                                                                      \
        (void)P;                                                                                           \
        copy(C, dst, to, src, from, D);                                                                    \
    }                                                                                                      \
    static void IDENT##_score(const wn_page_score *s) { wn_book_score(s, IDENT##_row); }                   \
    static void IDENT##_mix(const wn_page_mix *m) { wn_book_mix(m, IDENT##_row); }                         \
    static const wn_calibrated IDENT##_calibrated = {                                                      \
        .numbers = IDENT##_numbers, .encode = IDENT##_encode, .get = IDENT##_get,                          \
    };                                                                                                     \
    const wn_format wn_format_##IDENT = {                                                                  \
        .name = NAME, .lag = 1, .k_repack = WN_REPACK_COPY, .v_repack = WN_REPACK_COPY,                    \
        .k_bytes = IDENT##_bytes, .v_bytes = IDENT##_bytes, .copy_k = IDENT##_copy, .copy_v = IDENT##_copy,\
        .score = IDENT##_score, .mix = IDENT##_mix, .calibrated = &IDENT##_calibrated,                     \
    }

COUPLED(cq4, "cq4", 2);
COUPLED(cq2, "cq2", 4);
COUPLED(cq1, "cq1", 8);

int wn_cq_coupled(const wn_format *f)
{
    static const wn_format *const coupled[] = { &wn_format_cq4, &wn_format_cq2, &wn_format_cq1 };
    for (int i = 0; i < (int)WN_COUNT(coupled); i++)
        if (f->calibrated == coupled[i]->calibrated) return 2 << i;
    return 0;
}
