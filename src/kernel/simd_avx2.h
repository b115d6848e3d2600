/* kernel/simd_avx2.h - what a vector of floats is on AVX2: the words that attn_simd.h, codes_simd.h
 * and lookup_simd.h all stand on. What only one of them wants, its own file adds.
 */
#ifndef WN_KERNEL_SIMD_AVX2_H
#define WN_KERNEL_SIMD_AVX2_H

#include <immintrin.h>

typedef __m256 vec;
typedef __m256i ivec;

#define WORD static inline __attribute__((always_inline))

WORD vec v_zero(void) { return _mm256_setzero_ps(); }
WORD vec v_set(float x) { return _mm256_set1_ps(x); }
WORD vec v_load(const float *p) { return _mm256_loadu_ps(p); }
WORD void v_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
WORD vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
WORD vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
WORD vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
WORD vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
WORD vec v_max(vec x, vec m) { return _mm256_max_ps(x, m); }      /* NaN in x gives m */
WORD ivec i_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

#undef WORD
#endif
