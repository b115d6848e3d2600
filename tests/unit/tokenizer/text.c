/* Text in and out of small vocabularies: special tokens, broken UTF-8, the space in
 * front, streaming. Protects: user text cannot spell a control token; every text comes
 * back byte for byte; no half character ever leaves a stream. */
#include <pthread.h>

#include "tests/unit/check.h"
#include "tests/unit/tokenizer/vocab.h"

typedef struct {
    wn_gguf *g;
    wn_tokenizer *t;
} model;

static model open_bpe(const char *pre)
{
    model m;
    assert_int_equal(test_bpe_open(&m.g, &m.t, pre, NULL), WN_OK);
    return m;
}

static model open_spm(int space_prefix)
{
    model m;
    assert_int_equal(test_spm_open(&m.g, &m.t, space_prefix, NULL), WN_OK);
    return m;
}

static void close_model(model m)
{
    wn_tokenizer_close(m.t);
    wn_gguf_close(m.g);
}

/* want ends with -1 */
static void check_ids(model m, const char *text, wn_tokenize_opts o, const int32_t *want)
{
    int32_t *ids;
    size_t n, k = 0;
    assert_int_equal(wn_tokenize(m.t, text, strlen(text), &o, &ids, &n, NULL), WN_OK);
    assert_non_null(ids);
    for (; want[k] >= 0; k++)
        if (k >= n || ids[k] != want[k])
            fail_msg("\"%s\": id %zu is %d, not %d", text, k, k < n ? ids[k] : -1, want[k]);
    assert_int_equal(n, k);
    wn_free(ids);
}
#define IDS(...) ((const int32_t[]){ __VA_ARGS__, -1 })
#define NOTHING ((const int32_t[]){ -1 })
#define PLAIN ((wn_tokenize_opts){ .no_bos_eos = true })
#define PARSE ((wn_tokenize_opts){ .no_bos_eos = true, .parse_special = true })

static void check_round_trip(model m, const char *text, size_t n)
{
    int32_t *ids;
    size_t n_ids, n_back;
    assert_int_equal(wn_tokenize(m.t, text, n, &PLAIN, &ids, &n_ids, NULL), WN_OK);
    char *back = test_bytes(m.t, ids, n_ids, &n_back);
    assert_int_equal(n_back, n);
    assert_memory_equal(back, text, n);
    for (size_t i = 0; i < n_ids; i++) assert_false(wn_tokenizer_is_special(m.t, ids[i]));
    free(back);
    wn_free(ids);
}

static void special_tokens_of_byte_level_bpe(void **state)
{
    (void)state;
    model m = open_bpe("gpt-2");
    check_ids(m, "hello", PLAIN, IDS(261));
    check_ids(m, "", PLAIN, NOTHING);
    /* control tokens only when asked; user-defined ones always, the longest first */
    check_ids(m, "<|end|>", PLAIN, IDS('<', '|', 'e', 'n', 'd', '|', '>'));
    check_ids(m, "<|end|>", PARSE, IDS(264));
    check_ids(m, "aa<|end|>aa<|endoftext|><|end", PARSE,
              IDS(256, 264, 256, 265, '<', '|', 'e', 'n', 'd'));
    check_ids(m, "<tool>s<tool> <tool", PLAIN, IDS(267, 266, ' ', '<', 't', 'o', 'o', 'l'));
    assert_true(wn_tokenizer_is_end(m.t, 264));
    assert_true(wn_tokenizer_is_end(m.t, 265));
    assert_false(wn_tokenizer_is_end(m.t, 266));
    assert_true(wn_tokenizer_is_special(m.t, 264));
    assert_false(wn_tokenizer_is_special(m.t, 266));
    assert_false(wn_tokenizer_is_special(m.t, -5));
    assert_false(wn_tokenizer_is_special(m.t, 1 << 20));
    assert_int_equal(wn_tokenizer_find(m.t, "<|end|>", 7), 264);
    assert_int_equal(wn_tokenizer_find(m.t, "nowhere", 7), -1);
    assert_int_equal(wn_tokenizer_find(m.t, "", 0), -1);
    close_model(m);
}

static void bos_by_pattern(void **state)
{
    (void)state;
    model plain = open_bpe("gpt-2"), llama = open_bpe("llama-bpe"), spm = open_spm(0);
    assert_false(wn_tokenizer_add_bos(plain.t));
    assert_true(wn_tokenizer_add_bos(llama.t));
    assert_true(wn_tokenizer_add_bos(spm.t));
    assert_int_equal(wn_tokenizer_bos(llama.t), 265);
    assert_int_equal(wn_tokenizer_eos(llama.t), 264);
    check_ids(llama, "he", (wn_tokenize_opts){ 0 }, IDS(265, 258));
    check_ids(plain, "he", (wn_tokenize_opts){ 0 }, IDS(258));
    check_ids(spm, "", (wn_tokenize_opts){ 0 }, IDS(1));
    close_model(plain);
    close_model(llama);
    close_model(spm);
}

/* "aaaa" is a token and its merge is the last rule; with "aa" alone before it, only a whole
 * look-up gives it where the merges are missing. */
static void whole_pieces_come_first_for_llama_bpe(void **state)
{
    static char room[256 * 3];
    const char *tokens[257], *merges[] = { "a b" };
    (void)state;
    test_byte_tokens(tokens, room);
    tokens[256] = "xyz";
    for (int whole = 0; whole < 2; whole++) {
        model m;
        assert_int_equal(test_vocab_open(&m.g, &m.t, &(test_vocab){ .model = "gpt2",
                         .pre = whole ? "llama-bpe" : "qwen2", .tokens = tokens, .n = 257,
                         .merges = merges, .n_merges = 1 }, NULL), WN_OK);
        if (whole) check_ids(m, "xyz", PLAIN, IDS(256));
        else check_ids(m, "xyz", PLAIN, IDS('x', 'y', 'z'));
        close_model(m);
    }
}

static void spm_spaces_bytes_and_control_tokens(void **state)
{
    (void)state;
    model m = open_spm(0), bare = open_spm(-1);
    check_ids(m, "ab", PLAIN, IDS(259, 266));           /* "ab" has the better score */
    check_ids(bare, "ab", PLAIN, IDS(266));
    check_ids(m, " a", PLAIN, IDS(259, 268));
    check_ids(m, "", PLAIN, NOTHING);
    check_ids(m, "\xC3\xA9\n", PLAIN, IDS(259, 271, 3 + '\n'));
    check_ids(m, "\xC3", PLAIN, IDS(259, 3 + 0xC3));
    /* text cannot spell </s>, though its halves are tokens */
    check_ids(bare, "</s>", PLAIN, IDS(264, 265));
    check_ids(bare, "</s>", PARSE, IDS(2));
    /* a space again after a control token, not after a user-defined one */
    check_ids(m, "a</s>a", PARSE, IDS(268, 2, 268));
    check_ids(m, "a<t>a", PLAIN, IDS(268, 272, 260));
    close_model(m);
    close_model(bare);
}

static const char *const broken[] = {
    "\xFF",
    "\x80",
    "abc\xC3",
    "\xE2\x82",
    ("\xE2\x82"
     "a"),
    "\xC0\xAF",
    "\xED\xA0\x80",
    "\xF4\x90\x80\x80",
    "\xF0\x9F\xA6",
    "a\xF0\x9F\xA6 \xF0\x9F\xA6\x99",
    "\xC3\xA9\xC3 \xA9",
    "hello\xFE\xFE world",
};

static void broken_utf8_comes_back(void **state)
{
    (void)state;
    static const char *const names[] = { "default", "gpt-2", "llama-bpe", "qwen2", "deepseek-coder",
                                         "starcoder", "smaug-bpe" };
    static const char alphabet[] = "ahel \n'<\xC3\xA9\xE2\x82\xAC\xF0\x9F\xA6\x99\xFF" "19.\t";
    uint64_t seed = 11;
    for (size_t k = 0; k <= WN_COUNT(names); k++) {
        model m = k < WN_COUNT(names) ? open_bpe(names[k]) : open_spm(-1);
        for (size_t i = 0; i < WN_COUNT(broken); i++)
            check_round_trip(m, broken[i], strlen(broken[i]));
        check_round_trip(m, "a\0b\0", 4);
        for (int round = 0; round < 300; round++) {
            char text[64];
            size_t n = test_rand(&seed) % sizeof text;
            for (size_t i = 0; i < n; i++)
                text[i] = alphabet[test_rand(&seed) % (sizeof alphabet - 1)];
            check_round_trip(m, text, n);
        }
        close_model(m);
    }
}

/* ---- streaming ------------------------------------------------------------------ */

/* Pushes one id a byte, and checks what comes out after each. */
static void check_stream(model m, const char *bytes, const char *want)
{
    char buf[256], out[256] = "";
    size_t at = 0, max = wn_detok_max(m.t);
    wn_detok d;
    assert_true(max <= sizeof buf);
    wn_detok_init(&d, m.t, false);
    for (size_t i = 0; bytes[i]; i++) {
        size_t n = wn_detok_push(&d, (unsigned char)bytes[i], buf, sizeof buf);
        memcpy(out + at, buf, n);
        at += n;
        assert_true(d.n_wait <= 3);
        /* whole characters only: what is out is a prefix of what is wanted, cut between two */
        assert_memory_equal(out, want, at);
        assert_true((want[at] & 0xC0) != 0x80);
    }
    at += wn_detok_end(&d, out + at, sizeof out - at);
    out[at] = 0;
    assert_string_equal(out, want);
}

static void a_stream_never_shows_half_a_character(void **state)
{
    (void)state;
    /* In this vocabulary token b is byte b. */
    model m = open_bpe("gpt-2");
    check_stream(m, "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\xA6\x99z",
                 "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\xA6\x99z");
    check_stream(m, "\xC3", "\xEF\xBF\xBD");
    check_stream(m, "\xF0\x9F\xA6", "\xEF\xBF\xBD");
    check_stream(m, "\xF0\x9F\xA6z", "\xEF\xBF\xBDz");
    check_stream(m, "\xE2\x82\xE2\x82\xAC", "\xEF\xBF\xBD\xE2\x82\xAC");
    check_stream(m, "\xC0\xAF\xFF", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    check_stream(m, "\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    close_model(m);
}

/* However a text is cut into tokens, the same comes out. Token 263 is the bytes E2 82. */
static void splits_do_not_change_the_stream(void **state)
{
    (void)state;
    model m = open_bpe("gpt-2");
    static const int32_t whole[] = { 263, 0xAC, 'x', 263, 263, 0xAC, 261 };
    static const int32_t apart[] = { 0xE2, 0x82, 0xAC, 'x', 0xE2, 0x82, 0xE2, 0x82, 0xAC,
                                     'h', 'e', 'l', 'l', 'o' };
    size_t n, k;
    char *a = test_decode(m.t, whole, WN_COUNT(whole), false, &n);
    char *b = test_decode(m.t, apart, WN_COUNT(apart), false, &k);
    assert_int_equal(n, k);
    assert_memory_equal(a, b, n);
    assert_memory_equal(a, "\xE2\x82\xACx\xEF\xBF\xBD\xE2\x82\xAC" "hello", n);
    free(a);
    free(b);
    close_model(m);
}

static void special_tokens_show_when_asked(void **state)
{
    (void)state;
    model m = open_bpe("gpt-2");
    static const int32_t ids[] = { 264, 'h', 99999, -1, 266, 265 };
    size_t n;
    char *s = test_decode(m.t, ids, WN_COUNT(ids), false, &n), buf[4];
    assert_int_equal(n, 7);
    assert_memory_equal(s, "h<tool>", n);
    free(s);
    s = test_decode(m.t, ids, WN_COUNT(ids), true, &n);
    assert_int_equal(n, 7 + 7 + 13);
    assert_memory_equal(s, "<|end|>h<tool><|endoftext|>", n);
    free(s);
    /* wn_token_bytes: the length whatever the room, and no byte beyond it */
    memset(buf, '#', sizeof buf);
    assert_int_equal(wn_token_bytes(m.t, 261, false, buf, 3), 5);
    assert_memory_equal(buf, "hel#", 4);
    assert_int_equal(wn_token_bytes(m.t, 264, false, NULL, 0), 0);
    assert_int_equal(wn_token_bytes(m.t, 264, true, NULL, 0), 7);
    assert_int_equal(wn_token_bytes(m.t, 1 << 30, true, NULL, 0), 0);
    close_model(m);
}

static void the_space_in_front_is_taken_off(void **state)
{
    (void)state;
    model m = open_spm(0), bare = open_spm(-1);
    static const char *const texts[] = { "a",     " a", "  a b",          "ab",
                                         "\n",    " ",  "\xC3\xA9 <t> a", "<t>a",
                                         "a</s>b" };
    for (size_t i = 0; i < WN_COUNT(texts); i++)
        for (int k = 0; k < 2; k++) {
            int32_t *ids;
            size_t n, n_back;
            model x = k ? bare : m;
            assert_int_equal(wn_tokenize(x.t, texts[i], strlen(texts[i]), &PARSE, &ids, &n, NULL),
                             0);
            char *back = test_decode(x.t, ids, n, true, &n_back);
            if (n_back != strlen(texts[i]) || memcmp(back, texts[i], n_back) != 0)
                fail_msg("\"%s\" comes back as \"%.*s\"", texts[i], (int)n_back, back);
            free(back);
            wn_free(ids);
        }
    close_model(m);
    close_model(bare);
}

/* One tokenizer, several threads: all get what one gets (for the thread sanitizer, too). */
typedef struct {
    const wn_tokenizer *t;
    int32_t *ids;
    size_t n;
} job;

static void *encode_often(void *arg)
{
    static const char text[] = "hello hello aaaa <|end|> 12 \xE2\x82\xAC 'tis\n\n";
    job *j = arg;
    for (int i = 0; i < 200; i++) {
        wn_free(j->ids);
        j->ids = NULL;
        if (wn_tokenize(j->t, text, sizeof text, NULL, &j->ids, &j->n, NULL)) break;
    }
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    (void)state;
    model m = open_bpe("llama-bpe");
    job jobs[3] = { { .t = m.t }, { .t = m.t }, { .t = m.t } };
    pthread_t threads[2];
    encode_often(&jobs[2]);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &jobs[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) {
        assert_non_null(jobs[i].ids);
        assert_int_equal(jobs[i].n, jobs[2].n);
        assert_memory_equal(jobs[i].ids, jobs[2].ids, jobs[2].n * sizeof(int32_t));
    }
    for (int i = 0; i < 3; i++) wn_free(jobs[i].ids);
    close_model(m);
}

/* ASCII tokens by a list; of others, quotes and dashes are punctuation, letters and half characters
 * are not. */
static void check_punctuation(const wn_tokenizer *t)
{
    int found = 0;
    for (int32_t id = -1; id <= wn_tokenizer_n_vocab(t); id++) {
        char b[1024];
        size_t n = wn_token_bytes(t, id, true, b, sizeof b);
        bool want = false, ascii = true;
        for (size_t i = 0; i < n; i++) ascii &= (unsigned char)b[i] < 128;
        if (!ascii) continue;
        for (size_t i = 0; i < n; i++) want |= b[i] != ' ';
        for (size_t i = 0; i < n; i++) want &= b[i] && strchr(" !\"#%&'()*,-./:;?@[\\]_{}", b[i]);
        want &= !wn_tokenizer_is_special(t, id);
        if (wn_tokenizer_is_punctuation(t, id) != want)
            fail_msg("token %d, \"%.*s\"", id, (int)n, b);
        found += want;
    }
    assert_true(found > 20);
}

static void punctuation_is_told_from_words(void **state)
{
    (void)state;
    wn_err err;
    model m = open_spm(1);
    check_punctuation(m.t);
    assert_false(wn_tokenizer_is_punctuation(m.t, 3 + 0xe2));   /* the first byte of a dash */
    assert_false(wn_tokenizer_is_punctuation(m.t, 271));        /* an e with an accent */
    close_model(m);
    if (wn_gguf_open(&m.g, "models/winnow-demo.gguf", &err) || wn_tokenizer_open(&m.t, m.g, &err))
        fail_msg("%s", err.text);
    check_punctuation(m.t);
    int32_t *ids;
    size_t n;
    /* a quote, if it is one token */
    assert_int_equal(wn_tokenize(m.t, "\xe2\x80\x9c", 3, &PLAIN, &ids, &n, NULL), WN_OK);
    assert_int_equal(wn_tokenizer_is_punctuation(m.t, ids[n - 1]), n == 1);
    wn_free(ids);
    close_model(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(special_tokens_of_byte_level_bpe),
        cmocka_unit_test(bos_by_pattern),
        cmocka_unit_test(whole_pieces_come_first_for_llama_bpe),
        cmocka_unit_test(spm_spaces_bytes_and_control_tokens),
        cmocka_unit_test(broken_utf8_comes_back),
        cmocka_unit_test(a_stream_never_shows_half_a_character),
        cmocka_unit_test(splits_do_not_change_the_stream),
        cmocka_unit_test(special_tokens_show_when_asked),
        cmocka_unit_test(the_space_in_front_is_taken_off),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(punctuation_is_told_from_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
