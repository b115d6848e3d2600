/* Books come out of a text: k-means finds what rows gather around, weights decide where points go,
 * and the same text gives the same bytes with any number of threads; a text that is too short, a
 * name that is no calibrated format are sentences. */
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include "eval/calibrate.h"
#include "eval/kmeans.h"

#include <math.h>

/* ---- k-means --------------------------------------------------------------------------- */

static void points_go_where_rows_are(void **state)
{
    (void)state;
    enum { CLUSTERS = 40, EACH = 30, C = 4, ROWS = CLUSTERS * EACH };
    static float x[ROWS][C], weight[ROWS], far[ROWS], points[CLUSTERS][C];
    static uint8_t codes[ROWS];
    uint64_t seed = 5;
    for (int i = 0; i < ROWS; i++) {
        weight[i] = 1 + fabsf(test_randf(&seed));
        for (int d = 0; d < C; d++)
            x[i][d] = (float)((i % CLUSTERS >> d * 2 & 3) * 10 + i % CLUSTERS / 16 * 50) +
                      0.1f * test_randf(&seed);
    }
    wn_kmeans_job j = { .x = x[0], .stride = C, .weight = weight, .n = ROWS, .c = C,
                        .n_points = CLUSTERS, .rounds = 20, .seed = 1, .codes = codes, .far = far };
    double cost = wn_kmeans(&j, points[0]);
    /* the spread within clusters, no more */
    assert_true(cost < ROWS * 1.5 * C * 0.01 / 3 * 1.2);
    for (int i = CLUSTERS; i < ROWS; i++) assert_int_equal(codes[i], codes[i % CLUSTERS]);
    /* fewer different rows than points: every row is a point */
    for (int i = 0; i < ROWS; i++)
        for (int d = 0; d < C; d++) x[i][d] = (float)(i % 7);
    assert_true(wn_kmeans(&j, points[0]) == 0);
}

static void weight_draws_points(void **state)
{
    (void)state;
    enum { ROWS = 64 };
    static float x[ROWS], weight[ROWS], far[ROWS], points[2];
    static uint8_t codes[ROWS];
    for (int i = 0; i < ROWS; i++) x[i] = (float)i, weight[i] = i == 3 || i == 40 ? 1e6f : 1e-6f;
    wn_kmeans(&(wn_kmeans_job){ .x = x, .stride = 1, .weight = weight, .n = ROWS, .c = 1,
                                .n_points = 2, .rounds = 20, .codes = codes, .far = far }, points);
    assert_true(fabsf(fminf(points[0], points[1]) - 3) < 1e-3f &&
                fabsf(fmaxf(points[0], points[1]) - 40) < 1e-3f);
}

/* ---- the whole --------------------------------------------------------------------------- */

static char *some_text(void)
{
    enum { BYTES = 3000 };
    char *t = malloc(BYTES + 1);
    uint64_t seed = 9;
    for (int i = 0; i < BYTES; i++) t[i] = i % 7 == 6 ? ' ' : (char)('a' + test_rand(&seed) % 26);
    t[BYTES] = '\0';
    return t;
}

typedef struct { int n; double most; } seen;

static void on_fitted(void *ctx, const wn_format *f, int lane, bool of_v, double loss)
{
    seen *s = ctx;
    (void)f, (void)lane, (void)of_v;
    s->n++;
    s->most = fmax(s->most, loss);
}

static void the_same_text_gives_the_same_books(void **state)
{
    (void)state;
    wn_err err = { 0 };
    wn_model *m;
    wn_calibration *c[2];
    seen s = { 0 };
    char *text = some_text();
    assert_int_equal(wn_model_open(&m, test_tiny_model_path(), &(wn_model_opts){ .n_threads = 2 },
                                   &err),
                     WN_OK);
    for (int i = 0; i < 2; i++) {
        wn_calibrate_opts o = { .text = text, .n_text = strlen(text), .context = 300, .n_texts = 4,
                                .n_threads = 1 + i, .fitted = on_fitted, .fitted_ctx = &s };
        if (wn_calibrate(&c[i], m, &o, &err)) fail_msg("%s", err.text);
        assert_int_equal(c[i]->n_tokens, 1200);
    }
    assert_int_equal(c[0]->n_books, c[1]->n_books);
    assert_int_equal(s.n, 2 * c[0]->n_books * 2 * m->map.n_lanes);
    /* random rows: no structure to find, but weights */
    if (!(s.most < 0.8)) fail_msg("%g of a side's squares are lost", s.most);
    for (int i = 0; i < c[0]->n_books; i++)
        for (int l = 0; l < m->map.n_lanes; l++)
            for (int v = 0; v < 2; v++) {
                size_t n = c[0]->books[i].format->calibrated->numbers(16, v);
                assert_memory_equal(wn_calibration_numbers(c[0], &c[0]->books[i], l, v),
                                    wn_calibration_numbers(c[1], &c[1]->books[i], l, v),
                                    n * sizeof(float));
            }
    wn_calibration_close(c[0]);
    wn_calibration_close(c[1]);
    free(text);
    wn_model_close(m);
}

static void what_cannot_be_is_a_sentence(void **state)
{
    (void)state;
    static const struct { const char *formats, *says; int context; size_t n;
    } cases[] = {
        { NULL, "want 1024 at least", 0, 500 },
        { "cq2,q4", "\"q4\" is no cache format", 0, 3000 },
        { "cq2,cq2", "twice", 0, 3000 },
        { "", "no format is named", 0, 3000 },
        { NULL, "was trained for 4096", 5000, 3000 },
    };
    wn_err err = { 0 };
    wn_model *m;
    wn_calibration *c;
    char *text = some_text();
    assert_int_equal(wn_model_open(&m, test_tiny_model_path(), &(wn_model_opts){ .n_threads = 1 },
                                   &err),
                     WN_OK);
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        wn_calibrate_opts o = { .text = text, .n_text = cases[i].n, .context = cases[i].context,
                                .formats = cases[i].formats };
        assert_int_not_equal(wn_calibrate(&c, m, &o, &err), WN_OK);
        assert_null(c);
        if (!strstr(err.text, cases[i].says)) fail_msg("case %zu: %s", i, err.text);
    }
    free(text);
    wn_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_go_where_rows_are),
        cmocka_unit_test(weight_draws_points),
        cmocka_unit_test(the_same_text_gives_the_same_books),
        cmocka_unit_test(what_cannot_be_is_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
