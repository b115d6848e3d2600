/* chat/run.h - a template at work: scopes, statements, expressions, calls.
 *
 * Scopes are chains of short lists. A loop's body has one for each turn, as have macros, blocks
 * of set, with and call; `if` has none. Assignment always writes the innermost scope, so what a
 * loop sets is gone after it: that is why templates use namespace(). A macro keeps the scope it
 * was defined in and sees what that holds when it is called.
 */
#ifndef WN_CHAT_RUN_H
#define WN_CHAT_RUN_H

#include "chat/ast.h"

struct wn_scope {
    wn_scope *up;
    struct wn_var { const wn_string *name; wn_value val; } *at;
    int n, cap;
};

typedef struct wn_loop {
    wn_list *items;
    size_t i;
    int depth;                          /* 0: not inside a recursive call of itself */
    wn_value seen;                      /* by loop.changed() */
    const wn_node *node;                /* of a recursive loop */
    wn_scope *scope;                    /* around it */
} wn_loop;

typedef struct wn_macro {
    const wn_node *n;
    wn_scope *scope;
} wn_macro;

typedef enum { WN_GO_ON, WN_BREAK, WN_CONTINUE } wn_flow;

/* run.c */
wn_flow wn_exec(wn_vm *vm, const wn_node *list);
wn_scope *wn_scope_push(wn_vm *vm, wn_scope *up);
void wn_scope_set(wn_vm *vm, wn_scope *s, const wn_string *name, wn_value v);
wn_value wn_macro_call(wn_vm *vm, const wn_macro *m, const wn_call_args *args);
/* loop(items) */
wn_value wn_loop_again(wn_vm *vm, const wn_loop *loop, const wn_call_args *args);

/* eval.c */
wn_value wn_eval(wn_vm *vm, const wn_node *n);
wn_value wn_call_value(wn_vm *vm, wn_value f, const wn_call_args *args);
wn_call_args wn_eval_args(wn_vm *vm, const wn_node *list);
/* A filter, test, method or function with its arguments sorted by its parameters. */
wn_value wn_apply(wn_vm *vm, const wn_builtin *fn, wn_value self, const wn_call_args *args);
wn_value wn_binary(wn_vm *vm, char op, wn_value a, wn_value b);

/* access.c */
wn_value wn_get_attr(wn_vm *vm, wn_value v, const wn_string *name);     /* v.name */
wn_value wn_get_item(wn_vm *vm, wn_value v, wn_value key);              /* v[key] */
wn_value wn_get_slice(wn_vm *vm, wn_value v, wn_value from, wn_value to, wn_value step);
wn_value wn_get_path(wn_vm *vm, wn_value v, wn_value path);  /* "a.b.0" of map(attribute=...) */
int64_t wn_want_int(wn_vm *vm, wn_value v, const char *what);
const wn_string *wn_want_str(wn_vm *vm, wn_value v, const char *what);

/* A function that templates can call: x|name(..), x is name(..), x.name(..), name(..). */
#define WN_UNUSED __attribute__((unused))
#define WN_BUILTIN(name)                                               \
    static wn_value name(wn_vm *vm WN_UNUSED, wn_value self WN_UNUSED, \
                         const wn_value *a WN_UNUSED, const wn_call_args *args WN_UNUSED)
const wn_builtin *wn_builtin_find(const wn_builtin *table, size_t n, const wn_string *name);

/* Text shared by filters and methods. */
bool wn_char_is_word(int32_t c);        /* a letter or a digit, as isalnum() has it */
/* 'u'pper 'l'ower 's'wap 't'itle 'c'apitalize */
const wn_string *wn_string_case(wn_vm *vm, const wn_string *s, int how);
const wn_string *wn_string_replace(wn_vm *vm, const wn_string *s, const wn_string *was,
                                   const wn_string *is, int64_t count);
/* where: '<' fill at the right, '>' at the left, '^' both, 'c' both as str.center() shares out an
 * odd one */
const wn_string *wn_string_pad(wn_vm *vm, const wn_string *s, int64_t width, const wn_string *fill,
                               char where);
wn_list *wn_string_words(wn_vm *vm, const wn_string *s, int64_t max);  /* split at white space */

/* globals.c, methods.c: NULL when there is none */
const wn_builtin *wn_global_find(const wn_string *name);
const wn_builtin *wn_method_find(wn_value self, const wn_string *name);

/* format.c: "%s of %d" % (a, b) and "{} of {}".format(a, b) */
const wn_string *wn_format_percent(wn_vm *vm, const wn_string *fmt, wn_value values);
const wn_string *wn_format_braces(wn_vm *vm, const wn_string *fmt, const wn_call_args *args);

#endif
