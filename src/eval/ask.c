/* eval/ask.c - asking a row, and scoring what it says.
 *
 *     agnostic   context | mark | ask  -> answer, after, ask -> answer ...
 *     aware      context   ask | mark  -> answer, after, ask | mark -> answer ...
 *
 * The full cache reads a context once; rows that decide at marks only start as its forks
 * (agnostic: at the end of the context; aware: at the end of the first question). Rows that
 * heed no marks are the same run either way, and run once.
 */
#include "eval/ask.h"

#include "base/alloc.h"
#include "eval/stats.h"

#include <math.h>
#include <string.h>

/* ---- answers -------------------------------------------------------------------------- */

typedef struct {
    char *text;
    size_t n, cap;
} answer;

static bool append(answer *a, const char *s, size_t n)
{
    if (a->n + n + 1 > a->cap) {
        size_t cap = 2 * (a->n + n + 1);
        char *t = wn_realloc(a->text, cap);
        if (!t) return false;
        a->text = t;
        a->cap = cap;
    }
    memcpy(a->text + a->n, s, n);
    a->n += n;
    a->text[a->n] = '\0';
    return true;
}

static bool stopped(answer *a, const char *stop)
{
    char *at = stop && *stop && a->n ? strstr(a->text, stop) : NULL;
    if (!at) return false;
    *at = '\0';
    a->n = (size_t)(at - a->text);
    return true;
}

/* Greedy, up to the turn's max_new tokens, its stop text or the end token. */
static wn_status write_answer(const wn_lab *lab, wn_seq *s, const wn_turn *t, answer *a,
                              wn_err *err)
{
    wn_text *text;
    wn_status st = wn_text_open(&text, lab->m, 0, err);
    size_t n;
    a->n = 0;
    if (st) return st;
    if (!append(a, "", 0)) st = wn_fail(err, WN_ENOMEM, "answer: out of memory");
    for (int i = 0; i < t->max_new && !st && wn_seq_n_tokens(s) < lab->n_ctx; i++) {
        int32_t id;
        if ((st = wn_lab_greedy(lab, s, false, &id, err)) || wn_model_is_end(lab->m, id)) break;
        const char *piece = wn_text_push(text, id, &n);
        if (!append(a, piece, n)) st = wn_fail(err, WN_ENOMEM, "answer: out of memory");
        if (stopped(a, t->stop)) break;
        if (!st) st = wn_lab_feed(lab, s, &id, 1, err);
    }
    const char *rest = wn_text_end(text, &n);
    if (!st && append(a, rest, n)) stopped(a, t->stop);
    wn_text_close(text);
    return st;
}

/* ---- turns ------------------------------------------------------------------------------ */

static wn_status feed_text(const wn_lab *lab, wn_seq *s, const char *text, wn_err *err)
{
    int32_t *ids;
    size_t n;
    if (!text || !*text) return WN_OK;
    wn_status st = wn_lab_tokens(lab, text, false, &ids, &n, err);
    if (st) return st;
    st = wn_lab_feed(lab, s, ids, n, err);
    wn_tokens_free(ids);
    return st;
}

/* A turn on a sequence that has read everything before it; asked: the ask is already in. */
static wn_status take_turn(const wn_lab *lab, wn_seq *s, const wn_turn *t, bool aware, bool asked,
                           answer *a, double *score, wn_err *err)
{
    wn_status st = asked ? WN_OK : feed_text(lab, s, t->ask, err);
    if (st || (aware && (st = wn_seq_mark(s, err)))) return st;
    if ((st = write_answer(lab, s, t, a, err))) return st;
    *score += wn_turn_score(t, a->text);
    return WN_OK;
}

/* All turns of a case by one row. start has read the context (and the first ask, if asked). */
static wn_status take_turns(const wn_lab *lab, wn_seq *s, const wn_case *c, bool aware, bool asked,
                            answer *a, double *score, wn_err *err)
{
    wn_status st = WN_OK;
    double sum = 0;
    if (!aware && (st = wn_seq_mark(s, err))) return st;
    for (int i = 0; i < c->n_turns && !st; i++) {
        const wn_turn *t = &c->turns[i];
        if (c->apart && c->n_turns > 1) {
            wn_seq *f;
            if ((st = wn_seq_fork(&f, s, NULL, err))) break;
            st = take_turn(lab, f, t, aware, false, a, &sum, err);
            wn_seq_close(f);
        } else {
            st = take_turn(lab, s, t, aware, asked && i == 0, a, &sum, err);
            if (!st && i + 1 < c->n_turns) st = feed_text(lab, s, t->after, err);
        }
    }
    *score = sum / c->n_turns;
    return st;
}

/* What rows start from: the context read, and behind it the first question where that is asked of
 * all turns together. */
typedef struct { wn_seq *at[WN_ASK_MODES]; bool asked; } starts;

static wn_status one_row(const wn_lab *lab, const wn_lab_row *row, const wn_case *c,
                         const starts *from, const bool ask[WN_ASK_MODES], answer *a,
                         double *scores, wn_err *err)
{
    wn_status st = WN_OK;
    for (int m = 0; m < WN_ASK_MODES && !st; m++) {
        wn_seq *s;
        if (!ask[m]) continue;
        if (m && ask[0] && !row->marks) {
            scores[m] = scores[0];
            continue;
        }
        if ((st = wn_lab_start(&s, lab, row, from->at[m], err))) break;
        st = take_turns(lab, s, c, m == WN_ASK_AWARE, m == WN_ASK_AWARE && from->asked, a,
                        &scores[m], err);
        wn_seq_close(s);
    }
    return st ? wn_fail_prefix(err, st, "%s", row->kv) : WN_OK;
}

static wn_status read_context(wn_seq **base, const wn_lab *lab, const wn_lab_row *none,
                              const char *text, wn_err *err)
{
    int32_t *ids;
    size_t n;
    wn_status st = wn_lab_tokens(lab, text, true, &ids, &n, err);
    if (st) return st;
    if (!(st = wn_lab_seq(base, lab, none, err)) && n) st = wn_lab_feed(lab, *base, ids, n, err);
    wn_tokens_free(ids);
    return st;
}

static wn_status make_starts(starts *from, const wn_lab *lab, const wn_lab_row *none,
                             const wn_case *c, const bool ask[WN_ASK_MODES], wn_err *err)
{
    wn_seq **at = from->at;
    wn_status st = read_context(&at[WN_ASK_AGNOSTIC], lab, none, c->context, err);
    if (st || !ask[WN_ASK_AWARE]) return st;
    from->asked = !(c->apart && c->n_turns > 1);
    at[WN_ASK_AWARE] = at[WN_ASK_AGNOSTIC];
    if (!from->asked) return WN_OK;     /* no fork without need: a row of its own, its fork and its
                                           probe's are open, too */
    if ((st = wn_seq_fork(&at[WN_ASK_AWARE], at[WN_ASK_AGNOSTIC], NULL, err))) return st;
    return feed_text(lab, at[WN_ASK_AWARE], c->turns[0].ask, err);
}

wn_status wn_ask_case(const wn_lab *lab, const wn_lab_row *rows, int n_rows, const wn_case *c,
                      const bool ask[WN_ASK_MODES], wn_job_desk *desk, double *scores, wn_err *err)
{
    starts from = { 0 };
    answer a = { 0 };
    wn_status st = make_starts(&from, lab, &rows[0], c, ask, err);
    for (int r = 0; r < n_rows && !st; r++) {
        if (wn_job_part_had(desk, r)) continue;
        if (!(st = one_row(lab, &rows[r], c, &from, ask, &a, scores + r * WN_ASK_MODES, err)))
            wn_job_part_done(desk, r);
    }
    if (from.at[WN_ASK_AWARE] != from.at[WN_ASK_AGNOSTIC]) wn_seq_close(from.at[WN_ASK_AWARE]);
    wn_seq_close(from.at[WN_ASK_AGNOSTIC]);
    wn_free(a.text);
    return st;
}

/* ---- multiple choice -------------------------------------------------------------------- */

/* ln p(choice | what s has read) per byte. */
static wn_status weigh_choice(const wn_lab *lab, const wn_seq *s, const char *text, double *out,
                              wn_err *err)
{
    int32_t *ids;
    size_t n;
    wn_seq *f;
    double sum = 0;
    wn_status st = wn_lab_tokens(lab, text, false, &ids, &n, err);
    if (st) return st;
    if (!(st = wn_seq_fork(&f, (wn_seq *)s, NULL, err))) {
        for (size_t i = 0; i < n && !st; i++) {
            const float *logits = wn_seq_logits(f);
            if (!logits) st = wn_fail(err, WN_EINVAL, "a choice needs a question before it");
            else sum -= wn_stat_nll(logits, lab->n_vocab, ids[i]);
            if (!st && i + 1 < n) st = wn_lab_feed(lab, f, &ids[i], 1, err);
        }
        wn_seq_close(f);
    }
    wn_tokens_free(ids);
    *out = sum / (double)WN_MAX(strlen(text), (size_t)1);
    return st;
}

static wn_status choose(const wn_lab *lab, wn_seq *s, const wn_choice *c, bool aware, double *score,
                        wn_err *err)
{
    int best = 0;
    double top = -INFINITY, x;
    wn_status st = aware ? WN_OK : wn_seq_mark(s, err);
    if (!st) st = feed_text(lab, s, c->question, err);
    if (!st && aware) st = wn_seq_mark(s, err);
    for (int i = 0; i < c->n_choices && !st; i++) {
        if ((st = weigh_choice(lab, s, c->choices[i], &x, err))) break;
        if (x > top) top = x, best = i;
    }
    *score = best == c->answer;
    return st;
}

wn_status wn_ask_choice(const wn_lab *lab, const wn_lab_row *rows, int n_rows, const wn_choice *c,
                        const bool ask[WN_ASK_MODES], wn_job_desk *desk, double *scores,
                        wn_err *err)
{
    wn_seq *base = NULL, *s;
    wn_status st = read_context(&base, lab, &rows[0], c->context ? c->context : "", err);
    for (int r = 0; r < n_rows && !st; r++) {
        if (wn_job_part_had(desk, r)) continue;
        for (int m = 0; m < WN_ASK_MODES && !st; m++) {
            double *score = &scores[r * WN_ASK_MODES + m];
            if (!ask[m]) continue;
            if (m && ask[0] && !rows[r].marks) {
                *score = score[-m];
                continue;
            }
            if ((st = wn_lab_start(&s, lab, &rows[r], base, err))) break;
            st = choose(lab, s, c, m == WN_ASK_AWARE, score, err);
            wn_seq_close(s);
        }
        if (!st) wn_job_part_done(desk, r);
    }
    wn_seq_close(base);
    return st;
}
