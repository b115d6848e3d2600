/* Building plans: ranges are clipped, masks combine, entries are chained by lane, and the
 * first failure is remembered. */
#include "tests/unit/check.h"

#include "base/alloc.h"
#include "policy/plan.h"

static void masks_agree_with_a_table(void **state)
{
    (void)state;
    enum { N = 200, LANES = 3 };
    for (uint64_t seed = 1; seed <= 200; seed++) {
        uint64_t rng = seed;
        bool keep[LANES][N];
        wn_plan p;
        memset(keep, true, sizeof keep);
        wn_plan_init(&p, N, LANES);
        assert_true(wn_plan_is_empty(&p));
        for (int op = 0; op < 8; op++) {
            int lane = (int)(test_rand(&rng) % (LANES + 1)) - 1;
            if (test_rand(&rng) % 3) {
                int from = (int)(test_rand(&rng) % 240) - 20,
                    to = from + (int)(test_rand(&rng) % 80) - 5;
                wn_plan_drop(&p, lane, from, to);
                for (int l = 0; l < LANES; l++)
                    for (int i = 0; i < N; i++)
                        if ((lane == l || lane == WN_ALL_LANES) && i >= from && i < to)
                            keep[l][i] = false;
            } else {
                int32_t pos[N];
                bool in[N] = { 0 };
                int n = 100 + (int)(test_rand(&rng) % 100);
                for (int i = 0; i < n; i++) in[pos[i] = (int32_t)(test_rand(&rng) % N)] = true;
                wn_plan_keep_only(&p, lane, pos, n);
                for (int l = 0; l < LANES; l++)
                    for (int i = 0; i < N; i++)
                        if ((lane == l || lane == WN_ALL_LANES) && !in[i]) keep[l][i] = false;
            }
        }
        for (int l = 0; l < LANES; l++)
            for (int i = 0; i < N; i++)
                if (wn_plan_keeps(&p, l, i) != keep[l][i])
                    fail_msg("seed %d lane %d at %d", (int)seed, l, i);
        assert_int_equal(p.status, WN_OK);
        wn_plan_clear(&p);
        assert_true(wn_plan_is_empty(&p));
        assert_true(wn_plan_keeps(&p, 1, 7));
        wn_plan_release(&p);
    }
}

static void entries_are_chained_by_lane(void **state)
{
    (void)state;
    wn_plan p;
    const int32_t src[2] = { 3, 5 };
    const float w[2] = { 0.5f, 0.5f };
    wn_plan_init(&p, 10, 3);
    assert_int_equal(wn_plan_first(&p, 1, WN_PLAN_MERGES), -1);
    wn_plan_merge_slots(&p, 1, 5, src, w, w, 2, 0.0f, 2);
    wn_plan_merge_slots(&p, WN_ALL_LANES, 3, src, w, w, 1, 1.0f, 1);
    wn_plan_set_bias(&p, 2, 4, 0.5f);
    wn_plan_set_bias(&p, 2, 6, 0.25f);
    wn_plan_shift(&p, WN_ALL_LANES, -5, 4, 7);
    assert_int_equal(p.status, WN_OK);
    assert_false(wn_plan_is_empty(&p));
    int32_t i = wn_plan_first(&p, 1, WN_PLAN_MERGES);
    assert_int_equal(p.merges[i].at, 5);
    i = p.merges[i].next;
    assert_int_equal(p.merges[i].at, 3);
    assert_int_equal(p.merges[i].next, -1);
    assert_int_equal(p.src[p.merges[i].first_src], 3);
    assert_int_equal(p.merges[wn_plan_first(&p, 0, WN_PLAN_MERGES)].at, 3);
    i = wn_plan_first(&p, 2, WN_PLAN_BIASES);
    assert_true(p.biases[i].bias == 0.5f && p.biases[p.biases[i].next].bias == 0.25f);
    for (int l = 0; l < 3; l++) {
        i = wn_plan_first(&p, l, WN_PLAN_SHIFTS);
        assert_int_equal(p.shifts[i].from, 0);
        assert_int_equal(p.shifts[i].to, 4);
    }
    wn_plan_clear(&p);
    assert_int_equal(wn_plan_first(&p, 2, WN_PLAN_BIASES), -1);
    wn_plan_release(&p);
}

static void bad_entries_are_remembered(void **state)
{
    (void)state;
    const int32_t src[1] = { 10 };
    const float w[1] = { 1 };
    wn_plan p;
    wn_plan_init(&p, 10, 2);
    wn_plan_drop(&p, 2, 0, 5);
    assert_int_equal(p.status, WN_EINVAL);
    wn_plan_drop(&p, 0, 0, 5);                          /* nothing is added after a failure */
    assert_true(wn_plan_is_empty(&p));
    wn_plan_clear(&p);
    assert_int_equal(p.status, WN_OK);
    wn_plan_merge_slots(&p, 0, 0, src, w, w, 1, 0, 1);
    assert_int_equal(p.status, WN_EINVAL);
    wn_plan_clear(&p);
    wn_plan_set_bias(&p, 0, -1, 0);
    assert_int_equal(p.status, WN_EINVAL);
    wn_plan_clear(&p);
    wn_plan_keep_only(&p, 0, src, 1);
    assert_int_equal(p.status, WN_EINVAL);
    wn_plan_clear(&p);
    p.n_tokens = 11;                                    /* more than it was made for */
    wn_plan_drop(&p, 0, 0, 1);
    assert_int_equal(p.status, WN_EINVAL);
    wn_plan_release(&p);
}

static void build(wn_plan *p)
{
    const int32_t src[2] = { 3, 5 };
    const float w[2] = { 1, 2 };
    wn_plan_init(p, 100, 4);
    wn_plan_drop(p, WN_ALL_LANES, 10, 20);
    wn_plan_keep_only(p, 1, src, 2);
    wn_plan_merge_slots(p, WN_ALL_LANES, 3, src, w, w, 2, 0, 2);
    wn_plan_set_bias(p, 0, 5, 1);
    wn_plan_shift(p, 0, 0, 4, 1);
}

static void building_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int n = 1, fired = 1; fired; n++) {
        wn_plan p;
        wn_fault_alloc(n);
        build(&p);
        fired = wn_fault_clear();
        assert_int_equal(p.status, fired ? WN_ENOMEM : WN_OK);
        wn_plan_release(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_agree_with_a_table),
        cmocka_unit_test(entries_are_chained_by_lane),
        cmocka_unit_test(bad_entries_are_remembered),
        cmocka_unit_test(building_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
