/* engine/tokens.c - what a view says of the tokens at positions, live or not.
 *
 * It follows from the ids of a text, from the vocabulary and from what the caller named
 * (protect.c), so nothing of it is stored: forks, truncations and sessions have it because they
 * have those.
 *
 * Spans that nobody named are messages and paragraphs. A message ends with a token that ends turns
 * (<|im_end|>, <|eot_id|> ...), a paragraph with a blank line; blank space belongs to what is
 * before it. A blank line right behind a special token ends nothing: chat templates put one between
 * the head of a message and its text. It goes from token to token, so what comes later changes
 * nothing of what was before.
 */
#include "engine/engine.h"

const uint8_t *wn_seq_flags(const wn_seq *s, int n, wn_arena *a)
{
    const wn_tokenizer *t = s->e->m->tokenizer;
    uint8_t *flags = wn_arena_array(a, uint8_t, n);
    for (int i = 0; i < n; i++) {
        bool special = wn_tokenizer_is_special(t, s->tokens[i]),
             mark = wn_tokenizer_is_punctuation(t, s->tokens[i]);
        flags[i] = (uint8_t)((special ? WN_FLAG_SPECIAL : 0) | (mark ? WN_FLAG_PUNCTUATION : 0));
    }
    return flags;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f' || c == '\n';
}

/* How far the text before a token is from a new span. */
typedef struct {
    bool ended;                         /* by the end of a message */
    bool head;                          /* nothing but blank space since a special token */
    int newlines;                       /* since the last character that is not blank */
} gap;

/* Does a span begin with this token? Half of a character is not blank, whatever it becomes. */
static bool step(gap *g, const wn_tokenizer *t, int32_t id)
{
    char text[256];
    bool begins = false, special = wn_tokenizer_is_special(t, id);
    size_t n = special ? 0 : wn_token_bytes(t, id, false, text, sizeof text);
    if (special) {
        begins = g->ended || g->newlines > 1;
        *g = (gap){ .ended = wn_tokenizer_is_end(t, id), .head = true };
    }
    for (size_t i = 0; i < WN_MIN(n, sizeof text); i++) {
        if (is_blank(text[i])) {
            g->newlines += text[i] == '\n' && !g->head;
            continue;
        }
        begins |= g->ended || g->newlines > 1;
        *g = (gap){ 0 };
    }
    return begins;
}

static bool has(const uint64_t *bits, int i) { return bits && bits[i >> 6] >> (i & 63) & 1; }

static bool is_any(const uint64_t *bits, int n)
{
    bool any = false;
    for (int i = 0; bits && i < n && !any; i++) any = has(bits, i);
    return any;
}

const int32_t *wn_seq_spans(const wn_seq *s, int n, wn_arena *a)
{
    const uint64_t *in = s->ranges[WN_PLANE_SPAN], *begins = s->ranges[WN_PLANE_BEGIN];
    int32_t *spans = wn_arena_array(a, int32_t, n), last = 0;
    bool named = is_any(in, n);
    gap g = { 0 };
    for (int i = 0; i < n; i++)
        spans[i] = wn_span_number(&last, i ? spans[i - 1] : 0, !named || has(in, i),
                                  named ? has(begins, i)
                                        : step(&g, s->e->m->tokenizer, s->tokens[i]));
    return spans;
}
