/* Episodes: pieces that are alike fall together, whatever their order, in the same way each time;
 * k-means is compared with the best of all partitions where those can be tried. */
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include <math.h>

enum { D = WN_EPISODE_DIM, MOST = 64 };
static float x[MOST * D];
static double centres[WN_EPISODES_MAX * D];
static int of[MOST];

/* Piece i: length 1, between directions a and b. */
static void set(int i, int a, int b, double angle)
{
    memset(x + i * D, 0, sizeof *x * D);
    x[i * D + a] = (float)cos(angle);
    x[i * D + b] += (float)sin(angle);
}

static void pieces_of_a_text(void **state)
{
    (void)state;
    static const struct { int n, size, pieces;
    } cases[] = { { 1, 64, 1 },  { 63, 64, 1 },  { 64, 64, 1 },  { 95, 64, 1 },
                  { 96, 64, 2 }, { 128, 64, 2 }, { 640, 64, 10 } };
    for (size_t i = 0; i < WN_COUNT(cases); i++)
        assert_int_equal(wn_episode_pieces(cases[i].n, cases[i].size), cases[i].pieces);
}

/* Three matters, in turn; the centre is the mean, and the typical pieces are those nearest to it,
 * in the order of the text. */
static void what_is_alike_falls_together(void **state)
{
    (void)state;
    static const double angle[4] = { 0.4, 0, 0.1, 0.2 };
    int typical[4];
    for (int i = 0; i < 12; i++) set(i, i % 3 * 2, i % 3 * 2 + 1, angle[i / 3]);
    assert_int_equal(wn_episode_cluster(x, 12, 3, of, centres), 3);
    for (int i = 0; i < 12; i++) assert_int_equal(of[i], i % 3);        /* numbered as they come */
    for (int c = 0; c < 3; c++) {
        double a = 0, b = 0;
        for (int i = 0; i < 4; i++) a += cos(angle[i]) / 4, b += sin(angle[i]) / 4;
        assert_true(fabs(centres[c * D + 2 * c] - a) < 1e-6 &&
                    fabs(centres[c * D + 2 * c + 1] - b) < 1e-6);
        /* the mean lies at 0.17 */
        assert_int_equal(wn_episode_typical(x, 12, of, centres, c, 2, typical), 2);
        assert_true(typical[0] == 6 + c && typical[1] == 9 + c);
        /* all there are */
        assert_int_equal(wn_episode_typical(x, 12, of, centres, c, 9, typical), 4);
        for (int i = 0; i < 4; i++) assert_int_equal(typical[i], 3 * i + c);
        assert_int_equal(wn_episode_nearest(x + (3 + c) * D, centres, 3), c);
    }
}

static void fewer_pieces_than_episodes(void **state)
{
    (void)state;
    int typical[1];
    for (int i = 0; i < 5; i++) set(i, i % 2, 7, 0);
    assert_int_equal(wn_episode_cluster(x, 5, 4, of, centres), 2);      /* equal ones are one */
    for (int i = 0; i < 5; i++) assert_int_equal(of[i], i % 2);
    assert_int_equal(wn_episode_cluster(x, 1, 4, of, centres), 1);
    assert_int_equal(wn_episode_typical(x, 1, of, centres, 0, 1, typical), 1);
    assert_int_equal(typical[0], 0);
    memset(x, 0, sizeof *x * D * 3);                    /* tokens without embeddings */
    assert_int_equal(wn_episode_cluster(x, 3, 4, of, centres), 1);
}

/* Squared distances of a partition to its means. */
static double spread(int n, int k, const int *part)
{
    double sum = 0;
    for (int c = 0; c < k; c++)
        for (int d = 0; d < D; d++) {
            double s1 = 0, s2 = 0, m = 0;
            for (int i = 0; i < n; i++)
                if (part[i] == c)
                    s1 += (double)x[i * D + d], s2 += (double)x[i * D + d] * (double)x[i * D + d],
                        m++;
            if (m > 0) sum += s2 - s1 * s1 / m;
        }
    return sum;
}

/* Eight random pieces in two episodes: of ten beginnings one nearly always ends in the best of the
 * 128 partitions (k-means promises no more), never far from it. */
static void as_good_as_trying_all(void **state)
{
    (void)state;
    enum { N = 8 };
    uint64_t rng = 11;
    int n_best = 0;
    for (int round = 0; round < 20; round++) {
        int part[N], again[N];
        double best = INFINITY;
        for (int i = 0; i < N; i++)
            set(i, (int)(test_rand(&rng) % 3), 3 + (int)(test_rand(&rng) % 2),
                (double)(test_rand(&rng) % 100) / 80);
        for (int bits = 0; bits < 1 << (N - 1); bits++) {
            for (int i = 0; i < N; i++) part[i] = bits >> i & 1;
            best = fmin(best, spread(N, 2, part));
        }
        int k = wn_episode_cluster(x, N, 2, of, centres);
        assert_true(spread(N, k, of) <= 1.25 * best);
        n_best += spread(N, k, of) <= best + 1e-6;
        memcpy(again, of, sizeof again);
        assert_int_equal(wn_episode_cluster(x, N, 2, of, centres), k);
        assert_memory_equal(again, of, sizeof again);
    }
    assert_true(n_best >= 18);
}

/* A piece is like the mean of its tokens' rows, whatever their order; rows longer than D are folded
 * with signs. */
static void a_piece_is_the_mean_of_its_tokens(void **state)
{
    (void)state;
    static const int32_t ids[3] = { 5, 70, 300 }, other[3] = { 300, 5, 70 };
    test_engine t = test_engine_open(test_model_path("llama", "F16"),
                                     (wn_engine_opts){ .n_threads = 1 });
    const wn_model *m = t.e->m;
    int n = m->hp.n_embd;
    float *row = calloc((size_t)n, sizeof *row), a[D], b[D];
    double want[D] = { 0 }, norm = 0;
    for (int i = 0; i < 3; i++) {
        wn_matrix_row(&m->embed, ids[i], row);
        for (int e = 0; e < n; e++) want[e % D] += e / D % 2 ? -(double)row[e] : (double)row[e];
    }
    for (int d = 0; d < D; d++) norm += want[d] * want[d];
    wn_episode_embed(m, ids, 3, row, a);
    wn_episode_embed(m, other, 3, row, b);
    for (int d = 0; d < D; d++) {
        assert_true(fabs((double)a[d] - want[d] / sqrt(norm)) < 1e-6);
        assert_true(fabsf(a[d] - b[d]) < 1e-6f);
    }
    free(row);
    test_engine_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_a_text),
        cmocka_unit_test(what_is_alike_falls_together),
        cmocka_unit_test(fewer_pieces_than_episodes),
        cmocka_unit_test(as_good_as_trying_all),
        cmocka_unit_test(a_piece_is_the_mean_of_its_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
