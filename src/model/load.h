/* model/load.h - tensors by name and shape, for the load function of an architecture.
 *
 * Every call records what it wants; the first failure stays in the loader and later calls
 * do nothing, so an architecture reads as a list. Data is packed afterwards, all at once
 * and in parallel.
 */
#ifndef WN_MODEL_LOAD_H
#define WN_MODEL_LOAD_H

#include "model/model.h"

typedef struct { wn_matrix *m; const wn_tensor *t; int64_t first; size_t offset; } wn_pack_item;

struct wn_loader {
    wn_model *m;
    bool no_repack;
    wn_status status;
    wn_err *err;
    bool *asked;                        /* (tensors of the file) */
    wn_pack_item *items; int n_items, cap_items;
    size_t packed_bytes;                /* so far */
    float *vectors; size_t n_vectors, cap_vectors;
    int n_expert_matrices;
};

/* ---- numbers (hparams.c) ------------------------------------------------------- */

/* "<architecture>.<field>" within bounds; absent and not needed: *out stays. */
wn_status wn_hp_int(const wn_model *m, const char *field, bool need, int64_t min, int64_t max,
                    int *out, wn_err *err);
wn_status wn_hp_float(const wn_model *m, const char *field, bool need, double min, double max,
                      double *out, wn_err *err);
/* Width and scale of experts; their absence is a failure. After wn_read_hparams(). */
wn_status wn_hp_experts(wn_model *m, wn_err *err);
/* Gives all layers but each `every`-th a window, or those that the file lists; every 0: all. */
wn_status wn_hp_windows(wn_model *m, int window, int every, wn_err *err);
/* What all architectures have; before and after an architecture's load. */
wn_status wn_read_hparams(wn_model *m, wn_err *err);
wn_status wn_make_ropes(wn_loader *ld);

/* ---- tensors (load.c) ---------------------------------------------------------- */

/* name is a printf format that may use one %d: the layer. Shapes must match exactly. */
void wn_load_matrix(wn_loader *ld, wn_matrix *out, int n_rows, int n_cols, const char *name,
                    int layer);
/* Rows [first, first + n_rows) of a matrix that has all_rows. */
void wn_load_rows(wn_loader *ld, wn_matrix *out, int first, int n_rows, int all_rows, int n_cols,
                  const char *name, int layer);
/* A vector of n floats; absent and not needed: *out stays NULL. */
void wn_load_vector(wn_loader *ld, const float **out, int n, bool need, const char *name,
                    int layer);
/* `count` of them, one below the other (biases of experts). */
void wn_load_vectors(wn_loader *ld, const float **out, int n, int count, bool need,
                     const char *name, int layer);
bool wn_load_has(const wn_loader *ld, const char *name, int layer);
void wn_load_fail(wn_loader *ld, wn_status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* token_embd, output_norm, output (or tied): what every architecture has around its layers. */
void wn_load_ends(wn_loader *ld);
/* Norms and matrices of a standard attention (q, k, v apart or in one tensor) and of a gated
 * feed-forward layer, dense or of experts. Biases of attention are for those that have them. */
void wn_load_attention(wn_loader *ld, wn_layer *L, int layer);
void wn_load_attention_biases(wn_loader *ld, wn_layer *L, bool need, int layer);
void wn_load_feed_forward(wn_loader *ld, wn_layer *L, int layer);
void wn_load_experts(wn_loader *ld, wn_layer *L, int layer);

/* After the last: every tensor of the file was asked for; then the packing. */
void wn_load_check_all(wn_loader *ld);
wn_status wn_load_pack(wn_loader *ld, const wn_model_opts *o, wn_threads *team, wn_err *err);

#endif
