/* Decided lanes: what plans drop, merge, shift and bias is what attention sees, against
 * the definition in double; repacking or not, page sizes, chunks and threads change no bit. */
#include "tests/unit/check.h"
#include "tests/support/attn_bed.h"

#include <math.h>

enum { N = 1180, AT = 1020, LANES = 2 };

static bed bed_of(void)
{
    return (bed){ .shape = { .n_heads = 4, .n_kv_heads = LANES, .k_dim = 32, .v_dim = 48,
                             .scale = 0.2f },
                  .n = N, .seed = 8, .threads = 1 };
}

/* One decision at AT; what it does is drawn from a seed, the same for plan and rules. */
typedef struct {
    uint64_t seed;
    int percent;                        /* dropped */
    bool no_repack, biases, shifts;
} decision;

static uint64_t draw(const decision *d, int lane, int pos)
{
    uint64_t s = d->seed + (uint64_t)(lane * 100000 + pos);
    return test_rand(&s);
}

static bool dropped(const decision *d, int lane, int pos)
{
    return pos < AT && (int)(draw(d, lane, pos) % 100) < d->percent;
}

static bool sees(const void *ctx, int lane, int p, int pos)
{
    return p < AT || !dropped(ctx, lane, pos);
}

static double bias_of(const void *ctx, int lane, int pos)
{
    const decision *d = ctx;
    return d->biases && pos < AT && pos % 7 == 3 && !dropped(d, lane, pos) ? 0.5 * (pos % 5) : 0;
}

static int shift_of(const void *ctx, int lane, int pos)
{
    const decision *d = ctx;
    if (!d->shifts || pos >= AT) return 0;
    return pos < 100 ? 200 : pos >= 300 && pos < 650 + lane * 10 ? -7 : 0;
}

static void decide(void *ctx, wn_kv *kv, int n)
{
    const decision *d = ctx;
    wn_plan plan;
    wn_err err;
    if (n != AT) return;
    wn_plan_init(&plan, n, LANES);
    plan.no_repack = d->no_repack;
    for (int lane = 0; lane < LANES; lane++) {
        for (int pos = 0; pos < n; pos++)
            if (dropped(d, lane, pos)) wn_plan_drop(&plan, lane, pos, pos + 1);
            else if (bias_of(d, lane, pos) != 0)
                wn_plan_set_bias(&plan, lane, pos, (float)bias_of(d, lane, pos));
        if (!d->shifts) continue;
        wn_plan_shift(&plan, lane, 0, 100, 200);
        wn_plan_shift(&plan, lane, 300, 650 + lane * 10, -7);
    }
    assert_int_equal(plan.status, WN_OK);
    if (wn_kv_apply(kv, &plan, &err)) fail_msg("%s", err.text);
    wn_plan_release(&plan);
}

/* Rows before AT do not see the decision, in the definition as in the cache. */
static bed_rules rules_of(const decision *d) { return (bed_rules){ sees, NULL, NULL, d }; }

static const int cut_one[] = { AT, 1, 0 }, cut_few[] = { 510, 510, 7, 0 },
                 cut_wide[] = { AT, N - AT, 0 };

static void check_tail(const bed *b, const float *x, const float *y, double bound)
{
    size_t row = (size_t)(b->shape.n_heads * b->shape.v_dim);
    for (size_t i = AT * row; i < N * row; i++)
        if (!(fabs((double)x[i] - (double)y[i]) <= bound))
            fail_msg("position %zu: %g, not %g", i / row, (double)x[i], (double)y[i]);
}

/* All ways of running one decision, and the definition (of the rows after it). */
static void one_decision(decision d, double bound)
{
    static const struct { const int *chunks; int threads, P, no_repack;
    } ways[] = {
        { cut_wide, 1, 64, 0 }, { cut_one, 2, 64, 0 }, { cut_few, 3, 64, 1 },
        { cut_one, 1, 4, 1 },   { cut_wide, 2, 4, 0 },
    };
    wn_rope rope;
    wn_rope_init(&rope, 32, false, 10000, 1, NULL);
    bed b = bed_of();
    b.rope = &rope;
    b.decide = decide;
    b.ctx = &d;
    bed_rules rules = rules_of(&d);
    rules.bias = bias_of;
    rules.shift = shift_of;
    float *want = bed_reference(&b, &rules), *first = NULL;
    for (size_t i = 0; i < WN_COUNT(ways); i++) {
        b.chunks = ways[i].chunks;
        b.threads = ways[i].threads;
        b.page_slots = ways[i].P;
        d.no_repack = ways[i].no_repack;
        float *x = bed_run(&b);
        if (!first) {
            check_tail(&b, x, want, bound);
            first = x;
            continue;
        }
        if (memcmp(x, first, (size_t)(N * b.shape.n_heads * b.shape.v_dim) * 4))
            fail_msg("way %zu differs by %g", i, bed_difference(&b, x, first));
        free(x);
    }
    free(first), free(want);
}

static void dropped_slots_are_not_seen(void **state)
{
    (void)state;
    one_decision((decision){ .seed = 1, .percent = 3 }, 3e-6);
    one_decision((decision){ .seed = 2, .percent = 60 }, 3e-6);
    one_decision((decision){ .seed = 3, .percent = 99 }, 3e-6);
}

static void biases_are_added(void **state)
{
    (void)state;
    one_decision((decision){ .seed = 4, .percent = 50, .biases = true }, 5e-6);
}

static void shifted_segments_act_from_elsewhere(void **state)
{
    (void)state;
    one_decision((decision){ .seed = 5, .percent = 0, .shifts = true }, 5e-6);
    one_decision((decision){ .seed = 6, .percent = 70, .shifts = true, .biases = true }, 5e-6);
}

/* Merging two slots that are equal, with bias ln 2, changes nothing but rounding: keys
 * and values of pairs are made equal by asking for the whole weight of one of them. */
static void merge_pairs(void *ctx, wn_kv *kv, int n)
{
    const decision *d = ctx;
    wn_plan plan;
    wn_err err;
    if (n != AT) return;
    wn_plan_init(&plan, n, LANES);
    plan.no_repack = d->no_repack;
    for (int lane = 0; lane < LANES; lane++)
        for (int pos = 0; pos + 1 < n; pos += 2) {
            if ((int)(draw(d, lane, pos) % 100) >= d->percent) continue;
            int32_t src[2] = { pos, pos + 1 };
            float one[2] = { 1, 0 };
            wn_plan_merge_slots(&plan, lane, pos + 1, src, one, one, 2, 0.75f, 2);
        }
    if (wn_kv_apply(kv, &plan, &err)) fail_msg("%s", err.text);
    wn_plan_release(&plan);
}

/* The slot at pos + 1 is gone, that of pos stands for both. */
static bool sees_merged(const void *ctx, int lane, int p, int pos)
{
    const decision *d = ctx;
    if (p < AT || pos >= AT || pos % 2 == 0) return true;
    return (int)(draw(d, lane, pos - 1) % 100) >= d->percent;
}

static double merged_bias(const void *ctx, int lane, int pos)
{
    const decision *d = ctx;
    return pos < AT && pos % 2 == 0 && (int)(draw(d, lane, pos) % 100) < d->percent ? 0.75 : 0;
}

static void merged_slots_are_seen_once(void **state)
{
    (void)state;
    static const int percents[] = { 10, 80 };
    for (int i = 0; i < 2; i++) {
        decision d = { .seed = 9, .percent = percents[i] };
        bed b = bed_of();
        b.decide = merge_pairs;
        b.ctx = &d;
        b.chunks = cut_wide;
        bed_rules rules = { sees_merged, merged_bias, NULL, &d };
        float *want = bed_reference(&b, &rules), *x = bed_run(&b);
        check_tail(&b, x, want, 5e-6);
        b.chunks = cut_one;
        b.page_slots = 4;
        b.threads = 2;
        d.no_repack = true;
        float *y = bed_run(&b);
        assert_memory_equal(x, y, (size_t)(N * b.shape.n_heads * b.shape.v_dim) * 4);
        free(want), free(x), free(y);
    }
}

/* Rows of K and V of 4i .. 4i + 3 are equal. */
static void fours(void *ctx, int pos, float *q, float *k, float *v)
{
    bed first = bed_of();
    float unused[4 * 32];
    (void)ctx;
    (void)q;
    bed_rows(&first, pos & ~3, unused, k, v);
}

/* Four equal slots are one with bias ln 4, in two steps: pairs at AT, pairs of pairs later. */
static void merge_equals(void *ctx, wn_kv *kv, int n)
{
    const int *step = ctx;
    wn_plan plan;
    wn_err err;
    if (n != AT && n != AT + 40) return;
    int apart = n == AT ? 1 : 2;
    wn_plan_init(&plan, n, LANES);
    for (int lane = 0; lane < LANES; lane++)
        for (int pos = 0; pos < AT; pos += 2 * apart) {
            int32_t src[2] = { pos, pos + apart };
            float w[2] = { 0.3f, 0.7f };
            wn_plan_merge_slots(&plan, lane, pos, src, w, w, 2,
                                *step ? logf((float)(2 * apart)) : 0, 2 * apart);
        }
    if (wn_kv_apply(kv, &plan, &err)) fail_msg("%s", err.text);
    wn_plan_release(&plan);
}

/* Merging equal keys is exact when the merged slot counts for all of them, and far off when
 * it does not (then the slot keeps a quarter of the mass). */
static void equal_keys_merge_exactly(void **state)
{
    (void)state;
    static const int cut[] = { AT, 40, N - AT - 40, 0 };
    for (int biased = 0; biased < 2; biased++) {
        bed b = bed_of();
        b.spoil = fours;
        b.chunks = cut;
        b.shape.softcap = 6;
        float *want = bed_run(&b);
        b.decide = merge_equals;
        b.ctx = &biased;
        float *x = bed_run(&b);
        double d = bed_difference(&b, x, want);
        if (biased ? !(d < 3e-6) : d < 1e-3) fail_msg("off by %g", d);
        free(want), free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dropped_slots_are_not_seen),
        cmocka_unit_test(biases_are_added),
        cmocka_unit_test(shifted_segments_act_from_elsewhere),
        cmocka_unit_test(merged_slots_are_seen_once),
        cmocka_unit_test(equal_keys_merge_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
