/* See golden.h. Tests run from the root of the repository; ../shared lies beside it. */
#include "tests/support/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool golden_path(char out[GOLDEN_PATH_MAX], const char *name, const char *suffix)
{
    static const char *const dirs[] = { "tests/golden", "../shared/golden" };
    for (int i = 0; i < 2; i++) {
        snprintf(out, GOLDEN_PATH_MAX, "%s/%s%s", dirs[i], name, suffix);
        if (access(out, R_OK) == 0) return true;
    }
    return false;
}

/* A whole file; NULL when it cannot be read. */
static void *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    void *p = n > 0 ? malloc((size_t)n) : NULL;
    rewind(f);
    if (p && fread(p, 1, (size_t)n, f) != (size_t)n) {
        free(p);
        p = NULL;
    }
    fclose(f);
    *bytes = p ? (size_t)n : 0;
    return p;
}

int32_t *golden_tokens(int *n)
{
    char path[GOLDEN_PATH_MAX];
    size_t bytes;
    int32_t *ids = golden_path(path, "tokens", ".i32") ? read_file(path, &bytes) : NULL;
    *n = ids ? (int)(bytes / sizeof *ids) : 0;
    return ids;
}

double *golden_logits(const char *name, int n_tokens, int n_vocab)
{
    char path[GOLDEN_PATH_MAX];
    size_t n = (size_t)n_tokens * (size_t)n_vocab, bytes;
    float *f = golden_path(path, name, ".ref") ? read_file(path, &bytes) : NULL;
    double *out = f && bytes == n * sizeof *f ? malloc(n * sizeof *out) : NULL;
    for (size_t i = 0; out && i < n; i++) out[i] = (double)f[i];
    free(f);
    return out;
}
