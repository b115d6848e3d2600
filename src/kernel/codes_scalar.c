/* kernel/codes_scalar.c - the leaf loops of encoded pages as definitions, written to be read. */
#include "kernel/codes.h"
#include "kernel/elem.h"
#include "kernel/vec.h"

#include <math.h>

/* ---- rows of x -------------------------------------------------------------------- */

/* This table keeps the integers as they are: number k of row i. */
static int16_t *integer_at(const char *blocks, int i, int k)
{
    const char *at = blocks + (size_t)(k / WN_CODES_BLOCK) * WN_CODES_BLOCK_BYTES +
                     (size_t)i * 2 * WN_CODES_BLOCK;
    return (int16_t *)(uintptr_t)at + k % WN_CODES_BLOCK;
}

static float times(const float *v, const float *by, int i) { return by ? v[i] * by[i] : v[i]; }

static uint32_t magnitude(float x) { return wn_elem_bits(x) & 0x7fffffffu; }

/* Sets the scale of a row whose largest magnitude has these bits; gives its inverse, or 0 for a
 * row of zeros. NaN is larger than all. */
static float set_scale(wn_codes_x *x, int i, uint32_t most, int top)
{
    float amax = wn_elem_from_bits(most);
    x->scale[i] = most >= 0x7f800000u ? NAN : 0;
    x->total[i] = 0;
    for (int g = 0; g < WN_CODES_GROUPS; g++) x->sum[g][i] = 0;
    if (most >= 0x7f800000u || amax < 0x1p-100f) return 0;
    x->scale[i] = amax / (float)top;
    return (float)top / amax;
}

static void quantise(wn_codes_x *x, int i, const float *v, const float *by, int n, int top)
{
    uint32_t most = 0;
    for (int k = 0; k < n; k++) most = WN_MAX(most, magnitude(times(v, by, k)));
    float inv = set_scale(x, i, most, top);
    for (int k = 0; k < wn_codes_blocks(n) * WN_CODES_BLOCK; k++) {
        int y = k < n && inv > 0 ? (int)lrintf(times(v, by, k) * inv) : 0;
        *integer_at(wn_codes_integers(x), i, k) = (int16_t)y;
        x->sum[k / WN_CODES_GROUP][i] += y;
        x->total[i] += y;
    }
}

static void largest(uint32_t most[4], const float *w, size_t w_stride, int n_rows,
                    const uint16_t *s, size_t stride, int n_groups)
{
    for (int i = 0; i < n_rows; i++, w += w_stride)
        for (int g = 0; g < n_groups; g++)
            for (int j = 0; j < WN_CODES_SLOTS; j++)
                if (w[j] != 0)
                    most[i] = WN_MAX(most[i],
                                     magnitude(w[j] * wn_elem_from_f16(
                                                          s[(size_t)g * stride + (size_t)j])));
}

static void begin(wn_codes_x *x, int n_groups, const uint32_t most[4], float inverse[4])
{
    for (int g = 0; g < n_groups; g++)
        for (int i = 0; i < 4; i++) inverse[i] = set_scale(&x[g], i, most[i], WN_CODES_X_MAX);
}

static void weigh(char *block, size_t x_group, wn_codes_x *x, const float *w, size_t w_stride,
                  int n_rows, const float inverse[4], const uint16_t *s, size_t stride,
                  int n_groups, wn_fetcher *f)
{
    (void)f;
    for (int g = 0; g < n_groups; g++, block += x_group, s += stride)
        for (int i = 0; i < n_rows; i++)
            for (int j = 0; j < WN_CODES_SLOTS; j++) {
                float v = w[(size_t)i * w_stride + (size_t)j];
                int y = v != 0 && inverse[i] > 0
                            ? (int)lrintf(v * inverse[i] * wn_elem_from_f16(s[j]))
                            : 0;
                *integer_at(block, i, j) = (int16_t)y;
                x[g].total[i] += y;
            }
}

static void settle(float *c, const int32_t *t, const wn_codes_x *x, int i, int n, int zero,
                   int shift, bool add)
{
    for (int k = 0; k < n; k++) {
        int32_t y = (int32_t)(((uint32_t)t[k] << shift) +
                              (uint32_t)wn_codes_zeros(zero, x->total[i]));
        c[k] = fmaf(x->scale[i], (float)y, add ? c[k] : 0) + x->offset[i];
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

static int code_at(const wn_codes_product *p, const wn_codes_page *page, wn_codes_kind kind, int k,
                   int n)
{
    int low = wn_codes_low(kind), high = wn_codes_high(kind), shift;
    size_t at = wn_codes_at(low, p->depth, p->n_cols, k, n, &shift);
    int u = page->low[at] >> shift & ((1 << low) - 1);
    if (high) {
        at = wn_codes_at(high, p->depth, p->n_cols, k, n, &shift);
        u |= (page->high[at] >> shift & ((1 << high) - 1)) << low;
    }
    return wn_codes_mapped(kind) ? p->table[u] : u;
}

/* Rows [from, to) of one column: sums wrap, their final values do not. */
static uint32_t product(const wn_codes_product *p, const wn_codes_page *page, wn_codes_kind kind,
                        const char *x, int i, int n, int from, int to)
{
    uint32_t sum = 0;
    for (int k = from; k < to; k++)
        sum += (uint32_t)(*integer_at(x, i, k) * code_at(p, page, kind, k, n));
    return sum;
}

static int32_t group_sum(const wn_codes_x *x, int i, int from, int to)
{
    int32_t sum = 0;
    for (int g = from / WN_CODES_GROUP; g * WN_CODES_GROUP < to; g++) sum += x->sum[g][i];
    return sum;
}

static float score_of(const wn_codes_product *p, const wn_codes_page *page, wn_codes_kind kind,
                      const wn_codes_x *x, int i, int n)
{
    float c = 0;
    for (int k = 0, g = 0; k < p->depth; k += p->group, g++) {
        int end = WN_MIN(p->depth, k + p->group);
        int32_t sum_x = group_sum(x, i, k, end);
        uint32_t t = (product(p, page, kind, wn_codes_integers(x), i, n, k, end) << p->shift) +
                     (uint32_t)wn_codes_zeros(p->zero, sum_x);
        size_t at = (size_t)g * p->param_stride + (size_t)n;
        c = fmaf(wn_elem_from_f16(page->s[at]), (float)(int32_t)t, c);
        if (page->m) c = fmaf(wn_elem_from_f16(page->m[at]), (float)sum_x, c);
    }
    return x->scale[i] * c;
}

static void score(const wn_codes_product *p, wn_codes_kind kind)
{
    for (const wn_codes_page *page = p->pages; page < p->pages + p->n_pages; page++)
        for (int i = 0; i < p->n_rows; i++) {
            const wn_codes_x *x = wn_codes_rows(p->x, p->x_stride, i);
            for (int n = 0; n < p->n_cols; n++)
                page->c[(size_t)i * p->c_stride + (size_t)n] = score_of(p, page, kind, x, i % 4, n);
        }
}

static void mix(const wn_codes_product *p, wn_codes_kind kind)
{
    for (int i = 0; i < p->n_rows; i++)
        for (int n = 0; n < p->n_cols; n++) {
            int32_t *t = &p->t[(size_t)i * p->t_stride + (size_t)n];
            uint32_t sum = p->add ? (uint32_t)*t : 0;
            for (const wn_codes_page *page = p->pages; page < p->pages + p->n_pages; page++)
                sum += product(p, page, kind, page->x + (size_t)(n / p->col_group) * p->x_group, i,
                               n, page->from, page->to);
            *t = (int32_t)sum;
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
static int nearest(float x, int lo, int hi)
{
    return x <= (float)lo ? lo : x >= (float)hi ? hi : (int)lrintf(x);
}

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
        for (int i = 0; i < n; i++)
            codes[i] = (uint8_t)(nearest(x[i] * inv, 1 - half, half - 1) + half);
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

static void encode(uint8_t *codes, uint16_t *s, uint16_t *m, size_t stride, const float *x, int n,
                   int group, wn_codes_kind kind, wn_codes_grid grid, const uint8_t *table)
{
    bool finite = all_finite(x, n);
    int step = group > 0 ? group : n;
    for (int at = 0; at < n; at += step, s += stride, m += m ? stride : 0) {
        if (finite) {
            int len = WN_MIN(step, n - at);
            encode_group(codes + at, s, m, x + at, len, wn_codes_bits(kind), grid, table);
            if (grid == WN_GRID_TABLE)
                *s = wn_codes_fit(x + at, codes + at, len, table, (1 << wn_codes_bits(kind)) - 1,
                                  wn_elem_from_f16(*s));
            continue;
        }
        memset(codes + at, 0, (size_t)WN_MIN(step, n - at));
        *s = 0x7e00;
        if (m) *m = 0x7e00;
    }
}

const wn_codes_ops wn_codes_ops_scalar = {
    .quantise = quantise,
    .largest = largest,
    .begin = begin,
    .weigh = weigh,
    .settle = settle,
    .widen = widen,
    .dot = dot,
    .hadamard = hadamard,
    .encode = encode,
};

const wn_planes_ops wn_planes_ops_scalar = {
    .score = { score_8, score_44, score_42, score_41, score_4, score_21, score_2, score_4t,
               score_21t, score_2t },
    .mix = { mix_8, mix_44, mix_42, mix_41, mix_4, mix_21, mix_2, mix_4t, mix_21t, mix_2t },
};
