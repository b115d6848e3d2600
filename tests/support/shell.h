/* tests/support/shell.h - commands as a user types them, and what they say. */
#ifndef WN_TESTS_SHELL_H
#define WN_TESTS_SHELL_H

extern char out[1 << 20];               /* of the last command, NUL-terminated */

/* Runs a shell command in the repository's root, its stdout in `out`; returns its exit status, -1
 * when a signal ended it. sh_both: stderr is in `out` too. */
int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int sh_both(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Fails the test unless `out` holds these words. */
void says(const char *what);

#endif
