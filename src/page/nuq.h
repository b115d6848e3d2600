/* page/nuq.h - where the numbers of a book of unequal levels lie; nuq.c has the formats. */
#ifndef WN_PAGE_NUQ_H
#define WN_PAGE_NUQ_H

#include "page/book.h"

enum { WN_NUQ_LEVELS = 16, WN_NUQ_BLOCK = 64 };         /* room for levels; channels that share a
                                                           scale (V), a sparse number */

/* K: of each channel how much its error counts, the middle of its range, half the range's width;
 * then the levels.
 * V: the levels. They ascend, within -1 and 1; of 3 and 2 bits the first 8 and 4 count. */
static inline size_t wn_nuq_weights_at(void) { return 0; }
static inline size_t wn_nuq_middles_at(int head_dim) { return (size_t)head_dim; }
static inline size_t wn_nuq_halves_at(int head_dim) { return 2 * (size_t)head_dim; }
static inline size_t wn_nuq_levels_at(int head_dim, bool of_v)
{
    return of_v ? 0 : 3 * (size_t)head_dim;
}
static inline size_t wn_nuq_numbers(int head_dim, bool of_v)
{
    return wn_nuq_levels_at(head_dim, of_v) + WN_NUQ_LEVELS;
}

/* 4, 3, 2; 0: no such format. *sparse: one number of 64 channels is kept beside the codes. */
int wn_nuq_bits(const wn_format *f, bool *sparse);

#endif
