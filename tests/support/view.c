/* tests/support/view.c - see view.h. Slots are looked up by walking; nothing here is quick. */
#include "tests/support/view.h"

#include "tests/support/profile.h"
#include "tests/unit/check.h"

#include <math.h>

enum { SCRATCH_BYTES = 64 << 20 };

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

static int slot_at(const test_view *t, int lane, int32_t pos)
{
    for (int i = 0; i < t->lanes[lane].n; i++)
        if (t->lanes[lane].pos[i] == pos) return i;
    return -1;
}

/* What the recipe sees, from the lanes as they are now. */
static void show(test_view *t)
{
    for (int l = 0; l < t->view.n_lanes; l++) {
        const test_lane *lane = &t->lanes[l];
        bool counts = false, biases = false;
        int n_low = 0;
        for (int i = 0; i < lane->n; i++) {
            counts |= lane->count[i] != 1;
            biases |= lane->bias[i] != 0;
            n_low += lane->low[i] = lane->demoted[lane->pos[i]];
        }
        t->shown[l] = (wn_view_lane){
            .layer = l / t->shape.heads, .head = l % t->shape.heads, .group = t->shape.group,
            .k_dim = t->shape.dim, .v_dim = t->shape.v_dim, .n = lane->no_slots ? 0 : lane->n,
            .pos = lane->pos, .count = counts ? lane->count : NULL,
            .bias = biases ? lane->bias : NULL, .low = n_low ? lane->low : NULL, .n_low = n_low,
            .still = t->shown[l].still };
    }
}

static void load(void *ctx, int lane, bool values, float *rows)
{
    test_view *t = ctx;
    const test_lane *l = &t->lanes[lane];
    int dim = values ? t->shape.v_dim : t->shape.dim;
    t->n_loads++;
    memcpy(rows, values ? l->v : l->k, sizeof(float) * (size_t)dim * (size_t)t->shown[lane].n);
}

static void load_stat(void *ctx, int lane, int i, float *x)
{
    test_view *t = ctx;
    for (int s = 0; s < t->shown[lane].n; s++)
        x[s] = *test_view_stat(t, lane, i, t->lanes[lane].pos[s]);
}

static bool load_outputs(void *ctx, const wn_view *v, int lane, float *x)
{
    test_view *t = ctx;
    (void)v;
    for (int s = 0; s < t->shown[lane].n; s++)
        x[s] = *test_view_output(t, lane, t->lanes[lane].pos[s]);
    return true;
}

static void load_queries(void *ctx, int lane, int w, float *rows)
{
    const test_view *t = ctx;
    size_t width = (size_t)t->shape.group * (size_t)t->shape.dim;
    memcpy(rows, t->lanes[lane].q + (size_t)(t->view.n_tokens - w) * width,
           sizeof *rows * width * (size_t)w);
}

/* Adds the softmax of query head h at position p over the slots it sees. */
static void add_attention(const test_view *t, int lane, int p, int h, float *sum)
{
    const test_lane *l = &t->lanes[lane];
    size_t dim = (size_t)t->shape.dim;
    const float *q = l->q + ((size_t)p * (size_t)t->shape.group + (size_t)h) * dim;
    double total = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < l->n && l->pos[i] <= p; i++) {
            double x = (double)l->bias[i];
            for (size_t c = 0; c < dim; c++) x += (double)q[c] * (double)l->k[(size_t)i * dim + c];
            if (pass) sum[i] += (float)(exp(x) / total);
            else total += exp(x);
        }
}

static const float *const *look_back(test_view *t, int w)
{
    static const float *sums[256];
    assert_true(t->view.n_lanes <= 256);
    for (int l = 0; l < t->view.n_lanes; l++) {
        test_lane *lane = &t->lanes[l];
        size_t n = (size_t)t->shown[l].n;
        memset(lane->sums, 0, sizeof(float) * n * (size_t)t->shape.group);
        for (int h = 0; h < t->shape.group; h++)
            for (int q = 0; q < w && !lane->votes; q++)
                add_attention(t, l, t->view.n_tokens - w + q, h, lane->sums + (size_t)h * n);
        for (int h = 0; h < t->shape.group && lane->votes; h++)
            memcpy(lane->sums + (size_t)h * n, lane->votes, sizeof(float) * n);
        sums[l] = lane->sums;
    }
    return sums;
}

test_view *test_view_open(const test_shape *shape)
{
    static const wn_stat plain = { .kind = WN_STAT_SUM };   /* until a policy is asked */
    test_view *t = zeroed(1, sizeof *t);
    test_shape *s = &t->shape;
    wn_err err = { 0 };
    *s = *shape;
    s->max_tokens = WN_MAX(s->max_tokens, s->n_tokens);
    s->group = s->group ? s->group : 2;
    s->dim = s->dim ? s->dim : 4;
    s->v_dim = s->v_dim ? s->v_dim : s->dim;
    int n_lanes = s->n_layers * s->heads;
    size_t max = (size_t)s->max_tokens;
    t->rng = 1;
    t->lanes = zeroed((size_t)n_lanes, sizeof *t->lanes);
    t->shown = zeroed((size_t)n_lanes, sizeof *t->shown);
    t->layer_first = zeroed((size_t)s->n_layers + 1, sizeof *t->layer_first);
    for (int i = 0; i <= s->n_layers; i++) t->layer_first[i] = i * s->heads;
    for (int l = 0; l < n_lanes; l++)
        t->lanes[l] = (test_lane){ .pos = zeroed(max, 4), .count = zeroed(max, 4),
                                   .bias = zeroed(max, 4), .demoted = zeroed(max, 1),
                                   .low = zeroed(max, 1), .k = zeroed(max * (size_t)s->dim, 4),
                                   .v = zeroed(max * (size_t)s->v_dim, 4),
                                   .stats = zeroed(WN_STATS_MAX * max, 4),
                                   .q = zeroed(max * (size_t)s->group * (size_t)s->dim, 4),
                                   .sums = zeroed(max * (size_t)s->group, 4),
                                   .outputs = zeroed(max, 4) };
    if (wn_arena_init(&t->scratch, SCRATCH_BYTES, false, &err)) fail_msg("%s", err.text);
    t->view = (wn_view){ .n_layers = s->n_layers, .n_lanes = n_lanes, .lanes = t->shown,
                         .layer_first = t->layer_first, .scratch = &t->scratch, .ctx = t,
                         .load = load, .load_stat = load_stat, .load_queries = load_queries,
                         .load_outputs = load_outputs, .stats = &plain, .n_stats = 1 };
    t->profile = test_profile(s->n_layers, s->heads * s->group, n_lanes, (const uint8_t[16]){ 0 });
    t->view.profile = t->profile;
    t->view.rows[0] = zeroed(max * (size_t)s->dim, 4);
    t->view.rows[1] = zeroed(max * (size_t)s->v_dim, 4);
    for (int i = 0; i < WN_STATS_MAX; i++) t->view.stat_rows[i] = zeroed(max, 4);
    t->view.queries = zeroed(64 * (size_t)s->group * (size_t)s->dim, 4);
    t->view.outputs = zeroed(max, 4);
    for (int l = 0; l < n_lanes; l++)
        for (int p = 0; p < s->max_tokens; p++) *test_view_output(t, l, p) = (float)(1 + p * 7 % 5);
    wn_plan_init(&t->plan, s->max_tokens, n_lanes);
    test_view_grow(t, s->n_tokens);
    return t;
}

void test_view_close(test_view *t)
{
    for (int l = 0; l < t->view.n_lanes; l++) {
        free(t->lanes[l].pos);
        free(t->lanes[l].count);
        free(t->lanes[l].bias);
        free(t->lanes[l].demoted);
        free(t->lanes[l].low);
        free(t->lanes[l].k);
        free(t->lanes[l].v);
        free(t->lanes[l].stats);
        free(t->lanes[l].q);
        free(t->lanes[l].sums);
        free(t->lanes[l].outputs);
    }
    for (int i = 0; i < WN_STATS_MAX; i++) free(t->view.stat_rows[i]);
    free(t->view.queries);
    free(t->view.outputs);
    wn_profile_close(t->profile);
    wn_plan_release(&t->plan);
    wn_arena_release(&t->scratch);
    free((void *)(uintptr_t)t->view.protect);
    free((void *)(uintptr_t)t->view.flags);
    free((void *)(uintptr_t)t->view.spans);
    free(t->view.rows[0]);
    free(t->view.rows[1]);
    free(t->layer_first);
    free(t->shown);
    free(t->lanes);
    free(t);
}

/* ---- slots ------------------------------------------------------------------------------ */

static void move_slot(test_view *t, test_lane *l, int to, int from)
{
    size_t kd = (size_t)t->shape.dim, vd = (size_t)t->shape.v_dim;
    if (to == from) return;
    l->pos[to] = l->pos[from];
    l->count[to] = l->count[from];
    l->bias[to] = l->bias[from];
    memcpy(l->k + (size_t)to * kd, l->k + (size_t)from * kd, kd * sizeof(float));
    memcpy(l->v + (size_t)to * vd, l->v + (size_t)from * vd, vd * sizeof(float));
}

void test_view_set(test_view *t, int lane, const int32_t *pos, int n)
{
    test_lane *l = &t->lanes[lane];
    for (int i = 0; i < n; i++) {
        int at = slot_at(t, lane, pos[i]);
        assert_true(at >= i);           /* live, and in ascending order */
        move_slot(t, l, i, at);
    }
    l->n = n;
    show(t);
}

void test_view_thin(test_view *t, int lane, int n, uint64_t seed)
{
    test_lane *l = &t->lanes[lane];
    int kept = 0;
    for (int i = 0; i < l->n; i++)      /* each slot with the chance that leaves n in the end */
        if (test_rand(&seed) % (uint64_t)(l->n - i) < (uint64_t)(n - kept))
            move_slot(t, l, kept++, i);
    l->n = kept;
    show(t);
}

void test_view_hide(test_view *t, int layer)
{
    for (int h = 0; h < t->shape.heads; h++) t->lanes[layer * t->shape.heads + h].no_slots = true;
    show(t);
}

void test_view_merge(test_view *t, int lane, int32_t pos, int count, float bias)
{
    int i = slot_at(t, lane, pos);
    assert_true(i >= 0);
    t->lanes[lane].count[i] = count;
    t->lanes[lane].bias[i] = bias;
    show(t);
}

float *test_view_key(test_view *t, int lane, int32_t pos)
{
    int i = slot_at(t, lane, pos);
    assert_true(i >= 0);
    return t->lanes[lane].k + (size_t)i * (size_t)t->shape.dim;
}

float *test_view_value(test_view *t, int lane, int32_t pos)
{
    int i = slot_at(t, lane, pos);
    assert_true(i >= 0);
    return t->lanes[lane].v + (size_t)i * (size_t)t->shape.v_dim;
}

float *test_view_stat(test_view *t, int lane, int stat, int32_t pos)
{
    return &t->lanes[lane].stats[stat * t->shape.max_tokens + pos];
}

float *test_view_mass(test_view *t, int lane, int32_t pos)
{
    return test_view_stat(t, lane, 0, pos);
}

float *test_view_output(test_view *t, int lane, int32_t pos)
{
    return &t->lanes[lane].outputs[pos];
}

float *test_view_query(test_view *t, int lane, int32_t pos, int head)
{
    return t->lanes[lane].q +
           ((size_t)pos * (size_t)t->shape.group + (size_t)head) * (size_t)t->shape.dim;
}

void test_view_votes(test_view *t, int lane, const float *votes) { t->lanes[lane].votes = votes; }

void test_view_protect(test_view *t, int32_t from, int32_t to)
{
    uint64_t *bits = (uint64_t *)(uintptr_t)t->view.protect;
    if (!bits) bits = zeroed(((size_t)t->shape.max_tokens + 63) / 64, 8);
    for (int32_t p = from; p < to; p++) bits[p >> 6] |= 1ull << (p & 63);
    t->view.protect = bits;
}

void test_view_flag(test_view *t, int32_t pos, unsigned flags)
{
    uint8_t *all = (uint8_t *)(uintptr_t)t->view.flags;
    if (!all) t->view.flags = all = zeroed((size_t)t->shape.max_tokens, 1);
    all[pos] = (uint8_t)flags;
}

void test_view_span(test_view *t, int32_t from, int32_t to, int32_t span)
{
    int32_t *all = (int32_t *)(uintptr_t)t->view.spans;
    if (!all) t->view.spans = all = zeroed((size_t)t->shape.max_tokens, sizeof *all);
    for (int32_t p = from; p < to; p++) all[p] = span;
}

void test_view_grow(test_view *t, int n)
{
    size_t kd = (size_t)t->shape.dim, vd = (size_t)t->shape.v_dim;
    assert_true(t->view.n_tokens + n <= t->shape.max_tokens);
    for (int l = 0; l < t->view.n_lanes; l++) {
        test_lane *lane = &t->lanes[l];
        for (int i = 0; i < n; i++) {
            size_t at = (size_t)lane->n++;
            lane->pos[at] = t->view.n_tokens + i;
            lane->count[at] = 1;
            lane->bias[at] = 0;
            for (int s = 0; s < WN_STATS_MAX; s++)
                *test_view_stat(t, l, s, lane->pos[at]) = test_randf(&t->rng) + 1;
            for (int h = 0; h < t->shape.group; h++)
                for (size_t c = 0; c < kd; c++)
                    test_view_query(t, l, lane->pos[at], h)[c] = test_randf(&t->rng);
            for (size_t c = 0; c < kd; c++) lane->k[at * kd + c] = test_randf(&t->rng);
            for (size_t c = 0; c < vd; c++) lane->v[at * vd + c] = test_randf(&t->rng);
        }
    }
    t->view.n_tokens += n;
    show(t);
}

/* ---- plans ------------------------------------------------------------------------------- */

static void check_plan(const test_view *t)
{
    const wn_plan *p = &t->plan;
    assert_int_equal(p->status, WN_OK);
    for (int l = 0; l < t->view.n_lanes; l++) {
        bool speaks = p->keep && p->keep[l];
        for (int kind = 0; kind < WN_PLAN_CHAINS; kind++) speaks |= wn_plan_first(p, l, kind) >= 0;
        if (speaks && !t->shown[l].n)
            fail_msg("%s speaks of lane %d, which shows no slots", t->policy.text, l);
        for (int32_t i = wn_plan_first(p, l, WN_PLAN_MERGES); i >= 0; i = p->merges[i].next)
            for (int j = 0; j < p->merges[i].n_src; j++) {
                int32_t src = p->src[p->merges[i].first_src + j];
                if (slot_at(t, l, src) < 0)
                    fail_msg("%s merges position %d of lane %d, which is not live", t->policy.text,
                             src, l);
            }
        for (int32_t i = wn_plan_first(p, l, WN_PLAN_BIASES); i >= 0; i = p->biases[i].next)
            if (slot_at(t, l, p->biases[i].at) < 0)
                fail_msg("%s gives a bias to position %d of lane %d, which is not live",
                         t->policy.text, p->biases[i].at, l);
    }
}

const wn_plan *test_view_decide_bytes(test_view *t, const char *policy, double slot_bytes)
{
    wn_err err = { 0 };
    const uint64_t *named = t->view.protect;
    wn_mark m = wn_arena_mark(&t->scratch);
    if (wn_policy_parse(&t->policy, policy, &err)) fail_msg("%s", err.text);
    wn_plan_clear(&t->plan);
    t->plan.n_tokens = t->view.n_tokens;
    int w = WN_MIN(wn_policy_window(&t->policy), t->view.n_tokens);
    t->view.window = w;
    t->view.stats = t->policy.stats;
    t->view.n_stats = t->policy.n_stats;
    t->view.sums = w ? look_back(t, w) : NULL;
    wn_policy_decide(&t->policy, &t->view, slot_bytes, &t->plan);
    t->view.protect = named;            /* the policy's own protection lay in scratch */
    wn_arena_rewind(&t->scratch, m);
    check_plan(t);
    return &t->plan;
}

const wn_plan *test_view_decide(test_view *t, const char *policy)
{
    return test_view_decide_bytes(t, policy, 2.0 * (t->shape.dim + t->shape.v_dim));
}

static bool is_source(const wn_plan *p, int lane, int32_t pos)
{
    for (int32_t i = wn_plan_first(p, lane, WN_PLAN_MERGES); i >= 0; i = p->merges[i].next)
        for (int j = 0; j < p->merges[i].n_src; j++)
            if (p->src[p->merges[i].first_src + j] == pos) return true;
    return false;
}

bool test_view_stays(const test_view *t, int lane, int32_t pos)
{
    return slot_at(t, lane, pos) >= 0 && wn_plan_keeps(&t->plan, lane, pos) &&
           !is_source(&t->plan, lane, pos);
}

int test_view_n_stays(const test_view *t, int lane)
{
    int n = 0;
    for (int i = 0; i < t->shown[lane].n; i++) {
        int32_t pos = t->lanes[lane].pos[i];
        bool low = t->lanes[lane].demoted[pos] || wn_plan_demotes(&t->plan, lane, pos);
        n += test_view_stays(t, lane, pos) && !low;
    }
    for (int32_t i = wn_plan_first(&t->plan, lane, WN_PLAN_MERGES); i >= 0;
         i = t->plan.merges[i].next)
        n++;
    return n;
}

int test_view_total(const test_view *t)
{
    int n = 0;
    for (int l = 0; l < t->view.n_lanes; l++) n += test_view_n_stays(t, l);
    return n;
}

/* A merge's slot, put where its position belongs. k and v: its rows. */
static void insert(test_view *t, int lane, const wn_plan_merge *m, const float *k, const float *v)
{
    test_lane *l = &t->lanes[lane];
    int i = l->n++;
    for (; i > 0 && l->pos[i - 1] > m->at; i--) move_slot(t, l, i, i - 1);
    l->pos[i] = m->at;
    l->count[i] = m->count;
    l->bias[i] = m->bias;
    memcpy(l->k + (size_t)(i * t->shape.dim), k, sizeof(float) * (size_t)t->shape.dim);
    memcpy(l->v + (size_t)(i * t->shape.v_dim), v, sizeof(float) * (size_t)t->shape.v_dim);
}

static void sum_rows(test_view *t, int lane, const wn_plan_merge *m, float *k, float *v)
{
    for (int j = m->first_src; j < m->first_src + m->n_src; j++) {
        const float *key = test_view_key(t, lane, t->plan.src[j]),
                    *value = test_view_value(t, lane, t->plan.src[j]);
        for (int c = 0; c < t->shape.dim; c++) k[c] += t->plan.wk[j] * key[c];
        for (int c = 0; c < t->shape.v_dim; c++) v[c] += t->plan.wv[j] * value[c];
    }
}

static void carry_out_lane(test_view *t, int lane)
{
    test_lane *l = &t->lanes[lane];
    int n_merges = 0, at = 0, kept = 0;
    size_t kd = (size_t)t->shape.dim, vd = (size_t)t->shape.v_dim;
    for (int32_t i = wn_plan_first(&t->plan, lane, WN_PLAN_MERGES); i >= 0;
         i = t->plan.merges[i].next)
        n_merges++;
    float *k = zeroed((size_t)n_merges * kd, sizeof *k),
          *v = zeroed((size_t)n_merges * vd, sizeof *v);
    for (int32_t i = wn_plan_first(&t->plan, lane, WN_PLAN_MERGES); i >= 0;
         i = t->plan.merges[i].next, at++)
        sum_rows(t, lane, &t->plan.merges[i], k + (size_t)at * kd, v + (size_t)at * vd);
    for (int i = 0; i < l->n; i++)
        l->demoted[l->pos[i]] |= wn_plan_demotes(&t->plan, lane, l->pos[i]);
    for (int i = 0; i < l->n; i++)
        if (wn_plan_keeps(&t->plan, lane, l->pos[i]) && !is_source(&t->plan, lane, l->pos[i]))
            move_slot(t, l, kept++, i);
    l->n = kept;
    at = 0;
    for (int32_t i = wn_plan_first(&t->plan, lane, WN_PLAN_MERGES); i >= 0;
         i = t->plan.merges[i].next, at++)
        insert(t, lane, &t->plan.merges[i], k + (size_t)at * kd, v + (size_t)at * vd);
    for (int32_t i = wn_plan_first(&t->plan, lane, WN_PLAN_BIASES); i >= 0;
         i = t->plan.biases[i].next)
        l->bias[slot_at(t, lane, t->plan.biases[i].at)] = t->plan.biases[i].bias;
    free(k);
    free(v);
}

void test_view_carry_out(test_view *t)
{
    for (int l = 0; l < t->view.n_lanes; l++) carry_out_lane(t, l);
    wn_plan_clear(&t->plan);
    show(t);
}
