/* kernel/simd_avx512.h - what a vector of floats is on AVX-512: the words that attn_simd.h,
 * codes_simd.h and lookup_simd.h all stand on. What only one of them wants, its own file adds.
 */
#ifndef WN_KERNEL_SIMD_AVX512_H
#define WN_KERNEL_SIMD_AVX512_H

#include <immintrin.h>

typedef __m512 vec;
typedef __m512i ivec;

#define WORD static inline __attribute__((always_inline))

WORD vec v_zero(void) { return _mm512_setzero_ps(); }
WORD vec v_set(float x) { return _mm512_set1_ps(x); }
WORD vec v_load(const float *p) { return _mm512_loadu_ps(p); }
WORD void v_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
WORD vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
WORD vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
WORD vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
WORD vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
WORD vec v_max(vec x, vec m) { return _mm512_max_ps(x, m); }      /* NaN in x gives m */
WORD ivec i_load(const void *p) { return _mm512_loadu_si512(p); }

#undef WORD
#endif
