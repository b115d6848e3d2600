/* policy/stages/allocate.c - who gets how much: a total split over lanes in whole slots. */
#include "policy/policy.h"
#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

/* Lanes that would get their cap or more get the cap and leave the splitting; the others
 * share what is left, rounded down, and the largest remainders (ties: the lower lane) get
 * one more each. Until a lane is settled its out is -1. */
void wn_stage_split(int64_t total, const double *weight, const int64_t *cap, int n, int64_t *out)
{
    double sum, left = (double)total;
    for (int i = 0; i < n; i++) out[i] = weight[i] > 0 && cap[i] > 0 ? -1 : 0;
    for (bool again = true; again;) {
        double taken = 0;
        sum = 0;
        for (int i = 0; i < n; i++) sum += out[i] < 0 ? weight[i] : 0;
        for (int i = 0; i < n; i++)
            if (out[i] < 0 && left * (weight[i] / sum) >= (double)cap[i])
                taken += (double)(out[i] = cap[i]);
        left -= taken;
        again = taken > 0;
    }
    double given = 0;
    for (int i = 0; i < n; i++)
        if (out[i] < 0) given += floor(left * (weight[i] / sum));
    int extra = (int)(left - given + 0.5);
    while (extra-- > 0) {
        int best = -1;
        double most = -1;
        for (int i = 0; i < n; i++) {
            if (out[i] != -1) continue;
            double share = left * (weight[i] / sum);
            if (share - floor(share) > most) most = share - floor(share), best = i;
        }
        if (best < 0) break;
        out[best] = -2;                 /* gets one more */
    }
    for (int i = 0; i < n; i++)
        if (out[i] < 0) out[i] = (int64_t)floor(left * (weight[i] / sum)) + (out[i] == -2);
}

/* ---- by depth, by head, by density --------------------------------------------------- */

static int64_t *caps_of(const wn_view *v, double **weight)
{
    int n = wn_view_n_lanes(v);
    int64_t *cap = wn_view_scratch(v, sizeof *cap * (size_t)n);
    *weight = wn_view_scratch(v, sizeof **weight * (size_t)n);
    if (!cap || !*weight) return NULL;
    for (int i = 0; i < n; i++) cap[i] = wn_view_get_lane(v, i)->n;
    return cap;
}

void wn_alloc_level(const wn_view *v, int64_t *keep)
{
    int n = wn_view_n_lanes(v), live = 0;
    for (int i = 0; i < n; i++) live += wn_view_get_lane(v, i)->n > 0;
    for (int i = 0; i < n && live; i++)
        keep[i] = WN_MIN(wn_view_budget(v) / live, (int64_t)wn_view_get_lane(v, i)->n);
}

void wn_alloc_pyramid(const wn_view *v, double beta, int window, int layers, int64_t *keep)
{
    double *weight;
    int64_t *cap = caps_of(v, &weight);
    int n = wn_view_n_lanes(v), last = (wn_view_n_layers(v) - 1) / layers, live = 0, longest = 0;
    for (int i = 0; i < n; i++) {
        live += wn_view_get_lane(v, i)->n > 0;
        longest = WN_MAX(longest, wn_view_get_lane(v, i)->n);
    }
    double mean = live ? (double)wn_view_budget(v) / live : 0,
           base = mean > window ? mean - window : 0;
    double least = base / beta, most = 2 * base - least;
    if (!cap) return;
    if (most > longest - window) {
        most = WN_MAX(base, (double)(longest - window));
        least = 2 * base - most;
    }
    for (int i = 0; i < n; i++) {
        const wn_view_lane *l = wn_view_get_lane(v, i);
        double ramp = last > 0 ? most - (most - least) * (l->layer / layers) / last : base;
        weight[i] = l->n > 0 ? ramp + (mean < window ? mean : window) + 1e-9 : 0;
    }
    wn_stage_split(wn_view_budget(v), weight, cap, n, keep);
}

void wn_alloc_slope(const wn_view *v, double ratio, int64_t *keep)
{
    double *weight;
    int64_t *cap = caps_of(v, &weight);
    int n = wn_view_n_lanes(v), L = wn_view_n_layers(v);
    if (!cap) return;
    for (int i = 0; i < n; i++) {
        double depth = L > 1 ? (double)wn_view_get_lane(v, i)->layer / (L - 1) : 0;
        weight[i] = cap[i] > 0 ? 1 + (ratio - 1) * depth : 0;
    }
    wn_stage_split(wn_view_budget(v), weight, cap, n, keep);
}

void wn_alloc_decay(const wn_view *v, double ratio, int64_t *keep)
{
    double *weight = wn_view_scratch(v, sizeof *weight * (size_t)wn_view_n_layers(v));
    if (!weight) return;
    for (int i = 0; i < wn_view_n_layers(v); i++) weight[i] = pow(ratio, i);
    wn_alloc_layers(v, weight, 0, keep);
}

void wn_alloc_layers(const wn_view *v, const double *layer_weight, int window, int64_t *keep)
{
    double *weight, sum = 0;
    int64_t *cap = caps_of(v, &weight);
    int n = wn_view_n_lanes(v), live = 0;
    for (int i = 0; i < n; i++) keep[i] = 0;
    if (!cap) return;
    for (int i = 0; i < n; i++) {
        weight[i] = cap[i] > 0 ? layer_weight[wn_view_get_lane(v, i)->layer] : 0;
        live += cap[i] > 0;
        sum += weight[i];
    }
    double mean = live ? (double)wn_view_budget(v) / live : 0,
           base = mean > window ? mean - window : 0;
    for (int i = 0; i < n; i++) {
        double share = sum > 0 ? weight[i] * live / sum : 1;
        weight[i] = cap[i] > 0 ? base * share + fmin(mean, window) + 1e-9 : 0;
    }
    wn_stage_split(wn_view_budget(v), weight, cap, n, keep);
}

void wn_alloc_sensitive(const wn_view *v, const double *alike, double power, double least,
                        int64_t *keep)
{
    int L = wn_view_n_layers(v), live = 0, from, to;
    double *weight = wn_view_scratch(v, sizeof *weight * (size_t)L), lo = INFINITY, hi = -INFINITY,
           sum = 0;
    for (int l = 0; l < wn_view_n_lanes(v); l++) keep[l] = 0;
    if (!weight) return;
    for (int k = 0; k < L; k++) {
        weight[k] = 0;
        wn_view_layer(v, k, &from, &to);
        /* has it slots? */
        for (int l = from; l < to; l++) weight[k] = fmax(weight[k], wn_view_get_lane(v, l)->n > 0);
        if (!(weight[k] > 0)) continue;
        lo = fmin(lo, alike[k]);
        hi = fmax(hi, alike[k]);
        live++;
    }
    for (int k = 0; k < L; k++) {
        /* all alike: evenly */
        if (weight[k] > 0) weight[k] = hi - lo > 1e-9 ? pow((hi - alike[k]) / (hi - lo), power) : 1;
        else weight[k] = -1;
        sum += fmax(weight[k], 0);
    }
    for (int k = 0; k < L; k++) weight[k] = weight[k] < 0 ? 0 : fmax(weight[k] * live / sum, least);
    wn_alloc_layers(v, weight, 0, keep);
}

void wn_alloc_alike(const wn_view *v, int layers, int64_t *keep)
{
    for (int first = 0, from, to, end; first < wn_view_n_layers(v); first += layers) {
        int64_t least = INT64_MAX;
        wn_view_layer(v, first, &from, &to);
        wn_view_layer(v, WN_MIN(first + layers, wn_view_n_layers(v)) - 1, &to, &end);
        for (int l = from; l < end; l++)
            if (keep[l] < wn_view_get_lane(v, l)->n) least = WN_MIN(least, keep[l]);
        for (int l = from; l < end; l++) keep[l] = WN_MIN(keep[l], least);
    }
}

void wn_alloc_round(const wn_view *v, const float *const *scores, int64_t *keep)
{
    for (int lane = 0; lane < wn_view_n_lanes(v); lane++) {
        const wn_view_lane *l = wn_view_get_lane(v, lane);
        if (keep[lane] >= l->n) continue;
        wn_mark mark = wn_arena_mark(v->scratch);
        bool *best = wn_view_scratch(v, sizeof *best * (size_t)l->n);
        float *score = wn_view_scratch(v, sizeof *score * (size_t)l->n), last = INFINITY;
        int64_t above = 0, with = 0;
        if (!best || !score) return;
        for (int i = 0; i < l->n; i++)
            score[i] = wn_view_protects(v, l->pos[i]) ? INFINITY : scores[lane][i];
        wn_stage_best(v, score, l->n, keep[lane], best);
        for (int i = 0; i < l->n; i++)
            if (best[i]) last = fminf(last, score[i]);
        for (int i = 0; i < l->n; i++) above += score[i] > last, with += score[i] >= last;
        keep[lane] = with <= keep[lane] ? with : above;
        wn_arena_rewind(v->scratch, mark);
    }
}

void wn_alloc_whole(const wn_view *v, const float *const *scores, int64_t *keep)
{
    wn_alloc_level(v, keep);
    wn_alloc_round(v, scores, keep);
}

void wn_alloc_above(const wn_view *v, float bar, const float *const *scores, int64_t *keep)
{
    for (int lane = 0; lane < wn_view_n_lanes(v); lane++) {
        keep[lane] = 0;
        for (int i = 0; i < wn_view_get_lane(v, lane)->n; i++) keep[lane] += scores[lane][i] >= bar;
    }
}

/* Values that are not negative rise with their bits: byte by byte from the top, the value at which
 * the sum of the larger ones passes the share is read off sums. */
int wn_stage_need(const float *x, int n, double share)
{
    uint32_t found = 0;
    double all = 0, left;
    int taken = 0;
    for (int i = 0; i < n; i++) all += x[i] > 0 ? (double)x[i] : 0;
    left = all * share - all * 1e-6;        /* sums that reach it up to rounding do */
    for (int shift = 24; shift >= 0; shift -= 8) {
        int32_t count[256] = { 0 };
        double sum[256] = { 0 };
        int b = 255;
        for (int i = 0; i < n; i++) {
            union { float f; uint32_t u; } bits = { .f = x[i] > 0 ? x[i] : 0 };
            if (shift < 24 && (bits.u ^ found) >> (shift + 8)) continue;
            count[bits.u >> shift & 255]++;
            sum[bits.u >> shift & 255] += (double)bits.f;
        }
        for (; b > 0 && left > sum[b]; b--) left -= sum[b], taken += count[b];
        found |= (uint32_t)b << shift;
        if (shift == 0 && count[b] && sum[b] > 0)
            taken += (int)fmin(ceil(left / (sum[b] / count[b]) - 1e-9), count[b]);
    }
    return WN_MAX(taken, n > 0);
}

/* A threshold is searched over the bits of the scores, turned so that they rise with the
 * score (NaN is as bad as can be). */
static uint32_t bits_of(float x)
{
    union { float f; uint32_t u; } b = { .f = x != x ? -INFINITY : x + 0.0f };     /* -0 is 0 */
    return b.u >> 31 ? ~b.u : b.u | 0x80000000u;
}

static int64_t count_above(const wn_view *v, int from, int to, const float *const *scores,
                           uint32_t than)
{
    int64_t n = 0;
    for (int l = from; l < to; l++)
        for (int i = 0; i < wn_view_get_lane(v, l)->n; i++) n += bits_of(scores[l][i]) > than;
    return n;
}

void wn_alloc_best(const wn_view *v, int from, int to, const float *const *scores, int64_t total,
                   int64_t *count)
{
    uint32_t lo = 0, hi = UINT32_MAX;                   /* the least threshold with at most total
                                                           above it */
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (count_above(v, from, to, scores, mid) <= total) hi = mid;
        else lo = mid + 1;
    }
    int64_t left = total - count_above(v, from, to, scores, lo);
    for (int l = from; l < to; l++) {
        count[l] = 0;
        for (int i = 0; i < wn_view_get_lane(v, l)->n; i++) {
            uint32_t b = bits_of(scores[l][i]);
            if (b > lo) count[l]++;
            else if (b == lo && left > 0) left--, count[l]++;
        }
    }
}

void wn_alloc_whole_lanes(const wn_view *v, const float *by, const wn_params *p, int64_t *keep)
{
    double *weight;
    int64_t *cap = caps_of(v, &weight), left = wn_view_budget(v);
    int n = wn_view_n_lanes(v);
    bool *whole = wn_view_scratch(v, sizeof *whole * (size_t)n);
    float *score = wn_view_scratch(v, sizeof *score * (size_t)n);
    if (!cap || !whole || !score) return;
    for (int i = 0; i < n; i++) score[i] = cap[i] > 0 ? by[i] : -INFINITY;
    wn_stage_best(v, score, n, p->whole_lanes, whole);
    for (int i = 0; i < n; i++) {
        weight[i] = cap[i] > 0 && !whole[i];
        left -= whole[i] ? cap[i] : 0;
    }
    wn_stage_split(WN_MAX(left, 0), weight, cap, n, keep);
    for (int i = 0; i < n; i++)
        if (whole[i]) keep[i] = cap[i];
}

/* Sorted from the largest down, a byte of the turned bits at a time; tmp (n). */
static void sort_down(float *x, int n, float *tmp)
{
    for (int shift = 0; shift < 32; shift += 8) {
        int32_t at[257] = { 0 };
        for (int i = 0; i < n; i++) at[(~bits_of(x[i]) >> shift & 255) + 1]++;
        for (int b = 0; b < 256; b++) at[b + 1] += at[b];
        for (int i = 0; i < n; i++) tmp[at[~bits_of(x[i]) >> shift & 255]++] = x[i];
        float *sorted = tmp;
        tmp = x;
        x = sorted;
    }
}

/* Composite slots of a layer, as many as its longest lane has: the mean over its lanes of their
 * r-th best scores. A lane that has no r-th counts as 0, so that they fall with r. */
static int compose(const wn_view *v, int layer, const float *const *scores, float **out)
{
    int from, to, longest = 0;
    wn_view_layer(v, layer, &from, &to);
    for (int l = from; l < to; l++) longest = WN_MAX(longest, wn_view_get_lane(v, l)->n);
    if (!(*out = wn_view_scratch(v, sizeof **out * (size_t)longest))) return 0;
    for (int r = 0; r < longest; r++) (*out)[r] = 0;
    wn_mark mark = wn_arena_mark(v->scratch);
    float *x = wn_view_scratch(v, sizeof *x * (size_t)longest),
          *tmp = wn_view_scratch(v, sizeof *tmp * (size_t)longest);
    for (int l = from; x && tmp && l < to; l++) {
        int n = wn_view_get_lane(v, l)->n;
        memcpy(x, scores[l], sizeof *x * (size_t)n);
        sort_down(x, n, tmp);
        for (int r = 0; r < n; r++) (*out)[r] += x[r] / (float)(to - from);
    }
    wn_arena_rewind(v->scratch, mark);
    return longest;
}

/* Lanes of a layer that have an r-th slot. */
static int64_t lanes_with(const wn_view *v, int layer, int64_t r)
{
    int from, to;
    int64_t n = 0;
    wn_view_layer(v, layer, &from, &to);
    for (int l = from; l < to; l++) n += wn_view_get_lane(v, l)->n > r;
    return n;
}

void wn_alloc_ranks(const wn_view *v, int64_t least, bool first_widest, const float *const *scores,
                    int64_t *keep)
{
    int L = wn_view_n_layers(v), first = -1;
    size_t size = (size_t)L;
    float **composite = wn_view_scratch(v, sizeof *composite * size);
    int *depth = wn_view_scratch(v, sizeof *depth * size),
        *taken = wn_view_scratch(v, sizeof *taken * size);
    if (!composite || !depth || !taken) return;
    for (int k = 0; k < L; k++) {
        taken[k] = 0;
        depth[k] = compose(v, k, scores, &composite[k]);
        if (first < 0 && depth[k]) first = k;
        for (int r = 0; first_widest && r < WN_MIN(depth[k], depth[first]); r++)
            composite[first][r] = fmaxf(composite[first][r], composite[k][r]);
    }
    for (int64_t left = wn_view_budget(v), cost; left > 0; left -= cost) {
        int best = -1;
        float most = 0;
        for (int k = 0; k < L; k++) {
            if (taken[k] == depth[k]) continue;
            float x = taken[k] < least ? INFINITY : composite[k][taken[k]];
            if (best < 0 || x > most) best = k, most = x;
        }
        if (best < 0 || (cost = lanes_with(v, best, taken[best])) > left) break;
        taken[best]++;
    }
    for (int l = 0; l < wn_view_n_lanes(v); l++) {
        const wn_view_lane *lane = wn_view_get_lane(v, l);
        keep[l] = WN_MIN(taken[lane->layer], lane->n);
    }
}

void wn_alloc_ada(const wn_view *v, double floor_share, const float *const *scores, int64_t *keep)
{
    double *weight;
    int64_t *cap = caps_of(v, &weight);
    int n = wn_view_n_lanes(v), live = 0;
    for (int i = 0; i < n; i++) live += wn_view_get_lane(v, i)->n > 0;
    int64_t *count = wn_view_scratch(v, sizeof *count * (size_t)n);
    if (!cap || !count || !live) return;
    for (int i = 0; i < n; i++) weight[i] = cap[i] > 0;
    /* a layer's is the sum of its lanes' */
    wn_stage_split(wn_view_budget(v), weight, cap, n, keep);
    for (int layer = 0; layer < wn_view_n_layers(v); layer++) {
        int from, to;
        int64_t total = 0;
        wn_view_layer(v, layer, &from, &to);
        for (int l = from; l < to; l++) total += keep[l];
        if (!total) continue;
        double base = (double)total / (to - from);
        wn_alloc_best(v, from, to, scores, total, count);
        for (int l = from; l < to; l++)
            weight[l] = (double)count[l] * (1 - floor_share) + floor_share * base + 1e-9;
        wn_stage_split(total, weight + from, cap + from, to - from, keep + from);
    }
}

/* Variance of a layer's accumulated attention, scaled to [0, 1], mean over its lanes. */
static double layer_variance(const wn_view *v, int layer)
{
    int from, to, lanes = 0;
    double sum = 0;
    wn_view_layer(v, layer, &from, &to);
    for (int l = from; l < to; l++) {
        int n = wn_view_get_lane(v, l)->n;
        if (!n) continue;
        const float *m = wn_view_mass(v, l);
        float least = INFINITY, most = -INFINITY;
        for (int i = 0; i < n; i++) {
            least = m[i] < least ? m[i] : least;
            most = m[i] > most ? m[i] : most;
        }
        double lo = (double)least, hi = (double)most, s1 = 0, s2 = 0;
        for (int i = 0; i < n && hi > lo; i++) {
            double x = ((double)m[i] - lo) / (hi - lo);
            s1 += x;
            s2 += x * x;
        }
        sum += s2 / n - s1 / n * (s1 / n);
        lanes++;
    }
    return lanes ? sum / lanes : 0;
}

void wn_alloc_density(const wn_view *v, bool whole, int64_t *keep)
{
    double *weight;
    int64_t *cap = caps_of(v, &weight), budget = wn_view_budget(v), taken = 0;
    int n = wn_view_n_lanes(v), L = wn_view_n_layers(v);
    if (!cap) return;
    for (int layer = 0; layer < L; layer++) {
        int from, to;
        double w = exp(-layer_variance(v, layer));
        wn_view_layer(v, layer, &from, &to);
        for (int l = from; l < to; l++) weight[l] = cap[l] > 0 ? w : 0;
    }
    for (int i = 0; i < n; i++) keep[i] = -1;
    for (int i = 0; whole && i < n; i++) {
        int layer = wn_view_get_lane(v, i)->layer;
        if ((layer > 1 && layer < L - 1) || taken + cap[i] > budget / 2) continue;
        taken += keep[i] = cap[i];
        weight[i] = 0;
    }
    int64_t *rest = wn_view_scratch(v, sizeof *rest * (size_t)n);
    if (!rest) return;
    wn_stage_split(budget - taken, weight, cap, n, rest);
    for (int i = 0; i < n; i++)
        if (keep[i] < 0) keep[i] = rest[i];
}
