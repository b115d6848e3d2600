/* policy/stages/compensate.c - one slot for all that is forgotten.
 *
 * RazorAttention's compensation token: keys and values of the dropped slots are averaged, and
 * the mean counts as the n tokens it stands for (bias ln n). n exp(q.mean k) is never more
 * than the mass the dropped keys had, by Jensen's inequality, so it cannot be overrated. The
 * next decision takes the slot apart again: it joins the new victims with the weight of its
 * tokens, which makes the running mean the mean of everything dropped so far.
 */
#include "policy/stages/stages.h"

#include <math.h>

void wn_recover_compensate(const wn_view *v, int lane, const bool *stays, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int32_t *src = wn_view_scratch(v, sizeof *src * (size_t)l->n);
    float *w = wn_view_scratch(v, sizeof *w * (size_t)l->n);
    int n = 0, count = 0;
    if (!src || !w) return;
    for (int i = 0; i < l->n; i++) {
        int c = l->count ? l->count[i] : 1;
        if (wn_view_protects(v, l->pos[i]) || (stays[i] && c == 1)) continue;
        src[n] = l->pos[i];
        w[n++] = (float)c;
        count += c;
    }
    if (!n) return;
    for (int i = 0; i < n; i++) w[i] /= (float)count;
    wn_plan_merge_slots(out, lane, src[0], src, w, w, n, logf((float)count), count);
}
