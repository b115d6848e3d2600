/* policy/recipes/laq.c - the queries of the next few tokens vote before they are written.
 *
 * Source     Wang et al., "Lookahead Q-Cache: Achieving More Consistent KV Cache Eviction via
 *            Pseudo Query", 2025, section 4
 * When       at marks
 * Probe      the next `ahead` tokens, always the likeliest; they are thrown away     Resume  window
 * Observes   the probe's queries, and the last `window` ones of the text (window=0: LAQ, else
 *            LAQ++)
 * Score      attention summed over both, mean over the group, the largest of `kernel` neighbours
 * Retains    the window, and the best
 * Differs    the tokens are foreseen with the full cache, not with one that SnapKV has compressed:
 *            they cost more and are the ones to come; weights are shares of what a query sees, its
 *            own tokens included; every probe query sees all of the text (the released code masks
 *            its end)
 */
#include "policy/stages/stages.h"

enum { AHEAD, WINDOW, KERNEL };

static const wn_param params[] = {
    [AHEAD] = { "ahead", WN_PARAM_INT, 8, 1, 64, 0, "tokens that are foreseen" },
    [WINDOW] = { "window", WN_PARAM_INT, 8, 0, 64, 0,
                 "last queries of the text that vote too, and always stay" },
    [KERNEL] = { "kernel", WN_PARAM_INT, 7, 1, 63, 0, "slots over which votes are pooled (odd)" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

static void probe(const wn_params *p, wn_probe *out)
{
    *out = (wn_probe){ .kind = WN_PROBE_AHEAD, .n = (int)p->v[AHEAD] };
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *votes = wn_view_stat(v, lane, 0);
    float *tmp = wn_view_scratch(v, sizeof *tmp * (size_t)l->n);
    int w = 0;
    if (!tmp) return;
    for (int i = 0; i < l->n; i++) out[i] = 0;
    if (p->v[WINDOW] > 0)
        wn_stage_reduce(out, wn_view_window(v, lane, &w), l->group, l->n, WN_REDUCE_MEAN);
    for (int i = 0; i < l->n; i++) out[i] += votes[i];
    wn_stage_pool(out, wn_stage_slot_at(l, wn_view_n_tokens(v) - w), (int)p->v[KERNEL], WN_POOL_MAX,
                  tmp);
    wn_stage_keep_recent(v, lane, w, out);
}

const wn_recipe wn_recipe_laq = {
    .name = "laq",
    .family = "probe",
    .source = "Wang et al., \"Lookahead Q-Cache: Achieving More Consistent KV Cache Eviction via "
              "Pseudo Query\", 2025, "
              "section 4",
    .about = "Writes the next eight tokens on a fork and keeps what they looked at: SnapKV with "
             "the queries that "
             "matter. For questions at the end when the first words of the answer tell more than "
             "the question.",
    .differs = "the tokens are foreseen with the full cache",
    .cost = "eight steps before each decision, and attention of the last queries",
    .params = params,
    .n_params = 3,
    .budget = "2048",
    .kind = WN_CLASS_PROBE,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .probe = probe,
    .stats = wn_stage_ask_sums,
    .score = score,
};
