/* Examples by hand for what goes by the text itself: which tokens are special or punctuation. */
#include "tests/support/stays.h"

#include <math.h>

/* ---- FastGen ------------------------------------------------------------------------------- */

static void set_stat(test_view *t, int lane, int stat, const float *x)
{
    for (int p = 0; p < t->view.n_tokens; p++) *test_view_stat(t, lane, stat, p) = x[p];
}

/* Queries 1 | .6 .4 | .5 .2 .3 | .4 .1 .1 .4: sums 2.5 .7 .4 .4; on the query's own token 1 .4 .3 .4. Position 0 is
 * special, and in the second lane position 2 is punctuation. */
static test_view *toy(int heads)
{
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 4, .n_layers = 1, .heads = heads });
    for (int l = 0; l < heads; l++) {
        set_stat(t, l, 0, (const float[]){ 2.5f, 0.7f, 0.4f, 0.4f });
        set_stat(t, l, 1, (const float[]){ 1, 0.4f, 0.3f, 0.4f });
    }
    test_view_flag(t, 0, WN_FLAG_SPECIAL);
    return t;
}

#define FASTGEN "fastgen(first=0,local=0.25,frequent="

/* Special tokens recover .625, with the own token .900. */
static void fastgen_climbs_the_ladder(void **state)
{
    (void)state;
    test_view *t = toy(1);
    test_view_decide(t, FASTGEN "0,recover=0.6)");
    assert_true(t->policy.n_stats == 2 && t->policy.stats[0].within == 0 && t->policy.stats[1].within == 0.25f);
    assert_true(t->policy.stats[0].reduce == WN_REDUCE_MEAN && t->policy.stats[1].reduce == WN_REDUCE_MEAN);
    STAYS(t, 0, 0);
    test_view_decide(t, FASTGEN "0,recover=0.85)");
    STAYS(t, 0, 0, 3);
    test_view_decide(t, FASTGEN "0,recover=0.95)");
    STAYS(t, 0, 0, 1, 2, 3);
    test_view_decide(t, FASTGEN "0.5,recover=0.75)");   /* 0 and 1 have most: .8 */
    STAYS(t, 0, 0, 1);
    test_view_flag(t, 2, WN_FLAG_PUNCTUATION);
    test_view_decide(t, FASTGEN "0.5,recover=0.7)");    /* 2.9 of 4 */
    STAYS(t, 0, 0, 2);
    test_view_decide(t, FASTGEN "0.5,recover=0.75)");   /* 3.6 of 4 */
    STAYS(t, 0, 0, 1, 2);
    test_view_decide(t, FASTGEN "0.5,recover=0.95)");   /* and the own token of each query: all of it */
    STAYS(t, 0, 0, 1, 2, 3);
    test_view_close(t);
}

/* More to recover never means a cheaper rule; nothing to recover the first one, more than all there is the last. */
static void fastgen_is_monotone(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        test_view *t = test_view_open(&(test_shape){ .n_tokens = 60, .n_layers = 1, .heads = 1 });
        int before = 0;
        for (int p = 0; p < 60; p++) {
            *test_view_stat(t, 0, 1, p) = *test_view_stat(t, 0, 0, p) * (float)(test_rand(&seed) % 100) / 100;
            test_view_flag(t, p, (unsigned)(test_rand(&seed) % 8));     /* a bit that nobody knows among them */
        }
        for (int k = 0; k <= 22; k++) {
            char kv[60];
            snprintf(kv, sizeof kv, "fastgen(first=0,recover=%g)", k * 0.05);
            test_view_decide(t, kv);
            int n = test_view_n_stays(t, 0);
            if (n < before) fail_msg("%s: %d slots, %d with less to recover", kv, n, before);
            before = n;
            for (int p = 0; p < 60 && !k; p++) assert_int_equal(test_view_stays(t, 0, p), t->view.flags[p] & WN_FLAG_SPECIAL);
        }
        assert_int_equal(before, 60);
        test_view_close(t);
    }
}

/* Each head has its own rule; one that looks at special tokens alone pays for one that looks everywhere. @ is a ceiling. */
static void fastgen_heads_differ(void **state)
{
    (void)state;
    test_view *t = toy(2);
    set_stat(t, 1, 0, (const float[]){ 3.9f, 0, 0, 0.1f });
    test_view_decide(t, FASTGEN "0,recover=0.95)");
    STAYS(t, 0, 0, 1, 2, 3);
    STAYS(t, 1, 0);
    test_view_decide(t, FASTGEN "0,recover=0.95)@50%"); /* 4 slots, 4 to 1: 3 and 1 */
    STAYS(t, 0, 0, 1, 3);
    STAYS(t, 1, 0);
    test_view_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fastgen_climbs_the_ladder),
        cmocka_unit_test(fastgen_is_monotone),
        cmocka_unit_test(fastgen_heads_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
