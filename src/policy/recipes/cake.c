/* policy/recipes/cake.c - layers get budgets by how widely and how changeably they look.
 *
 * Source     Qin et al., "CAKE: Cascading and Adaptive KV Cache Eviction with Layer Preferences",
 *            2025, equations 5 to 8
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries, one by one; keys       Resume  window
 * Score      pooled mean + gamma variance of what a slot gets from those queries, mean over the
 *            group
 * Allocates  beside the window, layers by H^(1/tau1) V^(1/tau2): entropy of the queries' attention
 *            to what is before the window, and variance over the queries, summed over a layer's
 *            heads and slots
 * Retains    the window, and the best of each lane
 * Differs    all layers are decided at once; the paper's cascade during prefill ends with the same
 *            budgets. tau is tuned by model and budget there; the default is that for Llama 3.1 at
 *            1024
 */
#include "policy/policy.h"
#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

enum { WINDOW, KERNEL, GAMMA, TAU1, TAU2 };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 32, 2, 64, 0,
                 "last queries that are looked at, and always stay" },
    [KERNEL] = { "kernel", WN_PARAM_INT, 5, 1, 63, 0,
                 "slots over which scores are averaged (odd)" },
    [GAMMA] = { "gamma", WN_PARAM_FLOAT, 200, 0, 1e6, 0, "weight of the variance beside the mean" },
    [TAU1] = { "tau1", WN_PARAM_FLOAT, 1.6, 0.05, 100, 0, "1 / power of the entropy" },
    [TAU2] = { "tau2", WN_PARAM_FLOAT, 0.4, 0.05, 100, 0, "1 / power of the variance" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

typedef struct {
    float *mean, *variance;             /* (n) mean over the group; or NULL */
    int group, before;                  /* slots in front of the window */
    double entropy, spread;             /* sums over heads and slots before the window */
} tally;

static void add(void *ctx, const wn_tile *t)
{
    tally *y = ctx;
    for (int i = 0; i < t->n; i++) {
        double s1 = 0, s2 = 0, h = 0;
        for (int q = 0; q < t->w; q++) {
            double a = (double)t->a[(size_t)q * t->stride + (size_t)i];
            s1 += a;
            s2 += a * a;
            h -= a > 0 && !y->mean ? a * log(a) : 0;
        }
        double mean = s1 / t->w, variance = fmax(s2 / t->w - mean * mean, 0);
        if (y->mean) {
            y->mean[t->from + i] += (float)(mean / y->group);
            y->variance[t->from + i] += (float)(variance / y->group);
        } else if (t->from + i < y->before) {
            y->entropy += h;
            y->spread += variance;
        }
    }
}

static int before(const wn_view *v, const wn_params *p, const wn_view_lane *l)
{
    return wn_stage_slot_at(l, wn_view_n_tokens(v) - (int)p->v[WINDOW]);
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    float *variance = wn_view_scratch(v, sizeof *variance * (size_t)l->n);
    if (!variance) return;
    memset(out, 0, sizeof *out * (size_t)l->n);
    memset(variance, 0, sizeof *variance * (size_t)l->n);
    wn_stage_window_tiles(v, lane, NULL, 1, add, &(tally){ .mean = out, .variance = variance,
                                                           .group = l->group });
    for (int i = 0; i < l->n; i++) out[i] += (float)p->v[GAMMA] * variance[i];
    wn_stage_pool(out, before(v, p, l), (int)p->v[KERNEL], WN_POOL_AVG, variance);
    wn_stage_keep_recent(v, lane, (int64_t)p->v[WINDOW], out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)scores;
    double *preference = wn_view_scratch(v, sizeof *preference * (size_t)wn_view_n_layers(v));
    if (!preference) return;
    for (int layer = 0; layer < wn_view_n_layers(v); layer++) {
        int from, to;
        tally y = { 0 };
        wn_view_layer(v, layer, &from, &to);
        for (int l = from; l < to; l++) {
            y.before = before(v, p, wn_view_get_lane(v, l));
            if (wn_view_get_lane(v, l)->n) wn_stage_window_tiles(v, l, NULL, 1, add, &y);
        }
        preference[layer] = pow(fmax(y.entropy, 0), 1 / p->v[TAU1]) * pow(y.spread, 1 / p->v[TAU2]);
    }
    wn_alloc_layers(v, preference, (int)p->v[WINDOW], keep);
}

const wn_recipe wn_recipe_cake = {
    .name = "cake",
    .family = "attention",
    .source = "Qin et al., \"CAKE: Cascading and Adaptive KV Cache Eviction with Layer "
              "Preferences\", 2025, equations 5 to 8",
    .about = "Layers whose attention is wide and changes from query to query get more; so do slots "
             "whose attention "
             "changes. For prompts with the question at the end when layers differ much.",
    .differs = "all layers at once; tau is not tuned by model and budget",
    .cost = "four passes of scores for the last 32 queries, once per decision",
    .params = params,
    .n_params = 5,
    .budget = "1024",
    .reads = "keys",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .score = score,
    .allocate = allocate,
};
