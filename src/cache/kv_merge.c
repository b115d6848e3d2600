/* cache/kv_merge.c - slots that stand for several tokens.
 *
 * Merge slots live in raw pages of their own, always with tables of positions, biases and
 * counts. They are few and must be read in position order, so when a decision adds some,
 * or thins out the old ones, the lane's merge pages are made anew.
 */
#include "cache/kv_int.h"
#include "kernel/attn.h"

#include <string.h>

typedef struct {
    wn_kv *kv;
    int lane, n;                        /* slots written */
} writer;

/* Pages for so many slots, taken together: hands that share a pool meet at its lock. */
static void take_pages(wn_kv *kv, int lane, int n_slots)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    const int classes[] = { l->k.raw_class, l->v.raw_class, kv->pos_class, kv->pos_class,
                            kv->pos_class };
    wn_kv_lock(kv);
    for (int i = 0; i < wn_pages_of(n_slots, kv->P); i++) {
        wn_page *pg = &kv->desk.fresh[i];
        wn_frame_id *const f[] = { &pg->k, &pg->v, &pg->pos, &pg->bias, &pg->count };
        *pg = WN_PAGE_EMPTY;
        for (size_t x = 0; x < WN_COUNT(f); x++) {
            wn_status st = wn_pool_take(kv->pool, classes[x], f[x]);
            WN_ASSERT(st == WN_OK);
        }
    }
    wn_kv_unlock(kv);
}

/* The page that is being filled, with room for a slot at least. */
static wn_page *open_page(writer *w, int32_t pos)
{
    wn_kv *kv = w->kv;
    wn_page *pg = &kv->desk.fresh[w->n / kv->P];
    if (w->n % kv->P) return pg;
    const wn_frame_id f[] = { pg->k, pg->v, pg->pos, pg->bias, pg->count };
    for (size_t x = 0; x < WN_COUNT(f); x++)
        memset(wn_kv_addr(kv, f[x]), 0, wn_pool_frame_bytes(kv->pool, f[x]));
    pg->pos0 = pos;
    return pg;
}

/* Its next n slots: where in the page. */
static int take_slots(writer *w, wn_page *pg, int n)
{
    int s = pg->n;
    pg->keep |= wn_low_bits(n) << s;
    pg->n += n;
    w->n += n;
    return s;
}

/* n neighbouring slots of an old page. */
static void copy_old(writer *w, const wn_page *old, int from, int n)
{
    wn_kv *kv = w->kv;
    const wn_kv_lane *l = &kv->lanes[w->lane];
    for (int m; n > 0; from += m, n -= m) {
        wn_page *pg = open_page(w, wn_page_pos(kv, old, from));
        m = WN_MIN(n, kv->P - pg->n);
        int s = take_slots(w, pg, m);
        size_t bytes = sizeof(int32_t) * (size_t)m;
        memcpy((int32_t *)wn_kv_addr(kv, pg->pos) + s,
               (const int32_t *)wn_kv_addr(kv, old->pos) + from, bytes);
        memcpy((float *)wn_kv_addr(kv, pg->bias) + s,
               (const float *)wn_kv_addr(kv, old->bias) + from, bytes);
        memcpy((int32_t *)wn_kv_addr(kv, pg->count) + s,
               (const int32_t *)wn_kv_addr(kv, old->count) + from, bytes);
        wn_format_copy_k(l->k.raw, wn_kv_addr(kv, pg->k), s, wn_kv_addr(kv, old->k), from, m, kv->P,
                         l->k.dim);
        wn_format_copy_v(l->v.raw, wn_kv_addr(kv, pg->v), s, wn_kv_addr(kv, old->v), from, m, kv->P,
                         l->v.dim);
    }
}

/* sum of w[i] times the rows of the sources, one chain in the order given. */
static const float *sum_rows(wn_kv *kv, int lane, const int32_t *src, const float *w, int n,
                             bool of_v)
{
    const wn_kv_side *side = of_v ? &kv->lanes[lane].v : &kv->lanes[lane].k;
    int dim = side->dim;
    memset(kv->desk.row_sum, 0, (size_t)dim * sizeof(float));
    for (int i = 0; i < n; i++) {
        wn_page pg;
        int s;
        int list = wn_kv_find_slot(kv, lane, src[i], &pg, &s);
        bool low = list == WN_LIST_LOW;
        WN_ASSERT(list < WN_LISTS);
        wn_frame_id raw = of_v ? pg.v : pg.k, sealed = of_v ? pg.vs : pg.ks;
        const wn_format *f = wn_frame_ok(raw) ? side->raw : low ? side->low : side->format;
        const void *frame = wn_kv_addr(kv, wn_frame_ok(raw) ? raw : sealed);
        if (of_v) wn_format_get_v(f, frame, kv->P, s, kv->desk.row, dim);
        else wn_format_get_k(f, frame, kv->P, s, src[i], kv->desk.row, dim);
        wn_kernels_get()->attn->merge(kv->desk.row_sum, 1, kv->desk.row, w[i], dim);
    }
    return kv->desk.row_sum;
}

static void write_new(writer *w, const wn_plan *plan, const wn_plan_merge *m)
{
    wn_kv *kv = w->kv;
    const wn_kv_lane *l = &kv->lanes[w->lane];
    const int32_t *src = plan->src + m->first_src;
    wn_page *pg = open_page(w, m->at);
    int s = take_slots(w, pg, 1);
    ((int32_t *)wn_kv_addr(kv, pg->pos))[s] = m->at;
    ((float *)wn_kv_addr(kv, pg->bias))[s] = m->bias;
    ((int32_t *)wn_kv_addr(kv, pg->count))[s] = m->count;
    const float *row = sum_rows(kv, w->lane, src, plan->wk + m->first_src, m->n_src, false);
    l->k.raw->put_k(wn_kv_addr(kv, pg->k), kv->P, s, row, 0, 1, l->k.dim);
    row = sum_rows(kv, w->lane, src, plan->wv + m->first_src, m->n_src, true);
    l->v.raw->put_v(wn_kv_addr(kv, pg->v), kv->P, s, row, 0, 1, l->v.dim);
}

/* The first new merge at or behind a position; all positions when there is none. */
static int32_t next_new(const wn_kv *kv, int32_t from)
{
    for (int i = from >> 6; i * 64 < kv->n_committed; i++) {
        uint64_t b = kv->desk.bits_at[i] & (i == from >> 6 ? ~0ull << (from & 63) : ~0ull);
        if (b) return i * 64 + __builtin_ctzll(b);
    }
    return kv->n_committed;
}

/* New merges below `end`, of which *next is the first, are written. */
static void write_below(writer *w, const wn_plan *plan, int32_t *next, int32_t end)
{
    for (; *next < end; *next = next_new(w->kv, *next + 1))
        write_new(w, plan, &plan->merges[w->kv->desk.merge_at[*next]]);
}

/* Live slots of an old page from the first of `left` on that no other and no new one comes
 * between. */
static int neighbours(const wn_kv *kv, const wn_page *old, uint64_t left, int32_t next)
{
    int s = __builtin_ctzll(left);
    return WN_MIN(wn_low_run(left >> s), wn_page_find(kv, old, next) - s);
}

static void rebuild(wn_kv *kv, int lane, const wn_plan *plan, int total)
{
    wn_kv_lane *l = &kv->lanes[lane];
    writer w = { .kv = kv, .lane = lane };
    int32_t next = next_new(kv, 0);
    take_pages(kv, lane, total);
    for (int i = 0; i < l->n_merged; i++)
        for (uint64_t k = kv->desk.merged_masks[i]; k;) {
            int s = __builtin_ctzll(k);
            write_below(&w, plan, &next, wn_page_pos(kv, &l->merged[i], s));
            int n = neighbours(kv, &l->merged[i], k, next);
            copy_old(&w, &l->merged[i], s, n);
            k &= ~(wn_low_bits(n) << s);
        }
    write_below(&w, plan, &next, kv->n_committed);
    WN_ASSERT(w.n == total);
    wn_pages_drop(kv, l->merged, l->n_merged);
    l->n_merged = wn_pages_of(total, kv->P);
    memcpy(l->merged, kv->desk.fresh, (size_t)l->n_merged * sizeof *l->merged);
}

int wn_merge_lane(wn_kv *kv, int lane, const wn_plan *plan, wn_tally *t)
{
    wn_kv_lane *l = &kv->lanes[lane];
    int old = 0, new = 0, pages = 0, n_out = 0;
    for (int i = 0; i < l->n_merged; i++) {
        old += __builtin_popcountll(kv->desk.merged_masks[i]);
        pages += kv->desk.merged_masks[i] != 0;
    }
    for (int32_t i = wn_plan_first(plan, lane, WN_PLAN_MERGES); i >= 0; i = plan->merges[i].next)
        new ++;
    int fresh = wn_pages_of(old + new, kv->P);
    if (new || (!plan->no_repack && pages && fresh * 16 <= pages * 15)) {
        if (!t) {
            rebuild(kv, lane, plan, old + new);
            return fresh;
        }
        for (int i = 0; i < fresh; i++) {
            wn_tally_take(kv, l->k.raw_class, t);
            wn_tally_take(kv, l->v.raw_class, t);
            for (int x = 0; x < 3; x++) wn_tally_take(kv, kv->pos_class, t);
        }
        for (int i = 0; i < l->n_merged; i++)
            wn_tally_drop_page(kv, lane, i, &l->merged[i], WN_LIST_MERGED, t);
        return fresh;
    }
    for (int i = 0; i < l->n_merged; i++) {
        wn_page pg = l->merged[i];
        pg.keep = kv->desk.merged_masks[i];
        if (!pg.keep) wn_tally_drop_page(kv, lane, i, &pg, WN_LIST_MERGED, t);
        else if (!t) l->merged[n_out] = pg;
        n_out += pg.keep != 0;
    }
    if (!t) l->n_merged = n_out;
    return n_out;
}
