/* policy/recipes/random.c - forgets by lot.
 *
 * The floor: a method that is not clearly better than this at the same budget has not
 * looked at anything. A slot's lot is drawn once, from (seed, layer, head, position), so
 * what one decision dropped the next would have dropped too.
 */
#include "winnow_policy.h"

enum { SEED };

static const wn_param params[] = {
    [SEED] = { "seed", WN_PARAM_INT, 1, 0, 4294967295.0, 0, "another draw" },
};

/* splitmix64's finaliser (Steele, Lea, Flood 2014) */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    uint64_t seed = mix(mix((uint64_t)p->v[SEED] + UINT64_C(0x9e3779b97f4a7c15)) +
                        ((uint64_t)l->layer << 32 | (uint64_t)l->head));
    for (int i = 0; i < l->n; i++)
        out[i] = (float)(mix(seed + (uint64_t)l->pos[i] * UINT64_C(0x9e3779b97f4a7c15)) >> 40) * 0x1p-24f;
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
