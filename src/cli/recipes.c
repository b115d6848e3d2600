/* cli/recipes.c - `winnow recipes`: what a cache policy can be made of.
 *
 * Everything printed here comes from the tables that decide (recipes, their parameters,
 * stages, formats), so that list, JSON, docs/policies.md and what --kv takes agree. What a
 * recipe observes is what it asks of a view: the window of the last queries, the sums over
 * all of them, rows.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/policy.h"

#include "winnow_policy.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVERY = 512, MAX_PARAMS = 32 };

static const char *class_of(const wn_recipe *r)
{
    static const char *const names[] = { [WN_CLASS_FULL] = "full",
                                         [WN_CLASS_BUDGETED] = "budgeted",
                                         [WN_CLASS_BUDGET_FREE] = "budget-free",
                                         [WN_CLASS_HEAD_SHARE] = "head-share",
                                         [WN_CLASS_PROBE] = "probe" };
    return names[r->kind];
}

static const char *resume_of(const wn_recipe *r)
{
    static const char *const names[] = {
        [WN_RESUME_ANY] = "any", [WN_RESUME_WINDOW] = "window", [WN_RESUME_RECORD] = "record"
    };
    return names[r->resume];
}

static const char *word_of_at(int at)
{
    return at == WN_AT_BOUNDARY ? "boundary" : at == WN_AT_MARK ? "mark" : "both";
}

/* Where it may decide, the default first. */
static const char *at_of(const wn_recipe *r)
{
    if (r->at != (WN_AT_BOUNDARY | WN_AT_MARK)) return word_of_at(r->at);
    return r->at_default == WN_AT_BOUNDARY ? "boundary, mark"
           : r->at_default == WN_AT_MARK   ? "mark, boundary"
                                           : "both";
}

static const char *observes_of(const wn_recipe *r, char buf[96])
{
    double v[MAX_PARAMS] = { 0 };
    for (int i = 0; i < r->n_params && i < MAX_PARAMS; i++) v[i] = r->params[i].initial;
    int w = r->window ? r->window(&(wn_params){ .v = v }) : 0, k = 0;
    if (w) k += snprintf(buf, 96, w == 1 ? "last query" : "last %d queries", w);
    if (r->stats)
        k += snprintf(buf + k, 96 - (size_t)k, "%s%s", k ? ", " : "",
                      r->probe ? "queries of a probe" : "all queries");
    if (r->reads) k += snprintf(buf + k, 96 - (size_t)k, "%s%s", k ? ", " : "", r->reads);
    if (r->wants & WN_WANTS_FLAGS)
        k += snprintf(buf + k, 96 - (size_t)k, "%skinds of tokens", k ? ", " : "");
    if (r->wants & WN_WANTS_OUTPUTS)
        k += snprintf(buf + k, 96 - (size_t)k, "%soutputs of values", k ? ", " : "");
    if (r->wants & WN_WANTS_SPANS)
        k += snprintf(buf + k, 96 - (size_t)k, "%sspans of the text", k ? ", " : "");
    return k ? buf : "nothing";
}

static bool frees(const wn_recipe *r) { return r->kind != WN_CLASS_FULL; }

/* "Li et al., 2024" of a source with a title between quotes; else all of it. */
static const char *short_source(const char *source, char buf[64])
{
    const char *title = strstr(source, ", \""), *year = NULL;
    for (const char *s = title; s && *s; s++)
        if (!strncmp(s, "\", ", 3) && strspn(s + 3, "0123456789") == 4) year = s + 3;
    if (!title || !year) snprintf(buf, 64, "%.40s", source);
    else
        snprintf(buf, 64, "%.*s, %.4s", (int)(title - source > 40 ? 40 : title - source), source,
                 year);
    return buf;
}

/* The word of a parameter, or its number. */
static const char *value_of(const wn_param *a, double v, char buf[64])
{
    const char *w = a->words;
    if (a->kind == WN_PARAM_FORMAT) return a->words;
    if (a->kind != WN_PARAM_WORD) snprintf(buf, 64, a->kind == WN_PARAM_INT ? "%.0f" : "%g", v);
    else {
        for (int i = (int)v; i > 0; i--) w += strcspn(w, "|") + 1;
        snprintf(buf, 64, "%.*s", (int)strcspn(w, "|"), w);
    }
    return buf;
}

/* "1 to 64", or "avg, max". */
static const char *range_of(const wn_param *a, char buf[128])
{
    size_t k = 0;
    if (a->kind == WN_PARAM_FORMAT) return "a format whose slots move";
    if (a->kind != WN_PARAM_WORD)
        snprintf(buf, 128, a->kind == WN_PARAM_INT ? "%.0f to %.0f" : "%g to %g", a->min, a->max);
    for (const char *s = a->kind == WN_PARAM_WORD ? a->words : ""; *s && k < 100; s++)
        k += (size_t)snprintf(buf + k, 128 - k, *s == '|' ? ", " : "%c", *s);
    return buf;
}

/* The parameters that all recipes take have defaults of the recipe's own. */
static wn_param common_of(const wn_recipe *r, int i)
{
    wn_param a = *wn_recipe_common(i);
    if (!strcmp(a.name, "at"))
        a.initial = r->at_default == WN_AT_BOUNDARY ? 0 : r->at_default == WN_AT_MARK ? 1 : 2;
    else if (!strcmp(a.name, "every")) a.initial = r->every ? r->every : EVERY;
    else if (!strcmp(a.name, "first")) a.initial = r->first;
    else if (!strcmp(a.name, "last")) a.initial = r->last;
    return a;
}

/* How much stays when the policy's text has no @. */
static const char *without_budget(const wn_recipe *r, char buf[64])
{
    if (r->kind == WN_CLASS_FULL) return "takes no budget";
    if (r->budget) snprintf(buf, 64, "@%s", r->budget);
    else
        snprintf(buf, 64, "%s",
                 r->score && r->kind == WN_CLASS_BUDGETED ? "everything stays"
                                                          : "its own sizes hold");
    return buf;
}

static const char *example_of(const wn_recipe *r, char buf[96])
{
    char v[64];
    if (r->kind == WN_CLASS_FULL) return r->name;
    if (r->n_params)
        snprintf(buf, 96, "%s(%s=%s)@25%%", r->name, r->params[0].name,
                 value_of(&r->params[0], r->params[0].initial, v));
    else snprintf(buf, 96, "%s@25%%", r->name);
    return buf;
}

/* ---- for people -------------------------------------------------------------------------- */

static void print_params(const char *indent, const wn_param *a)
{
    char v[64], range[128];
    printf("%s%-10s %-8s %-22s %s\n", indent, a->name, value_of(a, a->initial, v),
           range_of(a, range), a->help);
}

static const char *moves_of(const wn_format_info *f)
{
    if (!f->encoded) return "never encoded";
    return f->k_moves && f->v_moves ? "yes" : f->v_moves ? "V only" : f->k_moves ? "K only" : "no";
}

static void print_stages(void)
{
    puts("Stages take the place of what a recipe that scores does by itself: "
         "snapkv+alloc:ada+recover:nearest@25%");
    for (int i = 0; wn_stage_at(i); i++) {
        const wn_stage *g = wn_stage_at(i);
        printf("  +%s:%-*s %s%s\n", wn_stage_kind_name((int)g->kind),
               g->kind == WN_STAGE_ALLOC    ? 12
               : g->kind == WN_STAGE_RETAIN ? 11
                                            : 10,
               g->name, g->about,
               g->window    ? " Needs the last queries."
               : g->mass    ? " Needs all queries."
               : g->profile ? " Needs the model's profile."
                            : "");
        for (int j = 0; j < g->n_params; j++) print_params("                     ", &g->params[j]);
    }
    wn_format_info f;
    puts("\nCache formats (k=, v=, kv=; of some layers and heads: k[0,-1]=, v[2:0..1]=; lag= keeps "
         "more pages raw)\n"
         "  name    bits of K, V    bytes of a token and head, K + V, 64 and 128 channels   once "
         "encoded, slots move");
    for (int i = 0; wn_recipe_format_info(i, &f); i++)
        printf("  %-7s %5.2f %5.2f %12.1f + %-5.1f %12.1f + %-5.1f %14s%s\n", f.name,
               f.k_bytes[1] / 16, f.v_bytes[1] / 16, f.k_bytes[0], f.v_bytes[0], f.k_bytes[1],
               f.v_bytes[1], "", moves_of(&f));
}

static void print_table(void)
{
    char obs[96], src[64];
    printf("%-11s %-10s %-11s %-15s %-29s %-7s %-8s %-6s %-38s %s\n", "name", "family", "class",
           "decides at", "observes", "resume", "trained", "frees", "source", "cost");
    for (int i = 0; wn_recipe_at(i); i++) {
        const wn_recipe *r = wn_recipe_at(i);
        printf("%-11s %-10s %-11s %-15s %-29s %-7s %-8s %-6s %-38s %s\n", r->name, r->family,
               class_of(r), at_of(r), observes_of(r, obs), resume_of(r), "no",
               frees(r) ? "yes" : "no", short_source(r->source, src), r->cost);
    }
    puts("\nfrees: are bytes given back? trained: is something learnt needed? resume: where a "
         "cached prefix can be used again.\n");
    print_stages();
    puts("\nwinnow recipes NAME says everything about one; docs/policies.md explains budgets, "
         "decisions and the grammar.");
}

static void print_one(const wn_recipe *r)
{
    char obs[96], ex[96], own[64];
    printf("%s (%s, %s)\n\n  %s\n\n", r->name, r->family, class_of(r), r->about);
    printf("  source       %s\n  differs      %s\n  cost         %s\n", r->source,
           r->differs ? r->differs : "nothing known", r->cost);
    printf("  decides at   %s\n  observes     %s\n  resume       %s\n  trained      no\n  frees    "
           "    %s\n",
           at_of(r), observes_of(r, obs), resume_of(r), frees(r) ? "yes" : "no");
    printf("  without @    %s\n", without_budget(r, own));
    printf("  stages       %s\n\n  %-10s %-8s %-22s\n",
           r->score ? "takes +alloc, +retain and +recover" : "none: it makes whole plans",
           "parameter", "default", "range");
    for (int i = 0; i < r->n_params; i++) print_params("  ", &r->params[i]);
    for (int i = 0; wn_recipe_common(i); i++) {
        wn_param a = common_of(r, i);
        print_params("  ", &a);
    }
    printf("\nexample: winnow run -m MODEL -f text.txt --kv '%s'\n", example_of(r, ex));
}

/* ---- for docs/policies.md ------------------------------------------------------------------- */

static void markdown_params(const wn_param *a, int n)
{
    char v[64], range[128];
    if (n) puts("\n| parameter | default | range | |\n| --- | --- | --- | --- |");
    for (int i = 0; i < n; i++)
        printf("| `%s` | %s | %s | %s |\n", a[i].name, value_of(&a[i], a[i].initial, v),
               range_of(&a[i], range), a[i].help);
}

static void markdown_recipe(const wn_recipe *r)
{
    char obs[96], own[64];
    printf("\n### %s\n\n%s Cost: %s.", r->name, r->about, r->cost);
    if (r->differs) printf(" Differs from the paper: %s.", r->differs);
    printf("\n\nFamily %s, class %s; observes %s; decides at %s, `every` %d", r->family,
           class_of(r), observes_of(r, obs), at_of(r), r->every ? r->every : EVERY);
    if (r->first > 0) printf(", `first` %g", r->first);
    if (r->last > 0) printf(", `last` %g", r->last);
    printf("; without a budget: %s.\n", without_budget(r, own));
    if (strcmp(r->source, "-")) printf("\nSource: %s.\n", r->source);
    markdown_params(r->params, r->n_params);
}

static void print_markdown(void)
{
    puts("## Recipes");
    for (int i = 0; wn_recipe_at(i); i++) markdown_recipe(wn_recipe_at(i));
    puts("\n## Parameters of every recipe\n\nDefaults are the recipe's own.\n\n| parameter | range "
         "| |\n| --- | --- | --- |");
    for (int i = 0; wn_recipe_common(i); i++) {
        char range[128];
        printf("| `%s` | %s | %s |\n", wn_recipe_common(i)->name,
               range_of(wn_recipe_common(i), range), wn_recipe_common(i)->help);
    }
    puts("\n## Stages");
    for (int i = 0; wn_stage_at(i); i++) {
        const wn_stage *g = wn_stage_at(i);
        printf("\n### +%s:%s\n\n%s", wn_stage_kind_name((int)g->kind), g->name, g->about);
        if (g->differs) printf(" Differs from the paper: %s.", g->differs);
        if (g->window || g->mass)
            printf(" Goes with recipes that observe %s.",
                   g->window ? "the last queries" : "all queries");
        if (g->profile) printf(" Needs the model's profile (docs/profiles.md).");
        if (strcmp(g->source, "-")) printf("\n\nSource: %s.", g->source);
        putchar('\n');
        markdown_params(g->params, g->n_params);
    }
    wn_format_info f;
    puts("\n## Formats of `k=` and `v=`\n\nBytes of a token and head, everything counted; bits of "
         "a value at 128 channels. Slots that move keep "
         "their codes;\nof those that do not, pages wait for a decision.\n\n"
         "| format | K, V at 64 | at 128 | bits | lag | once encoded, slots move |\n| --- | ---: | "
         "---: | ---: | ---: | --- |");
    for (int i = 0; wn_recipe_format_info(i, &f); i++)
        printf("| `%s` | %.1f, %.1f | %.1f, %.1f | %.2f, %.2f | %d | %s |\n", f.name, f.k_bytes[0],
               f.v_bytes[0], f.k_bytes[1], f.v_bytes[1], f.k_bytes[1] / 16, f.v_bytes[1] / 16,
               f.lag, moves_of(&f));
}

/* ---- for programs ------------------------------------------------------------------------- */

static json_t *params_json(const wn_param *a, int n)
{
    static const char *const kinds[] = { [WN_PARAM_INT] = "int",
                                         [WN_PARAM_FLOAT] = "float",
                                         [WN_PARAM_WORD] = "word",
                                         [WN_PARAM_FORMAT] = "format" };
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        char v[64];
        bool word = a[i].kind == WN_PARAM_WORD || a[i].kind == WN_PARAM_FORMAT;
        json_t *j = json_pack("{s:s, s:s, s:s}", "name", a[i].name, "kind", kinds[a[i].kind],
                              "help", a[i].help);
        json_object_set_new(j, "default",
                            word ? json_string(value_of(&a[i], a[i].initial, v))
                                 : json_real(a[i].initial));
        if (word) json_object_set_new(j, "words", json_string(a[i].words));
        else
            json_object_set_new(j, "min", json_real(a[i].min)),
                json_object_set_new(j, "max", json_real(a[i].max));
        json_array_append_new(list, j);
    }
    return list;
}

static json_t *recipe_json(const wn_recipe *r)
{
    char obs[96];
    json_t *own = params_json(r->params, r->n_params);
    for (int i = 0; wn_recipe_common(i); i++) {
        wn_param a = common_of(r, i);
        json_t *one = params_json(&a, 1);
        json_array_extend(own, one);
        json_decref(one);
    }
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:s, s:s, s:s?, s:s?, s:o}",
        "name", r->name, "family", r->family, "class", class_of(r), "at", word_of_at(r->at),
        "at_default", word_of_at(r->at_default), "observes", observes_of(r, obs), "resume",
        resume_of(r), "cost", r->cost, "trained", 0, "frees_memory", frees(r), "takes_stages",
        r->score != NULL, "source", r->source, "about", r->about, "differs", r->differs, "budget",
        r->budget, "params", own);
}

static json_t *all_json(void)
{
    wn_format_info f;
    json_t *recipes = json_array(), *stages = json_array(), *formats = json_array();
    for (int i = 0; wn_recipe_at(i); i++)
        json_array_append_new(recipes, recipe_json(wn_recipe_at(i)));
    for (int i = 0; wn_stage_at(i); i++) {
        const wn_stage *g = wn_stage_at(i);
        json_array_append_new(stages,
                              json_pack("{s:s, s:s, s:s, s:s, s:s?, s:b, s:b, s:b, s:o}", "stage",
                                        wn_stage_kind_name((int)g->kind), "name", g->name, "source",
                                        g->source, "about", g->about, "differs", g->differs,
                                        "needs_last_queries", g->window, "needs_all_queries",
                                        g->mass, "needs_profile", g->profile != 0, "params",
                                        params_json(g->params, g->n_params)));
    }
    for (int i = 0; wn_recipe_format_info(i, &f); i++)
        json_array_append_new(formats,
                              json_pack("{s:s, s:b, s:i, s:b, s:b, s:[f,f], s:[f,f]}", "name",
                                        f.name, "encoded", f.encoded, "lag", f.lag, "k_moves",
                                        f.k_moves, "v_moves", f.v_moves, "k_bytes", f.k_bytes[0],
                                        f.k_bytes[1], "v_bytes", f.v_bytes[0], f.v_bytes[1]));
    return json_pack("{s:o, s:o, s:o}", "recipes", recipes, "stages", stages, "formats", formats);
}

static int print_json(json_t *j)
{
    char *text = j ? json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(10)) : NULL;
    json_decref(j);
    if (!text) {
        fputs("winnow recipes: the JSON could not be made\n", stderr);
        return WN_EXIT_FAILED;
    }
    puts(text);
    free(text);
    return WN_EXIT_OK;
}

const wn_help_page wn_cli_recipes_page = {
    .command = "recipes",
    .summary = "what a cache policy can be made of",
    .usage = "[NAME] [options]",
    .about = "Lists what --kv can name: recipes, stages, cache formats; or says everything about "
             "one recipe.",
    .examples = "winnow recipes snapkv",
};

int wn_cli_recipes(int argc, char **argv)
{
    const char *lib = NULL, *word;
    bool json = false, markdown = false, names = false;
    const wn_arg table[] = {
        { 0, "json", WN_ARG_FLAG, &json, NULL, "JSON instead of a table", 0, 0, 0 },
        { 0, "markdown", WN_ARG_FLAG, &markdown, NULL,
          "the part of docs/policies.md that is made from the tables", 0, 0, 0 },
        { 0, "names", WN_ARG_FLAG, &names, NULL, "names of recipes alone, one a line", 0, 0, 0 },
        { 0, "policy-lib", WN_ARG_STRING, &lib, "FILE", WN_CLI_POLICY_LIB_HELP, 0, 0, 0 },
    };
    int rc;
    if (!wn_cli_parse(&wn_cli_recipes_page, table, (int)(sizeof table / sizeof *table), argc,
                      argv, &word, &rc))
        return rc;
    if ((rc = wn_cli_policy("recipes", lib, NULL))) return rc;
    const wn_recipe *one = word ? wn_recipe_find(word) : NULL;
    if (word && !one) {
        fprintf(stderr, "winnow recipes: there is no recipe \"%.40s\"; there are", word);
        for (int i = 0; wn_recipe_at(i); i++)
            fprintf(stderr, "%s %s", i ? "," : "", wn_recipe_at(i)->name);
        fputc('\n', stderr);
        return WN_EXIT_USAGE;
    }
    if (json) return print_json(one ? recipe_json(one) : all_json());
    for (int i = 0; names && wn_recipe_at(i); i++) puts(wn_recipe_at(i)->name);
    if (names) return WN_EXIT_OK;
    if (markdown) print_markdown();
    else if (one) print_one(one);
    else print_table();
    return WN_EXIT_OK;
}
