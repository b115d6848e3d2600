/* attention/account.c - what becomes of a block's weights; see account.h.
 *
 * A split's weights are relative to the row's maximum in that split. Behind the last split they
 * are brought to the row's own maximum and sum, reduced over the heads of the group, and go to
 * the ledger row by row, with the places of their slots in its rows.
 */
#include "attention/account.h"
#include "attention/accumulate.h"
#include "attention/split.h"

#include <math.h>
#include <string.h>

/* ---- kept splits ---------------------------------------------------------------- */

static int last_split(const wn_block *b) { return (b->pos0 + b->np - 1) / WN_SPLIT; }

/* The first split whose weights stay, of a block that keeps. */
static int first_kept(const wn_block *b, const wn_desk *d)
{
    return WN_MAX(0, last_split(b) + 1 - d->n_kept);
}

void wn_kept_forget(const wn_block *b, wn_desk *d)
{
    for (int i = 0; b->keeps && i < d->n_kept; i++) d->kept_splits[i].split = -1;
}

void wn_kept_put(const wn_block *b, wn_desk *d, const wn_gathered *g, int split)
{
    if (!b->keeps || split < first_kept(b, d)) return;
    wn_kept_split *k = &d->kept_splits[split % d->n_kept];
    k->split = split;
    k->g = *g;
    k->g.index = k->index;
    k->g.stretches = NULL;
    k->g.k = k->g.v = NULL;
    memcpy(k->index + g->begin, g->index + g->begin,
           sizeof *k->index * (size_t)(g->end - g->begin));
}

wn_desk wn_kept_desk(const wn_block *b, const wn_desk *d, int split)
{
    wn_desk x = *d;
    if (!b->keeps || split < first_kept(b, d)) return x;
    size_t at = (size_t)(split % d->n_kept) * (size_t)d->n_rows;
    x.logits = d->kept + at * WN_LOGIT_STRIDE;
    x.m = d->kept_m + at;
    return x;
}

/* ---- weights for a ledger ------------------------------------------------------- */

/* What the weights of a split are multiplied with, by row: exp(m - M) / (L group). */
static const float *factors(const wn_block *b, wn_desk *d)
{
    int rows = b->np * b->group;
    float *f = d->l;                    /* of the split alone: no longer wanted */
    for (int i = 0; i < rows; i++)
        f[i] = d->run_m[i] == -INFINITY ? -INFINITY : d->m[i] - d->run_m[i];
    b->kernels->vec->exp_sub(f, f, 0, rows);
    for (int i = 0; i < rows; i++) f[i] = f[i] > 0 ? f[i] / (d->run_l[i] * (float)b->group) : 0;
    return f;
}

/* One row's weights from entry see.from on: the mean over the group's heads in by_pos, and their
 * maximum where it is wanted. */
static void weights_of_row(const wn_block *b, wn_desk *d, wn_entries see, int r, const float *f,
                           bool max)
{
    int i = r * b->group, n = see.to - see.from;
    const float *x = d->logits + (size_t)i * WN_LOGIT_STRIDE + see.from;
    memset(d->by_pos, 0, sizeof *d->by_pos * (size_t)n);
    for (int h = 0; h < b->group; h++)
        b->kernels->attn->merge(d->by_pos, 1, x + (size_t)h * WN_LOGIT_STRIDE, f[i + h], n);
    if (!max) return;
    memset(d->most, 0, sizeof *d->most * (size_t)n);
    for (int h = 0; h < b->group; h++, x += WN_LOGIT_STRIDE) {
        float whole = f[i + h] * (float)b->group;
        for (int e = 0; e < n; e++)
            d->most[e] = x[e] * whole > d->most[e] ? x[e] * whole : d->most[e];
    }
}

/* Which slot of its split each entry is, by position. Slots that were left out lie beyond all
 * entries. Eight positions at a time: a product makes eight flags their running sums. */
static void rank_entries(const wn_gathered *g, int16_t *rank)
{
    uint8_t here[WN_SPLIT] = { 0 };
    int16_t before[WN_SPLIT / 8], n = 0;
    for (int e = g->begin; e < g->end; e++) here[g->index[e]] = 1;
    for (int i = 0; i < WN_SPLIT / 8; i++) {
        uint64_t x;
        memcpy(&x, here + 8 * i, 8);
        x *= 0x0101010101010101u;       /* of little-endian words, as everywhere here */
        memcpy(here + 8 * i, &x, 8);
        before[i] = (int16_t)(n - 1);
        n = (int16_t)(n + (int)(x >> 56));
    }
    for (int e = g->begin; e < g->end; e++) {
        int at = g->index[e];
        *rank++ = (int16_t)(before[at >> 3] + here[at]);
    }
}

/* One split, whose weights and maxima are in the desk. */
static void account_split(const wn_block *b, wn_desk *d, const wn_gathered *g)
{
    const wn_ledger *x = b->item->ledger;
    uint32_t live = wn_kv_live(b->item->kv, b->lane) + (uint32_t)(b->pos0 - b->item->pos);
    bool max = wn_ledger_wants_max(x);
    int16_t ranks[WN_SPLIT];
    bool in_order = x->lanes ? g->ascending : g->dense;         /* numbers are neighbours, too */
    const int16_t *rank = in_order ? NULL : x->lanes ? ranks : g->index + g->begin;
    int32_t place = wn_ledger_before(x, b->lane, g->base / WN_SPLIT);
    if (in_order && !x->lanes) place += g->index[g->begin];
    if (rank == ranks) rank_entries(g, ranks);
    const float *f = factors(b, d);
    for (int r = 0; r < b->np; r++) {
        wn_entries see = wn_split_seen_by(b, g, r);
        if (see.from >= see.to) continue;
        weights_of_row(b, d, see, r, f, max);
        wn_ledger_add(x, b->lane, &(wn_weights){
            .query = b->pos0 + r, .group = b->group, .even = 1 / (float)(live + (uint32_t)r + 1),
            .base = g->base, .index = g->index + see.from,
            .place = place + (rank ? 0 : see.from - g->begin),
            .rank = rank ? rank + (see.from - g->begin) : NULL,
            .n = see.to - see.from, .mean = d->by_pos, .max = d->most });
    }
}

/* Splits [from, to) that are not kept are scored and weighed once more, which gives the same
 * bits. */
static void account_walk(const wn_block *b, wn_desk *d, int from, int to)
{
    wn_gathered g;
    int split;
    wn_walk w = wn_walk_begin(b, from);
    while (wn_walk_next(b, d, 0, &w, to, &g, &split)) {
        wn_split_weigh(b, d, &g);
        account_split(b, d, &g);
    }
}

void wn_block_account(const wn_block *b, wn_desk *d)
{
    int first = first_kept(b, d);
    if (first) account_walk(b, d, 0, first);
    for (int split = first; split <= last_split(b); split++) {
        wn_kept_split *k = &d->kept_splits[split % d->n_kept];
        if (k->split != split) continue;        /* nothing in it is live */
        wn_desk x = wn_kept_desk(b, d, split);
        account_split(b, &x, &k->g);
    }
}

void wn_block_account_again(const wn_block *b, wn_desk *d, const float *ml, int from, int to)
{
    wn_block_start_queries(b, d);
    for (int i = 0; i < b->np * b->group; i++) {
        size_t row = (size_t)(b->row0 + i / b->group),
               head = (size_t)(b->head * b->group + i % b->group);
        const float *pair = ml + 2 * (row * (size_t)b->shape->n_heads + head);
        d->run_m[i] = pair[0];
        d->run_l[i] = pair[1];
    }
    account_walk(b, d, from, to);
}
