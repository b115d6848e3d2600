/* eval/phrases.c - reads a template, fills in what it inherits, and refuses what nobody would read.
 *
 * The table below is the whole grammar: a task's section may hold these keys, each with the
 * placeholders the task fills in ("own") and those without which the phrase would be useless
 * ("must"). A mistyped key or placeholder would otherwise turn into a question that cannot
 * be answered, and look like a loss of quality. Templates stay the JSON they came as; phrases are
 * borrowed from it.
 */
#include "eval/phrases.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/os.h"
#include "eval/haystack.h"

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

enum { N_MARKUP = 10, MAX_TEMPLATE = 1 << 20, MAX_DIGITS = 512 };

struct wn_phrases {
    json_t *root;
    wn_haystack hay;
    wn_os_file hay_file;
    bool hay_mapped;
    wn_markup markup, talk;
    char *own;                          /* the strings of wn_phrases_set_markup() */
};

/* ---- the grammar ------------------------------------------------------------------- */

typedef struct {
    const char *task, *key;
    const char *own, *must;             /* names of placeholders, each between spaces */
    int min, max;                       /* max > 0: a number */
} rule;

#define NEEDLE(task, asked)                                         \
    { task, "intro", "", "", 0, 0 }, { task, "key", "", "", 0, 0 }, \
        { task, "value", "", "", 0, 0 },                            \
        { task, "statement", " key value ", " key value ", 0, 0 },  \
        { task, "question", asked, asked, 0, 0 },                   \
    {                                                               \
        task, "lead", asked, "", 0, 0                               \
    }

static const rule rules[] = {
    { "passkey", "intro", "", "", 0, 0 },
    { "passkey", "value", "", "", 0, 0 },
    { "passkey", "statement", " value ", " value ", 0, 0 },
    { "passkey", "question", "", "", 0, 0 },
    { "passkey", "lead", "", "", 0, 0 },
    NEEDLE("needle", " key "),
    NEEDLE("multikey", " key "),
    { "multikey", "n", "", "", 2, 64 },
    NEEDLE("multivalue", " key "),
    { "multivalue", "n", "", "", 2, 64 },
    NEEDLE("multiquery", " keys "),
    { "multiquery", "n", "", "", 2, 64 },
    { "lookup", "intro", "", "", 0, 0 },
    { "lookup", "key", "", "", 0, 0 },
    { "lookup", "value", "", "", 0, 0 },
    { "lookup", "pairs", "", "", 4, 100000 },
    { "lookup", "open", "", "", 0, 0 },
    { "lookup", "pair", " key value ", " key value ", 0, 0 },
    { "lookup", "between", "", "", 0, 0 },
    { "lookup", "close", "", "", 0, 0 },
    { "lookup", "question", " key ", " key ", 0, 0 },
    { "lookup", "lead", " key ", "", 0, 0 },
    { "variable", "intro", "", "", 0, 0 },
    { "variable", "name", "", "", 0, 0 },
    { "variable", "value", "", "", 0, 0 },
    { "variable", "first", " name value ", " name value ", 0, 0 },
    { "variable", "next", " name from ", " name from ", 0, 0 },
    { "variable", "question", " name ", " name ", 0, 0 },
    { "variable", "lead", " name ", "", 0, 0 },
    { "variable", "chain", "", "", 1, 32 },
    { "variable", "chains", "", "", 1, 64 },
    { "digits", "intro", "", "", 0, 0 },
    { "digits", "value", "", "", 0, 0 },
    { "digits", "statement", " value ", " value ", 0, 0 },
    { "digits", "question", "", "", 0, 0 },
    { "digits", "lead", "", "", 0, 0 },
    { "questions", "intro", "", "", 0, 0 },
    { "questions", "n", "", "", 2, 64 },
    { "multiturn", "intro", "", "", 0, 0 },
    { "multiturn", "n", "", "", 2, 64 },
    { "multiturn", "ack", "", "", 0, 0 },
    { "instructions", "intro", "", "", 0, 0 },
    { "instructions", "word", "", "", 0, 0 },
    { "instructions", "first", " word ", " word ", 0, 0 },
    { "instructions", "second", " word ", " word ", 0, 0 },
    { "instructions", "question", "", "", 0, 0 },
    { "instructions", "lead", "", "", 0, 0 },
    { "toolcall", "intro", "", "", 0, 0 },
    { "toolcall", "title", "", "", 0, 0 },
    { "toolcall", "text", "", "", 0, 0 },
    { "toolcall", "statement", " title text ", " title text ", 0, 0 },
    { "toolcall", "question", " title ", " title ", 0, 0 },
    { "toolcall", "lead", " title ", "", 0, 0 },
    { "toolcall", "call", " title text ", " text ", 0, 0 },
    { "list", "intro", "", "", 0, 0 },
    { "list", "item", "", "", 0, 0 },
    { "list", "statement", " item ", " item ", 0, 0 },
    { "list", "question", " n ", "", 0, 0 },
    { "list", "lead", " n ", "", 0, 0 },
    { "list", "n", "", "", 2, 1000 },
};

static const char *const markup_keys[N_MARKUP] = {
    "system_prefix",    "system_text",      "system_suffix", "user_prefix",   "user_suffix",
    "assistant_prefix", "assistant_suffix", "question",      "next_question", "stop",
};
static const char *const kind_keys[] = { "statement", "question", "lead", "answer" };
static const char *const root_keys[] = { "name", "about", "inherit", "markup",
                                         "talk", "lists", "tasks" };

/* ---- placeholders ------------------------------------------------------------------- */

bool wn_phrases_placeholder(const char *s, size_t *n)
{
    size_t k = 1;
    if (*s != '{') return false;
    while (s[k] >= 'a' && s[k] <= 'z') k++;
    if (k == 1) return false;
    while (s[k] >= '0' && s[k] <= '9') k++;
    *n = k - 1;
    return s[k] == '}';
}

int wn_phrases_digits(const char *name, size_t n)
{
    int v = 0;
    if (n < 2 || n > 4 || *name != 'd') return 0;
    for (size_t i = 1; i < n; i++) {
        if (name[i] < '0' || name[i] > '9') return 0;
        v = 10 * v + name[i] - '0';
    }
    return v <= MAX_DIGITS ? v : 0;
}

static const json_t *list_of(const json_t *root, const char *name, size_t n)
{
    char key[64];
    while (n && name[n - 1] >= '0' && name[n - 1] <= '9') n--;
    if (!n || n >= sizeof key) return NULL;
    memcpy(key, name, n);
    key[n] = '\0';
    return json_object_get(json_object_get(root, "lists"), key);
}

static bool in_names(const char *names, const char *s, size_t n)
{
    char key[64];
    if (n + 3 > sizeof key) return false;
    snprintf(key, sizeof key, " %.*s ", (int)n, s);
    return strstr(names, key) != NULL;
}

/* Each placeholder of a phrase has somebody who fills it in, and none of must is missing. */
static wn_status check_phrase(const json_t *root, const char *name, const char *where,
                              const char *text, const char *own, const char *must, wn_err *err)
{
    size_t n;
    for (const char *s = text; *s; s++) {
        if (!wn_phrases_placeholder(s, &n)) continue;
        if (in_names(own, s + 1, n) || wn_phrases_digits(s + 1, n) || list_of(root, s + 1, n))
            continue;
        return wn_fail(
            err, WN_EFORMAT,
            "template %s: %s: nobody fills in %.*s; use one of [%s], a list of \"lists\" or a "
            "number of digits such as {d5}",
            name, where, (int)WN_MIN(n + 2, (size_t)40), s, own);
    }
    while (*must) {
        size_t k = strcspn(++must, " ");
        char want[64];
        if (!k) break;
        snprintf(want, sizeof want, "{%.*s}", (int)k, must);
        if (!strstr(text, want))
            return wn_fail(err, WN_EFORMAT,
                           "template %s: %s: the phrase misses %s; put it where it belongs", name,
                           where, want);
        must += k;
    }
    return WN_OK;
}

/* ---- checks ------------------------------------------------------------------------- */

static wn_status unknown_keys(const json_t *obj, const char *const *known, size_t n_known,
                              const char *name, const char *where, wn_err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)obj, key, v) {
        size_t i = 0;
        while (i < n_known && strcmp(known[i], key)) i++;
        if (i < n_known) continue;
        char all[160] = "";
        for (i = 0; i < n_known; i++) {
            size_t k = strlen(all);
            snprintf(all + k, sizeof all - k, "%s%s", i ? ", " : "", known[i]);
        }
        return wn_fail(err, WN_EFORMAT, "template %s: %s%s%.60s: no such key; known here: %s", name,
                       where, *where ? "." : "", key, all);
    }
    return WN_OK;
}

static wn_status check_markup(const json_t *root, const char *which, wn_markup *out,
                              const char *name, wn_err *err)
{
    const json_t *m = json_object_get(root, which);
    const char *text[N_MARKUP];
    wn_status st;
    if (!json_is_object(m))
        return wn_fail(
            err, WN_EFORMAT,
            "template %s: %s is missing or no object; write it or inherit it (\"inherit\": "
            "\"base\")",
            name, which);
    if ((st = unknown_keys(m, markup_keys, N_MARKUP, name, which, err))) return st;
    for (int i = 0; i < N_MARKUP; i++)
        if (!(text[i] = json_string_value(json_object_get(m, markup_keys[i]))))
            return wn_fail(err, WN_EFORMAT,
                           "template %s: %s.%s is missing or no string; \"\" is allowed", name,
                           which, markup_keys[i]);
    *out = (wn_markup){ text[0], text[1], text[2], text[3], text[4],    text[5],
                        text[6], text[7], text[8], text[9], .begin = "" };
    return WN_OK;
}

static wn_status check_lists(const json_t *root, const char *name, wn_err *err)
{
    json_t *lists = json_object_get(root, "lists"), *list, *word;
    const char *key;
    size_t i;
    if (!json_is_object(lists))
        return wn_fail(err, WN_EFORMAT,
                       "template %s: lists is missing or no object; write it or inherit it", name);
    json_object_foreach(lists, key, list) {
        if (strspn(key, "abcdefghijklmnopqrstuvwxyz") != strlen(key) || !*key || strlen(key) > 40)
            return wn_fail(err, WN_EFORMAT,
                           "template %s: lists.%.60s: name it with 1 to 40 lower-case letters",
                           name, key);
        if (!json_is_array(list) || json_array_size(list) < 2)
            return wn_fail(err, WN_EFORMAT,
                           "template %s: lists.%s: give an array of two or more words", name, key);
        json_array_foreach(list, i,
                           word) if (!json_is_string(word) ||
                                     !json_string_length(
                                         word)) return wn_fail(err, WN_EFORMAT,
                                                               "template %s: lists.%s: entry %zu "
                                                               "is not a word; write a string",
                                                               name, key, i + 1);
    }
    return WN_OK;
}

/* A question about a fact can be answered only from what the statement says. */
static wn_status check_kinds(const json_t *root, const json_t *kinds, const char *name, wn_err *err)
{
    json_t *k;
    size_t i;
    wn_status st;
    if (!json_is_array(kinds) || !json_array_size(kinds))
        return wn_fail(
            err, WN_EFORMAT,
            "template %s: tasks.questions.kinds is missing or empty; write at least one object "
            "with statement, question, lead, answer",
            name);
    json_array_foreach(kinds, i, k) {
        char where[80];
        const char *said = json_string_value(json_object_get(k, "statement"));
        for (size_t j = 0; j < WN_COUNT(kind_keys); j++) {
            const char *text = json_string_value(json_object_get(k, kind_keys[j]));
            size_t n;
            snprintf(where, sizeof where, "tasks.questions.kinds[%zu].%s", i, kind_keys[j]);
            if (!text || !said)
                return wn_fail(err, WN_EFORMAT,
                               "template %s: %s is missing or no string; write the phrase", name,
                               where);
            if ((st = check_phrase(root, name, where, text, "", "", err))) return st;
            for (const char *s = text; *s; s++) {
                char want[64];
                if (!wn_phrases_placeholder(s, &n) || n + 3 > sizeof want) continue;
                snprintf(want, sizeof want, "%.*s", (int)n + 2, s);
                if (!strstr(said, want))
                    return wn_fail(
                        err, WN_EFORMAT,
                        "template %s: %s: %s is not in the statement, so nobody can know it; "
                        "use its placeholders",
                        name, where, want);
            }
        }
        snprintf(where, sizeof where, "tasks.questions.kinds[%zu]", i);
        if ((st = unknown_keys(k, kind_keys, WN_COUNT(kind_keys), name, where, err))) return st;
        if (!strchr(json_string_value(json_object_get(k, "answer")), '{'))
            return wn_fail(
                err, WN_EFORMAT,
                "template %s: %s.answer is always the same; use a placeholder of the statement",
                name, where);
    }
    return WN_OK;
}

static wn_status check_rule(const json_t *root, const json_t *section, const rule *r,
                            const char *name, wn_err *err)
{
    const json_t *v = json_object_get(section, r->key);
    char where[80];
    snprintf(where, sizeof where, "tasks.%s.%s", r->task, r->key);
    if (!v)
        return wn_fail(err, WN_EFORMAT,
                       "template %s: %s is missing; write it or inherit it (\"inherit\": \"base\")",
                       name, where);
    if (r->max) {
        if (json_is_integer(v) && json_integer_value(v) >= r->min &&
            json_integer_value(v) <= r->max)
            return WN_OK;
        return wn_fail(err, WN_EFORMAT, "template %s: %s: give a whole number from %d to %d", name,
                       where, r->min, r->max);
    }
    if (!json_is_string(v))
        return wn_fail(err, WN_EFORMAT, "template %s: %s: give a string", name, where);
    return check_phrase(root, name, where, json_string_value(v), r->own, r->must, err);
}

static wn_status check_tasks(const json_t *root, const char *name, wn_err *err)
{
    json_t *tasks = json_object_get(root, "tasks"), *section;
    const char *names[WN_COUNT(rules)], *keys[16];
    size_t n_names = 0;
    wn_status st;
    if (!json_is_object(tasks))
        return wn_fail(err, WN_EFORMAT,
                       "template %s: tasks is missing or no object; write it or inherit it", name);
    for (size_t i = 0; i < WN_COUNT(rules);) {
        const char *task = rules[i].task;
        char where[80];
        size_t n = 0;
        names[n_names++] = task;
        section = json_object_get(tasks, task);
        if (!json_is_object(section))
            return wn_fail(err, WN_EFORMAT,
                           "template %s: tasks.%s is missing or no object; write it or inherit it "
                           "(\"inherit\": \"base\")",
                           name, task);
        for (; i < WN_COUNT(rules) && !strcmp(rules[i].task, task); i++) {
            keys[n++] = rules[i].key;
            if ((st = check_rule(root, section, &rules[i], name, err))) return st;
        }
        if (!strcmp(task, "questions")) {
            keys[n++] = "kinds";
            if ((st = check_kinds(root, json_object_get(section, "kinds"), name, err))) return st;
        }
        keys[n++] = "ask";
        keys[n++] = "stop";
        WN_ASSERT(n <= WN_COUNT(keys));
        snprintf(where, sizeof where, "tasks.%s", task);
        if ((st = unknown_keys(section, keys, n, name, where, err))) return st;
        const rule optional[] = {
            { task, "ask", " key keys name title n ", "", 0, 0 }, { task, "stop", "", "", 0, 0 },
        };
        for (size_t j = 0; j < WN_COUNT(optional); j++)
            if (json_object_get(section, optional[j].key) &&
                (st = check_rule(root, section, &optional[j], name, err))) return st;
    }
    return unknown_keys(tasks, names, n_names, name, "tasks", err);
}

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
    if ((st = unknown_keys(root, root_keys, WN_COUNT(root_keys), name, "", err))) goto fail;
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
    if ((st = check_markup(p->root, "markup", &p->markup, name, err))) goto fail;
    if (!json_object_get(p->root, "talk")) p->talk = p->markup;
    else if ((st = check_markup(p->root, "talk", &p->talk, name, err))) goto fail;
    if ((st = check_lists(p->root, name, err))) goto fail;
    if ((st = check_tasks(p->root, name, err))) goto fail;
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
    return (int)json_array_size(list_of(p->root, list, n_list));
}

const char *wn_phrases_word(const wn_phrases *p, const char *list, size_t n_list, int i)
{
    return json_string_value(json_array_get(list_of(p->root, list, n_list), (size_t)i));
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
