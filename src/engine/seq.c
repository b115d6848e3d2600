/* engine/seq.c - sequences: opening, feeding, forking, going back.
 *
 * A sequence is promised its positions in the pool when it is opened, or, without a
 * max_tokens, as it grows: promise.c.
 */
#include "engine/engine.h"
#include "base/alloc.h"

#include <string.h>

/* Gives back whatever a sequence has: a half-opened one has less. */
static void release(wn_seq *s)
{
    wn_seq_unpromise(s);
    wn_seq_unclaim(s);
    wn_kv_close(s->kv);
    wn_plan_release(&s->plan);
    wn_ledger_close(&s->ledger);
    wn_seq_close_probe(s);
    wn_free(s->policy);
    wn_free(s->formats);
    wn_free(s->marks);
    for (int k = 0; k < WN_PLANES; k++) wn_free(s->ranges[k]);
    wn_free(s->tokens);
    wn_free(s->logits);
    wn_free(s);
}

/* Everything but the kv. */
static wn_status open_shell(wn_seq **out, wn_engine *e, const wn_seq_opts *opts, wn_err *err)
{
    wn_status st;
    *out = NULL;
    if (e->n_seqs == e->max_seqs)
        return wn_fail(err, WN_EFULL, "the engine was opened for %d sequences and all are in use",
                       e->max_seqs);
    wn_seq *s = WN_NEW(wn_seq);
    if (!s) return wn_fail(err, WN_ENOMEM, "sequence: out of memory");
    s->e = e;
    s->opts = opts ? *opts : (wn_seq_opts){ 0 };
    s->growing = !s->opts.max_tokens;
    if (s->growing) s->opts.max_tokens = e->n_ctx;
    if (s->opts.max_tokens < 1 || s->opts.max_tokens > e->n_ctx) {
        st = wn_fail(err, WN_ELIMIT, "%d tokens do not fit into the context of %d",
                     s->opts.max_tokens, e->n_ctx);
        goto fail;
    }
    if (s->opts.ring_rows != 0 && s->opts.ring_rows != 64) {
        st = wn_fail(err, WN_EINVAL, "ring_rows is %d, expected 0 or 64", s->opts.ring_rows);
        goto fail;
    }
    s->kv_opts = e->kv_opts;
    s->kv_opts.max_positions = s->opts.max_tokens;
    s->kv_opts.ring_rows = s->opts.ring_rows;
    s->tokens = WN_NEW_ARRAY(int32_t, s->opts.max_tokens);
    s->logits = wn_alloc_aligned(sizeof(float) * (size_t)e->m->hp.n_vocab);
    s->formats = WN_NEW_ARRAY(wn_lane_formats, e->m->map.n_lanes);
    if (!s->tokens || !s->logits || !s->formats) {
        st = wn_fail(err, WN_ENOMEM, "sequence: out of memory");
        goto fail;
    }
    *out = s;
    return WN_OK;
fail:
    release(s);
    return st;
}

static void enlist(wn_seq *s) { s->e->seqs[s->e->n_seqs++] = s; }

wn_status wn_seq_open(wn_seq **out, wn_engine *e, const wn_seq_opts *opts, wn_err *err)
{
    wn_seq *s;
    *out = NULL;
    wn_status st = open_shell(&s, e, opts, err);
    if (st) return st;
    if ((st = wn_seq_set_policy(s, s->opts.kv, err)) ||
        (st = wn_engine_check_reach(e->m, s->policy, s->opts.max_tokens, err))) {
        release(s);
        return st;
    }
    if (!(st = wn_seq_claim(s, err)) && !(st = wn_seq_promise(s, 0, err)) &&
        !(st = wn_kv_open(&s->kv, &s->kv_opts, err))) {
        wn_seq_restore_ledger(s);
        enlist(s);
        *out = s;
        return WN_OK;
    }
    release(s);
    return st;
}

/* Has src kept what s looks at? */
static bool keeps_same(const wn_seq *s, const wn_seq *src)
{
    bool same = s->ledger.n_stats == 0 || s->ledger.n_stats == src->ledger.n_stats;
    int n = wn_kv_n(src->kv);
    if (wn_seq_foresees(s, n) && src->next_at != n) return false;  /* the likeliest token there */
    for (int i = 0; same && i < s->ledger.n_stats; i++)
        same = wn_stat_same(&s->ledger.stats[i], &src->ledger.stats[i]);
    return same;
}

/* A fork goes on deciding as its source: the same policy, marks and last decision. Of a
 * sequence that keeps everything it may take up a policy of its own, as long as that would
 * not have decided anything yet. */
static wn_status copy_decisions(wn_seq *s, const wn_seq *src, const char *kv, wn_err *err)
{
    int n = wn_kv_n(src->kv);
    const char *had = src->policy ? src->policy->text : NULL;
    wn_status st = wn_seq_set_policy(s, kv ? kv : had, err);
    if (st) return st;
    if (!src->policy && !kv) {
        s->every = src->every;
        s->decide = src->decide;
        s->decide_ctx = src->decide_ctx;
        wn_plan_init(&s->plan, src->opts.max_tokens, src->e->m->map.n_lanes);
    }
    if (had && !strcmp(s->policy->text, had)) s->profile = src->profile;
    s->decided_at = src->decided_at;
    int m = src->n_marks;               /* marks after tokens not computed yet stay behind, like
                                           those tokens */
    while (m && src->marks[m - 1] > n) m--;
    if (m && !(s->marks = WN_NEW_ARRAY(int32_t, m)))
        return wn_fail(err, WN_ENOMEM, "fork: out of memory");
    if (m) memcpy(s->marks, src->marks, sizeof *s->marks * (size_t)m);
    s->n_marks = s->cap_marks = m;
    if ((st = wn_seq_copy_ranges(s, src, n, err))) return st;
    if (!kv || (had && !strcmp(s->policy->text, had))) return WN_OK;
    if ((st = wn_engine_check_reach(s->e->m, s->policy, s->opts.max_tokens, err))) return st;
    if (src->decide || wn_seq_next_point(s, 0) < n)
        return wn_fail(err, WN_EINVAL, "a fork at %d tokens cannot change its policy to %.200s: %s",
                       n, kv,
                       src->decide ? "its source has one that decides"
                                   : "that would have decided earlier");
    if (!wn_kv_same_formats(&s->kv_opts, &src->kv_opts))
        return wn_fail(
            err, WN_EINVAL,
            "a fork keeps the cache formats of its source, and how long its pages stay raw");
    if (!keeps_same(s, src) || s->kv_opts.ring_rows > src->kv_opts.ring_rows)
        return wn_fail(
            err, WN_EINVAL,
            "a fork cannot change its policy to %.200s: its source has not kept the queries or "
            "sums that asks for",
            kv);
    return WN_OK;
}

wn_status wn_seq_fork(wn_seq **out, wn_seq *src, const wn_seq_opts *opts, wn_err *err)
{
    wn_seq *s;
    wn_seq_opts o = opts ? *opts : src->opts;
    *out = NULL;
    bool growing = src->growing && (!opts || !opts->max_tokens);
    o.max_tokens = o.max_tokens ? o.max_tokens : src->opts.max_tokens;
    o.ring_rows = src->opts.ring_rows;
    if (wn_kv_n(src->kv) < src->n_known)
        return wn_fail(err, WN_EFULL,
                       "a fork at %d tokens: the sequence is parked, %d of them are in the cache",
                       src->n_known, wn_kv_n(src->kv));
    if (o.max_tokens != src->opts.max_tokens)
        return wn_fail(err, WN_EINVAL, "a fork keeps its source's max_tokens (%d)",
                       src->opts.max_tokens);
    wn_status st = open_shell(&s, src->e, &o, err);
    if (st) return st;
    s->growing = growing;
    if ((st = copy_decisions(s, src, opts ? opts->kv : NULL, err))) {
        release(s);
        return st;
    }
    if (!(st = wn_seq_claim(s, err)) && !(st = wn_seq_promise(s, wn_kv_n(src->kv), err)) &&
        !(st = wn_kv_fork(&s->kv, src->kv, 0, err))) {
        s->n_fed = wn_kv_n(s->kv);
        if (s->ledger.n_stats) wn_ledger_copy(&s->ledger, &src->ledger, s->kv);
        s->noted_at = src->noted_at;
        s->next = src->next;
        s->next_at = src->next_at;
        memcpy(s->tokens, src->tokens, sizeof *s->tokens * (size_t)s->n_fed);
        s->n_reported = s->n_fed;
        if (src->n_logits == s->n_fed && s->n_fed > 0) {
            memcpy(s->logits, src->logits, sizeof(float) * (size_t)src->e->m->hp.n_vocab);
            s->n_logits = s->n_fed;
        }
        enlist(s);
        *out = s;
        return WN_OK;
    }
    release(s);
    return st;
}

void wn_seq_close(wn_seq *s)
{
    if (!s) return;
    wn_engine *e = s->e;
    int at = 0;
    while (at < e->n_seqs && e->seqs[at] != s) at++;
    WN_ASSERT(at < e->n_seqs);
    memmove(e->seqs + at, e->seqs + at + 1, sizeof *e->seqs * (size_t)(e->n_seqs - at - 1));
    e->n_seqs--;
    release(s);
}

wn_status wn_seq_feed(wn_seq *s, const int32_t *ids, size_t n, wn_err *err)
{
    if (n > (size_t)(s->opts.max_tokens - s->n_fed))
        return wn_fail(
            err, WN_ELIMIT,
            "%zu more tokens after %d do not fit: %d were reserved for this sequence (context %d)",
            n, s->n_fed, s->opts.max_tokens, s->e->n_ctx);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->e->m->hp.n_vocab)
            return wn_fail(err, WN_EINVAL, "token %d at position %zu: the vocabulary has %d",
                           ids[i], (size_t)s->n_fed + i, s->e->m->hp.n_vocab);
    wn_status st = wn_seq_promise_fed(s, s->n_fed + (int)n, err);
    if (st) return st;
    if (n) memcpy(s->tokens + s->n_fed, ids, sizeof *ids * n);
    s->n_fed += (int)n;
    return WN_OK;
}

int wn_seq_n_tokens(const wn_seq *s) { return s->n_fed; }
int wn_seq_n_done(const wn_seq *s) { return wn_seq_n_computed(s); }
const int32_t *wn_seq_tokens(const wn_seq *s) { return s->tokens; }

const float *wn_seq_logits(const wn_seq *s)
{
    return s->n_logits > 0 && s->n_logits == s->n_fed && wn_seq_n_computed(s) == s->n_fed
               ? s->logits
               : NULL;
}

void wn_seq_restore_ledger(wn_seq *s)
{
    int n = wn_kv_n(s->kv);
    if (!s->ledger.n_stats) return;
    WN_ASSERT(n == s->noted_at);
    if (!n) wn_ledger_lay_out(&s->ledger, s->kv, wn_seq_ledger_until(s, 0));
    else wn_ledger_restore(&s->ledger, s->kv, wn_seq_ledger_until(s, n));
}

/* What policies look at must be as if the tokens that are gone had never been. Statistics do not
 * subtract: they are taken back to what was noted at the last decision, and what came since is
 * computed again. Queries that the ring has lost to later ones are, too, from a place no decision
 * lies behind: of the last w, that is, which the next decision may look at. */
static wn_status restore_statistics(wn_seq *s, int *at, wn_err *err)
{
    int back = *at, w = 0;
    if (s->kv_opts.ring_rows && s->decide)              /* tests' deciders and who watches may look
                                                           at all */
        w = s->policy && !s->log ? wn_policy_window(s->policy) : s->kv_opts.ring_rows;
    if (s->ledger.n_stats) back = s->noted_at <= *at ? s->noted_at : 0;
    if (w && wn_kv_ring_valid(s->kv) - (*at - back) < WN_MIN(back, w)) {
        back = s->ledger.n_stats ? 0 : WN_MAX(back - w, 0);
        if (back < s->decided_at) back = 0;
    }
    while (back < *at) {
        wn_status st = wn_kv_truncate(s->kv, back, at, err);
        if (st) return st;
        if (s->ledger.n_stats && *at < back) back = 0;  /* the cache goes back further than to the
                                                           decision */
    }
    if (*at < s->noted_at) s->noted_at = 0;
    wn_seq_restore_ledger(s);
    return WN_OK;
}

wn_status wn_seq_truncate(wn_seq *s, int n, wn_err *err)
{
    int at;
    if (n < 0 || n > s->n_fed)
        return wn_fail(err, WN_EINVAL, "truncation to %d tokens: the sequence has %d", n, s->n_fed);
    int had = wn_kv_n(s->kv);
    if (n < had) {
        /* Where the cache can only resume earlier, the tokens between are computed again. */
        wn_status st = wn_kv_truncate(s->kv, n, &at, err);
        if (!st) st = restore_statistics(s, &at, err);
        if (st) return st;
        if (s->decided_at > at) s->decided_at = wn_seq_last_point(s, at);
    }
    while (s->n_marks && s->marks[s->n_marks - 1] > n) s->n_marks--;
    wn_seq_cut_ranges(s, n);
    s->n_reported = WN_MIN(s->n_reported, n);
    s->n_known = WN_MIN(s->n_known, n);
    s->n_fed = n;
    if (s->n_logits != n) s->n_logits = 0;
    if (s->next_at > n) s->next_at = 0;
    return WN_OK;
}

void wn_seq_get_stats(const wn_seq *s, wn_seq_stats *out)
{
    wn_kv_stats ks;
    wn_kv_get_stats(s->kv, &ks);
    size_t bytes = ks.bytes + wn_ledger_bytes(&s->ledger, s->kv);
    *out = (wn_seq_stats){ .kv_bytes = bytes, .kv_bytes_peak = WN_MAX(s->bytes_peak, bytes),
                           .observed = s->observed, .kv_slots = ks.slots,
                           .kv_slots_full = ks.slots_full, .promised = s->promised,
                           .parked = wn_seq_is_parked(s) };
}

size_t wn_seq_read_bytes(const wn_seq *s, int n)
{
    return wn_kv_bytes_seen(&s->kv_opts, n, 1);
}
