/* policy/recipes/lacache.c - a ladder: each layer keeps another stripe of the past.
 *
 * Source     Shi et al., "LaCache: Ladder-Shaped KV Caching for Efficient Long-Context Modeling of Large Language
 *            Models", 2025, section 3
 * When       at boundaries                                     Observes  nothing      Resume  any
 * Retains    `first` sinks, the last `recent` share of the budget; of the slots between them, in units of `unit`, `after` of
 *            every `before`, beginning one unit later with each layer: together the layers hold everything. What has been
 *            thinned out is thinned out again as the text grows
 * Differs    positions stay what they are (the paper numbers the cache anew, for which a lane would need a shift
 *            per rung); a budget that the rungs do not fill goes to the latest of the others
 */
#include "policy/stages/stages.h"

enum { SPAN, OVERLAP, UNIT, RECENT };

static const wn_param params[] = {
    [SPAN] = { "span", WN_PARAM_INT, 0, 0, 1024, 0, "layers that a rung spans; 0: half of them" },
    [OVERLAP] = { "overlap", WN_PARAM_INT, 0, 0, 1023, 0, "layers that two rungs share" },
    [UNIT] = { "unit", WN_PARAM_INT, 8, 1, 4096, 0, "neighbouring slots that go together" },
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.5, 0, 1, 0, "share of the budget for the last slots" },
};

/* Rungs: of `before` neighbouring units a layer keeps `after`. */
static void ladder(const wn_params *p, int L, int *before, int *after)
{
    int span = p->v[SPAN] > 0 ? (int)p->v[SPAN] : (L + 1) / 2, step = span - (int)p->v[OVERLAP];
    if (step < 1) step = 1;
    *before = 1 + (L > span ? (L - span + step - 1) / step : 0);
    *after = (span + step - 1) / step;
    if (*after > *before) *after = *before;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int before, after, unit = (int)p->v[UNIT], sinks = 0;
    ladder(p, wn_view_n_layers(v), &before, &after);
    while (sinks < l->n && wn_view_protects(v, l->pos[sinks])) sinks++;
    for (int i = 0; i < l->n; i++) {
        int rung = i < sinks ? 0 : ((i - sinks) / unit + l->layer) % before;
        out[i] = (rung < after ? 2 : 1) + 0.5f * (float)l->pos[i] / (float)wn_view_n_tokens(v);
    }
    wn_stage_keep_recent(v, lane, (int64_t)(p->v[RECENT] * (double)p->lane_slots), out);
}

const wn_recipe wn_recipe_lacache = {
    .name = "lacache", .family = "positions",
    .source = "Shi et al., \"LaCache: Ladder-Shaped KV Caching for Efficient Long-Context Modeling of Large Language Models\", "
              "2025, section 3",
    .about = "Each layer keeps another stripe of the past, thinner the older it is: together they hold more than a window.",
    .differs = "positions stay what they are",
    .cost = "O(slots log slots) per decision",
    .params = params, .n_params = 4, .budget = "50%", .first = 4,
    .kind = WN_CLASS_BUDGETED, .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK, .at_default = WN_AT_BOUNDARY, .every = 64,
    .score = score,
};
