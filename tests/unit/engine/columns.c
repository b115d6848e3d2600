/* Keys as a decision compares them: columns of length 1 that come page by page, and rows of some
 * slots, against the rows of the whole lane; and who is nearest, found either way. Over pages of
 * merged slots, with holes, open, and of codes, of several sizes. */
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include "policy/stages/stages.h"

#include <string.h>

enum { N = 400, DIM_MAX = 64 };
static int32_t ids[N];

typedef struct { int decisions, merged; } watch;

typedef struct {
    const wn_view_lane *l;
    const float *unit;                  /* (n, dim) rows of length 1 */
    int *seen;
} columns;

static void compare(void *ctx, const wn_view_cols *c)
{
    columns *x = ctx;
    for (int s = 0; s < c->n; s++) {
        if (c->at[s] < 0) continue;
        x->seen[c->at[s]]++;
        for (int d = 0; d < x->l->k_dim; d++) {
            float want = x->unit[c->at[s] * x->l->k_dim + d], is = c->cols[d * WN_VIEW_COLS + s];
            assert_memory_equal(&want, &is, sizeof is);
        }
    }
}

/* Every slot comes once, with the bits of its row. */
static void check_columns(const wn_view *v, int lane)
{
    static float unit[N * DIM_MAX], some[N * DIM_MAX], room[DIM_MAX * (WN_VIEW_COLS + 1)];
    static int seen[N];
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    const float *rows = wn_view_keys(v, lane);
    int32_t slots[N];
    int n = 0;
    assert_true(l->k_dim <= DIM_MAX);
    for (int i = lane % 3; i < l->n; i += 1 + i % 3) slots[n++] = i;
    assert_true(wn_view_load_keys(v, lane, slots, n, some));
    for (int i = 0; i < n; i++)
        assert_memory_equal(some + i * l->k_dim, rows + slots[i] * l->k_dim,
                            sizeof(float) * (size_t)l->k_dim);
    wn_stage_unit_rows(unit, rows, NULL, l->n, l->k_dim);
    memset(seen, 0, sizeof seen);
    columns x = { l, unit, seen };
    assert_true(wn_view_unit_keys(v, lane, room, compare, &x));
    for (int i = 0; i < l->n; i++) assert_int_equal(seen[i], 1);
}

static void check_nearest(const wn_view *v, int lane)
{
    const wn_view_lane *l = wn_view_get_lane(v, lane);
    wn_view rows = *v;
    bool from[N], to[N];
    int32_t nearest[2][N];
    float like[2][N];
    wn_mark mark = wn_arena_mark(v->scratch);
    for (int i = 0; i < l->n; i++) {
        from[i] = i % 3 == 1;
        to[i] = i % 3 == 0 && i % 5;
    }
    rows.unit_keys = NULL;
    wn_stage_nearest(v, lane, from, to, false, nearest[0], like[0]);
    wn_stage_nearest(&rows, lane, from, to, false, nearest[1], like[1]);
    assert_memory_equal(nearest[0], nearest[1], sizeof(int32_t) * (size_t)l->n);
    assert_memory_equal(like[0], like[1], sizeof(float) * (size_t)l->n);
    for (int i = 0; i < l->n; i++) assert_true(nearest[0][i] < 0 ? !from[i] : to[nearest[0][i]]);
    wn_arena_rewind(v->scratch, mark);
}

static wn_status decided(void *ctx, const wn_view *v, double slot_bytes, const wn_plan *plan,
                         wn_err *err)
{
    watch *w = ctx;
    (void)slot_bytes;
    (void)plan;
    (void)err;
    w->decisions++;
    for (int lane = 0; lane < v->n_lanes; lane++) {
        const wn_view_lane *l = wn_view_get_lane(v, lane);
        for (int i = 0; l->count && i < l->n; i++) w->merged += l->count[i] > 1;
        check_columns(v, lane);
        check_nearest(v, lane);
    }
    return WN_OK;
}

static void columns_are_the_rows(void **state)
{
    (void)state;
    static const char *const kv[] = {
        "d2o(every=64)@30%",        "d2o(every=50)@60%",        "d2o(every=64)@30%,k=q8,v=q8",
        "d2o(every=96)@50%,k=kivi4", "d2o(at=mark)@30%,k=q4",
    };
    static const int page_slots[] = { 64, 16, 4 };
    for (size_t i = 0; i < WN_COUNT(kv); i++)
        for (size_t p = 0; p < WN_COUNT(page_slots); p++) {
            wn_err err = { 0 };
            watch w = { 0 };
            wn_decision_log log = { decided, &w };
            wn_engine_opts o = { .n_threads = 2, .max_seqs = 2, .pool_tokens = 8192,
                                 .page_slots = page_slots[p] };
            test_engine t = test_engine_open(test_model_path("llama", "F32"), o);
            wn_seq *s;
            if (wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = N, .kv = kv[i] }, &err))
                fail_msg("%s: %s", kv[i], err.text);
            wn_seq_set_log(s, &log);
            for (int at = 0; at < N; at += 200) {
                assert_int_equal(wn_seq_feed(s, ids + at, 190, &err), WN_OK);
                test_steps(&t);
                assert_int_equal(wn_seq_mark(s, &err), WN_OK);
                assert_int_equal(wn_seq_feed(s, ids + at + 190, 10, &err), WN_OK);
                test_steps(&t);
            }
            assert_true(w.decisions > 1 && w.merged > 0);
            wn_seq_close(s);
            test_engine_close(&t);
        }
}

/* ---- order ------------------------------------------------------------------------------- */

/* Two channels; slots 1, 2, 5 and 6 have the same key. */
static const float keys[8][2] = { { 1, 0 }, { 3, 4 }, { 6, 8 }, { 1, 1 },
                                  { 0, 2 }, { 3, 4 }, { 3, 4 }, { 5, 0 } };

static void load_keys(void *ctx, int lane, const int32_t *slots, int n, float *rows)
{
    (void)ctx;
    (void)lane;
    for (int i = 0; i < n; i++) memcpy(rows + 2 * i, keys[slots[i]], sizeof keys[0]);
}

/* The last slots first, three at a time, a stranger among them. */
static void unit_keys(void *ctx, int lane, float *room, wn_view_cols_fn *each, void *each_ctx)
{
    float unit[8][2];
    int32_t at[4];
    (void)ctx;
    (void)lane;
    wn_stage_unit_rows(unit[0], keys[0], NULL, 8, 2);
    for (int first = 6; first >= 0; first -= 3) {
        int n = first == 6 ? 2 : 3;
        for (int s = 0; s <= n; s++) {
            at[s] = s < n ? first + s : -1;
            for (int d = 0; d < 2; d++)
                room[d * WN_VIEW_COLS + s] = s < n ? unit[first + s][d] : 9;
        }
        each(each_ctx, &(wn_view_cols){ .at = at, .n = n + 1, .cols = room });
    }
}

/* Of equal keys the earlier slot is nearer, in whatever order columns come. */
static void the_earlier_of_equals_is_nearer(void **state)
{
    (void)state;
    static const bool from[8] = { [3] = true, [5] = true, [7] = true };
    static const bool to[8] = { [0] = true, [1] = true, [2] = true, [4] = true, [6] = true };
    int32_t pos[8] = { 0, 1, 2, 3, 4, 5, 6, 7 }, nearest[8];
    float like[8];
    wn_arena scratch;
    wn_err err = { 0 };
    if (wn_arena_init(&scratch, 1 << 20, false, &err)) fail_msg("%s", err.text);
    wn_view_lane lane = { .group = 1, .k_dim = 2, .v_dim = 2, .n = 8, .pos = pos };
    wn_view v = { .n_tokens = 8, .n_layers = 1, .n_lanes = 1, .lanes = &lane, .scratch = &scratch,
                  .load_keys = load_keys, .unit_keys = unit_keys };
    wn_stage_nearest(&v, 0, from, to, false, nearest, like);
    static const int32_t want[8] = { -1, -1, -1, 1, -1, 1, -1, 0 };
    assert_memory_equal(nearest, want, sizeof want);
    assert_true(like[0] == 0 && like[7] == 1);
    wn_arena_release(&scratch);
}

int main(void)
{
    test_tokens(ids, N, 300, 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_the_rows),
        cmocka_unit_test(the_earlier_of_equals_is_nearer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
