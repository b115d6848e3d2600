/* engine/outputs.c - how much a slot's value can change in the answer of its layer.
 *
 * A query head adds W_O v, times a weight, to the layer's answer: v a value, W_O the columns of the
 * output matrix that are the head's. What a slot is given here is the sum of magnitudes of that
 * vector, mean over the query heads of its lane. Rows of the matrix become floats a tile at a time,
 * whatever their type.
 *
 *     columns  | head 0 | head 1 | ...      a lane's: `group` heads side by side
 *     tile     ROWS rows of those, head by head, against SLOTS values at a time
 *
 * A product is one chain over the channels, a sum one chain over the outputs in ascending order: a
 * number depends on the value and the matrix alone, and not on who computes it or what else is
 * live.
 */
#include "engine/engine.h"
#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

enum { ROWS = 32, SLOTS = 128 };

size_t wn_outputs_bytes(const wn_model *m, int longest)
{
    size_t width = (size_t)m->hp.n_heads * (size_t)m->hp.v_dim;
    return wn_arena_cost(4 * (size_t)longest) + wn_arena_cost(8 * (size_t)longest) +
           wn_arena_cost(4 * width) + wn_arena_cost(4 * ROWS * width) +
           wn_arena_cost(4 * ROWS * SLOTS) + wn_arena_cost(4 * ROWS * (size_t)m->hp.v_dim);
}

/* Rows [from, from + n) of a lane's columns: (group, n, v_dim). */
static void load_tile(const wn_matrix *wo, const wn_view_lane *l, int from, int n, float *row,
                      float *tile)
{
    size_t dim = (size_t)l->v_dim;
    for (int r = 0; r < n; r++) {
        wn_matrix_row(wo, from + r, row);
        for (int h = 0; h < l->group; h++)
            memcpy(tile + ((size_t)h * (size_t)n + (size_t)r) * dim,
                   row + (size_t)(l->head * l->group + h) * dim, dim * sizeof *row);
    }
}

/* Adds magnitudes of the products of m values with n rows. */
static void add_tile(double *sum, const float *value, int m, const float *tile, int n, int dim,
                     float *out, float *tmp)
{
    wn_stage_dots(out, value, m, tile, n, dim, tmp);
    for (int i = 0; i < m; i++)
        for (int r = 0; r < n; r++) sum[i] += (double)fabsf(out[i * n + r]);
}

bool wn_seq_load_outputs(const wn_seq *s, const wn_view *v, int lane, float *x)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const wn_matrix *wo = &s->e->m->layers[l->layer].wo;
    size_t dim = (size_t)l->v_dim;
    wn_mark mark = wn_arena_mark(v->scratch);
    double *sum = wn_view_scratch(v, sizeof *sum * (size_t)l->n);
    float *row = wn_view_scratch(v, sizeof *row * (size_t)wo->n_cols);
    float *tile = wn_view_scratch(v, sizeof *tile * ROWS * (size_t)l->group * dim);
    float *out = wn_view_scratch(v, sizeof *out * ROWS * SLOTS),
          *tmp = wn_view_scratch(v, sizeof *tmp * ROWS * dim);
    bool ok = sum && row && tile && out && tmp;
    if (ok) v->load(v->ctx, lane, true, v->rows[1]);
    for (int i = 0; ok && i < l->n; i++) sum[i] = 0;
    for (int from = 0; ok && from < wo->n_rows; from += ROWS) {
        int n = WN_MIN(ROWS, wo->n_rows - from);
        load_tile(wo, l, from, n, row, tile);
        for (int h = 0; h < l->group; h++)
            for (int i = 0; i < l->n; i += SLOTS)
                add_tile(sum + i, v->rows[1] + (size_t)i * dim, WN_MIN(SLOTS, l->n - i),
                         tile + (size_t)h * (size_t)n * dim, n, l->v_dim, out, tmp);
    }
    for (int i = 0; ok && i < l->n; i++) x[i] = (float)(sum[i] / l->group);
    wn_arena_rewind(v->scratch, mark);
    return ok;
}
