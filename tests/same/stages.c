/* Stages in a policy's text change nothing of the law: a recipe with stages gives the same bytes in
 * any chunks, with any threads and page size, after a fork, a truncation and a session file; and a
 * recipe with a stage gives the bytes of the recipe that does the same by itself. A decision with
 * stages that merge allocates nothing. */
#include "tests/support/law.h"
#include "tests/unit/check.h"

#include "base/alloc.h"

static void stages_keep_the_law(void **state)
{
    (void)state;
    static const char *const kv[] = {
        "snapkv(at=both,every=64)+alloc:ada+recover:nearest@25%",
        "tova(every=64)+alloc:entropy+recover:compensate@25%",
        "h2o(first=2,last=3)+alloc:density+recover:compensate@60",
        "keydiff(at=both,every=64)+alloc:ada+retain:fair+recover:nearest@25%",
    };
    static const law_way ways[] = { { .threads = 2, .chunk = 7 }, { .threads = 1, .chunk = 64,
                                      .slots = 4 },
                                    { .threads = 2, .chunk = 64, .slots = 16 } };
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        float *ref = law_reference(kv[i]);
        for (size_t k = 0; k < WN_COUNT(ways); k++) {
            law_way w = ways[k];
            w.kv = kv[i];
            law_compare(ref, w);
        }
        law_cut_at(kv[i], 257, ref);
        free(ref);
    }
}

static void a_stage_gives_the_bytes_of_its_recipe(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        { "snapkv(kernel=7,pool=max)+alloc:ada@25%", "adakv@25%" },
        { "snapkv(kernel=5,pool=avg)+alloc:pyramid@25%", "pyramidkv@25%" },
        { "h2o(first=4)+alloc:density+recover:nearest@25%", "d2o@25%" },
    };
    enum { AFTER = 333 * LAW_VOCAB };           /* logits of the token behind a mark */
    float *plain = law_reference(NULL);
    for (size_t i = 0; i < WN_COUNT(pairs); i++) {
        float *a = law_reference(pairs[i][0]), *b = law_reference(pairs[i][1]);
        test_same_logits(pairs[i][0], a, b, LAW_N, LAW_VOCAB);
        assert_memory_not_equal(a + AFTER, plain + AFTER, sizeof(float) * LAW_VOCAB);
        free(a);
        free(b);
    }
    free(plain);
}

static void merging_stages_allocate_nothing(void **state)
{
    (void)state;
    static const char *const kv[] = { "tova(every=64)+alloc:entropy+recover:compensate@25%",
                                      "snapkv(at=boundary,every=64)+recover:nearest@25%" };
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        test_engine t = test_engine_open(test_tiny_model_path(),
                                         (wn_engine_opts){ .n_threads = 2, .max_seqs = 5 });
        test_seq q = test_seq_open_kv(&t, LAW_N, kv[i]);
        q.s->opts.on_logits_ctx = &q;
        long before = wn_alloc_count();
        wn_alloc_forbid(true);
        test_seq_run(&t, &q, law_ids, LAW_N);
        wn_alloc_forbid(false);
        assert_int_equal(wn_alloc_count(), before);
        assert_true(wn_kv_live(q.s->kv, 0) < LAW_N / 2);
        test_seq_close(&q);
        test_engine_close(&t);
    }
}

int main(void)
{
    law_model = test_tiny_model_path();
    test_tokens(law_ids, LAW_N, LAW_VOCAB, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_keep_the_law),
        cmocka_unit_test(a_stage_gives_the_bytes_of_its_recipe),
        cmocka_unit_test(merging_stages_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
