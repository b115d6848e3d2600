/* tokenizer/bpe.c - byte-level BPE: pieces of text, merged by rank.
 *
 * Each piece that the pre-tokenizer cuts begins as its bytes, one token each, and pairs
 * are joined in the order in which training found them: the line number of a merge is
 * its rank. Merges are looked up by the pair of ids rather than by spelling, so a join
 * is one probe of a hash table. Vocabularies of the llama-bpe kind come from a tokenizer
 * without a merge list; there a piece that is a token as a whole is that token, whatever
 * the merges reconstructed for it would give.
 */
#include <string.h>

#include "base/alloc.h"
#include "tokenizer/vocab.h"

#define KEY_MERGES "tokenizer.ggml.merges"

static size_t pair_slot(const wn_ranks *r, int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
    h *= 0xBF58476D1CE4E5B9u;
    size_t i = (size_t)(h >> 32) & (r->n_slots - 1);
    while (r->slot[i].left >= 0 && (r->slot[i].left != left || r->slot[i].right != right))
        i = (i + 1) & (r->n_slots - 1);
    return i;
}

wn_status wn_ranks_read(wn_ranks *r, const wn_vocab *v, const wn_gguf *g, wn_err *err)
{
    const wn_gguf_kv *kv = wn_gguf_find(g, KEY_MERGES);
    char both[2 * WN_PIECE_MAX], quoted[48];
    if (!kv) return wn_fail(err, WN_EFORMAT, "%s is missing", KEY_MERGES);
    if (kv->type != WN_KV_ARRAY || (kv->n && kv->item != WN_KV_STRING))
        return wn_fail(err, WN_EFORMAT, "%s is not an array of strings", KEY_MERGES);
    if (kv->n > INT32_MAX / 4)
        return wn_fail(err, WN_EFORMAT, "%s has %llu merges, at most %d are possible", KEY_MERGES,
                       (unsigned long long)kv->n, INT32_MAX / 4);
    for (r->n_slots = 16; r->n_slots < 2 * kv->n; r->n_slots *= 2) continue;
    if (!(r->slot = wn_alloc(r->n_slots * sizeof *r->slot)))
        return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for %llu merges",
                       (unsigned long long)kv->n);
    for (size_t i = 0; i < r->n_slots; i++) r->slot[i].left = -1;
    for (uint64_t i = 0; i < kv->n; i++) {
        wn_str m = wn_gguf_item_string(kv, i);
        const char *gap = m.n ? memchr(m.p, ' ', m.n) : NULL;
        if (!gap || gap == m.p || gap == m.p + m.n - 1)
            return wn_fail(err, WN_EFORMAT, "%s: merge %llu, \"%s\", is not two parts and a space",
                           KEY_MERGES, (unsigned long long)i, wn_vocab_quote(quoted, m));
        size_t left = (size_t)(gap - m.p), right = m.n - left - 1;
        if (left > WN_PIECE_MAX || right > WN_PIECE_MAX) continue;
        memcpy(both, m.p, left);
        memcpy(both + left, gap + 1, right);
        /* A merge whose parts or result are no plain token can never be made (its parts
         * never occur) or would make something text must not become: it means nothing. */
        int32_t a = wn_vocab_find(v, m.p, left, true), b = wn_vocab_find(v, gap + 1, right, true);
        int32_t c = wn_vocab_find(v, both, left + right, true);
        if (a < 0 || b < 0 || c < 0) continue;
        size_t at = pair_slot(r, a, b);
        if (r->slot[at].left >= 0) continue;            /* of equal merges the first counts */
        r->slot[at].left = a;
        r->slot[at].right = b;
        r->slot[at].joined = c;
        r->slot[at].rank = (uint32_t)i;
    }
    return WN_OK;
}

void wn_ranks_release(wn_ranks *r)
{
    wn_free(r->slot);
    *r = (wn_ranks){ 0 };
}

static void pair_by_rank(const void *ctx, wn_symbol *a, const wn_symbol *b)
{
    const wn_ranks *r = ctx;
    if (a->id < 0 || b->id < 0) return;
    size_t at = pair_slot(r, a->id, b->id);
    if (r->slot[at].left < 0) return;
    a->key = r->slot[at].rank;
    a->joined = r->slot[at].joined;
}

/* The token that means exactly this piece, or -1. */
static int32_t whole_piece(const wn_vocab *v, const char *s, size_t n)
{
    char spelled[WN_PIECE_MAX + 2];
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        if (len >= v->longest_text) return -1;
        len += wn_byte_spelling((uint8_t)s[i], spelled + len);
    }
    return wn_vocab_find(v, spelled, len, true);
}

/* Some vocabularies have no token for bytes that UTF-8 never or hardly ever uses. The
 * unknown token is no help, it is often the end of text: what cannot be said becomes
 * U+FFFD, as it would on the way out. */
static wn_status push_unknown_byte(wn_encoder *e, wn_err *err)
{
    const wn_vocab *v = &e->t->vocab;
    int32_t whole = whole_piece(v, "\xEF\xBF\xBD", 3);
    wn_status st = WN_OK;
    if (whole >= 0) return wn_ids_push(&e->ids, whole, err);
    if (v->byte_id[0xEF] < 0 || v->byte_id[0xBF] < 0 || v->byte_id[0xBD] < 0) return WN_OK;
    for (int i = 0; i < 3 && !st; i++)
        st = wn_ids_push(&e->ids, v->byte_id["\xEF\xBF\xBD"[i] & 0xFF], err);
    return st;
}

static wn_status encode_piece(void *ctx, const char *s, size_t n, wn_err *err)
{
    wn_encoder *e = ctx;
    const wn_tokenizer *t = e->t;
    const wn_vocab *v = &t->vocab;
    wn_merge *m = &e->merge;
    wn_status st;
    int32_t whole = n > 1 && !t->whole_first ? -1 : whole_piece(v, s, n);
    if (whole >= 0) return wn_ids_push(&e->ids, whole, err);
    if ((st = wn_merge_begin(m, n, err))) return st;
    for (size_t i = 0; i < n; i++) wn_merge_add(m, (uint32_t)i, 1, v->byte_id[(uint8_t)s[i]]);
    wn_merge_run(m, pair_by_rank, &t->ranks);
    for (uint32_t i = 0; i != UINT32_MAX && !st; i = m->sym[i].next)
        st = m->sym[i].id >= 0 ? wn_ids_push(&e->ids, m->sym[i].id, err)
                               : push_unknown_byte(e, err);
    return st;
}

wn_status wn_bpe_encode(wn_encoder *e, const char *text, size_t n, wn_err *err)
{
    return wn_pretok_cut(e->t->pretok, text, n, encode_piece, e, err);
}
