/* gguf/types_iq.c - types whose 4-bit codes are numbers of a table: IQ4_NL and IQ4_XS (steps
 * that grow with the distance from zero), MXFP4 (floats of four bits). What all of types*.c
 * have in common stands at the head of types.c. */
#include "gguf/types_int.h"

#include <string.h>

const int8_t wn_iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113 };
const int8_t wn_mxfp4_values[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/* The number of the table's value that is nearest to x; NaN gives that of the least. */
static int nearest_of(const int8_t table[16], float x)
{
    int best = 0;
    float error = INFINITY;
    for (int i = 0; i < 16; i++) {
        float e = fabsf(x - (float)table[i]);
        if (e < error) best = i, error = e;
    }
    return best;
}

/* 32 values around d into 16 bytes, nibbles as in Q4_0. */
static void put_nearest(uint8_t *b, const int8_t table[16], const float *x, float d)
{
    for (int i = 0; i < 16; i++)
        b[i] = (uint8_t)(nearest_of(table, over(x[i], d)) | nearest_of(table, over(x[i + 16], d))
                                                                << 4);
}

static void get_nearest(float *out, const int8_t table[16], const uint8_t *b, float d)
{
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)table[b[i] & 15];
        out[i + 16] = d * (float)table[b[i] >> 4];
    }
}

/* ---- IQ4_NL: 32 values in 18 bytes ------------------------------------------------
 *
 *     0      2                  18
 *     | d    | nibbles[16]      |        x[i] = d * table[q[i]], nibbles as in Q4_0
 */
void wn_iq4_nl_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= 32, b += 18, out += 32) get_nearest(out, wn_iq4_values, b + 2, get_f16(b));
}

/* The extreme value gets -127, whatever its sign. */
void wn_iq4_nl_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= 32, b += 18, x += 32)
        put_nearest(b + 2, wn_iq4_values, x, put_f16(b, extreme(x, 32) / -127));
}

/* ---- IQ4_XS: 256 values in 136 bytes ----------------------------------------------
 *
 *     0    2        4          8                      136
 *     | d  | high   | low[4]   | nibbles[8][16]       |
 *
 * Eight sub-blocks of 32 values, each as a block of IQ4_NL: x = d * (s - 32) * table[q]. Of
 * scale j, the low four bits are nibble j of low[], the high two are bits 2j of the 16 of
 * high.
 */
void wn_iq4_xs_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= QK, b += 136, out += QK)
        for (int j = 0; j < 8; j++) {
            int s = (b[4 + j / 2] >> (j & 1 ? 4 : 0) & 15) | (b[2 + j / 4] >> (2 * (j % 4)) & 3)
                                                                 << 4;
            get_nearest(out + 32 * j, wn_iq4_values, b + 8 + 16 * j, get_f16(b) * (float)(s - 32));
        }
}

void wn_iq4_xs_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= QK, b += 136, x += QK) {
        float scale[8], d;
        for (int j = 0; j < 8; j++) scale[j] = extreme(x + 32 * j, 32) / -127;
        d = put_f16(b, fabsf(extreme(scale, 8)) / 31);
        memset(b + 2, 0, 6);
        for (int j = 0; j < 8; j++) {
            int s = nearest(over(scale[j], d), -31, 31);
            uint8_t *low = b + 4 + j / 2, *high = b + 2 + j / 4;
            *low = (uint8_t)(*low | ((s + 32) & 15) << (j & 1 ? 4 : 0));
            *high = (uint8_t)(*high | (s + 32) >> 4 << (2 * (j % 4)));
            put_nearest(b + 8 + 16 * j, wn_iq4_values, x + 32 * j, d * (float)s);
        }
    }
}

/* ---- MXFP4: 32 values in 17 bytes -------------------------------------------------
 *
 *     0      1                  17
 *     | e    | nibbles[16]      |        x[i] = 2^(e - 128) * table[q[i]]
 *
 * A value is a float of one sign, two exponent bits and one mantissa bit (0, 0.5, 1, 1.5, 2,
 * 3, 4, 6), and the table holds twice that; hence 128, where the standard has 127.
 */
void wn_mxfp4_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= 32, b += 17, out += 32)
        get_nearest(out, wn_mxfp4_values, b + 1, wn_e8m0_half(*b));
}

/* The least power of two with which the extreme value is at most 14: as far beyond the
 * largest code, 12, as it may be from one in between. At most 2^124, or 12 would be infinite. */
void wn_mxfp4_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= 32, b += 17, x += 32) {
        float most = fabsf(extreme(x, 32));
        int e = 0;
        if (most > 0) {
            frexpf(fminf(most, 0x1p127f), &e);          /* most < 2^e */
            e += 124;                                   /* most / 2^(e - 128) in [8, 16) */
            e = e < 0 ? 0 : e > 252 ? 252 : e;
            if (e < 252 && most > 14 * wn_e8m0_half((uint8_t)e)) e++;
        }
        *b = (uint8_t)e;
        put_nearest(b + 1, wn_mxfp4_values, x, wn_e8m0_half(*b));
    }
}
