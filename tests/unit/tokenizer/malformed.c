/* Vocabularies that are not what they should be. Each is refused with a sentence naming
 * the key, or has the safe meaning stated here; none crashes, and no failed allocation
 * leaks or is taken for success. */
#include <math.h>

#include "tests/unit/check.h"
#include "tests/unit/tokenizer/vocab.h"

#define N 258
static char room[256 * 3];
static const char *tokens[N];
static int32_t types[N];
static float scores[N];
static const char *merges[] = { "a b" };

/* A sound vocabulary, for the tests to spoil. */
static test_vocab sound(const char *model)
{
    test_byte_tokens(tokens, room);
    tokens[256] = "ab";
    tokens[257] = "<s>";
    for (int i = 0; i < N; i++) {
        types[i] = i == 257 ? 3 : 1;
        scores[i] = 0;
    }
    merges[0] = "a b";
    return (test_vocab){ .model = model, .pre = "gpt-2", .tokens = tokens, .n = N, .types = types,
                         .scores = scores, .merges = merges, .n_merges = 1 };
}

static void check_refused(const test_vocab *v, wn_status want, const char *part)
{
    wn_gguf *g;
    wn_tokenizer *t;
    wn_err err = { 0 };
    wn_status st = test_vocab_open(&g, &t, v, &err);
    if (st != want || !strstr(err.text, part))
        fail_msg("status %d, \"%s\" instead of %d and \"%s\"", st, err.text, want, part);
    assert_null(t);
    wn_gguf_close(g);
}

/* Opens, and encodes "abc" to what it should be with the mended meaning. */
static void check_means(const test_vocab *v, const int32_t *want, size_t n_want)
{
    wn_gguf *g;
    wn_tokenizer *t;
    wn_err err = { 0 };
    int32_t *ids;
    size_t n;
    if (test_vocab_open(&g, &t, v, &err)) fail_msg("%s", err.text);
    assert_int_equal(wn_tokenize(t, "abc", 3, &(wn_tokenize_opts){ .no_bos_eos = true }, &ids, &n,
                                 NULL), WN_OK);
    assert_int_equal(n, n_want);
    assert_memory_equal(ids, want, n * sizeof *ids);
    wn_free(ids);
    wn_tokenizer_close(t);
    wn_gguf_close(g);
}
#define MEANS(v, ...) check_means(v, (const int32_t[]){ __VA_ARGS__ }, \
                                  WN_COUNT(((const int32_t[]){ __VA_ARGS__ })))

static void missing_keys_are_named(void **state)
{
    (void)state;
    test_vocab v = sound(NULL);
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.model");
    v = sound("gpt2"), v.tokens = NULL;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.tokens");
    v = sound("gpt2"), v.merges = NULL;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.merges");
    v = sound("llama"), v.scores = NULL;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.scores");
    v = sound("gpt2"), v.n = 0;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.tokens");
    v = sound("bert");
    check_refused(&v, WN_EUNSUPPORTED, "known are gpt2 and llama");
    v = sound("gpt2"), v.pre = "no\x1B[31msuch";
    check_refused(
        &v, WN_EUNSUPPORTED,
        "\"no?[31msuch\"; if the model's is that of another, give it its name: default, gpt-2");
}

static void put_types_as_floats(wn_gguf_writer *w)
{
    static const float f[N];
    wn_gguf_put_f32s(w, "tokenizer.ggml.token_type", f, N);
}
static void put_scores_as_int(wn_gguf_writer *w) { wn_gguf_put_u32(w, "tokenizer.ggml.scores", 7); }
static void put_tokens_as_ints(wn_gguf_writer *w)
{
    static const int32_t i[4];
    wn_gguf_put_i32s(w, "tokenizer.ggml.tokens", i, 4);
}
static void put_merges_as_ints(wn_gguf_writer *w)
{
    static const int32_t i[4];
    wn_gguf_put_i32s(w, "tokenizer.ggml.merges", i, 4);
}
static void put_pre_as_int(wn_gguf_writer *w) { wn_gguf_put_u32(w, "tokenizer.ggml.pre", 1); }
static void put_add_bos_as_string(wn_gguf_writer *w)
{
    wn_gguf_put_string(w, "tokenizer.ggml.add_bos_token", "yes");
}

static void wrong_types_and_lengths_are_named(void **state)
{
    (void)state;
    test_vocab v = sound("gpt2");
    v.n_types = N - 1;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.token_type has 257 elements for 258 tokens");
    v = sound("gpt2"), v.types = NULL, v.more = put_types_as_floats;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.token_type");
    v = sound("gpt2"), types[5] = 77;
    check_refused(&v, WN_EFORMAT, "token 5 has type 77");
    v = sound("gpt2"), types[5] = -1;
    check_refused(&v, WN_EFORMAT, "token 5 has type -1");
    v = sound("llama"), v.n_scores = 3;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.scores has 3 elements");
    v = sound("llama"), v.scores = NULL, v.more = put_scores_as_int;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.scores");
    v = sound("gpt2"), v.tokens = NULL, v.more = put_tokens_as_ints;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.tokens");
    v = sound("gpt2"), v.merges = NULL, v.more = put_merges_as_ints;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.merges");
    v = sound("gpt2"), v.pre = NULL, v.more = put_pre_as_int;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.pre");
    v = sound("gpt2"), v.more = put_add_bos_as_string;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.add_bos_token");
}

static void numbers_that_are_none_are_refused(void **state)
{
    static const float bad[] = { NAN, -NAN };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(bad); i++) {
        test_vocab v = sound("llama");
        scores[9] = bad[i];
        check_refused(&v, WN_EFORMAT, "tokenizer.ggml.scores: the score of token 9");
    }
    test_vocab v = sound("llama");
    v.space_prefix = -1, scores[256] = -INFINITY;       /* the worst score is still a score */
    MEANS(&v, 256, 'c');
    scores[256] = INFINITY;
    MEANS(&v, 256, 'c');
}

static void byte_tokens_must_be_bytes(void **state)
{
    static const char *const bad[] = { "<0x-1>", "<0xZZ>", "<0x1>",  "<0x123>", "<0x00",
                                       "",       "a",      "<0X41>", "<0x 1>",  "<0x+1>" };
    (void)state;
    for (size_t i = 0; i < 2 * WN_COUNT(bad); i++) {
        test_vocab v = sound(i % 2 ? "llama" : "gpt2");
        tokens[7] = bad[i / 2];
        types[7] = 6;
        check_refused(&v, WN_EFORMAT, "tokenizer.ggml.tokens: token 7 is typed byte");
    }
}

static void ids_outside_the_vocabulary_are_named(void **state)
{
    (void)state;
    test_vocab v = sound("gpt2");
    v.bos = N;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.bos_token_id");
    v = sound("llama"), v.eos = 0xFFFFFFFFll;
    check_refused(&v, WN_EFORMAT, "tokenizer.ggml.eos_token_id");
    v = sound("gpt2"), v.bos = N - 1;
    MEANS(&v, 256, 'c');
}

static void merges_are_two_parts_and_a_space(void **state)
{
    static const char *const bad[] = { "ab", "", " ", "a ", " b" };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(bad); i++) {
        test_vocab v = sound("gpt2");
        merges[0] = bad[i];
        check_refused(&v, WN_EFORMAT, "tokenizer.ggml.merges: merge 0");
    }
    /* parts or results that are no tokens, or control tokens: such a merge means nothing */
    static const char *const idle[] = { "nope b", "a nope", "b a", "a b c", "< s>" };
    for (size_t i = 0; i < WN_COUNT(idle); i++) {
        test_vocab v = sound("gpt2");
        merges[0] = idle[i];
        MEANS(&v, 'a', 'b', 'c');
    }
    test_vocab v = sound("gpt2");
    types[256] = 3;                                     /* the result is a control token */
    MEANS(&v, 'a', 'b', 'c');
}

static void odd_tokens_have_a_safe_meaning(void **state)
{
    (void)state;
    test_vocab v = sound("gpt2");
    for (int i = 0; i < 10; i++) tokens[i] = "";        /* empty pieces: spelled by no text */
    MEANS(&v, 256, 'c');
    v = sound("gpt2"), tokens[0] = tokens[1] = tokens[257] = "ab";  /* of equals the first */
    MEANS(&v, 0, 'c');
    v = sound("gpt2"), tokens[1] = "ab", types[1] = 3;  /* plain text takes the plain one */
    MEANS(&v, 256, 'c');
    v = sound("gpt2"), tokens['c'] = "zz";              /* no token for a byte: as U+FFFD */
    MEANS(&v, 256, 0xEF, 0xBF, 0xBD);
    v = sound("gpt2"), v.types = NULL;
    MEANS(&v, 256, 'c');
    v = sound("gpt2"), v.pre = NULL;
    MEANS(&v, 256, 'c');
    /* nothing for "c", nothing unknown */
    v = sound("llama"), v.space_prefix = -1, tokens['c'] = "zz";
    MEANS(&v, 256);
    types[3] = 2;
    MEANS(&v, 256, 3);
    /* a token longer than any text should look for */
    static char huge[5000];
    memset(huge, 'a', sizeof huge - 1);
    v = sound("gpt2"), v.pre = "llama-bpe", tokens[3] = huge;
    MEANS(&v, 256, 'c');
    types[3] = 4;
    MEANS(&v, 256, 'c');
}

/* Whatever a damaged file still opens as: encoding and decoding stay inside it. */
static void flipped_bytes_do_no_harm(void **state)
{
    (void)state;
    uint64_t seed = 3;
    int opened = 0, refused = 0;
    for (int family = 0; family < 2; family++) {
        char path[] = TEST_VOCAB_PATH;
        test_vocab v = sound(family ? "llama" : "gpt2");
        v.bos = v.eos = 257;
        types[9] = 4, types[10] = 2;
        test_vocab_write(path, &v);
        FILE *f = fopen(path, "rb");
        static uint8_t file[1 << 16], hurt[1 << 16];
        assert_non_null(f);
        size_t size = fread(file, 1, sizeof file, f);
        fclose(f);
        unlink(path);
        assert_true(size > 1000 && size < sizeof file);
        for (int round = 0; round < 3000; round++) {
            wn_gguf *g;
            wn_tokenizer *t;
            wn_err err = { 0 };
            memcpy(hurt, file, size);
            for (int k = 0; k <= round % 4; k++)
                hurt[test_rand(&seed) % size] ^= (uint8_t)(1u << test_rand(&seed) % 8);
            if (wn_gguf_open_memory(&g, hurt, size, &err)) continue;
            if (wn_tokenizer_open(&t, g, &err)) {
                assert_true(strlen(err.text) > 10);
                refused++;
            } else {
                static const char text[] = "abc ab <s> \t\xC3\xA9 \xF0\x9F\xA6\x99 \xFF";
                int32_t *ids;
                size_t n;
                opened++;
                for (int special = 0; special < 2; special++) {
                    assert_int_equal(wn_tokenize(t, text, sizeof text,
                                                 &(wn_tokenize_opts){ .parse_special = special },
                                                 &ids, &n, &err),
                                     WN_OK);
                    free(test_decode(t, ids, n, special, &n));
                    wn_free(ids);
                }
                wn_tokenizer_close(t);
            }
            wn_gguf_close(g);
        }
    }
    assert_true(opened > 100 && refused > 100);
}

static void every_failed_allocation_is_survived(void **state)
{
    wn_gguf *g;
    wn_tokenizer *t;
    int fired = 1;
    (void)state;
    for (int family = 0; family < 2; family++) {
        assert_int_equal(family ? test_spm_open(&g, &t, 0, NULL)
                                : test_bpe_open(&g, &t, "default", NULL),
                         0);
        for (int n = 1; n < 1000; n++) {
            wn_tokenizer *u;
            wn_fault_alloc(n);
            wn_status st = wn_tokenizer_open(&u, g, NULL);
            fired = wn_fault_clear();
            /* PCRE2 can do without its JIT */
            if (!fired || st == WN_OK) assert_int_equal(st, WN_OK);
            else assert_int_equal(st, WN_ENOMEM);
            wn_tokenizer_close(u);
            if (!fired) break;
        }
        assert_false(fired);
        for (int n = 1; n < 1000; n++) {
            char text[700];
            int32_t *ids;
            size_t n_ids;
            memset(text, 'b', sizeof text);
            wn_fault_alloc(n);
            wn_status st = wn_tokenize(t, text, sizeof text, NULL, &ids, &n_ids, NULL);
            fired = wn_fault_clear();
            if (!fired || st == WN_OK) assert_int_equal(st, WN_OK);
            else assert_int_equal(st, WN_ENOMEM);
            wn_free(ids);
            if (!fired) break;
        }
        assert_false(fired);
        wn_tokenizer_close(t);
        wn_gguf_close(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_keys_are_named),
        cmocka_unit_test(wrong_types_and_lengths_are_named),
        cmocka_unit_test(numbers_that_are_none_are_refused),
        cmocka_unit_test(byte_tokens_must_be_bytes),
        cmocka_unit_test(ids_outside_the_vocabulary_are_named),
        cmocka_unit_test(merges_are_two_parts_and_a_space),
        cmocka_unit_test(odd_tokens_have_a_safe_meaning),
        cmocka_unit_test(flipped_bytes_do_no_harm),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
