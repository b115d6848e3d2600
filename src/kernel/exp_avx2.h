/* kernel/exp_avx2.h - eight exps at once: wn_exp_1() of exp_scalar.h, lane by lane. */
#ifndef WN_KERNEL_EXP_AVX2_H
#define WN_KERNEL_EXP_AVX2_H

#include "kernel/exp_scalar.h"

#include <immintrin.h>

static inline __m256 wn_exp_8(__m256 x)
{
    __m256 one = _mm256_set1_ps(1.0f), round = _mm256_set1_ps(WN_EXP_ROUND);
    __m256 zero = _mm256_cmp_ps(x, _mm256_set1_ps(WN_EXP_MIN), _CMP_LT_OQ);
    x = _mm256_min_ps(_mm256_set1_ps(WN_EXP_MAX), x);       /* in this order NaN comes through */
    __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(WN_EXP_LOG2E), round);
    __m256 n = _mm256_sub_ps(t, round);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-WN_EXP_LN2_HI), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-WN_EXP_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(WN_EXP_C6), r, _mm256_set1_ps(WN_EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(WN_EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(WN_EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(WN_EXP_C2));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    __m256 scale = _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_castps_si256(one)));
    return _mm256_andnot_ps(zero, _mm256_mul_ps(p, scale));
}

#endif
