/* policy/policy.h - a policy ready to decide: a recipe, its numbers, its schedule.
 *
 * Budgets (DESIGN.md section 4): a share means a share of p; share and slots are the mean
 * per lane, bytes are frame bytes in the formats in use. Per-lane budgets sum to the total
 * by largest remainder, ties to the lower lane; protected slots count inside it. If what is
 * live is within the total, the plan is empty, whatever the recipe. Slots of equal score
 * stay in the order of their positions, the earlier first.
 */
#ifndef WN_POLICY_POLICY_H
#define WN_POLICY_POLICY_H

#include "page/format.h"
#include "policy/grammar.h"
#include "policy/plan.h"
#include "policy/view.h"

enum {
    WN_POLICY_PARAMS = 16,
    WN_STAGE_PARAMS = 4,
    WN_EVERY_DEFAULT = 512,
    WN_FORMAT_RULES = 24,
    WN_FORMAT_NAME = 16,
    WN_POLICY_SPECIALS = 256
};

/* A format for some layers and heads; both ends of a range are in it, negative ones count
 * from the end. */
typedef struct {
    bool of_v;
    int16_t layer[2], head[2];
    char name[WN_FORMAT_NAME];
} wn_format_rule;

typedef struct {
    const wn_recipe *recipe;
    double v[WN_POLICY_PARAMS];         /* of the recipe's table */
    struct {
        const wn_stage *stage;          /* in place of the recipe's own; NULL: none given */
        double v[WN_STAGE_PARAMS];
    } stages[WN_STAGE_KINDS];
    wn_stat stats[WN_STATS_MAX];        /* kept of all queries: the recipe's, and the plain sum
                                           where a stage asks */
    int n_stats;
    bool probes;
    wn_probe probe;                     /* where it probes: the statistics are of that */
    int at;                             /* WN_AT_BOUNDARY or WN_AT_MARK, or both */
    int every;                          /* boundaries are its multiples */
    int first, last;                    /* slots protected at both ends of the text */
    bool system, special;               /* so are the system prompt, and the last WN_POLICY_SPECIALS
                                           special tokens */
    wn_budget_kind budget_kind;
    double budget;
    bool budget_given;                  /* else the recipe's own, if it has one */
    char k[WN_FORMAT_NAME], v_format[WN_FORMAT_NAME];   /* cache formats, empty: the engine's */
    wn_format_rule rules[WN_FORMAT_RULES];              /* of some lanes; the last that fits
                                                           holds */
    int n_rules;
    int lag;                            /* pages raw behind a query, at least */
    char text[WN_SPEC_BYTES];           /* canonical, every parameter spelled out; says exactly the
                                           numbers above */
} wn_policy;

/* WN_EINVAL: unknown names list what exists, impossible combinations say what is possible. */
wn_status wn_policy_parse(wn_policy *out, const char *text, wn_err *err);
/* The same policy with another budget, for tables over budgets. */
wn_status wn_policy_set_share(wn_policy *p, double share, wn_err *err);

/* ---- formats (formats.c) --------------------------------------------------------- */

/* key[where]=value of the text: k, v, kv, lag. */
wn_status wn_policy_read_format(wn_policy *p, const char *key, const char *where, const char *value,
                                wn_err *err);
size_t wn_policy_write_formats(const wn_policy *p, char *t, size_t n);
bool wn_policy_has_formats(const wn_policy *p);
/* A format of it that was fitted to a model (`winnow calibrate`); NULL: none. */
const wn_format *wn_policy_calibrated(const wn_policy *p);
/* What this policy says of a lane's keys or values: *out is left alone where it says nothing. */
wn_status wn_policy_format_at(const wn_policy *p, bool of_v, int layer, int n_layers, int head,
                              int n_heads, const wn_format **out, wn_err *err);

/* ---- what it needs ------------------------------------------------------------------ */

/* Recent queries it reads at a decision; 0: none. */
int wn_policy_window(const wn_policy *p);
/* Does it ever decide? ("none" does not) */
bool wn_policy_decides(const wn_policy *p);
/* Do its plans hold merges, made from scores? May lanes get budgets of their own? By a stage in
 * its text or by the recipe itself. */
bool wn_policy_merges(const wn_policy *p);
bool wn_policy_allocates(const wn_policy *p);
/* Does it keep slots in fewer bits? In which formats, and how much of a text at most? */
bool wn_policy_demotes(const wn_policy *p);
void wn_policy_low_formats(const wn_policy *p, const wn_format **k, const wn_format **v);
int64_t wn_policy_low_cap(const wn_policy *p, int64_t n_tokens);
/* Merges that one slot may be a source of; 0: it merges nothing. */
int wn_policy_spread(const wn_policy *p);
/* WN_PROFILE_*: what it needs of the model's profile. */
int wn_policy_profile(const wn_policy *p);
/* Is it more than the best of a lane that stay? */
bool wn_policy_retains(const wn_policy *p);
/* WN_WANTS_*: what views hold for it alone. */
unsigned wn_policy_wants(const wn_policy *p);
/* Most slots a lane may hold (mean) in a text of n tokens between decisions, what comes in before
 * the next decision left out; n for policies that decide at marks only. Ranges that the caller
 * names come on top. Concave in n, so that of all ways to spread tokens over sequences equal shares
 * need most: the engine sizes pools by that. */
int64_t wn_policy_cap(const wn_policy *p, int64_t n_tokens);

/* The farthest that a query sees back, however long the text; INT64_MAX: to its start. */
int64_t wn_policy_reach(const wn_policy *p);

/* Is there nothing to decide: are the live slots, in n_lanes lanes that have some, within the
 * budget? */
bool wn_policy_is_idle(const wn_policy *p, int64_t n_tokens, double slot_bytes, int n_lanes,
                       int64_t slots);

/* The decision at view->n_tokens. slot_bytes: frame bytes of a slot of one lane (mean). The
 * view's budget is set here. A failed plan carries its status. */
void wn_policy_decide(const wn_policy *p, wn_view *view, double slot_bytes, wn_plan *plan);

/* ---- stages: shared by recipes that score ---------------------------------------- */

/* Slots per lane that sum to total by largest remainder in proportion to weight (n), none
 * above cap (n). */
void wn_stage_split(int64_t total, const double *weight, const int64_t *cap, int n, int64_t *out);
/* Keeps the slots with a flag. */
void wn_stage_keep(const wn_view *v, int lane, const bool *stays, wn_plan *plan);
/* Keeps the protected slots and the best of the others, `keep` in all; ties: lower position. */
void wn_stage_retain(const wn_view *v, int lane, const float *score, int64_t keep, wn_plan *plan);
#endif
