/* matmul_float_avx2.c - F32, F16 and BF16 weights times f32 activations.
 *
 * The 16 chains of an output are two vectors; chain i holds k = i mod 16, so a dot
 * product needs no shuffles until the tree at its end. Two ways through memory:
 *
 *   few tokens    4 rows (2 for 2 or 3 tokens) straight from the file's bytes, whole rows,
 *                 prefetched; bound by RAM
 *   many tokens   8 rows x 512 columns widened once into L1 (16 KB), used by up to 48
 *                 tokens in tiles of 2 rows x 3 tokens (12 chains in registers); the
 *                 chains of the 48 tokens wait in scratch between chunks (24 KB)
 */
#include "kernel/matmul_ops.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 8, COLS = 512, TOKENS = 48, TILE_ROWS = 2, TILE_TOKENS = 3 };

typedef struct {
    float w[ROWS][COLS];
    float x[TILE_TOKENS][16];                   /* a padded tail */
    float chain[TOKENS][ROWS][16];
} float_scratch;
_Static_assert(sizeof(float_scratch) <= WN_FLOAT_SCRATCH, "scratch of a part");

/* 8 weights from the k-th on. */
INLINE __m256 widen(const uint8_t *row, int k, const wn_type type)
{
    if (type == WN_TYPE_F32) return _mm256_loadu_ps((const float *)(const void *)row + k);
    __m128i h = _mm_loadu_si128((const void *)(row + 2 * (size_t)k));
    if (type == WN_TYPE_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* The last n_cols % 16 weights, zeros behind them. */
static void widen_tail(float out[16], const uint8_t *row, int n_cols, wn_type type)
{
    uint8_t pad[64] = { 0 };
    int k = n_cols & ~15;
    size_t size = type == WN_TYPE_F32 ? 4 : 2;
    memcpy(pad, row + (size_t)k * size, (size_t)(n_cols - k) * size);
    for (int i = 0; i < 16; i += 8)
        _mm256_storeu_ps(out + i, type == WN_TYPE_F32 ? widen(pad, i, WN_TYPE_F32)
                                  : type == WN_TYPE_F16 ? widen(pad, i, WN_TYPE_F16)
                                                        : widen(pad, i, WN_TYPE_BF16));
}

static void x_tail(float out[16], const float *x, int n_cols)
{
    int k = n_cols & ~15;
    memset(out, 0, 64);
    memcpy(out, x + k, sizeof(float) * (size_t)(n_cols - k));
}

/* wn_tree16() of the chains low and high. */
INLINE float tree(__m256 low, __m256 high)
{
    __m256 a = _mm256_add_ps(low, high);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

INLINE void put(const wn_float_job *j, int t, int r, float sum)
{
    j->out[(size_t)t * j->out_stride + (size_t)r] = j->bias ? sum + j->bias[r] : sum;
}

/* ---- few tokens -------------------------------------------------------------------- */

INLINE void whole_rows(const wn_float_job *j, int r0, int t0, const int R, const int T,
                       const wn_type type)
{
    __m256 c[4][3][2];
    const uint8_t *w = j->w + (size_t)r0 * j->row_bytes;
    const float *x = j->x + (size_t)t0 * (size_t)j->n_cols;
    size_t next = (size_t)R * j->row_bytes, size = type == WN_TYPE_F32 ? 4 : 2;
    size_t ahead = next <= 32 << 10 ? next : 4 << 10;
    int whole = j->n_cols & ~15;
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) c[r][t][0] = c[r][t][1] = _mm256_setzero_ps();
    for (int k = 0; k < whole; k += 16)
        for (int r = 0; r < R; r++) {
            const uint8_t *row = w + (size_t)r * j->row_bytes;
            _mm_prefetch((const char *)row + (size_t)k * size + ahead, _MM_HINT_T0);
            __m256 w0 = widen(row, k, type), w1 = widen(row, k + 8, type);
            for (int t = 0; t < T; t++) {
                const float *v = x + (size_t)t * (size_t)j->n_cols + k;
                c[r][t][0] = _mm256_fmadd_ps(w0, _mm256_loadu_ps(v), c[r][t][0]);
                c[r][t][1] = _mm256_fmadd_ps(w1, _mm256_loadu_ps(v + 8), c[r][t][1]);
            }
        }
    if (whole < j->n_cols)
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) {
                float a[16], b[16];
                widen_tail(a, w + (size_t)r * j->row_bytes, j->n_cols, type);
                x_tail(b, x + (size_t)t * (size_t)j->n_cols, j->n_cols);
                for (int h = 0; h < 2; h++)
                    c[r][t][h] = _mm256_fmadd_ps(_mm256_loadu_ps(a + 8 * h),
                                                 _mm256_loadu_ps(b + 8 * h), c[r][t][h]);
            }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) put(j, t0 + t, r0 + r, tree(c[r][t][0], c[r][t][1]));
}

INLINE void few_tokens(const wn_float_job *j, const wn_type type)
{
    int r = 0;
    switch (j->n_tokens) {
    case 1:
        for (; r + 4 <= j->n_rows; r += 4) whole_rows(j, r, 0, 4, 1, type);
        for (; r < j->n_rows; r++) whole_rows(j, r, 0, 1, 1, type);
        break;
    case 2:
        for (; r + 2 <= j->n_rows; r += 2) whole_rows(j, r, 0, 2, 2, type);
        for (; r < j->n_rows; r++) whole_rows(j, r, 0, 1, 2, type);
        break;
    default:
        for (; r + 2 <= j->n_rows; r += 2) whole_rows(j, r, 0, 2, 3, type);
        for (; r < j->n_rows; r++) whole_rows(j, r, 0, 1, 3, type);
    }
}

/* ---- many tokens ------------------------------------------------------------------- */

/* n widened columns from `from` on (a multiple of 16) of R rows times T tokens; x[t]
 * points at the first of the columns. */
INLINE void tile(float_scratch *s, int r0, int t0, const float *const *x, int from, int n,
                 bool first, const int R, const int T)
{
    __m256 c[TILE_ROWS][TILE_TOKENS][2];
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++)
            for (int h = 0; h < 2; h++)
                c[r][t][h] = first ? _mm256_setzero_ps()
                                   : _mm256_loadu_ps(s->chain[t0 + t][r0 + r] + 8 * h);
    for (int k = 0; k < n; k += 16)
        for (int h = 0; h < 2; h++) {
            __m256 w[TILE_ROWS];
            for (int r = 0; r < R; r++) w[r] = _mm256_loadu_ps(s->w[r0 + r] + from + k + 8 * h);
            for (int t = 0; t < T; t++) {
                __m256 v = _mm256_loadu_ps(x[t] + k + 8 * h);
                for (int r = 0; r < R; r++) c[r][t][h] = _mm256_fmadd_ps(w[r], v, c[r][t][h]);
            }
        }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++)
            for (int h = 0; h < 2; h++)
                _mm256_storeu_ps(s->chain[t0 + t][r0 + r] + 8 * h, c[r][t][h]);
}

static void tiles(float_scratch *s, int rows, int t0, const float *const *x, int n_x, int from,
                  int n, bool first)
{
    for (int r = 0; r < rows; r += TILE_ROWS)       /* rows is even: a missing one is zeros */
        switch (n_x) {
        case 1: tile(s, r, t0, x, from, n, first, 2, 1); break;
        case 2: tile(s, r, t0, x, from, n, first, 2, 2); break;
        default: tile(s, r, t0, x, from, n, first, 2, 3);
        }
}

/* Widens columns [k0, k0 + n) of `rows` rows; a short last step is padded. */
INLINE void widen_chunk(float_scratch *s, const wn_float_job *j, int r0, int rows, int k0, int n,
                        const wn_type type)
{
    for (int r = 0; r < rows; r++) {
        const uint8_t *row = j->w + (size_t)(r0 + r) * j->row_bytes;
        int k = 0;
        for (; k + 16 <= n; k += 16) {
            _mm256_storeu_ps(s->w[r] + k, widen(row, k0 + k, type));
            _mm256_storeu_ps(s->w[r] + k + 8, widen(row, k0 + k + 8, type));
        }
        if (k < n) widen_tail(s->w[r] + k, row, j->n_cols, type);
    }
    if (rows % 2) memset(s->w[rows], 0, sizeof s->w[rows]);
}

/* One widened chunk times tokens [b, b + tokens). */
static void multiply_chunk(float_scratch *s, const wn_float_job *j, int rows, int k0, int n, int b,
                           int tokens)
{
    int whole = n & ~15;
    for (int t0 = 0; t0 < tokens; t0 += TILE_TOKENS) {
        int n_x = WN_MIN(TILE_TOKENS, tokens - t0);
        const float *x[TILE_TOKENS];
        for (int t = 0; t < n_x; t++) x[t] = j->x + (size_t)(b + t0 + t) * (size_t)j->n_cols + k0;
        if (whole) tiles(s, rows, t0, x, n_x, 0, whole, k0 == 0);
        if (whole == n) continue;
        for (int t = 0; t < n_x; t++) {
            x_tail(s->x[t], x[t] - k0, j->n_cols);
            x[t] = s->x[t];
        }
        tiles(s, rows, t0, x, n_x, whole, 16, k0 == 0 && !whole);
    }
}

INLINE void many_tokens(const wn_float_job *j, const wn_type type)
{
    float_scratch *s = j->scratch;
    for (int r0 = 0; r0 < j->n_rows; r0 += ROWS)
        for (int b = 0; b < j->n_tokens; b += TOKENS) {
            int rows = WN_MIN(ROWS, j->n_rows - r0), tokens = WN_MIN(TOKENS, j->n_tokens - b);
            for (int k0 = 0; k0 < j->n_cols; k0 += COLS) {
                int n = WN_MIN(COLS, j->n_cols - k0);
                widen_chunk(s, j, r0, rows, k0, n, type);
                multiply_chunk(s, j, rows, k0, n, b, tokens);
            }
            for (int t = 0; t < tokens; t++)
                for (int r = 0; r < rows; r++) {
                    const float *c = s->chain[t][r];
                    put(j, b + t, r0 + r, tree(_mm256_loadu_ps(c), _mm256_loadu_ps(c + 8)));
                }
        }
}

INLINE void floats(const wn_float_job *j, const wn_type type)
{
    if (j->n_tokens <= TILE_TOKENS) few_tokens(j, type);
    else many_tokens(j, type);
}

void wn_floats_avx2(const wn_float_job *j)
{
    if (j->type == WN_TYPE_F16) floats(j, WN_TYPE_F16);
    else if (j->type == WN_TYPE_BF16) floats(j, WN_TYPE_BF16);
    else floats(j, WN_TYPE_F32);
}
