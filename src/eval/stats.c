/* eval/stats.c - see stats.h. */
#include "eval/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double wn_stat_log_sum(const float *x, int n)
{
    double m = (double)x[0], sum = 0;
    for (int i = 1; i < n; i++) m = (double)x[i] > m ? (double)x[i] : m;
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - m);
    return m + log(sum);
}

double wn_stat_kl_of(const float *p, double zp, const float *q, double zq, int n)
{
    double kl = 0;
    if (!memcmp(p, q, sizeof *p * (size_t)n)) return 0;
    for (int i = 0; i < n; i++) {
        double lp = (double)p[i] - zp, lq = (double)q[i] - zq;
        if (lp > -700) kl += exp(lp) * (lp - lq);
    }
    return kl > 0 ? kl : 0;             /* rounding may leave -1e-17 */
}

double wn_stat_kl(const float *p, const float *q, int n)
{
    return wn_stat_kl_of(p, wn_stat_log_sum(p, n), q, wn_stat_log_sum(q, n), n);
}

double wn_stat_nll(const float *logits, int n, int id)
{
    return wn_stat_log_sum(logits, n) - (double)logits[id];
}

int wn_stat_argmax(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double wn_stat_percentile(double *x, size_t n, double q)
{
    if (!n) return 0;
    qsort(x, n, sizeof *x, ascending);
    size_t rank = (size_t)ceil(q * (double)n);
    return x[rank > n ? n - 1 : rank ? rank - 1 : 0];
}

double wn_stat_mean(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    return n ? sum / (double)n : 0;
}

double wn_stat_se(const double *x, size_t n)
{
    double m = wn_stat_mean(x, n), sum = 0;
    for (size_t i = 0; i < n; i++) sum += (x[i] - m) * (x[i] - m);
    return n > 1 ? sqrt(sum / (double)(n - 1) / (double)n) : 0;
}
