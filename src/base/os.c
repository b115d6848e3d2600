/* base/os.c - mappings, memory limits, time: Linux behind plain functions. */
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };

void *wn_os_map(size_t bytes, bool touched)
{
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (bytes >= (size_t)2 << 20) madvise(p, bytes, MADV_HUGEPAGE);
    if (touched) wn_os_touch(p, bytes);
    return p;
}

void wn_os_unmap(void *p, size_t bytes)
{
    if (p) munmap(p, bytes ? bytes : 1);
}

void wn_os_touch(void *p, size_t bytes)
{
    volatile unsigned char *c = p;
    for (size_t i = 0; i < bytes; i += PAGE) c[i] = c[i];
}

void wn_os_discard(void *p, size_t bytes) { madvise(p, bytes, MADV_DONTNEED); }

wn_status wn_os_file_open(wn_os_file *out, const char *path, wn_err *err)
{
    struct stat st;
    wn_status s;
    *out = (wn_os_file){ .fd = open(path, O_RDONLY | O_CLOEXEC) };
    if (out->fd < 0) {
        s = wn_fail(err, WN_EIO, "%s: %s", path, strerror(errno));
        goto fail;
    }
    if (fstat(out->fd, &st)) {
        s = wn_fail(err, WN_EIO, "%s: %s", path, strerror(errno));
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        s = wn_fail(err, WN_EFORMAT, "%s: not a regular file", path);
        goto fail;
    }
    if (st.st_size == 0) {
        s = wn_fail(err, WN_EFORMAT, "%s: the file is empty", path);
        goto fail;
    }
    out->size = (size_t)st.st_size;
    void *p = mmap(NULL, out->size, PROT_READ, MAP_SHARED, out->fd, 0);
    if (p == MAP_FAILED) {
        s = wn_fail(err, WN_EIO, "%s: cannot be mapped: %s", path, strerror(errno));
        goto fail;
    }
    out->data = p;
    return WN_OK;
fail:
    if (out->fd >= 0) close(out->fd);
    *out = (wn_os_file){ .fd = -1 };
    return s;
}

void wn_os_file_close(wn_os_file *f)
{
    if (f->data) munmap((void *)f->data, f->size);
    if (f->data && f->fd >= 0) close(f->fd);
    *f = (wn_os_file){ .fd = -1 };
}

void wn_os_file_release(const wn_os_file *f, size_t offset, size_t bytes)
{
    size_t from = (offset + PAGE - 1) / PAGE * PAGE;
    size_t to = (offset + bytes) / PAGE * PAGE;
    if (to > from) madvise((void *)(f->data + from), to - from, MADV_DONTNEED);
}

wn_status wn_os_file_replace(const char *path, const void *data, size_t n, wn_err *err)
{
    char temp[4096];
    wn_status st = WN_OK;
    if ((size_t)snprintf(temp, sizeof temp, "%s.%ld.tmp", path, (long)getpid()) >= sizeof temp)
        return wn_fail(err, WN_EIO, "%.200s...: the path is too long", path);
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    size_t at = 0;
    ssize_t k = 1;
    while (fd >= 0 && at < n && (k = write(fd, (const char *)data + at, n - at)) > 0)
        at += (size_t)k;
    if (fd < 0 || at < n || fdatasync(fd) || rename(temp, path))
        st = wn_fail(err, WN_EIO, "%s: cannot be written: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    if (st) unlink(temp);
    return st;
}

static bool read_text(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, buf, size - 1);
    close(fd);
    if (n < 0) return false;
    buf[n] = '\0';
    return true;
}

/* What cgroup v2 still allows us: memory.max - memory.current, reclaimable file cache
 * not counted as used. SIZE_MAX without a limit. */
static size_t cgroup_left(void)
{
    char buf[8192];
    size_t max, cur, file = 0;
    if (!read_text("/sys/fs/cgroup/memory.max", buf, sizeof buf) || !strncmp(buf, "max", 3))
        return SIZE_MAX;
    max = strtoull(buf, NULL, 10);
    if (!read_text("/sys/fs/cgroup/memory.current", buf, sizeof buf)) return SIZE_MAX;
    cur = strtoull(buf, NULL, 10);
    if (read_text("/sys/fs/cgroup/memory.stat", buf, sizeof buf)) {
        const char *s = strstr(buf, "\nfile ");
        if (s) file = strtoull(s + 6, NULL, 10);
    }
    cur = cur > file ? cur - file : 0;
    return max > cur ? max - cur : 0;
}

size_t wn_os_mem_available(void)
{
    char buf[8192];
    size_t avail = (size_t)1 << 30, group = cgroup_left();
    if (read_text("/proc/meminfo", buf, sizeof buf)) {
        const char *s = strstr(buf, "MemAvailable:");
        if (s) avail = strtoull(s + 13, NULL, 10) * 1024;
    }
    return WN_MIN(avail, group);
}

size_t wn_os_rss(void)
{
    char buf[256];
    char *end;
    if (!read_text("/proc/self/statm", buf, sizeof buf)) return 0;
    strtoull(buf, &end, 10);
    return strtoull(end, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

int wn_os_n_cpus(void)
{
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) return WN_MAX(CPU_COUNT(&set), 1);
    return 1;
}

uint64_t wn_os_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}
