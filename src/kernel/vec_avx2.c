/* kernel/vec_avx2.c - vec.h in registers of 8 floats. A sum's 16 chains are two registers.
 * Tails use masked loads and stores, which touch nothing beyond the end.
 */
#include "kernel/vec.h"

#include <immintrin.h>
#include <math.h>

#include "kernel/exp_avx2.h"

/* The lanes that exist when n values are left (n may be 0 or less: none). */
static inline __m256i lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __m256 load(const float *x, int left)
{
    return left >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, lanes(left));
}

static inline void store(float *x, __m256 v, int left)
{
    if (left >= 8) _mm256_storeu_ps(x, v);
    else _mm256_maskstore_ps(x, lanes(left), v);
}

static void rms_norm(float *out, const float *x, const float *w, int n, float eps)
{
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    float chain[16];
    for (int i = 0; i < n; i += 16) {
        __m256 a = load(x + i, n - i), b = _mm256_setzero_ps();
        if (n - i > 8) b = load(x + i + 8, n - i - 8);
        lo = _mm256_fmadd_ps(a, a, lo);             /* a missing lane adds 0 * 0 */
        hi = _mm256_fmadd_ps(b, b, hi);
    }
    _mm256_storeu_ps(chain, lo);
    _mm256_storeu_ps(chain + 8, hi);
    __m256 inv = _mm256_set1_ps(1.0f / sqrtf(wn_tree16(chain) / (float)n + eps));
    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(load(x + i, n - i), inv);
        store(out + i, _mm256_mul_ps(v, load(w + i, n - i)), n - i);
    }
}

/* x / (1 + exp(-t)) */
static inline __m256 gated(__m256 x, __m256 t)
{
    __m256 e = wn_exp_8(_mm256_or_ps(t, _mm256_set1_ps(-0.0f)));        /* exp(-|t|) */
    __m256 below = _mm256_cmp_ps(t, _mm256_setzero_ps(), _CMP_LT_OQ);
    __m256 top = _mm256_blendv_ps(x, _mm256_mul_ps(x, e), below);
    return _mm256_div_ps(top, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

static void silu_mul(float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i += 8) {
        __m256 g = load(gate + i, n - i);
        store(gate + i, _mm256_mul_ps(gated(g, g), load(up + i, n - i)), n - i);
    }
}

static void gelu_mul(float *gate, const float *up, int n)
{
    const __m256 c1 = _mm256_set1_ps(WN_GELU_C1), c3 = _mm256_set1_ps(WN_GELU_C3);
    for (int i = 0; i < n; i += 8) {
        __m256 g = load(gate + i, n - i);
        __m256 t = _mm256_mul_ps(g, _mm256_fmadd_ps(_mm256_mul_ps(g, g), c3, c1));
        store(gate + i, _mm256_mul_ps(gated(g, t), load(up + i, n - i)), n - i);
    }
}

/* Of a NaN and a limit, min and max give their second operand: the NaN. */
static void clamped_mul(float *gate, const float *up, int n)
{
    const __m256 top = _mm256_set1_ps(WN_CLAMPED_LIMIT), low = _mm256_set1_ps(-WN_CLAMPED_LIMIT);
    const __m256 slope = _mm256_set1_ps(WN_CLAMPED_SLOPE), one = _mm256_set1_ps(1.0f);
    for (int i = 0; i < n; i += 8) {
        __m256 g = _mm256_min_ps(top, load(gate + i, n - i));
        __m256 u = _mm256_max_ps(low, _mm256_min_ps(top, load(up + i, n - i)));
        __m256 r = _mm256_mul_ps(gated(g, _mm256_mul_ps(slope, g)), _mm256_add_ps(u, one));
        store(gate + i, r, n - i);
    }
}

static void add(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 8)
        store(x + i, _mm256_add_ps(load(x + i, n - i), load(y + i, n - i)), n - i);
}

static void scale(float *x, float s, int n)
{
    const __m256 vs = _mm256_set1_ps(s);
    for (int i = 0; i < n; i += 8) store(x + i, _mm256_mul_ps(load(x + i, n - i), vs), n - i);
}

/* Pairs (2j, 2j+1): x times cos, plus or minus the swapped pair times sin. */
static void rope_near(float *out, const float *x, const float *cs, int n_dims)
{
    for (int i = 0; i < n_dims; i += 8) {
        __m256 v = load(x + i, n_dims - i), t = load(cs + i, n_dims - i);
        __m256 a = _mm256_mul_ps(v, _mm256_moveldup_ps(t));
        __m256 b = _mm256_mul_ps(_mm256_permute_ps(v, 0xb1), _mm256_movehdup_ps(t));
        store(out + i, _mm256_addsub_ps(a, b), n_dims - i);
    }
}

/* Pairs (j, j + half): 8 pairs at a time. Picking the cosines out of two registers works
 * within 128-bit halves and leaves them in the order 0 1 4 5 2 3 6 7; a permutation of
 * 64-bit pieces puts them right. */
static void rope_far(float *out, const float *x, const float *cs, int half)
{
    for (int j = 0; j < half; j += 8) {
        int left = half - j;
        __m256 t0 = load(cs + 2 * j, 2 * left), t1 = _mm256_setzero_ps();
        if (left > 4) t1 = load(cs + 2 * j + 8, 2 * left - 8);
        __m256d ce = _mm256_castps_pd(_mm256_shuffle_ps(t0, t1, 0x88));
        __m256d se = _mm256_castps_pd(_mm256_shuffle_ps(t0, t1, 0xdd));
        __m256 c = _mm256_castpd_ps(_mm256_permute4x64_pd(ce, 0xd8));
        __m256 s = _mm256_castpd_ps(_mm256_permute4x64_pd(se, 0xd8));
        __m256 a = load(x + j, left), b = load(x + half + j, left);
        store(out + j, _mm256_sub_ps(_mm256_mul_ps(a, c), _mm256_mul_ps(b, s)), left);
        store(out + half + j, _mm256_add_ps(_mm256_mul_ps(b, c), _mm256_mul_ps(a, s)), left);
    }
}

static void rope(float *out, const float *x, const float *cs, int n_dims, bool neox)
{
    if (neox) rope_far(out, x, cs, n_dims / 2);
    else rope_near(out, x, cs, n_dims);
}

static void exp_sub(float *out, const float *x, float m, int n)
{
    const __m256 vm = _mm256_set1_ps(m);
    for (int i = 0; i < n; i += 8)
        store(out + i, wn_exp_8(_mm256_sub_ps(load(x + i, n - i), vm)), n - i);
}

/* vmaxps gives its second operand when one is NaN: the value so far stands. A tail's
 * missing lanes are made -INFINITY. */
static float max(const float *x, int n)
{
    const __m256 low = _mm256_set1_ps(-INFINITY);
    __m256 m = low;
    float v[8], best = -INFINITY;
    for (int i = 0; i < n; i += 8) {
        __m256 a = load(x + i, n - i);
        if (n - i < 8) a = _mm256_blendv_ps(low, a, _mm256_castsi256_ps(lanes(n - i)));
        m = _mm256_max_ps(a, m);
    }
    _mm256_storeu_ps(v, m);
    for (int i = 0; i < 8; i++) best = v[i] > best ? v[i] : best;
    return best + 0.0f;
}

const wn_vec_ops wn_vec_ops_avx2 = {
    .rms_norm = rms_norm, .silu_mul = silu_mul, .gelu_mul = gelu_mul, .clamped_mul = clamped_mul,
    .add = add, .scale = scale, .rope = rope, .exp_sub = exp_sub, .max = max,
};
