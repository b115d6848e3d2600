/* policy/profile.c - profiles in memory, and the file: see profile.h.
 *
 * Writing puts one head, lane or table on a line, so that people can read the file and a diff
 * of two says what changed. Numbers have six digits in the file and, because whoever measures
 * reads back what it wrote, nowhere more.
 */
#include "policy/profile.h"

#include "base/alloc.h"
#include "base/os.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { DIGITS = 6, MAX_LAYERS = 4096, MAX_HEADS = 1024, MAX_LANES = 1 << 16, MAX_TABLES = 256 };
static const char KIND[] = "winnow profile";
static const char *const classes[] = { [WN_HEAD_MIXED] = "mixed", [WN_HEAD_RETRIEVAL] = "retrieval",
                                       [WN_HEAD_STREAMING] = "streaming" };

const char *wn_head_class_name(wn_head_class k) { return classes[k]; }

/* ---- in memory ---------------------------------------------------------------------- */

wn_status wn_profile_new(wn_profile **out, int n_layers, int n_heads, int n_lanes, wn_err *err)
{
    wn_profile *p = *out = WN_NEW(wn_profile);
    if (!p) return wn_fail(err, WN_ENOMEM, "profile: out of memory");
    p->n_layers = n_layers;
    p->n_heads = n_heads;
    p->n_lanes = n_lanes;
    p->heads = WN_NEW_ARRAY(wn_head_scores, (size_t)n_layers * (size_t)n_heads);
    p->lanes = WN_NEW_ARRAY(wn_head_scores, n_lanes);
    p->layer_loss = WN_NEW_ARRAY(float, n_layers);
    if (p->heads && p->lanes && p->layer_loss) return WN_OK;
    wn_profile_close(p);
    *out = NULL;
    return wn_fail(err, WN_ENOMEM, "profile: out of memory for %d layers of %d heads", n_layers,
                   n_heads);
}

void wn_profile_close(wn_profile *p)
{
    if (!p) return;
    for (int i = 0; i < p->n_budgets; i++) wn_free(p->budgets[i].weight);
    wn_free(p->budgets);
    wn_free(p->heads);
    wn_free(p->lanes);
    wn_free(p->layer_loss);
    wn_free(p);
}

wn_status wn_profile_add_budget(wn_profile *p, const char *policy, const char *recipe, double share,
                                wn_profile_budget **out, wn_err *err)
{
    wn_profile_budget *b = NULL;
    for (int i = 0; i < p->n_budgets && !b; i++)
        if (!strcmp(p->budgets[i].policy, policy)) b = &p->budgets[i];
    if (!b) {
        wn_profile_budget *more = wn_realloc(p->budgets, sizeof *more * (size_t)(p->n_budgets + 1));
        if (!more) return wn_fail(err, WN_ENOMEM, "profile: out of memory");
        p->budgets = more;
        b = &more[p->n_budgets];
        *b = (wn_profile_budget){ .weight = WN_NEW_ARRAY(double, p->n_layers) };
        if (!b->weight) return wn_fail(err, WN_ENOMEM, "profile: out of memory");
        p->n_budgets++;
    }
    snprintf(b->policy, sizeof b->policy, "%s", policy);
    snprintf(b->recipe, sizeof b->recipe, "%s", recipe);
    b->share = share;
    *out = b;
    return WN_OK;
}

wn_status wn_profile_take_budgets(wn_profile *p, const wn_profile *from, wn_err *err)
{
    WN_ASSERT(p->n_layers == from->n_layers);
    for (int i = 0; i < from->n_budgets; i++) {
        const wn_profile_budget *b = &from->budgets[i];
        wn_profile_budget *to;
        wn_status st = wn_profile_add_budget(p, b->policy, b->recipe, b->share, &to, err);
        if (st) return st;
        memcpy(to->weight, b->weight, sizeof *b->weight * (size_t)p->n_layers);
        to->even = b->even;
        to->found = b->found;
        to->n_tried = b->n_tried;
    }
    return WN_OK;
}

/* ---- asking ---------------------------------------------------------------------------- */

const wn_profile_budget *wn_profile_nearest(const wn_profile *p, const char *recipe, double share)
{
    const wn_profile_budget *best = NULL;
    double least = INFINITY;
    for (int i = 0; i < p->n_budgets; i++) {
        const wn_profile_budget *b = &p->budgets[i];
        if (strcmp(b->recipe, recipe)) continue;
        double far = WN_MAX(b->share, share) / WN_MAX(WN_MIN(b->share, share), 1e-9);
        if (far > least || (far == least && b->share >= best->share)) continue;
        least = far;
        best = b;
    }
    return best;
}

static void hex_of(const uint8_t *from, int n, char *to)
{
    for (int i = 0; i < n; i++) snprintf(to + 2 * i, 3, "%02x", from[i]);
}

wn_status wn_profile_fits(const wn_profile *p, const uint8_t fingerprint[16], int n_layers,
                          int n_heads, int n_lanes, wn_err *err)
{
    char a[WN_PROFILE_ID], b[WN_PROFILE_ID];
    hex_of(p->fingerprint, 16, a);
    hex_of(fingerprint, 16, b);
    if (strcmp(a, b))
        return wn_fail(err, WN_EINVAL,
                       "it is of another model (%.60s, fingerprint %s; this one has %s)", p->model,
                       a, b);
    if (p->n_layers != n_layers || p->n_heads != n_heads || p->n_lanes != n_lanes)
        return wn_fail(
            err, WN_EFORMAT,
            "it is of %d layers with %d heads and %d lanes in all, the model has %d, %d and %d",
            p->n_layers, p->n_heads, p->n_lanes, n_layers, n_heads, n_lanes);
    return WN_OK;
}

wn_status wn_profile_serves(const wn_profile *p, int needs, const char *recipe, wn_err *err)
{
    char known[160] = "none";
    size_t k = 0;
    if (!(needs & WN_PROFILE_BUDGETS) || wn_profile_nearest(p, recipe, 1)) return WN_OK;
    for (int i = 0; i < p->n_budgets && k < sizeof known; i++)
        k += (size_t)snprintf(known + k, sizeof known - k, "%s%s@%g%%", i ? ", " : "",
                              p->budgets[i].recipe, p->budgets[i].share * 100);
    return wn_fail(err, WN_EINVAL, "it has no budgets for %s (it has: %s)", recipe, known);
}

/* ---- writing ----------------------------------------------------------------------------- */

static json_t *scores_json(const wn_head_scores *s, int layer, int head)
{
    return json_pack("{s:i, s:i, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "layer", layer, "head",
                     head, "class", classes[s->kind], "needle", (double)s->needle, "copy",
                     (double)s->copy, "span", (double)s->span, "induction", (double)s->induction,
                     "echo", (double)s->echo, "stream", (double)s->stream, "loss", (double)s->loss);
}

static json_t *budget_json(const wn_profile_budget *b, int n_layers)
{
    json_t *w = json_array();
    for (int i = 0; i < n_layers; i++) json_array_append_new(w, json_real(b->weight[i]));
    return json_pack("{s:s, s:s, s:f, s:f, s:f, s:i, s:o}", "policy", b->policy, "recipe",
                     b->recipe, "share", b->share, "even", b->even, "found", b->found, "tried",
                     b->n_tried, "weights", w);
}

static json_t *how_json(const wn_profile_how *h)
{
    return json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:I, s:f, s:f, s:f}", "numerics",
                     h->numerics, "phrases", h->phrases, "context", h->context, "needles",
                     h->n_needles, "repeats", h->n_repeats, "sinks", h->sinks, "recent", h->recent,
                     "seed", (json_int_t)h->seed, "answered", h->answered, "copy_from",
                     h->copy_from, "stream_from", h->stream_from);
}

/* Everything but the checksum. Lanes are numbered layer by layer. */
static json_t *root_json(const wn_profile *p)
{
    char print[WN_PROFILE_ID];
    int per_layer = p->n_lanes / p->n_layers;
    json_t *heads = json_array(), *lanes = json_array(), *loss = json_array(),
           *budgets = json_array();
    hex_of(p->fingerprint, 16, print);
    for (int i = 0; i < p->n_layers * p->n_heads; i++)
        json_array_append_new(heads, scores_json(&p->heads[i], i / p->n_heads, i % p->n_heads));
    for (int i = 0; i < p->n_lanes; i++)
        json_array_append_new(lanes, scores_json(&p->lanes[i], i / per_layer, i % per_layer));
    for (int i = 0; i < p->n_layers; i++)
        json_array_append_new(loss, json_real((double)p->layer_loss[i]));
    for (int i = 0; i < p->n_budgets; i++)
        json_array_append_new(budgets, budget_json(&p->budgets[i], p->n_layers));
    json_t *model = json_pack("{s:s, s:s, s:i, s:i, s:i}", "name", p->model, "fingerprint", print,
                              "layers", p->n_layers, "heads", p->n_heads, "lanes", p->n_lanes);
    return json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "kind", KIND, "version",
                     WN_PROFILE_VERSION, "model", model, "how", how_json(&p->how), "lanes", lanes,
                     "heads", heads, "layer_loss", loss, "budgets", budgets);
}

/* Of everything but the member "checksum"; false when out of memory. */
static bool checksum(const json_t *root, char out[WN_PROFILE_ID])
{
    json_t *bare = json_copy((json_t *)root);
    json_object_del(bare, "checksum");
    char *text = bare
                     ? json_dumps(bare, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(DIGITS))
                     : NULL;
    json_decref(bare);
    if (!text) return false;
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, XXH3_128bits(text, strlen(text)));
    hex_of(c.digest, 16, out);
    free(text);
    return true;
}

static void put_value(FILE *f, const json_t *v)
{
    json_dumpf(v, f, JSON_ENCODE_ANY | JSON_REAL_PRECISION(DIGITS));
}

static void put_root(FILE *f, const json_t *root, const char *sum)
{
    const char *key;
    json_t *v;
    size_t i;
    fputs("{\n", f);
    json_object_foreach((json_t *)root, key, v) {
        json_t *e;
        fprintf(f, "\"%s\": ", key);
        if (!json_is_array(v) || !json_is_object(json_array_get(v, 0))) put_value(f, v);
        else json_array_foreach(v, i, e) {
            fputs(i ? ",\n  " : "[\n  ", f);
            put_value(f, e);
            if (i + 1 == json_array_size(v)) fputs("]", f);
        }
        fputs(",\n", f);
    }
    fprintf(f, "\"checksum\": \"%s\"\n}\n", sum);
}

wn_status wn_profile_text(const wn_profile *p, char **out, wn_err *err)
{
    char sum[WN_PROFILE_ID];
    size_t n;
    json_t *root = root_json(p);
    *out = NULL;
    FILE *f = root && checksum(root, sum) ? open_memstream(out, &n) : NULL;
    if (f) put_root(f, root, sum);
    json_decref(root);
    if (f && !fclose(f)) return WN_OK;
    free(*out);
    *out = NULL;
    return wn_fail(err, WN_ENOMEM, "profile: its text cannot be made");
}

wn_status wn_profile_write(const wn_profile *p, const char *path, wn_err *err)
{
    char *text;
    wn_status st = wn_profile_text(p, &text, err);
    if (st) return st;
    st = wn_os_file_replace(path, text, strlen(text), err);
    free(text);
    return st;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* A share, or any number from 0 on. */
static bool sound(double x, bool share) { return x >= 0 && x <= (share ? 1 + 1e-6 : 1e6); }

static wn_status read_scores(wn_head_scores *s, const json_t *j, const char *what, int layer,
                             int head, wn_err *err)
{
    static const char *const names[7] = { "needle", "copy",   "span", "induction",
                                          "echo",   "stream", "loss" };
    double v[7];
    const char *kind;
    int at[2], k = 0;
    json_error_t e;
    if (json_unpack_ex((json_t *)j, &e, JSON_STRICT,
                       "{s:i, s:i, s:s, s:F, s:F, s:F, s:F, s:F, s:F, s:F}", "layer", &at[0],
                       "head", &at[1], "class", &kind, names[0], &v[0], names[1], &v[1], names[2],
                       &v[2], names[3], &v[3], names[4], &v[4], names[5], &v[5], names[6], &v[6]))
        return wn_fail(err, WN_EFORMAT, "%s of layer %d, head %d: %.120s", what, layer, head,
                       e.text);
    if (at[0] != layer || at[1] != head)
        return wn_fail(err, WN_EFORMAT, "%s: layer %d, head %d where layer %d, head %d belongs",
                       what, at[0], at[1], layer, head);
    while (k < (int)WN_COUNT(classes) && strcmp(classes[k], kind)) k++;
    if (k == (int)WN_COUNT(classes))
        return wn_fail(
            err, WN_EFORMAT,
            "%s of layer %d, head %d: class \"%.20s\"; there are mixed, retrieval and streaming",
            what, layer, head, kind);
    for (int i = 0; i < 7; i++)
        if (!sound(v[i], i < 6))
            return wn_fail(err, WN_EFORMAT, "%s of layer %d, head %d: %s is %g, expected 0 to %s",
                           what, layer, head, names[i], v[i], i < 6 ? "1" : "1e6");
    *s = (wn_head_scores){ .needle = (float)v[0], .copy = (float)v[1], .span = (float)v[2],
                           .induction = (float)v[3], .echo = (float)v[4], .stream = (float)v[5],
                           .loss = (float)v[6], .kind = (wn_head_class)k };
    return WN_OK;
}

static wn_status read_list(wn_head_scores *to, const json_t *list, int n, int per_layer,
                           const char *what, wn_err *err)
{
    wn_status st = WN_OK;
    if (json_array_size(list) != (size_t)n)
        return wn_fail(err, WN_EFORMAT, "%zu %ss, its model has %d", json_array_size(list), what,
                       n);
    for (int i = 0; i < n && !st; i++)
        st = read_scores(&to[i], json_array_get(list, (size_t)i), what, i / per_layer,
                         i % per_layer, err);
    return st;
}

static wn_status read_budget(wn_profile *p, const json_t *j, int i, wn_err *err)
{
    const char *policy, *recipe;
    double share, even, found, sum = 0;
    int tried;
    json_t *w;
    json_error_t e;
    wn_profile_budget *b;
    if (json_unpack_ex((json_t *)j, &e, JSON_STRICT, "{s:s, s:s, s:F, s:F, s:F, s:i, s:o}",
                       "policy", &policy, "recipe", &recipe, "share", &share, "even", &even,
                       "found", &found, "tried", &tried, "weights", &w))
        return wn_fail(err, WN_EFORMAT, "budgets, table %d: %.120s", i, e.text);
    if (!(share > 0 && share <= 1) || tried < 0 || !sound(even, false) || !sound(found, false) ||
        !*recipe || strlen(policy) >= sizeof b->policy || strlen(recipe) >= sizeof b->recipe)
        return wn_fail(err, WN_EFORMAT,
                       "budgets, table %d: a share of %g, a name or a figure that cannot be", i,
                       share);
    if (json_array_size(w) != (size_t)p->n_layers)
        return wn_fail(err, WN_EFORMAT, "budgets, table %d: %zu weights for %d layers", i,
                       json_array_size(w), p->n_layers);
    wn_status st = wn_profile_add_budget(p, policy, recipe, share, &b, err);
    if (st) return st;
    if (p->n_budgets != i + 1)
        return wn_fail(err, WN_EFORMAT, "budgets: %.60s comes twice", policy);
    for (int l = 0; l < p->n_layers; l++) {
        const json_t *x = json_array_get(w, (size_t)l);
        b->weight[l] = json_number_value(x);
        if (!json_is_number(x) || !(b->weight[l] >= 0 && b->weight[l] <= p->n_layers))
            return wn_fail(err, WN_EFORMAT,
                           "budgets, table %d: layer %d has no weight from 0 to %d", i, l,
                           p->n_layers);
        sum += b->weight[l];
    }
    if (!(fabs(sum / p->n_layers - 1) < 1e-3))
        return wn_fail(err, WN_EFORMAT, "budgets, table %d: the mean weight is %g, expected 1", i,
                       sum / p->n_layers);
    b->even = even;
    b->found = found;
    b->n_tried = tried;
    return WN_OK;
}

static bool read_hex(const char *s, uint8_t out[16])
{
    if (strlen(s) != 32 || s[strspn(s, "0123456789abcdef")]) return false;
    for (int i = 0; i < 16; i++) {
        char pair[3] = { s[2 * i], s[2 * i + 1], 0 };
        out[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return true;
}

static wn_status read_how(wn_profile_how *h, const json_t *j, wn_err *err)
{
    const char *numerics, *phrases;
    json_int_t seed;
    json_error_t e;
    if (json_unpack_ex((json_t *)j, &e, JSON_STRICT,
                       "{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:I, s:F, s:F, s:F}", "numerics",
                       &numerics, "phrases", &phrases, "context", &h->context, "needles",
                       &h->n_needles, "repeats", &h->n_repeats, "sinks", &h->sinks, "recent",
                       &h->recent, "seed", &seed, "answered", &h->answered, "copy_from",
                       &h->copy_from, "stream_from", &h->stream_from))
        return wn_fail(err, WN_EFORMAT, "how: %.120s", e.text);
    if (h->context < 1 || h->n_needles < 0 || h->n_repeats < 0 || h->sinks < 0 || h->recent < 0 ||
        !sound(h->answered, true) || !sound(h->copy_from, false) || !sound(h->stream_from, false) ||
        strlen(numerics) >= sizeof h->numerics || strlen(phrases) >= sizeof h->phrases)
        return wn_fail(err, WN_EFORMAT, "how: a number or a name that cannot be");
    h->seed = seed;
    strcpy(h->numerics, numerics);
    strcpy(h->phrases, phrases);
    return WN_OK;
}

/* root: kind and version are known to be right. */
static wn_status read_root(wn_profile **out, const json_t *root, wn_err *err)
{
    const char *name, *print, *sum, *kind;
    int version, L, H, n;
    json_t *how, *heads, *lanes, *loss, *budgets;
    json_error_t e;
    uint8_t fp[16];
    char real[WN_PROFILE_ID];
    if (json_unpack_ex((json_t *)root, &e, JSON_STRICT,
                       "{s:s, s:i, s:{s:s, s:s, s:i, s:i, s:i !}, s:o, s:o, s:o, s:o, s:o, s:s}",
                       "kind", &kind, "version", &version, "model", "name", &name, "fingerprint",
                       &print, "layers", &L, "heads", &H, "lanes", &n, "how", &how, "lanes", &lanes,
                       "heads", &heads, "layer_loss", &loss, "budgets", &budgets, "checksum", &sum))
        return wn_fail(err, WN_EFORMAT, "%.150s", e.text);
    if (!checksum(root, real)) return wn_fail(err, WN_ENOMEM, "out of memory");
    if (strcmp(real, sum))
        return wn_fail(
            err, WN_EFORMAT,
            "its checksum does not match (%.32s, expected %s): damaged, or changed by hand", sum,
            real);
    if (L < 1 || L > MAX_LAYERS || H < 1 || H > MAX_HEADS || n < L || n > MAX_LANES || n % L ||
        H % (n / L))
        return wn_fail(err, WN_EFORMAT,
                       "a model of %d layers with %d heads and %d lanes in all cannot be", L, H, n);
    if (!read_hex(print, fp))
        return wn_fail(err, WN_EFORMAT, "the fingerprint is not 32 hexadecimal digits");
    if (strlen(name) >= sizeof(*out)->model)
        return wn_fail(err, WN_EFORMAT, "the model's name has %zu bytes", strlen(name));
    if (json_array_size(loss) != (size_t)L)
        return wn_fail(err, WN_EFORMAT, "layer_loss has %zu values for %d layers",
                       json_array_size(loss), L);
    if (!json_is_array(budgets) || json_array_size(budgets) > MAX_TABLES)
        return wn_fail(err, WN_EFORMAT, "budgets: expected up to %d tables", MAX_TABLES);
    wn_status st = wn_profile_new(out, L, H, n, err);
    if (st) return st;
    wn_profile *p = *out;
    memcpy(p->fingerprint, fp, sizeof fp);
    strcpy(p->model, name);
    strcpy(p->id, real);
    for (int l = 0; l < L; l++) {
        const json_t *x = json_array_get(loss, (size_t)l);
        p->layer_loss[l] = (float)json_number_value(x);
        if (!json_is_number(x) || !sound(json_number_value(x), false))
            return wn_fail(err, WN_EFORMAT, "layer_loss: layer %d has no number from 0 to 1e6", l);
    }
    if ((st = read_how(&p->how, how, err)) ||
        (st = read_list(p->lanes, lanes, n, n / L, "lane", err)) ||
        (st = read_list(p->heads, heads, L * H, H, "head", err)))
        return st;
    for (int i = 0; i < (int)json_array_size(budgets) && !st; i++)
        st = read_budget(p, json_array_get(budgets, (size_t)i), i, err);
    return st;
}

wn_status wn_profile_parse(wn_profile **out, const char *json, size_t n, wn_err *err)
{
    json_error_t e;
    *out = NULL;
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &e);
    if (!root)
        return wn_fail(err, WN_EFORMAT, "not a profile, or cut short: line %d: %.150s", e.line,
                       e.text);
    const char *kind = json_string_value(json_object_get(root, "kind"));
    json_int_t version = json_integer_value(json_object_get(root, "version"));
    wn_status st;
    if (!kind || strcmp(kind, KIND))
        st = wn_fail(err, WN_EFORMAT, "not a profile (its kind is not \"%s\")", KIND);
    else if (version != WN_PROFILE_VERSION)
        st = wn_fail(err, WN_EUNSUPPORTED, "profile version %lld, this program reads version %d",
                     (long long)version, WN_PROFILE_VERSION);
    else st = read_root(out, root, err);
    json_decref(root);
    if (st) {
        wn_profile_close(*out);
        *out = NULL;
    }
    return st;
}

wn_status wn_profile_read(wn_profile **out, const char *path, wn_err *err)
{
    wn_os_file f;
    *out = NULL;
    wn_status st = wn_os_file_open(&f, path, err);
    if (st) return st;
    st = wn_profile_parse(out, (const char *)f.data, f.size, err);
    wn_os_file_close(&f);
    return st ? wn_fail_prefix(err, st, "%s", path) : WN_OK;
}
