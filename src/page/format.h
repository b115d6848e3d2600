/* page/format.h - what do the bytes of a page mean?
 *
 * A page is P consecutive slots of a lane (P a power of two, 4..64); its K and its V lie
 * in frames of their own. A format says how: how many bytes, how rows go in and come out,
 * and how queries are answered from the bytes as they are (`score`, `mix`). Nothing
 * outside page/ switches on the format.
 *
 * Raw formats (f16, bf16, f32) take rows one at a time. Raw K is channel-major, raw V is
 * slot-major, so that filling, decode and prefill share one kernel shape:
 *
 *     K frame  [head_dim][P]   channel 0: slot 0 .. P-1 | channel 1: slot 0 .. P-1 | ...
 *     V frame  [P][head_dim]   slot 0: channel 0 .. D-1 | slot 1: ...
 *
 * Encoded formats are made from a whole raw page when the page is sealed (coded.h). Their
 * queries are made ready once, before the first page (`ready`), because that is per query
 * and not per page; those that keep values in another basis mix in an accumulator of their
 * own, which `mixed` brings back to channels once per split.
 *
 * Calibrated formats are encoded ones that were fitted to a model (`winnow calibrate`): each lane
 * reads and writes them by a book of its own (book.h). The format as it is listed here has none and
 * says how large frames are; lanes have copies with their book. They keep keys as they were before
 * rotation, and are told where slots stand.
 *
 * Order of sums, raw formats: score is one FMA chain over channels in ascending order, starting
 * from 0, per (query, slot); mix is one FMA chain over slots in ascending order per (query,
 * channel), continuing what acc holds. Any n_q, first and n give the same bits per element. Encoded
 * formats: see coded.h; score gives the same bits for any n_q, first and n, mix for any n_q: its
 * weights are quantised per call, which is neighbouring runs of slots of a split.
 */
#ifndef WN_PAGE_FORMAT_H
#define WN_PAGE_FORMAT_H

#include "kernel/kernel.h"

#include <string.h>

enum { WN_PAGE_SLOTS_MAX = 64, WN_PAGE_SLOTS_MIN = 4 };

/* A mask of the first n slots of a page, at most 64. */
static inline uint64_t wn_low_bits(int n) { return n >= 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1; }

/* The parts of an encoded frame begin at lines of the cache. */
static inline size_t wn_round64(size_t n) { return (n + 63) & ~(size_t)63; }

typedef enum {
    WN_REPACK_COPY,         /* parameters per slot: a slot's codes move bit-exactly */
    WN_REPACK_RAW_ONLY,     /* parameters per page: must be repacked before encoding */
} wn_repack_class;

typedef struct wn_book wn_book;         /* book.h */

/* Slot s stands at pos[s], or, where pos is NULL, at pos0 + s. */
typedef struct {
    const int32_t *pos;
    int32_t pos0;
} wn_page_place;

/* out[i * out_stride + s] = q_i . k_(first + s), i in [0, n_q), s in [0, n). Queries are rotated to
 * their positions and scaled. out rows have room for n rounded up to 16 (the rest is scratch). */
typedef struct {
    float *out;
    size_t out_stride;
    const float *q;                     /* (n_q, head_dim) */
    size_t q_stride;
    const void *ready;                  /* wn_format_ready_bytes() of the n_q; NULL for formats
                                           without `ready` */
    int n_q;
    const void *frame;
    int P, first, n, head_dim;
    void *tmp;                          /* NULL or scratch (n_q_tmp) */
    wn_ahead ahead;                     /* fetched meanwhile */
    wn_fetcher *fetcher;                /* asked meanwhile in place of ahead; or NULL */
    const wn_book *book;                /* the format's */
    wn_page_place place;                /* of slots first..; for formats with a book */
} wn_page_score;

/* acc[i * acc_stride + d] += sum over s of w[i * w_stride + s] * v_(first + s)[d]. A masked slot
 * has weight exactly 0. */
typedef struct {
    float *acc;
    size_t acc_stride;
    const float *w;                     /* (n_q, n) */
    size_t w_stride;
    int n_q;
    const void *frame;
    int P, first, n, head_dim;
    void *tmp;
    wn_ahead ahead;
    wn_fetcher *fetcher;
    const wn_book *book;
} wn_page_mix;

/* Some slots of one of several pages that are scored or mixed one after the other. Of slots first
 * to first + n - 1 the n_entries in keep have a column in out and w, side by side from column
 * `entry` on. */
typedef struct {
    const void *frame;
    int first, n;
    int entry, n_entries;
    uint64_t keep;                      /* bit s: slot first + s */
    wn_ahead ahead;                     /* by formats that are read page by page */
    wn_page_place place;                /* of slots first.. */
} wn_page_part;

static inline wn_page_part wn_page_part_of(const void *frame, int first, int n)
{
    return (wn_page_part){ .frame = frame, .first = first, .n = n, .n_entries = n,
                           .keep = wn_low_bits(n) };
}

/* Entries out of slots, and into slots; what is not an entry stays as it is. */
static inline void wn_page_take(float *entries, const float *slots, const wn_page_part *x)
{
    if (x->n_entries == x->n) {
        memcpy(entries, slots, sizeof *slots * (size_t)x->n);
        return;
    }
    for (uint64_t left = x->keep; left; left &= left - 1) *entries++ = slots[__builtin_ctzll(left)];
}

static inline void wn_page_give(float *slots, const float *entries, const wn_page_part *x)
{
    if (x->n_entries == x->n) {
        memcpy(slots, entries, sizeof *slots * (size_t)x->n);
        return;
    }
    for (uint64_t left = x->keep; left; left &= left - 1) slots[__builtin_ctzll(left)] = *entries++;
}

/* Rows of q into wn_format_ready_bytes(). */
typedef void wn_ready_fn(void *out, const float *q, size_t q_stride, int n_q, int head_dim);

typedef struct wn_format wn_format;

/* What a book's numbers are and how pages are made and read by it. */
typedef struct {
    /* Numbers of K's or V's book; all of them finite halves. */
    size_t (*numbers)(int head_dim, bool of_v);
    /* As encode_k, encode_v, get_k, get_v; place: of the page's slots, pos: of this one. */
    void (*encode)(const wn_book *b, void *frame, const void *raw, const wn_format *raw_format,
                   int P, int n, uint64_t keep, int head_dim, wn_page_place place);
    void (*get)(const wn_book *b, const void *frame, int P, int slot, int32_t pos, float *row,
                int head_dim);
    /* What reading goes by beside the numbers: its bytes, a multiple of 64; see
     * wn_book_prepare(). */
    size_t (*read_bytes)(int head_dim, bool of_v);
    void (*prepare)(const wn_book *b, void *read, int head_dim);
} wn_calibrated;

struct wn_format {
    const char *name;                   /* "f16": as in -ctk and in the identity */
    bool raw;
    int lag;                            /* pages between the query's and the first it reads sealed;
                                           raw: 0 */
    wn_repack_class k_repack, v_repack;
    int n_q_tmp;                        /* score/mix want tmp (wn_format_tmp_bytes) when n_q >=
                                           this */

    size_t (*k_bytes)(int P, int head_dim);     /* of a frame; a multiple of 64 */
    size_t (*v_bytes)(int P, int head_dim);

    /* Rows [slot, slot + n) of a frame from f32 rows (stride in floats). Raw formats only. */
    void (*put_k)(void *frame, int P, int slot, const float *rows, size_t stride, int n,
                  int head_dim);
    void (*put_v)(void *frame, int P, int slot, const float *rows, size_t stride, int n,
                  int head_dim);
    /* The way back: rows [slot, slot + n). Raw formats; NULL: slot by slot. */
    void (*rows_k)(const void *frame, int P, int slot, float *rows, size_t stride, int n,
                   int head_dim);
    void (*rows_v)(const void *frame, int P, int slot, float *rows, size_t stride, int n,
                   int head_dim);
    /* Keys of slots [slot, slot + n) as columns of length 1, cols[d * stride + s]: raw formats, by
     * unit_cols of wn_attn_ops. */
    void (*units_k)(const void *frame, int P, int slot, float *cols, size_t stride, int n,
                    int head_dim);
    /* One slot as f32. */
    void (*get_k)(const void *frame, int P, int slot, float *row, int head_dim);
    void (*get_v)(const void *frame, int P, int slot, float *row, int head_dim);
    /* One slot from frame to frame, bit-exact (WN_REPACK_COPY only). */
    void (*copy_k)(void *dst, int dst_slot, const void *src, int src_slot, int P, int head_dim);
    void (*copy_v)(void *dst, int dst_slot, const void *src, int src_slot, int P, int head_dim);
    /* n neighbouring slots. Raw formats; NULL: slot by slot (wn_format_copy_k() knows). */
    void (*copies_k)(void *dst, int dst_slot, const void *src, int src_slot, int n, int P,
                     int head_dim);
    void (*copies_v)(void *dst, int dst_slot, const void *src, int src_slot, int n, int P,
                     int head_dim);
    /* Encoded formats only: a whole page of n live-or-masked slots from its raw frame. Masked
     * slots and those from n on do not count and read as 0. */
    void (*encode_k)(void *frame, const void *raw, const wn_format *raw_format, int P, int n,
                     uint64_t keep, int head_dim);
    void (*encode_v)(void *frame, const void *raw, const wn_format *raw_format, int P, int n,
                     uint64_t keep, int head_dim);

    wn_ready_fn *ready;                 /* for score; NULL: score takes q */
    void (*score)(const wn_page_score *s);
    void (*mix)(const wn_page_mix *m);
    /* The same for several pages, in ascending columns; what s and m say of a page does not count.
     * The scores are those of one page after the other; a mix is one call for all of them. NULL:
     * page by page. */
    void (*scores)(const wn_page_score *s, const wn_page_part *parts, int n);
    void (*mixes)(const wn_page_mix *m, const wn_page_part *parts, int n);
    /* NULL: mix adds to the answer. Else mix adds to an accumulator of the format's own, 0 at the
     * start of a split, and this adds that to acc at the split's end. own is overwritten. */
    void (*mixed)(float *acc, size_t acc_stride, float *own, size_t own_stride, int n_q,
                  int head_dim);
    /* NULL, or the format whose frames this one's begin with: it reads them in fewer bits, from
     * fewer bytes, and its copy_k and copy_v take slots out of them, as it would have encoded those
     * itself. */
    const wn_format *coarse;

    const wn_calibrated *calibrated;    /* in place of encode_k, encode_v, get_k, get_v; else
                                           NULL */
    const wn_book *book;                /* of one side of one lane; NULL in the list */
};

/* One slot as f32, and a page of raw rows, in any format. */
static inline void wn_format_get_k(const wn_format *f, const void *frame, int P, int slot,
                                   int32_t pos, float *row, int head_dim)
{
    if (f->calibrated) f->calibrated->get(f->book, frame, P, slot, pos, row, head_dim);
    else f->get_k(frame, P, slot, row, head_dim);
}

static inline void wn_format_get_v(const wn_format *f, const void *frame, int P, int slot,
                                   float *row, int head_dim)
{
    if (f->calibrated) f->calibrated->get(f->book, frame, P, slot, 0, row, head_dim);
    else f->get_v(frame, P, slot, row, head_dim);
}

static inline void wn_format_encode_k(const wn_format *f, void *frame, const void *raw,
                                      const wn_format *raw_format, int P, int n, uint64_t keep,
                                      int head_dim, wn_page_place place)
{
    if (f->calibrated)
        f->calibrated->encode(f->book, frame, raw, raw_format, P, n, keep, head_dim, place);
    else f->encode_k(frame, raw, raw_format, P, n, keep, head_dim);
}

static inline void wn_format_encode_v(const wn_format *f, void *frame, const void *raw,
                                      const wn_format *raw_format, int P, int n, uint64_t keep,
                                      int head_dim)
{
    if (f->calibrated)
        f->calibrated->encode(f->book, frame, raw, raw_format, P, n, keep, head_dim,
                              (wn_page_place){ 0 });
    else f->encode_v(frame, raw, raw_format, P, n, keep, head_dim);
}

extern const wn_format wn_format_f16, wn_format_bf16, wn_format_f32;
extern const wn_format wn_format_q8, wn_format_q6, wn_format_q5, wn_format_q4, wn_format_q3,
    wn_format_q2;
extern const wn_format wn_format_q44, wn_format_q4h;
extern const wn_format wn_format_kivi4, wn_format_kivi2, wn_format_bfp4;
extern const wn_format wn_format_cq4, wn_format_cq2, wn_format_cq1;
extern const wn_format wn_format_nuq4, wn_format_nuq3, wn_format_nuq2;
extern const wn_format wn_format_nuq4_s1, wn_format_nuq3_s1, wn_format_nuq2_s1;
extern const wn_format wn_format_q8_0, wn_format_q5_1, wn_format_q5_0, wn_format_q4_1,
    wn_format_q4_0;
extern const wn_format wn_format_q8_0r, wn_format_q5_1r, wn_format_q5_0r, wn_format_q4_1r,
    wn_format_q4_0r;
extern const wn_format wn_format_q4_s1, wn_format_q4_r2, wn_format_q4_s1r2;
extern const wn_format wn_format_q3_s1, wn_format_q3_r2, wn_format_q3_s1r2;
extern const wn_format wn_format_q2_s1, wn_format_q2_r2, wn_format_q2_s1r2;
extern const wn_format wn_format_kivi4_s1, wn_format_kivi4_r2, wn_format_kivi4_s1r2;
extern const wn_format wn_format_kivi2_s1, wn_format_kivi2_r2, wn_format_kivi2_s1r2;

/* Neighbouring slots from frame to frame, in any format that can. */
void wn_format_copy_k(const wn_format *f, void *dst, int to, const void *src, int from, int n,
                      int P, int head_dim);
void wn_format_copy_v(const wn_format *f, void *dst, int to, const void *src, int from, int n,
                      int P, int head_dim);

const wn_format *wn_format_find(const char *name);      /* NULL: unknown */
wn_status wn_format_unknown(const char *name, wn_err *err);   /* WN_EINVAL, with those there are */
const wn_format *wn_format_at(int i);                   /* NULL past the last */
/* Scratch per thread for score and mix with many queries: the page as f32. */
size_t wn_format_tmp_bytes(int P, int head_dim);
/* Of n_q queries made ready, for any format; a multiple of 64. */
size_t wn_format_ready_bytes(int n_q, int head_dim);
/* scores and mixes of any format. room: (n_q, WN_PAGE_SLOTS_MAX) floats. */
void wn_format_scores(const wn_format *f, const wn_page_score *s, const wn_page_part *parts, int n,
                      float *room);
void wn_format_mixes(const wn_format *f, const wn_page_mix *m, const wn_page_part *parts, int n,
                     float *room);

#endif
