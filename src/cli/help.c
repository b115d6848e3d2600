/* cli/help.c - see help.h. */
#include "cli/help.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "winnow.h"

enum { HELP_COLUMN = 30, ROW_COLUMN = 14 };

/* ---- for a terminal ------------------------------------------------------------------------ */

/* Text whose further lines begin at a column. */
static void put_indented(const char *s, int column)
{
    for (; *s; s++) {
        putchar(*s);
        if (*s == '\n') printf("%*s", column, "");
    }
    putchar('\n');
}

static void text_option(const wn_arg *a)
{
    char left[96] = "  ";
    if (a->short_name) snprintf(left + 2, sizeof left - 2, "-%c, ", a->short_name);
    else if (a->alias && a->alias[0] == '-') snprintf(left + 2, sizeof left - 2, "%s, ", a->alias);
    size_t k = strlen(left);
    snprintf(left + k, sizeof left - k, "--%s%s%s", a->name, a->value ? " " : "",
             a->value ? a->value : "");
    printf("%-*s", HELP_COLUMN, left);
    if (strlen(left) >= HELP_COLUMN) printf("\n%*s", HELP_COLUMN, "");
    put_indented(a->help, HELP_COLUMN);
}

static void text_page(const wn_help_page *p, const wn_arg *table, int n)
{
    const char *about;
    printf("usage: winnow %s%s", p->command ? p->command : "", p->command ? " " : "");
    for (const char *s = p->usage; *s; s++) {
        putchar(*s);
        if (*s == '\n') printf("       winnow %s ", p->command);
    }
    printf("\n\n%s\n", p->about);
    if (n && table[0].kind != WN_ARG_HEADING) putchar('\n');
    for (int i = 0; i < n; i++)
        if (table[i].kind == WN_ARG_HEADING) printf("\n%s\n", table[i].name);
        else text_option(&table[i]);
    if (p->rows_title) printf("\n%s\n", p->rows_title);
    for (int i = 0; p->rows_title && p->row(i, &about); i++) {
        printf("  %-*s ", ROW_COLUMN, p->row(i, &about));
        put_indented(about, ROW_COLUMN + 3);
    }
    if (p->examples) {
        printf("\nexample: ");
        put_indented(p->examples, 9);
    }
}

/* ---- roff ------------------------------------------------------------------------------------ */

static void roff(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((s[i] == '.' || s[i] == '\'') && (i == 0 || s[i - 1] == '\n')) fputs("\\&", stdout);
        if (s[i] == '\\') fputs("\\e", stdout);
        else if (s[i] == '-') fputs("\\-", stdout);
        else putchar(s[i]);
    }
}

static void roff_all(const char *s) { roff(s, strlen(s)); }

/* Paragraphs; lines that begin with two spaces as they are. */
static void roff_about(const char *s)
{
    bool plain = false;
    while (*s) {
        size_t n = strcspn(s, "\n");
        bool fixed = n > 2 && s[0] == ' ' && s[1] == ' ';
        if (fixed != plain) puts(fixed ? ".PP\n.nf" : ".fi");
        plain = fixed;
        if (n) roff(s, n), putchar('\n');
        else if (!plain) puts(".PP");
        s += n + (s[n] == '\n');
    }
    if (plain) puts(".fi");
}

static void roff_option(const wn_arg *a)
{
    printf(".TP\n");
    if (a->short_name) printf("\\fB\\-%c\\fR, ", a->short_name);
    else if (a->alias && a->alias[0] == '-') printf("\\fB\\-%s\\fR, ", a->alias + 1);
    fputs("\\fB\\-\\-", stdout);
    roff_all(a->name);
    fputs("\\fR", stdout);
    if (a->value) printf(" \\fI%s\\fR", a->value);
    putchar('\n');
    roff_all(a->help);
    putchar('\n');
}

static void roff_page(const wn_help_page *p, const wn_arg *table, int n)
{
    const char *about;
    char title[40] = "WINNOW", name[40] = "winnow";
    if (p->command) {
        snprintf(name, sizeof name, "winnow-%s", p->command);
        for (size_t i = 0; (title[i] = (char)toupper((unsigned char)name[i])); i++);
    }
    printf(".TH %s 1 \"\" \"winnow %s\" \"winnow\"\n.SH NAME\n", title, WN_VERSION);
    roff_all(name);
    fputs(" \\- ", stdout);
    roff_all(p->summary);
    printf("\n.SH SYNOPSIS\n.nf\n");
    for (const char *s = p->usage; *s;) {
        size_t k = strcspn(s, "\n");
        printf("\\fBwinnow%s%s\\fR ", p->command ? " " : "", p->command ? p->command : "");
        roff(s, k);
        putchar('\n');
        s += k + (s[k] == '\n');
    }
    puts(".fi\n.SH DESCRIPTION");
    roff_about(p->about);
    if (n) puts(".SH OPTIONS");
    for (int i = 0; i < n; i++)
        if (table[i].kind == WN_ARG_HEADING) printf(".SS %s\n", table[i].name);
        else roff_option(&table[i]);
    for (int i = 0; p->rows_title && p->row(i, &about); i++) {
        if (!i) printf(".SH ");
        for (const char *t = p->rows_title; !i && *t; t++) putchar(toupper((unsigned char)*t));
        if (!i) putchar('\n');
        printf(".TP\n\\fB");
        roff_all(p->row(i, &about));
        puts("\\fR");
        roff_all(about);
        putchar('\n');
    }
    if (p->examples) {
        puts(".SH EXAMPLES\n.nf");
        roff_all(p->examples);
        puts("\n.fi");
    }
    if (n)
        puts(".SH ENVIRONMENT\nEvery option has a twin: WN_ and its long name in capitals, with _ "
             "for \\-\n"
             "(\\fB\\-\\-top\\-k\\fR: WN_TOP_K). The command line wins.");
    puts(".SH EXIT STATUS\n0 fine, 1 the work failed, 2 the command line is wrong.");
    puts(p->command ? ".SH SEE ALSO\n\\fBwinnow\\fR(1)"
                    : ".SH SEE ALSO\nA page for each command: \\fBwinnow\\-run\\fR(1) and so on.");
}

/* ---- for shells ------------------------------------------------------------------------------ */

static void options(const wn_help_page *p, const wn_arg *table, int n)
{
    const char *about;
    for (int i = 0; !p->command && p->row(i, &about); i++)
        printf("%s\t\t\t%s\n", p->row(i, &about), about);
    for (int i = 0; i < n; i++) {
        const wn_arg *a = &table[i];
        if (a->kind == WN_ARG_HEADING) continue;
        printf("--%s\t", a->name);
        if (a->short_name) printf("-%c", a->short_name);
        else if (a->alias && a->alias[0] == '-') fputs(a->alias, stdout);
        printf("\t%s\t%.*s\n", a->value ? a->value : "", (int)strcspn(a->help, "\n;"), a->help);
    }
}

void wn_help(const wn_help_page *page, const wn_arg *table, int n)
{
    switch (wn_args_help_form()) {
    case WN_HELP_TEXT: text_page(page, table, n); break;
    case WN_HELP_MAN: roff_page(page, table, n); break;
    case WN_HELP_OPTIONS: options(page, table, n); break;
    }
}

bool wn_cli_parse(const wn_help_page *page, const wn_arg *table, int n, int argc, char **argv,
                  const char **word, int *rc)
{
    int n_words;
    bool help;
    *word = NULL;
    *rc = wn_args_parse(table, n, argc, argv, word, 1, &n_words, &help);
    if (*rc) return false;
    if (help) wn_help(page, table, n);
    return !help;
}
