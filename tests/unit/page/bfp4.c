/* Block floating point: mantissas and exponents are those of the definition, and to keys it does
 * not matter which channels are the large ones, since they are put together. */
#include "tests/unit/check.h"

#include "page/format.h"

#include <math.h>

enum { P = 64, D = 128 };

typedef float rows[P][D];

static void through(bool is_k, rows x, rows y)
{
    const wn_format *f = wn_format_find("bfp4");
    void *raw = calloc(1, wn_format_f32.k_bytes(P, D)),
         *frame = malloc((is_k ? f->k_bytes : f->v_bytes)(P, D));
    (is_k ? wn_format_f32.put_k : wn_format_f32.put_v)(raw, P, 0, x[0], D, P, D);
    (is_k ? f->encode_k : f->encode_v)(frame, raw, &wn_format_f32, P, P, ~0ull, D);
    for (int s = 0; s < P; s++) (is_k ? f->get_k : f->get_v)(frame, P, s, y[s], D);
    free(raw), free(frame);
}

/* By hand: the largest is 0.9, so the exponent is -1 and a step 0.125. */
static void numbers_are_those_of_the_definition(void **state)
{
    (void)state;
    static rows x, y;
    static const float in[] = { 0.9f, -0.26f, 0.03f, 0.5f, -1, 0.99f, 0.1875f, 0.0625f };
    static const float fine[] = { 0.875f, -0.25f, 0, 0.5f },
                       coarse[] = { 1, -0.25f, 0, 0.5f, -1, 1, 0.25f, 0 };
    for (int i = 0; i < 4; i++) x[1][i] = in[i];
    for (int i = 0; i < 8; i++) x[2][32 + i] = in[i];   /* -1: exponent 0, steps of 0.25 */
    for (int i = 0; i < 4; i++) x[3][64 + i] = in[i] * 0x1p-20f;
    for (int is_k = 0; is_k < 2; is_k++) {
        through(is_k, x, y);
        for (int i = 0; i < 4; i++) assert_true(y[1][i] == fine[i]);
        for (int i = 0; i < 4; i++) assert_true(y[3][64 + i] == fine[i] * 0x1p-20f);
        for (int i = 0; i < 8; i++) assert_true(y[2][32 + i] == coarse[i]);
    }
}

static bool large(int d) { return d % 32 == 5; }

/* Of the channels that are not large. */
static double squares(rows x, rows y)
{
    double sum = 0;
    for (int s = 0; s < P; s++)
        for (int d = 0; d < D; d++) sum += large(d) ? 0 : pow((double)x[s][d] - (double)y[s][d], 2);
    return sum;
}

/* Channels of sizes of their own, then the same in another order: keys read the same, channel for
 * channel. Values, which stay in their order, lose to every large channel the 31 beside it. */
static void the_order_of_channels_is_nothing_to_keys(void **state)
{
    (void)state;
    static rows x, y, moved, z;
    uint64_t seed = 71;
    for (int d = 0; d < D; d++)
        for (int s = 0; s < P; s++)
            x[s][d] = test_randf(&seed) * (large(d) ? 40 : 1) * (1 + (float)d / D);
    for (int s = 0; s < P; s++)
        for (int d = 0; d < D; d++) moved[s][d * 29 % D] = x[s][d];
    through(true, x, y), through(true, moved, z);
    for (int s = 0; s < P; s++)
        for (int d = 0; d < D; d++) assert_true(z[s][d * 29 % D] == y[s][d]);
    double sorted = squares(x, y);
    through(false, x, y);
    assert_true(sorted < 0.5 * squares(x, y));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_those_of_the_definition),
        cmocka_unit_test(the_order_of_channels_is_nothing_to_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
