/* cache/kv_view.c - what a reader of a lane sees: runs, in the one order of DESIGN section 3.
 *
 * Runs end where a page, a split (512 positions) or a shift ends, whether or not the slots
 * around the cut are live: repacking moves slots between pages and nothing else, so the
 * sequence of (split, position, slot) that a reader meets is the same before and after.
 */
#include "cache/kv_int.h"

static int32_t split_end(const wn_run_iter *it)
{
    int64_t end = ((int64_t)it->split + 1) * WN_KV_SPLIT;
    return end < it->limit ? (int32_t)end : it->limit;
}

static void fetch_frame(const wn_kv *kv, wn_frame_id f)
{
    if (!wn_frame_ok(f)) return;
    const char *at = wn_kv_addr(kv, f);
    for (int i = 0; i < kv->P * (int)sizeof(int32_t); i += 64) __builtin_prefetch(at + i, 0, 2);
}

/* The tables of page i are wanted soon. They are small and lie anywhere, and a step's weights have
 * driven them out of the caches: met unannounced, each is a wait for memory. */
static void fetch_tables(const wn_run_iter *it, int list, int i)
{
    wn_page made;
    if (!it->kv->lanes[it->lane].listed || i >= wn_kv_list(it->kv, it->lane, list)) return;
    const wn_page *pg = wn_kv_look_at(it->kv, it->lane, list, i, &made);
    fetch_frame(it->kv, pg->pos);
    fetch_frame(it->kv, pg->bias);
}

void wn_runs_begin(wn_run_iter *it, const wn_kv *kv, int lane, int first_split, int32_t limit)
{
    int64_t from = (int64_t)first_split * WN_KV_SPLIT;
    *it = (wn_run_iter){ .kv = kv, .lane = lane, .split = first_split,
                         .limit = WN_MIN(limit, kv->n_reserved) };
    if (from >= it->limit) {
        it->done = true;
        return;
    }
    for (int x = 0; x < WN_LISTS && !from; x++) fetch_tables(it, x, 0);
    if (!from) return;                  /* all lists from their first slots on */
    for (int x = 0; x < WN_LISTS; x++) {
        it->page[x] = wn_kv_find_page(kv, lane, x, (int32_t)from);
        if (it->page[x] == wn_kv_list(kv, lane, x)) continue;
        wn_page pg = wn_kv_list_page(kv, lane, x, it->page[x]);
        it->slot[x] = wn_page_find(kv, &pg, (int32_t)from);
    }
}

/* Slots [first, stop) of page i of a list: everything of a run but split and shift. */
static wn_run run_of(const wn_kv *kv, int lane, int list, int i, const wn_page *pg, int first,
                     int stop)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    bool low = list == WN_LIST_LOW;
    wn_run run = {
        .first = first, .n = stop - first, .keep = pg->keep >> first & wn_low_bits(stop - first),
        .pos0 = first < pg->n ? wn_page_pos(kv, pg, first) : pg->pos0,
        .merged = list == WN_LIST_MERGED, .low = low,
        .k_format = low ? l->k.low : l->k.format, .v_format = low ? l->v.low : l->v.format,
        .k_sealed_from = low ? 0 : INT32_MAX, .v_sealed_from = low ? 0 : INT32_MAX,
    };
    if (wn_frame_ok(pg->pos)) run.pos = (const int32_t *)wn_kv_addr(kv, pg->pos) + first;
    if (wn_frame_ok(pg->bias)) run.bias = (const float *)wn_kv_addr(kv, pg->bias) + first;
    if (wn_frame_ok(pg->count)) run.count = (const int32_t *)wn_kv_addr(kv, pg->count) + first;
    if (wn_frame_ok(pg->k)) run.k = wn_kv_addr(kv, pg->k);
    if (wn_frame_ok(pg->v)) run.v = wn_kv_addr(kv, pg->v);
    if (wn_frame_ok(pg->ks)) {
        run.k_sealed = wn_kv_addr(kv, pg->ks);
        if (!low) run.k_sealed_from = wn_kv_due(kv, lane, i, pg, &l->k);
    }
    if (wn_frame_ok(pg->vs)) {
        run.v_sealed = wn_kv_addr(kv, pg->vs);
        if (!low) run.v_sealed_from = wn_kv_due(kv, lane, i, pg, &l->v);
    }
    return run;
}

bool wn_kv_page_run(const wn_kv *kv, int lane, int i, wn_run *run)
{
    wn_page made;
    int list = 0;
    while (list < WN_LISTS && i >= wn_kv_list(kv, lane, list)) i -= wn_kv_list(kv, lane, list++);
    if (list == WN_LISTS) return false;
    const wn_page *pg = wn_kv_look_at(kv, lane, list, i, &made);
    *run = run_of(kv, lane, list, i, pg, 0, wn_page_find(kv, pg, kv->n_committed));
    return true;
}

/* One run of a page from slot *slot on, below end; false when the page has none there. */
static bool cut_run(const wn_run_iter *it, int i, const wn_page *pg, int *slot, int32_t end,
                    wn_run *run)
{
    const wn_kv *kv = it->kv;
    int first = *slot, stop = wn_page_find(kv, pg, end);
    if (first >= stop) return false;
    int32_t segment_end;
    int32_t shift = wn_kv_shift_at(&kv->lanes[it->lane], wn_page_pos(kv, pg, first), &segment_end);
    if (segment_end < end) stop = wn_page_find(kv, pg, segment_end);
    *run = run_of(kv, it->lane, it->list, i, pg, first, stop);
    run->split = it->split;
    run->shift = shift;
    *slot = stop;
    return true;
}

/* The next run of the list in this split, live or not. */
static bool next_of_list(wn_run_iter *it, wn_run *run)
{
    int *page = &it->page[it->list], *slot = &it->slot[it->list];
    while (*page < wn_kv_list(it->kv, it->lane, it->list)) {
        wn_page made;
        const wn_page *pg = wn_kv_look_at(it->kv, it->lane, it->list, *page, &made);
        if (!*slot) fetch_tables(it, it->list, *page + 1);
        if (cut_run(it, *page, pg, slot, split_end(it), run)) return true;
        if (*slot < pg->n) return false;  /* the rest belongs to later splits */
        ++*page;
        *slot = 0;
    }
    return false;
}

/* To the split of the next slot of any kind. */
static void next_split(wn_run_iter *it)
{
    const wn_kv *kv = it->kv;
    int32_t pos = INT32_MAX;
    for (int x = 0; x < WN_LISTS; x++) {
        if (it->page[x] == wn_kv_list(kv, it->lane, x)) continue;
        wn_page made;
        pos = WN_MIN(pos, wn_page_pos(kv, wn_kv_look_at(kv, it->lane, x, it->page[x], &made),
                                      it->slot[x]));
    }
    if (pos >= it->limit) it->done = true;
    else it->split = pos / WN_KV_SPLIT;
}

bool wn_runs_next(wn_run_iter *it, wn_run *run)
{
    while (!it->done) {
        if (next_of_list(it, run)) {
            if (run->keep) return true;
        } else if (++it->list == WN_LISTS) {
            it->list = WN_LIST_PAGES;
            next_split(it);
        }
    }
    return false;
}

/* A page's frame that a query at p reads; none: not of the kind that is asked for. */
static wn_frame_id frame_at(const wn_kv *kv, int lane, const wn_kv_side *s, const wn_page *pg,
                            int32_t p, bool sealed, wn_frame_id raw, wn_frame_id encoded)
{
    bool is_sealed = s->lag >= 0 && wn_frame_ok(encoded) &&
                     p >= wn_page_due(kv, &kv->lanes[lane], s, wn_page_last(kv, pg));
    if (is_sealed != sealed) return WN_NO_FRAME;
    return sealed ? encoded : raw;
}

int wn_runs_alike(wn_run_iter *it, const wn_run *run, int32_t p, int most, const void **k,
                  const void **v)
{
    enum { AHEAD = 16 };                /* pages whose places are fetched: two splits */
    const wn_kv *kv = it->kv;
    const wn_kv_lane *l = &kv->lanes[it->lane];
    int P = kv->P, n = 0, i = it->page[WN_LIST_PAGES];
    bool k_sealed = run->k_sealed && p >= run->k_sealed_from;
    bool v_sealed = run->v_sealed && p >= run->v_sealed_from;
    if (l->listed || l->n_segments || it->list != WN_LIST_PAGES || run->first || run->n < P)
        return 0;
    /* the last page may be open */
    for (i++; n < most && i + 1 < kv->n_spans && P * (i + 1) <= split_end(it); i++, n++) {
        wn_page pg = wn_kv_page(kv, it->lane, i);
        if (i + AHEAD < kv->n_spans)
            __builtin_prefetch(wn_span_lane(kv, i + AHEAD, it->lane), 0, 2);
        wn_frame_id fk = frame_at(kv, it->lane, &l->k, &pg, p, k_sealed, pg.k, pg.ks);
        wn_frame_id fv = frame_at(kv, it->lane, &l->v, &pg, p, v_sealed, pg.v, pg.vs);
        if (!wn_frame_ok(fk) || !wn_frame_ok(fv)) break;
        k[n] = wn_kv_addr(kv, fk);
        v[n] = wn_kv_addr(kv, fv);
    }
    it->page[WN_LIST_PAGES] += n;
    return n;
}
