/* policy/recipes/lazyeviction.c - tokens that come back are waited for.
 *
 * Source     Zhang et al., "LazyEviction: Lagged KV Eviction with Attention Pattern Observation for
 *            Efficient Long Reasoning", 2025, section 4
 * When       every 128 tokens  Observes  all queries: the last hit, the longest gap  Resume  record
 * Score      2 / (1 + e^(age / gap)) + 2 / (1 + e^(1 / gap)), age since the last query that gave a
 *            slot `alpha` or more, gap the longest between two of them: a slot that comes back
 *            every k queries is not dropped before k have passed
 * Retains    the last `window` slots, and the best
 * Differs    a group's heads are reduced by maximum; the sum of both parts is as known from
 *            descriptions, the authors' code was not at hand
 */
#include "policy/stages/stages.h"

#include <math.h>

enum { WINDOW, ALPHA };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 128, 0, 1 << 20, 0, "last slots, which always stay" },
    [ALPHA] = { "alpha", WN_PARAM_FLOAT, 1e-3, 1e-9, 1, 0, "attention that counts as a hit" },
};

static int stats(const wn_params *p, wn_stat *out)
{
    wn_stat hit = { .kind = WN_STAT_LAST, .reduce = WN_REDUCE_MAX,
                    .threshold = (float)p->v[ALPHA] };
    out[1] = out[0] = hit;
    out[0].kind = WN_STAT_GAP;
    return 2;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *gap = wn_view_stat(v, lane, 0), *last = wn_view_stat(v, lane, 1);
    double now = wn_view_n_tokens(v) - 1;
    for (int i = 0; i < l->n; i++) {
        double g = fmax((double)gap[i], 1);                             /* never came back: 1 */
        out[i] = (float)(2 / (1 + exp((now - (double)last[i]) / g)) + 2 / (1 + exp(1 / g)));
    }
    wn_stage_keep_recent(v, lane, (int64_t)p->v[WINDOW], out);
}

const wn_recipe wn_recipe_lazyeviction = {
    .name = "lazyeviction",
    .family = "attention",
    .source = "Zhang et al., \"LazyEviction: Lagged KV Eviction with Attention Pattern Observation "
              "for Efficient Long "
              "Reasoning\", 2025, section 4",
    .about = "Waits for slots that come back: none goes before the longest gap between its hits "
             "has passed. For "
             "reasoning, where what was dropped is needed again after many steps.",
    .differs = "a group's heads are reduced by maximum",
    .cost = "two numbers per slot brought up to date by every query, in prompts and in steps",
    .params = params,
    .n_params = 2,
    .budget = "50%",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 128,
    .stats = stats,
    .score = score,
};
