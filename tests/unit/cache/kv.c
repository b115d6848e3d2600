/* A sequence no decision has touched: appending, forking, truncating, sealing, and what
 * is held at each moment. Compared slot by slot with plain arrays (tests/support). */
#include "tests/unit/check.h"
#include "tests/support/kv_model.h"
#include "tests/support/test_formats.h"

#include "base/alloc.h"
#include "cache/kv_int.h"

static model m1, m2;

static wn_pool *pool_of(size_t extents)
{
    wn_pool *p;
    assert_int_equal(wn_pool_open(&p, &(wn_pool_opts){ .bytes = extents * WN_EXTENT_BYTES }, NULL),
                     WN_OK);
    return p;
}

static void pool_is_empty(wn_pool *p)
{
    wn_pool_stats s;
    wn_pool_get_stats(p, &s);
    assert_int_equal(s.bytes_used, 0);
    wn_pool_check(p);
}

static wn_kv_opts opts(wn_pool *pool, const wn_lane_map *map, const wn_format *f, int P)
{
    return (wn_kv_opts){ .pool = pool, .map = map, .k_format = f, .v_format = f,
                         .raw_format = &test_f32, .page_slots = P, .max_positions = MODEL_MAX };
}

static wn_kv *kv_open(const wn_kv_opts *o)
{
    wn_kv *kv;
    wn_err err;
    if (wn_kv_open(&kv, o, &err)) fail_msg("%s", err.text);
    return kv;
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    wn_pool *pool = pool_of(1);
    wn_kv *kv;
    wn_err err;
    wn_kv_opts o = opts(pool, model_map(3, 0), &test_f32, 4), bad;
    bad = o, bad.page_slots = 5;
    assert_int_equal(wn_kv_open(&kv, &bad, &err), WN_EINVAL);
    assert_null(kv);
    bad = o, bad.page_slots = 128;
    assert_int_equal(wn_kv_open(&kv, &bad, &err), WN_EINVAL);
    bad = o, bad.max_positions = 0;
    assert_int_equal(wn_kv_open(&kv, &bad, &err), WN_EINVAL);
    bad = o, bad.raw_format = &test_copy_lag1;
    assert_int_equal(wn_kv_open(&kv, &bad, &err), WN_EINVAL);
    kv = kv_open(&o);
    assert_int_equal(wn_kv_reserve(kv, MODEL_MAX + 1, &err), WN_ELIMIT);
    wn_kv_close(kv);
    pool_is_empty(pool);
    wn_pool_close(pool);
}

/* Appending in chunks of any size gives the same runs, and the figures that kv.h's
 * formulas predict. */
static void chunks_do_not_matter(void **state)
{
    (void)state;
    for (int P = 4; P <= 64; P *= 4) {
        wn_pool *pool = pool_of(8);
        wn_kv_opts o = opts(pool, model_map(4, 0), &test_f32, P);
        uint64_t seed = (uint64_t)P;
        wn_kv *kv = kv_open(&o);
        model_init(&m1, o.map, P);
        while (m1.n < 1300) {
            assert_int_equal(model_append(&m1, kv, 1, 1 + (int)(test_rand(&seed) % 200), &seed),
                             WN_OK);
            wn_kv_stats s;
            wn_kv_get_stats(kv, &s);
            assert_int_equal(s.bytes, (size_t)wn_pages_of(m1.n, P) * wn_kv_bytes_per_page(&o));
            assert_int_equal(s.slots, 4 * (size_t)m1.n);
            assert_int_equal(s.slots_full, 4 * (size_t)m1.n);
        }
        model_compare(&m1, kv, pool);
        model_check_refs(&kv, 1, pool, 0);
        uint32_t need[WN_POOL_CLASSES];
        wn_pool_stats s;
        uint32_t frames = 0;
        assert_int_equal(wn_kv_frames_for(&o, &(wn_kv_hold){ .n = m1.n }, need, NULL), WN_OK);
        for (int c = 0; c < WN_POOL_CLASSES; c++) frames += need[c];
        wn_pool_get_stats(pool, &s);
        assert_int_equal(s.n_frames_used, frames);
        wn_kv_close(kv);
        pool_is_empty(pool);
        wn_pool_close(pool);
    }
}

/* Reserving is all or nothing; what is not committed can be given back. */
static void reserve_takes_all_or_nothing(void **state)
{
    (void)state;
    wn_pool *pool = pool_of(4);
    wn_kv_opts o = opts(pool, model_map(5, 0), &test_f32, 64);
    wn_kv *kv = kv_open(&o);
    wn_pool_stats a, b;
    wn_err err;
    model_init(&m1, o.map, 64);
    assert_int_equal(model_append(&m1, kv, 1, 100, NULL), WN_OK);
    /* Someone else takes all but 20 frames of one size. */
    static wn_frame_id hog[20000];
    int c = wn_pool_class(pool, test_f32.k_bytes(64, MODEL_DIM)), n = 0;
    while (wn_pool_take(pool, c, &hog[n]) == WN_OK) n++;
    for (int i = 0; i < 20; i++) wn_pool_drop(pool, hog[--n]);
    int room = 0;
    while (wn_kv_reserve(kv, room + 1, &err) == WN_OK) {
        room++;
        wn_kv_check(kv);
        assert_true(room < MODEL_MAX - 100);
    }
    wn_pool_get_stats(pool, &a);
    assert_int_equal(wn_kv_reserve(kv, room + 64, &err), WN_EFULL);
    wn_kv_check(kv);
    wn_pool_get_stats(pool, &b);
    assert_int_equal(a.bytes_used, b.bytes_used);
    assert_true(room > 64);
    assert_int_equal(wn_kv_reserve(kv, 0, &err), WN_OK);
    model_compare(&m1, kv, pool);
    while (n) wn_pool_drop(pool, hog[--n]);
    wn_kv_close(kv);
    pool_is_empty(pool);
    wn_pool_close(pool);
}

/* A fork shares every full page with one count per span: the frames' own counts are not
 * touched. What either writes afterwards is its own. */
static void fork_touches_no_frame_of_full_pages(void **state)
{
    (void)state;
    wn_pool *pool = pool_of(16);
    wn_kv_opts o = opts(pool, model_map(5, 0), &test_f32, 16);
    wn_kv *kv = kv_open(&o), *f;
    model_init(&m1, o.map, 16);
    assert_int_equal(model_append(&m1, kv, 1, 1000, NULL), WN_OK);
    wn_pool_stats before, after;
    wn_pool_get_stats(pool, &before);
    assert_int_equal(wn_kv_fork(&f, kv, 0, NULL), WN_OK);
    wn_pool_get_stats(pool, &after);
    assert_int_equal(after.n_frames_used - before.n_frames_used, 1 + 2 * 5);    /* the open page */
    for (int j = 0; j < kv->n_spans; j++) {
        assert_int_equal(wn_pool_refs(pool, kv->spans[j]), j < kv->n_spans - 1 ? 2 : 1);
        for (int l = 0; l < 5; l++)
            assert_int_equal(wn_pool_refs(pool, wn_span_lane(kv, j, l)[0]), 1);
    }
    m2 = m1;
    assert_int_equal(model_append(&m1, kv, 2, 50, NULL), WN_OK);
    assert_int_equal(model_append(&m2, f, 3, 70, NULL), WN_OK);
    model_compare(&m1, kv, pool);
    model_compare(&m2, f, pool);
    model_check_refs((wn_kv *[]){ kv, f }, 2, pool, 0);
    wn_kv_close(kv);
    model_compare(&m2, f, pool);
    wn_kv_close(f);
    pool_is_empty(pool);
    wn_pool_close(pool);
}

/* Truncating into a shared page: what is written there next must not be seen by the other. */
static void truncated_shared_page_is_copied(void **state)
{
    (void)state;
    int at;
    wn_pool *pool = pool_of(4);
    wn_kv_opts o = opts(pool, model_map(3, 0), &test_f32, 16);
    wn_kv *kv = kv_open(&o), *f;
    model_init(&m1, o.map, 16);
    assert_int_equal(model_append(&m1, kv, 1, 64, NULL), WN_OK);
    assert_int_equal(wn_kv_fork(&f, kv, 0, NULL), WN_OK);
    m2 = m1;
    assert_int_equal(wn_kv_truncate(f, 37, &at, NULL), WN_OK);
    assert_int_equal(at, 37);
    model_truncate(&m2, 37);
    assert_int_equal(model_append(&m2, f, 9, 20, NULL), WN_OK);
    model_compare(&m1, kv, pool);
    model_compare(&m2, f, pool);
    assert_int_equal(wn_kv_truncate(kv, 65, &at, NULL), WN_EINVAL);
    assert_int_equal(wn_kv_truncate(kv, -1, &at, NULL), WN_EINVAL);
    wn_kv_close(f);
    wn_kv_close(kv);
    pool_is_empty(pool);
    wn_pool_close(pool);
}

static void open_and_fork_survive_failed_allocations(void **state)
{
    (void)state;
    wn_pool *pool = pool_of(2);
    wn_kv_opts o = opts(pool, model_map(3, 0), &test_f32, 4);
    wn_kv *kv = NULL, *f;
    for (int n = 1, fired = 1; fired; n++) {
        wn_kv_close(kv);
        wn_fault_alloc(n);
        wn_status st = wn_kv_open(&kv, &o, NULL);
        fired = wn_fault_clear();
        assert_int_equal(st, fired ? WN_ENOMEM : WN_OK);
    }
    model_init(&m1, o.map, 4);
    assert_int_equal(model_append(&m1, kv, 1, 30, NULL), WN_OK);
    for (int n = 1, fired = 1; fired; n++) {
        wn_fault_alloc(n);
        wn_status st = wn_kv_fork(&f, kv, 0, NULL);
        fired = wn_fault_clear();
        assert_int_equal(st, fired ? WN_ENOMEM : WN_OK);
        wn_kv_close(f);
        model_compare(&m1, kv, pool);
    }
    wn_kv_close(kv);
    pool_is_empty(pool);
    wn_pool_close(pool);
}

/* The ring: rows are where they were put, overwritten ones are not given out, and a
 * truncation by t leaves 64 - t. */
static void ring_knows_what_it_holds(void **state)
{
    (void)state;
    int at;
    wn_pool *pool = pool_of(8);
    wn_kv_opts o = opts(pool, model_map(4, 0), &test_f32, 16);
    o.ring_rows = 64;
    o.q_dim = 8;
    wn_kv *kv = kv_open(&o), *f;
    model_init(&m1, o.map, 16);
    for (int n = 0; n < 300; n += 30) {
        assert_int_equal(wn_kv_reserve(kv, 30, NULL), WN_OK);
        for (int p = n; p < n + 30; p++)
            for (int l = 0; l < 2; l++) *wn_kv_ring(kv, l, p) = (float)(p * 2 + l);
        assert_int_equal(model_append(&m1, kv, 1, 30, NULL), WN_OK);
        assert_int_equal(wn_kv_ring_valid(kv), WN_MIN(n + 30, 64));
    }
    assert_int_equal(wn_kv_truncate(kv, 290, &at, NULL), WN_OK);
    assert_int_equal(wn_kv_ring_valid(kv), 54);
    assert_null(wn_kv_ring(kv, 0, 235));
    assert_null(wn_kv_ring(kv, 0, 290));
    assert_int_equal(wn_kv_fork(&f, kv, 0, NULL), WN_OK);
    for (int p = 236; p < 290; p++) assert_true(*wn_kv_ring(f, 1, p) == (float)(p * 2 + 1));
    assert_int_equal(wn_kv_truncate(kv, 100, &at, NULL), WN_OK);
    assert_int_equal(wn_kv_ring_valid(kv), 0);
    assert_int_equal(wn_kv_reserve(kv, 200, NULL), WN_OK);
    assert_null(wn_kv_ring(kv, 0, 235));                /* would be overwritten in this pass */
    assert_non_null(wn_kv_ring(kv, 0, 236));
    wn_kv_commit(kv, 200);
    assert_int_equal(wn_kv_ring_valid(kv), 64);
    wn_kv_close(f);
    wn_kv_close(kv);
    wn_pool_close(pool);
}

/* Lanes with a window hold the pages some later query can read, and no others. */
static void window_lanes_drop_what_left(void **state)
{
    (void)state;
    for (int window = 1; window < 100; window += 7) {
        int at;
        wn_pool *pool = pool_of(4);
        wn_kv_opts o = opts(pool, model_map(3, window), &test_f32, 16);
        wn_kv *kv = kv_open(&o), *f;
        uint64_t seed = (uint64_t)window;
        model_init(&m1, o.map, 16);
        while (m1.n < 700) {
            assert_int_equal(model_append(&m1, kv, 1, 1 + (int)(test_rand(&seed) % 40), &seed),
                             WN_OK);
            model_compare(&m1, kv, pool);
            assert_true(wn_kv_n_pages(kv, 2) <= wn_pages_of(window, 16) + 1);
        }
        uint32_t need[WN_POOL_CLASSES], frames = 0;
        wn_pool_stats s;
        assert_int_equal(wn_kv_frames_for(&o, &(wn_kv_hold){ .n = m1.n }, need, NULL), WN_OK);
        for (int c = 0; c < WN_POOL_CLASSES; c++) frames += need[c];
        wn_pool_get_stats(pool, &s);
        assert_true(s.n_frames_used <= frames);
        assert_int_equal(wn_kv_fork(&f, kv, 0, NULL), WN_OK);
        model_compare(&m1, f, pool);
        m2 = m1;
        assert_int_equal(wn_kv_truncate(f, m1.n - 20, &at, NULL), WN_OK);
        assert_true(at == 0 || at == m1.n - 20);
        if (window < 16) assert_int_equal(at, 0);       /* the pages are gone */
        model_truncate(&m2, at);
        assert_int_equal(model_append(&m2, f, 1, 20, NULL), WN_OK);
        model_compare(&m2, f, pool);
        wn_kv_close(kv);
        wn_kv_close(f);
        pool_is_empty(pool);
        wn_pool_close(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(chunks_do_not_matter),
        cmocka_unit_test(reserve_takes_all_or_nothing),
        cmocka_unit_test(fork_touches_no_frame_of_full_pages),
        cmocka_unit_test(truncated_shared_page_is_copied),
        cmocka_unit_test(open_and_fork_survive_failed_allocations),
        cmocka_unit_test(ring_knows_what_it_holds),
        cmocka_unit_test(window_lanes_drop_what_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
