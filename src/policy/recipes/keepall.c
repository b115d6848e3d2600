/* policy/recipes/keepall.c - decides at every boundary, and decides to keep everything.
 *
 * A test of the machinery: a mask that drops nothing would leave the lanes as they are, so
 * the first slot gets its bias (0) once more. With that, lanes have page lists, masks and a
 * table of biases of their own, and no byte of any result may differ from `none`.
 */
#include "winnow_policy.h"

static void plan(const wn_view *v, const wn_params *p, wn_plan *out)
{
    (void)p;
    for (int l = 0; l < wn_view_n_lanes(v); l++) {
        const wn_view_lane *lane = wn_view_get_lane(v, l);
        if (!lane->n) continue;
        wn_plan_keep_only(out, l, lane->pos, lane->n);
        wn_plan_set_bias(out, l, lane->pos[0], lane->bias ? lane->bias[0] : 0);
    }
}

const wn_recipe wn_recipe_keepall = {
    .name = "keepall", .family = "test", .source = "-",
    .about = "Decides and keeps everything: must give the bytes of `none`.",
    .cost = "O(slots) per decision",
    .kind = WN_CLASS_FULL, .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK, .at_default = WN_AT_BOUNDARY,
    .plan = plan,
};
