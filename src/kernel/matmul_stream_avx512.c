/* matmul_stream_avx512.c - few tokens: codes go from the stream to the multiplier.
 *
 * With up to 16 tokens the memory is what is waited for, so a panel's chunk is read once,
 * and its codes are used in the registers in which they were made, for eight tokens at a
 * time (the second eight find the chunk in L1). How each type is read stands in
 * matmul_avx512.h, how sums are kept exact in matmul_avx512.c.
 */
#include "kernel/matmul_avx512.h"

enum { T_STREAM = 8 };

/* Types of blocks of 32. */
INLINE void stream_32(const wn_type type, const wn_chunk *c, const uint8_t *src, size_t ahead,
                      const int T)
{
    const int zero = wn_log2_zero(type) < 0 ? 0 : 1 << wn_log2_zero(type), n = c->n_blocks;
    __m512 acc[T_STREAM];
    UNROLL for (int t = 0; t < T; t++) acc[t] = _mm512_loadu_ps(c->acc + t * WN_PART_ROWS);
    for (int b = 0; b < n; b++) {
        __m512i s[T_STREAM];
        UNROLL for (int t = 0; t < T; t++) s[t] = _mm512_set1_epi32(-zero * c->act[t].sum[b]);
        UNROLL for (int i = 0; i < 4; i++) {
            __m512i q[2];
            codes_32(type, q, src, n, b, i, ahead);
            UNROLL for (int j = 0; j < 2; j++) UNROLL for (int t = 0; t < T; t++)
                s[t] = _mm512_dpbusd_epi32(s[t], q[j],
                                           four(c->act[t].q + 32 * b + 4 * k4_of_32(type, i, j)));
        }
        __m512 d = scale_32(type, src, b);
        if (b % 2 == 0) ahead_of(src + 32 * b, ahead);
        UNROLL for (int t = 0; t < T; t++)
            acc[t] = chain(acc[t], s[t], d, _mm512_set1_ps(c->act[t].d[b]));
        if (!wn_at_32(type, n).m) continue;
        __m512 m = offset_32(type, src, n, b);
        UNROLL for (int t = 0; t < T; t++) {
            float *min = c->min + t * WN_PART_ROWS, dx = c->act[t].d[b] * (float)c->act[t].sum[b];
            _mm512_storeu_ps(min, _mm512_fmadd_ps(m, _mm512_set1_ps(dx), _mm512_loadu_ps(min)));
        }
    }
    UNROLL for (int t = 0; t < T; t++) _mm512_storeu_ps(c->acc + t * WN_PART_ROWS, acc[t]);
}

/* Q4_K, and Q5_K, whose sums fit 16 bits for half a sub-block only. */
INLINE void stream_run(const wn_type type, const wn_chunk *c, wn_ready *r, const uint8_t *src,
                       size_t ahead, const int T)
{
    const bool five = type == WN_TYPE_Q5_K;
    const int per = five ? 4 : 8, halves_of = 8 / per;
    __m512i total[T_STREAM];
    int32_t start[T_STREAM][16];
    scales_q45(r, src, ahead, five ? 4 : 3);
    UNROLL for (int t = 0; t < T; t++) {
        if (five) starts_16(start[t], &c->act[t], 4);
        else starts_k8(start[t], &c->act[t]);
        total[t] = total_k8(r, &c->act[t]);
    }
    for (int g = 0; g < 4; g++)                         /* two sub-blocks: low and high codes */
        for (int h = 0; h < halves_of; h++) {
            __m512i a[T_STREAM], b[T_STREAM];
            UNROLL for (int t = 0; t < T; t++) {
                a[t] = four(&start[t][(2 * g) * halves_of + h]);
                b[t] = four(&start[t][(2 * g + 1) * halves_of + h]);
            }
            UNROLL for (int v = 0; v < per; v++) {
                const int i = h * per + v;
                __m512i q[2];
                codes_run(type, q, src, g, i, ahead);
                UNROLL for (int t = 0; t < T; t++) {
                    a[t] = _mm512_dpbusd_epi32(a[t], q[0], four(c->act[t].q + 64 * g + 4 * i));
                    b[t] = _mm512_dpbusd_epi32(b[t], q[1], four(c->act[t].q + 64 * g + 4 * i + 32));
                }
            }
            UNROLL for (int t = 0; t < T; t++) {
                total[t] = _mm512_dpwssd_epi32(total[t], a[t], load(r->sc[2 * g]));
                total[t] = _mm512_dpwssd_epi32(total[t], b[t], load(r->sc[2 * g + 1]));
            }
        }
    UNROLL for (int t = 0; t < T; t++)
        end_k8(r, &c->act[t], c->acc + t * WN_PART_ROWS, c->min + t * WN_PART_ROWS, total[t]);
}

/* Q2_K and Q3_K: sums of 16 fit 16 bits. Q6_K: they do not, and sums of 8 would need more starts
 * than they save: vpmulld. */
INLINE void stream_half(const wn_type type, const wn_chunk *c, wn_ready *r, const uint8_t *src,
                        size_t ahead, const int T)
{
    const bool words = type != WN_TYPE_Q6_K;
    __m512i total[T_STREAM];
    int32_t start[T_STREAM][16];
    if (type == WN_TYPE_Q2_K) scales_q2_K(r, src, ahead);
    else if (type == WN_TYPE_Q3_K) scales_q3_K(r, src, ahead);
    else scales_q6_K(r, src, ahead, false);
    UNROLL for (int t = 0; t < T; t++) {
        total[t] = _mm512_setzero_si512();
        if (words) {
            starts_16(start[t], &c->act[t], type == WN_TYPE_Q3_K ? 2 : -1);
        } else {                                        /* -32 * sum_j sc_j sum(q of j) */
            __m512i z = add_pairs(total[t], (const int32_t (*)[16])r->mn, c->act[t].sum16, 8);
            total[t] = _mm512_sub_epi32(total[t], _mm512_slli_epi32(z, 5));
        }
    }
    for (int n = 0; n < 2; n++)
        for (int v = 0; v < 8; v += 4) {                /* four sub-blocks of 16 */
            __m512i q[4][4];
            UNROLL for (int i = 0; i < 4; i++) codes_half(type, q[i], src, n, v + i, ahead);
            UNROLL for (int g = 0; g < 4; g++) {
                const int j = 8 * n + 2 * g + v / 4;
                const __m512i sc = load(r->sc[j]);
                UNROLL for (int t = 0; t < T; t++) {
                    const int8_t *x = c->act[t].q + 4 * (32 * n + 8 * g + v);
                    __m512i s = words ? four(&start[t][j]) : _mm512_setzero_si512();
                    UNROLL for (int i = 0; i < 4; i++)
                        s = _mm512_dpbusd_epi32(s, q[i][g], four(x + 4 * i));
                    total[t] = words ? _mm512_dpwssd_epi32(total[t], s, sc)
                                     : _mm512_add_epi32(total[t], _mm512_mullo_epi32(s, sc));
                }
            }
        }
    UNROLL for (int t = 0; t < T; t++) {
        chain_to(c->acc + t * WN_PART_ROWS, total[t], r->d[0], c->act[t].d256);
        if (type == WN_TYPE_Q2_K) end_min_16(r, &c->act[t], c->min + t * WN_PART_ROWS);
    }
}

INLINE void stream_xs(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead, const int T)
{
    __m512i total[T_STREAM];
    scales_iq4_xs(r, src, ahead);
    UNROLL for (int t = 0; t < T; t++) total[t] = _mm512_setzero_si512();
    for (int j = 0; j < 8; j++) {
        __m512i s[T_STREAM];
        UNROLL for (int t = 0; t < T; t++) s[t] = _mm512_set1_epi32(-128 * c->act[t].sum32[j]);
        UNROLL for (int i = 0; i < 4; i++) {
            __m512i q[2];
            codes_xs(q, src, j, i, ahead);
            UNROLL for (int h = 0; h < 2; h++) UNROLL for (int t = 0; t < T; t++)
                s[t] = _mm512_dpbusd_epi32(s[t], q[h], four(c->act[t].q + 32 * j + 16 * h + 4 * i));
        }
        const __m512i sc = load(r->sc[j]);
        UNROLL for (int t = 0; t < T; t++)
            total[t] = _mm512_add_epi32(total[t], _mm512_mullo_epi32(s[t], sc));
    }
    UNROLL for (int t = 0; t < T; t++)
        chain_to(c->acc + t * WN_PART_ROWS, total[t], r->d[0], c->act[t].d256);
}

/* Tokens in groups of up to T_STREAM, as even as they go. CALL uses c, r, src, ahead. */
#define STREAM(name, CALL)                                                                  \
    static void name(const wn_chunk *all, wn_ready *r, const uint8_t *src, size_t ahead)    \
    {                                                                                       \
        int groups = (all->n_tokens + T_STREAM - 1) / T_STREAM;                             \
        (void)r;                                                                            \
        for (int g = 0; g < groups; g++, ahead = 0) {                                       \
            int from = all->n_tokens * g / groups;                                          \
            wn_chunk c = { .n_blocks = all->n_blocks, .act = all->act + from,               \
                           .acc = all->acc + from * WN_PART_ROWS,                           \
                           .min = all->min + from * WN_PART_ROWS };                         \
            switch (all->n_tokens * (g + 1) / groups - from) {                              \
            case 1: CALL(1); break;                                                         \
            case 2: CALL(2); break;                                                         \
            case 3: CALL(3); break;                                                         \
            case 4: CALL(4); break;                                                         \
            case 5: CALL(5); break;                                                         \
            case 6: CALL(6); break;                                                         \
            case 7: CALL(7); break;                                                         \
            default: CALL(8);                                                               \
            }                                                                               \
        }                                                                                   \
    }
#define CALL(T) stream_32(WN_TYPE_Q8_0, &c, src, ahead, T)
STREAM(q8_0, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_Q4_0, &c, src, ahead, T)
STREAM(q4_0, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_Q4_1, &c, src, ahead, T)
STREAM(q4_1, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_Q5_0, &c, src, ahead, T)
STREAM(q5_0, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_Q5_1, &c, src, ahead, T)
STREAM(q5_1, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_IQ4_NL, &c, src, ahead, T)
STREAM(iq4_nl, CALL)
#undef CALL
#define CALL(T) stream_32(WN_TYPE_MXFP4, &c, src, ahead, T)
STREAM(mxfp4, CALL)
#undef CALL
#define CALL(T) stream_run(WN_TYPE_Q4_K, &c, r, src, ahead, T)
STREAM(q4_K, CALL)
#undef CALL
#define CALL(T) stream_run(WN_TYPE_Q5_K, &c, r, src, ahead, T)
STREAM(q5_K, CALL)
#undef CALL
#define CALL(T) stream_half(WN_TYPE_Q2_K, &c, r, src, ahead, T)
STREAM(q2_K, CALL)
#undef CALL
#define CALL(T) stream_half(WN_TYPE_Q3_K, &c, r, src, ahead, T)
STREAM(q3_K, CALL)
#undef CALL
#define CALL(T) stream_half(WN_TYPE_Q6_K, &c, r, src, ahead, T)
STREAM(q6_K, CALL)
#undef CALL
#define CALL(T) stream_xs(&c, r, src, ahead, T)
STREAM(iq4_xs, CALL)
#undef CALL

wn_stream_fn *const wn_stream_avx512[WN_TYPE_COUNT] = {
    [WN_TYPE_Q8_0] = q8_0,     [WN_TYPE_Q4_0] = q4_0, [WN_TYPE_Q4_1] = q4_1,
    [WN_TYPE_Q5_0] = q5_0,     [WN_TYPE_Q5_1] = q5_1, [WN_TYPE_IQ4_NL] = iq4_nl,
    [WN_TYPE_MXFP4] = mxfp4,   [WN_TYPE_Q2_K] = q2_K, [WN_TYPE_Q3_K] = q3_K,
    [WN_TYPE_Q4_K] = q4_K,     [WN_TYPE_Q5_K] = q5_K, [WN_TYPE_Q6_K] = q6_K,
    [WN_TYPE_IQ4_XS] = iq4_xs,
};
