/* tokenizer/spm.c - SentencePiece-style BPE: characters, joined by score.
 *
 * Spaces become U+2581 and are letters like any other: a merge may reach over them where the
 * vocabulary has a piece that does. Most have none but those that begin with spaces; then no merge
 * ever joins a space to what is before it, and the text can be cut there with the same result (a 3
 * MB text: 2.0 MB/s in one piece, 9.1 cut into words). Symbols begin as characters; the pair whose
 * joined spelling has the highest score in the vocabulary is joined first. A symbol that no token
 * is spelled as falls back to its bytes, so every text, valid UTF-8 or not, has ids and comes back
 * the same; but for U+2581 itself, which reads as the space it stands for.
 */
#include <string.h>

#include "base/alloc.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocab.h"

typedef struct {
    const wn_vocab *v;
    const char *text;
} by_score;

static bool is_space(const char *s, size_t n, size_t at)
{
    return n - at >= 3 && memcmp(s + at, "\xE2\x96\x81", 3) == 0;
}

/* Floats as integers in the same order, turned round: the highest score is the lowest
 * key. -0 and 0 are one score. Never WN_NO_KEY, which would be a NaN. */
static uint32_t key_of(float score)
{
    union { float f; uint32_t u; } x = { score + 0.0f };
    uint32_t rising = x.u >> 31 ? ~x.u : x.u | 0x80000000u;
    return ~rising;
}

static void pair_by_score(const void *ctx, wn_symbol *a, const wn_symbol *b)
{
    const by_score *c = ctx;
    if ((size_t)a->n + b->n > c->v->longest_text) return;
    int32_t id = wn_vocab_find(c->v, c->text + a->at, a->n + b->n, true);
    if (id < 0) return;
    a->key = key_of(c->v->score[id]);
    a->joined = id;
}

/* Spaces (and the one put in front) as U+2581: into e->escaped, at most three times as long. */
static wn_status escape(wn_encoder *e, const char *text, size_t n, bool prefix, size_t *len,
                        wn_err *err)
{
    size_t need = 3 * (n + 1);
    char *o;
    if (need > e->cap_escaped) {
        wn_free(e->escaped);
        e->cap_escaped = 0;
        if (!(e->escaped = wn_alloc(need)))
            return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for %zu bytes of text", n);
        e->cap_escaped = need;
    }
    o = e->escaped;
    if (prefix) o = (char *)memcpy(o, "\xE2\x96\x81", 3) + 3;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ') o = (char *)memcpy(o, "\xE2\x96\x81", 3) + 3;
        else *o++ = text[i];
    }
    *len = (size_t)(o - e->escaped);
    return WN_OK;
}

/* Bytes that no token is spelled as: byte tokens, else the unknown token, else nothing. */
static wn_status push_bytes(wn_encoder *e, const char *s, size_t n, wn_err *err)
{
    wn_status st = WN_OK;
    for (size_t i = 0; i < n && !st; i++) {
        int32_t id = e->t->vocab.byte_id[(unsigned char)s[i]];
        if (id < 0) id = e->t->unk;
        if (id >= 0) st = wn_ids_push(&e->ids, id, err);
    }
    return st;
}

/* One stretch that no merge reaches out of. */
static wn_status encode_stretch(wn_encoder *e, const char *s, size_t n, wn_err *err)
{
    const wn_vocab *v = &e->t->vocab;
    wn_merge *m = &e->merge;
    wn_status st = wn_merge_begin(m, n, err);
    if (st) return st;
    for (size_t i = 0; i < n;) {
        wn_utf8 u = wn_utf8_at(s + i, n - i);
        if (u.is != WN_UTF8_CHAR) u.n = 1;
        wn_merge_add(m, (uint32_t)i, (uint32_t)u.n,
                     u.is == WN_UTF8_CHAR ? wn_vocab_find(v, s + i, u.n, true) : -1);
        i += u.n;
    }
    wn_merge_run(m, pair_by_score, &(by_score){ v, s });
    for (uint32_t i = 0; i != UINT32_MAX && !st; i = m->sym[i].next) {
        const wn_symbol *x = &m->sym[i];
        if (x->id >= 0)
            st = wn_ids_push(&e->ids, x->id, err);
        else if (is_space(s, n, x->at))
            st = push_bytes(e, " ", 1, err);        /* a vocabulary without U+2581 */
        else
            st = push_bytes(e, s + x->at, x->n, err);
    }
    return st;
}

/* Where the stretch that begins at from ends: before the next space after something else,
 * if no piece could reach over it, else at the end. */
static size_t stretch_end(const wn_vocab *v, const char *s, size_t n, size_t from)
{
    size_t i = from;
    if (!v->space_leads) return n;
    while (is_space(s, n, i)) i += 3;
    while (i < n && !is_space(s, n, i)) i++;
    return i;
}

wn_status wn_spm_encode(wn_encoder *e, const char *text, size_t n, bool prefix, wn_err *err)
{
    size_t len = 0;
    wn_status st;
    if (n == 0) return WN_OK;
    st = escape(e, text, n, prefix, &len, err);
    for (size_t from = 0, to; from < len && !st; from = to) {
        to = stretch_end(&e->t->vocab, e->escaped, len, from);
        st = encode_stretch(e, e->escaped + from, to - from, err);
    }
    return st;
}
