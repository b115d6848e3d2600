/* tests/support/view.h - views of a cache made from arrays, for tests of recipes.
 *
 * A test_view is a text of n tokens over layers of equal lanes: each lane has live slots
 * (position, tokens it stands for, bias) with rows of K and V, all of it the test's to
 * set. A policy is asked with test_view_decide(); test_view_carry_out() then does what the
 * plan says in the plainest way, and test_view_grow() adds tokens, so that decisions can
 * follow each other as they do in a cache.
 *
 *     test_view *t = test_view_open(&(test_shape){ .n_tokens = 200, .n_layers = 2, .heads = 2, .dim = 8 });
 *     test_view_key(t, 1, 17)[0] = 5;
 *     test_view_decide(t, "random@25%");
 *     test_view_n_stays(t, 1);  test_view_stays(t, 1, 17);
 *     test_view_close(t);
 *
 * Queries and accumulated attention belong to positions; what the last queries attend to is
 * computed from them, plainly, unless the test says what it is (test_view_votes).
 */
#ifndef WN_TEST_VIEW_H
#define WN_TEST_VIEW_H

#include "policy/policy.h"

typedef struct {
    int n_tokens, max_tokens;           /* max: as far as the text may grow; 0: n_tokens */
    int n_layers, heads, group;         /* heads: lanes of each layer; group: 0 means 2 */
    int dim, v_dim;                     /* of K rows, 0: 4; of V rows, 0: dim */
} test_shape;

typedef struct {
    int n;
    int32_t *pos, *count;               /* (max_tokens) */
    bool *demoted, *low;                /* (max_tokens) by position; by slot, as shown */
    float *bias, *k, *v;                /* (max_tokens), (max_tokens, dim), (max_tokens, v_dim) */
    float *stats;                       /* (WN_STATS_MAX, max_tokens) by position */
    float *q;                           /* (max_tokens, group, dim) by position */
    float *outputs;                     /* (max_tokens) by position */
    float *sums;                        /* (group, n) of the last decision */
    const float *votes;                 /* (n) the test's own, for every head; or NULL */
    bool no_slots;                      /* a lane of a window layer: shown without slots */
} test_lane;

typedef struct {
    test_shape shape;
    wn_view view;
    wn_view_lane *shown;
    test_lane *lanes;
    int *layer_first;
    wn_arena scratch;
    wn_profile *profile;                /* made up; the view's */
    wn_policy policy;                   /* the last that was asked */
    wn_plan plan;                       /* what it said */
    int n_loads;                        /* how often rows were asked for */
    uint64_t rng;
} test_view;

/* Every token live in every lane, rows of random floats in [-1, 1) from seed 1. */
test_view *test_view_open(const test_shape *s);
void test_view_close(test_view *t);

/* Lane by lane; positions ascending. Rows keep belonging to positions. */
void test_view_set(test_view *t, int lane, const int32_t *pos, int n);
void test_view_thin(test_view *t, int lane, int n, uint64_t seed);  /* n random slots stay */
void test_view_hide(test_view *t, int layer);           /* a window layer */
/* a slot for several tokens */
void test_view_merge(test_view *t, int lane, int32_t pos, int count, float bias);
float *test_view_key(test_view *t, int lane, int32_t pos);      /* (dim) of the slot at pos */
float *test_view_value(test_view *t, int lane, int32_t pos);    /* (v_dim) */
/* of the asked policy's list */
float *test_view_stat(test_view *t, int lane, int stat, int32_t pos);
float *test_view_mass(test_view *t, int lane, int32_t pos);     /* the first */
/* what its value can change; at first 1 to 5 */
float *test_view_output(test_view *t, int lane, int32_t pos);
float *test_view_query(test_view *t, int lane, int32_t pos, int head);  /* (dim), scaled */
/* What the last queries attend to, slot by slot, in place of what follows from the queries. */
void test_view_votes(test_view *t, int lane, const float *votes);
/* as for ranges that the caller named */
void test_view_protect(test_view *t, int32_t from, int32_t to);
void test_view_flag(test_view *t, int32_t pos, unsigned flags); /* WN_FLAG_ */
/* 0: none; until any is set all are in none */
void test_view_span(test_view *t, int32_t from, int32_t to, int32_t span);

/* Asks the policy, at the tokens there are; a slot takes slot_bytes (0: f16). The plan must
 * be well-formed (status, ranges, only lanes with slots, merges of live slots). */
const wn_plan *test_view_decide(test_view *t, const char *policy);
const wn_plan *test_view_decide_bytes(test_view *t, const char *policy, double slot_bytes);
int test_view_n_stays(const test_view *t, int lane);    /* slots after the plan, merges included,
                                                           demoted ones not */
int test_view_total(const test_view *t);                /* over all lanes */
/* its slot is neither dropped nor merged */
bool test_view_stays(const test_view *t, int lane, int32_t pos);

void test_view_carry_out(test_view *t);                 /* masks, merges and biases of the plan */
void test_view_grow(test_view *t, int n);               /* n more tokens, live in every lane */

#endif
