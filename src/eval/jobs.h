/* eval/jobs.h - independent pieces of work, spread over workers and kept over interruptions.
 *
 * A job yields a fixed number of doubles that depend on the job alone. Results are stored by
 * job, so whoever reduces them in order gets the same figures from any number of workers.
 * A job may have parts (the rows of an evaluation) that share what the job sets up and are
 * finished one by one. With a journal, each finished part is one line of text (doubles in
 * hexadecimal, exact); the same work started again takes them from there, and so does other
 * work with some of the same parts.
 *
 *     winnow-eval 2 <key>            key: everything the results of all parts depend on
 *     <part> <job id> <n> <value> ...
 */
#ifndef WN_EVAL_JOBS_H
#define WN_EVAL_JOBS_H

#include "base/err.h"

typedef struct {
    char id[64];
    size_t n;                           /* doubles of a part */
    const char *const *parts; int n_parts;  /* their names; 0: one, whose name is "-" */
    double *values;                     /* (parts, n), the caller's */
    bool *had;                          /* (parts) already there, so run leaves them alone; with
                                           parts only */
    bool done;
} wn_job;

typedef struct wn_journal wn_journal;
/* path NULL: *out is NULL, which is fine everywhere. A journal with another key starts anew; one
 * that is kept is refused then, with WN_EINVAL, and never removed. */
wn_status wn_journal_open(wn_journal **out, const char *path, const char *key, bool keep,
                          wn_err *err);
void wn_journal_close(wn_journal *j, bool finished);    /* finished: the file is removed unless it
                                                           is kept */

/* Whom a running job with parts asks what is there already, and tells what it has finished.
 * NULL is a desk that has nothing and wants to hear nothing. */
typedef struct wn_job_desk wn_job_desk;
bool wn_job_part_had(const wn_job_desk *d, int part);
void wn_job_part_done(wn_job_desk *d, int part);        /* once for each that was not had */

typedef struct {
    void *ctx;
    /* A worker's own state; called on its thread. */
    wn_status (*open)(void *ctx, void **worker, wn_err *err);
    void (*close)(void *ctx, void *worker);
    wn_status (*run)(void *ctx, void *worker, int job, double *values, wn_job_desk *desk,
                     wn_err *err);
    void (*progress)(void *ctx, int done, int total);   /* parts; one thread at a time; may be
                                                           NULL */
    int n_workers;
    wn_journal *journal;
} wn_job_opts;

/* Runs what is not done yet; the first failure ends the others. */
wn_status wn_jobs_run(wn_job *jobs, int n, const wn_job_opts *o, wn_err *err);

#endif
