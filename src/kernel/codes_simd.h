/* kernel/codes_simd.h - the leaf loops of encoded pages for any vector width.
 *
 * Included once by codes_avx2.c and once by codes_avx512.c, after they have said what a
 * vector is. It stands on these words:
 *
 *     vec, ivec, W            vectors of W floats, of W int32 (and of 4 W codes)
 *     v_zero v_set v_load v_store v_mul v_add v_fma v_widen v_or_0 v_finite_or_0 v_int
 *     i_load i_zero i_and i_or i_srl i_sll i_set8 i_map i_bits i_max i_sum i_add_sums i_add i_set i_shift i_store v_of
 *     acc, acc_zero acc_step acc_value
 *                             one sum of products of codes with x: a step takes 4 rows of W columns; narrow
 *                             x is within a signed byte
 *     pack64, QUAD_BYTES      64 integers into the arrangement that acc_step wants, where 4 begin so far apart
 *
 * A tile is up to 4 rows of x by up to two vectors of columns, down the depth of a panel. The codes
 * of a unit (the rows of a block of the narrowest plane) are taken out of their fields once
 * for all rows of the tile; every field's place is a constant of the inlined body.
 */
#include "kernel/codes_fields_simd.h"

/* ---- a tile ------------------------------------------------------------------------------ */

typedef struct { const uint8_t *low, *high; int width; } panel;     /* width: columns */

typedef struct {
    const wn_codes_product *p;
    panel in;
    int at;                             /* first column, in the panel */
    wn_fetcher *fetcher;                /* asked with each unit; or NULL */
} tile;

/* Keeps a pointer a pointer: left to itself gcc turns each operand of a step into one of its own
 * and spills them. */
#define PLAIN(p) __asm__("" : "+r"(p))

/* sum[i][v] += units [from, to) of the depth; rows: integers of the first row. */
INLINE void product(const tile *t, const char *rows, const int MR, const int NV, const int low,
                    const int high, const bool mapped, const bool narrow_x, ivec table, int from,
                    int to, acc sum[4][2])
{
    /* of a block */
    const int narrow = high && high < low ? high : low, quads = 8 / narrow, units = 16 / quads;
    const size_t block = (size_t)t->in.width * 4;               /* bytes */
    const size_t low_step = block * (size_t)(low / narrow),
                 high_step = block * (size_t)(high / narrow);
    const uint8_t *at_low = t->in.low + (size_t)from * low_step + t->at * 4;
    const uint8_t *at_high = high ? t->in.high + (size_t)from * high_step + t->at * 4 : NULL;
    const char *x[4];
    size_t first = (size_t)(from / units) * WN_CODES_BLOCK_BYTES +
                   (size_t)(from % units * quads) * QUAD_BYTES;
    UNROLL for (int i = 0; i < MR; i++) x[i] = rows + first + i * 2 * WN_CODES_BLOCK;
    for (int u = from; u < to;) {
        if (t->fetcher) wn_fetch(t->fetcher);
        UNROLL for (int i = 0; i < MR; i++) PLAIN(x[i]);
        PLAIN(at_low);
        UNROLL for (int j = 0; j < quads; j++) {
            ivec c[2];
            UNROLL for (int v = 0; v < NV; v++)
                c[v] = codes(at_low + v * W * 4, at_high + v * W * 4, low, high, mapped, table, j,
                             block);
            UNROLL for (int i = 0; i < MR; i++) UNROLL for (int v = 0; v < NV; v++)
                sum[i][v] = acc_step(sum[i][v], c[v], x[i] + j * QUAD_BYTES, narrow_x);
        }
        size_t step = (size_t)quads * QUAD_BYTES;
        if (++u % units == 0) step += WN_CODES_BLOCK_BYTES - 16 * QUAD_BYTES;
        UNROLL for (int i = 0; i < MR; i++) x[i] += step;
        at_low += low_step;
        if (high) at_high += high_step;
    }
}

INLINE void clear(const int MR, const int NV, acc sum[4][2])
{
    UNROLL for (int i = 0; i < MR; i++)
        UNROLL for (int v = 0; v < NV; v++) sum[i][v] = acc_zero();
}

/* Rows row .. row + MR - 1, of the same four. */
INLINE void score_tile(const tile *t, const wn_codes_page *page, const int MR, const int NV,
                       const int low, const int high, const bool mapped, int row, int col)
{
    const wn_codes_product *p = t->p;
    const wn_codes_x *x = wn_codes_rows(p->x, p->x_stride, row);
    const int narrow = high && high < low ? high : low, unit = 32 / narrow, first = row % 4;
    const char *rows = wn_codes_integers(x) + first * 2 * WN_CODES_BLOCK;
    ivec table = mapped ? i_table(p->table) : i_zero();
    vec c[4][2];
    UNROLL for (int i = 0; i < MR; i++)
        UNROLL for (int v = 0; v < NV; v++) c[i][v] = v_zero();
    for (int k = 0, g = 0; k < p->depth; k += p->group, g++) {
        int end = p->depth < k + p->group ? p->depth : k + p->group;
        acc sum[4][2];
        clear(MR, NV, sum);
        product(t, rows, MR, NV, low, high, mapped, wn_codes_narrow_of(low, high), table, k / unit,
                end / unit, sum);
        vec s[2], m[2];
        UNROLL for (int v = 0; v < NV; v++) {
            s[v] = v_widen(page->s + (size_t)g * p->param_stride + (size_t)(col + v * W));
            m[v] = page->m ? v_widen(page->m + (size_t)g * p->param_stride + (size_t)(col + v * W))
                           : v_zero();
        }
        UNROLL for (int i = 0; i < MR; i++) {
            int32_t sum_x = 0;
            for (int b = k / WN_CODES_GROUP; b * WN_CODES_GROUP < end; b++)
                sum_x += x->sum[b][first + i];
            UNROLL for (int v = 0; v < NV; v++) {
                c[i][v] = v_fma(s[v],
                                v_of(i_add(i_shift(acc_value(sum[i][v]), p->shift),
                                           i_set(wn_codes_zeros(p->zero, sum_x)))),
                                c[i][v]);
                if (page->m) c[i][v] = v_fma(m[v], v_set((float)sum_x), c[i][v]);
            }
        }
    }
    UNROLL for (int i = 0; i < MR; i++) UNROLL for (int v = 0; v < NV; v++)
        v_store(page->c + (size_t)(row + i) * p->c_stride + col + v * W,
                v_mul(v_set(x->scale[first + i]), c[i][v]));
}

INLINE void mix_tile(const tile *t, const wn_codes_page *page, const int MR, const int NV,
                     const int low, const int high, const bool mapped, int row, int col, bool add)
{
    const wn_codes_product *p = t->p;
    const int narrow = high && high < low ? high : low, unit = 32 / narrow;
    const char *rows = page->x + (size_t)(col / p->col_group) * p->x_group +
                       row * 2 * WN_CODES_BLOCK;
    ivec table = mapped ? i_table(p->table) : i_zero();
    acc sum[4][2];
    clear(MR, NV, sum);
    product(t, rows, MR, NV, low, high, mapped, false, table, page->from / unit, page->to / unit,
            sum);
    UNROLL for (int i = 0; i < MR; i++)
        UNROLL for (int v = 0; v < NV; v++) {
            int32_t *y = p->t + (size_t)(row + i) * p->t_stride + col + v * W;
            i_store(y, add ? i_add(i_load(y), acc_value(sum[i][v])) : acc_value(sum[i][v]));
        }
}

/* ---- all tiles of all pages ------------------------------------------------------------------ */

INLINE panel panel_of(const wn_codes_product *p, const wn_codes_page *page, const int low,
                      const int high, int col)
{
    int first = col / WN_CODES_PANEL * WN_CODES_PANEL, left = p->n_cols - first;
    return (panel){
        .low = page->low + wn_codes_plane_bytes(low, p->depth, first),
        .high = high ? page->high + wn_codes_plane_bytes(high, p->depth, first) : NULL,
        .width = left < WN_CODES_PANEL ? left : WN_CODES_PANEL,
    };
}

#define TILE(MR, NV)                                                                               \
    (scores ? score_tile(&t, page, MR, NV, low, high, mapped, row, col)                            \
            : mix_tile(&t, page, MR, NV, low, high, mapped, row, col, add))

#define TILES(NV)                                                                                  \
    do {                                                                                           \
        if (rows == 4) TILE(4, NV);                                                                \
        else if (rows == 2) TILE(2, NV);                                                           \
        else TILE(1, NV);                                                                          \
    } while (0)

INLINE void page_tiles(const wn_codes_product *p, const wn_codes_page *page, const int low,
                       const int high, const bool mapped, const bool scores, bool add)
{
    tile t = { .p = p };
    for (int row = 0, rows; row < p->n_rows; row += rows) {
        int left = p->n_rows - row;
        rows = left >= 4 ? 4 : left >= 2 ? 2 : 1;       /* three: a third kind would cost more to
                                                           compile than it gains */
        for (int col = 0; col < p->n_cols; col += t.in.width < STEP ? t.in.width : STEP) {
            t.in = panel_of(p, page, low, high, col);
            t.at = col % WN_CODES_PANEL;
            t.fetcher = row == 0 ? p->fetcher : NULL;
            if (STEP / W == 2 && t.in.width >= STEP) TILES(2);
            else TILES(1);
        }
    }
}

INLINE void all_tiles(const wn_codes_product *p, const int low, const int high, const bool mapped,
                      const bool scores)
{
    for (int k = 0; k < p->n_pages; k++)
        page_tiles(p, &p->pages[k], low, high, mapped, scores, p->add || k > 0);
}

#define KIND(NAME, LOW, HIGH, MAPPED)                                                              \
    static void score_##NAME(const wn_codes_product *p) { all_tiles(p, LOW, HIGH, MAPPED, true); } \
    static void mix_##NAME(const wn_codes_product *p) { all_tiles(p, LOW, HIGH, MAPPED, false); }
KIND(8, 8, 0, false)
KIND(44, 4, 4, false)
KIND(42, 4, 2, false)
KIND(41, 4, 1, false)
KIND(4, 4, 0, false)
KIND(21, 2, 1, false)
KIND(2, 2, 0, false)
KIND(4t, 4, 0, true)
KIND(21t, 2, 1, true)
KIND(2t, 2, 0, true)

/* ---- rows of x ----------------------------------------------------------------------------- */

enum { N64 = 64 / W };

/* 64 of n values from i on, times by, zeros beyond. */
INLINE void load64(vec y[N64], const float *v, const float *by, int i, int n)
{
    _Alignas(64) float buf[2][64];
    if (n - i < 64) {
        memset(buf, 0, sizeof buf);
        memcpy(buf[0], v + i, sizeof(float) * (size_t)(n - i));
        if (by) memcpy(buf[1], by + i, sizeof(float) * (size_t)(n - i));
        v = buf[0];
        if (by) by = buf[1];
        i = 0;
    }
    for (int k = 0; k < N64; k++)
        y[k] = by ? v_mul(v_load(v + i + k * W), v_load(by + i + k * W)) : v_load(v + i + k * W);
}

INLINE float set_scale(wn_codes_x *x, int i, uint32_t most, int top)
{
    float amax = wn_elem_from_bits(most);
    x->scale[i] = most >= 0x7f800000u ? NAN : 0;
    if (most >= 0x7f800000u || amax < 0x1p-100f) return 0;
    x->scale[i] = amax / (float)top;
    return (float)top / amax;
}

INLINE ivec sum32(const ivec *y)
{
    ivec s = i_add(y[0], y[1]);
    for (int k = 2; k < N64 / 2; k++) s = i_add(s, y[k]);
    return s;
}

static void quantise(wn_codes_x *x, int i, const float *v, const float *by, int n, int top)
{
    ivec most = i_zero(), k[N64];
    vec y[N64];
    for (int at = 0; at < n; at += 64) {
        load64(y, v, by, at, n);
        for (int j = 0; j < N64; j++) most = i_max(most, i_bits(y[j]));
    }
    float inv = set_scale(x, i, i_top(most), top);
    char *out = wn_codes_integers(x) + i * 2 * WN_CODES_BLOCK;
    x->total[i] = 0;
    for (int at = 0, g = 0; at < n; at += 64, out += WN_CODES_BLOCK_BYTES, g += 2) {
        load64(y, v, by, at, n);
        for (int j = 0; j < N64; j++) k[j] = inv > 0 ? v_int(v_mul(y[j], v_set(inv))) : i_zero();
        x->sum[g][i] = i_sum(sum32(k));
        x->sum[g + 1][i] = i_sum(sum32(k + N64 / 2));
        x->total[i] += x->sum[g][i] + x->sum[g + 1][i];
        pack64(out, k);
    }
}

static void largest(uint32_t most[4], const float *w, size_t w_stride, int n_rows,
                    const uint16_t *s, size_t stride, int n_groups)
{
    vec by[N64];
    for (int j = 0; j < N64; j++) {
        ivec x = i_bits(v_widen(s + j * W));
        for (int g = 1; g < n_groups; g++)
            x = i_max(x, i_bits(v_widen(s + (size_t)g * stride + j * W)));
        by[j] = v_from_bits(x);
    }
    for (int i = 0; i < n_rows; i++, w += w_stride) {
        ivec top = i_zero();
        for (int j = 0; j < N64; j++) {
            vec y = v_load(w + j * W);
            top = i_max(top, i_bits(v_or_0(y, v_mul(y, by[j]))));
        }
        uint32_t x = i_top(top);
        if (x > most[i]) most[i] = x;
    }
}

static void begin(wn_codes_x *x, int n_groups, const uint32_t most[4], float inverse[4])
{
    for (int i = 0; i < 4; i++) inverse[i] = set_scale(x, i, most[i], WN_CODES_X_MAX);
    memset(x->total, 0, sizeof x->total);
    for (int g = 1; g < n_groups; g++) {
        memcpy(x[g].scale, x->scale, sizeof x->scale);
        memset(x[g].total, 0, sizeof x->total);
    }
}

/* Scales that are not finite belong to slots of weight 0: a row that weighs one has scale NaN. */
static void weigh(char *block, size_t x_group, wn_codes_x *x, const float *w, size_t w_stride,
                  int n_rows, const float inverse[4], const uint16_t *s, size_t stride,
                  int n_groups, wn_fetcher *f)
{
    _Alignas(64) float z[4][64];
    vec by[N64];
    for (int i = 0; i < n_rows; i++)
        for (int j = 0; j < N64; j++)
            v_store(&z[i][j * W],
                    v_mul(v_load(w + (size_t)i * w_stride + j * W), v_set(inverse[i])));
    for (int g = 0; g < n_groups; g++, block += x_group, s += stride) {
        ivec sums[4] = { i_zero(), i_zero(), i_zero(), i_zero() };
        for (int j = 0; j < N64; j++) by[j] = v_finite_or_0(v_widen(s + j * W));
        UNROLL for (int i = 0; i < 4; i++) {
            ivec k[N64];
            if (i >= n_rows) break;
            wn_fetch(f);
            for (int j = 0; j < N64; j++) k[j] = v_int(v_mul(v_load(&z[i][j * W]), by[j]));
            sums[i] = i_add(sum32(k), sum32(k + N64 / 2));
            pack64(block + i * 2 * WN_CODES_BLOCK, k);
        }
        i_add_sums(x[g].total, sums);
    }
}

static void settle(float *c, const int32_t *t, const wn_codes_x *x, int i, int n, int zero,
                   int shift, bool add)
{
    ivec zeros = i_set(wn_codes_zeros(zero, x->total[i]));
    vec scale = v_set(x->scale[i]), offset = v_set(x->offset[i]);
    for (int k = 0; k < n; k += W) {
        _Alignas(64) float rest[W];
        float *at = n - k < W ? rest : c + k;
        if (n - k < W) memcpy(rest, c + k, sizeof *c * (size_t)(n - k));
        vec y = v_fma(scale, v_of(i_add(i_shift(i_load(t + k), shift), zeros)),
                      add ? v_load(at) : v_zero());
        v_store(at, v_add(y, offset));
        if (n - k < W) memcpy(c + k, rest, sizeof *c * (size_t)(n - k));
    }
}

static void widen(float *out, const uint16_t *h, int n)
{
    int i = 0;
    for (; i + W <= n; i += W) v_store(out + i, v_widen(h + i));
    for (; i < n; i++) out[i] = wn_elem_from_f16(h[i]);
}

static float dot(const float *v, const float *by, int n)
{
    _Alignas(64) float chains[16];
    vec sum[16 / W];
    int i = 0;
    for (int k = 0; k < 16 / W; k++) sum[k] = v_zero();
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16 / W; k++) {
            vec x = v_load(v + i + k * W);
            sum[k] = v_fma(x, v_or_0(x, v_load(by + i + k * W)), sum[k]);
        }
    for (int k = 0; k < 16 / W; k++) v_store(chains + k * W, sum[k]);
    for (; i < n; i++)
        if (v[i] != 0) chains[i & 15] = fmaf(v[i], by[i], chains[i & 15]);
    return wn_tree16(chains);
}
