/* policy/recipes/zeromerge.c - a few residual slots take in all that leaves the context.
 *
 * Source     Liu et al., "ZeroMerge: Parameter-Free KV Cache Compression for Memory-Efficient
 *            Long-Context LLMs", 2025, section 3
 * When       every 64 tokens  Observes  all queries, summed, what was is `decay` of itself at the
 *            next  Resume  record
 * Retains    4 first slots, the last `recent` share of the budget, `slots` residual slots, and of
 *            the others those with the most attention
 * Recovers   at first the slots that leave are cut into `slots` runs, each the mean of its tokens;
 *            later ones join the residual slot whose key has the largest product with theirs, by
 *            tokens. A slot of n tokens gets the bias scale ln n
 * Differs    decides every 64 tokens, not at each step: those of one decision are compared with the
 *            residual slots as they stood; a group's heads are averaged; the first slots are
 *            protected
 */
#include "policy/stages/stages.h"

#include "base/err.h"

#include <float.h>
#include <math.h>

enum { RECENT, SLOTS, SCALE, DECAY };

static const wn_param params[] = {
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.4, 0, 1, 0, "share of the budget for the last slots" },
    [SLOTS] = { "slots", WN_PARAM_INT, 1, 1, 64, 0, "residual slots" },
    [SCALE] = { "scale", WN_PARAM_FLOAT, 0.6, 0, 1, 0, "of the logarithm of a slot's tokens" },
    [DECAY] = { "decay", WN_PARAM_FLOAT, 0.98, 0.01, 1, 0,
                "what is left of a slot's attention at the next query" },
};

static int stats(const wn_params *p, wn_stat *out)
{
    out[0] = (wn_stat){ .kind = WN_STAT_SUM, .decay = (float)p->v[DECAY] };
    return 1;
}

/* Residual slots behind the last ones of the text, before everything else. */
static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *mass = wn_view_stat(v, lane, 0);
    for (int i = 0; i < l->n; i++) out[i] = wn_stage_count(l, i) > 1 ? 1e30f : mass[i];
    wn_stage_keep_recent(v, lane, (int64_t)(p->v[RECENT] * (double)p->lane_slots), out);
}

/* `slots` of those that stay are given up for residual slots: the worst. False: there are none. */
static bool found_residue(const wn_view *v, const wn_params *p, int lane, const bool *stays,
                          int32_t *into)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    float *x = wn_view_scratch(v, sizeof *x * (size_t)l->n);
    bool *gone = wn_view_scratch(v, (size_t)l->n);
    int n = 0, m = 0, at = 0, slots = 0;
    if (!x || !gone) return false;
    score(v, p, lane, x);
    for (int i = 0; i < l->n; i++) {
        bool could = stays[i] && !wn_view_protects(v, l->pos[i]);
        slots += could;
        x[i] = could ? fmaxf(-x[i], -FLT_MAX) : -INFINITY;
    }
    slots = WN_MIN(slots, (int)p->v[SLOTS]);
    wn_stage_best(v, x, l->n, slots, gone);
    for (int i = 0; i < l->n; i++) n += gone[i] = (gone[i] && slots) || !stays[i];
    for (int i = l->n - 1; i >= 0 && slots; i--) {
        into[i] = -1;
        if (!gone[i]) continue;
        int run = (int)((int64_t)m++ * slots / n);      /* from the end: the last of each run is
                                                           joined */
        if (m == 1 || run != (int)((int64_t)(m - 2) * slots / n)) at = i;
        else into[i] = at;
    }
    return slots > 0;
}

static void join_residue(const wn_view *v, int lane, const bool *stays, int32_t *into)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *k = wn_view_keys(v, lane);
    size_t dim = (size_t)l->k_dim;
    for (int i = 0; i < l->n; i++) {
        double most = -INFINITY;
        into[i] = -1;
        for (int s = 0; s < l->n && !stays[i]; s++) {
            double x = 0;
            if (!stays[s] || wn_stage_count(l, s) == 1 || wn_view_protects(v, l->pos[s])) continue;
            for (size_t d = 0; d < dim; d++)
                x += (double)k[(size_t)i * dim + d] * (double)k[(size_t)s * dim + d];
            if (x > most) most = x, into[i] = s;
        }
    }
}

static void recover(const wn_view *v, const wn_params *p, int lane, const bool *stays, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int32_t *into = wn_view_scratch(v, sizeof *into * (size_t)l->n);
    int residue = 0;
    if (!into) return;
    for (int i = 0; i < l->n; i++)
        residue += stays[i] && wn_stage_count(l, i) > 1 && !wn_view_protects(v, l->pos[i]);
    if (residue) join_residue(v, lane, stays, into);
    else if (!found_residue(v, p, lane, stays, into)) return;
    wn_stage_by_tokens(v, lane, into, p->v[SCALE], out);
}

const wn_recipe wn_recipe_zeromerge = {
    .name = "zeromerge",
    .family = "merging",
    .source = "Liu et al., \"ZeroMerge: Parameter-Free KV Cache Compression for Memory-Efficient "
              "Long-Context LLMs\", "
              "2025, section 3",
    .about = "What was attended to lately, the recent tokens, and a residual slot that takes in "
             "all that goes and "
             "counts for its tokens. For long answers in constant memory, as h2o, with the tail of "
             "the attention "
             "kept.",
    .differs = "decides every 64 tokens; the first slots are protected",
    .cost =
        "the weights of every query added up, and a product of each victim with each residual slot",
    .params = params,
    .n_params = 4,
    .budget = "20%",
    .first = 4,
    .reads = "keys",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .stats = stats,
    .score = score,
    .recover = recover,
};
