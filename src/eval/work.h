/* eval/work.h - what the jobs of an evaluation share: model, rows, options, journal. */
#ifndef WN_EVAL_WORK_H
#define WN_EVAL_WORK_H

#include "eval/jobs.h"
#include "eval/lab.h"
#include "eval/text.h"

typedef struct {
    wn_model *m;
    const wn_eval_opts *o;
    wn_journal *journal;
    wn_lab_row *rows; int n_rows;       /* rows[0]: the full cache */
    const wn_calibration *calibration;  /* lent to the labs; NULL: each finds its own */
    int every, probe;                   /* the longest stretch between decisions, and the longest
                                           probe, of any row */
    int n_workers, threads_each;
    const char *what;                   /* for progress */
} wn_eval_work;

typedef struct {
    const wn_task *task;
    int length;
    int seed;                           /* 0 .. n_seeds - 1; with the run's seed and the task, its
                                           own draw */
    int n_seeds;
} wn_case_id;

/* How n threads are best used: n_workers and threads_each. */
void wn_eval_workers(wn_eval_work *w, int n_threads);
/* Tokens of a text as the model w->m counts them: a wn_count_tokens (eval/task.h), its ctx the
 * model. */
size_t wn_eval_count_tokens(void *model, const char *text, size_t n_bytes);

/* Depths of a task's cases, spread evenly over (0, 1). */
static inline double wn_eval_depth(int seed, int n_seeds) { return (seed + 0.5) / n_seeds; }

/* Tokens a lab needs for cases of this length: answers and further turns included. */
int wn_eval_lab_ctx(const wn_model *m, int length);
/* Makes a case whose turns fit into the lab, and asks all rows in [0, n_rows). */
wn_status wn_eval_case(const wn_eval_work *w, const wn_lab *lab, const wn_case_id *id, int n_rows,
                       const bool ask[WN_ASK_MODES], wn_job_desk *desk, double *scores,
                       wn_err *err);
/* Runs jobs with labs of n_ctx tokens. */
typedef wn_status wn_eval_job_fn(wn_eval_work *w, const wn_lab *lab, void *ctx, int job,
                                 double *values, wn_job_desk *desk, wn_err *err);
wn_status wn_eval_jobs(wn_eval_work *w, int n_ctx, wn_job *jobs, int n, wn_eval_job_fn *fn,
                       void *ctx, wn_err *err);

#endif
