/* policy/formats.c - which cache format each layer and head has, as a policy's text says it.
 *
 *     k=q4                  keys of every lane          kv=q4     keys and values
 *     v[0]=f16              values of layer 0           v[-1]=f16 of the last one
 *     kv[0..1,-1]=q8        layers 0, 1 and the last    k[0..-1:2]=q8  head 2 of every layer
 *     k[4:0..1]=f16         heads 0 and 1 of layer 4    lag=4     raw behind a query, in pages
 *
 * The bare keys say what lanes have that no other names; of those with brackets the last that
 * names a lane holds. How many layers and heads there are is not known until a model is, so
 * numbers are checked when lanes are bound to formats. Canonical: k, v, then each range in the
 * order given, then lag.
 */
#include "policy/policy.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INDEX = 1 << 14, MAX_LAG = 1 << 20 };

static const char expected[] = "layers and heads, as in k[0], k[-1], k[0..3], k[0,-1], k[2:0..1]";

static wn_status wrong(const char *key, const char *where, wn_err *err)
{
    return wn_fail(err, WN_EINVAL, "%.10s[%.60s]: expected %s", key, where, expected);
}

static bool number(const char **s, int16_t *out)
{
    char *end;
    if (!isdigit((unsigned char)**s) && (**s != '-' || !isdigit((unsigned char)(*s)[1])))
        return false;
    long v = strtol(*s, &end, 10);
    if (v < -MAX_INDEX || v >= MAX_INDEX) return false;
    *out = (int16_t)v;
    *s = end;
    return true;
}

/* "3", "-1", "0..3". */
static bool range(const char **s, int16_t out[2])
{
    if (!number(s, &out[0])) return false;
    out[1] = out[0];
    if (strncmp(*s, "..", 2)) return true;
    *s += 2;
    return number(s, &out[1]);
}

static wn_status add(wn_policy *p, bool of_v, const wn_format_rule *r, const char *name,
                     wn_err *err)
{
    if (p->n_rules == WN_FORMAT_RULES)
        return wn_fail(err, WN_EINVAL, "more than %d ranges of layers with formats of their own",
                       WN_FORMAT_RULES);
    wn_format_rule *to = &p->rules[p->n_rules++];
    *to = *r;
    to->of_v = of_v;
    strcpy(to->name, name);
    return WN_OK;
}

/* Each range of a list like "0..1,-1:0..3" is a rule of its own. */
static wn_status read_rules(wn_policy *p, bool k, bool v, const char *key, const char *where,
                            const char *name, wn_err *err)
{
    const char *s = where;
    do {
        wn_format_rule r = { .layer = { 0, -1 }, .head = { 0, -1 } };
        if (*s == ',') s++;
        if (!range(&s, r.layer)) return wrong(key, where, err);
        if (*s == ':' && (s++, !range(&s, r.head))) return wrong(key, where, err);
        wn_status st = k ? add(p, false, &r, name, err) : WN_OK;
        if (!st && v) st = add(p, true, &r, name, err);
        if (st) return st;
    } while (*s == ',');
    return *s ? wrong(key, where, err) : WN_OK;
}

static wn_status read_lag(wn_policy *p, const char *value, wn_err *err)
{
    char *end;
    long v = strtol(value, &end, 10);
    if (end == value || *end || v < 0 || v > MAX_LAG)
        return wn_fail(err, WN_EINVAL,
                       "lag=%.40s: expected how many pages stay raw behind a query, 0 to %d", value,
                       MAX_LAG);
    p->lag = (int)v;
    return WN_OK;
}

wn_status wn_policy_read_format(wn_policy *p, const char *key, const char *where, const char *value,
                                wn_err *err)
{
    bool k = !strcmp(key, "k") || !strcmp(key, "kv"), v = !strcmp(key, "v") || !strcmp(key, "kv");
    if (!strcmp(key, "lag") && !where) return read_lag(p, value, err);
    if (!k && !v)
        return wn_fail(err, WN_EINVAL,
                       "there is no key \"%.40s%s\"; there are k, v and kv (cache formats, also of "
                       "some layers "
                       "and heads: k[0]) and lag",
                       key, where ? "[]" : "");
    if (!wn_format_find(value)) return wn_format_unknown(value, err);
    if (where) return read_rules(p, k, v, key, where, value, err);
    if (k) strcpy(p->k, value);
    if (v) strcpy(p->v_format, value);
    return WN_OK;
}

static size_t write_range(char *t, size_t n, const int16_t r[2])
{
    return (size_t)(r[0] == r[1] ? snprintf(t, n, "%d", r[0])
                                 : snprintf(t, n, "%d..%d", r[0], r[1]));
}

size_t wn_policy_write_formats(const wn_policy *p, char *t, size_t n)
{
    size_t k = 0;
    t[0] = '\0';
    if (*p->k) k += (size_t)snprintf(t + k, n - k, ",k=%s", p->k);
    if (*p->v_format) k += (size_t)snprintf(t + k, n - k, ",v=%s", p->v_format);
    for (int i = 0; i < p->n_rules; i++) {
        const wn_format_rule *r = &p->rules[i];
        k += (size_t)snprintf(t + k, n - k, ",%c[", r->of_v ? 'v' : 'k');
        k += write_range(t + k, n - k, r->layer);
        if (r->head[0] != 0 || r->head[1] != -1) {
            t[k++] = ':';
            k += write_range(t + k, n - k, r->head);
        }
        k += (size_t)snprintf(t + k, n - k, "]=%s", r->name);
    }
    if (p->lag) k += (size_t)snprintf(t + k, n - k, ",lag=%d", p->lag);
    return k;
}

const wn_format *wn_policy_calibrated(const wn_policy *p)
{
    const wn_format *f[WN_FORMAT_RULES + 4] = { wn_format_find(p->k), wn_format_find(p->v_format) };
    if (wn_policy_demotes(p)) wn_policy_low_formats(p, &f[2], &f[3]);
    for (int i = 0; i < p->n_rules; i++) f[4 + i] = wn_format_find(p->rules[i].name);
    for (size_t i = 0; i < WN_COUNT(f); i++)
        if (f[i] && f[i]->calibrated) return f[i];
    return NULL;
}

bool wn_policy_has_formats(const wn_policy *p)
{
    return *p->k || *p->v_format || p->n_rules || p->lag || wn_policy_demotes(p);
}

/* ---- binding to a model's lanes ------------------------------------------------------- */

/* The range among n, counted from the end where negative. */
static wn_status resolve(const wn_format_rule *r, const int16_t in[2], int n, const char *what,
                         int out[2], wn_err *err)
{
    for (int i = 0; i < 2; i++) {
        out[i] = in[i] < 0 ? n + in[i] : in[i];
        if (out[i] < 0 || out[i] >= n)
            return wn_fail(err, WN_EINVAL,
                           "%c[..]=%s: there is no %s %d, the model has 0 to %d (or -%d to -1)",
                           r->of_v ? 'v' : 'k', r->name, what, in[i], n - 1, n);
    }
    if (out[0] > out[1])
        return wn_fail(err, WN_EINVAL, "%c[..]=%s: %ss %d to %d of %d are none",
                       r->of_v ? 'v' : 'k', r->name, what, in[0], in[1], n);
    return WN_OK;
}

wn_status wn_policy_format_at(const wn_policy *p, bool of_v, int layer, int n_layers, int head,
                              int n_heads, const wn_format **out, wn_err *err)
{
    const char *name = of_v ? p->v_format : p->k;
    for (int i = 0; i < p->n_rules; i++) {
        const wn_format_rule *r = &p->rules[i];
        int l[2] = { 0 }, h[2] = { 0 };
        wn_status st = resolve(r, r->layer, n_layers, "layer", l, err);
        if (st) return st;
        if (r->of_v != of_v || layer < l[0] || layer > l[1]) continue;
        if ((st = resolve(r, r->head, n_heads, "head", h, err))) return st;
        if (head >= h[0] && head <= h[1]) name = r->name;
    }
    if (*name) *out = wn_format_find(name);
    return *out || !*name ? WN_OK : wn_format_unknown(name, err);
}

/* ---- for lists -------------------------------------------------------------------------- */

bool wn_recipe_format_info(int i, wn_format_info *out)
{
    const wn_format *f = wn_format_at(i);
    if (!f) return false;
    *out = (wn_format_info){ .name = f->name, .encoded = !f->raw, .lag = f->lag,
                             .k_moves = f->k_repack == WN_REPACK_COPY,
                             .v_moves = f->v_repack == WN_REPACK_COPY };
    for (int d = 0; d < 2; d++) {
        out->k_bytes[d] = (double)f->k_bytes(WN_PAGE_SLOTS_MAX, 64 << d) / WN_PAGE_SLOTS_MAX;
        out->v_bytes[d] = (double)f->v_bytes(WN_PAGE_SLOTS_MAX, 64 << d) / WN_PAGE_SLOTS_MAX;
    }
    return true;
}
