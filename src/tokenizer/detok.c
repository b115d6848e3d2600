/* tokenizer/detok.c - ids back to text, one at a time.
 *
 * A token may end in the middle of a character, so a stream keeps the bytes that can
 * still become one (at most three) and lets only whole characters through. What comes
 * out depends on the bytes alone, not on how they were cut into tokens: broken sequences
 * become one U+FFFD each, by the rule in utf8.h.
 */
#include <string.h>

#include "tokenizer/utf8.h"
#include "tokenizer/vocab.h"

size_t wn_token_bytes(const wn_tokenizer *t, int32_t id, bool special, char *buf, size_t cap)
{
    if (id < 0 || id >= t->vocab.n || (!special && wn_tokenizer_is_special(t, id))) return 0;
    wn_str b = wn_vocab_bytes(&t->vocab, id);
    if (cap && b.n) memcpy(buf, b.p, WN_MIN(b.n, cap));
    return b.n;
}

void wn_detok_init(wn_detok *d, const wn_tokenizer *t, bool special)
{
    *d = (wn_detok){ .t = t, .special = special };
}

size_t wn_detok_max(const wn_tokenizer *t)
{
    return 3 * (t->vocab.longest_bytes + 3);    /* every byte, and those waiting, as U+FFFD */
}

/* Writes the whole characters of s to out; returns how many bytes of s are left at its end. */
static size_t put_whole(const char *s, size_t n, char *out, size_t *n_out)
{
    size_t i = 0;
    while (i < n) {
        wn_utf8 u = wn_utf8_at(s + i, n - i);
        if (u.is == WN_UTF8_SHORT) break;
        memcpy(out + *n_out, u.is == WN_UTF8_CHAR ? s + i : "\xEF\xBF\xBD",
               u.is == WN_UTF8_CHAR ? u.n : 3);
        *n_out += u.is == WN_UTF8_CHAR ? u.n : 3;
        i += u.n;
    }
    return n - i;
}

/* The bytes that id adds to the text. A space put in front by the tokenizer is taken off
 * where encoding puts one: before the first word, and after a control token. */
static wn_str bytes_of(wn_detok *d, int32_t id)
{
    const wn_vocab *v = &d->t->vocab;
    wn_str b = { "", 0 };
    if (id < 0 || id >= v->n) return b;
    bool special = wn_tokenizer_is_special(d->t, id);
    if (!special || d->special) b = wn_vocab_bytes(v, id);
    if (v->type[id] == WN_TOK_CONTROL) {
        d->started = false;
    } else {
        if (!d->started && d->t->space_prefix && v->type[id] != WN_TOK_USER && b.n && b.p[0] == ' ')
            b = (wn_str){ b.p + 1, b.n - 1 };
        d->started = true;
    }
    return b;
}

size_t wn_detok_push(wn_detok *d, int32_t id, char *buf, size_t cap)
{
    wn_str b = bytes_of(d, id);
    size_t n_out = 0, used = 0, left;
    WN_ASSERT(cap >= 3 * (b.n + 3));
    /* First the character that waits, fed byte by byte until it is whole or broken. */
    while (d->n_wait && used < b.n) {
        d->wait[d->n_wait++] = b.p[used++];
        left = put_whole(d->wait, (size_t)d->n_wait, buf, &n_out);
        memmove(d->wait, d->wait + ((size_t)d->n_wait - left), left);
        d->n_wait = (int)left;
    }
    left = put_whole(b.p + used, b.n - used, buf, &n_out);
    if (left) memcpy(d->wait, b.p + b.n - left, left);
    d->n_wait = d->n_wait && used == b.n ? d->n_wait : (int)left;
    return n_out;
}

size_t wn_detok_end(wn_detok *d, char *buf, size_t cap)
{
    if (!d->n_wait || cap < 3) return 0;
    memcpy(buf, "\xEF\xBF\xBD", 3);
    d->n_wait = 0;
    return 3;
}
