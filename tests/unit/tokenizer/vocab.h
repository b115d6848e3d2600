/* tests/unit/tokenizer/vocab.h - small vocabularies, written as model files and opened.
 *
 * Also for the fuzzer, so no cmocka here: what fails in setting up aborts.
 */
#ifndef WN_TEST_VOCAB_H
#define WN_TEST_VOCAB_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "gguf/write.h"
#include "tokenizer/tokenizer.h"

/* What a test puts into the file; NULL leaves the key out. n_* of 0 means n. */
typedef struct {
    const char *model, *pre;
    const char **tokens;
    size_t n;
    const int32_t *types;
    size_t n_types;
    const float *scores;
    size_t n_scores;
    const char **merges;
    size_t n_merges;
    int64_t bos, eos;               /* 0: left out; -1: written as id 0 */
    int add_bos, space_prefix;      /* 0: left out; 1 true, -1 false */
    void (*more)(wn_gguf_writer *w);
} test_vocab;

#define TEST_VOCAB_PATH "/tmp/winnow-vocab-XXXXXX"
static inline void test_vocab_write(char *path, const test_vocab *v)
{
    wn_gguf_writer *w;
    int fd = mkstemp(path);
    if (fd < 0) abort();
    close(fd);
    if (wn_gguf_writer_open(&w, path, NULL)) abort();
    wn_gguf_put_string(w, "general.architecture", "llama");
    if (v->model) wn_gguf_put_string(w, "tokenizer.ggml.model", v->model);
    if (v->pre) wn_gguf_put_string(w, "tokenizer.ggml.pre", v->pre);
    if (v->tokens) wn_gguf_put_strings(w, "tokenizer.ggml.tokens", v->tokens, v->n);
    if (v->types)
        wn_gguf_put_i32s(w, "tokenizer.ggml.token_type", v->types, v->n_types ? v->n_types : v->n);
    if (v->scores)
        wn_gguf_put_f32s(w, "tokenizer.ggml.scores", v->scores, v->n_scores ? v->n_scores : v->n);
    if (v->merges) wn_gguf_put_strings(w, "tokenizer.ggml.merges", v->merges, v->n_merges);
    if (v->bos)
        wn_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", v->bos < 0 ? 0 : (uint32_t)v->bos);
    if (v->eos)
        wn_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", v->eos < 0 ? 0 : (uint32_t)v->eos);
    if (v->add_bos) wn_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", v->add_bos > 0);
    if (v->space_prefix)
        wn_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", v->space_prefix > 0);
    if (v->more) v->more(w);
    if (wn_gguf_writer_close(w, NULL)) abort();
}

static inline wn_status test_vocab_open(wn_gguf **g, wn_tokenizer **t, const test_vocab *v,
                                        wn_err *err)
{
    char path[] = TEST_VOCAB_PATH;
    test_vocab_write(path, v);
    *t = NULL;
    if (wn_gguf_open(g, path, err)) abort();
    unlink(path);
    return wn_tokenizer_open(t, *g, err);
}

/* The 256 one-byte tokens of a byte-level vocabulary, in byte order, at tokens[0..255];
 * room is 256 * 3 bytes. */
static inline void test_byte_tokens(const char **tokens, char *room)
{
    int extra = 0x100;
    for (int b = 0; b < 256; b++) {
        bool same = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD);
        int c = same ? b : extra++;
        tokens[b] = room;
        if (c >= 0x80) *room++ = (char)(0xC0 | c >> 6);
        *room++ = (char)(c >= 0x80 ? 0x80 | (c & 0x3F) : c);
        *room++ = 0;
    }
}

/* A byte-level vocabulary: bytes 0..255, then what BPE_WORDS says, then control tokens. */
#define BPE_TOKENS (256 + 12)
static inline wn_status test_bpe_open(wn_gguf **g, wn_tokenizer **t, const char *pre, wn_err *err)
{
    static char room[256 * 3];
    static const char *tokens[BPE_TOKENS];
    static int32_t types[BPE_TOKENS];
    static const char *const more[] = {
        /* 256 */ "aa", "aaaa", "he", "ll", "hell", "hello", "\xC4\xA0h", "\xC3\xA2\xC4\xA4",
        /* 264 */ "<|end|>", "<|endoftext|>", "<tool>", "<tool>s",
    };
    static const char *merges[] = {
        "h e", "l l", "a a", "aa aa", "he ll", "hell o", "\xC4\xA0 h", "\xC3\xA2 \xC4\xA4",
    };
    test_byte_tokens(tokens, room);
    for (int i = 0; i < BPE_TOKENS; i++) types[i] = 1;
    for (int i = 256; i < BPE_TOKENS; i++) tokens[i] = more[i - 256];
    types[264] = types[265] = 3;
    types[266] = types[267] = 4;
    return test_vocab_open(g, t, &(test_vocab){ .model = "gpt2", .pre = pre, .tokens = tokens,
                           .n = BPE_TOKENS, .types = types, .merges = merges, .n_merges = 8,
                           .bos = 265, .eos = 264 }, err);
}

/* A SentencePiece-style vocabulary: unknown, <s>, </s>, 256 bytes, then pieces. */
#define SPM_TOKENS (259 + 16)
static inline wn_status test_spm_open(wn_gguf **g, wn_tokenizer **t, int space_prefix, wn_err *err)
{
    static char room[256 * 8];
    static const char *tokens[SPM_TOKENS] = { "<unk>", "<s>", "</s>" };
    static int32_t types[SPM_TOKENS] = { 2, 3, 3 };
    static float scores[SPM_TOKENS];
    static const char *const more[] = {
        /* 259 */ "\xE2\x96\x81", "a", "b", "s", ">", "</", "s>", "ab",
        /* 267 */ "ba", ("\xE2\x96\x81" "a"), "aa", "aaaa", "\xC3\xA9", "<t>", "/", "<",
    };
    for (int b = 0; b < 256; b++) {
        snprintf(room + 8 * b, 8, "<0x%02X>", b);
        tokens[3 + b] = room + 8 * b;
        types[3 + b] = 6;
    }
    for (int i = 259; i < SPM_TOKENS - 2; i++) {
        tokens[i] = more[i - 259];
        types[i] = 1;
        scores[i] = -(float)(i - 258);
    }
    tokens[SPM_TOKENS - 2] = "\xE2\x96\x81\xE2\x96\x81";
    tokens[SPM_TOKENS - 1] = "h";
    types[SPM_TOKENS - 2] = types[SPM_TOKENS - 1] = 1;
    scores[SPM_TOKENS - 2] = scores[SPM_TOKENS - 1] = -100;
    types[272] = 4;
    return test_vocab_open(g, t, &(test_vocab){ .model = "llama", .tokens = tokens,
                           .n = SPM_TOKENS, .types = types, .scores = scores, .bos = 1, .eos = 2,
                           .space_prefix = space_prefix }, err);
}

/* The text of ids, decoded token by token; the caller frees it. Broken bytes are U+FFFD. */
static inline char *test_decode(const wn_tokenizer *t, const int32_t *ids, size_t n, bool special,
                                size_t *n_text)
{
    size_t max = wn_detok_max(t), at = 0, cap = max + 64;
    char *out = malloc(cap);
    wn_detok d;
    wn_detok_init(&d, t, special);
    for (size_t i = 0; i < n; i++) {
        if (cap - at < max + 4 && !(out = realloc(out, cap = 2 * cap + max))) abort();
        at += wn_detok_push(&d, ids[i], out + at, cap - at);
    }
    at += wn_detok_end(&d, out + at, cap - at);
    *n_text = at;
    return out;
}

/* The bytes of ids one after the other, no character put in the place of broken ones. */
static inline char *test_bytes(const wn_tokenizer *t, const int32_t *ids, size_t n, size_t *n_text)
{
    size_t at = 0;
    char *out;
    for (size_t i = 0; i < n; i++) at += wn_token_bytes(t, ids[i], false, NULL, 0);
    out = malloc(at + 1);
    if (!out) abort();
    *n_text = at;
    at = 0;
    for (size_t i = 0; i < n; i++) at += wn_token_bytes(t, ids[i], false, out + at, *n_text - at);
    return out;
}

#endif
