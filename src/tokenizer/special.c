/* tokenizer/special.c - tokens that are matched in the text before anything else.
 *
 * User-defined tokens always are; control tokens only where the caller says that the text is a
 * template rather than something a user wrote: all of it, or all but some ranges. The candidates
 * are sorted by their bytes, so those that agree with the text so far are a range, and each further
 * byte of the text narrows it by two binary searches: a vocabulary with thousands of them costs
 * little, and nothing where no candidate begins with the byte at hand.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tokenizer/vocab.h"

void wn_specials_release(wn_specials *s)
{
    wn_free(s->id);
    *s = (wn_specials){ 0 };
}

typedef struct {
    wn_str bytes;
    int32_t id;
} candidate;

static int by_bytes(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    int c = memcmp(x->bytes.p, y->bytes.p, WN_MIN(x->bytes.n, y->bytes.n));
    if (c) return c;
    if (x->bytes.n != y->bytes.n) return x->bytes.n < y->bytes.n ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool wanted(const wn_vocab *v, int32_t id, bool all)
{
    size_t n = wn_vocab_bytes(v, id).n;
    int t = v->type[id];
    if (n == 0 || n > WN_PIECE_MAX) return false;
    return t == WN_TOK_USER || (all && (t == WN_TOK_CONTROL || t == WN_TOK_UNKNOWN));
}

wn_status wn_specials_build(wn_specials *s, const wn_vocab *v, bool all, wn_err *err)
{
    candidate *c;
    size_t n = 0;
    *s = (wn_specials){ 0 };
    for (int32_t i = 0; i < v->n; i++) n += wanted(v, i, all);
    c = wn_alloc((n + 1) * sizeof *c);
    s->id = wn_alloc((n + 1) * sizeof *s->id);
    if (!c || !s->id) {
        wn_free(c);
        return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for %zu special tokens", n);
    }
    for (int32_t i = 0; i < v->n; i++)
        if (wanted(v, i, all)) c[s->n++] = (candidate){ wn_vocab_bytes(v, i), i };
    qsort(c, s->n, sizeof *c, by_bytes);
    for (size_t i = 0; i < s->n; i++) {
        s->id[i] = c[i].id;
        s->first[(unsigned char)c[i].bytes.p[0] + 1]++;
    }
    for (int b = 0; b < 256; b++) s->first[b + 1] += s->first[b];
    wn_free(c);
    return WN_OK;
}

/* Index of the first candidate in [lo, hi) whose byte at depth is >= byte. All are longer
 * than depth except possibly some at the front, which count as smaller. */
static uint32_t narrow(const wn_specials *s, const wn_vocab *v, uint32_t lo, uint32_t hi,
                       size_t depth, int byte)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        wn_str t = wn_vocab_bytes(v, s->id[mid]);
        if (t.n <= depth || (unsigned char)t.p[depth] < byte) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* The longest candidate that text begins with, or -1. */
static int32_t longest_at(const wn_specials *s, const wn_vocab *v, const char *text, size_t n,
                          size_t *len)
{
    unsigned char b = (unsigned char)text[0];
    uint32_t lo = s->first[b], hi = s->first[b + 1];
    int32_t id = -1;
    for (size_t depth = 1; lo < hi; depth++) {
        if (wn_vocab_bytes(v, s->id[lo]).n == depth) {      /* the shortest comes first */
            id = s->id[lo];
            *len = depth;
        }
        if (depth == n) break;
        b = (unsigned char)text[depth];
        lo = narrow(s, v, lo, hi, depth, b);
        hi = narrow(s, v, lo, hi, depth, b + 1);
    }
    return id;
}

size_t wn_specials_next(const wn_specials *s, const wn_vocab *v, const char *text, size_t n,
                        size_t from, int32_t *id, size_t *len)
{
    *id = -1;
    for (size_t i = s->n ? from : n; i < n; i++) {
        unsigned char b = (unsigned char)text[i];
        if (s->first[b] == s->first[b + 1]) continue;
        *id = longest_at(s, v, text + i, n - i, len);
        if (*id >= 0) return i;
    }
    return n;
}

/* ---- plain ranges ------------------------------------------------------------------ */

static void find_user(wn_special_walk *w, size_t from)
{
    if (w->user_known && w->user_at >= from) return;
    w->user_at = wn_specials_next(&w->t->user, &w->t->vocab, w->text, w->n, from, &w->user_id,
                                  &w->user_len);
    w->user_known = true;
}

size_t wn_special_walk_next(wn_special_walk *w, size_t from, int32_t *id, size_t *len)
{
    size_t at = w->n;
    *id = -1;
    if (w->all && !w->n_plain)
        return wn_specials_next(&w->t->all, &w->t->vocab, w->text, w->n, from, id, len);
    find_user(w, from);
    while (w->n_plain && w->plain->to <= from) w->plain++, w->n_plain--;
    const wn_range *p = w->plain, *last = w->n_plain ? p + w->n_plain : p;
    for (size_t pos = from; w->all && pos < w->user_at + (w->user_id >= 0); pos = p++->to) {
        /* of what is no data */
        size_t end = p < last ? WN_MIN(WN_MAX(p->from, pos), w->n) : w->n;
        at = wn_specials_next(&w->t->all, &w->t->vocab, w->text, end, pos, id, len);
        if (*id >= 0 || p == last) break;
    }
    /* What both could take goes to the one that begins first, then to the longer. */
    if (w->user_id >= 0 &&
        (*id < 0 || w->user_at < at || (w->user_at == at && w->user_len > *len))) {
        *id = w->user_id;
        *len = w->user_len;
        at = w->user_at;
    }
    return *id < 0 ? w->n : at;
}
