/* gguf/gguf.c - opens model files and answers questions about them.
 *
 * Each part of a split model is opened as a model of its own, checked against what the
 * first part says about the set, and emptied into the first: its mapping and its tensors
 * move over, its keys (which only describe the split) go. What remains is one wn_gguf
 * whose tensors know which mapping they lie in.
 */
#include "gguf/parse.h"

#include "base/alloc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS_MAX = 99999 };             /* five digits in a part's name */

/* ---- opening ------------------------------------------------------------------------ */

static wn_gguf *new_gguf(const char *path)
{
    wn_gguf *g = WN_NEW(wn_gguf);
    if (!g) return NULL;
    g->path = wn_strdup(path);
    g->files = WN_NEW_ARRAY(wn_os_file, 1);
    if (g->path && g->files) {
        g->files[0].fd = -1;
        g->n_files = 1;
        return g;
    }
    wn_gguf_close(g);
    return NULL;
}

void wn_gguf_close(wn_gguf *g)
{
    if (!g) return;
    for (size_t i = 0; i < g->n_kv; i++) wn_free((void *)g->kv[i].at);
    for (size_t i = 0; i < g->n_tensors; i++) wn_free((void *)g->tensors[i].name);
    for (int i = 0; i < g->n_files && !g->borrowed; i++) wn_os_file_close(&g->files[i]);
    wn_free(g->kv);
    wn_free(g->by_key);
    wn_free(g->tensors);
    wn_free(g->by_name);
    wn_free(g->files);
    wn_free(g->path);
    wn_free(g);
}

/* A long path gives way to the sentence behind it. */
static wn_status in_file(wn_err *err, wn_status st, const char *path)
{
    size_t n = strlen(path);
    return wn_fail_prefix(err, st, "%s%s", n > 160 ? "..." : "", n > 160 ? path + n - 157 : path);
}

/* One file, whatever it says about parts. */
static wn_status open_one(wn_gguf **out, const char *path, wn_err *err)
{
    wn_status st;
    wn_gguf *g = new_gguf(path);
    *out = NULL;
    if (!g) return wn_fail(err, WN_ENOMEM, "out of memory for a model file");
    if (!(st = wn_os_file_open(&g->files[0], path, err))) {
        st = wn_gguf_parse(g, g->files[0].data, g->files[0].size, err);
        if (st) in_file(err, st, path);
    }
    if (st) {
        wn_gguf_close(g);
        return st;
    }
    *out = g;
    return WN_OK;
}

/* Moves the mapping and the tensors of part i into g. */
static wn_status absorb(wn_gguf *g, wn_gguf *part, int i, wn_err *err)
{
    size_t n = g->n_tensors + part->n_tensors;
    wn_tensor *t = wn_realloc(g->tensors, sizeof *t * n);
    if (!t) return wn_fail(err, WN_ENOMEM, "out of memory for %zu tensors", n);
    g->tensors = t;
    g->cap_tensors = n;
    for (size_t k = 0; k < part->n_tensors; k++) {
        t[g->n_tensors] = part->tensors[k];
        t[g->n_tensors++].part = i;
    }
    part->n_tensors = 0;                /* the names have a new owner */
    g->files[i] = part->files[0];
    g->n_files = i + 1;
    part->n_files = 0;
    return WN_OK;
}

static wn_status open_part(wn_gguf *g, int i, int n_parts, const char *path, wn_err *err)
{
    int64_t no = -1, count = -1;
    wn_gguf *part;
    wn_status st = open_one(&part, path, err);
    if (st) return st;
    if ((st = wn_gguf_int(part, "split.no", true, 0, PARTS_MAX, &no, err)) ||
        (st = wn_gguf_int(part, "split.count", true, 0, PARTS_MAX, &count, err))) {
        in_file(err, st, path);
    } else if (no != i || count != n_parts) {
        st = wn_fail(err, WN_EFORMAT, "should be part %d of %d, but says it is part %lld of %lld",
                     i + 1, n_parts, (long long)no + 1, (long long)count);
        in_file(err, st, path);
    } else {
        st = absorb(g, part, i, err);
    }
    wn_gguf_close(part);
    return st;
}

/* The other parts of a model whose first part is g. NAME-00001-of-NNNNN.gguf names them. */
static wn_status open_parts(wn_gguf *g, int n_parts, wn_err *err)
{
    char ending[48];
    size_t n = strlen(g->path), e;
    wn_status st = WN_OK;
    e = (size_t)snprintf(ending, sizeof ending, "-00001-of-%05d.gguf", n_parts);
    if (n < e || strcmp(g->path + n - e, ending)) {
        st = wn_fail(err, WN_EFORMAT, "is the first of %d parts, but its name does not end in %s",
                     n_parts, ending);
        return in_file(err, st, g->path);
    }
    wn_os_file *files = wn_realloc(g->files, sizeof *files * (size_t)n_parts);
    if (!files) return wn_fail(err, WN_ENOMEM, "out of memory for %d parts", n_parts);
    g->files = files;
    char *path = wn_strdup(g->path);
    if (!path) return wn_fail(err, WN_ENOMEM, "out of memory for the names of %d parts", n_parts);
    for (int i = 1; i < n_parts && !st; i++) {
        snprintf(ending, sizeof ending, "-%05d-of-%05d.gguf", i + 1, n_parts);
        memcpy(path + n - e, ending, e);    /* five digits each: the length stays */
        st = open_part(g, i, n_parts, path, err);
    }
    wn_free(path);
    return st;
}

/* What the set as a whole must satisfy. */
static wn_status check_parts(wn_gguf *g, wn_err *err)
{
    int64_t n_tensors = (int64_t)g->n_tensors;
    wn_status st = wn_gguf_int(g, "split.tensors.count", false, 0, INT64_MAX, &n_tensors, err);
    if (!st && (size_t)n_tensors != g->n_tensors)
        st = wn_fail(err, WN_EFORMAT,
                     "key split.tensors.count: %lld, but the parts have %zu tensors",
                     (long long)n_tensors, g->n_tensors);
    if (!st) st = wn_gguf_index_tensors(g, err);
    return st ? in_file(err, st, g->path) : WN_OK;
}

/* How many parts the set has, given that g is one of them: 1 when it stands alone. */
static wn_status count_parts(const wn_gguf *g, int *n_parts, wn_err *err)
{
    int64_t no = 0, count = 1;
    wn_status st;
    if ((st = wn_gguf_int(g, "split.count", false, 0, PARTS_MAX, &count, err)) ||
        (st = wn_gguf_int(g, "split.no", false, 0, PARTS_MAX, &no, err)))
        return st;
    if (no > 0)
        return wn_fail(err, WN_EFORMAT,
                       "is part %lld of %lld of a split model; give the first part",
                       (long long)no + 1, (long long)count);
    *n_parts = (int)WN_MAX(count, 1);
    return WN_OK;
}

wn_status wn_gguf_open(wn_gguf **out, const char *path, wn_err *err)
{
    int n_parts = 1;
    wn_status st = open_one(out, path, err);
    if (st) return st;
    if ((st = count_parts(*out, &n_parts, err))) in_file(err, st, path);
    else if (n_parts > 1 && !(st = open_parts(*out, n_parts, err))) st = check_parts(*out, err);
    if (st) {
        wn_gguf_close(*out);
        *out = NULL;
    }
    return st;
}

wn_status wn_gguf_open_memory(wn_gguf **out, const void *data, size_t size, wn_err *err)
{
    int n_parts = 1;
    wn_status st;
    wn_gguf *g = new_gguf("(memory)");
    *out = NULL;
    if (!g) return wn_fail(err, WN_ENOMEM, "out of memory for a model file");
    g->borrowed = true;
    g->files[0] = (wn_os_file){ data, size, -1 };
    if (!(st = wn_gguf_parse(g, data, size, err)) && !(st = count_parts(g, &n_parts, err)) &&
        n_parts > 1)
        st = wn_fail(err, WN_EUNSUPPORTED, "a model of %d parts cannot be read from memory",
                     n_parts);
    if (st) {
        wn_gguf_close(g);
        return st;
    }
    *out = g;
    return WN_OK;
}

/* ---- plain questions ---------------------------------------------------------------- */

const char *wn_gguf_path(const wn_gguf *g) { return g->path; }
uint32_t wn_gguf_version(const wn_gguf *g) { return g->version; }
uint32_t wn_gguf_alignment(const wn_gguf *g) { return g->alignment; }
int wn_gguf_n_parts(const wn_gguf *g) { return g->n_files; }
size_t wn_gguf_n_kv(const wn_gguf *g) { return g->n_kv; }
size_t wn_gguf_n_tensors(const wn_gguf *g) { return g->n_tensors; }

size_t wn_gguf_file_bytes(const wn_gguf *g)
{
    size_t sum = 0;
    for (int i = 0; i < g->n_files; i++) sum += g->files[i].size;
    return sum;
}

const wn_gguf_kv *wn_gguf_kv_at(const wn_gguf *g, size_t i)
{
    WN_ASSERT(i < g->n_kv);
    return &g->kv[i];
}

const wn_tensor *wn_gguf_tensor_at(const wn_gguf *g, size_t i)
{
    WN_ASSERT(i < g->n_tensors);
    return &g->tensors[i];
}

const wn_gguf_kv *wn_gguf_find(const wn_gguf *g, const char *key)
{
    size_t lo = 0, hi = g->n_kv, n = strlen(key);
    while (lo < hi) {
        const wn_gguf_kv *kv = g->by_key[lo + (hi - lo) / 2];
        int d = memcmp(key, kv->key.p, WN_MIN(n, kv->key.n));
        if (!d) d = (n > kv->key.n) - (n < kv->key.n);
        if (!d) return kv;
        if (d < 0) hi = lo + (hi - lo) / 2;
        else lo = lo + (hi - lo) / 2 + 1;
    }
    return NULL;
}

const wn_tensor *wn_gguf_tensor(const wn_gguf *g, const char *name)
{
    size_t lo = 0, hi = g->n_tensors;
    while (lo < hi) {
        const wn_tensor *t = g->by_name[lo + (hi - lo) / 2];
        int d = strcmp(name, t->name);
        if (!d) return t;
        if (d < 0) hi = lo + (hi - lo) / 2;
        else lo = lo + (hi - lo) / 2 + 1;
    }
    return NULL;
}

void wn_gguf_release_pages(const wn_gguf *g, const wn_tensor *t, size_t from, size_t bytes)
{
    WN_ASSERT(from <= t->bytes && bytes <= t->bytes - from);
    if (!g->borrowed) wn_os_file_release(&g->files[t->part], t->offset + from, bytes);
}

/* ---- values -------------------------------------------------------------------------- */

const char *wn_kv_type_name(wn_kv_type t)
{
    static const char *const names[] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64" };
    return (unsigned)t < WN_COUNT(names) ? names[t] : "unknown";
}

bool wn_str_is(wn_str s, const char *literal)
{
    return s.n == strlen(literal) && !memcmp(s.p, literal, s.n);
}

/* Integers of any width at p. False for other types. A u64 too large for int64 is cut. */
static bool read_int(wn_kv_type t, const uint8_t *p, int64_t *out)
{
    union { uint16_t u16; int16_t i16; uint32_t u32; int32_t i32; uint64_t u64; int64_t i64; } v;
    memcpy(&v, p, wn_kv_type_bytes(t));
    switch (t) {
    case WN_KV_U8: case WN_KV_BOOL: *out = p[0]; return true;
    case WN_KV_I8: *out = (int8_t)p[0]; return true;
    case WN_KV_U16: *out = v.u16; return true;
    case WN_KV_I16: *out = v.i16; return true;
    case WN_KV_U32: *out = v.u32; return true;
    case WN_KV_I32: *out = v.i32; return true;
    case WN_KV_I64: *out = v.i64; return true;
    case WN_KV_U64: *out = v.u64 > INT64_MAX ? INT64_MAX : (int64_t)v.u64; return true;
    default: return false;
    }
}

static bool read_float(wn_kv_type t, const uint8_t *p, double *out)
{
    int64_t i;
    float f;
    if (t == WN_KV_F64) {
        memcpy(out, p, sizeof *out);
    } else if (t == WN_KV_F32) {
        memcpy(&f, p, sizeof f);
        *out = f;
    } else {
        if (!read_int(t, p, &i)) return false;
        *out = (double)i;
    }
    return true;
}

static wn_str read_string(const uint8_t *p)
{
    uint64_t n;
    memcpy(&n, p, sizeof n);
    return (wn_str){ (const char *)p + 8, (size_t)n };
}

/* *kv is NULL when the key is absent and need not be there. */
static wn_status look_up(const wn_gguf *g, const char *key, bool need, const wn_gguf_kv **kv,
                         wn_err *err)
{
    *kv = wn_gguf_find(g, key);
    if (!*kv && need) return wn_fail(err, WN_EFORMAT, "key %s is missing", key);
    return WN_OK;
}

static wn_status wrong_type(const wn_gguf_kv *kv, const char *want, wn_err *err)
{
    return wn_fail(err, WN_EFORMAT, "key %.*s is of type %s, not %s", WN_SHOWN(kv->key),
                   wn_kv_type_name(kv->type), want);
}

wn_status wn_gguf_int(const wn_gguf *g, const char *key, bool need, int64_t min, int64_t max,
                      int64_t *out, wn_err *err)
{
    const wn_gguf_kv *kv;
    int64_t v;
    wn_status st = look_up(g, key, need, &kv, err);
    if (st || !kv) return st;
    if (kv->type == WN_KV_BOOL || kv->type == WN_KV_STRING || kv->type == WN_KV_ARRAY ||
        !read_int(kv->type, kv->data, &v))
        return wrong_type(kv, "an integer", err);
    if (kv->type == WN_KV_U64 && kv->data[7] >> 7)
        return wn_fail(err, WN_EFORMAT, "key %s: the number does not fit into 63 bits", key);
    if (v < min || v > max)
        return wn_fail(err, WN_EFORMAT, "key %s: %lld is outside %lld to %lld", key, (long long)v,
                       (long long)min, (long long)max);
    *out = v;
    return WN_OK;
}

wn_status wn_gguf_float(const wn_gguf *g, const char *key, bool need, double *out, wn_err *err)
{
    const wn_gguf_kv *kv;
    double v;
    wn_status st = look_up(g, key, need, &kv, err);
    if (st || !kv) return st;
    if (kv->type == WN_KV_BOOL || kv->type == WN_KV_STRING || kv->type == WN_KV_ARRAY ||
        !read_float(kv->type, kv->data, &v))
        return wrong_type(kv, "a number", err);
    if (!isfinite(v)) return wn_fail(err, WN_EFORMAT, "key %s: %f is not a finite number", key, v);
    *out = v;
    return WN_OK;
}

wn_status wn_gguf_bool(const wn_gguf *g, const char *key, bool need, bool *out, wn_err *err)
{
    const wn_gguf_kv *kv;
    wn_status st = look_up(g, key, need, &kv, err);
    if (st || !kv) return st;
    if (kv->type != WN_KV_BOOL) return wrong_type(kv, "bool", err);
    *out = kv->data[0] != 0;
    return WN_OK;
}

wn_status wn_gguf_string(const wn_gguf *g, const char *key, bool need, wn_str *out, wn_err *err)
{
    const wn_gguf_kv *kv;
    wn_status st = look_up(g, key, need, &kv, err);
    if (st || !kv) return st;
    if (kv->type != WN_KV_STRING) return wrong_type(kv, "string", err);
    *out = read_string(kv->data);
    return WN_OK;
}

wn_str wn_gguf_item_string(const wn_gguf_kv *kv, uint64_t i)
{
    WN_ASSERT(kv->type == WN_KV_ARRAY && kv->item == WN_KV_STRING && i < kv->n);
    return read_string(kv->data + kv->at[i]);
}

int64_t wn_gguf_item_int(const wn_gguf_kv *kv, uint64_t i)
{
    int64_t v = 0;
    WN_ASSERT(kv->type == WN_KV_ARRAY && i < kv->n);
    bool ok = read_int(kv->item, kv->data + i * wn_kv_type_bytes(kv->item), &v);
    WN_ASSERT(ok);
    return v;
}

double wn_gguf_item_float(const wn_gguf_kv *kv, uint64_t i)
{
    double v = 0;
    WN_ASSERT(kv->type == WN_KV_ARRAY && i < kv->n);
    bool ok = read_float(kv->item, kv->data + i * wn_kv_type_bytes(kv->item), &v);
    WN_ASSERT(ok);
    return v;
}
