/* A policy library whose recipe has a parameter with a default outside its range. */
#include <winnow_policy.h>

static const wn_param params[] = { { "size", WN_PARAM_INT, 9, 1, 5, 0, "too much" } };

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    (void)p;
    for (int i = 0; i < wn_view_get_lane(v, lane)->n; i++) out[i] = 0;
}

static const wn_recipe faulty = {
    .name = "faulty", .family = "test", .source = "-", .about = "A test.", .cost = "nothing",
    .kind = WN_CLASS_BUDGETED, .params = params, .n_params = 1, .at = WN_AT_BOUNDARY,
    .at_default = WN_AT_BOUNDARY, .score = score,
};
static const wn_recipe *const recipes[] = { &faulty, 0 };
extern const wn_policy_plugin winnow_policy_plugin;
const wn_policy_plugin winnow_policy_plugin = { .version = WN_POLICY_VERSION, .recipes = recipes };
