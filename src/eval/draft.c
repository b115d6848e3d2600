/* eval/draft.c - draws words, keeps answers apart, fits the filler to the token.
 *
 * The last is the only algorithm here. Tokens of a text can only be counted by making it, and
 * counting costs what tokenizing costs, so the filler's size in bytes is found by interpolation:
 * tokens grow almost linearly with bytes, and two or three guesses end within a fraction
 * of a percent; bisection steps in where they do not. Counts need not grow with every
 * byte (a token more of text may merge two), so the best text that fits is kept.
 */
#include "eval/draft.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "sample/sample.h"

enum { MAX_TRIES = 1000, TRIES_HAYSTACK = 100, MAX_FITS = 32 };

/* ---- strings ----------------------------------------------------------------------- */

void wn_strbuf_add(wn_strbuf *s, const char *text, size_t n)
{
    if (s->failed) return;
    if (s->n + n + 1 > s->cap) {
        size_t cap = 2 * (s->n + n) + 64;
        char *p = wn_realloc(s->s, cap);
        if (!p) {
            s->failed = true;
            return;
        }
        s->s = p;
        s->cap = cap;
    }
    if (n) memcpy(s->s + s->n, text, n);
    s->n += n;
    s->s[s->n] = '\0';
}

void wn_strbuf_puts(wn_strbuf *s, const char *text) { wn_strbuf_add(s, text, strlen(text)); }

void wn_strbuf_release(wn_strbuf *s)
{
    wn_free(s->s);
    *s = (wn_strbuf){ 0 };
}

/* ---- failure and growth -------------------------------------------------------------- */

void wn_draft_fail(wn_draft *d, wn_status st, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    if (d->st) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    d->st = wn_fail(d->err, st, "task %s: %s", d->task, text);
}

static void out_of_memory(wn_draft *d) { wn_draft_fail(d, WN_ENOMEM, "out of memory"); }

/* Room for one more element of an array that lives in the draft; the new one is zeroed. */
static void *grow(wn_draft *d, void *p, int *n, int *cap, size_t bytes)
{
    if (*n == *cap) {
        int more = 2 * *cap + 8;
        void *q = wn_realloc(p, (size_t)more * bytes);
        if (!q) {
            out_of_memory(d);
            return p;
        }
        p = q;
        *cap = more;
    }
    memset((char *)p + (size_t)*n * bytes, 0, bytes);
    (*n)++;
    return p;
}
#define GROW(d, array, n, cap)                                                                   \
    ((d)->st ||                                                                                  \
             ((d)->array = grow(d, (d)->array, &(d)->n, &(d)->cap, sizeof *(d)->array), (d)->st) \
         ? false                                                                                 \
         : true)

const char *wn_draft_keep(wn_draft *d, wn_strbuf *s)
{
    wn_strbuf_add(s, "", 0);               /* an empty string is one too */
    char *text = s->s;
    if (s->failed) out_of_memory(d);
    if (!text || !GROW(d, kept, n_kept, cap_kept)) {
        wn_strbuf_release(s);
        return "";
    }
    d->kept[d->n_kept - 1] = text;
    *s = (wn_strbuf){ 0 };
    return text;
}

static void turn_release(wn_turn *t)
{
    wn_free(t->ask);
    for (int i = 0; i < t->n_expect; i++) wn_free(t->expect[i]);
    wn_free(t->expect);
    wn_free(t->stop);
    wn_free(t->after);
}

void wn_case_release(wn_case *c)
{
    wn_free(c->context);
    for (int i = 0; i < c->n_turns; i++) turn_release(&c->turns[i]);
    wn_free(c->turns);
    *c = (wn_case){ 0 };
}

static void release(wn_draft *d)
{
    for (int i = 0; i < d->n_kept; i++) wn_free(d->kept[i]);
    for (int i = 0; i < d->n_turns; i++) turn_release(&d->turns[i]);
    wn_free(d->kept);
    wn_free(d->facts);
    wn_free(d->said);
    wn_free(d->turns);
}

/* ---- draws --------------------------------------------------------------------------- */

double wn_draft_unit(wn_draft *d) { return wn_sample_uniform(d->seed, d->n_draws++); }
int wn_draft_below(wn_draft *d, int n) { return (int)(wn_draft_unit(d) * n); }

double wn_draft_depth(wn_draft *d)
{
    double drawn = wn_draft_unit(d);    /* always: the draws after it stay the same */
    return d->o->depth >= 0 ? d->o->depth : drawn;
}

int wn_draft_number(wn_draft *d, const char *key, int floor)
{
    int n = wn_phrases_number(d->p, d->task, key), k = (int)(n * d->scale);
    k = WN_MAX(k, WN_MIN(n, floor));
    if (k > floor) d->can_shrink = true;
    return k;
}

void wn_draft_bind(wn_draft *d, wn_binds *b, const char *name, const char *value)
{
    size_t n = strlen(name);
    for (int i = 0; i < b->n; i++)
        if (b->v[i].n == n && !memcmp(b->v[i].name, name, n)) {
            b->v[i].value = value;
            return;
        }
    if (b->n == (int)WN_COUNT(b->v)) {
        wn_draft_fail(d, WN_EFORMAT,
                      "more than %zu placeholders in one fact; write a simpler template",
                      WN_COUNT(b->v));
        return;
    }
    b->v[b->n].name = name;
    b->v[b->n].n = n;
    b->v[b->n++].value = value;
}

const char *wn_draft_bound(const wn_binds *b, const char *name)
{
    for (int i = 0; i < b->n; i++)
        if (b->v[i].n == strlen(name) && !memcmp(b->v[i].name, name, b->v[i].n))
            return b->v[i].value;
    return "";
}

/* A word of the list that no other placeholder of the list stands for: {adj} and {adj2} differ. */
static const char *draw_word(wn_draft *d, const wn_binds *b, const char *name, size_t n)
{
    int k = wn_phrases_n_words(d->p, name, n);
    WN_ASSERT(k > 0);                   /* phrases_grammar.c has seen to it */
    for (int tries = 0;; tries++) {
        const char *w = wn_phrases_word(d->p, name, n, wn_draft_below(d, k));
        bool taken = false;
        for (int i = 0; i < b->n; i++) taken |= !strcmp(b->v[i].value, w);
        if (!taken || tries == 20) return w;
    }
}

/* Draws what a placeholder stands for and remembers it under its name, borrowed from the phrase. */
static const char *draw_value(wn_draft *d, wn_binds *b, const char *name, size_t n)
{
    int digits = wn_phrases_digits(name, n);
    const char *value;
    wn_strbuf s = { 0 };
    if (digits) {
        for (int i = 0; i < digits; i++) wn_strbuf_add(&s, &"0123456789"[wn_draft_below(d, 10)], 1);
        value = wn_draft_keep(d, &s);
    } else {
        value = draw_word(d, b, name, n);
    }
    if (b->n == (int)WN_COUNT(b->v)) {
        wn_draft_fail(d, WN_EFORMAT,
                      "more than %zu placeholders in one fact; write a simpler template",
                      WN_COUNT(b->v));
        return "";
    }
    b->v[b->n].name = name;
    b->v[b->n].n = n;
    b->v[b->n++].value = value;
    return value;
}

const char *wn_draft_expand(wn_draft *d, wn_binds *b, const char *phrase)
{
    wn_strbuf s = { 0 };
    size_t n;
    while (*phrase && !d->st) {
        if (!wn_phrases_placeholder(phrase, &n)) {
            wn_strbuf_add(&s, phrase++, 1);
            continue;
        }
        const char *value = NULL;
        for (int i = 0; i < b->n && !value; i++)
            if (b->v[i].n == n && !memcmp(b->v[i].name, phrase + 1, n)) value = b->v[i].value;
        if (!value && !wn_phrases_digits(phrase + 1, n) &&
            !wn_phrases_n_words(d->p, phrase + 1, n)) {
            wn_draft_fail(
                d, WN_EFORMAT,
                "the template uses %.*s where nothing stands for it; write the phrase without it",
                (int)n + 2, phrase);
            break;
        }
        wn_strbuf_puts(&s, value ? value : draw_value(d, b, phrase + 1, n));
        phrase += n + 2;
    }
    return wn_draft_keep(d, &s);
}

const char *wn_draft_phrase(wn_draft *d, wn_binds *b, const char *key)
{
    return wn_draft_expand(d, b, wn_phrases_text(d->p, d->task, key));
}

const char *wn_draft_draw(wn_draft *d, wn_binds *b, const char *key)
{
    const char *value = wn_draft_phrase(d, b, key);
    wn_draft_bind(d, b, key, value);
    return value;
}

/* ---- facts --------------------------------------------------------------------------- */

static bool holds(const char *text, const char *word)
{
    return wn_word_find(text, text, text + strlen(text), word, true) != NULL;
}

bool wn_draft_fresh(wn_draft *d, const char *statement, const char *key, const char *answer,
                    int tries)
{
    if (d->st) return true;
    if (tries >= MAX_TRIES) {
        wn_draft_fail(
            d, WN_EINVAL,
            "no fact that differs from the others after %d draws; give the template more words or "
            "digits, or a smaller number of facts",
            tries);
        return true;
    }
    if (!*answer || (tries < TRIES_HAYSTACK && wn_phrases_in_haystack(d->p, answer))) return false;
    for (int i = 0; i < d->n_said; i++) {
        const struct wn_said *s = &d->said[i];
        if (holds(s->statement, answer) || holds(statement, s->answer) ||
            (key && holds(s->statement, key)))
            return false;
    }
    return true;
}

wn_draft_pair wn_draft_new(wn_draft *d, wn_binds *b, const char *before, const char *answer,
                           const char *statement)
{
    wn_draft_pair x;
    int tries = 0;
    do {
        *b = (wn_binds){ 0 };
        if (before) wn_draft_draw(d, b, before);
        x.answer = wn_draft_draw(d, b, answer);
        x.statement = wn_draft_phrase(d, b, statement);
    } while (!wn_draft_fresh(d, x.statement, NULL, x.answer, tries++));
    return x;
}

void wn_draft_said(wn_draft *d, const char *statement, const char *answer)
{
    if (!GROW(d, said, n_said, cap_said)) return;
    d->said[d->n_said - 1] = (struct wn_said){ statement, answer };
}

void wn_draft_fact(wn_draft *d, double at, const char *text, bool block)
{
    if (!GROW(d, facts, n_facts, cap_facts)) return;
    int i = d->n_facts - 1;             /* kept in order; facts at the same place in order of the
                                           calls */
    for (; i > 0 && d->facts[i - 1].at > at; i--) d->facts[i] = d->facts[i - 1];
    d->facts[i] = (wn_fact){ text, at, block };
}

/* ---- turns --------------------------------------------------------------------------- */

void wn_draft_answer(wn_draft *d, wn_strbuf *s, const char *lead)
{
    const char *prefix = d->markup->assistant_prefix;
    size_t n = strlen(prefix);
    wn_strbuf_puts(s, prefix);
    if (*lead && n && !d->markup->tight && prefix[n - 1] != ' ' && prefix[n - 1] != '\n' &&
        *lead != ' ')
        wn_strbuf_puts(s, " ");
    wn_strbuf_puts(s, lead);
}

static void add_turn(wn_draft *d, wn_strbuf *ask, bool marked, wn_score_kind score)
{
    const char *stop = wn_phrases_optional(d->p, d->task, "stop");
    if (ask->failed || !GROW(d, turns, n_turns, cap_turns)) {
        if (ask->failed) out_of_memory(d);
        wn_strbuf_release(ask);
        return;
    }
    wn_turn *t = &d->turns[d->n_turns - 1];
    if (!stop) stop = d->markup->stop;
    t->ask = ask->s;
    t->score = score;
    t->after = wn_strdup(marked ? d->markup->assistant_suffix : "");
    t->stop = *stop ? wn_strdup(stop) : NULL;
    if (!t->after || (*stop && !t->stop)) out_of_memory(d);
}

void wn_draft_ask_with(wn_draft *d, const char *question, const char *lead, wn_score_kind score)
{
    wn_strbuf s = { 0 };
    bool open = !d->closed && (d->apart || d->n_turns == 0);
    if (open) {
        wn_strbuf_puts(&s, d->markup->question);
    } else {
        wn_strbuf_puts(&s, d->markup->user_prefix);
        wn_strbuf_puts(&s, d->markup->next_question);
    }
    wn_strbuf_puts(&s, question);
    wn_strbuf_puts(&s, d->markup->user_suffix);
    wn_draft_answer(d, &s, lead);
    add_turn(d, &s, true, score);
}

void wn_draft_ask(wn_draft *d, wn_binds *b, wn_score_kind score)
{
    const char *raw = wn_phrases_optional(d->p, d->task, "ask");
    if (raw && *raw) {
        wn_strbuf s = { 0 };
        wn_strbuf_puts(&s, wn_draft_expand(d, b, raw));
        add_turn(d, &s, false, score);
    } else {
        const char *question = wn_draft_phrase(d, b, "question");
        wn_draft_ask_with(d, question, wn_draft_phrase(d, b, "lead"), score);
    }
}

void wn_draft_expect(wn_draft *d, const char *value)
{
    if (d->st) return;
    wn_turn *t = &d->turns[d->n_turns - 1];
    char **more = wn_realloc(t->expect, (size_t)(t->n_expect + 1) * sizeof *more);
    if (more) t->expect = more;
    if (!more || !(t->expect[t->n_expect] = wn_strdup(value))) out_of_memory(d);
    else
        t->n_expect++;
}

/* ---- length --------------------------------------------------------------------------- */

size_t wn_draft_count(wn_draft *d, const char *text)
{
    return d->o->count(d->o->count_ctx, text, strlen(text));
}

/* An answer may be a quarter longer than the one expected, with a few words around it. */
static size_t answer_tokens(wn_draft *d, const wn_turn *t)
{
    size_t n = 0;
    for (int i = 0; i < t->n_expect; i++) n += wn_draft_count(d, t->expect[i]) + 2;
    return n + n / 4 + d->chatter;
}

size_t wn_draft_room(wn_draft *d)
{
    size_t need = 0, total = d->o->n_tokens > 0 ? (size_t)d->o->n_tokens : 0;
    for (int i = 0; i < d->n_turns && !d->st; i++) {
        wn_turn *t = &d->turns[i];
        size_t answer = answer_tokens(d, t), turn = wn_draft_count(d, t->ask) + answer;
        t->max_new = (int)answer;
        if (d->apart) need = WN_MAX(need, turn);
        else
            need += turn + (i + 1 < d->n_turns ? wn_draft_count(d, t->after) : 0);
    }
    return total > need ? total - need : 0;
}

/* The j-th piece of filler: the haystack from a sentence on that the seed draws, round to where
 * it began, then from another one, and so on. */
static wn_piece filler_piece(const wn_draft *d, int64_t j)
{
    int n = wn_phrases_n_pieces(d->p);
    int start = (int)(wn_sample_uniform(~d->seed, j / n) * n);
    return wn_phrases_piece(d->p, (int)((start + j % n) % n));
}

static bool ends_in_space(const wn_strbuf *s)
{
    return !s->n || s->s[s->n - 1] == ' ' || s->s[s->n - 1] == '\n';
}

static void put_fact(wn_strbuf *s, const wn_fact *f)
{
    if (f->block && s->n && s->s[s->n - 1] != '\n') wn_strbuf_puts(s, "\n\n");
    wn_strbuf_puts(s, f->text);
}

/* At most n bytes of a sentence, cut between two words and ended with a full stop. */
static void put_part(wn_strbuf *s, const char *text, size_t n)
{
    while (n && text[n] != ' ' && text[n] != '\n') n--;
    while (n && !((text[n - 1] | 32) >= 'a' && (text[n - 1] | 32) <= 'z') &&
           (unsigned char)text[n - 1] < 0x80)
        n--;
    if (!n) return;
    wn_strbuf_add(s, text, n);
    wn_strbuf_puts(s, ".");
}

/* The context with this many bytes of filler. */
static void render(const wn_draft *d, size_t filler, wn_strbuf *s)
{
    size_t used = 0;
    int k = 0;
    s->n = 0;
    wn_strbuf_puts(s, d->head);
    for (int64_t j = 0; used < filler; j++) {
        wn_piece piece = filler_piece(d, j);
        size_t n = WN_MIN(piece.n, filler - used);
        while (k < d->n_facts && d->facts[k].at * (double)filler <= (double)used + (double)n / 2)
            put_fact(s, &d->facts[k++]);
        size_t skip = ends_in_space(s) ? piece.n_space : 0;
        /* the haystack's first */
        if (!piece.n_space && !ends_in_space(s)) wn_strbuf_puts(s, "\n\n");
        if (n == piece.n) wn_strbuf_add(s, piece.text + skip, n - skip);
        else if (n > skip)
            put_part(s, piece.text + skip, n - skip);
        used += n;
    }
    while (k < d->n_facts) put_fact(s, &d->facts[k++]);
    wn_strbuf_add(s, "", 0);
}

/* Finds the filler that brings the context to room tokens or a few less; *out takes the text. */
static void fit(wn_draft *d, size_t room, wn_strbuf *out)
{
    wn_strbuf s = { 0 };
    size_t lo = 0, hi = SIZE_MAX, n_lo, n_hi = 0, slack = room / 256;
    render(d, 0, out);
    n_lo = out->failed ? 0 : d->o->count(d->o->count_ctx, out->s, out->n);
    /* Half of the room is for filler as long as there are facts to spare. */
    if (n_lo > room || !room || (d->can_shrink && n_lo > room / 2)) {
        wn_draft_fail(
            d, WN_ELIMIT,
            "%d tokens are too few for its facts and questions (%zu more are needed); ask for a "
            "longer text",
            d->o->n_tokens, n_lo > room ? n_lo - room : (size_t)1);
        return;
    }
    for (int i = 0; i < MAX_FITS && room - n_lo > slack && hi - lo > 1 && !out->failed; i++) {
        size_t guess;
        if (hi == SIZE_MAX) {
            double per = lo ? (double)lo / (double)WN_MAX(n_lo, (size_t)1) : 4;
            guess = lo + (size_t)(per * (double)(room - n_lo)) + 1;
        } else if (i % 3 == 2) {
            guess = lo + (hi - lo) / 2;
        } else {
            double share = ((double)(room - n_lo) - 0.5 * (double)slack) / (double)(n_hi - n_lo);
            guess = lo + (size_t)(WN_MAX(share, 0.0) * (double)(hi - lo));
            guess = WN_MIN(WN_MAX(guess, lo + 1), hi - 1);
        }
        render(d, guess, &s);
        size_t n = s.failed ? 0 : d->o->count(d->o->count_ctx, s.s, s.n);
        if (s.failed) {
            out->failed = true;
        } else if (n <= room) {
            wn_strbuf t = *out;
            *out = s;
            s = t;
            lo = guess;
            n_lo = n;
        } else {
            hi = guess;
            n_hi = n;
        }
    }
    wn_strbuf_release(&s);
    if (out->failed) out_of_memory(d);
}

/* ---- the whole -------------------------------------------------------------------------- */

static const char *make_head(wn_draft *d)
{
    const wn_markup *m = d->markup;
    wn_binds none = { 0 };
    wn_strbuf s = { 0 };
    wn_strbuf_puts(&s, m->begin);
    if (*m->system_text) {
        wn_strbuf_puts(&s, m->system_prefix);
        wn_strbuf_puts(&s, m->system_text);
        wn_strbuf_puts(&s, m->system_suffix);
    }
    wn_strbuf_puts(&s, m->user_prefix);
    wn_strbuf_puts(&s, wn_draft_expand(d, &none, wn_phrases_text(d->p, d->task, "intro")));
    return wn_draft_keep(d, &s);
}

static wn_status make_once(wn_case *out, wn_draft *d, void (*build)(wn_draft *d))
{
    wn_strbuf context = { 0 };
    build(d);
    if (!d->st && !d->head) d->head = make_head(d);
    size_t room = wn_draft_room(d);
    if (!d->st) fit(d, room, &context);
    if (d->st) {
        wn_strbuf_release(&context);
    } else {
        *out = (wn_case){ .context = context.s, .turns = d->turns, .n_turns = d->n_turns,
                          .apart = d->apart };
        d->turns = NULL;
        d->n_turns = 0;
    }
    release(d);
    return d->st;
}

wn_status wn_draft_make(wn_case *out, const char *task, const wn_phrases *p, const wn_case_opts *o,
                        void (*build)(wn_draft *d), wn_err *err)
{
    uint64_t h = 0xcbf29ce484222325u;   /* FNV-1a: each task draws a sequence of its own */
    *out = (wn_case){ 0 };
    WN_ASSERT(o->count);
    if (!(o->depth <= 1))               /* NaN too */
        return wn_fail(err, WN_EINVAL,
                       "task %s: depth %g is not between 0 and 1 (nor negative: drawn)", task,
                       o->depth);
    for (const char *s = task; *s; s++) h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    for (double scale = 1;; scale /= 2) {
        wn_draft d = { .p = p, .o = o, .task = task, .markup = wn_phrases_markup(p), .scale = scale,
                       .chatter = 16, .seed = o->seed ^ h, .err = err };
        wn_status st = make_once(out, &d, build);
        if (st != WN_ELIMIT || !d.can_shrink) return st;
    }
}
