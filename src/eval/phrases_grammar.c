/* eval/phrases_grammar.c - what a template may say, and who would read it: see phrases_grammar.h.
 *
 * The table below is the whole grammar: a task's section may hold these keys, each with the
 * placeholders the task fills in ("own") and those without which the phrase would be useless
 * ("must"). A mistyped key or placeholder would otherwise turn into a question that cannot
 * be answered, and look like a loss of quality.
 */
#include "eval/phrases_grammar.h"

#include <stdio.h>
#include <string.h>

enum { N_MARKUP = 10, MAX_DIGITS = 512 };

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

const json_t *wn_template_list(const json_t *root, const char *name, size_t n)
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
        if (in_names(own, s + 1, n) || wn_phrases_digits(s + 1, n) ||
            wn_template_list(root, s + 1, n))
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
        json_array_foreach(list, i, word) {
            if (json_is_string(word) && json_string_length(word)) continue;
            return wn_fail(err, WN_EFORMAT,
                           "template %s: lists.%s: entry %zu is not a word; write a string", name,
                           key, i + 1);
        }
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

/* ---- the whole -------------------------------------------------------------------------- */

wn_status wn_template_check_keys(const json_t *root, const char *name, wn_err *err)
{
    return unknown_keys(root, root_keys, WN_COUNT(root_keys), name, "", err);
}

wn_status wn_template_check(const json_t *root, const char *name, wn_markup *markup,
                            wn_markup *talk, wn_err *err)
{
    wn_status st = check_markup(root, "markup", markup, name, err);
    if (st) return st;
    if (!json_object_get(root, "talk")) *talk = *markup;
    else if ((st = check_markup(root, "talk", talk, name, err))) return st;
    if ((st = check_lists(root, name, err))) return st;
    return check_tasks(root, name, err);
}
