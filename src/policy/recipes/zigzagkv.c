/* policy/recipes/zigzagkv.c - layers get budgets by how many slots they need.
 *
 * Source     Zhong et al., "ZigZagKV: Dynamic KV Cache Compression for Long-context Modeling based
 *            on Layer Uncertainty", 2024, equation 6
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries                         Resume  window
 * Allocates  `floor` of the budget evenly, the rest by need: how few of a head's slots hold `mass`
 *            of its attention to what is before the window, mean over the heads of a layer
 * Retains    the window, and per head the best of its budget (votes as in SnapKV)
 * Differs    heads of a group are averaged before pooling, as everywhere here
 */
#include "policy/stages/stages.h"

enum { WINDOW, KERNEL, POOL, MASS, FLOOR };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 32, 1, 64, 0, "last queries that vote, and always stay" },
    [KERNEL] = { "kernel", WN_PARAM_INT, 5, 1, 63, 0, "slots over which votes are pooled (odd)" },
    [POOL] = { "pool", WN_PARAM_WORD, WN_POOL_AVG, 0, 1, WN_POOL_WORDS, "how they are pooled" },
    [MASS] = { "mass", WN_PARAM_FLOAT, 0.9, 0.01, 1, 0,
               "share of a head's attention that its need holds" },
    [FLOOR] = { "floor", WN_PARAM_FLOAT, 0.2, 0, 1, 0, "share of the budget that is split evenly" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    wn_stage_votes(v, lane, &(wn_votes){ (int)p->v[KERNEL], (int)p->v[POOL], WN_REDUCE_MEAN }, out);
}

static double need_of_layer(const wn_view *v, const wn_params *p, int layer)
{
    int from, to, heads = 0;
    double sum = 0;
    wn_view_layer(v, layer, &from, &to);
    for (int l = from; l < to; l++) {
        const wn_view_lane *lane = wn_view_get_lane(v, l);
        int w, n = wn_stage_slot_at(lane, wn_view_n_tokens(v) - (int)p->v[WINDOW]);
        const float *a = n ? wn_view_window(v, l, &w) : NULL;
        for (int h = 0; a && h < lane->group; h++, heads++)
            sum += wn_stage_need(a + (size_t)h * (size_t)lane->n, n, p->v[MASS]);
    }
    return heads ? sum / heads : 0;
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)scores;
    int L = wn_view_n_layers(v), live = 0;
    double *weight = wn_view_scratch(v, sizeof *weight * (size_t)L), sum = 0;
    if (!weight) return;
    for (int i = 0; i < L; i++) sum += weight[i] = need_of_layer(v, p, i), live += weight[i] > 0;
    for (int i = 0; i < L; i++)  /* B_min + (B - B_min) L need / sum of needs */
        weight[i] = weight[i] > 0 ? p->v[FLOOR] + (1 - p->v[FLOOR]) * live * weight[i] / sum : 0;
    wn_alloc_layers(v, weight, 0, keep);
}

const wn_recipe wn_recipe_zigzagkv = {
    .name = "zigzagkv",
    .family = "attention",
    .source = "Zhong et al., \"ZigZagKV: Dynamic KV Cache Compression for Long-context Modeling "
              "based on Layer "
              "Uncertainty\", 2024, equation 6",
    .about = "SnapKV's votes; layers that need many slots to hold most of their attention get "
             "more. For models where "
             "some layers look everywhere: those get the slots, and layers that fetch single facts "
             "may lack them.",
    .differs = "a group's heads are averaged before pooling",
    .cost = "attention of the last 32 queries, once per decision",
    .params = params,
    .n_params = 5,
    .budget = "2048",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .score = score,
    .allocate = allocate,
};
