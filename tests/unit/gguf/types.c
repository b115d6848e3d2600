/* What the bytes of a tensor mean: halves to the last bit, block layouts against blocks
 * worked out by hand, and encoders that find the nearest code. Every kernel is compared
 * with these decoders, so a mistake here would be a mistake everywhere. */
#include "tests/unit/check.h"

#include <math.h>

#include "gguf/types.h"

/* ---- halves ---- */

/* The value of a half from its definition, in double. */
static double half_value(unsigned h)
{
    double sign = h & 0x8000 ? -1 : 1;
    int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
    if (e == 31) return m ? (double)NAN : sign * (double)INFINITY;
    return sign * (e ? ldexp(1024 + m, e - 25) : ldexp(m, -24));
}

static void every_half_is_exact_and_returns(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = wn_f16_to_f32((uint16_t)h);
        if (isnan(half_value(h))) {
            assert_true(isnan(f));
            assert_true(isnan(wn_f16_to_f32(wn_f32_to_f16(f))));
            assert_int_equal(signbit(f) != 0, h >> 15);
        } else {
            assert_true((double)f == half_value(h));
            assert_int_equal(signbit(f) != 0, h >> 15);
            assert_int_equal(wn_f32_to_f16(f), h);
        }
    }
}

/* Between two neighbouring halves: the midpoint goes to the even one, the floats right
 * below and above it to their side. This covers subnormals, the step to normals and the
 * step to infinity (whose "neighbour" is 65536). */
static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x7c00; h++) {
        double a = half_value(h), b = h + 1 == 0x7c00 ? 65536 : half_value(h + 1);
        float mid = (float)((a + b) / 2);
        assert_true((double)mid == (a + b) / 2);
        unsigned even = h & 1 ? h + 1 : h;
        assert_int_equal(wn_f32_to_f16(mid), even);
        assert_int_equal(wn_f32_to_f16(-mid), even | 0x8000);
        assert_int_equal(wn_f32_to_f16(nextafterf(mid, 0)), h);
        assert_int_equal(wn_f32_to_f16(nextafterf(mid, INFINITY)), h + 1);
    }
    assert_int_equal(wn_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(wn_f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(wn_f32_to_f16(1e-40f), 0);
    assert_true(isnan(wn_f16_to_f32(wn_f32_to_f16(NAN))));
}

static void brain_floats_round_to_nearest_even(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x7f80; h++) {
        float a = wn_bf16_to_f32((uint16_t)h);
        assert_int_equal(wn_f32_to_bf16(a), h);
        union { uint32_t u; float f; } mid = { h << 16 | 0x8000 }, below = { h << 16 | 0x7fff },
                                       above = { h << 16 | 0x8001 };
        assert_int_equal(wn_f32_to_bf16(mid.f), h & 1 ? h + 1 : h);
        assert_int_equal(wn_f32_to_bf16(below.f), h);
        assert_int_equal(wn_f32_to_bf16(above.f), h + 1);
    }
    union { uint32_t u; float f; } nan = { 0x7f800001 };    /* a NaN that truncation would lose */
    assert_true(isnan(wn_bf16_to_f32(wn_f32_to_bf16(nan.f))));
    assert_int_equal(wn_f32_to_bf16(-INFINITY), 0xff80);
}

/* ---- layouts ---- */

static void q8_0_by_hand(void **state)
{
    (void)state;
    uint8_t b[68] = { 0x00, 0x38 };     /* d = 0.5 */
    float x[64];
    for (int i = 0; i < 32; i++) b[2 + i] = (uint8_t)(i * 8 - 128);
    b[35] = 0xc0;                       /* second block: d = -2 */
    b[36] = 3;
    wn_type_find(WN_TYPE_Q8_0)->decode(x, b, 64);
    for (int i = 0; i < 32; i++) assert_true(x[i] == 0.5f * (float)(i * 8 - 128));
    assert_true(x[32] == -6.0f && x[63] == 0);
}

static void q4_0_by_hand(void **state)
{
    (void)state;
    uint8_t b[18] = { 0x00, 0x40 };     /* d = 2 */
    float x[32];
    for (int i = 0; i < 16; i++) b[2 + i] = (uint8_t)(i | (15 - i) << 4);
    wn_type_find(WN_TYPE_Q4_0)->decode(x, b, 32);
    for (int i = 0; i < 16; i++) {
        assert_true(x[i] == 2 * (float)(i - 8));
        assert_true(x[16 + i] == 2 * (float)(7 - i));
    }
}

static void q4_k_by_hand(void **state)
{
    (void)state;
    static const int s[8] = { 1, 2, 3, 63, 17, 32, 48, 63 }, m[8] = { 0, 5, 63, 7, 16, 33, 62, 1 };
    static const uint8_t packed[12] = { 65, 130, 195, 255, 64, 133, 255, 7, 1, 16, 224, 31 };
    uint8_t b[144] = { 0x00, 0x3c, 0x00, 0x38 };        /* d = 1, dmin = 0.5 */
    float x[256];
    memcpy(b + 4, packed, 12);
    for (int run = 0; run < 4; run++)
        for (int i = 0; i < 32; i++)
            b[16 + 32 * run + i] = (uint8_t)((i + run) % 16 | (i * 3 + run) % 16 << 4);
    wn_type_find(WN_TYPE_Q4_K)->decode(x, b, 256);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++) {
            int q = j & 1 ? (i * 3 + j / 2) % 16 : (i + j / 2) % 16;
            assert_true(x[32 * j + i] == (float)(s[j] * q) - 0.5f * (float)m[j]);
        }
}

static void q6_k_by_hand(void **state)
{
    (void)state;
    uint8_t b[210] = { 0 };
    float x[256];
    int q[256];
    for (int i = 0; i < 256; i++) q[i] = (i * 7 + i / 32) % 64;
    for (int half = 0; half < 2; half++)
        for (int l = 0; l < 32; l++) {
            const int *v = q + 128 * half + l;
            b[64 * half + l] = (uint8_t)(v[0] % 16 + v[64] % 16 * 16);
            b[64 * half + 32 + l] = (uint8_t)(v[32] % 16 + v[96] % 16 * 16);
            b[128 + 32 * half + l] =
                (uint8_t)(v[0] / 16 + v[32] / 16 * 4 + v[64] / 16 * 16 + v[96] / 16 * 64);
        }
    for (int j = 0; j < 16; j++) b[192 + j] = (uint8_t)(j * 9 - 70);
    b[209] = 0x34;                      /* d = 0.25 */
    wn_type_find(WN_TYPE_Q6_K)->decode(x, b, 256);
    for (int i = 0; i < 256; i++)
        assert_true(x[i] == 0.25f * (float)((i / 16 * 9 - 70) * (q[i] - 32)));
}

/* Each code of a block is chosen first, stored bit by bit where the format says, and must
 * come back. `code` is different in neighbouring places of every kind. */
static int code(int i, int n) { return (i * 7 + i / 16 * 3 + i / 64) % n; }

/* Bits [at, at + n) of a byte string, the first byte's lowest bit being bit 0. */
static void set_bits(uint8_t *b, int at, int n, int value)
{
    for (int i = 0; i < n; i++)
        if (value >> i & 1) b[(at + i) / 8] = (uint8_t)(b[(at + i) / 8] | 1 << (at + i) % 8);
}

static void q4_1_and_q5_by_hand(void **state)
{
    (void)state;
    uint8_t b41[20] = { 0x00, 0x38, 0x00, 0xc2 };       /* d = 0.5, m = -3 */
    uint8_t b50[22] = { 0x00, 0xb8 };                   /* d = -0.5 */
    uint8_t b51[24] = { 0x00, 0x34, 0x00, 0x45 };       /* d = 0.25, m = 5 */
    float x[32], y[32], z[32];
    for (int i = 0; i < 32; i++) {
        int nibble = i % 16 * 8 + i / 16 * 4, q = code(i, 32);
        set_bits(b41 + 4, nibble, 4, code(i, 16));
        set_bits(b50 + 6, nibble, 4, q % 16);
        set_bits(b50 + 2, i, 1, q / 16);
        set_bits(b51 + 8, nibble, 4, q % 16);
        set_bits(b51 + 4, i, 1, q / 16);
    }
    wn_type_find(WN_TYPE_Q4_1)->decode(x, b41, 32);
    wn_type_find(WN_TYPE_Q5_0)->decode(y, b50, 32);
    wn_type_find(WN_TYPE_Q5_1)->decode(z, b51, 32);
    for (int i = 0; i < 32; i++) {
        assert_true(x[i] == 0.5f * (float)code(i, 16) - 3);
        assert_true(y[i] == -0.5f * (float)(code(i, 32) - 16));
        assert_true(z[i] == 0.25f * (float)code(i, 32) + 5);
    }
}

static void q2_k_and_q3_k_by_hand(void **state)
{
    (void)state;
    uint8_t b2[84] = { 0 }, b3[110] = { 0 };
    float x[256], y[256];
    for (int i = 0; i < 256; i++) {                     /* a byte has k, k + 32, k + 64, k + 96 */
        int at = i / 128 * 256 + i % 32 * 8 + i % 128 / 32 * 2;
        set_bits(b2 + 16, at, 2, code(i, 4));
        set_bits(b3 + 32, at, 2, code(i, 8) % 4);
        set_bits(b3, i % 32 * 8 + i / 32, 1, code(i, 8) / 4);
    }
    for (int j = 0; j < 16; j++) {
        b2[j] = (uint8_t)(j + (15 - j) * 16);           /* scale j, minimum 15 - j */
        int s = code(j, 64);
        set_bits(b3 + 96, j % 8 * 8 + j / 8 * 4, 4, s % 16);
        set_bits(b3 + 104, j % 4 * 8 + j / 4 * 2, 2, s / 16);
    }
    b2[81] = 0x38, b2[83] = 0x40;                       /* d = 0.5, dmin = 2 */
    b3[109] = 0x34;                                     /* d = 0.25 */
    wn_type_find(WN_TYPE_Q2_K)->decode(x, b2, 256);
    wn_type_find(WN_TYPE_Q3_K)->decode(y, b3, 256);
    for (int i = 0; i < 256; i++) {
        int j = i / 16;
        assert_true(x[i] == 0.5f * (float)(j * code(i, 4)) - 2 * (float)(15 - j));
        assert_true(y[i] == 0.25f * (float)((code(j, 64) - 32) * (code(i, 8) - 4)));
    }
}

static void q5_k_by_hand(void **state)
{
    (void)state;
    static const int s[8] = { 1, 2, 3, 63, 17, 32, 48, 63 }, m[8] = { 0, 5, 63, 7, 16, 33, 62, 1 };
    static const uint8_t packed[12] = { 65, 130, 195, 255, 64, 133, 255, 7, 1, 16, 224, 31 };
    uint8_t b[176] = { 0x00, 0x3c, 0x00, 0x38 };        /* d = 1, dmin = 0.5 */
    float x[256];
    memcpy(b + 4, packed, 12);
    for (int i = 0; i < 256; i++) {
        set_bits(b + 48, i / 64 * 256 + i % 32 * 8 + i / 32 % 2 * 4, 4, code(i, 32) % 16);
        set_bits(b + 16, i % 32 * 8 + i / 32, 1, code(i, 32) / 16);
    }
    wn_type_find(WN_TYPE_Q5_K)->decode(x, b, 256);
    for (int i = 0; i < 256; i++)
        assert_true(x[i] == (float)(s[i / 32] * code(i, 32)) - 0.5f * (float)m[i / 32]);
}

static void table_types_by_hand(void **state)
{
    (void)state;
    static const float steps[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113 };
    static const float fours[16] = { 0, 0.5f,  1,  1.5f,  2,  3,  4,  6,
                                     0, -0.5f, -1, -1.5f, -2, -3, -4, -6 };
    static const struct { uint8_t e; float scale;
    } exponents[] = {
        { 0, 0x1p-127f }, { 1, 0x1p-126f }, { 2, 0x1p-125f },
        { 127, 1 },       { 130, 8 },       { 252, 0x1p125f },
    };
    /* d = -0.125; 0.5 */
    uint8_t nl[18] = { 0x00, 0xb0 }, xs[136] = { 0x00, 0x38 }, mx[17] = { 0 };
    float x[32], y[256], z[32];
    for (int i = 0; i < 32; i++) {
        set_bits(nl + 2, i % 16 * 8 + i / 16 * 4, 4, code(i, 16));
        set_bits(mx + 1, i % 16 * 8 + i / 16 * 4, 4, code(i, 16));
    }
    for (int i = 0; i < 256; i++)
        set_bits(xs + 8, i / 32 * 128 + i % 16 * 8 + i % 32 / 16 * 4, 4, code(i, 16));
    for (int j = 0; j < 8; j++) {
        set_bits(xs + 4, 4 * j, 4, code(3 * j, 64) % 16);
        set_bits(xs + 2, 2 * j, 2, code(3 * j, 64) / 16);
    }
    wn_type_find(WN_TYPE_IQ4_NL)->decode(x, nl, 32);
    wn_type_find(WN_TYPE_IQ4_XS)->decode(y, xs, 256);
    for (int i = 0; i < 32; i++) assert_true(x[i] == -0.125f * steps[code(i, 16)]);
    for (int i = 0; i < 256; i++)
        assert_true(y[i] == 0.5f * (float)(code(i / 32 * 3, 64) - 32) * steps[code(i, 16)]);
    for (size_t e = 0; e < WN_COUNT(exponents); e++) {
        mx[0] = exponents[e].e;
        wn_type_find(WN_TYPE_MXFP4)->decode(z, mx, 32);
        for (int i = 0; i < 32; i++) assert_true(z[i] == exponents[e].scale * fours[code(i, 16)]);
    }
}

/* ---- encoders ---- */

/* How far a decoded value may be from the original, as a share of the largest in its block
 * (of 32; 16 or 32 of a super-block): half a code step, a whole one where the codes of one
 * sign end earlier, plus for super-blocks what rounding scales and minimums to 4, 6 or 8
 * bits adds. MXFP4: 10 goes to 8 or 12. */
static void encoders_find_near_codes(void **state)
{
    (void)state;
    static const struct { wn_type t; float bound; } cases[] = {
        { WN_TYPE_F32, 0 },          { WN_TYPE_F16, 0.0005f },  { WN_TYPE_BF16, 0.004f },
        { WN_TYPE_Q8_0, 0.0045f },   { WN_TYPE_Q4_0, 0.126f },  { WN_TYPE_Q4_K, 0.10f },
        { WN_TYPE_Q6_K, 0.036f },    { WN_TYPE_Q4_1, 0.068f },  { WN_TYPE_Q5_0, 0.064f },
        { WN_TYPE_Q5_1, 0.033f },    { WN_TYPE_Q2_K, 0.47f },   { WN_TYPE_Q3_K, 0.33f },
        { WN_TYPE_Q5_K, 0.06f },     { WN_TYPE_IQ4_NL, 0.112f }, { WN_TYPE_IQ4_XS, 0.13f },
        { WN_TYPE_MXFP4, 0.201f },
    };
    uint64_t seed = 42;
    for (size_t c = 0; c < WN_COUNT(cases); c++) {
        const wn_type_info *info = wn_type_find(cases[c].t);
        float x[512], y[512];
        uint8_t b[2048];
        for (int round = 0; round < 50; round++) {
            float largest = 0;
            for (int i = 0; i < 512; i++) {
                x[i] = test_randf(&seed) * 3;
                largest = fmaxf(largest, fabsf(x[i]));
            }
            info->encode(b, x, 512);
            info->decode(y, b, 512);
            for (int i = 0; i < 512; i++)
                assert_true(fabsf(x[i] - y[i]) <= cases[c].bound * largest);
        }
    }
}

/* What came out of a decoder goes through an encoder unchanged: a block of values that lie on
 * the format's grid, the ends of the grid among them. */
static void blocks_on_the_grid_return(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (uint32_t t = 0; t < WN_TYPE_COUNT; t++) {
        const wn_type_info *info = wn_type_find(t);
        if (!info || !info->encode || info->block != 32) continue;
        for (int round = 0; round < 20; round++) {
            float x[32], y[32];
            uint8_t b[40], c[40];
            for (size_t i = 0; i < info->block_bytes; i++) b[i] = (uint8_t)test_rand(&seed);
            /* d = 0.25 */
            b[0] = t == WN_TYPE_MXFP4 ? 100 : 0, b[1] = t == WN_TYPE_MXFP4 ? b[1] : 0x34;
            if (t == WN_TYPE_Q4_1 || t == WN_TYPE_Q5_1) b[2] = 0, b[3] = 0xc4;      /* m = -4 */
            if (t == WN_TYPE_Q8_0) b[9] = 0x81;         /* -127; below, the ends of the grid */
            else b[info->block_bytes - 1] = t == WN_TYPE_MXFP4 ? 0xf7 : 0xf0;
            if (t == WN_TYPE_Q5_0 || t == WN_TYPE_Q5_1)
                b[info->block_bytes - 17] = 0x80, b[info->block_bytes - 19] = 0;
            if (t == WN_TYPE_Q8_0)
                for (int i = 2; i < 34; i++) b[i] = b[i] == 0x80 ? 0x81 : b[i];
            info->decode(x, b, 32);
            info->encode(c, x, 32);
            info->decode(y, c, 32);
            assert_memory_equal(x, y, sizeof x);
        }
    }
}

/* Zeros, infinities, NaN and huge values neither trap nor give NaN scales. */
static void encoders_survive_strange_values(void **state)
{
    (void)state;
    static const float strange[] = { 0, -0.0f, 1e-45f, 3e38f, -3e38f, INFINITY, -INFINITY, NAN };
    for (uint32_t t = 0; t < WN_TYPE_COUNT; t++) {
        const wn_type_info *info = wn_type_find(t);
        if (!info || !info->encode || info->block == 1) continue;
        for (size_t s = 0; s < WN_COUNT(strange); s++) {
            float x[256] = { 0 }, y[256];
            uint8_t b[1024];
            x[5] = strange[s];
            x[200] = strange[s];
            info->encode(b, x, 256);
            info->decode(y, b, 256);
            for (int i = 0; i < 256; i++) assert_true(isfinite(y[i]));
        }
    }
}

/* NaN becomes the lowest code, not whatever a conversion to int makes of it. */
static void nan_becomes_the_lowest_code(void **state)
{
    (void)state;
    float x[32] = { 127, NAN }, y[32];
    uint8_t b[34];
    wn_type_find(WN_TYPE_Q8_0)->encode(b, x, 32);
    wn_type_find(WN_TYPE_Q8_0)->decode(y, b, 32);
    assert_true(y[0] == 127 && y[1] == -127 && y[2] == 0);
}

/* ---- the table ---- */

static void the_table_is_whole(void **state)
{
    (void)state;
    for (uint32_t t = 0; t < WN_TYPE_COUNT; t++) {
        const wn_type_info *info = wn_type_find(t);
        if (!info) continue;
        assert_int_equal(wn_type_by_name(info->name), (int)t);
        assert_true(info->block >= 1 && info->block_bytes >= 1);
        assert_int_equal(!info->decode, !info->encode);
        assert_int_equal(wn_type_row_bytes((wn_type)t, 4 * info->block), 4 * info->block_bytes);
    }
    assert_null(wn_type_find(4));
    assert_null(wn_type_find(WN_TYPE_COUNT));
    assert_null(wn_type_find(UINT32_MAX));
    assert_int_equal(wn_type_by_name("q4_k"), WN_TYPE_Q4_K);
    assert_int_equal(wn_type_by_name("q4_z"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_is_exact_and_returns),
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(brain_floats_round_to_nearest_even),
        cmocka_unit_test(q8_0_by_hand),
        cmocka_unit_test(q4_0_by_hand),
        cmocka_unit_test(q4_k_by_hand),
        cmocka_unit_test(q6_k_by_hand),
        cmocka_unit_test(q4_1_and_q5_by_hand),
        cmocka_unit_test(q2_k_and_q3_k_by_hand),
        cmocka_unit_test(q5_k_by_hand),
        cmocka_unit_test(table_types_by_hand),
        cmocka_unit_test(encoders_find_near_codes),
        cmocka_unit_test(blocks_on_the_grid_return),
        cmocka_unit_test(encoders_survive_strange_values),
        cmocka_unit_test(nan_becomes_the_lowest_code),
        cmocka_unit_test(the_table_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
