/* kernel/matmul_avx512.h - what the AVX-512 and AMX files of the products share.
 *
 * Leaf operations on vectors of 16 lanes of 32 bits, to be included by files that are
 * compiled for AVX-512 only. A vector holds 16 rows x 4 k (matmul_pack.c draws it).
 */
#ifndef WN_KERNEL_MATMUL_AVX512_H
#define WN_KERNEL_MATMUL_AVX512_H

#include "kernel/matmul_ops.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE __m512i load(const void *p) { return _mm512_loadu_si512(p); }
INLINE void store(void *p, __m512i v) { _mm512_storeu_si512(p, v); }
INLINE __m512i four(const void *p)              /* 4 bytes to every lane */
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

INLINE void ahead_of(const uint8_t *p, size_t ahead)
{
    if (ahead) _mm_prefetch((const char *)p + ahead, _MM_HINT_T0);
}

/* While tokens [t, t + T) of a chunk's pass: their share of each panel's next chunk. */
INLINE void prefetch_next(const wn_chunk *c, int t, const int T)
{
    if (!c->next) return;
    size_t n = (size_t)c->n_tokens, from = c->next_bytes * (size_t)t / n;
    size_t to = c->next_bytes * (size_t)(t + T) / n;
    for (int p = 0; p < c->n_panels; p++) {
        const char *base = (const char *)c->next + (size_t)p * c->next_stride;
        for (size_t i = (from + 63) & ~(size_t)63; i < to; i += 64) _mm_prefetch(base + i, _MM_HINT_T1);
    }
}

#endif
