/* Models from strangers: a whole model, then the same file with one thing wrong. Either it
 * is refused with a sentence, or it runs a few tokens without a finding of the sanitizers.
 * Hyperparameters are edited in place (their values are 4 bytes after key and type), the
 * file is cut at 200 random offsets, header bytes are flipped at random, weight blocks get
 * NaN and infinite scales. */
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include <math.h>
#include <unistd.h>

static uint8_t *good, *bad;
static size_t n_good;
static char path[128];

static void write_bad(size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bad, 1, n, f), n);
    fclose(f);
}

/* Opens the damaged file and, where it opens, runs five tokens. Returns the status of opening. */
static wn_status try_bad(size_t n, wn_err *err)
{
    static const int32_t ids[5] = { 1, 2, 3, 4, 5 };
    wn_model *m;
    wn_engine *e = NULL;
    wn_seq *s = NULL;
    *err = (wn_err){ 0 };
    write_bad(n);
    wn_status st = wn_model_open(&m, path, &(wn_model_opts){ .n_threads = 1 }, err);
    if (st) {
        assert_null(m);
        assert_true(strlen(err->text) > 10);
        return st;
    }
    wn_model_info mi;
    wn_model_get_info(m, &mi);
    if (!wn_engine_open(&e, m,
                        &(wn_engine_opts){ .n_ctx = mi.n_ctx_train < 64 ? mi.n_ctx_train : 64,
                                           .n_threads = 1,
                                           .mem = (size_t)1 << 30 },
                        err) &&
        !wn_seq_open(&s, e, NULL, err) && !wn_seq_feed(s, ids, 5, err))
        wn_engine_step(e, NULL, err);
    wn_seq_close(s);
    wn_engine_close(e);
    wn_model_close(m);
    return WN_OK;
}

static uint8_t *find(const char *needle)
{
    uint8_t *p = memmem(bad, n_good, needle, strlen(needle));
    if (!p) fail_msg("%s is not in the file", needle);
    return p;
}

/* Sets a 4-byte metadata value and expects a refusal whose sentence names the key's end. */
static void edit_u32(const char *key, uint32_t v, const char *names)
{
    wn_err err;
    memcpy(bad, good, n_good);
    memcpy(find(key) + strlen(key) + 4, &v, 4);
    if (try_bad(n_good, &err) == WN_OK) fail_msg("%s = %u was accepted", key, v);
    if (!strstr(err.text, names))
        fail_msg("%s = %u: \"%s\" does not name %s", key, v, err.text, names);
}

static uint32_t bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static void hyperparameters(void **state)
{
    (void)state;
    edit_u32("llama.block_count", 0, "block_count");
    edit_u32("llama.block_count", 4000000000u, "block_count");
    edit_u32("llama.block_count", 3, "blk.2.");
    edit_u32("llama.embedding_length", 0, "embedding_length");
    edit_u32("llama.embedding_length", 255, "255");
    edit_u32("llama.attention.head_count", 3, "head_count");
    edit_u32("llama.attention.head_count", 0, "head_count");
    edit_u32("llama.attention.head_count_kv", 3, "head_count");
    edit_u32("llama.attention.head_count_kv", 0, "head_count_kv");
    edit_u32("llama.attention.key_length", 63, "rope.dimension_count");
    edit_u32("llama.attention.key_length", 66, "attn_q");
    edit_u32("llama.attention.key_length", 100000, "key_length");
    edit_u32("llama.feed_forward_length", 0, "feed_forward_length");
    edit_u32("llama.feed_forward_length", 511, "ffn_gate");
    edit_u32("llama.context_length", 0, "context_length");
    edit_u32("llama.rope.freq_base", bits(NAN), "freq_base");
    edit_u32("llama.rope.freq_base", bits(-1), "freq_base");
    edit_u32("llama.attention.layer_norm_rms_epsilon", bits(INFINITY), "epsilon");
}

static void another_architecture(void **state)
{
    (void)state;
    wn_err err;
    memcpy(bad, good, n_good);
    uint8_t *p = find("general.architecture");
    memcpy(p + 20 + 4 + 8, "lmaxx", 5);
    assert_int_equal(try_bad(n_good, &err), WN_EUNSUPPORTED);
    assert_non_null(strstr(err.text, "lmaxx"));
    assert_non_null(strstr(err.text, "qwen3"));
}

static void a_missing_tensor(void **state)
{
    (void)state;
    wn_err err;
    memcpy(bad, good, n_good);
    memcpy(find("blk.1.ffn_up.weight"), "blk.1.ffn_xp", 12);
    assert_int_equal(try_bad(n_good, &err), WN_EFORMAT);
    assert_non_null(strstr(err.text, "blk.1.ffn_up.weight"));
}

static void cuts(void **state)
{
    (void)state;
    wn_err err;
    uint64_t seed = 11;
    memcpy(bad, good, n_good);
    for (int i = 0; i < 200; i++) {
        size_t n = test_rand(&seed) % n_good;
        if (try_bad(n, &err) == WN_OK)
            fail_msg("a file cut at %zu of %zu bytes was accepted", n, n_good);
    }
    assert_int_not_equal(try_bad(0, &err), WN_OK);
    assert_int_not_equal(try_bad(4, &err), WN_OK);      /* the magic alone */
}

static void flips_in_the_header(void **state)
{
    (void)state;
    wn_err err;
    size_t header = (size_t)((uint8_t *)memmem(good, n_good, "tokenizer.ggml.tokens", 21) - good);
    size_t tensors = (size_t)((uint8_t *)memmem(good, n_good, "token_embd.weight", 17) - good);
    for (uint64_t seed = 1; seed <= 600; seed++) {
        uint64_t s = seed;
        memcpy(bad, good, n_good);
        for (int k = 1 + (int)(test_rand(&s) % 3); k > 0; k--) {
            size_t at = test_rand(&s) % 2 ? test_rand(&s) % header : tensors + test_rand(&s) % 1500;
            bad[at] ^= (uint8_t)(1u << test_rand(&s) % 8);
        }
        try_bad(n_good, &err);
    }
}

/* NaN, infinite and denormal scales in every weight: logits may be NaN, nothing else may happen. */
static void poisoned_weights(void **state)
{
    (void)state;
    wn_err err;
    uint64_t seed = 3;
    size_t data = n_good / 2;
    static const uint16_t poison[] = { 0x7e00, 0x7c00, 0xfc00, 0x0001, 0x7bff };
    memcpy(bad, good, n_good);
    for (size_t i = data; i + 34 < n_good; i += 34)
        memcpy(bad + i, &poison[test_rand(&seed) % 5], 2);
    try_bad(n_good, &err);
}

/* Takes a generated model as the one to damage. */
static void use_model(const char *arch)
{
    FILE *f = fopen(test_model_path(arch, "Q8_0"), "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    n_good = (size_t)ftell(f);
    rewind(f);
    free(good), free(bad);
    good = malloc(n_good);
    bad = malloc(n_good);
    assert_true(good && bad && fread(good, 1, n_good, f) == n_good);
    fclose(f);
}

/* Experts, sinks, windows and yarn have numbers and tensors of their own. */
static void experts(void **state)
{
    (void)state;
    use_model("gpt-oss");
    edit_u32("gpt-oss.expert_used_count", 0, "expert_used_count");
    edit_u32("gpt-oss.expert_used_count", 9, "expert_used_count");
    edit_u32("gpt-oss.expert_count", 7, "blk.0.ffn_gate_inp");
    edit_u32("gpt-oss.expert_count", 0, "expert_count");
    edit_u32("gpt-oss.expert_feed_forward_length", 511, "blk.0.ffn_gate_exps");
    edit_u32("gpt-oss.attention.sliding_window", 4000000000u, "sliding_window");
    cuts(state);
    flips_in_the_header(state);
    poisoned_weights(state);
    use_model("llama");
}

/* A tensor that the architecture has no use for: the model is more than its name says. In llama's
 * file with biases renamed, they are optional, so they are not missed, but asked for by nobody. */
static void a_tensor_too_many(void **state)
{
    (void)state;
    wn_err err;
    use_model("gpt-oss");
    memcpy(bad, good, n_good);
    memcpy(find("blk.1.attn_output.bias"), "blk.1.attn_output.bird", 22);
    assert_int_equal(try_bad(n_good, &err), WN_EUNSUPPORTED);
    assert_non_null(strstr(err.text, "blk.1.attn_output.bird"));
    use_model("llama");
}

int main(void)
{
    use_model("llama");
    test_path(path, sizeof path, "bad.gguf");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hyperparameters),     cmocka_unit_test(another_architecture),
        cmocka_unit_test(a_missing_tensor),    cmocka_unit_test(cuts),
        cmocka_unit_test(flips_in_the_header), cmocka_unit_test(poisoned_weights),
        cmocka_unit_test(experts),             cmocka_unit_test(a_tensor_too_many),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    free(good);
    free(bad);
    return rc;
}
