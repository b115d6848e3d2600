/* chat/globals.c - the functions a template can name: range, namespace, dict, and the two that
 * transformers adds, raise_exception and strftime_now. */
#include "chat/run.h"

#include <string.h>
#include <time.h>

WN_BUILTIN(f_range)
{
    int64_t from = 0, to, by = 1;
    wn_list *l = wn_list_new(vm, 0);
    if (args->n < 1 || args->n > 3 || args->n_kw)
        wn_vm_fail(vm, "range() takes one to three numbers");
    to = wn_want_int(vm, args->pos[0], "range()'s argument");
    if (args->n > 1) {
        from = to;
        to = wn_want_int(vm, args->pos[1], "range()'s argument");
    }
    if (args->n > 2) by = wn_want_int(vm, args->pos[2], "range()'s step");
    if (!by) wn_vm_fail(vm, "range() with a step of zero");
    while (by > 0 ? from < to : from > to) {
        wn_list_add(vm, l, wn_val_int(from));
        if (__builtin_add_overflow(from, by, &from)) break;
    }
    return wn_val_list(l);
}

static wn_dict *make_dict(wn_vm *vm, const wn_call_args *args, const char *who)
{
    wn_dict *d = wn_dict_new(vm);
    if (args->n > 1) wn_vm_fail(vm, "%s() takes one dict and keywords", who);
    if (args->n && args->pos[0].kind == WN_DICT) {
        const wn_dict *src = args->pos[0].dict;
        for (size_t i = 0; i < src->n; i++) wn_dict_set(vm, d, src->at[i].key, src->at[i].val);
    } else if (args->n) {               /* pairs */
        wn_list *pairs = wn_list_of(vm, args->pos[0]);
        for (size_t i = 0; i < pairs->n; i++) {
            wn_list *pair = wn_list_of(vm, pairs->at[i]);
            if (pair->n != 2)
                wn_vm_fail(vm, "%s(): element %zu is no pair of key and value", who, i);
            wn_dict_set(vm, d, pair->at[0], pair->at[1]);
        }
    }
    for (int i = 0; i < args->n_kw; i++)
        wn_dict_set(vm, d, wn_val_of(args->kw[i].name), args->kw[i].val);
    return d;
}

WN_BUILTIN(f_dict) { return wn_val_dict(make_dict(vm, args, "dict")); }

WN_BUILTIN(f_namespace)
{
    return (wn_value){ .kind = WN_SPACE, .dict = make_dict(vm, args, "namespace") };
}

WN_BUILTIN(f_raise)
{
    const wn_string *s = wn_val_text(vm, a[0]);
    wn_vm_stop(vm, WN_EINVAL, "the template refuses this conversation: %.*s",
               (int)WN_MIN(s->n, (size_t)300), s->p);
}

WN_BUILTIN(f_strftime)
{
    const wn_string *fmt = wn_want_str(vm, a[0], "strftime_now()'s format");
    char spec[256], text[1024];
    time_t now = vm->now ? (time_t)vm->now : time(NULL);
    struct tm tm;
    if (fmt->n >= sizeof spec || memchr(fmt->p, '\0', fmt->n))
        wn_vm_fail(vm, "strftime_now(): the format is too long");
    if (!fmt->n || !localtime_r(&now, &tm)) return wn_val_str(vm, "");
    memcpy(spec, fmt->p, fmt->n);
    spec[fmt->n] = '\0';
    size_t n = strftime(text, sizeof text, spec, &tm);
    return wn_val_of(wn_string_dup(vm, text, n, false));
}

const wn_builtin *wn_global_find(const wn_string *name)
{
    static const wn_builtin table[] = {
        { "range", NULL, 0, f_range },
        { "namespace", NULL, 0, f_namespace },
        { "dict", NULL, 0, f_dict },
        { "raise_exception", "message", 1, f_raise },
        { "strftime_now", "format", 1, f_strftime },
    };
    return wn_builtin_find(table, WN_COUNT(table), name);
}
