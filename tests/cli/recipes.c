/* `winnow recipes` says everything the tables hold, docs/policies.md is what it prints, and
 * recipes from libraries are recipes: listed, run, refused with a sentence when wrong. */
#include "tests/support/shell.h"
#include "tests/unit/check.h"

#include "winnow_policy.h"

#include <jansson.h>

#define MODEL "models/winnow-demo.gguf"
#define LIB "--policy-lib build/examples/policy.so"

static void every_recipe_and_stage_is_listed(void **state)
{
    (void)state;
    char line[80];
    assert_int_equal(sh_both("./winnow recipes"), 0);
    for (int i = 0; wn_recipe_at(i); i++) {
        snprintf(line, sizeof line, "\n%s ", wn_recipe_at(i)->name);
        says(line);
    }
    for (int i = 0; wn_stage_at(i); i++) {
        snprintf(line, sizeof line, "\n  +%s:%s", wn_stage_kind_name((int)wn_stage_at(i)->kind),
                 wn_stage_at(i)->name);
        says(line);
    }
    for (int i = 0; wn_recipe_format(i); i++) says(wn_recipe_format(i));
    for (int i = 0; wn_recipe_at(i); i++) {
        const wn_recipe *r = wn_recipe_at(i);
        assert_int_equal(sh_both("./winnow recipes %s", r->name), 0);
        says(r->about);
        says(r->source);
        says(r->cost);
        for (int k = 0; k < r->n_params; k++) says(r->params[k].help);
        for (int k = 0; wn_recipe_common(k); k++) says(wn_recipe_common(k)->help);
    }
}

/* The example line of each is a policy. */
static void the_examples_are_policies(void **state)
{
    (void)state;
    for (int i = 0; wn_recipe_at(i); i++) {
        assert_int_equal(sh_both("./winnow recipes %s", wn_recipe_at(i)->name), 0);
        char *kv = strstr(out, "--kv '"), *end = kv ? strchr(kv + 6, '\'') : NULL;
        wn_err err = { 0 };
        assert_non_null(end);
        *end = '\0';
        if (wn_policy_check(kv + 6, &err)) fail_msg("%s: %s", kv + 6, err.text);
    }
}

static void json_has_what_the_tables_have(void **state)
{
    (void)state;
    assert_int_equal(sh_both("./winnow recipes --json"), 0);
    json_t *j = json_loads(out, 0, NULL), *list = json_object_get(j, "recipes");
    assert_non_null(list);
    int n = 0;
    while (wn_recipe_at(n)) n++;
    assert_int_equal(json_array_size(list), n);
    for (int i = 0; i < n; i++) {
        static const char *const keys[] = { "family", "class", "at",     "at_default", "observes",
                                            "resume", "cost",  "source", "about" };
        const wn_recipe *r = wn_recipe_at(i);
        json_t *one = json_array_get(list, (size_t)i);
        assert_string_equal(json_string_value(json_object_get(one, "name")), r->name);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            assert_non_null(json_string_value(json_object_get(one, keys[k])));
        assert_int_equal(json_array_size(json_object_get(one, "params")), r->n_params + 6);
        assert_int_equal(json_is_true(json_object_get(one, "frees_memory")),
                         r->kind != WN_CLASS_FULL);
    }
    for (n = 0; wn_stage_at(n); n++) { }
    assert_int_equal(json_array_size(json_object_get(j, "stages")), n);
    assert_true(json_array_size(json_object_get(j, "formats")) >= 3);
    json_decref(j);
    assert_int_equal(sh_both("./winnow recipes snapkv --json"), 0);
    j = json_loads(out, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(j, "observes")), "last 32 queries");
    json_decref(j);
}

static void unknown_names_are_sentences(void **state)
{
    (void)state;
    assert_int_equal(sh_both("./winnow recipes snapkw"), 2);
    says("there is no recipe \"snapkw\"; there are none,");
    assert_int_equal(sh_both("./winnow recipes --no-such"), 2);
    assert_int_equal(sh_both("./winnow recipes --help"), 0);
    says("--policy-lib");
}

static void the_page_is_up_to_date(void **state)
{
    (void)state;
    if (sh_both(
            "{ cat docs/policies.in.md; ./winnow recipes --markdown; } | diff docs/policies.md -"))
        fail_msg(
            "docs/policies.md is not what `make docs` makes; run it. The differences:\n%.3000s",
            out);
}

/* ---- recipes from libraries ----------------------------------------------------------------- */

static void a_library_brings_a_recipe(void **state)
{
    (void)state;
    assert_int_equal(sh_both("./winnow recipes " LIB), 0);
    says("\nsparse ");
    assert_int_equal(sh_both("./winnow recipes sparse " LIB), 0);
    says("one token in so many is kept first");
    assert_int_equal(sh_both("./winnow run -m " MODEL
                             " -f models/aschenputtel.txt -n 4 --temp 0 " LIB
                             " --kv 'sparse(every=256,step=8)@25%%' --json -q"),
                     0);
    json_t *j = json_loads(out, 0, NULL);
    double kept = (double)json_integer_value(json_object_get(j, "kv_slots")) /
                  (double)json_integer_value(json_object_get(j, "kv_slots_full"));
    /* 25 % at the last boundary, and what came since */
    if (kept < 0.25 || kept > 0.35) fail_msg("%g of the slots are kept", kept);
    json_decref(j);
    assert_int_equal(sh_both("./winnow run -m " MODEL " -p x -n 1 -q --kv sparse"), 2);
    says("no cache policy \"sparse\"");
    assert_int_equal(sh_both("./winnow bench -m " MODEL " -d 64 -p 8 -n 1 -r 1 --csv " LIB
                             " --kv sparse+recover:compensate"),
                     0);
    assert_int_equal(
        sh_both("./winnow eval -m " MODEL
                " --kv sparse --context 256 --chunks 1 --tasks none --budget 50 --no-speed -q "
                "--no-resume " LIB),
        0);
    says("sparse");
}

static void wrong_libraries_are_sentences(void **state)
{
    (void)state;
    static const struct { const char *file, *what;
    } cases[] = {
        { "build/tests/plugins/old.so", "made for version" },
        { "build/tests/plugins/clash.so", "there is a recipe \"snapkv\" already" },
        { "build/tests/plugins/faulty.so",
          "recipe \"faulty\": parameter 1: its default is outside its range" },
        { "build/tests/plugins/other.so", "no symbol winnow_policy_plugin" },
        { "README.md", "README.md" },
        { "/nowhere/p.so", "/nowhere/p.so" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(sh_both("./winnow recipes --policy-lib %s", cases[i].file), 1);
        says(cases[i].what);
    }
}

/* What the header offers to libraries is what the program exports, and nothing else of ours. */
static void what_libraries_may_call_is_exported(void **state)
{
    (void)state;
    if (sh_both("grep -oE '\\bwn_(view|plan)_[a-z_]+\\(' include/winnow_policy.h | tr -d '(' | "
                "sort -u > build/offered; "
                "nm -D --defined-only winnow | awk '{ print $3 }' | grep '^wn_' | sort | diff "
                "build/offered -"))
        fail_msg("src/policy/exports.list is not what winnow_policy.h offers:\n%s", out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recipe_and_stage_is_listed),
        cmocka_unit_test(the_examples_are_policies),
        cmocka_unit_test(json_has_what_the_tables_have),
        cmocka_unit_test(unknown_names_are_sentences),
        cmocka_unit_test(the_page_is_up_to_date),
        cmocka_unit_test(a_library_brings_a_recipe),
        cmocka_unit_test(wrong_libraries_are_sentences),
        cmocka_unit_test(what_libraries_may_call_is_exported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
