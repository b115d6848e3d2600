/* kernel/matmul_avx2.h - what the AVX2 files of the products share: leaf operations, and how
 * each type's codes and scales are read from a packed chunk.
 *
 * To be included by files that are compiled for AVX2 only. A vector holds 8 rows x 4 k, half
 * of what one k4 of a chunk takes (matmul_pack.c draws it); h says which half. The reading serves
 * matmul_unpack_avx2.c, which stores codes for tiles, and matmul_stream_avx2.c, which
 * multiplies them at once. `type` is a constant wherever it is a parameter.
 */
#ifndef WN_KERNEL_MATMUL_AVX2_H
#define WN_KERNEL_MATMUL_AVX2_H

#include "kernel/matmul_ops.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE __m256i load(const void *p) { return _mm256_loadu_si256(p); }
INLINE void store(void *p, __m256i v) { _mm256_storeu_si256(p, v); }
INLINE __m256i four(const void *p)              /* 4 bytes to every lane */
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}
INLINE void ahead_of(const uint8_t *p, size_t ahead)
{
    if (ahead) _mm_prefetch((const char *)p + ahead, _MM_HINT_T0);
}

/* ---- scales ------------------------------------------------------------------------- */

INLINE void halves(float out[16], const uint8_t *src)
{
    _mm256_storeu_ps(out, _mm256_cvtph_ps(_mm_loadu_si128((const void *)src)));
    _mm256_storeu_ps(out + 8, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(src + 16))));
}

INLINE __m256i low4(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
INLINE __m256i high4(__m256i v) { return low4(_mm256_srli_epi16(v, 4)); }

/* Scales of block b of a chunk of blocks of 32. */
INLINE void scale_32(const wn_type type, float out[16], const uint8_t *src, int b)
{
    if (type != WN_TYPE_MXFP4) {
        halves(out, src + 32 * b);
        return;
    }
    for (int h = 0; h < 2; h++) {
        __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(src + 16 * b + 8 * h)));
        __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
        __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), e);
        __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
        store(out + 8 * h, _mm256_blendv_epi8(normal, small, is_small));
    }
}

/* What the second chain takes away: the offsets of block b, negative. */
INLINE void offset_32(const wn_type type, float out[16], const uint8_t *src, int n_blocks, int b)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    halves(out, src + wn_at_32(type, n_blocks).m + 32 * (size_t)b);
    for (int i = 0; i < 16; i += 8)
        _mm256_storeu_ps(out + i, _mm256_xor_ps(_mm256_loadu_ps(out + i), sign));
}

/* What turns a byte's number within a lane into its number within 128 bits; the bytes
 * between stay negative, which shuffle takes for zero. */
INLINE __m256i lane_base(void)
{
    return _mm256_setr_epi8(0, 0, 0, 0, 4, 0, 4, 0, 8, 0, 8, 0, 12, 0, 12, 0,
                            0, 0, 0, 0, 4, 0, 4, 0, 8, 0, 8, 0, 12, 0, 12, 0);
}

/* Byte j of each lane as a pair of equal int16 (unsigned). */
INLINE __m256i byte_pair(__m256i v, int j)
{
    const char c = (char)j, z = -1;
    __m256i order = _mm256_add_epi8(
        _mm256_setr_epi8(c, z, c, z, c, z, c, z, c, z, c, z, c, z, c, z,
                         c, z, c, z, c, z, c, z, c, z, c, z, c, z, c, z),
        lane_base());
    return _mm256_shuffle_epi8(v, order);
}

/* Bytes j and j + 1 of each lane as two int16 (unsigned). */
INLINE __m256i two_bytes(__m256i v, int j)
{
    const char c = (char)j, d = (char)(j + 1), z = -1;
    __m256i order = _mm256_add_epi8(
        _mm256_setr_epi8(c, z, d, z, c, z, d, z, c, z, d, z, c, z, d, z,
                         c, z, d, z, c, z, d, z, c, z, d, z, c, z, d, z),
        lane_base());
    return _mm256_shuffle_epi8(v, order);
}

/* Four scales of 8 rows, bytes of each lane, into sc[j .. j + 3], as pairs. */
INLINE void put_scales(wn_ready *w, __m256i v, int j, int h)
{
    for (int i = 0; i < 4; i++) store(&w->sc[j + i][8 * h], byte_pair(v, i));
}

/* Q4_K and Q5_K. */
INLINE void scales_q45(wn_ready *w, const uint8_t *src, size_t ahead)
{
    const __m256i six = _mm256_set1_epi8(63), top = _mm256_set1_epi8(0x30);
    halves(w->d[0], src);
    halves(w->m[0], src + 32);
    for (int i = 0; i < 256; i += 64) ahead_of(src + i, ahead);
    for (int h = 0; h < 2; h++) {                               /* 8 rows */
        __m256i a = load(src + 64 + 32 * h), b = load(src + 128 + 32 * h),
                c = load(src + 192 + 32 * h);
        __m256i sc[2] = { _mm256_and_si256(a, six),
                          _mm256_or_si256(low4(c),
                                          _mm256_and_si256(_mm256_srli_epi16(a, 2), top)) };
        __m256i mn[2] = { _mm256_and_si256(b, six),
                          _mm256_or_si256(high4(c),
                                          _mm256_and_si256(_mm256_srli_epi16(b, 2), top)) };
        put_scales(w, sc[0], 0, h);
        put_scales(w, sc[1], 4, h);
        for (int j = 0; j < 4; j++) store(&w->mn[j][8 * h], two_bytes(mn[j / 2], j % 2 * 2));
    }
}

INLINE void scales_q2_K(wn_ready *w, const uint8_t *src, size_t ahead)
{
    halves(w->d[0], src + WN_AT_Q2_D);
    halves(w->m[0], src + WN_AT_Q2_DMIN);
    ahead_of(src + WN_AT_Q2_D, ahead);
    for (int i = 0; i < 4; i++)
        for (int h = 0; h < 2; h++) {
            __m256i v = load(src + 64 * i + 32 * h), mn = high4(v);
            if (!h) ahead_of(src + 64 * i, ahead);
            put_scales(w, low4(v), 4 * i, h);
            for (int j = 0; j < 2; j++) store(&w->mn[2 * i + j][8 * h], two_bytes(mn, 2 * j));
        }
}

/* Signed scales in all lanes' bytes, as pairs: [4i .. 4i+3], and pairs of neighbours in mn. */
INLINE void put_signed(wn_ready *w, __m256i s, int i, int h)
{
    for (int j = 0; j < 4; j++) {               /* the byte to the top of both int16, then down */
        __m256i v = _mm256_slli_epi16(byte_pair(s, j), 8);
        store(&w->sc[4 * i + j][8 * h], _mm256_srai_epi16(v, 8));
    }
    for (int j = 0; j < 2; j++) {
        __m256i v = _mm256_slli_epi16(two_bytes(s, 2 * j), 8);
        store(&w->mn[2 * i + j][8 * h], _mm256_srai_epi16(v, 8));
    }
}

INLINE void scales_q3_K(wn_ready *w, const uint8_t *src, size_t ahead)
{
    const __m256i top = _mm256_set1_epi8(0x30), zero = _mm256_set1_epi8(32);
    halves(w->d[0], src + WN_AT_Q3_D);
    src += WN_AT_Q3_SCALES;
    for (int i = 0; i < 224; i += 64) ahead_of(src + i, ahead);
    for (int h = 0; h < 2; h++, src += 32) {
        __m256i a = load(src), b = load(src + 64), c = load(src + 128), v[4];
        v[0] = _mm256_or_si256(low4(a), _mm256_and_si256(_mm256_slli_epi16(c, 4), top));
        v[1] = _mm256_or_si256(low4(b), _mm256_and_si256(_mm256_slli_epi16(c, 2), top));
        v[2] = _mm256_or_si256(high4(a), _mm256_and_si256(c, top));
        v[3] = _mm256_or_si256(high4(b), _mm256_and_si256(_mm256_srli_epi16(c, 2), top));
        for (int i = 0; i < 4; i++) put_signed(w, _mm256_sub_epi8(v[i], zero), i, h);
    }
}

INLINE void scales_q6_K(wn_ready *w, const uint8_t *src, size_t ahead)
{
    halves(w->d[0], src + WN_AT_Q6_D);
    for (int i = WN_AT_Q6_SCALES; i < 3392; i += 64) ahead_of(src + i, ahead);
    for (int i = 0; i < 4; i++)
        for (int h = 0; h < 2; h++) {
            __m256i s = load(src + WN_AT_Q6_SCALES + 64 * i + 32 * h);
            put_signed(w, s, i, h);
        }
}

INLINE void scales_iq4_xs(wn_ready *w, const uint8_t *src, size_t ahead)
{
    const __m256i nibble = _mm256_set1_epi32(15), top = _mm256_set1_epi32(0x30),
                  zero = _mm256_set1_epi32(32);
    ahead_of(src, ahead), ahead_of(src + 64, ahead);
    halves(w->d[0], src);
    for (int h = 0; h < 2; h++) {
        __m256i high = _mm256_cvtepu16_epi32(
            _mm_loadu_si128((const void *)(src + WN_AT_XS_HIGH + 16 * h)));
        __m256i low = load(src + WN_AT_XS_LOW + 32 * h);
        high = _mm256_slli_epi32(high, 4);
        for (int j = 0; j < 8; j++) {
            __m256i v = _mm256_or_si256(_mm256_and_si256(low, nibble), _mm256_and_si256(high, top));
            v = _mm256_and_si256(_mm256_sub_epi32(v, zero), _mm256_set1_epi32(0xffff));
            store(&w->sc[j][8 * h], _mm256_or_si256(v, _mm256_slli_epi32(v, 16)));
            low = _mm256_srli_epi32(low, 4);
            high = _mm256_srli_epi32(high, 2);
        }
    }
}

/* ---- codes -------------------------------------------------------------------------- */

INLINE __m256i table_of(const int8_t table[16], const char zero)
{
    __m128i t = _mm_add_epi8(_mm_loadu_si128((const void *)table), _mm_set1_epi8(zero));
    return _mm256_broadcastsi128_si256(t);
}

/* q, with 16 added where the bit of high is set; high: 32 bits of a block for each row, k4 of
 * the block's 8. */
INLINE __m256i with_fifth(__m256i q, __m256i high, const int k4)
{
    const __m256i lane = _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404,
                                           0x08080808, 0x0c0c0c0c);
    const __m256i bits = _mm256_set1_epi32(k4 % 2 ? (int32_t)0x80402010 : 0x08040201);
    __m256i bytes = _mm256_shuffle_epi8(high,
                                        _mm256_add_epi8(lane, _mm256_set1_epi8((char)(k4 / 2))));
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits);
    return _mm256_or_si256(q, _mm256_and_si256(set, _mm256_set1_epi8(16)));
}

/* Half h of vectors i and 4 + i (i < 4) of a block of 32 of any type but Q8_0. Those of MXFP4
 * above their zero point, those of IQ4_NL signed. */
INLINE void codes_32(const wn_type type, __m256i q[2], const uint8_t *src, int n_blocks, int b,
                     const int i, const int h, size_t ahead)
{
    const wn_at32 at = wn_at_32(type, n_blocks);
    const uint8_t *p = src + at.qs + (size_t)(256 * b + 64 * i + 32 * h);
    __m256i v = load(p);
    if (!h) ahead_of(p, ahead);
    q[0] = low4(v);
    q[1] = high4(v);
    if (at.high) {
        p = src + at.high + (size_t)(64 * b + 32 * h);
        if (!h && i == 0) ahead_of(p, ahead);
        q[0] = with_fifth(q[0], load(p), i);
        q[1] = with_fifth(q[1], load(p), 4 + i);
    }
    if (type == WN_TYPE_IQ4_NL || type == WN_TYPE_MXFP4) {
        __m256i table = type == WN_TYPE_MXFP4 ? table_of(wn_mxfp4_values, 16)
                                              : table_of(wn_iq4_values, 0);
        q[0] = _mm256_shuffle_epi8(table, q[0]);
        q[1] = _mm256_shuffle_epi8(table, q[1]);
    }
}

/* (v << n & mask) | to; n < 0: to the right. */
INLINE __m256i put_bits(__m256i to, __m256i v, const int n, const int mask)
{
    v = n < 0 ? _mm256_srli_epi16(v, -n) : _mm256_slli_epi16(v, n);
    return _mm256_or_si256(to, _mm256_and_si256(v, _mm256_set1_epi8((char)mask)));
}

/* Q4_K, Q5_K: half h of vectors i and 8 + i (i < 8) of the c-th 64 columns. */
INLINE void codes_run(const wn_type type, __m256i q[2], const uint8_t *src, int c, int i,
                      const int h, size_t ahead)
{
    const uint8_t *p = src + (type == WN_TYPE_Q4_K ? WN_AT_Q4_QS : WN_AT_Q5_QS) + 512 * c + 64 * i +
                       32 * h;
    __m256i v = load(p);
    if (!h) ahead_of(p, ahead);
    q[0] = low4(v);
    q[1] = high4(v);
    if (type == WN_TYPE_Q4_K) return;
    p = src + WN_AT_Q5_HIGH + 64 * i + 32 * h;
    if (!h && c == 0) ahead_of(p, ahead);
    __m256i bits = _mm256_srl_epi16(load(p), _mm_cvtsi32_si128(2 * c));
    q[0] = put_bits(q[0], bits, 4, 16);
    q[1] = put_bits(q[1], bits, 3, 16);
}

/* Q2_K, Q3_K, Q6_K: half h of vectors i, 8 + i, 16 + i, 24 + i (i < 8) of the n-th 128 columns. */
INLINE void codes_half(const wn_type type, __m256i q[4], const uint8_t *src, int n, int i,
                       const int h, size_t ahead)
{
    if (type == WN_TYPE_Q6_K) {
        const uint8_t *ql = src + 1024 * n + 64 * i + 32 * h,
                      *qh = src + WN_AT_Q6_HIGH + 512 * n + 64 * i + 32 * h;
        __m256i a = load(ql), b = load(ql + 512), top = load(qh);
        if (!h) ahead_of(ql, ahead), ahead_of(ql + 512, ahead), ahead_of(qh, ahead);
        q[0] = put_bits(low4(a), top, 4, 0x30);
        q[1] = put_bits(low4(b), top, 2, 0x30);
        q[2] = put_bits(high4(a), top, 0, 0x30);
        q[3] = put_bits(high4(b), top, -2, 0x30);
        return;
    }
    const uint8_t *p = src + (type == WN_TYPE_Q2_K ? WN_AT_Q2_QS : WN_AT_Q3_QS) + 512 * n + 64 * i +
                       32 * h;
    __m256i v = load(p), none = _mm256_setzero_si256();
    if (!h) ahead_of(p, ahead);
    for (int g = 0; g < 4; g++) q[g] = put_bits(none, v, -2 * g, 3);
    if (type == WN_TYPE_Q2_K) return;
    p = src + 64 * i + 32 * h;
    if (!h && n == 0) ahead_of(p, ahead);
    __m256i bits = _mm256_srl_epi16(load(p), _mm_cvtsi32_si128(4 * n));
    for (int g = 0; g < 4; g++) q[g] = put_bits(q[g], bits, 2 - g, 4);
}

/* IQ4_XS: half h of vectors i and 4 + i (i < 4) of sub-block j, signed. */
INLINE void codes_xs(__m256i q[2], const uint8_t *src, int j, int i, const int h, size_t ahead)
{
    const uint8_t *p = src + WN_AT_XS_QS + 256 * j + 64 * i + 32 * h;
    const __m256i table = table_of(wn_iq4_values, 0);
    __m256i v = load(p);
    if (!h) ahead_of(p, ahead);
    q[0] = _mm256_shuffle_epi8(table, low4(v));
    q[1] = _mm256_shuffle_epi8(table, high4(v));
}

/* ---- sums and chains, for tiles and streams ------------------------------------------------ */

INLINE __m256i madd2(__m256i u, __m256i q) { return _mm256_maddubs_epi16(u, q); }

/* -zero * (sum of the codes of block b) of a type, to be added. */
INLINE __m256i start_32(const wn_type type, const wn_rec *x, int b)
{
    int zero = wn_log2_zero(type) < 0 ? 0 : 1 << wn_log2_zero(type);
    return _mm256_set1_epi32(-zero * x->sum[b]);
}

/* acc = fma((float)sum, d * dx, acc), 8 rows. */
INLINE void chain(float *acc, __m256i sum, const float *d, float dx)
{
    __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(d), _mm256_set1_ps(dx));
    _mm256_storeu_ps(acc, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_loadu_ps(acc)));
}

/* min = fma(m, dx * (float)sum q, min) of block b, 16 rows. */
INLINE void chain_min(float *min, const float *m, const wn_rec *x, int b)
{
    __m256 s = _mm256_set1_ps(x->d[b] * (float)x->sum[b]);
    for (int h = 0; h < 16; h += 8)
        _mm256_storeu_ps(min + h,
                         _mm256_fmadd_ps(_mm256_loadu_ps(m + h), s, _mm256_loadu_ps(min + h)));
}

/* The second chain of a super-block with n_min minimums. */
INLINE void end_min(const wn_ready *w, const wn_rec *x, float *min, const int n_min)
{
    const int16_t *sums = n_min == 8 ? x->sum32 : x->sum16;
    for (int h = 0; h < 2; h++) {
        __m256i m = _mm256_setzero_si256();
        for (int i = 0; i < n_min / 2; i++)
            m = _mm256_add_epi32(m, _mm256_madd_epi16(load(&w->mn[i][8 * h]), four(&sums[2 * i])));
        chain(min + 8 * h, m, w->m[0] + 8 * h, x->d256);
    }
}

/* Both chains of a super-block. */
INLINE void end_256(const wn_ready *w, const wn_rec *x, float *acc, float *min, __m256i sum[4][2],
                    const int T, const int n_min)
{
    for (int t = 0; t < T; t++) {
        for (int h = 0; h < 2; h++)
            chain(acc + t * WN_PART_ROWS + 8 * h, sum[t][h], w->d[0] + 8 * h, x[t].d256);
        if (n_min) end_min(w, &x[t], min + t * WN_PART_ROWS, n_min);
    }
}

/* What the zero point takes away: -zero * sum_j sc_j sum(q of j); log2_zero < 0: nothing. */
INLINE void start_k16(__m256i sum[4][2], const wn_ready *w, const wn_rec *x, const int T,
                      const int log2_zero)
{
    for (int t = 0; t < T; t++)
        for (int h = 0; h < 2; h++) {
            __m256i z = _mm256_setzero_si256();
            for (int i = 0; i < 8 && log2_zero >= 0; i++)
                z = _mm256_sub_epi32(z, _mm256_madd_epi16(load(&w->mn[i][8 * h]),
                                                          four(&x[t].sum16[2 * i])));
            sum[t][h] = log2_zero < 0 ? z : _mm256_slli_epi32(z, log2_zero);
        }
}

#endif
