/* policy/recipes/lookm.c - heavy hitters behind what the caller names, and the others in those like
 * them.
 *
 * Source     Wan et al., "LOOK-M: Look-Once Optimization in KV Cache for Efficient Multimodal
 *            Long-Context Inference", 2024, sections 3.2 and 3.3
 * When       at marks (the paper), or at boundaries
 * Observes   all queries, summed       Resume  record
 * Retains    what is protected (the text, where the caller names it: ranges, the system prompt),
 *            the last `recent` share of the budget, and of the others those with the most attention
 * Recovers   every slot that does not stay joins the one that stays with the most similar key:
 *            pivot     the mean of the survivor and of the midpoints between it and each victim
 *            average   the mean of all weighted  the mean of all, each victim scaled by its cosine;
 *            only victims with at least
 *                      the mean cosine
 * Differs    there are no images here: the text is what the caller protects, and takes nothing in;
 *            the weights of weighted sum to 1; a slot of c tokens gets the bias ln c (bias=none: as
 *            in the paper)
 */
#include "policy/stages/stages.h"

#include <math.h>

enum { RECENT, MERGE, BIAS };
enum { PIVOT, AVERAGE, WEIGHTED };

static const wn_param params[] = {
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.5, 0, 1, 0, "share of the budget for the last slots" },
    [MERGE] = { "merge", WN_PARAM_WORD, PIVOT, 0, 2, "pivot|average|weighted",
                "how a slot and its victims are combined" },
    [BIAS] = { "bias", WN_PARAM_WORD, WN_BIAS_LOG, 0, 1, WN_BIAS_WORDS,
               "what a merged slot adds to its logit" },
};

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    wn_stage_hitters(v, lane, (int64_t)(p->v[RECENT] * (double)p->lane_slots), out);
}

static void recover(const wn_view *v, const wn_params *p, int lane, const bool *stays, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int32_t *into = wn_view_scratch(v, sizeof *into * (size_t)l->n);
    float *w = wn_view_scratch(v, sizeof *w * (size_t)l->n);
    int how = (int)p->v[MERGE], victims = 0;
    double bar = 0;
    if (!into || !w || !wn_recover_find(v, lane, stays, into, w)) return;
    for (int i = 0; i < l->n; i++)
        if (into[i] >= 0) bar += (double)w[i], victims++;
    for (int i = 0; i < l->n && how == WEIGHTED; i++)
        if (into[i] >= 0 && (!(w[i] > 0) || (double)w[i] < bar / victims - 1e-6)) into[i] = -1;
    for (int i = 0; i < l->n; i++) {
        float c = (float)wn_stage_count(l, i);
        w[i] = into[i] < 0 ? c : how == WEIGHTED ? c * w[i] : how == PIVOT ? c / 2 : c;
    }
    for (int i = 0; i < l->n && how == PIVOT; i++)      /* the other half of each midpoint */
        if (into[i] >= 0) w[into[i]] += (float)wn_stage_count(l, i) / 2;
    wn_stage_shares(v, lane, into, w);
    wn_stage_gather(v, lane, into, w, w, p->v[BIAS] > 0 ? 0 : 1, out);
}

const wn_recipe wn_recipe_lookm = {
    .name = "lookm",
    .family = "merging",
    .source = "Wan et al., \"LOOK-M: Look-Once Optimization in KV Cache for Efficient Multimodal "
              "Long-Context Inference\", "
              "2024, sections 3.2 and 3.3",
    .about = "What the caller names stays, behind it heavy hitters and recent tokens, and all that "
             "goes is merged "
             "into what is like it. For prompts with a part that must stay whole (--protect), as "
             "text beside images.",
    .differs = "there are no images: the text is what the caller protects; merged slots count for "
               "their tokens",
    .cost = "as h2o, and a cosine of each victim with each survivor",
    .params = params,
    .n_params = 3,
    .budget = "20%",
    .reads = "keys",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .stats = wn_stage_ask_sums,
    .score = score,
    .recover = recover,
};
