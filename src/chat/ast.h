/* chat/ast.h - a template as a tree.
 *
 * One kind of node serves all: what its fields hold is said beside each kind. Children that are
 * many are chained by `next`. Nodes live in the arena of their template and never change after
 * parsing, so any number of renderings may walk one tree.
 */
#ifndef WN_CHAT_AST_H
#define WN_CHAT_AST_H

#include "chat/value.h"

typedef enum {
    /* statements */
    WN_N_TEXT,          /* val: the string */
    WN_N_OUTPUT,        /* a: expression */
    WN_N_IF,            /* a: condition, list: then, b: else (WN_N_BODY or the IF of an elif) or
                           NULL */
    WN_N_FOR,           /* a: target, b: what to walk, c: condition or NULL, list: body, d: else
                           (BODY) or NULL */
    WN_N_SET,           /* a: target, b: value */
    WN_N_SET_BLOCK,     /* a: target, list: body, b: filters around WN_N_BODY_TEXT, or NULL */
    WN_N_MACRO,         /* name, a: first parameter, list: body, uses */
    WN_N_CALL_BLOCK,    /* a: the call, b: a MACRO named "caller" */
    WN_N_FILTER_BLOCK,  /* b: filters around BODY_TEXT, list: body */
    WN_N_WITH,          /* a: chain of SET, list: body */
    WN_N_BODY,          /* list: statements (in the scope around them) */
    WN_N_SCOPE,         /* list: statements in a scope of their own ({% generation %}) */
    WN_N_BREAK, WN_N_CONTINUE,
    WN_N_PARAM,         /* name, b: default or NULL */
    /* expressions */
    WN_N_CONST,         /* val */
    WN_N_NAME,          /* name */
    WN_N_LIST, WN_N_TUPLE,      /* list: items */
    WN_N_DICT,          /* list: keys and values in turn */
    WN_N_ATTR,          /* a . name */
    WN_N_ITEM,          /* a [ b ] */
    WN_N_SLICE,         /* a [ b : c : d ], each may be NULL */
    WN_N_CALL,          /* a ( list: ARG ... ) */
    WN_N_ARG,           /* b: value; name: keyword or NULL; op '*' or '2' ("**") unpacks */
    WN_N_FILTER,        /* a | name (list); fn, NULL when there is no such filter */
    WN_N_TEST,          /* a is name (list); fn likewise */
    WN_N_NOT, WN_N_NEG, WN_N_POS,       /* a */
    WN_N_AND, WN_N_OR,  /* a, b */
    WN_N_BINARY,        /* a op b: + - * / % and 'd' for //, 'p' for **, '~' */
    WN_N_COMPARE,       /* a, then list: OPERAND ... */
    WN_N_OPERAND,       /* op, b: = ! < > l(e) g(e) i(n) n(ot in) */
    WN_N_COND,          /* a if b else c (NULL) */
    WN_N_BODY_TEXT      /* inside the filters of a block: what the block wrote */
} wn_node_kind;

enum { WN_USES_VARARGS = 1, WN_USES_KWARGS = 2, WN_USES_CALLER = 4 };

typedef struct wn_node wn_node;
struct wn_node {
    uint8_t kind;
    char op;
    uint8_t uses;                       /* MACRO: which of the implicit names it reads */
    uint32_t at;                        /* byte of the source, for sentences */
    const wn_string *name;
    wn_value val;
    wn_node *a, *b, *c, *d, *list, *next;
    const wn_builtin *fn;
};

/* The tree of a source; failures jump. */
wn_node *wn_parse(wn_vm *vm, const char *source, size_t n);

const wn_builtin *wn_filter_find(const wn_string *name);    /* NULL: there is none */
const wn_builtin *wn_test_find(const wn_string *name);

#endif
