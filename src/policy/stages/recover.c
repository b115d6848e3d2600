/* policy/stages/recover.c - what becomes of slots that do not stay: merged into one that does.
 *
 * Weights of a merge (D2O's rule): a victim counts e^cos, the survivor e, divided by their
 * sum, for K and for V. The new slot takes the survivor's position and stands for the tokens
 * of all; its bias is the logarithm of that number (the mass that many equal keys have).
 */
#include "policy/stages/stages.h"

#include <math.h>

static double cosine(const float *a, const float *b, int dim, double na, double nb)
{
    float dot = 0;
    for (int d = 0; d < dim; d++) dot += a[d] * b[d];
    return na > 0 && nb > 0 ? (double)dot / (na * nb) : 0;
}

/* Norms of rows (n, dim). */
static void norms(double *out, const float *rows, int n, int dim)
{
    for (int i = 0; i < n; i++, rows += dim) {
        double s = 0;
        for (int d = 0; d < dim; d++) s += (double)rows[d] * (double)rows[d];
        out[i] = sqrt(s);
    }
}

/* nearest[i] = the slot that stays (protected ones apart: they stay as they are) with the key
 * most like victim i's (ties: the earlier), -1 for slots that stay; like[i] = that cosine. Returns the mean over victims. */
static double find_nearest(const wn_view *v, const wn_view_lane *l, const float *k, const double *norm, const bool *stays, int *nearest,
                           double *like)
{
    double sum = 0;
    int victims = 0;
    for (int i = 0; i < l->n; i++) {
        nearest[i] = -1;
        if (stays[i]) continue;
        const float *row = k + (size_t)i * (size_t)l->k_dim;
        for (int j = 0; j < l->n; j++) {
            if (!stays[j] || wn_view_protects(v, l->pos[j])) continue;
            double c = cosine(row, k + (size_t)j * (size_t)l->k_dim, l->k_dim, norm[i], norm[j]);
            if (nearest[i] < 0 || c > like[i]) nearest[i] = j, like[i] = c;
        }
        if (nearest[i] < 0) continue;
        sum += like[i];
        victims++;
    }
    return victims ? sum / victims : 0;
}

void wn_recover_nearest(const wn_view *v, int lane, const bool *stays, int bias, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    size_t n = (size_t)l->n;
    int *nearest = wn_view_scratch(v, sizeof *nearest * n);
    double *like = wn_view_scratch(v, sizeof *like * n), *norm = wn_view_scratch(v, sizeof *norm * n);
    int32_t *src = wn_view_scratch(v, sizeof *src * n);
    float *w = wn_view_scratch(v, sizeof *w * n);
    if (!nearest || !like || !norm || !src || !w) return;
    const float *k = wn_view_keys(v, lane);
    norms(norm, k, l->n, l->k_dim);
    double bar = find_nearest(v, l, k, norm, stays, nearest, like);
    for (int j = 0; j < l->n; j++) {
        int m = 1, count = l->count ? l->count[j] : 1;
        double sum = exp(1.0);
        if (!stays[j]) continue;
        src[0] = l->pos[j];
        for (int i = 0; i < l->n; i++) {
            if (nearest[i] != j || like[i] < bar) continue;
            src[m] = l->pos[i];
            w[m++] = (float)exp(like[i]);
            sum += exp(like[i]);
            count += l->count ? l->count[i] : 1;
        }
        if (m == 1) continue;
        w[0] = (float)exp(1.0);
        for (int i = 0; i < m; i++) w[i] = (float)((double)w[i] / sum);
        wn_plan_merge_slots(out, lane, l->pos[j], src, w, w, m, bias == WN_BIAS_LOG ? logf((float)count) : 0, count);
    }
}
