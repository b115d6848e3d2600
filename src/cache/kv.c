/* cache/kv.c - the life of a sequence, from outside: open, reserve, put, commit.
 *
 * A pass over new tokens has three steps. wn_kv_reserve() takes every frame the pass can
 * need, first counting, then taking, so that a full pool is noticed before anything has
 * changed. wn_kv_put() writes rows, lane by lane, from any thread. wn_kv_commit() makes
 * them part of the text. Reserving again with less gives the rest back.
 *
 * All tables are one mapping, made at open and touched as they are used.
 */
#include "cache/kv_int.h"

#include "base/alloc.h"
#include "base/os.h"

#include <string.h>

/* ---- open and close ------------------------------------------------------------------- */

static void set_tables(wn_kv *kv, const wn_kv_opts *o, const wn_kv_layout *y)
{
    unsigned char *t = kv->tables;
    wn_page *pages = (void *)(t + y->pages);
    kv->cap = y->cap;
    kv->lanes = (void *)(t + y->lanes);
    kv->formats = (void *)(t + y->formats);
    kv->spans = (void *)(t + y->spans);
    kv->costs = (void *)(t + y->costs);
    wn_kv_desk_at(o, t + y->desk, &kv->desk);
    kv->ring = y->ring_bytes ? (void *)(t + y->ring) : NULL;
    kv->ring_bytes = y->ring_bytes;
    for (int l = 0; l < kv->map->n_lanes; l++) {
        kv->lanes[l].pages = pages + (size_t)(2 * l) * (size_t)kv->cap;
        kv->lanes[l].merged = pages + (size_t)(2 * l + 1) * (size_t)kv->cap;
    }
}

wn_status wn_kv_open(wn_kv **out, const wn_kv_opts *o, wn_err *err)
{
    wn_kv *kv;
    wn_kv_layout y;
    *out = NULL;
    wn_status st = wn_opts_check(o, err);
    if (st) return st;
    y = wn_opts_lay_out(o);
    if (!(kv = WN_NEW(wn_kv))) return wn_fail(err, WN_ENOMEM, "cache: out of memory");
    *kv = (wn_kv){
        .pool = o->pool, .map = o->map, .raw_format = o->raw_format,
        .P = wn_opts_slots(o), .max_positions = o->max_positions,
        .ring_rows = o->ring_rows, .q_dim = o->q_dim, .lag = o->lag, .every = o->every,
        .lag_most = wn_opts_lag_most(o), .span_stride = wn_opts_span_stride(o),
        .table_bytes = y.end,
    };
    if ((st = wn_opts_shared_classes(o, &kv->span_class, &kv->pos_class, err))) goto fail;
    if (!(kv->tables = wn_os_map(y.end, false))) {
        st = wn_fail(err, WN_ENOMEM, "cache: the system has no room for tables of %zu bytes",
                     y.end);
        goto fail;
    }
    set_tables(kv, o, &y);
    for (int l = 0; l < o->map->n_lanes; l++) {
        kv->formats[l] = wn_opts_formats(o, l);
        if (wn_opts_demote(o))
            kv->lanes[l].low = (wn_page *)(void *)(kv->tables + y.low_pages) +
                               (size_t)l * (size_t)kv->cap;
        if ((st = wn_opts_sides(o, l, &kv->lanes[l].k, &kv->lanes[l].v, err))) goto fail;
    }
    wn_kv_clear(kv);
    *out = kv;
    return WN_OK;
fail:
    wn_kv_close(kv);
    return st;
}

void wn_kv_clear(wn_kv *kv)
{
    for (int j = 0; j < kv->n_spans; j++) wn_span_drop(kv, &kv->spans[j]);
    kv->n_spans = kv->n_committed = kv->n_reserved = kv->n_unlisted = kv->ring_from = 0;
    kv->tail_owned = false;
    kv->n_repacks = kv->n_decisions = 0;
    for (int i = 0; i < kv->map->n_lanes; i++) {
        wn_kv_lane *l = &kv->lanes[i];
        for (int p = 0; p < l->n_pages; p++) wn_page_drop(kv, &l->pages[p]);
        for (int p = 0; p < l->n_low; p++) wn_page_drop(kv, &l->low[p]);
        for (int p = 0; p < l->n_merged; p++) wn_page_drop(kv, &l->merged[p]);
        l->n_pages = l->n_low = l->n_merged = l->tail_page = l->tail_slot = l->n_segments = 0;
        l->decided_at = -1;
        l->gone_below = 0;
        l->live = 0;
        l->listed = kv->map->lanes[i].window > 0;
        kv->n_unlisted += !l->listed;
    }
}

void wn_kv_close(wn_kv *kv)
{
    if (!kv) return;
    if (kv->tables) {
        wn_kv_clear(kv);
        wn_os_unmap(kv->tables, kv->table_bytes);
    }
    wn_free(kv);
}

/* ---- a pass --------------------------------------------------------------------------- */

static void grow(wn_kv *kv, int target, uint32_t *need)
{
    if (kv->n_unlisted) wn_span_grow(kv, target, need);
    for (int l = 0; l < kv->map->n_lanes; l++)
        if (kv->lanes[l].listed) wn_list_grow(kv, l, target, need);
    if (wn_kv_seals(kv)) wn_seal_reserve(kv, target, need);
}

/* Where each listed lane goes on: in its last page, or in a new one after it. */
static void set_tails(wn_kv *kv)
{
    for (int i = 0; i < kv->map->n_lanes; i++) {
        wn_kv_lane *l = &kv->lanes[i];
        bool open = l->n_pages && wn_page_is_open(kv, &l->pages[l->n_pages - 1]);
        l->tail_page = open ? l->n_pages - 1 : l->n_pages;
        l->tail_slot = open ? l->pages[l->n_pages - 1].n : 0;
    }
}

wn_status wn_kv_reserve(wn_kv *kv, int n, wn_err *err)
{
    uint32_t need[WN_POOL_CLASSES] = { 0 };
    WN_ASSERT(n >= 0);
    if (n > kv->max_positions - kv->n_committed)
        return wn_fail(err, WN_ELIMIT,
                       "cache: %d more positions after %d are more than the %d this "
                       "sequence may hold",
                       n, kv->n_committed, kv->max_positions);
    int target = kv->n_committed + n;
    if (target <= kv->n_reserved) {
        if (target < kv->n_reserved) wn_kv_shrink(kv, target);
        return WN_OK;
    }
    if (kv->n_reserved == kv->n_committed) set_tails(kv);
    grow(kv, target, need);
    if (!wn_pool_fits(kv->pool, need)) {
        uint64_t frames = 0;
        wn_pool_stats s;
        wn_pool_get_stats(kv->pool, &s);
        for (int c = 0; c < WN_POOL_CLASSES; c++) frames += need[c];
        return wn_fail(err, WN_EFULL,
                       "cache: %d more positions need %llu frames; %zu of %zu bytes of the "
                       "pool are in use",
                       n, (unsigned long long)frames, s.bytes_used, s.bytes);
    }
    grow(kv, target, NULL);
    kv->n_reserved = target;
    kv->tail_owned = true;
    kv->ring_from = WN_MAX(kv->ring_from, target - kv->ring_rows);
    return WN_OK;
}

void wn_kv_put(wn_kv *kv, int lane, int pos, const float *k, size_t k_stride, const float *v,
               size_t v_stride, int n)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    WN_ASSERT(pos >= kv->n_committed && n >= 0 && pos + n <= kv->n_reserved);
    for (int i = 0; i < n;) {
        int at = l->listed ? l->tail_page * kv->P + l->tail_slot + (pos + i - kv->n_committed)
                           : pos + i;
        int slot = at & (kv->P - 1), m = WN_MIN(kv->P - slot, n - i);
        wn_frame_id kf, vf;
        if (l->listed) {
            kf = l->pages[at / kv->P].k;
            vf = l->pages[at / kv->P].v;
        } else {
            const wn_frame_id *s = wn_span_lane(kv, at / kv->P, lane);
            kf = s[0];
            vf = s[1];
        }
        l->k.raw->put_k(wn_kv_addr(kv, kf), kv->P, slot, k + (size_t)i * k_stride, k_stride, m,
                        l->k.dim);
        l->v.raw->put_v(wn_kv_addr(kv, vf), kv->P, slot, v + (size_t)i * v_stride, v_stride, m,
                        l->v.dim);
        i += m;
    }
    if (wn_kv_seals(kv)) wn_seal_put(kv, lane, pos + n);
}

/* The first pages of a list go, as far as all of their positions are below `first`. */
static int32_t forget(wn_kv *kv, wn_kv_lane *l, wn_page *pages, int32_t n, int32_t first)
{
    int gone = 0;
    while (gone < n && wn_page_last(kv, &pages[gone]) < first) {
        l->gone_below = WN_MAX(l->gone_below, wn_page_last(kv, &pages[gone]) + 1);
        l->live -= (uint32_t)__builtin_popcountll(pages[gone].keep);
        wn_page_drop(kv, &pages[gone++]);
    }
    if (gone) memmove(pages, pages + gone, (size_t)(n - gone) * sizeof *pages);
    return n - gone;
}

/* Pages whose every position has left the window of the next query. */
static void leave_window(wn_kv *kv, int lane)
{
    wn_kv_lane *l = &kv->lanes[lane];
    int32_t first = kv->n_committed - kv->map->lanes[lane].window + 1;
    int gone = 0;
    if (first <= l->gone_below) return;
    while (gone < l->n_pages && wn_page_last(kv, &l->pages[gone]) < first &&
           (gone < l->n_pages - 1 || l->pages[gone].n == kv->P)) {
        l->gone_below = wn_page_last(kv, &l->pages[gone]) + 1;
        l->live -= (uint32_t)__builtin_popcountll(l->pages[gone].keep);
        wn_page_drop(kv, &l->pages[gone++]);
    }
    l->n_pages -= gone;
    l->tail_page -= gone;
    if (gone) memmove(l->pages, l->pages + gone, (size_t)l->n_pages * sizeof *l->pages);
    l->n_low = forget(kv, l, l->low, l->n_low, first);
    l->n_merged = forget(kv, l, l->merged, l->n_merged, first);
}

void wn_kv_commit(wn_kv *kv, int n)
{
    WN_ASSERT(n >= 0 && n <= kv->n_reserved - kv->n_committed);
    kv->n_committed += n;
    for (int i = 0; i < kv->map->n_lanes; i++) {
        wn_kv_lane *l = &kv->lanes[i];
        if (!l->listed) continue;
        int at = l->tail_page * kv->P + l->tail_slot + n;
        l->tail_page = at / kv->P;
        l->tail_slot = at & (kv->P - 1);
        l->live += (uint32_t)n;
    }
    if (wn_kv_seals(kv)) wn_seal_commit(kv);
    for (int i = 0; i < kv->map->n_lanes; i++)
        if (kv->map->lanes[i].window) leave_window(kv, i);
}

/* ---- the ring of rotated queries ------------------------------------------------------- */

float *wn_kv_ring(wn_kv *kv, int layer, int pos)
{
    if (!kv->ring || pos < kv->ring_from || pos >= kv->n_reserved) return NULL;
    size_t row = (size_t)layer * (size_t)kv->ring_rows + (size_t)(pos % kv->ring_rows);
    return kv->ring + row * (size_t)kv->q_dim;
}

int wn_kv_ring_valid(const wn_kv *kv)
{
    return kv->ring ? WN_MAX(kv->n_committed - kv->ring_from, 0) : 0;
}

/* ---- figures ---------------------------------------------------------------------------- */

int wn_kv_n(const wn_kv *kv) { return kv->n_committed; }
int wn_kv_page_slots(const wn_kv *kv) { return kv->P; }
const wn_lane_map *wn_kv_map(const wn_kv *kv) { return kv->map; }
const wn_format *wn_kv_raw_k(const wn_kv *kv, int lane) { return kv->lanes[lane].k.raw; }
const wn_format *wn_kv_raw_v(const wn_kv *kv, int lane) { return kv->lanes[lane].v.raw; }
wn_lane_formats wn_kv_formats(const wn_kv *kv, int lane) { return kv->formats[lane]; }
bool wn_kv_is_encoded(const wn_kv *kv) { return wn_kv_seals(kv); }

uint32_t wn_kv_live(const wn_kv *kv, int lane)
{
    return kv->lanes[lane].listed ? kv->lanes[lane].live : (uint32_t)kv->n_committed;
}

bool wn_kv_is_listed(const wn_kv *kv, int lane) { return kv->lanes[lane].listed; }

static size_t bytes_of(const wn_kv *kv, wn_frame_id f)
{
    return wn_frame_ok(f) ? wn_pool_frame_bytes(kv->pool, f) : 0;
}

static void page_bytes(const wn_kv *kv, const wn_page *pg, wn_kv_stats *s)
{
    s->bytes_frames += bytes_of(kv, pg->k) + bytes_of(kv, pg->v) + bytes_of(kv, pg->ks) +
                       bytes_of(kv, pg->vs);
    s->bytes_meta += bytes_of(kv, pg->pos) + bytes_of(kv, pg->bias) + bytes_of(kv, pg->count) +
                     sizeof pg->keep;
}

void wn_kv_get_stats(const wn_kv *kv, wn_kv_stats *out)
{
    *out = (wn_kv_stats){ .bytes_ring = kv->ring_bytes, .n_repacks = kv->n_repacks,
                          .n_decisions = kv->n_decisions };
    for (int i = 0; i < kv->map->n_lanes; i++) {
        const wn_kv_lane *l = &kv->lanes[i];
        if (!kv->map->lanes[i].window) {
            out->slots += wn_kv_live(kv, i);
            out->slots_full += (uint64_t)kv->n_committed;
        }
        for (int p = 0; p < l->n_pages; p++) page_bytes(kv, &l->pages[p], out);
        for (int p = 0; p < l->n_low; p++) {
            page_bytes(kv, &l->low[p], out);
            out->slots_low += (uint64_t)__builtin_popcountll(l->low[p].keep);
        }
        for (int p = 0; p < l->n_merged; p++) page_bytes(kv, &l->merged[p], out);
        if (l->listed) continue;
        if (wn_kv_seals(kv)) {
            for (int j = 0; j < kv->n_spans; j++)
                for (int x = 0; x < 4; x++)
                    out->bytes_frames += bytes_of(kv, wn_span_lane(kv, j, i)[x]);
        } else if (kv->n_spans) {       /* all alike */
            const wn_frame_id *s = wn_span_lane(kv, 0, i);
            out->bytes_frames += (size_t)kv->n_spans * (bytes_of(kv, s[0]) + bytes_of(kv, s[1]));
        }
    }
    out->bytes = out->bytes_frames + out->bytes_meta;
}
