/* base/threads.c - one job at a time, a run of neighbouring parts for each thread.
 *
 * A job is published by storing its fields and then raising `epoch` (release); workers
 * see the new epoch (acquire), take parts until none is left, and count themselves out in
 * `n_idle`. The caller takes parts too and then waits until every worker is out, so the
 * fields of a job never change under a worker.
 *
 * Each thread owns an equal run of parts and takes them from its front, so what lies side
 * by side in memory is read by one core from one end to the other: a matrix handed out
 * part by part to two cores in turn starts a cold stream with each part, which cost a
 * quarter of the read rate (bench/NOTES.md). A thread whose run is empty takes from the
 * back of another's.
 *
 *      caller                     worker
 *      fields, epoch++   ------>  sees epoch
 *      takes parts                takes parts
 *      waits n_idle   <---------  n_idle++
 *
 * A worker that saw no new epoch for SPIN_US parks on the condition variable; the
 * caller wakes it only when somebody is parked.
 */
#include "base/threads.h"
#include "base/alloc.h"
#include "base/os.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { SPIN_US = 300, MAX_THREADS = 256 };

typedef struct {
    _Alignas(64) _Atomic uint64_t run;  /* its parts: first | end << 32 */
    wn_threads *team;
    pthread_t id;
    int index;
} worker;

struct wn_threads {
    int n;                              /* the caller included */
    wn_part_fn *task;
    void *arg;
    _Alignas(64) atomic_uint epoch;     /* one more for each job */
    _Alignas(64) atomic_int n_idle;     /* workers that are done with this epoch */
    _Alignas(64) atomic_int n_parked;
    atomic_bool quit;
    pthread_mutex_t lock;               /* guards parking only */
    pthread_cond_t wake;
    int n_started;
    worker workers[];                   /* [0] is the caller */
};

static inline void pause_cpu(void) { __builtin_ia32_pause(); }

static uint64_t run_of(uint32_t first, uint32_t end) { return first | (uint64_t)end << 32; }

/* A part from the front of a run, or from its back; -1 when it is empty. */
static int take(worker *w, bool back)
{
    uint64_t run = atomic_load_explicit(&w->run, memory_order_relaxed), rest;
    uint32_t first, end;
    do {
        first = (uint32_t)run, end = (uint32_t)(run >> 32);
        if (first >= end) return -1;
        rest = back ? run_of(first, end - 1) : run_of(first + 1, end);
    } while (!atomic_compare_exchange_weak_explicit(&w->run, &run, rest, memory_order_relaxed,
                                                    memory_order_relaxed));
    return (int)(back ? end - 1 : first);
}

static void take_parts(wn_threads *t, int thread)
{
    int part;
    for (int i = 0; i < t->n; i++) {
        worker *w = &t->workers[(thread + i) % t->n];
        while ((part = take(w, i > 0)) >= 0) t->task(t->arg, part, thread);
    }
}

/* Returns when the epoch differs from seen. */
static unsigned wait_epoch(wn_threads *t, unsigned seen)
{
    uint64_t until = 0;
    for (unsigned spins = 0;; spins++) {
        unsigned e = atomic_load_explicit(&t->epoch, memory_order_acquire);
        if (e != seen) return e;
        pause_cpu();
        if (spins % 256 != 255) continue;
        sched_yield();                  /* on a busy machine, whoever we wait for may want this
                                           core */
        uint64_t now = wn_os_now_us();
        if (!until) until = now + SPIN_US;
        if (now < until) continue;
        pthread_mutex_lock(&t->lock);
        atomic_fetch_add(&t->n_parked, 1);
        while (atomic_load(&t->epoch) == seen) pthread_cond_wait(&t->wake, &t->lock);
        atomic_fetch_sub(&t->n_parked, 1);
        pthread_mutex_unlock(&t->lock);
    }
}

static void *work(void *arg)
{
    worker *w = arg;
    wn_threads *t = w->team;
    unsigned seen = 0;
    for (;;) {
        seen = wait_epoch(t, seen);
        if (atomic_load_explicit(&t->quit, memory_order_relaxed)) return NULL;
        take_parts(t, w->index);
        atomic_fetch_add_explicit(&t->n_idle, 1, memory_order_release);
    }
}

static void publish(wn_threads *t)
{
    atomic_fetch_add(&t->epoch, 1);     /* sequentially consistent: ordered before n_parked */
    if (atomic_load(&t->n_parked) > 0) {
        pthread_mutex_lock(&t->lock);
        pthread_cond_broadcast(&t->wake);
        pthread_mutex_unlock(&t->lock);
    }
}

wn_status wn_threads_open(wn_threads **out, int n_threads, wn_err *err)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > MAX_THREADS)
        return wn_fail(err, WN_EINVAL, "threads: %d is not between 1 and %d", n_threads,
                       MAX_THREADS);
    size_t bytes = sizeof(wn_threads) + sizeof(worker) * (size_t)n_threads;
    wn_threads *t = wn_alloc_aligned(bytes);
    if (!t) return wn_fail(err, WN_ENOMEM, "threads: out of memory");
    *t = (wn_threads){ .n = n_threads };
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    for (int i = 1; i < n_threads; i++) {
        t->workers[i].team = t;
        t->workers[i].index = i;
        if (pthread_create(&t->workers[i].id, NULL, work, &t->workers[i])) {
            wn_threads_close(t);
            return wn_fail(err, WN_ENOMEM, "threads: only %d of %d could be started", i, n_threads);
        }
        t->n_started = i;
    }
    *out = t;
    return WN_OK;
}

void wn_threads_close(wn_threads *t)
{
    if (!t) return;
    atomic_store(&t->quit, true);
    publish(t);
    for (int i = 1; i <= t->n_started; i++) pthread_join(t->workers[i].id, NULL);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    wn_free(t);
}

int wn_threads_count(const wn_threads *t) { return t ? t->n : 1; }

void wn_threads_run(wn_threads *t, wn_part_fn *task, void *arg, int n_parts)
{
    if (!t || t->n == 1 || n_parts <= 1) {
        for (int i = 0; i < n_parts; i++) task(arg, i, 0);
        return;
    }
    t->task = task;
    t->arg = arg;
    for (int i = 0; i < t->n; i++) {
        uint32_t first = (uint32_t)((int64_t)n_parts * i / t->n);
        uint32_t end = (uint32_t)((int64_t)n_parts * (i + 1) / t->n);
        atomic_store_explicit(&t->workers[i].run, run_of(first, end), memory_order_relaxed);
    }
    atomic_store_explicit(&t->n_idle, 0, memory_order_relaxed);
    publish(t);
    take_parts(t, 0);
    for (unsigned spins = 1; atomic_load_explicit(&t->n_idle, memory_order_acquire) < t->n - 1;
         spins++) {
        pause_cpu();
        if (spins % 1024 == 0) sched_yield();
    }
}
