/* cache/kv_apply.c - a decision: what a plan says, checked first and then carried out.
 *
 * Lane by lane the plan is digested into two bitmaps over positions: what stays live, and
 * where merge slots appear. Everything that can be wrong is found there. Then the cost in
 * frames is tallied by running the very code that will do the work (see wn_tally); only
 * when the pool has room for its peak does anything change.
 */
#include "cache/kv_int.h"

#include <math.h>
#include <string.h>

/* ---- counting instead of doing ------------------------------------------------------------ */

wn_frame_id wn_tally_take(wn_kv *kv, int cls, wn_tally *t)
{
    if (!t) return wn_kv_take(kv, cls, NULL);
    if (++t->now[cls] > t->peak[cls]) t->peak[cls] = t->now[cls];
    return (wn_frame_id){ 0 };
}

void wn_tally_drop_page(wn_kv *kv, int lane, int i, wn_page *pg, int list, wn_tally *t)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    if (!t) {
        wn_page_drop(kv, pg);
        return;
    }
    if (list == WN_LIST_PAGES && !l->listed && wn_pool_refs(kv->pool, kv->spans[i]) > 1) return;
    const wn_frame_id f[] = { pg->k, pg->v, pg->ks, pg->vs, pg->pos, pg->bias, pg->count };
    bool low = list == WN_LIST_LOW;
    const int cls[] = { l->k.raw_class,
                        l->v.raw_class,
                        low ? l->k.low_class : l->k.sealed_class,
                        low ? l->v.low_class : l->v.sealed_class,
                        kv->pos_class,
                        kv->pos_class,
                        kv->pos_class };
    for (size_t x = 0; x < WN_COUNT(f); x++)
        if (wn_frame_ok(f[x]) && wn_pool_refs(kv->pool, f[x]) == 1) t->now[cls[x]]--;
}

/* ---- digesting a plan ---------------------------------------------------------------------- */

typedef struct {
    bool masks, merges, biases, shifts; /* what it changes on this lane */
    int n_biases, n_segments, n_low;    /* n_low: slots that move to the lower formats */
    int32_t first_low;
    wn_segment segments[WN_SEGMENTS_MAX];
} digest;

static bool bit(const uint64_t *b, int32_t i) { return b[i >> 6] >> (i & 63) & 1; }

static void mark_page(wn_kv *kv, const wn_page *pg)
{
    if (!wn_frame_ok(pg->pos)) {        /* consecutive: at most two words */
        int at = pg->pos0 & 63;
        kv->desk.bits_live[pg->pos0 >> 6] |= pg->keep << at;
        if (at) kv->desk.bits_live[(pg->pos0 >> 6) + 1] |= pg->keep >> (64 - at);
        return;
    }
    const int32_t *at = wn_kv_addr(kv, pg->pos);
    for (uint64_t k = pg->keep; k; k &= k - 1) {
        int32_t pos = at[__builtin_ctzll(k)];
        kv->desk.bits_live[pos >> 6] |= 1ull << (pos & 63);
    }
}

static void mark_live(wn_kv *kv, int lane)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    memset(kv->desk.bits_live, 0, ((size_t)kv->n_committed + 63) / 64 * 8 + 8);
    for (int i = 0; i < wn_kv_n_pages(kv, lane); i++) {
        wn_page pg = wn_kv_page(kv, lane, i);
        mark_page(kv, &pg);
    }
    for (int i = 0; i < l->n_low; i++) mark_page(kv, &l->low[i]);
    for (int i = 0; i < l->n_merged; i++) mark_page(kv, &l->merged[i]);
}

/* Takes the live slots of a page out of the bits. */
static void unmark_page(const wn_kv *kv, const wn_page *pg, uint64_t *bits)
{
    for (uint64_t k = pg->keep; k; k &= k - 1) {
        int32_t pos = wn_page_pos(kv, pg, __builtin_ctzll(k));
        bits[pos >> 6] &= ~(1ull << (pos & 63));
    }
}

/* After this bits_low is what moves to the lower formats: live and not there yet. */
static wn_status digest_low(wn_kv *kv, const wn_plan *plan, int lane, digest *d, wn_err *err)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    const uint64_t *low = plan->low ? plan->low[lane] : NULL;
    int words = (kv->n_committed + 63) / 64;
    if (!low) {
        memset(kv->desk.bits_low, 0, (size_t)words * 8);
        return WN_OK;
    }
    for (int w = 0; w < words; w++) kv->desk.bits_low[w] = low[w] & kv->desk.bits_live[w];
    for (int i = 0; i < l->n_merged; i++) {
        const wn_page *pg = &l->merged[i];
        for (uint64_t k = pg->keep; k; k &= k - 1) {
            int32_t pos = wn_page_pos(kv, pg, __builtin_ctzll(k));
            if (bit(kv->desk.bits_low, pos))
                return wn_fail(err, WN_EINVAL,
                               "plan: lane %d: the merged slot at position %d cannot be demoted",
                               lane, pos);
        }
    }
    for (int i = 0; i < l->n_low; i++) unmark_page(kv, &l->low[i], kv->desk.bits_low);
    for (int w = words - 1; w >= 0; w--) {
        if (!kv->desk.bits_low[w]) continue;
        d->n_low += __builtin_popcountll(kv->desk.bits_low[w]);
        d->first_low = w * 64 + __builtin_ctzll(kv->desk.bits_low[w]);
    }
    if (d->n_low && !l->k.low)
        return wn_fail(err, WN_EINVAL,
                       "plan: lane %d: position %d is to be kept in fewer bits, and no format was "
                       "named for that",
                       lane, d->first_low);
    d->masks |= d->n_low > 0;
    return WN_OK;
}

static wn_status check_merge(wn_kv *kv, const wn_plan *plan, const wn_plan_merge *m, wn_err *err)
{
    int n = kv->n_committed;
    if (m->at < 0 || m->at >= n)
        return wn_fail(err, WN_EINVAL, "plan: lane %d: a merge at position %d of %d", m->lane,
                       m->at, n);
    if (m->n_src < 1 || m->first_src < 0 || m->first_src > plan->n_src - m->n_src)
        return wn_fail(err, WN_EINVAL, "plan: lane %d: the merge at %d has sources %d + %d of %d",
                       m->lane, m->at, m->first_src, m->n_src, plan->n_src);
    if (!isfinite(m->bias) || m->count < 1)
        return wn_fail(err, WN_EINVAL, "plan: lane %d: the merge at %d has bias %g and count %d",
                       m->lane, m->at, (double)m->bias, m->count);
    if (bit(kv->desk.bits_at, m->at))
        return wn_fail(err, WN_EINVAL, "plan: lane %d: two merges at position %d", m->lane, m->at);
    for (int i = m->first_src; i < m->first_src + m->n_src; i++) {
        int32_t s = plan->src[i];
        if (s < 0 || s >= n || !bit(kv->desk.bits_live, s))
            return wn_fail(err, WN_EINVAL,
                           "plan: lane %d: source %d of the merge at %d is not live", m->lane, s,
                           m->at);
        if (!isfinite(plan->wk[i]) || !isfinite(plan->wv[i]))
            return wn_fail(err, WN_EINVAL,
                           "plan: lane %d: the merge at %d weights position %d by %g, %g", m->lane,
                           m->at, s, (double)plan->wk[i], (double)plan->wv[i]);
    }
    return WN_OK;
}

/* After this bits_live is what stays of the slots there are, bits_at where merges appear. */
static wn_status digest_slots(wn_kv *kv, const wn_plan *plan, int lane, digest *d, wn_err *err)
{
    int words = (kv->n_committed + 63) / 64;
    wn_status st;
    mark_live(kv, lane);
    memset(kv->desk.bits_at, 0, (size_t)words * 8);
    for (int32_t i = wn_plan_first(plan, lane, WN_PLAN_MERGES); i >= 0; i = plan->merges[i].next) {
        const wn_plan_merge *m = &plan->merges[i];
        if ((st = check_merge(kv, plan, m, err))) return st;
        kv->desk.bits_at[m->at >> 6] |= 1ull << (m->at & 63);
        kv->desk.merge_at[m->at] = i;
        d->merges = d->masks = true;
    }
    const uint64_t *keep = plan->keep ? plan->keep[lane] : NULL,
                   *low = plan->low ? plan->low[lane] : NULL;
    for (int w = 0; keep && w < words; w++) {
        uint64_t stay = keep[w] | (low ? low[w] : 0);
        d->masks |= (kv->desk.bits_live[w] & ~stay) != 0;
        kv->desk.bits_live[w] &= stay;
    }
    for (int32_t i = wn_plan_first(plan, lane, WN_PLAN_MERGES); i >= 0; i = plan->merges[i].next)
        for (int j = 0; j < plan->merges[i].n_src; j++) {
            int32_t s = plan->src[plan->merges[i].first_src + j];
            kv->desk.bits_live[s >> 6] &= ~(1ull << (s & 63));
        }
    for (int w = 0; w < words; w++) {
        uint64_t both = kv->desk.bits_at[w] & kv->desk.bits_live[w];
        if (both)
            return wn_fail(err, WN_EINVAL,
                           "plan: lane %d: a merge at position %d, whose own slot stays", lane,
                           w * 64 + __builtin_ctzll(both));
    }
    for (int32_t i = wn_plan_first(plan, lane, WN_PLAN_BIASES); i >= 0; i = plan->biases[i].next) {
        const wn_plan_bias *b = &plan->biases[i];
        if (b->at < 0 || b->at >= kv->n_committed ||
            !(bit(kv->desk.bits_live, b->at) || bit(kv->desk.bits_at, b->at)) || !isfinite(b->bias))
            return wn_fail(err, WN_EINVAL,
                           "plan: lane %d: a bias of %g for position %d, which is not live", lane,
                           (double)b->bias, b->at);
        d->biases = true;
        d->n_biases++;
    }
    return digest_low(kv, plan, lane, d, err);
}

/* Positions [from, to) get shift delta; false when there would be too many ranges. */
static bool paint(digest *d, int32_t from, int32_t to, int32_t delta)
{
    wn_segment out[WN_SEGMENTS_MAX + 2];
    int n = 0;
    int32_t after = 0, last = 0;
    for (int i = 0; i < d->n_segments && d->segments[i].from <= to; i++)
        after = d->segments[i].shift;
    for (int i = 0; i < d->n_segments && d->segments[i].from < from; i++) out[n++] = d->segments[i];
    out[n++] = (wn_segment){ from, delta };
    out[n++] = (wn_segment){ to, after };
    for (int i = 0; i < d->n_segments; i++) {
        if (d->segments[i].from <= to) continue;
        if (n == (int)WN_COUNT(out)) return false;
        out[n++] = d->segments[i];
    }
    d->n_segments = 0;
    for (int i = 0; i < n; i++) {       /* equal neighbours become one */
        if (out[i].shift == last) continue;
        if (d->n_segments == WN_SEGMENTS_MAX) return false;
        d->segments[d->n_segments++] = out[i];
        last = out[i].shift;
    }
    return true;
}

static wn_status digest_shifts(wn_kv *kv, const wn_plan *plan, int lane, digest *d, wn_err *err)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    int32_t distinct[WN_SHIFTS_MAX + 1] = { 0 };
    int n = 1;
    d->n_segments = l->n_segments;
    memcpy(d->segments, l->segments, (size_t)l->n_segments * sizeof *d->segments);
    for (int32_t i = wn_plan_first(plan, lane, WN_PLAN_SHIFTS); i >= 0; i = plan->shifts[i].next) {
        const wn_plan_shift_range *s = &plan->shifts[i];
        if (s->from < 0 || s->from >= s->to || s->to > kv->n_committed ||
            s->delta < -WN_KV_MAX_POSITIONS || s->delta > WN_KV_MAX_POSITIONS)
            return wn_fail(err, WN_EINVAL, "plan: lane %d: positions [%d, %d) of %d shifted by %d",
                           lane, s->from, s->to, kv->n_committed, s->delta);
        if (!paint(d, s->from, s->to, s->delta))
            return wn_fail(err, WN_EINVAL,
                           "plan: lane %d: more than %d ranges of shifts (at position %d)", lane,
                           WN_SEGMENTS_MAX, s->from);
    }
    for (int i = 0; i < d->n_segments; i++) {
        int j = 0;
        while (j < n && distinct[j] != d->segments[i].shift) j++;
        if (j < n) continue;
        if (n == WN_SHIFTS_MAX)
            return wn_fail(err, WN_EINVAL,
                           "plan: lane %d: more than %d different shifts (at position %d)", lane,
                           WN_SHIFTS_MAX, d->segments[i].from);
        distinct[n++] = d->segments[i].shift;
    }
    d->shifts = d->n_segments != l->n_segments ||
                memcmp(d->segments, l->segments, (size_t)l->n_segments * sizeof *d->segments) != 0;
    return WN_OK;
}

static bool speaks_of(const wn_plan *plan, int lane)
{
    if ((plan->keep && plan->keep[lane]) || (plan->low && plan->low[lane])) return true;
    for (int kind = 0; kind < WN_PLAN_CHAINS; kind++)
        if (wn_plan_first(plan, lane, kind) >= 0) return true;
    return false;
}

static wn_status digest_lane(wn_kv *kv, const wn_plan *plan, int lane, digest *d, wn_err *err)
{
    wn_status st;
    *d = (digest){ 0 };
    if (!speaks_of(plan, lane)) return WN_OK;
    if ((st = digest_slots(kv, plan, lane, d, err))) return st;
    return digest_shifts(kv, plan, lane, d, err);
}

/* ---- carrying it out ----------------------------------------------------------------------- */

int wn_kv_find_slot(const wn_kv *kv, int lane, int32_t pos, wn_page *pg, int *slot)
{
    for (int list = 0; list < WN_LISTS; list++) {
        int i = wn_kv_find_page(kv, lane, list, pos);
        if (i == wn_kv_list(kv, lane, list)) continue;
        *pg = wn_kv_list_page(kv, lane, list, i);
        *slot = wn_page_find(kv, pg, pos);
        if (wn_page_pos(kv, pg, *slot) == pos && (pg->keep >> *slot & 1)) return list;
    }
    return WN_LISTS;
}

/* Which slots of a page stay, by position. */
static uint64_t page_mask(const wn_kv *kv, const wn_page *pg)
{
    uint64_t stay = 0;
    if (!wn_frame_ok(pg->pos)) {
        int w = pg->pos0 >> 6, at = pg->pos0 & 63;
        stay = kv->desk.bits_live[w] >> at;
        if (at) stay |= kv->desk.bits_live[w + 1] << (64 - at);
        return pg->keep & stay;
    }
    const int32_t *pos = wn_kv_addr(kv, pg->pos);
    for (uint64_t k = pg->keep; k; k &= k - 1) {
        int s = __builtin_ctzll(k);
        stay |= (uint64_t)bit(kv->desk.bits_live, pos[s]) << s;
    }
    return stay;
}

/* Which of them move to the lower formats. */
static uint64_t page_low(const wn_kv *kv, const wn_page *pg)
{
    uint64_t low = 0;
    for (uint64_t k = pg->keep; k; k &= k - 1) {
        int s = __builtin_ctzll(k);
        low |= (uint64_t)bit(kv->desk.bits_low, wn_page_pos(kv, pg, s)) << s;
    }
    return low;
}

static void set_bias(wn_kv *kv, int lane, int32_t pos, float bias)
{
    wn_kv_lane *l = &kv->lanes[lane];
    wn_page found, *const lists[WN_LISTS] = { l->pages, l->low, l->merged };
    int slot, list = wn_kv_find_slot(kv, lane, pos, &found, &slot);
    WN_ASSERT(list < WN_LISTS);
    wn_page *pg = &lists[list][wn_kv_find_page(kv, lane, list, pos)];
    if (wn_frame_ok(pg->bias)) wn_kv_own(kv, &pg->bias, kv->pos_class, NULL);
    else pg->bias = wn_kv_take(kv, kv->pos_class, NULL);
    ((float *)wn_kv_addr(kv, pg->bias))[slot] = bias;
}

/* The lane's digest is in kv's bitmaps. */
static void carry_out(wn_kv *kv, const wn_plan *plan, int lane, const digest *d, wn_tally *t)
{
    wn_kv_lane *l = &kv->lanes[lane];
    uint64_t live = 0;
    if (d->masks || d->biases) {
        for (int i = 0; i < wn_kv_n_pages(kv, lane); i++) {
            wn_page pg = wn_kv_page(kv, lane, i);
            kv->desk.masks[i] = page_mask(kv, &pg);
            live += (uint64_t)__builtin_popcountll(kv->desk.masks[i]);
            if (d->n_low) kv->desk.masks[i] &= ~page_low(kv, &pg);
        }
        for (int i = 0; i < l->n_low; i++) {
            kv->desk.low_masks[i] = page_mask(kv, &l->low[i]);
            live += (uint64_t)__builtin_popcountll(kv->desk.low_masks[i]);
        }
        for (int i = 0; i < l->n_merged; i++) {
            kv->desk.merged_masks[i] = page_mask(kv, &l->merged[i]);
            live += (uint64_t)__builtin_popcountll(kv->desk.merged_masks[i]);
        }
        for (int32_t i = wn_plan_first(plan, lane, WN_PLAN_MERGES); i >= 0;
             i = plan->merges[i].next)
            live++;
        int pages = wn_merge_lane(kv, lane, plan, t);       /* reads sources before they go */
        pages += wn_low_lane(kv, lane, d->n_low, d->first_low, !plan->no_repack, t);
        pages += wn_repack_lane(kv, lane, !plan->no_repack, t);
        for (int i = 0; t && i < WN_MIN(d->n_biases, pages); i++)
            wn_tally_take(kv, kv->pos_class, t);
    }
    if (t) return;
    if (d->masks || d->biases) l->live = (uint32_t)live;
    for (int32_t i = wn_plan_first(plan, lane, WN_PLAN_BIASES); i >= 0; i = plan->biases[i].next)
        set_bias(kv, lane, plan->biases[i].at, plan->biases[i].bias);
    if (d->shifts) {
        l->n_segments = d->n_segments;
        memcpy(l->segments, d->segments, sizeof l->segments);
    }
    l->decided_at = kv->n_committed;
}

/* ---- lane by lane ------------------------------------------------------------------------- */

typedef struct { wn_kv *kv; wn_kv_crew *crew; const wn_plan *plan; } job;

/* What the plan costs this lane; nothing is done yet. */
static wn_status rehearse_lane(wn_kv *kv, const wn_plan *plan, int lane, wn_err *err)
{
    wn_lane_cost *c = &kv->costs[lane];
    digest d;
    memset(c, 0, sizeof *c);
    if ((c->status = digest_lane(kv, plan, lane, &d, err))) return c->status;
    c->changes = d.masks || d.biases || d.shifts;
    c->begins = !kv->lanes[lane].listed && (d.masks || d.biases);
    if (c->changes) carry_out(kv, plan, lane, &d, &c->tally);
    return WN_OK;
}

static void rehearse_part(void *arg, int lane, int thread)
{
    const job *j = arg;
    rehearse_lane(wn_crew_kv(j->crew, j->kv, thread), j->plan, lane, NULL);
}

static void do_part(void *arg, int lane, int thread)
{
    const job *j = arg;
    wn_kv *kv = wn_crew_kv(j->crew, j->kv, thread);
    digest d;
    if (!kv->costs[lane].changes) return;
    wn_status st = digest_lane(kv, j->plan, lane, &d, NULL);
    WN_ASSERT(!st);
    carry_out(kv, j->plan, lane, &d, NULL);
}

/* Checks the whole plan, lane after lane where one is refused, so that the first is told. */
static wn_status rehearse(const job *j, wn_err *err)
{
    wn_kv *kv = j->kv;
    wn_status st = WN_OK;
    wn_crew_run(j->crew, kv, rehearse_part, (void *)(uintptr_t)j);
    for (int l = 0; l < kv->map->n_lanes && !st; l++)
        if (kv->costs[l].status) st = rehearse_lane(kv, j->plan, l, err);
    return st;
}

/* What the lanes cost one after the other; *at_once: as many of them together as there are threads,
 * in any order. */
static wn_tally sum_up(wn_kv *kv, int n_shared, int n_threads, wn_tally *at_once)
{
    wn_tally sum = { 0 }, most = { 0 };
    *at_once = sum;
    sum.now[kv->span_class] = sum.peak[kv->span_class] = at_once->peak[kv->span_class] = n_shared;
    for (int l = 0; l < kv->map->n_lanes; l++)
        for (int c = 0; c < WN_POOL_CLASSES && kv->costs[l].changes; c++) {
            const wn_tally *t = &kv->costs[l].tally;
            int64_t stays = WN_MAX(t->now[c], 0);
            sum.peak[c] = WN_MAX(sum.peak[c], sum.now[c] + t->peak[c]);
            sum.now[c] += t->now[c];
            at_once->peak[c] += stays;
            most.peak[c] = WN_MAX(most.peak[c], t->peak[c] - stays);
        }
    for (int c = 0; c < WN_POOL_CLASSES; c++) at_once->peak[c] += most.peak[c] * n_threads;
    return sum;
}

static bool fits(const wn_kv *kv, const wn_tally *t)
{
    uint32_t need[WN_POOL_CLASSES];
    for (int c = 0; c < WN_POOL_CLASSES; c++) {
        WN_ASSERT(t->peak[c] >= 0 && t->peak[c] < UINT32_MAX);
        need[c] = (uint32_t)t->peak[c];
    }
    return wn_pool_fits(kv->pool, need);
}

static wn_status no_room(const wn_kv *kv, wn_err *err)
{
    wn_pool_stats s;
    wn_pool_get_stats(kv->pool, &s);
    return wn_fail(err, WN_EFULL,
                   "cache: no room to repack at position %d; %zu of %zu bytes of the pool are "
                   "in use",
                   kv->n_committed, s.bytes_used, s.bytes);
}

wn_status wn_kv_apply(wn_kv *kv, const wn_plan *plan, wn_err *err)
{
    return wn_kv_apply_with(kv, plan, NULL, err);
}

wn_status wn_kv_apply_with(wn_kv *kv, const wn_plan *plan, wn_kv_crew *crew, wn_err *err)
{
    job j = { kv, wn_crew_for(crew, kv), plan };
    int n_begins = 0, n_shared = 0;
    bool changed = false;
    if (plan->status) return wn_fail(err, plan->status, "plan: could not be built");
    if (plan->n_lanes != kv->map->n_lanes || plan->n_tokens != kv->n_committed)
        return wn_fail(err, WN_EINVAL,
                       "plan: made for %d lanes and %d positions, the sequence has %d and %d",
                       plan->n_lanes, plan->n_tokens, kv->map->n_lanes, kv->n_committed);
    wn_kv_shrink(kv, kv->n_committed);
    wn_status st = rehearse(&j, err);
    if (st) return st;
    for (int l = 0; l < kv->map->n_lanes; l++) {
        n_begins += kv->costs[l].begins;
        changed |= kv->costs[l].changes;
    }
    /* Spans that stay in use become private, before anything else. */
    for (int i = 0; n_begins && n_begins < kv->n_unlisted && i < kv->n_spans; i++)
        n_shared += wn_pool_refs(kv->pool, kv->spans[i]) > 1;
    wn_tally at_once, sum = sum_up(kv, n_shared, wn_crew_size(j.crew), &at_once);
    if (!fits(kv, &sum)) return no_room(kv, err);
    if (!fits(kv, &at_once)) j.crew = NULL;
    for (int i = 0; n_shared && i < kv->n_spans; i++) wn_span_private(kv, i, NULL);
    for (int l = 0; l < kv->map->n_lanes; l++)
        if (kv->costs[l].begins) wn_list_begin(kv, l);
    wn_crew_run(j.crew, kv, do_part, &j);
    kv->n_decisions += changed;
    kv->tail_owned = false;             /* the open page may hold frames that others hold too */
    return WN_OK;
}
