/* attention/gather.h - which slots of a split does a block read?
 *
 * A lane's runs (cache/kv.h), clipped to what anyone in the block may see and taken apart into
 * stretches of neighbours, split by split. What a page's dead slots are is settled here:
 * behind it there are stretches to score and mix, and entries with positions.
 */
#ifndef WN_ATTENTION_GATHER_H
#define WN_ATTENTION_GATHER_H

#include "attention/block.h"

typedef struct {
    wn_run_iter it;
    wn_run run;
    bool more;
    int32_t lo, hi;                     /* positions anyone in the block may see: [lo, hi) */
    const wn_format *raw_k, *raw_v;
} wn_walk;

/* The first position that the query at p sees. */
static inline int32_t wn_lowest_seen(const wn_block *b, int32_t p)
{
    int window = b->args->window;
    return window > 0 && p - window + 1 > 0 ? p - window + 1 : 0;
}

/* The lane's splits from `from` on; next fills place 0 or 1 with the split that comes, false at
 * `to`. */
wn_walk wn_walk_begin(const wn_block *b, int from);
bool wn_walk_next(const wn_block *b, const wn_desk *d, int place, wn_walk *w, int to,
                  wn_gathered *g, int *split);

#endif
