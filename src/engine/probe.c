/* engine/probe.c - tokens that are run on a throw-away fork to see what of the text they look at.
 *
 * A recipe with a probe asks what queries that do not exist yet would attend to: those of the
 * text repeated, or of the likeliest continuation. Right before a decision at p the cache is
 * forked, the probe's tokens stand at p and behind, and a ledger adds up what they give to the
 * slots in front of p; then the fork is dropped. It shares all full pages with its sequence:
 * its own are a copy of the page that is filling, and the probe's rows.
 *
 *     repeat:   | protected | chunk, live |  p: what is said | overlap, chunk |   one fork for each chunk
 *     ahead:    | the text                |  p: t0 t1 ... |                       t0: the likeliest token at p
 *     episodes: | the text                |  p: what is said | typical pieces |   one fork for each episode
 *
 * What a probe does depends on the tokens before p and what is live there, so decisions stay
 * what the determinism law wants; it runs in passes of its own, one sequence at a time. Queries
 * at p and behind may stand beyond the context, and beyond what the model was trained for:
 * rotations go on, what the model makes of it is the method's affair (smaller chunks help).
 *
 * Memory: a promise holds what forks take of the pool (promise.c), needs.c the rest. A fork's
 * tables come from the allocator, and go back before the decision; the pages of the ledger go
 * back to the system behind it.
 */
#include "engine/engine.h"
#include "base/alloc.h"
#include "base/os.h"

#include <string.h>

enum { SAY_MAX = 64, WN_PROBE_PIECES = 64 };

static bool is_ahead(const wn_seq *s)
{
    return s->policy && s->policy->probes && s->policy->probe.kind == WN_PROBE_AHEAD;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static int chunk_of(const wn_probe *b, int n) { return b->chunk ? WN_MIN(b->chunk, n) : n; }

int wn_probe_tokens(const wn_policy *p, int n)
{
    if (!p || !p->probes) return 0;
    const wn_probe *b = &p->probe;
    switch (b->kind) {
    case WN_PROBE_AHEAD: return b->n;
    case WN_PROBE_EPISODES: return SAY_MAX + WN_MIN(b->n * b->chunk, n);
    case WN_PROBE_REPEAT: break;
    }
    return SAY_MAX + WN_MIN(b->overlap, n) + chunk_of(b, n);
}

/* Of episodes: pieces and the question, which of them is what, a token's row, and the prompt. */
size_t wn_probe_room(const wn_policy *p, const wn_model *m, int n)
{
    if (!p->probes || p->probe.kind != WN_PROBE_EPISODES) return 0;
    size_t pieces = (size_t)wn_episode_pieces(n, p->probe.chunk) + 1;
    return pieces * (WN_EPISODE_DIM * sizeof(float) + sizeof(int)) +
           (size_t)m->hp.n_embd * sizeof(float);
}

static size_t row_floats(const wn_seq *s)
{
    return (size_t)s->opts.max_tokens + (size_t)wn_probe_tokens(s->policy, s->opts.max_tokens);
}

static size_t probed_bytes(const wn_seq *s)
{
    return sizeof(float) * row_floats(s) * (size_t)s->e->m->map.n_lanes * (size_t)s->probed.n_stats;
}

wn_status wn_seq_open_probe(wn_seq *s, wn_err *err)
{
    const wn_policy *p = s->policy;
    size_t n = 0;
    if (!p->probes) return WN_OK;
    s->probed = (wn_ledger){ .stats = p->stats, .n_stats = p->n_stats, .stride = row_floats(s) };
    if (!(s->probed.x = wn_os_map(probed_bytes(s), false)))
        return wn_fail(err, WN_ENOMEM, "policy: out of memory for a probe of %d positions",
                       s->opts.max_tokens);
    size_t room = wn_probe_room(p, s->e->m, s->opts.max_tokens);
    if (room && !(s->pieces = wn_os_map(room, false)))
        return wn_fail(err, WN_ENOMEM, "policy: out of memory for the pieces of %d positions",
                       s->opts.max_tokens);
    if (!p->probe.say) return WN_OK;
    wn_tokenize_opts o = { .no_bos_eos = true };
    wn_status st = wn_tokenize(s->e->m->tokenizer, p->probe.say, strlen(p->probe.say), &o, &s->say,
                               &n, err);
    if (!st && n > SAY_MAX)
        st = wn_fail(err, WN_ELIMIT,
                     "%s: its probe begins with %zu tokens of this model, %d are possible",
                     p->recipe->name, n, SAY_MAX);
    s->n_say = (int)n;
    return st;
}

void wn_seq_close_probe(wn_seq *s)
{
    if (s->probed.x) wn_os_unmap(s->probed.x, probed_bytes(s));
    if (s->pieces) wn_os_unmap(s->pieces, wn_probe_room(s->policy, s->e->m, s->opts.max_tokens));
    wn_free(s->say);
}

bool wn_seq_foresees(const wn_seq *s, int p) { return is_ahead(s) && wn_seq_is_point(s, p); }

int32_t wn_likeliest(const float *logits, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

void wn_seq_note_next(wn_seq *s, int p, const float *logits)
{
    if (!is_ahead(s)) return;
    s->next = wn_likeliest(logits, s->e->m->hp.n_vocab);
    s->next_at = p;
}

/* ---- running --------------------------------------------------------------------------------- */

/* n tokens at the end of the fork; counted: their weights go into the ledger. logits: of the last
 * one, or NULL. */
static wn_status run(wn_seq *s, wn_kv *fork, const int32_t *tokens, int n, bool counted,
                     float *logits, wn_err *err)
{
    wn_engine *e = s->e;
    for (int at = 0, rows; at < n; at += rows) {
        rows = WN_MIN(n - at, e->n_batch);
        wn_status st = wn_kv_reserve(fork, rows, err);
        if (st) return wn_fail_prefix(err, st, "the probe at position %d", wn_kv_n(s->kv));
        int out = rows - 1;
        bool last = logits && at + rows == n;
        wn_attend_item item = { .kv = fork, .pos = wn_kv_n(fork), .n_rows = rows,
                                .ledger = counted ? &s->probed : NULL };
        wn_pass p = { .n_rows = rows, .n_ctx = e->n_ctx, .tokens = tokens + at, .items = &item,
                      .n_items = 1, .out_rows = &out, .n_out = last, .logits = logits,
                      .arena = &e->scratch, .team = e->team };
        wn_mark mark = wn_arena_mark(&e->scratch);
        wn_seq_count_observed(s, fork, rows);
        wn_pass_begin(&p, e->m);
        e->m->arch->forward(e->m, &p);
        wn_arena_rewind(&e->scratch, mark);
        wn_kv_commit(fork, rows);
    }
    return WN_OK;
}

/* Of the fork nothing stays but what is protected and [from, to). */
static wn_status narrow(wn_seq *s, wn_kv *fork, int p, int from, int to, wn_err *err)
{
    const wn_lane_map *map = wn_kv_map(fork);
    wn_arena *a = &s->e->decisions;
    wn_mark mark = wn_arena_mark(a);
    const uint64_t *named = wn_seq_protected(s, p, a);
    wn_plan_clear(&s->plan);
    s->plan.n_tokens = p;
    s->plan.no_repack = true;           /* a fork that is dropped at once */
    for (int i = WN_MIN(s->policy->first, p), end; i < p; i = end) {
        bool stays = (i >= from && i < to) || i >= p - s->policy->last ||
                     (named && named[i >> 6] >> (i & 63) & 1);
        end = i + 1;
        for (int l = 0; l < map->n_lanes && !stays; l++)
            if (!map->lanes[l].window) wn_plan_drop(&s->plan, l, i, end);
    }
    wn_arena_rewind(a, mark);
    wn_status st = s->plan.status ? wn_fail(err, s->plan.status,
                                            "the probe at position %d could not be built", p)
                                  : WN_OK;
    if (!st && !wn_plan_is_empty(&s->plan)) st = wn_kv_apply(fork, &s->plan, err);
    return st;
}

static wn_status repeat(wn_seq *s, int p, wn_err *err)
{
    const wn_probe *b = &s->policy->probe;
    int size = chunk_of(b, p);
    wn_status st = WN_OK;
    for (int from = 0; from < p && !st; from += size) {
        int to = WN_MIN(from + size, p), before = WN_MIN(from, b->overlap);
        wn_kv *fork;
        if ((st = wn_kv_fork(&fork, s->kv, p + wn_probe_tokens(s->policy, p), err))) return st;
        if (size < p) st = narrow(s, fork, p, from, to, err);
        if (!st) st = run(s, fork, s->say, s->n_say, false, NULL, err);
        if (!st) st = run(s, fork, s->tokens + from - before, before + to - from, true, NULL, err);
        wn_kv_close(fork);
    }
    return st;
}

static wn_status ahead(wn_seq *s, int p, wn_err *err)
{
    wn_kv *fork;
    int32_t token = s->next;
    WN_ASSERT(s->next_at == p);         /* logits were asked for there (step.c) */
    wn_status st = wn_kv_fork(&fork, s->kv, p + s->policy->probe.n, err);
    if (st) return st;
    for (int i = 0;
         i < s->policy->probe.n && !st && !wn_tokenizer_is_end(s->e->m->tokenizer, token); i++) {
        bool more = i + 1 < s->policy->probe.n;
        st = run(s, fork, &token, 1, true, more ? s->e->logits : NULL, err);
        if (more) token = wn_likeliest(s->e->logits, s->e->m->hp.n_vocab);
    }
    wn_kv_close(fork);
    return st;
}

/* What is said, and the episode's pieces, in the order of the text. */
static wn_status run_episode(wn_seq *s, int p, int n, const int *pieces, int n_pieces, wn_err *err)
{
    wn_kv *fork;
    int size = s->policy->probe.chunk;
    wn_status st = wn_kv_fork(&fork, s->kv, p + wn_probe_tokens(s->policy, p), err);
    if (st) return st;
    st = run(s, fork, s->say, s->n_say, true, NULL, err);
    for (int i = 0; i < n_pieces && !st; i++) {
        int from = pieces[i] * size;
        st = run(s, fork, s->tokens + from, WN_MIN(size, n - from), true, NULL, err);
    }
    wn_kv_close(fork);
    return st;
}

static wn_status episodes(wn_seq *s, int p, wn_err *err)
{
    const wn_probe *b = &s->policy->probe;
    const wn_model *m = s->e->m;
    double centres[WN_EPISODES_MAX * WN_EPISODE_DIM];
    int typical[WN_PROBE_PIECES], n = b->question < p ? p - b->question : p, size = b->chunk,
                                  n_pieces = wn_episode_pieces(n, size);
    float *x = s->pieces, *row = x + (size_t)(n_pieces + 1) * WN_EPISODE_DIM,
          *question = x + (size_t)n_pieces * WN_EPISODE_DIM;
    int *of = (int *)(void *)(row + m->hp.n_embd);
    for (int i = 0; i < n_pieces; i++)
        wn_episode_embed(m, s->tokens + i * size, WN_MIN(size, n - i * size), row,
                         x + (size_t)i * WN_EPISODE_DIM);
    int k = wn_episode_cluster(x, n_pieces, b->episodes, of, centres), first = 0, last = k;
    if (b->question) {
        wn_episode_embed(m, s->tokens + (p - n ? n : 0), p - n ? p - n : p, row, question);
        first = wn_episode_nearest(question, centres, k);
        last = first + 1;
    }
    wn_status st = WN_OK;
    for (int c = first; c < last && !st; c++)
        st = run_episode(s, p, n, typical,
                         wn_episode_typical(x, n_pieces, of, centres, c, b->n, typical), err);
    return st;
}

/* Would the policy drop anything? */
static bool is_idle(const wn_seq *s, int p)
{
    const wn_lane_map *map = wn_kv_map(s->kv);
    int lanes = 0;
    int64_t slots = 0;
    for (int l = 0; l < map->n_lanes; l++) {
        if (map->lanes[l].window) continue;
        slots += wn_kv_live(s->kv, l);
        lanes += wn_kv_live(s->kv, l) > 0;
    }
    return wn_policy_is_idle(s->policy, p, wn_seq_slot_bytes(s), lanes, slots);
}

wn_status wn_seq_probe(wn_seq *s, int p, wn_err *err)
{
    if (!s->probed.x || is_idle(s, p)) return WN_OK;
    switch (s->policy->probe.kind) {
    case WN_PROBE_AHEAD: return ahead(s, p, err);
    case WN_PROBE_EPISODES: return episodes(s, p, err);
    case WN_PROBE_REPEAT: break;
    }
    return repeat(s, p, err);
}

void wn_seq_forget_probe(wn_seq *s)
{
    if (s->probed.x) wn_os_discard(s->probed.x, probed_bytes(s));
}
