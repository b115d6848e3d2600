/* base/os.h - the few things we ask the operating system for. */
#ifndef WN_BASE_OS_H
#define WN_BASE_OS_H

#include "base/err.h"

/* Anonymous memory, zeroed, page-aligned, huge pages where the system gives them.
 * touched: made resident now rather than at first use. NULL when out of memory. */
void *wn_os_map(size_t bytes, bool touched);
void wn_os_unmap(void *p, size_t bytes);
void wn_os_touch(void *p, size_t bytes);    /* make resident */
void wn_os_discard(void *p, size_t bytes);  /* give the pages back, keep the addresses (zero when
                                               read) */

/* A file mapped read-only. The size is what fstat said; a file that shrinks while it is
 * mapped is outside what we can guard against. */
typedef struct {
    const uint8_t *data;
    size_t size;
    int fd;
} wn_os_file;
wn_status wn_os_file_open(wn_os_file *out, const char *path, wn_err *err);
void wn_os_file_close(wn_os_file *f);
/* The range will not be read again: its pages may leave this process (whole pages inside the range
 * only). */
void wn_os_file_release(const wn_os_file *f, size_t offset, size_t bytes);
/* Bytes for a file, to a temporary one beside it, synced, renamed: whatever happens, path is what
 * it was or this. */
wn_status wn_os_file_replace(const char *path, const void *data, size_t n, wn_err *err);

/* min(free memory as /proc/meminfo's MemAvailable, what the cgroup still allows), bytes. */
size_t wn_os_mem_available(void);
size_t wn_os_rss(void);                     /* resident set of this process, bytes */
int wn_os_n_cpus(void);                     /* processors this process may use */
uint64_t wn_os_now_us(void);                /* monotonic */

#endif
