/* tests/fuzz/profile.c - files that say they are a profile. What is read is sound: it fits its own
 * model, is written and read again as the same bytes, and every table of it can be found. The
 * checksum is set right first, so that the fuzzer gets behind it. */
#include "policy/profile.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The error for a wrong checksum says the right one. */
static wn_status parse(wn_profile **p, char *text, size_t n, wn_err *err)
{
    wn_status st = wn_profile_parse(p, text, n, err);
    char *right = st && strstr(err->text, "checksum does not match")
                      ? strstr(err->text, "expected ")
                      : NULL;
    char *sum = right ? strstr(text, "\"checksum\": \"") : NULL;
    if (!sum || (size_t)(sum - text) + 13 + 32 > n) return st;
    memcpy(sum + 13, right + 9, 32);
    return wn_profile_parse(p, text, n, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    wn_err err = { 0 };
    wn_profile *p, *q;
    char *text = malloc(size + 1), *again;
    if (!text) return 0;
    if (size) memcpy(text, data, size);
    text[size] = '\0';
    if (!parse(&p, text, size, &err)) {
        if (wn_profile_fits(p, p->fingerprint, p->n_layers, p->n_heads, p->n_lanes, &err)) abort();
        for (int i = 0; i < p->n_budgets; i++)
            if (!wn_profile_nearest(p, p->budgets[i].recipe, p->budgets[i].share)) abort();
        if (wn_profile_text(p, &again, &err) || wn_profile_parse(&q, again, strlen(again), &err))
            abort();
        free(again);
        wn_profile_close(q);
        wn_profile_close(p);
    } else if (p || !*err.text) {
        abort();
    }
    free(text);
    return 0;
}
