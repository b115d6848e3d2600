/* What observers are shown is the definition, computed in double from the same rows, and
 * showing it changes no byte of the answers. */
#include "tests/support/attn_bed.h"
#include "tests/unit/check.h"

#include <math.h>

enum { HEADS = 6, LANES = 2, GROUP = HEADS / LANES, D = 32, N = 560, ROW = HEADS * D };

typedef struct {
    const bed *b;
    float *q, *k;                       /* rows of the text */
    float lse[N][HEADS];
    int at;                             /* the next row of the pass; passes come in order */
    int n_weights;
} watch;

/* Logits of row p, head h, in double; the first visible position is returned. */
static int logits_of(const watch *w, int p, int h, double *out)
{
    const bed *b = w->b;
    int from = b->window > 0 && p >= b->window ? p - b->window + 1 : 0;
    for (int t = from; t <= p; t++) {
        double x = 0;
        for (int d = 0; d < D; d++)
            x += (double)w->q[p * HEADS * D + h * D + d] *
                 (double)w->k[t * LANES * D + h / GROUP * D + d];
        x *= (double)b->shape.scale;
        if (b->shape.softcap > 0) x = (double)b->shape.softcap * tanh(x / (double)b->shape.softcap);
        out[t] = x;
    }
    return from;
}

static double lse_of(const watch *w, int p, int h, double *logit)
{
    int from = logits_of(w, p, h, logit);
    double max = -INFINITY, sum = 0;
    for (int t = from; t <= p; t++) max = fmax(max, logit[t]);
    for (int t = from; t <= p; t++) sum += exp(logit[t] - max);
    return max + log(sum);
}

static void see_lse(void *ctx, int layer, const float *lse, int n_rows, int n_heads)
{
    watch *w = ctx;
    assert_int_equal(layer, 0);
    assert_int_equal(n_heads, HEADS);
    assert_true(w->at + n_rows <= N);
    memcpy(w->lse[w->at], lse, sizeof(float) * (size_t)(n_rows * HEADS));
    w->at += n_rows;
}

/* Logits are sums of 32 products of size 1: some 1e-6 in f32; a weight is off by its share. */
static void see_weights(void *ctx, const wn_attend_item *item, int lane, const int32_t *pos,
                        const float *x, int group, int n)
{
    watch *w = ctx;
    double logit[N];
    int p = item->pos;
    assert_int_equal(group, GROUP);
    for (int h = 0; h < group; h++) {
        double lse = lse_of(w, p, lane * GROUP + h, logit);
        int from = p + 1 - n;
        assert_int_equal(from, w->b->window > 0 && p >= w->b->window ? p - w->b->window + 1 : 0);
        for (int i = 0; i < n; i++) {
            assert_int_equal(pos[i], from + i);
            double want = exp(logit[pos[i]] - lse);
            if (!(fabs((double)x[h * n + i] - want) < 1e-5)) fail_msg("row %d, slot %d", p, pos[i]);
        }
    }
    w->n_weights++;
}

static void one_way(bed b)
{
    static const int one[] = { 1, 0 }, odd[] = { 100, 1, 64, 300, 5, 0 };
    watch w = { .b = &b };
    w.q = malloc(sizeof(float) * N * HEADS * D);
    w.k = malloc(sizeof(float) * N * LANES * D);
    float *v = malloc(sizeof(float) * LANES * D), *plain = bed_run(&b);
    for (int p = 0; p < N; p++) bed_rows(&b, p, w.q + p * HEADS * D, w.k + p * LANES * D, v);
    const wn_attend_observer obs = { .ctx = &w, .lse = see_lse, .weights = see_weights };
    float first[N][HEADS];
    b.obs = &obs;
    for (int way = 0; way < 3; way++) {
        w.at = w.n_weights = 0;
        b.chunks = way == 0 ? NULL : way == 1 ? one : odd;
        b.threads = way ? 2 : 1;
        float *x = bed_run(&b);
        assert_memory_equal(x, plain, sizeof(float) * N * ROW);
        assert_int_equal(w.at, N);
        assert_true(way == 1   ? w.n_weights == N * LANES
                    : way == 2 ? w.n_weights > 0
                               : w.n_weights == 0);
        if (!way) memcpy(first, w.lse, sizeof first);
        assert_memory_equal(w.lse, first, sizeof first);
        free(x);
    }
    for (int p = 0; p < N; p += 7)
        for (int h = 0; h < HEADS; h++) {
            double logit[N], want = lse_of(&w, p, h, logit);
            if (!(fabs((double)first[p][h] - want) < 1e-5))
                fail_msg("row %d, head %d: %g", p, h, (double)first[p][h]);
        }
    free(w.q), free(w.k), free(v), free(plain);
}

static void what_is_shown_is_the_definition(void **state)
{
    (void)state;
    bed b = { .shape = { .n_heads = HEADS, .n_kv_heads = LANES, .k_dim = D, .v_dim = D,
                         .scale = 0.25f },
              .n = N, .seed = 6, .threads = 1 };
    one_way(b);
    b.window = 90;
    one_way(b);
    b.window = 0;
    b.shape.softcap = 3;
    b.page_slots = 8;
    one_way(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(what_is_shown_is_the_definition) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
