/* gguf/write.c - a GGUF v3 file, front to back.
 *
 * Keys and tensor descriptions collect in two buffers while they are put; the first call
 * for data writes
 *
 *     magic 3 n_tensors n_kv | keys | tensors | pad | data pad data pad ...
 *
 * Offsets are known as soon as a tensor is described, because its size follows from type
 * and shape: nothing is written twice and nothing seeks.
 */
#include "gguf/write.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    uint8_t *p;
    size_t n, cap;
} buffer;

struct wn_gguf_writer {
    char *path;
    FILE *f;
    wn_err err;                     /* the first failure; status WN_OK while there is none */
    buffer kv, tensors;
    uint64_t n_kv, n_tensors;
    uint32_t alignment;
    size_t offset;                  /* where the data of the next tensor to be put goes */
    size_t *bytes;                  /* (n_tensors) data bytes of each, without padding */
    size_t cap_bytes;
    bool header_done;
    uint64_t current;               /* tensor whose data comes next */
    size_t filled;                  /* bytes of it that are written */
};

static void add(wn_gguf_writer *w, buffer *b, const void *p, size_t n)
{
    if (w->err.status) return;
    if (b->cap - b->n < n) {
        size_t cap = b->cap * 2 + n + 4096;
        uint8_t *more = wn_realloc(b->p, cap);
        if (!more) {
            wn_fail(&w->err, WN_ENOMEM, "%s: out of memory for a header of %zu bytes", w->path,
                    cap);
            return;
        }
        b->p = more;
        b->cap = cap;
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void add_u32(wn_gguf_writer *w, buffer *b, uint32_t v) { add(w, b, &v, sizeof v); }
static void add_u64(wn_gguf_writer *w, buffer *b, uint64_t v) { add(w, b, &v, sizeof v); }

static void add_str(wn_gguf_writer *w, buffer *b, const char *s)
{
    add_u64(w, b, strlen(s));
    add(w, b, s, strlen(s));
}

static void add_key(wn_gguf_writer *w, const char *key, wn_kv_type type)
{
    WN_ASSERT(!w->header_done);
    add_str(w, &w->kv, key);
    add_u32(w, &w->kv, (uint32_t)type);
    w->n_kv++;
}

static void put(wn_gguf_writer *w, const char *key, wn_kv_type type, const void *v, size_t bytes)
{
    add_key(w, key, type);
    add(w, &w->kv, v, bytes);
}

static void put_array(wn_gguf_writer *w, const char *key, wn_kv_type item, size_t n)
{
    add_key(w, key, WN_KV_ARRAY);
    add_u32(w, &w->kv, (uint32_t)item);
    add_u64(w, &w->kv, n);
}

wn_status wn_gguf_writer_open(wn_gguf_writer **out, const char *path, wn_err *err)
{
    wn_gguf_writer *w = WN_NEW(wn_gguf_writer);
    *out = NULL;
    if (!w || !(w->path = wn_strdup(path))) {
        wn_free(w);
        return wn_fail(err, WN_ENOMEM, "%s: out of memory", path);
    }
    w->alignment = 32;
    w->f = fopen(path, "wbe");
    if (!w->f) {
        wn_status st = wn_fail(err, WN_EIO, "%s: %s", path, strerror(errno));
        wn_free(w->path);
        wn_free(w);
        return st;
    }
    *out = w;
    return WN_OK;
}

void wn_gguf_put_u32(wn_gguf_writer *w, const char *key, uint32_t v)
{
    put(w, key, WN_KV_U32, &v, sizeof v);
    if (strcmp(key, "general.alignment") || w->err.status) return;
    if (v == 0 || v % 8 || (v & (v - 1)) || w->n_tensors)
        wn_fail(&w->err, WN_EINVAL, "%s: alignment %u (a power of two from 8, put before tensors)",
                w->path, v);
    else w->alignment = v;
}

void wn_gguf_put_u16(wn_gguf_writer *w, const char *key, uint16_t v)
{
    put(w, key, WN_KV_U16, &v, sizeof v);
}

void wn_gguf_put_f32(wn_gguf_writer *w, const char *key, float v)
{
    put(w, key, WN_KV_F32, &v, sizeof v);
}

void wn_gguf_put_bool(wn_gguf_writer *w, const char *key, bool v)
{
    put(w, key, WN_KV_BOOL, &(uint8_t){ v }, 1);
}

void wn_gguf_put_string(wn_gguf_writer *w, const char *key, const char *v)
{
    add_key(w, key, WN_KV_STRING);
    add_str(w, &w->kv, v);
}

void wn_gguf_put_strings(wn_gguf_writer *w, const char *key, const char *const *v, size_t n)
{
    put_array(w, key, WN_KV_STRING, n);
    for (size_t i = 0; i < n; i++) add_str(w, &w->kv, v[i]);
}

void wn_gguf_put_i32s(wn_gguf_writer *w, const char *key, const int32_t *v, size_t n)
{
    put_array(w, key, WN_KV_I32, n);
    add(w, &w->kv, v, n * sizeof *v);
}

void wn_gguf_put_f32s(wn_gguf_writer *w, const char *key, const float *v, size_t n)
{
    put_array(w, key, WN_KV_F32, n);
    add(w, &w->kv, v, n * sizeof *v);
}

static size_t padding(const wn_gguf_writer *w, size_t n)
{
    return (w->alignment - n % w->alignment) % w->alignment;
}

void wn_gguf_put_tensor(wn_gguf_writer *w, const char *name, wn_type type, int n_dims,
                        const int64_t *ne)
{
    const wn_type_info *info = wn_type_find((uint32_t)type);
    WN_ASSERT(!w->header_done);
    if (w->err.status) return;
    bool fits = info && n_dims >= 1 && n_dims <= 4 && ne[0] % info->block == 0;
    for (int i = 0; fits && i < n_dims; i++) fits = ne[i] >= 1;
    if (!fits) {
        wn_fail(&w->err, WN_EINVAL,
                "%s: tensor %s: type %d does not go with %d dimensions, rows of %lld", w->path,
                name, (int)type, n_dims, n_dims > 0 ? (long long)ne[0] : 0);
        return;
    }
    size_t bytes = wn_type_row_bytes(type, ne[0]);
    add_str(w, &w->tensors, name);
    add_u32(w, &w->tensors, (uint32_t)n_dims);
    for (int i = 0; i < n_dims; i++) {
        add_u64(w, &w->tensors, (uint64_t)ne[i]);
        if (i) bytes *= (size_t)ne[i];
    }
    add_u32(w, &w->tensors, (uint32_t)type);
    add_u64(w, &w->tensors, w->offset);
    w->offset += bytes + padding(w, bytes);
    if (w->n_tensors == w->cap_bytes) {
        size_t cap = w->cap_bytes * 2 + 64, *more = wn_realloc(w->bytes, cap * sizeof *more);
        if (!more) {
            wn_fail(&w->err, WN_ENOMEM, "%s: out of memory for %zu tensors", w->path, cap);
            return;
        }
        w->bytes = more;
        w->cap_bytes = cap;
    }
    w->bytes[w->n_tensors++] = bytes;
}

static void emit(wn_gguf_writer *w, const void *p, size_t n)
{
    if (!w->err.status && n && fwrite(p, 1, n, w->f) != n)
        wn_fail(&w->err, WN_EIO, "%s: write: %s", w->path, strerror(errno));
}

static void emit_padding(wn_gguf_writer *w, size_t after)
{
    static const uint8_t zeros[256];
    for (size_t n = padding(w, after); n > 0;) {
        size_t part = WN_MIN(n, sizeof zeros);
        emit(w, zeros, part);
        n -= part;
    }
}

static void write_header(wn_gguf_writer *w)
{
    struct { char magic[4]; uint32_t version; uint64_t n_tensors, n_kv; } front = {
        { 'G', 'G', 'U', 'F' }, 3, w->n_tensors, w->n_kv
    };
    emit(w, &front, sizeof front);
    emit(w, w->kv.p, w->kv.n);
    emit(w, w->tensors.p, w->tensors.n);
    emit_padding(w, sizeof front + w->kv.n + w->tensors.n);
    w->header_done = true;
}

static wn_status report(const wn_gguf_writer *w, wn_err *err)
{
    return w->err.status ? wn_fail(err, w->err.status, "%s", w->err.text) : WN_OK;
}

wn_status wn_gguf_writer_data(wn_gguf_writer *w, const void *data, size_t bytes, wn_err *err)
{
    if (!w->header_done && !w->err.status) write_header(w);
    if (w->err.status) return report(w, err);
    if (w->current == w->n_tensors || bytes > w->bytes[w->current] - w->filled) {
        wn_fail(&w->err, WN_EINVAL,
                "%s: %zu bytes of data are more than tensor %llu of %llu has room for", w->path,
                bytes, (unsigned long long)w->current, (unsigned long long)w->n_tensors);
        return report(w, err);
    }
    emit(w, data, bytes);
    w->filled += bytes;
    if (w->filled == w->bytes[w->current]) {
        emit_padding(w, w->filled);
        w->current++;
        w->filled = 0;
    }
    return report(w, err);
}

/* Only what we made ourselves: a path may name a device. */
static bool regular(FILE *f)
{
    struct stat st;
    return !fstat(fileno(f), &st) && S_ISREG(st.st_mode);
}

wn_status wn_gguf_writer_close(wn_gguf_writer *w, wn_err *err)
{
    if (!w) return WN_OK;
    bool file = regular(w->f);
    if (!w->header_done && !w->err.status) write_header(w);
    if (!w->err.status && w->current < w->n_tensors)
        wn_fail(&w->err, WN_EINVAL, "%s: tensor %llu of %llu is not complete", w->path,
                (unsigned long long)w->current, (unsigned long long)w->n_tensors);
    if (fclose(w->f) && !w->err.status)
        wn_fail(&w->err, WN_EIO, "%s: close: %s", w->path, strerror(errno));
    if (w->err.status && file) remove(w->path);
    wn_status st = report(w, err);
    wn_free(w->kv.p);
    wn_free(w->tensors.p);
    wn_free(w->bytes);
    wn_free(w->path);
    wn_free(w);
    return st;
}
