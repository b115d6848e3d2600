/* base/arena.c - see arena.h. The block is mapped, not malloc'ed: a large arena that is
 * only partly used costs only the part that was touched. */
#include "base/arena.h"
#include "base/os.h"

#if defined(__SANITIZE_ADDRESS__)
#define ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASAN 1
#endif
#endif
#ifdef ASAN
#include <sanitizer/asan_interface.h>
enum { RED_ZONE = 64 };
#define POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
enum { RED_ZONE = 0 };
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

size_t wn_arena_cost(size_t bytes) { return (bytes + 63) / 64 * 64 + RED_ZONE; }

wn_status wn_arena_init(wn_arena *a, size_t size, bool touched, wn_err *err)
{
    *a = (wn_arena){ 0 };
    a->base = wn_os_map(size, touched);
    if (!a->base) return wn_fail(err, WN_ENOMEM, "scratch of %zu bytes: out of memory", size);
    a->size = size;
    POISON(a->base, size);
    return WN_OK;
}

void wn_arena_release(wn_arena *a)
{
    if (a->base) {
        UNPOISON(a->base, a->size);
        wn_os_unmap(a->base, a->size);
    }
    *a = (wn_arena){ 0 };
}

void *wn_arena_take(wn_arena *a, size_t bytes)
{
    size_t cost = wn_arena_cost(bytes);
    unsigned char *p = a->base + a->used;
    WN_ASSERT(cost >= bytes && cost <= a->size - a->used);
    a->used += cost;
    if (a->used > a->peak) a->peak = a->used;
    UNPOISON(p, bytes);
    return p;
}

void wn_arena_rewind(wn_arena *a, wn_mark m)
{
    WN_ASSERT(m <= a->used);
    POISON(a->base + m, a->used - m);
    a->used = m;
}
