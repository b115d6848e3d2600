/* kernel/exp_avx512.h - sixteen exps at once: wn_exp_1() of exp_scalar.h, lane by lane. */
#ifndef WN_KERNEL_EXP_AVX512_H
#define WN_KERNEL_EXP_AVX512_H

#include "kernel/exp_scalar.h"

#include <immintrin.h>

static inline __m512 wn_exp_16(__m512 x)
{
    __m512 one = _mm512_set1_ps(1.0f), round = _mm512_set1_ps(WN_EXP_ROUND);
    /* not (x < min): NaN is kept */
    __mmask16 live = _mm512_cmp_ps_mask(x, _mm512_set1_ps(WN_EXP_MIN), _CMP_NLT_UQ);
    x = _mm512_min_ps(_mm512_set1_ps(WN_EXP_MAX), x);       /* in this order NaN comes through */
    __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(WN_EXP_LOG2E), round);
    __m512 n = _mm512_sub_ps(t, round);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-WN_EXP_LN2_HI), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-WN_EXP_LN2_LO), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(WN_EXP_C6), r, _mm512_set1_ps(WN_EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(WN_EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(WN_EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(WN_EXP_C2));
    p = _mm512_fmadd_ps(p, r, one);
    p = _mm512_fmadd_ps(p, r, one);
    __m512i bits = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    __m512 scale = _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_castps_si512(one)));
    return _mm512_maskz_mul_ps(live, p, scale);
}

#endif
