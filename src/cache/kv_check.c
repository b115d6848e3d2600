/* cache/kv_check.c - the invariants of kv.h, looked at one by one. */
#include "cache/kv_int.h"

/* A frame that may be written to has one reference; any that is named has at least one
 * (wn_pool_refs asserts that it is in use). K2 across sequences is for tests that know
 * all of them. */
static void check_frame(const wn_kv *kv, wn_frame_id f, int cls, bool alone)
{
    if (!wn_frame_ok(f)) return;
    WN_ASSERT(!alone || wn_pool_refs(kv->pool, f) == 1);
    WN_ASSERT(wn_pool_class(kv->pool, wn_pool_frame_bytes(kv->pool, f)) == cls);
}

/* What is held of a page follows from its due. */
static void check_held(const wn_kv *kv, int32_t due, int lag, wn_frame_id raw, wn_frame_id sealed)
{
    WN_ASSERT(wn_frame_ok(raw) || wn_frame_ok(sealed));
    if (lag < 0) WN_ASSERT(!wn_frame_ok(sealed));
    if (kv->n_reserved == kv->n_committed) WN_ASSERT(wn_frame_ok(raw) != wn_frame_ok(sealed));
    if (!wn_frame_ok(raw)) WN_ASSERT(due < kv->n_committed);
    if (wn_frame_ok(sealed)) WN_ASSERT(due < kv->n_reserved);
    if (lag >= 0 && due >= kv->n_committed && due < kv->n_reserved) WN_ASSERT(wn_frame_ok(sealed));
}

static int32_t check_page(const wn_kv *kv, int lane, int i, int32_t after, int list)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    bool merged = list == WN_LIST_MERGED, low = list == WN_LIST_LOW;
    wn_page pg = wn_kv_list_page(kv, lane, list, i);
    bool last = list == WN_LIST_PAGES && i == wn_kv_n_pages(kv, lane) - 1;
    bool writable = last && wn_page_is_open(kv, &pg) && kv->n_reserved > kv->n_committed;
    WN_ASSERT(pg.n >= 1 && pg.n <= kv->P);
    WN_ASSERT((pg.keep & ~wn_low_bits(pg.n)) == 0);
    if (l->listed) WN_ASSERT(pg.keep != 0);
    for (int s = 0; s < pg.n; s++) {
        int32_t pos = wn_page_pos(kv, &pg, s);
        WN_ASSERT(pos > after && pos < kv->n_reserved);                 /* K1: ascending */
        after = pos;
    }
    check_frame(kv, pg.k, l->k.raw_class, writable);
    check_frame(kv, pg.v, l->v.raw_class, writable);
    check_frame(kv, pg.ks, low ? l->k.low_class : l->k.sealed_class, false);
    check_frame(kv, pg.vs, low ? l->v.low_class : l->v.sealed_class, false);
    check_frame(kv, pg.pos, kv->pos_class, writable);
    check_frame(kv, pg.bias, kv->pos_class, writable);
    check_frame(kv, pg.count, kv->pos_class, false);
    WN_ASSERT(wn_frame_ok(pg.count) == merged);
    if (low) {
        WN_ASSERT(l->k.low && wn_frame_ok(pg.ks) && wn_frame_ok(pg.vs) && wn_frame_ok(pg.pos));
        WN_ASSERT(!wn_frame_ok(pg.k) && !wn_frame_ok(pg.v) && after < l->decided_at);
        return after;
    }
    if (merged) {
        WN_ASSERT(wn_frame_ok(pg.k) && wn_frame_ok(pg.v) && wn_frame_ok(pg.pos));
        WN_ASSERT(!wn_frame_ok(pg.ks) && !wn_frame_ok(pg.vs));
        return after;
    }
    check_held(kv, wn_kv_due(kv, lane, i, &pg, &l->k), l->k.lag, pg.k, pg.ks);
    check_held(kv, wn_kv_due(kv, lane, i, &pg, &l->v), l->v.lag, pg.v, pg.vs);
    return after;
}

/* K1: a position has at most one live slot: what a list holds is in no list before it. */
static void check_once(const wn_kv *kv, int lane, int list)
{
    for (int i = 0; i < wn_kv_list(kv, lane, list); i++) {
        wn_page m = wn_kv_list_page(kv, lane, list, i);
        for (uint64_t left = m.keep; left; left &= left - 1) {
            int32_t pos = wn_page_pos(kv, &m, __builtin_ctzll(left));
            for (int x = 0; x < list; x++) {
                int p = wn_kv_find_page(kv, lane, x, pos);
                if (p == wn_kv_list(kv, lane, x)) continue;
                wn_page pg = wn_kv_list_page(kv, lane, x, p);
                int slot = wn_page_find(kv, &pg, pos);
                WN_ASSERT(wn_page_pos(kv, &pg, slot) != pos || !(pg.keep >> slot & 1));
            }
        }
    }
}

static void check_segments(const wn_kv_lane *l)
{
    WN_ASSERT(l->n_segments >= 0 && l->n_segments <= WN_SEGMENTS_MAX);
    for (int i = 1; i < l->n_segments; i++)
        WN_ASSERT(l->segments[i].from > l->segments[i - 1].from);
}

void wn_kv_check(const wn_kv *kv)
{
    int n_unlisted = 0;
    WN_ASSERT(kv->n_committed >= 0 && kv->n_committed <= kv->n_reserved);       /* K4 */
    WN_ASSERT(kv->n_reserved <= kv->max_positions);
    for (int j = 0; j < kv->n_spans; j++) WN_ASSERT(wn_pool_refs(kv->pool, kv->spans[j]) > 0);
    for (int i = 0; i < kv->map->n_lanes; i++) {
        const wn_kv_lane *l = &kv->lanes[i];
        int n = wn_kv_n_pages(kv, i);
        uint64_t live = 0;
        for (int list = 0; list < WN_LISTS; list++) {
            int32_t pos = -1;
            WN_ASSERT(wn_kv_list(kv, i, list) <= kv->cap);
            for (int p = 0; p < wn_kv_list(kv, i, list); p++) {
                pos = check_page(kv, i, p, pos, list);
                live += (uint64_t)__builtin_popcountll(wn_kv_list_page(kv, i, list, p).keep);
            }
            if (list) check_once(kv, i, list);
        }
        check_segments(l);
        WN_ASSERT(live == wn_kv_live(kv, i) + (uint64_t)(kv->n_reserved - kv->n_committed));
        WN_ASSERT(l->decided_at <= kv->n_committed);
        if (l->listed) continue;
        n_unlisted++;
        WN_ASSERT(n == wn_pages_of(kv->n_reserved, kv->P) && !l->n_pages && !l->n_low &&
                  !l->n_merged);
        if (kv->n_spans && kv->n_reserved > kv->n_committed && kv->n_reserved % kv->P) {
            WN_ASSERT(wn_pool_refs(kv->pool, kv->spans[kv->n_spans - 1]) == 1);         /* K3 */
        }
    }
    WN_ASSERT(n_unlisted == kv->n_unlisted);
    if (!n_unlisted) WN_ASSERT(kv->n_spans == 0);
}
