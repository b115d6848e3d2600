/* cli/long.h - commands that work for minutes: progress on a terminal, a journal that is found
 * again, an interruption that leaves it whole, and how long things took. */
#ifndef WN_CLI_LONG_H
#define WN_CLI_LONG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

double wn_cli_now(void);                /* seconds, from any point on; for progress and rates */

typedef struct {
    bool show;                          /* stderr is a terminal and nobody asked for quiet */
    const char *what;
    uint64_t start_us;
    int first;
} wn_cli_progress;

/* "what: done of total, n s left" on one line of stderr; ctx is a wn_cli_progress. */
void wn_cli_on_progress(void *ctx, const char *what, int done, int total);

/* The journal's place in the cache directory: one per command line, so that the same command
 * finds it again. */
void wn_cli_journal_path(char *buf, size_t n, const char *command, int argc, char **argv);

/* Set by the first interrupt from now on (SIGINT). */
const volatile int *wn_cli_catch_interrupt(void);
/* If there was one, that on stderr, and where a journal is kept (else NULL) how to go on. */
bool wn_cli_say_interrupted(const char *command, const char *journal);

#endif
