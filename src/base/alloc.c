/* base/alloc.c - malloc behind one door: see alloc.h for why. The checks cost one
 * thread-local load and one relaxed atomic add, and nothing here is on a hot path:
 * steps take their scratch from arenas. */
#include "base/alloc.h"
#include "base/err.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local bool forbidden;
static atomic_long n_allocs;
static atomic_long fault_at;            /* counts down; fires when it reaches 0 */
static atomic_bool fault_fired;

/* Called before each allocation; false means: pretend the system has no memory. */
static bool admit(void)
{
    if (forbidden) wn_assert_failed("no allocation in this step", __FILE__, __LINE__);
    atomic_fetch_add_explicit(&n_allocs, 1, memory_order_relaxed);
    if (atomic_load_explicit(&fault_at, memory_order_relaxed) > 0 &&
        atomic_fetch_sub(&fault_at, 1) == 1) {
        atomic_store(&fault_fired, true);
        return false;
    }
    return true;
}

void *wn_alloc(size_t bytes) { return admit() ? malloc(bytes ? bytes : 1) : NULL; }

void *wn_calloc(size_t n, size_t bytes)
{
    size_t total;                       /* sanitizers abort on an overflow that libc refuses */
    if (__builtin_mul_overflow(n, bytes, &total)) return NULL;
    return admit() ? calloc(n ? n : 1, bytes ? bytes : 1) : NULL;
}

void *wn_realloc(void *p, size_t bytes) { return admit() ? realloc(p, bytes ? bytes : 1) : NULL; }

void *wn_alloc_aligned(size_t bytes)
{
    if (bytes > SIZE_MAX - 64) return NULL;
    return admit() ? aligned_alloc(64, (bytes + 63) / 64 * 64 + (bytes ? 0 : 64)) : NULL;
}

void wn_free(void *p) { free(p); }

char *wn_strndup(const char *s, size_t n)
{
    char *p = wn_alloc(n + 1);
    if (p) {
        memcpy(p, s, n);
        p[n] = '\0';
    }
    return p;
}

char *wn_strdup(const char *s) { return wn_strndup(s, strlen(s)); }

void wn_alloc_forbid(bool on) { forbidden = on; }

void wn_fault_alloc(long n)
{
    atomic_store(&fault_fired, false);
    atomic_store(&fault_at, n);
}

bool wn_fault_clear(void)
{
    atomic_store(&fault_at, 0);
    return atomic_load(&fault_fired);
}

long wn_alloc_count(void) { return atomic_load(&n_allocs); }
