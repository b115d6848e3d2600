/* attention/window.c - see window.h.
 *
 * Logits of all live slots are laid out per query, (w * group, n) in run order, so that each
 * row has its softmax in one piece: maximum, exponentials, sum in 16 chains by index. Rows
 * of one query head are then added up in the order of the queries.
 */
#include "attention/window.h"

#include "kernel/attn.h"
#include "kernel/vec.h"

#include <math.h>
#include <string.h>

enum { PAD = 16 };

static size_t stride_of(int n) { return ((size_t)n + PAD - 1) / PAD * PAD + WN_PAGE_SLOTS_MAX; }

size_t wn_window_floats(const wn_window *x, int n, int P)
{
    const wn_attend_shape *s = x->shape;
    size_t group = (size_t)(s->n_heads / s->n_kv_heads), rows = group * (size_t)x->w;
    return rows * stride_of(n)                              /* logits */
           + 2 * rows * (size_t)s->k_dim + (size_t)s->k_dim /* queries, turned queries, angles */
           + rows * (size_t)WN_PAGE_SLOTS_MAX               /* logits of a page with holes */
           + wn_format_ready_bytes((int)rows, s->k_dim) / sizeof(float)
           + wn_format_tmp_bytes(P, s->k_dim) / sizeof(float) + 64;
}

typedef struct {
    const wn_window *x;
    const wn_kv *kv;
    const wn_kernels *kernels;
    const wn_lane *lane;
    int index, group, rows, n_tokens;   /* index: of the lane */
    size_t stride;
    float *logits, *q, *turned, *angles, *part;
    char *ready;                        /* queries as encoded K wants them */
    void *tmp;
    int32_t shift;                      /* of turned; 0: nothing there */
    int32_t ready_shift;                /* of ready */
    wn_ready_fn *ready_for;             /* which format's; NULL: nothing there */
} job;

void wn_window_queries(const wn_kv *kv, int lane, int group, int w, float *rows)
{
    const wn_lane *l = &wn_kv_map(kv)->lanes[lane];
    size_t width = (size_t)group * (size_t)l->k_dim;
    int n = wn_kv_n(kv);
    for (int t = 0; t < w; t++) {
        const float *row = wn_kv_ring((wn_kv *)(uintptr_t)kv, l->layer, n - w + t);
        WN_ASSERT(row);
        memcpy(rows + (size_t)t * width, row + (size_t)l->head * width, sizeof *rows * width);
    }
}

/* The queries as they stand to keys that act as if shifted. */
static const float *queries(job *j, int32_t shift)
{
    const wn_rope *rope = j->x->rope;
    size_t k_dim = (size_t)j->x->shape->k_dim;
    if (!shift || !rope) return j->q;
    if (j->shift == shift) return j->turned;
    wn_rope_more_angles(rope, -shift, j->angles);
    for (int i = 0; i < j->rows; i++) {
        float *to = j->turned + (size_t)i * k_dim;
        const float *from = j->q + (size_t)i * k_dim;
        j->kernels->vec->rope(to, from, j->angles, rope->n_dims, rope->neox);
        memcpy(to + rope->n_dims, from + rope->n_dims,
               sizeof(float) * (k_dim - (size_t)rope->n_dims));
    }
    j->shift = shift;
    return j->turned;
}

static const char *ready_queries(job *j, const wn_format *f, int32_t shift)
{
    int k_dim = j->x->shape->k_dim;
    if (!f->ready) return NULL;
    if (j->ready_for != f->ready || j->ready_shift != shift)
        f->ready(j->ready, queries(j, shift), (size_t)k_dim, j->rows, k_dim);
    j->ready_for = f->ready;
    j->ready_shift = shift;
    return j->ready;
}

/* Logits of a run's live slots, from column `at` on; returns how many there are. */
static int score_run(job *j, const wn_run *run, int at, int32_t *pos)
{
    bool sealed = run->k_sealed && run->k_sealed_from < j->n_tokens;
    const wn_format *f = sealed ? run->k_format : wn_kv_raw_k(j->kv, j->index);
    const void *frame = sealed ? run->k_sealed : run->k;
    int k_dim = j->x->shape->k_dim, P = wn_kv_page_slots(j->kv), n = 0;
    bool whole = run->keep == (run->n >= 64 ? ~0ull : (1ull << run->n) - 1) && !run->bias;
    float *to = whole ? j->logits + at : j->part;       /* what is written beyond n belongs to the
                                                           next run */
    f->score(&(wn_page_score){
        .out = to, .out_stride = whole ? j->stride : WN_PAGE_SLOTS_MAX, .q = queries(j, run->shift),
        .q_stride = (size_t)k_dim, .ready = ready_queries(j, f, run->shift), .n_q = j->rows,
        .frame = frame, .P = P, .first = run->first, .n = run->n, .head_dim = k_dim,
        .tmp = j->rows >= f->n_q_tmp ? j->tmp : NULL, .book = f->book,
        .place = { run->pos, run->pos0 },
    });
    if (whole) {
        for (; n < run->n; n++) pos[n] = run->pos ? run->pos[n] : run->pos0 + n;
        for (int i = 0; i < j->rows && j->x->shape->softcap > 0; i++)
            j->kernels->attn->softcap(to + (size_t)i * j->stride, j->x->shape->softcap, n);
        return n;
    }
    for (uint64_t left = run->keep; left; left &= left - 1, n++) {
        int s = __builtin_ctzll(left);
        pos[n] = run->pos ? run->pos[s] : run->pos0 + s;
        for (int i = 0; i < j->rows; i++)
            j->logits[(size_t)i * j->stride + (size_t)(at + n)] =
                j->part[(size_t)i * WN_PAGE_SLOTS_MAX + (size_t)s];
        if (j->x->shape->softcap > 0)
            for (int i = 0; i < j->rows; i++)
                j->kernels->attn->softcap(&j->logits[(size_t)i * j->stride + (size_t)(at + n)],
                                          j->x->shape->softcap, 1);
        if (run->bias && run->bias[s] != 0)
            for (int i = 0; i < j->rows; i++)
                j->logits[(size_t)i * j->stride + (size_t)(at + n)] += run->bias[s];
    }
    return n;
}

/* What a row's weights exp(x - m), of sum l, are multiplied by; the head's sink takes part. */
static float share(const job *j, float m, float l, int h)
{
    if (!j->x->sinks) return 1 / l;
    float s = j->x->sinks[j->lane->head * j->group + h], top = m > s ? m : s;
    float f[16] = { m - top, s - top }, unused[16] = { 0 };
    j->kernels->attn->exp_sum(f, 0, 16, unused);
    return f[0] / (f[0] * l + f[1]);
}

/* Adds the softmax of a row of query head h to sum. */
static void add_row(const job *j, float *x, int h, int32_t t, const int32_t *pos, int n, float *sum)
{
    float chains[16] = { 0 };
    int end = (n + PAD - 1) / PAD * PAD;
    for (int i = n; i < end; i++) x[i] = -INFINITY;
    for (int i = 0; i < n; i++)
        if (pos[i] > t) x[i] = -INFINITY;               /* keys of later queries */
    float m = j->kernels->attn->max(x, n);
    if (m == -INFINITY) return;
    j->kernels->attn->exp_sum(x, m, end, chains);
    float scale = share(j, m, wn_tree16(chains), h);
    for (int i = 0; i < n; i++) sum[i] += x[i] * scale;
}

void wn_window_sums(const wn_window *x, const wn_kv *kv, int lane, int n, float *sum, int32_t *pos,
                    float *scratch)
{
    int group = x->shape->n_heads / x->shape->n_kv_heads, at = 0;
    size_t k_dim = (size_t)x->shape->k_dim;
    job j = { .x = x, .kv = kv, .kernels = wn_kernels_get(), .lane = &wn_kv_map(kv)->lanes[lane],
              .index = lane, .group = group, .rows = x->w * group, .n_tokens = wn_kv_n(kv),
              .stride = stride_of(n) };
    size_t rows = (size_t)j.rows;
    j.logits = scratch;
    j.q = j.logits + rows * j.stride;
    j.turned = j.q + rows * k_dim;
    j.part = j.turned + rows * k_dim;
    j.ready = (char *)(((uintptr_t)(j.part + rows * WN_PAGE_SLOTS_MAX) + 63) / 64 * 64);
    j.tmp = j.ready + wn_format_ready_bytes(j.rows, x->shape->k_dim);
    j.angles = (float *)j.tmp +
               wn_format_tmp_bytes(wn_kv_page_slots(kv), x->shape->k_dim) / sizeof(float);
    wn_window_queries(kv, lane, group, x->w, j.q);
    wn_run_iter it;
    wn_run run;
    wn_runs_begin(&it, kv, lane, 0, j.n_tokens);
    while (wn_runs_next(&it, &run)) at += score_run(&j, &run, at, pos + at);
    WN_ASSERT(at == n);
    memset(sum, 0, sizeof *sum * (size_t)group * (size_t)n);
    for (int t = 0; t < x->w; t++)
        for (int h = 0; h < group; h++)
            add_row(&j, j.logits + (size_t)(t * group + h) * j.stride, h, j.n_tokens - x->w + t,
                    pos, n, sum + (size_t)h * (size_t)n);
}
