/* bench/attention.c - attention alone, beside the limits of the machine.
 *
 *     bench/attention [decode|prefill] [head_dim] [context of prefill]
 *
 * decode: one query row per layer against 16384 positions, 32 query heads on 8 KV heads;
 * as many layers as make the cache larger than 512 MB, so that every byte comes from
 * memory. Figure: bytes of K and V per second, and as a share of plain loads, measured
 * just before. prefill: the last 512 rows of a context; figure: multiply-adds (two each)
 * that causality asks for per second, and as a share of the f32 peak. Everything of
 * wn_attend() is inside the timer: rotation, storing K and V, softmax, merging. Outside:
 * filling the cache. CSV: median and best of 7 (decode) or 3 (prefill).
 */
#include "attention/attend.h"
#include "base/alloc.h"
#include "base/os.h"
#include "kernel/probe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 32, KV_HEADS = 8, CHUNK = 512, LAYERS_MAX = 64 };

typedef struct {
    wn_pool *pool;
    wn_kv *kv;
    wn_lane lanes[LAYERS_MAX * KV_HEADS];
    int first[LAYERS_MAX + 1];
    wn_lane_map map;
    int layers, dim;
} cache;

static void die(const char *what)
{
    fprintf(stderr, "attention: %s\n", what);
    exit(1);
}

static float noise(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*s >> 32) * 0x1p-31f;
}

static void fill(cache *c, int n)
{
    size_t row = (size_t)c->dim;
    float *x = wn_alloc_aligned(sizeof(float) * row * CHUNK);
    uint64_t seed = 1;
    for (size_t i = 0; i < row * CHUNK; i++) x[i] = noise(&seed);
    for (int at = 0; at < n; at += CHUNK) {
        int m = WN_MIN(CHUNK, n - at);
        if (wn_kv_reserve(c->kv, m, NULL)) die("the pool is too small");
        for (int l = 0; l < c->map.n_lanes; l++) wn_kv_put(c->kv, l, at, x, row, x, row, m);
        wn_kv_commit(c->kv, m);
    }
    wn_free(x);
}

static cache *open_cache(const wn_format *f, int dim, int layers, int n)
{
    cache *c = calloc(1, sizeof *c);
    int lanes = 0;
    c->layers = layers;
    c->dim = dim;
    for (int l = 0; l < layers; l++) {
        c->first[l] = lanes;
        for (int h = 0; h < KV_HEADS; h++)
            c->lanes[lanes++] = (wn_lane){ (int16_t)l, (int16_t)h, (int16_t)dim, (int16_t)dim, 0 };
    }
    c->first[layers] = lanes;
    c->map = (wn_lane_map){ lanes, layers, c->lanes, c->first };
    wn_kv_opts o = { .map = &c->map, .k_format = f, .v_format = f, .max_positions = n + CHUNK };
    size_t bytes = (size_t)(n / 64 + 9) * (f->k_bytes(64, dim) + f->v_bytes(64, dim)) * (size_t)lanes;
    if (wn_pool_open(&c->pool, &(wn_pool_opts){ .bytes = bytes + (64u << 20), .touch = true }, NULL)) die("out of memory");
    o.pool = c->pool;
    wn_err err;
    if (wn_kv_open(&c->kv, &o, &err)) die(err.text);
    fill(c, n);
    return c;
}

static void close_cache(cache *c)
{
    wn_kv_close(c->kv);
    wn_pool_close(c->pool);
    free(c);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds for n_rows more rows in all layers; sorted, runs of them. */
static void time_pass(cache *c, int n_rows, wn_threads *team, double *s, int runs)
{
    wn_attend_shape shape = { HEADS, KV_HEADS, c->dim, c->dim, 1 / sqrtf((float)c->dim), 0 };
    int n = wn_kv_n(c->kv), threads = wn_threads_count(team);
    size_t qd = (size_t)(HEADS * c->dim), kd = (size_t)(KV_HEADS * c->dim);
    float *q = wn_alloc_aligned((2 * qd + 2 * kd) * 4 * (size_t)n_rows), *k = q + qd * (size_t)n_rows;
    float *v = k + kd * (size_t)n_rows, *out = v + kd * (size_t)n_rows;
    wn_arena arena;
    wn_rope rope;
    uint64_t seed = 3;
    wn_rope_init(&rope, c->dim, true, 500000, 1, NULL);
    if (wn_arena_init(&arena, wn_attend_scratch_bytes(&shape, n_rows, 1, n + n_rows, threads), true, NULL)) die("out of memory");
    wn_attend_item item = { .kv = c->kv, .pos = n, .n_rows = n_rows };
    if (wn_kv_reserve(c->kv, n_rows, NULL)) die("the pool is too small");
    for (int run = -1; run < runs; run++) {
        for (size_t i = 0; i < (qd + 2 * kd) * (size_t)n_rows; i++) q[i] = noise(&seed);
        uint64_t start = wn_os_now_us();
        wn_attend_pass *pass = wn_attend_begin(&shape, &item, 1, &arena, team, NULL);
        for (int l = 0; l < c->layers; l++) {
            wn_attend_args a = { .layer = l, .rope = &rope, .q = q, .k = k, .v = v, .q_stride = qd, .k_stride = kd,
                                 .v_stride = kd, .out = out, .out_stride = qd };
            wn_attend(pass, &a);
        }
        if (run >= 0) s[run] = (double)(wn_os_now_us() - start) * 1e-6;
        wn_arena_rewind(&arena, 0);
    }
    wn_kv_reserve(c->kv, 0, NULL);
    qsort(s, (size_t)runs, sizeof *s, by_value);
    wn_arena_release(&arena);
    wn_free(q);
}

static void decode(wn_threads *const team[2], int only_dim)
{
    enum { RUNS = 7, N = 16384 };
    printf("what,format,head_dim,context,threads,GB/s median,GB/s best,probe GB/s,share,us per layer\n");
    for (int dim = 64; dim <= 128; dim *= 2)
        for (int i = 0; wn_format_at(i) && (!only_dim || dim == only_dim); i++) {
            const wn_format *f = wn_format_at(i);
            size_t row = (f->k_bytes(64, dim) + f->v_bytes(64, dim)) / 64 * KV_HEADS;
            int layers = (int)((544u << 20) / (row * N)) + 1;
            cache *c = open_cache(f, dim, layers, N);
            for (int t = 0; t < 2; t++) {
                double probe = wn_probe_read(team[t]), s[RUNS], bytes = (double)row * (N + 1) * layers;
                time_pass(c, 1, team[t], s, RUNS);
                printf("decode,%s,%d,%d,%d,%.1f,%.1f,%.1f,%.2f,%.0f\n", f->name, dim, N, t + 1, bytes / s[RUNS / 2] * 1e-9,
                       bytes / s[0] * 1e-9, probe * 1e-9, bytes / s[RUNS / 2] / probe, s[RUNS / 2] / layers * 1e6);
                fflush(stdout);
            }
            close_cache(c);
        }
    for (int n = 0; n <= 1024; n += 512) {      /* what a layer costs when there is little to read */
        cache *c = open_cache(&wn_format_f16, 64, 16, n);
        for (int t = 0; t < 2; t++) {
            double s[RUNS];
            time_pass(c, 1, team[t], s, RUNS);
            printf("small,f16,64,%d,%d,,,,,%.1f\n", n, t + 1, s[RUNS / 2] / c->layers * 1e6);
        }
        close_cache(c);
    }
}

static void prefill(wn_threads *const team[2], int only_dim, int only_context)
{
    enum { RUNS = 3 };
    static const int contexts[] = { 512, 8192, 16384 };
    printf("what,format,head_dim,context,threads,GFLOP/s median,GFLOP/s best,peak GFLOP/s,share,ms per layer\n");
    for (int dim = 64; dim <= 128; dim *= 2)
        for (int i = 0; i < 3; i++) {
            int n = contexts[i], layers = i ? 1 : 8;
            if ((only_dim && dim != only_dim) || (only_context && n != only_context)) continue;
            cache *c = open_cache(&wn_format_f16, dim, layers, n - CHUNK);
            double rows = 0;
            for (int p = n - CHUNK; p < n; p++) rows += p + 1;
            double flops = rows * HEADS * 2 * dim * 2 * layers;
            for (int t = 0; t < 2; t++) {
                double peak = wn_probe_f32(team[t]), s[RUNS];
                time_pass(c, CHUNK, team[t], s, RUNS);
                printf("prefill,f16,%d,%d,%d,%.0f,%.0f,%.0f,%.2f,%.2f\n", dim, n, t + 1, flops / s[RUNS / 2] * 1e-9,
                       flops / s[0] * 1e-9, peak * 1e-9, flops / s[RUNS / 2] / peak, s[RUNS / 2] / layers * 1e3);
                fflush(stdout);
            }
            close_cache(c);
        }
}

int main(int argc, char **argv)
{
    wn_threads *team[2];
    if (wn_threads_open(&team[0], 1, NULL) || wn_threads_open(&team[1], 2, NULL)) die("no threads");
    printf("# table %s\n", wn_kernels_get()->name);
    int dim = argc > 2 ? atoi(argv[2]) : 0, context = argc > 3 ? atoi(argv[3]) : 0;
    if (argc < 2 || !strcmp(argv[1], "decode")) decode(team, dim);
    if (argc < 2 || !strcmp(argv[1], "prefill")) prefill(team, dim, context);
    wn_threads_close(team[0]);
    wn_threads_close(team[1]);
    return 0;
}
