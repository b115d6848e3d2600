/* Encoded pages: a decoded number lies within half a step of what went in, as far as its format
 * promises; score and mix, computed on the codes, are what decoding and computing would give up to
 * the rounding of query and weights to 16 bits; short pages, masked slots, parts of a page and any
 * number of queries change nothing for the others; a slot that is not finite spoils itself
 * alone. */
#include "tests/unit/check.h"

#include "kernel/elem.h"
#include "page/format.h"

#include <math.h>

enum { DIM_MAX = 256, Q = 7 };

static const int dims[] = { 64, 80, 96, 128, 256, 32, 40 };
static const int sizes[] = { 4, 8, 16, 32, 64 };

/* What a format promises of a group of numbers x (turned, if it turns rows). */
typedef struct {
    const char *name;
    int group;                          /* channels; 0: all; of V, and of K unless by_channel */
    bool turned, by_channel;
    float half_step;                    /* of the largest magnitude; or of max - min */
    bool range;
} promise;

#define E10 (1 + 0x1p-10f)              /* parameters are rounded by so much */
static const promise promises[] = {
    { "q8", 0, true, false, E10 / 254, false },
    { "q6", 0, true, false, E10 / 64, false },
    { "q5", 64, true, false, E10 / 32, false },
    { "q4", 32, true, false, 17 * E10 / 127, false },
    { "q3", 64, true, false, 44 * E10 / 127, false },
    { "q2", 64, true, false, 52 * E10 / 127, false },
    { "q44", 64, true, false, E10 / 256, false },
    { "q4h", 64, true, false, E10 / 16, false },
    { "kivi4", 64, false, true, E10 / 30, true },
    { "kivi2", 64, false, true, E10 / 6, true },
    { "bfp4", 0, false, false, 1 / 7.5f, false },
    { "q8_0", 32, false, false, 1.0f / 254 + 0x1p-11f, false },
    { "q5_1", 32, false, false, 1.0f / 62 + 0x1p-11f, true },
    { "q5_0", 32, false, false, 1.0f / 16 + 0x1p-11f, false },
    { "q4_1", 32, false, false, 1.0f / 30 + 0x1p-11f, true },
    { "q4_0", 32, false, false, 1.0f / 8 + 0x1p-11f, false },
    { "q8_0r", 32, true, false, 1.0f / 254 + 0x1p-11f, false },
    { "q5_1r", 32, true, false, 1.0f / 62 + 0x1p-11f, true },
    { "q5_0r", 32, true, false, 1.0f / 16 + 0x1p-11f, false },
    { "q4_1r", 32, true, false, 1.0f / 30 + 0x1p-11f, true },
    { "q4_0r", 32, true, false, 1.0f / 8 + 0x1p-11f, false },
};

/* With options behind its name (q2-s1) a format keeps the promise of the plain one, but for what is
 * left when others have been taken from a row: see rest(). tests/unit/page/gear.c has the rest. */
static const promise *promise_of(const wn_format *f)
{
    size_t n = strcspn(f->name, "-");
    for (size_t i = 0; i < WN_COUNT(promises); i++)
        if (strlen(promises[i].name) == n && !strncmp(promises[i].name, f->name, n))
            return &promises[i];
    fail_msg("%s promises nothing: add it to this test", f->name);
    return NULL;
}

/* One page of each kind; rows as they went in (after rounding to the raw format). */
typedef struct {
    const wn_format *f, *raw;
    int P, D, n;
    uint64_t keep;
    float k[64][DIM_MAX], v[64][DIM_MAX];
    void *raw_k, *raw_v, *fk, *fv;
} page;

static void open_page(page *p, const wn_format *f, const wn_format *raw, int P, int D)
{
    *p = (page){ .f = f, .raw = raw, .P = P, .D = D, .n = P, .keep = ~0ull };
    p->raw_k = calloc(1, raw->k_bytes(P, D)), p->raw_v = calloc(1, raw->v_bytes(P, D));
    assert_int_equal(f->k_bytes(P, D) % 64, 0);
    assert_int_equal(f->v_bytes(P, D) % 64, 0);
    /* malloc: asan sees the end */
    p->fk = malloc(f->k_bytes(P, D)), p->fv = malloc(f->v_bytes(P, D));
}

static void close_page(page *p) { free(p->raw_k), free(p->raw_v), free(p->fk), free(p->fv); }

static void random_rows(page *p, uint64_t *seed)
{
    for (int s = 0; s < p->P; s++)
        for (int d = 0; d < p->D; d++) {
            /* keys have large channels */
            p->k[s][d] = test_randf(seed) * (d % 16 == 3 ? 20 : 1);
            p->v[s][d] = test_randf(seed) * (1 + (float)(s % 5));
        }
}

static void encode(page *p)
{
    p->raw->put_k(p->raw_k, p->P, 0, p->k[0], DIM_MAX, p->n, p->D);
    p->raw->put_v(p->raw_v, p->P, 0, p->v[0], DIM_MAX, p->n, p->D);
    for (int s = 0; s < p->n; s++) {
        p->raw->get_k(p->raw_k, p->P, s, p->k[s], p->D);
        p->raw->get_v(p->raw_v, p->P, s, p->v[s], p->D);
    }
    p->f->encode_k(p->fk, p->raw_k, p->raw, p->P, p->n, p->keep, p->D);
    p->f->encode_v(p->fv, p->raw_v, p->raw, p->P, p->n, p->keep, p->D);
}

static bool live(const page *p, int s) { return s < p->n && (p->keep >> s & 1); }

/* Signs of Sylvester's matrix, block by block of the powers of two that make up n. */
static void turn(float *x, int n)
{
    for (int at = 0; at < n;) {
        int b = 1;
        float y[DIM_MAX];
        while (b * 2 <= n - at) b *= 2;
        for (int i = 0; i < b; i++) {
            double sum = 0;
            for (int j = 0; j < b; j++)
                sum += __builtin_popcount((unsigned)(i & j)) & 1 ? -x[at + j] : x[at + j];
            y[i] = (float)(sum / sqrt(b));
        }
        memcpy(x + at, y, sizeof *y * (size_t)b);
        at += b;
    }
}

static double worst_of(const float *a, const float *b, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++) worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    return worst;
}

/* The promise of n numbers x. */
static double bound(const promise *m, const float *x, int n)
{
    float min = x[0], max = x[0], amax = 0;
    for (int i = 0; i < n; i++)
        min = fminf(min, x[i]), max = fmaxf(max, x[i]), amax = fmaxf(amax, fabsf(x[i]));
    double step = (double)m->half_step * (double)(m->range ? max - min : amax);
    /* rounding a minimum; the smallest half (in steps to the end of the grid); the float arithmetic
     * around it */
    return step + (m->range ? amax * 0x1p-10 : 0) + 128 * 0x1p-24 + 1e-6 * (double)amax;
}

/* What may be left of any number when a product of least squares has been taken from the page. */
static double rest(const page *p, const promise *m, bool is_k)
{
    double sum = 0;
    if (!strchr(p->f->name, '-')) return 0;
    for (int s = 0; s < p->P; s++)
        for (int d = 0; d < p->D && live(p, s); d++)
            sum += pow((double)(is_k ? p->k : p->v)[s][d], 2);
    return (double)m->half_step * sqrt(sum) * (m->range ? 2 : 1);
}

static void check_slot(const page *p, const promise *m, const float *in, const float *got, int slot,
                       bool is_k)
{
    float a[DIM_MAX], b[DIM_MAX];
    memcpy(a, in, sizeof a), memcpy(b, got, sizeof b);
    if (m->turned) turn(a, p->D), turn(b, p->D);
    int group = m->group ? m->group : p->D;
    for (int at = 0; at < p->D && !(is_k && m->by_channel); at += group) {
        int n = WN_MIN(group, p->D - at);
        double is = worst_of(a + at, b + at, n), may = bound(m, a + at, n) + rest(p, m, is_k);
        if (!(is <= may * 1.0001))
            fail_msg("%s: slot %d of %d, channel %d.. of %d: off by %g of %g", p->f->name, slot,
                     p->P, at, p->D, is, may);
    }
    for (int d = 0; d < p->D && is_k && m->by_channel; d++) {
        float column[64] = { 0 };
        int n = 0;
        for (int s = 0; s < p->P; s++)
            if (live(p, s)) column[n++] = p->k[s][d];
        assert_true(fabs((double)a[d] - (double)b[d]) <=
                    (bound(m, column, n) + rest(p, m, true)) * 1.0001);
    }
}

static void check_bounds(const page *p)
{
    const promise *m = promise_of(p->f);
    float row[DIM_MAX];
    for (int s = 0; s < p->P; s++) {
        if (!live(p, s)) continue;
        p->f->get_k(p->fk, p->P, s, row, p->D);
        check_slot(p, m, p->k[s], row, s, true);
        p->f->get_v(p->fv, p->P, s, row, p->D);
        check_slot(p, m, p->v[s], row, s, false);
    }
}


/* Formats with options are many and share their code: each meets every size or width, not all
 * pairs. */
static int step_of(const wn_format *f) { return strchr(f->name, '-') ? 11 : 1; }

#define EACH_FORMAT(f) \
    for (int i_ = 0; wn_format_at(i_); i_++) \
        for (const wn_format *f = wn_format_at(i_); f && !f->raw && !f->calibrated; f = NULL)

static void decoded_numbers_are_near(void **state)
{
    (void)state;
    static const wn_format *const raws[] = { &wn_format_f16, &wn_format_bf16, &wn_format_f32 };
    uint64_t seed = 21;
    EACH_FORMAT(f)
        for (int t = 0; t < 105; t += step_of(f)) {
            page *p = malloc(sizeof *p);
            open_page(p, f, raws[t % 3], sizes[t % 5], dims[t % 7]);
            random_rows(p, &seed);
            if (t % 4 == 1) p->n = 1 + (int)(test_rand(&seed) % (uint64_t)p->P);
            if (t % 4 == 2) p->keep = test_rand(&seed) | 1;
            encode(p);
            check_bounds(p);
            close_page(p);
            free(p);
        }
}

/* ---- score and mix ------------------------------------------------------------------- */

static double norm(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

typedef struct {
    float q[Q][DIM_MAX], w[Q][64], out[Q][64], acc[Q][DIM_MAX], own[Q][DIM_MAX];
    void *ready;
} answer;

static answer *new_answer(int D, uint64_t *seed)
{
    answer *a = calloc(1, sizeof *a);
    a->ready = aligned_alloc(64, wn_format_ready_bytes(Q, D));
    for (int i = 0; i < Q; i++) {
        for (int d = 0; d < DIM_MAX; d++)
            a->q[i][d] = test_randf(seed), a->acc[i][d] = test_randf(seed);
        for (int s = 0; s < 64; s++) a->w[i][s] = fabsf(test_randf(seed));
    }
    return a;
}

static void free_answer(answer *a)
{
    free(a->ready);
    free(a);
}

static void compute(const page *p, answer *a, int n_q, int first, int n)
{
    const wn_format *f = p->f;
    if (f->ready) f->ready(a->ready, a->q[0], DIM_MAX, n_q, p->D);
    wn_page_score s = { .out = a->out[0], .out_stride = 64, .q = a->q[0], .q_stride = DIM_MAX,
                        .ready = a->ready, .n_q = n_q, .frame = p->fk, .P = p->P, .first = first,
                        .n = n, .head_dim = p->D };
    f->score(&s);
    float *acc = f->mixed ? a->own[0] : a->acc[0];
    wn_page_mix m = { .acc = acc, .acc_stride = DIM_MAX, .w = a->w[0], .w_stride = 64, .n_q = n_q,
                      .frame = p->fv, .P = p->P, .first = first, .n = n, .head_dim = p->D };
    f->mix(&m);
    if (f->mixed) f->mixed(a->acc[0], DIM_MAX, a->own[0], DIM_MAX, n_q, p->D);
}

/* A query is off by at most half of |q| / 32512 in each of D directions, a weight by half of the
 * largest (times the largest value) / 32512 in each of n slots; the rest is float arithmetic. */
/* Steps of a query on both sides of 0, twice: of those that meet codes of up to 4 bits, and of the
 * others. */
static double query_steps(const wn_format *f)
{
    bool narrow = *strpbrk(f->name, "0123456789") <= '4' && strcmp(f->name, "q44") &&
                  strncmp(f->name, "kivi", 4);
    return narrow ? 254 : 65024;
}

static void products_on_codes_are_those_of_the_decoded_page(void **state)
{
    (void)state;
    uint64_t seed = 22;
    EACH_FORMAT(f)
        for (int t = 0; t < 70; t += step_of(f)) {
            page *p = malloc(sizeof *p);
            open_page(p, f, &wn_format_f16, sizes[t % 5], dims[t % 7]);
            random_rows(p, &seed);
            encode(p);
            answer *a = new_answer(p->D, &seed);
            float start[Q][DIM_MAX], row[DIM_MAX];
            memcpy(start, a->acc, sizeof start);
            int first = (int)(test_rand(&seed) % (uint64_t)p->P), n_q = 1 + t % Q;
            int n = 1 + (int)(test_rand(&seed) % (uint64_t)(p->P - first));
            compute(p, a, n_q, first, n);
            double D = p->D;
            for (int i = 0; i < n_q; i++) {
                double sum[DIM_MAX], most = 0;
                for (int d = 0; d < p->D; d++) sum[d] = (double)start[i][d];
                for (int s = 0; s < n; s++) {
                    double x = 0, qk = norm(a->q[i], p->D);
                    f->get_k(p->fk, p->P, first + s, row, p->D);
                    for (int d = 0; d < p->D; d++) x += (double)a->q[i][d] * (double)row[d];
                    qk *= norm(row, p->D);
                    /* folded by channel, the largest product sets the step for all */
                    double may = qk * sqrt(D) / query_steps(f) * (f->k_repack ? 8 : 1) + 1e-5 * qk;
                    if (!(fabs(x - (double)a->out[i][s]) <= may))
                        fail_msg("%s: score off by %g of %g", f->name, x - (double)a->out[i][s],
                                 may);
                    f->get_v(p->fv, p->P, first + s, row, p->D);
                    for (int d = 0; d < p->D; d++) {
                        sum[d] += (double)a->w[i][s] * (double)row[d];
                        most = fmax(most, fabs((double)row[d]) * (double)a->w[i][s]);
                    }
                }
                double may = most * (2 * n / 65024.0 * sqrt(D) + 1e-5) + 1e-6;
                for (int d = 0; d < p->D; d++)
                    if (!(fabs(sum[d] - (double)a->acc[i][d]) <= may))
                        fail_msg("%s: mix off by %g of %g", f->name, sum[d] - (double)a->acc[i][d],
                                 may);
            }
            free_answer(a);
            close_page(p);
            free(p);
        }
}

/* One query at a time, or a part of the page's scores: the same bits. Weights of 0 outside a run
 * are as good as the run's ends. */
static void parts_and_numbers_of_queries_change_no_bit(void **state)
{
    (void)state;
    uint64_t seed = 23;
    EACH_FORMAT(f)
        for (int t = 0; t < 35; t += step_of(f)) {
            page *p = malloc(sizeof *p);
            open_page(p, f, &wn_format_f16, sizes[t % 5], dims[t % 7]);
            random_rows(p, &seed);
            encode(p);
            answer *a = new_answer(p->D, &seed), *b = malloc(sizeof *b);
            int first = (int)(test_rand(&seed) % (uint64_t)p->P);
            int n = 1 + (int)(test_rand(&seed) % (uint64_t)(p->P - first));
            *b = *a;
            compute(p, a, Q, first, n);
            for (int i = 0; i < Q; i++) {
                answer one = *b;
                memcpy(one.q[0], b->q[i], sizeof one.q[0]),
                    memcpy(one.acc[0], b->acc[i], sizeof one.acc[0]);
                memset(one.w[0], 0, sizeof one.w[0]);
                memcpy(one.w[0] + first, b->w[i], sizeof(float) * (size_t)n);
                compute(p, &one, 1, 0, p->P);
                assert_memory_equal(one.out[0] + first, a->out[i], sizeof(float) * (size_t)n);
                assert_memory_equal(one.acc[0], a->acc[i], sizeof(float) * (size_t)p->D);
            }
            free(b);
            free_answer(a);
            close_page(p);
            free(p);
        }
}

/* ---- what can be odd about a page ------------------------------------------------------ */

/* Masked slots and those behind the last do not count: whatever they hold, the others' bytes read
 * the same, and the frame is the same whoever fills it. */
static void masked_slots_do_not_count(void **state)
{
    (void)state;
    uint64_t seed = 24;
    EACH_FORMAT(f) {
        page *p = malloc(sizeof *p);
        open_page(p, f, &wn_format_f32, 64, 96);
        random_rows(p, &seed);
        p->n = 50, p->keep = 0x3f0f3ffff7f73ull;
        encode(p);
        size_t kb = f->k_bytes(64, 96), vb = f->v_bytes(64, 96);
        char *k = malloc(kb), *v = malloc(vb);
        memcpy(k, p->fk, kb), memcpy(v, p->fv, vb);
        for (int s = 0; s < 64; s++)
            for (int d = 0; d < 96 && !live(p, s); d++)
                p->k[s][d] = p->v[s][d] = s & 1 ? INFINITY : 1e9f;
        p->n = 64;
        p->raw->put_k(p->raw_k, 64, 0, p->k[0], DIM_MAX, 64, 96),
            p->raw->put_v(p->raw_v, 64, 0, p->v[0], DIM_MAX, 64, 96);
        memset(p->fk, 0xee, kb), memset(p->fv, 0xee, vb);
        f->encode_k(p->fk, p->raw_k, p->raw, 64, 50, p->keep, 96);
        f->encode_v(p->fv, p->raw_v, p->raw, 64, 50, p->keep, 96);
        assert_memory_equal(p->fk, k, kb);
        assert_memory_equal(p->fv, v, vb);
        free(k), free(v);
        close_page(p);
        free(p);
    }
}

static void odd_rows_keep_their_bounds(void **state)
{
    (void)state;
    EACH_FORMAT(f)
        for (int t = 0; t < 6; t++) {
            page *p = malloc(sizeof *p);
            uint64_t seed = 25;
            open_page(p, f, t == 5 ? &wn_format_f32 : &wn_format_f16, 16, 64);
            random_rows(p, &seed);
            for (int s = 0; s < 16; s++)
                for (int d = 0; d < 64; d++) {
                    float *k = &p->k[s][d], *v = &p->v[s][d];
                    if (t == 0) *k = *v = 0;
                    if (t == 1) *k = *v = 0.37f;                        /* constant */
                    if (t == 2) *k = *v = 0x1p-24f * (float)(s - 8);    /* denormal halves */
                    if (t == 3) *k *= 1e-3f, *v *= 1e-3f;
                    if (t == 5) *k = *v = 1e-40f * (float)(d - 9);      /* denormal floats */
                }
            if (t == 3) p->k[3][5] = p->v[3][5] = 65504;                /* one huge number */
            if (t == 4) p->k[3][5] = p->v[3][5] = -65504, p->k[2][5] = p->v[2][5] = 65504;
            encode(p);
            check_bounds(p);
            close_page(p);
            free(p);
        }
}

static void what_is_not_finite_spoils_its_slot_alone(void **state)
{
    (void)state;
    uint64_t seed = 26;
    EACH_FORMAT(f)
        for (int t = 0; t < 3; t++) {
            enum { P = 16, D = 64 };
            page *p = malloc(sizeof *p);
            open_page(p, f, &wn_format_f16, P, D);
            random_rows(p, &seed);
            p->k[6][9] = p->v[6][33] = t == 0 ? NAN : t == 1 ? INFINITY : -INFINITY;
            encode(p);
            float row[DIM_MAX];
            for (int s = 0; s < P; s++) {
                f->get_k(p->fk, P, s, row, D);
                for (int d = 0; d < D; d++) assert_int_equal(isnan(row[d]) != 0, s == 6);
                f->get_v(p->fv, P, s, row, D);
                for (int d = 0; d < D; d++) assert_int_equal(isnan(row[d]) != 0, s == 6);
            }
            for (int d = 0; d < D; d++) p->k[6][d] = p->v[6][d] = 0;     /* not counted below */
            p->keep = ~(1ull << 6);
            check_bounds(p);
            answer *a = new_answer(D, &seed);
            a->w[1][6] = 0;  /* this one does not see it */
            compute(p, a, 2, 0, P);
            for (int s = 0; s < P; s++) assert_int_equal(isnan(a->out[0][s]) != 0, s == 6);
            for (int d = 0; d < D; d++) assert_true(isnan(a->acc[0][d]) && !isnan(a->acc[1][d]));
            a->q[0][3] = NAN, a->w[1][2] = NAN, a->w[0][6] = 0;         /* a query, a weight */
            memset(a->acc, 0, sizeof a->acc), memset(a->own, 0, sizeof a->own);
            compute(p, a, 2, 0, P);
            for (int s = 0; s < P; s++)
                assert_true(isnan(a->out[0][s]) && isnan(a->out[1][s]) == (s == 6));
            for (int d = 0; d < D; d++) assert_true(!isnan(a->acc[0][d]) && isnan(a->acc[1][d]));
            free_answer(a);
            close_page(p);
            free(p);
        }
}

/* A slot's codes move: in its new place it reads as it did, and the others there as before. */
static void slots_of_copy_formats_move(void **state)
{
    (void)state;
    uint64_t seed = 27;
    EACH_FORMAT(f)
        for (int t = 0; t < 70; t += step_of(f)) {
            page *p = malloc(sizeof *p), *o = malloc(sizeof *o);
            int P = sizes[t % 5], D = dims[t % 7], from = (int)(test_rand(&seed) % (uint64_t)P),
                to = (from * 3 + 1) % P;
            float row[DIM_MAX];
            open_page(p, f, &wn_format_f16, P, D), open_page(o, f, &wn_format_f16, P, D);
            random_rows(p, &seed), random_rows(o, &seed);
            encode(p), encode(o);
            for (int s = 0; s < P; s++) {  /* what must be there afterwards */
                f->get_k(s == to ? p->fk : o->fk, P, s == to ? from : s, o->k[s], D);
                f->get_v(s == to ? p->fv : o->fv, P, s == to ? from : s, o->v[s], D);
            }
            if (f->k_repack == WN_REPACK_COPY) f->copy_k(o->fk, to, p->fk, from, P, D);
            if (f->v_repack == WN_REPACK_COPY) f->copy_v(o->fv, to, p->fv, from, P, D);
            for (int s = 0; s < P; s++) {
                f->get_k(o->fk, P, s, row, D);
                if (f->k_repack == WN_REPACK_COPY)
                    assert_memory_equal(row, o->k[s], sizeof *row * (size_t)D);
                f->get_v(o->fv, P, s, row, D);
                if (f->v_repack == WN_REPACK_COPY)
                    assert_memory_equal(row, o->v[s], sizeof *row * (size_t)D);
            }
            close_page(p), close_page(o);
            free(p), free(o);
        }
}

/* Bytes per slot, everything counted, as docs/formats.md says. */
static void frames_are_as_large_as_said(void **state)
{
    (void)state;
    static const struct { const char *name; int k64, v64, k128, v128;
    } sizes_of[] = {
        { "q8", 66, 66, 130, 130 },       { "q6", 50, 50, 98, 98 },
        { "q5", 42, 42, 84, 84 },         { "q4", 36, 36, 72, 72 },
        { "q3", 26, 26, 52, 52 },         { "q2", 18, 18, 36, 36 },
        { "q44", 66, 66, 132, 132 },      { "q4h", 34, 34, 68, 68 },
        { "kivi4", 37, 36, 73, 72 },      { "kivi2", 21, 20, 41, 40 },
        { "bfp4", 35, 34, 70, 68 },       { "q8_0", 68, 68, 136, 136 },
        { "q5_1", 48, 48, 96, 96 },       { "q5_0", 44, 44, 88, 88 },
        { "q4_1", 40, 40, 80, 80 },       { "q4_0", 36, 36, 72, 72 },
        { "q4_0r", 36, 36, 72, 72 },      { "q4-s1", 39, 39, 78, 78 },
        { "q4-r2", 41, 41, 79, 79 },      { "q4-s1r2", 44, 44, 85, 85 },
        { "q3-s1", 29, 29, 58, 58 },      { "q3-r2", 31, 31, 59, 59 },
        { "q3-s1r2", 34, 34, 65, 65 },    { "q2-s1", 21, 21, 42, 42 },
        { "q2-r2", 23, 23, 43, 43 },      { "q2-s1r2", 26, 26, 49, 49 },
        { "kivi4-s1", 40, 39, 79, 78 },   { "kivi4-r2", 42, 41, 80, 79 },
        { "kivi4-s1r2", 45, 44, 86, 85 }, { "kivi2-s1", 24, 23, 47, 46 },
        { "kivi2-r2", 26, 25, 48, 47 },   { "kivi2-s1r2", 29, 28, 54, 53 },
    };
    for (size_t i = 0; i < WN_COUNT(sizes_of); i++) {
        const wn_format *f = wn_format_find(sizes_of[i].name);
        assert_non_null(f);
        assert_int_equal(f->k_bytes(64, 64), sizes_of[i].k64 * 64);
        assert_int_equal(f->v_bytes(64, 64), sizes_of[i].v64 * 64);
        assert_int_equal(f->k_bytes(64, 128), sizes_of[i].k128 * 64);
        assert_int_equal(f->v_bytes(64, 128), sizes_of[i].v128 * 64);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoded_numbers_are_near),
        cmocka_unit_test(products_on_codes_are_those_of_the_decoded_page),
        cmocka_unit_test(parts_and_numbers_of_queries_change_no_bit),
        cmocka_unit_test(masked_slots_do_not_count),
        cmocka_unit_test(odd_rows_keep_their_bounds),
        cmocka_unit_test(what_is_not_finite_spoils_its_slot_alone),
        cmocka_unit_test(slots_of_copy_formats_move),
        cmocka_unit_test(frames_are_as_large_as_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
