/* model/net.c - the steps of a pass over rows; see net.h.
 *
 * Small work is done by the calling thread: handing out a job costs about as much as
 * 4000 floats through a norm, so a decode token (one row) never pays for it here.
 */
#include "model/net.h"
#include "kernel/attn.h"
#include "kernel/vec.h"

#include <string.h>

enum { HAND_OUT_FLOATS = 16384 };       /* below this a hand-out costs more than it saves */

typedef struct {
    const wn_pass *p;
    wn_net_row *row;
    const void *arg;
    int n_rows, per_part;
} row_job;

static void rows_task(void *arg, int part, int thread)
{
    const row_job *j = arg;
    int from = part * j->per_part, to = WN_MIN(from + j->per_part, j->n_rows);
    (void)thread;
    for (int r = from; r < to; r++) j->row(j->p, j->arg, r);
}

void wn_net_each_row(const wn_pass *p, int n_rows, int width, wn_net_row *fn, const void *arg)
{
    row_job j = { .p = p, .row = fn, .arg = arg, .n_rows = n_rows };
    if ((int64_t)n_rows * width <= HAND_OUT_FLOATS) {
        for (int r = 0; r < n_rows; r++) fn(p, arg, r);
        return;
    }
    j.per_part = WN_MAX(1, n_rows / (8 * wn_threads_count(p->team)));
    wn_threads_run(p->team, rows_task, &j, (n_rows + j.per_part - 1) / j.per_part);
}

/* ---- sizes ------------------------------------------------------------------- */

static size_t max_act_bytes(const wn_model *m, int rows)
{
    const wn_hparams *h = &m->hp;
    int widths[] = { h->n_embd, h->n_heads * h->v_dim, h->n_ff };
    size_t most = 0;
    for (size_t i = 0; i < WN_COUNT(widths); i++)
        for (int kind = WN_ACT_F32; kind <= WN_ACT_Q256; kind++) {
            if (kind == WN_ACT_Q256 && widths[i] % 256) continue;
            if (kind == WN_ACT_Q32 && widths[i] % 32) continue;
            size_t b = wn_act_bytes((wn_act_kind)kind, rows, widths[i]);
            most = WN_MAX(most, b);
        }
    return most;
}

size_t wn_pass_scratch_bytes(const wn_model *m, int max_rows, int max_items, int max_out,
                             int max_positions, int n_threads)
{
    const wn_hparams *h = &m->hp;
    size_t r = (size_t)max_rows;
    size_t f = sizeof(float), s = 0;
    s += 2 * wn_arena_cost(r * (size_t)h->n_embd * f);
    s += wn_arena_cost(r * (size_t)(h->n_heads * h->k_dim) * f);
    s += wn_arena_cost(r * (size_t)(h->n_kv_heads * h->k_dim) * f);
    s += wn_arena_cost(r * (size_t)(h->n_kv_heads * h->v_dim) * f);
    s += wn_arena_cost(r * (size_t)(h->n_heads * h->v_dim) * f);
    s += 2 * wn_arena_cost(r * (size_t)h->n_ff * f);
    s += wn_arena_cost(max_act_bytes(m, WN_MAX(max_rows, max_out)));
    s += wn_experts_scratch_bytes(m, max_rows);
    s += wn_arena_cost(wn_matmul_scratch_bytes(n_threads));
    s += wn_attend_scratch_bytes(&m->shape, max_rows, max_items, max_positions, n_threads);
    return s;
}

void wn_pass_begin(wn_pass *p, const wn_model *m)
{
    const wn_hparams *h = &m->hp;
    size_t r = (size_t)p->n_rows;
    p->m = m;
    p->n_active = p->n_rows;
    p->x = wn_arena_array(p->arena, float, r * (size_t)h->n_embd);
    p->h = wn_arena_array(p->arena, float, r * (size_t)h->n_embd);
    p->q = wn_arena_array(p->arena, float, r * (size_t)(h->n_heads * h->k_dim));
    p->k = wn_arena_array(p->arena, float, r * (size_t)(h->n_kv_heads * h->k_dim));
    p->v = wn_arena_array(p->arena, float, r * (size_t)(h->n_kv_heads * h->v_dim));
    p->a = wn_arena_array(p->arena, float, r * (size_t)(h->n_heads * h->v_dim));
    p->gate = wn_arena_array(p->arena, float, r * (size_t)h->n_ff);
    p->up = wn_arena_array(p->arena, float, r * (size_t)h->n_ff);
    p->act = wn_arena_take(p->arena, max_act_bytes(m, p->n_rows));
    p->mm = wn_arena_take(p->arena, wn_matmul_scratch_bytes(wn_threads_count(p->team)));
    if (h->n_experts) wn_experts_begin(p);
    p->attend = wn_attend_begin(&m->shape, p->items, p->n_items, p->arena, p->team, p->observer);
}

/* ---- steps ------------------------------------------------------------------- */

static void embed_row(const wn_pass *p, const void *arg, int r)
{
    (void)arg;
    wn_matrix_row(&p->m->embed, p->tokens[r], p->x + (size_t)r * (size_t)p->m->hp.n_embd);
}

void wn_net_embed(wn_pass *p) { wn_net_each_row(p, p->n_rows, p->m->hp.n_embd, embed_row, NULL); }

typedef struct {
    float *out;
    const float *x, *w;
    int n_heads;
} rows_arg;

static void norm_row(const wn_pass *p, const void *arg, int r)
{
    const rows_arg *a = arg;
    size_t n = (size_t)p->m->hp.n_embd, at = (size_t)r * n;
    wn_kernels_get()->vec->rms_norm(a->out + at, a->x + at, a->w, (int)n, p->m->hp.norm_eps);
}

void wn_net_norm(wn_pass *p, float *out, const float *x, const float *w)
{
    rows_arg a = { .out = out, .x = x, .w = w };
    wn_net_each_row(p, p->n_active, p->m->hp.n_embd, norm_row, &a);
}

static void head_norm_row(const wn_pass *p, const void *arg, int r)
{
    const rows_arg *a = arg;
    int d = p->m->hp.k_dim;
    float *x = a->out + (size_t)r * (size_t)(a->n_heads * d);
    for (int i = 0; i < a->n_heads; i++, x += d)
        wn_kernels_get()->vec->rms_norm(x, x, a->w, d, p->m->hp.norm_eps);
}

void wn_net_head_norm(wn_pass *p, float *x, const float *w, int n_heads)
{
    rows_arg a = { .out = x, .w = w, .n_heads = n_heads };
    wn_net_each_row(p, p->n_active, n_heads * p->m->hp.k_dim, head_norm_row, &a);
}

typedef struct { float *x; const float *w; int n; } wide_arg;

static void wide_norm_row(const wn_pass *p, const void *arg, int r)
{
    const wide_arg *a = arg;
    float *x = a->x + (size_t)r * (size_t)a->n;
    wn_kernels_get()->vec->rms_norm(x, x, a->w, a->n, p->m->hp.norm_eps);
}

void wn_net_wide_norm(wn_pass *p, float *x, const float *w, int n)
{
    wide_arg a = { x, w, n };
    wn_net_each_row(p, p->n_active, n, wide_norm_row, &a);
}

void wn_net_linear(wn_pass *p, const float *x, int n_cols, const wn_linear *l, int n)
{
    wn_product batch[4];
    bool done[4] = { false };
    WN_ASSERT(n <= 4);
    if (p->n_active == 0) return;
    for (int i = 0; i < n; i++) {       /* one job per kind of activation; usually just one */
        wn_act_kind kind = wn_act_kind_for(l[i].w->type);
        wn_act act;
        int m = 0;
        if (done[i]) continue;
        for (int j = i; j < n; j++) {
            if (done[j] || wn_act_kind_for(l[j].w->type) != kind) continue;
            batch[m++] = (wn_product){ .w = l[j].w, .out = l[j].out,
                                       .out_stride = (size_t)l[j].w->n_rows, .bias = l[j].bias };
            done[j] = true;
        }
        wn_act_prepare(&act, kind, x, p->n_active, n_cols, p->act, p->team);
        wn_matmul(batch, m, &act, p->mm, p->team);
    }
}

void wn_net_attend(wn_pass *p, int layer)
{
    const wn_hparams *h = &p->m->hp;
    wn_attend(p->attend, &(wn_attend_args){
        .layer = layer,
        .rope = wn_model_rope(p->m, layer, p->n_ctx),
        .window = p->m->layers[layer].window,
        .q = p->q, .k = p->k, .v = p->v,
        .q_stride = (size_t)(h->n_heads * h->k_dim),
        .k_stride = (size_t)(h->n_kv_heads * h->k_dim),
        .v_stride = (size_t)(h->n_kv_heads * h->v_dim),
        .sinks = p->m->layers[layer].sinks,
        .out = p->a,
        .out_stride = (size_t)(h->n_heads * h->v_dim),
    });
    if (p->observer && p->observer->answers)
        p->observer->answers(p->observer->ctx, layer, p->a, p->n_rows, h->n_heads * h->v_dim);
}

static void add_row(const wn_pass *p, const void *arg, int r)
{
    const rows_arg *a = arg;
    size_t n = (size_t)p->m->hp.n_embd, at = (size_t)r * n;
    wn_kernels_get()->vec->add(a->out + at, a->x + at, (int)n);
}

void wn_net_add(wn_pass *p, float *x, const float *y)
{
    rows_arg a = { .out = x, .x = y };
    wn_net_each_row(p, p->n_active, p->m->hp.n_embd, add_row, &a);
}

typedef struct { float *x; int n; float s; } scale_arg;

static void scale_row(const wn_pass *p, const void *arg, int r)
{
    const scale_arg *a = arg;
    (void)p;
    wn_kernels_get()->vec->scale(a->x + (size_t)r * (size_t)a->n, a->s, a->n);
}

void wn_net_scale(wn_pass *p, float *x, float s)
{
    scale_arg a = { x, p->m->hp.n_embd, s };
    wn_net_each_row(p, p->n_active, a.n, scale_row, &a);
}

typedef struct { float *gate; const float *up; int n; wn_gate kind; } gate_arg;

static void gate_row(const wn_pass *p, const void *arg, int r)
{
    const gate_arg *a = arg;
    const wn_vec_ops *vec = wn_kernels_get()->vec;
    float *gate = a->gate + (size_t)r * (size_t)a->n;
    const float *up = a->up + (size_t)r * (size_t)a->n;
    (void)p;
    switch (a->kind) {
    case WN_GATE_SILU: vec->silu_mul(gate, up, a->n); break;
    case WN_GATE_GELU: vec->gelu_mul(gate, up, a->n); break;
    case WN_GATE_CLAMPED: vec->clamped_mul(gate, up, a->n); break;
    }
}

void wn_net_gate(wn_pass *p, wn_gate kind, float *gate, const float *up, int n_rows, int n)
{
    gate_arg a = { gate, up, n, kind };
    wn_net_each_row(p, n_rows, n, gate_row, &a);
}

void wn_net_gated(wn_pass *p, const wn_layer *L, wn_gate gate)
{
    int n = p->m->hp.n_ff;
    wn_net_linear(p, p->h, p->m->hp.n_embd, (wn_linear[]){
        { &L->gate, p->gate, L->bgate }, { &L->up, p->up, L->bup } }, 2);
    wn_net_gate(p, gate, p->gate, p->up, p->n_active, n);
    wn_net_linear(p, p->gate, n, &(wn_linear){ &L->down, p->h, L->bdown }, 1);
}

void wn_net_feed_forward(wn_pass *p, const wn_layer *L)
{
    wn_net_norm(p, p->h, p->x, L->ffn_norm);
    wn_net_gated(p, L, WN_GATE_SILU);
    wn_net_add(p, p->x, p->h);
}

void wn_net_cut_outputs(wn_pass *p)
{
    size_t nx = (size_t)p->m->hp.n_embd, na = (size_t)(p->m->hp.n_heads * p->m->hp.v_dim);
    if (p->n_out == p->n_rows) return;
    for (int i = 0; i < p->n_out; i++) {        /* ascending: a row only ever moves up */
        size_t from = (size_t)p->out_rows[i], to = (size_t)i;
        if (from == to) continue;
        memcpy(p->x + to * nx, p->x + from * nx, nx * sizeof(float));
        memcpy(p->a + to * na, p->a + from * na, na * sizeof(float));
    }
    p->n_active = p->n_out;
}

void wn_net_head(wn_pass *p)
{
    if (p->n_active == 0) return;
    wn_net_norm(p, p->h, p->x, p->m->out_norm);
    wn_net_linear(p, p->h, p->m->hp.n_embd, &(wn_linear){ &p->m->head, p->logits, NULL }, 1);
}

static void cap_row(const wn_pass *p, const void *arg, int r)
{
    const scale_arg *a = arg;
    (void)p;
    wn_kernels_get()->attn->softcap(a->x + (size_t)r * (size_t)a->n, a->s, a->n);
}

void wn_net_cap_logits(wn_pass *p, float cap)
{
    scale_arg a = { p->logits, p->m->hp.n_vocab, cap };
    if (cap > 0) wn_net_each_row(p, p->n_active, a.n, cap_row, &a);
}
