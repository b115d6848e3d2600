/* eval/task_copy.c - answers that must be copied, all of them, to the last character.
 *
 * One needle can survive in a cache that has lost most of its sentence; a copy needs every
 * token. digits: a number far too long to be guessed, scored by how far the copy is right.
 * toolcall: a note that becomes the argument of a tool call, where one wrong character makes
 * another call. list: items all over the text, written one after the other; the cache
 * must hold them all, and remember which ones were written already.
 */
#include "eval/tasks.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "eval/draft.h"

static void build_digits(wn_draft *d)
{
    wn_binds b;
    double at = wn_draft_depth(d);
    wn_draft_pair x = wn_draft_new(d, &b, NULL, "value", "statement");
    if (x.answer[strspn(x.answer, "0123456789")])
        wn_draft_fail(
            d, WN_EFORMAT,
            "the template's tasks.digits.value is \"%.40s\" and not digits alone; write {d48}",
            x.answer);
    wn_draft_fact(d, at, x.statement, false);
    wn_draft_ask(d, &b, WN_SCORE_DIGITS);
    wn_draft_expect(d, x.answer);
}

static void build_toolcall(wn_draft *d)
{
    wn_binds b;
    double at = wn_draft_depth(d);
    wn_draft_fact(d, at, wn_draft_new(d, &b, "title", "text", "statement").statement, false);
    const char *call = wn_draft_phrase(d, &b, "call");
    json_error_t je;
    json_t *parsed = json_loads(call, 0, &je);
    if (!parsed && !d->st)
        wn_draft_fail(d, WN_EFORMAT,
                      "the template's tasks.toolcall.call becomes no JSON object or array: %.100s",
                      je.text);
    json_decref(parsed);
    wn_draft_ask(d, &b, WN_SCORE_JSON);
    wn_draft_expect(d, call);
}

static void build_list(wn_draft *d)
{
    wn_binds b = { 0 };
    wn_strbuf s = { 0 };
    char digits[16];
    int n = wn_draft_number(d, "n", 2);
    for (int i = 0; i < n && !d->st; i++) {
        double at = ((double)i + wn_draft_unit(d)) / n;
        wn_draft_pair x = wn_draft_new(d, &b, NULL, "item", "statement");
        wn_draft_said(d, x.statement, x.answer);
        wn_draft_fact(d, at, x.statement, false);
    }
    snprintf(digits, sizeof digits, "%d", n);
    wn_strbuf_puts(&s, digits);
    b = (wn_binds){ 0 };
    wn_draft_bind(d, &b, "n", wn_draft_keep(d, &s));
    wn_draft_ask(d, &b, WN_SCORE_LIST);
    for (int i = 0; i < d->n_said; i++) wn_draft_expect(d, d->said[i].answer);
}

WN_TASK(digits, "a long number, copied exactly", true);
WN_TASK(toolcall, "a tool call in JSON with a long argument, copied exactly", true);
WN_TASK(list, "a list scattered over the text, written without repeats", false);
