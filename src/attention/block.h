/* attention/block.h - a block of query rows against one lane, split by split.
 *
 * A block is the rows [pos0, pos0 + np) of one item for all heads of one group; row
 * i = r * group + h is position pos0 + r, head h of the group. Decode blocks have one
 * position, prefill blocks as many as make about 96 rows.
 *
 *     rotate    q to q * scale, turned to its position                 (rows, k_dim)
 *     gather    the live slots of a split, as stretches of neighbours  -> entries  (gather.h)
 *     score     logits[row][entry]; soft cap, bias, mask                           (split.h)
 *     softmax   w = exp(logit - m), l by position mod 16
 *     mix       acc[row] = sum of w v
 *     merge     into the running (m, l, acc), or kept for an ordered merge
 *     account   w exp(m - M) / L to the ledger, if there is one: once the row's maximum M and
 *               sum L are known, from the weights as they still lie there          (account.h)
 *
 * Entries are the live slots of the split in view order, at most 512 of them, however
 * many dead slots the pages hold; a dead slot is never touched. With one position, slots
 * it may not see are not gathered either. With several, most of what lies beyond a row's
 * position is left out too; the rest has logit -INFINITY and weight 0: the same bits, unless
 * V holds an infinity or NaN there; rows whose answer is not finite are therefore computed
 * once more, alone.
 */
#ifndef WN_ATTENTION_BLOCK_H
#define WN_ATTENTION_BLOCK_H

#include "attention/attend.h"
#include "kernel/attn.h"
#include "kernel/vec.h"

enum {
    WN_BLOCK_ROWS = 96,                 /* 192 gains 1 to 2 % for twice the scratch
                                           (bench/NOTES.md) */
    WN_KEPT_SPLITS = 16,                /* of a full block, whose weights stay for ledgers; earlier
                                           splits are scored again */
    WN_KEPT_MOST = 64,                  /* and of fewer rows as many as have room then (decode: a
                                           context of 24k, 8 lanes x 4) */
    WN_BLOCK_LANES = 16,                /* answered side by side in decode, at most */
    WN_LOGIT_STRIDE = WN_SPLIT + 32,    /* 16 before (alignment), 16 after (rounding up) */
};

/* Neighbouring slots of one frame; of an encoded frame, a whole run with its mask. Where they lie
 * is said by two parts, of K and V. */
typedef struct {
    const wn_format *k_format, *v_format;
    const float *bias;                  /* of the part's slots; or NULL */
    int32_t shift;
} wn_stretch;

/* Stretches and entries of one split, in one of the desk's two places for them. */
typedef struct {
    wn_stretch *stretches;
    wn_page_part *k, *v;                /* by stretch */
    int16_t *index;                     /* position in the split, by entry */
    int n;                              /* stretches */
    int begin, end;                     /* entries [begin, end) */
    int32_t base;                       /* position of index 0 */
    int lowest, highest;                /* index of the first and the last position */
    bool dense;                         /* entry e has index e + const, const a multiple of 16 */
    bool ascending;                     /* entries are in the order of positions */
} wn_gathered;

/* A split whose weights stay for a ledger: what was gathered of it, without stretches. */
typedef struct {
    int split;                          /* -1: none */
    wn_gathered g;
    int16_t index[WN_LOGIT_STRIDE];
} wn_kept_split;

/* What one thread works with; sizes for the widest block of the pass. */
typedef struct {
    float *q[2];                        /* (rows, k_dim) for shift 0 and for one other */
    char *ready[2];                     /* the same, as the format of encoded K wants them
                                           (wn_format_ready_bytes()) */
    wn_ready_fn *ready_for[2];          /* which format's; NULL: nothing there */
    int32_t q_shift;                    /* of q[1]; 0: nothing there */
    float *logits;                      /* (rows, WN_LOGIT_STRIDE), then the weights */
    float *m, *l, *acc;                 /* (rows), (rows), (rows, v_dim): this split */
    float *own;                         /* (rows, v_dim): what encoded V gathers of this split
                                           (wn_format.mixed) */
    float *run_m, *run_l, *run_acc;     /* merged from the left */
    float *part;                        /* (rows, 64): for wn_format_scores() and
                                           wn_format_mixes() */
    float *by_pos;                      /* (4, WN_SPLIT) */
    int n_rows;                         /* it has room for */
    float *kept, *kept_m;               /* (n_kept, n_rows, WN_LOGIT_STRIDE), (.., n_rows): weights
                                           and maxima of the last splits, for a ledger; or NULL */
    int n_kept;
    wn_kept_split *kept_splits;         /* (lanes, n_kept) split s at s mod n_kept; or NULL */
    float *most;                        /* (WN_SPLIT) weights of a row, maximum of the group */
    float *cs;                          /* (k_dim) angles of a shifted position */
    void *tmp;                          /* wn_format_tmp_bytes() */
    wn_stretch *stretches[2];           /* (WN_SPLIT), of the split at hand and of the next */
    wn_page_part *k[2], *v[2];          /* (WN_SPLIT) */
    wn_ahead *soon;                     /* (2 WN_SPLIT) frames of the split that comes next */
    int16_t *index[2];                  /* (WN_LOGIT_STRIDE) position in the split, by entry */
} wn_desk;

typedef struct {
    const wn_attend_shape *shape;
    const wn_attend_args *args;
    const wn_kernels *kernels;
    const wn_attend_item *item;
    const float *cs;                    /* angles of the block's first row, n_dims apart; or NULL */
    int lane, head;                     /* of the cache; KV head in the layer */
    int row0, np;                       /* batch row of pos0; positions */
    int32_t pos0;
    int group;
    bool keeps;                         /* its weights go to the item's ledger right behind the
                                           answers */
} wn_block;

/* Where the splits' results go instead of the running merge: (n_splits) records of
 * {m[rows], l[rows], acc[rows][v_dim]}, for splits from `from` on. */
typedef struct {
    float *data;
    int from, to;                       /* splits [from, to) */
} wn_partials;

static inline size_t wn_partial_floats(int rows, int v_dim)
{
    return (size_t)rows * (size_t)(v_dim + 2);
}

/* Answers the block from splits [from, to): into the desk's running merge, or, with
 * keep, as partials. */
void wn_block_run(const wn_block *b, wn_desk *d, int from, int to, const wn_partials *keep);
/* The same position for n lanes from the block's on, a split of each in turn, and their
 * results: what a pass stored of neighbouring lanes lies side by side, so that memory is
 * read as one long stream. np is 1; the desk has room for n groups of rows. */
void wn_block_run_lanes(const wn_block *first, wn_desk *d, int n, float *ml);
/* Merges partials into the desk's running merge, in order. */
void wn_block_merge(const wn_block *b, wn_desk *d, const wn_partials *p);
/* Writes acc / l to the output; m and l of every (batch row, head) to ml (pairs). */
void wn_block_finish(const wn_block *b, wn_desk *d, float *ml);
/* Rotated, scaled queries of the block into the sequence's ring. */
void wn_block_fill_ring(const wn_block *b, wn_desk *d);

/* Logits of every live slot (after soft cap and bias), for a block of one position:
 * calls back once per split with the positions in view order. */
typedef void wn_block_logits_fn(void *ctx, const int32_t *pos, const float *logits, size_t stride,
                                int n);
void wn_block_logits(const wn_block *b, wn_desk *d, wn_block_logits_fn *fn, void *ctx);

#endif
