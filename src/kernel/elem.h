/* kernel/elem.h - the three ways a cache number is kept raw, and how a float becomes one.
 *
 * Widening is exact. Narrowing rounds to nearest, ties to even; denormal halves are kept,
 * what is too large becomes infinite, NaN stays a (quiet) NaN: exactly what the
 * instructions VCVTPH2PS and VCVTPS2PH do, so every table agrees.
 */
#ifndef WN_KERNEL_ELEM_H
#define WN_KERNEL_ELEM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum { WN_ELEM_F16, WN_ELEM_BF16, WN_ELEM_F32, WN_ELEMS } wn_elem;

static inline size_t wn_elem_bytes(wn_elem e) { return e == WN_ELEM_F32 ? 4 : 2; }

static inline float wn_elem_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint32_t wn_elem_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline float wn_elem_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31) return wn_elem_from_bits(sign | 0x7f800000u | (m ? 0x400000u | m << 13 : 0));
    if (e) return wn_elem_from_bits(sign | (e + 112) << 23 | m << 13);
    float tiny = (float)m * 0x1p-24f;
    return sign ? -tiny : tiny;
}

static inline uint16_t wn_elem_to_f16(float f)
{
    uint32_t u = wn_elem_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00);     /* 65520 and more: infinite */
    if (a < 0x38800000u) {                                      /* below 2^-14: denormal or 0 */
        /* 0.5 has an ulp of 2^-24, the denormal's: the addition rounds for us */
        uint32_t d = wn_elem_bits(wn_elem_from_bits(a) + 0.5f) - 0x3f000000u;
        return (uint16_t)(sign | d);
    }
    return (uint16_t)(sign | (a + 0xfff + (a >> 13 & 1) - 0x38000000u) >> 13);
}

static inline float wn_elem_from_bf16(uint16_t h) { return wn_elem_from_bits((uint32_t)h << 16); }

static inline uint16_t wn_elem_to_bf16(float f)
{
    uint32_t u = wn_elem_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* Element i of a raw array. */
static inline float wn_elem_get(wn_elem e, const void *p, size_t i)
{
    if (e == WN_ELEM_F32) return ((const float *)p)[i];
    uint16_t h = ((const uint16_t *)p)[i];
    return e == WN_ELEM_F16 ? wn_elem_from_f16(h) : wn_elem_from_bf16(h);
}

static inline void wn_elem_put(wn_elem e, void *p, size_t i, float f)
{
    if (e == WN_ELEM_F32) ((float *)p)[i] = f;
    else ((uint16_t *)p)[i] = e == WN_ELEM_F16 ? wn_elem_to_f16(f) : wn_elem_to_bf16(f);
}

#endif
