/* policy/recipes/pagedeviction.c - whole pages with short values and long keys go.
 *
 * Source     Chitty-Venkata et al., "PagedEviction: Structured Block-wise KV Cache Pruning for
 *            Efficient Large Language Model Inference", 2025, section 4
 * When       at boundaries, or at marks    Observes  keys and values                  Resume  any
 * Score      |v| / |k| of a slot, mean over its page of `page` positions; slots of a page live and
 *            die together
 * Retains    the page that is filling, `first` slots, and the best pages that fit
 * Differs    in the prompt too whole pages go (the paper drops single tokens before they are
 *            paged); a budget is not filled up with parts of a page; sinks, whose values are short,
 *            are protected
 */
#include "policy/stages/stages.h"

enum { PAGE };

static const wn_param params[] = {
    [PAGE] = { "page", WN_PARAM_INT, 16, 1, 4096, 0, "positions of a page" },
};

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int n = l->n, page = (int)p->v[PAGE];
    float *k = wn_view_scratch(v, sizeof *k * (size_t)n);
    if (!k) return;
    wn_stage_norms(k, wn_view_keys(v, lane), n, l->k_dim);
    wn_stage_norms(out, wn_view_values(v, lane), n, l->v_dim);
    for (int from = 0, to; from < n; from = to) {
        double sum = 0;
        to = wn_stage_unit_end(l, from, page);
        for (int i = from; i < to; i++) sum += k[i] > 0 ? (double)out[i] / (double)k[i] : 0;
        for (int i = from; i < to; i++) out[i] = (float)(sum / (to - from));
    }
    wn_stage_keep_recent(v, lane, (wn_view_n_tokens(v) - 1) % page + 1, out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)p;
    wn_alloc_whole(v, scores, keep);
}

const wn_recipe wn_recipe_pagedeviction = {
    .name = "pagedeviction",
    .family = "keys",
    .source = "Chitty-Venkata et al., \"PagedEviction: Structured Block-wise KV Cache Pruning for "
              "Efficient Large Language "
              "Model Inference\", 2025, section 4",
    .about =
        "Drops whole pages of 16 tokens whose values are short for their keys; nothing has to be "
        "moved together. "
        "Where decisions must cost next to nothing; what it drops is not much better than chance.",
    .differs = "whole pages in the prompt too; the first slots are protected",
    .cost = "O(slots x dim) per decision",
    .params = params,
    .n_params = 1,
    .budget = "50%",
    .first = 4,
    .reads = "keys, values",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .score = score,
    .allocate = allocate,
};
