/* kernel/attn_scalar.c - the leaf loops of attention as definitions, written to be read.
 *
 * The other tables must give the same bits (tests/parity/attn.c): each result is one
 * chain of fused multiply-adds in ascending order, and what is not a chain is done
 * element by element.
 */
#include "kernel/attn.h"
#include "kernel/exp_scalar.h"

static void product(const wn_attn_product *p, wn_elem e)
{
    for (int i = 0; i < p->n_rows; i++) {
        const float *a = p->a + (size_t)i * p->a_stride;
        float *c = p->c + (size_t)i * p->c_stride;
        for (int x = 0; x < p->n_cols; x++) {
            float sum = p->add ? c[x] : 0.0f;
            for (int j = 0; j < p->depth; j++)
                sum = fmaf(a[j], wn_elem_get(e, p->b, (size_t)j * p->b_stride + (size_t)x), sum);
            c[x] = sum;
        }
    }
}

static void product_f16(const wn_attn_product *p) { product(p, WN_ELEM_F16); }
static void product_bf16(const wn_attn_product *p) { product(p, WN_ELEM_BF16); }
static void product_f32(const wn_attn_product *p) { product(p, WN_ELEM_F32); }

static void put_row_f16(void *dst, const float *x, int n)
{
    for (int i = 0; i < n; i++) ((uint16_t *)dst)[i] = wn_elem_to_f16(x[i]);
}

static void put_row_bf16(void *dst, const float *x, int n)
{
    for (int i = 0; i < n; i++) ((uint16_t *)dst)[i] = wn_elem_to_bf16(x[i]);
}

static void put_row_f32(void *dst, const float *x, int n)
{
    if (n > 0) memcpy(dst, x, sizeof(float) * (size_t)n);
}

static void put_cols(void *dst, size_t dst_stride, const float *rows, size_t stride, int n,
                     int depth, wn_elem e)
{
    for (int d = 0; d < depth; d++)
        for (int s = 0; s < n; s++)
            wn_elem_put(e, dst, (size_t)d * dst_stride + (size_t)s,
                        rows[(size_t)s * stride + (size_t)d]);
}

static void put_cols_f16(void *dst, size_t dst_stride, const float *rows, size_t stride, int n,
                         int depth)
{
    put_cols(dst, dst_stride, rows, stride, n, depth, WN_ELEM_F16);
}

static void put_cols_bf16(void *dst, size_t dst_stride, const float *rows, size_t stride, int n,
                          int depth)
{
    put_cols(dst, dst_stride, rows, stride, n, depth, WN_ELEM_BF16);
}

static void put_cols_f32(void *dst, size_t dst_stride, const float *rows, size_t stride, int n,
                         int depth)
{
    put_cols(dst, dst_stride, rows, stride, n, depth, WN_ELEM_F32);
}

static void get_row(float *x, const void *src, int n, wn_elem e)
{
    for (int i = 0; i < n; i++) x[i] = wn_elem_get(e, src, (size_t)i);
}

static void get_cols(float *rows, size_t stride, const void *src, size_t src_stride, int n,
                     int depth, wn_elem e)
{
    for (int d = 0; d < depth; d++)
        for (int s = 0; s < n; s++)
            rows[(size_t)s * stride + (size_t)d] = wn_elem_get(e, src,
                                                               (size_t)d * src_stride + (size_t)s);
}

#define GET(name, e)                                                                               \
    static void get_row_##name(float *x, const void *src, int n) { get_row(x, src, n, e); }        \
    static void get_cols_##name(float *rows, size_t stride, const void *src, size_t src_stride,    \
                                int n, int depth)                                                  \
    {                                                                                              \
        get_cols(rows, stride, src, src_stride, n, depth, e);                                      \
    }
GET(f16, WN_ELEM_F16)
GET(bf16, WN_ELEM_BF16)
GET(f32, WN_ELEM_F32)

static void unit_cols(float *dst, size_t dst_stride, const void *src, size_t src_stride, int n,
                      int depth, wn_elem e)
{
    for (int s = 0; s < n; s++) {
        double sum = 0;
        for (int d = 0; d < depth; d++) {
            double x = (double)wn_elem_get(e, src, (size_t)d * src_stride + (size_t)s);
            sum += x * x;
        }
        float scale = sum > 0 ? (float)(1 / sqrt(sum)) : 0;
        for (int d = 0; d < depth; d++)
            dst[(size_t)d * dst_stride + (size_t)s] =
                wn_elem_get(e, src, (size_t)d * src_stride + (size_t)s) * scale;
    }
}

#define UNIT(name, e)                                                                              \
    static void unit_cols_##name(float *dst, size_t dst_stride, const void *src,                   \
                                 size_t src_stride, int n, int depth)                              \
    {                                                                                              \
        unit_cols(dst, dst_stride, src, src_stride, n, depth, e);                                  \
    }
UNIT(f16, WN_ELEM_F16)
UNIT(bf16, WN_ELEM_BF16)
UNIT(f32, WN_ELEM_F32)

static float max(const float *x, int n)
{
    float m = -INFINITY;
    for (int i = 0; i < n; i++)
        if (x[i] > m) m = x[i];
    return m;
}

static void exp_sum(float *x, float m, int n, float chains[16])
{
    for (int i = 0; i < n; i++) {
        x[i] = wn_exp_1(x[i] - m);
        chains[i & 15] += x[i];
    }
}

static void sum_at(const float *x, size_t stride, int n_rows, const int16_t *index, int n,
                   float *room, float chains[4][16])
{
    for (int i = 0; i < n_rows; i++, x += stride) {
        memset(room, 0, sizeof *room * WN_SUM_AT);
        for (int e = 0; e < n; e++) room[index[e]] = x[e];
        memset(chains[i], 0, sizeof chains[i]);
        for (int at = 0; at < WN_SUM_AT; at++) chains[i][at & 15] += room[at];
    }
}

static float tanh_1(float y)
{
    float a = fabsf(y), r;
    if (a < WN_TANH_SMALL) {
        float z = y * y;
        float p = fmaf(WN_TANH_C11, z, WN_TANH_C9);
        p = fmaf(p, z, WN_TANH_C7);
        p = fmaf(p, z, WN_TANH_C5);
        p = fmaf(p, z, WN_TANH_C3);
        return fmaf(p * z, y, y);
    }
    float e = wn_exp_1(-2.0f * a);
    r = (1.0f - e) / (1.0f + e);
    return copysignf(r, y);
}

static void softcap(float *x, float cap, int n)
{
    for (int i = 0; i < n; i++) x[i] = cap * tanh_1(x[i] / cap);
}

static void merge(float *acc, float a, const float *more, float b, int n)
{
    for (int i = 0; i < n; i++) acc[i] = fmaf(b, more[i], a * acc[i]);
}

static bool divide(float *out, const float *acc, float l, int n)
{
    bool finite = true;
    for (int i = 0; i < n; i++) {
        out[i] = acc[i] / l + 0.0f;
        finite &= (wn_elem_bits(out[i]) & 0x7f800000u) != 0x7f800000u;
    }
    return finite;
}

const wn_attn_ops wn_attn_ops_scalar = {
    .product = { product_f16, product_bf16, product_f32 },
    .put_row = { put_row_f16, put_row_bf16, put_row_f32 },
    .put_cols = { put_cols_f16, put_cols_bf16, put_cols_f32 },
    .get_row = { get_row_f16, get_row_bf16, get_row_f32 },
    .get_cols = { get_cols_f16, get_cols_bf16, get_cols_f32 },
    .unit_cols = { unit_cols_f16, unit_cols_bf16, unit_cols_f32 },
    .max = max,
    .exp_sum = exp_sum,
    .sum_at = sum_at,
    .softcap = softcap,
    .merge = merge,
    .divide = divide,
};
