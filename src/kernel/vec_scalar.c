/* kernel/vec_scalar.c - the loops of vec.h, written to be read: what the other tables must
 * equal bit for bit.
 *
 * Equality is possible because every entry but one treats each element alone, with the
 * operations of IEEE 754 in a stated order; -ffp-contract=off keeps the compiler from
 * joining them. The exception is rms_norm, whose sum runs in 16 chains: element i belongs
 * to chain i mod 16 and enters it by one fused multiply-add, so a 512-bit register is the
 * 16 chains, two 256-bit registers are too, and a tail just continues some of them.
 */
#include "kernel/vec.h"

#include <math.h>

#include "kernel/exp_scalar.h"

static void rms_norm(float *out, const float *x, const float *w, int n, float eps)
{
    float chain[16] = { 0 };
    for (int i = 0; i < n; i++) chain[i & 15] = fmaf(x[i], x[i], chain[i & 15]);
    float inv = 1.0f / sqrtf(wn_tree16(chain) / (float)n + eps);
    for (int i = 0; i < n; i++) out[i] = x[i] * inv * w[i];
}

/* x / (1 + exp(-t)). exp(-|t|) never overflows, and the smaller of the two sides keeps its
 * digits: x / (1 + exp(-t)) for t >= 0, x * exp(t) / (1 + exp(t)) below. A NaN stays one. */
static float gated(float x, float t)
{
    float e = wn_exp_1(-fabsf(t));
    return (t < 0.0f ? x * e : x) / (1.0f + e);
}

static void silu_mul(float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++) gate[i] = gated(gate[i], gate[i]) * up[i];
}

static void gelu_mul(float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++) {
        float g = gate[i];
        gate[i] = gated(g, g * fmaf(g * g, WN_GELU_C3, WN_GELU_C1)) * up[i];
    }
}

static void clamped_mul(float *gate, const float *up, int n)
{
    const float top = WN_CLAMPED_LIMIT;
    for (int i = 0; i < n; i++) {
        float g = gate[i] > top ? top : gate[i], u = up[i] > top ? top : up[i];
        if (u < -top) u = -top;
        gate[i] = gated(g, WN_CLAMPED_SLOPE * g) * (u + 1.0f);
    }
}

static void add(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i++) x[i] += y[i];
}

static void scale(float *x, float s, int n)
{
    for (int i = 0; i < n; i++) x[i] *= s;
}

/* Both values of a pair are read before either is written, so out may be x. */
static void rope(float *out, const float *x, const float *cs, int n_dims, bool neox)
{
    int half = n_dims / 2;
    for (int j = 0; j < half; j++) {
        int a = neox ? j : 2 * j, b = neox ? j + half : 2 * j + 1;
        float c = cs[2 * j], s = cs[2 * j + 1], xa = x[a], xb = x[b];
        out[a] = xa * c - xb * s;
        out[b] = xb * c + xa * s;
    }
}

static void exp_sub(float *out, const float *x, float m, int n)
{
    for (int i = 0; i < n; i++) out[i] = wn_exp_1(x[i] - m);
}

/* Adding +0 turns -0 into +0, so that the order in which zeros were met does not show. */
static float max(const float *x, int n)
{
    float m = -INFINITY;
    for (int i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    return m + 0.0f;
}

const wn_vec_ops wn_vec_ops_scalar = {
    .rms_norm = rms_norm, .silu_mul = silu_mul, .gelu_mul = gelu_mul, .clamped_mul = clamped_mul,
    .add = add, .scale = scale, .rope = rope, .exp_sub = exp_sub, .max = max,
};
