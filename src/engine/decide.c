/* engine/decide.c - when a sequence's policy is asked, and what it is shown.
 *
 * Decision points are positions: the multiples of `every` for policies at boundaries, the
 * marks for policies at marks. Chunks end there, so a decision at p comes after all
 * queries before p and before the query at p, however tokens fall into steps.
 *
 * The view is built from the cache's runs (lanes.c) and lives in an arena of the engine's that
 * every decision reuses (needs.c).
 */
#include "engine/engine.h"
#include "attention/window.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

/* ---- when ------------------------------------------------------------------------- */

static bool at_boundary(const wn_seq *s) { return s->every > 0; }
static bool at_mark(const wn_seq *s) { return s->policy && (s->policy->at & WN_AT_MARK); }

bool wn_seq_is_point(const wn_seq *s, int p)
{
    if (at_boundary(s) && p % s->every == 0) return true;
    for (int i = 0; at_mark(s) && i < s->n_marks; i++)
        if (s->marks[i] == p) return true;
    return false;
}

int wn_seq_next_point(const wn_seq *s, int p)
{
    int next = INT32_MAX;
    if (at_boundary(s) && p <= INT32_MAX - s->every) next = (p / s->every + 1) * s->every;
    for (int i = 0; at_mark(s) && i < s->n_marks; i++)
        if (s->marks[i] > p) next = WN_MIN(next, s->marks[i]);
    return next;
}

/* Marks belong to the text, whenever its policy decides. */
static int32_t last_mark(const wn_seq *s, int p)
{
    int n = s->n_marks;
    while (n && s->marks[n - 1] > p) n--;
    return n ? s->marks[n - 1] : 0;
}

int wn_seq_last_point(const wn_seq *s, int p)
{
    int last = at_boundary(s) ? p / s->every * s->every : 0;
    for (int i = 0; at_mark(s) && i < s->n_marks; i++)
        if (s->marks[i] <= p) last = WN_MAX(last, s->marks[i]);
    return last;
}

wn_status wn_seq_mark(wn_seq *s, wn_err *err)
{
    if (s->n_fed == 0 || (s->n_marks && s->marks[s->n_marks - 1] == s->n_fed)) return WN_OK;
    if (s->n_marks == s->cap_marks) {
        int cap = s->cap_marks ? 2 * s->cap_marks : 16;
        int32_t *m = wn_realloc(s->marks, (size_t)cap * sizeof *m);
        if (!m) return wn_fail(err, WN_ENOMEM, "mark: out of memory");
        s->marks = m;
        s->cap_marks = cap;
    }
    s->marks[s->n_marks++] = s->n_fed;
    return WN_OK;
}

int wn_seq_ledger_until(const wn_seq *s, int n)
{
    int left = s->opts.max_tokens - n;
    return n + (s->every ? WN_MIN(left, s->every - n % s->every) : left);
}

/* Statistics follow their slots, and are noted: a truncation goes back to them, as far as the
 * cache can, not beyond its last decision. */
static wn_status carry_out(wn_seq *s, int p, wn_err *err)
{
    wn_engine *e = s->e;
    wn_arena *a = &e->decisions;
    wn_mark mark = wn_arena_mark(a);
    uint64_t *was = s->ledger.n_stats ? wn_ledger_look(&s->ledger, s->kv, a, e->team) : NULL;
    wn_status st = WN_OK;
    if (!wn_plan_is_empty(&s->plan)) st = wn_kv_apply_with(s->kv, &s->plan, e->crew, err);
    if (!st && was) {
        wn_ledger_settle(&s->ledger, s->kv, was, wn_seq_ledger_until(s, p), a, e->team);
        s->noted_at = p;
    }
    wn_arena_rewind(a, mark);
    return st;
}

static wn_status decide_at(wn_seq *s, int p, wn_err *err)
{
    wn_status st = wn_seq_probe(s, p, err);
    if (st) return st;
    wn_plan_clear(&s->plan);
    s->plan.n_tokens = p;
    if ((st = s->decide(s->decide_ctx, s->kv, p, &s->plan, err))) return st;
    if (s->plan.status)
        return wn_fail(err, s->plan.status, "the plan at position %d could not be built", p);
    return carry_out(s, p, err);
}

wn_status wn_seq_decide(wn_seq *s, wn_err *err)
{
    int p = wn_kv_n(s->kv);
    if (!s->decide || p == 0 || s->decided_at == p || !wn_seq_is_point(s, p)) return WN_OK;
    wn_status st = decide_at(s, p, err);
    wn_seq_forget_probe(s);
    if (st) return st;
    s->decided_at = p;
    s->stats_due = true;
    return WN_OK;
}

/* ---- what a policy is shown --------------------------------------------------------- */

typedef struct {
    const wn_kv *kv;
    const wn_seq *seq;
    wn_view view;
} shown;

static void load_rows(void *ctx, int lane, bool values, float *rows)
{
    const shown *sh = ctx;
    wn_engine_load_rows(sh->kv, &sh->view.lanes[lane], lane, values, rows);
}

static void load_keys(void *ctx, int lane, const int32_t *slots, int n, float *rows)
{
    const shown *sh = ctx;
    wn_engine_load_keys(sh->kv, &sh->view.lanes[lane], lane, slots, n, rows);
}

static void unit_keys(void *ctx, int lane, float *room, wn_view_cols_fn *each, void *each_ctx)
{
    const shown *sh = ctx;
    wn_engine_unit_keys(sh->kv, &sh->view.lanes[lane], lane, room, each, each_ctx);
}

static void load_queries(void *ctx, int lane, int w, float *rows)
{
    const shown *sh = ctx;
    wn_window_queries(sh->kv, lane, sh->view.lanes[lane].group, w, rows);
}

static void load_stat(void *ctx, int lane, int i, float *x)
{
    const shown *sh = ctx;
    const wn_view_lane *l = &sh->view.lanes[lane];
    if (!sh->seq->probed.x) {           /* in the order in which views list slots */
        memcpy(x, wn_ledger_row(&sh->seq->ledger, lane, i), sizeof *x * (size_t)l->n);
        return;
    }
    const float *all = wn_ledger_row(&sh->seq->probed, lane, i);
    for (int k = 0; k < l->n; k++) x[k] = all[l->pos[k]];
}

static bool load_outputs(void *ctx, const wn_view *v, int lane, float *x)
{
    return wn_seq_load_outputs(((const shown *)ctx)->seq, v, lane, x);
}

static void turn(void *ctx, int lane, float *row, int from, int to)
{
    const shown *sh = ctx;
    const wn_engine *e = sh->seq->e;
    const wn_rope *rope = wn_model_rope(e->m, sh->view.lanes[lane].layer, e->n_ctx);
    if (rope) wn_rope_mean(rope, row, from, to);
}

/* ---- attention of the last queries, all lanes at once --------------------------------- */

typedef struct {
    const wn_engine *e;
    int w;
    const wn_kv *kv;
    const wn_view_lane *lanes;
    float **sums;
    int32_t **pos;
    float **scratch;                    /* per thread */
} window_job;

static void window_lane(void *arg, int lane, int thread)
{
    const window_job *j = arg;
    int n = j->lanes[lane].n, layer = j->lanes[lane].layer;
    const wn_model *m = j->e->m;
    wn_window x = { .shape = &m->shape, .rope = wn_model_rope(m, layer, j->e->n_ctx),
                    .sinks = m->layers[layer].sinks, .w = j->w };
    if (n) wn_window_sums(&x, j->kv, lane, n, j->sums[lane], j->pos[thread], j->scratch[thread]);
}

/* Demoted slots and merge slots come behind the ordinary ones of their split in runs; views list by
 * position. */
static void sort_sums(const wn_view_lane *l, const int32_t *pos, float *sums, float *tmp)
{
    for (int h = 0; h < l->group; h++) {
        float *x = sums + (size_t)h * (size_t)l->n;
        memcpy(tmp, x, sizeof *x * (size_t)l->n);
        for (int i = 0; i < l->n; i++) x[wn_engine_slot_at(l, pos[i])] = tmp[i];
    }
}

static const float *const *look_back(const wn_seq *s, const wn_kv *kv, wn_arena *a,
                                     const wn_view_lane *lanes, int w)
{
    const wn_engine *e = s->e;
    int n_lanes = wn_kv_map(kv)->n_lanes, threads = e->n_threads, most = 0;
    wn_window x = { .shape = &e->m->shape, .w = w };
    float **sums = wn_arena_array(a, float *, n_lanes),
          **scratch = wn_arena_array(a, float *, threads);
    int32_t **pos = wn_arena_array(a, int32_t *, threads);
    for (int l = 0; l < n_lanes; l++) {
        sums[l] = wn_arena_array(a, float, (size_t)lanes[l].group * (size_t)WN_MAX(lanes[l].n, 1));
        most = WN_MAX(most, lanes[l].n);
    }
    wn_mark mark = wn_arena_mark(a);
    for (int t = 0; t < threads; t++) {
        scratch[t] = wn_arena_array(a, float, wn_window_floats(&x, most, wn_kv_page_slots(kv)));
        pos[t] = wn_arena_array(a, int32_t, most);
    }
    window_job j = { e, w, kv, lanes, sums, pos, scratch };
    wn_threads_run(e->team, window_lane, &j, n_lanes);
    for (int l = 0; l < n_lanes; l++) {
        if (!lanes[l].count && !lanes[l].low) continue;         /* in order already */
        int n = 0;
        wn_run_iter it;
        wn_run run;
        wn_runs_begin(&it, kv, l, 0, wn_kv_n(kv));
        while (wn_runs_next(&it, &run))
            for (uint64_t left = run.keep; left; left &= left - 1) {
                int slot = __builtin_ctzll(left);
                pos[0][n++] = run.pos ? run.pos[slot] : run.pos0 + slot;
            }
        sort_sums(&lanes[l], pos[0], sums[l], scratch[0]);
    }
    wn_arena_rewind(a, mark);
    return (const float *const *)sums;
}

double wn_seq_slot_bytes(const wn_seq *s)
{
    const wn_kv_opts *o = &s->kv_opts;
    return (double)wn_kv_bytes_per_page(o) / o->page_slots / o->map->n_lanes;
}

/* Of a slot in lower formats; 0: there are none. */
static double mean_low_bytes(const wn_kv_opts *o)
{
    double sum = 0;
    for (int l = 0; l < o->map->n_lanes; l++) {
        const wn_lane_formats *f = &o->formats[l];
        if (f->low_k) sum += (double)f->low_k->k_bytes(o->page_slots, o->map->lanes[l].k_dim) +
                             (double)f->low_v->v_bytes(o->page_slots, o->map->lanes[l].v_dim);
    }
    return sum / o->page_slots / o->map->n_lanes;
}

/* ---- hands: lanes are scored and settled on all threads ---------------------------------- */

enum { HANDS_MAX = 16 };

int wn_engine_n_hands(const wn_engine *e, const wn_policy *p)
{
    int n = WN_MIN(WN_MIN(e->n_threads, HANDS_MAX), e->m->map.n_lanes);
    return p->recipe->score && !p->recipe->serial && !wn_policy_demotes(p) && n > 1 ? n : 0;
}

/* Every hand has room for merges of its lanes. */
wn_status wn_engine_raise_hands(wn_engine *e, const wn_policy *p, wn_err *err)
{
    int n = wn_engine_n_hands(e, p), lanes = e->m->map.n_lanes;
    if (!n) return WN_OK;
    if (!e->hands && !(e->hands = WN_NEW_ARRAY(wn_view_hand, n)))
        return wn_fail(err, WN_ENOMEM, "policy: out of memory");
    for (int i = 0; i < n; i++) {
        wn_view_hand *h = &e->hands[i];
        if (!h->plan) {
            if (!(h->plan = WN_NEW(wn_plan)))
                return wn_fail(err, WN_ENOMEM, "policy: out of memory");
            wn_plan_init(h->plan, e->n_ctx, lanes);
            e->n_hands = i + 1;
        }
        int64_t merges = wn_policy_merges(p) ? (int64_t)e->n_ctx * ((lanes + n - 1) / n) : 0;
        wn_plan_clear(h->plan);
        int64_t n_src = merges * wn_policy_spread(p);
        wn_plan_reserve(h->plan, (int32_t)WN_MIN(merges, INT32_MAX / 4),
                        (int32_t)WN_MIN(n_src, INT32_MAX / 4));
        if (h->plan->status)
            return wn_fail(err, h->plan->status, "policy: out of memory for plans of %d positions",
                           e->n_ctx);
    }
    return WN_OK;
}

void wn_engine_release_hands(wn_engine *e)
{
    for (int i = 0; i < e->n_hands; i++) {
        wn_plan_release(e->hands[i].plan);
        wn_free(e->hands[i].plan);
    }
    wn_free(e->hands);
}

/* Mapped beside that, for recipes to come; nobody counts on it. */
size_t wn_engine_hand_spare(int longest)
{
    return 8 * wn_arena_cost(8 * (size_t)longest) + ((size_t)1 << 20);
}

size_t wn_engine_hand_bytes(const wn_engine *e, const wn_policy *p, int longest)
{
    size_t s = (size_t)longest, w = (size_t)wn_policy_window(p), dim = 0;
    for (int l = 0; l < e->m->map.n_lanes; l++)
        dim = WN_MAX(dim, (size_t)e->m->map.lanes[l].k_dim + (size_t)e->m->map.lanes[l].v_dim);
    return wn_arena_cost(4 * w * (size_t)e->kv_opts.q_dim) +
           (size_t)p->n_stats * wn_arena_cost(4 * s) + 2 * wn_arena_cost(4 * dim * s) +
           (wn_policy_retains(p) ? 14 : 9) * wn_arena_cost(8 * s) +
           wn_arena_cost(4 * w * (dim + 64)) +
           (wn_policy_wants(p) & WN_WANTS_OUTPUTS ? wn_outputs_bytes(e->m, longest) : 0) +
           /* tiles of rows and cosines */
           (p->recipe->recover || wn_policy_merges(p) ? 4 * 512 * (dim + 64) : 0);
}

/* Rows, queries and statistics of the longest lane, for a view or a hand's. */
static void take_rows(const wn_seq *s, wn_view *v, wn_arena *a, int longest, const int dim[2])
{
    for (int i = 0; i < v->n_stats; i++) v->stat_rows[i] = wn_arena_array(a, float, longest);
    if (v->load_outputs) v->outputs = wn_arena_array(a, float, longest);
    if (v->window)
        v->queries = wn_arena_array(a, float, (size_t)v->window *(size_t)s->kv_opts.q_dim);
    for (int i = 0; i < 2; i++)
        v->rows[i] = wn_arena_array(a, float, (size_t)longest *(size_t)dim[i]);
}

static void take_hands(const wn_seq *s, wn_view *v, wn_arena *a, wn_arena own[HANDS_MAX],
                       int longest, const int dim[2])
{
    wn_engine *e = s->e;
    size_t bytes = wn_engine_hand_bytes(e, s->policy, longest) + wn_engine_hand_spare(longest);
    v->team = e->team;
    v->hands = e->hands;
    v->n_hands = wn_engine_n_hands(e, s->policy);
    for (int i = 0; i < v->n_hands; i++) {
        wn_view_hand *h = &v->hands[i];
        h->view = *v;
        own[i] = (wn_arena){ .base = wn_arena_take(a, bytes), .size = bytes };
        h->view.scratch = &own[i];
        h->view.asked = v->asked ? &h->asked : NULL;
        h->view.verdicts = NULL;
        take_rows(s, &h->view, &own[i], longest, dim);
    }
}

static wn_status ask_policy(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *err)
{
    wn_seq *s = ctx;
    wn_engine *e = s->e;
    wn_arena *a = &e->decisions;
    const wn_lane_map *map = wn_kv_map(kv);
    wn_mark mark = wn_arena_mark(a);
    int dim[2] = { 0 }, longest = 1;
    unsigned asked = 0;
    wn_view_lane *lanes = wn_arena_array(a, wn_view_lane, map->n_lanes);
    wn_engine_fill_lanes(e, kv, a, lanes);
    for (int l = 0; l < map->n_lanes; l++) {
        dim[0] = WN_MAX(dim[0], map->lanes[l].k_dim);
        dim[1] = WN_MAX(dim[1], map->lanes[l].v_dim);
        longest = WN_MAX(longest, lanes[l].n);
    }
    int w = WN_MIN(wn_policy_window(s->policy), wn_kv_ring_valid(kv));
    shown sh = { .kv = kv, .seq = s, .view = { .n_tokens = p, .mark = last_mark(s, p),
                                               .n_layers = map->n_layers, .n_lanes = map->n_lanes,
                                     .lanes = lanes, .layer_first = map->first, .scratch = a,
                                     .load = load_rows, .load_keys = load_keys,
                                     .unit_keys = unit_keys, .load_queries = load_queries,
                                     .load_stat = load_stat, .turn = turn,
                                     .stats = s->policy->stats, .n_stats = s->policy->n_stats,
                                     .profile = s->profile, .window = w,
                                     .held = wn_kv_ring_valid(kv),
                                     .low_bytes = mean_low_bytes(&s->kv_opts) } };
    sh.view.ctx = &sh;
    if (s->log) {
        sh.view.verdicts = wn_arena_array(a, wn_verdict, map->n_lanes);
        memset(sh.view.verdicts, 0, sizeof *sh.view.verdicts * (size_t)map->n_lanes);
        sh.view.asked = &asked;
    }
    if (w) {
        sh.view.sums = look_back(s, kv, a, lanes, w);
        for (int l = 0; l < map->n_lanes; l++)
            s->observed += (uint64_t)w * (uint64_t)lanes[l].group * (uint64_t)lanes[l].n;
    }
    if (wn_policy_wants(s->policy) & WN_WANTS_FLAGS || s->log)
        sh.view.flags = wn_seq_flags(s, p, a);
    if (wn_policy_wants(s->policy) & WN_WANTS_SPANS || s->log)
        sh.view.spans = wn_seq_spans(s, p, a);
    if (wn_policy_wants(s->policy) & WN_WANTS_OUTPUTS) sh.view.load_outputs = load_outputs;
    wn_arena own[HANDS_MAX];
    take_rows(s, &sh.view, a, longest, dim);
    take_hands(s, &sh.view, a, own, longest, dim);
    const uint64_t *named = sh.view.protect = wn_seq_protected(s, p, a);
    wn_policy_decide(s->policy, &sh.view, wn_seq_slot_bytes(s), plan);
    sh.view.protect = named;            /* what the policy itself protects is its own affair */
    wn_status st = WN_OK;
    if (s->log && !plan->status)
        st = s->log->decided(s->log->ctx, &sh.view, wn_seq_slot_bytes(s), plan, err);
    wn_arena_rewind(a, mark);
    return st;
}

/* ---- opening ---------------------------------------------------------------------------- */

int wn_policy_every(const wn_policy *p)
{
    return wn_policy_decides(p) && (p->at & WN_AT_BOUNDARY) ? p->every : 0;
}

wn_status wn_policy_kv_opts(const wn_policy *p, wn_lane_formats *lanes, wn_kv_opts *o, wn_err *err)
{
    const wn_lane_map *map = o->map;
    for (int l = 0; l < map->n_lanes; l++) {
        const wn_lane *w = &map->lanes[l];
        int heads = map->first[w->layer + 1] - map->first[w->layer];
        lanes[l] = (wn_lane_formats){ .k = o->k_format, .v = o->v_format };
        wn_status st = wn_policy_format_at(p, false, w->layer, map->n_layers, w->head, heads,
                                           &lanes[l].k, err);
        if (!st)
            st = wn_policy_format_at(p, true, w->layer, map->n_layers, w->head, heads, &lanes[l].v,
                                     err);
        if (st) return st;
        if (!w->window) wn_policy_low_formats(p, &lanes[l].low_k, &lanes[l].low_v);
    }
    o->formats = lanes;
    o->lag = p->lag;
    o->every = wn_policy_every(p);
    return WN_OK;
}

wn_status wn_seq_set_policy(wn_seq *s, const char *text, wn_err *err)
{
    wn_engine *e = s->e;
    wn_status st;
    if (!text) {
        for (int l = 0; l < e->m->map.n_lanes; l++)
            s->formats[l] = (wn_lane_formats){ .k = s->kv_opts.k_format, .v = s->kv_opts.v_format };
        s->kv_opts.formats = s->formats;
        return wn_engine_bind_books(e, s->formats, err);
    }
    if (!(s->policy = WN_NEW(wn_policy))) return wn_fail(err, WN_ENOMEM, "policy: out of memory");
    if ((st = wn_policy_parse(s->policy, text, err))) return st;
    s->opts.kv = s->policy->text;
    if ((st = wn_policy_kv_opts(s->policy, s->formats, &s->kv_opts, err)) ||
        (st = wn_engine_bind_books(e, s->formats, err)))
        return st;
    if (!wn_policy_decides(s->policy)) return WN_OK;
    if ((st = wn_seq_find_profile(s, err))) return st;
    if (wn_policy_window(s->policy)) s->opts.ring_rows = s->kv_opts.ring_rows = 64;
    if ((st = wn_seq_open_probe(s, err))) return st;
    if (s->policy->n_stats && !s->policy->probes &&
        (st = wn_ledger_open(&s->ledger, s->policy->stats, s->policy->n_stats, &e->m->map,
                             s->opts.max_tokens, err)))
        return st;
    if ((st = wn_engine_raise_hands(e, s->policy, err))) return st;
    if (!e->crew && (st = wn_kv_crew_open(&e->crew, &e->kv_opts, e->team, err))) return st;
    size_t most = wn_engine_arena_most(e, s->policy);
    if (most > e->decisions.size) {     /* no decision is being made: nothing is lost */
        wn_arena_release(&e->decisions);
        if ((st = wn_arena_init(&e->decisions, most, false, err))) return st;
    }
    s->every = s->kv_opts.every;
    s->decide = ask_policy;
    s->decide_ctx = s;
    wn_plan_init(&s->plan, s->opts.max_tokens, e->m->map.n_lanes);
    if (wn_policy_demotes(s->policy)) wn_plan_reserve_low(&s->plan);
    if (s->plan.status)
        return wn_fail(err, s->plan.status, "policy: out of memory for plans of %d positions",
                       s->opts.max_tokens);
    if (wn_policy_merges(s->policy)) {
        int64_t n = (int64_t)s->opts.max_tokens * e->m->map.n_lanes,
                n_src = n * wn_policy_spread(s->policy);
        wn_plan_reserve(&s->plan, (int32_t)WN_MIN(n, INT32_MAX / 4),
                        (int32_t)WN_MIN(n_src, INT32_MAX / 4));
        if (s->plan.status)
            return wn_fail(err, s->plan.status, "policy: out of memory for plans of %d positions",
                           s->opts.max_tokens);
    }
    return WN_OK;
}

void wn_seq_set_log(wn_seq *s, const wn_decision_log *log) { s->log = log; }

wn_status wn_seq_set_decider(wn_seq *s, int every, wn_decide *decide, void *ctx, wn_err *err)
{
    if (wn_kv_n(s->kv) != 0)
        return wn_fail(err, WN_EINVAL, "a policy is set before the first token is computed");
    if (every < 1)
        return wn_fail(err, WN_EINVAL, "decisions every %d tokens: expected at least 1", every);
    wn_status st = wn_seq_reserve_again(s, every, err);
    if (st) return st;
    if (wn_kv_is_encoded(s->kv)) {      /* how long pages stay raw goes by the schedule */
        wn_kv *kv;
        if ((st = wn_kv_open(&kv, &s->kv_opts, err))) return st;
        wn_kv_close(s->kv);
        s->kv = kv;
    }
    s->decide = decide;
    s->decide_ctx = ctx;
    wn_plan_init(&s->plan, s->opts.max_tokens, s->e->m->map.n_lanes);
    return WN_OK;
}
