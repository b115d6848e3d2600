/* attention/attend.c - a pass: cut into pieces once, handed out in every layer.
 *
 * A block (block.h) is some positions of one item for one group of heads. A piece is a
 * block with all its splits; only where there are too few pieces to keep the team busy
 * (one decoding sequence, more threads than lanes) a block is cut into pieces of some
 * splits each, which leave partial results that the last of them merges in order.
 *
 *     prepare   turn K, put K and V       (item, lane)    only for items of several blocks
 *     answer    blocks or parts of them   pieces          largest first, whoever is free
 *     account   weights to ledgers        (item, lane, splits)   only where answer could not
 *
 * An item of a single block (every decoding sequence) prepares its lane inside its piece:
 * nobody else reads that lane, so a decode layer is one hand-out, and a small one none.
 * Blocks of a single position are pieces of several neighbouring lanes where that leaves
 * the team even: their pages lie side by side (wn_block_run_lanes).
 *
 * A ledger (accumulate.h) is a chain over an item's rows, block after block. A lane with all its
 * blocks is one piece then, which accounts for a block's weights while they lie there; if lanes
 * do not leave the team even, pieces stay small and accounts are made afterwards, from
 * logits computed once more. Both give the same bits.
 *
 * Pieces are cut by what is known of the batch alone; which thread runs a piece, and
 * whether a block was cut, changes no bit: splits are always merged left to right.
 */
#include "attention/account.h"
#include "attention/block.h"
#include "kernel/codes.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Below this many multiply-adds, handing out costs more than it saves (bench/NOTES.md). */
enum { INLINE_FMAS = 500000, ROPES = 2 };

typedef struct {
    int item, head, n_heads;            /* KV heads; several only of a single position */
    int32_t pos0;
    int row0, np;                       /* np: of all its blocks */
    int from, to;                       /* splits */
    bool keeps;                         /* its item's ledger gets the weights at once: it is not
                                           cut */
    int unit;                           /* of a block that was cut; else -1 */
    bool prepares;                      /* the only block of its lane in this pass */
    int order;                          /* ties, so that the order is total */
    uint64_t cost;
} piece;

/* A block that was cut. */
typedef struct {
    wn_partials partials;
    atomic_int left;                    /* pieces not done in this layer */
    int n_pieces;
} unit;

typedef struct { const wn_rope *rope; float *cs; } angles;

struct wn_attend_pass {
    wn_attend_shape shape;
    const wn_attend_item *items;
    const wn_attend_observer *obs;
    const wn_kernels *kernels;
    wn_threads *team;
    int n_items, n_rows, group;
    bool ledgers, later;                /* does any item have a ledger; any that pieces do not
                                           fill? */
    bool *accounted;                    /* (n_items) its pieces fill it */
    piece *pieces;      int n_pieces, cap_pieces;
    unit *units;        int n_units, cap_units;
    int *prepared;      int n_prepared; /* items of several blocks or cut ones */
    float *partials;    size_t cap_partials;
    wn_desk *desks;                     /* one per thread */
    float *ml;                          /* (n_rows, n_heads) pairs: maximum and sum */
    float *lse;                         /* (n_rows, n_heads) */
    float *weights;                     /* (group, n_positions) */
    int32_t *weights_pos;
    angles ropes[ROPES];    int next_rope;  /* (n_rows, k_dim) each */
    const wn_attend_args *args;         /* of the layer in progress */
};

static _Atomic uint64_t spent_ns;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t wn_attend_us(bool reset)
{
    return (reset ? atomic_exchange(&spent_ns, 0) : atomic_load(&spent_ns)) / 1000;
}

/* ---- scratch -------------------------------------------------------------------- */

typedef struct { int rows, items, positions, threads; } limits;

static int block_positions(int group) { return WN_MAX(1, WN_BLOCK_ROWS / group); }

static size_t take(wn_arena *a, void *out, size_t bytes)
{
    if (a) {
        void *p = wn_arena_take(a, bytes);
        memcpy(out, &p, sizeof p);
    }
    return wn_arena_cost(bytes);
}

static size_t lay_out_kept(wn_desk *d, const wn_attend_shape *s, int rows, wn_arena *a)
{
    size_t n = (size_t)WN_MAX(rows, WN_BLOCK_ROWS) * WN_KEPT_SPLITS;
    size_t lanes = (size_t)WN_MIN(s->n_kv_heads, WN_BLOCK_LANES);
    d->n_kept = (int)WN_MIN(n / (size_t)rows, WN_KEPT_MOST);
    return take(a, &d->kept, n * WN_LOGIT_STRIDE * sizeof(float)) +
           take(a, &d->kept_m, n * sizeof(float)) +
           take(a, &d->kept_splits, lanes * WN_KEPT_MOST * sizeof *d->kept_splits);
}

static size_t lay_out_desk(wn_desk *d, const wn_attend_shape *s, int rows, wn_arena *a)
{
    size_t R = (size_t)rows, F = sizeof(float), group = (size_t)(s->n_heads / s->n_kv_heads), n = 0;
    size_t tmp = WN_MAX(wn_format_tmp_bytes(WN_PAGE_SLOTS_MAX, s->k_dim),
                        wn_format_tmp_bytes(WN_PAGE_SLOTS_MAX, s->v_dim));
    for (int i = 0; i < 2; i++) n += take(a, &d->q[i], R * (size_t)s->k_dim * F);
    /* lanes of one position have theirs apart */
    size_t ready = R / group * wn_format_ready_bytes((int)group, s->k_dim);
    for (int i = 0; i < 2; i++) n += take(a, &d->ready[i], ready);
    n += take(a, &d->own, R * (size_t)s->v_dim * F);
    n += take(a, &d->logits, R * WN_LOGIT_STRIDE * F);
    n += take(a, &d->m, R * F) + take(a, &d->l, R * F) + take(a, &d->acc, R * (size_t)s->v_dim * F);
    n += take(a, &d->run_m, R * F) + take(a, &d->run_l, R * F);
    n += take(a, &d->run_acc, R * (size_t)s->v_dim * F);
    n += take(a, &d->part, R * 64 * F) + take(a, &d->by_pos, 4 * WN_SPLIT * F) +
         take(a, &d->most, WN_SPLIT * F);
    n += take(a, &d->cs, (size_t)s->k_dim * F) + take(a, &d->tmp, tmp);
    n += take(a, &d->soon, sizeof(wn_ahead) * 2 * WN_SPLIT);
    for (int i = 0; i < 2; i++) {
        n += take(a, &d->stretches[i], sizeof(wn_stretch) * WN_SPLIT);
        n += take(a, &d->k[i], sizeof(wn_page_part) * WN_SPLIT) +
             take(a, &d->v[i], sizeof(wn_page_part) * WN_SPLIT);
        n += take(a, &d->index[i], sizeof(int16_t) * WN_LOGIT_STRIDE);
    }
    d->n_rows = rows;
    d->kept = d->kept_m = NULL;
    d->kept_splits = NULL;
    return n;
}

/* Rows of a desk: the widest block of the pass, or the lanes of one position. */
static int desk_rows(const wn_attend_shape *s, int max_rows)
{
    int group = s->n_heads / s->n_kv_heads;
    return WN_MIN(WN_MAX(max_rows, s->n_kv_heads), block_positions(group)) * group;
}

/* Takes everything a pass within the limits needs, or (a NULL) counts its bytes. */
static size_t lay_out(wn_attend_pass *p, const wn_attend_shape *s, limits m, wn_arena *a)
{
    int group = s->n_heads / s->n_kv_heads, np = block_positions(group);
    int splits = m.positions / WN_SPLIT + 1;
    size_t n = 0, F = sizeof(float), rows = (size_t)m.rows, heads = (size_t)s->n_heads;
    /* Blocks of encoded caches end at page borders too, 4 slots at least. */
    p->cap_pieces = s->n_kv_heads * (m.rows / np + m.rows / WN_PAGE_SLOTS_MIN + 2 * m.items) +
                    6 * m.threads;
    p->cap_units = 2 * m.threads;
    /* Cut blocks are those of fewer than 2 n_threads (item, lane): so many positions. */
    size_t cut = (size_t)(2 * m.threads + s->n_kv_heads - 1) / (size_t)s->n_kv_heads;
    p->cap_partials = cut * (size_t)splits * heads * (size_t)(s->v_dim + 2);
    n += take(a, &p->pieces, sizeof(piece) * (size_t)p->cap_pieces);
    n += take(a, &p->units, sizeof(unit) * (size_t)p->cap_units);
    n += take(a, &p->prepared, sizeof(int) * (size_t)m.items) +
         take(a, &p->accounted, (size_t)m.items);
    n += take(a, &p->partials, m.threads > 1 ? p->cap_partials * F : 0);
    n += take(a, &p->desks, sizeof(wn_desk) * (size_t)m.threads);
    n += take(a, &p->ml, rows * heads * 2 * F) + take(a, &p->lse, rows * heads * F);
    n += take(a, &p->weights, (size_t)group * (size_t)m.positions * F);
    n += take(a, &p->weights_pos, sizeof(int32_t) * (size_t)m.positions);
    for (int i = 0; i < ROPES; i++) n += take(a, &p->ropes[i].cs, rows * (size_t)s->k_dim * F);
    for (int t = 0; t < m.threads; t++) {
        wn_desk *d = a ? &p->desks[t] : NULL, none;
        n += lay_out_desk(d ? d : &none, s, desk_rows(s, m.rows), a);
        if (d && p->ledgers) lay_out_kept(d, s, desk_rows(s, m.rows), a);
    }
    return n;
}

size_t wn_attend_scratch_bytes(const wn_attend_shape *s, int max_rows, int max_items,
                               int max_positions, int n_threads)
{
    wn_attend_pass p;
    limits m = { max_rows, max_items, max_positions, n_threads };
    return wn_arena_cost(sizeof p) + lay_out(&p, s, m, NULL);
}

size_t wn_attend_ledger_bytes(const wn_attend_shape *s, int max_rows, int n_threads)
{
    wn_desk none;
    return (size_t)n_threads * lay_out_kept(&none, s, desk_rows(s, max_rows), NULL);
}

/* ---- cutting -------------------------------------------------------------------- */

/* A row costs its multiply-adds, a slot its reading: about as much as 8 rows. */
static uint64_t cost_of(const wn_attend_pass *p, int32_t slots, int np)
{
    return (uint64_t)slots * (uint64_t)(np * p->group + 8);
}

/* Heads of one position answered side by side: as many as leave every thread the same work,
 * or, where sequences of different lengths are in the batch, something to even it out. */
static int heads_together(const wn_attend_pass *p, int n_threads)
{
    int heads = p->shape.n_kv_heads;
    for (int n = WN_MIN(WN_MIN(heads, WN_BLOCK_LANES), block_positions(p->group)); n > 1; n--) {
        int pieces = heads / n * p->n_items;
        if (heads % n == 0 && (p->n_items == 1 ? pieces % n_threads == 0 : pieces >= 4 * n_threads))
            return n;
    }
    return 1;
}

/* Positions of the block that begins at pos. */
static int block_rows(const wn_attend_pass *p, const wn_attend_item *item, int32_t pos)
{
    int np = WN_MIN(block_positions(p->group), item->pos + item->n_rows - pos),
        P = wn_kv_page_slots(item->kv);
    /* one row of a block, all rows: the same frames */
    if (wn_kv_is_encoded(item->kv)) np = WN_MIN(np, P - pos % P);
    return np;
}

/* Is a lane of the item a piece, with its accounts? Where that leaves every thread the same work,
 * or enough of it to even it out. */
static bool accounts(const wn_attend_pass *p, const wn_attend_item *item, int n_threads)
{
    int lanes = p->shape.n_kv_heads * p->n_items;
    return item->ledger && (lanes % n_threads == 0 || lanes >= 4 * n_threads);
}

static void cut_item(wn_attend_pass *p, int i, int n_threads)
{
    const wn_attend_item *item = &p->items[i];
    int first = p->n_pieces;
    int32_t end = item->pos + item->n_rows;
    int heads = p->shape.n_kv_heads,
        together = item->n_rows == 1 ? heads_together(p, n_threads) : 1;
    bool keeps = p->accounted[i] = accounts(p, item, n_threads);
    p->later |= item->ledger && !keeps;
    for (int32_t pos = item->pos; pos < end;) {
        int np = keeps ? item->n_rows : block_rows(p, item, pos);
        for (int h = 0; h < heads; h += together) {
            WN_ASSERT(p->n_pieces < p->cap_pieces);
            p->pieces[p->n_pieces] = (piece){
                .item = i, .head = h, .n_heads = together, .pos0 = pos,
                .row0 = item->row + (pos - item->pos), .np = np,
                .to = (pos + np - 1) / WN_SPLIT + 1, .unit = -1, .keeps = keeps,
                .cost = cost_of(p, pos + np, np) * (uint64_t)together,
            };
            p->n_pieces++;
        }
        pos += np;
    }
    bool single = p->n_pieces - first == heads / together;
    for (int j = first; j < p->n_pieces; j++) p->pieces[j].prepares = single;
    if (!single && item->n_rows) p->prepared[p->n_prepared++] = i;
}

/* Cuts block j's splits into n parts; the first part stays at j. */
static void cut_splits(wn_attend_pass *p, int j, int n, size_t *used)
{
    piece whole = p->pieces[j];
    int splits = whole.to, rows = whole.np * p->group;
    size_t floats = wn_partial_floats(rows, p->shape.v_dim) * (size_t)splits;
    if (n < 2 || p->n_units == p->cap_units || p->n_pieces + n > p->cap_pieces) return;
    if (*used + floats > p->cap_partials) return;       /* no room: stays whole, only less even */
    unit *u = &p->units[p->n_units];
    u->partials = (wn_partials){ p->partials + *used, 0, splits };
    u->n_pieces = n;
    atomic_init(&u->left, n);
    *used += floats;
    for (int k = 0; k < n; k++) {
        piece *part = k ? &p->pieces[p->n_pieces++] : &p->pieces[j];
        *part = whole;
        part->from = (int)((int64_t)splits * k / n);
        part->to = (int)((int64_t)splits * (k + 1) / n);
        part->unit = p->n_units;
        part->cost = whole.cost / (uint64_t)n;
        part->prepares = false;
    }
    p->n_units++;
    if (!whole.prepares) return;
    for (int k = 0; k < p->n_prepared; k++)
        if (p->prepared[k] == whole.item) return;
    p->prepared[p->n_prepared++] = whole.item;
    for (int k = 0; k < p->n_pieces; k++)               /* its other lanes are prepared with it */
        if (p->pieces[k].item == whole.item) p->pieces[k].prepares = false;
}

static int largest_first(const void *a, const void *b)
{
    const piece *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? 1 : -1;
    return x->order - y->order;
}

static void cut_pass(wn_attend_pass *p, int n_threads)
{
    uint64_t total = 0, fmas = 0;
    for (int i = 0; i < p->n_items; i++) cut_item(p, i, p->team ? n_threads : 1);
    for (int j = 0; j < p->n_pieces; j++) {
        const piece *x = &p->pieces[j];
        total += x->cost;
        fmas += (uint64_t)(x->pos0 + x->np) * (uint64_t)(x->np * p->group * x->n_heads);
    }
    if (fmas * (uint64_t)(p->shape.k_dim + p->shape.v_dim) < INLINE_FMAS) p->team = NULL;
    if (!p->team) n_threads = 1;
    size_t used = 0;
    int n = n_threads > 1 ? p->n_pieces : 0;
    for (int j = 0; j < n; j++) {
        uint64_t cost = p->pieces[j].cost, parts = 4 * (uint64_t)n_threads;
        if (p->pieces[j].n_heads > 1 || p->pieces[j].keeps ||
            cost * 2 * (uint64_t)n_threads <= total)
            continue;
        int want = (int)((cost * parts + total - 1) / total);
        cut_splits(p, j, WN_MIN(want, p->pieces[j].to), &used);
    }
    for (int j = 0; j < p->n_pieces; j++) p->pieces[j].order = j;
    qsort(p->pieces, (size_t)p->n_pieces, sizeof *p->pieces, largest_first);
}

wn_attend_pass *wn_attend_begin(const wn_attend_shape *s, const wn_attend_item *items, int n_items,
                                wn_arena *scratch, wn_threads *team, const wn_attend_observer *obs)
{
    limits m = { 0, n_items, 0, wn_threads_count(team) };
    wn_attend_pass *p = wn_arena_array(scratch, wn_attend_pass, 1);
    WN_ASSERT(s->n_kv_heads > 0 && s->n_heads % s->n_kv_heads == 0);
    for (int i = 0; i < n_items; i++) {
        m.rows = WN_MAX(m.rows, items[i].row + items[i].n_rows);
        m.positions = WN_MAX(m.positions, items[i].pos + items[i].n_rows);
    }
    *p = (wn_attend_pass){
        .shape = *s, .items = items, .obs = obs, .kernels = wn_kernels_get(), .team = team,
        .n_items = n_items, .n_rows = m.rows, .group = s->n_heads / s->n_kv_heads,
    };
    for (int i = 0; i < n_items; i++) p->ledgers |= items[i].ledger != NULL;
    lay_out(p, s, m, scratch);
    cut_pass(p, m.threads);
    return p;
}

/* ---- a layer -------------------------------------------------------------------- */

/* Angles of all rows of the batch, (n_rows, n_dims); made once per pass and rope. */
static const float *angles_for(wn_attend_pass *p, const wn_rope *rope)
{
    if (!rope) return NULL;
    WN_ASSERT(rope->n_dims <= p->shape.k_dim);
    for (int i = 0; i < ROPES; i++)
        if (p->ropes[i].rope == rope) return p->ropes[i].cs;
    angles *a = &p->ropes[p->next_rope];
    p->next_rope = (p->next_rope + 1) % ROPES;
    a->rope = rope;
    for (int i = 0; i < p->n_items; i++)
        for (int r = 0; r < p->items[i].n_rows; r++)
            wn_rope_angles(rope, p->items[i].pos + r,
                           a->cs + (size_t)(p->items[i].row + r) * (size_t)rope->n_dims);
    return a->cs;
}

static const float *row_angles(wn_attend_pass *p, int row)
{
    const wn_rope *rope = p->args->rope;
    return rope ? angles_for(p, rope) + (size_t)row * (size_t)rope->n_dims : NULL;
}

static int lane_of(const wn_attend_pass *p, const wn_attend_item *item, int head)
{
    const wn_lane_map *map = wn_kv_map(item->kv);
    return map->first[p->args->layer] + head;
}

/* Turns the new K rows of one lane and stores K and V. */
static void prepare_lane(wn_attend_pass *p, const wn_attend_item *item, int head)
{
    const wn_attend_args *a = p->args;
    const wn_rope *rope = a->rope;
    float *k = a->k + (size_t)item->row * a->k_stride + (size_t)head * (size_t)p->shape.k_dim;
    const float *v = a->v + (size_t)item->row * a->v_stride + (size_t)head * (size_t)p->shape.v_dim;
    const float *cs = row_angles(p, item->row);
    for (int r = 0; rope && r < item->n_rows; r++) {
        float *x = k + (size_t)r * a->k_stride;
        p->kernels->vec->rope(x, x, cs + (size_t)r * (size_t)rope->n_dims, rope->n_dims,
                              rope->neox);
    }
    wn_kv_put(item->kv, lane_of(p, item, head), item->pos, k, a->k_stride, v, a->v_stride,
              item->n_rows);
}

static void prepare(void *arg, int part, int thread)
{
    (void)thread;
    wn_attend_pass *p = arg;
    int heads = p->shape.n_kv_heads;
    prepare_lane(p, &p->items[p->prepared[part / heads]], part % heads);
}

static wn_block block_of(wn_attend_pass *p, const piece *x)
{
    const wn_attend_item *item = &p->items[x->item];
    int lane = lane_of(p, item, x->head);
    return (wn_block){
        .shape = &p->shape,
        .args = p->args,
        .kernels = p->kernels,
        .item = item,
        .cs = row_angles(p, x->row0),
        .lane = lane,
        .head = x->head,
        .row0 = x->row0,
        .np = x->np,
        .pos0 = x->pos0,
        .group = p->group,
        .keeps = x->keeps && !wn_kv_map(item->kv)
                                  ->lanes[lane]
                                  .window, /* those of window layers are shown to nobody */
    };
}

/* Block after block of a piece that is not cut. */
static void answer_blocks(wn_attend_pass *p, const piece *x, wn_desk *d)
{
    const wn_attend_item *item = &p->items[x->item];
    for (int r = 0, np; r < x->np; r += np) {
        piece part = *x;
        part.pos0 += r;
        part.row0 += r;
        part.np = np = WN_MIN(x->np - r, block_rows(p, item, part.pos0));
        wn_block b = block_of(p, &part);
        wn_block_run(&b, d, 0, INT32_MAX, NULL);
        wn_block_fill_ring(&b, d);
        if (b.keeps) wn_block_account(&b, d);      /* before finish, which may use the desk for
                                                      single rows */
        wn_block_finish(&b, d, p->ml);
    }
}

/* Products with encoded pages, many of them, on this thread. */
static void hold(const wn_attend_pass *p, const wn_attend_item *item, bool on)
{
    if (p->kernels->planes->hold && wn_kv_is_encoded(item->kv)) p->kernels->planes->hold(on);
}

static void answer_piece(wn_attend_pass *p, const piece *x, int thread)
{
    wn_desk *d = &p->desks[thread];
    wn_block b = block_of(p, x);
    for (int h = 0; x->prepares && h < x->n_heads; h++) prepare_lane(p, b.item, x->head + h);
    if (x->n_heads > 1) {
        wn_block_run_lanes(&b, d, x->n_heads, p->ml);
        return;
    }
    if (x->unit < 0) {
        answer_blocks(p, x, d);
        return;
    }
    unit *u = &p->units[x->unit];
    wn_block_run(&b, d, x->from, x->to, &u->partials);
    if (x->from == 0) wn_block_fill_ring(&b, d);
    if (atomic_fetch_sub_explicit(&u->left, 1, memory_order_acq_rel) > 1) return;
    /* the last: ready for the next layer */
    atomic_store_explicit(&u->left, u->n_pieces, memory_order_relaxed);
    wn_block_merge(&b, d, &u->partials);
    wn_block_finish(&b, d, p->ml);
}

static void answer(void *arg, int part, int thread)
{
    wn_attend_pass *p = arg;
    const piece *x = &p->pieces[part];
    hold(p, &p->items[x->item], true);
    answer_piece(p, x, thread);
    hold(p, &p->items[x->item], false);
}

/* ---- observers ------------------------------------------------------------------ */

static void show_lse(wn_attend_pass *p)
{
    for (int i = 0; i < p->n_rows * p->shape.n_heads; i++)
        p->lse[i] = (float)((double)p->ml[2 * i] + log((double)p->ml[2 * i + 1]));
    p->obs->lse(p->obs->ctx, p->args->layer, p->lse, p->n_rows, p->shape.n_heads);
}

typedef struct {
    wn_attend_pass *pass;
    const float *ml;                    /* (group) pairs */
    size_t stride;
    int n;
} weighing;

static void weigh(void *ctx, const int32_t *pos, const float *logits, size_t stride, int n)
{
    weighing *w = ctx;
    wn_attend_pass *p = w->pass;
    for (int h = 0; h < p->group; h++) {
        float *out = p->weights + (size_t)h * w->stride + w->n;
        p->kernels->vec->exp_sub(out, logits + (size_t)h * stride, w->ml[2 * h], n);
        for (int i = 0; i < n; i++) out[i] /= w->ml[2 * h + 1];
    }
    memcpy(p->weights_pos + w->n, pos, sizeof *pos * (size_t)n);
    w->n += n;
}

/* The logits are computed once more: only those who ask pay. */
static void show_weights(wn_attend_pass *p, const wn_attend_item *item)
{
    for (int h = 0; h < p->shape.n_kv_heads; h++) {
        piece x = { .item = (int)(item - p->items), .head = h, .pos0 = item->pos, .row0 = item->row,
                    .np = 1 };
        wn_block b = block_of(p, &x);
        weighing w = {
            .pass = p,
            .stride = (size_t)item->pos + 1,
            .ml = p->ml +
                  2 * ((size_t)item->row * (size_t)p->shape.n_heads + (size_t)(h * p->group)),
        };
        wn_block_logits(&b, &p->desks[0], weigh, &w);
        for (int i = 1; i < p->group; i++)
            memmove(p->weights + (size_t)i * (size_t)w.n, p->weights + (size_t)i * w.stride,
                    sizeof(float) * (size_t)w.n);
        p->obs->weights(p->obs->ctx, item, b.lane, p->weights_pos, p->weights, p->group, w.n);
    }
}

/* ---- ledgers that the answers could not fill ---------------------------------------- */

/* Parts of a lane's splits: slots of different splits have nothing to do with each other. */
static int account_parts(const wn_attend_pass *p) { return 2 * wn_threads_count(p->team); }

static void account(void *arg, int part, int thread)
{
    wn_attend_pass *p = arg;
    int parts = account_parts(p), k = part % parts, lane = part / parts;
    int i = lane / p->shape.n_kv_heads, head = lane % p->shape.n_kv_heads;
    const wn_attend_item *item = &p->items[i];
    int splits = (item->pos + item->n_rows - 1) / WN_SPLIT + 1, from = splits * k / parts,
        to = splits * (k + 1) / parts;
    if (!item->ledger || p->accounted[i] ||
        wn_kv_map(item->kv)->lanes[lane_of(p, item, head)].window)
        return;
    hold(p, item, true);
    for (int r = 0, np; r < item->n_rows && from < to; r += np) {
        np = block_rows(p, item, item->pos + r);
        piece x = { .item = i, .head = head, .pos0 = item->pos + r, .row0 = item->row + r,
                    .np = np };
        wn_block b = block_of(p, &x);
        wn_block_account_again(&b, &p->desks[thread], p->ml, from, to);
    }
    hold(p, item, false);
}

void wn_attend(wn_attend_pass *p, const wn_attend_args *a)
{
    uint64_t start = now_ns();
    p->args = a;
    if (p->obs && p->obs->rows) p->obs->rows(p->obs->ctx, a, p->n_rows);
    angles_for(p, a->rope);             /* here, not in a race of the pieces */
    wn_threads_run(p->team, prepare, p, p->n_prepared * p->shape.n_kv_heads);
    wn_threads_run(p->team, answer, p, p->n_pieces);
    if (p->later)
        wn_threads_run(p->team, account, p, p->n_items * p->shape.n_kv_heads * account_parts(p));
    if (p->obs && p->obs->lse) show_lse(p);
    for (int i = 0; p->obs && p->obs->weights && i < p->n_items; i++)
        if (p->items[i].n_rows == 1) show_weights(p, &p->items[i]);
    p->args = NULL;
    atomic_fetch_add_explicit(&spent_ns, now_ns() - start, memory_order_relaxed);
}
