/* attention/window.h - what the last queries look at: for policies that ask it at a decision.
 *
 * The ring of a sequence (cache/kv.h) holds the rotated and scaled queries of its last
 * positions. Their attention over the live slots of a lane is computed anew, causally: a
 * query at t sees the slots at positions <= t. Nothing is kept between decisions, so the
 * result depends on the live slots and those queries alone.
 */
#ifndef WN_ATTENTION_WINDOW_H
#define WN_ATTENTION_WINDOW_H

#include "attention/attend.h"

typedef struct {
    const wn_attend_shape *shape;
    const wn_rope *rope;                /* for shifted segments; NULL: no rotation */
    const float *sinks;                 /* of the layer, as in wn_attend_args; or NULL */
    int w;                              /* queries at positions [n - w, n), w <=
                                           wn_kv_ring_valid() */
} wn_window;

/* The last w queries of a lane's group, (w, group, k_dim), the oldest first. */
void wn_window_queries(const wn_kv *kv, int lane, int group, int w, float *rows);

/* Scratch floats for a lane with n live slots. */
size_t wn_window_floats(const wn_window *x, int n, int P);
/* sum[h * n + i] = sum over the w queries, in order, of the weight of query head h of the
 * lane's group on live slot i; slots in the order of the lane's runs, their positions in pos. */
void wn_window_sums(const wn_window *x, const wn_kv *kv, int lane, int n, float *sum, int32_t *pos,
                    float *scratch);

#endif
