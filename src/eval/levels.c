/* eval/levels.c - ranges of channels and levels within them: see levels.h. */
#include "eval/levels.h"

#include "base/alloc.h"
#include "kernel/elem.h"

#include <math.h>
#include <string.h>

enum { BINS = 4096, ROUNDS = 50, SETTLE = 2, HALVES = 1 << 16, TRIES = 6 };
static const double MOST_WIDER = 1.25;
static const double REACH = 2;          /* the histogram's ends: numbers beyond a range count at
                                           most so far out */
/* Of a channel's numbers, at either end. */
static const double shares[TRIES] = { 0, 0.0005, 0.002, 0.005, 0.01, 0.02 };

typedef struct { double weight[BINS], sum[BINS], squares[BINS]; } density;

/* One share of numbers that are left out, and what comes of it. */
typedef struct {
    density h;
    float levels[WN_NUQ_LEVELS];
    double lost;
    float *middle, *half;               /* (dim) */
} attempt;

typedef struct {
    wn_levels_job *j;
    attempt *tries;
    int n_tries;
    attempt *best;
    uint32_t *counts;                   /* (threads, HALVES) */
    double all;
} work;

/* ---- ranges of channels ---------------------------------------------------------------------- */

/* Halves in the order of what they stand for, and back. */
static uint32_t rank_of(uint16_t h) { return h & 0x8000 ? 0xffffu - h : h + 0x8000u; }
static uint16_t half_of(uint32_t rank)
{
    return (uint16_t)(rank & 0x8000 ? rank - 0x8000 : 0xffffu - rank);
}

/* The number with `below` of them below it. */
static float number_at(const uint32_t *counts, uint32_t below)
{
    uint32_t rank = 0;
    for (uint32_t seen = counts[0]; seen <= below && rank + 1 < HALVES; seen += counts[rank])
        rank++;
    return wn_elem_from_f16(half_of(rank));
}

static void find_range(void *arg, int d, int thread)
{
    work *w = arg;
    const wn_levels_job *j = w->j;
    uint32_t *counts = w->counts + (size_t)thread * HALVES;
    memset(counts, 0, sizeof *counts * HALVES);
    for (int i = 0; i < j->n; i++)
        counts[rank_of(j->rows[(size_t)i * (size_t)j->dim + (size_t)d])]++;
    for (int t = 0; t < w->n_tries; t++) {
        uint32_t out = (uint32_t)(shares[t] * j->n);
        float lo = number_at(counts, out), hi = number_at(counts, (uint32_t)j->n - 1 - out);
        /* as the file has them */
        w->tries[t].middle[d] = wn_elem_from_f16(wn_elem_to_f16(0.5f * (lo + hi)));
        w->tries[t].half[d] = wn_elem_from_f16(wn_elem_to_f16(WN_MAX(0.5f * (hi - lo), 0x1p-14f)));
    }
}

/* ---- the density ----------------------------------------------------------------------------- */

static void add(density *h, double x, double weight)
{
    double at = (WN_MAX(-REACH, WN_MIN(REACH, x)) + REACH) * (BINS / (2 * REACH));
    int bin = WN_MIN(BINS - 1, (int)at);
    h->weight[bin] += weight;
    h->sum[bin] += weight * x;
    h->squares[bin] += weight * x * x;
}

static double squares_of(const wn_levels_job *j)
{
    double all = 0;
    for (int i = 0; i < j->n; i++)
        for (int d = 0; d < j->dim; d++) {
            double x = (double)wn_elem_from_f16(j->rows[(size_t)i * (size_t)j->dim + (size_t)d]);
            if (!j->of_v) x *= (double)j->x[d];
            all += (double)j->weight[i] * x * x;
        }
    return all;
}

/* A row of K, by its channels' ranges. Of each 64 channels the number that is farthest outside may
 * be left out. */
static void see_key(const wn_levels_job *j, attempt *a, int i)
{
    for (int from = 0; from < j->dim; from += WN_NUQ_BLOCK) {
        double y[WN_NUQ_BLOCK], by[WN_NUQ_BLOCK], most = 0;
        int n = WN_MIN(WN_NUQ_BLOCK, j->dim - from), out = -1;
        for (int k = 0; k < n; k++) {
            int d = from + k;
            by[k] = (double)a->half[d] * (double)j->x[d];
            y[k] = ((double)wn_elem_from_f16(j->rows[(size_t)i * (size_t)j->dim + (size_t)d]) -
                    (double)a->middle[d]) /
                   (double)a->half[d];
            double beyond = (fabs(y[k]) - 1) * by[k];
            if (j->sparse && beyond > most) most = beyond, out = k;
        }
        for (int k = 0; k < n; k++)
            if (k != out) add(&a->h, y[k], (double)j->weight[i] * by[k] * by[k]);
    }
}

/* A row of V, by the largest magnitude of 64 channels: of the second largest, if one is kept
 * apart. */
static void see_value(const wn_levels_job *j, attempt *a, int i)
{
    for (int from = 0; from < j->dim; from += WN_NUQ_BLOCK) {
        const uint16_t *x = j->rows + (size_t)i * (size_t)j->dim + from;
        int n = WN_MIN(WN_NUQ_BLOCK, j->dim - from), out = -1;
        double most = 0;
        for (int round = 0; round <= j->sparse; round++) {
            int at = -1;
            most = 0;
            for (int k = 0; k < n; k++)
                if (k != out && fabs((double)wn_elem_from_f16(x[k])) > most)
                    most = fabs((double)wn_elem_from_f16(x[k])), at = k;
            if (round < j->sparse) out = at;
        }
        for (int k = 0; k < n && most > 0; k++)
            if (k != out)
                add(&a->h, (double)wn_elem_from_f16(x[k]) / most,
                    (double)j->weight[i] * most * most);
    }
}

/* ---- levels ---------------------------------------------------------------------------------- */

/* The bins between two levels belong to the nearer one; gives the error of all. */
static double assign(const density *h, const double *level, int n, double *weight, double *sum)
{
    double lost = 0;
    int u = 0;
    memset(weight, 0, sizeof *weight * (size_t)n);
    memset(sum, 0, sizeof *sum * (size_t)n);
    for (int b = 0; b < BINS; b++) {
        if (!(h->weight[b] > 0)) continue;
        double x = h->sum[b] / h->weight[b];
        while (u + 1 < n && x > 0.5 * (level[u] + level[u + 1])) u++;
        weight[u] += h->weight[b];
        sum[u] += h->sum[b];
        lost += h->squares[b] - 2 * level[u] * h->sum[b] + level[u] * level[u] * h->weight[b];
    }
    return lost;
}

static void find_levels(const wn_levels_job *j, attempt *a)
{
    double level[WN_NUQ_LEVELS], weight[WN_NUQ_LEVELS], sum[WN_NUQ_LEVELS];
    int n = 1 << j->bits;
    for (int u = 0; u < n; u++) level[u] = (2 * u + 1 - n) / (double)n;
    for (int round = 0; round < ROUNDS; round++) {
        assign(&a->h, level, n, weight, sum);
        for (int u = 0; u < n; u++)
            if (weight[u] > 0) level[u] = WN_MAX(-1, WN_MIN(1, sum[u] / weight[u]));
    }
    for (int u = 0; u < n; u++) {
        a->levels[u] = wn_elem_from_f16(wn_elem_to_f16((float)level[u]));
        level[u] = (double)a->levels[u];
    }
    a->lost = assign(&a->h, level, n, weight, sum);
}

static void attempt_one(void *arg, int t, int thread)
{
    work *w = arg;
    attempt *a = &w->tries[t];
    (void)thread;
    for (int i = 0; i < w->j->n; i++) (w->j->of_v ? see_value : see_key)(w->j, a, i);
    find_levels(w->j, a);
}

/* ---- what the levels shrink ------------------------------------------------------------------ */

/* Levels of least error lie nearer to their middle than what they stand for: products with keys
 * shrink by that error (12 % with 2 bits), which no averaging takes away. So each channel's range
 * is moved and widened until what its codes say has the channel's mean, and its product with the
 * numbers comes out right. */
static void settle_range(void *arg, int d, int thread)
{
    work *w = arg;
    const wn_levels_job *j = w->j;
    float *middle = &w->best->middle[d], *half = &w->best->half[d];
    int n = 1 << j->bits;
    (void)thread;
    for (int round = 0; round < SETTLE; round++) {
        double all = 0, x1 = 0, y1 = 0, xx = 0, xy = 0;
        for (int i = 0; i < j->n; i++) {
            double x = ((double)wn_elem_from_f16(j->rows[(size_t)i * (size_t)j->dim + (size_t)d]) -
                        (double)*middle) /
                       (double)*half,
                   y;
            const float *l = w->best->levels;
            int u = 0;
            while (u + 1 < n && x > 0.5 * ((double)l[u] + (double)l[u + 1])) u++;
            y = (double)l[u];
            all += (double)j->weight[i], x1 += (double)j->weight[i] * x,
                y1 += (double)j->weight[i] * y;
            xx += (double)j->weight[i] * x * x, xy += (double)j->weight[i] * x * y;
        }
        x1 /= all, y1 /= all;
        double var = xx / all - x1 * x1, with = xy / all - x1 * y1;
        double by = with > 0 ? WN_MAX(1, WN_MIN(MOST_WIDER, var / with)) : 1;
        *middle = wn_elem_from_f16(
            wn_elem_to_f16((float)((double)*middle + (double)*half * (x1 - by * y1))));
        *half = wn_elem_from_f16(wn_elem_to_f16((float)((double)*half * by)));
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

wn_status wn_levels_fit(wn_levels_job *j, wn_err *err)
{
    work w = { .j = j, .n_tries = j->of_v ? 1 : TRIES };
    size_t D = (size_t)j->dim;
    float *ranges = NULL;
    w.tries = WN_NEW_ARRAY(attempt, w.n_tries);
    w.counts = WN_NEW_ARRAY(uint32_t, wn_threads_count(j->team) * HALVES);
    ranges = WN_NEW_ARRAY(float, 2 * D * TRIES);
    if (w.tries && w.counts && ranges) {
        for (size_t t = 0; t < (size_t)w.n_tries; t++)
            w.tries[t].middle = ranges + 2 * t * D, w.tries[t].half = ranges + (2 * t + 1) * D;
        if (!j->of_v) wn_threads_run(j->team, find_range, &w, j->dim);
        wn_threads_run(j->team, attempt_one, &w, w.n_tries);
        w.best = w.tries;
        for (int t = 1; t < w.n_tries; t++)
            if (w.tries[t].lost < w.best->lost) w.best = &w.tries[t];
        if (!j->of_v) wn_threads_run(j->team, settle_range, &w, j->dim);
        memcpy(j->x + wn_nuq_levels_at(j->dim, j->of_v), w.best->levels, sizeof w.best->levels);
        if (!j->of_v) {
            memcpy(j->x + wn_nuq_middles_at(j->dim), w.best->middle, sizeof(float) * D);
            memcpy(j->x + wn_nuq_halves_at(j->dim), w.best->half, sizeof(float) * D);
        }
        double all = squares_of(j);
        j->loss = all > 0 ? w.best->lost / all : 0;
    }
    wn_status st = w.tries && w.counts && ranges
                       ? WN_OK
                       : wn_fail(err, WN_ENOMEM, "calibrate: out of memory");
    wn_free(w.tries);
    wn_free(w.counts);
    wn_free(ranges);
    return st;
}
