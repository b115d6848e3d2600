/* page/nuq.c - 4, 3 and 2 bits on levels that calibration found; keys channel by channel, as they
 * were before rotation.
 *
 * KVQuant (Hooper et al., "KVQuant: Towards 10 Million Context Length LLM Inference with KV Cache
 * Quantization", 2024): before rotation a channel of K has the same range at every position, so its
 * range is found once, from a text, and nothing of it is in a page; where levels lie between its
 * ends is common to the channels of a lane. V has a scale for each slot and 64 channels, and levels
 * of its lane. With -s1 one number of each 64 channels of a slot is kept beside its code: of K the
 * one whose error counts most, of V the largest, which then does not stretch the scale.
 *
 *     K    x = middle[d] + half[d] level[u]           + sparse number
 *     V    x = s table[u], as q3 without turning      + sparse number      table = 127 times the levels, rounded
 *
 *     K, P = 64, D = 128                                     nuq4           nuq3           nuq2
 *     slots that are not finite, 8 bytes, 56 of nothing      0 .. 63        0 .. 63        0 .. 63
 *     low bits, 4, 2, 2: byte r P + s, the first channel's   64 .. 4159     64 .. 2111     64 .. 2111
 *       lowest: slot s of channels 2 r, 4 r, 4 r and on
 *     high bit: byte r P + s, of channels 8 r and on         none           2112 .. 3135   none
 *     -s1: halves value[2][64], bytes channel[2][64]         4160 .. 4543   3136 .. 3519   2112 .. 2495
 *     V    a frame of page/coded.h with a scale for 64       0 .. 4351      0 .. 3327      0 .. 2303
 *     -s1: likewise behind it                                4352 .. 4735   3328 .. 3711   2304 .. 2687
 *
 * (Channels of a sparse number are counted within their 64; each part is rounded up to 64 bytes.)
 * Bytes per slot of K (V), head_dim 64 / 128: nuq4 33 (34) / 65 (68), nuq3 25 (26) / 49 (52), nuq2
 * 17 (18) / 33 (36); -s1 3 / 6 more. Beside the pages a book of 3 D + 16 numbers for K and 16 for V
 * of each lane. Repack: copy.
 * Error: of K half the gap between the levels around a number, without bound outside the range of
 * its channel; of V half the gap and what the fit of s adds.
 *
 * Differs from the paper: levels count errors by E q^2 and attention, not by gradients; a lane has
 * its own; outliers are one in 64 and not all beyond a threshold; V's scale is a largest magnitude,
 * not a range.
 */
#include "page/nuq.h"

#include "kernel/lookup.h"
#include "page/coded.h"

#include <math.h>
#include <string.h>

enum { AT_ONCE = 16 };                  /* slots */

/* ---- where things lie ------------------------------------------------------------------------ */

typedef struct {
    int bits;
    bool sparse;
    wn_coding v;                        /* without its table */
} nuq;

/* The parts of a frame. */
typedef struct {
    uint64_t *spoiled;                  /* K */
    uint8_t *low, *high;                /* K */
    uint16_t *value;                    /* [n][P] */
    uint8_t *place;
    int n;                              /* sparse numbers of a slot */
    size_t bytes;
} parts;

static int low_bits(const nuq *f) { return f->bits == 4 ? 4 : 2; }
static int blocks_of(int head_dim) { return (head_dim + WN_NUQ_BLOCK - 1) / WN_NUQ_BLOCK; }

static parts parts_of(const nuq *f, bool of_v, const void *frame, int P, int head_dim)
{
    parts x = { .n = f->sparse ? blocks_of(head_dim) : 0 };
    uint8_t *at = (uint8_t *)(uintptr_t)frame;          /* who may write through it is the callers'
                                                           affair */
    size_t slots = (size_t)P, low = (size_t)((head_dim * low_bits(f) + 7) / 8) * slots;
    size_t high = f->bits == 3 ? (size_t)((head_dim + 7) / 8) * slots : 0;
    x.spoiled = (uint64_t *)(void *)at;
    x.low = at + 64;
    x.high = at + 64 + wn_round64(low);
    size_t end = of_v ? wn_coded_v_bytes(&f->v, P, head_dim)
                      : 64 + wn_round64(low) + wn_round64(high);
    x.value = (uint16_t *)(void *)(at + end);
    end += wn_round64(2 * (size_t)x.n * slots);
    x.place = at + end;
    x.bytes = end + wn_round64((size_t)x.n * slots);
    return x;
}

static wn_coding v_coding(const nuq *f, const wn_book *b)
{
    wn_coding c = f->v;
    c.table = b->read;
    return c;
}

/* ---- what reading goes by -------------------------------------------------------------------- */

/* K: values of each channel's codes, floats [D][16]; V: bytes [16], places about 128 as in
 * kernel/codes.h. */
static size_t read_bytes(int head_dim, bool of_v) { return of_v ? 64 : 64 * (size_t)head_dim; }

static void prepare(const nuq *f, const wn_book *b, void *read, int head_dim)
{
    const float *level = b->x + wn_nuq_levels_at(head_dim, b->of_v);
    int count = 1 << f->bits;
    memset(read, 0, read_bytes(head_dim, b->of_v));
    for (int u = 0; u < count && b->of_v; u++)
        ((uint8_t *)read)[u] = (uint8_t)
            WN_MAX(1, WN_MIN(255, 128 + lrintf(127 * WN_MAX(-1, WN_MIN(1, level[u])))));
    for (int d = 0; d < head_dim && !b->of_v; d++)
        for (int u = 0; u < count; u++)
            ((float *)read)[d * WN_NUQ_LEVELS + u] = b->x[wn_nuq_middles_at(head_dim) + (size_t)d] +
                                                     b->x[wn_nuq_halves_at(head_dim) + (size_t)d] *
                                                         level[u];
}

/* ---- encoding K ------------------------------------------------------------------------------ */

/* What lies above mark[u] has a code above u. */
typedef float marks[WN_NUQ_LEVELS - 1][WN_BOOK_DIM];

static void find_marks(const nuq *f, const wn_book *b, marks m, int head_dim)
{
    const float *values = b->read;
    for (int u = 0; u + 1 < 1 << f->bits; u++)
        for (int d = 0; d < head_dim; d++)
            m[u][d] = 0.5f * (values[d * WN_NUQ_LEVELS + u] + values[d * WN_NUQ_LEVELS + u + 1]);
}

static void encode_row(const nuq *f, const parts *x, const marks m, const float *row,
                       uint8_t *codes, int P, int slot, int head_dim)
{
    int bits = low_bits(f);
    memset(codes, 0, (size_t)head_dim);
    for (int u = 0; u + 1 < 1 << f->bits; u++)
        for (int d = 0; d < head_dim; d++) codes[d] = (uint8_t)(codes[d] + (row[d] > m[u][d]));
    for (int d = 0; d < head_dim; d++) {
        size_t low = (size_t)(d * bits / 8 * P + slot), high = (size_t)(d / 8 * P + slot);
        x->low[low] = (uint8_t)(x->low[low] | (codes[d] & ((1 << bits) - 1)) << d * bits % 8);
        if (f->bits == 3) x->high[high] = (uint8_t)(x->high[high] | codes[d] >> bits << d % 8);
    }
}

/* Of each 64 channels the number whose error counts most, the first of those. */
static void keep_worst(const wn_book *b, const parts *x, const float *row, const uint8_t *codes,
                       int P, int slot, int head_dim)
{
    const float *values = b->read, *weight = b->x + wn_nuq_weights_at();
    for (int j = 0; j < x->n; j++) {
        float most = -1, off = 0;
        size_t at = (size_t)(j * P + slot);
        for (int d = j * WN_NUQ_BLOCK; d < head_dim && d < (j + 1) * WN_NUQ_BLOCK; d++) {
            float e = row[d] - values[d * WN_NUQ_LEVELS + codes[d]], counts = fabsf(e * weight[d]);
            if (!(counts > most)) continue;
            most = counts;
            off = e;
            x->place[at] = (uint8_t)(d % WN_NUQ_BLOCK);
        }
        x->value[at] = wn_codes_f16_near(off);
    }
}

static void encode_k(const nuq *f, const wn_book *b, void *frame, const void *raw,
                     const wn_format *raw_format, int P, int n, uint64_t keep, int head_dim,
                     wn_page_place place)
{
    float rows[AT_ONCE * WN_BOOK_DIM];
    uint8_t codes[WN_BOOK_DIM];
    marks m;
    parts x = parts_of(f, false, frame, P, head_dim);
    keep &= wn_low_bits(WN_MIN(n, P));
    memset(frame, 0, x.bytes);
    find_marks(f, b, m, head_dim);
    for (int s = 0; s < P; s += AT_ONCE) {
        uint64_t live = keep >> s & wn_low_bits(AT_ONCE);
        if (!live) continue;
        uint64_t finite = wn_book_load(b, rows, raw, raw_format, P, s, WN_MIN(AT_ONCE, P - s),
                                       head_dim, place);
        *x.spoiled |= (live & ~finite) << s;
        for (live &= finite; live; live &= live - 1) {
            int i = __builtin_ctzll(live);
            encode_row(f, &x, m, rows + i * WN_BOOK_DIM, codes, P, s + i, head_dim);
            keep_worst(b, &x, rows + i * WN_BOOK_DIM, codes, P, s + i, head_dim);
        }
    }
}

/* ---- encoding V ------------------------------------------------------------------------------ */

/* Without its largest numbers, whose places go into the page. */
static void thin_row(const parts *x, float *row, int P, int slot, int head_dim)
{
    for (int j = 0; j < x->n; j++) {
        int most = j * WN_NUQ_BLOCK;
        for (int d = most + 1; d < head_dim && d < (j + 1) * WN_NUQ_BLOCK; d++)
            if (fabsf(row[d]) > fabsf(row[most])) most = d;
        x->place[j * P + slot] = (uint8_t)(most % WN_NUQ_BLOCK);
        row[most] = 0;
    }
}

static void encode_v(const nuq *f, const wn_book *b, void *frame, const void *raw,
                     const wn_format *raw_format, int P, int n, uint64_t keep, int head_dim)
{
    _Alignas(64) float rest[WN_PAGE_SLOTS_MAX * WN_BOOK_DIM];
    float row[WN_BOOK_DIM], is[WN_BOOK_DIM];
    wn_coding c = v_coding(f, b);
    parts x = parts_of(f, true, frame, P, head_dim);
    if (!x.n) {
        wn_coded_encode_v(&c, frame, raw, raw_format, P, n, keep, head_dim);
        return;
    }
    keep &= wn_low_bits(WN_MIN(n, P));
    memset(x.value, 0, x.bytes - (size_t)((uint8_t *)x.value - (uint8_t *)frame));
    for (int s = 0; s < P; s++) {
        float *to = rest + s * head_dim;        /* a raw f32 frame of V */
        memset(to, 0, sizeof *to * (size_t)head_dim);
        if (!(keep >> s & 1)) continue;
        if (wn_book_load(b, row, raw, raw_format, P, s, 1, head_dim, (wn_page_place){ 0 })) {
            thin_row(&x, row, P, s, head_dim);
            memcpy(to, row, sizeof *to * (size_t)head_dim);
        } else
            for (int d = 0; d < head_dim; d++) to[d] = NAN;
    }
    wn_coded_encode_v(&c, frame, rest, &wn_format_f32, P, n, keep, head_dim);
    for (uint64_t left = keep; left; left &= left - 1) {
        int s = __builtin_ctzll(left);
        if (!wn_book_load(b, row, raw, raw_format, P, s, 1, head_dim, (wn_page_place){ 0 }))
            continue;
        wn_coded_get_v(&c, frame, P, s, is, head_dim);
        for (int j = 0; j < x.n; j++) {
            int d = j * WN_NUQ_BLOCK + x.place[j * P + s];
            x.value[j * P + s] = wn_codes_f16_near(row[d] - is[d]);
        }
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

static void add_sparse(const parts *x, int P, int slot, float *to, int stride)
{
    for (int j = 0; j < x->n; j++)
        to[(j * WN_NUQ_BLOCK + x->place[j * P + slot]) * stride] += wn_elem_from_f16(
            x->value[j * P + slot]);
}

static void get_columns(const nuq *f, const wn_book *b, const void *frame, int P, int first, int n,
                        float *x, int head_dim)
{
    const wn_lookup_ops *ops = wn_kernels_get()->lookup;
    parts p = parts_of(f, false, frame, P, head_dim);
    int bits = low_bits(f), step = 8 / bits;
    for (int d = 0; d < head_dim; d += step) {
        const uint8_t *high = f->bits == 3 ? p.high + d / 8 * P + first : NULL;
        ops->levels(x + d * WN_BOOK_COLUMNS, WN_BOOK_COLUMNS,
                    (const float *)b->read + d * WN_NUQ_LEVELS, WN_MIN(step, head_dim - d), bits,
                    p.low + d / step * P + first, high, d % 8, n);
    }
    for (int s = 0; s < n && p.n; s++) add_sparse(&p, P, first + s, x + s, WN_BOOK_COLUMNS);
    for (uint64_t left = *p.spoiled >> first & wn_low_bits(n); left; left &= left - 1)
        for (int d = 0; d < head_dim; d++) x[d * WN_BOOK_COLUMNS + __builtin_ctzll(left)] = NAN;
}

static bool get_k(const nuq *f, const wn_book *b, const void *frame, int P, int slot, float *row,
                  int head_dim)
{
    parts p = parts_of(f, false, frame, P, head_dim);
    int bits = low_bits(f);
    for (int d = 0; d < head_dim; d++) {
        int code = p.low[d * bits / 8 * P + slot] >> d * bits % 8 & ((1 << bits) - 1);
        if (f->bits == 3) code |= (p.high[d / 8 * P + slot] >> d % 8 & 1) << bits;
        row[d] = ((const float *)b->read)[d * WN_NUQ_LEVELS + code];
    }
    add_sparse(&p, P, slot, row, 1);
    return !(*p.spoiled >> slot & 1);
}

static bool get_v(const nuq *f, const wn_book *b, const void *frame, int P, int slot, float *row,
                  int head_dim)
{
    parts p = parts_of(f, true, frame, P, head_dim);
    wn_coding c = v_coding(f, b);
    wn_coded_get_v(&c, frame, P, slot, row, head_dim);
    add_sparse(&p, P, slot, row, 1);
    return !isnan(row[0]);
}

/* The codes first; then, for each block of 64 channels, the products of sparse numbers in the order
 * of slots. */
static void mix(const nuq *f, const wn_page_mix *m)
{
    wn_coding c = v_coding(f, m->book);
    parts p = parts_of(f, true, m->frame, m->P, m->head_dim);
    wn_coded_mix(&c, m);
    for (int j = 0; j < p.n; j++) {
        float value[WN_PAGE_SLOTS_MAX];
        const uint8_t *place = p.place + j * m->P + m->first;
        wn_kernels_get()->codes->widen(value, p.value + j * m->P + m->first, m->n);
        for (int i = 0; i < m->n_q; i++) {
            const float *w = m->w + (size_t)i * m->w_stride;
            float *acc = m->acc + (size_t)i * m->acc_stride + j * WN_NUQ_BLOCK;
            for (int s = 0; s < m->n; s++)
                if (w[s] != 0) acc[place[s]] += w[s] * value[s];
        }
    }
}

static void copy_sparse(const parts *dst, int to, const parts *src, int from, int P)
{
    for (int j = 0; j < src->n; j++) {
        dst->value[j * P + to] = src->value[j * P + from];
        dst->place[j * P + to] = src->place[j * P + from];
    }
}

static void copy_k(const nuq *f, void *dst, int to, const void *src, int from, int P, int head_dim)
{
    parts a = parts_of(f, false, dst, P, head_dim), b = parts_of(f, false, src, P, head_dim);
    *a.spoiled = (*a.spoiled & ~((uint64_t)1 << to)) | (*b.spoiled >> from & 1) << to;
    for (int r = 0; r < (head_dim * low_bits(f) + 7) / 8; r++)
        a.low[r * P + to] = b.low[r * P + from];
    for (int r = 0; r < (head_dim + 7) / 8 && f->bits == 3; r++)
        a.high[r * P + to] = b.high[r * P + from];
    copy_sparse(&a, to, &b, from, P);
}

static void copy_v(const nuq *f, void *dst, int to, const void *src, int from, int P, int head_dim)
{
    parts a = parts_of(f, true, dst, P, head_dim), b = parts_of(f, true, src, P, head_dim);
    wn_coded_copy_v(&f->v, dst, to, src, from, P, head_dim);
    copy_sparse(&a, to, &b, from, P);
}

/* ---- the formats ----------------------------------------------------------------------------- */

static size_t numbers(int head_dim, bool of_v) { return wn_nuq_numbers(head_dim, of_v); }

#define NUQ(IDENT, NAME, BITS, KIND, SPARSE)                                                     \
    static const nuq IDENT = {                                                                   \
        .bits = BITS,                                                                            \
        .sparse = SPARSE,                                                                        \
        .v = { .kind = KIND, .grid = WN_GRID_TABLE, .group = WN_NUQ_BLOCK },                     \
    };                                                                                           \
    static size_t IDENT##_k_bytes(int P, int D)                                                  \
    {                                                                                            \
        return parts_of(&IDENT, false, NULL, P, D).bytes;                                        \
    }                                                                                            \
    static size_t IDENT##_v_bytes(int P, int D)                                                  \
    {                                                                                            \
        return parts_of(&IDENT, true, NULL, P, D).bytes;                                         \
    }                                                                                            \
    static void IDENT##_prepare(const wn_book *b, void *read, int D)                             \
    {                                                                                            \
        prepare(&IDENT, b, read, D);                                                             \
    }                                                                                            \
    static void IDENT##_encode(const wn_book *b, void *f, const void *raw, const wn_format *rf,  \
                               int P, int n, uint64_t keep, int D, wn_page_place place)          \
    {                                                                                            \
        if (b->of_v)                                                                             \
            encode_v(&IDENT, b, f, raw, rf, P, n, keep, D);                                      \
        else                                                                                     \
            encode_k(&IDENT, b, f, raw, rf, P, n, keep, D, place);                               \
    }                                                                                            \
    static bool IDENT##_row(const wn_book *b, const void *f, int P, int slot, float *row, int D) \
    {                                                                                            \
        return (b->of_v ? get_v : get_k)(&IDENT, b, f, P, slot, row, D);                         \
    }                                                                                            \
    static void IDENT##_columns(const wn_book *b, const void *f, int P, int first, int n,        \
                                float *x, int D)                                                 \
    {                                                                                            \
        get_columns(&IDENT, b, f, P, first, n, x, D);                                            \
    }                                                                                            \
    static void IDENT##_copy_k(void *dst, int to, const void *src, int from, int P, int D)       \
    {                                                                                            \
        copy_k(&IDENT, dst, to, src, from, P, D);                                                \
    }                                                                                            \
    static void IDENT##_copy_v(void *dst, int to, const void *src, int from, int P, int D)       \
    {                                                                                            \
        copy_v(&IDENT, dst, to, src, from, P, D);                                                \
    }                                                                                            \
    WN_BOOK_READ(IDENT)                                                                          \
    static void IDENT##_mix(const wn_page_mix *m) { mix(&IDENT, m); }                            \
    static const wn_calibrated IDENT##_calibrated = {                                            \
        .numbers = numbers,                                                                      \
        .encode = IDENT##_encode,                                                                \
        .get = IDENT##_get,                                                                      \
        .read_bytes = read_bytes,                                                                \
        .prepare = IDENT##_prepare,                                                              \
    };                                                                                           \
    const wn_format wn_format_##IDENT = {                                                        \
        .name = NAME,                                                                            \
        .lag = 1,                                                                                \
        .k_repack = WN_REPACK_COPY,                                                              \
        .v_repack = WN_REPACK_COPY,                                                              \
        .k_bytes = IDENT##_k_bytes,                                                              \
        .v_bytes = IDENT##_v_bytes,                                                              \
        .copy_k = IDENT##_copy_k,                                                                \
        .copy_v = IDENT##_copy_v,                                                                \
        .score = IDENT##_score,                                                                  \
        .mix = IDENT##_mix,                                                                      \
        .calibrated = &IDENT##_calibrated,                                                       \
    }

NUQ(nuq4, "nuq4", 4, WN_CODES_4T, false);
NUQ(nuq3, "nuq3", 3, WN_CODES_2_1T, false);
NUQ(nuq2, "nuq2", 2, WN_CODES_2T, false);
NUQ(nuq4_s1, "nuq4-s1", 4, WN_CODES_4T, true);
NUQ(nuq3_s1, "nuq3-s1", 3, WN_CODES_2_1T, true);
NUQ(nuq2_s1, "nuq2-s1", 2, WN_CODES_2T, true);

int wn_nuq_bits(const wn_format *f, bool *sparse)
{
    static const struct { const wn_format *f; const nuq *is;
    } all[] = {
        { &wn_format_nuq4, &nuq4 },       { &wn_format_nuq3, &nuq3 },
        { &wn_format_nuq2, &nuq2 },       { &wn_format_nuq4_s1, &nuq4_s1 },
        { &wn_format_nuq3_s1, &nuq3_s1 }, { &wn_format_nuq2_s1, &nuq2_s1 },
    };
    for (size_t i = 0; i < WN_COUNT(all); i++)
        if (f->calibrated == all[i].f->calibrated) {
            *sparse = all[i].is->sparse;
            return all[i].is->bits;
        }
    return 0;
}
