/* gguf/types.c - what the bytes of a tensor mean.
 *
 * A quantised row is a line of blocks; a block is a scale (or two) and small integer
 * codes. Nothing here is fast: each decode is the plain reading of the layout drawn
 * above it, and every faster kernel is compared with it. All numbers are little-endian;
 * "f16 d" is a half. Blocks have no alignment, so halves are read byte by byte.
 *
 * The encoders divide by the scale as it was stored, after its rounding to a half, and
 * take the nearest code to that: a value that decodes exactly encodes to itself.
 */
#include "gguf/types.h"

#include <math.h>
#include <string.h>
#include <strings.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF data is read in place");

enum { QK = 256 };                      /* values of a K-quant super-block */

/* ---- halves ------------------------------------------------------------------ */

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* m / 2^s, ties to even; s in 1..31. */
static uint32_t shift_even(uint32_t m, unsigned s)
{
    uint32_t rest = m & ((1u << s) - 1), half = 1u << (s - 1);
    m >>= s;
    return m + (rest > half || (rest == half && (m & 1)));
}

float wn_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 0x3ff;
    if (e == 0) {                       /* zero, or m * 2^-24, which a float holds exactly */
        float v = (float)m * 0x1p-24f;
        return sign ? -v : v;
    }
    if (e == 31)                        /* infinity; a NaN becomes quiet, as in hardware */
        return float_of(sign | 0x7f800000 | m << 13 | (m ? 0x400000u : 0));
    return float_of(sign | (e + 112) << 23 | m << 13);
}

/* Adding to the shifted bits lets a mantissa's carry run into the exponent, and from the
 * largest finite value into infinity. */
uint16_t wn_f32_to_f16(float f)
{
    uint32_t u = bits_of(f), sign = (u >> 16) & 0x8000, a = u & 0x7fffffff, h;
    if (a > 0x7f800000) h = 0x7e00 | (a >> 13 & 0x3ff);             /* NaN */
    else if (a >= 0x477ff000) h = 0x7c00;                           /* 65520 and more: infinity */
    else if (a >= 0x38800000) h = shift_even(a - 0x38000000, 13);   /* 2^-14 and more: normal */
    else if (a <= 0x33000000) h = 0;                                /* up to 2^-25: ties go to 0 */
    else h = shift_even((a & 0x7fffff) | 0x800000, 126 - (a >> 23));
    return (uint16_t)(sign | h);
}

uint16_t wn_f32_to_bf16(float f)
{
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)shift_even(u, 16);
}

static float get_f16(const uint8_t *p) { return wn_f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }

/* Stores a scale and returns what was stored. Too large a scale becomes the largest finite
 * half: a block of infinities would help nobody. */
static float put_f16(uint8_t *p, float v)
{
    uint16_t h = wn_f32_to_f16(fminf(fmaxf(v, -65504.0f), 65504.0f));
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
    return wn_f16_to_f32(h);
}

/* Nearest integer in [lo, hi]; NaN gives lo. */
static int nearest(float x, int lo, int hi)
{
    if (!(x > (float)lo)) return lo;
    if (x >= (float)hi) return hi;
    return (int)lrintf(x);
}

static float over(float a, float b) { return b != 0 ? a / b : 0; }

/* The value of largest magnitude, with its sign. */
static float extreme(const float *x, int n)
{
    float best = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(best)) best = x[i];
    return best;
}

/* ---- plain numbers ------------------------------------------------------------ */

static void f32_copy(float *out, const void *in, int64_t n)
{
    memcpy(out, in, sizeof(float) * (size_t)n);
}

static void f32_store(void *out, const float *x, int64_t n)
{
    memcpy(out, x, sizeof(float) * (size_t)n);
}

static void f16_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *p = in;
    for (int64_t i = 0; i < n; i++) out[i] = get_f16(p + 2 * i);
}

static void f16_encode(void *out, const float *x, int64_t n)
{
    uint8_t *p = out;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = wn_f32_to_f16(x[i]);
        memcpy(p + 2 * i, &h, 2);
    }
}

static void bf16_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *p = in;
    for (int64_t i = 0; i < n; i++)
        out[i] = wn_bf16_to_f32((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
}

static void bf16_encode(void *out, const float *x, int64_t n)
{
    uint8_t *p = out;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = wn_f32_to_bf16(x[i]);
        memcpy(p + 2 * i, &h, 2);
    }
}

/* ---- Q8_0: 32 values in 34 bytes ------------------------------------------------
 *
 *     0      2                       34
 *     | d    | q[0] q[1] ... q[31]   |       x[i] = d * q[i],  q: int8
 */
static void q8_0_decode(float *out, const void *in, int64_t n)
{
    const uint8_t *b = in;
    for (; n > 0; n -= 32, b += 34, out += 32) {
        float d = get_f16(b);
        for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)b[2 + i];
    }
}

static void q8_0_encode(void *out, const float *x, int64_t n)
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
static void q4_0_decode(float *out, const void *in, int64_t n)
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
static void q4_0_encode(void *out, const float *x, int64_t n)
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

static void q4_k_decode(float *out, const void *in, int64_t n)
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

static void q4_k_encode_block(uint8_t *b, const float *x)
{
    float scale[8], min[8], d, dmin;
    memset(b, 0, 144);
    for (int j = 0; j < 8; j++) {
        float lo = 0, hi = 0;           /* the minimum is stored as a positive number: lo <= 0 */
        for (int i = 0; i < 32; i++) {
            lo = fminf(lo, x[32 * j + i]);
            hi = fmaxf(hi, x[32 * j + i]);
        }
        scale[j] = hi / 15 - lo / 15;
        min[j] = -lo;
    }
    d = put_f16(b, extreme(scale, 8) / 63);
    dmin = put_f16(b + 2, extreme(min, 8) / 63);
    for (int j = 0; j < 8; j++) {
        int s = nearest(over(scale[j], d), 0, 63), m = nearest(over(min[j], dmin), 0, 63);
        uint8_t *sc = b + 4, *q = b + 16 + 32 * (j / 2);
        if (j < 4) {
            sc[j] = (uint8_t)(sc[j] | s);
            sc[j + 4] = (uint8_t)(sc[j + 4] | m);
        } else {
            sc[j - 4] = (uint8_t)(sc[j - 4] | (s >> 4) << 6);
            sc[j] = (uint8_t)(sc[j] | (m >> 4) << 6);
            sc[j + 4] = (uint8_t)((s & 15) | (m & 15) << 4);
        }
        for (int i = 0; i < 32; i++) {
            float code = over(x[32 * j + i] + dmin * (float)m, d * (float)s);
            q[i] = (uint8_t)(q[i] | nearest(code, 0, 15) << (j & 1 ? 4 : 0));
        }
    }
}

static void q4_k_encode(void *out, const float *x, int64_t n)
{
    uint8_t *b = out;
    for (; n > 0; n -= QK, b += 144, x += QK) q4_k_encode_block(b, x);
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
static void q6_k_decode(float *out, const void *in, int64_t n)
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

static void q6_k_encode(void *out, const float *x, int64_t n)
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

/* ---- the table ----------------------------------------------------------------- */

static const wn_type_info table[WN_TYPE_COUNT] = {
    [WN_TYPE_F32] = { "F32", 1, 4, f32_copy, f32_store },
    [WN_TYPE_F16] = { "F16", 1, 2, f16_decode, f16_encode },
    [WN_TYPE_Q4_0] = { "Q4_0", 32, 18, q4_0_decode, q4_0_encode },
    [WN_TYPE_Q4_1] = { "Q4_1", 32, 20, NULL, NULL },
    [WN_TYPE_Q5_0] = { "Q5_0", 32, 22, NULL, NULL },
    [WN_TYPE_Q5_1] = { "Q5_1", 32, 24, NULL, NULL },
    [WN_TYPE_Q8_0] = { "Q8_0", 32, 34, q8_0_decode, q8_0_encode },
    [WN_TYPE_Q8_1] = { "Q8_1", 32, 36, NULL, NULL },
    [WN_TYPE_Q2_K] = { "Q2_K", QK, 84, NULL, NULL },
    [WN_TYPE_Q3_K] = { "Q3_K", QK, 110, NULL, NULL },
    [WN_TYPE_Q4_K] = { "Q4_K", QK, 144, q4_k_decode, q4_k_encode },
    [WN_TYPE_Q5_K] = { "Q5_K", QK, 176, NULL, NULL },
    [WN_TYPE_Q6_K] = { "Q6_K", QK, 210, q6_k_decode, q6_k_encode },
    [WN_TYPE_Q8_K] = { "Q8_K", QK, 292, NULL, NULL },
    [WN_TYPE_IQ2_XXS] = { "IQ2_XXS", QK, 66, NULL, NULL },
    [WN_TYPE_IQ2_XS] = { "IQ2_XS", QK, 74, NULL, NULL },
    [WN_TYPE_IQ3_XXS] = { "IQ3_XXS", QK, 98, NULL, NULL },
    [WN_TYPE_IQ1_S] = { "IQ1_S", QK, 50, NULL, NULL },
    [WN_TYPE_IQ4_NL] = { "IQ4_NL", 32, 18, NULL, NULL },
    [WN_TYPE_IQ3_S] = { "IQ3_S", QK, 110, NULL, NULL },
    [WN_TYPE_IQ2_S] = { "IQ2_S", QK, 82, NULL, NULL },
    [WN_TYPE_IQ4_XS] = { "IQ4_XS", QK, 136, NULL, NULL },
    [WN_TYPE_I8] = { "I8", 1, 1, NULL, NULL },
    [WN_TYPE_I16] = { "I16", 1, 2, NULL, NULL },
    [WN_TYPE_I32] = { "I32", 1, 4, NULL, NULL },
    [WN_TYPE_I64] = { "I64", 1, 8, NULL, NULL },
    [WN_TYPE_F64] = { "F64", 1, 8, NULL, NULL },
    [WN_TYPE_IQ1_M] = { "IQ1_M", QK, 56, NULL, NULL },
    [WN_TYPE_BF16] = { "BF16", 1, 2, bf16_decode, bf16_encode },
    [WN_TYPE_TQ1_0] = { "TQ1_0", QK, 54, NULL, NULL },
    [WN_TYPE_TQ2_0] = { "TQ2_0", QK, 66, NULL, NULL },
    [WN_TYPE_MXFP4] = { "MXFP4", 32, 17, NULL, NULL },
    [WN_TYPE_NVFP4] = { "NVFP4", 64, 36, NULL, NULL },
    [WN_TYPE_Q1_0] = { "Q1_0", 128, 18, NULL, NULL },
};

const wn_type_info *wn_type_find(uint32_t id)
{
    return id < WN_TYPE_COUNT && table[id].name ? &table[id] : NULL;
}

int wn_type_by_name(const char *name)
{
    for (int i = 0; i < WN_TYPE_COUNT; i++)
        if (table[i].name && !strcasecmp(name, table[i].name)) return i;
    return -1;
}

size_t wn_type_row_bytes(wn_type t, int64_t n)
{
    const wn_type_info *info = wn_type_find((uint32_t)t);
    WN_ASSERT(info && n >= 0 && n % info->block == 0);
    return (size_t)(n / info->block) * info->block_bytes;
}
