/* policy/grammar.h - the text of a policy, taken apart; what the words mean is policy.c's.
 *
 *     spec   = call { "+" stage ":" call } [ "@" size ] { "," key [ "[" where "]" ] "=" word }
 *     call   = name [ "(" [ param { "," param } ] ")" ]
 *     param  = name "=" value
 *     size   = number "%"  |  whole number (slots)  |  number unit (bytes)
 *
 *     snapkv(window=32,kernel=5)@25%        streaming(sinks=4,window=1024)
 *     snapkv+alloc:ada(floor=0.2)+recover:d2o@20%,k=q4,v=q4,k[0..1,-1:2]=f16
 *
 * Spaces around words are ignored; a value may hold a + (1e+06); each parameter and key (with its
 * brackets) comes once; a leading "v1:" names this version of the grammar.
 */
#ifndef WN_POLICY_GRAMMAR_H
#define WN_POLICY_GRAMMAR_H

#include "base/err.h"

enum { WN_SPEC_PARAMS = 24, WN_SPEC_STAGES = 8, WN_SPEC_KEYS = 16, WN_SPEC_BYTES = 400 };

typedef struct { const char *name, *value; } wn_spec_param;

typedef struct {
    const char *name;
    wn_spec_param params[WN_SPEC_PARAMS];
    int n_params;
} wn_spec_call;

typedef enum { WN_BUDGET_NONE, WN_BUDGET_SHARE, WN_BUDGET_SLOTS, WN_BUDGET_BYTES } wn_budget_kind;

typedef struct {
    wn_spec_call head;
    struct { const char *stage; wn_spec_call call; } stages[WN_SPEC_STAGES];
    int n_stages;
    wn_budget_kind budget_kind;
    double budget;                      /* share 0 .. 1, slots per lane, or bytes */
    /* where: between brackets, or NULL */
    struct { const char *key, *where; wn_spec_call value; } keys[WN_SPEC_KEYS];
    int n_keys;
    char words[WN_SPEC_BYTES];          /* storage of all of the above */
} wn_spec;

/* WN_EINVAL with the place and what was expected there. */
wn_status wn_spec_parse(wn_spec *out, const char *text, wn_err *err);

#endif
