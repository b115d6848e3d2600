/* eval/profile_texts.c - texts that show what heads do: see profile_study.h.
 *
 *     0 ........ needle ........ | question | value
 *     block | block | block | block
 *
 * A needle is a case of a task in tokens, with the places where its value is spelled, because heads
 * are asked whether they look there; repeats are plain tokens in an order that no text has, so that
 * only the text itself can say what follows.
 */
#include "eval/profile_study.h"

#include "base/alloc.h"
#include "eval/phrases.h"
#include "sample/sample.h"

#include <string.h>

enum { COPIES = 4 };
static const char *const NEEDLE_TASKS[] = { "passkey", "needle" };

/* ---- needles ------------------------------------------------------------------------ */

static bool ends_sentence(const char *s)
{
    return *s == '\n' || ((*s == '.' || *s == '!' || *s == '?') && (s[1] == ' ' || s[1] == '\n'));
}

/* Tokens that hold any of the bytes [a, b). */
static wn_token_range tokens_at(const size_t *start, size_t n, size_t a, size_t b)
{
    wn_token_range s = { 0, 0 };
    while ((size_t)s.from < n && start[s.from + 1] <= a) s.from++;
    for (s.to = s.from; (size_t)s.to < n && start[s.to] < b;) s.to++;
    return s;
}

/* The context as its tokens spell it, NUL-terminated, and where each of them starts: (n + 1). */
static char *spell(const wn_needle *d, const wn_model *m, size_t *start)
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
static wn_status find_value(wn_needle *d, const wn_model *m, const char *value, wn_err *err)
{
    size_t *start = WN_NEW_ARRAY(size_t, d->n_context + 1);
    char *text = start ? spell(d, m, start) : NULL;
    const char *at = text, *end = text ? text + start[d->n_context] : NULL;
    while (text && d->n_places < WN_NEEDLE_PLACES &&
           (at = wn_word_find(text, at, end, value, false))) {
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

/* A value that stands behind a token of its own for the blank gets it in the answer, too. */
static wn_status make_question(wn_needle *d, const wn_lab *lab, const char *text, wn_err *err)
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

wn_status wn_needle_make(wn_needle *d, const wn_study *s, const wn_lab *lab, int i, wn_err *err)
{
    const wn_profile_opts *o = &s->o;
    const wn_task *task = wn_task_find(NEEDLE_TASKS[i % (int)WN_COUNT(NEEDLE_TASKS)]);
    /* never near the question */
    double far = 1 - (double)(o->recent + o->recent / 2) / o->context;
    wn_case c;
    wn_case_opts co = { .seed = o->seed * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)i,
                        .n_tokens = o->context, .depth = wn_eval_depth(i, o->n_needles) * far,
                        .count = wn_eval_count_tokens, .count_ctx = lab->m };
    *d = (wn_needle){ 0 };
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

void wn_needle_release(wn_needle *d)
{
    wn_tokens_free(d->context);
    wn_tokens_free(d->ask);
}

/* ---- repeats ------------------------------------------------------------------------ */

wn_status wn_repeats_make(wn_repeats *r, const wn_study *s, const wn_lab *lab, int i, wn_err *err)
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
    r->start = (int)n_first;
    r->block = WN_MIN((s->o.context - r->start) / COPIES, n);
    r->end = r->start + COPIES * r->block;
    if (r->block < WN_REPEAT_ROWS)
        st = wn_fail(err, WN_EINVAL, "%d plain tokens are too few to repeat", n);
    for (int j = 0; j < r->block && !st; j++) {         /* drawn without putting back */
        int at = j + (int)(wn_sample_uniform(seed, j) * (n - j));
        int32_t id = plain[at];
        plain[at] = plain[j];
        plain[j] = id;
        for (int c = 0; c < COPIES; c++) ids[r->start + c * r->block + j] = id;
    }
done:
    wn_free(plain);
    if (st) wn_free(ids);
    r->ids = st ? NULL : ids;
    return st;
}
