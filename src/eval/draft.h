/* eval/draft.h - the bench on which a case is put together.
 *
 * A maker of cases (task_*.c) says which facts lie where and what is asked; the draft draws
 * the words, keeps answers unique, wraps everything in the template's markup, and in the
 * end pours in filler until the case has the length asked for.
 *
 *     head   system text, the user's turn opened, intro
 *     body   filler with facts at sentence borders      <- as long as it takes
 *     turn   ask, lead                                   room for the answer
 *
 * Failures stick: after the first, every call does nothing (strings come back empty), and
 * wn_draft_make() reports it. Strings handed out live as long as the draft. All draws come
 * from (seed, task) in the order of the calls, whatever the length and the depth, so the
 * same seed gives the same questions at every length that has room for as many facts.
 */
#ifndef WN_EVAL_DRAFT_H
#define WN_EVAL_DRAFT_H

#include "eval/phrases.h"

typedef struct {
    char *s;                            /* NUL-terminated once something was added */
    size_t n, cap;
    bool failed;                        /* out of memory: what it holds is incomplete */
} wn_strbuf;

void wn_strbuf_add(wn_strbuf *s, const char *text, size_t n);
void wn_strbuf_puts(wn_strbuf *s, const char *text);
void wn_strbuf_release(wn_strbuf *s);

/* What the placeholders of one fact stand for. Lists and digits join it when first met. */
typedef struct {
    struct { const char *name; size_t n; const char *value; } v[40];
    int n;
} wn_binds;

typedef struct {
    const char *text;
    double at;                          /* share of the filler before it */
    bool block;                         /* stands in a paragraph of its own */
} wn_fact;

typedef struct {
    const wn_phrases *p;
    const wn_case_opts *o;
    const char *task;                   /* its section of the template */
    const wn_markup *markup;
    bool apart;                         /* as in wn_case */
    bool closed;                        /* the context ends with a finished turn: questions open
                                           one */
    size_t chatter;                     /* tokens an answer may have around what is expected; 16 */
    double scale;                       /* of the number of facts: less than 1 when the case did not
                                           fit */
    bool can_shrink;
    const char *head;
    uint64_t seed;
    int64_t n_draws;
    wn_status st;
    wn_err *err;
    char **kept; int n_kept, cap_kept;
    wn_fact *facts; int n_facts, cap_facts;
    struct wn_said { const char *statement, *answer; } *said; int n_said, cap_said;
    wn_turn *turns; int n_turns, cap_turns;
} wn_draft;

/* Runs build on a fresh draft, with fewer facts as long as they do not fit, and fits the filler. */
wn_status wn_draft_make(wn_case *out, const char *task, const wn_phrases *p, const wn_case_opts *o,
                        void (*build)(wn_draft *d), wn_err *err);
void wn_draft_fail(wn_draft *d, wn_status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

double wn_draft_unit(wn_draft *d);              /* [0, 1) */
int wn_draft_below(wn_draft *d, int n);         /* 0 .. n - 1 */
double wn_draft_depth(wn_draft *d);             /* of the first fact: as asked, or drawn */
/* A number of the section, scaled down as far as floor when the case must get smaller. */
int wn_draft_number(wn_draft *d, const char *key, int floor);

const char *wn_draft_keep(wn_draft *d, wn_strbuf *s);      /* takes the string over */
void wn_draft_bind(wn_draft *d, wn_binds *b, const char *name, const char *value);
/* "" when nothing stands for it */
const char *wn_draft_bound(const wn_binds *b, const char *name);
const char *wn_draft_expand(wn_draft *d, wn_binds *b, const char *phrase);
/* Expands a phrase of the section and, for draw, binds the result to the phrase's own key. */
const char *wn_draft_phrase(wn_draft *d, wn_binds *b, const char *key);
const char *wn_draft_draw(wn_draft *d, wn_binds *b, const char *key);

/* The answer is in no other statement, no other answer is in this one, and the haystack does
 * not hold it (nor the key, in other statements; NULL: may). tries: how often it was
 * refused before; a haystack that holds every answer is put up with after a while, and
 * a template with too few words ends in a failure. True also when the draft has failed. */
bool wn_draft_fresh(wn_draft *d, const char *statement, const char *key, const char *answer,
                    int tries);
/* A fact: draws the key before (NULL: none) and then the answer's, and expands the phrase
 * `statement`, until the answer is fresh. b holds what was drawn. */
typedef struct { const char *statement, *answer; } wn_draft_pair;
wn_draft_pair wn_draft_new(wn_draft *d, wn_binds *b, const char *before, const char *answer,
                           const char *statement);
void wn_draft_said(wn_draft *d, const char *statement, const char *answer);

void wn_draft_fact(wn_draft *d, double at, const char *text, bool block);

/* A turn from the section's question and lead, or its "ask"; or from the phrases given. */
void wn_draft_ask(wn_draft *d, wn_binds *b, wn_score_kind score);
void wn_draft_ask_with(wn_draft *d, const char *question, const char *lead, wn_score_kind score);
void wn_draft_expect(wn_draft *d, const char *value);   /* of the turn asked last */

size_t wn_draft_count(wn_draft *d, const char *text);
size_t wn_draft_room(wn_draft *d);              /* tokens left for the context by the turns so
                                                   far */
/* "Answer:" and "The key is" need a space between them, markup that ends in white space does
 * not. */
void wn_draft_answer(wn_draft *d, wn_strbuf *s, const char *lead);

/* A task NAME made by build_NAME() on a draft. */
#define WN_TASK(NAME, ABOUT, HAS_DEPTH)                                                    \
    static wn_status make_##NAME(wn_case *out, const wn_phrases *p, const wn_case_opts *o, \
                                 wn_err *err)                                              \
    {                                                                                      \
        return wn_draft_make(out, #NAME, p, o, build_##NAME, err);                         \
    }                                                                                      \
    const wn_task wn_task_##NAME = { #NAME, ABOUT, HAS_DEPTH, make_##NAME }

#endif
