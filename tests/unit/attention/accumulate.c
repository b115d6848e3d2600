/* Statistics of all queries by hand: four queries of one head with the weights
 *
 *     1    .6 .4    .5 .2 .3    .4 .1 .1 .4
 *
 * in every kind, side by side and with slots out of order; what a group of heads makes of them; and
 * that a position whose text was taken back begins anew. */
#include "tests/unit/check.h"

#include "attention/accumulate.h"

#include <math.h>

enum { N = 4 };
static const float rows[N][N] = {
    { 1 }, { 0.6f, 0.4f }, { 0.5f, 0.2f, 0.3f }, { 0.4f, 0.1f, 0.1f, 0.4f }
};

/* All four queries, at positions from base on; turned: entries in the order 1 0 2 3, as where
 * slots were merged, and with slots that the query does not see yet. */
static void feed(const wn_ledger *g, int base, bool turned)
{
    static const int16_t order[2][N] = { { 0, 1, 2, 3 }, { 1, 0, 2, 3 } };
    for (int t = 0; t < N; t++) {
        float w[N] = { 0 }, half[N];
        int n = turned ? N : t + 1;
        for (int i = 0; i < n; i++) w[i] = order[turned][i] <= t ? rows[t][order[turned][i]] : 0;
        for (int i = 0; i < n; i++) half[i] = w[i] / 2;
        wn_ledger_add(g, 0, &(wn_weights){ .query = base + t, .group = 4,
                                           .even = 1 / (float)(t + 1), .base = base,
                                           .index = order[turned], .place = base,
                                           .rank = turned ? order[turned] : NULL, .n = n,
                                           .mean = w, .max = half });
    }
}

static void worked_cases(void **state)
{
    static const struct { wn_stat s; float want[N]; } cases[] = {
        { { .kind = WN_STAT_SUM }, { 2.5f, 0.7f, 0.4f, 0.4f } },
        { { .kind = WN_STAT_SUM, .decay = 1 }, { 2.5f, 0.7f, 0.4f, 0.4f } },
        { { .kind = WN_STAT_SUM, .decay = 0.5f }, { 0.925f, 0.3f, 0.25f, 0.4f } },
        /* four heads alike */
        { { .kind = WN_STAT_SUM, .reduce = WN_REDUCE_SUM }, { 10, 2.8f, 1.6f, 1.6f } },
        { { .kind = WN_STAT_SUM, .reduce = WN_REDUCE_MAX }, { 1.25f, 0.35f, 0.2f, 0.2f } },
        /* own and the next query */
        { { .kind = WN_STAT_SUM, .near = 2 }, { 1.6f, 0.6f, 0.4f, 0.4f } },
        { { .kind = WN_STAT_SQUARES }, { 1.77f, 0.21f, 0.1f, 0.16f } },
        { { .kind = WN_STAT_SQUARES, .reduce = WN_REDUCE_SUM,
            .decay = 0.5f }, { 8, 1.12f, 0.88f, 2.56f } },
        { { .kind = WN_STAT_MAX }, { 1, 0.4f, 0.3f, 0.4f } },
        { { .kind = WN_STAT_MAX, .decay = 0.5f }, { 0.4f, 0.1f, 0.15f, 0.4f } },
        { { .kind = WN_STAT_HITS, .threshold = 1, .even = true }, { 4, 0, 0, 1 } },
        { { .kind = WN_STAT_HITS, .threshold = 0.4f, .decay = 0.5f }, { 1.875f, 0.25f, 0, 1 } },
        { { .kind = WN_STAT_LAST, .threshold = 1, .even = true }, { 3, 1, 2, 3 } },
        { { .kind = WN_STAT_LAST, .threshold = 0.2f }, { 3, 2, 2, 3 } },
    };
    (void)state;
    for (int base = 0; base < 100; base += 37)
        for (int turned = 0; turned < 2; turned++)
            for (size_t c = 0; c < WN_COUNT(cases); c++) {
                float x[128];
                for (int i = 0; i < 128; i++) x[i] = 99;
                wn_ledger g = { .stats = &cases[c].s, .n_stats = 1, .x = x, .stride = 128 };
                assert_int_equal(wn_ledger_wants_max(&g), cases[c].s.reduce == WN_REDUCE_MAX);
                feed(&g, base, turned);
                for (int i = 0; i < N; i++) {
                    float want = cases[c].want[i] +
                                 (cases[c].s.kind == WN_STAT_LAST ? (float)base : 0);
                    if (!(fabsf(x[base + i] - want) < 1e-5f))
                        fail_msg("case %zu, from %d on, slot %d: %g, not %g", c, base, i,
                                 (double)x[base + i], (double)want);
                }
                assert_true(x[base + N] == 99);
            }
}

/* Half of the text up to the query, but at least its own slot: the queries reach back 1 1 1 2. A
 * quarter: their own. */
static void near_as_a_share(void **state)
{
    (void)state;
    static const struct { wn_stat s; float want[N]; } cases[] = {
        { { .kind = WN_STAT_SUM, .within = 0.5f }, { 1, 0.4f, 0.4f, 0.4f } },
        { { .kind = WN_STAT_SUM, .within = 0.5f, .near = 1 }, { 1, 0.4f, 0.3f, 0.4f } },
        { { .kind = WN_STAT_SUM, .within = 0.25f }, { 1, 0.4f, 0.3f, 0.4f } },
        { { .kind = WN_STAT_SUM, .within = 1 }, { 2.5f, 0.7f, 0.4f, 0.4f } },
        { { .kind = WN_STAT_SQUARES, .within = 0.5f }, { 1, 0.16f, 0.1f, 0.16f } },
    };
    for (int turned = 0; turned < 2; turned++)
        for (size_t c = 0; c < WN_COUNT(cases); c++) {
            float x[N] = { 99, 99, 99, 99 };
            feed(&(wn_ledger){ .stats = &cases[c].s, .n_stats = 1, .x = x,
                               .stride = N }, 0, turned);
            for (int i = 0; i < N; i++)
                if (!(fabsf(x[i] - cases[c].want[i]) < 1e-5f))
                    fail_msg("case %zu, slot %d: %g, not %g", c, i, (double)x[i],
                             (double)cases[c].want[i]);
        }
}

/* A slot that is looked at by the queries 5 6 9 20: the longest way is 11, and a gap is known
 * before the hit that ends it becomes the last. */
static void gaps(void **state)
{
    (void)state;
    static const wn_stat s[2] = { { .kind = WN_STAT_GAP,
                                    .threshold = 0.5f }, { .kind = WN_STAT_LAST,
                                    .threshold = 0.5f } };
    float x[2 * 32], none = 0;
    for (int i = 0; i < 64; i++) x[i] = 99;
    wn_ledger g = { .stats = s, .n_stats = 2, .x = x, .stride = 32 };
    for (int32_t t = 4; t < 25; t++) {
        static const int16_t index[1] = { 4 };
        float w = t == 5 || t == 6 || t == 9 || t == 20 ? 0.5f : 0.4f;
        wn_ledger_add(&g, 0, &(wn_weights){ .query = t, .group = 1, .even = 1, .index = index,
                                            .place = t % 2 ? 4 : 0, .rank = t % 2 ? NULL : index,
                                            .n = 1, .mean = &w });
        float gap = t < 5    ? 0
                    : t < 9  ? 1
                    : t < 20 ? 3
                             : 11,
              last = t < 5    ? 4
                     : t < 6  ? 5
                     : t < 9  ? 6
                     : t < 20 ? 9
                              : 20;
        if (x[4] != gap || x[32 + 4] != last)
            fail_msg("at %d: %g and %g", t, (double)x[4], (double)x[36]);
    }
    static const int16_t index[1] = { 4 };
    wn_ledger_add(&g, 0, &(wn_weights){ .query = 4, .group = 1, .even = 1, .index = index,
                                        .place = 4, .n = 1, .mean = &none });
    assert_true(x[4] == 0 && x[36] == 4);       /* another text */
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(worked_cases),
                                        cmocka_unit_test(near_as_a_share), cmocka_unit_test(gaps) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
