/* policy/trace_read.c - reading a trace back: each decision as a view and a plan.
 *
 * A decision is read in two goes: the first (trace_parse.h) walks over it and notes where the
 * arrays of each lane lie, the second makes the lists of positions (lanes that hold everything
 * share one) and the plan, by the calls that a recipe would make. What the view is asked for is
 * answered from the file.
 */
#include "base/alloc.h"
#include "policy/trace_parse.h"

#include <string.h>

static const int64_t most_slots = 1 << 27;

/* ---- a decision: lists and plan -------------------------------------------------------------- */

static bool more_room(int32_t **p, int64_t *cap, int64_t n)
{
    if (n <= *cap) return true;
    int64_t want = WN_MAX(n, *cap + *cap / 2);
    wn_free(*p);
    *p = wn_alloc((size_t)want * sizeof **p);
    *cap = *p ? want : 0;
    return *p != NULL;
}

static void list_positions(const wn_trace_place *o, int32_t p, int32_t *pos)
{
    int n = 0;
    for (int32_t i = 0; o->bitmap && i < p; i += 32)
        for (uint32_t left = o->bitmap[i / 32]; left; left &= left - 1)
            pos[n++] = i + __builtin_ctz(left);
    for (uint32_t r = 0; o->runs && r < o->runs[0]; r++)
        for (uint32_t k = 0; k < o->runs[2 + 2 * r]; k++)
            pos[n++] = (int32_t)(o->runs[1 + 2 * r] + k);
}

static bool list_lanes(wn_trace *t)
{
    int32_t p = t->d.view.n_tokens;
    int64_t own = 0, old = t->cap_all;
    for (int l = 0; l < t->head.n_lanes; l++) own += t->lanes[l].n < p ? t->lanes[l].n : 0;
    if (!more_room(&t->all, &t->cap_all, p) || !more_room(&t->pos, &t->cap_pos, own)) return false;
    for (int64_t i = 0; t->cap_all != old && i < t->cap_all; i++) t->all[i] = (int32_t)i;
    own = 0;
    for (int l = 0; l < t->head.n_lanes; l++) {
        wn_view_lane *x = &t->lanes[l];
        x->pos = t->all;
        if (x->n == p || !x->n) continue;
        x->pos = t->pos + own;
        list_positions(&t->places[l], p, t->pos + own);
        own += x->n;
    }
    return true;
}

/* Which slots are in lower formats already. */
static bool list_low(wn_trace *t)
{
    int64_t own = 0;
    for (int l = 0; l < t->head.n_lanes; l++) own += t->places[l].low ? t->lanes[l].n : 0;
    if (own > t->cap_low) {
        wn_free(t->low);
        t->low = WN_NEW_ARRAY(bool, own);
        t->cap_low = t->low ? own : 0;
        if (!t->low) return false;
    }
    own = 0;
    for (int l = 0; l < t->head.n_lanes; l++) {
        wn_view_lane *x = &t->lanes[l];
        const uint32_t *bits = t->places[l].low;
        if (!bits || !x->n) continue;
        bool *low = t->low + own;
        for (int i = 0; i < x->n; i++) x->n_low += low[i] = bits[i / 32] >> i % 32 & 1;
        x->low = low;
        own += x->n;
    }
    return true;
}

/* The plan's calls again; what they refuse is found in its status. tmp: (n_tokens). */
static void plan_lane(wn_trace *t, int lane, int32_t *tmp)
{
    const wn_trace_place *o = &t->places[lane];
    wn_plan *plan = &t->d.plan;
    if (o->mask) {
        int n = 0;
        for (int i = 0; i < o->n; i++)
            if (o->mask[i / 32] >> i % 32 & 1) tmp[n++] = t->lanes[lane].pos[i];
        wn_plan_keep_only(plan, lane, tmp, n);
    }
    if (o->demote) {
        int n = 0;
        for (int i = 0; i < o->n; i++)
            if (o->demote[i / 32] >> i % 32 & 1) tmp[n++] = t->lanes[lane].pos[i];
        wn_plan_demote(plan, lane, tmp, n);
    }
    const uint32_t *m = o->merges ? o->merges + 1 : NULL;
    for (uint32_t i = 0; m && i < o->merges[0] && !plan->status; i++) {
        uint32_t n = m[1];
        const float *w = (const float *)(const void *)(m + 4 + n);
        float bias;
        memcpy(&bias, m + 2, 4);
        const int32_t *src = (const int32_t *)(const void *)(m + 4);
        wn_plan_merge_slots(plan, lane, (int32_t)m[0], src, w, w + n, (int)n, bias, (int32_t)m[3]);
        m += 4 + 3 * (size_t)n;
    }
    for (uint32_t i = 0; o->biases && i < o->biases[0] && !plan->status; i++) {
        float bias;
        memcpy(&bias, o->biases + 2 + 2 * (size_t)i, 4);
        wn_plan_set_bias(plan, lane, (int32_t)o->biases[1 + 2 * (size_t)i], bias);
    }
    for (uint32_t i = 0; o->shifts && i < o->shifts[0] && !plan->status; i++) {
        const uint32_t *s = o->shifts + 1 + 3 * (size_t)i;
        wn_plan_shift(plan, lane, (int32_t)s[0], (int32_t)s[1], (int32_t)s[2]);
    }
}

static wn_status make_plan(wn_trace *t, wn_err *err)
{
    wn_plan *plan = &t->d.plan;
    int32_t p = t->d.view.n_tokens;
    int64_t cap = 0;
    int32_t *tmp = NULL;
    if (plan->cap_tokens < p) {
        wn_plan_release(plan);
        wn_plan_init(plan, p, t->head.n_lanes);
    }
    wn_plan_clear(plan);
    plan->n_tokens = p;
    if (!more_room(&tmp, &cap, p)) return wn_fail(err, WN_ENOMEM, "trace: out of memory");
    for (int l = 0; l < t->head.n_lanes; l++) plan_lane(t, l, tmp);
    wn_free(tmp);
    if (plan->status == WN_ENOMEM) return wn_fail(err, WN_ENOMEM, "trace: out of memory");
    return plan->status
               ? wn_trace_bad(t, err, "its plan speaks of positions that do not exist")
               : WN_OK;
}

/* ---- what the view answers ------------------------------------------------------------------- */

const float *wn_trace_rows(const wn_trace_decision *d, int lane, unsigned what)
{
    const wn_trace_place *o = &((const wn_trace *)d->view.ctx)->places[lane];
    return what == WN_TRACE_KEYS      ? o->keys
           : what == WN_TRACE_VALUES  ? o->values
           : what == WN_TRACE_QUERIES ? o->queries
           : what == WN_TRACE_STATS   ? o->stats
           : what == WN_TRACE_SUMS    ? o->sums
                                      : NULL;
}

/* Zeros for what was not recorded: who replays compares what was asked with what there is. */
static void copy_or_zero(float *to, const float *from, size_t n)
{
    if (from) memcpy(to, from, n * sizeof *to);
    else memset(to, 0, n * sizeof *to);
}

static void load(void *ctx, int lane, bool values, float *rows)
{
    const wn_trace *t = ctx;
    const wn_view_lane *l = &t->lanes[lane];
    const wn_trace_place *o = &t->places[lane];
    copy_or_zero(rows, values ? o->values : o->keys,
                 (size_t)l->n * (size_t)(values ? l->v_dim : l->k_dim));
}

static void load_queries(void *ctx, int lane, int w, float *rows)
{
    const wn_trace *t = ctx;
    const wn_view_lane *l = &t->lanes[lane];
    size_t width = (size_t)l->group * (size_t)l->k_dim;
    const float *q = t->places[lane].queries;
    if (w > t->d.n_queries) q = NULL;
    copy_or_zero(rows, q ? q + (size_t)(t->d.n_queries - w) * width : NULL, (size_t)w * width);
}

static void load_stat(void *ctx, int lane, int i, float *x)
{
    const wn_trace *t = ctx;
    size_t n = (size_t)t->lanes[lane].n;
    const float *all = t->places[lane].stats;
    copy_or_zero(x, all ? all + (size_t)i * n : NULL, n);
}

static bool load_outputs(void *ctx, const wn_view *v, int lane, float *x)
{
    const wn_trace *t = ctx;
    (void)v;
    copy_or_zero(x, t->places[lane].outputs, (size_t)t->lanes[lane].n);
    return true;
}

/* ---- the file -------------------------------------------------------------------------------- */

static wn_status open_bytes(wn_trace *t, const void *data, size_t n, int64_t max_slots, wn_err *err)
{
    t->data = data;
    t->n = n;
    t->max_slots = max_slots ? max_slots : most_slots;
    return wn_trace_parse_head(t, err);
}

wn_status wn_trace_open_memory(wn_trace **out, const void *data, size_t n, int64_t max_slots,
                               wn_err *err)
{
    *out = NULL;
    wn_trace *t = WN_NEW(wn_trace);
    if (!t) return wn_fail(err, WN_ENOMEM, "trace: out of memory");
    t->file.fd = -1;
    wn_status st = open_bytes(t, data, n, max_slots, err);
    if (st) wn_trace_close(t);
    else *out = t;
    return st;
}

wn_status wn_trace_open(wn_trace **out, const char *path, wn_err *err)
{
    *out = NULL;
    wn_trace *t = WN_NEW(wn_trace);
    if (!t) return wn_fail(err, WN_ENOMEM, "trace %s: out of memory", path);
    wn_status st = wn_os_file_open(&t->file, path, err);
    if (!st && (st = open_bytes(t, t->file.data, t->file.size, 0, err)))
        wn_fail_prefix(err, st, "trace %s", path);
    if (st) wn_trace_close(t);
    else *out = t;
    return st;
}

void wn_trace_close(wn_trace *t)
{
    if (!t) return;
    wn_plan_release(&t->d.plan);
    wn_free(t->text);
    wn_free(t->rates);
    wn_free(t->blank);
    wn_free(t->lanes);
    wn_free(t->places);
    wn_free(t->verdicts);
    wn_free(t->sums);
    wn_free(t->layer_first);
    wn_free(t->all);
    wn_free(t->low);
    wn_free(t->pos);
    wn_free(t->protect);
    wn_free(t->flags);
    wn_free(t->spans);
    wn_os_file_close(&t->file);
    wn_free(t);
}

const wn_trace_head *wn_trace_get_head(const wn_trace *t) { return &t->head; }
size_t wn_trace_torn(const wn_trace *t) { return t->torn; }

wn_status wn_trace_next(wn_trace *t, const wn_trace_decision **out, wn_err *err)
{
    wn_trace_decision *d = &t->d;
    wn_plan plan = d->plan;
    size_t body;
    *out = NULL;
    *d = (wn_trace_decision){ .index = t->index, .offset = t->at, .plan = plan,
                              .verdicts = t->verdicts };
    wn_status st = wn_trace_parse_frame(t, &body, err);
    if (st || !body) return st;
    d->view = (wn_view){ .n_layers = t->head.n_layers, .n_lanes = t->head.n_lanes,
                         .lanes = t->lanes, .layer_first = t->layer_first, .ctx = t, .load = load,
                         .load_queries = load_queries, .load_stat = load_stat,
                         .load_outputs = load_outputs, .stats = t->stats,
                         .n_stats = t->head.n_stats };
    if ((st = wn_trace_parse_body(t, body, err))) return st;
    if (!list_lanes(t) || !list_low(t)) return wn_fail(err, WN_ENOMEM, "trace: out of memory");
    for (int l = 0; l < t->head.n_lanes; l++) t->sums[l] = t->places[l].sums;
    if (d->has & WN_TRACE_SUMS) d->view.sums = t->sums;
    if ((st = make_plan(t, err))) return st;
    t->at += d->bytes;
    t->index++;
    *out = d;
    return WN_OK;
}
