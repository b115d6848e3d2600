/* chat/value.h - what a template computes with: Python's values, and where each byte came from.
 *
 * Kinds and their meaning are those of Python as Jinja sees it: integers and floats are
 * different, True == 1 == 1.0, dicts keep their order, undefined is a value that prints as
 * nothing. Strings are UTF-8 and immutable.
 *
 * Each byte of a string knows its origin: written in the template, or given by whoever filled
 * it in. `from` is a map of one byte per byte of text (0 template, 1 data), NULL when all is the
 * template's. Slices share it, builders carry it along, so it survives every filter byte by
 * byte, and in the end the tokenizer is told which bytes may not spell a special token.
 *
 * A builder grows at its end. A string that is a builder's whole text can be appended to in
 * place, so `text = text + piece` in a loop costs the pieces, not their square: strings made
 * before see a shorter prefix of the same bytes and never change.
 */
#ifndef WN_CHAT_VALUE_H
#define WN_CHAT_VALUE_H

#include "chat/vm.h"

typedef enum {
    WN_UNSET,                           /* no value at all: an argument that was not given */
    WN_UNDEF,                           /* s: what is undefined, as a sentence says it */
    WN_NONE, WN_BOOL, WN_INT, WN_FLOAT, WN_STR,
    WN_LIST, WN_TUPLE, WN_DICT,
    WN_SPACE,                           /* namespace(): a dict whose entries {% set %} may assign */
    WN_LOOP, WN_MACRO, WN_FUNC, WN_METHOD
} wn_kind;

typedef struct wn_string {
    const char *p;
    const uint8_t *from;                /* (n) origin of each byte, or NULL: the template */
    size_t n;
    struct wn_text_buf *home;           /* the builder whose beginning this is, or NULL */
} wn_string;

typedef struct wn_value {
    wn_kind kind;
    bool lazy;                          /* lists: an iterator in Python, true even when empty */
    union {
        bool b;
        int64_t i;
        double f;
        const wn_string *s;
        struct wn_list *list;           /* lists and tuples */
        struct wn_dict *dict;           /* dicts and namespaces */
        struct wn_loop *loop;
        struct wn_macro *macro;
        const struct wn_builtin *func;
        struct wn_method *method;
    };
} wn_value;

typedef struct wn_list {
    wn_value *at;
    size_t n, cap;
    bool is_group;                      /* a pair of groupby: .grouper and .list */
} wn_list;

typedef struct {
    wn_value key, val;
} wn_entry;

struct wn_dict {                        /* entries in the order they came */
    wn_entry *at;
    size_t n, cap;
    uint32_t *slot;                     /* open addressing, 1 + index; NULL while small */
    size_t n_slots;
};

struct wn_text_buf {
    char *p;
    uint8_t *from;                      /* (cap), NULL while all is the template's */
    size_t n, cap;
};

/* A function, method, filter or test: `params` names its parameters ("width first blank"), the
 * first n_required of them needed; NULL leaves the arguments as they were given. */
typedef struct {
    const wn_value *pos;
    int n;
    struct wn_keyword { const wn_string *name; wn_value val; } *kw;
    int n_kw;
} wn_call_args;
typedef struct wn_builtin {
    const char *name, *params;
    int n_required;
    wn_value (*fn)(wn_vm *vm, wn_value self, const wn_value *a, const wn_call_args *args);
} wn_builtin;

struct wn_method { wn_value self; const wn_builtin *fn; };

/* ---- making ------------------------------------------------------------------- */

static inline wn_value wn_val_none(void) { return (wn_value){ .kind = WN_NONE }; }
static inline wn_value wn_val_bool(bool b) { return (wn_value){ .kind = WN_BOOL, .b = b }; }
static inline wn_value wn_val_int(int64_t i) { return (wn_value){ .kind = WN_INT, .i = i }; }
static inline wn_value wn_val_float(double f) { return (wn_value){ .kind = WN_FLOAT, .f = f }; }
static inline wn_value wn_val_of(const wn_string *s)
{
    return (wn_value){ .kind = WN_STR, .s = s };
}
static inline wn_value wn_val_list(wn_list *l) { return (wn_value){ .kind = WN_LIST, .list = l }; }
static inline wn_value wn_val_tuple(wn_list *l)
{
    return (wn_value){ .kind = WN_TUPLE, .list = l };
}
static inline wn_value wn_val_dict(wn_dict *d) { return (wn_value){ .kind = WN_DICT, .dict = d }; }
wn_value wn_val_undef(wn_vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline bool wn_is_list(wn_value v) { return v.kind == WN_LIST || v.kind == WN_TUPLE; }
static inline bool wn_is_int(wn_value v) { return v.kind == WN_INT || v.kind == WN_BOOL; }
static inline bool wn_is_number(wn_value v) { return wn_is_int(v) || v.kind == WN_FLOAT; }
static inline int64_t wn_int_of(wn_value v) { return v.kind == WN_BOOL ? v.b : v.i; }
static inline double wn_float_of(wn_value v)
{
    return v.kind == WN_FLOAT ? v.f : (double)wn_int_of(v);
}
static inline bool wn_given(wn_value v) { return v.kind != WN_UNSET; }
const char *wn_kind_name(wn_value v);   /* as Python calls it: "str", "list" */

/* ---- strings ------------------------------------------------------------------- */

/* The template's own text; borrowed or copied. */
const wn_string *wn_string_lit(wn_vm *vm, const char *p, size_t n);
const wn_string *wn_string_dup(wn_vm *vm, const char *p, size_t n, bool data);
static inline wn_value wn_val_str(wn_vm *vm, const char *z)
{
    return wn_val_of(wn_string_lit(vm, z, __builtin_strlen(z)));
}
/* Bytes [from, to); shares them. */
const wn_string *wn_string_cut(wn_vm *vm, const wn_string *s, size_t from, size_t to);
const wn_string *wn_string_join(wn_vm *vm, const wn_string *a, const wn_string *b);
bool wn_string_same(const wn_string *a, const wn_string *b);
bool wn_string_is(const wn_string *s, const char *z);
int wn_string_order(const wn_string *a, const wn_string *b);
/* Where needle begins at or after from; SIZE_MAX: nowhere. */
size_t wn_string_find(wn_vm *vm, const wn_string *s, const wn_string *needle, size_t from);
size_t wn_string_chars(wn_vm *vm, const wn_string *s);      /* code points */
static inline size_t wn_char_bytes(const char *p)           /* of the character that begins here */
{
    unsigned char c = (unsigned char)*p;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}
int32_t wn_char_at(const wn_string *s, size_t at);          /* its code point */
/* The bytes before at that are one character; at > 0. */
size_t wn_char_before(const wn_string *s, size_t at);
bool wn_char_is_space(int32_t c);                           /* what Python's strip() takes off */
const wn_string *wn_string_strip(wn_vm *vm, const wn_string *s, const wn_string *chars, bool left,
                                 bool right);

wn_text_buf *wn_buf_new(wn_vm *vm, size_t cap);
/* from NULL: the template's bytes. */
void wn_buf_put(wn_vm *vm, wn_text_buf *b, const char *p, size_t n, const uint8_t *from);
void wn_buf_puts(wn_vm *vm, wn_text_buf *b, const char *z);
void wn_buf_cut(wn_vm *vm, wn_text_buf *b, const wn_string *s, size_t from, size_t to);
void wn_buf_string(wn_vm *vm, wn_text_buf *b, const wn_string *s);
void wn_buf_char(wn_vm *vm, wn_text_buf *b, int32_t c, bool data);
void wn_buf_repeat(wn_vm *vm, wn_text_buf *b, char c, size_t n);
const wn_string *wn_buf_done(wn_vm *vm, wn_text_buf *b);
static inline wn_value wn_buf_value(wn_vm *vm, wn_text_buf *b)
{
    return wn_val_of(wn_buf_done(vm, b));
}
/* Where b's text is going to be data if any of s is. */
static inline bool wn_string_is_data(const wn_string *s, size_t at)
{
    return s->from && at < s->n && s->from[at];
}

/* ---- lists and dicts ------------------------------------------------------------- */

wn_list *wn_list_new(wn_vm *vm, size_t cap);
void wn_list_add(wn_vm *vm, wn_list *l, wn_value v);
/* What a for loop would walk over: items of lists, keys of dicts, characters; fails otherwise. */
wn_list *wn_list_of(wn_vm *vm, wn_value v);

wn_dict *wn_dict_new(wn_vm *vm);
void wn_dict_set(wn_vm *vm, wn_dict *d, wn_value key, wn_value val);
wn_value *wn_dict_find(wn_vm *vm, const wn_dict *d, wn_value key);  /* NULL: not there */
wn_value *wn_dict_get(wn_vm *vm, const wn_dict *d, const char *key);
bool wn_dict_remove(wn_vm *vm, wn_dict *d, wn_value key, wn_value *was);
wn_value wn_pair(wn_vm *vm, wn_value a, wn_value b);        /* a tuple */

/* ---- asking ---------------------------------------------------------------------- */

bool wn_val_truth(wn_value v);
bool wn_val_equal(wn_vm *vm, wn_value a, wn_value b);
/* fails where Python does */
int wn_val_compare(wn_vm *vm, wn_value a, wn_value b, const char *op);
bool wn_val_in(wn_vm *vm, wn_value x, wn_value all);
int64_t wn_val_length(wn_vm *vm, wn_value v);

/* ---- as text (print.c) ------------------------------------------------------------ */

const wn_string *wn_val_text(wn_vm *vm, wn_value v);        /* str() */
void wn_val_print(wn_vm *vm, wn_text_buf *b, wn_value v);
void wn_val_repr(wn_vm *vm, wn_text_buf *b, wn_value v);
typedef struct {
    const wn_string *item_sep, *key_sep, *indent;   /* indent NULL: one line */
    bool ascii, sorted;
} wn_json_style;
void wn_val_json(wn_vm *vm, wn_text_buf *b, wn_value v, const wn_json_style *style);
void wn_float_text(double f, char out[40]);                 /* as Python prints it */

#endif
