/* policy/recipes/streaming.c - attention sinks and a recent window, at close quarters.
 *
 * Source     Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023,
 *            section 3.2
 * When       every 64 tokens           Observes  nothing        Resume  any
 * Retains    positions [0, sinks) and the last `window`
 * Shifts     the sinks to right before the window, so that no distance ever exceeds the
 *            cache: the paper's positions within the cache
 * Differs    decides each 64 tokens, not at each step; between decisions up to 63 more are seen
 */
#include "policy/stages/stages.h"

enum { SINKS, WINDOW };

static const wn_param params[] = {
    [SINKS] = { "sinks", WN_PARAM_INT, 4, 0, 1 << 20, 0, "first slots that stay" },
    [WINDOW] = { "window", WN_PARAM_INT, 1024, 1, 1 << 30, 0, "last slots that stay" },
};

static void plan(const wn_view *v, const wn_params *p, wn_plan *out)
{
    int n = wn_view_n_tokens(v), sinks = (int)p->v[SINKS],
        cut = p->v[WINDOW] < n ? n - (int)p->v[WINDOW] : 0;
    if (p->has_budget) wn_stage_ends(v, p->lane_slots, &sinks, &cut);
    for (int l = 0; cut > sinks && l < wn_view_n_lanes(v); l++) {
        if (!wn_view_get_lane(v, l)->n) continue;
        wn_plan_drop(out, l, sinks, cut);
        wn_plan_shift(out, l, 0, sinks, cut - sinks);
    }
}

static int64_t cap(const wn_params *p, int64_t n_tokens)
{
    (void)n_tokens;
    return (int64_t)p->v[SINKS] + (int64_t)p->v[WINDOW];
}

const wn_recipe wn_recipe_streaming = {
    .name = "streaming",
    .family = "positions",
    .source = "Xiao et al., \"Efficient Streaming Language Models with Attention Sinks\", 2023, "
              "section 3.2",
    .about = "Keeps the first tokens and a window of the last ones, and moves the first up to the "
             "window: "
             "fluent for ever in constant memory, and blind to what left the window.",
    .differs = "decides every 64 tokens, not at each step",
    .cost = "O(1) per decision",
    .params = params,
    .n_params = 2,
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .plan = plan,
    .cap = cap,
    .bounded = true,
};
