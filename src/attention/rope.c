/* attention/rope.c - rates once per model, angles once per position.
 *
 * The product rate * position and the reduction inside sincos are done in double; a float
 * is made only of the final cosine and sine.
 */
#include "attention/rope.h"

#include <math.h>

void wn_rope_init(wn_rope *r, int n_dims, bool neox, double base, double linear, const float *factors)
{
    WN_ASSERT(n_dims >= 0 && n_dims % 2 == 0 && n_dims / 2 <= WN_ROPE_PAIRS_MAX);
    *r = (wn_rope){ .n_dims = n_dims, .neox = neox };
    for (int j = 0; j < n_dims / 2; j++) {
        r->rate[j] = pow(base, -2.0 * j / n_dims) / linear;
        if (factors) r->rate[j] /= (double)factors[j];
    }
}

void wn_rope_angles(const wn_rope *r, int32_t pos, float *cs)
{
    for (int j = 0; j < r->n_dims / 2; j++) {
        double angle = r->rate[j] * pos, s, c;
        sincos(angle, &s, &c);
        cs[2 * j] = (float)c;
        cs[2 * j + 1] = (float)s;
    }
}
