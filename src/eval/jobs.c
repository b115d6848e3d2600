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
    bool keep;
    char **lines; size_t n_lines;       /* what an earlier run left, sorted */
};

static void drop_lines(wn_journal *j)
{
    for (size_t i = 0; i < j->n_lines; i++) free(j->lines[i]);
    free(j->lines);
    j->lines = NULL;
    j->n_lines = 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Whole lines behind the head; *end: where they end. WN_ENOMEM when not all fit. */
static wn_status read_lines(wn_journal *j, long *end, wn_err *err)
{
    char *line = NULL;
    size_t cap = 0, cap_lines = 0;
    ssize_t n;
    bool ok = true;
    *end = ftell(j->f);
    /* else cut off by an interruption */
    while (ok && (n = getline(&line, &cap, j->f)) > 0 && line[n - 1] == '\n') {
        if (j->n_lines == cap_lines) {
            char **l = realloc(j->lines, (cap_lines = cap_lines ? 2 * cap_lines : 64) * sizeof *l);
            if (l) j->lines = l;
            ok = l != NULL;
        }
        if (ok && (ok = (j->lines[j->n_lines] = strdup(line)) != NULL)) j->n_lines++;
        *end = ftell(j->f);
    }
    free(line);
    if (!ok) return wn_fail(err, WN_ENOMEM, "%s: out of memory", j->path);
    if (j->n_lines) qsort(j->lines, j->n_lines, sizeof *j->lines, by_text);
    return WN_OK;
}

static bool has_head(FILE *f, const char *head)
{
    char line[128];
    return fgets(line, sizeof line, f) && !strcmp(line, head);
}

/* Takes up what is there, else starts anew. */
static wn_status open_file(wn_journal *j, const char *head, wn_err *err)
{
    long end;
    if ((j->f = fopen(j->path, "r+"))) {
        if (has_head(j->f, head)) {
            wn_status st = read_lines(j, &end, err);
            if (st) return st;
            if (!fseek(j->f, end, SEEK_SET) && !ftruncate(fileno(j->f), end)) return WN_OK;
            return wn_fail(err, WN_EIO, "%s: %s", j->path, strerror(errno));
        }
        bool empty = !fseek(j->f, 0, SEEK_END) && ftell(j->f) == 0;
        if (j->keep && !empty)
            return wn_fail(err, WN_EINVAL,
                           "%s holds other results: of another model, text, seed or template; give "
                           "another file",
                           j->path);
        fclose(j->f);
    }
    if (!(j->f = fopen(j->path, "w")))
        return wn_fail(err, WN_EIO, "%s: %s", j->path, strerror(errno));
    fputs(head, j->f);
    fflush(j->f);
    return WN_OK;
}

wn_status wn_journal_open(wn_journal **out, const char *path, const char *key, bool keep,
                          wn_err *err)
{
    char head[128];
    *out = NULL;
    if (!path) return WN_OK;
    wn_journal *j = WN_NEW(wn_journal);
    if (!j || !(j->path = wn_strdup(path))) {
        wn_free(j);
        return wn_fail(err, WN_ENOMEM, "journal: out of memory");
    }
    j->keep = keep;
    snprintf(head, sizeof head, "winnow-eval 2 %s\n", key);
    wn_status st = open_file(j, head, err);
    if (st) wn_journal_close(j, false);
    else *out = j;
    return st;
}

void wn_journal_close(wn_journal *j, bool finished)
{
    if (!j) return;
    if (j->f) fclose(j->f);
    if (finished && !j->keep) unlink(j->path);
    drop_lines(j);
    wn_free(j->path);
    wn_free(j);
}

enum { MAX_NAME = 1024 };               /* part, job and the spaces behind them */

static size_t name_part(char out[MAX_NAME], const wn_job *job, int part)
{
    int n = snprintf(out, MAX_NAME, "%s %s ", job->n_parts ? job->parts[part] : "-", job->id);
    WN_ASSERT(n < MAX_NAME);
    return (size_t)n;
}

static bool parse_values(const char *s, size_t n, double *values)
{
    char *end;
    if (strtoul(s, &end, 10) != n) return false;
    for (size_t i = 0; i < n; i++) {
        const char *at = end;
        values[i] = strtod(at, &end);
        if (end == at) return false;
    }
    return *end == '\n';
}

static bool look_up(const wn_journal *j, const wn_job *job, int part)
{
    char name[MAX_NAME];
    size_t len = j ? name_part(name, job, part) : 0, lo = 0, hi = j ? j->n_lines : 0;
    while (lo < hi) {                   /* the first line that is not below the name */
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(j->lines[mid], name) < 0) lo = mid + 1;
        else hi = mid;
    }
    return j && lo < j->n_lines && !strncmp(j->lines[lo], name, len) &&
           parse_values(j->lines[lo] + len, job->n, job->values + (size_t)part * job->n);
}

static void note(wn_journal *j, const wn_job *job, int part)
{
    char name[MAX_NAME];
    if (!j) return;
    name_part(name, job, part);
    fprintf(j->f, "%s%zu", name, job->n);
    for (size_t i = 0; i < job->n; i++)
        fprintf(j->f, " %a", job->values[(size_t)part * job->n + i]);
    fputc('\n', j->f);
    fflush(j->f);
}

/* ---- workers ------------------------------------------------------------------------------ */

typedef struct {
    wn_job *jobs;
    int n, next, n_done, n_parts;       /* parts of all jobs: done, and how many there are */
    const wn_job_opts *o;
    pthread_mutex_t lock;
    wn_err err;                         /* the first failure */
} shop;

struct wn_job_desk { shop *s; int job; };

static int parts_of(const wn_job *j) { return j->n_parts ? j->n_parts : 1; }

static int next_job(shop *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->next < s->n && s->jobs[s->next].done) s->next++;
    int i = s->err.status || s->next == s->n ? -1 : s->next++;
    pthread_mutex_unlock(&s->lock);
    return i;
}

static void finish_part(shop *s, int job, int part)
{
    pthread_mutex_lock(&s->lock);
    s->n_done++;
    note(s->o->journal, &s->jobs[job], part);
    if (s->o->progress) s->o->progress(s->o->ctx, s->n_done, s->n_parts);
    pthread_mutex_unlock(&s->lock);
}

bool wn_job_part_had(const wn_job_desk *d, int part) { return d && d->s->jobs[d->job].had[part]; }

void wn_job_part_done(wn_job_desk *d, int part)
{
    if (!d) return;
    wn_job *job = &d->s->jobs[d->job];
    WN_ASSERT(part < job->n_parts && !job->had[part]);
    job->had[part] = true;
    finish_part(d->s, d->job, part);
}

static void finish_job(shop *s, int i, wn_status st, const wn_err *err)
{
    if (!st && !s->jobs[i].n_parts) finish_part(s, i, 0);
    pthread_mutex_lock(&s->lock);
    if (!st) s->jobs[i].done = true;
    else if (!s->err.status) s->err = *err;
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
        wn_job_desk desk = { s, i };
        st = s->o->run(s->o->ctx, worker, i, s->jobs[i].values, &desk, &err);
        finish_job(s, i, st, &err);
    }
    s->o->close(s->o->ctx, worker);
    return NULL;
}

/* What the journal has of a job. */
static void take_up(shop *s, wn_job *job)
{
    int n = parts_of(job), had = 0;
    for (int p = 0; p < n; p++) {
        bool here = job->done || look_up(s->o->journal, job, p);
        if (job->had) job->had[p] = here;
        had += here;
    }
    job->done = had == n;
    s->n_done += had;
    s->n_parts += n;
}

wn_status wn_jobs_run(wn_job *jobs, int n, const wn_job_opts *o, wn_err *err)
{
    enum { MAX_WORKERS = 256 };
    shop s = { .jobs = jobs, .n = n, .o = o, .lock = PTHREAD_MUTEX_INITIALIZER };
    pthread_t threads[MAX_WORKERS];
    int started = 0, left = 0;
    for (int i = 0; i < n; i++) {
        take_up(&s, &jobs[i]);
        left += !jobs[i].done;
    }
    if (o->progress) o->progress(o->ctx, s.n_done, s.n_parts);
    int want = WN_MIN(WN_MIN(o->n_workers, left), MAX_WORKERS);
    for (int i = 1; i < want; i++)
        if (!pthread_create(&threads[started], NULL, work, &s)) started++;
    if (left) work(&s);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    if (s.err.status && err) *err = s.err;
    return s.err.status;
}
