/* sample/sample.c - picks a token from 150 thousand without sorting them.
 *
 * Every cut (top-k, top-p, min-p) keeps a prefix of one ranking, and the draw needs one place
 * in it, so almost nothing has to be sorted. Candidates are dealt into bands by how far
 * they are below the best; bands are in order, inside a band anything goes:
 *
 *     a   | band 0 | band 1 | ...                   | band 255: 32 and more below |
 *
 * A running sum over ranks skips whole bands and sorts only the one in which it reaches
 * its goal: once for top-p, once for the draw. The usual call has top-k 40, found with a
 * heap of the 40 best: it passes over the vocabulary three times and ranks a few dozen.
 *
 * Weights are exp() of the kernel tables, the same bits in each, and sums are doubles in a
 * fixed order, so a draw does not depend on the machine's libm.
 */
#include "sample/sample.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kernel/exp_scalar.h"
#include "kernel/vec.h"

typedef struct {
    float logit;
    int32_t id;
} cand;

enum { N_BANDS = 256 };
#define BANDS_PER_LOGIT 8.0f

struct wn_sampler {
    wn_sampling opts;        /* .bias points to our copy */
    wn_logit_bias *bias;
    int n_vocab;
    bool penalize;
    float *logit;               /* (n_vocab) with bias and penalties */
    float *weight;              /* (n_vocab) */
    cand *found, *cand;         /* (n_vocab) as found, and dealt into bands */
    int band[N_BANDS + 1];      /* where each begins in cand, and the end */
    int32_t *count;             /* (n_vocab) occurrences in the window; zero between calls */
};

wn_sampling wn_sampling_defaults(void)
{
    return (wn_sampling){ .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f,
                             .repeat_penalty = 1.0f, .penalty_last_n = 64 };
}

/* ---- open ------------------------------------------------------------------------- */

static wn_status check_opts(const wn_sampling *o, int n_vocab, wn_err *err)
{
    const struct { const char *name; float v, min, max; } range[] = {
        { "temperature", o->temperature, -FLT_MAX, FLT_MAX },
        { "top-p", o->top_p, 0, 1 },
        { "min-p", o->min_p, 0, 1 },
        { "repeat-penalty", o->repeat_penalty, 1e-3f, 1e3f },
        { "presence-penalty", o->presence_penalty, -1e6f, 1e6f },
        { "frequency-penalty", o->frequency_penalty, -1e6f, 1e6f },
    };
    if (n_vocab <= 0)
        return wn_fail(err, WN_EINVAL, "sampling: a vocabulary of %d tokens", n_vocab);
    for (size_t i = 0; i < WN_COUNT(range); i++)
        if (!(range[i].v >= range[i].min && range[i].v <= range[i].max))
            return wn_fail(err, WN_EINVAL, "%s %g is not between %g and %g", range[i].name,
                           (double)range[i].v, (double)range[i].min, (double)range[i].max);
    if (o->penalty_last_n < -1)
        return wn_fail(err, WN_EINVAL,
                       "repeat-last-n %d is neither a number of tokens nor -1 (all)",
                       o->penalty_last_n);
    for (int i = 0; i < o->n_bias; i++) {
        const wn_logit_bias *b = &o->bias[i];
        if (b->id < 0 || b->id >= n_vocab)
            return wn_fail(err, WN_EINVAL,
                           "logit bias for token %d: the vocabulary has tokens 0 to %d", (int)b->id,
                           n_vocab - 1);
        if (!(b->bias <= 1e6f && (b->bias >= -1e6f || b->bias == -INFINITY)))
            return wn_fail(err, WN_EINVAL,
                           "logit bias %g for token %d is not between -1e6 and 1e6 or -inf",
                           (double)b->bias, (int)b->id);
    }
    return WN_OK;
}

wn_status wn_sampler_open(wn_sampler **out, const wn_sampling *opts, int n_vocab, wn_err *err)
{
    wn_status st;
    wn_sampler *s;
    *out = NULL;
    if ((st = check_opts(opts, n_vocab, err))) return st;
    s = WN_NEW(wn_sampler);
    if (!s) return wn_fail(err, WN_ENOMEM, "sampling: out of memory");
    s->opts = *opts;
    s->n_vocab = n_vocab;
    s->penalize = opts->penalty_last_n != 0 && (opts->repeat_penalty != 1.0f ||
                  opts->presence_penalty != 0.0f || opts->frequency_penalty != 0.0f);
    s->logit = WN_NEW_ARRAY(float, n_vocab);
    s->weight = WN_NEW_ARRAY(float, n_vocab);
    s->found = WN_NEW_ARRAY(cand, n_vocab);
    s->cand = WN_NEW_ARRAY(cand, n_vocab);
    s->count = WN_NEW_ARRAY(int32_t, n_vocab);
    s->bias = WN_NEW_ARRAY(wn_logit_bias, opts->n_bias > 0 ? opts->n_bias : 1);
    if (!s->logit || !s->weight || !s->found || !s->cand || !s->count || !s->bias) {
        wn_sampler_close(s);
        return wn_fail(err, WN_ENOMEM, "sampling: out of memory for a vocabulary of %d tokens",
                       n_vocab);
    }
    for (int i = 0; i < opts->n_bias; i++) s->bias[i] = opts->bias[i];
    s->opts.bias = s->bias;
    *out = s;
    return WN_OK;
}

void wn_sampler_close(wn_sampler *s)
{
    if (!s) return;
    wn_free(s->logit);
    wn_free(s->weight);
    wn_free(s->found);
    wn_free(s->cand);
    wn_free(s->count);
    wn_free(s->bias);
    wn_free(s);
}

/* ---- logits: check, bias, penalties ----------------------------------------------- */

/* Copies the logits; the first that is NaN or +INFINITY is an error. The loop without a
 * way out is what compilers vectorise; the search runs only when something is wrong. */
static wn_status take_logits(wn_sampler *s, const float *logits, wn_err *err)
{
    int bad = 0;
    for (int i = 0; i < s->n_vocab; i++) {
        s->logit[i] = logits[i];
        bad |= !(logits[i] <= FLT_MAX);
    }
    for (int i = 0; bad && i < s->n_vocab; i++)
        if (!(logits[i] <= FLT_MAX))
            return wn_fail(err, WN_EINVAL,
                           "the logit of token %d is %g: the model's numbers overflow or "
                           "its weights are damaged",
                           i, (double)logits[i]);
    return WN_OK;
}

static wn_status apply_penalties(wn_sampler *s, const int32_t *history, int n, wn_err *err)
{
    const wn_sampling *o = &s->opts;
    int from = o->penalty_last_n > 0 && n > o->penalty_last_n ? n - o->penalty_last_n : 0;
    for (int i = from; i < n; i++)
        if (history[i] < 0 || history[i] >= s->n_vocab)
            return wn_fail(err, WN_EINVAL,
                           "token %d at position %d: the vocabulary has tokens 0 to %d",
                           (int)history[i], i, s->n_vocab - 1);
    for (int i = from; i < n; i++) s->count[history[i]]++;
    for (int i = from; i < n; i++) {
        int32_t id = history[i];
        float v = s->logit[id];
        if (!s->count[id]) continue;                    /* done when it was first met */
        v = v <= 0.0f ? v * o->repeat_penalty : v / o->repeat_penalty;
        v -= (float)s->count[id] * o->frequency_penalty + o->presence_penalty;
        s->logit[id] = v < FLT_MAX ? v : FLT_MAX;
        s->count[id] = 0;
    }
    return WN_OK;
}

/* ---- candidates ------------------------------------------------------------------- */

static inline bool better(cand x, cand y)
{
    return x.logit > y.logit || (x.logit == y.logit && x.id < y.id);
}

/* Restores a heap of n, the worst on top, below slot i. */
static void sift(cand *a, int n, int i)
{
    cand x = a[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && better(a[child], a[child + 1])) child++;
        if (!better(x, a[child])) break;
        a[i] = a[child];
    }
    a[i] = x;
}

static void heapify(cand *a, int n)
{
    for (int i = n / 2; i-- > 0;) sift(a, n, i);
}

/* Best first: the worst leaves the heap and goes to its end. */
static void sort(cand *a, int n)
{
    heapify(a, n);
    for (int last = n - 1; last > 0; last--) {
        cand worst = a[0];
        a[0] = a[last];
        a[last] = worst;
        sift(a, last, 0);
    }
}

/* The k best. A later token enters only with a larger logit than the worst of those held:
 * among equals the lower id, met first, stays. */
static int find_best(wn_sampler *s, int k)
{
    cand *a = s->found;
    int n = 0, i = 0;
    for (; i < s->n_vocab && n < k; i++)
        if (s->logit[i] > -INFINITY) a[n++] = (cand){ s->logit[i], i };
    if (n < k) return n;
    heapify(a, n);
    for (float worst = a[0].logit; i < s->n_vocab; i++) {
        if (!(s->logit[i] > worst)) continue;
        a[0] = (cand){ s->logit[i], i };
        sift(a, n, 0);
        worst = a[0].logit;
    }
    return n;
}

/* All that can be sampled and have at least the logit `low`. */
static int find_from(wn_sampler *s, float low)
{
    int n = 0;
    for (int i = 0; i < s->n_vocab; i++)
        if (s->logit[i] >= low && s->logit[i] > -INFINITY) s->found[n++] = (cand){ s->logit[i], i };
    return n;
}

static int drop_below(wn_sampler *s, int n, float low)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (s->found[i].logit >= low) s->found[kept++] = s->found[i];
    return kept;
}

static inline int band_of(float logit, float top)
{
    float b = (top - logit) * BANDS_PER_LOGIT;
    return b < (float)(N_BANDS - 1) ? (int)b : N_BANDS - 1;
}

/* Deals the n candidates found into bands. */
static void deal(wn_sampler *s, int n, float top)
{
    int next[N_BANDS] = { 0 };
    for (int i = 0; i < n; i++) next[band_of(s->found[i].logit, top)]++;
    for (int b = 0, at = 0; b < N_BANDS; b++) {
        s->band[b] = at;
        at += next[b];
        next[b] = s->band[b];
    }
    s->band[N_BANDS] = n;
    for (int i = 0; i < n; i++) s->cand[next[band_of(s->found[i].logit, top)]++] = s->found[i];
}

/* ---- weights and the draw ---------------------------------------------------------- */

/* Turns s->weight[0..n) into exp() of it; their sum, in eight chains of doubles (one would
 * wait for itself). */
static double exp_and_sum(wn_sampler *s, int n)
{
    double c[8] = { 0 };
    wn_kernels_get()->vec->exp_sub(s->weight, s->weight, 0.0f, n);
    for (int i = 0; i < n; i++) c[i & 7] += (double)s->weight[i];
    return ((c[0] + c[4]) + (c[2] + c[6])) + ((c[1] + c[5]) + (c[3] + c[7]));
}

static double weigh(wn_sampler *s, const cand *a, int n, float top, float inv_temp)
{
    for (int i = 0; i < n; i++) s->weight[i] = (a[i].logit - top) * inv_temp;
    return exp_and_sum(s, n);
}

static double weigh_vocab(wn_sampler *s, float top)
{
    for (int i = 0; i < s->n_vocab; i++) s->weight[i] = s->logit[i] - top;
    return exp_and_sum(s, s->n_vocab);
}

/* The rank at which the running sum of the first n weights (as weigh() left them) reaches
 * `goal`. Its band is sorted; what lies before it and after it stays there. Rounding may
 * leave the sum a hair short at the very end: then the end of the last band with weight. */
static int reach(wn_sampler *s, int n, float top, float inv_temp, double goal)
{
    double before = 0.0;
    int rank = 0;
    for (int b = 0; b < N_BANDS && s->band[b] < n; b++) {
        int from = s->band[b], to = WN_MIN(s->band[b + 1], n);
        double in_band = 0.0;
        for (int i = from; i < to; i++) in_band += (double)s->weight[i];
        if (before + in_band < goal || from == to) {
            before += in_band;
            if (in_band > 0.0) rank = to - 1;
            continue;
        }
        sort(s->cand + from, s->band[b + 1] - from);
        for (int i = from; i < to; i++) {
            float w = wn_exp_1((s->cand[i].logit - top) * inv_temp);
            before += (double)w;
            if (w > 0.0f) rank = i;
            if (before >= goal) return i;
        }
    }
    return rank;
}

double wn_sample_uniform(uint64_t seed, int64_t position)
{
    /* Two rounds of the splitmix64 finaliser, the second keyed with the first: neighbouring
     * seeds and neighbouring positions give unrelated numbers. */
    uint64_t x = seed + 0x9e3779b97f4a7c15u;
    for (int round = 0; round < 2; round++) {
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        x ^= x >> 31;
        if (round == 0) x += ((uint64_t)position + 1) * 0x9e3779b97f4a7c15u;
    }
    return (double)(x >> 11) * 0x1p-53;
}

/* The first of the ranking; -1 when no token can be. */
static int32_t find_first(const wn_sampler *s)
{
    float top = -INFINITY;
    int32_t id = -1;
    for (int i = 0; i < s->n_vocab; i++)
        if (s->logit[i] > top) top = s->logit[i], id = i;
    return id;
}

wn_status wn_sampler_pick(wn_sampler *s, const float *logits, const int32_t *history, int n,
                          int32_t *id, wn_err *err)
{
    const wn_sampling *o = &s->opts;
    wn_status st;
    *id = -1;
    if ((st = take_logits(s, logits, err))) return st;
    for (int i = 0; i < o->n_bias; i++) s->logit[o->bias[i].id] += o->bias[i].bias;
    if (s->penalize && (st = apply_penalties(s, history, n, err))) return st;

    int32_t first = find_first(s);
    if (first < 0)
        return wn_fail(err, WN_EINVAL, "none of %d tokens can be sampled: every logit is -inf",
                       s->n_vocab);
    if (o->temperature <= 0.0f || o->top_k == 1) {
        *id = first;
        return WN_OK;
    }

    float top = s->logit[first], inv_temp = WN_MIN(1.0f / o->temperature, FLT_MAX);
    float low = o->min_p > 0.0f ? top + logf(o->min_p) : -INFINITY;
    bool some = o->top_k > 0 && o->top_k < s->n_vocab, nucleus = o->top_p < 1.0f;
    double enough = 0.0;
    /* With top-k the nucleus is a share of the k best, else of the vocabulary; what min-p
     * drops counts toward either. */
    int n_kept = some ? find_best(s, o->top_k) : find_from(s, low);
    if (nucleus)
        enough = (double)o->top_p *
                 (some ? weigh(s, s->found, n_kept, top, 1.0f) : weigh_vocab(s, top));
    if (some) n_kept = drop_below(s, n_kept, low);
    deal(s, n_kept, top);
    if (nucleus) {
        weigh(s, s->cand, n_kept, top, 1.0f);
        n_kept = reach(s, n_kept, top, 1.0f, enough) + 1;
    }
    double total = weigh(s, s->cand, n_kept, top, inv_temp);
    *id = s->cand[reach(s, n_kept, top, inv_temp, wn_sample_uniform(o->seed, n) * total)].id;
    return WN_OK;
}
