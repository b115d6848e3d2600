/* eval/explain.h - what became of a range of the text: which heads dropped it, when, by which
 * rule and with which score, and who still holds it.
 *
 * Told decision by decision what a policy was shown and what it said; remembers what concerns
 * the range and nothing else, so a long run can be explained in little memory. Lanes of
 * sliding-window layers, which forget by themselves, are left out.
 */
#ifndef WN_EVAL_EXPLAIN_H
#define WN_EVAL_EXPLAIN_H

#include "policy/policy.h"

#include <stdio.h>

/* A decision that took slots of the range away. */
typedef struct {
    int at;                             /* it was taken after so many tokens */
    char rule[40];                      /* the recipe */
    int64_t dropped, merged;            /* slots of the range, all lanes; merged: into another
                                           slot */
    int32_t *there, *taken;             /* (n_lanes) slots of the range before, and dropped or
                                           merged now */
    bool scored;                        /* the rest holds; over all slots that were dropped */
    float least, most;                  /* scores */
    int first_rank, last_rank;          /* 1: the slot that stays before all others; ties go by
                                           position */
    int least_n, most_n;                /* live slots of the lanes that dropped some */
    int64_t least_keep, most_keep;      /* how many of them stay */
} wn_explain_event;

typedef struct wn_explain wn_explain;

/* Positions [from, to). */
wn_status wn_explain_open(wn_explain **out, const wn_view_lane *lanes, int n_lanes, int from,
                          int to, wn_err *err);
void wn_explain_close(wn_explain *x);   /* NULL is fine */
/* A decision; verdicts may be NULL (no scores). */
wn_status wn_explain_note(wn_explain *x, const wn_policy *p, const wn_view *v,
                          const wn_verdict *verdicts, const wn_plan *plan, wn_err *err);

int wn_explain_n(const wn_explain *x);
const wn_explain_event *wn_explain_at(const wn_explain *x, int i);
/* Is there a slot at this position of the range after the last decision? */
bool wn_explain_holds(const wn_explain *x, int lane, int pos);
/* For people; n_tokens is the length of the text. */
void wn_explain_print(const wn_explain *x, FILE *f, int n_tokens);

#endif
