/* `winnow run --trace`, `winnow replay` and `winnow run --explain` as a user types them. */
#include "tests/support/shell.h"
#include "tests/unit/check.h"

#include <jansson.h>

#define RUN                                                                                        \
    "./winnow run -q -m models/winnow-demo.gguf -f data/eval/README.md -p ' the end' -n 4 --temp " \
    "0 "
static char dir[] = "/tmp/winnow-replay-XXXXXX";

static void the_recorded_policy_agrees_with_itself(void **state)
{
    (void)state;
    assert_int_equal(sh(RUN "--kv 'snapkv(every=128,at=both)@25%%' --trace %s/t", dir), 0);
    assert_int_equal(sh("./winnow replay %s/t", dir), 0);
    says("every plan is the recorded one");
    assert_int_equal(sh("./winnow replay %s/t --json", dir), 0);
    json_t *j = json_loads(out, 0, NULL);
    assert_true(json_is_true(json_object_get(j, "same")));
    assert_true(json_integer_value(json_object_get(j, "decisions")) > 3);
    json_decref(j);
}

static void other_policies_are_put_beside_it(void **state)
{
    (void)state;
    assert_int_equal(sh(RUN "--kv 'snapkv(every=128,at=boundary)@25%%' --trace %s/t --trace-rows",
                        dir),
                     0);
    assert_int_equal(sh("./winnow replay %s/t --json --kv 'snapkv@25%%,keydiff@25%%,k=f16' --kv "
                        "'random(seed=3)@50%%'",
                        dir),
                     0);
    json_t *j = json_loads(out, 0, NULL), *rows = json_object_get(j, "policies"), *all;
    assert_int_equal(json_array_size(rows), 3);
    double agreement[3], kept[3];
    for (size_t i = 0; i < 3; i++) {
        all = json_object_get(json_array_get(rows, i), "all");
        agreement[i] = json_number_value(json_object_get(all, "agreement"));
        kept[i] = json_number_value(json_object_get(all, "of_full"));
        assert_true(json_number_value(json_object_get(all, "attention")) > 0);
    }
    assert_true(agreement[0] == 1 && agreement[1] < 1 && agreement[2] < 1);
    assert_true(kept[0] > 0.24 && kept[0] < 0.26 && kept[2] > kept[0]);
    json_decref(j);
    assert_int_equal(sh("./winnow replay %s/t --kv random@25%%", dir), 0);
    says("not those that its own evictions would have led to");
}

static void what_cannot_be_replayed_is_said(void **state)
{
    (void)state;
    assert_int_equal(sh(RUN "--kv 'random(every=128)@25%%' --trace %s/t", dir), 0);
    assert_int_equal(sh("./winnow replay %s/t --kv keydiff@25%% 2>&1", dir), 1);
    says("keydiff asks for keys");
    says("--trace-rows");
    assert_int_equal(sh("head -c -100 %s/t > %s/torn; ./winnow replay %s/torn 2>&1", dir, dir, dir),
                     0);
    says("ends within a decision");
    says("every plan is the recorded one");
    assert_int_equal(sh("head -c 3000 %s/t > %s/bad; printf x >> %s/bad; tail -c +3002 %s/t >> "
                        "%s/bad; ./winnow replay %s/bad 2>&1",
                        dir, dir, dir, dir, dir, dir),
                     1);
    says("damaged");
    assert_int_equal(sh("./winnow replay README.md 2>&1"), 1);
    says("not a winnow trace");
    assert_int_equal(sh("./winnow replay 2>&1"), 2);
    assert_int_equal(sh("./winnow replay %s/t --kv nonsense 2>&1", dir), 1);
    says("there is no cache policy");
    assert_int_equal(sh(RUN "--trace %s/t 2>&1", dir), 1);
    says("takes no decisions");
    assert_int_equal(sh(RUN "--kv random@25%% --trace-rows 2>&1"), 2);
}

static void ranges_are_explained(void **state)
{
    (void)state;
    /* decisions at 64, 128 ..: the window of 100 leaves position 10 out for the first time at
     * 128 */
    assert_int_equal(sh(RUN "--kv 'recent(sinks=4,window=100,every=64)' --explain 10-12 2>&1"), 0);
    says("at 128     recent: dropped 36 of 36 slots");
    says("layers 0-5 all heads");
    says("0 of 36 slots are held");
    assert_int_equal(sh(RUN "--kv 'recent(sinks=4,window=100,every=64)' --explain 3 2>&1"), 0);
    says("nothing was dropped of it");
    assert_int_equal(
        sh("./winnow run -q -m models/winnow-demo.gguf -n 8 "
           "-p 'Once upon a time there was a silver key in the old garden behind the house' "
           "--kv 'random(every=4)@25%%' --explain 'silver key' 2>&1"),
        0);
    says("random: dropped");
    says("rank");
    assert_int_equal(sh(RUN "--kv random@25%% --explain 'no such words' 2>&1"), 1);
    says("no such words");
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_recorded_policy_agrees_with_itself),
        cmocka_unit_test(other_policies_are_put_beside_it),
        cmocka_unit_test(what_cannot_be_replayed_is_said),
        cmocka_unit_test(ranges_are_explained),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    sh("rm -rf %s", dir);
    return rc;
}
