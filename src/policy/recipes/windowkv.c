/* policy/recipes/windowkv.c - whole windows of the text stay, the same ones in neighbouring layers.
 *
 * Source     Zuo et al., "WindowKV: Task-Adaptive Group-Wise KV Cache Window Selection for
 *            Efficient LLM Inference", 2025
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries                         Resume  window
 * Score      of `unit` neighbouring positions the mean of their attention (mode=aggregate: tasks
 *            that need the whole text), or the mean of the better half (localise: tasks that look
 *            for a place in it), mean over the heads of a layer; of `layers` neighbouring layers
 *            the first one's, for all of them
 * Allocates  beside the window, groups of layers fall linearly to 1/beta of the mean
 * Retains    the window, up to where a unit begins, and the best units that fit
 * Differs    the caller says what the task is, where the paper asks a classifier; a budget is not
 *            filled up with parts of a unit; layers that hold other slots than the first of their
 *            group choose for themselves
 */
#include "policy/stages/stages.h"

enum { WINDOW, UNIT, MODE, LAYERS, BETA };
enum { AGGREGATE, LOCALISE };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 32, 1, 64, 0,
                 "last queries that are looked at, and always stay" },
    [UNIT] = { "unit", WN_PARAM_INT, 8, 1, 4096, 0,
               "neighbouring positions that stay or go together" },
    [MODE] = { "mode", WN_PARAM_WORD, AGGREGATE, 0, 1, "aggregate|localise",
               "score of a unit: its mean, or that of its better half" },
    [LAYERS] = { "layers", WN_PARAM_INT, 4, 1, 1024, 0, "neighbouring layers that keep the same" },
    [BETA] = { "beta", WN_PARAM_FLOAT, 14, 1, 1e6, 0, "mean over smallest budget of a layer" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

/* A lane of the first layer of this one's group that holds the same slots. */
static int who_chooses(const wn_view *v, int lane, int layers)
{
    int own = wn_view_get_lane(v, lane)->layer, from, to;
    for (int layer = own / layers * layers; layer < own; layer++) {
        wn_view_layer(v, layer, &from, &to);
        if (from < to && wn_stage_alike(v, from, lane)) return from;
    }
    return lane;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int unit = (int)p->v[UNIT], before = wn_view_n_tokens(v) - (int)p->v[WINDOW];
    bool *best = wn_view_scratch(v, sizeof *best * (size_t)l->n);
    if (!best) return;
    wn_stage_layer_mean(v, who_chooses(v, lane, (int)p->v[LAYERS]), wn_stage_row, out);
    for (int from = 0, to; from < l->n; from = to) {
        to = wn_stage_unit_end(l, from, unit);
        int m = p->v[MODE] > AGGREGATE ? (to - from + 1) / 2 : to - from;
        double sum = 0;
        wn_stage_best(v, out + from, to - from, m, best);
        for (int i = from; i < to; i++) sum += best[i - from] ? (double)out[i] : 0;
        for (int i = from; i < to; i++) out[i] = (float)(sum / m);
    }
    wn_stage_keep_recent(v, lane, wn_view_n_tokens(v) - (before > 0 ? before / unit * unit : 0),
                         out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    int layers = (int)p->v[LAYERS];
    wn_alloc_pyramid(v, p->v[BETA], (int)p->v[WINDOW], layers, keep);
    wn_alloc_alike(v, layers, keep);
    wn_alloc_round(v, scores, keep);
}

const wn_recipe wn_recipe_windowkv = {
    .name = "windowkv",
    .family = "attention",
    .source = "Zuo et al., \"WindowKV: Task-Adaptive Group-Wise KV Cache Window Selection for "
              "Efficient LLM Inference\", "
              "2025",
    .about = "Keeps whole windows of the text, so that what stays can be read; neighbouring layers "
             "keep the same "
             "ones. For questions at the end whose answers are passages; mode=localise for a "
             "single place. Where the "
             "first layer looks everywhere, layers=1.",
    .differs = "the task is a parameter (no classifier); the budget is not filled up with parts of "
               "windows",
    .cost = "attention of the last 32 queries, once per decision",
    .params = params,
    .n_params = 5,
    .budget = "20%",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .score = score,
    .allocate = allocate,
};
