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

/* ---- products ------------------------------------------------------------------------- */

enum {
    T_32 = 4, T_K = 3,          /* tokens of a tile: 16 sums of 32-blocks; 12 and 12 totals */
    T_MAX = 4,
    T_KEPT = 2                  /* tokens whose float chains of a 32-block tile stay in registers */
};

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

/* R panels by T tokens, blocks of 32. 16 sums leave registers for 8 of the 16 chains; the
 * others are memory operands in L1. */
INLINE void tile_32(const wn_ready *w, const wn_rec *x, int n_blocks, float *out, const int R,
                    const int T, const int log2_zero)
{
    int32_t start[T_MAX][8];
    __m512 acc[WN_PART_PANELS][T_KEPT];
    for (int t = 0; t < T; t++) {
        if (log2_zero < 0) memset(start[t], 0, sizeof start[t]);
        else starts_32(start[t], _mm256_loadu_si256((const void *)x[t].sum), log2_zero);
    }
    for (int t = 0; t < T && t < T_KEPT; t++)
        for (int r = 0; r < R; r++) acc[r][t] = _mm512_loadu_ps(out + t * WN_PART_ROWS + 16 * r);
    for (int b = 0; b < n_blocks; b++) {
        __m512i s[WN_PART_PANELS][T_MAX];
        __m512 d[WN_PART_PANELS];
        __asm__ volatile("" ::: "memory");      /* or gcc keeps all chains, and no weights, in
                                                   registers */
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

/* R panels by T tokens of Q4_K, or of Q5_K, whose sums fit 16 bits for half a sub-block only. */
INLINE void tile_k8(const wn_ready *w, const wn_rec *x, float *out, float *min, const int R,
                    const int T, const bool five)
{
    int32_t start[T_MAX][16];
    __m512i total[WN_PART_PANELS][T_MAX];
    for (int t = 0; t < T; t++) {
        if (five) starts_16(start[t], &x[t], 4);
        else starts_k8(start[t], &x[t]);
    }
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int r = 0; r < R; r++) total[r][t] = total_k8(&w[r], &x[t]);
    if (five) SUPER(total, &start[t][j], w, x, 16, 4, 2, R, T)
    else SUPER(total, &start[t][j], w, x, 8, 8, 1, R, T)
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

/* R panels by T tokens of Q2_K or Q3_K: sums of 16 codes of 2 or 3 bits fit 16 bits. */
INLINE void tile_low(const wn_ready *w, const wn_rec *x, float *out, float *min, const int R,
                     const int T, const int log2_zero, const bool has_min)
{
    int32_t start[T_MAX][16];
    __m512i total[WN_PART_PANELS][T_MAX];
    for (int t = 0; t < T; t++) starts_16(start[t], &x[t], log2_zero);
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int r = 0; r < R; r++) total[r][t] = _mm512_setzero_si512();
    SUPER(total, &start[t][j], w, x, 16, 4, 1, R, T)
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int r = 0; r < R; r++) {
            chain_to(out + t * WN_PART_ROWS + 16 * r, total[r][t], w[r].d[0], x[t].d256);
            if (has_min) end_min_16(&w[r], &x[t], min + t * WN_PART_ROWS + 16 * r);
        }
}

/* R panels by T tokens of IQ4_XS: numbers of 8 bits, whose sums fit 16 bits nowhere. */
INLINE void tile_xs(const wn_ready *w, const wn_rec *x, float *out, const int R, const int T)
{
    int32_t start[T_MAX][8];
    __m512i total[WN_PART_PANELS][T_MAX];
    for (int t = 0; t < T; t++)
        starts_32(start[t], _mm256_cvtepi16_epi32(_mm_loadu_si128((const void *)x[t].sum32)), 7);
    UNROLL for (int t = 0; t < T; t++)
        UNROLL for (int r = 0; r < R; r++) total[r][t] = _mm512_setzero_si512();
    for (int j = 0; j < 8; j++) {
        __m512i s[WN_PART_PANELS][T_MAX], sc[WN_PART_PANELS];
        SUMS(s, &start[t][j], w, x, j * 8, 8, R, T);
        UNROLL for (int r = 0; r < R; r++) sc[r] = load_here(w[r].sc[j]);
        UNROLL for (int t = 0; t < T; t++)
            UNROLL for (int r = 0; r < R; r++)
                total[r][t] = _mm512_add_epi32(total[r][t], _mm512_mullo_epi32(s[r][t], sc[r]));
    }
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

#define TILES_32(name, mins)                                                                \
    static void name(const wn_chunk *c)                                                     \
    {                                                                                       \
        PANELS(c, TILE, T_32)                                                               \
        mins;                                                                               \
    }
#define TILE(R, T) tile_32(c->w, x, c->n_blocks, acc, R, T, 7)
TILES_32(tiles_8, )
#undef TILE
#define TILE(R, T) tile_32(c->w, x, c->n_blocks, acc, R, T, 3)
TILES_32(tiles_4, )
#undef TILE
#define TILE(R, T) tile_32(c->w, x, c->n_blocks, acc, R, T, 4)
TILES_32(tiles_5, )
#undef TILE
#define TILE(R, T) tile_32(c->w, x, c->n_blocks, acc, R, T, -1)
TILES_32(tiles_min, min_chains(c))
#undef TILE

static void tiles_q4_K(const wn_chunk *c)
{
#define TILE(R, T) tile_k8(c->w, x, acc, min, R, T, false)
    PANELS(c, TILE, T_K)
#undef TILE
}
static void tiles_q5_K(const wn_chunk *c)
{
#define TILE(R, T) tile_k8(c->w, x, acc, min, R, T, true)
    PANELS(c, TILE, T_K)
#undef TILE
}
static void tiles_q2_K(const wn_chunk *c)
{
#define TILE(R, T) tile_low(c->w, x, acc, min, R, T, -1, true)
    PANELS(c, TILE, T_K)
#undef TILE
}
static void tiles_q3_K(const wn_chunk *c)
{
#define TILE(R, T) tile_low(c->w, x, acc, min, R, T, 2, false)
    PANELS(c, TILE, T_K)
#undef TILE
}
static void tiles_q6_K(const wn_chunk *c)
{
#define TILE(R, T) tile_k16(c->w, x, acc, R, T, 5)
    PANELS(c, TILE, T_K)
#undef TILE
}
static void tiles_iq4_xs(const wn_chunk *c)
{
#define TILE(R, T) tile_xs(c->w, x, acc, R, T)
    PANELS(c, TILE, T_K)
#undef TILE
}

static wn_tiles_fn *const tiles[WN_TYPE_COUNT] = {
    [WN_TYPE_Q8_0] = tiles_8, [WN_TYPE_IQ4_NL] = tiles_8, [WN_TYPE_Q4_0] = tiles_4,
    [WN_TYPE_Q5_0] = tiles_5, [WN_TYPE_MXFP4] = tiles_5, [WN_TYPE_Q4_1] = tiles_min,
    [WN_TYPE_Q5_1] = tiles_min, [WN_TYPE_Q2_K] = tiles_q2_K, [WN_TYPE_Q3_K] = tiles_q3_K,
    [WN_TYPE_Q4_K] = tiles_q4_K, [WN_TYPE_Q5_K] = tiles_q5_K, [WN_TYPE_Q6_K] = tiles_q6_K,
    [WN_TYPE_IQ4_XS] = tiles_iq4_xs,
};

const wn_matmul_ops wn_matmul_ops_avx512 = {
    .act_q32 = wn_act_q32_avx2,         /* one pass over a few KB: wider vectors gain nothing */
    .act_q256 = wn_act_q256_avx2,
    .unpack = wn_unpack_avx512,
    .tiles = tiles,
    .few_tokens = 16,
    .ahead_bytes = { [WN_TYPE_Q8_0] = 1 << 10, [WN_TYPE_Q4_0] = 1 << 10, [WN_TYPE_Q4_1] = 1 << 10,
                     [WN_TYPE_Q5_0] = 1 << 10, [WN_TYPE_Q5_1] = 1 << 10, [WN_TYPE_IQ4_NL] = 1 << 10,
                     [WN_TYPE_MXFP4] = 1 << 10, [WN_TYPE_Q2_K] = 2 << 10, [WN_TYPE_Q3_K] = 2 << 10,
                     [WN_TYPE_Q4_K] = 1 << 10, [WN_TYPE_Q5_K] = 2 << 10, [WN_TYPE_Q6_K] = 8 << 10,
                     [WN_TYPE_IQ4_XS] = 1 << 10 },
    .stream = wn_stream_avx512,
    .floats = wn_floats_avx512,
};
