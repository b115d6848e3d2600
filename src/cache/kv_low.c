/* cache/kv_low.c - slots that a decision keeps in fewer bits.
 *
 * Demoted slots live in pages of their own, in the lane's lower format, always with a table
 * of positions, encoded as soon as the decision is carried out (nothing reads them raw).
 * Formats whose slots can be moved are possible only, so that a slot is encoded once: when
 * a decision demotes more, the list is made anew from the first page a new slot falls into
 * (or from its last, partly filled one), and what was there is copied as codes.
 *
 *     before   |abcd|efhj|kl         new: g, m
 *     after    |abcd|efgh|jklm       the first page is left alone
 *
 * A fresh page is put together in two goes: its new slots are laid out raw in scratch, in
 * their places, and encoded; then the codes of the old ones are copied in between. So are those of
 * new slots where the lower format reads the frames they come from (wn_format.coarse). Dead
 * slots go when a page is made anew, or when that leaves 15/16 of the pages.
 */
#include "cache/kv_int.h"

#include <string.h>

typedef struct { const wn_page *pg; int slot; } source;

typedef struct {
    wn_kv *kv;
    const wn_kv_lane *l;
    wn_page *to;                        /* where pages go; the next is to[n_out] */
    int n_out, n;                       /* pages written; slots of the one being filled */
    uint64_t new;                       /* which of them come from ordinary pages */
    source from[WN_PAGE_SLOTS_MAX];
    int32_t pos[WN_PAGE_SLOTS_MAX];
} writer;

/* Does a slot of this side of an ordinary page come over as codes? */
static bool as_codes(const wn_kv_side *side, wn_frame_id raw)
{
    return !wn_frame_ok(raw) && side->format->coarse == side->low;
}

/* A row of an ordinary slot into a page of scratch, or, where the lower format takes rows, into
 * its frame. */
static void lay_k(const writer *w, const wn_page *src, int s, void *frame, int d)
{
    const wn_kv *kv = w->kv;
    const wn_kv_side *k = &w->l->k;
    bool raw = wn_frame_ok(src->k);
    if (raw && !k->low->raw) {
        k->raw->copy_k(kv->desk.raw_page[0], d, wn_kv_addr(kv, src->k), s, kv->P, k->dim);
        return;
    }
    wn_format_get_k(raw ? k->raw : k->format, wn_kv_addr(kv, raw ? src->k : src->ks), kv->P, s,
                    wn_page_pos(kv, src, s), kv->desk.row, k->dim);
    if (k->low->raw) k->low->put_k(frame, kv->P, d, kv->desk.row, 0, 1, k->dim);
    else k->raw->put_k(kv->desk.raw_page[0], kv->P, d, kv->desk.row, 0, 1, k->dim);
}

static void lay_v(const writer *w, const wn_page *src, int s, void *frame, int d)
{
    const wn_kv *kv = w->kv;
    const wn_kv_side *v = &w->l->v;
    bool raw = wn_frame_ok(src->v);
    if (raw && !v->low->raw) {
        v->raw->copy_v(kv->desk.raw_page[1], d, wn_kv_addr(kv, src->v), s, kv->P, v->dim);
        return;
    }
    wn_format_get_v(raw ? v->raw : v->format, wn_kv_addr(kv, raw ? src->v : src->vs), kv->P, s,
                    kv->desk.row, v->dim);
    if (v->low->raw) v->low->put_v(frame, kv->P, d, kv->desk.row, 0, 1, v->dim);
    else v->raw->put_v(kv->desk.raw_page[1], kv->P, d, kv->desk.row, 0, 1, v->dim);
}

static void carry_bias(wn_kv *kv, wn_page *pg, const source *from, int s)
{
    if (!wn_frame_ok(from->pg->bias)) return;
    float b = ((const float *)wn_kv_addr(kv, from->pg->bias))[from->slot];
    if (b == 0) return;
    if (!wn_frame_ok(pg->bias)) pg->bias = wn_kv_take(kv, kv->pos_class, NULL);
    ((float *)wn_kv_addr(kv, pg->bias))[s] = b;
}

/* The page that has been gathered. */
static void write_page(writer *w)
{
    wn_kv *kv = w->kv;
    const wn_kv_side *k = &w->l->k, *v = &w->l->v;
    wn_page pg = WN_PAGE_EMPTY;
    int P = kv->P;
    if (!w->n) return;
    pg.ks = wn_kv_take(kv, k->low_class, NULL);
    pg.vs = wn_kv_take(kv, v->low_class, NULL);
    pg.pos = wn_kv_take(kv, kv->pos_class, NULL);
    pg.pos0 = w->pos[0];
    pg.n = w->n;
    pg.keep = wn_low_bits(w->n);
    memcpy(wn_kv_addr(kv, pg.pos), w->pos, sizeof *w->pos * (size_t)w->n);
    void *kf = wn_kv_addr(kv, pg.ks), *vf = wn_kv_addr(kv, pg.vs);
    uint64_t new_k = w->new, new_v = w->new;
    for (uint64_t left = w->new; left; left &= left - 1) {
        int s = __builtin_ctzll(left);
        const source *from = &w->from[s];
        if (as_codes(k, from->pg->k)) new_k &= ~(1ull << s);
        else lay_k(w, from->pg, from->slot, kf, s);
        if (as_codes(v, from->pg->v)) new_v &= ~(1ull << s);
        else lay_v(w, from->pg, from->slot, vf, s);
    }
    if (w->new && !k->low->raw)
        wn_format_encode_k(k->low, kf, kv->desk.raw_page[0], k->raw, P, w->n, new_k, k->dim,
                           wn_page_place_of(kv, &pg));
    if (w->new && !v->low->raw)
        wn_format_encode_v(v->low, vf, kv->desk.raw_page[1], v->raw, P, w->n, new_v, v->dim);
    for (int s = 0; s < w->n; s++) {
        const source *from = &w->from[s];
        carry_bias(kv, &pg, from, s);
        if (!(new_k >> s & 1))
            k->low->copy_k(kf, s, wn_kv_addr(kv, from->pg->ks), from->slot, P, k->dim);
        if (!(new_v >> s & 1))
            v->low->copy_v(vf, s, wn_kv_addr(kv, from->pg->vs), from->slot, P, v->dim);
    }
    w->to[w->n_out++] = pg;
    w->n = 0;
    w->new = 0;
}

static void add(writer *w, const wn_page *pg, int slot, bool is_new)
{
    w->from[w->n] = (source){ pg, slot };
    w->pos[w->n] = wn_page_pos(w->kv, pg, slot);
    w->new |= (uint64_t)is_new << w->n;
    if (++w->n == w->kv->P) write_page(w);
}

/* A walk over the slots of ordinary pages that kv->desk.bits_low names, in position order. */
typedef struct {
    const wn_kv *kv;
    int lane, i;                        /* page, */
    wn_page pg;
    uint64_t left;                      /* and those of its slots that are still to come */
} walk;

static bool wanted(walk *k)
{
    const wn_kv *kv = k->kv;
    while (!k->left) {
        if (++k->i >= wn_kv_n_pages(kv, k->lane)) return false;
        k->pg = wn_kv_page(kv, k->lane, k->i);
        for (uint64_t b = k->pg.keep; b; b &= b - 1) {
            int s = __builtin_ctzll(b);
            int32_t pos = wn_page_pos(kv, &k->pg, s);
            if (kv->desk.bits_low[pos >> 6] >> (pos & 63) & 1) k->left |= 1ull << s;
        }
    }
    return true;
}

/* Old slots from page `first` on and new ones, side by side. Pages of spans are described on the
 * fly: what the writer remembers of them are copies that live until the page is written. */
static int rebuild(wn_kv *kv, int lane, int first)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    writer w = { .kv = kv, .l = l, .to = kv->desk.fresh };
    walk k = { .kv = kv, .lane = lane, .i = -1 };
    wn_page held[WN_PAGE_SLOTS_MAX];
    bool more = wanted(&k);
    for (int i = first; i <= l->n_low; i++) {
        uint64_t live = i < l->n_low ? kv->desk.low_masks[i] : 0;
        while (live || (i == l->n_low && more)) {
            int s = live ? __builtin_ctzll(live) : 0;
            bool old = live && (!more || wn_page_pos(kv, &l->low[i], s) <
                                             wn_page_pos(kv, &k.pg, __builtin_ctzll(k.left)));
            if (old) {
                live &= live - 1;
                add(&w, &l->low[i], s, false);
                continue;
            }
            held[w.n] = k.pg;
            s = __builtin_ctzll(k.left);
            k.left &= k.left - 1;
            add(&w, &held[w.n], s, true);
            more = wanted(&k);
        }
    }
    write_page(&w);
    return w.n_out;
}

/* The first page to make anew; n_low when the list stays as it is. */
static int first_to_rebuild(const wn_kv *kv, int lane, int n_new, int32_t first_new, bool repack)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    int before = 0, live = 0, thin = l->n_low, i = 0;
    for (; i < l->n_low; i++) {
        int n = __builtin_popcountll(kv->desk.low_masks[i]);
        before += n > 0;
        live += n;
        if (n < kv->P && thin == l->n_low) thin = i;
    }
    bool packs = repack && before &&
                 wn_pages_of(live + n_new, kv->P) * 16 <=
                     wn_pages_of(before * kv->P + n_new, kv->P) * 15;
    for (i = 0; n_new && i < l->n_low && wn_page_last(kv, &l->low[i]) < first_new; i++) {}
    if (!n_new) i = l->n_low;
    else if (i && i == l->n_low && __builtin_popcountll(kv->desk.low_masks[i - 1]) < kv->P) i--;
    return packs ? WN_MIN(i, thin) : i;
}

int wn_low_lane(wn_kv *kv, int lane, int n_new, int32_t first_new, bool repack, wn_tally *t)
{
    wn_kv_lane *l = &kv->lanes[lane];
    if (!l->low) return 0;
    int first = first_to_rebuild(kv, lane, n_new, first_new, repack), total = n_new, n_out = 0;
    bool anew = n_new || first < l->n_low;
    for (int i = first; i < l->n_low; i++) total += __builtin_popcountll(kv->desk.low_masks[i]);
    int fresh = anew ? wn_pages_of(total, kv->P) : 0;
    for (int i = 0; t && i < fresh; i++) {
        wn_tally_take(kv, l->k.low_class, t);
        wn_tally_take(kv, l->v.low_class, t);
        wn_tally_take(kv, kv->pos_class, t);
        wn_tally_take(kv, kv->pos_class, t);            /* biases, perhaps */
    }
    if (!t && anew) fresh = rebuild(kv, lane, first);
    for (int i = 0; i < l->n_low; i++) {
        wn_page pg = l->low[i];
        pg.keep = kv->desk.low_masks[i];
        if (i >= first || !pg.keep) wn_tally_drop_page(kv, lane, i, &pg, WN_LIST_LOW, t);
        else {
            if (!t) l->low[n_out] = pg;
            n_out++;
        }
    }
    if (t) return n_out + fresh;
    memcpy(l->low + n_out, kv->desk.fresh, (size_t)fresh * sizeof *l->low);
    return l->n_low = n_out + fresh;
}
