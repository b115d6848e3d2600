/* cache/kv_span.c - what lanes no decision has touched have in common.
 *
 * A span is taken and dropped with one count, however many lanes it holds; the last drop
 * releases its frames. Who wants to change a span that others hold replaces it, for
 * himself, by one that names the same frames (each with one more reference). Rows are
 * only ever written to frames with a single reference: a fork copies the open page, and
 * a page that a truncation opened again is copied before the next row goes in.
 */
#include "cache/kv_int.h"

#include <string.h>

void wn_span_drop(wn_kv *kv, wn_frame_id *span)
{
    if (wn_pool_refs(kv->pool, *span) == 1) {
        wn_frame_id *s = wn_kv_addr(kv, *span);
        for (int i = 0; i < kv->map->n_lanes * kv->span_stride; i++) wn_kv_drop(kv, &s[i]);
    }
    wn_kv_drop(kv, span);
}

void wn_span_private(wn_kv *kv, int j, uint32_t *need)
{
    if (wn_pool_refs(kv->pool, kv->spans[j]) == 1) return;
    wn_frame_id mine = wn_kv_take(kv, kv->span_class, need);
    if (need) return;
    size_t n = (size_t)kv->map->n_lanes * (size_t)kv->span_stride;
    wn_frame_id *s = wn_kv_addr(kv, mine);
    memcpy(s, wn_kv_addr(kv, kv->spans[j]), n * sizeof *s);
    for (size_t i = 0; i < n; i++)
        if (wn_frame_ok(s[i])) wn_pool_ref(kv->pool, s[i]);
    wn_pool_drop(kv->pool, kv->spans[j]);
    kv->spans[j] = mine;
}

/* The open page is about to be written to. */
static void own_tail(wn_kv *kv, uint32_t *need)
{
    int j = kv->n_spans - 1;
    bool shared = wn_pool_refs(kv->pool, kv->spans[j]) > 1;
    wn_span_private(kv, j, need);
    for (int l = 0; l < kv->map->n_lanes; l++) {
        const wn_kv_lane *lane = &kv->lanes[l];
        if (lane->listed) continue;
        if (need && shared) {           /* frames of a shared span will have two references */
            need[lane->k.raw_class]++;
            need[lane->v.raw_class]++;
            continue;
        }
        wn_frame_id *s = wn_span_lane(kv, j, l);
        wn_kv_own(kv, &s[0], lane->k.raw_class, need);
        wn_kv_own(kv, &s[1], lane->v.raw_class, need);
    }
}

/* Frames are taken lane by lane, K and V apart: what one pass adds to a lane lies together,
 * in the order in which attention will read it. */
void wn_span_grow(wn_kv *kv, int target, uint32_t *need)
{
    int from = kv->n_spans, to = wn_pages_of(target, kv->P);
    size_t ids = (size_t)kv->map->n_lanes * (size_t)kv->span_stride;
    if (kv->n_reserved % kv->P && !kv->tail_owned) own_tail(kv, need);
    for (int j = from; j < to; j++) {
        wn_frame_id span = wn_kv_take(kv, kv->span_class, need);
        if (need) continue;
        WN_ASSERT(j < kv->cap);
        kv->spans[j] = span;
        for (size_t i = 0; i < ids; i++) ((wn_frame_id *)wn_kv_addr(kv, span))[i] = WN_NO_FRAME;
    }
    for (int l = 0; l < kv->map->n_lanes; l++) {
        const wn_kv_lane *lane = &kv->lanes[l];
        if (lane->listed) continue;
        for (int of_v = 0; of_v < 2; of_v++)
            for (int j = from; j < to; j++) {
                wn_frame_id f = wn_kv_take(kv, of_v ? lane->v.raw_class : lane->k.raw_class, need);
                if (!need) wn_span_lane(kv, j, l)[of_v] = f;
            }
    }
    if (!need) kv->n_spans = WN_MAX(from, to);
}

/* Cuts everything to target positions; what is left of the lists is their first slots. */
static void cut(wn_kv *kv, int from, int target)
{
    while (kv->n_spans > wn_pages_of(target, kv->P)) wn_span_drop(kv, &kv->spans[--kv->n_spans]);
    for (int l = 0; l < kv->map->n_lanes; l++)
        if (kv->lanes[l].listed) wn_list_cut(kv, l, from - target);
}

void wn_kv_shrink(wn_kv *kv, int target)
{
    if (target >= kv->n_reserved) return;
    if (wn_kv_seals(kv)) wn_seal_undo(kv, target);
    cut(kv, kv->n_reserved, target);
    kv->n_reserved = target;
    kv->ring_from = WN_MIN(kv->ring_from, target);      /* what comes next is written anew */
}

/* ---- truncate -------------------------------------------------------------------------- */

/* Does the lane still hold raw what queries from n on read raw? */
static bool can_resume(const wn_kv *kv, int lane, int n)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    int32_t window = kv->map->lanes[lane].window;
    if (l->decided_at > n) return false;
    if (window && l->gone_below > WN_MAX(0, n - window + 1)) return false;
    if (!wn_kv_seals(kv)) return true;
    for (int i = wn_kv_n_pages(kv, lane) - 1; i >= 0; i--) {
        wn_page pg = wn_kv_page(kv, lane, i);
        bool k_gone = !wn_frame_ok(pg.k), v_gone = !wn_frame_ok(pg.v);
        if (k_gone && wn_kv_due(kv, lane, i, &pg, &l->k) >= n) return false;
        if (v_gone && wn_kv_due(kv, lane, i, &pg, &l->v) >= n) return false;
        if (wn_page_last(kv, &pg) < n && (k_gone || l->k.lag < 0) && (v_gone || l->v.lag < 0))
            break;
    }
    return true;
}

wn_status wn_kv_truncate(wn_kv *kv, int n, int *at, wn_err *err)
{
    if (n < 0 || n > kv->n_committed)
        return wn_fail(err, WN_EINVAL, "cache: cannot truncate %d positions to %d", kv->n_committed,
                       n);
    wn_kv_shrink(kv, kv->n_committed);
    *at = n;
    if (n == kv->n_committed) return WN_OK;
    for (int l = 0; l < kv->map->n_lanes && *at; l++)
        if (!can_resume(kv, l, n)) *at = 0;
    if (!*at) {
        wn_kv_clear(kv);
        return WN_OK;
    }
    cut(kv, kv->n_committed, n);
    for (int l = 0; l < kv->map->n_lanes; l++)
        if (kv->lanes[l].listed) kv->lanes[l].live -= (uint32_t)(kv->n_committed - n);
    kv->n_committed = kv->n_reserved = n;
    kv->ring_from = WN_MIN(kv->ring_from, n);
    kv->tail_owned = false;
    return WN_OK;
}

/* ---- fork ------------------------------------------------------------------------------ */

static void ref(wn_kv *kv, wn_frame_id f)
{
    if (wn_frame_ok(f)) wn_pool_ref(kv->pool, f);
}

static void share_list(wn_kv *kv, wn_page *to, const wn_page *from, int n)
{
    for (int i = 0; i < n; i++) {
        const wn_page *pg = &from[i];
        ref(kv, pg->k);
        ref(kv, pg->v);
        ref(kv, pg->ks);
        ref(kv, pg->vs);
        ref(kv, pg->pos);
        ref(kv, pg->bias);
        ref(kv, pg->count);
        to[i] = *pg;
    }
}

/* Copies the open pages of all lanes, or counts what that costs. */
static void own_open_pages(wn_kv *kv, uint32_t *need)
{
    if (kv->n_spans && kv->n_committed % kv->P) own_tail(kv, need);
    for (int i = 0; i < kv->map->n_lanes; i++) {
        wn_kv_lane *l = &kv->lanes[i];
        if (!l->listed || !l->n_pages) continue;
        wn_page *pg = &l->pages[l->n_pages - 1];
        if (!wn_page_is_open(kv, pg)) continue;
        wn_kv_own(kv, &pg->k, l->k.raw_class, need);
        wn_kv_own(kv, &pg->v, l->v.raw_class, need);
        wn_kv_own(kv, &pg->pos, kv->pos_class, need);
        wn_kv_own(kv, &pg->bias, kv->pos_class, need);
    }
}

wn_status wn_kv_fork(wn_kv **out, wn_kv *kv, int max_positions, wn_err *err)
{
    uint32_t need[WN_POOL_CLASSES] = { 0 };
    wn_kv *f;
    *out = NULL;
    wn_kv_shrink(kv, kv->n_committed);
    wn_status st = wn_kv_open(&f, &(wn_kv_opts){
        .pool = kv->pool, .map = kv->map, .formats = kv->formats, .raw_format = kv->raw_format,
        .page_slots = kv->P, .max_positions = max_positions ? max_positions : kv->max_positions,
        .lag = kv->lag, .every = kv->every, .ring_rows = kv->ring_rows, .q_dim = kv->q_dim }, err);
    if (st) return st;
    f->n_committed = f->n_reserved = kv->n_committed;
    f->n_unlisted = kv->n_unlisted;
    f->ring_from = kv->ring_from;
    f->n_repacks = kv->n_repacks;
    f->n_decisions = kv->n_decisions;
    for (int j = 0; j < kv->n_spans; j++) {
        ref(kv, kv->spans[j]);
        f->spans[j] = kv->spans[j];
    }
    f->n_spans = kv->n_spans;
    for (int i = 0; i < kv->map->n_lanes; i++) {
        wn_kv_lane *to = &f->lanes[i];
        wn_page *pages = to->pages, *low = to->low, *merged = to->merged;
        *to = kv->lanes[i];
        to->pages = pages;
        to->low = low;
        to->merged = merged;
        share_list(kv, pages, kv->lanes[i].pages, to->n_pages);
        share_list(kv, low, kv->lanes[i].low, to->n_low);
        share_list(kv, merged, kv->lanes[i].merged, to->n_merged);
    }
    own_open_pages(f, need);
    if (!wn_pool_fits(kv->pool, need)) {
        wn_kv_close(f);
        return wn_fail(err, WN_EFULL, "cache: no room to copy the open page of %d lanes for a fork",
                       kv->map->n_lanes);
    }
    own_open_pages(f, NULL);
    f->tail_owned = true;
    if (kv->ring) memcpy(f->ring, kv->ring, kv->ring_bytes);
    *out = f;
    return WN_OK;
}
