/* page/power.h - block floating point: a scale that is a power of two, kept in a byte.
 *
 * A byte e stands for the half with the value 2^(e - 25), e in 1 .. 40; 0 for 0, 255 for NaN. A
 * row's group becomes signed mantissas of 4 bits: step = 2^(floor(log2 of its largest magnitude) -
 * 2), code = 8 + x / step to nearest, ties to even, at most 15. The byte is the exponent of the
 * block, the step follows from it; kernels get it as a half.
 */
#ifndef WN_PAGE_POWER_H
#define WN_PAGE_POWER_H

#include "kernel/codes.h"

#include <math.h>

enum { WN_POWER_MAX = 40, WN_POWER_NAN = 255 };

static inline uint16_t wn_power_half(uint8_t e)
{
    if (e > WN_POWER_MAX) return 0x7e00;
    /* normal; denormal; 0 */
    return (uint16_t)(e > 10 ? (unsigned)(e - 10) << 10 : 1u << e >> 1);
}

/* The byte of a group with this largest magnitude: 2^15 and 2^-24 are the ends. */
static inline uint8_t wn_power_of(float most)
{
    int e = (int)(wn_elem_bits(most) >> 23) - 127 - 2 + 25;
    return (uint8_t)(most == 0 ? 0 : e < 1 ? 1 : e > WN_POWER_MAX ? WN_POWER_MAX : e);
}

/* n values into codes, and the byte of each `group` of them at e[g * stride]. A row that is not all
 * finite: NaN, codes 0. */
static inline void wn_power_encode(uint8_t *codes, uint8_t *e, size_t stride, const float *x, int n,
                                   int group)
{
    bool finite = true;
    for (int i = 0; i < n; i++) finite &= (wn_elem_bits(x[i]) & 0x7f800000u) != 0x7f800000u;
    for (int at = 0; at < n; at += group, e += stride) {
        int end = WN_MIN(n, at + group);
        float most = 0;
        for (int i = at; i < end; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
        *e = finite ? wn_power_of(most) : WN_POWER_NAN;
        float inv = finite && *e ? ldexpf(1, 25 - *e) : 0;
        for (int i = at; i < end; i++) {
            float y = finite ? x[i] * inv : -8;
            codes[i] = (uint8_t)(8 + (y <= -8 ? -8 : y >= 7 ? 7 : (int)lrintf(y)));
        }
    }
}

#endif
