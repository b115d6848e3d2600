/* Each sampling rule against cases worked out by hand, the order in which rules apply, and
 * the sentences for what cannot be sampled.
 *
 * Which tokens a rule leaves is seen by drawing at many positions: a set is what was drawn
 * in 4000 draws. With a smallest kept probability of 0.01 a kept token is missed with
 * probability 0.99^4000 = 3e-18.
 */
#include "tests/unit/check.h"

#include <math.h>

#include "base/alloc.h"
#include "base/err.h"

/* Nothing but what a test turns on. */
static wn_sampling plain(void)
{
    return (wn_sampling){ .temperature = 1.0f, .top_p = 1.0f, .repeat_penalty = 1.0f };
}

static wn_sampler *open_sampler(const wn_sampling *o, int n_vocab)
{
    wn_sampler *s;
    wn_err err = { 0 };
    if (wn_sampler_open(&s, o, n_vocab, &err)) fail_msg("%s", err.text);
    return s;
}

static int32_t pick(const wn_sampling *o, const float *logits, int n, const int32_t *before,
                    int n_before)
{
    wn_sampler *s = open_sampler(o, n);
    wn_err err = { 0 };
    int32_t id;
    if (wn_sampler_pick(s, logits, before, n_before, &id, &err)) fail_msg("%s", err.text);
    wn_sampler_close(s);
    return id;
}

/* The tokens (bits by id, n <= 32) that come up in 4000 draws. */
static uint32_t drawn(const wn_sampling *o, const float *logits, int n)
{
    wn_sampler *s = open_sampler(o, n);
    uint32_t set = 0;
    for (int p = 0; p < 4000; p++) {
        int32_t id;
        assert_int_equal(wn_sampler_pick(s, logits, NULL, p, &id, NULL), WN_OK);
        assert_in_range(id, 0, n - 1);
        set |= 1u << id;
    }
    wn_sampler_close(s);
    return set;
}

/* Logits whose softmax is 0.4 0.3 0.15 0.1 0.05, out of order: ids by rank are 3 0 4 1 2. */
static void five(float x[5])
{
    static const double p[5] = { 0.3, 0.1, 0.05, 0.4, 0.15 };
    for (int i = 0; i < 5; i++) x[i] = (float)log(p[i]) + 3.0f;
}
enum { R1 = 1 << 3, R2 = R1 | 1 << 0, R3 = R2 | 1 << 4, R4 = R3 | 1 << 1, R5 = R4 | 1 << 2 };

static void defaults_are_those_of_llama_cpp(void **state)
{
    (void)state;
    wn_sampling o = wn_sampling_defaults();
    assert_true(o.temperature == 0.8f && o.top_k == 40 && o.top_p == 0.95f && o.min_p == 0.05f);
    assert_true(o.repeat_penalty == 1.0f && o.presence_penalty == 0.0f &&
                o.frequency_penalty == 0.0f);
    assert_int_equal(o.penalty_last_n, 64);
    assert_int_equal(o.n_bias, 0);
}

static void greedy_takes_the_largest_and_the_lower_id(void **state)
{
    (void)state;
    wn_sampling o = plain();
    float x[6] = { -1, 2, 5, 5, 5, -INFINITY };
    o.temperature = 0.0f;
    assert_int_equal(pick(&o, x, 6, NULL, 0), 2);
    o.temperature = 1.0f;
    o.top_k = 1;
    assert_int_equal(pick(&o, x, 6, NULL, 0), 2);
}

static void top_k_keeps_k_and_the_lower_ids(void **state)
{
    (void)state;
    wn_sampling o = plain();
    float x[5], tie[6] = { 1, 2, 1, 1, 2, 1 };
    static const uint32_t want[] = { R5, R1, R2, R3, R4, R5, R5 };
    five(x);
    for (int k = 0; k <= 6; k++) {
        o.top_k = k;
        assert_int_equal(drawn(&o, x, 5), want[k]);
    }
    o.top_k = -1;
    assert_int_equal(drawn(&o, x, 5), R5);
    o.top_k = 4;                    /* 1 and 4, then 0 and 2 of the four equals */
    assert_int_equal(drawn(&o, tie, 6), 1 << 1 | 1 << 4 | 1 << 0 | 1 << 2);
}

static void top_p_keeps_the_smallest_set_that_reaches_p(void **state)
{
    (void)state;
    wn_sampling o = plain();
    float x[5];
    static const struct { float p; uint32_t want; } rows[] = {
        { 0.0f, R1 }, { 0.39f, R1 }, { 0.41f, R2 }, { 0.69f, R2 }, { 0.71f, R3 },
        { 0.84f, R3 }, { 0.86f, R4 }, { 0.94f, R4 }, { 0.96f, R5 }, { 1.0f, R5 },
    };
    five(x);
    for (size_t i = 0; i < WN_COUNT(rows); i++) {
        o.top_p = rows[i].p;
        assert_int_equal(drawn(&o, x, 5), rows[i].want);
    }
}

static void min_p_is_a_share_of_the_largest(void **state)
{
    (void)state;
    wn_sampling o = plain();
    float x[5];
    static const struct { float p; uint32_t want; } rows[] = {
        { 0.0f, R5 }, { 0.12f, R5 }, { 0.13f, R4 }, { 0.24f, R4 }, { 0.26f, R3 },
        { 0.37f, R3 }, { 0.38f, R2 }, { 0.74f, R2 }, { 0.76f, R1 }, { 1.0f, R1 },
    };
    five(x);
    for (size_t i = 0; i < WN_COUNT(rows); i++) {
        o.min_p = rows[i].p;
        o.top_p = 1.0f;
        assert_int_equal(drawn(&o, x, 5), rows[i].want);
        o.top_p = 0.9999f;          /* by the other path: ranked against the whole vocabulary */
        assert_int_equal(drawn(&o, x, 5), rows[i].want);
    }
}

/* top-k before top-p: of 0.4 0.3 0.15, two hold 0.82 of the mass; of all five only 0.70.
 * top-p before temperature: a hot temperature would flatten the five to 0.2 each. min-p is
 * measured before temperature as well. */
static void rules_apply_in_order(void **state)
{
    (void)state;
    wn_sampling o = plain();
    float x[5];
    five(x);
    o.top_p = 0.8f;
    assert_int_equal(drawn(&o, x, 5), R3);
    o.top_k = 3;
    assert_int_equal(drawn(&o, x, 5), R2);
    o = plain();
    o.temperature = 100.0f;
    o.top_p = 0.41f;
    assert_int_equal(drawn(&o, x, 5), R2);
    o.top_p = 1.0f;
    o.min_p = 0.26f;
    assert_int_equal(drawn(&o, x, 5), R3);
    o.top_k = 2;
    assert_int_equal(drawn(&o, x, 5), R2);
}

static void penalties_lower_what_was_said(void **state)
{
    (void)state;
    wn_sampling o = plain();
    const int32_t before[] = { 3, 0, 0, 2, 2, 2 };
    float x[4] = { 4.0f, 3.0f, 3.9f, -1.0f };
    o.temperature = 0.0f;
    o.penalty_last_n = 64;
    assert_int_equal(pick(&o, x, 4, before, 6), 0);
    o.repeat_penalty = 1.25f;       /* 4 -> 3.2, 3.9 -> 3.12 */
    assert_int_equal(pick(&o, x, 4, before, 6), 0);
    o.repeat_penalty = 1.4f;        /* 4 -> 2.86, 3.9 -> 2.79: 1 is left */
    assert_int_equal(pick(&o, x, 4, before, 6), 1);
    o.repeat_penalty = 1.0f;
    o.frequency_penalty = 0.3f;     /* 4 - 0.6 = 3.4, 3.9 - 0.9 = 3.0 */
    assert_int_equal(pick(&o, x, 4, before, 6), 0);
    o.frequency_penalty = 0.6f;     /* 2.8 and 2.1 against 3 */
    assert_int_equal(pick(&o, x, 4, before, 6), 1);
    o.frequency_penalty = 0.0f;
    o.presence_penalty = 1.1f;      /* 2.9 and 2.8 against 3, however often */
    assert_int_equal(pick(&o, x, 4, before, 6), 1);
    o.penalty_last_n = 3;            /* only the three 2s are in the window */
    assert_int_equal(pick(&o, x, 4, before, 6), 0);
    o.penalty_last_n = 0;
    o.presence_penalty = 100.0f;
    assert_int_equal(pick(&o, x, 4, before, 6), 0);
    o.penalty_last_n = -1;
    assert_int_equal(pick(&o, x, 4, before, 6), 1);
}

/* A negative logit is multiplied: dividing would reward the repetition. And the scratch that
 * counts occurrences is clean again for the next call. */
static void repeat_penalty_knows_the_sign(void **state)
{
    (void)state;
    wn_sampling o = plain();
    const int32_t zero[] = { 0 }, one[] = { 1 };
    float x[2] = { -1.0f, -1.5f };
    int32_t id;
    o.temperature = 0.0f;
    o.penalty_last_n = 8;
    o.repeat_penalty = 2.0f;
    wn_sampler *s = open_sampler(&o, 2);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(wn_sampler_pick(s, x, zero, 1, &id, NULL), WN_OK);
        assert_int_equal(id, 1);                        /* -2 against -1.5 */
        assert_int_equal(wn_sampler_pick(s, x, one, 1, &id, NULL), WN_OK);
        assert_int_equal(id, 0);
    }
    wn_sampler_close(s);
}

static void bias_adds_and_bans(void **state)
{
    (void)state;
    wn_sampling o = plain();
    wn_logit_bias b[] = { { 3, -INFINITY }, { 2, 1.0f }, { 2, 4.0f } };
    float x[5];
    five(x);
    o.bias = b;
    o.n_bias = 1;
    assert_int_equal(drawn(&o, x, 5), R5 & ~R1);
    o.n_bias = 3;
    o.temperature = 0.0f;
    assert_int_equal(pick(&o, x, 5, NULL, 0), 2);
    wn_sampler *s = open_sampler(&o, 5);
    b[0].id = b[1].id = b[2].id = 0; /* the sampler has its own copy */
    int32_t id;
    assert_int_equal(wn_sampler_pick(s, x, NULL, 0, &id, NULL), WN_OK);
    assert_int_equal(id, 2);
    wn_sampler_close(s);
}

/* Through every path: with and without top-k, top-p, min-p, and with extreme temperatures. */
static void minus_infinity_is_never_sampled(void **state)
{
    (void)state;
    float x[8] = { -INFINITY, 0.5f, -INFINITY, 0.2f, -INFINITY, -INFINITY, 0.1f, -INFINITY };
    for (int bits = 0; bits < 32; bits++) {
        wn_sampling o = plain();
        o.top_k = bits & 1 ? 5 : 0;
        o.top_p = bits & 2 ? 0.99999f : 1.0f;
        o.min_p = bits & 4 ? 1e-6f : 0.0f;
        if (bits & 8) o.temperature = 1e30f;
        if (bits & 16) o.temperature *= 1e-42f;
        uint32_t set = drawn(&o, x, 8);
        assert_int_equal(set & ~(1u << 1 | 1u << 3 | 1u << 6), 0);
        if (bits < 16) assert_int_equal(set, 1 << 1 | 1 << 3 | 1 << 6);
    }
}

static void check_error(const float *x, int n, wn_status want, const char *part)
{
    for (int greedy = 0; greedy < 2; greedy++) {
        wn_sampling o = wn_sampling_defaults();
        wn_err err = { 0 };
        int32_t id = 99;
        if (greedy) o.temperature = 0.0f;
        wn_sampler *s = open_sampler(&o, n);
        assert_int_equal(wn_sampler_pick(s, x, NULL, 0, &id, &err), want);
        assert_int_equal(id, -1);
        if (!strstr(err.text, part)) fail_msg("'%s' does not say '%s'", err.text, part);
        wn_sampler_close(s);
    }
}

static void what_is_no_number_is_an_error(void **state)
{
    (void)state;
    float x[100];
    for (int i = 0; i < 100; i++) x[i] = (float)i;
    x[61] = NAN;
    check_error(x, 100, WN_EINVAL, "token 61");
    x[61] = INFINITY;
    check_error(x, 100, WN_EINVAL, "token 61");
    for (int i = 0; i < 100; i++) x[i] = -INFINITY;
    check_error(x, 100, WN_EINVAL, "every logit is -inf");
}

static void options_out_of_range_are_named(void **state)
{
    (void)state;
    static const wn_logit_bias far[] = { { 10, 1.0f } }, nan_bias[] = { { 1, NAN } };
    static const wn_logit_bias inf_bias[] = { { 1, INFINITY } };
    const struct { wn_sampling o; const char *part; } rows[] = {
        { { .temperature = NAN, .repeat_penalty = 1 }, "temperature" },
        { { .top_p = 1.5f, .repeat_penalty = 1 }, "top-p" },
        { { .top_p = -0.1f, .repeat_penalty = 1 }, "top-p" },
        { { .min_p = NAN, .repeat_penalty = 1 }, "min-p" },
        { { .repeat_penalty = 0 }, "repeat-penalty" },
        { { .repeat_penalty = 1, .presence_penalty = INFINITY }, "presence-penalty" },
        { { .repeat_penalty = 1, .frequency_penalty = NAN }, "frequency-penalty" },
        { { .repeat_penalty = 1, .penalty_last_n = -2 }, "repeat-last-n" },
        { { .repeat_penalty = 1, .bias = far, .n_bias = 1 }, "token 10" },
        { { .repeat_penalty = 1, .bias = nan_bias, .n_bias = 1 }, "token 1" },
        { { .repeat_penalty = 1, .bias = inf_bias, .n_bias = 1 }, "token 1" },
    };
    for (size_t i = 0; i < WN_COUNT(rows); i++) {
        wn_err err = { 0 };
        wn_sampler *s;
        assert_int_equal(wn_sampler_open(&s, &rows[i].o, 10, &err), WN_EINVAL);
        assert_null(s);
        if (!strstr(err.text, rows[i].part))
            fail_msg("'%s' does not name %s", err.text, rows[i].part);
    }
    wn_sampling o = wn_sampling_defaults();
    const int32_t bad[] = { 1, 10 };
    wn_err err = { 0 };
    float x[10] = { 0 };
    int32_t id;
    o.presence_penalty = 1.0f;
    wn_sampler *s = open_sampler(&o, 10);
    assert_int_equal(wn_sampler_pick(s, x, bad, 2, &id, &err), WN_EINVAL);
    assert_non_null(strstr(err.text, "token 10"));
    wn_sampler_close(s);
}

static void open_survives_every_failed_allocation(void **state)
{
    (void)state;
    wn_sampling o = wn_sampling_defaults();
    for (int n = 1, fired = 1; fired; n++) {
        wn_sampler *s;
        wn_fault_alloc(n);
        wn_status st = wn_sampler_open(&s, &o, 1000, NULL);
        fired = wn_fault_clear();
        assert_int_equal(st, fired ? WN_ENOMEM : WN_OK);
        wn_sampler_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_llama_cpp),
        cmocka_unit_test(greedy_takes_the_largest_and_the_lower_id),
        cmocka_unit_test(top_k_keeps_k_and_the_lower_ids),
        cmocka_unit_test(top_p_keeps_the_smallest_set_that_reaches_p),
        cmocka_unit_test(min_p_is_a_share_of_the_largest),
        cmocka_unit_test(rules_apply_in_order),
        cmocka_unit_test(penalties_lower_what_was_said),
        cmocka_unit_test(repeat_penalty_knows_the_sign),
        cmocka_unit_test(bias_adds_and_bans),
        cmocka_unit_test(minus_infinity_is_never_sampled),
        cmocka_unit_test(what_is_no_number_is_an_error),
        cmocka_unit_test(options_out_of_range_are_named),
        cmocka_unit_test(open_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
