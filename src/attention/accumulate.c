/* attention/accumulate.c - see accumulate.h.
 *
 * Each statistic is a loop over neighbouring numbers. Where slots have been dropped the
 * numbers are gathered first and put back behind. */
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
static void begin(const wn_ledger *g, int lane, int32_t pos)
{
    for (int i = 0; i < g->n_stats; i++)
        wn_ledger_row(g, lane, i)[pos] = g->stats[i].kind == WN_STAT_LAST ? (float)pos : 0;
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

void wn_ledger_add(const wn_ledger *g, int lane, const wn_weights *w)
{
    float x[SLOTS], last[SLOTS], a[SLOTS];
    int16_t at[SLOTS];
    WN_ASSERT(w->n > 0 && w->n <= SLOTS);
    /* its own slot */
    for (int k = w->query - w->base >= SLOTS ? w->n : w->dense ? w->n - 1 : 0; k < w->n; k++)
        if (w->base + w->index[k] == w->query) begin(g, lane, w->query);
    for (int i = 0; i < g->n_stats; i++) {
        const wn_stat *s = &g->stats[i];
        const float *weights = s->reduce == WN_REDUCE_MAX ? w->max : w->mean;
        float *row = wn_ledger_row(g, lane, i) + w->base;
        const float *hits = s->kind == WN_STAT_GAP ? wn_ledger_row(g, lane, i + 1) + w->base : row;
        int near = reach(s, w->query), age = w->query - w->base, n = 0;     /* of index 0 */
        if (w->dense) {
            int from = WN_MAX(0, age - w->index[0] - near + 1), first = w->index[0] + from;
            step(s, row + first, hits + first, weights + from, w->n - from, w);
            continue;
        }
        /* what nearly all ask for: in place */
        if (s->kind == WN_STAT_SUM && near == INT32_MAX) {
            float decay = decay_of(s), scale = scale_of(s, w);
            for (int k = 0; k < w->n; k++)
                if (w->index[k] <= age)
                    row[w->index[k]] = decay * row[w->index[k]] + scale * weights[k];
            continue;
        }
        for (int k = 0; k < w->n; k++) {
            if (age < w->index[k] || age - w->index[k] >= near) continue;
            at[n] = w->index[k];
            x[n] = row[at[n]];
            last[n] = hits[at[n]];
            a[n++] = weights[k];
        }
        step(s, x, last, a, n, w);
        for (int k = 0; k < n; k++) row[at[k]] = x[k];
    }
}
