/* cache/kv_view.c - what a reader of a lane sees: runs, in the one order of DESIGN section 3.
 *
 * Runs end where a page, a split (512 positions) or a shift ends, whether or not the slots
 * around the cut are live: repacking moves slots between pages and nothing else, so the
 * sequence of (split, position, slot) that a reader meets is the same before and after.
 */
#include "cache/kv_int.h"

static const wn_page *merged_page(const wn_run_iter *it)
{
    return &it->kv->lanes[it->lane].merged[it->merged_page];
}

static int32_t split_end(const wn_run_iter *it)
{
    int64_t end = ((int64_t)it->split + 1) * WN_KV_SPLIT;
    return end < it->limit ? (int32_t)end : it->limit;
}

void wn_runs_begin(wn_run_iter *it, const wn_kv *kv, int lane, int first_split, int32_t limit)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    int64_t from = (int64_t)first_split * WN_KV_SPLIT;
    *it = (wn_run_iter){ .kv = kv, .lane = lane, .split = first_split,
                         .limit = WN_MIN(limit, kv->n_reserved) };
    if (from >= it->limit) {
        it->done = true;
        return;
    }
    it->page = wn_kv_find_page(kv, lane, false, (int32_t)from);
    if (it->page < wn_kv_n_pages(kv, lane)) {
        wn_page pg = wn_kv_page(kv, lane, it->page);
        it->slot = wn_page_find(kv, &pg, (int32_t)from);
    }
    it->merged_page = wn_kv_find_page(kv, lane, true, (int32_t)from);
    if (it->merged_page < l->n_merged)
        it->merged_slot = wn_page_find(kv, merged_page(it), (int32_t)from);
}

/* One run of a page from slot *slot on, below end; false when the page has none there. */
static bool cut_run(const wn_run_iter *it, int i, const wn_page *pg, bool merged, int *slot,
                    int32_t end, wn_run *run)
{
    const wn_kv *kv = it->kv;
    int first = *slot, stop = wn_page_find(kv, pg, end);
    if (first >= stop) return false;
    int32_t segment_end, pos = wn_page_pos(kv, pg, first);
    int32_t shift = wn_kv_shift_at(&kv->lanes[it->lane], pos, &segment_end);
    if (segment_end < end) stop = wn_page_find(kv, pg, segment_end);
    *run = (wn_run){
        .split = it->split, .first = first, .n = stop - first,
        .keep = pg->keep >> first & wn_low_bits(stop - first),
        .pos0 = pos, .shift = shift, .merged = merged,
        .k_sealed_from = INT32_MAX, .v_sealed_from = INT32_MAX,
    };
    if (wn_frame_ok(pg->pos)) run->pos = (const int32_t *)wn_kv_addr(kv, pg->pos) + first;
    if (wn_frame_ok(pg->bias)) run->bias = (const float *)wn_kv_addr(kv, pg->bias) + first;
    if (wn_frame_ok(pg->count)) run->count = (const int32_t *)wn_kv_addr(kv, pg->count) + first;
    if (wn_frame_ok(pg->k)) run->k = wn_kv_addr(kv, pg->k);
    if (wn_frame_ok(pg->v)) run->v = wn_kv_addr(kv, pg->v);
    if (wn_frame_ok(pg->ks)) {
        run->k_sealed = wn_kv_addr(kv, pg->ks);
        run->k_sealed_from = wn_kv_due(kv, it->lane, i, pg, kv->k_lag);
    }
    if (wn_frame_ok(pg->vs)) {
        run->v_sealed = wn_kv_addr(kv, pg->vs);
        run->v_sealed_from = wn_kv_due(kv, it->lane, i, pg, kv->v_lag);
    }
    *slot = stop;
    return true;
}

/* The next run of ordinary slots in this split, live or not. */
static bool next_ordinary(wn_run_iter *it, wn_run *run)
{
    while (it->page < wn_kv_n_pages(it->kv, it->lane)) {
        wn_page pg = wn_kv_page(it->kv, it->lane, it->page);
        if (cut_run(it, it->page, &pg, false, &it->slot, split_end(it), run)) return true;
        if (it->slot < pg.n) return false;                      /* the rest belongs to later splits */
        it->page++;
        it->slot = 0;
    }
    return false;
}

static bool next_merged(wn_run_iter *it, wn_run *run)
{
    while (it->merged_page < it->kv->lanes[it->lane].n_merged) {
        const wn_page *pg = merged_page(it);
        if (cut_run(it, it->merged_page, pg, true, &it->merged_slot, split_end(it), run)) return true;
        if (it->merged_slot < pg->n) return false;
        it->merged_page++;
        it->merged_slot = 0;
    }
    return false;
}

/* To the split of the next slot of either kind. */
static void next_split(wn_run_iter *it)
{
    const wn_kv *kv = it->kv;
    int32_t pos = INT32_MAX;
    if (it->page < wn_kv_n_pages(kv, it->lane)) {
        wn_page pg = wn_kv_page(kv, it->lane, it->page);
        pos = wn_page_pos(kv, &pg, it->slot);
    }
    if (it->merged_page < kv->lanes[it->lane].n_merged)
        pos = WN_MIN(pos, wn_page_pos(kv, merged_page(it), it->merged_slot));
    if (pos >= it->limit) it->done = true;
    else it->split = pos / WN_KV_SPLIT;
}

bool wn_runs_next(wn_run_iter *it, wn_run *run)
{
    while (!it->done) {
        if (!it->in_merged) {
            if (next_ordinary(it, run)) {
                if (run->keep) return true;
                continue;
            }
            it->in_merged = true;
        }
        if (next_merged(it, run)) {
            if (run->keep) return true;
            continue;
        }
        it->in_merged = false;
        next_split(it);
    }
    return false;
}

bool wn_runs_peek(const wn_run_iter *it, const void **k, const void **v)
{
    wn_run_iter next = *it;
    wn_run run;
    if (!wn_runs_next(&next, &run)) return false;
    *k = run.k ? run.k : run.k_sealed;
    *v = run.v ? run.v : run.v_sealed;
    return true;
}
