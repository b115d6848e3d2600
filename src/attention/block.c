/* attention/block.c - the walk of a block over its splits.
 *
 * The order of every sum is that of DESIGN.md section 6 and depends on positions alone:
 * score and mix are chains inside the page formats; l runs in 16 chains by position mod
 * 16 in ascending position; splits are merged left to right. Where a lane's live slots
 * are consecutive positions, entry number and position agree mod 16 (the first entry is
 * placed so), and the chains are vector lanes; otherwise the weights are first laid out
 * by position.
 */
#include "attention/fetch.h"
#include "attention/gather.h"

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

void wn_block_fill_ring(const wn_block *b, wn_desk *d)
{
    size_t n = (size_t)b->group * (size_t)b->shape->k_dim;
    int32_t end = b->item->pos + b->item->n_rows;
    for (int r = 0; r < b->np; r++) {
        if (b->pos0 + r < end - 64) continue;       /* its place belongs to a later row */
        float *ring = wn_kv_ring(b->item->kv, b->args->layer, b->pos0 + r);
        if (!ring) return;
        memcpy(ring + (size_t)b->head * n, d->q[0] + (size_t)r * n, sizeof(float) * n);
    }
}

/* ---- the phases of a split ------------------------------------------------------ */

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

/* Entries of a split that a row looks at; dense: those it sees. */
typedef struct { int from, to; } entries;

static entries seen_by(const wn_block *b, const wn_gathered *g, int r)
{
    if (!g->dense) return (entries){ g->begin, g->end };
    int32_t first = g->base + g->index[g->begin], p = b->pos0 + r;     /* of entry begin */
    int lo = wn_lowest_seen(b, p) - first, hi = p - first + 1;
    return (entries){ g->begin + WN_MAX(lo, 0), WN_MIN(g->end, g->begin + hi) };
}

/* Rows of several positions: what a row may not see gets -INFINITY. Where entries are in
 * the order of positions the row just ends earlier (seen_by). */
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
    entries see = seen_by(b, g, i / b->group);
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

static void score_split(const wn_block *b, wn_desk *d, const wn_gathered *g, int P,
                        wn_fetcher *soon)
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
        entries see = seen_by(b, g, i / b->group);
        b->kernels->attn->softcap(d->logits + (size_t)i * WN_LOGIT_STRIDE + see.from,
                                  b->shape->softcap, see.to - see.from);
    }
    for (int t = 0; t < g->n; t++)
        if (g->stretches[t].bias) add_bias(b, d, &g->k[t], g->stretches[t].bias);
    if (b->np > 1 && !g->dense) mask(b, d, g);
}

/* (m, l, acc) of row i merged with what stands to its left. */
static void merge_row(const wn_block *b, wn_desk *d, int i, float m, float l, const float *acc)
{
    int D = b->shape->v_dim;
    float *run = d->run_acc + (size_t)i * (size_t)D;
    if (m == -INFINITY) return;
    if (d->run_m[i] == -INFINITY) {
        d->run_m[i] = m;
        d->run_l[i] = l;
        memcpy(run, acc, sizeof(float) * (size_t)D);
        return;
    }
    /* exp of the table, not of libm: 16 values at once are its smallest portion */
    float top = d->run_m[i] > m ? d->run_m[i] : m, f[16] = { d->run_m[i] - top, m - top },
          unused[16] = { 0 };
    b->kernels->attn->exp_sum(f, 0, 16, unused);
    b->kernels->attn->merge(run, f[0], acc, f[1], D);
    d->run_l[i] = f[0] * d->run_l[i] + f[1] * l;
    d->run_m[i] = top;
}

static void clear_run(const wn_block *b, wn_desk *d)
{
    for (int i = 0; i < b->np * b->group; i++) d->run_m[i] = -INFINITY, d->run_l[i] = 0;
}

static void start_queries(const wn_block *b, wn_desk *d)
{
    rotate(b, d, d->q[0], 0);
    d->q_shift = 0;
    d->ready_for[0] = d->ready_for[1] = NULL;
}

/* The products with V of a split: raw pages, and encoded ones in channels, straight into acc;
 * encoded ones in a basis of their own beside it, brought back once. */
static void mix_split(const wn_block *b, wn_desk *d, const wn_gathered *g, int P, wn_fetcher *soon)
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

/* Logits, weights and their products with V of a gathered split; next: read after it, or NULL. */
static void answer_split(const wn_block *b, wn_desk *d, wn_gathered *g, const wn_gathered *next)
{
    int P = wn_kv_page_slots(b->item->kv);
    wn_fetcher f, *soon = wn_block_plan_fetches(b, d, g, next, &f) ? &f : NULL;
    score_split(b, d, g, P, soon);
    softmax(b, d, g, soon);
    mix_split(b, d, g, P, soon);
}

static void merge_rows(const wn_block *b, wn_desk *d)
{
    for (int i = 0; i < b->np * b->group; i++)
        merge_row(b, d, i, d->m[i], d->l[i], d->acc + (size_t)i * (size_t)b->shape->v_dim);
}

static int last_split(const wn_block *b) { return (b->pos0 + b->np - 1) / WN_SPLIT; }

/* The first split whose weights stay, of a block that keeps. */
static int first_kept(const wn_block *b, const wn_desk *d)
{
    return WN_MAX(0, last_split(b) + 1 - d->n_kept);
}

static void forget_kept(const wn_block *b, wn_desk *d)
{
    for (int i = 0; b->keeps && i < d->n_kept; i++) d->kept_splits[i].split = -1;
}

static void keep_split(const wn_block *b, wn_desk *d, const wn_gathered *g, int split)
{
    if (!b->keeps || split < first_kept(b, d)) return;
    wn_kept_split *k = &d->kept_splits[split % d->n_kept];
    k->split = split;
    k->g = *g;
    k->g.index = k->index;
    k->g.stretches = NULL;
    k->g.k = k->g.v = NULL;
    memcpy(k->index + g->begin, g->index + g->begin,
           sizeof *k->index * (size_t)(g->end - g->begin));
}

/* A split whose weights are to stay has logits and maxima of its own. */
static wn_desk desk_of_split(const wn_block *b, const wn_desk *d, int split)
{
    wn_desk x = *d;
    if (!b->keeps || split < first_kept(b, d)) return x;
    size_t at = (size_t)(split % d->n_kept) * (size_t)d->n_rows;
    x.logits = d->kept + at * WN_LOGIT_STRIDE;
    x.m = d->kept_m + at;
    return x;
}

/* What a desk of the same queries has made of them holds for this one. */
static void take_queries(wn_desk *d, const wn_desk *x)
{
    d->q_shift = x->q_shift;
    memcpy(d->ready_for, x->ready_for, sizeof d->ready_for);
}

/* The heads' sinks, as a last split without values: behind it m and l are the rows' own. */
static void merge_sinks(const wn_block *b, wn_desk *d)
{
    int D = b->shape->v_dim;
    if (!b->args->sinks) return;
    memset(d->acc, 0, sizeof(float) * (size_t)D);
    for (int i = 0; i < b->np * b->group; i++)
        if (d->run_m[i] != -INFINITY)
            merge_row(b, d, i, b->args->sinks[b->head * b->group + i % b->group], 1, d->acc);
}

void wn_block_run(const wn_block *b, wn_desk *d, int from, int to, const wn_partials *keep)
{
    int rows = b->np * b->group, splits[2];
    size_t step = wn_partial_floats(rows, b->shape->v_dim);
    wn_gathered g[2];
    start_queries(b, d);
    forget_kept(b, d);
    if (!keep) clear_run(b, d);
    else
        for (int s = from; s < to; s++)
            for (int i = 0; i < rows; i++)
                keep->data[(size_t)(s - keep->from) * step + (size_t)i] = -INFINITY;
    wn_walk w = wn_walk_begin(b, from);
    bool more = wn_walk_next(b, d, 0, &w, to, &g[0], &splits[0]);
    for (int i = 0; more; i ^= 1) {     /* the next split is gathered before this one is answered */
        int split = splits[i];
        more = wn_walk_next(b, d, i ^ 1, &w, to, &g[i ^ 1], &splits[i ^ 1]);
        wn_desk x = desk_of_split(b, d, split);
        if (keep) {                     /* the split's record takes the place of the desk's */
            x.m = keep->data + (size_t)(split - keep->from) * step;
            x.l = x.m + rows;
            x.acc = x.l + rows;
        }
        answer_split(b, &x, &g[i], more ? &g[i ^ 1] : NULL);
        keep_split(b, d, &g[i], split);
        if (!keep) merge_rows(b, &x);
        take_queries(d, &x);
    }
    if (!keep) merge_sinks(b, d);
}

/* One lane of several: its queries and running merge; the rest of the desk is shared. */
static wn_desk desk_of_lane(const wn_block *b, const wn_desk *d, int lane)
{
    size_t rows = (size_t)lane * (size_t)b->group, D = (size_t)b->shape->v_dim;
    wn_desk x = *d;
    for (int i = 0; i < 2; i++) {
        x.q[i] += rows * (size_t)b->shape->k_dim;
        x.ready[i] += (size_t)lane * wn_format_ready_bytes(b->group, b->shape->k_dim);
    }
    x.run_m += rows;
    x.run_l += rows;
    x.run_acc += rows * D;
    if (d->kept) {
        x.kept += rows * WN_LOGIT_STRIDE;
        x.kept_m += rows;
        x.kept_splits += lane * d->n_kept;
    }
    return x;
}

/* A split of the lane behind l that has one left, of n in turn; false: none has. */
typedef struct { wn_gathered g; int lane, split; } turn;

static bool next_turn(const wn_block *b, const wn_desk *desks, wn_walk *w, int n, int place,
                      int lane, turn *t)
{
    for (int k = 1; k <= n; k++) {
        t->lane = (lane + k) % n;
        if (wn_walk_next(&b[t->lane], &desks[t->lane], place, &w[t->lane], INT32_MAX, &t->g,
                         &t->split))
            return true;
    }
    return false;
}

void wn_block_run_lanes(const wn_block *first, wn_desk *d, int n, float *ml)
{
    wn_block b[WN_BLOCK_LANES];
    wn_desk desks[WN_BLOCK_LANES];
    wn_walk w[WN_BLOCK_LANES];
    turn turns[2];
    WN_ASSERT(first->np == 1 && n <= WN_BLOCK_LANES);
    for (int l = 0; l < n; l++) {
        b[l] = *first;
        b[l].lane += l;
        b[l].head += l;
        desks[l] = desk_of_lane(first, d, l);
        start_queries(&b[l], &desks[l]);
        forget_kept(&b[l], &desks[l]);
        clear_run(&b[l], &desks[l]);
        w[l] = wn_walk_begin(&b[l], 0);
    }
    bool more = next_turn(b, desks, w, n, 0, n - 1, &turns[0]);
    for (int i = 0; more; i ^= 1) {
        turn *t = &turns[i], *next = &turns[i ^ 1];
        more = next_turn(b, desks, w, n, i ^ 1, t->lane, next);
        wn_desk x = desk_of_split(&b[t->lane], &desks[t->lane], t->split);
        answer_split(&b[t->lane], &x, &t->g, more ? &next->g : NULL);
        keep_split(&b[t->lane], &desks[t->lane], &t->g, t->split);
        merge_rows(&b[t->lane], &x);
        take_queries(&desks[t->lane], &x);
    }
    for (int l = 0; l < n; l++) {
        wn_block_fill_ring(&b[l], &desks[l]);
        merge_sinks(&b[l], &desks[l]);
        if (b[l].keeps) wn_block_account(&b[l], &desks[l]);
        wn_block_finish(&b[l], &desks[l], ml);
    }
}

void wn_block_merge(const wn_block *b, wn_desk *d, const wn_partials *p)
{
    int rows = b->np * b->group, D = b->shape->v_dim;
    clear_run(b, d);
    for (int s = p->from; s < p->to; s++) {
        const float *m = p->data + (size_t)(s - p->from) * wn_partial_floats(rows, D),
                    *l = m + rows;
        for (int i = 0; i < rows; i++)
            merge_row(b, d, i, m[i], l[i], l + rows + (size_t)i * (size_t)D);
    }
    merge_sinks(b, d);
}

/* ---- results -------------------------------------------------------------------- */

static bool finish_row(const wn_block *b, wn_desk *d, float *ml, int r, int h)
{
    const wn_attend_args *a = b->args;
    int i = r * b->group + h, D = b->shape->v_dim, head = b->head * b->group + h;
    float *out = a->out + (size_t)(b->row0 + r) * a->out_stride + (size_t)head * (size_t)D;
    float *pair = ml + 2 * ((size_t)(b->row0 + r) * (size_t)b->shape->n_heads + (size_t)head);
    pair[0] = d->run_m[i];
    pair[1] = d->run_l[i];
    if (d->run_m[i] == -INFINITY) {     /* nothing to see at all */
        memset(out, 0, sizeof(float) * (size_t)D);
        return true;
    }
    return b->kernels->attn->divide(out, d->run_acc + (size_t)i * (size_t)D, d->run_l[i], D);
}

void wn_block_finish(const wn_block *b, wn_desk *d, float *ml)
{
    bool again[WN_BLOCK_ROWS] = { false };
    for (int r = 0; r < b->np; r++)
        for (int h = 0; h < b->group; h++) again[r] |= !finish_row(b, d, ml, r, h);
    if (b->np == 1) return;
    for (int r = 0; r < b->np; r++) {
        if (!again[r]) continue;
        wn_block one = *b;
        one.keeps = false;
        one.np = 1;
        one.pos0 += r;
        one.row0 += r;
        if (one.cs) one.cs += (size_t)r * (size_t)b->args->rope->n_dims;
        wn_block_run(&one, d, 0, INT32_MAX, NULL);
        wn_block_finish(&one, d, ml);
    }
}

/* ---- weights for a ledger ---------------------------------------------------------- */

/* What the weights of a split are multiplied with, by row: exp(m - M) / (L group). */
static const float *factors(const wn_block *b, wn_desk *d)
{
    int rows = b->np * b->group;
    float *f = d->l;                    /* of the split alone: no longer wanted */
    for (int i = 0; i < rows; i++)
        f[i] = d->run_m[i] == -INFINITY ? -INFINITY : d->m[i] - d->run_m[i];
    b->kernels->vec->exp_sub(f, f, 0, rows);
    for (int i = 0; i < rows; i++) f[i] = f[i] > 0 ? f[i] / (d->run_l[i] * (float)b->group) : 0;
    return f;
}

/* One row's weights from entry see.from on: the mean over the group's heads in by_pos, and their
 * maximum where it is wanted. */
static void weights_of_row(const wn_block *b, wn_desk *d, entries see, int r, const float *f,
                           bool max)
{
    int i = r * b->group, n = see.to - see.from;
    const float *x = d->logits + (size_t)i * WN_LOGIT_STRIDE + see.from;
    memset(d->by_pos, 0, sizeof *d->by_pos * (size_t)n);
    for (int h = 0; h < b->group; h++)
        b->kernels->attn->merge(d->by_pos, 1, x + (size_t)h * WN_LOGIT_STRIDE, f[i + h], n);
    if (!max) return;
    memset(d->most, 0, sizeof *d->most * (size_t)n);
    for (int h = 0; h < b->group; h++, x += WN_LOGIT_STRIDE) {
        float whole = f[i + h] * (float)b->group;
        for (int e = 0; e < n; e++)
            d->most[e] = x[e] * whole > d->most[e] ? x[e] * whole : d->most[e];
    }
}

/* Which slot of its split each entry is, by position. Slots that were left out lie beyond all
 * entries. Eight positions at a time: a product makes eight flags their running sums. */
static void rank_entries(const wn_gathered *g, int16_t *rank)
{
    uint8_t here[WN_SPLIT] = { 0 };
    int16_t before[WN_SPLIT / 8], n = 0;
    for (int e = g->begin; e < g->end; e++) here[g->index[e]] = 1;
    for (int i = 0; i < WN_SPLIT / 8; i++) {
        uint64_t x;
        memcpy(&x, here + 8 * i, 8);
        x *= 0x0101010101010101u;       /* of little-endian words, as everywhere here */
        memcpy(here + 8 * i, &x, 8);
        before[i] = (int16_t)(n - 1);
        n = (int16_t)(n + (int)(x >> 56));
    }
    for (int e = g->begin; e < g->end; e++) {
        int at = g->index[e];
        *rank++ = (int16_t)(before[at >> 3] + here[at]);
    }
}

/* One split, whose weights and maxima are in the desk. */
static void account_split(const wn_block *b, wn_desk *d, const wn_gathered *g)
{
    const wn_ledger *x = b->item->ledger;
    uint32_t live = wn_kv_live(b->item->kv, b->lane) + (uint32_t)(b->pos0 - b->item->pos);
    bool max = wn_ledger_wants_max(x);
    int16_t ranks[WN_SPLIT];
    bool in_order = x->lanes ? g->ascending : g->dense;         /* numbers are neighbours, too */
    const int16_t *rank = in_order ? NULL : x->lanes ? ranks : g->index + g->begin;
    int32_t place = wn_ledger_before(x, b->lane, g->base / WN_SPLIT);
    if (in_order && !x->lanes) place += g->index[g->begin];
    if (rank == ranks) rank_entries(g, ranks);
    const float *f = factors(b, d);
    for (int r = 0; r < b->np; r++) {
        entries see = seen_by(b, g, r);
        if (see.from >= see.to) continue;
        weights_of_row(b, d, see, r, f, max);
        wn_ledger_add(x, b->lane, &(wn_weights){
            .query = b->pos0 + r, .group = b->group, .even = 1 / (float)(live + (uint32_t)r + 1),
            .base = g->base, .index = g->index + see.from,
            .place = place + (rank ? 0 : see.from - g->begin),
            .rank = rank ? rank + (see.from - g->begin) : NULL,
            .n = see.to - see.from, .mean = d->by_pos, .max = d->most });
    }
}

/* Splits [from, to) that are not kept are scored and weighed once more, which gives the same
 * bits. */
static void account_walk(const wn_block *b, wn_desk *d, int from, int to)
{
    int P = wn_kv_page_slots(b->item->kv), split;
    wn_gathered g;
    wn_walk w = wn_walk_begin(b, from);
    while (wn_walk_next(b, d, 0, &w, to, &g, &split)) {
        score_split(b, d, &g, P, NULL);
        softmax(b, d, &g, NULL);
        account_split(b, d, &g);
    }
}

void wn_block_account(const wn_block *b, wn_desk *d)
{
    int first = first_kept(b, d);
    if (first) account_walk(b, d, 0, first);
    for (int split = first; split <= last_split(b); split++) {
        wn_kept_split *k = &d->kept_splits[split % d->n_kept];
        if (k->split != split) continue;        /* nothing in it is live */
        wn_desk x = desk_of_split(b, d, split);
        account_split(b, &x, &k->g);
    }
}

void wn_block_account_again(const wn_block *b, wn_desk *d, const float *ml, int from, int to)
{
    start_queries(b, d);
    for (int i = 0; i < b->np * b->group; i++) {
        size_t row = (size_t)(b->row0 + i / b->group),
               head = (size_t)(b->head * b->group + i % b->group);
        const float *pair = ml + 2 * (row * (size_t)b->shape->n_heads + head);
        d->run_m[i] = pair[0];
        d->run_l[i] = pair[1];
    }
    account_walk(b, d, from, to);
}

void wn_block_logits(const wn_block *b, wn_desk *d, wn_block_logits_fn *fn, void *ctx)
{
    int P = wn_kv_page_slots(b->item->kv), split;
    wn_gathered g;
    int32_t pos[WN_SPLIT];
    WN_ASSERT(b->np == 1);
    start_queries(b, d);
    wn_walk w = wn_walk_begin(b, 0);
    while (wn_walk_next(b, d, 0, &w, INT32_MAX, &g, &split)) {
        score_split(b, d, &g, P, NULL);
        for (int e = g.begin; e < g.end; e++) pos[e - g.begin] = g.base + g.index[e];
        fn(ctx, pos, d->logits + g.begin, WN_LOGIT_STRIDE, g.end - g.begin);
    }
}
