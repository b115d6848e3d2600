/* eval/profile_check.c - is a profile true? Lanes lose what lies between the first and the last
 * tokens, and needles are asked for again.
 *
 *     fetch      the lanes that are classed as retrieval lose the middle
 *     as many    as many of the others do, those that copy least
 *     others     all of the others do
 *
 * If the profile is right the first row answers nothing and the other two as before.
 */
#include "eval/profile.h"

#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

enum { EVERY = 64, SEEDS = 8 };

typedef struct {
    bool *streams;                      /* (n_lanes) */
    int sinks, recent;
} middle;

static wn_status forget_middle(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *err)
{
    const middle *d = ctx;
    (void)err;
    for (int l = 0; l < wn_kv_map(kv)->n_lanes; l++)
        if (d->streams[l] && p - d->recent > d->sinks)
            wn_plan_drop(plan, l, d->sinks, p - d->recent);
    return WN_OK;
}

/* Marks the n lanes outside the retrieval ones that copy least; ties: the lower lane. */
static void choose_others(const wn_profile *p, bool *streams, int n)
{
    for (; n > 0; n--) {
        int best = -1;
        for (int l = 0; l < p->n_lanes; l++)
            if (!streams[l] && p->lanes[l].kind != WN_HEAD_RETRIEVAL &&
                (best < 0 || p->lanes[l].needle < p->lanes[best].needle))
                best = l;
        if (best >= 0) streams[best] = true;
    }
}

wn_status wn_profile_check(wn_profile_proof *out, const wn_profile *p, wn_model *m,
                           const wn_profile_opts *o, wn_err *err)
{
    static const char *const names[WN_PROOF_ROWS - 1] = { "fetch", "as many", "others" };
    const wn_task *tasks[] = { wn_task_find("passkey"), wn_task_find("needle"),
                               wn_task_find("lookup"), NULL };
    wn_eval_row rows[WN_PROOF_ROWS - 1];
    middle lose[WN_PROOF_ROWS - 1];
    wn_eval_report r = { 0 };
    size_t n = (size_t)p->n_lanes;
    bool *streams = WN_NEW_ARRAY(bool, (WN_PROOF_ROWS - 1) * n);
    *out = (wn_profile_proof){ .n_lanes = p->n_lanes };
    if (!streams) return wn_fail(err, WN_ENOMEM, "profile: out of memory");
    for (int i = 0; i < WN_PROOF_ROWS - 1; i++) {
        lose[i] = (middle){ streams + (size_t)i * n, p->how.sinks, p->how.recent };
        rows[i] = (wn_eval_row){ .kv = names[i], .decide = forget_middle, .decide_ctx = &lose[i],
                                 .every = EVERY };
    }
    for (size_t l = 0; l < n; l++)
        out->n_fetch += lose[0].streams[l] = p->lanes[l].kind == WN_HEAD_RETRIEVAL;
    choose_others(p, lose[1].streams, out->n_fetch);
    for (size_t l = 0; l < n; l++) lose[2].streams[l] = !lose[0].streams[l];
    wn_eval_opts eo = { .rows = rows, .n_rows = WN_PROOF_ROWS - 1, .context = p->how.context,
                        .max_chunks = -2, .tasks = tasks, .phrases = o->phrases, .n_seeds = SEEDS,
                        .seed = o->seed + 1, .ask = { true, false }, .n_threads = o->n_threads,
                        .mem = o->mem, .progress = o->progress, .progress_ctx = o->progress_ctx,
                        .stop = o->stop };
    wn_status st = wn_eval_run(&r, m, &eo, err);
    for (int i = 0; i < WN_PROOF_ROWS && !st; i++)
        for (int t = 0; t < WN_PROOF_TASKS; t++)
            out->score[i][t] = r.rows[i].tasks[t][WN_ASK_AGNOSTIC].mean;
    wn_eval_report_release(&r);
    wn_free(streams);
    return st;
}
