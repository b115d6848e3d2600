/* policy/plan.c - building a plan: masks over positions, and three arrays of entries, each
 * chained by lane so that whoever carries the plan out meets a lane's entries together.
 *
 * A failure while building is remembered and ends the building; recipes need not check
 * each call. Memory is taken at first use and kept when the plan is cleared.
 */
#include "policy/plan.h"

#include "base/alloc.h"

#include <string.h>

static size_t words_of(int n_tokens) { return ((size_t)n_tokens + 63) / 64; }

void wn_plan_init(wn_plan *p, int n_tokens, int n_lanes)
{
    *p = (wn_plan){ .n_tokens = n_tokens, .n_lanes = n_lanes, .cap_tokens = n_tokens };
    if (n_tokens < 0 || n_lanes < 1) p->status = WN_EINVAL;
}

void wn_plan_release(wn_plan *p)
{
    wn_free(p->keep);
    wn_free(p->low);
    wn_free(p->words);
    wn_free(p->low_words);
    wn_free(p->chains);
    wn_free(p->merges);
    wn_free(p->src);
    wn_free(p->wk);
    wn_free(p->wv);
    wn_free(p->biases);
    wn_free(p->shifts);
    *p = (wn_plan){ 0 };
}

static void clear_chains(wn_plan *p)
{
    for (int i = 0; p->chains && i < p->n_lanes * WN_PLAN_CHAINS; i++)
        p->chains[i] = (wn_plan_chain){ -1, -1 };
}

void wn_plan_clear(wn_plan *p)
{
    if (p->keep) memset(p->keep, 0, (size_t)p->n_lanes * sizeof *p->keep);
    if (p->low) memset(p->low, 0, (size_t)p->n_lanes * sizeof *p->low);
    p->n_merges = p->n_src = p->n_biases = p->n_shifts = 0;
    p->no_repack = false;
    p->status = p->n_lanes < 1 ? WN_EINVAL : WN_OK;
    clear_chains(p);
}

bool wn_plan_is_empty(const wn_plan *p)
{
    for (int l = 0; p->keep && l < p->n_lanes; l++)
        if (p->keep[l]) return false;
    for (int l = 0; p->low && l < p->n_lanes; l++)
        if (p->low[l]) return false;
    return !p->n_merges && !p->n_biases && !p->n_shifts;
}

/* ---- growing -------------------------------------------------------------------------- */

static bool failed(wn_plan *p, wn_status st)
{
    if (!p->status) p->status = st;
    return false;
}

/* Room for `more` entries after n; the array may move. */
static bool grow(wn_plan *p, void **array, int32_t *cap, int32_t n, int32_t more, size_t size)
{
    if (more > INT32_MAX / 2 - n) return failed(p, WN_EINVAL);
    if (n + more <= *cap) return true;
    int32_t want = WN_MAX(n + more, WN_MAX(64, *cap * 2));
    void *a = wn_realloc(*array, (size_t)want * size);
    if (!a) return failed(p, WN_ENOMEM);
    *array = a;
    *cap = want;
    return true;
}

/* Entry `index` is the lane's last now; returns the one before it, -1 for none, -2 on
 * failure. */
static int32_t chain(wn_plan *p, int lane, int kind, int32_t index)
{
    if (!p->chains) {
        p->chains = wn_alloc((size_t)p->n_lanes * WN_PLAN_CHAINS * sizeof *p->chains);
        if (!p->chains) {
            failed(p, WN_ENOMEM);
            return -2;
        }
        clear_chains(p);
    }
    wn_plan_chain *c = &p->chains[lane * WN_PLAN_CHAINS + kind];
    int32_t before = c->last;
    if (before < 0) c->first = index;
    c->last = index;
    return before;
}

/* The lanes an entry is for: [*from, *to). */
static bool lanes(wn_plan *p, int lane, int *from, int *to)
{
    if (p->status) return false;
    if (p->n_tokens > p->cap_tokens || lane < WN_ALL_LANES || lane >= p->n_lanes)
        return failed(p, WN_EINVAL);
    *from = lane == WN_ALL_LANES ? 0 : lane;
    *to = lane == WN_ALL_LANES ? p->n_lanes : lane + 1;
    return true;
}

/* ---- masks ---------------------------------------------------------------------------- */

/* The lane's mask, all ones if it had none. Row n_lanes is scratch. */
static uint64_t *mask(wn_plan *p, int lane)
{
    size_t row = words_of(p->cap_tokens);
    if (!p->keep && !(p->keep = WN_NEW_ARRAY(uint64_t *, p->n_lanes))) {
        failed(p, WN_ENOMEM);
        return NULL;
    }
    if (!p->words && !(p->words = WN_NEW_ARRAY(uint64_t, row * ((size_t)p->n_lanes + 1)))) {
        failed(p, WN_ENOMEM);
        return NULL;
    }
    if (lane == p->n_lanes) return p->words + row * (size_t)lane;
    if (!p->keep[lane]) {
        p->keep[lane] = p->words + row * (size_t)lane;
        memset(p->keep[lane], 0xff, words_of(p->n_tokens) * 8);
    }
    return p->keep[lane];
}

void wn_plan_drop(wn_plan *p, int lane, int from, int to)
{
    int l0, l1;
    if (!lanes(p, lane, &l0, &l1)) return;
    from = WN_MAX(from, 0);
    to = WN_MIN(to, p->n_tokens);
    for (int l = l0; l < l1 && from < to; l++) {
        uint64_t *m = mask(p, l);
        if (!m) return;
        for (int w = from >> 6; w <= (to - 1) >> 6; w++) {
            uint64_t bits = ~0ull;
            if (w == from >> 6) bits &= ~0ull << (from & 63);
            if (w == (to - 1) >> 6) bits &= ~0ull >> (63 - ((to - 1) & 63));
            m[w] &= ~bits;
        }
    }
}

void wn_plan_keep_only(wn_plan *p, int lane, const int32_t *positions, int n)
{
    int l0, l1;
    if (!lanes(p, lane, &l0, &l1)) return;
    uint64_t *only = mask(p, p->n_lanes);
    size_t words = words_of(p->n_tokens);
    if (!only) return;
    memset(only, 0, words * 8);
    for (int i = 0; i < n; i++) {
        if (positions[i] < 0 || positions[i] >= p->n_tokens) {
            failed(p, WN_EINVAL);
            return;
        }
        only[positions[i] >> 6] |= 1ull << (positions[i] & 63);
    }
    for (int l = l0; l < l1; l++) {
        uint64_t *m = mask(p, l);
        for (size_t w = 0; w < words; w++) m[w] &= only[w];
    }
}

/* The lane's demotions, none if it had none. */
static uint64_t *low_mask(wn_plan *p, int lane)
{
    size_t row = words_of(p->cap_tokens);
    if (!p->low && !(p->low = WN_NEW_ARRAY(uint64_t *, p->n_lanes))) {
        failed(p, WN_ENOMEM);
        return NULL;
    }
    if (!p->low_words && !(p->low_words = WN_NEW_ARRAY(uint64_t, row * (size_t)p->n_lanes))) {
        failed(p, WN_ENOMEM);
        return NULL;
    }
    if (!p->low[lane]) {
        p->low[lane] = p->low_words + row * (size_t)lane;
        memset(p->low[lane], 0, words_of(p->n_tokens) * 8);
    }
    return p->low[lane];
}

void wn_plan_demote(wn_plan *p, int lane, const int32_t *positions, int n)
{
    int l0, l1;
    if (!lanes(p, lane, &l0, &l1)) return;
    for (int l = l0; l < l1; l++) {
        uint64_t *m = low_mask(p, l);
        for (int i = 0; m && i < n; i++) {
            if (positions[i] < 0 || positions[i] >= p->n_tokens) {
                failed(p, WN_EINVAL);
                return;
            }
            m[positions[i] >> 6] |= 1ull << (positions[i] & 63);
        }
    }
}

void wn_plan_reserve_low(wn_plan *p)
{
    if (p->status || !low_mask(p, 0)) return;
    p->low[0] = NULL;
}

/* ---- entries -------------------------------------------------------------------------- */

void wn_plan_merge_slots(wn_plan *p, int lane, int at, const int32_t *src, const float *wk,
                         const float *wv, int n, float bias, int count)
{
    int l0, l1;
    int32_t cap_k = p->cap_src, cap_v = p->cap_src;
    if (!lanes(p, lane, &l0, &l1)) return;
    bool ok = at >= 0 && at < p->n_tokens && n >= 1;
    for (int i = 0; i < n && ok; i++) ok = src[i] >= 0 && src[i] < p->n_tokens;
    if (!ok) {
        failed(p, WN_EINVAL);
        return;
    }
    if (!grow(p, (void **)&p->wk, &cap_k, p->n_src, n, sizeof *wk) ||
        !grow(p, (void **)&p->wv, &cap_v, p->n_src, n, sizeof *wv) ||
        !grow(p, (void **)&p->src, &p->cap_src, p->n_src, n, sizeof *src) ||
        !grow(p, (void **)&p->merges, &p->cap_merges, p->n_merges, l1 - l0, sizeof *p->merges))
        return;
    memcpy(p->src + p->n_src, src, (size_t)n * sizeof *src);
    memcpy(p->wk + p->n_src, wk, (size_t)n * sizeof *wk);
    memcpy(p->wv + p->n_src, wv, (size_t)n * sizeof *wv);
    for (int l = l0; l < l1; l++) {
        wn_plan_merge *m = &p->merges[p->n_merges];
        *m = (wn_plan_merge){ .lane = l, .at = at, .n_src = n, .first_src = p->n_src, .bias = bias,
                              .count = count, .next = -1 };
        int32_t before = chain(p, l, WN_PLAN_MERGES, p->n_merges);
        if (before == -2) return;
        if (before >= 0) p->merges[before].next = p->n_merges;
        p->n_merges++;
    }
    p->n_src += n;
}

void wn_plan_set_bias(wn_plan *p, int lane, int at, float bias)
{
    int l0, l1;
    if (!lanes(p, lane, &l0, &l1)) return;
    if (at < 0 || at >= p->n_tokens) {
        failed(p, WN_EINVAL);
        return;
    }
    if (!grow(p, (void **)&p->biases, &p->cap_biases, p->n_biases, l1 - l0, sizeof *p->biases))
        return;
    for (int l = l0; l < l1; l++) {
        int32_t before = chain(p, l, WN_PLAN_BIASES, p->n_biases);
        if (before == -2) return;
        if (before >= 0) p->biases[before].next = p->n_biases;
        p->biases[p->n_biases++] = (wn_plan_bias){ l, at, bias, -1 };
    }
}

void wn_plan_shift(wn_plan *p, int lane, int from, int to, int delta)
{
    int l0, l1;
    if (!lanes(p, lane, &l0, &l1)) return;
    from = WN_MAX(from, 0);
    to = WN_MIN(to, p->n_tokens);
    if (from >= to) return;
    if (!grow(p, (void **)&p->shifts, &p->cap_shifts, p->n_shifts, l1 - l0, sizeof *p->shifts))
        return;
    for (int l = l0; l < l1; l++) {
        int32_t before = chain(p, l, WN_PLAN_SHIFTS, p->n_shifts);
        if (before == -2) return;
        if (before >= 0) p->shifts[before].next = p->n_shifts;
        p->shifts[p->n_shifts++] = (wn_plan_shift_range){ l, from, to, delta, -1 };
    }
}

void wn_plan_take_lane(wn_plan *p, const wn_plan *from, int lane)
{
    const uint64_t *keep = from->keep ? from->keep[lane] : NULL;
    uint64_t *m = keep && !p->status ? mask(p, lane) : NULL;
    WN_ASSERT(from->n_tokens == p->n_tokens && from->n_lanes == p->n_lanes);
    for (size_t w = 0; m && w < words_of(p->n_tokens); w++) m[w] &= keep[w];
    for (int32_t i = wn_plan_first(from, lane, WN_PLAN_MERGES); i >= 0; i = from->merges[i].next) {
        const wn_plan_merge *x = &from->merges[i];
        wn_plan_merge_slots(p, lane, x->at, from->src + x->first_src, from->wk + x->first_src,
                            from->wv + x->first_src, x->n_src, x->bias, x->count);
    }
    for (int32_t i = wn_plan_first(from, lane, WN_PLAN_BIASES); i >= 0; i = from->biases[i].next)
        wn_plan_set_bias(p, lane, from->biases[i].at, from->biases[i].bias);
    for (int32_t i = wn_plan_first(from, lane, WN_PLAN_SHIFTS); i >= 0; i = from->shifts[i].next)
        wn_plan_shift(p, lane, from->shifts[i].from, from->shifts[i].to, from->shifts[i].delta);
    if (from->status) failed(p, from->status);
}

void wn_plan_reserve(wn_plan *p, int32_t n_merges, int32_t n_src)
{
    int32_t cap_k = p->cap_src, cap_v = p->cap_src;
    if (p->status || !mask(p, p->n_lanes)) return;
    if (n_merges > 0 && chain(p, 0, WN_PLAN_MERGES, -1) == -2) return;
    clear_chains(p);
    (void)(grow(p, (void **)&p->wk, &cap_k, 0, n_src, sizeof *p->wk) &&
           grow(p, (void **)&p->wv, &cap_v, 0, n_src, sizeof *p->wv) &&
           grow(p, (void **)&p->src, &p->cap_src, 0, n_src, sizeof *p->src) &&
           grow(p, (void **)&p->merges, &p->cap_merges, 0, n_merges, sizeof *p->merges));
}
