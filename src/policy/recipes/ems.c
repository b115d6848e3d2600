/* policy/recipes/ems.c - evict, then merge: important slots, centres, and a class of zeros.
 *
 * Source     Li et al., "EMS: Adaptive Evict-then-Merge Strategy for Head-wise KV Cache Compression
 *            Based on Global-Local Importance", 2024, sections 3.2 and 3.3
 * When       at marks (the paper), or at boundaries
 * Observes   all queries, summed, and the last `window` ones; keys, values           Resume  record
 * Score      both sums over the group's heads, the first scaled to the mean of the second, added
 * Retains    4 first slots, the window, and the best; the `centres` share of these, the worst of
 *            them, are centres
 * Recovers   a slot that goes joins the centre with the largest cos(k) cos(v), a negative cosine
 *            taken for 0, where that is at least `zero`; else it is dropped (the zero class).
 *            Directions of keys are averaged by tokens and keep the centre's length; values are
 *            averaged; bias ln n
 * Differs    how many of a head's slots are centres is a share, not found from its sparsity;
 *            centres are the next best by score alone; the authors' code was not at hand
 */
#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

enum { WINDOW, CENTRES, ZERO, COMB };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 32, 1, 64, 0,
                 "last queries that are looked at, and always stay" },
    [CENTRES] = { "centres", WN_PARAM_FLOAT, 0.5, 0, 1, 0,
                  "share of what stays in front of the window" },
    [ZERO] = { "zero", WN_PARAM_FLOAT, 0.3, 0, 1, 0, "likeness below which a slot is dropped" },
    [COMB] = { "comb", WN_PARAM_WORD, 0, 0, 1, "sum|max",
               "of the attention of all queries and of the last ones" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

static double mean(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i];
    return n ? sum / n : 0;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int w;
    const float *all = wn_view_stat(v, lane, 0);
    wn_stage_reduce(out, wn_view_window(v, lane, &w), l->group, l->n, WN_REDUCE_MEAN);
    double most = mean(all, l->n), scale = most > 0 ? mean(out, l->n) / most : 0;
    for (int i = 0; i < l->n; i++) {
        float global = (float)(scale * (double)all[i]);
        out[i] = p->v[COMB] > 0 ? fmaxf(global, out[i]) : global + out[i];
    }
    wn_stage_keep_recent(v, lane, w, out);
}

/* to[i]: the slots that others may join. */
static bool find_centres(const wn_view *v, const wn_params *p, int lane, const bool *stays,
                         bool *to)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    float *x = wn_view_scratch(v, sizeof *x * (size_t)l->n);
    int n = 0, end = wn_stage_slot_at(l, wn_view_n_tokens(v) - (int)p->v[WINDOW]);
    if (!x) return false;
    score(v, p, lane, x);
    for (int i = 0; i < l->n; i++) {
        bool could = stays[i] && i < end && !wn_view_protects(v, l->pos[i]);
        n += could;
        x[i] = could ? -x[i] : -INFINITY;
    }
    wn_stage_best(v, x, l->n, (int64_t)ceil(p->v[CENTRES] * n), to);
    return true;
}

/* Of a merge each source counts with its tokens and, of its key, the direction; wk gets the
 * centre's length over that of the mean. norm: lengths of the keys. */
static bool weigh_directions(const wn_view *v, int lane, const int32_t *into, const float *tokens,
                             const float *norm, float *wk)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *k = wn_view_keys(v, lane);
    size_t dim = (size_t)l->k_dim;
    double *sum = wn_view_scratch(v, sizeof *sum * dim);
    int32_t *head, *next;
    if (!sum || !wn_stage_chain(v, into, l->n, &head, &next)) return false;
    for (int s = 0; s < l->n; s++) {
        double far = 0;
        if (head[s] < 0) continue;
        memset(sum, 0, sizeof *sum * dim);
        for (int32_t i = s; i >= 0; i = i == s ? head[s] : next[i]) {
            wk[i] = norm[i] > 0 ? tokens[i] / norm[i] : 0;
            for (size_t d = 0; d < dim; d++)
                sum[d] += (double)wk[i] * (double)k[(size_t)i * dim + d];
        }
        for (size_t d = 0; d < dim; d++) far += sum[d] * sum[d];
        double scale = far > 0 ? (double)norm[s] / sqrt(far) : 0;
        for (int32_t i = s; i >= 0; i = i == s ? head[s] : next[i])
            wk[i] = (float)(scale * (double)wk[i]);
    }
    return true;
}

static void recover(const wn_view *v, const wn_params *p, int lane, const bool *stays, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    size_t n = (size_t)l->n;
    int32_t *into = wn_view_scratch(v, sizeof *into * n);
    float *like = wn_view_scratch(v, 3 * sizeof *like * n), *wk = like ? like + n : NULL,
          *wv = like ? wk + n : NULL;
    bool *from = wn_view_scratch(v, 2 * n), *to = from ? from + n : NULL;
    if (!into || !like || !from || !find_centres(v, p, lane, stays, to)) return;
    for (int i = 0; i < l->n; i++) from[i] = !stays[i];
    wn_stage_nearest(v, lane, from, to, true, into, like);
    for (int i = 0; i < l->n; i++) {
        if (into[i] >= 0 && (double)like[i] < fmax(p->v[ZERO], 1e-30)) into[i] = -1;
        wv[i] = (float)wn_stage_count(l, i);
    }
    wn_stage_norms(like, wn_view_keys(v, lane), l->n, l->k_dim);
    if (!weigh_directions(v, lane, into, wv, like, wk)) return;
    wn_stage_shares(v, lane, into, wv);
    wn_stage_gather(v, lane, into, wk, wv, 1, out);
}

const wn_recipe wn_recipe_ems = {
    .name = "ems",
    .family = "merging",
    .source = "Li et al., \"EMS: Adaptive Evict-then-Merge Strategy for Head-wise KV Cache "
              "Compression Based on Global-Local "
              "Importance\", 2024, sections 3.2 and 3.3",
    .about = "Scores slots by what all queries and the last ones make of them; what goes joins a "
             "centre that is like "
             "it in key and value, or nothing. For questions at the end in long texts that repeat "
             "themselves.",
    .differs = "centres are a share of what stays; merged slots count for their tokens",
    .cost = "as h2o and snapkv together, and two cosines of each victim with each centre",
    .params = params,
    .n_params = 4,
    .budget = "20%",
    .first = 4,
    .reads = "keys, values",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .stats = wn_stage_ask_sums,
    .score = score,
    .recover = recover,
};
