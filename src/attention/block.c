/* attention/block.c - the walk of a block over its splits; see block.h.
 *
 * A split is gathered (gather.h) while the one before is still to be answered, so that its
 * pages can be fetched meanwhile, then answered by itself (split.h). What came of it is merged
 * from the left into the rows' running (m, l, acc), or kept as a record to be merged in the
 * same order later: the order of sums is that of positions, whoever walks. Several lanes of
 * one position are walked in turn, a split each.
 */
#include "attention/account.h"
#include "attention/split.h"

#include <math.h>
#include <string.h>

/* ---- the running merge ---------------------------------------------------------- */

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

static void merge_rows(const wn_block *b, wn_desk *d)
{
    for (int i = 0; i < b->np * b->group; i++)
        merge_row(b, d, i, d->m[i], d->l[i], d->acc + (size_t)i * (size_t)b->shape->v_dim);
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

/* ---- the walk ------------------------------------------------------------------- */

/* What a desk of the same queries has made of them holds for this one. */
static void take_queries(wn_desk *d, const wn_desk *x)
{
    d->q_shift = x->q_shift;
    memcpy(d->ready_for, x->ready_for, sizeof d->ready_for);
}

void wn_block_run(const wn_block *b, wn_desk *d, int from, int to, const wn_partials *keep)
{
    int rows = b->np * b->group, splits[2];
    size_t step = wn_partial_floats(rows, b->shape->v_dim);
    wn_gathered g[2];
    wn_block_start_queries(b, d);
    wn_kept_forget(b, d);
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
        wn_desk x = wn_kept_desk(b, d, split);
        if (keep) {                     /* the split's record takes the place of the desk's */
            x.m = keep->data + (size_t)(split - keep->from) * step;
            x.l = x.m + rows;
            x.acc = x.l + rows;
        }
        wn_split_answer(b, &x, &g[i], more ? &g[i ^ 1] : NULL);
        wn_kept_put(b, d, &g[i], split);
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
        wn_block_start_queries(&b[l], &desks[l]);
        wn_kept_forget(&b[l], &desks[l]);
        clear_run(&b[l], &desks[l]);
        w[l] = wn_walk_begin(&b[l], 0);
    }
    bool more = next_turn(b, desks, w, n, 0, n - 1, &turns[0]);
    for (int i = 0; more; i ^= 1) {
        turn *t = &turns[i], *next = &turns[i ^ 1];
        more = next_turn(b, desks, w, n, i ^ 1, t->lane, next);
        wn_desk x = wn_kept_desk(&b[t->lane], &desks[t->lane], t->split);
        wn_split_answer(&b[t->lane], &x, &t->g, more ? &next->g : NULL);
        wn_kept_put(&b[t->lane], &desks[t->lane], &t->g, t->split);
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

void wn_block_logits(const wn_block *b, wn_desk *d, wn_block_logits_fn *fn, void *ctx)
{
    wn_gathered g;
    int32_t pos[WN_SPLIT];
    int split;
    WN_ASSERT(b->np == 1);
    wn_block_start_queries(b, d);
    wn_walk w = wn_walk_begin(b, 0);
    while (wn_walk_next(b, d, 0, &w, INT32_MAX, &g, &split)) {
        wn_split_score(b, d, &g);
        for (int e = g.begin; e < g.end; e++) pos[e - g.begin] = g.base + g.index[e];
        fn(ctx, pos, d->logits + g.begin, WN_LOGIT_STRIDE, g.end - g.begin);
    }
}
