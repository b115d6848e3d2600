/* What every recipe of the table owes, over views made by hand: its budget in whichever
 * unit, the protected slots, an empty plan below the budget, nothing said of lanes that
 * show no slots, the same plan from the same view. Then what each promises by itself. */
#include "tests/support/view.h"
#include "tests/unit/check.h"

#include <math.h>

static char kv[160];

static const char *spell(const wn_recipe *r, const char *params, const char *budget)
{
    snprintf(kv, sizeof kv, "%s(%s)%s", r->name, params, r->kind == WN_CLASS_FULL ? "" : budget);
    return kv;
}

/* 3 layers of 2 lanes, the middle one a window layer if hidden; lanes of unequal thickness. */
static test_view *some_view(uint64_t seed, int n, bool hidden)
{
    uint64_t rng = seed;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = n, .max_tokens = n + 400,
                                                 .n_layers = 3, .heads = 2, .dim = 8 });
    if (hidden) test_view_hide(t, 1);
    for (int l = 0; l < t->view.n_lanes; l++)
        if (test_rand(&rng) % 2)
            test_view_thin(t, l, n / 2 + (int)(test_rand(&rng) % (uint64_t)(n - n / 2)) + 1,
                           seed + (uint64_t)l);
    if (test_rand(&rng) % 2) test_view_merge(t, 0, t->lanes[0].pos[t->lanes[0].n / 2], 3, logf(3));
    return t;
}

static int live_slots(const test_view *t, int *n_lanes)
{
    int n = 0;
    *n_lanes = 0;
    for (int l = 0; l < t->view.n_lanes; l++) {
        n += t->shown[l].n;
        *n_lanes += t->shown[l].n > 0;
    }
    return n;
}

/* Slots that the policy that was asked last protects by itself: they may go beyond a tiny
 * budget. */
static int protected_slots(const test_view *t)
{
    int n = 0;
    for (int l = 0; l < t->view.n_lanes; l++)
        for (int i = 0; i < t->shown[l].n; i++)
            n += t->shown[l].pos[i] < t->policy.first ||
                 t->shown[l].pos[i] >= t->view.n_tokens - t->policy.last;
    return n;
}

static bool is_budgeted(const wn_recipe *r)
{
    return r->kind == WN_CLASS_BUDGETED || r->kind == WN_CLASS_PROBE;
}

static void budgets_are_kept_in_every_unit(void **state)
{
    (void)state;
    static const double shares[] = { 1, 6.25, 12.5, 29, 33.3, 50, 75, 99, 100 };
    for (int i = 0; wn_recipe_at(i); i++)
        for (uint64_t seed = 1; seed <= 40; seed++) {
            const wn_recipe *r = wn_recipe_at(i);
            int n = 40 + (int)(seed * 7), n_lanes;
            double share = shares[seed % WN_COUNT(shares)];
            char budget[40];
            if (!is_budgeted(r)) continue;
            test_view *t = some_view(seed, n, seed % 3 == 0);
            int live = live_slots(t, &n_lanes), most = (int)(share * n * n_lanes / 100 + 1e-6);
            snprintf(budget, sizeof budget, "@%g%%", share);
            test_view_decide(t, spell(r, "", budget));
            if (test_view_total(t) > WN_MAX(most, protected_slots(t)) && live > most)
                fail_msg("seed %d: %s keeps %d slots of %d, %d are allowed", (int)seed, kv,
                         test_view_total(t), live, most);
            int slots = 1 + (int)(seed * 5) % n;
            snprintf(budget, sizeof budget, "@%d", slots);
            test_view_decide(t, spell(r, "", budget));
            if (test_view_total(t) > WN_MAX(slots * n_lanes, protected_slots(t)) &&
                live > slots * n_lanes)
                fail_msg("seed %d: %s keeps %d slots in %d lanes", (int)seed, kv,
                         test_view_total(t), n_lanes);
            /* bytes of frames: 24 for a slot of one lane here, over the lanes that have slots */
            snprintf(budget, sizeof budget, "@%dB", slots * n_lanes * 24 + 23);
            test_view_decide_bytes(t, spell(r, "", budget), 24);
            if (test_view_total(t) > WN_MAX(slots * n_lanes, protected_slots(t)) &&
                live > slots * n_lanes)
                fail_msg("seed %d: %s keeps %d slots in %d lanes", (int)seed, kv,
                         test_view_total(t), n_lanes);
            test_view_close(t);
        }
}

static void below_the_budget_nothing_happens(void **state)
{
    (void)state;
    for (int i = 0; wn_recipe_at(i); i++)
        for (uint64_t seed = 1; seed <= 10; seed++) {
            const wn_recipe *r = wn_recipe_at(i);
            char budget[40];
            int n_lanes;
            if (!is_budgeted(r)) continue;
            test_view *t = some_view(seed, 200, seed % 2);
            int live = live_slots(t, &n_lanes), mean = (live + n_lanes - 1) / n_lanes;
            static const char *const wide[] = { "@100%", "@200", "@1000000", "@1GiB" };
            for (size_t b = 0; b < WN_COUNT(wide); b++)
                assert_true(wn_plan_is_empty(test_view_decide(t, spell(r, "", wide[b]))));
            /* the mean over lanes counts, not the longest */
            snprintf(budget, sizeof budget, "@%d", mean);
            assert_true(wn_plan_is_empty(test_view_decide(t, spell(r, "", budget))));
            snprintf(budget, sizeof budget, "@%d", mean - 1);
            assert_false(wn_plan_is_empty(test_view_decide(t, spell(r, "", budget))));
            snprintf(budget, sizeof budget, "@%dB", live * 24);
            assert_true(wn_plan_is_empty(test_view_decide_bytes(t, spell(r, "", budget), 24)));
            snprintf(budget, sizeof budget, "@%dB", live * 24 - 1);
            assert_false(wn_plan_is_empty(test_view_decide_bytes(t, spell(r, "", budget), 24)));
            test_view_close(t);
        }
}

/* first=, last= and ranges the caller named, inside the budget where they fit into it and
 * beyond it where they do not. */
static void the_protected_stay(void **state)
{
    (void)state;
    static const struct { int first, last, slots;
    } cases[] = { { 4, 16, 60 },  { 0, 1, 1 },      { 7, 0, 8 }, { 30, 30, 70 },
                  { 30, 30, 10 }, { 300, 300, 10 }, { 0, 0, 20 } };
    for (int i = 0; wn_recipe_at(i); i++)
        for (size_t c = 0; c < WN_COUNT(cases); c++)
            for (int named = 0; named < 2; named++) {
                const wn_recipe *r = wn_recipe_at(i);
                char params[60], budget[40];
                int n = 200, n_lanes, n_protected = 0;
                test_view *t = some_view(c + 1, n, true);
                if (named) test_view_protect(t, 90, 95);
                snprintf(params, sizeof params, "first=%d,last=%d", cases[c].first, cases[c].last);
                snprintf(budget, sizeof budget, "@%d", cases[c].slots);
                test_view_decide(t, spell(r, params, budget));
                for (int l = 0; l < t->view.n_lanes; l++) {
                    int here = 0;
                    for (int s = 0; s < t->shown[l].n; s++) {
                        int32_t pos = t->shown[l].pos[s];
                        if (pos >= cases[c].first && pos < n - cases[c].last &&
                            !(named && pos >= 90 && pos < 95))
                            continue;
                        if (!test_view_stays(t, l, pos))
                            fail_msg("%s drops position %d of lane %d", kv, pos, l);
                        here++;
                    }
                    n_protected = WN_MAX(n_protected, here);
                }
                live_slots(t, &n_lanes);
                if (is_budgeted(r) &&
                    test_view_total(t) > n_lanes * WN_MAX(cases[c].slots, n_protected))
                    fail_msg("%s keeps %d slots in %d lanes, %d of a lane protected", kv,
                             test_view_total(t), n_lanes, n_protected);
                test_view_close(t);
            }
}

static void same_view_same_plan(void **state)
{
    (void)state;
    for (int i = 0; wn_recipe_at(i); i++)
        for (uint64_t seed = 1; seed <= 8; seed++) {
            const wn_recipe *r = wn_recipe_at(i);
            bool stays[6][300];
            test_view *t = some_view(seed, 150 + (int)seed * 10, seed % 2);
            for (int again = 0; again < 2; again++) {
                /* scratch is not zeroed between decisions */
                wn_mark m = wn_arena_mark(&t->scratch);
                memset(wn_arena_take(&t->scratch, 1 << 20), again ? 0xff : 0x3f, 1 << 20);
                wn_arena_rewind(&t->scratch, m);
                memset(t->view.rows[0], again ? 0xff : 0, 16);
                test_view_decide(t, spell(r, "last=3", "@30%"));
                for (int l = 0; l < t->view.n_lanes; l++)
                    for (int s = 0; s < t->shown[l].n; s++) {
                        bool now = test_view_stays(t, l, t->shown[l].pos[s]);
                        if (again && now != stays[l][s]) fail_msg("%s: lane %d slot %d", kv, l, s);
                        stays[l][s] = now;
                    }
            }
            test_view_close(t);
        }
}

/* Decisions in a row, tokens coming in between, as in a cache: every one keeps the budget,
 * also when it has become smaller than a decision before left. */
static void decision_after_decision(void **state)
{
    (void)state;
    static const char *const budgets[] = { "@40%", "@20%", "@50", "@3", "@1" };
    for (int i = 0; wn_recipe_at(i); i++)
        for (size_t b = 0; b < WN_COUNT(budgets); b++) {
            const wn_recipe *r = wn_recipe_at(i);
            int n_lanes;
            test_view *t = some_view(b + 1, 60, b % 2);
            for (int k = 0; k < 25; k++) {
                test_view_decide(t, spell(r, "", budgets[b]));
                live_slots(t, &n_lanes);
                int64_t most = t->view.budget;
                if (is_budgeted(r) && test_view_total(t) > WN_MAX(most, protected_slots(t)))
                    fail_msg("%s at %d: %d slots, %d are allowed", kv, t->view.n_tokens,
                             test_view_total(t), (int)most);
                test_view_carry_out(t);
                test_view_grow(t, 1 + k % 16);
            }
            test_view_close(t);
        }
}

/* ---- one by one -------------------------------------------------------------------------- */

static void check_kept(const char *policy, int n, int from, int to)     /* [0, from) and [to, n) */
{
    test_view *t = test_view_open(&(test_shape){ .n_tokens = n, .n_layers = 1, .heads = 2 });
    test_view_decide(t, policy);
    for (int l = 0; l < 2; l++)
        for (int p = 0; p < n; p++)
            if (test_view_stays(t, l, p) != (p < from || p >= to))
                fail_msg("%s at %d tokens: position %d of lane %d", policy, n, p, l);
    test_view_close(t);
}

static void recent_keeps_both_ends(void **state)
{
    (void)state;
    check_kept("recent(sinks=4,window=10)", 100, 4, 90);
    check_kept("recent(sinks=4,window=10)", 15, 4, 5);
    check_kept("recent(sinks=4,window=10)", 14, 14, 14);
    check_kept("recent(sinks=0,window=1)", 100, 0, 99);
    check_kept("recent(sinks=4)@25%", 100, 4, 79);
    check_kept("recent(sinks=4)@29%", 100, 4, 75);  /* 0.29 x 100 is 28.999.. in doubles */
    check_kept("recent(sinks=4)@10", 100, 4, 94);
    /* too small for the sinks: the window has one */
    check_kept("recent(sinks=4)@3", 100, 2, 99);
    check_kept("recent(sinks=4)@1", 100, 0, 99);
    check_kept("recent(sinks=4)@1%", 99, 0, 99);                /* nothing is what 1 % of 99 is */
    check_kept("recent(sinks=4,first=6)@10", 100, 6, 96);
    check_kept("recent(sinks=4,window=10,first=6,last=12)", 100, 6, 88);
    check_kept("recent(sinks=4,last=20)@10", 100, 0, 80);
    check_kept("recent", 1028, 1028, 1028);
    check_kept("recent", 1029, 4, 5);
}

/* Lots are drawn once for a position: less budget keeps a part of what more keeps, other
 * slots do not matter, and lanes and seeds differ. */
static void random_draws_once(void **state)
{
    (void)state;
    int differ_lanes = 0, differ_seeds = 0;
    bool wide[2][200];
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 200, .n_layers = 1, .heads = 2 });
    test_view_decide(t, "random@100");
    for (int l = 0; l < 2; l++)
        for (int p = 0; p < 200; p++) wide[l][p] = test_view_stays(t, l, p);
    assert_int_equal(test_view_n_stays(t, 0), 100);
    assert_int_equal(test_view_n_stays(t, 1), 100);
    for (int p = 0; p < 200; p++) differ_lanes += wide[0][p] != wide[1][p];
    test_view_decide(t, "random(seed=2)@100");
    for (int p = 0; p < 200; p++) differ_seeds += test_view_stays(t, 0, p) != wide[0][p];
    assert_in_range(differ_lanes, 60, 140);     /* 100 expected, 7 the deviation */
    assert_in_range(differ_seeds, 60, 140);
    test_view_decide(t, "random@40");
    for (int p = 0; p < 200; p++) assert_true(!test_view_stays(t, 1, p) || wide[1][p]);
    test_view_thin(t, 1, 150, 9);
    test_view_decide(t, "random(last=0)@40");
    for (int p = 0; p < 200; p++) assert_true(!test_view_stays(t, 0, p) || wide[0][p]);
    assert_int_equal(test_view_total(t), 80);
    assert_int_equal(t->n_loads, 0);            /* and no row was looked at */
    test_view_close(t);
}

static void keepall_keeps_all(void **state)
{
    (void)state;
    test_view *t = some_view(3, 100, true);
    int n_lanes, live = live_slots(t, &n_lanes);
    const wn_plan *p = test_view_decide(t, "keepall");
    assert_int_equal(test_view_total(t), live);
    assert_false(wn_plan_is_empty(p));
    assert_int_equal(p->n_biases, n_lanes);     /* of 0: what makes the cache list the lanes */
    for (int i = 0; i < p->n_biases; i++) assert_true(p->biases[i].bias == 0);
    assert_true(wn_plan_is_empty(test_view_decide(t, "none")));
    test_view_close(t);
}

/* Bounds that reservations rest on: what a policy says it holds at most is what it holds. */
static void caps_hold(void **state)
{
    (void)state;
    static const char *const budgets[] = { "", "@30%", "@20", "@1", "@1%", "@99%" };
    for (int i = 0; wn_recipe_at(i); i++)
        for (size_t b = 0; b < WN_COUNT(budgets); b++)
            for (int k = 0; k < 3; k++) {
                static const char *const params[] = { "", "first=9,last=30", "every=64,last=1" };
                for (int n = 1; n < 300; n += n < 20 ? 1 : 53) {
                    test_view *t = test_view_open(
                        &(test_shape){ .n_tokens = n, .n_layers = 1, .heads = 3 });
                    test_view_decide(t, spell(wn_recipe_at(i), params[k], budgets[b]));
                    int64_t cap = wn_policy_cap(&t->policy, n);
                    assert_true(cap <= n);
                    /* lanes differ: the mean */
                    bool share = wn_recipe_at(i)->kind == WN_CLASS_HEAD_SHARE;
                    if (share && test_view_total(t) > 3 * cap)
                        fail_msg("%s at %d: %d slots", kv, n, test_view_total(t));
                    for (int l = 0; l < 3 && !share; l++)
                        if (test_view_n_stays(t, l) > cap)
                            fail_msg("%s at %d: %d slots, cap %d", kv, n, test_view_n_stays(t, l),
                                     (int)cap);
                    test_view_close(t);
                }
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budgets_are_kept_in_every_unit),
        cmocka_unit_test(below_the_budget_nothing_happens),
        cmocka_unit_test(the_protected_stay),
        cmocka_unit_test(same_view_same_plan),
        cmocka_unit_test(decision_after_decision),
        cmocka_unit_test(recent_keeps_both_ends),
        cmocka_unit_test(random_draws_once),
        cmocka_unit_test(keepall_keeps_all),
        cmocka_unit_test(caps_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
