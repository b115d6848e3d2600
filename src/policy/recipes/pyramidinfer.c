/* policy/recipes/pyramidinfer.c - the recent queries choose, later ones with more weight; deeper
 * layers keep less.
 *
 * Source     Yang et al., "PyramidInfer: Pyramid KV Cache Compression for High-throughput LLM
 *            Inference", 2024, section 3.3
 * When       every 64 tokens          Observes  the last `window` queries; keys      Resume  window
 * Score      sum over those queries of a ramp from 1 to `ramp` times their attention, mean over all
 *            heads of a layer: its lanes keep the same positions
 * Allocates  each layer `decay` times the one before
 * Retains    `first` sinks, the last `recent` share of the budget, and the best
 * Differs    its form while tokens are generated: rows are not dropped inside the prefill, so that
 *            deeper layers may choose others than the ones above. The last 64 queries stand for the
 *            last 20 %
 */
#include "policy/stages/stages.h"

#include <string.h>

enum { WINDOW, RECENT, RAMP, DECAY };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 64, 1, 64, 0, "last queries that are looked at" },
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.2, 0, 1, 0, "share of the budget for the last slots" },
    [RAMP] = { "ramp", WN_PARAM_FLOAT, 1.2, 0.01, 100, 0,
               "weight of the last query over that of the oldest" },
    [DECAY] = { "decay", WN_PARAM_FLOAT, 0.9, 0.1, 1, 0,
                "slots of a layer over those of the one before" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

typedef struct { float *sum; double ramp; int heads; } tally;

static void add(void *ctx, const wn_tile *t)
{
    const tally *y = ctx;
    for (int q = 0; q < t->w; q++) {
        float weight = (float)((1 + (y->ramp - 1) * (t->w > 1 ? (double)q / (t->w - 1) : 1)) /
                               y->heads);
        for (int i = 0; i < t->n; i++)
            y->sum[t->from + i] += weight * t->a[(size_t)q * t->stride + (size_t)i];
    }
}

/* Lanes of a layer hold the same slots, unless they were made to part: then each speaks for
 * itself. */
static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int from = lane, to = lane + 1;
    if (wn_stage_same_slots(v, lane)) wn_view_layer(v, l->layer, &from, &to);
    memset(out, 0, sizeof *out * (size_t)l->n);
    for (int k = from; k < to; k++)
        wn_stage_window_tiles(v, k, NULL, 1, add,
                              &(tally){ out, p->v[RAMP], l->group * (to - from) });
    wn_stage_keep_recent(v, lane, (int64_t)(p->v[RECENT] * (double)p->lane_slots), out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)scores;
    wn_alloc_decay(v, p->v[DECAY], keep);
}

const wn_recipe wn_recipe_pyramidinfer = {
    .name = "pyramidinfer",
    .family = "attention",
    .source = "Yang et al., \"PyramidInfer: Pyramid KV Cache Compression for High-throughput LLM "
              "Inference\", 2024, "
              "section 3.3",
    .about = "The last queries choose, later ones with more weight, one list per layer; deeper "
             "layers keep less. As "
             "pyramidkv: for models whose first layers look farthest.",
    .differs =
        "drops slots of the cache only, no rows of the prefill; looks at the last 64 queries",
    .cost =
        "two passes of scores for the last 64 queries, for each lane of a layer, once per decision",
    .params = params,
    .n_params = 4,
    .budget = "50%",
    .first = 4,
    .reads = "keys",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .every = 64,
    .window = window,
    .score = score,
    .allocate = allocate,
};
