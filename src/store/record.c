/* store/record.c - see record.h. The header is written first as zeros and last for real,
 * when the checksum is known; until then the temporary file has no magic. */
#include "store/record.h"
#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

enum { HEADER = 96, HASHED = 80, BUFFER = 1 << 20 };
static const char magic[8] = { 'W', 'I', 'N', 'N', 'O', 'W', 'R', 'C' };

struct wn_record_writer {
    int fd;
    char *path, *temp;
    uint8_t head[HEADER];
    uint64_t n;
    size_t fill;
    XXH3_state_t *sum;
    uint8_t *buffer;
};

static void put_le(uint8_t *p, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void writer_free(wn_record_writer *w)
{
    if (w->fd >= 0) close(w->fd);
    XXH3_freeState(w->sum);
    wn_free(w->path);
    wn_free(w->temp);
    wn_free(w->buffer);
    wn_free(w);
}

static uint32_t version_of(uint32_t kind)
{
    return kind == WN_RECORD_SESSION ? WN_RECORD_VERSION_SESSION : WN_RECORD_VERSION;
}

wn_status wn_record_begin(wn_record_writer **out, const char *path, uint32_t kind,
                          const wn_record_id *id, wn_err *err)
{
    wn_status st;
    *out = NULL;
    wn_record_writer *w = WN_NEW(wn_record_writer);
    if (!w) return wn_fail(err, WN_ENOMEM, "%s: out of memory", path);
    w->fd = -1;
    size_t n = strlen(path) + 32;
    w->path = wn_strdup(path);
    w->temp = wn_alloc(n);
    w->buffer = wn_alloc(BUFFER);
    w->sum = XXH3_createState();
    if (!w->path || !w->temp || !w->buffer || !w->sum) {
        st = wn_fail(err, WN_ENOMEM, "%s: out of memory", path);
        goto fail;
    }
    snprintf(w->temp, n, "%s.%ld.part", path, (long)getpid());
    w->fd = open(w->temp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (w->fd < 0) {
        st = wn_fail(err, WN_EIO, "%s: cannot be created: %s", w->temp, strerror(errno));
        goto fail;
    }
    memcpy(w->head, magic, sizeof magic);
    put_le(w->head + 8, version_of(kind), 4);
    put_le(w->head + 12, kind, 4);
    memcpy(w->head + 16, id->fingerprint, 16);
    memcpy(w->head + 32, id->numerics, 32);
    /* The payload's length is part of the hashed header but not known yet: the payload is
     * hashed first, the header last. */
    XXH3_128bits_reset(w->sum);
    if (pwrite(w->fd, (uint8_t[HEADER]){ 0 }, HEADER, 0) != HEADER) {
        st = wn_fail(err, WN_EIO, "%s: cannot be written: %s", w->temp, strerror(errno));
        goto fail;
    }
    *out = w;
    return WN_OK;
fail:
    if (w->fd >= 0) unlink(w->temp);
    writer_free(w);
    return st;
}

static wn_status flush(wn_record_writer *w, wn_err *err)
{
    for (size_t done = 0; done < w->fill;) {
        ssize_t k = pwrite(w->fd, w->buffer + done, w->fill - done,
                           (off_t)(HEADER + w->n - w->fill + done));
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0)
            return wn_fail(err, WN_EIO, "%s: cannot be written: %s", w->temp, strerror(errno));
        done += (size_t)k;
    }
    w->fill = 0;
    return WN_OK;
}

wn_status wn_record_write(wn_record_writer *w, const void *data, size_t n, wn_err *err)
{
    const uint8_t *p = data;
    XXH3_128bits_update(w->sum, data, n);
    while (n) {
        size_t k = WN_MIN(n, (size_t)BUFFER - w->fill);
        memcpy(w->buffer + w->fill, p, k);
        w->fill += k;
        w->n += k;
        p += k;
        n -= k;
        if (w->fill == BUFFER) {
            wn_status st = flush(w, err);
            if (st) return st;
        }
    }
    return WN_OK;
}

wn_status wn_record_commit(wn_record_writer *w, wn_err *err)
{
    XXH128_canonical_t c;
    wn_status st = flush(w, err);
    put_le(w->head + 64, w->n, 8);
    XXH3_128bits_update(w->sum, w->head, HASHED);
    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(w->sum));
    memcpy(w->head + HASHED, c.digest, 16);
    if (!st && pwrite(w->fd, w->head, HEADER, 0) != HEADER)
        st = wn_fail(err, WN_EIO, "%s: cannot be written: %s", w->temp, strerror(errno));
    if (!st && fdatasync(w->fd))
        st = wn_fail(err, WN_EIO, "%s: cannot be synced: %s", w->temp, strerror(errno));
    if (!st && rename(w->temp, w->path))
        st = wn_fail(err, WN_EIO, "%s: cannot be renamed to %s: %s", w->temp, w->path,
                     strerror(errno));
    if (st) unlink(w->temp);
    writer_free(w);
    return st;
}

void wn_record_abort(wn_record_writer *w)
{
    if (!w) return;
    unlink(w->temp);
    writer_free(w);
}

/* ---- reading ---------------------------------------------------------------------- */

static wn_status check(wn_record *r, const uint8_t *p, size_t size, uint32_t kind, wn_err *err)
{
    if (size < HEADER || memcmp(p, magic, sizeof magic))
        return wn_fail(err, WN_EFORMAT, "not a winnow record (no magic in its first bytes)");
    uint64_t version = get_le(p + 8, 4), got_kind = get_le(p + 12, 4), n = get_le(p + 64, 8);
    if (got_kind != kind)
        return wn_fail(err, WN_EFORMAT, "a record of kind %u, expected kind %u", (unsigned)got_kind,
                       kind);
    if (version != version_of(kind))
        return wn_fail(err, WN_EUNSUPPORTED,
                       "%s version %u, this program reads version %u: it has to be made anew",
                       kind == WN_RECORD_SESSION ? "session" : "calibration", (unsigned)version,
                       version_of(kind));
    if (n != size - HEADER)
        return wn_fail(
            err, WN_EFORMAT,
            "the file holds %zu payload bytes, its header says %llu: it is cut short or damaged",
            size - HEADER, (unsigned long long)n);
    XXH3_state_t *s = XXH3_createState();
    XXH128_canonical_t c;
    if (!s) return wn_fail(err, WN_ENOMEM, "out of memory");
    XXH3_128bits_reset(s);
    XXH3_128bits_update(s, p + HEADER, (size_t)n);
    XXH3_128bits_update(s, p, HASHED);
    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(s));
    XXH3_freeState(s);
    if (memcmp(c.digest, p + HASHED, 16))
        return wn_fail(err, WN_EFORMAT, "the checksum does not match: the file is damaged");
    memcpy(r->sum, c.digest, sizeof r->sum);
    memcpy(r->id.fingerprint, p + 16, 16);
    memcpy(r->id.numerics, p + 32, 32);
    r->id.numerics[31] = '\0';
    r->payload = p + HEADER;
    r->n = (size_t)n;
    r->at = 0;
    return WN_OK;
}

wn_status wn_record_open_memory(wn_record *r, const void *data, size_t n, uint32_t kind,
                                wn_err *err)
{
    *r = (wn_record){ .file = { .fd = -1 } };
    return check(r, data, n, kind, err);
}

wn_status wn_record_open(wn_record *r, const char *path, uint32_t kind, wn_err *err)
{
    *r = (wn_record){ .file = { .fd = -1 } };
    wn_status st = wn_os_file_open(&r->file, path, err);
    if (st) return st;
    if ((st = check(r, r->file.data, r->file.size, kind, err))) {
        wn_os_file_close(&r->file);
        return wn_fail_prefix(err, st, "%s", path);
    }
    return WN_OK;
}

wn_status wn_record_read(wn_record *r, void *data, size_t n, wn_err *err)
{
    if (n > r->n - r->at)
        return wn_fail(err, WN_EFORMAT,
                       "the record ends %zu bytes into its payload, %zu more were expected", r->n,
                       n - (r->n - r->at));
    if (n) memcpy(data, r->payload + r->at, n);
    r->at += n;
    return WN_OK;
}

void wn_record_close(wn_record *r)
{
    wn_os_file_close(&r->file);
    *r = (wn_record){ .file = { .fd = -1 } };
}
