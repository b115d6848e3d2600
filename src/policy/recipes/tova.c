/* policy/recipes/tova.c - what the current token looks at least, goes.
 *
 * Source     Oren et al., "Transformers are Multi-State RNNs", 2024, section 3.2
 * When       every 64 tokens           Observes  the last query   Resume  window
 * Retains    the slots that the last query attends to most, mean over all heads of a
 *            layer: its lanes keep the same positions (ties: the earlier)
 * Differs    decides every 64 tokens, not at each step, and then drops many at once
 */
#include "policy/stages/stages.h"

static int window(const wn_params *p)
{
    (void)p;
    return 1;
}

static void last_row(const wn_view *v, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int w;
    wn_stage_reduce(out, wn_view_window(v, lane, &w), l->group, l->n, WN_REDUCE_MEAN);
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    (void)p;
    wn_stage_layer_mean(v, lane, last_row, out);
}

/* Lanes that kept one slot more than their neighbours would part company for ever. */
static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)p;
    (void)scores;
    wn_alloc_level(v, keep);
}

const wn_recipe wn_recipe_tova = {
    .name = "tova",
    .family = "attention",
    .source = "Oren et al., \"Transformers are Multi-State RNNs\", 2024, section 3.2",
    .about = "Keeps what the current token attends to most, by layer. No memory of what earlier "
             "tokens needed: for "
             "going on writing in little memory, not for questions about what came before.",
    .differs = "decides every 64 tokens",
    .cost = "attention of one query per decision",
    .budget = "2048",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .window = window,
    .score = score,
    .allocate = allocate,
};
