/* attention/ledger.c - see ledger.h.
 *
 * Laying out is a walk over each lane's runs, which counts live slots by split. A decision takes
 * more: the rows are in order of position before and after, so what is live before and after, as
 * bits over positions, says where each number was and where it goes. It goes to `noted` first,
 * whole words of bits at once where nothing was dropped, and from there back. */
#include "attention/ledger.h"

#include "attention/attend.h"
#include "base/alloc.h"
#include "base/os.h"

#include <string.h>

static size_t words_of(int n) { return (size_t)n / 64 + 1; }

/* Slots of a lane that have numbers. */
static int32_t slots_of(const wn_kv *kv, int lane)
{
    return wn_kv_map(kv)->lanes[lane].window ? 0 : (int32_t)wn_kv_live(kv, lane);
}

int32_t wn_ledger_before(const wn_ledger *g, int lane, int split)
{
    int32_t pos = split * WN_SPLIT;
    if (!g->lanes) return pos;
    if (pos <= g->from) return g->before[(size_t)lane * (size_t)g->n_splits + (size_t)split];
    return g->lanes[lane].n + (pos - g->from);
}

wn_status wn_ledger_open(wn_ledger *g, const wn_stat *stats, int n_stats, const wn_lane_map *map,
                         int max_positions, wn_err *err)
{
    size_t lanes = (size_t)map->n_lanes;
    *g = (wn_ledger){ .stats = stats, .n_stats = n_stats, .n_lanes = map->n_lanes,
                      .n_splits = max_positions / WN_SPLIT + 1,
                      .mapped = sizeof(float) * lanes * (size_t)n_stats * (size_t)max_positions };
    g->lanes = WN_NEW_ARRAY(wn_ledger_lane, lanes);
    g->before = WN_NEW_ARRAY(int32_t, lanes * (size_t)g->n_splits);
    g->x = wn_os_map(g->mapped, false);
    g->noted = wn_os_map(g->mapped, false);
    if (g->lanes && g->before && g->x && g->noted) return WN_OK;
    wn_ledger_close(g);
    return wn_fail(err, WN_ENOMEM, "policy: out of memory for the attention of %d positions",
                   max_positions);
}

void wn_ledger_close(wn_ledger *g)
{
    wn_free(g->lanes);
    wn_free(g->before);
    wn_os_unmap(g->x, g->mapped);
    wn_os_unmap(g->noted, g->mapped);
    *g = (wn_ledger){ 0 };
}

/* ---- layout ----------------------------------------------------------------------------- */

static void count_splits(wn_ledger *g, const wn_kv *kv, int lane)
{
    int32_t *before = g->before + (size_t)lane * (size_t)g->n_splits;
    int n = wn_kv_n(kv) / WN_SPLIT, split = 0, slots = 0;
    wn_run_iter it;
    wn_run run;
    wn_runs_begin(&it, kv, lane, 0, wn_kv_n(kv));
    for (before[0] = 0; wn_runs_next(&it, &run); slots += __builtin_popcountll(run.keep))
        while (split < run.split) before[++split] = slots;
    while (split < n) before[++split] = slots;
    WN_ASSERT(slots == g->lanes[lane].n);
}

/* n numbers are wanted from here on, *touched were. Layouts come and go within a few slots of each
 * other: pages go back when it is a sixteenth that is not wanted any more. */
static void give_back(float *x, size_t n, size_t *touched)
{
    if (n + n / 16 < *touched) {
        wn_os_discard(x, *touched * sizeof *x);
        *touched = 0;
    }
    *touched = WN_MAX(*touched, n);
}

void wn_ledger_lay_out(wn_ledger *g, const wn_kv *kv, int32_t until)
{
    size_t at = 0;
    g->from = wn_kv_n(kv);
    g->until = until;
    for (int l = 0; l < g->n_lanes; l++) {
        wn_ledger_lane *x = &g->lanes[l];
        *x = (wn_ledger_lane){ .at = at };
        if (wn_kv_map(kv)->lanes[l].window) continue;
        x->n = slots_of(kv, l);
        x->room = x->n + (until - g->from);
        at += (size_t)x->room * (size_t)g->n_stats;
        count_splits(g, kv, l);
    }
    WN_ASSERT(until >= g->from && at * sizeof *g->x <= g->mapped);
    g->used = at;
    give_back(g->x, at, &g->touched);
}

/* ---- decisions -------------------------------------------------------------------------- */

static void set_bits(const wn_kv *kv, int lane, uint64_t *bits)
{
    wn_run_iter it;
    wn_run run;
    memset(bits, 0, words_of(wn_kv_n(kv)) * sizeof *bits);
    wn_runs_begin(&it, kv, lane, 0, wn_kv_n(kv));
    while (wn_runs_next(&it, &run)) {
        if (!run.pos) {                 /* consecutive: at most two words */
            int at = run.pos0 & 63;
            bits[run.pos0 >> 6] |= run.keep << at;
            if (at && run.keep >> (64 - at)) bits[(run.pos0 >> 6) + 1] |= run.keep >> (64 - at);
            continue;
        }
        for (uint64_t left = run.keep; left; left &= left - 1) {
            int32_t pos = run.pos[__builtin_ctzll(left)];
            bits[pos >> 6] |= 1ull << (pos & 63);
        }
    }
}

typedef struct {
    wn_ledger *g;
    const wn_kv *kv;
    uint64_t *was;                      /* (n_lanes, words) */
    uint64_t **now;                     /* per thread, (words) */
    const size_t *to;                   /* (n_lanes) where its numbers are noted */
} job;

static void look_at_lane(void *arg, int lane, int thread)
{
    const job *j = arg;
    (void)thread;
    set_bits(j->kv, lane, j->was + (size_t)lane * words_of(wn_kv_n(j->kv)));
}

uint64_t *wn_ledger_look(const wn_ledger *g, const wn_kv *kv, wn_arena *a, wn_threads *team)
{
    job j = { .kv = kv,
              .was = wn_arena_array(a, uint64_t, (size_t)g->n_lanes * words_of(wn_kv_n(kv))) };
    wn_threads_run(team, look_at_lane, &j, g->n_lanes);
    return j.was;
}

static void settle_lane(void *arg, int lane, int thread)
{
    const job *j = arg;
    const wn_ledger *g = j->g;
    size_t words = words_of(wn_kv_n(j->kv)), n = (size_t)slots_of(j->kv, lane), old = 0, k = 0;
    const uint64_t *was = j->was + (size_t)lane * words;
    uint64_t *now = j->now[thread];
    float *to = g->noted + j->to[lane];
    if (!n) return;
    set_bits(j->kv, lane, now);
    for (size_t w = 0; w < words; w++) {
        if (now[w] == was[w]) {
            size_t m = (size_t)__builtin_popcountll(now[w]);
            for (int i = 0; i < g->n_stats; i++)
                memcpy(to + (size_t)i * n + k, wn_ledger_row(g, lane, i) + old, m * sizeof *to);
            old += m;
            k += m;
            continue;
        }
        for (uint64_t left = was[w] | now[w]; left; left &= left - 1) {
            int at = __builtin_ctzll(left);
            bool had = was[w] >> at & 1, has = now[w] >> at & 1;
            int32_t pos = (int32_t)(w * 64) + at;
            for (int i = 0; has && i < g->n_stats; i++)
                to[(size_t)i * n + k] = had ? wn_ledger_row(g, lane, i)[old]
                                            : wn_stat_begin(&g->stats[i], pos);
            old += had;
            k += has;
        }
    }
    WN_ASSERT(k == n);
}

void wn_ledger_settle(wn_ledger *g, const wn_kv *kv, uint64_t *was, int32_t until, wn_arena *a,
                      wn_threads *team)
{
    int threads = wn_threads_count(team);
    size_t *to = wn_arena_array(a, size_t, g->n_lanes);
    uint64_t **now = wn_arena_array(a, uint64_t *, threads);
    for (int t = 0; t < threads; t++) now[t] = wn_arena_array(a, uint64_t, words_of(wn_kv_n(kv)));
    g->n_noted = 0;
    for (int l = 0; l < g->n_lanes; l++) {
        to[l] = g->n_noted;
        g->n_noted += (size_t)slots_of(kv, l) * (size_t)g->n_stats;
    }
    WN_ASSERT(g->n_noted * sizeof *g->noted <= g->mapped);
    give_back(g->noted, g->n_noted, &g->noted_touched);
    job j = { g, kv, was, now, to };
    wn_threads_run(team, settle_lane, &j, g->n_lanes);
    wn_ledger_restore(g, kv, until);
}

size_t wn_ledger_arena_bytes(int n_lanes, int n, int n_threads)
{
    size_t words = words_of(n) * sizeof(uint64_t), lanes = (size_t)n_lanes;
    return wn_arena_cost(lanes * words) + wn_arena_cost(lanes * sizeof(size_t)) +
           wn_arena_cost((size_t)n_threads * sizeof(uint64_t *)) +
           (size_t)n_threads * wn_arena_cost(words);
}

void wn_ledger_restore(wn_ledger *g, const wn_kv *kv, int32_t until)
{
    const float *from = g->noted;
    wn_ledger_lay_out(g, kv, until);
    for (int l = 0; l < g->n_lanes; l++)
        for (int i = 0; i < g->n_stats; i++, from += g->lanes[l].n)
            memcpy(wn_ledger_row(g, l, i), from, sizeof *from * (size_t)g->lanes[l].n);
    WN_ASSERT((size_t)(from - g->noted) == g->n_noted);
}

/* ---- forks, figures ----------------------------------------------------------------------- */

void wn_ledger_copy(wn_ledger *to, const wn_ledger *from, const wn_kv *kv)
{
    if (!from->n_stats) return;
    WN_ASSERT(to->mapped == from->mapped && to->n_lanes == from->n_lanes);
    memcpy(to->lanes, from->lanes, sizeof *to->lanes * (size_t)to->n_lanes);
    memcpy(to->before, from->before,
           sizeof *to->before * (size_t)to->n_lanes * (size_t)to->n_splits);
    to->from = from->from;
    to->until = from->until;
    to->used = to->touched = from->used;
    to->n_noted = to->noted_touched = from->n_noted;
    memcpy(to->noted, from->noted, sizeof *to->noted * to->n_noted);
    for (int l = 0; l < to->n_lanes; l++)
        for (int i = 0; i < to->n_stats; i++)
            memcpy(wn_ledger_row(to, l, i), wn_ledger_row(from, l, i),
                   sizeof *to->x * (size_t)slots_of(kv, l));
}

size_t wn_ledger_bytes(const wn_ledger *g, const wn_kv *kv)
{
    size_t slots = 0;
    if (!g->n_stats) return 0;
    for (int l = 0; l < g->n_lanes; l++) slots += (size_t)slots_of(kv, l);
    return slots * (size_t)g->n_stats * sizeof *g->x +
           (size_t)g->n_lanes *
               (sizeof *g->lanes + (size_t)(wn_kv_n(kv) / WN_SPLIT + 1) * sizeof *g->before);
}

size_t wn_ledger_noted_bytes(const wn_ledger *g) { return g->n_noted * sizeof *g->noted; }

size_t wn_ledger_noted_at(const wn_ledger *g, const wn_kv *kv, int32_t at)
{
    size_t slots = 0;
    for (int l = 0; l < g->n_lanes; l++) {
        if (wn_kv_map(kv)->lanes[l].window) continue;
        int32_t since = 0;
        wn_run_iter it;
        wn_run run;
        wn_runs_begin(&it, kv, l, at / WN_SPLIT, wn_kv_n(kv));
        while (wn_runs_next(&it, &run))
            for (uint64_t left = run.keep; left; left &= left - 1) {
                int s = __builtin_ctzll(left);
                since += (run.pos ? run.pos[s] : run.pos0 + s) >= at;
            }
        if (since != wn_kv_n(kv) - at) return SIZE_MAX;
        slots += (size_t)(slots_of(kv, l) - since);
    }
    return slots * (size_t)g->n_stats;
}
