/* The text of a policy: what is good, what is wrong and where, and that a policy and its
 * canonical text say the same (forks and sessions go by the text). */
#include "tests/unit/check.h"

#include "base/err.h"
#include "policy/policy.h"

/* Parsed, and parsed again from its own canonical text: the same policy in every field. */
static wn_policy good(const char *text)
{
    wn_policy p, q;
    wn_err err = { 0 };
    if (wn_policy_parse(&p, text, &err)) fail_msg("%s: %s", text, err.text);
    if (wn_policy_parse(&q, p.text, &err)) fail_msg("%s, from %s: %s", p.text, text, err.text);
    assert_string_equal(p.text, q.text);
    assert_ptr_equal(p.recipe, q.recipe);
    assert_memory_equal(p.v, q.v, sizeof p.v);
    assert_int_equal(p.at, q.at);
    assert_int_equal(p.every, q.every);
    assert_int_equal(p.first, q.first);
    assert_int_equal(p.last, q.last);
    assert_int_equal(p.budget_kind, q.budget_kind);
    assert_memory_equal(&p.budget, &q.budget, sizeof p.budget);
    assert_string_equal(p.k, q.k);
    assert_string_equal(p.v_format, q.v_format);
    assert_int_equal(p.n_rules, q.n_rules);
    assert_memory_equal(p.rules, q.rules, sizeof p.rules);
    assert_int_equal(p.lag, q.lag);
    return p;
}

/* Refused, with every one of these (separated by |) in the sentence. */
static void bad(const char *text, const char *says)
{
    wn_policy p;
    wn_err err = { 0 };
    assert_int_equal(wn_policy_parse(&p, text, &err), WN_EINVAL);
    while (*says) {
        char part[80];
        size_t n = strcspn(says, "|");
        snprintf(part, sizeof part, "%.*s", (int)n, says);
        if (!strstr(err.text, part))
            fail_msg("%s: \"%s\" does not say \"%s\"", text, err.text, part);
        says += n + (says[n] == '|');
    }
}

static void good_texts(void **state)
{
    (void)state;
    wn_policy p = good("recent");
    assert_string_equal(p.text, "v1:recent(sinks=4,window=1024,at=boundary,every=512,first=0,last="
                                "0,system=off,special=off)");
    p = good("  v1: recent ( window = 32 , sinks=0 ) @ 25% , k = f16 , v=bf16 ");
    assert_string_equal(p.text, "v1:recent(sinks=0,window=32,at=boundary,every=512,first=0,last=0,"
                                "system=off,special=off)@25%,k=f16,v=bf16");
    assert_int_equal(p.budget_kind, WN_BUDGET_SHARE);
    assert_true(p.budget == 0.25);
    p = good("recent()");
    assert_int_equal(p.budget_kind, WN_BUDGET_NONE);
    p = good("random(at=both,every=64,first=4,last=16)@2048");
    assert_int_equal(p.at, WN_AT_BOUNDARY | WN_AT_MARK);
    assert_int_equal(p.every, 64);
    assert_int_equal(p.budget_kind, WN_BUDGET_SLOTS);
    assert_true(p.budget == 2048);
    assert_int_equal(good("random(at=mark)@1").at, WN_AT_MARK);
    assert_string_equal(good("none").text,
                        "v1:none(at=boundary,every=512,first=0,last=0,system=off,special=off)");
    assert_true(good("none,k=f32").budget_kind == WN_BUDGET_NONE);
    for (int i = 0; wn_recipe_at(i); i++) {
        good(wn_recipe_at(i)->name);
        assert_ptr_equal(wn_recipe_find(wn_recipe_at(i)->name), wn_recipe_at(i));
    }
    assert_null(wn_recipe_at(-1));
}

/* The formats that the lanes of a model with 4 layers of 2 heads have: one letter for each,
 * layer by layer; h f16, b bf16, s f32. */
static void lanes_are(const char *text, const char *k, const char *v)
{
    wn_policy p = good(text);
    for (int of_v = 0; of_v < 2; of_v++)
        for (int i = 0; i < 8; i++) {
            const wn_format *f = &wn_format_f16;
            wn_err err = { 0 };
            if (wn_policy_format_at(&p, of_v, i / 2, 4, i % 2, 2, &f, &err))
                fail_msg("%s: %s", text, err.text);
            char got = f == &wn_format_f16 ? 'h' : f == &wn_format_bf16 ? 'b' : 's';
            if (got != (of_v ? v : k)[i])
                fail_msg("%s: lane %d has %s for %s", text, i, f->name, of_v ? "V" : "K");
        }
}

static void formats_of_lanes(void **state)
{
    (void)state;
    lanes_are("none", "hhhhhhhh", "hhhhhhhh");
    lanes_are("none,k=bf16", "bbbbbbbb", "hhhhhhhh");
    lanes_are("none,kv=bf16,k[0]=f32", "ssbbbbbb", "bbbbbbbb");
    lanes_are("none,k[0..1,-1]=f32,v[-2..-1]=bf16", "sssshhss", "hhhhbbbb");
    lanes_are("none,kv[1:0]=f32,v[0..-1:1]=bf16", "hhshhhhh", "hbsbhbhb");
    lanes_are("none,k[1..2]=f32,k[2]=bf16", "hhssbbhh", "hhhhhhhh");     /* the last that fits */
    /* the bare key is for the others */
    lanes_are("none,k[1]=f32,k=bf16", "bbssbbbb", "hhhhhhhh");
    assert_string_equal(good("none,v=bf16,kv[ 0, -1 : 0..1 ]=f32,lag=3").text,
                        "v1:none(at=boundary,every=512,first=0,last=0,system=off,special=off),v="
                        "bf16,k[0]=f32,v[0]=f32,k[-1:0..1]=f32,"
                        "v[-1:0..1]=f32,lag=3");
    assert_string_equal(good("none,lag=0").text, good("none").text);
    bad("none,k=q77", "\"q77\" is unknown|f16, bf16, f32");
    bad("none,k[0=f16", "\"]\"");
    bad("none,k[]=f16", "layers, as in k[0]");
    bad("none,k[0..]=f16", "k[0..]|expected layers and heads");
    bad("none,k[:1]=f16", "expected layers and heads");
    bad("none,k[1:]=f16", "expected layers and heads");
    bad("none,k[1;2]=f16", "\"]\"");
    bad("none,k[99999]=f16", "expected layers and heads");
    bad("none,k[0]=f16,k[0]=f32", "each key once");
    bad("none,lag=x", "pages stay raw");
    bad("none,lag[0]=1", "no key \"lag[]\"");
    const wn_format *f = NULL;
    wn_err err = { 0 };
    wn_policy p = good("none,k[40]=f32");
    assert_int_equal(wn_policy_format_at(&p, false, 0, 32, 0, 8, &f, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "no layer 40, the model has 0 to 31"));
    p = good("none,v[0:-9]=f32");
    assert_int_equal(wn_policy_format_at(&p, true, 0, 32, 0, 8, &f, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "no head -9"));
    p = good("none,v[3..2]=f32");
    assert_int_equal(wn_policy_format_at(&p, true, 0, 32, 0, 8, &f, &err), WN_EINVAL);
}

static void budgets(void **state)
{
    (void)state;
    static const struct { const char *text; double bytes;
    } sizes[] = { { "random@64MiB", 64 << 20 },
                  { "random@64M", 64 << 20 },
                  { "random@64mb", 64 << 20 },
                  { "random@1.5k", 1536 },
                  { "random@1.0001kB", 1024 },
                  { "random@2GiB", 2.0 * (1 << 30) },
                  { "random@1B", 1 },
                  { "random@1000000000000000B", 1e15 },
                  { "random@900000G", 900000.0 * (1 << 30) } };
    for (size_t i = 0; i < WN_COUNT(sizes); i++) {
        wn_policy p = good(sizes[i].text);
        assert_int_equal(p.budget_kind, WN_BUDGET_BYTES);
        if (p.budget != sizes[i].bytes) fail_msg("%s: %.17g bytes", sizes[i].text, p.budget);
    }
    assert_true(good("random@100%").budget == 1);
    assert_true(good("random@1e2%").budget == 1);
    assert_true(good("random@.5%").budget == 0.005);
    assert_true(good("random@1000000000000000").budget == 1e15);
    good("random@33.33333333333333333333%");
    good("random@0.000000123456789123%");
    bad("random@", "expected a budget|the end");
    bad("random@x", "character 8|expected a budget");
    bad("random@.", "whole number of slots");
    bad("random@-1", "expected a budget");
    bad("random@nan", "expected a budget");
    bad("random@1e16", "expected a budget");
    bad("random@1e400%", "expected a budget");
    bad("random@0%", "above 0%");
    bad("random@101%", "up to 100%");
    bad("random@0", "whole number of slots");
    bad("random@2.5", "whole number of slots");
    bad("random@0.0001k", "1 byte");
    bad("random@1000000G", "petabyte");
    bad("random@5%5%", "character 10");
    bad("random@64MiBx", "\"x\"");
    bad("none@50%", "none keeps everything and takes no budget");
    bad("keepall@1", "keepall keeps everything");
}

static void wrong_places(void **state)
{
    (void)state;
    bad("", "character 1|the end|the name of a recipe");
    bad("v1:", "character 4|the name of a recipe");
    bad("@5", "\"@5\" (character 1)|the name of a recipe");
    bad("recent(", "the name of a parameter");
    bad("recent(sinks", "character 13|= and a value");
    bad("recent(sinks=", "a value");
    bad("recent(sinks=4", "\",\" or \")\"");
    bad("recent(sinks=4,)", "\")\" (character 16)|the name of a parameter");
    bad("recent(sinks=4,sinks=5)", "each parameter once");
    bad("recent)x", "\")x\" (character 7)|the end");
    bad("recent,", "a key");
    bad("recent,k", "= and a value");
    bad("recent,k=", "a value");
    bad("recent,k=f16,k=f32", "each key once");
    bad("recent+", "a stage");
    bad("recent+alloc", "\":\" and a method");
    bad("recent+alloc:", "a method");
    bad("recent@5,k=f16@6", "\"@6\"");
    bad("re\xc3\xa9" "cent", "character 3");
}

static void wrong_words(void **state)
{
    (void)state;
    bad("resent", "no cache policy \"resent\"|none|keepall|random|recent");
    for (int i = 0; wn_recipe_at(i); i++) bad("resent", wn_recipe_at(i)->name);
    bad("recent(sink=4)",
        "recent has no parameter \"sink\"; it has sinks, window, at, every, first, last");
    bad("none(sinks=4)", "none has no parameter|at, every");
    bad("recent(sinks=4.5)", "recent(sinks=4.5)|whole number");
    bad("recent(sinks=four)", "whole number");
    bad("recent(sinks=-1)", "expected 0 to 1.04858e+06");
    bad("recent(window=0)", "expected 1 to");
    bad("recent(every=0)", "expected 1 to");
    bad("recent(sinks=nan)", "expected a whole number");
    bad("recent(sinks=1e999)", "expected a whole number");
    bad("recent(at=start)", "expected one of boundary|mark|both");
    bad("recent,z=f16", "no key \"z\"; there are k, v and kv");
    bad("recent,k=f16(x=1)", "takes no parameters");
    bad("recent,k=f16f16f16f16f16f16", "is unknown: there are f16");
    bad("recent+alloc:ada", "+alloc:ada: recent makes whole plans and takes no stages");
}

/* Numbers beyond six digits, exponents: what is written is read again. */
static void numbers_survive(void **state)
{
    (void)state;
    assert_true(good("random(seed=4294967295)").v[0] == 4294967295.0);
    assert_true(good("random(seed=1e6)").v[0] == 1e6);
    assert_true(good("random(seed=4e+9)").v[0] == 4e9);
    assert_true(good("recent(window=1073741824,every=1048576,first=1048576,last=1048576)").v[1] ==
                1 << 30);
    uint64_t rng = 5;
    for (int i = 0; i < 2000; i++) {
        wn_policy p = good("random"), q;
        wn_err err = { 0 };
        double share = (double)(test_rand(&rng) % 1000000 + 1) /
                       (double)(1000000 + test_rand(&rng) % 1000000);
        if (wn_policy_set_share(&p, share, &err)) fail_msg("%s", err.text);
        if (wn_policy_parse(&q, p.text, &err)) fail_msg("%s: %s", p.text, err.text);
        assert_memory_equal(&p.budget, &q.budget, sizeof p.budget);
        assert_true(p.budget > share * (1 - 1e-8) && p.budget < share * (1 + 1e-8));
    }
    wn_policy p = good("random"), none = good("none");
    assert_int_equal(wn_policy_set_share(&p, 0, NULL), WN_EINVAL);
    assert_int_equal(wn_policy_set_share(&p, 1.5, NULL), WN_EINVAL);
    assert_int_equal(wn_policy_set_share(&none, 0.5, NULL), WN_EINVAL);
}

static void lengths_at_the_limits(void **state)
{
    (void)state;
    char text[1000];
    wn_spec s;
    wn_err err = { 0 };
    /* one long word, and as many words as fit */
    for (int n = WN_SPEC_BYTES - 3; n <= WN_SPEC_BYTES + 1; n++) {
        memset(text, 'a', (size_t)n);
        text[n] = '\0';
        assert_int_equal(wn_spec_parse(&s, text, &err), n < WN_SPEC_BYTES ? WN_OK : WN_EINVAL);
        if (n >= WN_SPEC_BYTES) assert_non_null(strstr(err.text, "399 characters"));
        else assert_int_equal(strlen(s.head.name), n);
    }
    size_t k = (size_t)sprintf(text, "a(");
    for (int i = 0; i < WN_SPEC_PARAMS; i++)
        k += (size_t)sprintf(text + k, "%sp%d=%d", i ? "," : "", i, i);
    sprintf(text + k, ")");
    assert_int_equal(wn_spec_parse(&s, text, &err), WN_OK);
    assert_int_equal(s.head.n_params, WN_SPEC_PARAMS);
    assert_string_equal(s.head.params[WN_SPEC_PARAMS - 1].value, "23");
    sprintf(text + k, ",more=1)");
    assert_int_equal(wn_spec_parse(&s, text, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "fewer parameters"));
    k = (size_t)sprintf(text, "a");
    for (int i = 0; i < WN_SPEC_STAGES; i++) k += (size_t)sprintf(text + k, "+s:m%d(x=%d)", i, i);
    for (int i = 0; i < WN_SPEC_KEYS; i++) k += (size_t)sprintf(text + k, ",k%d=v", i);
    assert_int_equal(wn_spec_parse(&s, text, &err), WN_OK);
    assert_string_equal(s.stages[7].call.params[0].value, "7");
    assert_string_equal(s.keys[7].key, "k7");
    sprintf(text + k, ",k9=v");
    assert_int_equal(wn_spec_parse(&s, text, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "fewer keys"));
    assert_int_equal(wn_spec_parse(&s, "a+b:c+b:c+b:c+b:c+b:c+b:c+b:c+b:c+b:c", &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "fewer stages"));
    static const char all[] =
        "snapkv+alloc:ada(floor=0.2)+recover:d2o@20%,k=q4,v=q4,select=quest(pages=32)";
    assert_int_equal(wn_spec_parse(&s, all, &err), WN_OK);
    assert_string_equal(s.keys[2].value.params[0].name, "pages");
    assert_string_equal(s.stages[1].call.name, "d2o");
}

/* Every prefix of a long good text, and the text with any one byte changed: parsed or
 * refused with a sentence, and what is parsed survives its canonical text. */
static void damaged_texts(void **state)
{
    (void)state;
    static const char whole[] =
        "v1:recent(sinks=4,window=1024,at=both,every=64,first=2,last=8)@12.5%,k=f16,v=bf16";
    static const char bytes[] = "(),=+@:%.-1xZ \t\x80";
    char text[sizeof whole];
    for (size_t n = 0; n < sizeof whole; n++)
        for (size_t b = 0; b < sizeof bytes; b++) {
            wn_policy p;
            wn_err err = { 0 };
            memcpy(text, whole, sizeof whole);
            text[n] = n + 1 < sizeof whole ? bytes[b] : '\0';
            if (wn_policy_parse(&p, text, &err) == WN_OK) good(text);
            else assert_true(err.status == WN_EINVAL && strlen(err.text) > 10);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_texts),
        cmocka_unit_test(formats_of_lanes),
        cmocka_unit_test(budgets),
        cmocka_unit_test(wrong_places),
        cmocka_unit_test(wrong_words),
        cmocka_unit_test(numbers_survive),
        cmocka_unit_test(lengths_at_the_limits),
        cmocka_unit_test(damaged_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
