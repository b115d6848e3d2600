/* `winnow calibrate` as a user types it: the file is the same on any number of threads, a run and
 * an evaluation go by it wherever it lies, wrong words are sentences and exit status 2, and where
 * there is no calibration, or none that has the format, the sentence says what to do. */
#include "tests/support/shell.h"
#include "tests/unit/check.h"

#define MODEL "models/winnow-demo.gguf"
#define RUN "./winnow run -q -m " MODEL " -f data/eval/README.md -p ' the end' -n 4 --temp 0 "

static char path[128];

static void a_calibration_is_made_and_gone_by(void **state)
{
    (void)state;
    static const char how[] = "head -c 8000 data/eval/haystack.txt | ./winnow calibrate " MODEL
                              " -q --text - -c 256 --texts 4 --formats nuq3,nuq2-s1";
    assert_int_equal(sh("%s -t 1 -o %s.one && %s -t 2 -o %s && cmp %s %s.one", how, path, how,
                        path, path, path),
                     0);
    assert_non_null(strstr(out, "nuq2-s1"));
    assert_non_null(strstr(out, "1024 tokens in texts of 256"));
    assert_int_equal(sh(RUN "--calibration %s --kv none,k=nuq3,v=nuq2-s1", path), 0);
    assert_int_equal(sh(RUN "--calibration %s --kv none,kv=cq2 2>&1", path), 1);
    assert_non_null(
        strstr(out, "has no books for cq2: run `winnow calibrate` again, with --formats cq2"));
    assert_int_equal(
        sh("./winnow eval -q -m " MODEL
           " --no-resume --no-speed --calibration %s --kv none,kv=nuq3 -c 256 --tasks none "
           "--chunks 1",
           path),
        0);
    sh("rm -f %s %s.one", path, path);
}

static void what_is_missing_or_wrong_is_a_sentence(void **state)
{
    (void)state;
    assert_int_equal(sh(RUN "--calibration %s --kv none,kv=cq2 2>&1", path), 1);
    assert_non_null(strstr(out, path));
    assert_int_equal(sh("cp " MODEL " %s && ./winnow run -q -m %s -p a -n 1 -ctk nuq4 2>&1", path,
                        path),
                     1);
    assert_non_null(strstr(out, "run `winnow calibrate"));
    assert_int_equal(sh(RUN "--calibration %s -ctk cq4 2>&1", path), 1);  /* a model is none */
    assert_non_null(strstr(out, "not a winnow"));
    assert_int_equal(sh("./winnow calibrate " MODEL " 2>&1"), 2);
    assert_non_null(strstr(out, "which text?"));
    assert_int_equal(sh("./winnow calibrate --text README.md 2>&1"), 2);
    assert_non_null(strstr(out, "which model?"));
    assert_int_equal(sh("./winnow calibrate " MODEL " -q --text README.md --formats q4 2>&1"), 1);
    assert_non_null(strstr(out, "there are cq4, cq2, cq1, nuq4"));
    assert_int_equal(sh("echo short | ./winnow calibrate " MODEL " -q --text - 2>&1"), 1);
    assert_non_null(strstr(out, "want 1024 at least"));
    assert_int_equal(sh("./winnow calibrate " MODEL " -q --text /nowhere/text 2>&1"), 1);
    assert_non_null(strstr(out, "/nowhere/text"));
    sh("rm -f %s", path);
}

int main(void)
{
    test_path(path, sizeof path, "cli.calibration");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_calibration_is_made_and_gone_by),
        cmocka_unit_test(what_is_missing_or_wrong_is_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
