/* Probes: what a recipe is told its probe looked at is what those queries look at in a sequence
 * that is fed the same tokens; and nothing of a probe stays: no frame, no token, no number, no
 * change of what comes after a decision that drops nothing. */
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include <math.h>

enum { T = 120, MOST = 512, LANES = 8, WIDEST = 8, VOCAB = 320 };
static int32_t ids[MOST];
static wn_err err;

static void good(wn_status st)
{
    if (st) fail_msg("%s", err.text);
}

static test_engine open_engine(int batch)
{
    return test_engine_open(test_model_path("llama", "F16"),
                            (wn_engine_opts){ .n_threads = 2, .max_seqs = 2, .n_batch = batch });
}

/* ---- the same by hand ------------------------------------------------------------------------ */

/* What queries at positions >= from give to slots in front of T. */
typedef struct {
    int from, keep_from, keep_to;
    float most[LANES][T], sum[LANES][T];        /* over queries: the largest of the largest head,
                                                   the sum of the mean, */
    float mean[LANES][T];                       /* the largest of the mean */
} by_hand;

static void look(void *ctx, const wn_attend_item *item, int lane, const int32_t *pos,
                 const float *w, int group, int n)
{
    by_hand *h = ctx;
    if (item->pos < h->from) return;
    for (int i = 0; i < n; i++) {
        float most = 0, sum = 0;
        if (pos[i] >= T) continue;
        for (int g = 0; g < group; g++) most = fmaxf(most, w[g * n + i]), sum += w[g * n + i];
        h->most[lane][pos[i]] = fmaxf(h->most[lane][pos[i]], most);
        h->sum[lane][pos[i]] += sum / (float)group;
        h->mean[lane][pos[i]] = fmaxf(h->mean[lane][pos[i]], sum / (float)group);
    }
}

/* The first four, and [keep_from, keep_to), stay. */
static wn_status narrow(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *e)
{
    const by_hand *h = ctx;
    (void)kv, (void)e;
    if (p != T) return WN_OK;
    wn_plan_drop(plan, WN_ALL_LANES, 4, WN_MAX(4, h->keep_from));
    wn_plan_drop(plan, WN_ALL_LANES, WN_MAX(4, h->keep_to), T);
    return WN_OK;
}

static void feed_one(test_engine *t, wn_seq *s, int32_t id)
{
    good(wn_seq_feed(s, &id, 1, &err));
    test_steps(t);
}

/* The text token by token, then n tokens of a probe, or, where there are none, the likeliest
 * ones. */
static void run_by_hand(by_hand *h, const int32_t *probe, int n)
{
    test_engine t = open_engine(64);
    wn_seq *s;
    wn_attend_observer o = { .ctx = h, .weights = look };
    good(wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = MOST }, &err));
    good(wn_seq_set_decider(s, T, narrow, h, &err));
    t.e->observer = &o;
    for (int i = 0; i < T; i++) feed_one(&t, s, ids[i]);
    for (int i = 0; i < n; i++) {
        int32_t id = probe ? probe[i] : wn_likeliest(wn_seq_logits(s), VOCAB);
        feed_one(&t, s, id);
    }
    t.e->observer = NULL;
    wn_seq_close(s);
    test_engine_close(&t);
}

/* ---- what a recipe is told ------------------------------------------------------------------- */

typedef struct { float x[LANES][T]; int n_lanes, n; } told;

static wn_status listen(void *ctx, const wn_view *v, double slot_bytes, const wn_plan *plan,
                        wn_err *e)
{
    told *o = ctx;
    (void)slot_bytes, (void)plan, (void)e;
    o->n_lanes = wn_view_n_lanes(v);
    o->n = wn_view_get_lane(v, 0)->n;
    for (int l = 0; l < o->n_lanes; l++)
        memcpy(o->x[l], wn_view_stat(v, l, 0), sizeof(float) * (size_t)o->n);
    return WN_OK;
}

static told ask(const char *kv, int batch)
{
    told o = { .n = 0 };
    test_engine t = open_engine(batch);
    wn_seq *s;
    wn_decision_log log = { .decided = listen, .ctx = &o };
    good(wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = T + 20, .kv = kv }, &err));
    wn_seq_set_log(s, &log);
    good(wn_seq_feed(s, ids, T, &err));
    good(wn_seq_mark(s, &err));
    feed_one(&t, s, ids[0]);
    assert_int_equal(o.n, T);
    wn_seq_close(s);
    test_engine_close(&t);
    return o;
}

static void check_same(const char *kv, const told *o, float want[LANES][T], int from, int to)
{
    for (int l = 0; l < o->n_lanes; l++)
        for (int i = from; i < to; i++)
            if (!(fabsf(o->x[l][i] - want[l][i]) <= 1e-5f * (1 + want[l][i])))
                fail_msg("%s: lane %d slot %d: %g, by hand %g", kv, l, i, (double)o->x[l][i],
                         (double)want[l][i]);
}

/* Chunk by chunk: what is said, the tokens in front of the chunk, and it; the largest weight of
 * any. */
static void the_text_is_repeated(void **state)
{
    (void)state;
    static const struct { const char *kv; int chunk, overlap; bool says, mean; } cases[] = {
        { "kvzip@50%", T, 8, true, false }, { "kvzip(chunk=50,overlap=6)@50%", 50, 6, true, false },
        { "kvcompose@50%", T, 0, false, true } };
    for (size_t c = 0; c < WN_COUNT(cases); c++) {
        told o = ask(cases[c].kv, 512), cut = ask(cases[c].kv, 7);
        assert_memory_equal(&o, &cut, sizeof o);                /* however it falls into passes */
        for (int from = 0; from < T; from += cases[c].chunk) {
            test_engine t = open_engine(64);
            wn_seq *s;
            int to = WN_MIN(from + cases[c].chunk, T), before = WN_MIN(from, cases[c].overlap),
                n = to - from + before;
            int32_t probe[MOST];
            good(wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = T, .kv = cases[c].kv }, &err));
            int n_say = s->n_say;
            assert_true(cases[c].says ? n_say > 0 : n_say == 0);
            if (n_say) memcpy(probe, s->say, sizeof *probe * (size_t)n_say);
            memcpy(probe + n_say, ids + from - before, sizeof *probe * (size_t)n);
            wn_seq_close(s);
            test_engine_close(&t);
            by_hand h = { .from = T + n_say, .keep_from = from, .keep_to = to };
            run_by_hand(&h, probe, n_say + n);
            check_same(cases[c].kv, &o, cases[c].mean ? h.mean : h.most, WN_MAX(from, 4), to);
        }
    }
}

/* The next five tokens, and what their queries look at together. */
static void the_next_tokens_are_foreseen(void **state)
{
    (void)state;
    by_hand h = { .from = T, .keep_to = T };
    told o = ask("laq(ahead=5)@50%", 512), cut = ask("laq(ahead=5)@50%", 7);
    assert_memory_equal(&o, &cut, sizeof o);
    run_by_hand(&h, NULL, 5);
    check_same("laq", &o, h.sum, 0, T);
}

/* ---- episodes -------------------------------------------------------------------------------- */

enum { PIECE = 16, TYPICAL = 2, EPISODES = 2, QUESTION = 10, ASKS = 5 * PIECE };

/* The prompt of the c-th episode of the first n tokens, behind what is said; how many episodes
 * there are. */
static int episode(const wn_model *m, int n, int c, int32_t *probe, int *n_probe)
{
    static float x[T * WN_EPISODE_DIM], row[4096];
    double centres[WN_EPISODES_MAX * WN_EPISODE_DIM];
    int of[T], typical[TYPICAL], n_pieces = wn_episode_pieces(n, PIECE);
    for (int i = 0; i < n_pieces; i++)
        wn_episode_embed(m, ids + i * PIECE, WN_MIN(PIECE, n - i * PIECE), row,
                         x + i * WN_EPISODE_DIM);
    int k = wn_episode_cluster(x, n_pieces, EPISODES, of, centres);
    if (c < 0) {                        /* the question's */
        float question[WN_EPISODE_DIM];
        wn_episode_embed(m, ids + n, T - n, row, question);
        c = wn_episode_nearest(question, centres, k);
        wn_episode_embed(m, ids, T - n, row, question);
        /* not what it begins with */
        assert_int_not_equal(c, wn_episode_nearest(question, centres, k));
    }
    int n_typical = wn_episode_typical(x, n_pieces, of, centres, c, TYPICAL, typical);
    for (int i = 0; i < n_typical; i++)
        for (int j = typical[i] * PIECE; j < WN_MIN((typical[i] + 1) * PIECE, n); j++)
            probe[(*n_probe)++] = ids[j];
    return k;
}

static void episodes_are_recalled(void **state)
{
    (void)state;
    int32_t was[QUESTION];
    memcpy(was, ids + T - QUESTION, sizeof was);
    memcpy(ids + T - QUESTION, ids + ASKS, sizeof was);  /* a question about what stands there */
    for (int all = 0; all < 2; all++) {
        char kv[120];
        snprintf(kv, sizeof kv, "epicache(episodes=%d,piece=%d,typical=%d,question=%d,for=%s)@50%%",
                 EPISODES, PIECE, TYPICAL, QUESTION, all ? "all" : "question");
        told o = ask(kv, 512), cut = ask(kv, 7);
        assert_memory_equal(&o, &cut, sizeof o);
        float most[LANES][T] = { { 0 } };
        for (int c = all ? 0 : -1, k = 1; c < k; c++) {
            test_engine t = open_engine(64);
            wn_seq *s;
            int32_t probe[MOST];
            good(wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = T, .kv = kv }, &err));
            int n = s->n_say;
            assert_true(n > 0);
            memcpy(probe, s->say, sizeof *probe * (size_t)n);
            k = episode(t.m, all ? T : T - QUESTION, c, probe, &n);
            if (!all) k = 0;
            else assert_int_equal(k, EPISODES);
            wn_seq_close(s);
            test_engine_close(&t);
            by_hand h = { .from = T, .keep_to = T };    /* what is said counts, too */
            run_by_hand(&h, probe, n);
            for (int l = 0; l < LANES; l++)
                for (int i = 0; i < T; i++) most[l][i] = fmaxf(most[l][i], h.most[l][i]);
        }
        check_same(kv, &o, most, 0, T);
    }
    memcpy(ids + T - QUESTION, was, sizeof was);
}

/* Bounded while the text is read: no lane holds more than the budget and what came in since, in the
 * mean. */
static void blocks_bound_the_peak(void **state)
{
    (void)state;
    enum { BUDGET = 64, EVERY = 32, N = 200 };
    const char *kv = "epicache(at=boundary,every=32,for=all,piece=16)@64";
    test_engine t = test_engine_open(test_model_path("llama", "F16"),
                                     (wn_engine_opts){ .n_threads = 2, .n_batch = 16, .kv = kv });
    wn_seq *s;
    int most = 0, rows;
    good(wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = N, .kv = kv }, &err));
    good(wn_seq_feed(s, ids, N, &err));
    do {
        int live = 0;
        good(wn_engine_step(t.e, &rows, &err));
        for (int l = 0; l < t.m->map.n_lanes; l++) live += (int)wn_kv_live(s->kv, l);
        most = WN_MAX(most, live);
    } while (rows);
    assert_in_range(most, BUDGET * t.m->map.n_lanes + 1, (BUDGET + EVERY) * t.m->map.n_lanes);
    assert_true(s->observed > 0);
    for (int c = 0; c < WN_POOL_CLASSES; c++) {
        uint32_t used, peak;
        wn_pool_class_use(t.e->pool, c, &used, &peak);
        assert_true(peak <= t.e->reserved[c]);
    }
    wn_kv_check(s->kv);
    wn_seq_close(s);
    test_engine_close(&t);
}

/* ---- nothing stays --------------------------------------------------------------------------- */

/* Frames, and the scratch of decisions, never go beyond what a text that is full was promised. */
static void check_promise(const test_engine *t, const char *kv)
{
    for (int c = 0; c < WN_POOL_CLASSES; c++) {
        uint32_t used, peak;
        wn_pool_class_use(t->e->pool, c, &used, &peak);
        if (peak > t->e->reserved[c])
            fail_msg("%s: %u frames of class %d, %u are promised", kv, peak, c, t->e->reserved[c]);
    }
    assert_true(t->e->decisions.peak <= t->e->needs_arena);
}

/* A pool's frames after the decision are those of the slots that stay; at its peak there were
 * more. */
static void forks_are_gone(void **state)
{
    (void)state;
    static const char *const kv[] = { "kvzip@50%",
                                      "kvzip(chunk=40)@50%",
                                      "laq@50%",
                                      "kvzip@100%",
                                      "laq@100%",
                                      "kvzip@50%,k=q8,v=q8",
                                      "laq(ahead=64)@50%,k=q4,v=q4",
                                      "kvcompose@50%",
                                      "epicache(piece=16)@50%",
                                      "epicache(for=all,piece=8)@50%,k=q8,v=q8" };
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        test_engine t = test_engine_open(test_model_path("llama", "F16"),
                                         (wn_engine_opts){ .n_threads = 2, .kv = kv[i] });
        wn_seq *s;
        wn_pool_stats ps;
        wn_kv_stats ks;
        good(wn_seq_open(&s, t.e, &(wn_seq_opts){ .max_tokens = T + 1, .kv = kv[i] }, &err));
        wn_pool_reset_peak(t.e->pool);
        good(wn_seq_feed(s, ids, T, &err));
        good(wn_seq_mark(s, &err));
        test_steps(&t);
        wn_pool_get_stats(t.e->pool, &ps);
        size_t before = ps.bytes_used;
        feed_one(&t, s, ids[0]);
        wn_pool_get_stats(t.e->pool, &ps);
        wn_kv_get_stats(s->kv, &ks);
        assert_true(ps.bytes_used <= before);
        check_promise(&t, kv[i]);
        assert_int_equal(wn_kv_n(s->kv), T + 1);
        for (int k = 0; k < t.m->map.n_lanes * s->probed.n_stats; k++)
            for (int pos = 0; pos < T; pos++)
                assert_true(s->probed.x[(size_t)k * s->probed.stride + (size_t)pos] == 0);
        if (i < 3 || i > 4) assert_true(ps.bytes_peak > before && s->observed > 0);
        if (i == 3) assert_int_equal(s->observed, 0);  /* nothing to decide: nothing is probed */
        wn_kv_check(s->kv);
        wn_seq_close(s);
        wn_pool_get_stats(t.e->pool, &ps);
        assert_int_equal(ps.bytes_used, 0);
        test_engine_close(&t);
    }
}

int main(void)
{
    test_tokens(ids, MOST, VOCAB, 5);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_is_repeated),
        cmocka_unit_test(the_next_tokens_are_foreseen),
        cmocka_unit_test(episodes_are_recalled),
        cmocka_unit_test(blocks_bound_the_peak),
        cmocka_unit_test(forks_are_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
