/* sample/sample.h - logits to token: the rules behind wn_sampler in winnow.h.
 *
 * What is picked depends on the logits, the options, the tokens before and the position,
 * and on nothing else: the random number of a position is a function of (seed, position),
 * so a token can be drawn again, drafted, or drawn in another batch, and comes out the same.
 *
 * The rules, in the order they apply (llama.cpp's default chain, and its defaults):
 *
 *     logit bias -> penalties -> top-k -> top-p -> min-p -> temperature -> draw
 *
 * Tokens are ranked by logit, the lower id first among equals. top-k, top-p and min-p each
 * keep a prefix of that ranking and never less than one token. A logit of -INFINITY is a
 * token that cannot be; NaN and +INFINITY are errors. Penalties look at the last n tokens,
 * prompt included: a positive logit is divided by the repeat penalty, another multiplied;
 * the presence penalty is subtracted once, the frequency penalty once per occurrence.
 *
 * Threads: a sampler belongs to one thread at a time (it owns scratch, no state). After
 * wn_sampler_open() nothing allocates.
 */
#ifndef WN_SAMPLE_SAMPLE_H
#define WN_SAMPLE_SAMPLE_H

#include "base/err.h"

/* The random number of a position: uniform in [0, 1), 53 bits. */
double wn_sample_uniform(uint64_t seed, int64_t position);

#endif
