/* page/coded.c - encoded pages: see coded.h for what their bytes mean.
 *
 * What differs between formats is data (wn_coding); what differs between K and V is which way
 * a slot lies in the planes: K's slots are columns, V's are rows. Everything here is walking:
 * the arithmetic is in kernel/codes.h.
 */
#include "page/coded.h"

#include "kernel/elem.h"
#include "page/power.h"

#include <math.h>

enum { ROWS = 4, DIM_MAX = WN_CODES_DEPTH };

/* ---- where things lie ---------------------------------------------------------------- */

static bool has_min(const wn_coding *c) { return c->grid == WN_GRID_RANGE || c->grid == WN_GRID_GGML_1; }

static int n_groups(const wn_coding *c, int head_dim)
{
    return c->group ? (head_dim + c->group - 1) / c->group : 1;
}

/* The parts of a frame. cols and depth are those of the planes. */
typedef struct {
    uint64_t *spoiled;                  /* by_channel */
    uint8_t *order;                     /* sorted: the channel of each row of the planes, within its 256 */
    uint8_t *powers;                    /* in place of s, which then is NULL */
    uint16_t *s, *m;                    /* m NULL: none */
    size_t stride;                      /* from group to group */
    uint8_t *low, *high;
    int cols, depth;
    size_t bytes;
} parts;

static parts parts_of(const wn_coding *c, const void *frame, int n_cols, int rows, int P, int head_dim)
{
    parts x = { .cols = wn_codes_cols(n_cols), .depth = wn_codes_depth(c->kind, rows) };
    size_t n = c->by_channel ? (size_t)head_dim : (size_t)P * (size_t)n_groups(c, head_dim);
    size_t at = c->by_channel ? 64 : c->sorted ? wn_round64((size_t)head_dim) : 0;
    char *f = (char *)(uintptr_t)frame;         /* who may write through it is the callers' affair */
    WN_ASSERT(head_dim > 0 && head_dim <= DIM_MAX && n_groups(c, head_dim) <= WN_CODES_GROUPS);
    x.spoiled = (uint64_t *)(void *)f;
    x.stride = c->by_channel ? 0 : (size_t)P;
    x.order = (uint8_t *)f;
    if (c->powers) x.powers = (uint8_t *)f + at;
    else x.s = (uint16_t *)(void *)(f + at);
    if (has_min(c)) x.m = x.s + n;
    at = wn_round64(at + n * (c->powers ? 1 : has_min(c) ? 4 : 2));
    size_t low = wn_round64(wn_codes_plane_bytes(wn_codes_low(c->kind), x.depth, x.cols));
    size_t high = wn_round64(wn_codes_plane_bytes(wn_codes_high(c->kind), x.depth, x.cols));
    x.low = (uint8_t *)f + at + (c->high_first ? high : 0);
    if (high) x.high = (uint8_t *)f + at + (c->high_first ? 0 : low);
    x.bytes = at + low + high;
    return x;
}

static parts k_parts(const wn_coding *c, const void *frame, int P, int head_dim)
{
    return parts_of(c, frame, P, head_dim, P, head_dim);
}

static parts v_parts(const wn_coding *c, const void *frame, int P, int head_dim)
{
    return parts_of(c, frame, head_dim, P, P, head_dim);
}

size_t wn_coded_k_bytes(const wn_coding *c, int P, int head_dim) { return k_parts(c, NULL, P, head_dim).bytes; }

size_t wn_coded_v_bytes(const wn_coding *c, int P, int head_dim) { return v_parts(c, NULL, P, head_dim).bytes; }

/* Channel of row k of a sorted plane. */
static int channel_at(const parts *x, int k) { return (k & ~255) + x->order[k]; }

enum { SCALES = WN_CODES_GROUPS * WN_PAGE_SLOTS_MAX };

/* Scales as halves, where they are none in room (whole vectors of columns are read). */
static const uint16_t *scales_of(const wn_coding *c, const parts *x, int groups, uint16_t room[SCALES + 16])
{
    size_t n = (size_t)groups * x->stride;
    if (!c->powers) return x->s;
    for (size_t i = 0; i < n; i++) room[i] = wn_power_half(x->powers[i]);
    memset(room + n, 0, sizeof *room * 16);
    return room;
}

/* What a code u stands for is s ((u << shift) - zero), plus m. */
static int zero_of(const wn_coding *c)
{
    int bits = wn_codes_bits(c->kind);
    if (has_min(c)) return 0;
    if (c->grid == WN_GRID_TABLE) return 128;
    return c->grid == WN_GRID_MIDDLE ? (1 << bits) - 1 : 1 << (bits - 1);
}

static int shift_of(const wn_coding *c) { return c->grid == WN_GRID_MIDDLE; }

/* Codes without their low bits count in steps so much larger. */
static float unit_of(const wn_coding *c) { return (float)(1 << c->dropped); }

/* The codes that encoding makes. */
static wn_codes_kind made_of(const wn_coding *c) { return c->dropped ? WN_CODES_8 : c->kind; }

/* ---- one code at a time -------------------------------------------------------------- */

static void put_code(const wn_coding *c, const parts *x, int k, int n, int code)
{
    int low = wn_codes_low(c->kind), high = wn_codes_high(c->kind), shift;
    uint8_t *at = x->low + wn_codes_at(low, x->depth, x->cols, k, n, &shift);
    int mask = ((1 << low) - 1) << shift;
    *at = (uint8_t)((*at & ~mask) | (code << shift & mask));
    if (!high) return;
    at = x->high + wn_codes_at(high, x->depth, x->cols, k, n, &shift);
    mask = ((1 << high) - 1) << shift;
    *at = (uint8_t)((*at & ~mask) | (code >> low << shift & mask));
}

static int get_code(const wn_coding *c, const parts *x, int k, int n)
{
    int low = wn_codes_low(c->kind), high = wn_codes_high(c->kind), shift;
    const uint8_t *at = x->low + wn_codes_at(low, x->depth, x->cols, k, n, &shift);
    int code = *at >> shift & ((1 << low) - 1);
    if (!high) return code;
    at = x->high + wn_codes_at(high, x->depth, x->cols, k, n, &shift);
    code |= (*at >> shift & ((1 << high) - 1)) << low;
    return code;
}

static float value(const wn_coding *c, int code, uint16_t s, uint16_t m)
{
    int u = wn_codes_mapped(c->kind) ? c->table[code] : code;
    float y = wn_elem_from_f16(s) * (unit_of(c) * (float)((u << shift_of(c)) - zero_of(c)));
    return has_min(c) ? y + wn_elem_from_f16(m) : y;
}

/* ---- encoding ------------------------------------------------------------------------ */

/* Slots [slot, slot + n) of a raw frame. */
static void raw_rows(const wn_format *rf, bool is_k, const void *raw, int P, int slot, int n, float rows[][DIM_MAX],
                     int head_dim)
{
    if (is_k ? rf->rows_k : rf->rows_v) {
        (is_k ? rf->rows_k : rf->rows_v)(raw, P, slot, rows[0], DIM_MAX, n, head_dim);
        return;
    }
    for (int i = 0; i < n; i++) (is_k ? rf->get_k : rf->get_v)(raw, P, slot + i, rows[i], head_dim);
}

/* Adds to word, which stands for four rows of a column in a block of a plane. */
static uint32_t in_field(uint32_t four, int bits, int down, int up)
{
    return (four >> down & (0x01010101u * ((1u << bits) - 1))) << up;
}

/* One column of codes, in order of depth: K's slot. */
static void pack_column(const parts *x, uint8_t *plane, int bits, int down, const uint8_t *codes, int n)
{
    int panel = n / WN_CODES_PANEL, width = WN_MIN(WN_CODES_PANEL, x->cols - panel * WN_CODES_PANEL), fields = 8 / bits;
    uint8_t *to = plane + wn_codes_plane_bytes(bits, x->depth, panel * WN_CODES_PANEL) + (size_t)(n % WN_CODES_PANEL) * 4;
    for (int k = 0; k < x->depth; k += 4 * fields, to += (size_t)width * 4) {
        uint32_t word = 0, four;
        for (int f = 0; f < fields; f++) {
            memcpy(&four, codes + k + 4 * f, 4);
            word |= in_field(four, bits, down, bits * f);
        }
        memcpy(to, &word, 4);
    }
}

/* Rows [k, k + 4) of codes, a byte of each in every word, into their field of a zeroed plane. */
static void pack_rows(const parts *x, uint8_t *plane, int bits, int down, const uint32_t *fours, int k)
{
    int fields = 8 / bits, block = k / (4 * fields), up = k / 4 % fields * bits;
    for (int n = 0; n < x->cols; n += WN_CODES_PANEL) {
        int width = WN_MIN(WN_CODES_PANEL, x->cols - n);
        uint32_t *to = (uint32_t *)(void *)(plane + wn_codes_plane_bytes(bits, x->depth, n)) + block * width;
        for (int i = 0; i < width; i++) to[i] |= in_field(fours[n + i], bits, down, up);
    }
}

/* The same for both planes, from four rows of codes, n of them each. */
static void put_rows(const wn_coding *c, const parts *x, const uint8_t codes[4][DIM_MAX], int n, int k)
{
    uint32_t fours[DIM_MAX + 16] = { 0 };
    int low = wn_codes_low(c->kind), high = wn_codes_high(c->kind);
    for (int i = 0; i < n; i++)
        fours[i] = (uint32_t)codes[0][i] | (uint32_t)codes[1][i] << 8 | (uint32_t)codes[2][i] << 16 | (uint32_t)codes[3][i] << 24;
    pack_rows(x, x->low, low, c->dropped, fours, k);
    if (high) pack_rows(x, x->high, high, low, fours, k);
}

/* A slot's row into codes, its parameters into place. */
static void encode_slot(const wn_coding *c, const parts *x, int slot, uint8_t *codes, float *row, int head_dim)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    float sorted[DIM_MAX];
    if (c->turned) ops->hadamard(row, head_dim);
    for (int k = 0; k < head_dim && c->sorted; k++) sorted[k] = row[channel_at(x, k)];
    if (c->powers) {
        wn_power_encode(codes, x->powers + slot, x->stride, c->sorted ? sorted : row, head_dim, c->group);
        return;
    }
    ops->encode(codes, x->s + slot, x->m ? x->m + slot : NULL, x->stride, row, head_dim, c->group, made_of(c), c->grid,
                c->table);
}

static bool all_finite(const float *x, int n)
{
    bool finite = true;
    for (int i = 0; i < n; i++) finite &= (wn_elem_bits(x[i]) & 0x7f800000u) != 0x7f800000u;
    return finite;
}

/* Parameters per channel: a channel's row of live, finite slots; the others repeat the first of
 * them, so that they count for nothing. */
static void encode_by_channel(const wn_coding *c, const parts *x, const void *raw, const wn_format *rf, int P, uint64_t live,
                              int head_dim)
{
    _Alignas(64) float rows[WN_PAGE_SLOTS_MAX][DIM_MAX], row[WN_PAGE_SLOTS_MAX];
    uint8_t codes[4][DIM_MAX];
    uint64_t good = 0;
    raw_rows(rf, true, raw, P, 0, P, rows, head_dim);
    for (uint64_t left = live; left; left &= left - 1) {
        int s = __builtin_ctzll(left);
        if (all_finite(rows[s], head_dim)) good |= (uint64_t)1 << s;
    }
    *x->spoiled = live & ~good;
    if (!good) memset(rows, 0, sizeof rows);
    int first = good ? __builtin_ctzll(good) : 0;
    for (uint64_t left = wn_low_bits(P) & ~good; left && good; left &= left - 1)
        memcpy(rows[__builtin_ctzll(left)], rows[first], sizeof rows[0]);
    for (int d = 0; d < x->depth; d += 4) {
        memset(codes, 0, sizeof codes);
        for (int i = 0; i < 4 && d + i < head_dim; i++) {
            for (int s = 0; s < P; s++) row[s] = rows[s][d + i];
            wn_kernels_get()->codes->encode(codes[i], x->s + d + i, x->m + d + i, 0, row, P, 0, c->kind, c->grid, c->table);
        }
        put_rows(c, x, (const uint8_t (*)[DIM_MAX])codes, P, d);
    }
}

/* Channels in the order of their squares over live, finite slots, largest first, within each 256. */
static void sort_channels(const parts *x, const void *raw, const wn_format *rf, int P, uint64_t live, int head_dim)
{
    float row[1][DIM_MAX], sums[DIM_MAX] = { 0 };
    for (uint64_t left = live; left; left &= left - 1) {
        raw_rows(rf, true, raw, P, __builtin_ctzll(left), 1, row, head_dim);
        if (!all_finite(row[0], head_dim)) continue;
        for (int d = 0; d < head_dim; d++) sums[d] += row[0][d] * row[0][d];
    }
    for (int d = 0; d < head_dim; d++) {        /* by insertion: alike stay in their order */
        int k = d;
        for (; k & 255 && sums[channel_at(x, k - 1)] < sums[d]; k--) x->order[k] = x->order[k - 1];
        x->order[k] = (uint8_t)(d & 255);
    }
}

enum { AT_ONCE = 16 };                  /* slots widened together: as many as a vector turns */

void wn_coded_encode_k(const wn_coding *c, void *frame, const void *raw, const wn_format *raw_format, int P, int n,
                       uint64_t keep, int head_dim)
{
    parts x = k_parts(c, frame, P, head_dim);
    _Alignas(64) float rows[AT_ONCE][DIM_MAX];
    _Alignas(64) uint8_t codes[DIM_MAX + 32] = { 0 };
    int low = wn_codes_low(c->kind), high = wn_codes_high(c->kind);
    keep &= wn_low_bits(WN_MIN(n, P));
    memset(frame, 0, x.bytes);
    if (c->by_channel) {
        encode_by_channel(c, &x, raw, raw_format, P, keep, head_dim);
        return;
    }
    if (c->sorted) sort_channels(&x, raw, raw_format, P, keep, head_dim);
    for (int s = 0; s < P; s++) {
        if (s % AT_ONCE == 0) raw_rows(raw_format, true, raw, P, s, WN_MIN(AT_ONCE, P - s), rows, head_dim);
        if (!(keep >> s & 1)) continue;
        encode_slot(c, &x, s, codes, rows[s % AT_ONCE], head_dim);
        pack_column(&x, x.low, low, c->dropped, codes, s);
        if (high) pack_column(&x, x.high, high, low, codes, s);
    }
}

void wn_coded_encode_v(const wn_coding *c, void *frame, const void *raw, const wn_format *raw_format, int P, int n,
                       uint64_t keep, int head_dim)
{
    parts x = v_parts(c, frame, P, head_dim);
    _Alignas(64) float rows[4][DIM_MAX];
    uint8_t codes[4][DIM_MAX];
    keep &= wn_low_bits(WN_MIN(n, P));
    memset(frame, 0, x.bytes);
    for (int s = 0; s < P; s += 4) {
        if (!(keep >> s & 15)) continue;
        raw_rows(raw_format, false, raw, P, s, 4, rows, head_dim);
        for (int i = 0; i < 4; i++) {
            if (keep >> (s + i) & 1) encode_slot(c, &x, s + i, codes[i], rows[i], head_dim);
            else memset(codes[i], 0, (size_t)head_dim);
        }
        put_rows(c, &x, (const uint8_t (*)[DIM_MAX])codes, head_dim, s);
    }
}

/* ---- one slot ------------------------------------------------------------------------ */

static size_t param_at(const wn_coding *c, const parts *x, int slot, int d)
{
    if (c->by_channel) return (size_t)d;
    return (size_t)(c->group ? d / c->group : 0) * x->stride + (size_t)slot;
}

static void get(const wn_coding *c, const parts *x, int slot, bool is_k, float *row, int head_dim)
{
    for (int k = 0; k < head_dim; k++) {
        size_t at = param_at(c, x, slot, k);
        int code = is_k ? get_code(c, x, k, slot) : get_code(c, x, slot, k), d = c->sorted ? channel_at(x, k) : k;
        row[d] = value(c, code, c->powers ? wn_power_half(x->powers[at]) : x->s[at], x->m ? x->m[at] : 0);
        if (c->by_channel && (*x->spoiled >> slot & 1)) row[d] = NAN;
    }
    if (c->turned) wn_kernels_get()->codes->hadamard(row, head_dim);    /* its own inverse */
}

void wn_coded_get_k(const wn_coding *c, const void *frame, int P, int slot, float *row, int head_dim)
{
    parts x = k_parts(c, frame, P, head_dim);
    get(c, &x, slot, true, row, head_dim);
}

void wn_coded_get_v(const wn_coding *c, const void *frame, int P, int slot, float *row, int head_dim)
{
    parts x = v_parts(c, frame, P, head_dim);
    get(c, &x, slot, false, row, head_dim);
}

static void copy_params(const wn_coding *c, const parts *dst, int to, const parts *src, int from, int head_dim)
{
    for (int g = 0; g < n_groups(c, head_dim); g++) {
        if (c->powers) {
            dst->powers[(size_t)g * dst->stride + (size_t)to] = src->powers[(size_t)g * src->stride + (size_t)from];
            continue;
        }
        dst->s[(size_t)g * dst->stride + (size_t)to] = src->s[(size_t)g * src->stride + (size_t)from];
        if (dst->m) dst->m[(size_t)g * dst->stride + (size_t)to] = src->m[(size_t)g * src->stride + (size_t)from];
    }
}

void wn_coded_copy_k(const wn_coding *c, void *dst, int dst_slot, const void *src, int src_slot, int P, int head_dim)
{
    parts a = k_parts(c, dst, P, head_dim), b = k_parts(c, src, P, head_dim);
    WN_ASSERT(!c->by_channel && !c->sorted);
    copy_params(c, &a, dst_slot, &b, src_slot, head_dim);
    for (int d = 0; d < head_dim; d++) put_code(c, &a, d, dst_slot, get_code(c, &b, d, src_slot));
}

void wn_coded_copy_v(const wn_coding *c, void *dst, int dst_slot, const void *src, int src_slot, int P, int head_dim)
{
    parts a = v_parts(c, dst, P, head_dim), b = v_parts(c, src, P, head_dim);
    copy_params(c, &a, dst_slot, &b, src_slot, head_dim);
    for (int d = 0; d < head_dim; d++) put_code(c, &a, dst_slot, d, get_code(c, &b, src_slot, d));
}

/* ---- several pages ------------------------------------------------------------------- */

enum { PAGES = 16, SLOTS = WN_CODES_SLOTS, X_BYTES = sizeof(wn_codes_x) + DIM_MAX / WN_CODES_BLOCK * WN_CODES_BLOCK_BYTES };

/* The same places of another frame. */
static parts parts_in(const parts *x, const void *from, const void *frame)
{
    ptrdiff_t by = (const char *)frame - (const char *)from;
    parts y = *x;
    y.spoiled = (uint64_t *)(void *)((char *)y.spoiled + by);
    y.order += by;
    if (y.powers) y.powers += by;
    if (y.s) y.s = (uint16_t *)(void *)((char *)y.s + by);
    if (y.m) y.m = (uint16_t *)(void *)((char *)y.m + by);
    y.low += by;
    if (y.high) y.high += by;
    return y;
}

/* A fetcher for products that have none: it asks for the same line again. */
static wn_fetcher no_fetcher(const void *anything) { return (wn_fetcher){ .at = anything, .end = (const char *)anything + 1 }; }

static wn_codes_product product_of(const wn_coding *c, const parts *x, wn_fetcher *f)
{
    return (wn_codes_product){
        .fetcher = f,
        .table = c->table, .n_cols = x->cols, .depth = x->depth, .zero = zero_of(c), .shift = shift_of(c),
    };
}

/* ---- score --------------------------------------------------------------------------- */

size_t wn_format_ready_bytes(int n_q, int head_dim) { return (size_t)((n_q + ROWS - 1) / ROWS) * wn_codes_x_bytes(head_dim); }

static int queries_top(const wn_coding *c) { return wn_codes_narrow(c->kind) ? WN_CODES_Q_MAX : WN_CODES_X_MAX; }

static wn_codes_x *ready_at(const void *ready, int row, int head_dim)
{
    return (wn_codes_x *)(void *)((char *)(uintptr_t)ready + (size_t)(row / ROWS) * wn_codes_x_bytes(head_dim));
}

void wn_coded_ready(const wn_coding *c, void *out, const float *q, size_t q_stride, int n_q, int head_dim)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    _Alignas(64) float row[DIM_MAX];
    if (c->by_channel || c->sorted) return;     /* q itself, times the page's parameters or in its order */
    for (int i = 0; i < n_q; i++, q += q_stride) {
        wn_codes_x *x = ready_at(out, i, head_dim);
        const float *from = q;
        if (c->turned) {
            memcpy(row, q, sizeof *q * (size_t)head_dim);
            ops->hadamard(row, head_dim);
            from = row;
        }
        ops->quantise(x, i % ROWS, from, NULL, head_dim, queries_top(c));
        x->scale[i % ROWS] *= unit_of(c);
    }
}

/* Some queries in the page's order of channels. */
static void sort_queries(const wn_coding *c, const parts *x, const wn_page_score *s, int row, int n_rows, wn_codes_x *out)
{
    float sorted[DIM_MAX];
    for (int i = 0; i < n_rows; i++) {
        const float *q = s->q + (size_t)(row + i) * s->q_stride;
        for (int k = 0; k < s->head_dim; k++) sorted[k] = q[channel_at(x, k)];
        wn_kernels_get()->codes->quantise(out, i, sorted, NULL, s->head_dim, queries_top(c));
    }
}

/* Some queries against one page with parameters per slot; a multiple of four queries before them. */
static void score_by_slot(const wn_coding *c, const parts *x, const wn_page_score *s, int row, int n_rows, float *out,
                          size_t stride)
{
    wn_fetcher none = no_fetcher(x->low);
    wn_codes_product p = product_of(c, x, s->fetcher ? s->fetcher : &none);
    _Alignas(64) char queries[X_BYTES];
    uint16_t room[SCALES + 16];
    wn_codes_page page = { .low = x->low, .high = x->high, .m = x->m, .c = out };
    page.s = scales_of(c, x, n_groups(c, s->head_dim), room);
    p.pages = &page, p.n_pages = 1;
    p.x = ready_at(s->ready, row, s->head_dim);
    p.x_stride = wn_codes_x_bytes(s->head_dim);
    if (c->sorted) {
        sort_queries(c, x, s, row, n_rows, (wn_codes_x *)(void *)queries);
        p.x = (const wn_codes_x *)(const void *)queries;
    }
    p.n_rows = n_rows;
    p.c_stride = stride;
    p.group = c->group ? c->group : x->depth;
    p.param_stride = x->stride;
    wn_kernels_get()->planes->score[c->kind](&p);
}

/* Up to four queries against one page with parameters per channel: they go into the queries. */
static void score_by_channel(const wn_coding *c, const parts *x, const wn_page_score *s, int row, int n_rows, float *out,
                             size_t stride)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    _Alignas(64) char folded[X_BYTES];
    _Alignas(64) float scales[DIM_MAX], mins[DIM_MAX];
    _Alignas(64) int32_t t[ROWS][SLOTS];
    wn_codes_x *q = (wn_codes_x *)(void *)folded;
    wn_fetcher none = no_fetcher(x->low);
    wn_codes_product p = product_of(c, x, s->fetcher ? s->fetcher : &none);
    ops->widen(scales, x->s, s->head_dim);
    ops->widen(mins, x->m, s->head_dim);
    for (int i = 0; i < n_rows; i++) {
        const float *from = s->q + (size_t)(row + i) * s->q_stride;
        ops->quantise(q, i, from, scales, s->head_dim, WN_CODES_X_MAX);
        q->offset[i] = ops->dot(from, mins, s->head_dim);
    }
    wn_codes_page page = { .low = x->low, .high = x->high, .x = wn_codes_integers(q), .to = x->depth };
    p.pages = &page, p.n_pages = 1;
    p.n_rows = n_rows;
    p.t = t[0], p.t_stride = SLOTS;
    p.col_group = x->cols;
    wn_kernels_get()->planes->mix[c->kind](&p);
    for (int i = 0; i < n_rows; i++) {
        ops->settle(out + (size_t)i * stride, t[i], q, i, x->cols, p.zero, p.shift, false);
        for (uint64_t left = *x->spoiled; left; left &= left - 1) out[(size_t)i * stride + (size_t)__builtin_ctzll(left)] = NAN;
    }
}

/* All queries against a page that is not taken whole, or whose format wants more than its codes. */
static void score_alone(const wn_coding *c, const parts *x, const wn_page_score *s, const wn_page_part *part)
{
    _Alignas(64) float page[ROWS][WN_PAGE_SLOTS_MAX];
    for (int i = 0; i < s->n_q; i += ROWS) {
        int rows = WN_MIN(ROWS, s->n_q - i);
        if (c->by_channel) score_by_channel(c, x, s, i, rows, page[0], WN_PAGE_SLOTS_MAX);
        else score_by_slot(c, x, s, i, rows, page[0], WN_PAGE_SLOTS_MAX);
        for (int r = 0; r < rows; r++)
            wn_page_take(s->out + (size_t)(i + r) * s->out_stride + part->entry, page[r] + part->first, part);
    }
}

static void score_pages(const wn_coding *c, wn_codes_product *p)
{
    if (p->n_pages) wn_kernels_get()->planes->score[c->kind](p);
    p->n_pages = 0;
}

void wn_coded_scores(const wn_coding *c, const wn_page_score *s, const wn_page_part *part, int n)
{
    const void *frame = part->frame;
    parts first = k_parts(c, frame, s->P, s->head_dim), x;
    wn_codes_page pages[PAGES];
    wn_fetcher none = no_fetcher(frame);
    wn_codes_product p = product_of(c, &first, s->fetcher ? s->fetcher : &none);
    p.pages = pages, p.n_pages = 0;
    p.n_rows = s->n_q;
    p.x = s->ready;
    p.x_stride = wn_codes_x_bytes(s->head_dim);
    p.c_stride = s->out_stride;
    p.group = c->group ? c->group : first.depth;
    p.param_stride = first.stride;
    bool alone = c->by_channel || c->sorted || c->powers;
    for (int k = 0; k < n; k++, part++) {
        x = parts_in(&first, frame, part->frame);
        bool whole = !alone && part->first == 0 && first.cols <= ((part->n + 15) & ~15) && part->n_entries == part->n;
        if (p.n_pages == PAGES || !whole) score_pages(c, &p);
        if (!whole) {
            score_alone(c, &x, s, part);
            continue;
        }
        pages[p.n_pages++] = (wn_codes_page){ .low = x.low, .high = x.high, .s = x.s, .m = x.m, .c = s->out + part->entry };
    }
    score_pages(c, &p);
}

void wn_coded_score(const wn_coding *c, const wn_page_score *s)
{
    wn_page_part part = wn_page_part_of(s->frame, s->first, s->n, s->ahead);
    wn_coded_scores(c, s, &part, 1);
}

/* ---- mix ----------------------------------------------------------------------------- */

/* A page's part in the mix of up to four rows: weights of all 64 slots, and the slots' scales. */
typedef struct {
    const float *w;
    size_t w_stride;
    const uint16_t *s;
    size_t s_stride;
    uint16_t room[SCALES + 16];         /* scales, where the page has fewer slots or no halves */
    _Alignas(64) float rows[ROWS][SLOTS];   /* weights, where they do not lie as they are wanted */
} weighed;

static void weigh_part(weighed *y, const wn_coding *c, const parts *x, const wn_page_mix *m, const wn_page_part *part, int row,
                       int n_rows, int groups)
{
    const float *w = m->w + (size_t)row * m->w_stride + part->entry;
    y->w = w, y->w_stride = m->w_stride;
    y->s = x->s, y->s_stride = x->stride;
    if (part->first || part->n < SLOTS || part->n_entries < part->n) {
        memset(y->rows, 0, sizeof y->rows);
        for (int r = 0; r < n_rows; r++) wn_page_give(y->rows[r] + part->first, w + (size_t)r * m->w_stride, part);
        y->w = y->rows[0], y->w_stride = SLOTS;
    }
    if (!c->powers && m->P == SLOTS) return;
    const uint16_t *s = scales_of(c, x, groups, y->room);
    y->s = y->room, y->s_stride = SLOTS;
    if (m->P == SLOTS) return;
    for (int g = groups - 1; g >= 0; g--) {                 /* the last first: room may be where they come from */
        memmove(y->room + g * SLOTS, s + (size_t)g * x->stride, sizeof *s * (size_t)m->P);
        memset(y->room + g * SLOTS + m->P, 0, sizeof *s * (size_t)(SLOTS - m->P));
    }
}

/* Sums of w m for each group. */
static void add_minima(const weighed *y, const parts *page, const wn_page_mix *m, wn_codes_x *x, int n_rows, int groups)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    float mins[WN_PAGE_SLOTS_MAX];
    for (int g = 0; g < groups; g++) {
        ops->widen(mins, page->m + (size_t)g * page->stride, m->P);
        for (int r = 0; r < n_rows; r++) x[g].offset[r] += ops->dot(y->w + (size_t)r * y->w_stride, mins, m->P);
    }
}

/* Up to four rows of weights over all parts. */
static void mix_rows(const wn_coding *c, const parts *first, const wn_page_mix *m, const wn_page_part *part, int n, int row,
                     int n_rows, int groups)
{
    enum { BLOCKS = 64, FETCHES_LARGEST = 6 };
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    _Alignas(64) char blocks[BLOCKS][WN_CODES_BLOCK_BYTES];
    _Alignas(64) int32_t t[ROWS][DIM_MAX];
    wn_codes_x x[WN_CODES_GROUPS];
    wn_codes_page pages[PAGES];
    wn_fetcher none = no_fetcher(part[0].frame);
    wn_codes_product p = product_of(c, first, m->fetcher && row == 0 ? m->fetcher : &none);
    weighed y;
    uint32_t most[ROWS] = { 0 };
    float inverse[ROWS];
    int unit = wn_codes_unit(c->kind), width = c->group ? c->group : first->cols;
    p.pages = pages;
    p.n_rows = n_rows;
    p.col_group = width, p.x_group = WN_CODES_BLOCK_BYTES;
    p.t = t[0], p.t_stride = DIM_MAX;
    for (int k = 0; k < n; k++) {
        parts page = parts_in(first, part[0].frame, part[k].frame);
        weigh_part(&y, c, &page, m, &part[k], row, n_rows, groups);
        wn_fetch_times(p.fetcher, FETCHES_LARGEST);
        ops->largest(most, y.w, y.w_stride, n_rows, y.s, y.s_stride, groups);
    }
    ops->begin(x, groups, most, inverse);
    for (int g = 0; g < groups; g++)
        for (int r = 0; r < ROWS; r++) x[g].scale[r] *= unit_of(c), x[g].offset[r] = 0;
    for (int k = 0; k < n; k++) {
        char *block = blocks[p.n_pages * groups];
        parts page = parts_in(first, part[0].frame, part[k].frame);
        weigh_part(&y, c, &page, m, &part[k], row, n_rows, groups);
        ops->weigh(block, WN_CODES_BLOCK_BYTES, x, y.w, y.w_stride, n_rows, inverse, y.s, y.s_stride, groups, p.fetcher);
        if (page.m) add_minima(&y, &page, m, x, n_rows, groups);
        pages[p.n_pages++] = (wn_codes_page){
            .low = page.low, .high = page.high, .x = block,
            .from = part[k].first / unit * unit, .to = WN_MIN(first->depth, (part[k].first + part[k].n + unit - 1) / unit * unit),
        };
        if (k + 1 < n && p.n_pages < PAGES && (p.n_pages + 1) * groups <= BLOCKS) continue;
        wn_kernels_get()->planes->mix[c->kind](&p);
        p.add = true;
        p.n_pages = 0;
    }
    for (int r = 0; r < n_rows; r++)
        for (int g = 0; g < groups; g++)
            ops->settle(m->acc + (size_t)(row + r) * m->acc_stride + g * width, t[r] + g * width, &x[g], r,
                        WN_MIN(width, m->head_dim - g * width), p.zero, p.shift, true);
}

void wn_coded_mixes(const wn_coding *c, const wn_page_mix *m, const wn_page_part *part, int n)
{
    parts first = v_parts(c, part->frame, m->P, m->head_dim);
    for (int row = 0; row < m->n_q; row += ROWS)
        mix_rows(c, &first, m, part, n, row, WN_MIN(ROWS, m->n_q - row), n_groups(c, m->head_dim));
}

void wn_coded_mix(const wn_coding *c, const wn_page_mix *m)
{
    wn_page_part part = wn_page_part_of(m->frame, m->first, m->n, m->ahead);
    wn_coded_mixes(c, m, &part, 1);
}

void wn_coded_mixed(float *acc, size_t acc_stride, float *own, size_t own_stride, int n_q, int head_dim)
{
    for (int i = 0; i < n_q; i++, acc += acc_stride, own += own_stride) {
        wn_kernels_get()->codes->hadamard(own, head_dim);
        for (int d = 0; d < head_dim; d++) acc[d] += own[d];
    }
}
