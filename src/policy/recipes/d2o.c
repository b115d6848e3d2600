/* policy/recipes/d2o.c - heavy hitters, layers by their density, and victims merged.
 *
 * Source     Wan et al., "D2O: Dynamic Discriminative Operations for Efficient Long-Context
 *            Inference of Large Language Models", 2024, sections 3.2 and 3.3
 * When       every 64 tokens           Observes  all queries, summed   Resume  record
 * Allocates  layers by softmax(-variance) of their summed attention: flat layers get more
 * Retains    4 sinks, heavy hitters, a recent half
 * Recovers   a victim joins the survivor whose key is most like its own when their cosine is
 *            at least the mean of all victims' (the threshold of one decision; the paper's
 *            moving average starts there), weighted by e^cos against e for the survivor
 * Differs    per lane, not per layer; decides every 64 tokens; a merged slot of c tokens gets
 *            the bias ln c (bias=none: as in the paper); layers 0, 1 and the last are
 *            kept whole only with whole=1
 */
#include "policy/stages/stages.h"

enum { RECENT, BIAS, WHOLE };

static const wn_param params[] = {
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.5, 0, 1, 0, "share of the budget for the last slots" },
    [BIAS] = { "bias", WN_PARAM_WORD, 0, 0, 1, "log|none", "what a merged slot adds to its logit" },
    [WHOLE] = { "whole", WN_PARAM_INT, 0, 0, 1, 0,
                "keep layers 0, 1 and the last whole (inside the budget)" },
};

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    wn_stage_hitters(v, lane, (int64_t)(p->v[RECENT] * (double)p->lane_slots), out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)scores;
    wn_alloc_density(v, p->v[WHOLE] > 0, keep);
}

static void recover(const wn_view *v, const wn_params *p, int lane, const bool *stays, wn_plan *out)
{
    wn_recover_nearest(v, lane, stays, p->v[BIAS] > 0 ? WN_BIAS_NONE : WN_BIAS_LOG, out);
}

const wn_recipe wn_recipe_d2o = {
    .name = "d2o",
    .family = "merging",
    .source = "Wan et al., \"D2O: Dynamic Discriminative Operations for Efficient Long-Context "
              "Inference of Large "
              "Language Models\", 2024, sections 3.2 and 3.3",
    .about = "Heavy hitters and recent tokens as in H2O, more slots for flat layers, and victims "
             "merged into "
             "survivors with similar keys. Where h2o loses too much prose; merged slots answer no "
             "questions.",
    .differs = "per lane; one threshold per decision; merged slots count for their tokens",
    .cost = "as h2o, a cosine of each victim with each survivor, and merged slots in pages of "
            "their own: up to 5 % of a step",
    .params = params,
    .n_params = 3,
    .budget = "20%",
    .first = 4,
    .reads = "keys",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .stats = wn_stage_ask_sums,
    .score = score,
    .allocate = allocate,
    .recover = recover,
};
