/* matmul_avx512.c - quantised products on vpdpbusd.
 *
 * vpdpbusd adds four products of an unsigned and a signed byte to each 32-bit lane, with
 * no saturation on the way. A vector is 16 rows x 4 k, so a lane is an output and nothing
 * is ever added across lanes. The weights' codes are the unsigned side: Q8_0 is stored
 * +128 in L1, and the zero point comes back as the accumulator's start, -zero * sum(q),
 * which is free. The tile is 4 panels x 3 tokens: 12 integer accumulators and 12 others
 * (float chains of 32-blocks; integer totals of K-quants, whose sub-block sums are
 * multiplied by the sub-scales with vpmulld).
 */
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

/* ---- unpacking ---------------------------------------------------------------------- */

INLINE void halves(float out[16], const uint8_t *src)
{
    _mm512_storeu_ps(out, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)src)));
}

INLINE __m512i low4(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
INLINE __m512i high4(__m512i v) { return low4(_mm512_srli_epi16(v, 4)); }

static void unpack_q8_0(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    const uint8_t *qs = src + 32 * n_blocks;
    const __m512i flip = _mm512_set1_epi8(-128);                /* + 128 */
    for (int b = 0; b < n_blocks; b++) {
        ahead_of(src + 32 * b, ahead);
        halves(w->d[b], src + 32 * b);
    }
    for (int i = 0; i < n_blocks * 8; i++) {
        ahead_of(qs + 64 * i, ahead);
        store(w->q[i], _mm512_xor_si512(load(qs + 64 * i), flip));
    }
}

static void unpack_q4_0(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    const uint8_t *qs = src + 32 * n_blocks;
    for (int b = 0; b < n_blocks; b++) {
        ahead_of(src + 32 * b, ahead);
        halves(w->d[b], src + 32 * b);
        for (int i = 0; i < 4; i++, qs += 64) {
            __m512i v = load(qs);
            ahead_of(qs, ahead);
            store(w->q[8 * b + i], low4(v));
            store(w->q[8 * b + 4 + i], high4(v));
        }
    }
}

/* Bytes j and j + 1 of each lane, one in the low byte of each int16. */
INLINE __m512i two_bytes(__m512i v, int j)
{
    v = _mm512_srli_epi32(v, (unsigned)(8 * j));
    __m512i low = _mm512_and_si512(v, _mm512_set1_epi32(0xff));
    return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_and_si512(v, _mm512_set1_epi32(0xff00)), 8));
}

INLINE void scales_q4_K(wn_ready *w, const uint8_t *src, size_t ahead)
{
    const __m512i six = _mm512_set1_epi8(63), top = _mm512_set1_epi8(0x30);
    const __m512i byte = _mm512_set1_epi32(0xff);
    for (int i = 0; i < 256; i += 64) ahead_of(src + i, ahead);
    halves(w->d[0], src);
    halves(w->m[0], src + 32);
    __m512i a = load(src + 64), b = load(src + 128), c = load(src + 192);
    __m512i sc[2] = { _mm512_and_si512(a, six),
                      _mm512_or_si512(low4(c), _mm512_and_si512(_mm512_srli_epi16(a, 2), top)) };
    __m512i mn[2] = { _mm512_and_si512(b, six),
                      _mm512_or_si512(high4(c), _mm512_and_si512(_mm512_srli_epi16(b, 2), top)) };
    for (int j = 0; j < 8; j++)
        store(w->sc[j], _mm512_and_si512(_mm512_srli_epi32(sc[j / 4], (unsigned)(j % 4 * 8)), byte));
    for (int j = 0; j < 4; j++) store(w->mn[j], two_bytes(mn[j / 2], j % 2 * 2));
}

static void unpack_q4_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    scales_q4_K(w, src, ahead);
    for (int i = 0; i < 32; i++) {
        const uint8_t *p = src + 256 + 64 * i;
        __m512i v = load(p);
        int k = i / 8 * 16 + i % 8;
        ahead_of(p, ahead);
        store(w->q[k], low4(v));
        store(w->q[k + 8], high4(v));
    }
}

INLINE void scales_q6_K(wn_ready *w, const uint8_t *src, size_t ahead)
{
    for (int i = 3072; i < 3392; i += 64) ahead_of(src + i, ahead);
    halves(w->d[0], src + 3328);
    for (int i = 0; i < 4; i++) {
        __m512i s = load(src + 3072 + 64 * i);
        for (int j = 0; j < 4; j++)
            store(w->sc[4 * i + j],
                  _mm512_srai_epi32(_mm512_slli_epi32(s, (unsigned)(24 - 8 * j)), 24));
        for (int j = 0; j < 2; j++)
            store(w->mn[2 * i + j],
                  _mm512_srai_epi16(_mm512_slli_epi16(two_bytes(s, 2 * j), 8), 8));
    }
}

/* The four codes of the i-th vector of half n: k, k + 32, k + 64, k + 96. */
INLINE void codes_q6_K(__m512i q[4], const uint8_t *src, int n, int i, size_t ahead)
{
    const __m512i top = _mm512_set1_epi8(0x30);
    const uint8_t *ql = src + 1024 * n + 64 * i, *qh = src + 2048 + 512 * n + 64 * i;
    __m512i a = load(ql), b = load(ql + 512), h = load(qh);
    ahead_of(ql, ahead), ahead_of(ql + 512, ahead), ahead_of(qh, ahead);
    q[0] = _mm512_or_si512(low4(a), _mm512_and_si512(_mm512_slli_epi16(h, 4), top));
    q[1] = _mm512_or_si512(low4(b), _mm512_and_si512(_mm512_slli_epi16(h, 2), top));
    q[2] = _mm512_or_si512(high4(a), _mm512_and_si512(h, top));
    q[3] = _mm512_or_si512(high4(b), _mm512_and_si512(_mm512_srli_epi16(h, 2), top));
}

static void unpack_q6_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    scales_q6_K(w, src, ahead);
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 8; i++) {
            __m512i q[4];
            codes_q6_K(q, src, n, i, ahead);
            for (int g = 0; g < 4; g++) store(w->q[32 * n + 8 * g + i], q[g]);
        }
}

/* ---- products ------------------------------------------------------------------------- */

enum { T_MAX = 3 };

/* fma((float)sum, d * dx, acc) */
INLINE __m512 chain(__m512 acc, __m512i sum, const float *d, float dx)
{
    __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(d), _mm512_set1_ps(dx));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, acc);
}

/* s[r][t] += n fours of k, from the k-th four on. */
#define DOT(s, w, x, k, n, R, T)                                                            \
    _Pragma("GCC unroll 8")                                                                 \
    for (int i_ = (k); i_ < (k) + (n); i_++) {                                              \
        __m512i w_[WN_PART_PANELS];                                                         \
        for (int r = 0; r < (R); r++) w_[r] = load((w)[r].q[i_]);                           \
        for (int t = 0; t < (T); t++) {                                                     \
            __m512i q_ = four((x)[t].q + 4 * i_);                                           \
            for (int r = 0; r < (R); r++) s[r][t] = _mm512_dpbusd_epi32(s[r][t], w_[r], q_); \
        }                                                                                   \
    }

/* R panels by T tokens, blocks of 32. */
INLINE void tile_32(const wn_ready *w, const wn_rec *x, int n_blocks, float *out, const int R, const int T,
                    const int log2_zero)
{
    __m512 acc[WN_PART_PANELS][T_MAX];
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) acc[r][t] = _mm512_loadu_ps(out + t * WN_PART_ROWS + 16 * r);
    for (int b = 0; b < n_blocks; b++) {
        __m512i s[WN_PART_PANELS][T_MAX];
        for (int t = 0; t < T; t++) {
            __m512i z = _mm512_slli_epi32(_mm512_set1_epi32(-x[t].sum[b]), (unsigned)log2_zero);
            for (int r = 0; r < R; r++) s[r][t] = z;
        }
        DOT(s, w, x, 8 * b, 8, R, T)
        for (int t = 0; t < T; t++)
            for (int r = 0; r < R; r++) acc[r][t] = chain(acc[r][t], s[r][t], w[r].d[b], x[t].d[b]);
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) _mm512_storeu_ps(out + t * WN_PART_ROWS + 16 * r, acc[r][t]);
}

/* The integer totals of a super-block: sub-block sums times sub-scales, added to sum. */
#define SUPER(sum, w, x, n_sub, R, T)                                                       \
    for (int j = 0; j < (n_sub); j++) {                                                     \
        __m512i s[WN_PART_PANELS][T_MAX];                                                   \
        for (int r = 0; r < (R); r++)                                                       \
            for (int t = 0; t < (T); t++) s[r][t] = _mm512_setzero_si512();                 \
        DOT(s, w, x, j * (64 / (n_sub)), 64 / (n_sub), R, T)                                \
        for (int r = 0; r < (R); r++) {                                                     \
            __m512i sc = load((w)[r].sc[j]);                                                \
            for (int t = 0; t < (T); t++)                                                   \
                sum[r][t] = _mm512_add_epi32(sum[r][t], _mm512_mullo_epi32(s[r][t], sc));   \
        }                                                                                   \
    }

INLINE void chain_to(float *out, __m512i sum, const float *d, float dx)
{
    _mm512_storeu_ps(out, chain(_mm512_loadu_ps(out), sum, d, dx));
}

/* Both chains of a K-quant with minimums, one panel and one token. */
INLINE void end_k8(const wn_ready *w, const wn_rec *x, float *out, float *min, __m512i sum)
{
    __m512i m = _mm512_setzero_si512();
    for (int i = 0; i < 4; i++) m = _mm512_dpwssd_epi32(m, load(w->mn[i]), four(&x->sum32[2 * i]));
    chain_to(out, sum, w->d[0], x->d256);
    chain_to(min, m, w->m[0], x->d256);
}

/* What the zero point takes away: -zero * sum_j sc_j sum(q of j). */
INLINE __m512i start_k16(const wn_ready *w, const wn_rec *x, const int log2_zero)
{
    __m512i z = _mm512_setzero_si512();
    for (int i = 0; i < 8; i++) z = _mm512_dpwssd_epi32(z, load(w->mn[i]), four(&x->sum16[2 * i]));
    return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(z, (unsigned)log2_zero));
}

/* R panels by T tokens of a K-quant with 8 sub-blocks and minimums. */
INLINE void tile_k8(const wn_ready *w, const wn_rec *x, float *out, float *min, const int R, const int T)
{
    __m512i sum[WN_PART_PANELS][T_MAX];
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) sum[r][t] = _mm512_setzero_si512();
    SUPER(sum, w, x, 8, R, T)
    for (int t = 0; t < T; t++)
        for (int r = 0; r < R; r++)
            end_k8(&w[r], &x[t], out + t * WN_PART_ROWS + 16 * r, min + t * WN_PART_ROWS + 16 * r, sum[r][t]);
}

/* R panels by T tokens of a K-quant with 16 sub-blocks of codes around 1 << log2_zero. */
INLINE void tile_k16(const wn_ready *w, const wn_rec *x, float *out, const int R, const int T,
                     const int log2_zero)
{
    __m512i sum[WN_PART_PANELS][T_MAX];
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) sum[r][t] = start_k16(&w[r], &x[t], log2_zero);
    SUPER(sum, w, x, 16, R, T)
    for (int t = 0; t < T; t++)
        for (int r = 0; r < R; r++)
            chain_to(out + t * WN_PART_ROWS + 16 * r, sum[r][t], w[r].d[0], x[t].d256);
}

/* While tokens [t, t + 3) pass: their share of each panel's next chunk. */
INLINE void prefetch_next(const wn_chunk *c, int t)
{
    if (!c->next) return;
    size_t n = (size_t)c->n_tokens, from = c->next_bytes * (size_t)t / n;
    size_t to = c->next_bytes * (size_t)(t + T_MAX) / n;
    for (int p = 0; p < c->n_panels; p++) {
        const char *base = (const char *)c->next + (size_t)p * c->next_stride;
        for (size_t i = (from + 63) & ~(size_t)63; i < to; i += 64) _mm_prefetch(base + i, _MM_HINT_T1);
    }
}

/* Calls TILE(R, T) for tokens in threes, then the rest. */
#define TOKENS(c, TILE, R)                                                                  \
    do {                                                                                    \
        const wn_rec *x = (c)->act;                                                         \
        float *acc = (c)->acc, *min = (c)->min;                                             \
        int t = 0;                                                                          \
        (void)min;                                                                          \
        for (; t + 3 <= (c)->n_tokens; t += 3) {                                            \
            prefetch_next(c, t);                                                            \
            TILE(R, 3);                                                                     \
            x += 3, acc += 3 * WN_PART_ROWS, min += 3 * WN_PART_ROWS;                       \
        }                                                                                   \
        if ((c)->n_tokens - t == 2) TILE(R, 2);                                             \
        else if ((c)->n_tokens - t == 1) TILE(R, 1);                                        \
    } while (0)
#define PANELS(c, TILE)                                                                     \
    switch ((c)->n_panels) {                                                                \
    case 1: TOKENS(c, TILE, 1); break;                                                      \
    case 2: TOKENS(c, TILE, 2); break;                                                      \
    case 3: TOKENS(c, TILE, 3); break;                                                      \
    default: TOKENS(c, TILE, 4);                                                            \
    }

static void tiles_q8_0(const wn_chunk *c)
{
#define TILE(R, T) tile_32(c->w, x, c->n_blocks, acc, R, T, 7)
    PANELS(c, TILE)
#undef TILE
}
static void tiles_q4_0(const wn_chunk *c)
{
#define TILE(R, T) tile_32(c->w, x, c->n_blocks, acc, R, T, 3)
    PANELS(c, TILE)
#undef TILE
}
static void tiles_q4_K(const wn_chunk *c)
{
#define TILE(R, T) tile_k8(c->w, x, acc, min, R, T)
    PANELS(c, TILE)
#undef TILE
}
static void tiles_q6_K(const wn_chunk *c)
{
#define TILE(R, T) tile_k16(c->w, x, acc, R, T, 5)
    PANELS(c, TILE)
#undef TILE
}

/* ---- few tokens: from the stream to the multiplier ------------------------------------- */

INLINE void stream_q8_0_t(const wn_chunk *c, const uint8_t *src, size_t ahead, const int T)
{
    const __m512i flip = _mm512_set1_epi8(-128);
    const uint8_t *qs = src + 32 * c->n_blocks;
    __m512 acc[WN_FEW_TOKENS];
    for (int t = 0; t < T; t++) acc[t] = _mm512_loadu_ps(c->acc + t * WN_PART_ROWS);
    for (int b = 0; b < c->n_blocks; b++) {
        __m512i s[WN_FEW_TOKENS];
        float d[16];
        for (int t = 0; t < T; t++) s[t] = _mm512_set1_epi32(-128 * c->act[t].sum[b]);
        for (int k = 8 * b; k < 8 * b + 8; k++, qs += 64) {
            __m512i w = _mm512_xor_si512(load(qs), flip);
            ahead_of(qs, ahead);
            for (int t = 0; t < T; t++) s[t] = _mm512_dpbusd_epi32(s[t], w, four(c->act[t].q + 4 * k));
        }
        halves(d, src + 32 * b);
        ahead_of(src + 32 * b, ahead);
        for (int t = 0; t < T; t++) acc[t] = chain(acc[t], s[t], d, c->act[t].d[b]);
    }
    for (int t = 0; t < T; t++) _mm512_storeu_ps(c->acc + t * WN_PART_ROWS, acc[t]);
}

INLINE void stream_q4_0_t(const wn_chunk *c, const uint8_t *src, size_t ahead, const int T)
{
    const uint8_t *qs = src + 32 * c->n_blocks;
    __m512 acc[WN_FEW_TOKENS];
    for (int t = 0; t < T; t++) acc[t] = _mm512_loadu_ps(c->acc + t * WN_PART_ROWS);
    for (int b = 0; b < c->n_blocks; b++) {
        __m512i s[WN_FEW_TOKENS];
        float d[16];
        for (int t = 0; t < T; t++) s[t] = _mm512_set1_epi32(-8 * c->act[t].sum[b]);
        for (int k = 8 * b; k < 8 * b + 4; k++, qs += 64) {
            __m512i v = load(qs);
            ahead_of(qs, ahead);
            for (int t = 0; t < T; t++) {
                s[t] = _mm512_dpbusd_epi32(s[t], low4(v), four(c->act[t].q + 4 * k));
                s[t] = _mm512_dpbusd_epi32(s[t], high4(v), four(c->act[t].q + 4 * k + 16));
            }
        }
        halves(d, src + 32 * b);
        ahead_of(src + 32 * b, ahead);
        for (int t = 0; t < T; t++) acc[t] = chain(acc[t], s[t], d, c->act[t].d[b]);
    }
    for (int t = 0; t < T; t++) _mm512_storeu_ps(c->acc + t * WN_PART_ROWS, acc[t]);
}

INLINE __m512i add_scaled(__m512i sum, __m512i s, const int32_t *sc)
{
    return _mm512_add_epi32(sum, _mm512_mullo_epi32(s, load(sc)));
}

INLINE void stream_q4_K_t(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead, const int T)
{
    __m512i sum[WN_FEW_TOKENS];
    const uint8_t *qs = src + 256;
    scales_q4_K(r, src, ahead);
    for (int t = 0; t < T; t++) sum[t] = _mm512_setzero_si512();
    for (int g = 0; g < 4; g++) {                       /* two sub-blocks: low and high nibbles */
        __m512i a[WN_FEW_TOKENS], b[WN_FEW_TOKENS];
        for (int t = 0; t < T; t++) a[t] = b[t] = _mm512_setzero_si512();
        for (int k = 16 * g; k < 16 * g + 8; k++, qs += 64) {
            __m512i v = load(qs);
            ahead_of(qs, ahead);
            for (int t = 0; t < T; t++) {
                a[t] = _mm512_dpbusd_epi32(a[t], low4(v), four(c->act[t].q + 4 * k));
                b[t] = _mm512_dpbusd_epi32(b[t], high4(v), four(c->act[t].q + 4 * k + 32));
            }
        }
        for (int t = 0; t < T; t++)
            sum[t] = add_scaled(add_scaled(sum[t], a[t], r->sc[2 * g]), b[t], r->sc[2 * g + 1]);
    }
    for (int t = 0; t < T; t++)
        end_k8(r, &c->act[t], c->acc + t * WN_PART_ROWS, c->min + t * WN_PART_ROWS, sum[t]);
}

INLINE void stream_q6_K_t(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead, const int T)
{
    __m512i sum[WN_FEW_TOKENS];
    scales_q6_K(r, src, ahead);
    for (int t = 0; t < T; t++) sum[t] = start_k16(r, &c->act[t], 5);
    for (int n = 0; n < 2; n++)
        for (int v = 0; v < 8; v += 4) {                /* four sub-blocks of 16 */
            __m512i s[WN_FEW_TOKENS][4];
            for (int t = 0; t < T; t++)
                for (int g = 0; g < 4; g++) s[t][g] = _mm512_setzero_si512();
            for (int i = v; i < v + 4; i++) {
                __m512i q[4];
                codes_q6_K(q, src, n, i, ahead);
                for (int g = 0; g < 4; g++)
                    for (int t = 0; t < T; t++)
                        s[t][g] = _mm512_dpbusd_epi32(s[t][g], q[g],
                                                      four(c->act[t].q + 4 * (32 * n + 8 * g + i)));
            }
            for (int t = 0; t < T; t++)
                for (int g = 0; g < 4; g++)
                    sum[t] = add_scaled(sum[t], s[t][g], r->sc[8 * n + 2 * g + v / 4]);
        }
    for (int t = 0; t < T; t++) chain_to(c->acc + t * WN_PART_ROWS, sum[t], r->d[0], c->act[t].d256);
}

#define STREAM(name, ...)                                                                   \
    static void name(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead)      \
    {                                                                                       \
        (void)r;                                                                            \
        switch (c->n_tokens) {                                                              \
        case 1: name##_t(c, __VA_ARGS__ src, ahead, 1); break;                              \
        case 2: name##_t(c, __VA_ARGS__ src, ahead, 2); break;                              \
        default: name##_t(c, __VA_ARGS__ src, ahead, 3);                                    \
        }                                                                                   \
    }
STREAM(stream_q8_0, )
STREAM(stream_q4_0, )
STREAM(stream_q4_K, r,)
STREAM(stream_q6_K, r,)

const wn_matmul_ops wn_matmul_ops_avx512 = {
    .act_q32 = wn_act_q32_avx2,         /* one pass over a few KB: wider vectors gain nothing */
    .act_q256 = wn_act_q256_avx2,
    .unpack = { [WN_TYPE_Q8_0] = unpack_q8_0, [WN_TYPE_Q4_0] = unpack_q4_0,
                [WN_TYPE_Q4_K] = unpack_q4_K, [WN_TYPE_Q6_K] = unpack_q6_K },
    .tiles = { [WN_TYPE_Q8_0] = tiles_q8_0, [WN_TYPE_Q4_0] = tiles_q4_0,
               [WN_TYPE_Q4_K] = tiles_q4_K, [WN_TYPE_Q6_K] = tiles_q6_K },
    .stream = { [WN_TYPE_Q8_0] = stream_q8_0, [WN_TYPE_Q4_0] = stream_q4_0,
                [WN_TYPE_Q4_K] = stream_q4_K, [WN_TYPE_Q6_K] = stream_q6_K },
    .floats = wn_floats_avx512,
};
