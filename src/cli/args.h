/* cli/args.h - command-line options from a table, so that parsing, the environment twins
 * and --help cannot disagree.
 *
 * An option is given as -x VALUE, --name VALUE or --name=VALUE; flags take no value. Every option
 * has an environment twin, WN_ followed by its long name in capitals with '_' for '-' (--top-k:
 * WN_TOP_K); the command line wins. Only lists may be given more than once and then have a value
 * more each time; other options keep the last. Unknown options, missing or malformed values and
 * numbers outside [min, max] are sentences on stderr and exit status 2.
 */
#ifndef WN_CLI_ARGS_H
#define WN_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    WN_ARG_FLAG,
    WN_ARG_INT,
    WN_ARG_FLOAT,
    WN_ARG_STRING,
    WN_ARG_BYTES,
    WN_ARG_LIST,
    WN_ARG_HEADING
} wn_arg_kind;

typedef struct {
    const char **items;                 /* (max) borrowed */
    int n, max;
} wn_arg_list;

typedef struct {
    char short_name;                    /* 0: none */
    const char *name;                   /* long, without "--"; of a heading: its text */
    wn_arg_kind kind;
    void *to;                           /* bool, long, double, const char *, size_t, wn_arg_list */
    const char *value;                  /* what --help calls the value: "N", "FILE" */
    const char *help;
    double min, max;                    /* numbers; both 0: no bounds */
    const char *alias;                  /* another spelling of the long name, or NULL */
} wn_arg;

/* Fills the targets from the environment and then from argv. Words that are not options
 * go to rest (borrowed, at most max_rest). Returns 0, or prints a sentence and returns
 * WN_EXIT_USAGE; *help is set when -h or --help was given. */
int wn_args_parse(const wn_arg *table, int n, int argc, char **argv, const char **rest,
                  int max_rest, int *n_rest, bool *help);
/* What was asked for: --help, --help=man, --help=options (help.h). */
typedef enum { WN_HELP_TEXT, WN_HELP_MAN, WN_HELP_OPTIONS } wn_help_form;
wn_help_form wn_args_help_form(void);
/* Is this a request for help? Remembers its form. */
bool wn_args_is_help(const char *arg);
bool wn_args_given(const char *name);               /* was this long name set in the last parse? */

/* "1536", "512k", "2MiB", "1.5G": bytes; false when malformed. */
bool wn_args_bytes(const char *s, size_t *out);
/* "3.4 MiB" into buf. */
const char *wn_args_size(double bytes, char buf[32]);

#endif
