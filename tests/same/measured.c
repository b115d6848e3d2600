/* A profile depends on the model and its parameters: the same bytes with one thread and with two,
 * twice, and when the work was interrupted and taken up again; so does a table of budgets. On the
 * demo model it finds the lanes that answer questions: without their view of the middle of the
 * text needles are lost, without that of as many others, and of all others, they are not. */
#include "eval/budgets.h"
#include "eval/profile.h"
#include "tests/unit/check.h"

#include <unistd.h>

static wn_model *model;
static wn_phrases *phrases;
static volatile int stop;
static int stop_after, stop_at_call, n_seen;

static const char *journal_path(void)
{
    static char path[128];
    return test_path(path, sizeof path, "measured.journal");
}

static void on_progress(void *ctx, const char *what, int done, int total)
{
    (void)ctx;
    (void)what;
    (void)total;
    n_seen++;
    if ((stop_after && done >= stop_after) || n_seen == stop_at_call) stop = 1;
}

static wn_profile_opts opts_of(int threads, const char *journal)
{
    return (wn_profile_opts){ .context = 512, .n_needles = 6, .n_repeats = 2, .phrases = phrases,
                              .family = "demo", .n_threads = threads, .journal = journal,
                              .progress = on_progress, .stop = &stop };
}

static char *measured(wn_profile_opts o)
{
    wn_profile *p;
    wn_err err = { 0 };
    char *text = NULL;
    stop = 0;
    if (wn_profile_measure(&p, model, &o, &err) || wn_profile_text(p, &text, &err))
        fail_msg("%s", err.text);
    wn_profile_close(p);
    return text;
}

static void threads_and_interruptions_change_nothing(void **state)
{
    (void)state;
    wn_profile *p;
    wn_err err = { 0 };
    stop_after = 0;
    char *ref = measured(opts_of(1, NULL)), *two = measured(opts_of(2, NULL)),
         *again = measured(opts_of(2, NULL));
    assert_string_equal(ref, two);
    assert_string_equal(ref, again);
    wn_profile_opts o = opts_of(1, journal_path());
    stop_after = 3;
    assert_int_equal(wn_profile_measure(&p, model, &o, &err), WN_EIO);
    assert_null(p);
    assert_int_equal(access(journal_path(), F_OK), 0);
    stop_after = 0;
    n_seen = 0;
    char *resumed = measured(o);
    assert_string_equal(ref, resumed);
    assert_true(n_seen <= 8 - 3 + 1);           /* what was done is not done again */
    assert_int_equal(access(journal_path(), F_OK), -1);
    o.seed = 1;
    char *other = measured(o);
    assert_string_not_equal(ref, other);
    free(ref);
    free(two);
    free(again);
    free(resumed);
    free(other);
}

static void the_lanes_that_answer_are_found(void **state)
{
    (void)state;
    wn_profile *p;
    wn_profile_proof proof;
    wn_err err = { 0 };
    wn_profile_opts o = opts_of(2, NULL);
    stop = stop_after = 0;
    if (wn_profile_measure(&p, model, &o, &err) || wn_profile_check(&proof, p, model, &o, &err))
        fail_msg("%s", err.text);
    assert_true(p->how.answered >= 0.9);
    assert_int_equal(p->lanes[8].kind, WN_HEAD_RETRIEVAL);      /* layer 4, head 0 */
    assert_int_equal(p->lanes[10].kind, WN_HEAD_RETRIEVAL);     /* layer 5, head 0 */
    assert_true((double)p->lanes[8].copy > 0.9 && (double)p->lanes[8].loss > 0.5);
    assert_int_equal(p->lanes[6].kind, WN_HEAD_STREAMING);
    assert_true(proof.n_fetch <= 4);
    for (int t = 0; t < WN_PROOF_TASKS; t++) {
        assert_true(proof.score[0][t] >= 0.8);                  /* the full cache */
        assert_true(proof.score[1][t] <= 0.4);                  /* without the lanes that fetch */
        assert_true(proof.score[2][t] >= proof.score[0][t] - 0.25);
        assert_true(proof.score[3][t] >= proof.score[0][t] - 0.25);
    }
    wn_profile_close(p);
}

/* ---- budgets --------------------------------------------------------------------------------- */

static void search(wn_profile *p, wn_search how, int threads, const char *state, wn_status expected)
{
    const wn_task *tasks[] = { wn_task_find("needle"), NULL };
    wn_err err = { 0 };
    wn_budgets_opts o = { .kv = "snapkv@12.5%", .context = 256, .n_chunks = 1, .n_seeds = 1,
                          .n_groups = how == WN_SEARCH_EVOLVE ? 1 : 2, .tasks = tasks,
                          .phrases = phrases, .family = "demo", .n_threads = threads,
                          .state = state, .search = how,
                          .most_tried = how == WN_SEARCH_EVOLVE ? 10 : 0, .progress = on_progress,
                          .stop = &stop };
    stop = 0;
    wn_status st = wn_budgets_search(p, model, &o, &err);
    if (st != expected) fail_msg("%s", st ? err.text : "the search was not interrupted");
}

static wn_profile *bare(void)
{
    wn_profile *p;
    wn_err err;
    if (wn_profile_new(&p, 6, 4, 12, &err)) fail_msg("%s", err.text);
    return p;
}

/* Both searches, interrupted in the second batch, and taken up with other threads. */
static void a_search_is_the_same_again(void **state)
{
    (void)state;
    stop_after = 0;
    for (int how = WN_SEARCH_DESCEND; how <= WN_SEARCH_EVOLVE; how++) {
        wn_profile *a = bare(), *c = bare();
        wn_search s = (wn_search)how;
        search(a, s, 1, NULL, WN_OK);
        unlink(journal_path());
        n_seen = 0;
        stop_at_call = 5;
        search(c, s, 1, journal_path(), WN_EIO);
        assert_int_equal(access(journal_path(), F_OK), 0);
        assert_int_equal(c->n_budgets, 0);
        stop_at_call = 0;
        search(c, s, 2, journal_path(), WN_OK);
        assert_int_equal(a->n_budgets, 1);
        assert_true(a->budgets[0].found <= a->budgets[0].even);
        assert_string_equal(a->budgets[0].recipe, "snapkv");
        assert_non_null(strstr(a->budgets[0].policy, "+alloc:profile@12.5%"));
        assert_memory_equal(a->budgets[0].weight, c->budgets[0].weight, sizeof(double) * 6);
        assert_memory_equal(&a->budgets[0].even, &c->budgets[0].even, sizeof(double));
        assert_memory_equal(&a->budgets[0].found, &c->budgets[0].found, sizeof(double));
        assert_int_equal(a->budgets[0].n_tried, c->budgets[0].n_tried);
        unlink(journal_path());
        wn_profile_close(a);
        wn_profile_close(c);
    }
}

static void what_cannot_be_searched_is_a_sentence(void **state)
{
    (void)state;
    static const struct { const char *kv, *says;
    } cases[] = {
        { "streaming@25%", "makes whole plans" },
        { "snapkv@512", "searched for a share" },
        { "snapkv", "searched for a share" },
        { "snapkv+alloc:ada@25%", "exclude each other" },
        { "nothing@3%", "there is no cache policy" },
        { "snapkv@100%", "share below 100%" },
    };
    wn_profile *p = bare();
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        wn_err err = { 0 };
        wn_budgets_opts o = { .kv = cases[i].kv, .context = 256, .phrases = phrases,
                              .family = "demo" };
        assert_int_equal(wn_budgets_search(p, model, &o, &err), WN_EINVAL);
        if (!strstr(err.text, cases[i].says)) fail_msg("%s: %s", cases[i].kv, err.text);
    }
    wn_profile_opts o = opts_of(1, NULL);
    wn_profile *q;
    wn_err err;
    o.context = 100;
    assert_int_equal(wn_profile_measure(&q, model, &o, &err), WN_EINVAL);
    o.context = 512;
    o.recent = 200;
    assert_int_equal(wn_profile_measure(&q, model, &o, &err), WN_EINVAL);
    wn_profile_close(p);
}

int main(void)
{
    wn_err err = { 0 };
    if (wn_model_open(&model, "models/winnow-demo.gguf", NULL, &err) ||
        wn_phrases_open(&phrases, "demo", NULL, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_and_interruptions_change_nothing),
        cmocka_unit_test(the_lanes_that_answer_are_found),
        cmocka_unit_test(a_search_is_the_same_again),
        cmocka_unit_test(what_cannot_be_searched_is_a_sentence),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    wn_phrases_close(phrases);
    wn_model_close(model);
    return rc;
}
