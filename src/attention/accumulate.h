/* attention/accumulate.h - what each slot has got of the attention of all queries.
 *
 * A ledger has numbers by position, a row for each lane and statistic (wn_stat in winnow_policy.h
 * says what each does with a weight). Every query brings every slot that it sees up to date, in the
 * order of the queries' positions. A slot is seen first by the query at its own position, which
 * begins its numbers anew: what stood there before, of a text that was taken back, does not matter.
 * Slots have nothing to do with each other, so splits can be brought up to date one after the other
 * or side by side. So a slot's numbers are a chain over the queries from its own on, whatever
 * chunks, threads and neighbours they came with.
 *
 * A merged slot goes on with the numbers of the position it stands at; those of its other
 * sources end with them. Dropped slots keep theirs, and nobody looks.
 */
#ifndef WN_ATTENTION_ACCUMULATE_H
#define WN_ATTENTION_ACCUMULATE_H

#include "base/err.h"
#include "winnow_policy.h"

typedef struct {
    const wn_stat *stats;
    int n_stats;                        /* 0: nothing is kept */
    float *x;                           /* (n_lanes, n_stats, stride) by position */
    size_t stride;
} wn_ledger;

static inline float *wn_ledger_row(const wn_ledger *g, int lane, int stat)
{
    return g->x + ((size_t)lane * (size_t)g->n_stats + (size_t)stat) * g->stride;
}

/* One query's weights on slots of a lane, each slot once, reduced over the heads of the group. */
typedef struct {
    int32_t query;                      /* its position */
    int group;
    float even;                         /* 1 / slots that the query sees in all */
    int32_t base;                       /* position of index 0 */
    const int16_t *index;               /* (n) */
    bool dense;                         /* the indices are neighbours */
    int n;                              /* at most 512 */
    const float *mean, *max;            /* (n); max may be NULL when wn_ledger_wants_max() says
                                           no */
} wn_weights;

bool wn_ledger_wants_max(const wn_ledger *g);
/* Entries that the query does not see are passed over. */
void wn_ledger_add(const wn_ledger *g, int lane, const wn_weights *w);

#endif
