/* cli/bench.c - `winnow bench`: how fast, and how near to what the machine can do.
 *
 * For each depth d the cache is filled to d positions, then timed, each `-r` times and
 * with the median taken: a prompt chunk of `-p` tokens on top of d (truncated again), and
 * `-n` single tokens. Before each depth the machine's limits are measured (read bandwidth
 * and int8 rate drift by the minute on shared machines), so that every figure stands
 * beside the limit of its own minute:
 *
 *     prefill share   2 x multiply-adds of the matrices per second / int8 peak of vector
 *                     instructions, one yardstick for all kernel tables (tiles may pass it;
 *                     their own peak stands beside it)
 *     decode share    (weights + cache bytes read) per second / read bandwidth
 *
 * Attention is timed apart. Outside the timers: loading, filling to the depth, sampling.
 *
 * With a policy (--kv) or encoded formats each timing runs on a fork, because what a decision
 * dropped and the raw rows of sealed pages do not come back by truncating: the sequence would be
 * computed anew, inside the timer. With a policy a mark stands before the chunk's last token, so
 * that policies that decide at marks do so inside the timer, like those that decide at boundaries:
 * a chunk is computed, then the cache is made small. Single tokens follow a mark at d; decisions at
 * boundaries among them are in their time. The cache column is what is held after the decision at
 * d.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/long.h"
#include "cli/models.h"
#include "cli/policy.h"

#include "base/alloc.h"
#include "base/os.h"
#include "winnow_policy.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_DEPTHS = 32, MAX_REPS = 101 };

typedef struct {
    const char *model, *depths, *k_type, *v_type, *kv, *lib, *profile, *calibration;
    long threads, prompt, n, reps, batch, n_ctx, page_slots;
    size_t mem;
    bool limits, json, csv, no_repack;
    bool forks;                         /* each timing runs on one */
} options;

typedef struct {
    int depth;
    double prefill_tps, prefill_attn_ms, prefill_share;
    double decode_tps, decode_ms, decode_attn_ms, decode_share, attn_gbs;
    size_t kv_bytes;
    double kept;                        /* live slots, as a share of the full cache's */
    wn_limits lim;
} row;

typedef struct {
    const options *o;
    wn_model *m;
    wn_engine *e;
    wn_seq *s;                          /* filled to the depth at hand */
    wn_model_info mi;
    double load_s;
    int depths[MAX_DEPTHS], n_depths;
} bench;

typedef struct { double s, attn_ms; } timing;   /* of one repetition: all of it, and attention */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

/* Of each of the two figures by itself. */
static timing median_timing(const timing *t, int n)
{
    double s[MAX_REPS], attn_ms[MAX_REPS];
    for (int i = 0; i < n; i++) {
        s[i] = t[i].s;
        attn_ms[i] = t[i].attn_ms;
    }
    return (timing){ median(s, n), median(attn_ms, n) };
}

/* A timing goes from begin_timing(), which empties the engine's count of attention, to
 * end_timing(). */
static double begin_timing(const bench *b)
{
    wn_engine_attention_us(b->e, true);
    return wn_cli_now();
}

static timing end_timing(const bench *b, double t0)
{
    double s = wn_cli_now() - t0;
    return (timing){ s, (double)wn_engine_attention_us(b->e, true) * 1e-3 };
}

/* Token ids that are no pattern and the same in every run. */
static int32_t token_at(int i, int n_vocab)
{
    return (int32_t)(((uint64_t)i * 7919u + 13u) % (uint64_t)n_vocab);
}

static wn_status feed_and_run(const bench *b, wn_seq *s, int n, bool progress, wn_err *err)
{
    int from = wn_seq_n_tokens(s), rows;
    double last = wn_cli_now();
    for (int i = 0; i < n; i++) {
        int32_t id = token_at(from + i, b->mi.n_vocab);
        wn_status st = wn_seq_feed(s, &id, 1, err);
        if (st) return st;
    }
    do {
        wn_status st = wn_engine_step(b->e, &rows, err);
        if (st) return st;
        if (progress && wn_cli_now() - last > 0.2) {
            last = wn_cli_now();
            fprintf(stderr, "\rfilling the cache: %d of %d positions ", wn_seq_n_done(s), from + n);
        }
    } while (rows > 0);
    if (progress) fputs("\r\033[K", stderr);
    return WN_OK;
}

/* ---- figures of a row ------------------------------------------------------------------------ */

static void take_prefill(const bench *b, row *r, const timing *t)
{
    timing m = median_timing(t, (int)b->o->reps);
    r->prefill_tps = (double)b->o->prompt / m.s;
    r->prefill_attn_ms = m.attn_ms;
    r->prefill_share = r->lim.int8_ops_per_s > 0
                           ? 2.0 * (double)b->mi.body_macs * r->prefill_tps / r->lim.int8_ops_per_s
                           : 0;
}

/* t: of a token; kv_read: bytes of the cache that it reads. */
static void take_decode(const bench *b, row *r, const timing *t, double kv_read)
{
    timing m = median_timing(t, (int)b->o->reps);
    r->decode_ms = m.s * 1e3;
    r->decode_tps = 1 / m.s;
    r->decode_attn_ms = m.attn_ms;
    r->decode_share = ((double)b->mi.step_bytes + kv_read) / m.s / r->lim.read_bytes_per_s;
    r->attn_gbs = kv_read > 0 ? kv_read / (r->decode_attn_ms * 1e-3) * 1e-9 : 0;
}

static void take_cache(row *r, const wn_seq *s)
{
    wn_seq_stats st;
    wn_seq_get_stats(s, &st);
    r->kv_bytes = st.kv_bytes;
    r->kept = st.kv_slots_full ? (double)st.kv_slots / (double)st.kv_slots_full : 1;
}

/* ---- one depth, on forks --------------------------------------------------------------------- */

/* The -n single tokens, a token's share of the time. */
static wn_status time_single(const bench *b, wn_seq *s, timing *t, wn_err *err)
{
    double n = (double)b->o->n, t0 = begin_timing(b);
    wn_status st = WN_OK;
    for (int k = 0; k < b->o->n && !st; k++) st = feed_and_run(b, s, 1, false, err);
    *t = end_timing(b, t0);
    t->s /= n;
    t->attn_ms /= n;
    return st;
}

/* With a policy all of the chunk but one token, a mark, and that token: the decision is taken
 * before it. */
static wn_status fork_chunk(const bench *b, timing *t, wn_err *err)
{
    wn_seq *f;
    wn_status st = wn_seq_fork(&f, b->s, NULL, err);
    if (st) return st;
    double t0 = begin_timing(b);
    int last = b->o->kv ? 1 : 0;
    if (!(st = feed_and_run(b, f, (int)b->o->prompt - last, false, err)) && last &&
        !(st = wn_seq_mark(f, err)))
        st = feed_and_run(b, f, last, false, err);
    *t = end_timing(b, t0);
    wn_seq_close(f);
    return st;
}

/* A mark at the depth if there is a policy, one token for its decision, then the timed ones. */
static wn_status fork_tokens(const bench *b, row *r, timing *t, wn_err *err)
{
    wn_seq *f;
    wn_status st = wn_seq_fork(&f, b->s, NULL, err);
    if (st) return st;
    if (b->o->kv) st = wn_seq_mark(f, err);
    if (!st) st = feed_and_run(b, f, 1, false, err);
    take_cache(r, f);
    if (!st) st = time_single(b, f, t, err);
    wn_seq_close(f);
    return st;
}

static wn_status measure_on_forks(const bench *b, row *r, wn_err *err)
{
    const options *o = b->o;
    timing t[MAX_REPS + 1];
    wn_status st = WN_OK;
    for (int i = 0; i < o->reps + 1 && !st; i++) st = fork_chunk(b, &t[i], err);
    if (st) return st;
    take_prefill(b, r, t + 1);                      /* the first is the warm-up */
    for (int i = 0; i < o->reps && !st; i++) st = fork_tokens(b, r, &t[i], err);
    if (st) return st;
    take_decode(b, r, t,
                r->depth ? (double)wn_seq_read_bytes(b->s, r->depth + (int)o->n / 2) * r->kept : 0);
    return WN_OK;
}

/* ---- one depth, truncated again -------------------------------------------------------------- */

static wn_status time_chunks(const bench *b, int depth, timing *t, wn_err *err)
{
    wn_status st;
    for (int i = 0; i < b->o->reps + 1; i++) {      /* the first is the warm-up */
        double t0 = begin_timing(b);
        if ((st = feed_and_run(b, b->s, (int)b->o->prompt, false, err))) return st;
        if (i) t[i - 1] = end_timing(b, t0);
        if ((st = wn_seq_truncate(b->s, depth, err))) return st;
    }
    return WN_OK;
}

static wn_status measure_in_place(const bench *b, row *r, wn_err *err)
{
    timing t[MAX_REPS];
    int d = r->depth;
    wn_status st = time_chunks(b, d, t, err);
    if (st) return st;
    take_prefill(b, r, t);
    if (d == 0 && (st = feed_and_run(b, b->s, 1, false, err))) return st;
    take_cache(r, b->s);
    for (int i = 0; i < b->o->reps; i++)
        if ((st = time_single(b, b->s, &t[i], err)) || (st = wn_seq_truncate(b->s, d ? d : 1, err)))
            return st;
    take_decode(b, r, t, d ? (double)wn_seq_read_bytes(b->s, d + (int)b->o->n / 2) : 0);
    return d == 0 ? wn_seq_truncate(b->s, 0, err) : WN_OK;
}

static wn_status measure(const bench *b, row *r, wn_err *err)
{
    wn_status st = wn_limits_measure(&r->lim, (int)b->o->threads, err);
    if (st) return st;
    return b->o->forks ? measure_on_forks(b, r, err) : measure_in_place(b, r, err);
}

/* ---- what is shown --------------------------------------------------------------------------- */

static void print_limits(const wn_limits *l)
{
    printf("read %.1f GB/s   int8 %.2f TOPS   ", l->read_bytes_per_s * 1e-9,
           l->int8_ops_per_s * 1e-12);
    if (l->int8_tile_ops_per_s > 0)
        printf("int8 tiles %.2f TOPS   ", l->int8_tile_ops_per_s * 1e-12);
    printf("bf16 %.0f GFLOP/s   f32 %.0f GFLOP/s\n", l->bf16_ops_per_s * 1e-9,
           l->f32_ops_per_s * 1e-9);
}

static void print_csv(const options *o, const row *r, bool first)
{
    if (first)
        puts("depth,prefill_tps,prefill_share_int8,prefill_attn_ms,decode_tps,decode_ms,decode_"
             "share_read,decode_attn_ms,"
             "attn_gbs,kv_bytes,read_gbs,int8_tops,f32_gflops,int8_tile_tops,kept,kv");
    printf("%d,%.2f,%.3f,%.2f,%.2f,%.3f,%.3f,%.3f,%.2f,%zu,%.2f,%.3f,%.0f,%.3f,%.4f,\"%s\"\n",
           r->depth, r->prefill_tps, r->prefill_share, r->prefill_attn_ms, r->decode_tps,
           r->decode_ms, r->decode_share, r->decode_attn_ms, r->attn_gbs, r->kv_bytes,
           r->lim.read_bytes_per_s * 1e-9, r->lim.int8_ops_per_s * 1e-12,
           r->lim.f32_ops_per_s * 1e-9, r->lim.int8_tile_ops_per_s * 1e-12, r->kept,
           o->kv ? o->kv : "none");
}

static void print_line(const row *r, bool first)
{
    char b[32];
    if (first)
        puts("  depth   prefill tok/s  of int8   attention     decode tok/s  of read   "
             "attention      GB/s       cache   kept   "
             "limits: read, int8");
    printf("%7d %15.1f %7.0f %% %8.1f ms %16.1f %7.0f %% %8.3f ms %9.1f %11s %4.0f %%   %.1f "
           "GB/s, %.2f TOPS",
           r->depth, r->prefill_tps, 100 * r->prefill_share, r->prefill_attn_ms, r->decode_tps,
           100 * r->decode_share, r->decode_attn_ms, r->attn_gbs,
           wn_args_size((double)r->kv_bytes, b), 100 * r->kept, r->lim.read_bytes_per_s * 1e-9,
           r->lim.int8_ops_per_s * 1e-12);
    if (r->lim.int8_tile_ops_per_s > 0)
        printf(", tiles %.2f TOPS", r->lim.int8_tile_ops_per_s * 1e-12);
    putchar('\n');
}

static json_t *row_json(const row *r)
{
    return json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:f, s:f, s:f, s:f, s:f}",
                     "depth", r->depth, "prefill_tps", r->prefill_tps, "prefill_share_int8",
                     r->prefill_share, "prefill_attn_ms", r->prefill_attn_ms, "decode_tps",
                     r->decode_tps, "decode_ms", r->decode_ms, "decode_share_read", r->decode_share,
                     "decode_attn_ms", r->decode_attn_ms, "attn_gbs", r->attn_gbs, "kv_bytes",
                     (json_int_t)r->kv_bytes, "read_gbs", r->lim.read_bytes_per_s * 1e-9,
                     "int8_tops", r->lim.int8_ops_per_s * 1e-12, "f32_gflops",
                     r->lim.f32_ops_per_s * 1e-9, "int8_tile_tops",
                     r->lim.int8_tile_ops_per_s * 1e-12, "kept", r->kept);
}

/* The model and what it runs with, above the table. */
static void print_head(const bench *b)
{
    const options *o = b->o;
    wn_engine_info ei;
    char b1[32], b2[32];
    wn_engine_get_info(b->e, &ei);
    printf("%s (%s), %s of weights, loaded in %.2f s; %d threads, numerics %s, K %s, V %s, "
           "cache %s per 1k tokens\n",
           b->mi.name, b->mi.architecture, wn_args_size((double)b->mi.weight_bytes, b1), b->load_s,
           ei.n_threads, ei.numerics, o->k_type, o->v_type,
           wn_args_size((double)wn_model_kv_bytes(b->m, o->k_type, o->v_type, 1024), b2));
    if (o->kv)
        printf("policy %s; the chunk's time includes the decision before its last token\n", o->kv);
}

static void print_json(const bench *b, json_t *rows)
{
    const options *o = b->o;
    json_t *j = json_pack("{s:s, s:s, s:f, s:I, s:i, s:s, s:s, s:O}", "model", o->model, "kv",
                          o->kv ? o->kv : "none", "load_s", b->load_s, "weight_bytes",
                          (json_int_t)b->mi.weight_bytes, "threads",
                          o->threads ? (int)o->threads : wn_os_n_cpus(), "k_type", o->k_type,
                          "v_type", o->v_type, "rows", rows);
    char *text = j ? json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
    if (text) puts(text);
    free(text);
    json_decref(j);
}

/* ---- the command ----------------------------------------------------------------------------- */

static int fail(const wn_err *err)
{
    fprintf(stderr, "winnow bench: %s\n", err->text);
    return WN_EXIT_FAILED;
}

static int parse_depths(const char *s, int *out)
{
    int n = 0;
    while (*s && n < MAX_DEPTHS) {
        char *end;
        long v = strtol(s, &end, 10);
        if (end == s || v < 0 || v > 1 << 26) return -1;
        if (*end == 'k' || *end == 'K') {
            v *= 1024;
            end++;
        }
        if (*end && *end != ',') return -1;
        if (n && v <= out[n - 1]) return -1;
        out[n++] = (int)v;
        s = *end ? end + 1 : end;
    }
    return *s ? -1 : n;
}

/* Leaves out the depths that, with `extra` more tokens, pass the context, and says which. */
static wn_status fit_depths(bench *b, int extra, int ctx, wn_err *err)
{
    while (b->n_depths > 0 && b->depths[b->n_depths - 1] + extra > ctx) {
        fprintf(stderr, "depth %d is left out: with %d more tokens it passes the context of %d\n",
                b->depths[b->n_depths - 1], extra, ctx);
        b->n_depths--;
    }
    if (b->n_depths) return WN_OK;
    return wn_fail(err, WN_ELIMIT, "no depth fits into the context of %d", ctx);
}

static wn_status open_all(bench *b, wn_err *err)
{
    const options *o = b->o;
    double t0 = wn_cli_now();
    wn_status st = wn_cli_open_model(
        &b->m, o->model,
        &(wn_model_opts){ .n_threads = (int)o->threads, .no_repack = o->no_repack }, err);
    if (st) return st;
    b->load_s = wn_cli_now() - t0;
    wn_model_get_info(b->m, &b->mi);
    int extra = (int)(o->prompt > o->n + 2 ? o->prompt : o->n + 2),
        ctx = o->n_ctx ? (int)o->n_ctx : b->mi.n_ctx_train, seqs = o->forks ? 2 : 1;
    if ((st = fit_depths(b, extra, ctx, err))) return st;
    int most = b->depths[b->n_depths - 1] + extra;
    wn_engine_opts eo = { .n_threads = (int)o->threads, .mem = o->mem, .n_ctx = ctx,
                          .n_batch = (int)o->batch, .max_seqs = seqs, .kv = o->kv,
                          .profile = o->profile, .calibration = o->calibration,
                          .pool_tokens = (int64_t)seqs * most, .k_type = o->k_type,
                          .v_type = o->v_type, .page_slots = (int)o->page_slots };
    if ((st = wn_engine_open(&b->e, b->m, &eo, err))) return st;
    return wn_seq_open(&b->s, b->e, &(wn_seq_opts){ .max_tokens = most, .kv = o->kv }, err);
}

/* Depth by depth; rows go to the terminal as they come, or into the list. */
static wn_status measure_depths(const bench *b, json_t *rows, wn_err *err)
{
    const options *o = b->o;
    wn_status st;
    for (int i = 0; i < b->n_depths; i++) {
        row r = { .depth = b->depths[i] };
        int more = r.depth - wn_seq_n_tokens(b->s);
        if (more > 0 && (st = feed_and_run(b, b->s, more, isatty(STDERR_FILENO), err))) return st;
        if ((st = measure(b, &r, err))) return st;
        if (o->json) json_array_append_new(rows, row_json(&r));
        else if (o->csv) print_csv(o, &r, i == 0);
        else print_line(&r, i == 0);
        fflush(stdout);
    }
    return WN_OK;
}

static int bench_model(const options *o)
{
    bench b = { .o = o };
    wn_err err;
    b.n_depths = parse_depths(o->depths, b.depths);
    if (b.n_depths < 1) {
        fprintf(stderr, "winnow bench: -d \"%.60s\": expected ascending depths like 0,1k,4k\n",
                o->depths);
        return WN_EXIT_USAGE;
    }
    json_t *rows = json_array();
    wn_status st = open_all(&b, &err);
    if (!st) {
        if (!o->json && !o->csv) print_head(&b);
        st = measure_depths(&b, rows, &err);
    }
    if (!st && o->json) print_json(&b, rows);
    json_decref(rows);
    wn_seq_close(b.s);
    wn_engine_close(b.e);
    wn_model_close(b.m);
    return st ? fail(&err) : WN_EXIT_OK;
}

/* --limits: the machine alone. */
static int bench_machine(const options *o)
{
    wn_limits l;
    wn_err err;
    if (wn_limits_measure(&l, (int)o->threads, &err)) return fail(&err);
    if (o->json)
        printf("{\"read_gbs\": %.2f, \"int8_tops\": %.3f, \"int8_tile_tops\": %.3f, "
               "\"bf16_gflops\": %.0f, "
               "\"f32_gflops\": %.0f}\n",
               l.read_bytes_per_s * 1e-9, l.int8_ops_per_s * 1e-12, l.int8_tile_ops_per_s * 1e-12,
               l.bf16_ops_per_s * 1e-9, l.f32_ops_per_s * 1e-9);
    else print_limits(&l);
    return WN_EXIT_OK;
}

/* ---- the command line ------------------------------------------------------------------------ */

static bool is_encoded(const char *format)
{
    wn_format_info f;
    for (int i = 0; wn_recipe_format_info(i, &f); i++)
        if (!strcmp(f.name, format)) return f.encoded;
    return false;
}

const wn_help_page wn_cli_bench_page = {
    .command = "bench",
    .summary = "how fast, beside what the machine can do",
    .usage = "-m MODEL [options]\n--limits",
    .about =
        "Times prompt chunks and single tokens at several depths of the cache, each beside the\n"
        "machine's limits measured in the same minute.",
    .examples = "winnow bench -m model.gguf -d 0,4k,16k -r 5 --csv",
};

/* What the table below fills in; a process reads one command line. */
static options o = { .depths = "0,1k,4k,16k,32k", .k_type = "f16", .v_type = "f16", .prompt = 512,
                     .n = 16, .reps = 5 };

static const wn_arg table[] = {
    { 'm', "model", WN_ARG_STRING, &o.model, "MODEL",
      "GGUF file to run, or the name of a model (winnow models)", 0, 0, 0 },
    { 0, "limits", WN_ARG_FLAG, &o.limits, NULL,
      "measure only the machine: read bandwidth, int8, bf16 and f32 peak", 0, 0, 0 },
    { 'd', "depths", WN_ARG_STRING, &o.depths, "N,N,..",
      "positions in the cache before timing (default 0,1k,4k,16k,32k)", 0, 0, 0 },
    { 'p', "n-prompt", WN_ARG_INT, &o.prompt, "N",
      "tokens of the timed prompt chunk (default 512)", 1, 65536, 0 },
    { 'n', "n-gen", WN_ARG_INT, &o.n, "N", "single tokens per timing (default 16)", 1, 4096,
      0 },
    { 'r', "repetitions", WN_ARG_INT, &o.reps, "N",
      "timings of which the median is shown (default 5)", 1, MAX_REPS, 0 },
    { 't', "threads", WN_ARG_INT, &o.threads, "N", "threads (default: all processors)", 0, 256,
      0 },
    { 'b', "batch-size", WN_ARG_INT, &o.batch, "N", "rows of one pass (default 512)", 0, 4096,
      0 },
    { 'c', "ctx-size", WN_ARG_INT, &o.n_ctx, "N",
      "context (default: what the model was trained for)", 0, 1e9, 0 },
    { 0, "mem", WN_ARG_BYTES, &o.mem, "SIZE",
      "ceiling for everything (default: 80 % of what is available)", 0, 0, 0 },
    { 0, "cache-type-k", WN_ARG_STRING, &o.k_type, "TYPE", WN_CLI_TYPE_K_HELP, 0, 0, "-ctk" },
    { 0, "cache-type-v", WN_ARG_STRING, &o.v_type, "TYPE", WN_CLI_TYPE_V_HELP, 0, 0, "-ctv" },
    { 0, "page-slots", WN_ARG_INT, &o.page_slots, "N", "slots of a page (default 64)", 0, 64,
      0 },
    { 0, "kv", WN_ARG_STRING, &o.kv, "POLICY",
      "what the cache keeps (winnow recipes lists them); decisions are timed", 0, 0, 0 },
    { 0, "profile", WN_ARG_STRING, &o.profile, "FILE", WN_CLI_PROFILE_HELP, 0, 0, 0 },
    { 0, "calibration", WN_ARG_STRING, &o.calibration, "FILE", WN_CLI_CALIBRATION_HELP, 0, 0,
      0 },
    { 0, "policy-lib", WN_ARG_STRING, &o.lib, "FILE", WN_CLI_POLICY_LIB_HELP, 0, 0, 0 },
    { 0, "no-repack", WN_ARG_FLAG, &o.no_repack, NULL, "leave quantised weights mapped", 0, 0,
      0 },
    { 0, "csv", WN_ARG_FLAG, &o.csv, NULL, "comma-separated rows", 0, 0, 0 },
    { 0, "json", WN_ARG_FLAG, &o.json, NULL, "one JSON object", 0, 0, 0 },
};

int wn_cli_bench(int argc, char **argv)
{
    const char *word;
    int rc;
    if (!wn_cli_parse(&wn_cli_bench_page, table, (int)WN_COUNT(table), argc, argv, &word, &rc))
        return rc;
    if (word && !o.model) o.model = word;
    if (o.limits) return bench_machine(&o);
    if (!o.model) {
        fprintf(stderr,
                "winnow bench: which model? give -m FILE, or --limits for the machine alone\n");
        return WN_EXIT_USAGE;
    }
    if ((rc = wn_cli_policy("bench", o.lib, o.kv)) ||
        (rc = wn_cli_formats("bench", o.k_type, o.v_type)))
        return rc;
    o.forks = o.kv || is_encoded(o.k_type) || is_encoded(o.v_type);
    return bench_model(&o);
}
