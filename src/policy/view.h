/* policy/view.h - how a view is filled: by the engine from its cache, by a test from arrays,
 * by a replay from a trace. Recipes see winnow_policy.h only.
 */
#ifndef WN_POLICY_VIEW_H
#define WN_POLICY_VIEW_H

#include "base/arena.h"
#include "policy/profile.h"
#include "base/threads.h"
#include "winnow_policy.h"

/* What a recipe that scores made of a lane: a score for each live slot, and how many stay
 * (protected ones inside). Borrowed from the view's scratch until the decision is over. */
typedef struct { const float *score; int64_t keep; } wn_verdict;

/* What a recipe has asked a view for. */
enum {
    WN_ASKED_KEYS = 1,
    WN_ASKED_VALUES = 2,
    WN_ASKED_QUERIES = 4,
    WN_ASKED_SUMS = 8,
    WN_ASKED_STATS = 16,
    WN_ASKED_FLAGS = 256,
    WN_ASKED_SPANS = 512,
    WN_ASKED_OUTPUTS = 1024
};

bool wn_stat_same(const wn_stat *a, const wn_stat *b);
/* Index of a statistic in a list, -1: not there. */
int wn_stat_find(const wn_stat *list, int n, const wn_stat *s);

/* The span of a position, of those that are numbered so far (last), behind one in span `before`: 0
 * where it is in none; a new one where one begins, or where the position before is in none. */
static inline int32_t wn_span_number(int32_t *last, int32_t before, bool in, bool begins)
{
    if (!in) return 0;
    return begins || !before ? ++*last : before;
}

/* Some of a lane's slots side by side: channel d of its slot at[s] is cols[d * WN_VIEW_COLS + s];
 * at[s] < 0: nobody's. They lie in the room that was given, whose owner may write there. What comes
 * next is made of the bytes at ahead, to be fetched meanwhile. */
enum { WN_VIEW_COLS = 64 };
typedef struct {
    const int32_t *at;
    int n;
    const float *cols;
    const char *ahead;
    size_t ahead_bytes;
} wn_view_cols;
typedef void wn_view_cols_fn(void *ctx, const wn_view_cols *c);

typedef struct wn_view_hand wn_view_hand;

struct wn_view {
    int32_t n_tokens, n_layers, n_lanes;
    int32_t mark;                       /* the last one up to n_tokens; 0: none */
    const wn_view_lane *lanes;          /* (n_lanes) */
    const int *layer_first;             /* (n_layers + 1) first lane of each layer */
    int64_t budget;                     /* slots over all lanes; set by wn_policy_decide() */
    int64_t kept;                       /* with those in lower formats; set there, too */
    double low_bytes;                   /* of a slot in them, mean; 0: there are none */
    const uint64_t *protect;            /* bits of positions [0, n_tokens); NULL: none */
    const uint8_t *flags;               /* (n_tokens) WN_FLAG_; NULL: nobody wants them */
    const int32_t *spans;               /* (n_tokens); NULL: nobody wants them */
    wn_arena *scratch;
    float *rows[2];                     /* room for the keys and the values of the longest lane */
    float *queries;                     /* room for a lane's */
    const wn_stat *stats;               /* (n_stats) that can be asked for, in the order of the
                                           policy's list */
    int n_stats;
    float *stat_rows[WN_STATS_MAX];     /* room for the longest lane, each */
    float *outputs;                     /* room for the longest lane */
    int window;                         /* queries that were looked at */
    int held;                           /* queries that load_queries could give, window among
                                           them */
    const float *const *sums;           /* (n_lanes) each (group, n); NULL: not asked for */
    void *ctx;
    /* K (values false) or V rows of all live slots of a lane, in the order of its pos. */
    void (*load)(void *ctx, int lane, bool values, float *rows);
    /* Keys of the listed slots (ascending) as rows; all of a lane's, each of length 1, as columns:
     * some at a time, in any order. NULL: nobody knows how, load does. room: k_dim * (WN_VIEW_COLS
     * + 1) floats. */
    void (*load_keys)(void *ctx, int lane, const int32_t *slots, int n, float *rows);
    void (*unit_keys)(void *ctx, int lane, float *room, wn_view_cols_fn *each, void *each_ctx);
    void (*load_queries)(void *ctx, int lane, int w, float *rows);
    void (*load_stat)(void *ctx, int lane, int i, float *x);
    /* Of the view that asks: values and scratch are its own. False: no scratch. NULL: nobody wants
     * them. */
    bool (*load_outputs)(void *ctx, const wn_view *v, int lane, float *x);
    /* NULL: keys are not rotated */
    void (*turn)(void *ctx, int lane, float *row, int from, int to);
    const wn_profile *profile;          /* NULL: the policy asks for none */
    const wn_profile_budget *layers;    /* of it, for this decision; set by wn_policy_decide() */
    /* Who scores and settles lanes, each some of them; n_hands 0: the caller alone. */
    wn_threads *team;
    wn_view_hand *hands;
    int n_hands;
    bool lacking;                       /* a recipe asked for more scratch than there is */
    /* For who watches decisions; NULL: nobody does. */
    wn_verdict *verdicts;               /* (n_lanes) given zeroed, filled by wn_policy_decide() for
                                           recipes that score */
    unsigned *asked;                    /* gets WN_ASKED_ bits */
};

/* What load_keys and unit_keys do; false: nobody knows how. */
bool wn_view_load_keys(const wn_view *v, int lane, const int32_t *slots, int n, float *rows);
bool wn_view_unit_keys(const wn_view *v, int lane, float *room, wn_view_cols_fn *each, void *ctx);

/* The view as one thread has it: the same lanes; scratch, rows and asked of its own. What it
 * decides of its lanes goes into a plan of its own. */
struct wn_view_hand {
    wn_view view;
    unsigned asked;
    wn_plan *plan;
};

#endif
