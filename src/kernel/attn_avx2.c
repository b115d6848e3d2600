/* kernel/attn_avx2.c - what a vector is on AVX2: eight floats; the loops are in attn_simd.h. */
#include "kernel/attn.h"
#include "kernel/exp_avx2.h"
#include "kernel/simd_avx2.h"

enum { W = 8, COLS = 2 };       /* 6 rows x 2 vectors: 12 of 16 registers accumulate */

#define INLINE static inline __attribute__((always_inline))

INLINE vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
INLINE vec v_exp(vec x) { return wn_exp_8(x); }

static const int32_t first_n[16] = { -1, -1, -1, -1, -1, -1, -1, -1 };
INLINE __m256i mask_n(int n)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(first_n + 8 - n));
}
INLINE vec v_load_n(const float *p, int n) { return _mm256_maskload_ps(p, mask_n(n)); }
INLINE void v_store_n(float *p, vec x, int n) { _mm256_maskstore_ps(p, mask_n(n), x); }

INLINE bool v_finite(vec x)
{
    __m256i e = _mm256_set1_epi32(0x7f800000);
    __m256i bad = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(x), e), e);
    return _mm256_testz_si256(bad, bad);
}

INLINE vec widen_8(wn_elem e, __m128i h)
{
    if (e == WN_ELEM_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE vec v_widen(wn_elem e, const void *p, size_t i)
{
    if (e == WN_ELEM_F32) return v_load((const float *)p + i);
    return widen_8(e, _mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)p + i)));
}

INLINE vec v_widen_n(wn_elem e, const void *p, size_t i, int n)
{
    if (e == WN_ELEM_F32) return v_load_n((const float *)p + i, n);
    _Alignas(16) uint16_t h[8] = { 0 };
    for (int k = 0; k < n; k++) h[k] = ((const uint16_t *)p)[i + (size_t)k];
    return widen_8(e, _mm_load_si128((const __m128i *)(const void *)h));
}

INLINE __m128i narrow_bf16(vec x)
{
    __m256i u = _mm256_castps_si256(x), one = _mm256_set1_epi32(1);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), one);
    __m256i r = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    r = _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
    r = _mm256_srli_epi32(r, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}

INLINE void v_narrow(wn_elem e, void *p, size_t i, vec x)
{
    if (e == WN_ELEM_F32) {
        v_store((float *)p + i, x);
        return;
    }
    __m128i h = e == WN_ELEM_F16 ? _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
                                 : narrow_bf16(x);
    _mm_storeu_si128((__m128i *)(void *)((uint16_t *)p + i), h);
}

INLINE void v_transpose(vec r[8])
{
    vec a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        b[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
        b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
        b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
        b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

INLINE vec v_tanh(vec y)
{
    vec sign = _mm256_set1_ps(-0.0f), one = v_set(1.0f), a = _mm256_andnot_ps(sign, y),
        z = v_mul(y, y);
    vec p = v_fma(v_set(WN_TANH_C11), z, v_set(WN_TANH_C9));
    p = v_fma(p, z, v_set(WN_TANH_C7));
    p = v_fma(p, z, v_set(WN_TANH_C5));
    p = v_fma(p, z, v_set(WN_TANH_C3));
    vec small = v_fma(v_mul(p, z), y, y);
    vec e = v_exp(v_mul(v_set(-2.0f), a));
    vec r = v_div(v_sub(one, e), v_add(one, e));
    r = _mm256_or_ps(r, _mm256_and_ps(sign, y));
    return _mm256_blendv_ps(r, small, _mm256_cmp_ps(a, v_set(WN_TANH_SMALL), _CMP_LT_OQ));
}

typedef struct { __m256d lo, hi; } dvec;

INLINE dvec w_zero(void) { return (dvec){ _mm256_setzero_pd(), _mm256_setzero_pd() }; }

INLINE dvec w_squares(dvec s, vec x)
{
    __m256d lo = _mm256_cvtps_pd(_mm256_castps256_ps128(x)),
            hi = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
    return (dvec){ _mm256_fmadd_pd(lo, lo, s.lo), _mm256_fmadd_pd(hi, hi, s.hi) };
}

INLINE __m128 scale_4(__m256d s)
{
    __m256d some = _mm256_cmp_pd(s, _mm256_setzero_pd(), _CMP_GT_OQ);
    return _mm256_cvtpd_ps(_mm256_and_pd(_mm256_div_pd(_mm256_set1_pd(1), _mm256_sqrt_pd(s)),
                                         some));
}

INLINE vec w_scale(dvec s)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(scale_4(s.lo)), scale_4(s.hi), 1);
}

#undef INLINE
#include "kernel/attn_simd.h"

const wn_attn_ops wn_attn_ops_avx2 = WN_ATTN_OPS;
