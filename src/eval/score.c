/* eval/score.c - how much of an expected answer is in what a model wrote.
 *
 * Models phrase answers as they like, so values are looked for anywhere in the answer, but as
 * whole words: 48213 is not in 482137, nor in 48213.5, while "48213." and "(48213)" hold it.
 * Letters count without case, since a sentence may begin with the value. What is copied
 * (digits, JSON) is compared from its beginning, for a copy is right up to its first error.
 */
#include "eval/phrases.h"

#include <jansson.h>
#include <string.h>

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
static char fold_case(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

/* Bytes of other scripts are taken for letters. */
static bool in_word(char c)
{
    c = fold_case(c);
    return (c >= 'a' && c <= 'z') || is_digit(c) || c == '_' || (unsigned char)c >= 0x80;
}

static bool same(const char *a, const char *b, size_t n, bool fold)
{
    if (!fold) return !memcmp(a, b, n);
    for (size_t i = 0; i < n; i++)
        if (fold_case(a[i]) != fold_case(b[i])) return false;
    return true;
}

/* A decimal point belongs to the number it is in: 12.5 holds neither 12 nor 5. */
static bool whole(const char *text, const char *s, const char *e, const char *end)
{
    if (s > text && in_word(*s) && in_word(s[-1])) return false;
    if (e < end && in_word(e[-1]) && in_word(*e)) return false;
    if (is_digit(*s) && s - text >= 2 && s[-1] == '.' && is_digit(s[-2])) return false;
    if (is_digit(e[-1]) && end - e >= 2 && *e == '.' && is_digit(e[1])) return false;
    return true;
}

const char *wn_word_find(const char *text, const char *from, const char *end, const char *word,
                         bool fold)
{
    size_t n = strlen(word);
    char first = fold ? fold_case(*word) : *word;
    if (!n) return NULL;
    for (const char *s = from; (size_t)(end - s) >= n; s++) {
        if ((fold ? fold_case(*s) : *s) != first) continue;
        if (same(s, word, n, fold) && whole(text, s, s + n, end)) return s;
    }
    return NULL;
}

static bool holds(const char *text, const char *end, const char *word)
{
    return wn_word_find(text, text, end, word, true) != NULL;
}

static double score_values(const wn_turn *t, const char *answer)
{
    int found = 0;
    for (int i = 0; i < t->n_expect; i++)
        found += holds(answer, answer + strlen(answer), t->expect[i]);
    return (double)found / t->n_expect;
}

static double score_exact(const char *expect, const char *answer)
{
    size_t n;
    while (is_space(*expect)) expect++;
    n = strlen(expect);
    while (n && is_space(expect[n - 1])) n--;
    while (is_space(*answer)) answer++;
    if (!n) return !*answer;
    return !strncmp(answer, expect, n) &&
           whole(answer, answer, answer + n, answer + strlen(answer));
}

/* Of the first run of digits (spaces, commas and hyphens may group it), how many agree with the
 * expected ones before the first that does not; a run that is too long is an error too. */
static double score_digits(const char *expect, const char *answer)
{
    size_t n = strlen(expect), run = 0, agree = 0;
    bool differs = false;
    while (*answer && !is_digit(*answer)) answer++;
    for (;; answer++) {
        const char *s = answer;
        while (*s == ' ' || *s == ',' || *s == '-') s++;
        if (!is_digit(*s) || s - answer > 2) break;
        answer = s;
        differs |= run >= n || expect[run] != *answer;
        agree += !differs;
        run++;
    }
    return n ? (double)agree / (double)WN_MAX(n, run) : 0;
}

/* The first object or array in the answer, whatever is written around it. */
static double score_json(const char *expect, const char *answer)
{
    json_t *want = json_loads(expect, JSON_DECODE_ANY, NULL), *have;
    const char *s = answer + strcspn(answer, "{[");
    double score = 0;
    if (want && *s && (have = json_loads(s, JSON_DISABLE_EOF_CHECK, NULL))) {
        score = json_equal(want, have);
        json_decref(have);
    }
    json_decref(want);
    return score;
}

/* Entries end at commas, semicolons and line ends. An expected item counts once, in the first entry
 * that holds it; entries beyond those asked for (repeats, inventions) make the share smaller. */
static double score_list(const wn_turn *t, const char *answer)
{
    int found = 0, entries = 0;
    const char *end = answer + strlen(answer);
    for (int i = 0; i < t->n_expect; i++) found += holds(answer, end, t->expect[i]);
    for (const char *s = answer; s < end;) {
        const char *e = s + strcspn(s, ",;\n");
        while (s < e && !in_word(*s)) s++;
        entries += s < e;               /* a line of bullets or blanks is none */
        s = e + (e < end);
    }
    return (double)found / WN_MAX(t->n_expect, entries);
}

double wn_turn_score(const wn_turn *t, const char *answer)
{
    WN_ASSERT(t->n_expect > 0);
    switch (t->score) {
    case WN_SCORE_VALUES: return score_values(t, answer);
    case WN_SCORE_EXACT: return score_exact(t->expect[0], answer);
    case WN_SCORE_DIGITS: return score_digits(t->expect[0], answer);
    case WN_SCORE_JSON: return score_json(t->expect[0], answer);
    case WN_SCORE_LIST: return score_list(t, answer);
    }
    return 0;
}
