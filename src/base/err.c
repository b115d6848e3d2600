/* base/err.c - error sentences. An error is built where the facts are known (the file
 * name, the tensor, the number that does not fit) and travels outwards unchanged; callers
 * that know the larger subject put it in front with wn_fail_prefix(). */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *wn_status_name(wn_status s)
{
    static const char *const names[] = {
        [WN_OK] = "ok",           [WN_EINVAL] = "invalid",  [WN_ENOMEM] = "no memory",
        [WN_EIO] = "i/o",         [WN_EFORMAT] = "format",  [WN_EUNSUPPORTED] = "unsupported",
        [WN_EFULL] = "full",      [WN_ELIMIT] = "limit",
    };
    return (unsigned)s < WN_COUNT(names) ? names[s] : "unknown";
}

/* Names and values in a sentence may come from a stranger's file: no control character
 * gets from there to a terminal. */
static void scrub(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++)
        if (*p < 0x20 || *p == 0x7f) *p = '?';
}

wn_status wn_fail(wn_err *err, wn_status s, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        err->status = s;
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        scrub(err->text);
    }
    return s;
}

wn_status wn_fail_prefix(wn_err *err, wn_status s, const char *fmt, ...)
{
    if (err) {
        char old[sizeof err->text];
        va_list ap;
        int n;
        memcpy(old, err->text, sizeof old);
        va_start(ap, fmt);
        n = vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n + 3 < sizeof err->text) {
            size_t at = (size_t)n, room = sizeof err->text - at - 3, len = strlen(old);
            memcpy(err->text + at, ": ", 2);
            memcpy(err->text + at + 2, old, WN_MIN(len, room));
            err->text[at + 2 + WN_MIN(len, room)] = '\0';
        }
        scrub(err->text);
        err->status = s;
    }
    return s;
}

_Noreturn void wn_assert_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "winnow: internal error: %s does not hold (%s:%d)\n", what, file, line);
    abort();
}
