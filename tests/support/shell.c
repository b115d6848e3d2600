/* tests/support/shell.c - see shell.h. */
#include "tests/support/shell.h"

#include "tests/unit/check.h"

#include <sys/wait.h>

char out[1 << 20];

static int run(const char *fmt, va_list ap, const char *before, const char *after)
{
    char cmd[2048], whole[2100];
    assert_true((size_t)vsnprintf(cmd, sizeof cmd, fmt, ap) < sizeof cmd);
    snprintf(whole, sizeof whole, "%s%s%s", before, cmd, after);
    FILE *p = popen(whole, "r");
    assert_non_null(p);
    out[fread(out, 1, sizeof out - 1, p)] = '\0';
    int st = pclose(p);
    return WIFEXITED(st) ? WEXITSTATUS(st) : -1;
}

int sh(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int st = run(fmt, ap, "", "");
    va_end(ap);
    return st;
}

int sh_both(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int st = run(fmt, ap, "{ ", "; } 2>&1");
    va_end(ap);
    return st;
}

void says(const char *what)
{
    if (!strstr(out, what)) fail_msg("does not say \"%s\":\n%.2000s", what, out);
}
