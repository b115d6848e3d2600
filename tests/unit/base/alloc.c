/* The door to malloc: planned failures fire once, and the arena hands out aligned,
 * separate blocks and takes them back in one move. */
#include "tests/unit/check.h"

#include "base/alloc.h"
#include "base/arena.h"

static void planned_failure_fires_once(void **state)
{
    (void)state;
    wn_fault_alloc(2);
    void *a = wn_alloc(8), *b = wn_alloc(8), *c = wn_alloc(8);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    assert_true(wn_fault_clear());
    wn_free(a);
    wn_free(c);
}

static void calloc_overflow_is_refused(void **state)
{
    (void)state;
    volatile size_t huge = SIZE_MAX / 2;
    assert_null(wn_calloc(huge, 4));
}

static void arena_blocks_are_apart_and_come_back(void **state)
{
    (void)state;
    wn_arena a;
    assert_int_equal(wn_arena_init(&a, 1 << 16, false, NULL), WN_OK);
    wn_mark m = wn_arena_mark(&a);
    float *x = wn_arena_array(&a, float, 5), *y = wn_arena_array(&a, float, 5);
    assert_int_equal((uintptr_t)x % 64, 0);
    assert_int_equal((uintptr_t)y % 64, 0);
    assert_true(y >= x + 5);
    wn_arena_rewind(&a, m);
    assert_ptr_equal(wn_arena_array(&a, float, 5), x);
    wn_arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planned_failure_fires_once),
        cmocka_unit_test(calloc_overflow_is_refused),
        cmocka_unit_test(arena_blocks_are_apart_and_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
