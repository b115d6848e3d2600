/* Jobs give the same results from any number of workers, once each, and an interrupted run
 * takes finished ones from its journal, exactly; another key or a torn line does not count.
 * Of jobs with parts the journal has the parts, so that other work with some of the same
 * parts runs the others only; a journal that is kept is never started anew. */
#include "tests/unit/check.h"

#include "eval/jobs.h"

#include <stdatomic.h>
#include <unistd.h>

enum { N = 40 };

typedef struct { atomic_int ran, open; int fail_at; } counter;

static wn_status open_worker(void *ctx, void **worker, wn_err *err)
{
    (void)err;
    *worker = ctx;
    ((counter *)ctx)->open++;
    return WN_OK;
}
static void close_worker(void *ctx, void *worker)
{
    (void)worker;
    ((counter *)ctx)->open--;
}
static wn_status run(void *ctx, void *worker, int job, double *values, wn_job_desk *desk,
                     wn_err *err)
{
    counter *c = worker;
    (void)ctx;
    (void)desk;
    if (job == c->fail_at) return wn_fail(err, WN_EIO, "job %d failed", job);
    c->ran++;
    values[0] = 1.0 / (job + 3);
    values[1] = job % 5 ? -job * 0.1 : 0;
    return WN_OK;
}

static void make(wn_job *jobs, double *values)
{
    for (int i = 0; i < N; i++) {
        jobs[i] = (wn_job){ .n = 2, .values = values + 2 * i };
        snprintf(jobs[i].id, sizeof jobs[i].id, "job:%d", i);
    }
}

static void check_values(const double *values)
{
    for (int i = 0; i < N; i++) {
        assert_true(values[2 * i] == 1.0 / (i + 3));
        assert_true(values[2 * i + 1] == (i % 5 ? -i * 0.1 : 0));
    }
}

static void any_number_of_workers(void **state)
{
    (void)state;
    for (int workers = 1; workers <= 5; workers++) {
        wn_job jobs[N];
        double values[2 * N] = { 0 };
        counter c = { .fail_at = -1 };
        wn_err err;
        make(jobs, values);
        wn_job_opts o = { .ctx = &c, .open = open_worker, .close = close_worker, .run = run,
                          .n_workers = workers };
        assert_int_equal(wn_jobs_run(jobs, N, &o, &err), WN_OK);
        assert_int_equal(c.ran, N);
        assert_int_equal(c.open, 0);
        check_values(values);
    }
}

static void a_journal_is_taken_up(void **state)
{
    (void)state;
    char path[128];
    wn_err err;
    wn_journal *j;
    test_path(path, sizeof path, "jobs");
    for (int workers = 1; workers <= 3; workers++) {
        wn_job jobs[N];
        double values[2 * N] = { 0 };
        counter c = { .fail_at = 25 };
        wn_job_opts o = { .ctx = &c, .open = open_worker, .close = close_worker, .run = run,
                          .n_workers = workers };
        make(jobs, values);
        assert_int_equal(wn_journal_open(&j, path, "key", false, &err), WN_OK);
        o.journal = j;
        assert_int_equal(wn_jobs_run(jobs, N, &o, &err), WN_EIO);
        assert_string_equal(err.text, "job 25 failed");
        wn_journal_close(j, false);
        int had = c.ran;
        assert_true(had >= 25 - workers && had < N);

        FILE *f = fopen(path, "a");                     /* torn by an interruption */
        fputs("- job:39 2 0x1p", f);
        fclose(f);

        double again[2 * N] = { 0 };
        make(jobs, again);
        c = (counter){ .fail_at = -1 };
        assert_int_equal(wn_journal_open(&j, path, "key", false, &err), WN_OK);
        o.journal = j;
        assert_int_equal(wn_jobs_run(jobs, N, &o, &err), WN_OK);
        assert_int_equal(c.ran, N - had);
        check_values(again);
        wn_journal_close(j, false);

        make(jobs, again);
        c = (counter){ .fail_at = -1 };
        assert_int_equal(wn_journal_open(&j, path, "another key", false, &err), WN_OK);
        o.journal = j;
        assert_int_equal(wn_jobs_run(jobs, N, &o, &err), WN_OK);
        assert_int_equal(c.ran, N);
        wn_journal_close(j, true);
        assert_int_not_equal(access(path, F_OK), 0);
    }
}

/* A part's value says which job and which name it is of, wherever in the list it stands. */
typedef struct { const char *const *names; int n; atomic_int ran; int fail_at; } rows;

static wn_status open_rows(void *ctx, void **worker, wn_err *err)
{
    (void)err;
    *worker = ctx;
    return WN_OK;
}
static void close_rows(void *ctx, void *worker)
{
    (void)ctx;
    (void)worker;
}
static wn_status run_parts(void *ctx, void *worker, int job, double *values, wn_job_desk *desk,
                           wn_err *err)
{
    rows *r = ctx;
    (void)worker;
    for (int p = 0; p < r->n; p++) {
        if (wn_job_part_had(desk, p)) continue;
        if (job == 2 && p == r->fail_at) return wn_fail(err, WN_EIO, "interrupted");
        values[p] = job + r->names[p][0] / 7.0;
        r->ran++;
        wn_job_part_done(desk, p);
    }
    return WN_OK;
}

enum { JOBS = 5, MAX_PARTS = 3 };

/* Runs JOBS jobs with these parts; returns how many parts ran. */
static int run_rows(const char *path, const char *const *names, int n, int fail_at,
                    wn_status expected)
{
    wn_job jobs[JOBS];
    double values[JOBS * MAX_PARTS] = { 0 };
    bool had[JOBS * MAX_PARTS] = { false };
    rows r = { names, n, 0, fail_at };
    wn_journal *j;
    wn_err err;
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (wn_job){ .n = 1, .parts = names, .n_parts = n, .values = values + i * n,
                            .had = had + i * n };
        snprintf(jobs[i].id, sizeof jobs[i].id, "text:%d", i);
    }
    assert_int_equal(wn_journal_open(&j, path, "key", true, &err), WN_OK);
    wn_job_opts o = { .ctx = &r, .open = open_rows, .close = close_rows, .run = run_parts,
                      .n_workers = 1, .journal = j };
    assert_int_equal(wn_jobs_run(jobs, JOBS, &o, &err), expected);
    wn_journal_close(j, expected == WN_OK);
    for (int i = 0; i < JOBS * n && expected == WN_OK; i++)
        assert_true(had[i] && values[i] == i / n + names[i % n][0] / 7.0);
    return r.ran;
}

static void parts_are_taken_up_by_name(void **state)
{
    (void)state;
    static const char *const two[] = { "a@25%", "b" }, *const three[] = { "c", "b", "a@25%" };
    char path[128];
    wn_journal *j;
    wn_err err;
    test_path(path, sizeof path, "parts");
    int ran = run_rows(path, two, 2, 1, WN_EIO);        /* jobs 0 and 1, and the first part of 2 */
    assert_int_equal(ran, 5);
    assert_int_equal(run_rows(path, two, 2, -1, WN_OK), 2 * JOBS - 5);
    assert_int_equal(run_rows(path, two, 2, -1, WN_OK), 0);
    assert_int_equal(run_rows(path, three, 3, -1, WN_OK), JOBS);
    assert_int_equal(run_rows(path, three, 3, -1, WN_OK), 0);
    assert_int_equal(wn_journal_open(&j, path, "another key", true, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "other results"));
    assert_int_equal(run_rows(path, three, 3, -1, WN_OK), 0);       /* and is whole still */
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_workers),
        cmocka_unit_test(a_journal_is_taken_up),
        cmocka_unit_test(parts_are_taken_up_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
