/* Fuzzes tokenising: any bytes, every pre-tokenizer pattern and both families, over small
 * vocabularies that hold all 256 bytes. Then every text comes back byte for byte, no plain
 * text becomes a special token, and what a stream shows is the same however it is cut.
 *
 * The first byte chooses the vocabulary and whether special tokens are parsed. */
#include "tests/unit/tokenizer/vocab.h"

#include "tokenizer/utf8.h"

static const char *const patterns[] = { "default", "gpt-2", "llama-bpe", "qwen2", "deepseek-coder",
                                        "starcoder", "smaug-bpe", "" };
enum { N_PATTERNS = 8 };

static wn_tokenizer *vocabulary(unsigned which)
{
    static wn_tokenizer *opened[N_PATTERNS];
    static wn_gguf *files[N_PATTERNS];
    which %= N_PATTERNS;
    if (!opened[which] && (patterns[which][0]
            ? test_bpe_open(&files[which], &opened[which], patterns[which], NULL)
            : test_spm_open(&files[which], &opened[which], -1, NULL)))
        abort();
    return opened[which];
}

static void check(int holds)
{
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    /* SentencePiece reads U+2581 as a space: such a text comes back with spaces. */
    if ((data[0] & 7) == N_PATTERNS - 1 && memmem(data, size, "\xE2\x96\x81", 3)) return 0;
    const wn_tokenizer *t = vocabulary(data[0] & 7);
    bool special = data[0] & 8;
    const char *text = (const char *)data + 1;
    size_t n = size - 1, n_ids, n_back, n_shown, at = 0, valid = 0;
    int32_t *ids;
    wn_tokenize_opts o = { .parse_special = special, .no_bos_eos = true };
    check(wn_tokenize(t, text, n, &o, &ids, &n_ids, NULL) == WN_OK);
    check(n_ids <= n);
    char *back = malloc(n + 1);
    if (!back) abort();
    for (size_t i = 0; i < n_ids; i++) {
        check(ids[i] >= 0 && ids[i] < wn_tokenizer_n_vocab(t));
        check(special || !wn_tokenizer_is_special(t, ids[i]));
        at += wn_token_bytes(t, ids[i], true, back + at, n - at);
        check(at <= n);
    }
    check(at == n && memcmp(back, text, n) == 0);
    /* The stream: valid UTF-8, and the text itself where that is valid. */
    char *shown = test_decode(t, ids, n_ids, true, &n_shown);
    for (size_t i = 0; i < n_shown;) {
        wn_utf8 u = wn_utf8_at(shown + i, n_shown - i);
        check(u.is == WN_UTF8_CHAR);
        i += u.n;
    }
    while (valid < n) {
        wn_utf8 u = wn_utf8_at(text + valid, n - valid);
        if (u.is != WN_UTF8_CHAR) break;
        valid += u.n;
    }
    check(n_shown >= valid && memcmp(shown, text, valid) == 0);
    check(valid < n || n_shown == n);
    /* Byte by byte through the same stream (token b of the byte-level ones is byte b). */
    if ((data[0] & 7) != N_PATTERNS - 1) {
        int32_t *bytes = malloc((n + 1) * sizeof *bytes);
        if (!bytes) abort();
        for (size_t i = 0; i < n; i++) bytes[i] = (unsigned char)text[i];
        char *again = test_decode(t, bytes, n, true, &n_back);
        check(n_back == n_shown && memcmp(again, shown, n_shown) == 0);
        free(again);
        free(bytes);
    }
    free(shown);
    free(back);
    wn_free(ids);
    return 0;
}
