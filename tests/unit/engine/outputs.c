/* What values can change in the layer's answer, as views have it, against the plain definition: the
 * columns of the output matrix of each query head, weights in several types, times the cached
 * value. The same numbers with one thread and with three, and on whatever is still live. */
#include "tests/support/engine.h"
#include "tests/unit/check.h"

#include "base/alloc.h"

#include <math.h>

enum { N = 150 };
static int32_t ids[N];

typedef struct {
    const wn_model *m;
    float *seen;                        /* (decisions, n_lanes, N) by position */
    int n;
} watch;

/* |W_O v| of one slot, mean over the group. */
static double plain(const wn_model *m, const wn_view_lane *l, const float *value)
{
    const wn_matrix *wo = &m->layers[l->layer].wo;
    float *row = malloc(sizeof *row * (size_t)wo->n_cols);
    double sum = 0;
    assert_non_null(row);
    for (int r = 0; r < wo->n_rows; r++) {
        wn_matrix_row(wo, r, row);
        for (int h = 0; h < l->group; h++) {
            double dot = 0;
            for (int c = 0; c < l->v_dim; c++)
                dot += (double)row[(l->head * l->group + h) * l->v_dim + c] * (double)value[c];
            sum += fabs(dot);
        }
    }
    free(row);
    return sum / l->group;
}

static wn_status decided(void *ctx, const wn_view *v, double slot_bytes, const wn_plan *plan,
                         wn_err *err)
{
    watch *w = ctx;
    (void)slot_bytes;
    (void)plan;
    (void)err;
    for (int lane = 0; lane < v->n_lanes; lane++) {
        const wn_view_lane *l = wn_view_get_lane(v, lane);
        float *out = w->seen + ((size_t)w->n * (size_t)v->n_lanes + (size_t)lane) * N;
        const float *x = wn_view_outputs(v, lane), *value = wn_view_values(v, lane);
        for (int i = 0; i < l->n; i++) {
            out[l->pos[i]] = x[i];
            if (i % 7) continue;
            /* sums of floats: their rounding, some times over */
            double want = plain(w->m, l, value + i * l->v_dim);
            if (!(fabs((double)x[i] - want) <= 1e-5 * want))
                fail_msg("lane %d, slot %d: %g, not %g", lane, i, (double)x[i], want);
        }
    }
    w->n++;
    return WN_OK;
}

static void run(const char *path, int threads, watch *w)
{
    wn_err err = { 0 };
    wn_decision_log log = { decided, w };
    test_engine t = test_engine_open(path, (wn_engine_opts){ .n_threads = threads, .max_seqs = 4 });
    wn_seq *s;
    if (wn_seq_open(&s, t.e,
                    &(wn_seq_opts){ .max_tokens = N,
                                    .kv = "criticalkv(window=8,at=boundary,every=70)@50%" },
                    &err))
        fail_msg("%s", err.text);
    w->m = t.m;
    w->seen = calloc(2 * (size_t)t.m->map.n_lanes * N, sizeof *w->seen);
    assert_non_null(w->seen);
    wn_seq_set_log(s, &log);
    assert_int_equal(wn_seq_feed(s, ids, N, &err), WN_OK);
    test_steps(&t);
    assert_int_equal(w->n, 2);
    wn_seq_close(s);
    test_engine_close(&t);
}

static void outputs_are_the_definition(void **state)
{
    (void)state;
    static const char *const type[] = { "F32", "Q8_0", "Q4_K" };
    for (size_t i = 0; i < WN_COUNT(type); i++) {
        watch one = { 0 }, three = { 0 };
        const char *path = test_model_path("llama", type[i]);
        run(path, 1, &one);
        run(path, 3, &three);
        assert_memory_equal(one.seen, three.seen, 2 * sizeof(float) * N * (size_t)4);
        free(one.seen);
        free(three.seen);
    }
}

int main(void)
{
    test_tokens(ids, N, 300, 2);
    const struct CMUnitTest tests[] = { cmocka_unit_test(outputs_are_the_definition) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
