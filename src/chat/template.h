/* chat/template.h - a Jinja template: read once, rendered any number of times.
 *
 * The language is what chat templates in GGUF files use of Jinja 3, with the settings of
 * transformers: trim_blocks and lstrip_blocks on, break and continue, {% generation %},
 * raise_exception(), strftime_now(), and a tojson that leaves text as it is. Left out are what
 * reaches other files (include, import, extends) and what only makes web pages.
 *
 * A template is a stranger's program: see vm.h for what it may use. One that is wrong, or does
 * not end, or is too greedy, gives a sentence with line and column.
 */
#ifndef WN_CHAT_TEMPLATE_H
#define WN_CHAT_TEMPLATE_H

#include "base/err.h"

#include <jansson.h>

typedef struct wn_template wn_template;

/* The source is copied; it must be UTF-8. */
wn_status wn_template_open(wn_template **out, const char *source, size_t n, wn_err *err);
void wn_template_close(wn_template *t);

typedef struct {
    const json_t *vars;                 /* an object: what the template's names stand for; strings
                                           are data ... */
    const json_t *trusted;              /* ... and here they are as good as the template's own; may
                                           be NULL */
    int64_t now;                        /* seconds since the epoch for strftime_now(); 0: the
                                           clock */
    uint64_t max_steps;                 /* 0: enough for conversations of millions of tokens, gone
                                           in a second */
    size_t max_out, max_memory;         /* bytes; 0: 64 MiB and 256 MiB, and more for large
                                           inputs */
} wn_render_opts;

/* out->plain: which bytes were data. Roles that everybody knows ("user", "assistant" ...) count as
 * the template's own text, because templates build special tokens of them: '<|' + message.role +
 * '|>'. */
wn_status wn_template_render(const wn_template *t, const wn_render_opts *o, wn_chat_text *out,
                             wn_err *err);

#endif
