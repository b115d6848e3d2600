/* bench/matmul.c - the matrix kernels alone, as shares of what the machine can do.
 *
 * Two shapes (K columns, N rows), 1 and 2 threads, 1 to 512 tokens. Outside the timer:
 * packing, preparing activations (its own column), allocation. For up to 16 tokens the
 * calls walk through copies of the matrix of more than 600 MB together, so that weights
 * come from RAM; above, one matrix is used again. Median of 7 (small ones repeated to
 * fill 20 ms). The limits are probed right before each type and thread count.
 *
 *     build/bench/matmul [-q] [type ...]      default: all; -q: 1 and 512 tokens only
 *
 * CSV: type, K, N, threads, tokens, ms, Gop/s, share of the compute limit (int8 for
 * quantised types, f32 for the others), GB/s of weights, share of the read limit, ms to
 * prepare. The int8 limit is vpdpbusd's where there is one, also for amx, which may
 * pass it; the peak of tiles is printed beside it.
 * On avx2 the int8 limit is maddubs + madd + add; types with codes below 8 bits
 * need fewer instructions than that and may exceed it.
 */
#include "base/alloc.h"
#include "base/os.h"
#include "kernel/kernel.h"
#include "kernel/matmul.h"
#include "kernel/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 7, MAX_TOKENS = 512 };
#define STREAM_BYTES ((size_t)640 << 20)

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct {
    wn_matrix w;
    size_t bytes;               /* of one copy */
    int copies;
    uint8_t *all;
    const float *x;
    float *out;
    void *act, *scratch;
    wn_threads *team;
    double read, compute;
} bench;

static void one(bench *b, const wn_act *a, int *copy)
{
    wn_matrix w = b->w;
    w.data = b->all + (size_t)*copy * b->bytes;
    *copy = (*copy + 1) % b->copies;
    wn_product p = { .w = &w, .out = b->out, .out_stride = (size_t)w.n_rows };
    wn_matmul(&p, 1, a, b->scratch, b->team);
}

static void measure(bench *b, int tokens)
{
    double ms[RUNS], prepare[RUNS];
    wn_act a;
    int copy = 0, keep = b->copies, repeat = 1;
    if (tokens > 16) b->copies = 1;
    for (int i = -1; i < RUNS; i++) {
        uint64_t start = wn_os_now_us();
        wn_act_prepare(&a, wn_act_kind_for(b->w.type), b->x, tokens, b->w.n_cols, b->act, b->team);
        double us = (double)(wn_os_now_us() - start);
        if (i >= 0) prepare[i] = us / 1e3;
        start = wn_os_now_us();
        for (int r = 0; r < repeat; r++) one(b, &a, &copy);
        us = (double)(wn_os_now_us() - start);
        if (i >= 0) ms[i] = us / 1e3 / repeat;
        else repeat = us < 20000 ? (int)(20000 / (us + 1)) + 1 : 1;
    }
    b->copies = keep;
    qsort(ms, RUNS, sizeof *ms, by_value);
    qsort(prepare, RUNS, sizeof *prepare, by_value);
    double t = ms[RUNS / 2], ops = 2.0 * b->w.n_rows * b->w.n_cols * tokens / t / 1e6;
    double bandwidth = (double)b->bytes / t / 1e6;
    printf("%s,%d,%d,%d,%d,%.3f,%.0f,%.3f,%.1f,%.3f,%.3f\n",
           wn_type_find((uint32_t)b->w.type)->name, b->w.n_cols, b->w.n_rows,
           wn_threads_count(b->team), tokens, t, ops, ops / b->compute, bandwidth,
           bandwidth / b->read, prepare[RUNS / 2]);
    fflush(stdout);
}

static int shape(wn_type t, int n_cols, int n_rows, wn_threads *team, bool quick)
{
    static const int tokens[] = { 1, 2, 4, 8, 16, 64, 512 };
    size_t row = wn_type_row_bytes(t, n_cols), packed = wn_matrix_packed_bytes(t, n_rows, n_cols);
    bench b = { .w = { .type = t, .packed = packed > 0, .n_rows = n_rows, .n_cols = n_cols },
                .team = team };
    b.bytes = row * (size_t)n_rows;
    b.copies = (int)(STREAM_BYTES / b.bytes) + 1;
    b.all = wn_os_map(b.bytes * (size_t)b.copies, true);
    b.out = wn_alloc_aligned(sizeof(float) * MAX_TOKENS * (size_t)n_rows);
    float *x = wn_alloc_aligned(sizeof(float) * MAX_TOKENS * (size_t)n_cols);
    b.act = wn_alloc_aligned(wn_act_bytes(wn_act_kind_for(t), MAX_TOKENS, n_cols) + 64);
    b.scratch = wn_alloc_aligned(wn_matmul_scratch_bytes(wn_threads_count(team)));
    uint8_t *file = wn_alloc(b.bytes);
    if (!b.all || !b.out || !x || !b.act || !b.scratch || !file) return 1;
    float *values = wn_alloc(sizeof(float) * (size_t)n_cols);
    uint32_t seed = 1;
    for (int i = 0; i < MAX_TOKENS * n_cols; i++)
        x[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) * 0x1p-23f - 1;
    for (int r = 0; r < n_rows; r++) {
        if (r < 16) {
            memcpy(values, x + (size_t)r * 77, sizeof(float) * (size_t)n_cols);
            wn_type_find((uint32_t)t)->encode(file + (size_t)r * row, values, n_cols);
        } else {
            memcpy(file + (size_t)r * row, file + (size_t)(r % 16) * row, row);
        }
    }
    if (packed) wn_matrix_pack(b.all, file, t, n_rows, n_cols, 0, n_rows);
    else memcpy(b.all, file, b.bytes);
    for (int c = 1; c < b.copies; c++) memcpy(b.all + (size_t)c * b.bytes, b.all, b.bytes);
    b.x = x;
    b.read = wn_probe_read(team) / 1e9;
    bool is_float = wn_act_kind_for(t) == WN_ACT_F32;
    double tiles = is_float ? 0 : wn_probe_int8_tiles(team) / 1e9;
    b.compute = (is_float ? wn_probe_f32(team) : wn_probe_int8(team)) / 1e9;
    printf("# read %.1f GB/s, %s %.0f Gop/s", b.read, is_float ? "f32" : "int8", b.compute);
    if (tiles > 0) printf(", on tiles %.0f Gop/s", tiles);
    putchar('\n');
    for (size_t i = 0; i < WN_COUNT(tokens); i++)
        if (!quick || tokens[i] == 1 || tokens[i] == 512) measure(&b, tokens[i]);
    wn_os_unmap(b.all, b.bytes * (size_t)b.copies);
    wn_free(b.out), wn_free(x), wn_free(b.act), wn_free(b.scratch), wn_free(file), wn_free(values);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const all[] = { "Q8_0",   "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL",
                                       "MXFP4",  "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
                                       "IQ4_XS", "F16",  "BF16", "F32" };
    bool quick = argc > 1 && !strcmp(argv[1], "-q");
    int first = quick ? 2 : 1, n = argc > first ? argc - first : (int)WN_COUNT(all);
    printf("# table %s\ntype,K,N,threads,tokens,ms,gops,share_compute,gbs,share_read,prepare_ms\n",
           wn_kernels_get()->name);
    for (int i = 0; i < n; i++) {
        int t = wn_type_by_name(argc > first ? argv[first + i] : all[i]);
        if (t < 0) return 2;
        for (int threads = 1; threads <= 2; threads++) {
            wn_threads *team;
            if (wn_threads_open(&team, threads, NULL)) return 1;
            int st = shape((wn_type)t, 2048, 8192, team, quick) ||
                     shape((wn_type)t, 8192, 2048, team, quick);
            wn_threads_close(team);
            if (st) return 1;
        }
    }
    return 0;
}
