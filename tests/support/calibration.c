/* tests/support/calibration.c - see calibration.h. */
#include "tests/support/calibration.h"
#include "tests/unit/check.h"

#include "kernel/elem.h"
#include "page/nuq.h"

#include <math.h>
#include <unistd.h>

void test_book_numbers(const wn_format *f, float *x, int head_dim, bool of_v, uint64_t *seed)
{
    size_t n = f->calibrated->numbers(head_dim, of_v), middles = wn_nuq_middles_at(head_dim),
           halves = wn_nuq_halves_at(head_dim);
    bool sparse;
    int bits = wn_nuq_bits(f, &sparse), count = 1 << bits;
    for (size_t i = 0; i < n; i++) {
        bool weight = i < (size_t)head_dim;
        x[i] = wn_elem_from_f16(
            wn_elem_to_f16(weight ? 0.5f + fabsf(test_randf(seed)) : 2 * test_randf(seed)));
    }
    for (size_t i = 0; bits && !of_v && i < (size_t)head_dim; i++)
        x[middles + i] /= 4, x[halves + i] = 1 + fabsf(x[halves + i]);
    for (int u = 0; bits && u < count; u++)
        x[wn_nuq_levels_at(head_dim, of_v) + (size_t)u] = (float)(2 * u + 1 - count) / (float)count;
}

wn_book test_book(const wn_format *f, int head_dim, bool of_v, uint64_t *seed)
{
    float *x = malloc(f->calibrated->numbers(head_dim, of_v) * sizeof *x);
    wn_book b = { .x = x, .of_v = of_v };
    test_book_numbers(f, x, head_dim, of_v, seed);
    wn_book_prepare(&b, f, aligned_alloc(64, f->calibrated->read_bytes(head_dim, of_v)), head_dim);
    return b;
}

void test_book_release(wn_book *b)
{
    free((void *)(uintptr_t)b->x);
    free((void *)(uintptr_t)b->read);
}

wn_calibration *test_calibration(const wn_lane_dims *dims, int n_lanes,
                                 const uint8_t fingerprint[16], uint64_t seed)
{
    wn_calibration *c, *again = NULL;
    wn_err err = { 0 };
    char path[128];
    assert_int_equal(wn_calibration_new(&c, n_lanes, &err), WN_OK);
    memcpy(c->dims, dims, sizeof *dims * (size_t)n_lanes);
    memcpy(c->fingerprint, fingerprint, 16);
    c->n_tokens = c->context = 1024;
    for (int i = 0; wn_format_at(i); i++) {
        const wn_format *f = wn_format_at(i);
        if (!f->calibrated) continue;
        assert_int_equal(wn_calibration_add(c, f, &err), WN_OK);
        const wn_calibration_books *b = &c->books[c->n_books - 1];
        for (int l = 0; l < n_lanes; l++)
            for (int v = 0; v < 2; v++)
                test_book_numbers(f, wn_calibration_numbers(c, b, l, v), v ? dims[l].v : dims[l].k,
                                  v, &seed);
    }
    test_path(path, sizeof path, "a.calibration");
    if (wn_calibration_write(c, path, &err) || wn_calibration_read(&again, path, &err))
        fail_msg("calibration: %s", err.text);
    unlink(path);
    wn_calibration_close(c);
    return again;
}
