/* Ranges that a caller names: they stay, under every recipe and beyond the budget, from when they
 * are named; not after a decision that could have dropped them. Promises grow with them and are
 * as they were when one is refused; forks, truncations and sessions carry them. And bytes of a
 * prompt are found in its tokens. */
#include "tests/support/engine.h"
#include "tests/support/recipes.h"
#include "tests/unit/check.h"

#include "base/alloc.h"

#include <unistd.h>

enum { N = 400, VOCAB = 320, FIRST_SPECIAL = 317 };
static int32_t ids[N];
static wn_err err;

static void good(wn_status st)
{
    if (st) fail_msg("%s", err.text);
}

static void refused(wn_status st, wn_status want, const char *says)
{
    assert_int_equal(st, want);
    if (!strstr(err.text, says)) fail_msg("\"%s\" is not in: %s", says, err.text);
}

static test_engine open_engine(wn_engine_opts o)
{
    o.n_threads = 1;
    o.max_seqs = o.max_seqs ? o.max_seqs : 4;
    return test_engine_open(test_tiny_model_path(), o);
}

static wn_seq *open_seq(test_engine *t, const char *kv, int max)
{
    wn_seq *s;
    good(wn_seq_open(&s, t->e, &(wn_seq_opts){ .max_tokens = max, .kv = kv }, &err));
    return s;
}

static void run_to(test_engine *t, wn_seq *s, int n)
{
    int have = wn_seq_n_tokens(s);
    good(wn_seq_feed(s, ids + have, (size_t)(n - have), &err));
    test_steps(t);
}

static bool is_live(const wn_seq *s, int lane, int pos)
{
    wn_run_iter it;
    wn_run run;
    wn_runs_begin(&it, s->kv, lane, 0, wn_kv_n(s->kv));
    while (wn_runs_next(&it, &run))
        for (uint64_t left = run.keep; left; left &= left - 1) {
            int i = __builtin_ctzll(left);
            if ((run.pos ? run.pos[i] : run.pos0 + i) == pos) return true;
        }
    return false;
}

static int n_live(const wn_seq *s, int from, int to)
{
    int n = 0;
    for (int l = 0; l < s->e->m->map.n_lanes; l++)
        for (int p = from; p < to; p++) n += is_live(s, l, p);
    return n;
}

/* ---- what stays ---------------------------------------------------------------------------- */

/* 20 of 300 positions in a budget of 30, and again in one of 10: they all stay, and in the second
 * case nothing else does that is older than the last decision. */
static void named_positions_stay_under_every_recipe(void **state)
{
    (void)state;
    for (int i = 0; wn_recipe_at(i); i++)
        for (int budget = 30; budget >= 10; budget -= 20) {
            const wn_recipe *r = wn_recipe_at(i);
            char kv[120];
            if (r->kind != WN_CLASS_BUDGETED) continue;
            snprintf(kv, sizeof kv, "%s(at=boundary,every=50,first=0)@%d", r->name, budget);
            test_engine t = open_engine((wn_engine_opts){ .protected_tokens = 20 });
            wn_seq *s = open_seq(&t, kv, N);
            int lanes = t.m->map.n_lanes;
            good(wn_seq_protect(s, 40, 60, WN_RANGE_NAMED, &err));
            good(wn_seq_protect(s, 45, 50, WN_RANGE_SYSTEM, &err));     /* not asked for */
            run_to(&t, s, 301);
            wn_kv_check(s->kv);
            if (n_live(s, 40, 60) != 20 * lanes)
                fail_msg("%s: %d of %d stay", kv, n_live(s, 40, 60), 20 * lanes);
            if (budget == 10 && n_live(s, 0, 40) + n_live(s, 60, 300) > 0)
                fail_msg("%s: more than the protected stays", kv);
            if (budget == 30 && n_live(s, 0, 300) > 30 * lanes)
                fail_msg("%s: %d slots stay", kv, n_live(s, 0, 300));
            wn_seq_close(s);
            test_engine_close(&t);
        }
}

static void so_do_the_system_prompt_and_special_tokens(void **state)
{
    (void)state;
    test_engine t = open_engine((wn_engine_opts){ .protected_tokens = 40 });
    const char *const kv[] = { "recent(every=50)@20", "recent(sinks=0,every=50,system=on)@20",
                               "recent(every=50,special=on)@20",
                               "recent(every=50,system=on,special=on)@20" };
    for (int i = 0; i < 4; i++) {
        wn_seq *s = open_seq(&t, kv[i], N);
        int specials = 0, live = 0, lanes = t.m->map.n_lanes;
        good(wn_seq_protect(s, 6, 16, WN_RANGE_SYSTEM, &err));
        run_to(&t, s, 301);
        for (int p = 20; p < 250; p++)
            if (ids[p] >= FIRST_SPECIAL) specials++, live += n_live(s, p, p + 1);
        assert_true(specials > 0);
        assert_int_equal(n_live(s, 6, 16), i & 1 ? 10 * lanes : 0);
        assert_int_equal(live, i & 2 ? specials * lanes : 0);
        wn_seq_close(s);
    }
    test_engine_close(&t);
}

/* ---- when ------------------------------------------------------------------------------------ */

static void a_range_comes_before_its_decision(void **state)
{
    (void)state;
    test_engine t = open_engine((wn_engine_opts){ .protected_tokens = N });
    wn_seq *s = open_seq(&t, "recent(every=100)@50", N), *none = open_seq(&t, NULL, N);
    run_to(&t, s, 100);
    /* the decision at 100 is not taken yet */
    good(wn_seq_protect(s, 10, 12, WN_RANGE_NAMED, &err));
    run_to(&t, s, 150);
    refused(wn_seq_protect(s, 20, 30, WN_RANGE_NAMED, &err), WN_EINVAL,
            "positions 20 to 30 cannot be protected any more: the decision at 100 has been taken");
    refused(wn_seq_protect(s, 8, 12, WN_RANGE_NAMED, &err), WN_EINVAL, "positions 8 to 10");
    good(wn_seq_protect(s, 10, 12, WN_RANGE_NAMED, &err));      /* nothing new */
    good(wn_seq_protect(s, 100, 130, WN_RANGE_NAMED, &err));
    run_to(&t, s, 301);
    assert_int_equal(n_live(s, 10, 12) + n_live(s, 100, 130), 32 * t.m->map.n_lanes);
    refused(wn_seq_protect(s, 5, 3, WN_RANGE_NAMED, &err), WN_EINVAL, "cannot be protected");
    refused(wn_seq_protect(s, 0, N + 1, WN_RANGE_NAMED, &err), WN_EINVAL, "has room for 400");
    run_to(&t, none, 200);
    /* who decides nothing drops nothing */
    good(wn_seq_protect(none, 20, 30, WN_RANGE_NAMED, &err));
    wn_seq_close(s);
    wn_seq_close(none);
    test_engine_close(&t);
}

/* A parked sequence has taken decisions that its results depend on. */
static void parking_does_not_reopen_decisions(void **state)
{
    (void)state;
    test_engine t = open_engine((wn_engine_opts){ .protected_tokens = 50 });
    wn_seq *s = open_seq(&t, "recent(every=100)@50", 0);
    run_to(&t, s, 250);
    s->n_known = 250;                   /* as promise.c leaves it */
    int at;
    good(wn_kv_truncate(s->kv, 0, &at, &err));
    s->decided_at = 0;
    refused(wn_seq_protect(s, 20, 30, WN_RANGE_NAMED, &err), WN_EINVAL, "the decision at 200");
    good(wn_seq_protect(s, 200, 210, WN_RANGE_NAMED, &err));
    wn_seq_close(s);
    test_engine_close(&t);
}

/* ---- promises -------------------------------------------------------------------------------- */

/* In a pool made for the budget alone there is no room for many more; what was promised before
 * stays promised, and in a pool made for them there is room. */
static void room_is_promised_or_refused(void **state)
{
    (void)state;
    const char *kv = "random(every=16)@32";
    for (int planned = 0; planned < 2; planned++) {
        test_engine t = test_engine_open(test_model_path("llama", "Q8_0"),
                                         (wn_engine_opts){ .n_threads = 1,
                                                           .max_seqs = 1,
                                                           .kv = kv,
                                                           .pool_tokens = 4096,
                                                           .n_ctx = 4096,
                                                           .page_slots = 16,
                                                           .protected_tokens = planned ? 3000
                                                                                       : 0 });
        wn_seq *s = open_seq(&t, kv, 4096);
        uint32_t had[WN_POOL_CLASSES];
        size_t needs = t.e->needs_texts;
        memcpy(had, t.e->reserved, sizeof had);
        wn_status st = wn_seq_protect(s, 100, 3100, WN_RANGE_NAMED, &err);
        if (planned) {
            good(st);
            for (int i = 0; i < 4; i++) {
                good(wn_seq_feed(s, ids, N, &err));
                test_steps(&t);
            }
            assert_int_equal(n_live(s, 100, 200), 100 * t.m->map.n_lanes);
            good(wn_seq_truncate(s, 50, &err));  /* gives back what the range needed */
        } else {
            refused(st, WN_EFULL, "4096 positions do not fit");
            assert_int_equal(s->n_held, 0);
            /* that this policy does not keep */
            good(wn_seq_protect(s, 100, 104, WN_RANGE_SYSTEM, &err));
        }
        assert_memory_equal(had, t.e->reserved, sizeof had);
        assert_int_equal(t.e->needs_texts, needs);
        wn_seq_close(s);
        test_engine_close(&t);
    }
}

/* What streams past the trained length bounds every distance, and a slot that stays does not. */
static void distances_stay_bounded(void **state)
{
    (void)state;
    test_engine t = test_engine_open(test_tiny_model_path(),
                                     (wn_engine_opts){ .n_threads = 1,
                                                       .kv = "streaming(window=60)",
                                                       .n_ctx = 8192 });
    wn_seq *s = open_seq(&t, "streaming(window=60)", 8192), *r;
    refused(wn_seq_protect(s, 10, 20, WN_RANGE_NAMED, &err), WN_EINVAL,
            "streaming goes beyond the 4096 tokens");
    wn_seq_close(s);
    refused(wn_seq_open(&r, t.e,
                        &(wn_seq_opts){ .max_tokens = 8192,
                                        .kv = "streaming(window=60,special=on)" },
                        &err),
            WN_EINVAL, "the model was trained for 4096");
    test_engine_close(&t);
}

/* ---- forks, truncations, sessions ------------------------------------------------------------ */

static void ranges_go_along(void **state)
{
    (void)state;
    char path[128];
    test_path(path, sizeof path, "protect.session");
    test_engine t = open_engine((wn_engine_opts){ .protected_tokens = 100 });
    int lanes = t.m->map.n_lanes;
    wn_seq *s = open_seq(&t, "recent(sinks=0,every=50,system=on)@20", N), *f,
           *r = open_seq(&t, "recent(sinks=0,every=50,system=on)@20", N);
    good(wn_seq_protect(s, 10, 20, WN_RANGE_NAMED, &err));
    good(wn_seq_protect(s, 30, 34, WN_RANGE_SYSTEM, &err));
    good(wn_seq_protect(s, 120, 140, WN_RANGE_NAMED, &err));
    run_to(&t, s, 130);
    good(wn_seq_fork(&f, s, NULL, &err));
    good(wn_seq_save(s, path, &err));
    /* not the session's: gone when it is loaded */
    good(wn_seq_protect(r, 0, 5, WN_RANGE_NAMED, &err));
    good(wn_seq_load(r, path, &err));
    unlink(path);
    good(wn_seq_truncate(s, 15, &err));
    run_to(&t, s, 301);
    assert_int_equal(n_live(s, 0, 200), 5 * lanes);             /* 10 to 15 */
    wn_seq *const copies[] = { f, r };
    for (int i = 0; i < 2; i++) {  /* up to the 130 tokens there were */
        run_to(&t, copies[i], 301);
        assert_int_equal(n_live(copies[i], 0, 200), 24 * lanes);
        assert_int_equal(n_live(copies[i], 10, 20) + n_live(copies[i], 30, 34) +
                             n_live(copies[i], 120, 130),
                         24 * lanes);
        wn_seq_close(copies[i]);
    }
    wn_seq_close(s);
    test_engine_close(&t);
}

/* ---- spans ----------------------------------------------------------------------------------- */

static void check_spans(wn_seq *s, int n, const int *want)
{
    wn_arena a = { 0 };
    good(wn_arena_init(&a, 1 << 16, false, &err));
    const int32_t *got = wn_seq_spans(s, n, &a);
    for (int i = 0; i < n; i++)
        if (got[i] != want[i]) fail_msg("position %d is in span %d, not %d", i, got[i], want[i]);
    wn_arena_release(&a);
}

/* Three spans in 12 positions, two of them side by side; what may be said of them when. */
static void spans_do_not_overlap(void **state)
{
    (void)state;
    static const int want[N] = { 0, 1, 1, 1, 2, 2, 0, 0, 3, 3, 3, 0 }, less[N] = { 0, 1, 1, 1, 2 };
    test_engine t = open_engine((wn_engine_opts){ 0 });
    wn_seq *s = open_seq(&t, "shotkv(at=boundary,every=100)@50", N),
           *o = open_seq(&t, "recent(every=100)@50", N), *f;
    good(wn_seq_name_span(s, 1, 4, &err));
    good(wn_seq_name_span(s, 8, 11, &err));
    good(wn_seq_name_span(s, 4, 6, &err));
    good(wn_seq_name_span(s, 1, 4, &err));                      /* said already */
    good(wn_seq_name_span(s, 7, 7, &err));                      /* nothing */
    refused(wn_seq_name_span(s, 3, 8, &err), WN_EINVAL,
            "positions 3 to 8 cannot be a span: 3 is in another one");
    refused(wn_seq_name_span(s, 1, 5, &err), WN_EINVAL, "4 is in another one");
    refused(wn_seq_name_span(s, 1, 3, &err), WN_EINVAL, "3 is in another one");
    refused(wn_seq_name_span(s, 6, 9, &err), WN_EINVAL, "8 is in another one");
    refused(wn_seq_name_span(s, 9, 11, &err), WN_EINVAL, "9 is in another one");
    refused(wn_seq_name_span(s, 0, N + 1, &err), WN_EINVAL, "has room for 400");
    refused(wn_seq_name_span(s, 5, 3, &err), WN_EINVAL, "cannot be a span");
    run_to(&t, s, 12);
    check_spans(s, 12, want);
    good(wn_seq_fork(&f, s, NULL, &err));
    check_spans(f, 12, want);
    good(wn_seq_truncate(f, 5, &err));                          /* in the second span */
    check_spans(f, 5, less);
    run_to(&t, f, 12);
    good(wn_seq_name_span(f, 4, 6, &err));                      /* as it was; or longer */
    good(wn_seq_name_span(f, 4, 7, &err));
    good(wn_seq_name_span(f, 7, 9, &err));
    static const int more[N] = { 0, 1, 1, 1, 2, 2, 2, 3, 3, 0, 0, 0 };
    check_spans(f, 12, more);
    run_to(&t, s, 150);
    refused(wn_seq_name_span(s, 20, 30, &err), WN_EINVAL,
            "positions 20 to 30 cannot be a span any more: the decision at 100");
    good(wn_seq_name_span(s, 8, 11, &err));
    good(wn_seq_name_span(s, 100, 130, &err));
    run_to(&t, o, 150);
    good(wn_seq_name_span(o, 20, 30, &err));  /* this policy does not look at them */
    wn_seq_close(f);
    wn_seq_close(s);
    wn_seq_close(o);
    test_engine_close(&t);
}

/* Spans of a session, with room on both sides; they are not protected. */
static void sessions_have_spans(void **state)
{
    (void)state;
    char path[128];
    test_path(path, sizeof path, "spans.session");
    int want[N] = { 0 };
    for (int i = 10; i < 60; i++) want[i] = 1 + i / 20;         /* 10 to 20, 20 to 40, 40 to 60 */
    test_engine t = open_engine((wn_engine_opts){ .protected_tokens = 20 });
    wn_seq *s = open_seq(&t, "h2o(at=boundary,every=50)+retain:fair@20", N),
           *r = open_seq(&t, "h2o(at=boundary,every=50)+retain:fair@20", N);
    for (int i = 0; i < 3; i++) good(wn_seq_name_span(s, i ? 20 * i : 10, 20 * i + 20, &err));
    good(wn_seq_protect(s, 15, 20, WN_RANGE_NAMED, &err));
    run_to(&t, s, 120);
    good(wn_seq_save(s, path, &err));
    good(wn_seq_name_span(r, 0, 5, &err));                      /* not the session's */
    good(wn_seq_load(r, path, &err));
    unlink(path);
    check_spans(s, 120, want);
    check_spans(r, 120, want);
    assert_int_equal(r->n_held, 5);
    wn_seq_close(s);
    wn_seq_close(r);
    test_engine_close(&t);
}

/* The spans of a text that nobody named any of: want is a digit for each token. */
static void check_text(test_engine *t, int n_pieces, const char *const *piece, const char *want)
{
    wn_seq *s = open_seq(t, "shotkv@50%", N);
    int spans[N];
    size_t all = 0;
    /* a piece may take more than one token: they are one span's */
    for (int i = 0; i < n_pieces; i++) {
        int32_t *tokens;
        size_t n;
        good(wn_tokens_from_text(t->m, piece[i], strlen(piece[i]), WN_NO_BOS | WN_PARSE_SPECIAL,
                                 &tokens, &n, &err));
        for (size_t k = 0; k < n; k++) spans[all + k] = want[i] - '0';
        good(wn_seq_feed(s, tokens, n, &err));
        all += n;
        wn_tokens_free(tokens);
    }
    check_spans(s, (int)all, spans);
    wn_seq_close(s);
}
#define TEXT(want, ...)                                                   \
    check_text(&t, (int)WN_COUNT(((const char *const[]){ __VA_ARGS__ })), \
               (const char *const[]){ __VA_ARGS__ }, want)

/* A blank line ends a paragraph, the end of a turn a message; blank space belongs to what is before
 * it. */
static void paragraphs_and_messages_are_spans(void **state)
{
    (void)state;
    test_engine t = test_engine_open("models/winnow-demo.gguf", (wn_engine_opts){ .n_threads = 1,
                                                                                  .max_seqs = 2,
                                                                                  .n_ctx = 512 });
    int32_t end = wn_model_eos(t.m);
    char turn[64] = "";
    assert_true(end >= 0);
    wn_token_text(t.m, end, true, turn, sizeof turn - 1);
    TEXT("1", "one line\nand another\n");
    TEXT("1122", "one", "\n\n", "two", " words");
    TEXT("11122", "one", "\n", " \t\n", "two", "\n");
    TEXT("112", "one", "\n\n\n\n  ", "two");
    TEXT("1111", "one", "\n", "two", "\nthree");
    TEXT("11223", "one", turn, "two", turn, "three");
    TEXT("11122", "one", turn, "\n\n", "two", "\nthree");
    test_engine_close(&t);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* Tokens that the plain definition gives: those whose bytes overlap; begin[i]: where token i
 * begins. */
static void by_definition(const size_t *begin, size_t n, size_t first, size_t end, int *from,
                          int *to)
{
    *from = -1;
    for (size_t i = 0; i < n; i++)
        if (begin[i] < end && begin[i + 1] > first) {
            if (*from < 0) *from = (int)i;
            *to = (int)i + 1;
        }
}

static void bytes_are_found_in_tokens(void **state)
{
    (void)state;
    static const char *const models[] = { "models/winnow-demo.gguf", "tests/golden/llama-Q4_0.gguf",
                                          "tests/golden/qwen2-f16.gguf" };
    const char *text = " In the cellar, behind 3 barrels,\n\nlay the \xe2\x80\x9cred "
                       "lantern\xe2\x80\x9d of  K\xc3\xb6nig Drosselbart.\n";
    size_t len = strlen(text);
    for (size_t m = 0; m < WN_COUNT(models); m++)
        for (int bos = 0; bos < 2; bos++) {
            wn_model *model;
            int32_t *tokens;
            size_t n, begin[256] = { 0 }, added = 0;
            int from, to, a = 0, b = 0;
            good(wn_model_open(&model, models[m], &(wn_model_opts){ .n_threads = 1 }, &err));
            good(wn_tokens_from_text(model, text, len, bos ? 0 : WN_NO_BOS, &tokens, &n, &err));
            assert_true(n < 255);
            for (size_t i = 0; i < n; i++)
                begin[i + 1] = begin[i] + wn_token_text(model, tokens[i], false, NULL, 0);
            added = begin[n] - len;     /* a space in front */
            assert_true(added <= 1);
            for (size_t i = 0; i <= n; i++) begin[i] -= begin[i] ? added : 0;
            for (size_t first = 0; first < len; first++)
                for (size_t end = first + 1; end <= len; end += 1 + end / 16) {
                    good(wn_tokens_of_bytes(model, tokens, n, text, len, first, end, &from, &to,
                                            &err));
                    by_definition(begin, n, first, end, &a, &b);
                    if (from != a || to != b)
                        fail_msg("%s: bytes %zu to %zu: tokens %d to %d, not %d to %d", models[m],
                                 first, end, from, to, a, b);
                }
            assert_int_equal(wn_tokens_of_bytes(model, tokens, n, text, len, 3, 3, &from, &to,
                                                &err),
                             WN_EINVAL);
            assert_int_equal(wn_tokens_of_bytes(model, tokens, n, text, len, 3, len + 1, &from, &to,
                                                &err),
                             WN_EINVAL);
            refused(wn_tokens_of_bytes(model, tokens, n / 2, text, len, 0, len, &from, &to, &err),
                    WN_EINVAL, "the tokens hold");
            refused(wn_tokens_of_bytes(model, tokens + n / 2, n - n / 2, text, len, 0, len, &from,
                                       &to, &err),
                    WN_EINVAL, "has changed the text");
            wn_tokens_free(tokens);
            wn_model_close(model);
        }
}

int main(void)
{
    test_recipes_add();
    test_tokens(ids, N, VOCAB, 4);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_positions_stay_under_every_recipe),
        cmocka_unit_test(so_do_the_system_prompt_and_special_tokens),
        cmocka_unit_test(a_range_comes_before_its_decision),
        cmocka_unit_test(parking_does_not_reopen_decisions),
        cmocka_unit_test(room_is_promised_or_refused),
        cmocka_unit_test(distances_stay_bounded),
        cmocka_unit_test(ranges_go_along),
        cmocka_unit_test(spans_do_not_overlap),
        cmocka_unit_test(sessions_have_spans),
        cmocka_unit_test(paragraphs_and_messages_are_spans),
        cmocka_unit_test(bytes_are_found_in_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
