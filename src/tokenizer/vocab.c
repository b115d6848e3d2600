/* tokenizer/vocab.c - the tokens of a model file: spellings, meanings, types, look-up.
 *
 * Byte-level vocabularies write every byte as one printable character, so that a piece
 * can be stored as text: bytes that are printable in Latin-1 stand for themselves, the
 * other 68 are given U+0100 onwards in order ("Ġ" is the space). SentencePiece
 * vocabularies write a space as U+2581 and a lone byte as <0x0A>. Tokens that someone
 * added by hand (control, user-defined, unknown) are written as they are.
 *
 * The file is not trusted: every array is checked for type and length before it is
 * used, and look-ups go by a hash table in which a spelling occurs at most twice (once
 * as something plain text can become, once as something it cannot), so that a
 * vocabulary of a million equal tokens costs no more than one of different ones.
 */
#include "tokenizer/vocab.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "tokenizer/utf8.h"

#define KEY_TOKENS "tokenizer.ggml.tokens"
#define KEY_TYPES "tokenizer.ggml.token_type"
#define KEY_SCORES "tokenizer.ggml.scores"

/* Printable in Latin-1: these bytes are written as the character of the same number. */
static bool stands_for_itself(unsigned b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

/* The n-th byte that does not stand for itself is U+0100 + n: 0..32, 127..160, 173. */
static unsigned byte_to_char(unsigned b)
{
    if (stands_for_itself(b)) return b;
    return 0x100 + (b <= 0x20 ? b : b <= 0xA0 ? b - 0x7F + 33 : 67);
}

static int char_to_byte(unsigned c)
{
    if (c < 0x100) return stands_for_itself(c) ? (int)c : -1;
    c -= 0x100;
    return c <= 32 ? (int)c : c <= 66 ? (int)(c - 33 + 0x7F) : c == 67 ? 0xAD : -1;
}

size_t wn_byte_spelling(uint8_t byte, char out[2])
{
    unsigned c = byte_to_char(byte);
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xC0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3F));
    return 2;
}

/* Byte-level spelling to bytes; characters outside the alphabet mean themselves. */
static size_t decode_byte_level(char *out, wn_str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        wn_utf8 u = wn_utf8_at(s.p + i, s.n - i);
        int b = -1;
        if (u.is == WN_UTF8_CHAR && u.n <= 2) {
            unsigned c = (unsigned char)s.p[i];
            if (u.n == 2) c = (c & 0x1F) << 6 | ((unsigned char)s.p[i + 1] & 0x3F);
            b = char_to_byte(c);
        }
        if (b >= 0) {
            out[n++] = (char)b;
        } else {
            memcpy(out + n, s.p + i, u.n);
            n += u.n;
        }
        i += u.n;
    }
    return n;
}

/* U+2581 to spaces. */
static size_t decode_spaces(char *out, wn_str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        if (s.n - i >= 3 && memcmp(s.p + i, "\xE2\x96\x81", 3) == 0) {
            out[n++] = ' ';
            i += 3;
        } else {
            out[n++] = s.p[i++];
        }
    }
    return n;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10
         : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "<0x0A>" to 10; -1 for anything else. */
static int byte_token(wn_str s)
{
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>') return -1;
    int hi = hex(s.p[3]), lo = hex(s.p[4]);
    return hi < 0 || lo < 0 ? -1 : hi << 4 | lo;
}

char *wn_vocab_quote(char out[48], wn_str s)
{
    size_t n = WN_MIN(s.n, (size_t)40);
    for (size_t i = 0; i < n; i++) out[i] = s.p[i] >= 0x20 && s.p[i] < 0x7F ? s.p[i] : '?';
    memcpy(out + n, s.n > n ? "..." : "", s.n > n ? 4 : 1);
    return out;
}

/* ---- reading ------------------------------------------------------------------ */

static const char *kind_name(wn_kv_type t)
{
    static const char *const names[] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64" };
    return (unsigned)t < WN_COUNT(names) ? names[t] : "unknown";
}

/* The array under key, of n elements; *out is NULL when it is absent and not needed. */
static wn_status read_array(const wn_gguf *g, const char *key, bool need, uint64_t n,
                            const wn_gguf_kv **out, wn_err *err)
{
    const wn_gguf_kv *kv = *out = wn_gguf_find(g, key);
    if (!kv)
        return need ? wn_fail(err, WN_EFORMAT, "%s is missing", key) : WN_OK;
    if (kv->type != WN_KV_ARRAY)
        return wn_fail(err, WN_EFORMAT, "%s is of type %s, not an array", key, kind_name(kv->type));
    if (kv->n != n)
        return wn_fail(err, WN_EFORMAT, "%s has %llu elements for %llu tokens", key,
                       (unsigned long long)kv->n, (unsigned long long)n);
    return WN_OK;
}

static bool is_int(wn_kv_type t)
{
    return t <= WN_KV_I32 || t == WN_KV_U64 || t == WN_KV_I64;
}

static wn_status read_types(wn_vocab *v, const wn_gguf *g, wn_err *err)
{
    const wn_gguf_kv *kv;
    wn_status st = read_array(g, KEY_TYPES, false, (uint64_t)v->n, &kv, err);
    if (st) return st;
    if (kv && !is_int(kv->item))
        return wn_fail(err, WN_EFORMAT, "%s holds %s, not integers", KEY_TYPES,
                       kind_name(kv->item));
    for (int32_t i = 0; i < v->n; i++) {
        int64_t t = kv ? wn_gguf_item_int(kv, (uint64_t)i) : WN_TOK_NORMAL;
        if (t < 0 || t > WN_TOK_BYTE)
            return wn_fail(err, WN_EFORMAT, "%s: token %d has type %lld, known are 0 to 6",
                           KEY_TYPES, i, (long long)t);
        v->type[i] = (uint8_t)(t ? t : WN_TOK_UNUSED);      /* 0: nobody said */
    }
    return WN_OK;
}

static wn_status read_scores(wn_vocab *v, const wn_gguf *g, wn_err *err)
{
    const wn_gguf_kv *kv;
    wn_status st = read_array(g, KEY_SCORES, true, (uint64_t)v->n, &kv, err);
    if (st) return st;
    if (kv->item != WN_KV_F32 && kv->item != WN_KV_F64)
        return wn_fail(err, WN_EFORMAT, "%s holds %s, not floats", KEY_SCORES, kind_name(kv->item));
    if (!(v->score = WN_NEW_ARRAY(float, v->n)))
        return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for %d scores", v->n);
    for (int32_t i = 0; i < v->n; i++) {
        v->score[i] = (float)wn_gguf_item_float(kv, (uint64_t)i);
        if (isnan(v->score[i]))
            return wn_fail(err, WN_EFORMAT, "%s: the score of token %d is not a number", KEY_SCORES,
                           i);
    }
    return WN_OK;
}

/* What token i means, into out (never longer than its spelling). Sets byte_id for spm. */
static wn_status decode(wn_vocab *v, int32_t i, wn_str s, char *out, size_t *n, wn_err *err)
{
    switch (v->type[i]) {
    case WN_TOK_CONTROL:
    case WN_TOK_UNKNOWN:
        memcpy(out, s.p, *n = s.n);
        return WN_OK;
    case WN_TOK_USER:
        if (v->spm) *n = decode_spaces(out, s);
        else memcpy(out, s.p, *n = s.n);
        return WN_OK;
    case WN_TOK_BYTE: {
        int b = byte_token(s);
        char q[48];
        if (b < 0)
            return wn_fail(err, WN_EFORMAT,
                           "%s: token %d is typed byte and spelled \"%s\", not <0x00> to <0xFF>",
                           KEY_TOKENS, i, wn_vocab_quote(q, s));
        out[0] = (char)b;
        *n = 1;
        if (v->spm && v->byte_id[b] < 0) v->byte_id[b] = i;
        return WN_OK;
    }
    default:
        *n = v->spm ? decode_spaces(out, s) : decode_byte_level(out, s);
        return WN_OK;
    }
}

/* Does a space follow something that is not one? (U+2581's bytes overlap no other character's.) */
static bool space_inside(wn_str s)
{
    for (size_t i = 1; i + 3 <= s.n; i++)
        if (memcmp(s.p + i, "\xE2\x96\x81", 3) == 0 &&
            (i < 3 || memcmp(s.p + i - 3, "\xE2\x96\x81", 3) != 0))
            return true;
    return false;
}

static wn_status read_tokens(wn_vocab *v, const wn_gguf_kv *kv, wn_err *err)
{
    char *spelling, *bytes;
    size_t total = 0, at = 0, n;
    for (int32_t i = 0; i < v->n; i++) total += wn_gguf_item_string(kv, (uint64_t)i).n;
    v->spelling = spelling = wn_alloc(total + 1);
    v->bytes = bytes = wn_alloc(total + 1);
    if (!spelling || !bytes)
        return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for %zu bytes of tokens", total);
    v->spelling_at[0] = v->bytes_at[0] = 0;
    for (int32_t i = 0; i < v->n; i++) {
        wn_str s = wn_gguf_item_string(kv, (uint64_t)i);
        /* An empty piece can be spelled by no text; as a token it means nothing. */
        if (s.n) memcpy(spelling + v->spelling_at[i], s.p, s.n);
        v->spelling_at[i + 1] = v->spelling_at[i] + s.n;
        n = 0;
        if (s.n || v->type[i] == WN_TOK_BYTE) {
            wn_status st = decode(v, i, s, bytes + at, &n, err);
            if (st) return st;
        }
        v->bytes_at[i + 1] = at += n;
        v->longest_bytes = WN_MAX(v->longest_bytes, n);
        if (wn_vocab_plain(v, i) && s.n <= WN_PIECE_MAX)
            v->longest_text = WN_MAX(v->longest_text, s.n);
        if (v->spm && wn_vocab_plain(v, i) && space_inside(s)) v->space_leads = false;
    }
    return WN_OK;
}

/* ---- look-up ------------------------------------------------------------------ */

/* The slot of the first token spelled so whose plainness is wanted (bit 0: not plain,
 * bit 1: plain), or the empty slot after them. */
static size_t probe(const wn_vocab *v, const char *s, size_t n, int want)
{
    size_t i = XXH3_64bits(s, n) & (v->n_slots - 1);
    for (; v->slot[i] >= 0; i = (i + 1) & (v->n_slots - 1)) {
        wn_str t = wn_vocab_spelling(v, v->slot[i]);
        if (t.n == n && memcmp(t.p, s, n) == 0 && want >> wn_vocab_plain(v, v->slot[i]) & 1) break;
    }
    return i;
}

int32_t wn_vocab_find(const wn_vocab *v, const char *s, size_t n, bool plain)
{
    return n ? v->slot[probe(v, s, n, plain ? 2 : 3)] : -1;
}

static wn_status build_index(wn_vocab *v, wn_err *err)
{
    for (v->n_slots = 16; v->n_slots < 2 * (size_t)v->n; v->n_slots *= 2) continue;
    if (!(v->slot = WN_NEW_ARRAY(int32_t, v->n_slots)))
        return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for an index of %d tokens", v->n);
    memset(v->slot, 0xFF, v->n_slots * sizeof *v->slot);
    for (int32_t i = 0; i < v->n; i++) {
        wn_str s = wn_vocab_spelling(v, i);
        if (!s.n) continue;
        size_t at = probe(v, s.p, s.n, 1 << wn_vocab_plain(v, i));
        if (v->slot[at] < 0) v->slot[at] = i;       /* of equal tokens the first has the name */
    }
    return WN_OK;
}

wn_status wn_vocab_read(wn_vocab *v, const wn_gguf *g, bool spm, wn_err *err)
{
    const wn_gguf_kv *kv = wn_gguf_find(g, KEY_TOKENS);
    wn_status st;
    *v = (wn_vocab){ .spm = spm, .space_leads = spm };
    memset(v->byte_id, 0xFF, sizeof v->byte_id);
    if (!kv) return wn_fail(err, WN_EFORMAT, "%s is missing", KEY_TOKENS);
    if (kv->type != WN_KV_ARRAY || kv->item != WN_KV_STRING)
        return wn_fail(err, WN_EFORMAT, "%s is not an array of strings", KEY_TOKENS);
    if (kv->n == 0 || kv->n > INT32_MAX / 4)
        return wn_fail(err, WN_EFORMAT, "%s has %llu tokens, possible are 1 to %d", KEY_TOKENS,
                       (unsigned long long)kv->n, INT32_MAX / 4);
    v->n = (int32_t)kv->n;
    v->type = WN_NEW_ARRAY(uint8_t, v->n);
    v->spelling_at = WN_NEW_ARRAY(size_t, v->n + 1);
    v->bytes_at = WN_NEW_ARRAY(size_t, v->n + 1);
    if (!v->type || !v->spelling_at || !v->bytes_at)
        return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for %d tokens", v->n);
    if ((st = read_types(v, g, err))) return st;
    if (spm && (st = read_scores(v, g, err))) return st;
    if ((st = read_tokens(v, kv, err))) return st;
    if ((st = build_index(v, err))) return st;
    for (int b = 0; !spm && b < 256; b++) {
        char c[2];
        v->byte_id[b] = wn_vocab_find(v, c, wn_byte_spelling((uint8_t)b, c), true);
    }
    return WN_OK;
}

void wn_vocab_release(wn_vocab *v)
{
    wn_free((void *)v->spelling);
    wn_free((void *)v->bytes);
    wn_free(v->spelling_at);
    wn_free(v->bytes_at);
    wn_free(v->type);
    wn_free(v->score);
    wn_free(v->slot);
    *v = (wn_vocab){ 0 };
}
