/* eval/kmeans.c - see kmeans.h. */
#include "eval/kmeans.h"

#include "sample/sample.h"

#include <math.h>
#include <string.h>

enum { WIDEST = 8 };

static const float *row_of(const wn_kmeans_job *j, int i) { return j->x + (size_t)i * j->stride; }

/* The row in whose share of the sum of weight times far the draw falls; -1: the sum is 0. */
static int draw(const wn_kmeans_job *j, bool first, double u)
{
    double all = 0, at = 0;
    int last = -1;
    for (int i = 0; i < j->n; i++) all += (double)j->weight[i] * (first ? 1 : (double)j->far[i]);
    for (int i = 0; i < j->n; i++) {
        double part = (double)j->weight[i] * (first ? 1 : (double)j->far[i]);
        at += part;
        if (part > 0) last = i;
        if (part > 0 && at >= u * all) return i;
    }
    return last;
}

/* far[i] = the distance of row i to this point, where that is less. */
static void come_nearer(const wn_kmeans_job *j, const float *point)
{
    for (int i = 0; i < j->n; i++) {
        const float *x = row_of(j, i);
        float sum = 0;
        for (int k = 0; k < j->c; k++) sum += (x[k] - point[k]) * (x[k] - point[k]);
        if (sum < j->far[i]) j->far[i] = sum;
    }
}

static void choose_first(const wn_kmeans_job *j, float *points)
{
    size_t bytes = sizeof *points * (size_t)j->c;
    for (int i = 0; i < j->n; i++) j->far[i] = INFINITY;
    for (int p = 0; p < j->n_points; p++) {
        int i = draw(j, p == 0, wn_sample_uniform(j->seed, p));
        /* no row is left over: any will do */
        memcpy(points + p * j->c, i < 0 ? points : row_of(j, i), bytes);
        if (i >= 0) come_nearer(j, points + p * j->c);
    }
}

static void assign(const wn_kmeans_job *j, const float *points)
{
    float table[WIDEST * WN_LOOKUP_POINTS];
    for (int k = 0; k < j->c; k++)
        for (int i = 0; i < WN_LOOKUP_POINTS; i++)
            table[k * WN_LOOKUP_POINTS + i] = i < j->n_points ? points[i * j->c + k] : INFINITY;
    for (int i = 0; i < j->n; i++)
        j->codes[i] = (uint8_t)wn_kernels_get()->lookup->nearest(row_of(j, i), table, j->c,
                                                                 &j->far[i]);
}

static void to_costliest_row(const wn_kmeans_job *j, float *point)
{
    int at = 0;
    for (int i = 1; i < j->n; i++)
        if (j->weight[i] * j->far[i] > j->weight[at] * j->far[at]) at = i;
    memcpy(point, row_of(j, at), sizeof *point * (size_t)j->c);
    j->far[at] = 0;                     /* the next one goes elsewhere */
}

static void to_means(const wn_kmeans_job *j, float *points)
{
    double sum[WN_LOOKUP_POINTS][WIDEST] = { { 0 } }, weight[WN_LOOKUP_POINTS] = { 0 };
    for (int i = 0; i < j->n; i++) {
        const float *x = row_of(j, i);
        double w = (double)j->weight[i];
        weight[j->codes[i]] += w;
        for (int k = 0; k < j->c; k++) sum[j->codes[i]][k] += w * (double)x[k];
    }
    for (int p = 0; p < j->n_points; p++) {
        if (!(weight[p] > 0)) to_costliest_row(j, points + p * j->c);
        else
            for (int k = 0; k < j->c; k++) points[p * j->c + k] = (float)(sum[p][k] / weight[p]);
    }
}

double wn_kmeans(const wn_kmeans_job *j, float *points)
{
    double cost = INFINITY, before;
    WN_ASSERT(j->n > 0 && j->c <= WIDEST && j->n_points <= WN_LOOKUP_POINTS);
    choose_first(j, points);
    for (int round = 0; round <= j->rounds; round++) {
        before = cost;
        cost = 0;
        assign(j, points);
        for (int i = 0; i < j->n; i++) cost += (double)j->weight[i] * (double)j->far[i];
        if (round == j->rounds || !(cost < before)) break;
        to_means(j, points);
    }
    return cost;
}
