/* bench/experts.c - the products of a mixture of experts, as shares of what the machine can do.
 *
 * One layer of gate, up (768 x 2048) and down (2048 x 768) matrices of 128 experts, 8 of them
 * for each token, drawn at random for each call; the experts' matrices are slices of three
 * tall ones. A call is what a layer asks for: prepare and pick the activations, gate and up
 * as one job, prepare again, down. Outside the timer: packing, drawing, the router, the
 * activation function between the jobs. With 1 token weights come from RAM: each call takes
 * other experts, and a layer is larger than the caches (several of them where it is not).
 * Median of 9 (small ones repeated to fill 20 ms); the limits are probed right before.
 *
 *     build/bench/experts [type ...]          default: Q4_K Q8_0
 *
 * CSV: type, threads, tokens, ms of a layer, Gop/s, GB/s of the experts in use, its share of
 * the read limit; and Gop/s of the same work as three plain products, for comparison.
 */
#include "base/alloc.h"
#include "base/os.h"
#include "gguf/noise.h"
#include "kernel/kernel.h"
#include "kernel/matmul.h"
#include "kernel/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 9, EXPERTS = 128, USED = 8, EMBED = 2048, FF = 768, MAX_TOKENS = 512, LAYERS = 2 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct {
    wn_type type;
    wn_matrix gate[LAYERS], up[LAYERS], down[LAYERS];   /* of all experts */
    const float *x;
    float *a, *b, *out;                                 /* (tokens x USED, width) */
    void *act, *picked, *scratch;
    wn_threads *team;
    uint64_t seed;
    int rows[MAX_TOKENS * USED], first[EXPERTS + 1];    /* tokens by expert */
    int n_active;
} bench;

/* USED different experts for each token; rows grouped by expert, in token order. */
static void draw(bench *b, int tokens)
{
    static uint8_t chosen[MAX_TOKENS][EXPERTS];
    memset(chosen, 0, sizeof chosen);
    for (int t = 0; t < tokens; t++)
        for (int n = 0; n < USED;) {
            uint8_t *c = &chosen[t][wn_noise_next(&b->seed) % EXPERTS];
            n += !*c;
            *c = 1;
        }
    int n = 0;
    b->n_active = 0;
    for (int e = 0; e < EXPERTS; e++) {
        b->first[e] = n;
        for (int t = 0; t < tokens; t++)
            if (chosen[t][e]) b->rows[n++] = t;
        b->n_active += n > b->first[e];
    }
    b->first[EXPERTS] = n;
}

static int jobs_of(const bench *b, wn_product *jobs, wn_matrix *w, const wn_matrix *all, int n_rows,
                   float *out)
{
    int n = 0;
    for (int e = 0; e < EXPERTS; e++) {
        int rows = b->first[e + 1] - b->first[e];
        if (!rows) continue;
        w[n] = wn_matrix_slice(all, e * n_rows, n_rows);
        jobs[n] = (wn_product){ .w = &w[n], .out = out + (size_t)b->first[e] * (size_t)n_rows,
                                .out_stride = (size_t)n_rows, .first = b->first[e], .n = rows };
        n++;
    }
    return n;
}

static void layer(bench *b, int i, int tokens)
{
    static wn_product jobs[2 * EXPERTS];
    static wn_matrix w[2 * EXPERTS];
    wn_act_kind kind = wn_act_kind_for(b->type);
    wn_act plain, picked;
    wn_act_prepare(&plain, kind, b->x, tokens, EMBED, b->act, b->team);
    wn_act_pick(&picked, &plain, b->rows, tokens * USED, b->picked, b->team);
    int n = jobs_of(b, jobs, w, &b->gate[i], FF, b->a);
    n += jobs_of(b, jobs + n, w + n, &b->up[i], FF, b->b);
    wn_matmul(jobs, n, &picked, b->scratch, b->team);
    wn_act_prepare(&picked, kind, b->a, tokens * USED, FF, b->picked, b->team);
    n = jobs_of(b, jobs, w, &b->down[i], EMBED, b->out);
    wn_matmul(jobs, n, &picked, b->scratch, b->team);
}

/* The same number of operations with one expert for all rows. */
static double plain_gops(bench *b, int rows)
{
    double ms[RUNS];
    wn_act_kind kind = wn_act_kind_for(b->type);
    wn_matrix gate = wn_matrix_slice(&b->gate[0], 0, FF), up = wn_matrix_slice(&b->up[0], 0, FF);
    wn_matrix down = wn_matrix_slice(&b->down[0], 0, EMBED);
    for (int i = -1; i < RUNS; i++) {
        wn_act a;
        uint64_t start = wn_os_now_us();
        for (int r = 0; r < rows; r += MAX_TOKENS) {
            wn_act_prepare(&a, kind, b->x, MAX_TOKENS, EMBED, b->act, b->team);
            wn_product jobs[] = { { .w = &gate, .out = b->a, .out_stride = FF },
                                  { .w = &up, .out = b->b, .out_stride = FF } };
            wn_matmul(jobs, 2, &a, b->scratch, b->team);
            wn_act_prepare(&a, kind, b->a, MAX_TOKENS, FF, b->act, b->team);
            wn_product last = { .w = &down, .out = b->out, .out_stride = EMBED };
            wn_matmul(&last, 1, &a, b->scratch, b->team);
        }
        if (i >= 0) ms[i] = (double)(wn_os_now_us() - start) / 1e3;
    }
    qsort(ms, RUNS, sizeof *ms, by_value);
    return 6.0 * rows * EMBED * FF / ms[RUNS / 2] / 1e6;
}

static void measure(bench *b, int tokens, double read)
{
    double ms[RUNS];
    int repeat = 1, at = 0, n_active = 0;
    for (int i = -1; i < RUNS; i++) {
        double us = 0;
        for (int r = 0; r < repeat; r++, at++) {
            draw(b, tokens);
            uint64_t start = wn_os_now_us();
            layer(b, at % LAYERS, tokens);
            us += (double)(wn_os_now_us() - start);
        }
        if (i >= 0) ms[i] = us / 1e3 / repeat;
        else repeat = us < 20000 ? (int)(20000 / (us + 1)) + 1 : 1;
        n_active = b->n_active;
    }
    qsort(ms, RUNS, sizeof *ms, by_value);
    double t = ms[RUNS / 2], gops = 6.0 * tokens * USED * EMBED * FF / t / 1e6;
    double bytes = (double)(2 * FF * wn_type_row_bytes(b->type, EMBED) +
                            EMBED * wn_type_row_bytes(b->type, FF));
    double gbs = bytes * n_active / t / 1e6;
    printf("%s,%d,%d,%.3f,%.0f,%.1f,%.3f", wn_type_find((uint32_t)b->type)->name,
           wn_threads_count(b->team), tokens, t, gops, gbs, gbs / read);
    if (tokens * USED >= MAX_TOKENS) printf(",%.0f", plain_gops(b, tokens * USED));
    putchar('\n');
    fflush(stdout);
}

/* A matrix of random codes, packed. */
static wn_matrix make(wn_type t, int n_rows, int n_cols, uint64_t seed)
{
    size_t row = wn_type_row_bytes(t, n_cols), packed = wn_matrix_packed_bytes(t, n_rows, n_cols);
    uint8_t *file = wn_os_map(row * (size_t)n_rows, true), *data = file;
    if (!file) exit(1);
    wn_noise(file, t, (int64_t)n_rows * n_cols, 0, 0.02f, seed);
    if (packed) {
        data = wn_os_map(packed, true);
        if (!data) exit(1);
        wn_matrix_pack(data, file, t, n_rows, n_cols, 0, n_rows);
        wn_os_unmap(file, row * (size_t)n_rows);
    }
    return (wn_matrix){ .type = t, .packed = packed > 0, .n_rows = n_rows, .n_cols = n_cols,
                        .data = data };
}

static void drop(const wn_matrix *w)
{
    wn_os_unmap((void *)(uintptr_t)w->data,
                wn_type_row_bytes(w->type, w->n_cols) * (size_t)w->n_rows);
}

static int type(wn_type t)
{
    static const int tokens[] = { 1, 2, 4, 16, 64, 512 };
    static bench b;
    size_t rows = (size_t)MAX_TOKENS * USED;
    float *x = wn_alloc_aligned(sizeof(float) * MAX_TOKENS * EMBED);
    b = (bench){ .type = t, .x = x, .seed = 5 };
    b.a = wn_alloc_aligned(sizeof(float) * rows * FF);
    b.b = wn_alloc_aligned(sizeof(float) * rows * FF);
    b.out = wn_alloc_aligned(sizeof(float) * rows * EMBED);
    b.act = wn_alloc_aligned(wn_act_bytes(wn_act_kind_for(t), MAX_TOKENS, EMBED) + 64);
    b.picked = wn_alloc_aligned(wn_act_pick_bytes(wn_act_kind_for(t), (int)rows, EMBED));
    b.scratch = wn_alloc_aligned(wn_matmul_scratch_bytes(2));
    if (!x || !b.a || !b.b || !b.out || !b.act || !b.picked || !b.scratch) return 1;
    wn_noise(x, WN_TYPE_F32, MAX_TOKENS * EMBED, 0, 1, 1);
    for (int i = 0; i < LAYERS; i++) {
        b.gate[i] = make(t, EXPERTS * FF, EMBED, 1);
        b.up[i] = make(t, EXPERTS * FF, EMBED, 2);
        b.down[i] = make(t, EXPERTS * EMBED, FF, 3);
    }
    for (int threads = 1; threads <= 2; threads++) {
        if (wn_threads_open(&b.team, threads, NULL)) return 1;
        for (size_t i = 0; i < WN_COUNT(tokens); i++) {
            double read = wn_probe_read(b.team) / 1e9;
            measure(&b, tokens[i], read);
        }
        wn_threads_close(b.team);
    }
    for (int i = 0; i < LAYERS; i++) drop(&b.gate[i]), drop(&b.up[i]), drop(&b.down[i]);
    wn_free(x), wn_free(b.a), wn_free(b.b), wn_free(b.out), wn_free(b.act), wn_free(b.picked);
    wn_free(b.scratch);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const all[] = { "Q4_K", "Q8_0" };
    int n = argc > 1 ? argc - 1 : (int)WN_COUNT(all);
    printf("# table %s\ntype,threads,tokens,ms,gops,gbs,share_read,plain_gops\n",
           wn_kernels_get()->name);
    for (int i = 0; i < n; i++) {
        int t = wn_type_by_name(argc > 1 ? argv[1 + i] : all[i]);
        if (t < 0 || !wn_noise_knows((wn_type)t)) return 2;
        if (type((wn_type)t)) return 1;
    }
    return 0;
}
