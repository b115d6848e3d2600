/* policy/recipes/expected.c - attention that queries still to come are expected to pay.
 *
 * Source     Devoto et al., "Expected Attention: KV Cache Compression by Estimating Attention
 *            from Future Queries Distribution", 2025, equations 4 to 8
 * When       at marks (the paper), or at boundaries
 * Observes   the last `window` queries, un-rotated; keys; values    Resume  window
 * Score      queries are taken as a Gaussian and turned by the mean rotation of the next
 *            `horizon` positions; x = k.mu' + k^T Sigma' k / 2 (scaled queries), softmax over
 *            the slots that are not protected, mean over the group; (that + eps) |v|
 *            (norm=off leaves |v| out)
 * Retains    `first` slots and the best
 * Differs    mean and covariance come from the last 64 queries, not from all; cov=0 leaves
 *            the covariance out
 */
#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

enum { WINDOW, HORIZON, EPS, COV, NORM };
enum { TILE = 64 };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 64, 2, 64, 0,
                 "last queries that the distribution is taken from" },
    [HORIZON] = { "horizon", WN_PARAM_INT, 512, 1, 1 << 20, 0,
                  "positions ahead that are expected" },
    [EPS] = { "eps", WN_PARAM_FLOAT, 0, 0, 1, 0, "added to the expected attention before |v|" },
    [COV] = { "cov", WN_PARAM_INT, 1, 0, 1, 0, "use the covariance of the queries" },
    [NORM] = { "norm", WN_PARAM_WORD, 0, 0, 1, "on|off",
               "times the length of the value; off with +retain:critical, which has its own" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

/* x[i] = mean plus half the variance of k_i . q over the w queries: k_i . mu + k_i^T Sigma k_i /
 * 2. */
static void exponents(const float *k, int n, int dim, const float *q, int w, bool cov, double *x,
                      float *tmp)
{
    float *dots = tmp + w * dim;
    for (int from = 0; from < n; from += TILE) {
        int m = n - from < TILE ? n - from : TILE;
        wn_stage_dots(dots, k + (size_t)from * (size_t)dim, m, q, w, dim, tmp);
        for (int i = 0; i < m; i++) {
            double mean = 0, var = 0;
            for (int t = 0; t < w; t++) mean += (double)dots[i * w + t] / w;
            for (int t = 0; t < w; t++) var += pow((double)dots[i * w + t] - mean, 2);
            x[from + i] = mean + (cov ? var / w / 2 : 0);
        }
    }
}

/* Head h's queries, each turned from its own position to the mean of those to come. */
static void expect(const wn_view *v, int lane, const float *q, int w, int h, int horizon,
                   float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    size_t dim = (size_t)l->k_dim;
    for (int t = 0; t < w; t++, out += dim) {
        memcpy(out, q + ((size_t)t * (size_t)l->group + (size_t)h) * dim, sizeof *out * dim);
        wn_view_turn(v, lane, out, w - t, w - t + horizon);   /* the next position is w - t away */
    }
}

/* Adds 1 / parts of the softmax of x over the slots that are not protected: those stay whatever
 * they get, and sinks would take most of it. */
static void add_softmax(const wn_view *v, const wn_view_lane *l, const double *x, int parts,
                        float *out)
{
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < l->n; i++)
        if (!wn_view_protects(v, l->pos[i]) && x[i] > most) most = x[i];
    for (int i = 0; i < l->n; i++) sum += wn_view_protects(v, l->pos[i]) ? 0 : exp(x[i] - most);
    for (int i = 0; i < l->n; i++)
        if (!wn_view_protects(v, l->pos[i])) out[i] += (float)(exp(x[i] - most) / sum / parts);
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int w, n = l->n, dim = l->k_dim;
    const float *q = wn_view_queries(v, lane, &w);
    float *turned = wn_view_scratch(v, sizeof *turned * (size_t)(w * dim));
    float *tmp = wn_view_scratch(v, sizeof *tmp * (size_t)(w * dim + w * TILE));
    double *x = wn_view_scratch(v, sizeof *x * (size_t)n);
    memset(out, 0, sizeof *out * (size_t)n);
    if (!turned || !tmp || !x) return;
    const float *k = wn_view_keys(v, lane);
    for (int h = 0; h < l->group; h++) {
        expect(v, lane, q, w, h, (int)p->v[HORIZON], turned);
        exponents(k, n, dim, turned, w, p->v[COV] > 0, x, tmp);
        add_softmax(v, l, x, l->group, out);
    }
    if (p->v[NORM] > 0) return;
    float *norm = wn_view_scratch(v, sizeof *norm * (size_t)n);
    if (!norm) return;
    wn_stage_norms(norm, wn_view_values(v, lane), n, l->v_dim);
    for (int i = 0; i < n; i++) out[i] = (float)(((double)out[i] + p->v[EPS]) * (double)norm[i]);
}

const wn_recipe wn_recipe_expected = {
    .name = "expected",
    .family = "keys",
    .source = "Devoto et al., \"Expected Attention: KV Cache Compression by Estimating Attention "
              "from Future Queries "
              "Distribution\", 2025, equations 4 to 8",
    .about = "Keeps what queries still to come are expected to attend to, from the distribution of "
             "the recent ones. "
             "For texts that go on as they were; a question of another kind than the last 64 "
             "tokens is not expected.",
    .differs = "the distribution is that of the last 64 queries",
    .cost = "64 dot products per slot and query head, once per decision",
    .params = params,
    .n_params = 5,
    .budget = "50%",
    .first = 4,
    .reads = "keys, values",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .score = score,
};
