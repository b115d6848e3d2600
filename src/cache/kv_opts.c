/* cache/kv_opts.c - what options come to, before there is a cache: the two sides of each lane,
 * where tables lie in their one mapping, which frames a pool has to have.
 *
 * Nothing here looks at a cache. Who promises memory to a sequence asks here how much one of these
 * options can ever hold, and opening a cache goes by the same answers.
 */
#include "cache/kv_int.h"

#include <string.h>

int wn_opts_slots(const wn_kv_opts *o)
{
    return o->page_slots ? o->page_slots : WN_PAGE_SLOTS_MAX;
}

wn_lane_formats wn_opts_formats(const wn_kv_opts *o, int lane)
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
        s.lag = WN_MAX(s.lag, o->every / wn_opts_slots(o) + 1);
    return s;
}

static wn_kv_side k_side(const wn_kv_opts *o, int lane)
{
    wn_lane_formats f = wn_opts_formats(o, lane);
    return side_of(o, f.k, f.k->k_repack, f.low_k, o->map->lanes[lane].k_dim);
}

static wn_kv_side v_side(const wn_kv_opts *o, int lane)
{
    wn_lane_formats f = wn_opts_formats(o, lane);
    return side_of(o, f.v, f.v->v_repack, f.low_v, o->map->lanes[lane].v_dim);
}

bool wn_opts_demote(const wn_kv_opts *o)
{
    for (int l = 0; l < o->map->n_lanes; l++)
        if (wn_opts_formats(o, l).low_k) return true;
    return false;
}

int wn_opts_lag_most(const wn_kv_opts *o)
{
    int most = -1;
    for (int l = 0; l < o->map->n_lanes; l++)
        most = WN_MAX(most, WN_MAX(k_side(o, l).lag, v_side(o, l).lag));
    return most;
}

wn_status wn_opts_check(const wn_kv_opts *o, wn_err *err)
{
    int P = wn_opts_slots(o);
    const wn_lane_map *m = o->map;
    const wn_format *raw = o->raw_format ? o->raw_format : &wn_format_f16;
    for (int l = 0; l < m->n_lanes; l++) {
        wn_lane_formats f = wn_opts_formats(o, l);
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

int wn_opts_span_stride(const wn_kv_opts *o) { return wn_opts_lag_most(o) < 0 ? 2 : 4; }

/* ---- where everything lies in the mapping ------------------------------------------- */

static size_t place(size_t *at, size_t bytes)
{
    size_t here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

static int cap_of(const wn_kv_opts *o)
{
    return wn_pages_of(o->max_positions, wn_opts_slots(o)) + 1;
}

size_t wn_kv_desk_at(const wn_kv_opts *o, unsigned char *base, wn_lane_desk *d)
{
    size_t n = (size_t)o->max_positions, cap = (size_t)cap_of(o), words = (n + 63) / 64 + 1,
           dim = 0, at = 0, frame;
    for (int l = 0; l < o->map->n_lanes; l++)
        dim = WN_MAX(dim, (size_t)WN_MAX(o->map->lanes[l].k_dim, o->map->lanes[l].v_dim));
    frame = dim * (size_t)wn_opts_slots(o) * sizeof(float);        /* of the widest raw format */
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

wn_kv_layout wn_opts_lay_out(const wn_kv_opts *o)
{
    wn_kv_layout y = { 0 };
    size_t at = 0, lanes = (size_t)o->map->n_lanes;
    wn_lane_desk desk;
    y.cap = cap_of(o);
    size_t cap = (size_t)y.cap;
    y.lanes = place(&at, lanes * sizeof(wn_kv_lane));
    y.formats = place(&at, lanes * sizeof(wn_lane_formats));
    y.spans = place(&at, cap * sizeof(wn_frame_id));
    y.pages = place(&at, 2 * cap * lanes * sizeof(wn_page));
    y.low_pages = place(&at, wn_opts_demote(o) ? cap * lanes * sizeof(wn_page) : 0);
    y.costs = place(&at, lanes * sizeof(wn_lane_cost));
    y.desk = place(&at, wn_kv_desk_at(o, NULL, &desk));
    y.ring_bytes = (size_t)o->map->n_layers * (size_t)o->ring_rows * (size_t)o->q_dim * 4;
    y.ring = place(&at, y.ring_bytes);
    y.end = at;
    return y;
}

size_t wn_kv_table_bytes(const wn_kv_opts *o) { return wn_opts_lay_out(o).end + sizeof(wn_kv); }

/* ---- pool classes -------------------------------------------------------------------- */

wn_status wn_opts_sides(const wn_kv_opts *o, int lane, wn_kv_side *k, wn_kv_side *v, wn_err *err)
{
    int P = wn_opts_slots(o), c[6] = { 0 };
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

wn_status wn_opts_shared_classes(const wn_kv_opts *o, int *span, int *pos, wn_err *err)
{
    size_t ids = (size_t)o->map->n_lanes * (size_t)wn_opts_span_stride(o);
    *span = wn_pool_class(o->pool, ids * sizeof(wn_frame_id));
    *pos = wn_pool_class(o->pool, (size_t)wn_opts_slots(o) * sizeof(int32_t));
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
    int P = wn_opts_slots(o), text = WN_MAX(h->text, h->n),
        pass = o->max_rows ? WN_MIN(o->max_rows, text) : text;
    if (o->every) pass = WN_MIN(pass, o->every);
    int due = wn_pages_of(pass, P) + s->lag + 1;
    return (uint32_t)(WN_MIN(wn_pages_of(text, P), due) + (h->decides ? 2 : 0));
}

static void count_side(const wn_kv_opts *o, const wn_kv_side *s, const wn_kv_hold *h,
                       uint32_t pages, uint32_t *counts)
{
    pages += (uint32_t)wn_pages_of(h->slack, wn_opts_slots(o));
    counts[s->sealed_class] += pages;
    if (s->lag < 0) return;
    counts[s->raw_class] += raw_pages(o, s, h);
    if (h->merges) counts[s->raw_class] += pages;
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
        if (wn_opts_sides(o, l, &k, &v, NULL)) return h->n;
        alike += (of_v ? v : k).sealed_class == cls;
    }
    int64_t all = (int64_t)h->n * o->map->n_lanes, each = (all + alike - 1) / WN_MAX(alike, 1);
    return (int)WN_MIN(each, (int64_t)WN_MAX(h->text, h->n));
}

wn_status wn_kv_frames_for(const wn_kv_opts *o, const wn_kv_hold *h,
                           uint32_t counts[WN_POOL_CLASSES], wn_err *err)
{
    int P = wn_opts_slots(o), span, pos;
    wn_status st = wn_opts_check(o, err);
    memset(counts, 0, sizeof *counts * WN_POOL_CLASSES);
    if (!st) st = wn_opts_shared_classes(o, &span, &pos, err);
    if (st) return st;
    uint32_t extra = (uint32_t)wn_pages_of(h->slack, P);
    counts[span] += (uint32_t)wn_pages_of(h->n, P) + extra;
    for (int l = 0; l < o->map->n_lanes; l++) {
        wn_kv_side k, v;
        int32_t window = o->map->lanes[l].window;
        if ((st = wn_opts_sides(o, l, &k, &v, err))) return st;
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
    int P = wn_opts_slots(o);
    for (int l = 0; l < o->map->n_lanes; l++)
        sum += wn_opts_formats(o, l).k->k_bytes(P, o->map->lanes[l].k_dim) +
               wn_opts_formats(o, l).v->v_bytes(P, o->map->lanes[l].v_dim);
    return sum;
}

size_t wn_kv_bytes_seen(const wn_kv_opts *o, int n, int unit)
{
    size_t sum = 0, P = (size_t)wn_opts_slots(o);
    for (int l = 0; l < o->map->n_lanes; l++) {
        const wn_lane *x = &o->map->lanes[l];
        int seen = x->window ? WN_MIN(x->window, n) : n;
        size_t slots = ((size_t)seen + (size_t)unit - 1) / (size_t)unit * (size_t)unit;
        wn_lane_formats f = wn_opts_formats(o, l);
        sum += (f.k->k_bytes((int)P, x->k_dim) + f.v->v_bytes((int)P, x->v_dim)) * slots / P;
    }
    return sum;
}
