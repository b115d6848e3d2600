/* What a page has beside its codes earns its bytes: numbers that stand out cost the others nothing,
 * what slots have in common takes up no steps, and no page is worse for either. (That all of it is
 * computed, moved and masked like the codes: tests/unit/page/coded.c, which takes each format.) */
#include "tests/unit/check.h"

#include "page/format.h"

#include <math.h>

enum { P = 64, D = 128 };

static const char *const bases[] = { "q4", "q3", "q2", "kivi4", "kivi2" };

typedef float rows[P][D];

static const wn_format *with(const char *base, const char *option)
{
    char name[32];
    snprintf(name, sizeof name, "%s%s", base, option);
    const wn_format *f = wn_format_find(name);
    if (!f) fail_msg("there is no %s", name);
    return f;
}

/* x through a page of K or V and back. */
static void through(const wn_format *f, bool is_k, rows x, rows y)
{
    void *raw = calloc(1, wn_format_f32.k_bytes(P, D)),
         *frame = malloc((is_k ? f->k_bytes : f->v_bytes)(P, D));
    (is_k ? wn_format_f32.put_k : wn_format_f32.put_v)(raw, P, 0, x[0], D, P, D);
    (is_k ? f->encode_k : f->encode_v)(frame, raw, &wn_format_f32, P, P, ~0ull, D);
    for (int s = 0; s < P; s++) (is_k ? f->get_k : f->get_v)(frame, P, s, y[s], D);
    free(raw), free(frame);
}

static double squares(rows x, rows y)
{
    double sum = 0;
    for (int s = 0; s < P; s++)
        for (int d = 0; d < D; d++) sum += pow((double)x[s][d] - (y ? (double)y[s][d] : 0), 2);
    return sum;
}

static float normal(uint64_t *seed)
{
    float sum = 0;
    for (int i = 0; i < 12; i++) sum += test_randf(seed);
    return sum / 2;
}

/* A page that is a product of rank 2 comes back to a hundredth: the factors' rounding is in the
 * codes. */
static void what_slots_share_takes_no_steps(void **state)
{
    (void)state;
    static rows x, y;
    uint64_t seed = 51;
    float a[2][P], p[2][D];
    for (int r = 0; r < 2; r++) {
        for (int s = 0; s < P; s++) a[r][s] = 1 + normal(&seed);
        for (int d = 0; d < D; d++) p[r][d] = normal(&seed) * (r ? 1 : 10);
    }
    for (int s = 0; s < P; s++)
        for (int d = 0; d < D; d++) x[s][d] = a[0][s] * p[0][d] + a[1][s] * p[1][d];
    for (size_t b = 0; b < WN_COUNT(bases); b++)
        for (int is_k = 0; is_k < 2; is_k++) {
            through(with(bases[b], "-r2"), is_k, x, y);
            if (!(squares(x, y) <= 1e-4 * squares(x, NULL)))
                fail_msg("%s-r2, %c: %g of the page is lost", bases[b], is_k ? 'K' : 'V',
                         sqrt(squares(x, y) / squares(x, NULL)));
        }
}

/* One number of each row (of V, of K by slot) or channel (K of kivi) is thousands of times the
 * others: it comes back to a thousandth, and the others as if it were like them. */
static void what_stands_out_costs_the_others_nothing(void **state)
{
    (void)state;
    static rows x, y, plain, z;
    uint64_t seed = 52;
    for (size_t b = 0; b < WN_COUNT(bases); b++)
        for (int is_k = 0; is_k < 2; is_k++) {
            bool by_channel = is_k && !strncmp(bases[b], "kivi", 4);
            for (int s = 0; s < P; s++)
                for (int d = 0; d < D; d++) {
                    plain[s][d] = x[s][d] = normal(&seed);
                    bool out = by_channel ? (d * 7 + 5) % P == s : (s * 11 + 3) % 64 == d % 64;
                    if (out) x[s][d] = (d & 1 ? -1 : 1) * 5000.0f;
                    if (out) plain[s][d] = 0;
                }
            through(with(bases[b], "-s1"), is_k, x, y);
            through(with(bases[b], ""), is_k, plain, z);
            for (int s = 0; s < P; s++)
                for (int d = 0; d < D; d++)
                    if (fabsf(x[s][d]) == 5000) {
                        assert_true(fabsf(y[s][d] - x[s][d]) <= 5);
                        x[s][d] = y[s][d] = z[s][d] = 0;
                    }
            if (!(squares(x, y) <= 1.2 * squares(plain, z)))
                fail_msg("%s-s1, %c: error %g, without the large numbers %g", bases[b],
                         is_k ? 'K' : 'V', squares(x, y), squares(plain, z));
        }
}

/* Noise has nothing to take out, keys have a mean and large channels: worse it gets with neither,
 * and with keys the product saves at least half of the error of codes under a slot's scale. */
static void no_page_is_worse_for_it(void **state)
{
    (void)state;
    static rows x, y, z;
    static const char *const options[] = { "-s1", "-r2", "-s1r2" };
    uint64_t seed = 53;
    for (int keys = 0; keys < 2; keys++) {
        for (int d = 0; d < D; d++) {
            float mean = keys ? 4 * normal(&seed) : 0, size = keys && d % 16 == 3 ? 5 : 1;
            for (int s = 0; s < P; s++) x[s][d] = mean + size * normal(&seed);
        }
        for (size_t b = 0; b < WN_COUNT(bases); b++)
            for (size_t o = 0; o < WN_COUNT(options); o++)
                for (int is_k = 0; is_k < 2; is_k++) {
                    const wn_format *f = with(bases[b], options[o]);
                    through(with(bases[b], ""), is_k, x, y);
                    through(f, is_k, x, z);
                    double may = keys && o && bases[b][0] == 'q' ? 0.5 : 1;
                    if (!(squares(x, z) <= may * squares(x, y)))
                        fail_msg("%s, %c, %s: error %g, plain %g", f->name, is_k ? 'K' : 'V',
                                 keys ? "keys" : "noise", squares(x, z), squares(x, y));
                }
    }
}

/* Masked slots and slots that are not finite have nothing beside their codes: whatever is added to
 * an answer for them is 0, so that their weight of 0 and their NaN stay what they are. */
static void dead_slots_have_nothing_beside_their_codes(void **state)
{
    (void)state;
    static rows x;
    uint64_t seed = 54;
    for (int s = 0; s < P; s++)
        for (int d = 0; d < D; d++) x[s][d] = normal(&seed);
    x[9][4] = NAN, x[40][77] = INFINITY;
    uint64_t keep = ~(1ull << 13 | 1ull << 41);
    for (size_t b = 0; b < WN_COUNT(bases); b++)
        for (int is_k = 0; is_k < 2; is_k++) {
            const wn_format *f = with(bases[b], "-s1r2"), *base = with(bases[b], "");
            size_t bytes = (is_k ? f->k_bytes : f->v_bytes)(P, D),
                   from = (is_k ? base->k_bytes : base->v_bytes)(P, D);
            void *raw = calloc(1, wn_format_f32.k_bytes(P, D));
            char *frame = malloc(bytes);
            (is_k ? wn_format_f32.put_k : wn_format_f32.put_v)(raw, P, 0, x[0], D, P, D);
            (is_k ? f->encode_k : f->encode_v)(frame, raw, &wn_format_f32, P, P, keep, D);
            const int8_t *a = (const int8_t *)frame + from + 2 * 128 + 128 + 64 + 2 * D;
            const uint16_t *value = (const uint16_t *)(const void *)(frame + from);
            const uint8_t *slot = (const uint8_t *)frame + from + 2 * 128;
            bool by_channel = is_k && base->k_repack == WN_REPACK_RAW_ONLY;
            for (int s = 0; s < P; s++) {
                if (s != 9 && s != 13 && s != 40 && s != 41) continue;
                for (int r = 0; r < 2; r++) assert_int_equal(a[r * P + s], 0);
                for (int j = 0; j < 2 && !by_channel; j++) assert_int_equal(value[j * P + s], 0);
                for (int d = 0; d < D && by_channel; d++) assert_int_not_equal(slot[d], s);
            }
            free(raw), free(frame);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_slots_share_takes_no_steps),
        cmocka_unit_test(what_stands_out_costs_the_others_nothing),
        cmocka_unit_test(no_page_is_worse_for_it),
        cmocka_unit_test(dead_slots_have_nothing_beside_their_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
