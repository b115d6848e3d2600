/* The determinism law for cache policies: what a policy decides depends on tokens, marks
 * and its own text, so the logits are the same bytes in any chunks, with any threads and
 * page size, beside neighbours with other policies, after a fork, a truncation, a session
 * file. And a policy that has nothing to drop gives the bytes of `none`. Every recipe of
 * the table, at boundaries, at marks and at both. */
#include "tests/support/law.h"
#include "tests/support/recipes.h"
#include "tests/unit/check.h"

#include <unistd.h>

static int every = 64;                  /* hard: 3 */

/* ---- which policies ----------------------------------------------------------------------- */

enum { SCHEDULES = 4 };                 /* boundaries of `every`, of 512, marks, both */

static bool has_param(const wn_recipe *r, const char *name)
{
    int i = 0;
    while (i < r->n_params && strcmp(r->params[i].name, name)) i++;
    return i < r->n_params;
}

/* A probe is a pass of its own over the text. */
static int often(const wn_recipe *r) { return r->probe ? 64 : every; }

/* False when the recipe does not do that. */
static bool spell(char kv[120], const wn_recipe *r, int schedule, const char *budget)
{
    static const int at[SCHEDULES] = { WN_AT_BOUNDARY, WN_AT_BOUNDARY, WN_AT_MARK,
                                       WN_AT_BOUNDARY | WN_AT_MARK };
    static const char *const word[SCHEDULES] = { "boundary", "boundary", "mark", "both" };
    if (at[schedule] & ~r->at) return false;
    /* theirs are longer than these texts; and what is probed at each boundary is to be short */
    const char *window = r->kind == WN_CLASS_HEAD_SHARE ? ",first=4,recent=16"
                         : has_param(r, "piece")        ? ",piece=8"
                                                        : "";
    snprintf(kv, 120, "%s(at=%s,every=%d%s)%s", r->name, word[schedule],
             schedule == 1 ? 512 : often(r), window, r->kind == WN_CLASS_FULL ? "" : budget);
    return true;
}

/* Every recipe in many ways where decisions are frequent; in the hardest few elsewhere. */
static void chunks_threads_pages_neighbours(void **state)
{
    static const law_way ways[] = {
        { .threads = 2, .chunk = 7 },
        { .threads = 2, .chunk = 50, .neighbours = true },
        { .threads = 1, .chunk = 64, .slots = 4 },
        { .threads = 2, .chunk = 1 },
        { .threads = 1, .chunk = 7 },
        { .threads = 2, .chunk = 64, .slots = 16 },
        { .threads = 2, .chunk = 512 },
        { .threads = 1, .chunk = LAW_N },
    };
    char kv[120];
    (void)state;
    for (int i = 0; wn_recipe_at(i); i++)
        for (int schedule = 0; schedule < SCHEDULES; schedule++) {
            if (!spell(kv, wn_recipe_at(i), schedule, schedule == 3 ? "@90" : "@25%")) continue;
            float *ref = law_reference(kv);
            for (size_t k = 0; k < (schedule == 0 ? WN_COUNT(ways) : 3); k++) {
                law_way w = ways[k];
                w.kv = kv;
                law_compare(ref, w);
            }
            free(ref);
        }
}

/* The larger model with quantised weights and rows that take the vector kernels. */
static void quantised_weights(void **state)
{
    (void)state;
    const char *tiny = law_model;
    law_model = test_model_path("llama", "Q8_0");
    static const char *const kv[] = { "random(every=64,at=both,first=4,last=8)@25%",
                                      "recent(every=64)@25%" };
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        float *ref = law_reference(kv[i]);
        law_compare(ref, (law_way){ .kv = kv[i], .threads = 2, .chunk = 7 });
        law_compare(ref, (law_way){ .kv = kv[i], .threads = 2, .chunk = 50, .neighbours = true });
        free(ref);
    }
    law_model = tiny;
}

/* Live slots of each lane after the text. */
static void live_slots(const char *kv, uint32_t live[16])
{
    test_engine t = law_engine((law_way){ .threads = 2, .chunk = 64 });
    test_seq q = test_seq_open_kv(&t, LAW_N, kv);
    law_run_to(&t, &q, LAW_N);
    assert_true(t.m->map.n_lanes <= 16);
    for (int l = 0; l < t.m->map.n_lanes; l++) live[l] = wn_kv_live(q.s->kv, l);
    test_seq_close(&q);
    test_engine_close(&t);
}

/* Windows forget by themselves: policies are shown no slots of theirs and drop none. gemma2's
 * layer 0 has a window of 100, so has gpt-oss's, which has attention sinks and experts too. */
static void windows_are_left_alone(void **state)
{
    (void)state;
    const char *tiny = law_model;
    static const char *const archs[] = { "gemma2", "gpt-oss" };
    static const char *const kv[] = { "snapkv(at=both,every=64,window=16)@25%", "h2o(every=64)@25%",
                                      "expected(at=both,every=64)@25%" };
    for (size_t a = 0; a < WN_COUNT(archs); a++) {
        uint32_t full[16], few[16];
        law_model = test_model_path(archs[a], "Q8_0");
        live_slots("none", full);
        for (size_t i = 0; i < WN_COUNT(kv); i++) {
            float *ref = law_reference(kv[i]);
            law_compare(ref, (law_way){ .kv = kv[i], .threads = 2, .chunk = 7 });
            law_compare(ref, (law_way){ .kv = kv[i], .threads = 2, .chunk = 50,
                                        .neighbours = true });
            free(ref);
            live_slots(kv[i], few);
            for (int l = 0; l < 4; l++)         /* two lanes of layer 0, two of layer 1 */
                assert_true(l < 2 ? few[l] == full[l] : few[l] < full[l]);
        }
    }
    law_model = tiny;
}

/* ---- going back, and going two ways --------------------------------------------------------- */

/* Right before a decision, where it is due and not taken, right after, and far from one. */
static void forks_truncations_sessions(void **state)
{
    static const int cuts[] = { 128, 129, 333, 512, 127 };
    char kv[120];
    (void)state;
    for (int i = 0; wn_recipe_at(i); i++)
        for (int schedule = 0; schedule < SCHEDULES; schedule++) {
            if (!spell(kv, wn_recipe_at(i), schedule, "@25%")) continue;
            float *ref = law_reference(kv);
            for (size_t k = 0; k < WN_COUNT(cuts); k++)
                if (schedule == 3 || k % 2 == (size_t)schedule % 2) law_cut_at(kv, cuts[k], ref);
            free(ref);
        }
}

/* From where a text goes on that was taken back to 390, behind the decision at 384, and to 380:
 * by class of resumption, for the sequence itself, a fork of it, and one from a file. The bytes are
 * those of a text that never strayed. */
static void classes_resume_where_they_say(void **state)
{
    enum { RAN = 400, BACK = 390, LAST = 384 };
    char kv[120];
    wn_err err = { 0 };
    (void)state;
    if (every != 64) return;
    for (int i = 0; wn_recipe_at(i); i++) {
        const wn_recipe *r = wn_recipe_at(i);
        if (r->kind == WN_CLASS_FULL || !spell(kv, r, 0, "@25%")) continue;
        float *ref = law_reference(kv);
        test_engine t = law_engine((law_way){ .threads = 2, .chunk = 100 });
        test_seq q[3];
        for (int k = 0; k < 3; k++) q[k] = test_seq_open_kv(&t, LAW_N, kv);
        law_run_to(&t, &q[0], RAN);
        wn_seq_close(q[1].s);
        if (wn_seq_fork(&q[1].s, q[0].s, NULL, &err)) fail_msg("fork: %s", err.text);
        if (wn_seq_save(q[0].s, law_session_path(), &err) ||
            wn_seq_load(q[2].s, law_session_path(), &err))
            fail_msg("session: %s", err.text);
        unlink(law_session_path());
        int w = wn_policy_window(q[0].s->policy);
        int want = r->resume == WN_RESUME_RECORD ? LAST : w > 64 - (RAN - BACK) ? 0 : BACK;
        assert_int_equal(r->resume == WN_RESUME_RECORD, q[0].s->ledger.n_stats > 0);
        assert_int_equal(r->resume == WN_RESUME_WINDOW, w > 0 && !q[0].s->ledger.n_stats);
        for (int k = 0; k < 3; k++) {
            if (wn_seq_truncate(q[k].s, BACK, &err)) fail_msg("truncate: %s", err.text);
            if (wn_kv_n(q[k].s->kv) != want)
                fail_msg("%s: %d goes on from %d, not %d", kv, k, wn_kv_n(q[k].s->kv), want);
            memcpy(q[k].logits, ref, sizeof(float) * BACK * LAW_VOCAB);
            law_finish(&t, &q[k], kv, "resumed", BACK, ref);
        }
        law_run_to(&t, &q[1], LAW_N);
        if (wn_seq_truncate(q[1].s, 380, &err)) fail_msg("truncate: %s", err.text);
        assert_int_equal(wn_kv_n(q[1].s->kv), 0);
        law_finish(&t, &q[1], kv, "taken back beyond a decision", 380, ref);
        for (int k = 0; k < 3; k++) test_seq_close(&q[k]);
        test_engine_close(&t);
        free(ref);
    }
}

/* A session says what decided; only the same policy takes it up. */
static void a_session_belongs_to_its_policy(void **state)
{
    (void)state;
    static const struct { const char *saved, *loaded; bool fits;
    } cases[] = {
        { NULL, "none", true },
        { "none", NULL, true },
        { "random@25%", "v1:random(seed=1)@25%", true },
        { "random@25%", "random@26%", false },
        { "recent@25%", NULL, false },
        { NULL, "recent@25%", false },
        { "none", "none,k=f32", false },
    };
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        wn_err err = { 0 };
        test_engine t = law_engine((law_way){ .threads = 1, .chunk = 100 });
        test_seq a = test_seq_open_kv(&t, LAW_N, cases[i].saved),
                 b = test_seq_open_kv(&t, LAW_N, cases[i].loaded);
        law_run_to(&t, &a, 90);
        /* waiting, with a mark: not saved */
        assert_int_equal(wn_seq_feed(a.s, law_ids, 30, &err), WN_OK);
        assert_int_equal(wn_seq_mark(a.s, &err), WN_OK);
        if (wn_seq_save(a.s, law_session_path(), &err)) fail_msg("save: %s", err.text);
        wn_status st = wn_seq_load(b.s, law_session_path(), &err);
        if ((st == WN_OK) != cases[i].fits) fail_msg("case %zu: %s", i, st ? err.text : "loaded");
        if (!st) assert_int_equal(b.s->n_marks, 0);
        unlink(law_session_path());
        test_seq_close(&a);
        test_seq_close(&b);
        test_engine_close(&t);
    }
}

/* A fork gets the tokens that are computed and no mark behind them. */
static void a_fork_leaves_waiting_marks(void **state)
{
    (void)state;
    wn_err err = { 0 };
    wn_seq *f;
    test_engine t = law_engine((law_way){ .threads = 1, .chunk = 100 });
    test_seq q = test_seq_open_kv(&t, LAW_N, "random(at=mark)@25%");
    q.s->opts.on_logits = NULL;
    assert_int_equal(wn_seq_feed(q.s, law_ids, 30, &err), WN_OK);
    assert_int_equal(wn_seq_mark(q.s, &err), WN_OK);
    test_steps(&t);
    assert_int_equal(wn_seq_feed(q.s, law_ids, 30, &err), WN_OK);
    assert_int_equal(wn_seq_mark(q.s, &err), WN_OK);
    assert_int_equal(wn_seq_fork(&f, q.s, NULL, &err), WN_OK);
    assert_int_equal(wn_seq_n_tokens(f), 30);
    assert_int_equal(f->n_marks, 1);
    assert_int_equal(f->marks[0], 30);
    wn_seq_close(f);
    test_seq_close(&q);
    test_engine_close(&t);
}

/* Ranges are part of what results depend on, like marks: the same ones give the same bytes in
 * every law_way, and others than without them. */
static void ranges_are_kept_in_every_way(void **state)
{
    static const law_way ways[] = { { .threads = 2, .chunk = 7 }, { .threads = 2, .chunk = 50,
                                      .neighbours = true },
                                { .threads = 1, .chunk = 64, .slots = 4 }, { .threads = 1,
                                  .chunk = LAW_N } };
    static const int cuts[] = { 129, 333, 345 };
    /* by spans, which nothing else in them looks at */
    static const char *const fair[] = { "snapkv", "h2o" };
    char kv[120];
    int n = 0;
    (void)state;
    while (wn_recipe_at(n)) n++;
    for (int i = 0; i < n + (int)WN_COUNT(fair); i++) {
        const wn_recipe *r = i < n ? wn_recipe_at(i) : wn_recipe_find(fair[i - n]);
        if (r->kind != WN_CLASS_BUDGETED && r->kind != WN_CLASS_PROBE) continue;
        const char *at = r->at == (WN_AT_BOUNDARY | WN_AT_MARK) ? "both"
                         : r->at & WN_AT_MARK                   ? "mark"
                                                                : "boundary";
        if (i < n)
            snprintf(kv, sizeof kv, "%s(at=%s,every=%d,system=on,special=on)@70", r->name, at,
                     every);
        else snprintf(kv, sizeof kv, "%s(at=%s,every=%d)+retain:fair@25%%", r->name, at, every);
        float *without = law_reference(kv);
        law_ranges = true;
        float *ref = law_reference(kv);
        if (!memcmp(without, ref, sizeof(float) * LAW_N * LAW_VOCAB))
            fail_msg("%s: ranges change nothing", kv);
        for (size_t k = 0; k < WN_COUNT(ways); k++) {
            law_way w = ways[k];
            w.kv = kv;
            law_compare(ref, w);
        }
        for (size_t k = 0; k < WN_COUNT(cuts); k++) law_cut_at(kv, cuts[k], ref);
        law_ranges = false;
        free(without);
        free(ref);
    }
}

/* ---- against the full cache ------------------------------------------------------------------ */

static void nothing_to_drop_is_none(void **state)
{
    static const char *const budgets[] = { "@100%", "@650", "@64MiB" };
    char kv[120];
    (void)state;
    float *none = law_reference(NULL);
    for (int i = 0; wn_recipe_at(i); i++) {
        const wn_recipe *r = wn_recipe_at(i);
        for (int schedule = 0; schedule < SCHEDULES; schedule++)
            for (size_t b = 0; b < WN_COUNT(budgets); b++) {
                if (r->kind == WN_CLASS_FULL && b) continue;
                if (!spell(kv, r, schedule, budgets[b])) continue;
                law_compare(none, (law_way){ .kv = kv, .threads = 2, .chunk = 100 });
            }
    }
    free(none);
}

/* Dropping changes what comes after the first decision, and nothing before it. */
static void dropping_is_visible(void **state)
{
    char kv[120];
    (void)state;
    float *none = law_reference(NULL);
    for (int i = 0; wn_recipe_at(i); i++)
        for (int schedule = 0; schedule < SCHEDULES; schedule++) {
            const wn_recipe *r = wn_recipe_at(i);
            int first = schedule == 1 ? 512 : schedule == 2 ? law_marks[0] : often(r);
            if (r->kind == WN_CLASS_FULL || !spell(kv, r, schedule, "@25%")) continue;
            float *got = law_reference(kv);
            test_same_logits(kv, none, got, first, LAW_VOCAB);
            bool all_protected = first <= (int)(r->first + r->last);
            if (!all_protected && !memcmp(got + first * LAW_VOCAB, none + first * LAW_VOCAB,
                                          sizeof(float) * LAW_VOCAB))
                fail_msg("%s: nothing changes at %d", kv, first);
            free(got);
        }
    free(none);
}

int main(void)
{
    test_recipes_add();
    test_tokens(law_ids, LAW_N, LAW_VOCAB, 1);
    law_model = test_tiny_model_path();
    if (getenv("WN_TEST_HARD")) {       /* small pages, decisions all the time */
        law_slots = 4;
        every = 3;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_threads_pages_neighbours),
        cmocka_unit_test(quantised_weights),
        cmocka_unit_test(windows_are_left_alone),
        cmocka_unit_test(forks_truncations_sessions),
        cmocka_unit_test(classes_resume_where_they_say),
        cmocka_unit_test(a_session_belongs_to_its_policy),
        cmocka_unit_test(a_fork_leaves_waiting_marks),
        cmocka_unit_test(ranges_are_kept_in_every_way),
        cmocka_unit_test(nothing_to_drop_is_none),
        cmocka_unit_test(dropping_is_visible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
