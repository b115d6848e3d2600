/* kernel/lookup.h - codes that name rows of a table: finding the row that is nearest.
 *
 * A table holds 256 points of c numbers, number by number: table[k][i] is number k of point i.
 * The distance of x to point i is the sum over k, in ascending order, of (x[k] - table[k][i])^2,
 * products rounded before they are added; of equal distances the lower i is nearer. A point that
 * is not to be found has INFINITY in table[0]. All tables of kernels give the same codes.
 */
#ifndef WN_KERNEL_LOOKUP_H
#define WN_KERNEL_LOOKUP_H

#include "kernel/kernel.h"

enum { WN_LOOKUP_POINTS = 256 };

struct wn_lookup_ops {
    /* The point nearest to x (c); 0 where no distance is finite. *least: its distance. */
    int (*nearest)(const float *x, const float *table, int c, float *least);
};

extern const wn_lookup_ops wn_lookup_ops_scalar, wn_lookup_ops_avx2, wn_lookup_ops_avx512;

#endif
