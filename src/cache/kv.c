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

static int page_slots(const wn_kv_opts *o)
{
    return o->page_slots ? o->page_slots : WN_PAGE_SLOTS_MAX;
}

static wn_lane_formats formats_of(const wn_kv_opts *o, int lane)
{
    return o->formats ? o->formats[lane] : (wn_lane_formats){ .k = o->k_format, .v = o->v_format };
}

/* Without its classes. */
static wn_kv_side side_of(const wn_kv_opts *o, const wn_format *f, wn_repack_class repack,
                          const wn_format *low, int dim)
{
    wn_kv_side s = { .format = f, .raw = f, .repack = repack, .low = low, .dim = dim, .lag = -1,
                     .lag_decided = -1 };
    if (f->raw) return s;
    s.raw = o->raw_format ? o->raw_format : &wn_format_f16;
    s.lag = s.lag_decided = WN_MAX(f->lag, o->lag);
    if (repack == WN_REPACK_RAW_ONLY && o->every)
        s.lag = WN_MAX(s.lag, o->every / page_slots(o) + 1);
    return s;
}

static wn_kv_side k_side(const wn_kv_opts *o, int lane)
{
    wn_lane_formats f = formats_of(o, lane);
    return side_of(o, f.k, f.k->k_repack, f.low_k, o->map->lanes[lane].k_dim);
}

static wn_kv_side v_side(const wn_kv_opts *o, int lane)
{
    wn_lane_formats f = formats_of(o, lane);
    return side_of(o, f.v, f.v->v_repack, f.low_v, o->map->lanes[lane].v_dim);
}

static bool demotes(const wn_kv_opts *o)
{
    for (int l = 0; l < o->map->n_lanes; l++)
        if (formats_of(o, l).low_k) return true;
    return false;
}

static int lag_most(const wn_kv_opts *o)
{
    int most = -1;
    for (int l = 0; l < o->map->n_lanes; l++)
        most = WN_MAX(most, WN_MAX(k_side(o, l).lag, v_side(o, l).lag));
    return most;
}

static wn_status check_opts(const wn_kv_opts *o, wn_err *err)
{
    int P = page_slots(o);
    const wn_lane_map *m = o->map;
    const wn_format *raw = o->raw_format ? o->raw_format : &wn_format_f16;
    for (int l = 0; l < m->n_lanes; l++) {
        wn_lane_formats f = formats_of(o, l);
        if (!f.k || !f.v || !f.low_k != !f.low_v)
            return wn_fail(err, WN_EINVAL, "cache: K or V has no format");
        if (f.low_k && (f.low_k->k_repack != WN_REPACK_COPY || f.low_v->v_repack != WN_REPACK_COPY))
            return wn_fail(
                err, WN_EINVAL,
                "cache: slots cannot be moved within pages of %s: nothing can be demoted to it",
                f.low_k->k_repack != WN_REPACK_COPY ? f.low_k->name : f.low_v->name);
    }
    if (o->lag < 0 || o->lag > WN_KV_MAX_POSITIONS / P || o->every < 0 || o->max_rows < 0)
        return wn_fail(err, WN_EINVAL,
                       "cache: a lag of %d pages, decisions each %d positions, passes of %d",
                       o->lag, o->every, o->max_rows);
    if (P < WN_PAGE_SLOTS_MIN || P > WN_PAGE_SLOTS_MAX || (P & (P - 1)))
        return wn_fail(err, WN_EINVAL,
                       "cache: %d slots per page; a power of two from %d to %d is possible", P,
                       WN_PAGE_SLOTS_MIN, WN_PAGE_SLOTS_MAX);
    if (!raw->raw)
        return wn_fail(err, WN_EINVAL, "cache: %s is an encoded format, open pages need a raw one",
                       raw->name);
    if (o->max_positions < 1 || o->max_positions > WN_KV_MAX_POSITIONS)
        return wn_fail(err, WN_EINVAL, "cache: %d positions; 1 to %d are possible",
                       o->max_positions, WN_KV_MAX_POSITIONS);
    if (o->ring_rows < 0 || o->q_dim < 0 || (o->ring_rows && !o->q_dim))
        return wn_fail(err, WN_EINVAL, "cache: a ring of %d rows of %d floats", o->ring_rows,
                       o->q_dim);
    for (int l = 0; l < m->n_lanes; l++)
        if (m->lanes[l].k_dim < 1 || m->lanes[l].v_dim < 1 || m->lanes[l].window < 0)
            return wn_fail(err, WN_EINVAL, "cache: lane %d has dims %d, %d and window %d", l,
                           m->lanes[l].k_dim, m->lanes[l].v_dim, m->lanes[l].window);
    return WN_OK;
}

static int span_stride(const wn_kv_opts *o) { return lag_most(o) < 0 ? 2 : 4; }

/* ---- where everything lies in the mapping ------------------------------------------- */

typedef struct {
    size_t lanes, formats, spans, pages, low_pages, costs, desk, ring;
    size_t end, ring_bytes;
    int cap;
} layout;

static size_t place(size_t *at, size_t bytes)
{
    size_t here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

static int cap_of(const wn_kv_opts *o) { return wn_pages_of(o->max_positions, page_slots(o)) + 1; }

/* The desk at base, or (NULL) its bytes. */
size_t wn_kv_desk_at(const wn_kv_opts *o, unsigned char *base, wn_lane_desk *d)
{
    size_t n = (size_t)o->max_positions, cap = (size_t)cap_of(o), words = (n + 63) / 64 + 1,
           dim = 0, at = 0, frame;
    for (int l = 0; l < o->map->n_lanes; l++)
        dim = WN_MAX(dim, (size_t)WN_MAX(o->map->lanes[l].k_dim, o->map->lanes[l].v_dim));
    frame = dim * (size_t)page_slots(o) * sizeof(float);        /* of the widest raw format */
    struct { void *to; size_t bytes;
    } parts[] = {
        { &d->fresh, cap * sizeof(wn_page) },
        { &d->bits_live, words * 8 },
        { &d->bits_at, words * 8 },
        { &d->bits_low, words * 8 },
        { &d->merge_at, n * 4 },
        { &d->masks, cap * 8 },
        { &d->low_masks, cap * 8 },
        { &d->merged_masks, cap * 8 },
        { &d->row, dim * 4 },
        { &d->row_sum, dim * 4 },
        { &d->raw_page[0], frame },
        { &d->raw_page[1], frame },
    };
    for (size_t i = 0; i < WN_COUNT(parts); i++) {
        size_t here = place(&at, parts[i].bytes);
        void *p = base ? base + here : NULL;
        memcpy(parts[i].to, &p, sizeof p);
    }
    return at;
}

static layout lay_out(const wn_kv_opts *o)
{
    layout y = { 0 };
    size_t at = 0, lanes = (size_t)o->map->n_lanes;
    wn_lane_desk desk;
    y.cap = cap_of(o);
    size_t cap = (size_t)y.cap;
    y.lanes = place(&at, lanes * sizeof(wn_kv_lane));
    y.formats = place(&at, lanes * sizeof(wn_lane_formats));
    y.spans = place(&at, cap * sizeof(wn_frame_id));
    y.pages = place(&at, 2 * cap * lanes * sizeof(wn_page));
    y.low_pages = place(&at, demotes(o) ? cap * lanes * sizeof(wn_page) : 0);
    y.costs = place(&at, lanes * sizeof(wn_lane_cost));
    y.desk = place(&at, wn_kv_desk_at(o, NULL, &desk));
    y.ring_bytes = (size_t)o->map->n_layers * (size_t)o->ring_rows * (size_t)o->q_dim * 4;
    y.ring = place(&at, y.ring_bytes);
    y.end = at;
    return y;
}

size_t wn_kv_table_bytes(const wn_kv_opts *o) { return lay_out(o).end + sizeof(wn_kv); }

/* ---- pool classes -------------------------------------------------------------------- */

/* The sides of a lane, with their classes. */
static wn_status sides_of(const wn_kv_opts *o, int lane, wn_kv_side *k, wn_kv_side *v, wn_err *err)
{
    int P = page_slots(o), c[6] = { 0 };
    *k = k_side(o, lane);
    *v = v_side(o, lane);
    c[0] = wn_pool_class(o->pool, k->raw->k_bytes(P, k->dim));
    c[1] = wn_pool_class(o->pool, k->format->k_bytes(P, k->dim));
    c[2] = wn_pool_class(o->pool, v->raw->v_bytes(P, v->dim));
    c[3] = wn_pool_class(o->pool, v->format->v_bytes(P, v->dim));
    if (k->low) c[4] = wn_pool_class(o->pool, k->low->k_bytes(P, k->dim));
    if (v->low) c[5] = wn_pool_class(o->pool, v->low->v_bytes(P, v->dim));
    for (int i = 0; i < 6; i++)
        if (c[i] < 0)
            return wn_fail(err, WN_ELIMIT,
                           "cache: pages of lane %d (dims %d, %d) are larger than an extent, "
                           "or there are more than %d frame sizes",
                           lane, k->dim, v->dim, WN_POOL_CLASSES);
    k->raw_class = (uint8_t)c[0];
    k->sealed_class = (uint8_t)c[1];
    v->raw_class = (uint8_t)c[2];
    v->sealed_class = (uint8_t)c[3];
    k->low_class = (uint8_t)c[4];
    v->low_class = (uint8_t)c[5];
    return WN_OK;
}

static wn_status shared_classes(const wn_kv_opts *o, int *span, int *pos, wn_err *err)
{
    *span = wn_pool_class(o->pool,
                          (size_t)o->map->n_lanes * (size_t)span_stride(o) * sizeof(wn_frame_id));
    *pos = wn_pool_class(o->pool, (size_t)page_slots(o) * sizeof(int32_t));
    if (*span < 0 || *pos < 0)
        return wn_fail(err, WN_ELIMIT,
                       "cache: a span of %d lanes is larger than an extent, or there are "
                       "more than %d frame sizes",
                       o->map->n_lanes, WN_POOL_CLASSES);
    return WN_OK;
}

/* Raw pages that an encoded side may have beside its sealed ones: those of a pass, those that
 * queries at its first position read raw, and those a repack fills. */
static uint32_t raw_pages(const wn_kv_opts *o, const wn_kv_side *s, const wn_kv_hold *h)
{
    int P = page_slots(o), text = WN_MAX(h->text, h->n),
        pass = o->max_rows ? WN_MIN(o->max_rows, text) : text;
    if (o->every) pass = WN_MIN(pass, o->every);
    int due = wn_pages_of(pass, P) + s->lag + 1;
    return (uint32_t)(WN_MIN(wn_pages_of(text, P), due) + (h->decides ? 2 : 0));
}

static void count_side(const wn_kv_opts *o, const wn_kv_side *s, const wn_kv_hold *h,
                       uint32_t pages, uint32_t *counts)
{
    counts[s->sealed_class] += pages + (uint32_t)wn_pages_of(h->slack, page_slots(o));
    if (s->lag < 0) return;
    counts[s->raw_class] += raw_pages(o, s, h);
    if (h->merges) counts[s->raw_class] += pages + (uint32_t)wn_pages_of(h->slack, page_slots(o));
}

/* Pages are thinned further where the slots in them cannot be moved (kv_repack.c). */
static int thinned(const wn_kv_side *s, const wn_kv_hold *h, int n, int P)
{
    if (!h->decides || n >= h->text) return n;
    bool moves = s->lag < 0 || s->repack == WN_REPACK_COPY;
    int64_t most = moves ? (int64_t)n * 16 / 15 + P : (int64_t)n * 5 / 4 + 2 * P;
    return (int)WN_MIN(most, (int64_t)h->text);
}

/* Where lanes share slots unevenly, those with frames of one size may have got all of them. */
static int most_of(const wn_kv_opts *o, const wn_kv_hold *h, int cls, bool of_v)
{
    int alike = 0;
    for (int l = 0; l < o->map->n_lanes; l++) {
        wn_kv_side k, v;
        if (sides_of(o, l, &k, &v, NULL)) return h->n;
        alike += (of_v ? v : k).sealed_class == cls;
    }
    int64_t all = (int64_t)h->n * o->map->n_lanes, each = (all + alike - 1) / WN_MAX(alike, 1);
    return (int)WN_MIN(each, (int64_t)WN_MAX(h->text, h->n));
}

wn_status wn_kv_frames_for(const wn_kv_opts *o, const wn_kv_hold *h,
                           uint32_t counts[WN_POOL_CLASSES], wn_err *err)
{
    int P = page_slots(o), span, pos;
    wn_status st = check_opts(o, err);
    memset(counts, 0, sizeof *counts * WN_POOL_CLASSES);
    if (!st) st = shared_classes(o, &span, &pos, err);
    if (st) return st;
    uint32_t extra = (uint32_t)wn_pages_of(h->slack, P);
    counts[span] += (uint32_t)wn_pages_of(h->n, P) + extra;
    for (int l = 0; l < o->map->n_lanes; l++) {
        wn_kv_side k, v;
        int32_t window = o->map->lanes[l].window;
        if ((st = sides_of(o, l, &k, &v, err))) return st;
        int text = WN_MAX(h->text, h->n);
        bool cut = window > 0;          /* pages at both ends, and the rows of a pass come in
                                           before */
        /* those that they push out are dropped */
        int seen = (int)WN_MIN((int64_t)window + WN_MAX(o->max_rows, 1) + P, (int64_t)text);
        const wn_kv_side *s[2] = { &k, &v };
        uint32_t most = 0;
        for (int x = 0; x < 2; x++) {
            int held = cut ? seen : h->uneven ? most_of(o, h, s[x]->sealed_class, x == 1) : h->n;
            uint32_t pages = (uint32_t)wn_pages_of(cut ? held : thinned(s[x], h, held, P), P);
            count_side(o, s[x], h, pages, counts);
            most = WN_MAX(most, pages + (s[x]->lag >= 0 ? raw_pages(o, s[x], h) : 0));
        }
        if (k.low && h->low) {          /* and one lane's list made anew */
            uint32_t low = (uint32_t)wn_pages_of((int)WN_MIN((int64_t)h->low * 16 / 15 + P,
                                                             (int64_t)WN_MAX(h->text, h->n)),
                                                 P) +
                           1;
            low += (uint32_t)wn_pages_of(h->low, P) / (uint32_t)o->map->n_lanes + 1;
            counts[k.low_class] += low;
            counts[v.low_class] += low;
            counts[pos] += 2 * low;
        }
        counts[pos] += (h->merges ? 3u : h->decides) * (most + extra);
    }
    return WN_OK;
}

static bool same_side(wn_kv_side a, wn_kv_side b)
{
    return a.format == b.format && a.raw == b.raw && a.low == b.low && a.lag == b.lag &&
           a.lag_decided == b.lag_decided;
}

bool wn_kv_same_formats(const wn_kv_opts *a, const wn_kv_opts *b)
{
    for (int l = 0; l < a->map->n_lanes; l++)
        if (!same_side(k_side(a, l), k_side(b, l)) || !same_side(v_side(a, l), v_side(b, l)))
            return false;
    return true;
}

size_t wn_kv_bytes_per_page(const wn_kv_opts *o)
{
    size_t sum = 0;
    int P = page_slots(o);
    for (int l = 0; l < o->map->n_lanes; l++)
        sum += formats_of(o, l).k->k_bytes(P, o->map->lanes[l].k_dim) +
               formats_of(o, l).v->v_bytes(P, o->map->lanes[l].v_dim);
    return sum;
}

size_t wn_kv_bytes_seen(const wn_kv_opts *o, int n, int unit)
{
    size_t sum = 0, P = (size_t)page_slots(o);
    for (int l = 0; l < o->map->n_lanes; l++) {
        const wn_lane *x = &o->map->lanes[l];
        int seen = x->window ? WN_MIN(x->window, n) : n;
        size_t slots = ((size_t)seen + (size_t)unit - 1) / (size_t)unit * (size_t)unit;
        wn_lane_formats f = formats_of(o, l);
        sum += (f.k->k_bytes((int)P, x->k_dim) + f.v->v_bytes((int)P, x->v_dim)) * slots / P;
    }
    return sum;
}

/* ---- open and close ------------------------------------------------------------------- */

static void set_tables(wn_kv *kv, const wn_kv_opts *o, const layout *y)
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
    layout y;
    *out = NULL;
    wn_status st = check_opts(o, err);
    if (st) return st;
    y = lay_out(o);
    if (!(kv = WN_NEW(wn_kv))) return wn_fail(err, WN_ENOMEM, "cache: out of memory");
    *kv = (wn_kv){
        .pool = o->pool, .map = o->map, .raw_format = o->raw_format,
        .P = page_slots(o), .max_positions = o->max_positions,
        .ring_rows = o->ring_rows, .q_dim = o->q_dim, .lag = o->lag, .every = o->every,
        .lag_most = lag_most(o), .span_stride = span_stride(o), .table_bytes = y.end,
    };
    if ((st = shared_classes(o, &kv->span_class, &kv->pos_class, err))) goto fail;
    if (!(kv->tables = wn_os_map(y.end, false))) {
        st = wn_fail(err, WN_ENOMEM, "cache: the system has no room for tables of %zu bytes",
                     y.end);
        goto fail;
    }
    set_tables(kv, o, &y);
    for (int l = 0; l < o->map->n_lanes; l++) {
        kv->formats[l] = formats_of(o, l);
        if (demotes(o))
            kv->lanes[l].low = (wn_page *)(void *)(kv->tables + y.low_pages) +
                               (size_t)l * (size_t)kv->cap;
        if ((st = sides_of(o, l, &kv->lanes[l].k, &kv->lanes[l].v, err))) goto fail;
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
