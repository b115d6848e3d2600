/* policy/recipes/elastic.c - heavy hitters, and every other slot in the one nearest to it in the
 * text.
 *
 * Source     Liu et al., "Elastic Cache: Efficient Inference of Vision Language Models with Dynamic
 *            Cache Merging", 2024, section 3.2
 * When       at marks (the paper), or at boundaries
 * Observes   all queries, summed, mean over the heads of a layer           Resume  record
 * Retains    4 first slots, the last one, and those with the most attention (anchors)
 * Recovers   a slot that does not stay joins the anchor nearest in position (ties: the lower): the
 *            mean of keys and values over the tokens of both
 * Differs    protected slots take nothing in; a merged slot of c tokens gets the bias ln c
 *            (bias=none: as in the paper); later tokens are decided like the prompt, where the
 *            paper drops one at a fixed distance from the end for each new one
 */
#include "policy/stages/stages.h"

enum { BIAS };

static const wn_param params[] = {
    [BIAS] = { "bias", WN_PARAM_WORD, WN_BIAS_LOG, 0, 1, WN_BIAS_WORDS,
               "what a merged slot adds to its logit" },
};

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    (void)p;
    wn_stage_layer_mean(v, lane, wn_stage_sums, out);
    wn_stage_keep_recent(v, lane, 1, out);
}

static void recover(const wn_view *v, const wn_params *p, int lane, const bool *stays, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int32_t *into = wn_view_scratch(v, sizeof *into * (size_t)l->n),
            *after = wn_view_scratch(v, sizeof *after * (size_t)l->n);
    if (!into || !after) return;
    for (int i = l->n - 1, next = -1; i >= 0; i--) {
        after[i] = next;                        /* the anchor behind slot i */
        if (stays[i] && !wn_view_protects(v, l->pos[i])) next = i;
    }
    for (int i = 0, last = -1; i < l->n; i++) {
        bool nearer = after[i] >= 0 &&
                      (last < 0 || l->pos[after[i]] - l->pos[i] < l->pos[i] - l->pos[last]);
        into[i] = stays[i] ? -1 : nearer ? after[i] : last;
        if (stays[i] && !wn_view_protects(v, l->pos[i])) last = i;
    }
    wn_stage_by_tokens(v, lane, into, p->v[BIAS] > 0 ? 0 : 1, out);
}

const wn_recipe wn_recipe_elastic = {
    .name = "elastic",
    .family = "merging",
    .source = "Liu et al., \"Elastic Cache: Efficient Inference of Vision Language Models with "
              "Dynamic Cache Merging\", "
              "2024, section 3.2",
    .about = "Heavy hitters are anchors, and every other slot is averaged into the anchor nearest "
             "in the text. For "
             "short instructions about a picture; behind long texts with last= for recent tokens, "
             "of which it keeps "
             "one.",
    .differs = "protected slots take nothing in; merged slots count for their tokens; later tokens "
               "are decided alike",
    .cost = "the weights of every query added up, and a mean of rows per decision",
    .params = params,
    .n_params = 1,
    .budget = "20%",
    .first = 4,
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .stats = wn_stage_ask_sums,
    .score = score,
    .recover = recover,
};
