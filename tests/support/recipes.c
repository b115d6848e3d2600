/* tests/support/recipes.c - see recipes.h. */
#include "tests/support/recipes.h"
#include "policy/plugin.h"
#include "policy/stages/stages.h"
#include "tests/unit/check.h"

enum { DECAY };
enum { SQUARES, MOST, GAP, LAST, HITS };

static const wn_param params[] = {
    [DECAY] = { "decay", WN_PARAM_FLOAT, 0.97, 0, 1, 0, "what is left at the next query" },
};

static int stats(const wn_params *p, wn_stat *out)
{
    float decay = (float)p->v[DECAY];
    out[SQUARES] = (wn_stat){ .kind = WN_STAT_SQUARES, .reduce = WN_REDUCE_SUM, .decay = decay };
    out[MOST] = (wn_stat){ .kind = WN_STAT_MAX, .reduce = WN_REDUCE_MAX, .decay = decay,
                           .near = 100 };
    out[GAP] = (wn_stat){ .kind = WN_STAT_GAP, .reduce = WN_REDUCE_MAX, .threshold = 0.01f };
    out[LAST] = out[GAP];
    out[LAST].kind = WN_STAT_LAST;
    out[HITS] = (wn_stat){ .kind = WN_STAT_HITS, .decay = decay, .threshold = 1, .even = true };
    return 5;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *x[5];
    (void)p;
    for (int i = 0; i < 5; i++) x[i] = wn_view_stat(v, lane, i);
    for (int i = 0; i < l->n; i++) {
        float age = (float)wn_view_n_tokens(v) - x[LAST][i];
        out[i] = x[SQUARES][i] + x[MOST][i] + x[HITS][i] / 8 +
                 (1 + x[GAP][i]) / (1 + x[GAP][i] + age);
    }
}

static void recover(const wn_view *v, const wn_params *p, int lane, const bool *stays, wn_plan *out)
{
    (void)p;
    wn_recover_nearest(v, lane, stays, WN_BIAS_LOG, out);
}

static const wn_recipe ledger = {
    .name = "ledger", .family = "test", .source = "-", .about = "Every statistic of all queries.",
    .cost = "a second pass", .params = params, .n_params = 1, .budget = "25%",
    .kind = WN_CLASS_BUDGETED, .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK, .at_default = WN_AT_BOUNDARY, .every = 64,
    .stats = stats, .score = score, .recover = recover,
};

void test_recipes_add(void)
{
    static const wn_recipe *const recipes[] = { &ledger, NULL };
    static const wn_policy_plugin plugin = { .version = WN_POLICY_VERSION, .recipes = recipes };
    wn_err err;
    if (wn_plugin_add("tests", &plugin, &err)) fail_msg("%s", err.text);
}
