/* Where each pre-tokenizer pattern cuts, against another regular-expression engine with the
 * patterns as the models' own files have them (tests/golden/pretok.py made pretok.txt and
 * pretok.cuts). Protects the table of patterns, which real vocabularies' vectors cover in part. */
#include "tests/unit/tokenizer/vectors.h"
#include "tokenizer/vocab.h"

typedef struct {
    const char *line, *name;
    int text;
} expected;

static wn_status next_piece(void *ctx, const char *s, size_t n, wn_err *err)
{
    expected *x = ctx;
    char *end;
    long want = strtol(x->line, &end, 10);
    (void)err;
    if (end == x->line || want != (long)n)
        fail_msg("%s, text %d: a piece of %zu bytes \"%.*s\", not of %ld", x->name, x->text, n,
                 (int)n, s, want);
    x->line = end;
    return WN_OK;
}

static void patterns_cut_as_their_models_do(void **state)
{
    static const char separator[] = "\n__winnow_text__\n";
    size_t n_text = 0, n_cuts = 0;
    int n_patterns = 0;
    char *texts = test_read_file("tests/golden/pretok.txt", &n_text),
         *cuts = test_read_file("tests/golden/pretok.cuts", &n_cuts);
    (void)state;
    assert_non_null(texts);
    assert_non_null(cuts);
    for (char *line = cuts; *line; n_patterns++) {
        char *eol = strchr(line, '\n'), *text = texts, *end;
        wn_pretok *p;
        bool whole, bos;
        wn_err err;
        *eol = 0;
        expected x = { .name = line };
        if (wn_pretok_open(&p, (wn_str){ line, strlen(line) }, &whole, &bos, &err))
            fail_msg("%s", err.text);
        do {
            x.line = eol + 1;
            eol = strchr(x.line, '\n');
            assert_non_null(eol);
            *eol = 0;
            end = memmem(text, n_text - (size_t)(text - texts), separator, sizeof separator - 1);
            size_t n = (size_t)((end ? end : texts + n_text) - text);
            assert_int_equal(wn_pretok_cut(p, text, n, next_piece, &x, &err), WN_OK);
            if (x.line[strspn(x.line, " ")])
                fail_msg("%s, text %d: pieces are missing: %s", x.name, x.text, x.line);
            x.text++;
            if (end) text = end + sizeof separator - 1;
        } while (end);
        wn_pretok_close(p);
        line = eol + 1;
    }
    assert_int_equal(n_patterns, 24);
    free(texts);
    free(cuts);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(patterns_cut_as_their_models_do) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
