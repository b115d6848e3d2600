/* policy/plan.h - what a decision says; the cache carries it out.
 *
 * A plan is made at a position p (a boundary or a mark) and speaks of positions in
 * [0, p), lane by lane. Within a lane a position has at most one live slot, so a keep
 * bitmap over positions says everything about dropping. Parts that are absent change
 * nothing. A plan touches no page. The functions that build one are in winnow_policy.h.
 */
#ifndef WN_POLICY_PLAN_H
#define WN_POLICY_PLAN_H

#include "base/err.h"
#include "winnow_policy.h"

/* Merge n_src live slots (the survivor among them, or not) into one new slot at position
 * `at`: K = sum wk_i K_i, V = sum wv_i V_i, in the order given; bias is added to its logit
 * (a plain merge of c tokens: ln c), count is how many tokens it stands for. All sources
 * are cleared. */
typedef struct {
    int32_t lane, at, n_src;
    int32_t first_src;              /* index into plan->src, wk, wv */
    float bias;
    int32_t count;
    int32_t next;                   /* the lane's next merge, -1: none */
} wn_plan_merge;

typedef struct { int32_t lane, at; float bias; int32_t next; } wn_plan_bias;

/* Positions [from, to) of a lane act as if they stood at position + delta. */
typedef struct { int32_t lane, from, to, delta, next; } wn_plan_shift_range;

/* First and last entry of each lane in one of the arrays below. */
typedef struct { int32_t first, last; } wn_plan_chain;
enum { WN_PLAN_MERGES, WN_PLAN_BIASES, WN_PLAN_SHIFTS, WN_PLAN_CHAINS };

/* Whoever reuses a plan may lower n_tokens, after wn_plan_clear(), below what it was made
 * for. Entries for WN_ALL_LANES are stored once per lane. */
struct wn_plan {
    int32_t n_tokens, n_lanes;      /* p, and the lane map's size */
    uint64_t **keep;                /* NULL, or [n_lanes], each NULL (keep all) or (n_tokens+63)/64
                                       words */
    uint64_t **low;                 /* NULL, or [n_lanes], each NULL or such words: what moves to
                                       (or stays in) lower formats; it stays whatever keep says */
    wn_plan_merge *merges;  int32_t n_merges, cap_merges;
    int32_t *src; float *wk, *wv;   int32_t n_src, cap_src;
    wn_plan_bias *biases;   int32_t n_biases, cap_biases;
    wn_plan_shift_range *shifts; int32_t n_shifts, cap_shifts;
    bool no_repack;                 /* tests: leave survivors where they are */
    wn_status status;               /* the first failure while building (out of memory, bad
                                       range) */
    wn_plan_chain *chains;          /* [n_lanes][WN_PLAN_CHAINS], NULL: no entries yet */
    uint64_t *words, *low_words;    /* storage of keep, and one row of scratch; of low */
    int32_t cap_tokens;             /* n_tokens it was made for */
};

void wn_plan_init(wn_plan *p, int n_tokens, int n_lanes);
void wn_plan_release(wn_plan *p);
/* Memory for masks and for merges of n_src slots in all, taken now; failures are remembered. */
void wn_plan_reserve(wn_plan *p, int32_t n_merges, int32_t n_src);
void wn_plan_reserve_low(wn_plan *p);                   /* the same for demotions */
void wn_plan_clear(wn_plan *p);                         /* empty again, memory kept */
/* Adds what another plan (of as many tokens and lanes) says of a lane. */
void wn_plan_take_lane(wn_plan *p, const wn_plan *from, int lane);
bool wn_plan_is_empty(const wn_plan *p);

/* The lane's first entry of a kind (an index into its array), -1: none. */
static inline int32_t wn_plan_first(const wn_plan *p, int lane, int kind)
{
    return p->chains ? p->chains[lane * WN_PLAN_CHAINS + kind].first : -1;
}

static inline bool wn_plan_keeps(const wn_plan *p, int lane, int pos)
{
    const uint64_t *k = p->keep ? p->keep[lane] : NULL, *low = p->low ? p->low[lane] : NULL;
    uint64_t bit = 1ull << (pos & 63);
    return !k || (k[pos >> 6] & bit) || (low && (low[pos >> 6] & bit));
}

static inline bool wn_plan_demotes(const wn_plan *p, int lane, int pos)
{
    const uint64_t *low = p->low ? p->low[lane] : NULL;
    return low && (low[pos >> 6] >> (pos & 63) & 1);
}

#endif
