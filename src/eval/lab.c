/* eval/lab.c - see lab.h. */
#include "eval/lab.h"

#include "base/alloc.h"
#include "eval/stats.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

wn_status wn_lab_row_init(wn_lab_row *out, const wn_eval_row *row, wn_err *err)
{
    wn_policy p;
    *out = (wn_lab_row){ .row = *row };
    if (row->decide) {
        snprintf(out->kv, sizeof out->kv, "%s", row->kv);
        out->every = row->every;
        return WN_OK;
    }
    wn_status st = wn_policy_parse(&p, row->kv, err);
    if (!st && row->share > 0) st = wn_policy_set_share(&p, row->share, err);
    if (st) return st;
    snprintf(out->kv, sizeof out->kv, "%s", p.text);
    out->every = p.every;
    out->probe = wn_probe_tokens(&p, INT_MAX / 4);
    out->profile = wn_policy_profile(&p);
    out->calibrated = wn_policy_calibrated(&p);
    out->marks = wn_policy_decides(&p) && (p.at & WN_AT_MARK);
    out->shares = (!wn_policy_decides(&p) || p.at == WN_AT_MARK) && !wn_policy_has_formats(&p) &&
                  !p.n_stats;
    return WN_OK;
}

wn_status wn_lab_open(wn_lab *lab, wn_model *m, int n_ctx, int every, int probe, int n_threads,
                      size_t mem, const volatile int *stop, wn_err *err)
{
    enum { SEQS = 4 };                  /* row 0, a row, and forks of both */
    /* a row and its fork have been promised a probe each */
    int two = (int)(2 * (int64_t)WN_MIN(probe, n_ctx) / n_ctx);
    char kv[64];
    *lab = (wn_lab){ .m = m, .n_vocab = m->hp.n_vocab, .n_layers = m->hp.n_layers,
                     .n_heads = m->hp.n_heads, .answer_width = m->hp.n_heads * m->hp.v_dim,
                     .n_ctx = n_ctx, .stop = stop };
    snprintf(kv, sizeof kv, "random(every=%d,at=both)@100%%", every);
    return wn_engine_open(&lab->e, m, &(wn_engine_opts){ .n_threads = n_threads, .mem = mem,
                                                         .n_ctx = n_ctx, .max_seqs = SEQS + two,
                                                         .kv = kv }, err);
}

void wn_lab_close(wn_lab *lab)
{
    wn_engine_close(lab->e);
    lab->e = NULL;
}

wn_status wn_lab_seq(wn_seq **out, const wn_lab *lab, const wn_lab_row *row, wn_err *err)
{
    bool own = row->row.decide != NULL;
    wn_engine_lend_profile(lab->e, row->row.profile);
    wn_status st = wn_seq_open(out, lab->e, &(wn_seq_opts){ .max_tokens = lab->n_ctx,
                                                            .kv = own ? row->row.formats : row->kv,
                                                                .ring_rows = 64 }, err);
    if (st || !own) return st;
    if ((st = wn_seq_set_decider(*out, row->row.every, row->row.decide, row->row.decide_ctx,
                                 err))) {
        wn_seq_close(*out);
        *out = NULL;
    }
    return st;
}

static wn_status steps(const wn_lab *lab, wn_err *err)
{
    int rows;
    do {
        if (lab->stop && *lab->stop) return wn_fail(err, WN_EIO, "interrupted");
        wn_status st = wn_engine_step(lab->e, &rows, err);
        if (st) return st;
    } while (rows > 0);
    return WN_OK;
}

wn_status wn_lab_feed(const wn_lab *lab, wn_seq *s, const int32_t *ids, size_t n, wn_err *err)
{
    wn_status st = wn_seq_feed(s, ids, n, err);
    return st ? st : steps(lab, err);
}

wn_status wn_lab_start(wn_seq **out, const wn_lab *lab, const wn_lab_row *row, wn_seq *base,
                       wn_err *err)
{
    wn_engine_lend_profile(lab->e, row->row.profile);
    if (row->shares)
        return wn_seq_fork(out, base, &(wn_seq_opts){ .max_tokens = lab->n_ctx,
                                                      .kv = row->kv }, err);
    wn_status st = wn_lab_seq(out, lab, row, err);
    if (st) return st;
    if ((st = wn_lab_feed(lab, *out, wn_seq_tokens(base), (size_t)wn_seq_n_done(base), err))) {
        wn_seq_close(*out);
        *out = NULL;
    }
    return st;
}

wn_status wn_lab_greedy(const wn_lab *lab, wn_seq *s, bool feed, int32_t *id, wn_err *err)
{
    const float *logits = wn_seq_logits(s);
    if (!logits) return wn_fail(err, WN_EINVAL, "no logits after %d tokens", wn_seq_n_tokens(s));
    *id = wn_stat_argmax(logits, lab->n_vocab);
    return feed ? wn_lab_feed(lab, s, id, 1, err) : WN_OK;
}

wn_status wn_lab_tokens(const wn_lab *lab, const char *text, bool start, int32_t **ids, size_t *n,
                        wn_err *err)
{
    return wn_tokens_from_text(lab->m, text, strlen(text),
                               WN_PARSE_SPECIAL | (start ? 0 : WN_NO_BOS), ids, n, err);
}
