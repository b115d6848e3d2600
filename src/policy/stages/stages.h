/* policy/stages/stages.h - ideas that more than one recipe uses.
 *
 * Observation turns what a view holds into one number per slot; scores rise with what is
 * worth keeping. Conventions: slots that stay in any case come first by score, the last one of a
 * text with INFINITY (wn_stage_keep_recent); a group's query heads are reduced to their lane
 * before anything else (mean unless said otherwise); neighbours are neighbours in the list of
 * live slots; a slot's age goes by its position, never by its place in the list.
 */
#ifndef WN_POLICY_STAGES_H
#define WN_POLICY_STAGES_H

#include "winnow_policy.h"

#define WN_POOL_WORDS "avg|max"
enum { WN_POOL_AVG, WN_POOL_MAX };

/* out[i] over heads h of in[h * n + i]. */
void wn_stage_reduce(float *out, const float *in, int n_heads, int n, int how);
/* Each value becomes the mean or the maximum of `kernel` (odd) values around it; averages
 * count zeros beyond the ends, as the official SnapKV code does. tmp (n). */
void wn_stage_pool(float *x, int n, int kernel, int how, float *tmp);

/* What each of the last queries attends to, tile by tile: a[t * stride + i] is the weight that the
 * t-th of w queries (the oldest first) of one head gives slot from + i, 0 for later ones; causal, 1
 * in all. The weights are those of (logit + noise of the slot) / tau; noise (n) or NULL. */
typedef struct { int head, from, n, w; const float *a; size_t stride; } wn_tile;
void wn_stage_window_tiles(const wn_view *v, int lane, const float *noise, double tau,
                           void (*each)(void *ctx, const wn_tile *tile), void *ctx);

/* What the last queries attend to, summed over them, mean over the group. */
void wn_stage_row(const wn_view *v, int lane, float *out);

/* Votes of the last queries (Li et al., "SnapKV", 2024): attention summed over the window,
 * reduced over the group, pooled over neighbours in front of the window; the window stays. */
typedef struct { int kernel, pool, reduce; } wn_votes;
void wn_stage_votes(const wn_view *v, int lane, const wn_votes *o, float *score);

/* A recipe's stats() that asks for the plain sum alone; and statistic 0 as a score. */
int wn_stage_ask_sums(const wn_params *p, wn_stat *out);
void wn_stage_sums(const wn_view *v, int lane, float *out);
/* The same for recipes whose one statistic is the largest weight of any query and head of the
 * group. */
int wn_stage_ask_largest(const wn_params *p, wn_stat *out);
void wn_stage_score_largest(const wn_view *v, const wn_params *p, int lane, float *out);
/* Heavy hitters (Zhang et al., "H2O", 2023): by statistic 0, the last `recent` positions before all
 * others. */
void wn_stage_hitters(const wn_view *v, int lane, int64_t recent, float *score);

/* The mean of a layer's lanes, slot by slot, where they hold the same slots; false where
 * they do not. score: of the lane asked about, replaced. */
bool wn_stage_layer_mean(const wn_view *v, int lane,
                         void (*one)(const wn_view *v, int lane, float *out), float *score);

/* Do two lanes hold the same slots? Do those of this one's layer? */
bool wn_stage_alike(const wn_view *v, int a, int b);
bool wn_stage_same_slots(const wn_view *v, int lane);
/* A number in [0, 1), of 24 bits, that belongs to (seed, layer, head, position). */
double wn_stage_draw(uint64_t seed, const wn_view_lane *l, int32_t pos);

/* What stays when `left` slots may: from the front up to *sinks (in: as many as wanted), from
 * the back down to *cut. Protected positions stay anyway and are paid for first. */
void wn_stage_ends(const wn_view *v, int64_t left, int *sinks, int *cut);

/* First slot at or after a position; l->n if there is none. */
int wn_stage_slot_at(const wn_view_lane *l, int64_t pos);
/* Units of `size` positions, the first at 0: the slot behind those of the unit that slot i is
 * in. */
int wn_stage_unit_end(const wn_view_lane *l, int i, int size);
/* Marks the m best of n scores, of equal ones the earlier; NaN is as bad as can be. */
void wn_stage_best(const wn_view *v, const float *score, int n, int64_t m, bool *best);
/* Flags (n) of the protected slots and the best of the others, `keep` in all; slots with skip set
 * are none of its business (NULL: all are). False: no scratch. */
bool wn_stage_choose(const wn_view *v, int lane, const float *score, int64_t keep, const bool *skip,
                     bool *stays);
/* How few of the largest values (not negative) sum to a share of all. */
int wn_stage_need(const float *x, int n, double share);

/* Puts the slots at positions >= n_tokens - recent before all others: INFINITY for the last
 * token, the float below for the one before it, and so on. Where a budget holds fewer, the
 * latest stay. */
void wn_stage_keep_recent(const wn_view *v, int lane, int64_t recent, float *score);

/* ---- allocation: keep (n_lanes) slots that sum to the view's budget -------------------- */

/* The same for every lane, rounded down: lanes of a layer that are to keep the same slots. */
void wn_alloc_level(const wn_view *v, int64_t *keep);
/* AdaKV: a layer's budget goes to its heads as the layer's best scores are spread over them;
 * `floor` of it evenly. */
void wn_alloc_ada(const wn_view *v, double floor, const float *const *scores, int64_t *keep);
/* PyramidKV: beside the window, slots fall linearly with depth to 1/beta of the mean; where
 * the first layer would get more than it has, the line is tilted less. `layers` neighbouring
 * layers have the same share. */
void wn_alloc_pyramid(const wn_view *v, double beta, int window, int layers, int64_t *keep);
/* D2O: layers by softmax(-variance) of their (scaled) accumulated attention; whole keeps
 * layers 0, 1 and the last whole as far as half of the budget goes. */
void wn_alloc_density(const wn_view *v, bool whole, int64_t *keep);

/* Linear over depth: the last layer gets `ratio` times the slots of the first. */
void wn_alloc_slope(const wn_view *v, double ratio, int64_t *keep);
/* Lanes of `layers` neighbouring layers come down to the least of those that drop something, so
 * that they can keep the same slots. */
void wn_alloc_alike(const wn_view *v, int layers, int64_t *keep);
/* Fewer, so that of slots that share a score all stay or none; protected ones stay first. */
void wn_alloc_round(const wn_view *v, const float *const *scores, int64_t *keep);
/* The same for every lane, rounded in that way. */
void wn_alloc_whole(const wn_view *v, const float *const *scores, int64_t *keep);
/* How many of the `total` best scores of lanes [from, to) each of them has (n_lanes); ties: the
 * lower lane, the earlier slot. */
void wn_alloc_best(const wn_view *v, int from, int to, const float *const *scores, int64_t total,
                   int64_t *count);
/* Head-share recipes: the lanes with the highest `by` (n_lanes) keep all, as many as @ says, the
 * others what is left of the budget, alike. */
void wn_alloc_whole_lanes(const wn_view *v, const float *by, const wn_params *p, int64_t *keep);
/* Beside the window's own slots, layers in proportion to weight (n_layers); the lanes of a layer
 * alike. */
void wn_alloc_layers(const wn_view *v, const double *weight, int window, int64_t *keep);
/* EpiCache: layers by (1 - alike)^power, alike (n_layers) stretched to 0 .. 1, each at least
 * `least` of the mean; then all are scaled, so that the budget is kept. */
void wn_alloc_sensitive(const wn_view *v, const double *alike, double power, double least,
                        int64_t *keep);
/* Each layer `ratio` times the one before. */
void wn_alloc_decay(const wn_view *v, double ratio, int64_t *keep);
/* KVCompose: the r-th best slots of a layer's lanes are one composite slot, worth the mean of their
 * scores; the best of those of all layers stay (ties: the lower layer), so that lanes of a layer
 * keep equally many. Each layer keeps `least` before others get more; first_widest: the first layer
 * keeps as many as any. Needs `ranks`. */
void wn_alloc_ranks(const wn_view *v, int64_t least, bool first_widest, const float *const *scores,
                    int64_t *keep);
/* For recipes without a budget: a lane's slots with a score of `bar` or more. */
void wn_alloc_above(const wn_view *v, float bar, const float *const *scores, int64_t *keep);

/* CAKE's preference without its variance: beside the window, layers by H^(1/tau), H the
 * entropy of what the last queries attend to, mean over heads. */
void wn_alloc_entropy(const wn_view *v, double tau, int window, int64_t *keep);

/* ---- retention ----------------------------------------------------------------------- */

/* Chen et al., "The Pitfalls of KV Cache Compression", 2025: the spans of the text keep shares of
 * their slots that are equal (share 1), or as the scores have it (0). Of the last `window` queries
 * those stay that score first. */
void wn_retain_fair(const wn_view *v, int lane, int window, double share, const float *score,
                    int64_t keep, const bool *skip, bool *stays);

/* CriticalKV: a share of the slots by score, the rest by (score + 1e-4) times what the value can
 * change; scores are sums over `window` queries (0: one). */
void wn_retain_critical(const wn_view *v, int lane, int window, double share, const float *score,
                        int64_t keep, const bool *skip, bool *stays);

/* ---- recovery ------------------------------------------------------------------------- */

enum { WN_BIAS_LOG, WN_BIAS_NONE };
#define WN_BIAS_WORDS "log|none"
/* Tokens that a slot stands for. */
static inline int wn_stage_count(const wn_view_lane *l, int i)
{
    return l->count ? l->count[i] : 1;
}
/* For each slot of `from` the slot of `to` with the most similar key (ties: the earlier; -1: there
 * is none) and the cosine; for others -1 and 0. With values the product of both cosines, a negative
 * one 0. */
void wn_stage_nearest(const wn_view *v, int lane, const bool *from, const bool *to, bool values,
                      int32_t *nearest, float *like);
/* The same from slots that do not stay to those that do and are not protected; false: no
 * scratch. */
bool wn_recover_find(const wn_view *v, int lane, const bool *stays, int32_t *into, float *like);
/* into (n): the slot that slot i joins, -1: none. Chain lists those that join s: head[s] is the
 * first, next[i] the one behind i, -1: no more; false: no scratch. Shares make the weights of each
 * merge sum to 1; gather writes the merges with the weights as they are (n each) and the bias scale
 * ln count; by tokens is both, every slot with the tokens it stands for. */
bool wn_stage_chain(const wn_view *v, const int32_t *into, int n, int32_t **head, int32_t **next);
void wn_stage_shares(const wn_view *v, int lane, const int32_t *into, float *w);
void wn_stage_gather(const wn_view *v, int lane, const int32_t *into, const float *wk,
                     const float *wv, double scale, wn_plan *out);
void wn_stage_by_tokens(const wn_view *v, int lane, const int32_t *into, double scale,
                        wn_plan *out);
/* D2O: slots that do not stay are merged into the slot that stays with the most similar key,
 * where the cosine is at least the mean over all of them (up to rounding). */
void wn_recover_nearest(const wn_view *v, int lane, const bool *stays, int bias, wn_plan *out);

/* RazorAttention: one slot for all that do not stay, the mean of their keys and values, with the
 * bias ln n for n tokens. A slot that stands for others is among them, whether it stays or not. */
void wn_recover_compensate(const wn_view *v, int lane, const bool *stays, wn_plan *out);

/* ---- rows ------------------------------------------------------------------------------ */

/* out[i * n_b + j] = a_i . b_j for rows of dim floats, one chain over the channels: the same
 * bits with every kernel table. tmp (n_b, dim). */
void wn_stage_dots(float *out, const float *a, int n_a, const float *b, int n_b, int dim,
                   float *tmp);

/* Rows of the listed slots (NULL: of the first n), of length 1; a row of zeros stays one. */
void wn_stage_unit_rows(float *out, const float *rows, const int32_t *slots, int n, int dim);

/* Of rows (n, dim), of keys or values: their lengths; the cosine of each with a vector, and with
 * the row behind it (n - 1 of them); 0 where there is a row or vector of zeros. */
void wn_stage_norms(float *out, const float *rows, int n, int dim);
void wn_stage_cosines(float *out, const float *rows, const double *with, int n, int dim);
void wn_stage_next_cosines(float *out, const float *rows, int n, int dim);
/* The mean of the rows, each of length 1 (unit) or as it is; of no rows zeros. */
void wn_stage_mean_row(double *out, const float *rows, int n, int dim, bool unit);

#endif
