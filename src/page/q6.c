/* page/q6.c - 6 and 5 bits: turned rows on even steps, codes in two planes.
 *
 * The low plane holds four bits of a code, the high one two (q6) or one (q5). Steps stand in the
 * middle of their cells, none at 0, which wastes no code. Repack: copy.
 *
 *     K, P = 64, D = 128                 q6 bytes         q5 bytes         V
 *     s  halves                          s[64]  128       s[2][64]  256    the same
 *     low plane, panels of 32 columns    4096             4096
 *     high plane, likewise               2048             1024
 *
 * q6 has one scale per slot, q5 one per slot and 64 channels. Bytes per slot: q6 3 D / 4 + 2: 50 at
 * head_dim 64 (6.25 bits), 98 at 128 (6.125); q5 5 D / 8 + D / 32: 42 and 84 (5.25 bits).
 * Error: half a step, max |turned x| / 64 (q6) or / 32 (q5) of the group.
 */
#include "page/coded.h"

static const wn_coding q6 = { .kind = WN_CODES_4_2, .grid = WN_GRID_MIDDLE, .turned = true };
WN_CODED_FORMAT(q6, "q6", WN_REPACK_COPY, true, q6, q6);

static const wn_coding q5 = { .kind = WN_CODES_4_1, .grid = WN_GRID_MIDDLE, .group = 64,
                              .turned = true };
WN_CODED_FORMAT(q5, "q5", WN_REPACK_COPY, true, q5, q5);
