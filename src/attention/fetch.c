/* attention/fetch.c - see fetch.h. */
#include "attention/fetch.h"

static wn_ahead bytes_of(const wn_page_part *x, size_t n) { return (wn_ahead){ x->frame, (const char *)x->frame + n }; }

static bool reads_several(const wn_gathered *g)
{
    for (int t = 0; t < g->n; t++)
        if (!g->stretches[t].k_format->scores || !g->stretches[t].v_format->mixes) return false;
    return true;
}

static size_t add_frames(wn_ahead *out, const wn_block *b, const wn_gathered *g, bool of_v, int P)
{
    const wn_format *f = NULL;
    size_t bytes = 0, sum = 0;
    for (int t = 0; t < g->n; t++) {
        const wn_format *own = of_v ? g->stretches[t].v_format : g->stretches[t].k_format;
        if (own != f) f = own, bytes = of_v ? f->v_bytes(P, b->shape->v_dim) : f->k_bytes(P, b->shape->k_dim);
        out[t] = bytes_of(of_v ? &g->v[t] : &g->k[t], bytes);
        sum += bytes;
    }
    return sum;
}

static wn_fetcher plan_split(const wn_block *b, const wn_desk *d, const wn_gathered *g, const wn_gathered *next, int P)
{
    enum { TIMES = 130 };               /* work on a page asks: with four rows, a few less than it does */
    if (!next) return (wn_fetcher){ 0 };
    size_t bytes = add_frames(d->soon, b, next, false, P) + add_frames(d->soon + next->n, b, next, true, P);
    size_t rate = bytes / (size_t)(TIMES * g->n) + 1;
    return (wn_fetcher){ d->soon->at, d->soon->end, d->soon + 1, d->soon + 2 * next->n, WN_MIN(rate, 128) };
}

static void plan_k(const wn_block *b, const wn_gathered *g, const wn_gathered *next, int P)
{
    const wn_format *f = NULL;
    size_t bytes = 0;
    for (int t = 0; t < g->n; t++) {
        bool raw = g->stretches[t].k_format->raw;
        const wn_gathered *in = raw ? g : next;
        int u = raw ? t + 1 : t;
        if (raw && u == g->n) {
            g->k[t].ahead = bytes_of(&g->v[0], g->stretches[0].v_format->v_bytes(P, b->shape->v_dim));
            continue;
        }
        if (!in || u >= in->n || in->k[u].frame == g->k[t].frame) continue;
        if (in->stretches[u].k_format != f) f = in->stretches[u].k_format, bytes = f->k_bytes(P, b->shape->k_dim);
        g->k[t].ahead = bytes_of(&in->k[u], bytes);
    }
}

static void plan_v(const wn_block *b, const wn_gathered *g, const wn_gathered *next, int P)
{
    const wn_format *f = NULL;
    size_t bytes = 0;
    for (int t = 0; t < g->n; t++) {
        bool raw = g->stretches[t].v_format->raw;
        const wn_gathered *in = raw ? g : next;
        int u = raw ? t + 1 : t;
        if (raw && u == g->n) {
            if (next) g->v[t].ahead = bytes_of(&next->k[0], next->stretches[0].k_format->k_bytes(P, b->shape->k_dim));
            continue;
        }
        if (!in || u >= in->n || in->v[u].frame == g->v[t].frame) continue;
        if (in->stretches[u].v_format != f) f = in->stretches[u].v_format, bytes = f->v_bytes(P, b->shape->v_dim);
        g->v[t].ahead = bytes_of(&in->v[u], bytes);
    }
}

bool wn_block_plan_fetches(const wn_block *b, const wn_desk *d, wn_gathered *g, const wn_gathered *next, wn_fetcher *f)
{
    int P = wn_kv_page_slots(b->item->kv);
    if (!reads_several(g)) {
        plan_k(b, g, next, P);
        plan_v(b, g, next, P);
        return false;
    }
    *f = plan_split(b, d, g, next, P);
    return f->rate > 0;
}
