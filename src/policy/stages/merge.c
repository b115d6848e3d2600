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
#include "policy/view.h"

#include <math.h>
#include <string.h>

/* Cosines are taken between so many slots and so many others at a time. */
enum { ROWS = 256, TILE = WN_VIEW_COLS };

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
        for (int k = 0; k < 4; k++) {
            int at = WN_MIN(i + k, n - 1);
            row[k] = rows + (size_t)(slots ? slots[at] : at) * (size_t)dim;
        }
        squares(s, row, dim);
        for (int k = 0; k < 4 && i + k < n; k++, out += dim) {
            float scale = s[k] > 0 ? (float)(1 / sqrt(s[k])) : 0;
            for (int d = 0; d < dim; d++) out[d] = row[k][d] * scale;
        }
    }
}

/* What is compared, of keys or of values: rows of those that look, columns of those looked at. */
typedef struct {
    const float *rows;                  /* of the whole lane; NULL: columns come from the cache */
    int dim;
    float *a, *cols, *c;                /* (ROWS, dim), (dim, TILE) and a row, (ROWS, TILE) */
} desk;

typedef struct {
    const wn_view *v;
    int lane, n_desks;
    desk d[2];
    const int32_t *a; int na;           /* the slots that look, ROWS at most */
    const bool *to;
    int32_t *nearest;
    float *like;
} search;

static bool open_desk(desk *d, const wn_view *v, int dim)
{
    size_t width = (size_t)dim;
    *d = (desk){ .dim = dim };
    d->a = wn_view_scratch(v, ((ROWS + TILE + 1) * width + ROWS * TILE) * sizeof *d->a);
    if (!d->a) return false;
    d->cols = d->a + ROWS * width;
    d->c = d->cols + (TILE + 1) * width;
    return true;
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
static float common(const search *x, int at)
{
    float k = x->d[0].c[at];
    return x->n_desks == 1 ? k : fmaxf(k, 0) * fmaxf(x->d[1].c[at], 0);
}

/* The best of a tile for a slot that looks, if it is better than what there was. Tiles come in any
 * order: of equals the earlier slot is nearer. */
static void look_among(const search *x, int row, const wn_view_cols *c)
{
    int32_t *nearest = &x->nearest[x->a[row]];
    float *like = &x->like[x->a[row]];
    /* most tiles hold nobody better: one maximum says so */
    if (x->n_desks == 1 &&
        !(wn_kernels_get()->attn->max(x->d[0].c + row * TILE, c->n) >= *like))
        return;
    for (int s = 0; s < c->n; s++) {
        int32_t i = c->at[s];
        float k = common(x, row * TILE + s);
        if (!(k >= *like) || i < 0 || !x->to[i] || (k == *like && i > *nearest && *nearest >= 0))
            continue;
        *nearest = i;
        *like = k;
    }
}

/* Cosines of the rows of a desk with a tile. What comes next is fetched some of it at a time: all at
 * once would wait for memory. */
static void cosines(const search *x, const desk *d, const wn_view_cols *c)
{
    enum { SOME = 12 };
    size_t part = c->ahead_bytes / (size_t)((x->na + SOME - 1) / SOME) + 64, at = 0;
    for (int i = 0; i < x->na; i += SOME) {
        for (size_t end = at + part; at < end && at < c->ahead_bytes; at += 64)
            __builtin_prefetch(c->ahead + at, 0, 2);
        wn_kernels_get()->attn->product[WN_ELEM_F32](&(wn_attn_product){
            .c = d->c + i * TILE, .c_stride = TILE, .a = d->a + i * d->dim,
            .a_stride = (size_t)d->dim, .b = d->cols, .b_stride = TILE,
            .n_rows = WN_MIN(SOME, x->na - i), .n_cols = c->n, .depth = d->dim });
    }
}

/* Slots that nobody may join are compared too: they are few, and a tile needs no gathering then.
 * As zeros they do not make a tile's maximum, which those that look have among themselves. */
static void look_at(void *ctx, const wn_view_cols *c)
{
    const search *x = ctx;
    bool any = false;
    for (int s = 0; s < c->n; s++) {
        bool may = c->at[s] >= 0 && x->to[c->at[s]];
        any |= may;
        for (int d = 0; d < x->d[0].dim && !may; d++) x->d[0].cols[d * TILE + s] = 0;
    }
    if (!any) return;
    for (int k = 0; k < x->n_desks; k++) cosines(x, &x->d[k], c);
    for (int i = 0; i < x->na; i++) look_among(x, i, c);
}

/* Tiles of neighbouring slots, out of rows. */
static void look_through(const search *x, int n_slots)
{
    const wn_attn_ops *ops = wn_kernels_get()->attn;
    int32_t at[TILE];
    for (int first = 0; first < n_slots; first += TILE) {
        wn_view_cols c = { .at = at, .n = WN_MIN(TILE, n_slots - first), .cols = x->d[0].cols };
        for (int s = 0; s < c.n; s++) at[s] = first + s;
        for (int k = 0; k < x->n_desks; k++) {
            const desk *d = &x->d[k];
            ops->put_cols[WN_ELEM_F32](d->cols, TILE, d->rows + (size_t)first * (size_t)d->dim,
                                       (size_t)d->dim, c.n, d->dim);
            ops->unit_cols[WN_ELEM_F32](d->cols, TILE, d->cols, TILE, c.n, d->dim);
        }
        look_at((void *)(uintptr_t)x, &c);
    }
}

/* Keys alone come as the cache has them, where it has columns; with values all come as rows. */
static void look(const search *x, int n_slots)
{
    const desk *d = x->d;
    if (!d->rows) {
        wn_view_load_keys(x->v, x->lane, x->a, x->na, d->a);
        wn_stage_unit_rows(d->a, d->a, NULL, x->na, d->dim);
        wn_view_unit_keys(x->v, x->lane, d->cols, look_at, (void *)(uintptr_t)x);
        return;
    }
    for (int k = 0; k < x->n_desks; k++)
        wn_stage_unit_rows(d[k].a, d[k].rows, x->a, x->na, d[k].dim);
    look_through(x, n_slots);
}

void wn_stage_nearest(const wn_view *v, int lane, const bool *from, const bool *to, bool values,
                      int32_t *nearest, float *like)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int32_t *a = wn_view_scratch(v, sizeof *a * (size_t)l->n);
    search x = { .v = v, .lane = lane, .n_desks = values ? 2 : 1, .to = to, .nearest = nearest,
                 .like = like };
    for (int i = 0; i < l->n; i++) nearest[i] = -1, like[i] = from[i] ? -INFINITY : 0;
    if (a && open_desk(&x.d[0], v, l->k_dim) && (!values || open_desk(&x.d[1], v, l->v_dim))) {
        if (values || !v->unit_keys) x.d[0].rows = wn_view_keys(v, lane);
        if (values) x.d[1].rows = wn_view_values(v, lane);
        int n_a = list(a, from, l->n);
        for (int a0 = 0; a0 < n_a; a0 += ROWS) {
            x.a = a + a0;
            x.na = WN_MIN(ROWS, n_a - a0);
            look(&x, l->n);
        }
    }
    for (int i = 0; i < l->n; i++)
        if (nearest[i] < 0) like[i] = 0;
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
