/* eval/work.c - labs for workers, and cases that fit them; see work.h. */
#include "eval/work.h"

#include "base/alloc.h"
#include "eval/ask.h"

#include <string.h>

enum { TURN_TOKENS = 768 };             /* beside a case's length: later turns and their answers */

int wn_eval_lab_ctx(const wn_model *m, int length)
{
    return WN_MIN(m->hp.n_ctx_train, length + TURN_TOKENS);
}

void wn_eval_workers(wn_eval_work *w, int n_threads)
{
    /* below, a worker per thread beats threads in a step */
    static const size_t SMALL_MODEL = (size_t)256 << 20;
    wn_model_info mi;
    wn_model_get_info(w->m, &mi);
    w->n_workers = mi.step_bytes < SMALL_MODEL ? n_threads : 1;
    w->threads_each = n_threads / w->n_workers;
}

/* ---- cases ----------------------------------------------------------------------------- */

size_t wn_eval_count_tokens(void *model, const char *text, size_t n_bytes)
{
    int32_t *ids;
    size_t n;
    if (wn_tokens_from_text(model, text, n_bytes, WN_PARSE_SPECIAL | WN_NO_BOS, &ids, &n, NULL))
        return 0;
    wn_tokens_free(ids);
    return n;
}

/* Everything that will be fed, answers at their longest. */
static size_t tokens_of(const wn_model *m, const wn_case *c)
{
    void *ctx = (void *)m;
    size_t n = wn_eval_count_tokens(ctx, c->context, strlen(c->context)) + 1, longest = 0;
    for (int i = 0; i < c->n_turns; i++) {
        const wn_turn *t = &c->turns[i];
        size_t turn = wn_eval_count_tokens(ctx, t->ask, strlen(t->ask)) + (size_t)t->max_new +
                      (t->after ? wn_eval_count_tokens(ctx, t->after, strlen(t->after)) : 0);
        if (!c->apart) n += turn;
        else longest = WN_MAX(longest, turn);
    }
    return n + longest;
}

static uint64_t case_seed(const wn_eval_work *w, const wn_case_id *id)
{
    uint64_t h = w->o->seed * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)id->seed + 1;
    for (const char *p = id->task->name; *p; p++)
        h = (h ^ (uint64_t)(unsigned char)*p) * UINT64_C(0x100000001b3);
    return h;
}

wn_status wn_eval_case(const wn_eval_work *w, const wn_lab *lab, const wn_case_id *id, int n_rows,
                       const bool ask[WN_ASK_MODES], wn_job_desk *desk, double *scores, wn_err *err)
{
    wn_case c;
    wn_case_opts o = { .seed = case_seed(w, id), .n_tokens = id->length,
                       .depth = id->task->has_depth ? wn_eval_depth(id->seed, id->n_seeds) : -1,
                       .count = wn_eval_count_tokens, .count_ctx = w->m };
    wn_status st = id->task->make(&c, w->o->phrases, &o, err);
    if (st) return wn_fail_prefix(err, st, "%s", id->task->name);
    size_t need = tokens_of(w->m, &c), have = (size_t)lab->n_ctx;
    if (need > have) {                  /* its later turns do not fit: a shorter context */
        wn_case_release(&c);
        o.n_tokens -= (int)(need - have);
        if ((st = id->task->make(&c, w->o->phrases, &o, err)))
            return wn_fail_prefix(err, st, "%s", id->task->name);
    }
    st = wn_ask_case(lab, w->rows, n_rows, &c, ask, desk, scores, err);
    wn_case_release(&c);
    return st ? wn_fail_prefix(err, st, "%s, seed %d", id->task->name, id->seed) : WN_OK;
}

/* ---- jobs -------------------------------------------------------------------------------- */

typedef struct {
    wn_eval_work *w;
    int n_ctx;
    wn_eval_job_fn *fn;
    void *ctx;
} job_ctx;

static wn_status open_worker(void *ctx, void **worker, wn_err *err)
{
    job_ctx *j = ctx;
    wn_lab *lab = WN_NEW(wn_lab);
    if (!lab) return wn_fail(err, WN_ENOMEM, "eval: out of memory");
    wn_status st = wn_lab_open(lab, j->w->m, j->n_ctx, j->w->every, j->w->probe, j->w->threads_each,
                               j->w->o->mem / (size_t)j->w->n_workers, j->w->o->stop, err);
    if (st) {
        wn_free(lab);
        return st;
    }
    wn_engine_lend_calibration(lab->e, j->w->calibration);
    *worker = lab;
    return st;
}

static void close_worker(void *ctx, void *worker)
{
    (void)ctx;
    wn_lab_close(worker);
    wn_free(worker);
}

static wn_status run_job(void *ctx, void *worker, int job, double *values, wn_job_desk *desk,
                         wn_err *err)
{
    job_ctx *j = ctx;
    return j->fn(j->w, worker, j->ctx, job, values, desk, err);
}

static void job_progress(void *ctx, int done, int total)
{
    const wn_eval_work *w = ((job_ctx *)ctx)->w;
    if (w->o->progress) w->o->progress(w->o->progress_ctx, w->what, done, total);
}

wn_status wn_eval_jobs(wn_eval_work *w, int n_ctx, wn_job *jobs, int n, wn_eval_job_fn *fn,
                       void *ctx, wn_err *err)
{
    job_ctx j = { w, n_ctx, fn, ctx };
    wn_job_opts o = { .ctx = &j, .open = open_worker, .close = close_worker, .run = run_job,
                      .progress = job_progress, .n_workers = w->n_workers, .journal = w->journal };
    return wn_jobs_run(jobs, n, &o, err);
}
