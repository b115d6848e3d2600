/* tests/support/kv_model.h - a sequence's cache as plain arrays: what wn_kv must agree with.
 *
 * One slot per lane and position, since a position has at most one live slot. The model
 * runs the same operations in the most obvious way and is compared with the real one
 * through the run iterator, slot by slot, in order.
 */
#ifndef WN_TEST_KV_MODEL_H
#define WN_TEST_KV_MODEL_H

#include "cache/kv.h"

enum { MODEL_DIM = 6, MODEL_MAX = 2200, MODEL_LANES = 5 };

typedef struct {
    bool live, merged, low;             /* low: in the lower format */
    float bias, k[MODEL_DIM], v[MODEL_DIM];
    int32_t count, shift;
} model_slot;

typedef struct {
    const wn_lane_map *map;
    int P, n;
    int decided_at[MODEL_LANES];
    model_slot at[MODEL_LANES][MODEL_MAX];
} model;

/* A map of n lanes (two per layer), the last one a window lane if window > 0. */
const wn_lane_map *model_map(int n_lanes, int window);

void model_init(model *m, const wn_lane_map *map, int P);
/* The row of a lane at a position of a text. */
void model_row(float *k, float *v, int text, int lane, int pos);
/* Reserves, puts (cut at random into pieces when seed is given), commits; the model too.
 * WN_EFULL leaves both as they were. */
wn_status model_append(model *m, wn_kv *kv, int text, int n, uint64_t *seed);
/* What a plan does. Merge sources are read from kv, before it is applied there. */
void model_apply(model *m, const wn_kv *kv, const wn_plan *plan);
void model_truncate(model *m, int n);
/* The first position that the next query of a lane can see. */
int model_first(const model *m, int lane);
/* Asserts that kv reads as the model says, from every split on, and checks kv and pool. */
void model_compare(const model *m, const wn_kv *kv, const wn_pool *pool);
/* K2: every frame's references are those of these sequences; n_others frames are held by
 * the test itself. */
void model_check_refs(wn_kv *const *kvs, int n, const wn_pool *pool, uint32_t n_others);

#endif
