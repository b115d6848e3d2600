/* cache/kv_repack.c - after a decision: empty pages go, survivors move together.
 *
 * A lane whose live slots would fit into 15/16 of its pages is rewritten from the first
 * thin page on (one that is not full of live slots): survivors are copied, in position
 * order, to fresh pages. Repacking page by page or pair by pair would leave 37 % of the
 * pages where 25 % of the slots are kept; rewriting the lane leaves 26 %.
 *
 *     before   |xx.x|xxxx|x...|..x.|.x.x|xx     (x live, . masked, the last page is filling)
 *     after    |xxxx|xxxx|xxx                   new tokens go on in the last fresh page
 *
 * What is sealed stays sealed and is copied as codes, so a fresh page holds slots of one
 * kind (K sealed or raw, V sealed or raw); kinds come in order along a lane, because pages
 * are sealed in order. Pages of formats with parameters per page stay where they are.
 *
 * Fresh pages are never more than the pages already read, so the list is rewritten in
 * place, and a page's frames are given back before the next page is read.
 */
#include "cache/kv_int.h"

#include <string.h>

/* Sealed in a format whose slots cannot be moved. */
static bool is_fixed(const wn_kv *kv, const wn_page *pg)
{
    return (!wn_frame_ok(pg->k) && kv->k_format->k_repack == WN_REPACK_RAW_ONLY) ||
           (!wn_frame_ok(pg->v) && kv->v_format->v_repack == WN_REPACK_RAW_ONLY);
}

static int kind_of(const wn_page *pg) { return wn_frame_ok(pg->k) * 2 + wn_frame_ok(pg->v); }

/* The first page to rewrite, or the number of pages when the lane stays as it is. */
static int first_to_rewrite(const wn_kv *kv, int lane)
{
    int n = wn_kv_n_pages(kv, lane), first = n, before = 0, after = 0, slots = 0, kind = -1;
    for (int i = 0; i < n; i++) {
        wn_page pg = wn_kv_page(kv, lane, i);
        int live = __builtin_popcountll(kv->masks[i]);
        if (!live) continue;
        before++;
        if (first == n && (live == kv->P || is_fixed(kv, &pg))) {
            after++;
            continue;
        }
        if (first == n) first = i;
        if (kind_of(&pg) != kind) {     /* a page for the rest of the kind before */
            after += wn_pages_of(slots, kv->P);
            slots = 0;
            kind = kind_of(&pg);
        }
        slots += live;
    }
    after += wn_pages_of(slots, kv->P);
    return after * 16 <= before * 15 ? first : n;
}

typedef struct {
    wn_kv *kv;
    wn_kv_lane *l;
    const wn_lane *w;
    wn_tally *t;
    wn_page pg;                         /* the fresh page being filled; n == 0: none */
    int kind, n_out;
} packer;

static void close_page(packer *p)
{
    if (!p->pg.n) return;
    if (!p->t) p->l->pages[p->n_out] = p->pg;
    p->n_out++;
    p->pg = WN_PAGE_EMPTY;
}

static void open_page(packer *p, int kind, int32_t pos)
{
    close_page(p);
    p->kind = kind;
    p->pg.pos0 = pos;
    if (kind & 2) p->pg.k = wn_tally_take(p->kv, p->l->kc, p->t);
    else p->pg.ks = wn_tally_take(p->kv, p->l->ksc, p->t);
    if (kind & 1) p->pg.v = wn_tally_take(p->kv, p->l->vc, p->t);
    else p->pg.vs = wn_tally_take(p->kv, p->l->vsc, p->t);
}

static void copy_slot(packer *p, const wn_page *src, int s, int32_t pos)
{
    wn_kv *kv = p->kv;
    wn_page *dst = &p->pg;
    int d = dst->n, P = kv->P;
    if (wn_frame_ok(src->k))
        kv->raw_k->copy_k(wn_kv_addr(kv, dst->k), d, wn_kv_addr(kv, src->k), s, P, p->w->k_dim);
    else
        kv->k_format->copy_k(wn_kv_addr(kv, dst->ks), d, wn_kv_addr(kv, src->ks), s, P, p->w->k_dim);
    if (wn_frame_ok(src->v))
        kv->raw_v->copy_v(wn_kv_addr(kv, dst->v), d, wn_kv_addr(kv, src->v), s, P, p->w->v_dim);
    else
        kv->v_format->copy_v(wn_kv_addr(kv, dst->vs), d, wn_kv_addr(kv, src->vs), s, P, p->w->v_dim);
    if (wn_frame_ok(dst->pos)) ((int32_t *)wn_kv_addr(kv, dst->pos))[d] = pos;
    if (wn_frame_ok(src->bias))
        ((float *)wn_kv_addr(kv, dst->bias))[d] = ((const float *)wn_kv_addr(kv, src->bias))[s];
}

static void move_slot(packer *p, const wn_page *src, int s)
{
    int32_t pos = wn_page_pos(p->kv, src, s);
    wn_page *dst = &p->pg;
    if (!dst->n || dst->n == p->kv->P || p->kind != kind_of(src)) open_page(p, kind_of(src), pos);
    if (!wn_frame_ok(dst->pos) && pos != dst->pos0 + dst->n) {
        dst->pos = wn_tally_take(p->kv, p->kv->pos_class, p->t);
        if (!p->t) {
            int32_t *at = wn_kv_addr(p->kv, dst->pos);
            for (int i = 0; i < dst->n; i++) at[i] = dst->pos0 + i;
        }
    }
    if (wn_frame_ok(src->bias) && !wn_frame_ok(dst->bias))
        dst->bias = wn_tally_take(p->kv, p->kv->pos_class, p->t);
    if (!p->t) copy_slot(p, src, s, pos);
    dst->keep |= 1ull << dst->n++;
}

int wn_repack_lane(wn_kv *kv, int lane, bool repack, wn_tally *t)
{
    wn_kv_lane *l = &kv->lanes[lane];
    packer p = { .kv = kv, .l = l, .w = &kv->map->lanes[lane], .t = t, .pg = WN_PAGE_EMPTY };
    int n = wn_kv_n_pages(kv, lane), first = repack ? first_to_rewrite(kv, lane) : n;
    for (int i = 0; i < n; i++) {
        wn_page pg = wn_kv_page(kv, lane, i);
        pg.keep = kv->masks[i];
        if (pg.keep && i < first) {
            if (!t) l->pages[p.n_out] = pg;
            p.n_out++;
            continue;
        }
        for (uint64_t k = pg.keep; k; k &= k - 1) move_slot(&p, &pg, __builtin_ctzll(k));
        WN_ASSERT(p.n_out + (p.pg.n > 0) <= i + 1);
        wn_tally_drop_page(kv, lane, i, &pg, false, t);
    }
    close_page(&p);
    if (!t) {
        l->n_pages = p.n_out;
        kv->n_repacks += first < n;
    }
    return p.n_out;
}
