/* eval/phrases_grammar.h - is this JSON a template? For phrases.c, which reads the file and
 * hands out what it says.
 *
 * name is the template's, for errors. What wn_template_check() lets pass can be taken for granted:
 * every key of the table in phrases_grammar.c is there, of its type, and every phrase can be
 * filled in.
 */
#ifndef WN_EVAL_PHRASES_GRAMMAR_H
#define WN_EVAL_PHRASES_GRAMMAR_H

#include "eval/phrases.h"

#include <jansson.h>

/* Before anything is inherited: the keys of the outermost object. */
wn_status wn_template_check_keys(const json_t *root, const char *name, wn_err *err);
/* With what it inherits; how turns are set apart, in texts and in conversations, is borrowed from
 * root. */
wn_status wn_template_check(const json_t *root, const char *name, wn_markup *markup,
                            wn_markup *talk, wn_err *err);
/* The list of words that a placeholder draws from ("adj2": the list "adj"); NULL: no such list. */
const json_t *wn_template_list(const json_t *root, const char *name, size_t n);

#endif
