/* cli/long.c - see long.h. */
#include "cli/long.h"

#include "base/os.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

double wn_cli_now(void) { return (double)wn_os_now_us() * 1e-6; }

static volatile int stop;
static void on_interrupt(int sig)
{
    (void)sig;
    stop = 1;
}

const volatile int *wn_cli_catch_interrupt(void)
{
    signal(SIGINT, on_interrupt);
    return &stop;
}

bool wn_cli_say_interrupted(const char *command, const char *journal)
{
    if (stop)
        fprintf(stderr, "\nwinnow %s: interrupted%s\n", command,
                journal ? "; the same command goes on where it stopped" : "");
    return stop;
}

void wn_cli_on_progress(void *ctx, const char *what, int done, int total)
{
    wn_cli_progress *p = ctx;
    if (!p->show) return;
    if (p->what != what || done < p->first) {
        p->what = what;
        p->start_us = wn_os_now_us();
        p->first = done;
    }
    double t = (double)(wn_os_now_us() - p->start_us) * 1e-6;
    int made = done - p->first;
    fprintf(stderr, "\r%s: %d of %d", what, done, total);
    if (made > 0) fprintf(stderr, ", %.0f s left   ", t / made * (total - done));
    else fputs("              ", stderr);
    if (done == total) fputs("\r\033[K", stderr);
    fflush(stderr);
}

void wn_cli_journal_path(char *buf, size_t n, const char *command, int argc, char **argv)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    uint64_t h = UINT64_C(14695981039346656037);
    for (int i = 1; i < argc; i++)
        for (const char *c = argv[i];; c++) {
            h = (h ^ (uint64_t)(unsigned char)*c) * UINT64_C(1099511628211);
            if (!*c) break;
        }
    if (cache && *cache) snprintf(buf, n, "%s/winnow", cache);
    else snprintf(buf, n, "%s/.cache/winnow", home && *home ? home : "/tmp");
    for (char *p = buf + 1; ; p++) {
        if (*p && *p != '/') continue;
        char was = *p;
        *p = '\0';
        if (mkdir(buf, 0700) && errno != EEXIST) break;
        if (!(*p = was)) break;
    }
    size_t k = strlen(buf);
    snprintf(buf + k, n - k, "/%s-%016llx", command, (unsigned long long)h);
}
