/* gguf/gguf.h - what is in a model file?
 *
 * Reads GGUF versions 2 and 3, little-endian, alone or split into parts
 * (NAME-00001-of-00003.gguf: give the first). The files are mapped, never copied; the
 * header is checked whole before anything is used: every count, length, offset, type
 * and dimension is bounded by the file, so what this header hands out can be trusted
 * to lie inside the mapping. What a key or tensor should mean is the reader's question.
 *
 *     magic version n_tensors n_kv | keys and values | tensor table | pad | data ...
 */
#ifndef WN_GGUF_GGUF_H
#define WN_GGUF_GGUF_H

#include "base/os.h"
#include "gguf/types.h"

typedef enum {
    WN_KV_U8, WN_KV_I8, WN_KV_U16, WN_KV_I16, WN_KV_U32, WN_KV_I32, WN_KV_F32, WN_KV_BOOL,
    WN_KV_STRING, WN_KV_ARRAY, WN_KV_U64, WN_KV_I64, WN_KV_F64
} wn_kv_type;

/* Not NUL-terminated: borrowed from the mapping. */
typedef struct {
    const char *p;
    size_t n;
} wn_str;

typedef struct {
    wn_str key;
    wn_kv_type type;
    const uint8_t *data;            /* the value; arrays: element 0; strings: the length field */
    wn_kv_type item;                /* arrays: type of the elements (never an array) */
    uint64_t n;                     /* arrays: number of elements; else 1 */
    size_t bytes;                   /* of the value as stored (arrays: the elements) */
    const uint64_t *at;             /* arrays of strings: where each begins in data; owned */
} wn_gguf_kv;

typedef struct {
    const char *name;               /* NUL-terminated, owned by the wn_gguf */
    wn_type type;                   /* always a row of the type table */
    int n_dims;                     /* 1..4 */
    int64_t ne[4];                  /* ne[0] is the row length (fastest); unused ones are 1 */
    const uint8_t *data;            /* inside a mapping, aligned as the file says */
    size_t bytes;
    int part;                       /* which file of a split model */
    size_t offset;                  /* of data in that file */
} wn_tensor;

typedef struct wn_gguf wn_gguf;

/* On failure *out is NULL and err names the key, the tensor or the field and the number. */
wn_status wn_gguf_open(wn_gguf **out, const char *path, wn_err *err);
/* The same from memory (tests, fuzzers); the bytes are borrowed. */
wn_status wn_gguf_open_memory(wn_gguf **out, const void *data, size_t size, wn_err *err);
void wn_gguf_close(wn_gguf *g);

const char *wn_gguf_path(const wn_gguf *g);
uint32_t wn_gguf_version(const wn_gguf *g);
uint32_t wn_gguf_alignment(const wn_gguf *g);
size_t wn_gguf_file_bytes(const wn_gguf *g);        /* all parts */
int wn_gguf_n_parts(const wn_gguf *g);

size_t wn_gguf_n_kv(const wn_gguf *g);
const wn_gguf_kv *wn_gguf_kv_at(const wn_gguf *g, size_t i);
const wn_gguf_kv *wn_gguf_find(const wn_gguf *g, const char *key);   /* NULL when absent */

size_t wn_gguf_n_tensors(const wn_gguf *g);
const wn_tensor *wn_gguf_tensor_at(const wn_gguf *g, size_t i);
const wn_tensor *wn_gguf_tensor(const wn_gguf *g, const char *name); /* NULL when absent */

/* Typed reading. WN_OK and *out untouched when the key is absent and need is false; an
 * absent needed key, a wrong type or a value outside [min, max] is WN_EFORMAT with a
 * sentence naming the key. Integers of any width and sign are accepted. */
wn_status wn_gguf_int(const wn_gguf *g, const char *key, bool need, int64_t min, int64_t max,
                      int64_t *out, wn_err *err);
wn_status wn_gguf_float(const wn_gguf *g, const char *key, bool need, double *out, wn_err *err);
wn_status wn_gguf_bool(const wn_gguf *g, const char *key, bool need, bool *out, wn_err *err);
wn_status wn_gguf_string(const wn_gguf *g, const char *key, bool need, wn_str *out, wn_err *err);
bool wn_str_is(wn_str s, const char *literal);

const char *wn_kv_type_name(wn_kv_type t);

/* Elements of an array. Bounds and type are assertions: check kv->n and kv->item first.
 * int wants integers or bools (u64 beyond INT64_MAX becomes INT64_MAX); float any number. */
wn_str wn_gguf_item_string(const wn_gguf_kv *kv, uint64_t i);    /* O(1): indexed at open */
int64_t wn_gguf_item_int(const wn_gguf_kv *kv, uint64_t i);
double wn_gguf_item_float(const wn_gguf_kv *kv, uint64_t i);

/* A tensor's bytes have been copied elsewhere: its mapped pages may leave the process. */
void wn_gguf_release_pages(const wn_gguf *g, const wn_tensor *t, size_t from, size_t bytes);

#endif
