/* cache/pool.c - frames out of extents.
 *
 * Everything about an extent fits in eight bytes: its class, how many of its frames are
 * used, how many were ever used (frames above that mark need no list), and the head of
 * its free list. The list runs through the reference counts themselves: a free frame's
 * count holds FREE and the number of the next free one, so that taking and dropping are
 * a few loads and the memory of a free frame is never touched.
 *
 *     refs[f]:  0 ... 0x7fffffff   references       FREE | next    on the free list
 *
 * Counts of large frames (at most SIDE_FRAMES per extent) lie in a side table of 1 KiB per
 * extent, 0.05 % of the pool; those of small frames lie at the end of the extent, where
 * a table for 32768 frames per extent would otherwise have to stand ready.
 *
 *     extent of small frames | frame | frame | ... | slack | refs |
 *
 * Which extents of a class have a free frame is a bitmap with a summary above it: the
 * lowest is found in a handful of loads, and sparse high extents empty by themselves.
 */
#include "cache/pool.h"

#include "base/alloc.h"
#include "base/os.h"

#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define WN_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WN_ASAN 1
#endif
#endif
#ifdef WN_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(a, n) __asan_poison_memory_region(a, n)
#define UNPOISON(a, n) __asan_unpoison_memory_region(a, n)
#else
#define POISON(a, n) ((void)(a), (void)(n))
#define UNPOISON(a, n) ((void)(a), (void)(n))
#endif

enum {
    ID_BITS = 15,                       /* of a frame id: index in its extent */
    SIDE_FRAMES = 256,
    NO_NEXT = 0xffff,
    NO_CLASS = 0xff,
    MAX_EXTENTS = (1 << (32 - ID_BITS)) - 1,
};
#define FREE 0x80000000u

typedef struct { uint64_t *word, *sum; uint32_t n_words, n_sums; } bitmap;

typedef struct {
    uint8_t cls, dirty;                 /* dirty: may hold memory that wn_pool_trim can return */
    uint16_t n_used, n_fresh, free_head;
} extent;

typedef struct {
    uint32_t bytes, per_extent;
    uint32_t n_used, n_peak;
    uint64_t n_free;                    /* free frames in this class's extents */
    bitmap open;                        /* extents of this class with a free frame */
} frame_class;

struct wn_pool {
    unsigned char *base, *map;
    size_t map_bytes;
    uint32_t n_extents, n_free_extents;
    extent *ext;
    uint32_t *side;                     /* [n_extents][SIDE_FRAMES] */
    size_t side_bytes;
    uint64_t *words;                    /* all bitmaps */
    bitmap free_extents;
    frame_class cls[WN_POOL_CLASSES];
    int n_cls;
    size_t used, peak;
    uint32_t n_frames_used;
};

static void bit_set(bitmap *b, uint32_t i)
{
    b->word[i >> 6] |= 1ull << (i & 63);
    b->sum[i >> 12] |= 1ull << (i >> 6 & 63);
}

static void bit_clear(bitmap *b, uint32_t i)
{
    if (!(b->word[i >> 6] &= ~(1ull << (i & 63)))) b->sum[i >> 12] &= ~(1ull << (i >> 6 & 63));
}

static bool bit_get(const bitmap *b, uint32_t i) { return b->word[i >> 6] >> (i & 63) & 1; }

/* UINT32_MAX when none is set. */
static uint32_t bit_lowest(const bitmap *b)
{
    for (uint32_t s = 0; s < b->n_sums; s++) {
        if (!b->sum[s]) continue;
        uint32_t w = s * 64 + (uint32_t)__builtin_ctzll(b->sum[s]);
        return w * 64 + (uint32_t)__builtin_ctzll(b->word[w]);
    }
    return UINT32_MAX;
}

static uint64_t *bitmap_init(bitmap *b, uint64_t *at, uint32_t n)
{
    b->n_words = (n + 63) / 64;
    b->n_sums = (b->n_words + 63) / 64;
    b->word = at;
    b->sum = at + b->n_words;
    return b->sum + b->n_sums;
}

wn_status wn_pool_open(wn_pool **out, const wn_pool_opts *opts, wn_err *err)
{
    wn_pool *p;
    size_t n = opts->bytes / WN_EXTENT_BYTES + (opts->bytes % WN_EXTENT_BYTES != 0);
    *out = NULL;
    if (n == 0) return wn_fail(err, WN_EINVAL, "pool: 0 bytes asked for");
    if (n > MAX_EXTENTS)
        return wn_fail(err, WN_ELIMIT, "pool: %zu bytes are more than %d extents of 2 MiB",
                       opts->bytes, MAX_EXTENTS);
    if (!(p = WN_NEW(wn_pool))) return wn_fail(err, WN_ENOMEM, "pool: out of memory");
    p->n_extents = p->n_free_extents = (uint32_t)n;
    size_t words = (n + 63) / 64 + (n + 4095) / 4096;
    p->ext = WN_NEW_ARRAY(extent, n);
    p->words = WN_NEW_ARRAY(uint64_t, words * (WN_POOL_CLASSES + 1));
    p->side_bytes = n * SIDE_FRAMES * sizeof(uint32_t);
    p->map_bytes = (n + 1) * WN_EXTENT_BYTES;           /* one more, to align the first */
    if (!p->ext || !p->words || !(p->side = wn_os_map(p->side_bytes, false)) ||
        !(p->map = wn_os_map(p->map_bytes, false))) {
        wn_pool_close(p);
        return wn_fail(err, WN_ENOMEM, "pool: the system has no room for %zu MiB", n * 2);
    }
    unsigned char *base = p->map + (-(uintptr_t)p->map & (WN_EXTENT_BYTES - 1));
    if (opts->touch) wn_os_touch(base, n * WN_EXTENT_BYTES);

    uint64_t *at = bitmap_init(&p->free_extents, p->words, (uint32_t)n);
    for (int c = 0; c < WN_POOL_CLASSES; c++) at = bitmap_init(&p->cls[c].open, at, (uint32_t)n);
    for (uint32_t e = 0; e < n; e++) {
        p->ext[e] = (extent){ .cls = NO_CLASS, .free_head = NO_NEXT };
        bit_set(&p->free_extents, e);
    }
    p->base = base;
    *out = p;
    return WN_OK;
}

void wn_pool_close(wn_pool *p)
{
    if (!p) return;
    /* the addresses may be mapped again */
    for (uint32_t e = 0; p->base && e < p->n_extents; e++)
        if (p->ext[e].cls != NO_CLASS)
            UNPOISON(p->base + (size_t)e * WN_EXTENT_BYTES, WN_EXTENT_BYTES);
    if (p->map) wn_os_unmap(p->map, p->map_bytes);
    if (p->side) wn_os_unmap(p->side, p->side_bytes);
    wn_free(p->words);
    wn_free(p->ext);
    wn_free(p);
}

int wn_pool_class(wn_pool *p, size_t frame_bytes)
{
    size_t bytes = frame_bytes ? (frame_bytes + 63) / 64 * 64 : 64;
    if (frame_bytes > WN_EXTENT_BYTES) return -1;
    for (int c = 0; c < p->n_cls; c++)
        if (p->cls[c].bytes == bytes) return c;
    if (p->n_cls == WN_POOL_CLASSES) return -1;
    frame_class *c = &p->cls[p->n_cls];
    c->bytes = (uint32_t)bytes;
    c->per_extent = (uint32_t)(WN_EXTENT_BYTES / bytes);
    if (c->per_extent > SIDE_FRAMES) c->per_extent = (uint32_t)(WN_EXTENT_BYTES / (bytes + 4));
    return p->n_cls++;
}

uint32_t wn_pool_frames_per_extent(const wn_pool *p, int cls)
{
    return cls >= 0 && cls < p->n_cls ? p->cls[cls].per_extent : 0;
}

static uint32_t *extent_refs(const wn_pool *p, uint32_t e)
{
    uint32_t per = p->cls[p->ext[e].cls].per_extent;
    if (per <= SIDE_FRAMES) return p->side + (size_t)e * SIDE_FRAMES;
    return (uint32_t *)(void *)(p->base + (size_t)(e + 1) * WN_EXTENT_BYTES - 4 * (size_t)per);
}

static uint32_t id_extent(wn_frame_id f) { return f.i >> ID_BITS; }
static uint32_t id_index(wn_frame_id f) { return f.i & ((1u << ID_BITS) - 1); }

/* The count of a frame in use; asserts that it is one. */
static uint32_t *used_refs(const wn_pool *p, wn_frame_id f)
{
    uint32_t e = id_extent(f), i = id_index(f);
    WN_ASSERT(e < p->n_extents && i < p->ext[e].n_fresh && p->ext[e].cls != NO_CLASS);
    uint32_t *r = extent_refs(p, e) + i;
    WN_ASSERT(*r && !(*r & FREE));
    return r;
}

wn_status wn_pool_take(wn_pool *p, int cls, wn_frame_id *out)
{
    frame_class *c = &p->cls[cls];
    uint32_t e = bit_lowest(&c->open);
    *out = WN_NO_FRAME;
    if (e == UINT32_MAX) {
        if ((e = bit_lowest(&p->free_extents)) == UINT32_MAX) return WN_EFULL;
        bit_clear(&p->free_extents, e);
        p->n_free_extents--;
        p->ext[e] = (extent){ .cls = (uint8_t)cls, .dirty = 1, .free_head = NO_NEXT };
        c->n_free += c->per_extent;
        bit_set(&c->open, e);
        POISON(p->base + (size_t)e * WN_EXTENT_BYTES, (size_t)c->bytes * c->per_extent);
    }
    extent *x = &p->ext[e];
    uint32_t *refs = extent_refs(p, e), i = x->free_head;
    if (i == NO_NEXT) i = x->n_fresh++;
    else x->free_head = (uint16_t)(refs[i] & 0xffff);
    refs[i] = 1;
    if (++x->n_used == c->per_extent) bit_clear(&c->open, e);
    c->n_free--;
    p->n_frames_used++;
    p->used += c->bytes;
    c->n_used++;
    c->n_peak = WN_MAX(c->n_peak, c->n_used);
    p->peak = WN_MAX(p->peak, p->used);
    out->i = e << ID_BITS | i;
    UNPOISON(wn_pool_addr(p, *out), c->bytes);
    return WN_OK;
}

void wn_pool_ref(wn_pool *p, wn_frame_id f)
{
    uint32_t *r = used_refs(p, f);
    WN_ASSERT(*r < FREE - 1);
    ++*r;
}

void wn_pool_drop(wn_pool *p, wn_frame_id f)
{
    uint32_t *r = used_refs(p, f), e = id_extent(f);
    if (--*r) return;
    extent *x = &p->ext[e];
    frame_class *c = &p->cls[x->cls];
    POISON(wn_pool_addr(p, f), c->bytes);
    *r = FREE | x->free_head;
    x->free_head = (uint16_t)id_index(f);
    c->n_free++;
    p->n_frames_used--;
    p->used -= c->bytes;
    c->n_used--;
    bit_set(&c->open, e);
    if (--x->n_used) return;
    bit_clear(&c->open, e);                             /* P3 */
    c->n_free -= c->per_extent;
    UNPOISON(p->base + (size_t)e * WN_EXTENT_BYTES, WN_EXTENT_BYTES);
    *x = (extent){ .cls = NO_CLASS, .dirty = 1, .free_head = NO_NEXT };
    bit_set(&p->free_extents, e);
    p->n_free_extents++;
}

uint32_t wn_pool_refs(const wn_pool *p, wn_frame_id f) { return *used_refs(p, f); }

void *wn_pool_addr(const wn_pool *p, wn_frame_id f)
{
    uint32_t e = id_extent(f);
    return p->base + (size_t)e * WN_EXTENT_BYTES +
           (size_t)p->cls[p->ext[e].cls].bytes * id_index(f);
}

size_t wn_pool_frame_bytes(const wn_pool *p, wn_frame_id f)
{
    return p->cls[p->ext[id_extent(f)].cls].bytes;
}

bool wn_pool_fits(const wn_pool *p, const uint32_t counts[WN_POOL_CLASSES])
{
    uint64_t extents = 0;
    for (int i = 0; i < p->n_cls; i++) {
        const frame_class *c = &p->cls[i];
        if (counts[i] > c->n_free)
            extents += (counts[i] - c->n_free + c->per_extent - 1) / c->per_extent;
    }
    return extents <= p->n_free_extents;
}

void wn_pool_get_stats(const wn_pool *p, wn_pool_stats *out)
{
    uint32_t n = p->n_extents - p->n_free_extents;
    *out = (wn_pool_stats){
        .bytes = (size_t)p->n_extents * WN_EXTENT_BYTES,
        .bytes_used = p->used,
        .bytes_peak = p->peak,
        .bytes_slack = (size_t)n * WN_EXTENT_BYTES - p->used,
        .n_extents = p->n_extents,
        .n_extents_used = n,
        .n_frames_used = p->n_frames_used,
    };
}

void wn_pool_class_use(const wn_pool *p, int cls, uint32_t *used, uint32_t *peak)
{
    *used = cls < p->n_cls ? p->cls[cls].n_used : 0;
    *peak = cls < p->n_cls ? p->cls[cls].n_peak : 0;
}

void wn_pool_reset_peak(wn_pool *p)
{
    p->peak = p->used;
    for (int c = 0; c < p->n_cls; c++) p->cls[c].n_peak = p->cls[c].n_used;
}

void wn_pool_trim(wn_pool *p)
{
    for (uint32_t e = 0; e < p->n_extents; e++) {
        if (p->ext[e].cls != NO_CLASS || !p->ext[e].dirty) continue;
        wn_os_discard(p->base + (size_t)e * WN_EXTENT_BYTES, WN_EXTENT_BYTES);
        p->ext[e].dirty = 0;
    }
}

void wn_pool_check(const wn_pool *p)
{
    size_t used = 0;
    uint32_t n_used = 0, n_free_extents = 0;
    uint64_t n_free[WN_POOL_CLASSES] = { 0 }, in_use[WN_POOL_CLASSES] = { 0 };
    for (uint32_t e = 0; e < p->n_extents; e++) {
        const extent *x = &p->ext[e];
        bool free_extent = x->cls == NO_CLASS;
        WN_ASSERT(bit_get(&p->free_extents, e) == free_extent);
        if (free_extent) {
            n_free_extents++;
            for (int c = 0; c < p->n_cls; c++) WN_ASSERT(!bit_get(&p->cls[c].open, e));
            continue;
        }
        const frame_class *c = &p->cls[x->cls];
        const uint32_t *refs = extent_refs(p, e);
        uint32_t with_refs = 0, listed = 0;
        for (uint32_t i = 0; i < x->n_fresh; i++) with_refs += !(refs[i] & FREE) && refs[i];
        for (uint32_t i = x->free_head; i != NO_NEXT; i = refs[i] & 0xffff) {
            WN_ASSERT(i < x->n_fresh && (refs[i] & FREE));              /* P2 */
            WN_ASSERT(++listed <= c->per_extent);
        }
        WN_ASSERT(with_refs == x->n_used && with_refs > 0);             /* P3 */
        WN_ASSERT(listed + with_refs == x->n_fresh && x->n_fresh <= c->per_extent);  /* P1 */
        for (int k = 0; k < p->n_cls; k++)
            WN_ASSERT(bit_get(&p->cls[k].open, e) == (k == x->cls && x->n_used < c->per_extent));
        n_free[x->cls] += c->per_extent - x->n_used;
        n_used += x->n_used;
        in_use[x->cls] += x->n_used;
        used += (size_t)x->n_used * c->bytes;
    }
    WN_ASSERT(used == p->used && n_used == p->n_frames_used);           /* P4 */
    WN_ASSERT(n_free_extents == p->n_free_extents);
    for (int c = 0; c < p->n_cls; c++)
        WN_ASSERT(n_free[c] == p->cls[c].n_free && in_use[c] == p->cls[c].n_used);
}
