/* gguf/noise.h - random weights of a given spread, made straight in a tensor's type.
 *
 * For quantised types the blocks themselves are random: codes over their whole range,
 * scales that vary by half from block to block and carry both signs where the format
 * allows it. That is as fast as the random numbers, and harder on a kernel than encoded
 * noise, whose codes crowd around the middle.
 */
#ifndef WN_GGUF_NOISE_H
#define WN_GGUF_NOISE_H

#include "gguf/types.h"

/* False for a type that wn_noise() cannot make. */
bool wn_noise_knows(wn_type t);

/* n values (whole blocks) of the given mean and standard deviation, a function of seed
 * alone. mean is honoured by F32, F16 and BF16 only: the others are for matrices. */
void wn_noise(void *out, wn_type t, int64_t n, float mean, float sd, uint64_t seed);

/* The generator underneath: the next of a sequence of well-mixed 64-bit numbers. */
static inline uint64_t wn_noise_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);       /* SplitMix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
