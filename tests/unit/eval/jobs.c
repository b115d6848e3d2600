/* Jobs give the same results from any number of workers, once each, and an interrupted run
 * takes finished ones from its journal, exactly; another key or a torn line does not count. */
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
static wn_status run(void *ctx, void *worker, int job, double *values, wn_err *err)
{
    counter *c = worker;
    (void)ctx;
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
        wn_job_opts o = { .ctx = &c, .open = open_worker, .close = close_worker, .run = run, .n_workers = workers };
        assert_int_equal(wn_jobs_run(jobs, N, &o, &err), WN_OK);
        assert_int_equal(c.ran, N);
        assert_int_equal(c.open, 0);
        check_values(values);
    }
}

static void a_journal_is_taken_up(void **state)
{
    (void)state;
    char path[64];
    wn_err err;
    wn_journal *j;
    snprintf(path, sizeof path, "/tmp/winnow-jobs-%ld", (long)getpid());
    for (int workers = 1; workers <= 3; workers++) {
        wn_job jobs[N];
        double values[2 * N] = { 0 };
        counter c = { .fail_at = 25 };
        wn_job_opts o = { .ctx = &c, .open = open_worker, .close = close_worker, .run = run, .n_workers = workers };
        make(jobs, values);
        assert_int_equal(wn_journal_open(&j, path, "key", &err), WN_OK);
        o.journal = j;
        assert_int_equal(wn_jobs_run(jobs, N, &o, &err), WN_EIO);
        assert_string_equal(err.text, "job 25 failed");
        wn_journal_close(j, false);
        int had = c.ran;
        assert_true(had >= 25 - workers && had < N);

        FILE *f = fopen(path, "a");                     /* torn by an interruption */
        fputs("job:39 2 0x1p", f);
        fclose(f);

        double again[2 * N] = { 0 };
        make(jobs, again);
        c = (counter){ .fail_at = -1 };
        assert_int_equal(wn_journal_open(&j, path, "key", &err), WN_OK);
        o.journal = j;
        assert_int_equal(wn_jobs_run(jobs, N, &o, &err), WN_OK);
        assert_int_equal(c.ran, N - had);
        check_values(again);
        wn_journal_close(j, false);

        make(jobs, again);
        c = (counter){ .fail_at = -1 };
        assert_int_equal(wn_journal_open(&j, path, "another key", &err), WN_OK);
        o.journal = j;
        assert_int_equal(wn_jobs_run(jobs, N, &o, &err), WN_OK);
        assert_int_equal(c.ran, N);
        wn_journal_close(j, true);
        assert_int_not_equal(access(path, F_OK), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_workers),
        cmocka_unit_test(a_journal_is_taken_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
