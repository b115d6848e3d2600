/* cache/kv_int.h - what the files of the sequence cache share; private to cache/kv*.c.
 *
 *     kv.c         open, close, reserve, put, commit, figures
 *     kv_opts.c    what options come to: sides of lanes, tables, frames
 *     kv_lane.c    pages of a lane: looking them up, growing and cutting lists
 *     kv_span.c    spans: growing, sharing, fork, truncate
 *     kv_seal.c    raw pages that become encoded ones
 *     kv_view.c    the run iterator
 *     kv_apply.c   decisions: checking a plan, masks, biases, shifts
 *     kv_crew.c    the threads that carry a decision out
 *     kv_repack.c  survivors to fresh pages      kv_merge.c   merge slots and their pages
 *     kv_low.c     slots in lower formats
 *     kv_save.c, kv_load.c   as a stream of bytes     kv_check.c   the invariants
 *
 * A span is a pool frame that holds frame ids, so its reference count is the pool's:
 *
 *     span j:  lane 0: k v [ks vs] | lane 1: k v [ks vs] | ...    WN_NO_FRAME: not here
 *
 * A lane is *listed* when it has a page list of its own: after the first decision that
 * masks, merges or biases it, and from the start if it is a window lane. Pages of lanes
 * that are not listed are looked up in the spans and described by a wn_page made on the
 * fly, so that everything that only reads sees one kind of page.
 *
 * What of a page is held follows from `due`, the position of the first query that reads
 * it sealed, so that nothing depends on how a text was cut into passes:
 *
 *     due >= n_reserved                raw
 *     n_committed <= due < n_reserved  raw and sealed (sealed while the pass runs)
 *     due < n_committed                sealed (raw too between a repack and the next pass)
 *
 * A decision made at p == due still finds the page raw: it comes before the query at p.
 */
#ifndef WN_CACHE_KV_INT_H
#define WN_CACHE_KV_INT_H

#include "cache/kv.h"

#include <pthread.h>

enum {
    WN_KV_SPLIT = 512,                  /* positions per split: attention's, see DESIGN section 5 */
    WN_SEGMENTS_MAX = 64,               /* ranges of one shift per lane */
    WN_KV_MAX_POSITIONS = 1 << 28,
};

typedef struct {
    wn_frame_id k, v;                   /* raw, or none */
    wn_frame_id ks, vs;                 /* sealed, or none */
    wn_frame_id pos;                    /* int32_t[P]; none: slot s has position pos0 + s */
    wn_frame_id bias;                   /* float[P], 0 where a slot has none; or none */
    wn_frame_id count;                  /* int32_t[P], merge pages: tokens a slot stands for */
    int32_t pos0, n;                    /* position of slot 0; slots used */
    uint64_t keep;                      /* live slots */
} wn_page;

#define WN_PAGE_EMPTY ((wn_page){ WN_NO_FRAME, WN_NO_FRAME, WN_NO_FRAME, WN_NO_FRAME, WN_NO_FRAME, \
                                  WN_NO_FRAME, WN_NO_FRAME, 0, 0, 0 })

typedef struct { int32_t from, shift; } wn_segment;     /* up to the next one's from */

/* K or V of a lane: what its frames hold. */
typedef struct {
    const wn_format *format, *raw;      /* of sealed pages, of the others; the same: never sealed */
    int dim;
    int lag;                            /* -1: never sealed; else of pages that no decision has
                                           seen, */
    int lag_decided;                    /* and of those that were there at one */
    wn_repack_class repack;             /* of sealed pages */
    const wn_format *low;               /* of demoted slots; NULL: there are none */
    uint8_t raw_class, sealed_class, low_class;     /* of the pool */
} wn_kv_side;

typedef struct {
    wn_kv_side k, v;
    wn_page *pages, *low, *merged;      /* [cap] each; a listed lane's pages, in position order. low
                                           may be NULL */
    int32_t n_pages, n_low, n_merged;
    int32_t tail_page, tail_slot;       /* listed: where position n_committed goes (while
                                           reserved) */
    int32_t decided_at;                 /* position of the last decision, -1: none */
    int32_t gone_below;                 /* window lanes: positions below are dropped */
    uint32_t live;                      /* listed: committed live slots */
    bool listed;
    int32_t n_segments;                 /* 0: no shifts */
    wn_segment segments[WN_SEGMENTS_MAX];
} wn_kv_lane;

/* A decision is carried out twice by the same code: first with a tally, which counts the
 * frames taken and given back, in order, and changes nothing; then for good. */
typedef struct { int64_t now[WN_POOL_CLASSES], peak[WN_POOL_CLASSES]; } wn_tally;

/* What a decision does to a lane, found before anything is done. */
typedef struct {
    wn_tally tally;
    wn_status status;
    bool changes, begins;               /* anything; and the lane gets a page list */
} wn_lane_cost;

/* Scratch of one decision, for one lane at a time. */
typedef struct {
    uint64_t *bits_live, *bits_at, *bits_low;   /* over positions */
    int32_t *merge_at;                  /* [max_positions] plan merge that lands there */
    uint64_t *masks, *low_masks, *merged_masks; /* [cap] */
    wn_page *fresh;                     /* [cap] */
    float *row, *row_sum;               /* [largest k_dim or v_dim] */
    void *raw_page[2];                  /* K and V of a page that is being encoded */
} wn_lane_desk;

struct wn_kv {
    wn_pool *pool;
    pthread_mutex_t *lock;              /* of the pool, while several carry a decision out; else
                                           NULL */
    const wn_lane_map *map;
    wn_lane_formats *formats;           /* (n_lanes) as given, for forks */
    const wn_format *raw_format;
    int P, max_positions, ring_rows, q_dim, lag, every;
    int lag_most;                       /* of all lanes; -1: nothing is ever sealed */
    int span_class, pos_class, span_stride;
    int n_committed, n_reserved;
    int n_spans, n_unlisted;
    bool tail_owned;                    /* the open page's frames are known to be private */
    int ring_from;                      /* positions [ring_from, n_committed) are in the ring */
    uint32_t n_repacks, n_decisions;
    int cap;                            /* pages per list */
    unsigned char *tables;
    size_t table_bytes, ring_bytes;
    wn_frame_id *spans;                 /* [cap] */
    wn_kv_lane *lanes;
    float *ring;                        /* [n_layers][ring_rows][q_dim] */
    wn_lane_cost *costs;                /* (n_lanes) of a decision */
    wn_lane_desk desk;
};

/* ---- pages (kv_lane.c) ------------------------------------------------------------- */

static inline int wn_pages_of(int n, int P) { return (n + P - 1) / P; }

static inline void *wn_kv_addr(const wn_kv *kv, wn_frame_id f) { return wn_pool_addr(kv->pool, f); }
static inline wn_frame_id *wn_span_lane(const wn_kv *kv, int span, int lane)
{
    return (wn_frame_id *)wn_kv_addr(kv, kv->spans[span]) + (size_t)lane * (size_t)kv->span_stride;
}

int wn_kv_n_pages(const wn_kv *kv, int lane);           /* ordinary pages, reserved ones included */
wn_page wn_kv_page(const wn_kv *kv, int lane, int i);
int32_t wn_page_pos(const wn_kv *kv, const wn_page *pg, int slot);
wn_page_place wn_page_place_of(const wn_kv *kv, const wn_page *pg);
static inline int32_t wn_page_last(const wn_kv *kv, const wn_page *pg)
{
    return wn_page_pos(kv, pg, pg->n - 1);
}
/* The first slot whose position is >= pos (pg->n when none is). */
int wn_page_find(const wn_kv *kv, const wn_page *pg, int32_t pos);
/* The lists of a lane, in the order in which their slots are read. */
enum { WN_LIST_PAGES, WN_LIST_LOW, WN_LIST_MERGED, WN_LISTS };
int wn_kv_list(const wn_kv *kv, int lane, int list);    /* pages in it */
wn_page wn_kv_list_page(const wn_kv *kv, int lane, int list, int i);
/* The same where it lies; a page of spans is described in *made. */
const wn_page *wn_kv_look_at(const wn_kv *kv, int lane, int list, int i, wn_page *made);
/* Of the set bits from the lowest on, those without a gap. */
static inline int wn_low_run(uint64_t b) { return ~b ? __builtin_ctzll(~b) : 64; }
/* The page of a list whose last position is >= pos, first such; its length when none is. */
int wn_kv_find_page(const wn_kv *kv, int lane, int list, int32_t pos);
int32_t wn_kv_shift_at(const wn_kv_lane *l, int32_t pos, int32_t *end);

/* Takes a zeroed frame: room has been made sure of. With need, counts it instead. */
wn_frame_id wn_kv_take(wn_kv *kv, int cls, uint32_t *need);
static inline void wn_kv_lock(const wn_kv *kv) { if (kv->lock) pthread_mutex_lock(kv->lock); }
static inline void wn_kv_unlock(const wn_kv *kv) { if (kv->lock) pthread_mutex_unlock(kv->lock); }
static inline void wn_kv_drop(wn_kv *kv, wn_frame_id *f)
{
    if (wn_frame_ok(*f)) {
        wn_kv_lock(kv);
        wn_pool_drop(kv->pool, *f);
        wn_kv_unlock(kv);
    }
    *f = WN_NO_FRAME;
}
/* Makes *f a frame of this sequence alone, its bytes copied. */
void wn_kv_own(wn_kv *kv, wn_frame_id *f, int cls, uint32_t *need);
void wn_pages_drop(wn_kv *kv, wn_page *pages, int n);
static inline void wn_page_drop(wn_kv *kv, wn_page *pg) { wn_pages_drop(kv, pg, 1); }
/* Raw rows can still be appended to it (as the last page of its lane). */
static inline bool wn_page_is_open(const wn_kv *kv, const wn_page *pg)
{
    return pg->n < kv->P && wn_frame_ok(pg->k) && wn_frame_ok(pg->v);
}

/* Slots for positions [n_reserved, target) of a listed lane, or their cost in need. */
void wn_list_grow(wn_kv *kv, int lane, int target, uint32_t *need);
void wn_list_cut(wn_kv *kv, int lane, int n_slots);     /* the last n_slots slots */
/* A lane's frames leave the spans, which are private or about to be given up by all. */
void wn_list_begin(wn_kv *kv, int lane);

/* ---- spans (kv_span.c) -------------------------------------------------------------- */

void wn_span_grow(wn_kv *kv, int target, uint32_t *need);
void wn_span_drop(wn_kv *kv, wn_frame_id *span);
/* Replaces a shared span by one of this sequence alone that names the same frames. */
void wn_span_private(wn_kv *kv, int j, uint32_t *need);
/* Gives back what is reserved beyond target. */
void wn_kv_shrink(wn_kv *kv, int target);
void wn_kv_clear(wn_kv *kv);                            /* as freshly opened */

/* ---- decisions (kv_apply.c, kv_repack.c, kv_merge.c) --------------------------------- */

/* With a tally, a name that must not be looked into. */
wn_frame_id wn_tally_take(wn_kv *kv, int cls, wn_tally *t);
/* Page i of a list (an ordinary one as it is in the spans or the list) goes away. */
void wn_tally_drop_page(wn_kv *kv, int lane, int i, wn_page *pg, int list, wn_tally *t);

/* The live slot of a lane at pos, and the list it is in; WN_LISTS when there is none. */
int wn_kv_find_slot(const wn_kv *kv, int lane, int32_t pos, wn_page *pg, int *slot);

/* Ordinary pages get the masks in the desk's masks; empty ones go, and when that makes enough room
 * the rest is repacked. Returns how many pages there are afterwards. */
int wn_repack_lane(wn_kv *kv, int lane, bool repack, wn_tally *t);
/* The same for merge pages and merged_masks, and in go the merges of bits_at. */
int wn_merge_lane(wn_kv *kv, int lane, const wn_plan *plan, wn_tally *t);
/* The same for demoted slots and low_masks, and in go the n_new ordinary slots of bits_low,
 * the first of them at first_new. Before the ordinary pages are rewritten. */
int wn_low_lane(wn_kv *kv, int lane, int n_new, int32_t first_new, bool repack, wn_tally *t);

/* ---- what options come to (kv_opts.c) -------------------------------------------------- */

/* Where everything lies in the mapping. */
typedef struct {
    size_t lanes, formats, spans, pages, low_pages, costs, desk, ring;
    size_t end, ring_bytes;
    int cap;
} wn_kv_layout;

wn_status wn_opts_check(const wn_kv_opts *o, wn_err *err);
int wn_opts_slots(const wn_kv_opts *o);                 /* of a page */
int wn_opts_lag_most(const wn_kv_opts *o);              /* -1: all formats are raw */
int wn_opts_span_stride(const wn_kv_opts *o);
bool wn_opts_demote(const wn_kv_opts *o);
wn_lane_formats wn_opts_formats(const wn_kv_opts *o, int lane);
/* The sides of a lane and what all lanes share, with their pool classes. */
wn_status wn_opts_sides(const wn_kv_opts *o, int lane, wn_kv_side *k, wn_kv_side *v, wn_err *err);
wn_status wn_opts_shared_classes(const wn_kv_opts *o, int *span, int *pos, wn_err *err);
wn_kv_layout wn_opts_lay_out(const wn_kv_opts *o);
/* The desk at base, or (NULL) its bytes. */
size_t wn_kv_desk_at(const wn_kv_opts *o, unsigned char *base, wn_lane_desk *d);

/* ---- several threads (kv_crew.c) ------------------------------------------------------ */

/* NULL where the crew (or none) cannot help with this sequence: its caller does it alone. */
wn_kv_crew *wn_crew_for(wn_kv_crew *c, const wn_kv *kv);
int wn_crew_size(const wn_kv_crew *c);
/* Runs a part for each lane. */
void wn_crew_run(wn_kv_crew *c, wn_kv *kv, wn_part_fn *part, void *arg);
/* The sequence as this thread has it in a part: the same lanes, a desk of its own. */
wn_kv *wn_crew_kv(wn_kv_crew *c, wn_kv *kv, int thread);

/* ---- sealing (kv_seal.c) ------------------------------------------------------------ */

/* Of a closed page with this last position. Later pages are due later: those that a decision
 * has seen come first, and their lag is not the longer one. */
static inline int32_t wn_page_due(const wn_kv *kv, const wn_kv_lane *l, const wn_kv_side *s,
                                  int32_t last)
{
    int lag = l->listed && last < l->decided_at ? s->lag_decided : s->lag;
    return kv->P * (last / kv->P + 1 + lag);
}
/* The first query that reads the page sealed; INT32_MAX while it is open or for raw formats. */
int32_t wn_kv_due(const wn_kv *kv, int lane, int i, const wn_page *pg, const wn_kv_side *s);
static inline bool wn_kv_seals(const wn_kv *kv) { return kv->lag_most >= 0; }
/* frames for pages due before target */
void wn_seal_reserve(wn_kv *kv, int target, uint32_t *need);
void wn_seal_put(wn_kv *kv, int lane, int end);  /* rows up to end are written: encodes */
void wn_seal_commit(wn_kv *kv);  /* drops raw frames no later query reads */
/* gives back sealed frames that no query before target reads */
void wn_seal_undo(wn_kv *kv, int target);

#endif
