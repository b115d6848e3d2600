/* engine/needs.c - what policies need beside the pool, and whether --mem has room for it.
 *
 * A decision is made in an arena of the engine's: lists of live slots, attention of the last
 * queries, rows, scores. It is mapped for the worst that can be asked (a virtual size, so
 * that running out is our mistake) and touched as far as decisions get. What counts under
 * the ceiling is what they touch at most, and that follows from how many slots a lane has
 * when it is decided: what the budget leaves and what comes in between two decisions.
 *
 *     arena     lists, sums, scores: the mean lane, times lanes;  rows, sorting: the largest lane;
 *               weights that wait for a ledger, in the scratch of a pass; what each hand has of its own,
 *               and what each thread needs that carries plans out
 *     sequence  statistics of all queries (attention/ledger.h), masks and merges of the plan, the
 *               ring of queries
 *
 * The engine plans for the policy it was opened with, max_seqs times; a sequence with
 * another one is refused with numbers when plan and slack under the ceiling do not cover it.
 */
#include "engine/engine.h"
#include "attention/window.h"

typedef struct { size_t mean, most; } live;             /* slots of a lane at a decision */

/* In a text of n tokens, n_held of them protected by the caller. Recipes that say nothing of
 * budgets per lane share evenly. */
static live live_slots(const wn_engine *e, const wn_policy *p, int n, int n_held)
{
    int64_t between = p->at & WN_AT_BOUNDARY ? p->every : 0;
    int64_t mean = WN_MIN((int64_t)n,
                          wn_policy_cap(p, n) + wn_policy_low_cap(p, n) + n_held + between),
            most = mean;
    if (wn_policy_allocates(p)) most = WN_MIN((int64_t)n, mean * e->m->map.n_lanes);
    return (live){ (size_t)mean, (size_t)most };
}

/* Masks of a plan with so many rows; merges of all lanes and their sources. */
static size_t plan_bytes(const wn_policy *p, size_t rows, size_t lanes, int n, live s)
{
    size_t each = sizeof(wn_plan_merge) +
                  (size_t)wn_policy_spread(p) * (sizeof(int32_t) + 2 * sizeof(float));
    return rows * ((size_t)n / 8 + 8) + (wn_policy_merges(p) ? lanes * s.mean * each : 0);
}

/* Of a decision at n tokens with so many live slots; see decide.c for who takes what. */
static size_t arena_bytes(const wn_engine *e, const wn_policy *p, int n, live s)
{
    const wn_lane_map *map = &e->m->map;
    size_t lanes = (size_t)map->n_lanes, dim = 0, group = 0, threads = (size_t)e->n_threads,
           window = 0, after;
    size_t hands = (size_t)wn_engine_n_hands(e, p);
    wn_window x = { .shape = &e->m->shape, .w = wn_policy_window(p) };
    for (int l = 0; l < map->n_lanes; l++) {
        int layer = map->lanes[l].layer;
        dim = WN_MAX(dim, (size_t)map->lanes[l].k_dim + (size_t)map->lanes[l].v_dim);
        group = WN_MAX(group,
                       (size_t)(e->m->hp.n_heads / (map->first[layer + 1] - map->first[layer])));
    }
    /* lanes and pointers to their parts; a layer's counts; the list of an untouched lane, the
     * protected; positions of each lane, counts and biases too where slots are merged */
    size_t sum = 4096 +
                 lanes * (wn_arena_cost(sizeof(wn_view_lane)) + wn_arena_cost(sizeof(wn_verdict)) +
                          192) +
                 (size_t)map->n_layers * wn_arena_cost(8 * lanes) + wn_arena_cost(4 * (size_t)n) +
                 2 * wn_arena_cost((size_t)n / 8 + 8) +
                 lanes * (wn_policy_merges(p) ? 3 : 1) * wn_arena_cost(4 * s.mean) +
                 (wn_policy_demotes(p) ? lanes * wn_arena_cost(s.mean) : 0) +
                 2 * wn_arena_cost(4 * s.most) +
                 (wn_policy_wants(p) & WN_WANTS_FLAGS ? wn_arena_cost((size_t)n) : 0) +
                 (wn_policy_wants(p) & WN_WANTS_SPANS ? wn_arena_cost(4 * (size_t)n) : 0);
    if (x.w) {                          /* sums of each query head; scratch of each thread, given
                                           back at once */
        sum += lanes * wn_arena_cost(4 * group * s.mean);
        window = threads *
                 (wn_arena_cost(4 * wn_window_floats(&x, (int)s.most, e->kv_opts.page_slots)) +
                  wn_arena_cost(4 * s.most));
    }
    after = (p->recipe->ranks ? 2 : 1) * lanes * wn_arena_cost(4 * s.mean) +
            (1 + hands) * wn_engine_hand_bytes(e, p, (int)s.most);
    /* theirs, beside the sequence's */
    if (hands) sum += plan_bytes(p, lanes + hands, lanes, n, s);
    sum += WN_MAX(window, after);
    /* behind all that: where statistics were */
    return WN_MAX(sum, p->n_stats ? wn_ledger_arena_bytes((int)lanes, n, e->n_threads) : 0);
}

size_t wn_engine_arena_bytes(const wn_engine *e, const wn_policy *p, int n, int n_held)
{
    if (!p || !wn_policy_decides(p)) return 0;
    int beyond = wn_probe_tokens(p, e->n_ctx);      /* a pass at such positions takes more
                                                       scratch */
    return arena_bytes(e, p, n, live_slots(e, p, n, n_held)) +
           wn_kv_crew_bytes(&e->kv_opts, e->n_threads) + (p->n_stats ? e->kept_bytes : 0) +
           (beyond ? wn_engine_pass_bytes(e, e->n_ctx + beyond) - wn_engine_pass_bytes(e, e->n_ctx)
                   : 0);
}

size_t wn_engine_arena_most(const wn_engine *e, const wn_policy *p)
{
    size_t n = (size_t)e->n_ctx;
    /* Slots with biases are possible without merges; scratch of recipes to come. */
    return arena_bytes(e, p, e->n_ctx, (live){ n, n }) +
           2 * (size_t)e->m->map.n_lanes * wn_arena_cost(4 * n) +
           (1 + (size_t)wn_engine_n_hands(e, p)) *
               (wn_engine_hand_spare(e->n_ctx) + wn_arena_cost(0)) +
           wn_arena_cost(n) + wn_arena_cost(4 * n); /* who watches sees flags and spans in any
                                                           case */
}

/* Rows have room for what comes before the next decision; what is noted has not. */
size_t wn_engine_ledger_bytes(const wn_engine *e, const wn_policy *p, int n, int n_held)
{
    const wn_lane_map *map = &e->m->map;
    size_t lanes = (size_t)map->n_lanes, row = lanes * (size_t)p->n_stats * sizeof(float);
    int64_t left = WN_MIN((int64_t)n, wn_policy_cap(p, n) + wn_policy_low_cap(p, n) + n_held);
    if (!p->n_stats || p->probes) return 0;
    return row * (live_slots(e, p, n, n_held).mean + (size_t)left) +
           lanes * (sizeof(wn_ledger_lane) + (size_t)(n / WN_SPLIT + 1) * sizeof(int32_t));
}

static size_t text_bytes(const wn_engine *e, const wn_policy *p, int n, int n_held)
{
    size_t lanes = (size_t)e->m->map.n_lanes, low = 0;
    if (!p || !wn_policy_decides(p)) return 0;
    if (wn_policy_demotes(p))
        low = lanes * ((size_t)n / 8 + 8 + (size_t)(n / e->kv_opts.page_slots + 2) * 64);
    /* rows: named ranges too */
    size_t sum = low + plan_bytes(p, lanes + 1 + WN_PLANES, lanes, n, live_slots(e, p, n, n_held));
    size_t row = lanes * (size_t)p->n_stats * sizeof(float);
    if (!p->probes) return sum + wn_engine_ledger_bytes(e, p, n, n_held);
    wn_kv_opts o = e->kv_opts;  /* its numbers, and its fork's tables */
    o.max_positions = n + wn_probe_tokens(p, n);
    o.ring_rows = wn_policy_window(p) ? 64 : 0;
    return sum + row * (size_t)o.max_positions + wn_kv_table_bytes(&o) + wn_probe_room(p, e->m, n);
}

static size_t ring_bytes(const wn_engine *e, int rows)
{
    return (size_t)e->m->hp.n_layers * (size_t)rows * (size_t)e->kv_opts.q_dim * sizeof(float);
}

size_t wn_engine_plan_bytes(const wn_engine *e, int64_t n_positions)
{
    const wn_policy *p = &e->policy;
    /* caps are concave: equal shares need most */
    int64_t each = (n_positions + e->max_seqs - 1) / e->max_seqs;
    if (!wn_policy_decides(p)) return 0;
    int n = (int)WN_MIN(each, (int64_t)e->n_ctx);
    return wn_engine_arena_bytes(e, p, e->n_ctx,
                                 (int)WN_MIN(e->protected_tokens, (int64_t)e->n_ctx)) +
           (size_t)e->max_seqs *
               (text_bytes(e, p, n, (int)WN_MIN(e->protected_tokens, (int64_t)n)) +
                ring_bytes(e, wn_policy_window(p) ? 64 : 0));
}

wn_status wn_seq_claim(wn_seq *s, wn_err *err)
{
    wn_engine *e = s->e;
    int n = wn_seq_most_ever(s);
    size_t arena = WN_MAX(e->needs_arena, wn_engine_arena_bytes(e, s->policy, n, s->n_held));
    size_t own = text_bytes(e, s->policy, n, s->n_held) + ring_bytes(e, s->opts.ring_rows),
           slack = wn_engine_slack(e);
    size_t need = e->needs_texts + own + arena, had = e->needs_texts + e->needs_arena;
    if (need > e->planned && need - e->planned > slack)
        return wn_fail(
            err, WN_ELIMIT,
            "%.100s needs %zu KiB beside the cache for a text of %d tokens, %zu KiB are left "
            "of %zu MiB (--mem): open the engine for this policy, lower the context or raise --mem",
            s->policy ? s->policy->text : "a ring of queries", (need - had + 1023) >> 10, n,
            (e->planned + slack > had ? e->planned + slack - had : 0) >> 10, e->mem >> 20);
    s->needs = own;
    e->needs_texts += own;
    e->needs_arena = arena;
    return WN_OK;
}

void wn_seq_unclaim(wn_seq *s)
{
    s->e->needs_texts -= s->needs;
    s->needs = 0;
}
