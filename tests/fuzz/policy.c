/* tests/fuzz/policy.c - any text as a cache policy. What is read says the same as its
 * canonical text, and decides over a small view without touching what it must not: the
 * protected slots stay, lanes without slots are left alone, a budget is kept.
 *
 * The text ends at the first NUL. */
#include "policy/policy.h"

#include <stdlib.h>
#include <string.h>

enum { LANES = 4, TOKENS = 40, SCRATCH = 1 << 20 };

static int32_t positions[LANES][TOKENS];
static wn_view_lane lanes[LANES];
static float rows[TOKENS * 4], sums[2 * TOKENS], queries[64 * 2 * 4], stats[WN_STATS_MAX][TOKENS],
    outputs[TOKENS];
static uint8_t flags[TOKENS];
static int32_t spans[TOKENS];
static const float *const lane_sums[LANES] = { sums, sums, sums, sums };
static wn_arena scratch;

static void check(bool holds)
{
    if (!holds) abort();
}

static void load(void *ctx, int lane, bool values, float *out)
{
    (void)ctx;
    (void)values;
    for (int i = 0; i < lanes[lane].n * 4; i++) out[i] = (float)((i * 7 + lane) % 11);
}

static void load_queries(void *ctx, int lane, int w, float *out)
{
    (void)ctx;
    for (int i = 0; i < w * 2 * 4; i++) out[i] = (float)((i * 5 + lane) % 7) - 3;
}

static void load_stat(void *ctx, int lane, int stat, float *out)
{
    (void)ctx;
    for (int i = 0; i < lanes[lane].n; i++) out[i] = (float)((i * 3 + lane + stat) % 13);
}

static bool load_outputs(void *ctx, const wn_view *v, int lane, float *out)
{
    (void)ctx;
    (void)v;
    for (int i = 0; i < lanes[lane].n; i++) out[i] = (float)((i * 2 + lane) % 5);
    return true;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    for (int l = 0; l < LANES; l++) {   /* lane 2 belongs to a window layer, lane 3 has every other
                                           slot */
        lanes[l] = (wn_view_lane){ .layer = l / 2, .head = l % 2, .group = 2, .k_dim = 4,
                                   .v_dim = 4, .pos = positions[l],
                                   .n = l == 2 ? 0 : l == 3 ? TOKENS / 2 : TOKENS };
        for (int i = 0; i < lanes[l].n; i++) positions[l][i] = l == 3 ? 2 * i : i;
    }
    for (int i = 0; i < TOKENS; i++) flags[i] = (uint8_t)(i % 4), spans[i] = i / 7;
    for (int i = 0; i < 2 * TOKENS; i++) sums[i] = (float)(i % 9) / 100;
    check(!wn_arena_init(&scratch, SCRATCH, false, NULL));
    return 0;
}

static void decide(const wn_policy *p)
{
    static const int first[] = { 0, 2, 4 };
    wn_view v = { .n_tokens = TOKENS, .n_layers = 2, .n_lanes = LANES, .lanes = lanes,
                  .layer_first = first, .scratch = &scratch, .rows = { rows, rows }, .load = load,
                  .queries = queries, .stats = p->stats, .n_stats = p->n_stats,
                  .window = WN_MIN(wn_policy_window(p), TOKENS), .sums = lane_sums,
                  .load_queries = load_queries, .load_stat = load_stat,
                  .load_outputs = load_outputs, .outputs = outputs, .flags = flags,
                  .spans = spans };
    for (int i = 0; i < WN_STATS_MAX; i++) v.stat_rows[i] = stats[i];
    wn_plan plan;
    int64_t kept = 0, whole = 0, protected = 0;         /* whole: in no fewer bits */
    wn_mark m = wn_arena_mark(&scratch);
    wn_plan_init(&plan, TOKENS, LANES);
    wn_policy_decide(p, &v, 16, &plan);
    wn_arena_rewind(&scratch, m);
    check(!plan.status);
    check(!plan.keep || !plan.keep[2]);
    for (int l = 0; l < LANES; l++)
        for (int i = 0; i < lanes[l].n; i++) {
            int pos = positions[l][i];
            bool stays = wn_plan_keeps(&plan, l, pos),
                 must = pos < p->first || pos >= TOKENS - p->last;
            check(stays || !must || plan.n_merges);
            kept += stays;
            whole += stays && !wn_plan_demotes(&plan, l, pos);
            protected += must;
        }
    if (p->recipe->kind == WN_CLASS_BUDGETED && p->budget_kind != WN_BUDGET_NONE && !plan.n_merges) {
        check(whole <= v.budget + protected);
        check(v.kept == INT64_MAX || kept <= v.kept + protected);
    }
    wn_plan_release(&plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    wn_policy p, q;
    wn_err err = { 0 };
    char *text = malloc(size + 1);
    if (!text) return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (wn_policy_parse(&p, text, &err)) {
        check(err.status == WN_EINVAL && *err.text);
    } else {
        check(strlen(p.text) < sizeof p.text);
        check(wn_policy_parse(&q, p.text, &err) == WN_OK);
        check(!strcmp(p.text, q.text) && p.recipe == q.recipe && !memcmp(p.v, q.v, sizeof p.v));
        check(p.at == q.at && p.every == q.every && p.first == q.first && p.last == q.last);
        check(p.budget_kind == q.budget_kind && !memcmp(&p.budget, &q.budget, sizeof p.budget));
        if (!wn_policy_profile(&p)) decide(&p);         /* this view has none */
    }
    free(text);
    return 0;
}
