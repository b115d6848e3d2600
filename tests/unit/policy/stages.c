/* The stages that recipes share, against slow and plain models on random inputs: budgets
 * over lanes sum to the total by largest remainder, and of the slots of a lane the
 * protected and the best stay, ties in the order of positions. */
#include "policy/stages/stages.h"
#include "tests/support/view.h"
#include "tests/unit/check.h"

#include <math.h>

enum { LANES = 12 };

/* ---- split ---------------------------------------------------------------------------- */

static int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

/* By whole numbers: lanes at or above their cap leave with it one round after the other; the
 * rest share what is left, and the largest remainders get one more, the lower lane first. */
static void split_model(int64_t total, const int *weight, const int64_t *cap, int n, int64_t *out)
{
    bool open[LANES];
    int64_t left = total, sum, given = 0;
    for (int i = 0; i < n; i++) {
        open[i] = weight[i] > 0 && cap[i] > 0;
        out[i] = 0;
    }
    for (bool again = true; again;) {
        bool full[LANES] = { 0 };
        again = false;
        sum = 0;
        for (int i = 0; i < n; i++) sum += open[i] ? weight[i] : 0;
        for (int i = 0; i < n; i++) full[i] = open[i] && left * weight[i] >= cap[i] * sum;
        for (int i = 0; i < n; i++)
            if (full[i]) {
                out[i] = cap[i];
                left -= cap[i];
                open[i] = false;
                again = true;
            }
    }
    for (int i = 0; i < n; i++)
        if (open[i]) given += out[i] = left * weight[i] / sum;
    while (given < left) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (open[i] && (best < 0 || left * weight[i] % sum > left * weight[best] % sum))
                best = i;
        if (best < 0) break;            /* all lanes are full */
        out[best]++;
        open[best] = false;
        given++;
    }
}

static void split_agrees_with_whole_numbers(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20000; seed++) {
        uint64_t rng = seed;
        int n = 1 + (int)(test_rand(&rng) % LANES), weight[LANES],
            kinds = 1 + (int)(test_rand(&rng) % 4);
        int64_t cap[LANES], want[LANES], got[LANES], sum = 0, room = 0,
                                                     total = (int64_t)(test_rand(&rng) % 1500);
        double w[LANES];
        for (int i = 0; i < n; i++) {
            /* powers of two: their shares have remainders that doubles hold exactly when they sum
             * to one */
            weight[i] = test_rand(&rng) % 6 ? 1 << (int)(test_rand(&rng) % (uint64_t)kinds) : 0;
            cap[i] = (int64_t)(test_rand(&rng) % 4 ? test_rand(&rng) % 300 : 100000);
            w[i] = weight[i] * 0.37;
            room += weight[i] ? cap[i] : 0;
        }
        wn_stage_split(total, w, cap, n, got);
        split_model(total, weight, cap, n, want);
        for (int i = 0; i < n; i++) {
            if (got[i] < 0 || got[i] > cap[i])
                fail_msg("seed %d: lane %d gets %d of %d", (int)seed, i, (int)got[i], (int)cap[i]);
            if (got[i] < want[i] - 1 || got[i] > want[i] + 1)
                fail_msg("seed %d: lane %d gets %d, not %d", (int)seed, i, (int)got[i],
                         (int)want[i]);
            /* equal weights: to the last slot */
            if (kinds == 1) assert_int_equal(got[i], want[i]);
            sum += got[i];
        }
        if (sum != min_of(total, room))
            fail_msg("seed %d: %d slots of %d", (int)seed, (int)sum, (int)total);
    }
}

static void check_split(int64_t total, const double *w, const int64_t *cap, int n,
                        const int64_t *want)
{
    int64_t got[LANES];
    wn_stage_split(total, w, cap, n, got);
    for (int i = 0; i < n; i++)
        if (got[i] != want[i])
            fail_msg("total %d: lane %d gets %d, not %d", (int)total, i, (int)got[i], (int)want[i]);
}

static void split_by_hand(void **state)
{
    (void)state;
    static const int64_t wide[4] = { 100, 100, 100, 100 }, tight[4] = { 1, 100, 3, 100 },
                         none[4] = { 0 };
    static const double even[4] = { 1, 1, 1, 1 }, skew[4] = { 1, 2, 3, 2 },
                        some[4] = { 0, 1, 0, 1 }, tiny[4] = { 1e-300, 1e-300, 1e-300, 1e-300 };
    check_split(10, even, wide, 4, (int64_t[]){ 3, 3, 2, 2 });          /* ties: the lower lanes */
    check_split(0, even, wide, 4, none);
    check_split(3, even, wide, 4, (int64_t[]){ 1, 1, 1, 0 });
    check_split(10, skew, wide, 4, (int64_t[]){ 1, 3, 4, 2 });          /* 1.25 2.5 3.75 2.5 */
    check_split(10, some, wide, 4, (int64_t[]){ 0, 5, 0, 5 });
    /* what caps leave goes to the others */
    check_split(20, even, tight, 4, (int64_t[]){ 1, 8, 3, 8 });
    check_split(21, even, tight, 4, (int64_t[]){ 1, 9, 3, 8 });
    check_split(1000, even, tight, 4, tight);
    check_split(10, even, none, 4, none);
    check_split(9, tiny, wide, 4, (int64_t[]){ 3, 2, 2, 2 });
    check_split(7, even, wide, 1, (int64_t[]){ 7 });
}

/* ---- retain --------------------------------------------------------------------------- */

/* The best that is left, again and again. */
static void retain_model(const test_view *t, int lane, const float *score, int64_t keep,
                         bool *stays)
{
    const wn_view_lane *l = &t->shown[lane];
    int n = 0;
    for (int i = 0; i < l->n; i++) n += stays[i] = wn_view_protects(&t->view, l->pos[i]);
    for (; n < keep; n++) {
        int best = -1;
        for (int i = 0; i < l->n; i++) {
            if (stays[i]) continue;
            float s = isnan(score[i]) ? -INFINITY : score[i];
            if (best < 0 || s > (isnan(score[best]) ? -INFINITY : score[best])) best = i;
        }
        if (best < 0) return;
        stays[best] = true;
    }
}

static float odd_score(uint64_t *rng, int kind)
{
    static const float odd[] = { 0,   -0.0f, 1,      -1,      INFINITY, -INFINITY,
                                 NAN, -NAN,  1e-45f, -1e-45f, 3.4e38f,  -3.4e38f };
    if (kind == 0) return odd[test_rand(rng) % WN_COUNT(odd)];
    return kind == 1 ? (float)(test_rand(rng) % 5) : test_randf(rng);
}

static void retain_agrees_with_picking_the_best(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        uint64_t rng = seed;
        int n = 1 + (int)(test_rand(&rng) % 150), live = 1 + (int)(test_rand(&rng) % (uint64_t)n),
            kind = (int)(test_rand(&rng) % 3);
        int64_t keep = (int64_t)(test_rand(&rng) % (uint64_t)(live + 3));
        float score[150];
        bool stays[150] = { 0 };
        test_view *t = test_view_open(&(test_shape){ .n_tokens = n, .n_layers = 1, .heads = 2 });
        test_view_thin(t, 1, live, seed);
        for (int i = 0; i < 150; i++) score[i] = odd_score(&rng, kind);
        if (test_rand(&rng) % 2) test_view_protect(t, 0, WN_MIN(n, 3));
        if (test_rand(&rng) % 2) test_view_protect(t, n - WN_MIN(n, 5), n);
        wn_mark m = wn_arena_mark(&t->scratch);
        wn_stage_retain(&t->view, 1, score, keep, &t->plan);
        wn_arena_rewind(&t->scratch, m);
        assert_int_equal(t->plan.status, WN_OK);
        retain_model(t, 1, score, keep, stays);
        for (int i = 0; i < live; i++)
            if (test_view_stays(t, 1, t->shown[1].pos[i]) != stays[i])
                fail_msg("seed %d: of %d slots %d stay: position %d (score %g) %s", (int)seed, live,
                         (int)keep, t->shown[1].pos[i], (double)score[i],
                         stays[i] ? "is dropped" : "stays");
        assert_int_equal(test_view_n_stays(t, 0), n);           /* the other lane is left alone */
        test_view_close(t);
    }
}

static void retain_by_hand(void **state)
{
    (void)state;
    static const float score[8] = { 1, 2, 2, NAN, 2, 0, -0.0f, -INFINITY };
    static const struct { int keep, protect; const char *stays;
    } cases[] = {
        { 2, -1, "01100000" }, { 3, -1, "01101000" }, { 5, -1, "11101100" },
        { 6, -1, "11101110" }, { 7, -1, "11111110" }, /* NaN is as bad as -inf: the earlier position */
        { 0, -1, "00000000" }, { 1, 3, "00010000" },  { 2, 3, "01010000" },
        { 0, 3, "00010000" },  { 8, -1, "11111111" }, { 100, -1, "11111111" },
    };
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        test_view *t = test_view_open(&(test_shape){ .n_tokens = 8, .n_layers = 1, .heads = 1 });
        if (cases[i].protect >= 0) test_view_protect(t, cases[i].protect, cases[i].protect + 1);
        wn_stage_retain(&t->view, 0, score, cases[i].keep, &t->plan);
        for (int p = 0; p < 8; p++)
            if (test_view_stays(t, 0, p) != (cases[i].stays[p] == '1'))
                fail_msg("case %zu: position %d", i, p);
        test_view_close(t);
    }
}

static void no_scratch_is_a_failed_plan(void **state)
{
    (void)state;
    static const float score[8] = { 0 };
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 8, .n_layers = 1, .heads = 1 });
    wn_mark m = wn_arena_mark(&t->scratch);
    wn_arena_take(&t->scratch, t->scratch.size - t->scratch.used - 512);
    while (wn_view_scratch(&t->view, 1)) { }
    wn_stage_retain(&t->view, 0, score, 3, &t->plan);
    assert_int_equal(t->plan.status, WN_ENOMEM);
    wn_plan_clear(&t->plan);
    wn_policy p;
    assert_int_equal(wn_policy_parse(&p, "random(first=1)@3", NULL), WN_OK);
    wn_policy_decide(&p, &t->view, 16, &t->plan);
    assert_int_equal(t->plan.status, WN_ENOMEM);
    wn_arena_rewind(&t->scratch, m);
    test_view_close(t);
}

/* ---- rows -------------------------------------------------------------------------------- */

static void near_to(double got, double want)
{
    if (!(fabs(got - want) < 1e-6)) fail_msg("%g, not %g", got, want);
}

/* By hand; a row of zeros is like nothing and counts in the mean's number of rows. */
static void lengths_and_likeness_of_rows(void **state)
{
    static const float rows[4 * 2] = { 3, 4, 0.6f, 0.8f, -4, 3, 0, 0 };
    static const float norms[4] = { 5, 1, 5, 0 }, next[3] = { 1, 0, 0 },
                       with_x[4] = { 0.6f, 0.6f, -0.8f, 0 };
    float out[4];
    double mean[2];
    (void)state;
    wn_stage_norms(out, rows, 4, 2);
    for (int i = 0; i < 4; i++) near_to((double)out[i], (double)norms[i]);
    out[3] = 7;
    wn_stage_next_cosines(out, rows, 4, 2);
    for (int i = 0; i < 3; i++) near_to((double)out[i], (double)next[i]);
    near_to((double)out[3], 7);
    wn_stage_next_cosines(out, rows, 0, 2);
    wn_stage_cosines(out, rows, (double[]){ 2, 0 }, 4, 2);
    for (int i = 0; i < 4; i++) near_to((double)out[i], (double)with_x[i]);
    wn_stage_mean_row(mean, rows, 4, 2, false);
    near_to(mean[0], -0.1);
    near_to(mean[1], 1.95);
    wn_stage_mean_row(mean, rows, 4, 2, true);
    near_to(mean[0], (0.6 + 0.6 - 0.8) / 4);
    near_to(mean[1], (0.8 + 0.8 + 0.6) / 4);
    wn_stage_mean_row(mean, rows, 0, 2, true);
    near_to(mean[0], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_agrees_with_whole_numbers),
        cmocka_unit_test(split_by_hand),
        cmocka_unit_test(retain_agrees_with_picking_the_best),
        cmocka_unit_test(retain_by_hand),
        cmocka_unit_test(no_scratch_is_a_failed_plan),
        cmocka_unit_test(lengths_and_likeness_of_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
