/* kernel/codes_amx.c - products of encoded pages on Intel's tiles.
 *
 * A tile product adds 16 rows x 64 bytes of depth x 16 columns and takes as many cycles as A has
 * rows. Four rows of x are eight rows of A: the high and the low bytes of each, so that C holds
 * both halves of every sum. B is what the planes already are, four rows of depth together in a
 * column: 8-bit codes are loaded as they lie, narrower ones are taken out of their fields
 * first, 64 of depth by 64 columns. Codes that are places in a table are looked up less 128, signed,
 * and need no sum of x to make up for their zero.
 *
 *     A  x, 64 of depth       row 2 i: high bytes of row i, row 2 i + 1: low bytes
 *     B  codes                row j: rows 4 j .. 4 j + 3 of 16 columns
 *     C  sums in int32        as A's rows, 16 columns
 *
 * Where every 32 of depth have parameters of their own, A has sixteen rows: the eight with zeros
 * in the second half of the depth, then with zeros in the first, and one product gives the
 * sums of both groups.
 *
 * The sums are exact, the float operations around them those of codes_simd.h in the same order:
 * the same bits. What does not fill tiles (a single row, sides that are no multiple of 64) and everything that
 * is not a product is avx512's.
 */
#include "kernel/codes_avx512.h"
#include "kernel/codes_fields_simd.h"
#include "kernel/tiles_amx.h"

enum { DEPTH = 64, COLS = 64, QUADS = DEPTH / 4, TILES = COLS / 16, ROWS = 4, BLOCKS = WN_CODES_DEPTH / DEPTH };

/* Tiles 0 to 3 are C, 4 is A, 6 and 7 are B. */
static const wn_tile_config of_8 = {
    .palette = 1, .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 }, .rows = { 8, 8, 8, 8, 8, 8, 16, 16 },
};
static const wn_tile_config of_16 = {
    .palette = 1, .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 }, .rows = { 16, 16, 16, 16, 16, 16, 16, 16 },
};

typedef struct { _Alignas(64) int8_t row[16][64]; } tile_a;
typedef struct { _Alignas(64) uint8_t row[TILES][QUADS][64]; } tile_b;
typedef struct { _Alignas(64) int32_t row[TILES][16][16]; } tile_c;

/* ---- A --------------------------------------------------------------------------------------- */

/* 64 of depth of a row of x: 4 high, 4 low bytes in turn become rows of either. */
INLINE void split_row(__m512i *hi, __m512i *lo, const wn_codes_x *x, int block)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const char *from = (const char *)(x + 1) + 128 * block;
    ivec a = i_load(from), b = i_load(from + 64);
    *hi = _mm512_permutex2var_epi32(a, even, b);
    *lo = _mm512_permutex2var_epi32(a, odd, b);
}

INLINE void make_a(tile_a *a, const wn_codes_x *x, size_t stride, int rows, int block, const bool halves)
{
    for (int i = 0; i < ROWS; i++) {
        __m512i hi = i_zero(), lo = i_zero();
        if (i < rows) split_row(&hi, &lo, (const wn_codes_x *)(const void *)((const char *)x + (size_t)i * stride), block);
        if (!halves) {
            _mm512_store_si512(a->row[2 * i], hi);
            _mm512_store_si512(a->row[2 * i + 1], lo);
            continue;
        }
        const __mmask16 first = 0x00ff, second = 0xff00;
        _mm512_store_si512(a->row[2 * i], _mm512_maskz_mov_epi32(first, hi));
        _mm512_store_si512(a->row[2 * i + 1], _mm512_maskz_mov_epi32(first, lo));
        _mm512_store_si512(a->row[8 + 2 * i], _mm512_maskz_mov_epi32(second, hi));
        _mm512_store_si512(a->row[8 + 2 * i + 1], _mm512_maskz_mov_epi32(second, lo));
    }
}

/* ---- B --------------------------------------------------------------------------------------- */

/* Columns [col, col + 64) of rows [64 block, + 64). */
INLINE void make_b(tile_b *b, const wn_codes_product *p, const int low, const int high, const bool mapped, int col, int block)
{
    const int narrow = high && high < low ? high : low, quads = 8 / narrow;
    const size_t step = 4 * WN_CODES_PANEL;
    const ivec table = mapped ? _mm512_sub_epi8(i_table(p->table), i_set8(-128)) : i_zero();
    for (int v = 0; v < TILES; v += 2) {
        const uint8_t *at_low = p->low + wn_codes_plane_bytes(low, p->depth, col + 16 * v);
        const uint8_t *at_high = high ? p->high + wn_codes_plane_bytes(high, p->depth, col + 16 * v) : NULL;
        at_low += wn_codes_plane_bytes(low, DEPTH, WN_CODES_PANEL) * (size_t)block;
        if (high) at_high += wn_codes_plane_bytes(high, DEPTH, WN_CODES_PANEL) * (size_t)block;
        for (int q = 0; q < QUADS; q += quads) {
            UNROLL for (int j = 0; j < quads; j++)
                for (int w = 0; w < 2; w++)
                    _mm512_store_si512(b->row[v + w][q + j], codes(at_low + 64 * w, high ? at_high + 64 * w : NULL, low, high,
                                                                   mapped, table, j, step));
            at_low += step * (size_t)(low / narrow);
            if (high) at_high += step * (size_t)(high / narrow);
        }
    }
}

/* Where 16 columns of a block of 8-bit codes lie as they are, or in a tile_b; stride: of its rows. */
typedef struct { const uint8_t *at; size_t stride; } place;

INLINE place place_of(const wn_codes_product *p, const tile_b *b, const bool as_is, int col, int block)
{
    if (!as_is) return (place){ b->row[col % COLS / 16][0], 64 };
    size_t first = wn_codes_plane_bytes(8, p->depth, col / WN_CODES_PANEL * WN_CODES_PANEL);
    size_t rows = wn_codes_plane_bytes(8, DEPTH, WN_CODES_PANEL) * (size_t)block;
    return (place){ p->low + first + rows + 4 * (col % WN_CODES_PANEL), 4 * WN_CODES_PANEL };
}

/* ---- C --------------------------------------------------------------------------------------- */

/* gcc's _tile_loadd() does not say that it reads memory: what was written must be there. */
#define WRITTEN() __asm__ volatile("" ::: "memory")

INLINE void load_a(const tile_a *a) { _tile_loadd(4, a->row, 64); }

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

/* C v += A times B v mod 2: signed codes, or unsigned ones. */
INLINE void multiply(const int v, const bool mapped)
{
#define CASE(V, B) case V: if (mapped) _tile_dpbssd(V, 4, B); else _tile_dpbsud(V, 4, B); break
    switch (v) {
        CASE(0, 6);
        CASE(1, 7);
        CASE(2, 6);
        CASE(3, 7);
    }
#undef CASE
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

/* Row i of tile v; second: of the second group of a pair. */
INLINE ivec sum_of(const tile_c *c, int v, int i, const bool second)
{
    const int32_t (*row)[16] = c->row[v] + (second ? 8 : 0) + 2 * i;
    return i_add(_mm512_slli_epi32(i_load(row[0]), 8), i_load(row[1]));
}

/* zero times a sum of x, to be taken off. */
INLINE ivec zeros_of(const wn_codes_product *p, int32_t sum_x) { return i_set((int32_t)(0u - (uint32_t)p->zero * (uint32_t)sum_x)); }

INLINE vec value_of(ivec t, __m128i shift, ivec zeros, const bool mapped)
{
    return v_of(mapped ? t : i_add(_mm512_sll_epi32(t, shift), zeros));
}

/* ---- pages -------------------------------------------------------------------------------------- */

INLINE const wn_codes_x *row_at(const wn_codes_product *p, int i, int g)
{
    return (const wn_codes_x *)(const void *)((const char *)p->x + (size_t)i * p->x_stride + (size_t)g * p->x_group);
}

/* What is read next, a share of it with every share of this page's work. */
typedef struct { wn_ahead *ahead; size_t lines; } fetcher;

INLINE void fetch(const fetcher *f)
{
    if (f->ahead) wn_ahead_fetch(f->ahead, f->lines);
}

INLINE fetcher fetcher_of(const wn_codes_product *p)
{
    size_t shares = (size_t)(p->n_cols / COLS * (p->depth / DEPTH) * TILES);
    return (fetcher){ p->ahead, p->ahead ? (wn_ahead_left(p->ahead) / 64 + shares - 1) / shares : 0 };
}

/* Sums of x over each group, of four rows: what zeros and minima are multiplied with. */
typedef int32_t group_sums[WN_CODES_GROUPS][ROWS];

INLINE void add_up(group_sums out, const wn_codes_product *p, int row, int rows)
{
    int step = p->group / WN_CODES_GROUP, n = p->depth / WN_CODES_GROUP;
    memset(out[0], 0, sizeof out[0] * (size_t)(p->group < p->depth ? (n + step - 1) / step : 1));
    for (int i = 0; i < rows; i++) {
        const wn_codes_x *x = row_at(p, row + i, 0);
        if (p->group >= p->depth) {
            out[0][i] = x->total;
            continue;
        }
        _Pragma("GCC unroll 1") for (int b = 0, g = 0; b < n; g++)
            _Pragma("GCC unroll 1") for (int end = b + step < n ? b + step : n; b < end; b++) out[g][i] += x->sum[b];
    }
}

/* The sums of a group against 64 columns, into the chains c. */
INLINE void add_group(const wn_codes_product *p, const tile_c *t, const bool mapped, const bool second, const int32_t sum_x[ROWS],
                      int col, int g, vec c[ROWS][TILES])
{
    const __m128i shift = _mm_cvtsi32_si128(p->shift);
    vec s[TILES];
    UNROLL for (int v = 0; v < TILES; v++) s[v] = v_widen(p->s + (size_t)g * p->param_stride + (size_t)(col + v * W));
    UNROLL for (int i = 0; i < ROWS; i++) {
        ivec zeros = mapped ? i_zero() : zeros_of(p, sum_x[i]);
        UNROLL for (int v = 0; v < TILES; v++)
            c[i][v] = v_fma(s[v], value_of(sum_of(t, v, i, second), shift, zeros, mapped), c[i][v]);
    }
    if (p->m) UNROLL for (int v = 0; v < TILES; v++) {
        vec m = v_widen(p->m + (size_t)g * p->param_stride + (size_t)(col + v * W));
        UNROLL for (int i = 0; i < ROWS; i++) c[i][v] = v_fma(m, v_set((float)sum_x[i]), c[i][v]);
    }
}

INLINE void score_cols(const wn_codes_product *p, const tile_a *a, tile_b *b, tile_c *t, const fetcher *f, const int low, const int high,
                       const bool mapped, const bool halves, group_sums sums, int row, int rows, int col)
{
    const bool as_is = low == 8 && !mapped;
    vec c[ROWS][TILES];
    UNROLL for (int i = 0; i < ROWS; i++)
        UNROLL for (int v = 0; v < TILES; v++) c[i][v] = v_zero();
    for (int block = 0, g = 0, left = 0; block * DEPTH < p->depth; block++) {
        bool fresh = left == 0;
        if (fresh) left = halves ? DEPTH : p->group < p->depth ? p->group : p->depth;
        left -= DEPTH;
        load_a(&a[block]);
        if (!as_is) make_b(&b[block % 2], p, low, high, mapped, col, block);
        WRITTEN();
        UNROLL for (int v = 0; v < TILES; v++) {
            fetch(f);
            load_b(v % 2, place_of(p, &b[block % 2], as_is, col + 16 * v, block));
            if (fresh) clear_c(v);
            multiply(v, mapped);
        }
        if (left > 0 && (block + 1) * DEPTH < p->depth) continue;
        UNROLL for (int v = 0; v < TILES; v++) store_c(v, &t[block % 2]);
        WRITTEN();
        add_group(p, &t[block % 2], mapped, false, sums[g], col, g, c);
        g++;
        if (!halves) continue;
        add_group(p, &t[block % 2], mapped, true, sums[g], col, g, c);
        g++;
    }
    for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < TILES; v++)
            v_store(p->c + (size_t)(row + i) * p->c_stride + col + v * W, v_mul(v_set(row_at(p, row + i, 0)->scale), c[i][v]));
}

/* Products of a page's 64 columns from col on, for the rows of a; sums to t. */
INLINE void mix_products(const wn_codes_product *p, const tile_a *a, tile_b *b, tile_c *t, const fetcher *f, const int low,
                         const int high, const bool mapped, int col, const int *group)
{
    const bool as_is = low == 8 && !mapped;
    int blocks = p->depth / DEPTH;
    for (int block = 0; block < blocks; block++) {
        if (!as_is) make_b(&b[block % 2], p, low, high, mapped, col, block);
        WRITTEN();
        UNROLL for (int v = 0; v < TILES; v++) {
            if (v == 0 || group[v] != group[v - 1]) load_a(&a[group[v] * blocks + block]);
            fetch(f);
            load_b(v % 2, place_of(p, &b[block % 2], as_is, col + 16 * v, block));
            if (block == 0) clear_c(v);
            multiply(v, mapped);
        }
    }
    UNROLL for (int v = 0; v < TILES; v++) store_c(v, t);
    WRITTEN();
}

INLINE void mix_sums(const wn_codes_product *p, const tile_c *t, const bool mapped, int row, int rows, int col, const int *group)
{
    const __m128i shift = _mm_cvtsi32_si128(p->shift);
    for (int i = 0; i < rows; i++) {
        float *c = p->c + (size_t)(row + i) * p->c_stride + col;
        vec scale = v_zero(), offset = v_zero();
        ivec zeros = i_zero();
        UNROLL for (int v = 0; v < TILES; v++) {
            if (v == 0 || group[v] != group[v - 1]) {
                const wn_codes_x *x = row_at(p, row + i, group[v]);
                scale = v_set(x->scale);
                offset = v_set(x->offset);
                if (!mapped) zeros = zeros_of(p, x->total);
            }
            vec y = v_fma(scale, value_of(sum_of(t, v, i, false), shift, zeros, mapped), p->add ? v_load(c + v * W) : v_zero());
            v_store(c + v * W, v_add(y, offset));
        }
    }
}

INLINE void scores(const wn_codes_product *in, const int low, const int high, const bool mapped, const bool halves)
{
    const wn_codes_product copy = *in, *p = &copy;      /* which no store can be meant for */
    group_sums sums;
    tile_a a[BLOCKS];
    tile_b b[2];
    tile_c t[2];
    fetcher f = fetcher_of(p);
    wn_tiles_use(halves ? &of_16 : &of_8);
    for (int row = 0; row < p->n_rows; row += ROWS) {
        int rows = WN_MIN(ROWS, p->n_rows - row);
        if (row) f.ahead = NULL;
        if (!mapped || p->m) add_up(sums, p, row, rows);
        for (int k = 0; k < p->depth; k += DEPTH) make_a(&a[k / DEPTH], row_at(p, row, 0), p->x_stride, rows, k / DEPTH, halves);
        for (int col = 0; col < p->n_cols; col += COLS)
            score_cols(p, a, b, t, &f, low, high, mapped, halves, sums, row, rows, col);
    }
    wn_tiles_done();
}

INLINE void mixes(const wn_codes_product *in, const int low, const int high, const bool mapped)
{
    const wn_codes_product copy = *in, *p = &copy;
    tile_a a[WN_CODES_GROUPS];
    tile_b b[2];
    tile_c t[2];
    int blocks = p->depth / DEPTH, groups = 0, group_of[WN_CODES_DEPTH / 16];
    for (int v = 0, left = 0; v < p->n_cols / 16; v++, left -= 16) {
        if (!left) groups++, left = p->col_group;
        group_of[v] = groups - 1;
    }
    fetcher f = fetcher_of(p);
    wn_tiles_use(&of_8);
    for (int row = 0; row < p->n_rows; row += ROWS) {
        int rows = WN_MIN(ROWS, p->n_rows - row);
        if (row) f.ahead = NULL;
        for (int g = 0; g < groups; g++)
            for (int block = 0; block < blocks; block++)
                make_a(&a[g * blocks + block], row_at(p, row, g), p->x_stride, rows, block, false);
        for (int col = 0; col < p->n_cols; col += 2 * COLS) {       /* sums of one half while tiles have the other */
            bool both = col + COLS < p->n_cols;
            const int *group = group_of + col / 16;
            mix_products(p, a, b, &t[0], &f, low, high, mapped, col, group);
            if (both) mix_products(p, a, b, &t[1], &f, low, high, mapped, col + COLS, group + TILES);
            mix_sums(p, &t[0], mapped, row, rows, col, group);
            if (both) mix_sums(p, &t[1], mapped, row, rows, col + COLS, group + TILES);
        }
    }
    wn_tiles_done();
}

/* ---- the table ------------------------------------------------------------------------------------ */

static bool fills_tiles(const wn_codes_product *p, bool mapped)
{
    if (mapped && (p->zero != 128 || p->shift)) return false;
    return p->n_rows > 1 && p->depth % DEPTH == 0 && p->n_cols % COLS == 0;
}

/* Groups that a tile product takes apart or leaves together. */
static bool groups_fit(const wn_codes_product *p)
{
    return p->group >= p->depth || p->group == WN_CODES_GROUP || p->group % DEPTH == 0;
}

static bool mix_fits(const wn_codes_product *p)
{
    return (p->n_cols + p->col_group - 1) / p->col_group * (p->depth / DEPTH) <= WN_CODES_GROUPS;
}

#define KIND(NAME, WHICH, LOW, HIGH, MAPPED)                                                       \
    static void score_##NAME(const wn_codes_product *p)                                            \
    {                                                                                              \
        if (!fills_tiles(p, MAPPED) || !groups_fit(p)) wn_planes_ops_avx512.score[WHICH](p);                \
        else if (p->group == WN_CODES_GROUP) scores(p, LOW, HIGH, MAPPED, true);                   \
        else scores(p, LOW, HIGH, MAPPED, false);                                                  \
    }                                                                                              \
    static void mix_##NAME(const wn_codes_product *p)                                              \
    {                                                                                              \
        if (!fills_tiles(p, MAPPED) || !mix_fits(p)) wn_planes_ops_avx512.mix[WHICH](p);                    \
        else mixes(p, LOW, HIGH, MAPPED);                                                          \
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
    .score = { score_8, score_44, score_42, score_41, score_4, score_21, score_2, score_4t, score_21t, score_2t },
    .mix = { mix_8, mix_44, mix_42, mix_41, mix_4, mix_21, mix_2, mix_4t, mix_21t, mix_2t },
    .hold = wn_tiles_hold,
};
