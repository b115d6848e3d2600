/* base/err.h - one sentence that says what went wrong, and the assertion that
 * guards what only we can get wrong. */
#ifndef WN_BASE_ERR_H
#define WN_BASE_ERR_H

#include "winnow.h"

/* Fills err (if not NULL) and returns s, so that `return wn_fail(...)` reads well.
 * An err that already holds a failure is overwritten: the outermost caller that has
 * something to add says it. */
wn_status wn_fail(wn_err *err, wn_status s, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the sentence already in err; returns its status. */
wn_status wn_fail_prefix(wn_err *err, wn_status s, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

_Noreturn void wn_assert_failed(const char *what, const char *file, int line);

/* An invariant of ours. Stays on in release builds: keep it out of inner loops. */
#define WN_ASSERT(c) ((c) ? (void)0 : wn_assert_failed(#c, __FILE__, __LINE__))

#define WN_MIN(a, b) ((a) < (b) ? (a) : (b))
#define WN_MAX(a, b) ((a) > (b) ? (a) : (b))
#define WN_COUNT(a) (sizeof(a) / sizeof *(a))

#endif
