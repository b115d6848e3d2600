/* policy/stages/allocate.c - who gets how much: a total split over lanes in whole slots. */
#include "policy/policy.h"

#include <math.h>

/* Lanes that would get their cap or more get the cap and leave the splitting; the others
 * share what is left, rounded down, and the largest remainders (ties: the lower lane) get
 * one more each. Until a lane is settled its out is -1. */
void wn_stage_split(int64_t total, const double *weight, const int64_t *cap, int n, int64_t *out)
{
    double sum, left = (double)total;
    for (int i = 0; i < n; i++) out[i] = weight[i] > 0 && cap[i] > 0 ? -1 : 0;
    for (bool again = true; again;) {
        double taken = 0;
        sum = 0;
        for (int i = 0; i < n; i++) sum += out[i] < 0 ? weight[i] : 0;
        for (int i = 0; i < n; i++)
            if (out[i] < 0 && left * (weight[i] / sum) >= (double)cap[i]) taken += (double)(out[i] = cap[i]);
        left -= taken;
        again = taken > 0;
    }
    double given = 0;
    for (int i = 0; i < n; i++)
        if (out[i] < 0) given += floor(left * (weight[i] / sum));
    int extra = (int)(left - given + 0.5);
    while (extra-- > 0) {
        int best = -1;
        double most = -1;
        for (int i = 0; i < n; i++) {
            if (out[i] != -1) continue;
            double share = left * (weight[i] / sum);
            if (share - floor(share) > most) most = share - floor(share), best = i;
        }
        if (best < 0) break;
        out[best] = -2;                 /* gets one more */
    }
    for (int i = 0; i < n; i++)
        if (out[i] < 0) out[i] = (int64_t)floor(left * (weight[i] / sum)) + (out[i] == -2);
}
