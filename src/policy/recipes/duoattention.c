/* policy/recipes/duoattention.c - heads that fetch keep everything, the others stream.
 *
 * Source     Xiao et al., "DuoAttention: Efficient Long-Context LLM Inference with Retrieval and
 *            Streaming Heads", 2024, section 2
 * When       every 64 tokens           Observes  nothing (the model's profile)        Resume  any
 * Budget     @ is the share of lanes that keep everything: those that lose most when they stream
 * Retains    of the others `first` sinks and the last `recent` slots
 * Differs    heads are told apart by what their layer's answers lose at needles when they stream
 *            (winnow profile), where the paper trains a gate for each; whole lanes go by loss over
 *            all layers
 */
#include "policy/stages/stages.h"

enum { RECENT };

static const wn_param params[] = {
    [RECENT] = { "recent", WN_PARAM_INT, 256, 1, 1 << 30, 0, "last slots of a lane that streams" },
};

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    (void)p;
    wn_stage_keep_recent(v, lane, wn_view_n_tokens(v), out);
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    int n = wn_view_n_lanes(v);
    float *loss = wn_view_scratch(v, sizeof *loss * (size_t)n);
    (void)scores;
    if (!loss) return;
    for (int i = 0; i < n; i++) loss[i] = wn_view_profile_lane(v, i)->loss;
    wn_alloc_whole_lanes(v, loss, p, keep);
}

static int64_t cap(const wn_params *p, int64_t n_tokens)
{
    (void)n_tokens;
    return (int64_t)p->v[RECENT];
}

const wn_recipe wn_recipe_duoattention = {
    .name = "duoattention",
    .family = "heads",
    .source = "Xiao et al., \"DuoAttention: Efficient Long-Context LLM Inference with Retrieval "
              "and Streaming Heads\", 2024, "
              "section 2",
    .about = "Heads that fetch from afar keep everything, the others the first and the last "
             "tokens. For questions "
             "that are not known yet, as far as the heads that fetch fit into memory. Needs winnow "
             "profile.",
    .differs = "heads are told apart by a measured loss, not by trained gates",
    .cost = "O(slots) per decision",
    .params = params,
    .n_params = 1,
    .budget = "50%",
    .first = 64,
    .kind = WN_CLASS_HEAD_SHARE,
    .resume = WN_RESUME_ANY,
    .profile = WN_PROFILE_HEADS,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .score = score,
    .allocate = allocate,
    .cap = cap,
};
