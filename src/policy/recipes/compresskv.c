/* policy/recipes/compresskv.c - the heads of a layer that fetch best choose for all.
 *
 * Source     "CompressKV: Semantic Retrieval Heads Know What Tokens are Not Important Before
 *            Generation", 2025, sections 3.2 and 3.3
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries; the model's profile         Resume  window
 * Score      attention of the layer's `heads` query heads that look most at the whole sentence of a
 *            needle, mean, pooled: one list per layer
 * Allocates  `least` to each layer, the rest by what a layer loses when it streams, at most 3 times
 *            the mean
 * Retains    the window, and the best
 * Differs    a layer's loss is that at needles with the first and the last tokens (winnow profile),
 *            where the paper measures a cache of 32; lanes that were made to part choose for
 *            themselves
 */
#include "policy/policy.h"
#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

enum { WINDOW, KERNEL, HEADS, LEAST };
enum { MAX_HEADS = 64 };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 8, 1, 64, 0, "last queries that vote, and always stay" },
    [KERNEL] = { "kernel", WN_PARAM_INT, 5, 1, 63, 0, "slots over which votes are averaged (odd)" },
    [HEADS] = { "heads", WN_PARAM_INT, 4, 1, MAX_HEADS, 0, "query heads of a layer that choose" },
    [LEAST] = { "least", WN_PARAM_INT, 32, 0, 1 << 20, 0,
                "slots of each lane, whatever its layer" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

/* The span score of the m-th best head of lanes [from, to): what a head must have to choose. */
static float bar(const wn_view *v, int from, int to, int m)
{
    float best[MAX_HEADS];
    int n = 0;
    for (int l = from; l < to; l++)
        for (int h = 0; h < wn_view_get_lane(v, l)->group; h++) {
            float x = wn_view_profile_heads(v, l)[h].span;
            int at = n < m ? n++ : m;
            for (; at > 0 && best[at - 1] < x; at--)
                if (at < m) best[at] = best[at - 1];
            if (at < m) best[at] = x;
        }
    return n ? best[n - 1] : 0;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int from = lane, to = lane + 1, w = 0;
    float *tmp = wn_view_scratch(v, sizeof *tmp * (size_t)l->n);
    if (wn_stage_same_slots(v, lane)) wn_view_layer(v, l->layer, &from, &to);
    float least = bar(v, from, to, (int)p->v[HEADS]);
    memset(out, 0, sizeof *out * (size_t)l->n);
    for (int k = from; k < to; k++) {
        const float *sums = wn_view_window(v, k, &w);
        for (int h = 0; h < l->group; h++)
            for (int i = 0; i < l->n && wn_view_profile_heads(v, k)[h].span >= least; i++)
                out[i] += sums[(size_t)h * (size_t)l->n + (size_t)i];
    }
    if (tmp)
        wn_stage_pool(out, wn_stage_slot_at(l, wn_view_n_tokens(v) - w), (int)p->v[KERNEL],
                      WN_POOL_AVG, tmp);
    wn_stage_keep_recent(v, lane, w, out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    int n = wn_view_n_lanes(v), live = 0;
    double *weight = wn_view_scratch(v, sizeof *weight * (size_t)n), sum = 0;
    int64_t *cap = wn_view_scratch(v, sizeof *cap * (size_t)n);
    (void)scores;
    if (!weight || !cap) return;
    for (int i = 0; i < n; i++) {
        const wn_view_lane *l = wn_view_get_lane(v, i);
        live += l->n > 0;
        sum += weight[i] = l->n ? wn_view_profile_loss(v, l->layer) : 0;
    }
    double mean = live ? (double)wn_view_budget(v) / live : 0, least = fmin(p->v[LEAST], mean);
    for (int i = 0; i < n; i++) {
        const wn_view_lane *l = wn_view_get_lane(v, i);
        double share = sum > 0 ? weight[i] * live / sum : 1;  /* losses of 0: the same for all */
        weight[i] = l->n ? least + (mean - least) * share + 1e-9 : 0;
        cap[i] = l->n < 3 * mean ? l->n : (int64_t)ceil(3 * mean);
    }
    wn_stage_split(wn_view_budget(v), weight, cap, n, keep);
}

const wn_recipe wn_recipe_compresskv = {
    .name = "compresskv",
    .family = "heads",
    .source = "\"CompressKV: Semantic Retrieval Heads Know What Tokens are Not Important Before "
              "Generation\", 2025, sections "
              "3.2 and 3.3",
    .about = "The four heads of a layer that fetch best vote for all; layers that lose more by "
             "streaming get more. "
             "For questions at the end on a model whose heads are known. Needs winnow profile.",
    .differs = "a layer's loss is measured with the first and the last tokens",
    .cost = "attention of the last 8 queries, once per decision",
    .params = params,
    .n_params = 4,
    .budget = "512",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .profile = WN_PROFILE_HEADS,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .score = score,
    .allocate = allocate,
};
