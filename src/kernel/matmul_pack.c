/* matmul_pack.c - the packed form of quantised weights.
 *
 * Packing moves bytes and changes none, so a packed matrix is as large as the file's and
 * can be read back exactly. A panel is 16 rows; a chunk of a panel is 256 columns (8
 * blocks of 32 or one super-block), fewer at the end of a row. Within a chunk the fields
 * of a block come one after the other, each for all blocks, and each field is cut into
 * units that go row by row. Quants are units of 4 bytes, so that a vector of 16 lanes of
 * 32 bits holds 16 rows, and a lane holds 4 neighbouring k (types with codes below 8 bits
 * hold more planes in the same lane, as their blocks do):
 *
 *     Q8_0   | d: blocks x 16 rows x f16 | qs: blocks x 8 x 16 rows x 4 bytes |
 *              lane (u, row) of a block = k 4u .. 4u+3
 *     Q4_0, IQ4_NL
 *            | d: blocks x 16 x f16 | qs: blocks x 4 x 16 x 4 |
 *              lane (u, row): low nibbles k 4u .. 4u+3, high nibbles k + 16
 *     MXFP4  | e: blocks x 16 bytes | qs as Q4_0 |
 *     Q4_1   | d, m: blocks x 16 x f16 each | qs as Q4_0 |
 *     Q5_0   | d | high: blocks x 16 x 4 | qs as Q4_0 |      lane (row) of high: bit k
 *     Q5_1   | d | m | high | qs |
 *     Q4_K   | d: 16 x f16 | dmin: 16 x f16 | scales: 3 x 16 x 4 | qs: 32 x 16 x 4 |
 *              qs lane (8c + u, row): low nibbles k = 64c + 4u .., high nibbles k + 32;
 *              scales lanes: the file's 12 bytes in threes of 4, still 6 bits each
 *     Q5_K   | d | dmin | scales | high: 8 x 16 x 4 | qs | as Q4_K, lane (u, row) of high:
 *              bit j of its bytes belongs to k = 32j + 4u ..
 *     Q6_K   | ql: 32 x 16 x 4 | qh: 16 x 16 x 4 | scales: 4 x 16 x 4 | d: 16 x f16 |
 *     Q2_K   | scales: 4 x 16 x 4 | qs: 16 x 16 x 4 | d | dmin |
 *              qs lane (8n + u, row): bits 2g of its bytes are k = 128n + 32g + 4u ..
 *     Q3_K   | high: 8 x 16 x 4 | qs as Q2_K | scales: 3 x 16 x 4 | d |
 *     IQ4_XS | d | high bits of scales: 16 x 2 | low: 1 x 16 x 4 | qs: 32 x 16 x 4 |
 *              qs as eight blocks of IQ4_NL
 *
 *     one chunk of a Q8_0 panel, bytes:
 *     0        32       64         256                320
 *     | d, blk 0 | blk 1 | ... blk 7 | r0 k0-3 | r1 k0-3 | .. r15 | r0 k4-7 | ...
 *
 * The last panel is filled up with rows of zero bytes: zero scales, so zero outputs.
 * Speed: two moves per 4 bytes inside the L1 cache; reading the file's pages takes longer
 * (bench/NOTES.md).
 */
#include "kernel/matmul_ops.h"

#include <string.h>

enum { MAX_FIELDS = 5 };

typedef struct {
    uint16_t offset;            /* in the file's block */
    uint16_t units;
    uint16_t bytes;             /* of a unit: 1, 2 or 4; 0 ends the list */
} pack_field;

typedef struct {
    uint16_t block, block_bytes;
    bool min;                   /* has a second chain */
    pack_field field[MAX_FIELDS];
} pack_layout;

static const pack_layout layouts[WN_TYPE_COUNT] = {
    [WN_TYPE_Q8_0] = { 32, 34, false, { { 0, 1, 2 }, { 2, 8, 4 } } },
    [WN_TYPE_Q4_0] = { 32, 18, false, { { 0, 1, 2 }, { 2, 4, 4 } } },
    [WN_TYPE_Q4_K] = { 256, 144, true, { { 0, 1, 2 }, { 2, 1, 2 }, { 4, 3, 4 }, { 16, 32, 4 } } },
    [WN_TYPE_Q4_1] = { 32, 20, true, { { 0, 1, 2 }, { 2, 1, 2 }, { 4, 4, 4 } } },
    [WN_TYPE_Q5_0] = { 32, 22, false, { { 0, 1, 2 }, { 2, 1, 4 }, { 6, 4, 4 } } },
    [WN_TYPE_Q5_1] = { 32, 24, true, { { 0, 1, 2 }, { 2, 1, 2 }, { 4, 1, 4 }, { 8, 4, 4 } } },
    [WN_TYPE_IQ4_NL] = { 32, 18, false, { { 0, 1, 2 }, { 2, 4, 4 } } },
    [WN_TYPE_MXFP4] = { 32, 17, false, { { 0, 1, 1 }, { 1, 4, 4 } } },
    [WN_TYPE_Q2_K] = { 256, 84, true, { { 0, 4, 4 }, { 16, 16, 4 }, { 80, 1, 2 }, { 82, 1, 2 } } },
    [WN_TYPE_Q3_K] = { 256,
                       110,
                       false,
                       { { 0, 8, 4 }, { 32, 16, 4 }, { 96, 3, 4 }, { 108, 1, 2 } } },
    [WN_TYPE_Q5_K] = { 256,
                       176,
                       true,
                       { { 0, 1, 2 }, { 2, 1, 2 }, { 4, 3, 4 }, { 16, 8, 4 }, { 48, 32, 4 } } },
    [WN_TYPE_IQ4_XS] = { 256, 136, false, { { 0, 1, 2 }, { 2, 1, 2 }, { 4, 1, 4 }, { 8, 32, 4 } } },
    [WN_TYPE_Q6_K] = { 256,
                       210,
                       false,
                       { { 0, 32, 4 }, { 128, 16, 4 }, { 192, 4, 4 }, { 208, 1, 2 } } },
};

int wn_pack_block(wn_type t)
{
    return (unsigned)t < WN_TYPE_COUNT ? layouts[t].block : 0;
}

bool wn_type_has_min(wn_type t)
{
    return layouts[t].min;
}

size_t wn_pack_chunk_bytes(wn_type t, int n_blocks)
{
    return (size_t)layouts[t].block_bytes * WN_PANEL_ROWS * (size_t)n_blocks;
}

size_t wn_pack_panel_bytes(wn_type t, int n_cols)
{
    return wn_pack_chunk_bytes(t, n_cols / layouts[t].block);
}

size_t wn_matrix_packed_bytes(wn_type t, int n_rows, int n_cols)
{
    if (!wn_pack_block(t)) return 0;
    size_t panels = ((size_t)n_rows + WN_PANEL_ROWS - 1) / WN_PANEL_ROWS;
    return panels * wn_pack_panel_bytes(t, n_cols);
}

static void interleave4(uint8_t *dst, const uint8_t *src, size_t units)
{
    for (size_t u = 0; u < units; u++) memcpy(dst + u * 64, src + u * 4, 4);
}

void wn_pack_chunk(uint8_t *dst, const uint8_t *src, size_t row_bytes, wn_type t, int n_rows,
                   int n_blocks)
{
    const pack_layout *l = &layouts[t];
    if (n_rows < WN_PANEL_ROWS) memset(dst, 0, wn_pack_chunk_bytes(t, n_blocks));
    for (int f = 0; f < MAX_FIELDS && l->field[f].bytes; f++) {
        size_t bytes = l->field[f].bytes, units = l->field[f].units;
        size_t step = units * bytes * WN_PANEL_ROWS;        /* a block's field, all rows */
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *s = src + (size_t)r * row_bytes + l->field[f].offset;
            uint8_t *d = dst + (size_t)r * bytes;
            for (int b = 0; b < n_blocks; b++, s += l->block_bytes, d += step) {
                if (bytes == 4) interleave4(d, s, units);
                else if (bytes == 2) memcpy(d, s, 2);
                else *d = *s;
            }
        }
        dst += step * (size_t)n_blocks;
    }
}

void wn_unpack_blocks(uint8_t *blocks, const uint8_t *chunk, wn_type t, int r, int n_blocks)
{
    const pack_layout *l = &layouts[t];
    for (int f = 0; f < MAX_FIELDS && l->field[f].bytes; f++) {
        size_t bytes = l->field[f].bytes, units = l->field[f].units;
        for (int b = 0; b < n_blocks; b++) {
            uint8_t *d = blocks + (size_t)b * l->block_bytes + l->field[f].offset;
            for (size_t u = 0; u < units; u++, chunk += bytes * WN_PANEL_ROWS)
                memcpy(d + u * bytes, chunk + (size_t)r * bytes, bytes);
        }
    }
}

void wn_matrix_pack(void *dst, const void *src, wn_type t, int n_rows, int n_cols, int from, int to)
{
    int block = wn_pack_block(t);
    WN_ASSERT(block && n_cols % block == 0 && from % WN_PANEL_ROWS == 0);
    WN_ASSERT(to == n_rows || to % WN_PANEL_ROWS == 0);
    int per_chunk = WN_CHUNK_COLS / block, n_blocks = n_cols / block;
    size_t row_bytes = (size_t)n_blocks * layouts[t].block_bytes;
    for (int r = from; r < to; r += WN_PANEL_ROWS) {
        int rows = WN_MIN(WN_PANEL_ROWS, n_rows - r);
        uint8_t *d = (uint8_t *)dst + (size_t)(r / WN_PANEL_ROWS) * wn_pack_panel_bytes(t, n_cols);
        const uint8_t *s = (const uint8_t *)src + (size_t)r * row_bytes;
        for (int b = 0; b < n_blocks; b += per_chunk) {
            int nb = WN_MIN(per_chunk, n_blocks - b);
            wn_pack_chunk(d, s + (size_t)b * layouts[t].block_bytes, row_bytes, t, rows, nb);
            d += wn_pack_chunk_bytes(t, nb);
        }
    }
}

wn_matrix wn_matrix_slice(const wn_matrix *m, int from, int n_rows)
{
    wn_matrix s = *m;
    WN_ASSERT(from >= 0 && n_rows >= 0 && from <= m->n_rows - n_rows);
    WN_ASSERT(!m->packed || (from % WN_PANEL_ROWS == 0 && n_rows % WN_PANEL_ROWS == 0));
    size_t row_bytes = wn_type_row_bytes(m->type, m->n_cols);
    s.n_rows = n_rows;
    s.data = (const uint8_t *)m->data + (size_t)from * row_bytes;   /* packing keeps sizes */
    return s;
}

void wn_matrix_row(const wn_matrix *m, int r, float *out)
{
    const wn_type_info *info = wn_type_find((uint32_t)m->type);
    WN_ASSERT(info && info->decode && r >= 0 && r < m->n_rows);
    if (!m->packed || !wn_pack_block(m->type)) {
        size_t row_bytes = wn_type_row_bytes(m->type, m->n_cols);
        info->decode(out, (const uint8_t *)m->data + (size_t)r * row_bytes, m->n_cols);
        return;
    }
    uint8_t blocks[512];        /* at most 8 blocks of 34 bytes, or one super-block */
    int block = wn_pack_block(m->type), per_chunk = WN_CHUNK_COLS / block;
    int n_blocks = m->n_cols / block;
    const uint8_t *chunk = (const uint8_t *)m->data +
        (size_t)(r / WN_PANEL_ROWS) * wn_pack_panel_bytes(m->type, m->n_cols);
    for (int b = 0; b < n_blocks; b += per_chunk) {
        int nb = WN_MIN(per_chunk, n_blocks - b);
        wn_unpack_blocks(blocks, chunk, m->type, r % WN_PANEL_ROWS, nb);
        info->decode(out + (size_t)b * (size_t)block, blocks, (int64_t)nb * block);
        chunk += wn_pack_chunk_bytes(m->type, nb);
    }
}
