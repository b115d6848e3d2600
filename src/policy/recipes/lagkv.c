/* policy/recipes/lagkv.c - what looks unusual beside what came next.
 *
 * Source     Liang et al., "LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens
 *            Are Important", 2025, equations 3 to 8
 * When       every `partition` tokens  Observes  keys, values     Resume  any
 * Score      partitions of `partition` positions after the sinks; in each, channels are scaled by
 *            the range of the next partition; the standard deviation over channels (n - 1), softmax
 *            within the partition; keys plus values
 * Retains    the sinks, the last full partition and the tail, and the same share of every
 *            scored partition; the share follows from the budget
 * Differs    where the last partition and the tail would be more than half of the budget,
 *            only that half stays untouched; partitions are compared as they are now, after
 *            earlier decisions
 */
#include "policy/stages/stages.h"

#include "base/err.h"

#include <math.h>

enum { SINKS, PARTITION };
enum { DIM_MAX = 1024 };

static const wn_param params[] = {
    [SINKS] = { "sinks", WN_PARAM_INT, 16, 0, 1 << 20, 0, "first slots that stay" },
    [PARTITION] = { "partition", WN_PARAM_INT, 128, 2, 1 << 20, 0,
                    "positions that are compared with the next as many" },
};

/* z[i] += softmax over rows [from, to) of std over channels of the row scaled by the range of
 * rows [to, end). Channels that do not vary there are left out. */
static void unusual(const float *rows, int dim, int from, int to, int end, float *z, float *tmp)
{
    float lo[DIM_MAX], range[DIM_MAX], most = -INFINITY;
    double sum = 0;
    for (int d = 0; d < dim; d++) {
        float a = INFINITY, b = -INFINITY;
        for (int i = to; i < end; i++) {
            float x = rows[(size_t)i * (size_t)dim + (size_t)d];
            a = x < a ? x : a;
            b = x > b ? x : b;
        }
        lo[d] = a;
        range[d] = b > a ? b - a : 0;
    }
    for (int i = from; i < to; i++) {
        double s1 = 0, s2 = 0;
        int n = 0;
        for (int d = 0; d < dim; d++) {
            if (!(range[d] > 0)) continue;
            double x = (double)((rows[(size_t)i * (size_t)dim + (size_t)d] - lo[d]) / range[d]);
            s1 += x;
            s2 += x * x;
            n++;
        }
        double var = n > 1 ? (s2 - s1 * s1 / n) / (n - 1) : 0;
        tmp[i] = var > 0 ? (float)sqrt(var) : 0;
        most = tmp[i] > most ? tmp[i] : most;
    }
    for (int i = from; i < to; i++) sum += exp((double)(tmp[i] - most));
    for (int i = from; i < to; i++) z[i] += (float)(exp((double)(tmp[i] - most)) / sum);
}

/* Of slots [from, to) the `keep` best, in place of the others: INFINITY and -INFINITY. */
static void choose(float *z, int from, int to, int keep, float *out)
{
    for (int i = from; i < to; i++) out[i] = -INFINITY;
    for (int k = 0; k < keep; k++) {
        int best = -1;
        for (int i = from; i < to; i++)
            if (out[i] != INFINITY && (best < 0 || z[i] > z[best])) best = i;
        if (best >= 0) out[best] = INFINITY;
    }
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int64_t n = wn_view_n_tokens(v), sinks = (int64_t)p->v[SINKS], L = (int64_t)p->v[PARTITION];
    int64_t full = n > sinks ? (n - sinks) / L : 0;     /* complete partitions */
    int64_t scored_end = sinks + (full > 1 ? full - 1 : 0) * L, half = WN_MAX(p->lane_slots / 2, 1);
    int64_t recent = WN_MIN(n - scored_end, half);
    float *z = wn_view_scratch(v, sizeof *z * (size_t)l->n),
          *tmp = wn_view_scratch(v, sizeof *tmp * (size_t)l->n);
    /* if nothing can be scored: the latest */
    for (int i = 0; i < l->n; i++) out[i] = (float)l->pos[i] * 1e-9f;
    if (!z || !tmp) return;
    int first = wn_stage_slot_at(l, sinks), tail = WN_MAX(wn_stage_slot_at(l, n - recent), first);
    int have = wn_stage_slot_at(l, scored_end) - first;
    int64_t left = p->lane_slots - first - (l->n - tail);
    for (int i = 0; i < WN_MIN(first, half); i++) out[i] = INFINITY;
    wn_stage_keep_recent(v, lane, recent, out);
    const float *k = wn_view_keys(v, lane), *val = wn_view_values(v, lane);
    double share = have > 0 && left > 0 ? (double)left / have : 0, carry = 0;
    for (int64_t at = sinks; at < scored_end; at += L) {
        int from = wn_stage_slot_at(l, at), to = wn_stage_slot_at(l, at + L),
            end = wn_stage_slot_at(l, at + 2 * L);
        for (int i = from; i < to; i++) z[i] = 0;
        if (end > to) {
            unusual(k, l->k_dim, from, to, end, z, tmp);
            unusual(val, l->v_dim, from, to, end, z, tmp);
        }
        carry += share * (to - from);
        int keep = (int)floor(carry + 1e-9);
        carry -= keep;
        choose(z, from, to, keep, out);
    }
}

const wn_recipe wn_recipe_lagkv = {
    .name = "lagkv",
    .family = "keys",
    .source = "Liang et al., \"LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens "
              "Are Important\", 2025, "
              "equations 3 to 8",
    .about = "Keeps what looks unusual in the scale of what came next, the same share everywhere. "
             "Needs no attention "
             "and knows nothing of the question: between a window and keydiff, with better prose "
             "than keydiff.",
    .differs = "the untouched end is at most half of the budget",
    .cost = "O(slots x head size) per decision",
    .params = params,
    .n_params = 2,
    .budget = "25%",
    .reads = "keys, values",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 128,
    .score = score,
};
