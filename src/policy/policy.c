/* policy/policy.c - from the words of a policy to a recipe with numbers; decide.c asks it. */
#include "policy/policy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what every recipe takes ------------------------------------------------------ */

enum { C_AT, C_EVERY, C_FIRST, C_LAST, C_SYSTEM, C_SPECIAL, C_COUNT };

static const wn_param common[C_COUNT] = {
    [C_AT] = { "at", WN_PARAM_WORD, 0, 0, 2, "boundary|mark|both",
               "when it decides: every so many tokens, at marks, or both" },
    [C_EVERY] = { "every", WN_PARAM_INT, 0, 1, 1 << 20, NULL, "tokens between boundaries" },
    [C_FIRST] = { "first", WN_PARAM_INT, 0, 0, 1 << 20, NULL, "first slots that always stay" },
    [C_LAST] = { "last", WN_PARAM_INT, 0, 0, 1 << 20, NULL, "last slots that always stay" },
    [C_SYSTEM] = { "system", WN_PARAM_WORD, 0, 0, 1, "off|on",
                   "the system prompt, where the caller marks one, always stays" },
    [C_SPECIAL] = { "special", WN_PARAM_WORD, 0, 0, 1, "off|on",
                    "special tokens (of chat templates) always stay, the last 256" },
};

/* "a, b and c" of the names in a table, for error messages. */
static void list_params(char *buf, size_t n, const wn_param *a, int n_a)
{
    size_t k = 0;
    buf[0] = '\0';
    for (int i = 0; i < n_a + C_COUNT && k < n; i++)
        k += (size_t)snprintf(buf + k, n - k, "%s%s", i ? ", " : "",
                              i < n_a ? a[i].name : common[i - n_a].name);
}

static int word_index(const char *words, const char *w)
{
    size_t n = strlen(w);
    for (int i = 0; *words; i++) {
        size_t len = strcspn(words, "|");
        if (len == n && !strncmp(words, w, n)) return i;
        words += len + (words[len] == '|');
    }
    return -1;
}

static const char *word_at(const char *words, int i, char buf[32])
{
    while (i-- > 0) words += strcspn(words, "|") + 1;
    snprintf(buf, 32, "%.*s", (int)strcspn(words, "|"), words);
    return buf;
}

static int format_index(const char *name)
{
    int i = 0;
    while (wn_format_at(i) && strcmp(wn_format_at(i)->name, name)) i++;
    return i;
}

static bool moves(const wn_param *a, const wn_format *f)
{
    return (a->name[0] == 'v' ? f->v_repack : f->k_repack) == WN_REPACK_COPY;
}

/* Slots in lower formats move between pages: not every format lets them. */
static wn_status set_format(const wn_param *a, double *v, const char *who, const char *text,
                            wn_err *err)
{
    char fitting[300] = "";
    size_t k = 0;
    const wn_format *f = wn_format_find(text);
    if (f && moves(a, f)) {
        *v = format_index(text);
        return WN_OK;
    }
    for (int i = 0; wn_format_at(i) && k < sizeof fitting; i++)
        if (moves(a, wn_format_at(i)))
            k += (size_t)snprintf(fitting + k, sizeof fitting - k, "%s%s", k ? ", " : "",
                                  wn_format_at(i)->name);
    return wn_fail(err, WN_EINVAL, "%s(%s=%.20s): %s; possible are %s", who, a->name, text,
                   f ? "slots cannot be added to pages of that format" : "there is no such format",
                   fitting);
}

static wn_status set_param(const wn_param *a, double *v, const char *recipe, const char *text,
                           wn_err *err)
{
    char *end;
    if (a->kind == WN_PARAM_WORD) {
        int i = word_index(a->words, text);
        if (i < 0)
            return wn_fail(err, WN_EINVAL, "%s(%s=%.40s): expected one of %s", recipe, a->name,
                           text, a->words);
        *v = i;
        return WN_OK;
    }
    if (a->kind == WN_PARAM_FORMAT) return set_format(a, v, recipe, text, err);
    double x = strtod(text, &end);
    if (end == text || *end || !isfinite(x) || (a->kind == WN_PARAM_INT && x != floor(x)))
        return wn_fail(err, WN_EINVAL, "%s(%s=%.40s): expected a%s number", recipe, a->name, text,
                       a->kind == WN_PARAM_INT ? " whole" : "");
    if (x < a->min || x > a->max)
        return wn_fail(err, WN_EINVAL, "%s(%s=%.40s): expected %g to %g", recipe, a->name, text,
                       a->min, a->max);
    *v = x;
    return WN_OK;
}

/* ---- parsing ---------------------------------------------------------------------- */

static wn_status find_recipe(wn_policy *p, const wn_spec *s, wn_err *err)
{
    char known[900] = "";
    size_t k = 0;
    int i = 0;
    if ((p->recipe = wn_recipe_find(s->head.name))) return WN_OK;
    for (; wn_recipe_at(i) && k + strlen(wn_recipe_at(i)->name) + 3 < sizeof known; i++)
        k += (size_t)snprintf(known + k, sizeof known - k, "%s%s", i ? ", " : "",
                              wn_recipe_at(i)->name);
    return wn_fail(err, WN_EINVAL, "there is no cache policy \"%.40s\"; there are %s%s",
                   s->head.name, known, wn_recipe_at(i) ? " and others" : "");
}

static wn_status read_params(wn_policy *p, const wn_spec *s, wn_err *err)
{
    const wn_recipe *r = p->recipe;
    double c[C_COUNT] = { [C_AT] = r->at_default == WN_AT_BOUNDARY ? 0
                                   : r->at_default == WN_AT_MARK   ? 1
                                                                   : 2,
                          [C_EVERY] = r->every ? r->every : WN_EVERY_DEFAULT,
                          [C_FIRST] = r->first,
                          [C_LAST] = r->last };
    WN_ASSERT(r->n_params <= WN_POLICY_PARAMS);
    for (int i = 0; i < r->n_params; i++) p->v[i] = r->params[i].initial;
    for (int i = 0; i < s->head.n_params; i++) {
        const wn_spec_param *a = &s->head.params[i];
        const wn_param *found = NULL;
        double *to = NULL;
        for (int j = 0; j < r->n_params && !found; j++)
            if (!strcmp(r->params[j].name, a->name)) found = &r->params[j], to = &p->v[j];
        for (int j = 0; j < C_COUNT && !found; j++)
            if (!strcmp(common[j].name, a->name)) found = &common[j], to = &c[j];
        if (!found) {
            char known[200];
            list_params(known, sizeof known, r->params, r->n_params);
            return wn_fail(err, WN_EINVAL, "%s has no parameter \"%.40s\"; it has %s", r->name,
                           a->name, known);
        }
        wn_status st = set_param(found, to, r->name, a->value, err);
        if (st) return st;
    }
    static const int at[3] = { WN_AT_BOUNDARY, WN_AT_MARK, WN_AT_BOUNDARY | WN_AT_MARK };
    p->at = at[(int)c[C_AT]];
    p->every = (int)c[C_EVERY];
    p->first = (int)c[C_FIRST];
    p->last = (int)c[C_LAST];
    p->system = c[C_SYSTEM] > 0;
    p->special = c[C_SPECIAL] > 0;
    if (p->at & ~r->at)
        return wn_fail(err, WN_EINVAL, "%s decides at=%s only", r->name,
                       r->at == WN_AT_MARK ? "mark" : "boundary");
    return WN_OK;
}

/* Names of the recipes that could take the stage's place in the sentence. */
static void list_fitting(char *buf, size_t n, const wn_stage *g)
{
    size_t k = 0;
    buf[0] = '\0';
    for (int i = 0; wn_recipe_at(i) && k < n; i++) {
        const wn_recipe *r = wn_recipe_at(i);
        if (r->score && (r->window || !g->window) && (r->stats || !g->mass))
            k += (size_t)snprintf(buf + k, n - k, "%s%s", k ? ", " : "", r->name);
    }
}

static wn_status fits(const wn_recipe *r, const wn_stage *g, wn_err *err)
{
    const char *kind = wn_stage_kind_name((int)g->kind);
    char with[200];
    list_fitting(with, sizeof with, g);
    if (!r->score)
        return wn_fail(err, WN_EINVAL,
                       "+%s:%s: %s makes whole plans and takes no stages; it goes with %s", kind,
                       g->name, r->name, with);
    if (g->window && !r->window)
        return wn_fail(
            err, WN_EINVAL,
            "+%s:%s needs what the last queries attend to, and %s does not look at them; it goes "
            "with %s",
            kind, g->name, r->name, with);
    if (g->mass && !r->stats)
        return wn_fail(
            err, WN_EINVAL,
            "+%s:%s needs the attention of all queries, and %s does not sum it; it goes with %s",
            kind, g->name, r->name, with);
    return WN_OK;
}

static wn_status find_stage(const wn_stage **out, const char *kind, const char *name, wn_err *err)
{
    char known[200] = "";
    size_t k = 0;
    int i = 0;
    while (wn_stage_kind_name(i) && strcmp(wn_stage_kind_name(i), kind)) i++;
    if (!wn_stage_kind_name(i))
        return wn_fail(
            err, WN_EINVAL,
            "+%.20s:%.40s: there is no stage \"%.20s\"; there are alloc, retain and recover", kind,
            name, kind);
    if ((*out = wn_stage_find((wn_stage_kind)i, name))) return WN_OK;
    for (int j = 0; wn_stage_at(j) && k < sizeof known; j++)
        if ((int)wn_stage_at(j)->kind == i)
            k += (size_t)snprintf(known + k, sizeof known - k, "%s%s", k ? ", " : "",
                                  wn_stage_at(j)->name);
    return wn_fail(err, WN_EINVAL, "there is no +%s:%.40s; there are %s", kind, name, known);
}

static wn_status stage_params(const wn_stage *g, double *v, const wn_spec_call *c, wn_err *err)
{
    char who[60], known[200] = "nothing";
    size_t k = 0;
    snprintf(who, sizeof who, "+%s:%s", wn_stage_kind_name((int)g->kind), g->name);
    WN_ASSERT(g->n_params <= WN_STAGE_PARAMS);
    for (int i = 0; i < g->n_params; i++) {
        v[i] = g->params[i].kind == WN_PARAM_FORMAT ? format_index(g->params[i].words)
                                                    : g->params[i].initial;
        k += (size_t)snprintf(known + k, sizeof known - k, "%s%s", k ? ", " : "",
                              g->params[i].name);
    }
    for (int i = 0; i < c->n_params; i++) {
        int j = 0;
        while (j < g->n_params && strcmp(g->params[j].name, c->params[i].name)) j++;
        if (j == g->n_params)
            return wn_fail(err, WN_EINVAL, "%s has no parameter \"%.40s\"; it has %s", who,
                           c->params[i].name, known);
        wn_status st = set_param(&g->params[j], &v[j], who, c->params[i].value, err);
        if (st) return st;
    }
    return WN_OK;
}

static wn_status read_stages(wn_policy *p, const wn_spec *s, wn_err *err)
{
    for (int i = 0; i < s->n_stages; i++) {
        const wn_spec_call *c = &s->stages[i].call;
        const wn_stage *g;
        wn_status st = find_stage(&g, s->stages[i].stage, c->name, err);
        if (st) return st;
        if (p->stages[g->kind].stage)
            return wn_fail(err, WN_EINVAL, "+%s:%s after +%s:%s: each stage comes once",
                           s->stages[i].stage, g->name, s->stages[i].stage,
                           p->stages[g->kind].stage->name);
        if ((st = fits(p->recipe, g, err)) || (st = stage_params(g, p->stages[g->kind].v, c, err)))
            return st;
        p->stages[g->kind].stage = g;
    }
    return WN_OK;
}

/* What is wrong with a list of statistics, or NULL. */
static const char *fault_of_stats(const wn_stat *s, int n)
{
    for (int i = 0; i < n; i++) {
        bool hits = s[i].kind == WN_STAT_HITS || s[i].kind == WN_STAT_LAST ||
                    s[i].kind == WN_STAT_GAP;
        wn_stat last = s[i];
        last.kind = WN_STAT_LAST;
        if (s[i].kind < 0 || s[i].kind >= WN_STAT_KINDS || s[i].reduce > WN_REDUCE_MAX)
            return "there is no such kind";
        if (!(s[i].decay >= 0 && s[i].decay <= 1)) return "what is left is not between 0 and 1";
        if (hits && !(s[i].threshold > 0)) return "a threshold must be above 0";
        if (s[i].near < 0) return "a distance must not be negative";
        if (!(s[i].within >= 0 && s[i].within <= 1))
            return "what is near is not a share of the text";
        if (s[i].kind == WN_STAT_GAP && (i + 1 == n || !wn_stat_same(&s[i + 1], &last)))
            return "after a GAP comes the LAST that it goes by, with the same numbers";
    }
    return NULL;
}

/* The recipe's list; the plain sum behind it where a stage asks for that. */
static wn_status read_stats(wn_policy *p, wn_err *err)
{
    static const wn_stat plain = { .kind = WN_STAT_SUM };
    const wn_recipe *r = p->recipe;
    wn_params a = { .v = p->v };
    p->n_stats = r->stats ? r->stats(&a, p->stats) : 0;
    WN_ASSERT(p->n_stats >= 0 && p->n_stats <= WN_STATS_MAX);
    if ((p->probes = r->probe != NULL)) r->probe(&a, &p->probe);
    for (int i = 0; i < p->n_stats; i++) {
        if (p->stats[i].decay == 1) p->stats[i].decay = 0;      /* one spelling of "all of it" */
        p->stats[i].probe = p->probes;
    }
    const char *fault = fault_of_stats(p->stats, p->n_stats);
    if (fault) return wn_fail(err, WN_EINVAL, "%s: the statistics it asks for: %s", r->name, fault);
    for (int k = 0; k < WN_STAGE_KINDS; k++) {
        const wn_stage *g = p->stages[k].stage;
        if (!g || !g->mass || wn_stat_find(p->stats, p->n_stats, &plain) >= 0) continue;
        if (p->probes)
            return wn_fail(err, WN_EINVAL,
                           "+%s:%s: it goes by the attention of all queries, %s by that of a probe",
                           wn_stage_kind_name(k), g->name, r->name);
        if (p->n_stats == WN_STATS_MAX)
            return wn_fail(err, WN_EINVAL, "+%s:%s: %s keeps %d statistics of all queries already",
                           wn_stage_kind_name(k), g->name, r->name, p->n_stats);
        p->stats[p->n_stats++] = plain;
    }
    return WN_OK;
}

static wn_status read_keys(wn_policy *p, const wn_spec *s, wn_err *err)
{
    for (int i = 0; i < s->n_keys; i++) {
        const char *key = s->keys[i].key, *value = s->keys[i].value.name;
        wn_status st = wn_policy_read_format(p, key, s->keys[i].where, value, err);
        if (st) return st;
        if (s->keys[i].value.n_params)
            return wn_fail(err, WN_EINVAL, "%.40s=%.40s takes no parameters", key, value);
    }
    return WN_OK;
}

static wn_status check_budget(const wn_policy *p, wn_err *err)
{
    if (p->recipe->kind == WN_CLASS_FULL && p->budget_kind != WN_BUDGET_NONE)
        return wn_fail(err, WN_EINVAL, "%s keeps everything and takes no budget", p->recipe->name);
    return WN_OK;
}

/* A recipe's own size, written as in the grammar. */
static wn_status default_budget(wn_policy *p, wn_err *err)
{
    wn_spec s;
    char text[64];
    snprintf(text, sizeof text, "x@%s", p->recipe->budget);
    wn_status st = wn_spec_parse(&s, text, err);
    p->budget_kind = s.budget_kind;
    p->budget = s.budget;
    return st;
}

/* A number as the canonical text has it, and as it is used from then on: nine digits, so that
 * a policy and its text, which forks and sessions go by, say the same. */
static int write_number(char *buf, size_t n, double *x)
{
    int k = snprintf(buf, n, "%.9g", *x);
    *x = strtod(buf, NULL);
    return k;
}

/* "name=value" of one parameter. */
static size_t write_param(char *t, size_t n, const wn_param *a, double *v)
{
    char w[32];
    size_t k = (size_t)snprintf(t, n, "%.32s=", a->name);
    if (a->kind == WN_PARAM_WORD)
        return k + (size_t)snprintf(t + k, n - k, "%s", word_at(a->words, (int)*v, w));
    if (a->kind == WN_PARAM_FORMAT)
        return k + (size_t)snprintf(t + k, n - k, "%s", wn_format_at((int)*v)->name);
    if (a->kind == WN_PARAM_INT) return k + (size_t)snprintf(t + k, n - k, "%.0f", *v);
    return k + (size_t)write_number(t + k, n - k, v);
}

static size_t write_stages(wn_policy *p, char *t, size_t n)
{
    size_t k = 0;
    for (int i = 0; i < WN_STAGE_KINDS; i++) {
        const wn_stage *g = p->stages[i].stage;
        if (!g) continue;
        k += (size_t)snprintf(t + k, n - k, "+%s:%.32s", wn_stage_kind_name(i), g->name);
        for (int j = 0; j < g->n_params; j++) {
            t[k++] = j ? ',' : '(';
            k += write_param(t + k, n - k, &g->params[j], &p->stages[i].v[j]);
        }
        if (g->n_params) t[k++] = ')';
    }
    return k;
}

/* The canonical text: recipe(every parameter)+stages@budget,formats. */
static wn_status write_text(wn_policy *p, wn_err *err)
{
    const wn_recipe *r = p->recipe;
    char t[6 * WN_SPEC_BYTES];
    size_t n = sizeof t, k = (size_t)snprintf(t, n, "v1:%.64s(", r->name);
    for (int i = 0; i < r->n_params; i++) {
        k += write_param(t + k, n - k, &r->params[i], &p->v[i]);
        t[k++] = ',';
    }
    k += (size_t)snprintf(t + k, n - k, "at=%s,every=%d,first=%d,last=%d,system=%s,special=%s)",
                          p->at == WN_AT_BOUNDARY ? "boundary"
                          : p->at == WN_AT_MARK   ? "mark"
                                                  : "both",
                          p->every, p->first, p->last, p->system ? "on" : "off",
                          p->special ? "on" : "off");
    k += write_stages(p, t + k, n - k);
    if (p->budget_kind == WN_BUDGET_SHARE) {
        double percent = p->budget * 100;
        t[k++] = '@';
        k += (size_t)write_number(t + k, n - k, &percent);
        t[k++] = '%';
        p->budget = percent / 100;
    } else if (p->budget_kind == WN_BUDGET_SLOTS)
        k += (size_t)snprintf(t + k, n - k, "@%.0f", p->budget);
    else if (p->budget_kind == WN_BUDGET_BYTES)
        k += (size_t)snprintf(t + k, n - k, "@%.0fB", p->budget);
    k += wn_policy_write_formats(p, t + k, n - k);
    if (k >= sizeof p->text)
        return wn_fail(err, WN_EINVAL,
                       "%s: spelled out, the policy takes %zu characters; %zu are possible",
                       r->name, k, sizeof p->text - 1);
    memcpy(p->text, t, k);
    p->text[k] = '\0';
    return WN_OK;
}

wn_status wn_policy_parse(wn_policy *p, const char *text, wn_err *err)
{
    wn_spec spec, *s = &spec;
    wn_status st = wn_spec_parse(s, text, err);
    *p = (wn_policy){ 0 };
    if (st || (st = find_recipe(p, s, err)) || (st = read_params(p, s, err)) ||
        (st = read_stages(p, s, err)) || (st = read_stats(p, err)) || (st = read_keys(p, s, err)))
        return st;
    p->budget_kind = s->budget_kind;
    p->budget = s->budget;
    p->budget_given = s->budget_kind != WN_BUDGET_NONE;
    if (!p->budget_given && p->recipe->budget && (st = default_budget(p, err))) return st;
    if ((st = check_budget(p, err))) return st;
    return write_text(p, err);
}

const wn_param *wn_recipe_common(int i) { return i >= 0 && i < C_COUNT ? &common[i] : NULL; }
const char *wn_recipe_format(int i) { return wn_format_at(i) ? wn_format_at(i)->name : NULL; }

wn_status wn_policy_check(const char *text, wn_err *err)
{
    wn_policy p;
    return wn_policy_parse(&p, text, err);
}

wn_status wn_policy_set_share(wn_policy *p, double share, wn_err *err)
{
    if (!(share > 0 && share <= 1))
        return wn_fail(err, WN_EINVAL, "a budget of %g: expected a share above 0 and up to 1",
                       share);
    p->budget_kind = WN_BUDGET_SHARE;
    p->budget = share;
    wn_status st = check_budget(p, err);
    return st ? st : write_text(p, err);
}

int wn_policy_window(const wn_policy *p)
{
    wn_params a = { .v = p->v };
    return p->recipe->window ? p->recipe->window(&a) : 0;
}

bool wn_policy_decides(const wn_policy *p) { return p->recipe->plan || p->recipe->score; }

bool wn_policy_merges(const wn_policy *p)
{
    const wn_stage *g = p->stages[WN_STAGE_RECOVER].stage;
    return g ? g->recover != NULL : p->recipe->recover != NULL;
}

bool wn_policy_demotes(const wn_policy *p)
{
    const wn_stage *g = p->stages[WN_STAGE_RECOVER].stage;
    return g && g->demotes;
}

void wn_policy_low_formats(const wn_policy *p, const wn_format **k, const wn_format **v)
{
    const double *x = p->stages[WN_STAGE_RECOVER].v;
    bool demotes = wn_policy_demotes(p);
    *k = demotes ? wn_format_at((int)x[0]) : NULL;
    *v = demotes ? wn_format_at((int)x[1]) : NULL;
}

int wn_policy_spread(const wn_policy *p)
{
    wn_params a = { .v = p->v };
    bool own = !p->stages[WN_STAGE_RECOVER].stage && p->recipe->spread;
    return !wn_policy_merges(p) ? 0 : own ? p->recipe->spread(&a) : 1;
}

bool wn_policy_allocates(const wn_policy *p)
{
    const wn_stage *g = p->stages[WN_STAGE_ALLOC].stage;
    return g ? g->allocate != NULL : p->recipe->allocate != NULL;
}

int wn_policy_profile(const wn_policy *p)
{
    int needs = p->recipe->profile;
    for (int i = 0; i < WN_STAGE_KINDS; i++)
        needs |= p->stages[i].stage ? p->stages[i].stage->profile : 0;
    return needs;
}

unsigned wn_policy_wants(const wn_policy *p)
{
    unsigned wants = p->recipe->wants;
    for (int i = 0; i < WN_STAGE_KINDS; i++)
        wants |= p->stages[i].stage ? p->stages[i].stage->wants : 0;
    return wants;
}

bool wn_policy_retains(const wn_policy *p)
{
    const wn_stage *g = p->stages[WN_STAGE_RETAIN].stage;
    return g ? g->retain != NULL : p->recipe->retain != NULL;
}
