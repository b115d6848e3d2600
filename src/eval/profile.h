/* eval/profile.h - which heads fetch, which heads stream: measured on texts made on the spot.
 *
 *     needles   prose with one fact, a question, and the answer fed as the fact has it: what does
 *               each head look at while the answer's tokens are produced?
 *     repeats   a block of random tokens, four times: which heads look at the last time?
 *     prose     the last tokens before the question of a needle: how much lies in the first and
 *               the last tokens of the text?
 *
 * Attention is looked at in single rows (attention/attend.h), a few dozen per text; everything
 * else is read in chunks, so that a profile costs little more than reading its texts. Texts are
 * jobs (eval/jobs.h): the profile is the same for any number of threads and after an
 * interruption. docs/profiles.md has the formulas and where they come from.
 */
#ifndef WN_EVAL_PROFILE_H
#define WN_EVAL_PROFILE_H

#include "eval/eval.h"

typedef struct {
    int context;                        /* tokens of a text; 0: 2048, or what the model was trained
                                           for */
    int n_needles, n_repeats;           /* texts of each kind; 0: 12, 4 */
    int sinks, recent;                  /* what a streaming head sees; 0: 4, 256 (an eighth of short
                                           contexts) */
    uint64_t seed;
    const wn_phrases *phrases;
    const char *family;                 /* of the phrases: a name, for the file */
    int n_threads;                      /* 0: all processors */
    size_t mem;
    const char *journal;                /* resume file; NULL: none */
    void (*progress)(void *ctx, const char *what, int done, int total);
    void *progress_ctx;
    const volatile int *stop;           /* as in wn_eval_opts */
} wn_profile_opts;

/* *out holds what its file would say. */
wn_status wn_profile_measure(wn_profile **out, wn_model *m, const wn_profile_opts *o, wn_err *err);

/* ---- the proof (profile_check.c) --------------------------------------------------------- */

enum { WN_PROOF_ROWS = 4, WN_PROOF_TASKS = 3 };

/* Answers (0 .. 1) to passkey, needle and lookup, other cases than those of the measurement: with
 * the full cache, and when lanes see first and last tokens only: those that fetch, as many
 * others (those that copy least), all others. */
typedef struct {
    int n_fetch, n_lanes;
    double score[WN_PROOF_ROWS][WN_PROOF_TASKS];
} wn_profile_proof;

wn_status wn_profile_check(wn_profile_proof *out, const wn_profile *p, wn_model *m,
                           const wn_profile_opts *o, wn_err *err);

/* ---- rows of attention (profile_rows.c) ------------------------------------------------ */

/* What a position is to the row that is looked at; bits. */
enum {
    WN_AT_COPIED = 1,                   /* holds the token that is written next, in the needle's
                                           value */
    WN_AT_VALUE = 2, WN_AT_SPAN = 4,    /* of the value; of the sentences that hold it */
    WN_AT_SAME = 8, WN_AT_NEXT = 16,    /* in repeats: holds the row's own token; the one that
                                           followed it */
    WN_AT_NEAR = 32,                    /* one of the first or of the last positions */
};

/* Sums over the rows that were looked at; a head's scores are these over the rows of a kind. */
typedef struct { double needle, copy, span, loss, induction, echo, stream; } wn_head_sums;
enum { WN_HEAD_SUMS = 7 };              /* doubles in it */

/* Sets WN_AT_NEAR for a row at position p. */
void wn_rows_mark_near(uint8_t *mark, int p, int sinks, int recent);
/* Marks for the row at p of a text of `block` different tokens again and again from `start` on. */
void wn_rows_mark_repeats(uint8_t *mark, int p, int start, int block);
/* Adds a head's weights w (n) of the positions pos by the marks in count; ties for the most
 * attended: the earlier. */
void wn_rows_add(wn_head_sums *s, const float *w, const int32_t *pos, int n, const uint8_t *mark,
                 unsigned count);
/* The answer of a head from all positions, and from those that are near, (dim) each: sum w v, and
 * the same over the near weights' sum. v (n, dim). Returns |all - near|^2; *norm gets |all|^2. */
double wn_rows_loss(const float *w, const int32_t *pos, int n, const uint8_t *mark, const float *v,
                    int dim, double *all, double *near_, double *norm);

#endif
