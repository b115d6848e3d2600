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

int32_t wn_kv_due(const wn_kv *kv, int lane, int i, const wn_page *pg, const wn_kv_side *s)
{
    if (s->lag < 0) return INT32_MAX;
    bool last = i == wn_kv_n_pages(kv, lane) - 1;
    if (last && wn_page_is_open(kv, pg)) return INT32_MAX;
    return wn_page_due(kv, &kv->lanes[lane], s, wn_page_last(kv, pg));
}

/* No frame of this page, and so of none before it, waits to be sealed or dropped. */
static bool is_done(const wn_kv_lane *l, const wn_page *pg)
{
    return (l->k.lag < 0 || !wn_frame_ok(pg->k)) && (l->v.lag < 0 || !wn_frame_ok(pg->v));
}

/* ---- frames for what a pass will seal --------------------------------------------------- */

static bool span_due(const wn_kv *kv, const wn_kv_side *s, int j, int target)
{
    int due = kv->P * (j + 1 + s->lag);
    return s->lag >= 0 && due >= kv->n_reserved && due < target;
}

static void reserve_spans(wn_kv *kv, int target, uint32_t *need)
{
    int back = kv->lag_most + 2;
    for (int j = WN_MAX(0, kv->n_reserved / kv->P - back); kv->P * (j + 1) < target; j++) {
        /* The open page's span has been made private (or counted) with the page itself. */
        bool mine = j >= kv->n_spans || (need && j == kv->n_reserved / kv->P);
        for (int l = 0; l < kv->map->n_lanes; l++) {
            const wn_kv_lane *lane = &kv->lanes[l];
            bool k = span_due(kv, &lane->k, j, target), v = span_due(kv, &lane->v, j, target);
            if (lane->listed || (!k && !v)) continue;
            if (!mine) wn_span_private(kv, j, need);
            mine = true;
            wn_frame_id ks = k ? wn_kv_take(kv, lane->k.sealed_class, need) : WN_NO_FRAME;
            wn_frame_id vs = v ? wn_kv_take(kv, lane->v.sealed_class, need) : WN_NO_FRAME;
            if (need) continue;
            if (k) wn_span_lane(kv, j, l)[2] = ks;
            if (v) wn_span_lane(kv, j, l)[3] = vs;
        }
    }
}

static void reserve_page(wn_kv *kv, const wn_kv_lane *l, wn_page *pg, int32_t last_pos, int target,
                         uint32_t *need)
{
    if (l->k.lag >= 0 && wn_frame_ok(pg->k) && !wn_frame_ok(pg->ks) &&
        wn_page_due(kv, l, &l->k, last_pos) < target)
        pg->ks = wn_kv_take(kv, l->k.sealed_class, need);
    if (l->v.lag >= 0 && wn_frame_ok(pg->v) && !wn_frame_ok(pg->vs) &&
        wn_page_due(kv, l, &l->v, last_pos) < target)
        pg->vs = wn_kv_take(kv, l->v.sealed_class, need);
}

/* When counting, slots [n_reserved, target) are not there yet: they fill the last page
 * first and then pages of their own. */
static void reserve_list(wn_kv *kv, int lane, int target, uint32_t *need)
{
    wn_kv_lane *l = &kv->lanes[lane];
    int32_t at = kv->n_reserved;
    for (int i = l->n_pages - 1; i >= 0 && !is_done(l, &l->pages[i]); i--) {
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
    const wn_kv_lane *l = &kv->lanes[lane];
    for (int i = wn_kv_n_pages(kv, lane) - 1; i >= 0; i--) {
        wn_page pg = wn_kv_page(kv, lane, i);
        if (is_done(l, &pg)) break;
        if (wn_page_last(kv, &pg) >= end) continue;
        if (wn_frame_ok(pg.k) && wn_frame_ok(pg.ks))
            wn_format_encode_k(l->k.format, wn_kv_addr(kv, pg.ks), wn_kv_addr(kv, pg.k), l->k.raw,
                               kv->P, pg.n, pg.keep, l->k.dim, wn_page_place_of(kv, &pg));
        if (wn_frame_ok(pg.v) && wn_frame_ok(pg.vs))
            wn_format_encode_v(l->v.format, wn_kv_addr(kv, pg.vs), wn_kv_addr(kv, pg.v), l->v.raw,
                               kv->P, pg.n, pg.keep, l->v.dim);
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
        const wn_kv_lane *lane = &kv->lanes[l];
        for (int i = wn_kv_n_pages(kv, l) - 1; i >= 0; i--) {
            wn_page pg = wn_kv_page(kv, l, i);
            ids f = ids_of(kv, l, i);
            if (is_done(lane, &pg)) break;
            if (wn_frame_ok(pg.ks) && wn_kv_due(kv, l, i, &pg, &lane->k) < kv->n_committed)
                wn_kv_drop(kv, f.k);
            if (wn_frame_ok(pg.vs) && wn_kv_due(kv, l, i, &pg, &lane->v) < kv->n_committed)
                wn_kv_drop(kv, f.v);
        }
    }
}

void wn_seal_undo(wn_kv *kv, int target)
{
    bool all = target == kv->n_committed;               /* no pass: nothing is held both ways */
    for (int l = 0; l < kv->map->n_lanes; l++) {
        const wn_kv_lane *lane = &kv->lanes[l];
        for (int i = wn_kv_n_pages(kv, l) - 1; i >= 0; i--) {
            wn_page pg = wn_kv_page(kv, l, i);
            ids f = ids_of(kv, l, i);
            if (is_done(lane, &pg)) break;
            if (wn_frame_ok(pg.k) && wn_frame_ok(pg.ks) &&
                (all || wn_kv_due(kv, l, i, &pg, &lane->k) >= target))
                wn_kv_drop(kv, f.ks);
            if (wn_frame_ok(pg.v) && wn_frame_ok(pg.vs) &&
                (all || wn_kv_due(kv, l, i, &pg, &lane->v) >= target))
                wn_kv_drop(kv, f.vs);
        }
    }
}
