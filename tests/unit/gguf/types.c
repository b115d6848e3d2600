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

/* ---- encoders ---- */

/* How far a decoded value may be from the original, as a share of the largest in its block
 * (32 for Q4_0 and Q8_0; 16 or 32 of a super-block): half a code step, plus for K-quants
 * what rounding the sub-scale to 6 or 8 bits adds. */
static void encoders_find_near_codes(void **state)
{
    (void)state;
    static const struct { wn_type t; float bound; } cases[] = {
        { WN_TYPE_F32, 0 },          { WN_TYPE_F16, 0.0005f },  { WN_TYPE_BF16, 0.004f },
        { WN_TYPE_Q8_0, 0.0045f },   { WN_TYPE_Q4_0, 0.126f },  { WN_TYPE_Q4_K, 0.10f },
        { WN_TYPE_Q6_K, 0.036f },
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
        cmocka_unit_test(encoders_find_near_codes),
        cmocka_unit_test(encoders_survive_strange_values),
        cmocka_unit_test(nan_becomes_the_lowest_code),
        cmocka_unit_test(the_table_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
