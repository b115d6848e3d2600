/* `winnow eval` as a user types it: JSON has what scripts need, wrong words are sentences
 * and exit status 2, an interrupted run is taken up and ends with the same bytes. */
#include "tests/support/shell.h"
#include "tests/unit/check.h"

#include <jansson.h>
#include <stdbool.h>
#include <unistd.h>

#define MODEL "models/winnow-demo.gguf"

static void json_has_what_scripts_need(void **state)
{
    (void)state;
    static const char *const top[] = { "model", "context", "usable_context", "rows" };
    static const char *const keys[] = { "kv",         "budget",  "kl_mean",     "kl_p95",
                                        "kl_p99",     "top1",    "ppl",         "ppl_full",
                                        "diverge_at", "bytes",   "prefill_tps", "decode_tps",
                                        "passkey",    "variable" };
    assert_int_equal(
        sh("./winnow eval -q -m " MODEL
           " --kv recent --kv random@30%% --budget 50,25 -c 256 --seeds 2 --lengths 128,256 "
           "--tasks passkey,variable --chunks 1 --no-resume --json"),
        0);
    json_t *j = json_loads(out, 0, NULL);
    if (!j) fail_msg("not JSON: %s", out);
    for (size_t i = 0; i < sizeof top / sizeof *top; i++)
        assert_non_null(json_object_get(j, top[i]));
    json_t *rows = json_object_get(j, "rows");
    assert_int_equal(json_array_size(rows), 4);         /* none, recent twice, random */
    for (size_t r = 0; r < 4; r++)
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (!json_object_get(json_array_get(rows, r), keys[i]))
                fail_msg("row %zu has no %s", r, keys[i]);
    json_t *passkey = json_object_get(json_array_get(rows, 0), "passkey");
    assert_true(json_real_value(json_object_get(passkey, "accuracy")) == 1.0);
    assert_non_null(json_object_get(passkey, "se"));
    json_t *cases = json_object_get(passkey, "cases");      /* depth by length */
    assert_int_equal(json_array_size(cases), 4);
    for (size_t i = 0; i < 4; i++) {
        json_t *c = json_array_get(cases, i);
        assert_int_equal(json_integer_value(json_object_get(c, "length")), i < 2 ? 128 : 256);
        assert_true(json_real_value(json_object_get(c, "depth")) == (i % 2 ? 0.75 : 0.25));
        assert_non_null(json_object_get(c, "aware"));
    }
    json_decref(j);
}

static void wrong_words_are_sentences(void **state)
{
    (void)state;
    static const struct { const char *args, *says; } wrong[] = {
        { "--kv nonsense", "there is no cache policy" },
        { "--kv 'recent(width=3)'", "has no parameter" },
        { "--kv recent --budget 50,x", "--budget" },
        { "--kv recent --tasks passkey,dance", "there is no task \"dance\"" },
        { "--kv recent --chunks many", "--chunks" },
        { "--kv recent --ask never", "--ask" },
        { "--kv recent --lengths 512,far", "--lengths" },
        { "--kv recent --json --csv", "one of them" },
        { "--kv recent --results a --no-resume", "--results" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(sh_both("./winnow eval -m " MODEL " %s", wrong[i].args), 2);
        says(wrong[i].says);
    }
    assert_int_equal(sh_both("./winnow eval -m " MODEL " --kv recent -c 99999"), 1);
    says("trained for");
}

/* The list of recipes is whole, and no line of it longer than a line. */
static void unknown_policies_are_told_all_names(void **state)
{
    (void)state;
    static const char *const command[] = { "eval", "run", "bench" };
    assert_int_equal(sh("./winnow recipes --names"), 0);
    char *names = strdup(out);
    for (size_t i = 0; i < sizeof command / sizeof *command; i++) {
        assert_int_equal(sh_both("./winnow %s -m " MODEL " --kv nonsense", command[i]), 2);
        for (const char *s = names; *s; s += strcspn(s, "\n") + 1) {
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)strcspn(s, "\n"), s);
            says(name);
        }
        for (const char *s = out; *s; s += strcspn(s, "\n") + 1)
            if (strcspn(s, "\n") > 100)
                fail_msg("%s: a line of %zu columns: %s", command[i], strcspn(s, "\n"), s);
    }
    free(names);
}

static void interrupted_runs_are_taken_up(void **state)
{
    (void)state;
    static const char args[] = "-q -m " MODEL
                               " --kv recent@25% -c 512 --seeds 6 --tasks passkey,needle,variable "
                               "--no-speed --csv";
    char path[128], *whole;
    test_path(path, sizeof path, "eval");
    assert_int_equal(sh("./winnow eval %s --no-resume", args), 0);
    whole = strdup(out);
    sh_both("exec timeout -s INT 0.4 ./winnow eval %s --journal %s", args, path);
    bool interrupted = access(path, F_OK) == 0;         /* a very fast machine may have been done */
    if (interrupted) assert_non_null(strstr(out, "goes on where it stopped"));
    assert_int_equal(sh("./winnow eval %s --journal %s", args, path), 0);
    assert_string_equal(out, whole);
    assert_int_not_equal(access(path, F_OK), 0);        /* finished: the journal is gone */
    free(whole);
}

/* Results that stay: more rows and other tasks measure what is not there yet, and change no figure.
 * Several questions about one text, by a policy that probes, are all the sequences that are ever
 * open. */
static void results_grow(void **state)
{
    (void)state;
    static const char common[] = "-q -m " MODEL
                                 " -c 256 --seeds 1 --chunks 1 --budget 50 --no-speed --markdown";
    char path[128], *whole;
    test_path(path, sizeof path, "results");
    assert_int_equal(sh("./winnow eval %s --kv random --kv recent --kv kvzip@25%% --tasks "
                        "questions,passkey --no-resume",
                        common),
                     0);
    whole = strdup(out);
    assert_non_null(strstr(whole, "| `random` 50 % |"));
    assert_int_equal(sh("./winnow eval %s --kv recent --tasks passkey --results %s", common, path),
                     0);
    assert_null(strstr(out, "questions |"));
    assert_int_equal(sh("./winnow eval %s --kv random --kv recent --kv kvzip@25%% --tasks "
                        "questions,passkey --results %s",
                        common, path),
                     0);
    assert_string_equal(out, whole);
    assert_int_equal(sh("cp %s %s.2 && ./winnow eval %s --kv kvzip@25%% --kv random --tasks "
                        "passkey,questions --results %s",
                        path, path, common, path),
                     0);
    assert_int_equal(sh("cmp %s %s.2", path, path), 0);         /* nothing was left to measure */
    assert_int_equal(sh_both("./winnow eval %s --kv recent -s 5 --results %s", common, path), 1);
    says("holds other results");
    assert_int_equal(sh("rm %s %s.2", path, path), 0);
    free(whole);
}

/* Every recipe that drops anything is in --kv all; those that go by a profile say how to get
 * one. */
static void all_recipes(void **state)
{
    (void)state;
    assert_int_equal(
        sh_both("./winnow eval -q -m " MODEL
                " --kv all -c 64 --chunks none --tasks none --no-resume --profile /nowhere"),
        1);
    says("goes by a profile of the model: /nowhere");
    assert_int_equal(sh("winnow=$PWD/winnow; cd /tmp && $winnow profile -q $OLDPWD/" MODEL
                        " -c 256 --needles 1 --repeats 1 --no-resume "
                        "-o winnow-all.profile && $winnow eval -q -m $OLDPWD/" MODEL
                        " --kv all --budget 50 -c 64 --chunks none "
                        "--tasks none --no-speed --no-resume --profile winnow-all.profile --csv; "
                        "rm winnow-all.profile"),
                     0);
    for (const char *const *p =
             (const char *const[]){ "\"random\",0.5", "\"kvmerger\",,", "\"kvmerger\",0.5",
                                    "\"duoattention\",0.5", NULL };
         *p; p++)
        if (!strstr(out, *p)) fail_msg("no row %s in %s", *p, out);
    assert_null(strstr(out, "keepall"));
}

/* Several questions about one text: the full cache, a row, the fork that a question is asked of,
 * and the fork of its probe, which may be as long as the text, are open at once. */
static void probes_have_room(void **state)
{
    (void)state;
    assert_int_equal(
        sh_both("./winnow eval -q -m " MODEL
                " --kv kvcompose@50%% -c 2048 --chunks none --tasks questions --seeds 1 --no-speed "
                "--no-resume -t 1"),
        0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_has_what_scripts_need),
        cmocka_unit_test(wrong_words_are_sentences),
        cmocka_unit_test(unknown_policies_are_told_all_names),
        cmocka_unit_test(interrupted_runs_are_taken_up),
        cmocka_unit_test(results_grow),
        cmocka_unit_test(all_recipes),
        cmocka_unit_test(probes_have_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
