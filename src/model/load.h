/* model/load.h - tensors by name and shape, for the load function of an architecture.
 *
 * Every call records what it wants; the first failure stays in the loader and later calls
 * do nothing, so an architecture reads as a list. Data is packed afterwards, all at once
 * and in parallel.
 */
#ifndef WN_MODEL_LOAD_H
#define WN_MODEL_LOAD_H

#include "model/model.h"

typedef struct { wn_matrix *m; const wn_tensor *t; size_t offset; } wn_pack_item;

struct wn_loader {
    wn_model *m;
    bool no_repack;
    wn_status status;
    wn_err *err;
    wn_pack_item *items; int n_items, cap_items;
    size_t packed_bytes;                /* so far */
    float *vectors; size_t n_vectors, cap_vectors;
};

/* name is a printf format that may use one %d: the layer. Shapes must match exactly. */
void wn_load_matrix(wn_loader *ld, wn_matrix *out, int n_rows, int n_cols, const char *name, int layer);
/* A vector of n floats; absent and not needed: *out stays NULL. */
void wn_load_vector(wn_loader *ld, const float **out, int n, bool need, const char *name, int layer);
/* token_embd, output_norm, output (or tied): what every architecture has around its layers. */
void wn_load_ends(wn_loader *ld);
/* Norms and matrices of a standard attention + gated feed-forward layer. */
void wn_load_attention(wn_loader *ld, wn_layer *L, int layer);
void wn_load_feed_forward(wn_loader *ld, wn_layer *L, int layer);

#endif
