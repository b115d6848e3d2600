/* store/calibration.h - the books of a model's lanes, as a file beside it.
 *
 * `winnow calibrate` (eval/calibrate.h) reads a text and finds, for each calibrated format, a
 * book for K and for V of every lane (page/book.h). The file is a record (store/record.h) of kind
 * WN_RECORD_CALIBRATION: its header names the model and has a checksum over everything, which
 * names the calibration; sessions go by it. The payload, little-endian:
 *
 *     offset  size  field
 *          0     4  version of the payload (1)
 *          4     4  lanes, n
 *          8     4  tokens that were read
 *         12     4  tokens of a text
 *         16    16  XXH3-128 (canonical) of the tokens, 4 bytes each
 *         32     4  formats
 *         36     4  0
 *         40   4 n  of each lane: channels of K (2), of V (2)
 *          -     -  of each format: its name (16, zero-padded); then of each lane the numbers of K's
 *                   book and of V's, halves
 *
 * Reading checks everything: versions, sizes, names, every number finite. In memory numbers
 * are f32 and what the file says: who writes one reads it back before he uses it.
 */
#ifndef WN_STORE_CALIBRATION_H
#define WN_STORE_CALIBRATION_H

#include "page/format.h"
#include "store/record.h"

enum { WN_CALIBRATION_VERSION = 1, WN_CALIBRATION_ID = 33, WN_CALIBRATED_MAX = 16 };

typedef struct { int16_t k, v; } wn_lane_dims;

typedef struct {
    const wn_format *format;            /* as it is listed */
    float *x;                           /* of each lane K's numbers, then V's */
} wn_calibration_books;

typedef struct {
    uint8_t fingerprint[16], text[16];  /* of the model; of the tokens */
    char numerics[32];                  /* it was made with; any may use it */
    int n_lanes, n_tokens, context;
    wn_lane_dims *dims;                 /* (n_lanes) */
    wn_calibration_books books[WN_CALIBRATED_MAX]; int n_books;
    size_t bytes;                       /* of memory */
    char id[WN_CALIBRATION_ID];         /* checksum, hexadecimal; of what was read */
} wn_calibration;

/* Without books. */
wn_status wn_calibration_new(wn_calibration **out, int n_lanes, wn_err *err);
void wn_calibration_close(wn_calibration *c);           /* NULL is fine */
/* Books of another format, all zeros; dims are filled in. */
wn_status wn_calibration_add(wn_calibration *c, const wn_format *f, wn_err *err);
/* NULL: none */
const wn_calibration_books *wn_calibration_find(const wn_calibration *c, const wn_format *f);
float *wn_calibration_numbers(const wn_calibration *c, const wn_calibration_books *b, int lane,
                              bool of_v);

wn_status wn_calibration_write(const wn_calibration *c, const char *path, wn_err *err);
wn_status wn_calibration_read(wn_calibration **out, const char *path, wn_err *err);
wn_status wn_calibration_parse(wn_calibration **out, const void *data, size_t n, wn_err *err);
/* Is it of this model? */
wn_status wn_calibration_fits(const wn_calibration *c, const uint8_t fingerprint[16],
                              const wn_lane_dims *dims, int n_lanes, wn_err *err);

#endif
