/* policy/plugin.c - recipes from libraries, loaded while the program runs.
 *
 * A library is trusted (it is code), its author may still be wrong: everything the rest of
 * the program takes for granted about a recipe is checked once, here, with a sentence that
 * names the recipe. Libraries are never unloaded, because policies point at recipes.
 */
#include "policy/plugin.h"
#include "policy/policy.h"

#include <ctype.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LOADED = 64, MAX_NAME = 32 };
static const wn_recipe *loaded[MAX_LOADED];
static int n_loaded;

const wn_recipe *wn_plugin_recipe(int i) { return i >= 0 && i < n_loaded ? loaded[i] : NULL; }

static bool is_name(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && s[i] != '_' && s[i] != '-') return false;
    return n > 0 && n <= MAX_NAME;
}

/* What is wrong with parameter i, or NULL. */
static const char *fault_of_param(const wn_recipe *r, int i)
{
    const wn_param *a = &r->params[i];
    if (!is_name(a->name)) return "its name is not letters, digits, _ and -";
    if (!a->help) return "it has no help";
    if (a->kind == WN_PARAM_WORD ? !a->words : a->kind != WN_PARAM_INT && a->kind != WN_PARAM_FLOAT)
        return "it has no kind";
    if (!(a->min <= a->initial && a->initial <= a->max)) return "its default is outside its range";
    for (int j = 0; j < i; j++)
        if (!strcmp(r->params[j].name, a->name)) return "there are two of that name";
    for (int j = 0; wn_recipe_common(j); j++)
        if (!strcmp(wn_recipe_common(j)->name, a->name))
            return "every recipe has one of that name already";
    return NULL;
}

static const char *fault_of_recipe(const wn_recipe *r)
{
    if (!r->family || !r->source || !r->about || !r->cost)
        return "family, source, about and cost must be given";
    if (r->n_params < 0 || r->n_params > WN_POLICY_PARAMS || (r->n_params && !r->params))
        return "it has more than 16 parameters";
    if (!r->at || r->at & ~(WN_AT_BOUNDARY | WN_AT_MARK) || !r->at_default ||
        r->at_default & ~r->at)
        return "at and at_default do not say when it decides";
    if (!r->plan == !r->score) return "it needs a plan or a score, one of them";
    if (r->bounded && !r->cap) return "what is bounded needs a cap";
    if (r->probe && !r->stats) return "it probes and keeps no statistics of that";
    if (r->wants & ~(unsigned)WN_WANTS_ALL) return "it wants what views do not have";
    if (r->every < 0 || r->every > 1 << 20) return "every is not between 0 and 1048576";
    if (r->kind == WN_CLASS_HEAD_SHARE && (!r->cap || !r->allocate))
        return "a head-share recipe needs cap and allocate";
    if (r->kind < WN_CLASS_FULL || r->kind > WN_CLASS_PROBE) return "it has no class";
    return NULL;
}

static wn_status check(const char *path, const wn_recipe *r, const wn_recipe *const *before, int n,
                       wn_err *err)
{
    const char *fault;
    if (!is_name(r->name))
        return wn_fail(err, WN_EFORMAT, "%s: recipe %d has no name of letters, digits, _ and -",
                       path, n + 1);
    bool clash = wn_recipe_find(r->name) != NULL;
    for (int i = 0; i < n; i++) clash |= !strcmp(before[i]->name, r->name);
    if (clash)
        return wn_fail(err, WN_EINVAL, "%s: there is a recipe \"%s\" already", path, r->name);
    if ((fault = fault_of_recipe(r)))
        return wn_fail(err, WN_EFORMAT, "%s: recipe \"%s\": %s", path, r->name, fault);
    for (int i = 0; i < r->n_params; i++)
        if ((fault = fault_of_param(r, i)))
            return wn_fail(err, WN_EFORMAT, "%s: recipe \"%s\": parameter %d: %s", path, r->name,
                           i + 1, fault);
    return WN_OK;
}

/* Its own budget is text of the grammar, known to be good only when it was read once. */
static wn_status check_budget(const char *path, const wn_recipe *r, wn_err *err)
{
    wn_policy p;
    wn_status st = wn_policy_parse(&p, r->name, err);
    return st ? wn_fail_prefix(err, st, "%s: recipe \"%s\"", path, r->name) : WN_OK;
}

wn_status wn_plugin_add(const char *path, const wn_policy_plugin *g, wn_err *err)
{
    int n = 0, had = n_loaded;
    wn_status st;
    if (g->version != WN_POLICY_VERSION)
        return wn_fail(err, WN_EUNSUPPORTED,
                       "%s: made for version %d of winnow_policy.h, this program has version %d: "
                       "compile it again",
                       path, g->version, WN_POLICY_VERSION);
    if (!g->recipes || !g->recipes[0])
        return wn_fail(err, WN_EFORMAT, "%s: it has no recipes", path);
    for (; g->recipes[n]; n++) {
        if (had + n == MAX_LOADED)
            return wn_fail(err, WN_ELIMIT, "%s: more than %d recipes from libraries", path,
                           MAX_LOADED);
        if ((st = check(path, g->recipes[n], g->recipes, n, err))) return st;
    }
    for (int i = 0; i < n; i++) loaded[n_loaded++] = g->recipes[i];
    for (int i = 0; i < n; i++)
        if ((st = check_budget(path, g->recipes[i], err))) {
            n_loaded = had;
            return st;
        }
    return WN_OK;
}

wn_status wn_policy_load(const char *path, wn_err *err)
{
    char here[4096];
    /* Without a slash the name would be looked for where the system's libraries are. */
    snprintf(here, sizeof here, "%s%s", strchr(path, '/') ? "" : "./", path);
    void *lib = dlopen(here, RTLD_NOW | RTLD_LOCAL);
    if (!lib) return wn_fail(err, WN_EIO, "policy library %.200s", dlerror());
    const wn_policy_plugin *g = dlsym(lib, "winnow_policy_plugin");
    wn_status st = g ? wn_plugin_add(path, g, err)
                     : wn_fail(err, WN_EFORMAT,
                               "%s: not a policy library: it has no symbol winnow_policy_plugin",
                               path);
    if (st) dlclose(lib);
    return st;
}
