/* Templates, haystacks and choice files from outside: what is malformed is refused with a
 * sentence that names file and key and says what to do; what is fine means what it says. */
#include "eval/choices.h"
#include "eval/haystack.h"
#include "tests/unit/check.h"

#include <unistd.h>

static const char prose[] =
    "There was a man. He had a dog! \"Did he?\" asked Mr. Brooke. It slept\n\nuntil noon.";

static wn_status parse(wn_phrases **p, const char *json, wn_err *err)
{
    return wn_phrases_parse(p, json, strlen(json), "mine.json", prose, sizeof prose - 1, "prose",
                            err);
}

/* Protects: no mistake in a template becomes a question that cannot be answered. */
static void malformed_templates(void **state)
{
    (void)state;
    static const struct { const char *json, *says;
    } bad[] = {
        { "", "not JSON" },
        { "[]", "not a JSON object" },
        { "{\"name\": \"x\", \"name\": \"y\"}", "not JSON" },
        { "{\"inherit\": \"bse\"}", "use base, chat or demo" },
        { "{\"inherit\": 7}", "use base, chat or demo" },
        { "{}", "markup is missing" },
        { "{\"inherit\": \"base\", \"task\": {}}", "task: no such key; known here: name, about" },
        { "{\"inherit\": \"base\", \"tasks\": {\"passkeys\": {}}}", "tasks.passkeys: no such key" },
        { "{\"inherit\": \"base\", \"tasks\": {\"passkey\": {\"leads\": \"\"}}}",
          "tasks.passkey.leads: no such key" },
        { "{\"inherit\": \"base\", \"tasks\": {\"passkey\": 3}}",
          "tasks.passkey is missing or no object" },
        { "{\"inherit\": \"base\", \"tasks\": {\"passkey\": {\"lead\": 3}}}",
          "tasks.passkey.lead: give a string" },
        { "{\"inherit\": \"base\", \"tasks\": {\"needle\": {\"statement\": \"{key}\"}}}",
          "tasks.needle.statement: the phrase misses {value}" },
        { "{\"inherit\": \"base\", \"tasks\": {\"needle\": {\"lead\": \"{kye} is\"}}}",
          "tasks.needle.lead: nobody fills in {kye}" },
        { "{\"inherit\": \"base\", \"tasks\": {\"needle\": {\"ask\": \"{text}\"}}}",
          "tasks.needle.ask: nobody fills in {text}" },
        { "{\"inherit\": \"base\", \"tasks\": {\"passkey\": {\"value\": \"{d999}\"}}}",
          "nobody fills in {d999}" },
        { "{\"inherit\": \"base\", \"tasks\": {\"multikey\": {\"n\": 1}}}",
          "tasks.multikey.n: give a whole number from 2 to 64" },
        { "{\"inherit\": \"base\", \"tasks\": {\"questions\": {\"kinds\": []}}}",
          "tasks.questions.kinds is missing or empty" },
        { "{\"inherit\": \"base\", \"tasks\": {\"questions\": {\"kinds\": [{\"statement\": "
          "\"a\"}]}}}",
          "tasks.questions.kinds[0].question is missing" },
        { "{\"inherit\": \"base\", \"tasks\": {\"questions\": {\"kinds\": [{\"statement\": "
          "\"{name} slept.\", \"question\": "
          "\"Who?\", \"lead\": \"\", \"answer\": \"{place}\"}]}}}",
          "kinds[0].answer: {place} is not in the statement" },
        { "{\"inherit\": \"base\", \"tasks\": {\"questions\": {\"kinds\": [{\"statement\": "
          "\"{name} slept.\", \"question\": "
          "\"Who?\", \"lead\": \"\", \"answer\": \"he\"}]}}}",
          "kinds[0].answer is always the same" },
        { "{\"inherit\": \"base\", \"lists\": {\"adj\": [\"one\"]}}",
          "lists.adj: give an array of two or more words" },
        { "{\"inherit\": \"base\", \"lists\": {\"adj\": [\"one\", 2]}}",
          "lists.adj: entry 2 is not a word" },
        { "{\"inherit\": \"base\", \"lists\": {\"A b\": [\"one\", \"two\"]}}",
          "lists.A b: name it with" },
        { "{\"inherit\": \"base\", \"markup\": {\"sufix\": \"\"}}", "markup.sufix: no such key" },
        { "{\"inherit\": \"base\", \"markup\": {\"stop\": null}}",
          "markup.stop is missing or no string" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        wn_phrases *p;
        wn_err err = { 0 };
        assert_int_equal(parse(&p, bad[i].json, &err), WN_EFORMAT);
        assert_null(p);
        if (!strstr(err.text, bad[i].says) || !strstr(err.text, "mine.json"))
            fail_msg("%s\n  says: %s\n  not:  %s", bad[i].json, err.text, bad[i].says);
    }
}

static size_t quarter(void *ctx, const char *text, size_t n)
{
    (void)ctx;
    (void)text;
    return (n + 3) / 4;
}

/* Protects: a template says only what differs, and its markup holds for conversations too. */
static void templates_inherit(void **state)
{
    (void)state;
    wn_phrases *p;
    wn_err err;
    wn_case c;
    wn_case_opts o = { .seed = 1, .n_tokens = 400, .depth = 0, .count = quarter };
    if (parse(&p,
              "{\"name\": \"x\", \"inherit\": \"chat\", \"markup\": {\"user_prefix\": \"<U>\", "
              "\"system_text\": \"\"}, "
              "\"tasks\": {\"passkey\": {\"intro\": \"\", \"statement\": \"Key {value} for {name} "
              "{name2} {name}.\"}}}",
              &err))
        fail_msg("%s", err.text);
    assert_string_equal(wn_phrases_talk(p)->user_prefix, "<U>");
    assert_string_equal(wn_phrases_talk(p)->user_suffix, "<|im_end|>\n");
    assert_int_equal(wn_task_find("passkey")->make(&c, p, &o, &err), WN_OK);
    assert_int_equal(strncmp(c.context, "<U>Key ", 7), 0);
    char a[32], b[32], again[32];
    assert_int_equal(sscanf(c.context, "<U>Key %*s for %31s %31s %31[A-Za-z].", a, b, again), 3);
    assert_string_equal(a, again);
    assert_string_not_equal(a, b);
    wn_case_release(&c);
    wn_phrases_close(p);
}

/* Protects: templates that load but cannot make a case say so instead of running forever. */
static void poor_templates(void **state)
{
    (void)state;
    static const struct { const char *json, *task, *says;
    } poor[] = {
        { "{\"inherit\": \"base\", \"tasks\": {\"passkey\": {\"value\": \"\"}}}", "passkey",
          "no fact that differs" },
        { "{\"inherit\": \"base\", \"tasks\": {\"multikey\": {\"n\": 12, \"value\": \"{d1}\"}}}",
          "multikey", "more words or digits" },
        { "{\"inherit\": \"base\", \"tasks\": {\"lookup\": {\"key\": \"{d2}\"}}}", "lookup",
          "make them longer" },
        { "{\"inherit\": \"base\", \"tasks\": {\"toolcall\": {\"call\": \"{text}\"}}}", "toolcall",
          "becomes no JSON" },
        { "{\"inherit\": \"base\", \"tasks\": {\"passkey\": {\"ask\": \"{title}?\"}}}", "passkey",
          "nothing stands for it" },
    };
    for (size_t i = 0; i < sizeof poor / sizeof *poor; i++) {
        wn_phrases *p;
        wn_err err;
        wn_case c;
        wn_case_opts o = { .seed = 1, .n_tokens = 4000, .depth = 0, .count = quarter };
        if (parse(&p, poor[i].json, &err)) fail_msg("%s", err.text);
        assert_int_not_equal(wn_task_find(poor[i].task)->make(&c, p, &o, &err), WN_OK);
        if (!strstr(err.text, poor[i].says))
            fail_msg("%s\n  says: %s\n  not:  %s", poor[i].json, err.text, poor[i].says);
        wn_phrases_close(p);
    }
}

/* Protects: an answer that stands in the user's own haystack anyway is no test of the cache. */
static void answers_avoid_the_haystack(void **state)
{
    (void)state;
    static const char json[] =
        "{\"inherit\": \"base\", \"tasks\": {\"passkey\": {\"value\": \"{d1}\"}}}";
    static const char hay[] = "Rooms 0, 1, 2 and 3. Rooms 4 and 5! Rooms 6, 7, and 9 are taken.";
    wn_phrases *p;
    wn_err err;
    if (wn_phrases_parse(&p, json, sizeof json - 1, "mine.json", hay, sizeof hay - 1, "hay", &err))
        fail_msg("%s", err.text);
    for (uint64_t seed = 0; seed < 20; seed++) {
        wn_case c;
        wn_case_opts o = { .seed = seed, .n_tokens = 400, .depth = 0, .count = quarter };
        assert_int_equal(wn_task_find("passkey")->make(&c, p, &o, &err), WN_OK);
        assert_string_equal(c.turns[0].expect[0], "8");
        wn_case_release(&c);
    }
    wn_phrases_close(p);
}

/* Protects: facts are never put into the middle of a sentence. */
static void sentences(void **state)
{
    (void)state;
    static const char *const want[] = {
        "There was a man.", " He had a dog!",  " \"Did he?\" asked Mr. Brooke.",
        " It slept",        "\n\nuntil noon.",
    };
    wn_haystack h;
    wn_err err;
    assert_int_equal(wn_haystack_init(&h, prose, sizeof prose - 1, "prose", &err), WN_OK);
    assert_int_equal(h.n_pieces, 5);
    for (int i = 0; i < h.n_pieces; i++) {
        wn_piece t = wn_haystack_piece(&h, i);
        assert_int_equal(t.n, strlen(want[i]));
        assert_memory_equal(t.text, want[i], t.n);
        assert_int_equal(t.n_space, strspn(want[i], " \n"));
    }
    wn_haystack_release(&h);
    assert_int_equal(wn_haystack_init(&h, "One sentence.", 13, "short.txt", &err), WN_EFORMAT);
    assert_non_null(strstr(err.text, "short.txt"));
    assert_int_equal(wn_haystack_init(&h, "Not. Utf\xff.", 10, "x", &err), WN_EFORMAT);
    assert_int_equal(wn_haystack_init(&h, " \n ", 3, "x", &err), WN_EFORMAT);
}

static void files(void **state)
{
    (void)state;
    char path[] = "/tmp/winnow-test-XXXXXX";
    int fd = mkstemp(path), n;
    wn_phrases *p;
    wn_choice *c;
    wn_err err;
    static const char text[] =
        "{\"question\": \"q\", \"choices\": [\"a\", \"b\"], \"answer\": 1}\n";
    assert_true(write(fd, text, sizeof text - 1) == sizeof text - 1);
    close(fd);
    assert_int_equal(wn_choices_load(&c, &n, path, &err), WN_OK);
    wn_choices_release(c, n);
    assert_int_equal(wn_phrases_open(&p, path, NULL, &err), WN_EFORMAT);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(wn_phrases_open(&p, "base", path, &err), WN_EFORMAT);    /* one sentence */
    unlink(path);
    assert_int_equal(wn_choices_load(&c, &n, path, &err), WN_EIO);
    assert_int_equal(wn_phrases_open(&p, "base", path, &err), WN_EIO);
    assert_int_equal(wn_phrases_open(&p, "nobody", NULL, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "base, chat, demo"));
}

static void guesses(void **state)
{
    (void)state;
    assert_string_equal(wn_phrases_guess("winnow-demo", "{{<|im_start|>}}"), "demo");
    assert_string_equal(wn_phrases_guess("Qwen3 0.6B", "{{'<|im_start|>'}}"), "model");
    assert_string_equal(wn_phrases_guess("Llama", ""), "base");
    assert_string_equal(wn_phrases_guess(NULL, NULL), "base");
}

static void choices(void **state)
{
    (void)state;
    static const char good[] =
        "\n{\"question\": \"Q?\", \"choices\": [\"a\", \"b\", \"c\"], \"answer\": 2}\r\n \n"
        "{\"context\": \"C\", \"question\": \"R?\", \"choices\": [\"x\", \"y\"], \"answer\": 0}";
    static const struct { const char *line, *says;
    } bad[] = {
        { "", "no questions" },
        { "\n\n", "no questions" },
        { "{\"question\": \"Q\"", "line 1: not JSON" },
        { "3", "line 1: not JSON" },
        { "[1]", "line 1: not a JSON object" },
        { "{\"question\": \"Q\", \"choices\": [\"a\", \"b\"], \"answer\": 0} {}",
          "line 1: not JSON" },
        { "{\"question\": \"Q\", \"choices\": [\"a\", \"b\"], \"answer\": 0}\n{}",
          "line 2: question is missing" },
        { "{\"question\": \"Q\", \"choices\": [\"a\", \"b\"], \"answer\": 2}",
          "answer is not the number of a choice; write 0 to 1" },
        { "{\"question\": \"Q\", \"choices\": [\"a\", \"b\"], \"answer\": -1}", "answer" },
        { "{\"question\": \"Q\", \"choices\": [\"a\", \"b\"], \"answer\": \"a\"}", "answer" },
        { "{\"question\": \"Q\", \"choices\": [\"a\"], \"answer\": 0}",
          "choices is not a list of 2 to 64" },
        { "{\"question\": \"Q\", \"choices\": [\"a\", \"\"], \"answer\": 0}", "entry 2 is empty" },
        { "{\"question\": \"Q\", \"choices\": [\"a\", \"b\"], \"answer\": 0, \"contxt\": \"\"}",
          "contxt: no such key" },
        { "{\"question\": \"Q\", \"choices\": [\"a\", \"b\"], \"answer\": 0, \"context\": 1}",
          "context is no text" },
    };
    wn_choice *c;
    wn_err err;
    int n;
    assert_int_equal(wn_choices_parse(&c, &n, good, sizeof good - 1, "q.jsonl", &err), WN_OK);
    assert_int_equal(n, 2);
    assert_null(c[0].context);
    assert_string_equal(c[0].choices[2], "c");
    assert_int_equal(c[0].n_choices, 3);
    assert_int_equal(c[0].answer, 2);
    assert_string_equal(c[1].context, "C");
    assert_string_equal(c[1].question, "R?");
    wn_choices_release(c, n);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(wn_choices_parse(&c, &n, bad[i].line, strlen(bad[i].line), "q.jsonl",
                                          &err),
                         WN_EFORMAT);
        assert_null(c);
        if (!strstr(err.text, bad[i].says) || !strstr(err.text, "q.jsonl"))
            fail_msg("%s\n  says: %s\n  not:  %s", bad[i].line, err.text, bad[i].says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_templates),
        cmocka_unit_test(templates_inherit),
        cmocka_unit_test(poor_templates),
        cmocka_unit_test(answers_avoid_the_haystack),
        cmocka_unit_test(sentences),
        cmocka_unit_test(files),
        cmocka_unit_test(guesses),
        cmocka_unit_test(choices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
