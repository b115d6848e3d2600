/* policy/recipes/mpcache.c - what the last queries hardly look at, goes; a threshold instead of a
 * budget.
 *
 * Source     Zeng et al., "MPCache: MPC-Friendly KV Cache Eviction for Efficient Private Large
 *            Language Model Inference", 2025, section 4.1 (its static part)
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries                         Resume  window
 * Retains    slots whose mean attention over those queries and the heads of the layer reaches
 *            `threshold` even shares; lanes of a layer keep the same
 * Differs    the last 64 queries, not the last 20 %; attention is scaled and causal, which the
 *            released code leaves out, and the threshold counts in even shares of what there is:
 *            its absolute ones are meaningless then
 */
#include "policy/stages/stages.h"

enum { WINDOW, THRESHOLD };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 64, 1, 64, 0,
                 "last queries that are looked at, and always stay" },
    [THRESHOLD] = { "threshold", WN_PARAM_FLOAT, 0.1, 0, 1e6, 0,
                    "attention that is enough, in even shares" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

static void mean_row(const wn_view *v, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int w;
    wn_stage_reduce(out, wn_view_window(v, lane, &w), l->group, l->n, WN_REDUCE_MEAN);
    for (int i = 0; i < l->n; i++) out[i] *= (float)l->n / (float)w;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    wn_stage_layer_mean(v, lane, mean_row, out);
    wn_stage_keep_recent(v, lane, (int64_t)p->v[WINDOW], out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    wn_alloc_above(v, (float)p->v[THRESHOLD], scores, keep);
}

const wn_recipe wn_recipe_mpcache = {
    .name = "mpcache",
    .family = "attention",
    .source = "Zeng et al., \"MPCache: MPC-Friendly KV Cache Eviction for Efficient Private Large "
              "Language Model Inference\", "
              "2025, section 4.1",
    .about = "Drops what the last queries give less than a tenth of an even share: as much as the "
             "text allows. When "
             "losses matter more than a size that is known before.",
    .differs = "the threshold counts in even shares; @ is a ceiling",
    .cost = "attention of the last 64 queries, once per decision",
    .params = params,
    .n_params = 2,
    .kind = WN_CLASS_BUDGET_FREE,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .score = score,
    .allocate = allocate,
};
