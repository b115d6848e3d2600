/* eval/searchlog.h - what a search has tried so far, so that it can be interrupted.
 *
 * A search asks for the costs of one batch of candidates after the other, and everything it does
 * follows from its seed and from those costs. So the costs are all its state: begun again, it asks
 * for the same batches, is given from the log what was measured before, and goes on where that
 * ends, to the same result, bit by bit. The log says of each batch which candidates it was (a hash
 * of their numbers) and is refused where they differ.
 *
 *     winnow search 1 <key>                     key: everything that costs depend on
 *     <batch> <n> <hash> <cost> ...             n costs, hexadecimal, exact
 *     end <hash of all before>
 *
 * The file is written anew after each batch, to a temporary one that takes its place: it is the old
 * one or the new one, whatever happens meanwhile. Whoever no longer needs it removes it.
 */
#ifndef WN_EVAL_SEARCHLOG_H
#define WN_EVAL_SEARCHLOG_H

#include "base/err.h"

enum { WN_SEARCH_VERSION = 1 };
typedef struct wn_search_log wn_search_log;

/* path NULL: *out is NULL, which is fine everywhere. WN_EINVAL: the file is of another search;
 * WN_EFORMAT: it is none, or damaged; WN_EUNSUPPORTED: of another version. It is left as it is
 * then. */
wn_status wn_search_log_open(wn_search_log **out, const char *path, const char *key, wn_err *err);
void wn_search_log_close(wn_search_log *l);

/* Was the next batch, of n candidates that are n_x numbers, tried before? Then its costs. */
wn_status wn_search_log_find(wn_search_log *l, const double *x, size_t n_x, double *costs, size_t n,
                             bool *known, wn_err *err);
/* The next batch has been tried. */
wn_status wn_search_log_add(wn_search_log *l, const double *x, size_t n_x, const double *costs,
                            size_t n, wn_err *err);

#endif
