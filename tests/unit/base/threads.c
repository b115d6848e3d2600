/* The team runs every part exactly once, whatever the number of threads, across many
 * short jobs (spinning) and pauses (parking). */
#include "tests/unit/check.h"

#include "base/threads.h"

#include <stdatomic.h>
#include <unistd.h>

enum { PARTS = 37 };
typedef struct {
    atomic_int runs[PARTS];
} tally;

static void count(void *arg, int part, int thread)
{
    (void)thread;
    atomic_fetch_add(&((tally *)arg)->runs[part], 1);
}

static void every_part_runs_once(void **state)
{
    (void)state;
    for (int n = 1; n <= 4; n++) {
        wn_threads *t;
        static tally c;
        memset(&c, 0, sizeof c);
        assert_int_equal(wn_threads_open(&t, n, NULL), WN_OK);
        for (int job = 0; job < 300; job++) {
            wn_threads_run(t, count, &c, PARTS);
            if (job % 100 == 50) usleep(2000);      /* long enough to park */
        }
        for (int i = 0; i < PARTS; i++) assert_int_equal(atomic_load(&c.runs[i]), 300);
        wn_threads_close(t);
    }
}

static void odd_counts_are_refused(void **state)
{
    (void)state;
    wn_threads *t;
    wn_err err;
    assert_int_equal(wn_threads_open(&t, 0, &err), WN_EINVAL);
    assert_null(t);
    assert_non_null(strstr(err.text, "threads"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_runs_once),
        cmocka_unit_test(odd_counts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
