/* kernel/codes_scalar.c - the leaf loops of encoded pages as definitions, written to be read. */
#include "kernel/codes.h"
#include "kernel/elem.h"
#include "kernel/vec.h"

#include <math.h>

/* ---- rows of x -------------------------------------------------------------------- */

/* This table keeps the integers as they are. */
static const int16_t *integers(const wn_codes_x *x) { return (const int16_t *)(const void *)(x + 1); }

static float times(const float *v, const float *by, int i) { return by ? v[i] * by[i] : v[i]; }

static uint32_t magnitude(float x) { return wn_elem_bits(x) & 0x7fffffffu; }

/* Sets the scale for a row whose largest magnitude has these bits; gives its inverse, or 0 for a
 * row of zeros. NaN is larger than all. */
static float set_scale(wn_codes_x *x, uint32_t most)
{
    float amax = wn_elem_from_bits(most);
    x->scale = 0;
    x->total = 0;
    memset(x->sum, 0, sizeof x->sum);
    if (most >= 0x7f800000u) x->scale = NAN;
    if (most >= 0x7f800000u || amax < 0x1p-100f) return 0;
    x->scale = amax / (float)WN_CODES_X_MAX;
    return (float)WN_CODES_X_MAX / amax;
}

static void put_integer(wn_codes_x *x, int i, float y)
{
    int16_t *out = (int16_t *)(void *)(x + 1);
    out[i] = (int16_t)lrintf(y);
    x->sum[i / WN_CODES_GROUP] += out[i];
    x->total += out[i];
}

static void quantise(wn_codes_x *x, const float *v, const float *by, int n)
{
    uint32_t most = 0;
    for (int i = 0; i < n; i++) most = WN_MAX(most, magnitude(times(v, by, i)));
    float inv = set_scale(x, most);
    memset(x + 1, 0, wn_codes_x_bytes(n) - sizeof *x);
    for (int i = 0; i < n && inv > 0; i++) put_integer(x, i, times(v, by, i) * inv);
}

static void scales(wn_codes_scales *out, const uint16_t *s, size_t stride, int n_groups, int n)
{
    memset(out, 0, sizeof *out);
    for (int g = 0; g < n_groups; g++)
        for (int i = 0; i < n; i++) {
            float x = out->s[g][i] = wn_elem_from_f16(s[(size_t)g * stride + (size_t)i]);
            if (magnitude(x) > magnitude(out->most[i])) out->most[i] = fabsf(x);
        }
}

static void weigh(wn_codes_x *x, size_t x_group, const float *w, const wn_codes_scales *by, int n_groups)
{
    uint32_t most = 0;
    for (int i = 0; i < WN_CODES_SLOTS; i++)
        if (w[i] != 0) most = WN_MAX(most, magnitude(w[i] * by->most[i]));
    for (int g = 0; g < n_groups; g++, x = (wn_codes_x *)(void *)((char *)x + x_group)) {
        float inv = set_scale(x, most);
        memset(x + 1, 0, wn_codes_x_bytes(WN_CODES_SLOTS) - sizeof *x);
        for (int i = 0; i < WN_CODES_SLOTS && inv > 0; i++)
            if (w[i] != 0) put_integer(x, i, w[i] * inv * by->s[g][i]);
    }
}

static void widen(float *out, const uint16_t *h, int n)
{
    for (int i = 0; i < n; i++) out[i] = wn_elem_from_f16(h[i]);
}

static float dot(const float *v, const float *by, int n)
{
    float chains[16] = { 0 };
    for (int i = 0; i < n; i++)
        if (v[i] != 0) chains[i & 15] = fmaf(v[i], by[i], chains[i & 15]);
    return wn_tree16(chains);
}

/* ---- products --------------------------------------------------------------------- */

static const wn_codes_x *row_of(const wn_codes_product *p, int i, int g)
{
    return (const wn_codes_x *)(const void *)((const char *)p->x + (size_t)i * p->x_stride + (size_t)g * p->x_group);
}

static int code_at(const wn_codes_product *p, wn_codes_kind kind, int k, int n)
{
    int low = wn_codes_low(kind), high = wn_codes_high(kind), shift;
    size_t at = wn_codes_at(low, p->depth, p->n_cols, k, n, &shift);
    int u = p->low[at] >> shift & ((1 << low) - 1);
    if (high) {
        at = wn_codes_at(high, p->depth, p->n_cols, k, n, &shift);
        u |= (p->high[at] >> shift & ((1 << high) - 1)) << low;
    }
    return wn_codes_mapped(kind) ? p->table[u] : u;
}

/* Rows [from, to) of one column: sums wrap, their final values do not. */
static float product(const wn_codes_product *p, wn_codes_kind kind, const wn_codes_x *x, int n, int from, int to,
                     int32_t sum_x)
{
    uint32_t sum = 0;
    for (int k = from; k < to; k++) sum += (uint32_t)(integers(x)[k] * code_at(p, kind, k, n));
    return (float)(int32_t)((sum << p->shift) - (uint32_t)p->zero * (uint32_t)sum_x);
}

static int32_t group_sum(const wn_codes_x *x, int from, int to)
{
    int32_t sum = 0;
    for (int g = from / WN_CODES_GROUP; g * WN_CODES_GROUP < to; g++) sum += x->sum[g];
    return sum;
}

static void score(const wn_codes_product *p, wn_codes_kind kind)
{
    for (int i = 0; i < p->n_rows; i++) {
        const wn_codes_x *x = row_of(p, i, 0);
        for (int n = 0; n < p->n_cols; n++) {
            float c = 0;
            for (int k = 0, g = 0; k < p->depth; k += p->group, g++) {
                int end = WN_MIN(p->depth, k + p->group);
                int32_t sum_x = group_sum(x, k, end);
                size_t at = (size_t)g * p->param_stride + (size_t)n;
                c = fmaf(wn_elem_from_f16(p->s[at]), product(p, kind, x, n, k, end, sum_x), c);
                if (p->m) c = fmaf(wn_elem_from_f16(p->m[at]), (float)sum_x, c);
            }
            p->c[(size_t)i * p->c_stride + (size_t)n] = x->scale * c;
        }
    }
}

static void mix(const wn_codes_product *p, wn_codes_kind kind)
{
    for (int i = 0; i < p->n_rows; i++)
        for (int n = 0; n < p->n_cols; n++) {
            const wn_codes_x *x = row_of(p, i, n / p->col_group);
            float *c = p->c + (size_t)i * p->c_stride + n;
            *c = fmaf(x->scale, product(p, kind, x, n, p->from, p->to, x->total), p->add ? *c : 0) + x->offset;
        }
}

#define KIND(NAME, K)                                                                              \
    static void score_##NAME(const wn_codes_product *p) { score(p, K); }                           \
    static void mix_##NAME(const wn_codes_product *p) { mix(p, K); }
KIND(8, WN_CODES_8)
KIND(44, WN_CODES_4_4)
KIND(42, WN_CODES_4_2)
KIND(41, WN_CODES_4_1)
KIND(4, WN_CODES_4)
KIND(21, WN_CODES_2_1)
KIND(2, WN_CODES_2)
KIND(4t, WN_CODES_4T)
KIND(21t, WN_CODES_2_1T)
KIND(2t, WN_CODES_2T)

/* ---- rotation --------------------------------------------------------------------- */

static void hadamard_block(float *x, int n)
{
    for (int h = 1; h < n; h *= 2)
        for (int i = 0; i < n; i++) {
            if (i & h) continue;
            float a = x[i], b = x[i + h];
            x[i] = a + b;
            x[i + h] = a - b;
        }
    float scale = 1 / sqrtf((float)n);
    for (int i = 0; i < n; i++) x[i] *= scale;
}

static void hadamard(float *x, int n)
{
    while (n > 0) {
        int block = 1;
        while (block * 2 <= n) block *= 2;
        hadamard_block(x, block);
        x += block;
        n -= block;
    }
}

/* ---- codes ------------------------------------------------------------------------ */

/* To nearest, ties to even. */
static int nearest(float x, int lo, int hi) { return x <= (float)lo ? lo : x >= (float)hi ? hi : (int)lrintf(x); }

static int cut(float x, int hi) { return x <= 0 ? 0 : x >= (float)hi ? hi : (int)x; }

static uint8_t place(const uint8_t *table, int n, float y)
{
    int u = 0;
    while (u + 1 < n && y > 0.5f * (float)(table[u] + table[u + 1] - 256)) u++;
    return (uint8_t)u;
}

/* Steps so small that they are 0 as halves have none. */
static float inverse(float s) { return fabsf(s) >= 0x1p-100f ? 1 / s : 0; }

static void encode_group(uint8_t *codes, uint16_t *s, uint16_t *m, const float *x, int n, int bits,
                         wn_codes_grid grid, const uint8_t *table)
{
    int half = 1 << (bits - 1), top = 2 * half - 1;
    float min = x[0], max = x[0], most = x[0], inv, d;
    for (int i = 1; i < n; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    }
    float amax = fabsf(most);
    min += 0.0f;                        /* no negative zero: which zero comes first is not said */
    max += 0.0f;
    switch (grid) {
    case WN_GRID_CENTRE:
        *s = wn_codes_f16_up(amax / (float)(half - 1));
        inv = inverse(wn_elem_from_f16(*s));
        for (int i = 0; i < n; i++) codes[i] = (uint8_t)(nearest(x[i] * inv, 1 - half, half - 1) + half);
        break;
    case WN_GRID_MIDDLE:
        *s = wn_codes_f16_up(amax / (float)(2 * half));
        inv = 0.5f * inverse(wn_elem_from_f16(*s));
        for (int i = 0; i < n; i++) codes[i] = (uint8_t)cut(x[i] * inv + (float)half, top);
        break;
    case WN_GRID_RANGE:
        *m = wn_codes_f16_down(min);
        d = wn_elem_from_f16(*m);
        *s = wn_codes_f16_up((max - d) / (float)top);
        inv = inverse(wn_elem_from_f16(*s));
        for (int i = 0; i < n; i++) codes[i] = (uint8_t)nearest((x[i] - d) * inv, 0, top);
        break;
    case WN_GRID_TABLE:
        *s = wn_codes_f16_up(amax / 127);
        inv = inverse(wn_elem_from_f16(*s));
        for (int i = 0; i < n; i++) codes[i] = place(table, top + 1, x[i] * inv);
        break;
    case WN_GRID_GGML_8:
        d = amax / 127;
        *s = wn_codes_f16_near(d);
        inv = inverse(d);
        for (int i = 0; i < n; i++) codes[i] = (uint8_t)(nearest(x[i] * inv, -127, 127) + 128);
        break;
    case WN_GRID_GGML_0:
        d = most / (float)-half;
        *s = wn_codes_f16_near(d);
        inv = inverse(d);
        for (int i = 0; i < n; i++) codes[i] = (uint8_t)cut(x[i] * inv + ((float)half + 0.5f), top);
        break;
    case WN_GRID_GGML_1:
        d = (max - min) / (float)top;
        *s = wn_codes_f16_near(d);
        *m = wn_codes_f16_near(min);
        inv = inverse(d);
        for (int i = 0; i < n; i++) codes[i] = (uint8_t)cut((x[i] - min) * inv + 0.5f, top);
        break;
    }
}

static bool all_finite(const float *x, int n)
{
    for (int i = 0; i < n; i++)
        if ((wn_elem_bits(x[i]) & 0x7f800000u) == 0x7f800000u) return false;
    return true;
}

static void encode(uint8_t *codes, uint16_t *s, uint16_t *m, size_t stride, const float *x, int n, int group,
                   wn_codes_kind kind, wn_codes_grid grid, const uint8_t *table)
{
    bool finite = all_finite(x, n);
    int step = group > 0 ? group : n;
    for (int at = 0; at < n; at += step, s += stride, m += m ? stride : 0) {
        if (finite) {
            int len = WN_MIN(step, n - at);
            encode_group(codes + at, s, m, x + at, len, wn_codes_bits(kind), grid, table);
            if (grid == WN_GRID_TABLE)
                *s = wn_codes_fit(x + at, codes + at, len, table, (1 << wn_codes_bits(kind)) - 1, wn_elem_from_f16(*s));
            continue;
        }
        memset(codes + at, 0, (size_t)WN_MIN(step, n - at));
        *s = 0x7e00;
        if (m) *m = 0x7e00;
    }
}

const wn_codes_ops wn_codes_ops_scalar = {
    .quantise = quantise,
    .scales = scales,
    .weigh = weigh,
    .widen = widen,
    .dot = dot,
    .hadamard = hadamard,
    .encode = encode,
};

const wn_planes_ops wn_planes_ops_scalar = {
    .score = { score_8, score_44, score_42, score_41, score_4, score_21, score_2, score_4t, score_21t, score_2t },
    .mix = { mix_8, mix_44, mix_42, mix_41, mix_4, mix_21, mix_2, mix_4t, mix_21t, mix_2t },
};
