/* eval/tasks.h - the tasks there are, for the registry in task.c. */
#ifndef WN_EVAL_TASKS_H
#define WN_EVAL_TASKS_H

#include "eval/task.h"

extern const wn_task wn_task_passkey, wn_task_needle, wn_task_multikey, wn_task_multivalue,
    wn_task_multiquery;
extern const wn_task wn_task_lookup, wn_task_variable;
extern const wn_task wn_task_digits, wn_task_toolcall, wn_task_list;
extern const wn_task wn_task_questions, wn_task_multiturn;
extern const wn_task wn_task_instructions;

#endif
