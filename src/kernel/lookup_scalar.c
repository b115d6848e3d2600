/* kernel/lookup_scalar.c - the definition: see lookup.h. */
#include "kernel/lookup.h"

#include <math.h>

static void nearest(uint8_t *codes, size_t code_stride, const float *rows, size_t stride, int n_rows, const float *table, int c,
                    float *least)
{
    for (int r = 0; r < n_rows; r++, rows += stride) {
        float far[WN_LOOKUP_POINTS] = { 0 }, best = INFINITY;
        int at = 0;
        for (int k = 0; k < c; k++)
            for (int i = 0; i < WN_LOOKUP_POINTS; i++) {
                float d = rows[k] - table[k * WN_LOOKUP_POINTS + i];
                far[i] += d * d;
            }
        for (int i = 0; i < WN_LOOKUP_POINTS; i++)
            if (far[i] < best) best = far[i], at = i;
        codes[(size_t)r * code_stride] = (uint8_t)at;
        if (least) least[r] = best;
    }
}

const wn_lookup_ops wn_lookup_ops_scalar = { .nearest = nearest };
