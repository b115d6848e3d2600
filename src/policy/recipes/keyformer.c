/* policy/recipes/keyformer.c - attention with noise and a temperature, so that few winners do not
 * take all.
 *
 * Source     Adnan et al., "Keyformer: KV Cache Reduction through Key Tokens Selection for
 *            Efficient Generative Inference", 2024, equations 8 and 9
 * When       every 64 tokens          Observes  the last `window` queries; keys      Resume  window
 * Score      sum over those queries of softmax((logit + Gumbel noise of the slot) / tau), mean over
 *            the group
 * Retains    the last `recent` share of the budget, and the best of the others
 * Differs    the last 64 queries instead of all; tau is what is given, where the paper raises it
 *            from 1 to 2 over an answer of known length; noise belongs to (seed, layer, head,
 *            position)
 */
#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

enum { WINDOW, RECENT, TAU, NOISE, SEED };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 64, 1, 64, 0, "last queries that are looked at" },
    [RECENT] = { "recent", WN_PARAM_FLOAT, 0.3, 0, 1, 0, "share of the budget for the last slots" },
    [TAU] = { "tau", WN_PARAM_FLOAT, 1, 0.01, 100, 0, "temperature" },
    [NOISE] = { "noise", WN_PARAM_FLOAT, 1, 0, 100, 0, "scale of the Gumbel noise; 0: none" },
    [SEED] = { "seed", WN_PARAM_INT, 1, 0, 4294967295.0, 0, "another draw" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

typedef struct { float *sum; int group; } tally;

static void add(void *ctx, const wn_tile *t)
{
    const tally *y = ctx;
    for (int q = 0; q < t->w; q++)
        for (int i = 0; i < t->n; i++)
            y->sum[t->from + i] += t->a[(size_t)q * t->stride + (size_t)i] / (float)y->group;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    float *noise = wn_view_scratch(v, sizeof *noise * (size_t)l->n);
    memset(out, 0, sizeof *out * (size_t)l->n);
    if (!noise) return;
    for (int i = 0; i < l->n; i++)  /* -ln(-ln u), u in (0, 1) */
        noise[i] = (float)(-p->v[NOISE] *
                           log(-log(wn_stage_draw((uint64_t)p->v[SEED], l, l->pos[i]) + 0x1p-25)));
    wn_stage_window_tiles(v, lane, noise, p->v[TAU], add, &(tally){ out, l->group });
    wn_stage_keep_recent(v, lane, (int64_t)(p->v[RECENT] * (double)p->lane_slots), out);
}

const wn_recipe wn_recipe_keyformer = {
    .name = "keyformer",
    .family = "attention",
    .source = "Adnan et al., \"Keyformer: KV Cache Reduction through Key Tokens Selection for "
              "Efficient Generative "
              "Inference\", 2024, equations 8 and 9",
    .about = "Attention with fixed noise on each slot and a temperature, so that a few winners do "
             "not take all. Where "
             "tova or h2o lose too much because single queries decide.",
    .differs = "looks at the last 64 queries; tau does not rise",
    .cost = "two passes of scores for the last 64 queries, once per decision",
    .params = params,
    .n_params = 5,
    .budget = "60%",
    .reads = "keys",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 64,
    .window = window,
    .score = score,
};
