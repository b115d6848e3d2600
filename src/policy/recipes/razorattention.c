/* policy/recipes/razorattention.c - heads that repeat keep everything, the others one slot for what
 * they forget.
 *
 * Source     Tang et al., "RazorAttention: Efficient KV Cache Compression Through Retrieval Heads",
 *            2024, section 3
 * When       every 64 tokens           Observes  nothing (the model's profile)        Resume  any
 * Budget     @ is the share of lanes that keep everything: those with the highest induction score,
 *            and `echo` of all lanes with the highest echo score
 * Retains    of the others `first` sinks and the last `recent` slots, or a fifth of the text where
 *            that is more
 * Recovers   one compensation slot per lane: the mean of what is gone, counted as so many tokens
 * Differs    scores are attention as the model computes it, with its positions; without them in
 *            released code. The window is 256 as in released configurations (the paper's 4000 suits
 *            contexts beyond 20000)
 */
#include "policy/stages/stages.h"

#include <math.h>

enum { RECENT, PART, ECHO };

static const wn_param params[] = {
    [RECENT] = { "recent", WN_PARAM_INT, 256, 1, 1 << 30, 0,
                 "last slots of a lane that forgets, at least" },
    [PART] = { "part", WN_PARAM_FLOAT, 0, 0, 1, 0, "and this share of the text (the paper: 0.2)" },
    [ECHO] = { "echo", WN_PARAM_FLOAT, 0.01, 0, 1, 0,
               "share of lanes that stay whole for their echo score" },
};

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    (void)p;
    wn_stage_keep_recent(v, lane, wn_view_n_tokens(v), out);
}

/* Echo heads go before all others: a score is a share, so that 1 lifts them above. */
static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    int n = wn_view_n_lanes(v);
    float *by = wn_view_scratch(v, sizeof *by * (size_t)n),
          *echo = wn_view_scratch(v, sizeof *echo * (size_t)n);
    bool *best = wn_view_scratch(v, sizeof *best * (size_t)n);
    (void)scores;
    if (!by || !echo || !best) return;
    for (int i = 0; i < n; i++) echo[i] = wn_view_profile_lane(v, i)->echo;
    wn_stage_best(v, echo, n, (int64_t)(p->v[ECHO] * n), best);
    for (int i = 0; i < n; i++) by[i] = wn_view_profile_lane(v, i)->induction + (best[i] ? 1 : 0);
    wn_alloc_whole_lanes(v, by, p, keep);
    /* for the slot */
    for (int i = 0; i < n; i++) keep[i] -= keep[i] > 0 && keep[i] < wn_view_get_lane(v, i)->n;
}

static void recover(const wn_view *v, const wn_params *p, int lane, const bool *stays, wn_plan *out)
{
    (void)p;
    wn_recover_compensate(v, lane, stays, out);
}

static int64_t cap(const wn_params *p, int64_t n_tokens)
{
    /* the slot for what is gone */
    return (int64_t)fmax(p->v[RECENT], p->v[PART] * (double)n_tokens) + 1;
}

const wn_recipe wn_recipe_razorattention = {
    .name = "razorattention",
    .family = "heads",
    .source = "Tang et al., \"RazorAttention: Efficient KV Cache Compression Through Retrieval "
              "Heads\", 2024, section 3",
    .about = "Heads that find repetitions keep everything; the others the first and last tokens, "
             "and one slot that "
             "stands for all they forgot. As duoattention, with better prose for its one slot "
             "more. Needs winnow "
             "profile.",
    .differs = "heads are measured with their positions",
    .cost = "O(slots x dim) per decision for lanes that forget",
    .params = params,
    .n_params = 3,
    .budget = "15%",
    .first = 4,
    .reads = "keys, values",
    .kind = WN_CLASS_HEAD_SHARE,
    .resume = WN_RESUME_ANY,
    .profile = WN_PROFILE_HEADS,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .score = score,
    .allocate = allocate,
    .recover = recover,
    .cap = cap,
};
