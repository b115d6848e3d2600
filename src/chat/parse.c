/* chat/parse.c - statements: {% if %}, {% for %}, {% set %} and their kin, and the text between.
 *
 * Nesting is bounded by the machine's depth. Chains of operators grow a tree without nesting the
 * parser; the evaluator, which walks both by recursion, has the same bound at its own door.
 */
#include "chat/parser.h"

#include <stdio.h>
#include <string.h>

/* ---- tokens ------------------------------------------------------------------------------ */

void wn_parse_next(wn_parser *p)
{
    p->t = p->has_ahead ? p->ahead : wn_lex_next(&p->lx);
    p->has_ahead = false;
    p->vm->at = p->t.at;
}

const wn_lexeme *wn_parse_peek(wn_parser *p)
{
    if (!p->has_ahead) p->ahead = wn_lex_next(&p->lx);
    p->has_ahead = true;
    return &p->ahead;
}

bool wn_parse_is(const wn_parser *p, const char *op)
{
    return p->t.kind == WN_LEX_OP && wn_string_is(p->t.s, op);
}
bool wn_parse_is_name(const wn_parser *p, const char *name)
{
    return p->t.kind == WN_LEX_NAME && wn_string_is(p->t.s, name);
}

bool wn_parse_skip(wn_parser *p, const char *op)
{
    if (!wn_parse_is(p, op)) return false;
    wn_parse_next(p);
    return true;
}

bool wn_parse_skip_name(wn_parser *p, const char *name)
{
    if (!wn_parse_is_name(p, name)) return false;
    wn_parse_next(p);
    return true;
}

void wn_parse_unexpected(wn_parser *p, const char *wanted)
{
    char got[64];
    switch (p->t.kind) {
    case WN_LEX_END: snprintf(got, sizeof got, "the end of the template"); break;
    case WN_LEX_BLOCK_END: snprintf(got, sizeof got, "%%}"); break;
    case WN_LEX_OUTPUT_END: snprintf(got, sizeof got, "}}"); break;
    case WN_LEX_INT:
    case WN_LEX_FLOAT: snprintf(got, sizeof got, "a number"); break;
    case WN_LEX_STRING: snprintf(got, sizeof got, "a string"); break;
    default:
        snprintf(got, sizeof got, "'%.*s'", p->t.s ? (int)WN_MIN(p->t.s->n, (size_t)40) : 0,
                 p->t.s ? p->t.s->p : "");
    }
    wn_vm_fail_at(p->vm, p->t.at, "%s is expected here, not %s", wanted, got);
}

void wn_parse_expect(wn_parser *p, const char *op)
{
    char wanted[16];
    snprintf(wanted, sizeof wanted, "'%s'", op);
    if (!wn_parse_skip(p, op)) wn_parse_unexpected(p, wanted);
}

const wn_string *wn_parse_name(wn_parser *p, const char *what)
{
    const wn_string *s = p->t.s;
    if (p->t.kind != WN_LEX_NAME) wn_parse_unexpected(p, what);
    wn_parse_next(p);
    return s;
}

wn_node *wn_parse_node(wn_parser *p, wn_node_kind kind)
{
    wn_node *n = wn_vm_take(p->vm, sizeof *n);
    *n = (wn_node){ .kind = (uint8_t)kind, .at = p->t.at };
    return n;
}

/* ---- blocks -------------------------------------------------------------------------------- */

static void end_tag(wn_parser *p)
{
    if (p->t.kind != WN_LEX_BLOCK_END) wn_parse_unexpected(p, "%}");
    wn_parse_next(p);
}

static wn_node *parse_statement(wn_parser *p, const wn_lexeme *tag);

/* Statements up to one of the words; the parser then stands on that word. */
static wn_node *parse_body(wn_parser *p, const wn_lexeme *tag, const char *const *ends)
{
    wn_chain body = { 0 };
    wn_vm_enter(p->vm);
    for (;;) {
        wn_node *n;
        wn_lexeme t = p->t;
        if (t.kind == WN_LEX_END) {
            if (!ends) break;
            wn_vm_fail_at(p->vm, tag->at, "this block has no end {%% %s %%}", ends[0]);
        }
        wn_parse_next(p);
        if (t.kind == WN_LEX_TEXT) {
            n = wn_parse_node(p, WN_N_TEXT);
            n->val = wn_val_of(t.s);
        } else if (t.kind == WN_LEX_OUTPUT) {
            n = wn_parse_node(p, WN_N_OUTPUT);
            n->a = wn_parse_tuple(p, true);
            if (p->t.kind != WN_LEX_OUTPUT_END) wn_parse_unexpected(p, "an operator or }}");
            wn_parse_next(p);
        } else {
            for (int i = 0; ends && ends[i]; i++)
                if (wn_parse_is_name(p, ends[i])) goto done;
            n = parse_statement(p, &t);
        }
        n->at = t.at;
        wn_chain_add(&body, n);
    }
done:
    wn_vm_leave(p->vm);
    return body.first;
}

#define ENDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* a or a, b or (a, (b, c)): names; one alone may be ns.attribute. */
static wn_node *parse_target(wn_parser *p, bool with_attr)
{
    wn_node *first = NULL, *tuple = NULL;
    wn_chain items = { 0 };
    wn_vm_enter(p->vm);
    do {
        wn_node *n;
        /* a trailing comma */
        if (first && !wn_parse_is(p, "(") && p->t.kind != WN_LEX_NAME) break;
        if (wn_parse_skip(p, "(")) {
            n = parse_target(p, false);
            wn_parse_expect(p, ")");
        } else {
            n = wn_parse_node(p, WN_N_NAME);
            n->name = wn_parse_name(p, "a name to assign to");
            if (with_attr && !first && wn_parse_skip(p, ".")) {
                wn_node *attr = wn_parse_node(p, WN_N_ATTR);
                attr->a = n;
                attr->name = wn_parse_name(p, "the name of an attribute");
                wn_vm_leave(p->vm);
                return attr;
            }
        }
        if (!first) first = n;
        wn_chain_add(&items, n);
        if (wn_parse_is(p, ",") && !tuple) tuple = wn_parse_node(p, WN_N_TUPLE);
    } while (wn_parse_skip(p, ","));
    wn_vm_leave(p->vm);
    if (!tuple) return first;
    tuple->list = items.first;
    return tuple;
}

static wn_node *parse_if(wn_parser *p, const wn_lexeme *tag)
{
    wn_node *first = wn_parse_node(p, WN_N_IF), *n = first;
    n->a = wn_parse_tuple(p, false);
    end_tag(p);
    for (;;) {
        n->list = parse_body(p, tag, ENDS("endif", "elif", "else"));
        if (!wn_parse_is_name(p, "elif")) break;
        wn_parse_next(p);
        n->b = wn_parse_node(p, WN_N_IF);
        n = n->b;
        n->a = wn_parse_tuple(p, false);
        end_tag(p);
    }
    if (wn_parse_skip_name(p, "else")) {
        end_tag(p);
        n->b = wn_parse_node(p, WN_N_BODY);
        n->b->list = parse_body(p, tag, ENDS("endif"));
    }
    wn_parse_next(p);
    return first;
}

static wn_node *parse_for(wn_parser *p, const wn_lexeme *tag)
{
    wn_node *n = wn_parse_node(p, WN_N_FOR);
    n->a = parse_target(p, false);
    if (!wn_parse_skip_name(p, "in")) wn_parse_unexpected(p, "'in'");
    n->b = wn_parse_tuple(p, false);
    if (wn_parse_skip_name(p, "if")) n->c = wn_parse_expr(p);
    n->op = wn_parse_skip_name(p, "recursive") ? 'r' : 0;
    end_tag(p);
    p->n_loops++;
    n->list = parse_body(p, tag, ENDS("endfor", "else"));
    p->n_loops--;
    if (wn_parse_skip_name(p, "else")) {
        end_tag(p);
        n->d = wn_parse_node(p, WN_N_BODY);
        n->d->list = parse_body(p, tag, ENDS("endfor"));
    }
    wn_parse_next(p);
    return n;
}

/* Filters of a block: what stands inside them is what the block wrote. */
static wn_node *block_filters(wn_parser *p)
{
    return wn_parse_filters(p, wn_parse_node(p, WN_N_BODY_TEXT));
}

static wn_node *parse_set(wn_parser *p, const wn_lexeme *tag)
{
    wn_node *n = wn_parse_node(p, WN_N_SET);
    n->a = parse_target(p, true);
    if (wn_parse_skip(p, "=")) {
        n->b = wn_parse_tuple(p, true);
        return n;
    }
    n->kind = WN_N_SET_BLOCK;
    if (wn_parse_skip(p, "|")) n->b = block_filters(p);
    end_tag(p);
    n->list = parse_body(p, tag, ENDS("endset"));
    wn_parse_next(p);
    return n;
}

static wn_node *parse_params(wn_parser *p)
{
    wn_chain params = { 0 };
    wn_node *with_default = NULL;
    wn_parse_expect(p, "(");
    while (!wn_parse_is(p, ")")) {
        wn_node *n = wn_parse_node(p, WN_N_PARAM);
        n->name = wn_parse_name(p, "the name of a parameter");
        if (wn_parse_skip(p, "=")) {
            n->b = wn_parse_expr(p);
            with_default = n;
        } else if (with_default)
            wn_vm_fail_at(p->vm, n->at, "a parameter without a default follows one that has one");
        wn_chain_add(&params, n);
        if (!wn_parse_skip(p, ",")) break;
    }
    wn_parse_expect(p, ")");
    return params.first;
}

/* The body of a macro: loops outside of it are not its own, and what it reads is noted. */
static void parse_macro_body(wn_parser *p, wn_node *n, const wn_lexeme *tag, const char *end)
{
    int loops = p->n_loops;
    uint8_t uses = p->uses;
    p->n_loops = p->uses = 0;
    n->list = parse_body(p, tag, ENDS(end));
    n->uses = p->uses;
    p->n_loops = loops;
    p->uses = uses;
}

static wn_node *parse_macro(wn_parser *p, const wn_lexeme *tag)
{
    wn_node *n = wn_parse_node(p, WN_N_MACRO);
    n->name = wn_parse_name(p, "the name of a macro");
    n->a = parse_params(p);
    end_tag(p);
    parse_macro_body(p, n, tag, "endmacro");
    wn_parse_next(p);
    return n;
}

static wn_node *parse_call_block(wn_parser *p, const wn_lexeme *tag)
{
    wn_node *n = wn_parse_node(p, WN_N_CALL_BLOCK), *caller = wn_parse_node(p, WN_N_MACRO);
    caller->name = wn_string_lit(p->vm, "caller", 6);
    if (wn_parse_is(p, "(")) caller->a = parse_params(p);
    n->a = wn_parse_expr(p);
    if (n->a->kind != WN_N_CALL)
        wn_vm_fail_at(p->vm, n->a->at, "{%% call %%} wants a call: {%% call name(...) %%}");
    end_tag(p);
    parse_macro_body(p, caller, tag, "endcall");
    n->b = caller;
    wn_parse_next(p);
    return n;
}

static wn_node *parse_with(wn_parser *p, const wn_lexeme *tag)
{
    wn_node *n = wn_parse_node(p, WN_N_WITH);
    wn_chain sets = { 0 };
    while (p->t.kind != WN_LEX_BLOCK_END) {
        wn_node *set = wn_parse_node(p, WN_N_SET);
        if (sets.first) wn_parse_expect(p, ",");
        set->a = parse_target(p, false);
        wn_parse_expect(p, "=");
        set->b = wn_parse_expr(p);
        wn_chain_add(&sets, set);
    }
    end_tag(p);
    n->a = sets.first;
    n->list = parse_body(p, tag, ENDS("endwith"));
    wn_parse_next(p);
    return n;
}

static wn_node *parse_filter_block(wn_parser *p, const wn_lexeme *tag)
{
    wn_node *n = wn_parse_node(p, WN_N_FILTER_BLOCK);
    n->b = block_filters(p);
    end_tag(p);
    n->list = parse_body(p, tag, ENDS("endfilter"));
    wn_parse_next(p);
    return n;
}

static wn_node *parse_generation(wn_parser *p, const wn_lexeme *tag)
{
    wn_node *n = wn_parse_node(p, WN_N_SCOPE);
    end_tag(p);
    n->list = parse_body(p, tag, ENDS("endgeneration"));
    wn_parse_next(p);
    return n;
}

static wn_node *parse_statement(wn_parser *p, const wn_lexeme *tag)
{
    static const struct {
        const char *name;
        wn_node *(*parse)(wn_parser *, const wn_lexeme *);
    } blocks[] = {
        { "if", parse_if },           { "for", parse_for },
        { "set", parse_set },         { "macro", parse_macro },
        { "call", parse_call_block }, { "filter", parse_filter_block },
        { "with", parse_with },       { "generation", parse_generation },
    };
    wn_node *n = NULL;
    if (p->t.kind != WN_LEX_NAME) wn_parse_unexpected(p, "the name of a statement");
    const wn_string *name = p->t.s;
    for (size_t i = 0; i < WN_COUNT(blocks) && !n; i++)
        if (wn_string_is(name, blocks[i].name)) {
            wn_parse_next(p);
            n = blocks[i].parse(p, tag);
        }
    if (!n && (wn_string_is(name, "break") || wn_string_is(name, "continue"))) {
        n = wn_parse_node(p, wn_string_is(name, "break") ? WN_N_BREAK : WN_N_CONTINUE);
        if (!p->n_loops)
            wn_vm_fail_at(p->vm, tag->at, "{%% %.*s %%} outside of a loop", (int)name->n, name->p);
        wn_parse_next(p);
    }
    if (!n)
        wn_vm_fail_at(
            p->vm, p->t.at,
            "there is no statement '%.*s' here; known are if, for, set, macro, call, filter, with, "
            "generation, raw, break, continue",
            (int)WN_MIN(name->n, (size_t)40), name->p);
    end_tag(p);
    return n;
}

wn_node *wn_parse(wn_vm *vm, const char *source, size_t n)
{
    wn_parser p = { .vm = vm };
    wn_node *root;
    wn_lex_begin(&p.lx, vm, source, n);
    wn_parse_next(&p);
    root = wn_parse_node(&p, WN_N_BODY);
    root->list = parse_body(&p, NULL, NULL);
    return root;
}
