/* tests/support/gguf_bytes.h - hand-made GGUF bytes, and a reader that believes everything
 * an open file offers: what sanitizers watch while a damaged file is used. */
#ifndef WN_TEST_GGUF_BYTES_H
#define WN_TEST_GGUF_BYTES_H

#include <stdlib.h>
#include <string.h>

#include "gguf/gguf.h"

typedef struct {
    uint8_t *p;
    size_t n, cap;
} bytes;

static inline void put_bytes(bytes *b, const void *p, size_t n)
{
    if (b->cap - b->n < n) {
        b->cap = 2 * b->cap + n + 256;
        b->p = realloc(b->p, b->cap);
        if (!b->p) abort();
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}

static inline void put_u32(bytes *b, uint32_t v) { put_bytes(b, &v, sizeof v); }
static inline void put_u64(bytes *b, uint64_t v) { put_bytes(b, &v, sizeof v); }

static inline void put_text(bytes *b, const char *s)
{
    put_u64(b, strlen(s));
    put_bytes(b, s, strlen(s));
}

static inline void put_front(bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    put_bytes(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_kv);
}

static inline void put_key(bytes *b, const char *key, uint32_t type)
{
    put_text(b, key);
    put_u32(b, type);
}

static inline void put_array(bytes *b, const char *key, uint32_t item, uint64_t n)
{
    put_key(b, key, WN_KV_ARRAY);
    put_u32(b, item);
    put_u64(b, n);
}

static inline void put_tensor(bytes *b, const char *name, uint32_t n_dims, const uint64_t *ne,
                              uint32_t type, uint64_t offset)
{
    put_text(b, name);
    put_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) put_u64(b, ne[i]);
    put_u32(b, type);
    put_u64(b, offset);
}

static inline void put_zeros(bytes *b, size_t n)
{
    static const uint8_t zeros[4096];
    for (; n > sizeof zeros; n -= sizeof zeros) put_bytes(b, zeros, sizeof zeros);
    put_bytes(b, zeros, n);
}

static inline void pad_to(bytes *b, size_t alignment)
{
    while (b->n % alignment) put_bytes(b, "", 1);
}

/* Asks everything of an open file; the sum keeps the compiler from skipping the reads. */
static inline uint64_t read_everything(const wn_gguf *g)
{
    uint64_t sum = wn_gguf_file_bytes(g) + wn_gguf_version(g);
    for (size_t i = 0; i < wn_gguf_n_kv(g); i++) {
        const wn_gguf_kv *kv = wn_gguf_kv_at(g, i);
        char *key = strndup(kv->key.p, kv->key.n);
        int64_t v = 0;
        double f = 0;
        bool b = false;
        wn_str s = { "", 0 };
        wn_err err;
        if (!key || wn_gguf_find(g, key) != kv) abort();
        wn_gguf_int(g, key, true, -5, 1 << 20, &v, &err);
        wn_gguf_float(g, key, true, &f, &err);
        wn_gguf_bool(g, key, true, &b, &err);
        wn_gguf_string(g, key, true, &s, &err);
        for (size_t k = 0; k < s.n; k++) sum += (unsigned char)s.p[k];
        sum += (uint64_t)v + (f > 1) + b;
        for (uint64_t k = 0; kv->type == WN_KV_ARRAY && k < kv->n; k++) {
            if (kv->item == WN_KV_STRING) {
                s = wn_gguf_item_string(kv, k);
                if (s.n) sum += (unsigned char)s.p[0] + (unsigned char)s.p[s.n - 1];
            } else {
                sum += wn_gguf_item_float(kv, k) > 0;
                if (kv->item != WN_KV_F32 && kv->item != WN_KV_F64)
                    sum += (uint64_t)wn_gguf_item_int(kv, k);
            }
        }
        free(key);
    }
    for (size_t i = 0; i < wn_gguf_n_tensors(g); i++) {
        const wn_tensor *t = wn_gguf_tensor_at(g, i);
        const wn_type_info *info = wn_type_find((uint32_t)t->type);
        float x[256];
        if (wn_gguf_tensor(g, t->name) != t || !info || !t->bytes) abort();
        sum += t->data[0] + t->data[t->bytes - 1];
        if (info->decode) {
            info->decode(x, t->data + t->bytes - info->block_bytes, info->block);
            sum += x[0] > 0;
        }
        wn_gguf_release_pages(g, t, 0, t->bytes);
    }
    return sum;
}

#endif
