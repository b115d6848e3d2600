/* eval/task.h - questions with exact answers, made on the spot.
 *
 * A task makes cases: a context with facts hidden in filler text, and turns that ask for
 * them. Everything is text here and follows from (task, seed, length, depth) alone; tokens
 * are only counted, so that a case has the length asked for. Who runs a case (eval/run.h)
 * feeds the context, then turn after turn, and has each answer scored.
 *
 *     context                      what a query-agnostic policy compresses
 *     turn 0: ask | lead -> answer a query-aware policy compresses after ask + lead
 *     turn 1: ask | lead -> answer ...
 *
 * Phrasing comes from a template (JSON, one per model family: base, chat, demo), compiled
 * in and replaceable by a file; filler from a haystack text, likewise.
 */
#ifndef WN_EVAL_TASK_H
#define WN_EVAL_TASK_H

#include "base/err.h"

typedef struct wn_phrases wn_phrases;           /* a template and a haystack, loaded */

/* template: a compiled-in family ("base", "chat", "demo") or the path of a JSON file;
 * haystack: a text file, or NULL for the compiled-in one. */
wn_status wn_phrases_open(wn_phrases **out, const char *family, const char *haystack, wn_err *err);
void wn_phrases_close(wn_phrases *p);
const char *wn_phrases_haystack(const wn_phrases *p, size_t *n_bytes);     /* borrowed */
/* What fits a model, by its general.name and chat template (either may be NULL): "demo", "base", or
 * "model", which is eval/markup.h's. */
const char *wn_phrases_guess(const char *model_name, const char *chat_template);

typedef enum {
    WN_SCORE_VALUES,            /* share of expected values found in the answer, as whole words */
    WN_SCORE_EXACT,             /* the answer begins with the expected text (spaces trimmed) */
    WN_SCORE_DIGITS,            /* share of leading digits that agree */
    WN_SCORE_JSON,              /* the answer parses and equals the expected JSON */
    WN_SCORE_LIST,              /* distinct, valid items as a share of those asked for (or written,
                                   if more) */
} wn_score_kind;

typedef struct {
    char *ask;                  /* what is fed: the question, the markup, and the lead of the
                                   answer */
    char **expect; int n_expect;/* values, or one text */
    wn_score_kind score;
    int max_new;                /* tokens an answer may take, generously */
    char *stop;                 /* the answer ends before this text; NULL: at max_new or the end
                                   token */
    char *after;                /* fed after the answer when another turn follows (markup); may be
                                   "" */
} wn_turn;

typedef struct {
    char *context;
    wn_turn *turns; int n_turns;
    bool apart;                 /* each turn is asked of the same context alone, not after the
                                   others */
} wn_case;

/* Counts tokens of a text as the model does. */
typedef size_t wn_count_tokens(void *ctx, const char *text, size_t n_bytes);

typedef struct {
    uint64_t seed;
    int n_tokens;               /* context + turn + answer (all turns, unless apart), at most and
                                   nearly */
    double depth;               /* 0 .. 1: where the (first) fact lies; < 0: drawn */
    wn_count_tokens *count;
    void *count_ctx;
} wn_case_opts;

typedef struct {
    const char *name;           /* of the flag and the JSON key */
    const char *about;          /* one line for --help and docs */
    bool has_depth;             /* depth means something */
    wn_status (*make)(wn_case *out, const wn_phrases *p, const wn_case_opts *o, wn_err *err);
} wn_task;

extern const wn_task *const wn_tasks[];         /* ends with NULL */
const wn_task *wn_task_find(const char *name);

/* 0 .. 1. answer: what the model wrote, up to max_new tokens. */
double wn_turn_score(const wn_turn *t, const char *answer);
void wn_case_release(wn_case *c);

/* Multiple choice from a file of JSON lines {"question", "choices": [..], "answer": index,
 * "context" (optional)}: choices are compared by the log probability of their tokens per byte. */
typedef struct {
    char *context, *question;
    char **choices; int n_choices, answer;
} wn_choice;
wn_status wn_choices_load(wn_choice **out, int *n, const char *path, wn_err *err);
void wn_choices_release(wn_choice *c, int n);

#endif
