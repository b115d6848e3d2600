/* policy/recipes/roco.c - mean attention, but not of slots whose attention varies.
 *
 * Source     Ren and Zhu, "On the Efficacy of Eviction Policy for Key-Value Constrained
 *            Generative Language Model Inference", 2024, section 4 (RoCo)
 * When       every 64 tokens      Observes  all queries, summed, and their squares   Resume  record
 * Score      mean attention over the queries that have seen a slot
 * Retains    first the `spared` share of the budget with the largest standard deviation of
 *            attention (they may matter again), then the largest means
 * Differs    decides every 64 tokens, not at each step; heads of a group are averaged. The
 *            youngest slots need no window: few queries, large deviations
 */
#include "policy/stages/stages.h"

#include <math.h>

enum { SPARED, RECENT };

static const wn_param params[] = {
    [SPARED] = { "spared", WN_PARAM_FLOAT, 0.3, 0, 1, 0,
                 "share of the budget for slots whose attention varies most" },
    [RECENT] = { "recent", WN_PARAM_INT, 10, 0, 1 << 20, 0,
                 "last slots, whose deviation means nothing yet" },
};

static int stats(const wn_params *p, wn_stat *out)
{
    (void)p;
    out[0] = (wn_stat){ .kind = WN_STAT_SUM };
    out[1] = (wn_stat){ .kind = WN_STAT_SQUARES };
    return 2;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *sum = wn_view_stat(v, lane, 0), *squares = wn_view_stat(v, lane, 1);
    float *deviation = wn_view_scratch(v, sizeof *deviation * (size_t)l->n);
    bool *spared = wn_view_scratch(v, sizeof *spared * (size_t)l->n);
    if (!deviation || !spared) return;
    for (int i = 0; i < l->n; i++) {
        float seen = (float)(wn_view_n_tokens(v) - l->pos[i]), mean = sum[i] / seen;
        out[i] = mean;
        deviation[i] = sqrtf(fmaxf(squares[i] / seen - mean * mean, 0));
    }
    wn_stage_best(v, deviation, l->n, (int64_t)(p->v[SPARED] * (double)p->lane_slots), spared);
    for (int i = 0; i < l->n; i++) out[i] += spared[i] ? 1 : 0;         /* a mean is below 1 */
    wn_stage_keep_recent(v, lane, (int64_t)p->v[RECENT], out);
}

const wn_recipe wn_recipe_roco = {
    .name = "roco",
    .family = "attention",
    .source = "Ren and Zhu, \"On the Efficacy of Eviction Policy for Key-Value Constrained "
              "Generative Language Model "
              "Inference\", 2024, section 4",
    .about = "Keeps the largest mean attention, and slots whose attention varies much whatever "
             "their mean. Where h2o "
             "favours the old too much: means do not grow with age.",
    .differs = "decides every 64 tokens; heads of a group are averaged",
    .cost = "the weights of every query and their squares added up, in prompts and in steps",
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
