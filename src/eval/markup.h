/* eval/markup.h - how a model sets turns apart, read off its own chat template.
 *
 * Cases are made of pieces (eval/phrases.h) because a policy is asked to decide between them:
 * behind the text, behind the question. A chat template writes whole conversations. So one is
 * written whose messages are words that nobody else uses, and what stands between them is the
 * markup:
 *
 *     P0 system P1 user P2 assistant P3 user P4           P4 begins an answer
 *
 * P2 stands before answers, also before those that are asked for: as the template writes an answer
 * that has been given, so without the thoughts that P4 may ask for, since an answer is begun with
 * words of ours.
 */
#ifndef WN_EVAL_MARKUP_H
#define WN_EVAL_MARKUP_H

#include "eval/phrases.h"

/* The markup of conversations in this template, set in p. WN_EUNSUPPORTED when it does not write
 * messages one after the other as they are. The template's own date is 1 January 2025, so that
 * cases are the same every day. */
wn_status wn_markup_learn(wn_phrases *p, const wn_model *m, const wn_chat *c, wn_err *err);

/* Phrasing for a model. *family: NULL: what fits it, and told; else wn_phrases_open()'s, or
 * "model": the base phrasing in turns of the model's own chat template. */
wn_status wn_phrases_open_for(wn_phrases **out, const char **family, const char *haystack,
                              const wn_model *m, wn_err *err);

#endif
