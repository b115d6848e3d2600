/* eval/choices.h - multiple choice from memory; the rest is in eval/task.h. */
#ifndef WN_EVAL_CHOICES_H
#define WN_EVAL_CHOICES_H

#include "eval/task.h"

/* As wn_choices_load(), from the bytes of a file of that name. */
wn_status wn_choices_parse(wn_choice **out, int *n, const char *text, size_t n_text,
                           const char *name, wn_err *err);

#endif
