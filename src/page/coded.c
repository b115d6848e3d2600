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

/* ---- score --------------------------------------------------------------------------- */

size_t wn_format_ready_bytes(int head_dim) { return wn_codes_x_bytes(head_dim); }

void wn_coded_ready(const wn_coding *c, void *out, const float *q, size_t q_stride, int n_q, int head_dim)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    _Alignas(64) float row[DIM_MAX];
    if (c->by_channel || c->sorted) return;     /* q itself, times the page's parameters or in its order */
    for (int i = 0; i < n_q; i++, q += q_stride) {
        wn_codes_x *x = (wn_codes_x *)(void *)((char *)out + (size_t)i * wn_format_ready_bytes(head_dim));
        const float *from = q;
        if (c->turned) {
            memcpy(row, q, sizeof *q * (size_t)head_dim);
            ops->hadamard(row, head_dim);
            from = row;
        }
        x->offset = 0;
        ops->quantise(x, from, NULL, head_dim);
        x->scale *= unit_of(c);
    }
}

static wn_codes_product product_of(const wn_coding *c, const parts *x)
{
    return (wn_codes_product){
        .low = x->low, .high = x->high, .table = c->table, .n_cols = x->cols, .depth = x->depth, .to = x->depth,
        .zero = zero_of(c), .shift = shift_of(c),
    };
}

enum { Q_BYTES = sizeof(wn_codes_x) + 2 * DIM_MAX };     /* wn_codes_x_bytes(DIM_MAX) */

/* Some queries in the page's order of channels. */
static void sort_queries(const parts *x, const wn_page_score *s, int row, int n_rows, char out[ROWS][Q_BYTES])
{
    float sorted[DIM_MAX];
    for (int i = 0; i < n_rows; i++) {
        const float *q = s->q + (size_t)(row + i) * s->q_stride;
        wn_codes_x *to = (wn_codes_x *)(void *)out[i];
        for (int k = 0; k < s->head_dim; k++) sorted[k] = q[channel_at(x, k)];
        wn_kernels_get()->codes->quantise(to, sorted, NULL, s->head_dim);
        to->offset = 0;
    }
}

/* Some queries against a whole page, into rows of whole pages. */
static void score_by_slot(const wn_coding *c, const parts *x, const wn_page_score *s, int row, int n_rows, float *out,
                          size_t stride, wn_ahead *ahead)
{
    wn_codes_product p = product_of(c, x);
    _Alignas(64) char queries[ROWS][Q_BYTES];
    uint16_t room[SCALES + 16];
    if (c->sorted) sort_queries(x, s, row, n_rows, queries);
    p.x_stride = c->sorted ? Q_BYTES : wn_format_ready_bytes(s->head_dim);
    p.x = (const wn_codes_x *)(const void *)(c->sorted ? queries[0] : (const char *)s->ready + (size_t)row * p.x_stride);
    p.n_rows = n_rows;
    p.c = out, p.c_stride = stride;
    p.group = c->group ? c->group : x->depth;
    p.s = scales_of(c, x, n_groups(c, s->head_dim), room), p.m = x->m, p.param_stride = x->stride;
    p.ahead = ahead;
    wn_kernels_get()->planes->score[c->kind](&p);
}

static void score_by_channel(const wn_coding *c, const parts *x, const wn_page_score *s, const float *scales,
                             const float *mins, int row, int n_rows, float *out, size_t stride, wn_ahead *ahead)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    _Alignas(64) char folded[ROWS][Q_BYTES];
    wn_codes_product p = product_of(c, x);
    for (int i = 0; i < n_rows; i++) {
        wn_codes_x *to = (wn_codes_x *)(void *)folded[i];
        const float *q = s->q + (size_t)(row + i) * s->q_stride;
        ops->quantise(to, q, scales, s->head_dim);
        to->offset = ops->dot(q, mins, s->head_dim);
    }
    p.x = (const wn_codes_x *)(const void *)folded[0];
    p.x_stride = Q_BYTES;
    p.n_rows = n_rows;
    p.c = out, p.c_stride = stride;
    p.col_group = x->cols;
    p.ahead = ahead;
    wn_kernels_get()->planes->mix[c->kind](&p);
    for (uint64_t left = *x->spoiled; left; left &= left - 1)
        for (int i = 0; i < n_rows; i++) out[(size_t)i * stride + (size_t)__builtin_ctzll(left)] = NAN;
}

void wn_coded_score(const wn_coding *c, const wn_page_score *s)
{
    parts x = k_parts(c, s->frame, s->P, s->head_dim);
    _Alignas(64) float page[ROWS][WN_PAGE_SLOTS_MAX], scales[DIM_MAX], mins[DIM_MAX];
    bool direct = s->first == 0 && x.cols <= ((s->n + 15) & ~15);
    if (c->by_channel) {
        wn_kernels_get()->codes->widen(scales, x.s, s->head_dim);
        wn_kernels_get()->codes->widen(mins, x.m, s->head_dim);
    }
    int step = direct && !c->by_channel && !c->sorted ? s->n_q : ROWS;
    for (int i = 0; i < s->n_q; i += step) {
        int rows = WN_MIN(step, s->n_q - i);
        float *out = direct ? s->out + (size_t)i * s->out_stride : page[0];
        size_t stride = direct ? s->out_stride : WN_PAGE_SLOTS_MAX;
        wn_ahead left = s->ahead, *ahead = i || !left.at ? NULL : &left;
        if (c->by_channel) score_by_channel(c, &x, s, scales, mins, i, rows, out, stride, ahead);
        else score_by_slot(c, &x, s, i, rows, out, stride, ahead);
        for (int r = 0; !direct && r < rows; r++)
            memcpy(s->out + (size_t)(i + r) * s->out_stride, page[r] + s->first, sizeof(float) * (size_t)s->n);
    }
}

/* ---- mix ----------------------------------------------------------------------------- */

/* Rows of weights: the size of a code's step; sums of w m for each group, where there are minima. */
static void finish_weights(const wn_coding *c, const parts *x, const wn_page_mix *m, const float *w, char *weights, size_t step,
                           int groups)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    float mins[WN_PAGE_SLOTS_MAX];
    for (int g = 0; g < groups; g++) {
        wn_codes_x *to = (wn_codes_x *)(void *)(weights + (size_t)g * step);
        to->scale *= unit_of(c);
        to->offset = 0;
        if (!x->m) continue;
        ops->widen(mins, x->m + (size_t)g * x->stride, m->P);
        to->offset = ops->dot(w, mins, m->P);
    }
}

void wn_coded_mix(const wn_coding *c, const wn_page_mix *m)
{
    enum { X_BYTES = sizeof(wn_codes_x) + 2 * WN_CODES_SLOTS };
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    parts x = v_parts(c, m->frame, m->P, m->head_dim);
    int groups = n_groups(c, m->head_dim), unit = wn_codes_unit(c->kind);
    _Alignas(64) char weights[ROWS][WN_CODES_GROUPS][X_BYTES];
    _Alignas(64) float w[WN_CODES_SLOTS] = { 0 };
    _Alignas(64) float sums[ROWS][DIM_MAX];     /* where head_dim is no multiple of 16 */
    wn_codes_scales by;
    uint16_t room[SCALES + 16];
    bool direct = x.cols == m->head_dim;
    wn_codes_product p = product_of(c, &x);
    ops->scales(&by, scales_of(c, &x, groups, room), x.stride, groups, m->P);
    p.x = (const wn_codes_x *)(const void *)weights[0][0];
    p.x_stride = sizeof weights[0];
    p.x_group = X_BYTES;
    p.col_group = c->group ? c->group : x.cols;
    p.from = m->first / unit * unit;
    p.to = WN_MIN(x.depth, (m->first + m->n + unit - 1) / unit * unit);
    p.add = true;
    p.c = sums[0], p.c_stride = DIM_MAX;
    wn_ahead ahead = m->ahead;
    size_t share = (wn_ahead_left(&ahead) / 64 + 2 * ROWS - 1) / (2 * ROWS);
    for (int i = 0; i < m->n_q; i += ROWS) {
        p.n_rows = WN_MIN(ROWS, m->n_q - i);
        for (int r = 0; r < p.n_rows; r++) {
            wn_ahead_fetch(&ahead, share);          /* half of it here */
            memcpy(w + m->first, m->w + (size_t)(i + r) * m->w_stride, sizeof *w * (size_t)m->n);
            ops->weigh((wn_codes_x *)(void *)weights[r][0], X_BYTES, w, &by, groups);
            finish_weights(c, &x, m, w, weights[r][0], X_BYTES, groups);
        }
        float *acc = m->acc + (size_t)i * m->acc_stride;
        size_t row = sizeof *acc * (size_t)m->head_dim;
        if (direct) p.c = acc, p.c_stride = m->acc_stride;
        for (int r = 0; !direct && r < p.n_rows; r++) memcpy(sums[r], acc + (size_t)r * m->acc_stride, row);
        p.ahead = i || !ahead.at ? NULL : &ahead;
        wn_kernels_get()->planes->mix[c->kind](&p);
        for (int r = 0; !direct && r < p.n_rows; r++) memcpy(acc + (size_t)r * m->acc_stride, sums[r], row);
    }
}

void wn_coded_mixed(float *acc, size_t acc_stride, float *own, size_t own_stride, int n_q, int head_dim)
{
    for (int i = 0; i < n_q; i++, acc += acc_stride, own += own_stride) {
        wn_kernels_get()->codes->hadamard(own, head_dim);
        for (int d = 0; d < head_dim; d++) acc[d] += own[d];
    }
}
