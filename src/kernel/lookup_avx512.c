/* kernel/lookup_avx512.c - the nearest of 256 points, sixteen at a time; see lookup.h.
 *
 * Four vectors of points are in flight, so that the sums' latencies overlap. Each lane keeps its
 * least distance and which vector it came from; a lane's points ascend, so the first of equals
 * stays, and at the end the lowest point of the least distance is taken over all lanes.
 */
#include "kernel/lookup.h"

#include <immintrin.h>
#include <math.h>

enum { AT_ONCE = 4, LANES = 16 };

static void take_nearer(__m512 far, __m512i at, __m512 *best, __m512i *where)
{
    __mmask16 nearer = _mm512_cmp_ps_mask(far, *best, _CMP_LT_OQ);
    *best = _mm512_mask_mov_ps(*best, nearer, far);
    *where = _mm512_mask_mov_epi32(*where, nearer, at);
}

static int nearest(const float *x, const float *table, int c, float *least)
{
    __m512 best = _mm512_set1_ps(INFINITY);
    __m512i where = _mm512_setzero_si512(), at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int i = 0; i < WN_LOOKUP_POINTS; i += AT_ONCE * LANES) {
        __m512 far[AT_ONCE];
        for (int v = 0; v < AT_ONCE; v++) far[v] = _mm512_setzero_ps();
        for (int k = 0; k < c; k++) {
            __m512 y = _mm512_set1_ps(x[k]);
            for (int v = 0; v < AT_ONCE; v++) {
                __m512 d = _mm512_sub_ps(y, _mm512_loadu_ps(table + k * WN_LOOKUP_POINTS + i + v * LANES));
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

const wn_lookup_ops wn_lookup_ops_avx512 = { .nearest = nearest };
