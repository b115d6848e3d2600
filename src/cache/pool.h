/* cache/pool.h - a fixed amount of memory, handed out as frames by number.
 *
 * The pool owns one mapping, cut into extents of 2 MiB. An extent serves frames of one
 * size (a multiple of 64 bytes, at most an extent). Callers hold frame ids, never
 * pointers across steps, so that frames can be moved and a sparse extent emptied and
 * given back. Frames carry references: forks and spans share them.
 *
 *     extent | frame | frame | ... | slack |      one frame size per extent
 *     refs   |   1   |   3   | ... |               0 means free
 *
 * A frame id is (extent, index in extent). A frame size is registered once as a class;
 * each class keeps a list of extents with free frames (lowest extent first, so that
 * sparse high extents empty by themselves).
 *
 * Invariants (wn_pool_check() verifies all of them):
 *   P1  free frames + frames with refs > 0 == frames of all extents in use
 *   P2  a frame on a free list has refs == 0
 *   P3  an extent all of whose frames are free belongs to no class (it can serve any size)
 *   P4  bytes_used == sum of frame sizes with refs > 0
 * Threads: the engine thread owns the pool. After wn_pool_open() nothing allocates.
 */
#ifndef WN_CACHE_POOL_H
#define WN_CACHE_POOL_H

#include "base/err.h"

enum { WN_EXTENT_BYTES = 2 << 20, WN_POOL_CLASSES = 32 };

typedef struct wn_pool wn_pool;
typedef struct { uint32_t i; } wn_frame_id;             /* not interchangeable with a position */
#define WN_NO_FRAME ((wn_frame_id){ UINT32_MAX })
static inline bool wn_frame_ok(wn_frame_id f) { return f.i != UINT32_MAX; }

typedef struct {
    size_t bytes;                       /* rounded up to whole extents */
    bool touch;                         /* make it resident at once (a promise, not a hope) */
} wn_pool_opts;

wn_status wn_pool_open(wn_pool **out, const wn_pool_opts *opts, wn_err *err);
void wn_pool_close(wn_pool *p);

/* Registers a frame size (rounded up to 64) and returns its class; the same size gives the
 * same class. -1 when there are WN_POOL_CLASSES sizes already or the size exceeds an extent. */
int wn_pool_class(wn_pool *p, size_t frame_bytes);

/* Take a frame of a class, refs = 1. WN_EFULL when no frame and no free extent is left. */
wn_status wn_pool_take(wn_pool *p, int cls, wn_frame_id *out);
void wn_pool_ref(wn_pool *p, wn_frame_id f);            /* one more reference */
void wn_pool_drop(wn_pool *p, wn_frame_id f);           /* the last drop frees the frame */
uint32_t wn_pool_refs(const wn_pool *p, wn_frame_id f);
void *wn_pool_addr(const wn_pool *p, wn_frame_id f);    /* valid until frames may move: within a
                                                           step */
size_t wn_pool_frame_bytes(const wn_pool *p, wn_frame_id f);
uint32_t wn_pool_frames_per_extent(const wn_pool *p, int cls);  /* 0: no such class */

/* Can n frames of class a (and then more of others) be taken? counts[cls] frames of each
 * class at once, free frames and free extents considered. */
bool wn_pool_fits(const wn_pool *p, const uint32_t counts[WN_POOL_CLASSES]);

typedef struct {
    size_t bytes, bytes_used, bytes_peak;   /* mapped; in frames with refs > 0; its maximum */
    size_t bytes_slack;                     /* in extents of a class, not in used frames */
    uint32_t n_extents, n_extents_used, n_frames_used;
} wn_pool_stats;
void wn_pool_get_stats(const wn_pool *p, wn_pool_stats *out);
/* Frames of a class in use, and the most since the pool was opened or the peak was reset. */
void wn_pool_class_use(const wn_pool *p, int cls, uint32_t *used, uint32_t *peak);
void wn_pool_reset_peak(wn_pool *p);
/* Gives the memory of free extents back to the system (they stay mapped, untouched). */
void wn_pool_trim(wn_pool *p);
void wn_pool_check(const wn_pool *p);                   /* asserts P1..P4 */

#endif
