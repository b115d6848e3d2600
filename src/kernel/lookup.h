/* kernel/lookup.h - codes that name rows of a table: finding the row that is nearest, and reading
 * pages of such codes.
 *
 * To find: a table holds 256 points of c numbers, number by number: table[k][i] is number k of
 * point i. The distance of x to point i is the sum over k, in ascending order, of (x[k] -
 * table[k][i])^2, products rounded before they are added; of equal distances the lower i is nearer.
 * A point that is not to be found has INFINITY in table[0].
 *
 * To read: points are halves, point by point, 256 of c numbers (2, 4 or 8). Keys are laid out by
 * channel, a column for each slot, and turned to their positions there; values go into a mix as
 * they are read. Reading is exact, turning rounds each product, mixing is one FMA chain over slots
 * in ascending order, as over raw pages: all tables of kernels give the same codes and the same
 * bits.
 */
#ifndef WN_KERNEL_LOOKUP_H
#define WN_KERNEL_LOOKUP_H

#include "kernel/elem.h"
#include "kernel/kernel.h"

#include <math.h>

enum { WN_LOOKUP_POINTS = 256, WN_LOOKUP_LEVELS = 16, WN_LOOKUP_TURN = 64 };

/* Pairs of channels, rows j step and j step + to of x (a row is a channel, slots are its columns),
 * by the angle of each slot: upper[s] times 64 positions and rest[s] more. Angles are put together
 * first:
 *
 *     cos = ch cl - sh sl    sin = sh cl + ch sl    a' = a cos - b sin    b' = b cos + a sin
 */
typedef struct {
    float *x;
    size_t stride;
    int n;                              /* slots; exactly these are written */
    int n_pairs, step, to;
    const float *low;                   /* (n_pairs, 2, 64): cos and sin of each pair at rest
                                           positions */
    const float *high;                  /* (.., n_pairs, 2): cos, sin of each pair at 64 upper */
    const int32_t *rest, *upper;        /* (n) */
} wn_lookup_turn;

/* acc[i][d] = chain over slots s of fma(w[i][s], number d of slot s, .), continuing what acc
 * holds. */
typedef struct {
    float *acc;
    size_t acc_stride;
    const float *w;                     /* (n_q, n) */
    size_t w_stride;
    int n_q, n, head_dim;
    const uint8_t *codes;               /* slot by slot, a byte for each c channels */
    size_t code_stride;
    const uint16_t *points;             /* (groups, 256, c) halves */
    int c;
} wn_lookup_mix;

struct wn_lookup_ops {
    /* The point nearest to x (c); 0 where no distance is finite. *least: its distance. */
    int (*nearest)(const float *x, const float *table, int c, float *least);
    /* out[k * stride + s] = number k of the point that codes[s] names, k < c, s < n. What is
     * between n and the next multiple of 16 may be written, too. */
    void (*points)(float *out, size_t stride, const uint16_t *points, int c, const uint8_t *codes,
                   int n);
    /* Codes of `bits` bits (2 or 4), the first channel's lowest in a byte, with one bit more of
     * each where high is given (bit up of high[s] is the first channel's): out[k * stride + s] =
     * levels[k * 16 + code]. A byte has 8 / bits channels, of which n_channels are written; columns
     * as for points. */
    void (*levels)(float *out, size_t stride, const float *levels, int n_channels, int bits,
                   const uint8_t *low, const uint8_t *high, int up, int n);
    void (*turn)(const wn_lookup_turn *t);
    void (*mix)(const wn_lookup_mix *m);
};

extern const wn_lookup_ops wn_lookup_ops_scalar, wn_lookup_ops_avx2, wn_lookup_ops_avx512;

/* The definition of mix, for channels [from, head_dim): also what tables do with channels that fill
 * no vector. */
static inline void wn_lookup_mix_from(const wn_lookup_mix *m, int from)
{
    for (int i = 0; i < m->n_q; i++)
        for (int d = from; d < m->head_dim; d++) {
            const uint16_t *points = m->points +
                                     (size_t)(d / m->c) * WN_LOOKUP_POINTS * (size_t)m->c +
                                     d % m->c;
            const uint8_t *codes = m->codes + d / m->c;
            float *acc = m->acc + (size_t)i * m->acc_stride + d;
            for (int s = 0; s < m->n; s++)
                *acc = fmaf(m->w[(size_t)i * m->w_stride + (size_t)s],
                            wn_elem_from_f16(points[codes[(size_t)s * m->code_stride] * m->c]),
                            *acc);
        }
}

/* The definition of turn, for slots [from, n). */
static inline void wn_lookup_turn_from(const wn_lookup_turn *t, int from)
{
    for (int s = from; s < t->n; s++)
        for (int j = 0; j < t->n_pairs; j++) {
            const float *l = t->low + (size_t)j * 2 * WN_LOOKUP_TURN + t->rest[s];
            const float *h = t->high + ((size_t)t->upper[s] * (size_t)t->n_pairs + (size_t)j) * 2;
            float *a = t->x + (size_t)(j * t->step) * t->stride + s,
                  *b = a + (size_t)t->to * t->stride, x = *a, y = *b;
            float cs = h[0] * l[0] - h[1] * l[WN_LOOKUP_TURN],
                  sn = h[1] * l[0] + h[0] * l[WN_LOOKUP_TURN];
            *a = x * cs - y * sn;
            *b = y * cs + x * sn;
        }
}

#endif
