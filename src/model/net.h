/* model/net.h - rows through a network: what every architecture's forward pass is made of.
 *
 * A pass takes the rows of a ragged batch (prompt chunks and decode tokens of several
 * sequences, one after another) from token ids to logits. Each function below is one
 * step of the papers' notation over all rows, spread over the threads; a row's result
 * depends on that row alone (attention apart), never on its neighbours in the batch.
 */
#ifndef WN_MODEL_NET_H
#define WN_MODEL_NET_H

#include "model/model.h"

typedef struct wn_experts wn_experts;

struct wn_pass {
    /* filled by the caller */
    int n_rows, n_ctx;                  /* n_ctx: of the engine */
    const int32_t *tokens;              /* (n_rows) */
    const wn_attend_item *items; int n_items;
    const int *out_rows; int n_out;     /* rows whose logits are wanted, ascending */
    float *logits;                      /* (n_out, n_vocab) */
    wn_arena *arena;
    wn_threads *team;
    const wn_attend_observer *observer; /* or NULL */
    /* made by wn_pass_begin, (n_rows, width) each */
    const wn_model *m;
    float *x, *h;                       /* n_embd: the residual stream; a normed or projected
                                           copy */
    float *q, *k, *v, *a;               /* heads x dim: queries, keys, values, answers */
    float *gate, *up;                   /* n_ff */
    void *act, *mm;                     /* prepared activations; kernel scratch */
    wn_experts *experts;                /* experts.c; NULL: the model has none */
    wn_attend_pass *attend;
    int n_active;                       /* rows still computed: n_rows until the outputs are cut */
};

/* Arena bytes that a pass of at most these sizes takes. */
size_t wn_pass_scratch_bytes(const wn_model *m, int max_rows, int max_items, int max_out,
                             int max_positions, int n_threads);
void wn_pass_begin(wn_pass *p, const wn_model *m);

typedef struct {
    const wn_matrix *w;
    float *out;
    const float *bias;
} wn_linear;

void wn_net_embed(wn_pass *p);                                          /* x = E[token] */
/* rms norm over n_embd */
void wn_net_norm(wn_pass *p, float *out, const float *x, const float *w);
/* over k_dim, each head, in place */
void wn_net_head_norm(wn_pass *p, float *x, const float *w, int n_heads);
/* over n, each row, in place */
void wn_net_wide_norm(wn_pass *p, float *x, const float *w, int n);
/* out_i = W_i x + b_i; all from the same input rows. Output strides are the row counts. */
void wn_net_linear(wn_pass *p, const float *x, int n_cols, const wn_linear *l, int n);
void wn_net_attend(wn_pass *p, int layer);                              /* a = attention(q, k, v) */
void wn_net_add(wn_pass *p, float *x, const float *y);                  /* x += y over n_embd */
void wn_net_scale(wn_pass *p, float *x, float s);                       /* x *= s over n_embd */
typedef enum { WN_GATE_SILU, WN_GATE_GELU, WN_GATE_CLAMPED } wn_gate;   /* kernel/vec.h */
void wn_net_gate(wn_pass *p, wn_gate kind, float *gate, const float *up, int n_rows, int n);
/* h = W_down (gate(W_gate h) * W_up h), with the layer's biases. */
void wn_net_gated(wn_pass *p, const wn_layer *L, wn_gate gate);
/* The gated feed-forward half of a layer: x += W_down (silu(W_gate h) * W_up h), h = norm(x). */
void wn_net_feed_forward(wn_pass *p, const wn_layer *L);
/* How weights come from the router's logits: a softmax over all experts, of which the chosen
 * keep their share; the same, the chosen made to sum to 1; a softmax over the chosen. */
typedef enum { WN_ROUTE_SHARE, WN_ROUTE_NORMED, WN_ROUTE_CHOSEN } wn_route;
/* h = sum over the experts each row chooses, in ascending order of their numbers, of its
 * weight times expert(h). */
void wn_net_experts(wn_pass *p, const wn_layer *L, wn_route route, wn_gate gate);
/* In the last layer, after attention: only rows whose logits are wanted go on. */
void wn_net_cut_outputs(wn_pass *p);
void wn_net_head(wn_pass *p);                                           /* logits = head(norm(x)) */
/* logits = cap tanh(logits / cap); 0: as they are */
void wn_net_cap_logits(wn_pass *p, float cap);

/* ---- for the files of this directory --------------------------------------------- */

/* Runs fn for rows [0, n_rows), each of about `width` floats of work. */
typedef void wn_net_row(const wn_pass *p, const void *arg, int row);
void wn_net_each_row(const wn_pass *p, int n_rows, int width, wn_net_row *fn, const void *arg);
size_t wn_experts_scratch_bytes(const wn_model *m, int max_rows);       /* 0 without experts */
void wn_experts_begin(wn_pass *p);

#endif
