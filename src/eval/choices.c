/* eval/choices.c - multiple choice questions from a file of JSON lines.
 *
 * One object a line; blank lines are allowed. As with templates, what is not understood is
 * refused with its line: a key "contxt" that is skipped silently would turn a reading
 * test into a guessing game.
 */
#include "eval/choices.h"

#include <jansson.h>
#include <string.h>

#include "base/alloc.h"
#include "base/os.h"

enum { MAX_CHOICES = 64 };

static void release(wn_choice *c)
{
    wn_free(c->context);
    wn_free(c->question);
    for (int i = 0; i < c->n_choices; i++) wn_free(c->choices[i]);
    wn_free(c->choices);
    *c = (wn_choice){ 0 };
}

void wn_choices_release(wn_choice *c, int n)
{
    for (int i = 0; i < n; i++) release(&c[i]);
    wn_free(c);
}

static wn_status check(const json_t *o, const char *name, int line, wn_err *err)
{
    const json_t *choices = json_object_get(o, "choices"), *answer = json_object_get(o, "answer");
    const json_t *context = json_object_get(o, "context");
    size_t n = json_array_size(choices);
    const char *key;
    json_t *v;
    if (!json_is_object(o))
        return wn_fail(
            err, WN_EFORMAT,
            "%s, line %d: not a JSON object; write {\"question\", \"choices\", \"answer\"}", name,
            line);
    json_object_foreach(
        (json_t *)(uintptr_t)o, key,
        v) if (strcmp(key, "question") && strcmp(key, "choices") && strcmp(key, "answer") &&
               strcmp(key, "context")) return wn_fail(err, WN_EFORMAT,
                                                      "%s, line %d: %.60s: no such key; known are "
                                                      "context, question, choices, answer",
                                                      name, line, key);
    if (!json_string_length(json_object_get(o, "question")))
        return wn_fail(err, WN_EFORMAT,
                       "%s, line %d: question is missing or no text; write a string", name, line);
    if (context && !json_is_string(context))
        return wn_fail(err, WN_EFORMAT,
                       "%s, line %d: context is no text; write a string or leave it out", name,
                       line);
    if (n < 2 || n > MAX_CHOICES)
        return wn_fail(err, WN_EFORMAT,
                       "%s, line %d: choices is not a list of 2 to %d strings; write one", name,
                       line, MAX_CHOICES);
    for (size_t i = 0; i < n; i++)
        if (!json_string_length(json_array_get(choices, i)))
            return wn_fail(err, WN_EFORMAT,
                           "%s, line %d: choices: entry %zu is empty or no text; write a string",
                           name, line, i + 1);
    if (!json_is_integer(answer) || json_integer_value(answer) < 0 ||
        json_integer_value(answer) >= (json_int_t)n)
        return wn_fail(err, WN_EFORMAT,
                       "%s, line %d: answer is not the number of a choice; write 0 to %zu", name,
                       line, n - 1);
    return WN_OK;
}

static bool copy(wn_choice *c, const json_t *o)
{
    const json_t *choices = json_object_get(o, "choices"), *context = json_object_get(o, "context");
    int n = (int)json_array_size(choices);
    c->answer = (int)json_integer_value(json_object_get(o, "answer"));
    c->question = wn_strdup(json_string_value(json_object_get(o, "question")));
    if (context && !(c->context = wn_strdup(json_string_value(context)))) return false;
    c->choices = WN_NEW_ARRAY(char *, n);
    if (!c->question || !c->choices) return false;
    for (; c->n_choices < n; c->n_choices++) {
        const char *s = json_string_value(json_array_get(choices, (size_t)c->n_choices));
        if (!(c->choices[c->n_choices] = wn_strdup(s))) return false;
    }
    return true;
}

static wn_status parse_line(wn_choice *c, const char *s, size_t n, const char *name, int line,
                            wn_err *err)
{
    json_error_t je;
    json_t *o = json_loadb(s, n, JSON_REJECT_DUPLICATES, &je);
    wn_status st;
    if (!o)
        return wn_fail(err, WN_EFORMAT,
                       "%s, line %d: not JSON: %.160s; each line holds one whole object", name,
                       line, je.text);
    st = check(o, name, line, err);
    if (!st && !copy(c, o)) st = wn_fail(err, WN_ENOMEM, "%s, line %d: out of memory", name, line);
    json_decref(o);
    return st;
}

wn_status wn_choices_parse(wn_choice **out, int *n, const char *text, size_t n_text,
                           const char *name, wn_err *err)
{
    wn_choice *all = NULL;
    int k = 0, cap = 0, line = 1;
    wn_status st = WN_OK;
    *out = NULL;
    *n = 0;
    for (const char *s = text, *end = text + n_text; s < end; line++) {
        const char *e = memchr(s, '\n', (size_t)(end - s));
        const char *from = s, *to = e ? e : end;
        s = e ? e + 1 : end;
        while (from < to && (*from == ' ' || *from == '\t' || *from == '\r')) from++;
        if (from == to) continue;
        if (k == cap) {
            cap = 2 * cap + 16;
            wn_choice *more = wn_realloc(all, (size_t)cap * sizeof *more);
            if (!more) {
                st = wn_fail(err, WN_ENOMEM, "%s: out of memory for %d questions", name, cap);
                goto fail;
            }
            all = more;
        }
        all[k] = (wn_choice){ 0 };
        k++;
        if ((st = parse_line(&all[k - 1], from, (size_t)(to - from), name, line, err))) goto fail;
    }
    if (!k) {
        st = wn_fail(err, WN_EFORMAT, "%s: no questions; write one JSON object a line", name);
        goto fail;
    }
    *out = all;
    *n = k;
    return WN_OK;
fail:
    wn_choices_release(all, k);
    return st;
}

wn_status wn_choices_load(wn_choice **out, int *n, const char *path, wn_err *err)
{
    wn_os_file f;
    wn_status st;
    *out = NULL;
    *n = 0;
    if ((st = wn_os_file_open(&f, path, err))) return wn_fail_prefix(err, st, "choices");
    st = wn_choices_parse(out, n, (const char *)f.data, f.size, path, err);
    wn_os_file_close(&f);
    return st;
}
