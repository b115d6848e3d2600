/* Levels go where numbers are: what gathers around a few values is read as those; ranges follow
 * their channels and leave out what is far off; what codes say has a channel's mean, and its
 * product with the numbers is right; any number of threads finds the same. */
#include "tests/unit/check.h"

#include "eval/levels.h"
#include "kernel/elem.h"

#include <math.h>

enum { N = 4000, D = 70 };

static uint16_t rows[N][D];
static float weight[N], book[3 * D + WN_NUQ_LEVELS];

static wn_levels_job job(int bits, bool of_v, bool sparse)
{
    for (int d = 0; d < D && !of_v; d++) book[d] = 1;
    return (wn_levels_job){ .rows = rows[0], .weight = weight, .n = N, .dim = D, .bits = bits,
                            .of_v = of_v, .sparse = sparse, .x = book };
}

static double fit(wn_levels_job *j)
{
    wn_err err = { 0 };
    if (wn_levels_fit(j, &err)) fail_msg("%s", err.text);
    return j->loss;
}

static void fill(uint64_t *seed, float (*of)(int, int, uint64_t *))
{
    for (int i = 0; i < N; i++) {
        weight[i] = 0.5f + fabsf(test_randf(seed));
        for (int d = 0; d < D; d++) rows[i][d] = wn_elem_to_f16(of(i, d, seed));
    }
}

/* Four values of each channel, of unequal distance. */
static float gathered(int i, int d, uint64_t *seed)
{
    static const float values[] = { -1, -0.3f, 0.1f, 1 };
    return (float)(d + 1) * values[test_rand(seed) % 4] + (float)(d % 7) +
           0.004f * test_randf(seed) * (i < 0 ? 0 : 1);
}

static float bell(int i, int d, uint64_t *seed)
{
    float sum = 0;
    (void)i;
    for (int k = 0; k < 6; k++) sum += test_randf(seed);
    return (sum + (float)(d % 5)) * (1 + (float)(d % 3));
}

/* One in 500 is far off. */
static float ragged(int i, int d, uint64_t *seed)
{
    return bell(i, d, seed) * (i % 500 == d ? 20 : 1);
}

static void levels_go_where_numbers_are(void **state)
{
    (void)state;
    uint64_t seed = 51;
    fill(&seed, gathered);
    wn_levels_job j = job(2, false, false);
    assert_true(fit(&j) < 1e-3);
    const float *middle = book + wn_nuq_middles_at(D), *half = book + wn_nuq_halves_at(D),
                *level = book + wn_nuq_levels_at(D, false);
    for (int d = 0; d < D; d++) {
        const float want[] = { -1, -0.3f, 0.1f, 1 };
        for (int u = 0; u < 4; u++)
            assert_true(fabsf(middle[d] + half[d] * level[u] -
                              (want[u] * (float)(d + 1) + (float)(d % 7))) <
                        0.02f * (float)(d + 1));
    }
}

static void products_come_out_right(void **state)
{
    (void)state;
    uint64_t seed = 52;
    fill(&seed, bell);
    for (int bits = 2; bits <= 4; bits++) {
        wn_levels_job j = job(bits, false, false);
        fit(&j);
        const float *middle = book + wn_nuq_middles_at(D), *half = book + wn_nuq_halves_at(D),
                    *level = book + wn_nuq_levels_at(D, false);
        for (int d = 0; d < D; d += 9) {
            double all = 0, x1 = 0, y1 = 0, xx = 0, xy = 0;
            for (int i = 0; i < N; i++) {
                double x = (double)wn_elem_from_f16(rows[i][d]), y = INFINITY,
                       w = (double)weight[i];
                for (int u = 0; u < 1 << bits; u++) {
                    double v = (double)(middle[d] + half[d] * level[u]);
                    if (fabs(v - x) < fabs(y - x)) y = v;
                }
                all += w, x1 += w * x, y1 += w * y, xx += w * x * x, xy += w * x * y;
            }
            double sd = sqrt(xx / all - x1 / all * (x1 / all));
            assert_true(fabs(x1 - y1) / all < 0.03 * sd);
            double product = (xy / all - x1 / all * (y1 / all)) / (sd * sd);
            if (!(fabs(product - 1) < 0.06))
                fail_msg("%d bits, channel %d: products are %g of what they are", bits, d, product);
        }
    }
}

static void more_bits_and_what_is_kept_apart_lose_less(void **state)
{
    (void)state;
    uint64_t seed = 53;
    fill(&seed, ragged);
    for (int v = 0; v < 2; v++) {
        double loss[5][2];
        for (int bits = 2; bits <= 4; bits++)
            for (int s = 0; s < 2; s++) {
                wn_levels_job j = job(bits, v, s);
                loss[bits][s] = fit(&j);
                assert_true(bits == 2 || loss[bits][s] < 0.5 * loss[bits - 1][s]);
                assert_true(!s || loss[bits][1] < loss[bits][0]);
            }
    }
}

static void threads_change_nothing(void **state)
{
    (void)state;
    static float first[3 * D + WN_NUQ_LEVELS];
    uint64_t seed = 54;
    wn_threads *team;
    fill(&seed, ragged);
    wn_levels_job j = job(3, false, true);
    fit(&j);
    memcpy(first, book, sizeof first);
    assert_int_equal(wn_threads_open(&team, 3, NULL), WN_OK);
    j = job(3, false, true);
    j.team = team;
    fit(&j);
    assert_memory_equal(first, book, sizeof first);
    wn_threads_close(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_go_where_numbers_are),
        cmocka_unit_test(products_come_out_right),
        cmocka_unit_test(more_bits_and_what_is_kept_apart_lose_less),
        cmocka_unit_test(threads_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
