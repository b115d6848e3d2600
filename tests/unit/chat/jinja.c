/* Every construct of the template language, and templates like those of real models over
 * conversations good and bad, against what Jinja itself makes of them (tests/chat). Guards the
 * promise that a model reads the prompt it was trained on, to the byte. */
#include "chat/template.h"
#include "tests/unit/check.h"

static json_t *load(const char *path)
{
    json_error_t e;
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, &e);
    if (!j) fail_msg("%s: line %d: %s", path, e.line, e.text);
    return j;
}

static char *read_text(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *text = malloc(1 << 20);
    assert_non_null(f);
    *n = fread(text, 1, 1 << 20, f);
    fclose(f);
    return text;
}

static int n_checked, n_wrong;

static void check_one(const char *name, const char *source, size_t n, const json_t *vars,
                      const json_t *expected)
{
    wn_template *t;
    wn_chat_text r = { 0 };
    wn_err err = { 0 };
    json_t *want = json_object_get(expected, name);
    if (!want) fail_msg("%s is not in expected.json: run tests/chat/oracle.py --write", name);
    wn_status st = wn_template_open(&t, source, n, &err);
    if (!st)
        st = wn_template_render(t, &(wn_render_opts){ .vars = vars, .now = 1700000000 }, &r, &err);
    bool same = json_is_null(want) ? st != WN_OK
                                   : !st && r.n == json_string_length(want) &&
                                         !memcmp(r.text, json_string_value(want), r.n);
    if (!same) {
        n_wrong++;
        print_error("%s\n  expected %s\n  got      %s\n", name,
                    json_is_null(want) ? "a failure" : json_string_value(want),
                    st ? err.text : r.text);
    }
    if (st && strlen(err.text) < 10) fail_msg("%s: no sentence: \"%s\"", name, err.text);
    n_checked++;
    wn_chat_text_release(&r);
    wn_template_close(t);
}

static void every_construct_is_as_in_jinja(void **state)
{
    json_t *cases = load("tests/chat/constructs.json"),
           *expected = load("tests/chat/expected.json"), *c;
    size_t i;
    (void)state;
    n_checked = n_wrong = 0;
    json_array_foreach(cases, i, c) {
        const json_t *t = json_object_get(c, "t");
        check_one(json_string_value(t), json_string_value(t), json_string_length(t),
                  json_object_get(c, "v"), expected);
    }
    assert_int_equal(n_wrong, 0);
    assert_true(n_checked > 500);
    json_decref(cases);
    json_decref(expected);
}

static void real_looking_templates_are_as_in_jinja(void **state)
{
    static const char *const names[] = { "channels", "checked", "oneline", "thinking",
                                         "tools",    "turns",   "typed" };
    json_t *talks = load("tests/chat/talks.json"), *expected = load("tests/chat/expected.json"),
           *talk;
    const char *key;
    (void)state;
    n_checked = n_wrong = 0;
    for (size_t i = 0; i < WN_COUNT(names); i++) {
        char path[200], name[200];
        size_t n;
        snprintf(path, sizeof path, "tests/chat/templates/%s.jinja", names[i]);
        char *source = read_text(path, &n);
        json_object_foreach(talks, key, talk) {
            snprintf(name, sizeof name, "%s.jinja %s", names[i], key);
            check_one(name, source, n, talk, expected);
        }
        free(source);
    }
    assert_int_equal(n_wrong, 0);
    assert_true(n_checked > 100);
    json_decref(talks);
    json_decref(expected);
}

int main(void)
{
    setenv("TZ", "UTC", 1);             /* strftime_now() */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_construct_is_as_in_jinja),
        cmocka_unit_test(real_looking_templates_are_as_in_jinja),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
