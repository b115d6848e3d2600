/* The worked examples of recipes that probe: what they make of the statistics of a probe's
 * queries, which tests/unit/engine/probe.c compares with those queries themselves. */
#include "tests/support/stays.h"

static test_view *small(int n, int layers, int heads)
{
    return test_view_open(&(test_shape){ .n_tokens = n, .n_layers = layers, .heads = heads });
}

static void set_stats(test_view *t, int lane, const float *x)
{
    for (int p = 0; p < t->shape.n_tokens; p++) *test_view_stat(t, lane, 0, p) = x[p];
}

/* ---- KVzip -------------------------------------------------------------------------------- */

/* Four slots in each of three lanes of two layers: the six best of all twelve, one lane has none. */
static void kvzip_has_one_threshold(void **state)
{
    (void)state;
    static const float most[4][4] = { { .9f, .1f, .8f, .7f }, { .6f, .05f, .02f, .65f }, { .04f, .03f, .01f, .02f },
                                      { .5f, .3f, .2f, .1f } };
    test_view *t = small(4, 2, 2);
    for (int l = 0; l < 4; l++) set_stats(t, l, most[l]);
    test_view_decide(t, "kvzip(first=0)@37.5%");        /* 6 of 16 */
    STAYS(t, 0, 0, 2, 3);
    STAYS(t, 1, 0, 3);
    assert_int_equal(test_view_n_stays(t, 2), 0);
    STAYS(t, 3, 0);
    test_view_decide(t, "kvzip(first=0,level=uniform)@25%");
    STAYS(t, 0, 0);
    STAYS(t, 1, 3);
    STAYS(t, 2, 0);
    STAYS(t, 3, 0);
    test_view_decide(t, "kvzip(first=1)@50%");          /* the first slot of every lane is paid for */
    assert_int_equal(test_view_total(t), 8);
    for (int l = 0; l < 4; l++) assert_true(test_view_stays(t, l, 0));
    test_view_close(t);
}

/* At the threshold the earlier ones stay, as many as the budget has. */
static void kvzip_ties(void **state)
{
    (void)state;
    static const float most[6] = { .5f, .5f, .5f, .5f, .9f, .5f };
    test_view *t = small(6, 1, 1);
    set_stats(t, 0, most);
    test_view_decide(t, "kvzip(first=0)@3");
    STAYS(t, 0, 0, 1, 4);
    test_view_close(t);
}

/* A statistic of a probe is not the same as one of the text, in a trace and for stages. */
static void kvzip_is_not_of_the_text(void **state)
{
    (void)state;
    wn_policy p;
    wn_err err;
    assert_int_equal(wn_policy_parse(&p, "kvzip", &err), WN_OK);
    assert_true(p.probes && p.n_stats == 1 && p.stats[0].probe);
    wn_stat plain = p.stats[0];
    plain.probe = false;
    assert_int_equal(wn_stat_find(p.stats, 1, &plain), -1);
    assert_int_equal(wn_policy_parse(&p, "kvzip+alloc:density", &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "that of a probe"));
    assert_int_equal(wn_policy_parse(&p, "kvzip+alloc:ada+recover:nearest", &err), WN_OK);
    assert_int_equal(wn_policy_parse(&p, "h2o", &err), WN_OK);
    assert_true(!p.probes && !p.stats[0].probe);
}

/* ---- LAQ ---------------------------------------------------------------------------------- */

/* The probe looks at 6: with neighbours, 5, 6 and 7 stay; then 0 and 1, which it glanced at. */
static void laq_pools_the_largest(void **state)
{
    (void)state;
    float votes[20] = { .01f, .01f };
    votes[6] = 2;
    test_view *t = small(20, 1, 1);
    set_stats(t, 0, votes);
    test_view_decide(t, "laq(window=0,kernel=3)@5");
    STAYS(t, 0, 0, 1, 5, 6, 7);
    float window[20] = { 0 };
    window[12] = 8;                                     /* the last two queries saw it, and they stay */
    test_view_votes(t, 0, window);
    test_view_decide(t, "laq(window=2,kernel=1)@4");
    STAYS(t, 0, 6, 12, 18, 19);
    test_view_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kvzip_has_one_threshold),
        cmocka_unit_test(kvzip_ties),
        cmocka_unit_test(kvzip_is_not_of_the_text),
        cmocka_unit_test(laq_pools_the_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
