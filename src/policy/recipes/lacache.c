/* policy/recipes/lacache.c - a ladder: each layer keeps another stripe of the past.
 *
 * Source     Shi et al., "LaCache: Ladder-Shaped KV Caching for Efficient Long-Context Modeling of
 *            Large Language Models", 2025, section 3
 * When       every 64 tokens                                  Observes  nothing      Resume  any
 * Retains    `first` sinks, the last `recent` share of the budget, and rungs of what is between: in
 *            units of `unit` slots, `after` of every `before`, beginning one unit later with each
 *            layer, so that together the layers hold everything; of what has been thinned out
 *            `after` of every `before` again, and so on: the older, the thinner, over log(text)
 *            times a window's reach
 * Differs    the paper thins out all of a full cache at once and lets it fill again; here a slot
 *            goes when room is needed, in the order in which such passes would have taken it, and
 *            the budget is always used. Positions stay what they are (the paper numbers the cache
 *            anew, for which a lane would need a shift per rung)
 */
#include "policy/stages/stages.h"

#include "base/err.h"

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

/* Passes that the unit outlives; it has another place in each, among those that are left. */
static int passes(int64_t unit, int layer, int before, int after)
{
    enum { MOST = 30 };                 /* more than any text has */
    int k = 0;
    int64_t skip = (int64_t)(layer / before) * after + WN_MIN(layer % before, after);
    for (; k < MOST && (unit + layer) % before < after; k++)
        unit = (unit + layer) / before * after + (unit + layer) % before - skip;
    return k;
}

/* A full cache of m slots has room for m (1 - after / before) tokens after a pass: so long a slot
 * lives per pass. */
static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int64_t recent = (int64_t)(p->v[RECENT] * (double)p->lane_slots);
    int before, after, unit = (int)p->v[UNIT];
    ladder(p, wn_view_n_layers(v), &before, &after);
    double life = (double)(p->lane_slots - recent) * (before - after) / before;
    for (int i = 0; i < l->n; i++)
        out[i] = (float)(l->pos[i] + life * passes(l->pos[i] / unit, l->layer, before, after));
    wn_stage_keep_recent(v, lane, recent, out);
}

const wn_recipe wn_recipe_lacache = {
    .name = "lacache",
    .family = "positions",
    .source = "Shi et al., \"LaCache: Ladder-Shaped KV Caching for Efficient Long-Context Modeling "
              "of Large Language Models\", "
              "2025, section 3",
    .about = "Each layer keeps another stripe of the past, thinner the older it is: together they "
             "reach far beyond a "
             "window, without a look at attention. For endless texts of which the gist is enough.",
    .differs = "slots go one by one when room is needed; positions stay what they are",
    .cost = "O(slots log slots) per decision",
    .params = params,
    .n_params = 4,
    .budget = "50%",
    .first = 4,
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .score = score,
};
