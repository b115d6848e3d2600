/* chat/parser.h - what the two halves of the parser share: parse.c reads statements,
 * parse_expr.c what stands inside them. One token of lookahead, one of pushing back. */
#ifndef WN_CHAT_PARSER_H
#define WN_CHAT_PARSER_H

#include "chat/ast.h"
#include "chat/lex.h"

typedef struct {
    wn_vm *vm;
    wn_lexer lx;
    wn_lexeme t, ahead;                 /* the token at hand; the one behind it, if has_ahead */
    bool has_ahead;
    int n_loops;                        /* for blocks around us in this macro */
    uint8_t uses;                       /* of the macro around us */
} wn_parser;

void wn_parse_next(wn_parser *p);
const wn_lexeme *wn_parse_peek(wn_parser *p);
bool wn_parse_is(const wn_parser *p, const char *op);       /* an operator */
bool wn_parse_is_name(const wn_parser *p, const char *name);
bool wn_parse_skip(wn_parser *p, const char *op);           /* if it is, goes on */
bool wn_parse_skip_name(wn_parser *p, const char *name);
void wn_parse_expect(wn_parser *p, const char *op);
const wn_string *wn_parse_name(wn_parser *p, const char *what);
_Noreturn void wn_parse_unexpected(wn_parser *p, const char *wanted);
wn_node *wn_parse_node(wn_parser *p, wn_node_kind kind);

/* Children in a chain, kept with its end. */
typedef struct { wn_node *first, **end; } wn_chain;
static inline void wn_chain_add(wn_chain *c, wn_node *n)
{
    if (!c->end) c->end = &c->first;
    *c->end = n;
    c->end = &n->next;
}

wn_node *wn_parse_expr(wn_parser *p);                       /* with inline if */
wn_node *wn_parse_plain(wn_parser *p);                      /* without: before `if`, `recursive` */
/* a, b, c: a tuple; alone it is itself. */
wn_node *wn_parse_tuple(wn_parser *p, bool with_if);
wn_node *wn_parse_postfix(wn_parser *p, wn_node *a);        /* .name [i] (args) */
wn_node *wn_parse_primary(wn_parser *p);
wn_node *wn_parse_filters(wn_parser *p, wn_node *a);        /* | name(args) ..., at least one */
wn_node *wn_parse_args(wn_parser *p);                       /* ( ... ) of a call: chain of ARG */

#endif
