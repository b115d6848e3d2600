/* winnow.h - what a program that embeds winnow sees.
 *
 * A model is opened once and shared. An engine owns a fixed amount of memory for the
 * key-value cache and runs any number of sequences over it, several at a time in one
 * pass. A sequence is a text in the making: tokens are fed, wn_engine_step() computes
 * them, logits come out, the caller (or a wn_sampler) picks the next token.
 *
 *     wn_model  --->  wn_engine  --->  wn_seq, wn_seq, ...
 *     weights         cache, threads   tokens, cache pages, logits
 *
 * Conventions. Functions that can fail return a wn_status and fill a wn_err, if given,
 * with one sentence that says what, where and what to do. open/close pairs own
 * resources; close(NULL) is fine. Pointers returned as const are borrowed until the
 * next call on the same object, unless a comment says otherwise. Strings are UTF-8.
 * The library never prints and never exits. Options are structs in which zero means
 * the default. One engine and its sequences belong to one thread at a time; a model
 * may be shared by engines of different threads.
 */
#ifndef WINNOW_H
#define WINNOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WN_VERSION "0.1.0"

/* ---- errors ---------------------------------------------------------------- */

typedef enum {
    WN_OK = 0,
    WN_EINVAL,      /* an argument or option makes no sense */
    WN_ENOMEM,      /* the operating system has no memory */
    WN_EIO,         /* a file or device failed */
    WN_EFORMAT,     /* a file is not what it should be */
    WN_EUNSUPPORTED,/* well-formed, but this build cannot do it */
    WN_EFULL,       /* the cache (or a budget) has no room: a state, not a fault */
    WN_ELIMIT,      /* beyond a promise: context length, --mem */
} wn_status;

typedef struct {
    wn_status status;
    char text[1000];                /* one sentence, NUL-terminated */
} wn_err;

const char *wn_status_name(wn_status s);

typedef struct { size_t from, to; } wn_range;   /* bytes [from, to) */

/* ---- model ----------------------------------------------------------------- */

typedef struct wn_model wn_model;

typedef struct {
    int n_threads;                  /* for loading; 0: all processors of this process */
    bool vocab_only;                /* tokenizer and metadata, no weights */
    bool no_repack;                 /* leave quantised weights mapped as they are: slower, loads at
                                       once */
    void (*progress)(void *ctx, double done);   /* 0..1 while weights are repacked; may be NULL */
    void *progress_ctx;
} wn_model_opts;

/* path: a GGUF file, or the first part of a split one. opts may be NULL. */
wn_status wn_model_open(wn_model **out, const char *path, const wn_model_opts *opts, wn_err *err);
void wn_model_close(wn_model *m);   /* after the engines that use it */

typedef struct {
    const char *architecture, *name;    /* owned by the model */
    const char *chat_template;          /* Jinja, as in the file; empty: none. Owned by the model */
    int n_layers, n_embd, n_heads, n_kv_heads, k_dim, v_dim, n_vocab, n_ctx_train;
    int64_t n_params;
    size_t file_bytes;              /* of all parts */
    size_t weight_bytes;            /* held: repacked copies and mapped tensors in use */
    size_t step_bytes;              /* of weights read to compute one token with its logits */
    int64_t body_macs, head_macs;   /* multiply-adds in matrices per token: layers; the output
                                       head */
} wn_model_info;
void wn_model_get_info(const wn_model *m, wn_model_info *out);
/* Bytes of cache that n positions take, all layers, in a format ("f16", ...); pages are
 * counted whole. 0 when the format is unknown. */
size_t wn_model_kv_bytes(const wn_model *m, const char *k_type, const char *v_type,
                         int n_positions);

/* ---- text and tokens ------------------------------------------------------- */

enum {
    WN_PARSE_SPECIAL = 1,           /* special tokens spelled in the text become their ids */
    WN_NO_BOS = 2,                  /* leave out the bos/eos the model asks for */
};
/* *ids is the caller's: wn_tokens_free(). text need not be valid UTF-8. */
wn_status wn_tokens_from_text(const wn_model *m, const char *text, size_t n_bytes, unsigned flags,
                              int32_t **ids, size_t *n_ids, wn_err *err);
/* The same with WN_PARSE_SPECIAL everywhere but in the plain ranges (ascending): a control token
 * that lies in one, or reaches into one, is text. */
wn_status wn_tokens_from_ranges(const wn_model *m, const char *text, size_t n_bytes, unsigned flags,
                                const wn_range *plain, size_t n_plain, int32_t **ids, size_t *n_ids,
                                wn_err *err);
void wn_tokens_free(int32_t *ids);
int32_t wn_model_bos(const wn_model *m);            /* -1: none */
int32_t wn_model_eos(const wn_model *m);
bool wn_model_is_end(const wn_model *m, int32_t id);    /* this token ends generation */
/* The bytes of one token, exactly (perhaps part of a character); writes at most cap,
 * returns the full length. */
size_t wn_token_text(const wn_model *m, int32_t id, bool special, char *buf, size_t cap);

/* Tokens [*from, *to) of ids hold bytes [first, end) of the text that they were made of: all
 * that overlap it. WN_EINVAL beyond the text, or where the tokenizer has changed it so that its
 * bytes are not those of its tokens. */
wn_status wn_tokens_of_bytes(const wn_model *m, const int32_t *ids, size_t n_ids, const char *text,
                             size_t n_bytes, size_t first, size_t end, int *from, int *to,
                             wn_err *err);

/* The tokens that follow a prompt, to text as they come: never half a character. */
typedef struct wn_text wn_text;
enum {
    WN_SHOW_SPECIAL = 1,            /* special tokens as their text; else they give nothing */
    WN_FROM_START = 2,              /* the tokens begin a text: some tokenizers' leading space
                                       goes */
};
wn_status wn_text_open(wn_text **out, const wn_model *m, unsigned flags, wn_err *err);
void wn_text_close(wn_text *t);
/* NUL-terminated, possibly empty, borrowed until the next call; *n (may be NULL) is its length. */
const char *wn_text_push(wn_text *t, int32_t id, size_t *n);
const char *wn_text_end(wn_text *t, size_t *n);

/* ---- conversations ----------------------------------------------------------- */

/* A chat template: Jinja that a model file brings (or the caller), turning a conversation into
 * the text the model was trained on. It is run within limits of time and memory and reaches
 * nothing of the host but its clock. Immutable after open: any number of threads. */
typedef struct wn_chat wn_chat;

typedef struct {
    const char *source;             /* Jinja; NULL: the model's own */
    const char *variant;            /* of the model's: "tool_use" is
                                       tokenizer.chat_template.tool_use; NULL: the default one, or
                                       with tools "tool_use" where the file has it */
} wn_chat_opts;

/* WN_EUNSUPPORTED when the model has no template; a wrong one is a sentence with line and column.
 * The model is borrowed. opts may be NULL. */
wn_status wn_chat_open(wn_chat **out, const wn_model *m, const wn_chat_opts *opts, wn_err *err);
void wn_chat_close(wn_chat *c);
/* Templates that winnow has for models without one: "chatml", "plain" (User: ... Assistant: ...).
 * NULL for other names. */
const char *wn_chat_builtin(const char *name);

typedef struct { const char *role, *content; } wn_message;

typedef struct {
    const wn_message *messages;     /* n_messages of them, or ... */
    int n_messages;
    const char *messages_json;      /* ... a JSON array of objects with role, content, tool_calls
                                       ... as OpenAI has them */
    const char *tools_json;         /* a JSON array; NULL: none */
    const char *vars_json;          /* a JSON object: more variables, {"enable_thinking": false} */
    bool no_generation_prompt;      /* end after the last message instead of beginning an answer */
    int64_t now;                    /* for templates that write the date: seconds since the epoch;
                                       0: the clock */
} wn_chat_input;

/* What came of it, and which bytes the caller gave (messages, tools, variables), as against the
 * template: special tokens spelled there are not meant. Ranges ascend and do not touch. */
typedef struct {
    char *text;                     /* NUL-terminated */
    size_t n;
    wn_range *plain;
    size_t n_plain;
} wn_chat_text;

wn_status wn_chat_render(const wn_chat *c, const wn_chat_input *in, wn_chat_text *out, wn_err *err);
void wn_chat_text_release(wn_chat_text *t);
/* The same as ids, ready to be fed: special tokens of the template are ids, those spelled by users
 * are text, and the text begins with the model's BOS once if it asks for one. *ids is the caller's:
 * wn_tokens_free(). */
wn_status wn_chat_tokens(const wn_chat *c, const wn_chat_input *in, int32_t **ids, size_t *n_ids,
                         wn_err *err);

/* ---- engine ---------------------------------------------------------------- */

typedef struct wn_engine wn_engine;

typedef struct {
    int n_threads;                  /* 0: all processors of this process */
    size_t mem;                     /* ceiling in bytes: weights + cache pool + scratch + 64 MiB; 0:
                                       80 % of what the system (or its control group) has
                                       available */
    int n_ctx;                      /* longest sequence, prompt and answer; 0: what the model was
                                       trained for */
    int max_seqs;                   /* sequences at the same time; 0: 1 */
    int64_t pool_tokens;            /* positions the pool must hold, all sequences together; 0:
                                       n_ctx * max_seqs */
    int n_batch;                    /* rows (tokens) of one pass; 0: 512 */
    const char *k_type, *v_type;    /* cache formats; NULL: "f16" */
    const char *kv;                 /* cache policy the pool is sized for: sequences that name it
                                       (or a thriftier one) have room for pool_tokens; NULL: "none",
                                       everything is kept */
    const char *profile;            /* file of `winnow profile`, read when a policy asks for it;
                                       NULL: beside the model, its path with ".profile" behind it */
    const char *calibration;        /* file of `winnow calibrate`, read when a cache format asks for
                                       it; NULL: beside the model, its path with ".calibration"
                                       behind it */
    int page_slots;                 /* 4..64, a power of two; 0: 64 */
    int64_t protected_tokens;       /* positions that wn_seq_protect() is going to name, all
                                       sequences together */
} wn_engine_opts;

/* The memory the engine needs is taken here or not at all: WN_ELIMIT with the numbers when
 * the ceiling is too low. The model is borrowed. */
wn_status wn_engine_open(wn_engine **out, wn_model *m, const wn_engine_opts *opts, wn_err *err);
void wn_engine_close(wn_engine *e);     /* after its sequences */

typedef struct {
    size_t mem;                     /* the ceiling */
    size_t weights, pool, scratch;  /* what was taken */
    size_t pool_used, pool_peak, pool_slack;
    int n_ctx, n_threads;
    int room;                       /* positions that one more sequence could be promised now */
    const char *numerics;           /* "avx512/2": kernel table and order version */
} wn_engine_info;
void wn_engine_get_info(const wn_engine *e, wn_engine_info *out);

/* ---- sequences ------------------------------------------------------------- */

typedef struct wn_seq wn_seq;

typedef struct {
    int max_tokens;                 /* prompt + answer; reserved in the pool now. 0: it grows up to
                                       the engine's n_ctx; what is fed and 512 more are reserved as
                                       it does (see below) */
    int ring_rows;                  /* rotated queries kept for observers: 0 or 64 */
    const char *kv;                 /* cache policy (winnow recipes lists them), copied; NULL:
                                       "none" */
    /* Logits after every token, in order of position: (n_vocab), borrowed. NULL: only the
     * last token's are computed. */
    void (*on_logits)(void *ctx, int pos, const float *logits);
    void *on_logits_ctx;
} wn_seq_opts;

/* WN_EFULL with the numbers when the pool cannot promise max_tokens positions.
 *
 * Sequences without max_tokens share what the pool has left. When one needs more than that,
 * those opened after it are parked, the youngest first: their cache is given up, they get no
 * rows, and when there is room they are computed again, the oldest first. No result changes,
 * on_logits is not called twice; the oldest is never parked. */
wn_status wn_seq_open(wn_seq **out, wn_engine *e, const wn_seq_opts *opts, wn_err *err);
void wn_seq_close(wn_seq *s);

/* Appends tokens to be computed by coming steps. WN_ELIMIT when they would pass
 * max_tokens, WN_EFULL when the whole pool could not hold them (nothing is appended),
 * WN_EINVAL for ids outside the vocabulary. */
wn_status wn_seq_feed(wn_seq *s, const int32_t *ids, size_t n, wn_err *err);

/* A mark at the end of what has been fed: policies that decide at marks decide here, before
 * the token that follows is computed. Marks are part of what a result depends on. */
wn_status wn_seq_mark(wn_seq *s, wn_err *err);

/* Positions [from, to), fed or not yet, stay in the cache whatever its policy, inside its budget
 * as far as that goes; those of the system prompt only under policies with system=on. Ranges are
 * part of what a result depends on. WN_EINVAL when a decision has been taken that could have
 * dropped them, WN_EFULL or WN_ELIMIT with the numbers when there is no room to keep so many. */
typedef enum { WN_RANGE_NAMED, WN_RANGE_SYSTEM, WN_RANGE_KINDS } wn_range_kind;
wn_status wn_seq_protect(wn_seq *s, int from, int to, wn_range_kind kind, wn_err *err);

/* Positions [from, to), fed or not yet, are a span: a part of the text that means something as a
 * whole, an example or an instruction. Policies that look at spans keep whole ones (shotkv) or thin
 * them out alike (+retain:fair); where none is named they go by messages and paragraphs. Spans do
 * not overlap and are part of what a result depends on, like ranges. WN_EINVAL for an overlap, and
 * under such a policy after a decision that could have gone by it. */
wn_status wn_seq_name_span(wn_seq *s, int from, int to, wn_err *err);

/* One pass: up to n_batch rows, prompt chunks and decode tokens of all sequences of the
 * engine together. *n_rows (may be NULL) gets the rows computed; 0: nothing was pending.
 * WN_EFULL when something is, and every sequence with tokens to compute waits for room that
 * only closing (or truncating) others can make; all stay as they are. */
wn_status wn_engine_step(wn_engine *e, int *n_rows, wn_err *err);

int wn_seq_n_tokens(const wn_seq *s);               /* fed */
int wn_seq_n_done(const wn_seq *s);                 /* computed, parked or not */
const int32_t *wn_seq_tokens(const wn_seq *s);      /* (n_tokens) */
/* Logits (n_vocab) after the last token when everything fed is computed, else NULL.
 * Borrowed until the sequence's next step. */
const float *wn_seq_logits(const wn_seq *s);

/* Forgets all tokens from position n on. Where pages before n have been encoded or decided about
 * since, the cache can go on from an earlier place only (wn_seq_n_done() says which); what lies
 * between is computed again, to the same bytes. */
wn_status wn_seq_truncate(wn_seq *s, int n, wn_err *err);
/* A second sequence with the same computed tokens; full pages are shared, not copied.
 * opts as for wn_seq_open (NULL: as the source). A kv of its own is possible as long as
 * neither policy would have decided anything about the tokens there are. */
wn_status wn_seq_fork(wn_seq **out, wn_seq *s, const wn_seq_opts *opts, wn_err *err);

/* A session file holds a sequence exactly: going on after load gives the bytes that going
 * on without would have given. Written to a temporary file, synced, renamed. Loading
 * checks everything first (model, numerics, formats, checksum) and changes nothing on failure. */
wn_status wn_seq_save(const wn_seq *s, const char *path, wn_err *err);
wn_status wn_seq_load(wn_seq *s, const char *path, wn_err *err);    /* into an empty sequence */

typedef struct {
    size_t kv_bytes;                /* cache in use: frames, tables, statistics of this sequence */
    size_t kv_bytes_peak;
    uint64_t kv_slots, kv_slots_full;   /* live slots; what the full cache would hold */
    uint64_t observed;              /* (query head, slot) pairs scored or accounted for the policy
                                       alone */
    int promised;                   /* positions the pool has promised by now */
    bool parked;                    /* waits for room, its cache given up; cannot be saved or forked
                                       meanwhile */
} wn_seq_stats;
void wn_seq_get_stats(const wn_seq *s, wn_seq_stats *out);
/* Bytes of K and V that one token at position n reads from a full cache in this sequence's
 * formats. */
size_t wn_seq_read_bytes(const wn_seq *s, int n);

/* ---- sampling -------------------------------------------------------------- */

typedef struct wn_sampler wn_sampler;

typedef struct { int32_t id; float bias; } wn_logit_bias;

/* Every field as written: start from wn_sampling_defaults(). */
typedef struct {
    float temperature;              /* 0: greedy (ties by lower id) */
    int top_k;                      /* 0: off */
    float top_p;                    /* 1: off */
    float min_p;                    /* 0: off */
    int penalty_last_n;             /* tokens looked back at; 0: off, -1: all */
    float repeat_penalty;           /* 1: off */
    float presence_penalty, frequency_penalty;  /* 0: off */
    uint64_t seed;                  /* the draw at a position depends on (seed, position) alone */
    const wn_logit_bias *bias;      /* added before everything else; copied at open */
    int n_bias;
} wn_sampling;
wn_sampling wn_sampling_defaults(void);

wn_status wn_sampler_open(wn_sampler **out, const wn_sampling *opts, int n_vocab, wn_err *err);
void wn_sampler_close(wn_sampler *s);
/* The token to follow `history` (n tokens: the draw is that of position n). WN_EINVAL when
 * the logits hold NaN or nothing can be chosen. */
wn_status wn_sampler_pick(wn_sampler *s, const float *logits, const int32_t *history, int n,
                          int32_t *id, wn_err *err);

/* ---- this machine and its limits -------------------------------------------- */

/* The kernels in use: the best this CPU runs, or what WN_CPU names, and those whose bits they
 * give. */
typedef struct { const char *name, *numerics; } wn_kernels_info;
void wn_kernels_get_info(wn_kernels_info *out);

typedef struct {
    double read_bytes_per_s;        /* memory, plain loads, all threads */
    /* multiply and add counted as 2; 0: not available */
    double int8_ops_per_s, bf16_ops_per_s, f32_ops_per_s;
    double int8_tile_ops_per_s;     /* int8 on matrix tiles; 0: not used here */
} wn_limits;
/* Measures for about a second with n threads (0: all). */
wn_status wn_limits_measure(wn_limits *out, int n_threads, wn_err *err);

/* Wall time spent in attention since the last call with reset, microseconds. */
uint64_t wn_engine_attention_us(wn_engine *e, bool reset);

#ifdef __cplusplus
}
#endif
#endif
