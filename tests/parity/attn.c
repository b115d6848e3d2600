/* Every attention table this CPU runs gives the bits of the scalar one: products at odd
 * shapes with buffers that end right before an unreadable page, putting rows in, exp and
 * its sums, soft cap, merging, dividing. */
#include "tests/unit/check.h"
#include "tests/support/fence.h"

#include "kernel/attn.h"

#include <math.h>

extern const wn_attn_ops wn_attn_ops_scalar;
static const wn_attn_ops *ref = &wn_attn_ops_scalar;

static float *fenced_floats(fenced *f, size_t n, uint64_t *seed)
{
    *f = fence(n * 4);
    float *x = (float *)(void *)f->p;
    for (size_t i = 0; i < n; i++) x[i] = test_randf(seed) * 3;
    return x;
}

/* One product, by table and by scalar; c has c_pad floats between rows that must stay. */
static void product_once(const wn_attn_ops *ops, wn_elem e, int rows, int cols, int depth,
                         int b_pad, bool add, bool with_tmp, uint64_t *seed)
{
    fenced fa, fb, fc, fd, ft = { 0 };
    size_t cs = (size_t)cols + 3, bs = (size_t)(cols + b_pad),
           nb = (size_t)(depth - 1) * bs + (size_t)cols;
    float *a = fenced_floats(&fa, (size_t)rows * (size_t)depth, seed);
    float *c = fenced_floats(&fc, (size_t)(rows - 1) * cs + (size_t)cols, seed);
    size_t nc = (size_t)(rows - 1) * cs + (size_t)cols;
    fd = fence(nc * 4);
    memcpy(fd.p, c, nc * 4);
    fb = fence(nb * wn_elem_bytes(e));
    for (size_t i = 0; i < nb; i++) wn_elem_put(e, fb.p, i, test_randf(seed));
    if (with_tmp) ft = fence(wn_attn_tmp_bytes(cols, depth));
    wn_attn_product p = {
        .c = c, .c_stride = cs, .a = a, .a_stride = (size_t)depth, .b = fb.p, .b_stride = bs,
        .n_rows = rows, .n_cols = cols, .depth = depth, .add = add,
        .tmp = with_tmp ? (float *)(void *)ft.p : NULL,
        .ahead = fb.p, .ahead_bytes = nb * wn_elem_bytes(e),
    };
    ops->product[e](&p);
    p.c = (float *)(void *)fd.p;
    p.tmp = NULL;
    ref->product[e](&p);
    if (memcmp(c, fd.p, nc * 4))
        fail_msg("product differs: elem %d rows %d cols %d depth %d add %d tmp %d", e, rows, cols,
                 depth, add, with_tmp);
    unfence(&fa), unfence(&fb), unfence(&fc), unfence(&fd);
    if (with_tmp) unfence(&ft);
}

static void products_have_the_scalar_bits(void **state)
{
    (void)state;
    static const int dims[] = { 32, 64, 80, 96, 128, 256, 20 };
    const wn_kernels *all[WN_KERNELS_MAX];
    uint64_t seed = 1;
    for (int k = 1, n = wn_kernels_all(all); k < n; k++)
        for (int e = 0; e < WN_ELEMS; e++)
            for (int t = 0; t < 140; t++) {
                int rows = 1 + (int)(test_rand(&seed) % 14), d = dims[t % 7];
                int slots = t % 3 ? 1 + (int)(test_rand(&seed) % 64) : 64;
                bool mix = t & 1, tmp = test_rand(&seed) % 3 == 0;
                product_once(all[k]->attn, (wn_elem)e, rows, mix ? d : slots, mix ? slots : d,
                             mix ? 0 : 64 - slots, mix, tmp, &seed);
            }
}

/* Values that rounding, overflow and NaN treat specially, then random bits. */
static float odd_float(int i, uint64_t *seed)
{
    static const float odd[] = { 0.0f,     -0.0f,     1.0f,    65504.0f,       65519.996f,
                                 65520.0f, -70000.0f, 6e-8f,   2.9e-8f,        2.98023224e-8f,
                                 6.1e-5f,  1e-40f,    3.4e38f, 1.00048828125f, 1.00146484375f };
    if (i < (int)WN_COUNT(odd)) return odd[i];
    if (i == WN_COUNT(odd)) return INFINITY;
    if (i == WN_COUNT(odd) + 1) return NAN;
    uint32_t bits = (uint32_t)test_rand(seed);
    if (i & 1) bits = (bits & 0x8fffffffu) | 0x30000000u;       /* about the size of a half */
    return wn_elem_from_bits(bits);
}

static void put_has_the_scalar_bits(void **state)
{
    (void)state;
    const wn_kernels *all[WN_KERNELS_MAX];
    uint64_t seed = 2;
    for (int k = 1, n = wn_kernels_all(all); k < n; k++)
        for (int e = 0; e < WN_ELEMS; e++)
            for (int t = 0; t < 60; t++) {
                int rows = 1 + (int)(test_rand(&seed) % 40), d = 1 + (int)(test_rand(&seed) % 100),
                    P = 64;
                int slot = (int)(test_rand(&seed) % (uint64_t)(P - rows + 1));
                size_t elems = (size_t)P * (size_t)d, bytes = elems * wn_elem_bytes((wn_elem)e);
                fenced fx, f1 = fence(bytes), f2 = fence(bytes);
                float *x = fenced_floats(&fx, (size_t)rows * (size_t)d, &seed);
                for (int i = 0; i < rows * d; i++) x[i] = odd_float(i, &seed);
                size_t w = wn_elem_bytes((wn_elem)e);
                all[k]->attn->put_cols[e](f1.p + (size_t)slot * w, (size_t)P, x, (size_t)d, rows,
                                          d);
                ref->put_cols[e](f2.p + (size_t)slot * w, (size_t)P, x, (size_t)d, rows, d);
                assert_memory_equal(f1.p, f2.p, bytes);
                for (int s = 0; s < rows; s++) {
                    size_t at = (size_t)(slot + s) * (size_t)d * w;
                    all[k]->attn->put_row[e](f1.p + at, x + s * d, d);
                    ref->put_row[e](f2.p + at, x + s * d, d);
                }
                assert_memory_equal(f1.p, f2.p, bytes);
                unfence(&fx), unfence(&f1), unfence(&f2);
            }
}

/* Columns of a page, of odd values and of zeros; those beside them are left alone. */
static void unit_columns_have_the_scalar_bits(void **state)
{
    (void)state;
    const wn_kernels *all[WN_KERNELS_MAX];
    uint64_t seed = 5;
    for (int k = 1, nk = wn_kernels_all(all); k < nk; k++)
        for (int e = 0; e < WN_ELEMS; e++)
            for (int n = 1; n <= 64; n++) {
                int d = 1 + (int)(test_rand(&seed) % 100);
                size_t elems = (size_t)(d - 1) * 64 + (size_t)n;
                fenced fx, fs = fence(elems * wn_elem_bytes((wn_elem)e)), f1, f2;
                float *x = fenced_floats(&fx, elems, &seed), *out = fenced_floats(&f1, elems, &seed),
                      *same = fenced_floats(&f2, elems, &seed);
                memcpy(same, out, elems * sizeof *same);
                for (int i = 0; i < d; i++) x[i * 64 + n / 2] = n & 1 ? 0 : odd_float(i, &seed);
                for (size_t i = 0; i < elems; i++) wn_elem_put((wn_elem)e, fs.p, i, x[i]);
                all[k]->attn->unit_cols[e](out, 64, fs.p, 64, n, d);
                ref->unit_cols[e](same, 64, fs.p, 64, n, d);
                for (size_t i = 0; i < elems; i++)      /* a NaN's payload is free */
                    if (isnan(out[i]) && isnan(same[i])) out[i] = same[i] = 0;
                assert_memory_equal(out, same, elems * sizeof *out);
                if (e == WN_ELEM_F32) {
                    all[k]->attn->unit_cols[e](x, 64, x, 64, n, d);
                    for (size_t i = 0; i < elems; i++)
                        if (i % 64 < (size_t)n && !isnan(x[i])) assert_true(x[i] == same[i]);
                }
                unfence(&fx), unfence(&fs), unfence(&f1), unfence(&f2);
            }
}

static void softmax_pieces_have_the_scalar_bits(void **state)
{
    (void)state;
    const wn_kernels *all[WN_KERNELS_MAX];
    uint64_t seed = 3;
    for (int k = 1, nk = wn_kernels_all(all); k < nk; k++) {
        const wn_attn_ops *ops = all[k]->attn;
        for (int n = 0; n < 100; n++) {
            fenced fx, fy;
            float *x = fenced_floats(&fx, (size_t)n, &seed),
                  *y = fenced_floats(&fy, (size_t)n, &seed);
            for (int i = 0; i < n; i++) x[i] *= 30;
            if (n > 2) x[n / 2] = -INFINITY;
            if (n > 40) x[n / 3] = NAN;
            memcpy(y, x, 4 * (size_t)n);
            float m = ops->max(x, n);
            assert_true(m == ref->max(x, n));
            ops->softcap(x, 20, n), ref->softcap(y, 20, n);
            if (n <= 40) assert_memory_equal(x, y, 4 * (size_t)n);  /* a NaN's payload is free */
            if (n > 40) x[n / 3] = y[n / 3] = -INFINITY;
            assert_memory_equal(x, y, 4 * (size_t)n);
            float c[16] = { 1 }, d[16] = { 1 };
            int n16 = n & ~15;
            ops->exp_sum(x, m, n16, c), ref->exp_sum(y, m, n16, d);
            assert_memory_equal(x, y, 4 * (size_t)n);
            assert_memory_equal(c, d, sizeof c);
            for (int i = 0; i < n; i++) x[i] = test_randf(&seed);
            float *acc = fenced_floats(&fx, (size_t)n, &seed),
                  *acc2 = fenced_floats(&fy, (size_t)n, &seed);
            memcpy(acc2, acc, 4 * (size_t)n);
            ops->merge(acc, 0.3f, x, 0.7f, n), ref->merge(acc2, 0.3f, x, 0.7f, n);
            assert_memory_equal(acc, acc2, 4 * (size_t)n);
            if (n > 3) acc[n - 1] = acc2[n - 1] = n & 1 ? NAN : 1, acc[1] = acc2[1] = -0.0f;
            assert_int_equal(ops->divide(acc, acc, 3, n), ref->divide(acc2, acc2, 3, n));
            if (n > 3) acc[n - 1] = acc2[n - 1] = 0;
            assert_memory_equal(acc, acc2, 4 * (size_t)n);
        }
    }
}

/* tanh within 4 ulp of the double one, near 0 too. */
/* Sums in the order of positions, whatever the order of entries: of a split where slots are
 * missing, and of merged slots behind the others. */
static void sums_by_index_have_the_scalar_bits(void **state)
{
    (void)state;
    enum { STRIDE = WN_SUM_AT + 32 };
    const wn_kernels *all[WN_KERNELS_MAX];
    _Alignas(64) float room[4 * WN_SUM_AT];
    float x[4 * STRIDE], want[4][16], got[4][16];
    int16_t index[WN_SUM_AT];
    uint64_t seed = 5;
    for (int k = 0, nk = wn_kernels_all(all); k < nk; k++)
        for (int turn = 0; turn < 200; turn++) {
            int n = 0, rows = 1 + turn % 4, share = 1 + turn % 7;
            for (int rest = 0; rest < 2; rest++)
                for (int at = 0; at < WN_SUM_AT; at++)
                    if ((at * 37 % 101 < 20) == rest && at * 59 % 7 < share)
                        index[n++] = (int16_t)at;
            for (int i = 0; i < 4 * STRIDE; i++) x[i] = (float)exp(10 * test_randf(&seed));
            memset(want, 0, sizeof want);
            for (int i = 0; i < rows; i++)
                for (int at = 0; at < WN_SUM_AT; at++)
                    for (int e = 0; e < n; e++)
                        if (index[e] == at) want[i][at % 16] += x[i * STRIDE + e];
            memset(room, 0xff, sizeof room);
            all[k]->attn->sum_at(x, STRIDE, rows, index, n, room, got);
            assert_memory_equal(got, want, sizeof want[0] * (size_t)rows);
        }
}

static void softcap_is_tanh(void **state)
{
    (void)state;
    for (float y = -12; y < 12; y += 0.00371f) {
        float x = y;
        ref->softcap(&x, 1, 1);
        assert_true(fabs((double)x - tanh((double)y)) <= fabs(tanh((double)y)) * 4 * 6e-8 + 1e-30);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_have_the_scalar_bits),
        cmocka_unit_test(put_has_the_scalar_bits),
        cmocka_unit_test(unit_columns_have_the_scalar_bits),
        cmocka_unit_test(softmax_pieces_have_the_scalar_bits),
        cmocka_unit_test(sums_by_index_have_the_scalar_bits),
        cmocka_unit_test(softcap_is_tanh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
