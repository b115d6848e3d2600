/* matmul_unpack_avx512.c - packed chunks into the form of tiles: codes as bytes above their
 * zero point, scales as floats, sub-scales as (scale, 0) or, where tiles use vpmulld, int32.
 * How each type is read stands in matmul_avx512.h. */
#include "kernel/matmul_avx512.h"

INLINE void unpack_32(const wn_type type, wn_ready *w, const uint8_t *src, int n_blocks,
                      size_t ahead)
{
    for (int b = 0; b < n_blocks; b++) {
        ahead_of(src + 32 * b, ahead);
        _mm512_storeu_ps(w->d[b], scale_32(type, src, b));
        if (wn_at_32(type, n_blocks).m)
            _mm512_storeu_ps(w->m[b], offset_32(type, src, n_blocks, b));
        UNROLL for (int i = 0; i < 4; i++) {
            __m512i q[2];
            codes_32(type, q, src, n_blocks, b, i, ahead);
            for (int j = 0; j < 2; j++) store(w->q[8 * b + k4_of_32(type, i, j)], q[j]);
        }
    }
}

#define UNPACK_32(name, type)                                                               \
    static void name(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)           \
    {                                                                                       \
        unpack_32(type, w, src, n_blocks, ahead);                                           \
    }
UNPACK_32(q8_0, WN_TYPE_Q8_0)
UNPACK_32(q4_0, WN_TYPE_Q4_0)
UNPACK_32(q4_1, WN_TYPE_Q4_1)
UNPACK_32(q5_0, WN_TYPE_Q5_0)
UNPACK_32(q5_1, WN_TYPE_Q5_1)
UNPACK_32(iq4_nl, WN_TYPE_IQ4_NL)
UNPACK_32(mxfp4, WN_TYPE_MXFP4)

INLINE void unpack_run(const wn_type type, wn_ready *w, const uint8_t *src, size_t ahead)
{
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < 8; i++) {
            __m512i q[2];
            codes_run(type, q, src, c, i, ahead);
            store(w->q[16 * c + i], q[0]);
            store(w->q[16 * c + 8 + i], q[1]);
        }
}

static void q4_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    scales_q45(w, src, ahead, 3);
    unpack_run(WN_TYPE_Q4_K, w, src, ahead);
}
static void q5_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    scales_q45(w, src, ahead, 4);
    unpack_run(WN_TYPE_Q5_K, w, src, ahead);
}

INLINE void unpack_half(const wn_type type, wn_ready *w, const uint8_t *src, size_t ahead)
{
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 8; i++) {
            __m512i q[4];
            codes_half(type, q, src, n, i, ahead);
            for (int g = 0; g < 4; g++) store(w->q[32 * n + 8 * g + i], q[g]);
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
    scales_q6_K(w, src, ahead, true);
    unpack_half(WN_TYPE_Q6_K, w, src, ahead);
}

static void iq4_xs(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    scales_iq4_xs(w, src, ahead);
    for (int j = 0; j < 8; j++)
        UNROLL for (int i = 0; i < 4; i++) {
            __m512i q[2];
            codes_xs(q, src, j, i, ahead);
            store(w->q[8 * j + i], q[0]);
            store(w->q[8 * j + 4 + i], q[1]);
        }
}

wn_unpack_fn *const wn_unpack_avx512[WN_TYPE_COUNT] = {
    [WN_TYPE_Q8_0] = q8_0,     [WN_TYPE_Q4_0] = q4_0, [WN_TYPE_Q4_1] = q4_1,
    [WN_TYPE_Q5_0] = q5_0,     [WN_TYPE_Q5_1] = q5_1, [WN_TYPE_IQ4_NL] = iq4_nl,
    [WN_TYPE_MXFP4] = mxfp4,   [WN_TYPE_Q2_K] = q2_K, [WN_TYPE_Q3_K] = q3_K,
    [WN_TYPE_Q4_K] = q4_K,     [WN_TYPE_Q5_K] = q5_K, [WN_TYPE_Q6_K] = q6_K,
    [WN_TYPE_IQ4_XS] = iq4_xs,
};
