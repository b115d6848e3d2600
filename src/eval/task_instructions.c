/* eval/task_instructions.c - two instructions, of which neither may be lost.
 *
 * Compression can drop one of several instructions while everything else still reads well,
 * and which one is lost depends on where it stands (Chen et al., "The Pitfalls of KV Cache
 * Compression", 2025). The first stands where depth says, the second at the beginning, in the
 * middle or at the end; without a depth the first is drawn from these three too. Each
 * asks for a word that nothing else would bring into the answer, so the share of
 * the two words found is the share of instructions followed.
 */
#include "eval/tasks.h"

#include "eval/draft.h"

static void build_instructions(wn_draft *d)
{
    static const char *const keys[2] = { "first", "second" };
    wn_binds none = { 0 };
    d->chatter = 64;                    /* a sentence */
    for (int i = 0; i < 2 && !d->st; i++) {
        wn_binds b;
        double at = 0.5 * wn_draft_below(d, 3);
        if (!i && d->o->depth >= 0) at = d->o->depth;
        wn_draft_pair x = wn_draft_new(d, &b, NULL, "word", keys[i]);
        wn_draft_said(d, x.statement, x.answer);
        wn_draft_fact(d, at, x.statement, false);
    }
    wn_draft_ask(d, &none, WN_SCORE_VALUES);
    for (int i = 0; i < d->n_said; i++) wn_draft_expect(d, d->said[i].answer);
}

WN_TASK(instructions, "two instructions in the text, both to be followed", true);
