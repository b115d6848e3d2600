/* kernel/tiles_amx.c - see tiles_amx.h. */
#include "kernel/tiles_amx.h"

#include <immintrin.h>
#include <stddef.h>

static _Thread_local struct {
    const wn_tile_config *config;       /* loaded; NULL: none */
    bool held;
} tiles;

void wn_tiles_use(const wn_tile_config *config)
{
    if (tiles.config == config) return;
    _tile_loadconfig(config);
    tiles.config = config;
}

void wn_tiles_done(void)
{
    if (tiles.held || !tiles.config) return;
    _tile_release();                    /* a thread switched out with tiles in use saves 8 KB */
    tiles.config = NULL;
}

void wn_tiles_hold(bool hold)
{
    tiles.held = hold;
    if (!hold) wn_tiles_done();
}
