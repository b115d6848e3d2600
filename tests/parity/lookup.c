/* Every table this CPU runs reads codes as the scalar one does, bit for bit: points and levels of
 * any number of slots, turning by angles that follow each other or do not, mixing any width of head
 * by any number of queries; with codes, weights and tables that end right before an unreadable
 * page. */
#include "tests/unit/check.h"
#include "tests/support/fence.h"

#include "kernel/lookup.h"

static const wn_lookup_ops *ref = &wn_lookup_ops_scalar;

enum { STRIDE = 80, DIM = 144 };

static float *floats(fenced *f, size_t n, uint64_t *seed)
{
    *f = fence(n * 4);
    float *x = (float *)(void *)f->p;
    for (size_t i = 0; i < n; i++) x[i] = test_randf(seed) * 3;
    return x;
}

static uint16_t *halves(fenced *f, size_t n, uint64_t *seed)
{
    *f = fence(n * 2);
    uint16_t *x = (uint16_t *)(void *)f->p;
    for (size_t i = 0; i < n; i++) x[i] = wn_elem_to_f16(test_randf(seed) * 3);
    return x;
}

static uint8_t *bytes(fenced *f, size_t n, uint64_t *seed)
{
    *f = fence(n);
    for (size_t i = 0; i < n; i++) f->p[i] = (char)test_rand(seed);
    return (uint8_t *)f->p;
}

#define EACH_TABLE(ops)                                        \
    const wn_kernels *all_[WN_KERNELS_MAX];                    \
    for (int k_ = 1, n_ = wn_kernels_all(all_); k_ < n_; k_++) \
        for (const wn_lookup_ops *ops = all_[k_]->lookup; ops; ops = NULL)

static void columns_have_the_scalar_bits(void **state)
{
    (void)state;
    uint64_t seed = 41;
    EACH_TABLE(ops)
        for (int n = 1; n <= 64; n += 1 + n / 5)
            for (int c = 2; c <= 8; c *= 2) {
                static float a[8][STRIDE], b[8][STRIDE];
                fenced fp, fc, fh, fl;
                const uint16_t *points = halves(&fp, (size_t)(256 * c), &seed);
                const uint8_t *codes = bytes(&fc, (size_t)n, &seed),
                              *high = bytes(&fh, (size_t)n, &seed);
                int channels = c > 4 ? 2 : c, bits = channels == 2 ? 4 : 2;
                const float *levels = floats(&fl, (size_t)channels * WN_LOOKUP_LEVELS, &seed);
                ops->points(a[0], STRIDE, points, c, codes, n);
                ref->points(b[0], STRIDE, points, c, codes, n);
                for (int k = 0; k < c; k++)
                    assert_memory_equal(a[k], b[k], sizeof(float) * (size_t)n);
                for (int with = 0; with <= (bits == 2); with++) {
                    ops->levels(a[0], STRIDE, levels, channels, bits, codes, with ? high : NULL,
                                n % 2 * 4, n);
                    ref->levels(b[0], STRIDE, levels, channels, bits, codes, with ? high : NULL,
                                n % 2 * 4, n);
                    for (int k = 0; k < channels; k++)
                        assert_memory_equal(a[k], b[k], sizeof(float) * (size_t)n);
                }
                unfence(&fp), unfence(&fc), unfence(&fh), unfence(&fl);
            }
}

/* way 0: one after the other; 1: over a multiple of 64; 2: anywhere. */
static void turning_has_the_scalar_bits(void **state)
{
    (void)state;
    enum { UPPER = 9 };
    uint64_t seed = 42;
    EACH_TABLE(ops)
        for (int t = 0; t < 60; t++) {
            static float a[DIM][STRIDE], b[DIM][STRIDE];
            int pairs = 1 + (int)(test_rand(&seed) % (DIM / 2)),
                n = 1 + (int)(test_rand(&seed) % 64), way = t % 3;
            fenced fl, fh, fr, fu;
            wn_lookup_turn by = { .stride = STRIDE, .n = n, .n_pairs = pairs, .step = 1 + t % 2,
                                  .to = t % 2 ? 1 : pairs };
            by.low = floats(&fl, (size_t)pairs * 2 * WN_LOOKUP_TURN, &seed);
            by.high = floats(&fh, (size_t)pairs * 2 * UPPER, &seed);
            fr = fence((size_t)n * 4), fu = fence((size_t)n * 4);
            int32_t *rest = (int32_t *)(void *)fr.p, *upper = (int32_t *)(void *)fu.p;
            for (int s = 0; s < n; s++) {
                int pos = way == 2 ? (int)(test_rand(&seed) % (64 * UPPER)) : s + (way ? 40 : 0);
                rest[s] = pos % 64, upper[s] = pos / 64;
            }
            by.rest = rest, by.upper = upper;
            for (int d = 0; d < DIM; d++)
                for (int s = 0; s < STRIDE; s++) a[d][s] = b[d][s] = test_randf(&seed);
            by.x = a[0], ops->turn(&by);
            by.x = b[0], ref->turn(&by);
            assert_memory_equal(a, b, sizeof a);        /* nothing else is written */
            unfence(&fl), unfence(&fh), unfence(&fr), unfence(&fu);
        }
}

static void mixing_has_the_scalar_bits(void **state)
{
    (void)state;
    uint64_t seed = 43;
    EACH_TABLE(ops)
        for (int t = 0; t < 90; t++) {
            int c = 2 << t % 3, D = t % 2 ? 16 * (1 + t % 9) : 1 + (int)(test_rand(&seed) % DIM),
                groups = (D + c - 1) / c;
            int n = 1 + (int)(test_rand(&seed) % 64), rows = 1 + t % 7;
            fenced fa, fb, fw, fc, fp;
            wn_lookup_mix m = { .acc_stride = (size_t)D + 3, .w_stride = (size_t)n, .n_q = rows,
                                .n = n, .head_dim = D, .code_stride = (size_t)groups, .c = c };
            size_t bytes_of = sizeof(float) * ((size_t)(rows - 1) * m.acc_stride + (size_t)D);
            float *a = floats(&fa, bytes_of / 4, &seed);
            fb = fence(bytes_of);
            memcpy(fb.p, a, bytes_of);
            m.w = floats(&fw, (size_t)(rows * n), &seed);
            m.codes = bytes(&fc, (size_t)(n * groups), &seed);
            m.points = halves(&fp, (size_t)(groups * 256 * c), &seed);
            m.acc = a, ops->mix(&m);
            m.acc = (float *)(void *)fb.p, ref->mix(&m);
            assert_memory_equal(a, fb.p, bytes_of);
            unfence(&fa), unfence(&fb), unfence(&fw), unfence(&fc), unfence(&fp);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_have_the_scalar_bits),
        cmocka_unit_test(turning_has_the_scalar_bits),
        cmocka_unit_test(mixing_has_the_scalar_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
