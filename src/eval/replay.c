/* eval/replay.c - see replay.h. Scratch is one arena, mapped anew when a decision needs a
 * larger one than those before it. */
#include "eval/replay.h"
#include "attention/rope.h"
#include "base/alloc.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct wn_replay {
    const wn_trace *t;
    wn_arena scratch;
    wn_plan plan;
    wn_verdict *verdicts;
    wn_rope rope;
    const wn_trace_decision *d;         /* the one that is being decided */
    int stat_at[WN_STATS_MAX];          /* where the trace has the policy's statistics; -1: it has
                                           not */
};

wn_status wn_replay_open(wn_replay **out, const wn_trace *t, wn_err *err)
{
    const wn_trace_head *h = wn_trace_get_head(t);
    *out = NULL;
    if (h->rope_dims / 2 > WN_ROPE_PAIRS_MAX)
        return wn_fail(err, WN_EUNSUPPORTED, "%d rotated channels, %d are possible", h->rope_dims,
                       2 * WN_ROPE_PAIRS_MAX);
    wn_replay *r = WN_NEW(wn_replay);
    if (!r) return wn_fail(err, WN_ENOMEM, "replay: out of memory");
    r->t = t;
    r->rope = (wn_rope){ .n_dims = h->rope_dims, .neox = h->rope_neox };
    if (h->rope_dims)
        memcpy(r->rope.rate, h->rope_rate, sizeof *h->rope_rate * (size_t)h->rope_dims / 2);
    *out = r;
    return WN_OK;
}

void wn_replay_close(wn_replay *r)
{
    if (!r) return;
    wn_plan_release(&r->plan);
    if (r->scratch.base) wn_arena_release(&r->scratch);
    wn_free(r);
}

const wn_verdict *wn_replay_verdicts(const wn_replay *r) { return r->verdicts; }

/* ---- what is shown --------------------------------------------------------------------------- */

/* Adds the softmax of one query at position p over the slots it sees. */
static void add_attention(const wn_view_lane *l, const float *k, const float *q, int32_t p,
                          double *x, float *sum)
{
    double most = -INFINITY, total = 0;
    int n = 0;
    for (; n < l->n && l->pos[n] <= p; n++) {
        const float *row = k + (size_t)n * (size_t)l->k_dim;
        x[n] = l->bias ? (double)l->bias[n] : 0;
        for (int c = 0; c < l->k_dim; c++) x[n] += (double)q[c] * (double)row[c];
        most = WN_MAX(most, x[n]);
    }
    for (int i = 0; i < n; i++) total += x[i] = exp(x[i] - most);
    for (int i = 0; i < n && total > 0; i++) sum[i] += (float)(x[i] / total);
}

/* Attention of the last w queries from recorded rows; zeros where there are none. */
static const float *const *look_back(wn_replay *r, const wn_trace_decision *d, int w, bool rows)
{
    wn_arena *a = &r->scratch;
    const wn_view *v = &d->view;
    const float **sums = wn_arena_array(a, const float *, v->n_lanes);
    for (int lane = 0; lane < v->n_lanes; lane++) {
        const wn_view_lane *l = &v->lanes[lane];
        size_t n = (size_t)l->n, group = (size_t)l->group, kd = (size_t)l->k_dim;
        float *sum = wn_arena_array(a, float, WN_MAX(n * group, (size_t)1));
        memset(sum, 0, n * group * sizeof *sum);
        sums[lane] = sum;
        if (!n || !rows) continue;
        wn_mark m = wn_arena_mark(a);
        double *x = wn_arena_array(a, double, n);
        const float *k = wn_trace_rows(d, lane, WN_TRACE_KEYS),
                    *q = wn_trace_rows(d, lane, WN_TRACE_QUERIES);
        for (int t = 0; t < w; t++)
            for (size_t h = 0; h < group; h++)
                add_attention(l, k, q + ((size_t)(d->n_queries - w + t) * group + h) * kd,
                              v->n_tokens - w + t, x, sum + h * n);
        wn_arena_rewind(a, m);
    }
    return sums;
}

static void turn(void *ctx, int lane, float *row, int from, int to)
{
    const wn_replay *r = ctx;
    if (!wn_trace_get_head(r->t)->lanes[lane].still) wn_rope_mean(&r->rope, row, from, to);
}

/* The reader's answers, and the rotations, which are the replay's. */
static void load(void *ctx, int lane, bool values, float *rows)
{
    const wn_view *v = &((wn_replay *)ctx)->d->view;
    v->load(v->ctx, lane, values, rows);
}

static void load_queries(void *ctx, int lane, int w, float *rows)
{
    const wn_view *v = &((wn_replay *)ctx)->d->view;
    v->load_queries(v->ctx, lane, w, rows);
}

/* Zeros for what is not there: see wn_replay_decide(). */
static void load_stat(void *ctx, int lane, int i, float *x)
{
    const wn_replay *r = ctx;
    const wn_view *v = &r->d->view;
    if (r->stat_at[i] >= 0) v->load_stat(v->ctx, lane, r->stat_at[i], x);
    else memset(x, 0, sizeof *x * (size_t)v->lanes[lane].n);
}

static bool load_outputs(void *ctx, const wn_view *shown, int lane, float *x)
{
    const wn_view *v = &((wn_replay *)ctx)->d->view;
    (void)shown;
    return v->load_outputs(v->ctx, v, lane, x);
}

static wn_status make_room(wn_replay *r, const wn_view *v, wn_err *err)
{
    size_t bytes = (size_t)1 << 20, n_max = 1, width = 1, group = 1;
    for (int l = 0; l < v->n_lanes; l++) {
        const wn_view_lane *x = &v->lanes[l];
        size_t n = (size_t)x->n;
        bytes += 6 * wn_arena_cost(8 * n) + wn_arena_cost(4 * n * (size_t)x->group) +
                 4 * wn_arena_cost(sizeof(wn_verdict));
        n_max = WN_MAX(n_max, n);
        width = WN_MAX(width, (size_t)WN_MAX(x->k_dim, x->v_dim));
        group = WN_MAX(group, (size_t)x->group);
    }
    bytes += (WN_STATS_MAX + 1) * wn_arena_cost(4 * n_max) + 2 * wn_arena_cost(4 * n_max * width) +
             4 * wn_arena_cost(4 * 64 * group * width) + 32 * wn_arena_cost(8 * n_max) +
             /* the tiles of recipes that merge */
             16 * wn_arena_cost((size_t)v->n_tokens) + wn_arena_cost(4 * 1024 * width);
    if (r->scratch.base) wn_arena_rewind(&r->scratch, 0);
    if (bytes <= r->scratch.size) return WN_OK;
    if (r->scratch.base) wn_arena_release(&r->scratch);
    r->scratch = (wn_arena){ 0 };
    return wn_arena_init(&r->scratch, bytes + bytes / 2, false, err);
}

/* ---- deciding -------------------------------------------------------------------------------- */

static wn_status lacks(const wn_trace_decision *d, const wn_policy *p, unsigned what, int w,
                       wn_err *err)
{
    const char *name = p->recipe->name, *rows = "--trace-rows records it";
    char text[100];
    if (what & WN_ASKED_SUMS)
        snprintf(text, sizeof text, "the attention of the last %d queries", w);
    else if (what & WN_ASKED_QUERIES) snprintf(text, sizeof text, "the last %d queries", w);
    else if (what & WN_ASKED_STATS)
        snprintf(text, sizeof text, "the attention that slots have got so far, as it counts it");
    else if (what & WN_ASKED_OUTPUTS)
        snprintf(text, sizeof text, "what values can change in the layer's answer");
    else if (what & WN_ASKED_SPANS) snprintf(text, sizeof text, "spans of the text");
    else if (what & WN_ASKED_FLAGS)
        snprintf(text, sizeof text, "what is a special token or punctuation");
    else snprintf(text, sizeof text, "%s", what & WN_ASKED_KEYS ? "keys" : "values");
    if (!(what & (WN_ASKED_SUMS | WN_ASKED_QUERIES)) && what & (WN_ASKED_STATS | WN_ASKED_OUTPUTS))
        rows = "a run under a policy that asks for it records it";
    return wn_fail(err, WN_EINVAL, "%s asks for %s, which the decision at %d does not hold (%s)",
                   name, text, d->view.n_tokens, rows);
}

/* The view of a decision with room for rows, this policy's window, and the replay's answers.
 * Returns what it can answer (WN_ASKED_ bits). */
static unsigned show(wn_replay *r, const wn_trace_decision *d, const wn_policy *p, wn_view *v)
{
    wn_arena *a = &r->scratch;
    unsigned has = d->has & (unsigned)~WN_TRACE_SUMS;
    size_t n_max = 1, width = 1, query = 1;
    int w = wn_policy_window(p);
    bool own = !strcmp(p->text, wn_trace_get_head(r->t)->policy);
    *v = d->view;
    for (int l = 0; l < v->n_lanes; l++) {
        n_max = WN_MAX(n_max, (size_t)v->lanes[l].n);
        width = WN_MAX(width, (size_t)WN_MAX(v->lanes[l].k_dim, v->lanes[l].v_dim));
        query = WN_MAX(query, (size_t)v->lanes[l].group * (size_t)v->lanes[l].k_dim);
    }
    v->rows[0] = wn_arena_array(a, float, n_max * width);
    v->rows[1] = wn_arena_array(a, float, n_max * width);
    v->queries = wn_arena_array(a, float, 64 * query);
    v->outputs = wn_arena_array(a, float, n_max);
    v->stats = p->stats;
    v->n_stats = p->n_stats;
    for (int i = 0; i < p->n_stats; i++) {
        v->stat_rows[i] = wn_arena_array(a, float, n_max);
        r->stat_at[i] = wn_stat_find(d->view.stats, d->view.n_stats, &p->stats[i]);
        if (r->stat_at[i] < 0) has &= (unsigned)~WN_TRACE_STATS;
    }
    v->verdicts = r->verdicts = wn_arena_array(a, wn_verdict, v->n_lanes);
    memset(v->verdicts, 0, sizeof *v->verdicts * (size_t)v->n_lanes);
    v->scratch = a;
    v->ctx = r;
    v->load = load;
    v->load_queries = load_queries;
    v->load_stat = load_stat;
    v->load_outputs = load_outputs;
    v->turn = r->rope.n_dims ? turn : NULL;
    v->sums = NULL;
    v->window = w = w && own && d->view.window ? d->view.window : WN_MIN(w, v->n_tokens);
    if (w && d->view.window == w && d->has & WN_TRACE_SUMS) {
        v->sums = d->view.sums;
        has |= WN_TRACE_SUMS;
    } else if (w) {
        bool rows = d->has & WN_TRACE_KEYS && d->has & WN_TRACE_QUERIES && d->n_queries >= w;
        v->sums = look_back(r, d, w, rows);
        if (rows) has |= WN_TRACE_SUMS;
    }
    return d->n_queries < w ? has & (unsigned)~WN_TRACE_QUERIES : has;
}

wn_status wn_replay_decide(wn_replay *r, const wn_trace_decision *d, const wn_policy *p,
                           const wn_plan **plan, wn_err *err)
{
    wn_view v;
    unsigned asked = 0;
    *plan = NULL;
    if (wn_policy_profile(p))
        return wn_fail(err, WN_EINVAL,
                       "%.200s goes by a profile of the model, which a trace does not hold",
                       p->text);
    wn_status st = make_room(r, &d->view, err);
    if (st) return st;
    r->d = d;
    unsigned has = show(r, d, p, &v);
    v.asked = &asked;
    if (r->plan.cap_tokens < v.n_tokens) {
        wn_plan_release(&r->plan);
        wn_plan_init(&r->plan, v.n_tokens, v.n_lanes);
    }
    wn_plan_clear(&r->plan);
    r->plan.n_tokens = v.n_tokens;
    wn_policy_decide(p, &v, d->slot_bytes, &r->plan);
    if (asked & ~has) return lacks(d, p, asked & ~has, v.window, err);
    if (r->plan.status)
        return wn_fail(err, r->plan.status, "%s: its plan at %d could not be built",
                       p->recipe->name, v.n_tokens);
    *plan = &r->plan;
    return WN_OK;
}

/* ---- the same plan? -------------------------------------------------------------------------- */

static bool differ(char *why, size_t size, const wn_view *v, int lane, const char *what, int pos)
{
    snprintf(why, size, "at %d, lane %d (layer %d head %d), position %d: %s", v->n_tokens, lane,
             v->lanes[lane].layer, v->lanes[lane].head, pos, what);
    return false;
}

static bool same_floats(const float *a, const float *b, int n)
{
    return !memcmp(a, b, sizeof *a * (size_t)n);
}

static bool same_entries(const wn_view *v, int lane, const wn_plan *a, const wn_plan *b, char *why,
                         size_t size)
{
    int32_t i = wn_plan_first(a, lane, WN_PLAN_MERGES), j = wn_plan_first(b, lane, WN_PLAN_MERGES);
    for (; i >= 0 && j >= 0; i = a->merges[i].next, j = b->merges[j].next) {
        const wn_plan_merge *x = &a->merges[i], *y = &b->merges[j];
        int s = x->first_src, t = y->first_src;
        if (x->at != y->at || x->n_src != y->n_src || x->count != y->count ||
            !same_floats(&x->bias, &y->bias, 1) ||
            memcmp(a->src + s, b->src + t, sizeof *a->src * (size_t)x->n_src) ||
            !same_floats(a->wk + s, b->wk + t, x->n_src) ||
            !same_floats(a->wv + s, b->wv + t, x->n_src))
            return differ(why, size, v, lane, "another merge", x->at);
    }
    if (i >= 0) return differ(why, size, v, lane, "was merged into, is not", a->merges[i].at);
    if (j >= 0) return differ(why, size, v, lane, "is merged into, was not", b->merges[j].at);
    i = wn_plan_first(a, lane, WN_PLAN_BIASES);
    j = wn_plan_first(b, lane, WN_PLAN_BIASES);
    for (; i >= 0 && j >= 0; i = a->biases[i].next, j = b->biases[j].next)
        if (a->biases[i].at != b->biases[j].at ||
            !same_floats(&a->biases[i].bias, &b->biases[j].bias, 1))
            return differ(why, size, v, lane, "another bias", a->biases[i].at);
    if (i >= 0) return differ(why, size, v, lane, "got a bias, gets none", a->biases[i].at);
    if (j >= 0) return differ(why, size, v, lane, "gets a bias, got none", b->biases[j].at);
    i = wn_plan_first(a, lane, WN_PLAN_SHIFTS);
    j = wn_plan_first(b, lane, WN_PLAN_SHIFTS);
    for (; i >= 0 && j >= 0; i = a->shifts[i].next, j = b->shifts[j].next) {
        const wn_plan_shift_range *x = &a->shifts[i], *y = &b->shifts[j];
        if (x->from != y->from || x->to != y->to || x->delta != y->delta)
            return differ(why, size, v, lane, "another shift", x->from);
    }
    if (i >= 0) return differ(why, size, v, lane, "was shifted, is not", a->shifts[i].from);
    if (j >= 0) return differ(why, size, v, lane, "is shifted, was not", b->shifts[j].from);
    return true;
}

bool wn_replay_same(const wn_view *v, const wn_plan *a, const wn_plan *b, char *why, size_t size)
{
    for (int lane = 0; lane < v->n_lanes; lane++) {
        const wn_view_lane *l = &v->lanes[lane];
        for (int i = 0; i < l->n; i++) {
            bool was = wn_plan_keeps(a, lane, l->pos[i]);
            if (was != wn_plan_keeps(b, lane, l->pos[i]))
                return differ(why, size, v, lane, was ? "stayed, is dropped" : "was dropped, stays",
                              l->pos[i]);
            was = wn_plan_demotes(a, lane, l->pos[i]);
            if (was != wn_plan_demotes(b, lane, l->pos[i]))
                return differ(why, size, v, lane,
                              was ? "was demoted, is not" : "is demoted, was not", l->pos[i]);
        }
        if ((a->keep && a->keep[lane]) != (b->keep && b->keep[lane]))
            return differ(why, size, v, lane, "a mask in one of the plans only", 0);
        if (!same_entries(v, lane, a, b, why, size)) return false;
    }
    return true;
}

/* ---- figures --------------------------------------------------------------------------------- */

/* bits: of the slots of a lane after a plan, by position; returns their number. */
static int64_t slots_after(const wn_view *v, int lane, const wn_plan *p, uint64_t *bits)
{
    const wn_view_lane *l = &v->lanes[lane];
    size_t words = ((size_t)v->n_tokens + 63) / 64;
    int64_t n = 0;
    memset(bits, 0, words * 8);
    for (int i = 0; i < l->n; i++)
        if (wn_plan_keeps(p, lane, l->pos[i])) bits[l->pos[i] >> 6] |= 1ull << (l->pos[i] & 63);
    for (int32_t m = wn_plan_first(p, lane, WN_PLAN_MERGES); m >= 0; m = p->merges[m].next)
        for (int s = 0; s < p->merges[m].n_src; s++) {
            int32_t pos = p->src[p->merges[m].first_src + s];
            bits[pos >> 6] &= ~(1ull << (pos & 63));
        }
    for (int32_t m = wn_plan_first(p, lane, WN_PLAN_MERGES); m >= 0; m = p->merges[m].next)
        bits[p->merges[m].at >> 6] |= 1ull << (p->merges[m].at & 63);
    for (size_t w = 0; w < words; w++) n += __builtin_popcountll(bits[w]);
    return n;
}

/* A lane's recorded attention, (*rows, n): of the last queries, or the sum of all; NULL: none. */
static const float *attention_of(const wn_trace_decision *d, int lane, int *rows)
{
    const wn_view_lane *l = &d->view.lanes[lane];
    int i = wn_stat_find(d->view.stats, d->view.n_stats, &(wn_stat){ .kind = WN_STAT_SUM });
    *rows = d->has & WN_TRACE_SUMS ? l->group : 1;
    if (d->has & WN_TRACE_SUMS) return wn_trace_rows(d, lane, WN_TRACE_SUMS);
    const float *x = wn_trace_rows(d, lane, WN_TRACE_STATS);
    return x && i >= 0 ? x + (size_t)i * (size_t)l->n : NULL;
}

/* Share of it on slots that stay; -1 when there is none. */
static double attention_kept(const wn_trace_decision *d, int lane, const uint64_t *bits)
{
    const wn_view_lane *l = &d->view.lanes[lane];
    int rows;
    const float *x = attention_of(d, lane, &rows);
    double all = 0, kept = 0;
    for (int h = 0; x && h < rows; h++, x += l->n)
        for (int i = 0; i < l->n; i++) {
            all += (double)x[i];
            if (bits[l->pos[i] >> 6] >> (l->pos[i] & 63) & 1) kept += (double)x[i];
        }
    return all > 0 ? kept / all : -1;
}

wn_replay_figures wn_replay_measure(wn_replay *r, const wn_trace_decision *d, const wn_plan *plan)
{
    const wn_view *v = &d->view;
    wn_replay_figures f = { .at = v->n_tokens };
    size_t words = ((size_t)v->n_tokens + 63) / 64;
    int lanes = 0, looked = 0;
    wn_mark m = wn_arena_mark(&r->scratch);
    uint64_t *now = wn_arena_array(&r->scratch, uint64_t, words),
             *then = wn_arena_array(&r->scratch, uint64_t, words);
    for (int lane = 0; lane < v->n_lanes; lane++) {
        int64_t both = 0, either = 0;
        if (!v->lanes[lane].n) continue;
        f.full += v->n_tokens;
        f.slots += v->lanes[lane].n;
        f.kept += slots_after(v, lane, plan, now);
        slots_after(v, lane, &d->plan, then);
        for (size_t w = 0; w < words; w++) {
            both += __builtin_popcountll(now[w] & then[w]);
            either += __builtin_popcountll(now[w] | then[w]);
        }
        f.agreement += either ? (double)both / (double)either : 1;
        lanes++;
        double a = attention_kept(d, lane, now);
        if (a < 0) continue;
        f.attention += a;
        looked++;
    }
    wn_arena_rewind(&r->scratch, m);
    f.agreement = lanes ? f.agreement / lanes : 1;
    f.attention = looked ? f.attention / looked : -1;
    return f;
}

void wn_replay_total(const wn_replay_figures *f, int n, wn_replay_figures *out)
{
    int looked = 0;
    *out = (wn_replay_figures){ .at = n ? f[n - 1].at : 0 };
    for (int i = 0; i < n; i++) {
        out->full += f[i].full;
        out->slots += f[i].slots;
        out->kept += f[i].kept;
        out->agreement += f[i].agreement / n;
        if (f[i].attention < 0) continue;
        out->attention += f[i].attention;
        looked++;
    }
    out->attention = looked ? out->attention / looked : -1;
}
