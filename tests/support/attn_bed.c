/* tests/support/attn_bed.c - see attn_bed.h. */
#include "tests/unit/check.h"
#include "tests/support/attn_bed.h"

#include <math.h>

void bed_rows(const bed *b, int pos, float *q, float *k, float *v)
{
    const wn_attend_shape *s = &b->shape;
    uint64_t seed = b->seed * 1000003u + (uint64_t)pos;
    float size = b->k_size > 0 ? b->k_size : 1;
    for (int i = 0; i < s->n_heads * s->k_dim; i++) q[i] = test_randf(&seed) * 2;
    for (int i = 0; i < s->n_kv_heads * s->k_dim; i++) k[i] = test_randf(&seed) * 2 * size;
    for (int i = 0; i < s->n_kv_heads * s->v_dim; i++) v[i] = test_randf(&seed);
    if (b->spoil) b->spoil(b->ctx, pos, q, k, v);
}

/* ---- the engine's way --------------------------------------------------------------- */

typedef struct {
    wn_lane lanes[64];
    int first[17];
    wn_lane_map map;
    wn_kv_opts opts;
} geometry;

static void make_geometry(geometry *g, const bed *b, wn_pool *pool)
{
    int layers = b->layers ? b->layers : 1, n = 0;
    for (int l = 0; l < layers; l++) {
        g->first[l] = n;
        for (int h = 0; h < b->shape.n_kv_heads; h++)
            g->lanes[n++] = (wn_lane){ .layer = (int16_t)l, .head = (int16_t)h,
                                       .k_dim = (int16_t)b->shape.k_dim,
                                       .v_dim = (int16_t)b->shape.v_dim, .window = b->window };
    }
    g->first[layers] = n;
    g->map = (wn_lane_map){ .n_lanes = n, .n_layers = layers, .lanes = g->lanes,
                            .first = g->first };
    const wn_format *raw = b->format ? b->format : &wn_format_f32,
                    *sealed = b->sealed ? b->sealed : raw;
    g->opts = (wn_kv_opts){
        .pool = pool, .map = &g->map, .k_format = sealed, .v_format = sealed, .raw_format = raw,
        .page_slots = b->page_slots, .max_positions = b->n, .ring_rows = b->ring,
        .q_dim = b->shape.n_heads * b->shape.k_dim,
    };
}

typedef struct {
    const bed *b;
    float *q, *k, *v, *out;
    int rows;
} buffers;

static void fill(buffers *x, int row, uint64_t seed, bool mine, int pos, int n)
{
    const wn_attend_shape *s = &x->b->shape;
    bed t = *x->b;
    t.seed = seed;
    if (mine == t.spoil_noise) t.spoil = NULL;
    for (int r = 0; r < n; r++)
        bed_rows(&t, pos + r, x->q + (row + r) * s->n_heads * s->k_dim,
                 x->k + (row + r) * s->n_kv_heads * s->k_dim,
                 x->v + (row + r) * s->n_kv_heads * s->v_dim);
}

static wn_attend_args args_of(const buffers *x, int layer)
{
    const wn_attend_shape *s = &x->b->shape;
    return (wn_attend_args){
        .layer = layer, .rope = x->b->rope, .window = x->b->window, .sinks = x->b->sinks, .q = x->q,
        .k = x->k, .v = x->v, .q_stride = (size_t)(s->n_heads * s->k_dim),
        .k_stride = (size_t)(s->n_kv_heads * s->k_dim),
        .v_stride = (size_t)(s->n_kv_heads * s->v_dim), .out = x->out,
        .out_stride = (size_t)(s->n_heads * s->v_dim),
    };
}

enum { NOISE_MAX = 4, NOISE_ROWS = 40 };

float *bed_run(const bed *b)
{
    const wn_attend_shape *s = &b->shape;
    int all[2] = { b->n, 0 }, layers = b->layers ? b->layers : 1, at = 0;
    const int *chunks = b->chunks ? b->chunks : all, *next = chunks;
    size_t out_dim = (size_t)(s->n_heads * s->v_dim);
    int max_rows = b->n + NOISE_MAX * NOISE_ROWS;
    buffers x = { .b = b };
    x.q = malloc((size_t)(max_rows * s->n_heads * s->k_dim) * 4);
    x.k = malloc((size_t)(max_rows * s->n_kv_heads * s->k_dim) * 4);
    x.v = malloc((size_t)(max_rows * s->n_kv_heads * s->v_dim) * 4);
    x.out = malloc((size_t)max_rows * out_dim * 4);
    float *result = malloc((size_t)b->n * out_dim * 4);
    wn_pool *pool;
    wn_threads *team = NULL;
    wn_arena arena;
    wn_err err;
    geometry g;
    wn_kv *kvs[1 + NOISE_MAX];
    assert_int_equal(wn_pool_open(&pool, &(wn_pool_opts){ .bytes = (size_t)256 << 20 }, &err),
                     WN_OK);
    make_geometry(&g, b, pool);
    for (int i = 0; i <= b->noise; i++)
        if (wn_kv_open(&kvs[i], &g.opts, &err)) fail_msg("%s", err.text);
    if (b->threads > 1) assert_int_equal(wn_threads_open(&team, b->threads, &err), WN_OK);
    size_t bytes = wn_attend_scratch_bytes(s, max_rows, 1 + NOISE_MAX, b->n,
                                           b->threads ? b->threads : 1);
    if (b->ledger) bytes += wn_attend_ledger_bytes(s, max_rows, b->threads ? b->threads : 1);
    assert_int_equal(wn_arena_init(&arena, bytes, false, &err), WN_OK);
    while (at < b->n) {
        int n = WN_MIN(*next, b->n - at), rows = 0, n_items = 0;
        wn_attend_item items[1 + NOISE_MAX];
        if (!*++next) next = chunks;
        if (b->decide) b->decide(b->ctx, kvs[0], at);
        for (int i = 0; i <= b->noise; i++) {           /* neighbours stand around our rows */
            int mine = i == b->noise / 2, pos, len;
            wn_kv *kv = kvs[mine ? 0 : i < b->noise / 2 ? i + 1 : i];
            pos = wn_kv_n(kv);
            len = mine ? n : WN_MIN(i % 2 ? 1 : NOISE_ROWS, b->n - pos);
            if (len == 0) continue;
            if (wn_kv_reserve(kv, len, &err)) fail_msg("%s", err.text);
            items[n_items++] = (wn_attend_item){ .kv = kv, .pos = pos, .row = rows, .n_rows = len,
                                                 .ledger = mine ? b->ledger : NULL };
            rows += len;
        }
        wn_mark m = wn_arena_mark(&arena);
        wn_attend_pass *pass = wn_attend_begin(s, items, n_items, &arena, team, b->obs);
        for (int l = 0; l < layers; l++) {
            for (int i = 0; i < n_items; i++) {
                bool mine = items[i].kv == kvs[0];
                fill(&x, items[i].row, b->seed + (uint64_t)l + (mine ? 0 : 77), mine, items[i].pos,
                     items[i].n_rows);
            }
            wn_attend_args a = args_of(&x, l);
            wn_attend(pass, &a);
        }
        for (int i = 0; i < n_items; i++) {
            if (items[i].kv == kvs[0])
                memcpy(result + (size_t)at * out_dim, x.out + (size_t)items[i].row * out_dim,
                       (size_t)n * out_dim * 4);
            wn_kv_commit(items[i].kv, items[i].n_rows);
        }
        wn_arena_rewind(&arena, m);
        at += n;
    }
    wn_arena_release(&arena);
    wn_threads_close(team);
    for (int i = 0; i <= b->noise; i++) wn_kv_close(kvs[i]);
    wn_pool_close(pool);
    free(x.q), free(x.k), free(x.v), free(x.out);
    return result;
}

/* ---- the definition ----------------------------------------------------------------- */

static void turn(const wn_rope *r, int pos, const float *x, double *out, int dim)
{
    for (int i = 0; i < dim; i++) out[i] = (double)x[i];
    if (!r) return;
    for (int j = 0; j < r->n_dims / 2; j++) {
        int i0 = r->neox ? j : 2 * j, i1 = r->neox ? j + r->n_dims / 2 : 2 * j + 1;
        double length = r->length > 0 ? r->length : 1, a = (double)x[i0], b = (double)x[i1];
        double c = length * cos(r->rate[j] * pos), s = length * sin(r->rate[j] * pos);
        out[i0] = a * c - b * s;
        out[i1] = a * s + b * c;
    }
}

float *bed_reference(const bed *b, const bed_rules *rules)
{
    const wn_attend_shape *s = &b->shape;
    bed last = *b;
    last.seed += (uint64_t)((b->layers ? b->layers : 1) - 1);
    int qd = s->n_heads * s->k_dim, kd = s->n_kv_heads * s->k_dim, vd = s->n_kv_heads * s->v_dim;
    int od = s->n_heads * s->v_dim, group = s->n_heads / s->n_kv_heads;
    float *q = malloc((size_t)(b->n * qd) * 4), *k = malloc((size_t)(b->n * kd) * 4),
          *v = malloc((size_t)(b->n * vd) * 4);
    double *kr = malloc((size_t)(b->n * kd) * 8), *logit = malloc((size_t)b->n * 8),
           *qr = malloc((size_t)s->k_dim * 8);
    float *out = malloc((size_t)(b->n * od) * 4);
    for (int p = 0; p < b->n; p++) {
        bed_rows(&last, p, q + p * qd, k + p * kd, v + p * vd);
        for (int h = 0; h < s->n_kv_heads; h++)
            turn(b->rope, p, k + p * kd + h * s->k_dim, kr + p * kd + h * s->k_dim, s->k_dim);
    }
    for (int p = 0; p < b->n; p++)
        for (int h = 0; h < s->n_heads; h++) {
            int lane = h / group, from = b->window > 0 && p >= b->window ? p - b->window + 1 : 0,
                at_shift = INT32_MIN;
            double max = -INFINITY, sum = 0;
            for (int t = from; t <= p; t++) {
                int shift = rules && rules->shift ? rules->shift(rules->ctx, lane, t) : 0;
                logit[t] = -INFINITY;
                if (rules && rules->sees && !rules->sees(rules->ctx, lane, p, t)) continue;
                if (shift != at_shift)
                    turn(b->rope, p - shift, q + p * qd + h * s->k_dim, qr, s->k_dim);
                at_shift = shift;
                double x = 0;
                for (int d = 0; d < s->k_dim; d++) x += qr[d] * kr[t * kd + lane * s->k_dim + d];
                x *= (double)s->scale;
                if (s->softcap > 0) x = (double)s->softcap * tanh(x / (double)s->softcap);
                if (rules && rules->bias) x += rules->bias(rules->ctx, lane, t);
                logit[t] = x;
                max = fmax(max, x);
            }
            if (b->sinks) {             /* one more term, of a value of zeros */
                max = fmax(max, (double)b->sinks[h]);
                sum = exp((double)b->sinks[h] - max);
            }
            for (int t = from; t <= p; t++) sum += logit[t] = exp(logit[t] - max);
            for (int d = 0; d < s->v_dim; d++) {
                double y = 0;
                for (int t = from; t <= p; t++)
                    y += logit[t] * (double)v[t * vd + lane * s->v_dim + d];
                out[p * od + h * s->v_dim + d] = (float)(y / sum);
            }
        }
    free(q), free(k), free(v), free(kr), free(logit), free(qr);
    return out;
}

double bed_difference(const bed *b, const float *x, const float *y)
{
    double worst = 0;
    for (int i = 0; i < b->n * b->shape.n_heads * b->shape.v_dim; i++) {
        double d = fabs((double)x[i] - (double)y[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}
