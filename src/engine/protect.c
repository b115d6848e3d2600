/* engine/protect.c - positions that a caller names: those that stay whatever the policy thinks of
 * them, and spans that belong together.
 *
 * A caller names ranges of positions, or marks them as the system prompt, before the
 * decisions that could drop them: what a decision at p does depends on tokens, marks and
 * ranges below p, so a range cannot be added to decisions that have been taken. Ranges go
 * along with the sequence, as marks do: into forks and sessions up to the tokens there are,
 * and a truncation takes back what was said of the positions it takes back. So do spans, for
 * policies that look at them; they need no room.
 *
 * Protected slots count inside the budget; where more is protected than the budget has, they
 * all stay and nothing else does. A lane then holds more than the budget, so what a sequence
 * was promised grows by the positions that are named (promise.c, needs.c).
 */
#include "engine/engine.h"
#include "base/alloc.h"

#include <string.h>

static size_t n_words(const wn_seq *s) { return ((size_t)s->opts.max_tokens + 63) / 64; }
static bool has(const uint64_t *bits, int i) { return bits && bits[i >> 6] >> (i & 63) & 1; }

/* Does this policy keep what was named so? */
static bool counts(const wn_policy *p, wn_range_kind kind)
{
    return p && wn_policy_decides(p) && (kind == WN_RANGE_NAMED || p->system);
}

/* Positions below n that the policy is to keep. */
static int n_held(const wn_seq *s, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++) {
        bool held = false;
        for (int k = 0; k < WN_RANGE_KINDS; k++)
            held |= counts(s->policy, (wn_range_kind)k) && has(s->ranges[k], i);
        sum += held;
    }
    return sum;
}

/* A parked sequence takes its decisions again. */
int wn_seq_last_decision(const wn_seq *s)
{
    int n = wn_seq_n_computed(s);
    return WN_MAX(s->decided_at, n ? wn_seq_last_point(s, n - 1) : 0);
}

/* Makes the promises for so many positions held; all stays as it was on failure. */
static wn_status hold(wn_seq *s, int n, wn_err *err)
{
    int before = s->n_held;
    if (n == before || !s->policy || !wn_policy_decides(s->policy)) return WN_OK;
    wn_seq_unclaim(s);
    s->n_held = n;
    wn_status st = wn_seq_claim(s, err);
    if (!st && (st = wn_seq_promise_again(s, err))) wn_seq_unclaim(s);
    if (!st) return WN_OK;
    s->n_held = before;
    wn_status back = wn_seq_claim(s, NULL);
    WN_ASSERT(!back);
    return st;
}

static wn_status need_bits(wn_seq *s, int plane, wn_err *err)
{
    if (s->ranges[plane] || (s->ranges[plane] = WN_NEW_ARRAY(uint64_t, n_words(s)))) return WN_OK;
    return wn_fail(err, WN_ENOMEM, "named positions: out of memory");
}

static void set(uint64_t *bits, int from, int to, bool on)
{
    for (int i = from; i < to; i++) {
        if (on) bits[i >> 6] |= 1ull << (i & 63);
        else bits[i >> 6] &= ~(1ull << (i & 63));
    }
}

wn_status wn_seq_protect(wn_seq *s, int from, int to, wn_range_kind kind, wn_err *err)
{
    if (kind != WN_RANGE_NAMED && kind != WN_RANGE_SYSTEM)
        return wn_fail(err, WN_EINVAL, "there is no range of kind %d", (int)kind);
    if (from < 0 || to < from || to > s->opts.max_tokens)
        return wn_fail(err, WN_EINVAL,
                       "positions %d to %d cannot be protected: this sequence has room for %d",
                       from, to, s->opts.max_tokens);
    wn_status st = need_bits(s, (int)kind, err);
    int decided = wn_seq_last_decision(s);
    while (from < to && has(s->ranges[kind], from)) from++;     /* said already */
    while (to > from && has(s->ranges[kind], to - 1)) to--;
    if (st || from == to) return st;
    if (s->decide && from < decided)
        return wn_fail(
            err, WN_EINVAL,
            "positions %d to %d cannot be protected any more: the decision at %d has been taken "
            "without them; name ranges before the tokens behind them are computed",
            from, to, decided);
    if (counts(s->policy, kind) && s->policy->recipe->bounded &&
        s->opts.max_tokens > s->e->m->hp.n_ctx_train)
        return wn_fail(
            err, WN_EINVAL,
            "positions %d to %d cannot be protected: %s goes beyond the %d tokens that the model "
            "was trained for only because nothing but its own slots stays",
            from, to, s->policy->recipe->name, s->e->m->hp.n_ctx_train);
    uint64_t *bits = s->ranges[kind];
    uint64_t *had = wn_alloc(n_words(s) * sizeof *had);
    if (!had) return wn_fail(err, WN_ENOMEM, "protected positions: out of memory");
    memcpy(had, bits, n_words(s) * sizeof *had);
    set(bits, from, to, true);
    if ((st = wn_seq_hold_ranges(s, err))) memcpy(bits, had, n_words(s) * sizeof *had);
    wn_free(had);
    return st;
}

/* Spans do not overlap. One that is named again may have become longer, as the text has: after a
 * truncation a sequence has what is left of it. */
wn_status wn_seq_name_span(wn_seq *s, int from, int to, wn_err *err)
{
    const uint64_t *in = s->ranges[WN_PLANE_SPAN], *begins = s->ranges[WN_PLANE_BEGIN];
    wn_status st;
    if (from < 0 || to < from || to > s->opts.max_tokens)
        return wn_fail(err, WN_EINVAL,
                       "positions %d to %d cannot be a span: this sequence has room for %d", from,
                       to, s->opts.max_tokens);
    if (from == to) return WN_OK;
    int had = from;                     /* up to here it is named already */
    while (had < to && has(in, had) && (had == from) == has(begins, had)) had++;
    for (int i = had; i <= to && i < s->opts.max_tokens; i++)
        if (has(in, i) && (i < to || !has(begins, i)))
            return wn_fail(err, WN_EINVAL,
                           "positions %d to %d cannot be a span: %d is in another one", from, to,
                           i);
    if (had == to) return WN_OK;
    if (s->policy && wn_policy_wants(s->policy) & WN_WANTS_SPANS && had < wn_seq_last_decision(s))
        return wn_fail(
            err, WN_EINVAL,
            "positions %d to %d cannot be a span any more: the decision at %d has been taken "
            "without it; name spans before the tokens behind them are computed",
            had, to, wn_seq_last_decision(s));
    if ((st = need_bits(s, WN_PLANE_SPAN, err)) || (st = need_bits(s, WN_PLANE_BEGIN, err)))
        return st;
    set(s->ranges[WN_PLANE_SPAN], had, to, true);
    set(s->ranges[WN_PLANE_BEGIN], from, from + 1, true);
    return WN_OK;
}

wn_status wn_seq_add_range(wn_seq *s, int from, int to, int plane, wn_err *err)
{
    wn_status st = need_bits(s, plane, err);
    if (!st) set(s->ranges[plane], from, to, true);
    return st;
}

wn_status wn_seq_hold_ranges(wn_seq *s, wn_err *err)
{
    return hold(s, n_held(s, s->opts.max_tokens), err);
}

void wn_seq_cut_ranges(wn_seq *s, int n)
{
    for (int k = 0; k < WN_PLANES; k++)
        if (s->ranges[k]) set(s->ranges[k], n, s->opts.max_tokens, false);
    wn_status st = wn_seq_hold_ranges(s, NULL);
    WN_ASSERT(!st);                     /* less than before */
}

wn_status wn_seq_copy_ranges(wn_seq *s, const wn_seq *src, int n, wn_err *err)
{
    wn_status st;
    for (int k = 0; k < WN_PLANES; k++) {
        if (!src->ranges[k]) continue;
        if ((st = need_bits(s, k, err))) return st;
        memcpy(s->ranges[k], src->ranges[k], n_words(s) * sizeof(uint64_t));
        set(s->ranges[k], n, s->opts.max_tokens, false);
    }
    s->n_held = n_held(s, n);
    return WN_OK;
}

bool wn_seq_next_range(const wn_seq *s, int n, int *plane, int *from, int *to)
{
    for (int k = *plane, at = *to; k < WN_PLANES; k++, at = 0) {
        while (at < n && !has(s->ranges[k], at)) at++;
        if (at >= n || !s->ranges[k]) continue;
        *plane = k;
        for (*from = *to = at; *to < n && has(s->ranges[k], *to); ++*to) {}
        return true;
    }
    return false;
}

/* The last special tokens of a text: as many as promises count on. */
static void add_specials(const wn_seq *s, int n, uint64_t *bits)
{
    int left = WN_POLICY_SPECIALS;
    for (int i = n - 1; i >= 0 && left > 0; i--) {
        if (!wn_tokenizer_is_special(s->e->m->tokenizer, s->tokens[i])) continue;
        bits[i >> 6] |= 1ull << (i & 63);
        left--;
    }
}

const uint64_t *wn_seq_protected(const wn_seq *s, int n, wn_arena *a)
{
    const wn_policy *p = s->policy;
    size_t words = ((size_t)n + 63) / 64;
    bool any = p->special;
    for (int k = 0; k < WN_RANGE_KINDS; k++) any |= s->ranges[k] && counts(p, (wn_range_kind)k);
    if (!any) return NULL;
    uint64_t *bits = wn_arena_array(a, uint64_t, words);
    memset(bits, 0, words * sizeof *bits);
    for (int k = 0; k < WN_RANGE_KINDS; k++)
        for (size_t w = 0; s->ranges[k] && counts(p, (wn_range_kind)k) && w < words; w++)
            bits[w] |= s->ranges[k][w];
    if (n % 64) bits[words - 1] &= (1ull << (n % 64)) - 1;
    if (p->special) add_specials(s, n, bits);
    return bits;
}
