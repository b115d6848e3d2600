/* eval/jobs.c - see jobs.h. */
#include "eval/jobs.h"

#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the journal ---------------------------------------------------------------------- */

struct wn_journal {
    FILE *f;
    char *path;
    char **lines; size_t n_lines;       /* what an earlier run left */
};

static void drop_lines(wn_journal *j)
{
    for (size_t i = 0; i < j->n_lines; i++) free(j->lines[i]);
    free(j->lines);
    j->lines = NULL;
    j->n_lines = 0;
}

/* Whole lines of a journal with this key; false when there is none. */
static bool read_lines(wn_journal *j, const char *head)
{
    FILE *f = fopen(j->path, "r");
    char *line = NULL;
    size_t cap = 0, cap_lines = 0;
    ssize_t n;
    bool ok = f && (n = getline(&line, &cap, f)) > 0 && !strcmp(line, head);
    while (ok && (n = getline(&line, &cap, f)) > 0) {
        if (line[n - 1] != '\n') break;                 /* cut off by an interruption */
        if (j->n_lines == cap_lines) {
            char **l = realloc(j->lines, (cap_lines = cap_lines ? 2 * cap_lines : 64) * sizeof *l);
            if (!l) break;
            j->lines = l;
        }
        if (!(j->lines[j->n_lines] = strdup(line))) break;
        j->n_lines++;
    }
    free(line);
    if (f) fclose(f);
    return ok;
}

wn_status wn_journal_open(wn_journal **out, const char *path, const char *key, wn_err *err)
{
    char head[128];
    *out = NULL;
    if (!path) return WN_OK;
    wn_journal *j = WN_NEW(wn_journal);
    if (!j || !(j->path = wn_strdup(path))) {
        wn_free(j);
        return wn_fail(err, WN_ENOMEM, "journal: out of memory");
    }
    snprintf(head, sizeof head, "winnow-eval 1 %s\n", key);
    bool again = read_lines(j, head);
    if (!(j->f = fopen(path, "w"))) {
        wn_status st = wn_fail(err, WN_EIO, "%s: %s", path, strerror(errno));
        wn_journal_close(j, false);
        return st;
    }
    fputs(head, j->f);
    for (size_t i = 0; again && i < j->n_lines; i++) fputs(j->lines[i], j->f);
    fflush(j->f);
    *out = j;
    return WN_OK;
}

void wn_journal_close(wn_journal *j, bool finished)
{
    if (!j) return;
    if (j->f) fclose(j->f);
    if (finished) unlink(j->path);
    drop_lines(j);
    wn_free(j->path);
    wn_free(j);
}

static bool parse_line(const char *line, const wn_job *job)
{
    size_t len = strlen(job->id);
    char *end;
    if (strncmp(line, job->id, len) || line[len] != ' ') return false;
    if (strtoul(line + len, &end, 10) != job->n) return false;
    for (size_t i = 0; i < job->n; i++) {
        char *at = end;
        job->values[i] = strtod(at, &end);
        if (end == at) return false;
    }
    return *end == '\n';
}

static bool look_up(const wn_journal *j, const wn_job *job)
{
    for (size_t i = 0; j && i < j->n_lines; i++)
        if (parse_line(j->lines[i], job)) return true;
    return false;
}

static void note(wn_journal *j, const wn_job *job)
{
    if (!j) return;
    fprintf(j->f, "%s %zu", job->id, job->n);
    for (size_t i = 0; i < job->n; i++) fprintf(j->f, " %a", job->values[i]);
    fputc('\n', j->f);
    fflush(j->f);
}

/* ---- workers ------------------------------------------------------------------------------ */

typedef struct {
    wn_job *jobs;
    int n, next, n_done;
    const wn_job_opts *o;
    pthread_mutex_t lock;
    wn_err err;                         /* the first failure */
} shop;

static int next_job(shop *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->next < s->n && s->jobs[s->next].done) s->next++;
    int i = s->err.status || s->next == s->n ? -1 : s->next++;
    pthread_mutex_unlock(&s->lock);
    return i;
}

static void finish_job(shop *s, int i, wn_status st, const wn_err *err)
{
    pthread_mutex_lock(&s->lock);
    if (st) {
        if (!s->err.status) s->err = *err;
    } else {
        s->jobs[i].done = true;
        s->n_done++;
        note(s->o->journal, &s->jobs[i]);
        if (s->o->progress) s->o->progress(s->o->ctx, s->n_done, s->n);
    }
    pthread_mutex_unlock(&s->lock);
}

static void *work(void *arg)
{
    shop *s = arg;
    void *worker = NULL;
    wn_err err = { 0 };
    int i = next_job(s);
    if (i < 0) return NULL;
    wn_status st = s->o->open(s->o->ctx, &worker, &err);
    if (st) {
        finish_job(s, i, st, &err);
        return NULL;
    }
    for (; i >= 0; i = next_job(s)) {
        st = s->o->run(s->o->ctx, worker, i, s->jobs[i].values, &err);
        finish_job(s, i, st, &err);
    }
    s->o->close(s->o->ctx, worker);
    return NULL;
}

wn_status wn_jobs_run(wn_job *jobs, int n, const wn_job_opts *o, wn_err *err)
{
    enum { MAX_WORKERS = 256 };
    shop s = { .jobs = jobs, .n = n, .o = o, .lock = PTHREAD_MUTEX_INITIALIZER };
    pthread_t threads[MAX_WORKERS];
    int started = 0, left = 0;
    for (int i = 0; i < n; i++) {
        if (!jobs[i].done) jobs[i].done = look_up(o->journal, &jobs[i]);
        s.n_done += jobs[i].done;
        left += !jobs[i].done;
    }
    if (o->progress) o->progress(o->ctx, s.n_done, n);
    int want = WN_MIN(WN_MIN(o->n_workers, left), MAX_WORKERS);
    for (int i = 1; i < want; i++)
        if (!pthread_create(&threads[started], NULL, work, &s)) started++;
    if (left) work(&s);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    if (s.err.status && err) *err = s.err;
    return s.err.status;
}
