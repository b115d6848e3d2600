/* chat/print.c - values as text: str() and repr() as Python has them, JSON as json.dumps does.
 *
 * Text inside a list or an object keeps its origin: quotes and commas are the template's doing,
 * what stands between them is still the user's.
 */
#include "chat/value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Shortest digits that read back as the same number; exponents from 1e16 and below 1e-4. */
void wn_float_text(double f, char out[40])
{
    char digits[32];
    int p = 0;
    if (isnan(f) || isinf(f)) {
        strcpy(out, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    do snprintf(digits, sizeof digits, "%.*e", p, f);
    while (strtod(digits, NULL) != f && ++p < 17);
    int e = atoi(strchr(digits, 'e') + 1);
    if (e < -4 || e >= 16) {
        char *mark = strchr(digits, 'e');
        *mark = '\0';
        snprintf(out, 40, "%.24se%c%02d", digits, e < 0 ? '-' : '+', abs(e) % 1000);
    } else {
        snprintf(out, 40, "%.*f", WN_MAX(p - e, e >= 0 && p <= e ? 1 : 0), f);
    }
}

static void print_number(wn_vm *vm, wn_text_buf *b, wn_value v)
{
    char text[40];
    if (v.kind == WN_FLOAT) wn_float_text(v.f, text);
    else snprintf(text, sizeof text, "%lld", (long long)v.i);
    wn_buf_puts(vm, b, text);
}

static bool printable(int32_t c)
{
    if (c < 0x7F) return c >= 0x20;
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default: return true;
    }
}

/* A character that is written as an escape, of the same origin as the character. */
static void put_escape(wn_vm *vm, wn_text_buf *b, const char *text, bool data)
{
    uint8_t ones[16];
    memset(ones, 1, sizeof ones);
    wn_buf_put(vm, b, text, strlen(text), data ? ones : NULL);
}

static void repr_string(wn_vm *vm, wn_text_buf *b, const wn_string *s)
{
    char quote = memchr(s->p, '\'', s->n) && !memchr(s->p, '"', s->n) ? '"' : '\'', text[16];
    wn_buf_put(vm, b, &quote, 1, NULL);
    for (size_t i = 0, n; i < s->n; i += n) {
        int32_t c = wn_char_at(s, i);
        n = wn_char_bytes(s->p + i);
        if (c == quote || c == '\\') snprintf(text, sizeof text, "\\%c", c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (printable(c)) {
            wn_buf_cut(vm, b, s, i, i + n);
            continue;
        } else
            snprintf(text, sizeof text,
                     c < 0x100     ? "\\x%02x"
                     : c < 0x10000 ? "\\u%04x"
                                   : "\\U%08x",
                     (unsigned)c);
        put_escape(vm, b, text, wn_string_is_data(s, i));
    }
    wn_buf_put(vm, b, &quote, 1, NULL);
}

static void repr_items(wn_vm *vm, wn_text_buf *b, wn_value v)
{
    bool tuple = v.kind == WN_TUPLE;
    wn_buf_puts(vm, b, tuple ? "(" : "[");
    for (size_t i = 0; i < v.list->n; i++) {
        if (i) wn_buf_puts(vm, b, ", ");
        wn_val_repr(vm, b, v.list->at[i]);
    }
    wn_buf_puts(vm, b, tuple ? v.list->n == 1 ? ",)" : ")" : "]");
}

static void repr_entries(wn_vm *vm, wn_text_buf *b, const wn_dict *d)
{
    wn_buf_puts(vm, b, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i) wn_buf_puts(vm, b, ", ");
        wn_val_repr(vm, b, d->at[i].key);
        wn_buf_puts(vm, b, ": ");
        wn_val_repr(vm, b, d->at[i].val);
    }
    wn_buf_puts(vm, b, "}");
}

void wn_val_repr(wn_vm *vm, wn_text_buf *b, wn_value v)
{
    wn_vm_enter(vm);
    wn_vm_spend(vm, 1);
    switch (v.kind) {
    case WN_UNSET:
    case WN_UNDEF: wn_buf_puts(vm, b, "Undefined"); break;
    case WN_NONE: wn_buf_puts(vm, b, "None"); break;
    case WN_BOOL: wn_buf_puts(vm, b, v.b ? "True" : "False"); break;
    case WN_INT:
    case WN_FLOAT: print_number(vm, b, v); break;
    case WN_STR: repr_string(vm, b, v.s); break;
    case WN_LIST:
    case WN_TUPLE: repr_items(vm, b, v); break;
    case WN_SPACE: wn_buf_puts(vm, b, "<Namespace ");   /* fall through */
    case WN_DICT:
        repr_entries(vm, b, v.dict);
        if (v.kind == WN_SPACE) wn_buf_puts(vm, b, ">");
        break;
    case WN_FUNC: wn_buf_puts(vm, b, "<function>"); break;
    case WN_METHOD: wn_buf_puts(vm, b, "<method>"); break;
    case WN_LOOP: wn_buf_puts(vm, b, "<loop>"); break;
    case WN_MACRO: wn_buf_puts(vm, b, "<macro>"); break;
    }
    wn_vm_leave(vm);
}

void wn_val_print(wn_vm *vm, wn_text_buf *b, wn_value v)
{
    if (v.kind == WN_STR) wn_buf_string(vm, b, v.s);
    else if (v.kind != WN_UNDEF) wn_val_repr(vm, b, v);
}

const wn_string *wn_val_text(wn_vm *vm, wn_value v)
{
    if (v.kind == WN_STR) return v.s;
    wn_text_buf *b = wn_buf_new(vm, 0);
    wn_val_print(vm, b, v);
    return wn_buf_done(vm, b);
}

/* ---- JSON --------------------------------------------------------------------------- */

static void json_escape(wn_vm *vm, wn_text_buf *b, int32_t c, bool data)
{
    static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    char text[16];
    for (const char *p = named; *p; p += 2)
        if (c == *p) {
            snprintf(text, sizeof text, "\\%c", p[1]);
            put_escape(vm, b, text, data);
            return;
        }
    if (c < 0x10000) snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800u + (unsigned)((c - 0x10000) >> 10),
                 0xDC00u + (unsigned)(c & 0x3FF));
    put_escape(vm, b, text, data);
}

static void json_string(wn_vm *vm, wn_text_buf *b, const wn_string *s, bool ascii)
{
    wn_buf_puts(vm, b, "\"");
    for (size_t i = 0, n; i < s->n; i += n) {
        size_t run = i;
        while (run < s->n && (unsigned char)s->p[run] >= 0x20 && s->p[run] != '"' &&
               s->p[run] != '\\' && (!ascii || (unsigned char)s->p[run] < 0x7F))
            run++;
        wn_buf_cut(vm, b, s, i, run);
        n = run - i;
        if (n) continue;
        n = wn_char_bytes(s->p + i);
        json_escape(vm, b, wn_char_at(s, i), wn_string_is_data(s, i));
    }
    wn_buf_puts(vm, b, "\"");
}

static void json_key(wn_vm *vm, wn_text_buf *b, wn_value k, bool ascii)
{
    switch (k.kind) {
    case WN_STR: json_string(vm, b, k.s, ascii); return;
    case WN_NONE: wn_buf_puts(vm, b, "\"null\""); return;
    case WN_BOOL: wn_buf_puts(vm, b, k.b ? "\"true\"" : "\"false\""); return;
    case WN_INT:
    case WN_FLOAT:
        wn_buf_puts(vm, b, "\"");
        print_number(vm, b, k);
        wn_buf_puts(vm, b, "\"");
        return;
    default:
        wn_vm_fail(vm, "keys of JSON must be str, int, float, bool or None, not %s",
                   wn_kind_name(k));
    }
}

static void new_line(wn_vm *vm, wn_text_buf *b, const wn_json_style *style, int level)
{
    if (!style->indent) return;
    wn_buf_puts(vm, b, "\n");
    for (int i = 0; i < level; i++) wn_buf_string(vm, b, style->indent);
}

/* Indices of a dict's entries, by key when sorted: an insertion into a short list would do for
 * tools, but keys can be many, so merge. */
static void sort_keys(wn_vm *vm, const wn_dict *d, size_t *at, size_t *tmp, size_t n)
{
    if (n < 2) return;
    size_t h = n / 2, i = 0, j = h, k = 0;
    sort_keys(vm, d, at, tmp, h);
    sort_keys(vm, d, at + h, tmp, n - h);
    while (i < h && j < n)
        tmp[k++] = wn_val_compare(vm, d->at[at[j]].key, d->at[at[i]].key, "<") < 0 ? at[j++]
                                                                                   : at[i++];
    while (i < h) tmp[k++] = at[i++];
    memcpy(at, tmp, sizeof *at * k);
}

static void json(wn_vm *vm, wn_text_buf *b, wn_value v, const wn_json_style *style, int level)
{
    size_t n, *order = NULL;
    char text[40];
    wn_vm_enter(vm);
    wn_vm_spend(vm, 1);
    switch (v.kind) {
    case WN_NONE: wn_buf_puts(vm, b, "null"); break;
    case WN_BOOL: wn_buf_puts(vm, b, v.b ? "true" : "false"); break;
    case WN_INT: print_number(vm, b, v); break;
    case WN_FLOAT:
        wn_float_text(v.f, text);
        wn_buf_puts(vm, b,
                    isnan(v.f)   ? "NaN"
                    : isinf(v.f) ? v.f < 0 ? "-Infinity" : "Infinity"
                                 : text);
        break;
    case WN_STR: json_string(vm, b, v.s, style->ascii); break;
    case WN_LIST:
    case WN_TUPLE:
        wn_buf_puts(vm, b, "[");
        for (size_t i = 0; i < v.list->n; i++) {
            if (i) wn_buf_string(vm, b, style->item_sep);
            new_line(vm, b, style, level + 1);
            json(vm, b, v.list->at[i], style, level + 1);
        }
        if (v.list->n) new_line(vm, b, style, level);
        wn_buf_puts(vm, b, "]");
        break;
    case WN_DICT:
        n = v.dict->n;
        if (style->sorted) {
            order = wn_vm_array(vm, size_t, 2 * n);
            for (size_t i = 0; i < n; i++) order[i] = i;
            sort_keys(vm, v.dict, order, order + n, n);
        }
        wn_buf_puts(vm, b, "{");
        for (size_t i = 0; i < n; i++) {
            const wn_entry *e = &v.dict->at[order ? order[i] : i];
            if (i) wn_buf_string(vm, b, style->item_sep);
            new_line(vm, b, style, level + 1);
            json_key(vm, b, e->key, style->ascii);
            wn_buf_string(vm, b, style->key_sep);
            json(vm, b, e->val, style, level + 1);
        }
        if (n) new_line(vm, b, style, level);
        wn_buf_puts(vm, b, "}");
        break;
    case WN_UNDEF: wn_vm_fail(vm, "tojson: %.*s", (int)v.s->n, v.s->p);
    default: wn_vm_fail(vm, "tojson: an object of type %s has no JSON", wn_kind_name(v));
    }
    wn_vm_leave(vm);
}

void wn_val_json(wn_vm *vm, wn_text_buf *b, wn_value v, const wn_json_style *style)
{
    json(vm, b, v, style, 0);
}
