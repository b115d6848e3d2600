/* The search by evolution, on costs that are known: it finds an optimum, gives no layer more than
 * all have, stays within its bounds and its evaluations, is the same for the same seed, and the
 * same again after an interruption at any batch. And the file that this rests on says what is wrong
 * with it. */
#include "eval/budgets.h"
#include "eval/searchlog.h"
#include "tests/unit/check.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum { MOST = 16 };
static wn_err err;

/* ---- costs that are known -------------------------------------------------------------------- */

/* The square of the distance from what is wanted, seen through a few numbers of its own: some
 * layers matter more. Every candidate is checked. */
typedef struct {
    const wn_budget_space *s;
    const double *wanted;
    int n_calls, n_tried, fail_at;      /* the call that fails, from 1 on; 0: none */
    wn_search_log *log;                 /* or NULL */
    int n_known;
} bowl;

static double cost_of(const bowl *b, const double *w)
{
    double x = 0, mean = 0;
    for (int l = 0; l < b->s->n_layers; l++) {
        x += (1 + l % 3) * (w[l] - b->wanted[l]) * (w[l] - b->wanted[l]);
        mean += w[l] / b->s->n_layers;
        assert_true(w[l] >= b->s->least && w[l] <= b->s->most);
    }
    assert_true(fabs(mean - 1) < 1e-12);
    return x;
}

static wn_status distance(void *ctx, const double *weights, int n, double *costs, wn_err *e)
{
    bowl *b = ctx;
    size_t n_x = (size_t)(n * b->s->n_layers);
    bool known = false;
    b->n_calls++;
    b->n_tried += n;
    wn_status st = wn_search_log_find(b->log, weights, n_x, costs, (size_t)n, &known, e);
    b->n_known += known;
    if (st || known) return st;
    if (b->n_calls == b->fail_at) return wn_fail(e, WN_EIO, "interrupted");
    for (int i = 0; i < n; i++) costs[i] = cost_of(b, weights + i * b->s->n_layers);
    return wn_search_log_add(b->log, weights, n_x, costs, (size_t)n, e);
}

typedef struct { double best[MOST], even, found; int tried; } result;

static wn_status evolve(result *r, bowl *b, uint64_t seed)
{
    memset(r, 0, sizeof *r);
    return wn_budgets_evolve(b->s, seed, distance, b, r->best, &r->even, &r->found, &r->tried,
                             &err);
}

static const double wanted_six[6] = { 2, 1.4, 1, 0.7, 0.5, 0.4 };
static const double wanted_sixteen[MOST] = { 1.9, 1.6, 1.5, 1.2, 1.1, 1,   1,   0.9,
                                             0.9, 0.8, 0.8, 0.7, 0.7, 0.7, 0.6, 0.6 };

/* ---- completion ------------------------------------------------------------------------------ */

/* 1, 2, 5 become 3/8, 6/8, 15/8; with at most 1.5 the third gets that, and the others share 1.5 as
 * 1 to 2; with at least 0.6 the first has that, and 0.9 is left for the second. */
static void completed_by_hand(void **state)
{
    (void)state;
    static const double raw[3] = { 1, 2, 5 },
                        want[3][3] = { { 0.375, 0.75, 1.875 }, { 0.5, 1, 1.5 }, { 0.6, 0.9, 1.5 } };
    static const wn_budget_space s[3] = { { .n_layers = 3, .least = 0.1,
                                            .most = 4 }, { .n_layers = 3, .least = 0.1,
                                            .most = 1.5 },
                                          { .n_layers = 3, .least = 0.6, .most = 1.5 } };
    for (int i = 0; i < 3; i++) {
        double w[3];
        wn_budgets_complete(&s[i], raw, w);
        for (int l = 0; l < 3; l++) assert_true(fabs(w[l] - want[i][l]) < 1e-12);
    }
}

static void any_weights_are_completed(void **state)
{
    (void)state;
    uint64_t rng = 3;
    for (int i = 0; i < 500; i++) {
        int n = 1 + (int)(test_rand(&rng) % MOST);
        double w[MOST], sum = 0;
        wn_budget_space s = { .n_layers = n, .least = (double)(1 + test_rand(&rng) % 100) / 100,
                              .most = 1 + (double)(test_rand(&rng) % 100) / 10 };
        for (int l = 0; l < n; l++) w[l] = exp((double)(test_rand(&rng) % 2000) / 100 - 10);
        wn_budgets_complete(&s, w, w);
        for (int l = 0; l < n; l++) {
            assert_true(w[l] >= s.least && w[l] <= s.most);
            sum += w[l];
        }
        assert_true(fabs(sum / n - 1) < 1e-12);
    }
}

/* ---- searching ------------------------------------------------------------------------------- */

static void an_optimum_is_found(void **state)
{
    (void)state;
    result r;
    wn_budget_space s = { .n_layers = 6, .n_groups = 1, .least = 0.1, .most = 4,
                          .most_tried = 600 };
    for (uint64_t seed = 0; seed < 5; seed++) {
        bowl b = { .s = &s, .wanted = wanted_six };
        assert_int_equal(evolve(&r, &b, seed), WN_OK);
        assert_true(r.found < 0.002 * r.even);
        for (int l = 0; l < 6; l++) assert_true(fabs(r.best[l] - wanted_six[l]) < 0.05);
        assert_true(cost_of(&b, r.best) == r.found);
        assert_true(r.tried == b.n_tried && r.tried <= 600);
    }
}

/* Group by group, the ones before frozen among themselves: most of the way. */
static void groups_one_after_another(void **state)
{
    (void)state;
    result r, whole;
    wn_budget_space s = { .n_layers = 16, .n_groups = wn_budgets_evolve_groups(16), .least = 0.1,
                          .most = 4 };
    bowl b = { .s = &s, .wanted = wanted_sixteen };
    assert_int_equal(s.n_groups, 2);
    assert_int_equal(wn_budgets_evolve_groups(6), 1);
    assert_int_equal(wn_budgets_evolve_groups(33), 5);
    assert_int_equal(evolve(&r, &b, 1), WN_OK);
    assert_true(r.found < 0.05 * r.even && r.tried <= 16 * 30);
    s.most_tried = 1 + 2 * 10;          /* one batch of each */
    b = (bowl){ .s = &s, .wanted = wanted_sixteen };
    assert_int_equal(evolve(&whole, &b, 1), WN_OK);
    assert_true(whole.tried == 21 && b.n_calls == 3 && whole.found <= whole.even);
    s.most_tried = 20;
    assert_int_equal(evolve(&whole, &b, 1), WN_EINVAL);
    assert_non_null(strstr(err.text, "take at least 21"));
}

static void nothing_better_is_even(void **state)
{
    (void)state;
    static const double even[5] = { 1, 1, 1, 1, 1 };
    result r;
    wn_budget_space s = { .n_layers = 5, .n_groups = 2, .least = 0.1, .most = 4 };
    bowl b = { .s = &s, .wanted = even };
    assert_int_equal(evolve(&r, &b, 0), WN_OK);
    for (int l = 0; l < 5; l++) assert_true(r.best[l] == 1);
    s.n_layers = s.n_groups = 1;        /* one layer has nobody to take from */
    b = (bowl){ .s = &s, .wanted = even };
    assert_int_equal(evolve(&r, &b, 0), WN_OK);
    assert_true(r.best[0] == 1 && r.tried == 1);
}

static void bounds_hold(void **state)
{
    (void)state;
    static const double wanted[4] = { 4, 0, 0, 0 };
    result r;
    wn_budget_space s = { .n_layers = 4, .n_groups = 1, .least = 0.5, .most = 2 };
    bowl b = { .s = &s, .wanted = wanted };     /* cost_of() checks each candidate */
    assert_int_equal(evolve(&r, &b, 0), WN_OK);
    assert_true(r.best[0] > 1.9);
}

/* Costs that are no numbers are worse than all others. */
static wn_status faulty(void *ctx, const double *weights, int n, double *costs, wn_err *e)
{
    wn_status st = distance(ctx, weights, n, costs, e);
    for (int i = 0; i < n; i += 2) costs[i] = NAN;
    return st;
}

static void what_is_no_number_is_worst(void **state)
{
    (void)state;
    result r;
    wn_budget_space s = { .n_layers = 6, .n_groups = 1, .least = 0.1, .most = 4 };
    bowl b = { .s = &s, .wanted = wanted_six };
    assert_int_equal(wn_budgets_evolve(&s, 0, faulty, &b, r.best, &r.even, &r.found, &r.tried,
                                       &err),
                     WN_OK);
    assert_true(r.found < 1 && cost_of(&b, r.best) == r.found);
}

static bool after_four(void *ctx) { return ((bowl *)ctx)->n_calls >= 4; }

static void enough_is_enough(void **state)
{
    (void)state;
    result r;
    bowl b = { .wanted = wanted_six };
    wn_budget_space s = { .n_layers = 6, .n_groups = 1, .least = 0.1, .most = 4,
                          .enough = after_four, .enough_ctx = &b };
    b.s = &s;
    assert_int_equal(evolve(&r, &b, 0), WN_OK);
    assert_int_equal(b.n_calls, 4);
    assert_true(r.tried == 1 + 3 * 9 && r.found < r.even);
}

/* ---- the same again -------------------------------------------------------------------------- */

static char path[80];

static wn_search_log *open_log(const char *key)
{
    wn_search_log *l;
    if (wn_search_log_open(&l, path, key, &err)) fail_msg("%s", err.text);
    return l;
}

static void a_seed_is_a_search(void **state)
{
    (void)state;
    result a, b, c;
    wn_budget_space s = { .n_layers = 16, .n_groups = 2, .least = 0.1, .most = 4,
                          .most_tried = 200 };
    bowl x = { .s = &s, .wanted = wanted_sixteen }, y = x, z = x;
    assert_int_equal(evolve(&a, &x, 5), WN_OK);
    assert_int_equal(evolve(&b, &y, 5), WN_OK);
    assert_int_equal(evolve(&c, &z, 6), WN_OK);
    assert_memory_equal(&a, &b, sizeof a);
    assert_memory_not_equal(a.best, c.best, sizeof a.best);
}

/* Stopped in each of its batches in turn, and taken up by another run. */
static void interruptions_change_nothing(void **state)
{
    (void)state;
    result ref, r;
    wn_budget_space s = { .n_layers = 16, .n_groups = 2, .least = 0.1, .most = 4,
                          .most_tried = 120 };
    bowl b = { .s = &s, .wanted = wanted_sixteen };
    assert_int_equal(evolve(&ref, &b, 2), WN_OK);
    int n_calls = b.n_calls;
    assert_true(n_calls > 6);
    for (int at = 1; at <= n_calls; at++) {
        unlink(path);
        b = (bowl){ .s = &s, .wanted = wanted_sixteen, .fail_at = at, .log = open_log("evolve-1") };
        assert_int_equal(evolve(&r, &b, 2), WN_EIO);
        assert_int_equal(b.n_calls, at);
        wn_search_log_close(b.log);
        b = (bowl){ .s = &s, .wanted = wanted_sixteen, .log = open_log("evolve-1") };
        assert_int_equal(evolve(&r, &b, 2), WN_OK);
        wn_search_log_close(b.log);
        assert_int_equal(b.n_known, at - 1);    /* what was done is not done again */
        assert_memory_equal(&ref, &r, sizeof r);
    }
    /* nothing is left to be done */
    b = (bowl){ .s = &s, .wanted = wanted_sixteen, .log = open_log("evolve-1") };
    assert_int_equal(evolve(&r, &b, 2), WN_OK);
    assert_int_equal(b.n_known, b.n_calls);
    wn_search_log_close(b.log);
    /* another seed tries others */
    b = (bowl){ .s = &s, .wanted = wanted_sixteen, .log = open_log("evolve-1") };
    assert_int_equal(evolve(&r, &b, 3), WN_EFORMAT);
    assert_non_null(strstr(err.text, "batch 1 is not what this search tries there"));
    wn_search_log_close(b.log);
    unlink(path);
}

/* ---- the file -------------------------------------------------------------------------------- */

static void write_file(const char *text, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_true(f && fwrite(text, 1, n, f) == n && !fclose(f));
}

static size_t read_file(char text[4096])
{
    FILE *f = fopen(path, "r");
    size_t n = fread(text, 1, 4096, f);
    fclose(f);
    return n;
}

static wn_status try_open(const char *key)
{
    wn_search_log *l;
    wn_status st = wn_search_log_open(&l, path, key, &err);
    if (st) assert_null(l);
    wn_search_log_close(l);
    return st;
}

static void the_file_is_whole_or_refused(void **state)
{
    (void)state;
    static const double x[2] = { 1, 2 }, costs[2] = { 0.1, 3 };
    char text[4096], other[4096];
    bool known;
    double got[2];
    unlink(path);
    wn_search_log *l = open_log("descend-1");
    assert_int_equal(access(path, F_OK), -1);           /* nothing has been tried */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(wn_search_log_find(l, x, 2, got, 2, &known, &err), WN_OK);
        assert_false(known);
        assert_int_equal(wn_search_log_add(l, x, 2, costs, 2, &err), WN_OK);
    }
    wn_search_log_close(l);
    size_t n = read_file(text);
    l = open_log("descend-1");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(wn_search_log_find(l, x, 2, got, 2, &known, &err), WN_OK);
        assert_true(known && got[0] == 0.1 && got[1] == 3);
    }
    wn_search_log_close(l);
    l = open_log("descend-1");
    assert_int_equal(wn_search_log_find(l, x, 2, got, 1, &known, &err), WN_EFORMAT);
    wn_search_log_close(l);
    assert_int_equal(try_open("descend-2"), WN_EINVAL);
    assert_non_null(strstr(err.text, "another search"));
    for (size_t cut = 1; cut < n; cut++) {
        write_file(text, cut);
        assert_int_not_equal(try_open("descend-1"), WN_OK);
    }
    for (size_t i = 0; i < n; i++) {                    /* no byte may change, not even to one that
                                                           ends a text */
        memcpy(other, text, n);
        other[i] = i % 2 ? '\0' : (char)(other[i] ^ 1);
        write_file(other, n);
        wn_status st = try_open("descend-1");
        if (st != WN_EFORMAT && st != WN_EUNSUPPORTED) fail_msg("byte %zu: status %d", i, st);
    }
    write_file("winnow search 2 descend-1\n", 26);
    assert_int_equal(try_open("descend-1"), WN_EUNSUPPORTED);
    write_file("something else\n", 15);
    assert_int_equal(try_open("descend-1"), WN_EFORMAT);
    unlink(path);
    assert_int_equal(wn_search_log_open(&l, NULL, "x", &err), WN_OK);
    assert_null(l);
}

/* A place that cannot be written: a sentence, and the batch is not lost silently. */
static void what_cannot_be_written_is_said(void **state)
{
    (void)state;
    static const double x = 1;
    wn_search_log *l;
    assert_int_equal(wn_search_log_open(&l, "/nowhere/x", "k", &err), WN_OK);
    assert_int_equal(wn_search_log_add(l, &x, 1, &x, 1, &err), WN_EIO);
    assert_non_null(strstr(err.text, "/nowhere/x: cannot be written"));
    wn_search_log_close(l);
}

int main(void)
{
    test_path(path, sizeof path, "evolve");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completed_by_hand),
        cmocka_unit_test(any_weights_are_completed),
        cmocka_unit_test(an_optimum_is_found),
        cmocka_unit_test(groups_one_after_another),
        cmocka_unit_test(nothing_better_is_even),
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(what_is_no_number_is_worst),
        cmocka_unit_test(enough_is_enough),
        cmocka_unit_test(a_seed_is_a_search),
        cmocka_unit_test(interruptions_change_nothing),
        cmocka_unit_test(the_file_is_whole_or_refused),
        cmocka_unit_test(what_cannot_be_written_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
