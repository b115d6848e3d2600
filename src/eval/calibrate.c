/* eval/calibrate.c - reading a text and fitting books: see calibrate.h. */
#include "eval/calibrate.h"

#include "base/alloc.h"
#include "base/os.h"
#include "eval/kmeans.h"
#include "eval/levels.h"
#include "kernel/elem.h"
#include "page/cq.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum {
    CONTEXT = 2048,
    TEXTS = 8,
    LEAST_TOKENS = 1024,
    ROUNDS = 20,
    ROWS_BYTES = 512 << 20,
    WIDEST = 8
};
/* Channels and tokens that hardly count still count so much, in parts of the mean. */
static const double LEAST_CHANNEL = 0.01, LEAST_TOKEN = 0.01;

/* What has been seen of a lane. */
typedef struct {
    uint16_t *k, *v;                    /* (n_rows, dim) halves; K before rotation */
    float *weight;                      /* (n_rows) attention that the token got */
    double *q2;                         /* (k_dim) sum of q^2 */
} seen;

typedef struct {
    wn_model *m;
    const wn_calibrate_opts *o;
    int n_threads, context, n_texts, n_lanes;
    int32_t *ids; size_t n_ids;
    int step, n_rows;                   /* each step-th token is kept; so many in all */
    seen *lanes;
    const wn_format *formats[WN_CALIBRATED_MAX]; int n_formats;
    /* while reading */
    int text, at;                       /* which, and the position of the pass's first row */
} study;

/* ---- reading ---------------------------------------------------------------------------- */

static void keep_row(uint16_t *to, const float *x, int n, double by)
{
    for (int d = 0; d < n; d++)
        to[d] = wn_elem_to_f16((float)WN_MAX(-65504, WN_MIN(65504, (double)x[d] * by)));
}

static void see_rows(void *ctx, const wn_attend_args *a, int n_rows)
{
    const study *s = ctx;
    const wn_lane_map *map = &s->m->map;
    int first = map->first[a->layer], heads = map->first[a->layer + 1] - first,
        group = s->m->hp.n_heads / heads;
    double length = a->rope && a->rope->length > 0 ? a->rope->length : 1;
    for (int r = 0; r < n_rows; r++) {
        int at = s->text * s->context + s->at + r;
        if (at % s->step) continue;
        size_t to = (size_t)(at / s->step);
        for (int h = 0; h < heads; h++) {
            const wn_lane *w = &map->lanes[first + h];
            const seen *l = &s->lanes[first + h];
            size_t K = (size_t)w->k_dim, V = (size_t)w->v_dim;
            const float *q = a->q + (size_t)r * a->q_stride + (size_t)(h * group) * K;
            keep_row(l->k + to * K, a->k + (size_t)r * a->k_stride + (size_t)h * K, w->k_dim,
                     length);
            keep_row(l->v + to * V, a->v + (size_t)r * a->v_stride + (size_t)h * V, w->v_dim, 1);
            for (int i = 0; i < group * w->k_dim; i++)
                l->q2[i % w->k_dim] += (double)q[i] * (double)q[i];
        }
    }
}

/* Attention that each kept token of the text got, mean of the heads of a lane: slots are positions
 * where nothing is dropped. Nobody counts what window lanes get. */
static void keep_weights(const study *s, const wn_seq *q)
{
    for (int l = 0; l < s->n_lanes; l++) {
        if (wn_kv_map(q->kv)->lanes[l].window) continue;
        const float *mass = wn_ledger_row(&q->ledger, l, 0);
        for (int p = 0; p < s->context; p++) {
            int at = s->text * s->context + p;
            if (at % s->step == 0) s->lanes[l].weight[at / s->step] = mass[p];
        }
    }
}

static wn_status read_text(study *s, wn_engine *e, const char *kv, wn_err *err)
{
    wn_attend_observer see = { .ctx = s, .rows = see_rows };
    wn_seq *q;
    int rows = 0;
    wn_status st = wn_seq_open(&q, e, &(wn_seq_opts){ .max_tokens = s->context, .kv = kv }, err);
    if (st) return st;
    st = wn_seq_feed(q, s->ids + (size_t)s->text * (size_t)s->context, (size_t)s->context, err);
    e->observer = &see;
    do {
        s->at = wn_seq_n_done(q);
        if (s->o->stop && *s->o->stop) st = wn_fail(err, WN_EIO, "interrupted");
        if (!st) st = wn_engine_step(e, &rows, err);
    } while (!st && rows);
    e->observer = NULL;
    if (!st) keep_weights(s, q);
    wn_seq_close(q);
    return st;
}

/* A policy that sums up attention and never decides anything. */
static const char WATCHING[] = "h2o(every=1048576)@100%";

static wn_status read_texts(study *s, wn_err *err)
{
    wn_engine *e;
    wn_status st = wn_engine_open(&e, s->m,
                                  &(wn_engine_opts){ .n_threads = s->n_threads,
                                                     .mem = s->o->mem,
                                                     .n_ctx = s->context,
                                                     .kv = WATCHING },
                                  err);
    for (; !st && s->text < s->n_texts; s->text++) {
        if (s->o->progress) s->o->progress(s->o->progress_ctx, "texts", s->text, s->n_texts);
        st = read_text(s, e, WATCHING, err);
    }
    if (!st && s->o->progress) s->o->progress(s->o->progress_ctx, "texts", s->text, s->n_texts);
    wn_engine_close(e);
    return st;
}

/* ---- how much errors count ----------------------------------------------------------------- */

/* Scores see a pair's two channels in every mixture, as distances turn them: both count alike. */
static void share_pairs(const wn_rope *r, double *w)
{
    for (int j = 0; r && j < r->n_dims / 2; j++) {
        double *a = r->neox ? &w[j] : &w[2 * j],
               *b = r->neox ? &w[j + r->n_dims / 2] : &w[2 * j + 1];
        *a = *b = (*a + *b) / 2;
    }
}

/* Square roots of the weights of channels, which are 1 in the mean. */
static void channel_weights(const study *s, int lane, bool of_v, float *out)
{
    const wn_lane *w = &s->m->map.lanes[lane];
    double q2[WN_BOOK_DIM], sum = 0;
    int n = of_v ? w->v_dim : w->k_dim;
    for (int d = 0; d < n; d++) q2[d] = of_v ? 1 : s->lanes[lane].q2[d];
    if (!of_v) share_pairs(wn_model_rope(s->m, w->layer, s->context), q2);
    for (int d = 0; d < n; d++) sum += q2[d];
    for (int d = 0; d < n; d++)
        out[d] = sum > 0 ? (float)sqrt(WN_MAX(q2[d] * n / sum, LEAST_CHANNEL)) : 1;
}

static void settle_weights(const study *s)
{
    for (int l = 0; l < s->n_lanes; l++) {
        double sum = 0;
        float *w = s->lanes[l].weight;
        for (int i = 0; i < s->n_rows; i++) sum += (double)w[i];
        for (int i = 0; i < s->n_rows; i++)
            w[i] = (float)WN_MAX(sum > 0 ? (double)w[i] * s->n_rows / sum : 1, LEAST_TOKEN);
    }
}

/* ---- fitting --------------------------------------------------------------------------------- */

/* One side of one lane in one format. */
typedef struct {
    const study *s;
    const wn_format *f;
    int lane, dim;
    bool of_v;
    float *x;                           /* the book */
    int n_parts;
    double lost[WN_BOOK_DIM], all[WN_BOOK_DIM];         /* by part */
    char *scratch; size_t per_thread;
} fitting;

static const uint16_t *rows_of(const fitting *k)
{
    return k->of_v ? k->s->lanes[k->lane].v : k->s->lanes[k->lane].k;
}

/* The points of one group of coupled channels. */
static void fit_group(void *arg, int part, int thread)
{
    fitting *k = arg;
    int c = wn_cq_coupled(k->f), n = k->s->n_rows, width = WN_MIN(c, k->dim - part * c);
    float *x = (float *)(void *)(k->scratch + (size_t)thread * k->per_thread),
          *far = x + (size_t)n * (size_t)c;
    const float *by = k->x + part * c, *weight = k->s->lanes[k->lane].weight;
    const uint16_t *rows = rows_of(k) + part * c;
    double all = 0;
    for (int i = 0; i < n; i++)
        for (int d = 0; d < c; d++) {
            float y = d < width
                          ? wn_elem_from_f16(rows[(size_t)i * (size_t)k->dim + (size_t)d]) * by[d]
                          : 0;
            x[(size_t)i * (size_t)c + (size_t)d] = y;
            all += (double)weight[i] * (double)y * (double)y;
        }
    wn_kmeans_job j = { .x = x, .stride = (size_t)c, .weight = weight, .n = n, .c = c,
                        .n_points = WN_CQ_POINTS, .rounds = ROUNDS,
                        .seed = k->s->o->seed * 1000003 + (uint64_t)part,
                        .codes = (uint8_t *)(far + n), .far = far };
    float *points = k->x + wn_cq_points_at(c, k->dim, part);
    k->lost[part] = wn_kmeans(&j, points);
    k->all[part] = all;
    for (int i = 0; i < WN_CQ_POINTS; i++)
        for (int d = 0; d < c; d++) points[i * c + d] = d < width ? points[i * c + d] / by[d] : 0;
}

static double fit_groups(fitting *k, wn_threads *team)
{
    double lost = 0, all = 0;
    k->n_parts = wn_cq_groups(wn_cq_coupled(k->f), k->dim);
    wn_threads_run(team, fit_group, k, k->n_parts);
    for (int i = 0; i < k->n_parts; i++) lost += k->lost[i], all += k->all[i];
    return all > 0 ? lost / all : 0;
}

static wn_status fit_side(fitting *k, wn_threads *team, wn_err *err)
{
    wn_levels_job j = { .rows = rows_of(k), .weight = k->s->lanes[k->lane].weight,
                        .n = k->s->n_rows, .dim = k->dim, .of_v = k->of_v, .team = team,
                        .x = k->x };
    wn_status st = WN_OK;
    j.bits = wn_nuq_bits(k->f, &j.sparse);
    if (!j.bits || !k->of_v) {          /* books of both kinds begin with them, but levels of V */
        channel_weights(k->s, k->lane, k->of_v, k->x);
        /* as the file has them */
        for (int d = 0; d < k->dim; d++) k->x[d] = wn_elem_from_f16(wn_elem_to_f16(k->x[d]));
    }
    if (j.bits) st = wn_levels_fit(&j, err);
    else j.loss = fit_groups(k, team);
    if (!st && k->s->o->fitted)
        k->s->o->fitted(k->s->o->fitted_ctx, k->f, k->lane, k->of_v, j.loss);
    return st;
}

static wn_status fit_books(study *s, wn_calibration *c, wn_err *err)
{
    wn_threads *team;
    wn_status st = wn_threads_open(&team, s->n_threads, err);
    if (st) return st;
    fitting k = { .s = s,
                  .per_thread = ((size_t)s->n_rows * (WIDEST * sizeof(float) + sizeof(float) + 1) +
                                 63) &
                                ~(size_t)63 };
    if (!(k.scratch = wn_alloc_aligned(k.per_thread * (size_t)s->n_threads)))
        st = wn_fail(err, WN_ENOMEM, "calibrate: out of memory");
    for (int l = 0; l < s->n_lanes && !st; l++) {
        if (s->o->progress) s->o->progress(s->o->progress_ctx, "lanes", l, s->n_lanes);
        for (int i = 0; i < 2 * c->n_books && !st; i++) {
            k.f = c->books[i / 2].format;
            k.lane = l;
            k.of_v = i % 2;
            k.dim = k.of_v ? c->dims[l].v : c->dims[l].k;
            k.x = wn_calibration_numbers(c, &c->books[i / 2], l, k.of_v);
            st = fit_side(&k, team, err);
            if (!st && s->o->stop && *s->o->stop) st = wn_fail(err, WN_EIO, "interrupted");
        }
    }
    if (!st && s->o->progress) s->o->progress(s->o->progress_ctx, "lanes", s->n_lanes, s->n_lanes);
    wn_free(k.scratch);
    wn_threads_close(team);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static wn_status choose_formats(study *s, wn_err *err)
{
    const char *p = s->o->formats;
    for (int i = 0; !p && wn_format_at(i); i++)
        if (wn_format_at(i)->calibrated) s->formats[s->n_formats++] = wn_format_at(i);
    while (p && *p) {
        char name[16] = "";
        size_t n = strcspn(p, ",");
        if (n < sizeof name) memcpy(name, p, n);
        const wn_format *f = wn_format_find(name);
        if (!f || !f->calibrated) {
            char known[128] = "";
            for (int i = 0; wn_format_at(i); i++)
                if (wn_format_at(i)->calibrated)
                    snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s",
                             *known ? ", " : "", wn_format_at(i)->name);
            return wn_fail(err, WN_EINVAL,
                           "\"%.*s\" is no cache format that is calibrated: there are %s",
                           (int)WN_MIN(n, 40), p, known);
        }
        for (int i = 0; i < s->n_formats; i++)
            if (s->formats[i] == f) return wn_fail(err, WN_EINVAL, "%s is named twice", name);
        s->formats[s->n_formats++] = f;
        p += n + (p[n] == ',');
    }
    return s->n_formats ? WN_OK : wn_fail(err, WN_EINVAL, "no format is named");
}

static wn_status choose(study *s, wn_err *err)
{
    const wn_calibrate_opts *o = s->o;
    int train = s->m->hp.n_ctx_train;
    wn_status st = choose_formats(s, err);
    if (st || (st = wn_tokens_from_text(s->m, o->text, o->n_text, 0, &s->ids, &s->n_ids, err)))
        return st;
    s->context = o->context ? o->context : WN_MIN(CONTEXT, train);
    if (s->context < 1 || s->context > train)
        return wn_fail(err, WN_EINVAL, "texts of %d tokens: the model was trained for %d",
                       s->context, train);
    s->context = (int)WN_MIN((size_t)s->context, s->n_ids);
    s->n_texts = s->context ? (int)WN_MIN(s->n_ids / (size_t)s->context,
                                          (size_t)(o->n_texts ? o->n_texts : TEXTS))
                            : 0;
    if (s->n_texts * s->context < LEAST_TOKENS)
        return wn_fail(
            err, WN_EINVAL,
            "the text has %zu tokens: books of 255 points want %d at least, better 16000", s->n_ids,
            LEAST_TOKENS);
    for (int l = 0; l < s->n_lanes; l++) {
        const wn_lane *w = &s->m->map.lanes[l];
        if (w->k_dim > WN_BOOK_DIM || w->v_dim > WN_BOOK_DIM)
            return wn_fail(err, WN_EUNSUPPORTED,
                           "heads of %d channels: calibrated formats have at most %d",
                           WN_MAX(w->k_dim, w->v_dim), WN_BOOK_DIM);
    }
    return WN_OK;
}

static wn_status take_rows(study *s, wn_err *err)
{
    size_t row = 0, tokens = (size_t)s->n_texts * (size_t)s->context;
    for (int l = 0; l < s->n_lanes; l++)
        row += 2 * (size_t)(s->m->map.lanes[l].k_dim + s->m->map.lanes[l].v_dim) + sizeof(float);
    s->step = (int)(row * tokens / ROWS_BYTES) + 1;
    s->n_rows = (int)((tokens + (size_t)s->step - 1) / (size_t)s->step);
    if (!(s->lanes = WN_NEW_ARRAY(seen, s->n_lanes)))
        return wn_fail(err, WN_ENOMEM, "calibrate: out of memory");
    for (int l = 0; l < s->n_lanes; l++) {
        const wn_lane *w = &s->m->map.lanes[l];
        s->lanes[l] = (seen){ .k = WN_NEW_ARRAY(uint16_t, s->n_rows * w->k_dim),
                              .v = WN_NEW_ARRAY(uint16_t, s->n_rows * w->v_dim),
                              .weight = WN_NEW_ARRAY(float, s->n_rows),
                              .q2 = WN_NEW_ARRAY(double, w->k_dim) };
        if (!s->lanes[l].k || !s->lanes[l].v || !s->lanes[l].weight || !s->lanes[l].q2)
            return wn_fail(err, WN_ENOMEM, "calibrate: out of memory for %d rows of %d lanes",
                           s->n_rows, s->n_lanes);
    }
    return WN_OK;
}

static void release(study *s)
{
    for (int l = 0; s->lanes && l < s->n_lanes; l++) {
        wn_free(s->lanes[l].k);
        wn_free(s->lanes[l].v);
        wn_free(s->lanes[l].weight);
        wn_free(s->lanes[l].q2);
    }
    wn_free(s->lanes);
    wn_tokens_free(s->ids);
}

static void describe(wn_calibration *c, const study *s)
{
    XXH128_canonical_t h;
    size_t n = (size_t)s->n_texts * (size_t)s->context;
    wn_model_fingerprint(s->m, NULL, c->fingerprint);
    snprintf(c->numerics, sizeof c->numerics, "%s/%d", wn_kernels_get()->numerics,
             WN_ORDER_VERSION);
    XXH128_canonicalFromHash(&h, XXH3_128bits(s->ids, n * sizeof *s->ids));
    memcpy(c->text, h.digest, sizeof c->text);
    c->n_tokens = (int)n;
    c->context = s->context;
}

wn_status wn_calibrate(wn_calibration **out, wn_model *m, const wn_calibrate_opts *o, wn_err *err)
{
    study s = { .m = m, .o = o, .n_threads = o->n_threads ? o->n_threads : wn_os_n_cpus(),
                .n_lanes = m->map.n_lanes };
    wn_calibration *c = NULL;
    *out = NULL;
    wn_status st = choose(&s, err);
    if (!st && !(st = take_rows(&s, err)) && !(st = read_texts(&s, err)) &&
        !(st = wn_calibration_new(&c, s.n_lanes, err))) {
        wn_engine_lane_dims(m, c->dims);
        for (int i = 0; i < s.n_formats && !st; i++) st = wn_calibration_add(c, s.formats[i], err);
        settle_weights(&s);
        if (!st) st = fit_books(&s, c, err);
        if (!st) describe(c, &s);
    }
    release(&s);
    if (!st) *out = c;
    else wn_calibration_close(c);
    return st;
}
