/* policy/recipes/h2o.c - heavy hitters and recent tokens.
 *
 * Source     Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of
 *            Large Language Models", 2023, section 4.2, algorithm 1
 * When       every 64 tokens           Observes  all queries, summed   Resume  record
 * Retains    the last `recent` share of the budget, and of the others those with the most
 *            attention so far
 * Differs    decides every 64 tokens, not at each step; heads of a group are averaged
 *            (the paper is older than grouped queries). Sums favour the start of a text,
 *            which more queries have seen; norm=seen divides by their number
 */
#include "policy/stages/stages.h"

enum { RECENT, NORM };

static const wn_param params[] = {
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.5, 0, 1, 0, "share of the budget for the last slots" },
    [NORM] = { "norm", WN_PARAM_WORD, 0, 0, 1, "none|seen",
               "divide by how many queries have seen a slot" },
};

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *mass = wn_view_stat(v, lane, 0);
    for (int i = 0; i < l->n; i++)
        out[i] = p->v[NORM] > 0 ? mass[i] / (float)(wn_view_n_tokens(v) - l->pos[i]) : mass[i];
    wn_stage_keep_recent(v, lane, (int64_t)(p->v[RECENT] * (double)p->lane_slots), out);
}

const wn_recipe wn_recipe_h2o = {
    .name = "h2o",
    .family = "attention",
    .source = "Zhang et al., \"H2O: Heavy-Hitter Oracle for Efficient Generative Inference of "
              "Large Language Models\", "
              "2023, algorithm 1",
    .about = "Keeps what has been attended to most since it came in, and the recent tokens. For "
             "prose that stays with "
             "its subject; a fact that nothing looked at before it is asked for is gone.",
    .differs = "decides every 64 tokens; heads of a group are averaged",
    .cost = "the weights of every query added up: about 1 % of a step, more of a prompt",
    .params = params,
    .n_params = 2,
    .budget = "20%",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .stats = wn_stage_ask_sums,
    .score = score,
};
