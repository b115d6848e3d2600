/* A policy library whose second recipe has a name that is taken: neither comes in. */
#include <winnow_policy.h>

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    (void)p;
    for (int i = 0; i < wn_view_get_lane(v, lane)->n; i++) out[i] = 0;
}

#define RECIPE                                                              \
    .family = "test", .source = "-", .about = "A test.", .cost = "nothing", \
    .kind = WN_CLASS_BUDGETED, .at = WN_AT_BOUNDARY, .at_default = WN_AT_BOUNDARY, .score = score
static const wn_recipe fresh = { .name = "fresh", RECIPE }, taken = { .name = "snapkv", RECIPE };
static const wn_recipe *const recipes[] = { &fresh, &taken, 0 };
extern const wn_policy_plugin winnow_policy_plugin;
const wn_policy_plugin winnow_policy_plugin = { .version = WN_POLICY_VERSION, .recipes = recipes };
