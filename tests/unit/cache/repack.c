/* Decisions one at a time: what they cost, what they refuse, what they must not touch. */
#include "tests/unit/check.h"
#include "tests/support/kv_model.h"
#include "tests/support/test_formats.h"

#include "base/alloc.h"
#include "cache/kv_int.h"

#include <math.h>

static model m1, m2;

typedef struct {
    wn_pool *pool;
    wn_kv_opts o;
    wn_kv *kv;
    wn_plan plan;
} fixture;

static fixture begin(int n_lanes, int P, int n)
{
    fixture f = { 0 };
    assert_int_equal(wn_pool_open(&f.pool, &(wn_pool_opts){ .bytes = 16 << 20 }, NULL), WN_OK);
    f.o = (wn_kv_opts){ .pool = f.pool, .map = model_map(n_lanes, 0), .k_format = &test_f32,
                        .v_format = &test_f32, .page_slots = P, .max_positions = MODEL_MAX };
    assert_int_equal(wn_kv_open(&f.kv, &f.o, NULL), WN_OK);
    model_init(&m1, f.o.map, P);
    assert_int_equal(model_append(&m1, f.kv, 1, n, NULL), WN_OK);
    wn_plan_init(&f.plan, n, n_lanes);
    return f;
}

static void apply(fixture *f)
{
    wn_err err;
    model_apply(&m1, f->kv, &f->plan);
    wn_alloc_forbid(true);
    wn_status st = wn_kv_apply(f->kv, &f->plan, &err);
    wn_alloc_forbid(false);
    if (st) fail_msg("%s", err.text);
    model_compare(&m1, f->kv, f->pool);
    wn_plan_release(&f->plan);
    wn_plan_init(&f->plan, m1.n, f->o.map->n_lanes);
}

static void end(fixture *f)
{
    wn_pool_stats s;
    wn_plan_release(&f->plan);
    wn_kv_close(f->kv);
    wn_pool_get_stats(f->pool, &s);
    assert_int_equal(s.bytes_used, 0);
    wn_pool_check(f->pool);
    wn_pool_close(f->pool);
}

/* Keeping a random quarter must leave a quarter of the pages, not the 37 % that packing
 * page by page leaves; also when it is done again and again as the text grows. */
static void a_quarter_of_the_slots_is_a_quarter_of_the_pages(void **state)
{
    (void)state;
    uint64_t rng = 1;
    fixture f = begin(4, 64, 512);
    while (m1.n < 2048) {
        wn_kv_stats s;
        size_t full = (size_t)wn_pages_of(m1.n, 64) * wn_kv_bytes_per_page(&f.o);
        for (int l = 0; l < 4; l++) {
            int live = (int)wn_kv_live(f.kv, l), left = m1.n / 4;
            for (int p = 0; p < m1.n; p++) {            /* keep `left` of the live ones at random */
                if (!m1.at[l][p].live) continue;
                if ((int)(test_rand(&rng) % (uint64_t)live) < left) left--;
                else wn_plan_drop(&f.plan, l, p, p + 1);
                live--;
            }
        }
        apply(&f);
        wn_kv_get_stats(f.kv, &s);
        assert_int_equal(s.slots, (uint64_t)m1.n);
        assert_int_equal(s.slots_full, 4 * (uint64_t)m1.n);
        assert_true((double)s.bytes_frames <= 0.26 * (double)full);
        /* rows of 6 floats: tables weigh much */
        assert_true((double)s.bytes <= 0.28 * (double)full);
        assert_int_equal(model_append(&m1, f.kv, 1, 512, NULL), WN_OK);
        wn_plan_release(&f.plan);
        wn_plan_init(&f.plan, m1.n, 4);
    }
    end(&f);
}

/* A budget nobody reaches: a plan that drops nothing touches nothing. */
/* Pages whose parameters are the page's own cannot lend a slot to another page. They are
 * masked and freed whole, and made anew where masks would leave more than a quarter too much. */
static void pages_that_cannot_be_repacked_do_not_pile_up(void **state)
{
    (void)state;
    enum { P = 16 };
    uint64_t rng = 3;
    wn_err err;
    fixture f = begin(2, P, 0);
    wn_kv_close(f.kv);
    f.o.k_format = f.o.v_format = &test_fixed_lag2;
    f.o.raw_format = &test_f32;
    assert_int_equal(wn_kv_open(&f.kv, &f.o, &err), WN_OK);
    for (int round = 0; round < 12; round++) {
        assert_int_equal(model_append(&m1, f.kv, 1, 160, NULL), WN_OK);
        wn_plan_release(&f.plan);
        wn_plan_init(&f.plan, m1.n, 2);
        for (int l = 0; l < 2; l++)
            for (int p = 0; p < m1.n; p++)
                if (test_rand(&rng) % 16 < 5) wn_plan_drop(&f.plan, l, p, p + 1);
        apply(&f);
        for (int l = 0; l < 2; l++) {
            int live = (int)wn_kv_live(f.kv, l), pages = wn_kv_n_pages(f.kv, l);
            if (pages > live / P * 4 / 3 + 4)
                fail_msg("round %d: %d pages for %d slots", round, pages, live);
        }
    }
    wn_kv_stats s;
    wn_kv_get_stats(f.kv, &s);
    assert_true(s.n_repacks > 12 && s.n_repacks <= 2 * 12);
    end(&f);
}

static void an_empty_plan_changes_nothing(void **state)
{
    (void)state;
    fixture f = begin(3, 16, 300);
    wn_kv_stats s;
    wn_plan_drop(&f.plan, 0, 50, 50);
    assert_int_equal(wn_kv_apply(f.kv, &f.plan, NULL), WN_OK);
    int32_t all[300];
    for (int i = 0; i < 300; i++) all[i] = i;
    wn_plan_keep_only(&f.plan, WN_ALL_LANES, all, 300);
    assert_int_equal(wn_kv_apply(f.kv, &f.plan, NULL), WN_OK);
    wn_kv_get_stats(f.kv, &s);
    assert_int_equal(s.n_decisions + s.n_repacks, 0);
    assert_int_equal(f.kv->n_unlisted, 3);
    model_compare(&m1, f.kv, f.pool);
    end(&f);
}

/* Two lanes decide, three do not: a fork made before keeps everything, what only the
 * decided lanes held is given back when the fork goes. */
static void a_shared_text_is_not_touched(void **state)
{
    (void)state;
    fixture f = begin(5, 16, 700);
    wn_kv *g;
    wn_pool_stats before, after;
    assert_int_equal(wn_kv_fork(&g, f.kv, 0, NULL), WN_OK);
    m2 = m1;
    wn_plan_drop(&f.plan, 1, 0, 640);
    wn_plan_drop(&f.plan, 3, 100, 650);
    apply(&f);
    model_compare(&m2, g, f.pool);
    model_check_refs((wn_kv *[]){ f.kv, g }, 2, f.pool, 0);
    assert_int_equal(model_append(&m1, f.kv, 5, 90, NULL), WN_OK);
    assert_int_equal(model_append(&m2, g, 6, 90, NULL), WN_OK);
    model_compare(&m1, f.kv, f.pool);
    model_compare(&m2, g, f.pool);
    wn_pool_get_stats(f.pool, &before);
    wn_kv_close(g);
    wn_pool_get_stats(f.pool, &after);
    assert_true(before.n_frames_used - after.n_frames_used > 2 * (640 + 540) / 16);
    model_compare(&m1, f.kv, f.pool);
    model_check_refs(&f.kv, 1, f.pool, 0);
    end(&f);
}

/* Masks with and without repacking read the same, in the same order (model_compare), and a
 * lane that was repacked goes on in its last page with positions of its own. */
static void tokens_go_on_after_a_repack(void **state)
{
    (void)state;
    for (int no_repack = 0; no_repack < 2; no_repack++) {
        fixture f = begin(2, 16, 600);
        for (int p = 0; p < 600; p += 3) wn_plan_drop(&f.plan, WN_ALL_LANES, p, p + 2);
        f.plan.no_repack = no_repack;
        apply(&f);
        wn_kv_stats s;
        wn_kv_get_stats(f.kv, &s);
        assert_int_equal(s.n_repacks, no_repack ? 0 : 2);
        assert_int_equal(f.kv->lanes[0].n_pages, no_repack ? 38 : 13);
        for (int i = 0; i < 40; i++) assert_int_equal(model_append(&m1, f.kv, 1, 1, NULL), WN_OK);
        model_compare(&m1, f.kv, f.pool);
        assert_int_equal(f.kv->lanes[0].n_pages, no_repack ? 40 : 15);
        end(&f);
    }
}

/* c equal keys and values become one slot with bias ln c: the row is the same to the bit
 * when the weights are powers of two, and softmax over it is the same to rounding. */
static void merging_identical_keys_is_exact(void **state)
{
    (void)state;
    fixture f = begin(1, 16, 64);
    const int32_t src[4] = { 8, 9, 10, 11 };
    const float w[4] = { 0.25f, 0.25f, 0.25f, 0.25f };
    wn_kv_stats s;
    int at;
    assert_int_equal(wn_kv_truncate(f.kv, 8, &at, NULL), WN_OK);
    model_truncate(&m1, 8);
    float k[MODEL_DIM], v[MODEL_DIM];
    model_row(k, v, 1, 0, 8);
    assert_int_equal(wn_kv_reserve(f.kv, 4, NULL), WN_OK);
    wn_kv_put(f.kv, 0, 8, k, 0, v, 0, 4);               /* stride 0: one row four times */
    wn_kv_commit(f.kv, 4);
    f.plan.n_tokens = 12;
    wn_plan_merge_slots(&f.plan, 0, 11, src, w, w, 4, logf(4.0f), 4);
    assert_int_equal(wn_kv_apply(f.kv, &f.plan, NULL), WN_OK);
    wn_kv_get_stats(f.kv, &s);
    assert_int_equal(s.slots, 9);
    wn_run_iter it;
    wn_run r, last = { 0 };
    wn_runs_begin(&it, f.kv, 0, 0, 12);
    while (wn_runs_next(&it, &r)) last = r;
    assert_true(last.merged && last.n == 1 && last.pos[0] == 11 && last.count[0] == 4);
    assert_true(last.bias[0] == logf(4.0f));
    float got[MODEL_DIM];
    test_f32.get_k(last.k, 16, last.first, got, f.o.map->lanes[0].k_dim);
    assert_memory_equal(got, k, (size_t)f.o.map->lanes[0].k_dim * 4);
    test_f32.get_v(last.v, 16, last.first, got, f.o.map->lanes[0].v_dim);
    assert_memory_equal(got, v, (size_t)f.o.map->lanes[0].v_dim * 4);
    end(&f);
}

static void refused(fixture *f, const char *why)
{
    wn_err err;
    assert_int_equal(f->plan.status, WN_OK);
    assert_int_equal(wn_kv_apply(f->kv, &f->plan, &err), WN_EINVAL);
    if (!strstr(err.text, why)) fail_msg("'%s' does not say '%s'", err.text, why);
    model_compare(&m1, f->kv, f->pool);
    wn_plan_clear(&f->plan);
}

/* A bad plan changes nothing and the sentence names lane and position. */
enum { WIDE = 64 };

/* What q4h says of the encoded K and V of every slot, in place or once demoted. */
static int high_planes(const wn_kv *kv, bool low, float rows[][2][WIDE])
{
    wn_run_iter it;
    wn_run run;
    int n = 0;
    wn_runs_begin(&it, kv, 0, 0, wn_kv_n(kv));
    while (wn_runs_next(&it, &run)) {
        if (run.low != low || !run.k_sealed || !run.v_sealed) continue;
        for (uint64_t left = run.keep; left; left &= left - 1, n++) {
            int s = __builtin_ctzll(left), pos = run.pos ? run.pos[s] : run.pos0 + s;
            wn_format_q4h.get_k(run.k_sealed, wn_kv_page_slots(kv), run.first + s, rows[pos][0],
                                WIDE);
            wn_format_q4h.get_v(run.v_sealed, wn_kv_page_slots(kv), run.first + s, rows[pos][1],
                                WIDE);
        }
    }
    return n;
}

/* A slot demoted from q44 to q4h is its high plane, bit for bit: encoded anew it would be another,
 * because rows are turned back and forth. Slots of pages that are raw still are encoded. */
static void what_is_demoted_leaves_its_low_plane_behind(void **state)
{
    (void)state;
    enum { P = 16, N = 20 * P };
    static float before[N][2][WIDE], after[N][2][WIDE], rows[N][WIDE];
    static const wn_lane_formats formats = { &wn_format_q44, &wn_format_q44, &wn_format_q4h,
                                             &wn_format_q4h };
    static const int first[] = { 0, 1 };
    static const wn_lane lane = { .k_dim = WIDE, .v_dim = WIDE };
    static const wn_lane_map map = { .lanes = &lane, .n_lanes = 1, .n_layers = 1, .first = first };
    uint64_t rng = 4;
    int32_t low[N];
    int n_low = 0;
    wn_err err;
    fixture f = { 0 };
    assert_int_equal(wn_pool_open(&f.pool, &(wn_pool_opts){ .bytes = 16 << 20 }, NULL), WN_OK);
    f.o = (wn_kv_opts){ .pool = f.pool, .map = &map, .formats = &formats, .page_slots = P,
                        .max_positions = N };
    if (wn_kv_open(&f.kv, &f.o, &err)) fail_msg("%s", err.text);
    for (int p = 0; p < N; p++)
        for (int d = 0; d < WIDE; d++) rows[p][d] = test_randf(&rng);
    for (int p = 0; p < N; p += 2 * P) {
        assert_int_equal(wn_kv_reserve(f.kv, 2 * P, &err), WN_OK);
        wn_kv_put(f.kv, 0, p, rows[p], WIDE, rows[p], WIDE, 2 * P);
        wn_kv_commit(f.kv, 2 * P);
    }
    int sealed = high_planes(f.kv, false, before);
    assert_in_range(sealed, N - 4 * P, N - P);
    wn_plan_init(&f.plan, N, 1);
    for (int p = 0; p < N; p += p % 3 + 1) low[n_low++] = p;
    wn_plan_demote(&f.plan, 0, low, n_low);
    if (wn_kv_apply(f.kv, &f.plan, &err)) fail_msg("%s", err.text);
    assert_int_equal(high_planes(f.kv, true, after), n_low);
    for (int i = 0; i < n_low; i++)
        if (low[i] < sealed) assert_memory_equal(after[low[i]], before[low[i]], sizeof before[0]);
    end(&f);
}

static void bad_plans_are_refused(void **state)
{
    (void)state;
    const int32_t src[2] = { 7, 9 };
    const float w[2] = { 1, 1 }, bad[2] = { 1, NAN };
    fixture f = begin(2, 16, 200);
    wn_plan_drop(&f.plan, 1, 9, 10);
    wn_plan_shift(&f.plan, 1, 0, 50, 3);
    wn_plan_set_bias(&f.plan, 0, 50, -1.0f);
    apply(&f);
    wn_plan_drop(&f.plan, 0, 0, 100);                   /* would be fine; the rest is not */
    wn_plan_merge_slots(&f.plan, 1, 7, src, w, w, 2, 0, 2);
    refused(&f, "lane 1: source 9 of the merge at 7 is not live");
    wn_plan_merge_slots(&f.plan, 0, 8, src, w, w, 2, 0, 2);
    refused(&f, "lane 0: a merge at position 8, whose own slot stays");
    wn_plan_merge_slots(&f.plan, 0, 7, src, w, w, 2, 0, 2);
    wn_plan_merge_slots(&f.plan, 0, 7, src + 1, w, w, 1, 0, 1);
    refused(&f, "lane 0: two merges at position 7");
    wn_plan_merge_slots(&f.plan, 0, 7, src, w, bad, 2, 0, 2);
    refused(&f, "weights position 9");
    wn_plan_merge_slots(&f.plan, 0, 7, src, w, w, 2, INFINITY, 2);
    refused(&f, "the merge at 7 has bias");
    wn_plan_set_bias(&f.plan, 1, 9, 1.0f);
    refused(&f, "position 9, which is not live");
    wn_plan_set_bias(&f.plan, 1, 10, NAN);
    refused(&f, "bias of nan");
    for (int i = 0; i < 8; i++) wn_plan_shift(&f.plan, 0, 10 * i, 10 * i + 10, 1 + i);
    refused(&f, "lane 0: more than 8 different shifts");
    for (int i = 0; i < 80; i++) wn_plan_shift(&f.plan, 0, 2 * i, 2 * i + 1, 1);
    refused(&f, "lane 0: more than 64 ranges");
    f.plan.n_tokens = 199;
    refused(&f, "199 positions");
    f.plan.n_tokens = 200;
    for (int i = 0; i < 7; i++) wn_plan_shift(&f.plan, 0, 10 * i, 10 * i + 10, 1 + i);
    apply(&f);                                          /* 7 and the 0 are 8 */
    int32_t shifts[WN_SHIFTS_MAX];
    assert_int_equal(wn_kv_shifts(f.kv, 0, shifts), 8);
    assert_int_equal(shifts[0], 0);
    assert_int_equal(wn_kv_shifts(f.kv, 1, shifts), 2);
    end(&f);
}

/* ---- reading bytes that someone changed ------------------------------------------------------ */

typedef struct { unsigned char *at; size_t n, cap; } bytes;

static wn_status write_bytes(void *ctx, const void *data, size_t n, wn_err *err)
{
    bytes *b = ctx;
    if (n > b->cap - b->n) return wn_fail(err, WN_EIO, "no room");
    memcpy(b->at + b->n, data, n);
    b->n += n;
    return WN_OK;
}

static wn_status read_bytes(void *ctx, void *data, size_t n, wn_err *err)
{
    bytes *b = ctx;
    if (n > b->cap - b->n) return wn_fail(err, WN_EFORMAT, "the bytes end early");
    memcpy(data, b->at + b->n, n);
    b->n += n;
    return WN_OK;
}

/* Whatever was read must be a sequence that can go on: more rows, a decision, a fork. */
static void use(wn_kv *kv, wn_pool *pool)
{
    wn_plan plan;
    wn_kv *g;
    float row[MODEL_DIM] = { 0 };
    int at;
    wn_kv_check(kv);
    if (wn_kv_fork(&g, kv, 0, NULL) == WN_OK) wn_kv_close(g);
    int room = WN_MIN(50, MODEL_MAX - wn_kv_n(kv));
    if (wn_kv_reserve(kv, room, NULL) == WN_OK) {
        for (int l = 0; l < wn_kv_map(kv)->n_lanes; l++)
            wn_kv_put(kv, l, wn_kv_n(kv), row, 0, row, 0, room);
        wn_kv_commit(kv, room);
    }
    wn_kv_check(kv);
    wn_plan_init(&plan, wn_kv_n(kv), wn_kv_map(kv)->n_lanes);
    for (int p = 0; p < wn_kv_n(kv); p += 3) wn_plan_drop(&plan, WN_ALL_LANES, p, p + 2);
    wn_status st = wn_kv_apply(kv, &plan, NULL);
    assert_true(st == WN_OK || st == WN_EFULL);
    wn_plan_release(&plan);
    wn_kv_check(kv);
    wn_pool_check(pool);
    if (wn_kv_n(kv) > 10) assert_int_equal(wn_kv_truncate(kv, wn_kv_n(kv) - 10, &at, NULL), WN_OK);
    wn_kv_check(kv);
}

/* Loads `src`; on success uses the result. Afterwards nothing is left in the pool. */
static bool load(const wn_kv_opts *o, bytes src)
{
    wn_kv *kv;
    wn_err err = { 0 };
    wn_pool_stats s, after;
    wn_pool_get_stats(o->pool, &s);
    assert_int_equal(wn_kv_open(&kv, o, NULL), WN_OK);
    wn_status st = wn_kv_load(kv, (wn_source){ read_bytes, &src }, &err);
    if (st) {
        assert_true(err.text[0]);
        assert_int_equal(wn_kv_n(kv), 0);
        wn_pool_get_stats(o->pool, &after);
        assert_int_equal(after.bytes_used, s.bytes_used);
        wn_kv_check(kv);
    } else use(kv, o->pool);
    wn_kv_close(kv);
    wn_pool_get_stats(o->pool, &after);
    assert_int_equal(after.bytes_used, s.bytes_used);
    return !st;
}

static void changed_bytes_are_refused_or_usable(void **state)
{
    (void)state;
    static unsigned char buffer[4 << 20], copy[4 << 20];
    const wn_format *formats[2] = { &test_f32, &test_copy_lag1 };
    int n_loaded = 0, n_refused = 0;
    for (int i = 0; i < 2; i++) {
        wn_pool *pool;
        uint64_t rng = 7 + (uint64_t)i;
        assert_int_equal(wn_pool_open(&pool, &(wn_pool_opts){ .bytes = 16 << 20 }, NULL), WN_OK);
        wn_kv_opts o = { .pool = pool, .map = model_map(4, 30), .k_format = formats[i],
                         .v_format = formats[i], .raw_format = &test_f32, .page_slots = 4,
                         .max_positions = MODEL_MAX, .ring_rows = 8, .q_dim = 2 };
        wn_kv *kv;
        assert_int_equal(wn_kv_open(&kv, &o, NULL), WN_OK);
        model_init(&m1, o.map, 4);
        assert_int_equal(model_append(&m1, kv, 1, 70, NULL), WN_OK);
        wn_plan plan;
        const int32_t src[2] = { 40, 41 };
        const float w[2] = { 0.5f, 0.5f };
        wn_plan_init(&plan, 70, 4);
        for (int p = 0; p < 40; p += 2) wn_plan_drop(&plan, 1, p, p + 1);
        wn_plan_merge_slots(&plan, 1, 41, src, w, w, 2, 0.7f, 2);
        wn_plan_set_bias(&plan, 1, 51, 0.5f);
        wn_plan_shift(&plan, 1, 0, 20, 9);
        assert_int_equal(wn_kv_apply(kv, &plan, NULL), WN_OK);
        wn_plan_release(&plan);
        assert_int_equal(wn_kv_reserve(kv, 3, NULL), WN_OK);
        wn_kv_commit(kv, 3);
        bytes b = { buffer, 0, sizeof buffer };
        assert_int_equal(wn_kv_save(kv, (wn_sink){ write_bytes, &b }, NULL), WN_OK);
        assert_true(load(&o, (bytes){ buffer, 0, b.n }));
        for (int t = 0; t < 300; t++) {                 /* cut short */
            size_t n = test_rand(&rng) % b.n;
            assert_false(load(&o, (bytes){ buffer, 0, n }));
        }
        for (int t = 0; t < 6000; t++) {                /* one to three fields changed */
            memcpy(copy, buffer, b.n);
            for (int x = (int)(test_rand(&rng) % 3); x >= 0; x--) {
                size_t at = test_rand(&rng) % (t % 2 ? b.n : 400);
                if (test_rand(&rng) % 2)
                    copy[at] = (unsigned char)(copy[at] ^ 1 << test_rand(&rng) % 8);
                else copy[at] = (unsigned char)test_rand(&rng);
            }
            bool ok = load(&o, (bytes){ copy, 0, b.n });
            n_loaded += ok;
            n_refused += !ok;
        }
        wn_kv_close(kv);
        wn_pool_close(pool);
    }
    printf("%d changed streams loaded, %d refused\n", n_loaded, n_refused);
    assert_true(n_loaded > 0 && n_refused > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_quarter_of_the_slots_is_a_quarter_of_the_pages),
        cmocka_unit_test(pages_that_cannot_be_repacked_do_not_pile_up),
        cmocka_unit_test(an_empty_plan_changes_nothing),
        cmocka_unit_test(a_shared_text_is_not_touched),
        cmocka_unit_test(tokens_go_on_after_a_repack),
        cmocka_unit_test(merging_identical_keys_is_exact),
        cmocka_unit_test(what_is_demoted_leaves_its_low_plane_behind),
        cmocka_unit_test(bad_plans_are_refused),
        cmocka_unit_test(changed_bytes_are_refused_or_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
