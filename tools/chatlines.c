/* tools/chatlines.c - renders chat templates for tests/chat/fuzz.py.
 *
 * One JSON object a line on standard input, {"template": ..., "vars": {...}}; one a line on
 * standard output, {"text": ...} or {"err": ...}. The clock stands at 1700000000 seconds.
 */
#include "chat/template.h"

#include <stdio.h>
#include <stdlib.h>

static json_t *answer(const json_t *task)
{
    const json_t *source = json_object_get(task, "template");
    wn_render_opts o = { .vars = json_object_get(task, "vars"), .now = 1700000000 };
    wn_template *t;
    wn_chat_text r = { 0 };
    wn_err err;
    wn_status st = wn_template_open(&t, json_string_value(source), json_string_length(source),
                                    &err);
    if (!st) {
        st = wn_template_render(t, &o, &r, &err);
        wn_template_close(t);
    }
    json_t *j = st ? json_pack("{s:s}", "err", err.text) : json_pack("{s:s%}", "text", r.text, r.n);
    wn_chat_text_release(&r);
    return j;
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        json_t *task = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
        if (!json_is_string(json_object_get(task, "template"))) {
            fprintf(stderr, "chatlines: a line is no {\"template\": ..., \"vars\": ...}\n");
            return 1;
        }
        json_t *j = answer(task);
        char *out = json_dumps(j, JSON_COMPACT);
        if (out) puts(out);
        fflush(stdout);                 /* whoever asks may wait for the answer */
        free(out);
        json_decref(j);
        json_decref(task);
    }
    free(line);
    return 0;
}
