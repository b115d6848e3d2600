/* matmul.c - cuts a product into parts and walks each part's panels and chunks.
 *
 * A part is WN_PART_ROWS rows times at most WN_PART_TOKENS tokens of one product; parts
 * are handed to whichever thread is free, and what a part computes depends on its number
 * alone. All products of a job share one numbering, so q, k and v, or the matrices of
 * hundreds of experts, cost one hand-out.
 *
 *     for each part                               (threads)
 *         for each chunk of 256 columns           acc += ...   ascending: the order law
 *             unpack up to 4 panels of 16 rows    -> L1
 *             tiles: all tokens over them         acc[token][64] in L2
 *         out = acc - min + bias                  written once
 *
 * The same walk serves 1 token and 512: unpacking a chunk costs less than its bytes take
 * from RAM. With few tokens the walk takes one panel at a time, so that the weights are
 * one sequential stream. Mapped weights are packed chunk by chunk into scratch and then
 * take the same path, which makes their results equal by construction.
 */
#include "kernel/matmul_ops.h"

#include <string.h>

typedef struct {                /* of one thread */
    float acc[WN_PART_TOKENS][WN_PART_ROWS];
    float min[WN_PART_TOKENS][WN_PART_ROWS];
    union {
        wn_ready ready[WN_PART_PANELS];
        uint8_t floats[WN_FLOAT_SCRATCH];
    };
    uint8_t staged[WN_PART_PANELS][8 << 10];    /* mapped weights, packed for one chunk */
    _Alignas(64) int product;   /* of this thread's last part, from where the next is looked for */
    int first_part;             /* that product's first one */
} mm_scratch;

typedef struct {
    const wn_matmul_ops *ops;
    const wn_product *p;
    const wn_act *a;
    mm_scratch *scratch;
} mm_job;

/* ---- what is supported ---------------------------------------------------------- */

static bool is_float(wn_type t)
{
    return t == WN_TYPE_F32 || t == WN_TYPE_F16 || t == WN_TYPE_BF16;
}

wn_act_kind wn_act_kind_for(wn_type t)
{
    int block = wn_pack_block(t);
    return block == 32 ? WN_ACT_Q32 : block == 256 ? WN_ACT_Q256 : WN_ACT_F32;
}

bool wn_matmul_supports(wn_type t, int n_cols)
{
    if (n_cols <= 0) return false;
    if (is_float(t)) return true;
    int block = wn_pack_block(t);
    return block && n_cols % block == 0;
}

size_t wn_matmul_scratch_bytes(int n_threads)
{
    return sizeof(mm_scratch) * (size_t)n_threads;
}

/* ---- activations ------------------------------------------------------------------ */

static int n_chunks(int n_cols)
{
    return (n_cols + WN_CHUNK_COLS - 1) / WN_CHUNK_COLS;
}

size_t wn_act_bytes(wn_act_kind kind, int n_tokens, int n_cols)
{
    if (kind == WN_ACT_F32) return 0;
    return sizeof(wn_rec) * (size_t)n_chunks(n_cols) * (size_t)n_tokens;
}

enum { PREPARE_TOKENS = 8 };    /* of a part of wn_act_prepare */

typedef struct {
    const wn_act *a;
    const wn_matmul_ops *ops;
    int n_col_parts;            /* a single token is cut by chunks instead */
} prepare_job;

static void prepare_part(void *arg, int part, int thread)
{
    const prepare_job *j = arg;
    const wn_act *a = j->a;
    int chunks = n_chunks(a->n_cols), first = part / j->n_col_parts * PREPARE_TOKENS;
    int slice = part % j->n_col_parts;
    int c0 = chunks * slice / j->n_col_parts, c1 = chunks * (slice + 1) / j->n_col_parts;
    (void)thread;
    for (int t = first; t < WN_MIN(first + PREPARE_TOKENS, a->n_tokens); t++)
        for (int c = c0; c < c1; c++) {
            wn_rec *r = (wn_rec *)a->buf + (size_t)c * (size_t)a->n_tokens + t;
            const float *x = a->x + (size_t)t * (size_t)a->n_cols + (size_t)c * WN_CHUNK_COLS;
            int cols = WN_MIN(WN_CHUNK_COLS, a->n_cols - c * WN_CHUNK_COLS);
            if (a->kind == WN_ACT_Q256) j->ops->act_q256(r, x);
            else j->ops->act_q32(r, x, cols / 32);
        }
}

void wn_act_prepare(wn_act *a, wn_act_kind kind, const float *x, int n_tokens, int n_cols,
                    void *buf, wn_threads *team)
{
    *a = (wn_act){ .kind = kind, .n_tokens = n_tokens, .n_cols = n_cols, .x = x, .buf = buf };
    if (kind == WN_ACT_F32 || n_tokens <= 0) return;
    WN_ASSERT(n_cols % (kind == WN_ACT_Q256 ? 256 : 32) == 0);
    prepare_job j = { .a = a, .ops = wn_kernels_get()->matmul, .n_col_parts = 1 };
    int parts = (n_tokens + PREPARE_TOKENS - 1) / PREPARE_TOKENS;
    /* Below a few thousand values waking the others costs more than the work. */
    if ((size_t)n_tokens * (size_t)n_cols < 16384) team = NULL;
    else if (parts < 4) j.n_col_parts = 4;
    wn_threads_run(team, prepare_part, &j, parts * j.n_col_parts);
}

size_t wn_act_pick_bytes(wn_act_kind kind, int n_tokens, int n_cols)
{
    if (kind != WN_ACT_F32) return wn_act_bytes(kind, n_tokens, n_cols);
    return sizeof(float) * (size_t)n_tokens * (size_t)n_cols;
}

typedef struct {
    const wn_act *dst, *src;
    const int *rows;
} pick_job;

static void pick_part(void *arg, int part, int thread)
{
    const pick_job *j = arg;
    int first = part * PREPARE_TOKENS, end = WN_MIN(first + PREPARE_TOKENS, j->dst->n_tokens);
    size_t row = sizeof(float) * (size_t)j->src->n_cols;
    (void)thread;
    if (j->src->kind == WN_ACT_F32) {
        for (int t = first; t < end; t++)
            memcpy((char *)j->dst->buf + (size_t)t * row,
                   (const char *)j->src->x + (size_t)j->rows[t] * row, row);
        return;
    }
    const wn_rec *from = j->src->buf;
    wn_rec *to = j->dst->buf;
    for (int c = 0; c < n_chunks(j->src->n_cols);
         c++, from += j->src->n_tokens, to += j->dst->n_tokens)
        for (int t = first; t < end; t++) to[t] = from[j->rows[t]];
}

void wn_act_pick(wn_act *dst, const wn_act *src, const int *rows, int n_tokens, void *buf,
                 wn_threads *team)
{
    pick_job j = { .dst = dst, .src = src, .rows = rows };
    *dst = (wn_act){ .kind = src->kind, .n_tokens = n_tokens, .n_cols = src->n_cols, .buf = buf };
    if (src->kind == WN_ACT_F32) dst->x = buf;
    for (int t = 0; t < n_tokens; t++) WN_ASSERT(rows[t] >= 0 && rows[t] < src->n_tokens);
    if ((size_t)n_tokens * (size_t)src->n_cols < 65536) team = NULL;
    wn_threads_run(team, pick_part, &j, (n_tokens + PREPARE_TOKENS - 1) / PREPARE_TOKENS);
}

/* ---- one part ----------------------------------------------------------------------- */

/* token counts from the product's first. */
static void finish(const wn_product *p, const mm_scratch *s, int row, int rows, int token,
                   int tokens)
{
    bool min = wn_type_has_min(p->w->type);
    for (int t = 0; t < tokens; t++) {
        float *out = p->out + (size_t)(token + t) * p->out_stride + row;
        /* Rows of out lie pages apart, where no hardware prefetcher follows: 13 % of a product
         * of 2048 columns was waiting here. Past the end it is only a hint. */
        for (int r = 0; r < rows; r += 16) __builtin_prefetch(out + 4 * p->out_stride + r, 1);
        const float *acc = s->acc[t], *sub = s->min[t];
        if (min && p->bias)
            for (int r = 0; r < rows; r++) out[r] = (acc[r] - sub[r]) + p->bias[row + r];
        else if (min)
            for (int r = 0; r < rows; r++) out[r] = acc[r] - sub[r];
        else if (p->bias)
            for (int r = 0; r < rows; r++) out[r] = acc[r] + p->bias[row + r];
        else
            memcpy(out, acc, sizeof(float) * (size_t)rows);
    }
}

/* Where chunk `at` (of n_blocks blocks) of a panel lies packed; mapped weights are packed
 * into staged first. */
static const uint8_t *chunk_of(const wn_matrix *w, int panel, int first_block, int n_blocks,
                               uint8_t *staged)
{
    if (w->packed)
        return (const uint8_t *)w->data + (size_t)panel * wn_pack_panel_bytes(w->type, w->n_cols) +
               wn_pack_chunk_bytes(w->type, first_block);
    size_t row_bytes = wn_type_row_bytes(w->type, w->n_cols);
    size_t block_bytes = wn_pack_chunk_bytes(w->type, 1) / WN_PANEL_ROWS;
    int row = panel * WN_PANEL_ROWS;
    wn_pack_chunk(staged,
                  (const uint8_t *)w->data + (size_t)row * row_bytes +
                      (size_t)first_block * block_bytes,
                  row_bytes, w->type, WN_MIN(WN_PANEL_ROWS, w->n_rows - row), n_blocks);
    return staged;
}

static const wn_matmul_ops *ops_for(const mm_job *j, wn_type t, int tokens)
{
    return j->ops->few && tokens < j->ops->from_tokens[t] ? j->ops->few : j->ops;
}

/* Panels [panel, panel + n) against tokens [token, token + tokens), over all chunks. */
static void walk(const mm_job *j, const wn_matrix *w, mm_scratch *s, int panel, int n, int column,
                 int token, int tokens)
{
    const wn_matmul_ops *ops = ops_for(j, w->type, tokens);
    int block = wn_pack_block(w->type), per_chunk = WN_CHUNK_COLS / block;
    int blocks = w->n_cols / block;
    size_t stride = wn_pack_panel_bytes(w->type, w->n_cols);
    bool few = tokens <= ops->few_tokens;
    const wn_rec *act = (const wn_rec *)j->a->buf + token;
    for (int b = 0; b < blocks; b += per_chunk, act += j->a->n_tokens) {
        int nb = WN_MIN(per_chunk, blocks - b);
        size_t ahead = few && w->packed ? ops->ahead_bytes[w->type] : 0;
        const uint8_t *src = chunk_of(w, panel, b, nb, s->staged[0]);
        wn_chunk c = { .w = s->ready, .n_panels = n, .n_blocks = nb, .act = act, .n_tokens = tokens,
                       .acc = &s->acc[0][column], .min = &s->min[0][column] };
        if (few && ops->stream) {
            ops->stream[w->type](&c, &s->ready[0], src, ahead);
            continue;
        }
        ops->unpack[w->type](&s->ready[0], src, nb, ahead);
        for (int i = 1; i < n; i++)
            ops->unpack[w->type](&s->ready[i], chunk_of(w, panel + i, b, nb, s->staged[i]), nb,
                                 ahead);
        if (!few && w->packed) {        /* behind the last chunk, the panels of the next part */
            bool last = b + nb == blocks, more = (panel + 2 * n - 1) * WN_PANEL_ROWS < w->n_rows;
            c.next_bytes = wn_pack_chunk_bytes(w->type,
                                               WN_MIN(per_chunk, last ? blocks : blocks - b - nb));
            c.next_stride = stride;
            if (!last) c.next = src + wn_pack_chunk_bytes(w->type, nb);
            else if (more) c.next = (const uint8_t *)w->data + (size_t)(panel + n) * stride;
        }
        ops->tiles[w->type](&c);
    }
}

static int tokens_of(const mm_job *j, const wn_product *p)
{
    return p->n ? p->n : j->a->n_tokens;
}

static void quantised_part(const mm_job *j, const wn_product *p, mm_scratch *s, int row, int token)
{
    int rows = WN_MIN(WN_PART_ROWS, p->w->n_rows - row);
    int tokens = WN_MIN(WN_PART_TOKENS, tokens_of(j, p) - token);
    int panels = (rows + WN_PANEL_ROWS - 1) / WN_PANEL_ROWS, panel = row / WN_PANEL_ROWS;
    memset(s->acc, 0, sizeof s->acc[0] * (size_t)tokens);
    if (wn_type_has_min(p->w->type)) memset(s->min, 0, sizeof s->min[0] * (size_t)tokens);
    if (tokens <= ops_for(j, p->w->type, tokens)->few_tokens)
        for (int i = 0; i < panels; i++)
            walk(j, p->w, s, panel + i, 1, i * WN_PANEL_ROWS, p->first + token, tokens);
    else
        walk(j, p->w, s, panel, panels, 0, p->first + token, tokens);
    finish(p, s, row, rows, token, tokens);
}

static void float_part(const mm_job *j, const wn_product *p, mm_scratch *s, int row, int token)
{
    const wn_matrix *w = p->w;
    size_t row_bytes = wn_type_row_bytes(w->type, w->n_cols);
    wn_float_job f = {
        .type = w->type, .w = (const uint8_t *)w->data + (size_t)row * row_bytes,
        .row_bytes = row_bytes, .n_rows = WN_MIN(WN_PART_ROWS, w->n_rows - row),
        .n_cols = w->n_cols, .x = j->a->x + (size_t)(p->first + token) * (size_t)w->n_cols,
        .n_tokens = WN_MIN(WN_PART_TOKENS, tokens_of(j, p) - token),
        .out = p->out + (size_t)token * p->out_stride + row, .out_stride = p->out_stride,
        .bias = p->bias ? p->bias + row : NULL, .scratch = s->floats,
    };
    j->ops->floats(&f);
}

static int token_parts(const mm_job *j, const wn_product *p)
{
    return (tokens_of(j, p) + WN_PART_TOKENS - 1) / WN_PART_TOKENS;
}

static int parts_of(const mm_job *j, const wn_product *p)
{
    return (p->w->n_rows + WN_PART_ROWS - 1) / WN_PART_ROWS * token_parts(j, p);
}

static void run_part(void *arg, int part, int thread)
{
    const mm_job *j = arg;
    mm_scratch *s = &j->scratch[thread];
    int n;
    while (part < s->first_part) s->first_part -= parts_of(j, &j->p[--s->product]);
    while (part >= s->first_part + (n = parts_of(j, &j->p[s->product])))
        s->first_part += n, s->product++;
    const wn_product *p = &j->p[s->product];
    part -= s->first_part;
    /* Token parts of the same rows are neighbours: the weights are read once. */
    int n_token = token_parts(j, p), row = part / n_token * WN_PART_ROWS,
        token = part % n_token * WN_PART_TOKENS;
    if (is_float(p->w->type)) float_part(j, p, s, row, token);
    else quantised_part(j, p, s, row, token);
}

void wn_matmul(const wn_product *p, int n_products, const wn_act *a, void *scratch,
               wn_threads *team)
{
    mm_job j = { .ops = wn_kernels_get()->matmul, .p = p, .a = a, .scratch = scratch };
    int parts = 0;
    for (int i = 0; i < n_products; i++) {
        const wn_matrix *w = p[i].w;
        WN_ASSERT(w->n_cols == a->n_cols && wn_act_kind_for(w->type) == a->kind);
        WN_ASSERT(is_float(w->type) || wn_pack_block(w->type));
        WN_ASSERT(p[i].first >= 0 && p[i].n >= 0 && p[i].first + p[i].n <= a->n_tokens);
        WN_ASSERT(p[i].n || !p[i].first);
        parts += parts_of(&j, &p[i]);
    }
    if (!parts) return;
    for (int i = 0; i < wn_threads_count(team); i++)
        j.scratch[i].product = j.scratch[i].first_part = 0;
    wn_threads_run(team, run_part, &j, parts);
}
