/* page/cq.c - 4, 2 and 1 bits: neighbouring channels coupled in one code of 8 bits.
 *
 * Coupled quantisation (Zhang et al., "KV Cache is 1 Bit Per Channel", 2024): c channels of a slot
 * are one of 255 points that calibration found for this lane and these channels. Channels of one
 * head depend on each other, and what they have in common is said once. No scale, nothing else is
 * in a page. Keys are coupled as they were before rotation (book.h). Repack: copy.
 *
 *     V, P = 64, D = 128           cq4 (c = 2)   cq2 (c = 4)   cq1 (c = 8)
 *     slot 0, a byte per group     0 .. 63       0 .. 31       0 .. 15
 *     slot 1                       64 .. 127     32 .. 63      16 .. 31
 *     ...                          .. 4095       .. 2047       .. 1023
 *     K
 *     group 0, a byte per slot     0 .. 63       0 .. 63       0 .. 63
 *     group 1                      64 .. 127     64 .. 127     64 .. 127
 *     ...                          .. 4095       .. 2047       .. 1023
 *
 * K is read by channel, a column for each slot, and V slot by slot into the mix. Code 255 in the
 * first group says that the slot's row is not finite.
 * Bytes per slot, K and V alike: D / c: cq4 32 at head_dim 64, 64 at 128; cq2 16 and 32; cq1 8 and
 * 16 (4, 2 and 1 bits). Where c does not divide D, the last group has fewer channels. Beside the
 * pages a book of D + 255 D numbers for K, and for V, of each lane.
 * Error: of a group that of the nearest point, by squares weighted with how much each channel's
 * error counts; nothing bounds it but the text the book was made from.
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
        for (int i = 0; i < WN_CQ_POINTS; i++)
            table[k * WN_LOOKUP_POINTS + i] = points[i * c + k] * w;
        table[k * WN_LOOKUP_POINTS + WN_CQ_SPOILED] = INFINITY;
    }
}

static size_t frame_bytes(int c, int P, int head_dim)
{
    return ((size_t)P * (size_t)wn_cq_groups(c, head_dim) + 63) & ~(size_t)63;
}

enum { AT_ONCE = 16, WIDEST = 8 };      /* slots; channels of a group */

/* Codes of some slots, a row of groups each. */
static void encode_rows(int c, const wn_book *b, uint8_t *codes, const float *rows, int n,
                        int head_dim)
{
    float x[WIDEST], table[WIDEST * WN_LOOKUP_POINTS], far;
    int groups = wn_cq_groups(c, head_dim);
    for (int g = 0; g < groups; g++) {
        const float *weights = b->x + g * c;
        int width = WN_MIN(c, head_dim - g * c);
        wn_cq_table(table, b->x + wn_cq_points_at(c, head_dim, g), weights, c, width);
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < c; k++)
                x[k] = k < width ? rows[i * WN_BOOK_DIM + g * c + k] * weights[k] : 0;
            codes[(size_t)(i * groups + g)] = (uint8_t)wn_kernels_get()->lookup->nearest(x, table,
                                                                                         c, &far);
        }
    }
}

/* Where the code of a slot's first group lies, and how far it is to the next group's. */
static uint8_t *codes_of(const wn_book *b, int c, const void *frame, int P, int slot, int head_dim,
                         size_t *step)
{
    uint8_t *codes = (uint8_t *)(uintptr_t)frame;       /* who may write through it is the callers'
                                                           affair */
    *step = b->of_v ? 1 : (size_t)P;
    return codes + (b->of_v ? (size_t)slot * (size_t)wn_cq_groups(c, head_dim) : (size_t)slot);
}

static void encode(int c, const wn_book *b, uint8_t *frame, const void *raw,
                   const wn_format *raw_format, int P, int n, uint64_t keep, int head_dim,
                   wn_page_place place)
{
    float rows[AT_ONCE * WN_BOOK_DIM];
    uint8_t codes[AT_ONCE * WN_BOOK_DIM];
    int groups = wn_cq_groups(c, head_dim), end = WN_MIN(n, P);
    memset(frame, 0, frame_bytes(c, P, head_dim));
    for (int s = 0; s < end; s += AT_ONCE) {
        int m = WN_MIN(AT_ONCE, end - s);
        uint64_t live = keep >> s & ((1u << m) - 1);
        if (!live) continue;
        uint64_t finite = wn_book_load(b, rows, raw, raw_format, P, s, m, head_dim, place);
        encode_rows(c, b, codes, rows, m, head_dim);
        for (; live; live &= live - 1) {
            int i = __builtin_ctzll(live);
            size_t step;
            uint8_t *to = codes_of(b, c, frame, P, s + i, head_dim, &step);
            for (int g = 0; g < groups; g++, to += step)
                *to = finite >> i & 1 ? codes[i * groups + g] : WN_CQ_SPOILED;
        }
    }
}

/* ---- reading --------------------------------------------------------------------------- */

/* Points as halves, 256 of each group: the last is what a spoiled slot reads as, NaN for K; in a
 * mix it counts for nothing. */
static size_t read_bytes(int c, int head_dim)
{
    return wn_cq_read_at(c, wn_cq_groups(c, head_dim)) * sizeof(uint16_t);
}

static void prepare(int c, const wn_book *b, uint16_t *read, int head_dim)
{
    for (int g = 0; g < wn_cq_groups(c, head_dim); g++) {
        const float *points = b->x + wn_cq_points_at(c, head_dim, g);
        uint16_t *to = read + wn_cq_read_at(c, g);
        for (int i = 0; i < WN_CQ_POINTS * c; i++) to[i] = wn_elem_to_f16(points[i]);
        for (int k = 0; k < c; k++) to[WN_CQ_SPOILED * c + k] = b->of_v ? 0 : 0x7e00;
    }
}

static bool get_row(int c, const wn_book *b, const void *frame, int P, int slot, float *row,
                    int head_dim)
{
    size_t step;
    const uint8_t *code = codes_of(b, c, frame, P, slot, head_dim, &step);
    if (*code == WN_CQ_SPOILED) return false;
    for (int d = 0; d < head_dim; d += c, code += step)
        memcpy(row + d, b->x + wn_cq_points_at(c, head_dim, d / c) + *code * c,
               sizeof *row * (size_t)WN_MIN(c, head_dim - d));
    return true;
}

static void get_columns(int c, const wn_book *b, const void *frame, int P, int first, int n,
                        float *x, int head_dim)
{
    const wn_lookup_ops *ops = wn_kernels_get()->lookup;
    const uint8_t *codes = (const uint8_t *)frame + first;
    float some[WIDEST * WN_BOOK_COLUMNS];
    for (int d = 0; d < head_dim; d += c, codes += P, x += c * WN_BOOK_COLUMNS) {
        bool whole = d + c <= head_dim;         /* else the last group has channels that are none */
        ops->points(whole ? x : some, WN_BOOK_COLUMNS,
                    (const uint16_t *)b->read + wn_cq_read_at(c, d / c), c, codes, n);
        if (!whole) memcpy(x, some, sizeof *x * (size_t)(head_dim - d) * WN_BOOK_COLUMNS);
    }
}

/* The codes of slots [first, first + n) of V. */
static void mix(int c, const wn_page_mix *m)
{
    size_t groups = (size_t)wn_cq_groups(c, m->head_dim);
    const uint8_t *codes = (const uint8_t *)m->frame + (size_t)m->first * groups;
    uint64_t spoiled = 0;
    for (int s = 0; s < m->n; s++)
        spoiled |= (uint64_t)(codes[(size_t)s * groups] == WN_CQ_SPOILED) << s;
    wn_kernels_get()->lookup->mix(&(wn_lookup_mix){
        .acc = m->acc, .acc_stride = m->acc_stride, .w = m->w, .w_stride = m->w_stride,
        .n_q = m->n_q, .n = m->n, .head_dim = m->head_dim, .codes = codes, .code_stride = groups,
        .points = m->book->read, .c = c });
    wn_book_spoil(m, spoiled);
}

static void copy(int c, bool of_v, void *dst, int to, const void *src, int from, int P,
                 int head_dim)
{
    size_t step;
    const wn_book side = { .of_v = of_v };
    uint8_t *a = codes_of(&side, c, dst, P, to, head_dim, &step),
            *b = codes_of(&side, c, src, P, from, head_dim, &step);
    for (int g = 0; g < wn_cq_groups(c, head_dim); g++, a += step, b += step) *a = *b;
}

/* ---- the formats ------------------------------------------------------------------------- */

#define COUPLED(IDENT, NAME, C)                                                                  \
    static size_t IDENT##_bytes(int P, int D) { return frame_bytes(C, P, D); }                   \
    static size_t IDENT##_numbers(int D, bool of_v)                                              \
    {                                                                                            \
        (void)of_v;                                                                              \
        return wn_cq_numbers(C, D);                                                              \
    }                                                                                            \
    static void IDENT##_encode(const wn_book *b, void *f, const void *raw, const wn_format *rf,  \
                               int P, int n, uint64_t keep, int D, wn_page_place place)          \
    {                                                                                            \
        encode(C, b, f, raw, rf, P, n, keep, D, place);                                          \
    }                                                                                            \
    static size_t IDENT##_read_bytes(int D, bool of_v)                                           \
    {                                                                                            \
        (void)of_v;                                                                              \
        return read_bytes(C, D);                                                                 \
    }                                                                                            \
    static void IDENT##_prepare(const wn_book *b, void *read, int D) { prepare(C, b, read, D); } \
    static bool IDENT##_row(const wn_book *b, const void *f, int P, int slot, float *row, int D) \
    {                                                                                            \
        return get_row(C, b, f, P, slot, row, D);                                                \
    }                                                                                            \
    static void IDENT##_columns(const wn_book *b, const void *f, int P, int first, int n,        \
                                float *x, int D)                                                 \
    {                                                                                            \
        get_columns(C, b, f, P, first, n, x, D);                                                 \
    }                                                                                            \
    static void IDENT##_copy_k(void *dst, int to, const void *src, int from, int P, int D)       \
    {                                                                                            \
        copy(C, false, dst, to, src, from, P, D);                                                \
    }                                                                                            \
    static void IDENT##_copy_v(void *dst, int to, const void *src, int from, int P, int D)       \
    {                                                                                            \
        copy(C, true, dst, to, src, from, P, D);                                                 \
    }                                                                                            \
    WN_BOOK_READ(IDENT)                                                                          \
    static void IDENT##_mix(const wn_page_mix *m)                                                \
    {                                                                                            \
        if (m->n_q >= WN_BOOK_MANY)                                                              \
            wn_book_mix(m, IDENT##_row);                                                         \
        else                                                                                     \
            mix(C, m);                                                                           \
    }                                                                                            \
    static const wn_calibrated IDENT##_calibrated = {                                            \
        .numbers = IDENT##_numbers,                                                              \
        .encode = IDENT##_encode,                                                                \
        .get = IDENT##_get,                                                                      \
        .read_bytes = IDENT##_read_bytes,                                                        \
        .prepare = IDENT##_prepare,                                                              \
    };                                                                                           \
    const wn_format wn_format_##IDENT = {                                                        \
        .name = NAME,                                                                            \
        .lag = 1,                                                                                \
        .k_repack = WN_REPACK_COPY,                                                              \
        .v_repack = WN_REPACK_COPY,                                                              \
        .k_bytes = IDENT##_bytes,                                                                \
        .v_bytes = IDENT##_bytes,                                                                \
        .copy_k = IDENT##_copy_k,                                                                \
        .copy_v = IDENT##_copy_v,                                                                \
        .score = IDENT##_score,                                                                  \
        .mix = IDENT##_mix,                                                                      \
        .calibrated = &IDENT##_calibrated,                                                       \
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
