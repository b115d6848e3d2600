/* Examples by hand for the recipes that keep statistics of all queries. Most begin with four
 * queries of one head that give 1 | .6 .4 | .5 .2 .3 | .4 .1 .1 .4: what the statistics are then
 * is written down here (tests/unit/attention/accumulate.c has how they come about). */
#include "tests/support/stays.h"

#include <math.h>

static test_view *small(int n)
{
    return test_view_open(&(test_shape){ .n_tokens = n, .n_layers = 1, .heads = 1 });
}

static void set_stat(test_view *t, int stat, const float *x)
{
    for (int p = 0; p < t->view.n_tokens; p++) *test_view_stat(t, 0, stat, p) = x[p];
}

static void check_stat(const test_view *t, int i, wn_stat_kind kind, double decay, double threshold)
{
    assert_true(t->policy.stats[i].kind == kind &&
                fabs((double)t->policy.stats[i].decay - decay) < 1e-6 &&
                fabs((double)t->policy.stats[i].threshold - threshold) < 1e-9);
}

/* alpha .5: .925 .300 .250 .400; alpha 1: 2.5 .7 .4 .4, where 2 and 3 tie. */
static void a2sf_forgets(void **state)
{
    (void)state;
    test_view *t = small(4);
    set_stat(t, 0, (const float[]){ 0.925f, 0.3f, 0.25f, 0.4f });
    test_view_decide(t, "a2sf(recent=0)@2");
    check_stat(t, 0, WN_STAT_SUM, 0.5, 0);
    STAYS(t, 0, 0, 3);
    test_view_decide(t, "a2sf(recent=0)@3");
    STAYS(t, 0, 0, 1, 3);
    set_stat(t, 0, (const float[]){ 2.5f, 0.7f, 0.4f, 0.4f });
    test_view_decide(t, "a2sf(recent=0,alpha=1)@3");
    check_stat(t, 0, WN_STAT_SUM, 0, 0);                /* nothing is forgotten */
    STAYS(t, 0, 0, 1, 2);
    test_view_decide(t, "a2sf(alpha=1)@2");
    STAYS(t, 0, 0, 3);
    test_view_close(t);
}

/* Means .625 .233 .2 .4; squares .36+1+.25+.16, .16+.04+.01, .09+.01, .16 give deviations .23 .12
 * .1 0. Position 1 has a larger mean than 2, and both are below 3: one spared slot makes no
 * difference, with two position 1 passes 3. */
static void roco_spares_what_varies(void **state)
{
    (void)state;
    test_view *t = small(4);
    set_stat(t, 0, (const float[]){ 2.5f, 0.7f, 0.4f, 0.4f });
    set_stat(t, 1, (const float[]){ 1.77f, 0.21f, 0.1f, 0.16f });
    test_view_decide(t, "roco(recent=0,spared=0.5)@2");
    check_stat(t, 1, WN_STAT_SQUARES, 0, 0);
    STAYS(t, 0, 0, 3);
    test_view_decide(t, "roco(recent=0,spared=1)@2");
    STAYS(t, 0, 0, 1);
    test_view_decide(t, "roco(recent=1,spared=1)@2");
    STAYS(t, 0, 0, 3);
    test_view_close(t);
}

/* Of the queries that saw them, 4 of 4, 0 of 3, 0 of 2 and 1 of 1 gave an even share: low 0 3 2
 * 0. */
static void scissorhands_counts_what_was_low(void **state)
{
    (void)state;
    test_view *t = small(4);
    set_stat(t, 0, (const float[]){ 4, 0, 0, 1 });
    test_view_decide(t, "scissorhands(recent=1,history=1000000)@3");
    check_stat(t, 0, WN_STAT_HITS, 0.999999, 1);
    assert_true(t->policy.stats[0].even);
    STAYS(t, 0, 0, 2, 3);
    test_view_decide(t, "scissorhands(recent=0,history=1000000)@2");
    STAYS(t, 0, 0, 3);
    set_stat(t, 0, (const float[]){ 3, 2, 1, 0 });  /* each was low once: the later ones stay */
    test_view_decide(t, "scissorhands(recent=0,history=1000000)@2");
    STAYS(t, 0, 2, 3);
    /* history 2: a query is worth half of the next. Position 0 was last looked at by the first
     * query. */
    set_stat(t, 0, (const float[]){ 0.125f, 0.5f, 1, 1 });      /* of 1.875 1.75 1.5 1 */
    test_view_decide(t, "scissorhands(recent=0,history=2)@1");
    STAYS(t, 0, 3);
    test_view_close(t);
}

static void scissorhands_may_give_late_layers_more(void **state)
{
    (void)state;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 100, .n_layers = 3, .heads = 1 });
    test_view_decide(t, "scissorhands(late=3)@30");
    for (int l = 0; l < 3; l++) assert_int_equal(test_view_n_stays(t, l), 15 * (l + 1));
    test_view_close(t);
}

/* Two queries have a say. Row 2 gives a third to 0 alone, row 3 a quarter to 0 and 3; 2 is too
 * young to go. */
static void corm_asks_the_last_queries(void **state)
{
    (void)state;
    test_view *t = small(4);
    set_stat(t, 0, (const float[]){ 3, 1, 2, 3 });      /* the last query that gave an even share,
                                                           at first its own */
    test_view_decide(t, "corm(window=2,recent=0)");
    check_stat(t, 0, WN_STAT_LAST, 0, 1);
    STAYS(t, 0, 0, 2, 3);
    test_view_decide(t, "corm(window=1,recent=0)");
    STAYS(t, 0, 0, 3);
    test_view_decide(t, "corm(window=1,recent=3)");
    STAYS(t, 0, 0, 1, 2, 3);
    test_view_decide(t, "corm(window=2,recent=0)@2");   /* a ceiling: the longest unseen goes
                                                           first */
    STAYS(t, 0, 0, 3);
    assert_true(wn_plan_is_empty(test_view_decide(t, "corm(window=1,recent=0)@4")));
    assert_true(wn_plan_is_empty(test_view_decide(t, "corm(window=4)")));
    test_view_close(t);
}

/* At 100: hit at 90 with gaps up to 20: .755 + .975; hit at 10 with gaps up to 5: 3e-8 + .900; a
 * slot that never came back counts as if its gap were 1: at 95, .013 + .538. */
static void lazyeviction_waits(void **state)
{
    (void)state;
    static const int32_t live[] = { 3, 7, 95 };
    test_view *t = small(101);
    test_view_set(t, 0, live, 3);
    *test_view_stat(t, 0, 0, 3) = 20;
    *test_view_stat(t, 0, 1, 3) = 90;
    *test_view_stat(t, 0, 0, 7) = 5;
    *test_view_stat(t, 0, 1, 7) = 10;
    *test_view_stat(t, 0, 0, 95) = 0;
    *test_view_stat(t, 0, 1, 95) = 95;
    test_view_decide(t, "lazyeviction(window=0)@2");
    check_stat(t, 0, WN_STAT_GAP, 0, 1e-3);
    check_stat(t, 1, WN_STAT_LAST, 0, 1e-3);
    STAYS(t, 0, 3, 7);
    test_view_decide(t, "lazyeviction(window=0)@1");
    STAYS(t, 0, 3);
    test_view_decide(t, "lazyeviction(window=6)@1");    /* positions, not places: 95 is among the
                                                           last six */
    STAYS(t, 0, 95);
    test_view_close(t);
}

/* Sums .7 .2 .05 .05 and .25 each: for a share of .5 one slot and two, .7 one and three, .75 two
 * and three, .9 two and four. */
static void prefixkv_keeps_the_same_share(void **state)
{
    (void)state;
    static const float sums[2][4] = { { 0.7f, 0.2f, 0.05f, 0.05f },
                                      { 0.25f, 0.25f, 0.25f, 0.25f } };
    static const struct { const char *kv; int a, b; } cases[] = {
        { "prefixkv(first=0,last=0)@37.5%", 1, 2 }, { "prefixkv(first=0,last=0)@2", 1, 3 },
        { "prefixkv(first=0,last=0)@62.5%", 2, 3 }, { "prefixkv(first=0,last=0)@3", 2, 4 } };
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 4, .n_layers = 2, .heads = 1 });
    for (int l = 0; l < 2; l++)
        for (int p = 0; p < 4; p++) *test_view_stat(t, l, 0, p) = sums[l][p];
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        test_view_decide(t, cases[i].kv);
        for (int p = 0; p < 4; p++)
            assert_true(test_view_stays(t, 0, p) == (p < cases[i].a) &&
                        test_view_stays(t, 1, p) == (p < cases[i].b));
    }
    check_stat(t, 0, WN_STAT_SUM, 0, 0);
    test_view_close(t);
}

/* Half in one slot and the rest in 50, against ten alike: half of it all takes 1 and 5, nine tenths
 * 41 and 9. Which layer gets more turns with the budget, so no fixed share will do. */
static void prefixkv_searches_the_share(void **state)
{
    (void)state;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 51, .n_layers = 2, .heads = 1 });
    for (int p = 0; p < 51; p++) {
        *test_view_stat(t, 0, 0, p) = p == 7 ? 0.5f : 0.01f;
        *test_view_stat(t, 1, 0, p) = p >= 20 && p < 30 ? 0.1f : 0;
    }
    for (int at = 3; at <= 25; at += 22) {
        char kv[40];
        snprintf(kv, sizeof kv, "prefixkv(first=0)@%d", at);
        test_view_decide(t, kv);
        assert_int_equal(test_view_n_stays(t, 0), at == 3 ? 1 : 41);
        assert_int_equal(test_view_n_stays(t, 1), at == 3 ? 5 : 9);
        assert_true(test_view_stays(t, 0, 7) && test_view_stays(t, 1, 20));
    }
    test_view_close(t);
}

/* One list per layer, of the mean over its heads; what all of the attention leaves of a budget is
 * split, too. */
static void prefixkv_one_list_per_layer(void **state)
{
    (void)state;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 100, .n_layers = 2, .heads = 2 });
    for (int l = 0; l < 4; l++)
        for (int p = 0; p < 100; p++) *test_view_stat(t, l, 0, p) = p < (l < 2 ? 5 : 15) ? 1 : 0;
    *test_view_stat(t, 0, 0, 50) = 9;
    test_view_decide(t, "prefixkv(first=0)@9");
    for (int l = 0; l < 2; l++) assert_true(test_view_stays(t, l, 50));
    assert_int_equal(test_view_n_stays(t, 0), test_view_n_stays(t, 1));
    assert_true(test_view_n_stays(t, 0) < test_view_n_stays(t, 2));
    *test_view_stat(t, 0, 0, 50) = 0;
    test_view_decide(t, "prefixkv(first=0)@40");  /* 5 and 15 hold all: one to three */
    for (int l = 0; l < 4; l++) assert_int_equal(test_view_n_stays(t, l), l < 2 ? 20 : 60);
    test_view_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a2sf_forgets),
        cmocka_unit_test(roco_spares_what_varies),
        cmocka_unit_test(scissorhands_counts_what_was_low),
        cmocka_unit_test(scissorhands_may_give_late_layers_more),
        cmocka_unit_test(corm_asks_the_last_queries),
        cmocka_unit_test(lazyeviction_waits),
        cmocka_unit_test(prefixkv_keeps_the_same_share),
        cmocka_unit_test(prefixkv_searches_the_share),
        cmocka_unit_test(prefixkv_one_list_per_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
