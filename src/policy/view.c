/* policy/view.c - what recipes may ask of a view; see winnow_policy.h. */
#include "policy/view.h"

#include "base/err.h"

int32_t wn_view_n_tokens(const wn_view *v) { return v->n_tokens; }
int32_t wn_view_mark(const wn_view *v) { return v->mark; }
int32_t wn_view_n_layers(const wn_view *v) { return v->n_layers; }
int32_t wn_view_n_lanes(const wn_view *v) { return v->n_lanes; }
int64_t wn_view_budget(const wn_view *v) { return v->budget; }

const wn_view_lane *wn_view_get_lane(const wn_view *v, int lane)
{
    WN_ASSERT(lane >= 0 && lane < v->n_lanes);
    return &v->lanes[lane];
}

void wn_view_layer(const wn_view *v, int layer, int *from, int *to)
{
    WN_ASSERT(layer >= 0 && layer < v->n_layers);
    *from = v->layer_first[layer];
    *to = v->layer_first[layer + 1];
}

bool wn_view_protects(const wn_view *v, int32_t pos)
{
    return v->protect && (v->protect[pos >> 6] >> (pos & 63) & 1);
}

static void note(const wn_view *v, unsigned what)
{
    if (v->asked) *v->asked |= what;
}

unsigned wn_view_flags(const wn_view *v, int32_t pos)
{
    note(v, WN_ASKED_FLAGS);
    return v->flags ? v->flags[pos] : 0;
}

int32_t wn_view_span(const wn_view *v, int32_t pos)
{
    note(v, WN_ASKED_SPANS);
    return v->spans ? v->spans[pos] : 0;
}

static const float *rows(const wn_view *v, int lane, bool values)
{
    WN_ASSERT(lane >= 0 && lane < v->n_lanes && v->load);
    note(v, values ? WN_ASKED_VALUES : WN_ASKED_KEYS);
    v->load(v->ctx, lane, values, v->rows[values]);
    return v->rows[values];
}

const float *wn_view_keys(const wn_view *v, int lane) { return rows(v, lane, false); }
const float *wn_view_values(const wn_view *v, int lane) { return rows(v, lane, true); }

bool wn_view_load_keys(const wn_view *v, int lane, const int32_t *slots, int n, float *out)
{
    WN_ASSERT(lane >= 0 && lane < v->n_lanes);
    if (!v->load_keys) return false;
    note(v, WN_ASKED_KEYS);
    v->load_keys(v->ctx, lane, slots, n, out);
    return true;
}

bool wn_view_unit_keys(const wn_view *v, int lane, float *room, wn_view_cols_fn *each, void *ctx)
{
    WN_ASSERT(lane >= 0 && lane < v->n_lanes);
    if (!v->unit_keys) return false;
    note(v, WN_ASKED_KEYS);
    v->unit_keys(v->ctx, lane, room, each, ctx);
    return true;
}

const float *wn_view_window(const wn_view *v, int lane, int *w)
{
    WN_ASSERT(lane >= 0 && lane < v->n_lanes && v->sums);
    note(v, WN_ASKED_SUMS);
    *w = v->window;
    return v->sums[lane];
}

const float *wn_view_queries(const wn_view *v, int lane, int *w)
{
    WN_ASSERT(lane >= 0 && lane < v->n_lanes && v->load_queries);
    note(v, WN_ASKED_QUERIES);
    *w = v->window;
    v->load_queries(v->ctx, lane, v->window, v->queries);
    return v->queries;
}

const float *wn_view_stat(const wn_view *v, int lane, int i)
{
    WN_ASSERT(lane >= 0 && lane < v->n_lanes && i >= 0 && i < v->n_stats && v->load_stat);
    note(v, WN_ASKED_STATS);
    v->load_stat(v->ctx, lane, i, v->stat_rows[i]);
    return v->stat_rows[i];
}

const float *wn_view_mass(const wn_view *v, int lane)
{
    return wn_view_stat(v, lane,
                        wn_stat_find(v->stats, v->n_stats, &(wn_stat){ .kind = WN_STAT_SUM }));
}

bool wn_stat_same(const wn_stat *a, const wn_stat *b)
{
    return a->kind == b->kind && a->reduce == b->reduce && a->decay == b->decay &&
           a->threshold == b->threshold && a->even == b->even && a->near == b->near &&
           a->within == b->within && a->probe == b->probe;
}

int wn_stat_find(const wn_stat *list, int n, const wn_stat *s)
{
    for (int i = 0; i < n; i++)
        if (wn_stat_same(&list[i], s)) return i;
    return -1;
}

const float *wn_view_outputs(const wn_view *v, int lane)
{
    WN_ASSERT(lane >= 0 && lane < v->n_lanes && v->load_outputs);
    note(v, WN_ASKED_OUTPUTS);
    return v->load_outputs(v->ctx, v, lane, v->outputs) ? v->outputs : NULL;
}

const wn_head_scores *wn_view_profile_lane(const wn_view *v, int lane)
{
    WN_ASSERT(lane >= 0 && lane < v->n_lanes && v->profile);
    return &v->profile->lanes[lane];
}

const wn_head_scores *wn_view_profile_heads(const wn_view *v, int lane)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    WN_ASSERT(v->profile);
    return &v->profile->heads[(size_t)l->layer * (size_t)v->profile->n_heads +
                              (size_t)(l->head * l->group)];
}

double wn_view_profile_loss(const wn_view *v, int layer)
{
    WN_ASSERT(layer >= 0 && layer < v->n_layers && v->profile);
    return v->profile->layer_loss[layer];
}

double wn_view_profile_weight(const wn_view *v, int layer)
{
    WN_ASSERT(layer >= 0 && layer < v->n_layers && v->layers);
    return v->layers->weight[layer];
}

void wn_view_turn(const wn_view *v, int lane, float *row, int from, int to)
{
    WN_ASSERT(lane >= 0 && lane < v->n_lanes);
    if (v->turn) v->turn(v->ctx, lane, row, from, to);
}

void *wn_view_scratch(const wn_view *v, size_t bytes)
{
    wn_arena *a = v->scratch;
    if (!a || wn_arena_cost(bytes) > a->size - a->used) {
        ((wn_view *)(uintptr_t)v)->lacking = true;      /* wn_policy_decide() owns it and asks */
        return NULL;
    }
    return wn_arena_take(a, bytes);
}
