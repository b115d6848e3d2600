/* What a profile is made of, by hand: what one row of attention adds to a head's scores, what a
 * head loses when it streams, where repeats lie; and the search for budgets on costs that are
 * known. */
#include "eval/budgets.h"
#include "eval/profile.h"
#include "tests/unit/check.h"

#include <math.h>

/* ---- rows ---------------------------------------------------------------------------------- */

/* Ten positions; the row at 9 sees a needle's value at 3 and 4 (3 is copied now), its sentence at
 * 2 to 5, position 0 and the last three are near. */
static void a_row_by_hand(void **state)
{
    (void)state;
    static const int32_t pos[10] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    static const float w[10] = {
        0.125f, 0, 0.0625f, 0.5f, 0.125f, 0, 0, 0.0625f, 0.0625f, 0.0625f
    };
    enum { NEEDLE = WN_AT_VALUE | WN_AT_SPAN | WN_AT_COPIED };
    uint8_t mark[10] = { 0 };
    wn_head_sums s = { 0 };
    for (int i = 2; i <= 5; i++) mark[i] |= WN_AT_SPAN;
    mark[3] |= WN_AT_VALUE | WN_AT_COPIED;
    mark[4] |= WN_AT_VALUE;
    wn_rows_mark_near(mark, 9, 1, 3);
    for (int i = 0; i < 10; i++) assert_int_equal((mark[i] & WN_AT_NEAR) != 0, i == 0 || i >= 7);
    wn_rows_add(&s, w, pos, 10, mark, NEEDLE);
    assert_true(s.needle == 0.625 && s.span == 0.6875 && s.copy == 1 && s.stream == 0);
    wn_rows_add(&s, w, pos, 10, mark, WN_AT_NEAR);
    assert_true(s.stream == 0.3125 && s.needle == 0.625 && s.copy == 1);
    mark[3] ^= WN_AT_COPIED;            /* the most attended token is not the one that is written */
    mark[4] |= WN_AT_COPIED;
    wn_rows_add(&s, w, pos, 10, mark, NEEDLE);
    assert_true(s.copy == 1 && s.needle == 1.25);
}

/* Merged or reordered slots come in any order: of equals the earlier position is the most
 * attended. */
static void ties_go_to_the_earlier(void **state)
{
    (void)state;
    static const int32_t pos[3] = { 2, 0, 1 };
    static const float w[3] = { 0.375f, 0.25f, 0.375f };
    uint8_t mark[3] = { 0, WN_AT_COPIED, 0 };
    wn_head_sums s = { 0 };
    wn_rows_add(&s, w, pos, 3, mark, WN_AT_COPIED);
    assert_true(s.copy == 1);
}

/* Blocks of 5 from position 1 on; the row at 13 is the 3rd token of the third block: the same
 * token stood at 3 and 8, and 4 and 9 followed it. */
static void repeats_by_hand(void **state)
{
    (void)state;
    uint8_t mark[16] = { 0 };
    wn_rows_mark_repeats(mark, 13, 1, 5);
    for (int i = 0; i < 16; i++) {
        assert_int_equal((mark[i] & WN_AT_SAME) != 0, i == 3 || i == 8);
        assert_int_equal((mark[i] & WN_AT_NEXT) != 0, i == 4 || i == 9);
    }
    memset(mark, 0, sizeof mark);
    wn_rows_mark_repeats(mark, 4, 1, 5);        /* the first block has nothing before it */
    for (int i = 0; i < 16; i++) assert_int_equal(mark[i], 0);
}

/* Values (1,0), (0,1), (0,0) with weights 1/2, 1/4, 1/4, the last two near: the answer is
 * (1/2, 1/4); from the near ones alone (0, 1/2): |(1/2, -1/4)|^2 = 5/16 of |.|^2 = 5/16. */
static void a_loss_by_hand(void **state)
{
    (void)state;
    static const int32_t pos[3] = { 0, 1, 2 };
    static const float w[3] = { 0.5f, 0.25f, 0.25f }, v[6] = { 1, 0, 0, 1, 0, 0 };
    static const uint8_t mark[3] = { 0, WN_AT_NEAR, WN_AT_NEAR },
                         all_near[3] = { WN_AT_NEAR, WN_AT_NEAR, WN_AT_NEAR };
    static const uint8_t none[3] = { 0 };
    double a[2], b[2], norm;
    assert_true(wn_rows_loss(w, pos, 3, mark, v, 2, a, b, &norm) == 0.3125);
    assert_true(norm == 0.3125 && a[0] == 0.5 && a[1] == 0.25);
    assert_true(wn_rows_loss(w, pos, 3, all_near, v, 2, a, b, &norm) == 0);
    /* nothing seen: everything lost */
    assert_true(wn_rows_loss(w, pos, 3, none, v, 2, a, b, &norm) == 0.3125);
}

/* ---- budgets --------------------------------------------------------------------------------- */

typedef struct { const double *wanted; int n_layers, n_calls; } bowl;

static wn_status distance(void *ctx, const double *weights, int n, double *costs, wn_err *err)
{
    bowl *b = ctx;
    b->n_calls++;
    for (int i = 0; i < n; i++) {
        double mean = 0;
        costs[i] = 0;
        for (int l = 0; l < b->n_layers; l++) {
            double w = weights[i * b->n_layers + l];
            mean += w / b->n_layers;
            costs[i] += (w - b->wanted[l]) * (w - b->wanted[l]);
        }
        if (!(fabs(mean - 1) < 1e-9)) return wn_fail(err, WN_EINVAL, "weights of mean %g", mean);
    }
    return WN_OK;
}

static void a_search_goes_down(void **state)
{
    (void)state;
    static const double wanted[5] = { 1.75, 1, 0.75, 0.75, 0.75 },
                        even_wanted[5] = { 1, 1, 1, 1, 1 };
    double best[5], even, found;
    int tried;
    wn_err err;
    bowl b = { wanted, 5, 0 };
    wn_budget_space s = { .n_layers = 5, .n_groups = 5, .least = 0.1, .most = 4 };
    assert_int_equal(wn_budgets_descend(&s, distance, &b, best, &even, &found, &tried, &err),
                     WN_OK);
    assert_true(found < 0.05 * even);
    for (int l = 0; l < 5; l++) assert_true(fabs(best[l] - wanted[l]) < 0.2);
    b.wanted = even_wanted;             /* nothing is better than even */
    assert_int_equal(wn_budgets_descend(&s, distance, &b, best, &even, &found, &tried, &err),
                     WN_OK);
    for (int l = 0; l < 5; l++) assert_true(best[l] == 1);
    assert_true(found == even);
    s.n_groups = 2;                     /* layers 0, 1 and 2, 3, 4 */
    b.wanted = wanted;
    assert_int_equal(wn_budgets_descend(&s, distance, &b, best, &even, &found, &tried, &err),
                     WN_OK);
    assert_true(best[0] == best[1] && best[2] == best[4] && best[0] > 1);
    s.n_groups = 1;                     /* one group has nobody to take from */
    assert_int_equal(wn_budgets_descend(&s, distance, &b, best, &even, &found, &tried, &err),
                     WN_OK);
    assert_true(best[0] == 1 && tried == 1);
}

static void bounds_hold(void **state)
{
    (void)state;
    static const double wanted[4] = { 4, 0, 0, 0 };
    double best[4], even, found;
    int tried;
    wn_err err;
    bowl b = { wanted, 4, 0 };
    wn_budget_space s = { .n_layers = 4, .n_groups = 4, .least = 0.5, .most = 2 };
    assert_int_equal(wn_budgets_descend(&s, distance, &b, best, &even, &found, &tried, &err),
                     WN_OK);
    for (int l = 0; l < 4; l++) assert_true(best[l] >= 0.5 && best[l] <= 2);
    assert_true(best[0] >= 1.875);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_by_hand),
        cmocka_unit_test(ties_go_to_the_earlier),
        cmocka_unit_test(repeats_by_hand),
        cmocka_unit_test(a_loss_by_hand),
        cmocka_unit_test(a_search_goes_down),
        cmocka_unit_test(bounds_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
