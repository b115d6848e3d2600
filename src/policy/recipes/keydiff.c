/* policy/recipes/keydiff.c - keys like all the others go.
 *
 * Source     Park et al., "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context
 *            LLM Inference in Resource-Constrained Environments", 2025, equation 5
 * When       every 128 tokens          Observes  keys             Resume  any
 * Score      -cos(k, a), a the mean of the normalised keys that are live
 * Retains    the keys least like the mean
 * Differs    nothing known; rotated keys, as in the paper
 */
#include "policy/stages/stages.h"

enum { KEY_DIM_MAX = 1024 };

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *k = wn_view_keys(v, lane);
    double anchor[KEY_DIM_MAX];
    (void)p;
    wn_stage_mean_row(anchor, k, l->n, l->k_dim, true);
    wn_stage_cosines(out, k, anchor, l->n, l->k_dim);
    for (int i = 0; i < l->n; i++) out[i] = -out[i];
}

const wn_recipe wn_recipe_keydiff = {
    .name = "keydiff",
    .family = "keys",
    .source = "Park et al., \"KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM "
              "Inference in "
              "Resource-Constrained Environments\", 2025, equation 5",
    .about = "Keeps the keys that point away from the mean key. Knows nothing of the question, and "
             "needs no "
             "attention: for documents that are read once and asked about later. What reads on in "
             "prose misses the "
             "ordinary words that it drops.",
    .cost = "O(slots x head size) per decision",
    .budget = "2048",
    .reads = "keys",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 128,
    .score = score,
};
