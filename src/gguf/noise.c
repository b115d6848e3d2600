/* gguf/noise.c - see noise.h. The layouts are drawn in types.c.
 *
 * Floats are the sum of four 16-bit pieces of one random number: a bell curve (cut at 3.5
 * standard deviations) for two instructions a value. Uniform codes of b bits have a
 * standard deviation of 2^b / sqrt(12) steps, which is how the scales below are chosen.
 */
#include "gguf/noise.h"

#include <math.h>
#include <string.h>

static uint8_t *put_half(uint8_t *p, float v)
{
    uint16_t h = wn_f32_to_f16(v);
    memcpy(p, &h, 2);
    return p + 2;
}

static void put_random(uint8_t *p, size_t n, uint64_t *state)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t r = wn_noise_next(state);
        memcpy(p + i, &r, WN_MIN(n - i, (size_t)8));
    }
}

/* In [0.75, 1.25): how a block's scale differs from the mean. */
static float vary(uint64_t r) { return 0.75f + (float)(r >> 40) * 0x1p-25f; }

static float bell(uint64_t *state)
{
    uint64_t r = wn_noise_next(state);
    int sum = (int)((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48));
    return (float)(sum - 131070) * (1 / 37837.2f);
}

static void floats(void *out, wn_type t, int64_t n, float mean, float sd, uint64_t *state)
{
    for (int64_t i = 0; i < n; i++) {
        float v = mean + sd * bell(state);
        uint16_t h;
        if (t == WN_TYPE_F32) {
            memcpy((uint8_t *)out + 4 * i, &v, 4);
        } else {
            h = t == WN_TYPE_F16 ? wn_f32_to_f16(v) : wn_f32_to_bf16(v);
            memcpy((uint8_t *)out + 2 * i, &h, 2);
        }
    }
}

static void q8_0(uint8_t *b, float sd, uint64_t *state)
{
    b = put_half(b, sd / 73.9f * vary(wn_noise_next(state)));
    put_random(b, 32, state);
    for (int i = 0; i < 32; i++)
        if (b[i] == 0x80) b[i] = 0x81;  /* no encoder writes -128 */
}

static void q4_0(uint8_t *b, float sd, uint64_t *state)
{
    uint64_t r = wn_noise_next(state);
    float d = sd / 4.62f * vary(r);
    b = put_half(b, r & 1 ? d : -d);
    put_random(b, 16, state);
}

/* Scales of 32..63; minima that put zero near the middle of the codes, but not at it. */
static void q45_k(uint8_t *b, int bits, float sd, uint64_t *state)
{
    float middle = (float)(1 << bits) / 2 - 0.5f;
    float d = sd / (4.62f / 7.5f * middle * 47.5f) * vary(wn_noise_next(state));
    uint64_t r = wn_noise_next(state);
    uint8_t s[8], m[8], *sc;
    for (int j = 0; j < 8; j++, r >>= 8) {
        s[j] = (uint8_t)(32 + (r & 31));
        m[j] = (uint8_t)WN_MIN(s[j] - 3 + (int)(r >> 5 & 7), 63);
    }
    sc = put_half(put_half(b, d), d * middle);
    for (int j = 0; j < 4; j++) {
        sc[j] = (uint8_t)(s[j] | (s[j + 4] >> 4) << 6);
        sc[j + 4] = (uint8_t)(m[j] | (m[j + 4] >> 4) << 6);
        sc[j + 8] = (uint8_t)((s[j + 4] & 15) | (m[j + 4] & 15) << 4);
    }
    put_random(b + 16, 32 * (size_t)bits, state);
}

static void q6_k(uint8_t *b, float sd, uint64_t *state)
{
    put_random(b, 208, state);
    for (int j = 0; j < 16; j++) {
        int r = b[192 + j], s = 48 + (r & 63);
        b[192 + j] = (uint8_t)(r & 128 ? -s : s);
    }
    put_half(b + 208, sd / (18.5f * 79.5f) * vary(wn_noise_next(state)));
}

/* ---- types of random codes: all that differs is where the scales lie and what the codes' spread
 * is */

typedef struct {
    wn_type type;
    int d, m;                   /* where the half of the scale lies, and of the offset; m < 0:
                                   none */
    float spread;               /* of the codes times their sub-scales, in units of d */
    float offset;               /* m in units of d: minus the mean of the codes */
} random_codes;

static const random_codes plain[] = {
    { WN_TYPE_Q4_1, 0, 2, 4.61f, -7.5f },        { WN_TYPE_Q5_0, 0, -1, 9.24f, 0 },
    { WN_TYPE_Q5_1, 0, 2, 9.23f, -15.5f },       { WN_TYPE_IQ4_NL, 0, -1, 67.2f, 0 },
    { WN_TYPE_Q3_K, 108, -1, 2.35f * 18.5f, 0 },
    { WN_TYPE_IQ4_XS, 0, -1, 67.2f * 18.5f, 0 },
};

static void codes(uint8_t *b, const random_codes *c, size_t bytes, float sd, uint64_t *state)
{
    float d = sd / c->spread * vary(wn_noise_next(state));
    put_random(b, bytes, state);
    put_half(b + c->d, d);
    if (c->m >= 0) put_half(b + c->m, d * c->offset);
}

/* Scales of 8..15, minima of 1.3 to 1.6 times them. */
static void q2_k(uint8_t *b, float sd, uint64_t *state)
{
    float d = sd / (1.12f * 11.7f) * vary(wn_noise_next(state));
    put_random(b, 80, state);
    for (int j = 0; j < 16; j++) {
        int s = 8 + (b[j] & 7);
        b[j] = (uint8_t)(s | WN_MIN(s - (b[j] >> 7), 15) << 4);
    }
    put_half(put_half(b + 80, d), d * 1.5f);
}

/* The scale is a power of two: the one below or above the scale wanted, as often as makes
 * the mean square right. The spread of the codes' values is 5.85. */
static void mxfp4(uint8_t *b, float sd, uint64_t *state)
{
    int e;
    float f = 2 * frexpf(sd / 5.85f, &e);               /* f in [1, 2) times 2^(e - 1) */
    bool above = (float)(wn_noise_next(state) >> 40) * 0x1p-24f * 3 < f * f - 1;
    put_random(b + 1, 16, state);
    *b = (uint8_t)(e + 127 + above);
}

static const random_codes *plain_of(wn_type t)
{
    for (size_t i = 0; i < WN_COUNT(plain); i++)
        if (plain[i].type == t) return &plain[i];
    return NULL;
}

bool wn_noise_knows(wn_type t)
{
    static const wn_type known[] = { WN_TYPE_F32,  WN_TYPE_F16,  WN_TYPE_BF16, WN_TYPE_Q8_0,
                                     WN_TYPE_Q4_0, WN_TYPE_Q2_K, WN_TYPE_Q4_K, WN_TYPE_Q5_K,
                                     WN_TYPE_Q6_K, WN_TYPE_MXFP4 };
    for (size_t i = 0; i < WN_COUNT(known); i++)
        if (t == known[i]) return true;
    return plain_of(t) != NULL;
}

void wn_noise(void *out, wn_type t, int64_t n, float mean, float sd, uint64_t seed)
{
    const wn_type_info *info = wn_type_find((uint32_t)t);
    const random_codes *c = plain_of(t);
    uint64_t state = seed;
    uint8_t *b = out;
    if (t == WN_TYPE_F32 || t == WN_TYPE_F16 || t == WN_TYPE_BF16) {
        floats(out, t, n, mean, sd, &state);
        return;
    }
    WN_ASSERT(wn_noise_knows(t));
    for (int64_t i = 0; i < n; i += info->block, b += info->block_bytes) {
        if (c) codes(b, c, info->block_bytes, sd, &state);
        else if (t == WN_TYPE_Q8_0) q8_0(b, sd, &state);
        else if (t == WN_TYPE_Q4_0) q4_0(b, sd, &state);
        else if (t == WN_TYPE_Q2_K) q2_k(b, sd, &state);
        else if (t == WN_TYPE_Q4_K || t == WN_TYPE_Q5_K)
            q45_k(b, t == WN_TYPE_Q4_K ? 4 : 5, sd, &state);
        else if (t == WN_TYPE_MXFP4) mxfp4(b, sd, &state);
        else q6_k(b, sd, &state);
    }
}
