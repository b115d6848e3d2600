/* The law for policies that go by a profile of the model: the same bytes in any chunks, with any
 * threads and page size, after a fork, a truncation and a session file; nothing to drop is the
 * full cache; another profile is another policy to a session. And where no profile is to be had
 * the sentence says what to do. */
#include "tests/support/engine.h"
#include "tests/support/profile.h"
#include "tests/unit/check.h"

#include <unistd.h>

enum { N = 500, VOCAB = 320, MARK = 333 };
static int32_t ids[N];
static wn_profile *usual, *even;

typedef struct { int threads, chunk, slots, cut; } way;

static const char *path_of(const char *what)
{
    static char path[128];
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/winnow-test-same-%ld.%s", tmp ? tmp : "/tmp", (long)getpid(), what);
    return path;
}

static test_engine open_engine(way w, const wn_profile *p)
{
    test_engine t = test_engine_open(test_model_path("llama", "F16"), (wn_engine_opts){ .n_threads = w.threads, .n_batch = w.chunk,
                                                                                     .page_slots = w.slots, .max_seqs = 3 });
    wn_engine_lend_profile(t.e, p);
    return t;
}

/* Tokens [n_fed, to), with a mark at MARK. */
static void run_to(test_engine *t, test_seq *q, int to)
{
    wn_err err = { 0 };
    int at = wn_seq_n_tokens(q->s);
    q->s->opts.on_logits_ctx = q;
    if (at < MARK && to >= MARK) {
        test_seq_run(t, q, ids + at, MARK - at);
        at = MARK;
    }
    if (at == MARK && wn_seq_mark(q->s, &err)) fail_msg("%s", err.text);
    test_seq_run(t, q, ids + at, to - at);
}

/* With a cut: what has been read there goes through a session file, a fork, and back from further on. */
static float *logits_of(const char *kv, way w, const wn_profile *p)
{
    wn_err err = { 0 };
    test_engine t = open_engine(w, p);
    test_seq q = test_seq_open_kv(&t, N, kv);
    if (w.cut) {
        run_to(&t, &q, w.cut);
        if (wn_seq_save(q.s, path_of("session"), &err)) fail_msg("save: %s", err.text);
        test_seq r = test_seq_open_kv(&t, N, kv);
        if (wn_seq_load(r.s, path_of("session"), &err)) fail_msg("load: %s", err.text);
        unlink(path_of("session"));
        memcpy(r.logits, q.logits, sizeof(float) * VOCAB * (size_t)w.cut);
        test_seq_close(&q);
        q = r;
        wn_engine_lend_profile(t.e, even);      /* a fork goes on with its source's profile */
        wn_seq *f;
        if (wn_seq_fork(&f, q.s, NULL, &err)) fail_msg("fork: %s", err.text);
        wn_seq_close(q.s);
        q.s = f;
        test_seq_run(&t, &q, ids + 5, 60);      /* not this text's tokens */
        if (wn_seq_truncate(q.s, w.cut, &err)) fail_msg("truncate: %s", err.text);
    }
    run_to(&t, &q, N);
    wn_kv_check(q.s->kv);
    float *out = q.logits;
    q.logits = NULL;
    test_seq_close(&q);
    test_engine_close(&t);
    return out;
}

static const char *const policies[] = {
    "snapkv(at=both,every=64)+alloc:profile@25%",
    "snapkv(at=mark)+alloc:profile+recover:nearest@30%",
    "h2o(every=64,first=2)+alloc:heads@60",
};

static void the_law_holds(void **state)
{
    (void)state;
    static const way ways[] = { { 2, 7, 0, 0 }, { 1, 64, 4, 0 }, { 2, 64, 16, 0 }, { 2, 1, 0, 0 }, { 2, 100, 0, 257 },
                                { 1, 100, 0, 400 } };
    for (size_t i = 0; i < WN_COUNT(policies); i++) {
        float *ref = logits_of(policies[i], (way){ 1, 512, 0, 0 }, usual);
        for (size_t k = 0; k < WN_COUNT(ways); k++) {
            float *got = logits_of(policies[i], ways[k], usual);
            test_same_logits(policies[i], ref, got, N, VOCAB);
            free(got);
        }
        free(ref);
    }
}

/* Lanes and layers differ in what they keep, and another profile gives other bytes. */
static void profiles_decide(void **state)
{
    (void)state;
    float *a = logits_of(policies[0], (way){ 2, 100, 0, 0 }, usual), *b = logits_of(policies[0], (way){ 2, 100, 0, 0 }, even);
    float *uniform = logits_of("snapkv(at=both,every=64)@25%", (way){ 2, 100, 0, 0 }, NULL);
    test_same_logits("even weights", uniform, b, N, VOCAB);
    assert_memory_equal(a, b, sizeof(float) * VOCAB * 64);
    assert_memory_not_equal(a + 128 * VOCAB, b + 128 * VOCAB, sizeof(float) * VOCAB);
    free(a);
    free(b);
    free(uniform);
}

static void nothing_to_drop_is_none(void **state)
{
    (void)state;
    static const char *const kv[] = { "snapkv(at=both,every=64)+alloc:profile@100%", "h2o(every=64)+alloc:heads@500" };
    float *none = logits_of(NULL, (way){ 2, 100, 0, 0 }, NULL);
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        float *got = logits_of(kv[i], (way){ 2, 100, 0, 0 }, usual);
        test_same_logits(kv[i], none, got, N, VOCAB);
        free(got);
    }
    free(none);
}

static void a_session_names_its_profile(void **state)
{
    (void)state;
    wn_err err = { 0 };
    test_engine t = open_engine((way){ 1, 100, 0, 0 }, usual);
    test_seq a = test_seq_open_kv(&t, N, policies[0]), plain = test_seq_open_kv(&t, N, "snapkv(at=both,every=64)@25%");
    run_to(&t, &a, 200);
    if (wn_seq_save(a.s, path_of("session"), &err)) fail_msg("save: %s", err.text);
    wn_engine_lend_profile(t.e, even);
    test_seq b = test_seq_open_kv(&t, N, policies[0]);
    assert_int_equal(wn_seq_load(b.s, path_of("session"), &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "saved with another profile of the model"));
    assert_non_null(strstr(err.text, usual->id));
    assert_int_equal(wn_seq_load(plain.s, path_of("session"), &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "saved with the cache policy v1:snapkv("));
    assert_null(strstr(err.text, "profile="));
    unlink(path_of("session"));
    test_seq_close(&a);
    test_seq_close(&b);
    test_seq_close(&plain);
    test_engine_close(&t);
}

/* ---- where the engine looks ------------------------------------------------------------------ */

static void refused(const char *profile, const char *kv, const char *says)
{
    wn_err err = { 0 };
    wn_seq *s;
    test_engine t = test_engine_open(test_model_path("llama", "F16"), (wn_engine_opts){ .n_threads = 1, .profile = profile,
                                                                                        .kv = policies[0] });
    wn_engine_lend_profile(t.e, NULL);
    wn_status st = wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = 100, .kv = kv }, &err);
    if (!st || !strstr(err.text, says)) fail_msg("%s: %s, expected \"%s\"", kv, st ? err.text : "opened", says);
    assert_null(s);
    test_engine_close(&t);
}

static void the_engine_finds_profiles(void **state)
{
    (void)state;
    wn_err err = { 0 };
    wn_seq *s;
    uint8_t fp[16];
    char beside[300];
    const char *model = test_model_path("llama", "F16");
    refused(NULL, policies[0], ": run `winnow profile ");
    refused("/nowhere/x.profile", policies[0], "/nowhere/x.profile: No such file");
    refused(model, policies[0], "not a profile");
    test_engine t = test_engine_open(model, (wn_engine_opts){ .n_threads = 2, .kv = policies[0] });
    wn_engine_lend_profile(t.e, NULL);
    wn_model_fingerprint(t.m, NULL, fp);
    snprintf(beside, sizeof beside, "%s.profile", model);
    wn_profile *mine = test_profile(usual->n_layers, usual->n_heads, usual->n_lanes, fp);
    if (wn_profile_write(usual, beside, &err)) fail_msg("%s", err.text);
    refused(NULL, policies[0], "it is of another model (made up");
    if (wn_profile_write(mine, beside, &err)) fail_msg("%s", err.text);
    refused(NULL, "h2o+alloc:profile@25%", "has no budgets for h2o (it has: snapkv@25%)");
    if (wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = 100, .kv = policies[0] }, &err)) fail_msg("%s", err.text);
    assert_string_equal(s->profile->id, mine->id);
    wn_seq_close(s);
    unlink(beside);
    if (wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = 100, .kv = policies[1] }, &err)) fail_msg("%s", err.text);
    wn_seq_close(s);                    /* read once */
    if (wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = 100, .kv = "snapkv@25%" }, &err)) fail_msg("%s", err.text);
    assert_null(s->profile);
    wn_seq_close(s);
    test_engine_close(&t);
    wn_profile_close(mine);
}

int main(void)
{
    uint8_t fp[16] = { 1 };
    test_tokens(ids, N, VOCAB, 1);
    test_engine t = test_engine_open(test_model_path("llama", "F16"), (wn_engine_opts){ .n_threads = 1 });
    int L = t.m->hp.n_layers, H = t.m->hp.n_heads, n = t.m->map.n_lanes;
    usual = test_profile(L, H, n, fp);
    even = test_profile_even(L, H, n, fp);
    test_engine_close(&t);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_law_holds),
        cmocka_unit_test(profiles_decide),
        cmocka_unit_test(nothing_to_drop_is_none),
        cmocka_unit_test(a_session_names_its_profile),
        cmocka_unit_test(the_engine_finds_profiles),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    wn_profile_close(usual);
    wn_profile_close(even);
    return rc;
}
