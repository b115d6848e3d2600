/* gguf/generate.h - random-weight models of any shape, for tests and benchmarks.
 *
 * A generated model is a complete GGUF file: metadata, a byte-level vocabulary with merges
 * and special tokens, a chat template, weights. The weights are noise, scaled so that
 * activations stay near 1 through any number of layers and logits have a spread of about
 * 2.5: good for arithmetic, speed and memory, meaningless as language. The same options
 * and seed give the same bytes, whatever the number of threads.
 */
#ifndef WN_GGUF_GENERATE_H
#define WN_GGUF_GENERATE_H

#include "base/threads.h"
#include "gguf/types.h"

/* Zero (NULL) means what the comment says. */
typedef struct {
    const char *arch;       /* "llama" (default) or one of wn_generate_archs */
    const char *type;       /* a tensor type, or a mix: "Q4_K_M" (default F16) */
    int dim;                /* 2048 */
    int n_layers;           /* 16 */
    int n_heads;            /* dim / head_dim */
    int n_kv_heads;         /* n_heads */
    int head_dim;           /* 64 */
    int ffn;                /* 4 x dim; of architectures with experts: of each */
    int n_experts;          /* 0 for llama, else 8 where the architecture has them */
    int n_used;             /* 2 of them per token */
    int window;             /* of sliding-window layers; 0: none */
    int vocab;              /* 32000; at least 259: bytes and special tokens */
    int n_ctx;              /* 131072 */
    float rope_theta;       /* 500000 */
    float rope_scale;       /* factor, e.g. 4; 0: none */
    const char *rope_type;  /* "linear" (default), "yarn", "longrope" (short and long divisors) */
    int rope_ctx;           /* context before scaling; n_ctx / rope_scale */
    int rope_dims;          /* rotated channels; head_dim */
    bool rope_freqs;        /* a rope_freqs tensor, as Llama 3.1 has */
    bool untied;            /* an output matrix of its own */
    uint64_t seed;
    const char *name;       /* general.name; "random ARCH" */
} wn_generate_opts;

/* Names of presets, of architectures and of types, and presets' values; false for an unknown
 * name. */
extern const char *const wn_generate_presets, *const wn_generate_archs, *const wn_generate_types;
bool wn_generate_preset(wn_generate_opts *o, const char *name);

/* Writes the model to path; t may be NULL. */
wn_status wn_generate(const char *path, const wn_generate_opts *o, wn_threads *t, wn_err *err);

#endif
