/* What a policy saves is saved in the process: a long text under recent@6% leaves less memory
 * resident than under the full cache, by what kv_bytes_peak says. Each run has a process of
 * its own, so that nothing one of them touched is there for the other. */
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include "base/os.h"

#include <sys/wait.h>
#include <unistd.h>

enum { N = 3000 };

typedef struct { size_t rss, peak, kv_bytes, pool_peak, slots; } figures;

/* Sanitizers keep what is freed and shadow what is not; there only the cache's own figures
 * count. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool rss_counts = false;
#else
static const bool rss_counts = true;
#endif

static bool run(const char *kv, figures *f)
{
    static int32_t ids[N];
    wn_err err = { 0 };
    wn_model *m;
    wn_engine *e;
    wn_seq *s;
    wn_seq_stats ss;
    wn_engine_info ei;
    int rows = 1;
    test_tokens(ids, N, 4000, 3);
    if (wn_model_open(&m, "models/winnow-demo.gguf", &(wn_model_opts){ .n_threads = 1 }, &err) ||
        wn_engine_open(&e, m,
                       &(wn_engine_opts){
                           .n_threads = 1, .k_type = "f32", .v_type = "f32", .n_batch = 64 },
                       &err) ||
        wn_seq_open(&s, e, &(wn_seq_opts){ .kv = kv }, &err) || wn_seq_feed(s, ids, N, &err))
        goto fail;
    while (rows)
        if (wn_engine_step(e, &rows, &err)) goto fail;
    wn_seq_get_stats(s, &ss);
    wn_engine_get_info(e, &ei);
    *f = (figures){ wn_os_rss(), ss.kv_bytes_peak, ss.kv_bytes, ei.pool_peak, ss.kv_slots };
    wn_seq_close(s);
    wn_engine_close(e);
    wn_model_close(m);
    return true;
fail:
    fprintf(stderr, "%s: %s\n", kv, err.text);
    return false;
}

static figures run_apart(const char *kv)
{
    figures f = { 0 };
    int fd[2], status;
    assert_int_equal(pipe(fd), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        bool ok = run(kv, &f) && write(fd[1], &f, sizeof f) == sizeof f;
        _exit(!ok);
    }
    close(fd[1]);
    assert_int_equal(read(fd[0], &f, sizeof f), sizeof f);
    close(fd[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    return f;
}

static void a_small_budget_is_a_small_process(void **state)
{
    (void)state;
    figures full = run_apart("none"), few = run_apart("recent(every=64)@6%");
    print_message("full: rss %zu KiB, frames %zu KiB at most; recent@6%%: rss %zu KiB, frames %zu "
                  "KiB at most\n",
                  full.rss >> 10, full.pool_peak >> 10, few.rss >> 10, few.pool_peak >> 10);
    /* 12 lanes of 64 channels, K and V of 4 bytes: 6 KiB a token; 47 pages of 64 tokens */
    assert_int_equal(full.peak, (size_t)47 * 64 * 12 * 64 * 8);
    assert_int_equal(full.slots, (size_t)N * 12);
    /* 180 slots and up to 64 more, in pages of which 1/16 may lie dead, and one that fills */
    assert_true(few.slots <= 12 * (180 + 64));
    assert_true(few.peak <= (size_t)12 * 64 * 64 * 8 * 7);
    assert_true(few.pool_peak < full.pool_peak / 5);
    /* What a mapping touches comes in huge pages of 2 MiB: the pool's extents of positions and
     * of spans, the arena of decisions, the plan. */
    size_t saved = full.peak - few.peak, tolerance = (size_t)4 * 2 << 20;
    if (rss_counts && full.rss - few.rss + tolerance < saved)
        fail_msg("%zu KiB of cache are saved, the process is smaller by %zd KiB", saved >> 10,
                 ((ssize_t)full.rss - (ssize_t)few.rss) >> 10);
    if (rss_counts) assert_true(few.rss < full.rss);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_small_budget_is_a_small_process) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
