/* policy/stages/fair.c - every span of the text loses the same share.
 *
 * With several instructions in a prompt, the best slots over all of it may leave one of them next
 * to nothing. Of k slots that stay of n, a span with n_X live ones keeps k n_X / n (largest
 * remainders), its best by the recipe's scores; what is in no span is one more. `share` goes from
 * the recipe's own choice (0) to that (1).
 *
 * Slots that stay in any case are paid for by their span: protected ones, and those of the last
 * queries that the recipe itself puts before all others. A span that has more of them than its
 * share keeps just those, and the others share what is left.
 */
#include "policy/policy.h"
#include "policy/stages/stages.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Slots of a lane by span, in the order of the text; the first is what is in none, and may be
 * empty. */
typedef struct {
    int n;
    int32_t *slots, *first;             /* slots one group after the other; (n + 1) where each
                                           begins */
} groups;

static bool group(const wn_view *v, const wn_view_lane *l, const bool *skip, groups *g)
{
    size_t n = (size_t)l->n;
    int32_t *of = wn_view_scratch(v, sizeof *of * n), last = 0;
    *g = (groups){ .n = 1, .slots = wn_view_scratch(v, sizeof *g->slots * n),
                   .first = wn_view_scratch(v, sizeof *g->first * (n + 3)) };
    if (!of || !g->slots || !g->first) return false;
    memset(g->first, 0, sizeof *g->first * (n + 3));
    for (int i = 0; i < l->n; i++) {
        int32_t span = wn_view_span(v, l->pos[i]);
        if (span && span != last) last = span, g->n++;
        of[i] = span ? g->n - 1 : 0;
        if (!skip || !skip[i]) g->first[of[i] + 2]++;
    }
    for (int k = 0; k < g->n; k++) g->first[k + 2] += g->first[k + 1];
    for (int i = 0; i < l->n; i++)      /* counting sort: first[k + 1] is where the next of group k
                                           goes */
        if (!skip || !skip[i]) g->slots[g->first[of[i] + 1]++] = i;
    return true;
}

/* Out of `left` slots in proportion to weight, none below must, none above cap (n each). Where must
 * is above 0, so is the weight, until it is settled that must is what it gets. */
static void divide(int64_t left, double *weight, const int64_t *must, const int64_t *cap, int n,
                   int64_t *out)
{
    for (bool again = true; again;) {
        double sum = 0;
        int64_t taken = 0;
        for (int k = 0; k < n; k++) sum += weight[k];
        for (int k = 0; k < n; k++) {
            if (weight[k] <= 0 || (double)left * (weight[k] / sum) >= (double)must[k]) continue;
            taken += must[k];
            weight[k] = 0;
        }
        left -= taken;
        again = taken > 0;
    }
    wn_stage_split(left, weight, cap, n, out);
    for (int k = 0; k < n; k++)
        if (weight[k] <= 0) out[k] = must[k];
}

/* The best of each group, as many as it has; stays is given false. */
static void take(const wn_view *v, const groups *g, const float *key, const int64_t *quota,
                 bool *stays)
{
    size_t n = (size_t)g->first[g->n];
    float *x = wn_view_scratch(v, sizeof *x * n);
    bool *best = wn_view_scratch(v, sizeof *best * n);
    for (int k = 0; k < g->n && x && best; k++) {
        int from = g->first[k], m = g->first[k + 1] - from;
        for (int i = 0; i < m; i++) x[i] = key[g->slots[from + i]];
        wn_stage_best(v, x, m, quota[k], best);
        for (int i = 0; i < m; i++) stays[g->slots[from + i]] = best[i];
    }
}

void wn_retain_fair(const wn_view *v, int lane, int window, double share, const float *score,
                    int64_t keep, const bool *skip, bool *stays)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    groups g;
    if (!group(v, l, skip, &g) || !wn_stage_choose(v, lane, score, keep, skip, stays)) return;
    size_t spans = (size_t)g.n;
    int64_t *must = wn_view_scratch(v, sizeof *must * spans),
            *cap = wn_view_scratch(v, sizeof *cap * spans), held = 0;
    int64_t *quota = wn_view_scratch(v, sizeof *quota * spans), all = g.first[g.n];
    double *weight = wn_view_scratch(v, sizeof *weight * spans);
    float *key = wn_view_scratch(v, sizeof *key * (size_t)l->n);
    if (!must || !cap || !quota || !weight || !key || keep >= all) return;
    for (int k = 0; k < g.n; k++) {
        must[k] = 0;
        cap[k] = g.first[k + 1] - g.first[k];
        weight[k] = share * (double)keep * (double)cap[k] / (double)all;
        for (int at = g.first[k]; at < g.first[k + 1]; at++) {
            int i = g.slots[at];
            bool recent = l->pos[i] >= wn_view_n_tokens(v) - window && score[i] >= FLT_MAX / 4;
            key[i] = score[i];
            if (wn_view_protects(v, l->pos[i])) key[i] = INFINITY;
            must[k] += recent || wn_view_protects(v, l->pos[i]);
            weight[k] += stays[i] ? 1 - share : 0;
        }
        held += must[k];
    }
    if (held >= keep) return;           /* there is room for those alone, which are the best */
    divide(keep, weight, must, cap, g.n, quota);
    memset(stays, 0, sizeof *stays * (size_t)l->n);
    take(v, &g, key, quota, stays);
}

/* ---- +retain:fair ------------------------------------------------------------------------ */

static const wn_param params[] = {
    { "share", WN_PARAM_FLOAT, 1, 0, 1, 0,
      "1: the same share of every span; 0: the recipe's own choice; between: so far on the way" },
};

static void fair(const wn_view *v, const wn_params *p, int lane, const float *score, int64_t keep,
                 const bool *skip, bool *stays)
{
    wn_retain_fair(v, lane, p->window, p->v[0], score, keep, skip, stays);
}

const wn_stage wn_stage_retain_fair = {
    .kind = WN_STAGE_RETAIN,
    .name = "fair",
    .source = "Chen et al., \"The Pitfalls of KV Cache Compression\", 2025, fair eviction",
    .about = "Every span of the text (as named, else every message and paragraph) keeps the same "
             "share of its slots, its best. For prompts "
             "with several instructions, of which a recipe by itself may forget one.",
    .differs = "what the recipe's last queries see of themselves stays, as in the recipe; the "
               "paper's list of words to keep is "
               "what the caller protects",
    .params = params,
    .n_params = 1,
    .wants = WN_WANTS_SPANS,
    .retain = fair,
};
