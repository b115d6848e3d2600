/* gguf/types_k.c - K-quants: super-blocks of 256 values whose sub-blocks have integer scales of
 * their own, Q2_K to Q6_K. What all of types*.c have in common stands at the head of types.c. */
#include "gguf/types_int.h"

#include <string.h>

/* ---- Q2_K: 256 values in 84 bytes ------------------------------------------------
 *
 *     0             16              80   82    84
 *     | scales[16]  | qs[64]        | d  | dmin |
 *
 * Sixteen sub-blocks of 16 values: x = d * (scales & 15) * q - dmin * (scales >> 4),
 * q in 0..3. Each half of 128 values has 32 bytes of qs; in a half, byte l (0..31) holds
 * values l, l + 32, l + 64 and l + 96, the first in bits 1,0.
 */
void wn_q2_k_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= QK, b += 84, out += QK) {
        float d = get_f16(b + 80), dmin = get_f16(b + 82);
        for (int i = 0; i < QK; i++) {
            int s = b[i / 16], q = b[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
            out[i] = d * (float)(s & 15) * (float)q - dmin * (float)(s >> 4);
        }
    }
}

void wn_q2_k_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= QK, b += 84, x += QK) {
        float scale[16], min[16], d, dmin;
        memset(b, 0, 84);
        for (int j = 0; j < 16; j++) {
            float lo = 0, hi = 0;
            for (int i = 16 * j; i < 16 * j + 16; i++) {
                lo = fminf(lo, x[i]);
                hi = fmaxf(hi, x[i]);
            }
            scale[j] = hi / 3 - lo / 3;
            min[j] = -lo;
        }
        d = put_f16(b + 80, extreme(scale, 16) / 15);
        dmin = put_f16(b + 82, extreme(min, 16) / 15);
        for (int j = 0; j < 16; j++) {
            int s = nearest(over(scale[j], d), 0, 15), m = nearest(over(min[j], dmin), 0, 15);
            b[j] = (uint8_t)(s | m << 4);
            for (int i = 16 * j; i < 16 * j + 16; i++) {
                int q = nearest(over(x[i] + dmin * (float)m, d * (float)s), 0, 3);
                uint8_t *at = b + 16 + i / 128 * 32 + i % 32;
                *at = (uint8_t)(*at | q << (i % 128 / 32 * 2));
            }
        }
    }
}

/* ---- Q3_K: 256 values in 110 bytes -----------------------------------------------
 *
 *     0           32              96           108  110
 *     | high[32]  | qs[64]        | scales[12] | d  |
 *
 * Sixteen sub-blocks of 16 values: x = d * (s - 32) * (q - 4), q in 0..7, s in 0..63. Two
 * bits of q lie in qs as in Q2_K; the third, of value l of quarter j of half n, is bit
 * 4n + j of high[l]. Scale j has its low four bits in byte j % 8 of scales (the first eight
 * in the low nibbles), its high two in byte 8 + j % 4 at bit 2 (j / 4).
 */
static int q3_k_scale(const uint8_t *sc, int j)
{
    return (sc[j % 8] >> (j < 8 ? 0 : 4) & 15) | (sc[8 + j % 4] >> (2 * (j / 4)) & 3) << 4;
}

void wn_q3_k_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= QK, b += 110, out += QK) {
        float d = get_f16(b + 108);
        for (int i = 0; i < QK; i++) {
            int quarter = i % 128 / 32, half = i / 128, l = i % 32;
            int q = (b[32 + 32 * half + l] >> (2 * quarter) & 3) |
                    (b[l] >> (4 * half + quarter) & 1) << 2;
            out[i] = d * (float)(q3_k_scale(b + 96, i / 16) - 32) * (float)(q - 4);
        }
    }
}

void wn_q3_k_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= QK, b += 110, x += QK) {
        float scale[16], d;
        memset(b, 0, 110);
        for (int j = 0; j < 16; j++) scale[j] = extreme(x + 16 * j, 16) / -4;
        d = put_f16(b + 108, fabsf(extreme(scale, 16)) / 31);
        for (int j = 0; j < 16; j++) {
            int s = nearest(over(scale[j], d), -31, 31);
            uint8_t *low = b + 96 + j % 8, *top = b + 104 + j % 4;
            *low = (uint8_t)(*low | ((s + 32) & 15) << (j < 8 ? 0 : 4));
            *top = (uint8_t)(*top | (s + 32) >> 4 << (2 * (j / 4)));
            for (int i = 16 * j; i < 16 * j + 16; i++) {
                int quarter = i % 128 / 32, half = i / 128, l = i % 32;
                int q = nearest(over(x[i], d * (float)s), -4, 3) + 4;
                b[32 + 32 * half + l] = (uint8_t)(b[32 + 32 * half + l] | (q & 3) << (2 * quarter));
                b[l] = (uint8_t)(b[l] | (q >> 2) << (4 * half + quarter));
            }
        }
    }
}

/* ---- Q4_K: 256 values in 144 bytes -----------------------------------------------
 *
 *     0    2      4             16                        144
 *     | d  | dmin | scales[12]  | qs[128]                 |
 *
 * Eight sub-blocks of 32 values, each with a 6-bit scale s and a 6-bit minimum m:
 *     x = d * s * q - dmin * m,  q in 0..15
 * qs comes in four runs of 32 bytes; run r has sub-block 2r in its low nibbles and
 * 2r + 1 in its high ones. The sixteen 6-bit numbers share the twelve bytes so:
 *
 *     byte j     (j 0..3)   | s[j+4] bits 5,4 | s[j]             |
 *     byte j + 4            | m[j+4] bits 5,4 | m[j]             |
 *     byte j + 8            | m[j+4] bits 3..0  | s[j+4] bits 3..0 |
 */
static void q4_k_scale(const uint8_t *sc, int j, int *s, int *m)
{
    if (j < 4) {
        *s = sc[j] & 63;
        *m = sc[j + 4] & 63;
    } else {
        *s = (sc[j + 4] & 15) | (sc[j - 4] >> 6) << 4;
        *m = sc[j + 4] >> 4 | (sc[j] >> 6) << 4;
    }
}

void wn_q4_k_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= QK, b += 144, out += QK) {
        float d = get_f16(b), dmin = get_f16(b + 2);
        for (int j = 0; j < 8; j++) {
            const uint8_t *q = b + 16 + 32 * (j / 2);
            int s, m;
            q4_k_scale(b + 4, j, &s, &m);
            float scale = d * (float)s, min = dmin * (float)m;
            for (int i = 0; i < 32; i++)
                out[32 * j + i] = scale * (float)(j & 1 ? q[i] >> 4 : q[i] & 15) - min;
        }
    }
}

/* Scales and minimums of eight sub-blocks whose codes go from 0 to most: the fields in front
 * of a block's codes (16 bytes). The code of x in sub-block j is
 * nearest((x + min[j]) / scale[j]). */
static void put_scales_k(uint8_t *b, const float *x, int most, float scale[8], float min[8])
{
    float d, dmin;
    for (int j = 0; j < 8; j++) {
        float lo = 0, hi = 0;           /* the minimum is stored as a positive number: lo <= 0 */
        for (int i = 0; i < 32; i++) {
            lo = fminf(lo, x[32 * j + i]);
            hi = fmaxf(hi, x[32 * j + i]);
        }
        scale[j] = hi / (float)most - lo / (float)most;
        min[j] = -lo;
    }
    d = put_f16(b, extreme(scale, 8) / 63);
    dmin = put_f16(b + 2, extreme(min, 8) / 63);
    memset(b + 4, 0, 12);
    for (int j = 0; j < 8; j++) {
        int s = nearest(over(scale[j], d), 0, 63), m = nearest(over(min[j], dmin), 0, 63);
        uint8_t *sc = b + 4;
        if (j < 4) {
            sc[j] = (uint8_t)(sc[j] | s);
            sc[j + 4] = (uint8_t)(sc[j + 4] | m);
        } else {
            sc[j - 4] = (uint8_t)(sc[j - 4] | (s >> 4) << 6);
            sc[j] = (uint8_t)(sc[j] | (m >> 4) << 6);
            sc[j + 4] = (uint8_t)((s & 15) | (m & 15) << 4);
        }
        scale[j] = d * (float)s;
        min[j] = dmin * (float)m;
    }
}

void wn_q4_k_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= QK, b += 144, x += QK) {
        float scale[8], min[8];
        put_scales_k(b, x, 15, scale, min);
        memset(b + 16, 0, 128);
        for (int i = 0; i < QK; i++) {
            int j = i / 32, q = nearest(over(x[i] + min[j], scale[j]), 0, 15);
            uint8_t *low = b + 16 + 32 * (j / 2) + i % 32;
            *low = (uint8_t)(*low | q << (j & 1 ? 4 : 0));
        }
    }
}

/* ---- Q5_K: 256 values in 176 bytes -----------------------------------------------
 *
 *     0    2      4             16           48                       176
 *     | d  | dmin | scales[12]  | high[32]   | qs[128]                |
 *
 * As Q4_K, with a fifth bit: bit j of high[l] belongs to value l of sub-block j.
 */
void wn_q5_k_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= QK, b += 176, out += QK) {
        float d = get_f16(b), dmin = get_f16(b + 2);
        for (int j = 0; j < 8; j++) {
            const uint8_t *q = b + 48 + 32 * (j / 2);
            int s, m;
            q4_k_scale(b + 4, j, &s, &m);
            float scale = d * (float)s, min = dmin * (float)m;
            for (int l = 0; l < 32; l++) {
                int code = (j & 1 ? q[l] >> 4 : q[l] & 15) | (b[16 + l] >> j & 1) << 4;
                out[32 * j + l] = scale * (float)code - min;
            }
        }
    }
}

void wn_q5_k_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= QK, b += 176, x += QK) {
        float scale[8], min[8];
        put_scales_k(b, x, 31, scale, min);
        memset(b + 16, 0, 160);
        for (int i = 0; i < QK; i++) {
            int j = i / 32, q = nearest(over(x[i] + min[j], scale[j]), 0, 31);
            uint8_t *low = b + 48 + 32 * (j / 2) + i % 32, *high = b + 16 + i % 32;
            *low = (uint8_t)(*low | (q & 15) << (j & 1 ? 4 : 0));
            *high = (uint8_t)(*high | (q >> 4) << j);
        }
    }
}

/* ---- Q6_K: 256 values in 210 bytes -----------------------------------------------
 *
 *     0               128           192               208  210
 *     | ql[128]       | qh[64]      | scales[16] int8 | d  |
 *
 * Sixteen sub-blocks of 16 values: x = d * scales[i / 16] * (q - 32), q in 0..63. Each
 * half of 128 values has 64 bytes of ql (low four bits) and 32 of qh (high two); in a
 * half, with l in 0..31:
 *
 *     value l        ql[l] low nibble         qh[l] bits 1,0
 *     value l + 32   ql[l + 32] low nibble    qh[l] bits 3,2
 *     value l + 64   ql[l] high nibble        qh[l] bits 5,4
 *     value l + 96   ql[l + 32] high nibble   qh[l] bits 7,6
 */
void wn_q6_k_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= QK, b += 210, out += QK) {
        float d = get_f16(b + 208);
        for (int i = 0; i < QK; i++) {
            int half = i / 128, l = i % 32, quarter = i % 128 / 32;
            int lo = b[64 * half + l + 32 * (quarter & 1)], hi = b[128 + 32 * half + l];
            int q = (quarter & 2 ? lo >> 4 : lo & 15) | (hi >> (2 * quarter) & 3) << 4;
            out[i] = d * (float)(int8_t)b[192 + i / 16] * (float)(q - 32);
        }
    }
}

void wn_q6_k_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= QK, b += 210, x += QK) {
        float scale[16], d;
        memset(b, 0, 210);
        for (int j = 0; j < 16; j++) scale[j] = extreme(x + 16 * j, 16) / -32;
        d = put_f16(b + 208, fabsf(extreme(scale, 16)) / 127);
        for (int i = 0; i < QK; i++) {
            int half = i / 128, l = i % 32, quarter = i % 128 / 32;
            int s = nearest(over(scale[i / 16], d), -127, 127);
            int q = nearest(over(x[i], d * (float)s), -32, 31) + 32;
            uint8_t *lo = b + 64 * half + l + 32 * (quarter & 1), *hi = b + 128 + 32 * half + l;
            b[192 + i / 16] = (uint8_t)s;
            *lo = (uint8_t)(*lo | (q & 15) << (quarter & 2 ? 4 : 0));
            *hi = (uint8_t)(*hi | (q >> 4) << (2 * quarter));
        }
    }
}
