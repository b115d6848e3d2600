/* policy/profile.h - what has been measured of a model's heads, once, for policies.
 *
 * Some heads fetch tokens from anywhere in a text, most look at its first tokens and at the
 * last ones; which do what is a property of the model. `winnow profile` (eval/profile.h)
 * measures it and writes it beside the model; policies that ask for it (winnow_policy.h)
 * find it in their view. A profile holds
 *
 *     heads    scores of every query head, (n_layers, n_heads)
 *     lanes    the same for every lane, and what kind of lane it is
 *     layers   what each loses when it streams
 *     budgets  tables of slots per layer, each searched for a recipe and a budget
 *
 * and names the model it is of. The file is JSON (docs/profiles.md) with a checksum over what
 * it says, not over how it is spaced. Reading checks everything: kind, version, checksum,
 * every name, every length and range. What is in memory is what the file says to the last
 * digit, so the checksum names a profile, and sessions go by it.
 */
#ifndef WN_POLICY_PROFILE_H
#define WN_POLICY_PROFILE_H

#include "base/err.h"
#include "policy/grammar.h"
#include "winnow_policy.h"

enum { WN_PROFILE_VERSION = 1, WN_PROFILE_ID = 33 };

/* How it was measured. */
typedef struct {
    char numerics[32];                  /* "avx512/2" */
    char phrases[128];                  /* template of the needles */
    int context, n_needles, n_repeats;  /* tokens of a text; texts with a needle, of repeated
                                           tokens */
    int sinks, recent;                  /* first and last positions that a streaming head sees */
    int64_t seed;
    double answered;                    /* share of the needles' tokens that the model wrote by
                                           itself */
    double copy_from, stream_from;      /* a lane is retrieval from this copy on; else streaming
                                           from this stream on */
} wn_profile_how;

typedef struct {
    char policy[WN_SPEC_BYTES];         /* canonical text that was searched for, its table left
                                           out */
    char recipe[64];
    double share;                       /* budget, of the full cache */
    double *weight;                     /* (n_layers) slots of a lane, of the mean lane's; their
                                           mean is 1 */
    double even, found;                 /* what the search made smaller: with equal budgets, with
                                           these */
    int n_tried;
} wn_profile_budget;

typedef struct {
    char model[128];                    /* a name for people */
    uint8_t fingerprint[16];
    int n_layers, n_heads, n_lanes;     /* query heads of a layer; lanes of all layers */
    wn_profile_how how;
    wn_head_scores *heads;              /* (n_layers, n_heads) */
    wn_head_scores *lanes;              /* (n_lanes) */
    float *layer_loss;                  /* (n_layers) */
    wn_profile_budget *budgets; int n_budgets;
    char id[WN_PROFILE_ID];             /* checksum, hexadecimal; of what was read */
} wn_profile;

/* Zeroed, with room for so many. */
wn_status wn_profile_new(wn_profile **out, int n_layers, int n_heads, int n_lanes, wn_err *err);
void wn_profile_close(wn_profile *p);   /* NULL is fine */
/* Another table, weights zero; replaces the one for the same policy and share. */
wn_status wn_profile_add_budget(wn_profile *p, const char *policy, const char *recipe, double share,
                                wn_profile_budget **out, wn_err *err);

/* Adds another profile's tables of the same model. */
wn_status wn_profile_take_budgets(wn_profile *p, const wn_profile *from, wn_err *err);

/* From bytes, from a file. WN_EFORMAT: not a profile, damaged, or not sound; WN_EUNSUPPORTED:
 * of another version. */
wn_status wn_profile_parse(wn_profile **out, const char *json, size_t n, wn_err *err);
wn_status wn_profile_read(wn_profile **out, const char *path, wn_err *err);
/* The file's text, the caller's: free(). */
wn_status wn_profile_text(const wn_profile *p, char **out, wn_err *err);
/* To a temporary file, synced, renamed. */
wn_status wn_profile_write(const wn_profile *p, const char *path, wn_err *err);

/* Is it of this model? */
wn_status wn_profile_fits(const wn_profile *p, const uint8_t fingerprint[16], int n_layers,
                          int n_heads, int n_lanes, wn_err *err);
/* Has it what a policy needs (WN_PROFILE_*)? */
wn_status wn_profile_serves(const wn_profile *p, int needs, const char *recipe, wn_err *err);
/* Of the tables for a recipe that with the share nearest in ratio (ties: the smaller); NULL:
 * none. */
const wn_profile_budget *wn_profile_nearest(const wn_profile *p, const char *recipe, double share);

const char *wn_head_class_name(wn_head_class k);

#endif
