/* Cases: the same seed gives the same bytes, lengths are kept, facts are there once and where depth
 * says, and every family can phrase every task. Tokens are bytes / 4 here. */
#include "eval/phrases.h"
#include "tests/unit/check.h"

#include "base/alloc.h"
#include "eval/tasks.h"

static size_t quarter(void *ctx, const char *text, size_t n)
{
    (void)ctx;
    (void)text;
    return (n + 3) / 4;
}

static wn_case_opts opts(uint64_t seed, int n_tokens, double depth)
{
    return (wn_case_opts){ .seed = seed, .n_tokens = n_tokens, .depth = depth, .count = quarter };
}

static wn_phrases *family(const char *name)
{
    wn_phrases *p;
    wn_err err;
    if (wn_phrases_open(&p, name, NULL, &err)) fail_msg("%s", err.text);
    return p;
}

static wn_case make(const wn_task *t, const wn_phrases *p, wn_case_opts o)
{
    wn_case c;
    wn_err err;
    if (t->make(&c, p, &o, &err)) fail_msg("%s", err.text);
    return c;
}

/* Everything a runner would see, as one string. */
static char *flat(const wn_case *c)
{
    size_t n = strlen(c->context) + 100;
    for (int i = 0; i < c->n_turns; i++) {
        n += strlen(c->turns[i].ask) + strlen(c->turns[i].after) + 100;
        for (int j = 0; j < c->turns[i].n_expect; j++) n += strlen(c->turns[i].expect[j]) + 2;
    }
    char *s = test_malloc(n), *w = s;
    w += sprintf(w, "%s\n%d", c->context, c->apart);
    for (int i = 0; i < c->n_turns; i++) {
        const wn_turn *t = &c->turns[i];
        w += sprintf(w, "\n%s|%s|%d|%d|", t->ask, t->after, t->max_new, (int)t->score);
        for (int j = 0; j < t->n_expect; j++) w += sprintf(w, "%s;", t->expect[j]);
    }
    return s;
}

static int times(const char *text, const char *word)
{
    int n = 0;
    const char *end = text + strlen(text);
    for (const char *s = text; (s = wn_word_find(text, s, end, word, true)); s++) n++;
    return n;
}

/* Protects: results can be repeated, on any machine, from the seed. */
static void same_seed_same_bytes(void **state)
{
    (void)state;
    wn_phrases *p = family("base"), *q = family("base");
    for (int i = 0; wn_tasks[i]; i++) {
        wn_case a = make(wn_tasks[i], p, opts(7, 1000, -1)),
                b = make(wn_tasks[i], q, opts(7, 1000, -1));
        wn_case c = make(wn_tasks[i], p, opts(8, 1000, -1));
        char *fa = flat(&a), *fb = flat(&b), *fc = flat(&c);
        assert_string_equal(fa, fb);
        assert_string_not_equal(fa, fc);
        assert_string_not_equal(a.turns[0].expect[0], c.turns[0].expect[0]);
        test_free(fa);
        test_free(fb);
        test_free(fc);
        wn_case_release(&a);
        wn_case_release(&b);
        wn_case_release(&c);
    }
    wn_phrases_close(p);
    wn_phrases_close(q);
}

/* Protects: the bytes of a case do not change unnoticed, or published figures would name other
 * questions. */
static void known_bytes(void **state)
{
    (void)state;
    wn_phrases *p = family("demo");
    wn_case c = make(wn_task_find("passkey"), p, opts(1, 300, 0.5));
    assert_string_equal(c.turns[0].ask,
                        "\n\nQuestion: What is the pass key?\nAnswer: The pass key is");
    assert_string_equal(c.turns[0].stop, "\n");
    assert_string_equal(c.turns[0].expect[0], "56786");
    wn_case_release(&c);
    wn_phrases_close(p);
}

static void check_length(const wn_task *t, const wn_case *c, int want)
{
    size_t rest = 0;
    for (int i = 0; i < c->n_turns; i++) {
        const wn_turn *u = &c->turns[i];
        size_t n = quarter(NULL, u->ask, strlen(u->ask)) + (size_t)u->max_new;
        if (i + 1 < c->n_turns && !c->apart) n += quarter(NULL, u->after, strlen(u->after));
        rest = c->apart ? WN_MAX(rest, n) : rest + n;
    }
    size_t n = quarter(NULL, c->context, strlen(c->context)) + rest;
    if (n > (size_t)want || (double)n < 0.98 * want)
        fail_msg("%s: %zu tokens, %d asked for", t->name, n, want);
}

/* Each expected value is said once (passkey's statement says it twice), and not in a question. */
static void check_answers(const char *fam, const wn_task *t, const wn_case *c)
{
    bool twice = t == &wn_task_passkey || (t == &wn_task_digits && !strcmp(fam, "demo"));
    for (int i = 0; i < c->n_turns; i++)
        for (int j = 0; j < c->turns[i].n_expect; j++) {
            const char *v = c->turns[i].expect[j];
            const char *text = t == &wn_task_toolcall ? strstr(v, "\"text\": \"") + 9 : v;
            char said[400];
            snprintf(said, sizeof said, "%.*s",
                     (int)(t == &wn_task_toolcall ? strcspn(text, "\"") : strlen(text)), text);
            if (times(c->context, said) != 1 + twice)
                fail_msg("%s %s: \"%s\" is said %d times", fam, t->name, said,
                         times(c->context, said));
            for (int k = 0; k < c->n_turns; k++)
                if (times(c->turns[k].ask, said))
                    fail_msg("%s %s: a question says \"%s\"", fam, t->name, said);
            assert_true(c->turns[i].max_new > (int)quarter(NULL, v, strlen(v)));
        }
}

static void check_facts(const char *fam, const wn_task *t, const wn_case *c)
{
    assert_true(c->n_turns >= 1);
    assert_int_equal(c->apart, t == &wn_task_questions);
    for (int i = 0; i < c->n_turns; i++) {
        assert_true(c->turns[i].n_expect >= 1);
        assert_non_null(c->turns[i].after);
        assert_null(strchr(c->turns[i].expect[0], '\n'));
        char full[1000] = "";
        size_t k = 0;
        for (int j = 0; j < c->turns[i].n_expect && t != &wn_task_list; j++)
            k += (size_t)snprintf(full + k, sizeof full - k, " %s,", c->turns[i].expect[j]);
        if (k) assert_true(wn_turn_score(&c->turns[i], full) == 1 || t == &wn_task_toolcall);
        assert_true(wn_turn_score(&c->turns[i], "nothing of the kind") == 0);
    }
    check_answers(fam, t, c);
}

/* Protects: every family phrases every task at every length, no case is longer than asked or much
 * shorter, and no answer can be had but from its fact. */
static void every_task_every_family(void **state)
{
    (void)state;
    const char *name;
    for (int f = 0; (name = wn_phrases_family(f)); f++) {
        wn_phrases *p = family(name);
        for (int i = 0; wn_tasks[i]; i++)
            for (int n = 256; n <= 8192; n *= 2)
                for (uint64_t seed = 0; seed < 4; seed++) {
                    wn_err err;
                    wn_case c;
                    wn_case_opts o = opts(seed, n, -1);
                    wn_status st = wn_tasks[i]->make(&c, p, &o, &err);
                    /* the long copies are the only ones that may not fit */
                    if (st == WN_ELIMIT && n < 512 && wn_tasks[i] == &wn_task_toolcall) continue;
                    if (st) fail_msg("%s %d: %s", name, n, err.text);
                    check_length(wn_tasks[i], &c, n);
                    check_facts(name, wn_tasks[i], &c);
                    wn_case_release(&c);
                }
        wn_phrases_close(p);
    }
}

/* Protects: results by depth mean what they say. A sentence of filler is a few hundred bytes. */
static void depth_is_where_the_fact_lies(void **state)
{
    (void)state;
    const char *name;
    for (int f = 0; (name = wn_phrases_family(f)); f++) {
        wn_phrases *p = family(name);
        for (int i = 0; wn_tasks[i]; i++)
            for (double depth = 0; depth <= 1 && wn_tasks[i]->has_depth; depth += 0.25) {
                /* a short list in the end */
                if (wn_tasks[i] == &wn_task_lookup && !strcmp(name, "demo")) continue;
                wn_case c = make(wn_tasks[i], p, opts(3, 8192, depth));
                const char *v = c.turns[0].expect[0];
                if (wn_tasks[i] == &wn_task_toolcall) v = "Note";
                size_t n = strlen(c.context);
                const char *at = wn_word_find(c.context, c.context, c.context + n, v, false);
                assert_non_null(at);
                double found = (double)(at - c.context) / (double)n;
                if (found < depth - 0.04 || found > depth + 0.04)
                    fail_msg("%s %s: depth %.2f asked for, found at %.3f", name, wn_tasks[i]->name,
                             depth, found);
                wn_case_release(&c);
            }
        wn_phrases_close(p);
    }
}

/* Protects: contexts longer than the haystack; it is read again from another sentence. */
static void longer_than_the_haystack(void **state)
{
    (void)state;
    wn_phrases *p = family("base");
    static const char *const some[] = { "needle", "multiturn", "lookup" };
    for (size_t i = 0; i < WN_COUNT(some); i++) {
        const wn_task *t = wn_task_find(some[i]);
        wn_case c = make(t, p, opts(1, 150000, 0.9));
        check_length(t, &c, 150000);
        check_facts("base", t, &c);
        wn_case_release(&c);
    }
    wn_phrases_close(p);
}

/* Protects: what is asked is what fits; facts grow with the length. */
static void facts_shrink_with_the_length(void **state)
{
    (void)state;
    wn_phrases *p = family("base");
    wn_case small = make(wn_task_find("list"), p, opts(1, 256, -1)),
            large = make(wn_task_find("list"), p, opts(1, 2048, -1));
    assert_true(small.turns[0].n_expect >= 2 && small.turns[0].n_expect < 12);
    assert_int_equal(large.turns[0].n_expect, 24);
    wn_case_release(&small);
    wn_case_release(&large);
    wn_phrases_close(p);
}

/* Protects: a length or depth that cannot be is refused with a sentence, not made up for. */
static void impossible_cases_are_refused(void **state)
{
    (void)state;
    wn_phrases *p = family("chat");
    wn_err err;
    for (int i = 0; wn_tasks[i]; i++) {
        wn_case c;
        wn_case_opts o = opts(1, 40, -1), deep = opts(1, 1000, 1.5), none = opts(1, -3, 0);
        assert_int_equal(wn_tasks[i]->make(&c, p, &o, &err), WN_ELIMIT);
        assert_non_null(strstr(err.text, "ask for a longer text"));
        assert_non_null(strstr(err.text, wn_tasks[i]->name));
        assert_null(c.context);
        assert_int_equal(wn_tasks[i]->make(&c, p, &none, &err), WN_ELIMIT);
        assert_int_equal(wn_tasks[i]->make(&c, p, &deep, &err), WN_EINVAL);
    }
    assert_null(wn_task_find("no such task"));
    wn_phrases_close(p);
}

/* Protects: markup stands around the turns as in a conversation, and only once. */
static void turns_are_marked(void **state)
{
    (void)state;
    wn_phrases *p = family("chat");
    wn_case c = make(wn_task_find("multiturn"), p, opts(1, 2000, -1));
    assert_int_equal(
        strncmp(c.context,
                "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
                73),
        0);
    assert_string_equal(c.context + strlen(c.context) - 11, "<|im_end|>\n");
    assert_non_null(strstr(
        c.context,
        "<|im_end|>\n<|im_start|>assistant\nI will remember that.<|im_end|>\n<|im_start|>user\n"));
    int open = 0;
    for (const char *s = c.context; (s = strstr(s, "<|im_start|>")); s++) open++;
    for (const char *s = c.context; (s = strstr(s, "<|im_end|>")); s++) open--;
    assert_int_equal(open, 0);
    for (int i = 0; i < c.n_turns; i++) {
        assert_int_equal(strncmp(c.turns[i].ask, "<|im_start|>user\n", 17), 0);
        assert_string_equal(c.turns[i].after, "<|im_end|>\n");
    }
    wn_case_release(&c);
    c = make(wn_task_find("needle"), p, opts(1, 2000, -1));
    assert_int_equal(strncmp(c.turns[0].ask, "\n\nWhat is the special magic number for ", 38), 0);
    assert_non_null(strstr(c.turns[0].ask,
                           "?<|im_end|>\n<|im_start|>assistant\nThe special magic number for "));
    wn_case_release(&c);
    wn_phrases_close(p);
}

/* Protects: an answer is not in the filler by chance, in none of the compiled-in families. */
static void haystack_holds_no_answers(void **state)
{
    (void)state;
    wn_phrases *p = family("base");
    static const char *const lists[] = { "name", "place", "word" };
    for (size_t i = 0; i < WN_COUNT(lists); i++)
        for (int j = 0, n = wn_phrases_n_words(p, lists[i], strlen(lists[i])); j < n; j++)
            assert_false(
                wn_phrases_in_haystack(p, wn_phrases_word(p, lists[i], strlen(lists[i]), j)));
    for (int i = 0; i < wn_phrases_n_pieces(p); i++) {
        wn_piece t = wn_phrases_piece(p, i);
        for (size_t j = 0; j < t.n; j++) assert_false(t.text[j] >= '0' && t.text[j] <= '9');
    }
    assert_true(wn_phrases_in_haystack(p, "Casaubon"));
    wn_phrases_close(p);
}

/* Protects: out of memory at any point is an error and no leak (asan looks). */
static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    static const char *const some[] = { "questions", "multiquery" };
    wn_phrases *p;
    wn_err err;
    for (int n = 1, fired = 1; fired; n++) {
        wn_fault_alloc(n);
        wn_status st = wn_phrases_open(&p, "demo", NULL, &err);
        fired = wn_fault_clear();
        assert_int_equal(st, fired ? WN_ENOMEM : WN_OK);
        wn_phrases_close(p);
    }
    p = family("base");
    for (size_t i = 0; i < WN_COUNT(some); i++)
        for (int n = 1, fired = 1; fired; n++) {
            wn_case c;
            wn_case_opts o = opts(1, 600, -1);
            wn_fault_alloc(n);
            wn_status st = wn_task_find(some[i])->make(&c, p, &o, &err);
            fired = wn_fault_clear();
            assert_int_equal(st, fired ? WN_ENOMEM : WN_OK);
            wn_case_release(&c);
        }
    wn_phrases_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_same_bytes),
        cmocka_unit_test(known_bytes),
        cmocka_unit_test(every_task_every_family),
        cmocka_unit_test(depth_is_where_the_fact_lies),
        cmocka_unit_test(longer_than_the_haystack),
        cmocka_unit_test(facts_shrink_with_the_length),
        cmocka_unit_test(impossible_cases_are_refused),
        cmocka_unit_test(turns_are_marked),
        cmocka_unit_test(haystack_holds_no_answers),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
