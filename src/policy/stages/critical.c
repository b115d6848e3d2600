/* policy/stages/critical.c - what stays by attention first, then by what it can change.
 *
 * A slot is worth its attention times what its value does to the layer's answer. Attention that is
 * guessed from few queries must not be trusted too far, so a part of the budget goes by the
 * recipe's scores alone, and the rest by (s + eps) |W_O v|, the sum of magnitudes.
 */
#include "policy/policy.h"
#include "policy/stages/stages.h"

#include <float.h>
#include <math.h>

void wn_retain_critical(const wn_view *v, int lane, int window, double share, const float *score,
                        int64_t keep, const bool *skip, bool *stays)
{
    static const double eps = 1e-4;
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *change = wn_view_outputs(v, lane);
    float *key = wn_view_scratch(v, sizeof *key * (size_t)l->n);
    if (!change || !key ||
        !wn_stage_choose(v, lane, score, (int64_t)(share * (double)keep), skip, stays))
        return;
    for (int i = 0; i < l->n; i++) {
        double s = score[i] > 0 ? (double)score[i] / (window > 0 ? window : 1) : 0;
        key[i] = stays[i]                  ? INFINITY
                 : score[i] >= FLT_MAX / 4 ? score[i]
                                           : (float)((s + eps) * (double)change[i]);
    }
    wn_stage_choose(v, lane, key, keep, skip, stays);
}

/* ---- +retain:critical -------------------------------------------------------------------- */

static const wn_param params[] = {
    { "share", WN_PARAM_FLOAT, 0.5, 0, 1, 0, "of the budget that goes by the scores alone" },
};

static void critical(const wn_view *v, const wn_params *p, int lane, const float *score,
                     int64_t keep, const bool *skip, bool *stays)
{
    wn_retain_critical(v, lane, p->window, p->v[0], score, keep, skip, stays);
}

const wn_stage wn_stage_retain_critical = {
    .kind = WN_STAGE_RETAIN,
    .name = "critical",
    .source = "Feng et al., \"Identify Critical KV Cache in LLM Inference from an Output "
              "Perturbation Perspective\", 2025, "
              "algorithm 1",
    .about = "Half of the budget by the recipe's scores, the rest by scores times what the value "
             "can change in the layer's "
             "answer. For recipes whose scores are attention: one below 0 counts as 0.",
    .differs = "scores of a window count as its mean; slots that the recipe keeps in any case are "
               "paid for first",
    .params = params,
    .n_params = 1,
    .wants = WN_WANTS_OUTPUTS,
    .retain = critical,
};
