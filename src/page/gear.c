/* page/gear.c - sparse numbers and a product of small rank beside the codes of a page: see gear.h.
 *
 * GEAR mends what a 2-bit cache gets wrong: a few numbers that stand out are kept apart, so that
 * they do not stretch the steps of all others, and a product of small rank stands for what many
 * slots have in common. A page is taken apart in this order:
 *
 *     rows = product of rank R (power iteration, factors in 8 bits)
 *          + numbers that stand out of the rest: the farthest from its mean, one after the other
 *          + codes of the rest, the places of those numbers filled with the mean
 *
 * Differs from the paper's code. The product is taken from the rows, not from the error of the
 * codes: what keys have in common (their mean, above all) no longer takes up steps, and what the
 * factors are off by after rounding goes into the codes. Factors are 8 bits and belong to one page,
 * since pages live and die alone. Sparse numbers are one (or two) of each 64, whichever end they
 * are at.
 *
 *     q2-s1r2, K and V, P = 64, D = 128      bytes          kivi2-s1r2, K              bytes
 *     q2's frame                             0 .. 2303      kivi2's frame of K         0 .. 2623
 *     value[2][64]  halves                   2304 .. 2559   value[128]                 2624 .. 2879
 *     channel[2][64]                         2560 .. 2687   slot[128]                  2880 .. 3007
 *     scale[2]  floats, 56 bytes of nothing  2688 .. 2751   scale[2], nothing          3008 .. 3071
 *     p[2][128]  signed bytes                2752 .. 3007   p[2][128]                  3072 .. 3327
 *     a[2][64]                               3008 .. 3135   a[2][64]                   3328 .. 3455
 *
 * Bytes per slot beyond the base's, head_dim 64 / 128: -s1 3 / 6, -r2 5 / 7, -s1r2 8 / 13.
 * Repack: -s1 as the base; with a product raw-only, K and V.
 * Error: the base's, for what is left after product and sparse numbers; of a sparse number 2^-11 of
 * it.
 *
 * The work is done once a page; every loop runs over contiguous numbers in a stated order, so that
 * no table of kernels is needed for the same bits everywhere.
 */
#include "page/gear.h"

#include "kernel/elem.h"

#include <math.h>

enum {
    DIM_MAX = WN_CODES_DEPTH,
    SLOTS = WN_PAGE_SLOTS_MAX,
    BLOCK = 64,
    LOOPS = 3,
    ENTRIES = WN_GEAR_SPARSE * DIM_MAX / BLOCK
};

/* What a page may hold: the formats cut off before this. */
static const float MOST = 0x1p24f;

/* ---- where things lie ---------------------------------------------------------------- */

typedef struct {
    uint16_t *value;                    /* [n][stride] */
    uint8_t *place;                     /* by slot: channel in its block; by channel: slot */
    int n, stride;
    bool by_channel;
    float *scale;                       /* [rank] */
    int8_t *p, *a;                      /* [rank][head_dim], [rank][P] */
    size_t bytes;
} beside;

static size_t base_bytes(const wn_gear *g, bool is_k, int P, int head_dim)
{
    return (is_k ? g->base->k_bytes : g->base->v_bytes)(P, head_dim);
}

static beside beside_of(const wn_gear *g, bool is_k, const void *frame, int P, int head_dim)
{
    beside b = { .by_channel = is_k && g->k_by_channel };
    char *f = (char *)(uintptr_t)frame;         /* who may write through it is the callers'
                                                   affair */
    size_t at = base_bytes(g, is_k, P, head_dim);
    WN_ASSERT(g->sparse <= WN_GEAR_SPARSE && g->rank <= WN_GEAR_RANK && head_dim <= DIM_MAX);
    b.n = b.by_channel ? g->sparse : g->sparse * ((head_dim + BLOCK - 1) / BLOCK);
    b.stride = b.by_channel ? head_dim : P;
    size_t n = (size_t)b.n * (size_t)b.stride;
    b.value = (uint16_t *)(void *)(f + at);
    at += wn_round64(2 * n);
    b.place = (uint8_t *)f + at;
    at += wn_round64(n);
    b.scale = (float *)(void *)(f + at);
    at += wn_round64(sizeof(float) * (size_t)g->rank);
    b.p = (int8_t *)f + at;
    b.a = b.p + (size_t)g->rank * (size_t)head_dim;
    at += wn_round64((size_t)g->rank * (size_t)(head_dim + P));
    b.bytes = at;
    return b;
}

size_t wn_gear_bytes(const wn_gear *g, bool is_k, int P, int head_dim)
{
    return beside_of(g, is_k, NULL, P, head_dim).bytes;
}

/* Channel of sparse number j of a slot. */
static int channel_of(const wn_gear *g, const beside *b, int j, int slot)
{
    return j / g->sparse * BLOCK + b->place[(size_t)j * (size_t)b->stride + (size_t)slot];
}

/* ---- the product of small rank ---------------------------------------------------------- */

typedef float page_rows[SLOTS][DIM_MAX];

static float dot(const float *x, const float *y, int n)
{
    float chains[16] = { 0 };
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int c = 0; c < 16; c++) chains[c] += x[i + c] * y[i + c];
    for (; i < n; i++) chains[i & 15] += x[i] * y[i];
    return wn_tree16(chains);
}

/* To 127 steps on either side of 0; gives the step. */
static float to_bytes(int8_t *out, const float *x, int n)
{
    float most = 0;
    for (int i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    float inv = most > 0 ? 127 / most : 0;
    for (int i = 0; i < n; i++) out[i] = (int8_t)lrintf(x[i] * inv);
    return most / 127;
}

/* Squares below this are those of nothing. */
static const float NONE = 0x1p-100f;

/* slots = x channels / |channels|^2; false where there are no channels. */
static bool fit_slots(float *slots, const page_rows x, uint64_t good, const float *channels,
                      int head_dim)
{
    float norm = dot(channels, channels, head_dim);
    for (uint64_t left = good; left; left &= left - 1) {
        int s = __builtin_ctzll(left);
        slots[s] = dot(x[s], channels, head_dim) / norm;
    }
    return norm > NONE;
}

/* channels = slots x / |slots|^2. */
static bool fit_channels(float *channels, const page_rows x, uint64_t good, const float *slots,
                         int head_dim)
{
    float norm = dot(slots, slots, SLOTS);
    memset(channels, 0, sizeof *channels * (size_t)head_dim);
    for (uint64_t left = good; left; left &= left - 1) {
        int s = __builtin_ctzll(left);
        float by = slots[s] / norm;
        for (int d = 0; d < head_dim; d++) channels[d] += by * x[s][d];
    }
    return norm > NONE;
}

/* The pair of factors that takes most out of x, from its longest row on; then out it goes. */
static void take_factor(page_rows x, uint64_t good, float *scale, int8_t *a, int8_t *p, int P,
                        int head_dim)
{
    float slots[SLOTS] = { 0 }, channels[DIM_MAX], longest = NONE;
    int first = -1;
    for (uint64_t left = good; left; left &= left - 1) {
        int s = __builtin_ctzll(left);
        float norm = dot(x[s], x[s], head_dim);
        if (norm > longest) longest = norm, first = s;
    }
    if (first < 0) return;                      /* scale, a and p are 0 */
    memcpy(channels, x[first], sizeof *channels * (size_t)head_dim);
    for (int i = 0; i < LOOPS; i++)
        if (!fit_slots(slots, x, good, channels, head_dim) ||
            !fit_channels(channels, x, good, slots, head_dim))
            return;
    to_bytes(p, channels, head_dim);            /* its step goes into the slots' factors */
    for (int d = 0; d < head_dim; d++) channels[d] = (float)p[d];
    if (!fit_slots(slots, x, good, channels, head_dim)) {
        memset(p, 0, (size_t)head_dim);
        return;
    }
    *scale = to_bytes(a, slots, P);
    for (uint64_t left = good; left; left &= left - 1) {
        int s = __builtin_ctzll(left);
        float by = *scale * (float)a[s];
        for (int d = 0; d < head_dim; d++) x[s][d] -= by * channels[d];
    }
}

/* ---- numbers that stand out --------------------------------------------------------------- */

/* The `sparse` of n numbers x that are each the farthest from the mean of what is left, the first
 * of those; the mean of the others takes their place. Their places in ascending order; gives how
 * many. */
static int take_out(float *x, int n, int sparse, uint8_t *places)
{
    bool out[BLOCK] = { 0 };
    float mean = 0;
    int taken = 0, k = 0;
    for (int left = n; ; left--) {
        float sum = 0;
        int far = -1;
        for (int i = 0; i < n; i++) sum += out[i] ? 0 : x[i];
        mean = left ? sum / (float)left : 0;
        if (taken == WN_MIN(sparse, n)) break;
        for (int i = 0; i < n; i++)
            if (!out[i] && (far < 0 || fabsf(x[i] - mean) > fabsf(x[far] - mean))) far = i;
        out[far] = true;
        taken++;
    }
    for (int i = 0; i < n; i++) {
        if (!out[i]) continue;
        places[k++] = (uint8_t)i;
        x[i] = mean;
    }
    return taken;
}

/* Rows without what stands out, as a frame of floats for the base to encode; places into the
 * page. */
static void thin_by_slot(const wn_gear *g, const beside *b, bool is_k, float *raw,
                         const page_rows x, uint64_t good, int P, int head_dim)
{
    float row[DIM_MAX];
    uint8_t places[WN_GEAR_SPARSE];
    for (uint64_t left = good; left; left &= left - 1) {
        int s = __builtin_ctzll(left);
        memcpy(row, x[s], sizeof *row * (size_t)head_dim);
        for (int j = 0; j < b->n; j += g->sparse) {
            int at = j / g->sparse * BLOCK,
                n = take_out(row + at, WN_MIN(BLOCK, head_dim - at), g->sparse, places);
            for (int k = 0; k < n; k++)
                b->place[(size_t)(j + k) * (size_t)b->stride + (size_t)s] = places[k];
        }
        (is_k ? wn_format_f32.put_k : wn_format_f32.put_v)(raw, P, s, row, 0, 1, head_dim);
    }
}

static void thin_by_channel(const wn_gear *g, const beside *b, float *raw, const page_rows x,
                            uint64_t good, int P, int head_dim)
{
    float column[SLOTS];
    uint8_t slots[SLOTS], places[WN_GEAR_SPARSE];
    for (int d = 0; d < head_dim; d++) {
        int n = 0;
        for (uint64_t left = good; left; left &= left - 1)
            slots[n++] = (uint8_t)__builtin_ctzll(left);
        for (int i = 0; i < n; i++) column[i] = x[slots[i]][d];
        int taken = take_out(column, n, g->sparse, places);
        for (int k = 0; k < taken; k++)
            b->place[(size_t)k * (size_t)b->stride + (size_t)d] = slots[places[k]];
        for (int i = 0; i < n; i++) raw[(size_t)d * (size_t)P + slots[i]] = column[i];
    }
}

/* What the numbers that stood out are more than their codes say. */
static void put_values(const wn_gear *g, const beside *b, bool is_k, const void *frame,
                       const page_rows x, uint64_t good, int P, int head_dim)
{
    float row[DIM_MAX];
    for (uint64_t left = good; left && b->n; left &= left - 1) {
        int s = __builtin_ctzll(left);
        (is_k ? g->base->get_k : g->base->get_v)(frame, P, s, row, head_dim);
        for (int j = 0; j < b->n && !b->by_channel; j++) {
            int d = channel_of(g, b, j, s);
            b->value[(size_t)j * (size_t)b->stride + (size_t)s] = wn_codes_f16_near(x[s][d] -
                                                                                    row[d]);
        }
        for (int j = 0; j < b->n * head_dim && b->by_channel; j++)
            if (b->place[j] == s)
                b->value[j] = wn_codes_f16_near(x[s][j % head_dim] - row[j % head_dim]);
    }
}

/* ---- encoding ------------------------------------------------------------------------ */

/* Live rows of a raw page, and which of them are finite; those are cut off at MOST. */
static uint64_t read_rows(page_rows x, bool is_k, const void *raw, const wn_format *rf, int P,
                          uint64_t live, int head_dim)
{
    uint64_t good = 0;
    for (uint64_t left = live; left; left &= left - 1) {
        int s = __builtin_ctzll(left);
        bool finite = true;
        (is_k ? rf->get_k : rf->get_v)(raw, P, s, x[s], head_dim);
        for (int d = 0; d < head_dim; d++) {
            finite &= (wn_elem_bits(x[s][d]) & 0x7f800000u) != 0x7f800000u;
            x[s][d] = x[s][d] > MOST ? MOST : x[s][d] < -MOST ? -MOST : x[s][d];
        }
        good |= (uint64_t)finite << s;
    }
    return good;
}

void wn_gear_encode(const wn_gear *g, bool is_k, void *frame, const void *raw,
                    const wn_format *raw_format, int P, int n, uint64_t keep, int head_dim)
{
    _Alignas(64) page_rows x;
    _Alignas(64) float rest[SLOTS * DIM_MAX], nan[DIM_MAX];
    beside b = beside_of(g, is_k, frame, P, head_dim);
    size_t from = base_bytes(g, is_k, P, head_dim);
    keep &= wn_low_bits(WN_MIN(n, P));
    uint64_t good = read_rows(x, is_k, raw, raw_format, P, keep, head_dim);
    memset((char *)frame + from, 0, b.bytes - from);
    for (int r = 0; r < g->rank; r++)
        take_factor(x, good, &b.scale[r], b.a + (size_t)r * (size_t)P,
                    b.p + (size_t)r * (size_t)head_dim, P, head_dim);

    memset(rest, 0, sizeof *rest * (size_t)P * (size_t)head_dim);
    for (int d = 0; d < head_dim; d++) nan[d] = NAN;
    for (uint64_t left = keep & ~good; left; left &= left - 1)
        (is_k ? wn_format_f32.put_k : wn_format_f32.put_v)(rest, P, __builtin_ctzll(left), nan, 0,
                                                           1, head_dim);
    if (b.by_channel) thin_by_channel(g, &b, rest, x, good, P, head_dim);
    else thin_by_slot(g, &b, is_k, rest, x, good, P, head_dim);
    (is_k ? g->base->encode_k : g->base->encode_v)(frame, rest, &wn_format_f32, P, n, keep,
                                                   head_dim);
    put_values(g, &b, is_k, frame, x, good, P, head_dim);
}

/* ---- one slot ------------------------------------------------------------------------ */

void wn_gear_get(const wn_gear *g, bool is_k, const void *frame, int P, int slot, float *row,
                 int head_dim)
{
    beside b = beside_of(g, is_k, frame, P, head_dim);
    (is_k ? g->base->get_k : g->base->get_v)(frame, P, slot, row, head_dim);
    for (int j = 0; j < b.n && !b.by_channel; j++)
        row[channel_of(g, &b, j, slot)] += wn_elem_from_f16(
            b.value[(size_t)j * (size_t)b.stride + (size_t)slot]);
    for (int j = 0; j < b.n * head_dim && b.by_channel; j++)
        if (b.place[j] == slot) row[j % head_dim] += wn_elem_from_f16(b.value[j]);
    for (int r = 0; r < g->rank; r++) {
        float by = b.scale[r] * (float)b.a[(size_t)r * (size_t)P + (size_t)slot];
        for (int d = 0; d < head_dim; d++)
            row[d] += by * (float)b.p[(size_t)r * (size_t)head_dim + (size_t)d];
    }
}

void wn_gear_copy(const wn_gear *g, bool is_k, void *dst, int dst_slot, const void *src,
                  int src_slot, int P, int head_dim)
{
    beside to = beside_of(g, is_k, dst, P, head_dim), from = beside_of(g, is_k, src, P, head_dim);
    WN_ASSERT(!g->rank && !to.by_channel);
    (is_k ? g->base->copy_k : g->base->copy_v)(dst, dst_slot, src, src_slot, P, head_dim);
    for (int j = 0; j < to.n; j++) {
        size_t a = (size_t)j * (size_t)P + (size_t)dst_slot,
               b = (size_t)j * (size_t)P + (size_t)src_slot;
        to.value[a] = from.value[b];
        to.place[a] = from.place[b];
    }
}

/* ---- score --------------------------------------------------------------------------- */

/* Sparse numbers and factors as floats, once for all queries of a call. */
typedef struct {
    /* as in the frame: by slot P <= 64 of ENTRIES, by channel D */
    _Alignas(64) float value[WN_GEAR_SPARSE * DIM_MAX];
    _Alignas(64) float p[WN_GEAR_RANK][DIM_MAX], a[WN_GEAR_RANK][SLOTS];
} widened;
_Static_assert(ENTRIES * SLOTS <= WN_GEAR_SPARSE * DIM_MAX, "either way of laying them");

static void widen(widened *w, const wn_gear *g, const beside *b, int P, int head_dim)
{
    wn_kernels_get()->codes->widen(w->value, b->value, b->n * b->stride);
    for (int r = 0; r < g->rank; r++) {
        for (int d = 0; d < head_dim; d++)
            w->p[r][d] = (float)b->p[(size_t)r * (size_t)head_dim + (size_t)d];
        for (int s = 0; s < SLOTS; s++)
            w->a[r][s] = s < P ? (float)b->a[(size_t)r * (size_t)P + (size_t)s] : 0;
    }
}

static void score_sparse(const wn_gear *g, const beside *b, const widened *w,
                         const wn_page_score *s, const float *q, float *out)
{
    for (int j = 0; j < b->n && !b->by_channel; j++) {
        const float *x = q + j / g->sparse * BLOCK,
                    *v = w->value + (size_t)j * (size_t)b->stride + s->first;
        const uint8_t *place = b->place + (size_t)j * (size_t)b->stride + s->first;
        for (int i = 0; i < s->n; i++) out[i] += x[place[i]] * v[i];
    }
    for (int j = 0; j < b->n && b->by_channel; j++)
        for (int d = 0; d < s->head_dim; d++) {
            int i = b->place[j * s->head_dim + d] - s->first;
            if (i >= 0 && i < s->n) out[i] += q[d] * w->value[j * s->head_dim + d];
        }
}

void wn_gear_score(const wn_gear *g, const wn_page_score *s)
{
    beside b = beside_of(g, true, s->frame, s->P, s->head_dim);
    widened w;
    g->base->score(s);
    widen(&w, g, &b, s->P, s->head_dim);
    for (int i = 0; i < s->n_q; i++) {
        const float *q = s->q + (size_t)i * s->q_stride;
        float *out = s->out + (size_t)i * s->out_stride;
        score_sparse(g, &b, &w, s, q, out);
        for (int r = 0; r < g->rank; r++) {
            float by = b.scale[r] * wn_kernels_get()->codes->dot(q, w.p[r], s->head_dim);
            for (int k = 0; k < s->n; k++) out[k] += by * w.a[r][s->first + k];
        }
    }
}

/* ---- mix ----------------------------------------------------------------------------- */

void wn_gear_mix(const wn_gear *g, const wn_page_mix *m)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    beside b = beside_of(g, false, m->frame, m->P, m->head_dim);
    widened w;
    /* the weights at their places in the page */
    _Alignas(64) float row[DIM_MAX], run[SLOTS] = { 0 };
    g->base->mix(m);
    widen(&w, g, &b, m->P, m->head_dim);
    for (int i = 0; i < m->n_q; i++) {
        const float *by = m->w + (size_t)i * m->w_stride;
        float *acc = m->acc + (size_t)i * m->acc_stride;
        memset(row, 0, sizeof *row * (size_t)m->head_dim);
        for (int j = 0; j < b.n; j++) {
            const float *v = w.value + (size_t)j * (size_t)b.stride + m->first;
            const uint8_t *place = b.place + (size_t)j * (size_t)b.stride + m->first;
            float *to = row + j / g->sparse * BLOCK;
            for (int s = 0; s < m->n; s++)
                if (by[s] != 0) to[place[s]] += by[s] * v[s];
        }
        memcpy(run + m->first, by, sizeof *run * (size_t)m->n);
        for (int r = 0; r < g->rank; r++) {
            float sum = b.scale[r] * ops->dot(run, w.a[r], m->P);
            for (int d = 0; d < m->head_dim; d++) row[d] += sum * w.p[r][d];
        }
        if (g->base->mixed) ops->hadamard(row, m->head_dim);    /* into the basis of acc */
        for (int d = 0; d < m->head_dim; d++) acc[d] += row[d];
    }
}

/* ---- the formats ------------------------------------------------------------------------ */

/* -s1: one number of 64 beside the codes; -r2: a product of rank 2; -s1r2: both, which on kivi2 is
 * GEAR with the ranks it gives to blocks of 64 tokens. */
#define WITH_OPTIONS(BASE, BY_CHANNEL, TURNED)                              \
    WN_GEAR_FORMAT(BASE##_s1, #BASE "-s1", BASE, 1, 0, BY_CHANNEL, TURNED); \
    WN_GEAR_FORMAT(BASE##_r2, #BASE "-r2", BASE, 0, 2, BY_CHANNEL, TURNED); \
    WN_GEAR_FORMAT(BASE##_s1r2, #BASE "-s1r2", BASE, 1, 2, BY_CHANNEL, TURNED)

WITH_OPTIONS(q4, false, true);
WITH_OPTIONS(q3, false, true);
WITH_OPTIONS(q2, false, true);
WITH_OPTIONS(kivi4, true, false);
WITH_OPTIONS(kivi2, true, false);
