/* page/ggml.c - the grids of ggml's cache types, for comparison: same parameters, same codes.
 *
 * Groups of 32 channels of one slot. What differs from ggml's blocks is where the bytes lie (all
 * scales of a page before its codes, codes in panels) and what is computed with them: the query
 * and the weights have 16 bits here, 8 and none there. Names with an r turn rows by a Hadamard
 * matrix first, as llama.cpp has done since March 2026 under the plain names. Repack: copy.
 *
 *     K, P = 64, D = 128                       bytes             V
 *     s[4][64]  halves, by group of channels   512               the same
 *     m[4][64]  (q4_1, q5_1)                   512
 *     codes     low plane (4 bits; q8_0: 8)    4096; 8192
 *               high plane (q5_0, q5_1: 1 bit) 1024
 *
 * Bytes per slot at head_dim 64 / 128, as ggml's own: q8_0 68 / 136, q5_1 48 / 96, q5_0 44 / 88,
 * q4_1 40 / 80, q4_0 36 / 72.
 * Error: q8_0, q4_1, q5_1 half a step; q4_0, q5_0 half a step, but for the end of the other sign,
 * which may be a whole one short.
 */
#include "page/coded.h"

static const wn_coding c8_0 = { .kind = WN_CODES_8, .grid = WN_GRID_GGML_8, .group = 32 };
static const wn_coding c8_0r = { .kind = WN_CODES_8, .grid = WN_GRID_GGML_8, .group = 32,
                                 .turned = true };
static const wn_coding c5_1 = { .kind = WN_CODES_4_1, .grid = WN_GRID_GGML_1, .group = 32 };
static const wn_coding c5_1r = { .kind = WN_CODES_4_1, .grid = WN_GRID_GGML_1, .group = 32,
                                 .turned = true };
static const wn_coding c5_0 = { .kind = WN_CODES_4_1, .grid = WN_GRID_GGML_0, .group = 32 };
static const wn_coding c5_0r = { .kind = WN_CODES_4_1, .grid = WN_GRID_GGML_0, .group = 32,
                                 .turned = true };
static const wn_coding c4_1 = { .kind = WN_CODES_4, .grid = WN_GRID_GGML_1, .group = 32 };
static const wn_coding c4_1r = { .kind = WN_CODES_4, .grid = WN_GRID_GGML_1, .group = 32,
                                 .turned = true };
static const wn_coding c4_0 = { .kind = WN_CODES_4, .grid = WN_GRID_GGML_0, .group = 32 };
static const wn_coding c4_0r = { .kind = WN_CODES_4, .grid = WN_GRID_GGML_0, .group = 32,
                                 .turned = true };

WN_CODED_FORMAT(q8_0, "q8_0", WN_REPACK_COPY, false, c8_0, c8_0);
WN_CODED_FORMAT(q8_0r, "q8_0r", WN_REPACK_COPY, true, c8_0r, c8_0r);
WN_CODED_FORMAT(q5_1, "q5_1", WN_REPACK_COPY, false, c5_1, c5_1);
WN_CODED_FORMAT(q5_1r, "q5_1r", WN_REPACK_COPY, true, c5_1r, c5_1r);
WN_CODED_FORMAT(q5_0, "q5_0", WN_REPACK_COPY, false, c5_0, c5_0);
WN_CODED_FORMAT(q5_0r, "q5_0r", WN_REPACK_COPY, true, c5_0r, c5_0r);
WN_CODED_FORMAT(q4_1, "q4_1", WN_REPACK_COPY, false, c4_1, c4_1);
WN_CODED_FORMAT(q4_1r, "q4_1r", WN_REPACK_COPY, true, c4_1r, c4_1r);
WN_CODED_FORMAT(q4_0, "q4_0", WN_REPACK_COPY, false, c4_0, c4_0);
WN_CODED_FORMAT(q4_0r, "q4_0r", WN_REPACK_COPY, true, c4_0r, c4_0r);
