/* policy/stages/entropy.c - who gets how much, by how widely the last queries look.
 *
 * CAKE gives layers budgets in proportion to H^(1/tau1) V^(1/tau2): the entropy of the
 * attention of the last w queries and its variance over them. A view holds each head's sums
 * over those queries, so that entropy is of their mean; the variance is not there and left
 * out; recipes/cake.c looks at each query and has both.
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
    double *weight = wn_view_scratch(v, sizeof *weight * (size_t)wn_view_n_layers(v));
    if (!weight) return;
    for (int layer = 0; layer < wn_view_n_layers(v); layer++)
        weight[layer] = pow(layer_entropy(v, layer), 1 / tau);
    wn_alloc_layers(v, weight, window, keep);
}
