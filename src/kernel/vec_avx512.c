/* kernel/vec_avx512.c - vec.h in registers of 16 floats. Tails are masked: a lane beyond the
 * end is neither read nor written, so a row may end right before an unreadable page. The
 * register of a sum is the 16 chains of vec_scalar.c.
 */
#include "kernel/vec.h"

#include <immintrin.h>
#include <math.h>

#include "kernel/exp_avx512.h"

/* The lanes that exist when n values are left. */
static inline __mmask16 lanes(int n)
{
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1u);
}

static void rms_norm(float *out, const float *x, const float *w, int n, float eps)
{
    __m512 sum = _mm512_setzero_ps();
    float chain[16];
    for (int i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(lanes(n - i), x + i);
        sum = _mm512_fmadd_ps(v, v, sum);           /* a missing lane adds 0 * 0 */
    }
    _mm512_storeu_ps(chain, sum);
    __m512 inv = _mm512_set1_ps(1.0f / sqrtf(wn_tree16(chain) / (float)n + eps));
    for (int i = 0; i < n; i += 16) {
        __mmask16 k = lanes(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(k, x + i), inv);
        _mm512_mask_storeu_ps(out + i, k, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(k, w + i)));
    }
}

/* x / (1 + exp(-t)) */
static inline __m512 gated(__m512 x, __m512 t)
{
    __m512 e = wn_exp_16(_mm512_or_ps(t, _mm512_set1_ps(-0.0f)));       /* exp(-|t|) */
    __mmask16 below = _mm512_cmp_ps_mask(t, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_div_ps(_mm512_mask_mul_ps(x, below, x, e),
                         _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

static void silu_mul(float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 k = lanes(n - i);
        __m512 g = _mm512_maskz_loadu_ps(k, gate + i);
        _mm512_mask_storeu_ps(gate + i, k,
                              _mm512_mul_ps(gated(g, g), _mm512_maskz_loadu_ps(k, up + i)));
    }
}

static void gelu_mul(float *gate, const float *up, int n)
{
    const __m512 c1 = _mm512_set1_ps(WN_GELU_C1), c3 = _mm512_set1_ps(WN_GELU_C3);
    for (int i = 0; i < n; i += 16) {
        __mmask16 k = lanes(n - i);
        __m512 g = _mm512_maskz_loadu_ps(k, gate + i);
        __m512 t = _mm512_mul_ps(g, _mm512_fmadd_ps(_mm512_mul_ps(g, g), c3, c1));
        _mm512_mask_storeu_ps(gate + i, k,
                              _mm512_mul_ps(gated(g, t), _mm512_maskz_loadu_ps(k, up + i)));
    }
}

/* Of a NaN and a limit, min and max give their second operand: the NaN. */
static void clamped_mul(float *gate, const float *up, int n)
{
    const __m512 top = _mm512_set1_ps(WN_CLAMPED_LIMIT), low = _mm512_set1_ps(-WN_CLAMPED_LIMIT);
    const __m512 slope = _mm512_set1_ps(WN_CLAMPED_SLOPE), one = _mm512_set1_ps(1.0f);
    for (int i = 0; i < n; i += 16) {
        __mmask16 k = lanes(n - i);
        __m512 g = _mm512_min_ps(top, _mm512_maskz_loadu_ps(k, gate + i));
        __m512 u = _mm512_max_ps(low, _mm512_min_ps(top, _mm512_maskz_loadu_ps(k, up + i)));
        __m512 r = _mm512_mul_ps(gated(g, _mm512_mul_ps(slope, g)), _mm512_add_ps(u, one));
        _mm512_mask_storeu_ps(gate + i, k, r);
    }
}

static void add(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 k = lanes(n - i);
        __m512 r = _mm512_add_ps(_mm512_maskz_loadu_ps(k, x + i), _mm512_maskz_loadu_ps(k, y + i));
        _mm512_mask_storeu_ps(x + i, k, r);
    }
}

static void scale(float *x, float s, int n)
{
    const __m512 vs = _mm512_set1_ps(s);
    for (int i = 0; i < n; i += 16) {
        __mmask16 k = lanes(n - i);
        _mm512_mask_storeu_ps(x + i, k, _mm512_mul_ps(_mm512_maskz_loadu_ps(k, x + i), vs));
    }
}

/* Pairs (2j, 2j+1): x times cos, plus or minus the swapped pair times sin. */
static void rope_near(float *out, const float *x, const float *cs, int n_dims)
{
    for (int i = 0; i < n_dims; i += 16) {
        __mmask16 k = lanes(n_dims - i);
        __m512 v = _mm512_maskz_loadu_ps(k, x + i), t = _mm512_maskz_loadu_ps(k, cs + i);
        __m512 a = _mm512_mul_ps(v, _mm512_moveldup_ps(t));
        __m512 b = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), _mm512_movehdup_ps(t));
        __m512 r = _mm512_mask_sub_ps(_mm512_add_ps(a, b), 0x5555, a, b);
        _mm512_mask_storeu_ps(out + i, k, r);
    }
}

/* Pairs (j, j + half): 16 pairs at a time, their cosines and sines picked apart. */
static void rope_far(float *out, const float *x, const float *cs, int half)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28,
                                           30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (int j = 0; j < half; j += 16) {
        int left = half - j;
        __mmask16 k = lanes(left);
        __m512 t0 = _mm512_maskz_loadu_ps(lanes(2 * left), cs + 2 * j), t1 = _mm512_setzero_ps();
        if (left > 8) t1 = _mm512_maskz_loadu_ps(lanes(2 * left - 16), cs + 2 * j + 16);
        __m512 c = _mm512_permutex2var_ps(t0, even, t1), s = _mm512_permutex2var_ps(t0, odd, t1);
        __m512 a = _mm512_maskz_loadu_ps(k, x + j), b = _mm512_maskz_loadu_ps(k, x + half + j);
        _mm512_mask_storeu_ps(out + j, k, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(out + half + j, k,
                              _mm512_add_ps(_mm512_mul_ps(b, c), _mm512_mul_ps(a, s)));
    }
}

static void rope(float *out, const float *x, const float *cs, int n_dims, bool neox)
{
    if (neox) rope_far(out, x, cs, n_dims / 2);
    else rope_near(out, x, cs, n_dims);
}

static void exp_sub(float *out, const float *x, float m, int n)
{
    const __m512 vm = _mm512_set1_ps(m);
    for (int i = 0; i < n; i += 16) {
        __mmask16 k = lanes(n - i);
        __m512 v = _mm512_sub_ps(_mm512_maskz_loadu_ps(k, x + i), vm);
        _mm512_mask_storeu_ps(out + i, k, wn_exp_16(v));
    }
}

/* vmaxps gives its second operand when one is NaN: the value so far stands. */
static float max(const float *x, int n)
{
    __m512 m = _mm512_set1_ps(-INFINITY);
    float v[16], best = -INFINITY;
    for (int i = 0; i < n; i += 16) {
        __mmask16 k = lanes(n - i);
        m = _mm512_mask_max_ps(m, k, _mm512_maskz_loadu_ps(k, x + i), m);
    }
    _mm512_storeu_ps(v, m);
    for (int i = 0; i < 16; i++) best = v[i] > best ? v[i] : best;
    return best + 0.0f;
}

const wn_vec_ops wn_vec_ops_avx512 = {
    .rms_norm = rms_norm, .silu_mul = silu_mul, .gelu_mul = gelu_mul, .clamped_mul = clamped_mul,
    .add = add, .scale = scale, .rope = rope, .exp_sub = exp_sub, .max = max,
};
