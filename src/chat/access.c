/* chat/access.c - parts of values: v.name, v[key], v[a:b:c].
 *
 * Jinja's rule: a dot asks for an attribute first and for an item then, brackets the other way
 * round. So tool.items is a method even when the tool has a key "items", and tool['items'] is
 * the key. What is not there is undefined; only asking something of the undefined fails.
 */
#include "chat/run.h"

#include <string.h>

int64_t wn_want_int(wn_vm *vm, wn_value v, const char *what)
{
    if (!wn_is_int(v)) wn_vm_fail(vm, "%s must be an integer, not %s", what, wn_kind_name(v));
    return wn_int_of(v);
}

const wn_string *wn_want_str(wn_vm *vm, wn_value v, const char *what)
{
    if (v.kind == WN_UNDEF) wn_vm_fail(vm, "%.*s", (int)v.s->n, v.s->p);
    if (v.kind != WN_STR) wn_vm_fail(vm, "%s must be a string, not %s", what, wn_kind_name(v));
    return v.s;
}

/* ---- loop.index and its kin ------------------------------------------------------------------ */

WN_BUILTIN(loop_cycle)
{
    if (!args->n) wn_vm_fail(vm, "loop.cycle() needs something to cycle through");
    return args->pos[self.loop->i % (size_t)args->n];
}

WN_BUILTIN(loop_changed)
{
    wn_list *now = wn_list_new(vm, (size_t)args->n);
    for (int i = 0; i < args->n; i++) wn_list_add(vm, now, args->pos[i]);
    wn_value seen = wn_val_tuple(now);
    bool same = wn_given(self.loop->seen) && wn_val_equal(vm, self.loop->seen, seen);
    self.loop->seen = seen;
    return wn_val_bool(!same);
}

static const wn_builtin loop_methods[] = { { "cycle", NULL, 0, loop_cycle },
                                           { "changed", NULL, 0, loop_changed } };

static wn_value neighbour(wn_vm *vm, const wn_loop *l, bool there, size_t i)
{
    return there ? l->items->at[i]
                 : wn_val_undef(vm, "there is no %s item", i > l->i ? "next" : "previous");
}

static wn_value loop_attr(wn_vm *vm, wn_value v, const wn_string *name)
{
    const wn_loop *l = v.loop;
    int64_t i = (int64_t)l->i, n = (int64_t)l->items->n;
    const struct { const char *name; wn_value v;
    } all[] = {
        { "index", wn_val_int(i + 1) },
        { "index0", wn_val_int(i) },
        { "first", wn_val_bool(i == 0) },
        { "last", wn_val_bool(i == n - 1) },
        { "length", wn_val_int(n) },
        { "revindex", wn_val_int(n - i) },
        { "revindex0", wn_val_int(n - i - 1) },
        { "depth", wn_val_int(l->depth + 1) },
        { "depth0", wn_val_int(l->depth) },
    };
    for (size_t k = 0; k < WN_COUNT(all); k++)
        if (wn_string_is(name, all[k].name)) return all[k].v;
    if (wn_string_is(name, "previtem")) return neighbour(vm, l, i > 0, l->i - 1);
    if (wn_string_is(name, "nextitem")) return neighbour(vm, l, i + 1 < n, l->i + 1);
    return (wn_value){ 0 };
}

/* ---- attributes and items -------------------------------------------------------------------- */

const wn_builtin *wn_builtin_find(const wn_builtin *table, size_t n, const wn_string *name)
{
    for (size_t i = 0; i < n; i++)
        if (wn_string_is(name, table[i].name)) return &table[i];
    return NULL;
}

static wn_value method(wn_vm *vm, wn_value self, const wn_string *name)
{
    const wn_builtin *fn = self.kind == WN_LOOP
                               ? wn_builtin_find(loop_methods, WN_COUNT(loop_methods), name)
                               : wn_method_find(self, name);
    if (!fn) return (wn_value){ 0 };
    struct wn_method *m = wn_vm_take(vm, sizeof *m);
    *m = (struct wn_method){ self, fn };
    return (wn_value){ .kind = WN_METHOD, .method = m };
}

static wn_value missing(wn_vm *vm, wn_value v, const wn_string *name)
{
    return wn_val_undef(vm, "'%s object' has no attribute '%.*s'", wn_kind_name(v),
                        (int)WN_MIN(name->n, (size_t)80), name->p);
}

static wn_value entry(wn_vm *vm, wn_value v, wn_value key)
{
    const wn_value *found = v.kind == WN_DICT || v.kind == WN_SPACE ? wn_dict_find(vm, v.dict, key)
                                                                    : NULL;
    return found ? *found : (wn_value){ 0 };
}

wn_value wn_get_attr(wn_vm *vm, wn_value v, const wn_string *name)
{
    wn_value r = { 0 };
    if (v.kind == WN_UNDEF) wn_vm_fail(vm, "%.*s", (int)v.s->n, v.s->p);
    if (v.kind == WN_LOOP) r = loop_attr(vm, v, name);
    if (v.kind == WN_TUPLE && v.list->is_group) {
        if (wn_string_is(name, "grouper")) return v.list->at[0];
        if (wn_string_is(name, "list")) return v.list->at[1];
    }
    if (v.kind == WN_MACRO && wn_string_is(name, "name")) return wn_val_of(v.macro->n->name);
    if (!wn_given(r)) r = method(vm, v, name);
    if (!wn_given(r)) r = entry(vm, v, wn_val_of(name));
    return wn_given(r) ? r : missing(vm, v, name);
}

/* The bytes [*from, *to) of character i, counted from the end when negative. */
static bool char_at(wn_vm *vm, const wn_string *s, int64_t i, size_t *from, size_t *to)
{
    size_t at = 0;
    if (i < 0) i += (int64_t)wn_string_chars(vm, s);
    if (i < 0) return false;
    wn_vm_spend(vm, (uint64_t)WN_MIN(i, (int64_t)s->n) / 16);
    while (at < s->n && i-- > 0) at += wn_char_bytes(s->p + at);
    if (at >= s->n) return false;
    *from = at;
    *to = at + wn_char_bytes(s->p + at);
    return true;
}

wn_value wn_get_item(wn_vm *vm, wn_value v, wn_value key)
{
    size_t from, to;
    wn_value r = { 0 };
    if (v.kind == WN_UNDEF) wn_vm_fail(vm, "%.*s", (int)v.s->n, v.s->p);
    if (v.kind == WN_DICT || v.kind == WN_SPACE) r = entry(vm, v, key);
    else if (wn_is_list(v) && wn_is_int(key)) {
        int64_t i = wn_int_of(key) < 0 ? wn_int_of(key) + (int64_t)v.list->n : wn_int_of(key);
        if (i >= 0 && i < (int64_t)v.list->n) return v.list->at[i];
    } else if (v.kind == WN_STR && wn_is_int(key) && char_at(vm, v.s, wn_int_of(key), &from, &to)) {
        return wn_val_of(wn_string_cut(vm, v.s, from, to));
    }
    if (wn_given(r)) return r;
    if (key.kind == WN_STR) {
        if (v.kind == WN_LOOP) r = loop_attr(vm, v, key.s);
        return wn_given(r) || wn_given(r = method(vm, v, key.s)) ? r : missing(vm, v, key.s);
    }
    const wn_string *k = wn_val_text(vm, key);
    return wn_val_undef(vm, "'%s object' has no element %.*s", wn_kind_name(v),
                        (int)WN_MIN(k->n, (size_t)40), k->p);
}

wn_value wn_get_path(wn_vm *vm, wn_value v, wn_value path)
{
    if (path.kind != WN_STR) return wn_get_item(vm, v, path);
    for (size_t from = 0; from <= path.s->n;) {
        const char *dot = memchr(path.s->p + from, '.', path.s->n - from);
        size_t to = dot ? (size_t)(dot - path.s->p) : path.s->n;
        int64_t i = 0;
        size_t digits = 0;
        while (digits < to - from && digits < 9 && path.s->p[from + digits] >= '0' &&
               path.s->p[from + digits] <= '9')
            i = 10 * i + path.s->p[from + digits++] - '0';
        bool number = digits && digits == to - from;
        v = wn_get_item(vm, v,
                        number ? wn_val_int(i) : wn_val_of(wn_string_cut(vm, path.s, from, to)));
        from = to + 1;
    }
    return v;
}

/* ---- slices ---------------------------------------------------------------------------------- */

static int64_t bound(wn_vm *vm, wn_value v, int64_t missing_value, int64_t n, bool down)
{
    if (!wn_given(v) || v.kind == WN_NONE) return missing_value;
    int64_t i = wn_want_int(vm, v, "a slice's bound");
    if (i < 0) i = i < -n ? -1 : i + n;
    if (i < 0) return down ? -1 : 0;
    return WN_MIN(i, down ? n - 1 : n);
}

wn_value wn_get_slice(wn_vm *vm, wn_value v, wn_value from, wn_value to, wn_value step)
{
    wn_list *l;
    if (v.kind == WN_UNDEF) wn_vm_fail(vm, "%.*s", (int)v.s->n, v.s->p);
    if (v.kind != WN_STR && !wn_is_list(v))
        wn_vm_fail(vm, "'%s' object cannot be sliced", wn_kind_name(v));
    int64_t by = !wn_given(step) || step.kind == WN_NONE ? 1
                                                         : wn_want_int(vm, step, "a slice's step");
    if (!by) wn_vm_fail(vm, "slice step cannot be zero");
    l = wn_list_of(vm, v);
    int64_t n = (int64_t)l->n;
    int64_t a = bound(vm, from, by < 0 ? n - 1 : 0, n, by < 0),
            b = bound(vm, to, by < 0 ? -1 : n, n, by < 0);
    wn_list *out = wn_list_new(vm, 0);
    while (by < 0 ? a > b : a < b) {
        wn_list_add(vm, out, l->at[a]);
        if (__builtin_add_overflow(a, by, &a)) break;
    }
    if (v.kind != WN_STR) return (wn_value){ .kind = v.kind, .list = out };
    wn_text_buf *buf = wn_buf_new(vm, 0);
    for (size_t i = 0; i < out->n; i++) wn_buf_string(vm, buf, out->at[i].s);
    return wn_buf_value(vm, buf);
}
