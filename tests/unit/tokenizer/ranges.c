/* Special tokens in a text of which some ranges are data. Protects what chat templates rest on: a
 * control token is one only where every byte of it is the template's, user-defined tokens are
 * ones everywhere, and everything else is tokenised as the whole text it is part of. */
#include "tests/unit/check.h"
#include "tests/unit/tokenizer/vocab.h"

typedef struct { const char *text; int32_t id; bool control; } special;
static const special specials[] = {
    { "<|endoftext|>", 265, true },
    { "<|end|>", 264, true },
    { "<tool>s", 267, false },
    { "<tool>", 266, false },
};

static bool in_range(size_t from, size_t to, const wn_range *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (from < r[i].to && r[i].from < to) return true;
    return false;
}

static size_t add(const wn_tokenizer *t, const char *text, size_t n, int32_t *ids)
{
    int32_t *got;
    size_t k;
    if (!n) return 0;
    assert_int_equal(wn_tokenize(t, text, n, &(wn_tokenize_opts){ .no_bos_eos = true }, &got, &k,
                                 NULL),
                     WN_OK);
    memcpy(ids, got, sizeof *ids * k);
    wn_free(got);
    return k;
}

/* The rule, said plainly: leftmost, then longest. */
static size_t by_rule(const wn_tokenizer *t, const char *text, size_t n, const wn_range *r,
                      size_t n_r, int32_t *ids)
{
    size_t k = 0, from = 0;
    for (size_t at = 0; at < n;) {
        const special *found = NULL;
        for (size_t i = 0; i < WN_COUNT(specials) && !found; i++) {  /* longer ones stand first */
            size_t len = strlen(specials[i].text);
            if (len <= n - at && !memcmp(text + at, specials[i].text, len) &&
                !(specials[i].control && in_range(at, at + len, r, n_r)))
                found = &specials[i];
        }
        if (!found) {
            at++;
            continue;
        }
        k += add(t, text + from, at - from, ids + k);
        ids[k++] = found->id;
        from = at += strlen(found->text);
    }
    return k + add(t, text + from, n - from, ids + k);
}

static void control_tokens_are_the_templates_alone(void **state)
{
    static const char *const pieces[] = {
        "<|end|>", "<|endoftext|>", "<tool>", "<tool>s", "<|", "end|>", "hello", " h", "<",
        "é",       "<tool",         ">s"
    };
    wn_gguf *g;
    wn_tokenizer *t;
    uint64_t seed = 5;
    int differ = 0;
    (void)state;
    assert_int_equal(test_bpe_open(&g, &t, "default", NULL), WN_OK);
    for (int round = 0; round < 20000; round++) {
        char text[400];
        wn_range r[20];
        int32_t want[400], *got;
        size_t n = 0, n_r = 0, n_got, n_want;
        for (int i = (int)(test_rand(&seed) % 12); i >= 0; i--)
            n += (size_t)sprintf(text + n, "%s", pieces[test_rand(&seed) % WN_COUNT(pieces)]);
        for (size_t at = test_rand(&seed) % 9; at < n && n_r < 20; n_r++) {
            r[n_r].from = at;
            r[n_r].to = at = WN_MIN(n, at + 1 + test_rand(&seed) % 12);
            at += 1 + test_rand(&seed) % 12;
        }
        n_want = by_rule(t, text, n, r, n_r, want);
        wn_tokenize_opts o = { .no_bos_eos = true, .parse_special = true, .plain = r,
                               .n_plain = n_r };
        assert_int_equal(wn_tokenize(t, text, n, &o, &got, &n_got, NULL), WN_OK);
        if (n_got != n_want || memcmp(got, want, sizeof *got * n_got))
            fail_msg("round %d: \"%s\" with %zu ranges", round, text, n_r);
        wn_free(got);
        differ += n_want != by_rule(t, text, n, r, 0, want);
    }
    assert_true(differ > 1000);         /* the ranges did matter */
    wn_tokenizer_close(t);
    wn_gguf_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(control_tokens_are_the_templates_alone) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
