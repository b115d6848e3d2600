/* probe.c - runs the probes' loops on a team and takes medians.
 *
 * The loops live in the files of their instruction sets; here is the clockwork. A loop is
 * first timed for a few milliseconds to find how many rounds fill 40 ms, then run five
 * times; that first run also wakes the clock and the threads.
 */
#include "kernel/probe.h"

#include "base/os.h"
#include "kernel/kernel.h"

#include <stdlib.h>
#include <string.h>

enum { RUNS = 5, RUN_US = 40000, READ_PARTS = 512 };
#define READ_BYTES ((size_t)512 << 20)

typedef struct {
    wn_probe_loop *loop;
    long rounds;
    wn_probe_reader *reader;
    const uint8_t *data;
    float sink;                 /* racing writes of no consequence would still be races: */
    double ops;                 /* only part 0 stores either */
} probe_job;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void loop_part(void *arg, int part, int thread)
{
    probe_job *j = arg;
    double ops;
    float v = j->loop(j->rounds, &ops);
    (void)thread;
    if (part == 0) j->sink = v, j->ops = ops;
}

static double ops_per_second(wn_probe_loop *loop, wn_threads *team)
{
    int n = wn_threads_count(team);
    probe_job j = { .loop = loop, .rounds = 1000 };
    double rate[RUNS];
    for (;;) {                                          /* how many rounds are RUN_US? */
        uint64_t start = wn_os_now_us();
        wn_threads_run(team, loop_part, &j, n);
        uint64_t us = wn_os_now_us() - start;
        if (us >= RUN_US / 4) {
            j.rounds = (long)((double)j.rounds * RUN_US / (double)us) + 1;
            break;
        }
        j.rounds *= 4;
    }
    for (int i = 0; i < RUNS; i++) {
        uint64_t start = wn_os_now_us();
        wn_threads_run(team, loop_part, &j, n);
        rate[i] = j.ops * (double)j.rounds * n / ((double)(wn_os_now_us() - start) * 1e-6);
    }
    qsort(rate, RUNS, sizeof *rate, by_value);
    return rate[RUNS / 2];
}

static void read_part(void *arg, int part, int thread)
{
    probe_job *j = arg;
    size_t bytes = READ_BYTES / READ_PARTS;
    uint64_t sum = j->reader(j->data + (size_t)part * bytes, bytes);
    (void)thread;
    if (part == 0) j->sink = (float)sum;
}

static bool on_tiles(void)
{
    return !strcmp(wn_kernels_get()->name, "amx");
}

/* 0, 1, 2: the rank of the current table; amx is avx512 with tiles. */
static int rank(void)
{
    const char *name = wn_kernels_get()->name;
    return !strcmp(name, "avx512") || on_tiles() ? 2 : !strcmp(name, "avx2");
}

double wn_probe_read(wn_threads *team)
{
    wn_probe_reader *const readers[] = { wn_probe_read_scalar, wn_probe_read_avx2,
                                         wn_probe_read_avx512 };
    uint8_t *data = wn_os_map(READ_BYTES, true);
    double rate[RUNS];
    if (!data) return 0;
    memset(data, 1, READ_BYTES);            /* pages of their own, not the shared zero page */
    probe_job j = { .reader = readers[rank()], .data = data };
    wn_threads_run(team, read_part, &j, READ_PARTS);
    for (int i = 0; i < RUNS; i++) {
        uint64_t start = wn_os_now_us();
        wn_threads_run(team, read_part, &j, READ_PARTS);
        rate[i] = (double)READ_BYTES / ((double)(wn_os_now_us() - start) * 1e-6);
    }
    wn_os_unmap(data, READ_BYTES);
    qsort(rate, RUNS, sizeof *rate, by_value);
    return rate[RUNS / 2];
}

double wn_probe_int8(wn_threads *team)
{
    wn_probe_loop *const loops[] = { wn_probe_int8_scalar, wn_probe_int8_avx2,
                                     wn_probe_int8_avx512 };
    return ops_per_second(loops[rank()], team);
}

double wn_probe_int8_tiles(wn_threads *team)
{
    return on_tiles() ? ops_per_second(wn_probe_int8_amx, team) : 0;
}

double wn_probe_f32(wn_threads *team)
{
    wn_probe_loop *const loops[] = { wn_probe_f32_scalar, wn_probe_f32_avx2, wn_probe_f32_avx512 };
    return ops_per_second(loops[rank()], team);
}

double wn_probe_bf16(wn_threads *team)
{
    __builtin_cpu_init();
    if (rank() < 2 || !__builtin_cpu_supports("avx512bf16")) return 0;
    return ops_per_second(wn_probe_bf16_avx512, team);
}
