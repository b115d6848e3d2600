/* eval/levels.h - unequal levels of least error for the rows of one side of a lane (page/nuq.c).
 *
 * Numbers are brought to -1 .. 1 first: of K by the range of their channel, of V by the largest
 * magnitude of their slot and 64 channels. What is left is one density, a histogram with a weight
 * for each number, and levels are found in it as k-means would, from its quantiles on. K's ranges
 * leave out a share of the numbers at either end; some shares are tried, and the one with the least
 * error stays. Everything is summed in the order of rows: the same rows give the same levels on any
 * number of threads.
 */
#ifndef WN_EVAL_LEVELS_H
#define WN_EVAL_LEVELS_H

#include "base/threads.h"
#include "page/nuq.h"

typedef struct {
    const uint16_t *rows;               /* (n, dim) halves */
    const float *weight;                /* (n) of rows */
    int n, dim, bits;
    bool of_v, sparse;                  /* a number of each 64 channels is kept beside the codes */
    wn_threads *team;
    float *x;                           /* the book; its weights of channels are given */
    double loss;                        /* weighted squares of the errors, in parts of those of the
                                           rows */
} wn_levels_job;

wn_status wn_levels_fit(wn_levels_job *j, wn_err *err);

#endif
