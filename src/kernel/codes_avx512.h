/* kernel/codes_avx512.h - what a vector is on AVX-512 with VNNI, for the loops of codes_simd.h and
 * for codes_amx.c.
 *
 * vpdpbusd multiplies unsigned bytes (codes) by signed ones, four rows at a time, so x goes in as
 * 256 hi + lo, both signed bytes, into a sum of its own each. Eight sums of a tile's halves
 * and two vectors of codes leave room for the broadcasts. x of 64 rows takes 128 bytes, all hi
 * before all lo: also what two rows of a tile of codes_amx.c are.
 */
#ifndef WN_KERNEL_CODES_AVX512_H
#define WN_KERNEL_CODES_AVX512_H

#include "kernel/codes.h"
#include "kernel/elem.h"
#include "kernel/simd_avx512.h"
#include "kernel/vec.h"

#include <math.h>

enum { W = 16, STEP = 32, QUAD_BYTES = 4 };

#define INLINE static inline __attribute__((always_inline))

INLINE vec v_widen(const uint16_t *h)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)h));
}
INLINE ivec v_int(vec x) { return _mm512_cvtps_epi32(x); }
INLINE vec v_of(ivec x) { return _mm512_cvtepi32_ps(x); }
INLINE vec v_from_bits(ivec x) { return _mm512_castsi512_ps(x); }

/* x where w is not 0, else 0 */
INLINE vec v_or_0(vec w, vec x)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(w, _mm512_setzero_ps(), _CMP_NEQ_UQ), x);
}

INLINE vec v_finite_or_0(vec x)
{
    return _mm512_maskz_mov_ps((__mmask16)~_mm512_fpclass_ps_mask(x, 0x99), x);
}

INLINE void i_store(void *p, ivec x) { _mm512_storeu_si512(p, x); }
INLINE ivec i_shift(ivec x, int n) { return _mm512_sll_epi32(x, _mm_cvtsi32_si128(n)); }
INLINE ivec i_zero(void) { return _mm512_setzero_si512(); }
INLINE ivec i_set(int32_t x) { return _mm512_set1_epi32(x); }
INLINE ivec i_set8(int x) { return _mm512_set1_epi8((char)x); }
INLINE ivec i_and(ivec a, ivec b) { return _mm512_and_si512(a, b); }
INLINE ivec i_or(ivec a, ivec b) { return _mm512_or_si512(a, b); }
INLINE ivec i_add(ivec a, ivec b) { return _mm512_add_epi32(a, b); }
#define i_srl(v, n) _mm512_srli_epi16(v, (uint8_t)(n))
#define i_sll(v, n) _mm512_slli_epi16(v, (uint8_t)(n))
INLINE ivec i_table(const uint8_t *t)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)t));
}
INLINE ivec i_map(ivec table, ivec v) { return _mm512_shuffle_epi8(table, v); }
INLINE ivec i_bits(vec x)
{
    return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}
INLINE ivec i_max(ivec a, ivec b) { return _mm512_max_epi32(a, b); }
INLINE uint32_t i_top(ivec x) { return (uint32_t)_mm512_reduce_max_epi32(x); }
INLINE int32_t i_sum(ivec x) { return _mm512_reduce_add_epi32(x); }

/* out[i] += the sum of x[i] */
INLINE void i_add_sums(int32_t out[4], const ivec x[4])
{
    ivec a = _mm512_add_epi32(_mm512_unpacklo_epi32(x[0], x[1]), _mm512_unpackhi_epi32(x[0], x[1]));
    ivec b = _mm512_add_epi32(_mm512_unpacklo_epi32(x[2], x[3]), _mm512_unpackhi_epi32(x[2], x[3]));
    a = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    __m256i c = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    __m128i d = _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1)),
            *to = (__m128i *)(void *)out;
    _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), d));
}

typedef struct { ivec hi, lo; } acc;

INLINE acc acc_zero(void) { return (acc){ _mm512_setzero_si512(), _mm512_setzero_si512() }; }

INLINE ivec broadcast4(const char *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return _mm512_set1_epi32(x);
}

/* The product is in assembly because gcc 12 gives the intrinsic copies between registers, which
 * take as many slots as the products. A broadcast serves both vectors of a tile: as an operand
 * from memory it would be loaded for each. */
INLINE acc acc_step(acc a, ivec codes, const char *x, const bool narrow)
{
    if (!narrow) __asm__("vpdpbusd %2, %1, %0" : "+v"(a.hi) : "v"(codes), "v"(broadcast4(x)));
    __asm__("vpdpbusd %2, %1, %0" : "+v"(a.lo) : "v"(codes), "v"(broadcast4(x + WN_CODES_BLOCK)));
    return a;
}

INLINE ivec acc_value(acc a) { return _mm512_add_epi32(_mm512_slli_epi32(a.hi, 8), a.lo); }

/* Packing keeps 128-bit lanes apart: lane l of y[j] is rows 4 (4 j + l) .. + 3, and ends up as
 * the j-th four bytes of lane l. */
INLINE void pack64(void *out, const ivec y[4])
{
    const ivec in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    ivec a = _mm512_packs_epi32(y[0], y[1]), b = _mm512_packs_epi32(y[2], y[3]),
         half = _mm512_set1_epi16(128);
    ivec hi = _mm512_packs_epi16(_mm512_srai_epi16(_mm512_add_epi16(a, half), 8),
                                 _mm512_srai_epi16(_mm512_add_epi16(b, half), 8));
    ivec byte = _mm512_set1_epi16(255);
    ivec lo = _mm512_packus_epi16(_mm512_and_si512(a, byte), _mm512_and_si512(b, byte));
    _mm512_storeu_si512(out, _mm512_permutexvar_epi32(in_order, hi));
    _mm512_storeu_si512((char *)out + 64, _mm512_permutexvar_epi32(in_order, lo));
}

INLINE vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE ivec v_cut(vec x) { return _mm512_cvttps_epi32(x); }
INLINE void i_store8(uint8_t *p, ivec x)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(x));
}

INLINE ivec i_count_above(ivec u, vec y, vec mark)
{
    return _mm512_mask_add_epi32(u, _mm512_cmp_ps_mask(y, mark, _CMP_GT_OQ), u,
                                 _mm512_set1_epi32(1));
}

/* x[i] + x[i + h] where i & h is 0, else x[i - h] - x[i] */
INLINE vec v_butterfly(vec x, const int h)
{
    const __m512i minus = _mm512_set1_epi32(INT32_MIN);
    vec y = h == 1 ? _mm512_permute_ps(x, 0xb1) : h == 2 ? _mm512_permute_ps(x, 0x4e)
          : h == 4 ? _mm512_shuffle_f32x4(x, x, 0xb1) : _mm512_shuffle_f32x4(x, x, 0x4e);
    const __mmask16 odd = h == 1 ? 0xaaaa : h == 2 ? 0xcccc : h == 4 ? 0xf0f0 : 0xff00;
    ivec z = _mm512_castps_si512(x);
    return _mm512_add_ps(y, _mm512_castsi512_ps(_mm512_mask_xor_epi32(z, odd, z, minus)));
}

#undef INLINE
#endif
