/* Sequences that named no max_tokens share a pool that cannot hold them all: they are parked
 * and computed again, and nobody sees it in a result. The logits of every position are the
 * bytes of a run with room for all, reported once; the oldest is never parked; everybody
 * finishes; promises never exceed the pool. Under policies with sums, rings and marks, in
 * chunks of any size. */
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include "base/alloc.h"
#include "gguf/generate.h"

#include <unistd.h>

enum { N = 600, SEQS = 3, VOCAB = 320, MARK = 150 };
static int32_t ids[SEQS][N];
static char model[128];

/* 16 lanes of 128 channels in f32: an extent of 2 MiB is 128 positions. */
static void make_model(void)
{
    wn_err err = { 0 };
    test_path(model, sizeof model, "parking.gguf");
    wn_status st = wn_generate(model, &(wn_generate_opts){ .arch = "llama", .type = "F32",
                                                           .dim = 32, .n_layers = 2,
                               .n_heads = 8, .n_kv_heads = 8, .head_dim = 128, .ffn = 32,
                               .vocab = VOCAB, .n_ctx = 2048, .seed = 5 }, NULL, &err);
    if (st) fail_msg("%s", err.text);
}

typedef struct {
    wn_seq *s;
    int which, n_fed, n_seen, n_parked; /* n_parked: times it was found parked */
    bool was_parked, twice;
    float *logits;
} text;

static void collect(void *ctx, int pos, const float *logits)
{
    text *x = ctx;
    if (pos != x->n_seen) x->twice = true;
    x->n_seen = pos + 1;
    memcpy(x->logits + (size_t)pos * VOCAB, logits, sizeof(float) * VOCAB);
}

static void must(wn_status st, const wn_err *err, const char *what)
{
    if (st) fail_msg("%s: %s", what, err->text);
}

static void text_open(text *x, test_engine *t, int which, int max_tokens, const char *kv)
{
    wn_err err = { 0 };
    *x = (text){ .which = which, .logits = calloc((size_t)N * VOCAB, sizeof(float)) };
    assert_non_null(x->logits);
    must(wn_seq_open(&x->s, t->e, &(wn_seq_opts){ .max_tokens = max_tokens, .kv = kv,
                                                  .on_logits = collect,
                                                  .on_logits_ctx = x }, &err), &err, kv);
}

/* A prompt of MARK tokens with a mark, then pieces of n. */
static void feed(text *x, int n, const char *what)
{
    wn_err err = { 0 };
    n = WN_MIN(x->n_fed < MARK ? MARK - x->n_fed : n, N - x->n_fed);
    must(wn_seq_feed(x->s, ids[x->which] + x->n_fed, (size_t)n, &err), &err, what);
    x->n_fed += n;
    if (x->n_fed == MARK) must(wn_seq_mark(x->s, &err), &err, what);
}

static float *reference(const char *kv, int which)
{
    test_engine t = test_engine_open(
        model, (wn_engine_opts){
                   .n_threads = 1, .k_type = "f32", .v_type = "f32", .kv = kv, .n_ctx = 1024 });
    text x;
    text_open(&x, &t, which, N, kv);
    while (x.n_fed < N) {
        feed(&x, 64, kv);
        test_steps(&t);
    }
    wn_seq_close(x.s);
    test_engine_close(&t);
    return x.logits;
}

static void check_promises(const test_engine *t, const char *what)
{
    wn_pool_stats ps;
    uint32_t used, peak;
    wn_pool_get_stats(t->e->pool, &ps);
    assert_true(wn_engine_extents_for(t->e, t->e->reserved, 1) <= ps.n_extents);
    for (int c = 0; c < WN_POOL_CLASSES; c++) {
        wn_pool_class_use(t->e->pool, c, &used, &peak);
        if (used > t->e->reserved[c])
            fail_msg("%s: %u frames of class %d in use, %u promised", what, used, c,
                     t->e->reserved[c]);
    }
}

static void note_parking(text *x)
{
    wn_seq_stats st;
    wn_seq_get_stats(x->s, &st);
    if (st.parked) {
        wn_err err = { 0 };
        wn_seq *f;
        assert_int_equal(wn_kv_n(x->s->kv), 0);
        assert_int_equal(st.promised, 0);
        if (wn_seq_n_done(x->s)) {
            assert_int_equal(wn_seq_fork(&f, x->s, NULL, &err), WN_EFULL);
            assert_int_equal(wn_seq_save(x->s, "/nowhere/x", &err), WN_EFULL);
        }
    }
    x->n_parked += st.parked && !x->was_parked;
    x->was_parked = st.parked;
}

/* Three texts in a pool for less than two, fed piece by piece; who has all its logits is
 * closed. Returns how often a sequence was parked. */
static int share(const char *kv, int chunk, int piece, int portion, float *const ref[SEQS])
{
    char what[200];
    text x[SEQS];
    wn_err err = { 0 };
    int n_open = SEQS, parked = 0, steps = 0;
    snprintf(what, sizeof what, "%s, chunks of %d, pieces of %d, portions of %d", kv, chunk, piece,
             portion);
    test_engine t = test_engine_open(model, (wn_engine_opts){
        .n_threads = 1, .k_type = "f32", .v_type = "f32", .kv = kv, .n_ctx = 1024, .n_batch = chunk,
        .max_seqs = SEQS, .pool_tokens = N * 11 / 10 });
    t.e->portion = portion;
    for (int i = 0; i < SEQS; i++) text_open(&x[i], &t, i, 0, kv);
    while (n_open) {
        bool oldest = true;
        for (int i = 0; i < SEQS; i++)
            if (x[i].s && x[i].n_fed < N && wn_seq_logits(x[i].s)) feed(&x[i], piece, what);
            else if (x[i].s && !x[i].n_fed) feed(&x[i], piece, what);
        wn_alloc_forbid(!strcmp(kv, "none"));       /* others make their plan's memory at the first
                                                       decision */
        must(wn_engine_step(t.e, NULL, &err), &err, what);
        wn_alloc_forbid(false);
        check_promises(&t, what);
        if (++steps > 100000) fail_msg("%s: no end", what);
        for (int i = 0; i < SEQS; i++) {
            if (!x[i].s) continue;
            note_parking(&x[i]);
            if (oldest && x[i].was_parked) fail_msg("%s: the oldest is parked", what);
            oldest = false;
            if (x[i].twice) fail_msg("%s: on_logits is called twice at %d", what, x[i].n_seen);
            if (x[i].n_seen < N) continue;
            test_same_logits(what, ref[i], x[i].logits, N, VOCAB);
            wn_kv_check(x[i].s->kv);
            wn_seq_close(x[i].s);
            x[i].s = NULL;
            parked += x[i].n_parked;
            free(x[i].logits);
            n_open--;
        }
    }
    wn_pool_check(t.e->pool);
    test_engine_close(&t);
    return parked;
}

static void parked_or_not_is_the_same(void **state)
{
    static const char *const kv[] = { "none", "recent(every=64)@60%", "snapkv(at=mark)@50%",
                                      "h2o(every=64)@60%", "d2o(every=64)@60%" };
    static const struct {
        int chunk, piece, portion;
    } ways[] = { { 512, 64, 64 }, { 7, 20, 64 }, { 64, 1, 256 }, { 100, 600, 16 }, { 48, 30, 1 } };
    (void)state;
    for (size_t k = 0; k < WN_COUNT(kv); k++) {
        float *ref[SEQS];
        for (int i = 0; i < SEQS; i++) ref[i] = reference(kv[k], i);
        int parked = 0;
        for (size_t w = 0; w < WN_COUNT(ways); w++)
            parked += share(kv[k], ways[w].chunk, ways[w].piece, ways[w].portion, ref);
        print_message("%s: parked %d times\n", kv[k], parked);
        if (!parked) fail_msg("%s: nobody was parked", kv[k]);
        for (int i = 0; i < SEQS; i++) free(ref[i]);
    }
}

/* Alone at the end of the pool: refused with numbers, and what there is stays readable. */
static void what_cannot_go_on_says_so(void **state)
{
    (void)state;
    wn_err err = { 0 };
    wn_seq_stats st;
    wn_seq *fixed;
    text x;
    int rows;
    char path[160];
    test_engine t = test_engine_open(model, (wn_engine_opts){
        .n_threads = 1, .k_type = "f32", .v_type = "f32", .n_ctx = 1024, .max_seqs = 2,
        .pool_tokens = 512 });
    t.e->portion = 64;
    text_open(&x, &t, 0, 0, NULL);
    must(wn_seq_open(&fixed, t.e, &(wn_seq_opts){ .max_tokens = 256 }, &err), &err, "fixed");
    must(wn_seq_feed(x.s, ids[0], N, &err), &err, "feed");
    assert_int_equal(wn_seq_feed(x.s, ids[1], 400, &err), WN_EFULL);    /* more than the pool has */
    assert_non_null(strstr(err.text, "1000"));
    assert_int_equal(wn_seq_n_tokens(x.s), N);
    do rows = 0, err.status = wn_engine_step(t.e, &rows, &err);
    while (rows > 0);
    assert_int_equal(err.status, WN_EFULL);
    int at = wn_seq_n_done(x.s);
    assert_true(at >= 192 && at < N);
    char number[32];
    snprintf(number, sizeof number, "position %d", at);
    if (!strstr(err.text, number)) fail_msg("%s", err.text);
    wn_seq_get_stats(x.s, &st);
    assert_false(st.parked);
    assert_int_equal(st.promised, at);
    assert_int_equal(x.n_seen, at);
    must(wn_seq_truncate(x.s, at, &err), &err, "truncate");
    snprintf(path, sizeof path, "%s.session", model);
    must(wn_seq_save(x.s, path, &err), &err, "save");
    unlink(path);
    must(wn_seq_feed(x.s, ids[0] + at, (size_t)(N - at), &err), &err, "feed");
    assert_int_equal(wn_engine_step(t.e, &rows, &err), WN_EFULL);
    must(wn_seq_feed(fixed, ids[1], 10, &err), &err, "feed");           /* others go on */
    must(wn_engine_step(t.e, &rows, &err), &err, "step");
    assert_int_equal(rows, 10);
    wn_seq_close(fixed);
    test_steps(&t);                                                     /* and now so does it */
    assert_int_equal(x.n_seen, N);
    float *ref = reference(NULL, 0);
    test_same_logits("after waiting", ref, x.logits, N, VOCAB);
    free(ref);
    wn_seq_close(x.s);
    free(x.logits);
    test_engine_close(&t);
}

/* One that waits for nothing keeps its logits while parked, is taken up when there is room,
 * and can be saved and forked again. */
static void an_idle_one_is_taken_up(void **state)
{
    (void)state;
    wn_err err = { 0 };
    wn_seq *f;
    text a, b;
    char path[160];
    test_engine t = test_engine_open(model, (wn_engine_opts){
        .n_threads = 1, .k_type = "f32", .v_type = "f32", .n_ctx = 1024, .max_seqs = 3,
        .pool_tokens = 400 });
    t.e->portion = 64;
    float *ref[2] = { reference(NULL, 0), reference(NULL, 1) };
    text_open(&a, &t, 0, 0, NULL);
    text_open(&b, &t, 1, 0, NULL);
    while (b.n_fed < 250) {
        feed(&b, 50, "b");
        test_steps(&t);
    }
    while (a.n_fed < 550) {
        feed(&a, 50, "a");
        test_steps(&t);
    }
    assert_true(wn_seq_is_parked(b.s));
    assert_int_equal(wn_seq_n_done(b.s), 250);
    assert_non_null(wn_seq_logits(b.s));
    assert_memory_equal(wn_seq_logits(b.s), ref[1] + 249 * VOCAB, sizeof(float) * VOCAB);
    assert_int_equal(wn_seq_fork(&f, b.s, NULL, &err), WN_EFULL);
    wn_seq_close(a.s);
    test_steps(&t);
    assert_false(wn_seq_is_parked(b.s));
    assert_int_equal(wn_kv_n(b.s->kv), 250);
    must(wn_seq_fork(&f, b.s, NULL, &err), &err, "fork");
    wn_seq_close(f);
    snprintf(path, sizeof path, "%s.session", model);
    must(wn_seq_save(b.s, path, &err), &err, "save");
    free(a.logits);
    text_open(&a, &t, 1, 0, NULL);
    must(wn_seq_load(a.s, path, &err), &err, "load");   /* more than the first promise */
    unlink(path);
    assert_int_equal(wn_seq_n_done(a.s), 250);
    assert_true(a.s->promised >= 250);
    wn_seq_close(a.s);
    while (b.n_fed < N) {
        feed(&b, 50, "b");
        test_steps(&t);
    }
    test_same_logits("taken up", ref[1], b.logits, N, VOCAB);
    assert_false(b.twice);
    wn_seq_close(b.s);
    free(a.logits);
    free(b.logits);
    free(ref[0]);
    free(ref[1]);
    test_engine_close(&t);
}

int main(void)
{
    make_model();
    for (int i = 0; i < SEQS; i++) test_tokens(ids[i], N, VOCAB, 11 + (uint64_t)i);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parked_or_not_is_the_same),
        cmocka_unit_test(what_cannot_go_on_says_so),
        cmocka_unit_test(an_idle_one_is_taken_up),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(model);
    return failed;
}
