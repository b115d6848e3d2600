/* Pages that are read by a book: a coupled code names the nearest point, a code of a channel the
 * nearest level; keys are coded as they were before rotation and read where they stand, near and
 * far, moved or not; score and mix are those of the decoded rows, the same bits for any number of
 * queries, any part of a page and every table of kernels; masked slots do not count; a slot that is
 * not finite spoils itself alone. */
#include "tests/support/calibration.h"
#include "tests/unit/check.h"

#include "kernel/elem.h"
#include "page/cq.h"
#include "page/nuq.h"

#include <math.h>

enum { DIM_MAX = 256, Q = 11 };         /* more than go by codes */

static const int dims[] = { 64, 128, 80, 40, 20 };
static const int sizes[] = { 64, 4, 16, 32, 8 };

#define EACH_FORMAT(f)                    \
    for (int i_ = 0; wn_format_at(i_); i_++) \
        for (const wn_format *f = wn_format_at(i_); f && f->calibrated; f = NULL)

typedef struct {
    wn_format k_format, v_format;
    const wn_format *f, *raw;
    wn_book kb, vb;
    wn_turn turn;
    double rate[DIM_MAX / 2];
    int P, D, n;
    uint64_t keep;
    wn_page_place place;
    int32_t pos[64];
    float k[64][DIM_MAX], v[64][DIM_MAX];
    void *raw_k, *raw_v, *fk, *fv, *tmp;
} page;

/* turns: 0 none, 1 neox, 2 neighbours; far: positions with gaps, beyond the tables. */
static page *new_page(const wn_format *f, const wn_format *raw, int P, int D, int turns, bool far,
                      uint64_t *seed)
{
    page *p = calloc(1, sizeof *p);
    int turned = D > 20 ? D / 4 * 2 : D;        /* some heads turn some of their channels only */
    *p = (page){ .f = f, .raw = raw, .k_format = *f, .v_format = *f, .P = P, .D = D, .n = P,
                 .keep = ~0ull };
    p->kb = test_book(f, D, false, seed);
    p->vb = test_book(f, D, true, seed);
    for (int j = 0; j < turned / 2; j++) p->rate[j] = pow(10000, -2.0 * j / turned);
    if (turns)
        assert_int_equal(wn_turn_init(&p->turn, turned, turns == 1, p->rate, 1000, NULL), WN_OK);
    p->kb.turn = turns ? &p->turn : NULL;
    p->k_format.book = &p->kb, p->v_format.book = &p->vb;
    p->place.pos0 = 128;
    for (int s = 0; s < 64; s++)
        p->pos[s] = (s ? p->pos[s - 1] : 7) + 1 + (int)(test_rand(seed) % 60);
    if (far) p->place.pos = p->pos;
    p->raw_k = calloc(1, raw->k_bytes(P, D)), p->raw_v = calloc(1, raw->v_bytes(P, D));
    /* malloc: asan sees the end */
    p->fk = malloc(f->k_bytes(P, D)), p->fv = malloc(f->v_bytes(P, D));
    p->tmp = aligned_alloc(64, wn_format_tmp_bytes(P, D));
    for (int s = 0; s < P; s++)
        for (int d = 0; d < D; d++)
            p->k[s][d] = 2 * test_randf(seed), p->v[s][d] = 2 * test_randf(seed);
    return p;
}

static void free_page(page *p)
{
    free(p->raw_k), free(p->raw_v), free(p->fk), free(p->fv), free(p->tmp);
    test_book_release(&p->kb), test_book_release(&p->vb);
    wn_turn_release(&p->turn);
    free(p);
}

static int32_t pos_of(const page *p, int s)
{
    return p->place.pos ? p->place.pos[s] : p->place.pos0 + s;
}

static void encode(page *p)
{
    p->raw->put_k(p->raw_k, p->P, 0, p->k[0], DIM_MAX, p->P, p->D);
    p->raw->put_v(p->raw_v, p->P, 0, p->v[0], DIM_MAX, p->P, p->D);
    for (int s = 0; s < p->P; s++) {
        p->raw->get_k(p->raw_k, p->P, s, p->k[s], p->D);
        p->raw->get_v(p->raw_v, p->P, s, p->v[s], p->D);
    }
    wn_format_encode_k(&p->k_format, p->fk, p->raw_k, p->raw, p->P, p->n, p->keep, p->D, p->place);
    wn_format_encode_v(&p->v_format, p->fv, p->raw_v, p->raw, p->P, p->n, p->keep, p->D);
}

static void get(const page *p, bool of_v, int s, float *row)
{
    if (of_v) wn_format_get_v(&p->v_format, p->fv, p->P, s, row, p->D);
    else wn_format_get_k(&p->k_format, p->fk, p->P, s, pos_of(p, s), row, p->D);
}

static bool live(const page *p, int s) { return s < p->n && (p->keep >> s & 1); }

/* x turned by n positions, in double. */
static void turn(const page *p, const float *x, int n, double *out)
{
    int half = p->turn.n_dims / 2;
    for (int d = 0; d < p->D; d++) out[d] = (double)x[d];
    for (int j = 0; j < half; j++) {
        int a = p->turn.neox ? j : 2 * j, b = p->turn.neox ? j + half : 2 * j + 1;
        double c = cos(p->rate[j] * n), s = sin(p->rate[j] * n);
        out[a] = c * (double)x[a] - s * (double)x[b];
        out[b] = s * (double)x[a] + c * (double)x[b];
    }
}

/* ---- coupled codes ---------------------------------------------------------------------- */

static double distance(const double *x, const float *point, const float *weight, int n)
{
    double sum = 0;
    for (int d = 0; d < n; d++) sum += pow((double)weight[d] * (x[d] - (double)point[d]), 2);
    return sum;
}

/* What is read is a point, turned to its position, and no point was nearer. */
static void check_nearest(const page *p, bool of_v, int s)
{
    const wn_book *b = of_v ? &p->vb : &p->kb;
    int c = wn_cq_coupled(p->f), at = of_v ? 0 : pos_of(p, s);
    float row[DIM_MAX];
    double x[DIM_MAX], got[DIM_MAX];
    get(p, of_v, s, row);
    turn(p, of_v ? p->v[s] : p->k[s], of_v ? 0 : -at, x);
    turn(p, row, of_v ? 0 : -at, got);
    if (of_v)
        for (int d = 0; d < p->D; d++) x[d] = (double)p->v[s][d], got[d] = (double)row[d];
    for (int g = 0; g < wn_cq_groups(c, p->D); g++) {
        const float *points = b->x + wn_cq_points_at(c, p->D, g), *w = b->x + g * c;
        int n = WN_MIN(c, p->D - g * c), best = 0;
        double off = 0;
        for (int i = 1; i < WN_CQ_POINTS; i++)
            if (distance(x + g * c, points + i * c, w, n) <
                distance(x + g * c, points + best * c, w, n))
                best = i;
        float now[8];
        for (int d = 0; d < n; d++) now[d] = (float)got[g * c + d];
        double is = distance(x + g * c, now, w, n),
               least = distance(x + g * c, points + best * c, w, n);
        if (!(is <= least + 1e-4 * (1 + least)))
            fail_msg("%s: slot %d, group %d: %g, another point has %g", p->f->name, s, g, is,
                     least);
        for (int i = 0; i < WN_CQ_POINTS; i++) {        /* it is one of the points */
            double d = distance(got + g * c, points + i * c, w, n);
            if (!i || d < off) off = d;
        }
        assert_true(off < 1e-9);
    }
}

/* ---- codes of channels --------------------------------------------------------------------- */

/* Of K each number is the nearest of its channel's values, of V within what the widest gap and the
 * fit of s allow; the one of 64 that is kept apart is nearly itself. */
static void check_levels(const page *p, bool of_v, int s)
{
    bool sparse;
    int count = 1 << wn_nuq_bits(p->f, &sparse);
    float row[DIM_MAX];
    double x[DIM_MAX], got[DIM_MAX];
    get(p, of_v, s, row);
    turn(p, of_v ? p->v[s] : p->k[s], of_v ? 0 : -pos_of(p, s), x);
    turn(p, row, of_v ? 0 : -pos_of(p, s), got);
    for (int d = 0; d < p->D && of_v; d++) x[d] = (double)p->v[s][d], got[d] = (double)row[d];
    for (int from = 0; from < p->D; from += 64) {
        int exact = 0, n = WN_MIN(64, p->D - from);
        double most = 0;
        for (int k = 0; k < n; k++) most = fmax(most, fabs(x[from + k]));
        for (int k = 0; k < n; k++) {
            const float *values = (const float *)p->kb.read + (from + k) * 16;
            double off = fabs(got[from + k] - x[from + k]),
                   may = of_v ? most * (1.0 / count + 0.25) : INFINITY;
            for (int u = 0; u < count && !of_v; u++)
                may = fmin(may, fabs((double)values[u] - x[from + k]));
            if (!(off <= may * 1.001 + 1e-4))
                fail_msg("%s: slot %d, channel %d: off by %g of %g", p->f->name, s, from + k, off,
                         may);
            exact += off <= 1e-3 * (1 + most) && may > 2e-3 * (1 + most);
        }
        assert_true(exact >= (sparse && !of_v));
    }
}

static void check_codes(const page *p, int s)
{
    for (int v = 0; v < 2; v++) (wn_cq_coupled(p->f) ? check_nearest : check_levels)(p, v, s);
}

static void codes_name_the_nearest_point(void **state)
{
    (void)state;
    static const wn_format *const raws[] = { &wn_format_f16, &wn_format_bf16, &wn_format_f32 };
    uint64_t seed = 31;
    EACH_FORMAT(f)
        for (int t = 0; t < 15; t++) {
            page *p = new_page(f, raws[t % 3], sizes[t % 5], dims[(t + t / 5) % 5], t % 3, t & 1,
                               &seed);
            if (t % 4 == 1) p->n = 1 + (int)(test_rand(&seed) % (uint64_t)p->P);
            if (t % 4 == 2) p->keep = test_rand(&seed) | 1;
            encode(p);
            for (int s = 0; s < p->P; s++)
                if (live(p, s)) check_codes(p, s);
            free_page(p);
        }
}

/* ---- score and mix ----------------------------------------------------------------------- */

typedef struct { float q[Q][DIM_MAX], w[Q][64], out[Q][64], acc[Q][DIM_MAX]; } answer;

static answer *new_answer(uint64_t *seed)
{
    answer *a = calloc(1, sizeof *a);
    for (int i = 0; i < Q; i++) {
        for (int d = 0; d < DIM_MAX; d++)
            a->q[i][d] = test_randf(seed), a->acc[i][d] = test_randf(seed);
        for (int s = 0; s < 64; s++) a->w[i][s] = fabsf(test_randf(seed));
    }
    return a;
}

static void compute(const page *p, answer *a, int n_q, int first, int n)
{
    wn_page_place place = { p->place.pos ? p->place.pos + first : NULL, p->place.pos0 + first };
    p->f->score(&(wn_page_score){ .out = a->out[0], .out_stride = 64, .q = a->q[0],
                                  .q_stride = DIM_MAX, .n_q = n_q, .frame = p->fk, .P = p->P,
                                  .first = first, .n = n, .head_dim = p->D, .tmp = p->tmp,
                                  .book = &p->kb, .place = place });
    p->f->mix(&(wn_page_mix){ .acc = a->acc[0], .acc_stride = DIM_MAX, .w = a->w[0], .w_stride = 64,
                              .n_q = n_q, .frame = p->fv, .P = p->P, .first = first, .n = n,
                              .head_dim = p->D, .tmp = p->tmp, .book = &p->vb });
}

/* Chains of D and of n products in f32: each rounding is half a unit of the largest partial sum. V
 * on levels is mixed on its codes, the weights rounded to 16 bits (tests/unit/page/coded.c). */
static void products_are_those_of_the_decoded_page(void **state)
{
    (void)state;
    uint64_t seed = 32;
    EACH_FORMAT(f)
        for (int t = 0; t < 15; t++) {
            page *p = new_page(f, &wn_format_f16, sizes[t % 5], dims[(t + t / 5) % 5], t % 3, t & 1,
                               &seed);
            answer *a = new_answer(&seed), *start = malloc(sizeof *start);
            int first = (int)(test_rand(&seed) % (uint64_t)p->P), n_q = 1 + t % Q;
            int n = 1 + (int)(test_rand(&seed) % (uint64_t)(p->P - first));
            float row[DIM_MAX];
            encode(p);
            *start = *a;
            compute(p, a, n_q, first, n);
            for (int i = 0; i < n_q; i++) {
                double sum[DIM_MAX], size[DIM_MAX], most = 0;
                for (int d = 0; d < p->D; d++)
                    sum[d] = (double)start->acc[i][d], size[d] = fabs(sum[d]);
                for (int s = 0; s < n; s++) {
                    double x = 0, all = 0;
                    get(p, false, first + s, row);
                    for (int d = 0; d < p->D; d++)
                        x += (double)a->q[i][d] * (double)row[d],
                            all += fabs((double)a->q[i][d] * (double)row[d]);
                    assert_true(fabs(x - (double)a->out[i][s]) <= p->D * all * 0x1p-24);
                    get(p, true, first + s, row);
                    for (int d = 0; d < p->D; d++) {
                        sum[d] += (double)a->w[i][s] * (double)row[d];
                        size[d] += fabs((double)a->w[i][s] * (double)row[d]);
                        most = fmax(most, fabs((double)a->w[i][s] * (double)row[d]));
                    }
                }
                double rounded = wn_cq_coupled(f) ? 0 : most * (2 * n / 65024.0 + 1e-5);
                for (int d = 0; d < p->D; d++)
                    assert_true(fabs(sum[d] - (double)a->acc[i][d]) <=
                                (n + 1) * size[d] * 0x1p-24 + rounded);
            }
            free(a), free(start);
            free_page(p);
        }
}

/* Frames, scores and sums: the same for one query, for parts, and with every table of kernels. */
static void parts_queries_and_kernels_change_no_bit(void **state)
{
    (void)state;
    const wn_kernels *all[WN_KERNELS_MAX];
    int n_kernels = wn_kernels_all(all);
    uint64_t seed = 33;
    EACH_FORMAT(f)
        for (int t = 0; t < 10; t++) {
            page *p = new_page(f, &wn_format_f16, sizes[t % 5], dims[t % 5], t % 3, t & 1, &seed);
            size_t kb = f->k_bytes(p->P, p->D), vb = f->v_bytes(p->P, p->D);
            answer *a = new_answer(&seed), *b = malloc(sizeof *b), *start = malloc(sizeof *start);
            void *k = malloc(kb), *v = malloc(vb);
            int first = (int)(test_rand(&seed) % (uint64_t)p->P),
                n = 1 + (int)(test_rand(&seed) % (uint64_t)(p->P - first));
            for (int s = 0; s < p->P; s++)              /* weights behind the part are 0, as for the
                                                           whole page */
                for (int i = 0; i < Q; i++) a->w[i][s] = s < n ? a->w[i][s] : 0;
            *start = *a;
            for (int x = 0; x < n_kernels; x++) {
                wn_kernels_force(all[x]);
                encode(p);
                if (!x) memcpy(k, p->fk, kb), memcpy(v, p->fv, vb);
                assert_memory_equal(p->fk, k, kb);
                assert_memory_equal(p->fv, v, vb);
                *b = *start;
                compute(p, b, Q, first, n);
                if (!x) *a = *b;
                for (int i = 0; i < Q; i++) {
                    assert_memory_equal(b->out[i], a->out[i], sizeof(float) * (size_t)n);
                    assert_memory_equal(b->acc[i], a->acc[i], sizeof(float) * (size_t)p->D);
                }
            }
            wn_kernels_force(NULL);
            for (int i = 0; i < Q; i++) {
                *b = *start;
                memcpy(b->q[0], start->q[i], sizeof b->q[0]),
                    memcpy(b->acc[0], start->acc[i], sizeof b->acc[0]);
                memset(b->w[0], 0, sizeof b->w[0]);
                memcpy(b->w[0] + first, start->w[i], sizeof(float) * (size_t)n);
                compute(p, b, 1, 0, p->P);
                assert_memory_equal(b->out[0] + first, a->out[i], sizeof(float) * (size_t)n);
                assert_memory_equal(b->acc[0], a->acc[i], sizeof(float) * (size_t)p->D);
            }
            free(a), free(b), free(start), free(k), free(v);
            free_page(p);
        }
}

/* ---- what can be odd about a page ---------------------------------------------------------- */

static void masked_slots_do_not_count(void **state)
{
    (void)state;
    uint64_t seed = 34;
    EACH_FORMAT(f) {
        page *p = new_page(f, &wn_format_f32, 64, 96, 1, true, &seed);
        size_t kb = f->k_bytes(64, 96), vb = f->v_bytes(64, 96);
        p->n = 50, p->keep = 0x3f0f3ffff7f73ull;
        encode(p);
        void *k = malloc(kb), *v = malloc(vb);
        memcpy(k, p->fk, kb), memcpy(v, p->fv, vb);
        for (int s = 0; s < 64; s++)
            for (int d = 0; d < 96 && !live(p, s); d++)
                p->k[s][d] = p->v[s][d] = s & 1 ? INFINITY : 1e9f;
        memset(p->fk, 0xee, kb), memset(p->fv, 0xee, vb);
        encode(p);
        assert_memory_equal(p->fk, k, kb);
        assert_memory_equal(p->fv, v, vb);
        free(k), free(v);
        free_page(p);
    }
}

/* Zeros, constants, denormals, the largest halves and numbers beyond: all finite, all as near as
 * can be. */
static void odd_rows_are_read_as_finite_ones(void **state)
{
    (void)state;
    uint64_t seed = 35;
    EACH_FORMAT(f)
        for (int t = 0; t < 6; t++) {
            page *p = new_page(f, t < 4 ? &wn_format_f16 : &wn_format_f32, 16, 64, 1, false, &seed);
            for (int s = 0; s < 16; s++)
                for (int d = 0; d < 64; d++) {
                    float x = t == 0   ? 0
                              : t == 1 ? 0.37f
                              : t == 2 ? 0x1p-24f * (float)(s - 8)
                              : t == 3 ? 65504
                              : t == 4 ? 1e-40f
                                       : 3e38f;
                    p->k[s][d] = p->v[s][d] = t >= 3 && t != 4 && d != s ? p->k[s][d] : x;
                }
            encode(p);
            float row[DIM_MAX];
            for (int s = 0; s < 16; s++) {
                get(p, false, s, row);
                for (int d = 0; d < 64; d++) assert_true(isfinite(row[d]));
                get(p, true, s, row);
                for (int d = 0; d < 64; d++) assert_true(isfinite(row[d]));
                if (t < 3 && wn_cq_coupled(f)) check_codes(p, s);
            }
            free_page(p);
        }
}

static void what_is_not_finite_spoils_its_slot_alone(void **state)
{
    (void)state;
    uint64_t seed = 36;
    EACH_FORMAT(f)
        for (int t = 0; t < 3; t++) {
            page *p = new_page(f, &wn_format_f16, 16, 64, 1, false, &seed);
            answer *a = new_answer(&seed);
            float row[DIM_MAX];
            p->k[6][9] = p->v[6][33] = t == 0 ? NAN : t == 1 ? INFINITY : -INFINITY;
            encode(p);
            for (int s = 0; s < 16; s++)
                for (int v = 0; v < 2; v++) {
                    get(p, v, s, row);
                    for (int d = 0; d < 64; d++) assert_int_equal(isnan(row[d]) != 0, s == 6);
                }
            a->w[1][6] = 0;                     /* this one does not see it */
            compute(p, a, 2, 0, 16);
            for (int s = 0; s < 16; s++) assert_int_equal(isnan(a->out[0][s]) != 0, s == 6);
            for (int d = 0; d < 64; d++) assert_true(isnan(a->acc[0][d]) && !isnan(a->acc[1][d]));
            free(a);
            free_page(p);
        }
}

/* A slot's codes in another page, at another place: read there, they are the same row. */
static void slots_move(void **state)
{
    (void)state;
    uint64_t seed = 37;
    EACH_FORMAT(f)
        for (int t = 0; t < 10; t++) {
            page *p = new_page(f, &wn_format_f16, sizes[t % 5], dims[t % 5], 1, true, &seed);
            float row[DIM_MAX], want[DIM_MAX];
            encode(p);
            void *k = malloc(f->k_bytes(p->P, p->D)), *v = malloc(f->v_bytes(p->P, p->D));
            memset(k, 0, f->k_bytes(p->P, p->D)), memset(v, 0, f->v_bytes(p->P, p->D));
            for (int s = 0; s < p->P; s++)
                f->copy_k(k, (s * 3 + 1) % p->P, p->fk, s, p->P, p->D),
                    f->copy_v(v, (s * 3 + 1) % p->P, p->fv, s, p->P, p->D);
            for (int s = 0; s < p->P; s++) {
                get(p, false, s, want);
                wn_format_get_k(&p->k_format, k, p->P, (s * 3 + 1) % p->P, pos_of(p, s), row, p->D);
                assert_memory_equal(row, want, sizeof *row * (size_t)p->D);
                get(p, true, s, want);
                wn_format_get_v(&p->v_format, v, p->P, (s * 3 + 1) % p->P, row, p->D);
                assert_memory_equal(row, want, sizeof *row * (size_t)p->D);
            }
            free(k), free(v);
            free_page(p);
        }
}

/* Bytes per slot, everything counted, as docs/formats.md says. */
static void frames_are_as_large_as_said(void **state)
{
    (void)state;
    static const struct { const char *name; int k64, v64, k128, v128; } sizes_of[] = {
        { "cq4", 32, 32, 64, 64 }, { "cq2", 16, 16, 32, 32 }, { "cq1", 8, 8, 16, 16 },
        { "nuq4", 33, 34, 65, 68 }, { "nuq3", 25, 26, 49, 52 }, { "nuq2", 17, 18, 33, 36 },
        { "nuq4-s1", 36, 37, 71, 74 }, { "nuq3-s1", 28, 29, 55, 58 }, { "nuq2-s1", 20, 21, 39, 42 },
    };
    int n = 0;
    EACH_FORMAT(f) {
        for (size_t i = 0; i < WN_COUNT(sizes_of); i++) {
            if (strcmp(f->name, sizes_of[i].name)) continue;
            assert_int_equal(f->k_bytes(64, 64), sizes_of[i].k64 * 64);
            assert_int_equal(f->v_bytes(64, 64), sizes_of[i].v64 * 64);
            assert_int_equal(f->k_bytes(64, 128), sizes_of[i].k128 * 64);
            assert_int_equal(f->v_bytes(64, 128), sizes_of[i].v128 * 64);
        }
        n++;
    }
    assert_int_equal(n, (int)WN_COUNT(sizes_of));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_name_the_nearest_point),
        cmocka_unit_test(products_are_those_of_the_decoded_page),
        cmocka_unit_test(parts_queries_and_kernels_change_no_bit),
        cmocka_unit_test(masked_slots_do_not_count),
        cmocka_unit_test(odd_rows_are_read_as_finite_ones),
        cmocka_unit_test(what_is_not_finite_spoils_its_slot_alone),
        cmocka_unit_test(slots_move),
        cmocka_unit_test(frames_are_as_large_as_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
