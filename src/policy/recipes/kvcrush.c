/* policy/recipes/kvcrush.c - SnapKV's best, and of the others a few that stand for those like them.
 *
 * Source     Jha et al., "KVCrush: Key Value Cache Size-Reduction Using Similarity in
 *            Head-Behaviour", 2025, section 3
 * When       at marks, or at boundaries
 * Observes   the last `window` queries                         Resume  window
 * Score      SnapKV's votes
 * Retains    the window and the best; the `crush` share of the budget goes to representatives of
 *            the rest: a slot has a bit for each query head of its layer, set where the head gives
 *            it more than the worse half of its slots; the rest are sorted by how many bits differ
 *            from an anchor's (ties by position), and every so many-th of them stays
 * Differs    a head whose lane does not hold a position has no bit for it; slots, not blocks of
 *            them; the authors' code was not at hand
 */
#include "policy/stages/stages.h"

#include "base/err.h"

#include <math.h>
#include <string.h>

enum { WINDOW, KERNEL, CRUSH, ANCHOR };
enum { ZEROS, ONES, ALTERNATE, MEAN };

static const wn_param params[] = {
    [WINDOW] = { "window", WN_PARAM_INT, 32, 1, 64, 0, "last queries that vote, and always stay" },
    [KERNEL] = { "kernel", WN_PARAM_INT, 5, 1, 63, 0, "slots over which votes are averaged (odd)" },
    [CRUSH] = { "crush", WN_PARAM_FLOAT, 0.25, 0, 1, 0, "share of the budget for representatives" },
    [ANCHOR] = { "anchor", WN_PARAM_WORD, MEAN, 0, 3, "zeros|ones|alternate|mean",
                 "bits that slots are compared with" },
};

static int window(const wn_params *p) { return (int)p->v[WINDOW]; }

/* differ (n): how many of a slot's bits are not the anchor's. */
static bool compare_bits(const wn_view *v, int lane, int anchor, int32_t *differ)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int from, to, w, head = 0, longest = 0;
    wn_view_layer(v, l->layer, &from, &to);
    for (int k = from; k < to; k++) longest = WN_MAX(longest, wn_view_get_lane(v, k)->n);
    bool *bit = wn_view_scratch(v, 2 * (size_t)longest), *best = bit ? bit + longest : NULL;
    memset(differ, 0, sizeof *differ * (size_t)l->n);
    if (!bit) return false;
    for (int k = from; k < to; k++) {
        const wn_view_lane *o = wn_view_get_lane(v, k);
        for (int h = 0; h < o->group && o->n; h++, head++) {
            int set = 0;
            wn_stage_best(v, wn_view_window(v, k, &w) + (size_t)h * (size_t)o->n, o->n, o->n / 2,
                          best);
            for (int i = 0, at = 0; i < l->n; i++) {
                while (at < o->n && o->pos[at] < l->pos[i]) at++;
                set += bit[i] = at < o->n && o->pos[at] == l->pos[i] && best[at];
            }
            bool want = anchor == ONES || (anchor == ALTERNATE && head % 2) ||
                        (anchor == MEAN && 2 * set > l->n);
            for (int i = 0; i < l->n; i++) differ[i] += bit[i] != want;
        }
    }
    return true;
}

/* Of the slots that are left, `n_reps` at even steps of the list sorted by bits. */
static void represent(const wn_view_lane *l, const int32_t *differ, const bool *left, int n_reps,
                      bool *rep)
{
    int n = 0, most = 0, at = 0, taken = 0;
    for (int i = 0; i < l->n; i++) {
        n += left[i];
        most = WN_MAX(most, differ[i]);
        rep[i] = false;
    }
    n_reps = WN_MIN(n_reps, n);
    for (int d = 0; d <= most; d++)
        for (int i = 0; i < l->n; i++) {
            if (!left[i] || differ[i] != d) continue;
            if (taken < n_reps && at == (int)((int64_t)taken * n / n_reps)) rep[i] = true, taken++;
            at++;
        }
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    size_t n = (size_t)l->n;
    int32_t *differ = wn_view_scratch(v, sizeof *differ * n);
    bool *best = wn_view_scratch(v, 2 * n), *rep = best ? best + n : NULL;
    wn_stage_votes(v, lane, &(wn_votes){ (int)p->v[KERNEL], WN_POOL_AVG, WN_REDUCE_MEAN }, out);
    if (!differ || !best || !compare_bits(v, lane, (int)p->v[ANCHOR], differ)) return;
    int64_t slots = WN_MIN(p->lane_slots, (int64_t)l->n),
            reps = (int64_t)(p->v[CRUSH] * (double)slots);
    for (int i = 0; i < l->n; i++)
        if (wn_view_protects(v, l->pos[i])) out[i] = INFINITY;
    wn_stage_best(v, out, l->n, slots - reps, best);
    for (int i = 0; i < l->n; i++) best[i] = !best[i];  /* those that are left */
    represent(l, differ, best, (int)reps, rep);
    for (int i = 0; i < l->n; i++)              /* votes are at most w: three storeys */
        if (out[i] < 100) out[i] += !best[i] ? 400 : rep[i] ? 200 : 0;
}

const wn_recipe wn_recipe_kvcrush = {
    .name = "kvcrush",
    .family = "merging",
    .source = "Jha et al., \"KVCrush: Key Value Cache Size-Reduction Using Similarity in "
              "Head-Behaviour\", 2025, section 3",
    .about = "SnapKV's best, and representatives of the rest that heads treat alike: nothing is "
             "combined, what goes "
             "has somebody to speak for it. As snapkv, for prompts whose question does not say "
             "everything.",
    .differs = "slots, not blocks; a head has no bit for a position that its lane does not hold",
    .cost = "attention of the last 32 queries, and a few passes over a layer's slots, once per "
            "decision",
    .params = params,
    .n_params = 4,
    .budget = "25%",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_WINDOW,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_MARK,
    .window = window,
    .score = score,
};
