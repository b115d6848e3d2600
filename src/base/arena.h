/* base/arena.h - scratch that lives for a step and is given back all at once.
 *
 * An arena is one block, sized when it is opened; taking from it is an addition. It
 * never grows: running out is our mistake in sizing (an assertion), because the step
 * must not allocate. Sanitizer builds poison rewound memory and leave a red zone after
 * each block, so that a stale or overrun pointer is found.
 */
#ifndef WN_BASE_ARENA_H
#define WN_BASE_ARENA_H

#include "base/err.h"

typedef struct {
    unsigned char *base;
    size_t size, used, peak;
} wn_arena;
typedef size_t wn_mark;

/* Maps size bytes (rounded up to pages); touched says whether they are made resident. */
wn_status wn_arena_init(wn_arena *a, size_t size, bool touched, wn_err *err);
void wn_arena_release(wn_arena *a);

/* 64-byte aligned, uninitialised. */
void *wn_arena_take(wn_arena *a, size_t bytes);
static inline wn_mark wn_arena_mark(const wn_arena *a) { return a->used; }
void wn_arena_rewind(wn_arena *a, wn_mark m);

#define wn_arena_array(a, T, n) ((T *)wn_arena_take((a), sizeof(T) * (size_t)(n)))

/* What n bytes will use of an arena, red zone and alignment included: for sizing. */
size_t wn_arena_cost(size_t bytes);

#endif
