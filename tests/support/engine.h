/* tests/support/engine.h - running token lists through an engine, for tests that compare
 * logits byte by byte. Failures abort the test with the error's sentence. */
#ifndef WN_TEST_ENGINE_H
#define WN_TEST_ENGINE_H

#include "engine/engine.h"
#include "winnow.h"

/* A model small enough for tests of milliseconds and odd enough to matter: random weights,
 * 2 layers, 4 query heads over 2 KV heads of 32, vocabulary of 320. Made once per process
 * in a temporary file; removed at exit. */
const char *test_model_path(const char *arch, const char *type);
/* Smaller still, 4 lanes of 16 channels: for tests that count frames and look at no logits. */
const char *test_tiny_model_path(void);
/* 2 lanes of 64 channels and a context of 8192 + 64: for what memory costs where it counts. */
const char *test_long_model_path(void);

typedef struct {
    wn_model *m;
    wn_engine *e;
    wn_profile *profile;                /* made up, lent to the engine */
    wn_calibration *calibration;        /* likewise */
    int n_vocab;
} test_engine;

/* opts: zero fields mean the engine's defaults, n_ctx 2048. */
test_engine test_engine_open(const char *path, wn_engine_opts opts);
void test_engine_close(test_engine *t);

/* A sequence that collects the logits of every position into `logits` (max, n_vocab). */
typedef struct {
    wn_seq *s;
    float *logits;
    int n_vocab, n_seen;
} test_seq;
test_seq test_seq_open(test_engine *t, int max_tokens);
/* under a cache policy */
test_seq test_seq_open_kv(test_engine *t, int max_tokens, const char *kv);
void test_seq_close(test_seq *q);
/* Feeds n tokens and steps until they are computed. */
void test_seq_run(test_engine *t, test_seq *q, const int32_t *ids, int n);
void test_steps(test_engine *t);        /* until nothing is pending */

/* n token ids from a seed, the same everywhere. */
void test_tokens(int32_t *ids, int n, int n_vocab, uint64_t seed);

/* Bytes must agree; says where they differ first. */
void test_same_logits(const char *what, const float *a, const float *b, int n, int n_vocab);

#endif
