/* The float64 reference of the tests against logits computed elsewhere from the same
 * definition (../shared/golden, or what of it lies in tests/golden): both in double, stored
 * as float32, so they agree to about 1e-7 of a logit; 1e-6 of the standard deviation leaves room
 * for logits a few times as large. Protects the yardstick that the other tests measure with.
 */
#include "tests/unit/check.h"

#include <math.h>

#include "tests/support/golden.h"
#include "tests/support/reference.h"

static void reference_agrees_with_stored_logits(void **state)
{
    (void)state;
    static const char *const names[] = {
        "llama-f16",  "llama-Q8_0",           "llama-Q4_0",           "llama-Q4_K_M",
        "llama-Q6_K", "llama-hd128-gqa8-f16", "llama3-ropefreqs-f16", "qwen2-f16",
        "qwen3-f16",  "gemma2-f16",           "gemma3-f16",           "phi3-f16",
    };
    int n_tokens, n_compared = 0;
    int32_t *tokens = golden_tokens(&n_tokens);
    for (size_t i = 0; tokens && i < WN_COUNT(names); i++) {
        char path[GOLDEN_PATH_MAX];
        double *want, *got;
        int n_vocab;
        wn_err err = { 0 };
        if (!golden_path(path, names[i], ".gguf") ||
            !(want = golden_logits(names[i], n_tokens, 1024))) {
            printf("skipped: %s is not here\n", names[i]);
            continue;
        }
        if (reference_logits(path, tokens, n_tokens, &got, &n_vocab, &err))
            fail_msg("%s: %s", names[i], err.text);
        assert_int_equal(n_vocab, 1024);
        size_t n = (size_t)n_tokens * (size_t)n_vocab;
        float *f = malloc(n * sizeof *f);
        for (size_t j = 0; j < n; j++) f[j] = (float)got[j];
        reference_distance d = reference_compare(f, want, n);
        printf("%-22s std %.3f  rms %.2e  max %.2e\n", names[i], d.std, d.rms, d.max);
        if (!(d.max < 1e-6))
            fail_msg("%s: largest difference %g of the standard deviation", names[i], d.max);
        free(f);
        free(got);
        free(want);
        n_compared++;
    }
    free(tokens);
    if (!n_compared) skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(reference_agrees_with_stored_logits) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
