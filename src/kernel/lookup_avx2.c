/* kernel/lookup_avx2.c - the nearest of 256 points, eight at a time; see lookup_avx512.c. */
#include "kernel/lookup.h"

#include <immintrin.h>
#include <math.h>

enum { AT_ONCE = 4, LANES = 8 };

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
                __m256 d = _mm256_sub_ps(y, _mm256_loadu_ps(table + k * WN_LOOKUP_POINTS + i + v * LANES));
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

const wn_lookup_ops wn_lookup_ops_avx2 = { .nearest = nearest };
