/* attention/accumulate.c - see accumulate.h.
 *
 * Each statistic is a loop over neighbouring numbers. Where entries are not in the order of
 * their numbers (merged and demoted slots come behind the others of their split) weights are put
 * in that order first; where only some count, numbers are gathered and put back behind. */
#include "attention/accumulate.h"

#include "kernel/attn.h"

enum { SLOTS = 512 };

bool wn_ledger_wants_max(const wn_ledger *g)
{
    for (int i = 0; i < g->n_stats; i++)
        if (g->stats[i].reduce == WN_REDUCE_MAX) return true;
    return false;
}

/* The slot has got nothing yet. */
static void begin(const wn_ledger *g, int lane, int32_t place, int32_t pos)
{
    for (int i = 0; i < g->n_stats; i++)
        wn_ledger_row(g, lane, i)[place] = wn_stat_begin(&g->stats[i], pos);
}

static float decay_of(const wn_stat *s) { return s->decay > 0 ? s->decay : 1; }
static float scale_of(const wn_stat *s, const wn_weights *w)
{
    return s->reduce == WN_REDUCE_SUM ? (float)w->group : 1;
}

/* x (n): the statistic; last (n): of a gap, the last hits; a (n) times scale: what the heads of
 * the group made of their weights. */
static void step(const wn_stat *s, float *x, const float *last, const float *a, int n,
                 const wn_weights *w)
{
    float decay = decay_of(s), scale = scale_of(s, w);
    float bar = s->even ? s->threshold * w->even : s->threshold, now = (float)w->query;
    switch (s->kind) {
    case WN_STAT_SUM:                   /* times a power of two is exact: the kernel's one rounding
                                           is the same */
        if (scale == 1 || !(w->group & (w->group - 1)))
            wn_kernels_get()->attn->merge(x, decay, a, scale, n);
        else for (int i = 0; i < n; i++) x[i] = decay * x[i] + scale * a[i];
        break;
    case WN_STAT_SQUARES:
        for (int i = 0; i < n; i++) x[i] = decay * x[i] + scale * a[i] * (scale * a[i]);
        break;
    case WN_STAT_MAX:
        for (int i = 0; i < n; i++)
            x[i] = scale * a[i] > decay * x[i] ? scale * a[i] : decay * x[i];
        break;
    case WN_STAT_HITS:
        for (int i = 0; i < n; i++) x[i] = decay * x[i] + (scale * a[i] >= bar ? 1.0f : 0.0f);
        break;
    case WN_STAT_LAST:
        for (int i = 0; i < n; i++) x[i] = scale * a[i] >= bar ? now : x[i];
        break;
    case WN_STAT_GAP:
        for (int i = 0; i < n; i++)
            x[i] = scale * a[i] >= bar && now - last[i] > x[i] ? now - last[i] : x[i];
        break;
    case WN_STAT_KINDS: break;
    }
}

/* How far away slots are that the query counts for, and one more. */
static int reach(const wn_stat *s, int32_t query)
{
    int near = s->near ? s->near : INT32_MAX;
    return s->within > 0 ? WN_MIN(near, WN_MAX(1, (int)((double)s->within * (query + 1.0)))) : near;
}

/* A statistic of the split's slots, and what it is made of. */
typedef struct {
    const wn_stat *stat;
    const float *weights;               /* (n), by entry */
    float *x;                           /* by number; hits: of a gap, the last hits */
    const float *hits;
    int near;                           /* as reach() says */
} row;

static row row_of(const wn_ledger *g, int lane, int i, const wn_weights *w)
{
    const wn_stat *s = &g->stats[i];
    row r = { .stat = s, .weights = s->reduce == WN_REDUCE_MAX ? w->max : w->mean,
              .x = wn_ledger_row(g, lane, i) + w->place, .near = reach(s, w->query) };
    r.hits = s->kind == WN_STAT_GAP ? wn_ledger_row(g, lane, i + 1) + w->place : r.x;
    return r;
}

/* Of ascending indices, how many lie below `end`. */
static int below(const int16_t *index, int n, int end)
{
    int lo = 0, hi = n;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (index[mid] < end) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* Entry i has number place + i. */
static void add_neighbours(const wn_ledger *g, int lane, const wn_weights *w)
{
    int age = w->query - w->base, n = w->n;             /* of index 0 */
    while (n && w->index[n - 1] > age) n--;
    if (!n) return;
    if (w->index[n - 1] == age) begin(g, lane, w->place + n - 1, w->query);     /* its own slot */
    for (int i = 0; i < g->n_stats; i++) {
        row r = row_of(g, lane, i, w);
        int from = r.near > age ? 0 : below(w->index, n, age - r.near + 1);
        step(r.stat, r.x + from, r.hits + from, r.weights + from, n - from, w);
    }
}

/* Does the query see every entry? Ranks are all numbers of the split then. */
static bool sees_all(const wn_weights *w)
{
    int age = w->query - w->base, most = 0;
    for (int k = age >= SLOTS ? w->n : 0; k < w->n; k++) most = WN_MAX(most, w->index[k]);
    return most <= age;
}

void wn_ledger_add(const wn_ledger *g, int lane, const wn_weights *w)
{
    float x[SLOTS], last[SLOTS], a[SLOTS];
    int16_t at[SLOTS];
    WN_ASSERT(w->n > 0 && w->n <= SLOTS);
    if (!w->rank) {
        add_neighbours(g, lane, w);
        return;
    }
    int age = w->query - w->base;       /* of index 0 */
    bool whole = g->lanes && sees_all(w);
    for (int k = age >= SLOTS ? w->n : 0; k < w->n; k++)        /* its own slot */
        if (w->index[k] == age) begin(g, lane, w->place + w->rank[k], w->query);
    for (int i = 0; i < g->n_stats; i++) {
        row r = row_of(g, lane, i, w);
        int n = 0;
        if (whole && r.near > age) {    /* weights in the order of numbers, and all at once */
            for (int k = 0; k < w->n; k++) a[w->rank[k]] = r.weights[k];
            step(r.stat, r.x, r.hits, a, w->n, w);
            continue;
        }
        for (int k = 0; k < w->n; k++) {
            if (age < w->index[k] || age - w->index[k] >= r.near) continue;
            at[n] = w->rank[k];
            x[n] = r.x[at[n]];
            last[n] = r.hits[at[n]];
            a[n++] = r.weights[k];
        }
        step(r.stat, x, last, a, n, w);
        for (int k = 0; k < n; k++) r.x[at[k]] = x[k];
    }
}
