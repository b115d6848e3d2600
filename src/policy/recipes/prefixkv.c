/* policy/recipes/prefixkv.c - every layer keeps the same share of its attention.
 *
 * Source     Wang et al., "PrefixKV: Adaptive Prefix KV Cache is What Vision Instruction-Following
 *            Models Need for Efficient Generation", 2024
 * When       at marks (the paper), or at boundaries
 * Observes   all queries, summed                               Resume  record
 * Score      attention of all queries, mean over the heads of a layer: one list per layer
 * Allocates  sorted by score, the shortest front of each list that holds a share p of its sum; p is
 *            the largest with which the fronts fit into the budget, found by halving
 * Retains    the first 4 slots, and the best of each layer
 * Differs    p is found for the text at hand, where the paper finds the layers' budgets on samples
 *            and keeps them; what the fronts leave of a budget is split in proportion to them
 */
#include "policy/stages/stages.h"

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    (void)p;
    wn_stage_layer_mean(v, lane, wn_stage_sums, out);
}

/* The slots that hold a share of the attention, over all lanes; weight: their mean in a lane of
 * each layer. */
static double fronts(const wn_view *v, const float *const *scores, double share, double *weight)
{
    double all = 0;
    for (int layer = 0; layer < wn_view_n_layers(v); layer++) {
        int from, to, live = 0;
        double slots = 0;
        wn_view_layer(v, layer, &from, &to);
        /* then their scores are the same, too */
        bool alike = from < to && wn_stage_same_slots(v, from);
        for (int l = from; l < to; l++) {
            int n = wn_view_get_lane(v, l)->n;
            live += n > 0;
            if (l == from || !alike) slots += wn_stage_need(scores[l], n, share);
            else slots += slots / (l - from);
        }
        weight[layer] = live ? slots / live : 0;
        all += slots;
    }
    return all;
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    double *weight = wn_view_scratch(v, sizeof *weight * (size_t)wn_view_n_layers(v)), lo = 0,
           hi = 1;
    (void)p;
    if (!weight) return;
    if (fronts(v, scores, hi, weight) > (double)wn_view_budget(v)) {
        for (int i = 0; i < 24; i++) {  /* to less than the rounding of a float sum */
            double mid = (lo + hi) / 2;
            if (fronts(v, scores, mid, weight) <= (double)wn_view_budget(v)) lo = mid;
            else hi = mid;
        }
        fronts(v, scores, lo, weight);
    }
    wn_alloc_layers(v, weight, 0, keep);
    wn_alloc_alike(v, 1, keep);
}

const wn_recipe wn_recipe_prefixkv = {
    .name = "prefixkv",
    .family = "attention",
    .source = "Wang et al., \"PrefixKV: Adaptive Prefix KV Cache is What Vision "
              "Instruction-Following Models Need for "
              "Efficient Generation\", 2024",
    .about = "What has been attended to most; each layer gets as many slots as hold the same share "
             "of its attention. "
             "For short prompts whose first layers look everywhere (images); single facts go "
             "first; behind a text "
             "give it last=64, for it keeps no recent tokens by itself.",
    .differs = "the layers' budgets are found for each text, not on samples",
    .cost =
        "the weights of every query added up; 25 times 4 passes over a layer's scores per decision",
    .budget = "20%",
    .first = 4,
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .stats = wn_stage_ask_sums,
    .score = score,
    .allocate = allocate,
};
