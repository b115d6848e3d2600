/* The engine's promises: a step allocates nothing; cache bytes are what the formula says;
 * what does not fit is refused with numbers and changes nothing; every failed allocation
 * on the way to an open sequence is survived. */
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include "base/alloc.h"

static int32_t ids[600];

static const char *model(void) { return test_model_path("llama", "Q8_0"); }

static void a_step_allocates_nothing(void **state)
{
    (void)state;
    wn_err err = { 0 };
    test_engine t = test_engine_open(model(), (wn_engine_opts){ .max_seqs = 2 });
    wn_seq *a, *b;
    assert_int_equal(wn_seq_open(&a, t.e, &(wn_seq_opts){ .max_tokens = 700 }, &err), WN_OK);
    assert_int_equal(wn_seq_open(&b, t.e, &(wn_seq_opts){ .max_tokens = 300,
                                                          .ring_rows = 64 }, &err), WN_OK);
    long before = wn_alloc_count();
    wn_alloc_forbid(true);
    wn_seq_feed(a, ids, 600, &err);
    wn_seq_feed(b, ids, 100, &err);
    for (int i = 0; i < 10; i++) wn_engine_step(t.e, NULL, &err);
    for (int i = 0; i < 70; i++) {
        wn_seq_feed(a, ids + i, 1, &err);
        wn_seq_feed(b, ids + i, 1, &err);
        wn_engine_step(t.e, NULL, &err);
    }
    wn_alloc_forbid(false);
    assert_int_equal(wn_alloc_count(), before);     /* on no other thread either */
    assert_int_equal(wn_seq_n_done(a), 670);
    assert_int_equal(wn_seq_n_done(b), 170);
    wn_seq_close(a);
    wn_seq_close(b);
    test_engine_close(&t);
}

static wn_status drop_half(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *err)
{
    (void)ctx;
    (void)kv;
    (void)err;
    for (int lane = 0; lane < plan->n_lanes; lane++)
        for (int i = p - 64 + lane % 2; i < p; i += 2) wn_plan_drop(plan, lane, i, i + 1);
    return WN_OK;
}

/* Decisions and their repacks are steps too. */
static void a_decision_frees_and_allocates_nothing(void **state)
{
    (void)state;
    wn_err err = { 0 };
    test_engine t = test_engine_open(model(), (wn_engine_opts){ .n_batch = 64,
                                                                .kv = "random(every=64)@100%" });
    wn_seq *a;
    wn_seq_stats full, half;
    assert_int_equal(wn_seq_open(&a, t.e, &(wn_seq_opts){ .max_tokens = 1100 }, &err), WN_OK);
    assert_int_equal(wn_seq_set_decider(a, 64, drop_half, NULL, &err), WN_OK);
    wn_seq_feed(a, ids, 513, &err);
    wn_engine_step(t.e, NULL, &err);                /* the first decision builds the plan's
                                                       memory */
    wn_engine_step(t.e, NULL, &err);
    for (int i = 0; i < 20; i++) wn_engine_step(t.e, NULL, &err);
    wn_seq_get_stats(a, &half);
    assert_int_equal(wn_seq_n_done(a), 513);
    assert_int_equal(half.kv_slots_full, 513 * 4);
    assert_int_equal(half.kv_slots, (513 - 256) * 4);
    full.kv_bytes = wn_model_kv_bytes(t.m, "f16", "f16", 513);
    assert_true(half.kv_bytes < full.kv_bytes * 65 / 100);
    wn_kv_check(a->kv);
    wn_seq_close(a);
    test_engine_close(&t);
}

static void cache_bytes_are_as_predicted(void **state)
{
    (void)state;
    static const char *const formats[] = { "f16", "bf16", "f32" };
    for (size_t i = 0; i < WN_COUNT(formats); i++) {
        wn_err err = { 0 };
        wn_seq_stats s;
        test_engine t = test_engine_open(model(),
                                         (wn_engine_opts){ .k_type = formats[i], .v_type = "f32" });
        wn_seq *a;
        assert_int_equal(wn_seq_open(&a, t.e, &(wn_seq_opts){ .max_tokens = 600 }, &err), WN_OK);
        wn_seq_feed(a, ids, 577, &err);
        test_steps(&t);
        wn_seq_get_stats(a, &s);
        /* 10 pages of 64 positions, 4 lanes, 64 channels each of K and V */
        size_t k = i == 2 ? 4 : 2;
        assert_int_equal(wn_model_kv_bytes(t.m, formats[i], "f32", 577),
                         10 * 4 * 64 * 64 * (k + 4));
        assert_int_equal(s.kv_bytes, 10 * 4 * 64 * 64 * (k + 4));
        assert_int_equal(s.kv_slots, 577 * 4);
        wn_seq_close(a);
        test_engine_close(&t);
    }
}

static void what_does_not_fit_is_refused_with_numbers(void **state)
{
    (void)state;
    wn_err err = { 0 };
    wn_engine *e;
    wn_seq *a, *b;
    test_engine t = test_engine_open(model(),
                                     (wn_engine_opts){ .max_seqs = 2, .pool_tokens = 1024 });
    assert_int_equal(wn_seq_open(&a, t.e, &(wn_seq_opts){ .max_tokens = 512 }, &err), WN_OK);
    wn_engine_info ei;
    wn_engine_get_info(t.e, &ei);
    assert_in_range(ei.room, 512, 2048);
    assert_int_equal(wn_seq_open(&b, t.e, &(wn_seq_opts){ .max_tokens = ei.room + 1 }, &err),
                     ei.room == 2048 ? WN_ELIMIT : WN_EFULL);
    assert_null(b);
    assert_non_null(strstr(err.text, "fit"));
    assert_int_equal(wn_seq_open(&b, t.e, &(wn_seq_opts){ .max_tokens = 4096 }, &err), WN_ELIMIT);
    assert_int_equal(wn_seq_feed(a, ids, 513, &err), WN_ELIMIT);
    assert_non_null(strstr(err.text, "513"));
    assert_int_equal(wn_seq_n_tokens(a), 0);
    int32_t bad = 320;
    assert_int_equal(wn_seq_feed(a, &bad, 1, &err), WN_EINVAL);
    wn_seq_close(a);

    assert_int_equal(wn_engine_open(&e, t.m, &(wn_engine_opts){ .mem = 1 << 20 }, &err), WN_ELIMIT);
    assert_null(e);
    assert_non_null(strstr(err.text, "--mem"));
    assert_int_equal(wn_engine_open(&e, t.m, &(wn_engine_opts){ .n_ctx = 100000 }, &err),
                     WN_EINVAL);
    assert_int_equal(wn_engine_open(&e, t.m, &(wn_engine_opts){ .k_type = "q9" }, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "f16"));
    assert_int_equal(wn_engine_open(&e, t.m, &(wn_engine_opts){ .page_slots = 48 }, &err),
                     WN_EINVAL);
    test_engine_close(&t);
}

static size_t all_of(const wn_engine *e)
{
    wn_engine_info ei;
    wn_engine_get_info(e, &ei);
    return ei.weights + ei.pool + ei.scratch + ((size_t)64 << 20);
}

/* What a policy looks at counts under --mem: in the engine that was opened for it, and in the
 * slack of one that was not. */
static void a_policy_needs_memory_of_its_own(void **state)
{
    (void)state;
    static const char *const kv[] = { "h2o@25%", "snapkv(at=both)@25%", "d2o@25%", "keydiff@25%" };
    wn_err err = { 0 };
    wn_seq *a, *b;
    test_engine t = test_engine_open(model(), (wn_engine_opts){ .n_ctx = 4096 });
    wn_engine *e;
    wn_engine_info ei;
    wn_engine_get_info(t.e, &ei);
    size_t plain = all_of(t.e), plain_scratch = ei.scratch;
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        assert_int_equal(
            wn_engine_open(&e, t.m, &(wn_engine_opts){ .n_ctx = 4096, .n_threads = 2, .kv = kv[i] },
                           &err),
            WN_OK);
        size_t least = all_of(e);
        wn_engine_get_info(e, &ei);
        assert_true(ei.scratch > plain_scratch + 4096 * 16);    /* lists and scores at least */
        wn_engine_close(e);
        /* exactly that is enough; an engine for the full cache has no such room to spare */
        wn_engine_opts o = { .n_ctx = 4096, .n_threads = 2, .kv = kv[i], .mem = least };
        if (wn_engine_open(&e, t.m, &o, &err)) fail_msg("%s: %s", kv[i], err.text);
        if (wn_seq_open(&a, e, &(wn_seq_opts){ .max_tokens = 4096, .kv = kv[i] }, &err))
            fail_msg("%s: %s", kv[i], err.text);
        wn_seq_close(a);
        wn_engine_close(e);
        o.mem = least - 1;
        assert_int_equal(wn_engine_open(&e, t.m, &o, &err), WN_ELIMIT);
        o = (wn_engine_opts){ .n_ctx = 4096, .n_threads = 2, .mem = plain + (64 << 10) };
        assert_int_equal(wn_engine_open(&e, t.m, &o, &err), WN_OK);
        assert_int_equal(wn_seq_open(&a, e, &(wn_seq_opts){ .max_tokens = 2000,
                                                            .kv = kv[i] }, &err), WN_ELIMIT);
        if (!strstr(err.text, "--mem") || !strstr(err.text, "2000")) fail_msg("%s", err.text);
        assert_int_equal(wn_seq_open(&b, e, &(wn_seq_opts){ .max_tokens = 2000 }, &err), WN_OK);
        wn_seq_close(b);
        assert_int_equal(e->needs_texts, 0);
        wn_engine_close(e);
    }
    test_engine_close(&t);
}

/* The 1st, 2nd, 3rd ... allocation fails until everything opens untouched. */
static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    const char *path = model();
    bool fired = true;
    int n = 1, n_without = 0;
    for (; fired && n < 100000; n++) {
        wn_err err = { 0 };
        wn_model *m = NULL;
        wn_engine *e = NULL;
        wn_seq *s = NULL, *f = NULL;
        wn_fault_alloc(n);
        wn_status st = wn_model_open(&m, path, &(wn_model_opts){ .n_threads = 1 }, &err);
        if (!st)
            st = wn_engine_open(&e, m,
                                &(wn_engine_opts){ .n_ctx = 256, .n_threads = 1, .max_seqs = 2 },
                                &err);
        if (!st) st = wn_seq_open(&s, e, NULL, &err);
        if (!st) st = wn_seq_fork(&f, s, NULL, &err);
        fired = wn_fault_clear();
        /* The pattern's machine code is done without where there is no memory for it. */
        if (fired && st == WN_OK) n_without++;
        else if (st != (fired ? WN_ENOMEM : WN_OK))
            fail_msg("allocation %d: status %d, %s", n, st, err.text);
        wn_seq_close(f);
        wn_seq_close(s);
        wn_engine_close(e);
        wn_model_close(m);
        if (n > 40) n += n / 8;         /* the vocabulary's many small ones: a sample is enough */
    }
    assert_true(n > 20);
    assert_in_range(n_without, 0, 4);
}

/* A text longer than the model was trained for needs a policy that never looks back farther;
 * what it holds then does not grow with the text. */
static void longer_than_trained_needs_bounded_distances(void **state)
{
    (void)state;
    enum { TRAINED = 4096, LONG = 9000 };
    static const struct { const char *kv; bool may;
    } cases[] = { { NULL, false },
                  { "recent(window=500)", false },
                  { "streaming@10%", false },
                  { "streaming(window=500,at=mark)", false },
                  { "streaming(window=4090)", false },
                  { "streaming(window=500,first=9)", false },
                  { "streaming(window=500)", true },
                  { "streaming@600", true } };
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        wn_err err = { 0 };
        wn_model *m;
        wn_engine *e;
        wn_seq *s;
        wn_seq_stats early, late;
        assert_int_equal(wn_model_open(&m, model(), NULL, &err), WN_OK);
        wn_engine_opts o = { .n_ctx = LONG, .kv = cases[i].kv };
        wn_status st = wn_engine_open(&e, m, &o, &err);
        if ((st == WN_OK) != cases[i].may)
            fail_msg("%s: %s", cases[i].kv ? cases[i].kv : "none", err.text);
        if (!st) {
            assert_int_not_equal(wn_seq_open(&s, e, &(wn_seq_opts){ .max_tokens = TRAINED + 1 },
                                             &err),
                                 WN_OK);
            assert_int_equal(wn_seq_open(&s, e, &(wn_seq_opts){ .kv = cases[i].kv }, &err), WN_OK);
            for (int k = 0; k < LONG; k += 500) {
                assert_int_equal(wn_seq_feed(s, ids, 500, &err), WN_OK);
                for (int rows = 1; rows > 0;)
                    assert_int_equal(wn_engine_step(e, &rows, &err), WN_OK);
                wn_seq_get_stats(s, k < 2000 ? &early : &late);
            }
            assert_true(late.kv_bytes <= early.kv_bytes &&
                        late.kv_bytes_peak == early.kv_bytes_peak);
            wn_seq_close(s);
            wn_engine_close(e);
        }
        wn_model_close(m);
    }
}

/* What a policy asks of attention beside the answers: nothing, a window once per decision, or
 * every query once more. */
static void policies_pay_for_what_they_look_at(void **state)
{
    (void)state;
    enum { N = 500, LANES = 4, GROUP = 2 };
    static const struct { const char *kv; uint64_t pairs;
    } cases[] = {
        { "none", 0 },
        { "recent@50%", 0 },
        { "streaming@100", 0 },
        { "keydiff@50%", 0 },
        { "lagkv@50%", 0 },
        /* one decision at 256, nothing dropped before it */
        { "snapkv(window=32,at=boundary,every=256)@50%", (uint64_t)LANES * GROUP * 32 * 256 },
        { "tova(every=256)@50%", (uint64_t)LANES * GROUP * 256 },
        /* 100 %: all queries over all that came before, themselves included */
        { "h2o(every=256)@100%", (uint64_t)LANES * GROUP * N * (N + 1) / 2 },
    };
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        wn_err err = { 0 };
        wn_seq *s;
        wn_seq_stats stats;
        test_engine t = test_engine_open(model(), (wn_engine_opts){ .kv = cases[i].kv });
        assert_int_equal(wn_seq_open(&s, t.e,
                                     &(wn_seq_opts){ .max_tokens = 600, .kv = cases[i].kv }, &err),
                         WN_OK);
        assert_int_equal(wn_seq_feed(s, ids, N, &err), WN_OK);
        test_steps(&t);
        wn_seq_get_stats(s, &stats);
        if (stats.observed != cases[i].pairs)
            fail_msg("%s scores %llu pairs, %llu expected", cases[i].kv,
                     (unsigned long long)stats.observed, (unsigned long long)cases[i].pairs);
        wn_seq_close(s);
        test_engine_close(&t);
    }
}

int main(void)
{
    test_tokens(ids, 600, 320, 3);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_allocates_nothing),
        cmocka_unit_test(a_decision_frees_and_allocates_nothing),
        cmocka_unit_test(cache_bytes_are_as_predicted),
        cmocka_unit_test(what_does_not_fit_is_refused_with_numbers),
        cmocka_unit_test(a_policy_needs_memory_of_its_own),
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(longer_than_trained_needs_bounded_distances),
        cmocka_unit_test(policies_pay_for_what_they_look_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
