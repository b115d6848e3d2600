/* eval/task_questions.c - several questions about one text, and a conversation.
 *
 * Both use the template's kinds of fact (who found what, where something is ...). questions:
 * all facts in one context, each asked of that context alone; a policy that keeps what the
 * first question needs shows itself at the second (SCBench's multi-query mode). multiturn: one
 * fact in each early turn of a conversation, acknowledged by the assistant, then all asked
 * for one after the other; answers stay in the cache, as in a chat.
 */
#include "eval/tasks.h"

#include <string.h>

#include "eval/draft.h"

typedef struct { const char *statement, *question, *lead, *answer; } asked;

static asked draw_fact(wn_draft *d)
{
    asked f;
    int tries = 0;
    do {
        wn_kind k = wn_phrases_kind(d->p, wn_draft_below(d, wn_phrases_n_kinds(d->p)));
        wn_binds b = { 0 };
        f.question = wn_draft_expand(d, &b, k.question);
        f.lead = wn_draft_expand(d, &b, k.lead);
        f.answer = wn_draft_expand(d, &b, k.answer);
        f.statement = wn_draft_expand(d, &b, k.statement);
        /* No two facts are asked for with the same words, and no question gives its answer away. */
        for (int i = 0; i < d->n_turns && !d->st; i++)
            if (wn_word_find(d->turns[i].ask, d->turns[i].ask,
                             d->turns[i].ask + strlen(d->turns[i].ask), f.question, true))
                f.answer = "";
        if (wn_word_find(f.question, f.question, f.question + strlen(f.question), f.answer, true))
            f.answer = "";
    } while (!wn_draft_fresh(d, f.statement, NULL, f.answer, tries++));
    wn_draft_said(d, f.statement, f.answer);
    wn_draft_ask_with(d, f.question, f.lead, WN_SCORE_VALUES);
    wn_draft_expect(d, f.answer);
    return f;
}

static void build_questions(wn_draft *d)
{
    int n = wn_draft_number(d, "n", 2);
    d->apart = true;
    for (int i = 0; i < n && !d->st; i++) {
        asked f = draw_fact(d);
        wn_draft_fact(d, wn_draft_unit(d), f.statement, false);
    }
}

/* Each fact ends the user's message; what follows in the filler opens the next one. */
static void build_multiturn(wn_draft *d)
{
    int n = wn_draft_number(d, "n", 2);
    wn_binds none = { 0 };
    d->markup = wn_phrases_talk(d->p);
    d->closed = true;
    for (int i = 0; i < n && !d->st; i++) {
        wn_strbuf s = { 0 };
        asked f = draw_fact(d);
        wn_strbuf_puts(&s, f.statement);
        wn_strbuf_puts(&s, d->markup->user_suffix);
        wn_draft_answer(d, &s, wn_draft_phrase(d, &none, "ack"));
        wn_strbuf_puts(&s, d->markup->assistant_suffix);
        if (i < n - 1) wn_strbuf_puts(&s, d->markup->user_prefix);
        wn_draft_fact(d, (double)(i + 1) / n, wn_draft_keep(d, &s), false);
    }
}

WN_TASK(questions, "several questions, each about the same text alone", false);
WN_TASK(multiturn, "facts from early turns of a conversation, asked for in later ones", false);
