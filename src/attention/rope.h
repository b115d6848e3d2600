/* attention/rope.h - rotary position embedding: angles from positions.
 *
 * Su et al., "RoFormer", 2021, equation 34: pair j of a head is rotated by
 * pos * base^(-2j/n_dims). Angles are reduced in double, then rounded once, so a position
 * of a million is as exact as position one. Scaling: linear (positions times 1/factor)
 * and per-pair divisors (Llama 3's rope_freqs tensor).
 */
#ifndef WN_ATTENTION_ROPE_H
#define WN_ATTENTION_ROPE_H

#include "base/err.h"

enum { WN_ROPE_PAIRS_MAX = 256 };

typedef struct {
    int n_dims;                         /* even; the first n_dims channels of a head are rotated */
    bool neox;                          /* pairs (j, j + n_dims/2) instead of (2j, 2j + 1) */
    double rate[WN_ROPE_PAIRS_MAX];     /* radians per position */
} wn_rope;

/* factors: n_dims/2 divisors of the rates, or NULL; linear: 1 means none (2: half the speed). */
void wn_rope_init(wn_rope *r, int n_dims, bool neox, double base, double linear, const float *factors);
/* cs[2j], cs[2j+1] = cos, sin of pair j at a position (may be negative): n_dims floats. */
void wn_rope_angles(const wn_rope *r, int32_t pos, float *cs);
/* Turns a head by the mean of the rotations of from, ..., to - 1 positions, in place. */
void wn_rope_mean(const wn_rope *r, float *x, int32_t from, int32_t to);

#endif
