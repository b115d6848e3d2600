/* policy/decide.c - what a policy says to a view: its budget in slots, and the plan.
 *
 * A recipe makes the whole plan, or it scores slots and the stages do the rest: budgets over
 * lanes, what is protected paid for out of them, the best of each lane, and what becomes of
 * the others. Nothing is decided while what is live is within the budget.
 */
#include "policy/policy.h"
#include "policy/stages/stages.h"

#include <string.h>

/* ---- sizes ------------------------------------------------------------------------ */

/* Slots of a lane that does not keep everything, of a head-share recipe. */
static int64_t stream_slots(const wn_policy *p, int64_t n_tokens)
{
    wn_params a = { .v = p->v };
    return WN_MIN(p->recipe->cap(&a, n_tokens) + p->first + p->last, n_tokens);
}

/* How many lanes of a head-share recipe keep everything: a share says so, of a budget in slots or
 * bytes as many as fit beside the others. */
static int64_t whole_lanes(const wn_policy *p, int64_t total, int64_t n_tokens, int64_t n_lanes)
{
    if (p->recipe->kind != WN_CLASS_HEAD_SHARE) return 0;
    if (p->budget_kind == WN_BUDGET_SHARE) return (int64_t)(p->budget * (double)n_lanes + 1e-6);
    int64_t stream = stream_slots(p, n_tokens), left = total - n_lanes * stream;
    return n_tokens == stream ? 0 : WN_MIN(WN_MAX(left, 0) / (n_tokens - stream), n_lanes);
}

/* Slots over all lanes, at most all there are. */
static int64_t total_slots(const wn_policy *p, int64_t n_tokens, double slot_bytes, int64_t n_lanes)
{
    double n = (double)n_lanes, all = n * (double)n_tokens,
           share = p->budget * (double)n_tokens * n;
    if (p->recipe->kind == WN_CLASS_HEAD_SHARE) {
        int64_t whole = whole_lanes(p, 0, n_tokens, n_lanes);
        share = (double)(whole * n_tokens + (n_lanes - whole) * stream_slots(p, n_tokens));
    }
    double total = p->budget_kind == WN_BUDGET_SHARE   ? share
                   : p->budget_kind == WN_BUDGET_SLOTS ? p->budget * n
                   : p->budget_kind == WN_BUDGET_BYTES ? p->budget / slot_bytes
                                                       : all;
    return (int64_t)WN_MIN(total + 1e-6, all);  /* 12.5 % of 8 is 1, whatever the rounding */
}

static int64_t lane_slots(const wn_policy *p, int64_t n_tokens, double slot_bytes, int64_t n_lanes)
{
    return n_lanes ? total_slots(p, n_tokens, slot_bytes, n_lanes) / n_lanes : 0;
}

static wn_params params_of(const wn_policy *p, int64_t n_tokens, double slot_bytes, int64_t n_lanes)
{
    return (wn_params){ .v = p->v,
                        .has_budget = p->budget_kind != WN_BUDGET_NONE,
                        .lane_slots = lane_slots(p, n_tokens, slot_bytes, n_lanes),
                        .window = wn_policy_window(p),
                        .whole_lanes = whole_lanes(p, total_slots(p, n_tokens, slot_bytes, n_lanes),
                                                   n_tokens, n_lanes) };
}

/* The same for a stage that was given in the policy's text. */
static wn_params params_for(const wn_policy *p, const wn_params *a, wn_stage_kind kind)
{
    wn_params b = *a;
    b.v = p->stages[kind].v;
    return b;
}

int64_t wn_policy_cap(const wn_policy *p, int64_t n)
{
    if (!wn_policy_decides(p) || !(p->at & WN_AT_BOUNDARY) || p->budget_kind == WN_BUDGET_BYTES)
        return n;
    int64_t cap = n;
    if (p->recipe->kind == WN_CLASS_HEAD_SHARE && p->budget_kind == WN_BUDGET_SHARE)
        /* of many lanes: no whole number of them is more */
        cap = (total_slots(p, n, 1, 1 << 20) >> 20) + 1;
    else if (p->budget_kind != WN_BUDGET_NONE) cap = lane_slots(p, n, 1, 1) + 1;
    else if (p->recipe->cap) {
        wn_params a = params_of(p, n, 1, 1);
        cap = p->recipe->cap(&a, n);
    }
    /* added, not the larger: concave in n */
    return WN_MIN(n, cap + p->first + p->last + (p->special ? WN_POLICY_SPECIALS : 0));
}

/* Demoted slots of a lane, mean, in a text of n tokens: what the budget does not keep as it is. */
int64_t wn_policy_low_cap(const wn_policy *p, int64_t n)
{
    if (!wn_policy_demotes(p)) return 0;
    bool told = p->budget_kind == WN_BUDGET_SHARE || p->budget_kind == WN_BUDGET_SLOTS;
    int64_t low = told ? n - lane_slots(p, n, 1, 1) + 1 : n;
    double most = p->stages[WN_STAGE_RECOVER].v[2] * (double)n + 1;
    return WN_MIN(WN_MIN(n, low + p->first + p->last), (int64_t)most);
}

int64_t wn_policy_reach(const wn_policy *p)
{
    wn_params a = { .v = p->v };
    /* slots protected beside the recipe's own stay where they are: no bound then */
    if (!p->recipe->bounded || !(p->at & WN_AT_BOUNDARY) || p->first || p->special)
        return INT64_MAX;
    if (p->budget_kind == WN_BUDGET_SLOTS) return (int64_t)p->budget + p->last + p->every;
    if (p->budget_kind != WN_BUDGET_NONE) return INT64_MAX;             /* grows with the text */
    return p->recipe->cap(&a, INT32_MAX) + p->last + p->every;
}

/* ---- deciding --------------------------------------------------------------------- */

/* Lanes that have slots: those of window layers have none. */
static int live_lanes(const wn_view *v, int64_t *slots)
{
    int n = 0;
    *slots = 0;
    for (int i = 0; i < v->n_lanes; i++) {
        n += v->lanes[i].n > 0;
        *slots += v->lanes[i].n - v->lanes[i].n_low;
    }
    return n;
}

static void protect(const wn_policy *p, wn_view *v, wn_plan *plan)
{
    int n = v->n_tokens;
    size_t words = ((size_t)n + 63) / 64;
    if (!p->first && !p->last) return;
    uint64_t *bits = wn_view_scratch(v, words * sizeof *bits);
    if (!bits) {
        plan->status = WN_ENOMEM;
        return;
    }
    if (v->protect) memcpy(bits, v->protect, words * sizeof *bits);
    else memset(bits, 0, words * sizeof *bits);
    for (int i = 0; i < WN_MIN(p->first, n); i++) bits[i >> 6] |= 1ull << (i & 63);
    for (int i = WN_MAX(0, n - p->last); i < n; i++) bits[i >> 6] |= 1ull << (i & 63);
    v->protect = bits;
}

static bool uniform(const wn_view *v, int64_t *keep)
{
    size_t n = (size_t)v->n_lanes;
    double *weight = wn_view_scratch(v, sizeof *weight * n);
    int64_t *cap = wn_view_scratch(v, sizeof *cap * n);
    if (!weight || !cap) return false;
    for (size_t i = 0; i < n; i++) {
        weight[i] = v->lanes[i].n > 0;
        cap[i] = v->lanes[i].n;
    }
    wn_stage_split(v->budget, weight, cap, v->n_lanes, keep);
    return true;
}

/* Protected slots come out of a lane's budget; a lane that was given fewer gets them from the
 * lanes with most to spare (ties: the lower). */
static bool pay_for_protected(const wn_view *v, int64_t *keep)
{
    int n = v->n_lanes;
    int64_t *least = wn_view_scratch(v, sizeof *least * (size_t)n), owed = 0;
    if (!least) return false;
    for (int i = 0; i < n; i++) {
        least[i] = 0;
        for (int s = 0; v->protect && s < v->lanes[i].n; s++)
            least[i] += wn_view_protects(v, v->lanes[i].pos[s]);
        if (keep[i] >= least[i]) continue;
        owed += least[i] - keep[i];
        keep[i] = least[i];
    }
    for (; owed > 0; owed--) {
        int from = -1;
        for (int i = 0; i < n; i++)
            if (keep[i] > least[i] && (from < 0 || keep[i] - least[i] > keep[from] - least[from]))
                from = i;
        if (from < 0) break;            /* more is protected than the budget has */
        keep[from]--;
    }
    return true;
}

/* Without a budget of its own a recipe takes what its data say; @ is a ceiling then, and lanes come
 * down to it in proportion. */
static bool cap_total(const wn_view *v, int64_t *keep)
{
    int n = v->n_lanes;
    int64_t sum = 0, *cap = wn_view_scratch(v, sizeof *cap * (size_t)n);
    double *weight = wn_view_scratch(v, sizeof *weight * (size_t)n);
    for (int i = 0; i < n; i++) sum += keep[i];
    if (sum <= v->budget) return true;
    if (!cap || !weight) return false;
    for (int i = 0; i < n; i++) weight[i] = (double)(cap[i] = keep[i]);
    wn_stage_split(v->budget, weight, cap, n, keep);
    return true;
}

/* Slots per lane: a stage's, or the recipe's, or the same for all. */
static bool allocate(const wn_policy *p, const wn_params *a, const wn_view *v,
                     const float *const *scores, int64_t *keep)
{
    const wn_stage *g = p->stages[WN_STAGE_ALLOC].stage;
    if (g && g->allocate) {
        wn_params b = params_for(p, a, WN_STAGE_ALLOC);
        g->allocate(v, &b, scores, keep);
    } else if (!g && p->recipe->allocate) {
        p->recipe->allocate(v, a, scores, keep);
    } else {
        return uniform(v, keep);
    }
    return true;
}

/* Which slots of a lane stay: a stage says it, or the recipe, or they are the best. What is
 * protected is among them whatever the others say. */
static bool choose(const wn_policy *p, const wn_params *a, const wn_view *v, int lane,
                   const float *score, int64_t keep, const bool *skip, bool *stays)
{
    const wn_stage *g = p->stages[WN_STAGE_RETAIN].stage;
    const wn_view_lane *l = &v->lanes[lane];
    if (!wn_policy_retains(p)) return wn_stage_choose(v, lane, score, keep, skip, stays);
    wn_params b = g ? params_for(p, a, WN_STAGE_RETAIN) : *a;
    memset(stays, 0, sizeof *stays * (size_t)l->n);
    (g ? g->retain : p->recipe->retain)(v, &b, lane, score, keep, skip, stays);
    for (int i = 0; v->protect && i < l->n; i++)
        stays[i] |= (!skip || !skip[i]) && wn_view_protects(v, l->pos[i]);
    return true;
}

/* One lane whose victims are kept in fewer bits, as far as that is allowed: the worst go, the
 * best of those that are not demoted yet stay as they are. */
static bool demote_lane(const wn_policy *p, const wn_params *a, const wn_view *v, int lane,
                        const float *score, int64_t keep, wn_plan *plan)
{
    const wn_view_lane *l = &v->lanes[lane];
    int64_t kept = keep + (v->kept - v->budget) / WN_MAX(v->n_lanes, 1);
    bool *stays = wn_view_scratch(v, sizeof *stays * (size_t)l->n);
    int32_t *low = wn_view_scratch(v, sizeof *low * (size_t)l->n);
    int n = 0;
    if (!stays || !low) return false;
    if (v->kept < INT64_MAX && kept < l->n) {
        if (!choose(p, a, v, lane, score, kept, NULL, stays)) return false;
        wn_stage_keep(v, lane, stays, plan);
    }
    if (!choose(p, a, v, lane, score, keep, l->low, stays)) return false;
    for (int i = 0; i < l->n; i++)
        if (!stays[i] && wn_plan_keeps(plan, lane, l->pos[i])) low[n++] = l->pos[i];
    wn_plan_demote(plan, lane, low, n);
    return true;
}

/* One lane: the best stay; then a stage, or the recipe, says what becomes of the others. A
 * slot that the stage fills itself is left free for it, unless the protected ones need it. */
static bool settle_lane(const wn_policy *p, const wn_params *a, const wn_view *v, int lane,
                        const float *score, int64_t keep, wn_plan *plan)
{
    const wn_stage *g = p->stages[WN_STAGE_RECOVER].stage;
    int n = v->lanes[lane].n, n_stays = 0, own = g ? g->slots : 0;
    bool *stays = wn_view_scratch(v, sizeof *stays * (size_t)n);
    if (!stays || !choose(p, a, v, lane, score, keep - own, NULL, stays)) return false;
    wn_stage_keep(v, lane, stays, plan);
    if (!wn_policy_merges(p) || plan->status) return true;
    for (int i = 0; i < n; i++) n_stays += stays[i];
    if (own && n_stays + own > keep) return true;
    wn_params b = g ? params_for(p, a, WN_STAGE_RECOVER) : *a;
    /* sources of a merge may be dropped ones */
    (g ? g->recover : p->recipe->recover)(v, &b, lane, stays, plan);
    return true;
}

/* Lanes of a decision, dealt to hands in turn: lane i is hand i mod n's. */
typedef struct {
    const wn_policy *p;
    const wn_params *a;
    wn_view *v;
    wn_plan *plan;
    int n;
    float **score;
    int64_t *keep;
} deal;

static wn_view *view_of(const deal *d, int hand)
{
    return d->n > 1 ? &d->v->hands[hand].view : d->v;
}
static wn_plan *plan_of(const deal *d, int hand)
{
    return d->n > 1 ? d->v->hands[hand].plan : d->plan;
}

static void score_lanes(void *arg, int hand, int thread)
{
    const deal *d = arg;
    wn_view *v = view_of(d, hand);
    (void)thread;
    for (int i = hand; i < v->n_lanes; i += d->n) {
        wn_mark m = wn_arena_mark(v->scratch);
        if (v->lanes[i].n) d->p->recipe->score(v, d->a, i, d->score[i]);
        wn_arena_rewind(v->scratch, m);
    }
}

static void settle_lanes(void *arg, int hand, int thread)
{
    const deal *d = arg;
    wn_view *v = view_of(d, hand);
    wn_plan *plan = plan_of(d, hand);
    (void)thread;
    for (int i = hand; i < v->n_lanes && !plan->status; i += d->n) {
        if (d->keep[i] >= v->lanes[i].n - v->lanes[i].n_low && v->kept == INT64_MAX) continue;
        wn_mark m = wn_arena_mark(v->scratch);
        bool ok = wn_policy_demotes(d->p)
                      ? demote_lane(d->p, d->a, v, i, d->score[i], d->keep[i], plan)
                      : d->keep[i] >= v->lanes[i].n ||
                            settle_lane(d->p, d->a, v, i, d->score[i], d->keep[i], plan);
        if (!ok) plan->status = WN_ENOMEM;
        wn_arena_rewind(v->scratch, m);
    }
}

static void raise_hands(const deal *d)
{
    for (int i = 0; d->n > 1 && i < d->n; i++) {
        wn_view_hand *h = &d->v->hands[i];
        h->view.budget = d->v->budget;
        h->view.kept = d->v->kept;
        h->view.protect = d->v->protect;
        h->view.layers = d->v->layers;
        h->view.lacking = false;
        h->asked = 0;
        wn_plan_clear(h->plan);
        h->plan->n_tokens = d->plan->n_tokens;
    }
}

/* Lane by lane, so that the plan is the one that a single hand would have made. */
static void join_hands(const deal *d)
{
    for (int l = 0; d->n > 1 && l < d->v->n_lanes; l++)
        wn_plan_take_lane(d->plan, d->v->hands[l % d->n].plan, l);
    for (int i = 0; d->n > 1 && i < d->n; i++) {
        d->v->lacking |= d->v->hands[i].view.lacking;
        if (d->v->asked) *d->v->asked |= d->v->hands[i].asked;
    }
}

/* Scores of all lanes, budgets over them, and the best of each stay. */
static void by_score(const wn_policy *p, const wn_params *a, wn_view *v, wn_plan *plan)
{
    size_t n = (size_t)v->n_lanes;
    float **score = wn_view_scratch(v, sizeof *score * n);
    int64_t *keep = wn_view_scratch(v, sizeof *keep * n);
    bool ok = score && keep;
    deal d = { p, a, v, plan, WN_MAX(v->n_hands, 1), score, keep };
    for (int i = 0; ok && i < v->n_lanes; i++) {
        ok = (score[i] = wn_view_scratch(v, sizeof **score * (size_t)WN_MAX(v->lanes[i].n, 1))) !=
             NULL;
        keep[i] = 0;
    }
    raise_hands(&d);
    if (ok) wn_threads_run(v->team, score_lanes, &d, d.n);
    ok = ok && allocate(p, a, v, (const float *const *)score, keep) &&
         (p->recipe->kind != WN_CLASS_BUDGET_FREE || cap_total(v, keep)) &&
         pay_for_protected(v, keep);
    for (int i = 0; ok && v->verdicts && i < v->n_lanes; i++)
        if (v->lanes[i].n) v->verdicts[i] = (wn_verdict){ score[i], keep[i] };
    if (ok) wn_threads_run(v->team, settle_lanes, &d, d.n);
    join_hands(&d);
    if (!ok && !plan->status) plan->status = WN_ENOMEM;
}

/* What is protected stays whatever a recipe's own plan says. A recipe that is to keep its
 * budget has to count these slots (wn_view_protects). */
static void spare_protected(const wn_view *v, wn_plan *plan)
{
    size_t words = ((size_t)v->n_tokens + 63) / 64;
    for (int l = 0; plan->keep && v->protect && l < v->n_lanes; l++)
        for (size_t w = 0; plan->keep[l] && w < words; w++) plan->keep[l][w] |= v->protect[w];
}

static int64_t all_slots(const wn_view *v)
{
    int64_t n = 0;
    for (int i = 0; i < v->n_lanes; i++) n += v->lanes[i].n;
    return n;
}

/* How many slots stay as they are, and how many stay at all. Bytes are shared by both kinds: what
 * is there costs at least the lower format's, the rest buys slots up. */
static void share_with_low(const wn_policy *p, wn_view *v, double slot_bytes, int n_live,
                           wn_params *a)
{
    double share = p->stages[WN_STAGE_RECOVER].v[2], more = share * (double)v->n_tokens * n_live;
    int64_t all = all_slots(v);
    if (p->budget_kind == WN_BUDGET_BYTES && v->low_bytes > 0 && v->low_bytes < slot_bytes) {
        double most = p->budget / v->low_bytes,
               high = (p->budget - (double)all * v->low_bytes) / (slot_bytes - v->low_bytes);
        v->budget = (int64_t)WN_MAX(WN_MIN(high, (double)all), 0.0);
        if (most < (double)all) v->kept = (int64_t)most;
        a->lane_slots = n_live ? v->budget / n_live : 0;
    }
    if (share < 1 && v->budget + (int64_t)more < v->kept) v->kept = v->budget + (int64_t)more;
}

/* What the policy needs of the model's profile; whoever opened it has seen to it
 * (wn_profile_serves()). */
static bool find_profile(const wn_policy *p, wn_view *v, int n_live)
{
    int needs = wn_policy_profile(p);
    double all = (double)n_live * (double)v->n_tokens;
    if (needs && !v->profile) return false;
    v->layers = NULL;
    if (needs & WN_PROFILE_BUDGETS)
        v->layers = wn_profile_nearest(v->profile, p->recipe->name,
                                       all > 0 ? (double)v->budget / all : 1);
    return v->layers || !(needs & WN_PROFILE_BUDGETS);
}

bool wn_policy_is_idle(const wn_policy *p, int64_t n_tokens, double slot_bytes, int n_lanes,
                       int64_t slots)
{
    return !wn_policy_decides(p) || (p->budget_kind != WN_BUDGET_NONE &&
                                     slots <= total_slots(p, n_tokens, slot_bytes, n_lanes));
}

void wn_policy_decide(const wn_policy *p, wn_view *v, double slot_bytes, wn_plan *plan)
{
    int64_t slots;
    v->lacking = false;
    if (!wn_policy_decides(p)) return;
    int n_live = live_lanes(v, &slots);
    wn_params a = params_of(p, v->n_tokens, slot_bytes, n_live);
    v->budget = total_slots(p, v->n_tokens, slot_bytes, n_live);
    v->kept = INT64_MAX;
    if (wn_policy_demotes(p)) share_with_low(p, v, slot_bytes, n_live, &a);
    if (p->budget_kind != WN_BUDGET_NONE && slots <= v->budget && all_slots(v) <= v->kept) return;
    if (!find_profile(p, v, n_live)) plan->status = WN_EINVAL;
    else protect(p, v, plan);
    if (plan->status) return;
    if (p->recipe->plan) {
        p->recipe->plan(v, &a, plan);
        spare_protected(v, plan);
    } else {
        by_score(p, &a, v, plan);
    }
    if (v->lacking && !plan->status) plan->status = WN_ENOMEM;
}
