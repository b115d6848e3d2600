/* attention/rope.c - rates once per model, angles once per position.
 *
 * The product rate * position and the reduction inside sincos are done in double; a float
 * is made only of the final cosine and sine.
 */
#include "attention/rope.h"

#include <math.h>

void wn_rope_init(wn_rope *r, int n_dims, bool neox, double base, double linear,
                  const float *factors)
{
    WN_ASSERT(n_dims >= 0 && n_dims % 2 == 0 && n_dims / 2 <= WN_ROPE_PAIRS_MAX);
    *r = (wn_rope){ .n_dims = n_dims, .neox = neox };
    for (int j = 0; j < n_dims / 2; j++) {
        r->rate[j] = pow(base, -2.0 * j / n_dims) / linear;
        if (factors) r->rate[j] /= (double)factors[j];
    }
}

/* The pair (as a fraction) that turns so often within n positions. */
static double pair_of(const wn_rope *r, double base, double n, double turns)
{
    return r->n_dims * log(n / (turns * 2 * M_PI)) / (2 * log(base));
}

void wn_rope_stretch(wn_rope *r, double base, const wn_rope_yarn *y)
{
    double lo = pair_of(r, base, y->n_trained, y->fast),
           hi = pair_of(r, base, y->n_trained, y->slow);
    if (!y->exact) lo = floor(lo), hi = ceil(hi);
    lo = fmax(lo, 0);
    hi = fmin(hi, r->n_dims - 1);
    for (int j = 0; j < r->n_dims / 2; j++) {
        double kept = 1 - fmin(1, fmax(0, (j - lo) / fmax(hi - lo, 0.001)));
        kept *= y->share;
        r->rate[j] *= kept + (1 - kept) / y->factor;
    }
}

static void angles(const wn_rope *r, int32_t pos, double length, float *cs)
{
    for (int j = 0; j < r->n_dims / 2; j++) {
        double angle = r->rate[j] * pos, s, c;
        sincos(angle, &s, &c);
        cs[2 * j] = (float)(c * length);
        cs[2 * j + 1] = (float)(s * length);
    }
}

void wn_rope_angles(const wn_rope *r, int32_t pos, float *cs)
{
    angles(r, pos, r->length > 0 ? r->length : 1, cs);
}
void wn_rope_more_angles(const wn_rope *r, int32_t by, float *cs) { angles(r, by, 1, cs); }

/* n unit vectors, each turned by w from the one before, sum to sin(n w / 2) / sin(w / 2) times
 * the direction in their middle. */
void wn_rope_mean(const wn_rope *r, float *x, int32_t from, int32_t to)
{
    double n = (double)to - from, middle = ((double)from + to - 1) / 2;
    for (int j = 0; j < r->n_dims / 2; j++) {
        double w = r->rate[j], half = sin(w / 2),
               size = half != 0 ? sin(n * w / 2) / (n * half) : 1, s, c;
        float *a = r->neox ? &x[j] : &x[2 * j],
              *b = r->neox ? &x[j + r->n_dims / 2] : &x[2 * j + 1];
        double p = (double)*a, q = (double)*b;
        sincos(w * middle, &s, &c);
        *a = (float)(size * (c * p - s * q));
        *b = (float)(size * (s * p + c * q));
    }
}
