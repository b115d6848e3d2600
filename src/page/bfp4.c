/* page/bfp4.c - block floating point: 4-bit mantissas, one exponent per slot and 32 channels.
 *
 * A block of 32 channels shares an exponent in a byte, so that scales are powers of two and cost
 * half of what halves do. A channel of keys that is large in every slot spoils the 31 beside it; so
 * K's channels are first put in the order of their size over the page, and large ones share a block
 * (K-sort: Trukhanov & Soloveychik, "Accurate Block Quantization in LLMs with Outliers", 2024).
 * Differs: the paper sorts the rows of W_k once, here each page has an order of its own (a byte a
 * channel), which takes no other model file and follows the text; the query is put in that order
 * page by page. Values have no such channels and stay as they are.
 * Repack: K raw-only (the order is the page's), V copy.
 *
 *     K, P = 64, D = 128                        bytes        V                              bytes
 *     order[128]  channel of a row of the plane 0 .. 127     e[4][64]  by channels          0 .. 255
 *     e[4][64]  bytes, by group of the order    128 .. 383   codes  four panels of channels 256 .. 4351
 *     codes     two panels of slots             384 .. 4479
 *
 * Bytes per slot (P = 64): K D / 2 + D / 32 + D / 64: 35 at head_dim 64, 70 at 128 (4.375 bits a
 * number); V 34 and 68 (4.25 bits).
 * Error: half a step, a step at the positive end; the step is between max |x| / 8 and / 4 of the
 * group.
 */
#include "page/coded.h"

static const wn_coding k = { .kind = WN_CODES_4, .grid = WN_GRID_CENTRE, .group = 32,
                             .powers = true, .sorted = true };
static const wn_coding v = { .kind = WN_CODES_4, .grid = WN_GRID_CENTRE, .group = 32,
                             .powers = true };
WN_CODED_FORMAT(bfp4, "bfp4", WN_REPACK_RAW_ONLY, false, k, v);
