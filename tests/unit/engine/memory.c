/* What a policy promises about memory: a sequence never holds more frames of any size than
 * it reserved, not even in the middle of a decision; a pool that was sized for a policy and
 * N tokens runs N tokens however they are spread; decisions give memory back, and after the
 * first they allocate nothing. Every recipe in the table, with random schedules, budgets,
 * page sizes, chunks, marks and forks. */
#include "tests/support/engine.h"
#include "tests/support/recipes.h"
#include "tests/unit/check.h"

#include "base/alloc.h"

#include <stdatomic.h>

enum { MAX = 1500, SEQS = 4 };

static int32_t ids[MAX];

static int pick(uint64_t *rng, int from, int to)
{
    return from + (int)(test_rand(rng) % (uint64_t)(to - from + 1));
}

enum { ANY, MERGING, STAGED, ENCODED }; /* which recipes; MERGING: those that merge; STAGED: with
                                           stages; ENCODED: any, with formats that pages are encoded
                                           in */

/* Any recipe of the table; small `every` and small budgets more often than not. */
static void random_policy(char *text, size_t size, uint64_t *rng, int which)
{
    static const char *const at[] = { "boundary", "boundary", "mark", "both" };
    int n = 0;
    while (wn_recipe_at(n)) n++;
    const wn_recipe *r;
    do r = wn_recipe_at(pick(rng, 0, n - 1));
    while ((which == MERGING && !r->recover) || (which == STAGED && !r->score));
    static const int needs[] = { WN_AT_BOUNDARY, WN_AT_BOUNDARY, WN_AT_MARK,
                                 WN_AT_BOUNDARY | WN_AT_MARK };
    int when = pick(rng, 0, 3);
    while (needs[when] & ~r->at) when = pick(rng, 0, 3);
    int every = pick(rng, 1, 8) == 1 ? 512 : 1 << pick(rng, 0, 8);
    every -= every > 2 && pick(rng, 0, 2) == 0;
    size_t k = (size_t)snprintf(text, size, "%s(at=%s,every=%d", r->name, at[when], every);
    int first = pick(rng, 0, 20), last = pick(rng, 0, 90);
    if (pick(rng, 0, 2) == 0)
        k += (size_t)snprintf(text + k, size - k, ",first=%d,last=%d", first, last);
    k += (size_t)snprintf(text + k, size - k, ")");
    if (which == STAGED) {              /* what they allocate and merge is the stages' affair, not
                                           the recipe's */
        static const char *const stages[] = {
            "+recover:nearest", "+recover:compensate", "+alloc:ada+recover:nearest",
            "+alloc:ada",       "+recover:demote",     "+alloc:ada+recover:demote(k=q8,share=0.3)"
        };
        k += (size_t)snprintf(text + k, size - k, "%s", stages[pick(rng, 0, 5)]);
    }
    switch (r->kind == WN_CLASS_FULL ? 0 : pick(rng, 0, 7)) {
    case 0: break;
    case 1: k += (size_t)snprintf(text + k, size - k, "@%dB", pick(rng, 1, 200000)); break;
    case 2: case 3: k += (size_t)snprintf(text + k, size - k, "@%d", pick(rng, 1, 300)); break;
    default: k += (size_t)snprintf(text + k, size - k, "@%d%%", pick(rng, 1, 100));
    }
    if (which != ENCODED) return;
    static const char *const formats[] = { "kv=q8",
                                           "kv=q4",
                                           "kv=kivi2",
                                           "k=kivi2,v=q4",
                                           "k=q4_0,v=f32",
                                           "kv=q4,kv[0]=f16",
                                           "k=f16,v=kivi4,lag=3",
                                           "kv=kivi4,k[-1]=q8,lag=2" };
    snprintf(text + k, size - k, ",%s", formats[pick(rng, 0, 7)]);
}

static void check_reserved(test_engine *t, const char *what)
{
    for (int c = 0; c < WN_POOL_CLASSES; c++) {
        uint32_t used, peak, sum = 0;
        wn_pool_class_use(t->e->pool, c, &used, &peak);
        for (int i = 0; i < t->e->n_seqs; i++) sum += t->e->seqs[i]->reserved[c];
        assert_int_equal(sum, t->e->reserved[c]);
        if (t->e->decisions.peak > t->e->needs_arena)
            fail_msg("%s: a decision took %zu bytes, %zu were claimed", what, t->e->decisions.peak,
                     t->e->needs_arena);
        if (peak > sum)
            fail_msg("%s: %u frames of class %d at the peak, %u are reserved", what, peak, c, sum);
    }
}

/* Numbers of statistics, with the room they have and what is noted, are within what was claimed. */
static void check_ledgers(test_engine *t, const char *what)
{
    for (int i = 0; i < t->e->n_seqs; i++) {
        const wn_seq *s = t->e->seqs[i];
        if (!s->ledger.n_stats) continue;
        size_t claimed = wn_engine_ledger_bytes(t->e, s->policy, wn_seq_most_ever(s), s->n_held),
               held = wn_ledger_bytes(&s->ledger, s->kv) + wn_ledger_noted_bytes(&s->ledger);
        if (s->every)
            held = (s->ledger.used + s->ledger.n_noted) * sizeof(float);
        if (held > claimed)
            fail_msg("%s: statistics hold %zu bytes, %zu were claimed", what, held, claimed);
    }
}

static void step(test_engine *t, const char *what)
{
    wn_err err = { 0 };
    if (wn_engine_step(t->e, NULL, &err)) fail_msg("%s: %s", what, err.text);
    check_reserved(t, what);
    check_ledgers(t, what);
}

static wn_seq *must_open(test_engine *t, const char *kv, int n, const char *what)
{
    wn_err err = { 0 };
    wn_seq *s;
    if (wn_seq_open(&s, t->e, &(wn_seq_opts){ .max_tokens = n, .kv = kv }, &err))
        fail_msg("%s: %s", what, err.text);
    return s;
}

/* One round: sequences of one policy or of several, fed in random pieces, with marks; now
 * and then one is forked, cut or closed. */
static void a_round(uint64_t seed, bool one, int which)
{
    uint64_t rng = seed;
    char kv[SEQS][200], what[320];
    wn_err err = { 0 };
    wn_seq *s[SEQS] = { 0 };
    int slots = 4 << pick(&rng, 0, 4);
    test_engine t = test_engine_open(test_tiny_model_path(), (wn_engine_opts){
        .n_threads = 1, .max_seqs = which >= STAGED ? 16 * SEQS : SEQS, .page_slots = slots,
        .n_batch = pick(&rng, 1, 4) == 1 ? 7 : 1 << pick(&rng, 4, 9), .n_ctx = 2048 });
    for (int i = 0; i < SEQS; i++) random_policy(kv[i], sizeof kv[i], &rng, which);
    int n_open = one ? 1 : pick(&rng, 2, SEQS), longest = pick(&rng, 1, 6) == 1 ? MAX : 300;
    for (int i = 0; i < n_open; i++) s[i] = must_open(&t, kv[i], pick(&rng, 1, longest), kv[i]);
    snprintf(what, sizeof what, "seed %d, pages of %d, %s", (int)seed, slots,
             one ? kv[0] : "several");
    wn_pool_reset_peak(t.e->pool);
    for (int op = 0; op < 60; op++) {
        int i = pick(&rng, 0, SEQS - 1);
        if (!s[i]) {
            if (one || pick(&rng, 0, 5)) continue;
            int from = pick(&rng, 0, SEQS - 1);
            if (s[from] && wn_seq_fork(&s[i], s[from], NULL, &err) == WN_OK)
                check_reserved(&t, what);
            continue;
        }
        int left = s[i]->opts.max_tokens - wn_seq_n_tokens(s[i]),
            n = pick(&rng, 1, longest / 4 + 1);
        n = WN_MIN(n, left);
        if (wn_seq_feed(s[i], ids, (size_t)n, &err)) fail_msg("%s: %s", what, err.text);
        if (pick(&rng, 0, 2) == 0) assert_int_equal(wn_seq_mark(s[i], &err), WN_OK);
        for (int k = pick(&rng, 0, 3); k > 0; k--) step(&t, what);
        if (pick(&rng, 0, 9) == 0 &&
            wn_seq_truncate(s[i], pick(&rng, 0, wn_seq_n_tokens(s[i])), &err))
            fail_msg("%s", err.text);
        if (!one && pick(&rng, 0, 19) == 0) {
            wn_seq_close(s[i]);
            s[i] = NULL;
            wn_pool_reset_peak(t.e->pool);
        }
        check_reserved(&t, what);
        if (op % 8 == 0)
            for (int j = 0; j < SEQS; j++)
                if (s[j]) wn_kv_check(s[j]->kv);
    }
    for (int rows = 1; rows;) {
        if (wn_engine_step(t.e, &rows, &err)) fail_msg("%s: %s", what, err.text);
        check_reserved(&t, what);
    }
    for (int i = 0; i < SEQS; i++) wn_seq_close(s[i]);
    wn_pool_check(t.e->pool);
    test_engine_close(&t);
}

static int rounds(int n)
{
    const char *more = getenv("WN_TEST_ROUNDS");
    return more ? atoi(more) : n;
}

static void a_sequence_keeps_within_its_reservation(void **state)
{
    (void)state;
    for (int i = 0; i < rounds(60); i++) a_round(1000 + (uint64_t)i, true, ANY);
}

/* Raw and sealed pages are frames of different sizes, and for a while a page has both. */
static void so_do_encoded_ones(void **state)
{
    (void)state;
    for (int i = 0; i < rounds(80); i++) a_round(4000 + (uint64_t)i, i % 3 != 0, ENCODED);
}

/* Merge pages have three tables each, are half empty too, and are made while their sources
 * are still there. The peak of each class is that inside decisions. */
static void so_do_those_that_merge(void **state)
{
    (void)state;
    for (int i = 0; i < rounds(60); i++) a_round(2000 + (uint64_t)i, i % 3 != 0, MERGING);
}

/* Stages named in the policy's text merge and allocate where the recipe alone does not. */
static void so_do_those_with_stages(void **state)
{
    (void)state;
    for (int i = 0; i < rounds(60); i++) a_round(3000 + (uint64_t)i, i % 3 != 0, STAGED);
}

static void so_do_several_with_forks(void **state)
{
    (void)state;
    for (int i = 0; i < rounds(40); i++) a_round(5000 + (uint64_t)i, false, ANY);
}

/* N tokens over S sequences at random: all open, all run to their last token. */
static void a_pool_runs_what_it_was_sized_for(void **state)
{
    (void)state;
    for (int i = 0; i < rounds(30); i++) {
        uint64_t seed = 9000 + (uint64_t)i, rng = seed;
        char kv[120], what[320];
        wn_seq *s[8];
        wn_err err = { 0 };
        int n_seqs = pick(&rng, 1, 8), n = pick(&rng, 8, MAX), left = n, rows = 1;
        random_policy(kv, sizeof kv, &rng, i % 3 ? ANY : MERGING);
        if (pick(&rng, 0, 3) == 0) strcat(kv, ",k=f32,v=bf16");
        int slots = 4 << pick(&rng, 0, 4);
        snprintf(what, sizeof what, "seed %d, %s, %d tokens, %d sequences, pages of %d", (int)seed,
                 kv, n, n_seqs, slots);
        test_engine t = test_engine_open(test_tiny_model_path(), (wn_engine_opts){
            .n_threads = 1, .max_seqs = n_seqs, .pool_tokens = n, .page_slots = slots, .kv = kv,
            .n_batch = 256 });
        for (int j = 0; j < n_seqs; j++) {
            int most = left - (n_seqs - 1 - j),
                mine = j == n_seqs - 1 ? left : pick(&rng, 1, pick(&rng, 1, most));
            s[j] = must_open(&t, kv, mine, what);
            left -= mine;
            if (wn_seq_feed(s[j], ids, (size_t)mine / 2, &err) || wn_seq_mark(s[j], &err) ||
                wn_seq_feed(s[j], ids, (size_t)(mine - mine / 2), &err))
                fail_msg("%s", err.text);
        }
        while (rows)
            if (wn_engine_step(t.e, &rows, &err)) fail_msg("%s: %s", what, err.text);
        for (int j = 0; j < n_seqs; j++) wn_seq_close(s[j]);
        test_engine_close(&t);
    }
}

/* The same promise where extents are counted in dozens: opened, not run. */
static void a_large_pool_admits_what_it_was_sized_for(void **state)
{
    (void)state;
    for (int i = 0; i < rounds(12); i++) {
        uint64_t seed = 300 + (uint64_t)i, rng = seed;
        char kv[120], what[320];
        wn_seq *s[32];
        int n_seqs = pick(&rng, 2, 32), n = n_seqs * pick(&rng, 64, 2048), left = n, n_open = 0;
        random_policy(kv, sizeof kv, &rng, i % 3 ? ANY : MERGING);
        int slots = 4 << pick(&rng, 0, 4);
        snprintf(what, sizeof what, "seed %d, %s, %d tokens, %d sequences, pages of %d", (int)seed,
                 kv, n, n_seqs, slots);
        test_engine t = test_engine_open(test_model_path("llama", "Q8_0"), (wn_engine_opts){
            .n_threads = 1, .max_seqs = n_seqs, .pool_tokens = n, .page_slots = slots, .kv = kv,
            .n_ctx = 4096, .n_batch = 8 });
        for (int j = 0; j < n_seqs && left > 0; j++) {
            int least = WN_MAX(1, left - (n_seqs - 1 - j) * 4096), most = WN_MIN(4096, left);
            int mine = j == n_seqs - 1 ? left : pick(&rng, least, pick(&rng, least, most));
            s[n_open++] = must_open(&t, kv, mine, what);
            left -= mine;
        }
        while (n_open) wn_seq_close(s[--n_open]);
        wn_engine_info ei;
        wn_engine_get_info(t.e, &ei);
        assert_true(ei.room >= WN_MIN(n, 4096));
        test_engine_close(&t);
    }
}

static void decisions_give_memory_back(void **state)
{
    (void)state;
    static const char *const kv[] = { "random(every=64)@25%", "recent(every=64)@25%",
                                      "random(every=64)@128", "recent(sinks=4,window=124,every=64)",
                                      "random(every=64,at=mark)@25%" };
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        wn_err err = { 0 };
        wn_seq_stats st;
        test_engine t = test_engine_open(test_tiny_model_path(),
                                         (wn_engine_opts){ .n_threads = 1, .page_slots = 16 });
        wn_seq *s = must_open(&t, kv[i], 600, kv[i]);
        assert_int_equal(wn_seq_feed(s, ids, 512, &err), WN_OK);
        test_steps(&t);
        assert_int_equal(wn_seq_mark(s, &err), WN_OK);
        assert_int_equal(wn_seq_feed(s, ids, 1, &err), WN_OK);
        test_steps(&t);
        wn_seq_get_stats(s, &st);
        /* 128 slots and one more in each of 4 lanes: 9 pages, 10 where 1/16 lies dead; 16
         * channels of K and V of 2 bytes; 8 bytes of mask and 64 of positions for a page */
        assert_int_equal(st.kv_slots, 4 * 129);
        assert_int_equal(st.kv_slots_full, 4 * 513);
        assert_true(st.kv_bytes <= 4 * 10 * (16 * 16 * 2 * 2 + 72));
        assert_true(st.kv_bytes_peak > st.kv_bytes);
        uint32_t used = 0, sum = 0;
        for (int c = 0; c < WN_POOL_CLASSES; c++) {
            uint32_t peak;
            wn_pool_class_use(t.e->pool, c, &used, &peak);
            sum += used;
        }
        assert_true(sum <= 4 * 10 * 3);         /* really given back to the pool */
        wn_seq_close(s);
        test_engine_close(&t);
    }
}

/* At 25 % of 8192 tokens all that a sequence holds right after a decision is at most 1.10 times the
 * budget and 128 raw tokens, numbers of statistics included, in pages of 8 and of 4 bits too; and
 * on the way there, by what comes between two decisions more. A merged slot is raw, so d2o has
 * f16 pages here. */
static void statistics_cost_what_live_slots_cost(void **state)
{
    (void)state;
    enum { N = 8192, LANES = 2, EVERY = 512, RAW = 2 * 2 * 64 };
    static const struct { const char *kv; int n_stats; double bar; } cases[] = {
        { "h2o@25%,kv=q8", 1, 1.10 },
        { "h2o@25%,kv=q4", 1, 1.10 },
        { "h2o(at=mark)@25%,kv=q4", 1, 1.10 },
        { "d2o@25%", 1, 1.10 },
    };
    static int32_t text[N + 1];
    test_tokens(text, N + 1, 320, 9);
    for (size_t i = 0; i < WN_COUNT(cases); i++) {
        wn_err err = { 0 };
        wn_seq_stats st;
        const char *kv = cases[i].kv;
        test_engine t = test_engine_open(test_long_model_path(),
                                         (wn_engine_opts){ .n_ctx = N + 64, .max_seqs = 1,
                                                           .kv = kv });
        wn_seq *s = must_open(&t, kv, N + 64, kv);
        assert_int_equal(wn_seq_feed(s, text, N, &err), WN_OK);
        test_steps(&t);
        assert_int_equal(wn_seq_mark(s, &err), WN_OK);
        assert_int_equal(wn_seq_feed(s, text + N, 1, &err), WN_OK);
        step(&t, kv);
        wn_seq_get_stats(s, &st);
        double budget = wn_seq_slot_bytes(s) * LANES * (N / 4), raw = 128.0 * LANES * RAW,
               bytes = (double)st.kv_bytes - raw, peak = (double)st.kv_bytes_peak - raw,
               more = EVERY * LANES * (RAW + 4.0 * cases[i].n_stats);
        printf("%-24s %.3f of the budget, %.3f without statistics; noted %.3f; at most %.3f + "
               "every\n",
               kv, bytes / budget,
               (bytes - (double)wn_ledger_bytes(&s->ledger, s->kv)) / budget,
               (double)wn_ledger_noted_bytes(&s->ledger) / budget, (peak - more) / budget);
        if (bytes > cases[i].bar * budget) fail_msg("%s: %.3f of the budget", kv, bytes / budget);
        if (s->every && peak > cases[i].bar * budget + more)
            fail_msg("%s: at most %.3f of the budget", kv, peak / budget);
        /* the rest was given back */
        assert_true(s->ledger.touched <= s->ledger.used * 17 / 16);
        wn_seq_close(s);
        test_engine_close(&t);
    }
}

/* Allocations behind the library's door to malloc are counted too: qsort of libc makes some
 * for long arrays. Sanitizers have a malloc of their own; there the count stays 0. */
static atomic_long n_mallocs;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void *__libc_malloc(size_t n);
void *malloc(size_t n)
{
    atomic_fetch_add(&n_mallocs, 1);
    return __libc_malloc(n);
}
#endif

static void decisions_allocate_nothing(void **state)
{
    (void)state;
    char kv[100];
    for (int i = 0; wn_recipe_at(i); i++) {
        const wn_recipe *r = wn_recipe_at(i);
        wn_err err = { 0 };
        if (!(r->at & WN_AT_BOUNDARY)) continue;
        snprintf(kv, sizeof kv, "%s(every=64%s)%s", r->name,
                 r->kind == WN_CLASS_HEAD_SHARE ? ",recent=64" : "",
                 r->kind == WN_CLASS_FULL ? "" : "@50%");
        test_engine t = test_engine_open(test_tiny_model_path(),
                                         (wn_engine_opts){ .n_threads = 1, .kv = kv });
        wn_seq *s = must_open(&t, kv, MAX, kv);
        assert_int_equal(wn_seq_feed(s, ids, 200, &err), WN_OK);
        test_steps(&t);                         /* the first decisions build the plan's memory */
        long before = wn_alloc_count();
        long behind = atomic_load(&n_mallocs);
        wn_alloc_forbid(true);
        assert_int_equal(wn_seq_feed(s, ids, MAX - 200, &err), WN_OK);
        test_steps(&t);
        wn_alloc_forbid(false);
        assert_int_equal(wn_alloc_count(), before);
        assert_int_equal(atomic_load(&n_mallocs), behind);
        wn_seq_close(s);
        test_engine_close(&t);
    }
}

int main(void)
{
    test_recipes_add();
    test_tokens(ids, MAX, 320, 3);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_keeps_within_its_reservation),
        cmocka_unit_test(so_do_encoded_ones),
        cmocka_unit_test(so_do_those_that_merge),
        cmocka_unit_test(so_do_those_with_stages),
        cmocka_unit_test(so_do_several_with_forks),
        cmocka_unit_test(a_pool_runs_what_it_was_sized_for),
        cmocka_unit_test(a_large_pool_admits_what_it_was_sized_for),
        cmocka_unit_test(decisions_give_memory_back),
        cmocka_unit_test(statistics_cost_what_live_slots_cost),
        cmocka_unit_test(decisions_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
