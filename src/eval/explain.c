/* eval/explain.c - see explain.h. One bit per lane and position of the range says who holds
 * it; views say who held it before a decision, so that slots that were gone before the first
 * one that was seen (a session that goes on) are not blamed on it.
 */
#include "eval/explain.h"
#include "base/alloc.h"

#include <math.h>
#include <string.h>

struct wn_explain {
    int from, to, n_lanes, n, cap;
    size_t words;                       /* of a lane's bits */
    wn_view_lane *lanes;                /* layer and head */
    bool *shown;                        /* (n_lanes) has it ever shown a slot? */
    int32_t *there;                     /* (n_lanes) slots of the range before the decision that is
                                           noted */
    uint64_t *held, *now, *after;       /* (n_lanes, words); the others of one lane, while noting */
    int64_t gone_before;                /* slots that the first decision did not find */
    wn_explain_event *events;
};

static bool has(const uint64_t *bits, int i) { return bits[i >> 6] >> (i & 63) & 1; }
static void set(uint64_t *bits, int i) { bits[i >> 6] |= 1ull << (i & 63); }
static void unset(uint64_t *bits, int i) { bits[i >> 6] &= ~(1ull << (i & 63)); }

wn_status wn_explain_open(wn_explain **out, const wn_view_lane *lanes, int n_lanes, int from,
                          int to, wn_err *err)
{
    *out = NULL;
    if (from < 0 || to <= from)
        return wn_fail(err, WN_EINVAL, "positions %d to %d are no range", from, to - 1);
    wn_explain *x = WN_NEW(wn_explain);
    if (!x) return wn_fail(err, WN_ENOMEM, "explain: out of memory");
    *x = (wn_explain){ .from = from, .to = to, .n_lanes = n_lanes,
                       .words = ((size_t)(to - from) + 63) / 64 };
    x->lanes = WN_NEW_ARRAY(wn_view_lane, n_lanes);
    x->shown = WN_NEW_ARRAY(bool, n_lanes);
    x->there = WN_NEW_ARRAY(int32_t, n_lanes);
    x->held = WN_NEW_ARRAY(uint64_t, x->words * (size_t)n_lanes);
    x->now = WN_NEW_ARRAY(uint64_t, x->words);
    x->after = WN_NEW_ARRAY(uint64_t, x->words);
    if (!x->lanes || !x->shown || !x->there || !x->held || !x->now || !x->after) {
        wn_explain_close(x);
        return wn_fail(err, WN_ENOMEM, "explain: out of memory");
    }
    memcpy(x->lanes, lanes, sizeof *lanes * (size_t)n_lanes);
    memset(x->held, 0xff, sizeof *x->held * x->words * (size_t)n_lanes);
    *out = x;
    return WN_OK;
}

void wn_explain_close(wn_explain *x)
{
    if (!x) return;
    for (int i = 0; i < x->n; i++) wn_free(x->events[i].there);
    wn_free(x->events);
    wn_free(x->lanes);
    wn_free(x->shown);
    wn_free(x->there);
    wn_free(x->held);
    wn_free(x->now);
    wn_free(x->after);
    wn_free(x);
}

int wn_explain_n(const wn_explain *x) { return x->n; }
const wn_explain_event *wn_explain_at(const wn_explain *x, int i) { return &x->events[i]; }

bool wn_explain_holds(const wn_explain *x, int lane, int pos)
{
    return pos >= x->from && pos < x->to && has(x->held + (size_t)lane * x->words, pos - x->from);
}

/* ---- a decision ------------------------------------------------------------------------------ */

/* there and taken are one block. */
static wn_explain_event *new_event(wn_explain *x, int at, const char *rule)
{
    if (x->n == x->cap) {
        int cap = x->cap ? 2 * x->cap : 16;
        wn_explain_event *e = wn_realloc(x->events, sizeof *e * (size_t)cap);
        if (!e) return NULL;
        x->events = e;
        x->cap = cap;
    }
    wn_explain_event *e = &x->events[x->n];
    *e = (wn_explain_event){ .at = at, .there = WN_NEW_ARRAY(int32_t, 2 * (size_t)x->n_lanes) };
    if (!e->there) return NULL;
    e->taken = e->there + x->n_lanes;
    snprintf(e->rule, sizeof e->rule, "%s", rule);
    x->n++;
    return e;
}

typedef struct {
    const wn_policy *p;
    const wn_view *v;
    const wn_view_lane *l;
    const wn_verdict *said;
} look;

static bool always_stays(const look *k, int i)
{
    int pos = k->l->pos[i];
    return pos < k->p->first || pos >= k->v->n_tokens - k->p->last || wn_view_protects(k->v, pos);
}

/* Does slot i stay before slot j? Protected ones do, then higher scores, then earlier ones. */
static bool before(const look *k, int i, int j)
{
    bool a = always_stays(k, i), b = always_stays(k, j);
    float x = k->said->score[i], y = k->said->score[j];
    x = isnan(x) ? -INFINITY : x;
    y = isnan(y) ? -INFINITY : y;
    return a != b ? a : x != y ? x > y : i < j;
}

static int rank_of(const look *k, int i)
{
    int rank = 1;
    for (int j = 0; j < k->l->n; j++) rank += j != i && before(k, j, i);
    return rank;
}

/* Slots first and last in rank of those a lane has dropped. */
static void note_scores(wn_explain_event *e, const look *k, int first, int last)
{
    int a = rank_of(k, first), b = rank_of(k, last);
    float most = k->said->score[first], least = k->said->score[last];
    bool fresh = !e->scored;
    e->most = fresh || most > e->most ? most : e->most;
    e->least = fresh || least < e->least ? least : e->least;
    e->first_rank = fresh ? a : WN_MIN(e->first_rank, a);
    e->last_rank = WN_MAX(e->last_rank, b);
    e->least_n = fresh ? k->l->n : WN_MIN(e->least_n, k->l->n);
    e->most_n = WN_MAX(e->most_n, k->l->n);
    e->least_keep = fresh ? k->said->keep : WN_MIN(e->least_keep, k->said->keep);
    e->most_keep = WN_MAX(e->most_keep, k->said->keep);
    e->scored = true;
}

/* The lane's slots of the range before (now) and after the plan. */
static void see_lane(wn_explain *x, const wn_view_lane *l, int lane, const wn_plan *plan)
{
    memset(x->now, 0, x->words * 8);
    memset(x->after, 0, x->words * 8);
    for (int i = 0; i < l->n && l->pos[i] < x->to; i++) {
        if (l->pos[i] < x->from) continue;
        set(x->now, l->pos[i] - x->from);
        if (wn_plan_keeps(plan, lane, l->pos[i])) set(x->after, l->pos[i] - x->from);
    }
    for (int32_t m = wn_plan_first(plan, lane, WN_PLAN_MERGES); m >= 0; m = plan->merges[m].next)
        for (int s = 0; s < plan->merges[m].n_src; s++) {
            int pos = plan->src[plan->merges[m].first_src + s];
            if (pos >= x->from && pos < x->to) unset(x->after, pos - x->from);
        }
    for (int32_t m = wn_plan_first(plan, lane, WN_PLAN_MERGES); m >= 0; m = plan->merges[m].next) {
        int pos = plan->merges[m].at;
        if (pos >= x->from && pos < x->to) set(x->after, pos - x->from);
    }
}

/* Of the slots that are taken away: those that a merge takes up. */
static int64_t count_merged(const wn_explain *x, int lane, const wn_plan *plan)
{
    int64_t n = 0;
    for (int32_t m = wn_plan_first(plan, lane, WN_PLAN_MERGES); m >= 0; m = plan->merges[m].next)
        for (int s = 0; s < plan->merges[m].n_src; s++) {
            int i = plan->src[plan->merges[m].first_src + s] - x->from;
            n += i >= 0 && i < x->to - x->from && has(x->now, i) && !has(x->after, i);
        }
    return n;
}

static bool note_lane(wn_explain *x, wn_explain_event **e, const look *k, int lane,
                      const wn_plan *plan)
{
    uint64_t *held = x->held + (size_t)lane * x->words;
    int first = -1, last = -1, there = 0, taken = 0, done = WN_MIN(x->to, k->v->n_tokens) - x->from;
    see_lane(x, k->l, lane, plan);
    for (int i = 0; i < done; i++) {
        if (!x->shown[lane]) x->gone_before += !has(x->now, i);
        if (has(x->after, i)) set(held, i);
        else unset(held, i);
    }
    x->shown[lane] = true;
    for (int i = 0; i < k->l->n && k->l->pos[i] < x->to; i++) {
        if (k->l->pos[i] < x->from) continue;
        there++;
        if (has(x->after, k->l->pos[i] - x->from)) continue;
        taken++;
        if (!k->said) continue;
        if (first < 0 || before(k, i, first)) first = i;
        if (last < 0 || before(k, last, i)) last = i;
    }
    const wn_stage *g = k->p->stages[WN_STAGE_RETAIN].stage;
    char rule[sizeof (*e)->rule];
    snprintf(rule, sizeof rule, "%s%s%s", k->p->recipe->name, g ? "+retain:" : "",
             g ? g->name : "");
    if (taken && !*e && !(*e = new_event(x, k->v->n_tokens, rule))) return false;
    x->there[lane] = there;
    if (!taken) return true;
    (*e)->taken[lane] = taken;
    int64_t merged = count_merged(x, lane, plan);
    (*e)->merged += merged;
    (*e)->dropped += taken - merged;
    if (first >= 0) note_scores(*e, k, first, last);
    return true;
}

wn_status wn_explain_note(wn_explain *x, const wn_policy *p, const wn_view *v,
                          const wn_verdict *verdicts, const wn_plan *plan, wn_err *err)
{
    wn_explain_event *e = NULL;
    WN_ASSERT(v->n_lanes == x->n_lanes);
    if (v->n_tokens <= x->from) return WN_OK;
    memset(x->there, 0, sizeof *x->there * (size_t)x->n_lanes);
    for (int l = 0; l < v->n_lanes; l++) {
        look k = { p, v, &v->lanes[l], verdicts && verdicts[l].score ? &verdicts[l] : NULL };
        if (!k.l->n && !x->shown[l]) continue;
        if (!note_lane(x, &e, &k, l, plan))
            return wn_fail(err, WN_ENOMEM, "explain: out of memory");
    }
    if (e) memcpy(e->there, x->there, sizeof *x->there * (size_t)x->n_lanes);
    return WN_OK;
}

/* ---- for people ------------------------------------------------------------------------------ */

/* Heads of one layer in a set, "all heads" where all that have slots are in it. */
static bool heads_text(const wn_explain *x, const bool *in, int layer, char *text, size_t size)
{
    int n = 0, all = 0;
    size_t k = 0;
    for (int l = 0; l < x->n_lanes; l++)
        if (x->lanes[l].layer == layer && x->shown[l]) all++, n += in[l];
    if (n == all) {
        snprintf(text, size, "all heads");
        return n > 0;
    }
    k += (size_t)snprintf(text, size, "head%s", n > 1 ? "s" : "");
    bool more = false;
    for (int l = 0; l < x->n_lanes && k < size; l++)
        if (x->lanes[l].layer == layer && x->shown[l] && in[l]) {
            k += (size_t)snprintf(text + k, size - k, "%s %d", more ? "," : "", x->lanes[l].head);
            more = true;
        }
    return n > 0;
}

/* "layers 0-3 all heads; layer 5 heads 1, 3" */
static void print_lanes(const wn_explain *x, FILE *f, const bool *in)
{
    char here[400], next[400];
    int layers = x->lanes[x->n_lanes - 1].layer + 1;
    bool more = false;
    for (int a = 0, b; a < layers; a = b) {
        bool any = heads_text(x, in, a, here, sizeof here);
        for (b = a + 1;
             any && b < layers && heads_text(x, in, b, next, sizeof next) && !strcmp(here, next);
             b++) {
        }
        if (!any) continue;
        if (b == a + 1) fprintf(f, "%slayer %d %s", more ? "; " : "", a, here);
        else fprintf(f, "%slayers %d-%d %s", more ? "; " : "", a, b - 1, here);
        more = true;
    }
}

/* One line for the lanes of a kind, if there are any. */
static void print_set(const wn_explain *x, FILE *f, const char *what, const bool *in)
{
    bool any = false;
    for (int l = 0; l < x->n_lanes; l++) any |= in[l];
    if (!any) return;
    fprintf(f, "            %s: ", what);
    print_lanes(x, f, in);
    fputc('\n', f);
}

static void print_event(const wn_explain *x, FILE *f, const wn_explain_event *e, bool *in)
{
    int64_t there = 0;
    for (int l = 0; l < x->n_lanes; l++) there += e->there[l];
    fprintf(f, "  at %-6d  %s: dropped %lld of %lld slots", e->at, e->rule, (long long)e->dropped,
            (long long)there);
    if (e->merged) fprintf(f, ", merged %lld into others", (long long)e->merged);
    if (!e->scored) fprintf(f, " (by its rule for positions, without scores)\n");
    else {
        fprintf(f, " (score %.4g", (double)e->least);
        if (e->most != e->least) fprintf(f, " to %.4g", (double)e->most);
        fprintf(f, ", rank %d", e->first_rank);
        if (e->last_rank != e->first_rank) fprintf(f, " to %d", e->last_rank);
        fprintf(f, " of %d", e->least_n);
        if (e->most_n != e->least_n) fprintf(f, " to %d", e->most_n);
        fprintf(f, ", %lld", (long long)e->least_keep);
        if (e->most_keep != e->least_keep) fprintf(f, " to %lld", (long long)e->most_keep);
        fprintf(f, " stay)\n");
    }
    for (int l = 0; l < x->n_lanes; l++) in[l] = e->taken[l] && e->taken[l] == e->there[l];
    print_set(x, f, "all that they held", in);
    for (int l = 0; l < x->n_lanes; l++) in[l] = e->taken[l] && e->taken[l] < e->there[l];
    print_set(x, f, "a part of it", in);
}

void wn_explain_print(const wn_explain *x, FILE *f, int n_tokens)
{
    int to = WN_MIN(x->to, n_tokens), lanes = 0;
    int64_t held = 0;
    bool *in = WN_NEW_ARRAY(bool, x->n_lanes), any = false;
    int64_t *count = WN_NEW_ARRAY(int64_t, x->n_lanes);
    for (int l = 0; l < x->n_lanes; l++) any |= x->shown[l];
    for (int l = 0; l < x->n_lanes && in && count; l++) {
        if (any && !x->shown[l]) continue;
        lanes++;
        for (int pos = x->from; pos < to; pos++) count[l] += wn_explain_holds(x, l, pos);
        held += count[l];
    }
    fprintf(f, "explain   positions %d to %d, %d lanes\n", x->from, to - 1, lanes);
    if (x->gone_before)
        fprintf(f, "  before    %lld slots were gone already when this run began\n",
                (long long)x->gone_before);
    for (int i = 0; i < x->n && in; i++) print_event(x, f, &x->events[i], in);
    if (!x->n) fprintf(f, "  nothing was dropped of it\n");
    fprintf(f, "  at the end  %lld of %lld slots are held\n", (long long)held,
            (long long)(to - x->from) * lanes);
    for (int l = 0; l < x->n_lanes && in && count; l++)
        in[l] = x->shown[l] && count[l] == to - x->from;
    if (in) print_set(x, f, "all of it", in);
    for (int l = 0; l < x->n_lanes && in && count; l++)
        in[l] = count[l] && count[l] < to - x->from && x->shown[l];
    if (in) print_set(x, f, "a part of it", in);
    wn_free(in);
    wn_free(count);
}
