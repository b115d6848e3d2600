/* cli/help.h - what a command is, said once: for --help, its man page, and completion.
 *
 *     winnow run --help            for a terminal
 *     winnow run --help=man        roff, section 1 (make install writes winnow-run.1 with it)
 *     winnow run --help=options    for shells, an option a line: long name, short name, value, help, with tabs
 *                                  between them; of winnow itself the commands
 */
#ifndef WN_CLI_HELP_H
#define WN_CLI_HELP_H

#include "cli/args.h"

typedef struct {
    const char *command;        /* "run"; NULL: winnow itself */
    const char *summary;        /* half a sentence, as in the list of commands */
    const char *usage;          /* what follows "winnow run "; a form a line */
    const char *about;          /* paragraphs, cut into lines; lines that begin with two spaces stay
                                   as they are */
    const char *examples;       /* command lines; or NULL */
    const char *rows_title;     /* a list behind the options: "Tasks"; NULL: none */
    const char *(*row)(int i, const char **about);      /* its i-th name; NULL past the last */
} wn_help_page;

void wn_help(const wn_help_page *page, const wn_arg *table, int n);

/* Reads the command line of a command that takes one word at most (*word is NULL without it), and
 * answers --help. False: that was all, or something is wrong and was said; *rc is the exit
 * status. */
bool wn_cli_parse(const wn_help_page *page, const wn_arg *table, int n, int argc, char **argv,
                  const char **word, int *rc);

#endif
