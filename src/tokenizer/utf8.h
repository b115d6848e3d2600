/* tokenizer/utf8.h - one step through bytes that should be UTF-8.
 *
 * Well-formed is what the Unicode standard's table 3-7 says: no overlong forms, no
 * surrogates, nothing above U+10FFFF. Everything else is "not a character", in one of
 * two ways that only a stream has to tell apart: broken for good, or not yet complete.
 */
#ifndef WN_TOKENIZER_UTF8_H
#define WN_TOKENIZER_UTF8_H

#include <stddef.h>

typedef struct {
    size_t n;           /* bytes the answer is about, at least 1 */
    enum { WN_UTF8_CHAR, WN_UTF8_BROKEN, WN_UTF8_SHORT } is;
} wn_utf8;

/* The character at p (n > 0 bytes). BROKEN: the first n bytes can never begin a
 * character, whatever follows (the longest such start, as the standard advises for
 * U+FFFD). SHORT: all of p is the beginning of a character. */
static inline wn_utf8 wn_utf8_at(const char *p, size_t n)
{
    const unsigned char *s = (const unsigned char *)p;
    unsigned char lo = 0x80, hi = 0xBF;
    size_t len;
    if (s[0] < 0x80) return (wn_utf8){ 1, WN_UTF8_CHAR };
    if (s[0] < 0xC2 || s[0] > 0xF4) return (wn_utf8){ 1, WN_UTF8_BROKEN };
    len = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (s[0] == 0xE0) lo = 0xA0;        /* overlong below */
    if (s[0] == 0xED) hi = 0x9F;        /* surrogates above */
    if (s[0] == 0xF0) lo = 0x90;
    if (s[0] == 0xF4) hi = 0x8F;
    for (size_t i = 1; i < len; i++) {
        if (i == n) return (wn_utf8){ n, WN_UTF8_SHORT };
        if (s[i] < lo || s[i] > hi) return (wn_utf8){ i, WN_UTF8_BROKEN };
        lo = 0x80, hi = 0xBF;
    }
    return (wn_utf8){ len, WN_UTF8_CHAR };
}

#endif
