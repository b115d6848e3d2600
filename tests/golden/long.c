/* Generated models at 1100 tokens (three splits of attention, 18 pages, three passes of 512
 * rows) against the float64 reference: every weight type, the three architectures, and the
 * shapes that the golden files leave out (linear rope scaling, BF16, head_dim 128 and 32).
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

enum { N_TOKENS = 1100, N_VOCAB = 512 };

typedef struct {
    wn_generate_opts o;
    const char *kv;
    double rms, max;                /* of the roundings alone; 0: none */
} row;

static const row rows[] = {
    { { .arch = "llama", .type = "F32", .n_heads = 4, .n_kv_heads = 2, .rope_scale = 4 }, "f32", 0, 0 },
    { { .arch = "llama", .type = "F32", .n_heads = 4, .n_kv_heads = 4, .head_dim = 32, .untied = true },
      "f16", 7.00e-5, 8.65e-4 },
    { { .arch = "llama", .type = "F16", .n_heads = 4, .n_kv_heads = 1, .head_dim = 128, .rope_freqs = true },
      "f32", 0, 0 },
    { { .arch = "qwen3", .type = "BF16", .n_heads = 4, .n_kv_heads = 2, .head_dim = 128 }, "f32", 0, 0 },
    { { .arch = "qwen2", .type = "Q8_0", .n_heads = 4, .n_kv_heads = 2 }, "f32", 1.71e-2, 9.09e-2 },
    { { .arch = "llama", .type = "Q4_0", .n_heads = 8, .n_kv_heads = 2, .head_dim = 32 },
      "f32", 2.21e-2, 1.49e-1 },
    { { .arch = "qwen3", .type = "Q4_K_M", .n_heads = 4, .n_kv_heads = 2, .untied = true },
      "f32", 1.94e-2, 1.24e-1 },
    { { .arch = "llama", .type = "Q6_K", .n_heads = 4, .n_kv_heads = 2 }, "f32", 3.27e-2, 2.15e-1 },
};

/* The distance of one row's model; prints a line. */
static bool near_enough(const row *r, const int32_t *tokens)
{
    char path[] = "/tmp/winnow-long-XXXXXX";
    wn_generate_opts o = r->o;
    wn_err err = { 0 };
    double *want;
    int n_vocab, fd = mkstemp(path);
    if (fd < 0) fail_msg("cannot make %s", path);
    close(fd);
    if (!o.head_dim) o.head_dim = 64;
    o.dim = 256, o.n_layers = 3, o.ffn = 512, o.vocab = N_VOCAB, o.n_ctx = 4096, o.seed = 7;
    if (wn_generate(path, &o, NULL, &err)) fail_msg("%s %s: %s", o.arch, o.type, err.text);
    test_engine t = test_engine_open(path, (wn_engine_opts){ .k_type = r->kv, .v_type = r->kv });
    test_seq q = test_seq_open(&t, N_TOKENS);
    test_seq_run(&t, &q, tokens, N_TOKENS);
    if (reference_logits(path, tokens, N_TOKENS, &want, &n_vocab, &err)) fail_msg("%s", err.text);
    unlink(path);
    assert_int_equal(n_vocab, t.n_vocab);
    reference_distance d = reference_compare(q.logits, want, (size_t)N_TOKENS * N_VOCAB);
    free(want);
    test_seq_close(&q);
    test_engine_close(&t);
    double rms = fmax(1e-5, 1.2 * r->rms), max = fmax(1e-4, 1.5 * r->max);
    bool ok = d.rms <= rms && d.max <= max;
    printf("%-6s %-7s cache %s  std %.2f  rms %.2e (at most %.1e)  max %.2e (at most %.1e)%s\n", o.arch, o.type,
           r->kv, d.std, d.rms, rms, d.max, max, ok ? "" : "  WRONG");
    return ok;
}

static void long_inputs_stay_near_the_reference(void **state)
{
    (void)state;
    static int32_t tokens[N_TOKENS];
    int n_wrong = 0;
    test_tokens(tokens, N_TOKENS, N_VOCAB, 1100);
    for (size_t i = 0; i < WN_COUNT(rows); i++) n_wrong += !near_enough(&rows[i], tokens);
    assert_int_equal(n_wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(long_inputs_stay_near_the_reference) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
