/* eval/text.h - label-free figures: one chunk of text, all rows. */
#ifndef WN_EVAL_TEXT_H
#define WN_EVAL_TEXT_H

#include "eval/lab.h"

enum { WN_EVAL_GREEDY = 64 };           /* tokens of the greedy continuation that are compared */

/* What is kept of a chunk of `context` tokens. */
typedef struct {
    int context, half;                  /* the mark is at half = context / 2 */
    int n_scored, stride;               /* positions half + i * stride whose distributions are
                                           compared */
    int n_samples;                      /* positions at which attention is looked at */
    int n_layers, n_rows;
    size_t row_values;                  /* doubles per row */
} wn_text_shape;

/* Doubles of a row: n_scored KL values, then these, then mass[n_layers], error[n_layers],
 * recovered[n_layers]. */
enum {
    WN_TEXT_TOP1,
    WN_TEXT_NLL,
    WN_TEXT_N_NLL,
    WN_TEXT_DIVERGE,
    WN_TEXT_BYTES,
    WN_TEXT_ATTENDED,
    WN_TEXT_FIXED
};

wn_text_shape wn_text_shape_of(const wn_model *m, int context, int n_rows);

/* values: (n_rows, row_values). ids: (context); rows[0] is the full cache. Rows that the desk has
 * stay as they are. */
wn_status wn_text_run(const wn_lab *lab, const wn_text_shape *shape, const wn_lab_row *rows,
                      const int32_t *ids, wn_job_desk *desk, double *values, wn_err *err);

#endif
