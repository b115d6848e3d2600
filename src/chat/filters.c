/* chat/filters.c - filters of text and numbers: x|trim, x|tojson, x|indent(2) ...
 *
 * As in Jinja, a filter of text takes any value as its str(): None|trim is "None", and the
 * undefined is the empty string.
 */
#include "chat/filters.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const wn_string *text(wn_vm *vm, wn_value v) { return wn_val_text(vm, v); }
static bool flag(wn_value v) { return wn_val_truth(v); }
static int64_t int_or(wn_vm *vm, wn_value v, int64_t otherwise)
{
    return wn_given(v) ? wn_want_int(vm, v, "this argument") : otherwise;
}

/* ---- case and white space -------------------------------------------------------------------- */

WN_BUILTIN(f_upper) { return wn_val_of(wn_string_case(vm, text(vm, self), 'u')); }
WN_BUILTIN(f_lower) { return wn_val_of(wn_string_case(vm, text(vm, self), 'l')); }
WN_BUILTIN(f_capitalize) { return wn_val_of(wn_string_case(vm, text(vm, self), 'c')); }

/* Unlike the method: words begin after white space, a hyphen or an opening bracket. */
WN_BUILTIN(f_title)
{
    const wn_string *s = text(vm, self);
    wn_text_buf *b = wn_buf_new(vm, s->n);
    for (size_t i = 0; i < s->n;) {
        size_t from = i;
        while (i < s->n && !wn_char_is_space(wn_char_at(s, i)) && !strchr("-({[<", s->p[i]))
            i += wn_char_bytes(s->p + i);
        wn_buf_string(vm, b, wn_string_case(vm, wn_string_cut(vm, s, from, i), 'c'));
        from = i;
        while (i < s->n && (wn_char_is_space(wn_char_at(s, i)) || strchr("-({[<", s->p[i])))
            i += wn_char_bytes(s->p + i);
        wn_buf_cut(vm, b, s, from, i);
    }
    return wn_buf_value(vm, b);
}

WN_BUILTIN(f_trim)
{
    const wn_string *chars = wn_given(a[0]) && a[0].kind != WN_NONE
                                 ? wn_want_str(vm, a[0], "trim()'s characters")
                                 : NULL;
    return wn_val_of(wn_string_strip(vm, text(vm, self), chars, true, true));
}

/* Lines after the first get `width` blanks (or a string) in front; `first` and `blank` add the
 * first line and empty ones. */
WN_BUILTIN(f_indent)
{
    const wn_string *s = wn_want_str(vm, self, "what is indented"), *by;
    wn_text_buf *b = wn_buf_new(vm, s->n);
    if (wn_given(a[0]) && a[0].kind == WN_STR) by = a[0].s;
    else
        by = wn_string_pad(vm, wn_string_lit(vm, "", 0), int_or(vm, a[0], 4),
                           wn_string_lit(vm, " ", 1), '<');
    for (size_t from = 0, line = 0; from <= s->n; line++) {
        const char *nl = memchr(s->p + from, '\n', s->n - from);
        size_t to = nl ? (size_t)(nl - s->p) : s->n;
        wn_vm_spend(vm, 1);
        if (line ? to > from || flag(a[2]) : flag(a[1])) wn_buf_string(vm, b, by);
        wn_buf_cut(vm, b, s, from, nl ? to + 1 : to);
        from = to + 1;
    }
    return wn_buf_value(vm, b);
}

WN_BUILTIN(f_center)
{
    return wn_val_of(
        wn_string_pad(vm, text(vm, self), int_or(vm, a[0], 80), wn_string_lit(vm, " ", 1), 'c'));
}

WN_BUILTIN(f_replace)
{
    int64_t count = wn_given(a[2]) && a[2].kind != WN_NONE
                        ? wn_want_int(vm, a[2], "replace()'s count")
                        : -1;
    return wn_val_of(wn_string_replace(vm, text(vm, self), text(vm, a[0]), text(vm, a[1]), count));
}

WN_BUILTIN(f_truncate)
{
    const wn_string *s, *end = wn_given(a[2]) ? wn_want_str(vm, a[2], "truncate()'s end")
                                              : wn_string_lit(vm, "...", 3);
    int64_t length = int_or(vm, a[0], 255), leeway = int_or(vm, a[3], 5),
            n_end = (int64_t)wn_string_chars(vm, end);
    if (length < n_end)
        wn_vm_fail(vm, "truncate(): the length must be at least %lld", (long long)n_end);
    if (wn_val_length(vm, self) <= length + leeway) return self;
    s = wn_want_str(vm, self, "what is truncated");
    wn_value head = wn_get_slice(vm, wn_val_of(s), wn_val_none(), wn_val_int(length - n_end),
                                 wn_val_none());
    if (!flag(a[1])) {                  /* up to the last blank */
        size_t cut = head.s->n;
        while (cut && head.s->p[cut - 1] != ' ') cut--;
        if (cut) head = wn_val_of(wn_string_cut(vm, head.s, 0, cut - 1));
    }
    return wn_val_of(wn_string_join(vm, head.s, end));
}

WN_BUILTIN(f_wordcount)
{
    const wn_string *s = text(vm, self);
    int64_t n = 0;
    bool in_word = false;
    wn_vm_spend(vm, s->n / 8);
    for (size_t i = 0; i < s->n; i += wn_char_bytes(s->p + i)) {
        bool word = s->p[i] == '_' || wn_char_is_word(wn_char_at(s, i));
        n += word && !in_word;
        in_word = word;
    }
    return wn_val_int(n);
}

WN_BUILTIN(f_wordwrap)
{
    int64_t width = int_or(vm, a[0], 79), at = 0;
    const wn_string *wrap = wn_given(a[1]) ? wn_want_str(vm, a[1], "wordwrap()'s string")
                                           : wn_string_lit(vm, "\n", 1);
    wn_list *words = wn_string_words(vm, wn_want_str(vm, self, "what is wrapped"), -1);
    wn_text_buf *b = wn_buf_new(vm, 0);
    for (size_t i = 0; i < words->n; i++) {
        int64_t n = (int64_t)wn_string_chars(vm, words->at[i].s);
        if (i) {
            bool fits = at + 1 + n <= width;
            if (fits) wn_buf_puts(vm, b, " ");
            else wn_buf_string(vm, b, wrap);
            at = fits ? at + 1 : 0;
        }
        wn_buf_string(vm, b, words->at[i].s);
        at += n;
    }
    return wn_buf_value(vm, b);
}

/* ---- as something else ----------------------------------------------------------------------- */

WN_BUILTIN(f_string) { return wn_val_of(text(vm, self)); }

WN_BUILTIN(f_escape)
{
    static const char *const as[][2] = {
        { "&", "&amp;" }, { "<", "&lt;" }, { ">", "&gt;" }, { "'", "&#39;" }, { "\"", "&#34;" }
    };
    const wn_string *s = text(vm, self);
    for (size_t i = 0; i < WN_COUNT(as); i++)
        s = wn_string_replace(vm, s, wn_string_lit(vm, as[i][0], 1),
                              wn_string_lit(vm, as[i][1], strlen(as[i][1])), -1);
    return wn_val_of(s);
}

/* json.dumps() as transformers calls it: text stays text unless ensure_ascii. */
WN_BUILTIN(f_tojson)
{
    wn_json_style style = { .ascii = flag(a[0]), .sorted = flag(a[3]) };
    if (wn_given(a[1]) && a[1].kind == WN_STR) style.indent = a[1].s;
    else if (wn_given(a[1]) && a[1].kind != WN_NONE)
        style.indent = wn_string_pad(vm, wn_string_lit(vm, "", 0),
                                     wn_want_int(vm, a[1], "tojson()'s indent"),
                                     wn_string_lit(vm, " ", 1), '<');
    style.item_sep = style.indent ? wn_string_lit(vm, ",", 1) : wn_string_lit(vm, ", ", 2);
    style.key_sep = wn_string_lit(vm, ": ", 2);
    if (wn_given(a[2]) && a[2].kind != WN_NONE) {
        wn_list *both = wn_list_of(vm, a[2]);
        if (both->n != 2) wn_vm_fail(vm, "tojson(): separators are two strings");
        style.item_sep = wn_want_str(vm, both->at[0], "a separator");
        style.key_sep = wn_want_str(vm, both->at[1], "a separator");
    }
    wn_text_buf *b = wn_buf_new(vm, 0);
    wn_val_json(vm, b, self, &style);
    return wn_buf_value(vm, b);
}

/* The number a string spells, all of it but white space around; false when none. */
static bool spells(wn_vm *vm, const wn_string *s, int base, int64_t *i, double *f)
{
    char digits[128], *end;
    size_t k = 0;
    s = wn_string_strip(vm, s, NULL, true, true);
    if (!s->n || s->n >= sizeof digits) return false;
    for (size_t j = 0; j < s->n; j++) {
        bool between = j && j + 1 < s->n && isalnum((unsigned char)s->p[j - 1]) &&
                       isalnum((unsigned char)s->p[j + 1]);
        if (s->p[j] == '_' && between) continue;
        if (!s->p[j] || isspace((unsigned char)s->p[j]) || s->p[j] == '(') return false;
        digits[k++] = s->p[j];
    }
    digits[k] = '\0';
    errno = 0;
    if (i) *i = strtoll(digits, &end, base);
    else {
        if (strpbrk(digits, "xX")) return false;        /* no hexadecimal floats */
        *f = strtod(digits, &end);
    }
    return !*end && end != digits && (f || errno != ERANGE);
}

WN_BUILTIN(f_int)
{
    wn_value otherwise = wn_given(a[0]) ? a[0] : wn_val_int(0);
    int64_t i;
    double f = 0;
    if (wn_is_int(self)) return wn_val_int(wn_int_of(self));
    if (self.kind == WN_UNDEF) wn_vm_fail(vm, "%.*s", (int)self.s->n, self.s->p);
    if (self.kind == WN_STR) {
        if (spells(vm, self.s, (int)int_or(vm, a[1], 10), &i, NULL)) return wn_val_int(i);
        if (!spells(vm, self.s, 10, NULL, &f)) return otherwise;
    } else if (self.kind == WN_FLOAT) f = self.f;
    else return otherwise;
    return f > -0x1p63 && f < 0x1p63 ? wn_val_int((int64_t)f) : otherwise;
}

WN_BUILTIN(f_float)
{
    double f;
    if (wn_is_number(self)) return wn_val_float(wn_float_of(self));
    if (self.kind == WN_UNDEF) wn_vm_fail(vm, "%.*s", (int)self.s->n, self.s->p);
    if (self.kind == WN_STR && spells(vm, self.s, 10, NULL, &f)) return wn_val_float(f);
    return wn_given(a[0]) ? a[0] : wn_val_float(0);
}

WN_BUILTIN(f_abs)
{
    if (self.kind == WN_FLOAT) return wn_val_float(fabs(self.f));
    int64_t i = wn_want_int(vm, self, "the operand of abs()");
    return i < 0 ? wn_binary(vm, '-', wn_val_int(0), wn_val_int(i)) : wn_val_int(i);
}

/* "common" rounds halves to even on the decimal digits that printing shows, as Python does. */
WN_BUILTIN(f_round)
{
    int64_t places = int_or(vm, a[0], 0);
    const wn_string *how = wn_given(a[1]) ? wn_want_str(vm, a[1], "round()'s method")
                                          : wn_string_lit(vm, "common", 6);
    if (!wn_is_number(self)) wn_vm_fail(vm, "round() wants a number, not %s", wn_kind_name(self));
    if (places < -300 || places > 300) wn_vm_fail(vm, "round() to %lld places", (long long)places);
    double x = wn_float_of(self), scale = pow(10, (double)places);
    if (wn_string_is(how, "ceil")) return wn_val_float(ceil(x * scale) / scale);
    if (wn_string_is(how, "floor")) return wn_val_float(floor(x * scale) / scale);
    if (!wn_string_is(how, "common"))
        wn_vm_fail(vm, "round(): the method is common, ceil or floor");
    if (wn_is_int(self) && places >= 0) return wn_val_int(wn_int_of(self));
    if (places < 0) {
        double r = nearbyint(x * scale) / scale;
        return wn_is_int(self) ? wn_val_int((int64_t)r) : wn_val_float(r);
    }
    char digits[400];
    snprintf(digits, sizeof digits, "%.*f", (int)WN_MIN(places, 60), x);
    return wn_val_float(isfinite(x) ? strtod(digits, NULL) : x);
}

WN_BUILTIN(f_default)
{
    bool take = self.kind == WN_UNDEF || (flag(a[1]) && !wn_val_truth(self));
    return take ? wn_given(a[0]) ? a[0] : wn_val_str(vm, "") : self;
}

WN_BUILTIN(f_format)
{
    wn_list *l = wn_list_new(vm, 0);
    wn_dict *d = wn_dict_new(vm);
    for (int i = 0; i < args->n; i++) wn_list_add(vm, l, args->pos[i]);
    for (int i = 0; i < args->n_kw; i++)
        wn_dict_set(vm, d, wn_val_of(args->kw[i].name), args->kw[i].val);
    return wn_val_of(
        wn_format_percent(vm, text(vm, self), args->n_kw ? wn_val_dict(d) : wn_val_tuple(l)));
}

/* UTF-8 bytes but letters, digits and "-._~/" as %XX; pairs, as of a dict, as a query. */
static void quote(wn_vm *vm, wn_text_buf *b, const wn_string *s, bool query)
{
    for (size_t i = 0; i < s->n; i++) {
        char hex[8];
        bool plain = isalnum((unsigned char)s->p[i]) && !(s->p[i] & 0x80);
        if (plain || (s->p[i] && strchr("-._~", s->p[i])) || (s->p[i] == '/' && !query)) {
            wn_buf_cut(vm, b, s, i, i + 1);
            continue;
        }
        if (s->p[i] == ' ' && query) strcpy(hex, "+");
        else snprintf(hex, sizeof hex, "%%%02X", (unsigned char)s->p[i]);
        for (const char *p = hex; *p; p++) wn_buf_char(vm, b, *p, wn_string_is_data(s, i));
    }
}

WN_BUILTIN(f_urlencode)
{
    wn_text_buf *b = wn_buf_new(vm, 0);
    bool pairs = self.kind == WN_DICT || wn_is_list(self);
    if (self.kind == WN_DICT)
        self = wn_apply(vm, wn_filter_find(wn_string_lit(vm, "items", 5)), self,
                        &(wn_call_args){ 0 });
    if (!pairs) quote(vm, b, text(vm, self), false);
    for (size_t i = 0; pairs && i < self.list->n; i++) {
        wn_list *pair = wn_list_of(vm, self.list->at[i]);
        if (pair->n != 2) wn_vm_fail(vm, "urlencode: element %zu is no pair", i);
        if (i) wn_buf_puts(vm, b, "&");
        quote(vm, b, text(vm, pair->at[0]), true);
        wn_buf_puts(vm, b, "=");
        quote(vm, b, text(vm, pair->at[1]), true);
    }
    return wn_buf_value(vm, b);
}

const wn_builtin *wn_filter_find(const wn_string *name)
{
    static const wn_builtin table[] = {
        { "upper", "", 0, f_upper },
        { "lower", "", 0, f_lower },
        { "capitalize", "", 0, f_capitalize },
        { "title", "", 0, f_title },
        { "trim", "chars", 0, f_trim },
        { "indent", "width first blank", 0, f_indent },
        { "center", "width", 0, f_center },
        { "replace", "old new count", 2, f_replace },
        { "truncate", "length killwords end leeway", 0, f_truncate },
        { "wordcount", "", 0, f_wordcount },
        { "wordwrap", "width wrapstring", 0, f_wordwrap },
        { "string", "", 0, f_string },
        { "safe", "", 0, f_string },
        { "escape", "", 0, f_escape },
        { "e", "", 0, f_escape },
        { "forceescape", "", 0, f_escape },
        { "tojson", "ensure_ascii indent separators sort_keys", 0, f_tojson },
        { "int", "default base", 0, f_int },
        { "float", "default", 0, f_float },
        { "abs", "", 0, f_abs },
        { "round", "precision method", 0, f_round },
        { "default", "default_value boolean", 0, f_default },
        { "d", "default_value boolean", 0, f_default },
        { "format", NULL, 0, f_format },
        { "urlencode", "", 0, f_urlencode },
    };
    const wn_builtin *b = wn_builtin_find(table, WN_COUNT(table), name);
    return b ? b : wn_list_filter_find(name);
}
