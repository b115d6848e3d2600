/* tests/support/path.c - where tests put their temporary files. A file of its own, because tests
 * have names that unistd.h has too. */
#include "tests/unit/check.h"

#include <unistd.h>

const char *test_path(char *path, size_t size, const char *name)
{
    const char *dir = getenv("TMPDIR");
    int n = snprintf(path, size, "%s/winnow-test-%ld-%s", dir ? dir : "/tmp", (long)getpid(), name);
    if (n < 0 || (size_t)n >= size) fail_msg("the path of %s is too long: set TMPDIR", name);
    return path;
}
