/* chat/value.c - making and comparing values: see value.h. Lists are arrays, dicts arrays of
 * entries with a hash table beside them once they are more than a handful; nothing is ever
 * freed before the arena is. */
#include "chat/value.h"
#include "chat/run.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { FEW = 8 };                       /* entries that are searched one by one */

const char *wn_kind_name(wn_value v)
{
    static const char *const names[] = {
        [WN_UNSET] = "nothing", [WN_UNDEF] = "undefined", [WN_NONE] = "None",
        [WN_BOOL] = "bool",     [WN_INT] = "int",         [WN_FLOAT] = "float",
        [WN_STR] = "str",       [WN_LIST] = "list",       [WN_TUPLE] = "tuple",
        [WN_DICT] = "dict",     [WN_SPACE] = "namespace", [WN_LOOP] = "loop",
        [WN_MACRO] = "macro",   [WN_FUNC] = "function",   [WN_METHOD] = "method",
    };
    return names[v.kind];
}

wn_value wn_val_undef(wn_vm *vm, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return (wn_value){ .kind = WN_UNDEF, .s = wn_string_dup(vm, text, strlen(text), false) };
}

/* ---- lists ----------------------------------------------------------------------- */

wn_list *wn_list_new(wn_vm *vm, size_t cap)
{
    wn_list *l = wn_vm_take(vm, sizeof *l);
    /* refused below, without overflow */
    if (cap > vm->arena.size / sizeof(wn_value)) cap = vm->arena.size;
    *l = (wn_list){ .at = cap ? wn_vm_array(vm, wn_value, cap) : NULL, .cap = cap };
    return l;
}

void wn_list_add(wn_vm *vm, wn_list *l, wn_value v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 4;
        wn_value *at = wn_vm_array(vm, wn_value, cap);
        if (l->n) memcpy(at, l->at, sizeof *at * l->n);
        l->at = at;
        l->cap = cap;
    }
    wn_vm_spend(vm, 1);
    l->at[l->n++] = v;
}

wn_list *wn_list_of(wn_vm *vm, wn_value v)
{
    wn_list *l;
    switch (v.kind) {
    case WN_LIST:
    case WN_TUPLE: return v.list;
    case WN_UNDEF: return wn_list_new(vm, 0);
    case WN_DICT:
        l = wn_list_new(vm, v.dict->n);
        for (size_t i = 0; i < v.dict->n; i++) wn_list_add(vm, l, v.dict->at[i].key);
        return l;
    case WN_STR:
        l = wn_list_new(vm, 0);
        for (size_t i = 0, n; i < v.s->n; i += n) {
            n = wn_char_bytes(v.s->p + i);
            wn_list_add(vm, l, wn_val_of(wn_string_cut(vm, v.s, i, i + n)));
        }
        return l;
    default: wn_vm_fail(vm, "'%s' object is not iterable", wn_kind_name(v));
    }
}

/* ---- dicts ------------------------------------------------------------------------ */

wn_dict *wn_dict_new(wn_vm *vm)
{
    wn_dict *d = wn_vm_take(vm, sizeof *d);
    *d = (wn_dict){ 0 };
    return d;
}

/* Equal keys have equal hashes: True, 1 and 1.0 are one key. */
static uint64_t hash(wn_vm *vm, wn_value k)
{
    uint64_t h = 0;
    switch (k.kind) {
    case WN_STR: wn_vm_spend(vm, k.s->n / 64); return XXH3_64bits(k.s->p, k.s->n);
    case WN_FLOAT:
        if (k.f == floor(k.f) && fabs(k.f) < 0x1p62)
            return XXH3_64bits(&(int64_t){ (int64_t)k.f }, sizeof(int64_t));
        return XXH3_64bits(&k.f, sizeof k.f);
    case WN_BOOL:
    case WN_INT: return XXH3_64bits(&(int64_t){ wn_int_of(k) }, sizeof(int64_t));
    case WN_TUPLE:
        wn_vm_enter(vm);
        for (size_t i = 0; i < k.list->n; i++) {
            wn_vm_spend(vm, 1);
            h = h * 0x9E3779B97F4A7C15u + hash(vm, k.list->at[i]);
        }
        wn_vm_leave(vm);
        return h;
    case WN_NONE: return 1;
    default: wn_vm_fail(vm, "unhashable type: '%s' cannot be a key", wn_kind_name(k));
    }
}

static uint32_t *slot_of(wn_vm *vm, const wn_dict *d, wn_value key, uint64_t h)
{
    size_t i = (size_t)h & (d->n_slots - 1);
    while (d->slot[i] && !wn_val_equal(vm, d->at[d->slot[i] - 1].key, key)) {
        wn_vm_spend(vm, 1);
        i = (i + 1) & (d->n_slots - 1);
    }
    return &d->slot[i];
}

wn_value *wn_dict_find(wn_vm *vm, const wn_dict *d, wn_value key)
{
    if (d->slot) {
        uint32_t *s = slot_of(vm, d, key, hash(vm, key));
        return *s ? &d->at[*s - 1].val : NULL;
    }
    if (key.kind >= WN_LIST) hash(vm, key);         /* refuses what cannot be a key */
    for (size_t i = 0; i < d->n; i++)
        if (wn_val_equal(vm, d->at[i].key, key)) return &d->at[i].val;
    return NULL;
}

wn_value *wn_dict_get(wn_vm *vm, const wn_dict *d, const char *key)
{
    wn_string s = { .p = key, .n = strlen(key) };
    return wn_dict_find(vm, d, wn_val_of(&s));
}

static void index_all(wn_vm *vm, wn_dict *d)
{
    d->slot = NULL;
    if (d->n <= FEW) return;
    d->n_slots = 32;
    while (d->n_slots < 2 * d->cap) d->n_slots *= 2;
    uint32_t *slot = wn_vm_array(vm, uint32_t, d->n_slots);
    memset(slot, 0, sizeof *slot * d->n_slots);
    d->slot = slot;
    for (size_t i = 0; i < d->n; i++)
        *slot_of(vm, d, d->at[i].key, hash(vm, d->at[i].key)) = (uint32_t)i + 1;
}

void wn_dict_set(wn_vm *vm, wn_dict *d, wn_value key, wn_value val)
{
    wn_value *have = wn_dict_find(vm, d, key);
    if (have) {
        *have = val;
        return;
    }
    hash(vm, key);
    bool grown = d->n == d->cap;
    if (grown) {
        size_t cap = d->cap ? 2 * d->cap : 4;
        wn_entry *at = wn_vm_array(vm, wn_entry, cap);
        if (d->n) memcpy(at, d->at, sizeof *at * d->n);
        d->at = at;
        d->cap = cap;
    }
    wn_vm_spend(vm, 1);
    d->at[d->n++] = (wn_entry){ key, val };
    if (grown || (!d->slot && d->n > FEW)) index_all(vm, d);
    else if (d->slot) *slot_of(vm, d, key, hash(vm, key)) = (uint32_t)d->n;
}

bool wn_dict_remove(wn_vm *vm, wn_dict *d, wn_value key, wn_value *was)
{
    wn_value *v = wn_dict_find(vm, d, key);
    if (!v) return false;
    size_t i = (size_t)((wn_entry *)(void *)((char *)v - offsetof(wn_entry, val)) - d->at);
    *was = *v;
    wn_vm_spend(vm, d->n - i);
    memmove(d->at + i, d->at + i + 1, sizeof *d->at * (d->n - i - 1));
    d->n--;
    index_all(vm, d);
    return true;
}

wn_value wn_pair(wn_vm *vm, wn_value a, wn_value b)
{
    wn_list *l = wn_list_new(vm, 2);
    wn_list_add(vm, l, a);
    wn_list_add(vm, l, b);
    return wn_val_tuple(l);
}

/* ---- asking ------------------------------------------------------------------------ */

bool wn_val_truth(wn_value v)
{
    switch (v.kind) {
    case WN_UNSET:
    case WN_UNDEF:
    case WN_NONE: return false;
    case WN_BOOL: return v.b;
    case WN_INT: return v.i != 0;
    case WN_FLOAT: return v.f != 0;
    case WN_STR: return v.s->n > 0;
    case WN_LIST:
    case WN_TUPLE: return v.lazy || v.list->n > 0;
    case WN_DICT: return v.dict->n > 0;
    default: return true;
    }
}

bool wn_val_equal(wn_vm *vm, wn_value a, wn_value b)
{
    wn_vm_spend(vm, 1);
    if (wn_is_int(a) && wn_is_int(b)) return wn_int_of(a) == wn_int_of(b);
    if (wn_is_number(a) && wn_is_number(b)) return wn_float_of(a) == wn_float_of(b);
    if (a.kind != b.kind) return false;
    bool same = true;
    switch (a.kind) {
    case WN_STR:
        if (a.s->n == b.s->n) wn_vm_spend(vm, a.s->n / 64);
        return wn_string_same(a.s, b.s);
    case WN_LIST:
    case WN_TUPLE:
        if (a.list == b.list) return true;
        wn_vm_enter(vm);
        if (a.list->n != b.list->n) same = false;
        for (size_t i = 0; same && i < a.list->n && i < b.list->n; i++)
            same = wn_val_equal(vm, a.list->at[i], b.list->at[i]);
        wn_vm_leave(vm);
        return same;
    case WN_DICT:
        if (a.dict == b.dict) return true;
        wn_vm_enter(vm);
        if (a.dict->n != b.dict->n) same = false;
        for (size_t i = 0; same && i < a.dict->n; i++) {
            wn_value *v = wn_dict_find(vm, b.dict, a.dict->at[i].key);
            same = v && wn_val_equal(vm, a.dict->at[i].val, *v);
        }
        wn_vm_leave(vm);
        return same;
    case WN_SPACE: return a.dict == b.dict;
    case WN_LOOP: return a.loop == b.loop;
    case WN_MACRO: return a.macro == b.macro;
    case WN_FUNC: return a.func == b.func;
    case WN_METHOD: return a.method == b.method;
    default: return true;               /* None and undefined */
    }
}

int wn_val_compare(wn_vm *vm, wn_value a, wn_value b, const char *op)
{
    wn_vm_spend(vm, 1);
    if (wn_is_int(a) && wn_is_int(b))
        return wn_int_of(a) < wn_int_of(b) ? -1 : wn_int_of(a) > wn_int_of(b);
    if (wn_is_number(a) && wn_is_number(b))
        return wn_float_of(a) < wn_float_of(b) ? -1 : wn_float_of(a) > wn_float_of(b);
    if (a.kind == WN_STR && b.kind == WN_STR) {
        wn_vm_spend(vm, WN_MIN(a.s->n, b.s->n) / 64);
        return wn_string_order(a.s, b.s);
    }
    if (wn_is_list(a) && a.kind == b.kind) {
        int c = 0;
        wn_vm_enter(vm);
        for (size_t i = 0; !c && i < a.list->n && i < b.list->n; i++)
            if (!wn_val_equal(vm, a.list->at[i], b.list->at[i]))
                c = wn_val_compare(vm, a.list->at[i], b.list->at[i], op);
        wn_vm_leave(vm);
        return c ? c : a.list->n < b.list->n ? -1 : a.list->n > b.list->n;
    }
    if (a.kind == WN_UNDEF || b.kind == WN_UNDEF) {
        const wn_string *s = a.kind == WN_UNDEF ? a.s : b.s;
        wn_vm_fail(vm, "%.*s", (int)s->n, s->p);
    }
    wn_vm_fail(vm, "'%s' not supported between instances of '%s' and '%s'", op, wn_kind_name(a),
               wn_kind_name(b));
}

bool wn_val_in(wn_vm *vm, wn_value x, wn_value all)
{
    switch (all.kind) {
    case WN_STR:
        if (x.kind != WN_STR)
            wn_vm_fail(vm, "'in <string>' requires string as left operand, not %s",
                       wn_kind_name(x));
        return wn_string_find(vm, all.s, x.s, 0) != SIZE_MAX;
    case WN_LIST:
    case WN_TUPLE:
        for (size_t i = 0; i < all.list->n; i++)
            if (wn_val_equal(vm, all.list->at[i], x)) return true;
        return false;
    case WN_DICT: return wn_dict_find(vm, all.dict, x) != NULL;
    case WN_UNDEF: return false;
    default: wn_vm_fail(vm, "argument of type '%s' is not iterable", wn_kind_name(all));
    }
}

int64_t wn_val_length(wn_vm *vm, wn_value v)
{
    switch (v.kind) {
    case WN_UNDEF: return 0;
    case WN_STR: return (int64_t)wn_string_chars(vm, v.s);
    case WN_LIST:
    case WN_TUPLE: return (int64_t)v.list->n;
    case WN_DICT: return (int64_t)v.dict->n;
    default: wn_vm_fail(vm, "object of type '%s' has no len()", wn_kind_name(v));
    }
}
