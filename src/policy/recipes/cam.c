/* policy/recipes/cam.c - heavy hitters, and values of victims handed to those that follow them.
 *
 * Source     Zhang et al., "CaM: Cache Merging for Memory-efficient LLMs Inference", 2024, section
 *            4
 * When       every 64 tokens           Observes  all queries, summed   Resume  record
 * Retains    4 first slots, the last `recent` share of the budget, and of the others those with the
 *            most attention
 * Recovers   a victim's value, cut in m, is added to the values of the next m slots that stay, with
 *            the probability (its attention) / (mean attention of those), attention per query that
 *            has seen a slot; keys are dropped. What the victim would have added to an answer is
 *            then added by them, on the mean
 * Differs    weights count, too: a slot that took 1/m of another counts for 1 + 1/m, by its bias
 *            (bias=none: as in the paper). The paper adds values and leaves the weights, which sum
 *            to 1 without the victim's share a already: answers are 1 / (1 - a) too long, little
 *            where a victim is one of few, 3.7 times in a layer that looks everywhere and has lost
 *            73 %. Decides every 64 tokens, not at each step; the coin belongs to (seed, layer,
 *            head, position); where fewer than m follow, the value is cut in as many; protected
 *            slots take nothing in
 */
#include "policy/stages/stages.h"

#include <math.h>

enum { RECENT, NEXT, SEED, BIAS };

static const wn_param params[] = {
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.5, 0, 1, 0, "share of the budget for the last slots" },
    [NEXT] = { "next", WN_PARAM_INT, 16, 1, 64, 0, "slots that a victim's value is handed to" },
    [SEED] = { "seed", WN_PARAM_INT, 1, 0, 1e9, 0, "of the coins" },
    [BIAS] = { "bias", WN_PARAM_WORD, WN_BIAS_LOG, 0, 1, WN_BIAS_WORDS,
               "what a slot that took values in adds to its logit" },
};

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    wn_stage_hitters(v, lane, (int64_t)(p->v[RECENT] * (double)p->lane_slots), out);
}

static int spread(const wn_params *p) { return (int)p->v[NEXT]; }

/* The victims in the order of their positions, and of each the first of the m heirs behind it. */
typedef struct { int32_t *victim, *first; int n; } gone;

/* For how many slots i counts. */
static double weight(const wn_view_lane *l, int i) { return l->bias ? exp((double)l->bias[i]) : 1; }

/* Of slot i, what a query that has seen it has given its key, mean. Sums would say that the old are
 * attended to more than their heirs, and all of them would be handed on. */
static double attention(const wn_view *v, const wn_view_lane *l, const float *mass, int i)
{
    return (double)mass[i] / (wn_view_n_tokens(v) - l->pos[i]) / weight(l, i);
}

/* heirs (n_heirs): slots that may take something in. Victims whose coin says no are left out. */
static void toss(const wn_view *v, const wn_params *p, int lane, const bool *stays,
                 const int32_t *heirs, int n_heirs, gone *g)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *mass = wn_view_stat(v, lane, 0);
    int most = (int)p->v[NEXT], first = 0;
    g->n = 0;
    for (int i = 0; i < l->n; i++) {
        double sum = 0;
        while (first < n_heirs && heirs[first] < i) first++;
        int m = n_heirs - first < most ? n_heirs - first : most;
        if (stays[i] || m == 0) continue;
        for (int k = first; k < first + m; k++) sum += attention(v, l, mass, heirs[k]);
        /* drawn below attention / mean attention: never at 0, always at the mean or above */
        if (!(wn_stage_draw((uint64_t)p->v[SEED], l, l->pos[i]) * (sum / m) <
              attention(v, l, mass, i)))
            continue;
        g->victim[g->n] = i;
        g->first[g->n++] = first;
    }
}

static void recover(const wn_view *v, const wn_params *p, int lane, const bool *stays, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    size_t n = (size_t)l->n;
    int32_t *heirs = wn_view_scratch(v, 4 * n * sizeof *heirs), *src = heirs ? heirs + n : NULL;
    float *wk = wn_view_scratch(v, 2 * n * sizeof *wk), *wv = wk ? wk + n : NULL;
    int n_heirs = 0, most = (int)p->v[NEXT], from = 0;
    bool counts = p->v[BIAS] == WN_BIAS_LOG;
    if (!heirs || !wk) return;
    gone g = { src + n, src + 2 * n, 0 };
    for (int i = 0; i < l->n; i++)
        if (stays[i] && !wn_view_protects(v, l->pos[i])) heirs[n_heirs++] = i;
    toss(v, p, lane, stays, heirs, n_heirs, &g);
    for (int h = 0; h < n_heirs; h++) {
        int m = 1, s = heirs[h];
        double all = weight(l, s);
        src[0] = l->pos[s];
        wk[0] = 1;
        wv[0] = (float)all;
        while (from < g.n && g.first[from] + most <= h) from++;
        for (int k = from; k < g.n && g.first[k] <= h; k++) {
            int shared = n_heirs - g.first[k] < most ? n_heirs - g.first[k] : most;
            src[m] = l->pos[g.victim[k]];
            wk[m] = 0;
            wv[m] = (float)(weight(l, g.victim[k]) / shared);
            all += (double)wv[m++];
        }
        if (m == 1) continue;
        for (int k = 0; k < m && counts; k++) wv[k] = (float)((double)wv[k] / all);
        wn_plan_merge_slots(out, lane, l->pos[s], src, wk, wv, m, counts ? (float)log(all) : 0,
                            wn_stage_count(l, s));
    }
}

const wn_recipe wn_recipe_cam = {
    .name = "cam",
    .family = "merging",
    .source =
        "Zhang et al., \"CaM: Cache Merging for Memory-efficient LLMs Inference\", 2024, section 4",
    .about = "Heavy hitters and recent tokens as in H2O; values of what goes are handed to the "
             "slots behind it, by "
             "chance as its attention says. Where h2o is in use and its prose is not good enough.",
    .differs = "slots count for what they took in, by their bias; decides every 64 tokens; the "
               "coin belongs to the position",
    .cost = "as h2o, and a sum of values per decision",
    .params = params,
    .n_params = 4,
    .budget = "20%",
    .first = 4,
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .stats = wn_stage_ask_sums,
    .score = score,
    .recover = recover,
    .spread = spread,
};
