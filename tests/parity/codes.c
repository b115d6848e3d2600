/* Every table this CPU runs gives the bits of the scalar one over encoded pages: frames, queries
 * made ready and used, mixes, rotations, at odd shapes, with frames that end right before an
 * unreadable page; and, below the formats, products of every kind of codes with any parameters. */
#include "tests/unit/check.h"
#include "tests/support/fence.h"

#include "kernel/codes.h"
#include "kernel/elem.h"
#include "page/format.h"

#include <math.h>

enum { DIM_MAX = 256, Q = 7, P_MAX = 64 };
static const int dims[] = { 64, 80, 96, 128, 256, 32, 40 };
static const int sizes[] = { 64, 4, 16, 64, 8, 32 };

static const wn_kernels *all[WN_KERNELS_MAX];
static int n_tables;

/* What a table makes of one page: everything that may be compared byte by byte. */
typedef struct {
    float out[Q][P_MAX], acc[Q][DIM_MAX], row[2][DIM_MAX];
} answer;

typedef struct {
    int P, D, n, first, len, n_q;
    uint64_t keep;
    float k[P_MAX][DIM_MAX], v[P_MAX][DIM_MAX], q[Q][DIM_MAX], w[Q][P_MAX], start[Q][DIM_MAX];
} input;

static float odd(uint64_t *seed, int t)
{
    float x = test_randf(seed);
    if (t % 5 == 1) return x * 1e-7f;
    if (t % 5 == 2 && test_rand(seed) % 40 == 0) return x * 60000;
    if (t % 5 == 3 && test_rand(seed) % 3) return 0;
    if (t % 7 == 6 && test_rand(seed) % 700 == 0) return test_rand(seed) & 1 ? NAN : -INFINITY;
    return x;
}

static void fill(input *in, uint64_t *seed, int t)
{
    in->P = sizes[t % 6], in->D = dims[t % 7], in->n = in->P, in->keep = ~0ull;
    if (t % 3 == 1) in->n = 1 + (int)(test_rand(seed) % (uint64_t)in->P);
    if (t % 3 == 2) in->keep = test_rand(seed) | 1;
    in->first = (int)(test_rand(seed) % (uint64_t)in->P);
    in->len = 1 + (int)(test_rand(seed) % (uint64_t)(in->P - in->first));
    if (t % 2) in->first = 0, in->len = in->P;
    in->n_q = 1 + (int)(test_rand(seed) % Q);
    for (int s = 0; s < P_MAX; s++)
        for (int d = 0; d < DIM_MAX; d++)
            in->k[s][d] = odd(seed, t), in->v[s][d] = odd(seed, t + 1);
    for (int i = 0; i < Q; i++) {
        for (int d = 0; d < DIM_MAX; d++)
            in->q[i][d] = odd(seed, t + 2), in->start[i][d] = test_randf(seed);
        for (int s = 0; s < P_MAX; s++) in->w[i][s] = fabsf(odd(seed, t + 3));
    }
}

static void run(const wn_format *f, const wn_format *raw, const input *in, char *k, char *v,
                answer *a)
{
    int P = in->P, D = in->D;
    void *raw_k = calloc(1, raw->k_bytes(P, D)), *raw_v = calloc(1, raw->v_bytes(P, D));
    void *ready = aligned_alloc(64, wn_format_ready_bytes(Q, D));
    static float own[Q][DIM_MAX];
    raw->put_k(raw_k, P, 0, in->k[0], DIM_MAX, in->n, D),
        raw->put_v(raw_v, P, 0, in->v[0], DIM_MAX, in->n, D);
    f->encode_k(k, raw_k, raw, P, in->n, in->keep, D),
        f->encode_v(v, raw_v, raw, P, in->n, in->keep, D);
    memset(a, 0, sizeof *a), memset(own, 0, sizeof own);
    memcpy(a->acc, in->start, sizeof a->acc);
    f->ready(ready, in->q[0], DIM_MAX, in->n_q, D);
    float out[Q][P_MAX + 16];
    f->score(&(wn_page_score){ .out = out[0], .out_stride = P_MAX + 16, .q = in->q[0],
                               .q_stride = DIM_MAX, .ready = ready, .n_q = in->n_q, .frame = k,
                               .P = P, .first = in->first, .n = in->len, .head_dim = D,
                               .ahead = { v, v + f->v_bytes(P, D) } });
    for (int i = 0; i < in->n_q; i++) memcpy(a->out[i], out[i], sizeof(float) * (size_t)in->len);
    f->mix(&(wn_page_mix){ .acc = f->mixed ? own[0] : a->acc[0], .acc_stride = DIM_MAX,
                           .w = in->w[0], .w_stride = P_MAX, .n_q = in->n_q, .frame = v, .P = P,
                           .first = in->first, .n = in->len, .head_dim = D,
                           .ahead = { k, k + f->k_bytes(P, D) } });
    if (f->mixed) f->mixed(a->acc[0], DIM_MAX, own[0], DIM_MAX, in->n_q, D);
    f->get_k(k, P, 0, a->row[0], D), f->get_v(v, P, P - 1, a->row[1], D);
    free(raw_k), free(raw_v), free(ready);
}

static bool same_floats(const void *a, const void *b, size_t bytes)
{
    const float *x = a, *y = b;
    for (size_t i = 0; i < bytes / 4; i++)      /* a NaN's payload is free */
        if (memcmp(&x[i], &y[i], 4) && !(isnan(x[i]) && isnan(y[i]))) return false;
    return true;
}

static void formats_have_the_scalar_bits(void **state)
{
    (void)state;
    static const wn_format *const raws[] = { &wn_format_f16, &wn_format_bf16, &wn_format_f32 };
    uint64_t seed = 31;
    input *in = malloc(sizeof *in);
    answer *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    for (int i = 0; wn_format_at(i); i++)
        for (int t = 0; t < 84 && !wn_format_at(i)->raw && !wn_format_at(i)->calibrated;
             t += strchr(wn_format_at(i)->name, '-') ? 11 : 1) {
            const wn_format *f = wn_format_at(i), *raw = raws[t % 3];
            fill(in, &seed, t);
            size_t kb = f->k_bytes(in->P, in->D), vb = f->v_bytes(in->P, in->D);
            fenced k0 = fence(kb), v0 = fence(vb), k = fence(kb), v = fence(vb);
            wn_kernels_force(all[0]);
            run(f, raw, in, k0.p, v0.p, a);
            for (int n = 1; n < n_tables; n++) {
                wn_kernels_force(all[n]);
                run(f, raw, in, k.p, v.p, b);
                if (memcmp(k.p, k0.p, kb))
                    fail_msg("%s of %s, %d x %d: K is encoded otherwise", f->name, all[n]->name,
                             in->P, in->D);
                if (memcmp(v.p, v0.p, vb))
                    fail_msg("%s of %s, %d x %d: V is encoded otherwise", f->name, all[n]->name,
                             in->P, in->D);
                if (!same_floats(a->out, b->out, sizeof a->out))
                    fail_msg("%s of %s, %d x %d: scores", f->name, all[n]->name, in->P, in->D);
                if (!same_floats(a->acc, b->acc, sizeof a->acc))
                    fail_msg("%s of %s, %d x %d: mix", f->name, all[n]->name, in->P, in->D);
                if (!same_floats(a->row, b->row, sizeof a->row))
                    fail_msg("%s of %s, %d x %d: slots", f->name, all[n]->name, in->P, in->D);
            }
            unfence(&k0), unfence(&v0), unfence(&k), unfence(&v);
        }
    wn_kernels_force(NULL);
    free(in), free(a), free(b);
}

/* ---- several pages at once ----------------------------------------------------------------- */

enum { PARTS = 5, COLS = PARTS * P_MAX + 16 };

/* Parts of pages in one format, as a split of a thinned cache has them: whole pages, pages with
 * holes, pages cut at either end. */
typedef struct {
    int P, D, n_q, n;
    wn_page_part k[PARTS], v[PARTS];
    float q[Q][DIM_MAX], w[Q][COLS], out[Q][COLS], acc[Q][DIM_MAX];
} several;

static void choose_parts(several *x, char *const k[PARTS], char *const v[PARTS], uint64_t *seed,
                         int t)
{
    int entry = t % 16;
    x->n = 1 + t % PARTS;
    for (int i = 0; i < x->n; i++) {
        int first = t % 3 == 2 ? (int)(test_rand(seed) % (uint64_t)x->P) : 0, n = x->P - first;
        if (t % 3 == 2 && n > 1) n -= (int)(test_rand(seed) % 2);
        wn_page_part part = wn_page_part_of(k[i], first, n);
        if (t % 3 && test_rand(seed) % 2) part.keep &= test_rand(seed) | 1;
        part.n_entries = __builtin_popcountll(part.keep);
        part.entry = entry;
        entry += part.n_entries;
        x->k[i] = x->v[i] = part;
        x->v[i].frame = v[i];
    }
}

static void run_parts(const wn_format *f, several *x)
{
    static float own[Q][DIM_MAX], room[Q][P_MAX];
    void *ready = aligned_alloc(64, wn_format_ready_bytes(Q, x->D));
    memset(own, 0, sizeof own), memset(x->out, 0, sizeof x->out);
    for (int i = 0; i < Q; i++)
        for (int d = 0; d < DIM_MAX; d++) x->acc[i][d] = (float)(i - d);
    f->ready(ready, x->q[0], DIM_MAX, x->n_q, x->D);
    wn_page_score s = { .out = x->out[0], .out_stride = COLS, .q = x->q[0], .q_stride = DIM_MAX,
                        .ready = ready, .n_q = x->n_q, .P = x->P, .head_dim = x->D };
    wn_page_mix m = { .acc = f->mixed ? own[0] : x->acc[0], .acc_stride = DIM_MAX, .w = x->w[0],
                      .w_stride = COLS, .n_q = x->n_q, .P = x->P, .head_dim = x->D };
    wn_format_scores(f, &s, x->k, x->n, room[0]);
    wn_format_mixes(f, &m, x->v, x->n, room[0]);
    if (f->mixed) f->mixed(x->acc[0], DIM_MAX, own[0], DIM_MAX, x->n_q, x->D);
    const wn_page_part *last = &x->k[x->n - 1];
    for (int i = 0; i < Q; i++)
        memset(&x->out[i][last->entry + last->n_entries], 0,
               16 * sizeof(float)); /* room, not results */
    free(ready);
}

static void several_pages_have_the_scalar_bits(void **state)
{
    (void)state;
    uint64_t seed = 33;
    input *in = malloc(sizeof *in);
    several *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    for (int i = 0; wn_format_at(i); i++)
        for (int t = 0; t < 36 && !wn_format_at(i)->raw && !wn_format_at(i)->calibrated;
             t += strchr(wn_format_at(i)->name, '-') ? 7 : 1) {
            const wn_format *f = wn_format_at(i);
            char *k[PARTS], *v[PARTS];
            int P = sizes[t % 6], D = dims[t % 7];
            for (int j = 0; j < PARTS; j++) {
                void *raw_k = calloc(1, wn_format_f32.k_bytes(P, D)),
                     *raw_v = calloc(1, wn_format_f32.v_bytes(P, D));
                fill(in, &seed, t);
                k[j] = aligned_alloc(64, f->k_bytes(P, D)),
                v[j] = aligned_alloc(64, f->v_bytes(P, D));
                wn_format_f32.put_k(raw_k, P, 0, in->k[0], DIM_MAX, P, D),
                    wn_format_f32.put_v(raw_v, P, 0, in->v[0], DIM_MAX, P, D);
                f->encode_k(k[j], raw_k, &wn_format_f32, P, P, ~0ull, D),
                    f->encode_v(v[j], raw_v, &wn_format_f32, P, P, ~0ull, D);
                free(raw_k), free(raw_v);
            }
            a->P = P, a->D = D, a->n_q = in->n_q;
            memcpy(a->q, in->q, sizeof a->q);
            for (int r = 0; r < Q; r++)
                for (int c = 0; c < COLS; c++)
                    a->w[r][c] = c % 7 == r % 7 ? 0 : fabsf(odd(&seed, t + 3));
            choose_parts(a, k, v, &seed, t);
            *b = *a;
            wn_kernels_force(all[0]);
            run_parts(f, a);
            for (int n = 1; n < n_tables; n++) {
                wn_kernels_force(all[n]);
                run_parts(f, b);
                if (!same_floats(a->out, b->out, sizeof a->out))
                    fail_msg("%s of %s, %d of %d x %d: scores", f->name, all[n]->name, a->n, P, D);
                if (!same_floats(a->acc, b->acc, sizeof a->acc))
                    fail_msg("%s of %s, %d of %d x %d: mix", f->name, all[n]->name, a->n, P, D);
            }
            for (int j = 0; j < PARTS; j++) free(k[j]), free(v[j]);
        }
    wn_kernels_force(NULL);
    free(in), free(a), free(b);
}

/* ---- products of every kind -------------------------------------------------------------- */

enum {
    ROWS = 9,
    PAGES = 3,
    X_BYTES = sizeof(wn_codes_x) + WN_CODES_DEPTH / WN_CODES_BLOCK * WN_CODES_BLOCK_BYTES
};

typedef struct {
    wn_codes_product p;
    wn_fetcher fetcher;
    wn_codes_page pages[PAGES];
    float v[ROWS][WN_CODES_DEPTH], c[PAGES][ROWS][128];
    int32_t t[4][128], start[4][128];
    _Alignas(64) char x[(ROWS + 3) / 4][X_BYTES];
    uint8_t table[16];
    uint16_t s[WN_CODES_GROUPS * 128], m[WN_CODES_GROUPS * 128];
} trial;

static wn_codes_x *rows_at(trial *t, int row) { return (wn_codes_x *)(void *)t->x[row / 4]; }

static void quantise_rows(trial *t, const wn_codes_ops *ops, int depth, int top)
{
    for (int i = 0; i < ROWS; i++) ops->quantise(rows_at(t, i), i % 4, t->v[i], NULL, depth, top);
}

static void choose_product(trial *t, uint64_t *seed, wn_codes_kind kind, int n)
{
    int depth = 16 * (1 + (int)(test_rand(seed) % 20)),
        cols = 16 * (1 + (int)(test_rand(seed) % 4));
    wn_codes_product *p = &t->p;
    t->fetcher = (wn_fetcher){ .at = (const char *)t, .end = (const char *)(t + 1),
                               .rate = 1 + (size_t)n };
    *p = (wn_codes_product){ .pages = t->pages, .n_pages = 1 + n % PAGES, .fetcher = &t->fetcher,
                             .n_cols = cols, .depth = wn_codes_depth(kind, depth),
                             .table = t->table, .zero = (int)(test_rand(seed) % 256),
                             .shift = n & 1, .x = rows_at(t, 0), .x_stride = X_BYTES,
                             .c_stride = 128, .param_stride = 64, .col_group = cols, .t = t->t[0],
                             .t_stride = 128, .add = n % 2 };
    if (n % 3 == 0) {           /* what fills tiles, in as many groups as a page has */
        p->depth = 64 * (1 + n % 4);
        p->n_cols = n % 2 ? 64 : 128;
        p->param_stride = 128;
        p->col_group = p->n_cols;
    }
    if (n % 5 == 0) p->col_group = 16 * (1 + n % 2);
    if (p->col_group < p->n_cols) p->x_group = 0;       /* the same x for all of them */
    p->group = n % 4 ? 32 << n % 5 % 3 : p->depth;
    for (int i = 0; i < 16; i++) t->table[i] = (uint8_t)test_rand(seed);
    for (size_t i = 0; i < WN_COUNT(t->s); i++)
        t->s[i] = wn_elem_to_f16(test_randf(seed)), t->m[i] = wn_elem_to_f16(test_randf(seed));
    for (int i = 0; i < ROWS; i++)
        for (int d = 0; d < WN_CODES_DEPTH; d++) t->v[i][d] = test_randf(seed);
    for (int i = 0; i < 4 * 128; i++)
        t->start[i / 128][i % 128] = (int32_t)(test_rand(seed) % 1000000);
}

static void products_of_all_kinds_have_the_scalar_bits(void **state)
{
    (void)state;
    uint64_t seed = 32;
    trial *t = calloc(1, sizeof *t), *want = calloc(1, sizeof *want);
    for (int kind = 0; kind < WN_CODES_KINDS; kind++)
        for (int n = 0; n < 60; n++) {
            wn_codes_product *p = &t->p;
            fenced a[PAGES], b[PAGES];
            choose_product(t, &seed, (wn_codes_kind)kind, n);
            size_t low = wn_codes_plane_bytes(wn_codes_low((wn_codes_kind)kind), p->depth,
                                              p->n_cols);
            size_t high = wn_codes_plane_bytes(wn_codes_high((wn_codes_kind)kind), p->depth,
                                               p->n_cols);
            for (int k = 0; k < p->n_pages; k++) {
                a[k] = fence(low), b[k] = fence(high ? high : 1);
                for (size_t i = 0; i < low; i++) a[k].p[i] = (char)test_rand(&seed);
                for (size_t i = 0; i < high; i++) b[k].p[i] = (char)test_rand(&seed);
                t->pages[k] = (wn_codes_page){ .low = (const uint8_t *)a[k].p,
                                               .high = high ? (const uint8_t *)b[k].p : NULL,
                                               .s = t->s, .m = n % 3 ? t->m : NULL, .c = t->c[k][0],
                                               .x = wn_codes_integers(rows_at(t, 0)),
                                               .to = p->depth };
            }
            for (int k = 0; k < n_tables; k++) {
                quantise_rows(t, all[k]->codes, p->depth,
                              wn_codes_narrow((wn_codes_kind)kind) ? WN_CODES_Q_MAX
                                                                   : WN_CODES_X_MAX);
                memset(t->c, 0, sizeof t->c), memcpy(t->t, t->start, sizeof t->t);
                p->n_rows = 1 + n % ROWS;
                all[k]->planes->score[kind](p);
                quantise_rows(t, all[k]->codes, p->depth, WN_CODES_X_MAX);
                p->n_rows = 1 + n % 4;
                all[k]->planes->mix[kind](p);
                if (!k) memcpy(want, t, sizeof *t);
                if (memcmp(want->c, t->c, sizeof t->c))
                    fail_msg("kind %d, %d x %d, score: %s", kind, p->depth, p->n_cols,
                             all[k]->name);
                if (memcmp(want->t, t->t, sizeof t->t))
                    fail_msg("kind %d, %d x %d, mix: %s", kind, p->depth, p->n_cols, all[k]->name);
            }
            for (int k = 0; k < p->n_pages; k++) unfence(&a[k]), unfence(&b[k]);
        }
    free(t), free(want);
}

/* The largest integers there are do not leave int32: exact against 64 bits. */
static void the_largest_sums_are_exact(void **state)
{
    (void)state;
    trial *t = calloc(1, sizeof *t);
    uint8_t *low = malloc(WN_CODES_DEPTH * 16);
    for (int sign = -1; sign <= 1; sign += 2) {
        memset(low, sign > 0 ? 255 : 0, WN_CODES_DEPTH * 16);
        for (int d = 0; d < WN_CODES_DEPTH; d++) t->v[0][d] = 1;
        for (int k = 0; k < n_tables; k++) {
            wn_codes_x *x = rows_at(t, 0);
            t->pages[0] = (wn_codes_page){ .low = low, .x = wn_codes_integers(x),
                                           .to = WN_CODES_DEPTH };
            t->fetcher = (wn_fetcher){ .at = (const char *)t, .end = (const char *)(t + 1),
                                       .rate = 64 };
            t->p = (wn_codes_product){ .pages = t->pages, .n_pages = 1, .fetcher = &t->fetcher,
                                       .n_cols = 16, .depth = WN_CODES_DEPTH, .n_rows = 1,
                                       .t = t->t[0], .t_stride = 128, .col_group = 16 };
            quantise_rows(t, all[k]->codes, WN_CODES_DEPTH, WN_CODES_X_MAX);
            x->offset[0] = 0;
            all[k]->planes->mix[WN_CODES_8](&t->p);
            all[k]->codes->settle(t->c[0][0], t->t[0], x, 0, 16, 128, 0, false);
            float scale = 1.0f / WN_CODES_X_MAX;
            float want = fmaf(scale,
                              (float)((int64_t)WN_CODES_X_MAX * WN_CODES_DEPTH *
                                      (sign > 0 ? 127 : -128)),
                              0);
            for (int n = 0; n < 16; n++) assert_true(t->c[0][0][n] == want);
        }
    }
    free(low);
    free(t);
}

int main(void)
{
    n_tables = wn_kernels_all(all);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_have_the_scalar_bits),
        cmocka_unit_test(several_pages_have_the_scalar_bits),
        cmocka_unit_test(products_of_all_kinds_have_the_scalar_bits),
        cmocka_unit_test(the_largest_sums_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
