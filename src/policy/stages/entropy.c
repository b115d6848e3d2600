/* policy/stages/entropy.c - who gets how much, by how widely the last queries look.
 *
 * CAKE gives layers budgets in proportion to H^(1/tau1) V^(1/tau2): the entropy of the
 * attention of the last w queries and its variance over them. A view holds each head's sums
 * over those queries, so that entropy is of their mean; the variance is not there and left
 * out. The window's own slots are given to every lane and stay out of the proportion.
 */
#include "policy/policy.h"
#include "policy/stages/stages.h"

#include <math.h>

/* Entropy of each head's mean attention over the lane's slots, mean over the group. */
static double lane_entropy(const wn_view *v, int lane)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int w;
    const float *sums = wn_view_window(v, lane, &w);
    double h = 0;
    for (size_t i = 0; i < (size_t)l->group * (size_t)l->n; i++) {
        double a = (double)sums[i] / w;
        h -= a > 0 ? a * log(a) : 0;
    }
    return h / l->group;
}

static double layer_entropy(const wn_view *v, int layer)
{
    int from, to, lanes = 0;
    double h = 0;
    wn_view_layer(v, layer, &from, &to);
    for (int l = from; l < to; l++) {
        if (!wn_view_get_lane(v, l)->n) continue;
        h += lane_entropy(v, l);
        lanes++;
    }
    return lanes ? fmax(h / lanes, 0) : 0;
}

void wn_alloc_entropy(const wn_view *v, double tau, int window, int64_t *keep)
{
    int n = wn_view_n_lanes(v), live = 0;
    double *weight = wn_view_scratch(v, sizeof *weight * (size_t)n), sum = 0;
    int64_t *cap = wn_view_scratch(v, sizeof *cap * (size_t)n);
    for (int i = 0; i < n; i++) keep[i] = 0;
    if (!weight || !cap) return;
    for (int layer = 0; layer < wn_view_n_layers(v); layer++) {
        int from, to;
        double p = pow(layer_entropy(v, layer), 1 / tau);
        wn_view_layer(v, layer, &from, &to);
        for (int l = from; l < to; l++) {
            cap[l] = wn_view_get_lane(v, l)->n;
            weight[l] = cap[l] > 0 ? p : 0;
            live += cap[l] > 0;
            sum += weight[l];
        }
    }
    double mean = live ? (double)wn_view_budget(v) / live : 0, base = mean > window ? mean - window : 0;
    for (int i = 0; i < n; i++) {
        double share = sum > 0 ? weight[i] * live / sum : 1;
        weight[i] = cap[i] > 0 ? base * share + fmin(mean, window) + 1e-9 : 0;
    }
    wn_stage_split(wn_view_budget(v), weight, cap, n, keep);
}
