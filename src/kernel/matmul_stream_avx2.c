/* matmul_stream_avx2.c - few tokens: codes go from the stream to the multiplier.
 *
 * With up to three tokens the memory is what is waited for, so a panel's chunk is read
 * once and its codes are used in the registers in which they were made. How each type is
 * read stands in matmul_avx2.h, how long sums may stay in int16 in matmul_avx2.c.
 */
#include "kernel/matmul_avx2.h"

enum { FEW_TOKENS = 3 };
#define UNROLL _Pragma("GCC unroll 8")

/* s += w * q of 8 bits, both signed, widened by `by` (ones, or a sub-scale). */
INLINE __m256i add_wide(__m256i s, __m256i w, __m256i q, __m256i by)
{
    return _mm256_add_epi32(s, _mm256_madd_epi16(madd2(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w)),
                                                 by));
}

INLINE void stream_q8_0(const wn_chunk *c, const uint8_t *src, size_t ahead, const int T)
{
    const __m256i one = _mm256_set1_epi16(1);
    const uint8_t *qs = src + 32 * c->n_blocks;
    for (int b = 0; b < c->n_blocks; b++) {
        __m256i s[FEW_TOKENS][2];
        float d[16];
        for (int t = 0; t < T; t++) s[t][0] = s[t][1] = _mm256_setzero_si256();
        for (int k = 8 * b; k < 8 * b + 8; k++, qs += 64) {
            __m256i w0 = load(qs), w1 = load(qs + 32);
            ahead_of(qs, ahead);
            for (int t = 0; t < T; t++) {
                __m256i q = four(c->act[t].q + 4 * k);
                s[t][0] = add_wide(s[t][0], w0, q, one);
                s[t][1] = add_wide(s[t][1], w1, q, one);
            }
        }
        halves(d, src + 32 * b);
        ahead_of(src + 32 * b, ahead);
        for (int t = 0; t < T; t++)
            for (int h = 0; h < 2; h++)
                chain(c->acc + t * WN_PART_ROWS + 8 * h, s[t][h], d + 8 * h, c->act[t].d[b]);
    }
}

/* Blocks of 32 with codes of 4 or 5 bits; `per` of the four pairs of vectors are added before
 * widening (0: numbers of 8 bits, widened at once). */
INLINE void stream_32(const wn_type type, const wn_chunk *c, const uint8_t *src, size_t ahead,
                      const int T, const int per)
{
    const __m256i one = _mm256_set1_epi16(1);
    for (int b = 0; b < c->n_blocks; b++) {
        __m256i sum[FEW_TOKENS][2], s[FEW_TOKENS][2];
        float d[16], m[16];
        for (int t = 0; t < T; t++)
            sum[t][0] = sum[t][1] = per ? start_32(type, &c->act[t], b) : _mm256_setzero_si256();
        UNROLL for (int i = 0; i < 4; i++)
            UNROLL for (int h = 0; h < 2; h++) {
                __m256i q[2];
                codes_32(type, q, src, c->n_blocks, b, i, h, ahead);
                for (int t = 0; t < T; t++) {
                    __m256i x = four(c->act[t].q + 32 * b + 4 * i),
                            y = four(c->act[t].q + 32 * b + 4 * i + 16);
                    if (!per) {
                        sum[t][h] = add_wide(add_wide(sum[t][h], q[0], x, one), q[1], y, one);
                        continue;
                    }
                    __m256i p = _mm256_add_epi16(madd2(q[0], x), madd2(q[1], y));
                    s[t][h] = i % per ? _mm256_add_epi16(s[t][h], p) : p;
                    if (i % per == per - 1)
                        sum[t][h] = _mm256_add_epi32(sum[t][h], _mm256_madd_epi16(s[t][h], one));
                }
            }
        scale_32(type, d, src, b);
        ahead_of(src + 32 * b, ahead);
        if (wn_at_32(type, c->n_blocks).m) offset_32(type, m, src, c->n_blocks, b);
        for (int t = 0; t < T; t++) {
            for (int h = 0; h < 2; h++)
                chain(c->acc + t * WN_PART_ROWS + 8 * h, sum[t][h], d + 8 * h, c->act[t].d[b]);
            if (wn_at_32(type, c->n_blocks).m)
                chain_min(c->min + t * WN_PART_ROWS, m, &c->act[t], b);
        }
    }
}

/* Q4_K, and Q5_K, whose sums fit int16 for half a sub-block only. */
INLINE void stream_run(const wn_type type, const wn_chunk *c, wn_ready *r, const uint8_t *src,
                       size_t ahead, const int T, const int per)
{
    __m256i sum[4][2];
    scales_q45(r, src, ahead);
    for (int t = 0; t < T; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
    for (int g = 0; g < 4; g++)                         /* two sub-blocks: low and high codes */
        for (int v = 0; v < 8; v += per) {
            __m256i s[FEW_TOKENS][4];
            for (int t = 0; t < T; t++)
                for (int i = 0; i < 4; i++) s[t][i] = _mm256_setzero_si256();
            for (int i = v; i < v + per; i++) {
                __m256i a[2], b[2];
                codes_run(type, a, src, g, i, 0, ahead);
                codes_run(type, b, src, g, i, 1, ahead);
                for (int t = 0; t < T; t++) {
                    __m256i q = four(c->act[t].q + 64 * g + 4 * i),
                            p = four(c->act[t].q + 64 * g + 4 * i + 32);
                    s[t][0] = _mm256_add_epi16(s[t][0], madd2(a[0], q));
                    s[t][1] = _mm256_add_epi16(s[t][1], madd2(b[0], q));
                    s[t][2] = _mm256_add_epi16(s[t][2], madd2(a[1], p));
                    s[t][3] = _mm256_add_epi16(s[t][3], madd2(b[1], p));
                }
            }
            for (int t = 0; t < T; t++)
                for (int i = 0; i < 4; i++) {
                    __m256i sc = load(&r->sc[2 * g + i / 2][8 * (i % 2)]);
                    sum[t][i % 2] = _mm256_add_epi32(sum[t][i % 2], _mm256_madd_epi16(s[t][i], sc));
                }
        }
    end_256(r, c->act, c->acc, c->min, sum, T, 8);
}

/* The sub-block of group g: its fours v and v + 1 of 8 rows. */
INLINE void pair_half(__m256i sum[4][2], const wn_chunk *c, const wn_ready *r, __m256i a, __m256i b,
                      int n, int v, const int g, const int h, const int T)
{
    __m256i sc = load(&r->sc[8 * n + 2 * g + v / 4][8 * h]);
    for (int t = 0; t < T; t++) {
        const int8_t *q = c->act[t].q + 4 * (32 * n + 8 * g + v);
        __m256i p = _mm256_add_epi16(madd2(a, four(q)), madd2(b, four(q + 4)));
        sum[t][h] = _mm256_add_epi32(sum[t][h], _mm256_madd_epi16(p, sc));
    }
}

/* Functions and not loops over g and h: an index the compiler leaves variable puts sum into
 * memory, and each of its 128 additions waits for a store (bench/NOTES.md). */
INLINE void pairs_half(const wn_type type, __m256i sum[4][2], const wn_chunk *c, const wn_ready *r,
                       const uint8_t *src, int n, int v, const int h, size_t ahead, const int T)
{
    __m256i a[4], b[4];
    codes_half(type, a, src, n, v, h, ahead);
    codes_half(type, b, src, n, v + 1, h, ahead);
    pair_half(sum, c, r, a[0], b[0], n, v, 0, h, T);
    pair_half(sum, c, r, a[1], b[1], n, v, 1, h, T);
    pair_half(sum, c, r, a[2], b[2], n, v, 2, h, T);
    pair_half(sum, c, r, a[3], b[3], n, v, 3, h, T);
}

INLINE void stream_half(const wn_type type, const wn_chunk *c, wn_ready *r, const uint8_t *src,
                        size_t ahead, const int T)
{
    __m256i sum[4][2];
    if (type == WN_TYPE_Q2_K) scales_q2_K(r, src, ahead);
    else if (type == WN_TYPE_Q3_K) scales_q3_K(r, src, ahead);
    else scales_q6_K(r, src, ahead);
    start_k16(sum, r, c->act, T, type == WN_TYPE_Q2_K ? -1 : type == WN_TYPE_Q3_K ? 2 : 5);
    for (int n = 0; n < 2; n++)
        for (int v = 0; v < 8; v += 2) {                /* two fours of k of four sub-blocks */
            pairs_half(type, sum, c, r, src, n, v, 0, ahead, T);
            pairs_half(type, sum, c, r, src, n, v, 1, ahead, T);
        }
    end_256(r, c->act, c->acc, c->min, sum, T, type == WN_TYPE_Q2_K ? 16 : 0);
}

INLINE void stream_xs(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead, const int T)
{
    __m256i sum[4][2];
    scales_iq4_xs(r, src, ahead);
    for (int t = 0; t < T; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
    for (int j = 0; j < 8; j++)
        UNROLL for (int i = 0; i < 4; i++)
            UNROLL for (int h = 0; h < 2; h++) {
                __m256i q[2], sc = load(&r->sc[j][8 * h]);
                codes_xs(q, src, j, i, h, ahead);
                for (int t = 0; t < T; t++) {
                    const int8_t *x = c->act[t].q + 32 * j + 4 * i;
                    sum[t][h] = add_wide(add_wide(sum[t][h], q[0], four(x), sc), q[1], four(x + 16),
                                         sc);
                }
            }
    end_256(r, c->act, c->acc, NULL, sum, T, 0);
}

#define STREAM(name, CALL)                                                                  \
    static void name(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead)      \
    {                                                                                       \
        (void)r;                                                                            \
        switch (c->n_tokens) {                                                              \
        case 1: CALL(1); break;                                                             \
        case 2: CALL(2); break;                                                             \
        default: CALL(3);                                                                   \
        }                                                                                   \
    }
#define CALL(T) stream_q8_0(c, src, ahead, T)
STREAM(q8_0, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_Q4_0, c, src, ahead, T, 4)
STREAM(q4_0, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_Q4_1, c, src, ahead, T, 4)
STREAM(q4_1, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_Q5_0, c, src, ahead, T, 2)
STREAM(q5_0, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_Q5_1, c, src, ahead, T, 2)
STREAM(q5_1, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_MXFP4, c, src, ahead, T, 2)
STREAM(mxfp4, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_IQ4_NL, c, src, ahead, T, 0)
STREAM(iq4_nl, CALL)
#undef CALL
#define CALL(T) stream_run(WN_TYPE_Q4_K, c, r, src, ahead, T, 8)
STREAM(q4_K, CALL)
#undef CALL
#define CALL(T) stream_run(WN_TYPE_Q5_K, c, r, src, ahead, T, 4)
STREAM(q5_K, CALL)
#undef CALL
#define CALL(T) stream_half(WN_TYPE_Q2_K, c, r, src, ahead, T)
STREAM(q2_K, CALL)
#undef CALL
#define CALL(T) stream_half(WN_TYPE_Q3_K, c, r, src, ahead, T)
STREAM(q3_K, CALL)
#undef CALL
#define CALL(T) stream_half(WN_TYPE_Q6_K, c, r, src, ahead, T)
STREAM(q6_K, CALL)
#undef CALL
#define CALL(T) stream_xs(c, r, src, ahead, T)
STREAM(iq4_xs, CALL)
#undef CALL

wn_stream_fn *const wn_stream_avx2[WN_TYPE_COUNT] = {
    [WN_TYPE_Q8_0] = q8_0,     [WN_TYPE_Q4_0] = q4_0, [WN_TYPE_Q4_1] = q4_1,
    [WN_TYPE_Q5_0] = q5_0,     [WN_TYPE_Q5_1] = q5_1, [WN_TYPE_IQ4_NL] = iq4_nl,
    [WN_TYPE_MXFP4] = mxfp4,   [WN_TYPE_Q2_K] = q2_K, [WN_TYPE_Q3_K] = q3_K,
    [WN_TYPE_Q4_K] = q4_K,     [WN_TYPE_Q5_K] = q5_K, [WN_TYPE_Q6_K] = q6_K,
    [WN_TYPE_IQ4_XS] = iq4_xs,
};
