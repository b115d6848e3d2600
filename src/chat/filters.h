/* chat/filters.h - the two halves of the filters: those of text and numbers (filters.c), those
 * of lists and dicts (filters_list.c). */
#ifndef WN_CHAT_FILTERS_H
#define WN_CHAT_FILTERS_H

#include "chat/run.h"

const wn_builtin *wn_list_filter_find(const wn_string *name);

#endif
