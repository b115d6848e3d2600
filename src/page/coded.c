/* page/coded.c - encoded pages: see coded.h for what their bytes mean.
 *
 * What differs between formats is data (wn_coding); what differs between K and V is which way
 * a slot lies in the planes: K's slots are columns, V's are rows. Everything here is walking:
 * the arithmetic is in kernel/codes.h.
 */
#include "page/coded.h"

#include "kernel/elem.h"

#include <math.h>

enum { ROWS = 4, DIM_MAX = WN_CODES_DEPTH };

/* ---- where things lie ---------------------------------------------------------------- */

static size_t round64(size_t n) { return (n + 63) & ~(size_t)63; }

static bool has_min(const wn_coding *c) { return c->grid == WN_GRID_RANGE || c->grid == WN_GRID_GGML_1; }

static int n_groups(const wn_coding *c, int head_dim)
{
    return c->group ? (head_dim + c->group - 1) / c->group : 1;
}

/* The parts of a frame. cols and depth are those of the planes. */
typedef struct {
    uint64_t *spoiled;                  /* by_channel */
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
    size_t at = c->by_channel ? 64 : 0;
    char *f = (char *)(uintptr_t)frame;         /* who may write through it is the callers' affair */
    WN_ASSERT(head_dim > 0 && head_dim <= DIM_MAX && n_groups(c, head_dim) <= WN_CODES_GROUPS);
    x.spoiled = (uint64_t *)(void *)f;
    x.stride = c->by_channel ? 0 : (size_t)P;
    x.s = (uint16_t *)(void *)(f + at);
    if (has_min(c)) x.m = x.s + n;
    at = round64(at + 2 * n * (has_min(c) ? 2 : 1));
    x.low = (uint8_t *)f + at;
    at += round64(wn_codes_plane_bytes(wn_codes_low(c->kind), x.depth, x.cols));
    if (wn_codes_high(c->kind)) x.high = (uint8_t *)f + at;
    at += round64(wn_codes_plane_bytes(wn_codes_high(c->kind), x.depth, x.cols));
    x.bytes = at;
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

/* What a code u stands for is s ((u << shift) - zero), plus m. */
static int zero_of(const wn_coding *c)
{
    int bits = wn_codes_bits(c->kind);
    if (has_min(c)) return 0;
    if (c->grid == WN_GRID_TABLE) return 128;
    return c->grid == WN_GRID_MIDDLE ? (1 << bits) - 1 : 1 << (bits - 1);
}

static int shift_of(const wn_coding *c) { return c->grid == WN_GRID_MIDDLE; }

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
    int code = x->low[wn_codes_at(low, x->depth, x->cols, k, n, &shift)] >> shift & ((1 << low) - 1);
    if (high) code |= (x->high[wn_codes_at(high, x->depth, x->cols, k, n, &shift)] >> shift & ((1 << high) - 1)) << low;
    return code;
}

static float value(const wn_coding *c, int code, uint16_t s, uint16_t m)
{
    int u = wn_codes_mapped(c->kind) ? c->table[code] : code;
    float y = wn_elem_from_f16(s) * (float)((u << shift_of(c)) - zero_of(c));
    return has_min(c) ? y + wn_elem_from_f16(m) : y;
}

/* ---- encoding ------------------------------------------------------------------------ */

/* One slot's row: into codes, its parameters into place. */
static void encode_slot(const wn_coding *c, const parts *x, int slot, uint8_t *codes, float *row, int head_dim)
{
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    if (c->turned) ops->hadamard(row, head_dim);
    ops->encode(codes, x->s + slot, x->m ? x->m + slot : NULL, x->stride, row, head_dim, c->group, c->kind, c->grid,
                c->table);
}

static bool is_live(uint64_t keep, int n, int slot) { return slot < n && (keep >> slot & 1); }

static bool all_finite(const float *x, int n)
{
    for (int i = 0; i < n; i++)
        if ((wn_elem_bits(x[i]) & 0x7f800000u) == 0x7f800000u) return false;
    return true;
}

/* Parameters per channel: a channel's row of live, finite slots; the others repeat the first of
 * them, so that they count for nothing. */
static void encode_by_channel(const wn_coding *c, const parts *x, const void *raw, const wn_format *rf, int P, int n,
                              uint64_t keep, int head_dim)
{
    float rows[WN_PAGE_SLOTS_MAX][DIM_MAX], row[WN_PAGE_SLOTS_MAX];
    uint8_t codes[WN_PAGE_SLOTS_MAX];
    uint64_t good = 0;
    for (int s = 0; s < P; s++) {
        if (!is_live(keep, n, s)) continue;
        rf->get_k(raw, P, s, rows[s], head_dim);
        if (all_finite(rows[s], head_dim)) good |= (uint64_t)1 << s;
        else *x->spoiled |= (uint64_t)1 << s;
    }
    int first = good ? __builtin_ctzll(good) : 0;
    for (int d = 0; d < head_dim; d++) {
        for (int s = 0; s < P; s++) row[s] = !good ? 0 : rows[good >> s & 1 ? s : first][d];
        wn_kernels_get()->codes->encode(codes, x->s + d, x->m + d, 0, row, P, 0, c->kind, c->grid, c->table);
        for (int s = 0; s < P; s++) put_code(c, x, d, s, codes[s]);
    }
}

void wn_coded_encode_k(const wn_coding *c, void *frame, const void *raw, const wn_format *raw_format, int P, int n,
                       uint64_t keep, int head_dim)
{
    parts x = k_parts(c, frame, P, head_dim);
    float row[DIM_MAX];
    uint8_t codes[DIM_MAX];
    memset(frame, 0, x.bytes);
    if (c->by_channel) {
        encode_by_channel(c, &x, raw, raw_format, P, n, keep, head_dim);
        return;
    }
    for (int s = 0; s < P; s++) {
        if (!is_live(keep, n, s)) continue;
        raw_format->get_k(raw, P, s, row, head_dim);
        encode_slot(c, &x, s, codes, row, head_dim);
        for (int d = 0; d < head_dim; d++) put_code(c, &x, d, s, codes[d]);
    }
}

void wn_coded_encode_v(const wn_coding *c, void *frame, const void *raw, const wn_format *raw_format, int P, int n,
                       uint64_t keep, int head_dim)
{
    parts x = v_parts(c, frame, P, head_dim);
    float row[DIM_MAX];
    uint8_t codes[DIM_MAX];
    memset(frame, 0, x.bytes);
    for (int s = 0; s < P; s++) {
        if (!is_live(keep, n, s)) continue;
        raw_format->get_v(raw, P, s, row, head_dim);
        encode_slot(c, &x, s, codes, row, head_dim);
        for (int d = 0; d < head_dim; d++) put_code(c, &x, s, d, codes[d]);
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
    for (int d = 0; d < head_dim; d++) {
        size_t at = param_at(c, x, slot, d);
        int code = is_k ? get_code(c, x, d, slot) : get_code(c, x, slot, d);
        row[d] = value(c, code, x->s[at], x->m ? x->m[at] : 0);
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
        dst->s[(size_t)g * dst->stride + (size_t)to] = src->s[(size_t)g * src->stride + (size_t)from];
        if (dst->m) dst->m[(size_t)g * dst->stride + (size_t)to] = src->m[(size_t)g * src->stride + (size_t)from];
    }
}

void wn_coded_copy_k(const wn_coding *c, void *dst, int dst_slot, const void *src, int src_slot, int P, int head_dim)
{
    parts a = k_parts(c, dst, P, head_dim), b = k_parts(c, src, P, head_dim);
    WN_ASSERT(!c->by_channel);
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
    if (c->by_channel) return;                  /* q itself, times the page's parameters */
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
    }
}

static wn_codes_product product_of(const wn_coding *c, const parts *x)
{
    return (wn_codes_product){
        .low = x->low, .high = x->high, .table = c->table, .n_cols = x->cols, .depth = x->depth, .to = x->depth,
        .zero = zero_of(c), .shift = shift_of(c),
    };
}

/* Some queries against a whole page, into rows of whole pages. */
static void score_by_slot(const wn_coding *c, const parts *x, const wn_page_score *s, int row, int n_rows, float *out,
                          size_t stride, const void *ahead)
{
    wn_codes_product p = product_of(c, x);
    p.x_stride = wn_format_ready_bytes(s->head_dim);
    p.x = (const wn_codes_x *)(const void *)((const char *)s->ready + (size_t)row * p.x_stride);
    p.n_rows = n_rows;
    p.c = out, p.c_stride = stride;
    p.group = c->group ? c->group : x->depth;
    p.s = x->s, p.m = x->m, p.param_stride = x->stride;
    p.ahead = ahead;
    wn_kernels_get()->codes->score[c->kind](&p);
}

static void score_by_channel(const wn_coding *c, const parts *x, const wn_page_score *s, const float *scales,
                             const float *mins, int row, int n_rows, float *out, size_t stride, const void *ahead)
{
    enum { X_BYTES = sizeof(wn_codes_x) + 2 * DIM_MAX };
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    _Alignas(64) char folded[ROWS][X_BYTES];
    wn_codes_product p = product_of(c, x);
    for (int i = 0; i < n_rows; i++) {
        wn_codes_x *to = (wn_codes_x *)(void *)folded[i];
        const float *q = s->q + (size_t)(row + i) * s->q_stride;
        ops->quantise(to, q, scales, s->head_dim);
        to->offset = ops->dot(q, mins, s->head_dim);
    }
    p.x = (const wn_codes_x *)(const void *)folded[0];
    p.x_stride = X_BYTES;
    p.n_rows = n_rows;
    p.c = out, p.c_stride = stride;
    p.col_group = x->cols;
    p.ahead = ahead;
    ops->mix[c->kind](&p);
    for (uint64_t left = *x->spoiled; left; left &= left - 1)
        for (int i = 0; i < n_rows; i++) out[(size_t)i * stride + (size_t)__builtin_ctzll(left)] = NAN;
}

void wn_coded_score(const wn_coding *c, const wn_page_score *s)
{
    parts x = k_parts(c, s->frame, s->P, s->head_dim);
    _Alignas(64) float page[ROWS][WN_PAGE_SLOTS_MAX], scales[DIM_MAX], mins[DIM_MAX];
    bool direct = s->first == 0 && x.cols <= ((s->n + 15) & ~15);
    if (c->by_channel)
        for (int d = 0; d < s->head_dim; d++) scales[d] = wn_elem_from_f16(x.s[d]), mins[d] = wn_elem_from_f16(x.m[d]);
    int step = direct && !c->by_channel ? s->n_q : ROWS;
    for (int i = 0; i < s->n_q; i += step) {
        int rows = WN_MIN(step, s->n_q - i);
        float *out = direct ? s->out + (size_t)i * s->out_stride : page[0];
        size_t stride = direct ? s->out_stride : WN_PAGE_SLOTS_MAX;
        const void *ahead = i ? NULL : s->ahead;
        if (c->by_channel) score_by_channel(c, &x, s, scales, mins, i, rows, out, stride, ahead);
        else score_by_slot(c, &x, s, i, rows, out, stride, ahead);
        for (int r = 0; !direct && r < rows; r++)
            memcpy(s->out + (size_t)(i + r) * s->out_stride, page[r] + s->first, sizeof(float) * (size_t)s->n);
    }
}

/* ---- mix ----------------------------------------------------------------------------- */

/* The slots' parameters of group g as floats. */
static void widen_params(float *out, const uint16_t *param, const wn_page_mix *m)
{
    for (int s = 0; s < m->P; s++) out[s] = wn_elem_from_f16(param[s]);
}

void wn_coded_mix(const wn_coding *c, const wn_page_mix *m)
{
    enum { X_BYTES = sizeof(wn_codes_x) + 2 * WN_PAGE_SLOTS_MAX };
    const wn_codes_ops *ops = wn_kernels_get()->codes;
    parts x = v_parts(c, m->frame, m->P, m->head_dim);
    int groups = n_groups(c, m->head_dim), unit = wn_codes_unit(c->kind);
    _Alignas(64) char weights[ROWS][WN_CODES_GROUPS][X_BYTES];
    _Alignas(64) float by[2][WN_CODES_GROUPS][WN_PAGE_SLOTS_MAX], w[WN_PAGE_SLOTS_MAX] = { 0 };
    _Alignas(64) float sums[ROWS][DIM_MAX];     /* where head_dim is no multiple of 16 */
    bool direct = x.cols == m->head_dim;
    for (int g = 0; g < groups; g++) {
        widen_params(by[0][g], x.s + (size_t)g * x.stride, m);
        if (x.m) widen_params(by[1][g], x.m + (size_t)g * x.stride, m);
    }
    wn_codes_product p = product_of(c, &x);
    p.x = (const wn_codes_x *)(const void *)weights[0][0];
    p.x_stride = sizeof weights[0];
    p.x_group = X_BYTES;
    p.col_group = c->group ? c->group : x.cols;
    p.from = m->first / unit * unit;
    p.to = WN_MIN(x.depth, (m->first + m->n + unit - 1) / unit * unit);
    p.add = true;
    p.c = sums[0], p.c_stride = DIM_MAX;
    for (int i = 0; i < m->n_q; i += ROWS) {
        p.n_rows = WN_MIN(ROWS, m->n_q - i);
        for (int r = 0; r < p.n_rows; r++) {
            memcpy(w + m->first, m->w + (size_t)(i + r) * m->w_stride, sizeof *w * (size_t)m->n);
            for (int g = 0; g < groups; g++) {
                wn_codes_x *to = (wn_codes_x *)(void *)weights[r][g];
                ops->quantise(to, w, by[0][g], m->P);
                to->offset = x.m ? ops->dot(w, by[1][g], m->P) : 0;
            }
        }
        float *acc = m->acc + (size_t)i * m->acc_stride;
        size_t row = sizeof *acc * (size_t)m->head_dim;
        if (direct) p.c = acc, p.c_stride = m->acc_stride;
        for (int r = 0; !direct && r < p.n_rows; r++) memcpy(sums[r], acc + (size_t)r * m->acc_stride, row);
        p.ahead = i ? NULL : m->ahead;
        ops->mix[c->kind](&p);
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
