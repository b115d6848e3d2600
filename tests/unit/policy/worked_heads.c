/* Examples by hand for recipes that go by a profile of the model or share budgets between layers:
 * the made-up profile has the largest needle, copy and loss in lane 1, and query heads whose loss
 * rises with their number. */
#include "tests/support/stays.h"

#include "policy/stages/stages.h"

/* 4 lanes, one of them whole: lane 1 keeps 400, the others 2 sinks and 6 recent ones. */
static void duoattention_keeps_lanes_whole(void **state)
{
    (void)state;
    static const char *const same[] = { "duoattention(first=2,recent=6)@25%",
                                        "duoattention(first=2,recent=6)@106",
                                        "duoattention(first=2,recent=6)@150" };
    for (int i = 0; i < 3; i++) {       /* 106 = (400 + 3 * 8) / 4; with 150 a second lane does not
                                           fit */
        test_view *t = test_view_open(&(test_shape){ .n_tokens = 400, .n_layers = 2, .heads = 2 });
        test_view_decide(t, same[i]);
        assert_int_equal(test_view_n_stays(t, 1), 400);
        if (i < 2) STAYS(t, 3, 0, 1, 394, 395, 396, 397, 398, 399);
        assert_true(test_view_total(t) <= (i < 2 ? 424 : 600));
        test_view_close(t);
    }
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 400, .n_layers = 2, .heads = 2 });
    test_view_decide(t, "duoattention(first=2,recent=6)@0.1%");         /* none is whole */
    assert_int_equal(test_view_total(t), 32);
    assert_true(wn_plan_is_empty(test_view_decide(t, "duoattention(first=2,recent=6)@100%")));
    assert_true(wn_plan_is_empty(test_view_decide(t, "duoattention(first=2,recent=398)@25%")));
    test_view_close(t);
}

/* What the other lanes forget is one slot with the mean of its keys, counted as so many tokens. */
static void razorattention_compensates(void **state)
{
    (void)state;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 40, .n_layers = 1, .heads = 2 });
    const wn_plan *p = test_view_decide(t, "razorattention(first=2,recent=5,echo=0)@50%");
    int whole = test_view_n_stays(t, 0) == 40 ? 0 : 1, other = 1 - whole;
    assert_int_equal(test_view_n_stays(t, whole), 40);
    assert_int_equal(test_view_n_stays(t, other), 8);
    assert_int_equal(p->n_merges, 1);
    assert_int_equal(p->merges[0].count, 33);
    /* nothing is gone: no slot */
    assert_true(wn_plan_is_empty(test_view_decide(t, "razorattention(first=2,recent=37)@50%")));
    test_view_close(t);
}

/* Needs of the layers' heads, 4 per layer: the best scores over all layers fill the budget. Votes
 * .9 .8 .1 and .2 .15 .05 and two slots: both go to the first layer. */
static void dynamickv_lets_layers_compete(void **state)
{
    (void)state;
    static const float a[4] = { 0.9f, 0.8f, 0.1f, 0 }, b[4] = { 0.2f, 0.15f, 0.05f, 0 };
    const float *scores[2] = { a, b };
    int64_t wins[2];
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 4, .n_layers = 2, .heads = 1 });
    test_view_decide(t, "dynamickv@3");
    wn_alloc_best(&t->view, 0, 2, scores, 2, wins);
    assert_true(wins[0] == 2 && wins[1] == 0);
    wn_alloc_best(&t->view, 0, 2, scores, 4, wins);
    assert_true(wins[0] == 2 && wins[1] == 2);
    test_view_close(t);
    float *votes = calloc(2000, sizeof *votes);         /* layer 0 has 150 high ones, layer 1
                                                           none */
    t = test_view_open(&(test_shape){ .n_tokens = 1000, .n_layers = 2, .heads = 1, .group = 1 });
    for (int i = 0; i < 1000; i++) {
        votes[i] = i < 150 ? 1 : 0.001f;
        votes[1000 + i] = 0.01f;
    }
    test_view_votes(t, 0, votes);
    test_view_votes(t, 1, votes + 1000);
    /* 200: 8 + 8 of the window, 150, the rest to layer 1 */
    test_view_decide(t, "dynamickv(window=8,kernel=1)@100");
    assert_int_equal(test_view_total(t), 200);
    assert_true(test_view_n_stays(t, 0) == 158 && test_view_n_stays(t, 1) == 42);
    test_view_decide(t, "dynamickv(window=8,kernel=1,most=1.2)@100");
    assert_int_equal(test_view_n_stays(t, 0), 120);
    test_view_close(t);
    free(votes);
}

/* 4 layers, span 2: rungs of every second unit, the next layer one unit later. Of 64 slots 32 are
 * no longer recent: a pass is 16 tokens long. Layer 0: units 1, 3, 5 .. outlive none, 2, 6, 10 ..
 * one, 4 and 12 two, 8 three, 0 all; what they outlive times 16 and their first position is their
 * score, and the best 8 of 16 units stay. */
static void lacache_ladder(void **state)
{
    (void)state;
    static const bool first[16] = {
        [0] = 1, [4] = 1, [8] = 1, [10] = 1, [12] = 1, [13] = 1, [14] = 1, [15] = 1
    };
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 64, .n_layers = 4, .heads = 1 });
    test_view_decide(t, "lacache(unit=4,recent=0,first=0)@32");
    for (int p = 0; p < 63; p++) assert_true(test_view_stays(t, 0, p) == first[p / 4]);
    for (int u = 7; u < 15; u++)                /* thinned out once: what one layer drops, its
                                                   neighbour has */
        assert_true(test_view_stays(t, 0, 4 * u) || test_view_stays(t, 1, 4 * u));
    for (int l = 0; l < 4; l++) assert_int_equal(test_view_n_stays(t, l), 32);
    test_view_decide(t, "lacache(unit=4,recent=0.5,first=4)@32");
    for (int l = 0; l < 4; l++)
        for (int p = 0; p < 64; p++)
            if (p < 4 || p >= 48) assert_true(test_view_stays(t, l, p));
    test_view_close(t);
}

/* A text 20 times the budget, decided every 16 tokens: a window would end 64 tokens back; of the
 * ladder every layer reaches more than twice as far, thinner by halves, and the budget is full. */
static void lacache_reaches_far(void **state)
{
    (void)state;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 64, .max_tokens = 1400, .n_layers = 4,
                                                 .heads = 1 });
    while (t->view.n_tokens < 1280) {
        test_view_grow(t, 16);
        test_view_decide(t, "lacache(unit=2,recent=0,first=0)@64");
        test_view_carry_out(t);
    }
    for (int l = 0; l < 4; l++) {
        const wn_view_lane *lane = &t->shown[l];
        int near = 0, far = 0;
        assert_int_equal(lane->n, 64);
        for (int i = 0; i < lane->n; i++) {
            int back = t->view.n_tokens - lane->pos[i];
            near += back <= 32;
            far += back > 128;
        }
        assert_int_equal(near, 32);
        assert_true(far >= 4);
    }
    test_view_close(t);
}

/* Layer means 2.8 .8 .4 0 even shares at 4 slots. */
static void mpcache_has_a_threshold(void **state)
{
    (void)state;
    static const float votes[6] = { 0.7f, 0.2f, 0.07f, 0.01f, 0.02f, 0 };
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 6, .n_layers = 1, .heads = 2 });
    test_view_votes(t, 0, votes);
    test_view_votes(t, 1, votes);
    test_view_decide(t, "mpcache(window=1,threshold=0.4)");     /* even: 1/6; .07 is .42 of it */
    STAYS(t, 0, 0, 1, 2, 5);
    STAYS(t, 1, 0, 1, 2, 5);
    test_view_decide(t, "mpcache(window=1,threshold=0.5)");
    STAYS(t, 0, 0, 1, 5);
    assert_true(wn_plan_is_empty(test_view_decide(t, "mpcache(window=1,threshold=0)")));
    test_view_close(t);
}

/* All heads of the made-up profile have the same span: the mean over the layer, one list. Losses of
 * .25 and .1667: the first layer gets more. */
static void compresskv_one_list_per_layer(void **state)
{
    (void)state;
    float a[200] = { 0 }, b[200] = { 0 };
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 200, .n_layers = 2, .heads = 2,
                                                 .group = 1 });
    a[3] = 0.4f;
    b[90] = 0.6f;
    for (int l = 0; l < 4; l++) test_view_votes(t, l, l % 2 ? b : a);
    test_view_decide(t, "compresskv(window=1,kernel=1,least=4)@20");
    for (int l = 0; l < 4; l++) assert_true(test_view_stays(t, l, 3) && test_view_stays(t, l, 90));
    assert_int_equal(test_view_total(t), 80);
    assert_true(test_view_n_stays(t, 0) > test_view_n_stays(t, 2) &&
                test_view_n_stays(t, 0) == test_view_n_stays(t, 1));
    test_view_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(duoattention_keeps_lanes_whole),
        cmocka_unit_test(razorattention_compensates),
        cmocka_unit_test(dynamickv_lets_layers_compete),
        cmocka_unit_test(lacache_ladder),
        cmocka_unit_test(lacache_reaches_far),
        cmocka_unit_test(mpcache_has_a_threshold),
        cmocka_unit_test(compresskv_one_list_per_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
