/* policy/trace.c - writing a trace; see trace.h, and docs/trace-format.md for the bytes.
 *
 * A record says its length before its content, and with rows it can be larger than memory.
 * So it is written twice: once to be counted, where nothing is loaded, and once to the file
 * and its checksum. Everything is in units of 4 bytes; the reader then takes arrays from the
 * file as they lie there.
 */
#include "policy/trace.h"
#include "base/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "arrays are written as they lie in memory");

struct wn_trace_writer {
    FILE *f;
    char *path;
    int32_t n_lanes, n_stats;
    bool rows, counting, failed;
    uint64_t n;                         /* bytes of the record so far */
    XXH3_state_t *sum;
    float *queries;                     /* room for the held queries of a lane */
};

/* ---- bytes -------------------------------------------------------------------------------- */

static void put(wn_trace_writer *w, const void *data, size_t n)
{
    w->n += n;
    if (w->counting || !n) return;
    XXH3_64bits_update(w->sum, data, n);
    if (fwrite(data, 1, n, w->f) != n) w->failed = true;
}

static void put_u32(wn_trace_writer *w, uint32_t v) { put(w, &v, sizeof v); }
static void put_u64(wn_trace_writer *w, uint64_t v) { put(w, &v, sizeof v); }
static void put_f32(wn_trace_writer *w, float v) { put(w, &v, sizeof v); }
static void put_f64(wn_trace_writer *w, double v) { put(w, &v, sizeof v); }

/* The checksum of what was put since the last one, the sum itself in none. */
static void put_sum(wn_trace_writer *w)
{
    uint64_t h = XXH3_64bits_digest(w->sum);
    put_u64(w, h);
    XXH3_64bits_reset(w->sum);
}

static void put_text(wn_trace_writer *w, const char *s)
{
    static const char zeros[4];
    size_t n = strlen(s);
    put(w, s, n);
    put(w, zeros, (4 - n % 4) % 4);
}

/* One bit for each of n, 32 to a word. */
typedef bool bit_of(const void *ctx, int i);
static void put_bits(wn_trace_writer *w, int n, bit_of *bit, const void *ctx)
{
    for (int i = 0; i < n; i += 32) {
        uint32_t word = 0;
        for (int j = i; j < n && j < i + 32 && !w->counting; j++)
            word |= (uint32_t)bit(ctx, j) << (j - i);
        put_u32(w, word);
    }
}

/* ---- a decision ----------------------------------------------------------------------------- */

typedef struct {
    const wn_view *v;
    const wn_plan *plan;
    double slot_bytes;
    unsigned has;
    int n_queries;
} decision;

static void put_positions(wn_trace_writer *w, const wn_view_lane *l, int32_t p, bool bitmap,
                          int n_runs)
{
    if (!bitmap) put_u32(w, (uint32_t)n_runs);
    for (int i = 0, k; !bitmap && i < l->n; i = k) {
        for (k = i + 1; k < l->n && l->pos[k] == l->pos[k - 1] + 1; k++) {}
        put_u32(w, (uint32_t)l->pos[i]);
        put_u32(w, (uint32_t)(k - i));
    }
    for (int32_t at = 0, i = 0; bitmap && at < p; at += 32) {
        uint32_t word = 0;
        for (; i < l->n && l->pos[i] < at + 32; i++) word |= 1u << (l->pos[i] - at);
        put_u32(w, word);
    }
}

/* What was seen of a lane that has slots. Rows are loaded when they are written, not counted. */
static void put_seen(wn_trace_writer *w, const decision *d, int lane)
{
    const wn_view *v = d->v;
    const wn_view_lane *l = &v->lanes[lane];
    size_t n = (size_t)l->n, group = (size_t)l->group, kd = (size_t)l->k_dim, vd = (size_t)l->v_dim;
    if (d->has & WN_TRACE_SUMS) put(w, v->sums[lane], sizeof(float) * group * n);
    for (int i = 0; d->has & WN_TRACE_STATS && i < v->n_stats; i++) {
        if (!w->counting) v->load_stat(v->ctx, lane, i, v->stat_rows[i]);
        put(w, v->stat_rows[i], sizeof(float) * n);
    }
    if (d->has & WN_TRACE_QUERIES) {
        if (!w->counting) v->load_queries(v->ctx, lane, d->n_queries, w->queries);
        put(w, w->queries, sizeof(float) * (size_t)d->n_queries * group * kd);
    }
    for (int values = 0; values < 2; values++) {
        if (!(d->has & (values ? WN_TRACE_VALUES : WN_TRACE_KEYS))) continue;
        if (!w->counting) v->load(v->ctx, lane, values, v->rows[values]);
        put(w, v->rows[values], sizeof(float) * n * (values ? vd : kd));
    }
    if (!(d->has & WN_TRACE_OUTPUTS)) return;
    if (!w->counting && !v->load_outputs(v->ctx, v, lane, v->outputs)) w->failed = true;
    put(w, v->outputs, sizeof(float) * n);
}

typedef struct { const wn_plan *plan; const int32_t *pos; int lane; } mask_bits;
static bool stays(const void *ctx, int i)
{
    const mask_bits *m = ctx;
    return wn_plan_keeps(m->plan, m->lane, m->pos[i]);
}

static bool moves(const void *ctx, int i)
{
    const mask_bits *m = ctx;
    return wn_plan_demotes(m->plan, m->lane, m->pos[i]);
}

static bool is_low(const void *ctx, int i) { return ((const bool *)ctx)[i]; }

static int chain_length(const wn_plan *p, int lane, int kind)
{
    int n = 0;
    for (int32_t i = wn_plan_first(p, lane, kind); i >= 0; n++)
        i = kind == WN_PLAN_MERGES   ? p->merges[i].next
            : kind == WN_PLAN_BIASES ? p->biases[i].next
                                     : p->shifts[i].next;
    return n;
}

static void put_plan(wn_trace_writer *w, const wn_plan *p, const wn_view_lane *l, int lane,
                     uint32_t what)
{
    if (what & WN_LANE_MASK) put_bits(w, l->n, stays, &(mask_bits){ p, l->pos, lane });
    if (what & WN_LANE_DEMOTE) put_bits(w, l->n, moves, &(mask_bits){ p, l->pos, lane });
    if (what & WN_LANE_MERGES) put_u32(w, (uint32_t)chain_length(p, lane, WN_PLAN_MERGES));
    for (int32_t i = wn_plan_first(p, lane, WN_PLAN_MERGES); i >= 0; i = p->merges[i].next) {
        const wn_plan_merge *m = &p->merges[i];
        put_u32(w, (uint32_t)m->at);
        put_u32(w, (uint32_t)m->n_src);
        put_f32(w, m->bias);
        put_u32(w, (uint32_t)m->count);
        put(w, p->src + m->first_src, 4 * (size_t)m->n_src);
        put(w, p->wk + m->first_src, 4 * (size_t)m->n_src);
        put(w, p->wv + m->first_src, 4 * (size_t)m->n_src);
    }
    if (what & WN_LANE_SET_BIASES) put_u32(w, (uint32_t)chain_length(p, lane, WN_PLAN_BIASES));
    for (int32_t i = wn_plan_first(p, lane, WN_PLAN_BIASES); i >= 0; i = p->biases[i].next) {
        put_u32(w, (uint32_t)p->biases[i].at);
        put_f32(w, p->biases[i].bias);
    }
    if (what & WN_LANE_SHIFTS) put_u32(w, (uint32_t)chain_length(p, lane, WN_PLAN_SHIFTS));
    for (int32_t i = wn_plan_first(p, lane, WN_PLAN_SHIFTS); i >= 0; i = p->shifts[i].next) {
        put_u32(w, (uint32_t)p->shifts[i].from);
        put_u32(w, (uint32_t)p->shifts[i].to);
        put_u32(w, (uint32_t)p->shifts[i].delta);
    }
}

static void put_lane(wn_trace_writer *w, const decision *d, int lane)
{
    const wn_view *v = d->v;
    const wn_plan *p = d->plan;
    const wn_view_lane *l = &v->lanes[lane];
    const wn_verdict *said = v->verdicts && v->verdicts[lane].score ? &v->verdicts[lane] : NULL;
    int n_runs = 0;
    for (int i = 0; i < l->n; i++) n_runs += !i || l->pos[i] != l->pos[i - 1] + 1;
    bool bitmap = 4 + 8 * (int64_t)n_runs > 4 * (((int64_t)v->n_tokens + 31) / 32);
    uint32_t what = (l->count ? WN_LANE_COUNTS : 0u) | (l->bias ? WN_LANE_BIASES : 0u) |
                    (bitmap ? WN_LANE_BITMAP : 0u) | (said ? WN_LANE_SCORED : 0u) |
                    (p->keep && p->keep[lane] ? WN_LANE_MASK : 0u) |
                    (wn_plan_first(p, lane, WN_PLAN_MERGES) >= 0 ? WN_LANE_MERGES : 0u) |
                    (wn_plan_first(p, lane, WN_PLAN_BIASES) >= 0 ? WN_LANE_SET_BIASES : 0u) |
                    (wn_plan_first(p, lane, WN_PLAN_SHIFTS) >= 0 ? WN_LANE_SHIFTS : 0u) |
                    (l->low ? WN_LANE_LOW : 0u) | (p->low && p->low[lane] ? WN_LANE_DEMOTE : 0u);
    put_u32(w, what);
    put_u32(w, (uint32_t)l->n);
    put_positions(w, l, v->n_tokens, bitmap, n_runs);
    if (l->count) put(w, l->count, 4 * (size_t)l->n);
    if (l->bias) put(w, l->bias, 4 * (size_t)l->n);
    if (l->low) put_bits(w, l->n, is_low, l->low);
    if (l->n) put_seen(w, d, lane);
    if (said) {
        put_u32(w, (uint32_t)WN_MIN(said->keep, (int64_t)INT32_MAX));
        put(w, said->score, 4 * (size_t)l->n);
    }
    put_plan(w, p, l, lane, what);
}

static bool protects(const void *ctx, int i) { return wn_view_protects(ctx, i); }

typedef struct { const uint8_t *flags; unsigned flag; } flag_bits;
static bool is_flagged(const void *ctx, int i)
{
    const flag_bits *f = ctx;
    return f->flags[i] & f->flag;
}

static bool is_spanned(const void *ctx, int i) { return ((const int32_t *)ctx)[i] > 0; }

static bool begins_span(const void *ctx, int i)
{
    const int32_t *spans = ctx;
    return spans[i] > 0 && (!i || spans[i] != spans[i - 1]);
}

static void put_body(wn_trace_writer *w, const decision *d)
{
    const wn_view *v = d->v;
    put_u32(w, (uint32_t)v->n_tokens);
    put_u32(w, d->has);
    put_u32(w, v->asked ? *v->asked : 0);
    put_u32(w, (uint32_t)v->window);
    put_u32(w, (uint32_t)d->n_queries);
    put_u32(w, (uint32_t)v->mark);
    put_f64(w, d->slot_bytes);
    put_u64(w, (uint64_t)v->budget);
    if (d->has & WN_TRACE_LOW) put_f64(w, v->low_bytes);
    if (d->has & WN_TRACE_PROTECT) put_bits(w, v->n_tokens, protects, v);
    for (unsigned f = WN_FLAG_SPECIAL; d->has & WN_TRACE_FLAGS && f <= WN_FLAG_PUNCTUATION; f *= 2)
        put_bits(w, v->n_tokens, is_flagged, &(flag_bits){ v->flags, f });
    if (d->has & WN_TRACE_SPANS) {
        put_bits(w, v->n_tokens, is_spanned, v->spans);
        put_bits(w, v->n_tokens, begins_span, v->spans);
    }
    for (int l = 0; l < v->n_lanes; l++) put_lane(w, d, l);
}

wn_status wn_trace_put(wn_trace_writer *w, const wn_view *v, double slot_bytes, const wn_plan *plan,
                       wn_err *err)
{
    unsigned asked = v->asked ? *v->asked : 0;
    decision d = { .v = v, .plan = plan, .slot_bytes = slot_bytes };
    WN_ASSERT(v->n_lanes == w->n_lanes && v->n_stats == w->n_stats && plan->n_lanes == w->n_lanes);
    if (v->sums) d.has |= WN_TRACE_SUMS;
    if (v->n_stats) d.has |= WN_TRACE_STATS;
    if (v->protect) d.has |= WN_TRACE_PROTECT;
    if (v->flags) d.has |= WN_TRACE_FLAGS;
    if (v->spans) d.has |= WN_TRACE_SPANS;
    if (asked & WN_ASKED_OUTPUTS) d.has |= WN_TRACE_OUTPUTS;
    if (v->low_bytes > 0) d.has |= WN_TRACE_LOW;
    if (w->rows) d.has |= WN_TRACE_KEYS | WN_TRACE_VALUES;
    d.n_queries = !v->load_queries           ? 0
                  : w->rows                  ? v->held
                  : asked & WN_ASKED_QUERIES ? v->window
                                             : 0;
    if (d.n_queries) d.has |= WN_TRACE_QUERIES;
    for (int l = 0; v->verdicts && l < v->n_lanes; l++)
        if (v->verdicts[l].score) d.has |= WN_TRACE_SCORES;
    w->counting = true;
    w->n = 0;
    put_body(w, &d);
    uint64_t n = w->n;
    w->counting = false;
    put(w, "DCSN", 4);
    put_u32(w, 0);
    put_u64(w, n);
    put_sum(w);
    w->n = 0;
    put_body(w, &d);
    WN_ASSERT(w->n == n);
    put_sum(w);
    if (w->failed || fflush(w->f))
        return wn_fail(err, WN_EIO, "%s: cannot be written: %s", w->path, strerror(errno));
    return WN_OK;
}

/* ---- the file -------------------------------------------------------------------------------- */

static void put_head(wn_trace_writer *w, const wn_trace_head *h)
{
    size_t policy = strlen(h->policy), model = strlen(h->model);
    put(w, "WINNOWTR", 8);
    put_u32(w, WN_TRACE_VERSION);
    put_u32(w, h->rows);
    put_u32(w, (uint32_t)h->n_layers);
    put_u32(w, (uint32_t)h->n_lanes);
    put_u32(w, (uint32_t)policy);
    put_u32(w, (uint32_t)model);
    put_u32(w, (uint32_t)h->rope_dims);
    put_u32(w, h->rope_neox);
    put_u32(w, (uint32_t)h->n_stats);
    for (int l = 0; l < h->n_lanes; l++) {
        const wn_view_lane *x = &h->lanes[l];
        const int32_t fields[6] = { x->layer, x->head, x->group, x->k_dim, x->v_dim, x->still };
        put(w, fields, sizeof fields);
    }
    for (int i = 0; i < h->n_stats; i++) {
        const wn_stat *x = &h->stats[i];
        put_u32(w, (uint32_t)x->kind);
        put_u32(w, (uint32_t)x->reduce);
        put_f32(w, x->decay);
        put_f32(w, x->threshold);
        put_u32(w, (uint32_t)x->even | (uint32_t)x->probe << 1);
        put_u32(w, (uint32_t)x->near);
        put_f32(w, x->within);
    }
    for (int j = 0; j < h->rope_dims / 2; j++) put_f64(w, h->rope_rate[j]);
    put_text(w, h->policy);
    put_text(w, h->model);
    put_sum(w);
}

static void writer_free(wn_trace_writer *w)
{
    if (w->f) fclose(w->f);
    XXH3_freeState(w->sum);
    wn_free(w->queries);
    wn_free(w->path);
    wn_free(w);
}

wn_status wn_trace_create(wn_trace_writer **out, const char *path, const wn_trace_head *h,
                          wn_err *err)
{
    wn_status st = WN_ENOMEM;
    size_t width = 1;
    *out = NULL;
    wn_trace_writer *w = WN_NEW(wn_trace_writer);
    if (!w) return wn_fail(err, WN_ENOMEM, "trace %s: out of memory", path);
    for (int l = 0; l < h->n_lanes; l++)
        width = WN_MAX(width, (size_t)h->lanes[l].group * (size_t)h->lanes[l].k_dim);
    w->path = wn_strdup(path);
    w->sum = XXH3_createState();
    w->queries = wn_alloc(sizeof(float) * 64 * width);
    w->n_lanes = h->n_lanes;
    w->n_stats = h->n_stats;
    w->rows = h->rows;
    if (!w->path || !w->sum || !w->queries) {
        wn_fail(err, st, "trace %s: out of memory", path);
        goto fail;
    }
    XXH3_64bits_reset(w->sum);
    if (!(w->f = fopen(path, "wbe"))) {
        st = wn_fail(err, WN_EIO, "trace %s: cannot be created: %s", path, strerror(errno));
        goto fail;
    }
    put_head(w, h);
    if (w->failed || fflush(w->f)) {
        st = wn_fail(err, WN_EIO, "trace %s: cannot be written: %s", path, strerror(errno));
        goto fail;
    }
    *out = w;
    return WN_OK;
fail:
    writer_free(w);
    return st;
}

wn_status wn_trace_finish(wn_trace_writer *w, wn_err *err)
{
    wn_status st = WN_OK;
    if (!w) return WN_OK;
    bool bad = fclose(w->f) != 0 || w->failed;
    w->f = NULL;
    if (bad) st = wn_fail(err, WN_EIO, "trace %s: could not be written whole", w->path);
    writer_free(w);
    return st;
}
