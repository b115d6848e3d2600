/* eval/watch.c - see watch.h: one decision log in front of the trace writer and the explainer. */
#include "eval/watch.h"
#include "base/alloc.h"
#include "engine/engine.h"
#include "policy/trace.h"

struct wn_watch {
    wn_seq *s;
    wn_decision_log log;
    wn_trace_writer *trace;
    wn_explain *explain;
};

static wn_status decided(void *ctx, const wn_view *v, double slot_bytes, const wn_plan *plan,
                         wn_err *err)
{
    wn_watch *w = ctx;
    wn_status st = WN_OK;
    if (w->trace) st = wn_trace_put(w->trace, v, slot_bytes, plan, err);
    if (!st && w->explain)
        st = wn_explain_note(w->explain, w->s->policy, v, v->verdicts, plan, err);
    return st;
}

/* The rotation of the lanes that are shown: sliding-window layers, which have another one in
 * some models, show no slots. */
static const wn_rope *main_rope(const wn_engine *e)
{
    static const wn_rope none = { 0 };
    for (int l = 0; l < e->m->hp.n_layers; l++) {
        const wn_rope *r = e->m->layers[l].window ? NULL : wn_model_rope(e->m, l, e->n_ctx);
        if (r) return r;
    }
    return &none;
}

static wn_status open_trace(wn_watch *w, const wn_watch_opts *o, const wn_view_lane *lanes,
                            wn_err *err)
{
    const wn_engine *e = w->s->e;
    const wn_rope *rope = main_rope(e);
    wn_model_info mi;
    wn_model_get_info(e->m, &mi);
    wn_trace_head h = { .policy = w->s->policy->text, .model = mi.name ? mi.name : "",
                        .n_layers = e->m->map.n_layers, .n_lanes = e->m->map.n_lanes,
                        .lanes = lanes, .rope_dims = rope->n_dims, .rope_neox = rope->neox,
                        .rope_rate = rope->rate, .rows = o->rows, .stats = w->s->policy->stats,
                        .n_stats = w->s->policy->n_stats };
    return wn_trace_create(&w->trace, o->trace, &h, err);
}

wn_status wn_watch_open(wn_watch **out, wn_seq *s, const wn_watch_opts *o, wn_err *err)
{
    int n = s->e->m->map.n_lanes;
    wn_status st = WN_OK;
    *out = NULL;
    if (!s->policy || !wn_policy_decides(s->policy))
        return wn_fail(
            err, WN_EINVAL,
            "the cache policy %s takes no decisions: there is nothing to trace or to explain",
            s->policy ? s->policy->recipe->name : "none");
    wn_watch *w = WN_NEW(wn_watch);
    wn_view_lane *lanes = WN_NEW_ARRAY(wn_view_lane, n);
    if (!w || !lanes) {
        st = wn_fail(err, WN_ENOMEM, "trace: out of memory");
        goto done;
    }
    w->s = s;
    w->log = (wn_decision_log){ decided, w };
    for (int l = 0; l < n; l++) lanes[l] = wn_engine_lane(s->e, l);
    if (o->trace) st = open_trace(w, o, lanes, err);
    if (!st && o->explain_to)
        st = wn_explain_open(&w->explain, lanes, n, o->explain_from, o->explain_to, err);
    if (!st) {
        wn_seq_set_log(s, &w->log);
        *out = w;
        w = NULL;
    }
done:
    if (w) {
        wn_trace_finish(w->trace, NULL);
        wn_explain_close(w->explain);
    }
    wn_free(w);
    wn_free(lanes);
    return st;
}

const wn_explain *wn_watch_explains(const wn_watch *w) { return w ? w->explain : NULL; }

wn_status wn_watch_close(wn_watch *w, wn_err *err)
{
    if (!w) return WN_OK;
    wn_seq_set_log(w->s, NULL);
    wn_status st = wn_trace_finish(w->trace, err);
    wn_explain_close(w->explain);
    wn_free(w);
    return st;
}
