/* tests/fuzz/jinja.c - chat templates from anywhere, over variables from anywhere.
 *
 * The input is a template and, behind a NUL byte, the JSON of its variables. Whatever comes
 * must end within its steps and memory; what fails says so in a sentence; what is rendered is
 * text and ranges that lie inside it, in order; and a second rendering gives the same. */
#include "chat/template.h"

#include <stdlib.h>
#include <string.h>

static void check(const wn_chat_text *r)
{
    for (size_t i = 0, end = 0; i < r->n_plain; i++) {
        if (r->plain[i].from >= r->plain[i].to || r->plain[i].to > r->n ||
            (i && r->plain[i].from <= end))
            abort();
        end = r->plain[i].to;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    size_t n = strnlen(text, size);
    json_t *vars = n < size ? json_loadb(text + n + 1, size - n - 1, JSON_ALLOW_NUL, NULL) : NULL;
    wn_render_opts o = { .vars = json_is_object(vars) ? vars : NULL, .now = 1, .max_steps = 100000,
                         .max_out = 1 << 20, .max_memory = 32 << 20 };
    wn_template *t;
    wn_chat_text a, b;
    wn_err err = { 0 };
    wn_status st = wn_template_open(&t, text, n, &err);
    if (!st) {
        st = wn_template_render(t, &o, &a, &err);
        if (wn_template_render(t, &o, &b, NULL) != st) abort();
        if (!st && (a.n != b.n || memcmp(a.text, b.text, a.n) || a.n_plain != b.n_plain)) abort();
        if (!st) check(&a);
        wn_chat_text_release(&a);
        wn_chat_text_release(&b);
        wn_template_close(t);
    }
    if (st && strlen(err.text) < 10) abort();
    json_decref(vars);
    return 0;
}
