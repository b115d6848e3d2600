/* gguf/types.c - what the bytes of a tensor mean.
 *
 * A quantised row is a line of blocks; a block is a scale (or two) and small integer
 * codes. Nothing here is fast: each decode is the plain reading of the layout drawn
 * above it, and every faster kernel is compared with it. All numbers are little-endian;
 * "f16 d" is a half. Blocks have no alignment, so halves are read byte by byte.
 *
 * The encoders divide by the scale as it was stored, after its rounding to a half, and
 * take the nearest code to that: a value that decodes exactly encodes to itself.
 *
 * The blocks are in types_32.c, types_k.c and types_iq.c; here are halves, plain numbers
 * and the table.
 */
#include "gguf/types_int.h"

#include <string.h>
#include <strings.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF data is read in place");

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

/* ---- the table ----------------------------------------------------------------- */

static const wn_type_info table[WN_TYPE_COUNT] = {
    [WN_TYPE_F32] = { "F32", 1, 4, f32_copy, f32_store },
    [WN_TYPE_F16] = { "F16", 1, 2, f16_decode, f16_encode },
    [WN_TYPE_Q4_0] = { "Q4_0", 32, 18, wn_q4_0_decode, wn_q4_0_encode },
    [WN_TYPE_Q4_1] = { "Q4_1", 32, 20, wn_q4_1_decode, wn_q4_1_encode },
    [WN_TYPE_Q5_0] = { "Q5_0", 32, 22, wn_q5_0_decode, wn_q5_0_encode },
    [WN_TYPE_Q5_1] = { "Q5_1", 32, 24, wn_q5_1_decode, wn_q5_1_encode },
    [WN_TYPE_Q8_0] = { "Q8_0", 32, 34, wn_q8_0_decode, wn_q8_0_encode },
    [WN_TYPE_Q8_1] = { "Q8_1", 32, 36, NULL, NULL },
    [WN_TYPE_Q2_K] = { "Q2_K", QK, 84, wn_q2_k_decode, wn_q2_k_encode },
    [WN_TYPE_Q3_K] = { "Q3_K", QK, 110, wn_q3_k_decode, wn_q3_k_encode },
    [WN_TYPE_Q4_K] = { "Q4_K", QK, 144, wn_q4_k_decode, wn_q4_k_encode },
    [WN_TYPE_Q5_K] = { "Q5_K", QK, 176, wn_q5_k_decode, wn_q5_k_encode },
    [WN_TYPE_Q6_K] = { "Q6_K", QK, 210, wn_q6_k_decode, wn_q6_k_encode },
    [WN_TYPE_Q8_K] = { "Q8_K", QK, 292, NULL, NULL },
    [WN_TYPE_IQ2_XXS] = { "IQ2_XXS", QK, 66, NULL, NULL },
    [WN_TYPE_IQ2_XS] = { "IQ2_XS", QK, 74, NULL, NULL },
    [WN_TYPE_IQ3_XXS] = { "IQ3_XXS", QK, 98, NULL, NULL },
    [WN_TYPE_IQ1_S] = { "IQ1_S", QK, 50, NULL, NULL },
    [WN_TYPE_IQ4_NL] = { "IQ4_NL", 32, 18, wn_iq4_nl_decode, wn_iq4_nl_encode },
    [WN_TYPE_IQ3_S] = { "IQ3_S", QK, 110, NULL, NULL },
    [WN_TYPE_IQ2_S] = { "IQ2_S", QK, 82, NULL, NULL },
    [WN_TYPE_IQ4_XS] = { "IQ4_XS", QK, 136, wn_iq4_xs_decode, wn_iq4_xs_encode },
    [WN_TYPE_I8] = { "I8", 1, 1, NULL, NULL },
    [WN_TYPE_I16] = { "I16", 1, 2, NULL, NULL },
    [WN_TYPE_I32] = { "I32", 1, 4, NULL, NULL },
    [WN_TYPE_I64] = { "I64", 1, 8, NULL, NULL },
    [WN_TYPE_F64] = { "F64", 1, 8, NULL, NULL },
    [WN_TYPE_IQ1_M] = { "IQ1_M", QK, 56, NULL, NULL },
    [WN_TYPE_BF16] = { "BF16", 1, 2, bf16_decode, bf16_encode },
    [WN_TYPE_TQ1_0] = { "TQ1_0", QK, 54, NULL, NULL },
    [WN_TYPE_TQ2_0] = { "TQ2_0", QK, 66, NULL, NULL },
    [WN_TYPE_MXFP4] = { "MXFP4", 32, 17, wn_mxfp4_decode, wn_mxfp4_encode },
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
