/* eval/haystack.c - where one sentence ends and the next begins.
 *
 * Facts are put between sentences, never inside one, so that a case reads like a text in
 * which somebody wrote them down. A sentence ends at . ! or ? (and the quotes and brackets
 * that close with it) when white space and a capital or an opening quote follow, except
 * after a title ("Mr. Brooke") or an initial; a blank line always ends one. A missed border
 * costs nothing, a wrong one a little beauty, so these few rules are enough.
 *
 *     piece 0          | piece 1             | piece 2
 *     There was a man. |_His wife lay sick.  |\n\nThe maiden went ...
 */
#include "eval/haystack.h"

#include <string.h>

#include "base/alloc.h"

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
static bool is_letter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

/* The word that ends right before end is one after which a full stop ends nothing. */
static bool is_abbreviation(const char *text, const char *end)
{
    static const char *const known[] = { "Mr",  "Mrs",  "Dr",     "St",  "Rev",
                                         "Esq", "Capt", "Messrs", "Sir", "No" };
    const char *s = end;
    while (s > text && is_letter(s[-1])) s--;
    size_t n = (size_t)(end - s);
    if (n == 1 && *s >= 'A' && *s <= 'Z' && *s != 'I') return true;
    for (size_t i = 0; i < WN_COUNT(known); i++)
        if (n == strlen(known[i]) && !memcmp(s, known[i], n)) return true;
    return false;
}

/* The next border after s: the first byte of the white space between two sentences. */
static const char *next_border(const char *text, const char *s, const char *end)
{
    while (s < end && is_space(*s)) s++;
    for (; s < end; s++) {
        if (*s == '\n') {
            const char *e = s + 1;
            while (e < end && (*e == ' ' || *e == '\t' || *e == '\r')) e++;
            if (e < end && *e == '\n') return s;
            continue;
        }
        if (*s != '.' && *s != '!' && *s != '?') continue;
        if (*s == '.' && is_abbreviation(text, s)) continue;
        const char *e = s + 1;
        while (e < end && (*e == '"' || *e == '\'' || *e == ')')) e++;
        if (e >= end || !is_space(*e)) continue;
        const char *next = e;
        while (next < end && is_space(*next)) next++;
        if (next < end && ((*next >= 'A' && *next <= 'Z') || *next == '"' || *next == '('))
            return e;
    }
    return end;
}

/* Whether the bytes are UTF-8 (overlong forms and surrogates aside: no model trips over them). */
static bool is_utf8(const unsigned char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t k = s[i] < 0x80                   ? 1
                   : s[i] >= 0xC2 && s[i] < 0xE0 ? 2
                   : s[i] >= 0xE0 && s[i] < 0xF0 ? 3
                   : s[i] >= 0xF0 && s[i] < 0xF5 ? 4
                                                 : 0;
        if (!k || k > n - i || !s[i]) return false;
        for (size_t j = 1; j < k; j++)
            if ((s[i + j] & 0xC0) != 0x80) return false;
        i += k;
    }
    return true;
}

wn_status wn_haystack_init(wn_haystack *out, const char *text, size_t n, const char *name,
                           wn_err *err)
{
    const char *s, *end;
    int k = 0;
    *out = (wn_haystack){ 0 };
    while (n && is_space(text[n - 1])) n--;
    while (n && is_space(*text)) text++, n--;
    if (!is_utf8((const unsigned char *)text, n))
        return wn_fail(err, WN_EFORMAT, "haystack %s: not UTF-8 text; convert it first", name);
    end = text + n;
    for (s = text; s < end; s = next_border(text, s, end)) k++;
    if (k < 2)
        return wn_fail(
            err, WN_EFORMAT,
            "haystack %s: %d sentences are not enough to hide facts between; give a longer text",
            name, k);
    *out = (wn_haystack){ .text = text, .n = n, .n_pieces = k };
    out->start = WN_NEW_ARRAY(size_t, k + 1);
    if (!out->start)
        return wn_fail(err, WN_ENOMEM, "haystack %s: out of memory for %d sentences", name, k);
    k = 0;
    for (s = text; s < end; s = next_border(text, s, end)) out->start[k++] = (size_t)(s - text);
    out->start[k] = n;
    return WN_OK;
}

void wn_haystack_release(wn_haystack *h)
{
    wn_free(h->start);
    *h = (wn_haystack){ 0 };
}

wn_piece wn_haystack_piece(const wn_haystack *h, int i)
{
    wn_piece p = { .text = h->text + h->start[i], .n = h->start[i + 1] - h->start[i] };
    while (p.n_space < p.n && is_space(p.text[p.n_space])) p.n_space++;
    return p;
}
