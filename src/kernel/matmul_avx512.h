/* kernel/matmul_avx512.h - what the AVX-512 and AMX files of the products share: leaf
 * operations, and how each type's codes and scales are read from a packed chunk.
 *
 * To be included by files that are compiled for AVX-512 only. A vector holds 16 rows x 4 k
 * (matmul_pack.c draws it); k4 counts vectors in a chunk. The reading serves
 * matmul_unpack_avx512.c, which stores codes for tiles, and matmul_stream_avx512.c, which
 * multiplies them at once. `type` is a constant wherever it is a parameter.
 */
#ifndef WN_KERNEL_MATMUL_AVX512_H
#define WN_KERNEL_MATMUL_AVX512_H

#include "kernel/matmul_ops.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

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

/* ---- scales ------------------------------------------------------------------------- */

INLINE __m512 half16(const uint8_t *src)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)src));
}
INLINE void halves(float out[16], const uint8_t *src) { _mm512_storeu_ps(out, half16(src)); }

/* Scales of block b of a chunk of blocks of 32. */
INLINE __m512 scale_32(const wn_type type, const uint8_t *src, int b)
{
    if (type != WN_TYPE_MXFP4) return half16(src + 32 * b);
    const __m512i two = _mm512_set1_epi32(2);
    __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(src + 16 * b)));
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __m512i small = _mm512_sllv_epi32(_mm512_set1_epi32(0x200000), e);
    return _mm512_castsi512_ps(
        _mm512_mask_blend_epi32(_mm512_cmplt_epi32_mask(e, two), normal, small));
}

/* What the second chain takes away: the offsets of block b, negative. */
INLINE __m512 offset_32(const wn_type type, const uint8_t *src, int n_blocks, int b)
{
    __m512 m = half16(src + wn_at_32(type, n_blocks).m + 32 * (size_t)b);
    return _mm512_castsi512_ps(
        _mm512_xor_si512(_mm512_castps_si512(m), _mm512_set1_epi32(INT32_MIN)));
}

INLINE __m512i low4(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
INLINE __m512i high4(__m512i v) { return low4(_mm512_srli_epi16(v, 4)); }

/* Bytes j and j + 1 of each lane, one in the low byte of each int16. */
INLINE __m512i two_bytes(__m512i v, int j)
{
    v = _mm512_srli_epi32(v, (unsigned)(8 * j));
    __m512i low = _mm512_and_si512(v, _mm512_set1_epi32(0xff));
    return _mm512_or_si512(low,
                           _mm512_slli_epi32(_mm512_and_si512(v, _mm512_set1_epi32(0xff00)), 8));
}
/* Byte j of each lane, unsigned. */
INLINE __m512i byte_of(__m512i v, int j)
{
    return _mm512_and_si512(_mm512_srli_epi32(v, (unsigned)(8 * j)), _mm512_set1_epi32(0xff));
}
/* (scale, 0) for vpdpwssd of a signed scale. */
INLINE __m512i word_of(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi32(0xffff)); }

/* Q4_K and Q5_K. mn: minimums, and behind them scales times 1 << log2_zero. */
INLINE void scales_q45(wn_ready *w, const uint8_t *src, size_t ahead, const unsigned log2_zero)
{
    const __m512i six = _mm512_set1_epi8(63), top = _mm512_set1_epi8(0x30);
    for (int i = 0; i < 256; i += 64) ahead_of(src + i, ahead);
    halves(w->d[0], src);
    halves(w->m[0], src + 32);
    src += WN_AT_Q45_SCALES;
    __m512i a = load(src), b = load(src + 64), c = load(src + 128);
    __m512i sc[2] = { _mm512_and_si512(a, six),
                      _mm512_or_si512(low4(c), _mm512_and_si512(_mm512_srli_epi16(a, 2), top)) };
    __m512i mn[2] = { _mm512_and_si512(b, six),
                      _mm512_or_si512(high4(c), _mm512_and_si512(_mm512_srli_epi16(b, 2), top)) };
    for (int j = 0; j < 8; j++) store(w->sc[j], byte_of(sc[j / 4], j % 4));
    for (int j = 0; j < 4; j++) {
        store(w->mn[j], two_bytes(mn[j / 2], j % 2 * 2));
        store(w->mn[4 + j], _mm512_slli_epi32(two_bytes(sc[j / 2], j % 2 * 2), log2_zero));
    }
}

INLINE void scales_q2_K(wn_ready *w, const uint8_t *src, size_t ahead)
{
    halves(w->d[0], src + WN_AT_Q2_D);
    halves(w->m[0], src + WN_AT_Q2_DMIN);
    ahead_of(src + WN_AT_Q2_D, ahead);
    for (int i = 0; i < 4; i++) {
        __m512i v = load(src + 64 * i), sc = low4(v), mn = high4(v);
        ahead_of(src + 64 * i, ahead);
        for (int j = 0; j < 4; j++) store(w->sc[4 * i + j], byte_of(sc, j));
        for (int j = 0; j < 2; j++) store(w->mn[2 * i + j], two_bytes(mn, 2 * j));
    }
}

INLINE void scales_q3_K(wn_ready *w, const uint8_t *src, size_t ahead)
{
    const __m512i top = _mm512_set1_epi8(0x30), zero = _mm512_set1_epi32(32);
    const uint8_t *s = src + WN_AT_Q3_SCALES;
    halves(w->d[0], src + WN_AT_Q3_D);
    for (int i = 0; i < 224; i += 64) ahead_of(s + i, ahead);
    __m512i low[2] = { load(s), load(s + 64) }, high = load(s + 128);
    UNROLL for (int i = 0; i < 4; i++) {        /* scales 4i .. 4i+3 */
        __m512i v = i < 2 ? low4(low[i]) : high4(low[i - 2]);
        __m512i h = i < 2 ? _mm512_slli_epi16(high, (uint8_t)(4 - 2 * i))
                          : _mm512_srli_epi16(high, (uint8_t)(2 * i - 4));
        v = _mm512_or_si512(v, _mm512_and_si512(h, top));
        for (int j = 0; j < 4; j++)
            store(w->sc[4 * i + j], word_of(_mm512_sub_epi32(byte_of(v, j), zero)));
    }
}

/* words: sub-scales as (scale, 0) for vpdpwssd, else as int32, and pairs of them. */
INLINE void scales_q6_K(wn_ready *w, const uint8_t *src, size_t ahead, const bool words)
{
    for (int i = WN_AT_Q6_SCALES; i < 3392; i += 64) ahead_of(src + i, ahead);
    halves(w->d[0], src + WN_AT_Q6_D);
    for (int i = 0; i < 4; i++) {
        __m512i s = load(src + WN_AT_Q6_SCALES + 64 * i);
        for (int j = 0; j < 4; j++) {
            __m512i v = _mm512_srai_epi32(_mm512_slli_epi32(s, (unsigned)(24 - 8 * j)), 24);
            store(w->sc[4 * i + j], words ? word_of(v) : v);
        }
        for (int j = 0; j < 2 && !words; j++)
            store(w->mn[2 * i + j],
                  _mm512_srai_epi16(_mm512_slli_epi16(two_bytes(s, 2 * j), 8), 8));
    }
}

INLINE void scales_iq4_xs(wn_ready *w, const uint8_t *src, size_t ahead)
{
    const __m512i nibble = _mm512_set1_epi32(15), top = _mm512_set1_epi32(0x30),
                  zero = _mm512_set1_epi32(32);
    ahead_of(src, ahead), ahead_of(src + 64, ahead);
    halves(w->d[0], src);
    __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(src + WN_AT_XS_HIGH)));
    __m512i low = load(src + WN_AT_XS_LOW);
    high = _mm512_slli_epi32(high, 4);
    for (int j = 0; j < 8; j++) {
        __m512i v = _mm512_and_si512(_mm512_srli_epi32(low, (unsigned)(4 * j)), nibble);
        __m512i h = _mm512_and_si512(_mm512_srli_epi32(high, (unsigned)(2 * j)), top);
        store(w->sc[j], _mm512_sub_epi32(_mm512_or_si512(v, h), zero));
    }
}

/* ---- codes -------------------------------------------------------------------------- */

/* The numbers behind 16 codes, plus `zero`, in each quarter of a vector. */
INLINE __m512i table_of(const int8_t table[16], const char zero)
{
    __m128i t = _mm_add_epi8(_mm_loadu_si128((const void *)table), _mm_set1_epi8(zero));
    return _mm512_broadcast_i32x4(t);
}

/* q, with 16 added where the bit of h is set; h: 32 bits of a block for each row, k4 of the
 * block's 8. */
INLINE __m512i with_fifth(__m512i q, __m512i h, const int k4)
{
    const __m512i lane = _mm512_broadcast_i32x4(
        _mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c));
    __m512i bytes = _mm512_shuffle_epi8(h, _mm512_add_epi8(lane, _mm512_set1_epi8((char)(k4 / 2))));
    __m512i bits = _mm512_set1_epi32(k4 % 2 ? (int32_t)0x80402010 : 0x08040201);
    return _mm512_mask_add_epi8(q, _mm512_test_epi8_mask(bytes, bits), q, _mm512_set1_epi8(16));
}

/* Vectors i and 4 + i (i < 4) of a block of 32, or for Q8_0 2i and 2i + 1. */
INLINE void codes_32(const wn_type type, __m512i q[2], const uint8_t *src, int n_blocks, int b,
                     const int i, size_t ahead)
{
    const wn_at32 at = wn_at_32(type, n_blocks);
    if (type == WN_TYPE_Q8_0) {
        const uint8_t *p = src + at.qs + (size_t)(512 * b + 128 * i);
        const __m512i flip = _mm512_set1_epi8(-128);            /* + 128 */
        ahead_of(p, ahead), ahead_of(p + 64, ahead);
        q[0] = _mm512_xor_si512(load(p), flip);
        q[1] = _mm512_xor_si512(load(p + 64), flip);
        return;
    }
    const uint8_t *p = src + at.qs + (size_t)(256 * b + 64 * i);
    __m512i v = load(p);
    ahead_of(p, ahead);
    q[0] = low4(v);
    q[1] = high4(v);
    if (at.high) {
        __m512i h = load(src + at.high + (size_t)(64 * b));
        if (i == 0) ahead_of(src + at.high + (size_t)(64 * b), ahead);
        q[0] = with_fifth(q[0], h, i);
        q[1] = with_fifth(q[1], h, 4 + i);
    }
    if (type == WN_TYPE_IQ4_NL || type == WN_TYPE_MXFP4) {
        __m512i table = type == WN_TYPE_MXFP4 ? table_of(wn_mxfp4_values, 16)
                                              : table_of(wn_iq4_values, -128);
        q[0] = _mm512_shuffle_epi8(table, q[0]);
        q[1] = _mm512_shuffle_epi8(table, q[1]);
    }
}
/* Which vector of the block q[j] of codes_32() is. */
INLINE int k4_of_32(const wn_type type, const int i, const int j)
{
    return type == WN_TYPE_Q8_0 ? 2 * i + j : i + 4 * j;
}

/* (v << n & mask) | to; n < 0: to the right. */
INLINE __m512i put_bits(__m512i to, __m512i v, const int n, const int mask)
{
    v = n < 0 ? _mm512_srli_epi16(v, (uint8_t)-n) : _mm512_slli_epi16(v, (uint8_t)n);
    return _mm512_or_si512(to, _mm512_and_si512(v, _mm512_set1_epi8((char)mask)));
}

/* Q4_K, Q5_K: vectors i and 8 + i (i < 8) of the c-th 64 columns. */
INLINE void codes_run(const wn_type type, __m512i q[2], const uint8_t *src, int c, int i,
                      size_t ahead)
{
    const uint8_t *p = src + (type == WN_TYPE_Q4_K ? WN_AT_Q4_QS : WN_AT_Q5_QS) + 512 * c + 64 * i;
    __m512i v = load(p);
    ahead_of(p, ahead);
    q[0] = low4(v);
    q[1] = high4(v);
    if (type == WN_TYPE_Q4_K) return;
    p = src + WN_AT_Q5_HIGH + 64 * i;
    if (c == 0) ahead_of(p, ahead);
    __m512i h = _mm512_srlv_epi16(load(p), _mm512_set1_epi16((short)(2 * c)));
    q[0] = put_bits(q[0], h, 4, 16);
    q[1] = put_bits(q[1], h, 3, 16);
}

/* Q2_K, Q3_K, Q6_K: vectors i, 8 + i, 16 + i, 24 + i (i < 8) of the n-th 128 columns. */
INLINE void codes_half(const wn_type type, __m512i q[4], const uint8_t *src, int n, int i,
                       size_t ahead)
{
    if (type == WN_TYPE_Q6_K) {
        const uint8_t *ql = src + 1024 * n + 64 * i, *qh = src + WN_AT_Q6_HIGH + 512 * n + 64 * i;
        __m512i a = load(ql), b = load(ql + 512), h = load(qh);
        ahead_of(ql, ahead), ahead_of(ql + 512, ahead), ahead_of(qh, ahead);
        q[0] = put_bits(low4(a), h, 4, 0x30);
        q[1] = put_bits(low4(b), h, 2, 0x30);
        q[2] = put_bits(high4(a), h, 0, 0x30);
        q[3] = put_bits(high4(b), h, -2, 0x30);
        return;
    }
    const uint8_t *p = src + (type == WN_TYPE_Q2_K ? WN_AT_Q2_QS : WN_AT_Q3_QS) + 512 * n + 64 * i;
    __m512i v = load(p);
    ahead_of(p, ahead);
    UNROLL for (int g = 0; g < 4; g++) q[g] = put_bits(_mm512_setzero_si512(), v, -2 * g, 3);
    if (type == WN_TYPE_Q2_K) return;
    p = src + 64 * i;
    if (n == 0) ahead_of(p, ahead);
    __m512i h = _mm512_srlv_epi16(load(p), _mm512_set1_epi16((short)(4 * n)));
    UNROLL for (int g = 0; g < 4; g++) q[g] = put_bits(q[g], h, 2 - g, 4);
}

/* IQ4_XS: vectors i and 4 + i (i < 4) of sub-block j. */
INLINE void codes_xs(__m512i q[2], const uint8_t *src, const int j, const int i, size_t ahead)
{
    const uint8_t *p = src + WN_AT_XS_QS + 256 * j + 64 * i;
    const __m512i table = table_of(wn_iq4_values, -128);
    __m512i v = load(p);
    ahead_of(p, ahead);
    q[0] = _mm512_shuffle_epi8(table, low4(v));
    q[1] = _mm512_shuffle_epi8(table, high4(v));
}

/* ---- sums and chains, for tiles and streams ------------------------------------------------ */

/* fma((float)sum, d * dx, acc) */
INLINE __m512 chain(__m512 acc, __m512i sum, __m512 d, __m512 dx)
{
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(d, dx), acc);
}
INLINE void chain_to(float *out, __m512i sum, const float *d, float dx)
{
    _mm512_storeu_ps(out, chain(_mm512_loadu_ps(out), sum, _mm512_loadu_ps(d), _mm512_set1_ps(dx)));
}

/* -(sum << log2_zero) of the 8 blocks of 32. */
INLINE void starts_32(int32_t start[8], __m256i sums, const int log2_zero)
{
    _mm256_storeu_si256((void *)start, _mm256_sub_epi32(_mm256_setzero_si256(),
                                                        _mm256_slli_epi32(sums, log2_zero)));
}

/* s + pairs of words times sums[0 .. 2n) */
INLINE __m512i add_pairs(__m512i s, const int32_t (*words)[16], const int16_t *sums, int n)
{
    for (int i = 0; i < n; i++) s = _mm512_dpwssd_epi32(s, load(words[i]), four(&sums[2 * i]));
    return s;
}

INLINE void starts_k8(int32_t start[8], const wn_rec *x)
{
    starts_32(start, _mm256_cvtepi16_epi32(_mm_loadu_si128((const void *)x->sum32)), 3);
}

/* What the starts at -zero * sum took away comes back as the total's start. */
INLINE __m512i total_k8(const wn_ready *w, const wn_rec *x)
{
    return add_pairs(_mm512_setzero_si512(), w->mn + 4, x->sum32, 4);
}

/* Both chains of a K-quant with minimums, one panel and one token. */
INLINE void end_k8(const wn_ready *w, const wn_rec *x, float *out, float *min, __m512i total)
{
    chain_to(out, total, w->d[0], x->d256);
    chain_to(min, add_pairs(_mm512_setzero_si512(), w->mn, x->sum32, 4), w->m[0], x->d256);
}

/* start[j] = -(sum of the j-th 16 q << log2_zero); log2_zero < 0: 0 */
INLINE void starts_16(int32_t start[16], const wn_rec *x, const int log2_zero)
{
    __m512i sums = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const void *)x->sum16)),
            none = _mm512_setzero_si512();
    store(start, log2_zero < 0
                     ? none
                     : _mm512_sub_epi32(none, _mm512_slli_epi32(sums, (unsigned)log2_zero)));
}

/* The second chain of Q2_K, whose sub-blocks of 16 have minimums of their own. */
INLINE void end_min_16(const wn_ready *w, const wn_rec *x, float *min)
{
    chain_to(min, add_pairs(_mm512_setzero_si512(), w->mn, x->sum16, 8), w->m[0], x->d256);
}

/* ---- for tiles ------------------------------------------------------------------------ */

/* While tokens [t, t + T) of a chunk's pass: their share of each panel's next chunk. */
INLINE void prefetch_next(const wn_chunk *c, int t, const int T)
{
    if (!c->next) return;
    size_t n = (size_t)c->n_tokens, from = c->next_bytes * (size_t)t / n;
    size_t to = c->next_bytes * (size_t)(t + T) / n;
    for (int p = 0; p < c->n_panels; p++) {
        const char *base = (const char *)c->next + (size_t)p * c->next_stride;
        for (size_t i = (from + 63) & ~(size_t)63; i < to; i += 64)
            _mm_prefetch(base + i, _MM_HINT_T1);
    }
}

/* The second chain of a chunk of blocks of 32: min = fma(m, dx * (float)sum q, min). */
INLINE void min_chains(const wn_chunk *c)
{
    for (int t = 0; t < c->n_tokens; t++) {
        const wn_rec *x = &c->act[t];
        float s[8];
        _mm256_storeu_ps(s,
                         _mm256_mul_ps(_mm256_loadu_ps(x->d), _mm256_cvtepi32_ps(_mm256_loadu_si256(
                                                                  (const void *)x->sum))));
        for (int p = 0; p < c->n_panels; p++) {
            float *out = c->min + t * WN_PART_ROWS + 16 * p;
            __m512 min = _mm512_loadu_ps(out);
            for (int b = 0; b < c->n_blocks; b++)
                min = _mm512_fmadd_ps(_mm512_loadu_ps(c->w[p].m[b]), _mm512_set1_ps(s[b]), min);
            _mm512_storeu_ps(out, min);
        }
    }
}

#endif
