/* Infinities and NaN in one lane stay where they belong. An answer that rests on one is not
 * finite (nobody reads a plausible number instead); every other head, every row that does
 * not see the slot and every other sequence has the bytes of the clean run. In prefill, rows
 * of one block share products with slots some of them may not see: those rows are the point. */
#include "tests/support/attn_bed.h"
#include "tests/unit/check.h"

#include <math.h>

enum { HEADS = 4, LANES = 2, D = 32, N = 620, ROW = HEADS * D };

typedef struct {
    int pos, lane;
    bool in_k;
    float value;
} spot;

static void spoil(void *ctx, int pos, float *q, float *k, float *v)
{
    const spot *s = ctx;
    (void)q;
    if (pos == s->pos) (s->in_k ? k : v)[s->lane * D + 5] = s->value;
}

static bed bed_of(const wn_format *f)
{
    return (bed){ .shape = { .n_heads = HEADS, .n_kv_heads = LANES, .k_dim = D, .v_dim = D,
                             .scale = 0.2f },
                  .n = N, .seed = 4, .format = f, .threads = 1 };
}

static bool finite_head(const float *out)
{
    for (int d = 0; d < D; d++)
        if (!isfinite(out[d])) return false;
    return true;
}

static void check_run(bed b, const spot *s, const float *clean)
{
    float *x = bed_run(&b);
    for (int p = 0; p < N; p++)
        for (int h = 0; h < HEADS; h++) {
            const float *mine = x + p * ROW + h * D, *want = clean + p * ROW + h * D;
            if (h / (HEADS / LANES) != s->lane || p < s->pos) {
                if (memcmp(mine, want, D * sizeof *mine))
                    fail_msg("spot %d: row %d of head %d changed", s->pos, p, h);
            } else if (finite_head(mine) && !(s->in_k && isinf(s->value))) {
                fail_msg("spot %d: row %d of head %d is finite", s->pos, p, h);
            }
        }
    free(x);
}

/* An infinite key may give a logit of -INFINITY, weight 0 and a finite answer: that is its
 * value. NaN, and anything in V that has a weight, must show. */
static void others_keep_their_bytes(void **state)
{
    (void)state;
    static const int one[] = { 1, 0 }, odd[] = { 100, 1, 64, 300, 5, 0 };
    static const int *const chunks[] = { NULL, one, odd };
    static const int places[] = { 0, 77, 512, 600 };    /* 0 and 512: alone in their split for a
                                                           row */
    const float values[] = { NAN, INFINITY, -INFINITY };
    for (int f = 0; f < 2; f++) {
        bed b = bed_of(f ? &wn_format_f32 : &wn_format_f16);
        float *clean = bed_run(&b);
        for (int i = 0; i < 4 * 3 * 2; i++) {
            spot s = { .pos = places[i % 4], .lane = i & 1, .in_k = i / 12,
                       .value = values[i / 4 % 3] };
            b.spoil = spoil;
            b.ctx = &s;
            b.chunks = chunks[i % 3];
            b.threads = 1 + i % 2;
            check_run(b, &s, clean);
        }
        free(clean);
    }
}

static void neighbours_in_the_batch_do_not_matter(void **state)
{
    (void)state;
    static const int odd[] = { 100, 1, 64, 5, 0 };
    bed b = bed_of(&wn_format_f16);
    b.noise = 3;
    b.chunks = odd;
    float *clean = bed_run(&b);
    for (int in_k = 0; in_k < 2; in_k++) {
        spot s = { .pos = 3, .lane = 1, .in_k = in_k, .value = NAN };
        b.spoil = spoil;
        b.spoil_noise = true;
        b.ctx = &s;
        b.threads = 1 + in_k;
        float *x = bed_run(&b);
        assert_memory_equal(x, clean, sizeof(float) * N * ROW);
        free(x);
    }
    free(clean);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_keep_their_bytes),
        cmocka_unit_test(neighbours_in_the_batch_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
