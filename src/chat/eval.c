/* chat/eval.c - expressions: see run.h. Arithmetic is Python's: / is always a float, // and %
 * round towards minus infinity, integers do not wrap (here they end the run instead of growing). */
#include "chat/run.h"

#include <math.h>
#include <string.h>

/* ---- names ----------------------------------------------------------------------------------- */

static wn_value lookup(wn_vm *vm, const wn_string *name)
{
    for (const wn_scope *s = vm->scope; s; s = s->up)
        for (int i = 0; i < s->n; i++) {
            wn_vm_spend(vm, 1);
            if (wn_string_same(s->at[i].name, name)) return s->at[i].val;
        }
    const wn_value *v = wn_dict_find(vm, vm->context, wn_val_of(name));
    if (v) return *v;
    const wn_builtin *f = wn_global_find(name);
    if (f) return (wn_value){ .kind = WN_FUNC, .func = f };
    return wn_val_undef(vm, "'%.*s' is undefined", (int)WN_MIN(name->n, (size_t)80), name->p);
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

static _Noreturn void bad_operands(wn_vm *vm, const char *op, wn_value a, wn_value b)
{
    const wn_value u = a.kind == WN_UNDEF ? a : b;
    if (u.kind == WN_UNDEF) wn_vm_fail(vm, "%.*s", (int)u.s->n, u.s->p);
    wn_vm_fail(vm, "unsupported operand types for %s: '%s' and '%s'", op, wn_kind_name(a),
               wn_kind_name(b));
}

static _Noreturn void too_large(wn_vm *vm)
{
    wn_vm_fail(vm, "the result is too large for a 64-bit integer");
}

static wn_value int_power(wn_vm *vm, int64_t a, int64_t b)
{
    int64_t r = 1;
    if (b < 0) {
        if (!a) wn_vm_fail(vm, "0 cannot be raised to a negative power");
        return wn_val_float(pow((double)a, (double)b));
    }
    if (a == 0 || a == 1) return wn_val_int(b ? a : 1);
    if (a == -1) return wn_val_int(b % 2 ? -1 : 1);
    for (; b; b--)
        if (__builtin_mul_overflow(r, a, &r)) too_large(vm);
    return wn_val_int(r);
}

static wn_value int_op(wn_vm *vm, char op, int64_t a, int64_t b)
{
    int64_t r;
    switch (op) {
    case '+': if (__builtin_add_overflow(a, b, &r)) too_large(vm); return wn_val_int(r);
    case '-': if (__builtin_sub_overflow(a, b, &r)) too_large(vm); return wn_val_int(r);
    case '*': if (__builtin_mul_overflow(a, b, &r)) too_large(vm); return wn_val_int(r);
    case 'p': return int_power(vm, a, b);
    }
    if (!b) wn_vm_fail(vm, op == '/' ? "division by zero" : "integer division or modulo by zero");
    if (op == '/') return wn_val_float((double)a / (double)b);
    if (b == -1) {                      /* INT64_MIN / -1 traps */
        if (op == '%') return wn_val_int(0);
        if (__builtin_sub_overflow((int64_t)0, a, &r)) too_large(vm);
        return wn_val_int(r);
    }
    int64_t q = a / b, m = a % b;
    bool down = m && (m < 0) != (b < 0);
    return wn_val_int(op == '%' ? m + (down ? b : 0) : q - down);
}

static wn_value float_op(wn_vm *vm, char op, double a, double b)
{
    double r;
    switch (op) {
    case '+': return wn_val_float(a + b);
    case '-': return wn_val_float(a - b);
    case '*': return wn_val_float(a * b);
    case 'p':
        r = pow(a, b);
        if ((isnan(r) && !isnan(a) && !isnan(b)) || (isinf(r) && !isinf(a) && !isinf(b)))
            wn_vm_fail(vm, "%g ** %g is no finite number", a, b);
        return wn_val_float(r);
    }
    if (b == 0)
        wn_vm_fail(vm, op == '/'   ? "float division by zero"
                       : op == '%' ? "float modulo"
                                   : "float floor division by zero");
    if (op == '/') return wn_val_float(a / b);
    r = fmod(a, b);
    if (r != 0 && (r < 0) != (b < 0)) r += b;
    if (op == '%') return wn_val_float(r == 0 ? copysign(0, b) : r);
    return wn_val_float(round((a - r) / b));
}

static wn_value repeat(wn_vm *vm, wn_value x, int64_t n)
{
    size_t times = n < 0 ? 0 : (size_t)n;
    if (x.kind == WN_STR) {
        wn_text_buf *b = wn_buf_new(vm, 0);
        for (size_t i = 0; i < times && x.s->n; i++) {
            wn_vm_spend(vm, 1);
            wn_buf_string(vm, b, x.s);
        }
        return wn_buf_value(vm, b);
    }
    wn_list *l = wn_list_new(vm, 0);
    for (size_t i = 0; i < times && x.list->n; i++)
        for (size_t k = 0, k_n = x.list->n; k < k_n; k++) wn_list_add(vm, l, x.list->at[k]);
    return (wn_value){ .kind = x.kind, .list = l };
}

static wn_value add_lists(wn_vm *vm, wn_value a, wn_value b)
{
    wn_list *l = wn_list_new(vm, a.list->n + b.list->n);
    for (size_t i = 0; i < a.list->n; i++) wn_list_add(vm, l, a.list->at[i]);
    for (size_t i = 0; i < b.list->n; i++) wn_list_add(vm, l, b.list->at[i]);
    return (wn_value){ .kind = a.kind, .list = l };
}

wn_value wn_binary(wn_vm *vm, char op, wn_value a, wn_value b)
{
    bool a_text = a.kind == WN_STR || wn_is_list(a), b_text = b.kind == WN_STR || wn_is_list(b);
    if (op == '~') return wn_val_of(wn_string_join(vm, wn_val_text(vm, a), wn_val_text(vm, b)));
    if (wn_is_int(a) && wn_is_int(b)) return int_op(vm, op, wn_int_of(a), wn_int_of(b));
    if (wn_is_number(a) && wn_is_number(b)) return float_op(vm, op, wn_float_of(a), wn_float_of(b));
    if (op == '+' && a.kind == WN_STR && b.kind == WN_STR)
        return wn_val_of(wn_string_join(vm, a.s, b.s));
    if (op == '+' && wn_is_list(a) && a.kind == b.kind) return add_lists(vm, a, b);
    if (op == '*' && a_text && wn_is_int(b)) return repeat(vm, a, wn_int_of(b));
    if (op == '*' && b_text && wn_is_int(a)) return repeat(vm, b, wn_int_of(a));
    if (op == '%' && a.kind == WN_STR) return wn_val_of(wn_format_percent(vm, a.s, b));
    char name[3] = { op == 'p'   ? '*'
                     : op == 'd' ? '/'
                                 : op,
                     op == 'p'   ? '*'
                     : op == 'd' ? '/'
                                 : 0,
                     0 };
    bad_operands(vm, name, a, b);
}

static wn_value negate(wn_vm *vm, wn_value v, bool minus)
{
    if (v.kind == WN_FLOAT) return wn_val_float(minus ? -v.f : v.f);
    if (wn_is_int(v)) return minus ? int_op(vm, '-', 0, wn_int_of(v)) : wn_val_int(wn_int_of(v));
    if (v.kind == WN_UNDEF) wn_vm_fail(vm, "%.*s", (int)v.s->n, v.s->p);
    wn_vm_fail(vm, "bad operand type for unary %c: '%s'", minus ? '-' : '+', wn_kind_name(v));
}

static bool holds(wn_vm *vm, char op, wn_value a, wn_value b)
{
    switch (op) {
    case '=': return wn_val_equal(vm, a, b);
    case '!': return !wn_val_equal(vm, a, b);
    case 'i': return wn_val_in(vm, a, b);
    case 'n': return !wn_val_in(vm, a, b);
    }
    bool nan = (a.kind == WN_FLOAT && isnan(a.f)) || (b.kind == WN_FLOAT && isnan(b.f));
    int c = wn_val_compare(vm, a, b, op == 'l' ? "<=" : op == 'g' ? ">=" : op == '<' ? "<" : ">");
    if (nan) return false;
    return op == '<' ? c < 0 : op == '>' ? c > 0 : op == 'l' ? c <= 0 : c >= 0;
}

static wn_value compare(wn_vm *vm, const wn_node *n)
{
    wn_value a = wn_eval(vm, n->a);
    for (const wn_node *o = n->list; o; o = o->next) {
        wn_value b = wn_eval(vm, o->b);
        vm->at = o->at;
        if (!holds(vm, o->op, a, b)) return wn_val_bool(false);
        a = b;
    }
    return wn_val_bool(true);
}

/* ---- calls ----------------------------------------------------------------------------------- */

static void add_keyword(wn_vm *vm, wn_call_args *a, const wn_string *name, wn_value v)
{
    for (int i = 0; i < a->n_kw; i++)
        if (wn_string_same(a->kw[i].name, name))
            wn_vm_fail(vm, "two values for the keyword argument '%.*s'", (int)name->n, name->p);
    if (!(a->n_kw & (a->n_kw - 1))) {   /* full at powers of two */
        struct wn_keyword *kw = wn_vm_array(vm, struct wn_keyword, a->n_kw ? 2 * a->n_kw : 1);
        if (a->n_kw) memcpy(kw, a->kw, sizeof *kw * (size_t)a->n_kw);
        a->kw = kw;
    }
    wn_vm_spend(vm, (uint64_t)a->n_kw);
    a->kw[a->n_kw++] = (struct wn_keyword){ name, v };
}

wn_call_args wn_eval_args(wn_vm *vm, const wn_node *list)
{
    wn_call_args args = { 0 };
    wn_list *pos;
    if (!list) return args;
    pos = wn_list_new(vm, 4);
    for (const wn_node *n = list; n; n = n->next) {
        wn_value v = wn_eval(vm, n->b);
        vm->at = n->at;
        if (n->op == '*') {
            wn_list *more = wn_list_of(vm, v);
            for (size_t i = 0; i < more->n; i++) wn_list_add(vm, pos, more->at[i]);
        } else if (n->op == '2') {
            if (v.kind != WN_DICT) wn_vm_fail(vm, "** wants a dict, not %s", wn_kind_name(v));
            for (size_t i = 0; i < v.dict->n; i++)
                add_keyword(vm, &args, wn_want_str(vm, v.dict->at[i].key, "a keyword"),
                            v.dict->at[i].val);
        } else if (n->name) add_keyword(vm, &args, n->name, v);
        else wn_list_add(vm, pos, v);
    }
    args.pos = pos->at;
    args.n = (int)WN_MIN(pos->n, (size_t)INT32_MAX);
    return args;
}

enum { MAX_PARAMS = 8 };

wn_value wn_apply(wn_vm *vm, const wn_builtin *fn, wn_value self, const wn_call_args *args)
{
    wn_value a[MAX_PARAMS] = { { 0 } };
    int n = 0, used = 0;
    wn_vm_spend(vm, 1);
    if (!fn->params) return fn->fn(vm, self, NULL, args);
    for (const char *p = fn->params; *p; n++) {
        size_t len = strcspn(p, " ");
        for (int k = 0; k < args->n_kw; k++)
            if (args->kw[k].name->n == len && !memcmp(args->kw[k].name->p, p, len)) {
                if (n < args->n)
                    wn_vm_fail(vm, "%s(): two values for '%.*s'", fn->name, (int)len, p);
                a[n] = args->kw[k].val;
                used++;
            }
        if (n < args->n) a[n] = args->pos[n];
        if (n < fn->n_required && !wn_given(a[n]))
            wn_vm_fail(vm, "%s() needs the argument '%.*s'", fn->name, (int)len, p);
        p += len + (p[len] == ' ');
    }
    if (args->n > n)
        wn_vm_fail(vm, "%s() takes at most %d arguments, not %d", fn->name, n, args->n);
    if (used < args->n_kw)
        wn_vm_fail(vm, "%s() does not know one of the keywords; it takes %s", fn->name,
                   *fn->params ? fn->params : "none");
    return fn->fn(vm, self, a, args);
}

wn_value wn_call_value(wn_vm *vm, wn_value f, const wn_call_args *args)
{
    wn_value v;
    wn_vm_enter(vm);
    switch (f.kind) {
    case WN_MACRO: v = wn_macro_call(vm, f.macro, args); break;
    case WN_FUNC: v = wn_apply(vm, f.func, wn_val_none(), args); break;
    case WN_METHOD: v = wn_apply(vm, f.method->fn, f.method->self, args); break;
    case WN_LOOP: v = wn_loop_again(vm, f.loop, args); break;
    case WN_UNDEF: wn_vm_fail(vm, "%.*s", (int)f.s->n, f.s->p);
    default: wn_vm_fail(vm, "'%s' object is not callable", wn_kind_name(f));
    }
    wn_vm_leave(vm);
    return v;
}

/* A method is called without making a value of it first. */
static wn_value call(wn_vm *vm, const wn_node *n)
{
    const wn_node *f = n->a;
    const wn_builtin *method = NULL;
    wn_value self = wn_val_none(), target = self;
    if (f->kind == WN_N_ATTR) {
        self = wn_eval(vm, f->a);
        vm->at = f->at;
        method = wn_method_find(self, f->name);
        if (!method) target = wn_get_attr(vm, self, f->name);
    } else target = wn_eval(vm, f);
    wn_call_args args = wn_eval_args(vm, n->list);
    vm->at = f->at;
    return method ? wn_apply(vm, method, self, &args) : wn_call_value(vm, target, &args);
}

static wn_value apply_named(wn_vm *vm, const wn_node *n)
{
    wn_value self = wn_eval(vm, n->a);
    wn_call_args args = wn_eval_args(vm, n->list);
    vm->at = n->at;
    if (!n->fn)
        wn_vm_fail(vm, "there is no %s '%.*s'", n->kind == WN_N_FILTER ? "filter" : "test",
                   (int)WN_MIN(n->name->n, (size_t)60), n->name->p);
    return wn_apply(vm, n->fn, self, &args);
}

/* ---- the tree -------------------------------------------------------------------------------- */

static wn_value make_list(wn_vm *vm, const wn_node *n)
{
    wn_list *l = wn_list_new(vm, 0);
    for (const wn_node *i = n->list; i; i = i->next) wn_list_add(vm, l, wn_eval(vm, i));
    return (wn_value){ .kind = n->kind == WN_N_TUPLE ? WN_TUPLE : WN_LIST, .list = l };
}

static wn_value make_dict(wn_vm *vm, const wn_node *n)
{
    wn_dict *d = wn_dict_new(vm);
    for (const wn_node *i = n->list; i; i = i->next->next) {
        wn_value key = wn_eval(vm, i);
        wn_dict_set(vm, d, key, wn_eval(vm, i->next));
    }
    return wn_val_dict(d);
}

static wn_value eval_or_unset(wn_vm *vm, const wn_node *n)
{
    return n ? wn_eval(vm, n) : (wn_value){ 0 };
}

static wn_value subscript(wn_vm *vm, const wn_node *n)
{
    wn_value a = wn_eval(vm, n->a), b = eval_or_unset(vm, n->b);
    if (n->kind == WN_N_ITEM) {
        vm->at = n->at;
        return wn_get_item(vm, a, b);
    }
    wn_value c = eval_or_unset(vm, n->c), d = eval_or_unset(vm, n->d);
    vm->at = n->at;
    return wn_get_slice(vm, a, b, c, d);
}

static wn_value eval(wn_vm *vm, const wn_node *n)
{
    wn_value a, b;
    switch ((wn_node_kind)n->kind) {
    case WN_N_CONST: return n->val;
    case WN_N_NAME: return lookup(vm, n->name);
    case WN_N_LIST:
    case WN_N_TUPLE: return make_list(vm, n);
    case WN_N_DICT: return make_dict(vm, n);
    case WN_N_ATTR:
        a = wn_eval(vm, n->a);
        vm->at = n->at;
        return wn_get_attr(vm, a, n->name);
    case WN_N_ITEM:
    case WN_N_SLICE: return subscript(vm, n);
    case WN_N_CALL: return call(vm, n);
    case WN_N_FILTER:
    case WN_N_TEST: return apply_named(vm, n);
    case WN_N_NOT: return wn_val_bool(!wn_val_truth(wn_eval(vm, n->a)));
    case WN_N_NEG:
    case WN_N_POS:
        a = wn_eval(vm, n->a);
        vm->at = n->at;
        return negate(vm, a, n->kind == WN_N_NEG);
    case WN_N_AND: a = wn_eval(vm, n->a); return wn_val_truth(a) ? wn_eval(vm, n->b) : a;
    case WN_N_OR: a = wn_eval(vm, n->a); return wn_val_truth(a) ? a : wn_eval(vm, n->b);
    case WN_N_BINARY:
        a = wn_eval(vm, n->a);
        b = wn_eval(vm, n->b);
        vm->at = n->at;
        return wn_binary(vm, n->op, a, b);
    case WN_N_COMPARE: return compare(vm, n);
    case WN_N_COND:
        if (wn_val_truth(wn_eval(vm, n->b))) return wn_eval(vm, n->a);
        if (n->c) return wn_eval(vm, n->c);
        return wn_val_undef(vm, "the inline if expression was false and has no else");
    default: wn_assert_failed("an expression", __FILE__, __LINE__);
    }
}

wn_value wn_eval(wn_vm *vm, const wn_node *n)
{
    wn_vm_enter(vm);
    wn_vm_spend(vm, 1);
    vm->at = n->at;
    wn_value v = eval(vm, n);
    wn_vm_leave(vm);
    return v;
}
