/* attention/split.c - logits, weights and answers of a gathered split; see split.h.
 *
 * The order of every sum depends on positions alone (attend.h): score and mix are chains
 * inside the page formats; l runs in 16 chains by position mod 16 in ascending position.
 * Where a lane's live slots are consecutive positions, entry number and position agree mod
 * 16 (the first entry is placed so), and the chains are vector lanes; otherwise the weights
 * are first laid out by position.
 */
#include "attention/split.h"
#include "attention/fetch.h"

#include <math.h>
#include <string.h>

/* Rows of a portion at the diagonal: enough to be worth widening the page for. */
enum { DIAGONAL_ROWS = 24 };

/* ---- queries -------------------------------------------------------------------- */

static void rotate(const wn_block *b, wn_desk *d, float *out, int32_t shift)
{
    const wn_attend_args *a = b->args;
    const wn_rope *rope = a->rope;
    int k_dim = b->shape->k_dim, n_rot = rope ? rope->n_dims : 0;
    for (int r = 0; r < b->np; r++) {
        const float *cs = b->cs ? b->cs + (size_t)r * (size_t)n_rot : NULL;
        if (rope && shift) {
            wn_rope_angles(rope, b->pos0 + r - shift, d->cs);
            cs = d->cs;
        }
        const float *x = a->q + (size_t)(b->row0 + r) * a->q_stride +
                         (size_t)b->head * (size_t)b->group * (size_t)k_dim;
        const float *soon = x + 2 * a->q_stride;        /* a stretch of lines each q_stride: no
                                                           stream */
        for (int j = 0; r + 2 < b->np && j < b->group * k_dim; j += 16)
            __builtin_prefetch(soon + j, 0, 3);
        for (int h = 0; h < b->group; h++, x += k_dim, out += k_dim) {
            if (n_rot) b->kernels->vec->rope(out, x, cs, n_rot, rope->neox);
            memcpy(out + n_rot, x + n_rot, sizeof(float) * (size_t)(k_dim - n_rot));
            for (int j = 0; j < k_dim; j++) out[j] *= b->shape->scale;
        }
    }
}

static const float *queries(const wn_block *b, wn_desk *d, int32_t shift)
{
    if (!shift) return d->q[0];
    if (d->q_shift != shift) {
        rotate(b, d, d->q[1], shift);
        d->ready_for[1] = NULL;
    }
    d->q_shift = shift;
    return d->q[1];
}

/* The same queries as a format of encoded K wants them: made once, whatever the number of pages,
 * and again where a lane goes over to pages of another format. */
static const char *ready_queries(const wn_block *b, wn_desk *d, const wn_format *f, int32_t shift)
{
    const float *q = queries(b, d, shift);
    int i = shift != 0, D = b->shape->k_dim;
    if (!f->ready) return NULL;
    if (d->ready_for[i] != f->ready) f->ready(d->ready[i], q, (size_t)D, b->np * b->group, D);
    d->ready_for[i] = f->ready;
    return d->ready[i];
}

void wn_block_start_queries(const wn_block *b, wn_desk *d)
{
    rotate(b, d, d->q[0], 0);
    d->q_shift = 0;
    d->ready_for[0] = d->ready_for[1] = NULL;
}

/* ---- stretches ------------------------------------------------------------------ */

/* Some positions of the block and as much of a stretch as any of them sees. */
typedef struct { int from, to, n; } portion;

/* Walks a stretch in portions; start with to = 0. At the diagonal few positions at a time,
 * each portion with the slots up to its last row's own: what lies beyond is neither scored
 * nor mixed. */
static bool next_portion(const wn_block *b, const wn_gathered *g, int t, portion *x)
{
    /* positions of the block count from its first */
    int first = g->base + g->index[g->k[t].entry] - b->pos0, last = first + g->k[t].n - 1,
        end = b->np;
    if (b->args->window > 0) end = WN_MIN(end, last + b->args->window);
    x->from = x->to ? x->to : WN_MAX(first, 0);
    if (x->from >= end) return false;
    int step = WN_MAX(1, DIAGONAL_ROWS / b->group);
    x->to = x->from >= last ? end : WN_MIN(end, x->from + step);
    x->n = WN_MIN(g->k[t].n, x->to - first);
    return true;
}

/* Can something of it be left out? Encoded or thinned pages are taken whole, and where entries are
 * not in the order of positions nothing can be left out. */
static bool has_portions(const wn_block *b, const wn_gathered *g, const wn_format *f, int t)
{
    return f->raw && b->np > 1 && g->dense && g->k[t].n_entries == g->k[t].n;
}

/* Are stretches t and u, of these formats, read in one call? */
static bool alike(const wn_block *b, const wn_gathered *g, const wn_format *f,
                  const wn_format *of_u, int t, int u)
{
    return f == of_u && has_portions(b, g, f, t) == has_portions(b, g, f, u);
}

/* As much of a part as the portion sees; what is fetched meanwhile is fetched with the first. */
static wn_page_part part_of(const wn_page_part *whole, const portion *x, bool first)
{
    wn_page_part part = *whole;
    part.n = part.n_entries = x->n;
    part.keep = wn_low_bits(x->n);
    if (!first) part.ahead = (wn_ahead){ 0 };
    return part;
}

/* Stretches [t, end) have one format of K and one shift. */
static void score_stretches(const wn_block *b, wn_desk *d, const wn_gathered *g, int t, int end,
                            int P, wn_fetcher *soon)
{
    const wn_stretch *st = &g->stretches[t];
    const wn_format *f = st->k_format;
    size_t D = (size_t)b->shape->k_dim, group = (size_t)b->group;
    wn_page_score s = {
        .out = d->logits, .out_stride = WN_LOGIT_STRIDE, .q = queries(b, d, st->shift),
        .q_stride = D, .n_q = b->np * b->group, .ready = ready_queries(b, d, f, st->shift), .P = P,
        .head_dim = b->shape->k_dim, .book = f->book, .fetcher = soon,
    };
    if (!has_portions(b, g, f, t)) {
        s.tmp = s.n_q >= f->n_q_tmp ? d->tmp : NULL;
        wn_format_scores(f, &s, g->k + t, end - t, d->part);
        return;
    }
    const float *q = s.q;
    for (; t < end; t++)
        for (portion x = { 0 }, seen = x; next_portion(b, g, t, &x); seen = x) {
            size_t row = (size_t)x.from * group;
            wn_page_part part = part_of(&g->k[t], &x, seen.to == 0);
            s.n_q = (x.to - x.from) * b->group;
            s.out = d->logits + row * s.out_stride;
            s.q = q + row * D;
            s.tmp = s.n_q >= f->n_q_tmp ? d->tmp : NULL;
            wn_format_scores(f, &s, &part, 1, d->part);
        }
}

/* Stretches [t, end) have one format of V. */
static void mix_stretches(const wn_block *b, wn_desk *d, const wn_gathered *g, int t, int end,
                          int P, wn_fetcher *soon)
{
    const wn_format *f = g->stretches[t].v_format;
    size_t D = (size_t)b->shape->v_dim, group = (size_t)b->group;
    float *acc = f->mixed ? d->own : d->acc;
    wn_page_mix m = {
        .acc = acc, .acc_stride = D, .w = d->logits, .w_stride = WN_LOGIT_STRIDE,
        .n_q = b->np * b->group, .P = P, .head_dim = b->shape->v_dim, .book = f->book,
        .fetcher = soon,
    };
    if (!has_portions(b, g, f, t)) {
        m.tmp = m.n_q >= f->n_q_tmp ? d->tmp : NULL;
        wn_format_mixes(f, &m, g->v + t, end - t, d->part);
        return;
    }
    for (; t < end; t++)
        for (portion x = { 0 }, seen = x; next_portion(b, g, t, &x); seen = x) {
            size_t row = (size_t)x.from * group;
            wn_page_part part = part_of(&g->v[t], &x, seen.to == 0);
            m.n_q = (x.to - x.from) * b->group;
            m.acc = acc + row * D;
            m.w = d->logits + row * m.w_stride;
            m.tmp = m.n_q >= f->n_q_tmp ? d->tmp : NULL;
            wn_format_mixes(f, &m, &part, 1, d->part);
        }
}

/* ---- logits, weights, products -------------------------------------------------- */

static void add_bias(const wn_block *b, wn_desk *d, const wn_page_part *part, const float *bias)
{
    for (int i = 0; i < b->np * b->group; i++) {
        float *x = d->logits + (size_t)i * WN_LOGIT_STRIDE + part->entry;
        if (part->n_entries == part->n) b->kernels->attn->merge(x, 1, bias, 1, part->n);
        else
            for (uint64_t left = part->keep; left; left &= left - 1)
                *x++ += bias[__builtin_ctzll(left)];
    }
}

/* Rows of several positions: what a row may not see gets -INFINITY. Where entries are in
 * the order of positions the row just ends earlier (wn_split_seen_by). */
static void mask(const wn_block *b, wn_desk *d, const wn_gathered *g)
{
    for (int r = 0; r < b->np; r++) {
        int hi = b->pos0 + r - g->base, lo = wn_lowest_seen(b, b->pos0 + r) - g->base;
        if (g->highest <= hi && g->lowest >= lo) continue;
        for (int h = 0; h < b->group; h++) {
            float *x = d->logits + (size_t)(r * b->group + h) * WN_LOGIT_STRIDE;
            for (int e = g->begin; e < g->end; e++)
                x[e] = g->index[e] > hi || g->index[e] < lo ? -INFINITY : x[e];
        }
    }
}

/* Sums of rows' weights in 16 chains by position, where entries are not in its order. */
static void sum_by_position(const wn_block *b, wn_desk *d, const wn_gathered *g)
{
    enum { ROWS = 4 };
    _Static_assert((int)WN_SPLIT == (int)WN_SUM_AT, "positions of a split");
    float chains[ROWS][16];
    for (int i = 0, rows = b->np * b->group; i < rows; i += ROWS) {
        int n = WN_MIN(ROWS, rows - i);
        b->kernels->attn->sum_at(d->logits + (size_t)i * WN_LOGIT_STRIDE + g->begin,
                                 WN_LOGIT_STRIDE, n, g->index + g->begin, g->end - g->begin,
                                 d->by_pos, chains);
        for (int k = 0; k < n; k++) d->l[i + k] = wn_tree16(chains[k]);
    }
}

static void zero(float *x, int from, int to)
{
    if (from < to) memset(x + from, 0, sizeof *x * (size_t)(to - from));
}

static void softmax_row(const wn_block *b, wn_desk *d, const wn_gathered *g, int i,
                        wn_fetcher *soon)
{
    enum { PIECE = 64, FETCHES = 7 };      /* in the time of a piece */
    const wn_attn_ops *ops = b->kernels->attn;
    float *x = d->logits + (size_t)i * WN_LOGIT_STRIDE, chains[16] = { 0 };
    wn_entries see = wn_split_seen_by(b, g, i / b->group);
    int from = see.from & ~15, to = (see.to + 15) & ~15;
    d->m[i] = -INFINITY;
    d->l[i] = 0;
    if (see.from < see.to) {
        for (int e = from; e < see.from; e++) x[e] = -INFINITY;
        for (int e = see.to; e < to; e++) x[e] = -INFINITY;
        d->m[i] = ops->max(x + from, to - from);
    }
    for (int e = see.from; d->m[i] == -INFINITY && e < see.to; e++)
        if (isnan(x[e])) d->m[i] = 0;   /* the maximum passes over NaN, the answer must not */
    if (d->m[i] == -INFINITY) {         /* this row sees nothing here */
        zero(x, g->begin, g->end);
        return;
    }
    for (int e = from; e < to; e += PIECE) {
        if (soon) wn_fetch_times(soon, FETCHES);
        ops->exp_sum(x + e, d->m[i], WN_MIN(PIECE, to - e), chains);
    }
    zero(x, g->begin, from);
    zero(x, to, g->end);
    d->l[i] = wn_tree16(chains);        /* dense: chains by position */
}

/* Rows of logits lie in the second cache: the next is fetched while this one is worked on. */
static void softmax(const wn_block *b, wn_desk *d, const wn_gathered *g, wn_fetcher *soon)
{
    int rows = b->np * b->group;
    for (int i = 0; i < rows; i++) {
        const float *next = d->logits + (size_t)(i + 1) * WN_LOGIT_STRIDE;
        for (int e = g->begin; i + 1 < rows && e < g->end; e += 16)
            __builtin_prefetch(next + e, 1, 3);
        softmax_row(b, d, g, i, soon);
    }
    if (!g->dense) sum_by_position(b, d, g);
}

static void score(const wn_block *b, wn_desk *d, const wn_gathered *g, int P, wn_fetcher *soon)
{
    int rows = b->np * b->group;
    for (int t = 0, end; t < g->n; t = end) {
        const wn_stretch *st = &g->stretches[t];
        for (end = t + 1; end < g->n && st->shift == g->stretches[end].shift &&
                          alike(b, g, st->k_format, g->stretches[end].k_format, t, end);)
            end++;
        score_stretches(b, d, g, t, end, P, soon);
    }
    for (int i = 0; b->shape->softcap > 0 && i < rows; i++) {
        wn_entries see = wn_split_seen_by(b, g, i / b->group);
        b->kernels->attn->softcap(d->logits + (size_t)i * WN_LOGIT_STRIDE + see.from,
                                  b->shape->softcap, see.to - see.from);
    }
    for (int t = 0; t < g->n; t++)
        if (g->stretches[t].bias) add_bias(b, d, &g->k[t], g->stretches[t].bias);
    if (b->np > 1 && !g->dense) mask(b, d, g);
}

/* The products with V of a split: raw pages, and encoded ones in channels, straight into acc;
 * encoded ones in a basis of their own beside it, brought back once. */
static void mix(const wn_block *b, wn_desk *d, const wn_gathered *g, int P, wn_fetcher *soon)
{
    int rows = b->np * b->group;
    size_t D = (size_t)b->shape->v_dim;
    const wn_format *own = NULL;
    memset(d->acc, 0, sizeof(float) * (size_t)rows * D);
    for (int t = 0, end; t < g->n; t = end) {
        const wn_format *f = g->stretches[t].v_format;
        for (end = t + 1; end < g->n && alike(b, g, f, g->stretches[end].v_format, t, end);) end++;
        if (f->mixed && !own) {
            memset(d->own, 0, sizeof(float) * (size_t)rows * D);
            own = f;
        }
        WN_ASSERT(!f->mixed || f->mixed == own->mixed);         /* one basis beside the channels */
        mix_stretches(b, d, g, t, end, P, soon);
    }
    if (own) own->mixed(d->acc, D, d->own, D, rows, b->shape->v_dim);
}

/* ---- a split -------------------------------------------------------------------- */

void wn_split_score(const wn_block *b, wn_desk *d, const wn_gathered *g)
{
    score(b, d, g, wn_kv_page_slots(b->item->kv), NULL);
}

void wn_split_weigh(const wn_block *b, wn_desk *d, const wn_gathered *g)
{
    wn_split_score(b, d, g);
    softmax(b, d, g, NULL);
}

void wn_split_answer(const wn_block *b, wn_desk *d, wn_gathered *g, const wn_gathered *next)
{
    int P = wn_kv_page_slots(b->item->kv);
    wn_fetcher f, *soon = wn_block_plan_fetches(b, d, g, next, &f) ? &f : NULL;
    score(b, d, g, P, soon);
    softmax(b, d, g, soon);
    mix(b, d, g, P, soon);
}
