/* Stages in a policy's text change nothing of the law: a recipe with stages gives the same
 * bytes in any chunks, with any threads and page size and after a session file; and a recipe
 * with a stage gives the bytes of the recipe that does the same by itself. A decision with
 * stages that merge allocates nothing. */
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include "base/alloc.h"

#include <unistd.h>

enum { N = 650, VOCAB = 320, MARK = 333 };
static int32_t ids[N];

typedef struct { int threads, chunk, slots, cut; } way;

/* Logits of all positions; with a cut the text goes through a session file there. */
static float *logits_of(const char *kv, way w)
{
    char path[128];
    wn_err err = { 0 };
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/winnow-test-stages-%ld.session", tmp ? tmp : "/tmp", (long)getpid());
    test_engine t = test_engine_open(test_tiny_model_path(), (wn_engine_opts){ .n_threads = w.threads, .n_batch = w.chunk,
                                                                               .page_slots = w.slots, .max_seqs = 5 });
    test_seq q = test_seq_open_kv(&t, N, kv);
    q.s->opts.on_logits_ctx = &q;
    if (w.cut) {
        test_seq_run(&t, &q, ids, w.cut);
        if (wn_seq_save(q.s, path, &err)) fail_msg("save: %s", err.text);
        test_seq r = test_seq_open_kv(&t, N, kv);
        r.s->opts.on_logits_ctx = &r;
        if (wn_seq_load(r.s, path, &err)) fail_msg("load: %s", err.text);
        memcpy(r.logits, q.logits, sizeof(float) * VOCAB * (size_t)w.cut);
        unlink(path);
        test_seq_close(&q);
        q = r;
        q.s->opts.on_logits_ctx = &q;
    }
    test_seq_run(&t, &q, ids + w.cut, MARK - w.cut);
    if (wn_seq_mark(q.s, &err)) fail_msg("%s", err.text);
    test_seq_run(&t, &q, ids + MARK, N - MARK);
    wn_kv_check(q.s->kv);
    float *out = q.logits;
    q.logits = NULL;
    test_seq_close(&q);
    test_engine_close(&t);
    return out;
}

static void stages_keep_the_law(void **state)
{
    (void)state;
    static const char *const kv[] = {
        "snapkv(at=both,every=64)+alloc:ada+recover:nearest@25%",
        "tova(every=64)+alloc:entropy+recover:compensate@25%",
        "h2o(first=2,last=3)+alloc:density+recover:compensate@60",
    };
    static const way ways[] = { { 2, 7, 0, 0 }, { 1, 64, 4, 0 }, { 2, 64, 16, 0 }, { 2, 100, 0, 257 } };
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        float *ref = logits_of(kv[i], (way){ 1, 512, 0, 0 });
        for (size_t k = 0; k < WN_COUNT(ways); k++) {
            float *got = logits_of(kv[i], ways[k]);
            test_same_logits(kv[i], ref, got, N, VOCAB);
            free(got);
        }
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
    for (size_t i = 0; i < WN_COUNT(pairs); i++) {
        float *a = logits_of(pairs[i][0], (way){ 2, 100, 0, 0 }), *b = logits_of(pairs[i][1], (way){ 2, 100, 0, 0 });
        float *plain = logits_of(NULL, (way){ 2, 100, 0, 0 });
        test_same_logits(pairs[i][0], a, b, N, VOCAB);
        assert_memory_not_equal(a + MARK * VOCAB, plain + MARK * VOCAB, sizeof(float) * VOCAB);
        free(a);
        free(b);
        free(plain);
    }
}

static void merging_stages_allocate_nothing(void **state)
{
    (void)state;
    static const char *const kv[] = { "tova(every=64)+alloc:entropy+recover:compensate@25%", "snapkv(at=boundary,every=64)+recover:nearest@25%" };
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        test_engine t = test_engine_open(test_tiny_model_path(), (wn_engine_opts){ .n_threads = 2, .max_seqs = 5 });
        test_seq q = test_seq_open_kv(&t, N, kv[i]);
        q.s->opts.on_logits_ctx = &q;
        long before = wn_alloc_count();
        wn_alloc_forbid(true);
        test_seq_run(&t, &q, ids, N);
        wn_alloc_forbid(false);
        assert_int_equal(wn_alloc_count(), before);
        assert_true(wn_kv_live(q.s->kv, 0) < N / 2);
        test_seq_close(&q);
        test_engine_close(&t);
    }
}

int main(void)
{
    test_tokens(ids, N, VOCAB, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_keep_the_law),
        cmocka_unit_test(a_stage_gives_the_bytes_of_its_recipe),
        cmocka_unit_test(merging_stages_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
