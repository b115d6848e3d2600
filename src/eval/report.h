/* eval/report.h - a report as JSON, CSV, or tables for people. */
#ifndef WN_EVAL_REPORT_H
#define WN_EVAL_REPORT_H

#include "eval/eval.h"

#include <stdio.h>

/* Figures that were not measured are null (JSON) or empty (CSV). false: writing failed. */
bool wn_eval_write_json(FILE *f, const wn_eval_report *r, const bool ask[WN_ASK_MODES]);
bool wn_eval_write_csv(FILE *f, const wn_eval_report *r, const bool ask[WN_ASK_MODES]);
bool wn_eval_write_table(FILE *f, const wn_eval_report *r, const bool ask[WN_ASK_MODES]);
bool wn_eval_write_markdown(FILE *f, const wn_eval_report *r, const bool ask[WN_ASK_MODES]);

double wn_eval_layers_mean(const double *x, int n_layers);

#endif
