/* matmul_unpack_avx2.c - packed chunks into the form of tiles: codes as bytes above their zero
 * point (of types of 8 bits: signed, and their absolute values beside them), scales as floats,
 * sub-scales as pairs of int16. How each type is read stands in matmul_avx2.h. */
#include "kernel/matmul_avx2.h"

static void q8_0(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    const uint8_t *qs = src + 32 * n_blocks;
    uint8_t *q = w->q[0], *a = w->a[0];
    for (int b = 0; b < n_blocks; b++) halves(w->d[b], src + 32 * b);
    for (int i = 0; i < n_blocks * 32; i += 32) ahead_of(src + i, ahead);
    for (int i = 0; i < n_blocks * 512; i += 64) {
        __m256i v0 = load(qs + i), v1 = load(qs + i + 32);
        ahead_of(qs + i, ahead);
        store(q + i, v0);
        store(q + i + 32, v1);
        store(a + i, _mm256_abs_epi8(v0));
        store(a + i + 32, _mm256_abs_epi8(v1));
    }
}

/* Half h of two vectors, k4 and step further; wide: their absolute values too. */
INLINE void put_two(wn_ready *w, const __m256i q[2], int k4, int step, int h, const bool wide)
{
    for (int j = 0; j < 2; j++) {
        store(w->q[k4 + j * step] + 32 * h, q[j]);
        if (wide) store(w->a[k4 + j * step] + 32 * h, _mm256_abs_epi8(q[j]));
    }
}

INLINE void unpack_32(const wn_type type, wn_ready *w, const uint8_t *src, int n_blocks,
                      size_t ahead)
{
    for (int b = 0; b < n_blocks; b++) {
        ahead_of(src + 32 * b, ahead);
        scale_32(type, w->d[b], src, b);
        if (wn_at_32(type, n_blocks).m) offset_32(type, w->m[b], src, n_blocks, b);
        for (int i = 0; i < 8; i++) {
            __m256i q[2];
            codes_32(type, q, src, n_blocks, b, i / 2, i % 2, ahead);
            put_two(w, q, 8 * b + i / 2, 4, i % 2, type == WN_TYPE_IQ4_NL);
        }
    }
}

#define UNPACK_32(name, type)                                                               \
    static void name(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)           \
    {                                                                                       \
        unpack_32(type, w, src, n_blocks, ahead);                                           \
    }
UNPACK_32(q4_0, WN_TYPE_Q4_0)
UNPACK_32(q4_1, WN_TYPE_Q4_1)
UNPACK_32(q5_0, WN_TYPE_Q5_0)
UNPACK_32(q5_1, WN_TYPE_Q5_1)
UNPACK_32(iq4_nl, WN_TYPE_IQ4_NL)
UNPACK_32(mxfp4, WN_TYPE_MXFP4)

INLINE void unpack_run(const wn_type type, wn_ready *w, const uint8_t *src, size_t ahead)
{
    scales_q45(w, src, ahead);
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < 8; i++)
            for (int h = 0; h < 2; h++) {
                __m256i q[2];
                codes_run(type, q, src, c, i, h, ahead);
                put_two(w, q, 16 * c + i, 8, h, false);
            }
}
static void q4_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    unpack_run(WN_TYPE_Q4_K, w, src, ahead);
}
static void q5_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    unpack_run(WN_TYPE_Q5_K, w, src, ahead);
}

INLINE void unpack_half(const wn_type type, wn_ready *w, const uint8_t *src, size_t ahead)
{
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 8; i++)
            for (int h = 0; h < 2; h++) {
                __m256i q[4];
                codes_half(type, q, src, n, i, h, ahead);
                for (int g = 0; g < 4; g++) store(w->q[32 * n + 8 * g + i] + 32 * h, q[g]);
            }
}
static void q2_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    scales_q2_K(w, src, ahead);
    unpack_half(WN_TYPE_Q2_K, w, src, ahead);
}
static void q3_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    scales_q3_K(w, src, ahead);
    unpack_half(WN_TYPE_Q3_K, w, src, ahead);
}
static void q6_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    scales_q6_K(w, src, ahead);
    unpack_half(WN_TYPE_Q6_K, w, src, ahead);
}

static void iq4_xs(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    scales_iq4_xs(w, src, ahead);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 4; i++)
            for (int h = 0; h < 2; h++) {
                __m256i q[2];
                codes_xs(q, src, j, i, h, ahead);
                put_two(w, q, 8 * j + i, 4, h, true);
            }
}

wn_unpack_fn *const wn_unpack_avx2[WN_TYPE_COUNT] = {
    [WN_TYPE_Q8_0] = q8_0,     [WN_TYPE_Q4_0] = q4_0, [WN_TYPE_Q4_1] = q4_1,
    [WN_TYPE_Q5_0] = q5_0,     [WN_TYPE_Q5_1] = q5_1, [WN_TYPE_IQ4_NL] = iq4_nl,
    [WN_TYPE_MXFP4] = mxfp4,   [WN_TYPE_Q2_K] = q2_K, [WN_TYPE_Q3_K] = q3_K,
    [WN_TYPE_Q4_K] = q4_K,     [WN_TYPE_Q5_K] = q5_K, [WN_TYPE_Q6_K] = q6_K,
    [WN_TYPE_IQ4_XS] = iq4_xs,
};
