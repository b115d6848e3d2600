/* matmul_float_avx512.c - F32, F16 and BF16 weights times f32 activations.
 *
 * The 16 chains of an output are one vector; chain i holds k = i mod 16, so a dot product
 * needs no shuffles until the tree at its end. Tails are masked loads, which give the
 * zeros that the definition asks for. Two ways through memory:
 *
 *   few tokens    4 rows x up to 4 tokens straight from the file's bytes, whole rows,
 *                 prefetched; bound by RAM
 *   many tokens   16 rows x 256 columns widened once into L1 (16 KB), used by up to 48
 *                 tokens in tiles of 4 rows x 6 tokens (24 chains in registers); the
 *                 chains of the 48 tokens wait in scratch between chunks (48 KB)
 */
#include "kernel/matmul_ops.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 16, COLS = 256, TOKENS = 48, TILE_ROWS = 4, TILE_TOKENS = 6, FEW = 4 };

typedef struct {
    float w[ROWS][COLS];
    float chain[TOKENS][ROWS][16];
} float_scratch;
_Static_assert(sizeof(float_scratch) <= WN_FLOAT_SCRATCH, "scratch of a part");

/* The lanes of 16 columns that n_left columns fill. */
INLINE __mmask16 lanes(int n_left)
{
    return (__mmask16)(n_left >= 16 ? 0xffffu : (1u << n_left) - 1);
}

/* 16 weights from the k-th on, zeros where m is clear. */
INLINE __m512 widen(const uint8_t *row, int k, __mmask16 m, const wn_type type)
{
    if (type == WN_TYPE_F32) return _mm512_maskz_loadu_ps(m, (const float *)(const void *)row + k);
    __m256i h = _mm256_maskz_loadu_epi16(m, row + 2 * (size_t)k);
    if (type == WN_TYPE_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* wn_tree16() */
INLINE float tree(__m512 v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

INLINE void put(const wn_float_job *j, int t, int r, float sum)
{
    j->out[(size_t)t * j->out_stride + (size_t)r] = j->bias ? sum + j->bias[r] : sum;
}

/* ---- few tokens -------------------------------------------------------------------- */

INLINE void whole_rows(const wn_float_job *j, int r0, const int R, const int T, const wn_type type)
{
    __m512 c[4][FEW];
    const uint8_t *w = j->w + (size_t)r0 * j->row_bytes;
    size_t next = (size_t)R * j->row_bytes, size = type == WN_TYPE_F32 ? 4 : 2;
    size_t ahead = next <= 32 << 10 ? next : 4 << 10;
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) c[r][t] = _mm512_setzero_ps();
    for (int k = 0; k < j->n_cols; k += 16) {
        __mmask16 m = lanes(j->n_cols - k);
        for (int r = 0; r < R; r++) {
            const uint8_t *row = w + (size_t)r * j->row_bytes;
            _mm_prefetch((const char *)row + (size_t)k * size + ahead, _MM_HINT_T0);
            __m512 v = widen(row, k, m, type);
            for (int t = 0; t < T; t++)
                c[r][t] = _mm512_fmadd_ps(
                    v, _mm512_maskz_loadu_ps(m, j->x + (size_t)t * (size_t)j->n_cols + k), c[r][t]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) put(j, t, r0 + r, tree(c[r][t]));
}

INLINE void few_tokens(const wn_float_job *j, const int T, const wn_type type)
{
    int r = 0;
    for (; r + 4 <= j->n_rows; r += 4) whole_rows(j, r, 4, T, type);
    for (; r < j->n_rows; r++) whole_rows(j, r, 1, T, type);
}

/* ---- many tokens ------------------------------------------------------------------- */

/* n columns from the chunk's first, of 4 rows times T tokens at x, stride apart. */
INLINE void tile(float_scratch *s, int r0, int t0, const float *x, size_t stride, int n, bool first,
                 const int T)
{
    __m512 c[TILE_ROWS][TILE_TOKENS];
    for (int r = 0; r < TILE_ROWS; r++)
        for (int t = 0; t < T; t++)
            c[r][t] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(s->chain[t0 + t][r0 + r]);
    for (int k = 0; k < n; k += 16) {
        __mmask16 m = lanes(n - k);
        __m512 w[TILE_ROWS];
        for (int r = 0; r < TILE_ROWS; r++) w[r] = _mm512_loadu_ps(s->w[r0 + r] + k);
        for (int t = 0; t < T; t++) {
            __m512 v = _mm512_maskz_loadu_ps(m, x + (size_t)t * stride + k);
            for (int r = 0; r < TILE_ROWS; r++) c[r][t] = _mm512_fmadd_ps(w[r], v, c[r][t]);
        }
    }
    for (int r = 0; r < TILE_ROWS; r++)
        for (int t = 0; t < T; t++) _mm512_storeu_ps(s->chain[t0 + t][r0 + r], c[r][t]);
}

static void tiles(float_scratch *s, int rows, int t0, const float *x, size_t stride, int n_x, int n,
                  bool first)
{
    for (int r = 0; r < rows; r += TILE_ROWS)
        switch (n_x) {
        case 1: tile(s, r, t0, x, stride, n, first, 1); break;
        case 2: tile(s, r, t0, x, stride, n, first, 2); break;
        case 3: tile(s, r, t0, x, stride, n, first, 3); break;
        case 4: tile(s, r, t0, x, stride, n, first, 4); break;
        case 5: tile(s, r, t0, x, stride, n, first, 5); break;
        default: tile(s, r, t0, x, stride, n, first, 6);
        }
}

/* Widens columns [k0, k0 + n); missing rows up to a whole tile are zeros. */
INLINE void widen_chunk(float_scratch *s, const wn_float_job *j, int r0, int rows, int k0, int n,
                        const wn_type type)
{
    for (int r = 0; r < (rows + 3) / 4 * 4; r++)
        for (int k = 0; k < n; k += 16) {
            const uint8_t *row = j->w + (size_t)(r0 + r) * j->row_bytes;
            _mm512_storeu_ps(s->w[r] + k, r < rows ? widen(row, k0 + k, lanes(n - k), type)
                                                   : _mm512_setzero_ps());
        }
}

INLINE void many_tokens(const wn_float_job *j, const wn_type type)
{
    float_scratch *s = j->scratch;
    size_t stride = (size_t)j->n_cols;
    for (int r0 = 0; r0 < j->n_rows; r0 += ROWS)
        for (int b = 0; b < j->n_tokens; b += TOKENS) {
            int rows = WN_MIN(ROWS, j->n_rows - r0), tokens = WN_MIN(TOKENS, j->n_tokens - b);
            for (int k0 = 0; k0 < j->n_cols; k0 += COLS) {
                int n = WN_MIN(COLS, j->n_cols - k0);
                widen_chunk(s, j, r0, rows, k0, n, type);
                for (int t0 = 0; t0 < tokens; t0 += TILE_TOKENS)
                    tiles(s, rows, t0, j->x + (size_t)(b + t0) * stride + k0, stride,
                          WN_MIN(TILE_TOKENS, tokens - t0), n, k0 == 0);
            }
            for (int t = 0; t < tokens; t++)
                for (int r = 0; r < rows; r++)
                    put(j, b + t, r0 + r, tree(_mm512_loadu_ps(s->chain[t][r])));
        }
}

INLINE void floats(const wn_float_job *j, const wn_type type)
{
    switch (j->n_tokens) {
    case 1: few_tokens(j, 1, type); break;
    case 2: few_tokens(j, 2, type); break;
    case 3: few_tokens(j, 3, type); break;
    case 4: few_tokens(j, 4, type); break;
    default: many_tokens(j, type);
    }
}

void wn_floats_avx512(const wn_float_job *j)
{
    if (j->type == WN_TYPE_F16) floats(j, WN_TYPE_F16);
    else if (j->type == WN_TYPE_BF16) floats(j, WN_TYPE_BF16);
    else floats(j, WN_TYPE_F32);
}
