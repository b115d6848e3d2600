/* The commands as a user types them: exit statuses, the JSON line, what goes to which
 * stream, sessions across two runs, token files in and logits out. */
#include "tests/support/shell.h"
#include "tests/unit/check.h"

#include <jansson.h>
#include <unistd.h>

#define MODEL "models/winnow-demo.gguf"
static char dir[] = "/tmp/winnow-cli-XXXXXX";

static json_t *last_line(void)
{
    size_t n = strlen(out);
    while (n && out[n - 1] == '\n') out[--n] = '\0';
    char *line = strrchr(out, '\n');
    json_t *j = json_loads(line ? line + 1 : out, 0, NULL);
    if (!j) fail_msg("no JSON in the last line: %s", out);
    return j;
}

static json_int_t number(json_t *j, const char *key)
{
    return json_integer_value(json_object_get(j, key));
}

static void the_json_line_has_what_scripts_need(void **state)
{
    (void)state;
    assert_int_equal(sh("./winnow run -m " MODEL " -p 'Once upon a time' -n 8 --temp 0 --json -q"),
                     0);
    json_t *j = last_line();
    static const char *const keys[] = { "text",          "prompt_tokens", "generated",
                                        "cached_tokens", "prefill_tps",   "decode_tps",
                                        "kv_bytes",      "kv_bytes_peak", "kv_slots_full" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!json_object_get(j, keys[i])) fail_msg("no %s in %s", keys[i], out);
    assert_int_equal(number(j, "generated"), 8);
    assert_int_equal(number(j, "cached_tokens"), 0);
    /* 12 lanes; the last token generated is never computed */
    assert_int_equal(number(j, "kv_slots_full"), 12 * (number(j, "prompt_tokens") + 7));
    json_decref(j);
}

static void a_demo_question_is_answered(void **state)
{
    (void)state;
    assert_int_equal(sh("scripts/demo 2>/dev/null"), 0);
    assert_non_null(strstr(out, "The red lantern is in the cellar."));
}

static void a_session_goes_on_exactly(void **state)
{
    (void)state;
    char whole[4096], parts[8192];
    assert_int_equal(sh("./winnow run -m " MODEL
                        " -p 'The king had a daughter' -n 40 -s 7 --json -q"),
                     0);
    json_t *j = last_line();
    snprintf(whole, sizeof whole, "%s", json_string_value(json_object_get(j, "text")));
    json_decref(j);
    assert_int_equal(sh("./winnow run -m " MODEL
                        " -p 'The king had a daughter' -n 20 -s 7 --json -q --session %s/s",
                        dir),
                     0);
    j = last_line();
    snprintf(parts, sizeof parts, "%s", json_string_value(json_object_get(j, "text")));
    json_decref(j);
    /* The text so far as the new prompt: the same tokens come out of the tokenizer here. */
    assert_int_equal(sh("./winnow run -m " MODEL
                        " -p 'The king had a daughter%s' -n 20 -s 7 --json -q --session %s/s",
                        parts, dir),
                     0);
    j = last_line();
    assert_true(number(j, "cached_tokens") > 20);
    strncat(parts, json_string_value(json_object_get(j, "text")), 4000);
    json_decref(j);
    assert_string_equal(parts, whole);
}

static void tokens_in_and_logits_out(void **state)
{
    (void)state;
    static float logits[5 * 4096];
    char path[64];
    assert_int_equal(sh("printf "
                        "'\\001\\000\\000\\000\\002\\000\\000\\000\\003\\000\\000\\000\\004\\000\\0"
                        "00\\000\\005\\000\\000\\000' > %s/t && "
                        "./winnow run -m " MODEL " --tokens %s/t -n 0 --dump-logits %s/l -q",
                        dir, dir, dir),
                     0);
    snprintf(path, sizeof path, "%s/l", dir);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(logits, sizeof(float), 5 * 4096, f), 5 * 4096);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
    assert_int_equal(sh("head -c 3 %s/t > %s/u; ./winnow run -m " MODEL " --tokens %s/u -n 0 2>&1",
                        dir, dir, dir),
                     1);
    assert_non_null(strstr(out, "int32"));
}

/* A pass key in the middle of a text that a window and sinks forget: it is answered when its
 * sentence is protected, and not without. */
static void a_protected_sentence_is_remembered(void **state)
{
    (void)state;
    static const char needle[] = " The pass key is 48213. Remember it: 48213 is the pass key. ";
    int at = 1400;
    assert_int_equal(sh("(head -c %d models/aschenputtel.txt; printf '%%s' '%s'; tail -c +%d "
                        "models/aschenputtel.txt | head -c 1800) > %s/text",
                        at, needle, at + 1, dir),
                     0);
    for (int protect = 0; protect < 2; protect++) {
        char range[60] = "";
        if (protect)
            snprintf(range, sizeof range, "--protect %d-%d", at, at + (int)sizeof needle - 2);
        assert_int_equal(
            sh("./winnow run -m " MODEL
               " -f %s/text -p '\n\nQuestion: What is the pass key?\nAnswer: ' -n 12 --temp 0 -q "
               "--kv recent@12.5%% %s",
               dir, range),
            0);
        if ((strstr(out, "48213") != NULL) != protect) fail_msg("%s: %s", range, out);
    }
    assert_int_equal(sh_both("./winnow run -m " MODEL
                             " -p 'Once upon a time' -n 1 --kv recent@25%% --protect 9-99"),
                     1);
    assert_non_null(strstr(out, "--protect 9-99: bytes 9 to 100: the text has 16"));
    assert_int_equal(sh_both("./winnow run -m " MODEL
                             " -p 'Once upon a time' -n 1 --kv recent@25%% --protect here"),
                     1);
    assert_non_null(strstr(out, "expected bytes of the prompt, as in 100-120"));
}

/* Spans are named by bytes, also where a token reaches from one into the next: a head holds the end
 * of each, or nothing of it. */
static void spans_stay_or_go_as_a_whole(void **state)
{
    (void)state;
    static const char *const range[3] = { "0-60", "61-150", "151-301" };
    assert_int_equal(sh("head -c 420 models/aschenputtel.txt > %s/spans", dir), 0);
    int whole = 0, gone = 0;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sh_both("text=$(head -c %s %s/spans | tail -c 20); ./winnow run -m " MODEL
                                 " -f %s/spans -n 2 -q --kv shotkv@70%% --span %s "
                                 "--span %s --span %s --explain \"$text\"",
                                 strchr(range[i], '-') + 1, dir, dir, range[0], range[1], range[2]),
                         0);
        if (strstr(out, "a part of it")) fail_msg("%s: %s", range[i], out);
        whole += strstr(out, "all of it:") != NULL;
        gone += strstr(out, "all that they held:") != NULL;
    }
    assert_true(whole > 0 && gone > 0);
    assert_int_equal(sh_both("./winnow run -m " MODEL
                             " -f %s/spans -n 0 --kv shotkv@50%% --span 0-60 --span 40-80",
                             dir),
                     1);
    assert_non_null(strstr(out, "--span 40-80: positions "));
    assert_non_null(strstr(out, "is in another one"));
    assert_int_equal(sh_both("./winnow run -m " MODEL
                             " -f %s/spans -n 0 --kv shotkv@50%% --span 0-6000",
                             dir),
                     1);
    assert_non_null(strstr(out, "--span 0-6000: bytes 0 to 6001: the text has 420"));
    assert_int_equal(sh_both("./winnow run -m " MODEL " --tokens %s/t -n 0 --span 0-6", dir), 2);
    assert_non_null(strstr(out, "--protect and --span name bytes of a text"));
    assert_int_equal(sh_both("./winnow run -m " MODEL " --chat -p Hello -n 0 --span 0-3"), 2);
    assert_non_null(strstr(out, "--protect and --span do not go with it"));
}

static void exit_statuses(void **state)
{
    (void)state;
    static const struct { const char *cmd; int rc; const char *says; } cases[] = {
        { "./winnow", 2, "usage" },
        { "./winnow --help", 0, "inspect" },
        { "./winnow frobnicate", 2, "frobnicate" },
        { "./winnow run --help", 0, "--session" },
        { "./winnow bench --help", 0, "--depths" },
        { "./winnow inspect --help", 0, "usage" },
        { "./winnow tokenize --help", 0, "usage" },
        { "./winnow run", 2, "-m" },
        { "./winnow run -m " MODEL " --no-such", 2, "--no-such" },
        { "./winnow run -m " MODEL " --top-k", 2, "needs a value" },
        { "./winnow run -m " MODEL " --top-k many", 2, "many" },
        { "./winnow run -m " MODEL " --top-p 2", 2, "between" },
        { "./winnow run -m " MODEL " --mem lots", 2, "lots" },
        { "WN_TOP_P=9 ./winnow run -m " MODEL " -p x", 2, "WN_TOP_P" },
        { "./winnow run -m /nowhere/x.gguf -p x", 1, "/nowhere/x.gguf" },
        { "./winnow run -m README.md -p x", 1, "README.md" },
        { "./winnow run -m " MODEL " -p 'one two three four' -c 2 -n 1", 1, "context" },
        { "./winnow run -m " MODEL " -p x -ctk q77", 2, "f16" },
        { "./winnow run -m /nowhere/x.gguf -p x -ctv q77", 2, "--cache-type-v" },
        { "./winnow run -m " MODEL " -p x --mem 1M", 1, "--mem" },
        { "./winnow run -m " MODEL " -p x -c 100000", 1, "4096" },
        { "./winnow bench -m " MODEL " -d 5,3", 2, "5,3" },
        /* before the model is opened */
        { "./winnow run -m /nowhere/x.gguf -p x --kv snapkw", 2, "\"snapkw\"" },
        { "./winnow run -m /nowhere/x.gguf -p x --kv 'snapkv,k=q77'", 2, "q77" },
        { "./winnow bench -m /nowhere/x.gguf --kv 'snapkv@0%'", 2, "above 0%" },
        { "./winnow eval -m /nowhere/x.gguf --kv 'snapkv+alloc:no'", 2, "uniform, ada" },
        { "./winnow run -m /nowhere/x.gguf -p x --policy-lib /nowhere/p.so", 1, "/nowhere/p.so" },
        { "echo 4097 | ./winnow tokenize -m " MODEL " --decode", 1, "4097" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char cmd[512];
        snprintf(cmd, sizeof cmd, "%s 2>&1", cases[i].cmd);
        int rc = sh("%s", cmd);
        if (rc != cases[i].rc)
            fail_msg("%s: exit status %d, expected %d: %s", cases[i].cmd, rc, cases[i].rc, out);
        if (!strstr(out, cases[i].says))
            fail_msg("%s: does not say %s: %s", cases[i].cmd, cases[i].says, out);
    }
}

static void every_option_has_its_twin(void **state)
{
    (void)state;
    assert_int_equal(sh("WN_MODEL=" MODEL
                        " WN_TEMP=0 WN_N_PREDICT=3 WN_JSON=1 ./winnow run -p 'Once' -q"),
                     0);
    json_t *j = last_line();
    assert_int_equal(number(j, "generated"), 3);
    json_decref(j);
    assert_int_equal(sh("WN_MODEL=" MODEL
                        " WN_N_PREDICT=3 ./winnow run -p 'Once' --temp=0 -n 2 --json -q"),
                     0);
    j = last_line();
    assert_int_equal(number(j, "generated"), 2);        /* the command line wins */
    json_decref(j);
}

static void bench_measures_something(void **state)
{
    (void)state;
    assert_int_equal(sh("./winnow bench -m " MODEL " -d 0,64 -p 32 -n 2 -r 1 --json"), 0);
    json_t *j = json_loads(out, 0, NULL), *rows = json_object_get(j, "rows");
    assert_int_equal(json_array_size(rows), 2);
    assert_true(json_number_value(json_object_get(json_array_get(rows, 1), "decode_tps")) > 0);
    assert_true(json_number_value(json_object_get(json_array_get(rows, 1), "read_gbs")) > 0);
    assert_true(json_number_value(json_object_get(json_array_get(rows, 1), "kept")) == 1);
    json_decref(j);
}

/* Going back over sealed pages empties a sequence: it would be computed anew inside the timer. */
static void bench_measures_encoded_pages(void **state)
{
    (void)state;
    static const char *const types[] = { "-ctk q4", "-ctv q8_0", "-ctk q8 -ctv q8" };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        assert_int_equal(sh("./winnow bench -m " MODEL " -d 128,512 -p 64 -n 2 -r 2 --json %s",
                            types[i]),
                         0);
        json_t *j = json_loads(out, 0, NULL), *rows = json_object_get(j, "rows"),
               *first = json_array_get(rows, 0), *second = json_array_get(rows, 1);
        assert_true(number(first, "kv_bytes") > 0);
        assert_true(number(second, "kv_bytes") > number(first, "kv_bytes"));
        json_decref(j);
    }
}

/* Policies at marks and at boundaries: what is held is what they leave, at each depth anew. */
static void bench_measures_a_policy(void **state)
{
    (void)state;
    static const struct {
        const char *kv, *depths;
        size_t n;
    } cases[] = { { "snapkv@25%", "256,512", 2 }, { "h2o@25%", "256", 1 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(sh("./winnow bench -m " MODEL " -d %s -p 64 -n 2 -r 1 --json --kv '%s'",
                            cases[i].depths, cases[i].kv),
                         0);
        json_t *j = json_loads(out, 0, NULL), *rows = json_object_get(j, "rows");
        assert_string_equal(json_string_value(json_object_get(j, "kv")), cases[i].kv);
        assert_int_equal(json_array_size(rows), cases[i].n);
        for (size_t k = 0; k < cases[i].n; k++) {
            double kept = json_number_value(json_object_get(json_array_get(rows, k), "kept"));
            if (kept < 0.24 || kept > 0.27)
                fail_msg("%s: %g of the slots are kept", cases[i].kv, kept);
        }
        json_decref(j);
    }
    assert_int_equal(sh("./winnow bench -m " MODEL
                        " -d 64 -p 32 -n 2 -r 1 --csv --kv 'recent(sinks=4,window=20,every=16)'"),
                     0);
    assert_non_null(strstr(out, ",kept,kv\n64,"));
    assert_non_null(strstr(out, ",\"recent(sinks=4,window=20,every=16)\"\n"));
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_json_line_has_what_scripts_need),
        cmocka_unit_test(a_demo_question_is_answered),
        cmocka_unit_test(a_session_goes_on_exactly),
        cmocka_unit_test(tokens_in_and_logits_out),
        cmocka_unit_test(exit_statuses),
        cmocka_unit_test(every_option_has_its_twin),
        cmocka_unit_test(a_protected_sentence_is_remembered),
        cmocka_unit_test(spans_stay_or_go_as_a_whole),
        cmocka_unit_test(bench_measures_something),
        cmocka_unit_test(bench_measures_encoded_pages),
        cmocka_unit_test(bench_measures_a_policy),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    sh("rm -rf %s", dir);
    return rc;
}
