/* cache/kv_save.c - a sequence as a stream of bytes. Little-endian, no padding but what is
 * named; kv_load.c reads it and believes none of it.
 *
 *     header   0  4  "WNKV"                       4  4  version, 2
 *              8  4  slots per page, P           12  4  lanes                 16  4  layers
 *             20  4  rows of the ring            24  4  floats per row of it
 *             28  4  committed positions, n      32  4  first position the ring holds
 *             36  4  decisions                   40  4  repacks               44  8  0
 *
 *     lane     0  4  channels of K                4  4  channels of V
 *              8  4  window, 0: none             12  4  1: has a page list, 0: lies in spans
 *             16  4  position of last decision   20  4  positions below are gone (window)
 *             24  4  segments, s                 28  4  pages                32  4  merge pages
 *             36  4  pages of demoted slots
 *             40 16  name of the K format        56 16  of the V format, zero-padded
 *             72 16  of the raw format of K      88 16  of that of V
 *            104 16  of the lower format of K   120 16  of that of V, or zeros
 *            136  4  lag of K, -1: never sealed 140  4  of pages that decisions have seen
 *            144  8  the same for V
 *            152     s times: 4 first position, 4 shift; then pages, demoted ones, merge pages
 *
 *     page     0  8  keep mask                    8  4  position of slot 0
 *             12  4  slots                       16  4  what is held: bit 0 K raw, 1 V raw,
 *                                                       2 K sealed, 3 V sealed, 4 positions,
 *                                                       5 biases, 6 counts
 *             20     whole frames of K and V in that order, as their formats define them;
 *                    then positions, biases, counts: 4 bytes per slot
 *
 *     ring     after the last lane, layer by layer: rows of positions [first held, n)
 *
 * Lanes in spans have ceil(n / P) pages with all slots kept, at positions 0, P, 2P ...
 */
#include "cache/kv_save.h"

#include <string.h>

void wn_put32(unsigned char *p, uint32_t x)
{
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(x >> 8 * i);
}

uint32_t wn_get32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static wn_status save_header(const wn_kv *kv, wn_sink sink, wn_err *err)
{
    unsigned char h[WN_SAVE_HEADER] = { 'W', 'N', 'K', 'V' };
    const uint32_t fields[] = { WN_SAVE_VERSION, (uint32_t)kv->P, (uint32_t)kv->map->n_lanes,
                                (uint32_t)kv->map->n_layers, (uint32_t)kv->ring_rows,
                                (uint32_t)kv->q_dim, (uint32_t)kv->n_committed,
                                (uint32_t)kv->ring_from, kv->n_decisions, kv->n_repacks };
    for (size_t i = 0; i < WN_COUNT(fields); i++) wn_put32(h + 4 + 4 * i, fields[i]);
    return sink.write(sink.ctx, h, sizeof h, err);
}

void wn_save_sides(unsigned char to[WN_SAVE_SIDES], const wn_kv_lane *l)
{
    const wn_format *f[6] = { l->k.format, l->v.format, l->k.raw, l->v.raw, l->k.low, l->v.low };
    const int lag[4] = { l->k.lag, l->k.lag_decided, l->v.lag, l->v.lag_decided };
    memset(to, 0, WN_SAVE_SIDES);
    for (int i = 0; i < 6; i++)
        if (f[i]) memcpy(to + WN_SAVE_NAME * i, f[i]->name, strnlen(f[i]->name, WN_SAVE_NAME - 1));
    for (int i = 0; i < 4; i++) wn_put32(to + 6 * WN_SAVE_NAME + 4 * i, (uint32_t)lag[i]);
}

static wn_status save_page(const wn_kv *kv, const wn_page *pg, wn_sink sink, wn_err *err)
{
    unsigned char h[WN_SAVE_PAGE];
    wn_frame_id f[WN_HELD_KINDS];
    uint32_t held = wn_held(pg, f);
    wn_status st;
    wn_put32(h, (uint32_t)pg->keep);
    wn_put32(h + 4, (uint32_t)(pg->keep >> 32));
    wn_put32(h + 8, (uint32_t)pg->pos0);
    wn_put32(h + 12, (uint32_t)pg->n);
    wn_put32(h + 16, held);
    if ((st = sink.write(sink.ctx, h, sizeof h, err))) return st;
    for (int x = 0; x < WN_HELD_KINDS; x++) {
        if (!wn_frame_ok(f[x])) continue;
        size_t bytes = x < WN_HELD_TABLES ? wn_pool_frame_bytes(kv->pool, f[x]) : (size_t)pg->n * 4;
        if ((st = sink.write(sink.ctx, wn_kv_addr(kv, f[x]), bytes, err))) return st;
    }
    return WN_OK;
}

static wn_status save_lane(const wn_kv *kv, int lane, wn_sink sink, wn_err *err)
{
    const wn_kv_lane *l = &kv->lanes[lane];
    const wn_lane *w = &kv->map->lanes[lane];
    unsigned char h[WN_SAVE_LANE], s[8];
    int n = wn_kv_n_pages(kv, lane);
    const uint32_t fields[] = { (uint32_t)w->k_dim,      (uint32_t)w->v_dim,
                                (uint32_t)w->window,     l->listed,
                                (uint32_t)l->decided_at, (uint32_t)l->gone_below,
                                (uint32_t)l->n_segments, (uint32_t)n,
                                (uint32_t)l->n_merged,   (uint32_t)l->n_low };
    wn_status st;
    for (size_t i = 0; i < WN_COUNT(fields); i++) wn_put32(h + 4 * i, fields[i]);
    wn_save_sides(h + WN_SAVE_LANE - WN_SAVE_SIDES, l);
    if ((st = sink.write(sink.ctx, h, sizeof h, err))) return st;
    for (int i = 0; i < l->n_segments; i++) {
        wn_put32(s, (uint32_t)l->segments[i].from);
        wn_put32(s + 4, (uint32_t)l->segments[i].shift);
        if ((st = sink.write(sink.ctx, s, sizeof s, err))) return st;
    }
    for (int i = 0; i < n; i++) {
        wn_page pg = wn_kv_page(kv, lane, i);
        if ((st = save_page(kv, &pg, sink, err))) return st;
    }
    for (int i = 0; i < l->n_low; i++)
        if ((st = save_page(kv, &l->low[i], sink, err))) return st;
    for (int i = 0; i < l->n_merged; i++)
        if ((st = save_page(kv, &l->merged[i], sink, err))) return st;
    return WN_OK;
}

wn_status wn_kv_save(const wn_kv *kv, wn_sink sink, wn_err *err)
{
    if (kv->n_reserved != kv->n_committed)
        return wn_fail(err, WN_EINVAL, "cache: saving with %d positions reserved beyond %d",
                       kv->n_reserved - kv->n_committed, kv->n_committed);
    wn_status st = save_header(kv, sink, err);
    for (int l = 0; l < kv->map->n_lanes && !st; l++) st = save_lane(kv, l, sink, err);
    for (int layer = 0; kv->ring && layer < kv->map->n_layers; layer++)
        for (int p = kv->ring_from; p < kv->n_committed && !st; p++)
            st = sink.write(sink.ctx, wn_ring_row(kv, layer, p), (size_t)kv->q_dim * sizeof(float),
                            err);
    return st;
}
