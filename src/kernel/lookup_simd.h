/* kernel/lookup_simd.h - turning and mixing in vectors, for any width; see lookup.h.
 *
 * Who includes it has defined: vec, ivec and block (the halves of two vecs), LANES of a vec;
 * v_load, v_store, v_set, v_add, v_sub, v_mul, v_fma(a, b, c) = a b + c, v_gather(p, at); i_load,
 * i_times(x, n); in_a_row(rest, upper): do the first LANES slots follow each other under one upper
 * part; read_block(codes, points, c): the numbers of 2 LANES channels; first_of, second_of: a
 * block's halves as numbers.
 */
#define INLINE static inline __attribute__((always_inline))

/* Slots of a page that was never thinned out follow each other and share the upper part: their
 * angles are loads. */
static void turn(const wn_lookup_turn *t)
{
    int s = 0;
    for (; s + LANES <= t->n; s += LANES) {
        ivec rest = i_load(t->rest + s), above = i_times(i_load(t->upper + s), 2 * t->n_pairs);
        bool row = in_a_row(t->rest + s, t->upper + s);
        const float *low = t->low + (row ? t->rest[s] : 0),
                    *high = t->high + (row ? (size_t)t->upper[s] * 2 * (size_t)t->n_pairs : 0);
        float *a = t->x + s;
        for (int j = 0; j < t->n_pairs;
             j++, low += 2 * WN_LOOKUP_TURN, high += 2, a += (size_t)t->step * t->stride) {
            float *b = a + (size_t)t->to * t->stride;
            vec x = v_load(a), y = v_load(b);
            vec cl = row ? v_load(low) : v_gather(low, rest);
            vec sl = row ? v_load(low + WN_LOOKUP_TURN) : v_gather(low + WN_LOOKUP_TURN, rest);
            vec ch = row ? v_set(high[0]) : v_gather(high, above),
                sh = row ? v_set(high[1]) : v_gather(high + 1, above);
            vec cs = v_sub(v_mul(ch, cl), v_mul(sh, sl)), sn = v_add(v_mul(sh, cl), v_mul(ch, sl));
            v_store(a, v_sub(v_mul(x, cs), v_mul(y, sn)));
            v_store(b, v_add(v_mul(y, cs), v_mul(x, sn)));
        }
    }
    wn_lookup_turn_from(t, s);
}

enum { ROWS = 4 };                      /* queries answered from one reading */

INLINE void mix_block(const wn_lookup_mix *m, int d, int row, int rows, int c)
{
    const uint16_t *points = m->points + (size_t)d * WN_LOOKUP_POINTS;
    const uint8_t *codes = m->codes + d / c;
    const float *w = m->w + (size_t)row * m->w_stride;
    float *acc = m->acc + (size_t)row * m->acc_stride + d;
    vec sum[ROWS][2];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < 2; v++) sum[i][v] = v_load(acc + (size_t)i * m->acc_stride + v * LANES);
    for (int s = 0; s < m->n; s++, codes += m->code_stride) {
        block x = read_block(codes, points, c);
        vec a = first_of(x), b = second_of(x);
        for (int i = 0; i < rows; i++) {
            vec by = v_set(w[(size_t)i * m->w_stride + (size_t)s]);
            sum[i][0] = v_fma(by, a, sum[i][0]);
            sum[i][1] = v_fma(by, b, sum[i][1]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < 2; v++) v_store(acc + (size_t)i * m->acc_stride + v * LANES, sum[i][v]);
}

INLINE void mix_by(const wn_lookup_mix *m, int c)
{
    int d = 0;
    for (; d + 2 * LANES <= m->head_dim; d += 2 * LANES)
        for (int i = 0; i < m->n_q; i += ROWS)
            switch (m->n_q - i) {
            case 1: mix_block(m, d, i, 1, c); break;
            case 2: mix_block(m, d, i, 2, c); break;
            case 3: mix_block(m, d, i, 3, c); break;
            default: mix_block(m, d, i, ROWS, c);
            }
    wn_lookup_mix_from(m, d);
}

static void mix(const wn_lookup_mix *m)
{
    if (m->c == 2) mix_by(m, 2);
    else if (m->c == 4) mix_by(m, 4);
    else mix_by(m, 8);
}
