/* cli/io.c - see io.h. Input may be a pipe, so its length is not known before its end; a sentence
 * may list all recipes there are, so it may be longer than a line. */
#include "cli/io.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

wn_status wn_cli_read_all(const char *path, char **out, size_t *n, wn_err *err)
{
    FILE *f = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    size_t cap = 1 << 16, len = 0, k;
    *out = NULL;
    if (!f) return wn_fail(err, WN_EIO, "%s: %s", path, strerror(errno));
    char *buf = wn_alloc(cap + 1);
    while (buf && (k = fread(buf + len, 1, cap - len, f)) > 0) {
        len += k;
        if (len < cap) continue;
        char *more = wn_realloc(buf, 2 * cap + 1);
        if (!more) wn_free(buf);
        buf = more;
        cap *= 2;
    }
    bool bad = ferror(f) != 0;
    if (f != stdin) fclose(f);
    if (!buf) return wn_fail(err, WN_ENOMEM, "%s: out of memory", path);
    if (bad) {
        wn_free(buf);
        return wn_fail(err, WN_EIO, "%s: %s", path, strerror(errno));
    }
    buf[len] = '\0';
    *out = buf;
    *n = len;
    return WN_OK;
}

/* Breaks between words, and nowhere else: a long word has a line of its own. What takes two lines
 * at most is left whole. */
static void print_wrapped(const char *s, int column)
{
    enum { COLUMNS = 100 };
    bool wraps = (size_t)column + strlen(s) > 2 * COLUMNS;
    while (*s) {
        int n = (int)strcspn(s, " "), space = (int)strspn(s + n, " ");
        fprintf(stderr, "%.*s", n, s);
        column += n;
        s += n + space;
        if (!*s) break;
        bool fits = !wraps || column + space + (int)strcspn(s, " ") <= COLUMNS;
        fprintf(stderr, "%*s", fits ? space : 3, fits ? "" : "\n  ");
        column = fits ? column + space : 2;
    }
    fputc('\n', stderr);
}

void wn_cli_complain(const char *command, const char *fmt, ...)
{
    char text[2 * sizeof ((wn_err *)0)->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    print_wrapped(text, fprintf(stderr, "winnow %s: ", command));
}
