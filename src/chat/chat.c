/* chat/chat.c - the public functions for conversations: from messages to the text and tokens of
 * the model's own template.
 *
 * What a template is given is what transformers gives it: messages, tools and documents (none when
 * there are none), add_generation_prompt, the names of special tokens, and whatever the caller
 * adds. Two habits of callers that not every template knows are met half way, by asking the
 * template once what it makes of a sample: text in parts ([{"type": "text", ...}]) becomes one
 * string where parts come out wrong, and arguments of tool calls given as a JSON string become the
 * object they spell where the template can write objects.
 */
#include "chat/template.h"
#include "model/model.h"

#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

struct wn_chat {
    const wn_model *m;
    wn_template *t, *with_tools;        /* with_tools: NULL where there is only one */
    bool add_bos;
    int32_t bos;
};

const char *wn_chat_builtin(const char *name)
{
    static const struct { const char *name, *source;
    } all[] = {
        { "chatml", "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ "
                    "'<|im_end|>\n' }}{% endfor %}"
                    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}" },
        { "plain",
          "{% for m in messages %}{{ m.role|title ~ ': ' ~ m.content|trim ~ '\n\n' }}{% endfor %}"
          "{% if add_generation_prompt %}Assistant:{% endif %}" },
    };
    for (size_t i = 0; i < WN_COUNT(all); i++)
        if (!strcmp(name, all[i].name)) return all[i].source;
    return NULL;
}

/* ---- opening ------------------------------------------------------------------------------ */

static wn_status open_variant(wn_template **out, const wn_model *m, const char *variant, bool need,
                              wn_err *err)
{
    char key[200];
    wn_str s = { 0 };
    snprintf(key, sizeof key,
             variant ? "tokenizer.chat_template.%.100s" : "tokenizer.chat_template", variant);
    wn_status st = wn_gguf_string(m->file, key, false, &s, err);
    if (st) return st;
    if (!s.n && !variant)
        st = wn_gguf_string(m->file, "tokenizer.chat_template.default", false, &s, err);
    if (st) return st;
    if (!s.n)
        return need ? wn_fail(err, WN_EUNSUPPORTED, "the model has no chat template (%s)", key)
                    : WN_OK;
    st = wn_template_open(out, s.p, s.n, err);
    return st ? wn_fail_prefix(err, st, "%s", key) : WN_OK;
}

wn_status wn_chat_open(wn_chat **out, const wn_model *m, const wn_chat_opts *opts, wn_err *err)
{
    wn_chat_opts o = opts ? *opts : (wn_chat_opts){ 0 };
    wn_chat *c = WN_NEW(wn_chat);
    wn_status st;
    *out = NULL;
    if (!c) return wn_fail(err, WN_ENOMEM, "chat: out of memory");
    c->m = m;
    c->bos = wn_tokenizer_bos(m->tokenizer);
    c->add_bos = wn_tokenizer_add_bos(m->tokenizer);
    if (o.source) {
        if ((st = wn_template_open(&c->t, o.source, strlen(o.source), err)))
            wn_fail_prefix(err, st, "chat template");
    } else {
        st = open_variant(&c->t, m, o.variant, true, err);
        if (!st && !o.variant) st = open_variant(&c->with_tools, m, "tool_use", false, err);
    }
    if (st) {
        wn_chat_close(c);
        return st;
    }
    *out = c;
    return WN_OK;
}

void wn_chat_close(wn_chat *c)
{
    if (!c) return;
    wn_template_close(c->t);
    wn_template_close(c->with_tools);
    wn_free(c);
}

/* ---- what the template is given -------------------------------------------------------------- */

static json_t *token_name(const wn_chat *c, int32_t id)
{
    char text[256];
    if (id < 0) return json_string("");
    size_t n = wn_token_bytes(c->m->tokenizer, id, true, text, sizeof text);
    return json_stringn(text, WN_MIN(n, sizeof text));
}

static wn_status parse(json_t **out, const char *text, const char *what, bool array, wn_err *err)
{
    json_error_t e;
    *out = json_loads(text, JSON_ALLOW_NUL, &e);
    if (!*out)
        return wn_fail(err, WN_EINVAL, "%s: line %d, column %d: %s", what, e.line, e.column,
                       e.text);
    if (array ? json_is_array(*out) : json_is_object(*out)) return WN_OK;
    json_decref(*out);
    *out = NULL;
    return wn_fail(err, WN_EINVAL, "%s: a JSON %s is expected", what, array ? "array" : "object");
}

static wn_status read_messages(json_t **out, const wn_chat_input *in, wn_err *err)
{
    if (in->messages_json) {
        wn_status st = parse(out, in->messages_json, "messages", true, err);
        for (size_t i = 0; !st && i < json_array_size(*out); i++)
            if (!json_is_object(json_array_get(*out, i))) {
                json_decref(*out);
                *out = NULL;
                return wn_fail(err, WN_EINVAL,
                               "messages: element %zu is no object with role and content", i);
            }
        return st;
    }
    *out = json_array();
    for (int i = 0; i < in->n_messages; i++) {
        const wn_message *m = &in->messages[i];
        json_t *j = json_pack("{s:s, s:s}", "role", m->role, "content", m->content);
        if (json_array_append_new(*out, j)) {
            json_decref(*out);
            *out = NULL;
            return wn_fail(err, WN_EINVAL, "message %d: role and content must be UTF-8", i);
        }
    }
    return WN_OK;
}

/* ---- meeting templates half way -------------------------------------------------------------- */

/* Does the sample, rendered, contain one text and not the other? */
static bool writes(const wn_template *t, const char *sample, const char *has, const char *lacks)
{
    wn_chat_text r = { 0 };
    json_t *vars = json_loads(sample, 0, NULL);
    bool yes = vars &&
               !wn_template_render(t, &(wn_render_opts){ .vars = vars, .now = 1 }, &r, NULL) &&
               strstr(r.text, has) && !strstr(r.text, lacks);
    wn_chat_text_release(&r);
    json_decref(vars);
    return yes;
}

static bool only_text(const json_t *parts)
{
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const char *type = json_string_value(json_object_get(json_array_get(parts, i), "type"));
        if (!type || strcmp(type, "text") ||
            !json_is_string(json_object_get(json_array_get(parts, i), "text")))
            return false;
    }
    return json_is_array(parts) && json_array_size(parts);
}

/* Parts of text, one after the other, as one string. */
static json_t *joined(const json_t *parts)
{
    size_t n = 0, at = 0;
    for (size_t i = 0; i < json_array_size(parts); i++)
        n += json_string_length(json_object_get(json_array_get(parts, i), "text")) + 1;
    char *text = wn_alloc(n + 1);
    for (size_t i = 0; text && i < json_array_size(parts); i++) {
        const json_t *s = json_object_get(json_array_get(parts, i), "text");
        if (i) text[at++] = '\n';
        memcpy(text + at, json_string_value(s), json_string_length(s));
        at += json_string_length(s);
    }
    json_t *j = text ? json_stringn(text, at) : NULL;
    wn_free(text);
    return j;
}

static void spell_out_arguments(json_t *message)
{
    size_t i;
    json_t *call;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call) {
        json_t *f = json_object_get(call, "function"), *args = json_object_get(f, "arguments");
        json_t *object = json_is_string(args)
                             ? json_loadb(json_string_value(args), json_string_length(args),
                                          JSON_ALLOW_NUL, NULL)
                             : NULL;
        if (json_is_object(object)) json_object_set(f, "arguments", object);
        json_decref(object);
    }
}

static void adapt(const wn_template *t, json_t *messages)
{
    int takes_parts = -1, takes_objects = -1;
    size_t i;
    json_t *m;
    json_array_foreach(messages, i, m) {
        if (only_text(json_object_get(m, "content"))) {
            if (takes_parts < 0)
                takes_parts = writes(t,
                                     "{\"messages\": [{\"role\": \"user\", \"content\": "
                                     "[{\"type\": \"text\", \"text\": \"sample\"}]}]}",
                                     "sample", "text");
            json_t *one = takes_parts ? NULL : joined(json_object_get(m, "content"));
            if (one) json_object_set_new(m, "content", one);
        }
        if (json_array_size(json_object_get(m, "tool_calls"))) {
            if (takes_objects < 0)
                takes_objects = writes(
                    t,
                    "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": "
                    "\"assistant\", \"content\": \"\", \"tool_calls\": "
                    "[{\"id\": \"call12345\", \"type\": \"function\", \"function\": {\"name\": "
                    "\"f\", \"arguments\": {\"key\": \"sample\"}}}]}]}",
                    "sample", "'sample'");
            if (takes_objects) spell_out_arguments(m);
        }
    }
}

/* ---- rendering ------------------------------------------------------------------------------- */

wn_status wn_chat_render(const wn_chat *c, const wn_chat_input *in, wn_chat_text *out, wn_err *err)
{
    json_t *messages = NULL, *tools = NULL, *vars = NULL;
    wn_status st = WN_OK;
    *out = (wn_chat_text){ 0 };
    if (in->vars_json) st = parse(&vars, in->vars_json, "variables", false, err);
    if (!st && in->tools_json) st = parse(&tools, in->tools_json, "tools", true, err);
    if (!st) st = read_messages(&messages, in, err);
    json_t *trusted = st ? NULL
                         : json_pack("{s:o, s:o}", "bos_token", token_name(c, c->bos), "eos_token",
                                     token_name(c, wn_tokenizer_eos(c->m->tokenizer)));
    if (!vars) vars = json_object();
    if (!st && (!trusted || !vars)) st = wn_fail(err, WN_ENOMEM, "chat: out of memory");
    if (!st) {
        const wn_template *t = c->with_tools && json_array_size(tools) ? c->with_tools : c->t;
        adapt(t, messages);
        json_object_set(vars, "messages", messages);
        if (tools || !json_object_get(vars, "tools"))
            json_object_set(vars, "tools", tools ? tools : json_null());
        if (!json_object_get(vars, "documents")) json_object_set(vars, "documents", json_null());
        json_object_set_new(vars, "add_generation_prompt", json_boolean(!in->no_generation_prompt));
        st = wn_template_render(t, &(wn_render_opts){ .vars = vars, .trusted = trusted,
                                                      .now = in->now }, out, err);
        if (st) wn_fail_prefix(err, st, "chat template");
    }
    json_decref(messages);
    json_decref(tools);
    json_decref(vars);
    json_decref(trusted);
    return st;
}

wn_status wn_chat_tokens(const wn_chat *c, const wn_chat_input *in, int32_t **ids, size_t *n_ids,
                         wn_err *err)
{
    wn_chat_text r;
    *ids = NULL;
    *n_ids = 0;
    wn_status st = wn_chat_render(c, in, &r, err);
    if (st) return st;
    wn_tokenize_opts o = { .parse_special = true, .no_bos_eos = true, .plain = r.plain,
                           .n_plain = r.n_plain };
    st = wn_tokenize(c->m->tokenizer, r.text, r.n, &o, ids, n_ids, err);
    wn_chat_text_release(&r);
    if (st || !c->add_bos || (*n_ids && **ids == c->bos)) return st;
    int32_t *more = wn_realloc(*ids, sizeof *more * (*n_ids + 1));
    if (!more) {
        wn_free(*ids);
        *ids = NULL;
        *n_ids = 0;
        return wn_fail(err, WN_ENOMEM, "chat: out of memory");
    }
    memmove(more + 1, more, sizeof *more * *n_ids);
    more[0] = c->bos;
    *ids = more;
    ++*n_ids;
    return WN_OK;
}
