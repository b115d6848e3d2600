/* tests/support/calibration.c - see calibration.h. */
#include "tests/support/calibration.h"
#include "tests/unit/check.h"

#include "kernel/elem.h"
#include "page/cq.h"

#include <math.h>
#include <unistd.h>

void test_book_numbers(const wn_format *f, float *x, int head_dim, bool of_v, uint64_t *seed)
{
    size_t n = f->calibrated->numbers(head_dim, of_v);
    for (size_t i = 0; i < n; i++) {
        bool weight = i < (size_t)head_dim;
        x[i] = wn_elem_from_f16(wn_elem_to_f16(weight ? 0.5f + fabsf(test_randf(seed)) : 2 * test_randf(seed)));
    }
}

wn_calibration *test_calibration(const wn_lane_dims *dims, int n_lanes, const uint8_t fingerprint[16], uint64_t seed)
{
    wn_calibration *c, *again = NULL;
    wn_err err = { 0 };
    char path[128];
    const char *tmp = getenv("TMPDIR");
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
                test_book_numbers(f, wn_calibration_numbers(c, b, l, v), v ? dims[l].v : dims[l].k, v, &seed);
    }
    snprintf(path, sizeof path, "%s/winnow-test-%ld.calibration", tmp ? tmp : "/tmp", (long)getpid());
    if (wn_calibration_write(c, path, &err) || wn_calibration_read(&again, path, &err)) fail_msg("calibration: %s", err.text);
    unlink(path);
    wn_calibration_close(c);
    return again;
}
