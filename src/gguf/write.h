/* gguf/write.h - writes a GGUF v3 file: for the generator in tools/, and for tests that
 * need models of every shape and every kind of damage. Tensors are described first and
 * filled in order, so a file larger than memory can be written.
 */
#ifndef WN_GGUF_WRITE_H
#define WN_GGUF_WRITE_H

#include "gguf/gguf.h"

typedef struct wn_gguf_writer wn_gguf_writer;

/* The put calls below keep the first thing that goes wrong and the next call that returns
 * a status reports it, so that a list of puts reads as a list. The alignment is 32, or
 * what a put of general.alignment says. */
wn_status wn_gguf_writer_open(wn_gguf_writer **out, const char *path, wn_err *err);
void wn_gguf_put_u32(wn_gguf_writer *w, const char *key, uint32_t v);
void wn_gguf_put_f32(wn_gguf_writer *w, const char *key, float v);
void wn_gguf_put_u16(wn_gguf_writer *w, const char *key, uint16_t v);    /* split.* keys */
void wn_gguf_put_bool(wn_gguf_writer *w, const char *key, bool v);
void wn_gguf_put_string(wn_gguf_writer *w, const char *key, const char *v);
void wn_gguf_put_strings(wn_gguf_writer *w, const char *key, const char *const *v, size_t n);
void wn_gguf_put_i32s(wn_gguf_writer *w, const char *key, const int32_t *v, size_t n);
void wn_gguf_put_f32s(wn_gguf_writer *w, const char *key, const float *v, size_t n);
/* Declares a tensor; order is the order of the data. n_dims and ne as in wn_tensor. */
void wn_gguf_put_tensor(wn_gguf_writer *w, const char *name, wn_type type, int n_dims,
                        const int64_t *ne);
/* Writes the header (once, after all put calls), then data of the tensors in order. A call
 * may bring a part of a tensor, but not bytes of two. */
wn_status wn_gguf_writer_data(wn_gguf_writer *w, const void *data, size_t bytes, wn_err *err);
/* Checks that every declared tensor is complete, closes the file and frees the writer. What
 * could not be completed is removed. Without tensors this writes the header. NULL is fine. */
wn_status wn_gguf_writer_close(wn_gguf_writer *w, wn_err *err);

#endif
