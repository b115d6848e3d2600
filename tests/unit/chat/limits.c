/* A template is a stranger's program: whatever it does, it ends soon, within its memory, with a
 * sentence that says where. And no failed allocation is taken for success. */
#include "base/alloc.h"
#include "base/os.h"
#include "chat/template.h"
#include "tests/unit/check.h"

static wn_status render(const char *source, const wn_render_opts *o, wn_chat_text *r, wn_err *err)
{
    wn_template *t;
    wn_status st = wn_template_open(&t, source, strlen(source), err);
    if (!st) st = wn_template_render(t, o, r, err);
    wn_template_close(t);
    return st;
}

static void check_fails(const char *source, wn_status want, const char *says)
{
    wn_chat_text r = { 0 };
    wn_err err = { 0 };
    wn_status st = render(source, &(wn_render_opts){ .max_steps = 1000000, .max_memory = 64 << 20,
                                                     .max_out = 1 << 20 }, &r, &err);
    if (st != want || !strstr(err.text, says))
        fail_msg("%.80s: status %d, \"%s\"; expected %d, \"%s\"", source, st, err.text, want, says);
    assert_null(r.text);
}

static void failures_say_where(void **state)
{
    (void)state;
    check_fails("a\nb {{ x.y }}", WN_EINVAL, "line 2, column 8: 'x' is undefined");
    check_fails("é{{ x.y }}", WN_EINVAL, "line 1, column 7: 'x' is undefined");
    check_fails("{% for m in messages %}\n{% if m %}\n", WN_EINVAL,
                "line 2, column 1: this block has no end {% endif %}");
    check_fails("\n\n  {{ 'abc }}", WN_EINVAL,
                "line 3, column 6: the string that begins here has no end");
    check_fails("{{ 1 // 0 }}", WN_EINVAL, "line 1, column 6: integer division or modulo by zero");
    check_fails("{{ 'a'|nope }}", WN_EINVAL, "there is no filter 'nope'");
    check_fails("{% include 'x' %}", WN_EINVAL, "there is no statement 'include' here");
    check_fails("{{ raise_exception('roles \x1b must alternate') }}", WN_EINVAL,
                "the template refuses this conversation: roles ? must");
    check_fails("{{ 9223372036854775807 + 1 }}", WN_EINVAL, "too large");
    check_fails("{{ -9223372036854775807 - 2 }}", WN_EINVAL, "too large");
    check_fails("{{ 99999999999999999999 }}", WN_EINVAL, "too large");
    check_fails("\xff", WN_EINVAL, "byte 0 of the template is not UTF-8");
}

/* Each would run or grow for ever, or as good as, in an interpreter without walls. */
static void what_does_not_end_is_ended(void **state)
{
    static const char *const greedy[] = {
        "{% for a in range(1000000000) %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set l = [1] %}{% for x in l %}{% set _ = l.append(x) %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for a in range(1000) %}{% set ns.s = ns.s + ns.s %}{% "
        "endfor %}",
        "{% set ns = namespace(s='xy') %}{% for a in range(1000) %}{% set ns.s = ns.s|replace('x', "
        "ns.s) %}{% endfor %}",
        "{{ 'x' * 100000000000 }}",
        "{{ [0] * 100000000000 }}",
        "{{ 'abc'|center(100000000000) }}",
        "{{ 'abc'|indent(100000000000, true) }}",
        "{{ '%99999999999d' % 1 }}",
        "{{ '{:>99999999999}'.format(1) }}",
        "{{ 2 ** 99999999999 }}",
        "{{ [1]|batch(99999999999, 'x')|list }}",
        "{{ [1]|slice(99999999999)|list }}",
        "{% set l = [] %}{% set _ = l.append(l) %}{{ l }}",
        "{% set l = [] %}{% set _ = l.append(l) %}{{ l|tojson }}",
        "{% set l = [] %}{% set _ = l.append(l) %}{% set m = [] %}{% set _ = m.append(m) %}{{ l == "
        "m }}",
        "{% set d = {} %}{% set _ = d.update(a=d) %}{{ d }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% macro m() %}{% call m() %}{% endcall %}{{ caller() }}{% endmacro %}{% call m() %}{% "
        "endcall %}",
        "{% for a in range(100000) %}{% for b in 'abcdefgh' * 1000 %}{% endfor %}{% endfor %}",
        "{{ range(10000000)|map('string')|join }}",
        "{{ 'a'|tojson(indent=99999999999) }}{{ [1]|tojson(indent=99999999999) }}",
        "{{ ('x' * 900000)|map('replace', 'x', 'y' * 900000)|list }}",
        "{% set s = 'a' * 500000 %}{% for i in range(100000) %}{{ s.find('b') }}{% endfor %}",
        "{% set s = 'a' * 500000 %}{% for i in range(100000) %}{{ s[400000] }}{% endfor %}",
        "{% set s = 'a' * 500000 %}{% for i in range(100000) %}{{ s == s + '' }}{% endfor %}",
        "{% set d = dict() %}{% for i in range(10000000) %}{% set _ = d.update({i: i}) %}{% endfor "
        "%}",
    };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(greedy); i++) {
        wn_chat_text r = { 0 };
        wn_err err = { 0 };
        wn_status st = render(greedy[i], &(wn_render_opts){ .max_memory = 64 << 20 }, &r, &err);
        if (st != WN_EINVAL && st != WN_ELIMIT) fail_msg("%s: ended with status %d", greedy[i], st);
        if (strlen(err.text) < 20) fail_msg("%s: no sentence: \"%s\"", greedy[i], err.text);
    }
}

static void endless_loops_say_so(void **state)
{
    (void)state;
    check_fails("{% set l = [1] %}\n{% for x in l %}{% set _ = l.append(x) %}{% endfor %}",
                WN_EINVAL, "does not come to an end");
    check_fails("{% for a in range(2000) %}{% for b in range(2000) %}{% if a == -1 or b == -2 or a "
                "== -3 or b == -4 %}{% endif %}{% endfor %}{% endfor %}",
                WN_EINVAL, "does not come to an end");
    check_fails("{% set s = 'x' * 1000 %}{% for a in range(9999) %}{{ s }}{% endfor %}", WN_ELIMIT,
                "writes more than the 1 MiB it may");
    check_fails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", WN_EINVAL, "nested more than");
    check_fails("{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s + ns.s "
                "%}{% endfor %}",
                WN_ELIMIT, "memory it may use");
}

/* Depth of what is parsed, and of the tree that long chains of operators make. */
static void deep_sources_are_refused_or_rendered(void **state)
{
    static const struct { const char *open, *close, *inner;
    } kinds[] = {
        { "(", ")", "1" },           { "[", "]", "1" },          { "{1:", "}", "1" },
        { "not ", "", "1" },         { "-", "", "1" },           { "f(", ")", "1" },
        { "x[", "]", "1" },          { "1+", "", "1" },          { "1~", "", "1" },
        { "1 if 1 else ", "", "1" }, { "", "|string", "1" },     { "", ".a", "x" },
        { "", "[0]", "x" },          { "", " is defined", "x" }, { "1 or ", "", "1" },
        { "1 == ", "", "1" },        { "", "()", "x" },
    };
    (void)state;
    for (size_t k = 0; k < WN_COUNT(kinds); k++)
        for (int n = 10; n <= 30000; n *= 10) {
            size_t a = strlen(kinds[k].open), b = strlen(kinds[k].close);
            char *s = malloc(16 + (a + b) * (size_t)n), *p = s;
            wn_chat_text r;
            wn_err err = { 0 };
            p += sprintf(p, "{{ ");
            for (int i = 0; i < n; i++) p += sprintf(p, "%s", kinds[k].open);
            p += sprintf(p, "%s", kinds[k].inner);
            for (int i = 0; i < n; i++) p += sprintf(p, "%s", kinds[k].close);
            sprintf(p, " }}");
            wn_status st = render(s, &(wn_render_opts){ 0 }, &r, &err);
            if (st && strlen(err.text) < 20) fail_msg("%s x %d: no sentence", kinds[k].open, n);
            wn_chat_text_release(&r);
            free(s);
        }
    char *s = malloc(200000), *p = s;
    for (int i = 0; i < 10000; i++) p += sprintf(p, "{%% if 1 %%}");
    check_fails(s, WN_EINVAL, "nested more than");
    free(s);
}

/* Appending piece by piece costs the pieces, not their square: a long conversation put together
 * by a template is within the walls. */
static void long_texts_are_put_together_cheaply(void **state)
{
    wn_chat_text r;
    wn_err err = { 0 };
    (void)state;
    const char
        *source = "{% set ns = namespace(s='') %}{% for i in range(20000) %}{% set ns.s = ns.s + "
                  "'some words of a turn, and then some more of it ' ~ i %}{% endfor %}{{ ns.s }}";
    if (render(source, &(wn_render_opts){ 0 }, &r, &err)) fail_msg("%s", err.text);
    assert_true(r.n > 900000);
    wn_chat_text_release(&r);
}

static void every_failed_allocation_is_survived(void **state)
{
    int fired = 1;
    (void)state;
    json_t *vars = json_pack("{s:[{s:s,s:s}]}", "messages", "role", "user", "content", "hello");
    for (int n = 1; fired && n < 100; n++) {
        wn_chat_text r = { 0 };
        wn_err err = { 0 };
        wn_fault_alloc(n);
        wn_status st = render("{% for m in messages %}{{ m.content }}{% endfor %}",
                              &(wn_render_opts){ .vars = vars }, &r, &err);
        fired = wn_fault_clear();
        assert_int_equal(st, fired ? WN_ENOMEM : WN_OK);
        wn_chat_text_release(&r);
    }
    assert_false(fired);
    json_decref(vars);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_say_where),
        cmocka_unit_test(what_does_not_end_is_ended),
        cmocka_unit_test(endless_loops_say_so),
        cmocka_unit_test(deep_sources_are_refused_or_rendered),
        cmocka_unit_test(long_texts_are_put_together_cheaply),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
