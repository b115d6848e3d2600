/* Examples by hand for recipes that look at each of the last queries, and for budgets by what
 * layers look at; for pages that live and die as one. */
#include "tests/support/stays.h"

#include "policy/stages/stages.h"

#include <math.h>
#include <string.h>

static void check_near(double x, double want, double bound)
{
    if (!(fabs(x - want) <= bound)) fail_msg("%.6f, not %.6f", x, want);
}

/* Keys of one channel, so that a query of 1 has them as its logits. */
static test_view *logits(const float *key, int n, int heads)
{
    test_view *t = test_view_open(&(test_shape){ .n_tokens = n, .n_layers = 1, .heads = heads,
                                                 .group = 1, .dim = 1 });
    for (int l = 0; l < heads; l++)
        for (int p = 0; p < n; p++) {
            *test_view_key(t, l, p) = key[p];
            *test_view_query(t, l, p, 0) = 1;
        }
    return t;
}

/* ---- Keyformer ----------------------------------------------------------------------------- */

/* One query, logits 2 1 0: .665 .245 .090; at tau 2 .506 .307 .186: the order stays, the mass is
 * more even. Two queries: the first sees 2 and 1 alone, .731 .269. */
typedef struct { double a[2][3]; int calls; } seen;

static void remember(void *ctx, const wn_tile *tile)
{
    seen *s = ctx;
    s->calls++;
    for (int t = 0; t < tile->w; t++)
        for (int i = 0; i < tile->n; i++)
            s->a[t][tile->from + i] = (double)tile->a[(size_t)t * tile->stride + (size_t)i];
}

static void tiles_are_softmax(void **state)
{
    (void)state;
    static const double want[2][3] = { { 0.665241, 0.244728, 0.090031 },
                                       { 0.506480, 0.307196, 0.186324 } };
    test_view *t = logits((const float[]){ 2, 1, 0 }, 3, 1);
    for (int i = 0; i < 2; i++) {
        seen s = { 0 };
        test_view_decide(t, "keyformer(window=1)@2");   /* the view is filled for a window of one */
        wn_stage_window_tiles(&t->view, 0, NULL, i + 1, remember, &s);
        assert_int_equal(s.calls, 1);
        for (int k = 0; k < 3; k++) check_near(s.a[0][k], want[i][k], 1e-5);
    }
    seen s = { 0 };
    test_view_decide(t, "keyformer(window=2)@2");
    wn_stage_window_tiles(&t->view, 0, NULL, 1, remember, &s);
    check_near(s.a[0][0], 0.731059, 1e-5);
    check_near(s.a[0][1], 0.268941, 1e-5);
    assert_true(s.a[0][2] == 0);                        /* it comes later */
    check_near(s.a[1][2], 0.090031, 1e-5);
    test_view_close(t);
}

static void keyformer_without_noise_is_attention(void **state)
{
    (void)state;
    test_view *t = logits((const float[]){ 0, 2, 1, 0, 0 }, 5, 1);
    test_view_decide(t, "keyformer(window=2,noise=0,recent=0)@2");
    STAYS(t, 0, 1, 2);
    test_view_decide(t, "keyformer(window=2,noise=0,recent=0.5)@2");
    STAYS(t, 0, 1, 4);
    int moved = 0;                                      /* noise of 100 decides by lot, and each
                                                           seed otherwise */
    for (int seed = 1; seed <= 8; seed++) {
        char kv[80];
        snprintf(kv, sizeof kv, "keyformer(window=2,noise=100,recent=0,seed=%d)@2", seed);
        test_view_decide(t, kv);
        moved += !test_view_stays(t, 0, 1);
    }
    assert_true(moved > 1 && moved < 8);
    test_view_close(t);
}

/* ---- PyramidInfer ---------------------------------------------------------------------------- */

/* The first of two queries looks at 0, the last at 1. With a ramp of 1.2 the last counts more, with
 * one of .5 less. */
static void pyramidinfer_later_queries_count_more(void **state)
{
    (void)state;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 4, .n_layers = 1, .heads = 2,
                                                 .group = 1, .dim = 2 });
    for (int l = 0; l < 2; l++) {
        memset(t->lanes[l].k, 0, sizeof(float) * 8);
        test_view_key(t, l, 0)[0] = 9;
        test_view_key(t, l, 1)[1] = 9;
        memcpy(test_view_query(t, l, 2, 0), (const float[]){ 1, 0 }, sizeof(float) * 2);
        memcpy(test_view_query(t, l, 3, 0), (const float[]){ 0, 1 }, sizeof(float) * 2);
    }
    test_view_decide(t, "pyramidinfer(window=2,recent=0,first=0)@1");
    STAYS(t, 0, 1);
    STAYS(t, 1, 1);
    test_view_decide(t, "pyramidinfer(window=2,recent=0,first=0,ramp=0.5)@1");
    STAYS(t, 0, 0);
    STAYS(t, 1, 0);
    test_view_close(t);
    t = test_view_open(&(test_shape){ .n_tokens = 1000, .n_layers = 3, .heads = 1 });
    test_view_decide(t, "pyramidinfer(decay=0.5)@70");  /* 4 : 2 : 1 of 210 */
    for (int l = 0; l < 3; l++) assert_int_equal(test_view_n_stays(t, l), 120 >> l);
    test_view_close(t);
}

/* ---- budgets of layers: CAKE, ZigZagKV ------------------------------------------------------- */

/* Preferences 1 and 3 over 2 layers that share 96 slots each beside the window: 48 and 144; with
 * only 100 there to keep, 92 and 100. */
static void cake_splits_by_preference(void **state)
{
    (void)state;
    int64_t keep[2];
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 300, .n_layers = 2, .heads = 1 });
    test_view_decide(t, "cake@128");
    wn_alloc_layers(&t->view, (const double[]){ 1, 3 }, 32, keep);
    assert_true(keep[0] == 48 + 32 && keep[1] == 144 + 32);
    test_view_close(t);
    t = test_view_open(&(test_shape){ .n_tokens = 132, .n_layers = 2, .heads = 1 });
    test_view_decide(t, "cake@128");
    wn_alloc_layers(&t->view, (const double[]){ 1, 3 }, 32, keep);
    assert_true(keep[0] == 92 + 32 && keep[1] == 100 + 32);
    test_view_close(t);
}

/* Slot 0 gets .5 and .42 from the two queries, slot 1 nothing and .42: less, but it changes
 * more. */
static void cake_prefers_what_changes(void **state)
{
    (void)state;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 5, .n_layers = 1, .heads = 1,
                                                 .group = 1, .dim = 3 });
    memset(t->lanes[0].k, 0, sizeof(float) * 15);
    memcpy(test_view_key(t, 0, 0), (const float[]){ 20, 0, 0 }, sizeof(float) * 3);
    memcpy(test_view_key(t, 0, 1), (const float[]){ 0, 20, 0 }, sizeof(float) * 3);
    memcpy(test_view_key(t, 0, 2), (const float[]){ 20, 0, 20 }, sizeof(float) * 3);
    /* 0 and 2: .5 each */
    memcpy(test_view_query(t, 0, 3, 0), (const float[]){ 1, 0, 0 }, sizeof(float) * 3);
    /* .42 .42 .15 */
    memcpy(test_view_query(t, 0, 4, 0), (const float[]){ 1, 1, -0.05f }, sizeof(float) * 3);
    test_view_decide(t, "cake(window=2,kernel=1,gamma=0)@3");
    STAYS(t, 0, 0, 3, 4);
    test_view_decide(t, "cake(window=2,kernel=1,gamma=200)@3");
    STAYS(t, 0, 1, 3, 4);
    test_view_close(t);
}

/* .5 .3 .1 .05 .05 needs three for .9. Needs of 10 and 30 with a fifth spread evenly, 100 each: 60
 * and 140. */
static void zigzagkv_goes_by_need(void **state)
{
    (void)state;
    static const float row[] = { 0.05f, 0.3f, 0.05f, 0.5f, 0.1f };
    assert_int_equal(wn_stage_need(row, 5, 0.9), 3);
    assert_int_equal(wn_stage_need(row, 5, 0.5), 1);
    assert_int_equal(wn_stage_need(row, 5, 0.96), 5);
    assert_int_equal(wn_stage_need(row, 5, 1), 5);
    assert_int_equal(wn_stage_need((const float[]){ 1, 1, 1, 1 }, 4, 0.7), 3);
    float *votes = calloc(800, sizeof *votes);          /* layer 0: 10 slots hold .9, layer 1: 30 */
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 400, .n_layers = 2, .heads = 1,
                                                 .group = 1 });
    for (int i = 0; i < 11; i++) votes[i] = 1;
    for (int i = 0; i < 33; i++) votes[400 + i] = 1;
    test_view_votes(t, 0, votes);
    test_view_votes(t, 1, votes + 400);
    test_view_decide(t, "zigzagkv@100");
    assert_int_equal(test_view_n_stays(t, 0), 60);
    assert_int_equal(test_view_n_stays(t, 1), 140);
    test_view_close(t);
    free(votes);
}

/* ---- PagedEviction --------------------------------------------------------------------------- */

/* |v| over |k|: 2/4 and 3/3, mean .75; 1/4 and 1/2, .375: the second page goes, whole. */
static void pagedeviction_drops_pages(void **state)
{
    (void)state;
    static const float v[] = { 2, 3, 1, 1, 9, 9 }, k[] = { 4, 3, 4, 2, 1, 1 };
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 6, .n_layers = 1, .heads = 1,
                                                 .dim = 1 });
    for (int p = 0; p < 6; p++) {
        *test_view_value(t, 0, p) = v[p];
        *test_view_key(t, 0, p) = -k[p];
    }
    test_view_decide(t, "pagedeviction(page=2,first=0)@4");
    STAYS(t, 0, 0, 1, 4, 5);
    test_view_decide(t, "pagedeviction(page=2,first=0)@5");     /* no part of a page */
    STAYS(t, 0, 0, 1, 4, 5);
    test_view_decide(t, "pagedeviction(page=2,first=0)@3");
    STAYS(t, 0, 4, 5);
    test_view_protect(t, 2, 3);
    /* it is paid for first, and no page is cut for it */
    test_view_decide(t, "pagedeviction(page=2,first=0)@5");
    STAYS(t, 0, 0, 1, 2, 4, 5);
    test_view_close(t);
}

/* ---- WindowKV -------------------------------------------------------------------------------- */

/* Units of 4: means .1 and .12, better halves .2 and .12; then .05 and .01. The two queries' slots
 * make no whole unit: they stay, and nothing before them has to. */
static void windowkv_keeps_whole_windows(void **state)
{
    (void)state;
    static const float votes[18] = { 0.4f,  0,     0,     0,     0.12f, 0.12f, 0.12f, 0.12f,
                                     0.05f, 0.05f, 0.05f, 0.05f, 0.01f, 0.01f, 0.01f, 0.01f };
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 18, .n_layers = 1, .heads = 1 });
    test_view_votes(t, 0, votes);
    test_view_decide(t, "windowkv(window=2,unit=4)@6");
    STAYS(t, 0, 4, 5, 6, 7, 16, 17);
    test_view_decide(t, "windowkv(window=2,unit=4,mode=localise)@6");
    STAYS(t, 0, 0, 1, 2, 3, 16, 17);
    test_view_decide(t, "windowkv(window=2,unit=4)@9");         /* no part of a unit */
    STAYS(t, 0, 4, 5, 6, 7, 16, 17);
    test_view_decide(t, "windowkv(window=2,unit=4)@5");
    STAYS(t, 0, 16, 17);
    /* 17 / 4: the window begins at 16 all the same */
    test_view_decide(t, "windowkv(window=1,unit=4,mode=localise)@6");
    STAYS(t, 0, 0, 1, 2, 3, 16, 17);
    /* protected slots break no unit */
    test_view_decide(t, "windowkv(window=2,unit=4,first=2)@9");
    STAYS(t, 0, 0, 1, 4, 5, 6, 7, 16, 17);
    test_view_close(t);
}

/* Each layer would like another unit: the first of two chooses for both, unless they hold other
 * slots. Shares of 12/14 and 23.1 beside the window of 2: no unit, and five. */
static void windowkv_groups_choose_as_one(void **state)
{
    (void)state;
    static const int likes[4] = { 1, 5, 3, 6 };
    float votes[4][34];
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 34, .n_layers = 4, .heads = 2,
                                                 .group = 1 });
    for (int l = 0; l < 8; l++) {
        for (int p = 0; p < 34; p++)
            votes[l / 2][p] = (p / 4 == likes[l / 2] ? 1 : 0) + 0.001f / (float)(p + 1);
        test_view_votes(t, l, votes[l / 2]);
    }
    for (int layers = 1; layers <= 4; layers++) {
        char kv[80];
        snprintf(kv, sizeof kv, "windowkv(window=2,unit=4,beta=1,layers=%d)@6", layers);
        test_view_decide(t, kv);
        for (int l = 0; l < 8; l++) {
            int at = 4 * likes[l / 2 / layers * layers];
            STAYS(t, l, at, at + 1, at + 2, at + 3, 32, 33);
        }
    }
    test_view_decide(t, "windowkv(window=2,unit=4,layers=2)@14");
    for (int l = 0; l < 8; l++) assert_int_equal(test_view_n_stays(t, l), l < 4 ? 22 : 2);
    test_view_thin(t, 2, 30, 1);
    test_view_decide(t, "windowkv(window=2,unit=4,beta=1,layers=2)@6");
    for (int l = 0; l < 4; l++) assert_true(test_view_stays(t, l, l == 2 ? 33 : 4));
    assert_false(test_view_stays(t, 2, 4));
    test_view_close(t);
}

/* ---- SCOPE ----------------------------------------------------------------------------------- */

/* A budget of 8, half of it for what is generated. At the mark 4 of 12 prompt slots stay, though 8
 * would fit; they are never looked at again, whatever is attended to later, and 4 of what came
 * since stay beside them. */
static void scope_freezes_the_prompt(void **state)
{
    (void)state;
    static const char kv[] = "scope(window=1,kernel=1,generated=0.5,recent=0.5)@8";
    float votes[20] = { 0.1f, 0, 0.5f, 0.2f, 0, 0, 0.4f };
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 12, .max_tokens = 20, .n_layers = 1,
                                                 .heads = 1 });
    test_view_votes(t, 0, votes);
    t->view.mark = 12;
    test_view_decide(t, kv);
    STAYS(t, 0, 2, 3, 6, 11);
    test_view_carry_out(t);
    test_view_grow(t, 4);
    memcpy(votes, (const float[8]){ 0, 0, 0, 0, 0.1f, 0.5f, 0.3f, 0 }, sizeof(float) * 8);
    assert_true(wn_plan_is_empty(test_view_decide(t, kv)));     /* 4 and 4 */
    test_view_grow(t, 2);                                       /* slots 2 3 6 11, 12 .. 17 */
    test_view_decide(t, kv);
    STAYS(t, 0, 2, 3, 6, 11, 13, 14, 16, 17);  /* of 12 .. 17 the best two, the last two */
    test_view_carry_out(t);
    t->view.mark = 18;                                          /* all of it is a prompt now */
    memcpy(votes, (const float[8]){ 0, 0.1f, 0, 0, 0.5f, 0.4f, 0, 0 }, sizeof(float) * 8);
    test_view_grow(t, 1);
    test_view_decide(t, kv);
    STAYS(t, 0, 2, 3, 13, 14, 18);  /* 4 of it, of equal ones the earlier; one came since */
    test_view_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_are_softmax),
        cmocka_unit_test(keyformer_without_noise_is_attention),
        cmocka_unit_test(pyramidinfer_later_queries_count_more),
        cmocka_unit_test(cake_splits_by_preference),
        cmocka_unit_test(cake_prefers_what_changes),
        cmocka_unit_test(zigzagkv_goes_by_need),
        cmocka_unit_test(pagedeviction_drops_pages),
        cmocka_unit_test(windowkv_keeps_whole_windows),
        cmocka_unit_test(windowkv_groups_choose_as_one),
        cmocka_unit_test(scope_freezes_the_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
