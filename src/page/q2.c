/* page/q2.c - 3 and 2 bits: turned rows on unequal steps, one scale per slot and 64 channels.
 *
 * As q4, with tables of least square error for groups of 64 Gaussian numbers: 0.0315 and 0.118 of
 * the variance, where even steps leave 0.037 and 0.148. Repack: copy.
 *
 *     K, P = 64, D = 128                       q3 bytes    q2 bytes    V
 *     s[2][64]  halves, by group of channels   256         256         the same
 *     low plane (2 bits), panels of 32         2048        2048
 *     high plane (1 bit)                       1024        none
 *
 * Bytes per slot: q3 3 D / 8 + D / 32: 26 at head_dim 64, 52 at 128 (3.25 bits); q2 D / 4 + D / 32:
 * 18 and 36 (2.25 bits).
 * Error: half the widest gap and what the fit of s adds, 44 / 127 (q3) and 52 / 127 (q2) of the
 * group's largest magnitude.
 */
#include "page/coded.h"

static const uint8_t steps3[16] = { 128 - 105, 128 - 65, 128 - 36, 128 - 12,
                                    128 + 12,  128 + 36, 128 + 65, 128 + 105 };
static const wn_coding q3 = {
    .kind = WN_CODES_2_1T, .grid = WN_GRID_TABLE, .group = 64, .turned = true, .table = steps3,
};
WN_CODED_FORMAT(q3, "q3", WN_REPACK_COPY, true, q3, q3);

static const uint8_t steps2[16] = { 128 - 75, 128 - 22, 128 + 22, 128 + 75 };
static const wn_coding q2 = {
    .kind = WN_CODES_2T, .grid = WN_GRID_TABLE, .group = 64, .turned = true, .table = steps2,
};
WN_CODED_FORMAT(q2, "q2", WN_REPACK_COPY, true, q2, q2);
