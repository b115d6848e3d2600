/* policy/recipes/recent.c - the first tokens and the last ones, at their true positions.
 *
 * The plainest rule that keeps a model fluent, and what must be beaten by every method
 * that looks at the text. With @ the window is what the budget leaves beside the sinks.
 */
#include "winnow_policy.h"

enum { SINKS, WINDOW };

static const wn_param params[] = {
    [SINKS] = { "sinks", WN_PARAM_INT, 4, 0, 1 << 20, 0, "first slots that stay" },
    [WINDOW] = { "window", WN_PARAM_INT, 1024, 1, 1 << 30, 0, "last slots that stay" },
};

static int64_t window_of(const wn_params *p)
{
    int64_t left = p->lane_slots - (int64_t)p->v[SINKS];
    return !p->has_budget ? (int64_t)p->v[WINDOW] : left > 1 ? left : 1;
}

static void plan(const wn_view *v, const wn_params *p, wn_plan *out)
{
    int64_t cut = wn_view_n_tokens(v) - window_of(p);
    if (cut > (int64_t)p->v[SINKS]) wn_plan_drop(out, WN_ALL_LANES, (int)p->v[SINKS], (int)cut);
}

static int64_t cap(const wn_params *p, int64_t n_tokens)
{
    (void)n_tokens;
    return (int64_t)p->v[SINKS] + window_of(p);
}

const wn_recipe wn_recipe_recent = {
    .name = "recent", .family = "test",
    .source = "sinks and window of Xiao et al., \"Efficient Streaming Language Models with Attention Sinks\", "
              "2023, without its re-indexing",
    .about = "Keeps the first tokens and a window of the last ones; everything between is forgotten.",
    .cost = "O(1) per decision",
    .params = params, .n_params = 2,
    .kind = WN_CLASS_BUDGETED, .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK, .at_default = WN_AT_BOUNDARY,
    .plan = plan, .cap = cap,
};
