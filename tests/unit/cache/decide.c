/* Decisions: masks, merges, biases and shifts, with and without repacking, on sequences that share
 * pages, in pools that are too small; every second plan is carried out by three threads. Random
 * plans are compared with plain arrays after every operation; with WN_TEST_HARD=1 pages are small,
 * the pool is tiny and there are more of them. */
#include "tests/unit/check.h"
#include "tests/support/kv_model.h"
#include "tests/support/test_formats.h"

#include "base/alloc.h"
#include "cache/kv_int.h"

#include <math.h>

enum { N_SEQS = 3 };
static model models[N_SEQS];

static bool hard(void) { return getenv("WN_TEST_HARD") != NULL; }

static wn_pool *pool_of(size_t bytes)
{
    wn_pool *p;
    assert_int_equal(wn_pool_open(&p, &(wn_pool_opts){ .bytes = bytes }, NULL), WN_OK);
    return p;
}

static wn_kv *kv_open(const wn_kv_opts *o)
{
    wn_kv *kv;
    wn_err err;
    if (wn_kv_open(&kv, o, &err)) fail_msg("%s", err.text);
    return kv;
}

static void pool_is_empty(wn_pool *p)
{
    wn_pool_stats s;
    wn_pool_get_stats(p, &s);
    assert_int_equal(s.bytes_used, 0);
    wn_pool_check(p);
}

static int below(uint64_t *rng, int n) { return n > 0 ? (int)(test_rand(rng) % (uint64_t)n) : 0; }

/* ---- random plans -------------------------------------------------------------------------- */

/* A live position the next query sees, near a random place; -1: none found. */
static int some_live(const model *m, int lane, uint64_t *rng, const bool *taken)
{
    int first = model_first(m, lane), p = first + below(rng, m->n - first);
    for (int i = 0; i < 50 && p < m->n; i++, p++)
        if (m->at[lane][p].live && !taken[p]) return p;
    return -1;
}

static void random_merges(const model *m, wn_plan *plan, int lane, uint64_t *rng)
{
    static bool taken[MODEL_MAX];
    memset(taken, 0, sizeof taken);
    for (int i = below(rng, 12); i > 0; i--) {
        int32_t src[4];
        float wk[4], wv[4];
        int n = 0, want = 1 + below(rng, 4), at;
        while (n < want && (src[n] = some_live(m, lane, rng, taken)) >= 0) {
            wk[n] = test_randf(rng);
            wv[n] = test_randf(rng);
            taken[src[n++]] = true;
        }
        if (!n) return;
        at = src[below(rng, n)];
        int other = below(rng, m->n);
        if (!m->at[lane][other].live && !taken[other] && below(rng, 3) == 0) at = other;
        taken[at] = true;
        wn_plan_merge_slots(plan, lane, at, src, wk, wv, n, logf((float)n), n);
        if (below(rng, 4) == 0) wn_plan_set_bias(plan, lane, at, test_randf(rng));
    }
}

static void random_drops(const model *m, wn_plan *plan, int lane, uint64_t *rng)
{
    switch (below(rng, 5)) {
    case 0: {                                           /* a range, as streaming does */
        int from = below(rng, m->n);
        wn_plan_drop(plan, lane, from, from + below(rng, m->n));
        return;
    }
    case 1: {                                           /* keep a share at random */
        static int32_t keep[MODEL_MAX];
        int n = 0, one_in = 1 + below(rng, 8);
        for (int p = 0; p < m->n; p++)
            if (below(rng, one_in) == 0) keep[n++] = p;
        wn_plan_keep_only(plan, lane, keep, n);
        return;
    }
    case 2: wn_plan_drop(plan, lane, 0, m->n); return;  /* everything */
    default:
        for (int i = below(rng, 30); i > 0; i--) {
            int p = below(rng, m->n);
            wn_plan_drop(plan, lane, p, p + 1);
        }
    }
}

/* Some of the slots that are neither merged nor about to be go to the lower format. */
static void random_demotions(const model *m, wn_plan *plan, int lane, uint64_t *rng)
{
    static int32_t to[MODEL_MAX];
    static bool taken[MODEL_MAX];
    int n = 0, one_in = 1 + below(rng, 40), from = below(rng, 2) ? 0 : below(rng, m->n);
    memset(taken, 0, sizeof taken);
    for (int j = 0; j < plan->n_merges; j++) {
        const wn_plan_merge *g = &plan->merges[j];
        for (int i = 0; g->lane == lane && i < g->n_src; i++)
            taken[plan->src[g->first_src + i]] = true;
        if (g->lane == lane) taken[g->at] = true;
    }
    for (int p = from; p < m->n; p++)
        if (!m->at[lane][p].merged && !taken[p] && below(rng, one_in) == 0) to[n++] = p;
    wn_plan_demote(plan, lane, to, n);
}

static void random_plan(const model *m, wn_plan *plan, uint64_t *rng, bool demotes)
{
    static const int delta[4] = { 0, 5, -3, 100 };      /* few, so that a lane has few shifts */
    plan->no_repack = below(rng, 4) == 0;
    bool all = below(rng, 3) == 0;
    for (int l = 0; l < m->map->n_lanes; l++) {
        if (!all && below(rng, 2)) continue;
        if (below(rng, 3)) random_drops(m, plan, l, rng);
        if (below(rng, 3) == 0) random_merges(m, plan, l, rng);
        bool none[MODEL_MAX] = { 0 };
        for (int i = below(rng, 3) ? 0 : below(rng, 5); i > 0; i--) {
            int p = some_live(m, l, rng, none);
            bool stays = p >= 0 && wn_plan_keeps(plan, l, p);
            for (int j = 0; j < plan->n_src && stays; j++) stays = plan->src[j] != p;
            if (stays) wn_plan_set_bias(plan, l, p, test_randf(rng));
        }
        if (demotes && below(rng, 2)) random_demotions(m, plan, l, rng);
        if (below(rng, 4) == 0) {
            int from = below(rng, m->n);
            wn_plan_shift(plan, l, from, from + 1 + below(rng, m->n / 2), delta[below(rng, 4)]);
        }
    }
    assert_int_equal(plan->status, WN_OK);
}

/* ---- the random run ------------------------------------------------------------------------- */

typedef struct {
    wn_pool *pool;
    wn_kv_opts o;
    wn_kv *kv[N_SEQS];
    wn_threads *team;
    wn_kv_crew *crew;                   /* carries out every second decision */
    uint64_t rng;
    wn_lane_formats formats[MODEL_LANES];
    int n_full, n_cut, n_restarted, n_applied, n_saved;
    uint32_t n_hogged;
    bool raw;                           /* nothing is ever sealed */
} run;

static void check_all(run *r)
{
    for (int i = 0; i < N_SEQS; i++)
        if (r->kv[i]) model_compare(&models[i], r->kv[i], r->pool);
    bool any = false;
    for (int i = 0; i < N_SEQS; i++) any |= r->kv[i] != NULL;
    if (any) model_check_refs(r->kv, N_SEQS, r->pool, r->n_hogged);
}

static void decide(run *r, int i)
{
    wn_plan plan;
    wn_err err;
    static model before;
    before = models[i];
    wn_plan_init(&plan, models[i].n, models[i].map->n_lanes);
    random_plan(&models[i], &plan, &r->rng, r->formats[0].low_k != NULL);
    model_apply(&models[i], r->kv[i], &plan);
    if (below(&r->rng, 3) == 0) wn_kv_reserve(r->kv[i], 1, NULL);       /* given back first */
    wn_alloc_forbid(true);
    wn_status st = wn_kv_apply_with(r->kv[i], &plan, r->n_applied & 1 ? r->crew : NULL, &err);
    wn_alloc_forbid(false);
    if (st == WN_EFULL) {
        models[i] = before;
        r->n_full++;
    } else if (st) fail_msg("%s", err.text);
    else r->n_applied++;
    wn_plan_release(&plan);
}

static void truncate(run *r, int i)
{
    model *m = &models[i];
    int back = below(&r->rng, 40), n = m->n - WN_MIN(m->n, back), at, decided = -1;
    wn_status st = wn_kv_truncate(r->kv[i], n, &at, NULL);
    assert_int_equal(st, WN_OK);
    for (int l = 0; l < m->map->n_lanes; l++) decided = WN_MAX(decided, m->decided_at[l]);
    assert_true(at == n || at == 0);
    if (n < m->n && decided > n) assert_int_equal(at, 0);
    if (decided <= n && r->raw && !m->map->lanes[m->map->n_lanes - 1].window)
        assert_int_equal(at, n);
    r->n_cut += at == n;
    r->n_restarted += at != n;
    model_truncate(m, at);
}

static void append(run *r, int i, int most)
{
    int n = 1 + below(&r->rng, most);
    if (models[i].n + n > r->o.max_positions) return;
    wn_status st = model_append(&models[i], r->kv[i], below(&r->rng, 50), n, &r->rng);
    assert_true(st == WN_OK || st == WN_EFULL);
    r->n_full += st == WN_EFULL;
    if (st || below(&r->rng, 4)) return;
    wn_kv_reserve(r->kv[i], below(&r->rng, 20), NULL);  /* a pass that is given up */
    wn_kv_reserve(r->kv[i], below(&r->rng, 3), NULL);
}

/* ---- saving --------------------------------------------------------------------------------- */

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

static bytes saved(const wn_kv *kv)
{
    static unsigned char buffer[8 << 20];
    bytes b = { buffer, 0, sizeof buffer };
    wn_err err;
    if (wn_kv_save(kv, (wn_sink){ write_bytes, &b }, &err)) fail_msg("%s", err.text);
    return (bytes){ buffer, 0, b.n };
}

/* Replaces a sequence by one read from its bytes. */
static void save_and_load(run *r, int i)
{
    wn_err err;
    wn_kv_reserve(r->kv[i], 0, NULL);
    bytes b = saved(r->kv[i]);
    wn_kv *kv = kv_open(&r->o);
    wn_status st = wn_kv_load(kv, (wn_source){ read_bytes, &b }, &err);
    if (st == WN_EFULL) {
        assert_int_equal(wn_kv_n(kv), 0);
        wn_kv_close(kv);
        r->n_full++;
        return;
    }
    if (st) fail_msg("%s", err.text);
    assert_int_equal(b.n, b.cap);
    static unsigned char first[8 << 20];
    memcpy(first, b.at, b.cap);
    bytes again = saved(kv);
    assert_int_equal(again.cap, b.cap);
    assert_memory_equal(again.at, first, b.cap);
    wn_kv_close(r->kv[i]);
    r->kv[i] = kv;
    r->n_saved++;
}

static void step(run *r)
{
    int i = below(&r->rng, N_SEQS), j = below(&r->rng, N_SEQS), what = below(&r->rng, 16);
    if (!r->kv[i]) {
        if (what < 8 && r->kv[j]) {
            wn_status st = wn_kv_fork(&r->kv[i], r->kv[j], 0, NULL);
            assert_true(st == WN_OK || st == WN_EFULL);
            models[i] = models[j];
        } else {
            r->kv[i] = kv_open(&r->o);
            model_init(&models[i], r->o.map, r->o.page_slots);
        }
        return;
    }
    if (what < 8 || models[i].n == 0) append(r, i, what == 0 ? 300 : 40);
    else if (what < 13) decide(r, i);
    else if (what < 15) truncate(r, i);
    else if (below(&r->rng, 3)) save_and_load(r, i);
    else if (below(&r->rng, 2)) {
        wn_kv_close(r->kv[i]);
        r->kv[i] = NULL;
    }
}

/* Takes every frame of the pool but `spare` of each size. */
static wn_frame_id *hog(run *r, uint32_t spare)
{
    static wn_frame_id f[1 << 19], kept[WN_POOL_CLASSES][4096];
    for (int c = 0; c < WN_POOL_CLASSES && wn_pool_frames_per_extent(r->pool, c); c++)
        for (uint32_t i = 0; i < spare; i++)
            assert_int_equal(wn_pool_take(r->pool, c, &kept[c][i]), WN_OK);
    for (int c = 0; c < WN_POOL_CLASSES && wn_pool_frames_per_extent(r->pool, c); c++)
        while (wn_pool_take(r->pool, c, &f[r->n_hogged]) == WN_OK) r->n_hogged++;
    for (int c = 0; c < WN_POOL_CLASSES && wn_pool_frames_per_extent(r->pool, c); c++)
        for (uint32_t i = 0; i < spare; i++) wn_pool_drop(r->pool, kept[c][i]);
    return f;
}

/* spare > 0: a pool with only so many frames of each size; k NULL: every lane has formats of
 * its own, and a lower one; now and then lags are longer, and pages wait for a decision. */
static void random_run(uint64_t seed, const wn_format *k, const wn_format *v, int P, int window,
                       uint32_t spare, int n_steps)
{
    static const wn_format *const all[] = { &test_f32, &test_copy_lag1, &test_fixed_lag2,
                                            &test_copy_lag0 };
    run r = { .pool = pool_of(spare ? 16 << 20 : 64 << 20), .rng = seed,
              .raw = k && k->raw && v->raw };
    wn_frame_id *hogged = NULL;
    printf("seed %llu: K %s, V %s, %d slots a page, window %d, %u frames of a size",
           (unsigned long long)seed, k ? k->name : "each", v ? v->name : "each", P, window, spare);
    r.o = (wn_kv_opts){ .pool = r.pool, .map = model_map(2 + (int)(seed % 4), window),
                        .k_format = k, .v_format = v, .raw_format = &test_f32, .page_slots = P,
                        .max_positions = 1500, .ring_rows = 8, .q_dim = 3 };
    for (int l = 0; l < MODEL_LANES; l++)
        r.formats[l] = (wn_lane_formats){ .k = all[(seed + 3 * (uint64_t)l) % 4],
                                          .v = all[(seed / 3 + (uint64_t)l) % 4] };
    for (int l = 0; l < MODEL_LANES && !k; l++) r.formats[l].low_k = r.formats[l].low_v = &test_low;
    if (!k) r.o.formats = r.formats;
    if (!r.raw) {
        r.o.every = seed % 2 ? 0 : 3 * P;
        r.o.lag = seed % 3 ? 0 : 4;
    }
    wn_kv_close(kv_open(&r.o));
    assert_int_equal(wn_threads_open(&r.team, 3, NULL), WN_OK);
    assert_int_equal(wn_kv_crew_open(&r.crew, &r.o, r.team, NULL), WN_OK);
    if (spare) hogged = hog(&r, spare);
    for (int s = 0; s < n_steps; s++) {
        step(&r);
        check_all(&r);
    }
    printf(": %d plans, %d times full, %d truncated, %d restarted, %d saved\n", r.n_applied,
           r.n_full, r.n_cut, r.n_restarted, r.n_saved);
    for (int i = 0; i < N_SEQS; i++) wn_kv_close(r.kv[i]);
    while (r.n_hogged) wn_pool_drop(r.pool, hogged[--r.n_hogged]);
    wn_kv_crew_close(r.crew);
    wn_threads_close(r.team);
    pool_is_empty(r.pool);
    wn_pool_close(r.pool);
}

static void raw_sequences_agree_with_arrays(void **state)
{
    (void)state;
    int n = hard() ? 500 : 150;
    for (uint64_t seed = 1; seed <= (hard() ? 10 : 6); seed++) {
        int P = hard() ? 4 : 4 << 2 * (seed % 3);
        random_run(seed, &test_f32, &test_f32, P, 0, 0, n);
        random_run(seed + 100, &test_f32, &test_f32, P, 37, 0, n);
    }
}

static void sealed_sequences_agree_with_arrays(void **state)
{
    (void)state;
    int n = hard() ? 400 : 120;
    for (uint64_t seed = 1; seed <= (hard() ? 8 : 3); seed++) {
        int P = hard() ? 4 : 4 << 2 * (seed % 3);
        random_run(seed + 200, &test_copy_lag1, &test_copy_lag1, P, 0, 0, n);
        random_run(seed + 300, &test_copy_lag0, &test_f32, P, 50, 0, n);
        random_run(seed + 400, &test_fixed_lag2, &test_copy_lag1, P, 0, 0, n);
        random_run(seed + 500, &test_copy_lag1, &test_fixed_lag2, P, 0, 0, n);
        random_run(seed + 1500, NULL, NULL, P, 0, 0, n);
        random_run(seed + 1600, NULL, NULL, P, 60, 0, n);
    }
}

/* Everything again where there is not enough memory: what does not fit changes nothing. */
static void a_full_pool_changes_nothing(void **state)
{
    (void)state;
    int n = hard() ? 600 : 200;
    for (uint64_t seed = 1; seed <= (hard() ? 8 : 3); seed++) {
        int P = hard() ? 4 : 4 << 2 * (seed % 3);
        uint32_t spare = (uint32_t)(1800 / P + 20);
        random_run(seed + 600, &test_f32, &test_f32, P, 0, spare, n);
        random_run(seed + 700, &test_copy_lag1, &test_fixed_lag2, P, 60, spare, n);
        random_run(seed + 800, &test_copy_lag1, &test_copy_lag0, P, 0, spare, n);
        random_run(seed + 1800, NULL, NULL, P, 40, spare, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_sequences_agree_with_arrays),
        cmocka_unit_test(sealed_sequences_agree_with_arrays),
        cmocka_unit_test(a_full_pool_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
