/* gguf/parse.c - from bytes that anyone may have written to tables that can be trusted.
 *
 * A cursor walks the header once. Each read says what it is about to read, so that a
 * file that ends early gives a sentence with that name in it. Nothing is allocated on the
 * word of a count: tables grow with what has really been read, and a count is compared
 * with the bytes that are left (a key takes at least 14 of them, a tensor 33, a string 8)
 * before a loop starts. So memory stays within a few times the size of the header,
 * whatever its numbers say. Sums and products of numbers from the file go through the
 * compiler's overflow checks.
 *
 * Names are looked up by binary search in sorted tables: a file cannot choose names that
 * make it slow, as it could with a hash.
 */
#include "gguf/parse.h"

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(size_t) == 8, "offsets of the file are used as sizes");

enum { KEY_MIN = 8 + 1 + 4 + 1, TENSOR_MIN = 8 + 1 + 4 + 8 + 4 + 8, NAME_MAX_BYTES = 65535 };
/* Far above any model (experts stored one by one make some 50 thousand tensors), and few
 * enough that sorting them takes no time to speak of. */
enum { KEYS_MAX = 1 << 18, TENSORS_MAX = 1 << 20 };

typedef struct {
    const uint8_t *p;
    size_t size, at;
    wn_err *err;
} cursor;

static size_t left(const cursor *c) { return c->size - c->at; }

static wn_status ends_early(const cursor *c, const char *what, uint64_t need)
{
    return wn_fail(c->err, WN_EFORMAT,
                   "the file ends early: %s needs %llu bytes at offset %zu, %zu are left", what,
                   (unsigned long long)need, c->at, left(c));
}

static wn_status take(cursor *c, void *out, size_t n, const char *what)
{
    if (left(c) < n) return ends_early(c, what, n);
    memcpy(out, c->p + c->at, n);
    c->at += n;
    return WN_OK;
}

static wn_status take_str(cursor *c, wn_str *out, const char *what)
{
    uint64_t n = 0;
    wn_status st = take(c, &n, sizeof n, what);
    if (st) return st;
    if (n > left(c)) return ends_early(c, what, n);
    *out = (wn_str){ (const char *)c->p + c->at, (size_t)n };
    c->at += (size_t)n;
    return WN_OK;
}

/* Names end up in messages, on terminals and in C strings: no control characters, no NUL. */
static wn_status take_name(cursor *c, wn_str *out, const char *what, size_t i)
{
    wn_status st = take_str(c, out, what);
    if (st) return st;
    if (out->n == 0 || out->n > NAME_MAX_BYTES)
        return wn_fail(c->err, WN_EFORMAT, "%s %zu has a name of %zu bytes (1 to %d are allowed)",
                       what, i, out->n, NAME_MAX_BYTES);
    for (size_t k = 0; k < out->n; k++) {
        unsigned char u = (unsigned char)out->p[k];
        unsigned char next = k + 1 < out->n ? (unsigned char)out->p[k + 1] : 0;
        if (u < 0x20 || u == 0x7f || (u == 0xc2 && next >= 0x80 && next < 0xa0)) /* C0, DEL, C1 */
            return wn_fail(c->err, WN_EFORMAT,
                           "%s %zu has a control character (0x%02x) in its name", what, i,
                           u == 0xc2 ? next : u);
    }
    return WN_OK;
}

/* Room for one more in a table that doubles, up to the count that the header gave. */
static wn_status grow(cursor *c, void **table, size_t *cap, size_t n, size_t item, uint64_t count)
{
    if (n < *cap) return WN_OK;
    size_t more = WN_MIN(*cap ? *cap * 2 : 32, (size_t)count);
    void *p = wn_realloc(*table, more * item);
    if (!p) return wn_fail(c->err, WN_ENOMEM, "out of memory for a table of %zu entries", more);
    *table = p;
    *cap = more;
    return WN_OK;
}

/* ---- keys and values ------------------------------------------------------------- */

size_t wn_kv_type_bytes(wn_kv_type t)
{
    static const uint8_t bytes[] = {
        [WN_KV_U8] = 1,  [WN_KV_I8] = 1,  [WN_KV_U16] = 2, [WN_KV_I16] = 2,
        [WN_KV_U32] = 4, [WN_KV_I32] = 4, [WN_KV_F32] = 4, [WN_KV_BOOL] = 1,
        [WN_KV_U64] = 8, [WN_KV_I64] = 8, [WN_KV_F64] = 8,
    };
    return (size_t)t < sizeof bytes ? bytes[t] : 0;
}

static wn_status check_bools(const cursor *c, const wn_gguf_kv *kv)
{
    for (size_t i = 0; i < kv->bytes; i++)
        if (kv->data[i] > 1)
            return wn_fail(c->err, WN_EFORMAT, "key %.*s: a bool is %u, not 0 or 1",
                           WN_SHOWN(kv->key), kv->data[i]);
    return WN_OK;
}

/* Walks n strings and keeps where each begins. */
static wn_status parse_strings(cursor *c, wn_gguf_kv *kv)
{
    wn_status st;
    wn_str s = { 0 };
    uint64_t *at;
    if (kv->n > left(c) / 8)
        return wn_fail(c->err, WN_EFORMAT,
                       "key %.*s: an array of %llu strings in the last %zu bytes",
                       WN_SHOWN(kv->key), (unsigned long long)kv->n, left(c));
    kv->at = at = wn_alloc(sizeof *at * (size_t)kv->n);
    if (!at)
        return wn_fail(c->err, WN_ENOMEM, "key %.*s: out of memory for %llu offsets",
                       WN_SHOWN(kv->key), (unsigned long long)kv->n);
    size_t start = c->at;
    for (uint64_t i = 0; i < kv->n; i++) {
        at[i] = c->at - start;
        if ((st = take_str(c, &s, "a string")))
            return wn_fail_prefix(c->err, st, "key %.*s: element %llu of %llu", WN_SHOWN(kv->key),
                                  (unsigned long long)i, (unsigned long long)kv->n);
    }
    kv->bytes = c->at - start;
    return WN_OK;
}

static wn_status parse_array(cursor *c, wn_gguf_kv *kv)
{
    uint32_t item = 0;
    size_t bytes;
    wn_status st;
    if ((st = take(c, &item, sizeof item, "an array's type")) ||
        (st = take(c, &kv->n, sizeof kv->n, "an array's length")))
        return wn_fail_prefix(c->err, st, "key %.*s", WN_SHOWN(kv->key));
    if (item == WN_KV_ARRAY)
        return wn_fail(c->err, WN_EFORMAT, "key %.*s: arrays of arrays are not supported",
                       WN_SHOWN(kv->key));
    kv->item = (wn_kv_type)item;
    kv->data = c->p + c->at;
    if (item == WN_KV_STRING) return parse_strings(c, kv);
    if (!wn_kv_type_bytes(kv->item))
        return wn_fail(c->err, WN_EFORMAT, "key %.*s: array of unknown type %u", WN_SHOWN(kv->key),
                       item);
    if (__builtin_mul_overflow(kv->n, wn_kv_type_bytes(kv->item), &bytes) || bytes > left(c))
        return wn_fail(c->err, WN_EFORMAT,
                       "key %.*s: an array of %llu items of %zu bytes, but %zu bytes are left",
                       WN_SHOWN(kv->key), (unsigned long long)kv->n, wn_kv_type_bytes(kv->item),
                       left(c));
    kv->bytes = bytes;
    c->at += bytes;
    return item == WN_KV_BOOL ? check_bools(c, kv) : WN_OK;
}

static wn_status parse_value(cursor *c, wn_gguf_kv *kv)
{
    uint32_t type = 0;
    wn_str s = { 0 };
    wn_status st = take(c, &type, sizeof type, "a value's type");
    if (st) goto fail;
    kv->type = (wn_kv_type)type;
    kv->n = 1;
    kv->data = c->p + c->at;
    if (type == WN_KV_ARRAY) return parse_array(c, kv);
    if (type == WN_KV_STRING) {
        if ((st = take_str(c, &s, "a string"))) goto fail;
        kv->bytes = 8 + s.n;
        return WN_OK;
    }
    kv->bytes = wn_kv_type_bytes(kv->type);
    if (!kv->bytes)
        return wn_fail(c->err, WN_EFORMAT, "key %.*s: unknown type %u", WN_SHOWN(kv->key), type);
    if (left(c) < kv->bytes) {
        st = ends_early(c, "a value", kv->bytes);
        goto fail;
    }
    c->at += kv->bytes;
    return type == WN_KV_BOOL ? check_bools(c, kv) : WN_OK;
fail:
    return wn_fail_prefix(c->err, st, "key %.*s", WN_SHOWN(kv->key));
}

static int by_key(const void *a, const void *b)
{
    const wn_str *x = &(*(const wn_gguf_kv *const *)a)->key,
                 *y = &(*(const wn_gguf_kv *const *)b)->key;
    int d = memcmp(x->p, y->p, WN_MIN(x->n, y->n));
    return d ? d : (x->n > y->n) - (x->n < y->n);
}

static wn_status parse_kvs(wn_gguf *g, cursor *c, uint64_t n)
{
    wn_status st;
    if (n > left(c) / KEY_MIN)
        return wn_fail(c->err, WN_EFORMAT, "the header counts %llu keys, but only %zu bytes follow",
                       (unsigned long long)n, left(c));
    if (n > KEYS_MAX)
        return wn_fail(c->err, WN_EFORMAT, "the header counts %llu keys (at most %d are read)",
                       (unsigned long long)n, KEYS_MAX);
    for (uint64_t i = 0; i < n; i++) {
        if ((st = grow(c, (void **)&g->kv, &g->cap_kv, g->n_kv, sizeof *g->kv, n))) return st;
        wn_gguf_kv *kv = &g->kv[g->n_kv++];
        *kv = (wn_gguf_kv){ 0 };
        if ((st = take_name(c, &kv->key, "key", i)) || (st = parse_value(c, kv))) return st;
    }
    g->by_key = wn_alloc(sizeof *g->by_key * g->n_kv);
    if (!g->by_key) return wn_fail(c->err, WN_ENOMEM, "out of memory for %zu keys", g->n_kv);
    for (size_t i = 0; i < g->n_kv; i++) g->by_key[i] = &g->kv[i];
    qsort(g->by_key, g->n_kv, sizeof *g->by_key, by_key);
    for (size_t i = 1; i < g->n_kv; i++)
        if (!by_key(&g->by_key[i - 1], &g->by_key[i]))
            return wn_fail(c->err, WN_EFORMAT, "key %.*s appears twice",
                           WN_SHOWN(g->by_key[i]->key));
    return WN_OK;
}

/* ---- tensors ---------------------------------------------------------------------- */

/* The dimensions: how many, none 0, rows of whole blocks, a product that fits. */
static wn_status parse_shape(cursor *c, wn_tensor *t)
{
    uint32_t n_dims = 0, type = 0;
    uint64_t ne = 0;
    wn_status st;
    if ((st = take(c, &n_dims, sizeof n_dims, "the number of dimensions"))) goto early;
    if (n_dims < 1 || n_dims > 4)
        return wn_fail(c->err, WN_EFORMAT, "tensor %.80s has %u dimensions (1 to 4 are possible)",
                       t->name, n_dims);
    t->n_dims = (int)n_dims;
    for (int i = 0; i < 4; i++) t->ne[i] = 1;
    for (int i = 0; i < t->n_dims; i++) {
        if ((st = take(c, &ne, sizeof ne, "a dimension"))) goto early;
        if (ne == 0 || ne > INT64_MAX)
            return wn_fail(c->err, WN_EFORMAT, "tensor %.80s: dimension %d is %llu", t->name, i,
                           (unsigned long long)ne);
        t->ne[i] = (int64_t)ne;
    }
    if ((st = take(c, &type, sizeof type, "the type"))) goto early;
    const wn_type_info *info = wn_type_find(type);
    if (!info)
        return wn_fail(c->err, WN_EFORMAT, "tensor %.80s has the unknown type %u", t->name, type);
    t->type = (wn_type)type;
    if (t->ne[0] % info->block)
        return wn_fail(c->err, WN_EFORMAT,
                       "tensor %.80s: rows of %lld values are not whole blocks of %d (%s)", t->name,
                       (long long)t->ne[0], info->block, info->name);
    t->bytes = (size_t)(t->ne[0] / info->block);
    bool over = __builtin_mul_overflow(t->bytes, info->block_bytes, &t->bytes);
    for (int i = 1; i < 4; i++)
        over |= __builtin_mul_overflow(t->bytes, (size_t)t->ne[i], &t->bytes);
    if (over || t->bytes > INT64_MAX / 8)
        return wn_fail(c->err, WN_EFORMAT,
                       "tensor %.80s: %lld x %lld x %lld x %lld values are too many", t->name,
                       (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                       (long long)t->ne[3]);
    return WN_OK;
early:
    return wn_fail_prefix(c->err, st, "tensor %.80s", t->name);
}

static wn_status parse_tensor(wn_gguf *g, cursor *c, size_t i, uint64_t count)
{
    wn_status st;
    wn_str name = { 0 };
    uint64_t offset = 0;
    if ((st = grow(c, (void **)&g->tensors, &g->cap_tensors, g->n_tensors, sizeof *g->tensors,
                   count)) ||
        (st = take_name(c, &name, "tensor", i)))
        return st;
    wn_tensor *t = &g->tensors[g->n_tensors];
    *t = (wn_tensor){ .name = wn_strndup(name.p, name.n) };
    if (!t->name) return wn_fail(c->err, WN_ENOMEM, "out of memory for the name of tensor %zu", i);
    g->n_tensors++;
    if ((st = parse_shape(c, t))) return st;
    if ((st = take(c, &offset, sizeof offset, "the offset")))
        return wn_fail_prefix(c->err, st, "tensor %.80s", t->name);
    if (offset % g->alignment)
        return wn_fail(c->err, WN_EFORMAT, "tensor %.80s: offset %llu is not a multiple of %u",
                       t->name, (unsigned long long)offset, g->alignment);
    t->offset = (size_t)offset;         /* from the start of the data, until place_tensors() */
    return WN_OK;
}

static int by_offset(const void *a, const void *b)
{
    const wn_tensor *x = *(const wn_tensor *const *)a, *y = *(const wn_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* The data begins at the next multiple of the alignment. by_name serves for sorting. */
static wn_status place_tensors(wn_gguf *g, const cursor *c)
{
    g->by_name = wn_alloc(sizeof *g->by_name * g->n_tensors);
    if (!g->by_name)
        return wn_fail(c->err, WN_ENOMEM, "out of memory for %zu tensors", g->n_tensors);
    size_t start = c->at + (g->alignment - c->at % g->alignment) % g->alignment;
    size_t room = start < c->size ? c->size - start : 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        wn_tensor *t = &g->tensors[i];
        if (t->offset > room || t->bytes > room - t->offset)
            return wn_fail(c->err, WN_EFORMAT,
                           "tensor %.80s: %zu bytes at offset %zu of the data, which has %zu bytes",
                           t->name, t->bytes, t->offset, room);
        t->offset += start;
        t->data = c->p + t->offset;
        g->by_name[i] = t;
    }
    qsort(g->by_name, g->n_tensors, sizeof *g->by_name, by_offset);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (g->by_name[i]->offset - g->by_name[i - 1]->offset < g->by_name[i - 1]->bytes)
            return wn_fail(c->err, WN_EFORMAT, "tensor %.80s overlaps tensor %.80s",
                           g->by_name[i]->name, g->by_name[i - 1]->name);
    return WN_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const wn_tensor *const *)a)->name, (*(const wn_tensor *const *)b)->name);
}

wn_status wn_gguf_index_tensors(wn_gguf *g, wn_err *err)
{
    const wn_tensor **t = wn_realloc(g->by_name, sizeof *t * g->n_tensors);
    if (!t) return wn_fail(err, WN_ENOMEM, "out of memory for %zu tensors", g->n_tensors);
    g->by_name = t;
    for (size_t i = 0; i < g->n_tensors; i++) t[i] = &g->tensors[i];
    qsort(t, g->n_tensors, sizeof *t, by_name);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (!by_name(&t[i - 1], &t[i]))
            return wn_fail(err, WN_EFORMAT, "tensor %.80s appears twice", t[i]->name);
    return WN_OK;
}

/* ---- the whole ---------------------------------------------------------------------- */

static wn_status parse_front(wn_gguf *g, cursor *c, uint64_t *n_tensors, uint64_t *n_kv)
{
    char magic[4] = "";
    wn_status st = take(c, magic, sizeof magic, "the magic");
    if (st) return st;
    if (memcmp(magic, "GGUF", 4))
        return wn_fail(c->err, WN_EFORMAT,
                       "not a GGUF file: it begins with %02x %02x %02x %02x instead of \"GGUF\"",
                       (unsigned char)magic[0], (unsigned char)magic[1], (unsigned char)magic[2],
                       (unsigned char)magic[3]);
    if ((st = take(c, &g->version, sizeof g->version, "the version"))) return st;
    if (g->version == 1)
        return wn_fail(c->err, WN_EFORMAT,
                       "GGUF version 1 is no longer read; convert the model again");
    if (g->version && !(g->version & 0xffffff))
        return wn_fail(c->err, WN_EFORMAT,
                       "a big-endian GGUF file; only little-endian ones are read");
    if (g->version != 2 && g->version != 3)
        return wn_fail(c->err, WN_EFORMAT, "GGUF version %u is unknown (2 and 3 are read)",
                       g->version);
    if ((st = take(c, n_tensors, sizeof *n_tensors, "the number of tensors"))) return st;
    return take(c, n_kv, sizeof *n_kv, "the number of keys");
}

wn_status wn_gguf_parse(wn_gguf *g, const uint8_t *data, size_t size, wn_err *err)
{
    cursor c = { data, size, 0, err };
    uint64_t n_tensors = 0, n_kv = 0;
    int64_t alignment = 32;
    wn_status st;
    if ((st = parse_front(g, &c, &n_tensors, &n_kv)) || (st = parse_kvs(g, &c, n_kv)) ||
        (st = wn_gguf_int(g, "general.alignment", false, 0, UINT32_MAX, &alignment, err)))
        return st;
    if (alignment == 0 || alignment % 8 || (alignment & (alignment - 1)))
        return wn_fail(err, WN_EFORMAT,
                       "key general.alignment: %lld is not a power of two that is a multiple of 8",
                       (long long)alignment);
    g->alignment = (uint32_t)alignment;
    if (n_tensors > left(&c) / TENSOR_MIN)
        return wn_fail(err, WN_EFORMAT, "the header counts %llu tensors, but only %zu bytes follow",
                       (unsigned long long)n_tensors, left(&c));
    if (n_tensors > TENSORS_MAX)
        return wn_fail(err, WN_EFORMAT, "the header counts %llu tensors (at most %d are read)",
                       (unsigned long long)n_tensors, TENSORS_MAX);
    for (uint64_t i = 0; i < n_tensors; i++)
        if ((st = parse_tensor(g, &c, i, n_tensors))) return st;
    if ((st = place_tensors(g, &c))) return st;
    return wn_gguf_index_tensors(g, err);
}
