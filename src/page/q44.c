/* page/q44.c - 8 bits in two planes of 4, of which the higher can be read alone.
 *
 * A turned row on even steps, one scale per slot and 64 channels, as codes of 8 bits. Steps stand
 * in the middle of their cells, so that the high half of a code is the code of the row on steps 16
 * times as wide, to the bit: q4h is q44 without its low plane. A frame of q4h is the beginning of
 * the q44 frame of the same rows, and any q44 frame is a q4h frame to whoever reads no further.
 * What a decision keeps in fewer bits (+recover:demote(k=q4h,v=q4h) over q44) leaves its low plane
 * behind and is not encoded again; a draft may read half of a page and the check all of it, as in
 * QuantSpec (Tiwari et al., 2025), whose pair of planes this is, with one scale and no minimum.
 * Repack: copy.
 *
 *     K, P = 64, D = 128                      bytes            V
 *     s[2][64]  halves, by group of channels  0 .. 255         the same
 *     high plane, two panels of 32 slots      256 .. 4351      four panels of 32 channels
 *     low plane, likewise (q44)               4352 .. 8447     the same
 *
 * Bytes per slot: q44 D + D / 32: 66 at head_dim 64, 132 at 128 (8.25 bits a number); q4h D / 2 + D
 * / 32: 34 and 68 (4.25 bits).
 * Value of a code u: s (2 u + 1 - 256); of its high half h: 16 s (2 h + 1 - 16).
 * Error: half a step, max |turned x| / 256 (q44), / 16 (q4h) of the group. What the two say is
 * apart by 15 s at most, 15 / 256 of that maximum.
 */
#include "page/coded.h"

static const wn_coding q4h = { .kind = WN_CODES_4, .grid = WN_GRID_MIDDLE, .group = 64,
                               .turned = true, .dropped = 4 };
WN_CODED_FORMAT(q4h, "q4h", WN_REPACK_COPY, true, q4h, q4h);

static const wn_coding q44 = { .kind = WN_CODES_4_4, .grid = WN_GRID_MIDDLE, .group = 64,
                               .turned = true, .high_first = true };
WN_CODED_FORMAT_OVER(q44, "q44", WN_REPACK_COPY, true, q44, q44, &wn_format_q4h);
