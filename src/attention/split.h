/* attention/split.h - a block's queries against one split that has been gathered.
 *
 * From entries to an answer: logits[row][entry], with soft cap, bias and mask; the row's maximum
 * m, weights exp(logit - m) in place of the logits, their sum l; acc, the weights' products
 * with V. All of them lie on the desk and are of this split alone: who walks (block.c) merges
 * them, who accounts (account.c) brings them to the whole row's maximum and sum. A split that is
 * done once more gives the same bits.
 */
#ifndef WN_ATTENTION_SPLIT_H
#define WN_ATTENTION_SPLIT_H

#include "attention/gather.h"

/* Entries of a split that a row looks at; dense: those it sees. */
typedef struct { int from, to; } wn_entries;

static inline wn_entries wn_split_seen_by(const wn_block *b, const wn_gathered *g, int r)
{
    if (!g->dense) return (wn_entries){ g->begin, g->end };
    int32_t first = g->base + g->index[g->begin], p = b->pos0 + r;     /* of entry begin */
    int lo = wn_lowest_seen(b, p) - first, hi = p - first + 1;
    return (wn_entries){ g->begin + WN_MAX(lo, 0), WN_MIN(g->end, g->begin + hi) };
}

/* The block's queries, scaled and turned to their positions, onto the desk: once, before its
 * splits. */
void wn_block_start_queries(const wn_block *b, wn_desk *d);

/* Logits; logits, then weights, m and l. */
void wn_split_score(const wn_block *b, wn_desk *d, const wn_gathered *g);
void wn_split_weigh(const wn_block *b, wn_desk *d, const wn_gathered *g);
/* Weights, m, l and acc; next: the split that is answered after it, or NULL. Its frames are
 * fetched meanwhile. */
void wn_split_answer(const wn_block *b, wn_desk *d, wn_gathered *g, const wn_gathered *next);

#endif
