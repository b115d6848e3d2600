/* policy/trace_parse.h - from the bytes of a trace to where its parts lie.
 *
 * What trace_read.c makes views and plans of. A decision is a frame (magic, length, checksums)
 * around a body. The body is walked over once, everything in it is checked, and what was found is
 * noted in the reader: sizes and flags in its decision, and for each lane a place, pointers
 * into the file. Behind a body that was parsed every count can be relied on: positions ascend and
 * lie below n_tokens, a lane has as many as it says, arrays are as long as their counts say.
 * Whether a plan speaks of positions that exist is for the plan to say.
 */
#ifndef WN_POLICY_TRACE_PARSE_H
#define WN_POLICY_TRACE_PARSE_H

#include "policy/trace.h"

/* Where a lane's arrays lie in the record; NULL: there is none. */
typedef struct {
    uint32_t what;                      /* WN_LANE_ bits */
    int32_t n;
    const uint32_t *runs, *bitmap;      /* positions, one way or the other: runs, their number
                                           first; a bit for each token */
    const float *sums, *stats, *queries, *keys, *values, *outputs;
    const uint32_t *low, *mask, *demote;        /* bit by slot */
    const uint32_t *merges, *biases, *shifts;   /* their number first */
} wn_trace_place;

struct wn_trace {
    wn_os_file file;
    const uint8_t *data;
    size_t n, at, torn;                 /* bytes; at: the record that comes next */
    int64_t max_slots;
    int index;
    wn_trace_head head;
    char *text;                         /* of head: policy, model */
    double *rates;
    wn_stat stats[WN_STATS_MAX];
    wn_view_lane *blank;                /* (n_lanes) as in the header */
    int *layer_first;
    wn_trace_decision d;
    wn_view_lane *lanes;
    wn_trace_place *places;
    wn_verdict *verdicts;
    const float **sums;
    int32_t *all, *pos;                 /* 0, 1, 2 ..; storage of the lists of lanes */
    int64_t cap_all, cap_pos, cap_low;
    bool *low;                          /* storage of the flags of lanes */
    uint64_t *protect;
    uint8_t *flags;
    int32_t *spans;
};

/* The header, of data, n and max_slots; allocates what goes by its sizes. */
wn_status wn_trace_parse_head(wn_trace *t, wn_err *err);
/* Bytes of the body of the record at t->at; 0: the file ends within it (or there is none). */
wn_status wn_trace_parse_frame(wn_trace *t, size_t *body, wn_err *err);
/* That body: t->d, lanes, places and verdicts, all but lists and plan. */
wn_status wn_trace_parse_body(wn_trace *t, size_t body, wn_err *err);

/* What is wrong with the decision at hand, with its number and place. */
wn_status wn_trace_bad(const wn_trace *t, wn_err *err, const char *what);

#endif
