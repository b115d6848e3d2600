/* cache/kv_save.h - what kv_save.c and kv_load.c share; the byte table is in kv_save.c. */
#ifndef WN_CACHE_KV_SAVE_H
#define WN_CACHE_KV_SAVE_H

#include "cache/kv_int.h"

enum {
    WN_SAVE_VERSION = 2,
    WN_SAVE_HEADER = 52,
    WN_SAVE_NAME = 16, WN_SAVE_SIDES = 6 * WN_SAVE_NAME + 16,
    WN_SAVE_LANE = 40 + WN_SAVE_SIDES,
    WN_SAVE_PAGE = 20,
};

/* What a page may hold, in the order of the bits and of the frames in the stream. */
enum { WN_HELD_K, WN_HELD_V, WN_HELD_KS, WN_HELD_VS, WN_HELD_POS, WN_HELD_BIAS, WN_HELD_COUNT,
       WN_HELD_KINDS, WN_HELD_TABLES = WN_HELD_POS };

/* What a lane's pages are, as bytes: names and lags. */
void wn_save_sides(unsigned char to[WN_SAVE_SIDES], const wn_kv_lane *l);

static inline uint32_t wn_held(const wn_page *pg, wn_frame_id f[WN_HELD_KINDS])
{
    const wn_frame_id all[WN_HELD_KINDS] = { pg->k,   pg->v,    pg->ks,   pg->vs,
                                             pg->pos, pg->bias, pg->count };
    uint32_t held = 0;
    for (int x = 0; x < WN_HELD_KINDS; x++) {
        f[x] = all[x];
        held |= (uint32_t)wn_frame_ok(all[x]) << x;
    }
    return held;
}

static inline float *wn_ring_row(const wn_kv *kv, int layer, int pos)
{
    size_t row = (size_t)layer * (size_t)kv->ring_rows + (size_t)(pos % kv->ring_rows);
    return kv->ring + row * (size_t)kv->q_dim;
}

void wn_put32(unsigned char *p, uint32_t x);
uint32_t wn_get32(const unsigned char *p);

#endif
