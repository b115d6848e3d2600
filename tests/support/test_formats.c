/* tests/support/test_formats.c - see test_formats.h. */
#include "tests/support/test_formats.h"

#include <string.h>

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

/* ---- raw f32: K channel-major, V slot-major ------------------------------------------- */

static size_t f32_bytes(int P, int dim) { return round64((size_t)P * (size_t)dim * 4); }

static void f32_put_k(void *frame, int P, int slot, const float *rows, size_t stride, int n,
                      int dim)
{
    float *f = frame;
    for (int i = 0; i < n; i++)
        for (int d = 0; d < dim; d++) f[d * P + slot + i] = rows[(size_t)i * stride + (size_t)d];
}

static void f32_put_v(void *frame, int P, int slot, const float *rows, size_t stride, int n,
                      int dim)
{
    float *f = frame;
    (void)P;
    for (int i = 0; i < n; i++)
        memcpy(f + (slot + i) * dim, rows + (size_t)i * stride, (size_t)dim * 4);
}

static void f32_get_k(const void *frame, int P, int slot, float *row, int dim)
{
    const float *f = frame;
    for (int d = 0; d < dim; d++) row[d] = f[d * P + slot];
}

static void f32_get_v(const void *frame, int P, int slot, float *row, int dim)
{
    (void)P;
    memcpy(row, (const float *)frame + slot * dim, (size_t)dim * 4);
}

static void f32_copy_k(void *dst, int ds, const void *src, int ss, int P, int dim)
{
    for (int d = 0; d < dim; d++) ((float *)dst)[d * P + ds] = ((const float *)src)[d * P + ss];
}

static void f32_copy_v(void *dst, int ds, const void *src, int ss, int P, int dim)
{
    (void)P;
    memcpy((float *)dst + ds * dim, (const float *)src + ss * dim, (size_t)dim * 4);
}

const wn_format test_f32 = {
    .name = "test-f32", .raw = true,
    .k_bytes = f32_bytes, .v_bytes = f32_bytes,
    .put_k = f32_put_k, .put_v = f32_put_v, .get_k = f32_get_k, .get_v = f32_get_v,
    .copy_k = f32_copy_k, .copy_v = f32_copy_v,
};

/* ---- encoded: the upper halves, slot-major for both ------------------------------------ */

static size_t cut_bytes(int P, int dim) { return round64((size_t)P * (size_t)dim * 2); }

static void cut_encode(void *frame, const float *row, int slot, int dim)
{
    for (int d = 0; d < dim; d++) {
        uint32_t u;
        memcpy(&u, &row[d], 4);
        ((uint16_t *)frame)[slot * dim + d] = (uint16_t)(u >> 16);
    }
}

static void cut_encode_k(void *frame, const void *raw, const wn_format *f, int P, int n,
                         uint64_t keep, int dim)
{
    float row[256];
    for (int s = 0; s < n; s++) {
        if (!(keep >> s & 1)) continue;
        f->get_k(raw, P, s, row, dim);
        cut_encode(frame, row, s, dim);
    }
}

static void cut_encode_v(void *frame, const void *raw, const wn_format *f, int P, int n,
                         uint64_t keep, int dim)
{
    float row[256];
    for (int s = 0; s < n; s++) {
        if (!(keep >> s & 1)) continue;
        f->get_v(raw, P, s, row, dim);
        cut_encode(frame, row, s, dim);
    }
}

static void cut_get(const void *frame, int P, int slot, float *row, int dim)
{
    (void)P;
    for (int d = 0; d < dim; d++) {
        uint32_t u = (uint32_t)((const uint16_t *)frame)[slot * dim + d] << 16;
        memcpy(&row[d], &u, 4);
    }
}

static void cut_copy(void *dst, int ds, const void *src, int ss, int P, int dim)
{
    (void)P;
    memcpy((uint16_t *)dst + ds * dim, (const uint16_t *)src + ss * dim, (size_t)dim * 2);
}

#define CUT(NAME, LAG, CLASS, COPY)                                                               \
    {                                                                                             \
        .name = NAME, .lag = LAG, .k_repack = CLASS, .v_repack = CLASS, .k_bytes = cut_bytes,     \
        .v_bytes = cut_bytes, .get_k = cut_get, .get_v = cut_get, .copy_k = COPY, .copy_v = COPY, \
        .encode_k = cut_encode_k, .encode_v = cut_encode_v,                                       \
    }
const wn_format test_copy_lag1 = CUT("test-copy1", 1, WN_REPACK_COPY, cut_copy);
const wn_format test_copy_lag0 = CUT("test-copy0", 0, WN_REPACK_COPY, cut_copy);

static void low_encode_k(void *frame, const void *raw, const wn_format *f, int P, int n,
                         uint64_t keep, int dim)
{
    cut_encode_k(frame, raw, f, P, n, keep, dim);
    for (int s = 0; s < n; s++)
        for (int d = 0; d < dim && (keep >> s & 1); d++) ((uint16_t *)frame)[s * dim + d] &= 0xfff0;
}

static void low_encode_v(void *frame, const void *raw, const wn_format *f, int P, int n,
                         uint64_t keep, int dim)
{
    cut_encode_v(frame, raw, f, P, n, keep, dim);
    for (int s = 0; s < n; s++)
        for (int d = 0; d < dim && (keep >> s & 1); d++) ((uint16_t *)frame)[s * dim + d] &= 0xfff0;
}

const wn_format test_low = {
    .name = "test-low", .lag = 1, .k_repack = WN_REPACK_COPY, .v_repack = WN_REPACK_COPY,
    .k_bytes = cut_bytes, .v_bytes = cut_bytes, .get_k = cut_get, .get_v = cut_get,
    .copy_k = cut_copy, .copy_v = cut_copy, .encode_k = low_encode_k, .encode_v = low_encode_v,
};
const wn_format test_fixed_lag2 = CUT("test-fixed2", 2, WN_REPACK_RAW_ONLY, NULL);
