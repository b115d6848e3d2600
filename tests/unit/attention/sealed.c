/* Pages that are read raw by some queries and sealed by others. A query at p reads page j
 * sealed exactly when p >= P (j + 1 + lag), also inside one chunk: rows before that point
 * have the bits of the raw cache, rows from it on do not, and no way of cutting the text
 * into chunks, no team and no neighbour changes a bit of either. */
#include "tests/support/attn_bed.h"
#include "tests/unit/check.h"

#include <math.h>

enum { N = 600, P = 64 };
static wn_format sealed[3];             /* lag 0, 1, 2 */

/* Encoded from the raw page of another format: bf16, in that format's own layout. */
static void encode_k(void *frame, const void *raw, const wn_format *f, int slots, int n,
                     uint64_t keep, int dim)
{
    float row[256];
    for (int s = 0; s < n; s++)
        if (keep >> s & 1) {
            f->get_k(raw, slots, s, row, dim);
            wn_format_bf16.put_k(frame, slots, s, row, 0, 1, dim);
        }
}

static void encode_v(void *frame, const void *raw, const wn_format *f, int slots, int n,
                     uint64_t keep, int dim)
{
    float row[256];
    for (int s = 0; s < n; s++)
        if (keep >> s & 1) {
            f->get_v(raw, slots, s, row, dim);
            wn_format_bf16.put_v(frame, slots, s, row, 0, 1, dim);
        }
}

static bed text(const wn_format *encoded)
{
    return (bed){ .shape = { .n_heads = 4, .n_kv_heads = 2, .k_dim = 32, .v_dim = 32,
                             .scale = 0.17f }, .n = N,
                  .seed = 5, .format = &wn_format_f32, .sealed = encoded, .page_slots = P,
                  .threads = 1 };
}

static void each_row_reads_what_its_position_says(void **state)
{
    (void)state;
    size_t row = 4 * 32;
    for (int lag = 0; lag < 3; lag++) {
        bed raw = text(NULL), mixed = text(&sealed[lag]);
        float *a = bed_run(&raw), *b = bed_run(&mixed);
        int first = P * (1 + lag);      /* the first query that reads page 0 sealed */
        assert_memory_equal(a, b, sizeof(float) * row * (size_t)first);
        for (int p = first; p < N; p++)
            if (!memcmp(a + (size_t)p * row, b + (size_t)p * row, sizeof(float) * row))
                fail_msg("lag %d: the row at %d reads nothing sealed", lag, p);
        /* bf16 keeps 8 bits: far from the raw answer by no more than that */
        assert_true(bed_difference(&raw, a, b) < 0.02);
        free(a);
        free(b);
    }
}

static void chunks_and_teams_change_nothing(void **state)
{
    (void)state;
    static const int one[] = { 1, 0 }, sevens[] = { 7, 0 }, odd[] = { 100, 1, 1, 64, 129, 5, 0 };
    static const bed ways[] = {
        { .threads = 1, .chunks = one }, { .threads = 2, .chunks = sevens }, { .threads = 3 },
        { .threads = 2, .chunks = odd }, { .threads = 2, .chunks = odd, .noise = 3 },
    };
    for (int lag = 0; lag < 3; lag++) {
        bed b = text(&sealed[lag]);
        float *first = bed_run(&b);
        for (size_t i = 0; i < WN_COUNT(ways); i++) {
            bed w = b;
            w.threads = ways[i].threads;
            w.chunks = ways[i].chunks;
            w.noise = ways[i].noise;
            float *x = bed_run(&w);
            if (memcmp(x, first, sizeof(float) * N * 4 * 32))
                fail_msg("lag %d, way %zu differs by %g", lag, i, bed_difference(&b, x, first));
            free(x);
        }
        free(first);
    }
}

/* The same with formats that compute on codes: turned or not, parameters per slot or per
 * channel. */
static void encoded_formats_see_no_chunks(void **state)
{
    (void)state;
    static const int sevens[] = { 7, 0 }, odd[] = { 100, 1, 1, 64, 129, 5, 0 };
    static const wn_format *const formats[] = { &wn_format_q8, &wn_format_q4, &wn_format_q2,
                                                &wn_format_kivi4, &wn_format_q5_1 };
    static const double within[] = { 0.01, 0.08, 0.4, 0.08, 0.05 };
    for (size_t f = 0; f < WN_COUNT(formats); f++) {
        bed raw = text(NULL), a = text(formats[f]), b = a, c = a;
        b.chunks = sevens, b.threads = 2;
        c.chunks = odd, c.threads = 3, c.noise = 3;
        float *want = bed_run(&a), *x = bed_run(&b), *y = bed_run(&c), *exact = bed_run(&raw);
        assert_memory_equal(x, want, sizeof(float) * N * 4 * 32);
        assert_memory_equal(y, want, sizeof(float) * N * 4 * 32);
        double off = bed_difference(&raw, want, exact);
        if (!(off > 0 && off < within[f])) fail_msg("%s: off by %g", formats[f]->name, off);
        free(want), free(x), free(y), free(exact);
    }
}

int main(void)
{
    static const char *const names[3] = { "test-sealed0", "test-sealed1", "test-sealed2" };
    for (int lag = 0; lag < 3; lag++) {
        sealed[lag] = wn_format_bf16;
        sealed[lag].name = names[lag];
        sealed[lag].raw = false;
        sealed[lag].lag = lag;
        sealed[lag].encode_k = encode_k;
        sealed[lag].encode_v = encode_v;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_row_reads_what_its_position_says),
        cmocka_unit_test(chunks_and_teams_change_nothing),
        cmocka_unit_test(encoded_formats_see_no_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
