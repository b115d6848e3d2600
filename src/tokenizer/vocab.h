/* tokenizer/vocab.h - the inside of a tokenizer: what its files share.
 *
 *     text -> special.c cuts out special tokens -> pretok.c cuts the rest into pieces (bpe)
 *          -> bpe.c or spm.c: symbols -> merge.c joins neighbours, best pair first -> ids
 *
 * A token has two texts. Its spelling is what stands in the vocabulary ("Ġthe", "▁the",
 * "<0x0A>"); its bytes are what it means ("<space>the", a line feed). Both are copied at
 * open, so the tokenizer does not hold on to the model file.
 *
 * Invariants, from wn_vocab_read() on:
 *   V1  every id that any table holds is in [0, n_vocab)
 *   V2  what plain text can become has type normal, unused or user-defined, or is a byte
 *       token or the unknown token of spm: user text cannot spell a control token
 *   V3  the bytes of a merge's result are the bytes of its parts, one after the other
 */
#ifndef WN_TOKENIZER_VOCAB_H
#define WN_TOKENIZER_VOCAB_H

#include "tokenizer/tokenizer.h"

/* tokenizer.ggml.token_type */
typedef enum {
    WN_TOK_NORMAL = 1, WN_TOK_UNKNOWN = 2, WN_TOK_CONTROL = 3, WN_TOK_USER = 4,
    WN_TOK_UNUSED = 5, WN_TOK_BYTE = 6
} wn_tok_type;

/* A spelling longer than this is never looked for in a text: bounds the work per position,
 * whatever a vocabulary contains. */
#define WN_PIECE_MAX 1024

/* A growing list of ids. */
typedef struct {
    int32_t *at;
    size_t n, cap;
} wn_ids;

/* ---- vocab.c: the tokens ----------------------------------------------------- */

typedef struct {
    int32_t n;
    const char *spelling;       /* all spellings, one after the other */
    const char *bytes;          /* likewise what they mean */
    size_t *spelling_at;        /* (n + 1): token i is [at[i], at[i + 1]) */
    size_t *bytes_at;           /* (n + 1) */
    uint8_t *type;              /* (n) wn_tok_type */
    float *score;               /* (n) spm only, never NaN; else NULL */
    int32_t *slot;              /* open addressing over spellings; -1 is empty */
    size_t n_slots;             /* a power of two, at least twice the entries */
    int32_t byte_id[256];       /* the token of each byte, -1 where there is none */
    size_t longest_text;        /* longest spelling, in bytes, that plain text can become */
    size_t longest_bytes;       /* longest token, in bytes it means */
    bool spm;
    bool space_leads;           /* spm: no piece has U+2581 after anything else (see spm.c) */
} wn_vocab;

wn_status wn_vocab_read(wn_vocab *v, const wn_gguf *g, bool spm, wn_err *err);
void wn_vocab_release(wn_vocab *v);
/* The token spelled so, -1 when there is none; plain: only one that plain text can become. */
int32_t wn_vocab_find(const wn_vocab *v, const char *s, size_t n, bool plain);

static inline wn_str wn_vocab_spelling(const wn_vocab *v, int32_t id)
{
    return (wn_str){ v->spelling + v->spelling_at[id],
                     v->spelling_at[id + 1] - v->spelling_at[id] };
}
static inline wn_str wn_vocab_bytes(const wn_vocab *v, int32_t id)
{
    return (wn_str){ v->bytes + v->bytes_at[id], v->bytes_at[id + 1] - v->bytes_at[id] };
}
static inline bool wn_vocab_plain(const wn_vocab *v, int32_t id)
{
    int t = v->type[id];
    return t == WN_TOK_NORMAL || t == WN_TOK_UNUSED || (t == WN_TOK_USER && v->spm);
}
/* Names and spellings come from the file and go into error sentences: at most 40 bytes,
 * whatever is not printable ASCII as '?'. Returns out. */
char *wn_vocab_quote(char out[48], wn_str s);
/* The character (U+0000..U+0143) that stands for a byte in byte-level spellings, as
 * UTF-8; returns its length, 1 or 2. */
size_t wn_byte_spelling(uint8_t byte, char out[2]);

/* ---- pretok.c: patterns ------------------------------------------------------ */

typedef struct wn_pretok wn_pretok;

/* Unknown names are WN_EUNSUPPORTED with a list of the known ones. An empty name means
 * "default". What else the name tells: whether whole pieces are looked up before
 * merging, and whether a BOS token belongs in front. */
wn_status wn_pretok_open(wn_pretok **out, wn_str name, bool *whole_first, bool *add_bos,
                         wn_err *err);
void wn_pretok_close(wn_pretok *p);
/* Calls piece() with each piece of the text, left to right; together they are the text.
 * Bytes that are not UTF-8 are pieces of one byte. */
typedef wn_status wn_pretok_piece(void *ctx, const char *s, size_t n, wn_err *err);
wn_status wn_pretok_cut(const wn_pretok *p, const char *text, size_t n, wn_pretok_piece *piece,
                        void *ctx, wn_err *err);

/* ---- merge.c: joining neighbours, best pair first ---------------------------- */

#define WN_NO_KEY UINT32_MAX

/* A run of bytes that is, or is not yet, a token. Symbols are a list in an array. */
typedef struct {
    uint32_t at, n;             /* bytes [at, at + n) of the piece */
    int32_t id;                 /* -1: no token is spelled so */
    uint32_t prev, next;        /* UINT32_MAX at the ends */
    uint32_t key;               /* of the pair (this, next): lower joins first; or WN_NO_KEY */
    int32_t joined;             /* the id that pair becomes */
} wn_symbol;

/* Says what the pair (a, b) of neighbours becomes and how early: sets a->key, a->joined. */
typedef void wn_pair(const void *ctx, wn_symbol *a, const wn_symbol *b);

typedef struct {
    wn_symbol *sym;
    size_t n, cap;
    uint64_t *heap;             /* key << 32 | symbol */
    size_t n_heap, cap_heap;
} wn_merge;

void wn_merge_release(wn_merge *m);
/* Room for n symbols; forgets those of the last piece. WN_ENOMEM. */
wn_status wn_merge_begin(wn_merge *m, size_t n, wn_err *err);
static inline void wn_merge_add(wn_merge *m, uint32_t at, uint32_t n, int32_t id)
{
    m->sym[m->n++] = (wn_symbol){ .at = at, .n = n, .id = id };
}
/* Joins until no pair is left that can be joined. Symbol 0 stays the first of the list. */
void wn_merge_run(wn_merge *m, wn_pair *pair, const void *ctx);

/* ---- bpe.c, spm.c: a stretch of plain text to ids ---------------------------- */

/* Merges, keyed by the pair of ids; the value is the rank and what it makes. */
typedef struct {
    struct { int32_t left, right, joined; uint32_t rank; } *slot;  /* left -1: empty */
    size_t n_slots;
} wn_ranks;

wn_status wn_ranks_read(wn_ranks *r, const wn_vocab *v, const wn_gguf *g, wn_err *err);
void wn_ranks_release(wn_ranks *r);

/* What one wn_tokenize() call needs besides the tokenizer. */
typedef struct {
    const wn_tokenizer *t;
    wn_merge merge;
    wn_ids ids;
    char *escaped;              /* spm: the text with its spaces escaped */
    size_t cap_escaped;
} wn_encoder;

wn_status wn_bpe_encode(wn_encoder *e, const char *text, size_t n, wn_err *err);
wn_status wn_spm_encode(wn_encoder *e, const char *text, size_t n, bool prefix, wn_err *err);
wn_status wn_ids_push(wn_ids *ids, int32_t id, wn_err *err);

/* ---- special.c: tokens matched in the text before anything else --------------- */

typedef struct {
    int32_t *id;                /* sorted by their bytes */
    size_t n;
    uint32_t first[257];        /* those beginning with byte b are [first[b], first[b + 1]) */
} wn_specials;

/* all: control, unknown and user-defined tokens; else user-defined ones only. */
wn_status wn_specials_build(wn_specials *s, const wn_vocab *v, bool all, wn_err *err);
void wn_specials_release(wn_specials *s);
/* The leftmost special token at or after from, the longest of those that begin there.
 * Returns where it begins and sets *id and *len; n and *id = -1 when there is none. */
size_t wn_specials_next(const wn_specials *s, const wn_vocab *v, const char *text, size_t n,
                        size_t from, int32_t *id, size_t *len);

/* A walk from one special token of a text to the next, past the ranges that are plain: there only
 * user-defined tokens count, and no control token may reach into one. */
typedef struct {
    const wn_tokenizer *t;
    const char *text;
    size_t n;
    bool all;                   /* control tokens too, outside of the plain ranges */
    const wn_range *plain;
    size_t n_plain;
    size_t user_at, user_len;   /* the next user-defined token, once looked for */
    int32_t user_id;
    bool user_known;
} wn_special_walk;

size_t wn_special_walk_next(wn_special_walk *w, size_t from, int32_t *id, size_t *len);

/* ---- tokenizer.c -------------------------------------------------------------- */

struct wn_tokenizer {
    wn_vocab vocab;
    wn_pretok *pretok;          /* bpe only */
    wn_ranks ranks;             /* bpe only */
    wn_specials user, all;
    bool whole_first;           /* bpe: a piece that is a token is not merged */
    bool space_prefix;          /* spm */
    bool add_bos, add_eos;
    int32_t bos, eos, unk;      /* -1: none */
    int32_t ends[16];           /* tokens that end generation */
    int n_ends;
};

#endif
