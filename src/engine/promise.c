/* engine/promise.c - who was promised how many positions, and who waits when they run out.
 *
 * A promise is counted in frames of the pool, as if nothing were shared (DESIGN.md section
 * 7), and the promises of all sequences together never exceed the pool. So what is promised
 * can always be computed, whatever the others do.
 *
 * A sequence that named its max_tokens holds one promise from opening to closing. One that
 * did not is *growing*: it is promised what it was fed and a portion more, and tops up
 * before each batch, the oldest first. When a top-up does not fit, growing sequences that
 * were opened later are parked, the youngest first, until it does; one that still lacks
 * room waits with what it has. The oldest is never parked, so one always goes on.
 *
 *     running --- an older one lacks room ---> parked --- room, oldest first ---> running
 *
 * Parking gives all frames back and keeps the tokens and marks; taking up computes them
 * again, as a prompt. That is exact, because the same tokens and marks give the same bytes
 * (section 6), and it needs no memory. Keeping the frames elsewhere would need as much as
 * the pool was short of, and that would have to be promised too. What was computed and
 * reported before is not reported again.
 */
#include "engine/engine.h"

#include <string.h>

/* ---- frames ------------------------------------------------------------------------- */

/* A fork for a probe shares what is full: its own are the page that is filling, its tokens, pages
 * of the text that are sealed behind these, and what window lanes see. */
static wn_status add_fork(const wn_kv_opts *o, int n_tokens, int probe,
                          uint32_t counts[WN_POOL_CLASSES], wn_err *err)
{
    uint32_t more[WN_POOL_CLASSES] = { 0 };
    int P = o->page_slots, raw = 0;
    /* of encoded formats: rows that wait to be sealed */
    for (int l = 0; l < o->map->n_lanes; l++) {
        const wn_format *k = o->formats ? o->formats[l].k : o->k_format,
                        *v = o->formats ? o->formats[l].v : o->v_format;
        if (!k->raw || !v->raw) raw = probe;
    }
    wn_kv_hold h = { .n = probe + 2 * P, .text = n_tokens + probe, .slack = raw + 2 * P,
                     .decides = true };
    wn_status st = wn_kv_frames_for(o, &h, more, err);
    for (int c = 0; !st && c < WN_POOL_CLASSES; c++) counts[c] += more[c];
    return st;
}

/* Policies that merge: survivors may move to merge pages, which have tables of positions,
 * biases and counts. A lane then has two lists, each with a page that is partly filled, and
 * its merge pages are made anew while the old ones and its ordinary pages are still there. */
wn_status wn_seq_frames_for(const wn_kv_opts *o, const wn_policy *policy, int n_tokens, int n_held,
                            uint32_t counts[WN_POOL_CLASSES], wn_err *err)
{
    int64_t cap = policy ? WN_MIN(wn_policy_cap(policy, n_tokens) + n_held, (int64_t)n_tokens)
                         : n_tokens;
    int64_t lanes = o->map->n_lanes;
    int P = o->page_slots;
    wn_kv_hold h = { .n = (int)cap, .text = n_tokens };
    if (o->every || (policy && wn_policy_decides(policy))) {
        h.decides = true;
        h.uneven = policy && wn_policy_allocates(policy);
        h.merges = policy && wn_policy_merges(policy);
        h.low = policy ? (int)wn_policy_low_cap(policy, n_tokens) : 0;
        /* one repack of the largest lane */
        h.slack = WN_MIN(o->every, n_tokens) + 2 * P + (int)(cap / lanes);
        /* its merge pages beside it */
        if (h.merges) h.slack += P + (int)(WN_MIN(n_tokens, cap * lanes) / lanes);
    }
    wn_status st = wn_kv_frames_for(o, &h, counts, err);
    int probe = wn_probe_tokens(policy, n_tokens);
    return st || !probe ? st : add_fork(o, n_tokens, probe, counts, err);
}

size_t wn_engine_extents_for(const wn_engine *e, const uint32_t counts[WN_POOL_CLASSES],
                             uint32_t times)
{
    size_t n = 0;
    for (int c = 0; c < WN_POOL_CLASSES; c++)
        if (counts[c]) {
            uint64_t total = (uint64_t)counts[c] * times,
                     per = wn_pool_frames_per_extent(e->kv_opts.pool, c);
            n += (size_t)((total + per - 1) / per);
        }
    return n;
}

/* Do n positions of s fit beside the promises of the others? Growing sequences from index
 * `spare` on are thought away. s may be opening: not in the list yet. */
static bool fits(const wn_seq *s, int n, int spare)
{
    const wn_engine *e = s->e;
    uint32_t sum[WN_POOL_CLASSES];
    wn_pool_stats ps;
    wn_pool_get_stats(e->pool, &ps);
    if (wn_seq_frames_for(&s->kv_opts, s->policy, n, s->n_held, sum, NULL)) return false;
    for (int c = 0; c < WN_POOL_CLASSES; c++) sum[c] += e->reserved[c] - s->reserved[c];
    for (int i = spare; i < e->n_seqs; i++)
        for (int c = 0; c < WN_POOL_CLASSES && e->seqs[i]->growing && e->seqs[i] != s; c++)
            sum[c] -= e->seqs[i]->reserved[c];
    return wn_engine_extents_for(e, sum, 1) <= ps.n_extents;
}

/* The largest n in [least, most] that fits; least - 1 when none does. */
static int most_that_fits(const wn_seq *s, int least, int most, int spare)
{
    int lo = least - 1, hi = most;
    if (hi > lo && fits(s, hi, spare)) return hi;
    while (lo < hi) {
        int mid = lo + (hi - lo + 1) / 2;
        if (fits(s, mid, spare)) lo = mid;
        else hi = mid - 1;
    }
    return lo;
}

/* Positions of s that the whole pool could hold, if nobody else were there; up to n. */
static int alone(const wn_seq *s, int n)
{
    uint32_t counts[WN_POOL_CLASSES];
    wn_pool_stats ps;
    int lo = 0, hi = n;
    wn_pool_get_stats(s->e->pool, &ps);
    while (lo < hi) {
        /* n itself first: it nearly always fits */
        int mid = hi == n ? n : lo + (hi - lo + 1) / 2;
        if (!wn_seq_frames_for(&s->kv_opts, s->policy, mid, s->n_held, counts, NULL) &&
            wn_engine_extents_for(s->e, counts, 1) <= ps.n_extents) lo = mid;
        else hi = mid - 1;
    }
    return lo;
}

int wn_seq_most_ever(const wn_seq *s)
{
    return s->growing ? alone(s, s->opts.max_tokens) : s->opts.max_tokens;
}

int wn_engine_room_for(const wn_engine *e, const wn_kv_opts *o, const wn_policy *policy)
{
    wn_seq s = { .e = (wn_engine *)e, .kv_opts = *o, .policy = (wn_policy *)policy };
    return most_that_fits(&s, 1, e->n_ctx, e->n_seqs);
}

/* ---- promises ----------------------------------------------------------------------- */

void wn_seq_unpromise(wn_seq *s)
{
    for (int c = 0; c < WN_POOL_CLASSES; c++) s->e->reserved[c] -= s->reserved[c];
    memset(s->reserved, 0, sizeof s->reserved);
    s->promised = 0;
}

static void promise(wn_seq *s, int n)
{
    uint32_t counts[WN_POOL_CLASSES];
    wn_status st = wn_seq_frames_for(&s->kv_opts, s->policy, n, s->n_held, counts, NULL);
    WN_ASSERT(!st);                     /* it has just been counted */
    wn_seq_unpromise(s);
    memcpy(s->reserved, counts, sizeof counts);
    for (int c = 0; c < WN_POOL_CLASSES; c++) s->e->reserved[c] += counts[c];
    s->promised = n;
}

static int n_parked(const wn_engine *e)
{
    int n = 0;
    for (int i = 0; i < e->n_seqs; i++) n += wn_seq_is_parked(e->seqs[i]);
    return n;
}

/* What a growing sequence is promised, if it can be, when n tokens have been fed. */
static int ample(const wn_seq *s, int n)
{
    int64_t P = s->kv_opts.page_slots, most = (n + P - 1) / P * P + s->e->portion;
    return (int)WN_MIN(most, (int64_t)s->opts.max_tokens);
}

static wn_status refuse(const wn_seq *s, int n, wn_err *err)
{
    const wn_engine *e = s->e;
    return wn_fail(
        err, WN_EFULL,
        "%d positions do not fit: the cache pool can promise %d more (%d sequences are open, "
        "%d of them parked)",
        n, wn_engine_room_for(e, &s->kv_opts, s->policy), e->n_seqs, n_parked(e));
}

wn_status wn_seq_promise(wn_seq *s, int n, wn_err *err)
{
    uint32_t counts[WN_POOL_CLASSES];
    int least = s->growing ? n : s->opts.max_tokens,
        most = s->growing ? ample(s, n) : s->opts.max_tokens;
    wn_status st = wn_seq_frames_for(&s->kv_opts, s->policy, WN_MAX(most, 1), s->n_held, counts,
                                     err);
    if (st) return st;
    if (s->growing && !n) least = alone(s, most);       /* a small pool may not have a portion */
    int got = most_that_fits(s, WN_MAX(least, 1), most, s->e->n_seqs);
    if (got < WN_MAX(least, 1)) return refuse(s, WN_MAX(least, 1), err);
    promise(s, got);
    return WN_OK;
}

wn_status wn_seq_promise_fed(wn_seq *s, int n, wn_err *err)
{
    if (!s->growing || n <= s->promised) return WN_OK;
    int most = alone(s, n);
    if (most < n)
        return wn_fail(
            err, WN_EFULL,
            "%d tokens do not fit into the cache pool: alone in it, this sequence could have %d", n,
            most);
    if (wn_seq_is_parked(s)) return WN_OK;
    int got = most_that_fits(s, n, ample(s, n), s->e->n_seqs);
    if (got >= n) promise(s, got);      /* else a step sees to it */
    return WN_OK;
}

wn_status wn_seq_promise_again(wn_seq *s, wn_err *err)
{
    uint32_t had[WN_POOL_CLASSES];
    int n = s->promised;
    if (wn_seq_is_parked(s)) return WN_OK;
    memcpy(had, s->reserved, sizeof had);
    wn_seq_unpromise(s);
    wn_status st = wn_seq_promise(s, s->growing ? n : 0, err);
    if (!st) return WN_OK;
    memcpy(s->reserved, had, sizeof had);
    for (int c = 0; c < WN_POOL_CLASSES; c++) s->e->reserved[c] += had[c];
    s->promised = n;
    return st;
}

wn_status wn_seq_reserve_again(wn_seq *s, int every, wn_err *err)
{
    int before = s->every;
    s->every = s->kv_opts.every = every;
    wn_status st = wn_seq_promise_again(s, err);
    if (st) s->every = s->kv_opts.every = before;
    return st;
}

/* ---- parking ------------------------------------------------------------------------ */

bool wn_seq_is_parked(const wn_seq *s) { return s->growing && !s->promised; }
int wn_seq_n_computed(const wn_seq *s) { return WN_MAX(wn_kv_n(s->kv), s->n_known); }

static bool is_waiting(const wn_seq *s) { return wn_seq_n_computed(s) < s->n_fed; }

static void park(wn_seq *s)
{
    int n = wn_kv_n(s->kv), at;
    s->n_known = WN_MAX(s->n_known, n);
    wn_status st = wn_kv_truncate(s->kv, 0, &at, NULL);
    WN_ASSERT(!st);
    s->decided_at = s->noted_at = 0;
    wn_seq_restore_ledger(s);
    wn_seq_unpromise(s);
}

/* Sequence i tops up. A running one can do with less than a portion, and with fewer rows; a
 * parked one is taken up for all its tokens and a portion, as far as it could have them. */
static void top_up(wn_engine *e, int i)
{
    wn_seq *s = e->seqs[i];
    int n = wn_kv_n(s->kv), most = ample(s, s->n_fed), want = n + WN_MIN(s->n_fed - n, e->n_batch),
        least = n + 1;
    if (s->promised >= want) return;
    if (wn_seq_is_parked(s)) least = want = WN_MAX(s->n_fed, most_that_fits(s, 1, most, 0));
    least = WN_MAX(least, s->promised);
    int got = most_that_fits(s, least, most, e->n_seqs);
    if (got < want && is_waiting(s)) {
        int could = most_that_fits(s, least, most, i + 1);
        for (int j = e->n_seqs - 1; j > i && got < WN_MIN(want, could); j--) {
            if (!e->seqs[j]->growing || wn_seq_is_parked(e->seqs[j])) continue;
            park(e->seqs[j]);
            got = most_that_fits(s, least, most, e->n_seqs);
        }
    }
    if (got >= least) promise(s, got);
}

void wn_engine_share_room(wn_engine *e)
{
    bool waiting = false, held = false;
    for (int i = 0; i < e->n_seqs; i++) {
        wn_seq *s = e->seqs[i];
        if (!is_waiting(s)) continue;
        waiting = true;
        if (!s->growing || (held && wn_seq_is_parked(s))) continue;
        top_up(e, i);
        held = held || wn_seq_is_parked(s);             /* oldest first: younger parked ones stay
                                                           so */
    }
    /* Parked ones that wait for nothing are taken up when nobody else has work. */
    for (int i = 0; i < e->n_seqs && !waiting; i++)
        if (e->seqs[i]->growing && wn_kv_n(e->seqs[i]->kv) < e->seqs[i]->n_fed) top_up(e, i);
}

wn_status wn_engine_check_stuck(const wn_engine *e, wn_err *err)
{
    for (int i = 0; i < e->n_seqs; i++) {
        const wn_seq *s = e->seqs[i];
        if (!is_waiting(s)) continue;
        return wn_fail(
            err, WN_EFULL,
            "the sequence at position %d cannot go on: %d positions are promised to it and the "
            "cache pool (%zu MiB) has no room for more (%d sequences are open, %d of them parked): "
            "close one, "
            "or open the engine with a larger pool",
            wn_seq_n_computed(s), s->promised, wn_engine_pool_bytes(e) >> 20, e->n_seqs,
            n_parked(e));
    }
    return WN_OK;
}
