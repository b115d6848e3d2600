/* policy/trace_parse.c - what the bytes of a trace say; see trace_parse.h.
 *
 * A trace comes from outside. A checksum finds damage, not intent, so every count is checked
 * against what is left of the record before anything is taken from it, and positions against
 * the order they must have. The arrays of lanes are not copied: they stay where they are in the
 * file. What is said of tokens (flags, spans, which are protected) is bits there, and gets
 * storage in the form that views have.
 */
#include "policy/trace_parse.h"
#include "base/alloc.h"

#include <string.h>

#include <xxhash.h>

enum { HEAD_FIXED = 44, LANE_BYTES = 24, STAT_BYTES = 28, RECORD_HEAD = 24, BODY_FIXED = 40 };
enum {
    MAX_LANES = 1 << 16,
    MAX_DIM = 1024,
    MAX_GROUP = 1024,
    MAX_QUERIES = 64,
    MAX_TEXT = 4096,
    MAX_TOKENS = 1 << 26
};
static const int64_t most_mask_bits = (int64_t)1 << 31;

/* ---- taking bytes ---------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *p;
    size_t left;
} cursor;

/* n units of 4 bytes, NULL when the record has fewer. */
static const void *take(cursor *c, uint64_t n)
{
    const void *p = c->p;
    if (n > c->left / 4) return NULL;
    c->p += 4 * n;
    c->left -= 4 * (size_t)n;
    return p;
}

static bool take_u32(cursor *c, uint32_t *v)
{
    const uint32_t *p = take(c, 1);
    if (p) *v = *p;
    return p != NULL;
}

static uint32_t u32_at(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static uint64_t u64_at(const void *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

wn_status wn_trace_bad(const wn_trace *t, wn_err *err, const char *what)
{
    return wn_fail(err, WN_EFORMAT, "decision %d (at byte %zu): %s", t->index + 1, t->d.offset,
                   what);
}

/* ---- the header ------------------------------------------------------------------------------ */

static wn_status read_lanes(wn_trace *t, const uint8_t *p, wn_err *err)
{
    wn_trace_head *h = &t->head;
    int layer = 0;
    for (int l = 0; l < h->n_lanes; l++, p += LANE_BYTES) {
        uint32_t f[6];
        memcpy(f, p, sizeof f);
        if (f[0] >= (uint32_t)h->n_layers || (int)f[0] < layer || f[1] > MAX_LANES || !f[2] ||
            f[2] > MAX_GROUP || !f[3] || f[3] > MAX_DIM || !f[4] || f[4] > MAX_DIM || f[5] > 1)
            return wn_fail(err, WN_EFORMAT,
                           "lane %d: layer %u, head %u, %u query heads, %u and %u channels", l,
                           f[0], f[1], f[2], f[3], f[4]);
        for (; layer < (int)f[0]; layer++) t->layer_first[layer + 1] = l;
        t->blank[l] = (wn_view_lane){ .layer = (int32_t)f[0], .head = (int32_t)f[1],
                                      .group = (int32_t)f[2], .k_dim = (int32_t)f[3],
                                      .v_dim = (int32_t)f[4], .still = f[5] != 0 };
        if (h->rope_dims > (int32_t)f[3])
            return wn_fail(err, WN_EFORMAT, "%d rotated channels of %u", h->rope_dims, f[3]);
    }
    for (; layer < h->n_layers; layer++) t->layer_first[layer + 1] = h->n_lanes;
    return WN_OK;
}

static wn_status read_stats(wn_trace *t, const uint8_t *p, uint32_t n, wn_err *err)
{
    for (uint32_t i = 0; i < n; i++, p += STAT_BYTES) {
        wn_stat *s = &t->stats[i];
        uint32_t f[7];
        memcpy(f, p, sizeof f);
        if (f[0] >= WN_STAT_KINDS || f[1] > WN_REDUCE_MAX || f[4] > 3 || f[5] > INT32_MAX)
            return wn_fail(err, WN_EFORMAT, "statistic %u: kind %u, reduced by %u, near %u", i,
                           f[0], f[1], f[5]);
        *s = (wn_stat){ .kind = (wn_stat_kind)f[0], .reduce = (wn_reduce)f[1], .even = f[4] & 1,
                        .near = (int)f[5],
                       .probe = f[4] >> 1 };
        memcpy(&s->decay, f + 2, 4);
        memcpy(&s->threshold, f + 3, 4);
        memcpy(&s->within, f + 6, 4);
    }
    return WN_OK;
}

wn_status wn_trace_parse_head(wn_trace *t, wn_err *err)
{
    wn_trace_head *h = &t->head;
    if (t->n < HEAD_FIXED || memcmp(t->data, "WINNOWTR", 8))
        return wn_fail(err, WN_EFORMAT, "not a winnow trace");
    uint32_t f[9];
    memcpy(f, t->data + 8, sizeof f);
    if (f[0] != WN_TRACE_VERSION)
        return wn_fail(err, WN_EUNSUPPORTED, "trace version %u, this program reads version %d",
                       f[0], WN_TRACE_VERSION);
    if (f[2] > MAX_LANES || f[3] > MAX_LANES || !f[2] || !f[3] || f[4] > MAX_TEXT ||
        f[5] > MAX_TEXT || f[6] > MAX_DIM || f[6] % 2 || f[8] > WN_STATS_MAX)
        return wn_fail(
            err, WN_EFORMAT,
            "%u layers, %u lanes, texts of %u and %u bytes, %u rotated channels, %u statistics",
            f[2], f[3], f[4], f[5], f[6], f[8]);
    size_t lanes = (size_t)f[3] * LANE_BYTES + (size_t)f[8] * STAT_BYTES,
           rates = (size_t)f[6] / 2 * 8, policy = (f[4] + 3u) & ~3u, model = (f[5] + 3u) & ~3u;
    size_t n = HEAD_FIXED + lanes + rates + policy + model;
    if (t->n < n + 8) return wn_fail(err, WN_EFORMAT, "the file ends within its header");
    if (u64_at(t->data + n) != XXH3_64bits(t->data, n))
        return wn_fail(err, WN_EFORMAT, "the header's checksum does not match");
    t->blank = WN_NEW_ARRAY(wn_view_lane, f[3]);
    t->lanes = WN_NEW_ARRAY(wn_view_lane, f[3]);
    t->places = WN_NEW_ARRAY(wn_trace_place, f[3]);
    t->verdicts = WN_NEW_ARRAY(wn_verdict, f[3]);
    t->sums = WN_NEW_ARRAY(const float *, f[3]);
    t->layer_first = WN_NEW_ARRAY(int, f[2] + 1);
    t->rates = WN_NEW_ARRAY(double, f[6] / 2 + 1);
    t->text = WN_NEW_ARRAY(char, f[4] + f[5] + 2);
    if (!t->blank || !t->lanes || !t->places || !t->verdicts || !t->sums || !t->layer_first ||
        !t->rates || !t->text)
        return wn_fail(err, WN_ENOMEM, "out of memory");
    memcpy(t->rates, t->data + HEAD_FIXED + lanes, rates);
    memcpy(t->text, t->data + HEAD_FIXED + lanes + rates, f[4]);
    memcpy(t->text + f[4] + 1, t->data + HEAD_FIXED + lanes + rates + policy, f[5]);
    *h = (wn_trace_head){ .policy = t->text, .model = t->text + f[4] + 1, .n_layers = (int32_t)f[2],
                          .n_lanes = (int32_t)f[3], .lanes = t->blank, .rope_dims = (int32_t)f[6],
                          .rope_neox = f[7] != 0, .rope_rate = t->rates, .rows = f[1] != 0,
                          .stats = t->stats, .n_stats = (int32_t)f[8] };
    t->at = n + 8;
    wn_status st = read_lanes(t, t->data + HEAD_FIXED, err);
    return st ? st : read_stats(t, t->data + HEAD_FIXED + (size_t)f[3] * LANE_BYTES, f[8], err);
}

/* ---- a decision: where things lie ------------------------------------------------------------ */

wn_status wn_trace_parse_frame(wn_trace *t, size_t *body, wn_err *err)
{
    size_t left = t->n - t->at;
    const uint8_t *p = t->data + t->at;
    *body = 0;
    if (left < RECORD_HEAD) {
        t->torn = left;
        return WN_OK;
    }
    if (memcmp(p, "DCSN", 4) || u32_at(p + 4) || u64_at(p + 16) != XXH3_64bits(p, 16))
        return wn_trace_bad(t, err, "the head of the record is damaged");
    uint64_t n = u64_at(p + 8);
    if (n % 4 || !n) return wn_trace_bad(t, err, "its length makes no sense");
    if (n > left - RECORD_HEAD || left - RECORD_HEAD - n < 8) {
        t->torn = left;
        return WN_OK;
    }
    *body = (size_t)n;
    if (u64_at(p + RECORD_HEAD + n) != XXH3_64bits(p + RECORD_HEAD, (size_t)n))
        return wn_trace_bad(t, err, "the checksum does not match: the file is damaged");
    return WN_OK;
}

static bool find_positions(const wn_trace *t, cursor *c, wn_trace_place *o)
{
    uint32_t p = (uint32_t)t->d.view.n_tokens, n_runs, end = 0, sum = 0;
    if (o->what & WN_LANE_BITMAP) {
        uint32_t words = (p + 31) / 32;
        if (!(o->bitmap = take(c, words))) return false;
        for (uint32_t i = 0; i < words; i++) sum += (uint32_t)__builtin_popcount(o->bitmap[i]);
        return sum == (uint32_t)o->n && (p % 32 == 0 || !(o->bitmap[words - 1] >> p % 32));
    }
    if (!(o->runs = take(c, 1))) return false;
    n_runs = *o->runs;
    const uint32_t *run = take(c, 2 * (uint64_t)n_runs);
    if (!run) return false;
    for (uint32_t i = 0; i < n_runs; i++, run += 2) {
        if (run[0] < end || run[0] >= p || !run[1] || run[1] > p - run[0]) return false;
        end = run[0] + run[1];
        sum += run[1];
    }
    return sum == (uint32_t)o->n;
}

static bool find_seen(const wn_trace_decision *d, cursor *c, int n_stats, const wn_view_lane *l,
                      wn_trace_place *o)
{
    uint64_t n = (uint64_t)o->n, group = (uint64_t)l->group, kd = (uint64_t)l->k_dim,
             vd = (uint64_t)l->v_dim;
    if (!n) return true;
    return (!(d->has & WN_TRACE_SUMS) || (o->sums = take(c, group * n))) &&
           (!(d->has & WN_TRACE_STATS) || (o->stats = take(c, (uint64_t)n_stats * n))) &&
           (!(d->has & WN_TRACE_QUERIES) ||
            (o->queries = take(c, (uint64_t)d->n_queries * group * kd))) &&
           (!(d->has & WN_TRACE_KEYS) || (o->keys = take(c, n * kd))) &&
           (!(d->has & WN_TRACE_VALUES) || (o->values = take(c, n * vd))) &&
           (!(d->has & WN_TRACE_OUTPUTS) || (o->outputs = take(c, n)));
}

static bool find_merges(cursor *c, wn_trace_place *o)
{
    uint32_t n, n_src;
    if (!(o->merges = take(c, 1))) return false;
    for (n = *o->merges; n; n--) {
        const uint32_t *m = take(c, 4);
        if (!m) return false;
        n_src = m[1];
        if (!n_src || n_src > INT32_MAX / 4 || !take(c, 3 * (uint64_t)n_src)) return false;
    }
    return true;
}

static bool find_entries(cursor *c, const uint32_t **out, uint64_t width)
{
    return (*out = take(c, 1)) && take(c, width * **out);
}

/* Slots stand for a token at least, and whoever merges them may add their counts up. */
static bool add_up(const int32_t *count, uint32_t n)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (count[i] < 1) return false;
        sum += count[i];
    }
    return sum <= INT32_MAX;
}

static const char *find_lane(wn_trace *t, cursor *c, int lane)
{
    wn_trace_decision *d = &t->d;
    wn_view_lane *l = &t->lanes[lane];
    wn_trace_place *o = &t->places[lane];
    uint32_t n, keep;
    *o = (wn_trace_place){ 0 };
    *l = t->blank[lane];
    if (!take_u32(c, &o->what) || !take_u32(c, &n)) return "a lane is cut short";
    if (o->what & ~(uint32_t)WN_LANE_KNOWN || n > (uint32_t)d->view.n_tokens)
        return "a lane holds more than there are tokens";
    l->n = o->n = (int32_t)n;
    if (!find_positions(t, c, o)) return "a lane's positions are not in order";
    if (o->what & WN_LANE_COUNTS && !(l->count = take(c, n))) return "counts are cut short";
    if (l->count && !add_up(l->count, n))
        return "a slot that stands for no token, or slots for more than a text has";
    if (o->what & WN_LANE_BIASES && !(l->bias = take(c, n))) return "biases are cut short";
    if (o->what & WN_LANE_LOW && !(o->low = take(c, ((uint64_t)n + 31) / 32)))
        return "flags of lower formats are cut short";
    if (!find_seen(d, c, t->head.n_stats, l, o)) return "statistics or rows are cut short";
    if (o->what & WN_LANE_SCORED) {
        if (!take_u32(c, &keep) || !(t->verdicts[lane].score = take(c, n)))
            return "scores are cut short";
        t->verdicts[lane].keep = keep;
    }
    if (o->what & WN_LANE_MASK && !(o->mask = take(c, ((uint64_t)n + 31) / 32)))
        return "a keep mask is cut short";
    if (o->what & WN_LANE_DEMOTE && !(o->demote = take(c, ((uint64_t)n + 31) / 32)))
        return "demotions are cut short";
    if ((o->what & WN_LANE_MERGES && !find_merges(c, o)) ||
        (o->what & WN_LANE_SET_BIASES && !find_entries(c, &o->biases, 2)) ||
        (o->what & WN_LANE_SHIFTS && !find_entries(c, &o->shifts, 3)))
        return "the plan is cut short";
    return NULL;
}

static wn_status read_flags(wn_trace *t, cursor *c, wn_err *err)
{
    uint32_t n = (uint32_t)t->d.view.n_tokens, words = (n + 31) / 32;
    wn_free(t->flags);
    if (!(t->flags = WN_NEW_ARRAY(uint8_t, n)))
        return wn_fail(err, WN_ENOMEM, "trace: out of memory");
    for (unsigned f = WN_FLAG_SPECIAL; f <= WN_FLAG_PUNCTUATION; f *= 2) {
        const uint32_t *bits = take(c, words);
        if (!bits) return wn_trace_bad(t, err, "flags of tokens are cut short");
        for (uint32_t i = 0; i < n; i++) t->flags[i] |= (uint8_t)((bits[i / 32] >> i % 32 & 1) * f);
    }
    t->d.view.flags = t->flags;
    return WN_OK;
}

static wn_status read_spans(wn_trace *t, cursor *c, wn_err *err)
{
    uint32_t n = (uint32_t)t->d.view.n_tokens, words = (n + 31) / 32;
    const uint32_t *in = take(c, words), *begins = take(c, words);
    int32_t last = 0;
    wn_free(t->spans);
    t->spans = NULL;
    if (!in || !begins) return wn_trace_bad(t, err, "spans of the text are cut short");
    if (!(t->spans = WN_NEW_ARRAY(int32_t, n)))
        return wn_fail(err, WN_ENOMEM, "trace: out of memory");
    for (uint32_t i = 0; i < n; i++)
        t->spans[i] = wn_span_number(&last, i ? t->spans[i - 1] : 0, in[i / 32] >> i % 32 & 1,
                                     begins[i / 32] >> i % 32 & 1);
    t->d.view.spans = t->spans;
    return WN_OK;
}

static wn_status find_body(wn_trace *t, cursor *c, wn_err *err)
{
    wn_trace_decision *d = &t->d;
    const uint32_t *f = take(c, BODY_FIXED / 4);
    int64_t slots = 0;
    if (!f) return wn_trace_bad(t, err, "cut short");
    if (!f[0] || f[0] > MAX_TOKENS || f[1] & ~(uint32_t)WN_TRACE_ALL || f[3] > MAX_QUERIES ||
        f[4] > MAX_QUERIES || f[3] > f[0] || f[4] > f[0] || f[5] > f[0] ||
        (f[1] & WN_TRACE_SUMS && !f[3]) || (f[1] & WN_TRACE_QUERIES && !f[4]))
        return wn_trace_bad(t, err, "its sizes make no sense");
    if ((int64_t)f[0] * t->head.n_lanes > most_mask_bits || (int64_t)f[0] > t->max_slots)
        return wn_fail(err, WN_ELIMIT,
                       "decision %d: %u tokens in %d lanes are more than this program reads",
                       t->index + 1, f[0], t->head.n_lanes);
    d->view.n_tokens = (int32_t)f[0];
    d->has = f[1];
    d->asked = f[2];
    d->view.window = (int32_t)f[3];
    d->n_queries = d->view.held = (int32_t)f[4];
    d->view.mark = (int32_t)f[5];
    memcpy(&d->slot_bytes, f + 6, 8);
    d->view.budget = (int64_t)u64_at(f + 8);
    if (!(d->slot_bytes > 0)) return wn_trace_bad(t, err, "a slot of no bytes");
    const void *low = d->has & WN_TRACE_LOW ? take(c, 2) : NULL;
    d->view.low_bytes = 0;
    if (low) memcpy(&d->view.low_bytes, low, 8);
    if (d->has & WN_TRACE_LOW && !(d->view.low_bytes > 0))
        return wn_trace_bad(t, err, "a slot of no bytes");
    const uint32_t *protect = d->has & WN_TRACE_PROTECT ? take(c, ((uint64_t)f[0] + 31) / 32)
                                                        : NULL;
    if (d->has & WN_TRACE_PROTECT) {
        if (!protect) return wn_trace_bad(t, err, "protected positions are cut short");
        wn_free(t->protect);
        if (!(t->protect = WN_NEW_ARRAY(uint64_t, f[0] / 64 + 1)))
            return wn_fail(err, WN_ENOMEM, "trace: out of memory");
        memcpy(t->protect, protect, ((size_t)f[0] + 31) / 32 * 4);
        d->view.protect = t->protect;
    }
    wn_status st = d->has & WN_TRACE_FLAGS ? read_flags(t, c, err) : WN_OK;
    if (!st && d->has & WN_TRACE_SPANS) st = read_spans(t, c, err);
    if (st) return st;
    memset(t->verdicts, 0, sizeof *t->verdicts * (size_t)t->head.n_lanes);
    for (int l = 0; l < t->head.n_lanes; l++) {
        const char *why = find_lane(t, c, l);
        if (why)
            return wn_fail(err, WN_EFORMAT, "decision %d (at byte %zu), lane %d: %s", t->index + 1,
                           d->offset, l, why);
        slots += t->lanes[l].n;
    }
    if (slots > t->max_slots)
        return wn_fail(err, WN_ELIMIT, "decision %d: %lld slots are more than this program reads",
                       t->index + 1, (long long)slots);
    return c->left ? wn_trace_bad(t, err, "more bytes than it needs") : WN_OK;
}

wn_status wn_trace_parse_body(wn_trace *t, size_t body, wn_err *err)
{
    cursor c = { t->data + t->at + RECORD_HEAD, body };
    t->d.bytes = RECORD_HEAD + body + 8;
    return find_body(t, &c, err);
}
