/* engine/engine.c - taking memory, once, and saying what was taken.
 *
 * --mem is a ceiling (DESIGN.md section 7): weights + pool + scratch + tables + 64 MiB for
 * libraries. The pool is sized for the positions asked for; where the caller named no
 * number it shrinks to what fits under the ceiling, where he did it is refused instead.
 */
#include "engine/engine.h"
#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

static const size_t LIBRARY_BYTES = (size_t)64 << 20;
enum {
    DEFAULT_BATCH = 512,
    MAX_BATCH = 4096,
    LOGITS_BYTES = 32 << 20,
    LEAST_POSITIONS = 64,
    PORTION = 512,
    MAX_CONTEXT = 1 << 26
};

/* Frames of a sequence of n positions that names the engine's policy. */
static wn_status frames_for(const wn_engine *e, int n, uint32_t counts[WN_POOL_CLASSES],
                            wn_err *err)
{
    int64_t held = (e->protected_tokens + e->max_seqs - 1) / e->max_seqs;
    return wn_seq_frames_for(&e->policy_opts, &e->policy, n, (int)WN_MIN(held, (int64_t)n), counts,
                             err);
}

int wn_engine_room(const wn_engine *e)
{
    return wn_engine_room_for(e, &e->policy_opts, &e->policy);
}

/* Positions farther apart than in training mean nothing to a model. */
wn_status wn_engine_check_reach(const wn_model *m, const wn_policy *p, int n_tokens, wn_err *err)
{
    int train = m->hp.n_ctx_train;
    int64_t reach = p ? wn_policy_reach(p) : INT64_MAX;
    if (n_tokens <= train || reach <= train) return WN_OK;
    if (reach == INT64_MAX)
        return wn_fail(
            err, WN_EINVAL,
            "context of %d tokens: the model was trained for %d; a longer one needs a cache policy "
            "that bounds distances (winnow recipes says which do)",
            n_tokens, train);
    return wn_fail(
        err, WN_EINVAL,
        "context of %d tokens: the model was trained for %d, and the cache policy looks back %lld: "
        "a smaller window",
        n_tokens, train, (long long)reach);
}

static wn_status check_opts(wn_engine *e, const wn_model *m, const wn_engine_opts *o, wn_err *err)
{
    e->n_threads = o->n_threads ? o->n_threads : wn_os_n_cpus();
    e->n_ctx = o->n_ctx ? o->n_ctx : m->hp.n_ctx_train;
    e->max_seqs = o->max_seqs ? o->max_seqs : 1;
    e->n_batch = o->n_batch ? o->n_batch : DEFAULT_BATCH;
    if (e->n_ctx < 1 || e->n_ctx > MAX_CONTEXT)
        return wn_fail(err, WN_EINVAL, "context of %d tokens: expected 1 to %d", e->n_ctx,
                       MAX_CONTEXT);
    wn_status st = wn_engine_check_reach(m, &e->policy, e->n_ctx, err);
    if (st) return st;
    if (e->n_batch < 1 || e->n_batch > MAX_BATCH)
        return wn_fail(err, WN_EINVAL, "batch of %d rows: expected 1 to %d", e->n_batch, MAX_BATCH);
    if (e->max_seqs < 1 || e->max_seqs > 4096)
        return wn_fail(err, WN_EINVAL, "%d sequences: expected 1 to 4096", e->max_seqs);
    if (o->protected_tokens < 0)
        return wn_fail(err, WN_EINVAL, "%lld protected tokens", (long long)o->protected_tokens);
    e->protected_tokens = o->protected_tokens;
    int slots = o->page_slots ? o->page_slots : WN_PAGE_SLOTS_MAX;
    if (slots < WN_PAGE_SLOTS_MIN || slots > WN_PAGE_SLOTS_MAX || (slots & (slots - 1)))
        return wn_fail(err, WN_EINVAL, "pages of %d slots: expected 4, 8, 16, 32 or 64", slots);
    const char *names[2] = { o->k_type ? o->k_type : "f16", o->v_type ? o->v_type : "f16" };
    const wn_format *f[2];
    for (int i = 0; i < 2; i++) {
        f[i] = wn_format_find(names[i]);
        if (f[i]) continue;
        return wn_format_unknown(names[i], err);
    }
    e->kv_opts = (wn_kv_opts){ .map = &m->map, .k_format = f[0], .v_format = f[1],
                               .page_slots = slots, .max_positions = e->n_ctx,
                               .max_rows = e->n_batch, .q_dim = m->hp.n_heads * m->hp.k_dim };
    e->policy_opts = e->kv_opts;
    if (!(e->formats = WN_NEW_ARRAY(wn_lane_formats, m->map.n_lanes)))
        return wn_fail(err, WN_ENOMEM, "engine: out of memory");
    if ((st = wn_policy_kv_opts(&e->policy, e->formats, &e->policy_opts, err))) return st;
    return wn_engine_bind_books(e, e->formats, err);
}

/* Frame classes are registered with a pool; to size the pool first, a pool of one extent
 * stands in. */
static wn_status learn_classes(wn_engine *e, wn_err *err)
{
    uint32_t counts[WN_POOL_CLASSES] = { 0 };
    e->policy_opts.pool = e->kv_opts.pool;
    wn_status st = wn_kv_frames_for(&e->kv_opts,
                                    &(wn_kv_hold){ .n = e->n_ctx, .slack = 1, .decides = true },
                                    counts, err);
    return st ? st : frames_for(e, e->n_ctx, counts, err);
}

/* Extents for n positions in all, however they are spread over up to max_seqs sequences.
 * Equal shares need most, but for what is rounded up to whole pages: two pages for each
 * (what stays, and what comes in between decisions). */
static size_t extents_for_positions(const wn_engine *e, int64_t n)
{
    uint32_t counts[WN_POOL_CLASSES] = { 0 }, more[WN_POOL_CLASSES] = { 0 };
    int64_t each = (n + e->max_seqs - 1) / e->max_seqs;
    int P = e->kv_opts.page_slots;
    bool decides = wn_policy_decides(&e->policy);
    if (each > INT32_MAX || frames_for(e, (int)each, counts, NULL) ||
        wn_kv_frames_for(&e->policy_opts, &(wn_kv_hold){ .n = P, .slack = decides ? P : 0,
                                                         .decides = decides,
                                                         .merges = decides }, more, NULL))
        return SIZE_MAX / WN_EXTENT_BYTES;
    for (int c = 0; c < WN_POOL_CLASSES && e->max_seqs > 1 && each < e->n_ctx; c++)
        counts[c] += more[c];
    return wn_engine_extents_for(e, counts, (uint32_t)e->max_seqs);
}

static wn_status open_pool(wn_engine *e, const wn_engine_opts *o, wn_err *err)
{
    wn_pool *learn;
    wn_status st = wn_pool_open(&learn, &(wn_pool_opts){ .bytes = WN_EXTENT_BYTES }, err);
    if (st) return st;
    e->kv_opts.pool = learn;
    if ((st = learn_classes(e, err))) goto done;

    int64_t want = o->pool_tokens ? o->pool_tokens : (int64_t)e->n_ctx * e->max_seqs;
    size_t fixed = e->m->weight_bytes + e->scratch_bytes + e->tables_bytes + LIBRARY_BYTES;
    size_t left = e->mem > fixed ? e->mem - fixed : 0;
    size_t need = extents_for_positions(e, want) * WN_EXTENT_BYTES;
    if (need > left) {
        bool asked = o->pool_tokens || o->n_ctx;
        size_t least = extents_for_positions(e, (int64_t)LEAST_POSITIONS * e->max_seqs) *
                       WN_EXTENT_BYTES;
        if (asked || least > left) {
            st = wn_fail(err, WN_ELIMIT,
                         "%lld positions of cache need %zu MiB, %zu MiB are left of %zu MiB "
                         "(--mem) after weights %zu MiB, "
                         "scratch and tables %zu MiB and 64 MiB for libraries: lower the context "
                         "or raise --mem",
                         (long long)want, need >> 20, left >> 20, e->mem >> 20,
                         e->m->weight_bytes >> 20, (e->scratch_bytes + e->tables_bytes) >> 20);
            goto done;
        }
        need = left / WN_EXTENT_BYTES * WN_EXTENT_BYTES;
    }
    wn_pool_close(learn);
    learn = NULL;
    e->kv_opts.pool = NULL;
    /* A number the caller named is a reservation: resident now, not when it is too late. The
     * whole trained context, taken by default, is touched as far as it is used. */
    wn_pool_opts po = { .bytes = need, .touch = o->pool_tokens > 0 };
    if ((st = wn_pool_open(&e->pool, &po, err))) return st;
    e->kv_opts.pool = e->pool;
    return learn_classes(e, err);
done:
    wn_pool_close(learn);
    return st;
}

wn_status wn_engine_open(wn_engine **out, wn_model *m, const wn_engine_opts *opts, wn_err *err)
{
    wn_engine_opts o = opts ? *opts : (wn_engine_opts){ 0 };
    wn_status st;
    *out = NULL;
    if (!m->layers) return wn_fail(err, WN_EINVAL, "the model was opened for its vocabulary only");
    wn_engine *e = WN_NEW(wn_engine);
    if (!e) return wn_fail(err, WN_ENOMEM, "engine: out of memory");
    e->m = m;
    if ((st = wn_policy_parse(&e->policy, o.kv ? o.kv : "none", err))) goto fail;
    if ((o.profile && !(e->profile_path = wn_strdup(o.profile))) ||
        (o.calibration && !(e->calibration_path = wn_strdup(o.calibration)))) {
        st = wn_fail(err, WN_ENOMEM, "engine: out of memory");
        goto fail;
    }
    if ((st = check_opts(e, m, &o, err))) goto fail;
    /* packed weights are taken already */
    e->mem = o.mem ? o.mem : wn_os_mem_available() / 5 * 4 + m->packed_bytes;
    /* Longrope turns keys by other rates in long contexts: other bytes for the same tokens. */
    snprintf(e->numerics, sizeof e->numerics, "%s/%d%s", wn_kernels_get()->numerics,
             WN_ORDER_VERSION, m->n_ctx_short && e->n_ctx > m->n_ctx_short ? "/long" : "");

    size_t per_row = sizeof(float) * (size_t)m->hp.n_vocab;
    e->max_out = WN_MAX(e->max_seqs, WN_MIN(e->n_batch, (int)(LOGITS_BYTES / per_row)));
    e->max_out = WN_MIN(e->max_out, e->n_batch);
    e->scratch_bytes = wn_engine_pass_bytes(e, e->n_ctx);
    e->kept_bytes = wn_attend_ledger_bytes(&m->shape, e->n_batch, e->n_threads);
    e->tables_bytes = per_row * (size_t)(e->max_out + e->max_seqs) +
                      (size_t)e->max_seqs *
                          (wn_kv_table_bytes(&e->kv_opts) + sizeof(int32_t) * (size_t)e->n_ctx);
    e->planned = wn_engine_plan_bytes(e, o.pool_tokens ? o.pool_tokens
                                                       : (int64_t)e->n_ctx * e->max_seqs);
    e->tables_bytes += e->planned + wn_engine_books_bytes(e);
    if (m->weight_bytes + e->scratch_bytes + e->tables_bytes + LIBRARY_BYTES > e->mem) {
        st = wn_fail(err, WN_ELIMIT,
                     "weights %zu MiB, scratch and tables %zu MiB (%zu MiB of them for decisions "
                     "of the cache policy) and 64 MiB for "
                     "libraries do not fit into %zu MiB (--mem)",
                     m->weight_bytes >> 20, (e->scratch_bytes + e->tables_bytes) >> 20,
                     e->planned >> 20, e->mem >> 20);
        goto fail;
    }
    /* probes go up to twice as far, and what they touch of this is counted with their policies */
    size_t far = wn_engine_pass_bytes(e, 2 * e->n_ctx + WN_PROBE_BEYOND);
    if ((st = wn_arena_init(&e->scratch, far + e->kept_bytes, false, err))) goto fail;
    if ((st = open_pool(e, &o, err))) goto fail;
    if ((st = wn_threads_open(&e->team, e->n_threads, err))) goto fail;
    e->seqs = WN_NEW_ARRAY(wn_seq *, e->max_seqs);
    e->items = WN_NEW_ARRAY(wn_attend_item, e->max_seqs);
    e->item_seqs = WN_NEW_ARRAY(wn_seq *, e->max_seqs);
    e->tokens = WN_NEW_ARRAY(int32_t, e->n_batch);
    e->out_rows = WN_NEW_ARRAY(int, e->n_batch);
    e->logits = wn_alloc_aligned(per_row * (size_t)e->max_out);
    if (!e->seqs || !e->items || !e->item_seqs || !e->tokens || !e->out_rows || !e->logits) {
        st = wn_fail(err, WN_ENOMEM, "engine: out of memory");
        goto fail;
    }
    e->portion = PORTION;
    *out = e;
    return WN_OK;
fail:
    wn_engine_close(e);
    return st;
}

void wn_engine_close(wn_engine *e)
{
    if (!e) return;
    WN_ASSERT(e->n_seqs == 0);          /* sequences are closed before their engine */
    wn_kv_crew_close(e->crew);
    wn_threads_close(e->team);
    wn_pool_close(e->pool);
    wn_arena_release(&e->scratch);
    wn_arena_release(&e->decisions);
    wn_free(e->formats);
    wn_profile_close(e->profile);
    wn_free(e->profile_path);
    wn_engine_release_books(e);
    wn_free(e->calibration_path);
    wn_engine_release_hands(e);
    wn_free(e->seqs);
    wn_free(e->items);
    wn_free(e->item_seqs);
    wn_free(e->tokens);
    wn_free(e->out_rows);
    wn_free(e->logits);
    wn_free(e);
}

size_t wn_engine_pass_bytes(const wn_engine *e, int n_positions)
{
    return wn_pass_scratch_bytes(e->m, e->n_batch, e->max_seqs, e->max_out, n_positions,
                                 e->n_threads) +
           4096;
}

size_t wn_engine_pool_bytes(const wn_engine *e)
{
    wn_pool_stats ps;
    wn_pool_get_stats(e->pool, &ps);
    return ps.bytes;
}

size_t wn_engine_slack(const wn_engine *e)
{
    size_t taken = e->m->weight_bytes + e->scratch_bytes + e->tables_bytes + LIBRARY_BYTES +
                   wn_engine_pool_bytes(e);
    return e->mem > taken ? e->mem - taken : 0;
}

void wn_engine_get_info(const wn_engine *e, wn_engine_info *out)
{
    wn_pool_stats ps;
    wn_pool_get_stats(e->pool, &ps);
    *out = (wn_engine_info){
        .mem = e->mem, .weights = e->m->weight_bytes, .pool = ps.bytes,
        .scratch = e->scratch_bytes + e->tables_bytes,
        .pool_used = ps.bytes_used, .pool_peak = ps.bytes_peak, .pool_slack = ps.bytes_slack,
        .n_ctx = e->n_ctx, .n_threads = e->n_threads, .room = wn_engine_room(e),
        .numerics = e->numerics,
    };
}

uint64_t wn_engine_attention_us(wn_engine *e, bool reset)
{
    (void)e;
    return wn_attend_us(reset);
}

size_t wn_model_kv_bytes(const wn_model *m, const char *k_type, const char *v_type, int n)
{
    const wn_format *k = wn_format_find(k_type ? k_type : "f16"),
                    *v = wn_format_find(v_type ? v_type : "f16");
    if (!k || !v || !m->layers || n < 0) return 0;
    wn_kv_opts o = { .map = &m->map, .k_format = k, .v_format = v };
    return wn_kv_bytes_seen(&o, n, WN_PAGE_SLOTS_MAX);
}
