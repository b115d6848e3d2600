/* eval/profile.c - texts that show what heads do, fed and looked at: see profile.h.
 *
 *     0 ........ needle ........ | question | value
 *                prose rows    ^^^          ^^^^^^ rows of the answer
 *     block | block | block | block
 *                              ^^^ rows of repeats
 *
 * The answer is fed as the fact has it, token by token, so that a row is looked at for each of
 * its tokens whether or not the model would have written it; how many it would have is in the
 * profile (answered). Rows of a text are summed by head; texts are jobs and summed in order.
 */
#include "eval/profile.h"

#include "base/alloc.h"
#include "base/os.h"
#include "eval/phrases.h"
#include "eval/stats.h"
#include "eval/work.h"
#include "kernel/kernel.h"
#include "sample/sample.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    CONTEXT = 2048,
    NEEDLES = 12,
    REPEATS = 4,
    SINKS = 4,
    RECENT = 256,
    COPIES = 4,
    LEAST_CONTEXT = 256
};
enum { PROSE_ROWS = 8, REPEAT_ROWS = 16, ROOM = 64 };
/* A head copies from a tenth of the tokens on (Wu et al., 2024, section 2.2). */
static const double COPY_FROM = 0.1, STREAM_FROM = 0.9;
static const char *const NEEDLE_TASKS[] = { "passkey", "needle" };

/* Values of a job: sums of each head, losses of lanes and layers, and how many rows there were. */
enum { N_ANSWERS, N_ANSWERED, N_PROSE, N_REPEATS, N_COUNTS };

typedef struct {
    wn_eval_work w;
    wn_profile_opts o;                  /* defaults filled in */
    int n_layers, n_heads, n_lanes;
    size_t per_job;
} study;

static size_t head_values(const study *s)
{
    return (size_t)(s->n_layers * s->n_heads) * WN_HEAD_SUMS;
}

/* ---- one row --------------------------------------------------------------------------- */

typedef struct {
    const study *s;
    const wn_lab *lab;
    double *sums, *lanes, *layers, *counts;     /* of the job */
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
        wn_head_sums *to = (wn_head_sums *)(void *)(k->sums + (size_t)(first + g) * WN_HEAD_SUMS);
        wn_rows_add(to, x, pos, n, k->mark, k->count);
        if (!k->loss) continue;
        k->lost[first + g] = wn_rows_loss(x, pos, n, k->mark, k->values, l->v_dim, k->answers,
                                          k->answers + l->v_dim, &norm);
        k->norm[l->layer] += norm;
    }
}

/* Losses of the row that was looked at, relative to the answers of the whole layer. */
static void add_losses(looking *k)
{
    const study *s = k->s;
    int H = s->n_heads, per_layer = s->n_lanes / s->n_layers, group = H / per_layer;
    for (int l = 0; l < s->n_layers; l++) {
        double layer = 0, norm = k->norm[l] > 0 ? k->norm[l] : 1;
        for (int j = 0; j < per_layer; j++) {
            double lane = 0;
            for (int h = l * H + j * group; h < l * H + (j + 1) * group; h++) {
                ((wn_head_sums *)(void *)(k->sums + (size_t)h * WN_HEAD_SUMS))->loss += sqrt(
                    k->lost[h] / norm);
                lane += k->lost[h];
            }
            k->lanes[l * per_layer + j] += sqrt(lane / norm);
            layer += lane;
        }
        k->layers[l] += sqrt(layer / norm);
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

/* ---- needles ---------------------------------------------------------------------------- */

enum { MAX_PLACES = 8 };

/* Tokens [from, to) of the context. */
typedef struct { int from, to; } stretch;

typedef struct {
    int32_t *context, *ask; size_t n_context, n_ask;    /* ask: up to the value, a blank in front of
                                                           it included */
    stretch value[MAX_PLACES], span[MAX_PLACES]; int n_places;
} needle;

static bool ends_sentence(const char *s)
{
    return *s == '\n' || ((*s == '.' || *s == '!' || *s == '?') && (s[1] == ' ' || s[1] == '\n'));
}

/* Tokens that hold any of the bytes [a, b). */
static stretch tokens_at(const size_t *start, size_t n, size_t a, size_t b)
{
    stretch s = { 0, 0 };
    while ((size_t)s.from < n && start[s.from + 1] <= a) s.from++;
    for (s.to = s.from; (size_t)s.to < n && start[s.to] < b;) s.to++;
    return s;
}

/* The context as its tokens spell it, NUL-terminated, and where each of them starts: (n + 1). */
static char *spell(const needle *d, const wn_model *m, size_t *start)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n_context; i++) {
        start[i] = n;
        n += wn_token_text(m, d->context[i], true, NULL, 0);
    }
    start[d->n_context] = n;
    char *text = wn_calloc(n + 1, 1);
    for (size_t i = 0; text && i < d->n_context; i++)
        wn_token_text(m, d->context[i], true, text + start[i], start[i + 1] - start[i]);
    return text;
}

/* Where the context spells the value, and the sentences around it. */
static wn_status find_value(needle *d, const wn_model *m, const char *value, wn_err *err)
{
    size_t *start = WN_NEW_ARRAY(size_t, d->n_context + 1);
    char *text = start ? spell(d, m, start) : NULL;
    const char *at = text, *end = text ? text + start[d->n_context] : NULL;
    while (text && d->n_places < MAX_PLACES && (at = wn_word_find(text, at, end, value, false))) {
        const char *a = at, *b = at + strlen(value);
        d->value[d->n_places] = tokens_at(start, d->n_context, (size_t)(a - text),
                                          (size_t)(b - text));
        at = b;
        while (a > text && !ends_sentence(a - 1)) a--;
        while (b < end && !ends_sentence(b)) b++;
        d->span[d->n_places++] = tokens_at(start, d->n_context, (size_t)(a - text),
                                           (size_t)(b - text));
    }
    wn_free(start);
    wn_free(text);
    if (!text) return wn_fail(err, WN_ENOMEM, "profile: out of memory");
    return d->n_places ? WN_OK
                       : wn_fail(err, WN_EFORMAT,
                                 "the text of a needle does not spell its value \"%.40s\"", value);
}

static void mark_stretches(uint8_t *mark, const stretch *s, int n, uint8_t bit)
{
    for (int i = 0; i < n; i++)
        for (int j = s[i].from; j < s[i].to; j++) mark[j] |= bit;
}

/* The j-th token of every place where the value is spelled as it is at the first. */
static void mark_copied(const needle *d, int j, uint8_t *mark)
{
    const stretch *a = &d->value[0];
    for (int i = 0; i < d->n_places; i++) {
        const stretch *b = &d->value[i];
        size_t n = (size_t)(a->to - a->from);
        if (b->to - b->from == (int)n &&
            !memcmp(d->context + a->from, d->context + b->from, n * sizeof *d->context))
            mark[b->from + j] |= WN_AT_COPIED;
    }
}

/* Reads the context and the question up to its last token, with a look at the end of the prose. */
static wn_status read_question(looking *k, wn_seq *q, const needle *d, wn_err *err)
{
    const wn_profile_opts *o = &k->s->o;
    size_t rows = WN_MIN((size_t)PROSE_ROWS, d->n_context - 1), at = d->n_context - rows;
    wn_status st = wn_lab_feed(k->lab, q, d->context, at, err);
    for (; at < d->n_context && !st; at++) {
        memset(k->mark, 0, (size_t)k->lab->n_ctx);
        wn_rows_mark_near(k->mark, (int)at, o->sinks, o->recent);
        st = look(k, q, d->context[at], WN_AT_NEAR, false, err);
        k->counts[N_PROSE]++;
    }
    return st ? st : wn_lab_feed(k->lab, q, d->ask, d->n_ask - 1, err);
}

static wn_status read_answer(looking *k, wn_seq *q, const needle *d, wn_err *err)
{
    const wn_profile_opts *o = &k->s->o;
    const int32_t *value = d->context + d->value[0].from;
    int n = d->value[0].to - d->value[0].from;
    wn_status st = WN_OK;
    for (int j = 0; j < n && !st; j++) {
        memset(k->mark, 0, (size_t)k->lab->n_ctx);
        mark_stretches(k->mark, d->value, d->n_places, WN_AT_VALUE);
        mark_stretches(k->mark, d->span, d->n_places, WN_AT_SPAN);
        mark_copied(d, j, k->mark);
        wn_rows_mark_near(k->mark, wn_seq_n_tokens(q), o->sinks, o->recent);
        st = look(k, q, j ? value[j - 1] : d->ask[d->n_ask - 1],
                  WN_AT_VALUE | WN_AT_SPAN | WN_AT_COPIED, true, err);
        if (st) break;
        k->counts[N_ANSWERS]++;
        k->counts[N_ANSWERED] += wn_stat_argmax(wn_seq_logits(q), k->lab->n_vocab) == value[j];
    }
    return st;
}

/* A value that stands behind a token of its own for the blank gets it in the answer, too. */
static wn_status make_question(needle *d, const wn_lab *lab, const char *text, wn_err *err)
{
    char blank[4];
    int at = d->value[0].from - 1;
    size_t n = at >= 0 ? wn_token_text(lab->m, d->context[at], true, blank, sizeof blank) : 0;
    wn_status st = wn_lab_tokens(lab, text, false, &d->ask, &d->n_ask, err);
    if (st || n != 1 || *blank != ' ' || !*text || text[strlen(text) - 1] == ' ') return st;
    int32_t *more = wn_realloc(d->ask, (d->n_ask + 1) * sizeof *more);
    if (!more) return wn_fail(err, WN_ENOMEM, "profile: out of memory");
    d->ask = more;
    d->ask[d->n_ask++] = d->context[at];
    return WN_OK;
}

static wn_status make_needle(needle *d, const study *s, const wn_lab *lab, int i, wn_err *err)
{
    const wn_profile_opts *o = &s->o;
    const wn_task *task = wn_task_find(NEEDLE_TASKS[i % (int)WN_COUNT(NEEDLE_TASKS)]);
    /* never near the question */
    double far = 1 - (double)(o->recent + o->recent / 2) / o->context;
    wn_case c;
    wn_case_opts co = { .seed = o->seed * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)i,
                        .n_tokens = o->context, .depth = wn_eval_depth(i, o->n_needles) * far,
                        .count = wn_eval_count_tokens, .count_ctx = lab->m };
    *d = (needle){ 0 };
    wn_status st = task ? task->make(&c, o->phrases, &co, err)
                        : wn_fail(err, WN_EINVAL, "there is no needle task");
    if (st) return st;
    if (!(st = wn_lab_tokens(lab, c.context, true, &d->context, &d->n_context, err)) &&
        !(st = find_value(d, lab->m, c.turns[0].expect[0], err)))
        st = make_question(d, lab, c.turns[0].ask, err);
    wn_case_release(&c);
    int n = d->value[0].to - d->value[0].from;
    if (!st &&
        (!d->n_ask || d->n_context < 2 || d->n_context + d->n_ask + (size_t)n > (size_t)lab->n_ctx))
        st = wn_fail(err, WN_EFORMAT, "a needle of %zu tokens with a question of %zu", d->n_context,
                     d->n_ask);
    return st;
}

static wn_status run_needle(looking *k, int i, wn_err *err)
{
    needle d;
    wn_seq *q = NULL;
    wn_status st = make_needle(&d, k->s, k->lab, i, err);
    if (!st) st = wn_lab_seq(&q, k->lab, &k->s->w.rows[0], err);
    if (!st && !(st = read_question(k, q, &d, err))) st = read_answer(k, q, &d, err);
    wn_seq_close(q);
    wn_tokens_free(d.context);
    wn_tokens_free(d.ask);
    return st;
}

/* ---- repeats ------------------------------------------------------------------------------ */

/* `block` different plain tokens, COPIES times, behind what a text begins with. */
static wn_status make_repeats(const study *s, const wn_lab *lab, int i, int32_t **out, int *start,
                              int *block, wn_err *err)
{
    int32_t *first, *plain = WN_NEW_ARRAY(int32_t, lab->n_vocab),
                    *ids = WN_NEW_ARRAY(int32_t, lab->n_ctx);
    size_t n_first = 0;
    int n = 0;
    char buf[8];
    uint64_t seed = (s->o.seed + 1) * UINT64_C(0xbf58476d1ce4e5b9) + (uint64_t)i;
    wn_status st = plain && ids ? wn_lab_tokens(lab, "", true, &first, &n_first, err)
                                : wn_fail(err, WN_ENOMEM, "profile: out of memory");
    if (st) goto done;
    for (int32_t id = 0; id < lab->n_vocab; id++)
        if (wn_token_text(lab->m, id, false, buf, sizeof buf)) plain[n++] = id;
    if (n_first) memcpy(ids, first, sizeof *ids * n_first);
    wn_tokens_free(first);
    *start = (int)n_first;
    *block = WN_MIN((s->o.context - *start) / COPIES, n);
    if (*block < REPEAT_ROWS)
        st = wn_fail(err, WN_EINVAL, "%d plain tokens are too few to repeat", n);
    for (int j = 0; j < *block && !st; j++) {           /* drawn without putting back */
        int at = j + (int)(wn_sample_uniform(seed, j) * (n - j));
        int32_t id = plain[at];
        plain[at] = plain[j];
        plain[j] = id;
        for (int c = 0; c < COPIES; c++) ids[*start + c * *block + j] = id;
    }
done:
    wn_free(plain);
    if (st) wn_free(ids);
    *out = st ? NULL : ids;
    return st;
}

static wn_status run_repeats(looking *k, int i, wn_err *err)
{
    int32_t *ids;
    int start, block;
    wn_seq *q = NULL;
    wn_status st = make_repeats(k->s, k->lab, i, &ids, &start, &block, err);
    if (st) return st;
    int end = start + COPIES * block, at = end - REPEAT_ROWS;
    if (!(st = wn_lab_seq(&q, k->lab, &k->s->w.rows[0], err)))
        st = wn_lab_feed(k->lab, q, ids, (size_t)at, err);
    for (; at < end && !st; at++) {
        memset(k->mark, 0, (size_t)k->lab->n_ctx);
        wn_rows_mark_repeats(k->mark, at, start, block);
        st = look(k, q, ids[at], WN_AT_SAME | WN_AT_NEXT, false, err);
        k->counts[N_REPEATS]++;
    }
    wn_seq_close(q);
    wn_free(ids);
    return st;
}

/* ---- jobs ----------------------------------------------------------------------------------- */

static wn_status run_job(wn_eval_work *w, const wn_lab *lab, void *ctx, int job, double *values,
                         wn_job_desk *desk, wn_err *err)
{
    (void)desk;
    const study *s = ctx;
    size_t n = head_values(s), v_dim = (size_t)lab->m->hp.v_dim;
    looking k = { .s = s, .lab = lab, .sums = values, .lanes = values + n,
                  .layers = values + n + s->n_lanes,
                  .counts = values + n + s->n_lanes + s->n_layers };
    wn_status st;
    (void)w;
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

/* ---- from sums to a profile ------------------------------------------------------------------ */

static void head_scores(wn_head_scores *to, const wn_head_sums *s, const double *counts)
{
    double answers = WN_MAX(counts[N_ANSWERS], 1), prose = WN_MAX(counts[N_PROSE], 1),
           repeats = WN_MAX(counts[N_REPEATS], 1);
    *to = (wn_head_scores){
        .needle = (float)(s->needle / answers), .copy = (float)(s->copy / answers),
        .span = (float)(s->span / answers), .loss = (float)(s->loss / answers),
        .stream = (float)(s->stream / prose), .induction = (float)(s->induction / repeats),
        .echo = (float)(s->echo / repeats),
    };
}

static void classify(wn_head_scores *s)
{
    s->kind = (double)s->copy >= COPY_FROM ? WN_HEAD_RETRIEVAL
              : (double)s->stream >= STREAM_FROM ? WN_HEAD_STREAMING : WN_HEAD_MIXED;
}

/* Of a group the head that needs the past most speaks: the largest score, the least stream. */
static wn_head_scores reduce_group(const wn_head_scores *h, int group, double loss)
{
    wn_head_scores s = h[0];
    for (int i = 1; i < group; i++) {
        s.needle = WN_MAX(s.needle, h[i].needle);
        s.copy = WN_MAX(s.copy, h[i].copy);
        s.span = WN_MAX(s.span, h[i].span);
        s.induction = WN_MAX(s.induction, h[i].induction);
        s.echo = WN_MAX(s.echo, h[i].echo);
        s.stream = WN_MIN(s.stream, h[i].stream);
    }
    s.loss = (float)loss;
    return s;
}

static void fill_profile(wn_profile *p, const study *s, const double *sum)
{
    const double *lanes = sum + head_values(s), *layers = lanes + s->n_lanes,
                 *counts = layers + s->n_layers;
    int per_layer = s->n_lanes / s->n_layers, group = s->n_heads / per_layer;
    double answers = WN_MAX(counts[N_ANSWERS], 1);
    for (int h = 0; h < s->n_layers * s->n_heads; h++) {
        wn_head_sums one;
        memcpy(&one, sum + (size_t)h * WN_HEAD_SUMS, sizeof one);
        head_scores(&p->heads[h], &one, counts);
        classify(&p->heads[h]);
    }
    for (int l = 0; l < s->n_lanes; l++) {
        const wn_head_scores *first = &p->heads[l / per_layer * s->n_heads + l % per_layer * group];
        p->lanes[l] = reduce_group(first, group, lanes[l] / answers);
        classify(&p->lanes[l]);
    }
    for (int l = 0; l < s->n_layers; l++) p->layer_loss[l] = (float)(layers[l] / answers);
    p->how.answered = counts[N_ANSWERED] / answers;
}

static wn_status describe(wn_profile *p, const study *s, wn_err *err)
{
    const wn_profile_opts *o = &s->o;
    wn_model_info mi;
    wn_model_get_info(s->w.m, &mi);
    snprintf(p->model, sizeof p->model, "%.120s", mi.name && *mi.name ? mi.name : mi.architecture);
    wn_model_fingerprint(s->w.m, NULL, p->fingerprint);
    wn_profile_how *h = &p->how;
    double answered = h->answered;
    *h = (wn_profile_how){ .context = o->context, .n_needles = o->n_needles,
                           .n_repeats = o->n_repeats, .sinks = o->sinks, .recent = o->recent,
                           .seed = (int64_t)o->seed, .answered = answered, .copy_from = COPY_FROM,
                           .stream_from = STREAM_FROM };
    snprintf(h->numerics, sizeof h->numerics, "%s/%d", wn_kernels_get()->numerics,
             WN_ORDER_VERSION);
    if (strlen(o->family) >= sizeof h->phrases)
        return wn_fail(err, WN_EINVAL, "the template's name has more than %zu characters",
                       sizeof h->phrases - 1);
    strcpy(h->phrases, o->family);
    return WN_OK;
}

/* What the file would say: numbers with its digits, and its checksum. */
static wn_status as_written(wn_profile **p, wn_err *err)
{
    char *text;
    wn_profile *again;
    wn_status st = wn_profile_text(*p, &text, err);
    if (st) return st;
    if (!(st = wn_profile_parse(&again, text, strlen(text), err))) {
        wn_profile_close(*p);
        *p = again;
    }
    free(text);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static wn_status choose(study *s, const wn_profile_opts *o, wn_err *err)
{
    wn_profile_opts *x = &s->o;
    int train = s->w.m->hp.n_ctx_train;
    *x = *o;
    if (!x->context) x->context = WN_MIN(CONTEXT, train);
    if (!x->n_needles) x->n_needles = NEEDLES;
    if (!x->n_repeats) x->n_repeats = REPEATS;
    if (!x->sinks) x->sinks = SINKS;
    if (!x->recent) x->recent = WN_MIN(RECENT, x->context / 8);
    if (x->context < LEAST_CONTEXT || x->context > train)
        return wn_fail(err, WN_EINVAL,
                       "texts of %d tokens: expected %d to %d, what the model was trained for",
                       x->context, LEAST_CONTEXT, train);
    if (x->sinks + x->recent > x->context / 4)
        return wn_fail(err, WN_EINVAL,
                       "%d first and %d last tokens are too much of a text of %d to tell who looks "
                       "beyond them: "
                       "a quarter at most",
                       x->sinks, x->recent, x->context);
    for (int l = 0; l < s->w.m->map.n_lanes; l++)
        if (s->w.m->map.lanes[l].window)
            return wn_fail(err, WN_EUNSUPPORTED,
                           "a model with sliding-window layers cannot be profiled yet");
    return WN_OK;
}

/* A name for everything the sums depend on. */
static void make_key(const study *s, char key[40])
{
    XXH3_state_t *x = XXH3_createState();
    const wn_profile_opts *o = &s->o;
    uint8_t fp[16];
    size_t n;
    const char *hay = wn_phrases_haystack(o->phrases, &n);
    int64_t numbers[] = { o->context, o->n_needles, o->n_repeats,
                          o->sinks,   o->recent,    (int64_t)o->seed };
    XXH3_64bits_reset(x);
    wn_model_fingerprint(s->w.m, NULL, fp);
    XXH3_64bits_update(x, fp, sizeof fp);
    XXH3_64bits_update(x, wn_kernels_get()->numerics, strlen(wn_kernels_get()->numerics));
    XXH3_64bits_update(x, numbers, sizeof numbers);
    XXH3_64bits_update(x, o->family, strlen(o->family));
    XXH3_64bits_update(x, hay, n);
    snprintf(key, 40, "profile-%016llx", (unsigned long long)XXH3_64bits_digest(x));
    XXH3_freeState(x);
}

static wn_status run_jobs(study *s, wn_job *jobs, double *values, wn_err *err)
{
    int n = s->o.n_needles + s->o.n_repeats;
    for (int i = 0; i < n; i++) {
        bool needles = i < s->o.n_needles;
        snprintf(jobs[i].id, sizeof jobs[i].id, "%s:%d", needles ? "needle" : "repeat",
                 needles ? i : i - s->o.n_needles);
        jobs[i].n = s->per_job;
        jobs[i].values = values + (size_t)i * s->per_job;
    }
    s->w.what = "texts";
    wn_status st = wn_eval_jobs(&s->w, WN_MIN(s->o.context + ROOM, s->w.m->hp.n_ctx_train), jobs, n,
                                run_job, s, err);
    for (int i = 1; i < n && !st; i++)
        for (size_t j = 0; j < s->per_job; j++) values[j] += jobs[i].values[j];
    return st;
}

wn_status wn_profile_measure(wn_profile **out, wn_model *m, const wn_profile_opts *o, wn_err *err)
{
    wn_eval_opts eo = { .phrases = o->phrases, .mem = o->mem, .stop = o->stop,
                        .progress = o->progress, .progress_ctx = o->progress_ctx };
    wn_lab_row none;
    study s = { .w = { .m = m, .o = &eo, .rows = &none, .n_rows = 1, .every = WN_EVERY_DEFAULT },
                .n_layers = m->hp.n_layers, .n_heads = m->hp.n_heads, .n_lanes = m->map.n_lanes };
    wn_job *jobs = NULL;
    double *values = NULL;
    char key[40];
    *out = NULL;
    wn_status st = choose(&s, o, err);
    if (st || (st = wn_lab_row_init(&none, &(wn_eval_row){ .kv = "none" }, err))) return st;
    wn_eval_workers(&s.w, o->n_threads ? o->n_threads : wn_os_n_cpus());
    s.per_job = head_values(&s) + (size_t)s.n_lanes + (size_t)s.n_layers + N_COUNTS;
    make_key(&s, key);
    if ((st = wn_journal_open(&s.w.journal, o->journal, key, false, err))) return st;
    size_t n = (size_t)(s.o.n_needles + s.o.n_repeats);
    jobs = WN_NEW_ARRAY(wn_job, n);
    values = WN_NEW_ARRAY(double, n * s.per_job);
    if (!jobs || !values) st = wn_fail(err, WN_ENOMEM, "profile: out of memory");
    if (!st) st = run_jobs(&s, jobs, values, err);
    if (!st && !(st = wn_profile_new(out, s.n_layers, s.n_heads, s.n_lanes, err))) {
        fill_profile(*out, &s, values);
        if (!(st = describe(*out, &s, err))) st = as_written(out, err);
    }
    wn_journal_close(s.w.journal, !st);
    wn_free(jobs);
    wn_free(values);
    if (!st) return WN_OK;
    wn_profile_close(*out);
    *out = NULL;
    return st;
}
