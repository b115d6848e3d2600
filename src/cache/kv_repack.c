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
 * are sealed in order.
 *
 * Pages sealed in a format with parameters per page (the lane's first ones) stay where they
 * are, and the pages after them are judged by themselves. Only where their live slots would
 * fit into 4/5 of them are they rewritten too: such a side is decoded into a raw page of
 * scratch, slot by slot, and encoded anew when the page is full. What that costs in precision
 * a slot pays once for each fifth of its lane that goes, not at each decision.
 *
 * Fresh pages are never more than the pages already read, so the list is rewritten in
 * place, and a page's frames are given back before the next page is read.
 */
#include "cache/kv_int.h"

#include <string.h>

static bool is_fixed(wn_frame_id raw, const wn_kv_side *s)
{
    return !wn_frame_ok(raw) && s->repack == WN_REPACK_RAW_ONLY;
}

/* Sealed in a format whose slots cannot be moved. */
static bool page_is_fixed(const wn_kv_lane *l, const wn_page *pg)
{
    return is_fixed(pg->k, &l->k) || is_fixed(pg->v, &l->v);
}

static int kind_of(const wn_page *pg) { return wn_frame_ok(pg->k) * 2 + wn_frame_ok(pg->v); }

/* Pages [from, to) as they are and as they would be; *first: the first one that is not full of
 * live slots. Where nothing is gained by rewriting from there on, *first is `to`. */
typedef struct { int before, after, first; } gain;

static gain rewriting(const wn_kv *kv, int lane, int from, int to)
{
    gain g = { .first = to };
    int slots = 0, kind = -1;
    for (int i = from; i < to; i++) {
        wn_page pg = wn_kv_page(kv, lane, i);
        int live = __builtin_popcountll(kv->desk.masks[i]);
        if (!live) continue;
        g.before++;
        if (g.first == to && live == kv->P) {
            g.after++;
            continue;
        }
        if (g.first == to) g.first = i;
        if (kind_of(&pg) != kind) {     /* a page for the rest of the kind before */
            g.after += wn_pages_of(slots, kv->P);
            slots = 0;
            kind = kind_of(&pg);
        }
        slots += live;
    }
    g.after += wn_pages_of(slots, kv->P);
    return g;
}

/* The first page to rewrite, or the number of pages when the lane stays as it is. */
static int first_to_rewrite(const wn_kv *kv, int lane)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    int n = wn_kv_n_pages(kv, lane), n_fixed = 0;
    for (; n_fixed < n; n_fixed++) {
        wn_page pg = wn_kv_page(kv, lane, n_fixed);
        if (!page_is_fixed(l, &pg)) break;
    }
    gain fixed = rewriting(kv, lane, 0, n_fixed), others = rewriting(kv, lane, n_fixed, n);
    if (fixed.before && fixed.after * 5 <= fixed.before * 4) return fixed.first;
    return others.after * 16 <= others.before * 15 ? others.first : n;
}

typedef struct {
    wn_kv *kv;
    const wn_kv_lane *l;
    wn_page *pages;                     /* the lane's list */
    wn_tally *t;
    wn_page pg;                         /* the fresh page being filled; n == 0: none */
    int kind, n_out;
} packer;

static void close_page(packer *p)
{
    wn_kv *kv = p->kv;
    wn_page *pg = &p->pg;
    if (!pg->n) return;
    if (!p->t) {
        if (is_fixed(pg->k, &p->l->k))
            wn_format_encode_k(p->l->k.format, wn_kv_addr(kv, pg->ks), kv->desk.raw_page[0],
                               p->l->k.raw, kv->P, pg->n, pg->keep, p->l->k.dim,
                               wn_page_place_of(kv, pg));
        if (is_fixed(pg->v, &p->l->v))
            wn_format_encode_v(p->l->v.format, wn_kv_addr(kv, pg->vs), kv->desk.raw_page[1],
                               p->l->v.raw, kv->P, pg->n, pg->keep, p->l->v.dim);
        p->pages[p->n_out] = *pg;
    }
    p->n_out++;
    *pg = WN_PAGE_EMPTY;
}

static void open_page(packer *p, int kind, int32_t pos)
{
    close_page(p);
    p->kind = kind;
    p->pg.pos0 = pos;
    if (kind & 2) p->pg.k = wn_tally_take(p->kv, p->l->k.raw_class, p->t);
    else p->pg.ks = wn_tally_take(p->kv, p->l->k.sealed_class, p->t);
    if (kind & 1) p->pg.v = wn_tally_take(p->kv, p->l->v.raw_class, p->t);
    else p->pg.vs = wn_tally_take(p->kv, p->l->v.sealed_class, p->t);
}

/* Slots [s, s + n) of a page to the fresh page's from d on. */
static void copy_k(packer *p, const wn_page *src, int s, int d, int n)
{
    wn_kv *kv = p->kv;
    const wn_page *dst = &p->pg;
    const wn_kv_side *k = &p->l->k;
    if (!wn_frame_ok(src->k) && is_fixed(src->k, k)) {
        for (int i = 0; i < n; i++) {
            wn_format_get_k(k->format, wn_kv_addr(kv, src->ks), kv->P, s + i,
                            wn_page_pos(kv, src, s + i), kv->desk.row, k->dim);
            k->raw->put_k(kv->desk.raw_page[0], kv->P, d + i, kv->desk.row, 0, 1, k->dim);
        }
        return;
    }
    bool raw = wn_frame_ok(src->k);
    wn_format_copy_k(raw ? k->raw : k->format, wn_kv_addr(kv, raw ? dst->k : dst->ks), d,
                     wn_kv_addr(kv, raw ? src->k : src->ks), s, n, kv->P, k->dim);
}

static void copy_v(packer *p, const wn_page *src, int s, int d, int n)
{
    wn_kv *kv = p->kv;
    const wn_page *dst = &p->pg;
    const wn_kv_side *v = &p->l->v;
    if (!wn_frame_ok(src->v) && is_fixed(src->v, v)) {
        for (int i = 0; i < n; i++) {
            wn_format_get_v(v->format, wn_kv_addr(kv, src->vs), kv->P, s + i, kv->desk.row, v->dim);
            v->raw->put_v(kv->desk.raw_page[1], kv->P, d + i, kv->desk.row, 0, 1, v->dim);
        }
        return;
    }
    bool raw = wn_frame_ok(src->v);
    wn_format_copy_v(raw ? v->raw : v->format, wn_kv_addr(kv, raw ? dst->v : dst->vs), d,
                     wn_kv_addr(kv, raw ? src->v : src->vs), s, n, kv->P, v->dim);
}

static void copy_slots(packer *p, const wn_page *src, int s, int n)
{
    wn_kv *kv = p->kv;
    wn_page *dst = &p->pg;
    int d = dst->n;
    copy_k(p, src, s, d, n);
    copy_v(p, src, s, d, n);
    if (wn_frame_ok(dst->pos)) {
        int32_t *at = (int32_t *)wn_kv_addr(kv, dst->pos) + d;
        for (int i = 0; i < n; i++) at[i] = wn_page_pos(kv, src, s + i);
    }
    if (wn_frame_ok(src->bias))
        memcpy((float *)wn_kv_addr(kv, dst->bias) + d, (const float *)wn_kv_addr(kv, src->bias) + s,
               sizeof(float) * (size_t)n);
}

/* Do the positions of these slots go on where the fresh page ends? They ascend: the ends say so. */
static bool goes_on(const packer *p, const wn_page *src, int s, int n)
{
    int32_t next = p->pg.pos0 + p->pg.n;
    return wn_page_pos(p->kv, src, s) == next && wn_page_pos(p->kv, src, s + n - 1) == next + n - 1;
}

/* n neighbouring slots, all live. */
static void move_slots(packer *p, const wn_page *src, int s, int n)
{
    wn_page *dst = &p->pg;
    for (int m; n > 0; s += m, n -= m) {
        if (!dst->n || dst->n == p->kv->P || p->kind != kind_of(src))
            open_page(p, kind_of(src), wn_page_pos(p->kv, src, s));
        m = WN_MIN(n, p->kv->P - dst->n);
        if (!wn_frame_ok(dst->pos) && !goes_on(p, src, s, m)) {
            dst->pos = wn_tally_take(p->kv, p->kv->pos_class, p->t);
            if (!p->t) {
                int32_t *at = wn_kv_addr(p->kv, dst->pos);
                for (int i = 0; i < dst->n; i++) at[i] = dst->pos0 + i;
            }
        }
        if (wn_frame_ok(src->bias) && !wn_frame_ok(dst->bias))
            dst->bias = wn_tally_take(p->kv, p->kv->pos_class, p->t);
        if (!p->t) copy_slots(p, src, s, m);
        dst->keep |= wn_low_bits(m) << dst->n;
        dst->n += m;
    }
}

int wn_repack_lane(wn_kv *kv, int lane, bool repack, wn_tally *t)
{
    wn_kv_lane *l = &kv->lanes[lane];
    packer p = { .kv = kv, .l = l, .pages = l->pages, .t = t, .pg = WN_PAGE_EMPTY };
    int n = wn_kv_n_pages(kv, lane), first = repack ? first_to_rewrite(kv, lane) : n;
    for (int i = 0; i < n; i++) {
        wn_page pg = wn_kv_page(kv, lane, i);
        pg.keep = kv->desk.masks[i];
        if (pg.keep && i < first) {
            if (!t) l->pages[p.n_out] = pg;
            p.n_out++;
            continue;
        }
        for (uint64_t k = pg.keep; k;) {
            int s = __builtin_ctzll(k), live = wn_low_run(k >> s);
            move_slots(&p, &pg, s, live);
            k &= ~(wn_low_bits(live) << s);
        }
        WN_ASSERT(p.n_out + (p.pg.n > 0) <= i + 1);
        wn_tally_drop_page(kv, lane, i, &pg, WN_LIST_PAGES, t);
    }
    close_page(&p);
    if (!t) {
        l->n_pages = p.n_out;
        kv->n_repacks += first < n;
    }
    return p.n_out;
}
