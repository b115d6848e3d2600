/* A plane read alone is a reading of its own: the frame of q44 begins with the frame of q4h, byte
 * for byte, whatever the rows; what q4h says of it is within a stated distance of what q44 says;
 * and a slot leaves its low plane behind as if it had been encoded without. */
#include "tests/unit/check.h"

#include "page/format.h"

#include <math.h>

enum { DIM_MAX = 256, P = 64 };

static const int dims[] = { 64, 80, 96, 128, 256, 40 };
static const int sizes[] = { 64, 4, 16 };

typedef struct {
    int P, D;
    void *k, *v, *high_k, *high_v;      /* frames of q44, and of q4h from the same rows */
} frames;

/* Rows with large channels, tiny and huge numbers, masked slots, one that is not finite. */
static frames make(int t, uint64_t *seed)
{
    const wn_format *f = &wn_format_q44, *h = f->coarse,
                    *raw = t % 2 ? &wn_format_f16 : &wn_format_f32;
    frames x = { .P = sizes[t % 3], .D = dims[t % 6] };
    float rows[P][DIM_MAX];
    for (int s = 0; s < x.P; s++)
        for (int d = 0; d < x.D; d++)
            rows[s][d] = test_randf(seed) * (t % 5 == 1                  ? 1e-6f
                                             : t % 5 == 2 && d % 16 == 3 ? 3e4f
                                             : t % 5 == 3                ? 0
                                                                         : 1);
    if (t % 7 == 4) rows[x.P / 2][3] = NAN;
    uint64_t keep = t % 3 == 1 ? test_rand(seed) | 1 : ~0ull;
    void *rk = calloc(1, raw->k_bytes(x.P, x.D)), *rv = calloc(1, raw->v_bytes(x.P, x.D));
    raw->put_k(rk, x.P, 0, rows[0], DIM_MAX, x.P, x.D),
        raw->put_v(rv, x.P, 0, rows[0], DIM_MAX, x.P, x.D);
    x.k = malloc(f->k_bytes(x.P, x.D)), x.v = malloc(f->v_bytes(x.P, x.D));
    x.high_k = malloc(h->k_bytes(x.P, x.D)), x.high_v = malloc(h->v_bytes(x.P, x.D));
    f->encode_k(x.k, rk, raw, x.P, x.P, keep, x.D), f->encode_v(x.v, rv, raw, x.P, x.P, keep, x.D);
    h->encode_k(x.high_k, rk, raw, x.P, x.P, keep, x.D),
        h->encode_v(x.high_v, rv, raw, x.P, x.P, keep, x.D);
    free(rk), free(rv);
    return x;
}

static void release(frames *x) { free(x->k), free(x->v), free(x->high_k), free(x->high_v); }

static void a_frame_begins_with_that_of_fewer_bits(void **state)
{
    (void)state;
    uint64_t seed = 61;
    for (int t = 0; t < 210; t++) {
        frames x = make(t, &seed);
        assert_memory_equal(x.k, x.high_k, wn_format_q4h.k_bytes(x.P, x.D));
        assert_memory_equal(x.v, x.high_v, wn_format_q4h.v_bytes(x.P, x.D));
        release(&x);
    }
}

/* How far apart two readings of a slot are. */
static double distance(const float *fine, const float *coarse, int n)
{
    double sum = 0;
    for (int d = 0; d < n; d++) sum += pow((double)fine[d] - (double)coarse[d], 2);
    return sqrt(sum);
}

/* Any row: the planes say what is apart by at most 15 steps of the fine grid in each channel of the
 * turned row, so sqrt(D) times 15 / 256 of the largest number there; a score by |q| times that.
 * Both are read from one frame. */
static void one_plane_is_within_its_bound(void **state)
{
    enum { Q = 3 };
    (void)state;
    uint64_t seed = 62;
    for (int t = 0; t < 60; t++) {
        if (t % 7 == 4) continue;               /* not finite */
        const wn_format *f = &wn_format_q44, *h = f->coarse;
        frames x = make(t, &seed);
        float q[Q][DIM_MAX], w[Q][P], out[2][Q][P], acc[2][Q][DIM_MAX], fine[DIM_MAX],
            coarse[DIM_MAX];
        double far_k[P], far_v[P], most = 0;
        void *ready = aligned_alloc(64, wn_format_ready_bytes(Q, x.D));
        for (int i = 0; i < Q; i++) {
            for (int d = 0; d < x.D; d++) q[i][d] = test_randf(&seed);
            for (int s = 0; s < x.P; s++) w[i][s] = fabsf(test_randf(&seed));
        }
        for (int s = 0; s < x.P; s++) {
            double norm = 0;
            f->get_k(x.k, x.P, s, fine, x.D), h->get_k(x.k, x.P, s, coarse, x.D);
            for (int d = 0; d < x.D; d++) norm += pow((double)fine[d], 2);
            far_k[s] = distance(fine, coarse, x.D);
            /* and the least half */
            assert_true(far_k[s] <= sqrt(x.D) * 15 * (sqrt(norm) / 256 + 0x1p-24) * (1 + 0x1p-10));
            f->get_v(x.v, x.P, s, fine, x.D), h->get_v(x.v, x.P, s, coarse, x.D);
            far_v[s] = distance(fine, coarse, x.D);
            most = fmax(most, sqrt(norm));
        }
        for (int k = 0; k < 2; k++) {
            const wn_format *g = k ? h : f;
            g->ready(ready, q[0], DIM_MAX, Q, x.D);
            g->score(&(wn_page_score){ .out = out[k][0], .out_stride = P, .q = q[0],
                                       .q_stride = DIM_MAX, .ready = ready, .n_q = Q, .frame = x.k,
                                       .P = x.P, .n = x.P, .head_dim = x.D });
            memset(acc[k], 0, sizeof acc[k]);
            float own[Q][DIM_MAX] = { 0 };
            g->mix(&(wn_page_mix){ .acc = own[0], .acc_stride = DIM_MAX, .w = w[0], .w_stride = P,
                                   .n_q = Q, .frame = x.v, .P = x.P, .n = x.P, .head_dim = x.D });
            g->mixed(acc[k][0], DIM_MAX, own[0], DIM_MAX, Q, x.D);
        }
        for (int i = 0; i < Q; i++) {
            double qn = 0, may = 0, apart = 0;
            for (int d = 0; d < x.D; d++) qn += pow((double)q[i][d], 2);
            for (int s = 0; s < x.P; s++) {
                may += (double)w[i][s] * far_v[s];
                assert_true(fabs((double)out[0][i][s] - (double)out[1][i][s]) <=
                            sqrt(qn) * (far_k[s] + 1e-3 * most));
            }
            for (int d = 0; d < x.D; d++)
                apart += pow((double)acc[0][i][d] - (double)acc[1][i][d], 2);
            assert_true(sqrt(apart) <= may + 1e-3 * most * x.P);
            /* it is another reading */
            assert_true(memcmp(out[0][i], out[1][i], sizeof(float) * (size_t)x.P) || !most);
        }
        free(ready);
        release(&x);
    }
}

static void a_slot_leaves_its_low_plane_behind(void **state)
{
    (void)state;
    uint64_t seed = 63;
    for (int t = 0; t < 42; t++) {
        const wn_format *h = &wn_format_q4h;
        frames x = make(t, &seed);
        size_t kb = h->k_bytes(x.P, x.D), vb = h->v_bytes(x.P, x.D);
        char *k = calloc(1, kb), *v = calloc(1, vb);
        for (int s = 0; s < x.P; s++)
            h->copy_k(k, s, x.k, s, x.P, x.D), h->copy_v(v, s, x.v, s, x.P, x.D);
        assert_memory_equal(k, x.high_k, kb);
        assert_memory_equal(v, x.high_v, vb);
        free(k), free(v);
        release(&x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_begins_with_that_of_fewer_bits),
        cmocka_unit_test(one_plane_is_within_its_bound),
        cmocka_unit_test(a_slot_leaves_its_low_plane_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
