/* chat/string.c - text that remembers where it came from: see value.h. Positions are bytes
 * here; what counts characters walks them, and pays for it. */
#include "chat/value.h"

#include "tokenizer/utf8.h"

#include <string.h>
#include <utf8proc.h>

const wn_string *wn_string_lit(wn_vm *vm, const char *p, size_t n)
{
    wn_string *s = wn_vm_take(vm, sizeof *s);
    *s = (wn_string){ .p = p, .n = n };
    return s;
}

const wn_string *wn_string_dup(wn_vm *vm, const char *p, size_t n, bool data)
{
    wn_string *s = wn_vm_take(vm, sizeof *s);
    char *copy = wn_vm_take(vm, n);
    uint8_t *from = data && n ? wn_vm_take(vm, n) : NULL;
    if (n) memcpy(copy, p, n);
    if (from) memset(from, 1, n);
    *s = (wn_string){ .p = copy, .from = from, .n = n };
    return s;
}

const wn_string *wn_string_cut(wn_vm *vm, const wn_string *s, size_t from, size_t to)
{
    if (from == 0 && to == s->n) return s;
    wn_string *c = wn_vm_take(vm, sizeof *c);
    *c = (wn_string){ .p = s->p + from, .from = s->from ? s->from + from : NULL, .n = to - from };
    return c;
}

const wn_string *wn_string_join(wn_vm *vm, const wn_string *a, const wn_string *b)
{
    if (!b->n) return a;
    if (!a->n) return b;
    wn_text_buf *buf = a->home;
    if (!buf || buf->p != a->p || buf->n != a->n) {
        buf = wn_buf_new(vm, a->n + b->n);
        wn_buf_string(vm, buf, a);
    }
    wn_buf_string(vm, buf, b);
    return wn_buf_done(vm, buf);
}

bool wn_string_same(const wn_string *a, const wn_string *b)
{
    return a->n == b->n && memcmp(a->p, b->p, a->n) == 0;
}
bool wn_string_is(const wn_string *s, const char *z)
{
    return s->n == strlen(z) && memcmp(s->p, z, s->n) == 0;
}

/* bytes of UTF-8 sort as code points do */
int wn_string_order(const wn_string *a, const wn_string *b)
{
    int c = memcmp(a->p, b->p, WN_MIN(a->n, b->n));
    return c ? c : a->n < b->n ? -1 : a->n > b->n;
}

size_t wn_string_find(wn_vm *vm, const wn_string *s, const wn_string *needle, size_t from)
{
    if (from > s->n) return SIZE_MAX;
    if (!needle->n) return from;
    const char *at = memmem(s->p + from, s->n - from, needle->p, needle->n);
    wn_vm_spend(vm, (at ? (size_t)(at - s->p) - from : s->n - from) / 32);
    return at ? (size_t)(at - s->p) : SIZE_MAX;
}

size_t wn_string_chars(wn_vm *vm, const wn_string *s)
{
    size_t n = 0;
    wn_vm_spend(vm, s->n / 64);
    for (size_t i = 0; i < s->n; i++) n += (s->p[i] & 0xC0) != 0x80;
    return n;
}

int32_t wn_char_at(const wn_string *s, size_t at)
{
    utf8proc_int32_t c = -1;
    utf8proc_iterate((const utf8proc_uint8_t *)s->p + at, (utf8proc_ssize_t)(s->n - at), &c);
    return c;
}

size_t wn_char_before(const wn_string *s, size_t at)
{
    size_t n = 1;
    while (n < at && (s->p[at - n] & 0xC0) == 0x80) n++;
    return n;
}

bool wn_char_is_space(int32_t c)
{
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
    if (c == 0x85 || c == 0x2028 || c == 0x2029) return true;
    return utf8proc_category(c) == UTF8PROC_CATEGORY_ZS;
}

static bool strips(const wn_string *s, size_t at, size_t n, const wn_string *chars)
{
    if (!chars) return wn_char_is_space(wn_char_at(s, at));
    for (size_t i = 0; i < chars->n; i += wn_char_bytes(chars->p + i))
        if (wn_char_bytes(chars->p + i) == n && !memcmp(chars->p + i, s->p + at, n)) return true;
    return false;
}

const wn_string *wn_string_strip(wn_vm *vm, const wn_string *s, const wn_string *chars, bool left,
                                 bool right)
{
    size_t from = 0, to = s->n;
    for (size_t n; left && from < to; from += n)
        if (!strips(s, from, n = wn_char_bytes(s->p + from), chars)) break;
    for (size_t n; right && from < to; to -= n) {
        n = wn_char_before(s, to);
        if (!strips(s, to - n, n, chars)) break;
    }
    wn_vm_spend(vm, (s->n - (to - from)) / 4 * (1 + (chars ? chars->n / 4 : 0)));
    return wn_string_cut(vm, s, from, to);
}

/* ---- builders ----------------------------------------------------------------------- */

wn_text_buf *wn_buf_new(wn_vm *vm, size_t cap)
{
    wn_text_buf *b = wn_vm_take(vm, sizeof *b);
    *b = (wn_text_buf){ .cap = WN_MAX(cap, (size_t)64) };
    b->p = wn_vm_take(vm, b->cap);
    return b;
}

static void grow(wn_vm *vm, wn_text_buf *b, size_t n)
{
    size_t cap = WN_MAX(2 * b->cap, b->n + n);
    char *p = wn_vm_take(vm, cap);
    memcpy(p, b->p, b->n);
    if (b->from) {
        uint8_t *from = wn_vm_take(vm, cap);
        memcpy(from, b->from, b->n);
        b->from = from;
    }
    b->p = p;
    b->cap = cap;
}

/* Room for n more bytes, paid for. The page has a limit of its own. */
static void reserve(wn_vm *vm, wn_text_buf *b, size_t n)
{
    if (n > vm->arena.size) wn_vm_take(vm, n);      /* fails with the sentence about memory */
    if (b == vm->page && n > vm->max_out - b->n)
        wn_vm_limit(vm, "the template writes more than the %zu MiB it may", vm->max_out >> 20);
    wn_vm_spend(vm, n / 64);
    if (n > b->cap - b->n) grow(vm, b, n);
}

static void want_map(wn_vm *vm, wn_text_buf *b)
{
    if (b->from) return;
    b->from = wn_vm_take(vm, b->cap);
    memset(b->from, 0, b->n);
}

void wn_buf_put(wn_vm *vm, wn_text_buf *b, const char *p, size_t n, const uint8_t *from)
{
    if (!n) return;
    reserve(vm, b, n);
    memcpy(b->p + b->n, p, n);
    if (from) want_map(vm, b);
    if (from) memcpy(b->from + b->n, from, n);
    else if (b->from) memset(b->from + b->n, 0, n);
    b->n += n;
}

void wn_buf_puts(wn_vm *vm, wn_text_buf *b, const char *z)
{
    wn_buf_put(vm, b, z, strlen(z), NULL);
}

void wn_buf_cut(wn_vm *vm, wn_text_buf *b, const wn_string *s, size_t from, size_t to)
{
    wn_buf_put(vm, b, s->p + from, to - from, s->from ? s->from + from : NULL);
}

void wn_buf_string(wn_vm *vm, wn_text_buf *b, const wn_string *s)
{
    wn_buf_put(vm, b, s->p, s->n, s->from);
}

void wn_buf_char(wn_vm *vm, wn_text_buf *b, int32_t c, bool data)
{
    static const uint8_t ones[4] = { 1, 1, 1, 1 };
    utf8proc_uint8_t u[4];
    utf8proc_ssize_t n = utf8proc_encode_char(c, u);
    if (n > 0) wn_buf_put(vm, b, (const char *)u, (size_t)n, data ? ones : NULL);
}

void wn_buf_repeat(wn_vm *vm, wn_text_buf *b, char c, size_t n)
{
    reserve(vm, b, n);
    memset(b->p + b->n, c, n);
    if (b->from) memset(b->from + b->n, 0, n);
    b->n += n;
}

const wn_string *wn_buf_done(wn_vm *vm, wn_text_buf *b)
{
    wn_string *s = wn_vm_take(vm, sizeof *s);
    *s = (wn_string){ .p = b->p, .from = b->from, .n = b->n, .home = b };
    return s;
}
