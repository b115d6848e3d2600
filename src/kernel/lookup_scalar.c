/* kernel/lookup_scalar.c - the definition: see lookup.h. */
#include "kernel/lookup.h"

#include <math.h>

static int nearest(const float *x, const float *table, int c, float *least)
{
    float far[WN_LOOKUP_POINTS] = { 0 };
    int at = 0;
    for (int k = 0; k < c; k++)
        for (int i = 0; i < WN_LOOKUP_POINTS; i++) {
            float d = x[k] - table[k * WN_LOOKUP_POINTS + i];
            far[i] += d * d;
        }
    *least = INFINITY;
    for (int i = 0; i < WN_LOOKUP_POINTS; i++)
        if (far[i] < *least) *least = far[i], at = i;
    return at;
}

const wn_lookup_ops wn_lookup_ops_scalar = { .nearest = nearest };
