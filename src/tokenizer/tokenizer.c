/* tokenizer/tokenizer.c - opening a tokenizer, asking it, and the way of a text through it.
 *
 * Everything is read and checked at open; nothing is written afterwards, so any number of
 * threads may encode at once, each with an encoder of its own. Where a file says nothing,
 * the defaults are those its family was trained with: SentencePiece vocabularies put
 * <s> and a space in front, byte-level ones put nothing, except the llama-bpe kind,
 * which begins with its BOS token.
 */
#include "tokenizer/vocab.h"

#include <string.h>

#include <utf8proc.h>

#include "base/alloc.h"
#include "tokenizer/utf8.h"

#define MAX_TEXT ((size_t)1 << 30)      /* bytes: positions inside a word are 32 bits wide */

/* ---- opening -------------------------------------------------------------------- */

static wn_status read_id(const wn_tokenizer *t, const wn_gguf *g, const char *key, int32_t *id,
                         wn_err *err)
{
    int64_t v = *id;
    wn_status st = wn_gguf_int(g, key, false, -1, t->vocab.n - 1, &v, err);
    if (!st) *id = (int32_t)v;
    return st;
}

static void add_end(wn_tokenizer *t, int32_t id)
{
    if (id < 0 || wn_tokenizer_is_end(t, id) || t->n_ends == (int)WN_COUNT(t->ends)) return;
    t->ends[t->n_ends++] = id;
}

/* The token called so, if the vocabulary marks it as one that text cannot spell. */
static int32_t find_control(const wn_tokenizer *t, const char *name)
{
    int32_t id = wn_vocab_find(&t->vocab, name, strlen(name), false);
    return id >= 0 && t->vocab.type[id] == WN_TOK_CONTROL ? id : -1;
}

static wn_status read_special_ids(wn_tokenizer *t, const wn_gguf *g, wn_err *err)
{
    static const char *const end_names[] = {
        "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>",
        "<end_of_turn>", "<|end|>", "<|end_of_turn|>", "<|EOT|>", "<EOT>",
        ("<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"),
    };
    int32_t eot = -1, eom = -1;
    wn_status st;
    t->bos = t->vocab.spm ? find_control(t, "<s>") : -1;
    t->eos = t->vocab.spm ? find_control(t, "</s>") : -1;
    t->unk = -1;
    for (int32_t i = 0; i < t->vocab.n && t->unk < 0; i++)
        if (t->vocab.type[i] == WN_TOK_UNKNOWN) t->unk = i;
    if ((st = read_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos, err)) ||
        (st = read_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos, err)) ||
        (st = read_id(t, g, "tokenizer.ggml.unknown_token_id", &t->unk, err)) ||
        (st = read_id(t, g, "tokenizer.ggml.eot_token_id", &eot, err)) ||
        (st = read_id(t, g, "tokenizer.ggml.eom_token_id", &eom, err)) ||
        (st = wn_gguf_bool(g, "tokenizer.ggml.add_bos_token", false, &t->add_bos, err)) ||
        (st = wn_gguf_bool(g, "tokenizer.ggml.add_eos_token", false, &t->add_eos, err)))
        return st;
    /* What the unknown token stands for must not be something that text cannot say (V2). */
    if (t->unk >= 0 && t->vocab.type[t->unk] == WN_TOK_CONTROL) t->unk = -1;
    t->add_bos = t->add_bos && t->bos >= 0;
    t->add_eos = t->add_eos && t->eos >= 0;
    add_end(t, t->eos);
    add_end(t, eot);
    add_end(t, eom);
    for (size_t i = 0; i < WN_COUNT(end_names); i++) add_end(t, find_control(t, end_names[i]));
    return WN_OK;
}

wn_status wn_tokenizer_open(wn_tokenizer **out, const wn_gguf *g, wn_err *err)
{
    wn_str model = { 0 }, pre = { 0 };
    char quoted[48];
    wn_status st;
    wn_tokenizer *t;
    *out = NULL;
    if ((st = wn_gguf_string(g, "tokenizer.ggml.model", true, &model, err))) return st;
    bool spm = wn_str_is(model, "llama");
    if (!spm && !wn_str_is(model, "gpt2"))
        return wn_fail(err, WN_EUNSUPPORTED,
                       "tokenizer.ggml.model is \"%s\"; known are gpt2 and llama",
                       wn_vocab_quote(quoted, model));
    if (!(t = WN_NEW(wn_tokenizer))) return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory");
    if ((st = wn_vocab_read(&t->vocab, g, spm, err))) goto fail;
    if (spm) {
        t->add_bos = t->space_prefix = true;
        if ((st = wn_gguf_bool(g, "tokenizer.ggml.add_space_prefix", false, &t->space_prefix, err)))
            goto fail;
    } else {
        if ((st = wn_gguf_string(g, "tokenizer.ggml.pre", false, &pre, err))) goto fail;
        if ((st = wn_pretok_open(&t->pretok, pre, &t->whole_first, &t->add_bos, err))) goto fail;
        if ((st = wn_ranks_read(&t->ranks, &t->vocab, g, err))) goto fail;
    }
    if ((st = read_special_ids(t, g, err))) goto fail;
    if ((st = wn_specials_build(&t->user, &t->vocab, false, err))) goto fail;
    if ((st = wn_specials_build(&t->all, &t->vocab, true, err))) goto fail;
    *out = t;
    return WN_OK;
fail:
    wn_tokenizer_close(t);
    return st;
}

void wn_tokenizer_close(wn_tokenizer *t)
{
    if (!t) return;
    wn_specials_release(&t->all);
    wn_specials_release(&t->user);
    wn_ranks_release(&t->ranks);
    wn_pretok_close(t->pretok);
    wn_vocab_release(&t->vocab);
    wn_free(t);
}

/* ---- asking --------------------------------------------------------------------- */

int32_t wn_tokenizer_n_vocab(const wn_tokenizer *t) { return t->vocab.n; }
int32_t wn_tokenizer_bos(const wn_tokenizer *t) { return t->bos; }
int32_t wn_tokenizer_eos(const wn_tokenizer *t) { return t->eos; }
bool wn_tokenizer_add_bos(const wn_tokenizer *t) { return t->add_bos; }
bool wn_tokenizer_add_eos(const wn_tokenizer *t) { return t->add_eos; }

bool wn_tokenizer_is_end(const wn_tokenizer *t, int32_t id)
{
    for (int i = 0; i < t->n_ends; i++)
        if (t->ends[i] == id) return true;
    return false;
}

bool wn_tokenizer_is_special(const wn_tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->vocab.n) return false;
    return t->vocab.type[id] == WN_TOK_CONTROL || t->vocab.type[id] == WN_TOK_UNKNOWN;
}

bool wn_tokenizer_is_punctuation(const wn_tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->vocab.n || wn_tokenizer_is_special(t, id)) return false;
    wn_str b = wn_vocab_bytes(&t->vocab, id);
    size_t from = 0, to = b.n;
    while (from < to && b.p[from] == ' ') from++;
    while (to > from && b.p[to - 1] == ' ') to--;
    for (size_t at = from; at < to;) {
        wn_utf8 c = wn_utf8_at(b.p + at, to - at);
        utf8proc_int32_t code;
        if (c.is != WN_UTF8_CHAR) return false;
        utf8proc_iterate((const utf8proc_uint8_t *)b.p + at, (utf8proc_ssize_t)c.n, &code);
        utf8proc_category_t category = utf8proc_category(code);
        if (category < UTF8PROC_CATEGORY_PC || category > UTF8PROC_CATEGORY_PO) return false;
        at += c.n;
    }
    return to > from;
}

int32_t wn_tokenizer_find(const wn_tokenizer *t, const char *piece, size_t n)
{
    return wn_vocab_find(&t->vocab, piece, n, false);
}

/* ---- encoding ------------------------------------------------------------------- */

wn_status wn_ids_push(wn_ids *ids, int32_t id, wn_err *err)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? 2 * ids->cap : 64;
        int32_t *p = wn_realloc(ids->at, cap * sizeof *p);
        if (!p) return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for %zu ids", cap);
        ids->at = p;
        ids->cap = cap;
    }
    ids->at[ids->n++] = id;
    return WN_OK;
}

/* Special tokens as they stand, everything between them by the family's way. A space is
 * put before the first word and, as in training, before the first after a control token;
 * a user-defined token is part of the text around it. */
static wn_status encode(wn_encoder *e, const char *text, size_t n, const wn_tokenize_opts *o,
                        wn_err *err)
{
    const wn_tokenizer *t = e->t;
    wn_special_walk walk = { .t = t, .text = text, .n = n, .all = o->parse_special,
                             .plain = o->plain, .n_plain = o->n_plain };
    bool prefix = t->space_prefix;
    wn_status st = WN_OK;
    for (size_t from = 0; from < n && !st;) {
        int32_t id;
        size_t len = 0, at = wn_special_walk_next(&walk, from, &id, &len);
        if (at > from) {
            st = t->vocab.spm ? wn_spm_encode(e, text + from, at - from, prefix, err)
                              : wn_bpe_encode(e, text + from, at - from, err);
            prefix = false;
        }
        if (!st && id >= 0) {
            st = wn_ids_push(&e->ids, id, err);
            prefix = t->space_prefix && t->vocab.type[id] == WN_TOK_CONTROL;
        }
        from = at + len;
    }
    return st;
}

wn_status wn_tokenize(const wn_tokenizer *t, const char *text, size_t n, const wn_tokenize_opts *o,
                      int32_t **ids, size_t *n_ids, wn_err *err)
{
    wn_tokenize_opts opts = o ? *o : (wn_tokenize_opts){ 0 };
    wn_encoder e = { .t = t };
    wn_status st = WN_OK;
    *ids = NULL;
    *n_ids = 0;
    if (n > MAX_TEXT)
        return wn_fail(err, WN_ELIMIT, "tokenizer: a text of %zu bytes, at most %zu are possible",
                       n, MAX_TEXT);
    if (!opts.no_bos_eos && t->add_bos) st = wn_ids_push(&e.ids, t->bos, err);
    if (!st) st = encode(&e, text, n, &opts, err);
    if (!st && !opts.no_bos_eos && t->add_eos) st = wn_ids_push(&e.ids, t->eos, err);
    if (!st && !e.ids.at && !(e.ids.at = wn_alloc(sizeof *e.ids.at)))   /* no ids is no NULL */
        st = wn_fail(err, WN_ENOMEM, "tokenizer: out of memory");
    wn_merge_release(&e.merge);
    wn_free(e.escaped);
    if (st) {
        wn_free(e.ids.at);
        return st;
    }
    *ids = e.ids.at;
    *n_ids = e.ids.n;
    return WN_OK;
}
