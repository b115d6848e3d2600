/* Profiles: what is written is what is read, to the byte; everything that can be wrong with a
 * file is told apart; tables are found by recipe and budget; and what the two stages that go by
 * a profile make of it, by hand. */
#include "tests/support/profile.h"
#include "tests/support/view.h"
#include "tests/unit/check.h"

#include "base/err.h"

#include <unistd.h>

static const uint8_t FP[16] = { 1, 2, 3, 250, 251, 0, 0, 9 };

static char *text_of(const wn_profile *p)
{
    char *text[1];
    wn_err err;
    if (wn_profile_text(p, text, &err)) fail_msg("%s", err.text);
    return text[0];
}

/* ---- the file ---------------------------------------------------------------------------- */

static void what_is_written_is_read(void **state)
{
    (void)state;
    char path[128], *a, *b;
    wn_profile *p = test_profile(3, 4, 6, FP), *q;
    wn_err err;
    test_path(path, sizeof path, "a.profile");
    if (wn_profile_write(p, path, &err) || wn_profile_read(&q, path, &err))
        fail_msg("%s", err.text);
    unlink(path);
    a = text_of(p);
    b = text_of(q);
    assert_string_equal(a, b);
    assert_string_equal(p->id, q->id);
    assert_memory_equal(p->heads, q->heads, sizeof *p->heads * 12);
    assert_memory_equal(p->lanes, q->lanes, sizeof *p->lanes * 6);
    assert_memory_equal(p->layer_loss, q->layer_loss, sizeof *p->layer_loss * 3);
    assert_memory_equal(p->budgets[0].weight, q->budgets[0].weight, sizeof(double) * 3);
    assert_memory_equal(q->fingerprint, FP, 16);
    assert_int_equal(q->lanes[1].kind, WN_HEAD_RETRIEVAL);
    assert_int_equal(q->how.seed, 7);
    free(a);
    free(b);
    wn_profile_close(q);
    assert_int_equal(wn_profile_read(&q, "/nowhere/a.profile", &err), WN_EIO);
    assert_null(q);
    assert_int_equal(wn_profile_write(p, "/nowhere/a.profile", &err), WN_EIO);
    wn_profile_close(p);
}

/* Replaces the first `from`; with sum the checksum is set right, so that what lies behind is
 * seen. */
static wn_status spoiled(const char *from, const char *to, bool sum, wn_err *err)
{
    wn_profile *p = test_profile(3, 4, 6, FP), *q;
    char *text = text_of(p), *out = malloc(strlen(text) + strlen(to) + 64), *at;
    assert_non_null(out);
    strcpy(out, text);
    if (!(at = strstr(out, from))) fail_msg("%s is not in the file", from);
    strcpy(at, to);
    strcat(at, text + (at - out) + strlen(from));
    wn_status st = wn_profile_parse(&q, out, strlen(out), err);
    const char *expected = st == WN_EFORMAT && sum ? strstr(err->text, "expected ") : NULL;
    if (expected) {                     /* the error says what the checksum would be */
        char *old = strstr(out, "\"checksum\": \"");
        memcpy(old + 13, expected + 9, 32);
        st = wn_profile_parse(&q, out, strlen(out), err);
    }
    if (!st) wn_profile_close(q);
    else assert_null(q);
    wn_profile_close(p);
    free(text);
    free(out);
    return st;
}

static void every_fault_has_its_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        bool sum;
        wn_status st;
        const char *says;
    } cases[] = {
        { "\"kind\": \"winnow profile\"", "\"kind\": \"recipe\"", false, WN_EFORMAT,
          "not a profile (its kind" },
        { "\"version\": 1", "\"version\": 2", false, WN_EUNSUPPORTED,
          "version 2, this program reads version 1" },
        { "0.75", "0.76", false, WN_EFORMAT, "checksum does not match" },
        { "\"checksum\": \"", "\"checksum\": \"0", false, WN_EFORMAT, "checksum" },
        { "}\n", "", false, WN_EFORMAT, "cut short" },
        { "\"kind\"", "\"kind\": 1, \"kind\"", false, WN_EFORMAT, "not a profile, or cut short" },
        { "\"how\"", "\"whatever\": 1,\n\"how\"", true, WN_EFORMAT,
          "1 object item(s) left unpacked: whatever" },
        { "\"layers\": 3", "\"layers\": 4", true, WN_EFORMAT, "4 layers with 4 heads and 6 lanes" },
        { "\"layers\": 3", "\"layers\": 0", true, WN_EFORMAT, "0 layers" },
        { "\"layers\": 3", "\"layers\": 6", true, WN_EFORMAT, "values for 6 layers" },
        { "\"heads\": 4", "\"heads\": 8", true, WN_EFORMAT, "12 heads, its model has 24" },
        { "\"fingerprint\": \"0", "\"fingerprint\": \"g", true, WN_EFORMAT, "hexadecimal" },
        { "\"class\": \"retrieval\"", "\"class\": \"curious\"", true, WN_EFORMAT,
          "class \"curious\"" },
        { "\"head\": 1", "\"head\": 0", true, WN_EFORMAT, "head 0 where layer 0, head 1 belongs" },
        { "\"copy\": 1.0", "\"copy\": 1.5", true, WN_EFORMAT, "copy is 1.5, expected 0 to 1" },
        { "\"loss\": 0.125", "\"loss\": -1.0", true, WN_EFORMAT, "loss is -1" },
        { "\"echo\"", "\"eho\"", true, WN_EFORMAT,
          "lane of layer 0, head 0: Object item not found: echo" },
        { "\"span\": 0.0", "\"span\": \"x\"", true, WN_EFORMAT, "lane of layer 0, head 0" },
        { "\"answered\": 0.5", "\"answered\": 7", true, WN_EFORMAT, "how:" },
        { "\"context\": 2048", "\"context\": 0", true, WN_EFORMAT, "how:" },
        { "\"share\": 0.25", "\"share\": 25", true, WN_EFORMAT, "budgets, table 0: a share of 25" },
        { "\"weights\": [", "\"weights\": [0, ", true, WN_EFORMAT, "4 weights for 3 layers" },
        { "1.71429", "1.5", true, WN_EFORMAT, "mean weight" },
        { "1.71429", "-1.0", true, WN_EFORMAT, "layer 0 has no weight" },
        { "\"layer_loss\": [0.25", "\"layer_loss\": [true", true, WN_EFORMAT,
          "layer 0 has no number" },
    };
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        wn_err err = { 0 };
        wn_status st = spoiled(cases[i].from, cases[i].to, cases[i].sum, &err);
        if (st != cases[i].st || !strstr(err.text, cases[i].says))
            fail_msg("%s -> %s: %s, expected \"%s\"", cases[i].from, cases[i].to,
                     st ? err.text : "read", cases[i].says);
    }
}

static void a_profile_belongs_to_its_model(void **state)
{
    (void)state;
    wn_err err;
    uint8_t other[16] = { 0 };
    wn_profile *p = test_profile(3, 4, 6, FP);
    assert_int_equal(wn_profile_fits(p, FP, 3, 4, 6, &err), WN_OK);
    assert_int_equal(wn_profile_fits(p, other, 3, 4, 6, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "another model (made up"));
    assert_int_equal(wn_profile_fits(p, FP, 3, 8, 6, &err), WN_EFORMAT);
    wn_profile_close(p);
}

static void tables_are_found_by_recipe_and_nearest_budget(void **state)
{
    (void)state;
    wn_profile *p = test_profile(3, 4, 6, FP);
    wn_profile_budget *b;
    wn_err err;
    static const double shares[] = { 0.5, 0.125 };
    for (size_t i = 0; i < 2; i++) {
        char text[40];
        snprintf(text, sizeof text, "snapkv@%g", shares[i]);
        assert_int_equal(wn_profile_add_budget(p, text, "snapkv", shares[i], &b, &err), WN_OK);
        b->weight[0] = 3;
    }
    /* replaced, not added */
    assert_int_equal(wn_profile_add_budget(p, "snapkv@0.5", "snapkv", 0.5, &b, &err), WN_OK);
    assert_int_equal(p->n_budgets, 3);
    assert_true(wn_profile_nearest(p, "snapkv", 0.3)->share == 0.25);
    assert_true(wn_profile_nearest(p, "snapkv", 0.36)->share == 0.5);
    assert_true(wn_profile_nearest(p, "snapkv", 0.0)->share == 0.125);
    assert_true(wn_profile_nearest(p, "snapkv", 1)->share == 0.5);
    p = test_profile_again(p);
    assert_true(wn_profile_nearest(p, "snapkv", 0.01)->share == 0.125);
    assert_null(wn_profile_nearest(p, "h2o", 0.25));
    assert_int_equal(wn_profile_serves(p, WN_PROFILE_HEADS, "h2o", &err), WN_OK);
    assert_int_equal(wn_profile_serves(p, WN_PROFILE_BUDGETS, "h2o", &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "snapkv@25%, snapkv@50%, snapkv@12.5%"));
    wn_profile_close(p);
}

/* ---- the stages ---------------------------------------------------------------------------- */

/* 2 layers of 2 lanes, 100 tokens, 25 %: 100 slots. Weights 4/3 and 2/3: lanes of layer 0 get
 * 33.3, of layer 1 16.7: 33, 33, 17, 17 (largest remainders). */
static void layers_get_what_was_found(void **state)
{
    (void)state;
    static const int want[4] = { 33, 33, 17, 17 };
    wn_profile *p = test_profile(2, 4, 4, FP);
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 100, .n_layers = 2, .heads = 2 });
    t->view.profile = p;
    test_view_decide(t, "snapkv(window=8)+alloc:profile@25%");
    for (int l = 0; l < 4; l++) assert_int_equal(test_view_n_stays(t, l), want[l]);
    test_view_close(t);
    wn_profile_close(p);
}

/* Losses 1/8, 3/4, 1/8, 1/8: mean 9/32; weights with floor 0.2: 0.2 + 0.8 * 4/9 = 0.5556 three
 * times and 0.2 + 0.8 * 8/3 = 2.3333: of 100 slots 13.9, 58.3, 13.9, 13.9. */
static void lanes_get_by_their_loss(void **state)
{
    (void)state;
    static const struct { const char *kv; int want[4]; } cases[] = {
        { "h2o+alloc:heads@25%", { 14, 58, 14, 14 } },
        { "h2o+alloc:heads(floor=1)@25%", { 25, 25, 25, 25 } },
        { "h2o+alloc:heads(floor=0,by=copy)@25%", { 0, 100, 0, 0 } },
        { "h2o+alloc:heads(floor=0)@25%", { 11, 67, 11, 11 } },
        { "h2o+alloc:heads(by=induction)@25%", { 25, 25, 25, 25 } },    /* all 0: evenly */
        /* losses of layers 1/4 and 1/6: shares 2 and 0 of the mean, at least 1/4: of 2.25 88.9 and
         * 11.1 slots */
        { "h2o+alloc:sensitive@25%", { 44, 44, 6, 6 } },
        { "h2o+alloc:sensitive(least=1)@25%", { 33, 33, 17, 17 } },
        { "h2o+alloc:sensitive(power=0)@25%", { 25, 25, 25, 25 } },
    };
    wn_profile *p = test_profile(2, 4, 4, FP);
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        test_view *t = test_view_open(&(test_shape){ .n_tokens = 100, .n_layers = 2, .heads = 2 });
        t->view.profile = p;
        test_view_decide(t, cases[i].kv);
        for (int l = 0; l < 4; l++)
            if (test_view_n_stays(t, l) != cases[i].want[l])
                fail_msg("%s: lane %d keeps %d, expected %d", cases[i].kv, l,
                         test_view_n_stays(t, l), cases[i].want[l]);
        test_view_close(t);
    }
    wn_profile_close(p);
}

static void window_layers_take_no_part(void **state)
{
    (void)state;
    wn_profile *p = test_profile(3, 4, 6, FP);
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 90, .n_layers = 3, .heads = 2 });
    t->view.profile = p;
    test_view_hide(t, 0);
    /* 108 slots, weights 6/7 and 3/7 */
    test_view_decide(t, "snapkv(window=4)+alloc:profile@30%");
    assert_int_equal(test_view_n_stays(t, 2), 36);
    assert_int_equal(test_view_n_stays(t, 4), 18);
    test_view_close(t);
    wn_profile_close(p);
}

/* What a recipe may ask: the heads of a lane are those of its group. */
static void a_view_shows_the_heads_of_a_lane(void **state)
{
    (void)state;
    wn_profile *p = test_profile(2, 4, 4, FP);
    test_view *t = test_view_open(&(test_shape){ .n_tokens = 9, .n_layers = 2, .heads = 2,
                                                 .group = 2 });
    t->view.profile = p;
    test_view_decide(t, "none");
    assert_ptr_equal(wn_view_profile_heads(&t->view, 3), &p->heads[6]);
    assert_ptr_equal(wn_view_profile_lane(&t->view, 3), &p->lanes[3]);
    assert_true(wn_view_profile_loss(&t->view, 1) == (double)p->layer_loss[1]);
    test_view_close(t);
    wn_profile_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(every_fault_has_its_sentence),
        cmocka_unit_test(a_profile_belongs_to_its_model),
        cmocka_unit_test(tables_are_found_by_recipe_and_nearest_budget),
        cmocka_unit_test(layers_get_what_was_found),
        cmocka_unit_test(lanes_get_by_their_loss),
        cmocka_unit_test(window_layers_take_no_part),
        cmocka_unit_test(a_view_shows_the_heads_of_a_lane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
