/* A calibration comes back from its file as it was written, to the last digit a half has; what is
 * damaged, foreign, cut short or not finite is refused with a sentence, whatever its checksum
 * says. */
#include "tests/support/calibration.h"
#include "tests/unit/check.h"

#include "kernel/elem.h"

#include <math.h>
#include <unistd.h>
#include <xxhash.h>

enum { LANES = 3 };
static const wn_lane_dims dims[LANES] = { { 16, 16 }, { 16, 8 }, { 20, 16 } };
static const uint8_t fp[16] = { 1, 2, 3 };
static char path[128];

/* The file's bytes; the caller frees. */
static uint8_t *file_of(const wn_calibration *c, size_t *n)
{
    wn_err err = { 0 };
    assert_int_equal(wn_calibration_write(c, path, &err), WN_OK);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint8_t *b = malloc(1 << 20);
    *n = fread(b, 1, 1 << 20, f);
    fclose(f);
    return b;
}

static void comes_back_as_written(void **state)
{
    (void)state;
    wn_err err = { 0 };
    wn_calibration *c = test_calibration(dims, LANES, fp, 1), *again;
    assert_int_equal(wn_calibration_write(c, path, &err), WN_OK);
    assert_int_equal(wn_calibration_read(&again, path, &err), WN_OK);
    assert_string_equal(again->id, c->id);
    assert_int_equal(again->n_books, c->n_books);
    assert_int_equal(again->n_tokens, 1024);
    for (int i = 0; i < c->n_books; i++)
        for (int l = 0; l < LANES; l++)
            for (int v = 0; v < 2; v++) {
                const wn_calibrated *f = c->books[i].format->calibrated;
                assert_ptr_equal(again->books[i].format, c->books[i].format);
                assert_memory_equal(wn_calibration_numbers(again, &again->books[i], l, v),
                                    wn_calibration_numbers(c, &c->books[i], l, v),
                                    sizeof(float) * f->numbers(v ? dims[l].v : dims[l].k, v));
            }
    wn_calibration *other = test_calibration(dims, LANES, fp, 2);
    assert_string_not_equal(other->id, c->id);          /* other numbers, another name */
    wn_calibration_close(other);
    wn_calibration_close(again);
    wn_calibration_close(c);
}

static void only_its_model_fits(void **state)
{
    (void)state;
    static const uint8_t other[16] = { 9 };
    wn_lane_dims wide[LANES] = { { 16, 16 }, { 16, 16 }, { 20, 16 } };
    wn_err err = { 0 };
    wn_calibration *c = test_calibration(dims, LANES, fp, 1);
    assert_int_equal(wn_calibration_fits(c, fp, dims, LANES, &err), WN_OK);
    assert_int_equal(wn_calibration_fits(c, other, dims, LANES, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "another model"));
    assert_int_equal(wn_calibration_fits(c, fp, dims, LANES - 1, &err), WN_EFORMAT);
    assert_int_equal(wn_calibration_fits(c, fp, wide, LANES, &err), WN_EFORMAT);
    wn_calibration_close(c);
}

static void damage_is_refused(void **state)
{
    (void)state;
    size_t n;
    wn_err err = { 0 };
    wn_calibration *c = test_calibration(dims, LANES, fp, 1), *got;
    uint8_t *b = file_of(c, &n);
    assert_true(n > 1000);
    for (size_t cut = 0; cut < n; cut += 1 + cut / 7) {
        assert_int_not_equal(wn_calibration_parse(&got, b, cut, &err), WN_OK);
        assert_null(got);
    }
    for (size_t i = 0; i < n; i += 1 + i / 5) {
        b[i] ^= 0x20;
        assert_int_not_equal(wn_calibration_parse(&got, b, n, &err), WN_OK);
        b[i] ^= 0x20;
    }
    free(b);
    wn_calibration_close(c);
}

/* The header's checksum made right again: the payload is still not believed. */
static void sign(uint8_t *b, size_t n)
{
    XXH128_canonical_t sum;
    XXH3_state_t *x = XXH3_createState();
    for (int i = 0; i < 8; i++) b[64 + i] = (uint8_t)((uint64_t)(n - 96) >> 8 * i);
    XXH3_128bits_reset(x);
    XXH3_128bits_update(x, b + 96, n - 96);
    XXH3_128bits_update(x, b, 80);
    XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(x));
    memcpy(b + 80, sum.digest, 16);
    XXH3_freeState(x);
}

static void what_a_checksum_cannot_know(void **state)
{
    (void)state;
    static const struct { size_t at; uint8_t with[2]; const char *says;
    } cases[] = {
        { 0, { 2, 0 }, "version 2" },
        { 4, { 0, 0 }, "0 lanes" },
        { 4, { 4, 0 }, NULL },
        { 32, { 200, 0 }, "200 formats" },
        { 32, { 2, 0 }, "left over" },
        { 32, { 12, 0 }, NULL },
        { 40, { 0, 0 }, "lane 0" },
        { 40, { 0, 8 }, "lane 0" },
        { 40, { 18, 0 }, NULL },
        { 52, { 'x', 'q' }, "\"xq4\"" },
        { 68, { 0, 0x7c }, "not finite" },
        { 68, { 1, 0xfe }, "not finite" },
    };
    size_t n;
    wn_err err = { 0 };
    wn_calibration *c = test_calibration(dims, LANES, fp, 1), *got;
    uint8_t *b = file_of(c, &n), *x = malloc(n);
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        memcpy(x, b, n);
        memcpy(x + 96 + cases[i].at, cases[i].with, 2);
        sign(x, n);
        if (!wn_calibration_parse(&got, x, n, &err)) fail_msg("case %zu is accepted", i);
        if (cases[i].says && !strstr(err.text, cases[i].says))
            fail_msg("case %zu: %s", i, err.text);
    }
    memcpy(x, b, n);
    sign(x, n - 2);
    assert_int_equal(wn_calibration_parse(&got, x, n - 2, &err), WN_EFORMAT);
    free(b), free(x);
    wn_calibration_close(c);
}

int main(void)
{
    test_path(path, sizeof path, "calibration");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_as_written),
        cmocka_unit_test(only_its_model_fits),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(what_a_checksum_cannot_know),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}
