/* The arithmetic of the figures against straightforward computations in long double. */
#include "tests/unit/check.h"

#include "eval/stats.h"

#include <math.h>

enum { N = 500 };

static void make_logits(float *x, uint64_t *rng, float scale)
{
    for (int i = 0; i < N; i++) x[i] = scale * ((float)(test_rand(rng) % 20001) / 10000 - 1);
}

/* Probabilities first, then the sum of their definition. */
static long double plain_kl(const float *p, const float *q)
{
    long double zp = 0, zq = 0, kl = 0;
    for (int i = 0; i < N; i++) zp += expl((long double)p[i]), zq += expl((long double)q[i]);
    for (int i = 0; i < N; i++) {
        long double a = expl((long double)p[i]) / zp, b = expl((long double)q[i]) / zq;
        kl += a * logl(a / b);
    }
    return kl;
}

static void kl_agrees_with_its_definition(void **state)
{
    (void)state;
    float p[N], q[N];
    for (uint64_t seed = 1; seed <= 50; seed++) {
        uint64_t rng = seed;
        make_logits(p, &rng, 8);
        make_logits(q, &rng, seed % 2 ? 8 : 0.5f);
        double want = (double)plain_kl(p, q), got = wn_stat_kl(p, q, N);
        if (fabs(got - want) > 1e-12 * (1 + want))
            fail_msg("seed %d: %.17g, not %.17g", (int)seed, got, want);
        assert_true(wn_stat_kl(p, p, N) == 0);
    }
}

static void shifts_and_extremes_do_no_harm(void **state)
{
    (void)state;
    float p[N], q[N];
    uint64_t rng = 9;
    make_logits(p, &rng, 4);
    for (int i = 0; i < N; i++) q[i] = p[i] + 64;       /* the same distribution */
    assert_true(wn_stat_kl(p, q, N) < 1e-9);
    p[3] = 5000;                                        /* all mass in one place */
    q[3] = 5000;
    assert_true(wn_stat_kl(p, q, N) < 1e-9);
    q[3] = 64;
    assert_true(isfinite(wn_stat_kl(p, q, N)) && wn_stat_kl(p, q, N) > 1);
    p[7] = -INFINITY;                                   /* a token that cannot be */
    q[7] = -INFINITY;
    assert_true(isfinite(wn_stat_kl(p, q, N)));
}

static void nll_agrees_with_its_definition(void **state)
{
    (void)state;
    float p[N];
    uint64_t rng = 4;
    make_logits(p, &rng, 6);
    long double z = 0;
    for (int i = 0; i < N; i++) z += expl((long double)p[i]);
    for (int i = 0; i < N; i += 7)
        assert_true(fabs(wn_stat_nll(p, N, i) - (double)(logl(z) - (long double)p[i])) < 1e-12);
}

static void ties_go_to_the_lower_index(void **state)
{
    (void)state;
    const float x[] = { 1, 3, 2, 3 };
    assert_int_equal(wn_stat_argmax(x, 4), 1);
}

static void percentiles_and_errors(void **state)
{
    (void)state;
    double x[100];
    for (int i = 0; i < 100; i++) x[i] = (i * 37) % 100 + 1;    /* 1 .. 100 in some order */
    assert_true(wn_stat_percentile(x, 100, 0.95) == 95);
    assert_true(wn_stat_percentile(x, 100, 0.99) == 99);
    assert_true(wn_stat_percentile(x, 100, 1) == 100);
    assert_true(wn_stat_percentile(x, 1, 0.95) == 1);
    assert_true(wn_stat_percentile(x, 0, 0.95) == 0);
    const double y[] = { 1, 2, 3, 4 };
    assert_true(wn_stat_mean(y, 4) == 2.5);
    assert_true(fabs(wn_stat_se(y, 4) - sqrt(5.0 / 3 / 4)) < 1e-15);
    assert_true(wn_stat_se(y, 1) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kl_agrees_with_its_definition),
        cmocka_unit_test(shifts_and_extremes_do_no_harm),
        cmocka_unit_test(nll_agrees_with_its_definition),
        cmocka_unit_test(ties_go_to_the_lower_index),
        cmocka_unit_test(percentiles_and_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
