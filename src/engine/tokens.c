/* engine/tokens.c - what a view says of the tokens at positions, live or not.
 *
 * It follows from the ids of a text and from the vocabulary, so nothing of it is stored: forks,
 * truncations and sessions have it because they have the tokens.
 */
#include "engine/engine.h"

const uint8_t *wn_seq_flags(const wn_seq *s, int n, wn_arena *a)
{
    const wn_tokenizer *t = s->e->m->tokenizer;
    uint8_t *flags = wn_arena_array(a, uint8_t, n);
    for (int i = 0; i < n; i++) {
        bool special = wn_tokenizer_is_special(t, s->tokens[i]), mark = wn_tokenizer_is_punctuation(t, s->tokens[i]);
        flags[i] = (uint8_t)((special ? WN_FLAG_SPECIAL : 0) | (mark ? WN_FLAG_PUNCTUATION : 0));
    }
    return flags;
}
