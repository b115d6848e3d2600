/* kernel/attn_simd.h - the leaf loops of attention for any vector width.
 *
 * Included once by attn_avx2.c and once by attn_avx512.c, after they have said what a
 * vector is. It stands on these words, each one or a few instructions:
 *
 *     vec, W              a vector of W floats
 *     COLS                vectors per register tile of a widened page (rows: 6)
 *     v_zero v_set v_load v_store v_load_n v_store_n v_fma v_add v_sub v_mul v_div v_max
 *     v_exp v_tanh v_finite
 *     v_widen(e, p, i)    elements i .. i + W - 1 of a raw array; v_widen_n: only n of them
 *     v_narrow(e, p, i, x)   the way back
 *     v_transpose(r)      W vectors as a square
 *     dvec                W doubles; w_zero, w_squares(s, x): s + x * x,
 *     w_scale(s)          1 / sqrt(s) as floats, 0 where s is not above 0
 *
 * The product keeps a tile of rows x vectors in registers and walks down the depth; few
 * rows (decode) widen elements on the way, many rows (prefill) widen the page once into
 * panels of COLS vectors, so that a panel is contiguous and stays in the first cache
 * while all rows pass over it. A tile's shape is a constant of the inlined body.
 */
#define INLINE static inline __attribute__((always_inline))

/* Bytes to fetch while a product runs, spread evenly over its steps: from at to end, then
 * on from next to next_end. */
typedef struct {
    const char *at, *end, *next, *next_end;
    size_t step, apart;                 /* bytes of lines a time; from one line to the next */
    bool near;
} fetcher;

/* How far ahead a stream from memory is fetched. Intel's cores read most by following a
 * stream themselves; fetching a page ahead leaves that to the line fill buffers, which give
 * two thirds. AMD's do better the other way round (bench/NOTES.md). */
enum { NEAR_BYTES = 2048, PART_DEPTH = 16 };

INLINE void fetch(fetcher *f)
{
    for (size_t n = 0; n < f->step; n += 64, f->at += f->apart) {
        if (f->at >= f->end) {
            if (!f->next) return;
            f->at = f->next;
            f->end = f->next_end;
            f->next = NULL;
            f->apart = 64;
        }
        if (f->near) __builtin_prefetch(f->at, 0, 3);
        else __builtin_prefetch(f->at, 0, 2);
    }
}

INLINE size_t per_step(size_t bytes, int steps)
{
    return steps ? (bytes / (size_t)steps + 63) & ~(size_t)63 : 0;
}

/* All of the frame that is read next. */
INLINE fetcher fetch_next(const wn_attn_product *p, int steps)
{
    fetcher f = { .at = p->ahead, .end = (const char *)p->ahead + p->ahead_bytes, .apart = 64 };
    if (!p->ahead) f.end = f.at;
    f.step = per_step((size_t)(f.end - f.at), steps);
    return f;
}

/* This product's own bytes in the order in which it reads them, NEAR_BYTES before it does, and in
 * the end the first of the frame that is read next. Where a few columns lie in one line of each row
 * the rest of the row is left alone: another split's, or nobody's. */
INLINE fetcher fetch_near(const wn_attn_product *p, const wn_elem e, int steps)
{
    const size_t elem = e == WN_ELEM_F32 ? 4 : 2, row = p->b_stride * elem;
    size_t cols = (size_t)p->n_cols * elem, bytes = (size_t)(p->depth - 1) * row + cols;
    size_t near = NEAR_BYTES, ahead = p->ahead_bytes < near ? p->ahead_bytes : near;
    bool one = row >= 128 && row % 64 == 0 && ((uintptr_t)p->b & 63) + cols <= 64;
    if (one) near *= row / 64;
    fetcher f = { .at = (const char *)p->b + near, .end = (const char *)p->b + bytes,
                  .apart = one ? row : 64, .near = true };
    if (p->ahead) {
        f.next = p->ahead;
        f.next_end = f.next + ahead;
    }
    f.step = per_step(one ? (size_t)p->depth * 64 : bytes, steps);
    return f;
}

/* c (MR x NV vectors) = chain over depth. part > 0: the only vector has part columns. */
INLINE void tile(const int MR, const int NV, const wn_elem e, const bool partial, int part,
                 float *c, size_t c_stride, const float *a, size_t a_stride, const void *b,
                 size_t b_at, size_t b_stride, int depth, bool add, fetcher *f)
{
    vec acc[6][4];
    _Pragma("GCC unroll 6") for (int i = 0; i < MR; i++)
        _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)
            acc[i][v] = !add ? v_zero() : partial ? v_load_n(c + (size_t)i * c_stride, part)
                                                  : v_load(c + (size_t)i * c_stride + v * W);
    for (int j = 0; j < depth;) {
        int stop = !f || j + 8 > depth ? depth : j + 8;     /* without a fetcher: one long loop */
        if (f) fetch(f);
        _Pragma("GCC unroll 4") for (; j < stop; j++) {
            vec x[4];
            _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)
                x[v] = partial ? v_widen_n(e, b, b_at, part)
                               : v_widen(e, b, b_at + (size_t)(v * W));
            _Pragma("GCC unroll 6") for (int i = 0; i < MR; i++) {
                vec q = v_set(a[(size_t)i * a_stride + (size_t)j]);
                _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)
                    acc[i][v] = v_fma(q, x[v], acc[i][v]);
            }
            b_at += b_stride;
        }
    }
    _Pragma("GCC unroll 6") for (int i = 0; i < MR; i++)
        _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)
            if (partial) v_store_n(c + (size_t)i * c_stride, acc[i][v], part);
            else v_store(c + (size_t)i * c_stride + v * W, acc[i][v]);
}

/* Columns [x, x + NV * W) (or a part of one vector) for all rows of a group of MR. */
#define TILE_ROWS(MR)                                                                     \
    case MR:                                                                              \
        tile(MR, NV, e, partial, part, c, p->c_stride, a, p->a_stride, b, b_at, b_stride, \
             p->depth, p->add, f);                                                        \
        break

INLINE void tiles(const int NV, const wn_elem e, const bool partial, int part, int rows,
                  const wn_attn_product *p, int i, int x, const void *b, size_t b_at,
                  size_t b_stride, fetcher *f)
{
    float *c = p->c + (size_t)i * p->c_stride + x;
    const float *a = p->a + (size_t)i * p->a_stride;
    switch (rows) {
        TILE_ROWS(1);
        TILE_ROWS(2);
        TILE_ROWS(3);
        TILE_ROWS(4);
        TILE_ROWS(5);
        TILE_ROWS(6);
    }
}

/* Rows in a group when elements are widened on the way: no more than leaves room for the
 * widened vectors. */
enum { FEW_ROWS = W == 16 ? 6 : 4 };

/* All columns of some steps of the depth, for a group of rows. */
INLINE void few(const wn_attn_product *p, const wn_elem e, int i, int rows, fetcher *f)
{
    const int wide = COLS * W;
    int x = 0;
    for (; x + wide <= p->n_cols; x += wide)
        tiles(COLS, e, false, 0, rows, p, i, x, p->b, (size_t)x, p->b_stride, f);
    for (; x + W <= p->n_cols; x += W)
        tiles(1, e, false, 0, rows, p, i, x, p->b, (size_t)x, p->b_stride, f);
    if (x < p->n_cols)
        tiles(1, e, true, p->n_cols - x, rows, p, i, x, p->b, (size_t)x, p->b_stride, f);
}

/* Where a row of b is wider than a tile, the depth is walked in parts, so that memory is
 * read in its own order and not in stripes. */
INLINE void product_few(const wn_attn_product *p, const wn_elem e)
{
    const int wide = COLS * W;
    int part = p->n_cols <= wide ? p->depth : PART_DEPTH, steps = 0;
    for (int j = 0; j < p->depth; j += part) {
        int n = p->depth - j < part ? p->depth - j : part;
        steps += (n + 7) / 8 * ((p->n_cols + wide - 1) / wide);
    }
    fetcher f = __builtin_cpu_is("intel") ? fetch_near(p, e, steps) : fetch_next(p, steps);
    for (int i = 0; i < p->n_rows; i += FEW_ROWS) {
        int rows = p->n_rows - i < FEW_ROWS ? p->n_rows - i : FEW_ROWS;
        wn_attn_product q = *p;
        for (int j = 0; j < p->depth || j == 0; j += part) {
            q.depth = p->depth - j < part ? p->depth - j : part;
            few(&q, e, i, rows, &f);
            q.add = true;
            q.a += q.depth;
            q.b = (const char *)q.b + (size_t)q.depth * q.b_stride * (e == WN_ELEM_F32 ? 4 : 2);
        }
    }
}

/* Columns [x, x + n) of b as a panel: depth rows of COLS vectors, zeros after the last. */
INLINE void widen_panel(const wn_attn_product *p, const wn_elem e, int x, int n)
{
    float *to = p->tmp;
    size_t at = (size_t)x;
    for (int j = 0; j < p->depth; j++, to += COLS * W, at += p->b_stride) {
        if (n == COLS * W) {
            _Pragma("GCC unroll 4") for (int v = 0; v < COLS; v++)
                v_store(to + v * W, v_widen(e, p->b, at + (size_t)(v * W)));
            continue;
        }
        for (int v = 0; v < COLS; v++) {
            int left = n - v * W;
            vec y = left >= W ? v_widen(e, p->b, at + (size_t)(v * W))
                  : left > 0  ? v_widen_n(e, p->b, at + (size_t)(v * W), left) : v_zero();
            v_store(to + v * W, y);
        }
    }
}

INLINE void product_many(const wn_attn_product *p, const wn_elem e)
{
    const int wide = COLS * W;
    int steps = (p->n_cols + wide - 1) / wide * ((p->n_rows + 5) / 6);
    fetcher f = fetch_next(p, steps);
    for (int x0 = 0; x0 < p->n_cols; x0 += wide) {
        int n = p->n_cols - x0 < wide ? p->n_cols - x0 : wide;
        widen_panel(p, e, x0, n);
        for (int i = 0; i < p->n_rows; i += 6) {
            int rows = p->n_rows - i < 6 ? p->n_rows - i : 6, x = 0;
            fetch(&f);
            if (n == wide) {
                tiles(COLS, WN_ELEM_F32, false, 0, rows, p, i, x0, p->tmp, 0, (size_t)wide, NULL);
                continue;
            }
            for (; x + W <= n; x += W)
                tiles(1, WN_ELEM_F32, false, 0, rows, p, i, x0 + x, p->tmp, (size_t)x, (size_t)wide,
                      NULL);
            if (x < n)
                tiles(1, WN_ELEM_F32, true, n - x, rows, p, i, x0 + x, p->tmp, (size_t)x,
                      (size_t)wide, NULL);
        }
    }
}

#define PRODUCT(name, e)                                                                           \
    static void product_##name(const wn_attn_product *p)                                           \
    {                                                                                              \
        if (p->tmp) product_many(p, e);                                                            \
        else product_few(p, e);                                                                    \
    }
PRODUCT(f16, WN_ELEM_F16)
PRODUCT(bf16, WN_ELEM_BF16)
PRODUCT(f32, WN_ELEM_F32)

/* ---- putting rows in ----------------------------------------------------------- */

INLINE void put_row(void *dst, const float *x, int n, const wn_elem e)
{
    int i = 0;
    for (; i + W <= n; i += W) v_narrow(e, dst, (size_t)i, v_load(x + i));
    for (; i < n; i++) wn_elem_put(e, dst, (size_t)i, x[i]);
}

/* Squares of W x W are turned in registers; what is left over goes through a small buffer
 * a row at a time (a decode token is one such row). */
INLINE void put_cols(void *dst, size_t dst_stride, const float *rows, size_t stride, int n,
                     int depth, const wn_elem e)
{
    int s = 0;
    for (; s + W <= n; s += W) {
        int d = 0;
        for (; d + W <= depth; d += W) {
            vec r[W];
            for (int i = 0; i < W; i++) r[i] = v_load(rows + (size_t)(s + i) * stride + d);
            v_transpose(r);
            for (int i = 0; i < W; i++)
                v_narrow(e, dst, (size_t)(d + i) * dst_stride + (size_t)s, r[i]);
        }
        for (; d < depth; d++)
            for (int i = 0; i < W; i++)
                wn_elem_put(e, dst, (size_t)d * dst_stride + (size_t)(s + i),
                            rows[(size_t)(s + i) * stride + (size_t)d]);
    }
    for (; s < n; s++) {
        const float *row = rows + (size_t)s * stride;
        int d = 0;
        for (; d + W <= depth; d += W) {
            _Alignas(64) uint32_t buf[W];
            v_narrow(e, buf, 0, v_load(row + d));
            for (int i = 0; i < W; i++) {
                size_t at = (size_t)(d + i) * dst_stride + (size_t)s;
                if (e == WN_ELEM_F32) memcpy((float *)dst + at, (float *)buf + i, 4);
                else memcpy((uint16_t *)dst + at, (uint16_t *)buf + i, 2);
            }
        }
        for (; d < depth; d++) wn_elem_put(e, dst, (size_t)d * dst_stride + (size_t)s, row[d]);
    }
}

#define PUT(name, e)                                                                               \
    static void put_row_##name(void *dst, const float *x, int n) { put_row(dst, x, n, e); }        \
    static void put_cols_##name(void *dst, size_t dst_stride, const float *rows, size_t stride,    \
                                int n, int depth)                                                  \
    {                                                                                              \
        put_cols(dst, dst_stride, rows, stride, n, depth, e);                                      \
    }
PUT(f16, WN_ELEM_F16)
PUT(bf16, WN_ELEM_BF16)
PUT(f32, WN_ELEM_F32)

/* ---- and getting them out -------------------------------------------------------- */

INLINE void get_row(float *x, const void *src, int n, const wn_elem e)
{
    int i = 0;
    for (; i + W <= n; i += W) v_store(x + i, v_widen(e, src, (size_t)i));
    for (; i < n; i++) x[i] = wn_elem_get(e, src, (size_t)i);
}

INLINE void get_cols(float *rows, size_t stride, const void *src, size_t src_stride, int n,
                     int depth, const wn_elem e)
{
    int s = 0;
    for (; s + W <= n; s += W) {
        int d = 0;
        for (; d + W <= depth; d += W) {
            vec r[W];
            for (int i = 0; i < W; i++)
                r[i] = v_widen(e, src, (size_t)(d + i) * src_stride + (size_t)s);
            v_transpose(r);
            for (int i = 0; i < W; i++) v_store(rows + (size_t)(s + i) * stride + d, r[i]);
        }
        for (; d < depth; d++)
            for (int i = 0; i < W; i++)
                rows[(size_t)(s + i) * stride + (size_t)d] = wn_elem_get(e, src,
                                                                         (size_t)d * src_stride +
                                                                             (size_t)(s + i));
    }
    for (; s < n; s++)
        for (int d = 0; d < depth; d++)
            rows[(size_t)s * stride + (size_t)d] = wn_elem_get(e, src,
                                                               (size_t)d * src_stride + (size_t)s);
}

#define GET(name, e)                                                                               \
    static void get_row_##name(float *x, const void *src, int n) { get_row(x, src, n, e); }        \
    static void get_cols_##name(float *rows, size_t stride, const void *src, size_t src_stride,    \
                                int n, int depth)                                                  \
    {                                                                                              \
        get_cols(rows, stride, src, src_stride, n, depth, e);                                      \
    }
GET(f16, WN_ELEM_F16)
GET(bf16, WN_ELEM_BF16)
GET(f32, WN_ELEM_F32)

/* ---- columns of length 1 ----------------------------------------------------------- */

/* The square of a float is exact as a double, so that a fused sum has the bits of the two steps. */
INLINE void unit_some(const int NV, const wn_elem e, const bool partial, int part, float *dst,
                      size_t dst_stride, const void *src, size_t at, size_t src_stride, int depth)
{
    dvec sum[COLS];
    vec scale[COLS];
    size_t from = at;
    _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++) sum[v] = w_zero();
    for (int d = 0; d < depth; d++, at += src_stride)
        _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)
            sum[v] = w_squares(sum[v], partial ? v_widen_n(e, src, at, part)
                                               : v_widen(e, src, at + (size_t)(v * W)));
    _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++) scale[v] = w_scale(sum[v]);
    for (int d = 0; d < depth; d++, from += src_stride, dst += dst_stride)
        _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)
            if (partial) v_store_n(dst, v_mul(v_widen_n(e, src, from, part), scale[v]), part);
            else v_store(dst + v * W, v_mul(v_widen(e, src, from + (size_t)(v * W)), scale[v]));
}

INLINE void unit_cols(float *dst, size_t dst_stride, const void *src, size_t src_stride, int n,
                      int depth, const wn_elem e)
{
    int s = 0;
    for (; s + COLS * W <= n; s += COLS * W)
        unit_some(COLS, e, false, 0, dst + s, dst_stride, src, (size_t)s, src_stride, depth);
    for (; s + W <= n; s += W)
        unit_some(1, e, false, 0, dst + s, dst_stride, src, (size_t)s, src_stride, depth);
    if (s < n) unit_some(1, e, true, n - s, dst + s, dst_stride, src, (size_t)s, src_stride, depth);
}

#define UNIT(name, e)                                                                              \
    static void unit_cols_##name(float *dst, size_t dst_stride, const void *src,                   \
                                 size_t src_stride, int n, int depth)                              \
    {                                                                                              \
        unit_cols(dst, dst_stride, src, src_stride, n, depth, e);                                  \
    }
UNIT(f16, WN_ELEM_F16)
UNIT(bf16, WN_ELEM_BF16)
UNIT(f32, WN_ELEM_F32)

/* ---- softmax pieces ------------------------------------------------------------- */

static float max(const float *x, int n)
{
    float lanes[W];
    vec a = v_set(-INFINITY), b = a;
    int i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
        a = v_max(v_load(x + i), a);
        b = v_max(v_load(x + i + W), b);
    }
    if (i + W <= n) {
        a = v_max(v_load(x + i), a);
        i += W;
    }
    v_store(lanes, v_max(a, b));
    for (; i < n; i++)
        if (x[i] > lanes[0]) lanes[0] = x[i];
    _Pragma("GCC unroll 4") for (int h = W / 2; h; h /= 2)
        _Pragma("GCC unroll 8") for (int k = 0; k < h; k++)
            lanes[k] = lanes[k] > lanes[k + h] ? lanes[k] : lanes[k + h];
    return lanes[0];
}

static void exp_sum(float *x, float m, int n, float chains[16])
{
    vec sum[16 / W], sub = v_set(m);
    for (int k = 0; k < 16 / W; k++) sum[k] = v_load(chains + k * W);
    for (int i = 0; i < n; i += 16) {
        _Pragma("GCC unroll 2") for (int k = 0; k < 16 / W; k++) {
            vec w = v_exp(v_sub(v_load(x + i + k * W), sub));
            v_store(x + i + k * W, w);
            sum[k] = v_add(sum[k], w);
        }
    }
    for (int k = 0; k < 16 / W; k++) v_store(chains + k * W, sum[k]);
}

/* The rows of an entry lie side by side in room, by index. */
static void sum_at(const float *x, size_t stride, int n_rows, const int16_t *index, int n,
                   float *room, float chains[4][16])
{
    enum { ROWS = 4 };
    const float *row[ROWS];
    _Alignas(64) float sums[ROWS * 16];
    vec sum[ROWS * 16 / W];
    int e = 0;
    for (int i = 0; i < ROWS; i++) row[i] = x + (i < n_rows ? (size_t)i * stride : 0);
    for (int i = 0; i < ROWS * WN_SUM_AT; i += W) v_store(room + i, v_zero());
    for (; e + 4 <= n; e += 4) {
        __m128 a = _mm_loadu_ps(row[0] + e), b = _mm_loadu_ps(row[1] + e);
        __m128 c = _mm_loadu_ps(row[2] + e), d = _mm_loadu_ps(row[3] + e);
        _MM_TRANSPOSE4_PS(a, b, c, d);
        _mm_store_ps(room + ROWS * index[e], a);
        _mm_store_ps(room + ROWS * index[e + 1], b);
        _mm_store_ps(room + ROWS * index[e + 2], c);
        _mm_store_ps(room + ROWS * index[e + 3], d);
    }
    for (; e < n; e++)
        for (int i = 0; i < ROWS; i++) room[ROWS * index[e] + i] = row[i][e];
    for (int k = 0; k < ROWS * 16 / W; k++) sum[k] = v_zero();
    for (int i = 0; i < ROWS * WN_SUM_AT; i += ROWS * 16)
        for (int k = 0; k < ROWS * 16 / W; k++) sum[k] = v_add(sum[k], v_load(room + i + k * W));
    for (int k = 0; k < ROWS * 16 / W; k++) v_store(sums + k * W, sum[k]);
    for (int i = 0; i < n_rows; i++)
        for (int c = 0; c < 16; c++) chains[i][c] = sums[ROWS * c + i];
}

static void softcap(float *x, float cap, int n)
{
    for (int i = 0; i < n; i += W) {
        int part = n - i < W ? n - i : W;
        vec y = v_div(part < W ? v_load_n(x + i, part) : v_load(x + i), v_set(cap));
        y = v_mul(v_set(cap), v_tanh(y));
        if (part < W) v_store_n(x + i, y, part);
        else v_store(x + i, y);
    }
}

static void merge(float *acc, float a, const float *more, float b, int n)
{
    vec va = v_set(a), vb = v_set(b);
    int i = 0;
    for (; i + W <= n; i += W)
        v_store(acc + i, v_fma(vb, v_load(more + i), v_mul(va, v_load(acc + i))));
    if (i < n) {
        vec y = v_fma(vb, v_load_n(more + i, n - i), v_mul(va, v_load_n(acc + i, n - i)));
        v_store_n(acc + i, y, n - i);
    }
}

static bool divide(float *out, const float *acc, float l, int n)
{
    bool finite = true;
    vec vl = v_set(l);
    int i = 0;
    for (; i + W <= n; i += W) {
        vec y = v_add(v_div(v_load(acc + i), vl), v_zero());
        finite &= v_finite(y);
        v_store(out + i, y);
    }
    if (i < n) {
        vec y = v_add(v_div(v_load_n(acc + i, n - i), vl), v_zero());
        v_store_n(out + i, y, n - i);
        for (; i < n; i++) finite &= (wn_elem_bits(out[i]) & 0x7f800000u) != 0x7f800000u;
    }
    return finite;
}

#define WN_ATTN_OPS                                                                                \
    {                                                                                              \
        .product = { product_f16, product_bf16, product_f32 },                                     \
        .put_row = { put_row_f16, put_row_bf16, put_row_f32 },                                     \
        .put_cols = { put_cols_f16, put_cols_bf16, put_cols_f32 },                                 \
        .get_row = { get_row_f16, get_row_bf16, get_row_f32 },                                     \
        .get_cols = { get_cols_f16, get_cols_bf16, get_cols_f32 },                                 \
        .max = max, .exp_sum = exp_sum, .sum_at = sum_at, .softcap = softcap, .merge = merge,      \
        .unit_cols = { unit_cols_f16, unit_cols_bf16, unit_cols_f32 },                             \
        .divide = divide,                                                                          \
    }
