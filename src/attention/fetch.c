/* attention/fetch.c - see fetch.h. */
#include "attention/fetch.h"

typedef enum { OF_K, OF_V } side;

static const wn_format *format_of(const wn_gathered *g, int t, side x)
{
    return x == OF_V ? g->stretches[t].v_format : g->stretches[t].k_format;
}

static size_t bytes_of(const wn_block *b, const wn_format *f, side x, int P)
{
    return x == OF_V ? f->v_bytes(P, b->shape->v_dim) : f->k_bytes(P, b->shape->k_dim);
}

static wn_page_part *part_of(const wn_gathered *g, int t, side x)
{
    return x == OF_V ? &g->v[t] : &g->k[t];
}

static wn_ahead frame_of(const wn_page_part *x, size_t bytes)
{
    return (wn_ahead){ x->frame, (const char *)x->frame + bytes };
}

static bool reads_several(const wn_gathered *g)
{
    for (int t = 0; t < g->n; t++)
        if (!g->stretches[t].k_format->scores || !g->stretches[t].v_format->mixes) return false;
    return true;
}

static size_t add_frames(wn_ahead *out, const wn_block *b, const wn_gathered *g, side x, int P)
{
    const wn_format *f = NULL;
    size_t bytes = 0, sum = 0;
    for (int t = 0; t < g->n; t++) {
        if (format_of(g, t, x) != f) f = format_of(g, t, x), bytes = bytes_of(b, f, x, P);
        out[t] = frame_of(part_of(g, t, x), bytes);
        sum += bytes;
    }
    return sum;
}

static wn_fetcher plan_split(const wn_block *b, const wn_desk *d, const wn_gathered *g,
                             const wn_gathered *next, int P)
{
    enum { TIMES = 130 };               /* work on a page asks: with four rows, a few less than it
                                           does */
    if (!next) return (wn_fetcher){ 0 };
    size_t bytes = add_frames(d->soon, b, next, OF_K, P) +
                   add_frames(d->soon + next->n, b, next, OF_V, P);
    size_t rate = bytes / (size_t)(TIMES * g->n) + 1;
    return (wn_fetcher){ d->soon->at, d->soon->end, d->soon + 1, d->soon + 2 * next->n,
                         WN_MIN(rate, 128) };
}

/* Of raw pages the one behind, and behind the last K the first V, behind the last V the next
 * split's first K; with others the page of the next split that has their place. */
static void plan_pages(const wn_block *b, const wn_gathered *g, const wn_gathered *next, side x,
                       int P)
{
    for (int t = 0; t < g->n; t++) {
        bool raw = format_of(g, t, x)->raw, last = raw && t + 1 == g->n;
        side y = last ? (x == OF_K ? OF_V : OF_K) : x;
        const wn_gathered *in = raw && !(last && x == OF_V) ? g : next;
        int u = last ? 0 : raw ? t + 1 : t;
        if (!in || u >= in->n || part_of(in, u, y)->frame == part_of(g, t, x)->frame) continue;
        part_of(g, t, x)->ahead = frame_of(part_of(in, u, y),
                                           bytes_of(b, format_of(in, u, y), y, P));
    }
}

bool wn_block_plan_fetches(const wn_block *b, const wn_desk *d, wn_gathered *g,
                           const wn_gathered *next, wn_fetcher *f)
{
    int P = wn_kv_page_slots(b->item->kv);
    if (!reads_several(g)) {
        plan_pages(b, g, next, OF_K, P);
        plan_pages(b, g, next, OF_V, P);
        return false;
    }
    *f = plan_split(b, d, g, next, P);
    return f->rate > 0;
}
