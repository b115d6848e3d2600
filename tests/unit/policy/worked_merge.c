/* The worked examples of recipes that merge, and what all of them owe: slots that are alike
 * may become one without changing any answer, sinks take nothing in, tokens are counted once. */
#include "tests/support/stays.h"

#include "policy/stages/stages.h"

#include <math.h>

static test_view *small(int n, int dim, int group)
{
    return test_view_open(&(test_shape){ .n_tokens = n, .max_tokens = n + 400, .n_layers = 1,
                                         .heads = 1, .dim = dim, .group = group });
}

static void set_key(test_view *t, int pos, const float *row)
{
    memcpy(test_view_key(t, 0, pos), row, sizeof(float) * (size_t)t->shape.dim);
}
static void set_value(test_view *t, int pos, const float *row)
{
    memcpy(test_view_value(t, 0, pos), row, sizeof(float) * (size_t)t->shape.v_dim);
}

static void check_near(double x, double want, double bound)
{
    if (!(fabs(x - want) <= bound)) fail_msg("%.7f, not %.7f", x, want);
}

static const wn_plan_merge *only_merge(const wn_plan *p)
{
    int32_t i = wn_plan_first(p, 0, WN_PLAN_MERGES);
    assert_true(i >= 0 && p->merges[i].next == -1);
    return &p->merges[i];
}

/* The merge at a position of lane 0; NULL: there is none. */
static const wn_plan_merge *merge_at(const wn_plan *p, int at)
{
    for (int32_t i = wn_plan_first(p, 0, WN_PLAN_MERGES); i >= 0; i = p->merges[i].next)
        if (p->merges[i].at == at) return &p->merges[i];
    return NULL;
}

/* ---- what all of them owe ------------------------------------------------------------------ */

static bool merges(const wn_recipe *r) { return r->recover && strcmp(r->family, "test"); }

/* With what a recipe needs for this, where that is not its default. */
static const char *const exact[] = { "d2o",
                                     "kvmerger(recent=0.1,heavy=0)",
                                     "ems(window=4)",
                                     "zeromerge(scale=1)",
                                     "chelsea(recent=3)",
                                     "lookm",
                                     "lookm(merge=average)",
                                     "lookm(merge=weighted)",
                                     "elastic" };

/* Equal keys and values in slots of any number of tokens: the mass of all slots together is that of
 * the tokens there are, every row is the row, and what stands there is counted once. */
static void equal_rows_may_become_one(void **state)
{
    (void)state;
    for (size_t r = 0; r < WN_COUNT(exact); r++)
        for (uint64_t seed = 1; seed <= 20; seed++) {
            char kv[120];
            uint64_t rng = seed;
            int n = 30 + (int)seed, count = 0;
            double mass = 0;
            float key[4], value[4];
            test_view *t = small(n, 4, 1);
            memcpy(key, test_view_key(t, 0, 0), sizeof key);
            memcpy(value, test_view_value(t, 0, 0), sizeof value);
            for (int p = 1; p < n; p++) {
                set_key(t, p, key);
                set_value(t, p, value);
                *test_view_mass(t, 0, p) = (float)(test_rand(&rng) % 7);
            }
            test_view_merge(t, 0, n / 2, 3, logf(3));
            snprintf(kv, sizeof kv, "%s@40%%", exact[r]);
            assert_true(test_view_decide(t, kv)->n_merges > 0);
            test_view_carry_out(t);
            const wn_view_lane *l = &t->shown[0];
            for (int i = 0; i < l->n; i++) {
                mass += exp(l->bias ? (double)l->bias[i] : 0);
                count += wn_stage_count(l, i);
                for (int d = 0; d < 4; d++) {
                    check_near((double)test_view_key(t, 0, l->pos[i])[d], (double)key[d], 1e-5);
                    check_near((double)test_view_value(t, 0, l->pos[i])[d], (double)value[d], 1e-5);
                }
            }
            if (count != n + 2 || fabs(mass - (n + 2)) > 1e-3)
                fail_msg("%s: %d tokens and a mass of %g of %d", kv, count, mass, n + 2);
            test_view_close(t);
        }
}

/* Nothing is merged into protected slots, and they are merged into nothing; no slot is counted
 * twice. */
static void protected_slots_are_left_alone(void **state)
{
    (void)state;
    for (int i = 0; wn_recipe_at(i); i++)
        for (uint64_t seed = 1; seed <= 10 && merges(wn_recipe_at(i)); seed++) {
            char kv[120];
            uint64_t rng = seed;
            test_view *t = small(120, 4, 2);
            for (int p = 0; p < 120; p++)
                *test_view_mass(t, 0, p) = (float)(test_rand(&rng) % 100) / 100;
            snprintf(kv, sizeof kv, "%s(first=5,last=3)@%d", wn_recipe_at(i)->name,
                     9 + (int)seed * 5);
            test_view_protect(t, 60, 63);
            for (int again = 0; again < 6; again++) {
                const wn_plan *p = test_view_decide(t, kv);
                int n = t->view.n_tokens, before = 0, after = 0, dropped = 0;
                for (int s = 0; s < t->shown[0].n; s++) {
                    before += wn_stage_count(&t->shown[0], s);
                    dropped += wn_plan_keeps(p, 0, t->shown[0].pos[s])
                                   ? 0
                                   : wn_stage_count(&t->shown[0], s);
                }
                for (int32_t m = wn_plan_first(p, 0, WN_PLAN_MERGES); m >= 0; m = p->merges[m].next)
                    for (int s = 0; s < p->merges[m].n_src; s++) {
                        int pos = p->src[p->merges[m].first_src + s];
                        if (pos < 5 || pos >= n - 3 || (pos >= 60 && pos < 63))
                            fail_msg("%s at %d merges %d", kv, n, pos);
                    }
                test_view_carry_out(t);
                for (int s = 0; s < t->shown[0].n; s++) after += wn_stage_count(&t->shown[0], s);
                if (after > before || after < before - dropped)
                    fail_msg("%s at %d: %d tokens become %d", kv, n, before, after);
                test_view_grow(t, 20);
            }
            test_view_close(t);
        }
}

/* ---- CaM ------------------------------------------------------------------------------------- */

/* Attention as large as that of its heirs: half of (2, 0) goes to (1, 1) and to (0, 0); keys
 * stay. */
static void cam_hands_values_on(void **state)
{
    (void)state;
    static const float values[4][2] = { { 2, 0 }, { 1, 1 }, { 0, 0 }, { 5, 5 } };
    test_view *t = small(4, 2, 1);
    float keys[4][2];
    for (int p = 0; p < 4; p++) {
        set_value(t, p, values[p]);
        memcpy(keys[p], test_view_key(t, 0, p), sizeof keys[p]);
    }
    /* a quarter of each query that has seen them */
    static const float mass[4] = { 1, 0.75f, 0.5f, 0.25f };
    for (int p = 0; p < 4; p++) *test_view_mass(t, 0, p) = mass[p];
    *test_view_mass(t, 0, 0) += 1e-3f;
    const wn_plan *p = test_view_decide(t, "cam(first=0,recent=1,next=2,bias=none)@3");
    assert_int_equal(p->n_merges, 2);
    assert_int_equal(merge_at(p, 1)->count, 1);
    check_near((double)merge_at(p, 1)->bias, 0, 0);
    test_view_carry_out(t);
    assert_int_equal(t->shown[0].n, 3);
    for (int at = 1; at < 4; at++)
        for (int d = 0; d < 2; d++) {
            check_near((double)test_view_key(t, 0, at)[d], (double)keys[at][d], 0);
            check_near((double)test_view_value(t, 0, at)[d],
                       (double)values[at][d] + (at < 3 ? (double)values[0][d] / 2 : 0), 1e-6);
        }
    test_view_close(t);
}

/* Where all have one key, all of the victim's value and weight is with its heirs, so no answer
 * changes, also when those are victims later. (The paper's sum of values is (3, 1) + (5, 5) over 3
 * slots, not 4.) */
static void cam_weighs_what_it_hands_on(void **state)
{
    (void)state;
    static const float values[4][2] = { { 2, 0 }, { 1, 1 }, { 0, 0 }, { 5, 5 } },
                       key[2] = { 0.5f, -1 };
    static const float mass[4] = { 1.001f, 0.75f, 0.5f, 0.25f };
    test_view *t = small(4, 2, 1);
    for (int p = 0; p < 4; p++) {
        set_key(t, p, key);
        set_value(t, p, values[p]);
        *test_view_mass(t, 0, p) = mass[p];
    }
    for (int keep = 3; keep > 1; keep--) {
        char kv[80];
        double sum[2] = { 0 }, weight = 0;
        snprintf(kv, sizeof kv, "cam(first=0,recent=1,next=2)@%d", keep);
        test_view_decide(t, kv);
        test_view_carry_out(t);
        const wn_view_lane *l = &t->shown[0];
        assert_int_equal(l->n, keep);
        if (keep == 3) check_near((double)l->bias[0], log(1.5), 1e-6);
        if (keep == 3) check_near((double)test_view_value(t, 0, 1)[0], 4 / 3.0, 1e-6);
        for (int i = 0; i < l->n; i++) {
            double w = l->bias ? exp((double)l->bias[i]) : 1;
            weight += w;
            for (int d = 0; d < 2; d++) sum[d] += w * (double)test_view_value(t, 0, l->pos[i])[d];
        }
        check_near(weight, 4, 1e-5);
        check_near(sum[0], 8, 1e-5);
        check_near(sum[1], 6, 1e-5);
    }
    test_view_close(t);
}

/* .1 of each query beside heirs with .4: one coin of four, the same again, others with another
 * seed; none at 0. */
static void cam_tosses_coins(void **state)
{
    (void)state;
    int said_yes[2] = { 0, 0 }, both = 0;
    bool yes[2][400];
    for (int seed = 0; seed < 2; seed++) {
        char kv[80];
        test_view *t = small(800, 2, 1);
        for (int p = 0; p < 800; p++)
            *test_view_mass(t, 0, p) = (p < 400 ? 0.1f : 0.4f) * (float)(800 - p);
        snprintf(kv, sizeof kv, "cam(first=0,recent=1,next=16,seed=%d)@400", seed);
        for (int again = 0; again < 2; again++) {
            const wn_plan *p = test_view_decide(t, kv);
            memset(yes[seed], 0, sizeof yes[seed]);
            for (int i = 0; i < p->n_src; i++)
                if (p->src[i] < 400) yes[seed][p->src[i]] = true;
        }
        for (int i = 0; i < 400; i++) said_yes[seed] += yes[seed][i];
        for (int p = 0; p < 400; p++) *test_view_mass(t, 0, p) = 0;
        assert_int_equal(test_view_decide(t, kv)->n_merges, 0);
        test_view_close(t);
    }
    for (int i = 0; i < 400; i++) both += yes[0][i] && yes[1][i];
    /* 3 sigma */
    for (int seed = 0; seed < 2; seed++) check_near(said_yes[seed] / 400.0, 0.25, 0.07);
    assert_true(both < said_yes[0] / 2);
}

/* ---- KVMerger -------------------------------------------------------------------------------- */

/* (1, 0) with most attention, (.6, .8), (.8, .6), sigma 1: weights .402, .269, .329. */
static void kvmerger_by_hand(void **state)
{
    (void)state;
    static const float keys[4][2] = { { 1, 0 }, { 0.6f, 0.8f }, { 0.8f, 0.6f }, { -1, 0 } };
    static const double want[3] = { 0.402, 0.269, 0.329 };
    test_view *t = small(4, 2, 1);
    for (int p = 0; p < 4; p++) {
        set_key(t, p, keys[p]);
        *test_view_mass(t, 0, p) = (float)(4 - p);
    }
    const wn_plan *p = test_view_decide(t, "kvmerger(eps=0.5,sigma=1,recent=0,heavy=0)");
    const wn_plan_merge *m = only_merge(p);
    assert_int_equal(m->at, 0);
    assert_int_equal(m->count, 3);
    check_near((double)m->bias, log(3), 1e-6);
    for (int i = 0; i < 3; i++) check_near((double)p->wk[m->first_src + i], want[i], 5e-4);
    assert_true(test_view_stays(t, 0, 3));
    assert_true(wn_plan_is_empty(test_view_decide(t, "kvmerger(eps=1.01)")));
    assert_true(wn_plan_is_empty(test_view_decide(t, "kvmerger(eps=0.5,sigma=1,recent=1)")));
    /* the heavy one stays alone, (.6, .8) leads the other: e^-.04 against 1 */
    p = test_view_decide(t, "kvmerger(eps=0.5,sigma=1,recent=0,heavy=0.25)");
    m = only_merge(p);
    assert_int_equal(m->at, 1);
    check_near((double)p->wk[m->first_src + 1], exp(-0.04) / (1 + exp(-0.04)), 1e-6);
    /* a ceiling: the run with least attention goes as a whole */
    test_view_decide(t, "kvmerger(eps=0.5,sigma=1,recent=0,heavy=0)@1");
    assert_int_equal(test_view_n_stays(t, 0), 1);
    assert_int_equal(only_merge(&t->plan)->count, 3);
    test_view_close(t);
}

/* ---- EMS ------------------------------------------------------------------------------------- */

/* A centre at 0, a victim at 1 with cosines .9 and .8, one at 2 whose key and value both point
 * away: .72 is enough, .25 made of two negative cosines is not. The centre's length stays. */
static void ems_centres_and_zeros(void **state)
{
    (void)state;
    static const double ck[3] = { 1, 0.9, -0.5 }, cv[3] = { 1, 0.8, -0.5 };
    static const float votes[4] = { 2, 1, 0.5f, 0 };
    test_view *t = small(4, 2, 1);
    for (int p = 0; p < 3; p++) {
        set_key(t, p, (float[]){ 3 * (float)ck[p], 3 * (float)sqrt(1 - ck[p] * ck[p]) });
        set_value(t, p, (float[]){ (float)cv[p], (float)sqrt(1 - cv[p] * cv[p]) });
        *test_view_mass(t, 0, p) = votes[p];
    }
    test_view_key(t, 0, 1)[0] *= 2;                     /* length counts for nothing */
    test_view_key(t, 0, 1)[1] *= 2;
    test_view_votes(t, 0, votes);
    const wn_plan_merge *m = only_merge(
        test_view_decide(t, "ems(window=1,centres=1,zero=0.2,first=0)@2"));
    assert_int_equal(m->at, 0);
    assert_int_equal(m->count, 2);
    assert_int_equal(
        only_merge(test_view_decide(t, "ems(window=1,centres=1,zero=0.71,first=0)@2"))->n_src, 2);
    assert_int_equal(test_view_decide(t, "ems(window=1,centres=1,zero=0.73,first=0)@2")->n_merges,
                     0);
    assert_int_equal(test_view_decide(t, "ems(window=1,centres=0,zero=0,first=0)@2")->n_merges, 0);
    STAYS(t, 0, 0, 3);
    test_view_decide(t, "ems(window=1,centres=1,zero=0.2,first=0)@2");
    test_view_carry_out(t);
    const float *k = test_view_key(t, 0, 0);
    check_near(hypot((double)k[0], (double)k[1]), 3, 1e-5);
    check_near((double)k[0] / 3, (1 + 0.9) / hypot(1.9, sqrt(0.19)), 1e-5);
    check_near((double)test_view_value(t, 0, 0)[0], 0.9, 1e-6);
    test_view_close(t);
}

/* The sums of all queries are taken to the mean of the last ones': their scale changes nothing. */
static void ems_scales_do_not_matter(void **state)
{
    (void)state;
    uint64_t rng = 1;
    bool stays[60];
    test_view *t = small(60, 4, 2);
    for (int p = 0; p < 60; p++) *test_view_mass(t, 0, p) = test_randf(&rng) + 1;
    for (int again = 0; again < 2; again++) {
        test_view_decide(t, "ems(window=8,centres=0)@30");
        for (int p = 0; p < 60; p++) {
            assert_true(!again || stays[p] == test_view_stays(t, 0, p));
            stays[p] = test_view_stays(t, 0, p);
            *test_view_mass(t, 0, p) *= 64;
        }
    }
    test_view_close(t);
}

/* ---- ZeroMerge ------------------------------------------------------------------------------- */

/* A residual slot of 3 tokens at 1 and a token at 5: 2 for 4, bias .6 ln 4. */
static void zeromerge_by_hand(void **state)
{
    (void)state;
    test_view *t = small(3, 1, 1);
    static const float keys[3] = { 1, 5, 7 }, mass[3] = { 0, 1, 2 };
    for (int p = 0; p < 3; p++) {
        set_key(t, p, &keys[p]);
        *test_view_mass(t, 0, p) = mass[p];
    }
    test_view_merge(t, 0, 0, 3, 0.6f * logf(3));
    const wn_plan_merge *m = only_merge(test_view_decide(t, "zeromerge(first=0,recent=0)@2"));
    assert_int_equal(m->count, 4);
    check_near((double)m->bias, 0.832, 5e-4);
    test_view_carry_out(t);
    check_near((double)test_view_key(t, 0, 0)[0], 2, 1e-6);
    test_view_close(t);
}

/* At first: two residual slots of neighbours, inside the budget; then the one with the larger
 * product. */
static void zeromerge_residues(void **state)
{
    (void)state;
    test_view *t = small(8, 1, 1);
    for (int p = 0; p < 8; p++) {
        set_key(t, p, (float[]){ p < 4 ? 1 : -2 });
        *test_view_mass(t, 0, p) = p == 0 || p == 7 ? 1 : 0.1f;
    }
    const wn_plan *p = test_view_decide(t, "zeromerge(first=0,recent=0,slots=2)@4");
    assert_int_equal(p->n_merges, 2);
    assert_int_equal(test_view_n_stays(t, 0), 4);
    assert_int_equal(merge_at(p, 3)->count, 3);
    assert_int_equal(merge_at(p, 6)->count, 3);
    test_view_carry_out(t);
    test_view_grow(t, 1);
    set_key(t, 8, (float[]){ -0.5f });
    *test_view_mass(t, 0, 8) = 0;
    p = test_view_decide(t, "zeromerge(first=0,recent=0,slots=2)@4");
    assert_int_equal(only_merge(p)->at, 6);
    assert_int_equal(only_merge(p)->count, 4);
    test_view_close(t);
}

/* ---- Chelsea --------------------------------------------------------------------------------- */

/* 0 and 2 deal with 1 and 3: cosine 1 for 0 and 1, so they are first. */
static void chelsea_by_hand(void **state)
{
    (void)state;
    static const float keys[4][2] = { { 1, 0 }, { 1, 0 }, { 0, 1 }, { -1, 0 } };
    test_view *t = small(4, 2, 1);
    for (int p = 0; p < 4; p++) set_key(t, p, keys[p]);
    const wn_plan_merge *m = only_merge(test_view_decide(t, "chelsea(first=0,recent=0)@3"));
    assert_int_equal(m->at, 1);
    assert_int_equal(m->count, 2);
    assert_int_equal(test_view_n_stays(t, 0), 3);
    /* then 2, whose cosines are both 0, joins the first: a star of three, a third each */
    m = only_merge(test_view_decide(t, "chelsea(first=0,recent=0)@2"));
    assert_int_equal(m->count, 3);
    for (int i = 0; i < 3; i++) check_near((double)t->plan.wk[m->first_src + i], 1 / 3.0, 1e-6);
    /* in the second round, the centroids: one for all, three of four parts of it the star's */
    m = only_merge(test_view_decide(t, "chelsea(first=0,recent=0)@1"));
    assert_int_equal(m->at, 3);
    assert_int_equal(m->count, 4);
    test_view_carry_out(t);
    check_near((double)test_view_key(t, 0, 3)[0], 0.25, 1e-6);
    check_near((double)test_view_key(t, 0, 3)[1], 0.25, 1e-6);
    test_view_close(t);
}

/* Chunks do not meet, the last slots and the protected are left alone, and nothing is dropped. */
static void chelsea_stays_in_its_chunk(void **state)
{
    (void)state;
    test_view *t = small(100, 4, 1);
    const wn_plan *p = test_view_decide(t, "chelsea(chunk=16,recent=10,first=4)@30");
    int tokens = 0;
    assert_int_equal(test_view_n_stays(t, 0), 30);
    for (int32_t i = wn_plan_first(p, 0, WN_PLAN_MERGES); i >= 0; i = p->merges[i].next)
        for (int s = 0; s < p->merges[i].n_src; s++) {
            int pos = p->src[p->merges[i].first_src + s];
            assert_int_equal(pos / 16, p->merges[i].at / 16);
            assert_true(pos >= 4 && pos < 90);
        }
    test_view_carry_out(t);
    for (int i = 0; i < t->shown[0].n; i++) tokens += wn_stage_count(&t->shown[0], i);
    assert_int_equal(tokens, 100);
    test_view_close(t);
}

/* ---- LOOK-M and Elastic Cache ---------------------------------------------------------------- */

/* (.6, .8) joins (1, 0): the midpoint is (.8, .4), the mean of it and the survivor (.9, .2). */
static void lookm_by_hand(void **state)
{
    (void)state;
    static const struct { const char *kv; double x, y; } cases[] = {
        { "lookm(recent=0)@1", 0.9, 0.2 }, { "lookm(recent=0,merge=average)@1", 0.8, 0.4 },
        { "lookm(recent=0,merge=weighted)@1", (1 + 0.6 * 0.6) / 1.6, 0.6 * 0.8 / 1.6 } };
    static const float keys[2][2] = { { 1, 0 }, { 0.6f, 0.8f } };
    for (size_t c = 0; c < WN_COUNT(cases); c++) {
        test_view *t = small(2, 2, 1);
        for (int p = 0; p < 2; p++) {
            set_key(t, p, keys[p]);
            *test_view_mass(t, 0, p) = (float)(2 - p);
        }
        assert_int_equal(only_merge(test_view_decide(t, cases[c].kv))->count, 2);
        test_view_carry_out(t);
        check_near((double)test_view_key(t, 0, 0)[0], cases[c].x, 1e-6);
        check_near((double)test_view_key(t, 0, 0)[1], cases[c].y, 1e-6);
        test_view_close(t);
    }
}

/* What is named stays before anything with more attention; without names it keeps what h2o
 * keeps. */
static void lookm_names_come_first(void **state)
{
    (void)state;
    bool stays[40];
    uint64_t rng = 3;
    test_view *t = small(40, 2, 1);
    for (int p = 0; p < 40; p++) *test_view_mass(t, 0, p) = test_randf(&rng) + 1;
    test_view_decide(t, "h2o@10");
    for (int p = 0; p < 40; p++) stays[p] = wn_plan_keeps(&t->plan, 0, p);
    test_view_decide(t, "lookm@10");
    for (int p = 0; p < 40; p++) assert_true(stays[p] == wn_plan_keeps(&t->plan, 0, p));
    test_view_protect(t, 3, 12);
    test_view_decide(t, "lookm@10");
    STAYS(t, 0, 3, 4, 5, 6, 7, 8, 9, 10, 11);
    assert_int_equal(only_merge(&t->plan)->at, 39);
    test_view_close(t);
}

/* Anchors 0, 5 and 9: 2 goes to 0, 3 to 5, and 7, in the middle, to the lower. */
static void elastic_by_hand(void **state)
{
    (void)state;
    test_view *t = small(10, 1, 1);
    for (int p = 0; p < 10; p++) {
        set_key(t, p, (float[]){ (float)p });
        *test_view_mass(t, 0, p) = p == 0 || p == 5 || p == 9 ? 1 : 0;
    }
    const wn_plan *p = test_view_decide(t, "elastic(first=0)@3");
    static const int at[3] = { 0, 5, 9 }, count[3] = { 3, 5, 2 };  /* 0 1 2 | 3 4 5 6 7 | 8 9 */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(merge_at(p, at[i])->count, count[i]);
        check_near((double)merge_at(p, at[i])->bias, log(count[i]), 1e-6);
    }
    test_view_carry_out(t);
    check_near((double)test_view_key(t, 0, 5)[0], 5, 1e-6);
    check_near((double)test_view_key(t, 0, 9)[0], 8.5, 1e-6);
    test_view_close(t);
}

/* ---- KVCrush --------------------------------------------------------------------------------- */

/* Bits 1100, 1000, 0011, 0111 of four heads. From 0000 they are 2, 1, 2, 3 away, in order 1 0 2 3,
 * and two steps of two say 1 and 2; from 1111 they are 2, 3, 2, 1 away: 3 and 2. */
static void kvcrush_by_hand(void **state)
{
    (void)state;
    static const float bits[5][4] = {
        { 1, 1, 0, 0 }, { 1, 0, 0, 0 }, { 0, 0, 1, 1 }, { 0, 1, 1, 1 }, { -1, -1, -1, -1 }
    };
    test_view *t = small(5, 4, 4);
    for (int p = 0; p < 5; p++) set_key(t, p, bits[p]);
    for (int h = 0; h < 4; h++)
        for (int d = 0; d < 4; d++) test_view_query(t, 0, 4, h)[d] = d == h ? 8 : 0;
    test_view_decide(t, "kvcrush(window=1,kernel=1,crush=0.67,anchor=zeros)@3");
    STAYS(t, 0, 1, 2, 4);
    test_view_decide(t, "kvcrush(window=1,kernel=1,crush=0.67,anchor=ones)@3");
    STAYS(t, 0, 2, 3, 4);
    /* without representatives it is SnapKV */
    test_view_decide(t, "kvcrush(window=1,kernel=1,crush=0)@3");
    bool stays[5];
    for (int p = 0; p < 5; p++) stays[p] = test_view_stays(t, 0, p);
    test_view_decide(t, "snapkv(window=1,kernel=1)@3");
    for (int p = 0; p < 5; p++) assert_true(stays[p] == test_view_stays(t, 0, p));
    test_view_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_rows_may_become_one),
        cmocka_unit_test(protected_slots_are_left_alone),
        cmocka_unit_test(cam_hands_values_on),
        cmocka_unit_test(cam_weighs_what_it_hands_on),
        cmocka_unit_test(cam_tosses_coins),
        cmocka_unit_test(kvmerger_by_hand),
        cmocka_unit_test(ems_centres_and_zeros),
        cmocka_unit_test(ems_scales_do_not_matter),
        cmocka_unit_test(zeromerge_by_hand),
        cmocka_unit_test(zeromerge_residues),
        cmocka_unit_test(chelsea_by_hand),
        cmocka_unit_test(chelsea_stays_in_its_chunk),
        cmocka_unit_test(lookm_by_hand),
        cmocka_unit_test(lookm_names_come_first),
        cmocka_unit_test(elastic_by_hand),
        cmocka_unit_test(kvcrush_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
