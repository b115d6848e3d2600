/* policy/stages/profiled.c - who gets how much, by what was measured of the model beforehand.
 *
 * +alloc:profile takes a table of weights per layer that `winnow profile --budgets` searched for
 * this recipe; +alloc:heads needs no search: lanes that lose much when they see only the first
 * and the last tokens get more of the slots. Neither looks at the text, so both cost nothing at
 * a decision and give every text the same split.
 */
#include "policy/policy.h"
#include "policy/stages/stages.h"

/* The budget over lanes in proportion to weight, none above what it has. */
static void split(const wn_view *v, const double *weight, int64_t *keep)
{
    int n = wn_view_n_lanes(v);
    int64_t *cap = wn_view_scratch(v, sizeof *cap * (size_t)n);
    if (!cap) return;
    for (int i = 0; i < n; i++) cap[i] = wn_view_get_lane(v, i)->n;
    wn_stage_split(wn_view_budget(v), weight, cap, n, keep);
}

/* ---- +alloc:profile --------------------------------------------------------------------- */

static void by_layer(const wn_view *v, const wn_params *p, const float *const *scores, int64_t *keep)
{
    int n = wn_view_n_lanes(v);
    double *weight = wn_view_scratch(v, sizeof *weight * (size_t)n);
    (void)p;
    (void)scores;
    if (!weight) return;
    for (int i = 0; i < n; i++) {
        const wn_view_lane *l = wn_view_get_lane(v, i);
        weight[i] = l->n > 0 ? wn_view_profile_weight(v, l->layer) : 0;
    }
    split(v, weight, keep);
}

const wn_stage wn_stage_alloc_profile = {
    .kind = WN_STAGE_ALLOC, .name = "profile",
    .source = "Yu and Chai, \"EvolKV: Evolutionary KV Cache Compression for LLM Inference\", 2025 (budgets per layer found by "
              "search)",
    .about = "Layers get the slots that winnow profile --budgets found for this recipe; heads of a layer the same.",
    .differs = "by the paper's evolution with --search evolve, else by steps; a table scales to other budgets",
    .profile = WN_PROFILE_BUDGETS, .allocate = by_layer,
};

/* ---- +alloc:heads ----------------------------------------------------------------------- */

enum { FLOOR, BY };
enum { BY_LOSS, BY_NEEDLE, BY_COPY, BY_INDUCTION };

static const wn_param heads_params[] = {
    [FLOOR] = { "floor", WN_PARAM_FLOAT, 0.2, 0, 1, 0, "share of the budget that is split evenly" },
    [BY] = { "by", WN_PARAM_WORD, BY_LOSS, 0, 3, "loss|needle|copy|induction", "the score that the rest is split by" },
};

static double score_of(const wn_head_scores *s, int by)
{
    return (double)(by == BY_NEEDLE ? s->needle : by == BY_COPY ? s->copy : by == BY_INDUCTION ? s->induction : s->loss);
}

/* A lane's weight is floor + (1 - floor) s / mean(s) over the lanes that have slots; scores that
 * are all 0 split evenly. */
static void by_head(const wn_view *v, const wn_params *p, const float *const *scores, int64_t *keep)
{
    int n = wn_view_n_lanes(v), live = 0, by = (int)p->v[BY];
    double *weight = wn_view_scratch(v, sizeof *weight * (size_t)n), sum = 0, even = p->v[FLOOR];
    (void)scores;
    if (!weight) return;
    for (int i = 0; i < n; i++) {
        if (!wn_view_get_lane(v, i)->n) continue;
        sum += score_of(wn_view_profile_lane(v, i), by);
        live++;
    }
    for (int i = 0; i < n; i++) {
        double s = sum > 0 ? score_of(wn_view_profile_lane(v, i), by) * live / sum : 1;
        weight[i] = wn_view_get_lane(v, i)->n ? even + (1 - even) * s + 1e-9 : 0;
    }
    split(v, weight, keep);
}

const wn_stage wn_stage_alloc_heads = {
    .kind = WN_STAGE_ALLOC, .name = "heads",
    .source = "Xiao et al., \"DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming Heads\", 2024 (what "
              "a head loses when it streams); Wu et al., \"Retrieval Head Mechanistically Explains Long-Context Factuality\", 2024",
    .about = "Heads that lose much when they see only the first and the last tokens get more slots, in proportion to their "
             "score in the profile.",
    .differs = "budgets in proportion to measured scores, where the papers keep some heads whole",
    .params = heads_params, .n_params = 2, .profile = WN_PROFILE_HEADS, .allocate = by_head,
};
