/* engine/engine.h - which sequence runs next? (what the files of this directory share)
 *
 * An engine owns threads, pool and step scratch, and a list of sequences. Each step makes
 * one ragged batch: first one row for every sequence that waits for a single token
 * (decoding), then prompt chunks in the order the sequences were opened, up to n_batch
 * rows. A chunk never crosses a boundary (a multiple of `every`) of its sequence, so a
 * decision at p comes after the queries before p and before the query at p. How tokens
 * fall into steps changes no bit of any result.
 *
 * Memory: who may compute how much is settled before a batch is made (promise.c). Everything
 * is taken in wn_engine_open() and wn_seq_open(); a step takes scratch
 * from the arena and frames from the pool, never from the allocator.
 */
#ifndef WN_ENGINE_ENGINE_H
#define WN_ENGINE_ENGINE_H

#include "cache/kv.h"
#include "model/model.h"
#include "model/net.h"
#include "policy/policy.h"
#include "policy/view.h"
#include "store/calibration.h"

typedef struct wn_engine_books wn_engine_books;         /* books.c */

struct wn_engine {
    wn_model *m;
    wn_threads *team;
    wn_pool *pool;
    wn_arena scratch;
    wn_arena decisions;                 /* views and scores; mapped for the most demanding policy so
                                           far */
    wn_kv_opts kv_opts;                 /* for every sequence; max_positions is set per sequence */
    wn_view_hand *hands; int n_hands;   /* who decide, with plans; 0: the engine's thread alone */
    wn_kv_crew *crew;                   /* who carry decisions out; NULL: none was made yet */
    wn_policy policy;                   /* the one the pool is sized for, */
    wn_kv_opts policy_opts;             /* what the caches of its sequences are like, */
    wn_lane_formats *formats;           /* (n_lanes) and their formats */
    size_t mem, tables_bytes, scratch_bytes;
    size_t kept_bytes;                  /* of scratch beyond that: touched for policies with
                                           statistics (needs.c) */
    int64_t protected_tokens;           /* positions that callers are going to protect, all
                                           sequences together */
    size_t planned;                     /* of tables_bytes: for policies */
    size_t needs_texts, needs_arena;    /* what policies of open sequences need; the most of a
                                           decision so far */
    int n_ctx, n_batch, max_seqs, n_threads, max_out;
    uint32_t reserved[WN_POOL_CLASSES]; /* frames promised to open sequences, used or not */
    int portion;                        /* positions that growing sequences are promised ahead */
    wn_seq **seqs; int n_seqs;          /* open ones, in the order of opening */
    /* one batch, sized at open */
    wn_attend_item *items;
    wn_seq **item_seqs;
    int32_t *tokens;                    /* (n_batch) */
    int *out_rows;                      /* (n_batch) */
    float *logits;                      /* (max_out, n_vocab) */
    char numerics[32];
    const wn_attend_observer *observer; /* of coming steps; NULL: nobody looks */
    char *profile_path;                 /* as asked for; NULL: beside the model */
    wn_profile *profile;                /* read when a policy first asked for it */
    const wn_profile *lent;             /* in its place, for sequences opened from now on; NULL:
                                           none */
    char *calibration_path;             /* as asked for; NULL: beside the model */
    wn_engine_books *books;             /* of calibrated formats, made when one was first asked
                                           for */
    const wn_calibration *lent_calibration;     /* for them, in place of the file; NULL: none */
};

/* Asked at each boundary p (a multiple of every, p > 0) before the query at p is computed:
 * fills the plan (given empty). A failure stops the step. */
typedef wn_status wn_decide(void *ctx, const wn_kv *kv, int p, wn_plan *plan, wn_err *err);

/* Who wants to know what was decided: called after each decision of a sequence's policy and
 * before it is carried out. The view is as the policy got it (verdicts and asked are set),
 * rows can be asked for; all is borrowed. A failure stops the step. */
typedef struct {
    wn_status (*decided)(void *ctx, const wn_view *v, double slot_bytes, const wn_plan *plan,
                         wn_err *err);
    void *ctx;
} wn_decision_log;

/* Beside the kinds of ranges: positions in spans that the caller named, and where those begin. */
enum { WN_PLANE_SPAN = WN_RANGE_KINDS, WN_PLANE_BEGIN, WN_PLANES };

struct wn_seq {
    wn_engine *e;
    wn_kv *kv;
    wn_seq_opts opts;
    wn_kv_opts kv_opts;                 /* the engine's, with this sequence's size, schedule and
                                           formats */
    wn_lane_formats *formats;           /* (n_lanes) of kv_opts */
    int32_t *tokens;                    /* (max_tokens) fed; the first wn_kv_n(kv) are computed */
    int n_fed, n_reported;              /* on_logits has been called for positions below
                                           n_reported */
    float *logits;                      /* (n_vocab) after token n_logits - 1 */
    int n_logits;
    uint32_t reserved[WN_POOL_CLASSES]; /* what `promised` positions need */
    int promised;                       /* growing: 0 while parked; else max_tokens */
    bool growing;                       /* opened without max_tokens, which is n_ctx then */
    int n_known;                        /* computed before it was parked; may be more than the cache
                                           holds */
    size_t needs;                       /* beside the pool, for its policy */
    size_t bytes_peak;
    bool stats_due;                     /* a decision changed what is held */
    uint64_t observed;                  /* (query head, slot) pairs scored or accounted for the
                                           policy alone */
    wn_policy *policy;                  /* NULL: none, or a decider of a test's */
    const wn_profile *profile;          /* what it needs of the model's; NULL: it needs none */
    wn_ledger ledger;                   /* of the policy's statistics; n_stats 0: none */
    int noted_at;                       /* the last decision, at which it was noted; 0: it was
                                           not */
    wn_ledger probed;                   /* of a policy that probes, in place of ledger: filled
                                           before each decision */
    int32_t *say; int n_say;            /* tokens that its probe begins with */
    float *pieces;                      /* room for the pieces of a text, and what goes with them
                                           (probe.c); or NULL */
    int32_t next; int next_at;          /* the likeliest token at a decision point, for probes that
                                           go on from there; 0: none */
    int every;                          /* boundaries are its multiples; 0: none */
    int32_t *marks; int n_marks, cap_marks;     /* ascending */
    uint64_t *ranges[WN_PLANES];        /* bits of positions, (max_tokens): that are to stay, by
                                           kind of range; spans. NULL: none */
    int n_held;                         /* positions that its policy keeps for them */
    int decided_at;                     /* the last point at which a decision was taken */
    wn_decide *decide;                  /* NULL: never asked */
    void *decide_ctx;
    const wn_decision_log *log;         /* borrowed; NULL: nobody looks. Forks have none */
    wn_plan plan;
};

/* ---- what was measured of the model (profile.c) ------------------------------------- */

/* Where the profile of a model is when nobody says otherwise. */
void wn_engine_profile_path(const wn_model *m, char *buf, size_t n);
/* A profile of this model: path, or NULL for the file beside it. A missing, foreign or damaged
 * one is a sentence that says what to do. */
wn_status wn_engine_read_profile(wn_profile **out, const wn_model *m, const char *path,
                                 wn_err *err);
/* Gives a sequence what its policy needs, if it does. */
wn_status wn_seq_find_profile(wn_seq *s, wn_err *err);
/* For sequences opened from now on, borrowed as long as they live; NULL: the engine's own again. */
void wn_engine_lend_profile(wn_engine *e, const wn_profile *p);

/* ---- calibrated formats (books.c) ----------------------------------------------------- */

/* Where the calibration of a model is when nobody says otherwise. */
void wn_engine_calibration_path(const wn_model *m, char *buf, size_t n);
void wn_engine_lane_dims(const wn_model *m, wn_lane_dims *out);         /* (n_lanes) */
/* Gives lanes in calibrated formats their books. A missing, foreign or damaged calibration, or
 * one without books for a format, is a sentence that says what to do. */
wn_status wn_engine_bind_books(wn_engine *e, wn_lane_formats *lanes, wn_err *err);
/* The file at path (NULL: beside the model), which `format` asks for; checked that it is the
 * model's. */
wn_status wn_engine_read_calibration(wn_calibration **out, const wn_model *m, const char *path,
                                     const wn_format *format, wn_err *err);
/* In place of the file, borrowed as long as the engine lives; before a format first asks. */
void wn_engine_lend_calibration(wn_engine *e, const wn_calibration *c);
size_t wn_engine_books_bytes(const wn_engine *e);
void wn_engine_release_books(wn_engine *e);
/* Checksum of the calibration that the sequence's formats go by; NULL: they go by none. */
const char *wn_seq_calibration(const wn_seq *s);

/* ---- decisions (decide.c) ------------------------------------------------------- */

/* Parses and installs a policy while the sequence is being opened; NULL text: none. */
wn_status wn_seq_set_policy(wn_seq *s, const char *text, wn_err *err);
/* Up to where numbers of statistics have room when n tokens are computed. */
int wn_seq_ledger_until(const wn_seq *s, int n);
/* As they were right after the last decision, or at the start: the cache is back there. */
void wn_seq_restore_ledger(wn_seq *s);
/* Puts what a policy says of formats and schedule into o; lanes (n_lanes) is o's from then on. */
wn_status wn_policy_kv_opts(const wn_policy *p, wn_lane_formats *lanes, wn_kv_opts *o, wn_err *err);
int wn_policy_every(const wn_policy *p);                /* tokens between boundaries it decides at,
                                                           0: none */
/* Hands for decisions of such a policy, with memory for their plans; they stay until release. */
wn_status wn_engine_raise_hands(wn_engine *e, const wn_policy *p, wn_err *err);
void wn_engine_release_hands(wn_engine *e);
/* 0: the engine's thread decides alone */
int wn_engine_n_hands(const wn_engine *e, const wn_policy *p);
/* What a hand takes of the arena, with lanes of up to so many slots. */
size_t wn_engine_hand_bytes(const wn_engine *e, const wn_policy *p, int longest);
size_t wn_engine_hand_spare(int longest);
/* The decision at the tokens computed so far, if one is due there. */
wn_status wn_seq_decide(wn_seq *s, wn_err *err);
bool wn_seq_is_point(const wn_seq *s, int p);
/* Bytes of a slot of one lane, mean. */
double wn_seq_slot_bytes(const wn_seq *s);
int wn_seq_next_point(const wn_seq *s, int p);          /* the first decision point above p */
int wn_seq_last_point(const wn_seq *s, int p);          /* the last at or below p, 0: none */
void wn_seq_set_log(wn_seq *s, const wn_decision_log *log);     /* NULL: none */
/* A lane as views show it, without slots. */
wn_view_lane wn_engine_lane(const wn_engine *e, int lane);
/* All of them with their live slots, (n_lanes); lists of listed lanes from the arena. */
void wn_engine_fill_lanes(const wn_engine *e, const wn_kv *kv, wn_arena *a, wn_view_lane *lanes);
/* The slot of a view that stands at pos, which it has. */
int wn_engine_slot_at(const wn_view_lane *l, int32_t pos);
/* Rows of K or V of the lane's slots in the view's order, (l->n, dim). */
void wn_engine_load_rows(const wn_kv *kv, const wn_view_lane *l, int lane, bool values,
                         float *rows);
/* Keys of the listed slots (ascending) as rows; and all of them, each of length 1, as columns, page
 * by page: see wn_view. */
void wn_engine_load_keys(const wn_kv *kv, const wn_view_lane *l, int lane, const int32_t *slots,
                         int n, float *rows);
void wn_engine_unit_keys(const wn_kv *kv, const wn_view_lane *l, int lane, float *room,
                         wn_view_cols_fn *each, void *ctx);
/* Tests: another decider, at multiples of `every`; before the first token is computed. */
wn_status wn_seq_set_decider(wn_seq *s, int every, wn_decide *decide, void *ctx, wn_err *err);

/* A session from memory, the model and numerics not compared (fuzzers, tests). */
wn_status wn_seq_load_memory(wn_seq *s, const void *data, size_t size, wn_err *err);

/* ---- probes (probe.c) ---------------------------------------------------------------- */

enum { WN_PROBE_BEYOND = 1024 };
/* What the sequence's policy needs to probe, if it does; while the sequence is being opened. */
wn_status wn_seq_open_probe(wn_seq *s, wn_err *err);
void wn_seq_close_probe(wn_seq *s);
/* Tokens beyond a text of n that a fork for a probe holds at most, n + WN_PROBE_BEYOND or fewer; 0:
 * the policy (NULL: none) does not probe. */
int wn_probe_tokens(const wn_policy *p, int n);
/* Bytes beside ledger and fork that probing a text of n needs. */
size_t wn_probe_room(const wn_policy *p, const wn_model *m, int n);
/* Runs the probe of the decision at p, the tokens computed so far; what it has found is gone when
 * the decision is over. */
wn_status wn_seq_probe(wn_seq *s, int p, wn_err *err);
void wn_seq_forget_probe(wn_seq *s);
/* Does it go on from the likeliest token at p? Then logits are needed there, and are noted. */
bool wn_seq_foresees(const wn_seq *s, int p);
void wn_seq_note_next(wn_seq *s, int p, const float *logits);
int32_t wn_likeliest(const float *logits, int n);       /* ties: the lower */
/* ---- episodes (episodes.c) ------------------------------------------------------------ */

enum { WN_EPISODE_DIM = 256 };
/* Pieces of `size` tokens that a text of n falls into: a last one of half the size or more is one,
 * and so is all of a shorter text. */
int wn_episode_pieces(int n, int size);
/* What a piece is like: the mean of its tokens' embeddings, of length 1; out (WN_EPISODE_DIM). */
void wn_episode_embed(const wn_model *m, const int32_t *tokens, int n, float *row, float *out);
/* Falls pieces (n, WN_EPISODE_DIM) into up to k <= WN_EPISODES_MAX clusters by k-means; of[i]: the
 * one of piece i. Returns how many there are: 0 .. that, in the order of their first pieces;
 * centres (k, WN_EPISODE_DIM). */
int wn_episode_cluster(const float *x, int n, int k, int *of, double *centres);
/* The `want` pieces of cluster c nearest to its centre, ascending; how many there are. */
int wn_episode_typical(const float *x, int n, const int *of, const double *centres, int c, int want,
                       int *pieces);
/* The cluster whose centre a row is most like; ties: the lower. */
int wn_episode_nearest(const float *row, const double *centres, int k);

/* Accounts for rows of a pass over kv that belong to the policy's statistics. */
void wn_seq_count_observed(wn_seq *s, const wn_kv *kv, int rows);

/* ---- positions that a caller names (protect.c; wn_seq_protect() and wn_seq_name_span() are public)  */

/* Bits of [0, n) that the policy keeps for the caller, NULL: none. The arena has room. */
const uint64_t *wn_seq_protected(const wn_seq *s, int n, wn_arena *a);
/* Sessions: stretches of a plane without questions, then the promises for all of them. */
wn_status wn_seq_add_range(wn_seq *s, int from, int to, int plane, wn_err *err);
wn_status wn_seq_hold_ranges(wn_seq *s, wn_err *err);
/* Positions from n on are taken back. */
void wn_seq_cut_ranges(wn_seq *s, int n);
/* Those of src below n, before the promises are made. */
wn_status wn_seq_copy_ranges(wn_seq *s, const wn_seq *src, int n, wn_err *err);
/* The next stretch below n behind *to of *plane; start with 0 and 0. */
bool wn_seq_next_range(const wn_seq *s, int n, int *plane, int *from, int *to);
/* The last decision that results may depend on. */
int wn_seq_last_decision(const wn_seq *s);

/* ---- what stands where (tokens.c) ------------------------------------------------------ */

/* WN_FLAG_ bits of the first n tokens, n bytes of the arena. */
const uint8_t *wn_seq_flags(const wn_seq *s, int n, wn_arena *a);
/* Their spans. */
const int32_t *wn_seq_spans(const wn_seq *s, int n, wn_arena *a);

/* ---- what values do (outputs.c) --------------------------------------------------------- */

/* As views show it, of the view that asks; false: no scratch. */
bool wn_seq_load_outputs(const wn_seq *s, const wn_view *v, int lane, float *x);
/* What that takes of a view's arena. */
size_t wn_outputs_bytes(const wn_model *m, int longest);

/* ---- memory (promise.c) --------------------------------------------------------- */

/* Frames that a sequence of n tokens may need at most (DESIGN.md section 7): what its policy
 * leaves, n_held positions that it must keep, what comes in between two decisions, and one
 * repack. policy may be NULL. */
wn_status wn_seq_frames_for(const wn_kv_opts *o, const wn_policy *policy, int n_tokens, int n_held,
                            uint32_t counts[WN_POOL_CLASSES], wn_err *err);
/* Whole extents for `times` as many frames as counted, each class by itself. */
size_t wn_engine_extents_for(const wn_engine *e, const uint32_t counts[WN_POOL_CLASSES],
                             uint32_t times);
/* May a sequence of n tokens have this policy (NULL: none)? Not where it looks back farther than
 * the model was trained for. */
wn_status wn_engine_check_reach(const wn_model *m, const wn_policy *p, int n_tokens, wn_err *err);
/* Positions one more sequence could be promised now: under its policy (NULL: none), under the
 * engine's. */
int wn_engine_room_for(const wn_engine *e, const wn_kv_opts *o, const wn_policy *policy);
int wn_engine_room(const wn_engine *e);
size_t wn_engine_pool_bytes(const wn_engine *e);

/* Promises max_tokens positions, to a growing sequence n and what can be had of a portion;
 * WN_EFULL with the numbers. */
wn_status wn_seq_promise(wn_seq *s, int n, wn_err *err);
/* n tokens are about to have been fed: WN_EFULL when they could never be computed. */
wn_status wn_seq_promise_fed(wn_seq *s, int n, wn_err *err);
void wn_seq_unpromise(wn_seq *s);
/* The same positions, counted anew; as it was on failure. */
wn_status wn_seq_promise_again(wn_seq *s, wn_err *err);
/* Promises anew for decisions each `every` tokens. */
wn_status wn_seq_reserve_again(wn_seq *s, int every, wn_err *err);

/* Positions this sequence may ever come to: max_tokens, or what the whole pool could hold. */
int wn_seq_most_ever(const wn_seq *s);

/* Before a batch: growing sequences top up, are parked and taken up. */
void wn_engine_share_room(wn_engine *e);
/* No row could be computed: WN_EFULL if a sequence waits for room. */
wn_status wn_engine_check_stuck(const wn_engine *e, wn_err *err);
bool wn_seq_is_parked(const wn_seq *s);
/* Positions whose results are known, whether or not their K and V are in the cache now. */
int wn_seq_n_computed(const wn_seq *s);

/* ---- beside the pool (needs.c) ------------------------------------------------------ */

/* Numbers of a sequence's ledger in a text of n tokens at most, and those that are noted. */
size_t wn_engine_ledger_bytes(const wn_engine *e, const wn_policy *p, int n, int n_held);
/* What a decision in a text of n tokens touches of the arena at most (with the weights that passes
 * keep for ledgers), and what it is mapped for. */
size_t wn_engine_arena_bytes(const wn_engine *e, const wn_policy *p, int n, int n_held);
size_t wn_engine_arena_most(const wn_engine *e, const wn_policy *p);
/* Scratch of a pass that ends within so many positions. */
size_t wn_engine_pass_bytes(const wn_engine *e, int n_positions);
/* For max_seqs sequences of the engine's policy with so many positions in all. */
size_t wn_engine_plan_bytes(const wn_engine *e, int64_t n_positions);
size_t wn_engine_slack(const wn_engine *e);             /* under the ceiling, promised to nobody
                                                           (engine.c) */
/* Takes what the sequence's policy needs out of plan and slack; WN_ELIMIT with the numbers. */
wn_status wn_seq_claim(wn_seq *s, wn_err *err);
void wn_seq_unclaim(wn_seq *s);

#endif
