/* kernel/lookup_scalar.c - the definition: see lookup.h. */
#include "kernel/lookup.h"

static int nearest(const float *x, const float *table, int c, float *least)
{
    float far[WN_LOOKUP_POINTS] = { 0 };
    int at = 0;
    for (int k = 0; k < c; k++)
        for (int i = 0; i < WN_LOOKUP_POINTS; i++) {
            float d = x[k] - table[k * WN_LOOKUP_POINTS + i];
            far[i] += d * d;
        }
    *least = INFINITY;
    for (int i = 0; i < WN_LOOKUP_POINTS; i++)
        if (far[i] < *least) *least = far[i], at = i;
    return at;
}

static void points(float *out, size_t stride, const uint16_t *from, int c, const uint8_t *codes,
                   int n)
{
    for (int k = 0; k < c; k++)
        for (int s = 0; s < n; s++)
            out[(size_t)k * stride + (size_t)s] = wn_elem_from_f16(from[codes[s] * c + k]);
}

static void levels(float *out, size_t stride, const float *from, int n_channels, int bits,
                   const uint8_t *low, const uint8_t *high, int up, int n)
{
    for (int k = 0; k < n_channels; k++)
        for (int s = 0; s < n; s++) {
            int code = low[s] >> (bits * k) & ((1 << bits) - 1);
            if (high) code |= (high[s] >> (up + k) & 1) << bits;
            out[(size_t)k * stride + (size_t)s] = from[k * WN_LOOKUP_LEVELS + code];
        }
}

static void turn(const wn_lookup_turn *t) { wn_lookup_turn_from(t, 0); }
static void mix(const wn_lookup_mix *m) { wn_lookup_mix_from(m, 0); }

const wn_lookup_ops wn_lookup_ops_scalar = { nearest, points, levels, turn, mix };
