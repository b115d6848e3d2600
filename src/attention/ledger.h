/* attention/ledger.h - where the numbers are that a policy's statistics give to each slot.
 *
 * A ledger has a number for each statistic (wn_stat in winnow_policy.h) of each slot of each lane
 * outside window lanes, whose slots are shown to nobody. The numbers of a lane are rows, one for
 * each statistic, in the order of the slots' positions; a dropped slot has none:
 *
 *     x:  | lane 0, stat 0: live slots | room | lane 0, stat 1: ... | lane 1, ... |
 *
 * Between two decisions nothing is dropped: a lane gets one slot for each position, and its rows
 * have room for those that come before the next decision. At a decision the ledger is laid out
 * anew for what is live then. So it costs what live slots cost, and what a position further on is
 * worth to all lanes; what a smaller layout does not need goes back to the system.
 *
 *     noted:  | lane 0, stat 0: slots live at the last decision | lane 0, stat 1 | ...
 *
 * are the numbers right after the last decision, which a truncation goes back to.
 *
 * Which slots of a lane are live is the cache's to say, and a reader of a split meets all of them:
 * so a slot's place in its row is how many slots there are in the splits before (`before` has
 * that) and how many it meets at lower positions in its own.
 *
 * A ledger without lanes is one by position: row after row of `stride` numbers, whatever is
 * live. Probes use it, whose forks have other slots each (engine/probe.c).
 */
#ifndef WN_ATTENTION_LEDGER_H
#define WN_ATTENTION_LEDGER_H

#include "base/arena.h"
#include "cache/kv.h"
#include "winnow_policy.h"

typedef struct {
    size_t at;                          /* of its first number in x */
    int32_t n, room;                    /* slots at `from`; numbers of a row, with those to come */
} wn_ledger_lane;

typedef struct {
    const wn_stat *stats;
    int n_stats;                        /* 0: nothing is kept */
    float *x;
    size_t stride;                      /* by position: numbers of a row, (n_lanes, n_stats) */
    /* by slot: */
    wn_ledger_lane *lanes;              /* (n_lanes); NULL: by position */
    int32_t *before;                    /* (n_lanes, n_splits) slots of a lane in earlier splits, as
                                           far as `from` */
    int n_lanes, n_splits;
    int32_t from, until;                /* laid out at so many positions, with room up to that */
    size_t used, touched;               /* numbers of x, room included; the most since pages were
                                           given back */
    float *noted;
    size_t n_noted, noted_touched;
    size_t mapped;                      /* bytes of x and of noted, each */
} wn_ledger;

static inline float *wn_ledger_row(const wn_ledger *g, int lane, int stat)
{
    if (g->lanes) return g->x + g->lanes[lane].at + (size_t)stat * (size_t)g->lanes[lane].room;
    return g->x + ((size_t)lane * (size_t)g->n_stats + (size_t)stat) * g->stride;
}

/* Slots of the lane in the splits before: the place of a split's first slot in the rows. */
int32_t wn_ledger_before(const wn_ledger *g, int lane, int split);

/* What a slot's number is when the query at its own position has not counted yet. */
static inline float wn_stat_begin(const wn_stat *s, int32_t pos)
{
    return s->kind == WN_STAT_LAST ? (float)pos : 0;
}

/* By slot, for sequences of up to max_positions; nothing is laid out yet. */
wn_status wn_ledger_open(wn_ledger *g, const wn_stat *stats, int n_stats, const wn_lane_map *map,
                         int max_positions, wn_err *err);
void wn_ledger_close(wn_ledger *g);     /* fine where nothing was opened */

/* Lays out for the live slots of kv and all positions up to `until`; the numbers are the caller's
 * to write. */
void wn_ledger_lay_out(wn_ledger *g, const wn_kv *kv, int32_t until);

/* A decision: what is live before it is carried out, in the arena; then, with that, everything
 * anew for what is live behind it, and noted. A slot at a position where there was none begins. */
uint64_t *wn_ledger_look(const wn_ledger *g, const wn_kv *kv, wn_arena *a, wn_threads *team);
void wn_ledger_settle(wn_ledger *g, const wn_kv *kv, uint64_t *was, int32_t until, wn_arena *a,
                      wn_threads *team);
/* What both take of the arena with a text of n. */
size_t wn_ledger_arena_bytes(int n_lanes, int n, int n_threads);

/* kv is back at its last decision: so are the numbers. */
void wn_ledger_restore(wn_ledger *g, const wn_kv *kv, int32_t until);
/* All of `from`, which has the same statistics, lanes and size; kv: whose numbers they are. */
void wn_ledger_copy(wn_ledger *to, const wn_ledger *from, const wn_kv *kv);

/* Bytes of the numbers of kv's slots and of the tables that find them; of what is noted beside. */
size_t wn_ledger_bytes(const wn_ledger *g, const wn_kv *kv);
size_t wn_ledger_noted_bytes(const wn_ledger *g);
/* What is noted of a text that was decided about at `at`, if the lanes of kv are what such a text's
 * are: all positions from there on are live. SIZE_MAX: they are not. */
size_t wn_ledger_noted_at(const wn_ledger *g, const wn_kv *kv, int32_t at);

#endif
