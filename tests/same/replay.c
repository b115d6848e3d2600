/* A replay gives the plans that were recorded: every recipe of the table, at boundaries and
 * at marks, from an engine's own decisions. And a trace is part of the determinism law: the
 * same bytes whatever the chunks, threads and pages of the run that wrote it. */
#include "eval/replay.h"
#include "eval/watch.h"
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include <unistd.h>

enum { N = 230, VOCAB = 320, SPARE = 1 << 24 };
static const int marks[] = { 70, 200 };
static int32_t ids[N];
static char path[128];

/* One run of all tokens, its trace in the file. */
static void record(const char *kv, bool rows, int threads, int chunk, int page_slots)
{
    wn_err err;
    wn_watch *w;
    wn_seq *s;
    test_engine t = test_engine_open(test_tiny_model_path(),
                                     (wn_engine_opts){ .n_threads = threads,
                                                       .n_batch = chunk,
                                                       .max_seqs = 64,
                                                       .page_slots = page_slots });
    if (wn_seq_open(&s, t.e,
                    &(wn_seq_opts){ .max_tokens = N, .kv = kv, .ring_rows = rows ? 64 : 0 }, &err))
        fail_msg("%s", err.text);
    if (wn_watch_open(&w, s, &(wn_watch_opts){ .trace = path, .rows = rows }, &err))
        fail_msg("%s", err.text);
    for (int at = 0, next; at < N; at = next) {
        next = N;
        for (size_t i = 0; i < WN_COUNT(marks); i++) {
            if (marks[i] == at) assert_int_equal(wn_seq_mark(s, &err), WN_OK);
            if (marks[i] > at) next = WN_MIN(next, marks[i]);
        }
        assert_int_equal(wn_seq_feed(s, ids + at, (size_t)(next - at), &err), WN_OK);
    }
    test_steps(&t);
    if (wn_watch_close(w, &err)) fail_msg("%s", err.text);
    wn_seq_close(s);
    test_engine_close(&t);
}

/* Decisions in the file, all of them as the recorded policy makes them again; *changes: those that
 * change something. */
static int replay(const char *kv, int *changes)
{
    wn_trace *t;
    wn_replay *r;
    wn_policy p;
    wn_err err;
    const wn_trace_decision *d;
    const wn_plan *plan;
    char why[200];
    int n = 0;
    *changes = 0;
    if (wn_trace_open(&t, path, &err) || wn_replay_open(&r, t, &err) ||
        wn_policy_parse(&p, wn_trace_get_head(t)->policy, &err))
        fail_msg("%s", err.text);
    for (; !wn_trace_next(t, &d, &err) && d; n++) {
        int at = wn_view_n_tokens(&d->view);
        assert_int_equal(wn_view_mark(&d->view), at < marks[0]   ? 0
                                                 : at < marks[1] ? marks[0]
                                                                 : marks[1]);
        if (wn_replay_decide(r, d, &p, &plan, &err)) fail_msg("%s: %s", kv, err.text);
        if (!wn_replay_same(&d->view, &d->plan, plan, why, sizeof why)) fail_msg("%s: %s", kv, why);
        *changes += !wn_plan_is_empty(plan);
    }
    assert_null(d);
    assert_int_equal(wn_trace_torn(t), 0);
    wn_replay_close(r);
    wn_trace_close(t);
    return n;
}

static bool spell(char kv[120], const wn_recipe *r, int at)
{
    static const char *const word[] = { "", "boundary", "mark", "both" };
    if (r->kind == WN_CLASS_FULL && !r->plan) return false;     /* takes no decisions */
    if (at & ~r->at || r->profile) return false;                /* a trace holds no profile */
    snprintf(kv, 120, "%s(at=%s,every=32)%s", r->name, word[at],
             r->kind == WN_CLASS_FULL ? "" : "@25%");
    return true;
}

static void every_recipe_makes_its_plans_again(void **state)
{
    char kv[120];
    (void)state;
    for (int i = 0; wn_recipe_at(i); i++)
        for (int at = WN_AT_BOUNDARY; at <= (WN_AT_BOUNDARY | WN_AT_MARK); at++) {
            static const int points[] = { 0, N / 32, 2, N / 32 + 2 };
            int changes;
            if (!spell(kv, wn_recipe_at(i), at)) continue;
            record(kv, true, 2, 50, 0);
            int n = replay(kv, &changes);
            /* what goes in whole pages or spans may leave room for the tokens until the next
             * decision */
            bool fills = strcmp(wn_recipe_at(i)->name, "pagedeviction") &&
                         strcmp(wn_recipe_at(i)->name, "shotkv") &&
                         wn_recipe_at(i)->kind != WN_CLASS_BUDGET_FREE;
            if (n != points[at] || (fills ? changes != n : changes < n / 2))
                fail_msg("%s: %d decisions, %d change something", kv, n, changes);
        }
}

/* Without rows too, for policies that ask for none. */
static void statistics_are_enough_for_most(void **state)
{
    static const char *const kv[] = {
        "random(every=32,at=boundary)@25%",
        "recent(every=32,at=boundary)@25%",
        "snapkv(every=32,at=boundary)@25%",
        "tova(every=32,at=boundary)@25%",
        "h2o(every=32,at=boundary)@25%",
        "adakv(every=32,at=boundary)@25%",
        "pyramidkv(every=32,at=boundary)@25%",
        "streaming(every=32,window=20)",
        "h2o(every=32,at=boundary)+recover:demote@25%,kv=q8",
        "random(every=32,at=boundary)+recover:demote(share=0.3)@30KiB",
    };
    int changes;
    (void)state;
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        record(kv[i], false, 1, 512, 0);
        assert_int_equal(replay(kv[i], &changes), N / 32);
    }
}

static uint8_t *read_file(size_t *n)
{
    uint8_t *p = malloc(SPARE);
    FILE *f = fopen(path, "rb");
    assert_non_null(p);
    assert_non_null(f);
    *n = fread(p, 1, SPARE, f);
    fclose(f);
    return p;
}

static void a_trace_is_the_same_bytes_however_it_is_made(void **state)
{
    static const char *const kv[] = { "d2o(every=32,at=boundary)@25%",
                                      "snapkv(every=32,at=both)@25%",
                                      "expected(every=32,at=boundary)@25%" };
    static const struct {
        int threads, chunk, slots;
    } ways[] = { { 2, 7, 0 }, { 1, 1, 0 }, { 2, 64, 4 } };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        size_t n, m;
        record(kv[i], true, 1, 512, 0);
        uint8_t *a = read_file(&n);
        for (size_t k = 0; k < WN_COUNT(ways); k++) {
            record(kv[i], true, ways[k].threads, ways[k].chunk, ways[k].slots);
            uint8_t *b = read_file(&m);
            if (n != m || memcmp(a, b, n))
                fail_msg("%s: other bytes in chunks of %d", kv[i], ways[k].chunk);
            free(b);
        }
        free(a);
    }
}

/* Watching changes nothing, and what never decides cannot be watched. */
static void watching_changes_nothing(void **state)
{
    (void)state;
    wn_err err;
    wn_watch *w;
    test_engine t = test_engine_open(test_tiny_model_path(), (wn_engine_opts){ .max_seqs = 5 });
    const char *kv = "h2o(every=32,at=boundary)@25%";
    test_seq a = test_seq_open_kv(&t, N, kv), b = test_seq_open_kv(&t, N, kv);
    assert_int_equal(
        wn_watch_open(&w, b.s, &(wn_watch_opts){ .trace = path, .rows = true, .explain_to = 50 },
                      &err),
        WN_OK);
    test_seq_run(&t, &a, ids, N);
    test_seq_run(&t, &b, ids, N);
    test_same_logits("watched", a.logits, b.logits, N, VOCAB);
    assert_int_equal(wn_watch_close(w, &err), WN_OK);
    test_seq_close(&a);
    a = test_seq_open(&t, N);
    assert_int_equal(wn_watch_open(&w, a.s, &(wn_watch_opts){ .trace = path }, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "takes no decisions"));
    test_seq_close(&a);
    test_seq_close(&b);
    test_engine_close(&t);
}

int main(void)
{
    test_tokens(ids, N, VOCAB, 1);
    test_path(path, sizeof path, "replay");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recipe_makes_its_plans_again),
        cmocka_unit_test(statistics_are_enough_for_most),
        cmocka_unit_test(a_trace_is_the_same_bytes_however_it_is_made),
        cmocka_unit_test(watching_changes_nothing),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}
