/* cache/kv_load.c - a sequence from a stream of bytes (the table is in kv_save.c).
 *
 * Every number is checked before it is used: sizes against the geometry this cache was
 * opened with, counts against the tables that stand ready, positions for order, and what
 * a page holds against the rule that follows from its due. What the frames contain is
 * not looked at: any bytes are some values of K and V. Frames come from the pool as the
 * stream arrives, so a stream that promises much and delivers little costs little. On any
 * failure the sequence is empty again.
 */
#include "cache/kv_save.h"

#include <math.h>
#include <string.h>

typedef struct {
    wn_kv *kv;
    wn_source src;
    wn_err *err;
    int lane, n;                        /* the lane being read, committed positions */
    bool k_raw, v_raw;                  /* a raw page has been met: no sealed one may follow */
} loader;

#define FAIL(...) wn_fail(ld->err, WN_EFORMAT, __VA_ARGS__)

static wn_status take(loader *ld, void *to, size_t n)
{
    return ld->src.read(ld->src.ctx, to, n, ld->err);
}

static wn_status load_header(loader *ld, uint32_t *ring_from, uint32_t counts[2])
{
    wn_kv *kv = ld->kv;
    unsigned char h[WN_SAVE_HEADER];
    wn_status st = take(ld, h, sizeof h);
    if (st) return st;
    if (memcmp(h, "WNKV", 4)) return FAIL("cache: this is not a saved sequence");
    const struct { const char *what; uint32_t want; } same[] = {
        { "version", WN_SAVE_VERSION }, { "slots per page", (uint32_t)kv->P },
        { "lanes", (uint32_t)kv->map->n_lanes }, { "layers", (uint32_t)kv->map->n_layers },
        { "rows in the ring of queries", (uint32_t)kv->ring_rows },
        { "floats per row of the ring", (uint32_t)kv->q_dim },
    };
    for (size_t i = 0; i < WN_COUNT(same); i++) {
        uint32_t got = wn_get32(h + 4 + 4 * i);
        if (got != same[i].want)
            return FAIL("cache: the saved sequence has %s %u, here it is %u", same[i].what, got,
                        same[i].want);
    }
    uint32_t n = wn_get32(h + 28);
    *ring_from = wn_get32(h + 32);
    counts[0] = wn_get32(h + 36);
    counts[1] = wn_get32(h + 40);
    if (n > (uint32_t)kv->max_positions)
        return wn_fail(ld->err, WN_ELIMIT,
                       "cache: the saved sequence has %u positions, here is room for %d", n,
                       kv->max_positions);
    if (*ring_from > n || (kv->ring && n - *ring_from > (uint32_t)kv->ring_rows))
        return FAIL("cache: a ring from position %u of %u", *ring_from, n);
    ld->n = (int)n;
    return WN_OK;
}

/* ---- pages -------------------------------------------------------------------------------- */

static wn_status load_frame(loader *ld, wn_frame_id *f, int cls, size_t bytes)
{
    wn_kv *kv = ld->kv;
    if (wn_pool_take(kv->pool, cls, f))
        return wn_fail(ld->err, WN_EFULL,
                       "cache: the pool has no room for the saved sequence (lane %d)", ld->lane);
    memset(wn_kv_addr(kv, *f), 0, wn_pool_frame_bytes(kv->pool, *f));
    return take(ld, wn_kv_addr(kv, *f), bytes ? bytes : wn_pool_frame_bytes(kv->pool, *f));
}

/* Which of K (or V) a page may hold: raw unless it was due before n; sealed pages are full
 * or were closed by a repack, and come before all raw ones. */
static bool held_fits(const loader *ld, bool raw, bool sealed, const wn_kv_side *s, int32_t last,
                      bool *raw_before)
{
    const wn_kv *kv = ld->kv;
    if (raw == sealed || (sealed && (s->lag < 0 || *raw_before))) return false;
    if (sealed && wn_page_due(kv, &kv->lanes[ld->lane], s, last) >= ld->n) return false;
    *raw_before |= raw;
    return true;
}

static wn_status check_positions(loader *ld, const wn_page *pg, int32_t *after)
{
    for (int s = 0; s < pg->n; s++) {
        int32_t pos = wn_page_pos(ld->kv, pg, s);
        if (pos <= *after || pos >= ld->n)
            return FAIL("cache: lane %d: position %d after %d, of %d", ld->lane, pos, *after,
                        ld->n);
        *after = pos;
    }
    return WN_OK;
}

static wn_status check_tables(loader *ld, const wn_page *pg)
{
    const wn_kv *kv = ld->kv;
    const float *bias = wn_frame_ok(pg->bias) ? wn_kv_addr(kv, pg->bias) : NULL;
    const int32_t *count = wn_frame_ok(pg->count) ? wn_kv_addr(kv, pg->count) : NULL;
    for (int s = 0; s < pg->n; s++)
        if ((bias && !isfinite(bias[s])) || (count && count[s] < 1))
            return FAIL("cache: lane %d: slot %d has bias %g and count %d", ld->lane, s,
                        bias ? (double)bias[s] : 0.0, count ? count[s] : 1);
    return WN_OK;
}

/* The page is in the table already, so that a failure finds its frames there. */
static wn_status load_page(loader *ld, wn_page *pg, int list, bool last, int32_t *after)
{
    wn_kv *kv = ld->kv;
    const wn_kv_lane *l = &kv->lanes[ld->lane];
    unsigned char h[WN_SAVE_PAGE];
    wn_frame_id *f[WN_HELD_KINDS] = { &pg->k,   &pg->v,    &pg->ks,   &pg->vs,
                                      &pg->pos, &pg->bias, &pg->count };
    bool merged = list == WN_LIST_MERGED, low = list == WN_LIST_LOW;
    const int cls[WN_HELD_KINDS] = { l->k.raw_class,
                                     l->v.raw_class,
                                     low ? l->k.low_class : l->k.sealed_class,
                                     low ? l->v.low_class : l->v.sealed_class,
                                     kv->pos_class,
                                     kv->pos_class,
                                     kv->pos_class };
    wn_status st = take(ld, h, sizeof h);
    if (st) return st;
    uint32_t pos0 = wn_get32(h + 8), n = wn_get32(h + 12), held = wn_get32(h + 16);
    uint64_t keep = wn_get32(h) | (uint64_t)wn_get32(h + 4) << 32;
    if (n < 1 || n > (uint32_t)kv->P || !keep || (keep & ~wn_low_bits((int)n)) ||
        pos0 >= (uint32_t)ld->n || held >> WN_HELD_KINDS)
        return FAIL("cache: lane %d: a page of %u slots from position %u, kept %llx, held %x",
                    ld->lane, n, pos0, (unsigned long long)keep, held);
    pg->pos0 = (int32_t)pos0;
    pg->n = (int32_t)n;
    pg->keep = keep;
    bool has[WN_HELD_KINDS];
    for (int x = 0; x < WN_HELD_KINDS; x++) has[x] = held >> x & 1;
    if (!l->listed && (has[WN_HELD_POS] || has[WN_HELD_BIAS]))
        return FAIL("cache: lane %d: a page in a span with positions or biases of its own",
                    ld->lane);
    if (has[WN_HELD_COUNT] != merged || (merged && (!has[WN_HELD_POS] || !has[WN_HELD_BIAS])))
        return FAIL("cache: lane %d: a %spage holds %x", ld->lane, merged ? "merge " : "", held);
    /* Frames in the order of the stream; tables last, so positions are checked before use. */
    for (int x = 0; x < WN_HELD_KINDS; x++)
        if (has[x] && (st = load_frame(ld, f[x], cls[x], x < WN_HELD_TABLES ? 0 : (size_t)n * 4)))
            return st;
    if ((st = check_positions(ld, pg, after)) || (st = check_tables(ld, pg))) return st;
    if (low)
        return has[WN_HELD_KS] && has[WN_HELD_VS] && has[WN_HELD_POS] && !has[WN_HELD_K] &&
                       !has[WN_HELD_V] && *after < l->decided_at
                   ? WN_OK
                   : FAIL("cache: lane %d: a page of demoted slots up to position %d holds %x",
                          ld->lane, *after, held);
    if (merged) return has[WN_HELD_K] && has[WN_HELD_V] && !has[WN_HELD_KS] && !has[WN_HELD_VS]
                           ? WN_OK : FAIL("cache: lane %d: a merge page that is not raw", ld->lane);
    if (!held_fits(ld, has[WN_HELD_K], has[WN_HELD_KS], &l->k, *after, &ld->k_raw) ||
        !held_fits(ld, has[WN_HELD_V], has[WN_HELD_VS], &l->v, *after, &ld->v_raw))
        return FAIL("cache: lane %d: the page up to position %d of %d holds %x", ld->lane, *after,
                    ld->n, held);
    if (!last && wn_page_is_open(kv, pg))
        return FAIL("cache: lane %d: a page of %u raw slots before the last", ld->lane, n);
    return WN_OK;
}

/* ---- lanes -------------------------------------------------------------------------------- */

/* A lane in spans: its pages must be what n says. */
static wn_status load_spans(loader *ld, int n_pages)
{
    wn_kv *kv = ld->kv;
    const wn_kv_lane *l = &kv->lanes[ld->lane];
    int32_t after = -1;
    if (n_pages != wn_pages_of(ld->n, kv->P))
        return FAIL("cache: lane %d: %d pages for %d positions", ld->lane, n_pages, ld->n);
    for (int j = 0; j < n_pages; j++) {
        wn_page pg = WN_PAGE_EMPTY;
        if (j == kv->n_spans) {
            if (wn_pool_take(kv->pool, kv->span_class, &kv->spans[j]))
                return wn_fail(ld->err, WN_EFULL,
                               "cache: the pool has no room for the saved sequence");
            memset(wn_kv_addr(kv, kv->spans[j]), 0xff, wn_pool_frame_bytes(kv->pool, kv->spans[j]));
            kv->n_spans++;
        }
        wn_status st = load_page(ld, &pg, WN_LIST_PAGES, j == n_pages - 1, &after);
        if (st) {
            wn_page_drop(kv, &pg);
            return st;
        }
        wn_frame_id *s = wn_span_lane(kv, j, ld->lane);
        s[0] = pg.k;
        s[1] = pg.v;
        if (kv->span_stride == 4) {
            s[2] = pg.ks;
            s[3] = pg.vs;
        }
        int want = WN_MIN(kv->P, ld->n - j * kv->P);
        if (pg.pos0 != j * kv->P || pg.n != want || pg.keep != wn_low_bits(want))
            return FAIL("cache: lane %d: page %d of a span has %d slots from %d", ld->lane, j, pg.n,
                        pg.pos0);
        /* Nothing but time decides what is sealed here. */
        bool k_due = l->k.lag >= 0 && pg.n == kv->P && kv->P * (j + 1 + l->k.lag) < ld->n;
        bool v_due = l->v.lag >= 0 && pg.n == kv->P && kv->P * (j + 1 + l->v.lag) < ld->n;
        if (wn_frame_ok(pg.ks) != k_due || wn_frame_ok(pg.vs) != v_due)
            return FAIL("cache: lane %d: page %d of a span is sealed at the wrong position",
                        ld->lane, j);
    }
    return WN_OK;
}

/* No position may have a live slot in two lists. */
static wn_status check_once(loader *ld, int list)
{
    wn_kv *kv = ld->kv;
    for (int i = 0; i < wn_kv_list(kv, ld->lane, list); i++) {
        wn_page m = wn_kv_list_page(kv, ld->lane, list, i), pg;
        for (uint64_t k = m.keep; k; k &= k - 1) {
            int32_t pos = wn_page_pos(kv, &m, __builtin_ctzll(k));
            int s;
            if (wn_kv_find_slot(kv, ld->lane, pos, &pg, &s) < list)
                return FAIL("cache: lane %d: two live slots at position %d", ld->lane, pos);
        }
    }
    return WN_OK;
}

static wn_status load_some(loader *ld, wn_page *pages, int32_t *n, int want, int list)
{
    wn_kv_lane *l = &ld->kv->lanes[ld->lane];
    int32_t after = -1;
    wn_status st;
    for (int i = 0; i < want; i++) {
        pages[(*n)++] = WN_PAGE_EMPTY;
        if ((st = load_page(ld, &pages[i], list, list == WN_LIST_PAGES && i == want - 1, &after)))
            return st;
        l->live += (uint32_t)__builtin_popcountll(pages[i].keep);
    }
    return WN_OK;
}

static wn_status load_list(loader *ld, int n_pages, int n_low, int n_merged)
{
    wn_kv_lane *l = &ld->kv->lanes[ld->lane];
    wn_status st = load_some(ld, l->pages, &l->n_pages, n_pages, WN_LIST_PAGES);
    if (!st) st = load_some(ld, l->low, &l->n_low, n_low, WN_LIST_LOW);
    if (!st) st = load_some(ld, l->merged, &l->n_merged, n_merged, WN_LIST_MERGED);
    if (!st) st = check_once(ld, WN_LIST_LOW);
    return st ? st : check_once(ld, WN_LIST_MERGED);
}

static wn_status load_segments(loader *ld, uint32_t n)
{
    wn_kv_lane *l = &ld->kv->lanes[ld->lane];
    int32_t distinct[WN_SHIFTS_MAX] = { 0 }, before = -1;
    int n_distinct = 1;
    if (n > WN_SEGMENTS_MAX) return FAIL("cache: lane %d: %u segments", ld->lane, n);
    for (uint32_t i = 0; i < n; i++) {
        unsigned char b[8];
        wn_status st = take(ld, b, sizeof b);
        if (st) return st;
        int32_t from = (int32_t)wn_get32(b), shift = (int32_t)wn_get32(b + 4);
        int j = 0;
        while (j < n_distinct && distinct[j] != shift) j++;
        if (from <= before || from > ld->n || shift < -WN_KV_MAX_POSITIONS ||
            shift > WN_KV_MAX_POSITIONS || j == WN_SHIFTS_MAX)
            return FAIL("cache: lane %d: segment %u from position %d has shift %d", ld->lane, i,
                        from, shift);
        if (j == n_distinct) distinct[n_distinct++] = shift;
        before = from;
        l->segments[l->n_segments++] = (wn_segment){ from, shift };
    }
    return WN_OK;
}

/* Formats and lags, as wn_save_sides() wrote them. */
static wn_status check_sides(loader *ld, const unsigned char *h)
{
    static const char *const what[6] = { "K", "V", "raw K", "raw V", "lower K", "lower V" };
    unsigned char want[WN_SAVE_SIDES];
    wn_save_sides(want, &ld->kv->lanes[ld->lane]);
    for (int i = 0; i < 6; i++)
        if (memcmp(h + WN_SAVE_NAME * i, want + WN_SAVE_NAME * i, WN_SAVE_NAME))
            return FAIL("cache: lane %d: the saved sequence has another %s format than %s",
                        ld->lane, what[i],
                        want[WN_SAVE_NAME * i] ? (const char *)want + WN_SAVE_NAME * i : "none");
    if (memcmp(h, want, sizeof want))
        return FAIL("cache: lane %d: pages of the saved sequence stay raw for another time than "
                    "here (lag, every)",
                    ld->lane);
    return WN_OK;
}

static wn_status load_lane(loader *ld)
{
    wn_kv *kv = ld->kv;
    wn_kv_lane *l = &kv->lanes[ld->lane];
    const wn_lane *w = &kv->map->lanes[ld->lane];
    unsigned char h[WN_SAVE_LANE];
    wn_status st = take(ld, h, sizeof h);
    if (st) return st;
    uint32_t listed = wn_get32(h + 12), n_pages = wn_get32(h + 28), n_merged = wn_get32(h + 32),
             n_low = wn_get32(h + 36);
    int32_t decided_at = (int32_t)wn_get32(h + 16), gone = (int32_t)wn_get32(h + 20);
    uint32_t most = (uint32_t)wn_pages_of(ld->n, kv->P);
    if (wn_get32(h) != (uint32_t)w->k_dim || wn_get32(h + 4) != (uint32_t)w->v_dim ||
        wn_get32(h + 8) != (uint32_t)w->window)
        return FAIL("cache: lane %d has other dims or another window in the saved sequence",
                    ld->lane);
    if (listed > 1 || (w->window && !listed) || decided_at < -1 || decided_at > ld->n || gone < 0 ||
        gone > ld->n || (gone && !w->window) || n_pages > most || n_merged > most || n_low > most ||
        (!listed && (n_merged || n_low)) || (n_low && !l->low))
        return FAIL("cache: lane %d: %u pages, %u of demoted slots and %u merge pages, decided at "
                    "%d, gone below %d, of %d positions",
                    ld->lane, n_pages, n_low, n_merged, decided_at, gone, ld->n);
    if ((st = check_sides(ld, h + WN_SAVE_LANE - WN_SAVE_SIDES))) return st;
    l->decided_at = decided_at;
    l->gone_below = gone;
    if (listed && !l->listed) kv->n_unlisted--;
    l->listed = listed;
    ld->k_raw = ld->v_raw = false;
    if ((st = load_segments(ld, wn_get32(h + 24)))) return st;
    return listed ? load_list(ld, (int)n_pages, (int)n_low, (int)n_merged)
                  : load_spans(ld, (int)n_pages);
}

wn_status wn_kv_load(wn_kv *kv, wn_source src, wn_err *err)
{
    loader load = { .kv = kv, .src = src, .err = err }, *ld = &load;
    uint32_t ring_from = 0, counts[2] = { 0 };
    if (kv->n_committed || kv->n_reserved)
        return wn_fail(err, WN_EINVAL, "cache: loading into a sequence of %d positions",
                       kv->n_reserved);
    wn_status st = load_header(ld, &ring_from, counts);
    for (; ld->lane < kv->map->n_lanes && !st; ld->lane++) st = load_lane(ld);
    for (int layer = 0; kv->ring && layer < kv->map->n_layers; layer++)
        for (int p = (int)ring_from; p < ld->n && !st; p++)
            st = take(ld, wn_ring_row(kv, layer, p), (size_t)kv->q_dim * sizeof(float));
    if (st) {
        wn_kv_clear(kv);
        return st;
    }
    kv->n_committed = kv->n_reserved = ld->n;
    kv->ring_from = (int)ring_from;
    kv->n_decisions = counts[0];
    kv->n_repacks = counts[1];
    return WN_OK;
}
