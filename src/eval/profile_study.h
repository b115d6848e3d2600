/* eval/profile_study.h - a measurement of heads at work: its texts, its rows, its sums. For
 * profile*.c alone; profile.h is what others see.
 *
 *     profile.c        options, the jobs, from sums to a profile
 *     profile_texts.c  makes the tokens of a text and knows what is where in it
 *     profile_look.c   reads a text and adds up what heads look at: a job
 */
#ifndef WN_EVAL_PROFILE_STUDY_H
#define WN_EVAL_PROFILE_STUDY_H

#include "eval/profile.h"
#include "eval/work.h"

typedef struct {
    wn_eval_work w;
    wn_profile_opts o;                  /* defaults filled in */
    int n_layers, n_heads, n_lanes;
    size_t per_job;
} wn_study;

/* ---- texts (profile_texts.c) --------------------------------------------------------- */

/* Tokens [from, to) of a text. */
typedef struct { int from, to; } wn_token_range;

enum { WN_NEEDLE_PLACES = 8, WN_REPEAT_ROWS = 16 };

/* Prose with a fact, and a question about it. */
typedef struct {
    int32_t *context, *ask; size_t n_context, n_ask;    /* ask: up to the value, a blank in front of
                                                           it included */
    wn_token_range value[WN_NEEDLE_PLACES], span[WN_NEEDLE_PLACES]; int n_places;
} wn_needle;

/* The i-th needle of a study. To be released whatever is returned. */
wn_status wn_needle_make(wn_needle *d, const wn_study *s, const wn_lab *lab, int i, wn_err *err);
void wn_needle_release(wn_needle *d);

/* `block` different tokens, again and again from `start` to `end`; at least WN_REPEAT_ROWS. */
typedef struct { int32_t *ids; int start, block, end; } wn_repeats;

/* On failure nothing is left to free; else ids is the caller's: wn_free(). */
wn_status wn_repeats_make(wn_repeats *r, const wn_study *s, const wn_lab *lab, int i, wn_err *err);

/* ---- jobs (profile_look.c) ------------------------------------------------------------ */

/* Rows that were looked at, by kind, and answers that the model would have written itself. */
enum { WN_N_ANSWERS, WN_N_ANSWERED, WN_N_PROSE, WN_N_REPEATS, WN_N_COUNTS };

/* What the values of a job are. */
typedef struct {
    wn_head_sums *heads;                /* (n_layers, n_heads) */
    double *lanes, *layers;             /* losses (n_lanes), (n_layers) */
    double *counts;                     /* (WN_N_COUNTS) */
} wn_study_sums;

size_t wn_study_n_values(const wn_study *s);
wn_study_sums wn_study_sums_of(const wn_study *s, double *values);

/* A wn_job_fn (eval/work.h), ctx a wn_study: needles come first, then repeats. */
wn_status wn_study_job(wn_eval_work *w, const wn_lab *lab, void *ctx, int job, double *values,
                       wn_job_desk *desk, wn_err *err);

#endif
