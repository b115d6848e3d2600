/* Stages in a policy's text: a recipe with +kind:name plans exactly what the recipe that does
 * the same by itself plans; budgets and protection hold with every stage; one slot for what
 * was dropped is the mean of it, over any number of decisions; what cannot be combined is
 * refused with what can. */
#include "tests/support/profile.h"
#include "tests/support/view.h"
#include "tests/unit/check.h"

#include "base/err.h"

#include <math.h>

/* ---- the same plans ---------------------------------------------------------------------- */

static test_view *some_view(uint64_t seed)
{
    uint64_t rng = seed;
    int n = 120 + (int)(seed * 13 % 90);
    test_view *t = test_view_open(&(test_shape){ .n_tokens = n, .max_tokens = n + 300,
                                                 .n_layers = 4, .heads = 2, .dim = 8 });
    if (seed % 4 == 0) test_view_hide(t, 2);
    for (int l = 0; l < t->view.n_lanes; l++)
        if (test_rand(&rng) % 2)
            test_view_thin(t, l, n / 2 + (int)(test_rand(&rng) % (uint64_t)(n / 3)),
                           seed + (uint64_t)l);
    return t;
}

static void same_plans(const char *a, const char *b, uint64_t seed)
{
    test_view *t[2] = { some_view(seed), some_view(seed) };
    const char *const kv[2] = { a, b };
    for (int step = 0; step < 3; step++) {      /* decision after decision */
        for (int i = 0; i < 2; i++) test_view_decide(t[i], kv[i]);
        const wn_plan *p = &t[0]->plan, *q = &t[1]->plan;
        assert_int_equal(p->n_merges, q->n_merges);
        assert_int_equal(p->n_src, q->n_src);
        if (p->n_src) {
            assert_memory_equal(p->src, q->src, sizeof *p->src * (size_t)p->n_src);
            assert_memory_equal(p->wk, q->wk, sizeof *p->wk * (size_t)p->n_src);
        }
        for (int i = 0; i < p->n_merges; i++)
            assert_memory_equal(&p->merges[i], &q->merges[i], sizeof *p->merges);
        for (int l = 0; l < t[0]->view.n_lanes; l++)
            for (int pos = 0; pos < t[0]->view.n_tokens; pos++)
                if (wn_plan_keeps(p, l, pos) != wn_plan_keeps(q, l, pos))
                    fail_msg("seed %d, decision %d: %s and %s differ in lane %d at %d", (int)seed,
                             step, a, b, l, pos);
        for (int i = 0; i < 2; i++) {
            test_view_carry_out(t[i]);
            test_view_grow(t[i], 70);
        }
    }
    test_view_close(t[0]);
    test_view_close(t[1]);
}

static void a_stage_does_what_its_recipe_does(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        { "snapkv(kernel=7,pool=max)+alloc:ada@30%", "adakv@30%" },
        { "snapkv(kernel=7,pool=max,window=8)+alloc:ada(floor=0.7)@25",
          "adakv(window=8,floor=0.7)@25" },
        { "snapkv(kernel=5,pool=avg)+alloc:pyramid@30%", "pyramidkv@30%" },
        { "snapkv(window=16,kernel=5,pool=avg)+alloc:pyramid(beta=3)@40",
          "pyramidkv(window=16,beta=3)@40" },
        { "h2o(first=4)+alloc:density+recover:nearest@30%", "d2o@30%" },
        { "h2o(first=4)+recover:nearest(bias=none)+alloc:density(whole=1)@30%",
          "d2o(bias=none,whole=1)@30%" },
        { "d2o+recover:drop+alloc:uniform@30%", "h2o(first=4)@30%" },
        { "adakv+alloc:uniform@30%", "snapkv(kernel=7,pool=max)@30%" },
        { "snapkv+retain:critical@30%", "criticalkv@30%" },
        { "adakv+retain:critical(share=0.3)@30", "criticalkv(share=0.3)+alloc:ada@30" },
        { "criticalkv+retain:best@30%", "snapkv@30%" },
    };
    for (size_t i = 0; i < WN_COUNT(pairs); i++)
        for (uint64_t seed = 1; seed <= 12; seed++) same_plans(pairs[i][0], pairs[i][1], seed);
}

/* What a recipe gives up is kept in fewer bits: the best as they are, nothing twice, nothing back;
 * bytes pay for both kinds; with a share the worst go. */
static void victims_are_kept_in_fewer_bits(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        test_view *t = test_view_open(&(test_shape){ .n_tokens = 120, .max_tokens = 200,
                                                     .n_layers = 2, .heads = 2 });
        for (int step = 0; step < 4; step++) {
            const wn_plan *p = test_view_decide(t, "h2o(first=4)+recover:demote@30%");
            int lanes = t->view.n_lanes, n = t->view.n_tokens;
            assert_true(test_view_total(t) == (int)(0.3 * n * lanes + 1e-6));
            for (int l = 0; l < lanes; l++) {
                for (int i = 0; i < t->shown[l].n; i++)
                    assert_true(wn_plan_keeps(p, l, t->shown[l].pos[i]));
                for (int i = 0; i < 4; i++) assert_false(wn_plan_demotes(p, l, i));
            }
            test_view_carry_out(t);
            for (int l = 0; l < lanes; l++) assert_int_equal(t->shown[l].n, n);
            test_view_grow(t, 20);
        }
        test_view_close(t);
        t = test_view_open(&(test_shape){ .n_tokens = 100, .n_layers = 2, .heads = 2 });
        t->view.low_bytes = 4;
        /* 400 slots for 4 bytes, 100 for 12 more */
        test_view_decide_bytes(t, "h2o+recover:demote@2800B", 16);
        assert_int_equal(test_view_total(t), 100);
        for (int l = 0; l < 4; l++) assert_true(wn_plan_keeps(&t->plan, l, 0));
        test_view_decide_bytes(t, "h2o+recover:demote@1200B", 16);         /* 300 slots at all */
        int kept = 0;
        for (int l = 0; l < 4; l++)
            for (int i = 0; i < 100; i++) kept += wn_plan_keeps(&t->plan, l, i);
        assert_int_equal(test_view_total(t), 0);
        assert_int_equal(kept, 300);
        test_view_decide(t, "h2o+recover:demote(share=0.25)@25%");
        kept = 0;
        for (int l = 0; l < 4; l++)
            for (int i = 0; i < 100; i++) kept += wn_plan_keeps(&t->plan, l, i);
        assert_int_equal(test_view_total(t), 100);
        assert_int_equal(kept, 200);
        test_view_close(t);
    }
}

/* ---- every stage with every recipe that takes it -------------------------------------------- */

static void budgets_and_protection_hold(void **state)
{
    (void)state;
    int combined = 0, n_stages = 0, retained[16] = { 0 };
    static const uint8_t fp[16];
    while (wn_stage_at(n_stages)) n_stages++;
    wn_profile *profile = test_profile(4, 4, 8, fp);
    test_profile_for_all(profile);
    for (int i = 0; wn_recipe_at(i); i++)
        for (int g = 0; wn_stage_at(g); g++)
            for (int h = 0; wn_stage_at(h); h++) {
                char kv[200];
                wn_policy p;
                if (wn_stage_at(g)->kind != WN_STAGE_ALLOC ||
                    wn_stage_at(h)->kind != WN_STAGE_RECOVER)
                    continue;
                int slots = 9 + (g + h) * 7;
                /* each of them with each of the others */
                const char *retain = wn_stage_at((i + 2 * g + h) % n_stages)->name;
                if (wn_stage_at((i + 2 * g + h) % n_stages)->kind != WN_STAGE_RETAIN)
                    retain = "best";
                snprintf(kv, sizeof kv, "%s(first=3,last=5)+alloc:%s+retain:%s+recover:%s@%d",
                         wn_recipe_at(i)->name, wn_stage_at(g)->name, retain, wn_stage_at(h)->name,
                         slots);
                if (wn_policy_parse(&p, kv, NULL)) continue;
                combined++;
                for (int k = 0; k < n_stages; k++)
                    retained[k] += !strcmp(retain, wn_stage_at(k)->name);
                test_view *t = some_view((uint64_t)(i + g + h));
                int lanes = 0;
                t->view.profile = profile;
                for (int k = 0; k < t->view.n_tokens; k++) test_view_span(t, k, k + 1, k / 37);
                for (int l = 0; l < t->view.n_lanes; l++) lanes += t->shown[l].n > 0;
                for (int step = 0; step < 3; step++) {
                    test_view_decide(t, kv);
                    if (test_view_total(t) > slots * lanes)
                        fail_msg("%s keeps %d slots in %d lanes", kv, test_view_total(t), lanes);
                    for (int l = 0; l < t->view.n_lanes; l++)
                        for (int s = 0; s < t->shown[l].n; s++) {
                            int pos = t->shown[l].pos[s];
                            if (pos < 3 || pos >= t->view.n_tokens - 5)
                                assert_true(test_view_stays(t, l, pos));
                        }
                    test_view_carry_out(t);
                    test_view_grow(t, 40);
                }
                test_view_close(t);
            }
    assert_true(combined >= 100);
    for (int k = 0; k < n_stages; k++)
        assert_true(wn_stage_at(k)->kind != WN_STAGE_RETAIN || retained[k] > 20);
    wn_profile_close(profile);
}

/* ---- one slot for what was dropped ----------------------------------------------------------- */

/* Whatever the steps, the compensation slot is the mean of all tokens that are gone. */
static void compensation_is_the_mean_of_all_that_is_gone(void **state)
{
    (void)state;
    enum { DIM = 8, ALL = 200 };
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 80, .max_tokens = ALL, .n_layers = 1,
                                                 .heads = 2, .dim = DIM });
    static float key[ALL][DIM], value[ALL][DIM];
    for (int step = 0; step < 4; step++) {
        for (int i = 0; i < t->shown[1].n; i++) {
            int pos = t->shown[1].pos[i];
            if (t->lanes[1].count[i] > 1) continue;
            memcpy(key[pos], test_view_key(t, 1, pos), sizeof key[pos]);
            memcpy(value[pos], test_view_value(t, 1, pos), sizeof value[pos]);
        }
        test_view_decide(t, "h2o(first=2)+recover:compensate@20");
        assert_true(test_view_n_stays(t, 1) <= 20 && test_view_n_stays(t, 1) >= 19);
        test_view_carry_out(t);
        double k[DIM] = { 0 }, v[DIM] = { 0 };
        bool gone[ALL];
        int n = t->view.n_tokens, n_gone = 0, slot = -1;
        for (int p = 0; p < n; p++) gone[p] = true;
        for (int i = 0; i < t->shown[1].n; i++) {
            if (t->lanes[1].count[i] == 1) gone[t->shown[1].pos[i]] = false;
            else assert_int_equal(slot, -1), slot = i;          /* one, not more */
        }
        for (int p = 0; p < n; p++)
            for (int c = 0; c < DIM && gone[p]; c++)
                n_gone += !c, k[c] += (double)key[p][c], v[c] += (double)value[p][c];
        assert_true(slot >= 0);
        assert_int_equal(t->lanes[1].count[slot], n_gone);
        assert_float_equal(t->lanes[1].bias[slot], logf((float)n_gone), 1e-6f);
        for (int c = 0; c < DIM; c++) {
            assert_float_equal(test_view_key(t, 1, t->shown[1].pos[slot])[c],
                               (float)(k[c] / n_gone), 1e-5f);
            assert_float_equal(test_view_value(t, 1, t->shown[1].pos[slot])[c],
                               (float)(v[c] / n_gone), 1e-5f);
        }
        if (step < 3) test_view_grow(t, 40);
    }
    test_view_close(t);
}

/* Protected slots need the whole budget: there is no room for a compensation slot. */
static void compensation_stays_within_the_budget(void **state)
{
    (void)state;
    for (int slots = 1; slots < 14; slots++) {
        char kv[80];
        test_view *t = test_view_open(&(test_shape){ .n_tokens = 60, .n_layers = 1, .heads = 2,
                                                     .dim = 4 });
        snprintf(kv, sizeof kv, "random(first=4,last=6)+recover:compensate@%d", slots);
        test_view_decide(t, kv);
        assert_int_equal(test_view_total(t), 2 * WN_MAX(slots, 10));
        test_view_close(t);
    }
}

/* ---- by entropy ------------------------------------------------------------------------------ */

static void wide_layers_get_more(void **state)
{
    (void)state;
    float votes[2][64];
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 64, .n_layers = 2, .heads = 1,
                                                 .dim = 4 });
    for (int i = 0; i < 64; i++) {      /* over 2 slots, and over 16: entropies ln 2 and ln 16, one
                                           to four */
        votes[0][i] = i < 2 ? 0.5f : 0;
        votes[1][i] = i < 16 ? 1 / 16.0f : 0;
    }
    test_view_votes(t, 0, votes[0]);
    test_view_votes(t, 1, votes[1]);
    /* 1 each, and 20 as 4 to 16 */
    test_view_decide(t, "snapkv(window=1,kernel=1)+alloc:entropy@11");
    assert_int_equal(test_view_n_stays(t, 0), 5);
    assert_int_equal(test_view_n_stays(t, 1), 17);
    /* 34 as 1 to 16 */
    test_view_decide(t, "snapkv(window=1,kernel=1)+alloc:entropy(tau=0.5)@18");
    assert_int_equal(test_view_n_stays(t, 0), 3);
    assert_int_equal(test_view_n_stays(t, 1), 33);
    test_view_close(t);
}

/* AdaKV's spread also compares scores below zero: of two heads with scores -1 .. and -2 ..,
 * the first gets what the even share leaves. */
static void ada_compares_scores_below_zero(void **state)
{
    (void)state;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 40, .n_layers = 1, .heads = 2,
                                                 .dim = 4 });
    for (int l = 0; l < 2; l++)         /* lane 1: keys in all directions; lane 0: nearly the same,
                                           cosines near 1 */
        for (int p = 0; p < 40; p++)
            for (int c = 0; c < 4; c++) test_view_key(t, l, p)[c] += l ? 0 : 10;
    test_view_decide(t, "keydiff+alloc:ada(floor=0)@10");
    assert_true(test_view_n_stays(t, 1) > 18);
    test_view_close(t);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void bad(const char *text, const char *const *says)
{
    wn_err err = { 0 };
    assert_int_equal(wn_policy_check(text, &err), WN_EINVAL);
    for (; *says; says++)
        if (!strstr(err.text, *says))
            fail_msg("%s: \"%s\" does not say \"%s\"", text, err.text, *says);
}
#define BAD(text, ...) bad(text, (const char *const[]){ __VA_ARGS__, NULL })

static void what_cannot_be_is_a_sentence(void **state)
{
    (void)state;
    BAD("snapkv+alloc:even", "no +alloc:even", "uniform, ada, pyramid, density, entropy");
    BAD("snapkv+retain:worst", "no +retain:worst", "best, fair, critical");
    BAD("snapkv+retain:fair(share=2)", "+retain:fair(share=2): expected 0 to 1");
    BAD("recent+retain:fair", "recent makes whole plans", "snapkv");
    BAD("snapkv+recover:keep", "no +recover:keep", "drop, nearest, compensate");
    BAD("snapkv+select:ada", "no stage \"select\"", "alloc, retain and recover");
    BAD("snapkv+alloc:ada(beta=2)", "+alloc:ada has no parameter \"beta\"; it has floor");
    BAD("snapkv+alloc:ada(floor=2)", "+alloc:ada(floor=2): expected 0 to 1");
    BAD("snapkv+recover:drop(x=1)", "it has nothing");
    BAD("snapkv+alloc:ada+alloc:uniform", "each stage comes once");
    BAD("streaming+alloc:ada", "streaming makes whole plans", "snapkv");
    BAD("none+recover:nearest", "none makes whole plans");
    BAD("keydiff+alloc:entropy", "keydiff does not look at them", "snapkv");
    BAD("snapkv+alloc:density", "snapkv does not sum it", "h2o");
    BAD("snapkv,k=q77", "q77", "f16");
    BAD("snapkv,v=q77", "q77", "f16");
    wn_err err = { 0 };
    assert_int_equal(wn_policy_check(" v1:snapkv + recover:compensate + alloc:ada @ 20%, k=f16",
                                     &err),
                     WN_OK);
}

static void the_canonical_text_has_the_stages(void **state)
{
    (void)state;
    wn_policy p, q;
    assert_int_equal(wn_policy_parse(&p,
                                     "tova+recover:nearest(bias=none)+retain:fair(share=0.5)+alloc:"
                                     "ada(floor=0.12345678912)@20%",
                                     NULL),
                     WN_OK);
    assert_string_equal(p.text, "v1:tova(at=boundary,every=64,first=0,last=0,system=off,special="
                                "off)+alloc:ada(floor=0.123456789)"
                                "+retain:fair(share=0.5)+recover:nearest(bias=none)@20%");
    assert_int_equal(wn_policy_parse(&q, p.text, NULL), WN_OK);
    assert_string_equal(q.text, p.text);
    assert_memory_equal(p.stages, q.stages, sizeof p.stages);
    assert_true(wn_policy_merges(&p));
    assert_int_equal(wn_policy_parse(&p, "d2o+recover:drop", NULL), WN_OK);
    assert_false(wn_policy_merges(&p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stage_does_what_its_recipe_does),
        cmocka_unit_test(victims_are_kept_in_fewer_bits),
        cmocka_unit_test(budgets_and_protection_hold),
        cmocka_unit_test(compensation_is_the_mean_of_all_that_is_gone),
        cmocka_unit_test(compensation_stays_within_the_budget),
        cmocka_unit_test(wide_layers_get_more),
        cmocka_unit_test(ada_compares_scores_below_zero),
        cmocka_unit_test(what_cannot_be_is_a_sentence),
        cmocka_unit_test(the_canonical_text_has_the_stages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
