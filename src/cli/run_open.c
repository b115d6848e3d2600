/* cli/run_open.c - what a `winnow run` works with, opened in the order it is needed: see run.h.
 *
 * Each is asked for what the options say and no more: the pool is made for the prompt and -n, where
 * -n is given, so that a cache that does not fit is refused before the prompt is computed.
 */
#include "cli/models.h"
#include "cli/run.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

wn_status wn_run_open_model(wn_run *r, double *start, wn_err *err)
{
    wn_model_opts mo = { .n_threads = (int)r->o->threads, .no_repack = r->o->no_repack };
    wn_model_info mi;
    if (r->show) {
        mo.progress = wn_run_on_load;
        mo.progress_ctx = start;
    }
    wn_status st = wn_cli_open_model(&r->m, r->o->model, &mo, err);
    if (st) return st;
    wn_model_get_info(r->m, &mi);
    r->n_vocab = (size_t)mi.n_vocab;
    return WN_OK;
}

/* ---- engine and sequence --------------------------------------------------------------- */

static void dump_logits(void *ctx, int pos, const float *logits)
{
    wn_run *r = ctx;
    (void)pos;
    if (fwrite(logits, sizeof(float), r->n_vocab, r->dump) != r->n_vocab) r->dump_failed = true;
}

wn_status wn_run_open_engine(wn_run *r, wn_err *err)
{
    const wn_run_options *o = r->o;
    wn_model_info mi;
    wn_engine_info ei;
    wn_model_get_info(r->m, &mi);
    size_t n = r->n_ids;
    if (o->dump && !(r->dump = fopen(o->dump, "wb")))
        return wn_fail(err, WN_EIO, "%s: %s", o->dump, strerror(errno));
    long ctx = o->n_ctx ? o->n_ctx : mi.n_ctx_train;
    if ((long)n + (o->n_predict != 0) > ctx)
        return wn_fail(err, WN_ELIMIT,
                       "the prompt has %zu tokens, the context is %ld%s: shorten the prompt%s", n,
                       ctx, o->n_ctx ? " (-c)" : " (what the model was trained for)",
                       o->n_ctx ? " or raise -c" : "");
    wn_engine_opts eo = {
        .n_threads = (int)o->threads, .mem = o->mem, .n_ctx = (int)o->n_ctx,
        .n_batch = (int)o->batch, .k_type = o->k_type, .v_type = o->v_type, .kv = o->kv,
        .profile = o->profile, .calibration = o->calibration, .page_slots = (int)o->page_slots,
    };
    for (int i = 0; i < o->protect.n; i++) eo.protected_tokens += r->kept[i].to - r->kept[i].from;
    if (o->n_predict >= 0) eo.pool_tokens = WN_MIN((int64_t)n + o->n_predict, (int64_t)ctx);
    wn_status st = wn_engine_open(&r->e, r->m, &eo, err);
    if (st) return st;
    wn_engine_get_info(r->e, &ei);
    long max = o->n_predict >= 0 ? WN_MIN((long)n + o->n_predict, ctx) : WN_MIN(ctx, (long)ei.room);
    if (max < (long)n) max = (long)n;   /* the sequence's own refusal has the numbers */
    /* Without -n nobody knows how long the answer gets: the promise grows with it. */
    wn_seq_opts so = { .max_tokens = o->n_predict >= 0 ? (int)max : 0, .kv = o->kv,
                       .ring_rows = o->trace_rows ? 64 : 0 };
    if (r->dump) {
        so.on_logits = dump_logits;
        so.on_logits_ctx = r;
    }
    r->limit = max - (long)n;
    return wn_seq_open(&r->s, r->e, &so, err);
}

/* ---- sampler ------------------------------------------------------------------------------ */

/* Parses --logit-bias "id:value,id:value". */
static wn_status parse_bias(const char *s, wn_logit_bias **out, int *n, wn_err *err)
{
    const char *p = s;
    *out = NULL;
    *n = 0;
    if (!s) return WN_OK;
    *out = WN_NEW_ARRAY(wn_logit_bias, strlen(s) + 1);
    if (!*out) return wn_fail(err, WN_ENOMEM, "--logit-bias: out of memory");
    while (*p) {
        char *end;
        long id = strtol(p, &end, 10);
        if (end == p || *end != ':')
            return wn_fail(err, WN_EINVAL, "--logit-bias \"%.60s\": expected id:value[,id:value]",
                           s);
        p = end + 1;
        float v = strtof(p, &end);
        if (end == p || (*end && *end != ','))
            return wn_fail(err, WN_EINVAL, "--logit-bias \"%.60s\": expected id:value[,id:value]",
                           s);
        (*out)[(*n)++] = (wn_logit_bias){ .id = (int32_t)id, .bias = v };
        p = *end ? end + 1 : end;
    }
    return WN_OK;
}

wn_status wn_run_open_sampler(wn_run *r, wn_err *err)
{
    const wn_run_options *o = r->o;
    wn_sampling s = wn_sampling_defaults();
    wn_logit_bias *bias = NULL;
    wn_status st = parse_bias(o->bias, &bias, &s.n_bias, err);
    s.temperature = (float)o->temp;
    s.top_k = (int)o->top_k;
    s.top_p = (float)o->top_p;
    s.min_p = (float)o->min_p;
    s.penalty_last_n = (int)o->last_n;
    s.repeat_penalty = (float)o->repeat;
    s.presence_penalty = (float)o->presence;
    s.frequency_penalty = (float)o->frequency;
    s.seed = r->seed;
    s.bias = bias;
    if (!st) st = wn_sampler_open(&r->sampler, &s, (int)r->n_vocab, err);
    wn_free(bias);
    return st;
}

/* ---- watching the policy ---------------------------------------------------------- */

wn_status wn_run_watch(wn_run *r, wn_err *err)
{
    wn_watch_opts w = { .trace = r->o->trace, .rows = r->o->trace_rows };
    wn_status st;
    if (!r->o->trace && !r->o->explain) return WN_OK;
    if (r->o->explain && !wn_cli_range(r->o->explain, &w.explain_from, &w.explain_to) &&
        (st = wn_cli_find_text(r->m, r->ids, r->n_ids, r->o->explain, &w.explain_from,
                               &w.explain_to, err)))
        return st;
    return wn_watch_open(&r->watch, r->s, &w, err);
}

wn_status wn_run_stop_watching(wn_run *r, wn_err *err)
{
    const wn_explain *x = wn_watch_explains(r->watch);
    wn_watch *w = r->watch;
    fflush(stdout);                     /* on a terminal both are one text */
    if (x) wn_explain_print(x, stderr, wn_seq_n_done(r->s));
    r->watch = NULL;
    return wn_watch_close(w, err);
}
