/* policy/stages/retain.c - which slots stay: the protected ones, then the best.
 *
 * The best m of n are found without sorting: each slot gets a key of 64 bits, its score
 * turned so that better is smaller, then its index, so that no two are equal and of equal
 * scores the earlier position comes first. Byte by byte from the top, the bytes of the m-th
 * smallest key are read off counts. At most eight passes whatever the scores are, no
 * memory but the keys (qsort of glibc allocates for long arrays, and a step must not).
 */
#include "policy/policy.h"
#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

/* Ascending in the order in which slots stay. NaN is as bad as can be. */
static uint64_t key_of(float score, int at)
{
    uint32_t bits;
    float x = isnan(score) ? -INFINITY : score + 0.0f;      /* -0 is 0 */
    memcpy(&bits, &x, sizeof bits);
    bits = bits >> 31 ? bits : ~bits & 0x7fffffffu;  /* larger scores first, negative ones last */
    return (uint64_t)bits << 32 | (uint32_t)at;
}

/* The m-th smallest of n different keys, 1 <= m <= n. */
static uint64_t select_key(const uint64_t *key, int n, int64_t m)
{
    uint64_t found = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        int32_t count[256] = { 0 };
        int b = 0;
        for (int i = 0; i < n; i++)
            if (shift == 56 || (key[i] ^ found) >> (shift + 8) == 0) count[key[i] >> shift & 255]++;
        while (m > count[b]) m -= count[b++];
        found |= (uint64_t)b << shift;
    }
    return found;
}

void wn_stage_best(const wn_view *v, const float *score, int n, int64_t m, bool *best)
{
    wn_mark mark = wn_arena_mark(v->scratch);
    uint64_t *key = wn_view_scratch(v, sizeof *key * (size_t)n), last = 0;
    memset(best, 0, sizeof *best * (size_t)n);
    if (key && m > 0) {
        for (int i = 0; i < n; i++) key[i] = key_of(score[i], i);
        last = m < n ? select_key(key, n, m) : UINT64_MAX;
        for (int i = 0; i < n; i++) best[i] = key[i] <= last;
    }
    wn_arena_rewind(v->scratch, mark);
}

bool wn_stage_choose(const wn_view *v, int lane, const float *score, int64_t keep, const bool *skip,
                     bool *stays)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    uint64_t *key = wn_view_scratch(v, sizeof *key * (size_t)l->n);
    int n = 0, n_stay = 0;
    if (!key) return false;
    for (int i = 0; i < l->n; i++) {
        stays[i] = (!skip || !skip[i]) && wn_view_protects(v, l->pos[i]);
        n_stay += stays[i];
        if (!stays[i] && (!skip || !skip[i])) key[n++] = key_of(score[i], i);
    }
    int64_t m = WN_MIN(keep - n_stay, (int64_t)n);
    uint64_t last = m > 0 ? select_key(key, n, m) : 0;
    for (int i = 0; i < n && m > 0; i++)
        if (key[i] <= last) stays[(uint32_t)key[i]] = true;
    return true;
}

void wn_stage_keep(const wn_view *v, int lane, const bool *stays, wn_plan *plan)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int32_t *stay = wn_view_scratch(v, sizeof *stay * (size_t)l->n);
    int n_stay = 0;
    if (!stay) {
        plan->status = WN_ENOMEM;
        return;
    }
    for (int i = 0; i < l->n; i++)
        if (stays[i]) stay[n_stay++] = l->pos[i];
    wn_plan_keep_only(plan, lane, stay, n_stay);
}

void wn_stage_retain(const wn_view *v, int lane, const float *score, int64_t keep, wn_plan *plan)
{
    bool *stays = wn_view_scratch(v, sizeof *stays * (size_t)wn_view_get_lane(v, lane)->n);
    if (stays && wn_stage_choose(v, lane, score, keep, NULL, stays))
        wn_stage_keep(v, lane, stays, plan);
    else plan->status = WN_ENOMEM;
}
