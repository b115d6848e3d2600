/* kernel/lookup_avx512.c - codes that name rows of a table, sixteen slots or 32 channels at a time;
 * see lookup.h.
 *
 * To find the nearest, four vectors of points are in flight, so that the sums' latencies overlap.
 * Each lane keeps its least distance and which vector it came from; a lane's points ascend, so the
 * first of equals stays, and at the end the lowest point of the least distance is taken over all
 * lanes.
 */
#include "kernel/lookup.h"
#include "kernel/simd_avx512.h"

enum { AT_ONCE = 4, LANES = 16 };

/* ---- the nearest ----------------------------------------------------------------------- */

static void take_nearer(__m512 far, __m512i at, __m512 *best, __m512i *where)
{
    __mmask16 nearer = _mm512_cmp_ps_mask(far, *best, _CMP_LT_OQ);
    *best = _mm512_mask_mov_ps(*best, nearer, far);
    *where = _mm512_mask_mov_epi32(*where, nearer, at);
}

static int nearest(const float *x, const float *table, int c, float *least)
{
    __m512 best = _mm512_set1_ps(INFINITY);
    __m512i where = _mm512_setzero_si512(),
            at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int i = 0; i < WN_LOOKUP_POINTS; i += AT_ONCE * LANES) {
        __m512 far[AT_ONCE];
        for (int v = 0; v < AT_ONCE; v++) far[v] = _mm512_setzero_ps();
        for (int k = 0; k < c; k++) {
            __m512 y = _mm512_set1_ps(x[k]);
            for (int v = 0; v < AT_ONCE; v++) {
                __m512 d = _mm512_sub_ps(y, _mm512_loadu_ps(table + k * WN_LOOKUP_POINTS + i +
                                                            v * LANES));
                far[v] = _mm512_add_ps(far[v], _mm512_mul_ps(d, d));
            }
        }
        for (int v = 0; v < AT_ONCE; v++) {
            take_nearer(far[v], at, &best, &where);
            at = _mm512_add_epi32(at, _mm512_set1_epi32(LANES));
        }
    }
    *least = _mm512_reduce_min_ps(best);
    __mmask16 equal = _mm512_cmp_ps_mask(best, _mm512_set1_ps(*least), _CMP_EQ_OQ);
    return _mm512_mask_reduce_min_epi32(equal, where);
}

/* ---- columns: a lane is a slot ------------------------------------------------------------ */

/* n bytes, 16 at most, and zeros. */
static __m512i bytes_of(const uint8_t *p, int n)
{
    __mmask16 live = n >= LANES ? 0xffff : (__mmask16)((1u << n) - 1);
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(live, p));
}

/* Two rows of sixteen halves. */
static void store_rows(float *out, size_t stride, __m512i two)
{
    _mm512_storeu_ps(out, _mm512_cvtph_ps(_mm512_castsi512_si256(two)));
    _mm512_storeu_ps(out + stride, _mm512_cvtph_ps(_mm512_extracti64x4_epi64(two, 1)));
}

/* Places of one number and then of the next in sixteen slots, of which each has `apart` halves in a
 * row. */
static __m512i places(int apart)
{
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m256i first = _mm512_cvtepi32_epi16(_mm512_mullo_epi32(lane, _mm512_set1_epi32(apart)));
    return _mm512_inserti64x4(_mm512_castsi256_si512(first),
                              _mm256_add_epi16(first, _mm256_set1_epi16(1)), 1);
}

/* Pairs of numbers. */
static void points_2(float *out, size_t stride, const uint16_t *from, const uint8_t *codes, int n)
{
    __m512i pick = places(2);
    for (int s = 0; s < n; s += LANES, out += LANES) {
        __m512i two = _mm512_i32gather_epi32(bytes_of(codes + s, n - s), from, 4);
        store_rows(out, stride, _mm512_permutexvar_epi16(pick, two));
    }
}

/* Four numbers of a point lie in eight bytes: half as many reads as by pairs. */
static void points(float *out, size_t stride, const uint16_t *from, int c, const uint8_t *codes,
                   int n)
{
    __m512i pick = places(4), next = _mm512_add_epi16(pick, _mm512_set1_epi16(2));
    if (c == 2) {
        points_2(out, stride, from, codes, n);
        return;
    }
    for (int s = 0; s < n; s += LANES, out += LANES) {
        __m512i at = _mm512_slli_epi32(bytes_of(codes + s, n - s), c == 8);
        for (int k = 0; k < c; k += 4) {
            __m512i a = _mm512_i32gather_epi64(_mm512_castsi512_si256(at), from + k, 8);
            __m512i b = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64(at, 1), from + k, 8);
            store_rows(out + (size_t)k * stride, stride, _mm512_permutex2var_epi16(a, pick, b));
            store_rows(out + (size_t)(k + 2) * stride, stride,
                       _mm512_permutex2var_epi16(a, next, b));
        }
    }
}

static void levels(float *out, size_t stride, const float *from, int n_channels, int bits,
                   const uint8_t *low, const uint8_t *high, int up, int n)
{
    __m512i mask = _mm512_set1_epi32((1 << bits) - 1), bit = _mm512_set1_epi32(1 << bits);
    for (int s = 0; s < n; s += LANES, out += LANES) {
        __m512i l = bytes_of(low + s, n - s), h = _mm512_setzero_si512();
        if (high)
            h = _mm512_sll_epi32(_mm512_srl_epi32(bytes_of(high + s, n - s), _mm_cvtsi32_si128(up)),
                                 _mm_cvtsi32_si128(bits));
        for (int k = 0; k < n_channels; k++) {
            __m512i code = _mm512_or_si512(_mm512_and_si512(l, mask), _mm512_and_si512(h, bit));
            _mm512_storeu_ps(out + (size_t)k * stride,
                             _mm512_permutexvar_ps(code,
                                                   _mm512_loadu_ps(from + k * WN_LOOKUP_LEVELS)));
            l = _mm512_srl_epi32(l, _mm_cvtsi32_si128(bits));
            h = _mm512_srli_epi32(h, 1);
        }
    }
}

/* ---- turn and mix: see lookup_simd.h -------------------------------------------------------- */

typedef ivec block;

static inline vec v_gather(const float *p, ivec at) { return _mm512_i32gather_ps(at, p, 4); }
static inline ivec i_times(ivec x, int n) { return _mm512_mullo_epi32(x, _mm512_set1_epi32(n)); }

static inline bool in_a_row(const int32_t *rest, const int32_t *upper)
{
    ivec iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return !_mm512_cmpneq_epi32_mask(i_load(rest),
                                     _mm512_add_epi32(_mm512_set1_epi32(rest[0]), iota)) &&
           !_mm512_cmpneq_epi32_mask(i_load(upper), _mm512_set1_epi32(upper[0]));
}

static inline vec first_of(block x) { return _mm512_cvtph_ps(_mm512_castsi512_si256(x)); }
static inline vec second_of(block x) { return _mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1)); }

/* 32 numbers of a slot, from the codes of their groups. */
static inline __attribute__((always_inline)) block read_block(const uint8_t *codes,
                                                              const uint16_t *points, int c)
{
    if (c == 2) {
        __m512i group = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        __m512i at = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)codes));
        return _mm512_i32gather_epi32(_mm512_add_epi32(at, _mm512_slli_epi32(group, 8)), points, 4);
    }
    if (c == 4) {
        __m512i group = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        __m512i at = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const void *)codes));
        return _mm512_i64gather_epi64(_mm512_add_epi64(at, _mm512_slli_epi64(group, 8)), points, 8);
    }
    __m512i x = _mm512_castsi128_si512(_mm_loadu_si128((const void *)(points + codes[0] * 8)));
    x = _mm512_inserti32x4(
        x, _mm_loadu_si128((const void *)(points + (WN_LOOKUP_POINTS + codes[1]) * 8)), 1);
    x = _mm512_inserti32x4(
        x, _mm_loadu_si128((const void *)(points + (2 * WN_LOOKUP_POINTS + codes[2]) * 8)), 2);
    return _mm512_inserti32x4(
        x, _mm_loadu_si128((const void *)(points + (3 * WN_LOOKUP_POINTS + codes[3]) * 8)), 3);
}

#include "kernel/lookup_simd.h"

const wn_lookup_ops wn_lookup_ops_avx512 = { nearest, points, levels, turn, mix };
