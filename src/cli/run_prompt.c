/* cli/run_prompt.c - what `winnow run` reads: see run.h.
 *
 * A prompt is tokens, whatever it was given as. What a session file holds of them is not computed
 * again, up to the first token that differs; the last one always is, for its logits.
 */
#include "cli/chat_template.h"
#include "cli/io.h"
#include "cli/run.h"

#include "base/alloc.h"

#include <string.h>
#include <unistd.h>

/* --chat: the text as the user's message, in the model's own form. */
static wn_status ask(wn_run *r, const char *text, wn_err *err)
{
    const wn_run_options *o = r->o;
    wn_chat *c;
    wn_status st = wn_cli_open_chat(&c, r->m, o->template, err);
    if (st) return st;
    const wn_message talk[] = { { "system", o->system }, { "user", text } };
    st = wn_chat_tokens(c, &(wn_chat_input){ .messages = talk + !o->system,
                                             .n_messages = 1 + !!o->system }, &r->ids, &r->n_ids,
                        err);
    wn_chat_close(c);
    return st;
}

static wn_status read_tokens(wn_run *r, wn_err *err)
{
    char *bytes;
    size_t len;
    wn_status st = wn_cli_read_all(r->o->tokens_file, &bytes, &len, err);
    if (st) return st;
    if (len % sizeof(int32_t) || !len) {
        wn_free(bytes);
        return wn_fail(err, WN_EFORMAT, "%s: %zu bytes are not a list of int32 token ids",
                       r->o->tokens_file, len);
    }
    r->ids = (int32_t *)(void *)bytes;
    r->n_ids = len / sizeof(int32_t);
    return WN_OK;
}

/* The text of -f or, without -f and -p, of standard input; that of -p behind it. */
static wn_status read_text(const wn_run_options *o, char **text, size_t *len, wn_err *err)
{
    wn_status st;
    *text = NULL;
    *len = 0;
    if ((o->file || !o->prompt) && (st = wn_cli_read_all(o->file ? o->file : "-", text, len, err)))
        return st;
    if (!o->prompt) return WN_OK;
    size_t add = strlen(o->prompt);
    char *both = wn_realloc(*text, *len + add + 1);
    if (!both) {
        wn_free(*text);
        return wn_fail(err, WN_ENOMEM, "prompt: out of memory");
    }
    memcpy(both + *len, o->prompt, add + 1);
    *text = both;
    *len += add;
    return WN_OK;
}

wn_status wn_run_read_prompt(wn_run *r, wn_err *err)
{
    const wn_run_options *o = r->o;
    unsigned flags = (o->parse_special ? WN_PARSE_SPECIAL : 0) | (o->no_bos ? WN_NO_BOS : 0);
    char *text;
    size_t len;
    if (o->tokens_file) return read_tokens(r, err);
    wn_status st = read_text(o, &text, &len, err);
    if (st) return st;
    st = o->chat ? ask(r, text, err)
                 : wn_tokens_from_text(r->m, text, len, flags, &r->ids, &r->n_ids, err);
    const int32_t *ids = r->ids;
    size_t n = r->n_ids;
    if (!st) st = wn_cli_spans("--protect", &o->protect, r->m, ids, n, text, len, r->kept, err);
    if (!st) st = wn_cli_spans("--span", &o->span, r->m, ids, n, text, len, r->spans, err);
    wn_free(text);
    if (!st && r->n_ids == 0) {
        int32_t bos = wn_model_bos(r->m);
        if (bos < 0) return wn_fail(err, WN_EINVAL, "the prompt is empty");
        r->ids[0] = bos;                /* the tokenizer's block has room for one */
        r->n_ids = 1;
    }
    return st;
}

wn_status wn_run_resume(wn_run *r, wn_err *err)
{
    if (!r->o->session || access(r->o->session, F_OK)) return WN_OK;
    wn_status st = wn_seq_load(r->s, r->o->session, err);
    if (st) return st;
    const int32_t *have = wn_seq_tokens(r->s);
    /* the last token is always computed */
    size_t k = 0, max = WN_MIN((size_t)wn_seq_n_tokens(r->s), r->n_ids - 1);
    while (k < max && have[k] == r->ids[k]) k++;
    if (!r->o->quiet && k < (size_t)wn_seq_n_tokens(r->s))
        fprintf(stderr, "session %s: holds %d tokens, the first %zu are this prompt's\n",
                r->o->session, wn_seq_n_tokens(r->s), k);
    if ((st = wn_seq_truncate(r->s, (int)k, err))) return st;
    r->cached = (size_t)wn_seq_n_done(r->s);
    if (!r->o->quiet && r->cached < k)    /* what was encoded or decided since does not come back by
                                           cutting */
        fprintf(
            stderr,
            "session %s: the cache can go on from token %zu, what comes after is computed again\n",
            r->o->session, r->cached);
    return WN_OK;
}

wn_status wn_run_name_ranges(wn_run *r, wn_err *err)
{
    wn_status st = WN_OK;
    for (int i = 0; i < r->o->protect.n && !st; i++)
        if ((st = wn_seq_protect(r->s, r->kept[i].from, r->kept[i].to, WN_RANGE_NAMED, err)))
            wn_fail_prefix(err, st, "--protect %s", r->o->protect.items[i]);
    for (int i = 0; i < r->o->span.n && !st; i++)
        if ((st = wn_seq_name_span(r->s, r->spans[i].from, r->spans[i].to, err)))
            wn_fail_prefix(err, st, "--span %s", r->o->span.items[i]);
    return st;
}
