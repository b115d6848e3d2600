/* policy/trace.h - the decisions of one text, written down: what a policy was shown, what it
 * looked at, what it said.
 *
 * A trace lets a decision be taken again without the model: the reader hands each decision
 * back as a view that answers what was recorded, with the plan that was made of it. Who
 * records chooses how much: positions, scores and the statistics of the recorded policy
 * always; keys, values and the last queries (`rows`) when other policies are to be asked.
 *
 *     header | decision | decision | ...          byte table: docs/trace-format.md
 *
 * Each part has its length and a checksum in front of what it says and one behind, so that
 * a file that ends within a decision (a run that was stopped) is told from one that was
 * damaged: of the first the whole decisions are good, the second is refused.
 */
#ifndef WN_POLICY_TRACE_H
#define WN_POLICY_TRACE_H

#include "base/os.h"
#include "policy/plan.h"
#include "policy/view.h"

enum { WN_TRACE_VERSION = 7 };

typedef struct {
    const char *policy, *model;         /* canonical text; a name for people */
    int32_t n_layers, n_lanes;
    const wn_view_lane *lanes;          /* (n_lanes) layer, head, group, dims, still; the rest is
                                           not looked at */
    int32_t rope_dims;                  /* rotated channels, 0: none */
    bool rope_neox;
    const double *rope_rate;            /* (rope_dims / 2) radians per position */
    const wn_stat *stats;               /* (n_stats) of all queries, that the recorded policy
                                           keeps */
    int32_t n_stats;
    bool rows;                          /* keys, values and all queries that are held */
} wn_trace_head;

/* ---- writing (trace.c) ------------------------------------------------------------------ */

typedef struct wn_trace_writer wn_trace_writer;

/* Replaces a file that is there. */
wn_status wn_trace_create(wn_trace_writer **out, const char *path, const wn_trace_head *head,
                          wn_err *err);
/* The view after wn_policy_decide(), with `asked`; verdicts are written where there are some. */
wn_status wn_trace_put(wn_trace_writer *w, const wn_view *v, double slot_bytes, const wn_plan *plan,
                       wn_err *err);
/* Closes and frees; NULL is fine. Says what could not be written. */
wn_status wn_trace_finish(wn_trace_writer *w, wn_err *err);

/* ---- reading (trace_read.c, trace_parse.c) ------------------------------------------------ */

/* What a record has, beside positions and plan. */
enum {
    WN_TRACE_KEYS = WN_ASKED_KEYS,
    WN_TRACE_VALUES = WN_ASKED_VALUES,
    WN_TRACE_QUERIES = WN_ASKED_QUERIES,
    WN_TRACE_SUMS = WN_ASKED_SUMS,
    WN_TRACE_STATS = WN_ASKED_STATS,
    WN_TRACE_SCORES = 32,
    WN_TRACE_PROTECT = 64,
    WN_TRACE_LOW = 128,
    WN_TRACE_FLAGS = WN_ASKED_FLAGS,
    WN_TRACE_SPANS = WN_ASKED_SPANS,
    WN_TRACE_OUTPUTS = WN_ASKED_OUTPUTS,
    WN_TRACE_ALL = 2047,
};

/* What a lane of a record has, in the file: docs/trace-format.md. */
enum {
    WN_LANE_COUNTS = 1,
    WN_LANE_BIASES = 2,
    WN_LANE_BITMAP = 4,                 /* positions as bits, not as runs */
    WN_LANE_SCORED = 8,
    WN_LANE_MASK = 16,                  /* the plan: keep, merges, biases, shifts */
    WN_LANE_MERGES = 32,
    WN_LANE_SET_BIASES = 64,
    WN_LANE_SHIFTS = 128,
    WN_LANE_LOW = 256,                  /* slots in lower formats; those that go there */
    WN_LANE_DEMOTE = 512,
    WN_LANE_KNOWN = 1023,
};

typedef struct wn_trace wn_trace;

typedef struct {
    int index;                          /* 0 for the first */
    size_t offset, bytes;               /* of the record in the file */
    wn_view view;                       /* window, sums: as recorded; verdicts NULL. Its scratch is
                                           the replay's */
    wn_plan plan;                       /* as recorded */
    const wn_verdict *verdicts;         /* (n_lanes) score NULL: none */
    double slot_bytes;
    unsigned has;                       /* WN_TRACE_ bits */
    unsigned asked;                     /* what the recorded policy asked for */
    int n_queries;                      /* the last so many, with WN_TRACE_QUERIES */
} wn_trace_decision;

wn_status wn_trace_open(wn_trace **out, const char *path, wn_err *err);
/* Bytes in memory, borrowed, aligned as malloc does it. max_slots: most slots of one decision
 * that are read, 0: 2^27 (fuzzers have less). */
wn_status wn_trace_open_memory(wn_trace **out, const void *data, size_t n, int64_t max_slots,
                               wn_err *err);
void wn_trace_close(wn_trace *t);       /* NULL is fine */
const wn_trace_head *wn_trace_get_head(const wn_trace *t);
/* The next decision, borrowed until the next call; *out is NULL after the last. */
wn_status wn_trace_next(wn_trace *t, const wn_trace_decision **out, wn_err *err);
/* Bytes of a decision that the file's end has cut off; 0: it ends whole. */
size_t wn_trace_torn(const wn_trace *t);
/* Recorded rows: (n, k_dim) keys, (n, v_dim) values, (n_queries, group, k_dim) queries,
 * (n_stats, n) statistics. NULL: not recorded. */
const float *wn_trace_rows(const wn_trace_decision *d, int lane, unsigned what);

#endif
