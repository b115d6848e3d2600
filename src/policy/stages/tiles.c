/* policy/stages/tiles.c - what each of the last queries attends to, one by one.
 *
 * A view gives sums over the last queries; some methods want squares, ramps or noise on each
 * query's own weights. These are made here from the queries and the keys, in tiles of 64
 * slots: once for the maximum and the sum of each query, once more for the weights.
 */
#include "policy/stages/stages.h"

#include "kernel/kernel.h"
#include "kernel/vec.h"
#include "policy/view.h"

#include <math.h>
#include <string.h>

enum { TILE = 64, W_MAX = 64 };

typedef struct {
    const wn_view *v;
    const wn_view_lane *l;
    const float *keys, *noise;
    float *q;                           /* (w, k_dim) of one head */
    float *x, *turned, *tmp;            /* (w, TILE), (TILE, w), for wn_stage_dots */
    float tau;
    int w;
} desk;

/* Logits of slots [from, from + m), (w, TILE); -INFINITY for those that a query does not see. */
static void logits(const desk *d, int from, int m)
{
    /* position of the first query */
    int first = wn_view_n_tokens(d->v) - d->w, dim = d->l->k_dim;
    wn_stage_dots(d->turned, d->keys + (size_t)from * (size_t)dim, m, d->q, d->w, dim, d->tmp);
    for (int t = 0; t < d->w; t++)
        for (int i = 0; i < m; i++) {
            int s = from + i;
            float x = d->turned[i * d->w + t] + (d->l->bias ? d->l->bias[s] : 0) +
                      (d->noise ? d->noise[s] : 0);
            d->x[t * TILE + i] = d->l->pos[s] > first + t ? -INFINITY : x / d->tau;
        }
}

static void head(const desk *d, int h, void (*each)(void *ctx, const wn_tile *tile), void *ctx)
{
    const wn_vec_ops *ops = wn_kernels_get()->vec;
    double sum[W_MAX] = { 0 };
    float most[W_MAX];
    for (int t = 0; t < d->w; t++) most[t] = -INFINITY;
    for (int from = 0; from < d->l->n; from += TILE) {
        int m = d->l->n - from < TILE ? d->l->n - from : TILE;
        logits(d, from, m);
        for (int t = 0; t < d->w; t++) {
            float *x = d->x + t * TILE, high = ops->max(x, m);
            if (!(high > -INFINITY)) continue;
            if (high > most[t]) sum[t] *= exp((double)most[t] - (double)high), most[t] = high;
            ops->exp_sub(x, x, most[t], m);
            for (int i = 0; i < m; i++) sum[t] += (double)x[i];
        }
    }
    for (int from = 0; from < d->l->n; from += TILE) {
        int m = d->l->n - from < TILE ? d->l->n - from : TILE;
        logits(d, from, m);
        for (int t = 0; t < d->w; t++) {
            float *x = d->x + t * TILE, part = sum[t] > 0 ? (float)(1 / sum[t]) : 0;
            ops->exp_sub(x, x, sum[t] > 0 ? most[t] : 0, m);
            for (int i = 0; i < m; i++) x[i] *= part;
        }
        each(ctx, &(wn_tile){ h, from, m, d->w, d->x, TILE });
    }
}

void wn_stage_window_tiles(const wn_view *v, int lane, const float *noise, double tau,
                           void (*each)(void *ctx, const wn_tile *tile), void *ctx)
{
    desk d = { .v = v, .l = wn_view_get_lane(v, lane), .noise = noise, .tau = (float)tau };
    wn_mark m = wn_arena_mark(v->scratch);
    const float *q = wn_view_queries(v, lane, &d.w);
    size_t dim = (size_t)d.l->k_dim, w = (size_t)d.w;
    d.keys = wn_view_keys(v, lane);
    d.q = wn_view_scratch(v, sizeof(float) * w * dim);
    d.tmp = wn_view_scratch(v, sizeof(float) * w * dim);
    d.x = wn_view_scratch(v, sizeof(float) * w * TILE);
    d.turned = wn_view_scratch(v, sizeof(float) * w * TILE);
    bool ok = d.q && d.tmp && d.x && d.turned;
    for (int h = 0; ok && h < d.l->group; h++) {
        for (size_t t = 0; t < w; t++)
            memcpy(d.q + t * dim, q + (t * (size_t)d.l->group + (size_t)h) * dim,
                   sizeof(float) * dim);
        head(&d, h, each, ctx);
    }
    wn_arena_rewind(v->scratch, m);
}
