/* model/model.h - weights in memory, and one pass through them.
 *
 * A model file names an architecture; each architecture is one file in this directory
 * with two functions: `load` takes its tensors (names, shapes, which are optional) and
 * `forward` is the pass, to be read from top to bottom like the paper. What they share is
 * in net.h (rows through a norm, a matrix, an activation) and load.h (tensors by name).
 *
 * Ownership: the model owns the mapping of the file, one block of packed weights, one
 * block of small float vectors, and the tokenizer. It is immutable after open.
 */
#ifndef WN_MODEL_MODEL_H
#define WN_MODEL_MODEL_H

#include "attention/attend.h"
#include "kernel/matmul.h"
#include "tokenizer/tokenizer.h"

enum { WN_EXPERTS_USED_MAX = 64 };      /* of a token */

typedef struct {
    int n_layers, n_embd, n_heads, n_kv_heads, k_dim, v_dim, n_ff, n_vocab, n_ctx_train;
    int n_experts, n_used, n_ff_expert; /* 0, 0, 0: none */
    float expert_scale;                 /* of their weights, usually 1 */
    float norm_eps;
    float attn_scale;                   /* usually 1 / sqrt(k_dim) */
    float attn_softcap, logit_softcap;  /* 0: none */
    int rope_dims;
    double rope_base, rope_linear;      /* linear: positions are divided by it; 1: none */
    double rope_base_local;             /* of layers with local_rope; 0: there are none */
    double rope_length;                 /* what is rotated gets so much longer; usually 1 */
    wn_rope_yarn yarn;                  /* factor 0: none */
    int n_ctx_rope;                     /* what rotation was trained for, before it was stretched */
    int window;                         /* sliding-window layers see this many positions; 0: none */
} wn_hparams;

typedef struct {
    const float *attn_norm, *ffn_norm;  /* (n_embd) */
    const float *attn_post_norm, *ffn_post_norm;    /* (n_embd) of what a half adds, or NULL */
    const float *q_norm, *k_norm;       /* (k_dim) per head before rope, or NULL; olmoe: over all
                                           heads */
    const float *bq, *bk, *bv, *bo;     /* biases, or NULL */
    const float *sinks;                 /* (n_heads) logits of attention sinks, or NULL */
    wn_matrix wq, wk, wv, wo;           /* (n_heads k_dim, n_embd) ... (n_embd, n_heads v_dim) */
    wn_matrix gate, up, down;           /* (n_ff, n_embd) twice, (n_embd, n_ff); unless it has
                                           experts */
    const float *bgate, *bup, *bdown;   /* biases, or NULL; of experts: (n_experts, n_ff_expert),
                                           ... */
    wn_matrix router;                   /* (n_experts, n_embd) */
    const float *brouter;               /* (n_experts) or NULL */
    wn_matrix *gates, *ups, *downs;     /* (n_experts) of (n_ff_expert, n_embd) twice, (n_embd,
                                           n_ff_expert); or NULL */
    int window;                         /* this layer's window; 0: full attention */
    bool local_rope, no_rope;           /* turns by rope_base_local; or not at all */
} wn_layer;

typedef struct wn_pass wn_pass;         /* net.h */
typedef struct wn_loader wn_loader;     /* load.h */

typedef struct {
    const char *name;                   /* general.architecture */
    bool rope_neox;                     /* pairs (j, j + d/2) instead of (2j, 2j + 1) */
    wn_status (*load)(wn_loader *ld, wn_err *err);
    void (*forward)(const wn_model *m, wn_pass *p);
} wn_arch;

extern const wn_arch wn_arch_llama, wn_arch_qwen2, wn_arch_qwen3, wn_arch_gemma2, wn_arch_gemma3,
    wn_arch_phi3, wn_arch_smollm3, wn_arch_qwen3moe, wn_arch_olmoe, wn_arch_gptoss;

enum { WN_ROPE_MAIN, WN_ROPE_LOCAL, WN_ROPE_LONG, WN_ROPES };

struct wn_model {
    wn_gguf *file;
    wn_tokenizer *tokenizer;
    const wn_arch *arch;
    char *name, *chat_template;
    wn_hparams hp;
    wn_layer *layers;                   /* n_layers */
    wn_matrix *expert_matrices;         /* what the layers' gates, ups and downs point to */
    wn_matrix embed, head;              /* (n_vocab, n_embd) both; head.data == embed.data when
                                           tied */
    const float *out_norm;              /* (n_embd) */
    wn_rope ropes[WN_ROPES];
    int n_ctx_short;                    /* longrope: contexts longer than this turn by WN_ROPE_LONG;
                                           0: none do */
    wn_lane_map map;
    wn_lane *lanes;
    int *first_lane;
    wn_attend_shape shape;
    void *packed;   size_t packed_bytes;    /* repacked weights */
    float *vectors; size_t vectors_bytes;   /* norms, biases */
    size_t weight_bytes;                /* packed + vectors + mapped tensors in use */
    int64_t n_params;
};

/* How a layer turns q and k in an engine with this context; NULL: not at all. A model of
 * longrope has one set of rates for contexts up to what it was first trained for and one
 * for longer ones, and which it is must not change within a text: keys stay where they
 * are. So the context of the engine decides, not the length of the text. */
const wn_rope *wn_model_rope(const wn_model *m, int layer, int n_ctx);

/* 16 bytes that name the weights: XXH3-128 over header, tensor table and data. Reads the
 * whole file: called when a session is saved or loaded, not at open. */
void wn_model_fingerprint(const wn_model *m, wn_threads *team, uint8_t out[16]);

#endif
