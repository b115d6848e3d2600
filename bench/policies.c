/* bench/policies.c - what does a cache policy cost, and what does it gain?
 *
 *     build/bench/policies MODEL [-d TOKENS] [-n STEPS] [POLICY ..]
 *
 * A prompt of d tokens (8192) is read in chunks of 512, then n single tokens (512) follow a mark at
 * its end. Two yardsticks run in turn with the policies, chunk by chunk and token by token, so
 * that all see the same minutes of the machine:
 *
 *     none     the full cache
 *     random   holds as many slots, as scattered, each step, and observes nothing
 *
 * CSV, a row per policy:
 *     prompt      time of the prompt and of the decision behind it, against none's prompt
 *     observed    (query head, slot) pairs scored or accounted for the policy, per pair of the
 *                 prompt's attention to a full cache
 *     step        mean ms of a step, decisions and repacks inside
 *     deciding    how much longer steps with a decision are than the others, spread over all steps
 *     extra       mean step against random's steps without a decision: what deciding and observing cost
 *     worst       the longest step with a decision (without any: of all), ms; the machine's own
 *                 hiccups are in it
 *     tokens/s    and none's in the same minutes
 *     kept        live slots at the end, as a share of the full cache
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
    double prompt, mark;                /* seconds: of the prompt, of the step with the decision behind it */
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

/* Mean over the steps with (or without) a decision; 0 for none. */
static double mean_of(const bench *b, const text *t, bool decides)
{
    double sum = 0;
    int n = 0;
    for (int k = 0; k < b->n; k++)
        if (t->decides[k] == decides) sum += t->step[k], n++;
    return n ? sum / n : 0;
}

static double mean(const bench *b, const text *t)
{
    double sum = 0;
    for (int k = 0; k < b->n; k++) sum += t->step[k];
    return sum / b->n;
}

static void print_row(const bench *b, const text *t, const text *none, const text *random)
{
    double worst = 0, m = mean(b, t), plain = mean_of(b, t, false), dec = mean_of(b, t, true), base = mean_of(b, random, false);
    int n = 0;
    for (int k = 0; k < b->n; k++) {
        n += t->decides[k];
    }
    for (int k = 0; k < b->n; k++)
        if (t->decides[k] || !n) worst = WN_MAX(worst, t->step[k]);
    const wn_hparams *h = &b->e->m->hp;
    double pairs = 0.5 * b->d * (b->d + 1.0) * h->n_heads * h->n_layers, step = mean_of(b, none, false);
    double prompt = t->prompt + WN_MAX(0, t->mark - plain);
    printf("\"%s\",%.2f,%.3f,%.3f,%.2f,%.2f,%.2f,%.1f,%.1f,%.1f,%.3f\n", t->kv, prompt, prompt / none->prompt,
           (double)t->observed / pairs, m * 1e3, n ? (dec - plain) * n / b->n * 1e3 : 0, (m / base - 1) * 100, worst * 1e3,
           1 / m, 1 / step, (double)t->end.kv_slots / (double)t->end.kv_slots_full);
}

int main(int argc, char **argv)
{
    static const char *all[] = { "recent@25%", "streaming@25%", "snapkv@25%", "snapkv(at=boundary)@25%", "tova@25%", "h2o@25%",
                                 "h2o(at=mark)@25%", "d2o@25%", "keydiff@25%", "lagkv@25%", "expected@25%" };
    bench b = { .d = 8192, .n = 512 };
    text t[POLICIES_MAX + 2] = { { .kv = "none" }, { .kv = "random(every=64)@25%" } };
    int n = 2;
    wn_model *m;
    wn_err err;
    if (argc < 2) die("policies MODEL [-d TOKENS] [-n STEPS] [POLICY ..]");
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "-d") && i + 1 < argc) b.d = atoi(argv[++i]);
        else if (!strcmp(argv[i], "-n") && i + 1 < argc) b.n = atoi(argv[++i]);
        else if (n < POLICIES_MAX + 2) t[n++].kv = argv[i];
    }
    if (b.d < 1 || b.n < 1) die("-d and -n are whole numbers from 1 on");
    for (size_t i = 0; n == 2 && i < WN_COUNT(all); i++) t[2 + i].kv = all[i];
    if (n == 2) n += (int)WN_COUNT(all);
    check(wn_model_open(&m, argv[1], NULL, &err), &err);
    b.n_vocab = m->hp.n_vocab;
    int tokens = b.d + b.n + 2;
    wn_engine_opts o = { .n_ctx = tokens, .n_batch = CHUNK, .max_seqs = n, .pool_tokens = (int64_t)n * (tokens + CHUNK + tokens / 4) };
    check(wn_engine_open(&b.e, m, &o, &err), &err);
    for (int i = 0; i < n; i++) {
        t[i].step = calloc((size_t)b.n, sizeof *t[i].step);
        t[i].decides = calloc((size_t)b.n, sizeof *t[i].decides);
        if (!t[i].step || !t[i].decides) die("out of memory");
        check(wn_seq_open(&t[i].s, b.e, &(wn_seq_opts){ .max_tokens = tokens, .kv = t[i].kv }, &err), &err);
    }
    read_prompt(&b, t, n);
    take_steps(&b, t, n);
    printf("policy,prompt s,of none,observed,step ms,deciding ms,extra %%,worst ms,tokens/s,none tokens/s,kept\n");
    for (int i = 0; i < n; i++) print_row(&b, &t[i], &t[0], &t[1]);
    for (int i = 0; i < n; i++) {
        free(t[i].step);
        free(t[i].decides);
        wn_seq_close(t[i].s);
    }
    wn_engine_close(b.e);
    wn_model_close(m);
    return 0;
}
