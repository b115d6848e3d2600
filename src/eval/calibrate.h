/* eval/calibrate.h - books for calibrated cache formats, from a text.
 *
 * The model reads texts with a full f16 cache; keys before rotation, values and queries of every
 * layer are looked at as they pass, and how much attention each position gets is summed. Then
 * books are fitted lane by lane (docs/calibration.md has the formulas):
 *
 *     read     texts, one after another           rows of K and V, E q^2, attention by position
 *     fit      (lane, side, part of a book)       spread over the threads
 *
 * A channel's error counts as much as queries are large there, a token's as much as it is
 * attended to: both stand in for the squared gradients of the papers, without a backward
 * pass. The books are the same for any number of threads.
 */
#ifndef WN_EVAL_CALIBRATE_H
#define WN_EVAL_CALIBRATE_H

#include "engine/engine.h"
#include "store/calibration.h"

typedef struct {
    const char *text; size_t n_text;
    int context, n_texts;               /* tokens of a text, 0: 2048 or what the model was trained
                                           for; texts at most, 0: 8 */
    const char *formats;                /* names with commas between; NULL: all that are
                                           calibrated */
    uint64_t seed;
    int n_threads;                      /* 0: all processors */
    size_t mem;
    void (*progress)(void *ctx, const char *what, int done, int total);
    void *progress_ctx;
    const volatile int *stop;
    /* What a side of a lane loses by a format: weighted squares of the errors, in parts of those of
     * the rows. */
    void (*fitted)(void *ctx, const wn_format *f, int lane, bool of_v, double loss);
    void *fitted_ctx;
} wn_calibrate_opts;

wn_status wn_calibrate(wn_calibration **out, wn_model *m, const wn_calibrate_opts *o, wn_err *err);

#endif
