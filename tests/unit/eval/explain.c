/* What became of a range, on cases that can be worked out by hand: `recent`, whose rule is
 * two numbers, and `random`, whose lots are drawn again here from its formula. */
#include "eval/watch.h"
#include "tests/support/engine.h"
#include "tests/unit/check.h"

enum { LANES = 4, VOCAB = 320, MAX = 400 };     /* 2 layers of 2 heads */
static int32_t ids[MAX];

typedef struct { test_engine t; wn_seq *s; wn_watch *w; } bed;

/* n tokens under a policy, one after another, watching positions [from, to). */
static const wn_explain *watch(bed *b, const char *kv, int n, int from, int to)
{
    wn_err err;
    b->t = test_engine_open(test_tiny_model_path(), (wn_engine_opts){ .max_seqs = 4 });
    if (wn_seq_open(&b->s, b->t.e, &(wn_seq_opts){ .max_tokens = MAX, .kv = kv }, &err))
        fail_msg("%s", err.text);
    if (wn_watch_open(&b->w, b->s, &(wn_watch_opts){ .explain_from = from, .explain_to = to },
                      &err))
        fail_msg("%s", err.text);
    assert_int_equal(wn_seq_feed(b->s, ids, (size_t)n, &err), WN_OK);
    test_steps(&b->t);
    return wn_watch_explains(b->w);
}

static void done(bed *b)
{
    assert_int_equal(wn_watch_close(b->w, NULL), WN_OK);
    wn_seq_close(b->s);
    test_engine_close(&b->t);
}

static char *printed(const wn_explain *x, int n_tokens)
{
    static char text[4000];
    FILE *f = fmemopen(text, sizeof text, "w");
    assert_non_null(f);
    wn_explain_print(x, f, n_tokens);
    fclose(f);
    return text;
}

/* Sinks 0 and 1, a window of 30, decisions at 20, 40, 60 ..: at 40 positions 2 to 9 go, at 60
 * those below 30. Of [8, 13): 8 and 9 at 40, 10 to 12 at 60, in all lanes. */
static void recent_by_hand(void **state)
{
    (void)state;
    bed b;
    const wn_explain *x = watch(&b, "recent(sinks=2,window=30,every=20)", 101, 8, 13);
    assert_int_equal(wn_explain_n(x), 2);
    const wn_explain_event *e = wn_explain_at(x, 0);
    assert_int_equal(e->at, 40);
    assert_string_equal(e->rule, "recent");
    assert_int_equal(e->dropped, 2 * LANES);
    assert_int_equal(e->merged, 0);
    assert_false(e->scored);
    for (int l = 0; l < LANES; l++) assert_true(e->there[l] == 5 && e->taken[l] == 2);
    e = wn_explain_at(x, 1);
    assert_int_equal(e->at, 60);
    for (int l = 0; l < LANES; l++) assert_true(e->there[l] == 3 && e->taken[l] == 3);
    for (int l = 0; l < LANES; l++)
        for (int p = 8; p < 13; p++) assert_false(wn_explain_holds(x, l, p));
    char *text = printed(x, 101);
    assert_non_null(strstr(text, "at 40      recent: dropped 8 of 20 slots"));
    assert_non_null(strstr(text, "at 60      recent: dropped 12 of 12 slots"));
    assert_non_null(strstr(text, "all that they held: layers 0-1 all heads"));
    assert_non_null(strstr(text, "a part of it: layers 0-1 all heads"));
    assert_non_null(strstr(text, "0 of 20 slots are held"));
    done(&b);
    x = watch(&b, "recent(sinks=2,window=30,every=20)", 101, 0, 2);     /* the sinks stay */
    assert_int_equal(wn_explain_n(x), 0);
    assert_non_null(strstr(printed(x, 101), "nothing was dropped of it"));
    assert_non_null(strstr(printed(x, 101), "all of it: layers 0-1 all heads"));
    done(&b);
}

/* The lot of `random` (policy/recipes/random.c). */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static float lot(uint64_t seed, int layer, int head, int pos)
{
    uint64_t s = mix(mix(seed + UINT64_C(0x9e3779b97f4a7c15)) +
                     ((uint64_t)layer << 32 | (uint64_t)head));
    return (float)(mix(s + (uint64_t)pos * UINT64_C(0x9e3779b97f4a7c15)) >> 40) * 0x1p-24f;
}

/* At 32 a quarter of 32 stays in each lane, 8: those with the highest lots. At 64 16 of the 8
 * and the 32 that came since. */
static void random_by_hand(void **state)
{
    (void)state;
    enum { SEED = 5, FROM = 4, TO = 9 };
    bool live[LANES][64];
    bed b;
    const wn_explain *x = watch(&b, "random(seed=5,every=32)@25%", 65, FROM, TO);
    assert_true(wn_explain_n(x) >= 1);
    memset(live, 1, sizeof live);
    for (int k = 0, event = 0; k < 2; k++) {
        int p = k ? 64 : 32, keep = p / 4, dropped = 0, first_rank = 99, last_rank = 0,
            taken[LANES] = { 0 }, there[LANES] = { 0 };
        float least = 2, most = -1;
        for (int l = 0; l < LANES; l++) {
            bool stays[64] = { 0 };
            for (int i = 0; i < p; i++) {
                int rank = 1;
                if (!live[l][i]) continue;
                for (int j = 0; j < p; j++)
                    rank += live[l][j] && j != i &&
                            lot(SEED, l / 2, l % 2, j) > lot(SEED, l / 2, l % 2, i);
                stays[i] = rank <= keep;
                if (i < FROM || i >= TO) continue;
                there[l]++;
                if (stays[i]) continue;
                taken[l]++;
                dropped++;
                first_rank = WN_MIN(first_rank, rank);
                last_rank = WN_MAX(last_rank, rank);
                least = WN_MIN(least, lot(SEED, l / 2, l % 2, i));
                most = WN_MAX(most, lot(SEED, l / 2, l % 2, i));
            }
            memcpy(live[l], stays, (size_t)p);
        }
        if (!dropped) continue;
        assert_true(event < wn_explain_n(x));
        const wn_explain_event *e = wn_explain_at(x, event++);
        assert_int_equal(e->at, p);
        assert_string_equal(e->rule, "random");
        assert_int_equal(e->dropped, dropped);
        assert_true(e->scored && e->least == least && e->most == most);
        assert_int_equal(e->first_rank, first_rank);
        assert_int_equal(e->last_rank, last_rank);
        assert_int_equal(e->least_n, k ? 40 : 32);
        assert_int_equal(e->most_n, k ? 40 : 32);
        assert_true(e->least_keep == keep && e->most_keep == keep);
        for (int l = 0; l < LANES; l++)
            assert_true(e->taken[l] == taken[l] && e->there[l] == there[l]);
    }
    for (int l = 0; l < LANES; l++)
        for (int p = FROM; p < TO; p++) assert_int_equal(wn_explain_holds(x, l, p), live[l][p]);
    done(&b);
}

/* Merged slots live on in another: d2o merges what it does not drop. */
static void merges_are_told_apart(void **state)
{
    (void)state;
    bed b;
    const wn_explain *x = watch(&b, "d2o(every=64)@25%", 65, 4, 40);
    assert_int_equal(wn_explain_n(x), 1);
    const wn_explain_event *e = wn_explain_at(x, 0);
    int64_t taken = 0, held = 0;
    for (int l = 0; l < LANES; l++) {
        taken += e->taken[l];
        for (int p = 4; p < 40; p++) held += wn_explain_holds(x, l, p);
    }
    assert_true(e->merged > 0);
    assert_int_equal(e->merged + e->dropped, taken);
    assert_int_equal(held, LANES * 36 - taken);
    done(&b);
}

int main(void)
{
    test_tokens(ids, MAX, VOCAB, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recent_by_hand),
        cmocka_unit_test(random_by_hand),
        cmocka_unit_test(merges_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
