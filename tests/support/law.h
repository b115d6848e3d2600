/* tests/support/law.h - the determinism law, tried on one text: a policy gives the same bytes
 * in any chunks, with any threads and page size, beside neighbours with other policies, after a
 * fork, a truncation, a session file. What differs fails the test with its place.
 */
#ifndef WN_TEST_LAW_H
#define WN_TEST_LAW_H

#include "tests/support/engine.h"

enum { LAW_N = 650, LAW_VOCAB = 320 };

/* Of the text: ids are the caller's to fill before the first run. */
extern int32_t law_ids[LAW_N];
extern const int law_marks[3];          /* 100, 333, 512 */
extern const char *law_model;           /* a file */
extern const wn_profile *law_profile;   /* lent to the engines; NULL: theirs */
extern bool law_ranges;                 /* the caller names some that must stay */
extern int law_slots;                   /* slots per page where a way says nothing; 0: the
                                           engine's */

typedef struct {
    const char *kv;
    int threads, chunk, slots;
    bool neighbours;
} law_way;

test_engine law_engine(law_way w);
void law_run_to(test_engine *t, test_seq *q, int to);  /* tokens up to `to`, with their marks */
/* The logits of all positions, computed in this way; the caller frees. */
float *law_logits(law_way w);
float *law_reference(const char *kv);   /* one thread, chunks of 512 */
void law_compare(const float *ref, law_way w);
/* The rest of the text; how: what had been done at the cut. */
void law_finish(test_engine *t, test_seq *q, const char *kv, const char *how, int cut,
                const float *ref);
/* At a cut: a fork that goes on while its source strays and is taken back, there or further
 * (beyond a decision the engine computes from the start again); and a session file. */
void law_cut_at(const char *kv, int cut, const float *ref);
const char *law_session_path(void);

#endif
