/* kernel/codes_simd.h - the leaf loops of encoded pages for any vector width.
 *
 * Included once by codes_avx2.c and once by codes_avx512.c, after they have said what a
 * vector is. It stands on these words:
 *
 *     vec, ivec, W            vectors of W floats, of W int32 (and of 4 W codes)
 *     v_zero v_set v_load v_store v_mul v_add v_fma v_widen v_or_0 v_int
 *     i_load i_zero i_and i_or i_srl i_sll i_set8 i_map i_bits i_max i_sum i_add i_sub i_set i_shl v_of
 *     acc, acc_zero acc_step acc_value
 *                             one sum of products of codes with x: a step takes 4 rows of W columns
 *     pack64                  64 integers into the arrangement that acc_step wants
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
    const char *x[4];                   /* integers of the rows */
    wn_ahead *ahead;                    /* or NULL */
    size_t lines;                       /* of it, for each unit */
} tile;

/* Keeps a pointer a pointer: left to itself gcc turns each operand of a step into one of its own
 * and spills them. */
#define PLAIN(p) __asm__("" : "+r"(p))

/* sum[i][v] += units [from, to) of the depth */
INLINE void product(const tile *t, const int MR, const int NV, const int low, const int high, const bool mapped,
                    ivec table, int from, int to, acc sum[4][2])
{
    const int narrow = high && high < low ? high : low, quads = 8 / narrow;
    const size_t block = (size_t)t->in.width * 4;               /* bytes */
    const size_t low_step = block * (size_t)(low / narrow), high_step = block * (size_t)(high / narrow);
    const uint8_t *at_low = t->in.low + (size_t)from * low_step + t->at * 4;
    const uint8_t *at_high = high ? t->in.high + (size_t)from * high_step + t->at * 4 : NULL;
    const char *x[4];
    UNROLL for (int i = 0; i < MR; i++) x[i] = t->x[i] + (size_t)(from * quads) * 8;
    for (int u = from; u < to; u++) {
        if (t->ahead) wn_ahead_fetch(t->ahead, t->lines);
        UNROLL for (int i = 0; i < MR; i++) PLAIN(x[i]);
        PLAIN(at_low);
        UNROLL for (int j = 0; j < quads; j++) {
            ivec c[2];
            UNROLL for (int v = 0; v < NV; v++)
                c[v] = codes(at_low + v * W * 4, at_high + v * W * 4, low, high, mapped, table, j, block);
            UNROLL for (int i = 0; i < MR; i++)
                UNROLL for (int v = 0; v < NV; v++) sum[i][v] = acc_step(sum[i][v], c[v], x[i] + j * 8);
        }
        UNROLL for (int i = 0; i < MR; i++) x[i] += quads * 8;
        at_low += low_step;
        if (high) at_high += high_step;
    }
}

INLINE void clear(const int MR, const int NV, acc sum[4][2])
{
    UNROLL for (int i = 0; i < MR; i++)
        UNROLL for (int v = 0; v < NV; v++) sum[i][v] = acc_zero();
}

INLINE const wn_codes_x *row_at(const wn_codes_product *p, int i, int g)
{
    return (const wn_codes_x *)(const void *)((const char *)p->x + (size_t)i * p->x_stride + (size_t)g * p->x_group);
}

INLINE ivec minus_zero(const wn_codes_product *p, int32_t sum_x) { return i_set((int32_t)(0u - (uint32_t)p->zero * (uint32_t)sum_x)); }

INLINE void score_tile(const tile *t, const int MR, const int NV, const int low, const int high, const bool mapped,
                       int row, int col)
{
    const wn_codes_product *p = t->p;
    const int narrow = high && high < low ? high : low, unit = 32 / narrow;
    ivec table = mapped ? i_table(p->table) : i_zero();
    vec c[4][2];
    UNROLL for (int i = 0; i < MR; i++)
        UNROLL for (int v = 0; v < NV; v++) c[i][v] = v_zero();
    for (int k = 0, g = 0; k < p->depth; k += p->group, g++) {
        int end = p->depth < k + p->group ? p->depth : k + p->group;
        acc sum[4][2];
        clear(MR, NV, sum);
        product(t, MR, NV, low, high, mapped, table, k / unit, end / unit, sum);
        vec s[2], m[2];
        UNROLL for (int v = 0; v < NV; v++) {
            s[v] = v_widen(p->s + (size_t)g * p->param_stride + (size_t)(col + v * W));
            m[v] = p->m ? v_widen(p->m + (size_t)g * p->param_stride + (size_t)(col + v * W)) : v_zero();
        }
        UNROLL for (int i = 0; i < MR; i++) {
            const wn_codes_x *x = row_at(p, row + i, 0);
            int32_t sum_x = 0;
            for (int b = k / WN_CODES_GROUP; b * WN_CODES_GROUP < end; b++) sum_x += x->sum[b];
            UNROLL for (int v = 0; v < NV; v++) {
                c[i][v] = v_fma(s[v], v_of(i_add(acc_value(sum[i][v], p->shift), minus_zero(p, sum_x))), c[i][v]);
                if (p->m) c[i][v] = v_fma(m[v], v_set((float)sum_x), c[i][v]);
            }
        }
    }
    UNROLL for (int i = 0; i < MR; i++)
        UNROLL for (int v = 0; v < NV; v++)
            v_store(p->c + (size_t)(row + i) * p->c_stride + col + v * W, v_mul(v_set(row_at(p, row + i, 0)->scale), c[i][v]));
}

INLINE void mix_tile(const tile *t, const int MR, const int NV, const int low, const int high, const bool mapped,
                     int row, int col)
{
    const wn_codes_product *p = t->p;
    const int narrow = high && high < low ? high : low, unit = 32 / narrow;
    ivec table = mapped ? i_table(p->table) : i_zero();
    acc sum[4][2];
    clear(MR, NV, sum);
    product(t, MR, NV, low, high, mapped, table, p->from / unit, p->to / unit, sum);
    UNROLL for (int i = 0; i < MR; i++) {
        const wn_codes_x *x = row_at(p, row + i, col / p->col_group);
        UNROLL for (int v = 0; v < NV; v++) {
            float *c = p->c + (size_t)(row + i) * p->c_stride + col + v * W;
            vec y = v_fma(v_set(x->scale), v_of(i_add(acc_value(sum[i][v], p->shift), minus_zero(p, x->total))),
                          p->add ? v_load(c) : v_zero());
            v_store(c, v_add(y, v_set(x->offset)));
        }
    }
}

/* ---- all tiles of a page --------------------------------------------------------------------- */

INLINE panel panel_of(const wn_codes_product *p, const int low, const int high, int col)
{
    int first = col / WN_CODES_PANEL * WN_CODES_PANEL, left = p->n_cols - first;
    return (panel){
        .low = p->low + wn_codes_plane_bytes(low, p->depth, first),
        .high = high ? p->high + wn_codes_plane_bytes(high, p->depth, first) : NULL,
        .width = left < WN_CODES_PANEL ? left : WN_CODES_PANEL,
    };
}

#define TILE(MR, NV, WHAT) WHAT(&t, MR, NV, low, high, mapped, row, col)

#define TILES(NV, WHAT)                                                                            \
    do {                                                                                           \
        if (rows == 4) TILE(4, NV, WHAT);                                                          \
        else if (rows == 2) TILE(2, NV, WHAT);                                                     \
        else TILE(1, NV, WHAT);                                                                    \
    } while (0)

INLINE void all_tiles(const wn_codes_product *p, const int low, const int high, const bool mapped, const bool scores)
{
    tile t = { .p = p };
    if (p->ahead) {                             /* by the first rows, with every unit of every panel */
        int units = p->depth / wn_codes_unit_of(low, high) * ((p->n_cols + WN_CODES_PANEL - 1) / WN_CODES_PANEL);
        t.lines = (wn_ahead_left(p->ahead) / 64 + (size_t)units - 1) / (size_t)units;
    }
    for (int row = 0, rows; row < p->n_rows; row += rows) {
        int left = p->n_rows - row;
        rows = left >= 4 ? 4 : left >= 2 ? 2 : 1;       /* three: a third kind would cost more to compile than it gains */
        for (int col = 0; col < p->n_cols; col += t.in.width < STEP ? t.in.width : STEP) {
            t.in = panel_of(p, low, high, col);
            t.at = col % WN_CODES_PANEL;
            t.ahead = row == 0 && t.at == 0 ? p->ahead : NULL;
            for (int i = 0; i < rows; i++)
                t.x[i] = (const char *)(row_at(p, row + i, scores ? 0 : col / p->col_group) + 1);
            if (STEP / W == 2 && t.in.width >= STEP) {
                if (scores) TILES(2, score_tile);
                else TILES(2, mix_tile);
            } else {
                if (scores) TILES(1, score_tile);
                else TILES(1, mix_tile);
            }
        }
    }
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
    for (int k = 0; k < N64; k++) y[k] = by ? v_mul(v_load(v + i + k * W), v_load(by + i + k * W)) : v_load(v + i + k * W);
}

INLINE float set_scale(wn_codes_x *x, uint32_t most)
{
    float amax = wn_elem_from_bits(most);
    x->scale = most >= 0x7f800000u ? NAN : 0;
    if (most >= 0x7f800000u || amax < 0x1p-100f) return 0;
    x->scale = amax / (float)WN_CODES_X_MAX;
    return (float)WN_CODES_X_MAX / amax;
}

INLINE ivec sum32(const ivec *y)
{
    ivec s = i_add(y[0], y[1]);
    for (int k = 2; k < N64 / 2; k++) s = i_add(s, y[k]);
    return s;
}

static void quantise(wn_codes_x *x, const float *v, const float *by, int n)
{
    ivec most = i_zero(), k[N64];
    vec y[N64];
    for (int i = 0; i < n; i += 64) {
        load64(y, v, by, i, n);
        for (int j = 0; j < N64; j++) most = i_max(most, i_bits(y[j]));
    }
    float inv = set_scale(x, i_top(most));
    char *out = (char *)(x + 1);
    x->total = 0;
    for (int i = 0, g = 0; i < n; i += 64, out += 128, g += 2) {
        load64(y, v, by, i, n);
        for (int j = 0; j < N64; j++) k[j] = inv > 0 ? v_int(v_mul(y[j], v_set(inv))) : i_zero();
        x->sum[g] = i_sum(sum32(k));
        x->sum[g + 1] = i_sum(sum32(k + N64 / 2));
        x->total += x->sum[g] + x->sum[g + 1];
        pack64(out, k);
    }
}

static void scales(wn_codes_scales *out, const uint16_t *s, size_t stride, int n_groups, int n)
{
    uint16_t buf[WN_CODES_SLOTS];
    for (int g = 0; g < n_groups; g++, s += stride) {
        const uint16_t *from = s;
        if (n < WN_CODES_SLOTS) {
            memset(buf, 0, sizeof buf);
            memcpy(buf, s, sizeof *s * (size_t)n);
            from = buf;
        }
        for (int j = 0; j < N64; j++) {
            vec x = v_widen(from + j * W);
            v_store(out->s[g] + j * W, x);
            ivec most = g ? i_max(i_bits(v_load(out->most + j * W)), i_bits(x)) : i_bits(x);
            v_store(out->most + j * W, v_from_bits(most));
        }
    }
}

static void weigh(wn_codes_x *x, size_t x_group, const float *w, const wn_codes_scales *by, int n_groups)
{
    ivec most = i_zero(), k[N64];
    vec y[N64];
    for (int j = 0; j < N64; j++) {
        y[j] = v_load(w + j * W);
        most = i_max(most, i_bits(v_or_0(y[j], v_mul(y[j], v_load(by->most + j * W)))));
    }
    float inv = set_scale(x, i_top(most)), scale = x->scale;
    vec z[N64];
    for (int j = 0; j < N64; j++) z[j] = v_mul(y[j], v_set(inv));
    for (int g = 0; g < n_groups; g++, x = (wn_codes_x *)(void *)((char *)x + x_group)) {
        for (int j = 0; j < N64; j++)
            k[j] = inv > 0 ? v_int(v_or_0(y[j], v_mul(z[j], v_load(by->s[g] + j * W)))) : i_zero();
        x->scale = scale;
        x->total = i_sum(i_add(sum32(k), sum32(k + N64 / 2)));
        pack64(x + 1, k);
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
