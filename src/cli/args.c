/* cli/args.c - see args.h. */
#include "cli/args.h"
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_GIVEN = 64 };
static const char *given[MAX_GIVEN];
static int n_given;
static wn_help_form form;

wn_help_form wn_args_help_form(void) { return form; }

bool wn_args_is_help(const char *arg)
{
    static const char *const words[] = { [WN_HELP_TEXT] = "--help", [WN_HELP_MAN] = "--help=man",
                                         [WN_HELP_OPTIONS] = "--help=options" };
    for (int i = 0; i < 3; i++)
        if (!strcmp(arg, words[i])) return form = (wn_help_form)i, true;
    return !strcmp(arg, "-h");
}

bool wn_args_given(const char *name)
{
    for (int i = 0; i < n_given; i++)
        if (!strcmp(given[i], name)) return true;
    return false;
}

bool wn_args_bytes(const char *s, size_t *out)
{
    char *end;
    double v = strtod(s, &end);
    static const struct {
        char c;
        int shift;
    } units[] = { { 'k', 10 }, { 'm', 20 }, { 'g', 30 }, { 't', 40 } };
    int shift = 0;
    if (end == s || !(v >= 0)) return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (tolower((unsigned char)*end) == units[i].c) shift = units[i].shift;
    if (shift) end++;
    if (shift && *end == 'i') end++;
    if (*end == 'B' || *end == 'b') end++;
    if (*end || ldexp(v, shift) > 0x1p62) return false;
    *out = (size_t)ldexp(v, shift);
    return true;
}

const char *wn_args_size(double bytes, char buf[32])
{
    static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    int i = 0;
    while (bytes >= 1024 && i < 4) {
        bytes /= 1024;
        i++;
    }
    snprintf(buf, 32, i == 0 ? "%.0f %s" : bytes < 10 ? "%.2f %s" : "%.1f %s", bytes, names[i]);
    return buf;
}

static bool add(wn_arg_list *l, const char *who, const char *v)
{
    if (l->n == l->max) {
        fprintf(stderr, "winnow: %s: given more than %d times\n", who, l->max);
        return false;
    }
    l->items[l->n++] = v;
    return true;
}

/* Returns false after printing why. who is how the user spelled it. */
static bool set(const wn_arg *a, const char *who, const char *v)
{
    char *end;
    double x;
    switch (a->kind) {
    case WN_ARG_FLAG:
        *(bool *)a->to = !(v && (!strcmp(v, "0") || !strcmp(v, "false")));
        return true;
    case WN_ARG_STRING: *(const char **)a->to = v; return true;
    case WN_ARG_LIST: return add(a->to, who, v);
    case WN_ARG_BYTES:
        if (wn_args_bytes(v, a->to)) return true;
        fprintf(stderr, "winnow: %s: \"%.40s\" is not a size; write 512MiB or 4G\n", who, v);
        return false;
    case WN_ARG_INT:
    case WN_ARG_FLOAT:
        errno = 0;
        if (a->kind == WN_ARG_INT) {
            long l = strtol(v, &end, 10);
            x = (double)l;
            if (end != v && !*end && !errno) *(long *)a->to = l;
        } else {
            x = strtod(v, &end);
            if (end != v && !*end) *(double *)a->to = x;
        }
        if (end == v || *end || errno || isnan(x)) {
            fprintf(stderr, "winnow: %s: \"%.40s\" is not a%s number\n", who, v,
                    a->kind == WN_ARG_INT ? " whole" : "");
            return false;
        }
        if ((a->min != 0 || a->max != 0) && (x < a->min || x > a->max)) {
            fprintf(stderr, "winnow: %s: %.40s is not between %g and %g\n", who, v, a->min, a->max);
            return false;
        }
        return true;
    case WN_ARG_HEADING: break;
    }
    return false;
}

static bool from_environment(const wn_arg *table, int n)
{
    for (int i = 0; i < n; i++) {
        char name[64] = "WN_";
        size_t k = 3;
        if (table[i].kind == WN_ARG_HEADING) continue;
        for (const char *p = table[i].name; *p && k < sizeof name - 1; p++)
            name[k++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
        name[k] = '\0';
        const char *v = getenv(name);
        if (v && *v && !set(&table[i], name, v)) return false;
    }
    return true;
}

static const wn_arg *find(const wn_arg *table, int n, const char *arg, const char **value)
{
    *value = NULL;
    for (int i = 0; i < n; i++) {
        const wn_arg *a = &table[i];
        if (a->kind == WN_ARG_HEADING) continue;
        if (arg[1] != '-') {
            if (a->short_name && arg[1] == a->short_name && !arg[2]) return a;
            if (a->alias && a->alias[0] == '-' && !strcmp(arg, a->alias)) return a;     /* "-ctk" */
            continue;
        }
        size_t len = strcspn(arg + 2, "=");
        const char *names[2] = { a->name, a->alias && a->alias[0] != '-' ? a->alias : NULL };
        for (int k = 0; k < 2; k++)
            if (names[k] && strlen(names[k]) == len && !strncmp(arg + 2, names[k], len)) {
                if (arg[2 + len] == '=') *value = arg + 3 + len;
                return a;
            }
    }
    return NULL;
}

int wn_args_parse(const wn_arg *table, int n, int argc, char **argv, const char **rest,
                  int max_rest, int *n_rest, bool *help)
{
    bool only_words = false;
    *n_rest = 0;
    *help = false;
    n_given = 0;
    if (!from_environment(table, n)) return WN_EXIT_USAGE;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *value;
        if (!only_words && !strcmp(arg, "--")) {
            only_words = true;
            continue;
        }
        if (only_words || arg[0] != '-' || !arg[1]) {
            if (*n_rest == max_rest) {
                fprintf(stderr, "winnow %s: \"%.60s\" is one word too many; see winnow %s --help\n",
                        argv[0], arg, argv[0]);
                return WN_EXIT_USAGE;
            }
            rest[(*n_rest)++] = arg;
            continue;
        }
        if (wn_args_is_help(arg)) {
            *help = true;
            return 0;
        }
        const wn_arg *a = find(table, n, arg, &value);
        if (!a) {
            fprintf(stderr, "winnow %s: there is no option %.60s; winnow %s --help lists them\n",
                    argv[0], arg, argv[0]);
            return WN_EXIT_USAGE;
        }
        if (a->kind == WN_ARG_FLAG && value) {
            fprintf(stderr, "winnow %s: --%s takes no value\n", argv[0], a->name);
            return WN_EXIT_USAGE;
        }
        if (a->kind != WN_ARG_FLAG && !value) {
            if (i + 1 == argc) {
                fprintf(stderr, "winnow %s: %s needs a value (%s)\n", argv[0], arg, a->value);
                return WN_EXIT_USAGE;
            }
            value = argv[++i];
        }
        /* not the environment's */
        if (a->kind == WN_ARG_LIST && !wn_args_given(a->name)) ((wn_arg_list *)a->to)->n = 0;
        if (!set(a, arg, value)) return WN_EXIT_USAGE;
        if (n_given < MAX_GIVEN) given[n_given++] = a->name;
    }
    return 0;
}
