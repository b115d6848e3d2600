/* engine/step.c - one ragged batch from waiting tokens to logits; see engine.h for the
 * order in which sequences get rows. */
#include "engine/engine.h"

#include <string.h>

static int n_pending(const wn_seq *s) { return s->n_fed - wn_kv_n(s->kv); }

/* The first position whose logits are still to be had: what is computed again after a
 * truncation or parking was reported before. */
static int first_out(const wn_seq *s)
{
    int last = s->n_logits == s->n_fed ? s->n_fed : s->n_fed - 1;
    return s->opts.on_logits ? WN_MIN(s->n_reported, last) : last;
}

/* Statistics of all queries account for every row's weights: on what was live, and on the rows of
 * the pass up to its own. */
void wn_seq_count_observed(wn_seq *s, const wn_kv *kv, int n)
{
    const wn_lane_map *map = wn_kv_map(kv);
    uint64_t rows = (uint64_t)n;
    for (int l = 0; l < map->n_lanes; l++) {
        if (map->lanes[l].window) continue;
        int layer = map->lanes[l].layer;
        uint64_t group = (uint64_t)(s->e->m->hp.n_heads /
                                    (map->first[layer + 1] - map->first[layer]));
        s->observed += group * (rows * wn_kv_live(kv, l) + rows * (rows + 1) / 2);
    }
}

/* Are the logits behind position p wanted, by the caller or by a probe? */
static bool is_out(const wn_seq *s, int p, int first)
{
    return p >= first || wn_seq_foresees(s, p + 1);
}

/* Rows this sequence may put into a batch with `room` rows left and `out_room` logits rows. */
static int chunk_rows(const wn_seq *s, int room, int out_room)
{
    int p = wn_kv_n(s->kv), n = WN_MIN(n_pending(s), room);
    n = WN_MIN(n, wn_seq_next_point(s, p) - p);
    n = WN_MIN(n, s->promised - p);
    if (wn_seq_foresees(s, p + n) && p + n <= first_out(s)) return out_room ? n : n - 1;
    return WN_MIN(n, WN_MAX(first_out(s) - p, 0) + out_room);
}

static wn_status add_item(wn_engine *e, wn_seq *s, int n, int *n_items, int *n_rows, int *n_out,
                          wn_err *err)
{
    int p = wn_kv_n(s->kv), first = first_out(s);
    wn_status st = wn_kv_reserve(s->kv, n, err);
    if (st) return wn_fail_prefix(err, st, "sequence at position %d", p);
    WN_ASSERT(!s->ledger.n_stats || p + n <= s->ledger.until);
    if (s->ledger.n_stats) wn_seq_count_observed(s, s->kv, n);
    e->item_seqs[*n_items] = s;
    e->items[(*n_items)++] = (wn_attend_item){ .kv = s->kv, .pos = p, .row = *n_rows, .n_rows = n,
                                                .ledger = s->ledger.n_stats ? &s->ledger : NULL };
    for (int i = 0; i < n; i++) {
        e->tokens[*n_rows] = s->tokens[p + i];
        if (is_out(s, p + i, first)) e->out_rows[(*n_out)++] = *n_rows;
        (*n_rows)++;
    }
    return WN_OK;
}

/* What a sequence holds changes where a page begins and where something was decided. */
static void note_peak(wn_seq *s, const wn_attend_item *it)
{
    int P = wn_kv_page_slots(s->kv);
    wn_kv_stats ks;
    if (!s->stats_due && (it->pos + P - 1) / P == (it->pos + it->n_rows + P - 1) / P) return;
    wn_kv_get_stats(s->kv, &ks);
    s->bytes_peak = WN_MAX(s->bytes_peak, ks.bytes + wn_ledger_bytes(&s->ledger, s->kv));
    s->stats_due = false;
}

/* Hands the logits of a batch to its sequences and makes its rows part of their texts. */
static void settle(wn_engine *e, int n_items, int n_out)
{
    size_t n_vocab = (size_t)e->m->hp.n_vocab;
    int out = 0;
    for (int i = 0; i < n_items; i++) {
        wn_seq *s = e->item_seqs[i];
        const wn_attend_item *it = &e->items[i];
        wn_kv_commit(s->kv, it->n_rows);
        for (; out < n_out && e->out_rows[out] < it->row + it->n_rows; out++) {
            const float *logits = e->logits + (size_t)out * n_vocab;
            int pos = it->pos + e->out_rows[out] - it->row;
            if (pos + 1 == it->pos + it->n_rows) wn_seq_note_next(s, pos + 1, logits);
            if (s->opts.on_logits && pos >= s->n_reported) {
                s->opts.on_logits(s->opts.on_logits_ctx, pos, logits);
                s->n_reported = pos + 1;
            }
            if (pos + 1 == s->n_fed) {
                memcpy(s->logits, logits, n_vocab * sizeof(float));
                s->n_logits = s->n_fed;
            }
        }
        note_peak(s, it);
    }
}

wn_status wn_engine_step(wn_engine *e, int *n_rows_out, wn_err *err)
{
    int n_items = 0, n_rows = 0, n_out = 0;
    wn_status st;
    if (n_rows_out) *n_rows_out = 0;
    wn_engine_share_room(e);
    for (int prompts = 0; prompts < 2; prompts++)
        for (int i = 0; i < e->n_seqs; i++) {
            wn_seq *s = e->seqs[i];
            if (n_pending(s) == 0 || (n_pending(s) > 1) != (prompts == 1)) continue;
            if (n_rows == e->n_batch || s->promised <= wn_kv_n(s->kv)) continue;
            if ((st = wn_seq_decide(s, err))) return st;
            int n = chunk_rows(s, e->n_batch - n_rows, e->max_out - n_out);
            if (n > 0 && (st = add_item(e, s, n, &n_items, &n_rows, &n_out, err))) return st;
        }
    if (!n_rows) return wn_engine_check_stuck(e, err);

    wn_mark mark = wn_arena_mark(&e->scratch);
    wn_pass p = {
        .n_rows = n_rows, .n_ctx = e->n_ctx, .tokens = e->tokens, .items = e->items,
        .n_items = n_items, .out_rows = e->out_rows, .n_out = n_out, .logits = e->logits,
        .arena = &e->scratch, .team = e->team, .observer = e->observer,
    };
    wn_pass_begin(&p, e->m);
    e->m->arch->forward(e->m, &p);
    wn_arena_rewind(&e->scratch, mark);
    settle(e, n_items, n_out);
    if (n_rows_out) *n_rows_out = n_rows;
    return WN_OK;
}
