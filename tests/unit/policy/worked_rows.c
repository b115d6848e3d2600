/* The worked examples of recipes that look at keys, values and queries (worked.c has those
 * that look at attention): what must survive scaling, constant channels, equal keys, rows
 * that stand at other positions than their place in the list, protected neighbours, any
 * kernel table. */
#include "tests/support/view.h"
#include "tests/unit/check.h"

#include "attention/rope.h"
#include "kernel/kernel.h"
#include "policy/stages/stages.h"

#include <math.h>

static test_view *small(int n, int dim, int group)
{
    return test_view_open(&(test_shape){ .n_tokens = n, .max_tokens = n + 200, .n_layers = 1,
                                         .heads = 1, .dim = dim, .group = group });
}

static void set_key(test_view *t, int pos, const float *row)
{
    memcpy(test_view_key(t, 0, pos), row, sizeof(float) * (size_t)t->shape.dim);
}

static void set_value(test_view *t, int pos, const float *row)
{
    memcpy(test_view_value(t, 0, pos), row, sizeof(float) * (size_t)t->shape.v_dim);
}

static void check_stays(const test_view *t, const int *list)
{
    for (int p = 0; p < t->view.n_tokens; p++) {
        bool listed = *list == p;
        if (test_view_stays(t, 0, p) != listed)
            fail_msg("%s: position %d %s", t->policy.text, p, listed ? "is gone" : "stays");
        list += listed;
    }
    assert_int_equal(*list, -1);
}
#define STAYS(t, ...) check_stays(t, (const int[]){ __VA_ARGS__, -1 })

static void check_near(double x, double want, double bound)
{
    if (!(fabs(x - want) <= bound)) fail_msg("%.7f, not %.7f", x, want);
}

/* Scores of lane 0, as the recipe gives them. */
static void scores_of(test_view *t, const char *kv, float *out)
{
    test_view_decide(t, kv);
    wn_mark m = wn_arena_mark(&t->scratch);
    wn_params p = { .v = t->policy.v, .has_budget = true, .lane_slots = (int64_t)t->policy.budget };
    t->policy.recipe->score(&t->view, &p, 0, out);
    wn_arena_rewind(&t->scratch, m);
}

/* ---- KeyDiff ------------------------------------------------------------------------------ */

static void keydiff_by_hand(void **state)
{
    (void)state;
    static const float keys[4][2] = { { 2, 0 }, { 1, 0 }, { 0, 3 }, { 1, 1 } },
                       like[4] = { 0.846f, 0.846f, 0.533f, 0.975f };
    float x[4];
    test_view *t = small(4, 2, 1);
    for (int p = 0; p < 4; p++) set_key(t, p, keys[p]);
    scores_of(t, "keydiff@3", x);
    for (int p = 0; p < 4; p++) check_near((double)x[p], -(double)like[p], 6e-4);
    STAYS(t, 0, 1, 2);
    test_view_decide(t, "keydiff@2");           /* equal keys: the earlier */
    STAYS(t, 0, 2);
    test_view_key(t, 0, 3)[0] = test_view_key(t, 0, 3)[1] = 70;
    test_view_key(t, 0, 2)[1] = 0.01f;
    scores_of(t, "keydiff@3", x);
    for (int p = 0; p < 4; p++) check_near((double)x[p], -(double)like[p], 6e-4);
    STAYS(t, 0, 1, 2);
    for (int p = 0; p < 4; p++) set_key(t, p, keys[1]);
    scores_of(t, "keydiff@2", x);
    for (int p = 0; p < 4; p++) check_near((double)x[p], -1, 1e-6);
    STAYS(t, 0, 1);
    /* no direction at all: no NaN */
    for (int p = 0; p < 4; p++) memset(test_view_key(t, 0, p), 0, 8);
    scores_of(t, "keydiff@2", x);
    for (int p = 0; p < 4; p++) check_near((double)x[p], 0, 0);
    test_view_close(t);
}

/* Three keys of each head point one way, the fourth to where both heads' odd ones do. The mean over
 * both heads points there, too: an anchor of all heads would give the odd ones up first. */
static void keydiff_has_an_anchor_for_each_head(void **state)
{
    (void)state;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 4, .n_layers = 1, .heads = 2,
                                                 .dim = 2 });
    for (int l = 0; l < 2; l++)
        for (int p = 0; p < 4; p++) {
            test_view_key(t, l, p)[0] = p == 3 ? 0 : l ? -1.0f : 1;
            test_view_key(t, l, p)[1] = p == 3 ? 1 : 0;
        }
    test_view_decide(t, "keydiff@1");
    for (int l = 0; l < 2; l++)
        assert_true(test_view_stays(t, l, 3) && test_view_n_stays(t, l) == 1);
    test_view_close(t);
}

/* ---- LagKV -------------------------------------------------------------------------------- */

/* Two sinks, partitions of three. The range of 5..7 and of 8..10 is 2 in both channels: of 2..4
 * the deviations are 0, .354, 0, of 5..7 they are 0, .707, .354. A third of each stays. */
static void lagkv_by_hand(void **state)
{
    (void)state;
    static const float keys[11][2] = { { 9, 9 }, { 9, 9 }, { 0, 0 }, { 1, 0 }, { 2, 2 }, { 0, 0 },
                                       { 2, 0 }, { 1, 2 }, { 0, 0 }, { 2, 2 }, { 1, 1 } };
    test_view *t = small(11, 2, 1);
    for (int p = 0; p < 11; p++) {
        set_key(t, p, keys[p]);
        memset(test_view_value(t, 0, p), 0, 8);
    }
    test_view_decide(t, "lagkv(sinks=2,partition=3)@7");
    STAYS(t, 0, 1, 3, 6, 8, 9, 10);
    for (int p = 0; p < 11; p++) {              /* values alone say the same */
        set_value(t, p, keys[p]);
        memset(test_view_key(t, 0, p), 0, 8);
    }
    test_view_decide(t, "lagkv(sinks=2,partition=3)@7");
    STAYS(t, 0, 1, 3, 6, 8, 9, 10);
    for (int p = 5; p < 11; p++) {              /* nothing varies in what comes next */
        memset(test_view_value(t, 0, p), 0, 8);
        memset(test_view_key(t, 0, p), 0, 8);
    }
    float x[11];
    scores_of(t, "lagkv(sinks=2,partition=3)@7", x);
    for (int p = 0; p < 11; p++) if (isnan(x[p])) fail_msg("position %d", p);
    STAYS(t, 0, 1, 2, 5, 8, 9, 10);
    test_view_close(t);
}

/* A third channel that never varies is left out; it must not spoil what the others say. */
static void lagkv_constant_channels(void **state)
{
    (void)state;
    static const float keys[11][3] = { { 9, 9, 5 }, { 9, 9, 5 }, { 0, 0, 5 }, { 1, 0, 5 },
                                       { 2, 2, 5 }, { 0, 0, 5 }, { 2, 0, 5 }, { 1, 2, 5 },
                                       { 0, 0, 5 }, { 2, 2, 5 }, { 1, 1, 5 } };
    test_view *t = small(11, 3, 1);
    for (int p = 0; p < 11; p++) {
        set_key(t, p, keys[p]);
        memset(test_view_value(t, 0, p), 0, 12);
    }
    test_view_decide(t, "lagkv(sinks=2,partition=3)@7");
    STAYS(t, 0, 1, 3, 6, 8, 9, 10);
    test_view_close(t);
}

/* Deviations are those of a sample: with two channels of keys .354, not .25, and with eight of
 * values .3, not .28. Position 3 differs by its key, 4 by its value. */
static void lagkv_deviations_of_a_sample(void **state)
{
    (void)state;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 11, .n_layers = 1, .heads = 1,
                                                 .dim = 2, .v_dim = 8 });
    for (int p = 0; p < 11; p++) {
        float size = p % 3 == 0 ? 1 : 0;        /* the range is 1 in every channel */
        for (int d = 0; d < 2; d++) test_view_key(t, 0, p)[d] = p < 5 ? 0 : size;
        for (int d = 0; d < 8; d++) test_view_value(t, 0, p)[d] = p < 5 ? 0 : size;
    }
    test_view_key(t, 0, 3)[0] = 0.5f;
    test_view_value(t, 0, 4)[7] = 0.8485f;
    test_view_decide(t, "lagkv(sinks=2,partition=3)@7");
    assert_true(test_view_stays(t, 0, 3));
    assert_false(test_view_stays(t, 0, 4));
    test_view_close(t);
}

/* S + (m - 1) r L + L + tail, the same share of every partition, by position also when slots
 * are gone. */
static void lagkv_counts(void **state)
{
    (void)state;
    enum { S = 16, L = 16 };
    test_view *t = small(S + 5 * L + 7, 8, 1);
    test_view_decide(t, "lagkv(sinks=16,partition=16)@55");
    for (int m = 0; m < 4; m++) {
        int n = 0;
        for (int p = S + m * L; p < S + (m + 1) * L; p++) n += test_view_stays(t, 0, p);
        assert_int_equal(n, 4);
    }
    assert_int_equal(test_view_n_stays(t, 0), S + 4 * 4 + L + 7);
    test_view_carry_out(t);
    test_view_grow(t, L);
    test_view_decide(t, "lagkv(sinks=16,partition=16)@57");
    for (int p = 0; p < S + 6 * L + 7; p++)
        if (p < S || p >= S + 5 * L) assert_true(test_view_stays(t, 0, p));
    /* 18 are left for the 32 of five partitions: 9/16 of the four that stayed, and of 16 */
    for (int m = 0; m < 4; m++) {
        int n = 0;
        for (int p = S + m * L; p < S + (m + 1) * L; p++) n += test_view_stays(t, 0, p);
        assert_in_range(n, 2, 3);
    }
    assert_int_equal(test_view_n_stays(t, 0), 57);
    test_view_close(t);
}

/* ---- Expected Attention ------------------------------------------------------------------- */

/* mu = (1,0,0,0) and Sigma = diag(4,0,0,0) from the queries 3 and -1; both halved, as views
 * give queries scaled by 1 / sqrt(4). k = (2,0,0,0): 1 + 2 = 3; the zero key: 0. */
static void expected_by_hand(void **state)
{
    (void)state;
    static const float unit[4] = { 1, 0, 0, 0 }, key[4] = { 2, 0, 0, 0 }, zero[4] = { 0 };
    float x[3];
    test_view *t = small(3, 4, 1);
    for (int p = 0; p < 3; p++) {
        set_key(t, p, p ? zero : key);
        set_value(t, p, unit);
        memset(test_view_query(t, 0, p, 0), 0, 16);
    }
    test_view_query(t, 0, 1, 0)[0] = 1.5f;
    test_view_query(t, 0, 2, 0)[0] = -0.5f;
    scores_of(t, "expected(window=2,first=0)@2", x);
    check_near(log((double)x[0] / (double)x[1]), 3, 1e-5);
    check_near((double)x[0], exp(3) / (exp(3) + 2), 1e-5);
    scores_of(t, "expected(window=2,first=0,cov=0)@2", x);
    check_near(log((double)x[0] / (double)x[1]), 1, 1e-5);
    test_view_value(t, 0, 1)[0] = 3;            /* values count by their length, eps before them */
    test_view_value(t, 0, 1)[1] = 4;
    scores_of(t, "expected(window=2,first=0,eps=0.01)@2", x);
    check_near((double)x[1], (1 / (exp(3) + 2) + 0.01) * 5, 1e-5);
    test_view_close(t);
}

/* The exponent is the mean of e^(k.q) over the Gaussian of the queries: 10^5 draws. */
static void expected_is_what_draws_give(void **state)
{
    (void)state;
    enum { W = 8, DRAWS = 100000 };
    test_view *t = small(W, 4, 1);
    uint64_t rng = 4;
    float x[W];
    double mean[W] = { 0 };
    for (int p = 0; p < W; p++)
        for (int d = 0; d < 4; d++) test_view_value(t, 0, p)[d] = 0.5f;
    scores_of(t, "expected(window=8,first=0)@4", x);
    for (int i = 0; i < DRAWS; i++) {
        double q[4] = { 0 }, mu[4] = { 0 };
        for (int w = 0; w < W; w++)
            for (int d = 0; d < 4; d++) mu[d] += (double)test_view_query(t, 0, w, 0)[d] / W;
        for (int w = 0; w < W; w++) {
            double u = 1 - (double)(test_rand(&rng) >> 11) * 0x1p-53,
                   z = 6.283185307179586 * (double)test_randf(&rng) / 2;
            double g = sqrt(-2 * log(u)) * cos(z) / sqrt(W);
            for (int d = 0; d < 4; d++)
                q[d] += g * ((double)test_view_query(t, 0, w, 0)[d] - mu[d]);
        }
        for (int p = 0; p < W; p++) {
            double dot = 0;
            for (int d = 0; d < 4; d++) dot += (double)test_view_key(t, 0, p)[d] * (q[d] + mu[d]);
            mean[p] += exp(dot) / DRAWS;
        }
    }
    for (int p = 1; p < W; p++)
        check_near((double)x[p] / (double)x[0] / (mean[p] / mean[0]), 1, 0.02);
    test_view_close(t);
}

static wn_rope rope;

static void turn(void *ctx, int lane, float *row, int from, int to)
{
    (void)ctx;
    (void)lane;
    wn_rope_mean(&rope, row, from, to);
}

static void rotate(float *out, const float *x, int pos)
{
    memcpy(out, x, sizeof(float) * (size_t)rope.n_dims);
    wn_rope_mean(&rope, out, pos, pos + 1);
}

/* One query, rotated to each place of the window; no spread. With horizon 1 the scores are the
 * attention of that query at the next position, with more the exponents' means. */
static void expected_looks_from_what_comes_next(void **state)
{
    (void)state;
    enum { N = 20, D = 8 };
    static const int horizons[] = { 1, 2, 50 };
    test_view *t = small(N, D, 1);
    float q[D], turned[D], x[N];
    wn_rope_init(&rope, D, true, 100, 1, NULL);
    t->view.turn = turn;
    for (int d = 0; d < D; d++) q[d] = test_randf(&t->rng);
    for (int p = 0; p < N; p++) {
        rotate(test_view_query(t, 0, p, 0), q, p);
        for (int d = 0; d < D; d++) test_view_value(t, 0, p)[d] = 1;
    }
    for (int i = 0; i < 3; i++) {
        char kv[80];
        snprintf(kv, sizeof kv, "expected(window=6,first=0,horizon=%d)@9", horizons[i]);
        scores_of(t, kv, x);
        double logit[N] = { 0 };
        for (int f = 0; f < horizons[i]; f++) {
            rotate(turned, q, N + f);
            for (int p = 0; p < N; p++)
                for (int d = 0; d < D; d++)
                    logit[p] += (double)test_view_key(t, 0, p)[d] * (double)turned[d] / horizons[i];
        }
        for (int p = 1; p < N; p++)
            check_near(log((double)x[p] / (double)x[0]), logit[p] - logit[0], 2e-5);
    }
    test_view_close(t);
}

/* A sink that takes all attention of one head must not take away that head's vote. */
static void expected_leaves_sinks_out(void **state)
{
    (void)state;
    float with[12], without[12];
    test_view *t = small(12, 4, 2);
    for (int p = 0; p < 12; p++) test_view_query(t, 0, p, 0)[3] = 2;
    memset(test_view_key(t, 0, 0), 0, 16);
    test_view_protect(t, 0, 1);
    scores_of(t, "expected(window=4,first=0)@5", without);
    test_view_key(t, 0, 0)[3] = 40;
    scores_of(t, "expected(window=4,first=0)@5", with);
    for (int p = 1; p < 12; p++) check_near((double)with[p], (double)without[p], 1e-7);
    test_view_protect(t, 0, 12);                /* nobody competes: no NaN */
    scores_of(t, "expected(window=4,first=0)@5", with);
    for (int p = 0; p < 12; p++) assert_true(with[p] >= 0);
    test_view_close(t);
}

/* ---- D2O ---------------------------------------------------------------------------------- */

static const wn_plan_merge *only_merge(const wn_plan *p)
{
    int32_t i = wn_plan_first(p, 0, WN_PLAN_MERGES);
    assert_true(i >= 0 && p->merges[i].next == -1);
    return &p->merges[i];
}

static void d2o_by_hand(void **state)
{
    (void)state;
    static const float keys[2][2] = { { 1, 0 }, { 0.6f, 0.8f } };
    test_view *t = small(2, 2, 1);
    for (int p = 0; p < 2; p++) {
        set_key(t, p, keys[p]);
        set_value(t, p, keys[1 - p]);
        *test_view_mass(t, 0, p) = (float)(2 - p);
    }
    const wn_plan_merge *m = only_merge(test_view_decide(t, "d2o(first=0,recent=0)@1"));
    check_near((double)t->plan.wk[m->first_src], 0.599, 5e-4);
    check_near((double)t->plan.wk[m->first_src + 1], 0.401, 5e-4);
    check_near((double)m->bias, log(2), 1e-7);
    assert_int_equal(m->count, 2);
    m = only_merge(test_view_decide(t, "d2o(first=0,recent=0,bias=none)@1"));
    check_near((double)m->bias, 0, 0);
    test_view_carry_out(t);
    check_near((double)test_view_key(t, 0, 0)[0], 0.839, 5e-4);
    check_near((double)test_view_key(t, 0, 0)[1], 0.321, 5e-4);
    check_near((double)test_view_value(t, 0, 0)[0], 0.599 * 0.6 + 0.401, 5e-4);
    test_view_close(t);
}

/* Victims that are all alike are all at the mean, and stand for themselves in the mass; what a
 * slot stood for before is counted on. */
static void d2o_equal_keys_become_one(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        uint64_t rng = seed;
        int n = 2 + (int)(test_rand(&rng) % 9);
        float key[8];
        test_view *t = small(n, 8, 1);
        for (int d = 0; d < 8; d++) key[d] = test_randf(&rng);
        for (int p = 0; p < n; p++) {
            set_key(t, p, key);
            *test_view_mass(t, 0, p) = p ? 0 : 1;
        }
        test_view_merge(t, 0, n - 1, 3, logf(3));
        const wn_plan_merge *m = only_merge(test_view_decide(t, "d2o(first=0,recent=0)@1"));
        assert_int_equal(m->n_src, n);
        assert_int_equal(m->count, n + 2);
        check_near((double)m->bias, log(n + 2), 1e-6);
        for (int i = 0; i < n; i++) check_near((double)t->plan.wk[m->first_src + i], 1.0 / n, 1e-6);
        test_view_carry_out(t);
        for (int d = 0; d < 8; d++)
            check_near((double)test_view_key(t, 0, 0)[d], (double)key[d], 1e-6);
        test_view_close(t);
    }
}

/* So are those that differ in length alone, though their cosines differ by an ulp. */
static void d2o_equal_directions_become_one(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        uint64_t rng = seed;
        float key[8];
        test_view *t = small(9, 8, 1);
        for (int d = 0; d < 8; d++) key[d] = test_randf(&rng);
        for (int p = 0; p < 9; p++) {
            float size = 1.5f + test_randf(&rng);
            for (int d = 0; d < 8; d++) test_view_key(t, 0, p)[d] = key[d] * size;
            *test_view_mass(t, 0, p) = p ? 0 : 1;
        }
        assert_int_equal(only_merge(test_view_decide(t, "d2o(first=0,recent=0)@1"))->n_src, 9);
        test_view_close(t);
    }
}

/* Cosines .9 and .1: the mean is .5, so one victim is merged and one dropped. */
static void d2o_the_bar_is_the_mean(void **state)
{
    (void)state;
    test_view *t = small(3, 2, 1);
    static const double like[3] = { 1, 0.9, 0.1 };
    for (int p = 0; p < 3; p++) {
        set_key(t, p, (float[]){ (float)like[p], (float)sqrt(1 - like[p] * like[p]) });
        *test_view_mass(t, 0, p) = p ? 0 : 1;
    }
    const wn_plan_merge *m = only_merge(test_view_decide(t, "d2o(first=0,recent=0)@1"));
    assert_int_equal(m->n_src, 2);
    assert_int_equal(t->plan.src[m->first_src + 1], 1);
    test_view_close(t);
}

/* The slot at 0 is protected: it is nobody's survivor, however like its key is. */
static void d2o_protected_slots_stay_as_they_are(void **state)
{
    (void)state;
    static const float keys[3][2] = { { 1, 0 }, { 1, 0 }, { 0, 1 } };
    test_view *t = small(3, 2, 1);
    for (int p = 0; p < 3; p++) {
        set_key(t, p, keys[p]);
        *test_view_mass(t, 0, p) = (float)p;
    }
    const wn_plan_merge *m = only_merge(test_view_decide(t, "d2o(first=1,recent=0)@2"));
    assert_int_equal(m->at, 2);
    assert_true(test_view_stays(t, 0, 0));
    /* no one left to join */
    assert_int_equal(test_view_decide(t, "d2o(first=1,recent=0)@1")->n_merges, 0);
    STAYS(t, 0);
    test_view_close(t);
}

/* What goes to whom, against all cosines in double; and no kernel table changes a weight. */
static void d2o_finds_the_nearest(void **state)
{
    (void)state;
    enum { N = 700, D = 33 };
    const wn_kernels *all[WN_KERNELS_MAX];
    int n_tables = wn_kernels_all(all);
    float first[N];
    test_view *t = small(N, D, 1);
    for (int table = 0; table < n_tables; table++) {
        wn_kernels_force(all[table]);
        const wn_plan *p = test_view_decide(t, "d2o(first=4)@150");
        assert_true(p->n_merges > 20 && p->n_src <= N);
        if (!table) memcpy(first, p->wk, sizeof *first * (size_t)p->n_src);
        assert_memory_equal(first, p->wk, sizeof *first * (size_t)p->n_src);
        for (int32_t i = wn_plan_first(p, 0, WN_PLAN_MERGES); i >= 0; i = p->merges[i].next)
            for (int j = 1; j < p->merges[i].n_src; j++) {
                const float *a = test_view_key(t, 0, p->src[p->merges[i].first_src + j]);
                double best = -2, mine = -2;
                for (int s = 4; s < N; s++) {
                    if (!wn_plan_keeps(p, 0, s)) continue;
                    const float *b = test_view_key(t, 0, s);
                    double dot = 0, na = 0, nb = 0;
                    for (int d = 0; d < D; d++) {
                        dot += (double)a[d] * (double)b[d];
                        na += (double)a[d] * (double)a[d];
                        nb += (double)b[d] * (double)b[d];
                    }
                    dot /= sqrt(na * nb);
                    best = dot > best ? dot : best;
                    if (s == p->merges[i].at) mine = dot;
                }
                check_near(mine, best, 1e-6);
            }
    }
    wn_kernels_force(NULL);
    test_view_close(t);
}

/* Equal keys D positions apart, in a channel of frequency 1: their mean keeps cos(D / 2). What
 * is lost is not made up for; the tables of quality say what that costs. */
static void rotated_means_lose_length(void **state)
{
    (void)state;
    static const struct {
        int apart;
        double keeps;
    } cases[] = { { 1, 0.878 }, { 3, 0.071 }, { 16, 0.145 } };
    wn_rope_init(&rope, 2, false, 1, 1, NULL);
    for (int i = 0; i < 3; i++) {
        float a[2] = { 1, 0 }, b[2] = { 1, 0 };
        rotate(b, a, cases[i].apart);
        test_view *t = small(2, 2, 1);
        set_key(t, 0, a);
        set_key(t, 1, b);
        *test_view_mass(t, 0, 0) = 9;
        check_near(hypot((double)(a[0] + b[0]) / 2, (double)(a[1] + b[1]) / 2), cases[i].keeps,
                   1e-3);
        const wn_plan_merge *m = only_merge(test_view_decide(t, "d2o(first=0,recent=0)@1"));
        double w = (double)t->plan.wk[m->first_src], c = cos(cases[i].apart);
        test_view_carry_out(t);
        check_near(hypot((double)test_view_key(t, 0, 0)[0], (double)test_view_key(t, 0, 0)[1]),
                   sqrt(w * w + (1 - w) * (1 - w) + 2 * w * (1 - w) * c), 1e-5);
        test_view_close(t);
    }
}

/* Three layers whose scaled sums vary by .09, .16 and .25: the budget goes by e^-var. And the
 * ratios .227, .205, .168 for variances .1, .2, .4 and a share of .2. */
static void d2o_layers_by_density(void **state)
{
    (void)state;
    static const int ones[3] = { 10, 20, 50 };
    static const double var[3] = { 0.1, 0.2, 0.4 }, ratio[3] = { 0.227, 0.205, 0.168 };
    int64_t keep[3], cap[3] = { 1000, 1000, 1000 };
    double w[3], sum = 0;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 100, .n_layers = 3, .heads = 1 });
    for (int l = 0; l < 3; l++) {
        for (int p = 0; p < 100; p++) *test_view_mass(t, l, p) = p < ones[l] ? 7.0f + (float)l : 2;
        double share = ones[l] / 100.0;
        sum += w[l] = exp(-share * (1 - share));
    }
    t->view.budget = 60;
    wn_alloc_density(&t->view, false, keep);
    assert_int_equal(keep[0] + keep[1] + keep[2], 60);
    for (int l = 0; l < 3; l++) check_near((double)keep[l], 60 * w[l] / sum, 1);
    t->view.budget = 220;
    wn_alloc_density(&t->view, true, keep);             /* whole layers: 0 fits into half, 1 and 2
                                                           do not */
    assert_int_equal(keep[0], 100);
    assert_int_equal(keep[1] + keep[2], 120);
    for (int l = 0; l < 3; l++) w[l] = exp(-var[l]);
    wn_stage_split(600, w, cap, 3, keep);
    for (int l = 0; l < 3; l++) check_near((double)keep[l] / 1000, ratio[l], 1e-3);
    test_view_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keydiff_by_hand),
        cmocka_unit_test(keydiff_has_an_anchor_for_each_head),
        cmocka_unit_test(lagkv_by_hand),
        cmocka_unit_test(lagkv_constant_channels),
        cmocka_unit_test(lagkv_deviations_of_a_sample),
        cmocka_unit_test(lagkv_counts),
        cmocka_unit_test(expected_by_hand),
        cmocka_unit_test(expected_is_what_draws_give),
        cmocka_unit_test(expected_looks_from_what_comes_next),
        cmocka_unit_test(expected_leaves_sinks_out),
        cmocka_unit_test(d2o_by_hand),
        cmocka_unit_test(d2o_equal_keys_become_one),
        cmocka_unit_test(d2o_equal_directions_become_one),
        cmocka_unit_test(d2o_the_bar_is_the_mean),
        cmocka_unit_test(d2o_protected_slots_stay_as_they_are),
        cmocka_unit_test(d2o_finds_the_nearest),
        cmocka_unit_test(rotated_means_lose_length),
        cmocka_unit_test(d2o_layers_by_density),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
