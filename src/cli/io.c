/* cli/io.c - see io.h. Input may be a pipe, so its length is not known before its end. */
#include "cli/io.h"

#include "base/alloc.h"

#include <errno.h>
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
