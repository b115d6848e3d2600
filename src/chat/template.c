/* chat/template.c - the door to the machine: opens a template, renders it, lets failures out
 * as statuses. Between setjmp and the end of a run nothing is held but the arena. */
#include "chat/template.h"
#include "chat/run.h"

#include "base/alloc.h"
#include "tokenizer/utf8.h"

#include <string.h>

enum { MAX_DEPTH = 500, MAX_PARSE_DEPTH = 120 };
static const size_t MAX_SOURCE = (size_t)1 << 20, MEMORY = (size_t)256 << 20,
                    OUT = (size_t)64 << 20;
static const uint64_t STEPS = 10000000;

struct wn_template {
    wn_vm vm;                           /* its arena holds the tree */
    const wn_node *root;
};

wn_status wn_template_open(wn_template **out, const char *source, size_t n, wn_err *err)
{
    *out = NULL;
    if (n > MAX_SOURCE)
        return wn_fail(err, WN_ELIMIT, "a template of %zu bytes; at most %zu are read", n,
                       MAX_SOURCE);
    for (size_t i = 0; i < n;) {
        wn_utf8 u = wn_utf8_at(source + i, n - i);
        if (u.is != WN_UTF8_CHAR)
            return wn_fail(err, WN_EINVAL, "byte %zu of the template is not UTF-8", i);
        i += u.n;
    }
    wn_template *t = WN_NEW(wn_template);
    if (!t) return wn_fail(err, WN_ENOMEM, "template: out of memory");
    wn_status st = wn_arena_init(&t->vm.arena, (size_t)1 << 20 | 1024 * n, false, err);
    if (st) {
        wn_free(t);
        return st;
    }
    t->vm.err = err;
    t->vm.steps = STEPS;
    t->vm.max_depth = MAX_PARSE_DEPTH;
    if (setjmp(t->vm.door)) {
        st = t->vm.st;
        wn_template_close(t);
        return st;
    }
    t->root = wn_parse(&t->vm, source, n);
    t->vm.err = NULL;
    *out = t;
    return WN_OK;
}

void wn_template_close(wn_template *t)
{
    if (!t) return;
    wn_arena_release(&t->vm.arena);
    wn_free(t);
}

/* ---- what the caller gave -------------------------------------------------------------------- */

static bool known_role(const json_t *j)
{
    static const char *const roles[] = { "user",        "assistant",   "system",  "developer",
                                         "tool",        "function",    "ipython", "model",
                                         "observation", "environment", "context", "documents",
                                         "thinking" };
    const char *s = json_string_value(j);
    for (size_t i = 0; s && i < WN_COUNT(roles); i++)
        if (json_string_length(j) == strlen(roles[i]) && !strcmp(s, roles[i])) return true;
    return false;
}

static wn_value from_json(wn_vm *vm, const json_t *j, bool data)
{
    wn_value v = wn_val_none();
    const char *key;
    json_t *item;
    size_t i;
    wn_vm_enter(vm);
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        v = wn_val_dict(wn_dict_new(vm));
        json_object_foreach((json_t *)j, key, item)
            wn_dict_set(vm, v.dict, wn_val_of(wn_string_dup(vm, key, strlen(key), data)),
                        from_json(vm, item, data && !(!strcmp(key, "role") && known_role(item))));
        break;
    case JSON_ARRAY:
        v = wn_val_list(wn_list_new(vm, json_array_size(j)));
        json_array_foreach(j, i, item) wn_list_add(vm, v.list, from_json(vm, item, data));
        break;
    case JSON_STRING:
        v = wn_val_of(wn_string_dup(vm, json_string_value(j), json_string_length(j), data));
        break;
    case JSON_INTEGER: v = wn_val_int(json_integer_value(j)); break;
    case JSON_REAL: v = wn_val_float(json_real_value(j)); break;
    case JSON_TRUE:
    case JSON_FALSE: v = wn_val_bool(json_is_true(j)); break;
    case JSON_NULL: break;
    }
    wn_vm_leave(vm);
    return v;
}

static void take_vars(wn_vm *vm, const json_t *vars, bool data)
{
    const char *key;
    json_t *item;
    if (!vars) return;
    json_object_foreach((json_t *)vars, key, item)
        wn_dict_set(vm, vm->context, wn_val_of(wn_string_dup(vm, key, strlen(key), false)),
                    from_json(vm, item, data));
}

/* Bytes of text in a JSON value: what memory and steps are in proportion to. */
static size_t weigh(const json_t *j, int depth)
{
    const char *key;
    json_t *item;
    size_t i, n = 16;
    if (!j || depth > MAX_DEPTH) return n;
    if (json_is_string(j)) return n + json_string_length(j);
    if (json_is_object(j))
        json_object_foreach((json_t *)j, key, item) n += strlen(key) + weigh(item, depth + 1);
    if (json_is_array(j)) json_array_foreach(j, i, item) n += weigh(item, depth + 1);
    return n;
}

/* ---- rendering ------------------------------------------------------------------------------- */

static wn_status hand_out(const wn_text_buf *page, wn_chat_text *out, wn_err *err)
{
    size_t n = 0, k = 0;
    for (size_t i = 0; page->from && i < page->n; i++)
        n += page->from[i] && (!i || !page->from[i - 1]);
    out->text = wn_strndup(page->p, page->n);
    out->plain = WN_NEW_ARRAY(wn_range, n + 1);
    if (!out->text || !out->plain) {
        wn_chat_text_release(out);
        return wn_fail(err, WN_ENOMEM, "template: out of memory for %zu bytes of text", page->n);
    }
    for (size_t i = 0; page->from && i < page->n; i++) {
        if (!page->from[i]) continue;
        if (!i || !page->from[i - 1]) out->plain[k++].from = i;
        out->plain[k - 1].to = i + 1;
    }
    out->n = page->n;
    out->n_plain = n;
    return WN_OK;
}

static wn_status render(const wn_template *t, const wn_render_opts *o, wn_vm *vm, wn_chat_text *out,
                        wn_err *err)
{
    if (setjmp(vm->door)) return vm->st;
    vm->context = wn_dict_new(vm);
    vm->scope = wn_scope_push(vm, NULL);
    vm->out = vm->page = wn_buf_new(vm, 4096);
    take_vars(vm, o->vars, true);
    take_vars(vm, o->trusted, false);
    wn_exec(vm, t->root->list);
    return hand_out(vm->page, out, err);
}

wn_status wn_template_render(const wn_template *t, const wn_render_opts *o, wn_chat_text *out,
                             wn_err *err)
{
    size_t weight = weigh(o->vars, 0);
    wn_vm *vm = WN_NEW(wn_vm);
    wn_status st;
    *out = (wn_chat_text){ 0 };
    if (!vm) return wn_fail(err, WN_ENOMEM, "template: out of memory");
    vm->err = err;
    vm->source = t->vm.source;
    vm->n_source = t->vm.n_source;
    vm->steps = o->max_steps ? o->max_steps : STEPS + weight;
    vm->max_depth = MAX_DEPTH;
    vm->max_out = o->max_out ? o->max_out : OUT + 4 * weight;
    vm->now = o->now;
    if (!(st = wn_arena_init(&vm->arena, o->max_memory ? o->max_memory : MEMORY + 32 * weight,
                             false, err)))
        st = render(t, o, vm, out, err);
    wn_arena_release(&vm->arena);
    wn_free(vm);
    return st;
}

void wn_chat_text_release(wn_chat_text *r)
{
    wn_free(r->text);
    wn_free(r->plain);
    *r = (wn_chat_text){ 0 };
}
