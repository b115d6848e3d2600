/* cli/chat_template.c - see chat_template.h. */
#include "cli/chat_template.h"
#include "cli/io.h"

#include "base/alloc.h"

wn_status wn_cli_open_chat(wn_chat **out, const wn_model *m, const char *name, wn_err *err)
{
    char *text = NULL;
    size_t n;
    wn_status st;
    *out = NULL;
    wn_chat_opts o = { .source = name ? wn_chat_builtin(name) : NULL };
    if (name && !o.source) {
        if ((st = wn_cli_read_all(name, &text, &n, err)))
            return wn_fail_prefix(err, st, "--template (a file with Jinja, or chatml or plain)");
        o.source = text;
    }
    st = wn_chat_open(out, m, &o, err);
    if (st == WN_EUNSUPPORTED && !name)
        st = wn_fail(err, st,
                     "the model has no chat template; name one with --template FILE, or take a "
                     "built-in form: "
                     "--template chatml or --template plain");
    else if (st && name) wn_fail_prefix(err, st, "--template %.100s", name);
    wn_free(text);
    return st;
}
