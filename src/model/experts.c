/* model/experts.c - a mixture of experts: each row's feed-forward is a weighted sum over a few
 * of many.
 *
 * Shazeer et al., "Outrageously Large Neural Networks", 2017. The router's logits choose the
 * n_used largest (of equals the lower number). The rows of an expert are then put side by
 * side, in the order of rows, and each expert that any row chose multiplies its run:
 *
 *     choose     logits = W_router h;  experts and weights of each row
 *     gather     rows by expert            | 0: r2 r5 r7 | 3: r0 | 4: r2 r9 |
 *     gate, up   one hand-out, a product per expert and matrix over its run
 *     down       likewise, over the gated runs
 *     combine    h[row] = sum of weight * down, one FMA chain in ascending expert number
 *
 * A product's row depends on the row alone (kernel/matmul.h), and the sum on the row's own
 * choice: what else is in the batch changes no bit. Only matrices of chosen experts are read.
 */
#include "model/net.h"
#include "kernel/attn.h"
#include "kernel/vec.h"

#include <string.h>

struct wn_experts {
    float *logits;                      /* (rows, n_experts) */
    int *chosen;                        /* (rows, n_used) ascending */
    float *weight;                      /* (rows, n_used) */
    int *place;                         /* (rows, n_used) where that product's row is */
    int *rows;                          /* (rows * n_used) by expert: which row */
    int *first;                         /* (n_experts + 1) of an expert's run */
    float *gate, *up, *out;             /* (rows * n_used, width), by expert */
    void *act;                          /* prepared activations of the runs */
    wn_product *products;               /* (2 n_experts) */
};

/* ---- scratch ---------------------------------------------------------------------- */

static size_t take(wn_arena *a, void *out, size_t bytes)
{
    if (a) {
        void *p = wn_arena_take(a, bytes);
        memcpy(out, &p, sizeof p);
    }
    return wn_arena_cost(bytes);
}

/* For inputs of the gates, picked, and of the downs, prepared where they lie. */
static size_t act_bytes(const wn_hparams *h, int n)
{
    size_t most = 0;
    for (int kind = WN_ACT_F32; kind <= WN_ACT_Q256; kind++) {
        int block = kind == WN_ACT_Q256 ? 256 : kind == WN_ACT_Q32 ? 32 : 1;
        if (h->n_embd % block == 0)
            most = WN_MAX(most, wn_act_pick_bytes((wn_act_kind)kind, n, h->n_embd));
        if (h->n_ff_expert % block == 0)
            most = WN_MAX(most, wn_act_bytes((wn_act_kind)kind, n, h->n_ff_expert));
    }
    return most;
}

static size_t lay_out(wn_experts *x, const wn_hparams *h, int rows, wn_arena *a)
{
    size_t r = (size_t)rows, n = r * (size_t)h->n_used, e = (size_t)h->n_experts, F = sizeof(float),
           s = 0;
    s += take(a, &x->logits, r * e * F) + take(a, &x->chosen, n * sizeof(int)) +
         take(a, &x->weight, n * F);
    s += take(a, &x->place, n * sizeof(int)) + take(a, &x->rows, n * sizeof(int));
    s += take(a, &x->first, (e + 1) * sizeof(int));
    s += take(a, &x->gate, n * (size_t)h->n_ff_expert * F) +
         take(a, &x->up, n * (size_t)h->n_ff_expert * F);
    s += take(a, &x->out, n * (size_t)h->n_embd * F) + take(a, &x->act, act_bytes(h, (int)n));
    s += take(a, &x->products, 2 * e * sizeof(wn_product));
    return s;
}

size_t wn_experts_scratch_bytes(const wn_model *m, int max_rows)
{
    wn_experts x;
    return m->hp.n_experts ? wn_arena_cost(sizeof x) + lay_out(&x, &m->hp, max_rows, NULL) : 0;
}

void wn_experts_begin(wn_pass *p)
{
    p->experts = wn_arena_array(p->arena, wn_experts, 1);
    lay_out(p->experts, &p->m->hp, p->n_rows, p->arena);
}

/* ---- choosing --------------------------------------------------------------------- */

/* The n largest of x, ascending by number; NaN is larger than nothing. */
static void choose(const float *x, int n_all, int n, int *chosen)
{
    for (int k = 0; k < n; k++) {
        int best = -1, at = k;
        for (int e = 0, c = 0; e < n_all; e++) {
            if (c < k && chosen[c] == e) c++;           /* has been chosen: they are ascending */
            else if (best < 0 || x[e] > x[best]) best = e;
        }
        for (; at > 0 && chosen[at - 1] > best; at--) chosen[at] = chosen[at - 1];
        chosen[at] = best;
    }
}

static void route_row(const wn_pass *p, const void *arg, int r)
{
    const wn_hparams *h = &p->m->hp;
    const wn_experts *x = p->experts;
    wn_route route = *(const wn_route *)arg;
    float *logits = x->logits + (size_t)r * (size_t)h->n_experts,
          *w = x->weight + (size_t)r * (size_t)h->n_used;
    int *chosen = x->chosen + (size_t)r * (size_t)h->n_used;
    choose(logits, h->n_experts, h->n_used, chosen);
    wn_kernels_get()->vec->exp_sub(logits, logits, wn_kernels_get()->vec->max(logits, h->n_experts),
                                   h->n_experts);
    float sum = 0;
    if (route == WN_ROUTE_SHARE)
        for (int e = 0; e < h->n_experts; e++) sum += logits[e];
    else
        for (int k = 0; k < h->n_used; k++) sum += logits[chosen[k]];
    for (int k = 0; k < h->n_used; k++) w[k] = logits[chosen[k]] / sum * h->expert_scale;
}

/* Rows by expert, each expert's in the order of rows. */
static void gather(const wn_pass *p)
{
    const wn_hparams *h = &p->m->hp;
    wn_experts *x = p->experts;
    int n = p->n_active * h->n_used, at = 0;
    memset(x->first, 0, sizeof *x->first * (size_t)(h->n_experts + 1));
    for (int i = 0; i < n; i++) x->first[x->chosen[i]]++;
    for (int e = 0; e <= h->n_experts; e++) {           /* counts to beginnings */
        int count = x->first[e];
        x->first[e] = at;
        at += count;
    }
    for (int i = 0; i < n; i++) {
        x->place[i] = x->first[x->chosen[i]]++;
        x->rows[x->place[i]] = i / h->n_used;
    }
    memmove(x->first + 1, x->first, sizeof *x->first * (size_t)h->n_experts);
    x->first[0] = 0;
}

/* ---- products --------------------------------------------------------------------- */

/* A product for each expert with rows. */
static int add_products(const wn_pass *p, int n, const wn_matrix *w, const float *bias, float *out)
{
    const wn_experts *x = p->experts;
    for (int e = 0; e < p->m->hp.n_experts; e++) {
        int first = x->first[e], rows = x->first[e + 1] - first;
        size_t width = (size_t)w[e].n_rows;
        if (!rows) continue;
        x->products[n++] = (wn_product){ .w = &w[e], .out = out + (size_t)first * width,
                                         .out_stride = width,
                                         .bias = bias ? bias + (size_t)e * width : NULL,
                                         .first = first, .n = rows };
    }
    return n;
}

static void gates_and_ups(wn_pass *p, const wn_layer *L)
{
    const wn_experts *x = p->experts;
    int n_embd = p->m->hp.n_embd, n_rows = p->n_active * p->m->hp.n_used;
    wn_act_kind kinds[2] = { wn_act_kind_for(L->gates->type), wn_act_kind_for(L->ups->type) };
    for (int i = 0; i < (kinds[0] == kinds[1] ? 1 : 2); i++) {
        wn_act rows, runs;
        int n = 0;
        wn_act_prepare(&rows, kinds[i], p->h, p->n_active, n_embd, p->act, p->team);
        wn_act_pick(&runs, &rows, x->rows, n_rows, x->act, p->team);
        if (i == 0) n = add_products(p, n, L->gates, L->bgate, x->gate);
        if (i == 1 || kinds[0] == kinds[1]) n = add_products(p, n, L->ups, L->bup, x->up);
        wn_matmul(x->products, n, &runs, p->mm, p->team);
    }
}

static void combine_row(const wn_pass *p, const void *arg, int r)
{
    const wn_experts *x = p->experts;
    int n_used = p->m->hp.n_used, n = p->m->hp.n_embd;
    float *h = p->h + (size_t)r * (size_t)n;
    (void)arg;
    memset(h, 0, sizeof *h * (size_t)n);
    for (int k = r * n_used; k < (r + 1) * n_used; k++)
        wn_kernels_get()->attn->merge(h, 1, x->out + (size_t)x->place[k] * (size_t)n, x->weight[k],
                                      n);
}

void wn_net_experts(wn_pass *p, const wn_layer *L, wn_route route, wn_gate gate)
{
    const wn_hparams *h = &p->m->hp;
    wn_experts *x = p->experts;
    int n_rows = p->n_active * h->n_used;
    wn_act act;
    if (p->n_active == 0) return;
    wn_net_linear(p, p->h, h->n_embd, &(wn_linear){ &L->router, x->logits, L->brouter }, 1);
    wn_net_each_row(p, p->n_active, h->n_experts * h->n_used, route_row, &route);
    gather(p);
    gates_and_ups(p, L);
    wn_net_gate(p, gate, x->gate, x->up, n_rows, h->n_ff_expert);
    wn_act_prepare(&act, wn_act_kind_for(L->downs->type), x->gate, n_rows, h->n_ff_expert, x->act,
                   p->team);
    wn_matmul(x->products, add_products(p, 0, L->downs, L->bdown, x->out), &act, p->mm, p->team);
    wn_net_each_row(p, p->n_active, h->n_embd * h->n_used, combine_row, NULL);
}
