/* policy/recipes/corm.c - what no recent query looked at, goes; there is no budget.
 *
 * Source     Dai et al., "CORM: Cache Optimization with Recent Message for Large Language Model
 *            Inference", 2024, section 4
 * When       every 64 tokens  Observes  all queries: the last that gave an even share  Resume  record
 * Retains    slots that one of the last `window` queries gave at least 1 / slots it saw, and the
 *            last `recent` ones
 * Differs    decides every 64 tokens, not at each step. A query head of a group is enough. With @
 *            the lanes come down to that in proportion, the longest unseen first
 */
#include "policy/stages/stages.h"

enum { WINDOW, RECENT };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 256, 1, 1 << 20, 0, "last queries that have a say" },
    [RECENT] = { "recent", WN_PARAM_INT, 256, 0, 1 << 20, 0, "last slots, which always stay" },
};

static int stats(const wn_params *p, wn_stat *out)
{
    (void)p;
    out[0] = (wn_stat){ .kind = WN_STAT_LAST, .reduce = WN_REDUCE_MAX, .threshold = 1,
                        .even = true };
    return 1;
}

/* 0 and more: looked at by one of the last queries. */
static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *last = wn_view_stat(v, lane, 0);
    for (int i = 0; i < l->n; i++) out[i] = last[i] - (float)(wn_view_n_tokens(v) - p->v[WINDOW]);
    wn_stage_keep_recent(v, lane, (int64_t)p->v[RECENT], out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)p;
    wn_alloc_above(v, 0, scores, keep);
}

const wn_recipe wn_recipe_corm = {
    .name = "corm",
    .family = "attention",
    .source = "Dai et al., \"CORM: Cache Optimization with Recent Message for Large Language Model "
              "Inference\", 2024, "
              "section 4",
    .about = "Keeps what any of the last queries gave at least an even share. As many slots as "
             "that takes, head by "
             "head: when losses matter more than a size that is known before.",
    .differs = "decides every 64 tokens; @ is a ceiling",
    .cost = "the weights of every query compared with an even share, in prompts and in steps",
    .params = params,
    .n_params = 2,
    .kind = WN_CLASS_BUDGET_FREE,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .stats = stats,
    .score = score,
    .allocate = allocate,
};
