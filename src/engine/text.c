/* engine/text.c - the public functions for tokens and text: thin, over tokenizer/. */
#include "base/alloc.h"
#include "model/model.h"

#include <string.h>

struct wn_text {
    wn_detok d;
    size_t cap;
    char buf[];
};

wn_status wn_tokens_from_text(const wn_model *m, const char *text, size_t n_bytes, unsigned flags,
                              int32_t **ids, size_t *n_ids, wn_err *err)
{
    wn_tokenize_opts o = { .parse_special = flags & WN_PARSE_SPECIAL,
                           .no_bos_eos = flags & WN_NO_BOS };
    return wn_tokenize(m->tokenizer, text, n_bytes, &o, ids, n_ids, err);
}

wn_status wn_tokens_from_ranges(const wn_model *m, const char *text, size_t n_bytes, unsigned flags,
                                const wn_range *plain, size_t n_plain, int32_t **ids, size_t *n_ids,
                                wn_err *err)
{
    wn_tokenize_opts o = { .parse_special = true, .no_bos_eos = flags & WN_NO_BOS, .plain = plain,
                           .n_plain = n_plain };
    return wn_tokenize(m->tokenizer, text, n_bytes, &o, ids, n_ids, err);
}

void wn_tokens_free(int32_t *ids) { wn_free(ids); }

int32_t wn_model_bos(const wn_model *m) { return wn_tokenizer_bos(m->tokenizer); }
int32_t wn_model_eos(const wn_model *m) { return wn_tokenizer_eos(m->tokenizer); }
bool wn_model_is_end(const wn_model *m, int32_t id)
{
    return wn_tokenizer_is_end(m->tokenizer, id);
}

size_t wn_token_text(const wn_model *m, int32_t id, bool special, char *buf, size_t cap)
{
    return wn_token_bytes(m->tokenizer, id, special, buf, cap);
}

/* Bytes of text from at on that are the token's; -1: others. The first word of a SentencePiece
 * text has a space that nobody wrote, and what was added around the text is not in it at all. */
static ptrdiff_t spelled(const wn_model *m, int32_t id, const char *at, size_t left)
{
    char buf[1024];
    size_t n = wn_token_text(m, id, true, buf, sizeof buf);
    if (n > sizeof buf) return -1;
    if (n <= left && !memcmp(buf, at, n)) return (ptrdiff_t)n;
    if (n && *buf == ' ' && n - 1 <= left && !memcmp(buf + 1, at, n - 1)) return (ptrdiff_t)n - 1;
    return wn_token_text(m, id, false, buf, 0) == 0 ? 0 : -1;
}

wn_status wn_tokens_of_bytes(const wn_model *m, const int32_t *ids, size_t n_ids, const char *text,
                             size_t n_bytes, size_t first, size_t end, int *from, int *to,
                             wn_err *err)
{
    size_t at = 0;
    *from = *to = 0;
    if (first >= end || end > n_bytes)
        return wn_fail(err, WN_EINVAL, "bytes %zu to %zu: the text has %zu", first, end, n_bytes);
    for (size_t i = 0; i < n_ids && at < end; i++) {
        ptrdiff_t n = spelled(m, ids[i], text + at, n_bytes - at);
        if (n < 0)
            return wn_fail(err, WN_EINVAL,
                           "bytes %zu to %zu: the tokenizer has changed the text at byte %zu, its "
                           "tokens cannot "
                           "be told",
                           first, end, at);
        at += (size_t)n;
        if (at <= first) *from = (int)i + 1;
        *to = (int)i + 1;
    }
    if (at >= end) return WN_OK;
    return wn_fail(err, WN_EINVAL, "bytes %zu to %zu: the tokens hold %zu bytes of the text", first,
                   end, at);
}

wn_status wn_text_open(wn_text **out, const wn_model *m, unsigned flags, wn_err *err)
{
    size_t cap = wn_detok_max(m->tokenizer) + 1;
    *out = wn_alloc(sizeof **out + cap);
    if (!*out) return wn_fail(err, WN_ENOMEM, "text: out of memory");
    (*out)->cap = cap;
    wn_detok_init(&(*out)->d, m->tokenizer, flags & WN_SHOW_SPECIAL);
    (*out)->d.started = !(flags & WN_FROM_START);   /* after a prompt the first space is meant */
    return WN_OK;
}

void wn_text_close(wn_text *t) { wn_free(t); }

static const char *finish(wn_text *t, size_t len, size_t *n)
{
    t->buf[len] = '\0';
    if (n) *n = len;
    return t->buf;
}

const char *wn_text_push(wn_text *t, int32_t id, size_t *n)
{
    return finish(t, wn_detok_push(&t->d, id, t->buf, t->cap - 1), n);
}

const char *wn_text_end(wn_text *t, size_t *n)
{
    return finish(t, wn_detok_end(&t->d, t->buf, t->cap - 1), n);
}
