/* kernel/exp_scalar.h - exp of a float: the definition that every table follows bit by bit.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2; exp(x) = 2^n (1 + r + r^2 q(r)), q of degree 4,
 * fitted for the least relative error (3.1e-9 before rounding). Every step is one fused
 * operation, so a vector lane and this function cannot differ. n is taken from the low
 * bits of x log2(e) + 1.5 * 2^23, which rounds to nearest by itself.
 *
 *     exp(0) == 1, exp(-INFINITY) == 0; x <= 88: within 2 ulp; below -87.33654 (where the
 *     result would be denormal): exactly 0; above 88.03: INFINITY; NaN stays NaN
 */
#ifndef WN_KERNEL_EXP_SCALAR_H
#define WN_KERNEL_EXP_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define WN_EXP_LOG2E 0x1.715476p+0f
#define WN_EXP_ROUND 12582912.0f            /* 1.5 * 2^23: its low 9 bits are 0 */
#define WN_EXP_LN2_HI 0x1.62e430p-1f
#define WN_EXP_LN2_LO -0x1.05c610p-29f
#define WN_EXP_MAX 89.0f                    /* from here on the result is INFINITY anyway */
#define WN_EXP_MIN -87.33654f               /* below: 0 */
#define WN_EXP_C2 0x1.fffffcp-2f
#define WN_EXP_C3 0x1.555492p-3f
#define WN_EXP_C4 0x1.5558f2p-5f
#define WN_EXP_C5 0x1.1239d6p-7f
#define WN_EXP_C6 0x1.6a2444p-10f

static inline float wn_exp_1(float x)
{
    if (x < WN_EXP_MIN) return 0.0f;
    if (x > WN_EXP_MAX) x = WN_EXP_MAX;     /* NaN passes both */
    float t = fmaf(x, WN_EXP_LOG2E, WN_EXP_ROUND);
    float n = t - WN_EXP_ROUND;
    float r = fmaf(n, -WN_EXP_LN2_LO, fmaf(n, -WN_EXP_LN2_HI, x));
    float p = fmaf(WN_EXP_C6, r, WN_EXP_C5);
    p = fmaf(p, r, WN_EXP_C4);
    p = fmaf(p, r, WN_EXP_C3);
    p = fmaf(p, r, WN_EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    uint32_t bits;
    float scale;
    memcpy(&bits, &t, 4);
    bits = (bits << 23) + 0x3f800000u;      /* 2^n; n = 128 gives INFINITY */
    memcpy(&scale, &bits, 4);
    return p * scale;
}

#endif
