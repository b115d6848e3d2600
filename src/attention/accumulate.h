/* attention/accumulate.h - what each slot has got of the attention of all queries.
 *
 * Every query brings the numbers (ledger.h says where they are) of every slot that it sees up to
 * date, in the order of the queries' positions; wn_stat in winnow_policy.h says what each statistic
 * does with a weight. A slot is seen first by the query at its own position, which begins its
 * numbers anew: what stood there before, of a text that was taken back, does not matter.
 * Slots have nothing to do with each other, so splits can be brought up to date one after the other
 * or side by side. So a slot's numbers are a chain over the queries from its own on, whatever
 * chunks, threads and neighbours they came with.
 *
 * A merged slot goes on with the numbers of the position it stands at; those of its other
 * sources end with them.
 */
#ifndef WN_ATTENTION_ACCUMULATE_H
#define WN_ATTENTION_ACCUMULATE_H

#include "attention/ledger.h"

/* One query's weights on slots of a split, each slot once, reduced over the heads of the group. */
typedef struct {
    int32_t query;                      /* its position */
    int group;
    float even;                         /* 1 / slots that the query sees in all */
    int32_t base;                       /* position of index 0 */
    const int16_t *index;               /* (n) */
    int32_t place;                      /* in the rows: of rank 0 */
    const int16_t *rank;                /* (n); NULL: 0, 1, 2 .., indices ascend */
    int n;                              /* at most 512 */
    const float *mean, *max;            /* (n); max may be NULL when wn_ledger_wants_max() says
                                           no */
} wn_weights;

bool wn_ledger_wants_max(const wn_ledger *g);
/* Entries that the query does not see are passed over. */
void wn_ledger_add(const wn_ledger *g, int lane, const wn_weights *w);

#endif
