/* cache/kv_crew.c - a decision carried out by several threads.
 *
 * Lanes have nothing to do with each other: each has its own pages, and a plan speaks of one
 * lane at a time. What they share is the pool, and scratch. So each thread works on a copy of the
 * sequence's head that names the same lanes and spans, a desk of its own, and a lock; frames are
 * taken and given back under it, rows are copied outside. Which frame a page gets depends on who
 * comes first, what is written there does not.
 *
 *     caller      rehearse | . . . . |  sum up, room?  | lists begin |  carry out | . . . .
 *     workers              | . . . . |                               |            | . . . .
 *
 * Several lanes at once may hold fresh pages while old ones are still there. Where the pool has no
 * room for that (it was promised for one lane after the other), the caller works alone.
 */
#include "cache/kv_int.h"

#include "base/alloc.h"
#include "base/os.h"

struct wn_kv_crew {
    wn_threads *team;
    int n;
    unsigned char *desks;               /* of all but the caller, who has the sequence's own */
    size_t bytes;
    pthread_mutex_t lock;
    wn_kv_opts opts;
    wn_kv hands[];                      /* (n) */
};

size_t wn_kv_crew_bytes(const wn_kv_opts *o, int n_threads)
{
    wn_lane_desk d;
    return n_threads > 1 ? (size_t)(n_threads - 1) * wn_kv_desk_at(o, NULL, &d) : 0;
}

wn_status wn_kv_crew_open(wn_kv_crew **out, const wn_kv_opts *o, wn_threads *team, wn_err *err)
{
    int n = wn_threads_count(team);
    wn_kv_crew *c = wn_alloc(sizeof *c + sizeof *c->hands * (size_t)n);
    *out = NULL;
    if (!c) return wn_fail(err, WN_ENOMEM, "cache: out of memory");
    *c = (wn_kv_crew){ .team = team, .n = n, .bytes = wn_kv_crew_bytes(o, n), .opts = *o };
    if (c->bytes && !(c->desks = wn_os_map(c->bytes, false))) {
        wn_free(c);
        return wn_fail(err, WN_ENOMEM, "cache: the system has no room for %zu bytes of decisions",
                       wn_kv_crew_bytes(o, n));
    }
    pthread_mutex_init(&c->lock, NULL);
    *out = c;
    return WN_OK;
}

void wn_kv_crew_close(wn_kv_crew *c)
{
    if (!c) return;
    pthread_mutex_destroy(&c->lock);
    if (c->desks) wn_os_unmap(c->desks, c->bytes);
    wn_free(c);
}

wn_kv_crew *wn_crew_for(wn_kv_crew *c, const wn_kv *kv)
{
    if (!c || c->n < 2 || kv->map != c->opts.map || kv->max_positions > c->opts.max_positions)
        return NULL;
    return kv->P == (c->opts.page_slots ? c->opts.page_slots : WN_PAGE_SLOTS_MAX) ? c : NULL;
}

int wn_crew_size(const wn_kv_crew *c) { return c ? c->n : 1; }

wn_kv *wn_crew_kv(wn_kv_crew *c, wn_kv *kv, int thread) { return c ? &c->hands[thread] : kv; }

void wn_crew_run(wn_kv_crew *c, wn_kv *kv, wn_part_fn *part, void *arg)
{
    int n_lanes = kv->map->n_lanes;
    if (!c) {
        for (int l = 0; l < n_lanes; l++) part(arg, l, 0);
        return;
    }
    wn_lane_desk d;
    size_t each = wn_kv_desk_at(&c->opts, NULL, &d);
    for (int i = 0; i < c->n; i++) {
        wn_kv *hand = &c->hands[i];
        *hand = *kv;
        hand->lock = &c->lock;
        hand->n_repacks = 0;
        if (i) wn_kv_desk_at(&c->opts, c->desks + (size_t)(i - 1) * each, &hand->desk);
    }
    wn_threads_run(c->team, part, arg, n_lanes);
    for (int i = 0; i < c->n; i++) kv->n_repacks += c->hands[i].n_repacks;
}
