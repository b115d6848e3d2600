/* policy/stages/named.c - the stages that a policy can name: what allocate.c, entropy.c,
 * recover.c and compensate.c do, with tables of parameters as recipes have them. A recipe
 * that uses one of these by itself and another recipe with +kind:name give the same plans.
 */
#include "policy/stages/stages.h"

/* ---- +alloc:uniform ------------------------------------------------------------------- */

const wn_stage wn_stage_alloc_uniform = {
    .kind = WN_STAGE_ALLOC, .name = "uniform", .source = "-",
    .about = "Every head of every layer gets the same.",
};

/* ---- +alloc:ada ------------------------------------------------------------------------- */

static const wn_param ada_params[] = {
    { "floor", WN_PARAM_FLOAT, 0.2, 0, 1, 0, "share of the budget that is split evenly" },
};

static void ada(const wn_view *v, const wn_params *p, const float *const *scores, int64_t *keep)
{
    wn_alloc_ada(v, p->v[0], scores, keep);
}

const wn_stage wn_stage_alloc_ada = {
    .kind = WN_STAGE_ALLOC,
    .name = "ada",
    .source = "Feng et al., \"Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget "
              "Allocation\", 2024, algorithm 1",
    .about = "A layer's budget goes to its heads as the layer's best scores are spread over them.",
    .params = ada_params,
    .n_params = 1,
    .allocate = ada,
};

/* ---- +alloc:pyramid --------------------------------------------------------------------- */

static const wn_param pyramid_params[] = {
    { "beta", WN_PARAM_FLOAT, 20, 1, 1e6, 0, "mean over smallest budget of a layer" },
};

static void pyramid(const wn_view *v, const wn_params *p, const float *const *scores, int64_t *keep)
{
    (void)scores;
    wn_alloc_pyramid(v, p->v[0], p->window, 1, keep);
}

const wn_stage wn_stage_alloc_pyramid = {
    .kind = WN_STAGE_ALLOC,
    .name = "pyramid",
    .source = "Cai et al., \"PyramidKV: Dynamic KV Cache Compression based on Pyramidal "
              "Information Funneling\", "
              "2024, section 4.2",
    .about = "Beside the window of the last queries, slots fall linearly from the first layer to "
             "the last.",
    .params = pyramid_params,
    .n_params = 1,
    .allocate = pyramid,
};

/* ---- +alloc:density --------------------------------------------------------------------- */

static const wn_param density_params[] = {
    { "whole", WN_PARAM_INT, 0, 0, 1, 0,
      "keep layers 0, 1 and the last whole (inside the budget)" },
};

static void density(const wn_view *v, const wn_params *p, const float *const *scores, int64_t *keep)
{
    (void)scores;
    wn_alloc_density(v, p->v[0] > 0, keep);
}

const wn_stage wn_stage_alloc_density = {
    .kind = WN_STAGE_ALLOC,
    .name = "density",
    .source = "Wan et al., \"D2O: Dynamic Discriminative Operations for Efficient Long-Context "
              "Inference of Large "
              "Language Models\", 2024, section 3.2",
    .about = "Layers whose summed attention is flat get more slots than those where few tokens "
             "have most of it.",
    .params = density_params,
    .n_params = 1,
    .mass = true,
    .allocate = density,
};

/* ---- +alloc:entropy --------------------------------------------------------------------- */

static const wn_param entropy_params[] = {
    { "tau", WN_PARAM_FLOAT, 1, 0.05, 100, 0, "smaller: layers differ more" },
};

static void entropy(const wn_view *v, const wn_params *p, const float *const *scores, int64_t *keep)
{
    (void)scores;
    wn_alloc_entropy(v, p->v[0], p->window, keep);
}

const wn_stage wn_stage_alloc_entropy = {
    .kind = WN_STAGE_ALLOC,
    .name = "entropy",
    .source = "Qin et al., \"CAKE: Cascading and Adaptive KV Cache Eviction with Layer "
              "Preferences\", 2025, the "
              "preference of a layer",
    .about =
        "Layers whose last queries look at many tokens get more slots than those that look at few.",
    .differs = "entropy of the attention summed over the window; the variance over time is left "
               "out; all layers at once",
    .params = entropy_params,
    .n_params = 1,
    .window = true,
    .allocate = entropy,
};

/* ---- +retain:best ------------------------------------------------------------------------ */

const wn_stage wn_stage_retain_best = {
    .kind = WN_STAGE_RETAIN, .name = "best", .source = "-",
    .about = "The slots with the highest scores stay.",
};

/* ---- +recover:drop ---------------------------------------------------------------------- */

const wn_stage wn_stage_recover_drop = {
    .kind = WN_STAGE_RECOVER, .name = "drop", .source = "-",
    .about = "What does not stay is gone.",
};

/* ---- +recover:nearest ------------------------------------------------------------------- */

static const wn_param nearest_params[] = {
    { "bias", WN_PARAM_WORD, WN_BIAS_LOG, 0, 1, "log|none",
      "what a merged slot adds to its logit" },
};

static void nearest(const wn_view *v, const wn_params *p, int lane, const bool *stays, wn_plan *out)
{
    wn_recover_nearest(v, lane, stays, p->v[0] > 0 ? WN_BIAS_NONE : WN_BIAS_LOG, out);
}

const wn_stage wn_stage_recover_nearest = {
    .kind = WN_STAGE_RECOVER,
    .name = "nearest",
    .source = "Wan et al., \"D2O: Dynamic Discriminative Operations for Efficient Long-Context "
              "Inference of Large "
              "Language Models\", 2024, section 3.3",
    .about = "What does not stay is merged into the slot that stays with the most similar key, "
             "where the keys are "
             "at least as similar as those of all victims on the mean.",
    .differs = "one threshold per decision; merged slots count for their tokens",
    .params = nearest_params,
    .n_params = 1,
    .recover = nearest,
};

/* ---- +recover:compensate ---------------------------------------------------------------- */

static void compensate(const wn_view *v, const wn_params *p, int lane, const bool *stays,
                       wn_plan *out)
{
    (void)p;
    wn_recover_compensate(v, lane, stays, out);
}

const wn_stage wn_stage_recover_compensate = {
    .kind = WN_STAGE_RECOVER,
    .name = "compensate",
    .source = "Tang et al., \"RazorAttention: Efficient KV Cache Compression Through Retrieval "
              "Heads\", 2024, the "
              "compensation token",
    .about = "One slot of each lane's budget holds the mean of all that was dropped there, and "
             "counts for as many tokens.",
    .differs = "on every lane, not on those of non-retrieval heads only",
    .slots = 1,
    .recover = compensate,
};

/* ---- +recover:demote -------------------------------------------------------------------- */

static const wn_param demote_params[] = {
    { "k", WN_PARAM_FORMAT, 0, 0, 0, "q4", "format of their keys: one with parameters per slot" },
    { "v", WN_PARAM_FORMAT, 0, 0, 0, "kivi2", "format of their values" },
    { "share", WN_PARAM_FLOAT, 1, 0, 1, NULL,
      "at most so much of the text is kept like this; the rest is dropped, worst first" },
};

const wn_stage wn_stage_recover_demote = {
    .kind = WN_STAGE_RECOVER,
    .name = "demote",
    .source = "Yang et al., \"No Token Left Behind: Reliable KV Cache Compression via "
              "Importance-Aware Mixed Precision "
              "Quantization\", 2024",
    .about = "What does not stay as it is is kept in fewer bits: the budget (a share, or slots) "
             "says how much stays as it "
             "is; one in bytes counts both.",
    .differs = "no channel balancer; demotion is one-way, and by any recipe's scores; a recipe's "
               "own lag keeps recent pages raw",
    .params = demote_params,
    .n_params = 3,
    .demotes = true,
};
