/* What policies are told about attention. The sums over the last queries and the statistics of all
 * queries are those of the definition in double, over lanes that two decisions have thinned,
 * merged, biased and shifted; and page size, chunks, threads, neighbours and repacking change no
 * bit of them, also where pages are read raw by some queries and sealed by others. */
#include "tests/unit/check.h"
#include "tests/support/attn_bed.h"

#include "attention/block.h"
#include "attention/window.h"

#include <math.h>

enum { N = 700, LANES = 2, ROWS_MAX = N * LANES * 4, CHECKS = 5 };
static const int decided_at[2] = { 400, 610 };

typedef struct {
    bed bed;
    int w, percent;
    bool merges, shifts, no_repack;
    int n_decided;                      /* decisions carried out so far */
    float *q, *k;                       /* (N, ..) the text's rows, as projected */
    float *sums;                        /* (CHECKS, LANES, group * N) found on the way */
    int n_checks, n_live[CHECKS][LANES];
    double *turned_k;                   /* (N, LANES, k_dim) */
    wn_ledger *by_slot;                 /* the bed's ledger, if it goes with the slots; or NULL */
} trial;

/* ---- two decisions ---------------------------------------------------------------------- */

static uint64_t draw(const trial *t, int what, int lane, int pos)
{
    uint64_t s = t->bed.seed * 7919 + (uint64_t)(what * 10000000 + lane * 100000 + pos);
    return test_rand(&s);
}

static bool dropped(const trial *t, int lane, int pos, int decision)
{
    return pos < decided_at[decision] && (int)(draw(t, decision, lane, pos) % 100) < t->percent;
}

/* The first decision merges some pairs (2i, 2i + 1) into the row of 2i. */
static bool paired(const trial *t, int lane, int pos)
{
    pos &= ~1;
    return t->merges && pos + 1 < decided_at[0] && draw(t, 2, lane, pos) % 4 == 0 &&
           !dropped(t, lane, pos, 0) && !dropped(t, lane, pos + 1, 0);
}

static bool is_live(const trial *t, int lane, int pos, int n_decided)
{
    for (int i = 0; i < n_decided; i++)
        if (dropped(t, lane, pos, i)) return false;
    return !(n_decided && pos % 2 && paired(t, lane, pos));
}

static float bias_of(const trial *t, int lane, int pos, int n_decided)
{
    if (!n_decided || pos >= decided_at[0]) return 0;
    if (paired(t, lane, pos)) return 0.75f;
    return t->merges && pos % 14 == 3 ? 0.5f * (float)(pos % 5) : 0;
}

static int shift_of(const trial *t, int pos, int n_decided)
{
    if (!t->shifts || !n_decided) return 0;
    return pos < 100 ? 100 + 100 * n_decided : n_decided > 1 && pos >= 300 && pos < 450 ? -7 : 0;
}

static void carry_out(trial *t, wn_kv *kv, int decision)
{
    wn_plan plan;
    wn_err err;
    wn_plan_init(&plan, decided_at[decision], LANES);
    plan.no_repack = t->no_repack;
    for (int lane = 0; lane < LANES; lane++) {
        for (int pos = 0; pos < plan.n_tokens; pos++) {
            bool was = is_live(t, lane, pos, decision), stays = is_live(t, lane, pos, decision + 1);
            if (was && dropped(t, lane, pos, decision)) wn_plan_drop(&plan, lane, pos, pos + 1);
            if (decision || !stays) continue;
            static const float first[2] = { 1, 0 };
            if (paired(t, lane, pos))
                wn_plan_merge_slots(&plan, lane, pos, (int32_t[]){ pos, pos + 1 }, first, first, 2,
                                    0.75f, 2);
            else if (bias_of(t, lane, pos, 1) > 0)
                wn_plan_set_bias(&plan, lane, pos, bias_of(t, lane, pos, 1));
        }
        if (t->shifts) wn_plan_shift(&plan, lane, 0, 100, decision ? 300 : 200);
        if (t->shifts && decision) wn_plan_shift(&plan, lane, 300, 450, -7);
    }
    static wn_arena arena;
    if (!arena.base) assert_int_equal(wn_arena_init(&arena, 1 << 16, false, &err), WN_OK);
    wn_mark mark = wn_arena_mark(&arena);
    uint64_t *was = t->by_slot ? wn_ledger_look(t->by_slot, kv, &arena, NULL) : NULL;
    if (wn_kv_apply(kv, &plan, &err)) fail_msg("%s", err.text);
    if (was)
        wn_ledger_settle(t->by_slot, kv, was, decision ? N : decided_at[1], &arena, NULL);
    if (was) assert_true(arena.peak <= wn_ledger_arena_bytes(LANES, N, 1));
    wn_arena_rewind(&arena, mark);
    wn_plan_release(&plan);
    t->n_decided = decision + 1;
}

/* ---- the definition ----------------------------------------------------------------------- */

static void turn(const trial *t, const float *x, int pos, double *out)
{
    const wn_rope *r = t->bed.rope;
    for (int d = 0; d < t->bed.shape.k_dim; d++) out[d] = (double)x[d];
    for (int j = 0; r && j < r->n_dims / 2; j++) {
        int a = r->neox ? j : 2 * j, b = r->neox ? j + r->n_dims / 2 : 2 * j + 1;
        double c = cos(r->rate[j] * pos), s = sin(r->rate[j] * pos);
        out[a] = (double)x[a] * c - (double)x[b] * s;
        out[b] = (double)x[a] * s + (double)x[b] * c;
    }
}

/* Adds `share` of the weights of query head h of lane at p to sum, by position. */
static void add_weights(const trial *t, int lane, int h, int p, int n_decided, double share,
                        double *sum)
{
    const wn_attend_shape *s = &t->bed.shape;
    int group = s->n_heads / LANES, at_shift = INT32_MIN;
    double w[N], q[256], most = -INFINITY, total = 0;
    for (int pos = 0; pos <= p; pos++) {
        w[pos] = -INFINITY;
        if (!is_live(t, lane, pos, n_decided)) continue;
        int shift = shift_of(t, pos, n_decided);
        if (shift != at_shift)
            turn(t, t->q + (p * s->n_heads + lane * group + h) * s->k_dim, p - shift, q);
        at_shift = shift;
        double x = 0;
        for (int d = 0; d < s->k_dim; d++)
            x += q[d] * t->turned_k[(pos * LANES + lane) * s->k_dim + d];
        x *= (double)s->scale;
        if (s->softcap > 0) x = (double)s->softcap * tanh(x / (double)s->softcap);
        w[pos] = x + (double)bias_of(t, lane, pos, n_decided);
        most = fmax(most, w[pos]);
    }
    if (t->bed.sinks) {
        double sink = (double)t->bed.sinks[lane * group + h];
        most = fmax(most, sink);
        total = exp(sink - most);
    }
    for (int pos = 0; pos <= p; pos++) total += exp(w[pos] - most);
    for (int pos = 0; pos <= p && total > 0; pos++) sum[pos] += share * exp(w[pos] - most) / total;
}

/* ---- the last queries --------------------------------------------------------------------- */

static void check_sums(const trial *t, int lane, int n, int n_live, const float *sums,
                       const int32_t *pos)
{
    int group = t->bed.shape.n_heads / LANES;
    double *want = malloc(sizeof *want * N);
    for (int h = 0; h < group; h++) {
        memset(want, 0, sizeof *want * N);
        for (int p = n - t->w; p < n; p++) add_weights(t, lane, h, p, t->n_decided, 1, want);
        for (int i = 0; i < n_live; i++) {
            if (!is_live(t, lane, pos[i], t->n_decided))
                fail_msg("position %d is not live", pos[i]);
            /* a weight is off by its share of 1e-5, as the logits are; w of them are added */
            if (!(fabs((double)sums[h * n_live + i] - want[pos[i]]) < 1e-5 + 1e-5 * want[pos[i]]))
                fail_msg("n %d, lane %d, head %d, position %d: %g, not %g", n, lane, h, pos[i],
                         (double)sums[h * n_live + i], want[pos[i]]);
        }
    }
    free(want);
}

static void look_back(trial *t, const wn_kv *kv, bool check)
{
    const wn_attend_shape *s = &t->bed.shape;
    wn_window x = { .shape = s, .rope = t->bed.rope, .sinks = t->bed.sinks, .w = t->w };
    int32_t pos[N];
    assert_true(t->n_checks < CHECKS);
    for (int lane = 0; lane < LANES; lane++) {
        int n_live = (int)wn_kv_live(kv, lane);
        float *scratch = malloc(sizeof(float) * wn_window_floats(&x, n_live, wn_kv_page_slots(kv)));
        float *sums = t->sums +
                      (size_t)(t->n_checks * LANES + lane) * (size_t)(s->n_heads / LANES * N);
        wn_window_sums(&x, kv, lane, n_live, sums, pos, scratch);
        if (check) check_sums(t, lane, wn_kv_n(kv), n_live, sums, pos);
        t->n_live[t->n_checks][lane] = n_live;
        free(scratch);
    }
    t->n_checks++;
}

typedef struct { trial *t; bool check; } watch;

/* Before and after each decision, and once in between. */
static void at(void *ctx, wn_kv *kv, int n)
{
    watch *w = ctx;
    wn_ledger *g = w->t->by_slot;
    if (g && n == 0) wn_ledger_lay_out(g, kv, w->t->percent ? decided_at[0] : N);
    bool look = n == decided_at[0] || n == decided_at[1] || n == 500;
    if (look && w->t->w) look_back(w->t, kv, w->check);
    for (int i = 0; i < 2; i++)
        if (n == decided_at[i] && w->t->percent) {
            carry_out(w->t, kv, i);
            if (w->t->w) look_back(w->t, kv, w->check);
        }
}

static void open_trial(trial *t)
{
    const wn_attend_shape *s = &t->bed.shape;
    float v[LANES * 256];
    t->q = malloc(sizeof(float) * (size_t)(N * s->n_heads * s->k_dim));
    t->k = malloc(sizeof(float) * (size_t)(N * LANES * s->k_dim));
    t->turned_k = malloc(sizeof(double) * (size_t)(N * LANES * s->k_dim));
    t->sums = calloc((size_t)(CHECKS * LANES * (s->n_heads / LANES) * N), sizeof(float));
    for (int p = 0; p < N; p++) {
        bed_rows(&t->bed, p, t->q + p * s->n_heads * s->k_dim, t->k + p * LANES * s->k_dim, v);
        for (int l = 0; l < LANES; l++)
            turn(t, t->k + (p * LANES + l) * s->k_dim, p, t->turned_k + (p * LANES + l) * s->k_dim);
    }
}

static void close_trial(trial *t)
{
    free(t->q);
    free(t->k);
    free(t->turned_k);
    free(t->sums);
}

static const int whole[] = { 400, 100, 110, 90, 0 }, one[] = { 1, 0 },
                 odd[] = { 130, 1, 69, 64, 136, 99, 1, 110, 45, 45, 0 };
static const struct { const int *chunks; int threads, P, noise; bool no_repack;
} ways[] = {
    { whole, 1, 64, 0, false }, { one, 2, 64, 0, false }, { odd, 3, 4, 0, false },
    { whole, 2, 16, 3, true },  { odd, 1, 4, 2, true },
};

/* Runs a trial in one way; answers are not looked at here. */
static void run_way(trial *t, size_t i, bool check, bool same_pages)
{
    watch w = { t, check };
    t->n_decided = t->n_checks = 0;
    t->no_repack = ways[i].no_repack;
    t->bed.chunks = ways[i].chunks;
    t->bed.threads = ways[i].threads;
    t->bed.noise = ways[i].noise;
    if (!same_pages) t->bed.page_slots = ways[i].P;
    t->bed.decide = at;
    t->bed.ctx = &w;
    free(bed_run(&t->bed));
}

static trial trial_of(uint64_t seed, int heads, int dim, wn_rope *rope, bool neox)
{
    trial t = { .bed = { .shape = { .n_heads = heads, .n_kv_heads = LANES, .k_dim = dim, .v_dim = 8,
                                    .scale = 1 / sqrtf((float)dim) },
                         .n = N, .seed = seed, .ring = 64, .rope = rope } };
    wn_rope_init(rope, neox ? dim : dim / 2, neox, 10000, 1, NULL);
    return t;
}

static void sums_of_the_last_queries(void **state)
{
    (void)state;
    static const float sinks[] = { 1, -3, 9, 0.5f, 2, -80, 4, 40 };
    static const struct {
        int heads, dim, w, percent;
        bool merges, shifts, neox, sinks;
        float softcap;
    } cases[] = {
        { 4, 32, 32, 0, false, false, true, false, 0 },
        { 2, 64, 64, 60, false, false, false, false, 0 },
        { 8, 32, 1, 80, true, false, true, true, 0 },
        { 4, 128, 32, 50, true, true, true, false, 0 },
        { 6, 96, 17, 95, true, true, false, false, 4 },
        { 2, 80, 64, 30, false, true, true, false, 0 },
        { 8, 32, 32, 40, false, false, true, true, 0 },
    };
    for (size_t c = 0; c < WN_COUNT(cases); c++) {
        wn_rope rope;
        trial t = trial_of(c + 1, cases[c].heads, cases[c].dim, &rope, cases[c].neox);
        t.w = cases[c].w;
        t.percent = cases[c].percent;
        t.merges = cases[c].merges;
        t.shifts = cases[c].shifts;
        t.bed.shape.softcap = cases[c].softcap;
        t.bed.sinks = cases[c].sinks ? sinks : NULL;
        open_trial(&t);
        float *first = NULL;
        size_t bytes = sizeof(float) * (size_t)(CHECKS * cases[c].heads * N);
        for (size_t i = 0; i < WN_COUNT(ways); i++) {
            memset(t.sums, 0, bytes);
            run_way(&t, i, i == 0, false);
            if (i == 0) first = memcpy(malloc(bytes), t.sums, bytes);
            else if (memcmp(first, t.sums, bytes)) fail_msg("case %zu: way %zu differs", c, i);
            assert_int_equal(t.n_checks, t.percent ? 5 : 3);
        }
        free(first);
        close_trial(&t);
    }
}

/* ---- all queries -------------------------------------------------------------------------- */

/* Every kind, every reduction, with and without what a statistic may have. */
static const wn_stat stats[] = {
    { .kind = WN_STAT_SUM },
    { .kind = WN_STAT_SUM, .reduce = WN_REDUCE_SUM, .decay = 0.5f, .near = 60 },
    { .kind = WN_STAT_SQUARES, .reduce = WN_REDUCE_MAX, .decay = 0.9f },
    { .kind = WN_STAT_MAX, .decay = 0.99f },
    { .kind = WN_STAT_HITS, .reduce = WN_REDUCE_MAX, .decay = 0.98f, .threshold = 1, .even = true },
    { .kind = WN_STAT_GAP, .reduce = WN_REDUCE_MAX, .threshold = 0.01f },
    { .kind = WN_STAT_LAST, .reduce = WN_REDUCE_MAX, .threshold = 0.01f },
    { .kind = WN_STAT_GAP, .threshold = 2, .even = true, .near = 100 },
    { .kind = WN_STAT_LAST, .threshold = 2, .even = true, .near = 100 },
};
enum { STATS = WN_COUNT(stats), FLOATS = LANES * STATS * N };

/* One query's step for one slot. False: so near to a threshold that rounding decides. */
static bool define(const wn_stat *s, double *x, double last, const double *w, int group, int p,
                   int pos, double even)
{
    double a = 0, decay = s->decay > 0 ? (double)s->decay : 1,
           bar = (double)s->threshold * (s->even ? even : 1);
    for (int h = 0; h < group; h++) a = s->reduce == WN_REDUCE_MAX ? fmax(a, w[h]) : a + w[h];
    if (s->reduce == WN_REDUCE_MEAN) a /= group;
    if (s->near && p - pos >= s->near) return true;
    bool hit = a >= bar;
    switch (s->kind) {
    case WN_STAT_SUM: *x = decay * *x + a; return true;
    case WN_STAT_SQUARES: *x = decay * *x + a * a; return true;
    case WN_STAT_MAX: *x = fmax(decay * *x, a); return true;
    case WN_STAT_HITS: *x = decay * *x + hit; break;
    case WN_STAT_LAST: *x = hit ? p : *x; break;
    case WN_STAT_GAP: *x = hit ? fmax(*x, p - last) : *x; break;
    default: fail();
    }
    return fabs(a - bar) > 1e-5 * (a + bar);
}

static void define_lane(const trial *t, int lane, double want[STATS][N], bool sure[STATS][N])
{
    enum { GROUP_MAX = 8 };
    int group = t->bed.shape.n_heads / LANES;
    double *by_head = malloc(sizeof *by_head * GROUP_MAX * N), w[GROUP_MAX];
    for (int p = 0; p < N; p++) {
        int decisions = t->percent ? (p >= decided_at[0]) + (p >= decided_at[1]) : 0, live = 0;
        memset(by_head, 0, sizeof *by_head * GROUP_MAX * N);
        for (int h = 0; h < group; h++) add_weights(t, lane, h, p, decisions, 1, by_head + h * N);
        for (int pos = 0; pos <= p; pos++) live += is_live(t, lane, pos, decisions);
        for (int i = 0; i < STATS; i++)
            want[i][p] = stats[i].kind == WN_STAT_LAST ? p : 0, sure[i][p] = true;
        for (int pos = 0; pos <= p; pos++) {
            if (!is_live(t, lane, pos, decisions)) continue;
            for (int h = 0; h < group; h++) w[h] = by_head[h * N + pos];
            for (int i = 0; i < STATS; i++)
                sure[i][pos] &= define(&stats[i], &want[i][pos],
                                       i + 1 < STATS ? want[i + 1][pos] : 0, w, group, p, pos,
                                       1.0 / live);
        }
    }
    free(by_head);
}

/* Every query sees the decisions before it; numbers are kept by position, also of slots that go. */
static void check_stats(const trial *t, const wn_ledger *g)
{
    static double want[STATS][N];
    static bool sure[STATS][N];
    int unsure = 0;
    for (int lane = 0; lane < LANES; lane++) {
        double all = 0;
        define_lane(t, lane, want, sure);
        for (int i = 0; i < STATS; i++)
            for (int p = 0; p < N; p++) {
                double x = (double)wn_ledger_row(g, lane, i)[p];
                all += i ? 0 : x;
                unsure += !sure[i][p];
                if (sure[i][p] && !(fabs(x - want[i][p]) < 1e-5 * (1 + want[i][p])))
                    fail_msg("lane %d, statistic %d, position %d: %g, not %g", lane, i, p, x,
                             want[i][p]);
            }
        if (fabs(all - N) > 1e-3) fail_msg("lane %d: %g of %d queries", lane, all, N);
    }
    if (unsure > FLOATS / 100) fail_msg("%d numbers are too near to a threshold", unsure);
}

/* What stood in the ledger before does not matter. */
static wn_ledger new_ledger(float *x)
{
    for (int i = 0; i < FLOATS; i++) x[i] = (float)(i % 17) - 3;
    return (wn_ledger){ .stats = stats, .n_stats = STATS, .x = x, .stride = N };
}

static void statistics_of_all_queries(void **state)
{
    (void)state;
    static const struct { int heads, dim, percent; bool merges, shifts; float softcap;
    } cases[] = {
        { 4, 32, 0, false, false, 0 },
        { 8, 64, 60, true, false, 0 },
        { 2, 128, 90, true, true, 4 },
        { 6, 32, 20, false, true, 0 },
    };
    static float x[FLOATS], first[FLOATS];
    for (size_t c = 0; c < WN_COUNT(cases); c++) {
        wn_rope rope;
        trial t = trial_of(c + 20, cases[c].heads, cases[c].dim, &rope, c % 2);
        t.percent = cases[c].percent;
        t.merges = cases[c].merges;
        t.shifts = cases[c].shifts;
        t.bed.shape.softcap = cases[c].softcap;
        open_trial(&t);
        for (size_t i = 0; i < WN_COUNT(ways); i++) {
            wn_ledger g = new_ledger(x);
            t.bed.ledger = &g;
            run_way(&t, i, false, false);
            if (i == 0) check_stats(&t, &g);
            if (i == 0) memcpy(first, x, sizeof x);
            else if (memcmp(first, x, sizeof x)) fail_msg("case %zu: way %zu differs", c, i);
        }
        close_trial(&t);
    }
}

/* Right after the last decision and at the end: what stays by position, bit by bit. */
static void same_by_slot(const trial *t, const wn_ledger *g, const float *by_position)
{
    const float *noted = g->noted;
    for (int lane = 0; lane < LANES; lane++) {
        int n = 0, left = 0;
        for (int p = 0; p < N; p++) n += is_live(t, lane, p, t->n_decided);
        for (int p = 0; p < decided_at[1]; p++) left += is_live(t, lane, p, t->n_decided);
        for (int i = 0; i < STATS; i++, noted += left) {
            const float *all = by_position + (lane * STATS + i) * N,
                        *row = wn_ledger_row(g, lane, i);
            for (int p = 0; p < N; p++) {
                if (!is_live(t, lane, p, t->n_decided)) continue;
                if (memcmp(&all[p], row++, sizeof *all))
                    fail_msg("lane %d, statistic %d, position %d: %a, not %a", lane, i, p,
                             (double)row[-1], (double)all[p]);
            }
            assert_int_equal(row - wn_ledger_row(g, lane, i), n);
            /* sums without decay only grow, by no more than the queries since */
            for (int k = 0; t->percent && !i && k < left; k++) {
                double since = (double)wn_ledger_row(g, lane, 0)[k] - (double)noted[k];
                assert_true(since >= 0 && since <= N - decided_at[1]);
            }
        }
    }
    if (t->percent) assert_int_equal(noted - g->noted, g->n_noted);
}

/* A ledger that goes with the slots, across merges, repacks and splits of which little is left,
 * has the numbers of one that keeps those of all positions. */
static void statistics_go_with_their_slots(void **state)
{
    (void)state;
    static const struct { int percent; bool merges; } cases[] = {
        { 0, false }, { 60, false }, { 30, true }, { 95, true }
    };
    static const wn_lane lanes[LANES];
    static const wn_lane_map map = { .n_lanes = LANES, .n_layers = 1, .lanes = lanes };
    static float x[FLOATS];
    wn_err err;
    for (size_t c = 0; c < WN_COUNT(cases); c++) {
        wn_rope rope;
        trial t = trial_of(c + 60, 4, 32, &rope, true);
        t.percent = cases[c].percent;
        t.merges = cases[c].merges;
        open_trial(&t);
        wn_ledger all = new_ledger(x), g;
        t.bed.ledger = &all;
        run_way(&t, 0, false, false);
        for (size_t i = 0; i < WN_COUNT(ways); i++) {
            assert_int_equal(wn_ledger_open(&g, stats, STATS, &map, N, &err), WN_OK);
            t.bed.ledger = t.by_slot = &g;
            run_way(&t, i, false, false);
            same_by_slot(&t, &g, x);
            wn_ledger_close(&g);
        }
        close_trial(&t);
    }
}

/* More splits than those whose weights are kept: lanes as pieces of their own (1, 2 and 4 threads)
 * and accounts made afterwards (3 threads), whole chunks and single rows give the same bits. */
static void statistics_over_more_splits_than_are_kept(void **state)
{
    (void)state;
    enum { LONG = (WN_KEPT_SPLITS + 2) * WN_SPLIT + 40 };
    static const wn_stat two[] = { { .kind = WN_STAT_SUM }, { .kind = WN_STAT_MAX,
                                     .reduce = WN_REDUCE_MAX, .decay = 0.99f } };
    static const int chunks[] = { 500, 0 }, rows[] = { LONG - 6, 1, 1, 1, 1, 1, 1, 0 };
    static const struct {
        const int *chunks;
        int threads;
    } how[] = { { chunks, 1 }, { rows, 2 }, { chunks, 3 }, { rows, 3 }, { rows, 4 } };
    size_t bytes = sizeof(float) * LANES * 2 * LONG;
    float *x = malloc(bytes), *first = malloc(bytes);
    wn_ledger g = { .stats = two, .n_stats = 2, .x = x, .stride = LONG };
    bed b = { .shape = { .n_heads = 2 * LANES, .n_kv_heads = LANES, .k_dim = 16, .v_dim = 8,
                         .scale = 0.25f },
              .n = LONG, .seed = 5, .ledger = &g };
    for (size_t i = 0; i < WN_COUNT(how); i++) {
        b.chunks = how[i].chunks;
        b.threads = how[i].threads;
        free(bed_run(&b));
        if (i == 0) memcpy(first, x, bytes);
        if (memcmp(first, x, bytes)) fail_msg("way %zu differs", i);
    }
    for (int lane = 0; lane < LANES; lane++) {
        double all = 0;
        for (int p = 0; p < LONG; p++) all += (double)wn_ledger_row(&g, lane, 0)[p];
        if (fabs(all - LONG) > 1e-2) fail_msg("lane %d: %g of %d queries", lane, all, LONG);
    }
    free(x);
    free(first);
}

/* ---- sealed pages ------------------------------------------------------------------------- */

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

/* Rows of one chunk read a page raw up to a position and sealed from it on; sums must read what
 * the answers read. Eight heads of a group make blocks of 12 rows: none ends with a page. */
static void sealed_pages_are_read_as_answers_read_them(void **state)
{
    (void)state;
    static float x[FLOATS], first[FLOATS];
    for (int lag = 0; lag < 2; lag++) {
        wn_rope rope;
        trial t = trial_of(40, 16, 32, &rope, true);
        wn_format sealed = wn_format_bf16;
        sealed.name = "test-sealed";
        sealed.raw = false;
        sealed.lag = lag;
        sealed.encode_k = encode_k;
        sealed.encode_v = encode_v;
        t.bed.sealed = &sealed;
        t.bed.page_slots = 64;
        t.bed.format = &wn_format_f32;
        t.w = 32;
        open_trial(&t);
        size_t bytes = sizeof(float) * (size_t)(CHECKS * 16 * N);
        float *sums = NULL;
        for (size_t i = 0; i < WN_COUNT(ways); i++) {
            wn_ledger g = new_ledger(x);
            t.bed.ledger = &g;
            run_way(&t, i, false, true);
            if (i == 0) sums = memcpy(malloc(bytes), t.sums, bytes);
            if (i == 0) memcpy(first, x, sizeof x);
            if (memcmp(first, x, sizeof x))
                fail_msg("lag %d: sums of all queries, way %zu differs", lag, i);
            if (memcmp(sums, t.sums, bytes))
                fail_msg("lag %d: sums of the last queries, way %zu differs", lag, i);
        }
        for (int lane = 0; lane < LANES; lane++) {
            double all = 0;
            for (int p = 0; p < N; p++) all += (double)x[lane * STATS * N + p];
            if (fabs(all - N) > 1e-3)
                fail_msg("lag %d, lane %d: %g of %d queries", lag, lane, all, N);
        }
        free(sums);
        close_trial(&t);
    }
}

/* ---- what is to come ---------------------------------------------------------------------- */

/* The closed form is the mean of the rotations one by one; one rotation is a rotation. */
static void mean_rotations(void **state)
{
    (void)state;
    static const struct {
        int from, to;
    } spans[] = { { 5, 6 }, { 0, 512 }, { 64, 576 }, { -9, 20 }, { 1000, 1003 } };
    wn_rope rope;
    uint64_t rng = 3;
    for (int neox = 0; neox < 2; neox++)
        for (size_t i = 0; i < WN_COUNT(spans); i++) {
            float x[32], y[32];
            double want[32] = { 0 };
            wn_rope_init(&rope, 32, neox, 500000, 1, NULL);
            rope.rate[15] = 0;          /* a channel that stands still */
            for (int d = 0; d < 32; d++) y[d] = x[d] = test_randf(&rng);
            trial t = { .bed = { .rope = &rope, .shape = { .k_dim = 32 } } };
            for (int p = spans[i].from; p < spans[i].to; p++) {
                double z[32];
                turn(&t, x, p, z);
                for (int d = 0; d < 32; d++) want[d] += z[d] / (spans[i].to - spans[i].from);
            }
            wn_rope_mean(&rope, y, spans[i].from, spans[i].to);
            for (int d = 0; d < 32; d++)
                if (!(fabs((double)y[d] - want[d]) < 1e-6))
                    fail_msg("span %zu, channel %d: %g, not %g", i, d, (double)y[d], want[d]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_of_the_last_queries),
        cmocka_unit_test(statistics_of_all_queries),
        cmocka_unit_test(statistics_go_with_their_slots),
        cmocka_unit_test(statistics_over_more_splits_than_are_kept),
        cmocka_unit_test(sealed_pages_are_read_as_answers_read_them),
        cmocka_unit_test(mean_rotations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
