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

static int page_slots(const wn_kv_opts *o) { return o->page_slots ? o->page_slots : WN_PAGE_SLOTS_MAX; }

typedef struct { const wn_format *k, *v, *raw_k, *raw_v; } formats;

static wn_status check_opts(const wn_kv_opts *o, formats *f, wn_err *err)
{
    int P = page_slots(o);
    const wn_lane_map *m = o->map;
    f->k = o->k_format;
    f->v = o->v_format;
    if (!f->k || !f->v) return wn_fail(err, WN_EINVAL, "cache: K or V has no format");
    const wn_format *raw = o->raw_format ? o->raw_format : &wn_format_f16;
    f->raw_k = f->k->raw ? f->k : raw;
    f->raw_v = f->v->raw ? f->v : raw;
    if (P < WN_PAGE_SLOTS_MIN || P > WN_PAGE_SLOTS_MAX || (P & (P - 1)))
        return wn_fail(err, WN_EINVAL, "cache: %d slots per page; a power of two from %d to %d is possible",
                       P, WN_PAGE_SLOTS_MIN, WN_PAGE_SLOTS_MAX);
    if (!raw->raw)
        return wn_fail(err, WN_EINVAL, "cache: %s is an encoded format, open pages need a raw one",
                       raw->name);
    if (o->max_positions < 1 || o->max_positions > WN_KV_MAX_POSITIONS)
        return wn_fail(err, WN_EINVAL, "cache: %d positions; 1 to %d are possible", o->max_positions,
                       WN_KV_MAX_POSITIONS);
    if (o->ring_rows < 0 || o->q_dim < 0 || (o->ring_rows && !o->q_dim))
        return wn_fail(err, WN_EINVAL, "cache: a ring of %d rows of %d floats", o->ring_rows, o->q_dim);
    for (int l = 0; l < m->n_lanes; l++)
        if (m->lanes[l].k_dim < 1 || m->lanes[l].v_dim < 1 || m->lanes[l].window < 0)
            return wn_fail(err, WN_EINVAL, "cache: lane %d has dims %d, %d and window %d", l,
                           m->lanes[l].k_dim, m->lanes[l].v_dim, m->lanes[l].window);
    return WN_OK;
}

static int span_stride(const formats *f) { return f->k->raw && f->v->raw ? 2 : 4; }

/* ---- where everything lies in the mapping ------------------------------------------- */

typedef struct {
    size_t lanes, spans, pages, fresh, live, at, merge_at, masks, merged_masks, row, row_sum, ring;
    size_t end, ring_bytes;
    int cap;
} layout;

static size_t place(size_t *at, size_t bytes)
{
    size_t here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

static layout lay_out(const wn_kv_opts *o)
{
    layout y = { 0 };
    size_t at = 0, n = (size_t)o->max_positions, lanes = (size_t)o->map->n_lanes;
    int dim = 0;
    y.cap = wn_pages_of(o->max_positions, page_slots(o)) + 1;
    size_t cap = (size_t)y.cap, words = (n + 63) / 64 + 1;
    for (int l = 0; l < o->map->n_lanes; l++)
        dim = WN_MAX(dim, WN_MAX(o->map->lanes[l].k_dim, o->map->lanes[l].v_dim));
    y.lanes = place(&at, lanes * sizeof(wn_kv_lane));
    y.spans = place(&at, cap * sizeof(wn_frame_id));
    y.pages = place(&at, 2 * cap * lanes * sizeof(wn_page));
    y.fresh = place(&at, cap * sizeof(wn_page));
    y.live = place(&at, words * 8);
    y.at = place(&at, words * 8);
    y.merge_at = place(&at, n * 4);
    y.masks = place(&at, cap * 8);
    y.merged_masks = place(&at, cap * 8);
    y.row = place(&at, (size_t)dim * 4);
    y.row_sum = place(&at, (size_t)dim * 4);
    y.ring_bytes = (size_t)o->map->n_layers * (size_t)o->ring_rows * (size_t)o->q_dim * 4;
    y.ring = place(&at, y.ring_bytes);
    y.end = at;
    return y;
}

size_t wn_kv_table_bytes(const wn_kv_opts *o) { return lay_out(o).end + sizeof(wn_kv); }

/* ---- pool classes -------------------------------------------------------------------- */

typedef struct { int k, v, ks, vs; } lane_classes;

static wn_status classes_of(const wn_kv_opts *o, const formats *f, int lane, lane_classes *c,
                            wn_err *err)
{
    const wn_lane *w = &o->map->lanes[lane];
    int P = page_slots(o);
    c->k = wn_pool_class(o->pool, f->raw_k->k_bytes(P, w->k_dim));
    c->v = wn_pool_class(o->pool, f->raw_v->v_bytes(P, w->v_dim));
    c->ks = f->k->raw ? c->k : wn_pool_class(o->pool, f->k->k_bytes(P, w->k_dim));
    c->vs = f->v->raw ? c->v : wn_pool_class(o->pool, f->v->v_bytes(P, w->v_dim));
    if (c->k < 0 || c->v < 0 || c->ks < 0 || c->vs < 0)
        return wn_fail(err, WN_ELIMIT, "cache: pages of lane %d (dims %d, %d) are larger than an extent, "
                       "or there are more than %d frame sizes", lane, w->k_dim, w->v_dim, WN_POOL_CLASSES);
    return WN_OK;
}

static wn_status shared_classes(const wn_kv_opts *o, const formats *f, int *span, int *pos, wn_err *err)
{
    *span = wn_pool_class(o->pool, (size_t)o->map->n_lanes * (size_t)span_stride(f) * sizeof(wn_frame_id));
    *pos = wn_pool_class(o->pool, (size_t)page_slots(o) * sizeof(int32_t));
    if (*span < 0 || *pos < 0)
        return wn_fail(err, WN_ELIMIT, "cache: a span of %d lanes is larger than an extent, or there are "
                       "more than %d frame sizes", o->map->n_lanes, WN_POOL_CLASSES);
    return WN_OK;
}

wn_status wn_kv_frames_for(const wn_kv_opts *o, int n, int n_text, int slack, int tables,
                           uint32_t counts[WN_POOL_CLASSES], wn_err *err)
{
    formats f;
    int P = page_slots(o), span, pos;
    wn_status st = check_opts(o, &f, err);
    memset(counts, 0, sizeof *counts * WN_POOL_CLASSES);
    if (!st) st = shared_classes(o, &f, &span, &pos, err);
    if (st) return st;
    uint32_t extra = (uint32_t)wn_pages_of(slack, P);
    counts[span] += (uint32_t)wn_pages_of(n, P) + extra;
    counts[pos] += (uint32_t)(tables * o->map->n_lanes) * ((uint32_t)wn_pages_of(n, P) + extra);
    for (int l = 0; l < o->map->n_lanes; l++) {
        lane_classes c;
        int32_t window = o->map->lanes[l].window;
        if ((st = classes_of(o, &f, l, &c, err))) return st;
        int held = n;
        if (window) {                   /* a window cuts pages at both ends, and the rows of a pass come in before */
            int64_t most = (int64_t)window + WN_MAX(o->max_rows, 1) + P;    /* those that they push out are dropped */
            held = (int)WN_MIN(most, (int64_t)n_text);
        }
        uint32_t pages = (uint32_t)wn_pages_of(held, P);
        counts[c.ks] += pages;
        counts[c.vs] += pages;
        counts[c.k] += extra;
        counts[c.v] += extra;
    }
    return WN_OK;
}

size_t wn_kv_bytes_per_page(const wn_kv_opts *o)
{
    size_t sum = 0;
    int P = page_slots(o);
    for (int l = 0; l < o->map->n_lanes; l++)
        sum += o->k_format->k_bytes(P, o->map->lanes[l].k_dim) +
               o->v_format->v_bytes(P, o->map->lanes[l].v_dim);
    return sum;
}

size_t wn_kv_bytes_seen(const wn_kv_opts *o, int n, int unit)
{
    size_t sum = 0, P = (size_t)page_slots(o);
    for (int l = 0; l < o->map->n_lanes; l++) {
        const wn_lane *x = &o->map->lanes[l];
        int seen = x->window ? WN_MIN(x->window, n) : n;
        size_t slots = ((size_t)seen + (size_t)unit - 1) / (size_t)unit * (size_t)unit;
        sum += (o->k_format->k_bytes((int)P, x->k_dim) + o->v_format->v_bytes((int)P, x->v_dim)) * slots / P;
    }
    return sum;
}

/* ---- open and close ------------------------------------------------------------------- */

static void set_tables(wn_kv *kv, const layout *y)
{
    unsigned char *t = kv->tables;
    wn_page *pages = (void *)(t + y->pages);
    kv->cap = y->cap;
    kv->lanes = (void *)(t + y->lanes);
    kv->spans = (void *)(t + y->spans);
    kv->fresh = (void *)(t + y->fresh);
    kv->bits_live = (void *)(t + y->live);
    kv->bits_at = (void *)(t + y->at);
    kv->merge_at = (void *)(t + y->merge_at);
    kv->masks = (void *)(t + y->masks);
    kv->merged_masks = (void *)(t + y->merged_masks);
    kv->row = (void *)(t + y->row);
    kv->row_sum = (void *)(t + y->row_sum);
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
    formats f;
    layout y;
    *out = NULL;
    wn_status st = check_opts(o, &f, err);
    if (st) return st;
    y = lay_out(o);
    if (!(kv = WN_NEW(wn_kv))) return wn_fail(err, WN_ENOMEM, "cache: out of memory");
    *kv = (wn_kv){
        .pool = o->pool, .map = o->map, .k_format = f.k, .v_format = f.v, .raw_k = f.raw_k, .raw_v = f.raw_v,
        .P = page_slots(o), .max_positions = o->max_positions,
        .ring_rows = o->ring_rows, .q_dim = o->q_dim,
        .k_lag = f.k->raw ? -1 : f.k->lag, .v_lag = f.v->raw ? -1 : f.v->lag,
        .span_stride = span_stride(&f), .table_bytes = y.end,
    };
    if ((st = shared_classes(o, &f, &kv->span_class, &kv->pos_class, err))) goto fail;
    if (!(kv->tables = wn_os_map(y.end, false))) {
        st = wn_fail(err, WN_ENOMEM, "cache: the system has no room for tables of %zu bytes", y.end);
        goto fail;
    }
    set_tables(kv, &y);
    for (int l = 0; l < o->map->n_lanes; l++) {
        lane_classes c;
        if ((st = classes_of(o, &f, l, &c, err))) goto fail;
        kv->lanes[l].kc = (uint8_t)c.k;
        kv->lanes[l].vc = (uint8_t)c.v;
        kv->lanes[l].ksc = (uint8_t)c.ks;
        kv->lanes[l].vsc = (uint8_t)c.vs;
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
        for (int p = 0; p < l->n_merged; p++) wn_page_drop(kv, &l->merged[p]);
        l->n_pages = l->n_merged = l->tail_page = l->tail_slot = l->n_segments = 0;
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
        return wn_fail(err, WN_ELIMIT, "cache: %d more positions after %d are more than the %d this "
                       "sequence may hold", n, kv->n_committed, kv->max_positions);
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
        return wn_fail(err, WN_EFULL, "cache: %d more positions need %llu frames; %zu of %zu bytes of the "
                       "pool are in use", n, (unsigned long long)frames, s.bytes_used, s.bytes);
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
    const wn_lane *w = &kv->map->lanes[lane];
    WN_ASSERT(pos >= kv->n_committed && n >= 0 && pos + n <= kv->n_reserved);
    for (int i = 0; i < n;) {
        int at = l->listed ? l->tail_page * kv->P + l->tail_slot + (pos + i - kv->n_committed) : pos + i;
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
        kv->raw_k->put_k(wn_kv_addr(kv, kf), kv->P, slot, k + (size_t)i * k_stride, k_stride, m, w->k_dim);
        kv->raw_v->put_v(wn_kv_addr(kv, vf), kv->P, slot, v + (size_t)i * v_stride, v_stride, m, w->v_dim);
        i += m;
    }
    if (wn_kv_seals(kv)) wn_seal_put(kv, lane, pos + n);
}

/* Pages whose every position has left the window of the next query. */
static void leave_window(wn_kv *kv, int lane)
{
    wn_kv_lane *l = &kv->lanes[lane];
    int32_t first = kv->n_committed - kv->map->lanes[lane].window + 1;
    int gone = 0, merged_gone = 0;
    if (first <= l->gone_below) return;
    while (gone < l->n_pages && wn_page_last(kv, &l->pages[gone]) < first &&
           (gone < l->n_pages - 1 || l->pages[gone].n == kv->P)) {
        l->gone_below = wn_page_last(kv, &l->pages[gone]) + 1;
        l->live -= (uint32_t)__builtin_popcountll(l->pages[gone].keep);
        wn_page_drop(kv, &l->pages[gone++]);
    }
    while (merged_gone < l->n_merged && wn_page_last(kv, &l->merged[merged_gone]) < first) {
        l->gone_below = WN_MAX(l->gone_below, wn_page_last(kv, &l->merged[merged_gone]) + 1);
        l->live -= (uint32_t)__builtin_popcountll(l->merged[merged_gone].keep);
        wn_page_drop(kv, &l->merged[merged_gone++]);
    }
    l->n_pages -= gone;
    l->tail_page -= gone;
    l->n_merged -= merged_gone;
    if (gone) memmove(l->pages, l->pages + gone, (size_t)l->n_pages * sizeof *l->pages);
    if (merged_gone)
        memmove(l->merged, l->merged + merged_gone, (size_t)l->n_merged * sizeof *l->merged);
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
const wn_format *wn_kv_raw_k(const wn_kv *kv) { return kv->raw_k; }
const wn_format *wn_kv_raw_v(const wn_kv *kv) { return kv->raw_v; }
const wn_format *wn_kv_k_format(const wn_kv *kv) { return kv->k_format; }
const wn_format *wn_kv_v_format(const wn_kv *kv) { return kv->v_format; }

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
        for (int p = 0; p < l->n_merged; p++) page_bytes(kv, &l->merged[p], out);
        if (l->listed) continue;
        if (wn_kv_seals(kv)) {
            for (int j = 0; j < kv->n_spans; j++)
                for (int x = 0; x < 4; x++) out->bytes_frames += bytes_of(kv, wn_span_lane(kv, j, i)[x]);
        } else if (kv->n_spans) {       /* all alike */
            const wn_frame_id *s = wn_span_lane(kv, 0, i);
            out->bytes_frames += (size_t)kv->n_spans * (bytes_of(kv, s[0]) + bytes_of(kv, s[1]));
        }
    }
    out->bytes = out->bytes_frames + out->bytes_meta;
}
