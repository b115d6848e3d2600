/* The worked examples of recipes that probe: what they make of the statistics of a probe's
 * queries, which tests/unit/engine/probe.c compares with those queries themselves. */
#include "tests/support/stays.h"

#include "policy/stages/stages.h"

static test_view *small(int n, int layers, int heads)
{
    return test_view_open(&(test_shape){ .n_tokens = n, .n_layers = layers, .heads = heads });
}

static void set_stats(test_view *t, int lane, const float *x)
{
    for (int p = 0; p < t->shape.n_tokens; p++) *test_view_stat(t, lane, 0, p) = x[p];
}

/* ---- KVzip -------------------------------------------------------------------------------- */

/* Four slots in each of three lanes of two layers: the six best of all twelve, one lane has
 * none. */
static void kvzip_has_one_threshold(void **state)
{
    (void)state;
    static const float most[4][4] = { { .9f, .1f, .8f, .7f },
                                      { .6f, .05f, .02f, .65f },
                                      { .04f, .03f, .01f, .02f },
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
    test_view_decide(t, "kvzip(first=1)@50%");          /* the first slot of every lane is paid
                                                           for */
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
    window[12] = 8;                                     /* the last two queries saw it, and they
                                                           stay */
    test_view_votes(t, 0, window);
    test_view_decide(t, "laq(window=2,kernel=1)@4");
    STAYS(t, 0, 6, 12, 18, 19);
    test_view_close(t);
}

/* ---- KVCompose ---------------------------------------------------------------------------- */

/* Composites 8, 4, 1.5 and 2.5 three times: of three, two are the first layer's. */
static void kvcompose_ranks_by_hand(void **state)
{
    (void)state;
    static const float a[3] = { 9, 5, 1 }, b[3] = { 3, 2, 7 }, c[3] = { 4, 4, 4 },
                       d[3] = { 1, 1, 1 };
    const float *scores[4] = { a, b, c, d };
    static const struct { int budget, least, first_widest, want[2];
    } cases[] = { { 6, 0, 0, { 2, 1 } }, { 4, 0, 0, { 2, 0 } },  { 4, 1, 0, { 1, 1 } },
                  { 7, 0, 0, { 2, 1 } }, { 12, 0, 0, { 3, 3 } }, { 10, 0, 0, { 2, 3 } },
                  { 6, 0, 1, { 3, 0 } }, { 6, 3, 0, { 3, 0 } },  { 1, 0, 0, { 0, 0 } } };
    test_view *t = small(3, 2, 2);
    test_view_decide(t, "kvcompose@1");
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        int64_t keep[4];
        t->view.budget = cases[i].budget;
        wn_alloc_ranks(&t->view, cases[i].least, cases[i].first_widest, scores, keep);
        for (int l = 0; l < 4; l++)
            if (keep[l] != cases[i].want[l / 2])
                fail_msg("case %zu: lane %d keeps %d", i, l, (int)keep[l]);
    }
    test_view_close(t);
}

/* Layer 0: .9 .1 .5 and .3 .31 .2, mean .6 .205 .35, together 1.5 .305 .85 and .9 .515 .55: the
 * second head takes 0 and 2, where alone it would take 1 and 0. Composites 1.2, .7, .41, and .5 in
 * layer 1. */
static void kvcompose_heads_hear_each_other(void **state)
{
    (void)state;
    static const float most[4][3] = {
        { .9f, .1f, .5f }, { .3f, .31f, .2f }, { .4f, .4f, .4f }, { .1f, .1f, .1f }
    };
    test_view *t = small(3, 2, 2);
    for (int l = 0; l < 4; l++) set_stats(t, l, most[l]);
    test_view_decide(t, "kvcompose(least=0)@50%");
    STAYS(t, 0, 0, 2);
    STAYS(t, 1, 0, 2);
    STAYS(t, 2, 0);
    STAYS(t, 3, 0);
    test_view_decide(t, "kvcompose(least=0,widest=first)@50%");
    STAYS(t, 0, 0, 1, 2);
    assert_int_equal(test_view_n_stays(t, 2), 0);
    static const int32_t gone[2] = { 1, 2 };            /* the second head lost 0: the others hear
                                                           nothing of it there */
    test_view_set(t, 1, gone, 2);
    test_view_decide(t, "kvcompose(least=0)@1");        /* 1.35 .305 .85 and .515 .55: composites
                                                           .95, .6825, .1525 */
    STAYS(t, 0, 0, 2);
    STAYS(t, 1, 1, 2);
    assert_int_equal(test_view_total(t), 4);
    test_view_close(t);
}

/* Lanes of a layer keep equally many, a larger budget keeps what a smaller one did, and of the
 * budget less than a composite slot is left over. */
static void kvcompose_is_even_and_nested(void **state)
{
    (void)state;
    enum { N = 60, LAYERS = 3, HEADS = 4 };
    uint64_t rng = 7;
    test_view *t = small(N, LAYERS, HEADS);
    for (int l = 0; l < LAYERS * HEADS; l++)
        for (int i = 0; i < N; i++)
            *test_view_stat(t, l, 0, i) = (float)(test_rand(&rng) % 32) / 32; /* with ties */
    bool before[LAYERS * HEADS][N] = { { false } };
    for (int slots = 1; slots < N; slots++) {
        char kv[40];
        snprintf(kv, sizeof kv, "kvcompose@%d", slots);
        test_view_decide(t, kv);
        assert_in_range(test_view_total(t), slots * LAYERS * HEADS - HEADS + 1,
                        slots * LAYERS * HEADS);
        for (int l = 0; l < LAYERS * HEADS; l++) {
            assert_int_equal(test_view_n_stays(t, l), test_view_n_stays(t, l / HEADS * HEADS));
            for (int i = 0; i < N; i++) {
                if (before[l][i]) assert_true(test_view_stays(t, l, i));
                before[l][i] = test_view_stays(t, l, i);
            }
        }
    }
    test_view_close(t);
}

/* ---- EpiCache ----------------------------------------------------------------------------- */

/* Half of 16 slots, four for each layer: the first layer's four best are three of the one head and
 * one of the other; the second layer, whose weights are a tenth, has as many. */
static void epicache_heads_share_a_layer(void **state)
{
    (void)state;
    static const float most[4][4] = { { .1f, .8f, .7f, .9f },
                                      { .6f, .2f, .1f, .05f },
                                      { .01f, .03f, .02f, .04f },
                                      { .05f, .09f, .08f, .07f } };
    test_view *t = small(4, 2, 2);
    for (int l = 0; l < 4; l++) set_stats(t, l, most[l]);
    test_view_decide(t, "epicache@50%");
    STAYS(t, 0, 1, 2, 3);
    STAYS(t, 1, 0);
    assert_int_equal(test_view_n_stays(t, 2), 0);
    STAYS(t, 3, 0, 1, 2, 3);
    test_view_decide(t, "epicache(first=1)@50%");       /* a slot that every lane keeps is paid
                                                           for */
    assert_int_equal(test_view_total(t), 8);
    STAYS(t, 2, 0);
    test_view_close(t);
}

/* Likeness .9 .7 .6 .8, 400 slots: 0 133 200 67; with a floor of 25 that is 425, scaled back to
 * 400. Squared: 0, 114.3, 257.1, 28.6. All alike, or as good as: evenly, and not 0 / 0. */
static void epicache_layers_by_hand(void **state)
{
    (void)state;
    static const struct { double alike[4], power, least; int want[4];
    } cases[] = { { { .9, .7, .6, .8 }, 1, 0, { 0, 133, 200, 67 } },
                  { { .9, .7, .6, .8 }, 1, 0.25, { 24, 125, 188, 63 } },
                  { { .9, .7, .6, .8 }, 2, 0, { 0, 114, 257, 29 } },
                  { { .5, .5, .5, .5 }, 1, 0.25, { 100, 100, 100, 100 } },
                  { { .5, .5, .5 + 1e-12, .5 }, 2, 0, { 100, 100, 100, 100 } } };
    test_view *t = small(1000, 4, 1);
    test_view_decide(t, "epicache@100");
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        int64_t keep[4];
        t->view.budget = 400;
        wn_alloc_sensitive(&t->view, cases[i].alike, cases[i].power, cases[i].least, keep);
        for (int l = 0; l < 4; l++)
            if (keep[l] != cases[i].want[l])
                fail_msg("case %zu: layer %d gets %d", i, l, (int)keep[l]);
    }
    test_view_hide(t, 2);                               /* a window layer takes no part */
    test_view_decide(t, "epicache@100");
    int64_t keep[4];
    wn_alloc_sensitive(&t->view, cases[0].alike, 1, 0, keep);
    assert_true(keep[0] == 0 && keep[1] == 200 && keep[2] == 0 && keep[3] == 100);
    test_view_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kvzip_has_one_threshold),
        cmocka_unit_test(kvzip_ties),
        cmocka_unit_test(kvzip_is_not_of_the_text),
        cmocka_unit_test(laq_pools_the_largest),
        cmocka_unit_test(kvcompose_ranks_by_hand),
        cmocka_unit_test(kvcompose_heads_hear_each_other),
        cmocka_unit_test(kvcompose_is_even_and_nested),
        cmocka_unit_test(epicache_heads_share_a_layer),
        cmocka_unit_test(epicache_layers_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
