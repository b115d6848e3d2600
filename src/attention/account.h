/* attention/account.h - the weights of a block's rows, handed to the item's ledger.
 *
 * What a weight is worth is known only behind the last split, when the row's maximum M and sum
 * L are: w exp(m - M) / L. So a block that keeps leaves the weights and maxima of its last splits
 * where they were computed, each in a place of its own, as many as the desk has (n_kept). Those of
 * earlier splits are computed again: the same bits.
 *
 *     forget     no split is there yet
 *     desk       where the split's logits and maxima go     answer it
 *     put        it is there                                merge it
 *     account    behind the last split, before anything else uses the desk
 *
 * Of a block that does not keep, these leave everything as it is.
 */
#ifndef WN_ATTENTION_ACCOUNT_H
#define WN_ATTENTION_ACCOUNT_H

#include "attention/block.h"

void wn_kept_forget(const wn_block *b, wn_desk *d);
/* The desk for a split: one whose weights are to stay has logits and maxima of its own. */
wn_desk wn_kept_desk(const wn_block *b, const wn_desk *d, int split);
void wn_kept_put(const wn_block *b, wn_desk *d, const wn_gathered *g, int split);

/* Hands the weights of the block's rows to the item's ledger, row by row in order. Behind
 * wn_block_run() of a block that keeps, or of all rows again, for splits [from, to) and with the
 * maxima and sums that finish left in ml: the same bits. */
void wn_block_account(const wn_block *b, wn_desk *d);
void wn_block_account_again(const wn_block *b, wn_desk *d, const float *ml, int from, int to);

#endif
