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

#define MAX_STEPS 6

/* White space is Unicode's property; PCRE2's \s also has U+180E, which lost it. */
#define S "\\p{White_Space}"
#define NOT_S "\\P{White_Space}"
#define LINE_ENDS "[\\r\\n]"

/* English contractions, words, numbers, the rest, spaces but the last before a word. */
#define GPT2_WORDS \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" S "\\p{L}\\p{N}]+|" S "+(?!" NOT_S ")"
/* The later form: any one character may lead a word, line ends stay together, and
 * numbers come in groups whose size tells the two apart. */
#define SHORT_FORMS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "|" S "*[\\r\\n]+|" S "+(?!" NOT_S ")|" S "+"
#define WORDS_NUMBERS(numbers) \
    "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers "| ?[^" S "\\p{L}\\p{N}]+[\\r\\n]*" SPACES
#define WORDS_AND(numbers) SHORT_FORMS "|" WORDS_NUMBERS(numbers)
/* Later still: words end where small letters are followed by capitals; `end` is what may follow
 * a word. Letters without case and marks count as both. */
#define CAPITALS "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define SMALL "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED_WORDS_OF(capital, small, end)                                                        \
    "[^\\r\\n\\p{L}\\p{N}]?" capital "*" small "+" end "|[^\\r\\n\\p{L}\\p{N}]?" capital "+" small \
    "*" end
#define CASED_WORDS(end) CASED_WORDS_OF(CAPITALS, SMALL, end)
/* sc: the script itself; PCRE2 would add marks that several scripts use. */
#define NOT_HAN(set) "(?:(?!\\p{sc:Han})" set ")"
#define SIGNS(ends) "| ?[^" S "\\p{L}\\p{N}]+" ends "*"
/* DeepSeek's: one ASCII sign may lead ASCII letters, letters keep their marks. */
#define SIGNED_WORDS      \
    "[!\"#$%&'()*+,\\-./" \
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
#define CJK "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"
#define HAN_KANA "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+"
/* What was not any of these in Poro's and BLOOM's training: . , ! ? and their likes. */
#define NO_STOPS " ?[^(" S "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"
/* Letters with case, as DeepSeek's first tokenizer lists them: not all that Unicode has. */
#define CASED_LETTERS \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}" \
    "\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}" \
    "\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}" \
    "\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}" \
    "\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}" \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}" \
    "\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}" \
    "\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}" \
    "\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}" \
    "\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}" \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}" \
    "\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}" \
    "\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}" \
    "\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}" \
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}" \
    "\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}" \
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}" \
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"

typedef struct {
    const char *names[20];          /* what tokenizer.ggml.pre may say; the first is ours */
    const char *steps[MAX_STEPS];
    bool whole_first, add_bos;
} pattern;

static const pattern patterns[] = {
    { .names = { "default" },
      .steps = { "[\\p{P}$+<=>^~|]+", GPT2_WORDS, "\\p{N}+", "[0-9][0-9][0-9]" } },
    { .names = { "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "gigachat", "roberta-bpe",
                 "exaone4", "trillion", "granite-docling", "a.x-4.0", "mellum", "modern-bert",
                 "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v2-code" },
      .steps = { GPT2_WORDS } },
    { .names = { "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2",
                 "midm-2.0", "jina-v5-nano" },
      .steps = { WORDS_AND("\\p{N}{1,3}") },
      .whole_first = true,
      .add_bos = true },
    { .names = { "smaug-bpe", "dbrx", "glm4", "chatglm-bpe" },
      .steps = { WORDS_AND("\\p{N}{1,3}") } },
    { .names = { "qwen2", "qwen25", "qwen3", "deepseek-r1-qwen", "megrez", "stablelm2", "kormo",
                 "hunyuan", "solar-open", "grok-2", "f2llmv2" },
      .steps = { WORDS_AND("\\p{N}") } },
    { .names = { "qwen35" },
      .steps = { SHORT_FORMS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" S
                             "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES } },
    { .names = { "jais-2" }, /* runs of spaces in powers of two */
      .steps = { SHORT_FORMS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" SIGNS(
          "[\\r\\n]") "|" S "*[\\r\\n]+|" S "{512}(?!" NOT_S ")|" S "{256}(?!" NOT_S ")|" S
                      "{128}(?!" NOT_S ")|" S "{64}(?!" NOT_S ")|" S "{32}(?!" NOT_S ")|" S
                      "{16}(?!" NOT_S ")|" S "{8}(?!" NOT_S ")|" S "{4}(?!" NOT_S ")|" S
                      "{1,2}(?!" NOT_S ")|" S } },
    { .names = { "minicpm5" },
      .steps = { "\\p{N}{1,3}", WORDS_AND("\\p{N}+") },
      .whole_first = true },
    { .names = { "laguna" }, .steps = { "[^\\n]+|\\n+", WORDS_AND("\\p{N}") } },
    { .names = { "ufakzeka" }, .steps = { WORDS_NUMBERS("\\p{N}") } },
    { .names = { "seed-coder" },
      .steps = { SHORT_FORMS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" S
                             "\\p{L}\\p{N}\\r\\n]+" SPACES } },
    { .names = { "bailingmoe", "bailingmoe2", "llada-moe" },
      .steps = { "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^" S
                 "\\p{L}\\p{N}]++[\\r\\n]*|" S "*[\\r\\n]|" S "+(?!" NOT_S ")|" S "+" } },
    { .names = { "exaone-moe" },
      .steps = { SHORT_FORMS
                 "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^" S
                 "\\p{L}\\p{N}]+[\\r\\n/]?|" S "*[\\r\\n]|" S "+(?!" NOT_S ")|" S "+" } },
    { .names = { "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2" },
      .steps = { CASED_WORDS(SHORT_FORMS "?") "|\\p{N}{1,3}" SIGNS("[\\r\\n/]") SPACES } },
    { .names = { "tekken" },
      .steps = { CASED_WORDS("") "|\\p{N}" SIGNS("[\\r\\n/]") SPACES },
      .whole_first = true,
      .add_bos = true },
    { .names = { "kimi-k2" },
      .steps = { "\\p{sc:Han}+|" CASED_WORDS_OF(NOT_HAN(CAPITALS), NOT_HAN(SMALL),
                                                SHORT_FORMS "?") "|\\p{N}{1,3}" SIGNS("[\\r\\n]")
                     SPACES } },
    { .names = { "youtu" },
      .steps = { "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}"
                 "\\x{2018}\\x{2019}\\x{2014}"
                 "\\x{FF1A}\\x{FF1B}\\x{FF0C}\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-"
                 "\\x{312F}]+|" HAN_KANA,
                 CASED_WORDS(SHORT_FORMS "?") "|\\p{N}" SIGNS("[\\r\\n/]") SPACES },
      .whole_first = true },
    { .names = { "deepseek-llm" },
      .steps = { LINE_ENDS, S "?[" CASED_LETTERS "]+",
                 S "?[!-/"
                   ":-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}"
                   "]+",
                 S "+\\z", CJK, "\\p{N}+" } },
    { .names = { "deepseek-coder" },
      .steps = { LINE_ENDS, S "?\\p{L}+", S "?\\p{P}+", CJK, "\\p{N}" } },
    { .names = { "deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4" },
      .steps = { "\\p{N}{1,3}", HAN_KANA, SIGNED_WORDS "| ?[\\p{P}\\p{S}]+[\\r\\n]*" SPACES } },
    { .names = { "spark2_5" },
      .steps = { "\\p{N}{1,3}", HAN_KANA,
                 SIGNED_WORDS "| ?[\\p{P}\\p{S}]+|[\\r\\n]|" S "+(?!" NOT_S ")|" S "+",
                 "\\p{N}" } },
    { .names = { "falcon" }, .steps = { "[\\p{P}$+<=>^~|`]+", GPT2_WORDS, "[0-9][0-9][0-9]" } },
    { .names = { "starcoder", "smollm", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
                 "mellum2" },
      .steps = { "\\p{N}", GPT2_WORDS } },
    { .names = { "poro-chat", "bloom", "gpt3-finnish" }, .steps = { NO_STOPS } },
    { .names = { "viking" }, .steps = { NO_STOPS, "\\p{N}" } },
    { .names = { "chameleon" },
      .steps = { "<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}",
                 "[\\p{P}!-/:-@\\[-`{-~]", GPT2_WORDS },
      .add_bos = true },
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
    char known[300] = "", quoted[48];
    for (size_t i = 0; i < WN_COUNT(patterns); i++) {
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", patterns[i].names[0]);
    }
    return wn_fail(
        err, WN_EUNSUPPORTED,
        "tokenizer.ggml.pre: no pre-tokenizer pattern is called \"%s\"; if the model's is "
        "that of another, give it its name: %s",
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
            return wn_fail(
                err, WN_ELIMIT,
                "tokenizer: cutting a text of %zu bytes takes more than is allowed (PCRE2 %d)", n,
                rc);
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
    pcre2_set_match_limit(c.limits,
                          (uint32_t)WN_MIN((size_t)10000000 + 16 * n, (size_t)UINT32_MAX));
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
