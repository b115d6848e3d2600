/* policy/recipes/dynamickv.c - all slots of all layers compete; a layer's wins are its budget.
 *
 * Source     Zhou et al., "DynamicKV: Task-Aware Adaptive KV Cache Compression for Long Context
 *            LLMs", 2024, algorithm 1
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries                         Resume  window
 * Allocates  beside the window, layers by how many of the best scores of all layers they have, at
 *            most `most` times the mean; the lanes of a layer alike
 * Retains    the window, and per head the best of its budget
 * Differs    all layers at once, where the paper revises its budgets every few layers of the
 *            prefill; heads of a group are averaged
 */
#include "policy/policy.h"
#include "policy/stages/stages.h"

#include <math.h>

enum { WINDOW, KERNEL, POOL, MOST };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 8, 1, 64, 0, "last queries that vote, and always stay" },
    [KERNEL] = { "kernel", WN_PARAM_INT, 7, 1, 63, 0, "slots over which votes are pooled (odd)" },
    [POOL] = { "pool", WN_PARAM_WORD, WN_POOL_MAX, 0, 1, WN_POOL_WORDS, "how they are pooled" },
    [MOST] = { "most", WN_PARAM_FLOAT, 10, 1, 1e6, 0, "slots of a layer over the mean, at most" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    wn_stage_votes(v, lane, &(wn_votes){ (int)p->v[KERNEL], (int)p->v[POOL], WN_REDUCE_MEAN }, out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    int n = wn_view_n_lanes(v), live = 0, w = (int)p->v[WINDOW];
    double *weight = wn_view_scratch(v, sizeof *weight * (size_t)n);
    int64_t *cap = wn_view_scratch(v, sizeof *cap * (size_t)n),
            *wins = wn_view_scratch(v, sizeof *wins * (size_t)n);
    if (!weight || !cap || !wins) return;
    for (int i = 0; i < n; i++) live += wn_view_get_lane(v, i)->n > 0;
    if (!live) return;
    double mean = (double)wn_view_budget(v) / live;
    /* the window's slots are among them */
    wn_alloc_best(v, 0, n, scores, wn_view_budget(v), wins);
    for (int layer = 0; layer < wn_view_n_layers(v); layer++) {
        int from, to;
        double sum = 0;
        wn_view_layer(v, layer, &from, &to);
        for (int l = from; l < to; l++) sum += (double)wins[l];
        for (int l = from; l < to; l++) {
            int slots = wn_view_get_lane(v, l)->n;
            weight[l] = slots ? fmax(sum / (to - from), fmin(mean, w)) + 1e-9 : 0;
            cap[l] = slots < p->v[MOST] * mean ? slots : (int64_t)ceil(p->v[MOST] * mean);
        }
    }
    wn_stage_split(wn_view_budget(v), weight, cap, n, keep);
}

const wn_recipe wn_recipe_dynamickv = {
    .name = "dynamickv",
    .family = "attention",
    .source = "Zhou et al., \"DynamicKV: Task-Aware Adaptive KV Cache Compression for Long Context "
              "LLMs\", 2024, algorithm 1",
    .about = "SnapKV's votes, compared over all layers: a layer gets as much as it has among the "
             "best. For prompts "
             "with the question at the end when a few layers do the fetching.",
    .differs = "all layers at once; a group's heads are averaged",
    .cost = "attention of the last 8 queries, once per decision",
    .params = params,
    .n_params = 4,
    .budget = "512",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .score = score,
    .allocate = allocate,
};
