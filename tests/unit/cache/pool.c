/* The pool hands out frames, counts their references, and gets everything back. */
#include "tests/unit/check.h"

#include "base/alloc.h"
#include "cache/pool.h"

static wn_pool *pool_of(size_t extents)
{
    wn_pool *p;
    assert_int_equal(wn_pool_open(&p, &(wn_pool_opts){ .bytes = extents * WN_EXTENT_BYTES }, NULL),
                     WN_OK);
    return p;
}

static void open_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int n = 1, fired = 1; fired; n++) {
        wn_pool *p;
        wn_fault_alloc(n);
        wn_status st = wn_pool_open(&p, &(wn_pool_opts){ .bytes = 4 << 20 }, NULL);
        fired = wn_fault_clear();
        assert_int_equal(st, fired ? WN_ENOMEM : WN_OK);
        wn_pool_close(p);
    }
    wn_err err;
    wn_pool *p;
    assert_int_equal(wn_pool_open(&p, &(wn_pool_opts){ .bytes = 0 }, &err), WN_EINVAL);
    assert_int_equal(wn_pool_open(&p, &(wn_pool_opts){ .bytes = SIZE_MAX }, &err), WN_ELIMIT);
}

/* A frame size is a class; sizes round up to 64; too large or too many are refused. */
static void classes_are_sizes(void **state)
{
    (void)state;
    wn_pool *p = pool_of(1);
    int a = wn_pool_class(p, 100);
    assert_int_equal(wn_pool_class(p, 128), a);
    assert_int_not_equal(wn_pool_class(p, 129), a);
    assert_int_equal(wn_pool_class(p, WN_EXTENT_BYTES + 1), -1);
    for (size_t i = 2; i < WN_POOL_CLASSES; i++) assert_true(wn_pool_class(p, 1024 * i) >= 0);
    assert_int_equal(wn_pool_class(p, 1 << 20), -1);
    wn_pool_close(p);
}

/* The bytes of two frames never overlap, nor do they touch the counts at the end of an
 * extent of small frames: every frame is filled with its id and read back at the end. */
static void frames_do_not_overlap(void **state)
{
    (void)state;
    const size_t sizes[] = { 64, 192, 8128, 8192, 65536, 1 << 20, WN_EXTENT_BYTES };
    for (size_t z = 0; z < sizeof sizes / sizeof *sizes; z++) {
        wn_pool *p = pool_of(3);
        int c = wn_pool_class(p, sizes[z]);
        static wn_frame_id f[100000];
        uint32_t n = 0;
        while (wn_pool_take(p, c, &f[n]) == WN_OK) {
            assert_int_equal(wn_pool_frame_bytes(p, f[n]), sizes[z]);
            memset(wn_pool_addr(p, f[n]), (int)(n % 251), sizes[z]);
            n++;
        }
        assert_false(wn_frame_ok(f[n]));
        assert_true(n >= 3 * (WN_EXTENT_BYTES / (sizes[z] + 4)));
        wn_pool_check(p);
        for (uint32_t i = 0; i < n; i++) {
            const unsigned char *b = wn_pool_addr(p, f[i]);
            assert_int_equal(b[0], i % 251);
            assert_int_equal(b[sizes[z] - 1], i % 251);
            assert_int_equal(wn_pool_refs(p, f[i]), 1);
        }
        for (uint32_t i = 0; i < n; i++) wn_pool_drop(p, f[i]);
        wn_pool_stats s;
        wn_pool_get_stats(p, &s);
        assert_int_equal(s.bytes_used, 0);
        assert_int_equal(s.n_extents_used, 0);
        assert_int_equal(s.bytes_peak, n * sizes[z]);
        wn_pool_close(p);
    }
}

/* A page of all lanes taken in one go lies in a row. */
static void fresh_frames_are_contiguous(void **state)
{
    (void)state;
    wn_pool *p = pool_of(2);
    int c = wn_pool_class(p, 16384);
    wn_frame_id a, b;
    wn_pool_take(p, c, &a);
    for (int i = 1; i < 100; i++) {
        wn_pool_take(p, c, &b);
        assert_ptr_equal((char *)wn_pool_addr(p, a) + 16384, wn_pool_addr(p, b));
        a = b;
    }
    wn_pool_close(p);
}

/* An extent that empties can serve another size; the lowest extents are filled first. */
static void empty_extents_change_class(void **state)
{
    (void)state;
    wn_pool *p = pool_of(2);
    int big = wn_pool_class(p, 1 << 20), small = wn_pool_class(p, 4096);
    wn_frame_id f[4], g;
    for (int i = 0; i < 4; i++) assert_int_equal(wn_pool_take(p, big, &f[i]), WN_OK);
    assert_int_equal(wn_pool_take(p, small, &g), WN_EFULL);
    uint32_t need[WN_POOL_CLASSES] = { 0 };
    need[small] = 1;
    assert_false(wn_pool_fits(p, need));
    wn_pool_drop(p, f[0]);
    assert_false(wn_pool_fits(p, need));
    wn_pool_drop(p, f[1]);
    assert_true(wn_pool_fits(p, need));
    need[small] = 511;                                  /* one frame of room goes to the counts */
    assert_true(wn_pool_fits(p, need));
    need[small] = 512;
    assert_false(wn_pool_fits(p, need));
    assert_int_equal(wn_pool_take(p, small, &g), WN_OK);
    wn_pool_check(p);
    wn_pool_drop(p, f[2]);
    assert_int_equal(wn_pool_take(p, big, &f[2]), WN_OK);
    wn_pool_check(p);
    wn_pool_drop(p, g);
    wn_pool_drop(p, f[2]);
    wn_pool_drop(p, f[3]);
    wn_pool_trim(p);
    wn_pool_check(p);
    wn_pool_close(p);
}

/* Random taking, sharing and dropping against a plain table of counts; fits() is right
 * about what can be taken. */
static void random_use_agrees_with_a_table(void **state)
{
    (void)state;
    enum { N = 3000, SIZES = 4 };
    static struct { wn_frame_id f; uint32_t refs; int cls; } t[N];
    const size_t size[SIZES] = { 64, 4096, 16384, 700000 };
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t rng = seed;
        wn_pool *p = pool_of(1 + test_rand(&rng) % 20);
        int cls[SIZES];
        memset(t, 0, sizeof t);
        for (int c = 0; c < SIZES; c++) cls[c] = wn_pool_class(p, size[c]);
        for (int op = 0; op < 6000; op++) {
            int i = (int)(test_rand(&rng) % N),
                what = (int)(test_rand(&rng) % (op / 1000 % 2 ? 8 : 3));
            if (!t[i].refs) {
                t[i].cls = (int)(test_rand(&rng) % SIZES);
                uint32_t need[WN_POOL_CLASSES] = { 0 };
                need[cls[t[i].cls]] = 1;
                bool fits = wn_pool_fits(p, need);
                assert_int_equal(wn_pool_take(p, cls[t[i].cls], &t[i].f), fits ? WN_OK : WN_EFULL);
                t[i].refs = fits;
            } else if (what == 0) {
                wn_pool_ref(p, t[i].f);
                t[i].refs++;
            } else {
                wn_pool_drop(p, t[i].f);
                t[i].refs--;
            }
            if (op % 97 == 0) wn_pool_check(p);
        }
        size_t used = 0;
        for (int i = 0; i < N; i++) {
            if (!t[i].refs) continue;
            assert_int_equal(wn_pool_refs(p, t[i].f), t[i].refs);
            used += size[t[i].cls] == 700000 ? 700032 : size[t[i].cls];
        }
        wn_pool_stats s;
        wn_pool_get_stats(p, &s);
        assert_int_equal(s.bytes_used, used);
        for (int i = 0; i < N; i++)
            while (t[i].refs) wn_pool_drop(p, t[i].f), t[i].refs--;
        wn_pool_get_stats(p, &s);
        assert_int_equal(s.bytes_used + s.n_extents_used + s.n_frames_used, 0);
        wn_pool_check(p);
        wn_pool_close(p);
    }
}

/* A pool of 100 GB costs little until it is used, and using it does not allocate. */
static void a_large_pool_has_small_tables(void **state)
{
    (void)state;
    wn_pool *p = pool_of(51200);
    wn_frame_id f;
    wn_alloc_forbid(true);
    assert_int_equal(wn_pool_take(p, wn_pool_class(p, 16384), &f), WN_OK);
    wn_pool_drop(p, f);
    wn_alloc_forbid(false);
    wn_pool_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_survives_every_failed_allocation),
        cmocka_unit_test(classes_are_sizes),
        cmocka_unit_test(frames_do_not_overlap),
        cmocka_unit_test(fresh_frames_are_contiguous),
        cmocka_unit_test(empty_extents_change_class),
        cmocka_unit_test(random_use_agrees_with_a_table),
        cmocka_unit_test(a_large_pool_has_small_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
