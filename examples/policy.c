/* examples/policy.c - a cache policy of your own: every k-th token, and the recent ones.
 *
 *     cc -shared -fPIC examples/policy.c $(pkg-config --cflags winnow) -o policy.so
 *     winnow recipes sparse --policy-lib ./policy.so
 *     winnow run -m MODEL -f text.txt --policy-lib ./policy.so --kv 'sparse(step=8)@25%'
 *
 * It scores slots and leaves budgets and the choice of the best to the shared stages, so
 * stages go with it, too: sparse+recover:compensate@25%.
 */
#include <winnow_policy.h>

enum { STEP, RECENT };                  /* indices into the table, and into wn_params.v */

static const wn_param params[] = {
    [STEP] = { "step", WN_PARAM_INT, 4, 1, 1 << 20, 0, "one token in so many is kept first" },
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.5, 0, 1, 0, "share of the budget for the last slots" },
};

/* Higher stays. The same view must give the same scores: no clock, no random numbers, no state. */
static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int n = wn_view_n_tokens(v), step = (int)p->v[STEP];
    int recent = (int)(p->v[RECENT] * (double)p->lane_slots);
    for (int i = 0; i < l->n; i++) {
        float age = (float)(n - l->pos[i]) / (float)n;  /* 1 for the first token, towards 0 */
        out[i] = l->pos[i] >= n - recent ? 3 - age : l->pos[i] % step == 0 ? 2 - age : 1 - age;
    }
}

static const wn_recipe sparse = {
    .name = "sparse",
    .family = "example",
    .source = "-",
    .about = "Keeps every k-th token and the recent ones: an example of a policy in a library of "
             "its own.",
    .cost = "O(slots) per decision",
    .params = params,
    .n_params = 2,
    .budget = "25%",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .score = score,
};

static const wn_recipe *const recipes[] = { &sparse, 0 };

extern const wn_policy_plugin winnow_policy_plugin;     /* the one name that is looked for */
const wn_policy_plugin winnow_policy_plugin = { .version = WN_POLICY_VERSION, .recipes = recipes };
