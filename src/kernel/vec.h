/* kernel/vec.h - the small loops between the matrix products: norms, activations, rotary
 * embedding, adding. One row at a time; rows are spread over threads by the caller.
 *
 * Sums (rms_norm) use 16 chains by i mod 16 and the fixed tree of wn_tree16(), so that a
 * row's result depends on the row alone. exp is the same polynomial in every table (vec.c
 * gives the definition), within 2 ulp of expf for x <= 0; exp(-INFINITY) is exactly 0.
 */
#ifndef WN_KERNEL_VEC_H
#define WN_KERNEL_VEC_H

#include "kernel/kernel.h"

struct wn_vec_ops {
    /* out[i] = x[i] / sqrt(mean(x^2) + eps) * w[i]; out may be x. */
    void (*rms_norm)(float *out, const float *x, const float *w, int n, float eps);
    /* gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i], in place. */
    void (*silu_mul)(float *gate, const float *up, int n);
    /* gate[i] = gelu(gate[i]) * up[i], in place; gelu by the tanh formula (Hendrycks and
     * Gimpel, 2016), which is x / (1 + exp(-2 sqrt(2/pi) (x + 0.044715 x^3))). */
    void (*gelu_mul)(float *gate, const float *up, int n);
    /* gpt-oss: with g = min(gate[i], 7) and u = up[i] within [-7, 7], gate[i] =
     * g / (1 + exp(-1.702 g)) * (u + 1), in place. */
    void (*clamped_mul)(float *gate, const float *up, int n);
    /* x[i] += y[i] */
    void (*add)(float *x, const float *y, int n);
    /* x[i] *= s */
    void (*scale)(float *x, float s, int n);
    /* Rotates n_dims values of one head; cs holds n_dims/2 pairs (cos, sin). Pair j is
     * (x[2j], x[2j+1]), or (x[j], x[j + n_dims/2]) when neox. x and out may be the same. */
    void (*rope)(float *out, const float *x, const float *cs, int n_dims, bool neox);
    /* out[i] = exp(x[i] - m); out may be x. */
    void (*exp_sub)(float *out, const float *x, float m, int n);
    /* max of n values, -INFINITY for n = 0 (NaN is passed over). */
    float (*max)(const float *x, int n);
};

/* 2 sqrt(2/pi) and 0.044715 times it; the sigmoid's steepness and the clamp of gpt-oss. */
#define WN_GELU_C1 1.5957691216057308f
#define WN_GELU_C3 0.071354816272600242f
#define WN_CLAMPED_SLOPE 1.702f
#define WN_CLAMPED_LIMIT 7.0f

extern const wn_vec_ops wn_vec_ops_scalar, wn_vec_ops_avx2, wn_vec_ops_avx512;

/* The fixed tree that closes 16 chains: halves are added until one value is left,
 * c[i] + c[i+8], then +4, +2, +1. */
static inline float wn_tree16(const float c[16])
{
    float a[8], b[4];
    for (int i = 0; i < 8; i++) a[i] = c[i] + c[i + 8];
    for (int i = 0; i < 4; i++) b[i] = a[i] + a[i + 4];
    return (b[0] + b[2]) + (b[1] + b[3]);
}

#endif
