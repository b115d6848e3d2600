/* attention/fetch.h - what is fetched from memory while a split is worked on.
 *
 * Of raw pages the next page with each: a stream that the machine follows. Work on encoded pages
 * takes about as long as reading them, and both go on at the same time only where lines are asked
 * for evenly, by all there is to do, softmax too: a core waits for 16 at a time, and while it does
 * nothing else comes in. So of them the next split, K and V, is fetched a line or two at a time.
 */
#ifndef WN_ATTENTION_FETCH_H
#define WN_ATTENTION_FETCH_H

#include "attention/block.h"

/* For a split of pages that are read several at a time, sets f to the frames of the split that
 * comes next (NULL: none) and says whether there is something to fetch; for others each part of g
 * says what goes with it. */
bool wn_block_plan_fetches(const wn_block *b, const wn_desk *d, wn_gathered *g,
                           const wn_gathered *next, wn_fetcher *f);

#endif
