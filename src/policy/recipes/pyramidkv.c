/* policy/recipes/pyramidkv.c - votes as in SnapKV, budgets that fall with depth.
 *
 * Source     Cai et al., "PyramidKV: Dynamic KV Cache Compression based on Pyramidal
 *            Information Funneling", 2024, section 4.2
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries                         Resume  window
 * Allocates  prefix slots fall linearly from the first layer to the last, which gets 1/beta
 *            of the mean
 * Retains    the window, and per head the best of its budget
 * Differs    remainders are dealt out, so that the total is kept (the code's integer steps
 *            gain up to 5 %); short texts tilt the line less, where the code changes to equal
 *            budgets below twice the mean
 */
#include "policy/stages/stages.h"

enum { WINDOW, KERNEL, POOL, BETA };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 32, 1, 64, 0, "last queries that vote, and always stay" },
    [KERNEL] = { "kernel", WN_PARAM_INT, 5, 1, 63, 0, "slots over which votes are pooled (odd)" },
    [POOL] = { "pool", WN_PARAM_WORD, WN_POOL_AVG, 0, 1, WN_POOL_WORDS, "how they are pooled" },
    [BETA] = { "beta", WN_PARAM_FLOAT, 20, 1, 1e6, 0, "mean over smallest budget of a layer" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    wn_stage_votes(v, lane, &(wn_votes){ (int)p->v[KERNEL], (int)p->v[POOL], WN_REDUCE_MEAN }, out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)scores;
    wn_alloc_pyramid(v, p->v[BETA], (int)p->v[WINDOW], 1, keep);
}

const wn_recipe wn_recipe_pyramidkv = {
    .name = "pyramidkv",
    .family = "attention",
    .source = "Cai et al., \"PyramidKV: Dynamic KV Cache Compression based on Pyramidal "
              "Information Funneling\", "
              "2024, section 4.2",
    .about = "SnapKV's votes with more slots for the first layers than for the last. For models "
             "whose first layers "
             "look farthest; where the layers that fetch are the last ones (winnow profile says) "
             "it is worse than "
             "snapkv.",
    .differs = "the total is exactly the budget",
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
