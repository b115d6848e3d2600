/* cache/kv_seal.c - raw pages become encoded ones, at positions and never at events.
 *
 * A query at p reads a page sealed exactly when p >= due. Within a pass over [a, b) some
 * queries may be before a page's due and some after it, so the page is encoded as soon
 * as its last row is there, next to its raw frames, and the raw ones go once the pass is
 * committed. What is reserved and not committed can be taken back; the sealed frames of
 * pages that are not due at the last committed position go with it.
 *
 * Pages come in order of their due, and those that hold a raw frame are the last few of a
 * lane: every loop here walks back from the end and stops at the first page without one.
 */
#include "cache/kv_int.h"

int32_t wn_kv_due(const wn_kv *kv, int lane, int i, const wn_page *pg, int lag)
{
    if (lag < 0) return INT32_MAX;
    bool last = i == wn_kv_n_pages(kv, lane) - 1;
    if (last && wn_page_is_open(kv, pg)) return INT32_MAX;
    return kv->P * (wn_page_last(kv, pg) / kv->P + 1 + lag);
}

/* No frame of this page, and so of none before it, waits to be sealed or dropped. */
static bool is_done(const wn_kv *kv, const wn_page *pg)
{
    return (kv->k_lag < 0 || !wn_frame_ok(pg->k)) && (kv->v_lag < 0 || !wn_frame_ok(pg->v));
}

/* ---- frames for what a pass will seal --------------------------------------------------- */

static bool span_due(const wn_kv *kv, int j, int lag, int target)
{
    int due = kv->P * (j + 1 + lag);
    return lag >= 0 && due >= kv->n_reserved && due < target;
}

static void reserve_spans(wn_kv *kv, int target, uint32_t *need)
{
    int back = WN_MAX(kv->k_lag, kv->v_lag) + 2;
    for (int j = WN_MAX(0, kv->n_reserved / kv->P - back); kv->P * (j + 1) < target; j++) {
        bool k = span_due(kv, j, kv->k_lag, target), v = span_due(kv, j, kv->v_lag, target);
        if (!k && !v) continue;
        /* The open page's span has been made private (or counted) with the page itself. */
        bool was_open = j == kv->n_reserved / kv->P;
        if (j < kv->n_spans && !(need && was_open)) wn_span_private(kv, j, need);
        for (int l = 0; l < kv->map->n_lanes; l++) {
            const wn_kv_lane *lane = &kv->lanes[l];
            if (lane->listed) continue;
            wn_frame_id ks = k ? wn_kv_take(kv, lane->ksc, need) : WN_NO_FRAME;
            wn_frame_id vs = v ? wn_kv_take(kv, lane->vsc, need) : WN_NO_FRAME;
            if (need) continue;
            if (k) wn_span_lane(kv, j, l)[2] = ks;
            if (v) wn_span_lane(kv, j, l)[3] = vs;
        }
    }
}

static void reserve_page(wn_kv *kv, const wn_kv_lane *l, wn_page *pg, int32_t last_pos, int target,
                         uint32_t *need)
{
    int text_page = last_pos / kv->P;
    if (kv->k_lag >= 0 && wn_frame_ok(pg->k) && !wn_frame_ok(pg->ks) &&
        kv->P * (text_page + 1 + kv->k_lag) < target)
        pg->ks = wn_kv_take(kv, l->ksc, need);
    if (kv->v_lag >= 0 && wn_frame_ok(pg->v) && !wn_frame_ok(pg->vs) &&
        kv->P * (text_page + 1 + kv->v_lag) < target)
        pg->vs = wn_kv_take(kv, l->vsc, need);
}

/* When counting, slots [n_reserved, target) are not there yet: they fill the last page
 * first and then pages of their own. */
static void reserve_list(wn_kv *kv, int lane, int target, uint32_t *need)
{
    wn_kv_lane *l = &kv->lanes[lane];
    int32_t at = kv->n_reserved;
    for (int i = l->n_pages - 1; i >= 0 && !is_done(kv, &l->pages[i]); i--) {
        wn_page pg = l->pages[i];
        int32_t last = wn_page_last(kv, &pg);
        if (i == l->n_pages - 1 && wn_page_is_open(kv, &pg)) {
            int room = kv->P - pg.n;
            if (!need || room > target - at) continue;          /* stays open */
            at += room;
            last = at - 1;
        }
        reserve_page(kv, l, need ? &pg : &l->pages[i], last, target, need);
    }
    if (!need) return;
    for (; at + kv->P <= target; at += kv->P) {
        wn_page pg = WN_PAGE_EMPTY;
        pg.k = pg.v = (wn_frame_id){ 0 };
        reserve_page(kv, l, &pg, at + kv->P - 1, target, need);
    }
}

void wn_seal_reserve(wn_kv *kv, int target, uint32_t *need)
{
    if (kv->n_unlisted) reserve_spans(kv, target, need);
    for (int l = 0; l < kv->map->n_lanes; l++)
        if (kv->lanes[l].listed) reserve_list(kv, l, target, need);
}

/* ---- encoding, and dropping what is no longer read --------------------------------------- */

void wn_seal_put(wn_kv *kv, int lane, int end)
{
    const wn_lane *w = &kv->map->lanes[lane];
    for (int i = wn_kv_n_pages(kv, lane) - 1; i >= 0; i--) {
        wn_page pg = wn_kv_page(kv, lane, i);
        if (is_done(kv, &pg)) break;
        if (wn_page_last(kv, &pg) >= end) continue;
        if (wn_frame_ok(pg.k) && wn_frame_ok(pg.ks))
            kv->k_format->encode_k(wn_kv_addr(kv, pg.ks), wn_kv_addr(kv, pg.k), kv->raw_k, kv->P,
                                   pg.n, pg.keep, w->k_dim);
        if (wn_frame_ok(pg.v) && wn_frame_ok(pg.vs))
            kv->v_format->encode_v(wn_kv_addr(kv, pg.vs), wn_kv_addr(kv, pg.v), kv->raw_v, kv->P,
                                   pg.n, pg.keep, w->v_dim);
    }
}

/* The four frame ids of page i, wherever they are kept. */
typedef struct { wn_frame_id *k, *v, *ks, *vs; } ids;

static ids ids_of(wn_kv *kv, int lane, int i)
{
    if (kv->lanes[lane].listed) {
        wn_page *pg = &kv->lanes[lane].pages[i];
        return (ids){ &pg->k, &pg->v, &pg->ks, &pg->vs };
    }
    wn_frame_id *s = wn_span_lane(kv, i, lane);
    return (ids){ s, s + 1, s + 2, s + 3 };
}

void wn_seal_commit(wn_kv *kv)
{
    for (int l = 0; l < kv->map->n_lanes; l++) {
        for (int i = wn_kv_n_pages(kv, l) - 1; i >= 0; i--) {
            wn_page pg = wn_kv_page(kv, l, i);
            ids f = ids_of(kv, l, i);
            if (is_done(kv, &pg)) break;
            if (wn_frame_ok(pg.ks) && wn_kv_due(kv, l, i, &pg, kv->k_lag) < kv->n_committed)
                wn_kv_drop(kv, f.k);
            if (wn_frame_ok(pg.vs) && wn_kv_due(kv, l, i, &pg, kv->v_lag) < kv->n_committed)
                wn_kv_drop(kv, f.v);
        }
    }
}

void wn_seal_undo(wn_kv *kv, int target)
{
    bool all = target == kv->n_committed;               /* no pass: nothing is held both ways */
    for (int l = 0; l < kv->map->n_lanes; l++) {
        for (int i = wn_kv_n_pages(kv, l) - 1; i >= 0; i--) {
            wn_page pg = wn_kv_page(kv, l, i);
            ids f = ids_of(kv, l, i);
            if (is_done(kv, &pg)) break;
            if (wn_frame_ok(pg.k) && wn_frame_ok(pg.ks) &&
                (all || wn_kv_due(kv, l, i, &pg, kv->k_lag) >= target))
                wn_kv_drop(kv, f.ks);
            if (wn_frame_ok(pg.v) && wn_frame_ok(pg.vs) &&
                (all || wn_kv_due(kv, l, i, &pg, kv->v_lag) >= target))
                wn_kv_drop(kv, f.vs);
        }
    }
}
