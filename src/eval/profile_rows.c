/* eval/profile_rows.c - what one row of attention says of a head; see profile.h.
 *
 * Each position has marks that say what it is to the row: the token being copied, part of the
 * needle, an earlier copy of this token, near. A head's scores are the weight on positions of a
 * mark, so each definition is one line here and the rest is which positions get which mark.
 */
#include "eval/profile.h"

#include <string.h>

void wn_rows_mark_near(uint8_t *mark, int p, int sinks, int recent)
{
    for (int i = 0; i <= p; i++)
        if (i < sinks || i > p - recent) mark[i] |= WN_AT_NEAR;
}

void wn_rows_mark_repeats(uint8_t *mark, int p, int start, int block)
{
    for (int i = p - block; i >= start; i -= block) {
        mark[i] |= WN_AT_SAME;
        mark[i + 1] |= WN_AT_NEXT;
    }
}

void wn_rows_add(wn_head_sums *s, const float *w, const int32_t *pos, int n, const uint8_t *mark,
                 unsigned count)
{
    int top = 0;
    for (int i = 0; i < n; i++) {
        double x = (double)w[i];
        unsigned m = mark[pos[i]] & count;
        s->needle += m & WN_AT_VALUE ? x : 0;
        s->span += m & WN_AT_SPAN ? x : 0;
        s->echo += m & WN_AT_SAME ? x : 0;
        s->induction += m & WN_AT_NEXT ? x : 0;
        s->stream += m & WN_AT_NEAR ? x : 0;
        if (w[i] > w[top] || (w[i] == w[top] && pos[i] < pos[top])) top = i;
    }
    s->copy += n && mark[pos[top]] & count & WN_AT_COPIED ? 1 : 0;
}

double wn_rows_loss(const float *w, const int32_t *pos, int n, const uint8_t *mark, const float *v,
                    int dim, double *all, double *near_, double *norm)
{
    double mass = 0, lost = 0;
    memset(all, 0, sizeof *all * (size_t)dim);
    memset(near_, 0, sizeof *near_ * (size_t)dim);
    *norm = 0;
    for (int i = 0; i < n; i++) {
        const float *row = v + (size_t)i * (size_t)dim;
        double x = (double)w[i];
        bool is_near = mark[pos[i]] & WN_AT_NEAR;
        mass += is_near ? x : 0;
        for (int c = 0; c < dim; c++) all[c] += x * (double)row[c];
        for (int c = 0; is_near && c < dim; c++) near_[c] += x * (double)row[c];
    }
    for (int c = 0; c < dim; c++) {
        double d = all[c] - (mass > 0 ? near_[c] / mass : 0);
        lost += d * d;
        *norm += all[c] * all[c];
    }
    return lost;
}
