/* kernel/attn_avx512.c - what a vector is on AVX-512: sixteen floats; the loops are in
 * attn_simd.h. */
#include "kernel/attn.h"
#include "kernel/exp_avx512.h"
#include "kernel/simd_avx512.h"

enum { W = 16, COLS = 4 };      /* 6 rows x 4 vectors: 24 of 32 registers accumulate */

#define INLINE static inline __attribute__((always_inline))

INLINE vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
INLINE vec v_exp(vec x) { return wn_exp_16(x); }

INLINE __mmask16 mask_n(int n) { return (__mmask16)((1u << n) - 1); }
INLINE vec v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(mask_n(n), p); }
INLINE void v_store_n(float *p, vec x, int n) { _mm512_mask_storeu_ps(p, mask_n(n), x); }

INLINE bool v_finite(vec x)
{
    __m512i e = _mm512_set1_epi32(0x7f800000);
    return !_mm512_cmpeq_epi32_mask(_mm512_and_si512(_mm512_castps_si512(x), e), e);
}

INLINE vec widen_16(wn_elem e, __m256i h)
{
    if (e == WN_ELEM_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE vec v_widen(wn_elem e, const void *p, size_t i)
{
    if (e == WN_ELEM_F32) return v_load((const float *)p + i);
    return widen_16(e,
                    _mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)p + i)));
}

INLINE vec v_widen_n(wn_elem e, const void *p, size_t i, int n)
{
    if (e == WN_ELEM_F32) return v_load_n((const float *)p + i, n);
    return widen_16(e, _mm256_maskz_loadu_epi16(mask_n(n), (const uint16_t *)p + i));
}

INLINE __m256i narrow_bf16(vec x)
{
    __m512i u = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
}

INLINE void v_narrow(wn_elem e, void *p, size_t i, vec x)
{
    if (e == WN_ELEM_F32) {
        v_store((float *)p + i, x);
        return;
    }
    __m256i h = e == WN_ELEM_F16 ? _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
                                 : narrow_bf16(x);
    _mm256_storeu_si256((__m256i *)(void *)((uint16_t *)p + i), h);
}

/* Pairs, then quads within 128 bits, then the 4 x 4 blocks of 128 bits themselves. */
INLINE void v_transpose(vec r[16])
{
    vec a[16], b[16];
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        b[4 * i] = _mm512_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
        b[4 * i + 1] = _mm512_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
        b[4 * i + 2] = _mm512_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
        b[4 * i + 3] = _mm512_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {       /* b[4k + i]: rows 4k.., columns i, 4 + i, 8 + i, 12 + i */
        vec lo = _mm512_shuffle_f32x4(b[i], b[4 + i], 0x88),
            hi = _mm512_shuffle_f32x4(b[i], b[4 + i], 0xdd);
        vec lo2 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0x88);
        vec hi2 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0xdd);
        r[i] = _mm512_shuffle_f32x4(lo, lo2, 0x88);
        r[8 + i] = _mm512_shuffle_f32x4(lo, lo2, 0xdd);
        r[4 + i] = _mm512_shuffle_f32x4(hi, hi2, 0x88);
        r[12 + i] = _mm512_shuffle_f32x4(hi, hi2, 0xdd);
    }
}

INLINE vec v_tanh(vec y)
{
    vec one = v_set(1.0f), a = _mm512_abs_ps(y), z = v_mul(y, y);
    vec p = v_fma(v_set(WN_TANH_C11), z, v_set(WN_TANH_C9));
    p = v_fma(p, z, v_set(WN_TANH_C7));
    p = v_fma(p, z, v_set(WN_TANH_C5));
    p = v_fma(p, z, v_set(WN_TANH_C3));
    vec small = v_fma(v_mul(p, z), y, y);
    vec e = v_exp(v_mul(v_set(-2.0f), a));
    vec r = v_div(v_sub(one, e), v_add(one, e));
    __m512i sign = _mm512_and_si512(_mm512_castps_si512(y), _mm512_set1_epi32(INT32_MIN));
    r = _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(r), sign));
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, v_set(WN_TANH_SMALL), _CMP_LT_OQ), r, small);
}

typedef struct { __m512d lo, hi; } dvec;

INLINE dvec w_zero(void) { return (dvec){ _mm512_setzero_pd(), _mm512_setzero_pd() }; }

INLINE dvec w_squares(dvec s, vec x)
{
    __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(x)),
            hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
    return (dvec){ _mm512_fmadd_pd(lo, lo, s.lo), _mm512_fmadd_pd(hi, hi, s.hi) };
}

INLINE __m256 scale_8(__m512d s)
{
    __mmask8 some = _mm512_cmp_pd_mask(s, _mm512_setzero_pd(), _CMP_GT_OQ);
    return _mm512_cvtpd_ps(_mm512_maskz_div_pd(some, _mm512_set1_pd(1), _mm512_sqrt_pd(s)));
}

INLINE vec w_scale(dvec s)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(scale_8(s.lo)), scale_8(s.hi), 1);
}

#undef INLINE
#include "kernel/attn_simd.h"

const wn_attn_ops wn_attn_ops_avx512 = WN_ATTN_OPS;
