/* eval/profile_look.c - texts are fed and their rows looked at: see profile_study.h.
 *
 *     0 ........ needle ........ | question | value
 *                prose rows    ^^^          ^^^^^^ rows of the answer
 *     block | block | block | block
 *                              ^^^ rows of repeats
 *
 * The answer is fed as the fact has it, token by token, so that a row is looked at for each of
 * its tokens whether or not the model would have written it; how many it would have is counted.
 * Rows of a text are summed by head.
 */
#include "eval/profile_study.h"

#include "base/alloc.h"
#include "eval/stats.h"

#include <math.h>
#include <string.h>

enum { PROSE_ROWS = 8 };

/* ---- one row ------------------------------------------------------------------------ */

typedef struct {
    const wn_study *s;
    const wn_lab *lab;
    wn_study_sums sums;                 /* of the job */
    uint8_t *mark;                      /* (n_ctx) */
    unsigned count;                     /* marks that are summed in this row */
    bool loss;                          /* look at what streaming would lose, too */
    double *lost, *norm;                /* (n_layers, n_heads), (n_layers): of this row */
    double *answers;                    /* (2, v_dim) */
    float *values;                      /* (n_ctx, v_dim) */
} looking;

/* Rows of V in the order the weights came in: that of the runs. */
static void load_values(const wn_kv *kv, int lane, int limit, const int32_t *pos, float *rows,
                        int dim)
{
    wn_run_iter it;
    wn_run run;
    int i = 0, P = wn_kv_page_slots(kv);
    wn_runs_begin(&it, kv, lane, 0, limit);
    while (wn_runs_next(&it, &run))
        for (uint64_t left = run.keep; left; left &= left - 1, i++) {
            int k = __builtin_ctzll(left);
            WN_ASSERT(pos[i] == (run.pos ? run.pos[k] : run.pos0 + k) && run.v);
            wn_kv_raw_v(kv, lane)->get_v(run.v, P, run.first + k, rows + (size_t)i * (size_t)dim,
                                         dim);
        }
}

static void see_weights(void *ctx, const wn_attend_item *item, int lane, const int32_t *pos,
                        const float *w, int group, int n)
{
    looking *k = ctx;
    const wn_lane *l = &wn_kv_map(item->kv)->lanes[lane];
    int first = l->layer * k->s->n_heads + l->head * group;
    double norm;
    if (k->loss) load_values(item->kv, lane, item->pos + 1, pos, k->values, l->v_dim);
    for (int g = 0; g < group; g++) {
        const float *x = w + (size_t)g * (size_t)n;
        wn_rows_add(&k->sums.heads[first + g], x, pos, n, k->mark, k->count);
        if (!k->loss) continue;
        k->lost[first + g] = wn_rows_loss(x, pos, n, k->mark, k->values, l->v_dim, k->answers,
                                          k->answers + l->v_dim, &norm);
        k->norm[l->layer] += norm;
    }
}

/* Losses of the row that was looked at, relative to the answers of the whole layer. */
static void add_losses(looking *k)
{
    const wn_study *s = k->s;
    int H = s->n_heads, per_layer = s->n_lanes / s->n_layers, group = H / per_layer;
    for (int l = 0; l < s->n_layers; l++) {
        double layer = 0, norm = k->norm[l] > 0 ? k->norm[l] : 1;
        for (int j = 0; j < per_layer; j++) {
            double lane = 0;
            for (int h = l * H + j * group; h < l * H + (j + 1) * group; h++) {
                k->sums.heads[h].loss += sqrt(k->lost[h] / norm);
                lane += k->lost[h];
            }
            k->sums.lanes[l * per_layer + j] += sqrt(lane / norm);
            layer += lane;
        }
        k->sums.layers[l] += sqrt(layer / norm);
        k->norm[l] = 0;
    }
}

/* Feeds the token at the sequence's end and looks. */
static wn_status look(looking *k, wn_seq *q, int32_t id, unsigned count, bool loss, wn_err *err)
{
    wn_attend_observer observer = { .ctx = k, .weights = see_weights };
    k->count = count;
    k->loss = loss;
    k->lab->e->observer = &observer;
    wn_status st = wn_lab_feed(k->lab, q, &id, 1, err);
    k->lab->e->observer = NULL;
    if (!st && loss) add_losses(k);
    return st;
}

/* ---- needles ------------------------------------------------------------------------ */

static void mark_ranges(uint8_t *mark, const wn_token_range *s, int n, uint8_t bit)
{
    for (int i = 0; i < n; i++)
        for (int j = s[i].from; j < s[i].to; j++) mark[j] |= bit;
}

/* The j-th token of every place where the value is spelled as it is at the first. */
static void mark_copied(const wn_needle *d, int j, uint8_t *mark)
{
    const wn_token_range *a = &d->value[0];
    for (int i = 0; i < d->n_places; i++) {
        const wn_token_range *b = &d->value[i];
        size_t n = (size_t)(a->to - a->from);
        if (b->to - b->from == (int)n &&
            !memcmp(d->context + a->from, d->context + b->from, n * sizeof *d->context))
            mark[b->from + j] |= WN_AT_COPIED;
    }
}

/* Reads the context and the question up to its last token, with a look at the end of the prose. */
static wn_status read_question(looking *k, wn_seq *q, const wn_needle *d, wn_err *err)
{
    const wn_profile_opts *o = &k->s->o;
    size_t rows = WN_MIN((size_t)PROSE_ROWS, d->n_context - 1), at = d->n_context - rows;
    wn_status st = wn_lab_feed(k->lab, q, d->context, at, err);
    for (; at < d->n_context && !st; at++) {
        memset(k->mark, 0, (size_t)k->lab->n_ctx);
        wn_rows_mark_near(k->mark, (int)at, o->sinks, o->recent);
        st = look(k, q, d->context[at], WN_AT_NEAR, false, err);
        k->sums.counts[WN_N_PROSE]++;
    }
    return st ? st : wn_lab_feed(k->lab, q, d->ask, d->n_ask - 1, err);
}

static wn_status read_answer(looking *k, wn_seq *q, const wn_needle *d, wn_err *err)
{
    const wn_profile_opts *o = &k->s->o;
    const int32_t *value = d->context + d->value[0].from;
    int n = d->value[0].to - d->value[0].from;
    wn_status st = WN_OK;
    for (int j = 0; j < n && !st; j++) {
        memset(k->mark, 0, (size_t)k->lab->n_ctx);
        mark_ranges(k->mark, d->value, d->n_places, WN_AT_VALUE);
        mark_ranges(k->mark, d->span, d->n_places, WN_AT_SPAN);
        mark_copied(d, j, k->mark);
        wn_rows_mark_near(k->mark, wn_seq_n_tokens(q), o->sinks, o->recent);
        st = look(k, q, j ? value[j - 1] : d->ask[d->n_ask - 1],
                  WN_AT_VALUE | WN_AT_SPAN | WN_AT_COPIED, true, err);
        if (st) break;
        k->sums.counts[WN_N_ANSWERS]++;
        k->sums.counts[WN_N_ANSWERED] +=
            wn_stat_argmax(wn_seq_logits(q), k->lab->n_vocab) == value[j];
    }
    return st;
}

static wn_status run_needle(looking *k, int i, wn_err *err)
{
    wn_needle d;
    wn_seq *q = NULL;
    wn_status st = wn_needle_make(&d, k->s, k->lab, i, err);
    if (!st) st = wn_lab_seq(&q, k->lab, &k->s->w.rows[0], err);
    if (!st && !(st = read_question(k, q, &d, err))) st = read_answer(k, q, &d, err);
    wn_seq_close(q);
    wn_needle_release(&d);
    return st;
}

/* ---- repeats ------------------------------------------------------------------------ */

static wn_status run_repeats(looking *k, int i, wn_err *err)
{
    wn_repeats r;
    wn_seq *q = NULL;
    wn_status st = wn_repeats_make(&r, k->s, k->lab, i, err);
    if (st) return st;
    int at = r.end - WN_REPEAT_ROWS;
    if (!(st = wn_lab_seq(&q, k->lab, &k->s->w.rows[0], err)))
        st = wn_lab_feed(k->lab, q, r.ids, (size_t)at, err);
    for (; at < r.end && !st; at++) {
        memset(k->mark, 0, (size_t)k->lab->n_ctx);
        wn_rows_mark_repeats(k->mark, at, r.start, r.block);
        st = look(k, q, r.ids[at], WN_AT_SAME | WN_AT_NEXT, false, err);
        k->sums.counts[WN_N_REPEATS]++;
    }
    wn_seq_close(q);
    wn_free(r.ids);
    return st;
}

/* ---- jobs --------------------------------------------------------------------------- */

size_t wn_study_n_values(const wn_study *s)
{
    return (size_t)(s->n_layers * s->n_heads) * WN_HEAD_SUMS + (size_t)s->n_lanes +
           (size_t)s->n_layers + WN_N_COUNTS;
}

wn_study_sums wn_study_sums_of(const wn_study *s, double *values)
{
    double *lanes = values + (size_t)(s->n_layers * s->n_heads) * WN_HEAD_SUMS,
           *layers = lanes + s->n_lanes;
    return (wn_study_sums){ (wn_head_sums *)(void *)values, lanes, layers, layers + s->n_layers };
}

wn_status wn_study_job(wn_eval_work *w, const wn_lab *lab, void *ctx, int job, double *values,
                       wn_job_desk *desk, wn_err *err)
{
    (void)w, (void)desk;
    const wn_study *s = ctx;
    size_t v_dim = (size_t)lab->m->hp.v_dim;
    looking k = { .s = s, .lab = lab, .sums = wn_study_sums_of(s, values) };
    wn_status st;
    memset(values, 0, sizeof *values * s->per_job);
    k.mark = wn_calloc((size_t)lab->n_ctx, 1);
    k.lost = WN_NEW_ARRAY(double, s->n_layers * s->n_heads);
    k.norm = WN_NEW_ARRAY(double, s->n_layers);
    k.answers = WN_NEW_ARRAY(double, 2 * v_dim);
    k.values = WN_NEW_ARRAY(float, (size_t)lab->n_ctx * v_dim);
    if (!k.mark || !k.lost || !k.norm || !k.answers || !k.values)
        st = wn_fail(err, WN_ENOMEM, "profile: out of memory");
    else if (job < s->o.n_needles) st = run_needle(&k, job, err);
    else st = run_repeats(&k, job - s->o.n_needles, err);
    wn_free(k.mark);
    wn_free(k.lost);
    wn_free(k.norm);
    wn_free(k.answers);
    wn_free(k.values);
    return st;
}
