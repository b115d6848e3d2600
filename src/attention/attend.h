/* attention/attend.h - how is a query answered from pages?
 *
 * One primitive for prompt chunks and decode tokens alike: the rows of one layer's
 * queries, keys and values of a ragged batch go in, the heads' answers come out. Keys are
 * rotated and stored first, then every query row p of a sequence attends to the live
 * slots of its lanes with position <= p.
 *
 * The answer is computed split by split, split i being the positions [512 i, 512 (i+1)):
 *
 *     score   logits of all live slots, in scratch; plus bias; their maximum m
 *     mix     w = exp(logit - m);  acc = sum w v  (one chain over slots);  l = sum w
 *
 * and the splits (m, l, acc) are merged left to right: M = max(m, m'), acc = acc exp(m - M)
 * + acc' exp(m' - M), likewise l; the answer is acc / l. Where a head has a sink (a learned
 * logit s that takes its share of the softmax and gives nothing: gpt-oss), it is merged
 * last, as a split of m = s, l = 1 and acc = 0: the weights of the slots then sum to less
 * than 1. A row that sees no slot at all gets zeros, sink or not. The sum l of a split runs in 16
 * chains by position mod 16, closed by wn_tree16(): positions do not move when slots are
 * repacked, so neither does the result, and for pages at their original place the chains
 * are vector lanes. An empty split is skipped. Decode and prefill, one thread or many,
 * give the same bits: threads get whole (lane, split) or (lane, row block) pieces and the
 * merge always runs in order.
 */
#ifndef WN_ATTENTION_ATTEND_H
#define WN_ATTENTION_ATTEND_H

#include "attention/accumulate.h"
#include "attention/rope.h"
#include "base/arena.h"
#include "base/threads.h"
#include "cache/kv.h"

enum { WN_SPLIT = 512 };

/* Rows [row, row + n_rows) of the batch are positions [pos, pos + n_rows) of one sequence;
 * wn_kv_reserve() has been called for them, pos == wn_kv_n(kv). */
typedef struct {
    wn_kv *kv;
    int32_t pos;
    int row, n_rows;
    const wn_ledger *ledger;            /* NULL, or gets the weights of this pass's rows */
} wn_attend_item;

/* What the geometry of attention is, the same for every pass. */
typedef struct {
    int n_heads, n_kv_heads;            /* a group is n_heads / n_kv_heads query heads */
    int k_dim, v_dim;                   /* head sizes */
    float scale;                        /* usually 1 / sqrt(k_dim) */
    float softcap;                      /* 0: none; else cap * tanh(logit / cap) before the bias */
} wn_attend_shape;

typedef struct wn_attend_args wn_attend_args;

/* Optional, for those who ask; NULL fields cost nothing. */
typedef struct {
    void *ctx;
    /* The layer's rows as projected, before anything is done with them. */
    void (*rows)(void *ctx, const wn_attend_args *a, int n_rows);
    /* log-sum-exp of every (batch row, head) of this layer, after the layer: (n_rows, n_heads) */
    void (*lse)(void *ctx, int layer, const float *lse, int n_rows, int n_heads);
    /* Normalised weights of one decode row (items of one row only): for each head of a
     * lane's group, (group, n) weights of the slots at positions pos[0..n). */
    void (*weights)(void *ctx, const wn_attend_item *item, int lane, const int32_t *pos,
                    const float *w, int group, int n);
    /* The layer's answers, (n_rows, n_heads * v_dim). */
    void (*answers)(void *ctx, int layer, const float *a, int n_rows, int width);
} wn_attend_observer;

/* One pass over a batch: cut into work once, used by every layer. */
typedef struct wn_attend_pass wn_attend_pass;

/* Scratch (arena bytes) that a pass with these limits needs, prepare and layers together. */
size_t wn_attend_scratch_bytes(const wn_attend_shape *s, int max_rows, int max_items,
                               int max_positions, int n_threads);
/* What a pass needs beside that if one of its items has a ledger. */
size_t wn_attend_ledger_bytes(const wn_attend_shape *s, int max_rows, int n_threads);
/* Takes from the arena; valid until the arena is rewound. */
wn_attend_pass *wn_attend_begin(const wn_attend_shape *s, const wn_attend_item *items, int n_items,
                                wn_arena *scratch, wn_threads *team, const wn_attend_observer *obs);
/* q (n_rows, n_heads * k_dim), k (n_rows, n_kv_heads * k_dim), v (n_rows, n_kv_heads * v_dim),
 * all as projected (after QK-norm and bias), not rotated; strides in floats. out (n_rows,
 * n_heads * v_dim). rope NULL: no rotation. window 0: none, else keys older than p - window
 * + 1 are not seen. sinks (n_heads): logits that join each head's softmax, or NULL. q and k
 * are overwritten. */
struct wn_attend_args {
    int layer;
    const wn_rope *rope;
    int window;
    const float *sinks;
    float *q, *k, *v;
    size_t q_stride, k_stride, v_stride;
    float *out;
    size_t out_stride;
};
void wn_attend(wn_attend_pass *pass, const wn_attend_args *a);

/* Microseconds spent in wn_attend since the last reset (wall time of the calling thread). */
uint64_t wn_attend_us(bool reset);

#endif
