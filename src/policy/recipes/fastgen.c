/* policy/recipes/fastgen.c - every head gets the cheapest of five rules that recovers what it looks
 * at.
 *
 * Source     Ge et al., "Model Tells You What to Discard: Adaptive KV Cache Compression for LLMs",
 *            2023, sections 3 and 4, algorithm 1
 * When       at marks (the paper profiles the prompt), or at boundaries
 * Observes   all queries: attention summed, and that on the last `local` share of the text; what is
 *            a special token or punctuation                              Resume  record
 * Rules      special tokens; and punctuation; and the `frequent` share of the text with the most
 *            attention; and the last `local` share of it; everything
 * Allocates  the first rule that holds a share `recover` of the head's attention: query by query,
 *            each with the tokens that were local to it
 * Differs    the rules are measured again at each decision, on what is still there, and applied
 *            there, not at each step; `local` is a share of the text that a query sees; heads of a
 *            group are averaged. `first`: as in a port. With @ the lanes come down to that in
 *            proportion, by rule, in a rule by attention
 */
#include "policy/stages/stages.h"

enum { RECOVER, FREQUENT, LOCAL };
enum { MASS, NEAR };
enum { SPECIAL, PUNCTUATION, HITTER, RECENT, ALL };     /* a slot's rule: the first that holds it */

static const wn_param params[] = {
    [RECOVER] = { "recover", WN_PARAM_FLOAT, 0.95, 0, 2, 0,
                  "share of a head's attention that is enough; above 1 all stays" },
    [FREQUENT] = { "frequent", WN_PARAM_FLOAT, 0.3, 0, 1, 0,
                   "share of the text that counts as often looked at" },
    [LOCAL] = { "local", WN_PARAM_FLOAT, 0.3, 1e-6, 1, 0,
                "share of the text behind a query that is local" },
};

static int stats(const wn_params *p, wn_stat *out)
{
    out[MASS] = (wn_stat){ .kind = WN_STAT_SUM };
    out[NEAR] = (wn_stat){ .kind = WN_STAT_SUM, .within = (float)p->v[LOCAL] };
    return 2;
}

/* The rule of each slot; false: no scratch. */
static bool classify(const wn_view *v, const wn_params *p, const wn_view_lane *l, const float *mass,
                     uint8_t *rule)
{
    int n = wn_view_n_tokens(v), local = (int)(p->v[LOCAL] * n);
    bool *often = wn_view_scratch(v, sizeof *often * (size_t)l->n);
    if (!often) return false;
    wn_stage_best(v, mass, l->n, (int64_t)(p->v[FREQUENT] * n), often);
    for (int i = 0; i < l->n; i++) {
        unsigned f = wn_view_flags(v, l->pos[i]);
        rule[i] = f & WN_FLAG_SPECIAL                        ? SPECIAL
                  : f & WN_FLAG_PUNCTUATION                  ? PUNCTUATION
                  : often[i]                                 ? HITTER
                  : l->pos[i] >= n - (local > 1 ? local : 1) ? RECENT
                                                             : ALL;
    }
    return true;
}

/* The cheapest rule that recovers enough. */
static int choose(const wn_params *p, int n, const uint8_t *rule, const float *mass,
                  const float *near)
{
    double all = 0, held[ALL] = { 0 };
    for (int i = 0; i < n; i++) {
        all += (double)mass[i];
        for (int r = rule[i]; r < ALL; r++) held[r] += (double)mass[i];
        if (rule[i] >= RECENT)
            held[RECENT] += (double)near[i] - (rule[i] == RECENT ? (double)mass[i] : 0);
    }
    int r = 0;
    while (r < ALL && held[r] < p->v[RECOVER] * all) r++;
    return r;
}

/* 0 and more: the head's rule holds it. */
static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *mass = wn_view_stat(v, lane, MASS), *near = wn_view_stat(v, lane, NEAR);
    uint8_t *rule = wn_view_scratch(v, (size_t)l->n);
    if (!rule || !classify(v, p, l, mass, rule)) return;
    int own = choose(p, l->n, rule, mass, near);
    for (int i = 0; i < l->n; i++) {                    /* attention as a number below 1, whatever
                                                           the sums are */
        float x = mass[i] / (mass[i] + 1);
        out[i] = rule[i] <= own ? (float)(ALL - rule[i]) + x : x - 2;
    }
}

static void allocate(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep)
{
    (void)p;
    wn_alloc_above(v, 0, scores, keep);
}

const wn_recipe wn_recipe_fastgen = {
    .name = "fastgen",
    .family = "attention",
    .source = "Ge et al., \"Model Tells You What to Discard: Adaptive KV Cache Compression for "
              "LLMs\", 2023, algorithm 1",
    .about = "Finds for every head the cheapest of five rules (special tokens, punctuation, often "
             "looked at, local, all) that "
             "holds 95 % of its attention, and keeps what that holds. For prompts whose heads "
             "differ; how much it saves the "
             "model decides, not you.",
    .differs = "measured again at each decision; heads of a group are averaged; @ is a ceiling",
    .cost = "the weights of every query added up twice, in prompts and in steps",
    .params = params,
    .n_params = 3,
    .first = 4,
    .kind = WN_CLASS_BUDGET_FREE,
    .resume = WN_RESUME_RECORD,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .stats = stats,
    .wants = WN_WANTS_FLAGS,
    .score = score,
    .allocate = allocate,
};
