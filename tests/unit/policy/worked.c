/* The small examples by which the papers' rules can be followed by hand, one recipe after
 * the other, and the traps that re-implementations fall into: positions taken for places in
 * a list once slots are gone, sums that favour the start, groups reduced in the wrong order,
 * the edges of pooling, budgets that leave lanes of a layer apart. Recipes that look at
 * attention come here, those that look at rows in worked_rows.c. */
#include "tests/support/stays.h"

#include "policy/stages/stages.h"

#include <math.h>

static test_view *small(int n, int layers, int heads)
{
    return test_view_open(&(test_shape){ .n_tokens = n, .max_tokens = n + 2000, .n_layers = layers,
                                         .heads = heads });
}

static void check_near(double x, double want, double bound)
{
    if (!(fabs(x - want) <= bound)) fail_msg("%.6f, not %.6f", x, want);
}

/* ---- StreamingLLM ------------------------------------------------------------------------ */

/* 4 sinks and a window of 8, 20 tokens: 0..3 and 12..19 stay, and to the query at 20 they stand
 * as 0..11 do to one at 12: the sinks moved by 8. */
static void streaming_numbers_the_cache_anew(void **state)
{
    (void)state;
    static const char *const same[] = { "streaming(sinks=4,window=8)", "streaming@12" };
    for (int i = 0; i < 2; i++) {
        test_view *t = small(20, 1, 2);
        const wn_plan *p = test_view_decide(t, same[i]);
        int at = 0;
        for (int lane = 0; lane < 2; lane++) {
            STAYS(t, lane, 0, 1, 2, 3, 12, 13, 14, 15, 16, 17, 18, 19);
            int32_t s = wn_plan_first(p, lane, WN_PLAN_SHIFTS);
            assert_true(s >= 0 && p->shifts[s].next == -1);
            at = 0;
            for (int pos = 0; pos < 20; pos++) {
                if (!test_view_stays(t, lane, pos)) continue;
                int acts = pos + (pos >= p->shifts[s].from && pos < p->shifts[s].to
                                      ? p->shifts[s].delta
                                      : 0);
                assert_int_equal(20 - acts, 12 - at++);
            }
        }
        test_view_close(t);
    }
    test_view *t = small(12, 1, 1);
    assert_true(wn_plan_is_empty(test_view_decide(t, same[0])));
    test_view_close(t);
}

/* Token by token or at once: the same slots, the same shift. */
static void streaming_step_by_step(void **state)
{
    (void)state;
    test_view *t = small(10, 1, 1);
    int delta = 0;
    for (int n = 10; n <= 30; n++) {
        const wn_plan *p = test_view_decide(t, "streaming(sinks=4,window=8,every=1)");
        if (p->n_shifts) delta = p->shifts[0].delta;
        assert_int_equal(delta, n > 12 ? n - 12 : 0);
        for (int pos = 0; pos < n; pos++)
            assert_int_equal(test_view_stays(t, 0, pos), pos < 4 || pos >= n - 8);
        test_view_carry_out(t);
        if (n < 30) test_view_grow(t, 1);
    }
    test_view_close(t);
}

/* ---- H2O --------------------------------------------------------------------------------- */

/* Rows 1 | .6 .4 | .5 .2 .3 | .4 .1 .1 .4: columns sum to 2.5 .7 .4 .4; one heavy, one recent. */
static void h2o_by_hand(void **state)
{
    (void)state;
    static const float sums[4] = { 2.5f, 0.7f, 0.4f, 0.4f };
    test_view *t = small(4, 1, 1);
    for (int p = 0; p < 4; p++) *test_view_mass(t, 0, p) = sums[p];
    test_view_decide(t, "h2o@2");
    STAYS(t, 0, 0, 3);
    test_view_decide(t, "h2o(norm=seen)@2");
    STAYS(t, 0, 0, 3);
    test_view_decide(t, "h2o(recent=0)@3");             /* .4 and .4: the earlier */
    STAYS(t, 0, 0, 1, 2);
    test_view_decide(t, "h2o(recent=0,norm=seen)@2");   /* .625 .233 .200 .400 */
    STAYS(t, 0, 0, 3);
    test_view_close(t);
}

/* A sum of 2.5 from 100 queries is less than .9 from ten. */
static void h2o_the_start_is_seen_by_more(void **state)
{
    (void)state;
    test_view *t = small(100, 1, 1);
    for (int p = 0; p < 100; p++) *test_view_mass(t, 0, p) = 0.001f;
    *test_view_mass(t, 0, 0) = 2.5f;
    *test_view_mass(t, 0, 90) = 0.9f;
    test_view_decide(t, "h2o(recent=0)@1");
    STAYS(t, 0, 0);
    test_view_decide(t, "h2o(recent=0,norm=seen)@1");
    STAYS(t, 0, 90);
    test_view_close(t);
}

/* Recent is the end of the text, not of the list. */
static void h2o_after_evictions(void **state)
{
    (void)state;
    static const int32_t live[] = { 0, 1, 2, 3, 50, 99 };
    test_view *t = small(100, 1, 1);
    test_view_set(t, 0, live, 6);
    for (int i = 0; i < 6; i++) *test_view_mass(t, 0, live[i]) = live[i] == 50 ? 0.1f : 1;
    test_view_decide(t, "h2o@4");                       /* recent: 98 and 99 */
    STAYS(t, 0, 0, 1, 2, 99);
    test_view_decide(t, "h2o(recent=0)@1");
    STAYS(t, 0, 0);
    *test_view_mass(t, 0, 50) = 0.6f;                   /* from 50 queries, however many slots are
                                                           left */
    *test_view_mass(t, 0, 99) = 0;
    test_view_decide(t, "h2o(recent=0,norm=seen)@1");
    STAYS(t, 0, 50);
    test_view_close(t);
}

/* ---- TOVA --------------------------------------------------------------------------------- */

static void tova_ties_and_heads(void **state)
{
    (void)state;
    static const float toy[4] = { 0.4f, 0.1f, 0.1f, 0.4f };
    static const float a[4] = { 0.9f, 0.05f, 0.03f, 0.02f }, b[4] = { 0.1f, 0.2f, 0.3f, 0.4f };
    test_view *t = small(4, 1, 2);
    test_view_votes(t, 0, toy);
    test_view_votes(t, 1, toy);
    test_view_decide(t, "tova@3");                      /* 1 and 2 tie: the earlier stays */
    STAYS(t, 0, 0, 1, 3);
    STAYS(t, 1, 0, 1, 3);
    for (int swapped = 0; swapped < 2; swapped++) {     /* mean .5 .125 .165 .21; alone: 0 1 and 2
                                                           3 */
        test_view_votes(t, swapped, a);
        test_view_votes(t, !swapped, b);
        test_view_decide(t, "tova@2");
        STAYS(t, 0, 0, 3);
        STAYS(t, 1, 0, 3);
    }
    test_view_close(t);
}

/* A budget that does not divide by the lanes must not part them: a rule per head is another
 * method. */
static void tova_lanes_stay_together(void **state)
{
    (void)state;
    test_view *t = small(61, 2, 3);
    for (int round = 0; round < 12; round++) {
        test_view_decide(t, "tova@29%");
        for (int l = 0; l < 6; l++)
            for (int p = 0; p < t->view.n_tokens; p++)
                if (test_view_stays(t, l, p) != test_view_stays(t, l / 3 * 3, p))
                    fail_msg("round %d: lane %d", round, l);
        test_view_carry_out(t);
        test_view_grow(t, 7);
    }
    test_view_close(t);
}

/* ---- SnapKV ------------------------------------------------------------------------------- */

static void pooling_by_hand(void **state)
{
    (void)state;
    static const float votes[6] = { 0.1f, 0, 0.9f, 0, 0.05f, 0.3f };
    static const float avg[6] = { 0.0333f, 0.3333f, 0.3f, 0.3167f, 0.1167f, 0.1167f };
    static const float max[6] = { 0.1f, 0.9f, 0.9f, 0.9f, 0.3f, 0.3f };
    float x[6], tmp[6];
    for (int how = 0; how < 3; how++) {
        memcpy(x, votes, sizeof x);
        wn_stage_pool(x, 6, how == 2 ? 1 : 3, how == 1 ? WN_POOL_MAX : WN_POOL_AVG, tmp);
        for (int i = 0; i < 6; i++)     /* the ends count a zero beyond them */
            check_near((double)x[i], (double)(how == 0 ? avg : how == 1 ? max : votes)[i], 5e-5);
    }
    memcpy(x, votes, sizeof x);
    wn_stage_pool(x, 2, 63, WN_POOL_MAX, tmp);          /* wider than the list */
    check_near((double)x[1], 0.1, 1e-7);
}

static void groups_are_reduced_first(void **state)
{
    (void)state;
    static const float in[6] = { 1, 2, 6, 3, 2, 0 };    /* two heads of three slots */
    static const float want[3][3] = { { 2, 2, 3 }, { 4, 4, 6 }, { 3, 2, 6 } };
    float out[3];
    for (int how = WN_REDUCE_MEAN; how <= WN_REDUCE_MAX; how++) {
        wn_stage_reduce(out, in, 2, 3, how);
        for (int i = 0; i < 3; i++) check_near((double)out[i], (double)want[how][i], 0);
    }
}

static void snapkv_by_hand(void **state)
{
    (void)state;
    static const float votes[8] = { 0.1f, 0, 0.9f, 0, 0.05f, 0.3f, 5, 5 };
    test_view *t = small(8, 1, 1);
    test_view_votes(t, 0, votes);
    test_view_decide(t, "snapkv(window=2,kernel=3,pool=avg)@5");
    STAYS(t, 0, 1, 2, 3, 6, 7);
    test_view_decide(t, "snapkv(window=2,kernel=3,pool=max)@5");
    STAYS(t, 0, 1, 2, 3, 6, 7);
    test_view_decide(t, "snapkv(window=2,kernel=1)@5");
    STAYS(t, 0, 0, 2, 5, 6, 7);
    test_view_decide(t, "snapkv(window=2,kernel=1,reduce=sum)@5");
    STAYS(t, 0, 0, 2, 5, 6, 7);
    test_view_decide(t, "snapkv(window=4,kernel=1)@2"); /* less than the window: its end */
    STAYS(t, 0, 6, 7);
    test_view_close(t);
}

/* Queries before the window have no vote. */
static void snapkv_hears_the_window_only(void **state)
{
    (void)state;
    bool stays[40];
    test_view *t = small(40, 1, 1);
    test_view_decide(t, "snapkv(window=8)@20");
    for (int p = 0; p < 40; p++) stays[p] = test_view_stays(t, 0, p);
    for (int p = 0; p < 32; p++)
        for (int h = 0; h < 2; h++) test_view_query(t, 0, p, h)[0] = 50;
    test_view_decide(t, "snapkv(window=8)@20");
    for (int p = 0; p < 40; p++) assert_int_equal(test_view_stays(t, 0, p), stays[p]);
    test_view_close(t);
}

/* Position 6 is gone: the window of two queries has one slot, and 5 is none of it: it is
 * pooled with 2 (.1667 .4667 .4). */
static void snapkv_after_evictions(void **state)
{
    (void)state;
    static const int32_t live[] = { 0, 2, 5, 7 };
    static const float votes[] = { 0.2f, 0.3f, 0.9f, 0 };
    test_view *t = small(8, 1, 1);
    test_view_set(t, 0, live, 4);
    test_view_votes(t, 0, votes);
    test_view_decide(t, "snapkv(window=2,kernel=3)@2");
    STAYS(t, 0, 2, 7);
    test_view_close(t);
}

/* ---- PyramidKV ---------------------------------------------------------------------------- */

/* 32 layers; the slots of the first and of the last beside the window, and all of them. */
static void check_pyramid(int n, int capacity, int window, int first, int last)
{
    int64_t keep[32], sum = 0;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = n, .n_layers = 32, .heads = 1,
                                                 .group = 1, .dim = 1 });
    t->view.budget = 32 * capacity;
    wn_alloc_pyramid(&t->view, 20, window, 1, keep);
    for (int l = 0; l < 32; l++) {
        if (l && keep[l] > keep[l - 1]) fail_msg("layer %d gets more than the one before", l);
        sum += keep[l];
    }
    assert_int_equal(sum, 32 * capacity);
    check_near((double)keep[0], first + window, 1);
    check_near((double)keep[31], last + window, 1);
    test_view_close(t);
}

static void pyramids_by_hand(void **state)
{
    (void)state;
    check_pyramid(1000, 128, 8, 234, 6);
    check_pyramid(8192, 2048, 8, 3978, 102);
    check_pyramid(150, 128, 8, 142, 98);        /* the first layer has no more: a flatter line, the
                                                   same sum */
    check_pyramid(128, 128, 8, 120, 120);
    check_pyramid(1000, 8, 8, 0, 0);            /* nothing beside the window */
}

/* ---- AdaKV -------------------------------------------------------------------------------- */

static void check_ada(const test_view *t, int a, int b)
{
    assert_int_equal(test_view_n_stays(t, 0), a);
    assert_int_equal(test_view_n_stays(t, 1), b);
}

/* Four slots and one of the window; of base 2 the joint best are 4 and 0. */
static void adakv_by_hand(void **state)
{
    (void)state;
    static const float a[5] = { 0.40f, 0.30f, 0.15f, 0.10f, 0 },
                       b[5] = { 0.08f, 0.06f, 0.04f, 0.03f, 0 };
    static const float *const votes[2] = { a, b };
    test_view *t = small(5, 1, 2);
    test_view_votes(t, 0, a);
    test_view_votes(t, 1, b);
    test_view_decide(t, "adakv(window=1,kernel=1,floor=0)@3");
    check_ada(t, 4 + 1, 0 + 1);
    double kept = 0;
    for (int l = 0; l < 2; l++)
        for (int p = 0; p < 4; p++) kept += test_view_stays(t, l, p) ? (double)votes[l][p] : 0;
    check_near(kept, 0.95, 1e-6);               /* uniform: .84 */
    test_view_decide(t, "adakv(window=1,kernel=1,floor=0.2)@3");        /* 3.6 and .4 */
    check_ada(t, 4 + 1, 0 + 1);
    test_view_decide(t, "adakv(window=1,kernel=1,floor=1)@3");
    check_ada(t, 2 + 1, 2 + 1);
    STAYS(t, 0, 0, 1, 4);
    STAYS(t, 1, 0, 1, 4);
    test_view_close(t);
}

/* 17 and 3 of the best 20; with a fifth of base 10 spread evenly 15.6 and 4.4. */
static void adakv_rounds_to_the_total(void **state)
{
    (void)state;
    float votes[2][41] = { 0 };
    test_view *t = small(41, 1, 2);
    for (int l = 0; l < 2; l++) {
        for (int p = 0; p < 40; p++)
            votes[l][p] = p < (l ? 3 : 17) ? 0.5f + 0.01f * (float)p : 0.001f * (float)(p + 1);
        test_view_votes(t, l, votes[l]);
    }
    test_view_decide(t, "adakv(window=1,kernel=1,floor=0)@11");
    check_ada(t, 17 + 1, 3 + 1);
    test_view_decide(t, "adakv(window=1,kernel=1,floor=0.2)@11");
    check_ada(t, 16 + 1, 4 + 1);
    test_view_close(t);
}

/* No split of the same total keeps more of the votes than floor = 0. */
static void adakv_keeps_the_most(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint64_t rng = seed;
        float votes[2][13] = { 0 };
        double kept = 0;
        int base = 1 + (int)(test_rand(&rng) % 11);
        char kv[80];
        test_view *t = small(13, 1, 2);
        for (int l = 0; l < 2; l++) {
            for (int p = 0; p < 12; p++) votes[l][p] = (test_randf(&rng) + 1) / (float)(1 + l * 3);
            test_view_votes(t, l, votes[l]);
        }
        snprintf(kv, sizeof kv, "adakv(window=1,kernel=1,floor=0)@%d", base + 1);
        test_view_decide(t, kv);
        for (int l = 0; l < 2; l++)
            for (int p = 0; p < 12; p++) kept += test_view_stays(t, l, p) ? (double)votes[l][p] : 0;
        for (int n0 = 0; n0 <= 2 * base && n0 <= 12; n0++) {
            double other = 0;
            for (int l = 0; l < 2; l++)
                for (int p = 0; p < 12; p++) {
                    int better = 0;
                    for (int q = 0; q < 12; q++) better += votes[l][q] > votes[l][p];
                    if (better < (l ? 2 * base - n0 : n0)) other += (double)votes[l][p];
                }
            if (other > kept + 1e-6)
                fail_msg("seed %d: %d slots in lane 0 keep %g, not %g", (int)seed, n0, other, kept);
        }
        test_view_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streaming_numbers_the_cache_anew),
        cmocka_unit_test(streaming_step_by_step),
        cmocka_unit_test(h2o_by_hand),
        cmocka_unit_test(h2o_the_start_is_seen_by_more),
        cmocka_unit_test(h2o_after_evictions),
        cmocka_unit_test(tova_ties_and_heads),
        cmocka_unit_test(tova_lanes_stay_together),
        cmocka_unit_test(pooling_by_hand),
        cmocka_unit_test(groups_are_reduced_first),
        cmocka_unit_test(snapkv_by_hand),
        cmocka_unit_test(snapkv_hears_the_window_only),
        cmocka_unit_test(snapkv_after_evictions),
        cmocka_unit_test(pyramids_by_hand),
        cmocka_unit_test(adakv_by_hand),
        cmocka_unit_test(adakv_rounds_to_the_total),
        cmocka_unit_test(adakv_keeps_the_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
