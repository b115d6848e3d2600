/* chat/methods.c - methods of strings, lists and dicts, as Python has them.
 *
 * Everything cuts and copies by bytes with their origin; only what Python counts (find, center,
 * a limit of splits) counts characters. Lists and dicts can be changed, although transformers
 * forbids it: a template then sees its own copy of the conversation change, and nobody else does.
 */
#include "chat/run.h"

#include <string.h>
#include <utf8proc.h>

/* ---- text shared with filters ---------------------------------------------------------------- */

static bool is_cased(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

static int32_t in_case(int32_t c, int how, bool begins)
{
    bool upper = how == 'u' || (how == 's' && utf8proc_tolower(c) == c);
    if (how == 't' || how == 'c') return begins ? utf8proc_totitle(c) : utf8proc_tolower(c);
    return upper ? utf8proc_toupper(c) : utf8proc_tolower(c);
}

const wn_string *wn_string_case(wn_vm *vm, const wn_string *s, int how)
{
    wn_text_buf *b = wn_buf_new(vm, s->n);
    bool begins = true;
    for (size_t i = 0; i < s->n; i += wn_char_bytes(s->p + i)) {
        int32_t c = wn_char_at(s, i);
        bool up = how == 'u' || how == 's' || begins;
        wn_vm_spend(vm, 1);
        if (c == 0xDF && how != 'l' && up) {        /* sharp s: one letter small, two capital */
            wn_buf_char(vm, b, 'S', wn_string_is_data(s, i));
            wn_buf_char(vm, b, how == 'u' || how == 's' ? 'S' : 's', wn_string_is_data(s, i));
        } else {
            wn_buf_char(vm, b, in_case(c, how, begins), wn_string_is_data(s, i));
        }
        begins = how == 't' && !is_cased(c);
    }
    return wn_buf_done(vm, b);
}

const wn_string *wn_string_replace(wn_vm *vm, const wn_string *s, const wn_string *was,
                                   const wn_string *is, int64_t count)
{
    wn_text_buf *b = wn_buf_new(vm, s->n);
    size_t at = 0;
    while (count != 0) {
        size_t next = wn_string_find(vm, s, was, at);
        wn_vm_spend(vm, 1);
        if (next == SIZE_MAX) break;
        wn_buf_cut(vm, b, s, at, next);
        wn_buf_string(vm, b, is);
        at = next + was->n;
        if (count > 0) count--;
        if (was->n) continue;
        if (at == s->n) return wn_buf_done(vm, b);
        wn_buf_cut(vm, b, s, at, at + wn_char_bytes(s->p + at));     /* between all characters */
        at += wn_char_bytes(s->p + at);
    }
    wn_buf_cut(vm, b, s, at, s->n);
    return wn_buf_done(vm, b);
}

const wn_string *wn_string_pad(wn_vm *vm, const wn_string *s, int64_t width, const wn_string *fill,
                               char where)
{
    int64_t n = (int64_t)wn_string_chars(vm, s), all = width > n ? width - n : 0;
    int64_t left = where == '<'   ? 0
                   : where == '>' ? all
                                  : all / 2 + (where == 'c' ? all & width & 1 : 0);
    wn_text_buf *b = wn_buf_new(vm, s->n);
    for (int64_t i = 0; i < left; i++, wn_vm_spend(vm, 1)) wn_buf_string(vm, b, fill);
    wn_buf_string(vm, b, s);
    for (int64_t i = left; i < all; i++, wn_vm_spend(vm, 1)) wn_buf_string(vm, b, fill);
    return wn_buf_done(vm, b);
}

wn_list *wn_string_words(wn_vm *vm, const wn_string *s, int64_t max)
{
    wn_list *l = wn_list_new(vm, 0);
    size_t i = 0;
    for (;;) {
        while (i < s->n && wn_char_is_space(wn_char_at(s, i))) i += wn_char_bytes(s->p + i);
        if (i >= s->n) return l;
        size_t from = i;
        if (max >= 0 && (int64_t)l->n >= max) {
            wn_list_add(vm, l, wn_val_of(wn_string_cut(vm, s, from, s->n)));
            return l;
        }
        while (i < s->n && !wn_char_is_space(wn_char_at(s, i))) i += wn_char_bytes(s->p + i);
        wn_vm_spend(vm, (i - from) / 8);
        wn_list_add(vm, l, wn_val_of(wn_string_cut(vm, s, from, i)));
    }
}

/* ---- strings --------------------------------------------------------------------------------- */

static int64_t int_or(wn_vm *vm, wn_value v, int64_t otherwise)
{
    return !wn_given(v) || v.kind == WN_NONE ? otherwise : wn_want_int(vm, v, "this argument");
}
static const wn_string *str_or(wn_vm *vm, wn_value v, const wn_string *otherwise)
{
    return !wn_given(v) || v.kind == WN_NONE ? otherwise : wn_want_str(vm, v, "this argument");
}
static wn_value str(const wn_string *s) { return wn_val_of(s); }
static wn_value cut(wn_vm *vm, const wn_string *s, size_t from, size_t to)
{
    return wn_val_of(wn_string_cut(vm, s, from, to));
}

WN_BUILTIN(s_upper) { return str(wn_string_case(vm, self.s, 'u')); }
WN_BUILTIN(s_lower) { return str(wn_string_case(vm, self.s, 'l')); }
WN_BUILTIN(s_title) { return str(wn_string_case(vm, self.s, 't')); }
WN_BUILTIN(s_capitalize) { return str(wn_string_case(vm, self.s, 'c')); }
WN_BUILTIN(s_swapcase) { return str(wn_string_case(vm, self.s, 's')); }
WN_BUILTIN(s_strip) { return str(wn_string_strip(vm, self.s, str_or(vm, a[0], NULL), true, true)); }
WN_BUILTIN(s_lstrip)
{
    return str(wn_string_strip(vm, self.s, str_or(vm, a[0], NULL), true, false));
}
WN_BUILTIN(s_rstrip)
{
    return str(wn_string_strip(vm, self.s, str_or(vm, a[0], NULL), false, true));
}

static bool begins(const wn_string *s, const wn_string *with)
{
    return s->n >= with->n && !memcmp(s->p, with->p, with->n);
}
static bool ends(const wn_string *s, const wn_string *with)
{
    return s->n >= with->n && !memcmp(s->p + s->n - with->n, with->p, with->n);
}

/* One string or a tuple of them. */
static wn_value any_of(wn_vm *vm, const wn_string *s, wn_value v,
                       bool (*is)(const wn_string *, const wn_string *))
{
    if (v.kind != WN_TUPLE) return wn_val_bool(is(s, wn_want_str(vm, v, "what to look for")));
    for (size_t i = 0; i < v.list->n; i++)
        if (is(s, wn_want_str(vm, v.list->at[i], "what to look for"))) return wn_val_bool(true);
    return wn_val_bool(false);
}
WN_BUILTIN(s_startswith) { return any_of(vm, self.s, a[0], begins); }
WN_BUILTIN(s_endswith) { return any_of(vm, self.s, a[0], ends); }

WN_BUILTIN(s_removeprefix)
{
    const wn_string *p = wn_want_str(vm, a[0], "the prefix");
    return cut(vm, self.s, begins(self.s, p) ? p->n : 0, self.s->n);
}
WN_BUILTIN(s_removesuffix)
{
    const wn_string *p = wn_want_str(vm, a[0], "the suffix");
    return cut(vm, self.s, 0, self.s->n - (ends(self.s, p) ? p->n : 0));
}
WN_BUILTIN(s_replace)
{
    return str(wn_string_replace(vm, self.s, wn_want_str(vm, a[0], "what is replaced"),
                                 wn_want_str(vm, a[1], "what replaces"), int_or(vm, a[2], -1)));
}

/* Byte of the last occurrence that ends at or before `to`. */
static size_t find_last(wn_vm *vm, const wn_string *s, const wn_string *sep, size_t to)
{
    wn_vm_spend(vm, to / 16);
    for (size_t i = to + 1; i-- > 0;)
        if (i + sep->n <= to && !memcmp(s->p + i, sep->p, sep->n)) return i;
    return SIZE_MAX;
}

static const wn_string *separator(wn_vm *vm, wn_value v)
{
    const wn_string *s = wn_want_str(vm, v, "the separator");
    if (!s->n) wn_vm_fail(vm, "empty separator");
    return s;
}

static void turn_round(wn_list *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        wn_value t = l->at[i];
        l->at[i] = l->at[l->n - 1 - i];
        l->at[l->n - 1 - i] = t;
    }
}

WN_BUILTIN(s_split)
{
    int64_t max = int_or(vm, a[1], -1);
    if (!wn_given(a[0]) || a[0].kind == WN_NONE)
        return wn_val_list(wn_string_words(vm, self.s, max));
    const wn_string *sep = separator(vm, a[0]);
    wn_list *l = wn_list_new(vm, 0);
    size_t at = 0, next;
    while ((max < 0 || (int64_t)l->n < max) &&
           (next = wn_string_find(vm, self.s, sep, at)) != SIZE_MAX) {
        wn_list_add(vm, l, cut(vm, self.s, at, next));
        at = next + sep->n;
    }
    wn_list_add(vm, l, cut(vm, self.s, at, self.s->n));
    return wn_val_list(l);
}

static void words_from_right(wn_vm *vm, const wn_string *s, wn_list *l, int64_t max)
{
    size_t to = s->n, n;
    for (;;) {
        while (to && wn_char_is_space(wn_char_at(s, to - (n = wn_char_before(s, to))))) to -= n;
        if (!to) return;
        if (max >= 0 && (int64_t)l->n >= max) {
            const wn_string *rest = wn_string_strip(vm, wn_string_cut(vm, s, 0, to), NULL, false,
                                                    true);
            wn_list_add(vm, l, str(rest));
            return;
        }
        size_t from = to;
        while (from && !wn_char_is_space(wn_char_at(s, from - (n = wn_char_before(s, from)))))
            from -= n;
        wn_vm_spend(vm, (to - from) / 8);
        wn_list_add(vm, l, cut(vm, s, from, to));
        to = from;
    }
}

WN_BUILTIN(s_rsplit)
{
    int64_t max = int_or(vm, a[1], -1);
    wn_list *l = wn_list_new(vm, 0);
    if (!wn_given(a[0]) || a[0].kind == WN_NONE) {
        words_from_right(vm, self.s, l, max);
    } else {
        const wn_string *sep = separator(vm, a[0]);
        size_t to = self.s->n, at;
        while ((max < 0 || (int64_t)l->n < max) &&
               (at = find_last(vm, self.s, sep, to)) != SIZE_MAX) {
            wn_list_add(vm, l, cut(vm, self.s, at + sep->n, to));
            to = at;
        }
        wn_list_add(vm, l, cut(vm, self.s, 0, to));
    }
    turn_round(l);
    return wn_val_list(l);
}

WN_BUILTIN(s_splitlines)
{
    wn_list *l = wn_list_new(vm, 0);
    const wn_string *s = self.s;
    for (size_t i = 0, from = 0; i < s->n;) {
        int32_t c = wn_char_at(s, i);
        size_t n = wn_char_bytes(s->p + i), end = i;
        bool line = (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
                    c == 0x2029;
        i += n;
        if (c == '\r' && i < s->n && s->p[i] == '\n') i++;
        if (!line && i < s->n) continue;
        wn_list_add(vm, l, cut(vm, s, from, !line ? s->n : wn_val_truth(a[0]) ? i : end));
        wn_vm_spend(vm, (i - from) / 8);
        from = i;
    }
    return wn_val_list(l);
}

static wn_value parts(wn_vm *vm, wn_value x, wn_value y, wn_value z)
{
    wn_list *l = wn_list_new(vm, 3);
    wn_list_add(vm, l, x);
    wn_list_add(vm, l, y);
    wn_list_add(vm, l, z);
    return wn_val_tuple(l);
}
WN_BUILTIN(s_partition)
{
    const wn_string *sep = separator(vm, a[0]);
    size_t at = wn_string_find(vm, self.s, sep, 0);
    if (at == SIZE_MAX) return parts(vm, self, wn_val_str(vm, ""), wn_val_str(vm, ""));
    return parts(vm, cut(vm, self.s, 0, at), str(sep), cut(vm, self.s, at + sep->n, self.s->n));
}
WN_BUILTIN(s_rpartition)
{
    const wn_string *sep = separator(vm, a[0]);
    size_t at = find_last(vm, self.s, sep, self.s->n);
    if (at == SIZE_MAX) return parts(vm, wn_val_str(vm, ""), wn_val_str(vm, ""), self);
    return parts(vm, cut(vm, self.s, 0, at), str(sep), cut(vm, self.s, at + sep->n, self.s->n));
}

WN_BUILTIN(s_join)
{
    wn_list *l = wn_list_of(vm, a[0]);
    wn_text_buf *b = wn_buf_new(vm, 0);
    for (size_t i = 0; i < l->n; i++) {
        if (i) wn_buf_string(vm, b, self.s);
        wn_vm_spend(vm, 1);
        wn_buf_string(vm, b, wn_want_str(vm, l->at[i], "what is joined"));
    }
    return wn_buf_value(vm, b);
}

/* Part of the string that find() and count() look at: [*from, *to) in bytes. */
static void window(wn_vm *vm, const wn_string *s, wn_value first, wn_value last, size_t *from,
                   size_t *to)
{
    int64_t n = (int64_t)wn_string_chars(vm, s), i = int_or(vm, first, 0), k = int_or(vm, last, n);
    if (i < 0) i = WN_MAX(i + n, 0);
    if (k < 0) k = WN_MAX(k + n, 0);
    *from = *to = 0;
    for (int64_t c = 0; c < i && *from < s->n; c++) *from += wn_char_bytes(s->p + *from);
    for (int64_t c = 0; c < k && *to < s->n; c++) *to += wn_char_bytes(s->p + *to);
    if (i > n || *to < *from) *from = SIZE_MAX;
}

static int64_t find(wn_vm *vm, const wn_string *s, const wn_value *a, bool last)
{
    const wn_string *what = wn_want_str(vm, a[0], "what to look for");
    size_t from, to, at;
    window(vm, s, a[1], a[2], &from, &to);
    if (from == SIZE_MAX) return -1;
    const wn_string *part = wn_string_cut(vm, s, 0, to);
    at = last ? find_last(vm, part, what, to) : wn_string_find(vm, part, what, from);
    if (at == SIZE_MAX || at < from) return -1;
    return (int64_t)wn_string_chars(vm, wn_string_cut(vm, s, 0, at));
}
WN_BUILTIN(s_find) { return wn_val_int(find(vm, self.s, a, false)); }
WN_BUILTIN(s_rfind) { return wn_val_int(find(vm, self.s, a, true)); }
WN_BUILTIN(s_index)
{
    int64_t i = find(vm, self.s, a, false);
    if (i < 0) wn_vm_fail(vm, "substring not found");
    return wn_val_int(i);
}
WN_BUILTIN(s_rindex)
{
    int64_t i = find(vm, self.s, a, true);
    if (i < 0) wn_vm_fail(vm, "substring not found");
    return wn_val_int(i);
}
WN_BUILTIN(s_count)
{
    const wn_string *what = wn_want_str(vm, a[0], "what to count");
    size_t from, to, n = 0;
    window(vm, self.s, a[1], a[2], &from, &to);
    if (from == SIZE_MAX) return wn_val_int(0);
    const wn_string *part = wn_string_cut(vm, self.s, 0, to);
    if (!what->n)
        return wn_val_int((int64_t)wn_string_chars(vm, wn_string_cut(vm, part, from, to)) + 1);
    for (size_t at; (at = wn_string_find(vm, part, what, from)) != SIZE_MAX;
         from = at + what->n, wn_vm_spend(vm, 1))
        n++;
    return wn_val_int((int64_t)n);
}

static wn_value pad(wn_vm *vm, wn_value self, const wn_value *a, char where)
{
    const wn_string *fill = wn_given(a[1]) ? wn_want_str(vm, a[1], "the fill character")
                                           : wn_string_lit(vm, " ", 1);
    if (wn_string_chars(vm, fill) != 1)
        wn_vm_fail(vm, "the fill character must be exactly one character long");
    return str(wn_string_pad(vm, self.s, wn_want_int(vm, a[0], "the width"), fill, where));
}
WN_BUILTIN(s_center) { return pad(vm, self, a, 'c'); }
WN_BUILTIN(s_ljust) { return pad(vm, self, a, '<'); }
WN_BUILTIN(s_rjust) { return pad(vm, self, a, '>'); }
WN_BUILTIN(s_zfill)
{
    size_t sign = self.s->n && (*self.s->p == '-' || *self.s->p == '+');
    const wn_string *zero = wn_string_lit(vm, "0", 1),
                    *rest = wn_string_cut(vm, self.s, sign, self.s->n);
    int64_t width = wn_want_int(vm, a[0], "the width");
    rest = wn_string_pad(vm, rest, width < 1 ? 0 : width - (int64_t)sign, zero, '>');
    return str(wn_string_join(vm, wn_string_cut(vm, self.s, 0, sign), rest));
}
WN_BUILTIN(s_format) { return str(wn_format_braces(vm, self.s, args)); }

/* Every character is of a class, and there is one. */
static wn_value all_are(wn_vm *vm, const wn_string *s, bool (*is)(int32_t c))
{
    bool all = s->n > 0;
    for (size_t i = 0; i < s->n && all; i += wn_char_bytes(s->p + i)) all = is(wn_char_at(s, i));
    wn_vm_spend(vm, s->n / 8);
    return wn_val_bool(all);
}
static bool is_digit(int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_ND; }
static bool is_numeric(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}
static bool is_letter(int32_t c)
{
    return is_cased(c) || utf8proc_category(c) == UTF8PROC_CATEGORY_LM ||
           utf8proc_category(c) == UTF8PROC_CATEGORY_LO;
}
bool wn_char_is_word(int32_t c) { return is_letter(c) || is_numeric(c); }
static bool is_ascii(int32_t c) { return c < 0x80; }
WN_BUILTIN(s_isdigit) { return all_are(vm, self.s, is_digit); }
WN_BUILTIN(s_isnumeric) { return all_are(vm, self.s, is_numeric); }
WN_BUILTIN(s_isalpha) { return all_are(vm, self.s, is_letter); }
WN_BUILTIN(s_isalnum) { return all_are(vm, self.s, wn_char_is_word); }
WN_BUILTIN(s_isspace) { return all_are(vm, self.s, wn_char_is_space); }
WN_BUILTIN(s_isascii) { return wn_val_bool(!self.s->n || all_are(vm, self.s, is_ascii).b); }
WN_BUILTIN(s_islower)
{
    return wn_apply(vm, wn_test_find(wn_string_lit(vm, "lower", 5)), self, args);
}
WN_BUILTIN(s_isupper)
{
    return wn_apply(vm, wn_test_find(wn_string_lit(vm, "upper", 5)), self, args);
}

static const wn_builtin string_methods[] = {
    { "upper", "", 0, s_upper },
    { "lower", "", 0, s_lower },
    { "casefold", "", 0, s_lower },
    { "title", "", 0, s_title },
    { "capitalize", "", 0, s_capitalize },
    { "swapcase", "", 0, s_swapcase },
    { "strip", "chars", 0, s_strip },
    { "lstrip", "chars", 0, s_lstrip },
    { "rstrip", "chars", 0, s_rstrip },
    { "startswith", "prefix", 1, s_startswith },
    { "endswith", "suffix", 1, s_endswith },
    { "removeprefix", "prefix", 1, s_removeprefix },
    { "removesuffix", "suffix", 1, s_removesuffix },
    { "replace", "old new count", 2, s_replace },
    { "split", "sep maxsplit", 0, s_split },
    { "rsplit", "sep maxsplit", 0, s_rsplit },
    { "splitlines", "keepends", 0, s_splitlines },
    { "partition", "sep", 1, s_partition },
    { "rpartition", "sep", 1, s_rpartition },
    { "join", "iterable", 1, s_join },
    { "find", "sub start end", 1, s_find },
    { "rfind", "sub start end", 1, s_rfind },
    { "index", "sub start end", 1, s_index },
    { "rindex", "sub start end", 1, s_rindex },
    { "count", "sub start end", 1, s_count },
    { "center", "width fillchar", 1, s_center },
    { "ljust", "width fillchar", 1, s_ljust },
    { "rjust", "width fillchar", 1, s_rjust },
    { "zfill", "width", 1, s_zfill },
    { "format", NULL, 0, s_format },
    { "isdigit", "", 0, s_isdigit },
    { "isdecimal", "", 0, s_isdigit },
    { "isnumeric", "", 0, s_isnumeric },
    { "isalpha", "", 0, s_isalpha },
    { "isalnum", "", 0, s_isalnum },
    { "isspace", "", 0, s_isspace },
    { "isascii", "", 0, s_isascii },
    { "islower", "", 0, s_islower },
    { "isupper", "", 0, s_isupper },
};

/* ---- lists ----------------------------------------------------------------------------------- */

WN_BUILTIN(l_append)
{
    wn_list_add(vm, self.list, a[0]);
    return wn_val_none();
}
WN_BUILTIN(l_extend)
{
    wn_list *l = wn_list_of(vm, a[0]);
    for (size_t i = 0, n = l->n; i < n; i++) wn_list_add(vm, self.list, l->at[i]);
    return wn_val_none();
}
static size_t place(wn_vm *vm, wn_value v, size_t n)
{
    int64_t i = wn_want_int(vm, v, "the position");
    if (i < 0) i = i < -(int64_t)n ? 0 : i + (int64_t)n;
    return (size_t)WN_MIN(i, (int64_t)n);
}
WN_BUILTIN(l_insert)
{
    size_t at = place(vm, a[0], self.list->n);
    wn_list_add(vm, self.list, a[1]);
    wn_vm_spend(vm, self.list->n - at);
    memmove(self.list->at + at + 1, self.list->at + at,
            sizeof *self.list->at * (self.list->n - 1 - at));
    self.list->at[at] = a[1];
    return wn_val_none();
}
WN_BUILTIN(l_pop)
{
    wn_list *l = self.list;
    int64_t i = int_or(vm, a[0], -1);
    if (i < 0) i += (int64_t)l->n;
    if (i < 0 || i >= (int64_t)l->n)
        wn_vm_fail(vm, l->n ? "pop index out of range" : "pop from empty list");
    wn_value v = l->at[i];
    wn_vm_spend(vm, l->n - (size_t)i);
    memmove(l->at + i, l->at + i + 1, sizeof *l->at * (l->n - (size_t)i - 1));
    l->n--;
    return v;
}
WN_BUILTIN(l_index)
{
    for (size_t i = 0; i < self.list->n; i++)
        if (wn_val_equal(vm, self.list->at[i], a[0])) return wn_val_int((int64_t)i);
    wn_vm_fail(vm, "index(): the value is not in the list");
}
WN_BUILTIN(l_count)
{
    int64_t n = 0;
    for (size_t i = 0; i < self.list->n; i++) n += wn_val_equal(vm, self.list->at[i], a[0]);
    return wn_val_int(n);
}
WN_BUILTIN(l_copy) { return wn_binary(vm, '+', self, wn_val_list(wn_list_new(vm, 0))); }
WN_BUILTIN(l_reverse)
{
    wn_vm_spend(vm, self.list->n);
    turn_round(self.list);
    return wn_val_none();
}

static const wn_builtin list_methods[] = {
    /* a tuple has the first two */
    { "index", "value", 1, l_index },
    { "count", "value", 1, l_count },
    { "append", "object", 1, l_append },
    { "extend", "iterable", 1, l_extend },
    { "insert", "index object", 2, l_insert },
    { "pop", "index", 0, l_pop },
    { "copy", "", 0, l_copy },
    { "reverse", "", 0, l_reverse },
};

/* ---- dicts ----------------------------------------------------------------------------------- */

static wn_value or_none(wn_value v) { return wn_given(v) ? v : wn_val_none(); }

WN_BUILTIN(d_get)
{
    const wn_value *v = wn_dict_find(vm, self.dict, a[0]);
    return v ? *v : or_none(a[1]);
}
WN_BUILTIN(d_items)
{
    wn_list *l = wn_list_new(vm, self.dict->n);
    for (size_t i = 0; i < self.dict->n; i++)
        wn_list_add(vm, l, wn_pair(vm, self.dict->at[i].key, self.dict->at[i].val));
    return wn_val_list(l);
}
WN_BUILTIN(d_keys) { return wn_val_list(wn_list_of(vm, self)); }
WN_BUILTIN(d_values)
{
    wn_list *l = wn_list_new(vm, self.dict->n);
    for (size_t i = 0; i < self.dict->n; i++) wn_list_add(vm, l, self.dict->at[i].val);
    return wn_val_list(l);
}
WN_BUILTIN(d_pop)
{
    wn_value v;
    if (wn_dict_remove(vm, self.dict, a[0], &v)) return v;
    if (!wn_given(a[1])) wn_vm_fail(vm, "pop(): the dict has no such key");
    return a[1];
}
WN_BUILTIN(d_setdefault)
{
    const wn_value *v = wn_dict_find(vm, self.dict, a[0]);
    if (v) return *v;
    wn_dict_set(vm, self.dict, a[0], or_none(a[1]));
    return or_none(a[1]);
}
WN_BUILTIN(d_update)
{
    wn_value more = wn_apply(vm, wn_global_find(wn_string_lit(vm, "dict", 4)), wn_val_none(), args);
    for (size_t i = 0; i < more.dict->n; i++)
        wn_dict_set(vm, self.dict, more.dict->at[i].key, more.dict->at[i].val);
    return wn_val_none();
}
WN_BUILTIN(d_copy)
{
    wn_call_args one = { .pos = &self, .n = 1 };
    return wn_apply(vm, wn_global_find(wn_string_lit(vm, "dict", 4)), wn_val_none(), &one);
}

static const wn_builtin dict_methods[] = {
    { "get", "key default", 1, d_get }, { "items", "", 0, d_items },
    { "keys", "", 0, d_keys },          { "values", "", 0, d_values },
    { "pop", "key default", 1, d_pop }, { "setdefault", "key default", 1, d_setdefault },
    { "update", NULL, 0, d_update },    { "copy", "", 0, d_copy },
};

const wn_builtin *wn_method_find(wn_value self, const wn_string *name)
{
    switch (self.kind) {
    case WN_STR: return wn_builtin_find(string_methods, WN_COUNT(string_methods), name);
    case WN_LIST: return wn_builtin_find(list_methods, WN_COUNT(list_methods), name);
    case WN_TUPLE: return wn_builtin_find(list_methods, 2, name);
    case WN_DICT: return wn_builtin_find(dict_methods, WN_COUNT(dict_methods), name);
    default: return NULL;
    }
}
