/* policy/recipes/snapkv.c - the last queries of the prompt vote.
 *
 * Source     Li et al., "SnapKV: LLM Knows What You are Looking for Before Generation", 2024,
 *            section 4.2, algorithm 1
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries                         Resume  window
 * Retains    the window, and the prefix slots with the most pooled votes
 * Differs    heads of a group are averaged before pooling (AdaKV's code), so that one list
 *            per KV head is kept; without @ the capacity is 2048 slots, as in its code. Pooled by
 *            the maximum over 7: of the two poolings of its code, whose default is the mean over 5,
 *            this one keeps lone facts (demo model, 25 %: 50 % of needles against 8 %)
 */
#include "policy/stages/stages.h"

enum { WINDOW, KERNEL, POOL, REDUCE };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 32, 1, 64, 0, "last queries that vote, and always stay" },
    [KERNEL] = { "kernel", WN_PARAM_INT, 7, 1, 63, 0, "slots over which votes are pooled (odd)" },
    [POOL] = { "pool", WN_PARAM_WORD, WN_POOL_MAX, 0, 1, WN_POOL_WORDS, "how they are pooled" },
    [REDUCE] = { "reduce", WN_PARAM_WORD, WN_REDUCE_MEAN, 0, 2, WN_REDUCE_WORDS,
                 "over the query heads of a group" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    wn_stage_votes(v, lane, &(wn_votes){ (int)p->v[KERNEL], (int)p->v[POOL], (int)p->v[REDUCE] },
                   out);
}

const wn_recipe wn_recipe_snapkv = {
    .name = "snapkv",
    .family = "attention",
    .source = "Li et al., \"SnapKV: LLM Knows What You are Looking for Before Generation\", 2024, "
              "section 4.2",
    .about = "The last queries of the prompt vote for what they attend to; votes are pooled over "
             "neighbours. Strong "
             "when the question is at the end, blind when it comes later.",
    .differs = "a group's heads are averaged before pooling; the default is the maximum over 7, "
               "its code's the mean over 5",
    .cost = "attention of the last 32 queries, once per decision",
    .params = params,
    .n_params = 4,
    .budget = "2048",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .score = score,
};
