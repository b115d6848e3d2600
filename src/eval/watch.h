/* eval/watch.h - looking over the shoulder of a sequence's policy: a trace to a file, and
 * what became of a range of the text.
 *
 *     wn_watch_open(&w, seq, &(wn_watch_opts){ .trace = "run.trace" }, &err);
 *     ... feed, step ...
 *     wn_watch_close(w, &err);         before the sequence is closed
 *
 * Costs nothing where it is not opened.
 */
#ifndef WN_EVAL_WATCH_H
#define WN_EVAL_WATCH_H

#include "base/err.h"
#include "eval/explain.h"

typedef struct {
    const char *trace;                  /* file to write; NULL: none */
    bool rows;                          /* with keys, values and queries, for replays of other
                                           policies */
    int explain_from, explain_to;       /* positions [from, to); to 0: none */
} wn_watch_opts;

typedef struct wn_watch wn_watch;
/* WN_EINVAL for a sequence whose policy never decides. */
wn_status wn_watch_open(wn_watch **out, wn_seq *s, const wn_watch_opts *o, wn_err *err);
/* What became of the range so far; NULL when none was asked for. */
const wn_explain *wn_watch_explains(const wn_watch *w);
wn_status wn_watch_close(wn_watch *w, wn_err *err);     /* NULL is fine */

#endif
