/* eval/jobs.h - independent pieces of work, spread over workers and kept over interruptions.
 *
 * A job yields a fixed number of doubles that depend on the job alone. Results are stored by
 * job, so whoever reduces them in order gets the same figures from any number of workers.
 * With a journal, each finished job is one line of text (doubles in hexadecimal, exact);
 * the same work started again takes them from there.
 *
 *     winnow-eval 1 <key>            key: everything the results depend on
 *     <job id> <n> <value> ...
 */
#ifndef WN_EVAL_JOBS_H
#define WN_EVAL_JOBS_H

#include "base/err.h"

typedef struct {
    char id[64];
    size_t n;
    double *values;                     /* (n), the caller's */
    bool done;
} wn_job;

typedef struct wn_journal wn_journal;
/* path NULL: *out is NULL, which is fine everywhere. A journal with another key starts anew. */
wn_status wn_journal_open(wn_journal **out, const char *path, const char *key, wn_err *err);
void wn_journal_close(wn_journal *j, bool finished);    /* finished: the file is removed */

typedef struct {
    void *ctx;
    /* A worker's own state; called on its thread. */
    wn_status (*open)(void *ctx, void **worker, wn_err *err);
    void (*close)(void *ctx, void *worker);
    wn_status (*run)(void *ctx, void *worker, int job, double *values, wn_err *err);
    void (*progress)(void *ctx, int done, int total);   /* one thread at a time; may be NULL */
    int n_workers;
    wn_journal *journal;
} wn_job_opts;

/* Runs what is not done yet; the first failure ends the others. */
wn_status wn_jobs_run(wn_job *jobs, int n, const wn_job_opts *o, wn_err *err);

#endif
