/* Every cache format with recipes of every kind: the law of tests/same/policies.c holds where
 * pages are encoded, too. When a page is encoded, what a decision finds raw, what moves as codes
 * and what is encoded anew follow from positions; so the bytes do not depend on chunks, threads,
 * neighbours, forks, truncations or session files. A budget that nothing reaches gives the bytes
 * of `none` with the same formats, as long raw.
 *
 * Each (format, recipe) is run in some of the ways, so that each format and each recipe meets
 * all of them; with WN_TEST_HARD=1 every pair is run, in a quarter of them. */
#include "tests/support/law.h"
#include "tests/unit/check.h"

static const char *const recipes[] = {
    "none",
    "streaming(sinks=4,window=100,every=64)",
    "h2o(every=64)@25%",
    "snapkv(at=both,every=128)@30%",
    "keydiff(every=100)@40%",
    "d2o(every=128)@25%",
    "snapkv(at=mark)@20%",
    "random(every=64)@25%",
    "h2o(every=64)+recover:demote(k=q4,v=kivi2)@20%",
    "snapkv(at=both,every=128)+recover:demote(k=q4h,v=q4h)@20%",
    "random(at=both,every=100)+recover:demote(k=q8,v=q4_0,share=0.4)@70",
    "keydiff(every=64)+recover:demote(k=cq2,v=cq1)@25%",
    "h2o(every=64)+recover:demote(k=nuq3-s1,v=nuq2)@20%",
};
/* Beside one format for all: mixed over K, V, layers and heads, and longer raw. */
static const char *const mixes[] = {
    "k=kivi2,v=q8",         "kv=q4,kv[0]=f16,k[-1:0]=bf16", "k=q8_0,v=kivi4,v[1]=q4_0r,lag=2",
    "k=f32,v=q4",           "k=q5_1,v=f16,lag=3",           "k=cq2,v=q4,kv[1]=cq4",
    "k=nuq3,v=cq1,k[0]=q8",
};

/* Of formats with options one of each repack class of K and V. */
static const char options[] = "q2-s1 q2-s1r2 kivi2-s1 kivi2-r2 nuq2-s1";

static bool hard(void) { return getenv("WN_TEST_HARD") != NULL; }

/* The formats of row i; false past the last. */
static bool formats(int i, char text[64])
{
    int n = 0;
    for (int k = 0; wn_format_at(k); k++) {
        const char *name = wn_format_at(k)->name;
        if (wn_format_at(k)->raw || (strchr(name, '-') && !strstr(options, name)) || n++ != i)
            continue;
        snprintf(text, 64, "kv=%s", name);
        return true;
    }
    if (i - n >= (int)WN_COUNT(mixes)) return false;
    snprintf(text, 64, "%s", mixes[i - n]);
    return true;
}

static void the_law_holds(void **state)
{
    static const law_way ways[] = {
        { .threads = 2, .chunk = 7 }, { .threads = 2, .chunk = 50,
          .neighbours = true }, { .threads = 1, .chunk = 1 },
        { .threads = 2, .chunk = 64 }, { .threads = 1, .chunk = LAW_N },
    };
    static const int cuts[] = { 128, 333, 512, 513, 390 };
    char f[64], kv[200];
    (void)state;
    for (int i = 0; formats(i, f); i++)
        for (size_t r = 0; r < WN_COUNT(recipes); r++) {
            if (!hard() && (i + (int)r) % 2) continue;
            snprintf(kv, sizeof kv, "%s,%s", recipes[r], f);
            float *ref = law_reference(kv);
            for (size_t k = 0; k < WN_COUNT(ways) + WN_COUNT(cuts); k++) {
                if (hard() ? (k + (size_t)i + r) % 4 : k % 5 != (size_t)(i / 2 + (int)r) % 5)
                    continue;
                law_way w = ways[k % WN_COUNT(ways)];
                w.kv = kv;
                if (k < WN_COUNT(ways)) law_compare(ref, w);
                else law_cut_at(kv, cuts[k - WN_COUNT(ways)], ref);
            }
            free(ref);
        }
}

/* What is not decided about is encoded as without a policy. K of kivi2 and kivi4 waits for a
 * decision at boundaries: every / P + 1 pages, as lag= would have it. */
static void nothing_to_drop_is_none(void **state)
{
    static const char *const pairs[][2] = {
        { "snapkv(at=mark)@100%,kv=q4", "none,kv=q4" },
        { "h2o(every=64)@650,kv=q4", "none,kv=q4" },
        { "keydiff(every=512)@100%,kv=q8_0", "none,kv=q8_0" },
        { "snapkv(at=mark)@100%,kv=kivi2", "none,kv=kivi2" },
        { "h2o(every=64)@650,k=kivi2", "none,k=kivi2,lag=2" },
        { "keydiff(every=512)@64MiB,k=kivi4,k[1]=f16", "none,k=kivi4,k[1]=f16,lag=9" },
    };
    (void)state;
    for (size_t i = 0; i < WN_COUNT(pairs) && !law_slots; i++) {
        float *ref = law_reference(pairs[i][1]);
        law_compare(ref, (law_way){ .kv = pairs[i][0], .threads = 2, .chunk = 100 });
        free(ref);
    }
}

/* Encoding is visible from the first page that is read encoded on, and not before. */
static void encoding_is_visible(void **state)
{
    char f[64], kv[100];
    (void)state;
    float *none = law_reference(NULL);
    for (int i = 0; formats(i, f) && i < 14; i++) {
        snprintf(kv, sizeof kv, "none,%s", f);
        float *got = law_reference(kv);
        int P = law_slots ? law_slots : 64;
        test_same_logits(kv, none, got, 2 * P, LAW_VOCAB);
        if (!memcmp(got + 2 * P * LAW_VOCAB, none + 2 * P * LAW_VOCAB, sizeof(float) * LAW_VOCAB))
            fail_msg("%s: nothing changes at %d", kv, 2 * P);
        free(got);
    }
    free(none);
}

/* The larger model: quantised weights, heads of 64 channels. */
static void vector_kernels(void **state)
{
    static const char *const kv[] = { "h2o(every=64)@25%,kv=q4",
                                      "snapkv(at=both,every=64)@25%,k=kivi2,v=q8", "none,kv=q8_0" };
    const char *tiny = law_model;
    (void)state;
    law_model = test_model_path("llama", "Q8_0");
    for (size_t i = 0; i < WN_COUNT(kv); i++) {
        float *ref = law_reference(kv[i]);
        law_compare(ref, (law_way){ .kv = kv[i], .threads = 2, .chunk = 7 });
        law_compare(ref, (law_way){ .kv = kv[i], .threads = 2, .chunk = 50, .neighbours = true });
        law_cut_at(kv[i], 390, ref);
        free(ref);
    }
    law_model = tiny;
}

int main(void)
{
    test_tokens(law_ids, LAW_N, LAW_VOCAB, 1);
    law_model = test_tiny_model_path();
    if (hard()) law_slots = 16;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_law_holds),
        cmocka_unit_test(nothing_to_drop_is_none),
        cmocka_unit_test(encoding_is_visible),
        cmocka_unit_test(vector_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
