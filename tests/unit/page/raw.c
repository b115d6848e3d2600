/* Raw pages: what is put in comes out, rounded once; the layout is the one the header
 * draws; rows may be put in any portions; a slot moves between frames bit by bit. */
#include "tests/unit/check.h"

#include "kernel/elem.h"
#include "page/format.h"

enum { ROWS = 64, DIM_MAX = 256 };

static const wn_format *raw_at(int i)
{
    const wn_format *f = wn_format_at(i);
    return f && f->raw ? f : NULL;              /* the raw ones come first */
}

static wn_elem elem_of(const wn_format *f)
{
    return f == &wn_format_f16 ? WN_ELEM_F16 : f == &wn_format_bf16 ? WN_ELEM_BF16 : WN_ELEM_F32;
}

static float rounded(wn_elem e, float x)
{
    float y = 0;
    wn_elem_put(e, &y, 0, x);
    return wn_elem_get(e, &y, 0);
}

static float rows[ROWS][DIM_MAX + 5];

static void fill(uint64_t *seed)
{
    for (int s = 0; s < ROWS; s++)
        for (int d = 0; d < DIM_MAX + 5; d++) rows[s][d] = test_randf(seed) * 8;
}

static void rows_come_out_rounded_once(void **state)
{
    (void)state;
    static const int dims[] = { 32, 64, 80, 96, 128, 256, 7 };
    uint64_t seed = 11;
    for (int i = 0; raw_at(i); i++)
        for (int t = 0; t < 70; t++) {
            const wn_format *f = raw_at(i);
            int D = dims[t % 7], P = 4 << t % 5, at = 0;
            size_t kb = f->k_bytes(P, D), vb = f->v_bytes(P, D), stride = DIM_MAX + 5;
            char *k = calloc(1, kb + 64), *v = calloc(1, vb + 64);
            float row[DIM_MAX];
            assert_int_equal(kb % 64, 0);
            assert_int_equal(vb % 64, 0);
            memset(k + kb, 0x5a, 64), memset(v + vb, 0x5a, 64);
            fill(&seed);
            while (at < P) {                            /* any portions */
                int n = 1 + (int)(test_rand(&seed) % (uint64_t)(P - at));
                f->put_k(k, P, at, rows[at], stride, n, D);
                f->put_v(v, P, at, rows[at], stride, n, D);
                at += n;
            }
            for (int s = 0; s < P; s++) {
                f->get_k(k, P, s, row, D);
                for (int d = 0; d < D; d++) assert_true(row[d] == rounded(elem_of(f), rows[s][d]));
                f->get_v(v, P, s, row, D);
                for (int d = 0; d < D; d++) assert_true(row[d] == rounded(elem_of(f), rows[s][d]));
                assert_true(wn_elem_get(elem_of(f), k, (size_t)(2 * P + s)) ==
                            rounded(elem_of(f), rows[s][2]));
                assert_true(wn_elem_get(elem_of(f), v, (size_t)(s * D + 2)) ==
                            rounded(elem_of(f), rows[s][2]));
            }
            for (int j = 0; j < 64; j++)
                assert_true(k[kb + (size_t)j] == 0x5a && v[vb + (size_t)j] == 0x5a);
            free(k), free(v);
        }
}

static void slots_move_bit_by_bit(void **state)
{
    (void)state;
    uint64_t seed = 12;
    enum { P = 16, D = 80 };
    for (int i = 0; raw_at(i); i++) {
        const wn_format *f = raw_at(i);
        char *k = calloc(1, f->k_bytes(P, D)), *v = calloc(1, f->v_bytes(P, D));
        char *k2 = calloc(1, f->k_bytes(P, D)), *v2 = calloc(1, f->v_bytes(P, D));
        float a[D], b[D];
        fill(&seed);
        f->put_k(k, P, 0, rows[0], DIM_MAX + 5, P, D);
        f->put_v(v, P, 0, rows[0], DIM_MAX + 5, P, D);
        for (int s = 0; s < P; s++) {
            f->copy_k(k2, (s + 5) % P, k, s, P, D);
            f->copy_v(v2, (s + 5) % P, v, s, P, D);
        }
        for (int s = 0; s < P; s++) {
            f->get_k(k, P, s, a, D), f->get_k(k2, P, (s + 5) % P, b, D);
            assert_memory_equal(a, b, sizeof a);
            f->get_v(v, P, s, a, D), f->get_v(v2, P, (s + 5) % P, b, D);
            assert_memory_equal(a, b, sizeof a);
        }
        free(k), free(v), free(k2), free(v2);
    }
}

/* Any run of slots at once is what they are one by one, and what lies around them stays. */
static void runs_of_slots_move_alike(void **state)
{
    (void)state;
    uint64_t seed = 13;
    enum { P = 64, D = 80 };
    for (int i = 0; raw_at(i); i++) {
        const wn_format *f = raw_at(i);
        size_t bk = f->k_bytes(P, D), bv = f->v_bytes(P, D);
        char *k = calloc(1, bk), *v = calloc(1, bv), *one[2] = { malloc(bk), malloc(bv) },
             *all[2] = { malloc(bk), malloc(bv) };
        fill(&seed);
        f->put_k(k, P, 0, rows[0], DIM_MAX + 5, P, D);
        f->put_v(v, P, 0, rows[0], DIM_MAX + 5, P, D);
        for (int n = 1; n <= P; n++) {
            int from = (int)(test_rand(&seed) % (uint64_t)(P - n + 1)),
                to = (int)(test_rand(&seed) % (uint64_t)(P - n + 1));
            memset(one[0], 0x5a, bk), memset(all[0], 0x5a, bk), memset(one[1], 0x5a, bv),
                memset(all[1], 0x5a, bv);
            for (int s = 0; s < n; s++) {
                f->copy_k(one[0], to + s, k, from + s, P, D);
                f->copy_v(one[1], to + s, v, from + s, P, D);
            }
            wn_format_copy_k(f, all[0], to, k, from, n, P, D);
            wn_format_copy_v(f, all[1], to, v, from, n, P, D);
            assert_memory_equal(one[0], all[0], bk);
            assert_memory_equal(one[1], all[1], bv);
        }
        free(k), free(v), free(one[0]), free(one[1]), free(all[0]), free(all[1]);
    }
}

/* Scores and mixes of a part of a page are those of the whole page, bit by bit, with and
 * without scratch, for any number of queries. */
static void parts_of_a_page_give_the_same_bits(void **state)
{
    (void)state;
    enum { D = 40, Q = 20 };
    static const int sizes[] = { 4, 16, 64 };
    uint64_t seed = 13;
    static float q[Q][D], w[Q][64], all[Q][64], some[Q][64], acc[Q][D], acc2[Q][D];
    void *tmp = aligned_alloc(64, (wn_format_tmp_bytes(64, D) + 63) & ~(size_t)63);
    for (int i = 0; raw_at(i); i++)
        for (int t = 0; t < 60; t++) {
            const wn_format *f = raw_at(i);
            int P = sizes[t % 3], first = (int)(test_rand(&seed) % (uint64_t)P);
            int n = 1 + (int)(test_rand(&seed) % (uint64_t)(P - first)),
                n_q = 1 + (int)(test_rand(&seed) % Q);
            void *k = malloc(f->k_bytes(P, D)), *v = malloc(f->v_bytes(P, D));
            fill(&seed);
            for (int a = 0; a < Q; a++)
                for (int b = 0; b < 64; b++)
                    q[a][b % D] = test_randf(&seed), w[a][b] = test_randf(&seed);
            f->put_k(k, P, 0, rows[0], DIM_MAX + 5, P, D);
            f->put_v(v, P, 0, rows[0], DIM_MAX + 5, P, D);
            wn_page_score whole = { .out = all[0], .out_stride = 64, .q = q[0], .q_stride = D,
                                    .n_q = Q, .frame = k, .P = P, .n = P, .head_dim = D };
            wn_page_score part = whole;
            part.out = some[0], part.n_q = n_q, part.first = first, part.n = n;
            part.tmp = t & 1 ? tmp : NULL,
            part.ahead = (wn_ahead){ (char *)v, (char *)v + f->v_bytes(P, D) };
            f->score(&whole);
            f->score(&part);
            for (int a = 0; a < n_q; a++)
                assert_memory_equal(some[a], all[a] + first, sizeof(float) * (size_t)n);
            memset(acc, 0, sizeof acc), memset(acc2, 0, sizeof acc2);
            wn_page_mix m = { .acc = acc[0], .acc_stride = D, .w = w[0], .w_stride = 64, .n_q = n_q,
                              .frame = v, .P = P, .first = first, .n = n, .head_dim = D,
                              .tmp = t & 1 ? tmp : NULL };
            f->mix(&m);
            for (int s = 0; s < n; s++)
                f->mix(&(wn_page_mix){ .acc = acc2[0], .acc_stride = D, .w = w[0] + s,
                                       .w_stride = 64, .n_q = n_q, .frame = v, .P = P,
                                       .first = first + s, .n = 1, .head_dim = D,
                                       .ahead = { (char *)k, (char *)k + f->k_bytes(P, D) } });
            assert_memory_equal(acc, acc2, sizeof acc);
            free(k), free(v);
        }
    free(tmp);
}

static void formats_are_found_by_name(void **state)
{
    (void)state;
    assert_ptr_equal(wn_format_find("f16"), &wn_format_f16);
    assert_ptr_equal(wn_format_find("bf16"), &wn_format_bf16);
    assert_ptr_equal(wn_format_find("f32"), &wn_format_f32);
    assert_null(wn_format_find("f64"));
    assert_null(wn_format_at(-1));
    assert_null(wn_format_at(1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_out_rounded_once),
        cmocka_unit_test(slots_move_bit_by_bit),
        cmocka_unit_test(runs_of_slots_move_alike),
        cmocka_unit_test(parts_of_a_page_give_the_same_bits),
        cmocka_unit_test(formats_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
