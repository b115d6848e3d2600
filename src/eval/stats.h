/* eval/stats.h - the arithmetic of the figures, in double. */
#ifndef WN_EVAL_STATS_H
#define WN_EVAL_STATS_H

#include <stddef.h>

/* KL(p || q) in nats, p and q the softmax of two rows of n logits. Exactly 0 for equal bytes. */
double wn_stat_kl(const float *p_logits, const float *q_logits, int n);
double wn_stat_log_sum(const float *logits, int n);     /* ln of the sum of exp */
/* The same where that is known of both, zp and zq: one pass over the rows in place of three. */
double wn_stat_kl_of(const float *p_logits, double zp, const float *q_logits, double zq, int n);
/* -ln softmax(logits)[id] */
double wn_stat_nll(const float *logits, int n, int id);
int wn_stat_argmax(const float *logits, int n);         /* ties: the lower index */
/* The value below which a share q of n values lies (nearest rank); sorts x. */
double wn_stat_percentile(double *x, size_t n, double q);
double wn_stat_mean(const double *x, size_t n);         /* 0 for none; summed in order */
double wn_stat_se(const double *x, size_t n);           /* standard error of the mean; 0 below 2 */

#endif
