/* eval/replay.h - decisions taken again, from a trace, without the model.
 *
 * A policy is shown what the recorded one was shown and makes its plan. The recorded policy
 * must make the recorded plan again; another one answers the question "and here?", not "what
 * if?": its views are those that the recorded policy's evictions led to, not its own.
 */
#ifndef WN_EVAL_REPLAY_H
#define WN_EVAL_REPLAY_H

#include "policy/policy.h"
#include "policy/trace.h"

typedef struct wn_replay wn_replay;
wn_status wn_replay_open(wn_replay **out, const wn_trace *t, wn_err *err);
void wn_replay_close(wn_replay *r);     /* NULL is fine */

/* The plan of a policy for a recorded decision, borrowed until the next call. A policy that asks
 * for what the record lacks is WN_EINVAL, and the sentence says what. A window of queries that
 * was not recorded as such is computed from recorded keys and queries. */
wn_status wn_replay_decide(wn_replay *r, const wn_trace_decision *d, const wn_policy *p,
                           const wn_plan **plan, wn_err *err);
/* What it made of the lanes, as in the record: borrowed like the plan. */
const wn_verdict *wn_replay_verdicts(const wn_replay *r);

/* Do both plans say the same about the slots there are? If not, why gets the first difference. */
bool wn_replay_same(const wn_view *v, const wn_plan *recorded, const wn_plan *replayed, char *why,
                    size_t n);

typedef struct {
    int at;                             /* n_tokens */
    int64_t full, slots, kept;          /* all lanes: what a full cache holds; before; after the
                                           plan */
    double agreement;                   /* |both keep| / |either keeps|, mean over lanes */
    double attention;                   /* share of the recorded attention that falls on slots that
                                           stay, mean over lanes; -1: none was recorded */
} wn_replay_figures;
wn_replay_figures wn_replay_measure(wn_replay *r, const wn_trace_decision *d, const wn_plan *plan);
/* Sums of slots, means of shares. */
void wn_replay_total(const wn_replay_figures *f, int n, wn_replay_figures *out);

#endif
