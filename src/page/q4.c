/* page/q4.c - 4 bits: a turned row, sixteen unequal steps, one scale per slot and 32 channels.
 *
 * Turned rows are nearly Gaussian; the table holds the steps of least square error for groups of
 * 32 Gaussian numbers under their largest magnitude: 0.0066 of the variance, where even steps and
 * ggml's q4_0 leave 0.0079 and 0.0074 at the same 4.5 bits. Repack: copy.
 *
 *     K, P = 64, D = 128                      bytes       V                            bytes
 *     s[4][64]  halves, by group of channels  0 .. 511    s[4][64]                     0 .. 511
 *     codes     panel of slots 0..31          512 .. 2559 four panels of 32 channels   512 .. 4607
 *               panel of slots 32..63         .. 4607
 *
 * Bytes per slot: D / 2 + D / 16: 36 at head_dim 64, 72 at 128 (4.5 bits a number).
 * Error: half the wider gap beside a value and what the fit of s adds, at most 17 / 127 of the
 * group's largest magnitude.
 */
#include "page/coded.h"

static const uint8_t steps[16] = {
    128 - 123, 128 - 97, 128 - 77, 128 - 60, 128 - 45, 128 - 31, 128 - 19, 128 - 6,
    128 + 6, 128 + 19, 128 + 31, 128 + 45, 128 + 60, 128 + 77, 128 + 97, 128 + 123,
};
static const wn_coding q4 = {
    .kind = WN_CODES_4T, .grid = WN_GRID_TABLE, .group = 32, .turned = true, .table = steps,
};
WN_CODED_FORMAT(q4, "q4", WN_REPACK_COPY, true, q4, q4);
