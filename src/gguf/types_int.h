/* gguf/types_int.h - what the files of types.h share: halves in place, nearest codes, and the
 * functions that the table in types.c names. Private to gguf/types*.c. */
#ifndef WN_GGUF_TYPES_INT_H
#define WN_GGUF_TYPES_INT_H

#include "gguf/types.h"

#include <math.h>

enum { QK = 256 };                      /* values of a K-quant super-block */

#define WN_BLOCK_TYPES(X) \
    X(q8_0) X(q4_0) X(q4_1) X(q5_0) X(q5_1) X(q2_k) X(q3_k) X(q4_k) X(q5_k) X(q6_k) \
    X(iq4_nl) X(iq4_xs) X(mxfp4)
#define WN_DECLARE(t) \
    void wn_##t##_decode(float *out, const void *in, int64_t n); \
    void wn_##t##_encode(void *out, const float *x, int64_t n);
WN_BLOCK_TYPES(WN_DECLARE)

static inline float get_f16(const uint8_t *p)
{
    return wn_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/* Stores a scale and returns what was stored. Too large a scale becomes the largest finite
 * half: a block of infinities would help nobody. */
static inline float put_f16(uint8_t *p, float v)
{
    uint16_t h = wn_f32_to_f16(fminf(fmaxf(v, -65504.0f), 65504.0f));
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
    return wn_f16_to_f32(h);
}

/* Nearest integer in [lo, hi]; NaN gives lo. */
static inline int nearest(float x, int lo, int hi)
{
    if (!(x > (float)lo)) return lo;
    if (x >= (float)hi) return hi;
    return (int)lrintf(x);
}

static inline float over(float a, float b) { return b != 0 ? a / b : 0; }

/* The value of largest magnitude, with its sign. */
static inline float extreme(const float *x, int n)
{
    float best = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(best)) best = x[i];
    return best;
}

#endif
