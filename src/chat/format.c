/* chat/format.c - "%s of %d" % (a, b) and "{} of {:>5}".format(a, b).
 *
 * One way of laying out a value serves both: Python's mini-language of fill, alignment, sign,
 * width, precision and type is a superset of what the percent form asks for.
 */
#include "chat/run.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const wn_string *fill;
    char align, sign, type;             /* 0: not said */
    bool zero, alternate, comma;
    int width, precision;               /* -1: not said */
} layout;

enum { MAX_WIDTH = 100000, MAX_PRECISION = 60 };

static int number(wn_vm *vm, const wn_string *s, size_t *at)
{
    int n = 0;
    while (*at < s->n && isdigit((unsigned char)s->p[*at])) {
        n = 10 * n + s->p[(*at)++] - '0';
        if (n > MAX_WIDTH) wn_vm_fail(vm, "format: a width of more than %d", MAX_WIDTH);
    }
    return n;
}

static int precision(wn_vm *vm, const wn_string *s, size_t *at)
{
    int n = number(vm, s, at);
    return WN_MIN(n, (int)MAX_PRECISION);
}

static void group(char *digits, size_t cap)     /* 1234567 -> 1,234,567 */
{
    size_t n = strspn(digits, "0123456789");
    for (size_t i = n; i > 3; i -= 3) {
        size_t at = i - 3;
        if (strlen(digits) + 2 > cap) return;
        memmove(digits + at + 1, digits + at, strlen(digits + at) + 1);
        digits[at] = ',';
    }
}

/* The digits of a number, without sign. */
static void digits_of(wn_vm *vm, wn_value v, const layout *l, char *out, size_t cap)
{
    int64_t i = wn_is_int(v) ? wn_int_of(v) : 0;
    unsigned long long u = i < 0 ? 0ull - (unsigned long long)i : (unsigned long long)i;
    double f = v.kind == WN_FLOAT ? v.f : (double)i;
    char spec[8] = "%.*f";
    switch (l->type ? l->type : v.kind == WN_FLOAT ? l->precision >= 0 ? 'g' : 0 : 'd') {
    case 'd':
    case 'i': snprintf(out, cap, "%llu", u); break;
    case 'x': snprintf(out, cap, l->alternate ? "0x%llx" : "%llx", u); break;
    case 'X': snprintf(out, cap, l->alternate ? "0X%llX" : "%llX", u); break;
    case 'o': snprintf(out, cap, l->alternate ? "0o%llo" : "%llo", u); break;
    case 'b':
        *out = '\0';
        for (int bit = 63; bit >= 0; bit--)
            if (u >> bit || !bit)
                snprintf(out + strlen(out), cap - strlen(out), "%d", (int)(u >> bit & 1));
        break;
    case '%':
        snprintf(out, cap, "%.*f%%", l->precision < 0 ? 6 : l->precision, (f < 0 ? -f : f) * 100);
        break;
    case 0: wn_float_text(f < 0 ? -f : f, out); break;
    case 'e': case 'E': case 'f': case 'F': case 'g': case 'G':
        spec[3] = l->type ? l->type : 'g';
        snprintf(out, cap, spec, l->precision < 0 ? 6 : l->precision, f < 0 ? -f : f);
        break;
    default: wn_vm_fail(vm, "format: there is no type '%c' for %s", l->type, wn_kind_name(v));
    }
    if (l->comma) group(out, cap);
}

static void put_padded(wn_vm *vm, wn_text_buf *b, const wn_string *s, const layout *l, char align)
{
    const wn_string *fill = l->fill ? l->fill : wn_string_lit(vm, " ", 1);
    wn_buf_string(vm, b, wn_string_pad(vm, s, l->width, fill, l->align ? l->align : align));
}

static void put_value(wn_vm *vm, wn_text_buf *b, wn_value v, const layout *l)
{
    char digits[512];
    bool as_number = wn_is_number(v) && (v.kind != WN_BOOL || l->type) && l->type != 's' &&
                     l->type != 'r';
    if (!as_number) {
        if (l->type && l->type != 's' && l->type != 'r')
            wn_vm_fail(vm, "format: type '%c' wants a number, not %s", l->type, wn_kind_name(v));
        const wn_string *s = v.kind == WN_UNDEF ? wn_string_lit(vm, "", 0) : wn_val_text(vm, v);
        if (l->precision >= 0)
            s = wn_get_slice(vm, wn_val_of(s), wn_val_none(), wn_val_int(l->precision),
                             wn_val_none())
                    .s;
        put_padded(vm, b, s, l, '<');
        return;
    }
    bool minus = v.kind == WN_FLOAT ? v.f < 0 : wn_int_of(v) < 0;
    digits_of(vm, v, l, digits + 1, sizeof digits - 1);
    digits[0] = minus ? '-' : l->sign == '+' || l->sign == ' ' ? l->sign : 0;
    const wn_string *s = wn_string_dup(vm, digits[0] ? digits : digits + 1,
                                       strlen(digits + 1) + !!digits[0], false);
    if (l->zero && !l->align) {         /* zeros go between sign and digits */
        size_t at = digits[0] != 0;
        const wn_string *tail = wn_string_pad(vm, wn_string_cut(vm, s, at, s->n),
                                              l->width - (int)at, wn_string_lit(vm, "0", 1), '>');
        s = wn_string_join(vm, wn_string_cut(vm, s, 0, at), tail);
    }
    put_padded(vm, b, s, l, '>');
}

/* ---- percent --------------------------------------------------------------------------------- */

typedef struct {
    wn_value values;
    size_t used;
} operands;

static wn_value next_operand(wn_vm *vm, operands *o)
{
    bool many = o->values.kind == WN_TUPLE;
    if (o->used >= (many ? o->values.list->n : 1))
        wn_vm_fail(vm, "not enough arguments for format string");
    return many ? o->values.list->at[o->used++] : (o->used++, o->values);
}

static size_t percent_spec(wn_vm *vm, wn_text_buf *b, const wn_string *f, size_t at, operands *o)
{
    layout l = { .width = 0, .precision = -1 };
    wn_value v = { 0 };
    if (at < f->n && f->p[at] == '(') {
        const char *end = memchr(f->p + at, ')', f->n - at);
        if (!end || o->values.kind != WN_DICT)
            wn_vm_fail(vm, "format requires a mapping and a closed key");
        size_t e = (size_t)(end - f->p);
        v = wn_get_item(vm, o->values, wn_val_of(wn_string_cut(vm, f, at + 1, e)));
        at = e + 1;
    }
    for (; at < f->n && f->p[at] && strchr("-+ 0#", f->p[at]); at++) {
        if (f->p[at] == '-') l.align = '<';
        else if (f->p[at] == '0') l.zero = true;
        else if (f->p[at] == '#') l.alternate = true;
        else l.sign = f->p[at];
    }
    l.width = number(vm, f, &at);
    if (at < f->n && f->p[at] == '.') {
        at++;
        l.precision = precision(vm, f, &at);
    }
    if (at >= f->n) wn_vm_fail(vm, "incomplete format");
    l.type = f->p[at++];
    if (l.type == '%') {
        wn_buf_puts(vm, b, "%");
        return at;
    }
    if (!wn_given(v)) v = next_operand(vm, o);
    if (l.type == 'r') {
        wn_text_buf *r = wn_buf_new(vm, 0);
        wn_val_repr(vm, r, v);
        v = wn_buf_value(vm, r);
    }
    if (l.type == 'c') l.type = 's';
    if (strchr("diu", l.type) && v.kind == WN_FLOAT)
        v = wn_val_int((int64_t)(v.f < -0x1p62 || v.f > 0x1p62 ? 0 : v.f));
    if (l.type == 'u') l.type = 'd';
    if (!l.align && (l.type == 's' || l.type == 'r')) l.align = '>';
    put_value(vm, b, v, &l);
    return at;
}

const wn_string *wn_format_percent(wn_vm *vm, const wn_string *f, wn_value values)
{
    wn_text_buf *b = wn_buf_new(vm, f->n);
    operands o = { .values = values };
    for (size_t at = 0; at < f->n;) {
        const char *mark = memchr(f->p + at, '%', f->n - at);
        size_t to = mark ? (size_t)(mark - f->p) : f->n;
        wn_buf_cut(vm, b, f, at, to);
        at = mark ? percent_spec(vm, b, f, to + 1, &o) : to;
    }
    if (values.kind != WN_DICT && values.kind != WN_LIST &&
        o.used < (values.kind == WN_TUPLE ? values.list->n : 1))
        wn_vm_fail(vm, "not all arguments converted during string formatting");
    return wn_buf_done(vm, b);
}

/* ---- braces ---------------------------------------------------------------------------------- */

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static layout parse_layout(wn_vm *vm, const wn_string *s)
{
    layout l = { .precision = -1 };
    size_t at = 0, first = s->n ? wn_char_bytes(s->p) : 0;
    if (first < s->n && s->p[first] && strchr("<>^=", s->p[first])) {
        l.fill = wn_string_cut(vm, s, 0, first);
        l.align = s->p[first];
        at = first + 1;
    } else if (s->n && *s->p && strchr("<>^=", *s->p)) l.align = s->p[at++];
    if (l.align == '=') l.align = 0, l.zero = true;
    if (at < s->n && s->p[at] && strchr("+- ", s->p[at])) l.sign = s->p[at++];
    if (at < s->n && s->p[at] == '#') l.alternate = true, at++;
    if (at < s->n && s->p[at] == '0') l.zero = true;
    l.width = number(vm, s, &at);
    if (at < s->n && (s->p[at] == ',' || s->p[at] == '_')) l.comma = true, at++;
    if (at < s->n && s->p[at] == '.') {
        at++;
        l.precision = precision(vm, s, &at);
    }
    if (at < s->n) l.type = s->p[at++];
    if (at < s->n)
        wn_vm_fail(vm, "format: \"%.*s\" is no format", (int)WN_MIN(s->n, (size_t)40), s->p);
    return l;
}

static wn_value field_value(wn_vm *vm, const wn_string *name, const wn_call_args *args, int *next)
{
    size_t len = 0;
    wn_value v = { 0 };
    while (len < name->n && name->p[len] != '.' && name->p[len] != '[') len++;
    const wn_string *head = wn_string_cut(vm, name, 0, len);
    if (!head->n || isdigit((unsigned char)*head->p)) {
        size_t at = 0;
        int i = head->n ? number(vm, head, &at) : (*next)++;
        if (i >= args->n) wn_vm_fail(vm, "format: there is no argument %d", i);
        v = args->pos[i];
    }
    for (int k = 0; k < args->n_kw && !wn_given(v); k++)
        if (wn_string_same(args->kw[k].name, head)) v = args->kw[k].val;
    if (!wn_given(v))
        wn_vm_fail(vm, "format: there is no argument '%.*s'", (int)WN_MIN(head->n, (size_t)40),
                   head->p);
    while (len < name->n) {
        bool item = name->p[len++] == '[';
        size_t from = len;
        while (len < name->n &&
               (item ? name->p[len] != ']' : name->p[len] != '.' && name->p[len] != '['))
            len++;
        const wn_string *part = wn_string_cut(vm, name, from, len);
        size_t at = 0;
        int i = number(vm, part, &at);
        v = item ? wn_get_item(vm, v, at && at == part->n ? wn_val_int(i) : wn_val_of(part))
                 : wn_get_attr(vm, v, part);
        len += item;
    }
    return v;
}

static void put_field(wn_vm *vm, wn_text_buf *b, const wn_string *field, const wn_call_args *args,
                      int *next)
{
    const char *colon = memchr(field->p, ':', field->n), *mark = memchr(field->p, '!', field->n);
    size_t to = colon ? (size_t)(colon - field->p) : field->n,
           name_to = mark && (!colon || mark < colon) ? (size_t)(mark - field->p) : to;
    layout l = parse_layout(vm, wn_string_cut(vm, field, WN_MIN(to + 1, field->n), field->n));
    wn_value v = field_value(vm, wn_string_cut(vm, field, 0, name_to), args, next);
    if (name_to < to && field->p[name_to + 1] == 'r') {
        wn_text_buf *r = wn_buf_new(vm, 0);
        wn_val_repr(vm, r, v);
        v = wn_buf_value(vm, r);
    } else if (name_to < to) v = wn_val_of(wn_val_text(vm, v));
    put_value(vm, b, v, &l);
}

const wn_string *wn_format_braces(wn_vm *vm, const wn_string *f, const wn_call_args *args)
{
    wn_text_buf *b = wn_buf_new(vm, f->n);
    int next = 0;
    for (size_t at = 0; at < f->n;) {
        size_t to = at;
        while (to < f->n && f->p[to] != '{' && f->p[to] != '}') to++;
        wn_buf_cut(vm, b, f, at, to);
        if (to >= f->n) break;
        if (to + 1 < f->n && f->p[to + 1] == f->p[to]) {
            wn_buf_cut(vm, b, f, to, to + 1);
            at = to + 2;
            continue;
        }
        const char *end = f->p[to] == '{' ? memchr(f->p + to, '}', f->n - to) : NULL;
        if (!end) wn_vm_fail(vm, "format: a single '%c' in the format string", f->p[to]);
        size_t e = (size_t)(end - f->p);
        put_field(vm, b, wn_string_cut(vm, f, to + 1, e), args, &next);
        at = e + 1;
    }
    return wn_buf_done(vm, b);
}
