/* page/coded.c - encoded pages: see coded.h for what their bytes mean.
 *
 * What differs between formats is data (wn_coding); what differs between K and V is which way
 * a slot lies in the planes: K's slots are columns, V's are rows. Everything here is walking:
 * the arithmetic is in kernel/codes.h.
 */
#include "page/coded_parts.h"

#include "kernel/elem.h"

#include <math.h>

size_t wn_coded_k_bytes(const wn_coding *c, int P, int head_dim)
{
    return k_parts(c, NULL, P, head_dim).bytes;
}

size_t wn_coded_v_bytes(const wn_coding *c, int P, int head_dim)
{
    return v_parts(c, NULL, P, head_dim).bytes;
}

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
static void raw_rows(const wn_format *rf, bool is_k, const void *raw, int P, int slot, int n,
                     float rows[][DIM_MAX], int head_dim)
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
static void pack_column(const parts *x, uint8_t *plane, int bits, int down, const uint8_t *codes,
                        int n)
{
    int panel = n / WN_CODES_PANEL,
        width = WN_MIN(WN_CODES_PANEL, x->cols - panel * WN_CODES_PANEL), fields = 8 / bits;
    uint8_t *to = plane + wn_codes_plane_bytes(bits, x->depth, panel * WN_CODES_PANEL) +
                  (size_t)(n % WN_CODES_PANEL) * 4;
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
static void pack_rows(const parts *x, uint8_t *plane, int bits, int down, const uint32_t *fours,
                      int k)
{
    int fields = 8 / bits, block = k / (4 * fields), up = k / 4 % fields * bits;
    for (int n = 0; n < x->cols; n += WN_CODES_PANEL) {
        int width = WN_MIN(WN_CODES_PANEL, x->cols - n);
        uint32_t *to = (uint32_t *)(void *)(plane + wn_codes_plane_bytes(bits, x->depth, n)) +
                       block * width;
        for (int i = 0; i < width; i++) to[i] |= in_field(fours[n + i], bits, down, up);
    }
}

/* The same for both planes, from four rows of codes, n of them each. */
static void put_rows(const wn_coding *c, const parts *x, const uint8_t codes[4][DIM_MAX], int n,
                     int k)
{
    uint32_t fours[DIM_MAX + 16] = { 0 };
    int low = wn_codes_low(c->kind), high = wn_codes_high(c->kind);
    for (int i = 0; i < n; i++)
        fours[i] = (uint32_t)codes[0][i] | (uint32_t)codes[1][i] << 8 |
                   (uint32_t)codes[2][i] << 16 | (uint32_t)codes[3][i] << 24;
    pack_rows(x, x->low, low, c->dropped, fours, k);
    if (high) pack_rows(x, x->high, high, low, fours, k);
}

/* A slot's row into codes, its parameters into place. */
static void encode_slot(const wn_coding *c, const parts *x, int slot, uint8_t *codes, float *row,
                        int head_dim)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    float sorted[DIM_MAX];
    if (c->turned) ops->hadamard(row, head_dim);
    for (int k = 0; k < head_dim && c->sorted; k++) sorted[k] = row[channel_at(x, k)];
    if (c->powers) {
        wn_power_encode(codes, x->powers + slot, x->stride, c->sorted ? sorted : row, head_dim,
                        c->group);
        return;
    }
    ops->encode(codes, x->s + slot, x->m ? x->m + slot : NULL, x->stride, row, head_dim, c->group,
                made_of(c), c->grid, c->table);
}

static bool all_finite(const float *x, int n)
{
    bool finite = true;
    for (int i = 0; i < n; i++) finite &= (wn_elem_bits(x[i]) & 0x7f800000u) != 0x7f800000u;
    return finite;
}

/* Parameters per channel: a channel's row of live, finite slots; the others repeat the first of
 * them, so that they count for nothing. */
static void encode_by_channel(const wn_coding *c, const parts *x, const void *raw,
                              const wn_format *rf, int P, uint64_t live, int head_dim)
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
            wn_kernels_get()->codes->encode(codes[i], x->s + d + i, x->m + d + i, 0, row, P, 0,
                                            c->kind, c->grid, c->table);
        }
        put_rows(c, x, (const uint8_t (*)[DIM_MAX])codes, P, d);
    }
}

/* Channels in the order of their squares over live, finite slots, largest first, within each
 * 256. */
static void sort_channels(const parts *x, const void *raw, const wn_format *rf, int P,
                          uint64_t live, int head_dim)
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

void wn_coded_encode_k(const wn_coding *c, void *frame, const void *raw,
                       const wn_format *raw_format, int P, int n, uint64_t keep, int head_dim)
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
        if (s % AT_ONCE == 0)
            raw_rows(raw_format, true, raw, P, s, WN_MIN(AT_ONCE, P - s), rows, head_dim);
        if (!(keep >> s & 1)) continue;
        encode_slot(c, &x, s, codes, rows[s % AT_ONCE], head_dim);
        pack_column(&x, x.low, low, c->dropped, codes, s);
        if (high) pack_column(&x, x.high, high, low, codes, s);
    }
}

void wn_coded_encode_v(const wn_coding *c, void *frame, const void *raw,
                       const wn_format *raw_format, int P, int n, uint64_t keep, int head_dim)
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
        int code = is_k ? get_code(c, x, k, slot) : get_code(c, x, slot, k),
            d = c->sorted ? channel_at(x, k) : k;
        row[d] = value(c, code, c->powers ? wn_power_half(x->powers[at]) : x->s[at],
                       x->m ? x->m[at] : 0);
        if (c->by_channel && (*x->spoiled >> slot & 1)) row[d] = NAN;
    }
    if (c->turned) wn_kernels_get()->codes->hadamard(row, head_dim);    /* its own inverse */
}

void wn_coded_get_k(const wn_coding *c, const void *frame, int P, int slot, float *row,
                    int head_dim)
{
    parts x = k_parts(c, frame, P, head_dim);
    get(c, &x, slot, true, row, head_dim);
}

void wn_coded_get_v(const wn_coding *c, const void *frame, int P, int slot, float *row,
                    int head_dim)
{
    parts x = v_parts(c, frame, P, head_dim);
    get(c, &x, slot, false, row, head_dim);
}

static void copy_params(const wn_coding *c, const parts *dst, int to, const parts *src, int from,
                        int head_dim)
{
    for (int g = 0; g < n_groups(c, head_dim); g++) {
        if (c->powers) {
            dst->powers[(size_t)g * dst->stride + (size_t)to] =
                src->powers[(size_t)g * src->stride + (size_t)from];
            continue;
        }
        dst->s[(size_t)g * dst->stride + (size_t)to] =
            src->s[(size_t)g * src->stride + (size_t)from];
        if (dst->m)
            dst->m[(size_t)g * dst->stride + (size_t)to] =
                src->m[(size_t)g * src->stride + (size_t)from];
    }
}

void wn_coded_copy_k(const wn_coding *c, void *dst, int dst_slot, const void *src, int src_slot,
                     int P, int head_dim)
{
    parts a = k_parts(c, dst, P, head_dim), b = k_parts(c, src, P, head_dim);
    WN_ASSERT(!c->by_channel && !c->sorted);
    copy_params(c, &a, dst_slot, &b, src_slot, head_dim);
    for (int d = 0; d < head_dim; d++) put_code(c, &a, d, dst_slot, get_code(c, &b, d, src_slot));
}

void wn_coded_copy_v(const wn_coding *c, void *dst, int dst_slot, const void *src, int src_slot,
                     int P, int head_dim)
{
    parts a = v_parts(c, dst, P, head_dim), b = v_parts(c, src, P, head_dim);
    copy_params(c, &a, dst_slot, &b, src_slot, head_dim);
    for (int d = 0; d < head_dim; d++) put_code(c, &a, dst_slot, d, get_code(c, &b, src_slot, d));
}
