/* policy/grammar.c - see grammar.h. One pass over a copy of the text; words are cut out by
 * writing NULs behind them once the character that ended them has been looked at. */
#include "policy/grammar.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double MAX_BUDGET = 1e15;  /* far above any cache, and whole numbers up to it are
                                           exact */

typedef struct {
    const char *text, *at;              /* the caller's text; where we are in it */
    char *out;                          /* next free byte of spec->words */
    const char *end;
    wn_err *err;
} parser;

static wn_status wrong(const parser *p, const char *expected)
{
    return wn_fail(p->err, WN_EINVAL, "policy \"%.200s\": at \"%.20s\" (character %d): expected %s",
                   p->text, *p->at ? p->at : "the end", (int)(p->at - p->text) + 1, expected);
}

static void spaces(parser *p)
{
    while (*p->at == ' ' || *p->at == '\t') p->at++;
}

static bool eat(parser *p, char c)
{
    spaces(p);
    if (*p->at != c) return false;
    p->at++;
    spaces(p);
    return true;
}

static bool name_char(char c) { return isalnum((unsigned char)c) || c == '_' || c == '-'; }
static bool where_char(char c) { return isdigit((unsigned char)c) || (c && strchr("-.:, ", c)); }
static bool value_char(char c) { return name_char(c) || (c && strchr(".+|:/", c)); }

/* Copies the word of such characters into the spec; NULL when there is none or no room. */
static const char *word(parser *p, bool (*in)(char))
{
    spaces(p);
    size_t n = 0;
    while (in(p->at[n])) n++;
    if (!n || n + 1 > (size_t)(p->end - p->out)) return NULL;
    char *w = p->out;
    memcpy(w, p->at, n);
    w[n] = '\0';
    p->out += n + 1;
    p->at += n;
    return w;
}

static wn_status params(parser *p, wn_spec_call *c)
{
    if (!eat(p, '(')) return WN_OK;
    if (eat(p, ')')) return WN_OK;
    do {
        if (c->n_params == WN_SPEC_PARAMS) return wrong(p, "fewer parameters");
        wn_spec_param *a = &c->params[c->n_params];
        if (!(a->name = word(p, name_char))) return wrong(p, "the name of a parameter");
        if (!eat(p, '=')) return wrong(p, "= and a value");
        if (!(a->value = word(p, value_char))) return wrong(p, "a value");
        for (int i = 0; i < c->n_params; i++)
            if (!strcmp(c->params[i].name, a->name)) return wrong(p, "each parameter once");
        c->n_params++;
    } while (eat(p, ','));
    return eat(p, ')') ? WN_OK : wrong(p, "\",\" or \")\"");
}

static wn_status call(parser *p, wn_spec_call *c, const char *what)
{
    if (!(c->name = word(p, name_char))) return wrong(p, what);
    return params(p, c);
}

static wn_status bytes(const parser *p, wn_spec *s, double v)
{
    s->budget_kind = WN_BUDGET_BYTES;
    s->budget = floor(v);
    return v >= 1 && v <= MAX_BUDGET ? WN_OK
                                     : wrong(p, "before this a budget from 1 byte to a petabyte");
}

/* "25%", "2048", "64MiB". */
static wn_status size(parser *p, wn_spec *s)
{
    static const struct { char c; int shift; } units[] = { { 'k', 10 }, { 'm', 20 }, { 'g', 30 } };
    char *end;
    spaces(p);
    if (!isdigit((unsigned char)*p->at) && *p->at != '.')
        return wrong(p, "a budget: 25%, 2048 (slots) or 64MiB");
    double v = strtod(p->at, &end);
    if (!(v >= 0) || v > MAX_BUDGET) return wrong(p, "a budget: 25%, 2048 (slots) or 64MiB");
    if (*end == '%') {
        if (!(v > 0 && v <= 100)) return wrong(p, "a share above 0% and up to 100%");
        p->at = end + 1;
        s->budget_kind = WN_BUDGET_SHARE;
        s->budget = v / 100;
        return WN_OK;
    }
    for (size_t i = 0; i < WN_COUNT(units); i++)
        if (tolower((unsigned char)*end) == units[i].c) {
            end++;
            if (*end == 'i') end++;
            if (*end == 'B' || *end == 'b') end++;
            p->at = end;
            return bytes(p, s, ldexp(v, units[i].shift));
        }
    if (*end == 'B') {
        p->at = end + 1;
        return bytes(p, s, v);
    }
    if (v < 1 || v != floor(v)) return wrong(p, "a whole number of slots, or 25% or 64MiB");
    p->at = end;
    s->budget_kind = WN_BUDGET_SLOTS;
    s->budget = v;
    return WN_OK;
}

static wn_status stages(parser *p, wn_spec *s)
{
    wn_status st;
    while (eat(p, '+')) {
        if (s->n_stages == WN_SPEC_STAGES) return wrong(p, "fewer stages");
        if (!(s->stages[s->n_stages].stage = word(p, name_char)))
            return wrong(p, "a stage, as in +alloc:ada");
        if (!eat(p, ':')) return wrong(p, "\":\" and a method, as in +alloc:ada");
        if ((st = call(p, &s->stages[s->n_stages].call, "a method, as in +alloc:ada"))) return st;
        s->n_stages++;
    }
    return WN_OK;
}

/* "[0..1,-1:2]": what is between the brackets, without spaces; none: NULL. */
static wn_status where(parser *p, const char **out)
{
    *out = NULL;
    if (!eat(p, '[')) return WN_OK;
    char *w = (char *)(uintptr_t)word(p, where_char), *to = w;
    if (!w) return wrong(p, "layers, as in k[0]");
    for (const char *from = w; *from; from++)
        if (*from != ' ') *to++ = *from;
    *to = '\0';
    *out = w;
    return eat(p, ']') ? WN_OK : wrong(p, "\"]\"");
}

static bool same(const char *a, const char *b) { return a && b ? !strcmp(a, b) : a == b; }

static wn_status keys(parser *p, wn_spec *s)
{
    while (eat(p, ',')) {
        if (s->n_keys == WN_SPEC_KEYS) return wrong(p, "fewer keys");
        if (!(s->keys[s->n_keys].key = word(p, name_char))) return wrong(p, "a key, as in ,k=f16");
        wn_status st = where(p, &s->keys[s->n_keys].where);
        if (st) return st;
        if (!eat(p, '=')) return wrong(p, "= and a value");
        if ((st = call(p, &s->keys[s->n_keys].value, "a value"))) return st;
        for (int i = 0; i < s->n_keys; i++)
            if (!strcmp(s->keys[i].key, s->keys[s->n_keys].key) &&
                same(s->keys[i].where, s->keys[s->n_keys].where))
                return wrong(p, "each key once");
        s->n_keys++;
    }
    return WN_OK;
}

wn_status wn_spec_parse(wn_spec *s, const char *text, wn_err *err)
{
    *s = (wn_spec){ 0 };
    parser p = { .text = text, .at = text, .out = s->words, .end = s->words + sizeof s->words,
                 .err = err };
    wn_status st;
    if (strlen(text) >= sizeof s->words)     /* each word needs its length and a NUL, and something
                                                ends it */
        return wn_fail(err, WN_EINVAL, "policy \"%.40s...\": longer than %zu characters", text,
                       sizeof s->words - 1);
    spaces(&p);
    if (!strncmp(p.at, "v1:", 3)) p.at += 3;
    if ((st = call(&p, &s->head, "the name of a recipe")) || (st = stages(&p, s))) return st;
    if (eat(&p, '@') && (st = size(&p, s))) return st;
    if ((st = keys(&p, s))) return st;
    spaces(&p);
    return *p.at ? wrong(&p, "\"+stage:\", \"@budget\", \",key=\" or the end") : WN_OK;
}
