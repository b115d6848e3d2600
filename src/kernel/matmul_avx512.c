/* matmul_avx512.c - quantised products on vpdpbusd.
 *
 * vpdpbusd adds four products of an unsigned and a signed byte to each 32-bit lane, with
 * no saturation on the way. A vector is 16 rows x 4 k, so a lane is an output and nothing
 * is ever added across lanes. The weights' codes are the unsigned side; their zero point
 * comes back as the accumulator's start, -zero * sum(q), which is free.
 *
 * Integer sub-scales of K-quants: vpmulld would be two instructions on one port. With the
 * start at -zero * sum(q) the sum of a group fits 16 bits (Q4_K: 32 codes within 8 of the
 * zero point, 32 * 8 * 127 = 32512; Q6_K: 8 codes within 32), its upper half is only the
 * sign, and one vpdpwssd with (scale, 0) multiplies and adds.
 *
 * A 512-bit instruction has two ports whatever it does, so what counts is how many there
 * are besides vpdpbusd: convert, multiply and add per block of 32 leave 8 of 11. Tiles of
 * 4 panels x 4 tokens come within a few per cent of that, if they are in the order in
 * which they are written here and without moves between registers; compilers left to
 * themselves gave 0.46 to 0.62 of the peak for the same source (bench/NOTES.md). Hence
 * the few instructions in asm volatile, which stay in order.
 */
#include "kernel/matmul_avx512.h"

/* Loads in the order of the program, and the two dot products. */
INLINE __m512i load_here(const void *p)
{
    __m512i v;
    __asm__ volatile("vmovdqu64 %1, %0" : "=v"(v) : "m"(*(const char (*)[64])p));
    return v;
}
INLINE __m512i four_here(const void *p)
{
    __m512i v;
    __asm__ volatile("vpbroadcastd %1, %0" : "=v"(v) : "m"(*(const char (*)[4])p));
    return v;
}
INLINE __m512i dot_bytes(__m512i sum, __m512i w, __m512i q)
{
    __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(q));
    return sum;
}
INLINE __m512i dot_words(__m512i sum, __m512i a, __m512i b)
{
    __asm__ volatile("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

/* ---- unpacking ---------------------------------------------------------------------- */

INLINE __m512 half16(const uint8_t *src)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)src));
}
INLINE void halves(float out[16], const uint8_t *src) { _mm512_storeu_ps(out, half16(src)); }

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
    for (int j = 0; j < 4; j++) {
        store(w->mn[j], two_bytes(mn[j / 2], j % 2 * 2));
        store(w->mn[4 + j], _mm512_slli_epi32(two_bytes(sc[j / 2], j % 2 * 2), 3));  /* 8 * scale */
    }
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

/* words: sub-scales as (scale, 0) for vpdpwssd, else as int32, and pairs of them. */
INLINE void scales_q6_K(wn_ready *w, const uint8_t *src, size_t ahead, const bool words)
{
    for (int i = 3072; i < 3392; i += 64) ahead_of(src + i, ahead);
    halves(w->d[0], src + 3328);
    for (int i = 0; i < 4; i++) {
        __m512i s = load(src + 3072 + 64 * i);
        for (int j = 0; j < 4; j++) {
            __m512i v = _mm512_srai_epi32(_mm512_slli_epi32(s, (unsigned)(24 - 8 * j)), 24);
            store(w->sc[4 * i + j], words ? _mm512_and_si512(v, _mm512_set1_epi32(0xffff)) : v);
        }
        for (int j = 0; j < 2 && !words; j++)
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
    scales_q6_K(w, src, ahead, true);
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 8; i++) {
            __m512i q[4];
            codes_q6_K(q, src, n, i, ahead);
            for (int g = 0; g < 4; g++) store(w->q[32 * n + 8 * g + i], q[g]);
        }
}

/* ---- products ------------------------------------------------------------------------- */

enum {
    T_32 = 4, T_K = 3,          /* tokens of a tile: 16 sums of 32-blocks; 12 and 12 totals */
    T_MAX = 4,
    T_KEPT = 2                  /* tokens whose float chains of a 32-block tile stay in registers */
};

/* fma((float)sum, d * dx, acc) */
INLINE __m512 chain(__m512 acc, __m512i sum, __m512 d, __m512 dx)
{
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(d, dx), acc);
}
INLINE void chain_to(float *out, __m512i sum, const float *d, float dx)
{
    _mm512_storeu_ps(out, chain(_mm512_loadu_ps(out), sum, _mm512_loadu_ps(d), _mm512_set1_ps(dx)));
}

#define UNROLL _Pragma("GCC unroll 8")

/* s[r][t] = start[t], then n fours of k are added, from the k-th four on. */
#define SUMS(s, start, w, x, k, n, R, T)                                                    \
    do {                                                                                    \
        UNROLL for (int t = 0; t < (T); t++)                                                \
            UNROLL for (int r = 0; r < (R); r++) s[r][t] = four_here(start);                \
        UNROLL for (int i_ = 0; i_ < (n); i_++) {                                           \
            __m512i w_[WN_PART_PANELS];                                                     \
            UNROLL for (int r = 0; r < (R); r++) w_[r] = load_here((w)[r].q[(k) + i_]);     \
            UNROLL for (int t = 0; t < (T); t++) {                                          \
                __m512i q_ = four_here((x)[t].q + 4 * ((k) + i_));                          \
                UNROLL for (int r = 0; r < (R); r++) s[r][t] = dot_bytes(s[r][t], w_[r], q_); \
            }                                                                               \
        }                                                                                   \
    } while (0)

/* -(sum << log2_zero) of the 8 blocks of 32. */
INLINE void starts_32(int32_t start[8], __m256i sums, const int log2_zero)
{
    _mm256_storeu_si256((void *)start, _mm256_sub_epi32(_mm256_setzero_si256(),
                                                        _mm256_slli_epi32(sums, log2_zero)));
}

/* R panels by T tokens, blocks of 32. 16 sums leave registers for 8 of the 16 chains; the
 * others are memory operands in L1. */
INLINE void tile_32(const wn_ready *w, const wn_rec *x, int n_blocks, float *out, const int R, const int T,
                    const int log2_zero)
{
    int32_t start[T_MAX][8];
    __m512 acc[WN_PART_PANELS][T_KEPT];
    for (int t = 0; t < T; t++)
        starts_32(start[t], _mm256_loadu_si256((const void *)x[t].sum), log2_zero);
    for (int t = 0; t < T && t < T_KEPT; t++)
        for (int r = 0; r < R; r++) acc[r][t] = _mm512_loadu_ps(out + t * WN_PART_ROWS + 16 * r);
    for (int b = 0; b < n_blocks; b++) {
        __m512i s[WN_PART_PANELS][T_MAX];
        __m512 d[WN_PART_PANELS];
        __asm__ volatile("" ::: "memory");      /* or gcc keeps all chains, and no weights, in registers */
        SUMS(s, &start[t][b], w, x, 8 * b, 8, R, T);
        for (int r = 0; r < R; r++) d[r] = _mm512_castsi512_ps(load_here(w[r].d[b]));
        for (int t = 0; t < T; t++) {
            __m512 dx = _mm512_castsi512_ps(four_here(&x[t].d[b]));
            for (int r = 0; r < R; r++) {
                float *o = out + t * WN_PART_ROWS + 16 * r;
                if (t < T_KEPT) acc[r][t] = chain(acc[r][t], s[r][t], d[r], dx);
                else _mm512_storeu_ps(o, chain(_mm512_loadu_ps(o), s[r][t], d[r], dx));
            }
        }
    }
    for (int t = 0; t < T && t < T_KEPT; t++)
        for (int r = 0; r < R; r++) _mm512_storeu_ps(out + t * WN_PART_ROWS + 16 * r, acc[r][t]);
}

/* total[r][t] += scale * sum over n_groups of n fours; scales change every `each` groups. */
#define SUPER(total, start, w, x, n_groups, n, each, R, T)                                  \
    for (int j = 0; j < (n_groups); j++) {                                                  \
        __m512i s[WN_PART_PANELS][T_MAX], sc[WN_PART_PANELS];                               \
        SUMS(s, start, w, x, j * (n), n, R, T);                                             \
        UNROLL for (int r = 0; r < (R); r++) sc[r] = load_here((w)[r].sc[j / (each)]);      \
        UNROLL for (int t = 0; t < (T); t++)                                                \
            UNROLL for (int r = 0; r < (R); r++)                                            \
                total[r][t] = dot_words(total[r][t], s[r][t], sc[r]);                       \
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

/* What the starts at -8 * sum took away comes back as the total's start. */
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

/* R panels by T tokens of a K-quant with 8 sub-blocks of 4-bit codes and minimums. */
INLINE void tile_k8(const wn_ready *w, const wn_rec *x, float *out, float *min, const int R, const int T)
{
    int32_t start[T_MAX][8];
    __m512i total[WN_PART_PANELS][T_MAX];
    for (int t = 0; t < T; t++) starts_k8(start[t], &x[t]);
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int r = 0; r < R; r++) total[r][t] = total_k8(&w[r], &x[t]);
    SUPER(total, &start[t][j], w, x, 8, 8, 1, R, T)
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int r = 0; r < R; r++)
            end_k8(&w[r], &x[t], out + t * WN_PART_ROWS + 16 * r, min + t * WN_PART_ROWS + 16 * r,
                   total[r][t]);
}

/* start[2 g] = -zero * (sum of the g-th eight q) */
INLINE void starts_k16(int32_t start[64], const wn_rec *x, const int log2_zero)
{
    const __m512i zero = _mm512_set1_epi8((char)(1 << log2_zero));
    for (int i = 0; i < 4; i++) {
        __m512i fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), zero, load(x->q + 64 * i));
        __m512i eights = _mm512_add_epi32(fours, _mm512_srli_epi64(fours, 32));
        store(start + 16 * i, _mm512_sub_epi32(_mm512_setzero_si512(), eights));
    }
}

/* R panels by T tokens of a K-quant with 16 sub-blocks of 6-bit codes around 1 << log2_zero. */
INLINE void tile_k16(const wn_ready *w, const wn_rec *x, float *out, const int R, const int T,
                     const int log2_zero)
{
    int32_t start[T_MAX][64];
    __m512i total[WN_PART_PANELS][T_MAX];
    for (int t = 0; t < T; t++) starts_k16(start[t], &x[t], log2_zero);
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int r = 0; r < R; r++) total[r][t] = _mm512_setzero_si512();
    SUPER(total, &start[t][2 * j], w, x, 32, 2, 2, R, T)
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int r = 0; r < R; r++)
            chain_to(out + t * WN_PART_ROWS + 16 * r, total[r][t], w[r].d[0], x[t].d256);
}

/* Calls TILE(R, T) for tokens T by T, then for the rest. */
#define TOKENS(c, TILE, R, T)                                                               \
    do {                                                                                    \
        const wn_rec *x = (c)->act;                                                         \
        float *acc = (c)->acc, *min = (c)->min;                                             \
        int t = 0;                                                                          \
        (void)min;                                                                          \
        for (; t + (T) <= (c)->n_tokens; t += (T)) {                                        \
            prefetch_next(c, t, T);                                                         \
            TILE(R, T);                                                                     \
            x += (T), acc += (T) * WN_PART_ROWS, min += (T) * WN_PART_ROWS;                 \
        }                                                                                   \
        switch ((c)->n_tokens - t) {                                                        \
        case 3: TILE(R, 3); break;                                                          \
        case 2: TILE(R, 2); break;                                                          \
        case 1: TILE(R, 1); break;                                                          \
        }                                                                                   \
    } while (0)
#define PANELS(c, TILE, T)                                                                  \
    switch ((c)->n_panels) {                                                                \
    case 1: TOKENS(c, TILE, 1, T); break;                                                   \
    case 2: TOKENS(c, TILE, 2, T); break;                                                   \
    case 3: TOKENS(c, TILE, 3, T); break;                                                   \
    default: TOKENS(c, TILE, 4, T);                                                         \
    }

static void tiles_q8_0(const wn_chunk *c)
{
#define TILE(R, T) tile_32(c->w, x, c->n_blocks, acc, R, T, 7)
    PANELS(c, TILE, T_32)
#undef TILE
}
static void tiles_q4_0(const wn_chunk *c)
{
#define TILE(R, T) tile_32(c->w, x, c->n_blocks, acc, R, T, 3)
    PANELS(c, TILE, T_32)
#undef TILE
}
static void tiles_q4_K(const wn_chunk *c)
{
#define TILE(R, T) tile_k8(c->w, x, acc, min, R, T)
    PANELS(c, TILE, T_K)
#undef TILE
}
static void tiles_q6_K(const wn_chunk *c)
{
#define TILE(R, T) tile_k16(c->w, x, acc, R, T, 5)
    PANELS(c, TILE, T_K)
#undef TILE
}

/* ---- few tokens: from the stream to the multiplier ------------------------------------- */

enum { T_STREAM = 8 };          /* at a time; the second eight find the chunk in L1 */

INLINE void stream_q8_0_t(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead, const int T)
{
    const __m512i flip = _mm512_set1_epi8(-128);
    const uint8_t *qs = src + 32 * c->n_blocks;
    __m512 acc[T_STREAM];
    (void)r;
    UNROLL for (int t = 0; t < T; t++) acc[t] = _mm512_loadu_ps(c->acc + t * WN_PART_ROWS);
    for (int b = 0; b < c->n_blocks; b++) {
        __m512i s[T_STREAM];
        UNROLL for (int t = 0; t < T; t++) s[t] = _mm512_set1_epi32(-128 * c->act[t].sum[b]);
        UNROLL for (int i = 0; i < 8; i++, qs += 64) {
            __m512i w = _mm512_xor_si512(load(qs), flip);
            ahead_of(qs, ahead);
            UNROLL for (int t = 0; t < T; t++)
                s[t] = _mm512_dpbusd_epi32(s[t], w, four(c->act[t].q + 32 * b + 4 * i));
        }
        __m512 d = half16(src + 32 * b);
        if (b % 2 == 0) ahead_of(src + 32 * b, ahead);
        UNROLL for (int t = 0; t < T; t++)
            acc[t] = chain(acc[t], s[t], d, _mm512_set1_ps(c->act[t].d[b]));
    }
    UNROLL for (int t = 0; t < T; t++) _mm512_storeu_ps(c->acc + t * WN_PART_ROWS, acc[t]);
}

INLINE void stream_q4_0_t(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead, const int T)
{
    const uint8_t *qs = src + 32 * c->n_blocks;
    __m512 acc[T_STREAM];
    (void)r;
    UNROLL for (int t = 0; t < T; t++) acc[t] = _mm512_loadu_ps(c->acc + t * WN_PART_ROWS);
    for (int b = 0; b < c->n_blocks; b++) {
        __m512i s[T_STREAM];
        UNROLL for (int t = 0; t < T; t++) s[t] = _mm512_set1_epi32(-8 * c->act[t].sum[b]);
        UNROLL for (int i = 0; i < 4; i++, qs += 64) {
            __m512i v = load(qs), low = low4(v), high = high4(v);
            ahead_of(qs, ahead);
            UNROLL for (int t = 0; t < T; t++)
                s[t] = _mm512_dpbusd_epi32(s[t], low, four(c->act[t].q + 32 * b + 4 * i));
            UNROLL for (int t = 0; t < T; t++)
                s[t] = _mm512_dpbusd_epi32(s[t], high, four(c->act[t].q + 32 * b + 4 * i + 16));
        }
        __m512 d = half16(src + 32 * b);
        if (b % 2 == 0) ahead_of(src + 32 * b, ahead);
        UNROLL for (int t = 0; t < T; t++)
            acc[t] = chain(acc[t], s[t], d, _mm512_set1_ps(c->act[t].d[b]));
    }
    UNROLL for (int t = 0; t < T; t++) _mm512_storeu_ps(c->acc + t * WN_PART_ROWS, acc[t]);
}

INLINE void stream_q4_K_t(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead, const int T)
{
    __m512i total[T_STREAM];
    int32_t start[T_STREAM][8];
    const uint8_t *qs = src + 256;
    scales_q4_K(r, src, ahead);
    UNROLL for (int t = 0; t < T; t++) {
        starts_k8(start[t], &c->act[t]);
        total[t] = total_k8(r, &c->act[t]);
    }
    for (int g = 0; g < 4; g++) {                       /* two sub-blocks: low and high nibbles */
        __m512i a[T_STREAM], b[T_STREAM];
        UNROLL for (int t = 0; t < T; t++) {
            a[t] = four(&start[t][2 * g]);
            b[t] = four(&start[t][2 * g + 1]);
        }
        UNROLL for (int i = 0; i < 8; i++, qs += 64) {
            __m512i v = load(qs), low = low4(v), high = high4(v);
            ahead_of(qs, ahead);
            UNROLL for (int t = 0; t < T; t++) {
                a[t] = _mm512_dpbusd_epi32(a[t], low, four(c->act[t].q + 64 * g + 4 * i));
                b[t] = _mm512_dpbusd_epi32(b[t], high, four(c->act[t].q + 64 * g + 4 * i + 32));
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

/* Sums of 16 do not fit 16 bits, and sums of 8 would need more starts than they save: vpmulld. */
INLINE void stream_q6_K_t(const wn_chunk *c, wn_ready *r, const uint8_t *src, size_t ahead, const int T)
{
    __m512i total[T_STREAM];
    scales_q6_K(r, src, ahead, false);
    UNROLL for (int t = 0; t < T; t++) {                /* -32 * sum_j sc_j sum(q of j) */
        __m512i z = add_pairs(_mm512_setzero_si512(), (const int32_t (*)[16])r->mn, c->act[t].sum16, 8);
        total[t] = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(z, 5));
    }
    for (int n = 0; n < 2; n++)
        for (int v = 0; v < 8; v += 4) {                /* four sub-blocks of 16 */
            __m512i q[4][4];
            UNROLL for (int i = 0; i < 4; i++) codes_q6_K(q[i], src, n, v + i, ahead);
            UNROLL for (int g = 0; g < 4; g++) {
                const __m512i sc = load(r->sc[8 * n + 2 * g + v / 4]);
                UNROLL for (int t = 0; t < T; t++) {
                    const int8_t *x = c->act[t].q + 4 * (32 * n + 8 * g + v);
                    __m512i s = _mm512_setzero_si512();
                    UNROLL for (int i = 0; i < 4; i++) s = _mm512_dpbusd_epi32(s, q[i][g], four(x + 4 * i));
                    total[t] = _mm512_add_epi32(total[t], _mm512_mullo_epi32(s, sc));
                }
            }
        }
    UNROLL for (int t = 0; t < T; t++)
        chain_to(c->acc + t * WN_PART_ROWS, total[t], r->d[0], c->act[t].d256);
}

/* Tokens in groups of up to T_STREAM, as even as they go. */
#define STREAM(name)                                                                        \
    static void name(const wn_chunk *all, wn_ready *r, const uint8_t *src, size_t ahead)    \
    {                                                                                       \
        int groups = (all->n_tokens + T_STREAM - 1) / T_STREAM;                             \
        for (int g = 0; g < groups; g++, ahead = 0) {                                       \
            int from = all->n_tokens * g / groups;                                          \
            wn_chunk c = { .n_blocks = all->n_blocks, .act = all->act + from,               \
                           .acc = all->acc + from * WN_PART_ROWS,                           \
                           .min = all->min + from * WN_PART_ROWS };                         \
            switch (all->n_tokens * (g + 1) / groups - from) {                              \
            case 1: name##_t(&c, r, src, ahead, 1); break;                                  \
            case 2: name##_t(&c, r, src, ahead, 2); break;                                  \
            case 3: name##_t(&c, r, src, ahead, 3); break;                                  \
            case 4: name##_t(&c, r, src, ahead, 4); break;                                  \
            case 5: name##_t(&c, r, src, ahead, 5); break;                                  \
            case 6: name##_t(&c, r, src, ahead, 6); break;                                  \
            case 7: name##_t(&c, r, src, ahead, 7); break;                                  \
            default: name##_t(&c, r, src, ahead, 8);                                        \
            }                                                                               \
        }                                                                                   \
    }
STREAM(stream_q8_0)
STREAM(stream_q4_0)
STREAM(stream_q4_K)
STREAM(stream_q6_K)

const wn_matmul_ops wn_matmul_ops_avx512 = {
    .act_q32 = wn_act_q32_avx2,         /* one pass over a few KB: wider vectors gain nothing */
    .act_q256 = wn_act_q256_avx2,
    .unpack = { [WN_TYPE_Q8_0] = unpack_q8_0, [WN_TYPE_Q4_0] = unpack_q4_0,
                [WN_TYPE_Q4_K] = unpack_q4_K, [WN_TYPE_Q6_K] = unpack_q6_K },
    .tiles = { [WN_TYPE_Q8_0] = tiles_q8_0, [WN_TYPE_Q4_0] = tiles_q4_0,
               [WN_TYPE_Q4_K] = tiles_q4_K, [WN_TYPE_Q6_K] = tiles_q6_K },
    .few_tokens = 16,
    .ahead_bytes = { [WN_TYPE_Q8_0] = 1 << 10, [WN_TYPE_Q4_0] = 1 << 10, [WN_TYPE_Q4_K] = 1 << 10,
                     [WN_TYPE_Q6_K] = 8 << 10 },
    .stream = { [WN_TYPE_Q8_0] = stream_q8_0, [WN_TYPE_Q4_0] = stream_q4_0,
                [WN_TYPE_Q4_K] = stream_q4_K, [WN_TYPE_Q6_K] = stream_q6_K },
    .floats = wn_floats_avx512,
};
