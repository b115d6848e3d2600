/* eval/lab.h - one worker's engine, and the few moves that measurements are made of. */
#ifndef WN_EVAL_LAB_H
#define WN_EVAL_LAB_H

#include "eval/eval.h"
#include "eval/jobs.h"

/* A row as it is run. */
typedef struct {
    wn_eval_row row;
    char kv[WN_SPEC_BYTES];             /* canonical, with its budget */
    bool shares;                        /* decides at marks only: may start as a fork of row 0 */
    bool marks;                         /* decides at marks: asking before and after differ */
    int profile;                        /* what it needs of the model's profile (WN_PROFILE_*); 0:
                                           nothing */
    const wn_format *calibrated;        /* a format of its policy that goes by a calibration; NULL:
                                           none */
    int every;                          /* the longest stretch between its decisions */
    int probe;                          /* tokens that a decision may run on a fork, however long
                                           the text */
} wn_lab_row;

typedef struct {
    wn_model *m;
    wn_engine *e;
    int n_vocab, n_layers, n_heads, answer_width, n_ctx;
    const volatile int *stop;
} wn_lab;

/* Checks the policy's words and its budget; is_none: it never decides. */
wn_status wn_lab_row_init(wn_lab_row *out, const wn_eval_row *row, wn_err *err);
/* An engine for sequences of n_ctx tokens, 4 at a time, with room for the probes of two; every,
 * probe: the most of any row. */
wn_status wn_lab_open(wn_lab *out, wn_model *m, int n_ctx, int every, int probe, int n_threads,
                      size_t mem, const volatile int *stop, wn_err *err);
void wn_lab_close(wn_lab *lab);

wn_status wn_lab_seq(wn_seq **out, const wn_lab *lab, const wn_lab_row *row, wn_err *err);
/* Starts a row from what `base` (row 0) has read, as a fork if the row allows it, else by
 * reading the same tokens itself. */
wn_status wn_lab_start(wn_seq **out, const wn_lab *lab, const wn_lab_row *row, wn_seq *base,
                       wn_err *err);
/* and computes */
wn_status wn_lab_feed(const wn_lab *lab, wn_seq *s, const int32_t *ids, size_t n, wn_err *err);
/* Greedy: *id = the most likely next token; it is fed when feed is set. */
wn_status wn_lab_greedy(const wn_lab *lab, wn_seq *s, bool feed, int32_t *id, wn_err *err);
wn_status wn_lab_tokens(const wn_lab *lab, const char *text, bool start, int32_t **ids, size_t *n,
                        wn_err *err);

#endif
