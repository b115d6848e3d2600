/* page/raw.h - what the raw formats share: K channel-major, V slot-major, in elements of
 * one kind. f16.c, bf16.c and f32.c name the kind; the loops are in the kernel table.
 *
 *     K frame  [head_dim][P]   element (d, s) at d * P + s
 *     V frame  [P][head_dim]   element (s, d) at s * head_dim + d
 *
 * A raw slot is a column of K and a row of V, so it moves between frames bit by bit.
 */
#ifndef WN_PAGE_RAW_H
#define WN_PAGE_RAW_H

#include "kernel/attn.h"
#include "page/format.h"

/* With this many query rows it pays to widen a page once (WN_N_Q_TMP rows x 64 x D FMAs
 * against one pass of conversions and stores). */
enum { WN_RAW_N_Q_TMP = 16 };

static inline size_t wn_raw_bytes(wn_elem e, int P, int head_dim)
{
    return ((size_t)P * (size_t)head_dim * wn_elem_bytes(e) + 63) & ~(size_t)63;
}

static inline void *wn_raw_at(wn_elem e, void *frame, size_t i)
{
    return (char *)frame + i * wn_elem_bytes(e);
}

static inline const void *wn_raw_at_const(wn_elem e, const void *frame, size_t i)
{
    return (const char *)frame + i * wn_elem_bytes(e);
}

static inline void wn_raw_put_k(wn_elem e, void *frame, int P, int slot, const float *rows,
                                size_t stride, int n, int head_dim)
{
    wn_kernels_get()->attn->put_cols[e](wn_raw_at(e, frame, (size_t)slot), (size_t)P, rows, stride,
                                        n, head_dim);
}

static inline void wn_raw_put_v(wn_elem e, void *frame, int slot, const float *rows, size_t stride,
                                int n, int head_dim)
{
    const wn_attn_ops *ops = wn_kernels_get()->attn;
    for (int s = 0; s < n; s++)
        ops->put_row[e](wn_raw_at(e, frame, (size_t)(slot + s) * (size_t)head_dim),
                        rows + (size_t)s * stride, head_dim);
}

static inline void wn_raw_rows_k(wn_elem e, const void *frame, int P, int slot, float *rows,
                                 size_t stride, int n, int head_dim)
{
    wn_kernels_get()->attn->get_cols[e](rows, stride, wn_raw_at_const(e, frame, (size_t)slot),
                                        (size_t)P, n, head_dim);
}

static inline void wn_raw_rows_v(wn_elem e, const void *frame, int slot, float *rows, size_t stride,
                                 int n, int head_dim)
{
    const wn_attn_ops *ops = wn_kernels_get()->attn;
    for (int s = 0; s < n; s++)
        ops->get_row[e](rows + (size_t)s * stride,
                        wn_raw_at_const(e, frame, (size_t)(slot + s) * (size_t)head_dim), head_dim);
}

static inline void wn_raw_units_k(wn_elem e, const void *frame, int P, int slot, float *cols,
                                  size_t stride, int n, int head_dim)
{
    wn_kernels_get()->attn->unit_cols[e](cols, stride, wn_raw_at_const(e, frame, (size_t)slot),
                                         (size_t)P, n, head_dim);
}

/* A column is laid out as a row first, which the kernel table widens. */
static inline void wn_raw_get(wn_elem e, const void *frame, size_t at, size_t step, float *row,
                              int head_dim)
{
    enum { SOME = 128 };
    _Alignas(64) char some[SOME * 4];
    size_t w = wn_elem_bytes(e);
    const wn_attn_ops *ops = wn_kernels_get()->attn;
    if (step == 1) {
        ops->get_row[e](row, wn_raw_at_const(e, frame, at), head_dim);
        return;
    }
    for (int d = 0, n; d < head_dim; d += n) {
        n = WN_MIN(SOME, head_dim - d);
        for (int i = 0; i < n; i++, at += step)
            memcpy(wn_raw_at(e, some, (size_t)i), wn_raw_at_const(e, frame, at), w);
        ops->get_row[e](row + d, some, n);
    }
}

static inline void wn_raw_copy(wn_elem e, void *dst, size_t dst_at, const void *src, size_t src_at,
                               size_t step, int head_dim)
{
    size_t w = wn_elem_bytes(e);
    if (step == 1) {
        memcpy(wn_raw_at(e, dst, dst_at), wn_raw_at_const(e, src, src_at), w * (size_t)head_dim);
        return;
    }
    for (int d = 0; d < head_dim; d++, dst_at += step, src_at += step)
        memcpy(wn_raw_at(e, dst, dst_at), wn_raw_at_const(e, src, src_at), w);
}

/* Up to 128 bytes between places that do not overlap: in few moves of a size the compiler knows. */
static inline void wn_raw_move(char *to, const char *from, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) memcpy(to + i, from + i, 16);
    if (n & 8) memcpy(to + i, from + i, 8), i += 8;
    if (n & 4) memcpy(to + i, from + i, 4), i += 4;
    if (n & 2) memcpy(to + i, from + i, 2);
}

static inline void wn_raw_copies_k(wn_elem e, void *dst, int to, const void *src, int from, int n,
                                   int P, int head_dim)
{
    size_t w = wn_elem_bytes(e), row = (size_t)P * w;
    char *d = wn_raw_at(e, dst, (size_t)to);
    const char *s = wn_raw_at_const(e, src, (size_t)from);
    for (int i = 0; i < head_dim; i++, d += row, s += row) wn_raw_move(d, s, (size_t)n * w);
}

static inline void wn_raw_copies_v(wn_elem e, void *dst, int to, const void *src, int from, int n,
                                   int head_dim)
{
    size_t row = (size_t)head_dim;
    memcpy(wn_raw_at(e, dst, (size_t)to * row), wn_raw_at_const(e, src, (size_t)from * row),
           (size_t)n * row * wn_elem_bytes(e));
}

/* Columns beyond n up to a multiple of 16 are computed too, where the page has them: whole
 * vectors are cheaper than parts, and out has room. */
static inline void wn_raw_score(wn_elem e, const wn_page_score *s)
{
    int n16 = (s->n + 15) & ~15;
    wn_attn_product p = {
        .c = s->out, .c_stride = s->out_stride,
        .a = s->q, .a_stride = s->q_stride,
        .b = wn_raw_at_const(e, s->frame, (size_t)s->first), .b_stride = (size_t)s->P,
        .n_rows = s->n_q, .n_cols = WN_MIN(n16, s->P - s->first), .depth = s->head_dim,
        .tmp = s->n_q >= WN_RAW_N_Q_TMP ? s->tmp : NULL,
        .ahead = s->ahead.at, .ahead_bytes = wn_ahead_left(&s->ahead),
    };
    wn_kernels_get()->attn->product[e](&p);
}

static inline void wn_raw_mix(wn_elem e, const wn_page_mix *m)
{
    wn_attn_product p = {
        .c = m->acc, .c_stride = m->acc_stride,
        .a = m->w, .a_stride = m->w_stride,
        .b = wn_raw_at_const(e, m->frame, (size_t)m->first * (size_t)m->head_dim),
        .b_stride = (size_t)m->head_dim, .n_rows = m->n_q, .n_cols = m->head_dim, .depth = m->n,
        .add = true, .tmp = m->n_q >= WN_RAW_N_Q_TMP ? m->tmp : NULL,
        .ahead = m->ahead.at, .ahead_bytes = wn_ahead_left(&m->ahead),
    };
    wn_kernels_get()->attn->product[e](&p);
}

/* The table of one kind of element: every entry is the function above with e filled in. */
#define WN_RAW_FORMAT(NAME, E)                                                                     \
    static size_t bytes(int P, int D) { return wn_raw_bytes(E, P, D); }                            \
    static void put_k(void *f, int P, int slot, const float *r, size_t stride, int n, int D)       \
    {                                                                                              \
        wn_raw_put_k(E, f, P, slot, r, stride, n, D);                                              \
    }                                                                                              \
    static void put_v(void *f, int P, int slot, const float *r, size_t stride, int n, int D)       \
    {                                                                                              \
        (void)P;                                                                                   \
        wn_raw_put_v(E, f, slot, r, stride, n, D);                                                 \
    }                                                                                              \
    static void rows_k(const void *f, int P, int slot, float *r, size_t stride, int n, int D)      \
    {                                                                                              \
        wn_raw_rows_k(E, f, P, slot, r, stride, n, D);                                             \
    }                                                                                              \
    static void rows_v(const void *f, int P, int slot, float *r, size_t stride, int n, int D)      \
    {                                                                                              \
        (void)P;                                                                                   \
        wn_raw_rows_v(E, f, slot, r, stride, n, D);                                                \
    }                                                                                              \
    static void units_k(const void *f, int P, int slot, float *c, size_t stride, int n, int D)     \
    {                                                                                              \
        wn_raw_units_k(E, f, P, slot, c, stride, n, D);                                            \
    }                                                                                              \
    static void get_k(const void *f, int P, int slot, float *row, int D)                           \
    {                                                                                              \
        wn_raw_get(E, f, (size_t)slot, (size_t)P, row, D);                                         \
    }                                                                                              \
    static void get_v(const void *f, int P, int slot, float *row, int D)                           \
    {                                                                                              \
        (void)P;                                                                                   \
        wn_raw_get(E, f, (size_t)slot * (size_t)D, 1, row, D);                                     \
    }                                                                                              \
    static void copy_k(void *dst, int to, const void *src, int from, int P, int D)                 \
    {                                                                                              \
        wn_raw_copy(E, dst, (size_t)to, src, (size_t)from, (size_t)P, D);                          \
    }                                                                                              \
    static void copy_v(void *dst, int to, const void *src, int from, int P, int D)                 \
    {                                                                                              \
        (void)P;                                                                                   \
        wn_raw_copy(E, dst, (size_t)to * (size_t)D, src, (size_t)from * (size_t)D, 1, D);          \
    }                                                                                              \
    static void copies_k(void *dst, int to, const void *src, int from, int n, int P, int D)        \
    {                                                                                              \
        wn_raw_copies_k(E, dst, to, src, from, n, P, D);                                           \
    }                                                                                              \
    static void copies_v(void *dst, int to, const void *src, int from, int n, int P, int D)        \
    {                                                                                              \
        (void)P;                                                                                   \
        wn_raw_copies_v(E, dst, to, src, from, n, D);                                              \
    }                                                                                              \
    static void score(const wn_page_score *s) { wn_raw_score(E, s); }                              \
    static void mix(const wn_page_mix *m) { wn_raw_mix(E, m); }                                    \
    const wn_format wn_format_##NAME = {                                                           \
        .name = #NAME, .raw = true, .n_q_tmp = WN_RAW_N_Q_TMP,                                     \
        .k_bytes = bytes, .v_bytes = bytes, .put_k = put_k, .put_v = put_v, .rows_k = rows_k,      \
        .rows_v = rows_v, .units_k = units_k, .get_k = get_k, .get_v = get_v, .copy_k = copy_k,    \
        .copy_v = copy_v, .copies_k = copies_k, .copies_v = copies_v, .score = score, .mix = mix,  \
    }

#endif
