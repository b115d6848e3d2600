/* tests/support/kv_model.c - see kv_model.h. */
#include "tests/unit/check.h"
#include "tests/support/kv_model.h"

#include "base/alloc.h"
#include "cache/kv_int.h"

#include <math.h>

const wn_lane_map *model_map(int n_lanes, int window)
{
    static wn_lane lanes[2][MODEL_LANES];
    static int first[2][MODEL_LANES + 1];
    static wn_lane_map maps[2][MODEL_LANES + 1];
    int w = window > 0, layers = (n_lanes + 1) / 2;
    for (int l = 0; l < n_lanes; l++)
        lanes[w][l] = (wn_lane){ (int16_t)(l / 2), (int16_t)(l % 2), (int16_t)(MODEL_DIM - l % 2),
                                 (int16_t)(MODEL_DIM - l / 2), l == n_lanes - 1 ? window : 0 };
    for (int l = 0; l <= layers; l++) first[w][l] = WN_MIN(2 * l, n_lanes);
    maps[w][n_lanes] = (wn_lane_map){ n_lanes, layers, lanes[w], first[w] };
    return &maps[w][n_lanes];
}

void model_init(model *m, const wn_lane_map *map, int P)
{
    memset(m, 0, sizeof *m);
    m->map = map;
    m->P = P;
    for (int l = 0; l < MODEL_LANES; l++) m->decided_at[l] = -1;
}

void model_row(float *k, float *v, int text, int lane, int pos)
{
    uint64_t s = (uint64_t)text * 1000003u + (uint64_t)lane * 7919u + (uint64_t)pos;
    for (int d = 0; d < MODEL_DIM; d++) {
        k[d] = test_randf(&s);
        v[d] = test_randf(&s);
    }
}

static void put(wn_kv *kv, int text, int lane, int pos, int n)
{
    static float k[MODEL_MAX][MODEL_DIM + 1], v[MODEL_MAX][MODEL_DIM + 3];
    for (int i = 0; i < n; i++) model_row(k[i], v[i], text, lane, pos + i);
    wn_kv_put(kv, lane, pos, k[0], MODEL_DIM + 1, v[0], MODEL_DIM + 3, n);
}

int model_first(const model *m, int lane)
{
    int w = m->map->lanes[lane].window;
    return w && m->n - w + 1 > 0 ? m->n - w + 1 : 0;
}

static float cut(float x)
{
    union { float f; uint32_t u; } w = { x };
    w.u &= 0xffff0000u;
    return w.f;
}

/* During a pass, after the rows are in: every page that some query of the pass reads sealed
 * is there and encoded, and raw as well for the queries before. */
static void check_pass(const model *m, const wn_kv *kv, int lane, int n)
{
    wn_run_iter it;
    wn_run r;
    wn_runs_begin(&it, kv, lane, 0, m->n + n);
    while (wn_runs_next(&it, &r)) {
        for (int s = 0; s < r.n; s++) {
            int pos = r.pos ? r.pos[s] : r.pos0 + s;
            float row[MODEL_DIM], k[MODEL_DIM], v[MODEL_DIM];
            const model_slot *x = &m->at[lane][pos];
            if (!(r.keep >> s & 1) || r.merged || r.low || pos < model_first(m, lane)) continue;
            memcpy(k, x->k, sizeof k);
            memcpy(v, x->v, sizeof v);
            if (r.k_sealed_from < m->n + n) {
                r.k_format->get_k(r.k_sealed, m->P, r.first + s, row, m->map->lanes[lane].k_dim);
                assert_true(row[0] == cut(k[0]));
                assert_true(r.k != NULL || r.k_sealed_from < m->n);
            } else if (r.k_sealed_from == INT32_MAX) assert_non_null(r.k);
            if (r.v_sealed_from < m->n + n) {
                r.v_format->get_v(r.v_sealed, m->P, r.first + s, row, m->map->lanes[lane].v_dim);
                assert_true(row[0] == cut(v[0]));
                assert_true(r.v != NULL || r.v_sealed_from < m->n);
            } else if (r.v_sealed_from == INT32_MAX) assert_non_null(r.v);
        }
    }
}

wn_status model_append(model *m, wn_kv *kv, int text, int n, uint64_t *seed)
{
    wn_status st = wn_kv_reserve(kv, n, NULL);
    if (st) return st;
    wn_alloc_forbid(true);
    for (int l = 0; l < m->map->n_lanes; l++) {
        for (int i = 0; i < n;) {
            int c = seed && n - i > 1 ? 1 + (int)(test_rand(seed) % (uint64_t)(n - i)) : n - i;
            put(kv, text, l, m->n + i, c);
            i += c;
        }
    }
    for (int l = 0; l < m->map->n_lanes; l++) {
        for (int i = 0; i < n; i++) {
            model_slot *s = &m->at[l][m->n + i];
            *s = (model_slot){ .live = true, .count = 1 };
            model_row(s->k, s->v, text, l, m->n + i);
        }
    }
    for (int l = 0; l < m->map->n_lanes && wn_kv_seals(kv); l++) check_pass(m, kv, l, n);
    wn_kv_commit(kv, n);
    wn_alloc_forbid(false);
    m->n += n;
    return WN_OK;
}

void model_truncate(model *m, int n)
{
    if (n == 0) {
        model_init(m, m->map, m->P);
        return;
    }
    for (int l = 0; l < m->map->n_lanes; l++)
        for (int p = n; p < m->n; p++) m->at[l][p] = (model_slot){ 0 };
    m->n = n;
}

/* As a decision at p = n sees it: what is still there raw is read raw (sealed frames next
 * to it are reserved for a pass; check_pass looks at those). */
static void get_row(const wn_kv *kv, const wn_run *r, int lane, int s, float *k, float *v)
{
    const wn_lane *w = &wn_kv_map(kv)->lanes[lane];
    int P = wn_kv_page_slots(kv);
    const wn_format *raw_k = wn_kv_raw_k(kv, lane), *raw_v = wn_kv_raw_v(kv, lane);
    if (r->k_sealed && !r->k) r->k_format->get_k(r->k_sealed, P, s, k, w->k_dim);
    else {
        assert_non_null(r->k);
        raw_k->get_k(r->k, P, s, k, w->k_dim);
    }
    if (r->v_sealed && !r->v) r->v_format->get_v(r->v_sealed, P, s, v, w->v_dim);
    else {
        assert_non_null(r->v);
        raw_v->get_v(r->v, P, s, v, w->v_dim);
    }
}

static void read_slot(const wn_kv *kv, int lane, int pos, float *k, float *v)
{
    wn_run_iter it;
    wn_run r;
    wn_runs_begin(&it, kv, lane, pos / 512, INT32_MAX);
    while (wn_runs_next(&it, &r))
        for (int s = 0; s < r.n; s++)
            if ((r.keep >> s & 1) && (r.pos ? r.pos[s] : r.pos0 + s) == pos) {
                get_row(kv, &r, lane, r.first + s, k, v);
                return;
            }
    fail_msg("lane %d has no live slot at %d", lane, pos);
}

void model_apply(model *m, const wn_kv *kv, const wn_plan *plan)
{
    static model_slot made[MODEL_LANES][MODEL_MAX];
    memset(made, 0, sizeof made);
    for (int i = 0; i < plan->n_merges; i++) {
        const wn_plan_merge *g = &plan->merges[i];
        model_slot *to = &made[g->lane][g->at];
        *to = (model_slot){ .live = true, .merged = true, .bias = g->bias, .count = g->count };
        for (int j = 0; j < g->n_src; j++) {
            float k[MODEL_DIM], v[MODEL_DIM];
            int at = g->first_src + j;
            read_slot(kv, g->lane, plan->src[at], k, v);
            for (int d = 0; d < m->map->lanes[g->lane].k_dim; d++)
                to->k[d] = fmaf(plan->wk[at], k[d], to->k[d]);
            for (int d = 0; d < m->map->lanes[g->lane].v_dim; d++)
                to->v[d] = fmaf(plan->wv[at], v[d], to->v[d]);
        }
    }
    for (int l = 0; l < plan->n_lanes; l++)
        for (int p = 0; p < m->n; p++)
            if (!wn_plan_keeps(plan, l, p) && m->at[l][p].live) {
                m->at[l][p].live = false;
                if (p >= model_first(m, l)) m->decided_at[l] = m->n;
            }
    for (int l = 0; l < plan->n_lanes; l++)
        for (int p = 0; p < m->n; p++)
            if (wn_plan_demotes(plan, l, p) && m->at[l][p].live && !m->at[l][p].low) {
                m->at[l][p].low = true;
                if (p >= model_first(m, l)) m->decided_at[l] = m->n;
            }
    for (int i = 0; i < plan->n_merges; i++) {
        m->decided_at[plan->merges[i].lane] = m->n;
        for (int j = 0; j < plan->merges[i].n_src; j++)
            m->at[plan->merges[i].lane][plan->src[plan->merges[i].first_src + j]].live = false;
    }
    for (int l = 0; l < plan->n_lanes; l++)
        for (int p = 0; p < m->n; p++)
            if (made[l][p].live) {
                made[l][p].shift = m->at[l][p].shift;
                m->at[l][p] = made[l][p];
            }
    for (int i = 0; i < plan->n_biases; i++) {
        m->at[plan->biases[i].lane][plan->biases[i].at].bias = plan->biases[i].bias;
        m->decided_at[plan->biases[i].lane] = m->n;
    }
    int32_t old[MODEL_MAX];
    for (int l = 0; l < plan->n_lanes; l++) {
        for (int p = 0; p < m->n; p++) old[p] = m->at[l][p].shift;
        for (int i = 0; i < plan->n_shifts; i++)
            for (int p = plan->shifts[i].from; plan->shifts[i].lane == l && p < plan->shifts[i].to;
                 p++)
                m->at[l][p].shift = plan->shifts[i].delta;
        for (int p = 0; p < m->n; p++)
            if (old[p] != m->at[l][p].shift) m->decided_at[l] = m->n;
    }
}

/* The float that a slot's frame holds for f: cut to the upper 16 bits by encoding, to 12 by the
 * lower format. */
static float stored(const model_slot *x, bool sealed, float f)
{
    uint32_t mask = x->low ? 0xfff00000u : sealed ? 0xffff0000u : 0xffffffffu;
    union { float f; uint32_t u; } w = { f };
    w.u &= mask;
    return w.f;
}

static void compare_slot(const model *m, const wn_kv *kv, const wn_run *r, int lane, int s)
{
    int pos = r->pos ? r->pos[s] : r->pos0 + s;
    const model_slot *x = &m->at[lane][pos];
    const wn_lane *w = &m->map->lanes[lane];
    float k[MODEL_DIM], v[MODEL_DIM];
    bool k_sealed = r->k_sealed && !r->k;
    bool v_sealed = r->v_sealed && !r->v;
    get_row(kv, r, lane, r->first + s, k, v);
    assert_true(x->live);
    assert_int_equal(r->merged, x->merged);
    assert_int_equal(r->low, x->low);
    assert_int_equal(r->shift, x->shift);
    assert_int_equal(r->split, pos / 512);
    assert_int_equal(r->count ? r->count[s] : 1, x->count);
    assert_true((r->bias ? r->bias[s] : 0.0f) == x->bias);
    for (int d = 0; d < w->k_dim; d++) assert_true(k[d] == stored(x, k_sealed, x->k[d]));
    for (int d = 0; d < w->v_dim; d++) assert_true(v[d] == stored(x, v_sealed, x->v[d]));
}

static int kind_of(const model_slot *x) { return x->merged ? 2 : x->low; }

/* The next live slot after (split, kind, pos) in the order of reading; false at the end. */
static bool next_slot(const model *m, int lane, int *kind, int *pos)
{
    int split = *pos / 512, p = *pos + 1;
    for (;;) {
        for (p = WN_MAX(p, model_first(m, lane)); p < WN_MIN(m->n, (split + 1) * 512); p++)
            if (m->at[lane][p].live && kind_of(&m->at[lane][p]) == *kind) {
                *pos = p;
                return true;
            }
        if (*kind == 2 && (split + 1) * 512 >= m->n) return false;
        if (*kind == 2) split++;
        *kind = (*kind + 1) % 3;
        p = split * 512;
    }
}

/* Pages that are passed over as being like this run are those that come next, read the same way by
 * the query at p, and the iterator stands behind the last of them. */
static void compare_alike(const wn_run_iter *at, const wn_run *run, int32_t p, int most)
{
    const void *k[512], *v[512];
    wn_run_iter next = *at, over = *at;
    wn_run r, after;
    bool k_sealed = run->k_sealed && p >= run->k_sealed_from;
    bool v_sealed = run->v_sealed && p >= run->v_sealed_from;
    int n = wn_runs_alike(&over, run, p, most, k, v);
    assert_true(n <= most);
    for (int i = 0; i < n; i++) {
        assert_true(wn_runs_next(&next, &r));
        assert_false(r.pos || r.bias || r.merged || r.low);
        assert_int_equal(r.split, run->split);
        assert_int_equal(r.shift, run->shift);
        assert_int_equal(r.pos0, run->pos0 + run->n * (i + 1));
        assert_int_equal(r.n, run->n);
        assert_true(r.keep == run->keep);
        assert_int_equal(r.k_sealed && p >= r.k_sealed_from, k_sealed);
        assert_int_equal(r.v_sealed && p >= r.v_sealed_from, v_sealed);
        assert_ptr_equal(k[i], k_sealed ? r.k_sealed : r.k);
        assert_ptr_equal(v[i], v_sealed ? r.v_sealed : r.v);
    }
    bool more = wn_runs_next(&over, &after);
    assert_int_equal(wn_runs_next(&next, &r), more);
    if (more) assert_memory_equal(&r, &after, sizeof r);
}

static void compare_lane(const model *m, const wn_kv *kv, int lane, int first_split)
{
    wn_run_iter it;
    wn_run r;
    int kind = 0, want = first_split * 512;
    bool more = want < m->n;
    if (more &&
        !(m->at[lane][want].live && !kind_of(&m->at[lane][want]) && want >= model_first(m, lane)))
        more = next_slot(m, lane, &kind, &want);
    wn_runs_begin(&it, kv, lane, first_split, wn_kv_n(kv));
    while (wn_runs_next(&it, &r)) {
        for (int far = 0; far < 4 && !r.pos && !r.merged && !r.low; far++)
            compare_alike(&it, &r, r.pos0 + far * 3 * r.n, far ? 3 * far : 512);
        assert_true(r.n > 0 && r.keep != 0 && (r.keep & ~wn_low_bits(r.n)) == 0);
        for (int s = 0; s < r.n; s++) {
            if (!(r.keep >> s & 1)) continue;
            int at = r.pos ? r.pos[s] : r.pos0 + s;
            if (at < model_first(m, lane)) continue;    /* its page is still in the window */
            assert_true(more);
            assert_int_equal(at, want);
            assert_int_equal(r.merged ? 2 : r.low, kind);
            compare_slot(m, kv, &r, lane, s);
            more = next_slot(m, lane, &kind, &want);
        }
    }
    assert_false(more);
}

void model_compare(const model *m, const wn_kv *kv, const wn_pool *pool)
{
    wn_kv_check(kv);
    wn_pool_check(pool);
    assert_int_equal(wn_kv_n(kv), m->n);
    for (int l = 0; l < m->map->n_lanes; l++) {
        uint32_t live = 0;
        for (int p = 0; p < m->n; p++) live += m->at[l][p].live;
        if (!m->map->lanes[l].window) assert_int_equal(wn_kv_live(kv, l), live);
        for (int s = 0; s * 512 <= m->n; s++) compare_lane(m, kv, l, s);
    }
}

/* ---- K2 across sequences ---------------------------------------------------------------- */

typedef struct { uint32_t frame, uses; } use;

static void count_use(use *u, int *n, wn_frame_id f, int cap)
{
    if (!wn_frame_ok(f)) return;
    for (int i = *n - 1; i >= 0; i--)
        if (u[i].frame == f.i) {
            u[i].uses++;
            return;
        }
    assert_true(*n < cap);
    u[(*n)++] = (use){ f.i, 1 };
}

static int by_frame(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void model_check_refs(wn_kv *const *kvs, int n_kvs, const wn_pool *pool, uint32_t n_others)
{
    enum { CAP = 1 << 20 };
    static uint32_t named[CAP];
    static use spans[1 << 14];
    size_t n = 0;
    int n_spans = 0;
    for (int i = 0; i < n_kvs; i++) {
        const wn_kv *kv = kvs[i];
        for (int j = 0; kv && j < kv->n_spans; j++)
            count_use(spans, &n_spans, kv->spans[j], 1 << 14);
        for (int l = 0; kv && l < kv->map->n_lanes; l++) {
            const wn_kv_lane *x = &kv->lanes[l];
            for (int p = 0; p < x->n_pages + x->n_low + x->n_merged; p++) {
                const wn_page *g = p < x->n_pages ? &x->pages[p]
                                   : p < x->n_pages + x->n_low
                                       ? &x->low[p - x->n_pages]
                                       : &x->merged[p - x->n_pages - x->n_low];
                const wn_frame_id f[] = { g->k, g->v, g->ks, g->vs, g->pos, g->bias, g->count };
                for (size_t y = 0; y < WN_COUNT(f); y++)
                    if (wn_frame_ok(f[y])) named[n++] = f[y].i;
            }
        }
    }
    for (int i = 0; i < n_spans; i++) {         /* a span counts once for the frames it names */
        wn_frame_id span = { spans[i].frame };
        const wn_kv *kv = kvs[0];
        for (int x = 0; !kv; x++) kv = kvs[x];
        assert_int_equal(wn_pool_refs(pool, span), spans[i].uses);
        const wn_frame_id *s = wn_pool_addr(pool, span);
        for (int x = 0; x < kv->map->n_lanes * kv->span_stride; x++)
            if (wn_frame_ok(s[x])) named[n++] = s[x].i;
    }
    assert_true(n < CAP);
    qsort(named, n, sizeof *named, by_frame);
    uint32_t distinct = (uint32_t)n_spans;
    for (size_t i = 0; i < n;) {
        size_t e = i;
        while (e < n && named[e] == named[i]) e++;
        assert_int_equal(wn_pool_refs(pool, (wn_frame_id){ named[i] }), e - i);
        distinct++;
        i = e;
    }
    wn_pool_stats st;
    wn_pool_get_stats(pool, &st);
    /* nothing is held that no one names */
    assert_int_equal(st.n_frames_used, distinct + n_others);
}
