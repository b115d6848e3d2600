/* page/cq.h - where the numbers of a coupled format's book lie; cq.c has the format. */
#ifndef WN_PAGE_CQ_H
#define WN_PAGE_CQ_H

#include "page/book.h"

enum { WN_CQ_POINTS = 255, WN_CQ_SPOILED = 255 };       /* codes of points; of a slot that is not
                                                           finite */

static inline int wn_cq_groups(int c, int head_dim) { return (head_dim + c - 1) / c; }
/* How much a channel's error counts: (head_dim), then the points of each group, (255, c). */
static inline size_t wn_cq_points_at(int c, int head_dim, int group)
{
    return (size_t)head_dim + (size_t)group * WN_CQ_POINTS * (size_t)c;
}
static inline size_t wn_cq_numbers(int c, int head_dim)
{
    return wn_cq_points_at(c, head_dim, wn_cq_groups(c, head_dim));
}
/* Where a group's points lie in what reading goes by, in halves: (256, c), the points in front. */
static inline size_t wn_cq_read_at(int c, int group)
{
    return (size_t)group * (WN_CQ_POINTS + 1) * (size_t)c;
}

/* Channels coupled in one code; 0: not a coupled format. */
int wn_cq_coupled(const wn_format *f);
/* The points of a group for kernel/lookup.h: scaled by the channels' weights, (c, 256). */
void wn_cq_table(float *table, const float *points, const float *weights, int c, int n);

#endif
