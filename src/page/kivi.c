/* page/kivi.c - K per channel over the page, V per slot: KIVI's axes (Liu et al., 2024).
 *
 * Keys have channels that are large in every slot; a range of its own for each channel takes
 * them out. Values have no such channels: a range for each slot and 64 channels. Repack: K
 * raw-only (its parameters belong to the page), V copy.
 *
 *     K, P = 64, D = 128                    bytes       V                               bytes
 *     spoiled slots, a bit each, 8 bytes    0 .. 63     s[2][64]  halves                0 .. 255
 *     s[128]  halves                        64 .. 319   m[2][64]                        256 .. 511
 *     m[128]                                320 .. 575  codes  four panels of channels  512 ..
 *     codes   two panels of slots           576 ..
 *
 * Bytes per slot (K + V, P = 64), head_dim 64: kivi4 37 + 36 (4.6, 4.5 bits), kivi2 21 + 20;
 * head_dim 128: kivi4 73 + 72, kivi2 41 + 40 (2.56, 2.5 bits).
 * Error: half a step of the channel's (the group's) range, (max - min) / (2 (2^b - 1)).
 */
#include "page/coded.h"

static const wn_coding k4 = { .kind = WN_CODES_4, .grid = WN_GRID_RANGE, .by_channel = true };
static const wn_coding v4 = { .kind = WN_CODES_4, .grid = WN_GRID_RANGE, .group = 64 };
WN_CODED_FORMAT(kivi4, "kivi4", WN_REPACK_RAW_ONLY, false, k4, v4);

static const wn_coding k2 = { .kind = WN_CODES_2, .grid = WN_GRID_RANGE, .by_channel = true };
static const wn_coding v2 = { .kind = WN_CODES_2, .grid = WN_GRID_RANGE, .group = 64 };
WN_CODED_FORMAT(kivi2, "kivi2", WN_REPACK_RAW_ONLY, false, k2, v2);
