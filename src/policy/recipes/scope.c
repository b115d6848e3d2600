/* policy/recipes/scope.c - the prompt and what is generated have budgets of their own.
 *
 * Source     Wu et al., "SCOPE: Optimizing Key-Value Cache Compression in Long-context Generation",
 *            2025
 * When       at marks and every 64 tokens
 * Observes   the last `window` queries                         Resume  window
 * Retains    at a mark all that is there is prompt: the best of it (votes as in SnapKV) that fit
 *            into what `generated` leaves of the budget. From there on they stay; slots behind the
 *            mark share the rest of the budget: the last `recent` share of it, and the best of the
 *            others
 * Differs    a text without a mark before it is one region, which comes down to the budget as it is
 *            read, so that long prompts have a bound; a prompt that fits whole comes down to its
 *            part when the budget is reached first; generated slots are scored by the last `window`
 *            queries (window=1: by the current one, as in the paper)
 */
#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

enum { WINDOW, KERNEL, GENERATED, RECENT };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 8, 1, 64, 0, "last queries that vote, and always stay" },
    [KERNEL] = { "kernel", WN_PARAM_INT, 5, 1, 63, 0, "slots over which votes are averaged (odd)" },
    [GENERATED] = { "generated", WN_PARAM_FLOAT, 0.33, 0, 1, 0,
                    "share of the budget for slots behind the last mark" },
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.25, 0, 1, 0, "share of those for the last slots" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

/* Slots of the lane before the last mark, and how many of them stay. */
static int prompt(const wn_view *v, const wn_params *p, const wn_view_lane *l, int64_t *stay)
{
    int n = wn_stage_slot_at(l, wn_view_mark(v));
    int64_t part = (int64_t)((1 - p->v[GENERATED]) * (double)p->lane_slots);
    *stay = n < part ? n : part;
    return n;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int64_t stay;
    int n = prompt(v, p, l, &stay), behind = wn_view_n_tokens(v) - wn_view_mark(v);
    float *votes = wn_view_scratch(v, sizeof *votes * (size_t)l->n);
    bool *best = wn_view_scratch(v, sizeof *best * (size_t)l->n);
    if (!votes || !best) return;
    wn_stage_votes(v, lane, &(wn_votes){ (int)p->v[KERNEL], WN_POOL_AVG, WN_REDUCE_MEAN }, out);
    wn_stage_keep_recent(v, lane,
                         (int64_t)fmin(behind, p->v[RECENT] * (double)(p->lane_slots - stay)), out);
    memcpy(votes, out, sizeof *votes * (size_t)l->n);
    for (int i = 0; i < n; i++) votes[i] = wn_view_protects(v, l->pos[i]) ? INFINITY : votes[i];
    wn_stage_best(v, votes, n, stay, best);
    for (int i = 0; i < n; i++) out[i] = best[i] ? INFINITY : -INFINITY;
}

/* Each part what it holds, but no more than its own. */
static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)scores;
    wn_alloc_level(v, keep);
    for (int lane = 0; lane < wn_view_n_lanes(v); lane++) {
        const wn_view_lane *l = wn_view_get_lane(v, lane);
        int64_t stay;
        int n = prompt(v, p, l, &stay);
        if (l->n - n + stay < keep[lane]) keep[lane] = l->n - n + stay;
    }
}

const wn_recipe wn_recipe_scope = {
    .name = "scope",
    .family = "attention",
    .source = "Wu et al., \"SCOPE: Optimizing Key-Value Cache Compression in Long-context "
              "Generation\", 2025",
    .about = "The prompt comes down once and then stays as it is; what is generated has room of "
             "its own. For long "
             "answers to short questions, where the answer's own tokens would push the prompt out.",
    .differs =
        "without a mark the text is one region; generated slots are scored by the last 8 queries",
    .cost = "attention of the last 8 queries, once per decision",
    .params = params,
    .n_params = 4,
    .budget = "2048",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY | WN_AT_MARK,
    .every = 64,
    .window = window,
    .score = score,
    .allocate = allocate,
};
