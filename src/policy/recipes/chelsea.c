/* policy/recipes/chelsea.c - neighbours with similar keys are clustered, pair by pair, to the
 * budget.
 *
 * Source     Hu et al., "Efficient Long-Context LLM Inference via KV Cache Clustering", 2025
 *            (Chelsea, later CentroidKV), sections 4.1 and 4.2
 * When       every 256 tokens          Observes  keys          Resume  any
 * Score      chunks of `chunk` positions; in each, slots are dealt out in turn to two sets, each of
 *            the first has its partner in the second, and pairs merge in the order of their
 *            cosines; then again with the centroids, until one is left. The earlier a slot is
 *            merged away, the sooner it goes
 * Retains    4 first slots, the last `recent` ones, and as many clusters as the budget has
 * Recovers   a slot that goes joins its partner, by tokens; bias ln n
 * Differs    rounds go on to the budget, where the paper merges a fixed share of each chunk; a
 *            cluster stands where its last partner stood; the authors' code was not at hand
 */
#include "policy/stages/stages.h"

#include "base/err.h"

#include <string.h>

enum { CHUNK, RECENT };
enum { CHUNK_MAX = 256, HALF = CHUNK_MAX / 2, ROUNDS = 16 };

static const wn_param params[] = {
    [CHUNK] = { "chunk", WN_PARAM_INT, 256, 2, CHUNK_MAX, 0,
                "positions within which slots are merged" },
    [RECENT] = { "recent", WN_PARAM_INT, 64, 0, 1 << 20, 0,
                 "last slots, left as they are; at most half of the budget" },
};

typedef struct {
    float *rows, *a, *b, *cols, *c;     /* (CHUNK_MAX, dim) centroids; unit rows, by channel; (HALF,
                                           HALF) */
    int32_t slot[CHUNK_MAX];            /* of each centroid: the slot it stands at */
    float tokens[CHUNK_MAX];
    int n, dim;
} chunk;

static bool open_chunk(const wn_view *v, chunk *c, int most, int dim)
{
    size_t half = (size_t)(most + 1) / 2, d = (size_t)dim;
    c->rows = wn_view_scratch(v, sizeof(float) * (2 * half * d + 3 * half * d + half * half));
    if (!c->rows) return false;
    c->a = c->rows + 2 * half * d;
    c->b = c->a + half * d;
    c->cols = c->b + half * d;
    c->c = c->cols + half * d;
    c->dim = dim;
    return true;
}

/* One round: each even centroid joins the odd one it is most like; the odd ones are left. */
static void pair_up(chunk *c, int round, int32_t *into, float *order)
{
    int32_t even[HALF] = { 0 }, odd[HALF] = { 0 }, best[HALF], rank[HALF];
    float like[HALF];
    int pairs = c->n / 2, n_even = (c->n + 1) / 2;
    size_t dim = (size_t)c->dim;
    /* the last may lack its odd one */
    for (int i = 0; i < n_even; i++) even[i] = 2 * i, odd[i] = WN_MIN(2 * i + 1, c->n - 1);
    wn_stage_unit_rows(c->a, c->rows, even, n_even, c->dim);
    wn_stage_unit_rows(c->b, c->rows, odd, pairs, c->dim);
    wn_stage_dots(c->c, c->a, n_even, c->b, pairs, c->dim, c->cols);
    for (int i = 0; i < n_even; i++) {
        const float *x = c->c + (size_t)i * (size_t)pairs;
        int at = i;
        best[i] = 0;
        for (int j = 1; j < pairs; j++)
            if (x[j] > x[best[i]]) best[i] = j;
        like[i] = x[best[i]];
        for (; at > 0 && like[rank[at - 1]] < like[i]; at--) rank[at] = rank[at - 1];
        rank[at] = i;                           /* the most alike first, of equals the earlier */
    }
    for (int k = 0; k < n_even; k++) {
        int from = even[rank[k]], to = odd[best[rank[k]]];
        float w = c->tokens[from] / (c->tokens[from] + c->tokens[to]),
              *sum = c->rows + (size_t)to * dim;
        for (size_t d = 0; d < dim; d++) sum[d] += w * (c->rows[(size_t)from * dim + d] - sum[d]);
        c->tokens[to] += c->tokens[from];
        into[c->slot[from]] = c->slot[to];
        order[c->slot[from]] = (float)round + ((float)k + 0.5f) / (float)n_even;
    }
    for (int j = 0; j < pairs; j++) {
        memmove(c->rows + (size_t)j * dim, c->rows + (size_t)odd[j] * dim, sizeof(float) * dim);
        c->slot[j] = c->slot[odd[j]];
        c->tokens[j] = c->tokens[odd[j]];
    }
    c->n = pairs;
}

/* into[i]: whom slot i joins when its turn comes, -1: nobody; order[i]: its turn. */
static bool cluster(const wn_view *v, const wn_params *p, int lane, int32_t *into, float *order)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    int64_t recent = WN_MIN((int64_t)p->v[RECENT], p->lane_slots / 2);
    int end = wn_stage_slot_at(l, wn_view_n_tokens(v) - recent), size = (int)p->v[CHUNK];
    const float *k = wn_view_keys(v, lane), *row;
    chunk *c = wn_view_scratch(v, sizeof *c);
    for (int i = 0; i < l->n; i++) into[i] = -1, order[i] = ROUNDS;
    if (!c || !open_chunk(v, c, size, l->k_dim)) return false;
    for (int from = 0, to; from < end; from = to) {
        c->n = 0;
        for (to = from; to < end && l->pos[to] / size == l->pos[from] / size; to++) {
            if (wn_view_protects(v, l->pos[to])) continue;
            row = k + (size_t)to * (size_t)c->dim;
            memcpy(c->rows + (size_t)c->n * (size_t)c->dim, row, sizeof *row * (size_t)c->dim);
            c->tokens[c->n] = (float)wn_stage_count(l, to);
            c->slot[c->n++] = to;
        }
        for (int round = 0; c->n > 1; round++) pair_up(c, round, into, order);
    }
    wn_stage_keep_recent(v, lane, recent, order);
    return true;
}

static void score(const wn_view *v, const wn_params *p, int lane, float *out)
{
    int32_t *into = wn_view_scratch(v, sizeof *into * (size_t)wn_view_get_lane(v, lane)->n);
    if (into) cluster(v, p, lane, into, out);
}

static void recover(const wn_view *v, const wn_params *p, int lane, const bool *stays, wn_plan *out)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    size_t n = (size_t)l->n;
    int32_t *partner = wn_view_scratch(v, sizeof *partner * n),
            *into = wn_view_scratch(v, sizeof *into * n);
    float *order = wn_view_scratch(v, sizeof *order * n);
    if (!partner || !into || !order || !cluster(v, p, lane, partner, order)) return;
    for (int i = 0; i < l->n; i++) {            /* to the first of the line that stays */
        into[i] = stays[i] ? -1 : partner[i];
        while (into[i] >= 0 && !stays[into[i]]) into[i] = partner[into[i]];
    }
    wn_stage_by_tokens(v, lane, into, 1, out);
}

const wn_recipe wn_recipe_chelsea = {
    .name = "chelsea",
    .family = "merging",
    .source = "Hu et al., \"Efficient Long-Context LLM Inference via KV Cache Clustering\", 2025 "
              "(Chelsea, later CentroidKV), "
              "sections 4.1 and 4.2",
    .about = "Nothing is dropped: slots with similar keys that stand close together are averaged, "
             "until the budget is "
             "met. For prose in moderate budgets (50 %), without a look at attention.",
    .differs = "merges go on to the budget; a cluster stands where its last member stood",
    .cost = "a cosine of each slot with a quarter of its chunk, twice per decision",
    .params = params,
    .n_params = 2,
    .budget = "25%",
    .first = 4,
    .reads = "keys",
    .kind = WN_CLASS_BUDGETED,
    .resume = WN_RESUME_ANY,
    .at = WN_AT_BOUNDARY | WN_AT_MARK,
    .at_default = WN_AT_BOUNDARY,
    .every = 256,
    .score = score,
    .recover = recover,
};
