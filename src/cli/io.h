/* cli/io.h - what several commands read, and how they say what is wrong. */
#ifndef WN_CLI_IO_H
#define WN_CLI_IO_H

#include "base/err.h"

/* The whole of a file ("-": standard input), NUL-terminated; n is the length without the
 * NUL. *out is the caller's: wn_free(). */
wn_status wn_cli_read_all(const char *path, char **out, size_t *n, wn_err *err);

/* "winnow COMMAND: sentence" on stderr; one that is longer than two lines (a list of names) is
 * broken between words, others stay in one piece for those who search for them. */
void wn_cli_complain(const char *command, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
