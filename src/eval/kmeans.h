/* eval/kmeans.h - points that stand for weighted rows: k-means, the same on every machine.
 *
 * Arthur and Vassilvitskii, "k-means++", 2007: the first points are rows, each drawn with a chance
 * proportional to its weight times its squared distance from the points there are; then rows go to
 * their nearest points (kernel/lookup.h) and points to their rows' weighted means, in turn, until
 * no row moves or the rounds are over. A point that lost all its rows goes to the row that costs
 * most. Sums run in double, in the order of the rows; draws are indexed by (seed, point).
 */
#ifndef WN_EVAL_KMEANS_H
#define WN_EVAL_KMEANS_H

#include "kernel/lookup.h"

typedef struct {
    const float *x; size_t stride;      /* (n) rows of c numbers, finite */
    const float *weight;                /* (n), none negative */
    int n, c;                           /* c at most 8 */
    int n_points, rounds;               /* n_points at most 256 */
    uint64_t seed;
    uint8_t *codes;                     /* scratch (n); afterwards each row's point */
    float *far;                         /* scratch (n) */
} wn_kmeans_job;

/* points (n_points, c). Returns the sum of weight times squared distance. */
double wn_kmeans(const wn_kmeans_job *j, float *points);

#endif
