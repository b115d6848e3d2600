/* policy/recipes/adakv.c - votes as in SnapKV, budgets by head.
 *
 * Source     Feng et al., "Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget
 *            Allocation", 2024, algorithm 1 and section 4.3
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries                         Resume  window
 * Allocates  over the heads of a layer: as many slots as a head has among the layer's best,
 *            mixed with the uniform share `floor`
 * Retains    the window, and per head the best of its budget
 * Differs    nothing known; the defaults are those of its scripts
 */
#include "policy/stages/stages.h"

enum { WINDOW, KERNEL, POOL, FLOOR };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 32, 1, 64, 0, "last queries that vote, and always stay" },
    [KERNEL] = { "kernel", WN_PARAM_INT, 7, 1, 63, 0, "slots over which votes are pooled (odd)" },
    [POOL] = { "pool", WN_PARAM_WORD, WN_POOL_MAX, 0, 1, WN_POOL_WORDS, "how they are pooled" },
    [FLOOR] = { "floor", WN_PARAM_FLOAT, 0.2, 0, 1, 0, "share of the budget that is split evenly" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    wn_stage_votes(v, lane, &(wn_votes){ (int)p->v[KERNEL], (int)p->v[POOL], WN_REDUCE_MEAN }, out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    wn_alloc_ada(v, p->v[FLOOR], scores, keep);
}

const wn_recipe wn_recipe_adakv = {
    .name = "adakv",
    .family = "attention",
    .source = "Feng et al., \"Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget "
              "Allocation\", 2024, algorithm 1",
    .about = "SnapKV's votes, compared over all heads of a layer: concentrated heads give slots to "
             "dispersed ones. "
             "Wherever snapkv fits, at the same cost and with fewer losses: the first choice when "
             "the question is in "
             "the prompt.",
    .cost = "attention of the last 32 queries, once per decision",
    .params = params,
    .n_params = 4,
    .budget = "2048",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .score = score,
    .allocate = allocate,
};
