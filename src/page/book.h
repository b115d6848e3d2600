/* page/book.h - what calibrated formats know of a lane, and what they share.
 *
 * A book is the numbers that `winnow calibrate` found for K, or for V, of one lane: thresholds,
 * levels, tables of points; which of them lie where is the format's affair. Keys are kept as they
 * were before rotation, where a channel means the same at every position: the page is turned
 * back when it is encoded, and each slot is turned to its position again when it is read. So frames
 * hold no positions, and a slot's codes can move (repack = copy).
 *
 * Reading K is half a page at a time (the class pre-rope of the architecture): the format lays
 * slots out in f32 scratch by channel, a column for each, columns are turned, and multiplied like a
 * raw f32 page. V is read as it is mixed; for many queries it is laid out, too. So score is one FMA
 * chain over channels, mix one over slots in ascending order, the same for any number of queries.
 *
 *     codes -> columns (the format, kernel/lookup.h)  ->  turned  ->  product
 *
 * Angles at a position are those of its multiple of 64 and of the rest, from two tables in f32,
 * one rotation after the other: cos = ch cl - sh sl, sin = sh cl + ch sl.
 *
 * Not finite: the format marks a slot whose row holds an infinity or NaN, and it reads as NaN, as
 * in page/coded.h. Numbers beyond 65504 are cut off there.
 */
#ifndef WN_PAGE_BOOK_H
#define WN_PAGE_BOOK_H

#include "page/format.h"

enum { WN_BOOK_DIM = 512, WN_TURN_STEP = 64 };

/* How keys of a lane are turned; made once for all lanes that turn alike. */
typedef struct {
    int n_dims;                         /* even; of a head's first channels */
    bool neox;                          /* pairs (j, j + n_dims / 2), else (2 j, 2 j + 1) */
    double *rate;                       /* (n_dims / 2) radians per position */
    float *low, *high;                  /* (n_dims / 2, 2, 64), (n_high, n_dims / 2, 2): cos, sin at
                                           s and at 64 s */
    int n_high;                         /* beyond it angles are computed when they are needed */
} wn_turn;

struct wn_book {
    const float *x;                     /* the format's numbers */
    const void *read;                   /* the same as reading wants them: wn_book_prepare() */
    const wn_turn *turn;                /* K; NULL: not turned */
    bool of_v;
};

/* Tables for positions below n; they go with wn_turn_release(). */
wn_status wn_turn_init(wn_turn *t, int n_dims, bool neox, const double *rate, int n, wn_err *err);
void wn_turn_release(wn_turn *t);
size_t wn_turn_bytes(int n_dims, int n);

/* A format's table for reading, made from b->x into `read` (the format's read_bytes(), 64-byte
 * aligned), which the book borrows. */
void wn_book_prepare(wn_book *b, const wn_format *f, void *read, int head_dim);

/* The row of a slot as the book has it, before it is turned; false: it is not finite. */
typedef bool wn_book_row_fn(const wn_book *b, const void *frame, int P, int slot, float *row,
                            int head_dim);
/* Slots [first, first + n) of K, before they are turned, as columns (head_dim, WN_BOOK_COLUMNS);
 * NaN: not finite. So few at once that they stay in the first cache together with their angles:
 * whole pages took a half more time. */
enum { WN_BOOK_COLUMNS = 32 };
typedef void wn_book_columns_fn(const wn_book *b, const void *frame, int P, int first, int n,
                                float *x, int head_dim);

void wn_book_score(const wn_page_score *s, wn_book_columns_fn *columns);
/* With V laid out in m->tmp; worth it from WN_BOOK_MANY queries on. */
void wn_book_mix(const wn_page_mix *m, wn_book_row_fn *row);
enum { WN_BOOK_MANY = 9 };
/* What a spoiled slot, in the mask, makes of a mix: NaN, unless its weight is 0. */
void wn_book_spoil(const wn_page_mix *m, uint64_t spoiled);
void wn_book_get(const wn_book *b, wn_book_row_fn *fn, const void *frame, int P, int slot,
                 int32_t pos, float *row, int head_dim);
/* Rows [slot, slot + n) of a raw page as the book sees them, rows WN_BOOK_DIM apart: turned back
 * and cut off. Bit i of the answer: row i is finite; the others are 0. */
uint64_t wn_book_load(const wn_book *b, float *rows, const void *raw, const wn_format *raw_format,
                      int P, int slot, int n, int head_dim, wn_page_place place);

/* IDENT_score and IDENT_get of a format from its IDENT_columns and IDENT_row. */
#define WN_BOOK_READ(IDENT)                                                                  \
    static void IDENT##_score(const wn_page_score *s) { wn_book_score(s, IDENT##_columns); } \
    static void IDENT##_get(const wn_book *b, const void *f, int P, int slot, int32_t pos,   \
                            float *row, int D)                                               \
    {                                                                                        \
        wn_book_get(b, IDENT##_row, f, P, slot, pos, row, D);                                \
    }

#endif
