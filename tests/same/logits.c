/* What may not change a single byte of the logits: threads, chunks, neighbours, forks,
 * truncation, page size, sessions, and whether evicted slots are repacked; with and
 * without evictions at boundaries. One reference run, then the same text in every other
 * way, compared with memcmp. */
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include <unistd.h>

enum { N = 700 };                       /* two splits */
static int every = 64;                  /* tokens between decisions: eleven of them; hard: 234 */

static int32_t ids[N];
static const char *const types[] = { "Q8_0", "Q4_K_M", "F16" };

/* Drops a random third of the live slots of each lane, a different third in each; now and
 * then a whole range, a bias and a shift. Depends on the position alone. */
typedef struct { bool no_repack, shifts; } evictor;

static wn_status evict(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *err)
{
    const evictor *ev = ctx;
    (void)kv;
    (void)err;
    plan->no_repack = ev->no_repack;
    for (int lane = 0; lane < plan->n_lanes; lane++) {
        uint64_t seed = (uint64_t)p * 1000003u + (uint64_t)lane;
        for (int pos = 4; pos < p - 16; pos++)
            if (test_rand(&seed) % 3 == 0) wn_plan_drop(plan, lane, pos, pos + 1);
        if (p % (3 * every) == 0) wn_plan_drop(plan, lane, p / 4, p / 3);
    }
    if (ev->shifts && p >= 5 * every) wn_plan_shift(plan, WN_ALL_LANES, 0, 4, p - 4 * every);
    return WN_OK;
}

typedef struct {
    const char *type;
    int threads, chunk, slots;
    bool neighbours;
    evictor *ev;
    int window;                         /* > 0: all lanes are window lanes */
    const char *arch;                   /* NULL: llama */
} way;

static void open_seq(test_engine *t, test_seq *q, evictor *ev)
{
    wn_err err = { 0 };
    *q = test_seq_open(t, N);
    if (ev && wn_seq_set_decider(q->s, every, evict, ev, &err)) fail_msg("%s", err.text);
}

static test_engine open_engine(way w)
{
    test_engine t = test_engine_open(test_model_path(w.arch ? w.arch : "llama", w.type),
                            (wn_engine_opts){ .n_threads = w.threads, .n_batch = w.chunk,
                                              .page_slots = w.slots, .max_seqs = 5,
                                              .pool_tokens = 5 * 2048 });
    for (int l = 0; w.window && l < t.m->hp.n_layers; l++) t.m->layers[l].window = w.window;
    for (int l = 0; w.window && l < t.m->map.n_lanes; l++) t.m->lanes[l].window = w.window;
    return t;
}

/* The logits of all N positions when computed in this way; the caller frees. */
static float *logits_of(way w)
{
    test_engine t = open_engine(w);
    test_seq q, noise[3];
    wn_err err = { 0 };
    size_t bytes = sizeof(float) * N * (size_t)t.n_vocab;
    float *out = malloc(bytes);
    assert_non_null(out);
    for (int i = 0; w.neighbours && i < 3; i++) {
        int32_t other[300];
        open_seq(&t, &noise[i], NULL);
        noise[i].s->opts.on_logits = NULL;
        test_tokens(other, 300, t.n_vocab, 100 + (uint64_t)i);
        assert_int_equal(wn_seq_feed(noise[i].s, other, 100 + 100 * (size_t)i, &err), WN_OK);
    }
    open_seq(&t, &q, w.ev);
    if (w.neighbours) {                 /* prompt chunks and single tokens of others in between */
        q.s->opts.on_logits_ctx = &q;
        for (int at = 0; at < N; at += 50) {
            int32_t one = at % t.n_vocab;
            assert_int_equal(wn_seq_feed(q.s, ids + at, 50, &err), WN_OK);
            if (at < 300) assert_int_equal(wn_seq_feed(noise[at / 50 % 3].s, &one, 1, &err), WN_OK);
            assert_int_equal(wn_engine_step(t.e, NULL, &err), WN_OK);
        }
        test_steps(&t);
    } else {
        test_seq_run(&t, &q, ids, N);
    }
    assert_int_equal(q.n_seen, N);
    wn_kv_check(q.s->kv);
    memcpy(out, q.logits, bytes);
    test_seq_close(&q);
    for (int i = 0; w.neighbours && i < 3; i++) test_seq_close(&noise[i]);
    test_engine_close(&t);
    return out;
}

static way base_way = { .threads = 1, .chunk = 512 };

static void compare(const char *what, const float *ref, way w)
{
    float *got = logits_of(w);
    test_same_logits(what, ref, got, N, 320);
    free(got);
}

static void ways(const char *arch, const char *type, evictor *ev, int window, const char *label)
{
    way w = base_way;
    char what[128];
    w.arch = arch;
    w.type = type;
    w.window = window;
    w.ev = ev;
    float *ref = logits_of(w);
    static const int chunks[] = { 1, 7, 64, 700 };
    for (int threads = 1; threads <= 3; threads++)
        for (size_t c = 0; c < WN_COUNT(chunks); c++) {
            if (threads != 2 && c != 1) continue;
            way v = w;
            v.threads = threads;
            v.chunk = chunks[c];
            snprintf(what, sizeof what, "%s %s %s: %d threads, chunks of %d", arch, type, label,
                     threads, chunks[c]);
            compare(what, ref, v);
        }
    way v = w;
    v.slots = 4;
    v.chunk = 64;
    snprintf(what, sizeof what, "%s %s %s: pages of 4 slots", arch, type, label);
    compare(what, ref, v);
    v = w;
    v.neighbours = true;
    v.threads = 2;
    snprintf(what, sizeof what, "%s %s %s: three neighbours", arch, type, label);
    compare(what, ref, v);
    free(ref);
}

static void without_decisions(void **state)
{
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++) ways("llama", types[i], NULL, 0, "full cache");
}

static void with_decisions(void **state)
{
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++)
        ways("llama", types[i], &(evictor){ .shifts = true }, 0, "evicting");
}

/* Window lanes: what a row sees begins at another slot for each row of a chunk, and pages
 * leave while a chunk is under way. With evictions the lanes are sparse as well. */
static void in_windows(void **state)
{
    (void)state;
    ways("llama", "Q8_0", NULL, 100, "window of 100");
    ways("llama", "Q8_0", &(evictor){ 0 }, 100, "window of 100, evicting");
    ways("llama", "F16", &(evictor){ 0 }, 600, "window of 600, evicting");
}

/* Experts: who else is in the batch decides how long their runs of rows are, and no bit. Every
 * other layer of gemma2 and gpt-oss has a window of 100; gpt-oss has attention sinks. */
static void of_other_architectures(void **state)
{
    (void)state;
    ways("qwen3moe", "Q4_K_M", NULL, 0, "experts");
    ways("gpt-oss", "Q8_0", NULL, 0, "experts, sinks, windows");
    ways("gpt-oss", "F16", &(evictor){ .shifts = true }, 0, "experts, sinks, windows, evicting");
    ways("gemma2", "Q8_0", &(evictor){ 0 }, 0, "windows, soft caps, evicting");
}

/* A window that no distance reaches changes nothing; one that is reached does. */
static void a_wide_window_is_none(void **state)
{
    (void)state;
    way w = base_way;
    w.type = "Q8_0";
    float *ref = logits_of(w);
    w.window = N;
    compare("a window as wide as the text", ref, w);
    w.window = 100;
    float *less = logits_of(w);
    assert_memory_equal(ref, less, sizeof(float) * 100 * 320);
    assert_memory_not_equal(ref + 101 * 320, less + 101 * 320, sizeof(float) * 320);
    free(ref);
    free(less);
}

/* Slots that were dropped may lie where they are or be squeezed out: nobody can tell. */
static void repacking_is_invisible(void **state)
{
    (void)state;
    for (int slots = 4; slots <= 64; slots *= 4) {
        way w = base_way;
        w.type = "Q8_0";
        w.slots = slots;
        w.ev = &(evictor){ .no_repack = true, .shifts = true };
        float *ref = logits_of(w);
        w.ev = &(evictor){ .no_repack = false, .shifts = true };
        compare("repacked against masked", ref, w);
        free(ref);
    }
}

/* Evicting does change something: the comparison above is not between equals by neglect. */
static void evicting_is_visible(void **state)
{
    (void)state;
    way w = base_way;
    w.type = "Q8_0";
    float *full = logits_of(w);
    w.ev = &(evictor){ 0 };
    float *less = logits_of(w);
    assert_memory_equal(full, less, sizeof(float) * (size_t)every * 320);
    assert_memory_not_equal(full + 64 * 320, less + 64 * 320, sizeof(float) * 320);
    free(full);
    free(less);
}

/* Fork in the middle, go on twice; truncate and go on; save, restore and go on. */
static void fork_truncate_and_session(const char *arch, evictor *ev, const char *label)
{
    char what[128];
    way w = base_way;
    wn_err err = { 0 };
    w.arch = arch;
    w.type = "Q8_0";
    w.ev = ev;
    w.threads = 2;
    float *ref = logits_of(w);
    test_engine t = open_engine(w);
    test_seq q, f, r;
    int cut = 333;
    open_seq(&t, &q, ev);
    test_seq_run(&t, &q, ids, cut);

    f = (test_seq){ .n_vocab = t.n_vocab, .logits = calloc(N * (size_t)t.n_vocab, sizeof(float)) };
    if (wn_seq_fork(&f.s, q.s, NULL, &err)) fail_msg("fork: %s", err.text);
    memcpy(f.logits, q.logits, sizeof(float) * (size_t)cut * (size_t)t.n_vocab);
    char path[128];
    test_path(path, sizeof path, "a.session");
    if (wn_seq_save(q.s, path, &err)) fail_msg("save: %s", err.text);
    int32_t other[100];
    test_tokens(other, 100, t.n_vocab, 5);
    test_seq_run(&t, &q, other, 20);    /* the source takes another way */
    test_seq_run(&t, &f, ids + cut, N - cut);
    snprintf(what, sizeof what, "%s: fork", label);
    test_same_logits(what, ref, f.logits, N, t.n_vocab);

    /* Behind a decision there is no way back but from the start: same bytes, more work. */
    if (wn_seq_truncate(q.s, cut, &err)) fail_msg("truncate: %s", err.text);
    test_seq_run(&t, &q, ids + cut, N - cut);
    snprintf(what, sizeof what, "%s: truncate", label);
    test_same_logits(what, ref, q.logits, N, t.n_vocab);

    open_seq(&t, &r, ev);
    if (wn_seq_load(r.s, path, &err)) fail_msg("load: %s", err.text);
    wn_kv_check(r.s->kv);
    assert_int_equal(wn_seq_n_done(r.s), cut);
    memcpy(r.logits, ref, sizeof(float) * (size_t)cut * (size_t)t.n_vocab);
    test_seq_run(&t, &r, ids + cut, N - cut);
    snprintf(what, sizeof what, "%s: session", label);
    test_same_logits(what, ref, r.logits, N, t.n_vocab);
    unlink(path);
    test_seq_close(&r);
    test_seq_close(&f);
    test_seq_close(&q);
    test_engine_close(&t);
    free(ref);
}

static void fork_truncate_session(void **state)
{
    (void)state;
    fork_truncate_and_session("llama", NULL, "full cache");
    fork_truncate_and_session("llama", &(evictor){ .shifts = true }, "evicting");
    fork_truncate_and_session("gpt-oss", NULL, "gpt-oss");
    fork_truncate_and_session("gemma2", &(evictor){ 0 }, "gemma2, evicting");
}

/* The ring of rotated queries, which window statistics will read: the same rows whatever
 * the chunks, after a fork, and after a truncation as far as it says it is valid. */
static void the_ring_of_queries(void **state)
{
    (void)state;
    static float want[2][64][256];
    wn_err err = { 0 };
    for (int chunk = 512; chunk > 0; chunk = chunk == 512 ? 7 : chunk == 7 ? 1 : 0) {
        way w = base_way;
        w.type = "Q8_0";
        w.chunk = chunk;
        w.threads = 2;
        test_engine t = open_engine(w);
        wn_seq *s, *f;
        assert_int_equal(wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = N, .ring_rows = 64 },
                                     &err),
                         WN_OK);
        assert_int_equal(wn_seq_feed(s, ids, 200, &err), WN_OK);
        test_steps(&t);
        assert_int_equal(wn_kv_ring_valid(s->kv), 64);
        assert_int_equal(wn_seq_fork(&f, s, NULL, &err), WN_OK);
        for (int l = 0; l < 2; l++)
            for (int i = 0; i < 64; i++) {
                const float *row = wn_kv_ring(s->kv, l, 136 + i),
                            *copy = wn_kv_ring(f->kv, l, 136 + i);
                assert_non_null(row);
                if (chunk == 512) memcpy(want[l][i], row, sizeof want[l][i]);
                assert_memory_equal(row, want[l][i], sizeof want[l][i]);
                assert_memory_equal(copy, want[l][i], sizeof want[l][i]);
            }
        assert_int_equal(wn_seq_truncate(f, 190, &err), WN_OK);
        assert_int_equal(wn_kv_ring_valid(f->kv), 54);
        assert_memory_equal(wn_kv_ring(f->kv, 1, 189), want[1][53], sizeof want[1][53]);
        wn_seq_close(f);
        wn_seq_close(s);
        test_engine_close(&t);
    }
}

/* The mapped weights of --no-repack give the same bytes as the packed ones. */
static void packed_and_mapped_weights(void **state)
{
    (void)state;
    for (size_t i = 0; i < WN_COUNT(types); i++) {
        way w = base_way;
        w.type = types[i];
        float *ref = logits_of(w);
        test_engine t = { 0 };
        wn_err err = { 0 };
        test_seq q;
        assert_int_equal(wn_model_open(&t.m, test_model_path("llama", types[i]),
                                       &(wn_model_opts){ .no_repack = true }, &err),
                         WN_OK);
        assert_int_equal(wn_engine_open(&t.e, t.m,
                                        &(wn_engine_opts){ .n_ctx = 2048, .n_threads = 2 }, &err),
                         WN_OK);
        t.n_vocab = 320;
        open_seq(&t, &q, NULL);
        test_seq_run(&t, &q, ids, 200);
        test_same_logits("mapped weights", ref, q.logits, 200, 320);
        test_seq_close(&q);
        test_engine_close(&t);
        free(ref);
    }
}

int main(void)
{
    test_tokens(ids, N, 320, 1);
    if (getenv("WN_TEST_HARD")) {       /* small pages, decisions all the time */
        base_way.slots = 4;
        every = 3;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_decisions),
        cmocka_unit_test(with_decisions),
        cmocka_unit_test(in_windows),
        cmocka_unit_test(of_other_architectures),
        cmocka_unit_test(a_wide_window_is_none),
        cmocka_unit_test(repacking_is_invisible),
        cmocka_unit_test(evicting_is_visible),
        cmocka_unit_test(fork_truncate_session),
        cmocka_unit_test(packed_and_mapped_weights),
        cmocka_unit_test(the_ring_of_queries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
