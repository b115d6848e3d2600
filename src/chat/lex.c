/* chat/lex.c - see lex.h. The rules, down to which of a tag's neighbours lose their white
 * space, are those of Jinja 3's lexer; tests/chat/ holds us to them. */
#include "chat/lex.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void wn_lex_begin(wn_lexer *lx, wn_vm *vm, const char *source, size_t n)
{
    char *p = wn_vm_take(vm, n + 1);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r') {
            p[k++] = '\n';
            i += i + 1 < n && source[i + 1] == '\n';
        } else {
            p[k++] = source[i];
        }
    }
    if (k && p[k - 1] == '\n') k--;
    p[k] = '\0';
    *lx = (wn_lexer){ .vm = vm, .p = p, .n = k, .line_start = true };
    vm->source = p;
    vm->n_source = k;
}

static bool ahead(const wn_lexer *lx, size_t at, const char *z)
{
    size_t n = strlen(z);
    return lx->n - WN_MIN(at, lx->n) >= n && !memcmp(lx->p + at, z, n);
}

static bool is_space(char c) { return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_word(char c)
{
    return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || (c & 0x80);
}

static size_t skip_spaces(const wn_lexer *lx, size_t at)
{
    while (at < lx->n && is_space(lx->p[at])) at++;
    return at;
}

/* The text [from, at) before a tag whose mark ('-', '+' or another character) is at sign. */
static const wn_string *text_before(wn_lexer *lx, size_t from, size_t at, char sign, bool block)
{
    size_t to = at;
    if (sign == '-') {
        const wn_string *s = wn_string_lit(lx->vm, lx->p + from, at - from);
        return wn_string_strip(lx->vm, s, NULL, false, true);
    }
    if (sign != '+' && block) {
        while (to > from && lx->p[to - 1] != '\n' && is_space(lx->p[to - 1])) to--;
        if (to > from ? lx->p[to - 1] != '\n' : !lx->line_start) to = at;
    }
    return wn_string_lit(lx->vm, lx->p + from, to - from);
}

/* After the end of a tag at `at` (behind its '}'): what goes with it. */
static void after_tag(wn_lexer *lx, size_t at, char sign, bool trims)
{
    size_t to = at;
    if (sign == '-') to = skip_spaces(lx, at);
    else if (sign != '+' && trims && ahead(lx, at, "\n")) to++;
    lx->line_start = lx->p[to - 1] == '\n';
    lx->at = to;
}

static void skip_comment(wn_lexer *lx, size_t at)
{
    size_t body = at + 2 + (ahead(lx, at + 2, "-") || ahead(lx, at + 2, "+"));
    const char *end = memmem(lx->p + body, lx->n - body, "#}", 2);
    if (!end) wn_vm_fail_at(lx->vm, (uint32_t)at, "the comment {# has no end #}");
    size_t e = (size_t)(end - lx->p);
    after_tag(lx, e + 2, e > body ? lx->p[e - 1] : 0, true);
}

/* {% word %} with marks: behind it, or 0. *sign: its closing mark. */
static size_t tag_of(const wn_lexer *lx, size_t at, const char *word, char *sign)
{
    if (!ahead(lx, at, "{%")) return 0;
    at += 2;
    if (at < lx->n && (lx->p[at] == '-' || lx->p[at] == '+')) at++;
    at = skip_spaces(lx, at);
    if (!ahead(lx, at, word)) return 0;
    at = skip_spaces(lx, at + strlen(word));
    *sign = 0;
    if (at < lx->n && (lx->p[at] == '-' || lx->p[at] == '+')) *sign = lx->p[at++];
    return ahead(lx, at, "%}") ? at + 2 : 0;
}

/* The text between {% raw %} (behind it: at) and {% endraw %}. */
static wn_lexeme raw_text(wn_lexer *lx, size_t tag, size_t at, char sign)
{
    char end_sign;
    size_t from = sign == '-' ? skip_spaces(lx, at) : at;
    lx->line_start = lx->p[from - 1] == '\n';
    for (size_t i = from; i < lx->n; i++) {
        size_t behind = lx->p[i] == '{' ? tag_of(lx, i, "endraw", &end_sign) : 0;
        if (!behind) continue;
        wn_lexeme t = { .kind = WN_LEX_TEXT, .at = (uint32_t)from,
                        .s = text_before(lx, from, i, lx->p[i + 2], true) };
        after_tag(lx, behind, end_sign, true);
        return t;
    }
    wn_vm_fail_at(lx->vm, (uint32_t)tag, "{%% raw %%} has no end {%% endraw %%}");
}

static wn_lexeme next_outside(wn_lexer *lx)
{
    for (;;) {
        size_t from = lx->at, at = from, behind;
        char sign;
        while (at < lx->n && !(lx->p[at] == '{' && at + 1 < lx->n && strchr("%{#", lx->p[at + 1]) &&
                               lx->p[at + 1]))
            at++;
        if (from == lx->n) return (wn_lexeme){ .kind = WN_LEX_END, .at = (uint32_t)lx->n };
        if (at == lx->n) {
            lx->at = at;
            return (wn_lexeme){ .kind = WN_LEX_TEXT, .at = (uint32_t)from,
                                .s = wn_string_lit(lx->vm, lx->p + from, at - from) };
        }
        char mark = at + 2 < lx->n ? lx->p[at + 2] : 0;
        lx->output = lx->p[at + 1] == '{';
        const wn_string *text = text_before(lx, from, at, mark, !lx->output);
        if (text->n) {                  /* first the text; then the tag again, with nothing before
                                           it */
            lx->at = at;
            lx->line_start = false;
            return (wn_lexeme){ .kind = WN_LEX_TEXT, .at = (uint32_t)from, .s = text };
        }
        if (lx->p[at + 1] == '#') {
            skip_comment(lx, at);
            continue;
        }
        if ((behind = tag_of(lx, at, "raw", &sign))) {
            wn_lexeme t = raw_text(lx, at, behind, sign);
            if (t.s->n) return t;
            continue;
        }
        lx->at = at + 2 + (mark == '-' || mark == '+');
        lx->inside = true;
        lx->n_open = 0;
        return (wn_lexeme){ .kind = lx->output ? WN_LEX_OUTPUT : WN_LEX_BLOCK, .at = (uint32_t)at };
    }
}

/* ---- inside a tag -------------------------------------------------------------------- */

static int hex_digits(const wn_lexer *lx, size_t at, int n, int32_t *out)
{
    char text[9] = { 0 }, *end;
    if (at + (size_t)n > lx->n) return 0;
    memcpy(text, lx->p + at, (size_t)n);
    for (int i = 0; i < n; i++)
        if (!strchr("0123456789abcdefABCDEF", text[i]) || !text[i]) return 0;
    *out = (int32_t)strtoul(text, &end, 16);
    return n;
}

/* One escape behind a backslash at `at`; returns the bytes it takes. */
static size_t escape(wn_lexer *lx, wn_text_buf *b, size_t at)
{
    static const char plain[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    char c = lx->p[at];
    int32_t code = 0;
    if (c == '\n') return 1;
    for (const char *p = plain; *p; p += 2)
        if (c == *p) {
            wn_buf_put(lx->vm, b, p + 1, 1, NULL);
            return 1;
        }
    if (c >= '0' && c <= '7') {
        size_t n = 0;
        while (n < 3 && at + n < lx->n && lx->p[at + n] >= '0' && lx->p[at + n] <= '7')
            code = 8 * code + lx->p[at + n++] - '0';
        wn_buf_char(lx->vm, b, code, false);
        return n;
    }
    if (c == 'x' || c == 'u' || c == 'U') {
        int n = hex_digits(lx, at + 1, c == 'x' ? 2 : c == 'u' ? 4 : 8, &code);
        int32_t low;
        if (!n || code > 0x10FFFF || code < 0)
            wn_vm_fail_at(lx->vm, (uint32_t)at, "\\%c is not followed by the digits of a character",
                          c);
        if (code >= 0xD800 && code < 0xDC00 && ahead(lx, at + 5, "\\u") &&
            hex_digits(lx, at + 7, 4, &low) && low >= 0xDC00 && low < 0xE000) {
            wn_buf_char(lx->vm, b, 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), false);
            return 11;
        }
        if (code >= 0xD800 && code < 0xE000) code = 0xFFFD;
        wn_buf_char(lx->vm, b, code, false);
        return 1 + (size_t)n;
    }
    wn_buf_put(lx->vm, b, "\\", 1, NULL);       /* not an escape: both characters stay */
    return 0;
}

static wn_lexeme string_token(wn_lexer *lx)
{
    size_t start = lx->at, at = start + 1;
    char quote = lx->p[start];
    wn_text_buf *b = wn_buf_new(lx->vm, 0);
    while (at < lx->n && lx->p[at] != quote) {
        size_t run = at;
        while (run < lx->n && lx->p[run] != quote && lx->p[run] != '\\') run++;
        wn_buf_put(lx->vm, b, lx->p + at, run - at, NULL);
        at = run;
        if (at + 1 < lx->n && lx->p[at] == '\\') at += 1 + escape(lx, b, at + 1);
        else if (at < lx->n && lx->p[at] == '\\') at++;
    }
    if (at >= lx->n)
        wn_vm_fail_at(lx->vm, (uint32_t)start, "the string that begins here has no end");
    lx->at = at + 1;
    return (wn_lexeme){ .kind = WN_LEX_STRING, .at = (uint32_t)start, .s = wn_buf_done(lx->vm, b) };
}

/* Digits with single underscores between them, into text. */
static size_t take_digits(const wn_lexer *lx, size_t at, char *text, size_t *k, size_t cap)
{
    while (at < lx->n && (is_digit(lx->p[at]) ||
                          (lx->p[at] == '_' && at + 1 < lx->n && is_digit(lx->p[at + 1])))) {
        if (lx->p[at] != '_' && *k < cap) text[(*k)++] = lx->p[at];
        at++;
    }
    return at;
}

static wn_lexeme number_token(wn_lexer *lx, bool after_dot)
{
    char text[64];
    size_t k = 0, start = lx->at, at, e;
    wn_lexeme t = { .kind = WN_LEX_INT, .at = (uint32_t)start };
    char kind = start + 1 < lx->n && lx->p[start] == '0' ? lx->p[start + 1] | 32 : 0;
    errno = 0;
    if (kind == 'x' || kind == 'o' || kind == 'b') {
        for (at = start + 2; at < lx->n && (is_word(lx->p[at])); at++)
            if (lx->p[at] != '_' && k < sizeof text - 1) text[k++] = lx->p[at];
        text[k] = '\0';
        char *end;
        t.i = strtoll(text, &end, kind == 'x' ? 16 : kind == 'o' ? 8 : 2);
        if (*end || !k)
            wn_vm_fail_at(lx->vm, (uint32_t)start, "\"0%c%s\" is not a number", kind, text);
    } else {
        at = take_digits(lx, start, text, &k, sizeof text - 1);
        if (!after_dot && at + 1 < lx->n && lx->p[at] == '.' && is_digit(lx->p[at + 1])) {
            t.kind = WN_LEX_FLOAT;
            if (k < sizeof text - 1) text[k++] = '.';
            at = take_digits(lx, at + 1, text, &k, sizeof text - 1);
        }
        e = at + 1;
        if (!after_dot && at < lx->n && (lx->p[at] | 32) == 'e') {
            e += e < lx->n && (lx->p[e] == '+' || lx->p[e] == '-');
            if (e < lx->n && is_digit(lx->p[e])) {
                t.kind = WN_LEX_FLOAT;
                for (; at < e; at++)
                    if (k < sizeof text - 1) text[k++] = lx->p[at];
                at = take_digits(lx, at, text, &k, sizeof text - 1);
            }
        }
        text[k] = '\0';
        if (t.kind == WN_LEX_INT) t.i = strtoll(text, NULL, 10);
        else t.f = strtod(text, NULL);
    }
    if ((t.kind == WN_LEX_INT && errno == ERANGE) || k == sizeof text - 1)
        wn_vm_fail_at(lx->vm, (uint32_t)start, "the number %.20s... is too large", text);
    lx->at = at;
    return t;
}

static void balance(wn_lexer *lx, char c, size_t at)
{
    if (strchr("([{", c)) {
        if (lx->n_open == (int)sizeof lx->open)
            wn_vm_fail_at(lx->vm, (uint32_t)at, "more than %d open brackets", lx->n_open);
        lx->open[lx->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (!lx->n_open || lx->open[--lx->n_open] != c) {
        wn_vm_fail_at(lx->vm, (uint32_t)at, "unexpected '%c'", c);
    }
}

static bool tag_end(wn_lexer *lx, wn_lexeme *t)
{
    size_t at = lx->at;
    char sign = lx->p[at];
    const char *end = lx->output ? "}}" : "%}";
    if (sign == '-' || (sign == '+' && !lx->output)) at++;
    else sign = 0;
    if (!ahead(lx, at, end)) return false;
    *t = (wn_lexeme){ .kind = lx->output ? WN_LEX_OUTPUT_END : WN_LEX_BLOCK_END,
                      .at = (uint32_t)lx->at };
    after_tag(lx, at + 2, sign, !lx->output);
    lx->inside = false;
    return true;
}

wn_lexeme wn_lex_next(wn_lexer *lx)
{
    static const char *const ops[] = { "**", "//", "==", "!=", "<=", ">=", "+", "-", "*",
                                       "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                       "]",  "{",  "}",  ",",  ".",  ":",  "|" };
    wn_lexeme t;
    wn_vm_spend(lx->vm, 1);
    if (!lx->inside) return next_outside(lx);
    bool after_dot = lx->at && lx->p[lx->at - 1] == '.';
    lx->at = skip_spaces(lx, lx->at);
    if (lx->at >= lx->n)
        wn_vm_fail_at(lx->vm, (uint32_t)lx->n, "the template ends inside a tag: %s is missing",
                      lx->output ? "}}" : "%}");
    char c = lx->p[lx->at];
    size_t start = lx->at;
    if (!lx->n_open && tag_end(lx, &t)) return t;
    if (c == '"' || c == '\'') return string_token(lx);
    if (is_digit(c)) return number_token(lx, after_dot);
    if (is_word(c)) {
        while (lx->at < lx->n && is_word(lx->p[lx->at])) lx->at++;
        return (wn_lexeme){ .kind = WN_LEX_NAME, .at = (uint32_t)start,
                            .s = wn_string_lit(lx->vm, lx->p + start, lx->at - start) };
    }
    for (size_t i = 0; i < WN_COUNT(ops); i++) {
        if (!ahead(lx, start, ops[i])) continue;
        if (strchr("()[]{}", c)) balance(lx, c, start);
        lx->at += strlen(ops[i]);
        return (wn_lexeme){ .kind = WN_LEX_OP, .at = (uint32_t)start,
                            .s = wn_string_lit(lx->vm, ops[i], strlen(ops[i])) };
    }
    wn_vm_fail_at(lx->vm, (uint32_t)start, "unexpected character '%c'", c);
}
