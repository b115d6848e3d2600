/* eval/task_variable.c - values passed on from variable to variable.
 *
 * RULER's variable tracking: VAR X1 = 12345, further on VAR X2 = VAR X1, and so on; the value of
 * the last variable is asked for. An answer needs every link, and no link mentions the
 * question. Other chains make sure that the only value around is not the answer. With a
 * chain of one the task is a look-up among assignments.
 */
#include "eval/tasks.h"

#include <string.h>

#include "eval/draft.h"

/* A name that no statement mentions yet. */
static const char *fresh_name(wn_draft *d, wn_binds *b)
{
    for (int tries = 0;; tries++) {
        wn_binds t = { 0 };
        const char *name = wn_draft_draw(d, &t, "name");
        if (!wn_draft_fresh(d, "", NULL, name, tries)) continue;
        wn_draft_bind(d, b, "name", name);
        return name;
    }
}

/* Links lie in order, each between the one before and the end. Returns the last name; *value: of
 * all. */
static const char *add_chain(wn_draft *d, int n, double at, const char **value)
{
    const char *name = "", *from = "", *statement;
    for (int i = 0; i < n && !d->st; i++) {
        int tries = 0;
        wn_binds b;
        do {
            b = (wn_binds){ 0 };
            name = fresh_name(d, &b);
            if (i) wn_draft_bind(d, &b, "from", from);
            else
                *value = wn_draft_draw(d, &b, "value");
            statement = wn_draft_phrase(d, &b, i ? "next" : "first");
        } while (!i && !wn_draft_fresh(d, statement, NULL, *value, tries++));
        wn_draft_said(d, statement, i ? "" : *value);
        wn_draft_fact(d, at, statement, false);
        at += (1 - at) * wn_draft_unit(d);
        from = name;
    }
    return name;
}

static void build_variable(wn_draft *d)
{
    const char *value = "", *other;
    double at = wn_draft_depth(d);
    int chain = wn_draft_number(d, "chain", 1), chains = wn_draft_number(d, "chains", 1);
    wn_binds b = { 0 };
    const char *name = add_chain(d, chain, at, &value);
    for (int i = 1; i < chains && !d->st; i++) add_chain(d, chain, wn_draft_unit(d), &other);
    wn_draft_bind(d, &b, "name", name);
    wn_draft_ask(d, &b, WN_SCORE_VALUES);
    wn_draft_expect(d, value);
}

WN_TASK(variable, "values handed on through assignments; the last variable's is asked for", true);
