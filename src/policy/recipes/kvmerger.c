/* policy/recipes/kvmerger.c - runs of neighbours with similar keys become one slot each; there is
 * no budget.
 *
 * Source     Wang et al., "Model Tells You Where to Merge: Adaptive KV Cache Merging for LLMs on
 *            Long-Context Tasks", 2024, sections 4.2 and 4.3
 * When       at marks (the paper), or at boundaries
 * Observes   all queries, summed; keys                         Resume  record
 * Retains    the last `recent` share of the text, the `heavy` share with the most attention, and of
 *            each run of slots whose keys have a cosine above `eps` with the next one that with the
 *            most attention: the pivot
 * Recovers   the others of a run join its pivot, weighted by exp(-|kp - k|^2 / 2 sigma^2) and their
 *            tokens
 * Differs    a merged slot of c tokens gets the bias ln c, in place of values times c; sigma is a
 *            number (the paper's own formula for it is circular). With @ lanes come down to that in
 *            proportion, whole runs with the least attention at the pivot first
 */
#include "policy/stages/stages.h"

#include <math.h>

enum { EPS, SIGMA, RECENT, HEAVY };

static const wn_param params[] = {
    [EPS] = { "eps", WN_PARAM_FLOAT, 0.75, -1, 2, 0,
              "cosine above which neighbours belong together; above 1: none do" },
    [SIGMA] = { "sigma", WN_PARAM_FLOAT, 5, 1e-3, 1e6, 0,
                "distance of keys over which weights fall" },
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.17, 0, 1, 0,
                 "share of the text at its end that is left alone" },
    [HEAVY] = { "heavy", WN_PARAM_FLOAT, 0.12, 0, 1, 0,
                "share of the text with the most attention that is, too" },
};

/* pivot[i]: of slot i's run, itself where it stands alone. x: 2 for what is left alone, 1 for
 * pivots, 0 for the others, and what the slot's attention makes of it. */
static bool find_runs(const wn_view *v, const wn_params *p, int lane, int32_t *pivot, float *x)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *mass = wn_view_stat(v, lane, 0);
    int n = wn_view_n_tokens(v), recent = wn_stage_slot_at(l, n - (int)(p->v[RECENT] * n));
    float *like = wn_view_scratch(v, sizeof *like * (size_t)l->n);
    bool *alone = wn_view_scratch(v, (size_t)l->n);
    if (!like || !alone) return false;
    wn_stage_best(v, mass, recent, (int64_t)(p->v[HEAVY] * n), alone);
    wn_stage_next_cosines(like, wn_view_keys(v, lane), l->n, l->k_dim);
    for (int i = 0; i < l->n; i++)
        alone[i] = i >= recent || alone[i] || wn_view_protects(v, l->pos[i]);
    for (int from = 0, to; from < l->n; from = to) {
        int best = from;
        for (to = from + 1;
             to < l->n && !alone[from] && !alone[to] && (double)like[to - 1] > p->v[EPS]; to++)
            if (mass[to] > mass[best]) best = to;
        for (int i = from; i < to; i++) {
            pivot[i] = best;
            x[i] = (alone[i]    ? 2.0f
                    : i == best ? 1.0f
                                : 0.0f) +
                   fminf(mass[i] / (1 + mass[i]), 0.999f);
        }
    }
    return true;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    int n = wn_view_n_tokens(v);
    int32_t *pivot = wn_view_scratch(v, sizeof *pivot * (size_t)wn_view_get_lane(v, lane)->n);
    if (!pivot || !find_runs(v, p, lane, pivot, out)) return;
    wn_stage_keep_recent(v, lane, (int64_t)(p->v[RECENT] * n), out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)p;
    wn_alloc_above(v, 1, scores, keep);
}

static void recover(const wn_view *v, const wn_params *p, int lane, const bool *stays, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int32_t *into = wn_view_scratch(v, sizeof *into * (size_t)l->n);
    float *w = wn_view_scratch(v, sizeof *w * (size_t)l->n);
    if (!into || !w || !find_runs(v, p, lane, into, w)) return;
    const float *k = wn_view_keys(v, lane);
    size_t dim = (size_t)l->k_dim;
    for (int i = 0; i < l->n; i++) {
        const float *a = k + (size_t)i * dim, *b = k + (size_t)into[i] * dim;
        double far = 0;
        for (size_t d = 0; d < dim; d++) far += (double)(a[d] - b[d]) * (double)(a[d] - b[d]);
        w[i] = (float)(wn_stage_count(l, i) * exp(-far / (2 * p->v[SIGMA] * p->v[SIGMA])));
    }
    for (int i = 0; i < l->n; i++)
        if (stays[i] || !stays[into[i]]) into[i] = -1;
    wn_stage_shares(v, lane, into, w);
    wn_stage_gather(v, lane, into, w, w, 1, out);
}

const wn_recipe wn_recipe_kvmerger = {
    .name = "kvmerger",
    .family = "merging",
    .source = "Wang et al., \"Model Tells You Where to Merge: Adaptive KV Cache Merging for LLMs "
              "on Long-Context Tasks\", "
              "2024, sections 4.2 and 4.3",
    .about = "Neighbours with similar keys become one slot; heavy hitters and recent tokens are "
             "left alone. As many "
             "slots as that leaves: nearly nothing is lost, and half is not always saved. For "
             "texts that repeat "
             "themselves.",
    .differs = "merged slots count for their tokens by their bias; @ is a ceiling",
    .cost = "the weights of every query added up, and O(slots x head size) per decision",
    .params = params,
    .n_params = 4,
    .reads = "keys",
    .kind = WN_CLASS_BUDGET_FREE,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .stats = wn_stage_ask_sums,
    .score = score,
    .allocate = allocate,
    .recover = recover,
};
