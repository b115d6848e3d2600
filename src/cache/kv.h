/* cache/kv.h - the cache of one sequence: which pages each of its lanes holds.
 *
 * Until a decision touches a lane, a sequence is a list of spans. A span is the frames of
 * all lanes for the same P positions, with one reference count, so a fork of a long text
 * costs one count per span. The first decision on a lane makes its page list: the lane's
 * frames move out of the spans (a span that others share is first replaced by a private
 * one that holds a reference on each frame), and from then on the lane has pages with
 * keep masks, positions and biases of its own. The last, filling page (the tail) is
 * always private: a fork copies it. A window lane has a page list from the start.
 *
 *     untouched lane:  spans[0..j]  ->  frame of this lane in each
 *     decided lane:    pages[0..m]  (mask, positions, bias), and its new pages after them
 *
 * States of a page: open (raw, filling), closed (raw, full), sealed (encoded, immutable).
 * A query at position p reads page j of the text sealed exactly when p >= P (j + 1 + lag),
 * lag belonging to the format; raw formats are never sealed, a closed frame is as
 * immutable as a sealed one.
 *
 * Slots that a decision demotes, where it can, live in pages of a lower format (kv_low.c).
 *
 * After a decision, a lane whose live slots would fit into 15/16 of its pages is repacked:
 * survivors in position order go to fresh frames from the first thin page on; merge slots
 * go to merge pages of their own. Trigger and result depend on the lane's own masks only.
 *
 * Pages of formats that cannot be repacked once they are encoded (WN_REPACK_RAW_ONLY) wait
 * for a decision: with boundaries each `every` positions their lag is every / P + 1 at least,
 * so that a page is raw when it is first decided about; what was there at a decision of its
 * lane has the format's own lag. Later victims are masked, and where so many are that the
 * sealed pages' live slots would fit into 4/5 of them, those are decoded slot by slot, packed
 * and encoded anew.
 *
 * Positions, biases and masks of decided lanes live in pool frames and in tables reserved
 * when the sequence is opened, so that nothing here allocates during a step.
 *
 * Invariants (wn_kv_check() verifies all of them):
 *   K1  every lane sees each live position exactly once, ordinary slots in ascending order
 *   K2  a frame's references == spans and page lists that name it
 *   K3  a cleared mask bit is never set again; a frame shared with others is never written
 *   K4  n_committed <= n_reserved <= max_positions
 *
 * Threads: one owner; wn_kv_put may be called for different lanes at the same time.
 */
#ifndef WN_CACHE_KV_H
#define WN_CACHE_KV_H

#include "base/threads.h"
#include "cache/pool.h"
#include "page/format.h"
#include "policy/plan.h"

/* One stream of K and V. */
typedef struct {
    int16_t layer, head;                /* of K/V */
    int16_t k_dim, v_dim;               /* channels of a K row, of a V row */
    int32_t window;                     /* a window lane drops pages that left [p - window + 1, p];
                                           0: none */
} wn_lane;

/* The lane map of a model; layer l has lanes [first[l], first[l + 1]). */
typedef struct {
    int n_lanes, n_layers;
    const wn_lane *lanes;
    const int *first;                   /* n_layers + 1 */
} wn_lane_map;

/* What the pages of a lane are sealed into; raw formats: what they are. Slots that a plan demotes
 * move to pages in the lower formats, both or none; their repack class is WN_REPACK_COPY. */
typedef struct { const wn_format *k, *v, *low_k, *low_v; } wn_lane_formats;

typedef struct {
    wn_pool *pool;
    const wn_lane_map *map;             /* borrowed */
    const wn_format *k_format, *v_format;   /* of every lane, unless: */
    const wn_lane_formats *formats;     /* (n_lanes) each lane's own; borrowed for the call. NULL:
                                           all alike */
    const wn_format *raw_format;        /* open and closed pages of encoded formats; NULL: f16 */
    int page_slots;                     /* P; 0 means 64 */
    int max_positions;                  /* the most this sequence may ever hold */
    int lag;                            /* encoded formats have at least this lag */
    int every;                          /* decisions come at its multiples; 0: at none. See below */
    int max_rows;                       /* that are put between two commits; for reservations. 0:
                                           any number */
    int ring_rows;                      /* rotated queries kept: 0 or 64 */
    int q_dim;                          /* floats of all query heads of a layer (for the ring) */
} wn_kv_opts;

typedef struct wn_kv wn_kv;

/* Frames of every class needed to hold n positions of all lanes, nothing shared, plus
 * `slack` slots per lane, and of encoded formats the raw pages of a pass and of the lag: for
 * reservations. Window lanes hold what they see
 * of a text and what a pass brings. Registers the classes with the pool. */
typedef struct {
    int n, slack;                       /* slots per lane, mean */
    int text;                           /* positions there are; 0: n */
    int low;                            /* slots that may be demoted, mean per lane */
    bool decides;                       /* pages may be thinned and rewritten, and have positions of
                                           their own */
    bool merges;                        /* slots may be merged: raw, with biases and counts too */
    bool uneven;                        /* lanes may have more at others' expense */
} wn_kv_hold;
wn_status wn_kv_frames_for(const wn_kv_opts *o, const wn_kv_hold *hold,
                           uint32_t counts[WN_POOL_CLASSES], wn_err *err);
/* Would pages be the same, and raw for as long? */
bool wn_kv_same_formats(const wn_kv_opts *a, const wn_kv_opts *b);
size_t wn_kv_bytes_per_page(const wn_kv_opts *o);       /* frames of all lanes for P positions */
/* What the query after n positions sees, in units of so many slots (1, or whole pages). */
size_t wn_kv_bytes_seen(const wn_kv_opts *o, int n, int unit);
size_t wn_kv_table_bytes(const wn_kv_opts *o);          /* tables, ring: outside the pool */

wn_status wn_kv_open(wn_kv **out, const wn_kv_opts *o, wn_err *err);
void wn_kv_close(wn_kv *kv);
int wn_kv_n(const wn_kv *kv);                           /* committed positions */
int wn_kv_page_slots(const wn_kv *kv);

/* Before a pass: frames for n more positions in every lane. WN_EFULL (nothing taken) when
 * the pool has no room. Called again with a smaller n, gives the surplus back. */
wn_status wn_kv_reserve(wn_kv *kv, int n, wn_err *err);
/* During the pass: rotated K rows and V rows of positions [pos, pos + n) of one lane. */
void wn_kv_put(wn_kv *kv, int lane, int pos, const float *k, size_t k_stride, const float *v,
               size_t v_stride, int n);
/* Where the rotated queries of (layer, pos) belong: q_dim floats. NULL without a ring, and
 * for positions that the ring does not hold once this pass is over (only the last rows of
 * a long chunk go in). */
float *wn_kv_ring(wn_kv *kv, int layer, int pos);
/* How many of the last positions the ring holds validly (after a truncation: fewer). */
int wn_kv_ring_valid(const wn_kv *kv);
/* After the pass: n rows are part of the text; pages that are due are sealed, window lanes
 * drop what left their window. */
void wn_kv_commit(wn_kv *kv, int n);

/* Forgets positions >= n (committed ones too). With encoded formats or decided lanes only
 * positions at which all lanes can resume are possible: *at gets the position actually
 * reached (<= n; the caller computes [*at, n) again). Raw formats and undecided lanes: n. A
 * decided lane can go back no further than its last decision, a window lane as far as it
 * has not dropped what the query at n sees; else *at is 0 and the sequence is empty. */
wn_status wn_kv_truncate(wn_kv *kv, int n, int *at, wn_err *err);

/* A second sequence with the same text, that may hold max_positions (0: as many as kv); shares
 * every full page. Like truncating and applying a plan, this first gives back what is reserved and
 * not committed. */
wn_status wn_kv_fork(wn_kv **out, wn_kv *kv, int max_positions, wn_err *err);

/* Carries out a decision made at position plan->n_tokens == wn_kv_n(). On failure (bad
 * plan: WN_EINVAL with the lane and position; no room for the repack: WN_EFULL) nothing
 * has changed. */
wn_status wn_kv_apply(wn_kv *kv, const wn_plan *plan, wn_err *err);

/* Threads that carry decisions out together, lane by lane: the same bytes in the cache, in frames
 * that may have other names. One crew serves all sequences with the geometry of o that hold no more
 * positions; others are served by the caller alone, and so are all when the pool has no room for
 * several lanes at once. */
typedef struct wn_kv_crew wn_kv_crew;
wn_status wn_kv_crew_open(wn_kv_crew **out, const wn_kv_opts *o, wn_threads *team, wn_err *err);
void wn_kv_crew_close(wn_kv_crew *c);
size_t wn_kv_crew_bytes(const wn_kv_opts *o, int n_threads);
wn_status wn_kv_apply_with(wn_kv *kv, const wn_plan *plan, wn_kv_crew *crew, wn_err *err);

/* ---- reading: runs -------------------------------------------------------------- */

/* Part of one page: slots of one split (positions [512 i, 512 (i + 1))) and one shift,
 * in the order of DESIGN.md section 3: splits ascending; within a split ordinary slots in
 * position order, then demoted ones, then merge slots, each in position order. */
typedef struct {
    int split;                          /* i */
    int first, n;                       /* slots of the page */
    uint64_t keep;                      /* bit s: slot first + s is live */
    int32_t pos0;                       /* position of slot `first`; when pos is NULL slot first+s
                                           has pos0+s */
    const int32_t *pos;                 /* positions of slots first.., ascending; or NULL */
    const float *bias;                  /* of slots first..; or NULL */
    const int32_t *count;               /* merge pages: tokens a slot stands for; else NULL (1) */
    int32_t shift;                      /* act as position + shift */
    bool merged;                        /* a merge page */
    bool low;                           /* a page of demoted slots: k_sealed, v_sealed, for every
                                           query */
    const void *k, *v;                  /* raw frames; NULL when only the sealed one is left */
    const void *k_sealed, *v_sealed;    /* NULL: not sealed */
    const wn_format *k_format, *v_format;   /* of sealed frames */
    int32_t k_sealed_from, v_sealed_from;   /* queries at p >= this read the sealed frame; one that
                                           is held beside the raw one is filled by wn_kv_put() */
} wn_run;

typedef struct {                        /* private to kv_view.c */
    const wn_kv *kv;
    int lane, split, list, page[3], slot[3];    /* per list */
    int32_t limit;
    bool done;
} wn_run_iter;

/* Runs of a lane with positions in [0, limit), reserved but uncommitted rows included;
 * from split `first_split` on. Runs without a live slot are left out. */
void wn_runs_begin(wn_run_iter *it, const wn_kv *kv, int lane, int first_split, int32_t limit);
bool wn_runs_next(wn_run_iter *it, wn_run *run);
/* Right behind wn_runs_next(), whose run was a whole page without a table of positions: how many
 * pages follow in its split that differ from it in their frames and their place alone, at most
 * `most`. Their frames, of K and V, are those that a query at p reads: sealed or raw as it reads
 * the run's. They are passed over. */
int wn_runs_alike(wn_run_iter *it, const wn_run *run, int32_t p, int most, const void **k,
                  const void **v);

/* Page i of a lane whole, whatever splits and shifts its committed slots are in: list after list,
 * each in position order. False when there are no more. */
bool wn_kv_page_run(const wn_kv *kv, int lane, int i, wn_run *run);

/* Segments' shifts of a lane: distinct values, 0 first; returns how many (1 .. 8). */
int wn_kv_shifts(const wn_kv *kv, int lane, int32_t shifts[WN_SHIFTS_MAX]);

const wn_lane_map *wn_kv_map(const wn_kv *kv);
const wn_format *wn_kv_raw_k(const wn_kv *kv, int lane); /* of open and closed pages */
const wn_format *wn_kv_raw_v(const wn_kv *kv, int lane);
wn_lane_formats wn_kv_formats(const wn_kv *kv, int lane);   /* of sealed ones */
bool wn_kv_is_encoded(const wn_kv *kv);                 /* are pages of any lane ever sealed? */

/* ---- figures, saving, checking -------------------------------------------------- */

typedef struct {
    size_t bytes;                       /* frames, as if nothing were shared, + positions, masks,
                                           biases */
    size_t bytes_frames, bytes_meta, bytes_ring;
    uint64_t slots, slots_low;          /* live slots; those of them in lower formats */
    uint64_t slots_full;                /* positions x lanes; all outside window lanes */
    uint32_t n_repacks, n_decisions;
} wn_kv_stats;
void wn_kv_get_stats(const wn_kv *kv, wn_kv_stats *out);
uint32_t wn_kv_live(const wn_kv *kv, int lane);         /* live slots of a lane */
bool wn_kv_is_listed(const wn_kv *kv, int lane);        /* has a decision touched it (or is it a
                                                           window lane)? */

/* Everything a sequence needs to go on exactly, as one stream of bytes: geometry, page
 * lists, masks, positions, biases, shifts, raw and sealed frames, ring. The sink may fail. */
typedef struct {
    wn_status (*write)(void *ctx, const void *data, size_t n, wn_err *err);
    void *ctx;
} wn_sink;
typedef struct {
    /* exactly n bytes, or fails */
    wn_status (*read)(void *ctx, void *data, size_t n, wn_err *err);
    void *ctx;
} wn_source;
wn_status wn_kv_save(const wn_kv *kv, wn_sink sink, wn_err *err);
/* Into a freshly opened, empty kv of the same geometry; every number is checked before it
 * is used. On failure the kv is empty again. */
wn_status wn_kv_load(wn_kv *kv, wn_source src, wn_err *err);

void wn_kv_check(const wn_kv *kv);      /* asserts K1..K4 */

#endif
