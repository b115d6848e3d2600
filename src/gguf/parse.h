/* gguf/parse.h - the inside of a wn_gguf, shared by parse.c (bytes to tables) and gguf.c
 * (files, parts, questions). Nobody else includes this.
 *
 * Invariants after wn_gguf_parse():
 *   G1  every kv's data + bytes, every string and every tensor's data + bytes lie in the file
 *   G2  keys differ, tensor names differ; by_key and by_name are sorted
 *   G3  a tensor's type has a row in the type table, ne[0] is whole blocks, no ne is 0
 *   G4  the data of two tensors does not overlap: together they are no larger than the file
 */
#ifndef WN_GGUF_PARSE_H
#define WN_GGUF_PARSE_H

#include "gguf/gguf.h"

struct wn_gguf {
    char *path;                     /* as given; "(memory)" when there is none */
    uint32_t version, alignment;    /* of the first part */
    wn_os_file *files;              /* (n_files); from memory: data is borrowed, fd is -1 */
    int n_files;
    bool borrowed;

    wn_gguf_kv *kv;                 /* (n_kv) in file order */
    size_t n_kv, cap_kv;
    const wn_gguf_kv **by_key;      /* (n_kv) */
    wn_tensor *tensors;             /* (n_tensors) in file order */
    size_t n_tensors, cap_tensors;
    const wn_tensor **by_name;      /* (n_tensors) */
};

/* Fills the tables of g from one file and sets version and alignment. Half-filled tables
 * of a failure are freed by wn_gguf_close(). */
wn_status wn_gguf_parse(wn_gguf *g, const uint8_t *data, size_t size, wn_err *err);
/* Sorts the tensors by name into by_name; two of a name are an error. */
wn_status wn_gguf_index_tensors(wn_gguf *g, wn_err *err);

size_t wn_kv_type_bytes(wn_kv_type t); /* of a scalar; 0 for strings, arrays and unknown types */

/* A name for a sentence: at most 80 bytes of it. Use as "%.*s", WN_SHOWN(str). */
#define WN_SHOWN(s) (int)WN_MIN((s).n, (size_t)80), (s).p

#endif
