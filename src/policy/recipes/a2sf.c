/* policy/recipes/a2sf.c - heavy hitters that are forgotten.
 *
 * Source     Jo and Shin, "A2SF: Accumulative Attention Scoring with Forgetting Factor for Token
 *            Pruning in Transformer Decoder", 2024, section 3
 * When       every 64 tokens         Observes  all queries, summed with forgetting   Resume  record
 * Score      s <- alpha s + a at each query: old slots lose the advantage of having been seen
 *            by more queries; alpha=1 is h2o, alpha near 0 asks the last query alone
 * Retains    the last `recent` share of the budget, and the best of the others
 * Differs    decides every 64 tokens, not at each step; the paper tunes alpha by model and
 *            task, the default is one of its range
 */
#include "policy/stages/stages.h"

enum { ALPHA, RECENT };

static const wn_param params[] = {
    [ALPHA] = { "alpha", WN_PARAM_FLOAT, 0.5, 1e-3, 1, 0,
                "what is left of a sum at the next query" },
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.5, 0, 1, 0, "share of the budget for the last slots" },
};

static int stats(const wn_params *p, wn_stat *out)
{
    out[0] = (wn_stat){ .kind = WN_STAT_SUM, .reduce = WN_REDUCE_SUM, .decay = (float)p->v[ALPHA] };
    return 1;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    wn_stage_hitters(v, lane, (int64_t)(p->v[RECENT] * (double)p->lane_slots), out);
}

const wn_recipe wn_recipe_a2sf = {
    .name = "a2sf",
    .family = "attention",
    .source = "Jo and Shin, \"A2SF: Accumulative Attention Scoring with Forgetting Factor for "
              "Token Pruning in "
              "Transformer Decoder\", 2024, section 3",
    .about = "As h2o, but sums fade: what was attended to long ago counts little. Where h2o is "
             "held back by its "
             "oldest slots: long texts that change their subject.",
    .differs = "decides every 64 tokens; alpha is not tuned by task",
    .cost = "the weights of every query added up, in prompts and in steps",
    .params = params,
    .n_params = 2,
    .budget = "20%",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .stats = stats,
    .score = score,
};
