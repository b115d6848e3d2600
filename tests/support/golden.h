/* tests/support/golden.h - finds the golden files: tests/golden/ first, then ../shared/golden.
 * A file that is in neither is not there: the caller prints "skipped: ..." and goes on. */
#ifndef WN_TEST_GOLDEN_H
#define WN_TEST_GOLDEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GOLDEN_PATH_MAX = 256 };

/* Path of NAME + suffix (".gguf", ".ref"). */
bool golden_path(char out[GOLDEN_PATH_MAX], const char *name, const char *suffix);
/* The input of all golden models; NULL when it is not there. The caller frees. */
int32_t *golden_tokens(int *n);
/* NAME.ref as doubles, (n_tokens, n_vocab); NULL when it is not there or has another size. */
double *golden_logits(const char *name, int n_tokens, int n_vocab);

#endif
