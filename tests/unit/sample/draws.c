/* The draw: the right frequencies, a function of (seed, position) alone, large vocabularies
 * against a full sort, and no allocation in a pick.
 *
 * Chi-square bounds are the 1 - 1e-6 quantiles; seeds are fixed, so a test that passes once
 * passes always, and one in a million correct generators would have been turned down.
 */
#include "tests/unit/check.h"

#include <math.h>

#include "base/alloc.h"
#include "sample/sample.h"

static wn_sampling plain(uint64_t seed)
{
    return (wn_sampling){ .temperature = 1.0f, .top_p = 1.0f, .repeat_penalty = 1.0f,
                          .seed = seed };
}

static wn_sampler *open_sampler(const wn_sampling *o, int n_vocab)
{
    wn_sampler *s;
    wn_err err = { 0 };
    if (wn_sampler_open(&s, o, n_vocab, &err)) fail_msg("%s", err.text);
    return s;
}

static int32_t pick_at(wn_sampler *s, const float *logits, int position)
{
    int32_t id;
    wn_err err = { 0 };
    if (wn_sampler_pick(s, logits, NULL, position, &id, &err)) fail_msg("%s", err.text);
    return id;
}

static double chi_square(const int *seen, const double *p, int n_cells, int n_draws)
{
    double x = 0.0;
    for (int i = 0; i < n_cells; i++) {
        double want = p[i] * n_draws;
        if (want > 0) x += (seen[i] - want) * (seen[i] - want) / want;
        else assert_int_equal(seen[i], 0);
    }
    return x;
}

/* 8 cells, 7 degrees of freedom: 40.5. With temperature T the weights are p^(1/T). */
static void frequencies_follow_the_weights(void **state)
{
    (void)state;
    static const double p[8] = { 0.02, 0.25, 0.08, 0.3, 0.05, 0.1, 0.15, 0.05 };
    enum { DRAWS = 40000 };
    float x[8];
    for (int i = 0; i < 8; i++) x[i] = (float)log(p[i]) - 7.0f;
    for (uint64_t seed = 0; seed < 6; seed++) {
        wn_sampling o = plain(seed);
        double want[8], sum = 0.0;
        int seen[8] = { 0 };
        o.temperature = seed % 3 == 0 ? 1.0f : seed % 3 == 1 ? 0.5f : 2.0f;
        if (seed >= 3) o.top_k = 8, o.top_p = 0.99999f;     /* by the other path */
        for (int i = 0; i < 8; i++) sum += want[i] = pow(p[i], 1.0 / (double)o.temperature);
        for (int i = 0; i < 8; i++) want[i] /= sum;
        wn_sampler *s = open_sampler(&o, 8);
        for (int i = 0; i < DRAWS; i++) seen[pick_at(s, x, i)]++;
        wn_sampler_close(s);
        double c = chi_square(seen, want, 8, DRAWS);
        if (c > 40.5) fail_msg("seed %d: chi-square %.1f with 7 degrees of freedom", (int)seed, c);
    }
}

/* Of 0.4 0.3 0.15 0.1 0.05, top-k 4 leaves 0.95, top-p 0.85 of that needs 0.8075: three,
 * min-p 0.5 (0.2) leaves two: 4/7 and 3/7. One degree of freedom: 23.9. */
static void the_rest_is_normalised_after_cuts(void **state)
{
    (void)state;
    static const double p[5] = { 0.3, 0.1, 0.05, 0.4, 0.15 };
    static const double want[5] = { 3.0 / 7, 0, 0, 4.0 / 7, 0 };
    float x[5];
    int seen[5] = { 0 };
    wn_sampling o = plain(11);
    o.top_k = 4, o.top_p = 0.85f, o.min_p = 0.5f;
    for (int i = 0; i < 5; i++) x[i] = (float)log(p[i]);
    wn_sampler *s = open_sampler(&o, 5);
    for (int i = 0; i < 20000; i++) seen[pick_at(s, x, i)]++;
    wn_sampler_close(s);
    assert_true(chi_square(seen, want, 5, 20000) < 23.9);
}

/* Uniform over 64 cells (63 degrees of freedom: 131), along positions of one seed, along
 * seeds at one position, and along the diagonal; pairs of neighbours over 8 x 8 cells. */
static void random_numbers_are_uniform_and_unrelated(void **state)
{
    (void)state;
    enum { N = 64000 };
    static double p[64];
    for (int i = 0; i < 64; i++) p[i] = 1.0 / 64;
    for (int way = 0; way < 6; way++) {
        static int seen[64];
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < N; i++) {
            uint64_t u = (uint64_t)i;
            double a = way == 0 ? wn_sample_uniform(1, i) : way == 1 ? wn_sample_uniform(u, 5)
                     : way == 2 ? wn_sample_uniform(u, i) : way == 3 ? wn_sample_uniform(u << 40, 0)
                     : way == 4 ? wn_sample_uniform(3, 2 * i) : wn_sample_uniform(2 * u, 9);
            double b = way == 4 ? wn_sample_uniform(3, 2 * i + 1) : wn_sample_uniform(2 * u + 1, 9);
            assert_true(a >= 0.0 && a < 1.0 && b >= 0.0 && b < 1.0);
            seen[way < 4 ? (int)(a * 64) : (int)(a * 8) * 8 + (int)(b * 8)]++;
        }
        double c = chi_square(seen, p, 64, N);
        if (c > 131) fail_msg("way %d: chi-square %.1f with 63 degrees of freedom", way, c);
    }
    /* The numbers themselves are part of what a seed means: a change would break replies
     * that people have asked to be repeatable. */
    assert_true(wn_sample_uniform(0, 0) == wn_sample_uniform(0, 0));
    assert_true(wn_sample_uniform(0, 1) != wn_sample_uniform(1, 0));
}

/* Position 100 gives its token whatever was drawn before, by whichever sampler, with
 * whatever in its scratch. */
static void a_position_draws_the_same_whatever_came_before(void **state)
{
    (void)state;
    enum { N = 500, POSITIONS = 200 };
    static float x[POSITIONS][N];
    static int32_t want[POSITIONS];
    int32_t history[POSITIONS];
    uint64_t r = 77;
    int differ = 0;
    wn_sampling o = wn_sampling_defaults();
    o.seed = 1234, o.presence_penalty = 0.5f, o.repeat_penalty = 1.1f;
    for (int i = 0; i < POSITIONS; i++) {
        history[i] = (int32_t)(test_rand(&r) % N);
        for (int j = 0; j < N; j++) x[i][j] = 3.0f * test_randf(&r);
    }
    wn_sampler *s = open_sampler(&o, N), *t;
    for (int i = 0; i < POSITIONS; i++)
        assert_int_equal(wn_sampler_pick(s, x[i], history, i, &want[i], NULL), WN_OK);
    for (int k = 0; k < 3 * POSITIONS; k++) {
        int i = (int)(test_rand(&r) % POSITIONS);
        int32_t id;
        assert_int_equal(wn_sampler_pick(s, x[i], history, i, &id, NULL), WN_OK);
        assert_int_equal(id, want[i]);
    }
    wn_sampler_close(s);
    o.seed = 1235;
    t = open_sampler(&o, N);
    for (int i = 0; i < POSITIONS; i++) {
        int32_t id;
        assert_int_equal(wn_sampler_pick(t, x[i], history, i, &id, NULL), WN_OK);
        differ += id != want[i];
    }
    wn_sampler_close(t);
    assert_true(differ > POSITIONS / 2);        /* and another seed gives another text */
}

/* ---- against a full sort ----------------------------------------------------------- */

typedef struct { float logit; int32_t id; } entry;

static int by_rank(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The rules by the book, in double; *gap is how near a decision of it was to the other
 * side: where rounding could tip it, the comparison is left out. */
static int32_t by_the_book(const wn_sampling *o, const float *x, int n, int position, double *gap)
{
    entry *e = malloc((size_t)n * sizeof *e);
    double total = 0.0, sum = 0.0, kept = 0.0, u = wn_sample_uniform(o->seed, position);
    int m = n;
    int32_t id = -1;
    *gap = 1.0;
    for (int i = 0; i < n; i++) e[i] = (entry){ x[i], i };
    qsort(e, (size_t)n, sizeof *e, by_rank);
    double top = (double)e[0].logit;
    if (o->top_k > 0 && o->top_k < n) m = o->top_k;
    for (int i = 0; i < m; i++) total += exp((double)e[i].logit - top);
    for (int i = 0; i < m && o->top_p < 1.0f; i++) {
        sum += exp((double)e[i].logit - top) / total;
        *gap = fmin(*gap, fabs(sum - (double)o->top_p));
        if (sum >= (double)o->top_p) m = i + 1;
    }
    for (int i = 1; i < m && o->min_p > 0.0f; i++) {
        double share = exp((double)e[i].logit - top);
        *gap = fmin(*gap, fabs(share - (double)o->min_p));
        if (share < (double)o->min_p) m = i;
    }
    for (int i = 0; i < m; i++) kept += exp(((double)e[i].logit - top) / (double)o->temperature);
    sum = 0.0;
    for (int i = 0; i < m; i++) {
        sum += exp(((double)e[i].logit - top) / (double)o->temperature) / kept;
        *gap = fmin(*gap, fabs(sum - u));
        if (id < 0 && sum > u) id = e[i].id;
    }
    free(e);
    return id;
}

static void large_vocabularies_agree_with_a_full_sort(void **state)
{
    (void)state;
    enum { N = 20000 };
    static float x[N];
    uint64_t r = 5;
    int compared = 0, rounds = 240;
    for (int round = 0; round < rounds; round++) {
        wn_sampling o = plain(99);
        double gap;
        static const int ks[] = { 0, 40, 1000, 2, N, 19999 };
        static const float ps[] = { 1.0f, 0.95f, 0.5f }, ms[] = { 0.0f, 0.05f, 0.001f };
        o.top_k = ks[round % 6];
        o.top_p = ps[round / 6 % 3];
        o.min_p = ms[round / 18 % 3];
        o.temperature = round % 2 ? 0.8f : 1.3f;
        for (int i = 0; i < N; i++) {
            x[i] = 4.0f * test_randf(&r) * test_randf(&r) + 3.0f * test_randf(&r);
            if (round % 4 == 0) x[i] = (float)(int)(x[i] * 4.0f) / 4.0f;        /* many equals */
        }
        wn_sampler *s = open_sampler(&o, N);
        int32_t want = by_the_book(&o, x, N, round, &gap), got = pick_at(s, x, round);
        wn_sampler_close(s);
        if (gap < 1e-7) continue;               /* float weights, 1e-7 apart from the double ones */
        compared++;
        if (got != want)
            fail_msg("top-k %d, top-p %g, min-p %g: token %d, a full sort gives %d", o.top_k,
                     (double)o.top_p, (double)o.min_p, (int)got, (int)want);
    }
    assert_true(compared > rounds / 2);
}

static void a_pick_does_not_allocate(void **state)
{
    (void)state;
    enum { N = 3000 };
    static float x[N];
    uint64_t r = 8;
    for (int i = 0; i < N; i++) x[i] = test_randf(&r);
    const int32_t history[] = { 1, 2, 3, 2 };
    const wn_logit_bias b[] = { { 7, 1.0f } };
    for (int way = 0; way < 4; way++) {
        wn_sampling o = wn_sampling_defaults();
        int32_t id;
        o.top_k = way & 1 ? 40 : 0;
        o.min_p = way & 2 ? 0.05f : 0.0f;
        o.repeat_penalty = 1.1f;
        o.bias = b, o.n_bias = 1;
        wn_sampler *s = open_sampler(&o, N);
        wn_alloc_forbid(true);
        wn_status st = wn_sampler_pick(s, x, history, 4, &id, NULL);
        wn_alloc_forbid(false);
        assert_int_equal(st, WN_OK);
        wn_sampler_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_follow_the_weights),
        cmocka_unit_test(the_rest_is_normalised_after_cuts),
        cmocka_unit_test(random_numbers_are_uniform_and_unrelated),
        cmocka_unit_test(a_position_draws_the_same_whatever_came_before),
        cmocka_unit_test(large_vocabularies_agree_with_a_full_sort),
        cmocka_unit_test(a_pick_does_not_allocate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
