/* eval/markup.c - see markup.h.
 *
 * Where a conversation is cut matters only in two places: the first message of a user is preceded
 * by other text than later ones, and a turn is fed apart from the answer before it. So the longest
 * end that P1 (or P0, where a template knows no system message) and P3 have in common is the prefix
 * of a user's message, cut between tokens and never inside one; the rest of each goes to the
 * message before it.
 */
#include "eval/markup.h"

#include "base/alloc.h"

#include <string.h>

static const char SYSTEM[] = "winnowsystem4711", FIRST[] = "winnowuser4712",
                  ANSWER[] = "winnowanswer4713", SECOND[] = "winnowuser4714";
enum { P_BEGIN, P_SYSTEM, P_USER, P_ANSWER, N_PARTS };  /* P0 to P3; P4 begins an answer, as P2
                                                           does */

typedef struct { const char *s; size_t n; } part;

/* ---- taking apart ------------------------------------------------------------------------- */

/* The one place of a word; NULL: none, or several. */
static const char *once(const char *text, const char *word)
{
    const char *at = strstr(text, word);
    return at && !strstr(at + 1, word) ? at : NULL;
}

static bool cut(const char *text, bool system, part p[N_PARTS])
{
    const char *word[] = { SYSTEM, FIRST, ANSWER, SECOND }, *from = text;
    for (int i = 0; i < N_PARTS; i++) p[i] = (part){ text, 0 };
    for (int i = system ? 0 : 1; i < N_PARTS; i++) {
        const char *at = once(text, word[i]);
        if (!at || at < from) return false;
        p[i] = (part){ from, (size_t)(at - from) };
        from = at + strlen(word[i]);
    }
    /* what stands before the user */
    if (!system) p[P_BEGIN] = p[P_SYSTEM], p[P_SYSTEM] = (part){ text, 0 };
    return true;
}

static wn_status render(const wn_chat *c, bool system, wn_chat_text *out, wn_err *err)
{
    enum { NEW_YEAR_2025 = 1735689600 };
    const wn_message m[] = {
        { "system", SYSTEM }, { "user", FIRST }, { "assistant", ANSWER }, { "user", SECOND }
    };
    return wn_chat_render(c, &(wn_chat_input){ .messages = m + !system, .n_messages = 4 - !system,
                                               .now = NEW_YEAR_2025 }, out, err);
}

/* The longest end of s, at most n bytes, that begins with a token. */
static wn_status end_of_tokens(const wn_model *m, part s, size_t n, size_t *out, wn_err *err)
{
    int32_t *ids;
    size_t n_ids, k = 0;
    wn_status st = wn_tokens_from_text(m, s.s, s.n, WN_PARSE_SPECIAL | WN_NO_BOS, &ids, &n_ids,
                                       err);
    if (st) return st;
    for (*out = 0; n_ids && k <= n; k += wn_token_text(m, ids[--n_ids], true, NULL, 0)) *out = k;
    if (k <= n) *out = k;
    *out = WN_MIN(*out, s.n);           /* some tokenizers put a space in front */
    wn_tokens_free(ids);
    return WN_OK;
}

static wn_status common_end(const wn_model *m, part a, part b, size_t *out, wn_err *err)
{
    size_t n = 0, had;
    wn_status st = WN_OK;
    while (n < a.n && n < b.n && a.s[a.n - n - 1] == b.s[b.n - n - 1]) n++;
    do {
        had = n;
        if (!st) st = end_of_tokens(m, a, n, &n, err);
        if (!st) st = end_of_tokens(m, b, n, &n, err);
    } while (!st && n < had);
    *out = n;
    return st;
}

/* What is fed begins with the model's BOS once; a template that writes it would make two. */
static wn_status without_bos(const wn_model *m, part *p, wn_err *err)
{
    int32_t *ids, bos = wn_model_bos(m);
    size_t n;
    wn_status st = wn_tokens_from_text(m, p->s, p->n, WN_PARSE_SPECIAL, &ids, &n, err);
    if (st) return st;
    if (n > 1 && bos >= 0 && ids[0] == bos && ids[1] == bos) {
        size_t len = wn_token_text(m, bos, true, NULL, 0);
        p->s += len;
        p->n -= len;
    }
    wn_tokens_free(ids);
    return WN_OK;
}

/* ---- putting together ------------------------------------------------------------------------ */

static char *copy(part p, size_t from, size_t to)
{
    char *s = wn_alloc(to - from + 1);
    if (!s) return NULL;
    memcpy(s, p.s + from, to - from);
    s[to - from] = '\0';
    return s;
}

/* A text answer ends where the next message would begin, if the model does not end it before. */
static char *stop_of(part p)
{
    size_t n = p.n;
    while (n && strchr(" \n\t\r", p.s[n - 1])) n--;
    return copy(p, 0, n);
}

static wn_status take_over(wn_phrases *p, const wn_model *m, part q[N_PARTS], bool system,
                           wn_err *err)
{
    part before = q[system ? P_SYSTEM : P_BEGIN];
    size_t user;
    wn_status st;
    if ((st = without_bos(m, &q[P_BEGIN], err))) return st;
    if (!system) before = q[P_BEGIN];
    if ((st = common_end(m, before, q[P_ANSWER], &user, err))) return st;
    char *begin = copy(before, 0, before.n - user),
         *prefix = copy(before, before.n - user, before.n);
    char *first = copy(q[P_BEGIN], 0, q[P_BEGIN].n), *answer = copy(q[P_USER], 0, q[P_USER].n);
    char *after = copy(q[P_ANSWER], 0, q[P_ANSWER].n - user), *stop = stop_of(q[P_ANSWER]);
    if (begin && prefix && first && answer && after && stop) {
        wn_markup k = { .begin = system ? "" : begin, .system_prefix = system ? first : "",
                        .system_text = system ? "You are a helpful assistant." : "",
                        .system_suffix = system ? begin : "", .user_prefix = prefix,
                        .user_suffix = "", .assistant_prefix = answer, .assistant_suffix = after,
                        .question = "\n\n", .next_question = "", .stop = stop, .tight = true };
        st = wn_phrases_set_markup(p, &k, err);
    } else {
        st = wn_fail(err, WN_ENOMEM, "chat template: out of memory");
    }
    wn_free(begin);
    wn_free(prefix);
    wn_free(first);
    wn_free(answer);
    wn_free(after);
    wn_free(stop);
    return st;
}

wn_status wn_markup_learn(wn_phrases *p, const wn_model *m, const wn_chat *c, wn_err *err)
{
    wn_err why = { 0 };
    for (int system = 1; system >= 0; system--) {       /* some templates refuse or drop system
                                                           messages */
        wn_chat_text t;
        part q[N_PARTS];
        if (render(c, system, &t, &why)) continue;
        bool whole = cut(t.text, system, q);
        wn_status st = whole ? take_over(p, m, q, system, err) : WN_OK;
        wn_chat_text_release(&t);
        if (whole) return st;
    }
    return wn_fail(
        err, WN_EUNSUPPORTED,
        "the model's chat template does not write the messages of a conversation one after the "
        "other%s%.200s; take other turns: --template base, --template chat (ChatML) or a file",
        why.status ? ": " : "", why.text);
}

wn_status wn_phrases_open_for(wn_phrases **out, const char **family, const char *haystack,
                              const wn_model *m, wn_err *err)
{
    wn_model_info mi;
    wn_chat *c = NULL;
    wn_model_get_info(m, &mi);
    if (!*family) *family = wn_phrases_guess(mi.name, mi.chat_template);
    bool own = !strcmp(*family, "model");
    wn_status st = wn_phrases_open(out, own ? "base" : *family, haystack, err);
    if (st || !own) return st;
    if (!(st = wn_chat_open(&c, m, NULL, err))) st = wn_markup_learn(*out, m, c, err);
    wn_chat_close(c);
    if (!st) return WN_OK;
    wn_phrases_close(*out);
    *out = NULL;
    return st;
}
