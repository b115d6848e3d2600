/* chat/filters_list.c - filters of lists and dicts: select, map, sort, groupby, join ...
 *
 * What Python makes lazily (map, select, batch, items) is made at once here; it is marked lazy,
 * because Python counts an iterator as true even when nothing will come of it.
 */
#include "chat/filters.h"

#include <string.h>

static bool flag(wn_value v) { return wn_val_truth(v); }
static wn_value lazy(wn_list *l) { return (wn_value){ .kind = WN_LIST, .lazy = true, .list = l }; }

WN_BUILTIN(f_length) { return wn_val_int(wn_val_length(vm, self)); }

WN_BUILTIN(f_list)
{
    wn_list *all = wn_list_of(vm, self), *l = wn_list_new(vm, all->n);
    for (size_t i = 0; i < all->n; i++) wn_list_add(vm, l, all->at[i]);
    return wn_val_list(l);
}

WN_BUILTIN(f_first)
{
    wn_list *l = wn_list_of(vm, self);
    return l->n ? l->at[0] : wn_val_undef(vm, "no first item, the sequence was empty");
}
WN_BUILTIN(f_last)
{
    wn_list *l = wn_list_of(vm, self);
    return l->n ? l->at[l->n - 1] : wn_val_undef(vm, "no last item, the sequence was empty");
}

WN_BUILTIN(f_join)
{
    wn_list *l = wn_list_of(vm, self);
    wn_text_buf *b = wn_buf_new(vm, 0);
    const wn_string *sep = wn_given(a[0]) ? wn_val_text(vm, a[0]) : wn_string_lit(vm, "", 0);
    for (size_t i = 0; i < l->n; i++) {
        if (i) wn_buf_string(vm, b, sep);
        wn_vm_spend(vm, 1);
        wn_val_print(vm, b,
                     wn_given(a[1]) && a[1].kind != WN_NONE ? wn_get_path(vm, l->at[i], a[1])
                                                            : l->at[i]);
    }
    return wn_buf_value(vm, b);
}

WN_BUILTIN(f_reverse)
{
    wn_list *all = wn_list_of(vm, self), *l = wn_list_new(vm, all->n);
    for (size_t i = all->n; i-- > 0;) wn_list_add(vm, l, all->at[i]);
    if (self.kind != WN_STR) return lazy(l);
    wn_text_buf *b = wn_buf_new(vm, self.s->n);
    for (size_t i = 0; i < l->n; i++) wn_buf_string(vm, b, l->at[i].s);
    return wn_buf_value(vm, b);
}

WN_BUILTIN(f_items)
{
    if (self.kind == WN_UNDEF) return lazy(wn_list_new(vm, 0));
    if (self.kind != WN_DICT)
        wn_vm_fail(vm, "items: can only get the pairs of a mapping, not of %s", wn_kind_name(self));
    wn_call_args none = { 0 };
    wn_value l = wn_apply(vm, wn_method_find(self, wn_string_lit(vm, "items", 5)), self, &none);
    return lazy(l.list);
}

WN_BUILTIN(f_attr) { return wn_get_attr(vm, self, wn_want_str(vm, a[0], "the attribute's name")); }

/* ---- choosing -------------------------------------------------------------------------------- */

/* args without the first n. */
static wn_call_args rest(const wn_call_args *args, int n)
{
    wn_call_args r = *args;
    n = WN_MIN(n, args->n);
    if (n) r.pos += n;                  /* no arguments have no address */
    r.n -= n;
    return r;
}

/* What is not there, or empty, has no items; what is no list at all fails. */
static wn_list *items_of(wn_vm *vm, wn_value v)
{
    return wn_val_truth(v) ? wn_list_of(vm, v) : wn_list_new(vm, 0);
}

/* What select, reject, selectattr and rejectattr have in common: items for which a test (or,
 * without one, truth) of the item or of its attribute is as wanted. */
static wn_value choose(wn_vm *vm, wn_value self, const wn_call_args *args, bool by_attr,
                       bool wanted)
{
    wn_list *all = items_of(vm, self), *l = wn_list_new(vm, 0);
    const wn_builtin *test = NULL;
    if (by_attr && !args->n)
        wn_vm_fail(vm, "selectattr and rejectattr need the name of an attribute");
    wn_call_args a = rest(args, by_attr), more = rest(&a, 1);
    if (a.n) {
        const wn_string *name = wn_want_str(vm, a.pos[0], "the name of a test");
        if (!(test = wn_test_find(name)))
            wn_vm_fail(vm, "there is no test '%.*s'", (int)WN_MIN(name->n, (size_t)60), name->p);
    }
    for (size_t i = 0; i < all->n; i++) {
        wn_value v = by_attr ? wn_get_path(vm, all->at[i], args->pos[0]) : all->at[i];
        if (wn_val_truth(test ? wn_apply(vm, test, v, &more) : v) == wanted)
            wn_list_add(vm, l, all->at[i]);
    }
    return lazy(l);
}
WN_BUILTIN(f_select) { return choose(vm, self, args, false, true); }
WN_BUILTIN(f_reject) { return choose(vm, self, args, false, false); }
WN_BUILTIN(f_selectattr) { return choose(vm, self, args, true, true); }
WN_BUILTIN(f_rejectattr) { return choose(vm, self, args, true, false); }

WN_BUILTIN(f_map)
{
    wn_list *all = items_of(vm, self), *l = wn_list_new(vm, 0);
    wn_value attr = { 0 }, otherwise = { 0 };
    const wn_builtin *filter = NULL;
    wn_call_args more = rest(args, 1);
    if (!args->n) {
        for (int i = 0; i < args->n_kw; i++) {
            if (wn_string_is(args->kw[i].name, "attribute")) attr = args->kw[i].val;
            else if (wn_string_is(args->kw[i].name, "default")) otherwise = args->kw[i].val;
            else wn_vm_fail(vm, "map() takes attribute= and default=, or the name of a filter");
        }
        if (!wn_given(attr)) wn_vm_fail(vm, "map() needs attribute= or the name of a filter");
    } else {
        const wn_string *name = wn_want_str(vm, args->pos[0], "the name of a filter");
        if (!(filter = wn_filter_find(name)))
            wn_vm_fail(vm, "there is no filter '%.*s'", (int)WN_MIN(name->n, (size_t)60), name->p);
    }
    for (size_t i = 0; i < all->n; i++) {
        wn_value v = filter ? wn_apply(vm, filter, all->at[i], &more)
                            : wn_get_path(vm, all->at[i], attr);
        wn_list_add(vm, l, v.kind == WN_UNDEF && wn_given(otherwise) ? otherwise : v);
    }
    return lazy(l);
}

/* ---- order ----------------------------------------------------------------------------------- */

typedef struct { wn_value key, val; } keyed;

static wn_value folded(wn_vm *vm, wn_value v, bool sensitive)
{
    return v.kind == WN_STR && !sensitive ? wn_val_of(wn_string_case(vm, v.s, 'l')) : v;
}

/* Stable, by key; reverse keeps the order of equals too. */
static void sort(wn_vm *vm, keyed *at, keyed *tmp, size_t n, bool reverse)
{
    if (n < 2) return;
    size_t h = n / 2, i = 0, j = h, k = 0;
    sort(vm, at, tmp, h, reverse);
    sort(vm, at + h, tmp, n - h, reverse);
    while (i < h && j < n) {
        wn_vm_spend(vm, 1);
        int c = reverse ? wn_val_compare(vm, at[i].key, at[j].key, "<")
                        : wn_val_compare(vm, at[j].key, at[i].key, "<");
        tmp[k++] = c < 0 ? at[j++] : at[i++];
    }
    while (i < h) tmp[k++] = at[i++];
    memcpy(at, tmp, sizeof *at * k);
}

/* Items beside their keys: an attribute of each, or themselves. */
static keyed *with_keys(wn_vm *vm, wn_list *l, wn_value attr, wn_value otherwise, bool sensitive)
{
    keyed *k = wn_vm_array(vm, keyed, l->n + 1);
    for (size_t i = 0; i < l->n; i++) {
        wn_value key = wn_given(attr) && attr.kind != WN_NONE ? wn_get_path(vm, l->at[i], attr)
                                                              : l->at[i];
        if (key.kind == WN_UNDEF && wn_given(otherwise)) key = otherwise;
        k[i] = (keyed){ folded(vm, key, sensitive), l->at[i] };
    }
    return k;
}

/* "a,b" sorts by a, then by b. */
static wn_list *paths(wn_vm *vm, wn_value attr)
{
    wn_list *l = wn_list_new(vm, 0);
    const wn_string *s = attr.s;
    if (attr.kind != WN_STR) {
        wn_list_add(vm, l, attr);
        return l;
    }
    for (size_t from = 0; from <= s->n;) {
        const char *comma = memchr(s->p + from, ',', s->n - from);
        size_t to = comma ? (size_t)(comma - s->p) : s->n;
        wn_list_add(vm, l, wn_val_of(wn_string_cut(vm, s, from, to)));
        from = to + 1;
    }
    return l;
}

/* Keys are lists, as in Jinja, which for one attribute means: what is undefined everywhere is
 * equal. */
static keyed *with_many_keys(wn_vm *vm, wn_list *l, wn_list *names, bool sensitive)
{
    keyed *k = wn_vm_array(vm, keyed, l->n + 1);
    for (size_t i = 0; i < l->n; i++) {
        wn_list *keys = wn_list_new(vm, names->n);
        for (size_t j = 0; j < names->n; j++)
            wn_list_add(vm, keys, folded(vm, wn_get_path(vm, l->at[i], names->at[j]), sensitive));
        k[i] = (keyed){ wn_val_list(keys), l->at[i] };
    }
    return k;
}

WN_BUILTIN(f_sort)
{
    wn_list *l = wn_list_of(vm, self), *out = wn_list_new(vm, l->n);
    bool by_attr = wn_given(a[2]) && a[2].kind != WN_NONE;
    keyed *k = by_attr ? with_many_keys(vm, l, paths(vm, a[2]), flag(a[1]))
                       : with_keys(vm, l, a[2], (wn_value){ 0 }, flag(a[1]));
    sort(vm, k, wn_vm_array(vm, keyed, l->n + 1), l->n, flag(a[0]));
    for (size_t i = 0; i < l->n; i++) wn_list_add(vm, out, k[i].val);
    return wn_val_list(out);
}

WN_BUILTIN(f_dictsort)
{
    wn_list *l = wn_list_new(vm, 0);
    if (self.kind != WN_DICT) wn_vm_fail(vm, "dictsort wants a dict, not %s", wn_kind_name(self));
    bool by_value = wn_given(a[1]) &&
                    wn_string_is(wn_want_str(vm, a[1], "dictsort()'s by"), "value");
    if (wn_given(a[1]) && !by_value && !wn_string_is(a[1].s, "key"))
        wn_vm_fail(vm, "dictsort(): by is 'key' or 'value'");
    keyed *k = wn_vm_array(vm, keyed, self.dict->n + 1);
    for (size_t i = 0; i < self.dict->n; i++) {
        const wn_entry *e = &self.dict->at[i];
        k[i] = (keyed){ folded(vm, by_value ? e->val : e->key, flag(a[0])),
                        wn_pair(vm, e->key, e->val) };
    }
    sort(vm, k, wn_vm_array(vm, keyed, self.dict->n + 1), self.dict->n, flag(a[2]));
    for (size_t i = 0; i < self.dict->n; i++) wn_list_add(vm, l, k[i].val);
    return wn_val_list(l);
}

WN_BUILTIN(f_unique)
{
    wn_list *l = wn_list_of(vm, self), *out = wn_list_new(vm, 0);
    keyed *k = with_keys(vm, l, a[1], (wn_value){ 0 }, flag(a[0]));
    wn_dict *seen = wn_dict_new(vm);
    for (size_t i = 0; i < l->n; i++) {
        if (wn_dict_find(vm, seen, k[i].key)) continue;
        wn_dict_set(vm, seen, k[i].key, wn_val_none());
        wn_list_add(vm, out, l->at[i]);
    }
    return lazy(out);
}

WN_BUILTIN(f_groupby)
{
    wn_list *l = wn_list_of(vm, self), *groups = wn_list_new(vm, 0), *group = NULL;
    keyed *k = with_keys(vm, l, a[0], a[1], flag(a[2]));
    sort(vm, k, wn_vm_array(vm, keyed, l->n + 1), l->n, false);
    for (size_t i = 0; i < l->n; i++) {
        if (!i || !wn_val_equal(vm, k[i].key, k[i - 1].key)) {
            wn_value key = wn_get_path(vm, k[i].val, a[0]);
            group = wn_list_new(vm, 0);
            if (key.kind == WN_UNDEF && wn_given(a[1])) key = a[1];
            wn_value pair = wn_pair(vm, key, wn_val_list(group));
            pair.list->is_group = true;
            wn_list_add(vm, groups, pair);
        }
        wn_list_add(vm, group, k[i].val);
    }
    return wn_val_list(groups);
}

static wn_value extreme(wn_vm *vm, wn_value self, const wn_value *a, int sign)
{
    wn_list *l = wn_list_of(vm, self);
    keyed *k = with_keys(vm, l, a[1], (wn_value){ 0 }, flag(a[0]));
    size_t best = 0;
    if (!l->n) return wn_val_undef(vm, "no aggregated item, the sequence was empty");
    for (size_t i = 1; i < l->n; i++)
        if (wn_val_compare(vm, k[i].key, k[best].key, sign < 0 ? "<" : ">") * sign > 0) best = i;
    return l->at[best];
}
WN_BUILTIN(f_min) { return extreme(vm, self, a, -1); }
WN_BUILTIN(f_max) { return extreme(vm, self, a, 1); }

WN_BUILTIN(f_sum)
{
    wn_list *l = wn_list_of(vm, self);
    wn_value sum = wn_given(a[1]) ? a[1] : wn_val_int(0);
    for (size_t i = 0; i < l->n; i++)
        sum = wn_binary(vm, '+', sum,
                        wn_given(a[0]) && a[0].kind != WN_NONE ? wn_get_path(vm, l->at[i], a[0])
                                                               : l->at[i]);
    return sum;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

WN_BUILTIN(f_batch)
{
    wn_list *l = wn_list_of(vm, self), *out = wn_list_new(vm, 0), *row = NULL;
    int64_t n = wn_want_int(vm, a[0], "batch()'s length");
    if (n < 1) wn_vm_fail(vm, "batch() of %lld items", (long long)n);
    for (size_t i = 0; i < l->n; i++) {
        if (i % (size_t)n == 0) wn_list_add(vm, out, wn_val_list(row = wn_list_new(vm, 0)));
        wn_list_add(vm, row, l->at[i]);
    }
    while (row && wn_given(a[1]) && a[1].kind != WN_NONE && row->n < (size_t)n)
        wn_list_add(vm, row, a[1]);
    return lazy(out);
}

/* n lists of nearly equal length, the longer ones first. */
WN_BUILTIN(f_slice)
{
    wn_list *l = wn_list_of(vm, self), *out = wn_list_new(vm, 0);
    int64_t n = wn_want_int(vm, a[0], "slice()'s number of lists");
    if (n < 1) wn_vm_fail(vm, "slice() into %lld lists", (long long)n);
    size_t per = l->n / (size_t)n, extra = l->n % (size_t)n, at = 0;
    for (int64_t i = 0; i < n; i++) {
        wn_list *part = wn_list_new(vm, 0);
        for (size_t k = 0; k < per + ((size_t)i < extra); k++) wn_list_add(vm, part, l->at[at++]);
        if (wn_given(a[1]) && a[1].kind != WN_NONE && (size_t)i >= extra)
            wn_list_add(vm, part, a[1]);
        wn_list_add(vm, out, wn_val_list(part));
    }
    return lazy(out);
}

const wn_builtin *wn_list_filter_find(const wn_string *name)
{
    static const wn_builtin table[] = {
        { "length", "", 0, f_length },
        { "count", "", 0, f_length },
        { "list", "", 0, f_list },
        { "first", "", 0, f_first },
        { "last", "", 0, f_last },
        { "join", "d attribute", 0, f_join },
        { "reverse", "", 0, f_reverse },
        { "items", "", 0, f_items },
        { "attr", "name", 1, f_attr },
        { "select", NULL, 0, f_select },
        { "reject", NULL, 0, f_reject },
        { "selectattr", NULL, 0, f_selectattr },
        { "rejectattr", NULL, 0, f_rejectattr },
        { "map", NULL, 0, f_map },
        { "sort", "reverse case_sensitive attribute", 0, f_sort },
        { "dictsort", "case_sensitive by reverse", 0, f_dictsort },
        { "unique", "case_sensitive attribute", 0, f_unique },
        { "groupby", "attribute default case_sensitive", 1, f_groupby },
        { "min", "case_sensitive attribute", 0, f_min },
        { "max", "case_sensitive attribute", 0, f_max },
        { "sum", "attribute start", 0, f_sum },
        { "batch", "linecount fill_with", 1, f_batch },
        { "slice", "slices fill_with", 1, f_slice },
    };
    return wn_builtin_find(table, WN_COUNT(table), name);
}
