/* page/coded_parts.h - where the parts of an encoded page lie, for coded.c, which makes pages and
 * takes slots out of them, and coded_read.c, which answers queries from them.
 */
#ifndef WN_PAGE_CODED_PARTS_H
#define WN_PAGE_CODED_PARTS_H

#include "page/coded.h"
#include "page/power.h"

enum { DIM_MAX = WN_CODES_DEPTH };

/* ---- where things lie ---------------------------------------------------------------- */

static inline bool has_min(const wn_coding *c)
{
    return c->grid == WN_GRID_RANGE || c->grid == WN_GRID_GGML_1;
}

static inline int n_groups(const wn_coding *c, int head_dim)
{
    return c->group ? (head_dim + c->group - 1) / c->group : 1;
}

/* The parts of a frame. cols and depth are those of the planes. */
typedef struct {
    uint64_t *spoiled;                  /* by_channel */
    uint8_t *order;                     /* sorted: the channel of each row of the planes, within its
                                           256 */
    uint8_t *powers;                    /* in place of s, which then is NULL */
    uint16_t *s, *m;                    /* m NULL: none */
    size_t stride;                      /* from group to group */
    uint8_t *low, *high;
    int cols, depth;
    size_t bytes;
} parts;

static inline parts parts_of(const wn_coding *c, const void *frame, int n_cols, int rows, int P,
                             int head_dim)
{
    parts x = { .cols = wn_codes_cols(n_cols), .depth = wn_codes_depth(c->kind, rows) };
    size_t n = c->by_channel ? (size_t)head_dim : (size_t)P * (size_t)n_groups(c, head_dim);
    size_t at = c->by_channel ? 64 : c->sorted ? wn_round64((size_t)head_dim) : 0;
    char *f = (char *)(uintptr_t)frame;         /* who may write through it is the callers'
                                                   affair */
    WN_ASSERT(head_dim > 0 && head_dim <= DIM_MAX && n_groups(c, head_dim) <= WN_CODES_GROUPS);
    x.spoiled = (uint64_t *)(void *)f;
    x.stride = c->by_channel ? 0 : (size_t)P;
    x.order = (uint8_t *)f;
    if (c->powers) x.powers = (uint8_t *)f + at;
    else x.s = (uint16_t *)(void *)(f + at);
    if (has_min(c)) x.m = x.s + n;
    at = wn_round64(at + n * (c->powers ? 1 : has_min(c) ? 4 : 2));
    size_t low = wn_round64(wn_codes_plane_bytes(wn_codes_low(c->kind), x.depth, x.cols));
    size_t high = wn_round64(wn_codes_plane_bytes(wn_codes_high(c->kind), x.depth, x.cols));
    x.low = (uint8_t *)f + at + (c->high_first ? high : 0);
    if (high) x.high = (uint8_t *)f + at + (c->high_first ? 0 : low);
    x.bytes = at + low + high;
    return x;
}

static inline parts k_parts(const wn_coding *c, const void *frame, int P, int head_dim)
{
    return parts_of(c, frame, P, head_dim, P, head_dim);
}

static inline parts v_parts(const wn_coding *c, const void *frame, int P, int head_dim)
{
    return parts_of(c, frame, head_dim, P, P, head_dim);
}

/* Channel of row k of a sorted plane. */
static inline int channel_at(const parts *x, int k) { return (k & ~255) + x->order[k]; }

enum { SCALES = WN_CODES_GROUPS * WN_PAGE_SLOTS_MAX };

/* Scales as halves, where they are none in room (whole vectors of columns are read). */
static inline const uint16_t *scales_of(const wn_coding *c, const parts *x, int groups,
                                        uint16_t room[SCALES + 16])
{
    size_t n = (size_t)groups * x->stride;
    if (!c->powers) return x->s;
    for (size_t i = 0; i < n; i++) room[i] = wn_power_half(x->powers[i]);
    memset(room + n, 0, sizeof *room * 16);
    return room;
}

/* What a code u stands for is s ((u << shift) - zero), plus m. */
static inline int zero_of(const wn_coding *c)
{
    int bits = wn_codes_bits(c->kind);
    if (has_min(c)) return 0;
    if (c->grid == WN_GRID_TABLE) return 128;
    return c->grid == WN_GRID_MIDDLE ? (1 << bits) - 1 : 1 << (bits - 1);
}

static inline int shift_of(const wn_coding *c) { return c->grid == WN_GRID_MIDDLE; }

/* Codes without their low bits count in steps so much larger. */
static inline float unit_of(const wn_coding *c) { return (float)(1 << c->dropped); }

#endif
