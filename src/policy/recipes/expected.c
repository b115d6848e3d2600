/* policy/recipes/expected.c - attention that queries still to come are expected to pay.
 *
 * Source     Devoto et al., "Expected Attention: KV Cache Compression by Estimating Attention
 *            from Future Queries Distribution", 2025, equations 4 to 8
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries, un-rotated; keys; values    Resume  window
 * Score      queries are taken as a Gaussian and turned by the mean rotation of the next
 *            `horizon` positions; x = k.mu' + k^T Sigma' k / 2 (scaled queries), softmax over
 *            the slots, mean over the group, times (that + eps) |v|
 * Retains    `first` slots and the best
 * Differs    mean and covariance come from the last 64 queries, not from all; cov=0 leaves
 *            the covariance out
 */
#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

enum { WINDOW, HORIZON, EPS, COV };
enum { DIM_MAX = 512 };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 64, 2, 64, 0, "last queries that the distribution is taken from" },
    [HORIZON] = { "horizon", WN_PARAM_INT, 512, 1, 1 << 20, 0, "positions ahead that are expected" },
    [EPS] = { "eps", WN_PARAM_FLOAT, 0, 0, 1, 0, "added to the expected attention before |v|" },
    [COV] = { "cov", WN_PARAM_INT, 1, 0, 1, 0, "use the covariance of the queries" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

/* x[i] = k_i . mu + half the variance of k_i . q over the w queries (each minus the mean). */
static void exponents(const float *k, int n, int dim, const float *q, int w, bool cov, double *x)
{
    double mu[DIM_MAX] = { 0 };
    for (int t = 0; t < w; t++)
        for (int d = 0; d < dim; d++) mu[d] += (double)q[(size_t)t * (size_t)dim + (size_t)d] / w;
    for (int i = 0; i < n; i++, k += dim) {
        double mean = 0, var = 0;
        for (int d = 0; d < dim; d++) mean += (double)k[d] * mu[d];
        for (int t = 0; cov && t < w; t++) {
            float dot = 0;
            const float *row = q + (size_t)t * (size_t)dim;
            for (int d = 0; d < dim; d++) dot += k[d] * row[d];
            var += ((double)dot - mean) * ((double)dot - mean);
        }
        x[i] = mean + var / w / 2;
    }
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int w, n = l->n, dim = l->k_dim, now = wn_view_n_tokens(v);
    const float *q = wn_view_queries(v, lane, &w);
    size_t size = (size_t)dim * (size_t)w;
    float *turned = wn_view_scratch(v, sizeof *turned * size);
    double *x = wn_view_scratch(v, sizeof *x * (size_t)n);
    memset(out, 0, sizeof *out * (size_t)n);
    if (!turned || !x || dim > DIM_MAX) return;
    const float *k = wn_view_keys(v, lane);
    for (int h = 0; h < l->group; h++) {
        double most = -INFINITY, sum = 0;
        for (int t = 0; t < w; t++) {   /* from its own position to the mean of those to come */
            float *row = turned + (size_t)t * (size_t)dim;
            memcpy(row, q + ((size_t)t * (size_t)l->group + (size_t)h) * (size_t)dim, sizeof *row * (size_t)dim);
            int from = now - (now - w + t);
            wn_view_turn(v, row, dim, from, from + (int)p->v[HORIZON]);
        }
        exponents(k, n, dim, turned, w, p->v[COV] > 0, x);
        for (int i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
        for (int i = 0; i < n; i++) sum += x[i] = exp(x[i] - most);
        for (int i = 0; i < n; i++) out[i] += (float)(x[i] / sum / l->group);
    }
    const float *val = wn_view_values(v, lane);
    for (int i = 0; i < n; i++) {
        double norm = 0;
        for (int d = 0; d < l->v_dim; d++) {
            double y = (double)val[(size_t)i * (size_t)l->v_dim + (size_t)d];
            norm += y * y;
        }
        out[i] = (float)(((double)out[i] + p->v[EPS]) * sqrt(norm));
    }
}

const wn_recipe wn_recipe_expected = {
    .name = "expected", .family = "keys",
    .source = "Devoto et al., \"Expected Attention: KV Cache Compression by Estimating Attention from Future Queries "
              "Distribution\", 2025, equations 4 to 8",
    .about = "Keeps what queries still to come are expected to attend to, from the distribution of the recent ones.",
    .differs = "the distribution is that of the last 64 queries",
    .cost = "64 dot products per slot and query head, once per decision",
    .params = params, .n_params = 4, .budget = "50%", .first = 4,
    .kind = WN_CLASS_BUDGETED, .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK, .at_default = WN_AT_MARK,
    .window = window, .score = score,
};
