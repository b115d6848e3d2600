/* tests/support/reference.h - what a model's logits are, in double, by the definition.
 *
 * The architectures written down a second time, with nothing of the
 * engine: no pages, no kernels, no blocking, no rounding of activations; weights are what
 * gguf/types.h says the file's blocks mean. Slow and plain on purpose, fast enough for a
 * thousand tokens of a small model.
 */
#ifndef WN_TEST_REFERENCE_H
#define WN_TEST_REFERENCE_H

#include "gguf/gguf.h"

/* *logits: (n_tokens, *n_vocab), the caller's to free(). Row i belongs to the token after
 * tokens[i]. Tokens must lie inside the vocabulary. Longrope takes its long divisors for texts
 * longer than the context before scaling. */
wn_status reference_logits(const char *path, const int32_t *tokens, int n_tokens, double **logits,
                           int *n_vocab, wn_err *err);

/* How far `got` is from `want`, n values each: root mean square and largest absolute
 * difference, both divided by the standard deviation of `want`. A NaN in got makes both
 * infinite. */
typedef struct { double std, rms, max; } reference_distance;
reference_distance reference_compare(const float *got, const double *want, size_t n);

#endif
