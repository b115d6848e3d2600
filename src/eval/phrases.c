/* eval/phrases.c - reads a template, fills in what it inherits, and hands out what it says.
 *
 * What a template may say is checked once, here at loading, by phrases_grammar.c; whoever asks for
 * a phrase later gets it. Templates stay the JSON they came as; phrases are borrowed from it.
 */
#include "eval/phrases.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/os.h"
#include "eval/haystack.h"
#include "eval/phrases_grammar.h"

/* Made by the linker from data/eval/, see the Makefile. */
extern const char _binary_base_json_start[], _binary_base_json_end[];
extern const char _binary_chat_json_start[], _binary_chat_json_end[];
extern const char _binary_demo_json_start[], _binary_demo_json_end[];
extern const char _binary_haystack_txt_start[], _binary_haystack_txt_end[];

static const struct { const char *name, *start, *end; } compiled[] = {
    { "base", _binary_base_json_start, _binary_base_json_end },
    { "chat", _binary_chat_json_start, _binary_chat_json_end },
    { "demo", _binary_demo_json_start, _binary_demo_json_end },
};

enum { MAX_TEMPLATE = 1 << 20 };

struct wn_phrases {
    json_t *root;
    wn_haystack hay;
    wn_os_file hay_file;
    bool hay_mapped;
    wn_markup markup, talk;
    char *own;                          /* the strings of wn_phrases_set_markup() */
};

/* ---- loading ------------------------------------------------------------------------- */

/* What over says wins; objects are merged, everything else is replaced whole. */
static bool merge(json_t *into, const json_t *over)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)over, key, v) {
        json_t *have = json_object_get(into, key);
        if (json_is_object(have) && json_is_object(v)) {
            if (!merge(have, v)) return false;
        } else if (json_object_set_new(into, key, json_deep_copy(v))) {
            return false;
        }
    }
    return true;
}

static wn_status load(json_t **out, const char *json, size_t n, const char *name, int depth,
                      wn_err *err)
{
    json_error_t je;
    json_t *parent = NULL, *root;
    wn_status st;
    *out = NULL;
    if (n > MAX_TEMPLATE)
        return wn_fail(
            err, WN_EFORMAT,
            "template %s: %zu bytes are more than a template's %d; is it the right file?", name, n,
            MAX_TEMPLATE);
    root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &je);
    if (!root)
        return wn_fail(err, WN_EFORMAT, "template %s: not JSON: %.160s (line %d, column %d)", name,
                       je.text, je.line, je.column);
    if (!json_is_object(root)) {
        st = wn_fail(err, WN_EFORMAT,
                     "template %s: not a JSON object; copy a compiled-in one to begin with", name);
        goto fail;
    }
    if ((st = wn_template_check_keys(root, name, err))) goto fail;
    json_t *inherit = json_object_get(root, "inherit");
    if (!inherit) {
        *out = root;
        return WN_OK;
    }
    const char *family = json_string_value(inherit);
    size_t i = 0;
    while (family && i < WN_COUNT(compiled) && strcmp(compiled[i].name, family)) i++;
    if (!family || i == WN_COUNT(compiled) || depth > (int)WN_COUNT(compiled)) {
        st = wn_fail(
            err, WN_EFORMAT,
            "template %s: inherit names a family that is not compiled in; use base, chat or demo",
            name);
        goto fail;
    }
    if ((st = load(&parent, compiled[i].start, (size_t)(compiled[i].end - compiled[i].start),
                   family, depth + 1, err)))
        goto fail;
    /* Whoever writes a markup of his own means conversations too, unless he writes "talk". */
    bool same = json_object_get(root, "markup") && !json_object_get(root, "talk");
    bool ok = merge(parent, root);
    if (ok && same)
        ok = !json_object_set_new(parent, "talk",
                                  json_deep_copy(json_object_get(parent, "markup")));
    json_decref(root);
    if (!ok) {
        json_decref(parent);
        return wn_fail(err, WN_ENOMEM, "template %s: out of memory", name);
    }
    *out = parent;
    return WN_OK;
fail:
    json_decref(root);
    return st;
}

wn_status wn_phrases_parse(wn_phrases **out, const char *json, size_t n_json, const char *name,
                           const char *haystack, size_t n_haystack, const char *haystack_name,
                           wn_err *err)
{
    wn_phrases *p = WN_NEW(wn_phrases);
    wn_status st;
    *out = NULL;
    if (!p) return wn_fail(err, WN_ENOMEM, "template %s: out of memory", name);
    if ((st = load(&p->root, json, n_json, name, 0, err))) goto fail;
    if ((st = wn_template_check(p->root, name, &p->markup, &p->talk, err))) goto fail;
    if ((st = wn_haystack_init(&p->hay, haystack, n_haystack, haystack_name, err))) goto fail;
    *out = p;
    return WN_OK;
fail:
    wn_phrases_close(p);
    return st;
}

wn_status wn_phrases_open(wn_phrases **out, const char *family, const char *haystack, wn_err *err)
{
    wn_os_file json_file = { .fd = -1 }, hay_file = { .fd = -1 };
    const char *json = NULL, *hay = _binary_haystack_txt_start;
    size_t n_json = 0, n_hay = (size_t)(_binary_haystack_txt_end - _binary_haystack_txt_start);
    bool json_mapped = false;
    wn_status st = WN_OK;
    *out = NULL;
    for (size_t i = 0; i < WN_COUNT(compiled); i++)
        if (!strcmp(compiled[i].name, family)) {
            json = compiled[i].start;
            n_json = (size_t)(compiled[i].end - compiled[i].start);
        }
    if (!json) {
        st = wn_os_file_open(&json_file, family, err);
        if (st && !strchr(family, '/') && !strchr(family, '.'))
            return wn_fail(err, WN_EINVAL,
                           "template \"%.80s\": neither a family (base, chat, demo) nor a file",
                           family);
        if (st) return wn_fail_prefix(err, st, "template %.200s", family);
        json_mapped = true;
        json = (const char *)json_file.data;
        n_json = json_file.size;
    }
    if (haystack) {
        if ((st = wn_os_file_open(&hay_file, haystack, err))) {
            wn_fail_prefix(err, st, "haystack %.200s", haystack);
            goto done;
        }
        hay = (const char *)hay_file.data;
        n_hay = hay_file.size;
    }
    st = wn_phrases_parse(out, json, n_json, family, hay, n_hay,
                          haystack ? haystack : "(compiled in)", err);
    if (st) {
        if (haystack) wn_os_file_close(&hay_file);
    } else {
        (*out)->hay_file = hay_file;
        (*out)->hay_mapped = haystack != NULL;
    }
done:
    if (json_mapped) wn_os_file_close(&json_file);
    return st;
}

void wn_phrases_close(wn_phrases *p)
{
    if (!p) return;
    wn_haystack_release(&p->hay);
    if (p->hay_mapped) wn_os_file_close(&p->hay_file);
    json_decref(p->root);
    wn_free(p->own);
    wn_free(p);
}

const char *wn_phrases_haystack(const wn_phrases *p, size_t *n_bytes)
{
    *n_bytes = p->hay.n;
    return p->hay.text;
}

const char *wn_phrases_guess(const char *model_name, const char *chat_template)
{
    if (model_name && !strncmp(model_name, "winnow-demo", 11)) return "demo";
    return chat_template && *chat_template ? "model" : "base";
}

const char *wn_phrases_family(int i)
{
    return i >= 0 && i < (int)WN_COUNT(compiled) ? compiled[i].name : NULL;
}

/* ---- reading -------------------------------------------------------------------------- */

static const json_t *section_key(const wn_phrases *p, const char *task, const char *key)
{
    return json_object_get(json_object_get(json_object_get(p->root, "tasks"), task), key);
}

const char *wn_phrases_optional(const wn_phrases *p, const char *task, const char *key)
{
    return json_string_value(section_key(p, task, key));
}

const char *wn_phrases_text(const wn_phrases *p, const char *task, const char *key)
{
    const char *s = wn_phrases_optional(p, task, key);
    WN_ASSERT(s);
    return s;
}

int wn_phrases_number(const wn_phrases *p, const char *task, const char *key)
{
    const json_t *v = section_key(p, task, key);
    WN_ASSERT(json_is_integer(v));
    return (int)json_integer_value(v);
}

int wn_phrases_n_kinds(const wn_phrases *p)
{
    return (int)json_array_size(section_key(p, "questions", "kinds"));
}

wn_kind wn_phrases_kind(const wn_phrases *p, int i)
{
    const json_t *k = json_array_get(section_key(p, "questions", "kinds"), (size_t)i);
    return (wn_kind){ json_string_value(json_object_get(k, "statement")),
                      json_string_value(json_object_get(k, "question")),
                      json_string_value(json_object_get(k, "lead")),
                      json_string_value(json_object_get(k, "answer")) };
}

int wn_phrases_n_words(const wn_phrases *p, const char *list, size_t n_list)
{
    return (int)json_array_size(wn_template_list(p->root, list, n_list));
}

const char *wn_phrases_word(const wn_phrases *p, const char *list, size_t n_list, int i)
{
    return json_string_value(json_array_get(wn_template_list(p->root, list, n_list), (size_t)i));
}

wn_status wn_phrases_set_markup(wn_phrases *p, const wn_markup *m, wn_err *err)
{
    wn_markup k = *m;
    const char **text[] = { &k.system_prefix,
                            &k.system_text,
                            &k.system_suffix,
                            &k.user_prefix,
                            &k.user_suffix,
                            &k.assistant_prefix,
                            &k.assistant_suffix,
                            &k.question,
                            &k.next_question,
                            &k.stop,
                            &k.begin };
    size_t n = 0;
    for (size_t i = 0; i < WN_COUNT(text); i++) n += strlen(*text[i]) + 1;
    char *to = wn_alloc(n);
    if (!to) return wn_fail(err, WN_ENOMEM, "markup: out of memory");
    wn_free(p->own);
    p->own = to;
    for (size_t i = 0; i < WN_COUNT(text); i++) {
        size_t len = strlen(*text[i]) + 1;
        *text[i] = memcpy(to, *text[i], len);
        to += len;
    }
    p->markup = p->talk = k;
    return WN_OK;
}

const wn_markup *wn_phrases_markup(const wn_phrases *p) { return &p->markup; }
const wn_markup *wn_phrases_talk(const wn_phrases *p) { return &p->talk; }
int wn_phrases_n_pieces(const wn_phrases *p) { return p->hay.n_pieces; }
wn_piece wn_phrases_piece(const wn_phrases *p, int i) { return wn_haystack_piece(&p->hay, i); }

bool wn_phrases_in_haystack(const wn_phrases *p, const char *word)
{
    return wn_word_find(p->hay.text, p->hay.text, p->hay.text + p->hay.n, word, true) != NULL;
}
