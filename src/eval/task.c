/* eval/task.c - the tasks by name, from one fact to many.
 *
 * Each finds another fault of a cache policy: a needle dropped because nothing asked for it
 * yet (passkey to multiquery), tokens that all look alike (lookup), facts that only make
 * sense together (variable), copies that must be exact (digits, toolcall), questions that
 * were not known when the cache was compressed (questions, multiturn), an instruction lost
 * behind another (instructions), an answer that outgrows the memory of itself (list).
 */
#include "eval/tasks.h"

#include <string.h>

const wn_task *const wn_tasks[] = {
    &wn_task_passkey, &wn_task_needle, &wn_task_multikey, &wn_task_multivalue, &wn_task_multiquery,
    &wn_task_lookup, &wn_task_variable, &wn_task_digits, &wn_task_questions, &wn_task_multiturn,
    &wn_task_instructions, &wn_task_toolcall, &wn_task_list,
    NULL,
};

const wn_task *wn_task_find(const char *name)
{
    for (const wn_task *const *t = wn_tasks; *t; t++)
        if (!strcmp((*t)->name, name)) return *t;
    return NULL;
}
