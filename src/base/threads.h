/* base/threads.h - a team of threads that does one job at a time.
 *
 * wn_threads_run() cuts a job into numbered parts; each part runs exactly once, on
 * whichever thread is free. What a part computes may depend on its number alone, so
 * that the number of threads changes no result. Between jobs workers spin for a short
 * while (a decode step hands out about a hundred jobs, microseconds apart), then park.
 *
 * The caller's thread takes part, so a team of 1 starts no thread at all.
 */
#ifndef WN_BASE_THREADS_H
#define WN_BASE_THREADS_H

#include "base/err.h"

typedef struct wn_threads wn_threads;
/* part in [0, n_parts); thread in [0, wn_threads_count()) names private scratch. */
typedef void wn_part_fn(void *arg, int part, int thread);

wn_status wn_threads_open(wn_threads **out, int n_threads, wn_err *err);
void wn_threads_close(wn_threads *t);
int wn_threads_count(const wn_threads *t);      /* NULL counts as 1 */

/* Runs all parts and returns when the last is done. t may be NULL: the caller does it
 * alone. Not reentrant: a task must not call it. */
void wn_threads_run(wn_threads *t, wn_part_fn *task, void *arg, int n_parts);

#endif
