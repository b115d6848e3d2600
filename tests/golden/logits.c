/* The engine's logits of 160 tokens against the golden references, file by file.
 *
 * The bounds are not ours: they are how far llama.cpp was from the same references (CPU,
 * f32 cache; README of the golden files), rms at most 1.1 times its rms and the largest
 * difference at most 1.5 times its largest, both in standard deviations of the reference
 * logits. Where activations stay f32 (F16 weights) winnow must be far nearer: the last
 * column is rounding noise of float sums (2^-24, grown by a dozen steps and layers), and
 * failing it means that something was rounded that should not have been.
 *
 * Files that are neither in tests/golden nor in ../shared/golden are skipped; a stored
 * reference that is missing is computed (tests/golden/reference.c compares the two).
 */
#include "tests/unit/check.h"

#include <math.h>

#include "base/err.h"
#include "tests/support/engine.h"
#include "tests/support/golden.h"
#include "tests/support/reference.h"

enum { N_VOCAB = 1024 };

static const struct { const char *name; double peer_max, peer_rms, own_rms; } rows[] = {
    { "llama-Q8_0", 0.05490, 0.01080, 1 },
    { "llama-Q4_0", 0.05530, 0.01171, 1 },
    { "llama-Q4_1", 0.06097, 0.01194, 1 },
    { "llama-Q5_0", 0.05520, 0.01183, 1 },
    { "llama-Q5_1", 0.06231, 0.01194, 1 },
    { "llama-Q2_K", 0.07960, 0.01613, 1 },
    { "llama-Q3_K_M", 0.07612, 0.01584, 1 },
    { "llama-Q4_K_M", 0.07898, 0.01586, 1 },
    { "llama-Q5_K_M", 0.06909, 0.01583, 1 },
    { "llama-Q6_K", 0.07879, 0.01587, 1 },
    { "llama-f16", 0.00171, 0.00036, 1e-5 },
    { "llama-hd128-gqa8-f16", 0.00190, 0.00036, 1e-5 },
    { "llama3-ropefreqs-f16", 0.00395, 0.00073, 1e-5 },
    { "qwen2-f16", 0.00416, 0.00073, 1e-5 },
    { "qwen3-f16", 0.00172, 0.00036, 1e-5 },
    { "gemma2-f16", 0.00259, 0.00058, 1e-5 },
    { "gemma3-f16", 0.00399, 0.00082, 1e-5 },
    { "phi3-f16", 0.00179, 0.00037, 1e-5 },
};

/* The stored reference, or the same computed now. The caller frees. */
static double *wanted(const char *name, const char *path, const int32_t *tokens, int n)
{
    int n_vocab;
    wn_err err = { 0 };
    double *want = golden_logits(name, n, N_VOCAB);
    if (!want && reference_logits(path, tokens, n, &want, &n_vocab, &err))
        fail_msg("%s: %s", name, err.text);
    return want;
}

static reference_distance distance(const char *name, const char *path, const int32_t *tokens, int n)
{
    test_engine t = test_engine_open(path, (wn_engine_opts){ .k_type = "f32", .v_type = "f32" });
    assert_int_equal(t.n_vocab, N_VOCAB);
    test_seq q = test_seq_open(&t, n);
    test_seq_run(&t, &q, tokens, n);
    double *want = wanted(name, path, tokens, n);
    reference_distance d = reference_compare(q.logits, want, (size_t)n * N_VOCAB);
    free(want);
    test_seq_close(&q);
    test_engine_close(&t);
    return d;
}

static void engine_is_as_near_as_its_peer(void **state)
{
    (void)state;
    int n, n_run = 0, n_wrong = 0;
    int32_t *tokens = golden_tokens(&n);
    for (size_t i = 0; tokens && i < WN_COUNT(rows); i++) {
        char path[GOLDEN_PATH_MAX];
        if (!golden_path(path, rows[i].name, ".gguf")) {
            printf("skipped: %s is neither in tests/golden nor in ../shared/golden\n",
                   rows[i].name);
            continue;
        }
        reference_distance d = distance(rows[i].name, path, tokens, n);
        double rms = fmin(1.1 * rows[i].peer_rms, rows[i].own_rms), max = 1.5 * rows[i].peer_max;
        bool ok = d.rms <= rms && d.max <= max;
        printf("%-22s rms %.2e (at most %.2e)  max %.2e (at most %.2e)%s\n", rows[i].name, d.rms,
               rms, d.max, max, ok ? "" : "  WRONG");
        n_wrong += !ok;
        n_run++;
    }
    free(tokens);
    assert_int_equal(n_wrong, 0);
    if (!n_run) skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(engine_is_as_near_as_its_peer) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
