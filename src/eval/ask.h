/* eval/ask.h - one case (eval/task.h), all rows, before and after compression. */
#ifndef WN_EVAL_ASK_H
#define WN_EVAL_ASK_H

#include "eval/lab.h"

/* scores: (n_rows, WN_ASK_MODES), 0 .. 1; modes not asked for and rows that the desk has stay
 * untouched. */
wn_status wn_ask_case(const wn_lab *lab, const wn_lab_row *rows, int n_rows, const wn_case *c,
                      const bool ask[WN_ASK_MODES], wn_job_desk *desk, double *scores, wn_err *err);
/* Multiple choice: 1 where the right choice has the highest log probability per byte. */
wn_status wn_ask_choice(const wn_lab *lab, const wn_lab_row *rows, int n_rows, const wn_choice *c,
                        const bool ask[WN_ASK_MODES], wn_job_desk *desk, double *scores,
                        wn_err *err);

#endif
