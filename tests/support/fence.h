/* tests/support/fence.h - bytes that end at an unreadable page: reading or writing past them
 * faults. */
#ifndef WN_TEST_FENCE_H
#define WN_TEST_FENCE_H

#include "tests/unit/check.h"

#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    char *map, *p;
    size_t bytes;
} fenced;

static inline fenced fence(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (n + page - 1) / page * page;
    fenced f = { .bytes = body + page };
    f.map = mmap(NULL, f.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(f.map != MAP_FAILED);
    assert_int_equal(mprotect(f.map + body, page, PROT_NONE), 0);
    f.p = f.map + body - n;
    return f;
}

static inline void unfence(fenced *f) { munmap(f->map, f->bytes); }

#endif
