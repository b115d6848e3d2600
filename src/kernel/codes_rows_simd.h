/* kernel/codes_rows_simd.h - rows turned and encoded, for any vector width: what codes_simd.h
 * does not hold. Included after it; beside its words it wants
 *
 *     v_min v_max v_sub v_cut (to integers, towards 0) v_butterfly(x, h)
 *     i_store8            W integers as bytes
 *     i_count_above       u + 1 where y > a mark
 */

/* ---- rotation ------------------------------------------------------------------------- */

INLINE void hadamard_block(float *x, int n)
{
    int h = 1;
    if (n < W) {
        for (; h < n; h *= 2)
            for (int i = 0; i < n; i++) {
                if (i & h) continue;
                float a = x[i], b = x[i + h];
                x[i] = a + b;
                x[i + h] = a - b;
            }
        for (int i = 0; i < n; i++) x[i] *= 1 / sqrtf((float)n);
        return;
    }
    vec scale = v_set(1 / sqrtf((float)n));
    for (int i = 0; i < n; i += W) {
        vec y = v_load(x + i);
        UNROLL for (int s = 1; s < W; s *= 2) y = v_butterfly(y, s);
        v_store(x + i, n == W ? v_mul(y, scale) : y);
    }
    for (h = W; h < n; h *= 2)
        for (int i = 0; i < n; i += 2 * h)
            for (int j = i; j < i + h; j += W) {
                vec a = v_load(x + j), b = v_load(x + j + h), sum = v_add(a, b), dif = v_sub(a, b);
                v_store(x + j, 2 * h == n ? v_mul(sum, scale) : sum);
                v_store(x + j + h, 2 * h == n ? v_mul(dif, scale) : dif);
            }
}

static void hadamard(float *x, int n)
{
    while (n > 0) {
        int block = 1;
        while (block * 2 <= n) block *= 2;
        hadamard_block(x, block);
        x += block;
        n -= block;
    }
}

/* ---- codes ----------------------------------------------------------------------------- */

/* What encoding a group has to know of it. */
typedef struct { float min, max, most; } extent;       /* most: the first of the largest
                                                          magnitude */

INLINE float fold_min(vec x)
{
    float lane[W], y;
    v_store(lane, x);
    y = lane[0];
    for (int i = 1; i < W; i++) y = lane[i] < y ? lane[i] : y;
    return y;
}

INLINE extent extent_of(const float *x, int n, bool range, bool sign)
{
    extent e = { 0 };
    if (range) {
        vec min = v_load(x), max = min;
        for (int i = W; i < n; i += W)
            min = v_min(min, v_load(x + i)), max = v_max(max, v_load(x + i));
        e.min = fold_min(min) + 0.0f;
        e.max = -fold_min(v_sub(v_zero(), max)) + 0.0f;
        return e;
    }
    ivec most = i_zero();
    for (int i = 0; i < n; i += W) most = i_max(most, i_bits(v_load(x + i)));
    uint32_t bits = i_top(most);
    e.most = wn_elem_from_bits(bits);
    for (int i = 0; sign && i < n; i++)
        if ((wn_elem_bits(x[i]) & 0x7fffffffu) == bits) {
            e.most = x[i];
            break;
        }
    return e;
}

INLINE float inverse(float s) { return fabsf(s) >= 0x1p-100f ? 1 / s : 0; }

/* codes = nearest or cut((x - sub) * inv + add), between lo and hi, + plus */
INLINE void to_codes(uint8_t *codes, const float *x, int n, float sub, float inv, float add,
                     bool to_nearest, float lo, float hi, int plus)
{
    for (int i = 0; i < n; i += W) {
        vec y = v_add(v_mul(v_sub(v_load(x + i), v_set(sub)), v_set(inv)), v_set(add));
        y = v_min(v_max(y, v_set(lo)), v_set(hi));
        i_store8(codes + i, i_add(to_nearest ? v_int(y) : v_cut(y), i_set(plus)));
    }
}

INLINE void to_places(uint8_t *codes, const float *x, int n, float inv, const uint8_t *table,
                      int count)
{
    float marks[16];
    for (int u = 0; u + 1 < count; u++) marks[u] = 0.5f * (float)(table[u] + table[u + 1] - 256);
    for (int i = 0; i < n; i += W) {
        vec y = v_mul(v_load(x + i), v_set(inv));
        ivec u = i_zero();
        for (int k = 0; k + 1 < count; k++) u = i_count_above(u, y, v_set(marks[k]));
        i_store8(codes + i, u);
    }
}

static void encode_group(uint8_t *codes, uint16_t *s, uint16_t *m, const float *x, int n, int bits,
                         wn_codes_grid grid, const uint8_t *table)
{
    int half = 1 << (bits - 1), top = 2 * half - 1;
    float fh = (float)half, ft = (float)top, d;
    extent e = extent_of(x, n, grid == WN_GRID_RANGE || grid == WN_GRID_GGML_1,
                         grid == WN_GRID_GGML_0);
    switch (grid) {
    case WN_GRID_CENTRE:
        *s = wn_codes_f16_up(e.most / (fh - 1));
        to_codes(codes, x, n, 0, inverse(wn_elem_from_f16(*s)), 0, true, 1 - fh, fh - 1, half);
        break;
    case WN_GRID_MIDDLE:
        *s = wn_codes_f16_up(e.most / (2 * fh));
        to_codes(codes, x, n, 0, 0.5f * inverse(wn_elem_from_f16(*s)), fh, false, 0, ft, 0);
        break;
    case WN_GRID_RANGE:
        *m = wn_codes_f16_down(e.min);
        d = wn_elem_from_f16(*m);
        *s = wn_codes_f16_up((e.max - d) / ft);
        to_codes(codes, x, n, d, inverse(wn_elem_from_f16(*s)), 0, true, 0, ft, 0);
        break;
    case WN_GRID_TABLE:
        *s = wn_codes_f16_up(e.most / 127);
        to_places(codes, x, n, inverse(wn_elem_from_f16(*s)), table, top + 1);
        break;
    case WN_GRID_GGML_8:
        d = e.most / 127;
        *s = wn_codes_f16_near(d);
        to_codes(codes, x, n, 0, inverse(d), 0, true, -127, 127, 128);
        break;
    case WN_GRID_GGML_0:
        d = e.most / -fh;
        *s = wn_codes_f16_near(d);
        to_codes(codes, x, n, 0, inverse(d), fh + 0.5f, false, 0, ft, 0);
        break;
    case WN_GRID_GGML_1:
        d = (e.max - e.min) / ft;
        *s = wn_codes_f16_near(d);
        *m = wn_codes_f16_near(e.min);
        to_codes(codes, x, n, e.min, inverse(d), 0.5f, false, 0, ft, 0);
        break;
    }
}

/* A group that is no multiple of a vector: its first number fills up. */
static void encode_part(uint8_t *codes, uint16_t *s, uint16_t *m, const float *x, int n, int bits,
                        wn_codes_grid grid, const uint8_t *table)
{
    _Alignas(64) float full[WN_CODES_DEPTH];
    uint8_t all[WN_CODES_DEPTH];
    int n_full = (n + W - 1) / W * W;
    for (int i = 0; i < n_full; i++) full[i] = x[i < n ? i : 0];
    encode_group(all, s, m, full, n_full, bits, grid, table);
    memcpy(codes, all, (size_t)n);
}

static bool all_finite(const float *x, int n)
{
    ivec most = i_zero();
    int i = 0;
    uint32_t rest = 0;
    for (; i + W <= n; i += W) most = i_max(most, i_bits(v_load(x + i)));
    for (; i < n; i++) rest |= (wn_elem_bits(x[i]) & 0x7f800000u) == 0x7f800000u;
    return !rest && i_top(most) < 0x7f800000u;
}

static void encode(uint8_t *codes, uint16_t *s, uint16_t *m, size_t stride, const float *x, int n,
                   int group, wn_codes_kind kind, wn_codes_grid grid, const uint8_t *table)
{
    bool finite = all_finite(x, n);
    int step = group > 0 ? group : n, bits = wn_codes_bits(kind);
    for (int at = 0; at < n; at += step, s += stride, m += m ? stride : 0) {
        int len = n - at < step ? n - at : step;
        if (finite) {
            (len % W ? encode_part : encode_group)(codes + at, s, m, x + at, len, bits, grid,
                                                   table);
            if (grid == WN_GRID_TABLE)
                *s = wn_codes_fit(x + at, codes + at, len, table, (1 << bits) - 1,
                                  wn_elem_from_f16(*s));
            continue;
        }
        memset(codes + at, 0, (size_t)len);
        *s = 0x7e00;
        if (m) *m = 0x7e00;
    }
}

#define WN_CODES_OPS                                                                          \
    {                                                                                         \
        .quantise = quantise, .largest = largest, .begin = begin, .weigh = weigh,             \
        .settle = settle, .widen = widen, .dot = dot, .hadamard = hadamard, .encode = encode, \
    }

#define WN_PLANES_OPS                                                                            \
    {                                                                                            \
        .score = { score_8,  score_44, score_42, score_41,  score_4,                             \
                   score_21, score_2,  score_4t, score_21t, score_2t },                          \
        .mix = { mix_8, mix_44, mix_42, mix_41, mix_4, mix_21, mix_2, mix_4t, mix_21t, mix_2t }, \
    }
