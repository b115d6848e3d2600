/* policy/recipes/kvcompose.c - heads choose for themselves, but all of a layer keep as many.
 *
 * Source     Akulov et al., "KVCompose: Efficient Structured KV Cache Compression with Composite
 *            Tokens", 2025, section 3
 * When       at marks
 * Probe      the text once more (chunk: that many tokens at a time)          Resume  any
 * Score      the largest weight that a repeating query gives a slot, mean over the group; to that
 *            is added the mean of it over the heads of the layer
 * Allocates  the r-th best slots of a layer's heads are one composite slot, worth the mean of their
 *            scores; the best composite slots of all layers stay, so the heads of a layer keep the
 *            same number
 * Retains    the best of each lane
 * Differs    the mean over the group is taken for each query, before the largest (the paper: after
 *            it); a head that lost a slot at an earlier mark counts as 0 in the layer's mean
 */
#include "policy/stages/stages.h"

enum { CHUNK, LEAST, WIDEST };

static const wn_param params[] = {
    [CHUNK] = { "chunk", WN_PARAM_INT, 0, 0, 1 << 20, 0,
                "tokens that are repeated at a time; 0: all" },
    [LEAST] = { "least", WN_PARAM_INT, 1, 0, 1 << 20, 0,
                "slots that every lane keeps, as far as the budget goes" },
    [WIDEST] = { "widest", WN_PARAM_WORD, 0, 0, 1, "any|first",
                 "the layer with the most slots: whichever, or the first one (the released code)" },
};

static void probe(const wn_params *p, wn_probe *out)
{
    *out = (wn_probe){ .kind = WN_PROBE_REPEAT, .chunk = (int)p->v[CHUNK] };
}

static int stats(const wn_params *p, wn_stat *out)
{
    (void)p;
    out[0] = (wn_stat){ .kind = WN_STAT_MAX, .reduce = WN_REDUCE_MEAN };
    return 1;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int from, to;
    (void)p;
    wn_stage_sums(v, lane, out);
    wn_view_layer(v, l->layer, &from, &to);
    for (int k = from; k < to; k++) {
        const wn_view_lane *other = wn_view_get_lane(v, k);
        const float *x = wn_view_stat(v, k, 0);
        for (int i = 0, j = 0; i < l->n; i++) {
            while (j < other->n && other->pos[j] < l->pos[i]) j++;
            if (j < other->n && other->pos[j] == l->pos[i]) out[i] += x[j] / (float)(to - from);
        }
    }
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    wn_alloc_ranks(v, (int64_t)p->v[LEAST], p->v[WIDEST] > 0, scores, keep);
}

const wn_recipe wn_recipe_kvcompose = {
    .name = "kvcompose",
    .family = "probe",
    .source = "Akulov et al., \"KVCompose: Efficient Structured KV Cache Compression with "
              "Composite Tokens\", 2025, section 3",
    .about = "Repeats the text on a fork, as kvzip does; each head keeps what its repetition "
             "looked at, layers compete, and the "
             "heads of a layer keep equally many. Knows nothing of the question: for texts that "
             "many questions are asked about, "
             "and where lanes of a layer should stay equally long.",
    .differs = "the mean over the group comes before the largest query, not after it",
    .cost = "a second pass over the text before each decision, and room for it beside it",
    .params = params,
    .n_params = 3,
    .budget = "30%",
    .ranks = true,
    .kind = WN_CLASS_PROBE,
    .resume = WN_RESUME_ANY,
    .at = WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .probe = probe,
    .stats = stats,
    .score = score,
    .allocate = allocate,
};
