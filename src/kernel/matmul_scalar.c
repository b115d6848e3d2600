/* matmul_scalar.c - the definition of every product of weights and activations.
 *
 * Quantised weights. A weight is scale * (code - zero), with unsigned codes; activations
 * are scale * code with signed ones. Inside a scale block only integers are added, which
 * no order can change; then each output has one chain of fused multiply-adds over its
 * blocks in ascending k. The product of the two scales is one rounded multiplication.
 *
 *     32-block types   acc = fma((float)sum (u - zero) q, dw * dx, acc)
 *                      min = fma(-mw, dx * (float)sum q, min)     Q4_1, Q5_1: w = dw u + mw
 *     K-quants         acc = fma((float)sum_j sc_j sum (u - zero) q, dw * dx, acc)
 *                      min = fma((float)sum_j m_j sum q, dmin * dx, min)
 *     output           acc - min, then + bias
 *
 * IQ4_NL, IQ4_XS and MXFP4: (u - zero) is the number that the code stands for.
 * The sums of K-quants reach 2^27, so the conversion to float may round (to nearest
 * even, as all tables do).
 *
 * Float weights (F32, F16, BF16) are widened exactly to f32. Chain i of 16 takes the
 * products of k = i mod 16 in ascending k; past the end of a row both factors are +0, so
 * every chain has the same length; wn_tree16() adds the chains; then + bias. BF16 has the
 * same order as the others: rounding activations to bf16, for the sake of bf16 dot
 * products, would cost 8 of their bits.
 *
 * Activations: the largest magnitude is found on the bit pattern, where NaN is above
 * infinity, so that a NaN among the values ends up in the scale and poisons the outputs
 * instead of vanishing. Codes that are no number become 0.
 */
#include "kernel/matmul_ops.h"
#include "kernel/vec.h"

#include <math.h>
#include <string.h>

/* ---- activations ------------------------------------------------------------------ */

static float absmax(const float *x, int n)
{
    uint32_t max = 0;
    for (int i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        u &= 0x7fffffffu;
        if (u > max) max = u;
    }
    float f;
    memcpy(&f, &max, sizeof f);
    return f;
}

/* n codes, their scale returned. */
static float quantise(int8_t *q, const float *x, int n)
{
    float max = absmax(x, n), inverse = max > 0 ? 127.0f / max : 0;
    for (int i = 0; i < n; i++) {
        float v = x[i] * inverse;
        q[i] = fabsf(v) < 127.5f ? (int8_t)lrintf(v) : 0;
    }
    return max / 127.0f;
}

static void act_q32(wn_rec *r, const float *x, int n_blocks)
{
    memset(r, 0, sizeof *r);
    for (int b = 0; b < n_blocks; b++) {
        r->d[b] = quantise(r->q + 32 * b, x + 32 * b, 32);
        for (int i = 0; i < 32; i++) r->sum[b] += r->q[32 * b + i];
    }
}

static void act_q256(wn_rec *r, const float *x)
{
    memset(r, 0, sizeof *r);
    r->d256 = quantise(r->q, x, 256);
    for (int i = 0; i < 256; i++) {
        r->sum16[i / 16] = (int16_t)(r->sum16[i / 16] + r->q[i]);
        r->sum32[i / 32] = (int16_t)(r->sum32[i / 32] + r->q[i]);
    }
}

/* ---- unpacking: codes, scales and sub-scales of 16 rows ------------------------------- */

/* 16 half floats at src. */
static void halves(float out[16], const uint8_t *src)
{
    for (int r = 0; r < 16; r++) {
        uint16_t h;
        memcpy(&h, src + 2 * r, 2);
        out[r] = wn_f16_to_f32(h);
    }
}

static void unpack_q8_0(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    const uint8_t *qs = src + 32 * n_blocks;
    (void)ahead;
    for (int b = 0; b < n_blocks; b++) halves(w->d[b], src + 32 * b);
    for (int i = 0; i < n_blocks * 512; i++) w->q[i / 64][i % 64] = qs[i] ^ 0x80;   /* + 128 */
}

/* Half floats that the second chain takes away: of opposite sign. */
static void offsets(float out[16], const uint8_t *src)
{
    halves(out, src);
    for (int r = 0; r < 16; r++) out[r] = -out[r];
}

/* Types of 4 or 5 bits; table: what the codes stand for, or NULL. */
static void unpack_nibbles(wn_ready *w, const uint8_t *src, int n_blocks, wn_type t,
                           const int8_t *table)
{
    wn_at32 at = wn_at_32(t, n_blocks);
    int zero = table ? 1 << wn_log2_zero(t) : 0;
    for (int b = 0; b < n_blocks; b++) {
        if (t == WN_TYPE_MXFP4)
            for (int r = 0; r < 16; r++) w->d[b][r] = wn_e8m0_half(src[16 * b + r]);
        else
            halves(w->d[b], src + 32 * b);
        if (at.m) offsets(w->m[b], src + at.m + 32 * (size_t)b);
        for (int k = 0; k < 32; k++)
            for (int r = 0; r < 16; r++) {
                uint8_t v = src[at.qs + (size_t)(256 * b + k % 16 / 4 * 64 + 4 * r + k % 4)];
                int q = k < 16 ? v & 15 : v >> 4;
                if (at.high)
                    q |= (src[at.high + (size_t)(64 * b + 4 * r + k / 8)] >> k % 8 & 1) << 4;
                w->q[8 * b + k / 4][4 * r + k % 4] = (uint8_t)((table ? table[q] : q) + zero);
            }
    }
}

#define NIBBLES(name, type, table)                                                          \
    static void name(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)           \
    {                                                                                       \
        (void)ahead;                                                                        \
        unpack_nibbles(w, src, n_blocks, type, table);                                      \
    }
NIBBLES(unpack_q4_0, WN_TYPE_Q4_0, NULL)
NIBBLES(unpack_q4_1, WN_TYPE_Q4_1, NULL)
NIBBLES(unpack_q5_0, WN_TYPE_Q5_0, NULL)
NIBBLES(unpack_q5_1, WN_TYPE_Q5_1, NULL)
NIBBLES(unpack_iq4_nl, WN_TYPE_IQ4_NL, wn_iq4_values)
NIBBLES(unpack_mxfp4, WN_TYPE_MXFP4, wn_mxfp4_values)

/* The pair (even, odd) of int16 that a lane of mn holds. */
static int32_t pair16(int even, int odd)
{
    return (int32_t)((uint32_t)(even & 0xffff) | (uint32_t)odd << 16);
}

/* d, dmin and the six-bit scales and minimums of Q4_K and Q5_K. */
static void scales_q45(wn_ready *w, const uint8_t *src)
{
    halves(w->d[0], src);
    halves(w->m[0], src + 32);
    for (int r = 0; r < 16; r++) {
        const uint8_t *low = src + WN_AT_Q45_SCALES + 4 * r, *mid = low + 64, *high = mid + 64;
        int m[8];
        for (int j = 0; j < 4; j++) {
            w->sc[j][r] = low[j] & 63;
            w->sc[j + 4][r] = (high[j] & 15) | (low[j] >> 6) << 4;
            m[j] = mid[j] & 63;
            m[j + 4] = high[j] >> 4 | (mid[j] >> 6) << 4;
        }
        for (int i = 0; i < 4; i++) w->mn[i][r] = pair16(m[2 * i], m[2 * i + 1]);
    }
}

static void unpack_q4_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks, (void)ahead;
    scales_q45(w, src);
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < 512; i++) {
            uint8_t v = src[WN_AT_Q4_QS + 512 * c + i];
            w->q[16 * c + i / 64][i % 64] = v & 15;
            w->q[16 * c + 8 + i / 64][i % 64] = v >> 4;
        }
}

static void unpack_q5_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks, (void)ahead;
    scales_q45(w, src);
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < 512; i++) {
            int v = src[WN_AT_Q5_QS + 512 * c + i], h = src[WN_AT_Q5_HIGH + i] >> (2 * c);
            w->q[16 * c + i / 64][i % 64] = (uint8_t)((v & 15) | (h & 1) << 4);
            w->q[16 * c + 8 + i / 64][i % 64] = (uint8_t)(v >> 4 | (h >> 1 & 1) << 4);
        }
}

static void unpack_q2_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks, (void)ahead;
    halves(w->d[0], src + WN_AT_Q2_D);
    halves(w->m[0], src + WN_AT_Q2_DMIN);
    for (int r = 0; r < 16; r++)
        for (int j = 0; j < 16; j += 2) {
            const uint8_t *s = src + j / 4 * 64 + 4 * r + j % 4;
            w->sc[j][r] = s[0] & 15;
            w->sc[j + 1][r] = s[1] & 15;
            w->mn[j / 2][r] = pair16(s[0] >> 4, s[1] >> 4);
        }
    for (int i = 0; i < 1024; i++)
        for (int g = 0; g < 4; g++)
            w->q[i / 512 * 32 + 8 * g + i % 512 / 64][i % 64] = src[WN_AT_Q2_QS + i] >> (2 * g) & 3;
}

static void unpack_q3_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks, (void)ahead;
    halves(w->d[0], src + WN_AT_Q3_D);
    for (int r = 0; r < 16; r++)
        for (int j = 0; j < 16; j++) {
            const uint8_t *s = src + WN_AT_Q3_SCALES + 4 * r + j % 4;
            int low = s[j / 4 % 2 * 64] >> (j < 8 ? 0 : 4) & 15, high = s[128] >> (j / 4 * 2) & 3;
            w->sc[j][r] = (low | high << 4) - 32;
        }
    for (int i = 0; i < 1024; i++)
        for (int g = 0; g < 4; g++) {
            int high = src[i % 512] >> (i / 512 * 4 + g) & 1;
            w->q[i / 512 * 32 + 8 * g + i % 512 / 64][i % 64] =
                (uint8_t)((src[WN_AT_Q3_QS + i] >> (2 * g) & 3) | high << 2);
        }
}

static void unpack_iq4_xs(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks, (void)ahead;
    halves(w->d[0], src);
    for (int r = 0; r < 16; r++)
        for (int j = 0; j < 8; j++) {
            int low = src[WN_AT_XS_LOW + 4 * r + j / 2] >> (j % 2 * 4) & 15;
            int high = src[WN_AT_XS_HIGH + 2 * r + j / 4] >> (j % 4 * 2) & 3;
            w->sc[j][r] = (low | high << 4) - 32;
        }
    for (int i = 0; i < 2048; i++) {
        uint8_t v = src[WN_AT_XS_QS + i];
        int k4 = i / 256 * 8 + i % 256 / 64;
        w->q[k4][i % 64] = (uint8_t)(wn_iq4_values[v & 15] + 128);
        w->q[k4 + 4][i % 64] = (uint8_t)(wn_iq4_values[v >> 4] + 128);
    }
}

static void unpack_q6_K(wn_ready *w, const uint8_t *src, int n_blocks, size_t ahead)
{
    (void)n_blocks, (void)ahead;
    halves(w->d[0], src + WN_AT_Q6_D);
    for (int i = 0; i < 256; i++)
        w->sc[i / 64 * 4 + i % 4][i % 64 / 4] = (int8_t)src[WN_AT_Q6_SCALES + i];
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 512; i++) {         /* 8 lane rows of 64 bytes */
            int v = i / 64, l = i % 64, k4 = 32 * n + v;
            int a = src[1024 * n + i], b = src[1024 * n + 512 + i],
                h = src[WN_AT_Q6_HIGH + 512 * n + i];
            w->q[k4][l] = (uint8_t)((a & 15) | (h & 3) << 4);
            w->q[k4 + 8][l] = (uint8_t)((b & 15) | (h >> 2 & 3) << 4);
            w->q[k4 + 16][l] = (uint8_t)(a >> 4 | (h >> 4 & 3) << 4);
            w->q[k4 + 24][l] = (uint8_t)(b >> 4 | (h >> 6) << 4);
        }
}

/* ---- products --------------------------------------------------------------------------- */

/* sum (u - zero) q of n columns from k on. */
static int32_t dot(const wn_ready *w, int row, const int8_t *q, int k, int n, int zero)
{
    int32_t sum = 0;
    for (int i = k; i < k + n; i++) sum += (w->q[i / 4][row * 4 + i % 4] - zero) * q[i];
    return sum;
}

static void tiles_32(const wn_chunk *c, wn_type type)
{
    int zero = wn_log2_zero(type) < 0 ? 0 : 1 << wn_log2_zero(type);
    for (int t = 0; t < c->n_tokens; t++)
        for (int r = 0; r < c->n_panels * 16; r++) {
            const wn_ready *w = &c->w[r / 16];
            const wn_rec *x = &c->act[t];
            size_t at = (size_t)t * WN_PART_ROWS + (size_t)r;
            for (int b = 0; b < c->n_blocks; b++) {
                int32_t sum = dot(w, r % 16, x->q, 32 * b, 32, zero);
                c->acc[at] = fmaf((float)sum, w->d[b][r % 16] * x->d[b], c->acc[at]);
                if (wn_type_has_min(type))
                    c->min[at] = fmaf(w->m[b][r % 16], x->d[b] * (float)x->sum[b], c->min[at]);
            }
        }
}

static void tiles_q8_0(const wn_chunk *c) { tiles_32(c, WN_TYPE_Q8_0); }
static void tiles_q4_0(const wn_chunk *c) { tiles_32(c, WN_TYPE_Q4_0); }
static void tiles_q4_1(const wn_chunk *c) { tiles_32(c, WN_TYPE_Q4_1); }
static void tiles_q5_0(const wn_chunk *c) { tiles_32(c, WN_TYPE_Q5_0); }
static void tiles_q5_1(const wn_chunk *c) { tiles_32(c, WN_TYPE_Q5_1); }
static void tiles_iq4_nl(const wn_chunk *c) { tiles_32(c, WN_TYPE_IQ4_NL); }
static void tiles_mxfp4(const wn_chunk *c) { tiles_32(c, WN_TYPE_MXFP4); }

/* n_min: minimums of a super-block, one for each 32 or 16 codes; or 0. */
static void tiles_256(const wn_chunk *c, int n_sub, int zero, int n_min)
{
    for (int t = 0; t < c->n_tokens; t++)
        for (int r = 0; r < c->n_panels * 16; r++) {
            const wn_ready *w = &c->w[r / 16];
            const wn_rec *x = &c->act[t];
            const int16_t *sums = n_min == 8 ? x->sum32 : x->sum16;
            int row = r % 16, n = 256 / n_sub;
            size_t at = (size_t)t * WN_PART_ROWS + (size_t)r;
            int32_t sum = 0, min = 0;
            for (int j = 0; j < n_sub; j++)
                sum += w->sc[j][row] * dot(w, row, x->q, n * j, n, zero);
            c->acc[at] = fmaf((float)sum, w->d[0][row] * x->d256, c->acc[at]);
            if (!n_min) continue;
            for (int j = 0; j < n_min; j++)
                min += (int16_t)(w->mn[j / 2][row] >> 16 * (j % 2)) * sums[j];
            c->min[at] = fmaf((float)min, w->m[0][row] * x->d256, c->min[at]);
        }
}

static void tiles_q2_K(const wn_chunk *c) { tiles_256(c, 16, 0, 16); }
static void tiles_q3_K(const wn_chunk *c) { tiles_256(c, 16, 4, 0); }
static void tiles_q45_K(const wn_chunk *c) { tiles_256(c, 8, 0, 8); }
static void tiles_q6_K(const wn_chunk *c) { tiles_256(c, 16, 32, 0); }
static void tiles_iq4_xs(const wn_chunk *c) { tiles_256(c, 8, 128, 0); }

static float float_at(const wn_float_job *j, int row, int k)
{
    const uint8_t *w = j->w + (size_t)row * j->row_bytes;
    if (j->type == WN_TYPE_F32) {
        float f;
        memcpy(&f, w + 4 * (size_t)k, 4);
        return f;
    }
    uint16_t h;
    memcpy(&h, w + 2 * (size_t)k, 2);
    return j->type == WN_TYPE_F16 ? wn_f16_to_f32(h) : wn_bf16_to_f32(h);
}

static void floats(const wn_float_job *j)
{
    int whole = (j->n_cols + 15) / 16 * 16;
    for (int t = 0; t < j->n_tokens; t++)
        for (int r = 0; r < j->n_rows; r++) {
            const float *x = j->x + (size_t)t * (size_t)j->n_cols;
            float chain[16] = { 0 };
            for (int k = 0; k < whole; k++) {
                bool in = k < j->n_cols;
                chain[k % 16] = fmaf(in ? float_at(j, r, k) : 0, in ? x[k] : 0, chain[k % 16]);
            }
            float sum = wn_tree16(chain);
            j->out[(size_t)t * j->out_stride + (size_t)r] = j->bias ? sum + j->bias[r] : sum;
        }
}

static wn_unpack_fn *const unpacks[WN_TYPE_COUNT] = {
    [WN_TYPE_Q8_0] = unpack_q8_0, [WN_TYPE_Q4_0] = unpack_q4_0, [WN_TYPE_Q4_1] = unpack_q4_1,
    [WN_TYPE_Q5_0] = unpack_q5_0, [WN_TYPE_Q5_1] = unpack_q5_1, [WN_TYPE_IQ4_NL] = unpack_iq4_nl,
    [WN_TYPE_MXFP4] = unpack_mxfp4, [WN_TYPE_Q2_K] = unpack_q2_K, [WN_TYPE_Q3_K] = unpack_q3_K,
    [WN_TYPE_Q4_K] = unpack_q4_K, [WN_TYPE_Q5_K] = unpack_q5_K, [WN_TYPE_Q6_K] = unpack_q6_K,
    [WN_TYPE_IQ4_XS] = unpack_iq4_xs,
};
static wn_tiles_fn *const tiles[WN_TYPE_COUNT] = {
    [WN_TYPE_Q8_0] = tiles_q8_0, [WN_TYPE_Q4_0] = tiles_q4_0, [WN_TYPE_Q4_1] = tiles_q4_1,
    [WN_TYPE_Q5_0] = tiles_q5_0, [WN_TYPE_Q5_1] = tiles_q5_1, [WN_TYPE_IQ4_NL] = tiles_iq4_nl,
    [WN_TYPE_MXFP4] = tiles_mxfp4, [WN_TYPE_Q2_K] = tiles_q2_K, [WN_TYPE_Q3_K] = tiles_q3_K,
    [WN_TYPE_Q4_K] = tiles_q45_K, [WN_TYPE_Q5_K] = tiles_q45_K, [WN_TYPE_Q6_K] = tiles_q6_K,
    [WN_TYPE_IQ4_XS] = tiles_iq4_xs,
};

const wn_matmul_ops wn_matmul_ops_scalar = {
    .act_q32 = act_q32,
    .act_q256 = act_q256,
    .unpack = unpacks,
    .tiles = tiles,
    .few_tokens = 3,
    .floats = floats,
};
