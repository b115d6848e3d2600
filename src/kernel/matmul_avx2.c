/* matmul_avx2.c - quantised products without a dot-product instruction.
 *
 * maddubs multiplies 32 unsigned bytes with 32 signed ones and adds pairs into int16,
 * saturating. It stays exact when 2 * max(u) * 127 <= 32767, and as long as sums do, they
 * may stay in int16 before madd widens them:
 *
 *     codes    pair at most       additions in int16 before widening
 *     0..15    2*15*127 = 3810    8     (a block of 32; widening multiplies by 1, or by
 *     0..63    2*63*127 = 16002   2      the integer sub-scale: it costs nothing)
 *     8 bits   |w| <= 128: 32512  1     abs(w) unsigned times sign(q, w)
 *
 * For 8 bits q is never -128 (absmax / 127), so sign() cannot overflow. A vector is 8
 * rows x 4 k; a tile is one panel (two vectors) by up to 4 tokens. Float accumulators
 * stay in the part's buffer: 16 registers are just enough for the integers.
 */
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

/* ---- activations ------------------------------------------------------------------ */

/* The largest bit pattern without sign in v, as a float. */
INLINE float max_bits(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

INLINE __m256i bits(__m256 x)
{
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

INLINE __m256i code8(const float *x, __m256 inverse)
{
    __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x), inverse);
    __m256 magnitude = _mm256_castsi256_ps(bits(v));
    __m256 good = _mm256_cmp_ps(magnitude, _mm256_set1_ps(127.5f), _CMP_LT_OQ);
    return _mm256_cvtps_epi32(_mm256_and_ps(v, good));
}

/* 32 codes from 32 floats. */
INLINE __m256i code32(const float *x, __m256 inverse)
{
    __m256i a = _mm256_packs_epi32(code8(x, inverse), code8(x + 8, inverse));
    __m256i b = _mm256_packs_epi32(code8(x + 16, inverse), code8(x + 24, inverse));
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), order);
}

INLINE __m256i max32(const float *x)
{
    __m256i a = _mm256_max_epi32(bits(_mm256_loadu_ps(x)), bits(_mm256_loadu_ps(x + 8)));
    __m256i b = _mm256_max_epi32(bits(_mm256_loadu_ps(x + 16)), bits(_mm256_loadu_ps(x + 24)));
    return _mm256_max_epi32(a, b);
}

INLINE __m256 inverse_of(float max)
{
    return _mm256_set1_ps(max > 0 ? 127.0f / max : 0);
}

/* Sums of the two 16s of 32 codes. */
INLINE void sums16(__m256i q, int32_t *low, int32_t *high)
{
    __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q), _mm256_set1_epi16(1));
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
    *low = _mm256_extract_epi32(s, 0);
    *high = _mm256_extract_epi32(s, 4);
}

void wn_act_q32_avx2(wn_rec *r, const float *x, int n_blocks)
{
    if (n_blocks < 8) *r = (wn_rec){ .q = { 0 } };
    for (int b = 0; b < n_blocks; b++, x += 32) {
        float max = max_bits(max32(x));
        __m256i q = code32(x, inverse_of(max));
        int32_t low, high;
        store(r->q + 32 * b, q);
        sums16(q, &low, &high);
        r->sum[b] = low + high;
        r->d[b] = max / 127.0f;
    }
}

void wn_act_q256_avx2(wn_rec *r, const float *x)
{
    __m256i m = _mm256_setzero_si256();
    for (int b = 0; b < 8; b++) m = _mm256_max_epi32(m, max32(x + 32 * b));
    float max = max_bits(m);
    __m256 inverse = inverse_of(max);
    for (int b = 0; b < 8; b++) {
        __m256i q = code32(x + 32 * b, inverse);
        int32_t low, high;
        store(r->q + 32 * b, q);
        sums16(q, &low, &high);
        r->sum16[2 * b] = (int16_t)low;
        r->sum16[2 * b + 1] = (int16_t)high;
        r->sum32[b] = (int16_t)(low + high);
    }
    r->d256 = max / 127.0f;
    r->pad[0] = r->pad[1] = r->pad[2] = 0;
}

/* ---- unpacking ---------------------------------------------------------------------- */

INLINE void halves(float out[16], const uint8_t *src)
{
    _mm256_storeu_ps(out, _mm256_cvtph_ps(_mm_loadu_si128((const void *)src)));
    _mm256_storeu_ps(out + 8, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(src + 16))));
}

INLINE __m256i low4(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
INLINE __m256i high4(__m256i v) { return low4(_mm256_srli_epi16(v, 4)); }

static void unpack_q8_0(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    const uint8_t *qs = src + 32 * n_blocks;
    uint8_t *q = w->q[0], *a = w->a[0];
    for (int b = 0; b < n_blocks; b++) halves(w->d[b], src + 32 * b);
    for (int i = 0; i < n_blocks * 32; i += 32) ahead_of(src + i, ahead);
    for (int i = 0; i < n_blocks * 512; i += 64) {
        __m256i v0 = load(qs + i), v1 = load(qs + i + 32);
        ahead_of(qs + i, ahead);
        store(q + i, v0);
        store(q + i + 32, v1);
        store(a + i, _mm256_abs_epi8(v0));
        store(a + i + 32, _mm256_abs_epi8(v1));
    }
}

static void unpack_q4_0(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    const uint8_t *qs = src + 32 * n_blocks;
    for (int b = 0; b < n_blocks; b++, qs += 256) {
        uint8_t *q = w->q[8 * b];
        halves(w->d[b], src + 32 * b);
        ahead_of(src + 32 * b, ahead);
        for (int i = 0; i < 256; i += 32) {
            __m256i v = load(qs + i);
            if (i % 64 == 0) ahead_of(qs + i, ahead);
            store(q + i, low4(v));
            store(q + 256 + i, high4(v));
        }
    }
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

INLINE void scales_q4_K(wn_ready *w, const uint8_t *src, size_t ahead)
{
    const __m256i six = _mm256_set1_epi8(63), top = _mm256_set1_epi8(0x30);
    halves(w->d[0], src);
    halves(w->m[0], src + 32);
    for (int i = 0; i < 256; i += 64) ahead_of(src + i, ahead);
    for (int h = 0; h < 2; h++) {                               /* 8 rows */
        __m256i a = load(src + 64 + 32 * h), b = load(src + 128 + 32 * h), c = load(src + 192 + 32 * h);
        __m256i sc[2] = { _mm256_and_si256(a, six),
                          _mm256_or_si256(low4(c), _mm256_and_si256(_mm256_srli_epi16(a, 2), top)) };
        __m256i mn[2] = { _mm256_and_si256(b, six),
                          _mm256_or_si256(high4(c), _mm256_and_si256(_mm256_srli_epi16(b, 2), top)) };
        for (int j = 0; j < 8; j++) store(&w->sc[j][8 * h], byte_pair(sc[j / 4], j % 4));
        for (int j = 0; j < 4; j++) store(&w->mn[j][8 * h], two_bytes(mn[j / 2], j % 2 * 2));
    }
}

static void unpack_q4_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    scales_q4_K(w, src, ahead);
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < 512; i += 32) {
            const uint8_t *p = src + 256 + 512 * c + i;
            __m256i v = load(p);
            if (i % 64 == 0) ahead_of(p, ahead);
            store(w->q[16 * c] + i, low4(v));
            store(w->q[16 * c + 8] + i, high4(v));
        }
}

INLINE void scales_q6_K(wn_ready *w, const uint8_t *src, size_t ahead)
{
    halves(w->d[0], src + 3328);
    for (int i = 3072; i < 3392; i += 64) ahead_of(src + i, ahead);
    for (int i = 0; i < 4; i++)
        for (int h = 0; h < 2; h++) {
            __m256i s = load(src + 3072 + 64 * i + 32 * h);
            for (int j = 0; j < 4; j++) {       /* the byte to the top of both int16, then down */
                __m256i v = _mm256_slli_epi16(byte_pair(s, j), 8);
                store(&w->sc[4 * i + j][8 * h], _mm256_srai_epi16(v, 8));
            }
            for (int j = 0; j < 2; j++) {
                __m256i v = _mm256_slli_epi16(two_bytes(s, 2 * j), 8);
                store(&w->mn[2 * i + j][8 * h], _mm256_srai_epi16(v, 8));
            }
        }
}

/* The four codes of 32 lanes' bytes, from byte i of half n on: k, k + 32, k + 64, k + 96. */
INLINE void codes_q6_K(__m256i q[4], const uint8_t *src, int n, int i, size_t ahead)
{
    const __m256i top = _mm256_set1_epi8(0x30);
    const uint8_t *ql = src + 1024 * n + i, *qh = src + 2048 + 512 * n + i;
    __m256i a = load(ql), b = load(ql + 512), h = load(qh);
    if (i % 64 == 0) ahead_of(ql, ahead), ahead_of(ql + 512, ahead), ahead_of(qh, ahead);
    q[0] = _mm256_or_si256(low4(a), _mm256_and_si256(_mm256_slli_epi16(h, 4), top));
    q[1] = _mm256_or_si256(low4(b), _mm256_and_si256(_mm256_slli_epi16(h, 2), top));
    q[2] = _mm256_or_si256(high4(a), _mm256_and_si256(h, top));
    q[3] = _mm256_or_si256(high4(b), _mm256_and_si256(_mm256_srli_epi16(h, 2), top));
}

static void unpack_q6_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks;
    scales_q6_K(w, src, ahead);
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 512; i += 32) {
            __m256i q[4];
            codes_q6_K(q, src, n, i, ahead);
            for (int g = 0; g < 4; g++) store(w->q[32 * n + 8 * g] + i, q[g]);
        }
}

/* ---- products ------------------------------------------------------------------------- */

/* acc = fma((float)sum, d * dx, acc), 8 rows. */
INLINE void chain(float *acc, __m256i sum, const float *d, float dx)
{
    __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(d), _mm256_set1_ps(dx));
    _mm256_storeu_ps(acc, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_loadu_ps(acc)));
}

/* One panel by T tokens, codes of 8 bits. */
INLINE void tile_wide(const wn_ready *w, const wn_rec *x, int n_blocks, float *acc, const int T)
{
    const __m256i one = _mm256_set1_epi16(1);
    for (int b = 0; b < n_blocks; b++) {
        __m256i s[4][2];
        for (int t = 0; t < T; t++) s[t][0] = s[t][1] = _mm256_setzero_si256();
        for (int k = 8 * b; k < 8 * b + 8; k++) {
            __m256i a0 = load(w->a[k]), a1 = load(w->a[k] + 32);
            for (int t = 0; t < T; t++) {
                __m256i q = four(x[t].q + 4 * k);
                __m256i p0 = _mm256_maddubs_epi16(a0, _mm256_sign_epi8(q, load(w->q[k])));
                __m256i p1 = _mm256_maddubs_epi16(a1, _mm256_sign_epi8(q, load(w->q[k] + 32)));
                s[t][0] = _mm256_add_epi32(s[t][0], _mm256_madd_epi16(p0, one));
                s[t][1] = _mm256_add_epi32(s[t][1], _mm256_madd_epi16(p1, one));
            }
        }
        for (int t = 0; t < T; t++)
            for (int h = 0; h < 2; h++)
                chain(acc + t * WN_PART_ROWS + 8 * h, s[t][h], w->d[b] + 8 * h, x[t].d[b]);
    }
}

/* int16 sums of n products of 4 k each, from k (in fours) on. */
#define SUM16(s, w, x, k, n, T)                                                             \
    for (int i_ = 0; i_ < (n); i_++) {                                                      \
        __m256i w0_ = load((w)->q[(k) + i_]), w1_ = load((w)->q[(k) + i_] + 32);            \
        for (int t = 0; t < (T); t++) {                                                     \
            __m256i q_ = four((x)[t].q + 4 * ((k) + i_));                                   \
            __m256i p0_ = _mm256_maddubs_epi16(w0_, q_), p1_ = _mm256_maddubs_epi16(w1_, q_); \
            s[t][0] = i_ ? _mm256_add_epi16(s[t][0], p0_) : p0_;                            \
            s[t][1] = i_ ? _mm256_add_epi16(s[t][1], p1_) : p1_;                            \
        }                                                                                   \
    }

/* One panel by T tokens, blocks of 32 with codes 0..15. */
INLINE void tile_nibble(const wn_ready *w, const wn_rec *x, int n_blocks, float *acc, const int T,
                        const int zero)
{
    const __m256i one = _mm256_set1_epi16(1);
    for (int b = 0; b < n_blocks; b++) {
        __m256i s[4][2];
        SUM16(s, w, x, 8 * b, 8, T)
        for (int t = 0; t < T; t++) {
            __m256i z = _mm256_set1_epi32(x[t].sum[b] * zero);
            for (int h = 0; h < 2; h++) {
                __m256i sum = _mm256_sub_epi32(_mm256_madd_epi16(s[t][h], one), z);
                chain(acc + t * WN_PART_ROWS + 8 * h, sum, w->d[b] + 8 * h, x[t].d[b]);
            }
        }
    }
}

/* Both chains of a K-quant with minimums. */
INLINE void end_k8(const wn_ready *w, const wn_rec *x, float *acc, float *min, __m256i sum[4][2], const int T)
{
    for (int t = 0; t < T; t++)
        for (int h = 0; h < 2; h++) {
            chain(acc + t * WN_PART_ROWS + 8 * h, sum[t][h], w->d[0] + 8 * h, x[t].d256);
            __m256i m = _mm256_setzero_si256();
            for (int i = 0; i < 4; i++)
                m = _mm256_add_epi32(m, _mm256_madd_epi16(load(&w->mn[i][8 * h]), four(&x[t].sum32[2 * i])));
            chain(min + t * WN_PART_ROWS + 8 * h, m, w->m[0] + 8 * h, x[t].d256);
        }
}

/* One panel by T tokens of a K-quant with 8 sub-blocks of codes 0..15 and minimums. */
INLINE void tile_k8(const wn_ready *w, const wn_rec *x, float *acc, float *min, const int T)
{
    __m256i sum[4][2];
    for (int t = 0; t < T; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
    for (int j = 0; j < 8; j++) {
        __m256i s[4][2];
        SUM16(s, w, x, 8 * j, 8, T)
        for (int t = 0; t < T; t++)
            for (int h = 0; h < 2; h++) {
                __m256i p = _mm256_madd_epi16(s[t][h], load(&w->sc[j][8 * h]));
                sum[t][h] = _mm256_add_epi32(sum[t][h], p);
            }
    }
    end_k8(w, x, acc, min, sum, T);
}

/* What the zero point takes away: -zero * sum_j sc_j sum(q of j). */
INLINE void start_k16(__m256i sum[4][2], const wn_ready *w, const wn_rec *x, const int T, const int log2_zero)
{
    for (int t = 0; t < T; t++)
        for (int h = 0; h < 2; h++) {
            __m256i z = _mm256_setzero_si256();
            for (int i = 0; i < 8; i++)
                z = _mm256_sub_epi32(z, _mm256_madd_epi16(load(&w->mn[i][8 * h]), four(&x[t].sum16[2 * i])));
            sum[t][h] = _mm256_slli_epi32(z, log2_zero);
        }
}

/* One panel by T tokens of a K-quant with 16 sub-blocks of codes 0..63 around `zero`. */
INLINE void tile_k16(const wn_ready *w, const wn_rec *x, float *acc, const int T, const int log2_zero)
{
    __m256i sum[4][2];
    start_k16(sum, w, x, T, log2_zero);
    for (int j = 0; j < 16; j++)
        for (int k = 4 * j; k < 4 * j + 4; k += 2) {
            __m256i s[4][2];
            SUM16(s, w, x, k, 2, T)
            for (int t = 0; t < T; t++)
                for (int h = 0; h < 2; h++)
                    sum[t][h] = _mm256_add_epi32(sum[t][h], _mm256_madd_epi16(s[t][h], load(&w->sc[j][8 * h])));
        }
    for (int t = 0; t < T; t++)
        for (int h = 0; h < 2; h++)
            chain(acc + t * WN_PART_ROWS + 8 * h, sum[t][h], w->d[0] + 8 * h, x[t].d256);
}

/* Calls TILE(T) for tokens in fours, then the rest, for each panel of the chunk. */
#define TILES(c, TILE)                                                                      \
    for (int p = 0; p < (c)->n_panels; p++) {                                               \
        const wn_ready *w = &(c)->w[p];                                                     \
        int t0 = 0;                                                                         \
        for (; t0 + 4 <= (c)->n_tokens; t0 += 4) {                                          \
            const wn_rec *x = (c)->act + t0;                                                \
            float *acc = (c)->acc + t0 * WN_PART_ROWS + 16 * p;                             \
            float *min = (c)->min + t0 * WN_PART_ROWS + 16 * p;                             \
            (void)min;                                                                      \
            prefetch_next(c, p, t0);                                                        \
            TILE(4);                                                                        \
        }                                                                                   \
        const wn_rec *x = (c)->act + t0;                                                    \
        float *acc = (c)->acc + t0 * WN_PART_ROWS + 16 * p;                                 \
        float *min = (c)->min + t0 * WN_PART_ROWS + 16 * p;                                 \
        (void)min;                                                                          \
        switch ((c)->n_tokens - t0) {                                                       \
        case 1: TILE(1); break;                                                             \
        case 2: TILE(2); break;                                                             \
        case 3: TILE(3); break;                                                             \
        default: break;                                                                     \
        }                                                                                   \
    }

/* While tokens [t, t + 4) pass over panel p: their share of the panel's next chunk. */
INLINE void prefetch_next(const wn_chunk *c, int p, int t)
{
    if (!c->next) return;
    const char *base = (const char *)c->next + (size_t)p * c->next_stride;
    size_t n = (size_t)c->n_tokens, from = c->next_bytes * (size_t)t / n;
    size_t to = c->next_bytes * (size_t)(t + 4) / n;
    for (size_t i = (from + 63) & ~(size_t)63; i < to; i += 64) _mm_prefetch(base + i, _MM_HINT_T1);
}

static void tiles_q8_0(const wn_chunk *c)
{
#define TILE(T) tile_wide(w, x, c->n_blocks, acc, T)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q4_0(const wn_chunk *c)
{
#define TILE(T) tile_nibble(w, x, c->n_blocks, acc, T, 8)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q4_K(const wn_chunk *c)
{
#define TILE(T) tile_k8(w, x, acc, min, T)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q6_K(const wn_chunk *c)
{
#define TILE(T) tile_k16(w, x, acc, T, 5)
    TILES(c, TILE)
#undef TILE
}

/* ---- few tokens: from the stream to the multiplier ------------------------------------- */

enum { FEW_TOKENS = 3 };

INLINE __m256i madd2(__m256i u, __m256i q) { return _mm256_maddubs_epi16(u, q); }

INLINE void stream_q8_0_t(const wn_chunk *c, const uint8_t *src, size_t ahead, const int T)
{
    const __m256i one = _mm256_set1_epi16(1);
    const uint8_t *qs = src + 32 * c->n_blocks;
    for (int b = 0; b < c->n_blocks; b++) {
        __m256i s[FEW_TOKENS][2];
        float d[16];
        for (int t = 0; t < T; t++) s[t][0] = s[t][1] = _mm256_setzero_si256();
        for (int k = 8 * b; k < 8 * b + 8; k++, qs += 64) {
            __m256i w0 = load(qs), w1 = load(qs + 32);
            __m256i a0 = _mm256_abs_epi8(w0), a1 = _mm256_abs_epi8(w1);
            ahead_of(qs, ahead);
            for (int t = 0; t < T; t++) {
                __m256i q = four(c->act[t].q + 4 * k);
                __m256i p0 = madd2(a0, _mm256_sign_epi8(q, w0)), p1 = madd2(a1, _mm256_sign_epi8(q, w1));
                s[t][0] = _mm256_add_epi32(s[t][0], _mm256_madd_epi16(p0, one));
                s[t][1] = _mm256_add_epi32(s[t][1], _mm256_madd_epi16(p1, one));
            }
        }
        halves(d, src + 32 * b);
        ahead_of(src + 32 * b, ahead);
        for (int t = 0; t < T; t++)
            for (int h = 0; h < 2; h++)
                chain(c->acc + t * WN_PART_ROWS + 8 * h, s[t][h], d + 8 * h, c->act[t].d[b]);
    }
}

INLINE void stream_q4_0_t(const wn_chunk *c, const uint8_t *src, size_t ahead, const int T)
{
    const __m256i one = _mm256_set1_epi16(1);
    const uint8_t *qs = src + 32 * c->n_blocks;
    for (int b = 0; b < c->n_blocks; b++) {
        __m256i s[FEW_TOKENS][2];
        float d[16];
        for (int t = 0; t < T; t++) s[t][0] = s[t][1] = _mm256_setzero_si256();
        for (int k = 8 * b; k < 8 * b + 4; k++, qs += 64) {
            __m256i v0 = load(qs), v1 = load(qs + 32);
            ahead_of(qs, ahead);
            for (int t = 0; t < T; t++) {
                __m256i q = four(c->act[t].q + 4 * k), p = four(c->act[t].q + 4 * k + 16);
                s[t][0] = _mm256_add_epi16(s[t][0], _mm256_add_epi16(madd2(low4(v0), q), madd2(high4(v0), p)));
                s[t][1] = _mm256_add_epi16(s[t][1], _mm256_add_epi16(madd2(low4(v1), q), madd2(high4(v1), p)));
            }
        }
        halves(d, src + 32 * b);
        ahead_of(src + 32 * b, ahead);
        for (int t = 0; t < T; t++)
            for (int h = 0; h < 2; h++) {
                __m256i z = _mm256_set1_epi32(8 * c->act[t].sum[b]);
                __m256i sum = _mm256_sub_epi32(_mm256_madd_epi16(s[t][h], one), z);
                chain(c->acc + t * WN_PART_ROWS + 8 * h, sum, d + 8 * h, c->act[t].d[b]);
            }
    }
}

INLINE void stream_q4_K_t(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead, const int T)
{
    __m256i sum[4][2];
    const uint8_t *qs = src + 256;
    scales_q4_K(r, src, ahead);
    for (int t = 0; t < T; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
    for (int g = 0; g < 4; g++) {                       /* two sub-blocks: low and high nibbles */
        __m256i s[FEW_TOKENS][4];
        for (int t = 0; t < T; t++)
            for (int i = 0; i < 4; i++) s[t][i] = _mm256_setzero_si256();
        for (int k = 16 * g; k < 16 * g + 8; k++, qs += 64) {
            __m256i v0 = load(qs), v1 = load(qs + 32);
            ahead_of(qs, ahead);
            for (int t = 0; t < T; t++) {
                __m256i q = four(c->act[t].q + 4 * k), p = four(c->act[t].q + 4 * k + 32);
                s[t][0] = _mm256_add_epi16(s[t][0], madd2(low4(v0), q));
                s[t][1] = _mm256_add_epi16(s[t][1], madd2(low4(v1), q));
                s[t][2] = _mm256_add_epi16(s[t][2], madd2(high4(v0), p));
                s[t][3] = _mm256_add_epi16(s[t][3], madd2(high4(v1), p));
            }
        }
        for (int t = 0; t < T; t++)
            for (int i = 0; i < 4; i++) {
                __m256i sc = load(&r->sc[2 * g + i / 2][8 * (i % 2)]);
                sum[t][i % 2] = _mm256_add_epi32(sum[t][i % 2], _mm256_madd_epi16(s[t][i], sc));
            }
    }
    end_k8(r, c->act, c->acc, c->min, sum, T);
}

/* The sub-block of group g: its fours v and v + 1 of 8 rows. */
INLINE void pair_q6_K(__m256i sum[4][2], const wn_chunk *c, const wn_ready *r, __m256i a, __m256i b, int n,
                      int v, const int g, const int h, const int T)
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
INLINE void pairs_q6_K(__m256i sum[4][2], const wn_chunk *c, const wn_ready *r, const uint8_t *src, int n,
                       int v, const int h, size_t ahead, const int T)
{
    __m256i a[4], b[4];
    codes_q6_K(a, src, n, 64 * v + 32 * h, ahead);
    codes_q6_K(b, src, n, 64 * v + 64 + 32 * h, ahead);
    pair_q6_K(sum, c, r, a[0], b[0], n, v, 0, h, T);
    pair_q6_K(sum, c, r, a[1], b[1], n, v, 1, h, T);
    pair_q6_K(sum, c, r, a[2], b[2], n, v, 2, h, T);
    pair_q6_K(sum, c, r, a[3], b[3], n, v, 3, h, T);
}

INLINE void stream_q6_K_t(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead, const int T)
{
    __m256i sum[4][2];
    scales_q6_K(r, src, ahead);
    start_k16(sum, r, c->act, T, 5);
    for (int n = 0; n < 2; n++)
        for (int v = 0; v < 8; v += 2) {                /* two fours of k of four sub-blocks */
            pairs_q6_K(sum, c, r, src, n, v, 0, ahead, T);
            pairs_q6_K(sum, c, r, src, n, v, 1, ahead, T);
        }
    for (int t = 0; t < T; t++)
        for (int h = 0; h < 2; h++)
            chain(c->acc + t * WN_PART_ROWS + 8 * h, sum[t][h], r->d[0] + 8 * h, c->act[t].d256);
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

const wn_matmul_ops wn_matmul_ops_avx2 = {
    .act_q32 = wn_act_q32_avx2,
    .act_q256 = wn_act_q256_avx2,
    .unpack = { [WN_TYPE_Q8_0] = unpack_q8_0, [WN_TYPE_Q4_0] = unpack_q4_0,
                [WN_TYPE_Q4_K] = unpack_q4_K, [WN_TYPE_Q6_K] = unpack_q6_K },
    .tiles = { [WN_TYPE_Q8_0] = tiles_q8_0, [WN_TYPE_Q4_0] = tiles_q4_0,
               [WN_TYPE_Q4_K] = tiles_q4_K, [WN_TYPE_Q6_K] = tiles_q6_K },
    .few_tokens = FEW_TOKENS,
    .ahead_bytes = { [WN_TYPE_Q8_0] = 1 << 10, [WN_TYPE_Q4_0] = 1 << 10, [WN_TYPE_Q4_K] = 1 << 10,
                     [WN_TYPE_Q6_K] = 8 << 10 },
    .stream = { [WN_TYPE_Q8_0] = stream_q8_0, [WN_TYPE_Q4_0] = stream_q4_0,
                [WN_TYPE_Q4_K] = stream_q4_K, [WN_TYPE_Q6_K] = stream_q6_K },
    .floats = wn_floats_avx2,
};
