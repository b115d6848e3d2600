/* eval/usable.h - the longest context at which a model, with its full cache, still answers. */
#ifndef WN_EVAL_USABLE_H
#define WN_EVAL_USABLE_H

#include "eval/work.h"

/* *length: the longest multiple of an eighth of max (at least 64) at which `none` solves 90 %
 * of passkey and of lookup, found by bisection; 0: not even the shortest. */
wn_status wn_usable_find(int *length, wn_eval_work *w, int max, wn_err *err);

#endif
