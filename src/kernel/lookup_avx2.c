/* kernel/lookup_avx2.c - codes that name rows of a table, eight slots or 16 channels at a time; see
 * lookup_avx512.c. */
#include "kernel/lookup.h"
#include "kernel/simd_avx2.h"

#include <string.h>

enum { AT_ONCE = 4, LANES = 8 };

/* ---- the nearest ----------------------------------------------------------------------- */

static void take_nearer(__m256 far, __m256i at, __m256 *best, __m256i *where)
{
    __m256 nearer = _mm256_cmp_ps(far, *best, _CMP_LT_OQ);
    *best = _mm256_blendv_ps(*best, far, nearer);
    *where = _mm256_blendv_epi8(*where, at, _mm256_castps_si256(nearer));
}

static int nearest(const float *x, const float *table, int c, float *least)
{
    __m256 best = _mm256_set1_ps(INFINITY);
    __m256i where = _mm256_setzero_si256(), at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    float lane_best[LANES];
    int32_t lane_at[LANES], found = 0;
    for (int i = 0; i < WN_LOOKUP_POINTS; i += AT_ONCE * LANES) {
        __m256 far[AT_ONCE];
        for (int v = 0; v < AT_ONCE; v++) far[v] = _mm256_setzero_ps();
        for (int k = 0; k < c; k++) {
            __m256 y = _mm256_set1_ps(x[k]);
            for (int v = 0; v < AT_ONCE; v++) {
                __m256 d = _mm256_sub_ps(y, _mm256_loadu_ps(table + k * WN_LOOKUP_POINTS + i +
                                                            v * LANES));
                far[v] = _mm256_add_ps(far[v], _mm256_mul_ps(d, d));
            }
        }
        for (int v = 0; v < AT_ONCE; v++) {
            take_nearer(far[v], at, &best, &where);
            at = _mm256_add_epi32(at, _mm256_set1_epi32(LANES));
        }
    }
    _mm256_storeu_ps(lane_best, best);
    _mm256_storeu_si256((__m256i *)(void *)lane_at, where);
    *least = lane_best[0];
    found = lane_at[0];
    for (int l = 1; l < LANES; l++) {
        if (lane_best[l] > *least || (lane_best[l] == *least && lane_at[l] > found)) continue;
        *least = lane_best[l];
        found = lane_at[l];
    }
    return found;
}

/* ---- columns: a lane is a slot ------------------------------------------------------------ */

/* n bytes, 8 at most, and zeros. */
static __m256i bytes_of(const uint8_t *p, int n)
{
    uint64_t some = 0;
    memcpy(&some, p, (size_t)(n < LANES ? n : LANES));
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)some));
}

static void store_halves(float *out, __m256i halves)
{
    __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(halves),
                                      _mm256_extracti128_si256(halves, 1));
    _mm256_storeu_ps(out, _mm256_cvtph_ps(packed));
}

static void points(float *out, size_t stride, const uint16_t *from, int c, const uint8_t *codes,
                   int n)
{
    for (int s = 0; s < n; s += LANES, out += LANES) {
        /* in pairs of numbers */
        __m256i at = _mm256_slli_epi32(bytes_of(codes + s, n - s), c / 4);
        for (int k = 0; k < c; k += 2) {
            __m256i two = _mm256_i32gather_epi32((const int *)(const void *)(from + k), at, 4);
            store_halves(out + (size_t)k * stride,
                         _mm256_and_si256(two, _mm256_set1_epi32(0xffff)));
            store_halves(out + (size_t)(k + 1) * stride, _mm256_srli_epi32(two, 16));
        }
    }
}

static void levels(float *out, size_t stride, const float *from, int n_channels, int bits,
                   const uint8_t *low, const uint8_t *high, int up, int n)
{
    __m256i mask = _mm256_set1_epi32((1 << bits) - 1), bit = _mm256_set1_epi32(1 << bits);
    for (int s = 0; s < n; s += LANES, out += LANES) {
        __m256i l = bytes_of(low + s, n - s), h = _mm256_setzero_si256();
        if (high)
            h = _mm256_sll_epi32(_mm256_srl_epi32(bytes_of(high + s, n - s), _mm_cvtsi32_si128(up)),
                                 _mm_cvtsi32_si128(bits));
        for (int k = 0; k < n_channels; k++) {
            __m256i code = _mm256_or_si256(_mm256_and_si256(l, mask), _mm256_and_si256(h, bit));
            __m256 few = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from + k * WN_LOOKUP_LEVELS),
                                                  code);
            __m256 more = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from + k * WN_LOOKUP_LEVELS + 8),
                                                   code);
            /* bit 3 to where blends look */
            __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));
            _mm256_storeu_ps(out + (size_t)k * stride, _mm256_blendv_ps(few, more, upper));
            l = _mm256_srl_epi32(l, _mm_cvtsi32_si128(bits));
            h = _mm256_srli_epi32(h, 1);
        }
    }
}

/* ---- turn and mix: see lookup_simd.h -------------------------------------------------------- */

typedef ivec block;

static inline vec v_gather(const float *p, ivec at) { return _mm256_i32gather_ps(p, at, 4); }
static inline ivec i_times(ivec x, int n) { return _mm256_mullo_epi32(x, _mm256_set1_epi32(n)); }

static inline bool in_a_row(const int32_t *rest, const int32_t *upper)
{
    bool row = true;
    for (int i = 1; i < LANES; i++) row &= rest[i] == rest[0] + i && upper[i] == upper[0];
    return row;
}

static inline vec first_of(block x) { return _mm256_cvtph_ps(_mm256_castsi256_si128(x)); }
static inline vec second_of(block x) { return _mm256_cvtph_ps(_mm256_extracti128_si256(x, 1)); }

/* 16 numbers of a slot, from the codes of their groups. */
static inline __attribute__((always_inline)) block read_block(const uint8_t *codes,
                                                              const uint16_t *points, int c)
{
    if (c == 2) {
        __m256i at = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)codes));
        at = _mm256_add_epi32(at, _mm256_setr_epi32(0, 0x100, 0x200, 0x300, 0x400, 0x500, 0x600,
                                                    0x700));
        return _mm256_i32gather_epi32((const int *)(const void *)points, at, 4);
    }
    if (c == 4) {
        int32_t four;
        memcpy(&four, codes, 4);
        __m128i at = _mm_add_epi32(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)),
                                   _mm_setr_epi32(0, 0x100, 0x200, 0x300));
        return _mm256_i32gather_epi64((const long long *)(const void *)points, at, 8);
    }
    __m128i one = _mm_loadu_si128((const void *)(points + codes[0] * 8));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(one),
                                   _mm_loadu_si128(
                                       (const void *)(points + (WN_LOOKUP_POINTS + codes[1]) * 8)),
                                   1);
}

#include "kernel/lookup_simd.h"

const wn_lookup_ops wn_lookup_ops_avx2 = { nearest, points, levels, turn, mix };
