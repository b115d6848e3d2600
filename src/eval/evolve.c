/* eval/evolve.c - weights of layers by evolution: EvolKV (Yu and Chai, 2025) with CMA-ES.
 *
 * Groups of neighbouring layers are searched one after another from the bottom, those searched
 * before frozen. What evolves are the logarithms of the weights of a group's layers. A candidate is
 * completed before it is tried: all weights are scaled so that their mean is 1 and none leaves its
 * bounds. So every candidate costs the same memory, the paper's reward for staying near the budget
 * would be the same number for all, and there is none.
 *
 *     group:  mean 0, C = I, sigma 0.3
 *          -> lambda candidates  m + sigma A z,  A A' = C     -> costs, one batch
 *          -> m, paths, C, sigma from the best half           -> again, as long as evaluations are left
 *     the best ever tried is what the next group begins with
 *
 * The strategy is that of Hansen, "The CMA Evolution Strategy: A Tutorial", 2016, appendix A, with
 * its constants; the path of sigma goes by z itself and C is factored by Cholesky, so that no
 * eigenvectors are needed. The k-th random number depends on the seed and on k, and costs are all
 * that comes from outside: whoever gives the same costs again gets the same search (searchlog.h
 * resumes by that).
 */
#include "eval/budgets.h"

#include "base/alloc.h"
#include "sample/sample.h"

#include <math.h>
#include <string.h>

enum { LAYERS_OF_A_GROUP = 8, TRIES_OF_A_LAYER = 30 };
static const double SIGMA = 0.3, SMALLEST = 0.005, PI = 3.14159265358979323846;

/* ---- completion ------------------------------------------------------------------------------ */

static double clamped(const wn_budget_space *s, double x)
{
    return fmin(fmax(x, s->least), s->most);
}

static double mean_at(const wn_budget_space *s, const double *raw, double factor)
{
    double sum = 0;
    for (int l = 0; l < s->n_layers; l++) sum += clamped(s, raw[l] * factor);
    return sum / s->n_layers;
}

/* The mean rises with the factor, from where all weights are at their least to where all are at
 * their most. */
void wn_budgets_complete(const wn_budget_space *s, const double *raw, double *weights)
{
    double lo = INFINITY, hi = 0, mid = 0, last;
    for (int l = 0; l < s->n_layers; l++) {
        WN_ASSERT(raw[l] > 0 && raw[l] < INFINITY);
        lo = fmin(lo, s->least / raw[l]);
        hi = fmax(hi, s->most / raw[l]);
    }
    do {
        last = mid;
        mid = lo + (hi - lo) / 2;
        if (mean_at(s, raw, mid) <= 1) lo = mid;
        else hi = mid;
    } while (mid != last);
    for (int l = 0; l < s->n_layers; l++) weights[l] = clamped(s, raw[l] * mid);
}

/* ---- one group ------------------------------------------------------------------------------- */

typedef struct {
    int n, lambda, mu, generation;
    /* expected: length of a normal vector */
    double mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu, expected;
    double sigma;
    double *room;                       /* of all that follow */
    double *w;                          /* (mu) weights of the best */
    double *mean, *path_s, *path_c, *zw, *yw;       /* (n) */
    double *c, *a;                      /* (n, n) */
    double *z, *y;                      /* (lambda, n) */
    int *order;                         /* (lambda) */
} strategy;

static double *take(double **at, size_t n)
{
    double *p = *at;
    *at += n;
    return p;
}

static wn_status open_strategy(strategy *e, int n, int lambda, wn_err *err)
{
    size_t N = (size_t)n, K = (size_t)lambda;
    double d = n, sum = 0, squares = 0;
    *e = (strategy){ .n = n, .lambda = lambda, .mu = lambda / 2, .sigma = SIGMA };
    double *at = e->room = WN_NEW_ARRAY(double, K + 5 * N + 2 * N * N + 2 * K * N);
    e->order = WN_NEW_ARRAY(int, K);
    if (!e->room || !e->order) return wn_fail(err, WN_ENOMEM, "budgets: out of memory");
    e->w = take(&at, K);
    e->mean = take(&at, N);
    e->path_s = take(&at, N);
    e->path_c = take(&at, N);
    e->zw = take(&at, N);
    e->yw = take(&at, N);
    e->c = take(&at, N * N);
    e->a = take(&at, N * N);
    e->z = take(&at, K * N);
    e->y = take(&at, K * N);
    for (int i = 0; i < n; i++) e->c[i * n + i] = 1;
    for (int i = 0; i < e->mu; i++) sum += e->w[i] = log((lambda + 1) / 2.0) - log(i + 1);
    for (int i = 0; i < e->mu; i++) e->w[i] /= sum, squares += e->w[i] * e->w[i];
    double m = e->mu_eff = 1 / squares;
    e->c_sigma = (m + 2) / (d + m + 5);
    e->d_sigma = 1 + 2 * fmax(0, sqrt((m - 1) / (d + 1)) - 1) + e->c_sigma;
    e->c_c = (4 + m / d) / (d + 4 + 2 * m / d);
    e->c_1 = 2 / ((d + 1.3) * (d + 1.3) + m);
    e->c_mu = fmin(1 - e->c_1, 2 * (m - 2 + 1 / m) / ((d + 2) * (d + 2) + m));
    e->expected = sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d));
    return WN_OK;
}

static void close_strategy(strategy *e)
{
    wn_free(e->room);
    wn_free(e->order);
}

/* The lower triangle of A. C is a sum of itself and of squares with weights that sum to 1: it stays
 * positive. */
static void factor(strategy *e)
{
    int n = e->n;
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double x = e->c[i * n + j];
            for (int k = 0; k < j; k++) x -= e->a[i * n + k] * e->a[j * n + k];
            e->a[i * n + j] = i == j ? sqrt(fmax(x, 1e-30)) : x / e->a[j * n + j];
        }
}

static void turn(const strategy *e, const double *z, double *y)
{
    for (int i = 0; i < e->n; i++) {
        y[i] = 0;
        for (int k = 0; k <= i; k++) y[i] += e->a[i * e->n + k] * z[k];
    }
}

/* The k-th normal number of a seed (Box and Muller). */
static double normal(uint64_t seed, int64_t k)
{
    double u = 1 - wn_sample_uniform(seed, 2 * k), v = wn_sample_uniform(seed, 2 * k + 1);
    return sqrt(-2 * log(u)) * cos(2 * PI * v);
}

static void draw(strategy *e, uint64_t seed, int64_t *drawn)
{
    factor(e);
    for (int i = 0; i < e->lambda; i++) {
        for (int k = 0; k < e->n; k++) e->z[i * e->n + k] = normal(seed, (*drawn)++);
        turn(e, e->z + i * e->n, e->y + i * e->n);
    }
}

/* Best first; ties in the order of candidates. */
static void rank(strategy *e, const double *costs)
{
    for (int i = 0; i < e->lambda; i++) {
        int k = i;
        for (; k > 0 && costs[i] < costs[e->order[k - 1]]; k--) e->order[k] = e->order[k - 1];
        e->order[k] = i;
    }
}

static double length(const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

static void learn(strategy *e)
{
    int n = e->n;
    double reach = sqrt(e->c_sigma * (2 - e->c_sigma) * e->mu_eff),
           c_reach = sqrt(e->c_c * (2 - e->c_c) * e->mu_eff);
    for (int k = 0; k < n; k++) {
        e->zw[k] = e->yw[k] = 0;
        for (int i = 0; i < e->mu; i++) {
            e->zw[k] += e->w[i] * e->z[e->order[i] * n + k];
            e->yw[k] += e->w[i] * e->y[e->order[i] * n + k];
        }
        e->mean[k] += e->sigma * e->yw[k];
        e->path_s[k] = (1 - e->c_sigma) * e->path_s[k] + reach * e->zw[k];
    }
    e->generation++;
    double s = length(e->path_s, n) / e->expected;
    bool straight = s / sqrt(1 - pow(1 - e->c_sigma, 2 * e->generation)) < 1.4 + 2.0 / (n + 1);
    double left = 1 - e->c_1 - e->c_mu + (straight ? 0 : e->c_1 * e->c_c * (2 - e->c_c));
    for (int k = 0; k < n; k++)
        e->path_c[k] = (1 - e->c_c) * e->path_c[k] + (straight ? c_reach * e->yw[k] : 0);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double x = left * e->c[i * n + j] + e->c_1 * e->path_c[i] * e->path_c[j];
            for (int k = 0; k < e->mu; k++)
                x += e->c_mu * e->w[k] * e->y[e->order[k] * n + i] * e->y[e->order[k] * n + j];
            e->c[i * n + j] = x;
        }
    e->sigma = fmin(e->sigma * exp(e->c_sigma / e->d_sigma * (s - 1)), 4 * SIGMA);
}

/* Candidates are as good as alike. */
static bool is_settled(const strategy *e)
{
    double widest = 0;
    for (int i = 0; i < e->n; i++) widest = fmax(widest, e->c[i * e->n + i]);
    return e->sigma * sqrt(widest) < SMALLEST;
}

/* ---- the search ------------------------------------------------------------------------------ */

typedef struct {
    const wn_budget_space *s;
    wn_budget_costs *costs;
    void *ctx;
    double *best, *found;               /* (n_layers) completed; its cost */
    double *start, *batch, *cost;       /* (n_layers) what the group begins with; (most candidates,
                                           n_layers) */
    int *n_tried;
    uint64_t seed;
    int64_t drawn;
} evolution;

static int population(int n) { return 4 + (int)(3 * log(n)); }

static wn_status try_all(evolution *v, strategy *e, int from, wn_err *err)
{
    const wn_budget_space *s = v->s;
    size_t L = (size_t)s->n_layers;
    for (int i = 0; i < e->lambda; i++) {
        double *x = v->batch + (size_t)i * L;
        memcpy(x, v->start, sizeof *x * L);
        for (int k = 0; k < e->n; k++)
            x[from + k] *= exp(e->mean[k] + e->sigma * e->y[i * e->n + k]);
        wn_budgets_complete(s, x, x);
    }
    wn_status st = v->costs(v->ctx, v->batch, e->lambda, v->cost, err);
    if (st) return st;
    *v->n_tried += e->lambda;
    for (int i = 0; i < e->lambda; i++) v->cost[i] = isnan(v->cost[i]) ? INFINITY : v->cost[i];
    rank(e, v->cost);
    if (!(v->cost[e->order[0]] < *v->found)) return WN_OK;
    *v->found = v->cost[e->order[0]];
    memcpy(v->best, v->batch + (size_t)e->order[0] * L, sizeof *v->best * L);
    return WN_OK;
}

static bool is_over(const wn_budget_space *s) { return s->enough && s->enough(s->enough_ctx); }

static wn_status evolve_group(evolution *v, int from, int n, int tries, wn_err *err)
{
    strategy e;
    memcpy(v->start, v->best, sizeof *v->start * (size_t)v->s->n_layers);
    wn_status st = open_strategy(&e, n, population(n), err);
    for (; !st && tries >= e.lambda && !is_settled(&e) && !is_over(v->s); tries -= e.lambda) {
        draw(&e, v->seed, &v->drawn);
        if (!(st = try_all(v, &e, from, err))) learn(&e);
    }
    close_strategy(&e);
    return st;
}

int wn_budgets_evolve_groups(int n_layers)
{
    return (n_layers + LAYERS_OF_A_GROUP - 1) / LAYERS_OF_A_GROUP;
}

wn_status wn_budgets_evolve(const wn_budget_space *s, uint64_t seed, wn_budget_costs *costs,
                            void *ctx, double *best, double *even, double *found, int *n_tried,
                            wn_err *err)
{
    size_t L = (size_t)s->n_layers;
    int widest = wn_budgets_group(s, 1) - wn_budgets_group(s, 0),
        tries = s->most_tried ? s->most_tried : TRIES_OF_A_LAYER * s->n_layers;
    for (int g = 0; g < s->n_groups; g++)
        widest = WN_MAX(widest, wn_budgets_group(s, g + 1) - wn_budgets_group(s, g));
    int least = 1 + s->n_groups * population(widest);
    if (tries < least && s->n_layers > 1)
        return wn_fail(err, WN_EINVAL,
                       "%d evaluations are too few: %d groups of up to %d layers take at least %d",
                       tries, s->n_groups, widest, least);
    evolution v = { .s = s, .costs = costs, .ctx = ctx, .best = best, .found = found,
                    .n_tried = n_tried, .seed = seed };
    v.start = WN_NEW_ARRAY(double, L);
    v.cost = WN_NEW_ARRAY(double, population(widest));
    v.batch = WN_NEW_ARRAY(double, L * (size_t)population(widest));
    wn_status st = v.start && v.cost && v.batch ? WN_OK
                                                : wn_fail(err, WN_ENOMEM, "budgets: out of memory");
    for (size_t l = 0; l < L; l++) best[l] = 1;
    *n_tried = 1;
    if (!st) st = costs(ctx, best, 1, even, err);
    *found = isnan(*even) ? INFINITY : *even;
    for (int g = 0; g < s->n_groups && L > 1 && !st; g++) {
        int from = wn_budgets_group(s, g);
        st = evolve_group(&v, from, wn_budgets_group(s, g + 1) - from, (tries - 1) / s->n_groups,
                          err);
    }
    wn_free(v.start);
    wn_free(v.cost);
    wn_free(v.batch);
    return st;
}
