/* policy/stages/observe.c - from attention and rows to one number per slot; see stages.h. */
#include "policy/stages/stages.h"

#include "kernel/attn.h"

#include <math.h>
#include <string.h>

/* ---- attention ------------------------------------------------------------------------- */

void wn_stage_reduce(float *out, const float *in, int n_heads, int n, int how)
{
    memcpy(out, in, sizeof *out * (size_t)n);
    for (int h = 1; h < n_heads; h++) {
        const float *x = in + (size_t)h * (size_t)n;
        for (int i = 0; i < n; i++)
            out[i] = how == WN_REDUCE_MAX ? (x[i] > out[i] ? x[i] : out[i]) : out[i] + x[i];
    }
    for (int i = 0; how == WN_REDUCE_MEAN && i < n; i++) out[i] /= (float)n_heads;
}

void wn_stage_pool(float *x, int n, int kernel, int how, float *tmp)
{
    int half = kernel / 2;
    if (kernel <= 1) return;
    memcpy(tmp, x, sizeof *x * (size_t)n);
    for (int i = 0; i < n; i++) {
        int from = i - half < 0 ? 0 : i - half, to = i + half >= n ? n - 1 : i + half;
        float sum = 0, most = tmp[from];
        for (int k = from; k <= to; k++) {
            sum += tmp[k];
            most = tmp[k] > most ? tmp[k] : most;
        }
        x[i] = how == WN_POOL_MAX ? most : sum / (float)kernel;
    }
}

void wn_stage_row(const wn_view *v, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int w;
    wn_stage_reduce(out, wn_view_window(v, lane, &w), l->group, l->n, WN_REDUCE_MEAN);
}

void wn_stage_votes(const wn_view *v, int lane, const wn_votes *o, float *score)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int w;
    const float *sums = wn_view_window(v, lane, &w);
    float *tmp = wn_view_scratch(v, sizeof *tmp * (size_t)l->n);
    wn_stage_reduce(score, sums, l->group, l->n, o->reduce);
    if (tmp)
        wn_stage_pool(score, wn_stage_slot_at(l, wn_view_n_tokens(v) - w), o->kernel, o->pool, tmp);
    wn_stage_keep_recent(v, lane, w, score);
}

int wn_stage_ask_sums(const wn_params *p, wn_stat *out)
{
    (void)p;
    out[0] = (wn_stat){ .kind = WN_STAT_SUM };
    return 1;
}

void wn_stage_sums(const wn_view *v, int lane, float *out)
{
    memcpy(out, wn_view_stat(v, lane, 0), sizeof *out * (size_t)wn_view_get_lane(v, lane)->n);
}

int wn_stage_ask_largest(const wn_params *p, wn_stat *out)
{
    (void)p;
    out[0] = (wn_stat){ .kind = WN_STAT_MAX, .reduce = WN_REDUCE_MAX };
    return 1;
}

void wn_stage_score_largest(const wn_view *v, const wn_params *p, int lane, float *out)
{
    (void)p;
    wn_stage_sums(v, lane, out);
}

void wn_stage_hitters(const wn_view *v, int lane, int64_t recent, float *score)
{
    wn_stage_sums(v, lane, score);
    wn_stage_keep_recent(v, lane, recent, score);
}

bool wn_stage_alike(const wn_view *v, int a, int b)
{
    const wn_view_lane *x = wn_view_get_lane(v, a), *y = wn_view_get_lane(v, b);
    return x->n == y->n && (!x->n || !memcmp(x->pos, y->pos, sizeof *x->pos * (size_t)x->n));
}

bool wn_stage_same_slots(const wn_view *v, int lane)
{
    int from, to;
    wn_view_layer(v, wn_view_get_lane(v, lane)->layer, &from, &to);
    for (int k = from; k < to; k++)
        if (!wn_stage_alike(v, k, lane)) return false;
    return true;
}

bool wn_stage_layer_mean(const wn_view *v, int lane,
                         void (*one)(const wn_view *v, int lane, float *out), float *score)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int from, to;
    float *x = wn_view_scratch(v, sizeof *x * (size_t)l->n);
    if (!x || !wn_stage_same_slots(v, lane)) {
        one(v, lane, score);
        return false;
    }
    wn_view_layer(v, l->layer, &from, &to);
    memset(score, 0, sizeof *score * (size_t)l->n);
    for (int k = from; k < to; k++) {
        one(v, k, x);
        for (int i = 0; i < l->n; i++) score[i] += x[i] / (float)(to - from);
    }
    return true;
}

/* ---- lots ------------------------------------------------------------------------------- */

/* splitmix64's finaliser (Steele, Lea, Flood 2014) */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

double wn_stage_draw(uint64_t seed, const wn_view_lane *l, int32_t pos)
{
    static const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);
    seed = mix(mix(seed + step) + ((uint64_t)l->layer << 32 | (uint64_t)l->head));
    return (double)(mix(seed + (uint64_t)pos * step) >> 40) * 0x1p-24;
}

/* ---- positions -------------------------------------------------------------------------- */

int wn_stage_slot_at(const wn_view_lane *l, int64_t pos)
{
    int lo = 0, hi = l->n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (l->pos[mid] < pos) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

int wn_stage_unit_end(const wn_view_lane *l, int i, int size)
{
    return wn_stage_slot_at(l, (int64_t)(l->pos[i] / size + 1) * size);
}

/* The float that lies `age` steps below INFINITY. */
static float almost(int64_t age)
{
    union {
        uint32_t u;
        float f;
    } x = { .u = 0x7f800000u - (uint32_t)(age < 1 << 24 ? age : 1 << 24) };
    return x.f;
}

void wn_stage_keep_recent(const wn_view *v, int lane, int64_t recent, float *score)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int64_t last = wn_view_n_tokens(v) - 1;
    for (int i = wn_stage_slot_at(l, last + 1 - recent); i < l->n; i++)
        score[i] = almost(last - l->pos[i]);
}

/* ---- rows -------------------------------------------------------------------------------- */

void wn_stage_dots(float *out, const float *a, int n_a, const float *b, int n_b, int dim,
                   float *tmp)
{
    const wn_attn_ops *ops = wn_kernels_get()->attn;
    size_t n = (size_t)n_b, d = (size_t)dim;
    ops->put_cols[WN_ELEM_F32](tmp, n, b, d, n_b, dim);
    ops->product[WN_ELEM_F32](&(wn_attn_product){
        .c = out, .c_stride = n, .a = a, .a_stride = d, .b = tmp, .b_stride = n,
        .n_rows = n_a, .n_cols = n_b, .depth = dim });
}

/* a . b in doubles. */
static double dot(const float *a, const float *b, int dim)
{
    double x = 0;
    for (int d = 0; d < dim; d++) x += (double)a[d] * (double)b[d];
    return x;
}

void wn_stage_norms(float *out, const float *rows, int n, int dim)
{
    for (int i = 0; i < n; i++, rows += dim) out[i] = (float)sqrt(dot(rows, rows, dim));
}

void wn_stage_cosines(float *out, const float *rows, const double *with, int n, int dim)
{
    double norm = 0;
    for (int d = 0; d < dim; d++) norm += with[d] * with[d];
    for (int i = 0; i < n; i++, rows += dim) {
        double x = 0, own = dot(rows, rows, dim);
        for (int d = 0; d < dim; d++) x += (double)rows[d] * with[d];
        out[i] = own > 0 && norm > 0 ? (float)(x / sqrt(own * norm)) : 0;
    }
}

void wn_stage_next_cosines(float *out, const float *rows, int n, int dim)
{
    double own = n > 0 ? dot(rows, rows, dim) : 0;
    for (int i = 0; i + 1 < n; i++, rows += dim) {
        double next = dot(rows + dim, rows + dim, dim);
        out[i] = own > 0 && next > 0 ? (float)(dot(rows, rows + dim, dim) / sqrt(own * next)) : 0;
        own = next;
    }
}

void wn_stage_mean_row(double *out, const float *rows, int n, int dim, bool unit)
{
    for (int d = 0; d < dim; d++) out[d] = 0;
    for (int i = 0; i < n; i++, rows += dim) {
        double norm = unit ? dot(rows, rows, dim) : 1;
        if (!(norm > 0)) continue;
        norm = 1 / (sqrt(norm) * n);
        for (int d = 0; d < dim; d++) out[d] += (double)rows[d] * norm;
    }
}
