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
#include "kernel/attn.h"

#include <math.h>
#include <string.h>

/* A cosine is exact to some ulps of 1: that much below the bar is at it. Else of victims
 * that are all alike none would reach the mean, if that is rounded up. */
static const double AT_THE_BAR = 1e-6;

bool wn_recover_find(const wn_view *v, int lane, const bool *stays, int32_t *into, float *like)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    bool *from = wn_view_scratch(v, 2 * (size_t)l->n), *to = from ? from + l->n : NULL;
    if (!from) return false;
    for (int i = 0; i < l->n; i++) {
        from[i] = !stays[i];
        /* protected survivors stay as they are */
        to[i] = stays[i] && !wn_view_protects(v, l->pos[i]);
    }
    wn_stage_nearest(v, lane, from, to, false, into, like);
    return true;
}

void wn_recover_nearest(const wn_view *v, int lane, const bool *stays, int bias, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    size_t n = (size_t)l->n;
    int32_t *into = wn_view_scratch(v, sizeof *into * n);
    float *w = wn_view_scratch(v, sizeof *w * n);
    double bar = 0;
    int victims = 0;
    if (!into || !w || !wn_recover_find(v, lane, stays, into, w)) return;
    for (int i = 0; i < l->n; i++)
        if (into[i] >= 0) bar += (double)w[i], victims++;
    bar = bar / WN_MAX(victims, 1) - AT_THE_BAR;
    for (int i = 0; i < l->n; i++) {
        if (into[i] >= 0 && (double)w[i] < bar) into[i] = -1;
        w[i] = (float)exp(stays[i] ? 1 : (double)w[i]);
    }
    wn_stage_shares(v, lane, into, w);
    wn_stage_gather(v, lane, into, w, w, bias == WN_BIAS_LOG ? 1 : 0, out);
}
