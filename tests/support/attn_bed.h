/* tests/support/attn_bed.h - a text of random q, k, v rows and ways to attend over it.
 *
 * One layer stack of identical geometry; every run feeds the same rows, so two runs that
 * differ only in chunks, threads, pages or tables must give the same bytes.
 */
#ifndef WN_TEST_ATTN_BED_H
#define WN_TEST_ATTN_BED_H

#include "attention/attend.h"

typedef struct {
    wn_attend_shape shape;
    int n;                              /* positions */
    int window;
    uint64_t seed;                      /* of the text */
    float k_size;                       /* spread of the logits; 0: 1 */
    const wn_rope *rope;                /* or NULL */
    const float *sinks;                 /* (n_heads) or NULL */
    const wn_format *format;            /* raw; or NULL: f32 */
    const wn_format *sealed;            /* K and V once sealed; NULL: as format */
    int page_slots;
    int threads;
    const int *chunks;                  /* lengths, repeated; ends with 0. NULL: all at once */
    int noise;                          /* other sequences in the same batch, decoding or
                                           prefilling */
    int ring;                           /* ring_rows */
    int layers;                         /* 0: 1 */
    const wn_ledger *ledger;            /* gets the weights of the text's queries; or NULL */
    const wn_attend_observer *obs;
    /* Called with n committed positions before each chunk: may decide. NULL: nothing. */
    void (*decide)(void *ctx, wn_kv *kv, int n);
    void *ctx;
    /* May change the rows of the text, or (spoil_noise) those of the other sequences. */
    void (*spoil)(void *ctx, int pos, float *q, float *k, float *v);
    bool spoil_noise;
} bed;

/* Rows of the text: q (n_heads * k_dim), k, v; layer 0. */
void bed_rows(const bed *b, int pos, float *q, float *k, float *v);
/* out (n, n_heads * v_dim), of the last layer; malloc'd. The cache of the last run, if
 * asked for, stays open (with its pool) until bed_drop(). */
float *bed_run(const bed *b);
/* The definition in double: every row against positions [p - window + 1, p] that keep
 * (if given) says are live for it, with a bias per position and a shift per position. */
typedef struct {
    bool (*sees)(const void *ctx, int lane, int p, int pos);
    double (*bias)(const void *ctx, int lane, int pos);
    int (*shift)(const void *ctx, int lane, int pos);
    const void *ctx;
} bed_rules;
float *bed_reference(const bed *b, const bed_rules *rules);
/* Largest difference, and assertion that it stays below a bound. */
double bed_difference(const bed *b, const float *x, const float *y);

#endif
