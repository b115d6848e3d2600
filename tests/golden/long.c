/* Generated models at 1100 tokens (three splits of attention, 18 pages, three passes of 512 rows)
 * and two at 2100 against the float64 reference: every weight type, every architecture, and the
 * shapes that the golden files leave out (linear scaling, YaRN, longrope before and past its
 * original length, rotation of a part of the head, BF16, head_dim 32, 80 and 128, windows).
 *
 * Bounds, in standard deviations of the reference logits. What may round at all is known:
 * activations become int8 in blocks of 32 or 256 before quantised weights (kernel/matmul.h),
 * K and V become f16 in an f16 cache. The table's rms and max are what those roundings
 * alone cost, in these very models: found by letting the reference itself do them in every
 * product (or in its cache) and comparing it with itself undisturbed. Float sums add about
 * 1e-6. Allowed are 1.2 times that rms and 1.5 times that max, since roundings fall another
 * way once float sums come before them; where nothing rounds, 1e-5 and 1e-4.
 */
#include "tests/unit/check.h"

#include <math.h>
#include <unistd.h>

#include "gguf/generate.h"
#include "tests/support/engine.h"
#include "tests/support/reference.h"

enum { N_TOKENS = 1100, N_MOST = 2100, N_VOCAB = 512 };

typedef struct {
    wn_generate_opts o;
    const char *kv;
    double rms, max;                /* of the roundings alone; 0: none */
    int n_tokens, n_ctx;            /* of the text, 0: 1100; of the engine, 0: 2048 */
} row;

static const row rows[] = {
    { { .arch = "llama", .type = "F32", .n_heads = 4, .n_kv_heads = 2,
        .rope_scale = 4 }, "f32", 0, 0, 0, 0 },
    { { .arch = "llama", .type = "F32", .n_heads = 4, .n_kv_heads = 4, .head_dim = 32,
        .untied = true },
      "f16", 7.00e-5, 8.65e-4, 0, 0 },
    { { .arch = "llama", .type = "F16", .n_heads = 4, .n_kv_heads = 1, .head_dim = 128,
        .rope_freqs = true },
      "f32", 0, 0, 0, 0 },
    { { .arch = "qwen3", .type = "BF16", .n_heads = 4, .n_kv_heads = 2,
        .head_dim = 128 }, "f32", 0, 0, 0, 0 },
    { { .arch = "qwen2", .type = "Q8_0", .n_heads = 4,
        .n_kv_heads = 2 }, "f32", 1.71e-2, 9.09e-2, 0, 0 },
    { { .arch = "llama", .type = "Q4_0", .n_heads = 8, .n_kv_heads = 2, .head_dim = 32 },
      "f32", 2.21e-2, 1.49e-1, 0, 0 },
    { { .arch = "qwen3", .type = "Q4_K_M", .n_heads = 4, .n_kv_heads = 2, .untied = true },
      "f32", 1.94e-2, 1.24e-1, 0, 0 },
    { { .arch = "llama", .type = "Q6_K", .n_heads = 4,
        .n_kv_heads = 2 }, "f32", 3.27e-2, 2.15e-1, 0, 0 },
    { { .arch = "qwen2", .type = "Q4_1", .n_heads = 4,
        .n_kv_heads = 2 }, "f32", 2.08e-2, 1.29e-1, 0, 0 },
    { { .arch = "llama", .type = "Q5_0", .n_heads = 4,
        .n_kv_heads = 2 }, "f32", 2.11e-2, 1.25e-1, 0, 0 },
    { { .arch = "qwen3", .type = "Q5_1", .n_heads = 4,
        .n_kv_heads = 2 }, "f32", 2.17e-2, 1.47e-1, 0, 0 },
    { { .arch = "llama", .type = "IQ4_NL", .n_heads = 4,
        .n_kv_heads = 2 }, "f32", 1.67e-2, 1.22e-1, 0, 0 },
    { { .arch = "qwen2", .type = "MXFP4", .n_heads = 4,
        .n_kv_heads = 2 }, "f32", 1.73e-2, 9.80e-2, 0, 0 },
    { { .arch = "llama", .type = "Q2_K", .n_heads = 4,
        .n_kv_heads = 2 }, "f32", 3.06e-2, 1.83e-1, 0, 0 },
    { { .arch = "qwen3", .type = "Q3_K_L", .n_heads = 4,
        .n_kv_heads = 2 }, "f32", 3.28e-2, 2.47e-1, 0, 0 },
    { { .arch = "llama", .type = "Q5_K_M", .n_heads = 4, .n_kv_heads = 2, .untied = true },
      "f32", 1.86e-2, 1.34e-1, 0, 0 },
    { { .arch = "qwen2", .type = "IQ4_XS", .n_heads = 4,
        .n_kv_heads = 2 }, "f32", 3.22e-2, 2.13e-1, 0, 0 },
    /* head_dim 80; a window that all layers have, as Mistral's */
    { { .arch = "llama", .type = "F32", .n_heads = 4, .n_kv_heads = 2,
        .head_dim = 80 }, "f32", 0, 0, 0, 0 },
    { { .arch = "llama", .type = "F16", .n_heads = 4, .n_kv_heads = 2,
        .window = 200 }, "f32", 0, 0, N_MOST, N_MOST },
    { { .arch = "gemma2", .type = "F16", .n_heads = 4, .n_kv_heads = 2,
        .window = 100 }, "f32", 0, 0, 0, 0 },
    { { .arch = "gemma3", .type = "F16", .n_heads = 4, .n_kv_heads = 1, .window = 100,
        .n_layers = 7, .rope_scale = 8, .rope_theta = 1e6f }, "f32", 0, 0, 0, 0 },
    { { .arch = "smollm3", .type = "F32", .n_heads = 4, .n_kv_heads = 1,
        .n_layers = 5 }, "f32", 0, 0, 0, 0 },
    /* longrope: the long divisors in a text past the original length, the short ones before it */
    { { .arch = "phi3", .type = "F16", .n_heads = 4, .rope_scale = 8, .rope_type = "longrope",
        .rope_ctx = 512, .rope_dims = 48 }, "f32", 0, 0, 0, 0 },
    { { .arch = "phi3", .type = "F32", .n_heads = 4, .n_kv_heads = 2, .rope_scale = 2,
        .rope_type = "longrope", .rope_ctx = 2048 }, "f32", 0, 0, 0, 2048 },
    { { .arch = "qwen2", .type = "F16", .n_heads = 4, .n_kv_heads = 2, .rope_scale = 4,
        .rope_type = "yarn", .rope_theta = 1e6f }, "f32", 0, 0, N_MOST, N_MOST },
    { { .arch = "llama", .type = "F32", .n_heads = 4, .n_kv_heads = 2, .n_experts = 8,
        .ffn = 256 }, "f32", 0, 0, 0, 0 },
    { { .arch = "qwen3moe", .type = "F16", .n_heads = 4, .n_kv_heads = 1, .n_experts = 32,
        .n_used = 6, .ffn = 96 },
      "f32", 0, 0, 0, 0 },
    { { .arch = "olmoe", .type = "BF16", .n_heads = 4, .n_experts = 16, .n_used = 4, .ffn = 128,
        .untied = true },
      "f32", 0, 0, 0, 0 },
    { { .arch = "gpt-oss", .type = "F32", .n_heads = 8, .n_kv_heads = 2, .n_experts = 16,
        .n_used = 4, .ffn = 96, .window = 128, .rope_scale = 32, .rope_type = "yarn",
        .rope_theta = 150000, .untied = true },
      "f32", 0, 0, 0, 0 },
};

/* The distance of one row's model; prints a line. */
static bool near_enough(const row *r, const int32_t *tokens)
{
    char path[] = "/tmp/winnow-long-XXXXXX";
    wn_generate_opts o = r->o;
    wn_err err = { 0 };
    double *want;
    int n_vocab, fd = mkstemp(path), n = r->n_tokens ? r->n_tokens : N_TOKENS;
    if (fd < 0) fail_msg("cannot make %s", path);
    close(fd);
    if (!o.head_dim) o.head_dim = 64;
    if (!o.n_layers) o.n_layers = 3;
    if (!o.ffn) o.ffn = 512;
    o.dim = 256, o.vocab = N_VOCAB, o.n_ctx = 4096, o.seed = 7;
    if (wn_generate(path, &o, NULL, &err)) fail_msg("%s %s: %s", o.arch, o.type, err.text);
    test_engine t = test_engine_open(path, (wn_engine_opts){ .n_ctx = r->n_ctx,
                                                             .k_type = r->kv,
                                                             .v_type = r->kv });
    test_seq q = test_seq_open(&t, n);
    test_seq_run(&t, &q, tokens, n);
    if (reference_logits(path, tokens, n, &want, &n_vocab, &err)) fail_msg("%s", err.text);
    unlink(path);
    assert_int_equal(n_vocab, t.n_vocab);
    reference_distance d = reference_compare(q.logits, want, (size_t)n * N_VOCAB);
    free(want);
    test_seq_close(&q);
    test_engine_close(&t);
    double rms = fmax(1e-5, 1.2 * r->rms), max = fmax(1e-4, 1.5 * r->max);
    bool ok = d.rms <= rms && d.max <= max;
    printf("%-8s %-7s cache %s  std %.2f  rms %.2e (at most %.1e)  max %.2e (at most %.1e)%s\n",
           o.arch, o.type, r->kv, d.std, d.rms, rms, d.max, max, ok ? "" : "  WRONG");
    return ok;
}

static void long_inputs_stay_near_the_reference(void **state)
{
    (void)state;
    static int32_t tokens[N_MOST];
    int n_wrong = 0;
    test_tokens(tokens, N_MOST, N_VOCAB, 1100);
    for (size_t i = 0; i < WN_COUNT(rows); i++) n_wrong += !near_enough(&rows[i], tokens);
    assert_int_equal(n_wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(long_inputs_stay_near_the_reference) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
