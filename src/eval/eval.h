/* eval/eval.h - how much did a policy cost?
 *
 * Every policy is a row, compared with the full cache of the same model (row 0: `none` with
 * an f16 cache). Two kinds of measurement:
 *
 *   text    Chunks of `context` tokens. The first half is read, a mark is set, the second
 *           half is fed as it stands; at each of its positions the distribution over the
 *           next token is compared with the full cache's. Needs no labels.
 *   tasks   Cases with exact answers (eval/task.h), asked after compression (agnostic: the
 *           mark comes before the question) and before it (aware: the mark comes after).
 *
 * Work is cut into jobs (one chunk, or one case; all rows of it), spread over workers, and
 * reduced in the order of the jobs: the figures do not depend on how many workers there
 * were, nor on an interruption in between (eval/jobs.h keeps a journal). Rows that decide at
 * marks only share one reading of what comes before their mark. docs/evaluation.md says what
 * each figure means.
 */
#ifndef WN_EVAL_EVAL_H
#define WN_EVAL_EVAL_H

#include "engine/engine.h"
#include "eval/task.h"

typedef struct {
    const char *kv;                     /* a policy */
    double share;                       /* > 0: the budget it gets (1 = everything); 0: as it is */
    const wn_profile *profile;          /* where its policy goes by one; NULL: that of the
                                           options */
    /* Tests: a decider in place of a policy, asked at multiples of every; formats: NULL, or a
     * policy that decides nothing, for its cache ("none,kv=q8"). */
    const char *formats;
    wn_decide *decide;
    void *decide_ctx;
    int every;
} wn_eval_row;

enum { WN_ASK_AGNOSTIC, WN_ASK_AWARE, WN_ASK_MODES };

typedef struct {
    const wn_eval_row *rows; int n_rows;        /* row 0 (none) is added in front */
    int context;                        /* tokens; 0: the usable context, found first */
    const char *text; size_t n_text;    /* for the label-free figures; NULL: the haystack's */
    int max_chunks;                     /* of text; 0: 4; -1: all; -2: none */
    const wn_task *const *tasks;        /* ends with NULL; NULL: none */
    const wn_phrases *phrases;
    const wn_choice *choices; int n_choices;
    const int *lengths; int n_lengths;  /* tokens of the cases, each up to the context; 0: the
                                           context */
    int n_seeds;                        /* cases per task and length, their depths spread; 0: 8 */
    uint64_t seed;
    bool ask[WN_ASK_MODES];
    bool find_usable, speed;
    int n_threads;                      /* 0: all processors */
    size_t mem;
    const char *journal;                /* resume file; NULL: none */
    bool keep;                          /* the journal stays when all is done: later runs take rows
                                           from it */
    const char *profile;                /* file for rows that go by a profile; NULL: beside the
                                           model */
    const char *calibration;            /* file for rows with formats that go by a calibration;
                                           NULL: beside the model */
    const char *label;                  /* what the caller chose beside this (template, files): part
                                           of its key */
    /* Called from one thread at a time. Jobs done, of how many; what comes now. */
    void (*progress)(void *ctx, const char *what, int done, int total);
    void *progress_ctx;
    const volatile int *stop;           /* set by a signal: finish early with WN_EIO
                                           "interrupted" */
} wn_eval_opts;

typedef struct { double mean, se; int n; } wn_eval_mean;        /* se: standard error of the mean */

/* One case as a row answered it. */
typedef struct {
    int length;
    double depth;                       /* of the fact; NaN: means nothing for this task */
    double score[WN_ASK_MODES];
} wn_eval_cell;

typedef struct {
    char kv[WN_SPEC_BYTES];             /* as given */
    char canonical[WN_SPEC_BYTES];
    double budget;                      /* share, 0: the policy's own */
    bool shares_prefix;                 /* its reading of what precedes the mark is row 0's */
    double kl_mean, kl_p95, kl_p99;     /* nats per token */
    double top1;                        /* share of positions with the same most likely token */
    double ppl, ppl_full;
    double diverge_at;                  /* tokens of the greedy continuation that agree, mean; of
                                           diverge_max */
    double bytes, bytes_share;          /* cache right after the mark of a chunk; of row 0's */
    double prefill_tps, decode_tps;     /* alone on all threads; NaN: not measured */
    double *mass, *error, *recovered;   /* (n_layers) attention mass kept; relative L2 error of the
                                           answers; share of the mass that is gone which merged
                                           slots take over */
    wn_eval_mean (*tasks)[WN_ASK_MODES];/* (n_tasks) */
    wn_eval_cell *cells;                /* (n_tasks, n_cells), by length, then depth */
    wn_eval_mean choices[WN_ASK_MODES];
} wn_eval_result;

typedef struct {
    char model[128];
    int context, usable_context;        /* usable: -1 not looked for, 0 none */
    int n_layers, n_tasks, n_cells, n_rows, n_chunks, n_scored, diverge_max;
    const char **task_names;
    double attended;                    /* tokens attended to: exp(entropy), mean over queries,
                                           heads, layers */
    wn_eval_result *rows;
} wn_eval_report;

wn_status wn_eval_run(wn_eval_report *out, wn_model *m, const wn_eval_opts *o, wn_err *err);
void wn_eval_report_release(wn_eval_report *r);
/* Can rows be ranked by this task? Not where the full cache is below 60 %. */
bool wn_eval_ranks(const wn_eval_report *r, int task, int mode);

#endif
