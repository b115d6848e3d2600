/* cache/kv_lane.c - the pages of one lane: looking them up, adding slots, taking them back.
 *
 * Slots are appended where the last page of the lane has room. As long as a page's
 * positions are consecutive it needs no table of them; the first token that follows a
 * repack breaks this and gives the page one.
 */
#include "cache/kv_int.h"

#include <string.h>

int wn_kv_n_pages(const wn_kv *kv, int lane)
{
    return kv->lanes[lane].listed ? kv->lanes[lane].n_pages : kv->n_spans;
}

wn_page wn_kv_page(const wn_kv *kv, int lane, int i)
{
    if (kv->lanes[lane].listed) return kv->lanes[lane].pages[i];
    const wn_frame_id *s = wn_span_lane(kv, i, lane);
    wn_page pg = WN_PAGE_EMPTY;
    pg.k = s[0];
    pg.v = s[1];
    if (kv->span_stride == 4) {
        pg.ks = s[2];
        pg.vs = s[3];
    }
    pg.pos0 = i * kv->P;
    pg.n = WN_MIN(kv->P, kv->n_reserved - pg.pos0);
    pg.keep = wn_low_bits(pg.n);
    return pg;
}

int32_t wn_page_pos(const wn_kv *kv, const wn_page *pg, int slot)
{
    return wn_frame_ok(pg->pos) ? ((const int32_t *)wn_kv_addr(kv, pg->pos))[slot]
                                : pg->pos0 + slot;
}

wn_page_place wn_page_place_of(const wn_kv *kv, const wn_page *pg)
{
    return (wn_page_place){ wn_frame_ok(pg->pos) ? wn_kv_addr(kv, pg->pos) : NULL, pg->pos0 };
}

int wn_page_find(const wn_kv *kv, const wn_page *pg, int32_t pos)
{
    if (!wn_frame_ok(pg->pos)) return pos <= pg->pos0 ? 0 : WN_MIN(pos - pg->pos0, pg->n);
    const int32_t *p = wn_kv_addr(kv, pg->pos);
    int lo = 0, n = pg->n;
    if (!n || p[n - 1] < pos) return n;
    /* halves of n slots, the last of them at pos or behind it; without branches to guess */
    for (; n > 1; n -= n / 2) lo += p[lo + n / 2 - 1] < pos ? n / 2 : 0;
    return lo;
}

static const wn_page *pages_of(const wn_kv_lane *l, int list)
{
    return list == WN_LIST_PAGES ? l->pages : list == WN_LIST_LOW ? l->low : l->merged;
}

int wn_kv_list(const wn_kv *kv, int lane, int list)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    return list == WN_LIST_PAGES ? wn_kv_n_pages(kv, lane)
           : list == WN_LIST_LOW ? l->n_low
                                 : l->n_merged;
}

wn_page wn_kv_list_page(const wn_kv *kv, int lane, int list, int i)
{
    wn_page made;
    return *wn_kv_look_at(kv, lane, list, i, &made);
}

const wn_page *wn_kv_look_at(const wn_kv *kv, int lane, int list, int i, wn_page *made)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    if (list != WN_LIST_PAGES || l->listed) return &pages_of(l, list)[i];
    *made = wn_kv_page(kv, lane, i);
    return made;
}

int wn_kv_find_page(const wn_kv *kv, int lane, int list, int32_t pos)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    if (list == WN_LIST_PAGES && !l->listed) return WN_MIN(pos / kv->P, kv->n_spans);
    const wn_page *pages = pages_of(l, list);
    int lo = 0, hi = wn_kv_list(kv, lane, list);
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (wn_page_last(kv, &pages[mid]) < pos) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

int32_t wn_kv_shift_at(const wn_kv_lane *l, int32_t pos, int32_t *end)
{
    int32_t shift = 0;
    *end = INT32_MAX;
    for (int i = 0; i < l->n_segments; i++) {
        if (l->segments[i].from > pos) {
            *end = l->segments[i].from;
            break;
        }
        shift = l->segments[i].shift;
    }
    return shift;
}

int wn_kv_shifts(const wn_kv *kv, int lane, int32_t shifts[WN_SHIFTS_MAX])
{
    const wn_kv_lane *l = &kv->lanes[lane];
    int n = 1;
    shifts[0] = 0;
    for (int i = 0; i < l->n_segments; i++) {
        int j = 0;
        while (j < n && shifts[j] != l->segments[i].shift) j++;
        if (j < n) continue;
        WN_ASSERT(n < WN_SHIFTS_MAX);
        shifts[n++] = l->segments[i].shift;
    }
    return n;
}

wn_frame_id wn_kv_take(wn_kv *kv, int cls, uint32_t *need)
{
    wn_frame_id f = WN_NO_FRAME;
    if (need) {
        need[cls]++;
        return f;
    }
    wn_kv_lock(kv);
    wn_status st = wn_pool_take(kv->pool, cls, &f);
    wn_kv_unlock(kv);
    WN_ASSERT(st == WN_OK);
    /* Zeroed, so that nothing of another sequence can be read, saved or multiplied by 0. */
    memset(wn_kv_addr(kv, f), 0, wn_pool_frame_bytes(kv->pool, f));
    return f;
}

void wn_kv_own(wn_kv *kv, wn_frame_id *f, int cls, uint32_t *need)
{
    if (!wn_frame_ok(*f)) return;
    wn_kv_lock(kv);
    bool own = wn_pool_refs(kv->pool, *f) == 1;
    wn_kv_unlock(kv);
    if (own) return;
    wn_frame_id mine = wn_kv_take(kv, cls, need);
    if (need) return;
    memcpy(wn_kv_addr(kv, mine), wn_kv_addr(kv, *f), wn_pool_frame_bytes(kv->pool, *f));
    wn_kv_drop(kv, f);
    *f = mine;
}

void wn_pages_drop(wn_kv *kv, wn_page *pages, int n)
{
    wn_kv_lock(kv);
    for (wn_page *pg = pages; pg < pages + n; pg++) {
        wn_frame_id *const f[] = { &pg->k,   &pg->v,    &pg->ks,   &pg->vs,
                                   &pg->pos, &pg->bias, &pg->count };
        for (size_t i = 0; i < WN_COUNT(f); i++) {
            if (wn_frame_ok(*f[i])) wn_pool_drop(kv->pool, *f[i]);
            *f[i] = WN_NO_FRAME;
        }
    }
    wn_kv_unlock(kv);
}

/* Slots pg->n .. pg->n + m - 1 for positions from, from + 1, ... */
static void append(wn_kv *kv, wn_page *pg, int32_t from, int m)
{
    if (!pg->n) pg->pos0 = from;
    if (wn_frame_ok(pg->pos)) {
        int32_t *pos = wn_kv_addr(kv, pg->pos);
        for (int s = 0; s < m; s++) pos[pg->n + s] = from + s;
    }
    if (wn_frame_ok(pg->bias))
        memset((float *)wn_kv_addr(kv, pg->bias) + pg->n, 0, (size_t)m * sizeof(float));
    pg->keep |= wn_low_bits(m) << pg->n;
    pg->n += m;
}

/* The last page, before it is written to again: private, and with a table of positions
 * if what comes next does not follow on. */
static void reopen(wn_kv *kv, const wn_kv_lane *l, wn_page *pg, int32_t next, uint32_t *need)
{
    wn_kv_own(kv, &pg->k, l->k.raw_class, need);
    wn_kv_own(kv, &pg->v, l->v.raw_class, need);
    wn_kv_own(kv, &pg->pos, kv->pos_class, need);
    wn_kv_own(kv, &pg->bias, kv->pos_class, need);
    if (wn_frame_ok(pg->pos) || pg->pos0 + pg->n == next) return;
    wn_frame_id f = wn_kv_take(kv, kv->pos_class, need);
    if (need) return;
    int32_t *pos = wn_kv_addr(kv, f);
    for (int s = 0; s < pg->n; s++) pos[s] = pg->pos0 + s;
    pg->pos = f;
}

void wn_list_grow(wn_kv *kv, int lane, int target, uint32_t *need)
{
    wn_kv_lane *l = &kv->lanes[lane];
    int32_t at = kv->n_reserved;
    wn_page *last = l->n_pages ? &l->pages[l->n_pages - 1] : NULL;
    if (last && at < target && wn_page_is_open(kv, last)) {
        int m = WN_MIN(kv->P - last->n, target - at);
        reopen(kv, l, last, at, need);
        if (!need) append(kv, last, at, m);
        at += m;
    }
    while (at < target) {
        int m = WN_MIN(kv->P, target - at);
        wn_page pg = WN_PAGE_EMPTY;
        pg.k = wn_kv_take(kv, l->k.raw_class, need);
        pg.v = wn_kv_take(kv, l->v.raw_class, need);
        if (!need) {
            WN_ASSERT(l->n_pages < kv->cap);
            append(kv, &pg, at, m);
            l->pages[l->n_pages++] = pg;
        }
        at += m;
    }
}

void wn_list_cut(wn_kv *kv, int lane, int n_slots)
{
    wn_kv_lane *l = &kv->lanes[lane];
    while (n_slots > 0) {
        WN_ASSERT(l->n_pages > 0);
        wn_page *pg = &l->pages[l->n_pages - 1];
        int m = WN_MIN(pg->n, n_slots);
        pg->n -= m;
        pg->keep &= wn_low_bits(pg->n);
        n_slots -= m;
        if (pg->n) continue;
        wn_page_drop(kv, pg);
        l->n_pages--;
    }
}

/* The spans are private by now (or about to be given up by all lanes). */
void wn_list_begin(wn_kv *kv, int lane)
{
    wn_kv_lane *l = &kv->lanes[lane];
    for (int j = 0; j < kv->n_spans; j++) {
        wn_frame_id *s = wn_span_lane(kv, j, lane);
        bool shared = wn_pool_refs(kv->pool, kv->spans[j]) > 1;
        l->pages[j] = wn_kv_page(kv, lane, j);
        for (int x = 0; x < kv->span_stride; x++) {
            if (shared && wn_frame_ok(s[x])) wn_pool_ref(kv->pool, s[x]);
            if (!shared) s[x] = WN_NO_FRAME;
        }
    }
    l->n_pages = kv->n_spans;
    l->n_low = l->n_merged = 0;
    l->live = (uint32_t)kv->n_committed;
    l->listed = true;
    if (--kv->n_unlisted) return;
    for (int j = 0; j < kv->n_spans; j++) wn_span_drop(kv, &kv->spans[j]);
    kv->n_spans = 0;
}
