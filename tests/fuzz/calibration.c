/* tests/fuzz/calibration.c - files that say they are a calibration. What is read is sound: its
 * numbers can be found and are finite, reading by every book of it is made ready, and now and then
 * it is written and read again, the same. The header is set right first, so that the fuzzer gets
 * behind it. */
#include "base/alloc.h"
#include "page/book.h"
#include "store/calibration.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD = 96 };

/* The length and the checksum that the rest asks for. */
static void sign(uint8_t *b, size_t n)
{
    XXH128_canonical_t sum;
    XXH3_state_t *x = XXH3_createState();
    for (int i = 0; i < 8; i++) b[64 + i] = (uint8_t)((uint64_t)(n - HEAD) >> 8 * i);
    XXH3_128bits_reset(x);
    XXH3_128bits_update(x, b + HEAD, n - HEAD);
    XXH3_128bits_update(x, b, 80);
    XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(x));
    memcpy(b + 80, sum.digest, 16);
    XXH3_freeState(x);
}

static void check_books(const wn_calibration *c)
{
    for (int i = 0; i < c->n_books; i++)
        for (int l = 0; l < c->n_lanes; l++)
            for (int v = 0; v < 2; v++) {
                const wn_format *f = c->books[i].format;
                int dim = v ? c->dims[l].v : c->dims[l].k;
                wn_book b = { .x = wn_calibration_numbers(c, &c->books[i], l, v), .of_v = v };
                for (size_t k = 0; k < f->calibrated->numbers(dim, v); k++)
                    if (!isfinite(b.x[k])) abort();
                void *read = wn_alloc_aligned(f->calibrated->read_bytes(dim, v));
                if (!read) abort();
                wn_book_prepare(&b, f, read, dim);
                wn_free(read);
            }
}

/* Written and read again it is the same. */
static void check_file(const wn_calibration *c)
{
    char path[64];
    wn_err err = { 0 };
    wn_calibration *again;
    snprintf(path, sizeof path, "/tmp/winnow-fuzz-%ld.calibration", (long)getpid());
    if (wn_calibration_write(c, path, &err) || wn_calibration_read(&again, path, &err)) abort();
    if (again->n_lanes != c->n_lanes || again->n_books != c->n_books ||
        memcmp(again->dims, c->dims, sizeof *c->dims * (size_t)c->n_lanes))
        abort();
    for (int i = 0; i < c->n_books; i++)
        for (int l = 0; l < c->n_lanes; l++)
            for (int v = 0; v < 2; v++) {
                size_t n = c->books[i].format->calibrated->numbers(v ? c->dims[l].v : c->dims[l].k,
                                                                   v);
                if (memcmp(wn_calibration_numbers(c, &c->books[i], l, v),
                           wn_calibration_numbers(again, &again->books[i], l, v),
                           n * sizeof(float)))
                    abort();
            }
    unlink(path);
    wn_calibration_close(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint64_t accepted;
    wn_err err = { 0 };
    wn_calibration *c;
    uint8_t *b = malloc(size + 1);
    if (!b) return 0;
    if (size) memcpy(b, data, size);
    if (size >= HEAD) sign(b, size);
    if (wn_calibration_parse(&c, b, size, &err)) {
        if (c || !*err.text) abort();
        free(b);
        return 0;
    }
    check_books(c);
    if (accepted++ % 256 == 0) check_file(c);   /* a file is synced, which takes longer than all
                                                   else */
    wn_calibration_close(c);
    free(b);
    return 0;
}
