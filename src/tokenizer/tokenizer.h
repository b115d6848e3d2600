/* tokenizer/tokenizer.h - text to ids and back.
 *
 * Two families, read from a GGUF's metadata: byte-level BPE (`gpt2`; the text is cut by
 * the pre-tokenizer's pattern, each piece is merged by rank) and SentencePiece-style BPE
 * (`llama`; spaces become U+2581, pieces merge by score, unknown bytes fall back to
 * <0xNN> tokens). Special tokens are matched in the text only when asked, so that user
 * text cannot spell them. A tokenizer is immutable after open: any number of threads.
 */
#ifndef WN_TOKENIZER_H
#define WN_TOKENIZER_H

#include "gguf/gguf.h"

typedef struct wn_tokenizer wn_tokenizer;

wn_status wn_tokenizer_open(wn_tokenizer **out, const wn_gguf *g, wn_err *err);
void wn_tokenizer_close(wn_tokenizer *t);

int32_t wn_tokenizer_n_vocab(const wn_tokenizer *t);
int32_t wn_tokenizer_bos(const wn_tokenizer *t);    /* -1 when there is none; likewise below */
int32_t wn_tokenizer_eos(const wn_tokenizer *t);
bool wn_tokenizer_add_bos(const wn_tokenizer *t);
bool wn_tokenizer_add_eos(const wn_tokenizer *t);
/* Any token that ends generation: eos, eot/eom and the usual names (<|im_end|>, <|eot_id|>,
 * <|endoftext|>, <end_of_turn> ...) where the vocabulary marks them as control tokens. */
bool wn_tokenizer_is_end(const wn_tokenizer *t, int32_t id);
bool wn_tokenizer_is_special(const wn_tokenizer *t, int32_t id);
/* Is what it stands for nothing but punctuation (Unicode's categories P), spaces around it
 * aside? */
bool wn_tokenizer_is_punctuation(const wn_tokenizer *t, int32_t id);
/* Id of the token spelled exactly so in the vocabulary, else -1. */
int32_t wn_tokenizer_find(const wn_tokenizer *t, const char *piece, size_t n);

typedef struct {
    bool parse_special;     /* special tokens spelled in the text become their ids */
    bool no_bos_eos;        /* leave out what add_bos / add_eos would add */
    const wn_range *plain;  /* with parse_special: ranges, ascending, in which none is meant */
    size_t n_plain;
} wn_tokenize_opts;

/* Ids of n bytes of text (need not be valid UTF-8). *ids is from wn_alloc; the caller
 * frees it with wn_free(). Time grows as n log n even for one word of a megabyte. */
wn_status wn_tokenize(const wn_tokenizer *t, const char *text, size_t n, const wn_tokenize_opts *o,
                      int32_t **ids, size_t *n_ids, wn_err *err);

/* The bytes one id stands for, exactly (a piece may be half a UTF-8 character); returns
 * the length and writes at most cap bytes. Special tokens give their text when special
 * is set, else nothing. Ids outside the vocabulary give nothing. */
size_t wn_token_bytes(const wn_tokenizer *t, int32_t id, bool special, char *buf, size_t cap);

/* Streaming: ids in, whole UTF-8 characters out. Bytes that can still become a character
 * wait (at most 3); bytes that never can come out as U+FFFD. The leading space that a
 * SentencePiece tokenizer puts before the first word (and before the first after a control
 * token) is taken off; set started where the ids go on a text that was shown before. */
typedef struct {
    const wn_tokenizer *t;
    bool special;           /* show special tokens */
    bool started;
    int n_wait;
    char wait[4];
} wn_detok;
void wn_detok_init(wn_detok *d, const wn_tokenizer *t, bool special);
/* Returns the number of bytes written to buf (cap >= wn_detok_max(t)). */
size_t wn_detok_push(wn_detok *d, int32_t id, char *buf, size_t cap);
size_t wn_detok_end(wn_detok *d, char *buf, size_t cap);    /* what still waits, as U+FFFD */
size_t wn_detok_max(const wn_tokenizer *t);                 /* longest output of one push */

#endif
