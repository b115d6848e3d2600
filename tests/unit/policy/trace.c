/* What was recorded comes back: views, statistics, rows, plans, bit by bit. A file that ends
 * within a decision keeps the decisions before it, a byte that changed is noticed wherever it
 * is, and a policy that asks for what was not recorded is told so. */
#include "attention/rope.h"
#include "eval/replay.h"
#include "tests/support/recipes.h"
#include "tests/support/view.h"
#include "tests/unit/check.h"

#include <unistd.h>

enum { N = 70, SPARE = 1 << 20 };
static char path[128];
static uint8_t *bytes;                  /* the last file that was written */
static size_t n_bytes;

static const wn_rope rope = { .n_dims = 4, .rate = { 1, 0.01 } };
static void turn(void *ctx, int lane, float *row, int from, int to)
{
    const test_view *t = ctx;
    if (!t->shown[lane].still) wn_rope_mean(&rope, row, from, to);
}

/* A cache with a bit of everything: lanes that differ, merged slots, biases, a hidden layer,
 * protected positions. */
static test_view *open_view(void)
{
    test_view *t = test_view_open(&(test_shape){ .n_tokens = N, .max_tokens = 2 * N, .n_layers = 3,
                                                 .heads = 2, .dim = 4, .v_dim = 6 });
    t->view.turn = turn;
    test_view_thin(t, 1, 40, 3);
    test_view_thin(t, 2, 66, 4);
    test_view_merge(t, 3, 17, 3, 1.0986f);
    test_view_hide(t, 2);
    static const bool none[1];          /* flags of no slot are flags, too */
    for (int l = 0; l < t->view.n_lanes; l++)
        if (!t->shown[l].n) t->shown[l].low = none;
    t->shown[3].still = true;           /* a lane whose queries and keys are not rotated */
    test_view_protect(t, 20, 23);
    for (int i = 0; i < 2 * N; i++)
        test_view_flag(t, i, (unsigned)(i * i / 5 % 4)),
            test_view_span(t, i, i + 1, i % 32 < 9 ? 0 : i / 16);
    t->view.mark = N / 2;
    return t;
}

static wn_trace_writer *create(const test_view *t, const char *policy, bool rows)
{
    wn_trace_writer *w;
    wn_policy p;
    wn_err err;
    assert_int_equal(wn_policy_parse(&p, policy, &err), WN_OK);
    wn_trace_head h = { .policy = p.text, .model = "a model", .n_layers = t->shape.n_layers,
                        .n_lanes = t->view.n_lanes, .lanes = t->shown, .rope_dims = 4,
                        .rope_rate = rope.rate, .rows = rows, .stats = p.stats,
                        .n_stats = p.n_stats };
    if (wn_trace_create(&w, path, &h, &err)) fail_msg("%s", err.text);
    return w;
}

/* Decides, and writes it down with its scores: they live until the decision is over. */
static void record(wn_trace_writer *w, test_view *t, const char *policy)
{
    wn_err err;
    unsigned asked = 0;
    wn_verdict verdicts[16] = { { 0 } };
    const uint64_t *named = t->view.protect;
    test_view_decide(t, policy);        /* for the window and its sums */
    wn_plan_clear(&t->plan);
    wn_mark m = wn_arena_mark(&t->scratch);
    t->view.verdicts = verdicts;
    t->view.asked = &asked;
    t->view.held = WN_MIN(64, t->view.n_tokens);
    wn_policy_decide(&t->policy, &t->view, 20, &t->plan);
    t->view.protect = named;
    if (wn_trace_put(w, &t->view, 20, &t->plan, &err)) fail_msg("%s", err.text);
    wn_arena_rewind(&t->scratch, m);
    t->view.verdicts = NULL;
    t->view.asked = NULL;
}

static void finish(wn_trace_writer *w)
{
    wn_err err;
    if (wn_trace_finish(w, &err)) fail_msg("%s", err.text);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    n_bytes = fread(bytes, 1, SPARE, f);
    fclose(f);
}

static wn_trace *open_bytes(const void *data, size_t n)
{
    wn_trace *t;
    wn_err err;
    if (wn_trace_open_memory(&t, data, n, 0, &err)) fail_msg("%s", err.text);
    return t;
}

static const wn_trace_decision *next(wn_trace *t)
{
    const wn_trace_decision *d;
    wn_err err;
    if (wn_trace_next(t, &d, &err)) fail_msg("%s", err.text);
    return d;
}

/* ---- what comes back ------------------------------------------------------------------------- */

static void same_lane(test_view *t, const wn_trace_decision *d, int lane, bool rows)
{
    const wn_view_lane *a = &t->shown[lane], *b = &d->view.lanes[lane];
    const test_lane *l = &t->lanes[lane];
    size_t n = (size_t)a->n;
    assert_int_equal(b->n, a->n);
    assert_int_equal(b->layer, a->layer);
    assert_int_equal(b->head, a->head);
    assert_int_equal(b->still, a->still);
    assert_memory_equal(b->pos, a->pos, n * 4);
    assert_int_equal(b->count != NULL, a->count != NULL);
    if (a->count) assert_memory_equal(b->count, a->count, n * 4);
    if (a->bias) assert_memory_equal(b->bias, a->bias, n * 4);
    if (!n) return;
    const float *k = wn_trace_rows(d, lane, WN_TRACE_KEYS),
                *v = wn_trace_rows(d, lane, WN_TRACE_VALUES);
    const float *q = wn_trace_rows(d, lane, WN_TRACE_QUERIES),
                *x = wn_trace_rows(d, lane, WN_TRACE_STATS);
    assert_int_equal(k != NULL, rows);
    if (rows) assert_memory_equal(k, l->k, n * 4 * sizeof(float));
    if (rows) assert_memory_equal(v, l->v, n * 6 * sizeof(float));
    if (rows) assert_int_equal(d->n_queries, 64);
    if (rows)
        assert_memory_equal(q, test_view_query(t, lane, t->view.n_tokens - 64, 0),
                            64 * 2 * 4 * sizeof(float));
    for (int s = 0; s < t->policy.n_stats; s++)
        for (size_t i = 0; i < n; i++)
            assert_true(x[(size_t)s * n + i] == *test_view_stat(t, lane, s, a->pos[i]));
    if (t->view.sums)
        assert_memory_equal(wn_trace_rows(d, lane, WN_TRACE_SUMS), t->view.sums[lane],
                            n * 2 * sizeof(float));
}

static void what_was_written_is_read(void **state)
{
    static const char *const policies[] = { "snapkv(window=8)@25%",
                                            "d2o(every=64)@40%",
                                            "recent(sinks=3)@30%",
                                            "keepall",
                                            "streaming(sinks=2,window=20)",
                                            "expected@25%",
                                            "none",
                                            "ledger@30%" };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(policies); i++)
        for (int rows = 0; rows < 2; rows++) {
            test_view *t = open_view();
            wn_trace_writer *w = create(t, policies[i], rows);
            record(w, t, policies[i]);
            finish(w);
            wn_trace *r = open_bytes(bytes, n_bytes);
            const wn_trace_head *h = wn_trace_get_head(r);
            assert_string_equal(h->policy, t->policy.text);
            assert_string_equal(h->model, "a model");
            assert_true(h->rope_dims == 4 && h->rope_rate[1] == 0.01);
            const wn_trace_decision *d = next(r);
            char why[200];
            assert_non_null(d);
            assert_int_equal(d->view.n_tokens, N);
            assert_int_equal(wn_view_mark(&d->view), N / 2);
            assert_true(d->slot_bytes == 20);
            for (int l = 0; l < t->view.n_lanes; l++) same_lane(t, d, l, rows);
            for (int p = 0; p < N; p++)
                assert_int_equal(wn_view_protects(&d->view, p), p >= 20 && p < 23);
            for (int p = 0; p < N; p++)
                assert_int_equal(wn_view_flags(&d->view, p), t->view.flags[p]);
            for (int p = 1; p < N; p++) {               /* spans are numbered anew: what begins
                                                           where stays */
                const wn_view *x = &d->view, *y = &t->view;
                assert_int_equal(wn_view_span(x, p) == 0, wn_view_span(y, p) == 0);
                assert_int_equal(wn_view_span(x, p) == wn_view_span(x, p - 1),
                                 wn_view_span(y, p) == wn_view_span(y, p - 1));
            }
            if (!wn_replay_same(&t->view, &t->plan, &d->plan, why, sizeof why))
                fail_msg("%s: %s", policies[i], why);
            assert_null(next(r));
            assert_int_equal(wn_trace_torn(r), 0);
            wn_trace_close(r);
            test_view_close(t);
        }
}

/* Decision after decision, as a cache changes under them. */
static void many_decisions(const char *policy, bool rows, int n)
{
    test_view *t = open_view();
    wn_trace_writer *w = create(t, policy, rows);
    for (int i = 0; i < n; i++) {
        record(w, t, policy);
        if (i + 1 == n) break;
        test_view_carry_out(t);
        test_view_grow(t, 16);
    }
    finish(w);
    test_view_close(t);
}

/* The recorded policy makes the recorded plan, with rows or without; another does not. */
static void replays_agree(void **state)
{
    static const struct { const char *policy; bool rows;
    } cases[] = {
        { "random(first=3)@25%", false },
        { "snapkv(window=8)@25%", false },
        { "h2o@30%", false },
        { "recent@25%", false },
        { "tova@25%", false },
        { "adakv@25%", false },
        { "keydiff@25%", true },
        { "d2o@25%", true },
        { "expected@25%", true },
        { "expected(window=16)@25%", true },
        { "lagkv(sinks=2,partition=8)@30%", true },
        { "ledger@30%", true },
        { "criticalkv(window=8)@30%", false },
        { "fastgen(recover=0.5)@30%", false },
        { "shotkv(window=8)@30%", false },
        { "h2o+retain:fair@30%", false },
        { "h2o+retain:critical@30%", false },
    };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        many_decisions(cases[i].policy, cases[i].rows, 4);
        wn_trace *t = open_bytes(bytes, n_bytes);
        const wn_trace_decision *d;
        const wn_plan *plan;
        wn_policy own, other;
        wn_replay *r;
        wn_err err;
        char why[200];
        int n = 0, differ = 0;
        assert_int_equal(wn_policy_parse(&own, wn_trace_get_head(t)->policy, &err), WN_OK);
        assert_int_equal(wn_policy_parse(&other, "random(seed=9)@25%", &err), WN_OK);
        assert_int_equal(wn_replay_open(&r, t, &err), WN_OK);
        while ((d = next(t))) {
            if (wn_replay_decide(r, d, &own, &plan, &err)) fail_msg("%s", err.text);
            if (!wn_replay_same(&d->view, &d->plan, plan, why, sizeof why))
                fail_msg("%s: %s", cases[i].policy, why);
            const wn_verdict *said = wn_replay_verdicts(r);
            for (int l = 0; l < d->view.n_lanes; l++) {
                size_t size = sizeof(float) * (size_t)d->view.lanes[l].n;
                assert_int_equal(said[l].score != NULL, d->verdicts[l].score != NULL);
                if (said[l].score) assert_memory_equal(said[l].score, d->verdicts[l].score, size);
                assert_int_equal(said[l].keep, d->verdicts[l].keep);
            }
            wn_replay_figures f = wn_replay_measure(r, d, plan);
            assert_true(f.agreement == 1);
            if (wn_replay_decide(r, d, &other, &plan, &err)) fail_msg("%s", err.text);
            differ += !wn_replay_same(&d->view, &d->plan, plan, why, sizeof why);
            n++;
        }
        assert_int_equal(n, 4);
        assert_int_equal(differ, 4);
        wn_replay_close(r);
        wn_trace_close(t);
    }
}

/* A plan that no recipe makes: weights of K that are not those of V, many entries in a lane. */
static void plans_with_everything(void **state)
{
    (void)state;
    static const int32_t src[3] = { 5, 2, 9 };
    static const float wk[3] = { 0.5f, 0.25f, 0.125f }, wv[3] = { 1, -2, 3 };
    wn_err err;
    char why[200];
    wn_plan other;
    test_view *t = test_view_open(&(test_shape){ .n_tokens = N, .n_layers = 2, .heads = 1 });
    wn_plan_drop(&t->plan, 0, 30, 64);
    for (int i = 0; i < 3; i++) {
        wn_plan_merge_slots(&t->plan, 1, 10 + i, src, wk, wv, i + 1, 0.1f * (float)i, i + 2);
        wn_plan_set_bias(&t->plan, WN_ALL_LANES, 20 + i, (float)i);
        wn_plan_shift(&t->plan, i % 2, i, i + 4, -7 * i);
    }
    wn_trace_writer *w = create(t, "h2o", false);
    assert_int_equal(wn_trace_put(w, &t->view, 1, &t->plan, &err), WN_OK);
    finish(w);
    wn_trace *r = open_bytes(bytes, n_bytes);
    const wn_trace_decision *d = next(r);
    if (!wn_replay_same(&t->view, &t->plan, &d->plan, why, sizeof why)) fail_msg("%s", why);
    for (int kind = 0; kind < 4; kind++) {      /* each part counts */
        wn_plan_init(&other, N, 2);
        if (kind == 0) wn_plan_drop(&other, 0, 30, 63);
        if (kind == 1) wn_plan_merge_slots(&other, 1, 10, src, wv, wv, 1, 0, 2);
        if (kind == 2) wn_plan_set_bias(&other, 0, 20, -0.0f);
        if (kind == 3) wn_plan_shift(&other, 0, 0, 4, 1);
        assert_false(wn_replay_same(&d->view, &d->plan, &other, why, sizeof why));
        wn_plan_release(&other);
    }
    wn_trace_close(r);
    test_view_close(t);
}

/* ---- what is lacking ------------------------------------------------------------------------- */

static void what_was_not_recorded_is_named(void **state)
{
    static const struct { const char *recorded, *asked, *says; bool rows;
    } cases[] = {
        { "random@25%", "keydiff@25%", "keydiff asks for keys", false },
        { "snapkv(window=8)@25%", "lagkv@25%", "lagkv asks for", false },
        { "snapkv(window=8)@25%", "snapkv(window=16)@25%", "the attention of the last 16 queries",
          false },
        { "snapkv(window=8)@25%", "expected@25%", "the last 64 queries", false },
        { "snapkv(window=8)@25%", "snapkv(window=16)@25%", NULL, true },
        { "snapkv(window=8)@25%", "expected@25%", NULL, true },
        { "random@25%", "snapkv(window=8,kernel=3)@25%", NULL, true },
        { "ledger@25%", "h2o@25%", "the attention that slots have got so far, as it counts it",
          true },
        { "ledger(decay=0.5)@25%", "ledger(decay=0.6)@25%", "as it counts it", true },
        { "h2o@25%", "h2o(recent=0.1)@25%", NULL, false },
        { "snapkv(window=8)@25%", "snapkv(window=8)+retain:fair@25%", NULL, false },
        { "snapkv(window=8)@25%", "criticalkv(window=8)@25%",
          "what values can change in the layer's answer, which the decision at 70 does not "
          "hold (a run under a policy that asks for it records it)",
          true },
    };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        wn_err err = { 0 };
        wn_policy p;
        wn_replay *r;
        const wn_plan *plan;
        many_decisions(cases[i].recorded, cases[i].rows, 1);
        wn_trace *t = open_bytes(bytes, n_bytes);
        const wn_trace_decision *d = next(t);
        assert_int_equal(wn_policy_parse(&p, cases[i].asked, &err), WN_OK);
        assert_int_equal(wn_replay_open(&r, t, &err), WN_OK);
        wn_status st = wn_replay_decide(r, d, &p, &plan, &err);
        assert_int_equal(st, cases[i].says ? WN_EINVAL : WN_OK);
        if (st && !strstr(err.text, cases[i].says)) fail_msg("%s", err.text);
        wn_replay_close(r);
        wn_trace_close(t);
    }
}

/* Attention computed from recorded rows is that of the recorded window. */
static void windows_can_be_computed(void **state)
{
    (void)state;
    wn_err err;
    wn_policy p;
    wn_replay *r;
    const wn_plan *plan;
    char why[200];
    test_view *v = open_view();
    wn_trace_writer *w = create(v, "random@25%", true);
    record(w, v, "random@25%");
    finish(w);
    wn_trace *t = open_bytes(bytes, n_bytes);
    const wn_trace_decision *d = next(t);
    static const char *const policies[] = { "snapkv(window=8)@25%", "tova@25%",
                                            "adakv(window=16)@30%" };
    assert_int_equal(wn_replay_open(&r, t, &err), WN_OK);
    for (size_t i = 0; i < WN_COUNT(policies); i++) {
        const wn_plan *want = test_view_decide_bytes(v, policies[i], 20);
        assert_int_equal(wn_policy_parse(&p, policies[i], &err), WN_OK);
        if (wn_replay_decide(r, d, &p, &plan, &err)) fail_msg("%s", err.text);
        if (!wn_replay_same(&d->view, want, plan, why, sizeof why))
            fail_msg("%s: %s", policies[i], why);
    }
    wn_replay_close(r);
    wn_trace_close(t);
    test_view_close(v);
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* Decisions that are read before the end or the first failure. */
static int count(const uint8_t *data, size_t n, wn_status *st, size_t *torn)
{
    wn_trace *t;
    const wn_trace_decision *d;
    wn_err err;
    int k = 0;
    *torn = 0;
    if ((*st = wn_trace_open_memory(&t, data, n, 0, &err))) return 0;
    while (!(*st = wn_trace_next(t, &d, &err)) && d) k++;
    *torn = wn_trace_torn(t);
    wn_trace_close(t);
    return k;
}

static void a_changed_byte_is_noticed(void **state)
{
    (void)state;
    many_decisions("d2o@30%", false, 2);
    for (size_t i = 0; i < n_bytes; i++)
        for (int bit = 0; bit < 8; bit += 7) {
            wn_status st;
            size_t torn;
            bytes[i] ^= (uint8_t)(1 << bit);
            count(bytes, n_bytes, &st, &torn);
            if (!st) fail_msg("byte %zu of %zu changed, and nobody noticed", i, n_bytes);
            bytes[i] ^= (uint8_t)(1 << bit);
        }
}

static void a_torn_end_costs_one_decision(void **state)
{
    (void)state;
    many_decisions("h2o@30%", false, 3);
    size_t ends[4] = { 0 };
    wn_trace *t = open_bytes(bytes, n_bytes);
    const wn_trace_decision *d;
    for (int i = 0; (d = next(t)); i++) {
        ends[i] = d->offset;
        ends[i + 1] = d->offset + d->bytes;
    }
    wn_trace_close(t);
    assert_int_equal(ends[3], n_bytes);
    uint8_t *copy = malloc(n_bytes);
    memcpy(copy, bytes, n_bytes);
    for (size_t n = 0; n <= n_bytes; n++) {
        wn_status st;
        size_t torn;
        int whole = 0;
        while (whole < 3 && ends[whole + 1] <= n) whole++;
        int k = count(copy, n, &st, &torn);
        if (n < ends[0]) {
            assert_int_equal(st, WN_EFORMAT);
            continue;
        }
        if (st || k != whole || torn != n - ends[whole])
            fail_msg("%zu bytes: status %d, %d decisions, %zu torn", n, (int)st, k, torn);
    }
    free(copy);
}

int main(void)
{
    test_recipes_add();
    test_path(path, sizeof path, "trace");
    bytes = malloc(SPARE);
    if (!bytes) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(replays_agree),
        cmocka_unit_test(what_was_not_recorded_is_named),
        cmocka_unit_test(windows_can_be_computed),
        cmocka_unit_test(a_changed_byte_is_noticed),
        cmocka_unit_test(a_torn_end_costs_one_decision),
        cmocka_unit_test(plans_with_everything),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    free(bytes);
    return rc;
}
