/* Matrix products: every table this CPU runs gives the bits of the scalar one, for every
 * type, shape, number of tokens and threads, packed and mapped; and the scalar one is
 * right, against double precision.
 *
 * Buffers end right before an unreadable page. Sizes are odd on purpose: panels are 16
 * rows, parts 64 rows and 512 tokens, tiles 3, 4, 6 or 16 tokens, chunks 256 columns.
 */
#include "tests/unit/check.h"

#include "base/alloc.h"
#include "kernel/kernel.h"
#include "kernel/matmul.h"
#include "kernel/matmul_ops.h"

#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- buffers that end at a wall ------------------------------------------------------ */

typedef struct {
    uint8_t *map, *data;
    size_t mapped;
} wall;

/* data is `bytes` long and ends at an unreadable page (aligned down to `align`). */
static wall wall_make(size_t bytes, size_t align)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (bytes + align + page - 1) / page * page;
    wall w = { .mapped = body + page };
    w.map = mmap(NULL, w.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(w.map != MAP_FAILED);
    assert_int_equal(mprotect(w.map + body, page, PROT_NONE), 0);
    w.data = w.map + (body - bytes) / align * align;
    return w;
}

static void wall_drop(wall *w) { munmap(w->map, w->mapped); }

/* ---- a problem: weights in both layouts, activations -------------------------------------- */

typedef struct {
    wn_matrix mapped, packed;
    int n_tokens;
    const float *x, *bias;
    wall file, pack, act, add;
} problem;

static const wn_type types[] = { WN_TYPE_Q8_0,   WN_TYPE_Q4_0,   WN_TYPE_Q4_1,  WN_TYPE_Q5_0,
                                 WN_TYPE_Q5_1,   WN_TYPE_IQ4_NL, WN_TYPE_MXFP4, WN_TYPE_Q2_K,
                                 WN_TYPE_Q3_K,   WN_TYPE_Q4_K,   WN_TYPE_Q5_K,  WN_TYPE_Q6_K,
                                 WN_TYPE_IQ4_XS, WN_TYPE_F16,    WN_TYPE_BF16,  WN_TYPE_F32 };

/* Where a block keeps its half-float scales; -1 ends the list. MXFP4 has none: its first byte
 * is an exponent. */
static const int *scales_of(wn_type t)
{
    static const int none[] = { -1 }, at_0[] = { 0, -1 }, at_0_2[] = { 0, 2, -1 },
                     at_80_82[] = { 80, 82, -1 }, at_108[] = { 108, -1 }, at_208[] = { 208, -1 };
    switch (t) {
    case WN_TYPE_Q4_1: case WN_TYPE_Q5_1: case WN_TYPE_Q4_K: case WN_TYPE_Q5_K: return at_0_2;
    case WN_TYPE_Q2_K: return at_80_82;
    case WN_TYPE_Q3_K: return at_108;
    case WN_TYPE_Q6_K: return at_208;
    case WN_TYPE_MXFP4: return none;
    default: return wn_pack_block(t) ? at_0 : none;
    }
}

/* All scales of a row of blocks become 1. */
static void scales_of_one(uint8_t *w, size_t bytes, wn_type t)
{
    size_t block = wn_type_find((uint32_t)t)->block_bytes;
    for (size_t b = 0; b < bytes; b += block) {
        for (const int *at = scales_of(t); *at >= 0; at++)
            memcpy(w + b + *at, (uint8_t[]){ 0x00, 0x3c }, 2);
        if (t == WN_TYPE_MXFP4) w[b] = 128;
    }
}

/* Random codes, all 256 byte values alike, and scales of any sign about 2^-8 .. 1. */
static void random_weights(uint8_t *w, size_t bytes, wn_type t, uint64_t *seed)
{
    size_t block = wn_type_find((uint32_t)t)->block_bytes;
    for (size_t i = 0; i < bytes; i++) w[i] = (uint8_t)test_rand(seed);
    for (size_t b = 0; b < bytes; b += block) {
        for (const int *at = scales_of(t); *at >= 0; at++) {
            uint16_t h = wn_f32_to_f16(test_randf(seed));
            memcpy(w + b + *at, &h, 2);
        }
        if (t == WN_TYPE_MXFP4) w[b] = (uint8_t)(120 + w[b] % 9);
        float f = test_randf(seed);
        uint16_t h = t == WN_TYPE_F16 ? wn_f32_to_f16(f) : wn_f32_to_bf16(f);
        if (t == WN_TYPE_F32) memcpy(w + b, &f, 4);
        if (t == WN_TYPE_F16 || t == WN_TYPE_BF16) memcpy(w + b, &h, 2);
    }
}

static problem make(wn_type t, int n_rows, int n_cols, int n_tokens, uint64_t seed)
{
    size_t row = wn_type_row_bytes(t, n_cols), align = t == WN_TYPE_F32 ? 4 : 2;
    size_t packed = wn_matrix_packed_bytes(t, n_rows, n_cols);
    problem p = { .n_tokens = n_tokens };
    p.file = wall_make(row * (size_t)n_rows, align);
    p.act = wall_make(sizeof(float) * (size_t)n_tokens * (size_t)n_cols, 4);
    p.add = wall_make(sizeof(float) * (size_t)n_rows, 4);
    random_weights(p.file.data, row * (size_t)n_rows, t, &seed);
    for (int i = 0; i < n_tokens * n_cols; i++)
        ((float *)(void *)p.act.data)[i] = test_randf(&seed);
    for (int i = 0; i < n_rows; i++) ((float *)(void *)p.add.data)[i] = test_randf(&seed);
    p.x = (const float *)(const void *)p.act.data;
    p.bias = (const float *)(const void *)p.add.data;
    p.mapped = p.packed = (wn_matrix){ .type = t, .n_rows = n_rows, .n_cols = n_cols,
                                       .data = p.file.data };
    if (packed) {
        p.pack = wall_make(packed, 32);
        p.packed.packed = true;
        p.packed.data = p.pack.data;
        int half = n_rows / 32 * 16;            /* two parts, as two threads would */
        wn_matrix_pack(p.pack.data, p.file.data, t, n_rows, n_cols, half, n_rows);
        wn_matrix_pack(p.pack.data, p.file.data, t, n_rows, n_cols, 0, half);
    }
    return p;
}

/* Packs again after a test has written into the file's bytes. */
static void repack(problem *p)
{
    const wn_matrix *m = &p->mapped;
    if (p->packed.packed)
        wn_matrix_pack(p->pack.data, m->data, m->type, m->n_rows, m->n_cols, 0, m->n_rows);
}

static void drop(problem *p)
{
    wall_drop(&p->file), wall_drop(&p->act), wall_drop(&p->add);
    if (p->packed.packed) wall_drop(&p->pack);
}

static wn_threads *team;        /* of two */

/* out (n_tokens, n_rows), malloc'ed; what lies between the rows of out stays untouched. */
static float *multiply(const problem *p, const wn_matrix *w, const wn_kernels *k, wn_threads *t,
                       const float *x, int n_tokens, bool with_bias)
{
    size_t rows = (size_t)w->n_rows, stride = rows + 3;
    wn_kernels_force(k);
    wn_act_kind kind = wn_act_kind_for(w->type);
    void *buf = wn_alloc_aligned(wn_act_bytes(kind, n_tokens, w->n_cols) + 64);
    void *scratch = wn_alloc_aligned(wn_matmul_scratch_bytes(wn_threads_count(t)));
    float *wide = wn_alloc(sizeof(float) * stride * (size_t)n_tokens);
    float *out = wn_alloc(sizeof(float) * rows * (size_t)n_tokens + 4);
    for (size_t i = 0; i < stride * (size_t)n_tokens; i++) wide[i] = 12345;
    wn_act a;
    wn_act_prepare(&a, kind, x, n_tokens, w->n_cols, buf, t);
    wn_product job = { .w = w, .out = wide, .out_stride = stride,
                       .bias = with_bias ? p->bias : NULL };
    wn_matmul(&job, 1, &a, scratch, t);
    for (int i = 0; i < n_tokens; i++) {
        memcpy(out + (size_t)i * rows, wide + (size_t)i * stride, sizeof(float) * rows);
        for (size_t j = rows; j < stride; j++) assert_true(wide[(size_t)i * stride + j] == 12345);
    }
    wn_free(buf), wn_free(scratch), wn_free(wide);
    wn_kernels_force(NULL);
    return out;
}

/* Equal bits; two NaNs are equal whatever their payload. */
static void same(const float *a, const float *b, size_t n, const char *what, const problem *p)
{
    for (size_t i = 0; i < n; i++) {
        if (!memcmp(&a[i], &b[i], 4) || (isnan(a[i]) && isnan(b[i]))) continue;
        fail_msg("%s: %s %d x %d, %d tokens: output %zu is %a, not %a", what,
                 wn_type_find((uint32_t)p->mapped.type)->name, p->mapped.n_rows, p->mapped.n_cols,
                 p->n_tokens, i, (double)a[i], (double)b[i]);
    }
}

/* All tables, both layouts, one thread and two against scalar on mapped weights. */
static void check_all(const problem *p)
{
    const wn_kernels *all[WN_KERNELS_MAX];
    int n = wn_kernels_all(all);
    size_t outs = (size_t)p->n_tokens * (size_t)p->mapped.n_rows;
    float *want = multiply(p, &p->mapped, all[0], NULL, p->x, p->n_tokens, true);
    for (int k = 0; k < n; k++) {
        float *got = multiply(p, &p->packed, all[k], NULL, p->x, p->n_tokens, true);
        same(got, want, outs, all[k]->name, p);
        wn_free(got);
        got = multiply(p, &p->packed, all[k], team, p->x, p->n_tokens, true);
        same(got, want, outs, "two threads", p);
        wn_free(got);
        got = multiply(p, &p->mapped, all[k], team, p->x, p->n_tokens, true);
        same(got, want, outs, "mapped", p);
        wn_free(got);
    }
    wn_free(want);
}

/* ---- tests ------------------------------------------------------------------------------ */

/* Protects: session files and caches made by one table mean the same in another; remainder
 * tiles, panels and parts. */
static void tables_agree(void **state)
{
    static const int rows[] = { 1, 16, 31, 64, 65, 147 },
                     tokens[] = { 1, 2, 3, 4, 5, 6, 7, 8, 11, 13 };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++)
        for (size_t r = 0; r < WN_COUNT(rows); r++)
            for (size_t t = 0; t < WN_COUNT(tokens); t++) {
                int block = wn_pack_block(types[i]);
                int cols = block == 256  ? 512
                           : block == 32 ? 256 + 32 * (1 + (int)(t % 5))
                                         : 253 + 7 * (int)t;
                problem p = make(types[i], rows[r], cols, tokens[t], 1 + r * 100 + t);
                check_all(&p);
                drop(&p);
            }
}

/* Protects: rows shorter than a chunk, and float rows shorter than a vector. */
static void narrow_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++)
        for (int n = 1; n <= 40; n += n < 18 ? 1 : 11)
            for (int tokens = 1; tokens <= 7; tokens += 3) {
                int block = wn_pack_block(types[i]);
                if (block && (n > 8 || (block == 256 && n > 2))) continue;
                problem p = make(types[i], 5 + n, block ? n * block : n, tokens, (uint64_t)n);
                check_all(&p);
                drop(&p);
            }
}

/* Protects: more tokens than a part holds, and the blocks of tokens of float weights. */
static void many_tokens(void **state)
{
    static const int tokens[] = { 48, 49, 97, 515 };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++)
        for (size_t t = 0; t < WN_COUNT(tokens); t++) {
            problem p = make(types[i], tokens[t] > 500 ? 17 : 70, 256, tokens[t], 7 + t);
            check_all(&p);
            drop(&p);
        }
}

/* Protects: whole groups of 16 tokens and what is left over, one panel to four, and a last
 * chunk that is short: the tables agree at every number of tokens. */
static void every_number_of_tokens(void **state)
{
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++) {
        int block = wn_pack_block(types[i]);
        if (!block) continue;
        for (int tokens = 8; tokens <= 67; tokens++) {
            int cols = block == 256 ? 512 : 256 + 32 * (1 + tokens % 8);
            problem p = make(types[i], 1 + 16 * (tokens % 4) + tokens % 16, cols, tokens,
                             300 + (uint64_t)tokens);
            check_all(&p);
            drop(&p);
        }
    }
}

/* Protects: no saturation where only many tokens go: all weights and activations at the
 * same end of their range, as below. */
static void extremes_of_many_tokens(void **state)
{
    static const uint8_t fills[] = { 0x80, 0x7f, 0xff, 0x00, 0x81 };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++)
        for (size_t f = 0; f < WN_COUNT(fills) && wn_pack_block(types[i]); f++) {
            problem p = make(types[i], 20, 512, 40, 5);
            size_t bytes = wn_type_row_bytes(types[i], 512) * 20;
            float *x = (float *)(void *)p.act.data;
            memset(p.file.data, fills[f], bytes);
            scales_of_one(p.file.data, bytes, types[i]);
            for (int k = 0; k < 512 * 40; k++)
                x[k] = k / 512 % 3 == 0 ? 1.0f : k / 512 % 3 == 1 ? -1.0f : k % 2 ? 1.0f : -1.0f;
            repack(&p);
            check_all(&p);
            drop(&p);
        }
}

/* Protects: determinism over batch and chunk sizes: a token's row does not depend on who
 * is multiplied with it. */
static void one_token_equals_its_row_of_many(void **state)
{
    const wn_kernels *all[WN_KERNELS_MAX];
    int n = wn_kernels_all(all);
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++)
        for (int k = 0; k < n; k++) {
            int cols = wn_act_kind_for(types[i]) == WN_ACT_F32 ? 1037 : 1024, rows = 83,
                tokens = 61;
            problem p = make(types[i], rows, cols, tokens, 3);
            float *many = multiply(&p, &p.packed, all[k], team, p.x, tokens, false);
            for (int t = 0; t < tokens; t += 6)
                for (int width = 1; width <= 3; width++) {
                    if (t + width > tokens) continue;
                    float *one = multiply(&p, &p.packed, all[k], NULL,
                                          p.x + (size_t)t * (size_t)cols, width, false);
                    same(one, many + (size_t)t * (size_t)rows, (size_t)(width * rows), "alone", &p);
                    wn_free(one);
                }
            wn_free(many);
            drop(&p);
        }
}

/* Protects: the definition itself. Tolerance: half a step of the activations' codes for
 * every weight they meet, plus 2^-20 of the sum of magnitudes for the float chains (512
 * roundings of 2^-24 at the very most in each, spread over 16 or more chains). */
static void close_to_double_precision(void **state)
{
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++) {
        int rows = 33, cols = 768, tokens = 5;
        wn_act_kind kind = wn_act_kind_for(types[i]);
        int group = kind == WN_ACT_Q256 ? 256 : 32;
        problem p = make(types[i], rows, cols, tokens, 11);
        float *got = multiply(&p, &p.packed, NULL, team, p.x, tokens, false);
        float *w = wn_alloc(sizeof(float) * (size_t)cols);
        for (int r = 0; r < rows; r++) {
            wn_matrix_row(&p.packed, r, w);
            for (int t = 0; t < tokens; t++) {
                const float *x = p.x + (size_t)t * (size_t)cols;
                double want = 0, bound = 0;
                for (int g = 0; g < cols; g += group) {
                    double max = 0, weight = 0;
                    for (int k = g; k < g + group; k++) {
                        want += (double)w[k] * (double)x[k];
                        bound += fabs((double)w[k] * (double)x[k]) * 0x1p-20;
                        max = fmax(max, fabs((double)x[k]));
                        weight += fabs((double)w[k]);
                    }
                    if (kind != WN_ACT_F32) bound += weight * max / 253;
                }
                /* the offset codes of K-quants are larger than the weights they make */
                if (wn_type_has_min(types[i]) || types[i] == WN_TYPE_Q6_K) bound *= 4;
                double error = fabs((double)got[t * rows + r] - want);
                if (error > bound)
                    fail_msg("%s row %d token %d: off by %g, bound %g",
                             wn_type_find((uint32_t)types[i])->name, r, t, error, bound);
            }
        }
        wn_free(w), wn_free(got);
        drop(&p);
    }
}

/* Protects: no saturation anywhere: every code at an end of its range against activations
 * at theirs, in one sign and in alternating ones; zeros; all the largest sub-scales. */
static void extreme_values_do_not_saturate(void **state)
{
    static const uint8_t fills[] = { 0x80, 0x7f, 0xff, 0x00, 0x81, 0x0f, 0xf0 };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++) {
        if (!wn_pack_block(types[i])) continue;
        for (size_t f = 0; f < WN_COUNT(fills); f++)
            for (int sign = 0; sign < 4; sign++) {
                problem p = make(types[i], 20, 512, 6, 5);
                size_t bytes = wn_type_row_bytes(types[i], 512) * 20;
                float *x = (float *)(void *)p.act.data;
                memset(p.file.data, fills[f], bytes);
                scales_of_one(p.file.data, bytes, types[i]);
                for (int k = 0; k < 512 * 6; k++)
                    x[k] = sign == 0   ? 1.0f
                           : sign == 1 ? -1.0f
                           : sign == 2 ? (k % 2 ? 1.0f : -1.0f)
                                       : 0.0f;
                repack(&p);
                check_all(&p);
                /* and right: activations of +-1 or 0 are exact, sums of 512 small integers too */
                float *got = multiply(&p, &p.packed, NULL, NULL, p.x, 6, false), w[512];
                for (int r = 0; r < 20; r++) {
                    double want = 0, size = 0;
                    wn_matrix_row(&p.packed, r, w);
                    for (int k = 0; k < 512; k++) {
                        want += (double)w[k] * (double)x[k];
                        size += fabs((double)w[k]);
                    }
                    assert_true(fabs((double)got[r] - want) <= size * 0x1p-20);
                }
                wn_free(got);
                drop(&p);
            }
    }
}

/* Protects: a model file with NaN or infinite scales, or activations that blew up, must
 * neither crash nor differ between tables. */
static void nan_and_infinity(void **state)
{
    static const uint16_t bad[] = { 0x7c00, 0xfc00, 0x7e00, 0x0001 };
    static const float worse[] = { INFINITY, -INFINITY, NAN, 1e-42f, 3e38f };
    (void)state;
    for (size_t i = 0; i < 2 * WN_COUNT(types); i++) {
        int tokens = i % 2 ? 29 : 7;            /* few and many */
        wn_type type = types[i / 2];
        problem p = make(type, 20, 512, tokens, 9);
        float *x = (float *)(void *)p.act.data;
        for (size_t b = 0; b < WN_COUNT(bad); b++) {
            size_t at = b * 3 * wn_type_row_bytes(type, 512);
            const int *s = scales_of(type);
            memcpy(p.file.data + at + (*s >= 0 ? *s : 0), &bad[b], 2);
        }
        for (size_t t = 0; t < WN_COUNT(worse); t++) x[t * 512 + 37 + t] = worse[t];
        for (int k = 0; k < 512; k++) x[3 * 512 + k] = 1e-42f * (float)k;
        repack(&p);
        check_all(&p);
        float *got = multiply(&p, &p.packed, NULL, NULL, p.x, tokens, false);
        for (int r = 0; r < 20; r++) assert_true(isnan(got[2 * 20 + r]));   /* not lost */
        wn_free(got);
        drop(&p);
    }
}

/* Protects: embedding rows of packed models; and that packing loses nothing. */
static void rows_read_back_from_packed(void **state)
{
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++) {
        problem p = make(types[i], 37, 768 - (wn_pack_block(types[i]) == 32 ? 96 : 0), 1, 13);
        float a[768], b[768];
        for (int r = 0; r < 37; r++) {
            wn_matrix_row(&p.mapped, r, a);
            wn_matrix_row(&p.packed, r, b);
            assert_memory_equal(a, b, sizeof(float) * (size_t)p.mapped.n_cols);
        }
        drop(&p);
    }
}

/* Protects: q, k and v as one hand-out, each with an output and a width of its own. */
static void products_of_one_job(void **state)
{
    (void)state;
    problem q = make(WN_TYPE_Q4_K, 130, 512, 9, 1), v = make(WN_TYPE_Q6_K, 33, 512, 9, 2);
    float *want_q = multiply(&q, &q.packed, NULL, NULL, q.x, 9, true);
    float *want_v = multiply(&v, &v.packed, NULL, NULL, q.x, 9, false);
    void *buf = wn_alloc_aligned(wn_act_bytes(WN_ACT_Q256, 9, 512));
    void *scratch = wn_alloc_aligned(wn_matmul_scratch_bytes(2));
    float *out = wn_alloc(sizeof(float) * 9 * 163);
    wn_act a;
    wn_act_prepare(&a, WN_ACT_Q256, q.x, 9, 512, buf, team);
    wn_product jobs[] = { { .w = &q.packed, .out = out, .out_stride = 163, .bias = q.bias },
                          { .w = &v.packed, .out = out + 130, .out_stride = 163 } };
    wn_matmul(jobs, 2, &a, scratch, team);
    for (int t = 0; t < 9; t++) {
        same(out + t * 163, want_q + t * 130, 130, "first of two", &q);
        same(out + t * 163 + 130, want_v + t * 33, 33, "second of two", &v);
    }
    wn_free(buf), wn_free(scratch), wn_free(out), wn_free(want_q), wn_free(want_v);
    drop(&q), drop(&v);
}

/* Protects: a mixture of experts: each row of each expert's run is the plain product of that
 * row with that expert's matrix, whoever shares the run; runs of one row to more than a
 * part, experts without rows, tokens that go to several; slices of a stack, in both layouts. */
static void experts_equal_plain_products(void **state)
{
    enum { EXPERTS = 7, ROWS = 80, TOKENS = 61 };
    static const int of_expert[EXPERTS] = { 1, 0, 19, 3, 0, 600, 40 };
    const wn_kernels *all[WN_KERNELS_MAX];
    int n_tables = wn_kernels_all(all), n_rows = 0;
    (void)state;
    for (int e = 0; e < EXPERTS; e++) n_rows += of_expert[e];
    int *rows = wn_alloc(sizeof(int) * (size_t)n_rows);
    for (int i = 0; i < n_rows; i++) rows[i] = i * 17 % TOKENS;
    for (size_t i = 0; i < WN_COUNT(types); i++) {
        int cols = wn_pack_block(types[i]) == 256 ? 512 : wn_pack_block(types[i]) ? 288 : 77;
        wn_act_kind kind = wn_act_kind_for(types[i]);
        problem p = make(types[i], EXPERTS * ROWS, cols, TOKENS, 21);
        float *want = multiply(&p, &p.mapped, all[0], NULL, p.x, TOKENS, true);
        float *out = wn_alloc(sizeof(float) * (size_t)n_rows * (ROWS + 1));
        void *act = wn_alloc_aligned(wn_act_bytes(kind, TOKENS, cols) + 64);
        void *picked = wn_alloc_aligned(wn_act_pick_bytes(kind, n_rows, cols));
        void *scratch = wn_alloc_aligned(wn_matmul_scratch_bytes(2));
        for (int k = 0; k < 4 * n_tables; k++) {
            wn_threads *t = k % 2 ? team : NULL;
            wn_matrix w[EXPERTS];
            wn_product jobs[EXPERTS];
            wn_act a, b;
            int n = 0, first = 0;
            wn_kernels_force(all[k / 4]);
            wn_act_prepare(&a, kind, p.x, TOKENS, cols, act, t);
            wn_act_pick(&b, &a, rows, n_rows, picked, t);
            for (int e = 0; e < EXPERTS; first += of_expert[e++]) {
                w[e] = wn_matrix_slice(k % 4 < 2 ? &p.packed : &p.mapped, e * ROWS, ROWS);
                if (!of_expert[e]) continue;
                jobs[n++] = (wn_product){ .w = &w[e], .out = out + (size_t)first * (ROWS + 1),
                                          .out_stride = ROWS + 1, .bias = p.bias + e * ROWS,
                                          .first = first, .n = of_expert[e] };
            }
            wn_matmul(jobs, n, &b, scratch, t);
            wn_kernels_force(NULL);
            for (int e = 0, r = 0; e < EXPERTS; e++)
                for (int end = r + of_expert[e]; r < end; r++)
                    same(out + (size_t)r * (ROWS + 1),
                         want + (size_t)(rows[r] * EXPERTS + e) * ROWS, ROWS, all[k / 4]->name, &p);
        }
        wn_free(want), wn_free(out), wn_free(act), wn_free(picked), wn_free(scratch);
        drop(&p);
    }
    wn_free(rows);
}

/* Protects: what cannot be multiplied is said before anyone tries. */
static void support_is_stated(void **state)
{
    (void)state;
    assert_true(wn_matmul_supports(WN_TYPE_Q8_0, 96));
    assert_false(wn_matmul_supports(WN_TYPE_Q8_0, 100));
    assert_true(wn_matmul_supports(WN_TYPE_Q6_K, 512));
    assert_false(wn_matmul_supports(WN_TYPE_Q6_K, 320));
    assert_true(wn_matmul_supports(WN_TYPE_BF16, 5));
    assert_false(wn_matmul_supports(WN_TYPE_F32, 0));
    assert_false(wn_matmul_supports(WN_TYPE_I32, 32));
    assert_int_equal(wn_matrix_packed_bytes(WN_TYPE_Q4_K, 17, 256), 32 * 144);
    assert_int_equal(wn_matrix_packed_bytes(WN_TYPE_F16, 17, 256), 0);
}

int main(void)
{
    const wn_kernels *all[WN_KERNELS_MAX];
    int n = wn_kernels_all(all);
    for (int i = n; i < WN_KERNELS_MAX; i++) printf("skipped: a table this CPU cannot run\n");
    if (wn_threads_open(&team, 2, NULL)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_agree),
        cmocka_unit_test(narrow_rows),
        cmocka_unit_test(many_tokens),
        cmocka_unit_test(every_number_of_tokens),
        cmocka_unit_test(extremes_of_many_tokens),
        cmocka_unit_test(one_token_equals_its_row_of_many),
        cmocka_unit_test(close_to_double_precision),
        cmocka_unit_test(extreme_values_do_not_saturate),
        cmocka_unit_test(nan_and_infinity),
        cmocka_unit_test(rows_read_back_from_packed),
        cmocka_unit_test(products_of_one_job),
        cmocka_unit_test(experts_equal_plain_products),
        cmocka_unit_test(support_is_stated),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    wn_threads_close(team);
    return failed;
}
