/* The answers are those of the definition in double, and no way of running changes a bit:
 * chunks, threads, slots per page, kernel table, neighbours in the batch. */
#include "tests/unit/check.h"
#include "tests/support/attn_bed.h"

#include <math.h>

static wn_rope rope_of(int n_dims, bool neox)
{
    wn_rope r;
    wn_rope_init(&r, n_dims, neox, 10000, 1, NULL);
    return r;
}

static bed bed_of(int heads, int kv_heads, int dim, int n)
{
    return (bed){
        .shape = { .n_heads = heads, .n_kv_heads = kv_heads, .k_dim = dim, .v_dim = dim,
                   .scale = 1 / sqrtf((float)dim) },
        .n = n, .seed = 5, .threads = 1,
    };
}

static void near(const bed *b, double bound)
{
    float *x = bed_run(b), *y = bed_reference(b, NULL);
    double d = bed_difference(b, x, y);
    if (!(d < bound)) fail_msg("off by %g, allowed %g", d, bound);
    free(x), free(y);
}

/* f32: chains of up to 1200 terms of size 1, so some 1e-6; f16: 2^-11 of the values. */
static void answers_are_the_definition(void **state)
{
    (void)state;
    static const int dims[] = { 32, 64, 80, 96, 128, 256 };
    wn_rope r;
    for (int i = 0; i < 6; i++) {
        bed b = bed_of(4, i % 2 ? 2 : 1, dims[i], 150);
        r = rope_of(i % 3 ? dims[i] : dims[i] / 2, i % 2);
        b.rope = &r;
        near(&b, 3e-6);
        b.format = &wn_format_f16;
        near(&b, 3e-3);
        b.format = &wn_format_bf16;
        near(&b, 3e-2);
    }
    bed b = bed_of(6, 2, 64, 1200);             /* three splits */
    b.rope = &r;
    r = rope_of(64, true);
    b.k_size = 3;
    near(&b, 1e-5);
    b.threads = 2;
    b.window = 700;
    near(&b, 1e-5);
    b.window = 37;
    b.page_slots = 8;
    near(&b, 1e-5);
    b.window = 0;
    b.shape.softcap = 4;
    near(&b, 1e-5);
}

/* A sink per head, from one that hardly counts to one that takes nearly all; windows, splits,
 * a lone first row, threads that share a lane. The rope lengthens what it turns. */
static void sinks_take_their_share(void **state)
{
    (void)state;
    static const float sinks[] = { 0, -60, 3, 12, 1, 90 };
    bed b = bed_of(6, 2, 64, 1200);
    wn_rope r = rope_of(48, true);
    r.length = 1.25;
    b.rope = &r;
    b.sinks = sinks;
    near(&b, 1e-5);
    b.threads = 2;
    b.window = 128;
    near(&b, 1e-5);
    b.shape.softcap = 4;
    b.page_slots = 8;
    near(&b, 1e-5);
}

static void different_v_dim(void **state)
{
    (void)state;
    bed b = bed_of(4, 2, 48, 700);
    b.shape.v_dim = 20;
    near(&b, 3e-6);
}

/* The first run is the measure for all others. */
static void same_bits(bed b, const bed *ways, int n_ways)
{
    float *first = bed_run(&b);
    for (int i = 0; i < n_ways; i++) {
        bed w = b;
        w.chunks = ways[i].chunks;
        w.threads = ways[i].threads;
        w.page_slots = ways[i].page_slots;
        w.noise = ways[i].noise;
        w.layers = b.layers;
        float *x = bed_run(&w);
        if (memcmp(x, first, (size_t)(b.n * b.shape.n_heads * b.shape.v_dim) * 4))
            fail_msg("way %d differs by %g", i, bed_difference(&b, x, first));
        free(x);
    }
    free(first);
}

static const int one[] = { 1, 0 }, sevens[] = { 7, 0 }, odd[] = { 100, 1, 1, 64, 300, 5, 0 },
                 wide[] = { 512, 0 };
static const bed ways[] = {
    { .threads = 1, .chunks = one },
    { .threads = 3, .chunks = one },
    { .threads = 2, .chunks = sevens },
    { .threads = 3 },
    { .threads = 2, .chunks = odd, .page_slots = 4 },
    { .threads = 1, .chunks = wide, .page_slots = 16 },
    { .threads = 2, .chunks = odd, .noise = 3 },
    { .threads = 3, .chunks = one, .noise = 4, .page_slots = 4 },
};

static void no_way_of_running_changes_a_bit(void **state)
{
    (void)state;
    wn_rope r = rope_of(32, false);
    static const wn_format *formats[] = { &wn_format_f32, &wn_format_f16, &wn_format_bf16 };
    for (int i = 0; i < 3; i++) {
        bed b = bed_of(4, 1 + i % 2, 32, 1150);
        b.rope = &r;
        b.format = formats[i];
        same_bits(b, ways, WN_COUNT(ways));
    }
    bed b = bed_of(3, 1, 64, 700);
    b.rope = &r;
    b.layers = 2;
    b.shape.softcap = 5;
    b.window = 90;
    same_bits(b, ways, WN_COUNT(ways));
    b.sinks = (const float[]){ 1, -2, 6 };
    same_bits(b, ways, WN_COUNT(ways));
}

/* Decoding, neighbouring lanes are answered side by side where team and batch allow it: all
 * at once, in two or four pieces, one by one; with a window the walks begin late. */
static void lanes_together_or_alone(void **state)
{
    (void)state;
    static const bed teams[] = {
        { .threads = 1, .chunks = one }, { .threads = 2, .chunks = one }, { .threads = 3,
          .chunks = one },
        { .threads = 4, .chunks = one }, { .threads = 2, .chunks = one, .noise = 4 },
        { .threads = 1, .chunks = odd, .page_slots = 4 },
    };
    wn_rope r = rope_of(32, true);
    bed b = bed_of(16, 8, 32, 1100);
    b.rope = &r;
    b.format = &wn_format_f16;
    same_bits(b, teams, WN_COUNT(teams));
    b.n = 700;
    b.window = 150;
    b.sinks = (const float[]){ 1, -2, 6, 0, 3, 1, 1, -9, 5, 4, 3, 2, 1, 0, -1, 20 };
    same_bits(b, teams, WN_COUNT(teams));
}

/* The raw formats promise more than one numerics id asks: all tables agree. */
static void all_tables_agree(void **state)
{
    (void)state;
    const wn_kernels *all[WN_KERNELS_MAX];
    bed b = bed_of(4, 2, 80, 600);
    b.format = &wn_format_f16;
    wn_kernels_force(NULL);
    float *first = bed_run(&b);
    for (int i = 0, n = wn_kernels_all(all); i < n; i++) {
        wn_kernels_force(all[i]);
        float *x = bed_run(&b);
        assert_memory_equal(x, first, (size_t)(b.n * 4 * 80) * 4);
        free(x);
    }
    wn_kernels_force(NULL);
    free(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_definition),
        cmocka_unit_test(different_v_dim),
        cmocka_unit_test(sinks_take_their_share),
        cmocka_unit_test(no_way_of_running_changes_a_bit),
        cmocka_unit_test(lanes_together_or_alone),
        cmocka_unit_test(all_tables_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
