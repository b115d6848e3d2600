/* chat/parse_expr.c - expressions, by descent. Loosest first, as Jinja binds them:
 *
 *     a if b else c   or   and   not   == != < <= > >= in   + -   ~   * / // %   **   - +   . [] () | is
 *
 * Two of these differ from Python: ~ binds tighter than +, and ** goes from left to right.
 */
#include "chat/parser.h"

#include <string.h>

static wn_node *parse_or(wn_parser *p);
static wn_node *parse_unary(wn_parser *p, bool with_filters);

static wn_node *binary(wn_parser *p, wn_node_kind kind, char op, wn_node *a, uint32_t at)
{
    wn_node *n = wn_parse_node(p, kind);
    n->op = op;
    n->a = a;
    n->at = at;
    return n;
}

wn_node *wn_parse_expr(wn_parser *p)
{
    wn_node *a = parse_or(p);
    while (wn_parse_is_name(p, "if")) {
        wn_node *n = binary(p, WN_N_COND, 0, a, p->t.at);
        wn_vm_enter(p->vm);
        wn_parse_next(p);
        n->b = parse_or(p);
        if (wn_parse_skip_name(p, "else")) n->c = wn_parse_expr(p);
        wn_vm_leave(p->vm);
        a = n;
    }
    return a;
}

wn_node *wn_parse_plain(wn_parser *p) { return parse_or(p); }

static bool tuple_ends(const wn_parser *p)
{
    return p->t.kind == WN_LEX_BLOCK_END || p->t.kind == WN_LEX_OUTPUT_END || wn_parse_is(p, ")") ||
           wn_parse_is_name(p, "recursive");
}

wn_node *wn_parse_tuple(wn_parser *p, bool with_if)
{
    wn_node *t = NULL, *a = NULL;
    wn_chain items = { 0 };
    for (;;) {
        if (a && tuple_ends(p)) break;
        a = with_if ? wn_parse_expr(p) : wn_parse_plain(p);
        wn_chain_add(&items, a);
        if (!wn_parse_is(p, ",")) break;
        if (!t) t = wn_parse_node(p, WN_N_TUPLE);
        wn_parse_next(p);
    }
    if (!t) return a;
    t->list = items.first;
    return t;
}

static wn_node *parse_not(wn_parser *p);

static wn_node *parse_or(wn_parser *p)
{
    wn_vm_enter(p->vm);
    wn_node *a = NULL;
    for (bool more = true; more; more = wn_parse_is_name(p, "or")) {
        wn_node *o = a ? binary(p, WN_N_OR, 0, a, p->t.at) : NULL;
        if (o) wn_parse_next(p);
        wn_node *b = parse_not(p);
        while (wn_parse_is_name(p, "and")) {
            b = binary(p, WN_N_AND, 0, b, p->t.at);
            wn_parse_next(p);
            b->b = parse_not(p);
        }
        if (o) o->b = b;
        a = o ? o : b;
    }
    wn_vm_leave(p->vm);
    return a;
}

/* ---- comparing and computing ------------------------------------------------------------ */

/* The operator at hand among those of one level: pairs of spelling and code. */
static char take_op(wn_parser *p, const char *const (*ops)[2], size_t n, uint32_t *at)
{
    if (p->t.kind != WN_LEX_OP) return 0;
    for (size_t i = 0; i < n; i++)
        if (wn_parse_is(p, ops[i][0])) {
            *at = p->t.at;
            wn_parse_next(p);
            return ops[i][1][0];
        }
    return 0;
}

static wn_node *parse_pow(wn_parser *p)
{
    wn_node *a = parse_unary(p, true);
    while (wn_parse_is(p, "**")) {
        a = binary(p, WN_N_BINARY, 'p', a, p->t.at);
        wn_parse_next(p);
        a->b = parse_unary(p, true);
    }
    return a;
}

static wn_node *parse_product(wn_parser *p)
{
    static const char *const ops[][2] = { { "*", "*" }, { "/", "/" }, { "//", "d" }, { "%", "%" } };
    uint32_t at;
    wn_node *a = parse_pow(p);
    for (char op; (op = take_op(p, ops, WN_COUNT(ops), &at));) {
        a = binary(p, WN_N_BINARY, op, a, at);
        a->b = parse_pow(p);
    }
    return a;
}

static wn_node *parse_concat(wn_parser *p)
{
    wn_node *a = parse_product(p);
    while (wn_parse_is(p, "~")) {
        a = binary(p, WN_N_BINARY, '~', a, p->t.at);
        wn_parse_next(p);
        a->b = parse_product(p);
    }
    return a;
}

static wn_node *parse_sum(wn_parser *p)
{
    static const char *const ops[][2] = { { "+", "+" }, { "-", "-" } };
    uint32_t at;
    wn_node *a = parse_concat(p);
    for (char op; (op = take_op(p, ops, WN_COUNT(ops), &at));) {
        a = binary(p, WN_N_BINARY, op, a, at);
        a->b = parse_concat(p);
    }
    return a;
}

static char compare_op(wn_parser *p)
{
    static const char *const ops[][2] = { { "==", "=" }, { "!=", "!" }, { "<", "<" },
                                          { ">", ">" },  { "<=", "l" }, { ">=", "g" } };
    uint32_t at;
    if (wn_parse_skip_name(p, "in")) return 'i';
    if (wn_parse_is_name(p, "not") && wn_parse_peek(p)->kind == WN_LEX_NAME &&
        wn_string_is(wn_parse_peek(p)->s, "in")) {
        wn_parse_next(p);
        wn_parse_next(p);
        return 'n';
    }
    return take_op(p, ops, WN_COUNT(ops), &at);
}

static wn_node *parse_compare(wn_parser *p)
{
    wn_chain operands = { 0 };
    wn_node *a = parse_sum(p), *n = wn_parse_node(p, WN_N_COMPARE);
    for (char op; (op = compare_op(p));) {
        wn_node *o = wn_parse_node(p, WN_N_OPERAND);
        o->op = op;
        o->b = parse_sum(p);
        wn_chain_add(&operands, o);
    }
    if (!operands.first) return a;
    n->a = a;
    n->list = operands.first;
    return n;
}

static wn_node *parse_not(wn_parser *p)
{
    if (!wn_parse_is_name(p, "not")) return parse_compare(p);
    wn_node *n = wn_parse_node(p, WN_N_NOT);
    wn_vm_enter(p->vm);
    wn_parse_next(p);
    n->a = parse_not(p);
    wn_vm_leave(p->vm);
    return n;
}

/* ---- one operand ---------------------------------------------------------------------------- */

/* Arguments of a test may stand without brackets: x is divisibleby 3. */
static wn_node *bare_argument(wn_parser *p)
{
    static const char *const words[] = {
        "else", "or", "and", "if", "is", "in", "not", "recursive"
    };
    bool begins = p->t.kind == WN_LEX_NAME || p->t.kind == WN_LEX_STRING ||
                  p->t.kind == WN_LEX_INT || p->t.kind == WN_LEX_FLOAT || wn_parse_is(p, "[") ||
                  wn_parse_is(p, "{");
    for (size_t i = 0; i < WN_COUNT(words); i++)
        if (wn_parse_is_name(p, words[i])) begins = false;
    if (!begins) return NULL;
    wn_node *arg = wn_parse_node(p, WN_N_ARG);
    arg->b = wn_parse_postfix(p, wn_parse_primary(p));
    return arg;
}

static wn_node *parse_test(wn_parser *p, wn_node *a)
{
    wn_node *n = wn_parse_node(p, WN_N_TEST), *no = NULL;
    if (wn_parse_skip_name(p, "not")) no = wn_parse_node(p, WN_N_NOT);
    n->at = p->t.at;
    n->name = wn_parse_name(p, "the name of a test");
    n->fn = wn_test_find(n->name);
    n->a = a;
    n->list = wn_parse_is(p, "(") ? wn_parse_args(p) : bare_argument(p);
    if (no) no->a = n;
    return no ? no : n;
}

static wn_node *parse_filter(wn_parser *p, wn_node *a)
{
    wn_node *n = wn_parse_node(p, WN_N_FILTER);
    n->a = a;
    n->name = wn_parse_name(p, "the name of a filter");
    n->fn = wn_filter_find(n->name);
    if (wn_parse_is(p, "(")) n->list = wn_parse_args(p);
    return n;
}

wn_node *wn_parse_filters(wn_parser *p, wn_node *a)
{
    do a = parse_filter(p, a);
    while (wn_parse_skip(p, "|"));
    return a;
}

/* What can follow an operand: filters, tests, calls, in any order. */
static wn_node *parse_tail(wn_parser *p, wn_node *a)
{
    for (int n = 0;; n++) {
        if (n == 200) wn_vm_fail_at(p->vm, p->t.at, "more than %d filters in a row", n);
        if (wn_parse_skip(p, "|")) a = parse_filter(p, a);
        else if (wn_parse_is_name(p, "is")) {
            wn_parse_next(p);
            a = parse_test(p, a);
        } else if (wn_parse_is(p, "(") || wn_parse_is(p, "[") || wn_parse_is(p, "."))
            a = wn_parse_postfix(p, a);
        else return a;
    }
}

static wn_node *parse_unary(wn_parser *p, bool with_filters)
{
    wn_node *a;
    if (wn_parse_is(p, "-") || wn_parse_is(p, "+")) {
        a = wn_parse_node(p, wn_parse_is(p, "-") ? WN_N_NEG : WN_N_POS);
        wn_vm_enter(p->vm);
        wn_parse_next(p);
        a->a = parse_unary(p, false);
        wn_vm_leave(p->vm);
    } else {
        a = wn_parse_postfix(p, wn_parse_primary(p));
    }
    return with_filters ? parse_tail(p, a) : a;
}

static wn_node *parse_subscript(wn_parser *p, wn_node *a)
{
    wn_node *n = wn_parse_node(p, WN_N_ITEM), *part[3] = { 0 };
    int i = 0;
    n->a = a;
    wn_parse_expect(p, "[");
    for (;;) {
        if (!wn_parse_is(p, ":") && !wn_parse_is(p, "]")) part[i] = wn_parse_expr(p);
        if (i == 2 || !wn_parse_skip(p, ":")) break;
        i++;
        n->kind = WN_N_SLICE;
    }
    if (n->kind == WN_N_ITEM && wn_parse_is(p, ",") && part[0]) {      /* a[1, 2]: a tuple as key */
        wn_node *t = wn_parse_node(p, WN_N_TUPLE);
        wn_chain items = { 0 };
        wn_chain_add(&items, part[0]);
        while (wn_parse_skip(p, ","))
            if (!wn_parse_is(p, "]")) wn_chain_add(&items, wn_parse_expr(p));
        t->list = items.first;
        part[0] = t;
    }
    if (n->kind == WN_N_ITEM && !part[0]) wn_parse_unexpected(p, "an index");
    wn_parse_expect(p, "]");
    n->b = part[0];
    n->c = part[1];
    n->d = part[2];
    return n;
}

wn_node *wn_parse_postfix(wn_parser *p, wn_node *a)
{
    for (int i = 0;; i++) {
        wn_node *n;
        if (i == 200) wn_vm_fail_at(p->vm, p->t.at, "more than %d subscripts in a row", i);
        if (wn_parse_is(p, "[")) {
            a = parse_subscript(p, a);
            continue;
        }
        if (wn_parse_is(p, "(")) {
            n = wn_parse_node(p, WN_N_CALL);
            n->list = wn_parse_args(p);
        } else if (wn_parse_skip(p, ".")) {
            n = wn_parse_node(p, WN_N_ATTR);
            if (p->t.kind == WN_LEX_INT) {
                n->kind = WN_N_ITEM;
                n->b = wn_parse_primary(p);
            } else {
                n->name = wn_parse_name(p, "a name or number after '.'");
            }
        } else return a;
        n->a = a;
        a = n;
    }
}

wn_node *wn_parse_args(wn_parser *p)
{
    wn_chain args = { 0 };
    bool named = false;
    wn_parse_expect(p, "(");
    while (!wn_parse_is(p, ")")) {
        wn_node *arg = wn_parse_node(p, WN_N_ARG);
        if (wn_parse_skip(p, "*")) arg->op = '*';
        else if (wn_parse_skip(p, "**")) arg->op = '2';
        else if (p->t.kind == WN_LEX_NAME && wn_parse_peek(p)->kind == WN_LEX_OP &&
                 wn_string_is(wn_parse_peek(p)->s, "=")) {
            arg->name = p->t.s;
            wn_parse_next(p);
            wn_parse_next(p);
        }
        if (!arg->name && !arg->op && named)
            wn_vm_fail_at(p->vm, arg->at, "a positional argument follows a named one");
        named = named || arg->name || arg->op == '2';
        arg->b = wn_parse_expr(p);
        wn_chain_add(&args, arg);
        if (!wn_parse_skip(p, ",")) break;
    }
    wn_parse_expect(p, ")");
    return args.first;
}

static wn_node *items_until(wn_parser *p, const char *end)
{
    wn_chain items = { 0 };
    while (!wn_parse_is(p, end)) {
        wn_chain_add(&items, wn_parse_expr(p));
        if (end[0] == '}') {
            wn_parse_expect(p, ":");
            wn_chain_add(&items, wn_parse_expr(p));
        }
        if (!wn_parse_skip(p, ",")) break;
    }
    wn_parse_expect(p, end);
    return items.first;
}

static wn_node *parse_word(wn_parser *p)
{
    static const struct { const char *name; wn_value val; } words[] = {
        { "true", { .kind = WN_BOOL, .b = true } }, { "True", { .kind = WN_BOOL, .b = true } },
        { "false", { .kind = WN_BOOL } }, { "False", { .kind = WN_BOOL } },
        { "none", { .kind = WN_NONE } }, { "None", { .kind = WN_NONE } },
    };
    wn_node *n = wn_parse_node(p, WN_N_NAME);
    n->name = p->t.s;
    for (size_t i = 0; i < WN_COUNT(words); i++)
        if (wn_string_is(n->name, words[i].name)) {
            n->kind = WN_N_CONST;
            n->val = words[i].val;
        }
    if (wn_string_is(n->name, "varargs")) p->uses |= WN_USES_VARARGS;
    if (wn_string_is(n->name, "kwargs")) p->uses |= WN_USES_KWARGS;
    if (wn_string_is(n->name, "caller")) p->uses |= WN_USES_CALLER;
    wn_parse_next(p);
    return n;
}

wn_node *wn_parse_primary(wn_parser *p)
{
    wn_node *n;
    if (p->t.kind == WN_LEX_NAME) return parse_word(p);
    n = wn_parse_node(p, WN_N_CONST);
    switch (p->t.kind) {
    case WN_LEX_STRING:                 /* neighbours are one string */
        n->val = wn_val_of(p->t.s);
        for (wn_parse_next(p); p->t.kind == WN_LEX_STRING; wn_parse_next(p))
            n->val = wn_val_of(wn_string_join(p->vm, n->val.s, p->t.s));
        return n;
    case WN_LEX_INT: n->val = wn_val_int(p->t.i); break;
    case WN_LEX_FLOAT: n->val = wn_val_float(p->t.f); break;
    default:
        if (wn_parse_skip(p, "(")) {
            n->kind = WN_N_TUPLE;
            if (!wn_parse_is(p, ")")) n = wn_parse_tuple(p, true);
            wn_parse_expect(p, ")");
        } else if (wn_parse_skip(p, "[")) {
            n->kind = WN_N_LIST;
            n->list = items_until(p, "]");
        } else if (wn_parse_skip(p, "{")) {
            n->kind = WN_N_DICT;
            n->list = items_until(p, "}");
        } else wn_parse_unexpected(p, "an expression");
        return n;
    }
    wn_parse_next(p);
    return n;
}
