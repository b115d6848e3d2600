/* policy/recipes/scissorhands.c - what was seldom important, goes.
 *
 * Source     Liu et al., "Scissorhands: Exploiting the Persistence of Importance Hypothesis for
 *            LLM KV Cache Compression at Test Time", 2023, algorithm 2
 * When       every 64 tokens  Observes  all queries: how often below an even share   Resume  record
 * Score      minus the number of queries that gave a slot less than 1 / slots they saw;
 *            queries fade with 1 - 1/history; of equals the later stays
 * Allocates  later layers more, where importance lasts less: `late` times as much in the last
 * Retains    the last `recent` slots, and the best
 * Differs    counts fade instead of ending after `history` queries; decides every 64 tokens,
 *            where the paper waits until the cache is full and drops half of it
 */
#include "policy/stages/stages.h"

#include <math.h>

enum { HISTORY, RECENT, LATE };

static const wn_param params[] = {
    [HISTORY] = { "history", WN_PARAM_INT, 400, 1, 1 << 20, 0, "queries that are remembered" },
    [RECENT] = { "recent", WN_PARAM_INT, 10, 0, 1 << 20, 0, "last slots, which always stay" },
    [LATE] = { "late", WN_PARAM_FLOAT, 1, 0.01, 100, 0,
               "slots of the last layer over those of the first" },
};

static double fade(const wn_params *p) { return 1 - 1 / p->v[HISTORY]; }

static int stats(const wn_params *p, wn_stat *out)
{
    /* fade 0 (history=1) would be read as "all of it is left" */
    out[0] = (wn_stat){ .kind = WN_STAT_HITS, .decay = (float)fmax(fade(p), 1e-30), .threshold = 1,
                        .even = true };
    return 1;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *hits = wn_view_stat(v, lane, 0);
    double d = fade(p), n = wn_view_n_tokens(v);
    for (int i = 0; i < l->n; i++) {
        double seen = (1 - pow(d, n - l->pos[i])) / (1 - d);  /* queries, faded like the hits */
        out[i] = (float)((double)hits[i] - seen + 1e-3 * l->pos[i] / n);
    }
    wn_stage_keep_recent(v, lane, (int64_t)p->v[RECENT], out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)scores;
    wn_alloc_slope(v, p->v[LATE], keep);
}

const wn_recipe wn_recipe_scissorhands = {
    .name = "scissorhands",
    .family = "attention",
    .source = "Liu et al., \"Scissorhands: Exploiting the Persistence of Importance Hypothesis for "
              "LLM KV Cache "
              "Compression at Test Time\", 2023, algorithm 2",
    .about = "Drops what most of the last queries gave less than an even share: what was pivotal "
             "stays pivotal. As "
             "h2o, counting queries in place of weights, so that a few sharp ones do not decide.",
    .differs = "counts fade instead of ending; decides every 64 tokens",
    .cost = "the weights of every query compared with an even share, in prompts and in steps",
    .params = params,
    .n_params = 3,
    .budget = "20%",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .stats = stats,
    .score = score,
    .allocate = allocate,
};
