/* policy/recipes/random.c - forgets by lot.
 *
 * The floor: a method that is not clearly better than this at the same budget has not
 * looked at anything. A slot's lot is drawn once, from (seed, layer, head, position), so
 * what one decision dropped the next would have dropped too.
 */
#include "policy/stages/stages.h"

enum { SEED };

static const wn_param params[] = {
    [SEED] = { "seed", WN_PARAM_INT, 1, 0, 4294967295.0, 0, "another draw" },
};

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    for (int i = 0; i < l->n; i++)
        out[i] = (float)wn_stage_draw((uint64_t)p->v[SEED], l, l->pos[i]);
}

const wn_recipe wn_recipe_random = {
    .name = "random", .family = "test", .source = "-",
    .about = "Drops slots by lot, lane by lane: the floor that every method has to beat.",
    .cost = "O(slots log slots) per decision",
    .params = params, .n_params = 1,
    .kind = WN_CLASS_BUDGETED, .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK, .at_default = WN_AT_BOUNDARY,
    .score = score,
};
