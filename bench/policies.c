/* bench/policies.c - what does a cache policy cost, and what does it gain?
 *
 *     build/bench/policies MODEL [-d TOKENS] [-n STEPS] [--csv] [POLICY ..]
 *
 * A prompt of d tokens (8192) is read in chunks of 512, then n single tokens (512) follow a mark at
 * its end. Two yardsticks run in turn with the policies, chunk by chunk and token by token, so
 * that all see the same minutes of the machine:
 *
 *     none     the full cache
 *     random   holds as many slots, as scattered, each step, and observes nothing
 *
 * A row per policy, as a table or as CSV:
 *     observes    whose attention is looked at: all queries, the last ones, nobody's
 *     prompt      time of the prompt and of the decision behind it, against none's prompt
 *     observed    (query head, slot) pairs scored or accounted for the policy, per pair of the
 *                 prompt's attention to a full cache
 *     step        mean ms of a step, decisions and repacks inside
 *     extra       mean step against random's steps without a decision: what deciding and observing cost
 *     typical     the same from the median of steps without a decision and the mean of what decisions
 *                 add to it, against random's median: the machine's hiccups between decisions left out
 *     decisions   the part of it that decisions have
 *     worst       the longest step with a decision (without any: of all), ms; hiccups are in it
 *     none        mean step against none's
 *     MiB         of cache at the end, and how many at most
 *
 * Inside the timers: everything a step does. Outside: loading, feeding.
 */
#include "base/os.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 512, POLICIES_MAX = 24 };

typedef struct {
    const char *kv;
    wn_seq *s;
    double prompt, mark;                /* seconds: of the prompt, of the step with the decision
                                           behind it */
    double *step;                       /* (n) seconds */
    bool *decides;                      /* (n) a decision comes before this step */
    uint64_t observed;                  /* of the prompt */
    wn_seq_stats end;
} text;

typedef struct { wn_engine *e; int d, n, n_vocab; } bench;

static void die(const char *what)
{
    fprintf(stderr, "policies: %s\n", what);
    exit(1);
}

static void check(wn_status st, const wn_err *err)
{
    if (st) die(err->text);
}

static double feed(const bench *b, wn_seq *s, int n)
{
    wn_err err;
    int rows;
    for (int i = 0; i < n; i++) {
        int at = wn_seq_n_tokens(s);
        int32_t id = (int32_t)(((uint64_t)at * 7919u + 13u) % (uint64_t)b->n_vocab);
        check(wn_seq_feed(s, &id, 1, &err), &err);
    }
    uint64_t start = wn_os_now_us();
    do check(wn_engine_step(b->e, &rows, &err), &err);
    while (rows > 0);
    return (double)(wn_os_now_us() - start) * 1e-6;
}

static void read_prompt(const bench *b, text *t, int n_texts)
{
    for (int at = 0; at < b->d; at += CHUNK)
        for (int i = 0; i < n_texts; i++) t[i].prompt += feed(b, t[i].s, WN_MIN(CHUNK, b->d - at));
    for (int i = 0; i < n_texts; i++) {
        wn_err err;
        check(wn_seq_mark(t[i].s, &err), &err);
        t[i].mark = feed(b, t[i].s, 1);
        wn_seq_get_stats(t[i].s, &t[i].end);
        t[i].observed = t[i].end.observed;
    }
}

static void take_steps(const bench *b, text *t, int n_texts)
{
    for (int k = 0; k < b->n; k++)
        for (int i = 0; i < n_texts; i++) {
            int p = wn_seq_n_tokens(t[i].s);
            t[i].decides[k] = t[i].s->every > 0 && p % t[i].s->every == 0;
            t[i].step[k] = feed(b, t[i].s, 1);
        }
    for (int i = 0; i < n_texts; i++) wn_seq_get_stats(t[i].s, &t[i].end);
}

/* ---- figures ----------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the steps of a text, in seconds. */
typedef struct { double mean, plain, typical, decisions, worst; } times;

static times times_of(const bench *b, const text *t)
{
    times x = { 0 };
    double *plain = calloc((size_t)b->n, sizeof *plain), sum = 0;
    int n_plain = 0;
    if (!plain) die("out of memory");
    for (int k = 0; k < b->n; k++) {
        x.mean += t->step[k] / b->n;
        if (t->decides[k]) {
            x.worst = WN_MAX(x.worst, t->step[k]);
            continue;
        }
        plain[n_plain++] = t->step[k];
        sum += t->step[k];
    }
    qsort(plain, (size_t)n_plain, sizeof *plain, by_value);
    if (n_plain) x.plain = sum / n_plain;
    if (n_plain) x.typical = plain[n_plain / 2];
    for (int k = 0; k < b->n; k++)
        if (t->decides[k]) x.decisions += (t->step[k] - x.typical) / b->n;
    if (x.worst == 0)                   /* decides at marks, or never */
        for (int k = 0; k < b->n; k++) x.worst = WN_MAX(x.worst, t->step[k]);
    free(plain);
    return x;
}

static const char *observes(const text *t)
{
    const wn_policy *p = t->s->policy;
    if (!p || !wn_policy_decides(p)) return "nothing";
    return p->n_stats ? "all queries" : wn_policy_window(p) ? "the last" : "nothing";
}

static void print_row(const bench *b, const text *t, const text *none, const text *random, bool csv)
{
    const wn_hparams *h = &b->e->m->hp;
    times x = times_of(b, t), r = times_of(b, random), full = times_of(b, none);
    double pairs = 0.5 * b->d * (b->d + 1.0) * h->n_heads * h->n_layers;
    double prompt = (t->prompt + WN_MAX(0, t->mark - x.typical)) / none->prompt, MiB = 1 << 20;
    printf(csv ? "\"%s\",%s,%.3f,%.2f,%.2f,%.2f,%.2f,%.2f,%.1f,%.3f,%.1f,%.1f\n"
               : "| `%s` | %s | %.3f | %.2f %% | %.2f | %+.1f %% | %+.1f %% | %.1f %% | %.0f | "
                 "%.3f | %.0f | %.0f |\n",
           t->kv, observes(t), prompt, 100 * (double)t->observed / pairs, x.mean * 1e3,
           (x.mean / r.plain - 1) * 100, ((x.typical + x.decisions) / r.typical - 1) * 100,
           x.decisions / r.typical * 100, x.worst * 1e3, x.mean / full.mean,
           (double)t->end.kv_bytes / MiB, (double)t->end.kv_bytes_peak / MiB);
}

static void print_table(const bench *b, const text *t, int n, bool csv)
{
    if (csv)
        printf("policy,observes,prompt,observed %%,step ms,extra %%,typical %%,decisions %%,worst "
               "ms,of none,MiB,peak MiB\n");
    else
        printf("| policy | observes | prompt | observed | step, ms | extra | typical | decisions | "
               "worst, ms | of none's step | MiB | at most |\n"
               "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: "
               "|\n");
    for (int i = 0; i < n; i++) print_row(b, &t[i], &t[0], &t[1], csv);
}

int main(int argc, char **argv)
{
    static const char *all[] = { "streaming@25%",
                                 "keydiff@25%",
                                 "lagkv@25%",
                                 "snapkv@25%",
                                 "snapkv(at=boundary)@25%",
                                 "adakv@25%",
                                 "pyramidkv@25%",
                                 "expected@25%",
                                 "tova@25%",
                                 "h2o@25%",
                                 "h2o(at=mark)@25%",
                                 "d2o@25%" };
    bool csv = false;
    bench b = { .d = 8192, .n = 512 };
    text t[POLICIES_MAX + 2] = { { .kv = "none" }, { .kv = "random(every=64)@25%" } };
    int n = 2;
    wn_model *m;
    wn_err err;
    if (argc < 2) die("policies MODEL [-d TOKENS] [-n STEPS] [--csv] [POLICY ..]");
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "-d") && i + 1 < argc) b.d = atoi(argv[++i]);
        else if (!strcmp(argv[i], "-n") && i + 1 < argc) b.n = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--csv")) csv = true;
        else if (n < POLICIES_MAX + 2) t[n++].kv = argv[i];
    }
    if (b.d < 1 || b.n < 1) die("-d and -n are whole numbers from 1 on");
    for (size_t i = 0; n == 2 && i < WN_COUNT(all); i++) t[2 + i].kv = all[i];
    if (n == 2) n += (int)WN_COUNT(all);
    check(wn_model_open(&m, argv[1], NULL, &err), &err);
    b.n_vocab = m->hp.n_vocab;
    int tokens = b.d + b.n + 2;
    wn_engine_opts o = { .n_ctx = tokens, .n_batch = CHUNK, .max_seqs = n,
                         .pool_tokens = (int64_t)n * (tokens + CHUNK + tokens / 4) };
    check(wn_engine_open(&b.e, m, &o, &err), &err);
    for (int i = 0; i < n; i++) {
        t[i].step = calloc((size_t)b.n, sizeof *t[i].step);
        t[i].decides = calloc((size_t)b.n, sizeof *t[i].decides);
        if (!t[i].step || !t[i].decides) die("out of memory");
        check(wn_seq_open(&t[i].s, b.e, &(wn_seq_opts){ .max_tokens = tokens,
                                                        .kv = t[i].kv }, &err), &err);
    }
    read_prompt(&b, t, n);
    take_steps(&b, t, n);
    print_table(&b, t, n, csv);
    for (int i = 0; i < n; i++) {
        free(t[i].step);
        free(t[i].decides);
        wn_seq_close(t[i].s);
    }
    wn_engine_close(b.e);
    wn_model_close(m);
    return 0;
}
