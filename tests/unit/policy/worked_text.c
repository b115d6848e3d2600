/* Examples by hand for what goes by the text itself: which tokens are special or punctuation, and
 * which belong together; and what values can change. */
#include "tests/support/stays.h"

#include <math.h>

/* ---- FastGen ------------------------------------------------------------------------------- */

static void set_stat(test_view *t, int lane, int stat, const float *x)
{
    for (int p = 0; p < t->view.n_tokens; p++) *test_view_stat(t, lane, stat, p) = x[p];
}

/* Queries 1 | .6 .4 | .5 .2 .3 | .4 .1 .1 .4: sums 2.5 .7 .4 .4; on the query's own token 1 .4 .3
 * .4. Position 0 is special, and in the second lane position 2 is punctuation. */
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
    assert_true(t->policy.n_stats == 2 && t->policy.stats[0].within == 0 &&
                t->policy.stats[1].within == 0.25f);
    assert_true(t->policy.stats[0].reduce == WN_REDUCE_MEAN &&
                t->policy.stats[1].reduce == WN_REDUCE_MEAN);
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
    test_view_decide(t, FASTGEN "0.5,recover=0.95)");   /* and the own token of each query: all of
                                                           it */
    STAYS(t, 0, 0, 1, 2, 3);
    test_view_close(t);
}

/* More to recover never means a cheaper rule; nothing to recover the first one, more than all there
 * is the last. */
static void fastgen_is_monotone(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        test_view *t = test_view_open(&(test_shape){ .n_tokens = 60, .n_layers = 1, .heads = 1 });
        int before = 0;
        for (int p = 0; p < 60; p++) {
            *test_view_stat(t, 0, 1, p) = *test_view_stat(t, 0, 0, p) *
                                          (float)(test_rand(&seed) % 100) / 100;
            /* a bit that nobody knows among them */
            test_view_flag(t, p, (unsigned)(test_rand(&seed) % 8));
        }
        for (int k = 0; k <= 22; k++) {
            char kv[60];
            snprintf(kv, sizeof kv, "fastgen(first=0,recover=%g)", k * 0.05);
            test_view_decide(t, kv);
            int n = test_view_n_stays(t, 0);
            if (n < before) fail_msg("%s: %d slots, %d with less to recover", kv, n, before);
            before = n;
            for (int p = 0; p < 60 && !k; p++)
                assert_int_equal(test_view_stays(t, 0, p), t->view.flags[p] & WN_FLAG_SPECIAL);
        }
        assert_int_equal(before, 60);
        test_view_close(t);
    }
}

/* Each head has its own rule; one that looks at special tokens alone pays for one that looks
 * everywhere. @ is a ceiling. */
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

/* ---- fair shares ----------------------------------------------------------------------------- */

static int n_stay(const test_view *t, int lane, int from, int to)
{
    int n = 0;
    for (int p = from; p < to; p++) n += test_view_stays(t, lane, p);
    return n;
}

/* Scores of a recipe that keeps sums: what the test says. */
static test_view *scored(int n, int heads)
{
    test_view *t = test_view_open(&(test_shape){ .n_tokens = n, .max_tokens = n + 100,
                                                 .n_layers = 1, .heads = heads });
    for (int l = 0; l < heads; l++)
        /* the first ones are the best */
        for (int p = 0; p < n; p++) *test_view_mass(t, l, p) = (float)(n - p);
    return t;
}

/* Spans of 50 and 200 slots, 40 % stay: 20 and 80; by themselves the best 100 would be all of the
 * first span. */
static void fair_spans_lose_the_same(void **state)
{
    (void)state;
    test_view *t = scored(250, 1);
    test_view_span(t, 0, 50, 1);
    test_view_span(t, 50, 250, 2);
    test_view_decide(t, "h2o(recent=0)+retain:best@40%");
    assert_int_equal(n_stay(t, 0, 0, 50), 50);
    test_view_decide(t, "h2o(recent=0)+retain:fair@40%");
    assert_int_equal(n_stay(t, 0, 0, 50), 20);
    assert_int_equal(n_stay(t, 0, 50, 250), 80);
    for (int p = 0; p < 250; p++)
        assert_int_equal(test_view_stays(t, 0, p), p < 20 || (p >= 50 && p < 130)); /* its best */
    /* half way: 50 and 20, 50 and 80 */
    test_view_decide(t, "h2o(recent=0)+retain:fair(share=0.5)@40%");
    assert_int_equal(n_stay(t, 0, 0, 50), 35);
    assert_int_equal(n_stay(t, 0, 50, 250), 65);
    test_view_close(t);
}

/* One span, or none named, or share=0: what the recipe does by itself. */
static void fair_with_one_span_is_the_recipe(void **state)
{
    (void)state;
    static const char *const kv[] = { "snapkv(window=8)%s@30%%",
                                      "h2o%s@25%%",
                                      "keydiff%s@20",
                                      "tova%s@30",
                                      "expected%s@30%%",
                                      "h2o(first=3,last=5)%s@9",
                                      "adakv(window=16)%s@30%%",
                                      "corm(window=20,recent=5)%s@40%%" };
    for (size_t i = 0; i < WN_COUNT(kv); i++)
        for (int c = 0; c < 3; c++) {
            char a[100], b[100];
            bool stays[2][120];
            test_view *t = test_view_open(&(test_shape){ .n_tokens = 120, .n_layers = 1,
                                                         .heads = 2 });
            if (c) test_view_span(t, 0, 120, 1);
            if (c == 2) test_view_span(t, 40, 70, 2), test_view_span(t, 70, 120, 3);
            snprintf(a, sizeof a, kv[i], "");
            snprintf(b, sizeof b, kv[i], c == 2 ? "+retain:fair(share=0)" : "+retain:fair");
            test_view_decide(t, a);
            for (int l = 0; l < 2; l++)
                for (int p = 0; p < 120; p++) stays[l][p] = test_view_stays(t, l, p);
            test_view_decide(t, b);
            for (int l = 0; l < 2; l++)
                for (int p = 0; p < 120; p++)
                    if (test_view_stays(t, l, p) != stays[l][p])
                        fail_msg("%s: position %d of lane %d", b, p, l);
            test_view_close(t);
        }
}

/* What is protected, and the window that a recipe keeps, stay; the budget is met all the same, and
 * what is left of it is shared by the spans that have less than their share. */
static void fair_keeps_what_must_stay(void **state)
{
    (void)state;
    test_view *t = scored(100, 1);
    test_view_span(t, 0, 40, 1);
    test_view_span(t, 50, 90, 2);       /* 40 to 49 and 90 to 99 are in none */
    test_view_protect(t, 60, 78);
    /* 12 12 6: span 2 holds 18, so 12 for 40 and 20 */
    test_view_decide(t, "h2o(recent=0)+retain:fair@30");
    assert_int_equal(test_view_n_stays(t, 0), 30);
    assert_int_equal(n_stay(t, 0, 60, 78), 18);
    assert_int_equal(n_stay(t, 0, 50, 90), 18);
    assert_int_equal(n_stay(t, 0, 0, 40), 8);
    assert_int_equal(n_stay(t, 0, 40, 50) + n_stay(t, 0, 90, 100), 4);
    /* more is protected than there is room for */
    test_view_decide(t, "h2o(recent=0)+retain:fair@10");
    assert_int_equal(test_view_n_stays(t, 0), 18);
    /* of the 20 in none the last 8 stay */
    test_view_decide(t, "snapkv(window=8)+retain:fair@40");
    assert_int_equal(test_view_n_stays(t, 0), 40);
    assert_int_equal(n_stay(t, 0, 92, 100), 8);
    assert_int_equal(n_stay(t, 0, 60, 78), 18);
    /* 18 and 2 of the window, the last ones */
    test_view_decide(t, "snapkv(window=8)+retain:fair@20");
    assert_int_equal(test_view_n_stays(t, 0), 20);
    assert_int_equal(n_stay(t, 0, 98, 100), 2);
    test_view_close(t);
}

/* expected looks at the last 64 queries and keeps none of them for that: its spans get what they
 * would. */
static void fair_spares_no_window_that_the_recipe_gives_up(void **state)
{
    (void)state;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 200, .n_layers = 1, .heads = 1 });
    test_view_span(t, 0, 100, 1);
    test_view_span(t, 100, 200, 2);
    test_view_decide(t, "expected(first=0)+retain:fair@40");
    assert_int_equal(n_stay(t, 0, 0, 100), 20);
    assert_int_equal(n_stay(t, 0, 100, 200), 20);
    test_view_close(t);
}

static int n_raw(const test_view *t, int from, int to)
{
    int n = 0;
    for (int p = from; p < to; p++)
        n += !t->lanes[0].demoted[p] && !wn_plan_demotes(&t->plan, 0, p);
    return n;
}

/* 0 to 39 are in fewer bits already: of 60 slots that are as they were, 10 and 50, 48 remain, 8 and
 * 40; by themselves all of the second span, 0 and 48, so 4 and 44 half way. */
static void fair_counts_what_is_not_in_fewer_bits_yet(void **state)
{
    (void)state;
    test_view *t = scored(100, 1);
    for (int p = 0; p < 100; p++) *test_view_mass(t, 0, p) = (float)(p + 1);
    test_view_span(t, 0, 50, 1);
    test_view_span(t, 50, 100, 2);
    test_view_decide(t, "h2o(recent=0)+recover:demote@60");
    assert_int_equal(n_raw(t, 40, 100), 60);
    test_view_carry_out(t);
    test_view_decide(t, "h2o(recent=0)+retain:fair+recover:demote@48");
    assert_int_equal(n_raw(t, 0, 50), 8);
    assert_int_equal(n_raw(t, 50, 100), 40);
    test_view_decide(t, "h2o(recent=0)+retain:fair(share=0.5)+recover:demote@48");
    assert_int_equal(n_raw(t, 0, 50), 4);
    assert_int_equal(n_raw(t, 50, 100), 44);
    test_view_close(t);
}

/* Any spans, any budget, lanes that have lost slots before: shares differ by less than one slot. */
static void fair_shares_are_equal(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint64_t rng = seed;
        int n = 60 + (int)(test_rand(&rng) % 200), keep = 5 + (int)(test_rand(&rng) % 50),
            live[32] = { 0 }, stay[32] = { 0 };
        char kv[80];
        test_view *t = test_view_open(&(test_shape){ .n_tokens = n, .n_layers = 1, .heads = 1 });
        for (int p = 0, span = 0, number = 0, left = 0; p < n; p++, left--) {
            if (left <= 0) {
                left = 8 + (int)(test_rand(&rng) % 30);
                span = test_rand(&rng) % 4 ? ++number : 0;
            }
            test_view_span(t, p, p + 1, span);
        }
        test_view_thin(t, 0, n * 3 / 4, seed);
        for (int i = 0; i < t->shown[0].n; i++) live[t->view.spans[t->shown[0].pos[i]]]++;
        snprintf(kv, sizeof kv, "random+retain:fair@%d", keep);
        test_view_decide(t, kv);
        assert_int_equal(test_view_n_stays(t, 0), WN_MIN(keep, t->shown[0].n));
        for (int p = 0; p < n; p++) stay[t->view.spans[p]] += test_view_stays(t, 0, p);
        for (int k = 0; k < 32; k++) {
            double want = (double)WN_MIN(keep, t->shown[0].n) * live[k] / t->shown[0].n;
            if (!(fabs(stay[k] - want) < 1))
                fail_msg("%s, seed %d: span %d keeps %d of %d", kv, (int)seed, k, stay[k], live[k]);
        }
        test_view_close(t);
    }
}

/* ---- ShotKV ---------------------------------------------------------------------------------- */

/* Four examples of ten and a question; the last queries look at the third most, then at the
 * first. */
static test_view *shots(float votes[100])
{
    static const float looks[4] = { 0.2f, 0.05f, 0.3f, 0.1f };
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 50, .max_tokens = 100, .n_layers = 2,
                                                 .heads = 2 });
    for (int i = 0; i < 100; i++)
        votes[i] = i < 40 ? looks[i / 10] * (i % 10 == 7 ? 10 : 0.1f) : 0.01f;
    for (int l = 0; l < 4; l++) test_view_votes(t, l, votes);
    for (int k = 0; k < 4; k++) test_view_span(t, 10 * k, 10 * k + 10, k + 1);
    t->view.mark = 50;
    return t;
}

static void check_whole(const test_view *t, int lane, int from, int to, bool stays)
{
    int n = n_stay(t, lane, from, to);
    if (n != (stays ? to - from : 0))
        fail_msg("%s: %d of %d to %d stay", t->policy.text, n, from, to);
}

static void shotkv_keeps_whole_examples(void **state)
{
    (void)state;
    float votes[100];
    test_view *t = shots(votes);
    static const struct { int slots, n; bool stays[4];
    } cases[] = { { 20, 20, { 0, 0, 1, 0 } },
                  { 29, 20, { 0, 0, 1, 0 } },
                  { 30, 30, { 1, 0, 1, 0 } },
                  { 45, 40, { 1, 0, 1, 1 } },
                  { 10, 10, { 0 } } };
    for (size_t c = 0; c < WN_COUNT(cases); c++) {
        char kv[40];
        snprintf(kv, sizeof kv, "shotkv@%d", cases[c].slots);
        test_view_decide(t, kv);
        for (int l = 0; l < 4; l++) {
            assert_int_equal(test_view_n_stays(t, l), cases[c].n);
            for (int k = 0; k < 4; k++) check_whole(t, l, 10 * k, 10 * k + 10, cases[c].stays[k]);
            check_whole(t, l, 40, 50, true);
        }
    }
    test_view_decide(t, "shotkv@6");                    /* the question alone is too much: its
                                                           end */
    check_whole(t, 0, 44, 50, true);
    assert_int_equal(test_view_n_stays(t, 0), 6);
    test_view_protect(t, 12, 15);                       /* they are paid for first; the rest of
                                                           their example is not for free */
    test_view_decide(t, "shotkv@23");
    check_whole(t, 0, 12, 15, true);
    check_whole(t, 0, 20, 30, true);
    assert_int_equal(test_view_n_stays(t, 0), 23);
    test_view_decide(t, "shotkv@47");                   /* 3 10 10 10 10: and 7 of the second do not
                                                           fit */
    assert_int_equal(test_view_n_stays(t, 0), 43);
    test_view_close(t);
}

/* The best does not fit, the others do. And a text that is one span keeps its end. */
static void shotkv_passes_over_what_does_not_fit(void **state)
{
    (void)state;
    float votes[100];
    test_view *t = shots(votes);
    test_view_span(t, 20, 40, 3);                       /* 20 slots, mean .2 x ..: still the best */
    votes[27] = 9;
    test_view_decide(t, "shotkv@25");
    check_whole(t, 0, 0, 10, true);
    check_whole(t, 0, 10, 40, false);
    test_view_span(t, 0, 50, 1);
    test_view_decide(t, "shotkv@20");
    check_whole(t, 0, 30, 50, true);
    check_whole(t, 0, 0, 30, false);
    test_view_close(t);
}

/* What has stayed of the prompt stays on, whatever is looked at later; the answer has its share. */
static void shotkv_leaves_the_prompt_as_it_is(void **state)
{
    (void)state;
    float votes[100];
    test_view *t = shots(votes);
    test_view_decide(t, "shotkv(at=both)@60%");
    assert_int_equal(test_view_n_stays(t, 0), 30);
    test_view_carry_out(t);
    for (int i = 0; i < 100; i++) votes[i] = i < 30 ? 0 : 0.01f * (float)(i % 7);
    test_view_grow(t, 50);
    test_view_decide(t, "shotkv(at=both,window=4)@60%");        /* 60 of 100: 30, and 30 of 50 */
    check_whole(t, 0, 0, 10, true);
    check_whole(t, 0, 20, 30, true);
    check_whole(t, 0, 40, 50, true);
    check_whole(t, 0, 96, 100, true);
    assert_int_equal(n_stay(t, 0, 50, 100), 30);
    /* 25 for the prompt: one example goes */
    test_view_decide(t, "shotkv(at=both,window=4,generated=0.5)@50");
    assert_int_equal(n_stay(t, 0, 0, 50), 20);
    assert_int_equal(n_stay(t, 0, 50, 100), 30);
    test_view_decide(t, "shotkv(at=both,window=4)@33");  /* room for the last four in any case */
    assert_int_equal(n_stay(t, 0, 0, 50), 20);
    check_whole(t, 0, 96, 100, true);
    test_view_close(t);
}

/* ---- CriticalKV ------------------------------------------------------------------------------ */

/* Scores .4 .3 .2 .1, values that change 1 1 5 20, two stay: the first by its score; of the others
 * .3001, 1.0005 and 2.002 the last. By scores alone 0 and 1. */
static void criticalkv_by_hand(void **state)
{
    (void)state;
    static const float mass[4] = { 0.4f, 0.3f, 0.2f, 0.1f }, change[4] = { 1, 1, 5, 20 };
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 4, .n_layers = 1, .heads = 1 });
    for (int p = 0; p < 4; p++)
        *test_view_mass(t, 0, p) = mass[p], *test_view_output(t, 0, p) = change[p];
    test_view_decide(t, "h2o(recent=0)@2");
    STAYS(t, 0, 0, 1);
    test_view_decide(t, "h2o(recent=0)+retain:critical@2");
    STAYS(t, 0, 0, 3);
    test_view_decide(t, "h2o(recent=0)+retain:critical@3");  /* one by its score again, and 3 2 */
    STAYS(t, 0, 0, 2, 3);
    /* .4001 .3001 1.0005 2.002 */
    test_view_decide(t, "h2o(recent=0)+retain:critical(share=0)@2");
    STAYS(t, 0, 2, 3);
    test_view_decide(t, "h2o(recent=0)+retain:critical(share=1)@2");
    STAYS(t, 0, 0, 1);
    /* eps: what nobody looks at goes by its value */
    for (int p = 0; p < 4; p++) *test_view_mass(t, 0, p) = p ? 0 : 0.5f;
    test_view_decide(t, "h2o(recent=0)+retain:critical@2");
    STAYS(t, 0, 0, 3);
    test_view_protect(t, 1, 3);
    /* they are paid for first; .5001 against .002 */
    test_view_decide(t, "h2o(recent=0)+retain:critical@3");
    STAYS(t, 0, 0, 1, 2);
    test_view_close(t);
}

/* Where all values change as much it is snapkv; the window stays whatever they do. */
static void criticalkv_with_equal_values_is_snapkv(void **state)
{
    (void)state;
    for (int equal = 0; equal < 2; equal++) {
        bool stays[4][200];
        int differ = 0;
        test_view *t = test_view_open(&(test_shape){ .n_tokens = 200, .n_layers = 2, .heads = 2 });
        for (int l = 0; equal && l < 4; l++)
            for (int p = 0; p < 200; p++) *test_view_output(t, l, p) = 3;
        test_view_decide(t, "snapkv(kernel=1)@30%");
        for (int l = 0; l < 4; l++)
            for (int p = 0; p < 200; p++) stays[l][p] = test_view_stays(t, l, p);
        test_view_decide(t, "criticalkv(kernel=1)@30%");
        for (int l = 0; l < 4; l++) {
            for (int p = 0; p < 200; p++) differ += test_view_stays(t, l, p) != stays[l][p];
            assert_int_equal(n_stay(t, l, 168, 200), 32);
            assert_int_equal(test_view_n_stays(t, l), 60);
        }
        assert_int_equal(differ == 0, equal);
        test_view_close(t);
    }
}

/* Expected attention weighs by the length of the value itself; with its own norm off values change
 * nothing. */
static void expected_leaves_values_to_others(void **state)
{
    (void)state;
    bool stays[2][60];
    for (int off = 0; off < 2; off++) {
        int differ = 0;
        test_view *t = test_view_open(&(test_shape){ .n_tokens = 60, .n_layers = 1, .heads = 1 });
        for (int step = 0; step < 2; step++) {
            test_view_decide(t, off ? "expected(norm=off)@40%" : "expected@40%");
            for (int p = 0; p < 60; p++) {
                stays[step][p] = test_view_stays(t, 0, p);
                differ += step && stays[0][p] != stays[1][p];
                test_view_value(t, 0, p)[0] = (float)(p % 5 * 9);
            }
        }
        assert_int_equal(differ == 0, off);
        test_view_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fastgen_climbs_the_ladder),
        cmocka_unit_test(fastgen_is_monotone),
        cmocka_unit_test(fastgen_heads_differ),
        cmocka_unit_test(fair_spans_lose_the_same),
        cmocka_unit_test(fair_with_one_span_is_the_recipe),
        cmocka_unit_test(fair_keeps_what_must_stay),
        cmocka_unit_test(fair_spares_no_window_that_the_recipe_gives_up),
        cmocka_unit_test(fair_counts_what_is_not_in_fewer_bits_yet),
        cmocka_unit_test(fair_shares_are_equal),
        cmocka_unit_test(shotkv_keeps_whole_examples),
        cmocka_unit_test(shotkv_passes_over_what_does_not_fit),
        cmocka_unit_test(shotkv_leaves_the_prompt_as_it_is),
        cmocka_unit_test(criticalkv_by_hand),
        cmocka_unit_test(criticalkv_with_equal_values_is_snapkv),
        cmocka_unit_test(expected_leaves_values_to_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
