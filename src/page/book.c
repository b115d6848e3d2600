/* page/book.c - pages that are read by a book: turning keys, laying out rows; see book.h. */
#include "page/book.h"

#include "base/alloc.h"
#include "kernel/attn.h"
#include "kernel/elem.h"
#include "kernel/lookup.h"

#include <string.h>

static const float CUT_OFF = 65504;

/* ---- turning -------------------------------------------------------------------------- */

static void angles_at(const wn_turn *t, int64_t pos, float *cs)
{
    for (int j = 0; j < t->n_dims / 2; j++) {
        double s, c;
        sincos(t->rate[j] * (double)pos, &s, &c);
        cs[2 * j] = (float)c;
        cs[2 * j + 1] = (float)s;
    }
}

static int n_high(int n) { return n / WN_TURN_STEP + 1; }

size_t wn_turn_bytes(int n_dims, int n)
{
    size_t d = (size_t)n_dims;
    return sizeof(double) * d / 2 + sizeof(float) * d * (size_t)(WN_TURN_STEP + n_high(n));
}

wn_status wn_turn_init(wn_turn *t, int n_dims, bool neox, const double *rate, int n, wn_err *err)
{
    size_t d = (size_t)n_dims;
    *t = (wn_turn){ .n_dims = n_dims, .neox = neox, .n_high = n_high(n),
                    .rate = wn_alloc(wn_turn_bytes(n_dims, n)) };
    if (!t->rate) return wn_fail(err, WN_ENOMEM, "calibrated formats: out of memory for angles");
    t->low = (float *)(void *)(t->rate + d / 2);
    t->high = t->low + WN_TURN_STEP * d;
    memcpy(t->rate, rate, sizeof *rate * d / 2);
    for (int i = 0; i < WN_TURN_STEP; i++) {
        float cs[WN_BOOK_DIM];
        angles_at(t, i, cs);
        for (size_t j = 0; j < d; j++) t->low[j * WN_TURN_STEP + (size_t)i] = cs[j];
    }
    for (int i = 0; i < t->n_high; i++)
        angles_at(t, (int64_t)i * WN_TURN_STEP, t->high + (size_t)i * d);
    return WN_OK;
}

void wn_turn_release(wn_turn *t)
{
    wn_free(t->rate);
    *t = (wn_turn){ 0 };
}

/* Angles of one position after another; neighbours share the upper half. */
typedef struct {
    const wn_turn *t;
    int32_t upper;                      /* of `high`; -1: none yet */
    const float *high;
    float far[WN_BOOK_DIM];             /* where the table ends before it */
} turning;

/* cos and sin of each pair at pos. */
static void angles(turning *k, int32_t pos, float *cs)
{
    const wn_turn *t = k->t;
    const float *lo = t->low + pos % WN_TURN_STEP;
    if (pos / WN_TURN_STEP != k->upper) {
        k->upper = pos / WN_TURN_STEP;
        k->high = t->high + (size_t)k->upper * (size_t)t->n_dims;
        if (k->upper >= t->n_high) {
            angles_at(t, (int64_t)k->upper * WN_TURN_STEP, k->far);
            k->high = k->far;
        }
    }
    for (int j = 0; j < t->n_dims; j += 2, lo += 2 * WN_TURN_STEP) {
        cs[j] = k->high[j] * lo[0] - k->high[j + 1] * lo[WN_TURN_STEP];
        cs[j + 1] = k->high[j + 1] * lo[0] + k->high[j] * lo[WN_TURN_STEP];
    }
}

/* A row to its position (sign 1) or back (-1). */
static void turn_row(turning *k, float *row, int32_t pos, float sign)
{
    float cs[WN_BOOK_DIM];
    if (!k->t) return;
    int half = k->t->n_dims / 2, step = k->t->neox ? 1 : 2, to = k->t->neox ? half : 1;
    angles(k, pos, cs);
    for (int j = 0; j < half; j++) {
        float *a = row + j * step, *b = a + to, c = cs[2 * j], s = sign * cs[2 * j + 1], x = *a,
              y = *b;
        *a = x * c - y * s;
        *b = y * c + x * s;
    }
}

static int32_t pos_of(wn_page_place p, int slot) { return p.pos ? p.pos[slot] : p.pos0 + slot; }

/* Columns to their positions. */
static void turn_columns(const wn_turn *t, float *x, int n, wn_page_place place)
{
    const wn_lookup_ops *ops = wn_kernels_get()->lookup;
    float cs[WN_BOOK_DIM];
    int32_t rest[WN_BOOK_COLUMNS], upper[WN_BOOK_COLUMNS], most = 0;
    if (!t) return;
    wn_lookup_turn all = { .x = x, .stride = WN_BOOK_COLUMNS, .n = n, .n_pairs = t->n_dims / 2,
                           .step = t->neox ? 1 : 2, .to = t->neox ? t->n_dims / 2 : 1,
                           .low = t->low, .high = t->high, .rest = rest, .upper = upper };
    for (int s = 0; s < n; s++) {
        int32_t pos = pos_of(place, s);
        rest[s] = pos % WN_TURN_STEP;
        upper[s] = pos / WN_TURN_STEP;
        most = WN_MAX(most, upper[s]);
    }
    if (most < t->n_high) {
        ops->turn(&all);
        return;
    }
    for (int s = 0; s < n; s++) {       /* the table ends before some: slot by slot */
        wn_lookup_turn one = all;
        one.x += s, one.n = 1, one.rest += s, one.upper += s;
        if (upper[s] >= t->n_high) {
            angles_at(t, (int64_t)upper[s] * WN_TURN_STEP, cs);
            upper[s] = 0;
            one.high = cs;
        }
        ops->turn(&one);
    }
}

/* ---- encoding -------------------------------------------------------------------------- */

uint64_t wn_book_load(const wn_book *b, float *rows, const void *raw, const wn_format *raw_format,
                      int P, int slot, int n, int head_dim, wn_page_place place)
{
    turning k = { .t = b->turn, .upper = -1 };
    uint64_t finite = 0;
    if (b->of_v) raw_format->rows_v(raw, P, slot, rows, WN_BOOK_DIM, n, head_dim);
    else raw_format->rows_k(raw, P, slot, rows, WN_BOOK_DIM, n, head_dim);
    for (int i = 0; i < n; i++, rows += WN_BOOK_DIM) {
        bool good = true;
        for (int d = 0; d < head_dim; d++)
            good &= (wn_elem_bits(rows[d]) & 0x7f800000u) != 0x7f800000u;
        finite |= (uint64_t)good << i;
        if (!good) {
            memset(rows, 0, sizeof *rows * (size_t)head_dim);
            continue;
        }
        /* Cut off first, so that turning cannot overflow, and again, so that the format sees what
         * halves hold. */
        for (int d = 0; d < head_dim; d++) rows[d] = WN_MAX(-CUT_OFF, WN_MIN(CUT_OFF, rows[d]));
        turn_row(&k, rows, pos_of(place, slot + i), -1);
        for (int d = 0; d < head_dim; d++) rows[d] = WN_MAX(-CUT_OFF, WN_MIN(CUT_OFF, rows[d]));
    }
    return finite;
}

/* ---- reading --------------------------------------------------------------------------- */

void wn_book_prepare(wn_book *b, const wn_format *f, void *read, int head_dim)
{
    f->calibrated->prepare(b, read, head_dim);
    b->read = read;
}

void wn_book_get(const wn_book *b, wn_book_row_fn *fn, const void *frame, int P, int slot,
                 int32_t pos, float *row, int head_dim)
{
    turning k = { .t = b->turn, .upper = -1 };
    if (fn(b, frame, P, slot, row, head_dim)) turn_row(&k, row, pos, 1);
    else
        for (int d = 0; d < head_dim; d++) row[d] = NAN;
}

void wn_book_score(const wn_page_score *s, wn_book_columns_fn *columns)
{
    float *x = s->tmp;
    WN_ASSERT(x && s->book && s->head_dim <= WN_BOOK_DIM);
    for (int at = 0, n; at < s->n; at += n) {
        n = WN_MIN(WN_BOOK_COLUMNS, s->n - at);
        columns(s->book, s->frame, s->P, s->first + at, n, x, s->head_dim);
        turn_columns(s->book->turn, x, n,
                     (wn_page_place){ s->place.pos ? s->place.pos + at : NULL,
                                      s->place.pos0 + at });
        wn_kernels_get()->attn->product[WN_ELEM_F32](&(wn_attn_product){
            .c = s->out + at, .c_stride = s->out_stride, .a = s->q, .a_stride = s->q_stride, .b = x,
            .b_stride = WN_BOOK_COLUMNS, .n_rows = s->n_q, .n_cols = n, .depth = s->head_dim });
    }
}

void wn_book_spoil(const wn_page_mix *m, uint64_t spoiled)
{
    for (uint64_t left = spoiled; left; left &= left - 1)
        for (int i = 0; i < m->n_q; i++) {
            float *acc = m->acc + (size_t)i * m->acc_stride;
            bool seen = m->w[(size_t)i * m->w_stride + (size_t)__builtin_ctzll(left)] != 0;
            for (int d = 0; seen && d < m->head_dim; d++) acc[d] = NAN;
        }
}

void wn_book_mix(const wn_page_mix *m, wn_book_row_fn *fn)
{
    float *page = m->tmp;
    int D = m->head_dim;
    uint64_t spoiled = 0;
    WN_ASSERT(page && m->book && D <= WN_BOOK_DIM);
    for (int s = 0; s < m->n; s++) {
        float *row = page + (size_t)s * (size_t)D;
        if (fn(m->book, m->frame, m->P, m->first + s, row, D)) continue;
        memset(row, 0, sizeof *row * (size_t)D);
        spoiled |= (uint64_t)1 << s;
    }
    wn_kernels_get()->attn->product[WN_ELEM_F32](&(wn_attn_product){
        .c = m->acc, .c_stride = m->acc_stride, .a = m->w, .a_stride = m->w_stride, .b = page,
        .b_stride = (size_t)D, .n_rows = m->n_q, .n_cols = D, .depth = m->n, .add = true });
    wn_book_spoil(m, spoiled);
}
