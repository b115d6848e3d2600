/* bench/attention.c - attention alone, beside the limits of the machine.
 *
 *     bench/attention [decode|prefill] [head_dim] [context of prefill]
 *     bench/attention formats [head_dim [format ...]]
 *
 * decode: one query row per layer against 16384 positions, 32 query heads on 8 KV heads;
 * as many layers as make the cache larger than 512 MB, so that every byte comes from
 * memory. Figure: bytes of K and V per second, and as a share of plain loads, measured
 * just before. prefill: the last 512 rows of a context; figure: multiply-adds (two each)
 * that causality asks for per second, and as a share of the f32 peak. Everything of
 * wn_attend() is inside the timer: rotation, storing K and V, softmax, merging. Outside:
 * filling the cache. CSV: median and best of 7 (decode) or 3 (prefill).
 * formats: encoded caches as decode does, 2 threads, less the time at depth 0, each beside f16
 * timed right after it; integer products, each of two bytes of x, as a share of the int8 limit;
 * then 64 rows of a prompt at 8192 beside f16, and what encoding a page costs. Calibrated formats,
 * where they are named, read by books of random numbers, each lane by its own; coupled codes are
 * drawn, since finding a quarter of a billion takes minutes.
 */
#include "attention/attend.h"
#include "base/alloc.h"
#include "base/os.h"
#include "kernel/elem.h"
#include "kernel/probe.h"
#include "page/cq.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 32, KV_HEADS = 8, CHUNK = 512, LAYERS_MAX = 272 };

typedef struct {
    wn_pool *pool;
    wn_kv *kv;
    wn_lane lanes[LAYERS_MAX * KV_HEADS];
    int first[LAYERS_MAX + 1];
    wn_lane_map map;
    int layers, dim;
    wn_format *formats;                 /* of calibrated lanes: K and V of each, with their books */
    wn_book *books;
    float *numbers[2];
    char *read;
    wn_turn turn;
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

static const wn_format *drawn;           /* whose codes are drawn, not found */

static void draw_codes(const wn_book *b, void *frame, const void *raw, const wn_format *raw_format,
                       int P, int n, uint64_t keep, int dim, wn_page_place place)
{
    uint64_t seed = (uint64_t)(uintptr_t)frame;
    uint8_t *codes = frame;
    (void)b, (void)raw, (void)raw_format, (void)n, (void)keep, (void)place;
    for (size_t i = 0; i < drawn->k_bytes(P, dim); i++)
        codes[i] = (uint8_t)((noise(&seed) + 1) * 127);
}

/* Copies of a calibrated format for every lane: K's numbers are the same everywhere, V's too, but
 * each side of a lane reads by a table of its own. */
static void make_books(cache *c, const wn_format *f, wn_lane_formats *lanes)
{
    static wn_calibrated quick;
    size_t bytes[2], n = (size_t)c->map.n_lanes * 2;
    wn_rope rope;
    uint64_t seed = 7;
    wn_rope_init(&rope, c->dim, true, 500000, 1, NULL);
    if (wn_turn_init(&c->turn, c->dim, true, rope.rate, 1 << 15, NULL)) die("out of memory");
    for (int v = 0; v < 2; v++) {
        size_t numbers = f->calibrated->numbers(c->dim, v);
        bytes[v] = f->calibrated->read_bytes(c->dim, v);
        c->numbers[v] = wn_alloc_aligned(sizeof(float) * numbers);
        for (size_t i = 0; i < numbers; i++)
            c->numbers[v][i] = wn_elem_from_f16(wn_elem_to_f16(noise(&seed)));
    }
    c->formats = calloc(n, sizeof *c->formats);
    c->books = calloc(n, sizeof *c->books);
    c->read = wn_alloc_aligned((bytes[0] + bytes[1]) * n / 2);
    quick = *f->calibrated;
    if (wn_cq_coupled(f)) drawn = f, quick.encode = draw_codes;
    char *to = c->read;
    for (size_t i = 0; i < n; i++, to += bytes[(i - 1) % 2]) {
        c->books[i] = (wn_book){ .x = c->numbers[i % 2], .turn = i % 2 ? NULL : &c->turn,
                                 .of_v = i % 2 };
        wn_book_prepare(&c->books[i], f, to, c->dim);
        c->formats[i] = *f;
        c->formats[i].calibrated = &quick;
        c->formats[i].book = &c->books[i];
        *(i % 2 ? &lanes[i / 2].v : &lanes[i / 2].k) = &c->formats[i];
    }
}

static void release_books(cache *c)
{
    wn_turn_release(&c->turn);
    for (int v = 0; v < 2; v++) wn_free(c->numbers[v]);
    wn_free(c->read);
    free(c->formats);
    free(c->books);
}

static cache *open_cache(const wn_format *f, int dim, int layers, int n)
{
    static wn_lane_formats formats[LAYERS_MAX * KV_HEADS];
    cache *c = calloc(1, sizeof *c);
    int lanes = 0;
    if (layers > LAYERS_MAX) die("too many layers");
    c->layers = layers;
    c->dim = dim;
    for (int l = 0; l < layers; l++) {
        c->first[l] = lanes;
        for (int h = 0; h < KV_HEADS; h++)
            c->lanes[lanes++] = (wn_lane){ (int16_t)l, (int16_t)h, (int16_t)dim, (int16_t)dim, 0 };
    }
    c->first[layers] = lanes;
    c->map = (wn_lane_map){ lanes, layers, c->lanes, c->first };
    if (f->calibrated) make_books(c, f, formats);
    wn_kv_opts o = { .map = &c->map, .k_format = f, .v_format = f,
                     .formats = f->calibrated ? formats : NULL, .max_positions = n + CHUNK };
    size_t raw = (size_t)(2 * CHUNK / 64 + 4) *
                 (wn_format_f16.k_bytes(64, dim) + wn_format_f16.v_bytes(64, dim)) * (size_t)lanes;
    size_t bytes = (size_t)(n / 64 + 9) * (f->k_bytes(64, dim) + f->v_bytes(64, dim)) *
                   (size_t)lanes;
    if (wn_pool_open(&c->pool,
                     &(wn_pool_opts){ .bytes = bytes + (f->raw ? 0 : raw) + (64u << 20),
                                      .touch = true },
                     NULL))
        die("out of memory");
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
    release_books(c);
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
    float *q = wn_alloc_aligned((2 * qd + 2 * kd) * 4 * (size_t)n_rows),
          *k = q + qd * (size_t)n_rows;
    float *v = k + kd * (size_t)n_rows, *out = v + kd * (size_t)n_rows;
    wn_arena arena;
    wn_rope rope;
    uint64_t seed = 3;
    wn_rope_init(&rope, c->dim, true, 500000, 1, NULL);
    if (wn_arena_init(&arena, wn_attend_scratch_bytes(&shape, n_rows, 1, n + n_rows, threads), true,
                      NULL))
        die("out of memory");
    wn_attend_item item = { .kv = c->kv, .pos = n, .n_rows = n_rows };
    if (wn_kv_reserve(c->kv, n_rows, NULL)) die("the pool is too small");
    for (int run = -1; run < runs; run++) {
        for (size_t i = 0; i < (qd + 2 * kd) * (size_t)n_rows; i++) q[i] = noise(&seed);
        uint64_t start = wn_os_now_us();
        wn_attend_pass *pass = wn_attend_begin(&shape, &item, 1, &arena, team, NULL);
        for (int l = 0; l < c->layers; l++) {
            wn_attend_args a = { .layer = l, .rope = &rope, .q = q, .k = k, .v = v, .q_stride = qd,
                                 .k_stride = kd, .v_stride = kd, .out = out, .out_stride = qd };
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

static int layers_for(const wn_format *f, int dim, int n)
{
    size_t row = (f->k_bytes(64, dim) + f->v_bytes(64, dim)) / 64 * KV_HEADS;
    return (int)((544u << 20) / (row * (size_t)n)) + 1;
}

static void decode(wn_threads *const team[2], int only_dim)
{
    enum { RUNS = 7, N = 16384 };
    printf("what,format,head_dim,context,threads,GB/s median,GB/s best,probe GB/s,share,us per "
           "layer\n");
    for (int dim = 64; dim <= 128; dim *= 2)
        for (int i = 0; wn_format_at(i) && (!only_dim || dim == only_dim); i++) {
            const wn_format *f = wn_format_at(i);
            if (!f->raw) break;                         /* see formats() */
            size_t row = (f->k_bytes(64, dim) + f->v_bytes(64, dim)) / 64 * KV_HEADS;
            int layers = layers_for(f, dim, N);
            cache *c = open_cache(f, dim, layers, N);
            for (int t = 0; t < 2; t++) {
                double probe = wn_probe_read(team[t]), s[RUNS],
                       bytes = (double)row * (N + 1) * layers;
                time_pass(c, 1, team[t], s, RUNS);
                printf("decode,%s,%d,%d,%d,%.1f,%.1f,%.1f,%.2f,%.0f\n", f->name, dim, N, t + 1,
                       bytes / s[RUNS / 2] * 1e-9, bytes / s[0] * 1e-9, probe * 1e-9,
                       bytes / s[RUNS / 2] / probe, s[RUNS / 2] / layers * 1e6);
                fflush(stdout);
            }
            close_cache(c);
        }
    for (int n = 0; n <= 1024; n += 512) {      /* what a layer costs when there is little to
                                                   read */
        cache *c = open_cache(&wn_format_f16, 64, 16, n);
        for (int t = 0; t < 2; t++) {
            double s[RUNS];
            time_pass(c, 1, team[t], s, RUNS);
            printf("small,f16,64,%d,%d,,,,,%.1f\n", n, t + 1, s[RUNS / 2] / c->layers * 1e6);
        }
        close_cache(c);
    }
}

/* Microseconds of a layer for a page of K and one of V. */
static double encode_us(const wn_format *f, int dim)
{
    cache c = { .dim = dim, .map.n_lanes = 1 };
    wn_lane_formats own = { f, f, NULL, NULL };
    if (f->calibrated) {
        make_books(&c, f, &own);
        for (int v = 0; v < 2; v++) c.formats[v].calibrated = f->calibrated;            /* found */
    }
    const int times = f->calibrated ? 100 : 2000;
    size_t raw = wn_format_f16.k_bytes(64, dim);
    char *page = wn_alloc_aligned(raw),
         *to = wn_alloc_aligned(f->k_bytes(64, dim) + f->v_bytes(64, dim));
    float *row = wn_alloc_aligned(sizeof(float) * (size_t)dim * 64);
    uint64_t seed = 5;
    for (int i = 0; i < dim * 64; i++) row[i] = noise(&seed);
    wn_format_f16.put_k(page, 64, 0, row, (size_t)dim, 64, dim);
    uint64_t start = wn_os_now_us();
    for (int i = 0; i < times; i++) {
        wn_format_encode_k(own.k, to, page, &wn_format_f16, 64, 64, ~0ull, dim,
                           (wn_page_place){ 0 });
        wn_format_encode_v(own.v, to, page, &wn_format_f16, 64, 64, ~0ull, dim);
    }
    double us = (double)(wn_os_now_us() - start) / times;
    wn_free(page);
    wn_free(to);
    wn_free(row);
    if (f->calibrated) release_books(&c);
    return us;
}

static void formats(wn_threads *team, int only_dim, char **names, int n_names)
{
    /* off a border: no page is sealed in the step */
    enum { RUNS = 7, N = 16384 + 31, PROMPT = 8192 };
    printf("what,format,head_dim,bits,us per layer,f16,ratio,GB/s,probe GB/s,share,Gop/s,int8 "
           "Gop/s,share,"
           "prefill ms per layer,f16,ratio,us to encode a slot\n");
    for (int dim = 64; dim <= 128; dim *= 2) {
        if (only_dim && dim != only_dim) continue;
        double s[RUNS], none;
        cache *c = open_cache(&wn_format_f16, dim, 64, 0);
        time_pass(c, 1, team, s, RUNS);
        none = s[RUNS / 2] / c->layers;
        close_cache(c);
        cache *f16 = open_cache(&wn_format_f16, dim, layers_for(&wn_format_f16, dim, N), N);
        cache *f16_prompt = open_cache(&wn_format_f16, dim, 2, PROMPT);
        for (int i = 0; wn_format_at(i); i++) {
            const wn_format *f = wn_format_at(i);
            bool wanted = n_names == 0 && !f->raw && !f->calibrated;
            for (int k = 0; k < n_names; k++) wanted |= !strcmp(names[k], f->name);
            if (!wanted) continue;
            double page = (double)(f->k_bytes(64, dim) + f->v_bytes(64, dim)), base, ms[2];
            c = open_cache(f, dim, layers_for(f, dim, N), N);
            double probe = wn_probe_read(team), int8 = wn_probe_int8(team);
            time_pass(c, 1, team, s, RUNS);
            double t = s[RUNS / 2] / c->layers - none;
            close_cache(c);
            time_pass(f16, 1, team, s, RUNS);
            base = s[RUNS / 2] / f16->layers - none;
            c = open_cache(f, dim, 2, PROMPT);
            for (int k = 0; k < 2; k++) {
                time_pass(k ? f16_prompt : c, 64, team, s, 3);
                ms[k] = s[1] / 2 * 1e3;
            }
            close_cache(c);
            double bytes = page / 64 * KV_HEADS * N, ops = 2.0 * 2 * 2 * HEADS * dim * N;
            printf("formats,%s,%d,%.3f,%.0f,%.0f,%.2f,%.1f,%.1f,%.2f,%.0f,%.0f,%.2f,%.2f,%.2f,%.2f,"
                   "%.3f\n",
                   f->name, dim, page * 8 / 128 / dim, t * 1e6, base * 1e6, base / t,
                   bytes / t * 1e-9, probe * 1e-9, bytes / t / probe, ops / t * 1e-9, int8 * 1e-9,
                   ops / t / int8, ms[0], ms[1], ms[1] / ms[0], encode_us(f, dim) / 64);
            fflush(stdout);
        }
        close_cache(f16);
        close_cache(f16_prompt);
    }
}

/* What computing alone takes: a layer that stays in the second cache, as 16384 positions of it. */
static void cached(wn_threads *const team[2], int only_dim, char **names, int n_names)
{
    enum { RUNS = 199, N = 1024 + 31, SHOWN = 16384 };
    printf("what,format,head_dim,threads,us per layer of 16384,int8 share\n");
    for (int dim = 64; dim <= 128; dim *= 2) {
        if (only_dim && dim != only_dim) continue;
        for (int i = 0; wn_format_at(i); i++) {
            const wn_format *f = wn_format_at(i);
            bool wanted = n_names == 0 && !f->calibrated;
            for (int k = 0; k < n_names; k++) wanted |= !strcmp(names[k], f->name);
            for (int t = 0; t < 2 && wanted; t++) {
                double s[RUNS], none, int8 = wn_probe_int8(team[t]),
                                      ops = 2.0 * 2 * 2 * HEADS * dim * SHOWN;
                cache *c = open_cache(f, dim, 1, 0);
                time_pass(c, 1, team[t], s, RUNS);
                none = s[0];
                close_cache(c);
                c = open_cache(f, dim, 1, N);
                time_pass(c, 1, team[t], s, RUNS);
                double us = (s[0] - none) * SHOWN / N;
                printf("cached,%s,%d,%d,%.0f,%.2f\n", f->name, dim, t + 1, us * 1e6,
                       ops / us / int8);
                fflush(stdout);
                close_cache(c);
            }
        }
    }
}

static void prefill(wn_threads *const team[2], int only_dim, int only_context)
{
    enum { RUNS = 3 };
    static const int contexts[] = { 512, 8192, 16384 };
    printf("what,format,head_dim,context,threads,GFLOP/s median,GFLOP/s best,peak GFLOP/s,share,ms "
           "per layer\n");
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
                printf("prefill,f16,%d,%d,%d,%.0f,%.0f,%.0f,%.2f,%.2f\n", dim, n, t + 1,
                       flops / s[RUNS / 2] * 1e-9, flops / s[0] * 1e-9, peak * 1e-9,
                       flops / s[RUNS / 2] / peak, s[RUNS / 2] / layers * 1e3);
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
    if (argc > 1 && !strcmp(argv[1], "formats"))
        formats(team[1], dim, argv + 3, argc > 3 ? argc - 3 : 0);
    if (argc > 1 && !strcmp(argv[1], "cached"))
        cached(team, dim, argv + 3, argc > 3 ? argc - 3 : 0);
    if (argc < 2 || !strcmp(argv[1], "prefill")) prefill(team, dim, context);
    wn_threads_close(team[0]);
    wn_threads_close(team[1]);
    return 0;
}
