/* policy/recipes/criticalkv.c - votes of the last queries, and what the values they vote for can
 * change.
 *
 * Source     Feng et al., "Identify Critical KV Cache in LLM Inference from an Output Perturbation
 *            Perspective", 2025, algorithm 1
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries; what values make of the layer's answer     Resume  window
 * Score      votes as in SnapKV
 * Retains    the window and the best `share` of the budget by votes; then the best by
 *            (votes + 1e-4) |W_O v|, the sum of magnitudes, mean over the heads of a group
 * Differs    the base is snapkv with its defaults here; another recipe takes +retain:critical (with
 *            adakv, or +alloc:ada, it is CriticalAdaKV)
 */
#include "policy/stages/stages.h"

enum { WINDOW, KERNEL, POOL, SHARE };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 32, 1, 64, 0, "last queries that vote, and always stay" },
    [KERNEL] = { "kernel", WN_PARAM_INT, 7, 1, 63, 0, "slots over which votes are pooled (odd)" },
    [POOL] = { "pool", WN_PARAM_WORD, WN_POOL_MAX, 0, 1, WN_POOL_WORDS, "how they are pooled" },
    [SHARE] = { "share", WN_PARAM_FLOAT, 0.5, 0, 1, 0, "of the budget that goes by votes alone" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    wn_stage_votes(v, lane, &(wn_votes){ (int)p->v[KERNEL], (int)p->v[POOL], WN_REDUCE_MEAN }, out);
}

static void retain(const wn_view *v, const wn_params *p, int lane, const float *votes, int64_t keep,
                   const bool *skip, bool *stays)
{
    wn_retain_critical(v, lane, (int)p->v[WINDOW], p->v[SHARE], votes, keep, skip, stays);
}

const wn_recipe wn_recipe_criticalkv = {
    .name = "criticalkv",
    .family = "attention",
    .source = "Feng et al., \"Identify Critical KV Cache in LLM Inference from an Output "
              "Perturbation Perspective\", 2025, "
              "algorithm 1",
    .about = "SnapKV's votes fill half of the budget, votes times what the value can change in the "
             "layer's answer the rest. Where "
             "snapkv serves and a mark may take longer.",
    .differs = "heads of a group are averaged before pooling",
    .cost = "attention of the last 32 queries, and each value times the output matrix, once per "
            "decision",
    .params = params,
    .n_params = 4,
    .budget = "2048",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .wants = WN_WANTS_OUTPUTS,
    .score = score,
    .retain = retain,
};
