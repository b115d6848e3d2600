/* policy/stages/merge.c - slots that join others: who is like whom, and the plan that says so.
 *
 * A merge is told by one number per slot: into[i], the slot that slot i joins, or -1. A slot
 * joins one other at most, and what others join joins nobody, so that the weights of all
 * merges of a lane fit into one row. Sources are listed the joined slot first, the others
 * ascending; the new slot stands at the joined one's position and for the tokens of all.
 * Protected slots are neither joined nor taken: recipes do not name them.
 */
#include "policy/stages/stages.h"

#include "base/err.h"
#include "kernel/attn.h"

#include <math.h>
#include <string.h>

/* Cosines are taken between so many slots and so many others at a time. */
enum { ROWS = 256, TILE = 64 };

/* ---- who is like whom -------------------------------------------------------------------- */

/* Four rows side by side: each sum is one chain, and a chain alone waits for its own additions. */
static void squares(double s[4], const float *const row[4], int dim)
{
    double a = 0, b = 0, c = 0, e = 0;
    for (int d = 0; d < dim; d++) {
        a += (double)row[0][d] * (double)row[0][d];
        b += (double)row[1][d] * (double)row[1][d];
        c += (double)row[2][d] * (double)row[2][d];
        e += (double)row[3][d] * (double)row[3][d];
    }
    s[0] = a, s[1] = b, s[2] = c, s[3] = e;
}

void wn_stage_unit_rows(float *out, const float *rows, const int32_t *slots, int n, int dim)
{
    for (int i = 0; i < n; i += 4) {
        const float *row[4];
        double s[4];
        for (int k = 0; k < 4; k++)
            row[k] = rows + (size_t)slots[WN_MIN(i + k, n - 1)] * (size_t)dim;
        squares(s, row, dim);
        for (int k = 0; k < 4 && i + k < n; k++, out += dim) {
            float scale = s[k] > 0 ? (float)(1 / sqrt(s[k])) : 0;
            for (int d = 0; d < dim; d++) out[d] = row[k][d] * scale;
        }
    }
}

/* Rows of one kind (keys, or values), and room for their tiles. */
typedef struct {
    const float *rows;
    int dim;
    float *a, *cols, *c;                /* (ROWS, dim), (dim, TILE), (ROWS, TILE) */
} desk;

static bool open_desk(desk *d, const wn_view *v, const float *rows, int dim)
{
    size_t width = (size_t)dim;
    *d = (desk){ .rows = rows, .dim = dim };
    d->a = wn_view_scratch(v, ((ROWS + TILE) * width + ROWS * TILE) * sizeof *d->a);
    if (!d->a) return false;
    d->cols = d->a + ROWS * width;
    d->c = d->cols + TILE * width;
    return true;
}

/* Rows from `first` on, as columns of length 1: the bits of wn_stage_unit_rows(), but here the sums
 * of neighbours run side by side. */
static void unit_columns(const desk *d, int first, int n)
{
    double sum[TILE] = { 0 };
    float scale[TILE];
    wn_kernels_get()->attn->put_cols[WN_ELEM_F32](d->cols, TILE,
                                                  d->rows + (size_t)first * (size_t)d->dim,
                                                  (size_t)d->dim, n, d->dim);
    for (int k = 0; k < d->dim; k++) {
        const float *x = d->cols + (size_t)k * TILE;
        for (int i = 0; i < n; i++) sum[i] += (double)x[i] * (double)x[i];
    }
    for (int i = 0; i < n; i++) scale[i] = sum[i] > 0 ? (float)(1 / sqrt(sum[i])) : 0;
    for (int k = 0; k < d->dim; k++) {
        float *x = d->cols + (size_t)k * TILE;
        for (int i = 0; i < n; i++) x[i] *= scale[i];
    }
}

/* Cosines of na rows of a with n slots from `first` on. */
static void cosines(const desk *d, int na, int first, int n)
{
    unit_columns(d, first, n);
    wn_kernels_get()->attn->product[WN_ELEM_F32](&(wn_attn_product){
        .c = d->c, .c_stride = TILE, .a = d->a, .a_stride = (size_t)d->dim, .b = d->cols,
        .b_stride = TILE, .n_rows = na, .n_cols = n, .depth = d->dim });
}

static int list(int32_t *out, const bool *marked, int n)
{
    int m = 0;
    for (int i = 0; i < n; i++)
        if (marked[i]) out[m++] = i;
    return m;
}

/* What two slots have in common: the cosine of their keys, times that of their values, neither
 * taken below 0 then. */
static float common(const desk *d, int n_desks, int at)
{
    float x = d[0].c[at];
    return n_desks == 1 ? x : fmaxf(x, 0) * fmaxf(d[1].c[at], 0);
}

/* The best of a tile for slot `me`, if it is better than what there was. */
static void look_among(const desk *d, int n_desks, const bool *to, int row, int first, int n,
                       int32_t *nearest, float *like)
{
    /* most tiles hold nobody better: one maximum says so */
    if (n_desks == 1 && *nearest >= 0 &&
        !(wn_kernels_get()->attn->max(d[0].c + row * TILE, n) > *like))
        return;
    for (int s = 0; s < n; s++) {
        if (!to[first + s]) continue;
        float x = common(d, n_desks, row * TILE + s);
        if (*nearest >= 0 && !(x > *like)) continue;
        *nearest = first + s;
        *like = x;
    }
}

/* Tiles are of neighbouring slots, also those that nobody may join: they are few, and a tile needs
 * no gathering then. */
void wn_stage_nearest(const wn_view *v, int lane, const bool *from, const bool *to, bool values,
                      int32_t *nearest, float *like)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int32_t *a = wn_view_scratch(v, sizeof *a * (size_t)l->n);
    desk d[2];
    int n_desks = values ? 2 : 1;
    for (int i = 0; i < l->n; i++) nearest[i] = -1, like[i] = 0;
    if (!a || !open_desk(&d[0], v, wn_view_keys(v, lane), l->k_dim)) return;
    if (values && !open_desk(&d[1], v, wn_view_values(v, lane), l->v_dim)) return;
    int n_a = list(a, from, l->n);
    for (int a0 = 0; a0 < n_a; a0 += ROWS) {
        int na = WN_MIN(ROWS, n_a - a0);
        for (int k = 0; k < n_desks; k++)
            wn_stage_unit_rows(d[k].a, d[k].rows, a + a0, na, d[k].dim);
        for (int first = 0; first < l->n; first += TILE) {
            int n = WN_MIN(TILE, l->n - first);
            if (!memchr(to + first, true, (size_t)n)) continue;
            for (int k = 0; k < n_desks; k++) cosines(&d[k], na, first, n);
            for (int i = 0; i < na; i++)
                look_among(d, n_desks, to, i, first, n, &nearest[a[a0 + i]], &like[a[a0 + i]]);
        }
    }
}

/* ---- who joins whom ---------------------------------------------------------------------- */

bool wn_stage_chain(const wn_view *v, const int32_t *into, int n, int32_t **head, int32_t **next)
{
    *head = wn_view_scratch(v, sizeof **head * (size_t)n);
    *next = wn_view_scratch(v, sizeof **next * (size_t)n);
    if (!*head || !*next) return false;
    for (int s = 0; s < n; s++) (*head)[s] = -1;
    for (int i = n - 1; i >= 0; i--) {
        if (into[i] < 0) continue;
        WN_ASSERT(into[i] != i && into[into[i]] < 0);
        (*next)[i] = (*head)[into[i]];
        (*head)[into[i]] = i;
    }
    return true;
}

void wn_stage_shares(const wn_view *v, int lane, const int32_t *into, float *w)
{
    int n = wn_view_get_lane(v, lane)->n;
    double *sum = wn_view_scratch(v, sizeof *sum * (size_t)n);
    if (!sum) return;
    for (int i = 0; i < n; i++) sum[i] = (double)w[i];
    for (int i = 0; i < n; i++)
        if (into[i] >= 0) sum[into[i]] += (double)w[i];
    for (int i = 0; i < n; i++) w[i] = (float)((double)w[i] / sum[into[i] >= 0 ? into[i] : i]);
}

void wn_stage_gather(const wn_view *v, int lane, const int32_t *into, const float *wk,
                     const float *wv, double scale, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    size_t n = (size_t)l->n;
    int32_t *head, *next, *src = wn_view_scratch(v, sizeof *src * n);
    float *a = wn_view_scratch(v, 2 * n * sizeof *a), *b = a ? a + n : NULL;
    if (!src || !a || !wn_stage_chain(v, into, l->n, &head, &next)) return;
    for (int s = 0; s < l->n; s++) {
        int m = 0, count = 0;
        if (head[s] < 0) continue;
        for (int32_t i = s; i >= 0; i = i == s ? head[s] : next[i]) {
            src[m] = l->pos[i];
            a[m] = wk[i];
            b[m++] = wv[i];
            count += wn_stage_count(l, i);
        }
        wn_plan_merge_slots(out, lane, l->pos[s], src, a, b, m, (float)(scale * log((double)count)),
                            count);
    }
}

void wn_stage_by_tokens(const wn_view *v, int lane, const int32_t *into, double scale, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    float *w = wn_view_scratch(v, sizeof *w * (size_t)l->n);
    if (!w) return;
    for (int i = 0; i < l->n; i++) w[i] = (float)wn_stage_count(l, i);
    wn_stage_shares(v, lane, into, w);
    wn_stage_gather(v, lane, into, w, w, scale, out);
}
