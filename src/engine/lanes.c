/* engine/lanes.c - a sequence's lanes as a policy is shown them: see decide.c.
 *
 * Built from the cache's runs, which come list after list within a split: per lane the positions of
 * live slots in ascending order (a lane nothing was dropped from shares one list), counts and
 * biases of merged slots where there are some; lane by lane on all threads. Rows of K and V are
 * decoded on demand; keys that are only compared come as columns, which raw pages have them as.
 */
#include "engine/engine.h"
#include "kernel/attn.h"

#include <string.h>

/* ---- lists ------------------------------------------------------------------------------- */

typedef struct {
    int32_t *pos, *count;               /* count, bias, low: NULL where no slot has any */
    float *bias;
    bool *low;
    int n, n_low;
} lane_fill;

/* The slots of one split by position: runs give them list after list. */
typedef struct {
    uint64_t live[WN_SPLIT / 64], low[WN_SPLIT / 64];
    int32_t count[WN_SPLIT];
    float bias[WN_SPLIT];
} split_slots;

static void list_split(lane_fill *f, const split_slots *s, int split)
{
    for (int w = 0; w < WN_SPLIT / 64; w++)
        for (uint64_t left = s->live[w]; left; left &= left - 1) {
            int bit = __builtin_ctzll(left), i = f->n++, at = w * 64 + bit;
            f->pos[i] = split * WN_SPLIT + at;
            if (f->count) f->count[i] = s->count[at];
            if (f->bias) f->bias[i] = s->bias[at];
            if (!f->low) continue;
            f->low[i] = s->low[w] >> bit & 1;
            f->n_low += f->low[i];
        }
}

static void note_slot(const lane_fill *f, split_slots *x, const wn_run *run, int s)
{
    int at = (run->pos ? run->pos[s] : run->pos0 + s) - run->split * WN_SPLIT;
    uint64_t bit = 1ull << (at & 63);
    x->live[at >> 6] |= bit;
    x->low[at >> 6] |= run->low ? bit : 0;
    if (f->count) x->count[at] = run->count ? run->count[s] : 1;
    if (f->bias) x->bias[at] = run->bias ? run->bias[s] : 0;
}

/* All live slots of a lane in the order of their positions. */
static void list_lane(const wn_kv *kv, int lane, lane_fill *f)
{
    split_slots x = { .live = { 0 } };
    int split = 0;
    wn_run_iter it;
    wn_run run;
    wn_runs_begin(&it, kv, lane, 0, wn_kv_n(kv));
    while (wn_runs_next(&it, &run)) {
        if (run.split != split) {
            list_split(f, &x, split);
            memset(x.live, 0, sizeof x.live);
            memset(x.low, 0, sizeof x.low);
            split = run.split;
        }
        for (uint64_t left = run.keep; left; left &= left - 1)
            note_slot(f, &x, &run, __builtin_ctzll(left));
    }
    list_split(f, &x, split);
}

/* Has any slot of the lane been merged, or a bias? */
static void look_through(const wn_kv *kv, int lane, bool *merged, bool *biased)
{
    wn_run_iter it;
    wn_run run;
    *merged = *biased = false;
    wn_runs_begin(&it, kv, lane, 0, wn_kv_n(kv));
    while (!(*merged && *biased) && wn_runs_next(&it, &run)) {
        *merged |= run.merged;
        for (uint64_t left = run.bias ? run.keep : 0; left && !*biased; left &= left - 1)
            *biased = run.bias[__builtin_ctzll(left)] != 0;
    }
}

typedef struct { const wn_kv *kv; lane_fill *fill; } list_job;

static void list_part(void *arg, int lane, int thread)
{
    const list_job *j = arg;
    (void)thread;
    if (j->fill[lane].pos) list_lane(j->kv, lane, &j->fill[lane]);
}

wn_view_lane wn_engine_lane(const wn_engine *e, int lane)
{
    const wn_lane_map *map = &e->m->map;
    const wn_lane *m = &map->lanes[lane];
    int n_kv = map->first[m->layer + 1] - map->first[m->layer];
    return (wn_view_lane){ .layer = m->layer, .head = m->head, .group = e->m->hp.n_heads / n_kv,
                           .k_dim = m->k_dim, .v_dim = m->v_dim,
                           .still = e->m->layers[m->layer].no_rope };
}

/* Every lane that nothing was dropped from shows positions 0 .. p - 1. */
void wn_engine_fill_lanes(const wn_engine *e, const wn_kv *kv, wn_arena *a, wn_view_lane *lanes)
{
    const wn_lane_map *map = wn_kv_map(kv);
    int p = wn_kv_n(kv);
    int32_t *all = wn_arena_array(a, int32_t, p);
    lane_fill *fill = wn_arena_array(a, lane_fill, map->n_lanes);
    for (int i = 0; i < p; i++) all[i] = i;
    for (int l = 0; l < map->n_lanes; l++) {
        bool window = map->lanes[l].window, merged, biased;
        int live = (int)wn_kv_live(kv, l);
        fill[l] = (lane_fill){ 0 };
        lanes[l] = wn_engine_lane(e, l);
        lanes[l].n = window ? 0 : live;
        lanes[l].pos = all;
        if (window || !wn_kv_is_listed(kv, l)) continue;
        look_through(kv, l, &merged, &biased);
        fill[l].pos = wn_arena_array(a, int32_t, live);
        if (wn_kv_formats(kv, l).low_k) fill[l].low = wn_arena_array(a, bool, live);
        if (merged) fill[l].count = wn_arena_array(a, int32_t, live);
        if (biased) fill[l].bias = wn_arena_array(a, float, live);
    }
    wn_threads_run(e->team, list_part, &(list_job){ kv, fill }, map->n_lanes);
    for (int l = 0; l < map->n_lanes; l++) {
        const lane_fill *f = &fill[l];
        if (!f->pos) continue;
        WN_ASSERT(f->n == lanes[l].n);
        lanes[l].pos = f->pos;
        lanes[l].n_low = f->n_low;
        lanes[l].low = f->n_low ? f->low : NULL;
        lanes[l].count = f->count;
        lanes[l].bias = f->bias;
    }
}

/* ---- rows -------------------------------------------------------------------------------- */

typedef struct {
    const wn_kv *kv;
    const wn_view_lane *lane;
    int index;                          /* of the lane */
    bool values;
    float *rows;
} load_job;

/* Slots turned into rows at a time, and how many channels they may have for that. */
enum { AT_ONCE = 16, WIDE = 256 };

int wn_engine_slot_at(const wn_view_lane *l, int32_t pos)
{
    int lo = 0, hi = l->n - 1;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (l->pos[mid] < pos) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static int32_t position(const wn_run *run, int s) { return run->pos ? run->pos[s] : run->pos0 + s; }

/* Slots of raw pages come some at a time: a kernel turns them from columns into rows. Where all of
 * them are live and no others of the lane lie between them, they go straight to where they
 * belong. */
static void load_run(const load_job *j, const wn_run *run)
{
    const wn_view_lane *l = j->lane;
    const void *raw = j->values ? run->v : run->k,
               *sealed = j->values ? run->v_sealed : run->k_sealed;
    const void *frame = raw ? raw : sealed;
    const wn_format *f = raw ? (j->values ? wn_kv_raw_v : wn_kv_raw_k)(j->kv, j->index)
                             : j->values ? run->v_format : run->k_format;
    int dim = j->values ? l->v_dim : l->k_dim, P = wn_kv_page_slots(j->kv), at = -1;
    bool many = dim <= WIDE && (j->values ? f->rows_v : f->rows_k);
    float some[AT_ONCE * WIDE];
    for (int first = 0; first < run->n; first += AT_ONCE) {
        int n = WN_MIN(AT_ONCE, run->n - first);
        uint64_t left = run->keep >> first & wn_low_bits(n);
        if (!left) continue;
        int32_t pos = position(run, first + __builtin_ctzll(left));
        if (at < 0) at = wn_engine_slot_at(l, pos);
        while (l->pos[at] < pos) at++;
        bool together = left == wn_low_bits(n) && at + n <= l->n &&
                        l->pos[at + n - 1] == position(run, first + n - 1);
        float *row = j->rows + (size_t)at * (size_t)dim;
        if (many)
            (j->values ? f->rows_v : f->rows_k)(frame, P, run->first + first, together ? row : some,
                                                (size_t)dim, n, dim);
        if (many && together) continue;
        for (; left; left &= left - 1) {
            int s = __builtin_ctzll(left);
            pos = position(run, first + s);
            while (l->pos[at] < pos) at++;
            row = j->rows + (size_t)at * (size_t)dim;
            if (many) memcpy(row, some + s * dim, sizeof *row * (size_t)dim);
            else if (j->values) wn_format_get_v(f, frame, P, run->first + first + s, row, dim);
            else wn_format_get_k(f, frame, P, run->first + first + s, pos, row, dim);
        }
    }
}

void wn_engine_load_rows(const wn_kv *kv, const wn_view_lane *l, int lane, bool values, float *rows)
{
    load_job j = { .kv = kv, .lane = l, .index = lane, .values = values, .rows = rows };
    wn_run_iter it;
    wn_run run;
    wn_runs_begin(&it, kv, lane, 0, wn_kv_n(kv));
    while (wn_runs_next(&it, &run)) load_run(&j, &run);
}

/* ---- keys page by page --------------------------------------------------------------------- */

/* What a reader at the sequence's end finds a page's keys in. */
static const wn_format *keys_of(const wn_kv *kv, int lane, const wn_run *run, const void **frame)
{
    *frame = run->k ? run->k : run->k_sealed;
    return run->k ? wn_kv_raw_k(kv, lane) : run->k_format;
}

/* The slot of a page at a position, -1: none that is live. */
static int live_at(const wn_run *run, int32_t pos)
{
    int lo = 0, hi = run->n - 1;
    if (!run->pos) lo = pos - run->pos0;
    while (run->pos && lo < hi) {
        int mid = (lo + hi) / 2;
        if (run->pos[mid] < pos) lo = mid + 1;
        else hi = mid;
    }
    return lo < run->n && position(run, lo) == pos && (run->keep >> lo & 1) ? lo : -1;
}

void wn_engine_load_keys(const wn_kv *kv, const wn_view_lane *l, int lane, const int32_t *slots,
                         int n, float *rows)
{
    int P = wn_kv_page_slots(kv), dim = l->k_dim;
    const void *frame;
    wn_run run;
    for (int i = 0; wn_kv_page_run(kv, lane, i, &run); i++) {
        if (!run.keep) continue;
        const wn_format *f = keys_of(kv, lane, &run, &frame);
        int32_t first = position(&run, 0), last = position(&run, run.n - 1);
        int lo = 0, hi = n;
        while (lo < hi) {
            int mid = (lo + hi) / 2;
            if (l->pos[slots[mid]] < first) lo = mid + 1;
            else hi = mid;
        }
        for (; lo < n && l->pos[slots[lo]] <= last; lo++) {
            int32_t pos = l->pos[slots[lo]];
            int s = live_at(&run, pos);
            if (s >= 0) wn_format_get_k(f, frame, P, s, pos, rows + (size_t)lo * (size_t)dim, dim);
        }
    }
}

/* Which slots of the lane those of a page are; -1: masked ones. */
static void find_slots(const wn_view_lane *l, const wn_run *run, int32_t *at)
{
    int i = -1;
    for (int s = 0; s < run->n; s++) at[s] = -1;
    for (uint64_t left = run->keep; left; left &= left - 1) {
        int s = __builtin_ctzll(left);
        int32_t pos = position(run, s);
        if (i < 0) i = wn_engine_slot_at(l, pos);
        while (l->pos[i] < pos) i++;
        at[s] = i;
    }
}

/* Raw pages as they lie; of others the live slots, each decoded as a row first. */
static void page_columns(const wn_kv *kv, const wn_view_lane *l, int lane, const wn_run *run,
                         float *cols, float *row)
{
    int P = wn_kv_page_slots(kv);
    const void *frame;
    const wn_format *f = keys_of(kv, lane, run, &frame);
    if (f->units_k) {
        f->units_k(frame, P, 0, cols, WN_VIEW_COLS, run->n, l->k_dim);
        return;
    }
    const wn_attn_ops *ops = wn_kernels_get()->attn;
    for (uint64_t left = run->keep; left; left &= left - 1) {
        int s = __builtin_ctzll(left);
        wn_format_get_k(f, frame, P, s, position(run, s), row, l->k_dim);
        ops->put_cols[WN_ELEM_F32](cols + s, WN_VIEW_COLS, row, 0, 1, l->k_dim);
        ops->unit_cols[WN_ELEM_F32](cols + s, WN_VIEW_COLS, cols + s, WN_VIEW_COLS, 1, l->k_dim);
    }
}

void wn_engine_unit_keys(const wn_kv *kv, const wn_view_lane *l, int lane, float *room,
                         wn_view_cols_fn *each, void *ctx)
{
    int32_t at[WN_VIEW_COLS];
    wn_view_cols c = { .at = at, .cols = room };
    wn_run run;
    for (int i = 0; wn_kv_page_run(kv, lane, i, &run); i++) {
        if (!run.keep) continue;
        if (c.n + run.n > WN_VIEW_COLS) {
            const void *frame;
            const wn_format *f = keys_of(kv, lane, &run, &frame);
            c.ahead = frame;
            c.ahead_bytes = f->k_bytes(wn_kv_page_slots(kv), l->k_dim);
            each(ctx, &c);
            c.n = 0;
        }
        find_slots(l, &run, at + c.n);
        page_columns(kv, l, lane, &run, room + c.n, room + WN_VIEW_COLS * l->k_dim);
        c.n += run.n;
    }
    c.ahead_bytes = 0;
    if (c.n) each(ctx, &c);
}
