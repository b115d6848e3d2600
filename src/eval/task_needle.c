/* eval/task_needle.c - one sentence in a haystack, and its variations.
 *
 * passkey is the oldest of these tests (Mohtashami and Jaggi, 2023); the other four are the
 * needles of RULER (Hsieh et al., 2024, section 3): one needle; several of which one is asked
 * for, so that finding any number is not enough; several values of one key, all asked
 * for; several keys, all asked for. The needle that is asked for first lies at the depth
 * wanted, the others anywhere.
 */
#include "eval/tasks.h"

#include "eval/draft.h"

/* A needle with a fresh value, and a fresh key unless key is given. */
static void add_needle(wn_draft *d, wn_binds *b, const char *key, double at)
{
    const char *statement, *value, *own = NULL;
    int tries = 0;
    do {
        *b = (wn_binds){ 0 };
        if (key) wn_draft_bind(d, b, "key", key);
        else
            own = wn_draft_draw(d, b, "key");
        value = wn_draft_draw(d, b, "value");
        statement = wn_draft_phrase(d, b, "statement");
    } while (!wn_draft_fresh(d, statement, own, value, tries++));
    wn_draft_said(d, statement, value);
    wn_draft_fact(d, at, statement, false);
}

static void build_passkey(wn_draft *d)
{
    wn_binds b;
    double at = wn_draft_depth(d);
    wn_draft_pair x = wn_draft_new(d, &b, NULL, "value", "statement");
    wn_draft_fact(d, at, x.statement, false);
    wn_draft_ask(d, &b, WN_SCORE_VALUES);
    wn_draft_expect(d, x.answer);
}

static void build_needle(wn_draft *d)
{
    wn_binds b;
    add_needle(d, &b, NULL, wn_draft_depth(d));
    wn_draft_ask(d, &b, WN_SCORE_VALUES);
    wn_draft_expect(d, wn_draft_bound(&b, "value"));
}

static void build_multikey(wn_draft *d)
{
    wn_binds b, other;
    add_needle(d, &b, NULL, wn_draft_depth(d));
    for (int i = 1, n = wn_draft_number(d, "n", 2); i < n && !d->st; i++)
        add_needle(d, &other, NULL, wn_draft_unit(d));
    wn_draft_ask(d, &b, WN_SCORE_VALUES);
    wn_draft_expect(d, wn_draft_bound(&b, "value"));
}

static void build_multivalue(wn_draft *d)
{
    wn_binds b, other;
    int first = d->n_said;
    add_needle(d, &b, NULL, wn_draft_depth(d));
    for (int i = 1, n = wn_draft_number(d, "n", 2); i < n && !d->st; i++)
        add_needle(d, &other, wn_draft_bound(&b, "key"), wn_draft_unit(d));
    wn_draft_ask(d, &b, WN_SCORE_VALUES);
    for (int i = first; i < d->n_said; i++) wn_draft_expect(d, d->said[i].answer);
}

static void build_multiquery(wn_draft *d)
{
    wn_binds b;
    wn_strbuf keys = { 0 };
    int n = wn_draft_number(d, "n", 2);
    for (int i = 0; i < n && !d->st; i++) {
        add_needle(d, &b, NULL, i ? wn_draft_unit(d) : wn_draft_depth(d));
        wn_strbuf_puts(&keys, !i ? "" : i < n - 1 ? ", " : n > 2 ? ", and " : " and ");
        wn_strbuf_puts(&keys, wn_draft_bound(&b, "key"));
    }
    wn_draft_bind(d, &b, "keys", wn_draft_keep(d, &keys));
    wn_draft_ask(d, &b, WN_SCORE_VALUES);
    for (int i = 0; i < d->n_said; i++) wn_draft_expect(d, d->said[i].answer);
}

WN_TASK(passkey, "a pass key said once in a long text", true);
WN_TASK(needle, "the number of a key, said in one sentence of a long text", true);
WN_TASK(multikey, "several keys with a number each; one is asked for", true);
WN_TASK(multivalue, "several numbers of one key; all are asked for", true);
WN_TASK(multiquery, "several keys with a number each; all are asked for", true);
