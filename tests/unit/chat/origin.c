/* Where each byte of a rendered text came from: the template, or whoever filled it in. A special
 * token that a user spells must stay text however the template turned, cut, joined or escaped
 * it, and the template's own tokens must stay tokens. */
#include "chat/template.h"
#include "tests/unit/check.h"

/* marks: what is data in the text that comes out, as 'd' under each byte; the rest as '.'. */
static void check(const char *source, const char *vars, const char *text, const char *marks)
{
    wn_template *t;
    wn_chat_text r;
    wn_err err = { 0 };
    char got[1000];
    json_t *j = json_loads(vars, 0, NULL);
    assert_non_null(j);
    json_t *trusted = json_pack("{s:s}", "bos_token", "<s>");
    if (wn_template_open(&t, source, strlen(source), &err)) fail_msg("%s: %s", source, err.text);
    if (wn_template_render(t, &(wn_render_opts){ .vars = j, .trusted = trusted }, &r, &err))
        fail_msg("%s: %s", source, err.text);
    assert_string_equal(r.text, text);
    memset(got, '.', r.n);
    got[r.n] = '\0';
    for (size_t i = 0, end = 0; i < r.n_plain; i++) {
        assert_true(r.plain[i].from < r.plain[i].to && r.plain[i].to <= r.n &&
                    (!i || r.plain[i].from > end));
        end = r.plain[i].to;
        memset(got + r.plain[i].from, 'd', end - r.plain[i].from);
    }
    if (strcmp(got, marks))
        fail_msg("%s\n  text  %s\n  got   %s\n  want  %s", source, text, got, marks);
    wn_chat_text_release(&r);
    wn_template_close(t);
    json_decref(j);
    json_decref(trusted);
}

static void data_is_what_came_in(void **state)
{
    (void)state;
    check("<a>{{ x }}<b>", "{\"x\": \"<q>\"}", "<a><q><b>", "...ddd...");
    check("{{ bos_token }}{{ x }}", "{\"x\": \"<s>\"}", "<s><s>", "...ddd");
    check("{{ '<' + x + '>' }}{{ x ~ 1 ~ x }}", "{\"x\": \"q\"}", "<q>q1q", ".d.d.d");
    check("{{ m.k }}{% for k in m %}{{ k }}{% endfor %}", "{\"m\": {\"k\": \"v\"}}", "vk", "dd");
    check("{{ n }}{{ t }}{{ z }}", "{\"n\": 12, \"t\": true, \"z\": null}", "12TrueNone",
          "..........");
}

static void origin_survives_every_way_of_handling_text(void **state)
{
    static const struct { const char *expr, *text, *marks;
    } ways[] = {
        { "x|trim", "<Q a", "dddd" },
        { "x|upper", " <Q A ", "dddddd" },
        { "x|lower|title", " <Q A ", "dddddd" },
        { "x[1:3]", "<Q", "dd" },
        { "x[::-1]", " a Q< ", "dddddd" },
        { "'[' ~ x[1] ~ ']'", "[<]", ".d." },
        { "x|replace('Q', '_')", " <_ a ", "dd.ddd" },
        { "'a-b'|replace('-', x)", "a <Q a b", ".dddddd." },
        { "x.split('Q')|join('|')", " <| a ", "dd.ddd" },
        { "x.split()", "['<Q', 'a']", "..dd....d.." },
        { "x|tojson", "\" <Q a \"", ".dddddd." },
        { "{'k': x}|tojson", "{\"k\": \" <Q a \"}", ".......dddddd.." },
        { "[x]|string", "[' <Q a ']", "..dddddd.." },
        { "'%s!' % x", " <Q a !", "dddddd." },
        { "'{}!'.format(x)", " <Q a !", "dddddd." },
        { "x.strip().center(6, '*')", "*<Q a*", ".dddd." },
        { "('a\nb' ~ x)|indent(1)", "a\n b <Q a ", "....dddddd" },
        { "x|list|join", " <Q a ", "dddddd" },
        { "x|reverse", " a Q< ", "dddddd" },
        { "x|e", " &lt;Q a ", "d....dddd" },
        { "[x, 'b']|map('trim')|join(',')", "<Q a,b", "dddd.." },
        { "x|first ~ x|last", "  ", "dd" },
        { "x.partition('Q')[0]", " <", "dd" },
        { "x|truncate(5, true, '..', 0)", " <Q..", "ddd.." },
        { "(x ~ '\n')|string", " <Q a \n", "dddddd." },
        { "x|default('d')", " <Q a ", "dddddd" },
        { "x|wordwrap(3)", "<Q\na", "dd.d" },
        { "x|urlencode", "%20%3CQ%20a%20", "dddddddddddddd" },
        { "x * 2", " <Q a  <Q a ", "dddddddddddd" },
        { "x.removeprefix(' ')|capitalize", "<q a ", "ddddd" },
        { "[x]|groupby(0)|first|first", " ", "d" },
        { "({'a': x}|dictsort)[0][1]", " <Q a ", "dddddd" },
        { "namespace(v=x).v", " <Q a ", "dddddd" },
    };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(ways); i++) {
        char source[200];
        snprintf(source, sizeof source, "{{ %s }}", ways[i].expr);
        check(source, "{\"x\": \" <Q a \"}", ways[i].text, ways[i].marks);
    }
    check("{% set y %}a{{ x }}b{% endset %}{{ y }}", "{\"x\": \"q\"}", "aqb", ".d.");
    check("{% macro m(v) %}<{{ v }}>{% endmacro %}{{ m(x) }}{{ m('t') }}", "{\"x\": \"q\"}",
          "<q><t>", ".d....");
    check("{% filter upper %}a{{ x }}{% endfilter %}", "{\"x\": \"q\"}", "AQ", ".d");
    check("{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}{{ x }}{% endcall %}",
          "{\"x\": \"q\"}", "[q]", ".d.");
}

/* A prefix shared by two strings that grow apart: appending in place must not mix them up. */
static void strings_that_grow_apart_stay_apart(void **state)
{
    (void)state;
    check("{% set a = 'x' + y %}{% set b = a + '1' %}{% set c = a + y %}{% set d = b + '2' %}{{ a "
          "}} {{ b }} {{ c }} {{ d }} {{ a + '3' }}",
          "{\"y\": \"q\"}", "xq xq1 xqq xq12 xq3", ".d..d...dd..d....d.");
    check("{% set a = '' %}{% for i in range(3) %}{% set b = a ~ i %}{{ b }}{% endfor %}", "{}",
          "012", "...");
    check("{% set a = 'p' ~ 'q' %}{% set b = a ~ a %}{{ b ~ b ~ a }}", "{}", "pqpqpqpqpq",
          "..........");
}

/* Templates put roles into special tokens: '<|' + message.role + '|>'. */
static void known_roles_are_trusted(void **state)
{
    (void)state;
    check("{% for m in messages %}<|{{ m.role }}|>{% endfor %}",
          "{\"messages\": [{\"role\": \"user\"}, {\"role\": \"assistant\"}]}",
          "<|user|><|assistant|>", ".....................");
    check("{% for m in messages %}<|{{ m.role }}|>{% endfor %}",
          "{\"messages\": [{\"role\": \"im_end\"}, {\"role\": \"user|>\"}]}",
          "<|im_end|><|user|>|>", "..dddddd....dddddd..");
    check("{{ x }}{{ messages[0].content }}",
          "{\"x\": \"user\", \"messages\": [{\"content\": \"user\"}]}", "useruser", "dddddddd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_is_what_came_in),
        cmocka_unit_test(origin_survives_every_way_of_handling_text),
        cmocka_unit_test(strings_that_grow_apart_stay_apart),
        cmocka_unit_test(known_roles_are_trusted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
