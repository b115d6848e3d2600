/* eval/haystack.h - prose cut into sentences. */
#ifndef WN_EVAL_HAYSTACK_H
#define WN_EVAL_HAYSTACK_H

#include "eval/phrases.h"

typedef struct {
    const char *text;                   /* borrowed */
    size_t n;
    size_t *start;                      /* (n_pieces + 1) byte offsets */
    int n_pieces;
} wn_haystack;

/* Refuses a text that has not two sentences, or is not UTF-8, or holds a NUL. */
wn_status wn_haystack_init(wn_haystack *out, const char *text, size_t n, const char *name,
                           wn_err *err);
void wn_haystack_release(wn_haystack *h);
wn_piece wn_haystack_piece(const wn_haystack *h, int i);

#endif
