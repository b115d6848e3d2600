/* matmul_amx.c - quantised products of many tokens on Intel's tiles.
 *
 * A tile is 16 rows of 64 bytes; one tile product adds 16 tokens x 16 rows x 64 bytes of k
 * in 16 cycles, eight times what vpdpbusd does. It gives the integers of the order law; the
 * float chains are AVX-512 as in matmul_avx512.c. A tiles are tokens x k and come straight
 * from the activations' records, B tiles are k x rows and what the packed layout already is,
 * C is [token][row] as the chains want it, with a stop in the L1 cache in between.
 *
 *     32-block types   signed codes, one tile product of 32 k per block
 *     K-quants         each code is multiplied by its sub-scale while the chunk is unpacked:
 *                      13 bits, cut into a signed high byte and an unsigned low byte. Four
 *                      tile products each give both sums over all 256 columns;
 *                      high * 256 + low is the super-block's integer
 *
 * What is scarce is port 0. While tiles are in use, and for some 400 cycles after, 512-bit
 * float arithmetic runs there alone, one a cycle (bench/NOTES.md). The vector half of one
 * unit of work is therefore interleaved with the tile half of the next, by hand: the reorder
 * buffer is too short for it, and a store that waits for its tile product holds up the
 * products behind it, so it comes two products later.
 *
 * Fewer than 16 tokens at the end are copied to a padded group of 16. Below from_tokens the
 * whole product is avx512's.
 */
#include "kernel/matmul_avx512.h"
#include "kernel/tiles_amx.h"

#include <cpuid.h>
#include <stdalign.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- leave to use tiles ----------------------------------------------------------------- */

bool wn_matmul_amx_runs(void)
{
    enum { TILE = 1 << 24, INT8 = 1 << 25, NEED = TILE | INT8 };
    enum { OSXSAVE = 1 << 27, TILE_STATES = 3 << 17, REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE)) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & NEED) != NEED) return false;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & TILE_STATES) != TILE_STATES) return false;
    /* Linux makes the 8 KB of tile registers part of a process only when it asks. */
    return !syscall(SYS_arch_prctl, REQ_XCOMP_PERM, TILE_DATA);
}

/* Tiles 0 to 3 are C, 4 and 5 are A, 6 and 7 are B. */
static const wn_tile_config of_32 = {              /* A: 16 tokens x 32 k, B: 32 k x 16 rows */
    .palette = 1,
    .row_bytes = { 64, 64, 64, 64, 32, 32, 64, 64 },
    .rows = { 16, 16, 16, 16, 16, 16, 8, 8 },
};
static const wn_tile_config of_64 = {
    .palette = 1,
    .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 },
    .rows = { 16, 16, 16, 16, 16, 16, 16, 16 },
};

enum { GROUP = 16 };            /* tokens of a tile */

/* The instructions' operands are literals, hence the switches; all calls are inlined with
 * constants. */
INLINE void load_a(const int i, const void *p)
{
    if (i) _tile_loadd(5, p, sizeof(wn_rec));
    else _tile_loadd(4, p, sizeof(wn_rec));
}
INLINE void load_b(const int i, const void *p)
{
    if (i) _tile_loadd(7, p, 64);
    else _tile_loadd(6, p, 64);
}
INLINE void store_c(const int tile, void *p)
{
    switch (tile) {
    case 0: _tile_stored(0, p, 64); break;
    case 1: _tile_stored(1, p, 64); break;
    case 2: _tile_stored(2, p, 64); break;
    default: _tile_stored(3, p, 64);
    }
}
/* gcc's _tile_loadd() does not say that it reads memory: what was written must be there. */
#define WRITTEN() __asm__ volatile("" ::: "memory")

/* ---- unpacking: what avx512 makes of a chunk, brought into the form of B -------------------- */

/* Codes without their zero point. */
INLINE void unpack_32(const wn_type type, wn_ready *w, const uint8_t *src, int n_blocks,
                      size_t ahead)
{
    const int zero = wn_log2_zero(type);
    wn_unpack_avx512[type](w, src, n_blocks, ahead);
    for (int i = 0; i < 8 * n_blocks && zero >= 0; i++)
        store(w->q[i], _mm512_sub_epi8(load(w->q[i]), _mm512_set1_epi8((char)(1 << zero))));
}

/* (code - zero) * sub-scale as two planes: q the low bytes, a the high ones. */
INLINE void unpack_256(const wn_type type, wn_ready *w, const uint8_t *src, int n_blocks,
                       size_t ahead, const int n_sub, const short zero_point)
{
    const __m512i zero = _mm512_set1_epi16(zero_point);
    wn_unpack_avx512[type](w, src, n_blocks, ahead);
    const __m512i byte = _mm512_set1_epi16(255);
    for (int j = 0; j < n_sub; j++) {
        __m512i sc = load(w->sc[j]);
        sc = _mm512_or_si512(_mm512_slli_epi32(sc, 16),
                             _mm512_and_si512(sc, _mm512_set1_epi32(0xffff)));
        for (int i = j * (64 / n_sub); i < (j + 1) * (64 / n_sub); i++) {
            __m512i v = load(w->q[i]);
            __m512i even = _mm512_sub_epi16(_mm512_and_si512(v, byte), zero);
            __m512i odd = _mm512_sub_epi16(_mm512_srli_epi16(v, 8), zero);
            even = _mm512_mullo_epi16(even, sc);
            odd = _mm512_mullo_epi16(odd, sc);
            store(w->q[i],
                  _mm512_or_si512(_mm512_and_si512(even, byte), _mm512_slli_epi16(odd, 8)));
            store(w->a[i],
                  _mm512_or_si512(_mm512_srli_epi16(even, 8), _mm512_andnot_si512(byte, odd)));
        }
    }
}

#define UNPACK_32(name, type)                                                               \
    static void name(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)           \
    {                                                                                       \
        unpack_32(type, w, src, n_blocks, ahead);                                           \
    }
#define UNPACK_256(name, type, n_sub, zero)                                                 \
    static void name(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)           \
    {                                                                                       \
        unpack_256(type, w, src, n_blocks, ahead, n_sub, zero);                             \
    }
UNPACK_32(unpack_q8_0, WN_TYPE_Q8_0)
UNPACK_32(unpack_q4_0, WN_TYPE_Q4_0)
UNPACK_32(unpack_q4_1, WN_TYPE_Q4_1)
UNPACK_32(unpack_q5_0, WN_TYPE_Q5_0)
UNPACK_32(unpack_q5_1, WN_TYPE_Q5_1)
UNPACK_32(unpack_iq4_nl, WN_TYPE_IQ4_NL)
UNPACK_32(unpack_mxfp4, WN_TYPE_MXFP4)
UNPACK_256(unpack_q2_K, WN_TYPE_Q2_K, 16, 0)
UNPACK_256(unpack_q3_K, WN_TYPE_Q3_K, 16, 4)
UNPACK_256(unpack_q4_K, WN_TYPE_Q4_K, 8, 0)
UNPACK_256(unpack_q5_K, WN_TYPE_Q5_K, 8, 0)
UNPACK_256(unpack_q6_K, WN_TYPE_Q6_K, 16, 32)
UNPACK_256(unpack_iq4_xs, WN_TYPE_IQ4_XS, 8, 128)

/* ---- blocks of 32 --------------------------------------------------------------------------- */

enum { BLOCKS = 4 };            /* blocks of a unit */

/* A unit: 16 tokens, P (1 or 2) panels, up to BLOCKS blocks. */
typedef struct {
    const wn_ready *w;          /* first panel */
    const wn_rec *x;            /* first token */
    float *acc;
    int block, n_blocks;        /* first one, how many */
} unit_32;

typedef struct {                /* of this unit and of the next */
    alignas(64) int32_t c[2][BLOCKS][2][GROUP][16];     /* [unit][block][panel][token][row] */
} room_32;

/* Step s of a unit's P * BLOCKS tile products. */
INLINE void multiply_32(const unit_32 *u, const int s, const int P)
{
    const int p = s % P, b = s / P;
    if (p == 0) load_a(b % 2, u->x->q + 32 * (u->block + b));
    load_b(s % 2, u->w[p].q[8 * (u->block + b)]);
    if (P == 2) {               /* A changes every two products, B with each */
        switch (s % 4) {
        case 0: _tile_zero(0); _tile_dpbssd(0, 4, 6); break;
        case 1: _tile_zero(1); _tile_dpbssd(1, 4, 7); break;
        case 2: _tile_zero(2); _tile_dpbssd(2, 5, 6); break;
        default: _tile_zero(3); _tile_dpbssd(3, 5, 7);
        }
    } else {
        switch (s % 4) {
        case 0: _tile_zero(0); _tile_dpbssd(0, 4, 6); break;
        case 1: _tile_zero(1); _tile_dpbssd(1, 5, 7); break;
        case 2: _tile_zero(2); _tile_dpbssd(2, 4, 6); break;
        default: _tile_zero(3); _tile_dpbssd(3, 5, 7);
        }
    }
}

/* In step s the product of step s - 2 is stored, which may be of the unit before. */
INLINE void store_32(room_32 *m, const int half, const int s, const int P)
{
    const int at = s < 2 ? P * BLOCKS - 2 + s : s - 2;
    store_c(at % 4, m->c[s < 2 ? half : !half][at / P][at % P]);
}

/* Chains of 16 tokens, one block further. */
INLINE void chains_32(__m512 acc[GROUP], int32_t (*c)[16], __m512 dw, const wn_rec *x, int b)
{
    _Pragma("GCC unroll 16")
    for (int t = 0; t < GROUP; t++) {
        __m512 scale = _mm512_mul_ps(dw, _mm512_set1_ps(x[t].d[b]));
        acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(c[t])), scale, acc[t]);
    }
}

/* The chains of u, whose integers are in c[half], and meanwhile the products of next. */
INLINE void finish_32(room_32 *m, const int half, const unit_32 *u, const unit_32 *next,
                      const int P)
{
    if (!next) {
        store_32(m, half, 0, P);
        store_32(m, half, 1, P);
    }
    _Pragma("GCC unroll 2")
    for (int p = 0; p < P; p++) {
        float *out = u->acc + p * WN_PANEL_ROWS;
        __m512 acc[GROUP];
        for (int t = 0; t < GROUP; t++) acc[t] = _mm512_loadu_ps(out + t * WN_PART_ROWS);
        _Pragma("GCC unroll 4")
        for (int b = 0; b < BLOCKS; b++) {
            if (next) {
                store_32(m, half, p * BLOCKS + b, P);
                multiply_32(next, p * BLOCKS + b, P);
            }
            if (b < u->n_blocks)
                chains_32(acc, m->c[half][b][p], _mm512_loadu_ps(u->w[p].d[u->block + b]), u->x,
                          u->block + b);
        }
        for (int t = 0; t < GROUP; t++) _mm512_storeu_ps(out + t * WN_PART_ROWS, acc[t]);
    }
}

/* All tokens, a multiple of 16, against all panels, a multiple of P. */
INLINE void groups_32(const wn_chunk *c, const int P)
{
    room_32 m;
    unit_32 u[2];
    int half = 0;
    bool begun = false;
    for (int t = 0; t < c->n_tokens; t += GROUP) {
        prefetch_next(c, t, GROUP);
        for (int p = 0; p < c->n_panels; p += P)
            for (int b = 0; b < c->n_blocks; b += BLOCKS) {
                unit_32 *next = &u[!half];
                *next = (unit_32){ .w = c->w + p, .x = c->act + t, .block = b,
                                   .acc = c->acc + t * WN_PART_ROWS + p * WN_PANEL_ROWS,
                                   .n_blocks = WN_MIN(BLOCKS, c->n_blocks - b) };
                if (begun) {
                    finish_32(&m, half, &u[half], next, P);
                } else {
                    _Pragma("GCC unroll 8")
                    for (int s = 0; s < P * BLOCKS; s++) {
                        if (s >= 2) store_32(&m, half, s, P);
                        multiply_32(next, s, P);
                    }
                }
                begun = true;
                half = !half;
            }
    }
    finish_32(&m, half, &u[half], NULL, P);
}
static void groups_32x1(const wn_chunk *c) { groups_32(c, 1); }
static void groups_32x2(const wn_chunk *c) { groups_32(c, 2); }

/* ---- K-quants -------------------------------------------------------------------------------- */

typedef struct {
    const wn_ready *w;
    const wn_rec *x;
    float *acc, *min;
} unit_256;

typedef struct {
    alignas(64) int32_t c[2][2][2][GROUP][16];          /* [unit][group][low, high] */
} room_256;

/* Step s of a unit's 8 * G tile products: two planes of each group, 64 columns further
 * every 2 * G steps. */
INLINE void multiply_256(const unit_256 *u, const int s, const int G)
{
    const int tile = s % (2 * G), k = s / (2 * G);
    if (tile == 0) {
        load_a(0, u->x->q + 64 * k);
        load_b(0, u->w->q[16 * k]);
    }
    if (tile == 1) load_b(1, u->w->a[16 * k]);
    if (tile == 2) load_a(1, u->x[GROUP].q + 64 * k);
    switch (tile) {
    case 0: if (k == 0) _tile_zero(0); _tile_dpbsud(0, 4, 6); break;
    case 1: if (k == 0) _tile_zero(1); _tile_dpbssd(1, 4, 7); break;
    case 2: if (k == 0) _tile_zero(2); _tile_dpbsud(2, 5, 6); break;
    default: if (k == 0) _tile_zero(3); _tile_dpbssd(3, 5, 7);
    }
}

INLINE void chain_256(float *out, __m512i sum, __m512 d, float dx)
{
    __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(dx));
    _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, _mm512_loadu_ps(out)));
}

/* Three units are under way: the chains of u, the stores of the one behind it (each before
 * its tile is needed again) and the products of next. n_min: minimums of a super-block. */
INLINE void step_256(room_256 *m, const int half, const unit_256 *u, bool stores,
                     const unit_256 *next, const int G, const int n_min)
{
    __m512 d, dm;
    __m512i mn[8];
    if (u) {
        d = _mm512_loadu_ps(u->w->d[0]), dm = _mm512_loadu_ps(u->w->m[0]);
        for (int i = 0; i < n_min / 2; i++) mn[i] = load(u->w->mn[i]);
    }
    _Pragma("GCC unroll 16")
    for (int s = 0; s < 8 * G; s++) {
        if (stores && s < 2 * G) store_c(s, m->c[!half][s / 2][s % 2]);
        if (next) multiply_256(next, s, G);
        for (int t = s * 2; u && t < s * 2 + 2; t++) {
            const wn_rec *x = &u->x[t];
            int32_t (*c)[GROUP][16] = m->c[half][t / GROUP];
            __m512i sum = _mm512_add_epi32(load(c[0][t % GROUP]),
                                           _mm512_slli_epi32(load(c[1][t % GROUP]), 8));
            chain_256(u->acc + t * WN_PART_ROWS, sum, d, x->d256);
            if (!n_min) continue;
            sum = _mm512_setzero_si512();
            for (int i = 0; i < n_min / 2; i++)
                sum = _mm512_dpwssd_epi32(sum, mn[i],
                                          four(n_min == 8 ? &x->sum32[2 * i] : &x->sum16[2 * i]));
            chain_256(u->min + t * WN_PART_ROWS, sum, dm, x->d256);
        }
    }
}

/* Tokens [from, to), a multiple of 16 * G, against all panels. */
INLINE void tokens_256(const wn_chunk *c, room_256 *m, int from, int to, const int G,
                       const int n_min)
{
    unit_256 u[3];
    int i = 0;
    for (int t = from; t < to; t += G * GROUP) {
        prefetch_next(c, t, G * GROUP);
        for (int p = 0; p < c->n_panels; p++, i++) {
            int at = t * WN_PART_ROWS + p * WN_PANEL_ROWS;
            unit_256 *next = &u[i % 3];
            *next = (unit_256){ .w = c->w + p, .x = c->act + t, .acc = c->acc + at,
                                .min = c->min + at };
            if (i >= 2) step_256(m, i % 2, &u[(i + 1) % 3], true, next, G, n_min);
            else step_256(m, i % 2, NULL, i > 0, next, G, n_min);
        }
    }
    if (i > 1) step_256(m, i % 2, &u[(i + 1) % 3], true, NULL, G, n_min);
    else if (i == 1) step_256(m, i % 2, NULL, true, NULL, G, n_min);
    if (i) step_256(m, (i + 1) % 2, &u[(i + 2) % 3], false, NULL, G, n_min);
}

INLINE void groups_256(const wn_chunk *c, const int n_min)
{
    room_256 m;
    int pairs = c->n_tokens / (2 * GROUP) * (2 * GROUP);
    tokens_256(c, &m, 0, pairs, 2, n_min);
    tokens_256(c, &m, pairs, c->n_tokens, 1, n_min);
}
static void groups_min8(const wn_chunk *c) { groups_256(c, 8); }
static void groups_min16(const wn_chunk *c) { groups_256(c, 16); }
static void groups_no_min(const wn_chunk *c) { groups_256(c, 0); }

/* ---- any number of tokens -------------------------------------------------------------------- */

/* Whole groups in place, the rest in a copy of 16 tokens. */
static void all_tokens(const wn_chunk *c, const wn_tile_config *config, wn_tiles_fn *groups,
                       bool has_min)
{
    int whole = c->n_tokens / GROUP * GROUP, rest = c->n_tokens - whole;
    wn_chunk part = *c;
    wn_tiles_use(config);
    WRITTEN();
    part.n_tokens = whole;
    if (whole) groups(&part);
    if (rest) {
        alignas(64) wn_rec act[GROUP];
        alignas(64) float acc[GROUP][WN_PART_ROWS], min[GROUP][WN_PART_ROWS];
        float *out = c->acc + (size_t)whole * WN_PART_ROWS,
              *sub = c->min + (size_t)whole * WN_PART_ROWS;
        size_t row = sizeof(float) * WN_PANEL_ROWS * (size_t)c->n_panels;
        memset(acc, 0, sizeof acc);
        memset(min, 0, sizeof min);
        memcpy(act, c->act + whole, sizeof act[0] * (size_t)rest);
        memset(act + rest, 0, sizeof act[0] * (size_t)(GROUP - rest));
        for (int t = 0; t < rest; t++) {
            memcpy(acc[t], out + t * WN_PART_ROWS, row);
            if (has_min) memcpy(min[t], sub + t * WN_PART_ROWS, row);
        }
        WRITTEN();
        part.act = act, part.n_tokens = GROUP, part.acc = acc[0], part.min = min[0];
        if (whole) part.next = NULL;
        groups(&part);
        for (int t = 0; t < rest; t++) {
            memcpy(out + t * WN_PART_ROWS, acc[t], row);
            if (has_min) memcpy(sub + t * WN_PART_ROWS, min[t], row);
        }
    }
    wn_tiles_done();
}

static void tiles_32(const wn_chunk *c)
{
    all_tokens(c, &of_32, c->n_panels % 2 ? groups_32x1 : groups_32x2, false);
}
static void tiles_32_min(const wn_chunk *c)
{
    tiles_32(c);
    min_chains(c);
}
static void tiles_min8(const wn_chunk *c) { all_tokens(c, &of_64, groups_min8, true); }
static void tiles_min16(const wn_chunk *c) { all_tokens(c, &of_64, groups_min16, true); }
static void tiles_no_min(const wn_chunk *c) { all_tokens(c, &of_64, groups_no_min, false); }

static wn_unpack_fn *const unpacks[WN_TYPE_COUNT] = {
    [WN_TYPE_Q8_0] = unpack_q8_0, [WN_TYPE_Q4_0] = unpack_q4_0, [WN_TYPE_Q4_1] = unpack_q4_1,
    [WN_TYPE_Q5_0] = unpack_q5_0, [WN_TYPE_Q5_1] = unpack_q5_1, [WN_TYPE_IQ4_NL] = unpack_iq4_nl,
    [WN_TYPE_MXFP4] = unpack_mxfp4, [WN_TYPE_Q2_K] = unpack_q2_K, [WN_TYPE_Q3_K] = unpack_q3_K,
    [WN_TYPE_Q4_K] = unpack_q4_K, [WN_TYPE_Q5_K] = unpack_q5_K, [WN_TYPE_Q6_K] = unpack_q6_K,
    [WN_TYPE_IQ4_XS] = unpack_iq4_xs,
};
static wn_tiles_fn *const tiles[WN_TYPE_COUNT] = {
    [WN_TYPE_Q8_0] = tiles_32, [WN_TYPE_Q4_0] = tiles_32, [WN_TYPE_Q4_1] = tiles_32_min,
    [WN_TYPE_Q5_0] = tiles_32, [WN_TYPE_Q5_1] = tiles_32_min, [WN_TYPE_IQ4_NL] = tiles_32,
    [WN_TYPE_MXFP4] = tiles_32, [WN_TYPE_Q2_K] = tiles_min16, [WN_TYPE_Q3_K] = tiles_no_min,
    [WN_TYPE_Q4_K] = tiles_min8, [WN_TYPE_Q5_K] = tiles_min8, [WN_TYPE_Q6_K] = tiles_no_min,
    [WN_TYPE_IQ4_XS] = tiles_no_min,
};

const wn_matmul_ops wn_matmul_ops_amx = {
    .act_q32 = wn_act_q32_avx2,
    .act_q256 = wn_act_q256_avx2,
    .unpack = unpacks,
    .tiles = tiles,
    .floats = wn_floats_avx512,
    .few = &wn_matmul_ops_avx512,
    .from_tokens = { [WN_TYPE_Q8_0] = 24,
                     [WN_TYPE_Q4_0] = 24,
                     [WN_TYPE_Q4_1] = 24,
                     [WN_TYPE_Q5_0] = 24,
                     [WN_TYPE_Q5_1] = 24,
                     [WN_TYPE_IQ4_NL] = 24,
                     [WN_TYPE_MXFP4] = 24,
                     [WN_TYPE_Q2_K] = 17,
                     [WN_TYPE_Q3_K] = 17,
                     [WN_TYPE_Q4_K] = 17,
                     [WN_TYPE_Q5_K] = 17,
                     [WN_TYPE_Q6_K] = 17,
                     [WN_TYPE_IQ4_XS] = 17 },
};
