/* tests/fuzz/trace.c - traces whose checksums are right and whose content is not.
 *
 * Checksums and the magic of each record are set right first, so that the fuzzer reaches what
 * lies behind them. Each decision that is read is given to the recorded policy and to one of
 * each kind; what they make of it is compared and measured like in `winnow replay`. Recipes
 * whose cost grows with their parameters are left out. */
#include "base/alloc.h"
#include "eval/explain.h"
#include "eval/replay.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

static void sum(uint8_t *from, size_t n)
{
    uint64_t h = XXH3_64bits(from, n);
    memcpy(from + n, &h, 8);
}

static uint64_t le(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    memcpy(&v, p, n);
    return v;
}

static void set_right(uint8_t *p, size_t n)
{
    static const uint32_t version = WN_TRACE_VERSION;
    _Static_assert(
        WN_TRACE_VERSION == 7,
        "the sizes below are those of this version, and so are the seeds in corpus/trace");
    if (n < 52) return;
    memcpy(p, "WINNOWTR", 8);
    memcpy(p + 8, &version, 4);
    uint64_t at = 44 + 24 * le(p + 20, 4) + 28 * le(p + 40, 4) + 8 * (le(p + 32, 4) / 2) +
                  ((le(p + 24, 4) + 3) & ~3ull) + ((le(p + 28, 4) + 3) & ~3ull);
    if (at > n - 8) return;
    sum(p, (size_t)at);
    for (at += 8; n - at >= 40;) {
        uint8_t *r = p + at;
        uint64_t body = le(r + 8, 8), most = (n - at - 32) & ~3ull;
        if (body > most || body < 4) body = most;
        body &= ~3ull;
        memcpy(r, "DCSN\0\0\0\0", 8);
        memcpy(r + 8, &body, 8);
        sum(r, 16);
        sum(r + 24, (size_t)body);
        at += 32 + body;
    }
}

static void decide(const wn_trace *t, const wn_trace_decision *d, wn_replay *r, const char *text,
                   wn_explain *x)
{
    wn_policy p;
    const wn_plan *plan;
    char why[200];
    wn_err err;
    if (wn_policy_parse(&p, text, &err) || !strcmp(p.recipe->name, "expected")) return;
    if (wn_replay_decide(r, d, &p, &plan, &err)) return;
    wn_replay_same(&d->view, &d->plan, plan, why, sizeof why);
    wn_replay_measure(r, d, plan);
    if (x && wn_explain_note(x, &p, &d->view, d->verdicts, &d->plan, &err)) abort();
    (void)t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const policies[] = { "snapkv@25%",
                                            "h2o@25%",
                                            "d2o@50%",
                                            "keydiff@25%",
                                            "lagkv(partition=4)@25%",
                                            "streaming(window=9)",
                                            "adakv@40%",
                                            "pyramidkv@40%",
                                            "fastgen@50%",
                                            "shotkv@40%",
                                            "h2o+retain:fair@40%",
                                            "criticalkv@40%" };
    uint8_t *copy = malloc(size + 1);
    wn_trace *t;
    wn_replay *r = NULL;
    wn_explain *x = NULL;
    const wn_trace_decision *d;
    wn_err err;
    if (!copy) return 0;
    if (size) memcpy(copy, data, size);
    set_right(copy, size);
    if (!wn_trace_open_memory(&t, copy, size, 512, &err)) {
        const wn_trace_head *h = wn_trace_get_head(t);
        if (!wn_replay_open(&r, t, &err) && !wn_explain_open(&x, h->lanes, h->n_lanes, 3, 40, &err))
            while (!wn_trace_next(t, &d, &err) && d) {
                decide(t, d, r, h->policy, x);
                for (size_t i = 0; i < WN_COUNT(policies); i++) decide(t, d, r, policies[i], NULL);
            }
        wn_explain_close(x);
        wn_replay_close(r);
        wn_trace_close(t);
    }
    free(copy);
    return 0;
}
