/* policy/stages/recover.c - what becomes of slots that do not stay: merged into one that does.
 *
 * Weights of a merge (D2O's rule): a victim counts e^cos, the survivor e, divided by their
 * sum, for K and for V. The new slot takes the survivor's position and stands for the tokens
 * of all; its bias is the logarithm of that number (the mass that many equal keys have).
 *
 * Keys are compared as they are cached, rotated: equal keys that stand D positions apart have
 * a cosine of cos(D f) in the channels of frequency f, and their mean keeps cos(D f / 2) of
 * those. The cosine filter passes over pairs that lose much; nothing is turned back.
 */
#include "policy/stages/stages.h"

#include "base/err.h"

#include <math.h>

/* Cosines are taken between this many victims and survivors at a time. */
enum { VICTIMS = 256, TILE = 64 };
/* A cosine is exact to some ulps of 1: that much below the bar is at it. Else of victims
 * that are all alike none would reach the mean, if that is rounded up. */
static const double AT_THE_BAR = 1e-6;

/* Where a slot's rows go: nearest[i] = the survivor with the key most like victim i's (ties:
 * the earlier), -1 for slots that stay; like[i] = their cosine. */
typedef struct {
    int32_t *nearest, *victims, *survivors;     /* (n) each; slots, ascending */
    int n_victims, n_survivors;
    float *like;                                /* (n) */
    float *a, *b, *cols, *c;                    /* unit rows, survivors' by channel, cosines */
} job;

static bool open_job(job *j, const wn_view *v, const wn_view_lane *l)
{
    size_t n = (size_t)l->n, d = (size_t)l->k_dim;
    j->nearest = wn_view_scratch(v, 3 * n * sizeof *j->nearest);
    j->like = wn_view_scratch(v, n * sizeof *j->like);
    j->a = wn_view_scratch(v, ((VICTIMS + 2 * TILE) * d + VICTIMS * TILE) * sizeof *j->a);
    if (!j->nearest || !j->like || !j->a) return false;
    j->victims = j->nearest + n;
    j->survivors = j->victims + n;
    j->b = j->a + VICTIMS * d;
    j->cols = j->b + TILE * d;
    j->c = j->cols + TILE * d;
    return true;
}

/* Rows of the listed slots, of length 1; a row of zeros stays one. */
static void unit_rows(float *out, const float *rows, const int32_t *slots, int n, int dim)
{
    for (int i = 0; i < n; i++, out += dim) {
        const float *row = rows + (size_t)slots[i] * (size_t)dim;
        double s = 0;
        for (int d = 0; d < dim; d++) s += (double)row[d] * (double)row[d];
        float scale = s > 0 ? (float)(1 / sqrt(s)) : 0;
        for (int d = 0; d < dim; d++) out[d] = row[d] * scale;
    }
}

/* Protected survivors stay as they are: nothing is merged into them. */
static void sort_out(job *j, const wn_view *v, const wn_view_lane *l, const bool *stays)
{
    j->n_victims = j->n_survivors = 0;
    for (int i = 0; i < l->n; i++) {
        j->nearest[i] = -1;
        if (!stays[i]) j->victims[j->n_victims++] = i;
        else if (!wn_view_protects(v, l->pos[i])) j->survivors[j->n_survivors++] = i;
    }
}

/* Returns the mean of the cosines. */
static double find_nearest(job *j, const wn_view_lane *l, const float *k)
{
    double sum = 0;
    for (int v0 = 0; v0 < j->n_victims; v0 += VICTIMS) {
        int nv = WN_MIN(VICTIMS, j->n_victims - v0);
        const int32_t *victims = j->victims + v0;
        unit_rows(j->a, k, victims, nv, l->k_dim);
        for (int s0 = 0; s0 < j->n_survivors; s0 += TILE) {
            int ns = WN_MIN(TILE, j->n_survivors - s0);
            unit_rows(j->b, k, j->survivors + s0, ns, l->k_dim);
            wn_stage_dots(j->c, j->a, nv, j->b, ns, l->k_dim, j->cols);
            for (int i = 0; i < nv; i++)
                for (int s = 0; s < ns; s++) {
                    float x = j->c[i * ns + s];
                    int32_t *best = &j->nearest[victims[i]];
                    if (*best >= 0 && !(x > j->like[victims[i]])) continue;
                    *best = j->survivors[s0 + s];
                    j->like[victims[i]] = x;
                }
        }
        for (int i = 0; i < nv && j->n_survivors; i++) sum += (double)j->like[victims[i]];
    }
    return j->n_victims ? sum / j->n_victims : 0;
}

/* Chains the victims that reach the bar to their survivors, earlier ones first: head[s] is the
 * first of slot s, next[i] the one after victim i; -1: none. */
static void chain(const job *j, int n, double bar, int32_t *head, int32_t *next)
{
    for (int s = 0; s < n; s++) head[s] = -1;
    for (int x = j->n_victims - 1; x >= 0; x--) {
        int32_t i = j->victims[x], s = j->nearest[i];
        if (s < 0 || (double)j->like[i] < bar) continue;
        next[i] = head[s];
        head[s] = i;
    }
}

void wn_recover_nearest(const wn_view *v, int lane, const bool *stays, int bias, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    size_t n = (size_t)l->n;
    job j;
    int32_t *head = wn_view_scratch(v, sizeof *head * n), *next = wn_view_scratch(v, sizeof *next * n);
    int32_t *src = wn_view_scratch(v, sizeof *src * n);
    float *w = wn_view_scratch(v, sizeof *w * n);
    if (!head || !next || !src || !w || !open_job(&j, v, l)) return;
    sort_out(&j, v, l, stays);
    double bar = find_nearest(&j, l, wn_view_keys(v, lane)) - AT_THE_BAR;
    chain(&j, l->n, bar, head, next);
    for (int s = 0; s < l->n; s++) {
        int m = 1, count = l->count ? l->count[s] : 1;
        double sum = exp(1.0);
        if (head[s] < 0) continue;
        src[0] = l->pos[s];
        for (int32_t i = head[s]; i >= 0; i = next[i]) {
            src[m] = l->pos[i];
            w[m++] = (float)exp((double)j.like[i]);
            sum += exp((double)j.like[i]);
            count += l->count ? l->count[i] : 1;
        }
        w[0] = (float)exp(1.0);
        for (int i = 0; i < m; i++) w[i] = (float)((double)w[i] / sum);
        wn_plan_merge_slots(out, lane, l->pos[s], src, w, w, m,
                            bias == WN_BIAS_LOG ? logf((float)count) : 0, count);
    }
}
