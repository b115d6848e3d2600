/* policy/stages/profiled.c - who gets how much, by what was measured of the model beforehand.
 *
 * +alloc:profile takes a table of weights per layer that `winnow profile --budgets` searched for
 * this recipe; +alloc:heads and +alloc:sensitive need no search: lanes, or layers, that lose much
 * when they see only the first and the last tokens get more of the slots. None looks at the text,
 * so they cost nothing at a decision and give every text the same split.
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

static void by_layer(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
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
    .kind = WN_STAGE_ALLOC,
    .name = "profile",
    .source = "Yu and Chai, \"EvolKV: Evolutionary KV Cache Compression for LLM Inference\", 2025 "
              "(budgets per layer found by "
              "search)",
    .about = "Layers get the slots that winnow profile --budgets found for this recipe; heads of a "
             "layer the same.",
    .differs = "by the paper's evolution with --search evolve, else by steps; a table scales to "
               "other budgets",
    .profile = WN_PROFILE_BUDGETS,
    .allocate = by_layer,
};

/* ---- +alloc:heads ----------------------------------------------------------------------- */

enum { FLOOR, BY };
enum { BY_LOSS, BY_NEEDLE, BY_COPY, BY_INDUCTION };

static const wn_param heads_params[] = {
    [FLOOR] = { "floor", WN_PARAM_FLOAT, 0.2, 0, 1, 0, "share of the budget that is split evenly" },
    [BY] = { "by", WN_PARAM_WORD, BY_LOSS, 0, 3, "loss|needle|copy|induction",
             "the score that the rest is split by" },
};

static double score_of(const wn_head_scores *s, int by)
{
    return (double)(by == BY_NEEDLE      ? s->needle
                    : by == BY_COPY      ? s->copy
                    : by == BY_INDUCTION ? s->induction
                                         : s->loss);
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
    .kind = WN_STAGE_ALLOC,
    .name = "heads",
    .source = "Xiao et al., \"DuoAttention: Efficient Long-Context LLM Inference with Retrieval "
              "and Streaming Heads\", 2024 (what "
              "a head loses when it streams); Wu et al., \"Retrieval Head Mechanistically Explains "
              "Long-Context Factuality\", 2024",
    .about = "Heads that lose much when they see only the first and the last tokens get more "
             "slots, in proportion to their "
             "score in the profile.",
    .differs = "budgets in proportion to measured scores, where the papers keep some heads whole",
    .params = heads_params,
    .n_params = 2,
    .profile = WN_PROFILE_HEADS,
    .allocate = by_head,
};

/* ---- +alloc:sensitive ------------------------------------------------------------------- */

enum { POWER, LEAST };

static const wn_param sensitive_params[] = {
    [POWER] = { "power", WN_PARAM_FLOAT, 1, 0, 16, 0, "how far layers are told apart" },
    [LEAST] = { "least", WN_PARAM_FLOAT, 0.25, 0, 1, 0,
                "of the mean, what every layer gets, before all are scaled to the budget" },
};

static void by_loss(const wn_view *v, const wn_params *p, const float *const *scores, int64_t *keep)
{
    double *alike = wn_view_scratch(v, sizeof *alike * (size_t)wn_view_n_layers(v));
    (void)scores;
    if (!alike) return;
    for (int l = 0; l < wn_view_n_layers(v); l++) alike[l] = 1 - wn_view_profile_loss(v, l);
    wn_alloc_sensitive(v, alike, p->v[POWER], p->v[LEAST], keep);
}

const wn_stage wn_stage_alloc_sensitive = {
    .kind = WN_STAGE_ALLOC,
    .name = "sensitive",
    .source = "Kim et al., \"EpiCache: Episodic KV Cache Management for Long Conversational "
              "Question Answering\", 2025, "
              "section 3.3 (budgets of layers)",
    .about = "Layers whose answers change much when they see only the first and the last tokens "
             "get more slots.",
    .differs = "the profile's layer_loss says how much a layer's answers change; the paper "
               "measures how little its keys do "
               "when blocks see only themselves. Floors are scaled with the rest, so that the "
               "budget is kept",
    .params = sensitive_params,
    .n_params = 2,
    .profile = WN_PROFILE_HEADS,
    .allocate = by_loss,
};
