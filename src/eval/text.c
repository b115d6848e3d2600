/* eval/text.c - a chunk of text through the full cache and through every row.
 *
 *     0 ........................ half ........................... context
 *     read; decisions at          mark: policies of marks decide;
 *     boundaries                  fed as it stands, each position compared
 *
 * The full cache runs first and leaves behind the logits of the compared positions, the
 * attention weights and answers of a few sampled queries, and its greedy continuation from
 * the mark. Sampled queries run as single rows, because weights are shown for those only;
 * how rows fall into steps changes no bit.
 */
#include "eval/text.h"

#include "base/alloc.h"
#include "eval/stats.h"

#include <math.h>
#include <string.h>

enum { MAX_SAMPLES = 4 };
static const size_t KEEP_BYTES = (size_t)256 << 20;     /* for logits, and again for weights */

wn_text_shape wn_text_shape_of(const wn_model *m, int context, int n_rows)
{
    wn_text_shape s = { .context = context, .half = context / 2, .n_layers = m->hp.n_layers,
                        .n_rows = n_rows };
    int all = context - 1 - s.half;     /* the last token has no successor */
    size_t row = sizeof(float) * (size_t)m->hp.n_vocab;
    int fit = (int)WN_MIN((size_t)all, KEEP_BYTES / row);
    s.stride = (all + fit - 1) / WN_MAX(fit, 1);
    s.n_scored = (all + s.stride - 1) / s.stride;
    size_t sample = sizeof(float) * (size_t)m->hp.n_layers * (size_t)m->hp.n_heads *
                    (size_t)context;
    s.n_samples = (int)WN_MAX(1, WN_MIN((size_t)MAX_SAMPLES, KEEP_BYTES / sample));
    s.row_values = (size_t)s.n_scored + WN_TEXT_FIXED + 3 * (size_t)s.n_layers;
    return s;
}

/* ---- attention at sampled queries ----------------------------------------------------- */

typedef struct {
    float *weights;                     /* (n_samples, n_layers, n_heads, context): the full
                                           cache's, by position */
    float *answers;                     /* (n_samples, n_layers, width) */
} samples;

typedef struct {
    const wn_lab *lab;
    const wn_text_shape *shape;
    samples *full;
    int sample, pos;
    bool reference;
    double *mass, *diff, *norm;         /* (n_layers) sums over samples and heads */
    double *merged;                     /* (n_layers) this row's weight on merged slots, likewise */
    uint64_t *bits;                     /* over positions: merged slots of the lane at hand */
    double perplexity;                  /* sum of exp(entropy) over samples, layers, heads */
} looking;

static float *weights_of(const looking *k, int layer, int head)
{
    const wn_text_shape *s = k->shape;
    size_t row = ((size_t)k->sample * (size_t)s->n_layers + (size_t)layer) *
                     (size_t)k->lab->n_heads +
                 (size_t)head;
    return k->full->weights + row * (size_t)s->context;
}

/* Sets bit pos for each merged slot of a lane. */
static void mark_merged(const wn_kv *kv, int lane, int limit, uint64_t *bits)
{
    wn_run_iter it;
    wn_run run;
    wn_runs_begin(&it, kv, lane, 0, limit);
    while (wn_runs_next(&it, &run))
        for (int s = 0; run.merged && s < run.n; s++)
            if (run.keep >> s & 1) bits[run.pos[s] >> 6] |= (uint64_t)1 << (run.pos[s] & 63);
}

static void see_weights(void *ctx, const wn_attend_item *item, int lane, const int32_t *pos,
                        const float *w, int group, int n)
{
    looking *k = ctx;
    const wn_lane *l = &wn_kv_map(item->kv)->lanes[lane];
    memset(k->bits, 0, ((size_t)k->shape->context + 63) / 64 * sizeof *k->bits);
    if (!k->reference) mark_merged(item->kv, lane, item->pos + 1, k->bits);
    for (int g = 0; g < group; g++) {
        float *full = weights_of(k, l->layer, l->head * group + g);
        double sum = 0;
        if (k->reference) {
            for (int i = 0; i < n; i++) {
                double x = (double)w[(size_t)g * (size_t)n + (size_t)i];
                full[pos[i]] = (float)x;
                if (x > 0) sum -= x * log(x);
            }
            k->perplexity += exp(sum);
            k->mass[l->layer] += 1;
        } else {
            for (int i = 0; i < n; i++) {
                if (k->bits[pos[i] >> 6] >> (pos[i] & 63) & 1)
                    k->merged[l->layer] += (double)w[(size_t)g * (size_t)n + (size_t)i];
                else sum += (double)full[pos[i]];
            }
            k->mass[l->layer] += sum;
        }
    }
}

static void see_answers(void *ctx, int layer, const float *a, int n_rows, int width)
{
    looking *k = ctx;
    float *full = k->full->answers +
                  ((size_t)k->sample * (size_t)k->shape->n_layers + (size_t)layer) * (size_t)width;
    (void)n_rows;
    if (k->reference) memcpy(full, a, sizeof *a * (size_t)width);
    for (int i = 0; i < width; i++) {
        double d = (double)a[i] - (double)full[i];
        k->diff[layer] += d * d;
        k->norm[layer] += (double)full[i] * (double)full[i];
    }
}

/* ---- logits ---------------------------------------------------------------------------- */

typedef struct {
    const wn_lab *lab;
    const wn_text_shape *shape;
    const int32_t *ids;
    float *kept;                        /* (n_scored, n_vocab) the full cache's */
    double *kept_sum;                   /* (n_scored) ln of the sum of their exp */
    bool reference;
    double *kl, *fixed;
} scoring;

static void see_logits(void *ctx, int pos, const float *logits)
{
    scoring *c = ctx;
    const wn_text_shape *s = c->shape;
    int V = c->lab->n_vocab, at = pos - s->half;
    if (at < 0 || pos + 1 >= s->context) return;
    double sum = wn_stat_log_sum(logits, V);
    c->fixed[WN_TEXT_NLL] += sum - (double)logits[c->ids[pos + 1]];
    c->fixed[WN_TEXT_N_NLL] += 1;
    if (at % s->stride) return;
    float *full = c->kept + (size_t)(at / s->stride) * (size_t)V;
    if (c->reference) {
        memcpy(full, logits, sizeof *logits * (size_t)V);
        c->kept_sum[at / s->stride] = sum;
    }
    c->kl[at / s->stride] = wn_stat_kl_of(full, c->kept_sum[at / s->stride], logits, sum, V);
    c->fixed[WN_TEXT_TOP1] += wn_stat_argmax(full, V) == wn_stat_argmax(logits, V);
}

/* ---- one row ---------------------------------------------------------------------------- */

typedef struct {
    const wn_lab *lab;
    const wn_text_shape *shape;
    const int32_t *ids;
    float *kept;
    double *kept_sum;
    samples full;
    int32_t greedy[WN_EVAL_GREEDY];     /* the full cache's continuation */
    double *work;                       /* (3, n_layers) */
    uint64_t *bits;                     /* over positions */
} chunk;

static wn_status continue_greedily(chunk *c, wn_seq *s, bool reference, double *diverge,
                                   wn_err *err)
{
    wn_seq *g;
    int room = c->lab->n_ctx - wn_seq_n_tokens(s), n = WN_MIN((int)WN_EVAL_GREEDY, room), same = 0;
    wn_status st = wn_seq_fork(&g, s, NULL, err);
    if (st) return st;
    for (int i = 0; i < n && !st; i++) {
        int32_t id;
        if ((st = wn_lab_greedy(c->lab, g, i + 1 < n, &id, err))) break;
        if (reference) c->greedy[i] = id;
        if (id != c->greedy[i]) break;
        same++;
    }
    *diverge = same;
    wn_seq_close(g);
    return st;
}

/* The second half, sampled positions alone. */
static wn_status feed_second_half(chunk *c, wn_seq *s, scoring *score, looking *look, wn_err *err)
{
    const wn_text_shape *h = c->shape;
    wn_attend_observer observer = { .ctx = look, .weights = see_weights, .answers = see_answers };
    int at = h->half;
    wn_seq_stats stats;
    wn_status st;
    s->opts.on_logits = see_logits;
    s->opts.on_logits_ctx = score;
    s->n_reported = h->half;
    if ((st = wn_lab_feed(c->lab, s, c->ids + at++, 1, err))) return st;
    wn_seq_get_stats(s, &stats);
    /* right after what is decided at the mark */
    score->fixed[WN_TEXT_BYTES] = (double)stats.kv_bytes;
    for (int i = 0; i < h->n_samples; i++) {
        int p = h->half + (int)((int64_t)(i + 1) * (h->context - h->half) / (h->n_samples + 1));
        if ((st = wn_lab_feed(c->lab, s, c->ids + at, (size_t)(p - at), err))) return st;
        look->sample = i;
        look->pos = p;
        c->lab->e->observer = &observer;
        st = wn_lab_feed(c->lab, s, c->ids + p, 1, err);
        c->lab->e->observer = NULL;
        if (st) return st;
        at = p + 1;
    }
    return wn_lab_feed(c->lab, s, c->ids + at, (size_t)(h->context - at), err);
}

static wn_status run_row(chunk *c, wn_seq *s, bool reference, double *values, wn_err *err)
{
    const wn_text_shape *h = c->shape;
    size_t L = (size_t)h->n_layers;
    double *fixed = values + h->n_scored, *mass = fixed + WN_TEXT_FIXED, *error = mass + L,
           *recovered = error + L;
    memset(values, 0, sizeof *values * h->row_values);
    memset(c->work, 0, sizeof *c->work * 3 * L);
    scoring score = { .lab = c->lab, .shape = h, .ids = c->ids, .kept = c->kept,
                      .kept_sum = c->kept_sum, .reference = reference, .kl = values,
                      .fixed = fixed };
    looking look = { .lab = c->lab, .shape = h, .full = &c->full, .reference = reference,
                     .mass = mass, .diff = c->work, .norm = c->work + L, .merged = c->work + 2 * L,
                     .bits = c->bits };
    wn_status st = wn_seq_mark(s, err);
    if (st || (st = continue_greedily(c, s, reference, &fixed[WN_TEXT_DIVERGE], err))) return st;
    if ((st = feed_second_half(c, s, &score, &look, err))) return st;
    double queries = (double)h->n_samples * c->lab->n_heads;
    fixed[WN_TEXT_ATTENDED] = look.perplexity / queries / (double)L;
    for (size_t l = 0; l < L; l++) {
        mass[l] /= queries;
        if (look.merged[l] > 0 && mass[l] < 1)
            recovered[l] = look.merged[l] / queries / (1 - mass[l]);
        error[l] = look.norm[l] > 0 ? sqrt(look.diff[l] / look.norm[l]) : 0;
    }
    return WN_OK;
}

wn_status wn_text_run(const wn_lab *lab, const wn_text_shape *h, const wn_lab_row *rows,
                      const int32_t *ids, wn_job_desk *desk, double *values, wn_err *err)
{
    chunk c = { .lab = lab, .shape = h, .ids = ids };
    wn_seq *base = NULL, *s = NULL;
    size_t samples_layers = (size_t)h->n_samples * (size_t)h->n_layers;
    wn_status st = WN_ENOMEM;
    c.kept = wn_alloc(sizeof(float) * (size_t)h->n_scored * (size_t)lab->n_vocab);
    c.kept_sum = wn_alloc(sizeof(double) * (size_t)h->n_scored);
    c.full.weights = wn_calloc(samples_layers * (size_t)lab->n_heads * (size_t)h->context,
                               sizeof(float));
    c.full.answers = wn_alloc(sizeof(float) * samples_layers * (size_t)lab->answer_width);
    c.bits = wn_alloc(sizeof(uint64_t) * ((size_t)h->context + 63) / 64 + 8);
    c.work = wn_alloc(sizeof(double) * 3 * (size_t)h->n_layers);
    if (!c.kept || !c.kept_sum || !c.full.weights || !c.full.answers || !c.work || !c.bits) {
        wn_fail(err, st, "eval: out of memory for the logits of %d positions", h->n_scored);
        goto done;
    }
    if ((st = wn_lab_seq(&base, lab, &rows[0], err))) goto done;
    if ((st = wn_lab_feed(lab, base, ids, (size_t)h->half, err))) goto done;
    for (int r = 0; r < h->n_rows; r++) {
        if (r && wn_job_part_had(desk, r)) continue;  /* row 0 runs for what it leaves behind */
        if ((st = wn_lab_start(&s, lab, &rows[r], base, err))) goto done;
        if ((st = run_row(&c, s, r == 0, values + (size_t)r * h->row_values, err))) {
            wn_fail_prefix(err, st, "%s", rows[r].kv);
            goto done;
        }
        wn_seq_close(s);
        s = NULL;
        if (!wn_job_part_had(desk, r)) wn_job_part_done(desk, r);
    }
done:
    wn_seq_close(s);
    wn_seq_close(base);
    wn_free(c.kept);
    wn_free(c.kept_sum);
    wn_free(c.full.weights);
    wn_free(c.full.answers);
    wn_free(c.work);
    wn_free(c.bits);
    return st;
}
