/* tokenizer/pretok.c - where a text is cut before it is merged.
 *
 * A byte-level vocabulary was trained on pieces (words with the space before them,
 * numbers, runs of punctuation), and gives its own ids only when the text is cut the
 * same way. The way is a regular expression, or several, each cutting the pieces of the
 * one before: what it matches becomes a piece, and so does what lies between matches.
 * Model files do not contain the expression, only a name for it; the table below holds
 * those names. Texts are matched as they are: models that were trained on NFC text get
 * what they are given, so that every text comes back byte for byte.
 *
 * PCRE2 matches in UTF mode, which wants well-formed text. Bytes that are not are cut out
 * first, one piece each; what remains is matched without further checks, and a piece
 * ends where well-formed text ends. A match limit that grows with the text stands between
 * a hostile text and a pattern's backtracking.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocab.h"

#define MAX_STEPS 5

/* White space is Unicode's property; PCRE2's \s also has U+180E, which lost it. */
#define S "\\p{White_Space}"
#define NOT_S "\\P{White_Space}"
#define LINE_ENDS "[\\r\\n]"

/* English contractions, words, numbers, the rest, spaces but the last before a word. */
#define GPT2_WORDS \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" S "\\p{L}\\p{N}]+|" S "+(?!" NOT_S ")"
/* The later form: any one character may lead a word, line ends stay together, and
 * numbers come in groups whose size tells the two apart. */
#define WORDS_AND(numbers) \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers \
    "| ?[^" S "\\p{L}\\p{N}]+[\\r\\n]*|" S "*[\\r\\n]+|" S "+(?!" NOT_S ")|" S "+"

typedef struct {
    const char *names[12];          /* what tokenizer.ggml.pre may say; the first is ours */
    const char *steps[MAX_STEPS];
    bool whole_first, add_bos;
} pattern;

static const pattern patterns[] = {
    { .names = { "default" },
      .steps = { "[\\p{P}$+<=>^~|]+", GPT2_WORDS, "\\p{N}+", "[0-9][0-9][0-9]" } },
    { .names = { "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "gigachat", "roberta-bpe" },
      .steps = { GPT2_WORDS } },
    { .names = { "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2",
                 "midm-2.0" },
      .steps = { WORDS_AND("\\p{N}{1,3}") }, .whole_first = true, .add_bos = true },
    { .names = { "smaug-bpe", "dbrx" }, .steps = { WORDS_AND("\\p{N}{1,3}") } },
    { .names = { "qwen2", "qwen25", "qwen3", "deepseek-r1-qwen", "megrez", "stablelm2", "kormo" },
      .steps = { WORDS_AND("\\p{N}") } },
    { .names = { "deepseek-coder" },
      .steps = { LINE_ENDS, S "?\\p{L}+", S "?\\p{P}+",
                 "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+", "\\p{N}" } },
    { .names = { "starcoder", "smollm", "refact", "command-r", "codeshell", "exaone",
                 "minerva-7b" },
      .steps = { "\\p{N}", GPT2_WORDS } },
};

struct wn_pretok {
    int n_steps;
    pcre2_code *step[MAX_STEPS];
    pcre2_general_context *memory;
};

static void *pcre2_take(size_t n, void *unused)
{
    (void)unused;
    return wn_alloc(n);
}

static void pcre2_drop(void *p, void *unused)
{
    (void)unused;
    wn_free(p);
}

static const pattern *find_pattern(wn_str name)
{
    if (name.n == 0) return &patterns[0];
    for (size_t i = 0; i < WN_COUNT(patterns); i++)
        for (size_t k = 0; k < WN_COUNT(patterns[i].names) && patterns[i].names[k]; k++)
            if (wn_str_is(name, patterns[i].names[k])) return &patterns[i];
    return NULL;
}

static wn_status unknown_pattern(wn_str name, wn_err *err)
{
    char known[200] = "", quoted[48];
    for (size_t i = 0; i < WN_COUNT(patterns); i++) {
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", patterns[i].names[0]);
    }
    return wn_fail(err, WN_EUNSUPPORTED,
                   "tokenizer.ggml.pre: no pre-tokenizer pattern is called \"%s\"; known are %s",
                   wn_vocab_quote(quoted, name), known);
}

static wn_status compile(wn_pretok *p, const char *step, wn_err *err)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_compile_context *c = pcre2_compile_context_create(p->memory);
    if (!c) return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for a pattern");
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)step, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_UCP, &code, &at, c);
    pcre2_compile_context_free(c);
    /* The patterns are ours and tests compile them all: only memory can be short. */
    if (!re) return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for a pattern (%d)", code);
    p->step[p->n_steps++] = re;
    pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);      /* without it: the same matches, slower */
    return WN_OK;
}

wn_status wn_pretok_open(wn_pretok **out, wn_str name, bool *whole_first, bool *add_bos,
                         wn_err *err)
{
    const pattern *pat = find_pattern(name);
    wn_status st = WN_OK;
    wn_pretok *p;
    *out = NULL;
    if (!pat) return unknown_pattern(name, err);
    if (!(p = WN_NEW(wn_pretok))) return wn_fail(err, WN_ENOMEM, "tokenizer: out of memory");
    if (!(p->memory = pcre2_general_context_create(pcre2_take, pcre2_drop, NULL)))
        st = wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for a pattern");
    for (int i = 0; !st && i < MAX_STEPS && pat->steps[i]; i++)
        st = compile(p, pat->steps[i], err);
    if (st) {
        wn_pretok_close(p);
        return st;
    }
    *whole_first = pat->whole_first;
    *add_bos = pat->add_bos;
    *out = p;
    return WN_OK;
}

void wn_pretok_close(wn_pretok *p)
{
    if (!p) return;
    for (int i = 0; i < p->n_steps; i++) pcre2_code_free(p->step[i]);
    pcre2_general_context_free(p->memory);
    wn_free(p);
}

/* ---- cutting ------------------------------------------------------------------- */

typedef struct {
    const wn_pretok *p;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    wn_pretok_piece *piece;
    void *ctx;
} cutter;

/* Cuts well-formed text with the patterns from `step` on. Each sees only the piece it was
 * given: what follows the piece is the end of text to its look-ahead. */
static wn_status cut(const cutter *c, int step, const char *s, size_t n, wn_err *err)
{
    size_t at = 0;
    wn_status st = WN_OK;
    if (n == 0) return WN_OK;
    if (step == c->p->n_steps) return c->piece(c->ctx, s, n, err);
    while (at < n && !st) {
        int rc = pcre2_match(c->p->step[step], (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK, c->match,
                             c->limits);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0)
            return wn_fail(err, WN_ELIMIT,
                           "tokenizer: cutting a text of %zu bytes takes more than is allowed (PCRE2 %d)",
                           n, rc);
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(c->match);
        size_t from = v[0], to = v[1];
        WN_ASSERT(from >= at && to > from && to <= n);      /* no pattern matches nothing */
        st = cut(c, step + 1, s + at, from - at, err);
        if (!st) st = cut(c, step + 1, s + from, to - from, err);
        at = to;
    }
    return st ? st : cut(c, step + 1, s + at, n - at, err);
}

wn_status wn_pretok_cut(const wn_pretok *p, const char *text, size_t n, wn_pretok_piece *piece,
                        void *ctx, wn_err *err)
{
    cutter c = { .p = p, .piece = piece, .ctx = ctx };
    wn_status st = WN_OK;
    c.match = pcre2_match_data_create(1, p->memory);
    c.limits = pcre2_match_context_create(p->memory);
    if (!c.match || !c.limits) {
        st = wn_fail(err, WN_ENOMEM, "tokenizer: out of memory for matching");
        goto out;
    }
    /* A step of a greedy run may count once for each character it gives back. */
    pcre2_set_match_limit(c.limits, (uint32_t)WN_MIN((size_t)10000000 + 16 * n, (size_t)UINT32_MAX));
    for (size_t from = 0, i = 0; from < n && !st;) {
        wn_utf8 u = { 0 };
        for (; i < n; i += u.n)
            if ((u = wn_utf8_at(text + i, n - i)).is != WN_UTF8_CHAR) break;
        st = cut(&c, 0, text + from, i - from, err);
        if (!st && i < n) st = piece(ctx, text + i++, 1, err);
        from = i;
    }
out:
    if (c.match) pcre2_match_data_free(c.match);
    if (c.limits) pcre2_match_context_free(c.limits);
    return st;
}
