/* tests/fuzz/template.c - templates, haystacks and choice files from anywhere.
 *
 * The first byte says what the rest is. A template or haystack that loads must make every task,
 * or say why not, and a case must keep its length and give full marks to its own answers. */
#include "eval/choices.h"
#include "eval/phrases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char prose[] =
    "There was once a man who lived in a small house. He had a dog, and the dog had a bone. One "
    "day they "
    "went out.\n\n\"Where are we going?\" asked the dog. The man did not say.";
static const char base[] = "{\"inherit\": \"base\"}";

static size_t quarter(void *ctx, const char *text, size_t n)
{
    (void)ctx;
    (void)text;
    return (n + 3) / 4;
}

static void make_all(const wn_phrases *p)
{
    for (int i = 0; wn_tasks[i]; i++) {
        wn_case c;
        wn_err err;
        wn_case_opts o = { .seed = 1, .n_tokens = 400, .depth = 0.5, .count = quarter };
        if (wn_tasks[i]->make(&c, p, &o, &err)) continue;
        for (int j = 0; j < c.n_turns; j++)
            if (wn_turn_score(&c.turns[j], c.turns[j].expect[0]) <= 0) abort();
        if (strlen(c.context) > 1600) abort();
        wn_case_release(&c);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;
    wn_phrases *p = NULL;
    wn_choice *c;
    wn_err err;
    int n;
    if (!size) return 0;
    if (*data == 'c') {
        if (!wn_choices_parse(&c, &n, text, size - 1, "fuzz", &err)) wn_choices_release(c, n);
        return 0;
    }
    if (*data == 'h')
        wn_phrases_parse(&p, base, sizeof base - 1, "base", text, size - 1, "fuzz", &err);
    else
        wn_phrases_parse(&p, text, size - 1, "fuzz", prose, sizeof prose - 1, "prose", &err);
    if (p) make_all(p);
    wn_phrases_close(p);
    return 0;
}
