/* The law for policies that go by a profile of the model: the same bytes in any chunks, with any
 * threads and page size, after a fork, a truncation and a session file; nothing to drop is the
 * full cache; another profile is another policy to a session. And where no profile is to be had
 * the sentence says what to do. */
#include "tests/support/law.h"
#include "tests/support/profile.h"
#include "tests/unit/check.h"

#include <unistd.h>

static wn_profile *usual, *even;

static const char *const policies[] = {
    "snapkv(at=both,every=64)+alloc:profile@25%",
    "snapkv(at=mark)+alloc:profile+recover:nearest@30%",
    "h2o(every=64,first=2)+alloc:heads@60",
    "epicache(at=both,every=64,piece=8)+alloc:sensitive@25%",
};

static float *with_profile(const char *kv, const wn_profile *p)
{
    law_profile = p;
    float *x = law_reference(kv);
    law_profile = NULL;
    return x;
}

static void the_law_holds(void **state)
{
    (void)state;
    static const law_way ways[] = { { .threads = 2, .chunk = 7 }, { .threads = 1, .chunk = 64,
                                      .slots = 4 },
                                    { .threads = 2, .chunk = 64, .slots = 16 }, { .threads = 2,
                                      .chunk = 1 } };
    for (size_t i = 0; i < WN_COUNT(policies); i++) {
        law_profile = usual;
        float *ref = law_reference(policies[i]);
        for (size_t k = 0; k < WN_COUNT(ways); k++) {
            law_way w = ways[k];
            w.kv = policies[i];
            law_compare(ref, w);
        }
        law_cut_at(policies[i], 400, ref);
        law_profile = NULL;
        free(ref);
    }
}

/* Lanes and layers differ in what they keep, and another profile gives other bytes. */
static void profiles_decide(void **state)
{
    (void)state;
    float *a = with_profile(policies[0], usual), *b = with_profile(policies[0], even);
    float *uniform = law_reference("snapkv(at=both,every=64)@25%");
    test_same_logits("even weights", uniform, b, LAW_N, LAW_VOCAB);
    assert_memory_equal(a, b, sizeof(float) * LAW_VOCAB * 64);
    assert_memory_not_equal(a + 128 * LAW_VOCAB, b + 128 * LAW_VOCAB, sizeof(float) * LAW_VOCAB);
    free(a);
    free(b);
    free(uniform);
}

static void nothing_to_drop_is_none(void **state)
{
    (void)state;
    static const char *const kv[] = { "snapkv(at=both,every=64)+alloc:profile@100%",
                                      "h2o(every=64)+alloc:heads@650" };
    float *none = law_reference(NULL);
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        float *got = with_profile(kv[i], usual);
        test_same_logits(kv[i], none, got, LAW_N, LAW_VOCAB);
        free(got);
    }
    free(none);
}

/* A sequence goes on with the profile it was opened with, and so does its fork. */
static void a_fork_has_its_sources_profile(void **state)
{
    (void)state;
    float *ref = with_profile(policies[0], usual);
    wn_err err = { 0 };
    test_engine t = law_engine((law_way){ .threads = 2, .chunk = 100 });
    wn_engine_lend_profile(t.e, usual);
    test_seq q = test_seq_open_kv(&t, LAW_N, policies[0]);
    law_run_to(&t, &q, 257);
    wn_engine_lend_profile(t.e, even);
    wn_seq *f;
    if (wn_seq_fork(&f, q.s, NULL, &err)) fail_msg("fork: %s", err.text);
    wn_seq_close(q.s);
    q.s = f;
    law_finish(&t, &q, policies[0], "forked under another profile", 257, ref);
    test_seq_close(&q);
    test_engine_close(&t);
    free(ref);
}

static void a_session_names_its_profile(void **state)
{
    (void)state;
    wn_err err = { 0 };
    test_engine t = law_engine((law_way){ .threads = 1, .chunk = 100 });
    wn_engine_lend_profile(t.e, usual);
    test_seq a = test_seq_open_kv(&t, LAW_N, policies[0]);
    test_seq plain = test_seq_open_kv(&t, LAW_N, "snapkv(at=both,every=64)@25%");
    law_run_to(&t, &a, 200);
    if (wn_seq_save(a.s, law_session_path(), &err)) fail_msg("save: %s", err.text);
    wn_engine_lend_profile(t.e, even);
    test_seq b = test_seq_open_kv(&t, LAW_N, policies[0]);
    assert_int_equal(wn_seq_load(b.s, law_session_path(), &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "saved with another profile of the model"));
    assert_non_null(strstr(err.text, usual->id));
    assert_int_equal(wn_seq_load(plain.s, law_session_path(), &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "saved with the cache policy v1:snapkv("));
    assert_null(strstr(err.text, "profile="));
    unlink(law_session_path());
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
    test_engine t = test_engine_open(test_model_path("llama", "F16"),
                                     (wn_engine_opts){
                                         .n_threads = 1, .profile = profile, .kv = policies[0] });
    wn_engine_lend_profile(t.e, NULL);
    wn_status st = wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = 100, .kv = kv }, &err);
    if (!st || !strstr(err.text, says))
        fail_msg("%s: %s, expected \"%s\"", kv, st ? err.text : "opened", says);
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
    if (wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = 100, .kv = policies[0] }, &err))
        fail_msg("%s", err.text);
    assert_string_equal(s->profile->id, mine->id);
    wn_seq_close(s);
    unlink(beside);
    if (wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = 100, .kv = policies[1] }, &err))
        fail_msg("%s", err.text);
    wn_seq_close(s);                    /* read once */
    if (wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = 100, .kv = "snapkv@25%" }, &err))
        fail_msg("%s", err.text);
    assert_null(s->profile);
    wn_seq_close(s);
    test_engine_close(&t);
    wn_profile_close(mine);
}

int main(void)
{
    uint8_t fp[16] = { 1 };
    law_model = test_model_path("llama", "F16");
    test_tokens(law_ids, LAW_N, LAW_VOCAB, 1);
    test_engine t = test_engine_open(law_model, (wn_engine_opts){ .n_threads = 1 });
    int L = t.m->hp.n_layers, H = t.m->hp.n_heads, n = t.m->map.n_lanes;
    usual = test_profile(L, H, n, fp);
    even = test_profile_even(L, H, n, fp);
    test_engine_close(&t);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_law_holds),
        cmocka_unit_test(profiles_decide),
        cmocka_unit_test(nothing_to_drop_is_none),
        cmocka_unit_test(a_fork_has_its_sources_profile),
        cmocka_unit_test(a_session_names_its_profile),
        cmocka_unit_test(the_engine_finds_profiles),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    wn_profile_close(usual);
    wn_profile_close(even);
    return rc;
}
