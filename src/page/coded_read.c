/* page/coded_read.c - queries answered from encoded pages: see coded.h for the order of sums.
 *
 * Pages are read several at a time: a score takes whole pages as they lie and others by themselves,
 * a mix weighs all of a split under one scale. The arithmetic is in kernel/codes.h.
 */
#include "page/coded_parts.h"

#include <math.h>

enum { ROWS = 4 };

/* ---- several pages ------------------------------------------------------------------- */

enum {
    PAGES = 16,
    SLOTS = WN_CODES_SLOTS,
    X_BYTES = sizeof(wn_codes_x) + DIM_MAX / WN_CODES_BLOCK * WN_CODES_BLOCK_BYTES
};

/* The same places of another frame. */
static parts parts_in(const parts *x, const void *from, const void *frame)
{
    ptrdiff_t by = (const char *)frame - (const char *)from;
    parts y = *x;
    y.spoiled = (uint64_t *)(void *)((char *)y.spoiled + by);
    y.order += by;
    if (y.powers) y.powers += by;
    if (y.s) y.s = (uint16_t *)(void *)((char *)y.s + by);
    if (y.m) y.m = (uint16_t *)(void *)((char *)y.m + by);
    y.low += by;
    if (y.high) y.high += by;
    return y;
}

/* For products that fetch what lies ahead, in some fifty steps; where that is nothing, the same
 * line again. */
static wn_fetcher fetcher_over(wn_ahead ahead, const void *line)
{
    enum { TIMES = 50, MOST = 128 };
    if (!ahead.at) return (wn_fetcher){ .at = line, .end = (const char *)line + 1 };
    return (wn_fetcher){ .at = ahead.at, .end = ahead.end,
                         .rate = WN_MIN(wn_ahead_left(&ahead) / TIMES + 1, MOST) };
}

static wn_codes_product product_of(const wn_coding *c, const parts *x, wn_fetcher *f)
{
    return (wn_codes_product){
        .fetcher = f,
        .table = c->table, .n_cols = x->cols, .depth = x->depth, .zero = zero_of(c),
        .shift = shift_of(c),
    };
}

/* ---- score --------------------------------------------------------------------------- */

size_t wn_format_ready_bytes(int n_q, int head_dim)
{
    return (size_t)((n_q + ROWS - 1) / ROWS) * wn_codes_x_bytes(head_dim);
}

static int queries_top(const wn_coding *c)
{
    return wn_codes_narrow(c->kind) ? WN_CODES_Q_MAX : WN_CODES_X_MAX;
}

static wn_codes_x *ready_at(const void *ready, int row, int head_dim)
{
    return (wn_codes_x *)(uintptr_t)wn_codes_rows(ready, wn_codes_x_bytes(head_dim), row);
}

void wn_coded_ready(const wn_coding *c, void *out, const float *q, size_t q_stride, int n_q,
                    int head_dim)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    _Alignas(64) float row[DIM_MAX];
    if (c->by_channel || c->sorted) return;     /* q itself, times the page's parameters or in its
                                                   order */
    for (int i = 0; i < n_q; i++, q += q_stride) {
        wn_codes_x *x = ready_at(out, i, head_dim);
        const float *from = q;
        if (c->turned) {
            memcpy(row, q, sizeof *q * (size_t)head_dim);
            ops->hadamard(row, head_dim);
            from = row;
        }
        ops->quantise(x, i % ROWS, from, NULL, head_dim, queries_top(c));
        x->scale[i % ROWS] *= unit_of(c);
    }
}

/* Some queries in the page's order of channels. */
static void sort_queries(const wn_coding *c, const parts *x, const wn_page_score *s, int row,
                         int n_rows, wn_codes_x *out)
{
    float sorted[DIM_MAX];
    for (int i = 0; i < n_rows; i++) {
        const float *q = s->q + (size_t)(row + i) * s->q_stride;
        for (int k = 0; k < s->head_dim; k++) sorted[k] = q[channel_at(x, k)];
        wn_kernels_get()->codes->quantise(out, i, sorted, NULL, s->head_dim, queries_top(c));
    }
}

/* Some queries against one page with parameters per slot; a multiple of four queries before
 * them. */
static void score_by_slot(const wn_coding *c, const parts *x, const wn_page_score *s, int row,
                          int n_rows, float *out, size_t stride)
{
    wn_codes_product p = product_of(c, x, s->fetcher);
    _Alignas(64) char queries[X_BYTES];
    uint16_t room[SCALES + 16];
    wn_codes_page page = { .low = x->low, .high = x->high, .m = x->m, .c = out };
    page.s = scales_of(c, x, n_groups(c, s->head_dim), room);
    p.pages = &page, p.n_pages = 1;
    p.x = ready_at(s->ready, row, s->head_dim);
    p.x_stride = wn_codes_x_bytes(s->head_dim);
    if (c->sorted) {
        sort_queries(c, x, s, row, n_rows, (wn_codes_x *)(void *)queries);
        p.x = (const wn_codes_x *)(const void *)queries;
    }
    p.n_rows = n_rows;
    p.c_stride = stride;
    p.group = c->group ? c->group : x->depth;
    p.param_stride = x->stride;
    wn_kernels_get()->planes->score[c->kind](&p);
}

/* Up to four queries against one page with parameters per channel: they go into the queries. */
static void score_by_channel(const wn_coding *c, const parts *x, const wn_page_score *s, int row,
                             int n_rows, float *out, size_t stride)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    _Alignas(64) char folded[X_BYTES];
    _Alignas(64) float scales[DIM_MAX], mins[DIM_MAX];
    _Alignas(64) int32_t t[ROWS][SLOTS];
    wn_codes_x *q = (wn_codes_x *)(void *)folded;
    wn_codes_product p = product_of(c, x, s->fetcher);
    ops->widen(scales, x->s, s->head_dim);
    ops->widen(mins, x->m, s->head_dim);
    for (int i = 0; i < n_rows; i++) {
        const float *from = s->q + (size_t)(row + i) * s->q_stride;
        ops->quantise(q, i, from, scales, s->head_dim, WN_CODES_X_MAX);
        q->offset[i] = ops->dot(from, mins, s->head_dim);
    }
    wn_codes_page page = { .low = x->low, .high = x->high, .x = wn_codes_integers(q),
                           .to = x->depth };
    p.pages = &page, p.n_pages = 1;
    p.n_rows = n_rows;
    p.t = t[0], p.t_stride = SLOTS;
    p.col_group = x->cols;
    wn_kernels_get()->planes->mix[c->kind](&p);
    for (int i = 0; i < n_rows; i++) {
        ops->settle(out + (size_t)i * stride, t[i], q, i, x->cols, p.zero, p.shift, false);
        for (uint64_t left = *x->spoiled; left; left &= left - 1)
            out[(size_t)i * stride + (size_t)__builtin_ctzll(left)] = NAN;
    }
}

/* All queries against a page that is not taken whole, or whose format wants more than its codes. */
static void score_alone(const wn_coding *c, const parts *x, const wn_page_score *s,
                        const wn_page_part *part)
{
    _Alignas(64) float page[ROWS][WN_PAGE_SLOTS_MAX];
    for (int i = 0; i < s->n_q; i += ROWS) {
        int rows = WN_MIN(ROWS, s->n_q - i);
        if (c->by_channel) score_by_channel(c, x, s, i, rows, page[0], WN_PAGE_SLOTS_MAX);
        else score_by_slot(c, x, s, i, rows, page[0], WN_PAGE_SLOTS_MAX);
        for (int r = 0; r < rows; r++)
            wn_page_take(s->out + (size_t)(i + r) * s->out_stride + part->entry,
                         page[r] + part->first, part);
    }
}

static void score_pages(const wn_coding *c, wn_codes_product *p)
{
    if (p->n_pages) wn_kernels_get()->planes->score[c->kind](p);
    p->n_pages = 0;
}

void wn_coded_scores(const wn_coding *c, const wn_page_score *in, const wn_page_part *part, int n)
{
    const void *frame = part->frame;
    parts first = k_parts(c, frame, in->P, in->head_dim), x;
    wn_codes_page pages[PAGES];
    wn_fetcher own = fetcher_over(in->ahead, frame);
    wn_page_score score = *in, *s = &score;
    if (!s->fetcher) s->fetcher = &own;
    wn_codes_product p = product_of(c, &first, s->fetcher);
    p.pages = pages, p.n_pages = 0;
    p.n_rows = s->n_q;
    p.x = s->ready;
    p.x_stride = wn_codes_x_bytes(s->head_dim);
    p.c_stride = s->out_stride;
    p.group = c->group ? c->group : first.depth;
    p.param_stride = first.stride;
    bool alone = c->by_channel || c->sorted || c->powers;
    for (int k = 0; k < n; k++, part++) {
        x = parts_in(&first, frame, part->frame);
        bool whole = !alone && part->first == 0 && first.cols <= ((part->n + 15) & ~15) &&
                     part->n_entries == part->n;
        if (p.n_pages == PAGES || !whole) score_pages(c, &p);
        if (!whole) {
            score_alone(c, &x, s, part);
            continue;
        }
        pages[p.n_pages++] = (wn_codes_page){ .low = x.low, .high = x.high, .s = x.s, .m = x.m,
                                              .c = s->out + part->entry };
    }
    score_pages(c, &p);
}

void wn_coded_score(const wn_coding *c, const wn_page_score *s)
{
    wn_page_part part = wn_page_part_of(s->frame, s->first, s->n);
    wn_coded_scores(c, s, &part, 1);
}

/* ---- mix ----------------------------------------------------------------------------- */

/* A page's part in the mix of up to four rows: weights of all 64 slots, and the slots' scales. */
typedef struct {
    const float *w;
    size_t w_stride;
    const uint16_t *s;
    size_t s_stride;
    uint16_t room[SCALES + 16];         /* scales, where the page has fewer slots or no halves */
    _Alignas(64) float rows[ROWS][SLOTS];   /* weights, where they do not lie as they are wanted */
} weighed;

static void weigh_part(weighed *y, const wn_coding *c, const parts *x, const wn_page_mix *m,
                       const wn_page_part *part, int row, int n_rows, int groups)
{
    const float *w = m->w + (size_t)row * m->w_stride + part->entry;
    y->w = w, y->w_stride = m->w_stride;
    y->s = x->s, y->s_stride = x->stride;
    if (part->first || part->n < SLOTS || part->n_entries < part->n) {
        memset(y->rows, 0, sizeof y->rows);
        for (int r = 0; r < n_rows; r++)
            wn_page_give(y->rows[r] + part->first, w + (size_t)r * m->w_stride, part);
        y->w = y->rows[0], y->w_stride = SLOTS;
    }
    if (!c->powers && m->P == SLOTS) return;
    const uint16_t *s = scales_of(c, x, groups, y->room);
    y->s = y->room, y->s_stride = SLOTS;
    if (m->P == SLOTS) return;
    /* the last first: room may be where they come from */
    for (int g = groups - 1; g >= 0; g--) {
        memmove(y->room + g * SLOTS, s + (size_t)g * x->stride, sizeof *s * (size_t)m->P);
        memset(y->room + g * SLOTS + m->P, 0, sizeof *s * (size_t)(SLOTS - m->P));
    }
}

/* Sums of w m for each group. */
static void add_minima(const weighed *y, const parts *page, const wn_page_mix *m, wn_codes_x *x,
                       int n_rows, int groups)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    float mins[WN_PAGE_SLOTS_MAX];
    for (int g = 0; g < groups; g++) {
        ops->widen(mins, page->m + (size_t)g * page->stride, m->P);
        for (int r = 0; r < n_rows; r++)
            x[g].offset[r] += ops->dot(y->w + (size_t)r * y->w_stride, mins, m->P);
    }
}

/* Up to four rows of weights over all parts. */
static void mix_rows(const wn_coding *c, const parts *first, const wn_page_mix *m,
                     const wn_page_part *part, int n, int row, int n_rows, int groups)
{
    enum { BLOCKS = 64, FETCHES_LARGEST = 6 };
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    _Alignas(64) char blocks[BLOCKS][WN_CODES_BLOCK_BYTES];
    _Alignas(64) int32_t t[ROWS][DIM_MAX];
    wn_codes_x x[WN_CODES_GROUPS];
    wn_codes_page pages[PAGES];
    /* once, with the first rows */
    wn_fetcher own = fetcher_over(row ? (wn_ahead){ 0 } : m->ahead, part[0].frame);
    wn_codes_product p = product_of(c, first, m->fetcher && row == 0 ? m->fetcher : &own);
    weighed y;
    uint32_t most[ROWS] = { 0 };
    float inverse[ROWS];
    int unit = wn_codes_unit(c->kind), width = c->group ? c->group : first->cols;
    p.pages = pages;
    p.n_rows = n_rows;
    p.col_group = width, p.x_group = WN_CODES_BLOCK_BYTES;
    p.t = t[0], p.t_stride = DIM_MAX;
    for (int k = 0; k < n; k++) {
        parts page = parts_in(first, part[0].frame, part[k].frame);
        weigh_part(&y, c, &page, m, &part[k], row, n_rows, groups);
        wn_fetch_times(p.fetcher, FETCHES_LARGEST);
        ops->largest(most, y.w, y.w_stride, n_rows, y.s, y.s_stride, groups);
    }
    ops->begin(x, groups, most, inverse);
    for (int g = 0; g < groups; g++)
        for (int r = 0; r < ROWS; r++) x[g].scale[r] *= unit_of(c), x[g].offset[r] = 0;
    for (int k = 0; k < n; k++) {
        char *block = blocks[p.n_pages * groups];
        parts page = parts_in(first, part[0].frame, part[k].frame);
        weigh_part(&y, c, &page, m, &part[k], row, n_rows, groups);
        ops->weigh(block, WN_CODES_BLOCK_BYTES, x, y.w, y.w_stride, n_rows, inverse, y.s,
                   y.s_stride, groups, p.fetcher);
        if (page.m) add_minima(&y, &page, m, x, n_rows, groups);
        pages[p.n_pages++] = (wn_codes_page){
            .low = page.low, .high = page.high, .x = block,
            .from = part[k].first / unit * unit,
            .to = WN_MIN(first->depth, (part[k].first + part[k].n + unit - 1) / unit * unit),
        };
        if (k + 1 < n && p.n_pages < PAGES && (p.n_pages + 1) * groups <= BLOCKS) continue;
        wn_kernels_get()->planes->mix[c->kind](&p);
        p.add = true;
        p.n_pages = 0;
    }
    for (int r = 0; r < n_rows; r++)
        for (int g = 0; g < groups; g++)
            ops->settle(m->acc + (size_t)(row + r) * m->acc_stride + g * width, t[r] + g * width,
                        &x[g], r, WN_MIN(width, m->head_dim - g * width), p.zero, p.shift, true);
}

void wn_coded_mixes(const wn_coding *c, const wn_page_mix *m, const wn_page_part *part, int n)
{
    parts first = v_parts(c, part->frame, m->P, m->head_dim);
    for (int row = 0; row < m->n_q; row += ROWS)
        mix_rows(c, &first, m, part, n, row, WN_MIN(ROWS, m->n_q - row), n_groups(c, m->head_dim));
}

void wn_coded_mix(const wn_coding *c, const wn_page_mix *m)
{
    wn_page_part part = wn_page_part_of(m->frame, m->first, m->n);
    wn_coded_mixes(c, m, &part, 1);
}

void wn_coded_mixed(float *acc, size_t acc_stride, float *own, size_t own_stride, int n_q,
                    int head_dim)
{
    for (int i = 0; i < n_q; i++, acc += acc_stride, own += own_stride) {
        wn_kernels_get()->codes->hadamard(own, head_dim);
        for (int d = 0; d < head_dim; d++) acc[d] += own[d];
    }
}
