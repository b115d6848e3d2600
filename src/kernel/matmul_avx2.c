/* matmul_avx2.c - quantised products without a dot-product instruction.
 *
 * maddubs multiplies 32 unsigned bytes with 32 signed ones and adds pairs into int16,
 * saturating. It stays exact when 2 * max(u) * 127 <= 32767, and as long as sums do, they
 * may stay in int16 before madd widens them:
 *
 *     codes    pair at most       additions in int16 before widening
 *     0..15    2*15*127 = 3810    8     (a block of 32; widening multiplies by 1, or by
 *     0..31    2*31*127 = 7874    4      the integer sub-scale: it costs nothing)
 *     0..63    2*63*127 = 16002   2
 *     8 bits   |w| <= 128: 32512  1     abs(w) unsigned times sign(q, w)
 *
 * For 8 bits q is never -128 (absmax / 127), so sign() cannot overflow. A vector is 8
 * rows x 4 k; a tile is one panel (two vectors) by up to 4 tokens. Float accumulators
 * stay in the part's buffer: 16 registers are just enough for the integers.
 */
#include "kernel/matmul_avx2.h"

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
    __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q),
                                  _mm256_set1_epi16(1));
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

/* ---- products ------------------------------------------------------------------------- */

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
                __m256i p0 = madd2(a0, _mm256_sign_epi8(q, load(w->q[k])));
                __m256i p1 = madd2(a1, _mm256_sign_epi8(q, load(w->q[k] + 32)));
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

/* One panel by T tokens, blocks of 32 with codes of 4 or 5 bits; n fours of k are added before
 * widening. */
INLINE void tile_32(const wn_type type, const wn_ready *w, const wn_rec *x, int n_blocks,
                    float *acc, float *min, const int T, const int n)
{
    const __m256i one = _mm256_set1_epi16(1);
    for (int b = 0; b < n_blocks; b++) {
        __m256i sum[4][2];
        for (int t = 0; t < T; t++) sum[t][0] = sum[t][1] = start_32(type, &x[t], b);
        for (int k = 8 * b; k < 8 * b + 8; k += n) {
            __m256i s[4][2];
            SUM16(s, w, x, k, n, T)
            for (int t = 0; t < T; t++)
                for (int h = 0; h < 2; h++)
                    sum[t][h] = _mm256_add_epi32(sum[t][h], _mm256_madd_epi16(s[t][h], one));
        }
        for (int t = 0; t < T; t++) {
            for (int h = 0; h < 2; h++)
                chain(acc + t * WN_PART_ROWS + 8 * h, sum[t][h], w->d[b] + 8 * h, x[t].d[b]);
            if (wn_log2_zero(type) < 0) chain_min(min + t * WN_PART_ROWS, w->m[b], &x[t], b);
        }
    }
}

/* One panel by T tokens of a super-block of n_sub sub-blocks; n fours of k are added before the
 * sub-scale multiplies them. */
INLINE void tile_256(const wn_ready *w, const wn_rec *x, float *acc, float *min, const int T,
                     const int n_sub, const int n, const int log2_zero, const int n_min)
{
    __m256i sum[4][2];
    start_k16(sum, w, x, T, log2_zero);
    for (int j = 0; j < n_sub; j++)
        for (int k = j * (64 / n_sub); k < (j + 1) * (64 / n_sub); k += n) {
            __m256i s[4][2];
            SUM16(s, w, x, k, n, T)
            for (int t = 0; t < T; t++)
                for (int h = 0; h < 2; h++)
                    sum[t][h] = _mm256_add_epi32(sum[t][h],
                                                 _mm256_madd_epi16(s[t][h],
                                                                   load(&w->sc[j][8 * h])));
        }
    end_256(w, x, acc, min, sum, T, n_min);
}

/* One panel by T tokens of IQ4_XS. */
INLINE void tile_xs(const wn_ready *w, const wn_rec *x, float *acc, const int T)
{
    __m256i sum[4][2];
    for (int t = 0; t < T; t++) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
    for (int k = 0; k < 64; k++) {
        __m256i a0 = load(w->a[k]), a1 = load(w->a[k] + 32);
        __m256i sc0 = load(w->sc[k / 8]), sc1 = load(&w->sc[k / 8][8]);
        for (int t = 0; t < T; t++) {
            __m256i q = four(x[t].q + 4 * k);
            __m256i p0 = madd2(a0, _mm256_sign_epi8(q, load(w->q[k])));
            __m256i p1 = madd2(a1, _mm256_sign_epi8(q, load(w->q[k] + 32)));
            sum[t][0] = _mm256_add_epi32(sum[t][0], _mm256_madd_epi16(p0, sc0));
            sum[t][1] = _mm256_add_epi32(sum[t][1], _mm256_madd_epi16(p1, sc1));
        }
    }
    end_256(w, x, acc, NULL, sum, T, 0);
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

static void tiles_q8(const wn_chunk *c)
{
#define TILE(T) tile_wide(w, x, c->n_blocks, acc, T)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q4_0(const wn_chunk *c)
{
#define TILE(T) tile_32(WN_TYPE_Q4_0, w, x, c->n_blocks, acc, min, T, 8)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q4_1(const wn_chunk *c)
{
#define TILE(T) tile_32(WN_TYPE_Q4_1, w, x, c->n_blocks, acc, min, T, 8)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q5_0(const wn_chunk *c)
{
#define TILE(T) tile_32(WN_TYPE_Q5_0, w, x, c->n_blocks, acc, min, T, 4)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q5_1(const wn_chunk *c)
{
#define TILE(T) tile_32(WN_TYPE_Q5_1, w, x, c->n_blocks, acc, min, T, 4)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q2_K(const wn_chunk *c)
{
#define TILE(T) tile_256(w, x, acc, min, T, 16, 4, -1, 16)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q3_K(const wn_chunk *c)
{
#define TILE(T) tile_256(w, x, acc, min, T, 16, 4, 2, 0)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q4_K(const wn_chunk *c)
{
#define TILE(T) tile_256(w, x, acc, min, T, 8, 8, -1, 8)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q5_K(const wn_chunk *c)
{
#define TILE(T) tile_256(w, x, acc, min, T, 8, 4, -1, 8)
    TILES(c, TILE)
#undef TILE
}
static void tiles_q6_K(const wn_chunk *c)
{
#define TILE(T) tile_256(w, x, acc, min, T, 16, 2, 5, 0)
    TILES(c, TILE)
#undef TILE
}
static void tiles_iq4_xs(const wn_chunk *c)
{
#define TILE(T) tile_xs(w, x, acc, T)
    TILES(c, TILE)
#undef TILE
}

static wn_tiles_fn *const tiles[WN_TYPE_COUNT] = {
    [WN_TYPE_Q8_0] = tiles_q8, [WN_TYPE_IQ4_NL] = tiles_q8, [WN_TYPE_Q4_0] = tiles_q4_0,
    [WN_TYPE_Q4_1] = tiles_q4_1, [WN_TYPE_Q5_0] = tiles_q5_0, [WN_TYPE_MXFP4] = tiles_q5_0,
    [WN_TYPE_Q5_1] = tiles_q5_1, [WN_TYPE_Q2_K] = tiles_q2_K, [WN_TYPE_Q3_K] = tiles_q3_K,
    [WN_TYPE_Q4_K] = tiles_q4_K, [WN_TYPE_Q5_K] = tiles_q5_K, [WN_TYPE_Q6_K] = tiles_q6_K,
    [WN_TYPE_IQ4_XS] = tiles_iq4_xs,
};

const wn_matmul_ops wn_matmul_ops_avx2 = {
    .act_q32 = wn_act_q32_avx2,
    .act_q256 = wn_act_q256_avx2,
    .unpack = wn_unpack_avx2,
    .tiles = tiles,
    .few_tokens = 3,
    .ahead_bytes = { [WN_TYPE_Q8_0] = 1 << 10, [WN_TYPE_Q4_0] = 1 << 10, [WN_TYPE_Q4_1] = 1 << 10,
                     [WN_TYPE_Q5_0] = 1 << 10, [WN_TYPE_Q5_1] = 1 << 10, [WN_TYPE_IQ4_NL] = 1 << 10,
                     [WN_TYPE_MXFP4] = 1 << 10, [WN_TYPE_Q2_K] = 2 << 10, [WN_TYPE_Q3_K] = 2 << 10,
                     [WN_TYPE_Q4_K] = 1 << 10, [WN_TYPE_Q5_K] = 2 << 10, [WN_TYPE_Q6_K] = 8 << 10,
                     [WN_TYPE_IQ4_XS] = 1 << 10 },
    .stream = wn_stream_avx2,
    .floats = wn_floats_avx2,
};
