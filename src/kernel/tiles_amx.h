/* kernel/tiles_amx.h - who has set up a thread's tiles, and until when.
 *
 * Setting them up takes 60 ns, as long as the products of a page, so between wn_tiles_hold(true)
 * and wn_tiles_hold(false) a thread keeps what the last product asked for. Outside of that
 * every product sets them up and gives them back: whoever called may use tiles of his own.
 */
#ifndef WN_KERNEL_TILES_AMX_H
#define WN_KERNEL_TILES_AMX_H

#include <stdbool.h>
#include <stdint.h>

/* Constants, because gcc's _tile_loadconfig() does not say that it reads all of them. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} wn_tile_config;
_Static_assert(sizeof(wn_tile_config) == 64, "as ldtilecfg reads it");

/* Before and after products that want this shape of tiles. */
void wn_tiles_use(const wn_tile_config *config);
void wn_tiles_done(void);

void wn_tiles_hold(bool hold);

#endif
