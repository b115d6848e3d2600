/* gguf/types_32.c - blocks of 32 values with codes on an even grid: Q8_0, Q4_0, Q4_1, Q5_0,
 * Q5_1. What all of types*.c have in common stands at the head of types.c. */
#include "gguf/types_int.h"

#include <string.h>

/* ---- Q8_0: 32 values in 34 bytes ------------------------------------------------
 *
 *     0      2                       34
 *     | d    | q[0] q[1] ... q[31]   |       x[i] = d * q[i],  q: int8
 */
void wn_q8_0_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= 32, b += 34, out += 32) {
        float d = get_f16(b);
        for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)b[2 + i];
    }
}

void wn_q8_0_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= 32, b += 34, x += 32) {
        float d = put_f16(b, fabsf(extreme(x, 32)) / 127);
        for (int i = 0; i < 32; i++) b[2 + i] = (uint8_t)nearest(over(x[i], d), -127, 127);
    }
}

/* ---- Q4_0: 32 values in 18 bytes ------------------------------------------------
 *
 *     0      2                              18
 *     | d    | b[0]  b[1]  ...  b[15]       |
 *              low nibbles:  q[0] .. q[15]
 *              high nibbles: q[16] .. q[31]       x[i] = d * (q[i] - 8)
 */
void wn_q4_0_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= 32, b += 18, out += 32) {
        float d = get_f16(b);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)((b[2 + i] & 15) - 8);
            out[i + 16] = d * (float)((b[2 + i] >> 4) - 8);
        }
    }
}

/* The code -8 has no positive twin, so the extreme value gets it, whatever its sign. */
void wn_q4_0_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= 32, b += 18, x += 32) {
        float d = put_f16(b, extreme(x, 32) / -8);
        for (int i = 0; i < 16; i++) {
            int lo = nearest(over(x[i], d), -8, 7) + 8, hi = nearest(over(x[i + 16], d), -8, 7) + 8;
            b[2 + i] = (uint8_t)(lo | hi << 4);
        }
    }
}

/* ---- Q4_1: 32 values in 20 bytes ------------------------------------------------
 *
 *     0      2      4                              20
 *     | d    | m    | b[0]  ...  b[15]             |   nibbles as in Q4_0
 *                                                      x[i] = d * q[i] + m
 */
void wn_q4_1_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= 32, b += 20, out += 32) {
        float d = get_f16(b), m = get_f16(b + 2);
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)(b[4 + i] & 15) + m;
            out[i + 16] = d * (float)(b[4 + i] >> 4) + m;
        }
    }
}

/* Scale and offset of a block that has both; the grid goes from the least value to the
 * largest in n_steps. */
static void put_range(uint8_t *b, const float *x, int n_steps, float *d, float *m)
{
    float lo = x[0] < INFINITY ? x[0] : 0, hi = lo;     /* NaN counts as 0 */
    for (int i = 0; i < 32; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    *d = put_f16(b, hi / (float)n_steps - lo / (float)n_steps);
    *m = put_f16(b + 2, lo);
}

void wn_q4_1_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= 32, b += 20, x += 32) {
        float d, m;
        put_range(b, x, 15, &d, &m);
        for (int i = 0; i < 16; i++) {
            int lo = nearest(over(x[i] - m, d), 0, 15), hi = nearest(over(x[i + 16] - m, d), 0, 15);
            b[4 + i] = (uint8_t)(lo | hi << 4);
        }
    }
}

/* ---- Q5_0: 32 values in 22 bytes; Q5_1: in 24 -------------------------------------
 *
 *     Q5_0   0      2           6                22
 *            | d    | high[4]   | nibbles[16]    |      x[i] = d * (q[i] - 16)
 *     Q5_1   0      2      4           8                24
 *            | d    | m    | high[4]   | nibbles[16]    |      x[i] = d * q[i] + m
 *
 * Nibbles as in Q4_0; bit i of the four bytes is the fifth bit of value i.
 */
static int get_five(const uint8_t *high, int i)
{
    const uint8_t *nibbles = high + 4;
    return (i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4) | (high[i / 8] >> i % 8 & 1) << 4;
}

/* Into zeroed bytes. */
static void put_five(uint8_t *high, int i, int q)
{
    uint8_t *nibble = high + 4 + i % 16;
    *nibble = (uint8_t)(*nibble | (q & 15) << (i < 16 ? 0 : 4));
    high[i / 8] = (uint8_t)(high[i / 8] | (q >> 4) << i % 8);
}

void wn_q5_0_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= 32, b += 22, out += 32) {
        float d = get_f16(b);
        for (int i = 0; i < 32; i++) out[i] = d * (float)(get_five(b + 2, i) - 16);
    }
}

void wn_q5_0_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= 32, b += 22, x += 32) {
        float d = put_f16(b, extreme(x, 32) / -16);
        memset(b + 2, 0, 20);
        for (int i = 0; i < 32; i++) put_five(b + 2, i, nearest(over(x[i], d), -16, 15) + 16);
    }
}

void wn_q5_1_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= 32, b += 24, out += 32) {
        float d = get_f16(b), m = get_f16(b + 2);
        for (int i = 0; i < 32; i++) out[i] = d * (float)get_five(b + 4, i) + m;
    }
}

void wn_q5_1_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= 32, b += 24, x += 32) {
        float d, m;
        put_range(b, x, 31, &d, &m);
        memset(b + 4, 0, 20);
        for (int i = 0; i < 32; i++) put_five(b + 4, i, nearest(over(x[i] - m, d), 0, 31));
    }
}
