/* tests/support/calibration.h - calibrations made up for tests. */
#ifndef WN_TEST_CALIBRATION_H
#define WN_TEST_CALIBRATION_H

#include "page/book.h"
#include "store/calibration.h"

/* A book's numbers for one side: points, weights and levels like those of rows of ordinary size. */
void test_book_numbers(const wn_format *f, float *x, int head_dim, bool of_v, uint64_t *seed);
/* A book of such numbers, ready for reading; they go with test_book_release(). */
wn_book test_book(const wn_format *f, int head_dim, bool of_v, uint64_t *seed);
void test_book_release(wn_book *b);
/* Books for all calibrated formats, read back from their file as any other. */
wn_calibration *test_calibration(const wn_lane_dims *dims, int n_lanes,
                                 const uint8_t fingerprint[16], uint64_t seed);

#endif
