/* kernel/codes_amx.c - products of encoded pages on Intel's tiles.
 *
 * A tile product adds 16 rows x 64 bytes of depth x 16 columns and takes as many cycles as A has
 * rows. Four rows of x are eight rows of A: the high and the low bytes of each, so that C holds
 * both halves of every sum; a block of integers (codes.h) is such a tile as it lies. B is what the
 * planes already are, four rows of depth together in a column: 8-bit codes are loaded as they lie,
 * narrower ones are taken out of their fields first, 64 of depth by 64 columns. Entries of a table
 * are picked by VBMI, which minds six bits of an index: with the table repeated, a field needs no
 * mask.
 *
 *     A  x, 64 of depth       row 2 i: high bytes of row i, row 2 i + 1: low bytes
 *     B  codes                row j: rows 4 j .. 4 j + 3 of 16 columns
 *     C  sums in int32        as A's rows, 16 columns
 *
 * Score. Where every 32 of depth have parameters of their own, A has twice the rows: once with
 * zeros in the second half of the depth, then with zeros in the first, and one product gives the
 * sums of both groups. For narrow codes x is within a byte, and its low bytes are all there is to
 * multiply. A stays in its tiles from page to page where four rows of up to 128 channels are all
 * there is; with more rows codes are taken out of their fields once for all of them. Mix. C stays
 * in its tiles from page to page: 64 channels of all pages, then the next 64.
 *
 * The sums are exact, the float operations around them those of codes_simd.h in the same order: the
 * same bits. What does not fill tiles (a single row, sides that are no multiple of 64) and
 * everything that is not a product is avx512's.
 */
#include "kernel/codes_avx512.h"
#include "kernel/codes_fields_simd.h"
#include "kernel/tiles_amx.h"

enum {
    DEPTH = WN_CODES_BLOCK,
    COLS = 64,
    QUADS = DEPTH / 4,
    TILES = COLS / 16,
    ROWS = 4,
    BLOCKS = WN_CODES_DEPTH / DEPTH
};

/* Tiles 0 to 3 are C, 4 and 5 A, 6 and 7 B. */
static const wn_tile_config of_8 = {
    .palette = 1, .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 },
    .rows = { 8, 8, 8, 8, 8, 8, 16, 16 },
};
static const wn_tile_config of_16 = {
    .palette = 1, .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 },
    .rows = { 16, 16, 16, 16, 16, 16, 16, 16 },
};

typedef struct { _Alignas(64) int8_t row[16][64]; } tile_a;
typedef struct { _Alignas(64) uint8_t row[TILES][QUADS][64]; } tile_b;
typedef struct { _Alignas(64) int32_t row[TILES][16][16]; } tile_c;

/* ---- A --------------------------------------------------------------------------------------- */

/* A block of x once for each half of its depth; narrow: of its low bytes alone, row i and row 4 +
 * i. */
INLINE void make_halves(tile_a *a, const char *block, const bool narrow)
{
    const int rows = narrow ? ROWS : 2 * ROWS;
    for (int r = 0; r < rows; r++) {
        ivec x = i_load(block + (narrow ? 128 * r + 64 : 64 * r));
        _mm512_store_si512(a->row[r], _mm512_maskz_mov_epi32(0x00ff, x));
        _mm512_store_si512(a->row[rows + r], _mm512_maskz_mov_epi32(0xff00, x));
    }
}

/* ---- B --------------------------------------------------------------------------------------- */

/* Fields of a table's codes that stand side by side: what is above them in a byte does not
 * matter. */
INLINE ivec looked_up(ivec table, const uint8_t *at, const int bits, const int j, size_t step)
{
    const int fields = 8 / bits;
    ivec v = i_load(at + (size_t)(j / fields) * step);
    return _mm512_permutexvar_epi8(j % fields ? i_srl(v, j % fields * bits) : v, table);
}

/* As looked_up() wants it, or codes() of two planes. */
INLINE ivec table_of(const wn_codes_product *p, const int low, const int high, const bool mapped)
{
    if (!mapped) return i_zero();
    ivec table = i_table(p->table);
    return low == 2 && !high ? _mm512_broadcastd_epi32(_mm512_castsi512_si128(table)) : table;
}

/* Columns [col, col + 64) of rows [64 block, + 64). */
INLINE void make_b(tile_b *b, const wn_codes_product *p, const wn_codes_page *page, const int low,
                   const int high, const bool mapped, ivec table, int col, int block, wn_fetcher *f)
{
    const int narrow = high && high < low ? high : low, quads = 8 / narrow;
    const size_t step = 4 * WN_CODES_PANEL;
    for (int v = 0; v < TILES; v += 2) {
        const uint8_t *at_low = page->low + wn_codes_plane_bytes(low, p->depth, col + 16 * v);
        const uint8_t *at_high = high ? page->high +
                                            wn_codes_plane_bytes(high, p->depth, col + 16 * v)
                                      : NULL;
        at_low += wn_codes_plane_bytes(low, DEPTH, WN_CODES_PANEL) * (size_t)block;
        if (high) at_high += wn_codes_plane_bytes(high, DEPTH, WN_CODES_PANEL) * (size_t)block;
        for (int q = 0; q < QUADS; q += quads) {
            UNROLL for (int j = 0; j < quads; j += 2) wn_fetch(f);
            UNROLL for (int j = 0; j < quads; j++) for (int w = 0; w < 2; w++)
                _mm512_store_si512(b->row[v + w][q + j],
                                   mapped && !high
                                       ? looked_up(table, at_low + 64 * w, low, j, step)
                                       : codes(at_low + 64 * w, high ? at_high + 64 * w : NULL, low,
                                               high, mapped, table, j, step));
            at_low += step * (size_t)(low / narrow);
            if (high) at_high += step * (size_t)(high / narrow);
        }
    }
}

/* Codes that are operands as they lie. */
INLINE bool lie_as_is(const int low, const bool mapped) { return low == 8 && !mapped; }

/* Where 16 columns of a block of 8-bit codes lie as they are, or in a tile_b; stride: of its
 * rows. */
typedef struct { const uint8_t *at; size_t stride; } place;

INLINE place place_of(const wn_codes_product *p, const wn_codes_page *page, const tile_b *b,
                      const bool as_is, int col, int block)
{
    if (!as_is) return (place){ b->row[col % COLS / 16][0], 64 };
    size_t first = wn_codes_plane_bytes(8, p->depth, col / WN_CODES_PANEL * WN_CODES_PANEL);
    size_t rows = wn_codes_plane_bytes(8, DEPTH, WN_CODES_PANEL) * (size_t)block;
    return (place){ page->low + first + rows + 4 * (col % WN_CODES_PANEL), 4 * WN_CODES_PANEL };
}

/* ---- C --------------------------------------------------------------------------------------- */

/* gcc's _tile_loadd() does not say that it reads memory: what was written must be there. */
#define WRITTEN() __asm__ volatile("" ::: "memory")

INLINE void load_a(const int t, const void *block)
{
    if (t) _tile_loadd(5, block, 64);
    else _tile_loadd(4, block, 64);
}

INLINE void load_b(const int t, place b)
{
    if (t) _tile_loadd(7, b.at, b.stride);
    else _tile_loadd(6, b.at, b.stride);
}

INLINE void clear_c(const int v)
{
    switch (v) {
    case 0: _tile_zero(0); break;
    case 1: _tile_zero(1); break;
    case 2: _tile_zero(2); break;
    default: _tile_zero(3);
    }
}

/* C v += A a times B v mod 2; middle: codes are signed. */
INLINE void multiply(const int v, const int a, const bool middle)
{
#define PRODUCT(V, A, B)           \
    do {                           \
        if (middle)                \
            _tile_dpbssd(V, A, B); \
        else                       \
            _tile_dpbsud(V, A, B); \
    } while (0)
#define CASE(V, B) case V: if (a) PRODUCT(V, 5, B); else PRODUCT(V, 4, B); break
    switch (v) {
        CASE(0, 6);
        CASE(1, 7);
        CASE(2, 6);
        CASE(3, 7);
    }
#undef CASE
#undef PRODUCT
}

INLINE void store_c(const int v, tile_c *c)
{
    switch (v) {
    case 0: _tile_stored(0, c->row[0], 64); break;
    case 1: _tile_stored(1, c->row[1], 64); break;
    case 2: _tile_stored(2, c->row[2], 64); break;
    default: _tile_stored(3, c->row[3], 64);
    }
}

/* Row i of tile v; second: of the second group of a pair; narrow: of halves of low bytes. */
INLINE ivec sum_of(const tile_c *c, int v, int i, const bool second, const bool narrow)
{
    if (narrow) return i_load(c->row[v] + (second ? ROWS : 0) + i);
    const int32_t (*row)[16] = c->row[v] + (second ? 8 : 0) + 2 * i;
    return i_add(_mm512_slli_epi32(i_load(row[0]), 8), i_load(row[1]));
}

/* Codes that lie as they are leave little to do beside their tiles: these ask for what others ask
 * for while they take codes out. */
INLINE void fetch_with_tile(wn_fetcher *f, const bool as_is)
{
    const int times = as_is ? 5 : 1;
    UNROLL for (int i = 0; i < times; i++) wn_fetch(f);
}

/* ---- score ----------------------------------------------------------------------------------- */

/* Sums of x over each group, of four rows: what zeros and minima are multiplied with. */
typedef int32_t group_sums[WN_CODES_GROUPS][ROWS];

INLINE void add_up(group_sums out, const wn_codes_product *p, const wn_codes_x *x)
{
    int step = p->group / WN_CODES_GROUP, n = p->depth / WN_CODES_GROUP;
    if (p->group >= p->depth) {
        memcpy(out[0], x->total, sizeof out[0]);
        return;
    }
    for (int b = 0, g = 0; b < n; g++) {
        memcpy(out[g], x->sum[b], sizeof out[0]);
        int end = b + step < n ? b + step : n;
        for (b++; b < end; b++)
            for (int i = 0; i < ROWS; i++) out[g][i] += x->sum[b][i];
    }
}

/* The sums of a group against 64 columns, into the chains c; middle: they need no zeros. */
INLINE void add_group(const wn_codes_product *p, const wn_codes_page *page, const tile_c *t,
                      const bool middle, const bool narrow, const bool second,
                      const int32_t sum_x[ROWS], int col, int g, vec c[ROWS][TILES], wn_fetcher *f)
{
    vec s[TILES];
    UNROLL for (int v = 0; v < TILES; v++)
        s[v] = v_widen(page->s + (size_t)g * p->param_stride + (size_t)(col + v * W));
    if (middle) {
        UNROLL for (int i = 0; i < ROWS; i++) {
            wn_fetch(f);
            UNROLL for (int v = 0; v < TILES; v++)
                c[i][v] = v_fma(s[v], v_of(sum_of(t, v, i, second, narrow)), c[i][v]);
        }
    } else {
        const __m128i shift = _mm_cvtsi32_si128(p->shift);
        UNROLL for (int i = 0; i < ROWS; i++) {
            ivec zeros = i_set(wn_codes_zeros(p->zero, sum_x[i]));
            wn_fetch(f);
            UNROLL for (int v = 0; v < TILES; v++) c[i][v] = v_fma(
                s[v], v_of(i_add(_mm512_sll_epi32(sum_of(t, v, i, second, narrow), shift), zeros)),
                c[i][v]);
        }
    }
    if (page->m) UNROLL for (int v = 0; v < TILES; v++) {
        vec m = v_widen(page->m + (size_t)g * p->param_stride + (size_t)(col + v * W));
        UNROLL for (int i = 0; i < ROWS; i++) c[i][v] = v_fma(m, v_set((float)sum_x[i]), c[i][v]);
    }
}

/* Four rows against 64 columns of a page. */
typedef struct {
    const wn_codes_page *page;          /* NULL: nothing */
    const wn_codes_x *x;
    const tile_a *a;                    /* by block, where it has halves */
    int row, col;
    group_sums sums;
    tile_c t[BLOCKS];                   /* by group, or pair of groups */
} stage;

/* How a kind is scored: constants of the inlined bodies. */
typedef struct { int low, high; bool mapped, halves; } manner;

/* A has halves of low bytes alone. */
INLINE bool by_bytes(const manner h) { return h.halves && wn_codes_narrow_of(h.low, h.high); }

/* A block of the stage's products, in tiles of k = its parity. */
INLINE void score_block(const wn_codes_product *p, stage *y, const tile_b *b, wn_fetcher *f,
                        const manner h, const int k, int block, bool loaded, bool fresh)
{
    if (!loaded)
        load_a(k, h.halves ? (const char *)y->a[block].row
                           : wn_codes_integers(y->x) + block * WN_CODES_BLOCK_BYTES);
    UNROLL for (int v = 0; v < TILES; v++) {
        fetch_with_tile(f, lie_as_is(h.low, h.mapped));
        load_b(v % 2,
               place_of(p, y->page, &b[block], lie_as_is(h.low, h.mapped), y->col + 16 * v, block));
        if (fresh) clear_c(v);
        multiply(v, k, h.mapped);
    }
}

INLINE void start_sums(vec c[ROWS][TILES])
{
    UNROLL for (int i = 0; i < ROWS; i++)
        UNROLL for (int v = 0; v < TILES; v++) c[i][v] = v_zero();
}

INLINE void finish_sums(const wn_codes_product *p, const stage *y, vec c[ROWS][TILES])
{
    for (int i = 0; i < WN_MIN(ROWS, p->n_rows - y->row); i++)
        UNROLL for (int v = 0; v < TILES; v++)
            v_store(y->page->c + (size_t)(y->row + i) * p->c_stride + y->col + v * W,
                    v_mul(v_set(y->x->scale[i]), c[i][v]));
}

/* All of a stage's products, in groups of 64 or more. */
INLINE void score_products(const wn_codes_product *p, stage *y, const tile_b *b, wn_fetcher *f,
                           const manner h, bool loaded)
{
    int n = 0, left = 0, blocks = p->depth / DEPTH;
    for (int first = 0; first < blocks; first += 2)
        UNROLL for (int k = 0; k < 2; k++) {
            if (first + k >= blocks) break;
            bool fresh = left == 0;
            if (fresh) left = p->group < p->depth ? p->group : p->depth;
            left -= DEPTH;
            score_block(p, y, b, f, h, k, first + k, loaded, fresh);
            if (left > 0 && first + k + 1 < blocks) continue;
            UNROLL for (int v = 0; v < TILES; v++) store_c(v, &y->t[n]);
            n++;
        }
    WRITTEN();
}

INLINE void score_sums(const wn_codes_product *p, const stage *y, wn_fetcher *f, const manner h)
{
    vec c[ROWS][TILES];
    if (!y->page) return;
    start_sums(c);
    for (int k = 0, g = 0; k < p->depth; k += p->group < p->depth ? p->group : p->depth, g++)
        add_group(p, y->page, &y->t[g], h.mapped, false, false, y->sums[g], y->col, g, c, f);
    finish_sums(p, y, c);
}

/* In groups of 32: products of this stage and sums of the one before it, block by block. */
INLINE void score_both(const wn_codes_product *p, stage *y, const stage *before, const tile_b *b,
                       wn_fetcher *f, const manner h, bool loaded)
{
    vec c[ROWS][TILES];
    int blocks = p->depth / DEPTH;
    start_sums(c);
    for (int first = 0; first < blocks; first += 2)
        UNROLL for (int k = 0; k < 2; k++) {
            int block = first + k;
            if (block >= blocks) break;
            if (y) {
                score_block(p, y, b, f, h, k, block, loaded, true);
                UNROLL for (int v = 0; v < TILES; v++) store_c(v, &y->t[block]);
                WRITTEN();
            }
            if (!before->page) continue;
            add_group(p, before->page, &before->t[block], h.mapped, by_bytes(h), false,
                      before->sums[2 * block], before->col, 2 * block, c, f);
            add_group(p, before->page, &before->t[block], h.mapped, by_bytes(h), true,
                      before->sums[2 * block + 1], before->col, 2 * block + 1, c, f);
        }
    if (before->page) finish_sums(p, before, c);
}

/* What was stored can be loaded into a tile, and what a tile stored can be loaded, only when it has
 * left the core's buffer of stores: codes are taken out of their fields a step ahead, and sums are
 * added up a step behind. */
INLINE void scores(const wn_codes_product *in, const manner h)
{
    const wn_codes_product copy = *in, *p = &copy;      /* which no store can be meant for */
    tile_a a[BLOCKS];
    tile_b b[2][BLOCKS];
    stage stages[2];
    int cols = p->n_cols / COLS, steps = p->n_pages * cols, blocks = p->depth / DEPTH, turn = 0;
    bool one = p->n_rows <= ROWS, loaded = false;
    ivec table = _mm512_xor_si512(table_of(p, h.low, h.high, h.mapped),
                                  i_set8(h.mapped ? -128 : 0));
    wn_fetcher f = *p->fetcher;
    stages[0].page = stages[1].page = NULL;
    wn_tiles_use(h.halves && !by_bytes(h) ? &of_16 : &of_8);
    for (int step = -1; step < steps; step++) {
        const wn_codes_page *next = &p->pages[(step + 1) / cols];
        for (int block = 0; block < blocks && !lie_as_is(h.low, h.mapped) && step + 1 < steps;
             block++)
            make_b(&b[(step + 1) % 2][block], p, next, h.low, h.high, h.mapped, table,
                   (step + 1) % cols * COLS, block, &f);
        if (step < 0) continue;
        for (int row = 0; row < p->n_rows; row += ROWS, turn ^= 1) {
            stage *y = &stages[turn];
            y->page = &p->pages[step / cols];
            y->x = wn_codes_rows(p->x, p->x_stride, row);
            y->a = a;
            y->row = row;
            y->col = step % cols * COLS;
            if (!one || step < 2) add_up(y->sums, p, y->x);
            for (int block = 0; block < blocks && h.halves && !loaded; block++)
                make_halves(&a[block], wn_codes_integers(y->x) + block * WN_CODES_BLOCK_BYTES,
                            by_bytes(h));
            WRITTEN();
            if (h.halves) score_both(p, y, &stages[turn ^ 1], b[step % 2], &f, h, loaded);
            else {
                score_products(p, y, b[step % 2], &f, h, loaded);
                score_sums(p, &stages[turn ^ 1], &f, h);
            }
            loaded = one && blocks <= 2;
        }
    }
    if (h.halves) score_both(p, NULL, &stages[turn ^ 1], NULL, &f, h, true);
    else score_sums(p, &stages[turn ^ 1], &f, h);
    *p->fetcher = f;
    wn_tiles_done();
}

/* ---- mix ------------------------------------------------------------------------------------- */

/* Products of all pages with the 64 columns from col on, to t; x's of `width` tiles in a row are
 * the same. */
INLINE void mix_cols(const wn_codes_product *p, tile_b *b, tile_c *t, const int low, const int high,
                     const bool mapped, const int width, ivec table, wn_fetcher *f, int col)
{
    const bool as_is = lie_as_is(low, mapped);
    int blocks = p->depth / DEPTH, steps = p->n_pages * blocks;
    size_t groups = (size_t)(col / p->col_group) * p->x_group;
    UNROLL for (int v = 0; v < TILES; v++) clear_c(v);
    for (int step = -1; step < steps; step++) {
        if (!as_is && step + 1 < steps)
            make_b(&b[(step + 1) % 2], p, &p->pages[(step + 1) / blocks], low, high, mapped, table,
                   col, (step + 1) % blocks, f);
        if (step < 0) continue;
        const wn_codes_page *page = &p->pages[step / blocks];
        int block = step % blocks;
        WRITTEN();
        UNROLL for (int v = 0; v < TILES; v++) {
            if (v % width == 0)
                load_a(v / width % 2, page->x + groups + (size_t)(v / width) * p->x_group +
                                          block * WN_CODES_BLOCK_BYTES);
            fetch_with_tile(f, as_is);
            load_b(v % 2, place_of(p, page, &b[step % 2], as_is, col + 16 * v, block));
            multiply(v, v / width % 2, false);
        }
    }
    UNROLL for (int v = 0; v < TILES; v++) store_c(v, t);
    WRITTEN();
}

INLINE void mixes(const wn_codes_product *in, const int low, const int high, const bool mapped,
                  const int width)
{
    const wn_codes_product copy = *in, *p = &copy;
    ivec table = table_of(p, low, high, mapped);
    wn_fetcher f = *p->fetcher;
    tile_b b[2];
    tile_c t;
    wn_tiles_use(&of_8);
    for (int col = 0; col < p->n_cols; col += COLS) {
        mix_cols(p, b, &t, low, high, mapped, width, table, &f, col);
        for (int i = 0; i < p->n_rows; i++)
            UNROLL for (int v = 0; v < TILES; v++) {
                int32_t *y = p->t + (size_t)i * p->t_stride + col + v * W;
                i_store(y, p->add ? i_add(i_load(y), sum_of(&t, v, i, false, false))
                                  : sum_of(&t, v, i, false, false));
            }
    }
    *p->fetcher = f;
    wn_tiles_done();
}

/* ---- the table ------------------------------------------------------------------------------- */

static bool fills_tiles(const wn_codes_product *p)
{
    return p->n_rows > 1 && p->depth % DEPTH == 0 && p->n_cols % COLS == 0;
}

/* Groups that a tile product takes apart or leaves together. Entries of a table are taken less 128,
 * signed. */
static bool score_fits(const wn_codes_product *p, bool mapped)
{
    if (mapped && (p->zero != 128 || p->shift)) return false;
    return fills_tiles(p) &&
           (p->group >= p->depth || p->group == WN_CODES_GROUP || p->group % DEPTH == 0);
}

static bool mix_fits(const wn_codes_product *p)
{
    return fills_tiles(p) && (p->col_group == 32 || p->col_group % COLS == 0);
}

#define KIND(NAME, WHICH, LOW, HIGH, MAPPED)                 \
    static void score_##NAME(const wn_codes_product *p)      \
    {                                                        \
        if (!score_fits(p, MAPPED))                          \
            wn_planes_ops_avx512.score[WHICH](p);            \
        else if (p->group == WN_CODES_GROUP)                 \
            scores(p, (manner){ LOW, HIGH, MAPPED, true });  \
        else                                                 \
            scores(p, (manner){ LOW, HIGH, MAPPED, false }); \
    }                                                        \
    static void mix_##NAME(const wn_codes_product *p)        \
    {                                                        \
        if (!mix_fits(p))                                    \
            wn_planes_ops_avx512.mix[WHICH](p);              \
        else if (p->col_group == 32)                         \
            mixes(p, LOW, HIGH, MAPPED, 2);                  \
        else                                                 \
            mixes(p, LOW, HIGH, MAPPED, TILES);              \
    }
KIND(8, WN_CODES_8, 8, 0, false)
KIND(44, WN_CODES_4_4, 4, 4, false)
KIND(42, WN_CODES_4_2, 4, 2, false)
KIND(41, WN_CODES_4_1, 4, 1, false)
KIND(4, WN_CODES_4, 4, 0, false)
KIND(21, WN_CODES_2_1, 2, 1, false)
KIND(2, WN_CODES_2, 2, 0, false)
KIND(4t, WN_CODES_4T, 4, 0, true)
KIND(21t, WN_CODES_2_1T, 2, 1, true)
KIND(2t, WN_CODES_2T, 2, 0, true)

const wn_planes_ops wn_planes_ops_amx = {
    .score = { score_8, score_44, score_42, score_41, score_4, score_21, score_2, score_4t,
               score_21t, score_2t },
    .mix = { mix_8, mix_44, mix_42, mix_41, mix_4, mix_21, mix_2, mix_4t, mix_21t, mix_2t },
    .hold = wn_tiles_hold,
};
