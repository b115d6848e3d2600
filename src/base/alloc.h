/* base/alloc.h - the only door to malloc.
 *
 * Everything the library allocates goes through here, for three reasons: the decode
 * step promises not to allocate, and wn_alloc_forbid() lets a test hold it to that;
 * tests make the n-th allocation fail to see every error path; and `--mem` needs to
 * know how much is held. Threads: counters are atomic; the forbid flag is per thread.
 */
#ifndef WN_BASE_ALLOC_H
#define WN_BASE_ALLOC_H

#include <stddef.h>
#include <stdbool.h>

void *wn_alloc(size_t bytes);                       /* uninitialised; NULL when out of memory */
void *wn_calloc(size_t n, size_t bytes);            /* zeroed; NULL on overflow too */
void *wn_realloc(void *p, size_t bytes);
void wn_free(void *p);                              /* NULL is fine */
char *wn_strdup(const char *s);
char *wn_strndup(const char *s, size_t n);          /* copies exactly n bytes, adds NUL */

/* 64-byte aligned, for vectors; release with wn_free(). */
void *wn_alloc_aligned(size_t bytes);

#define WN_NEW(T) ((T *)wn_calloc(1, sizeof(T)))
#define WN_NEW_ARRAY(T, n) ((T *)wn_calloc((size_t)(n), sizeof(T)))

/* Between forbid(true) and forbid(false), an allocation on this thread aborts. */
void wn_alloc_forbid(bool on);

/* Tests: the n-th allocation from now (1 = the next one) fails; 0 turns this off.
 * wn_fault_clear() turns it off and says whether it fired. */
void wn_fault_alloc(long n);
bool wn_fault_clear(void);

/* Allocations so far in this process (for tests that count). */
long wn_alloc_count(void);

#endif
