/* `winnow profile` as a user types it: the file is what --json says, policies go by it, wrong words
 * are sentences and exit status 2, and where there is no profile a run says what to do. */
#include "tests/support/shell.h"
#include "tests/unit/check.h"

#define MODEL "models/winnow-demo.gguf"
#define SMALL "-q -c 512 --needles 3 --repeats 1 --no-resume "
#define RUN "./winnow run -q -m " MODEL " -f data/eval/README.md -p ' the end' -n 4 --temp 0 "

static char path[128];

static void a_profile_is_made_and_gone_by(void **state)
{
    (void)state;
    assert_int_equal(sh("./winnow profile " MODEL " " SMALL
                        "-o %s --json > %s.json && cmp %s %s.json",
                        path, path, path, path),
                     0);
    assert_int_equal(sh("./winnow profile " MODEL " " SMALL "-o %s", path), 0);
    assert_non_null(strstr(out, "retrieval"));
    assert_non_null(strstr(out, "lanes fetch"));
    assert_int_equal(sh("cmp %s %s.json", path, path), 0);
    assert_int_equal(sh(RUN "--profile %s --kv 'snapkv+alloc:heads@25%%'", path), 0);
    assert_int_equal(sh(RUN "--profile %s --kv 'snapkv+alloc:profile@25%%' 2>&1", path), 1);
    assert_non_null(strstr(out, "has no budgets for snapkv (it has: none)"));
    assert_int_equal(sh("./winnow profile " MODEL
                        " -q --no-resume -o %s -c 256 --groups 2 --budgets 'snapkv@25%%'",
                        path),
                     0);
    assert_non_null(strstr(out, "budgets for snapkv at 25%"));
    assert_int_equal(sh(RUN "--profile %s --kv 'snapkv+alloc:profile@25%%'", path), 0);
    assert_int_equal(
        sh("./winnow eval -q -m " MODEL
           " --no-resume --no-speed --profile %s --kv 'snapkv+alloc:profile@25%%' -c 256 "
           "--tasks none --chunks 1",
           path),
        0);
    /* measured anew, the table stays */
    assert_int_equal(sh("./winnow profile " MODEL " " SMALL "-o %s", path), 0);
    assert_non_null(strstr(out, "budgets for snapkv at 25%"));
    sh("rm -f %s %s.json", path, path);
}

/* Evolution cut short after its first batch is written as far as it came; begun again, it ends with
 * the file that a run in one piece writes, and leaves nothing beside it. */
static void a_search_is_taken_up(void **state)
{
    (void)state;
    static char how[300];
    snprintf(how, sizeof how,
             "./winnow profile " MODEL
             " -q -c 256 --budgets 'tova@25%%' --search evolve --evaluations 10 -o %s",
             path);
    assert_int_equal(sh("./winnow profile " MODEL " " SMALL "-o %s && cp %s %s.bare", path,
                        path, path),
                     0);
    assert_int_equal(sh("%s --no-resume && mv %s %s.json && cp %s.bare %s", how, path, path,
                        path, path),
                     0);
    assert_non_null(strstr(out, "budgets for tova at 25%"));
    assert_non_null(strstr(out, "(10 tried)"));         /* even, and a batch of nine */
    assert_int_equal(sh("%s --minutes 0.001 2>&1", how), 0);
    assert_non_null(strstr(out, "the same command goes on"));
    assert_int_equal(sh("test -s %s.search", path), 0);
    assert_int_equal(sh("%s -s 1 2>&1", how), 1);
    assert_non_null(strstr(out, "the state of another search"));
    assert_int_equal(sh("%s && cmp %s %s.json && test ! -e %s.search", how, path, path, path),
                     0);
    assert_int_equal(sh(RUN "--profile %s --kv 'tova+alloc:profile@25%%'", path), 0);
    sh("rm -f %s %s.json %s.bare", path, path, path);
}

static void without_a_profile_a_run_says_so(void **state)
{
    (void)state;
    assert_int_equal(sh("ln -sf $PWD/" MODEL " %s.gguf", path), 0);
    assert_int_equal(sh("./winnow run -q -m %s.gguf -p hello -n 1 --kv 'h2o+alloc:heads@25%%' 2>&1",
                        path),
                     1);
    assert_non_null(strstr(out, "goes by a profile of the model: there is no "));
    assert_non_null(strstr(out, "run `winnow profile "));
    sh("rm -f %s.gguf", path);
}

static void wrong_words_are_sentences(void **state)
{
    (void)state;
    static const struct { const char *args, *says; int rc;
    } wrong[] = {
        { "", "which model?", 2 },
        { MODEL " -c 20", "-c", 2 },
        { MODEL " --json --check", "one of them", 2 },
        { MODEL " --search anneal --budgets snapkv@25%",
          "there are descend and evolve, not: anneal", 2 },
        { MODEL " --search evolve", "are about --budgets POLICY", 2 },
        { MODEL " -q --no-resume -c 256 --needles 1 --repeats 1 -o /tmp/never --budgets tova@25% "
                "--search evolve --evaluations 9",
          "9 evaluations are too few", 1 },
        { MODEL " -q --no-resume -c 90000 -o /tmp/never", "texts of 90000 tokens", 1 },
        { MODEL " -q --no-resume -c 512 --recent 400 -o /tmp/never", "are too much of a text", 1 },
        { MODEL " -q --no-resume -c 256 --needles 1 --repeats 1 -o /nowhere/x",
          "/nowhere/x: cannot be written", 1 },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(sh("./winnow profile %s 2>&1", wrong[i].args), wrong[i].rc);
        if (!strstr(out, wrong[i].says)) fail_msg("%s: %s", wrong[i].args, out);
    }
}

int main(void)
{
    test_path(path, sizeof path, "cli.profile");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_profile_is_made_and_gone_by),
        cmocka_unit_test(a_search_is_taken_up),
        cmocka_unit_test(without_a_profile_a_run_says_so),
        cmocka_unit_test(wrong_words_are_sentences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
