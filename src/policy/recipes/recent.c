/* policy/recipes/recent.c - the first tokens and the last ones, at their true positions.
 *
 * The plainest rule that keeps a model fluent, and what must be beaten by every method
 * that looks at the text. With @ the window is what the budget leaves beside the sinks and
 * what is protected; a budget that is too small for the sinks takes fewer of them.
 */
#include "policy/stages/stages.h"

enum { SINKS, WINDOW };

static const wn_param params[] = {
    [SINKS] = { "sinks", WN_PARAM_INT, 4, 0, 1 << 20, 0, "first slots that stay" },
    [WINDOW] = { "window", WN_PARAM_INT, 1024, 1, 1 << 30, 0, "last slots that stay" },
};

/* Window layers look after themselves and show no slots. */
static void plan(const wn_view *v, const wn_params *p, wn_plan *out)
{
    int n = wn_view_n_tokens(v), sinks = (int)p->v[SINKS],
        cut = p->v[WINDOW] < n ? n - (int)p->v[WINDOW] : 0;
    if (p->has_budget) wn_stage_ends(v, p->lane_slots, &sinks, &cut);
    for (int l = 0; cut > sinks && l < wn_view_n_lanes(v); l++)
        if (wn_view_get_lane(v, l)->n) wn_plan_drop(out, l, sinks, cut);
}

static int64_t cap(const wn_params *p, int64_t n_tokens)
{
    (void)n_tokens;
    return (int64_t)p->v[SINKS] + (int64_t)p->v[WINDOW];
}

const wn_recipe wn_recipe_recent = {
    .name = "recent",
    .family = "test",
    .source = "sinks and window of Xiao et al., \"Efficient Streaming Language Models with "
              "Attention Sinks\", "
              "2023, without its re-indexing",
    .about = "Keeps the first tokens and a window of the last ones; everything between is "
             "forgotten. For going on "
             "writing, at no cost: what a method has to beat on prose.",
    .cost = "O(1) per decision",
    .params = params,
    .n_params = 2,
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .plan = plan,
    .cap = cap,
};
