/* kernel/codes_avx2.c - what a vector is on AVX2; the loops are in codes_simd.h.
 *
 * vpmaddubsw would saturate with codes of 8 bits, and x has 16 bits anyway: codes are widened, even
 * and odd bytes apart, and multiplied in pairs by vpmaddwd: exact. x of 4 rows takes 8
 * bytes: rows 0 and 2, then 1 and 3.
 */
#include "kernel/codes.h"
#include "kernel/elem.h"
#include "kernel/simd_avx2.h"
#include "kernel/vec.h"

#include <math.h>

enum { W = 8, STEP = 16, QUAD_BYTES = 8 };

#define INLINE static inline __attribute__((always_inline))

INLINE vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); }
INLINE vec v_widen(const uint16_t *h)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)h));
}
INLINE ivec v_int(vec x) { return _mm256_cvtps_epi32(x); }
INLINE ivec v_cut(vec x) { return _mm256_cvttps_epi32(x); }
INLINE vec v_of(ivec x) { return _mm256_cvtepi32_ps(x); }
INLINE vec v_from_bits(ivec x) { return _mm256_castsi256_ps(x); }

/* x where w is not 0, else 0 */
INLINE vec v_or_0(vec w, vec x)
{
    return _mm256_and_ps(x, _mm256_cmp_ps(w, _mm256_setzero_ps(), _CMP_NEQ_UQ));
}

INLINE vec v_finite_or_0(vec x)
{
    return _mm256_and_ps(x, _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.f), x),
                                          _mm256_set1_ps(INFINITY), _CMP_LT_OQ));
}

INLINE void i_store(void *p, ivec x) { _mm256_storeu_si256((__m256i *)p, x); }
INLINE ivec i_shift(ivec x, int n) { return _mm256_sll_epi32(x, _mm_cvtsi32_si128(n)); }
INLINE ivec i_zero(void) { return _mm256_setzero_si256(); }
INLINE ivec i_set(int32_t x) { return _mm256_set1_epi32(x); }
INLINE ivec i_set8(int x) { return _mm256_set1_epi8((char)x); }
INLINE ivec i_and(ivec a, ivec b) { return _mm256_and_si256(a, b); }
INLINE ivec i_or(ivec a, ivec b) { return _mm256_or_si256(a, b); }
INLINE ivec i_add(ivec a, ivec b) { return _mm256_add_epi32(a, b); }
INLINE ivec i_srl(ivec v, const int n) { return _mm256_srli_epi16(v, n); }
INLINE ivec i_sll(ivec v, const int n) { return _mm256_slli_epi16(v, n); }
INLINE ivec i_table(const uint8_t *t)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)t));
}
INLINE ivec i_map(ivec table, ivec v) { return _mm256_shuffle_epi8(table, v); }
INLINE ivec i_bits(vec x)
{
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}
INLINE ivec i_max(ivec a, ivec b) { return _mm256_max_epi32(a, b); }

INLINE uint32_t i_top(ivec x)
{
    __m128i y = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    y = _mm_max_epi32(y, _mm_shuffle_epi32(y, 0x4e));
    y = _mm_max_epi32(y, _mm_shuffle_epi32(y, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(y);
}

INLINE int32_t i_sum(ivec x)
{
    __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    y = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0x4e));
    y = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0xb1));
    return _mm_cvtsi128_si32(y);
}

/* out[i] += the sum of x[i] */
INLINE void i_add_sums(int32_t out[4], const ivec x[4])
{
    ivec a = _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]));
    __m128i d = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)),
            *to = (__m128i *)(void *)out;
    _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), d));
}

INLINE void i_store8(uint8_t *p, ivec x)
{
    __m128i y = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(y, y));
}

INLINE ivec i_count_above(ivec u, vec y, vec mark)
{
    return _mm256_sub_epi32(u, _mm256_castps_si256(_mm256_cmp_ps(y, mark, _CMP_GT_OQ)));
}

/* x[i] + x[i + h] where i & h is 0, else x[i - h] - x[i] */
INLINE vec v_butterfly(vec x, const int h)
{
    const vec minus = h == 1 ? _mm256_setr_ps(0.f, -0.f, 0.f, -0.f, 0.f, -0.f, 0.f, -0.f)
                    : h == 2 ? _mm256_setr_ps(0.f, 0.f, -0.f, -0.f, 0.f, 0.f, -0.f, -0.f)
                             : _mm256_setr_ps(0.f, 0.f, 0.f, 0.f, -0.f, -0.f, -0.f, -0.f);
    vec y = h == 1   ? _mm256_permute_ps(x, 0xb1)
            : h == 2 ? _mm256_permute_ps(x, 0x4e)
                     : _mm256_permute2f128_ps(x, x, 1);
    return _mm256_add_ps(y, _mm256_xor_ps(x, minus));
}

typedef ivec acc;

INLINE acc acc_zero(void) { return _mm256_setzero_si256(); }

INLINE ivec broadcast4(const char *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return _mm256_set1_epi32(x);
}

INLINE acc acc_step(acc a, ivec codes, const char *x, const bool narrow)
{
    (void)narrow;
    ivec even = _mm256_and_si256(codes, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(codes, 8);
    a = _mm256_add_epi32(a, _mm256_madd_epi16(even, broadcast4(x)));
    return _mm256_add_epi32(a, _mm256_madd_epi16(odd, broadcast4(x + 4)));
}

INLINE ivec acc_value(acc a) { return a; }

/* Sixteen rows at a time: four quads, each from 0 1 2 3 to 0 2 1 3. */
INLINE void pack64(void *out, const ivec y[8])
{
    for (int i = 0; i < 4; i++) {
        ivec p = _mm256_permute4x64_epi64(_mm256_packs_epi32(y[2 * i], y[2 * i + 1]), 0xd8);
        p = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(p, 0xd8), 0xd8);
        _mm256_storeu_si256((__m256i *)out + i, p);
    }
}

#undef INLINE
#include "kernel/codes_simd.h"
#include "kernel/codes_rows_simd.h"

const wn_codes_ops wn_codes_ops_avx2 = WN_CODES_OPS;
const wn_planes_ops wn_planes_ops_avx2 = WN_PLANES_OPS;
