/* attention/rope.h - rotary position embedding: angles from positions.
 *
 * Su et al., "RoFormer", 2021, equation 34: pair j of a head is rotated by
 * pos * base^(-2j/n_dims). Angles are reduced in double, then rounded once, so a position
 * of a million is as exact as position one. Ways to longer contexts:
 *
 *     linear    positions times 1/factor
 *     factors   a divisor per pair (Llama 3's rope_freqs; longrope's short and long ones)
 *     YaRN      Peng et al., 2023, section 3: pairs that turn often within the trained length
 *               keep their rate, pairs that turn less than once are slowed by the factor,
 *               those in between by a share of it
 *
 * YaRN and longrope also lengthen what is rotated (the attention factor).
 */
#ifndef WN_ATTENTION_ROPE_H
#define WN_ATTENTION_ROPE_H

#include "base/err.h"

enum { WN_ROPE_PAIRS_MAX = 256 };

typedef struct {
    int n_dims;                         /* even; the first n_dims channels of a head are rotated */
    bool neox;                          /* pairs (j, j + n_dims/2) instead of (2j, 2j + 1) */
    double length;                      /* what is rotated is multiplied by it; 0 means 1 */
    double rate[WN_ROPE_PAIRS_MAX];     /* radians per position */
} wn_rope;

typedef struct {
    double factor;                      /* how much longer than what it was trained for */
    double n_trained;                   /* positions */
    double fast, slow;                  /* turns within them: from fast on a pair keeps its rate, up
                                           to slow it is slowed by the whole factor; usually 32 and
                                           1 */
    double share;                       /* of the whole method, usually 1; 0: linear */
    bool exact;                         /* limits between two pairs stay there; usually rounded
                                           outwards */
} wn_rope_yarn;

/* factors: n_dims/2 divisors of the rates, or NULL; linear: 1 means none (2: half the speed). */
void wn_rope_init(wn_rope *r, int n_dims, bool neox, double base, double linear,
                  const float *factors);
/* Slows the rates of a rope made without linear scaling, of the same base. */
void wn_rope_stretch(wn_rope *r, double base, const wn_rope_yarn *y);
/* cs[2j], cs[2j+1] = cos, sin of pair j at a position (may be negative), times the length:
 * n_dims floats, what q and k as projected are turned by. */
void wn_rope_angles(const wn_rope *r, int32_t pos, float *cs);
/* The same without the length: for rows that have been turned before. */
void wn_rope_more_angles(const wn_rope *r, int32_t by, float *cs);
/* Turns a head by the mean of the rotations of from, ..., to - 1 positions, in place. */
void wn_rope_mean(const wn_rope *r, float *x, int32_t from, int32_t to);

#endif
