/* chat/run.c - statements, macros and loops at work: see run.h. */
#include "chat/run.h"

#include <string.h>

wn_scope *wn_scope_push(wn_vm *vm, wn_scope *up)
{
    wn_scope *s = wn_vm_take(vm, sizeof *s);
    *s = (wn_scope){ .up = up };
    return s;
}

void wn_scope_set(wn_vm *vm, wn_scope *s, const wn_string *name, wn_value v)
{
    for (int i = 0; i < s->n; i++)
        if (wn_string_same(s->at[i].name, name)) {
            s->at[i].val = v;
            return;
        }
    if (s->n == s->cap) {
        int cap = s->cap ? 2 * s->cap : 2;
        struct wn_var *at = wn_vm_array(vm, struct wn_var, cap);
        if (s->n) memcpy(at, s->at, sizeof *at * (size_t)s->n);
        s->at = at;
        s->cap = cap;
    }
    wn_vm_spend(vm, (uint64_t)s->n);
    s->at[s->n++] = (struct wn_var){ name, v };
}

/* ---- assignment ------------------------------------------------------------------------------ */

static void assign(wn_vm *vm, wn_scope *scope, const wn_node *target, wn_value v)
{
    if (target->kind == WN_N_NAME) {
        wn_scope_set(vm, scope, target->name, v);
    } else if (target->kind == WN_N_ATTR) {
        wn_value space = wn_eval(vm, target->a);
        vm->at = target->at;
        if (space.kind != WN_SPACE)
            wn_vm_fail(vm, "only a namespace() has attributes that can be set");
        wn_dict_set(vm, space.dict, wn_val_of(target->name), v);
    } else {
        size_t n = 0, i = 0;
        vm->at = target->at;
        wn_list *items = wn_list_of(vm, v);
        for (const wn_node *t = target->list; t; t = t->next) n++;
        if (items->n != n)
            wn_vm_fail(vm, "%zu names for %zu values: too %s to unpack", n, items->n,
                       items->n < n ? "few" : "many");
        for (const wn_node *t = target->list; t; t = t->next) assign(vm, scope, t, items->at[i++]);
    }
}

/* ---- text that goes somewhere else ----------------------------------------------------------- */

/* Runs list in a scope of its own; what it writes is the value. */
static wn_value capture(wn_vm *vm, const wn_node *list, wn_scope *scope, wn_flow *flow)
{
    wn_text_buf *out = vm->out, *mine = wn_buf_new(vm, 0);
    wn_scope *was = vm->scope;
    vm->out = mine;
    vm->scope = scope;
    *flow = wn_exec(vm, list);
    vm->out = out;
    vm->scope = was;
    return wn_buf_value(vm, mine);
}

static wn_value filtered(wn_vm *vm, const wn_node *filters, wn_value text)
{
    if (!filters || filters->kind == WN_N_BODY_TEXT) return text;
    wn_value inner = filtered(vm, filters->a, text);
    wn_call_args args = wn_eval_args(vm, filters->list);
    vm->at = filters->at;
    if (!filters->fn)
        wn_vm_fail(vm, "there is no filter '%.*s'", (int)filters->name->n, filters->name->p);
    return wn_apply(vm, filters->fn, inner, &args);
}

/* ---- macros ---------------------------------------------------------------------------------- */

static const struct wn_keyword *keyword(const wn_call_args *args, const wn_string *name)
{
    for (int i = 0; i < args->n_kw; i++)
        if (wn_string_same(args->kw[i].name, name)) return &args->kw[i];
    return NULL;
}

static bool has_param(const wn_node *macro, const wn_string *name)
{
    for (const wn_node *p = macro->a; p; p = p->next)
        if (wn_string_same(p->name, name)) return true;
    return false;
}

/* Keywords that are no parameter: the caller of a call block, or entries of kwargs. */
static void bind_rest(wn_vm *vm, const wn_macro *m, wn_scope *scope, const wn_call_args *args,
                      int i)
{
    const wn_node *n = m->n;
    wn_dict *kwargs = wn_dict_new(vm);
    wn_list *varargs = wn_list_new(vm, 0);
    wn_string caller = { .p = "caller", .n = 6 };
    if (i < args->n && !(n->uses & WN_USES_VARARGS))
        wn_vm_fail(vm, "macro '%.*s' takes at most %d arguments, not %d", (int)n->name->n,
                   n->name->p, i, args->n);
    for (; i < args->n; i++) wn_list_add(vm, varargs, args->pos[i]);
    if (n->uses & WN_USES_CALLER && !has_param(n, &caller))
        wn_scope_set(vm, scope, wn_string_lit(vm, "caller", 6),
                     wn_val_undef(vm, "'caller' is undefined"));
    for (int k = 0; k < args->n_kw; k++) {
        const wn_string *name = args->kw[k].name;
        if (has_param(n, name)) continue;
        if (wn_string_is(name, "caller") && n->uses & WN_USES_CALLER)
            wn_scope_set(vm, scope, name, args->kw[k].val);
        else if (n->uses & WN_USES_KWARGS)
            wn_dict_set(vm, kwargs, wn_val_of(name), args->kw[k].val);
        else
            wn_vm_fail(vm, "macro '%.*s' takes no keyword argument '%.*s'", (int)n->name->n,
                       n->name->p, (int)name->n, name->p);
    }
    if (n->uses & WN_USES_VARARGS)
        wn_scope_set(vm, scope, wn_string_lit(vm, "varargs", 7), wn_val_tuple(varargs));
    if (n->uses & WN_USES_KWARGS)
        wn_scope_set(vm, scope, wn_string_lit(vm, "kwargs", 6), wn_val_dict(kwargs));
}

wn_value wn_macro_call(wn_vm *vm, const wn_macro *m, const wn_call_args *args)
{
    wn_scope *scope = wn_scope_push(vm, m->scope), *was = vm->scope;
    uint32_t at = vm->at;
    int i = 0;
    wn_flow flow;
    vm->scope = scope;                  /* defaults may name earlier parameters */
    for (const wn_node *p = m->n->a; p; p = p->next, i++) {
        const struct wn_keyword *kw = keyword(args, p->name);
        if (i < args->n && kw)
            wn_vm_fail(vm, "macro: two values for the argument '%.*s'", (int)p->name->n,
                       p->name->p);
        wn_scope_set(vm, scope, p->name,
                     i < args->n ? args->pos[i]
                     : kw        ? kw->val
                     : p->b      ? wn_eval(vm, p->b)
                                 : wn_val_undef(vm, "parameter '%.*s' was not provided",
                                                (int)WN_MIN(p->name->n, (size_t)80), p->name->p));
        vm->at = at;
    }
    bind_rest(vm, m, scope, args, i);
    vm->scope = was;
    wn_value text = capture(vm, m->n->list, scope, &flow);
    vm->at = at;
    return text;
}

static wn_value make_macro(wn_vm *vm, const wn_node *n)
{
    wn_macro *m = wn_vm_take(vm, sizeof *m);
    *m = (wn_macro){ n, vm->scope };
    return (wn_value){ .kind = WN_MACRO, .macro = m };
}

static void call_block(wn_vm *vm, const wn_node *n)
{
    wn_call_args args = wn_eval_args(vm, n->a->list);
    struct wn_keyword *kw = wn_vm_array(vm, struct wn_keyword, args.n_kw + 1);
    if (args.n_kw) memcpy(kw, args.kw, sizeof *kw * (size_t)args.n_kw);
    kw[args.n_kw++] = (struct wn_keyword){ n->b->name, make_macro(vm, n->b) };
    args.kw = kw;
    wn_value f = wn_eval(vm, n->a->a);
    vm->at = n->at;
    wn_val_print(vm, vm->out, wn_call_value(vm, f, &args));
}

/* ---- loops ----------------------------------------------------------------------------------- */

static wn_list *keep_matching(wn_vm *vm, const wn_node *n, wn_list *items)
{
    wn_list *kept = wn_list_new(vm, 0);
    wn_scope *was = vm->scope;
    for (size_t i = 0; i < items->n; i++) {
        vm->scope = wn_scope_push(vm, was);
        assign(vm, vm->scope, n->a, items->at[i]);
        if (wn_val_truth(wn_eval(vm, n->c))) wn_list_add(vm, kept, items->at[i]);
    }
    vm->scope = was;
    return kept;
}

static wn_flow run_loop(wn_vm *vm, const wn_node *n, wn_list *items, int depth)
{
    static const wn_string loop_name = { .p = "loop", .n = 4 };
    wn_loop *loop = wn_vm_take(vm, sizeof *loop);
    wn_scope *was = vm->scope;
    if (n->c) items = keep_matching(vm, n, items);
    *loop = (wn_loop){ .items = items, .depth = depth, .node = n->op == 'r' ? n : NULL,
                       .scope = was };
    for (; loop->i < items->n; loop->i++) {
        vm->scope = wn_scope_push(vm, was);
        assign(vm, vm->scope, n->a, items->at[loop->i]);
        wn_scope_set(vm, vm->scope, &loop_name, (wn_value){ .kind = WN_LOOP, .loop = loop });
        if (wn_exec(vm, n->list) == WN_BREAK) break;
    }
    vm->scope = was;
    if (items->n || !n->d) return WN_GO_ON;
    vm->scope = wn_scope_push(vm, was);
    wn_flow flow = wn_exec(vm, n->d->list);
    vm->scope = was;
    return flow;
}

static wn_flow for_loop(wn_vm *vm, const wn_node *n)
{
    wn_value over = wn_eval(vm, n->b);
    vm->at = n->at;
    return run_loop(vm, n, wn_list_of(vm, over), 0);
}

wn_value wn_loop_again(wn_vm *vm, const wn_loop *loop, const wn_call_args *args)
{
    if (!loop->node)
        wn_vm_fail(vm,
                   "this loop does not call itself: it would have to be {%% for ... recursive %%}");
    if (args->n != 1 || args->n_kw)
        wn_vm_fail(vm, "loop() takes what to walk over, and nothing else");
    wn_text_buf *out = vm->out, *mine = wn_buf_new(vm, 0);
    wn_scope *was = vm->scope;
    vm->out = mine;
    vm->scope = loop->scope;
    run_loop(vm, loop->node, wn_list_of(vm, args->pos[0]), loop->depth + 1);
    vm->out = out;
    vm->scope = was;
    return wn_buf_value(vm, mine);
}

/* ---- statements ------------------------------------------------------------------------------ */

static wn_flow in_scope(wn_vm *vm, const wn_node *sets, const wn_node *list)
{
    wn_scope *was = vm->scope, *mine = wn_scope_push(vm, was);
    /* of the scope outside */
    for (const wn_node *s = sets; s; s = s->next) assign(vm, mine, s->a, wn_eval(vm, s->b));
    vm->scope = mine;
    wn_flow flow = wn_exec(vm, list);
    vm->scope = was;
    return flow;
}

static wn_flow exec_if(wn_vm *vm, const wn_node *n)
{
    for (; n && n->kind == WN_N_IF; n = n->b)
        if (wn_val_truth(wn_eval(vm, n->a))) return wn_exec(vm, n->list);
    return n ? wn_exec(vm, n->list) : WN_GO_ON;
}

static wn_flow exec_one(wn_vm *vm, const wn_node *n)
{
    wn_flow flow = WN_GO_ON;
    wn_value v;
    switch ((wn_node_kind)n->kind) {
    case WN_N_TEXT: wn_buf_string(vm, vm->out, n->val.s); break;
    case WN_N_OUTPUT: wn_val_print(vm, vm->out, wn_eval(vm, n->a)); break;
    case WN_N_IF: return exec_if(vm, n);
    case WN_N_FOR: return for_loop(vm, n);
    case WN_N_SET: assign(vm, vm->scope, n->a, wn_eval(vm, n->b)); break;
    case WN_N_SET_BLOCK:
        v = capture(vm, n->list, wn_scope_push(vm, vm->scope), &flow);
        if (!flow) assign(vm, vm->scope, n->a, filtered(vm, n->b, v));
        break;
    case WN_N_FILTER_BLOCK:
        v = capture(vm, n->list, wn_scope_push(vm, vm->scope), &flow);
        if (!flow) wn_val_print(vm, vm->out, filtered(vm, n->b, v));
        break;
    case WN_N_MACRO: wn_scope_set(vm, vm->scope, n->name, make_macro(vm, n)); break;
    case WN_N_CALL_BLOCK: call_block(vm, n); break;
    case WN_N_WITH: return in_scope(vm, n->a, n->list);
    case WN_N_SCOPE: return in_scope(vm, NULL, n->list);
    case WN_N_BODY: return wn_exec(vm, n->list);
    case WN_N_BREAK: return WN_BREAK;
    case WN_N_CONTINUE: return WN_CONTINUE;
    default: wn_assert_failed("a statement", __FILE__, __LINE__);
    }
    return flow;
}

wn_flow wn_exec(wn_vm *vm, const wn_node *list)
{
    wn_flow flow = WN_GO_ON;
    wn_vm_enter(vm);
    for (const wn_node *n = list; n && !flow; n = n->next) {
        wn_vm_spend(vm, 1);
        vm->at = n->at;
        flow = exec_one(vm, n);
    }
    wn_vm_leave(vm);
    return flow;
}
