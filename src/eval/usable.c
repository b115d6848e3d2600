/* eval/usable.c - see usable.h. A length passes when both tasks reach 90 %. */
#include "eval/usable.h"

#include "base/alloc.h"

#include <stdio.h>

enum { CASES = 10, TASKS = 2 };

typedef struct { int length; const wn_task *tasks[TASKS]; } trial;

static wn_status ask_one(wn_eval_work *w, const wn_lab *lab, void *ctx, int job, double *values,
                         wn_job_desk *desk, wn_err *err)
{
    const trial *t = ctx;
    /* the same thing for a full cache */
    static const bool ask[WN_ASK_MODES] = { [WN_ASK_AWARE] = true };
    double scores[WN_ASK_MODES] = { 0 };
    wn_case_id id = { .task = t->tasks[job / CASES], .length = t->length, .seed = job % CASES,
                      .n_seeds = CASES };
    wn_status st = wn_eval_case(w, lab, &id, 1, ask, NULL, scores, err);
    *values = scores[WN_ASK_AWARE];
    (void)desk;
    return st;
}

static wn_status passes(bool *yes, wn_eval_work *w, trial *t, int length, wn_err *err)
{
    wn_job jobs[CASES * TASKS] = { 0 };
    double values[CASES * TASKS] = { 0 }, sum[TASKS] = { 0 };
    t->length = length;
    for (int i = 0; i < CASES * TASKS; i++) {
        snprintf(jobs[i].id, sizeof jobs[i].id, "usable:%s:%d:%d", t->tasks[i / CASES]->name,
                 length, i % CASES);
        jobs[i].n = 1;
        jobs[i].values = &values[i];
    }
    wn_status st = wn_eval_jobs(w, wn_eval_lab_ctx(w->m, length), jobs, CASES * TASKS, ask_one, t,
                                err);
    for (int i = 0; i < CASES * TASKS; i++) sum[i / CASES] += values[i];
    *yes = sum[0] >= 0.9 * CASES - 1e-9 && sum[1] >= 0.9 * CASES - 1e-9;
    return st;
}

wn_status wn_usable_find(int *length, wn_eval_work *w, int max, wn_err *err)
{
    trial t = { .tasks = { wn_task_find("passkey"), wn_task_find("lookup") } };
    int step = WN_MAX(64, max / 8 / 64 * 64), lo = 0, hi = max / step;
    bool yes;
    wn_status st;
    *length = 0;
    w->what = "usable context";
    if (!t.tasks[0] || !t.tasks[1])
        return wn_fail(err, WN_EINVAL, "there are no passkey and lookup tasks");
    if ((st = passes(&yes, w, &t, hi * step, err))) return st;
    if (yes) lo = hi;
    while (hi - lo > 1) {
        int mid = lo + (hi - lo) / 2;
        if ((st = passes(&yes, w, &t, mid * step, err))) return st;
        if (yes) lo = mid;
        else hi = mid;
    }
    *length = lo * step;
    return WN_OK;
}
