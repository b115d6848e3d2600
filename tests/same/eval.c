/* The instrument itself: what must be exactly nothing is nothing, the figures do not depend
 * on threads or workers, and planted faults show.
 *
 * Faults are planted in the cache of a row through its decider, on the demo model (random
 * weights attend to nearly everything and would notice little). A fault counts as flagged when one
 * figure is at least ten times what the same decision without the fault costs (and above
 * 0.01 nats where that is nothing), or the mass that merged slots take over falls to a third.
 */
#include "tests/unit/check.h"

#include "eval/eval.h"
#include "eval/report.h"

#include <math.h>

enum { CONTEXT = 512, HALF = CONTEXT / 2 };

static wn_model *model;

static int open_model(void **state)
{
    (void)state;
    return wn_model_open(&model, "models/winnow-demo.gguf", NULL, NULL);
}
static int close_model(void **state)
{
    (void)state;
    wn_model_close(model);
    return 0;
}

/* ---- deciders: the right thing, and the same with a fault ------------------------------- */

/* Slots [lo, hi) of each lane's pages, by run. */
typedef void on_run(const wn_kv *kv, int lane, const wn_run *run, int v_dim);
static void each_run(const wn_kv *kv, int lane, on_run *fn)
{
    wn_run_iter it;
    wn_run run;
    wn_runs_begin(&it, kv, lane, 0, wn_kv_n(kv));
    while (wn_runs_next(&it, &run)) fn(kv, lane, &run, wn_kv_map(kv)->lanes[lane].v_dim);
}

static void zero_v(const wn_kv *kv, int lane, const wn_run *run, int v_dim)
{
    float zero[256] = { 0 };
    for (int s = 0; s < run->n; s++)
        wn_kv_raw_v(kv, lane)->put_v((void *)(uintptr_t)run->v, wn_kv_page_slots(kv),
                                     run->first + s, zero, (size_t)v_dim, 1, v_dim);
}

static void shift_v(const wn_kv *kv, int lane, const wn_run *run, int v_dim)
{
    float row[256];
    const wn_format *f = wn_kv_raw_v(kv, lane);
    int P = wn_kv_page_slots(kv);
    for (int s = run->n - 1; s > 0; s--) {
        f->get_v(run->v, P, run->first + s - 1, row, v_dim);
        f->put_v((void *)(uintptr_t)run->v, P, run->first + s, row, (size_t)v_dim, 1, v_dim);
    }
}

/* Several values for one position would be a decision per fork: once per sequence is enough. */
static wn_status keep_all(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *err)
{
    (void)ctx, (void)kv, (void)p, (void)plan, (void)err;
    return WN_OK;
}

static wn_status zero_a_head(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *err)
{
    (void)ctx, (void)plan, (void)err;
    if (p == HALF) each_run(kv, 3, zero_v);
    return WN_OK;
}

static wn_status shift_all_v(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *err)
{
    (void)ctx, (void)plan, (void)err;
    for (int l = 0; l < wn_kv_map(kv)->n_lanes && p == HALF; l++) each_run(kv, l, shift_v);
    return WN_OK;
}

/* The scales of page 1, one for each slot at the head of its frames, are those of page 0. */
static wn_status plant_stale_scales(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *err)
{
    (void)ctx, (void)plan, (void)err;
    for (int l = 0; l < wn_kv_map(kv)->n_lanes && p == HALF; l++) {
        wn_run_iter it;
        wn_run first, run;
        wn_runs_begin(&it, kv, l, 0, p);
        assert_true(wn_runs_next(&it, &first) && wn_runs_next(&it, &run) && first.v_sealed &&
                    run.v_sealed);
        memcpy((void *)(uintptr_t)run.k_sealed, first.k_sealed, 2 * (size_t)wn_kv_page_slots(kv));
        memcpy((void *)(uintptr_t)run.v_sealed, first.v_sealed, 2 * (size_t)wn_kv_page_slots(kv));
    }
    return WN_OK;
}

/* Drops two tokens far back: next to nothing, unless the others lose their places. */
static wn_status evict(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *err)
{
    (void)kv, (void)err;
    if (p != HALF) return WN_OK;
    wn_plan_drop(plan, WN_ALL_LANES, 64, 66);
    if (ctx) wn_plan_shift(plan, WN_ALL_LANES, 66, p, *(int *)ctx);
    return WN_OK;
}

/* Merges runs of 8 equal-looking slots into one; ctx: without the bias. */
static wn_status merge(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *err)
{
    enum { C = 8 };
    static const float w[C] = { 0.125f, 0.125f, 0.125f, 0.125f, 0.125f, 0.125f, 0.125f, 0.125f };
    (void)kv, (void)err;
    for (int at = 32; at + C <= 160 && p == HALF; at += C) {
        int32_t src[C];
        for (int i = 0; i < C; i++) src[i] = at + i;
        wn_plan_merge_slots(plan, WN_ALL_LANES, at, src, w, w, C, ctx ? 0 : logf(C), C);
    }
    return WN_OK;
}

/* ---- running ------------------------------------------------------------------------------ */

static wn_eval_report evaluate(const wn_eval_row *rows, int n, wn_eval_opts o)
{
    wn_eval_report r;
    wn_err err;
    static wn_phrases *phrases;
    if (!phrases && wn_phrases_open(&phrases, "demo", NULL, &err)) fail_msg("%s", err.text);
    o.rows = rows;
    o.n_rows = n;
    o.phrases = phrases;
    if (!o.context) o.context = CONTEXT;
    if (wn_eval_run(&r, model, &o, &err)) fail_msg("%s", err.text);
    return r;
}

static void nothing_costs_nothing(void **state)
{
    (void)state;
    const wn_eval_row rows[] = {
        { .kv = "none" },
        { .kv = "keepall" },
        { .kv = "keepall(at=mark)" },
        { .kv = "keepall(every=64)" },
        { .kv = "random@100%" },
        { .kv = "recent(window=4000)" },
        { .kv = "decider", .decide = keep_all, .every = 64 },
    };
    wn_eval_report r = evaluate(rows, (int)WN_COUNT(rows), (wn_eval_opts){ .max_chunks = 2 });
    for (int i = 0; i < r.n_rows; i++) {
        const wn_eval_result *x = &r.rows[i];
        if (x->kl_mean != 0 || x->kl_p99 != 0 || x->top1 != 1 || x->ppl != x->ppl_full)
            fail_msg("%s: KL %g, top-1 %g, ppl %g of %g", x->kv, x->kl_mean, x->top1, x->ppl,
                     x->ppl_full);
        assert_true(x->diverge_at == r.diverge_max);
        for (int l = 0; l < r.n_layers; l++) {
            assert_true(fabs(x->mass[l] - 1) < 1e-5);   /* f32 weights of up to 512 positions */
            assert_true(x->error[l] == 0);
        }
    }
    wn_eval_report_release(&r);
}

static void flagged(const char *fault, const wn_eval_result *right, const wn_eval_result *wrong,
                    int n_layers)
{
    double worst_right = 0, worst_wrong = 0, taken_right = 0, taken_wrong = 0;
    for (int l = 0; l < n_layers; l++) {
        taken_right += right->recovered[l] / n_layers;
        taken_wrong += wrong->recovered[l] / n_layers;
        worst_right = fmax(worst_right, right->error[l]);
        worst_wrong = fmax(worst_wrong, wrong->error[l]);
    }
    printf("%-22s KL %.5f -> %.5f, p99 %.4f -> %.4f, top-1 %.3f -> %.3f, worst layer's error %.3f "
           "-> %.3f, taken over %.3f -> %.3f\n",
           fault, right->kl_mean, wrong->kl_mean, right->kl_p99, wrong->kl_p99, right->top1,
           wrong->top1, worst_right, worst_wrong, taken_right, taken_wrong);
    bool seen = wrong->kl_mean > fmax(10 * right->kl_mean, 0.01) ||
                wrong->kl_p99 > fmax(10 * right->kl_p99, 0.01) ||
                worst_wrong > fmax(10 * worst_right, 0.1) || taken_wrong < taken_right / 3;
    if (!seen) fail_msg("%s is not flagged", fault);
}

static void planted_faults_are_flagged(void **state)
{
    (void)state;
    int one = 1, without = 1;
    const wn_eval_row rows[] = {
        { .kv = "keep", .decide = keep_all, .every = HALF },
        { .kv = "one head zeroed", .decide = zero_a_head, .every = HALF },
        { .kv = "V a slot off", .decide = shift_all_v, .every = HALF },
        { .kv = "evict", .decide = evict, .every = HALF },
        { .kv = "positions off by one", .decide = evict, .decide_ctx = &one, .every = HALF },
        { .kv = "merge", .decide = merge, .every = HALF },
        { .kv = "bias forgotten", .decide = merge, .decide_ctx = &without, .every = HALF },
        { .kv = "q8", .decide = keep_all, .every = HALF, .formats = "none,kv=q8" },
        { .kv = "stale scales", .decide = plant_stale_scales, .every = HALF,
          .formats = "none,kv=q8" },
    };
    wn_eval_report r = evaluate(rows, (int)WN_COUNT(rows), (wn_eval_opts){ .max_chunks = 4 });
    flagged("one head zeroed", &r.rows[1], &r.rows[2], r.n_layers);
    flagged("V shifted by one slot", &r.rows[1], &r.rows[3], r.n_layers);
    flagged("positions off by one", &r.rows[4], &r.rows[5], r.n_layers);
    flagged("bias forgotten", &r.rows[6], &r.rows[7], r.n_layers);
    flagged("stale scales in a page", &r.rows[8], &r.rows[9], r.n_layers);
    wn_eval_report_release(&r);
}

/* The printed report, as JSON. */
static char *printed(const wn_eval_row *rows, int n, wn_eval_opts o)
{
    char *text = NULL;
    size_t size;
    const bool ask[WN_ASK_MODES] = { true, true };
    wn_eval_report r = evaluate(rows, n, o);
    FILE *f = open_memstream(&text, &size);
    assert_true(wn_eval_write_json(f, &r, ask) && wn_eval_write_csv(f, &r, ask) &&
                wn_eval_write_table(f, &r, ask));
    fclose(f);
    wn_eval_report_release(&r);
    return text;
}

static void threads_change_no_byte(void **state)
{
    (void)state;
    const wn_eval_row rows[] = {
        { .kv = "random(every=128)", .share = 0.5 }, { .kv = "recent(at=mark)", .share = 0.25 },
        { .kv = "random(at=both,every=100)", .share = 0.25 },
    };
    const wn_task *tasks[] = { wn_task_find("passkey"), wn_task_find("questions"), NULL };
    wn_eval_opts o = { .max_chunks = 2, .tasks = tasks, .n_seeds = 2, .ask = { true, true },
                       .n_threads = 1 };
    char *one = printed(rows, (int)WN_COUNT(rows), o);
    for (int t = 2; t <= 3; t++) {
        o.n_threads = t;
        char *more = printed(rows, (int)WN_COUNT(rows), o);
        if (strcmp(one, more)) fail_msg("%d threads:\n%s\n1 thread:\n%s", t, more, one);
        free(more);
    }
    free(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_costs_nothing),
        cmocka_unit_test(planted_faults_are_flagged),
        cmocka_unit_test(threads_change_no_byte),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
