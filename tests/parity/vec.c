/* The loops of kernel/vec.h: every table this CPU runs gives the scalar table's bits, at
 * every length up to 70 and some long ones, reading and writing nothing beyond the end
 * (buffers end right before an unreadable page). The scalar table itself is checked against
 * the formulas in double.
 *
 * Protects: the determinism law (one row, one result), the tails, and the in-place forms.
 */
#include "tests/unit/check.h"

#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/vec.h"

enum { N_MAX = 5000, N_BUF = 5 };

typedef struct {
    const char *name;
    const wn_vec_ops *ops;
} table;

static table tables[2];
static int n_tables;

static void find_tables(void)
{
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        tables[n_tables++] = (table){ "avx2", &wn_vec_ops_avx2 };
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        tables[n_tables++] = (table){ "avx512", &wn_vec_ops_avx512 };
}

/* N_MAX floats that end where an unreadable page begins. */
static float *fence[N_BUF];

static void make_fences(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = (N_MAX * sizeof(float) + page - 1) / page * page;
    for (int i = 0; i < N_BUF; i++) {
        char *p = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                       0);
        if (p == MAP_FAILED || mprotect(p + bytes, page, PROT_NONE)) abort();
        fence[i] = (float *)(void *)(p + bytes);
    }
}

/* The n floats right before fence i, filled from src. */
static float *put(int i, const float *src, int n)
{
    float *p = fence[i] - n;
    memcpy(p, src, (size_t)n * sizeof *p);
    return p;
}

/* Equal bits; one NaN is as good as another. */
static void check_same(const char *what, const char *name, int n, const float *a, const float *b,
                       int len)
{
    for (int i = 0; i < len; i++) {
        if (isnan(a[i]) && isnan(b[i])) continue;
        if (memcmp(&a[i], &b[i], sizeof(float)))
            fail_msg("%s of table %s, n = %d: [%d] is %.9g, scalar gives %.9g", what, name, n, i,
                     (double)b[i], (double)a[i]);
    }
}

static int next_n(int n)
{
    return n < 70      ? n + 1
           : n < 128   ? 128
           : n < 333   ? 333
           : n < 2048  ? 2048
           : n == 2048 ? 4999
                       : N_MAX + 1;
}

/* Values of all sizes, with the special ones scattered among them when asked. */
static void fill(float *x, int n, float size, bool special, uint64_t *seed)
{
    static const float odd[] = { 0.0f,    -0.0f, -INFINITY, INFINITY, NAN,   1e-40f,
                                 -1e-40f, 88.9f, -88.9f,    -104.0f,  1e30f, -1e30f };
    for (int i = 0; i < n; i++) {
        x[i] = test_randf(seed) * size;
        if (special && test_rand(seed) % 4 == 0) x[i] = odd[test_rand(seed) % WN_COUNT(odd)];
    }
}

static void every_table_gives_scalar_bits(void **state)
{
    (void)state;
    static float x[N_MAX], y[N_MAX], a[N_MAX], b[N_MAX], cs[N_MAX];
    const wn_vec_ops *s = &wn_vec_ops_scalar;
    for (int t = 0; t < n_tables; t++)
        for (int n = 0, round = 0; n <= N_MAX; n = next_n(n), round++) {
            const wn_vec_ops *v = tables[t].ops;
            const char *name = tables[t].name;
            size_t bytes = (size_t)n * sizeof(float);
            uint64_t seed = (uint64_t)n * 7 + 1;
            float *o, *p, *q;

            fill(x, n, round % 3 ? 3.0f : 60.0f, false, &seed);
            fill(y, n, 2.0f, false, &seed);
            s->rms_norm(a, x, y, n, 1e-5f);
            o = fence[2] - n;
            v->rms_norm(o, put(0, x, n), put(1, y, n), n, 1e-5f);
            check_same("rms_norm", name, n, a, o, n);
            o = put(0, x, n);
            v->rms_norm(o, o, put(1, y, n), n, 1e-5f);
            check_same("rms_norm in place", name, n, a, o, n);

            for (int special = 0; special < 2; special++) {
                fill(x, n, round % 2 ? 100.0f : 4.0f, special, &seed);
                memcpy(a, x, bytes);
                s->silu_mul(a, y, n);
                o = put(0, x, n);
                v->silu_mul(o, put(1, y, n), n);
                check_same("silu_mul", name, n, a, o, n);

                memcpy(a, x, bytes);
                s->gelu_mul(a, y, n);
                o = put(0, x, n);
                v->gelu_mul(o, put(1, y, n), n);
                check_same("gelu_mul", name, n, a, o, n);

                fill(y, n, 9.0f, special, &seed);
                memcpy(a, x, bytes);
                s->clamped_mul(a, y, n);
                o = put(0, x, n);
                v->clamped_mul(o, put(1, y, n), n);
                check_same("clamped_mul", name, n, a, o, n);

                s->exp_sub(a, x, 1.5f, n);
                o = fence[1] - n;
                v->exp_sub(o, put(0, x, n), 1.5f, n);
                check_same("exp_sub", name, n, a, o, n);
                o = put(0, x, n);
                v->exp_sub(o, o, 1.5f, n);
                check_same("exp_sub in place", name, n, a, o, n);

                memcpy(a, x, bytes);
                s->add(a, y, n);
                o = put(0, x, n);
                v->add(o, put(1, y, n), n);
                check_same("add", name, n, a, o, n);

                memcpy(a, x, bytes);
                s->scale(a, 0.37f, n);
                o = put(0, x, n);
                v->scale(o, 0.37f, n);
                check_same("scale", name, n, a, o, n);

                a[0] = s->max(x, n);
                b[0] = v->max(put(0, x, n), n);
                check_same("max", name, n, a, b, 1);
            }

            if (n % 2) continue;
            fill(cs, n, 1.0f, false, &seed);
            for (int neox = 0; neox < 2; neox++) {
                s->rope(a, x, cs, n, neox);
                p = put(0, x, n), q = put(1, cs, n), o = fence[2] - n;
                v->rope(o, p, q, n, neox);
                check_same("rope", name, n, a, o, n);
                v->rope(p, p, q, n, neox);
                check_same("rope in place", name, n, a, p, n);
                memcpy(b, x, bytes);
                s->rope(b, b, cs, n, neox);
                check_same("scalar rope in place", name, n, a, b, n);
            }
        }
}

/* Which of two zeros a maximum is depends on the order they were met in; the result must not. */
static void the_largest_zero_is_positive(void **state)
{
    (void)state;
    float x[40];
    for (int t = -1; t < n_tables; t++)
        for (int i = 0; i < 40; i++)
            for (int j = 0; j < 40; j++) {
                const wn_vec_ops *v = t < 0 ? &wn_vec_ops_scalar : tables[t].ops;
                for (int k = 0; k < 40; k++) x[k] = -1.0f;
                x[i] = 0.0f, x[j] = -0.0f;
                float m = v->max(x, 40);
                assert_true(m == 0.0f && !signbit(m));
            }
}

/* Nothing before the row and nothing after it inside a larger buffer changes. */
static void stores_stay_inside(void **state)
{
    (void)state;
    float x[96], w[96], cs[96];
    for (int t = -1; t < n_tables; t++)
        for (int n = 0; n <= 48; n++) {
            const wn_vec_ops *v = t < 0 ? &wn_vec_ops_scalar : tables[t].ops;
            for (int i = 0; i < 96; i++) x[i] = 7.0f, w[i] = cs[i] = 1.0f;
            v->rms_norm(x + 24, x + 24, w, n, 1e-5f);
            v->silu_mul(x + 24, w, n);
            v->gelu_mul(x + 24, w, n);
            v->clamped_mul(x + 24, w, n);
            v->add(x + 24, w, n);
            v->scale(x + 24, 2.0f, n);
            v->exp_sub(x + 24, x + 24, 1.0f, n);
            v->rope(x + 24, x + 24, cs, n & ~1, n & 2);
            for (int i = 0; i < 96; i++)
                if (i < 24 || i >= 24 + n) assert_true(x[i] == 7.0f);
        }
}

/* |got - want| <= ulps units in the last place of want. */
static void check_ulp(const char *what, double arg, float got, double want, double ulps)
{
    float f = fabsf((float)want);
    double unit = (double)nextafterf(f, INFINITY) - (double)f;
    if (!(fabs((double)got - want) <= ulps * unit))
        fail_msg("%s(%.9g) is %.9g, not %.17g: %.2f ulp", what, arg, (double)got, want,
                 fabs((double)got - want) / unit);
}

static void exp_is_within_two_ulp(void **state)
{
    (void)state;
    const wn_vec_ops *s = &wn_vec_ops_scalar;
    float x, y;
    /* Below -87.3 expf leaves the normal range, where a relative bound means little. */
    for (int i = 0; i <= 873000; i++) {
        x = -(float)i * 1e-4f;
        s->exp_sub(&y, &x, 0.0f, 1);
        check_ulp("exp", (double)x, y, exp((double)x), 2.0);
    }
    x = 0.0f, s->exp_sub(&y, &x, 0.0f, 1);
    assert_true(y == 1.0f);
    x = -INFINITY, s->exp_sub(&y, &x, 0.0f, 1);
    assert_true(y == 0.0f);
    x = -1e30f, s->exp_sub(&y, &x, 0.0f, 1);
    assert_true(y == 0.0f);
    for (int i = 0; i <= 400; i++) {
        x = -87.0f - (float)i * 0.05f;
        s->exp_sub(&y, &x, 0.0f, 1);
        assert_true(y >= 0.0f && y <= 1.7e-38f);
    }
}

/* The scalar table against the formulas in double. rms_norm: 16 chains of n/16 squares each
 * round n/16 + 4 times, then four more operations: under (n/16 + 12) / 2 ulp. silu: exp 2
 * ulp, then four roundings; rope: two products and a sum, absolute in the size of the pair. */
static void scalar_is_the_formula(void **state)
{
    (void)state;
    static float x[N_MAX], y[N_MAX], a[N_MAX];
    const wn_vec_ops *s = &wn_vec_ops_scalar;
    uint64_t seed = 42;
    const int n = 1000;
    fill(x, n, 3.0f, false, &seed);
    fill(y, n, 2.0f, false, &seed);

    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    s->rms_norm(a, x, y, n, 1e-5f);
    for (int i = 0; i < n; i++)
        check_ulp("rms_norm", i, a[i], (double)x[i] / sqrt(sum / n + (double)1e-5f) * (double)y[i],
                  40);

    memcpy(a, x, sizeof a);
    s->silu_mul(a, y, n);
    for (int i = 0; i < n; i++)
        check_ulp("silu_mul", (double)x[i], a[i],
                  (double)x[i] / (1 + exp(-(double)x[i])) * (double)y[i], 6);
    memcpy(a, x, sizeof a);
    s->gelu_mul(a, y, n);
    for (int i = 0; i < n; i++) {
        double g = (double)x[i], z = 0.7978845608028654 * (g + 0.044715 * g * g * g);
        /* The exponent is rounded three times and then as large as 2z: so much relative error of
         * exp. */
        check_ulp("gelu_mul", g, a[i], 0.5 * g * (1 + tanh(z)) * (double)y[i], 8 + 4 * fabs(2 * z));
    }
    fill(x, n, 9.0f, false, &seed);
    fill(y, n, 9.0f, false, &seed);
    memcpy(a, x, sizeof a);
    s->clamped_mul(a, y, n);
    for (int i = 0; i < n; i++) {
        double g = fmin((double)x[i], 7), u = fmax(-7, fmin((double)y[i], 7));
        double want = g / (1 + exp(-1.702 * g)) * (u + 1);
        /* u + 1 may cancel: an absolute part, of the rounding of u + 1 itself. */
        assert_true(fabs((double)a[i] - want) <= 1e-6 * fabs(want) * (1 + fabs(g)) + 1e-6);
    }

    float g[4] = { -200.0f, 200.0f, -INFINITY, 0.0f }, u[4] = { 1, 1, 0, 1 };
    s->silu_mul(g, u, 4);
    assert_true(g[0] == 0.0f && g[1] == 200.0f && g[3] == 0.0f);

    float v[4] = { 1, 2, 3, 4 }, o[4], cs[4] = { 0.6f, 0.8f, 0.0f, 1.0f };
    static const double near[4] = { 0.6 * 1 - 0.8 * 2, 0.6 * 2 + 0.8 * 1, -4, 3 };
    static const double far[4] = { 0.6 * 1 - 0.8 * 3, -4, 0.6 * 3 + 0.8 * 1, 2 };
    s->rope(o, v, cs, 4, false);
    for (int i = 0; i < 4; i++) assert_true(fabs((double)o[i] - near[i]) < 1e-6);
    s->rope(o, v, cs, 4, true);
    for (int i = 0; i < 4; i++) assert_true(fabs((double)o[i] - far[i]) < 1e-6);

    float m[5] = { NAN, -3.0f, NAN, -2.0f, -INFINITY };
    assert_true(s->max(m, 5) == -2.0f);
    assert_true(s->max(m, 1) == -INFINITY && s->max(m, 0) == -INFINITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_table_gives_scalar_bits),
        cmocka_unit_test(the_largest_zero_is_positive),
        cmocka_unit_test(stores_stay_inside),
        cmocka_unit_test(exp_is_within_two_ulp),
        cmocka_unit_test(scalar_is_the_formula),
    };
    find_tables();
    make_fences();
    if (n_tables < 2) printf("skipped: this CPU runs %d of the 2 vector tables\n", n_tables);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
