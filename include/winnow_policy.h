/* winnow_policy.h - what a cache policy sees, and what it may answer.
 *
 * A policy decides which slots of the key-value cache stay. It is asked at positions: at
 * multiples of `every` (boundaries) or where the caller set a mark, with everything that is
 * cached for the tokens [0, p) in const views, and answers with a plan. It touches no page:
 * the same recipe runs in the engine, in a unit test and over a recorded trace. What it
 * answers may depend on the view, its parameters and nothing else.
 *
 *     view (live slots, keys, values, recent queries, statistics)
 *       -> score, or the whole plan                           a recipe
 *       -> allocate budgets over lanes -> retain -> recover   shared stages
 *       -> plan (keep masks, merges, biases, shifts)          carried out by the cache
 *
 * A lane is one KV head of one layer; `group` query heads share it. Slots of a lane are
 * listed in ascending position; a slot may stand for several merged tokens (count > 1).
 * This header may still change.
 */
#ifndef WINNOW_POLICY_H
#define WINNOW_POLICY_H

#include "winnow.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the view ------------------------------------------------------------------- */

typedef struct wn_view wn_view;

typedef struct {
    int32_t layer, head;        /* of K and V */
    int32_t group;              /* query heads that read this lane */
    int32_t k_dim, v_dim;
    int32_t n;                  /* live slots */
    const int32_t *pos;         /* (n) ascending, each < n_tokens */
    const int32_t *count;       /* (n) tokens a slot stands for; NULL: one each */
    const float *bias;          /* (n) added to the logits; NULL: none */
    const bool *low;            /* (n) kept in the lower format of +recover:demote; NULL: none */
    int32_t n_low;              /* so many */
    bool still;                 /* queries and keys of this layer are not rotated */
} wn_view_lane;

int32_t wn_view_n_tokens(const wn_view *v);     /* p: tokens in the text so far */
int32_t wn_view_mark(const wn_view *v);         /* the last mark that the caller set, up to p; 0:
                                                   none */
int32_t wn_view_n_layers(const wn_view *v);
int32_t wn_view_n_lanes(const wn_view *v);      /* lanes of sliding-window layers show no slots */
const wn_view_lane *wn_view_get_lane(const wn_view *v, int lane);
/* Lanes [*from, *to) belong to a layer. */
void wn_view_layer(const wn_view *v, int layer, int *from, int *to);
/* Slots that all lanes together may keep; 0 .. n_lanes * n_tokens. */
int64_t wn_view_budget(const wn_view *v);
/* Must this position stay (first, last, special tokens, ranges the caller named)? */
bool wn_view_protects(const wn_view *v, int32_t pos);
/* What stands at a position, WN_FLAG_ bits; for recipes whose `wants` has WN_WANTS_FLAGS, else 0. A
 * special token is one that plain text cannot spell; punctuation is a token of nothing but that
 * (Unicode's categories P), spaces around it not counted. */
enum { WN_FLAG_SPECIAL = 1, WN_FLAG_PUNCTUATION = 2 };
unsigned wn_view_flags(const wn_view *v, int32_t pos);
/* Which span of the text a position belongs to, for recipes and stages whose `wants` has
 * WN_WANTS_SPANS, else 0. Spans are stretches that mean something as a whole (an example, an
 * instruction): those that the caller named (wn_seq_name_span()), numbered from 1 on in the order
 * of the text, and 0 for what lies in none of them; where nobody named any, the messages and
 * paragraphs of the text, without a gap. */
int32_t wn_view_span(const wn_view *v, int32_t pos);
/* Rows of the lane's live slots as floats, (n, k_dim) rotated keys or (n, v_dim) values;
 * borrowed until the next call of the same function. */
const float *wn_view_keys(const wn_view *v, int lane);
const float *wn_view_values(const wn_view *v, int lane);
/* What the last *w queries (the recipe's window, or as many as there are) attend to: per query
 * head of the group the sum of its weights over those queries, (group, n). Causal; each query's
 * weights over the live slots sum to 1, or to less in models with attention sinks. */
const float *wn_view_window(const wn_view *v, int lane, int *w);
/* Those queries themselves, rotated to their positions and scaled, (w, group, k_dim); the
 * oldest first. Borrowed until the next call. */
const float *wn_view_queries(const wn_view *v, int lane, int *w);
/* Statistic i of the recipe's list (below) of each live slot, (n). Borrowed until the same is
 * asked of another lane. */
const float *wn_view_stat(const wn_view *v, int lane, int i);
/* The plain sum: attention that each live slot has got from all queries since it came in, mean
 * over the group, (n). For recipes that list it, and stages that set `mass`. */
const float *wn_view_mass(const wn_view *v, int lane);
/* How much each live slot's value can change in the layer's answer, (n): the sum of magnitudes of
 * W_O v, W_O the columns of the output matrix that belong to a query head, mean over the group. For
 * recipes and stages whose `wants` has WN_WANTS_OUTPUTS; a product of each value with the matrix.
 * NULL: no scratch. Borrowed until the next call. */
const float *wn_view_outputs(const wn_view *v, int lane);
/* Turns a query or key (k_dim) of a lane by the mean of the rotations of `from` to `to` - 1
 * positions. */
void wn_view_turn(const wn_view *v, int lane, float *row, int from, int to);
/* Scratch that lives until the decision is over; NULL when there is none left (the plan
 * then fails with WN_ENOMEM). */
void *wn_view_scratch(const wn_view *v, size_t bytes);

/* ---- statistics of all queries --------------------------------------------------- */

/* One number x for each slot, brought up to date by every query from the slot's own on. A
 * query's weights over the live slots sum to 1 in each head; a is what they make over the heads
 * of the group. A statistic costs 4 bytes per slot, and each query's weights are accounted for.
 * A merged slot goes on with the numbers of the position it stands at. */
typedef enum {
    WN_STAT_SUM,                /* x <- decay x + a */
    WN_STAT_SQUARES,            /* x <- decay x + a a */
    WN_STAT_MAX,                /* x <- the larger of decay x and a */
    WN_STAT_HITS,               /* x <- decay x + 1 where a reaches the threshold, else decay x */
    WN_STAT_LAST,               /* position of the last query whose a reached it; at first the
                                   slot's own */
    WN_STAT_GAP,                /* the longest way between two such queries, as the LAST next in the
                                   list has them */
    WN_STAT_KINDS,
} wn_stat_kind;

typedef enum { WN_REDUCE_MEAN, WN_REDUCE_SUM, WN_REDUCE_MAX } wn_reduce;
#define WN_REDUCE_WORDS "mean|sum|max"

enum { WN_STATS_MAX = 5 };

typedef struct {
    wn_stat_kind kind;
    wn_reduce reduce;           /* over the heads of the group */
    float decay;                /* what is left of x at the next query, up to 1; 0: all of it */
    float threshold;            /* of HITS, LAST and GAP: above 0 */
    bool even;                  /* it counts in even shares: 1 / slots that the query sees */
    int near;                   /* queries so far away or farther change nothing; 0: all count */
    float within;               /* so do those that are farther away than this share of the text up
                                   to them, but for the slot's own; 0: all count */
    bool probe;                 /* set for recipes with a probe: of its queries, not of the
                                   text's */
} wn_stat;

/* ---- probes ------------------------------------------------------------------------ */

/* Tokens that run on a throw-away fork right before a decision, to see what of the text they look
 * at; nothing of them stays. The statistics of a recipe that has one are of the probe's queries on
 * the slots of the text, begun anew at each decision. Nothing is probed where nothing would be
 * decided. It costs a pass over the probe's tokens, and what they put into the cache meanwhile. */
typedef enum {
    WN_PROBE_REPEAT,            /* the text once more, `chunk` tokens at a time */
    WN_PROBE_AHEAD,             /* the next n tokens, always the likeliest; fewer where the text
                                   ends */
    WN_PROBE_EPISODES,          /* pieces of `chunk` tokens of the text that are typical of what it
                                   speaks of */
} wn_probe_kind;

enum { WN_EPISODES_MAX = 16 };

typedef struct {
    wn_probe_kind kind;
    const char *say;            /* what each chunk, or each episode, comes behind, up to 64 tokens;
                                   its own queries count for episodes only */
    int chunk;                  /* REPEAT: its queries see the chunk, protected slots, and the
                                   probe; 0: all of the text */
    int overlap;                /* tokens in front of a chunk that are repeated with it */
    int n;                      /* tokens ahead; pieces of an episode, the most typical ones */
    /* Pieces that are alike by their tokens' embeddings are an episode. Each has a fork of its own,
     * or with question > 0 there is but the one that the last so many tokens, no part of any piece,
     * are most like. */
    int episodes, question;
} wn_probe;

/* ---- what has been measured of the model ------------------------------------------- */

/* `winnow profile` (docs/profiles.md): attention of a query head, or of a lane, for which the
 * head of its group that needs the past most speaks. All but loss are shares, 0 .. 1. */
typedef enum { WN_HEAD_MIXED, WN_HEAD_RETRIEVAL, WN_HEAD_STREAMING } wn_head_class;
typedef struct {
    float needle;               /* attention on the value of a needle while it is written down */
    float copy;                 /* of the tokens written: the most attended token is the one that is
                                   copied */
    float span;                 /* attention on the sentences that hold the value */
    float induction, echo;      /* in repeated tokens: on what followed the token last times; on the
                                   token itself */
    float stream;               /* in plain text: on the first tokens and the last ones */
    float loss;                 /* what the layer's answers at needles change when this one sees
                                   only those, relative */
    wn_head_class kind;
} wn_head_scores;

/* What a recipe or a stage asks for in its table; without it there is nothing to be had below. */
enum { WN_PROFILE_HEADS = 1, WN_PROFILE_BUDGETS = 2 };
const wn_head_scores *wn_view_profile_lane(const wn_view *v, int lane);
const wn_head_scores *wn_view_profile_heads(const wn_view *v, int lane);   /* (group) */
/* What a layer loses when all of it streams; its slots of the mean lane's, as searched for
 * this recipe (of several such tables that with the budget nearest to the one at hand). */
double wn_view_profile_loss(const wn_view *v, int layer);
double wn_view_profile_weight(const wn_view *v, int layer);

/* ---- the plan ------------------------------------------------------------------- */

/* Entries speak of positions; lane may be WN_ALL_LANES; ranges are clipped to [0, p). The
 * first failure while building is remembered and reported when the plan is carried out. */
typedef struct wn_plan wn_plan;
enum { WN_ALL_LANES = -1, WN_SHIFTS_MAX = 8 };

void wn_plan_drop(wn_plan *p, int lane, int from, int to);
void wn_plan_keep_only(wn_plan *p, int lane, const int32_t *positions, int n);
/* Merge n live slots into one new slot at position `at`: K = sum wk_i K_i, V = sum wv_i V_i
 * in the order given. bias is added to its logit (a plain merge of c tokens: ln c); count is
 * how many tokens it stands for. All sources are cleared. */
void wn_plan_merge_slots(wn_plan *p, int lane, int at, const int32_t *src, const float *wk,
                         const float *wv, int n, float bias, int count);
void wn_plan_set_bias(wn_plan *p, int lane, int at, float bias);
/* These slots stay, in the lower format that the policy names (+recover:demote). One that is
 * there already stays there: there is no way back. */
void wn_plan_demote(wn_plan *p, int lane, const int32_t *positions, int n);
/* Positions [from, to) act as if they stood at position + delta. */
void wn_plan_shift(wn_plan *p, int lane, int from, int to, int delta);

/* ---- recipes -------------------------------------------------------------------- */

/* A format's value is its number for wn_recipe_format(), its default the name in words. */
typedef enum { WN_PARAM_INT, WN_PARAM_FLOAT, WN_PARAM_WORD, WN_PARAM_FORMAT } wn_param_kind;

typedef struct {
    const char *name;
    wn_param_kind kind;
    double initial, min, max;   /* of a word: its index */
    const char *words;          /* "mean|sum|max"; else NULL */
    const char *help;
} wn_param;

typedef enum {
    WN_CLASS_FULL,              /* drops nothing, takes no budget */
    WN_CLASS_BUDGETED,          /* @ says how much stays */
    WN_CLASS_BUDGET_FREE,       /* the data say how much stays; @ is a hard cap */
    WN_CLASS_HEAD_SHARE,        /* @ is the share of heads that are kept whole */
    WN_CLASS_PROBE,             /* runs extra tokens to see what matters */
} wn_recipe_class;

/* From where may a cached prefix be used again? (DESIGN.md section 8) */
typedef enum {
    WN_RESUME_ANY,              /* positions and keys are all it needs */
    WN_RESUME_WINDOW,           /* the last observed queries are computed again */
    WN_RESUME_RECORD,           /* accumulates: only where its statistics were stored */
} wn_resume_class;

enum { WN_AT_BOUNDARY = 1, WN_AT_MARK = 2 };

/* What a view holds only for those who ask for it. */
enum { WN_WANTS_FLAGS = 1, WN_WANTS_SPANS = 2, WN_WANTS_OUTPUTS = 4, WN_WANTS_ALL = 7 };

/* The values of a recipe's parameters, in the order of its table, and its budget. */
typedef struct {
    const double *v;
    bool has_budget;            /* was @ given? else the recipe's own sizes hold */
    int64_t lane_slots;         /* the budget per lane, mean, rounded down (with @) */
    int window;                 /* recent queries that the recipe reads; 0: none */
    int64_t whole_lanes;        /* head-share: lanes that keep everything */
} wn_params;

typedef struct {
    const char *name;           /* as in --kv */
    const char *family;         /* "test", "positions", "attention", "keys", "merging" ... */
    const char *source;         /* paper, year, section or equation */
    const char *about;          /* one or two sentences */
    const char *differs;        /* from the paper, or NULL */
    const char *cost;           /* per decision, and what it adds to attention */
    const wn_param *params;
    int n_params;
    wn_recipe_class kind;
    wn_resume_class resume;
    int at, at_default;         /* WN_AT_*: allowed, and without at= */
    int every;                  /* its default; 0: 512 */
    const char *budget;         /* without @: as in the grammar ("2048", "20%"); NULL: its own sizes
                                   hold */
    int (*window)(const wn_params *p);  /* recent queries it reads, 1 .. 64; NULL: none */
    int (*stats)(const wn_params *p, wn_stat *out);     /* what it asks wn_view_stat() for: how
                                                           many; NULL: nothing */
    void (*probe)(const wn_params *p, wn_probe *out);       /* NULL: none */
    int profile;                /* WN_PROFILE_*: what it needs of the model's profile; 0: nothing */
    const char *reads;          /* "keys", "keys, values": rows that its score reads; NULL: none */
    unsigned wants;             /* WN_WANTS_ */
    double first, last;         /* defaults of the protected slots at both ends */
    /* Either the whole plan ... */
    void (*plan)(const wn_view *v, const wn_params *p, wn_plan *out);
    /* ... or a score for each live slot of a lane, higher stays; the stages do the rest. */
    void (*score)(const wn_view *v, const wn_params *p, int lane, float *score);
    /* With scores, in place of the shared stages: slots per lane (their sum is the budget); which
     * of a lane's slots stay (stays (n), given false), so many in all, the protected ones among
     * them, and of the others those that skip names (NULL: none) left alone; what becomes of the
     * slots that do not stay. NULL: the same for every lane; the best; dropped. */
    void (*allocate)(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep);
    void (*retain)(const wn_view *v, const wn_params *p, int lane, const float *score, int64_t keep,
                   const bool *skip, bool *stays);
    void (*recover)(const wn_view *v, const wn_params *p, int lane, const bool *stays,
                    wn_plan *out);
    int (*spread)(const wn_params *p);  /* merges that one slot may be a source of; NULL: 1 */
    /* Most slots a lane holds right after a decision at p tokens, without @ (of a head-share
     * recipe: one that does not keep everything), protected ones beyond the recipe's own left out;
     * concave in p (constants and shares are). NULL: p. */
    int64_t (*cap)(const wn_params *p, int64_t n_tokens);
    bool serial;                /* score and recover want one lane at a time; else several threads
                                   may call them, each with a view of its own, and what they share
                                   must not change */
    bool ranks;                 /* allocate takes scratch for one more float of every slot */
    bool bounded;               /* what stays acts as if side by side: no distance exceeds what a
                                   lane holds */
} wn_recipe;

const wn_recipe *wn_recipe_at(int i);           /* NULL past the last */
const wn_recipe *wn_recipe_find(const char *name);
/* What every recipe takes beside its own parameters; NULL past the last. */
const wn_param *wn_recipe_common(int i);
const char *wn_recipe_format(int i);            /* cache formats for k= and v=; NULL past the
                                                   last */

/* What a cache format costs and allows; docs/formats.md says what its bytes mean. */
typedef struct {
    const char *name;
    bool encoded;               /* full pages are encoded, `lag` pages behind a query at the
                                   earliest */
    int lag;
    bool k_moves, v_moves;      /* a slot can be moved once it is encoded (for K: else boundaries
                                   wait for it) */
    double k_bytes[2], v_bytes[2];  /* of a token and head with 64 and with 128 channels, everything
                                       counted */
} wn_format_info;
bool wn_recipe_format_info(int i, wn_format_info *out);     /* false past the last */

/* ---- stages --------------------------------------------------------------------- */

/* snapkv+alloc:ada+retain:fair+recover:nearest: a stage takes the place of what a recipe that
 * scores would do by itself. params hold the stage's values, and the recipe's budget and window. */
typedef enum { WN_STAGE_ALLOC, WN_STAGE_RETAIN, WN_STAGE_RECOVER, WN_STAGE_KINDS } wn_stage_kind;

typedef struct {
    wn_stage_kind kind;
    const char *name, *source, *about;
    const char *differs;        /* from the source, or NULL */
    const wn_param *params;
    int n_params;
    bool window, mass;          /* asks for wn_view_window(), or wn_view_mass(): the recipe must
                                   look at the last queries, or at all of them, too */
    int profile;                /* as in a recipe */
    unsigned wants;             /* likewise */
    int slots;                  /* of a lane's budget that it fills itself */
    bool demotes;               /* what does not stay is kept in the formats that params k and v
                                   name */
    /* As in a recipe; NULL: the same for every lane, the best, dropped. */
    void (*allocate)(const wn_view *v, const wn_params *p, const float *const *scores,
                     int64_t *keep);
    void (*retain)(const wn_view *v, const wn_params *p, int lane, const float *score, int64_t keep,
                   const bool *skip, bool *stays);
    void (*recover)(const wn_view *v, const wn_params *p, int lane, const bool *stays,
                    wn_plan *out);
} wn_stage;

const wn_stage *wn_stage_at(int i);             /* NULL past the last */
const wn_stage *wn_stage_find(wn_stage_kind kind, const char *name);
const char *wn_stage_kind_name(int kind);       /* "alloc", "retain", "recover"; NULL past the
                                                   last */

/* ---- policies ------------------------------------------------------------------- */

/* Is this text a policy (recipe, parameters, stages, budget, formats)? WN_EINVAL says what is
 * wrong and what is possible. Needs no model. */
wn_status wn_policy_check(const char *text, wn_err *err);

/* ---- policies from elsewhere ------------------------------------------------------ */

/* A library of recipes has one symbol, `winnow_policy_plugin` (examples/policy.c). It calls
 * wn_view_* and wn_plan_* of the program that loads it, and stays loaded. */
enum { WN_POLICY_VERSION = 10 };                 /* of this header: any change to it changes this */

typedef struct {
    int version;                                /* WN_POLICY_VERSION */
    const wn_recipe *const *recipes;            /* up to a NULL */
} wn_policy_plugin;

/* Adds the library's recipes to the table, all of them or none; before other threads ask for
 * recipes. A library is code: it runs with the rights of the program. */
wn_status wn_policy_load(const char *path, wn_err *err);

#ifdef __cplusplus
}
#endif
#endif
