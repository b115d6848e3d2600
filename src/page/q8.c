/* page/q8.c - 8 bits: a turned row, one scale per slot.
 *
 * A row is turned by a Hadamard matrix, so that no channel stands out, and rounded to 127 steps
 * on each side of 0 under one scale; with channels alike, smaller groups would cost more than they
 * gain. Repack: copy.
 *
 *     K, P = 64, D = 128             bytes        V                                bytes
 *     s[64]  halves                  0 .. 127     s[64]                            0 .. 127
 *     codes  panel of slots 0..31    128 .. 4223  channels 0..31, 64 slots         128 .. 2175
 *            panel of slots 32..63   .. 8319      three more panels                .. 8319
 *
 * Bytes per slot, K and V alike: D + 2: 66 at head_dim 64 (8.25 bits a number), 130 at 128 (8.125).
 * Error: each turned value by half a step, max |turned x| / 254 and the rounding of s, so that a
 * row is off by at most sqrt(D) times that in all, whatever channel one looks at.
 */
#include "page/coded.h"

static const wn_coding q8 = { .kind = WN_CODES_8, .grid = WN_GRID_CENTRE, .turned = true };
WN_CODED_FORMAT(q8, "q8", WN_REPACK_COPY, true, q8, q8);
