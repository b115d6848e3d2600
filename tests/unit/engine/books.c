/* Lanes in calibrated formats get the books of the model's calibration, or a sentence that says
 * what to run; what was encoded by one calibration is not read by another. */
#include "tests/support/calibration.h"
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include <unistd.h>

enum { N = 300 };
static char path[128], session[160];

static void says(const wn_err *err, const char *words)
{
    if (!strstr(err->text, words)) fail_msg("\"%s\" does not say \"%s\"", err->text, words);
}

static wn_model *open_model(void)
{
    wn_model *m;
    assert_int_equal(wn_model_open(&m, test_tiny_model_path(), &(wn_model_opts){ .n_threads = 1 },
                                   NULL),
                     WN_OK);
    return m;
}

/* A calibration of the model, in its file. */
static void write_calibration(const wn_model *m, uint64_t seed, int n_formats)
{
    wn_lane_dims dims[8];
    uint8_t fp[16];
    wn_err err = { 0 };
    assert_true(m->map.n_lanes <= (int)WN_COUNT(dims));
    wn_engine_lane_dims(m, dims);
    wn_model_fingerprint(m, NULL, fp);
    wn_calibration *c = test_calibration(dims, m->map.n_lanes, fp, seed);
    int all = c->n_books;
    if (n_formats) c->n_books = n_formats;
    if (wn_calibration_write(c, path, &err)) fail_msg("%s", err.text);
    c->n_books = all;
    wn_calibration_close(c);
}

static wn_status open_engine(wn_engine **e, wn_model *m, const char *calibration,
                             const char *k_type, const char *kv, wn_err *err)
{
    return wn_engine_open(e, m, &(wn_engine_opts){ .n_threads = 1, .n_ctx = 512, .max_seqs = 64,
                                                   .calibration = calibration, .k_type = k_type,
                                                   .kv = kv }, err);
}

static void a_missing_calibration_is_a_sentence(void **state)
{
    (void)state;
    wn_err err = { 0 };
    wn_engine *e;
    wn_seq *s;
    wn_model *m = open_model();
    assert_int_equal(open_engine(&e, m, NULL, NULL, "none,k[1]=cq2", &err), WN_EIO);
    says(&err, "run `winnow calibrate");
    assert_int_equal(open_engine(&e, m, NULL, "cq1", NULL, &err), WN_EIO);
    says(&err, "run `winnow calibrate");
    /* until a sequence has such pages */
    assert_int_equal(open_engine(&e, m, NULL, NULL, NULL, &err), WN_OK);
    assert_int_equal(wn_seq_open(&s, e,
                                 &(wn_seq_opts){ .max_tokens = N,
                                                 .kv = "h2o+recover:demote(k=q8,v=cq1)@30%" },
                                 &err),
                     WN_EIO);
    wn_engine_close(e);
    write_calibration(m, 1, 1);
    assert_int_equal(open_engine(&e, m, path, NULL, "none,k=cq4", &err), WN_OK);
    assert_int_equal(wn_seq_open(&s, e, &(wn_seq_opts){ .max_tokens = N,
                                                        .kv = "none,kv=cq1" }, &err), WN_EINVAL);
    says(&err, "has no books for cq1");
    wn_engine_close(e);
    wn_model_close(m);
}

static void another_models_calibration_is_refused(void **state)
{
    (void)state;
    wn_err err = { 0 };
    wn_engine *e;
    wn_model *m = open_model(), *other;
    write_calibration(m, 1, 0);
    assert_int_equal(wn_model_open(&other, test_model_path("llama", "F16"),
                                   &(wn_model_opts){ .n_threads = 1 }, &err),
                     WN_OK);
    assert_int_equal(open_engine(&e, other, path, NULL, "none,kv=cq2", &err), WN_EINVAL);
    says(&err, "another model");
    wn_model_close(other);
    wn_model_close(m);
}

static void run(wn_engine *e, wn_seq *s, int n)
{
    int32_t ids[N];
    int rows;
    test_tokens(ids, n, 320, 3);
    assert_int_equal(wn_seq_feed(s, ids, (size_t)n, NULL), WN_OK);
    do assert_int_equal(wn_engine_step(e, &rows, NULL), WN_OK);
    while (rows);
}

/* What books take is in the engine's figures, whether it was opened for them or a sequence asked
 * first. */
static void books_are_counted(void **state)
{
    (void)state;
    wn_err err = { 0 };
    wn_engine *e;
    wn_seq *s;
    wn_engine_info plain, opened, asked;
    wn_model *m = open_model();
    write_calibration(m, 1, 0);
    assert_int_equal(open_engine(&e, m, path, NULL, NULL, &err), WN_OK);
    wn_engine_get_info(e, &plain);
    assert_int_equal(wn_seq_open(&s, e, &(wn_seq_opts){ .max_tokens = N,
                                                        .kv = "none,kv=cq2" }, &err), WN_OK);
    wn_engine_get_info(e, &asked);
    size_t bytes = wn_engine_books_bytes(e);
    assert_true(bytes > 3 * 2 * 4 * 16 * 255 * sizeof(float));          /* formats, sides, lanes */
    assert_int_equal(asked.scratch - plain.scratch, bytes);
    wn_seq_close(s);
    wn_engine_close(e);
    assert_int_equal(open_engine(&e, m, path, NULL, "none,kv=cq2", &err), WN_OK);
    wn_engine_get_info(e, &opened);
    assert_int_equal(opened.scratch, asked.scratch);
    size_t need = opened.weights + opened.scratch + opened.pool + (64 << 20);
    wn_engine_close(e);
    /* no room for books: refused when the engine is opened, and when a sequence asks for them */
    wn_engine_opts small = { .n_threads = 1, .n_ctx = 512, .max_seqs = 64, .calibration = path,
                             .mem = need - 1, .kv = "none,kv=cq2" };
    assert_int_equal(wn_engine_open(&e, m, &small, &err), WN_ELIMIT);
    wn_model_close(m);
}

static void sessions_go_by_their_calibration(void **state)
{
    (void)state;
    static const char *const kv[] = { "none,kv=cq2", "h2o(every=64)@50%,kv=cq1", "none,v[1]=cq4" };
    wn_err err = { 0 };
    wn_engine *e;
    wn_seq *s;
    wn_model *m = open_model();
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        write_calibration(m, 1, 0);
        assert_int_equal(open_engine(&e, m, path, NULL, NULL, &err), WN_OK);
        assert_int_equal(wn_seq_open(&s, e, &(wn_seq_opts){ .max_tokens = N,
                                                            .kv = kv[i] }, &err), WN_OK);
        run(e, s, 280);
        assert_int_equal(wn_seq_save(s, session, &err), WN_OK);
        wn_seq_close(s);
        assert_int_equal(wn_seq_open(&s, e, &(wn_seq_opts){ .max_tokens = N,
                                                            .kv = kv[i] }, &err), WN_OK);
        if (wn_seq_load(s, session, &err)) fail_msg("%s", err.text);
        wn_seq_close(s);
        assert_int_equal(wn_seq_open(&s, e, &(wn_seq_opts){ .max_tokens = N }, &err), WN_OK);
        assert_int_equal(wn_seq_load(s, session, &err), WN_EINVAL);
        says(&err, "calibrated");
        wn_seq_close(s);
        wn_engine_close(e);
        write_calibration(m, 2, 0);
        assert_int_equal(open_engine(&e, m, path, NULL, NULL, &err), WN_OK);
        assert_int_equal(wn_seq_open(&s, e, &(wn_seq_opts){ .max_tokens = N,
                                                            .kv = kv[i] }, &err), WN_OK);
        assert_int_equal(wn_seq_load(s, session, &err), WN_EINVAL);
        says(&err, "another calibration");
        wn_seq_close(s);
        wn_engine_close(e);
    }
    wn_model_close(m);
}

int main(void)
{
    test_path(path, sizeof path, "books");
    snprintf(session, sizeof session, "%s.session", path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_calibration_is_a_sentence),
        cmocka_unit_test(another_models_calibration_is_refused),
        cmocka_unit_test(books_are_counted),
        cmocka_unit_test(sessions_go_by_their_calibration),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    unlink(session);
    return rc;
}
