/* tests/unit/tokenizer/vectors.h - texts and the ids they must give, and come back from. */
#ifndef WN_TEST_VECTORS_H
#define WN_TEST_VECTORS_H

#include "tests/unit/check.h"
#include "tests/unit/tokenizer/vocab.h"

/* A whole file, NUL-terminated; NULL when it cannot be read. */
static inline char *test_read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *p = NULL;
    long size;
    if (!f) return NULL;
    if (fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0 && (p = malloc((size_t)size + 1))) {
        rewind(f);
        *n = fread(p, 1, (size_t)size, f);
        p[*n] = 0;
    }
    fclose(f);
    return p;
}

static inline void check_vector(const wn_tokenizer *t, const char *text, size_t n,
                                const char *line, int number)
{
    int32_t *ids;
    size_t n_ids, k = 0, n_back;
    assert_int_equal(wn_tokenize(t, text, n, &(wn_tokenize_opts){ .no_bos_eos = true }, &ids,
                                 &n_ids, NULL), WN_OK);
    for (char *end;; line = end, k++) {
        long want = strtol(line, &end, 10);
        if (end == line) break;
        if (k >= n_ids || ids[k] != want)
            fail_msg("text %d: id %zu is %d, not %ld", number, k, k < n_ids ? ids[k] : -1, want);
    }
    if (k != n_ids) fail_msg("text %d: %zu ids, not %zu", number, n_ids, k);
    char *back = test_decode(t, ids, n_ids, false, &n_back);
    if (n_back != n || memcmp(back, text, n) != 0)
        fail_msg("text %d comes back as \"%.*s\"", number, (int)n_back, back);
    free(back);
    wn_free(ids);
}

/* Texts in text_path, a line "separator" of its own between them; one line of ids for each
 * in ids_path. Returns how many texts there were. */
static inline int check_vectors(const wn_tokenizer *t, const char *text_path, const char *ids_path,
                                const char *separator)
{
    size_t n_text = 0, n_ids = 0, n_sep = strlen(separator);
    char *texts = test_read_file(text_path, &n_text), *ids = test_read_file(ids_path, &n_ids);
    int number = 0;
    assert_non_null(texts);
    assert_non_null(ids);
    char *text = texts, *line = ids;
    while (*line) {
        char *end = memmem(text, n_text - (size_t)(text - texts), separator, n_sep);
        char *eol = strchr(line, '\n');
        size_t n = (size_t)((end ? end : texts + n_text) - text);
        assert_non_null(eol);
        *eol = 0;
        check_vector(t, text, n, line, number++);
        line = eol + 1;
        if (!end) break;
        text = end + n_sep;
    }
    assert_int_equal(*line, 0);         /* as many lines as texts */
    free(texts);
    free(ids);
    return number;
}

static inline void open_model_file(const char *path, wn_gguf **g, wn_tokenizer **t)
{
    wn_err err;
    if (wn_gguf_open(g, path, &err)) fail_msg("%s: %s", path, err.text);
    if (wn_tokenizer_open(t, *g, &err)) fail_msg("%s: %s", path, err.text);
}

#endif
