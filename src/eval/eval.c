/* eval/eval.c - from rows and options to a report: what jobs there are, and what their
 * numbers add up to. */
#include "eval/eval.h"

#include "base/alloc.h"
#include "base/os.h"
#include "eval/ask.h"
#include "eval/stats.h"
#include "eval/usable.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum {
    DEFAULT_CHUNKS = 4,
    DEFAULT_SEEDS = 8,
    USABLE_MAX = 8192,
    CONTEXT_IF_NONE = 1024,
    SPEED_TOKENS = 32,
    ROW_NAME = WN_SPEC_BYTES + WN_PROFILE_ID + WN_CALIBRATION_ID + 16
};

typedef struct {
    wn_eval_work w;
    wn_eval_report *report;
    int32_t *ids; size_t n_ids;         /* of the text */
    wn_profile *profile;                /* for rows that bring none of their own; NULL: nobody needs
                                           it */
    wn_calibration *calibration;        /* for rows whose formats go by it; NULL: none does */
    int n_chunks, n_seeds, n_tasks, n_lengths;
    int cells;                          /* cases of a task: lengths times seeds */
    const int *lengths;
    wn_text_shape shape;
    wn_job *jobs; int n_jobs;
    double *values;
    char (*names)[ROW_NAME]; const char **parts;    /* (n_rows) the rows in the journal */
    bool *had;                          /* (n_jobs, n_rows) */
} study;

/* ---- what is studied ---------------------------------------------------------------------- */

static wn_status make_rows(study *s, const wn_eval_opts *o, wn_err *err)
{
    wn_eval_row none = { .kv = "none" };
    wn_status st;
    s->w.n_rows = o->n_rows + 1;
    if (!(s->w.rows = WN_NEW_ARRAY(wn_lab_row, s->w.n_rows)))
        return wn_fail(err, WN_ENOMEM, "eval: out of memory");
    s->w.every = WN_EVERY_DEFAULT;
    for (int r = 0; r < s->w.n_rows; r++) {
        if ((st = wn_lab_row_init(&s->w.rows[r], r ? &o->rows[r - 1] : &none, err))) return st;
        s->w.every = WN_MAX(s->w.every, s->w.rows[r].every);
        s->w.probe = WN_MAX(s->w.probe, s->w.rows[r].probe);
    }
    return WN_OK;
}

/* One reading for all rows and workers; what it says is part of what the figures depend on. */
static wn_status find_profiles(study *s, const wn_eval_opts *o, wn_err *err)
{
    for (int r = 0; r < s->w.n_rows; r++) {
        wn_lab_row *row = &s->w.rows[r];
        if (!row->profile || row->row.profile) continue;
        wn_status st = s->profile ? WN_OK
                                  : wn_engine_read_profile(&s->profile, s->w.m, o->profile, err);
        if (st) return wn_fail_prefix(err, st, "%.100s goes by a profile of the model", row->kv);
        row->row.profile = s->profile;
    }
    return WN_OK;
}

/* Likewise the calibration, for all engines. */
static wn_status find_calibration(study *s, const wn_eval_opts *o, wn_err *err)
{
    for (int r = 0; r < s->w.n_rows && !s->calibration; r++) {
        const wn_lab_row *row = &s->w.rows[r];
        if (!row->calibrated) continue;
        wn_status st = wn_engine_read_calibration(&s->calibration, s->w.m, o->calibration,
                                                  row->calibrated, err);
        if (st) return st;
    }
    s->w.calibration = s->calibration;
    return WN_OK;
}

static wn_status read_text(study *s, const wn_eval_opts *o, wn_err *err)
{
    const char *text = o->text;
    size_t n = o->n_text;
    if (!text) text = wn_phrases_haystack(o->phrases, &n);
    return wn_tokens_from_text(s->w.m, text, n, 0, &s->ids, &s->n_ids, err);
}

/* A name for everything that the figures of all rows depend on; the rest is in the names of rows
 * and jobs. */
static void make_key(const study *s, const wn_eval_opts *o, char key[40])
{
    XXH3_state_t *x = XXH3_createState();
    uint8_t fp[16];
    XXH3_64bits_reset(x);
    wn_model_fingerprint(s->w.m, NULL, fp);
    XXH3_64bits_update(x, fp, sizeof fp);
    XXH3_64bits_update(x, wn_kernels_get()->numerics, strlen(wn_kernels_get()->numerics));
    XXH3_64bits_update(x, &o->seed, sizeof o->seed);
    XXH3_64bits_update(x, s->ids, s->n_ids * sizeof *s->ids);
    if (o->label) XXH3_64bits_update(x, o->label, strlen(o->label));
    snprintf(key, 40, "%016llx", (unsigned long long)XXH3_64bits_digest(x));
    XXH3_freeState(x);
}

/* ---- jobs ----------------------------------------------------------------------------------- */

/* A row's name is its policy with every parameter, and the profile and the calibration it goes
 * by. */
static wn_status name_rows(study *s, wn_err *err)
{
    s->names = wn_calloc((size_t)s->w.n_rows, sizeof *s->names);
    s->parts = WN_NEW_ARRAY(const char *, s->w.n_rows);
    if (!s->names || !s->parts) return wn_fail(err, WN_ENOMEM, "eval: out of memory");
    for (int r = 0; r < s->w.n_rows; r++) {
        const wn_lab_row *row = &s->w.rows[r];
        /* tests: a name says nothing */
        if (row->row.decide) snprintf(s->names[r], ROW_NAME, "%s#row%d", row->kv, r);
        else if (row->profile)
            snprintf(s->names[r], ROW_NAME, "%s#%s", row->kv, row->row.profile->id);
        else snprintf(s->names[r], ROW_NAME, "%s", row->kv);
        size_t n = strlen(s->names[r]);
        if (row->calibrated) snprintf(s->names[r] + n, ROW_NAME - n, "#%s", s->calibration->id);
        s->parts[r] = s->names[r];
    }
    return WN_OK;
}

/* What a job is of, and all that its figures depend on beside the key. */
static void name_job(const study *s, const wn_eval_opts *o, int i, wn_job *j)
{
    int k = i - s->n_chunks, c = k - s->n_tasks * s->cells, context = s->report->context;
    const char *asked = !o->ask[WN_ASK_AWARE]      ? "after"
                        : !o->ask[WN_ASK_AGNOSTIC] ? "before"
                                                   : "both";
    if (k < 0) snprintf(j->id, sizeof j->id, "text:%d:%d", context, i);
    else if (c < 0) {
        const wn_task *t = o->tasks[k / s->cells];
        char of[16] = "";               /* the other cases say how deep the fact of this one lies */
        if (t->has_depth) snprintf(of, sizeof of, "/%d", s->n_seeds);
        snprintf(j->id, sizeof j->id, "%s:%d/%d:%d%s:%s", t->name,
                 s->lengths[k % s->cells / s->n_seeds], context, k % s->n_seeds, of, asked);
    }
    else snprintf(j->id, sizeof j->id, "choice:%d/%d:%s", c, o->n_choices, asked);
}

/* Text chunks first: they are the longest. */
static wn_status make_jobs(study *s, const wn_eval_opts *o, wn_err *err)
{
    size_t total = 0, rows = (size_t)s->w.n_rows;
    s->n_jobs = s->n_chunks + s->n_tasks * s->cells + o->n_choices;
    s->jobs = WN_NEW_ARRAY(wn_job, s->n_jobs + 1);
    s->had = wn_calloc((size_t)s->n_jobs + 1, rows);
    if (!s->jobs || !s->had) return wn_fail(err, WN_ENOMEM, "eval: out of memory");
    for (int i = 0; i < s->n_jobs; i++) {
        wn_job *j = &s->jobs[i];
        name_job(s, o, i, j);
        j->n = i < s->n_chunks ? s->shape.row_values : (size_t)WN_ASK_MODES;
        j->parts = s->parts;
        j->n_parts = s->w.n_rows;
        j->had = s->had + (size_t)i * rows;
        total += j->n * rows;
    }
    if (!(s->values = WN_NEW_ARRAY(double, total + 1)))
        return wn_fail(err, WN_ENOMEM, "eval: out of memory");
    for (size_t i = 0, at = 0; i < (size_t)s->n_jobs; at += s->jobs[i++].n * rows)
        s->jobs[i].values = s->values + at;
    return WN_OK;
}

static wn_status run_chunk(const study *s, const wn_lab *lab, int i, double *values,
                           wn_job_desk *desk, wn_err *err)
{
    int n = s->shape.context;
    int32_t *ids = wn_alloc(sizeof *ids * (size_t)n);
    if (!ids) return wn_fail(err, WN_ENOMEM, "eval: out of memory");
    memcpy(ids, s->ids + (size_t)i * (size_t)n, sizeof *ids * (size_t)n);
    /* A text begins with the token the model wants there; every chunk is a text. */
    if (s->ids[0] == wn_model_bos(s->w.m)) ids[0] = s->ids[0];
    wn_status st = wn_text_run(lab, &s->shape, s->w.rows, ids, desk, values, err);
    wn_free(ids);
    return st ? wn_fail_prefix(err, st, "chunk %d of the text", i) : WN_OK;
}

static wn_status run_one(wn_eval_work *w, const wn_lab *lab, void *ctx, int job, double *values,
                         wn_job_desk *desk, wn_err *err)
{
    const study *s = ctx;
    int k = job - s->n_chunks, c = k - s->n_tasks * s->cells;
    if (k < 0) return run_chunk(s, lab, job, values, desk, err);
    if (c >= 0)
        return wn_ask_choice(lab, w->rows, w->n_rows, &w->o->choices[c], w->o->ask, desk, values,
                             err);
    wn_case_id id = { .task = w->o->tasks[k / s->cells],
                      .length = s->lengths[k % s->cells / s->n_seeds], .seed = k % s->n_seeds,
                      .n_seeds = s->n_seeds };
    return wn_eval_case(w, lab, &id, w->n_rows, w->o->ask, desk, values, err);
}

/* ---- reduction ------------------------------------------------------------------------------- */

static double *fixed_of(const study *s, int chunk, int row)
{
    return s->jobs[chunk].values + (size_t)row * s->shape.row_values + s->shape.n_scored;
}

static double sum_fixed(const study *s, int row, int what)
{
    double sum = 0;
    for (int c = 0; c < s->n_chunks; c++) sum += fixed_of(s, c, row)[what];
    return sum;
}

static wn_status reduce_text(study *s, int row, wn_eval_result *r, wn_err *err)
{
    size_t per = (size_t)s->shape.n_scored, n = per * (size_t)s->n_chunks;
    int L = s->shape.n_layers;
    double *kl = WN_NEW_ARRAY(double, n + 1);
    if (!kl) return wn_fail(err, WN_ENOMEM, "eval: out of memory");
    for (int c = 0; c < s->n_chunks; c++)
        memcpy(kl + (size_t)c * per, s->jobs[c].values + (size_t)row * s->shape.row_values,
               sizeof *kl * per);
    r->kl_mean = wn_stat_mean(kl, n);
    r->kl_p95 = wn_stat_percentile(kl, n, 0.95);
    r->kl_p99 = wn_stat_percentile(kl, n, 0.99);
    wn_free(kl);
    r->top1 = sum_fixed(s, row, WN_TEXT_TOP1) / (double)n;
    r->ppl = exp(sum_fixed(s, row, WN_TEXT_NLL) / sum_fixed(s, row, WN_TEXT_N_NLL));
    r->ppl_full = exp(sum_fixed(s, 0, WN_TEXT_NLL) / sum_fixed(s, 0, WN_TEXT_N_NLL));
    r->diverge_at = sum_fixed(s, row, WN_TEXT_DIVERGE) / s->n_chunks;
    r->bytes = sum_fixed(s, row, WN_TEXT_BYTES) / s->n_chunks;
    r->bytes_share = r->bytes / (sum_fixed(s, 0, WN_TEXT_BYTES) / s->n_chunks);
    for (int l = 0; l < L; l++)
        for (int c = 0; c < s->n_chunks; c++) {
            const double *mass = fixed_of(s, c, row) + WN_TEXT_FIXED;
            r->mass[l] += mass[l] / s->n_chunks;
            r->error[l] += mass[L + l] / s->n_chunks;
            r->recovered[l] += mass[2 * L + l] / s->n_chunks;
        }
    return WN_OK;
}

/* Mean and standard error of n jobs' scores from the first on. */
static wn_eval_mean reduce_scores(const study *s, int first, int n, int row, int mode)
{
    double *x = WN_NEW_ARRAY(double, n + 1);
    wn_eval_mean m = { .n = n };
    for (int i = 0; x && i < n; i++) x[i] = s->jobs[first + i].values[row * WN_ASK_MODES + mode];
    if (x) m.mean = wn_stat_mean(x, (size_t)n), m.se = wn_stat_se(x, (size_t)n);
    wn_free(x);
    return m;
}

static wn_status reduce(study *s, const wn_eval_opts *o, wn_err *err)
{
    wn_eval_report *p = s->report;
    for (int r = 0; r < s->w.n_rows; r++) {
        wn_eval_result *to = &p->rows[r];
        wn_status st = s->n_chunks ? reduce_text(s, r, to, err) : WN_OK;
        if (st) return st;
        for (int m = 0; m < WN_ASK_MODES; m++) {
            for (int t = 0; t < s->n_tasks; t++)
                to->tasks[t][m] = reduce_scores(s, s->n_chunks + t * s->cells, s->cells, r, m);
            to->choices[m] = reduce_scores(s, s->n_chunks + s->n_tasks * s->cells, o->n_choices, r,
                                           m);
        }
    }
    for (int r = 0; r < s->w.n_rows; r++)
        for (int i = 0; i < s->n_tasks * s->cells; i++) {
            const wn_task *task = o->tasks[i / s->cells];
            wn_eval_cell *c = &p->rows[r].cells[i];
            *c = (wn_eval_cell){ .length = s->lengths[i % s->cells / s->n_seeds],
                                 .depth = task->has_depth
                                              ? wn_eval_depth(i % s->n_seeds, s->n_seeds)
                                              : NAN };
            memcpy(c->score, s->jobs[s->n_chunks + i].values + r * WN_ASK_MODES, sizeof c->score);
        }
    if (s->n_chunks) p->attended = sum_fixed(s, 0, WN_TEXT_ATTENDED) / s->n_chunks;
    return WN_OK;
}

/* ---- speed ----------------------------------------------------------------------------------- */

/* One row alone on all threads: a context read, then tokens one by one. */
static wn_status time_row(const study *s, const wn_lab *lab, int r, wn_eval_result *to, wn_err *err)
{
    wn_seq *q;
    int n = s->report->context;
    int32_t *ids = wn_alloc(sizeof *ids * (size_t)n), id;
    if (!ids) return wn_fail(err, WN_ENOMEM, "eval: out of memory");
    for (int i = 0; i < n; i++) ids[i] = s->ids[(size_t)i % s->n_ids];
    wn_status st = wn_lab_seq(&q, lab, &s->w.rows[r], err);
    if (!st) {
        uint64_t t0 = wn_os_now_us();
        if (!(st = wn_lab_feed(lab, q, ids, (size_t)n, err))) st = wn_seq_mark(q, err);
        uint64_t t1 = wn_os_now_us();
        int k = 0, most = WN_MIN((int)SPEED_TOKENS, lab->n_ctx - n);
        for (; k < most && !st; k++) st = wn_lab_greedy(lab, q, true, &id, err);
        uint64_t t2 = wn_os_now_us();
        to->prefill_tps = n / ((double)(t1 - t0 + 1) * 1e-6);
        to->decode_tps = k ? k / ((double)(t2 - t1 + 1) * 1e-6) : NAN;
        wn_seq_close(q);
    }
    wn_free(ids);
    return st;
}

static wn_status time_rows(study *s, const wn_eval_opts *o, int n_threads, wn_err *err)
{
    wn_lab lab;
    wn_status st = wn_lab_open(&lab, s->w.m, wn_eval_lab_ctx(s->w.m, s->report->context),
                               s->w.every, s->w.probe, n_threads, o->mem, o->stop, err);
    if (!st) wn_engine_lend_calibration(lab.e, s->w.calibration);
    for (int r = 0; r < s->w.n_rows && !st; r++) {
        if (o->progress) o->progress(o->progress_ctx, "speed", r, s->w.n_rows);
        st = time_row(s, &lab, r, &s->report->rows[r], err);
    }
    wn_lab_close(&lab);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static wn_status make_report(study *s, const wn_eval_opts *o, wn_err *err)
{
    wn_eval_report *p = s->report;
    p->n_layers = s->w.m->hp.n_layers;
    p->n_rows = s->w.n_rows;
    p->n_tasks = s->n_tasks;
    p->n_cells = s->cells;
    p->diverge_max = WN_EVAL_GREEDY;
    p->rows = WN_NEW_ARRAY(wn_eval_result, p->n_rows);
    p->task_names = WN_NEW_ARRAY(const char *, p->n_tasks + 1);
    if (!p->rows || !p->task_names) return wn_fail(err, WN_ENOMEM, "eval: out of memory");
    for (int t = 0; t < p->n_tasks; t++) p->task_names[t] = o->tasks[t]->name;
    for (int r = 0; r < p->n_rows; r++) {
        wn_eval_result *x = &p->rows[r];
        snprintf(x->kv, sizeof x->kv, "%s", s->w.rows[r].row.kv);
        snprintf(x->canonical, sizeof x->canonical, "%s", s->w.rows[r].kv);
        x->budget = s->w.rows[r].row.share;
        x->shares_prefix = r > 0 && s->w.rows[r].shares;
        x->prefill_tps = x->decode_tps = NAN;
        x->mass = WN_NEW_ARRAY(double, p->n_layers);
        x->error = WN_NEW_ARRAY(double, p->n_layers);
        x->recovered = WN_NEW_ARRAY(double, p->n_layers);
        x->tasks = wn_calloc((size_t)p->n_tasks + 1, sizeof *x->tasks);
        x->cells = WN_NEW_ARRAY(wn_eval_cell, p->n_tasks * s->cells + 1);
        if (!x->cells || !x->mass || !x->error || !x->recovered || !x->tasks)
            return wn_fail(err, WN_ENOMEM, "eval: out of memory");
    }
    return WN_OK;
}

void wn_eval_report_release(wn_eval_report *p)
{
    for (int r = 0; p->rows && r < p->n_rows; r++) {
        wn_free(p->rows[r].mass);
        wn_free(p->rows[r].error);
        wn_free(p->rows[r].recovered);
        wn_free(p->rows[r].tasks);
        wn_free(p->rows[r].cells);
    }
    wn_free(p->rows);
    wn_free(p->task_names);
    *p = (wn_eval_report){ 0 };
}

static wn_status choose_context(study *s, const wn_eval_opts *o, wn_err *err)
{
    wn_eval_report *p = s->report;
    int train = s->w.m->hp.n_ctx_train;
    p->usable_context = -1;
    p->context = o->context;
    if (o->context > train)
        return wn_fail(err, WN_ELIMIT, "a context of %d tokens: the model was trained for %d",
                       o->context, train);
    if (o->find_usable || !o->context) {
        wn_status st = wn_usable_find(&p->usable_context, &s->w, WN_MIN(train, USABLE_MAX), err);
        if (st) return st;
    }
    if (!p->context)
        p->context = p->usable_context > 0 ? p->usable_context : WN_MIN(train, CONTEXT_IF_NONE);
    return p->context >= 64 ? WN_OK
                            : wn_fail(err, WN_EINVAL,
                                      "a context of %d tokens: expected at least 64", p->context);
}

static wn_status choose_lengths(study *s, const wn_eval_opts *o, wn_err *err)
{
    s->lengths = o->n_lengths ? o->lengths : &s->report->context;
    s->n_lengths = o->n_lengths ? o->n_lengths : 1;
    s->cells = s->n_lengths * s->n_seeds;
    for (int i = 0; i < s->n_lengths; i++)
        if (s->lengths[i] < 64 || s->lengths[i] > s->report->context)
            return wn_fail(err, WN_EINVAL,
                           "cases of %d tokens: expected 64 up to the context of %d", s->lengths[i],
                           s->report->context);
    return WN_OK;
}

static wn_status count_chunks(study *s, const wn_eval_opts *o, wn_err *err)
{
    int have = (int)(s->n_ids / (size_t)s->report->context);
    int want = o->max_chunks ? o->max_chunks : DEFAULT_CHUNKS;
    s->n_chunks = want == -2 ? 0 : want == -1 ? have : WN_MIN(want, have);
    s->shape = wn_text_shape_of(s->w.m, s->report->context, s->w.n_rows);
    s->report->n_chunks = s->n_chunks;
    s->report->n_scored = s->n_chunks * s->shape.n_scored;
    if (want != -2 && !have)
        return wn_fail(
            err, WN_EINVAL,
            "the text has %zu tokens, one chunk takes %d: give a longer text or a smaller context",
            s->n_ids, s->report->context);
    return WN_OK;
}

wn_status wn_eval_run(wn_eval_report *out, wn_model *m, const wn_eval_opts *o, wn_err *err)
{
    study s = { .w = { .m = m, .o = o }, .report = out,
                .n_seeds = o->n_seeds ? o->n_seeds : DEFAULT_SEEDS };
    int n_threads = o->n_threads ? o->n_threads : wn_os_n_cpus();
    wn_model_info mi;
    char key[40];
    wn_status st;
    *out = (wn_eval_report){ 0 };
    wn_model_get_info(m, &mi);
    snprintf(out->model, sizeof out->model, "%s", mi.name && *mi.name ? mi.name : mi.architecture);
    wn_eval_workers(&s.w, n_threads);
    while (o->tasks && o->tasks[s.n_tasks]) s.n_tasks++;
    if ((st = make_rows(&s, o, err)) || (st = find_profiles(&s, o, err)) ||
        (st = find_calibration(&s, o, err)) || (st = read_text(&s, o, err)))
        goto done;
    make_key(&s, o, key);
    if ((st = wn_journal_open(&s.w.journal, o->journal, key, o->keep, err))) goto done;
    if ((st = choose_context(&s, o, err)) || (st = choose_lengths(&s, o, err)) ||
        (st = count_chunks(&s, o, err)))
        goto done;
    if ((st = make_report(&s, o, err)) || (st = name_rows(&s, err)) || (st = make_jobs(&s, o, err)))
        goto done;
    s.w.what = "rows";
    int n_ctx = wn_eval_lab_ctx(m, out->context);
    if ((st = wn_eval_jobs(&s.w, n_ctx, s.jobs, s.n_jobs, run_one, &s, err))) goto done;
    if ((st = reduce(&s, o, err))) goto done;
    if (o->speed) st = time_rows(&s, o, n_threads, err);
done:
    wn_journal_close(s.w.journal, !st);
    wn_free(s.w.rows);
    wn_profile_close(s.profile);
    wn_calibration_close(s.calibration);
    wn_tokens_free(s.ids);
    wn_free(s.jobs);
    wn_free(s.values);
    wn_free(s.names);
    wn_free(s.parts);
    wn_free(s.had);
    if (st) wn_eval_report_release(out);
    return st;
}

bool wn_eval_ranks(const wn_eval_report *r, int task, int mode)
{
    return r->rows[0].tasks[task][mode].mean >= 0.6;
}
