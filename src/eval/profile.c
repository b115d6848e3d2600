/* eval/profile.c - which heads fetch and which stream: from texts to a profile, see profile.h.
 *
 * Texts are jobs: any thread may take one, a journal keeps what it gave, and what they gave is
 * summed in order. What a text is and what is looked at in it is in profile_texts.c and
 * profile_look.c. A profile is handed out as its file would say it, so that what was measured just
 * now and what was read again are the same.
 */
#include "eval/profile_study.h"

#include "base/alloc.h"
#include "base/os.h"
#include "eval/phrases.h"
#include "kernel/kernel.h"

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
    LEAST_CONTEXT = 256,
    ROOM = 64                           /* of a question and its answer, behind the context */
};
/* A head copies from a tenth of the tokens on (Wu et al., 2024, section 2.2). */
static const double COPY_FROM = 0.1, STREAM_FROM = 0.9;

/* ---- from sums to a profile ------------------------------------------------------------------ */

static void head_scores(wn_head_scores *to, const wn_head_sums *s, const double *counts)
{
    double answers = WN_MAX(counts[WN_N_ANSWERS], 1), prose = WN_MAX(counts[WN_N_PROSE], 1),
           repeats = WN_MAX(counts[WN_N_REPEATS], 1);
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

static void fill_profile(wn_profile *p, const wn_study *s, double *values)
{
    wn_study_sums sum = wn_study_sums_of(s, values);
    int per_layer = s->n_lanes / s->n_layers, group = s->n_heads / per_layer;
    double answers = WN_MAX(sum.counts[WN_N_ANSWERS], 1);
    for (int h = 0; h < s->n_layers * s->n_heads; h++) {
        head_scores(&p->heads[h], &sum.heads[h], sum.counts);
        classify(&p->heads[h]);
    }
    for (int l = 0; l < s->n_lanes; l++) {
        const wn_head_scores *first = &p->heads[l / per_layer * s->n_heads + l % per_layer * group];
        p->lanes[l] = reduce_group(first, group, sum.lanes[l] / answers);
        classify(&p->lanes[l]);
    }
    for (int l = 0; l < s->n_layers; l++) p->layer_loss[l] = (float)(sum.layers[l] / answers);
    p->how.answered = sum.counts[WN_N_ANSWERED] / answers;
}

static wn_status describe(wn_profile *p, const wn_study *s, wn_err *err)
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

static wn_status choose(wn_study *s, const wn_profile_opts *o, wn_err *err)
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
static void make_key(const wn_study *s, char key[40])
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

static wn_status run_jobs(wn_study *s, wn_job *jobs, double *values, wn_err *err)
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
                                wn_study_job, s, err);
    for (int i = 1; i < n && !st; i++)
        for (size_t j = 0; j < s->per_job; j++) values[j] += jobs[i].values[j];
    return st;
}

wn_status wn_profile_measure(wn_profile **out, wn_model *m, const wn_profile_opts *o, wn_err *err)
{
    wn_eval_opts eo = { .phrases = o->phrases, .mem = o->mem, .stop = o->stop,
                        .progress = o->progress, .progress_ctx = o->progress_ctx };
    wn_lab_row none;
    wn_study s = { .w = { .m = m, .o = &eo, .rows = &none, .n_rows = 1, .every = WN_EVERY_DEFAULT },
                .n_layers = m->hp.n_layers, .n_heads = m->hp.n_heads, .n_lanes = m->map.n_lanes };
    wn_job *jobs = NULL;
    double *values = NULL;
    char key[40];
    *out = NULL;
    wn_status st = choose(&s, o, err);
    if (st || (st = wn_lab_row_init(&none, &(wn_eval_row){ .kv = "none" }, err))) return st;
    wn_eval_workers(&s.w, o->n_threads ? o->n_threads : wn_os_n_cpus());
    s.per_job = wn_study_n_values(&s);
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
