/* attention/gather.c - the live slots of a split, as stretches and entries; see gather.h.
 *
 * Where a lane's live slots are consecutive positions, entry number and position agree mod
 * 16 (the first entry is placed so): chains by position are vector lanes then.
 */
#include "attention/gather.h"

/* Slots of the run that are live and within [lo, hi). */
static uint64_t visible(const wn_run *run, int32_t lo, int32_t hi)
{
    uint64_t keep = run->keep & wn_low_bits(run->n);
    if (!run->pos) {
        if (run->pos0 >= hi || run->pos0 + run->n <= lo) return 0;
        if (run->pos0 + run->n > hi) keep &= wn_low_bits(hi - run->pos0);
        if (run->pos0 < lo) keep &= ~wn_low_bits(lo - run->pos0);
        return keep;
    }
    if (run->pos[0] >= lo && run->pos[run->n - 1] < hi) return keep;    /* ascending */
    for (int s = 0; s < run->n; s++)
        if (run->pos[s] < lo || run->pos[s] >= hi) keep &= ~((uint64_t)1 << s);
    return keep;
}

/* Adds slots [s, s + n) of the run, of which keep are entries. */
static void add_stretch(wn_gathered *g, const wn_run *run, const wn_walk *w, bool k_sealed,
                        bool v_sealed, int s, int n, uint64_t keep, int entry)
{
    int t = g->n++;
    g->stretches[t] = (wn_stretch){
        .k_format = k_sealed ? run->k_format : w->raw_k,
        .v_format = v_sealed ? run->v_format : w->raw_v,
        .bias = run->bias ? run->bias + s : NULL,
        .shift = run->shift,
    };
    g->k[t] = g->v[t] = (wn_page_part){
        .frame = k_sealed ? run->k_sealed : run->k,
        .first = run->first + s,
        .n = n,
        .entry = entry,
        .n_entries = __builtin_popcountll(keep),
        .keep = keep,
        .place = { run->pos ? run->pos + s : NULL, run->pos0 + s },
    };
    g->v[t].frame = v_sealed ? run->v_sealed : run->v;
    WN_ASSERT(g->k[t].frame && g->v[t].frame);
}

/* n entries whose indices, ascending, are written behind the others. */
static void take_entries(wn_gathered *g, int n)
{
    const int16_t *x = g->index + g->end;
    int first = x[0], last = x[n - 1];
    g->dense &= last - first == n - 1 &&
                (g->end == g->begin ? ((first - g->begin) & 15) == 0 : first == x[-1] + 1);
    g->ascending &= g->end == g->begin || first > x[-1];
    g->lowest = WN_MIN(g->lowest, first);
    g->highest = WN_MAX(g->highest, last);
    g->end += n;
}

/* Slots at neighbouring positions, stretch by stretch. */
static void add_neighbours(wn_gathered *g, int index, uint64_t keep)
{
    while (keep) {
        int s = __builtin_ctzll(keep), n = ~(keep >> s) ? __builtin_ctzll(~(keep >> s)) : 64 - s;
        for (int i = 0; i < n; i++) g->index[g->end + i] = (int16_t)(index + s + i);
        take_entries(g, n);
        keep &= ~(wn_low_bits(n) << s);
    }
}

/* Slots at positions of their own. */
static void add_scattered(wn_gathered *g, const int32_t *pos, int n, uint64_t keep)
{
    int16_t *x = g->index + g->end;
    int m = 0;
    if (keep == wn_low_bits(n))
        for (; m < n; m++) x[m] = (int16_t)(pos[m] - g->base);
    else
        for (; keep; keep &= keep - 1) x[m++] = (int16_t)(pos[__builtin_ctzll(keep)] - g->base);
    take_entries(g, m);
}

static void add_run(const wn_block *b, const wn_walk *w, wn_gathered *g)
{
    const wn_run *run = &w->run;
    uint64_t keep = visible(run, w->lo, w->hi);
    if (!keep) return;
    if (g->begin == g->end) {           /* the first: entry and position agree mod 16 */
        int s = __builtin_ctzll(keep);
        g->begin = g->end = (run->pos ? run->pos[s] : run->pos0 + s) & 15;
    }
    bool k_sealed = run->k_sealed && b->pos0 >= run->k_sealed_from;
    bool v_sealed = run->v_sealed && b->pos0 >= run->v_sealed_from;
    int entry = g->end;
    if (run->pos) add_scattered(g, run->pos, run->n, keep);
    else add_neighbours(g, run->pos0 - g->base, keep);
    if (k_sealed || v_sealed) {         /* encoded: parameters may span the run, take it whole */
        add_stretch(g, run, w, k_sealed, v_sealed, 0, run->n, keep, entry);
        return;
    }
    int s = 0;
    while (keep) {
        int skip = __builtin_ctzll(keep), n;
        keep >>= skip;
        s += skip;
        n = ~keep ? __builtin_ctzll(~keep) : 64;
        add_stretch(g, run, w, false, false, s, n, wn_low_bits(n), entry);
        entry += n;
        s += n;
        keep = n < 64 ? keep >> n : 0;
    }
}

/* Whole pages behind the one that was added last, like it in all but frames and places. */
static void add_alike(const wn_block *b, wn_walk *w, wn_gathered *g)
{
    enum { MOST = WN_SPLIT / 4 };       /* pages have 4 slots at least */
    const void *k[MOST], *v[MOST];
    int P = w->run.n, t = g->n - 1;
    if (w->run.pos || w->run.bias || t < 0 || g->k[t].n_entries < P) return;
    int n = wn_runs_alike(&w->it, &w->run, b->pos0, MOST, k, v), from = g->end;
    if (!n) return;
    for (int i = 0; i < n; i++) {
        g->stretches[t + 1 + i] = g->stretches[t];
        wn_page_part *x[] = { &g->k[t + 1 + i], &g->v[t + 1 + i] };
        *x[0] = g->k[t];
        *x[1] = g->v[t];
        x[0]->frame = k[i];
        x[1]->frame = v[i];
        for (int j = 0; j < 2; j++) {
            x[j]->entry += P * (i + 1);
            x[j]->place.pos0 += P * (i + 1);
        }
    }
    g->n += n;
    int16_t *index = g->index + from, first = (int16_t)(index[-1] + 1);
    for (int e = 0; e < n * P; e++) index[e] = (int16_t)(first + e);
    take_entries(g, n * P);
}

bool wn_walk_next(const wn_block *b, const wn_desk *d, int place, wn_walk *w, int to,
                  wn_gathered *g, int *split)
{
    do {
        if (!w->more || w->run.split >= to) return false;
        *split = w->run.split;
        *g = (wn_gathered){
            .stretches = d->stretches[place], .k = d->k[place], .v = d->v[place],
            .index = d->index[place], .base = *split * WN_SPLIT, .dense = true, .ascending = true,
            .lowest = WN_SPLIT, .highest = -1,
        };
        while (w->more && w->run.split == *split) {
            add_run(b, w, g);
            add_alike(b, w, g);
            WN_ASSERT(g->end <= WN_SPLIT + 16);
            w->more = wn_runs_next(&w->it, &w->run);
        }
    } while (g->end == g->begin);
    return true;
}

wn_walk wn_walk_begin(const wn_block *b, int from)
{
    const wn_kv *kv = b->item->kv;
    wn_walk w = {
        .lo = wn_lowest_seen(b, b->pos0),
        .hi = b->pos0 + b->np,
        .raw_k = wn_kv_raw_k(kv, b->lane),
        .raw_v = wn_kv_raw_v(kv, b->lane),
    };
    wn_runs_begin(&w.it, kv, b->lane, WN_MAX(from, w.lo / WN_SPLIT), w.hi);
    w.more = wn_runs_next(&w.it, &w.run);
    return w;
}
